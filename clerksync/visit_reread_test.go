package clerksync_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

func TestNewerTokenReReads(t *testing.T) {
	t.Parallel()
	for name, form := range map[string]func(time.Time) any{
		"milliseconds":           func(at time.Time) any { return at.UnixMilli() },
		"milliseconds in a text": func(at time.Time) any { return strconv.FormatInt(at.UnixMilli(), 10) },
		"seconds":                func(at time.Time) any { return at.Unix() },
		"seconds in a text":      func(at time.Time) any { return strconv.FormatInt(at.Unix(), 10) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			replica := fx.syncer(t, nil)
			id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Old"})
			for _, s := range []*clerksync.Syncer{fx.Syncer, replica} {
				fx.visitWith(t, s, id, form(fx.version(t, id)))
			}
			fx.clock.Advance(time.Second)
			fx.rename(t, id, "New") // the webhook is lost, and the session token is renewed
			if u := visit(t, fx.Syncer, id); u.Name != "Old" {
				t.Fatalf("without a claim the cache served %s", u.Name)
			}
			calls := fx.userCalls()
			if u := fx.visitWith(t, fx.Syncer, id, form(fx.version(t, id))); u.Name != "New" ||
				fx.userCalls() != calls+1 {
				t.Errorf("the handler got %s after %d Clerk calls", u.Name, fx.userCalls()-calls)
			}
			if u := fx.visitWith(t, replica, id, form(fx.version(t, id))); u.Name != "New" || fx.userCalls() != calls+1 {
				t.Errorf("in the replica the handler got %s after %d Clerk calls; the Store has it", u.Name,
					fx.userCalls()-calls)
			}
			fx.visitWith(t, fx.Syncer, id, form(fx.version(t, id)))
			if fx.userCalls() != calls+1 {
				t.Error("the same claim caused another call")
			}
		})
	}
}

func TestNewerTokenThroughTheSDK(t *testing.T) {
	t.Parallel()
	for name, custom := range map[string]any{
		"alone":    &clerksync.FreshnessClaims{},
		"embedded": &struct{ clerksync.FreshnessClaims }{},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Old"})
			visit(t, fx.Syncer, id)
			fx.rename(t, id, "New")
			raw := json.RawMessage(`{"updated_at":` + strconv.FormatInt(fx.version(t, id).UnixMilli(), 10) + `}`)
			if err := json.Unmarshal(raw, custom); err != nil {
				t.Fatal(err)
			}
			claims := &clerk.SessionClaims{RegisteredClaims: clerk.RegisteredClaims{Subject: id}, Custom: custom}
			var got *clerksync.User
			h := fx.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				got, _ = clerksync.UserFromContext(r.Context())
			}))
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			h.ServeHTTP(httptest.NewRecorder(), r.WithContext(clerk.ContextWithSessionClaims(r.Context(), claims)))
			if got == nil || got.Name != "New" {
				t.Errorf("the handler got %+v", got)
			}
		})
	}
}

// A claim does not cause a call per request, whatever Clerk answers.
func TestClaimAheadOfClerkAsksOnce(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	fx.visitWith(t, fx.Syncer, id, 0)
	claim := fx.version(t, id).Add(time.Hour).UnixMilli()
	for range 5 {
		fx.visitWith(t, fx.Syncer, id, claim)
		fx.Forget(id)
	}
	if got := fx.userCalls(); got != 2 {
		t.Errorf("%d Clerk calls, want the first visit's and one more", got)
	}
	fx.visitWith(t, fx.Syncer, id, claim+1)
	if got := fx.userCalls(); got != 3 {
		t.Errorf("%d Clerk calls after another claim", got)
	}
	fx.visitWith(t, fx.Syncer, id, claim)
	if got := fx.userCalls(); got != 3 {
		t.Errorf("%d Clerk calls after the first claim came again", got)
	}
}

func TestClaimWhileClerkIsDown(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Old"})
	fx.visitWith(t, fx.Syncer, id, 0)
	fx.rename(t, id, "New")
	claim := fx.version(t, id).UnixMilli()
	fx.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
		if r.URL.Path == "/v1/jwks" {
			return nil
		}
		return fakeclerk.ErrorFault(401, "clerk_key_invalid")
	})
	for range 5 {
		if u := fx.visitWith(t, fx.Syncer, id, claim); u.Name != "Old" {
			t.Errorf("served %s", u.Name)
		}
	}
	if got := fx.userCalls(); got != 2 {
		t.Errorf("%d Clerk calls, want one in vain", got)
	}
	fx.clerk.SetFault(nil)
	fx.clock.Advance(time.Minute)
	if u := fx.visitWith(t, fx.Syncer, id, claim); u.Name != "New" {
		t.Errorf("a minute later it served %s", u.Name)
	}
}

