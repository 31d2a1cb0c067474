package clerksync_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// world is an app between a fake Clerk and a Store in memory, in a time of its own.
type fixture struct {
	clock *fakeclerk.Clock
	clerk *fakeclerk.Server
	store *countingStore
	*clerksync.Syncer
	logs *logBuffer
	seen observations
}

// sharedInstance is the Clerk instance of all worlds that do not ask for one of their own: they share its
// signing key, which takes long to make.
const sharedInstance = "ins_shared"

func newFixture(t testing.TB, change func(*clerksync.Config)) *fixture {
	t.Helper()
	return startFixture(t, fakeclerk.Config{RateLimit: -1}, change)
}

func startFixture(t testing.TB, instance fakeclerk.Config, change func(*clerksync.Config)) *fixture {
	t.Helper()
	fx := &fixture{clock: fakeclerk.NewClock(t0), logs: &logBuffer{}}
	instance.Clock = fx.clock
	instance.InstanceID = cmp.Or(instance.InstanceID, sharedInstance)
	var err error
	if fx.clerk, err = fakeclerk.Start(instance); err != nil {
		t.Fatal(err)
	}
	fx.store = &countingStore{faultyStore: faultyStore{Store: memstore.New()}}
	fx.store.Now = fx.clock.Now
	t.Cleanup(func() { _ = fx.clerk.Close() })
	fx.Syncer = fx.syncer(t, change)
	return fx
}

// syncer returns one more Syncer of the same world, as another process would have.
func (fx *fixture) syncer(t testing.TB, change func(*clerksync.Config)) *clerksync.Syncer {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	cfg := clerksync.Config{
		Store: fx.store, SecretKey: fx.clerk.SecretKey(), APIURL: fx.clerk.APIURL(), HTTPClient: client,
		Now: fx.clock.Now, Logger: fx.logs.logger(), Observe: fx.seen.add,
	}
	clerksync.SetClock(&cfg, eagerClock{fx.clock})
	if change != nil {
		change(&cfg)
	}
	s, err := clerksync.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Close()
		client.CloseIdleConnections()
	})
	return s
}

// lookups is how often Clerk was asked for one user.
func (fx *fixture) lookups() int { return fx.clerk.Calls("GET /v1/users/{id}") }

// eagerClock passes each wait as soon as it begins. The timeouts fire when that, or
// a test, moves the clock so far.
type eagerClock struct{ *fakeclerk.Clock }

func (c eagerClock) Sleep(ctx context.Context, d time.Duration) error {
	c.Advance(d)
	return context.Cause(ctx)
}

// countingStore counts the calls, each of which is a round trip at least.
type countingStore struct {
	faultyStore
	users, upserts atomic.Int32
	before         func() // runs in User, ahead of the read
}

func (s *countingStore) User(ctx context.Context, id string) (*clerksync.User, error) {
	s.users.Add(1)
	if s.before != nil {
		s.before()
	}
	return s.faultyStore.User(ctx, id)
}

func (s *countingStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	s.upserts.Add(1)
	return s.faultyStore.Upsert(ctx, u)
}

// observations collects what Observe gets.
type observations struct {
	mu  sync.Mutex
	all []clerksync.Observation
}

func (o *observations) add(_ context.Context, one clerksync.Observation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, one)
}

func (o *observations) last() clerksync.Observation {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all[len(o.all)-1]
}

func visit(t testing.TB, s *clerksync.Syncer, id string) *clerksync.User {
	t.Helper()
	u, err := s.User(t.Context(), id)
	if err != nil {
		t.Fatalf("visit of %s: %v", id, err)
	}
	return u
}

func refusedWith(t testing.TB, s *clerksync.Syncer, id string, want error) {
	t.Helper()
	if u, err := s.User(t.Context(), id); !errors.Is(err, want) || u != nil {
		t.Fatalf("visit of %s: %+v, %v; want %v", id, u, err, want)
	}
}

