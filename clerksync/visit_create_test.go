package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// importRecord makes a record as an app does that imports its users: Clerk has never confirmed it.
func (fx *fixture) importRecord(t testing.TB, id string, change func(*clerksync.User)) {
	t.Helper()
	if _, err := fx.store.Store.Upsert(t.Context(), &clerksync.User{ClerkID: id, Role: clerksync.RoleAdmin}); err != nil {
		t.Fatal(err)
	}
	err := fx.store.Edit(id, func(u *clerksync.User) {
		u.SyncedAt, u.ClerkUpdatedAt = time.Time{}, time.Time{}
		if change != nil {
			change(u)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// failingUpserts is a Store whose Upserts fail.
type failingUpserts struct {
	*countingStore
	err error
}

func (s *failingUpserts) Upsert(context.Context, *clerksync.User) (clerksync.Result, error) {
	return clerksync.Result{}, s.err
}

var errTypeInTheWay = &clerksync.ConflictError{Field: "profile", Type: "array"}

// unmappable is a Map that fails.
func unmappable(*clerk.User, *clerksync.User) error { return errors.New("no plan") }

// unconfirmedCase is a first visit of a user whose record Clerk has never confirmed.
type unconfirmedCase struct {
	record func(*clerksync.User)
	clerk  func(fx *fixture, id string)
	change func(*fixture, *clerksync.Config)

	want    error  // of the first visit and of those after it
	code    string // of the Problem, instead
	partial bool   // the visit gets a Partial user
	calls   int    // to Clerk, for all visits
}

func unconfirmedCases() map[string]unconfirmedCase {
	ban := func(fx *fixture, id string) { _ = fx.clerk.BanUser(id) }
	down := func(fx *fixture, _ string) {
		fx.answerUsersWith(fakeclerk.ErrorFault(401, "clerk_key_invalid"))
	}
	suspend := func(u *clerksync.User) { u.IsActive = false }
	open := func(_ *fixture, c *clerksync.Config) { c.OnFailure = clerksync.FailOpen }
	typeInTheWay := func(fx *fixture, c *clerksync.Config) { c.Store = &failingUpserts{fx.store, errTypeInTheWay} }
	noMap := func(_ *fixture, c *clerksync.Config) { c.Map = unmappable }
	noCache := func(_ *fixture, c *clerksync.Config) { c.CacheTTL = -1 }
	type change = func(*fixture, *clerksync.Config)
	both := func(a, b change) change {
		return func(fx *fixture, c *clerksync.Config) { a(fx, c); b(fx, c) }
	}
	inactive, unknown, unavailable := clerksync.ErrUserInactive, clerksync.ErrUserUnknown, clerksync.ErrUnavailable
	return map[string]unconfirmedCase{
		"active in Clerk":                  {calls: 1},
		"active in Clerk, without a cache": {change: noCache, calls: 1},
		"banned in Clerk":                  {clerk: ban, want: inactive, calls: 1},
		"a version of the app's, without a cache": {
			record: func(u *clerksync.User) { u.ClerkUpdatedAt = t0.Add(time.Hour) }, change: noCache, calls: 1,
		},
		"a version of the app's, banned, without a cache": {
			record: func(u *clerksync.User) { u.ClerkUpdatedAt = t0.Add(time.Hour) }, clerk: ban, change: noCache, want: inactive, calls: 1,
		},
		"the e-mail is taken, without a cache": {clerk: func(fx *fixture, _ string) { fx.takeEmail() }, change: noCache, calls: 1},
		"the e-mail is taken, banned, without a cache": {clerk: func(fx *fixture, id string) {
			fx.takeEmail()
			ban(fx, id)
		}, change: noCache, want: inactive, calls: 1},
		"a type in the way, without a cache": {change: both(typeInTheWay, noCache), code: "conflict", calls: 1},
		"a type in the way, banned, without a cache": {
			clerk: ban, change: both(typeInTheWay, noCache), want: inactive, calls: 1,
		},
		"Map fails, without a cache":         {change: both(noMap, noCache), code: "mapping_failed", calls: 1},
		"Map fails, banned, without a cache": {clerk: ban, change: both(noMap, noCache), want: inactive, calls: 1},
		"banned by the app only":             {record: func(u *clerksync.User) { u.Banned = true }, calls: 1},
		"suspended":                          {record: suspend, want: inactive},
		"suspended, Clerk is down":           {record: suspend, clerk: down, want: inactive},
		"unknown to Clerk": {clerk: func(fx *fixture, id string) { _ = fx.clerk.DeleteUser(id) },
			want: unknown, calls: 1},
		"Clerk is down":             {clerk: down, want: unavailable, calls: 3},
		"Clerk is down, open":       {clerk: down, change: open, partial: true, calls: 3},
		"a type in the way":         {change: typeInTheWay, code: "conflict", calls: 1},
		"a type in the way, banned": {clerk: ban, change: typeInTheWay, want: inactive, calls: 1},
		"Map fails":                 {change: noMap, code: "mapping_failed", calls: 1},
		"Map fails, banned":         {clerk: ban, change: noMap, want: inactive, calls: 1},
		"the e-mail is taken":       {clerk: func(fx *fixture, _ string) { fx.takeEmail() }, calls: 1},
		"a version of the app's":    {record: func(u *clerksync.User) { u.ClerkUpdatedAt = t0.Add(time.Hour) }, calls: 1},
		"a version of the app's, banned": {record: func(u *clerksync.User) { u.ClerkUpdatedAt = t0.Add(time.Hour) },
			clerk: ban, want: inactive, calls: 1},
	}
}

// A record that Clerk has never confirmed lets nobody in: Clerk is read first.
func TestUnconfirmedRecord(t *testing.T) {
	t.Parallel()
	for name, tt := range unconfirmedCases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			fx.Syncer = fx.syncer(t, func(c *clerksync.Config) {
				c.RefreshAfter = -1
				if tt.change != nil {
					tt.change(fx, c)
				}
			})
			id := fx.clerk.CreateUser(fakeclerk.NewUser{Email: "ada@example.com"})
			fx.importRecord(t, id, tt.record)
			if tt.clerk != nil {
				tt.clerk(fx, id)
			}
			before := fx.userCalls()
			for range 3 {
				tt.visit(t, fx, id)
			}
			if n := fx.userCalls() - before; n != tt.calls {
				t.Errorf("%d calls to Clerk, want %d", n, tt.calls)
			}
		})
	}
}

func (tt *unconfirmedCase) visit(t *testing.T, fx *fixture, id string) {
	t.Helper()
	u, err := fx.User(t.Context(), id)
	var p *clerksync.Problem
	switch {
	case tt.code != "":
		if o := fx.seen.last(); !errors.As(o.Err, &p) || p.Code != tt.code || u != nil {
			t.Errorf("visit: %+v, %v; want the code %s", u, err, tt.code)
		}
	case tt.want != nil:
		if !errors.Is(err, tt.want) || u != nil {
			t.Errorf("visit: %+v, %v; want %v", u, err, tt.want)
		}
	case tt.partial:
		if err != nil || !u.Partial || u.Role != "" || u.ClerkID != id {
			t.Errorf("visit: %+v, %v; want a Partial user", u, err)
		}
	default:
		if err != nil || u.Role != clerksync.RoleAdmin || u.SyncedAt.IsZero() || u.Banned {
			t.Errorf("visit: %+v, %v; want an admin whom Clerk has confirmed", u, err)
		}
	}
}

// What Clerk said of a record that stays unconfirmed is remembered for a minute, unless a token is
// newer or something takes it back.
func TestUnconfirmedRecordIsRemembered(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) { c.CacheTTL, c.RefreshAfter = -1, -1 })
	id := fx.clerk.CreateUser(fakeclerk.NewUser{Email: "ada@example.com"})
	fx.importRecord(t, id, nil)
	fx.takeEmail()
	asks := func(what string, want int, visit func()) {
		t.Helper()
		before := fx.userCalls()
		for range 5 {
			visit()
		}
		if n := fx.userCalls() - before; n != want {
			t.Errorf("%s: %d calls to Clerk, want %d", what, n, want)
		}
	}
	plain := func() { visit(t, fx.Syncer, id) }
	asks("at first", 1, plain)
	fx.clock.Advance(59 * time.Second)
	asks("within a minute", 0, plain)
	fx.clock.Advance(time.Second)
	asks("after a minute", 1, plain)
	version := fx.version(t, id).UnixMilli()
	asks("a newer token", 1, func() { fx.visitWith(t, fx.Syncer, id, version) })
	fx.Forget(id)
	asks("after Forget", 1, plain)
	_ = fx.clerk.BanUser(id)
	if _, err := fx.Apply(t.Context(), fx.event(id)); err != nil {
		t.Fatal(err)
	}
	asks("after the event of a ban", 1, func() { visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive) })
}