func TestClaimsThatAreNotTimes(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	fx.visitWith(t, fx.Syncer, id, nil)
	for _, claim := range []any{
		"", "soon", "{{user.updated_at}}", true, 1.5, -1, 0, []int{1}, map[string]any{"a": 1}, "1e400",
		"99999999999999999999",
		t0.Add(25 * time.Hour).UnixMilli(), t0.Add(25 * time.Hour).Unix(), "2026-03-01T12:00:00Z",
	} {
		fx.visitWith(t, fx.Syncer, id, claim)
		if got := fx.userCalls(); got != 1 {
			t.Fatalf("the claim %v caused a Clerk call", claim)
		}
	}
}

func TestTokenThatConfirmsPutsOffTheRefresh(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		claim func(version time.Time) any
		syncs time.Duration // after the version
		calls int           // to Clerk, 23 hours later
	}{
		"no claim":                {func(time.Time) any { return nil }, time.Minute, 2},
		"milliseconds, same":      {func(v time.Time) any { return v.UnixMilli() }, 0, 1},
		"milliseconds, older":     {func(v time.Time) any { return v.UnixMilli() - 1 }, time.Minute, 2},
		"seconds, confirmed late": {func(v time.Time) any { return v.Unix() }, 2 * time.Second, 1},
		"seconds, confirmed soon": {func(v time.Time) any { return v.Unix() }, time.Second, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			id := fx.clerk.CreateUser(fakeclerk.NewUser{})
			fx.clock.Advance(tt.syncs)
			fx.visitWith(t, fx.Syncer, id, nil)
			fx.clock.Advance(23 * time.Hour)
			fx.visitWith(t, fx.Syncer, id, tt.claim(fx.version(t, id)))
			fx.waitForRefreshes()
			if got := fx.userCalls(); got != tt.calls {
				t.Errorf("%d Clerk calls, want %d", got, tt.calls)
			}
			fx.clock.Advance(2 * time.Hour)
			fx.visitWith(t, fx.Syncer, id, tt.claim(fx.version(t, id)))
			fx.waitForRefreshes()
			if got := fx.userCalls(); got < 2 {
				t.Error("no refresh after a day")
			}
		})
	}
}

func TestClaimOfAnotherName(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) { c.Auth.FreshnessClaim = "ver" })
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Old"})
	fx.visitWith(t, fx.Syncer, id, nil)
	fx.rename(t, id, "New")
	if u := fx.visitWith(t, fx.Syncer, id, fx.version(t, id).UnixMilli()); u.Name != "Old" {
		t.Errorf("the default's name still counts: %s", u.Name)
	}
	token, err := fx.clerk.Token(id, fakeclerk.TokenOptions{Claims: map[string]any{"ver": fx.version(t,
		id).UnixMilli()}})
	if err != nil {
		t.Fatal(err)
	}
	h := fx.RequireUser(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if u, _ := clerksync.UserFromContext(r.Context()); u.Name != "New" {
			t.Errorf("the handler got %s", u.Name)
		}
	}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "bearer "+token)
	h.ServeHTTP(httptest.NewRecorder(), r)
}

// Visits with the same newer token share one re-read, and none gets the old record.
func TestNewerTokensAtOnce(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Old"})
	fx.visitWith(t, fx.Syncer, id, nil)
	fx.rename(t, id, "New")
	token, err := fx.clerk.Token(id, fakeclerk.TokenOptions{Claims: map[string]any{"updated_at": fx.version(t,
		id).UnixMilli()}})
	if err != nil {
		t.Fatal(err)
	}
	h := fx.RequireUser(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if u, _ := clerksync.UserFromContext(r.Context()); u.Name != "New" {
			t.Errorf("a handler got %s", u.Name)
		}
	}))
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			h.ServeHTTP(httptest.NewRecorder(), r)
		})
	}
	all.Wait()
	if got := fx.userCalls(); got != 2 {
		t.Errorf("%d Clerk calls, want the first visit's and one re-read", got)
	}
}