func TestFirstVisitCreatesTheRecord(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: "ada@example.com"})
	fx.clock.Advance(time.Minute)

	u := visit(t, fx.Syncer, id)
	if u.Email != "ada@example.com" || u.ID == "" || u.Role != clerksync.RoleStudent || !u.IsActive || !u.SyncedAt.Equal(fx.clock.Now()) {
		t.Errorf("record is %+v", u)
	}
	if o := fx.seen.last(); o.Op != clerksync.OpVisit || o.Source != clerksync.SourceClerk || o.ClerkID != id || o.Err != nil {
		t.Errorf("observed %+v", o)
	}
	if fx.lookups() != 1 || fx.store.users.Load() != 1 || fx.store.upserts.Load() != 1 {
		t.Errorf("%d Clerk calls, %d reads, %d writes; want one each", fx.lookups(), fx.store.users.Load(), fx.store.upserts.Load())
	}

	if again := visit(t, fx.Syncer, id); again != u {
		t.Error("the second visit got another record")
	}
	if fx.lookups() != 1 || fx.store.users.Load() != 1 || fx.store.upserts.Load() != 1 {
		t.Error("a cached visit called Clerk or the Store")
	}
	if o := fx.seen.last(); o.Source != clerksync.SourceCache {
		t.Errorf("observed %+v", o)
	}
}

func TestThousandFirstVisitsAtOnce(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	const visitors = 1000
	release := make(chan struct{})
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { <-release; return nil })
	var arrived, done sync.WaitGroup
	arrived.Add(visitors)
	for range visitors {
		done.Go(func() {
			arrived.Done()
			if _, err := fx.User(t.Context(), id); err != nil {
				t.Error(err)
			}
		})
	}
	arrived.Wait()
	close(release)
	done.Wait()
	if fx.lookups() != 1 || fx.store.users.Load() != 1 || fx.store.upserts.Load() != 1 {
		t.Errorf("%d Clerk calls, %d reads, %d writes; want one each", fx.lookups(), fx.store.users.Load(), fx.store.upserts.Load())
	}
}

func TestStoredRecordNeedsNoClerk(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, fx.Syncer, id)
	other := fx.syncer(t, nil)
	visit(t, other, id)
	if fx.lookups() != 1 {
		t.Errorf("%d Clerk calls, want the first visit's only", fx.lookups())
	}
	if o := fx.seen.last(); o.Source != clerksync.SourceStore {
		t.Errorf("observed %+v", o)
	}
}

func TestCacheTTL(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		ttl   time.Duration
		reads int32 // of the Store, in the visits at 0 s, 29.999 s and 30 s after the first
	}{
		"default": {0, 1},
		"short":   {time.Millisecond, 2},
		"none":    {-1, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, func(c *clerksync.Config) { c.CacheTTL = tt.ttl })
			id := fx.clerk.CreateUser(fakeclerk.NewUser{})
			visit(t, fx.Syncer, id)
			fx.store.users.Store(0)
			visit(t, fx.Syncer, id)
			fx.clock.Advance(30*time.Second - time.Millisecond)
			visit(t, fx.Syncer, id)
			fx.clock.Advance(time.Millisecond)
			visit(t, fx.Syncer, id)
			if got := fx.store.users.Load(); got != tt.reads {
				t.Errorf("%d reads, want %d", got, tt.reads)
			}
		})
	}
}

// A record that the Store took five seconds to read is five seconds old.
func TestCacheTTLCountsFromTheQuestion(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, fx.Syncer, id)
	fx.Forget(id)
	fx.store.before = func() { fx.clock.Advance(5 * time.Second) }
	visit(t, fx.Syncer, id)
	fx.store.before = nil
	fx.store.users.Store(0)
	fx.clock.Advance(25*time.Second - time.Millisecond)
	visit(t, fx.Syncer, id)
	if n := fx.store.users.Load(); n != 0 {
		t.Errorf("%d reads before CacheTTL has passed", n)
	}
	fx.clock.Advance(time.Millisecond)
	visit(t, fx.Syncer, id)
	if n := fx.store.users.Load(); n != 1 {
		t.Errorf("%d reads after CacheTTL has passed, want 1", n)
	}
}

// A deletion that lands while an older event is being written is remembered, also
// for the time in which the Store is down.
func TestDeletionWhileAnEventIsWritten(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	var s *clerksync.Syncer
	store := &overtakenStore{countingStore: fx.store, after: func() {
		e := clerksync.Event{Type: "user.deleted", Timestamp: fx.clock.Now(), Data: json.RawMessage(fmt.Sprintf(`{"id":%q,"deleted":true}`, id))}
		if _, err := s.Apply(t.Context(), e); err != nil {
			t.Error(err)
		}
	}}
	s = fx.syncer(t, func(c *clerksync.Config) { c.Store = store })
	raw, _ := fx.clerk.User(id)
	if _, err := s.Apply(t.Context(), clerksync.Event{Type: "user.created", Timestamp: fx.clock.Now(), Data: raw}); err != nil {
		t.Fatal(err)
	}
	fx.store.fail(errors.New("down"))
	refusedWith(t, s, id, clerksync.ErrUserInactive)
}