// However many visits come at once, Clerk is asked once, and none is served before it answers.
func TestStampedeOnAnUnconfirmedRecord(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	fx.importRecord(t, id, nil)
	_ = fx.clerk.BanUser(id)
	held := fx.holdClerk()
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() { visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive) })
	}
	held.waitFor(t, 1)
	held.release()
	all.Wait()
	if fx.userCalls() != 1 {
		t.Errorf("%d calls to Clerk, want 1", fx.userCalls())
	}
}

// An outage does not bring an unconfirmed record into the cache, whatever wrote to it.
func TestUnconfirmedRecordIsNotOnStandby(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, fx.Syncer, id) // cached
	// The app restores an old backup.
	_ = fx.store.Edit(id, func(u *clerksync.User) {
		u.SyncedAt, u.ClerkUpdatedAt, u.Role = time.Time{}, t0.Add(time.Hour), clerksync.RoleAdmin
	})
	raw, _ := fx.clerk.User(id)
	res, err := fx.Apply(t.Context(), clerksync.Event{Type: "user.updated", Timestamp: t0.Add(time.Minute), Data: raw})
	if err != nil || res.Outcome != clerksync.Stale {
		t.Fatalf("event: %v, %v", res.Outcome, err)
	}
	fx.store.fail(errDown)
	if u, err := fx.User(t.Context(), id); err == nil && u.Role == clerksync.RoleAdmin {
		t.Errorf("an outage lets in %+v", u)
	}
}