// A re-read, by Sync or by a refresh, may find the record in any state. Its Observation has the
// Store's Outcome.
func TestEveryOutcomeOfAReRead(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		arrange func(t *testing.T, fx *fixture, id string) // the record is two hours old
		want    clerksync.Outcome
	}{
		"equal": {func(*testing.T, *fixture, string) {}, clerksync.Unchanged},
		"older": {func(t *testing.T, fx *fixture, id string) { fx.rename(t, id, "Ada") }, clerksync.Updated},
		"newer": {func(_ *testing.T, fx *fixture, id string) { newerRecord(fx, id) }, clerksync.Stale},
		"deleted": {func(t *testing.T, fx *fixture, id string) {
			_, _ = fx.store.Deactivate(t.Context(), id, t0)
		}, clerksync.Deactivated},
	} {
		for _, op := range []clerksync.Op{clerksync.OpSync, clerksync.OpRefresh} {
			t.Run(fmt.Sprint(op, ", ", name), func(t *testing.T) {
				t.Parallel()
				fx := newFixture(t, func(c *clerksync.Config) { c.CacheTTL = 3 * time.Hour })
				id := fx.clerk.CreateUser(fakeclerk.NewUser{})
				if res, err := fx.Sync(t.Context(), id); err != nil || res.Outcome != clerksync.Created {
					t.Fatalf("Sync without a record: %+v, %v", res, err)
				}
				visit(t, fx.Syncer, id)
				fx.clock.Advance(2 * time.Hour)
				tt.arrange(t, fx, id)
				fx.seen.all = nil
				if op == clerksync.OpSync {
					if res, err := fx.Sync(t.Context(), id); err != nil || res.Outcome != tt.want {
						t.Errorf("Sync: %+v, %v; want %v", res, err, tt.want)
					}
				} else {
					visit(t, fx.Syncer, id)
					fx.waitForRefreshes()
				}
				i := slices.IndexFunc(fx.seen.all, func(o clerksync.Observation) bool { return o.Op == op })
				if i < 0 || fx.seen.all[i].ClerkID != id || fx.seen.all[i].Outcome != tt.want ||
					fx.seen.all[i].Err != nil {
					t.Errorf("observed %+v, want %s %v", fx.seen.all, op, tt.want)
				}
				if tt.want == clerksync.Deactivated {
					visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
				} else if served, stored := visit(t, fx.Syncer, id),
					fx.stored(t, id); served.Name != stored.Name ||
					!served.ClerkUpdatedAt.Equal(stored.ClerkUpdatedAt) {
					t.Errorf("serves %+v, stored is %+v", served, stored)
				}
			})
		}
	}
}

// While a visit asks Clerk whether a ban was lifted, other visits of the user wait for the answer too.
func TestLiftedBanIsWaitedFor(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	if err := fx.clerk.BanUser(id); err != nil {
		t.Fatal(err)
	}
	visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
	fx.clock.Advance(50 * time.Second)
	visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive) // cached anew
	if err := fx.clerk.UnbanUser(id); err != nil {
		t.Fatal(err)
	}
	fx.clock.Advance(11 * time.Second)
	asked, answer := make(chan struct{}), make(chan struct{})
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { close(asked); <-answer; return nil })
	var all sync.WaitGroup
	all.Go(func() { visit(t, fx.Syncer, id) })
	<-asked
	come := make(chan struct{})
	for range 8 {
		all.Go(func() { come <- struct{}{}; visit(t, fx.Syncer, id) })
	}
	for range 8 {
		<-come
	}
	for range 10_000 { // long enough to be refused; a shorter wait could only hide a bug
		runtime.Gosched()
	}
	close(answer)
	all.Wait()
	if n := fx.userCalls(); n != 2 {
		t.Errorf("%d Clerk calls, want the first visit's and one re-read", n)
	}
}

func TestRefreshBehindAVisit(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Old"})
	visit(t, fx.Syncer, id)
	_ = fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) {
		u.FirstName = clerk.String("New")
	}) // the webhook is lost

	fx.clock.Advance(time.Hour)
	if u := visit(t, fx.Syncer, id); u.Name != "Old" || fx.userCalls() != 1 {
		t.Fatalf("at one hour: %s after %d Clerk calls", u.Name, fx.userCalls())
	}
	fx.clock.Advance(time.Millisecond)
	if u := visit(t, fx.Syncer, id); u.Name != "Old" {
		t.Errorf("past one hour the visit itself got %s", u.Name)
	}
	_ = fx.Close() // waits for the refresh
	if u := visit(t, fx.Syncer, id); u.Name != "New" || fx.userCalls() != 2 {
		t.Errorf("after the refresh: %s after %d Clerk calls", u.Name, fx.userCalls())
	}
}