// What a process hears of a deletion again, it knows for the whole time of an outage
// again, however long ago it heard of it first.
func TestDeletionHeardOfAgain(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	s := fx.syncer(t, func(c *clerksync.Config) { c.OnFailure = clerksync.FailOpen })
	raw, _ := fx.clerk.User(id)
	created := clerksync.Event{Type: "user.created", Timestamp: fx.clock.Now(), Data: raw}
	deleted := clerksync.Event{Type: "user.deleted", Timestamp: fx.clock.Now(), Data: json.RawMessage(fmt.Sprintf(`{"id":%q,"deleted":true}`, id))}
	if _, err := s.Apply(t.Context(), deleted); err != nil {
		t.Fatal(err)
	}
	fx.clock.Advance(2 * time.Hour)
	if res, err := s.Apply(t.Context(), created); err != nil || res.Outcome != clerksync.Deactivated {
		t.Fatalf("the late user.created: %v, %v", res.Outcome, err)
	}
	fx.store.fail(errors.New("down"))
	refusedWith(t, s, id, clerksync.ErrUserInactive)
}

// overtakenStore does something between a write and its return.
type overtakenStore struct {
	*countingStore
	after func()
}

func (s *overtakenStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	res, err := s.countingStore.Upsert(ctx, u)
	s.after()
	return res, err
}

func TestForgetShowsTheAppsChange(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, fx.Syncer, id)
	if err := fx.store.Edit(id, func(u *clerksync.User) { u.Role = clerksync.RoleAdmin }); err != nil {
		t.Fatal(err)
	}
	if u := visit(t, fx.Syncer, id); u.Role != clerksync.RoleStudent {
		t.Errorf("before Forget the role is %s", u.Role)
	}
	fx.Forget(id)
	if u := visit(t, fx.Syncer, id); u.Role != clerksync.RoleAdmin {
		t.Errorf("after Forget the role is %s", u.Role)
	}
	if _, err := fx.Sync(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if u := visit(t, fx.Syncer, id); u.Role != clerksync.RoleAdmin {
		t.Errorf("after a sync the app's role is %s", u.Role)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		arrange func(*testing.T, *fixture, string)
		want    error
	}{
		"banned in Clerk": {func(_ *testing.T, fx *fixture, id string) { _ = fx.clerk.BanUser(id) }, clerksync.ErrUserInactive},
		"deprovisioned in Clerk": {func(_ *testing.T, fx *fixture, id string) {
			_ = fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.Deprovisioned = true })
		}, clerksync.ErrUserInactive},
		"suspended by the app": {func(t *testing.T, fx *fixture, id string) {
			visit(t, fx.Syncer, id)
			_ = fx.store.Edit(id, func(u *clerksync.User) { u.IsActive = false })
			fx.Forget(id)
		}, clerksync.ErrUserInactive},
		"deleted": {func(t *testing.T, fx *fixture, id string) {
			if _, err := fx.store.Deactivate(t.Context(), id, t0); err != nil {
				t.Fatal(err)
			}
		}, clerksync.ErrUserInactive},
		"unknown to Clerk": {func(_ *testing.T, fx *fixture, id string) { _ = fx.clerk.DeleteUser(id) }, clerksync.ErrUserUnknown},
	} {
		for _, policy := range []clerksync.FailurePolicy{clerksync.FailClosed, clerksync.FailOpen} {
			t.Run(fmt.Sprint(name, policy), func(t *testing.T) {
				t.Parallel()
				fx := newFixture(t, func(c *clerksync.Config) { c.OnFailure = policy })
				id := fx.clerk.CreateUser(fakeclerk.NewUser{})
				tt.arrange(t, fx, id)
				refusedWith(t, fx.Syncer, id, tt.want)
				refusedWith(t, fx.Syncer, id, tt.want) // from memory
				var p *clerksync.Problem
				if o := fx.seen.last(); !errors.As(o.Err, &p) || p.Status != 403 || !errors.Is(o.Err, tt.want) {
					t.Errorf("observed %+v", o)
				}
			})
		}
	}
}

func TestSubjectsThatAreNoUserID(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	for _, id := range []string{"", "user_", "mch_1", "../jwks", "user_../../jwks", "user_1?x=1", "user_1/ban", "user_ö", "user_1\x00", "USER_1", "user_" + strings.Repeat("a", 65)} {
		refusedWith(t, fx.Syncer, id, clerksync.ErrUserUnknown)
		if _, err := fx.Sync(t.Context(), id); !errors.Is(err, clerksync.ErrUserUnknown) {
			t.Errorf("Sync(%q): %v", id, err)
		}
	}
	if fx.clerk.Calls("") != 0 || fx.store.users.Load() != 0 {
		t.Error("Clerk or the Store was asked about what is no user id")
	}
}

