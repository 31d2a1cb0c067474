package clerksync_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// visitWith sends a request of the user's with the given freshness claim through
// RequireUser, and returns the record that the handler got.
func (fx *fixture) visitWith(t testing.TB, s *clerksync.Syncer, id string, claim any) *clerksync.User {
	t.Helper()
	token, err := fx.clerk.Token(id, fakeclerk.TokenOptions{Claims: map[string]any{"updated_at": claim}})
	if err != nil {
		t.Fatal(err)
	}
	var got *clerksync.User
	h := s.RequireUser(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got, _ = clerksync.UserFromContext(r.Context()) }))
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if got == nil {
		t.Fatalf("refused: %d %s", rec.Code, rec.Body)
	}
	return got
}

// version is the user's updated_at at Clerk.
func (fx *fixture) version(t testing.TB, id string) time.Time {
	t.Helper()
	raw, _ := fx.clerk.User(id)
	var u clerk.User
	if err := json.Unmarshal(raw, &u); err != nil {
		t.Fatal(err)
	}
	return time.UnixMilli(u.UpdatedAt)
}

func (fx *fixture) rename(t testing.TB, id, name string) {
	t.Helper()
	if err := fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String(name) }); err != nil {
		t.Fatal(err)
	}
}

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
			fx.rename(t, id, "New") // the webhook is lost, the session token renewed
			if u := visit(t, fx.Syncer, id); u.Name != "Old" {
				t.Fatalf("without a claim the cache served %s", u.Name)
			}
			calls := fx.lookups()
			if u := fx.visitWith(t, fx.Syncer, id, form(fx.version(t, id))); u.Name != "New" || fx.lookups() != calls+1 {
				t.Errorf("the handler got %s after %d Clerk calls", u.Name, fx.lookups()-calls)
			}
			if u := fx.visitWith(t, replica, id, form(fx.version(t, id))); u.Name != "New" || fx.lookups() != calls+1 {
				t.Errorf("in the replica the handler got %s after %d Clerk calls; the Store has it", u.Name, fx.lookups()-calls)
			}
			fx.visitWith(t, fx.Syncer, id, form(fx.version(t, id)))
			if fx.lookups() != calls+1 {
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
			h := fx.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got, _ = clerksync.UserFromContext(r.Context()) }))
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			h.ServeHTTP(httptest.NewRecorder(), r.WithContext(clerk.ContextWithSessionClaims(r.Context(), claims)))
			if got == nil || got.Name != "New" {
				t.Errorf("the handler got %+v", got)
			}
		})
	}
}

// No claim can cause a call per request, whatever Clerk answers.
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
	if got := fx.lookups(); got != 2 {
		t.Errorf("%d Clerk calls, want the first visit's and one more", got)
	}
	fx.visitWith(t, fx.Syncer, id, claim+1)
	if got := fx.lookups(); got != 3 {
		t.Errorf("%d Clerk calls after another claim", got)
	}
	fx.visitWith(t, fx.Syncer, id, claim)
	if got := fx.lookups(); got != 3 {
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
	if got := fx.lookups(); got != 2 {
		t.Errorf("%d Clerk calls, want one in vain", got)
	}
	fx.clerk.SetFault(nil)
	fx.clock.Advance(time.Minute)
	if u := fx.visitWith(t, fx.Syncer, id, claim); u.Name != "New" {
		t.Errorf("a minute later it served %s", u.Name)
	}
}

func TestClaimsThatAreNoTime(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	fx.visitWith(t, fx.Syncer, id, nil)
	for _, claim := range []any{
		"", "soon", "{{user.updated_at}}", true, 1.5, -1, 0, []int{1}, map[string]any{"a": 1}, "1e400", "99999999999999999999",
		t0.Add(25 * time.Hour).UnixMilli(), t0.Add(25 * time.Hour).Unix(), "2026-03-01T12:00:00Z",
	} {
		fx.visitWith(t, fx.Syncer, id, claim)
		if got := fx.lookups(); got != 1 {
			t.Fatalf("the claim %v caused a Clerk call", claim)
		}
	}
}

func TestConfirmingTokenStretchesRefreshAfter(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		claim func(version time.Time) any
		syncs time.Duration // after the version
		calls int           // of Clerk, 23 hours later
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
			if got := fx.lookups(); got != tt.calls {
				t.Errorf("%d Clerk calls, want %d", got, tt.calls)
			}
			fx.clock.Advance(2 * time.Hour)
			fx.visitWith(t, fx.Syncer, id, tt.claim(fx.version(t, id)))
			fx.waitForRefreshes()
			if got := fx.lookups(); got < 2 {
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
	token, err := fx.clerk.Token(id, fakeclerk.TokenOptions{Claims: map[string]any{"ver": fx.version(t, id).UnixMilli()}})
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

// Many visits with the same newer claim share one re-read, and none of them gets
// the record of before.
func TestNewerTokensAtOnce(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Old"})
	fx.visitWith(t, fx.Syncer, id, nil)
	fx.rename(t, id, "New")
	token, err := fx.clerk.Token(id, fakeclerk.TokenOptions{Claims: map[string]any{"updated_at": fx.version(t, id).UnixMilli()}})
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
	if got := fx.lookups(); got != 2 {
		t.Errorf("%d Clerk calls, want the first visit's and one re-read", got)
	}
}
