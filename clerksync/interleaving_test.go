package clerksync_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// hookedStore lets a test do something at the end of a call.
type hookedStore struct {
	*countingStore
	afterUser, afterUpsert func()
}

func (s *hookedStore) User(ctx context.Context, id string) (*clerksync.User, error) {
	u, err := s.countingStore.User(ctx, id)
	once(&s.afterUser)
	return u, err
}

func (s *hookedStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	res, err := s.countingStore.Upsert(ctx, u)
	once(&s.afterUpsert)
	return res, err
}

// once calls what is in f, and takes it out before.
func once(f *func()) {
	if do := *f; do != nil {
		*f = nil
		do()
	}
}

// hooked is a Syncer of the world on a hookedStore.
func (fx *fixture) hooked(t *testing.T, ttl time.Duration) (*clerksync.Syncer, *hookedStore) {
	store := &hookedStore{countingStore: fx.store}
	return fx.syncer(t, func(c *clerksync.Config) { c.Store, c.CacheTTL = store, ttl }), store
}

// neighbour is a user whose invalidations end the loads of id, too.
func neighbour(s *clerksync.Syncer, id string) string {
	for i := 0; ; i++ {
		if other := fmt.Sprintf("user_neighbour%d", i); clerksync.SameStripe(s, other, id) {
			return other
		}
	}
}

// What a load from Clerk has written is seen, though an event for another user, who
// shares the place where invalidations are counted, came before it was cached.
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
		before := fx.lookups()
		for range 2 {
			if u := fx.visitWith(t, s, id, fx.version(t, id).UnixMilli()); u.Name != "New" {
				t.Errorf("a newer token got %s", u.Name)
			}
		}
		if n := fx.lookups() - before; n != 1 {
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
		refusedWith(t, s, id, clerksync.ErrUserInactive)
	})
	t.Run("re-read that finds a ban lifted", func(t *testing.T) {
		t.Parallel()
		fx := newFixture(t, nil)
		s, store := fx.hooked(t, 10*time.Minute)
		id := fx.clerk.CreateUser(fakeclerk.NewUser{})
		if err := fx.clerk.BanUser(id); err != nil {
			t.Fatal(err)
		}
		refusedWith(t, s, id, clerksync.ErrUserInactive)
		if err := fx.clerk.UnbanUser(id); err != nil {
			t.Fatal(err)
		}
		fx.clock.Advance(61 * time.Second)
		store.afterUpsert = func() { s.Forget(neighbour(s, id)) }
		visit(t, s, id)
	})
}

// While Clerk is asked whether a ban was lifted, others of the same user wait for the
// answer too.
func TestLiftedBanIsWaitedFor(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	if err := fx.clerk.BanUser(id); err != nil {
		t.Fatal(err)
	}
	refusedWith(t, fx.Syncer, id, clerksync.ErrUserInactive)
	fx.clock.Advance(50 * time.Second)
	refusedWith(t, fx.Syncer, id, clerksync.ErrUserInactive) // cached anew
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
	for range 10_000 { // time enough to be refused
		runtime.Gosched()
	}
	close(answer)
	all.Wait()
	if n := fx.lookups(); n != 2 {
		t.Errorf("%d Clerk calls, want the first visit's and one re-read", n)
	}
}

// A load that read the ban does not take the place of a later one that read its end.
func TestEndOfABanIsNotUndone(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	s, store := fx.hooked(t, 0)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	if err := fx.clerk.BanUser(id); err != nil {
		t.Fatal(err)
	}
	refusedWith(t, s, id, clerksync.ErrUserInactive)
	if err := fx.clerk.UnbanUser(id); err != nil {
		t.Fatal(err)
	}
	fx.clock.Advance(31 * time.Second) // out of the cache; the ban is confirmed since less than a minute
	store.afterUser = func() {
		if u := fx.visitWith(t, s, id, fx.version(t, id).UnixMilli()); u.Banned {
			t.Error("a token newer than the ban got the ban")
		}
	}
	visit(t, s, id)
	visit(t, s, id)
}