func TestUnknownUserIsRememberedForAMoment(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	const id = "user_ghost"
	refusedWith(t, fx.Syncer, id, clerksync.ErrUserUnknown)
	fx.clock.Advance(9 * time.Second)
	refusedWith(t, fx.Syncer, id, clerksync.ErrUserUnknown)
	if fx.lookups() != 1 {
		t.Errorf("%d Clerk calls, want 1", fx.lookups())
	}
	fx.clock.Advance(time.Second)
	fx.clerk.CreateUser(fakeclerk.NewUser{ID: id})
	visit(t, fx.Syncer, id)
	if _, err := fx.store.Deactivate(t.Context(), "user_none", t0); err != nil {
		t.Fatal(err)
	}
}

func TestEventMakesAnUnknownUserKnown(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	const id = "user_late"
	refusedWith(t, fx.Syncer, id, clerksync.ErrUserUnknown)
	fx.clerk.CreateUser(fakeclerk.NewUser{ID: id})
	raw, _ := fx.clerk.User(id)
	if _, err := fx.Apply(t.Context(), clerksync.Event{Type: "user.created", Timestamp: fx.clock.Now(), Data: raw}); err != nil {
		t.Fatal(err)
	}
	visit(t, fx.Syncer, id)
}

func TestVisitNeverDeletes(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, fx.Syncer, id)
	_ = fx.clerk.DeleteUser(id)
	fx.clock.Advance(2 * time.Hour) // a refresh is due, and finds nothing
	visit(t, fx.Syncer, id)
	_ = fx.Close()
	if _, err := fx.Sync(t.Context(), id); !errors.Is(err, clerksync.ErrUserUnknown) {
		t.Errorf("Sync: %v", err)
	}
	if u, err := fx.store.Store.User(t.Context(), id); err != nil || !u.IsActive || !u.DeletedAt.IsZero() {
		t.Errorf("record is %+v, %v", u, err)
	}
}

func TestRefreshBehindAVisit(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Old"})
	visit(t, fx.Syncer, id)
	_ = fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("New") }) // the webhook is lost

	fx.clock.Advance(time.Hour)
	if u := visit(t, fx.Syncer, id); u.Name != "Old" || fx.lookups() != 1 {
		t.Fatalf("at one hour: %s after %d Clerk calls", u.Name, fx.lookups())
	}
	fx.clock.Advance(time.Millisecond)
	if u := visit(t, fx.Syncer, id); u.Name != "Old" {
		t.Errorf("past one hour the visit itself got %s", u.Name)
	}
	_ = fx.Close() // waits for the refresh
	if u := visit(t, fx.Syncer, id); u.Name != "New" || fx.lookups() != 2 {
		t.Errorf("after the refresh: %s after %d Clerk calls", u.Name, fx.lookups())
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
	if got := fx.lookups(); got != 2 {
		t.Errorf("%d Clerk calls, want the first visit's and one refresh", got)
	}
	visit(t, fx.Syncer, id)
	fx.waitForRefreshes()
	if got := fx.lookups(); got != 3 {
		t.Errorf("%d Clerk calls a minute later, want 3", got)
	}
}

// waitForRefreshes waits for the refreshes begun so far.
func (fx *fixture) waitForRefreshes() { clerksync.WaitBackground(fx.Syncer) }

func TestNoRefreshWhereTurnedOff(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) { c.RefreshAfter = -1 })
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, fx.Syncer, id)
	fx.clock.Advance(1000 * time.Hour)
	visit(t, fx.Syncer, id)
	fx.waitForRefreshes()
	if fx.lookups() != 1 {
		t.Errorf("%d Clerk calls", fx.lookups())
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
	first := fx.lookups()
	fx.clock.Advance(2 * time.Hour)
	release := make(chan struct{})
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { <-release; return nil })
	for _, id := range ids {
		visit(t, fx.Syncer, id)
	}
	close(release)
	fx.waitForRefreshes()
	if got := fx.lookups() - first; got != clerksync.MaxRefreshers {
		t.Errorf("%d refreshes at once, want %d", got, clerksync.MaxRefreshers)
	}
	for _, id := range ids { // those that found no place get one later
		visit(t, fx.Syncer, id)
		fx.waitForRefreshes()
	}
	if got := fx.lookups() - first; got != len(ids) {
		t.Errorf("%d refreshes in all, want %d", got, len(ids))
	}
}