func TestRefreshIsTriedOnceAMinute(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) { c.RefreshAfter = time.Second })
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, fx.Syncer, id)
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return fakeclerk.ErrorFault(401, "clerk_key_invalid") })
	fx.clock.Advance(time.Minute)
	for range 10 {
		visit(t, fx.Syncer, id)
		fx.waitForRefreshes()
		fx.clock.Advance(6 * time.Second)
	}
	if got := fx.userCalls(); got != 2 {
		t.Errorf("%d Clerk calls, want the first visit's and one refresh", got)
	}
	visit(t, fx.Syncer, id)
	fx.waitForRefreshes()
	if got := fx.userCalls(); got != 3 {
		t.Errorf("%d Clerk calls a minute later, want 3", got)
	}
}

func TestNoRefreshIfTurnedOff(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) { c.RefreshAfter = -1 })
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, fx.Syncer, id)
	fx.clock.Advance(1000 * time.Hour)
	visit(t, fx.Syncer, id)
	fx.waitForRefreshes()
	if fx.userCalls() != 1 {
		t.Errorf("%d Clerk calls", fx.userCalls())
	}
}

func TestRefreshesAreBounded(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	var ids []string
	for range 3 * clerksync.MaxRefreshers {
		id := fx.clerk.CreateUser(fakeclerk.NewUser{})
		visit(t, fx.Syncer, id)
		ids = append(ids, id)
	}
	first := fx.userCalls()
	fx.clock.Advance(2 * time.Hour)
	release := make(chan struct{})
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { <-release; return nil })
	for _, id := range ids {
		visit(t, fx.Syncer, id)
	}
	close(release)
	fx.waitForRefreshes()
	if got := fx.userCalls() - first; got != clerksync.MaxRefreshers {
		t.Errorf("%d refreshes at once, want %d", got, clerksync.MaxRefreshers)
	}
	for _, id := range ids { // those beyond the limit are refreshed later
		visit(t, fx.Syncer, id)
		fx.waitForRefreshes()
	}
	if got := fx.userCalls() - first; got != len(ids) {
		t.Errorf("%d refreshes in all, want %d", got, len(ids))
	}
}

func TestLiftedBanIsSeenAfterAMinute(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	_ = fx.clerk.BanUser(id)
	visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
	_ = fx.clerk.UnbanUser(id) // the webhook is lost
	fx.clock.Advance(time.Minute)
	visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
	fx.clock.Advance(time.Millisecond)
	visit(t, fx.Syncer, id)
}

// While Clerk cannot say whether a ban was lifted, the banned user's visits do not read the Store
// each time.
func TestBanIsCachedWhileClerkIsDown(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	if err := fx.clerk.BanUser(id); err != nil {
		t.Fatal(err)
	}
	if _, err := fx.Sync(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return &fakeclerk.Fault{Status: 500} })
	fx.clock.Advance(2 * time.Minute)
	before := fx.store.users.Load()
	for range 100 {
		visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
	}
	if n := fx.store.users.Load() - before; n > 2 {
		t.Errorf("100 visits read the Store %d times", n)
	}
}

func TestBanStandsWhileClerkIsDown(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) { c.OnFailure = clerksync.FailOpen })
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	_ = fx.clerk.BanUser(id)
	visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return fakeclerk.ErrorFault(401, "x") })
	for range 5 {
		fx.clock.Advance(61 * time.Second)
		visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
		visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
	}
	if got := fx.userCalls(); got > 6 {
		t.Errorf("%d Clerk calls for one banned user in five minutes", got)
	}
}

func TestSyncedAtInTheFutureIsNotBelieved(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, fx.Syncer, id)
	_ = fx.store.Edit(id, func(u *clerksync.User) { u.SyncedAt = t0.Add(48 * time.Hour) })
	fx.Forget(id)
	fx.clock.Advance(time.Minute)
	visit(t, fx.Syncer, id)
	fx.waitForRefreshes()
	if fx.userCalls() != 2 {
		t.Errorf("%d Clerk calls: a record confirmed in the future was not re-read", fx.userCalls())
	}
}
