package clerksync_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// hookedStore calls a function once at the end of a call.
type hookedStore struct {
	*countingStore
	afterUser, afterUpsert func()
	withholds              bool // Updated does not return the record, as with mongostore
}

func (s *hookedStore) User(ctx context.Context, id string) (*clerksync.User, error) {
	u, err := s.countingStore.User(ctx, id)
	once(&s.afterUser)
	return u, err
}

func (s *hookedStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	res, err := s.countingStore.Upsert(ctx, u)
	once(&s.afterUpsert)
	if s.withholds && res.Outcome == clerksync.Updated {
		res.User = nil
	}
	return res, err
}

func (s *hookedStore) UpsertBatch(ctx context.Context, us []*clerksync.User) ([]clerksync.Result, error) {
	results, err := s.Store.UpsertBatch(ctx, us)
	once(&s.afterUpsert)
	for i := range results {
		if s.withholds && results[i].Outcome == clerksync.Updated {
			results[i].User = nil
		}
	}
	return results, err
}

// busyStore calls a function at the end of each read.
type busyStore struct {
	*countingStore
	afterUser func()
}

func (s *busyStore) User(ctx context.Context, id string) (*clerksync.User, error) {
	u, err := s.countingStore.User(ctx, id)
	if s.afterUser != nil {
		s.afterUser()
	}
	return u, err
}

// once sets f to nil and calls what it was.
func once(f *func()) {
	if do := *f; do != nil {
		*f = nil
		do()
	}
}

// hooked returns a Syncer on a hookedStore.
func (fx *fixture) hooked(t *testing.T, ttl time.Duration) (*clerksync.Syncer, *hookedStore) {
	store := &hookedStore{countingStore: fx.store}
	return fx.syncer(t, func(c *clerksync.Config) { c.Store, c.CacheTTL = store, ttl }), store
}

// neighbour returns a user who shares id's generation: an invalidation of one ends the loads of both.
func neighbour(s *clerksync.Syncer, id string) string {
	for i := 0; ; i++ {
		if other := fmt.Sprintf("user_neighbour%d", i); clerksync.SameStripe(s, other, id) {
			return other
		}
	}
}

// A load wrote a record that it read from Clerk. It is served, although an event for another user
// with the same generation came before it was cached.
func TestLoadBesideANeighboursEvent(t *testing.T) {
	t.Parallel()
	t.Run("re-read for a newer token", func(t *testing.T) {
		t.Parallel()
		fx := newFixture(t, nil)
		s, store := fx.hooked(t, 0)
		id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Old"})
		fx.visitWith(t, s, id, nil)
		fx.clock.Advance(time.Second)
		fx.rename(t, id, "New")
		store.afterUpsert = func() { s.Forget(neighbour(s, id)) }
		before := fx.userCalls()
		for range 2 {
			if u := fx.visitWith(t, s, id, fx.version(t, id).UnixMilli()); u.Name != "New" {
				t.Errorf("a newer token got %s", u.Name)
			}
		}
		if n := fx.userCalls() - before; n != 1 {
			t.Errorf("%d Clerk calls, want 1", n)
		}
	})
	t.Run("refresh that finds a ban", func(t *testing.T) {
		t.Parallel()
		fx := newFixture(t, nil)
		s, store := fx.hooked(t, 6*time.Hour)
		id := fx.clerk.CreateUser(fakeclerk.NewUser{})
		visit(t, s, id)
		if err := fx.clerk.BanUser(id); err != nil {
			t.Fatal(err)
		}
		fx.clock.Advance(2 * time.Hour)
		store.afterUpsert = func() { s.Forget(neighbour(s, id)) }
		visit(t, s, id)
		clerksync.WaitBackground(s)
		visitFails(t, s, id, clerksync.ErrUserInactive)
	})
	t.Run("re-read that finds a ban lifted", func(t *testing.T) {
		t.Parallel()
		fx := newFixture(t, nil)
		s, store := fx.hooked(t, 10*time.Minute)
		id := fx.clerk.CreateUser(fakeclerk.NewUser{})
		if err := fx.clerk.BanUser(id); err != nil {
			t.Fatal(err)
		}
		visitFails(t, s, id, clerksync.ErrUserInactive)
		if err := fx.clerk.UnbanUser(id); err != nil {
			t.Fatal(err)
		}
		fx.clock.Advance(61 * time.Second)
		store.afterUpsert = func() { s.Forget(neighbour(s, id)) }
		visit(t, s, id)
	})
}