// creationFailure is a creation that fails, and will again.
type creationFailure struct {
	change func(*fixture, *clerksync.Config)
	clerk  func(fx *fixture, id string)
	status int
	code   string
	length time.Duration // how long it is remembered
}

func creationFailures() map[string]creationFailure {
	upsertFails := func(err error) func(*fixture, *clerksync.Config) {
		return func(fx *fixture, c *clerksync.Config) { c.Store = &failingUpserts{fx.store, err} }
	}
	ban := func(fx *fixture, id string) { _ = fx.clerk.BanUser(id) }
	const most = 10 * time.Second
	return map[string]creationFailure{
		"Map": {func(_ *fixture, c *clerksync.Config) { c.Map = unmappable }, nil, 503, "mapping_failed", most},
		"RoleOf": {func(_ *fixture, c *clerksync.Config) {
			c.RoleOf = func(*clerk.User) clerksync.Role { panic("no role") }
		}, nil, 503, "mapping_failed", most},
		"a conflict": {nil, func(fx *fixture, _ string) { fx.takeEmail() }, 409, "conflict", most},
		"a type":     {upsertFails(errTypeInTheWay), nil, 409, "conflict", most},
		"rejected": {upsertFails(fmt.Errorf("validator: %w", clerksync.ErrRejected)), nil, 422, "rejected",
			most},
		"a ban that cannot be written": {upsertFails(errTypeInTheWay), ban, 403, "user_inactive", most},
		"the same without a cache": {func(fx *fixture, c *clerksync.Config) {
			c.Store, c.CacheTTL = &failingUpserts{fx.store, errTypeInTheWay}, -1
		}, ban, 403, "user_inactive", most},
		"unknown": {nil, func(fx *fixture, id string) { _ = fx.clerk.DeleteUser(id) }, 403, "user_unknown", most},
		"an unusable answer": {nil, func(fx *fixture, id string) {
			fx.answerUsersWith(&fakeclerk.Fault{Status: 200, Body: userJSON(id, t0.Add(48*time.Hour))})
		}, 503, "unavailable", 5 * time.Second},
	}
}

// start returns the id of a user whose creation fails.
func (tt *creationFailure) start(t *testing.T) (*fixture, string) {
	fx := newFixture(t, nil)
	fx.Syncer = fx.syncer(t, func(c *clerksync.Config) {
		if tt.change != nil {
			tt.change(fx, c)
		}
	})
	id := fx.clerk.CreateUser(fakeclerk.NewUser{Email: "ada@example.com"})
	if tt.clerk != nil {
		tt.clerk(fx, id)
	}
	return fx, id
}