func TestLiftedBanIsSeenAfterAMinute(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	_ = fx.clerk.BanUser(id)
	refusedWith(t, fx.Syncer, id, clerksync.ErrUserInactive)
	_ = fx.clerk.UnbanUser(id) // the webhook is lost
	fx.clock.Advance(time.Minute)
	refusedWith(t, fx.Syncer, id, clerksync.ErrUserInactive)
	fx.clock.Advance(time.Millisecond)
	visit(t, fx.Syncer, id)
}

// Nobody's visits make the Store work while Clerk cannot say whether a ban was lifted.
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
		refusedWith(t, fx.Syncer, id, clerksync.ErrUserInactive)
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
	refusedWith(t, fx.Syncer, id, clerksync.ErrUserInactive)
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return fakeclerk.ErrorFault(401, "x") })
	for range 5 {
		fx.clock.Advance(61 * time.Second)
		refusedWith(t, fx.Syncer, id, clerksync.ErrUserInactive)
		refusedWith(t, fx.Syncer, id, clerksync.ErrUserInactive)
	}
	if got := fx.lookups(); got > 6 {
		t.Errorf("%d Clerk calls for one banned user in five minutes", got)
	}
}

func TestOutageOfTheStore(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	open := fx.syncer(t, func(c *clerksync.Config) { c.OnFailure = clerksync.FailOpen })
	known, unseen, deleted := fx.clerk.CreateUser(fakeclerk.NewUser{}), fx.clerk.CreateUser(fakeclerk.NewUser{}), fx.clerk.CreateUser(fakeclerk.NewUser{})
	for _, s := range []*clerksync.Syncer{fx.Syncer, open} {
		visit(t, s, known)
		if _, err := s.Apply(t.Context(), clerksync.Event{Type: "user.deleted", Data: json.RawMessage(`{"id":"` + deleted + `"}`)}); err != nil {
			t.Fatal(err)
		}
	}
	fx.store.fail(errDown)
	fx.clock.Advance(time.Hour) // past the TTL
	for _, s := range []*clerksync.Syncer{fx.Syncer, open} {
		if u := visit(t, s, known); u.ID == "" {
			t.Errorf("the known user's record is %+v", u)
		}
		refusedWith(t, s, deleted, clerksync.ErrUserInactive)
	}
	refusedWith(t, fx.Syncer, unseen, clerksync.ErrUnavailable)
	if u := visit(t, open, unseen); !u.Partial || u.ClerkID != unseen || u.Email != "" || u.ID != "" {
		t.Errorf("let through with %+v", u)
	}
	fx.clock.Advance(time.Hour) // over an hour past the TTL
	refusedWith(t, fx.Syncer, known, clerksync.ErrUnavailable)
	if u := visit(t, open, known); !u.Partial {
		t.Errorf("let through with %+v", u)
	}
	fx.store.fail(nil)
	if u := visit(t, open, unseen); u.Partial {
		t.Error("a partial record was cached")
	}
	visit(t, open, known)
	fx.store.fail(errDown)
	raw, _ := fx.clerk.User(known)
	if _, err := open.Apply(t.Context(), clerksync.Event{Type: "user.updated", Data: raw}); !errors.Is(err, clerksync.ErrUnavailable) {
		t.Errorf("Apply: %v", err)
	}
	if u := visit(t, open, known); u.Partial {
		t.Error("an event that could not be written took the record away")
	}
}

// Without a cache the records are not kept, but refusals are.
func TestOutageWithoutACache(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) { c.CacheTTL, c.OnFailure = -1, clerksync.FailOpen })
	id, banned := fx.clerk.CreateUser(fakeclerk.NewUser{}), fx.clerk.CreateUser(fakeclerk.NewUser{})
	_ = fx.clerk.BanUser(banned)
	visit(t, fx.Syncer, id)
	refusedWith(t, fx.Syncer, banned, clerksync.ErrUserInactive)
	fx.store.fail(errDown)
	if u := visit(t, fx.Syncer, id); !u.Partial {
		t.Errorf("served %+v", u)
	}
	refusedWith(t, fx.Syncer, banned, clerksync.ErrUserInactive)
}