// A load that read a ban does not replace a later load, which read that the ban was lifted.
func TestEndOfABanIsNotUndone(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	s, store := fx.hooked(t, 0)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	if err := fx.clerk.BanUser(id); err != nil {
		t.Fatal(err)
	}
	visitFails(t, s, id, clerksync.ErrUserInactive)
	if err := fx.clerk.UnbanUser(id); err != nil {
		t.Fatal(err)
	}
	fx.clock.Advance(31 * time.Second) // past CacheTTL; the ban was confirmed less than a minute ago
	store.afterUser = func() {
		if u := fx.visitWith(t, s, id, fx.version(t, id).UnixMilli()); u.Banned {
			t.Error("a visit with a token newer than the ban got the banned record")
		}
	}
	visit(t, s, id)
	visit(t, s, id)
}

// A suspension counts, even if the suspended record has an older version than the cached one.
func TestSuspensionCountsWhateverTheVersion(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, fx.Syncer, id)
	_ = fx.store.Edit(id, func(u *clerksync.User) { u.ClerkUpdatedAt, u.IsActive = t0.Add(-time.Hour), false })
	fx.clock.Advance(30 * time.Second)
	visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
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

// CacheTTL counts from the beginning of the read: if the Store takes five seconds, the record is
// five seconds old.
func TestCacheTTLCountsFromTheRead(t *testing.T) {
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

// A record that was loaded before an invalidation is neither served nor cached after it.
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
			if _, err := fx.Apply(context.Background(), clerksync.Event{Type: "user.updated",
				Timestamp: fx.clock.Now(), Data: raw}); err != nil {
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
			// The first read returns the old record after the change.
			slow := &slowFirstRead{countingStore: fx.store, old: old, reading: make(chan struct{}),
				release: make(chan struct{})}
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
				t.Errorf("a visit after the invalidation joined the lookup before it, and got %s", u.Name)
			}
			close(slow.release)
			if u := <-got; u.Name != "New" {
				t.Errorf("the visit during the invalidation got %s", u.Name)
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
	// As if a failover had lost the last write.
	_ = fx.store.Edit(id, func(u *clerksync.User) { *u = *old })
	fx.clock.Advance(time.Minute)
	if u := visit(t, fx.Syncer, id); u.Name != "New" {
		t.Errorf("the cache went back to %s", u.Name)
	}
}

// A visitor does not wait for a pause in the invalidations. The second lookup began after the visit
// came, so what it read is good enough.
func TestVisitAmidInvalidations(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		invalidate func(t *testing.T, s *clerksync.Syncer, id string)
		claims     bool // the visitor's token is newer than the record
		reads      int32
	}{
		"of a neighbour": {func(_ *testing.T, s *clerksync.Syncer, id string) { s.Forget(neighbour(s, id)) }, false, 2},
		"of the user":    {func(_ *testing.T, s *clerksync.Syncer, id string) { s.Forget(id) }, false, 2},
		"of the user, by events": {func(t *testing.T, s *clerksync.Syncer, id string) {
			data := fmt.Appendf(nil, `{"id":%q,"updated_at":%d}`, id, t0.UnixMilli())
			if _, err := s.Apply(t.Context(), clerksync.Event{Type: "user.updated", Timestamp: t0, Data: data}); err != nil {
				t.Error(err)
			}
		}, false, 2},
		"with a newer token": {func(_ *testing.T, s *clerksync.Syncer, id string) { s.Forget(neighbour(s, id)) }, true, 3}, // one reads back what was written
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			store := &busyStore{countingStore: fx.store}
			s := fx.syncer(t, func(c *clerksync.Config) { c.Store = store })
			id := fx.clerk.CreateUser(fakeclerk.NewUser{})
			visit(t, s, id)
			fx.clock.Advance(time.Minute)
			n := 0
			store.afterUser = func() {
				if n++; n <= 20 {
					tt.invalidate(t, s, id)
				}
			}
			fx.store.users.Store(0)
			if tt.claims {
				fx.rename(t, id, "New")
				if u := fx.visitWith(t, s, id, fx.version(t, id).UnixMilli()); u.Name != "New" {
					t.Errorf("a newer token got %s", u.Name)
				}
			} else {
				visit(t, s, id)
			}
			if reads := fx.store.users.Load(); reads != tt.reads {
				t.Errorf("%d reads of the Store, want %d", reads, tt.reads)
			}
		})
	}
}