// request is a request of the user through the middleware.
func (fx *fixture) request(id string, issuedAt *int64) answer {
	claims := &clerk.SessionClaims{RegisteredClaims: clerk.RegisteredClaims{Subject: id, IssuedAt: issuedAt}}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	return answerOf(fx.Middleware(&me{}), r.WithContext(clerk.ContextWithSessionClaims(r.Context(), claims)))
}

// A creation that failed is remembered: the requests of one user do not ask Clerk each.
func TestFailedCreationIsRemembered(t *testing.T) {
	t.Parallel()
	for name, tt := range creationFailures() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx, id := tt.start(t)
			before := fx.userCalls()
			for range 50 {
				checkProblem(t, fx.request(id, nil), tt.status, tt.code)
			}
			fx.clock.Advance(tt.length - time.Second)
			a := fx.request(id, nil)
			checkProblem(t, a, tt.status, tt.code)
			if after := a.header.Get("Retry-After"); tt.status == 503 && after != "1" {
				t.Errorf("Retry-After is %q, a second before Clerk may be asked again", after)
			}
			if n := fx.userCalls() - before; n != 1 {
				t.Errorf("%d calls to Clerk, want 1", n)
			}
			fx.clock.Advance(21 * time.Second) // past the cached ban too
			checkProblem(t, fx.request(id, nil), tt.status, tt.code)
			if n := fx.userCalls() - before; n != 2 {
				t.Errorf("%d calls to Clerk after a while, want 2", n)
			}
		})
	}
}

// An event for the user, or a Forget, takes a remembered failure back.
func TestFailedCreationIsTakenBack(t *testing.T) {
	t.Parallel()
	for name, takeBack := range map[string]func(t *testing.T, fx *fixture, id string){
		"by an event": func(t *testing.T, fx *fixture, id string) {
			raw, _ := fx.clerk.User(id)
			if _, err := fx.Apply(t.Context(), clerksync.Event{Type: "user.updated", Timestamp: fx.clock.Now(), Data: raw}); err != nil {
				t.Error(err)
			}
		},
		"by Forget": func(_ *testing.T, fx *fixture, id string) { fx.Forget(id) },
		"by Sync": func(t *testing.T, fx *fixture, id string) {
			if _, err := fx.Sync(t.Context(), id); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var fails = true
			fx := newFixture(t, func(c *clerksync.Config) {
				c.Map = func(*clerk.User, *clerksync.User) error {
					if fails {
						return errors.New("no plan")
					}
					return nil
				}
			})
			id := fx.clerk.CreateUser(fakeclerk.NewUser{})
			for range 2 {
				checkProblem(t, fx.request(id, nil), 503, "mapping_failed")
			}
			fails = false
			takeBack(t, fx, id)
			visit(t, fx.Syncer, id)
		})
	}
}

// Even an event that fails takes it back, because it says that something has changed.
func TestFailedEventTakesAFailureBack(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{Email: "ada@example.com"})
	fx.takeEmail()
	checkProblem(t, fx.request(id, nil), 409, "conflict")
	_ = fx.store.Edit("user_other", func(u *clerksync.User) { u.Email = "" })
	fx.store.fail(errDown)
	raw, _ := fx.clerk.User(id)
	if _, err := fx.Apply(t.Context(), clerksync.Event{Type: "user.updated", Timestamp: fx.clock.Now(), Data: raw}); err == nil {
		t.Fatal("the event was applied")
	}
	fx.store.fail(nil)
	visit(t, fx.Syncer, id)
}