func TestFailuresOfClerk(t *testing.T) {
	t.Parallel()
	html := func(status int) *fakeclerk.Fault {
		return &fakeclerk.Fault{Status: status, ContentType: "text/html", Body: "<html>secret page</html>"}
	}
	limited := fakeclerk.ErrorFault(429, "too_many_requests")
	limited.Header.Set("Retry-After", "30")
	for name, tt := range map[string]struct {
		fault *fakeclerk.Fault
		want  error
		calls int // with retries
		retry time.Duration
	}{
		"404 in Clerk's words":    {fakeclerk.ErrorFault(404, "resource_not_found"), clerksync.ErrUserUnknown, 1, 0},
		"404 in other words":      {fakeclerk.ErrorFault(404, "host_not_found"), clerksync.ErrUnavailable, 1, 5 * time.Second},
		"404 of a proxy":          {html(404), clerksync.ErrUnavailable, 1, 5 * time.Second},
		"401":                     {fakeclerk.ErrorFault(401, "clerk_key_invalid"), clerksync.ErrUnavailable, 1, 5 * time.Second},
		"403":                     {fakeclerk.ErrorFault(403, "forbidden"), clerksync.ErrUnavailable, 1, 5 * time.Second},
		"429 for longer":          {limited, clerksync.ErrUnavailable, 1, 30 * time.Second},
		"500":                     {fakeclerk.ErrorFault(500, "internal_clerk_error"), clerksync.ErrUnavailable, 4, 5 * time.Second},
		"502 of a proxy":          {html(502), clerksync.ErrUnavailable, 4, 5 * time.Second},
		"HTML and 200":            {html(200), clerksync.ErrUnavailable, 1, 5 * time.Second},
		"304":                     {&fakeclerk.Fault{Status: 304}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"204":                     {&fakeclerk.Fault{Status: 204}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"empty":                   {&fakeclerk.Fault{Status: 200, Body: " "}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"null":                    {&fakeclerk.Fault{Status: 200, Body: "null"}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"an array":                {&fakeclerk.Fault{Status: 200, Body: "[]"}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"half a document":         {&fakeclerk.Fault{Status: 200, Body: `{"id":"user_1","first_n`}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"a broken connection":     {&fakeclerk.Fault{Truncate: true}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"another user":            {&fakeclerk.Fault{Status: 200, Body: documentedUser}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"a user from the future":  {&fakeclerk.Fault{Status: 200, Body: userJSON("user_1", t0.Add(48*time.Hour))}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"a name of another type":  {&fakeclerk.Fault{Status: 200, Body: `{"id":"user_1","first_name":{}}`}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"more than anybody reads": {&fakeclerk.Fault{Status: 200, Body: `{"id":"user_1","first_name":"` + strings.Repeat("x", 17<<20) + `"}`}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"no answer":               {&fakeclerk.Fault{Hang: true}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"an answer after an hour": {&fakeclerk.Fault{Delay: time.Hour}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"an answer after 5 s":     {&fakeclerk.Fault{Delay: 5 * time.Second}, nil, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			fx.clerk.CreateUser(fakeclerk.NewUser{ID: "user_1"})
			fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
				f := *tt.fault
				if f.Hang {
					go fx.clock.Advance(clerksync.CallTimeout)
				}
				if f.Delay > 0 {
					f.BeforeSend = func() { fx.clock.Advance(min(f.Delay, clerksync.CallTimeout)) }
				}
				return &f
			})
			u, err := fx.User(t.Context(), "user_1")
			if !errors.Is(err, tt.want) || (err == nil) != (u != nil) {
				t.Fatalf("got %+v, %v; want %v", u, err, tt.want)
			}
			if got := fx.lookups(); got != tt.calls {
				t.Errorf("%d Clerk calls, want %d", got, tt.calls)
			}
			var p *clerksync.Problem
			if errors.As(err, &p) && (p.Status != 503 || p.RetryAfter != tt.retry) {
				t.Errorf("problem is %+v", p)
			}
			if err != nil && (strings.Contains(err.Error(), "secret page") || strings.Contains(err.Error(), fx.clerk.SecretKey())) {
				t.Errorf("the error shows too much: %v", err)
			}
			_, err = fx.store.Store.User(t.Context(), "user_1")
			if errors.Is(err, clerksync.ErrNotFound) != (u == nil) {
				t.Errorf("record in the Store: %v", err)
			}
		})
	}
}

// The secret key goes to no host that an answer names.
func TestClerkRedirectsNobody(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		return &fakeclerk.Fault{Status: http.StatusTemporaryRedirect, Header: http.Header{"Location": {fx.clerk.APIURL() + "/jwks"}}}
	})
	refusedWith(t, fx.Syncer, id, clerksync.ErrUnavailable)
	if n := fx.clerk.Calls("GET /v1/jwks"); n != 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
}

func TestClerkRecoversWithinTheBudget(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]*fakeclerk.Fault{
		"500": fakeclerk.ErrorFault(500, "x"),
		"429": func() *fakeclerk.Fault {
			f := fakeclerk.ErrorFault(429, "too_many_requests")
			f.Header.Set("Retry-After", "2")
			return f
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			id := fx.clerk.CreateUser(fakeclerk.NewUser{})
			var calls atomic.Int32
			fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
				if calls.Add(1) == 1 {
					return fault
				}
				return nil
			})
			u := visit(t, fx.Syncer, id)
			if !u.SyncedAt.Equal(fx.clock.Now().Truncate(time.Millisecond)) {
				t.Errorf("SyncedAt is %v, want the time of the attempt that succeeded, %v", u.SyncedAt, fx.clock.Now())
			}
			if waited := fx.clock.Now().Sub(t0); waited == 0 || waited > clerkapi.RetryBudget {
				t.Errorf("waited %v", waited)
			}
		})
	}
}

// What was loaded before an invalidation is neither served nor kept after it.
func TestInvalidationDuringALoad(t *testing.T) {
	t.Parallel()
	for name, invalidate := range map[string]func(*testing.T, *fixture, string){
		"Forget": func(t *testing.T, fx *fixture, id string) {
			_ = fx.store.Edit(id, func(u *clerksync.User) { u.Name = "New" })
			fx.Forget(id)
		},
		"webhook": func(t *testing.T, fx *fixture, id string) {
			_ = fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("New") })
			raw, _ := fx.clerk.User(id)
			if _, err := fx.Apply(context.Background(), clerksync.Event{Type: "user.updated", Timestamp: fx.clock.Now(), Data: raw}); err != nil {
				t.Error(err)
			}
		},
		"Sync": func(t *testing.T, fx *fixture, id string) {
			_ = fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("New") })
			if _, err := fx.Sync(context.Background(), id); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Old"})
			visit(t, fx.syncer(t, nil), id)

			old, err := fx.store.Store.User(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			// The first read returns what it saw before the change, after it.
			slow := &slowFirstRead{countingStore: fx.store, old: old, reading: make(chan struct{}), release: make(chan struct{})}
			fx.Syncer = fx.syncer(t, func(c *clerksync.Config) { c.Store = slow })
			got := make(chan *clerksync.User)
			go func() {
				u, err := fx.User(context.Background(), id)
				if err != nil {
					t.Error(err)
				}
				got <- u
			}()
			<-slow.reading
			invalidate(t, fx, id)
			if u := visit(t, fx.Syncer, id); u.Name != "New" {
				t.Errorf("the request after it joined the flight before it: %s", u.Name)
			}
			close(slow.release)
			if u := <-got; u.Name != "New" {
				t.Errorf("the visit during it got %s", u.Name)
			}
			if u := visit(t, fx.Syncer, id); u.Name != "New" {
				t.Errorf("the cache holds %s", u.Name)
			}
		})
	}
}