// What a visit has read is good enough from its second lookup on, but not if the process has
// learned meanwhile that the user is barred.
func TestBarredDuringTheSecondLookup(t *testing.T) {
	t.Parallel()
	version := t0.Add(time.Hour).UnixMilli()
	for name, event := range map[string]clerksync.Event{
		"deleted": {Type: "user.deleted", Data: json.RawMessage(`{"id":%q,"deleted":true}`)},
		"banned":  {Type: "user.updated", Data: fmt.Appendf(nil, `{"id":%%q,"updated_at":%d,"banned":true}`, version)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			store := &busyStore{countingStore: fx.store}
			s := fx.syncer(t, func(c *clerksync.Config) { c.Store = store })
			id := fx.clerk.CreateUser(fakeclerk.NewUser{})
			visit(t, s, id)
			fx.clock.Advance(time.Minute)
			event.Timestamp, event.Data = fx.clock.Now(), fmt.Appendf(nil, string(event.Data), id)
			reads := 0
			store.afterUser = func() {
				switch reads++; reads {
				case 1:
					s.Forget(id)
				case 2:
					if _, err := s.Apply(t.Context(), event); err != nil {
						t.Error(err)
					}
				}
			}
			if _, err := s.User(t.Context(), id); !errors.Is(err, clerksync.ErrUserInactive) {
				t.Errorf("the visit: %v, want ErrUserInactive", err)
			}
			if reads > 3 {
				t.Errorf("%d reads, want at most 3", reads)
			}
		})
	}
}

// A slow lookup does not bring back an earlier version, even if the later one is not in the cache
// any more.
func TestVersionsDoNotGoBackWithoutTheCache(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		ttl     time.Duration
		refresh bool // the later version comes from a refresh, else from a re-read
	}{
		"re-read":                  {0, false},
		"refresh":                  {0, true},
		"refresh, without a cache": {-1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			s, store := fx.hooked(t, tt.ttl)
			id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Old"})
			visit(t, s, id)
			fx.clock.Advance(time.Second)
			fx.rename(t, id, "New")
			if tt.refresh {
				fx.clock.Advance(2 * time.Hour)
			}
			fx.clock.Advance(31 * time.Second)
			// A lookup has just read the record ...
			store.afterUser = func() {
				// ... when the process learns of a later version, and the cache drops it.
				if tt.refresh {
					clerksync.Refresh(s, id)
				} else if u := fx.visitWith(t, s, id, fx.version(t, id).UnixMilli()); u.Name != "New" {
					t.Errorf("a newer token got %s", u.Name)
				}
				clerksync.Evict(s, id)
			}
			for range 2 {
				if u := visit(t, s, id); u.Name != "New" {
					t.Errorf("afterwards a visit got %s", u.Name)
				}
			}
		})
	}
}

// Two writes may end in another order than they were made. A ban that has ended does not keep the
// user out in an outage, even if the Store did not return what was written.
func TestEndedBanIsNotOnStandby(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ byVisit bool }{
		"shown by an event": {false},
		"shown by a visit of a record that the cache drops": {true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			s, store := fx.hooked(t, 0)
			store.withholds = true
			id := fx.clerk.CreateUser(fakeclerk.NewUser{})
			visit(t, s, id)
			apply := func(s *clerksync.Syncer, banned bool, after time.Duration) {
				data := fmt.Appendf(nil, `{"id":%q,"banned":%t,"updated_at":%d}`, id, banned, t0.Add(after).UnixMilli())
				e := clerksync.Event{Type: "user.updated", Timestamp: t0.Add(after), Data: data}
				if _, err := s.Apply(t.Context(), e); err != nil {
					t.Error(err)
				}
			}
			fx.clock.Advance(time.Minute)
			// The ban is written, and its event has not ended, when the ban ends.
			store.afterUpsert = func() {
				if !tt.byVisit {
					apply(s, false, 2*time.Second)
					return
				}
				apply(fx.syncer(t, nil), false, 2*time.Second) // another process
				visit(t, s, id)
				clerksync.Evict(s, id)
			}
			apply(s, true, time.Second)
			fx.store.fail(errDown)
			visitFails(t, s, id, clerksync.ErrUnavailable)
		})
	}
}

// The same for a ban that a Reconcile writes.
func TestEndedBanOfAReconcileIsNotOnStandby(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	s, store := fx.hooked(t, 0)
	store.withholds = true
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, s, id)
	fx.clock.Advance(time.Minute)
	if err := fx.clerk.BanUser(id); err != nil {
		t.Fatal(err)
	}
	store.afterUpsert = func() {
		fx.clock.Advance(time.Second)
		if err := fx.clerk.UnbanUser(id); err != nil {
			t.Error(err)
		}
		if _, err := s.Sync(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Reconcile(t.Context(), clerksync.ReconcileOptions{}); err != nil {
		t.Fatal(err)
	}
	fx.store.fail(errDown)
	visitFails(t, s, id, clerksync.ErrUnavailable)
}