// Clerk's API can lag behind a sign-up, so a new token's 404 is remembered for a second only.
func TestUnknownUserWithANewToken(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		age   time.Duration // of the token, at the first request; -1: no iat
		then  time.Duration // until the next one
		found bool          // it asks Clerk again
	}{
		"new, a second later":             {0, time.Second, true},
		"new, sooner":                     {0, 999 * time.Millisecond, false},
		"almost ten seconds":              {9 * time.Second, time.Second, true},
		"ten seconds":                     {10 * time.Second, time.Second, false},
		"ten seconds, ten later":          {10 * time.Second, 10 * time.Second, true},
		"from a clock ahead of ours":      {-5 * time.Second, time.Second, true},
		"from a clock far ahead of ours":  {-time.Minute, time.Second, false},
		"a token without the time":        {-1, time.Second, false},
		"a token without the time, later": {-1, 10 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			var issuedAt *int64
			if tt.age != -1 {
				issuedAt = clerk.Int64(t0.Add(-tt.age).Unix())
			}
			checkProblem(t, fx.request("user_new", issuedAt), 403, "user_unknown")
			checkProblem(t, fx.request("user_new", issuedAt), 403, "user_unknown")
			fx.clerk.CreateUser(fakeclerk.NewUser{ID: "user_new"})
			fx.clock.Advance(tt.then)
			if a := fx.request("user_new", issuedAt); (a.status == 200) != tt.found {
				t.Errorf("status %d, want asked again: %t", a.status, tt.found)
			}
		})
	}
}

// The time of the token counts behind RequireUser too, and beside visitors with older tokens.
func TestUnknownUserWithANewTokenThroughRequireUser(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	visitFails(t, fx.Syncer, "user_new", clerksync.ErrUserUnknown) // without a token: remembered for ten seconds
	fx.clerk.CreateUser(fakeclerk.NewUser{ID: "user_new"})
	fx.clock.Advance(time.Second)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+fx.clerk.SessionToken("user_new"))
	if a := answerOf(fx.RequireUser(&me{}), r); a.status != 200 {
		t.Errorf("status %d: %s", a.status, a.body)
	}
}

// limited has Clerk answer 429 with this Retry-After to every question for a user.
func (fx *fixture) limited(retryAfter string) {
	fault := fakeclerk.ErrorFault(429, "too_many_requests")
	fault.Header.Set("Retry-After", retryAfter)
	fx.answerUsersWith(fault)
}

// After a 429 nobody's visit or refresh asks Clerk until the time has passed that it asked for.
func TestPauseAfterRateLimit(t *testing.T) {
	t.Parallel()
	for retryAfter, length := range map[string]time.Duration{"10": 10 * time.Second, "60": time.Minute, "3600": time.Minute} {
		t.Run(retryAfter, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, func(c *clerksync.Config) { c.RefreshAfter = time.Nanosecond })
			known := fx.clerk.CreateUser(fakeclerk.NewUser{})
			visit(t, fx.Syncer, known)
			fx.clock.Advance(2 * time.Minute) // a refresh is due, and may be started
			ids := make([]string, 5)
			for i := range ids {
				ids[i] = fx.clerk.CreateUser(fakeclerk.NewUser{})
			}
			fx.limited(retryAfter)
			before := fx.userCalls()
			for range 10 {
				for _, id := range ids {
					checkProblem(t, fx.request(id, nil), 503, "unavailable")
				}
				visit(t, fx.Syncer, known)
				fx.waitForRefreshes()
			}
			if n := fx.userCalls() - before; n != 1 {
				t.Errorf("%d calls to a Clerk that asked for a pause", n)
			}
			fx.clerk.SetFault(nil)
			fx.clock.Advance(length - time.Second)
			a := fx.request(ids[0], nil)
			checkProblem(t, a, 503, "unavailable")
			if after := a.header.Get("Retry-After"); after != "1" {
				t.Errorf("Retry-After is %q, a second before the end", after)
			}
			fx.clock.Advance(time.Second)
			for _, id := range ids {
				visit(t, fx.Syncer, id)
			}
			before = fx.userCalls()
			visit(t, fx.Syncer, known)
			fx.waitForRefreshes()
			if fx.userCalls() == before {
				t.Error("no refresh after the pause")
			}
		})
	}
}

// Events and Syncs go through during a pause.
func TestPauseIsForVisitsOnly(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id, other := fx.clerk.CreateUser(fakeclerk.NewUser{}), fx.clerk.CreateUser(fakeclerk.NewUser{})
	fx.limited("30")
	if _, err := fx.Sync(t.Context(), id); !errors.Is(err, clerksync.ErrUnavailable) {
		t.Fatalf("Sync: %v", err)
	}
	fx.clerk.SetFault(nil)
	visitFails(t, fx.Syncer, id, clerksync.ErrUnavailable)
	if _, err := fx.Sync(t.Context(), id); err != nil {
		t.Errorf("Sync during a pause: %v", err)
	}
	visit(t, fx.Syncer, id)
	raw, _ := fx.clerk.User(other)
	if _, err := fx.Apply(t.Context(), clerksync.Event{Type: "user.created", Timestamp: fx.clock.Now(), Data: raw}); err != nil {
		t.Errorf("event during a pause: %v", err)
	}
	visit(t, fx.Syncer, other)
}