type slowFirstRead struct {
	*countingStore
	old              *clerksync.User
	first            atomic.Bool
	reading, release chan struct{}
}

func (s *slowFirstRead) User(ctx context.Context, id string) (*clerksync.User, error) {
	if s.first.CompareAndSwap(false, true) {
		close(s.reading)
		<-s.release
		return s.old, nil
	}
	return s.countingStore.User(ctx, id)
}

func TestCacheNeverGoesBackInVersion(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Old"})
	visit(t, fx.Syncer, id)
	old, _ := fx.store.Store.User(t.Context(), id)
	_ = fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("New") })
	if _, err := fx.Sync(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	visit(t, fx.Syncer, id)
	// A failover lost the last write.
	_ = fx.store.Edit(id, func(u *clerksync.User) { *u = *old })
	fx.clock.Advance(time.Minute)
	if u := visit(t, fx.Syncer, id); u.Name != "New" {
		t.Errorf("the cache went back to %s", u.Name)
	}
}

// A visitor that leaves neither waits on nor disturbs the others.
func TestFirstWaiterLeaves(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	asked, release := make(chan struct{}), make(chan struct{})
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { close(asked); <-release; return nil })

	ctx, leave := context.WithCancel(context.Background())
	left := make(chan error)
	go func() { _, err := fx.User(ctx, id); left <- err }()
	<-asked
	stayed := make(chan error)
	go func() { _, err := fx.User(context.Background(), id); stayed <- err }()
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) || !errors.Is(err, clerksync.ErrUnavailable) {
		t.Errorf("the one who left got %v", err)
	}
	close(release)
	if err := <-stayed; err != nil {
		t.Errorf("the one who stayed got %v", err)
	}
	if fx.lookups() != 1 {
		t.Errorf("%d Clerk calls", fx.lookups())
	}
}