// limitedBackend answers 429, without the header that only a transport sees.
type limitedBackend struct{ calls int }

func (b *limitedBackend) Call(context.Context, *clerk.APIRequest, clerk.ResponseReader) error {
	b.calls++
	return &clerk.APIErrorResponse{HTTPStatusCode: 429, Errors: []clerk.Error{{Code: "too_many_requests"}}}
}

func TestPauseWithoutAdvice(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	backend := &limitedBackend{}
	s := fx.syncer(t, func(c *clerksync.Config) { *c = backendConfig(c, backend) })
	for range 50 {
		visitFails(t, s, "user_1", clerksync.ErrUnavailable)
	}
	if backend.calls != 1 {
		t.Errorf("%d calls, want 1", backend.calls)
	}
	fx.clock.Advance(time.Second)
	visitFails(t, s, "user_1", clerksync.ErrUnavailable)
	if backend.calls != 2 {
		t.Errorf("%d calls a second later, want 2", backend.calls)
	}
}

// backendConfig is c with a Backend instead of the client on HTTP.
func backendConfig(c *clerksync.Config, b clerk.Backend) clerksync.Config {
	c.SecretKey, c.APIURL, c.HTTPClient, c.Backend = "", "", nil, b
	return *c
}

// During a pause a known user is served, and a FailOpen app lets new ones in as Partial.
func TestPauseAndWhatIsKnown(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) { c.OnFailure = clerksync.FailOpen })
	known := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Old"})
	fx.visitWith(t, fx.Syncer, known, nil)
	fx.clock.Advance(time.Second)
	fx.rename(t, known, "New")
	fx.limited("30")
	for range 3 {
		if u, err := fx.User(t.Context(), "user_new"); err != nil || !u.Partial {
			t.Errorf("a new user: %+v, %v", u, err)
		}
	}
	if u := fx.visitWith(t, fx.Syncer, known, fx.version(t, known).UnixMilli()); u.Name != "Old" {
		t.Errorf("a known user with a newer token gets %s", u.Name)
	}
}

// What a visit wrote counts, even if reading it back fails.
func TestWrittenButNotReadBack(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(fx *fixture, id string)
		check  func(t *testing.T, fx *fixture, id string)
	}{
		"a ban": {
			func(fx *fixture, id string) { _ = fx.clerk.BanUser(id) },
			func(t *testing.T, fx *fixture, id string) { visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive) },
		},
		"a name": {
			func(fx *fixture, id string) {
				_ = fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("New") })
			},
			func(t *testing.T, fx *fixture, id string) {
				if u := visit(t, fx.Syncer, id); u.Name != "New" {
					t.Errorf("a visit gets %s", u.Name)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			s, store := fx.hooked(t, 6*time.Hour)
			fx.Syncer = s
			store.withholds = true
			id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Old"})
			visit(t, s, id)
			tt.change(fx, id)
			fx.clock.Advance(2 * time.Hour)
			store.afterUpsert = func() { fx.store.fail(errDown) }
			visit(t, s, id) // refreshes behind: writes, and cannot read back
			fx.waitForRefreshes()
			fx.store.fail(nil)
			tt.check(t, fx, id)
		})
	}
}

// A Store that returns neither a record nor an error is unavailable, and blocks nothing.
func TestStoreReturnsNothing(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	store := &emptyStore{countingStore: fx.store}
	s := fx.syncer(t, func(c *clerksync.Config) { c.Store = store })
	visitFails(t, s, id, clerksync.ErrUnavailable)
	visit(t, fx.Syncer, id)
	if _, err := s.Sync(t.Context(), id); err != nil {
		t.Error(err)
	}
	clerksync.Refresh(s, id)
	s.Forget(id)
	visitFails(t, s, id, clerksync.ErrUnavailable)
}

type emptyStore struct{ *countingStore }

func (s *emptyStore) User(context.Context, string) (*clerksync.User, error) { return nil, nil }

func (s *emptyStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	res, err := s.countingStore.Upsert(ctx, u)
	res.User = nil
	return res, err
}