func TestPanickingStore(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	fx.store.before = func() { panic("nil map") }
	refusedWith(t, fx.Syncer, "user_1", clerksync.ErrUnavailable)
}

func TestMapFailureOnAVisit(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) {
		c.OnFailure = clerksync.FailOpen
		c.Map = func(*clerk.User, *clerksync.User) error { return errors.New("no plan") }
	})
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	_, err := fx.User(t.Context(), id)
	var p *clerksync.Problem
	if !errors.As(err, &p) || p.Status != 503 || p.Code != "mapping_failed" {
		t.Errorf("visit: %v", err)
	}
	if _, err := fx.store.Store.User(t.Context(), id); !errors.Is(err, clerksync.ErrNotFound) {
		t.Errorf("something was written: %v", err)
	}
}

func TestConflictOnAVisit(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	fx.store.UniqueEmail = true
	first := fx.clerk.CreateUser(fakeclerk.NewUser{Email: "ada@example.com"})
	second := fx.clerk.CreateUser(fakeclerk.NewUser{Email: "ada@example.com"})
	visit(t, fx.Syncer, first)
	_, err := fx.User(t.Context(), second)
	var conflict *clerksync.ConflictError
	if !errors.As(err, &conflict) || conflict.Field != "email" {
		t.Errorf("visit: %v", err)
	}
	if strings.Contains(err.Error(), "ada@") {
		t.Errorf("the error shows the address: %v", err)
	}
}

func TestAnotherProcessWasFaster(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	other := fx.syncer(t, nil)
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		fx.clerk.SetFault(nil)
		visit(t, other, id)
		return nil
	})
	u := visit(t, fx.Syncer, id)
	stored, err := fx.store.Store.User(t.Context(), id)
	if err != nil || stored.ID != u.ID {
		t.Errorf("served %+v, stored %+v, %v", u, stored, err)
	}
}

func TestOwnBackend(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	url, key := fx.clerk.APIURL(), fx.clerk.SecretKey()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	s := fx.syncer(t, func(c *clerksync.Config) {
		c.APIURL, c.HTTPClient, c.SecretKey = "", nil, ""
		c.Backend = clerk.NewBackend(&clerk.BackendConfig{URL: &url, Key: &key, HTTPClient: client})
	})
	if u := visit(t, s, id); u.Name != "Ada" {
		t.Errorf("record is %+v", u)
	}
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return fakeclerk.ErrorFault(500, "x") })
	refusedWith(t, s, "user_2", clerksync.ErrUnavailable)
	if fx.lookups() != 2 {
		t.Errorf("%d calls: a Backend of the app's own is called once", fx.lookups())
	}
}

func TestSyncReportsAndShows(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Old"})
	for _, want := range []clerksync.Outcome{clerksync.Created, clerksync.Unchanged} {
		if res, err := fx.Sync(t.Context(), id); err != nil || res.Outcome != want {
			t.Errorf("Sync: %+v, %v; want %v", res, err, want)
		}
	}
	visit(t, fx.Syncer, id)
	_ = fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("New") })
	if res, err := fx.Sync(t.Context(), id); err != nil || res.Outcome != clerksync.Updated {
		t.Errorf("Sync: %+v, %v", res, err)
	}
	if u := visit(t, fx.Syncer, id); u.Name != "New" {
		t.Errorf("the visit after it got %s", u.Name)
	}
	if _, err := fx.store.Deactivate(t.Context(), id, fx.clock.Now()); err != nil {
		t.Fatal(err)
	}
	if res, err := fx.Sync(t.Context(), id); err != nil || res.Outcome != clerksync.Deactivated {
		t.Errorf("Sync: %+v, %v", res, err)
	}
	fx.store.fail(errDown)
	if _, err := fx.Sync(t.Context(), id); !errors.Is(err, clerksync.ErrUnavailable) {
		t.Errorf("Sync: %v", err)
	}
	refusedWith(t, fx.Syncer, id, clerksync.ErrUserInactive) // known deleted, with the Store down
}

func TestConfirmationFromTheFutureIsDisbelieved(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, fx.Syncer, id)
	_ = fx.store.Edit(id, func(u *clerksync.User) { u.SyncedAt = t0.Add(48 * time.Hour) })
	fx.Forget(id)
	fx.clock.Advance(time.Minute)
	visit(t, fx.Syncer, id)
	fx.waitForRefreshes()
	if fx.lookups() != 2 {
		t.Errorf("%d Clerk calls: a record confirmed in the future was not re-read", fx.lookups())
	}
}
