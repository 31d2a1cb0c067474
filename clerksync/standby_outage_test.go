package clerksync_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// A user whom this process knows to be barred stays barred while the Store is down, with FailOpen
// too, whatever happened in between.
func TestBarredUsersStayBarredInAnOutage(t *testing.T) {
	t.Parallel()
	event := func(t *testing.T, fx *fixture, typ, id string) {
		raw, ok := fx.clerk.User(id)
		if !ok {
			raw = json.RawMessage(`{"id":"` + id + `"}`)
		}
		if _, err := fx.Apply(t.Context(), clerksync.Event{Type: typ, Timestamp: fx.clock.Now(),
			Data: raw}); err != nil {
			t.Fatal(err)
		}
	}
	suspended := func(t *testing.T, fx *fixture, id string) {
		visit(t, fx.Syncer, id)
		_ = fx.store.Edit(id, func(u *clerksync.User) { u.IsActive = false })
		fx.Forget(id)
		visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
	}
	for name, arrange := range map[string]func(*testing.T, *fixture, string){
		"banned by an event": func(t *testing.T, fx *fixture, id string) {
			_ = fx.clerk.BanUser(id)
			event(t, fx, "user.updated", id)
		},
		"banned, then another event": func(t *testing.T, fx *fixture, id string) {
			_ = fx.clerk.BanUser(id)
			event(t, fx, "user.updated", id)
			visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
			fx.rename(t, id, "Ada")
			event(t, fx, "user.updated", id)
		},
		"suspended, then an event": func(t *testing.T, fx *fixture, id string) {
			suspended(t, fx, id)
			fx.rename(t, id, "Ada")
			event(t, fx, "user.updated", id)
		},
		"suspended, then Forget": func(t *testing.T, fx *fixture, id string) {
			suspended(t, fx, id)
			fx.Forget(id)
		},
		"suspended, then Sync": func(t *testing.T, fx *fixture, id string) {
			suspended(t, fx, id)
			fx.rename(t, id, "Ada")
			if _, err := fx.Sync(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		},
		"deleted, then a late event": func(t *testing.T, fx *fixture, id string) {
			raw, _ := fx.clerk.User(id)
			_ = fx.clerk.DeleteUser(id)
			event(t, fx, "user.deleted", id)
			if _, err := fx.Apply(t.Context(), clerksync.Event{Type: "user.updated", Data: raw}); err != nil {
				t.Fatal(err)
			}
			fx.Forget(id)
		},
	} {
		for mode, silent := range map[string]bool{"the Store returns records": false, "the Store returns none": true} {
			t.Run(name+", "+mode, func(t *testing.T) {
				t.Parallel()
				fx := newFixture(t, func(c *clerksync.Config) { c.OnFailure = clerksync.FailOpen })
				if silent {
					fx.Syncer = fx.syncer(t, func(c *clerksync.Config) {
						c.OnFailure, c.Store = clerksync.FailOpen, silentStore{fx.store}
					})
				}
				id := fx.clerk.CreateUser(fakeclerk.NewUser{})
				visit(t, fx.Syncer, id)
				arrange(t, fx, id)
				fx.store.fail(errDown)
				visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
				fx.clock.Advance(time.Minute)
				visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
			})
		}
	}
}

// silentStore does not return the record of a write, like mongostore on an update.
type silentStore struct{ *countingStore }

func (s silentStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	res, err := s.countingStore.Upsert(ctx, u)
	res.User = nil
	return res, err
}

func TestLiftedBanIsNotKeptOnStandby(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) { c.OnFailure = clerksync.FailOpen })
	fx.Syncer = fx.syncer(t, func(c *clerksync.Config) {
		c.OnFailure, c.Store = clerksync.FailOpen, silentStore{fx.store}
	})
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	_ = fx.clerk.BanUser(id)
	visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
	_ = fx.clerk.UnbanUser(id)
	raw, _ := fx.clerk.User(id)
	if _, err := fx.Apply(t.Context(), clerksync.Event{Type: "user.updated", Data: raw}); err != nil {
		t.Fatal(err)
	}
	fx.store.fail(errDown)
	if u := visit(t, fx.Syncer, id); !u.Partial {
		t.Errorf("served %+v", u)
	}
}

// A deletion that comes while an older event is being written is kept on standby.
func TestDeletionWhileAnEventIsWritten(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	var s *clerksync.Syncer
	store := &overtakenStore{countingStore: fx.store, after: func() {
		e := clerksync.Event{Type: "user.deleted", Timestamp: fx.clock.Now(),
			Data: json.RawMessage(fmt.Sprintf(`{"id":%q,"deleted":true}`, id))}
		if _, err := s.Apply(t.Context(), e); err != nil {
			t.Error(err)
		}
	}}
	s = fx.syncer(t, func(c *clerksync.Config) { c.Store = store })
	raw, _ := fx.clerk.User(id)
	if _, err := s.Apply(t.Context(), clerksync.Event{Type: "user.created", Timestamp: fx.clock.Now(),
		Data: raw}); err != nil {
		t.Fatal(err)
	}
	fx.store.fail(errors.New("down"))
	visitFails(t, s, id, clerksync.ErrUserInactive)
}

// If a deletion is delivered again, the process keeps it on standby for another hour.
func TestDeletionHeardOfAgain(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	s := fx.syncer(t, func(c *clerksync.Config) { c.OnFailure = clerksync.FailOpen })
	raw, _ := fx.clerk.User(id)
	created := clerksync.Event{Type: "user.created", Timestamp: fx.clock.Now(), Data: raw}
	deleted := clerksync.Event{Type: "user.deleted", Timestamp: fx.clock.Now(),
		Data: json.RawMessage(fmt.Sprintf(`{"id":%q,"deleted":true}`, id))}
	if _, err := s.Apply(t.Context(), deleted); err != nil {
		t.Fatal(err)
	}
	fx.clock.Advance(2 * time.Hour)
	if res, err := s.Apply(t.Context(), created); err != nil || res.Outcome != clerksync.Deactivated {
		t.Fatalf("the late user.created: %v, %v", res.Outcome, err)
	}
	fx.store.fail(errors.New("down"))
	visitFails(t, s, id, clerksync.ErrUserInactive)
}

// overtakenStore calls after between a write and its return.
type overtakenStore struct {
	*countingStore
	after func()
}

func (s *overtakenStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	res, err := s.countingStore.Upsert(ctx, u)
	s.after()
	return res, err
}

func TestOutageOfTheStore(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	open := fx.syncer(t, func(c *clerksync.Config) { c.OnFailure = clerksync.FailOpen })
	known, unseen := fx.clerk.CreateUser(fakeclerk.NewUser{}), fx.clerk.CreateUser(fakeclerk.NewUser{})
	deleted := fx.clerk.CreateUser(fakeclerk.NewUser{})
	for _, s := range []*clerksync.Syncer{fx.Syncer, open} {
		visit(t, s, known)
		if _, err := s.Apply(t.Context(), clerksync.Event{Type: "user.deleted",
			Data: json.RawMessage(`{"id":"` + deleted + `"}`)}); err != nil {
			t.Fatal(err)
		}
	}
	fx.store.fail(errDown)
	fx.clock.Advance(time.Hour) // past the TTL
	for _, s := range []*clerksync.Syncer{fx.Syncer, open} {
		if u := visit(t, s, known); u.ID == "" {
			t.Errorf("the known user's record is %+v", u)
		}
		visitFails(t, s, deleted, clerksync.ErrUserInactive)
	}
	visitFails(t, fx.Syncer, unseen, clerksync.ErrUnavailable)
	if u := visit(t, open, unseen); !u.Partial || u.ClerkID != unseen || u.Email != "" || u.ID != "" {
		t.Errorf("let through with %+v", u)
	}
	fx.clock.Advance(time.Hour) // over an hour past the TTL
	visitFails(t, fx.Syncer, known, clerksync.ErrUnavailable)
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
	if _, err := open.Apply(t.Context(), clerksync.Event{Type: "user.updated", Data: raw}); !errors.Is(err,
		clerksync.ErrUnavailable) {
		t.Errorf("Apply: %v", err)
	}
	if u := visit(t, open, known); u.Partial {
		t.Error("an event that could not be written took the record away")
	}
}

// Without a cache, only barred users are on standby.
func TestOutageWithoutACache(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) { c.CacheTTL, c.OnFailure = -1, clerksync.FailOpen })
	id, banned := fx.clerk.CreateUser(fakeclerk.NewUser{}), fx.clerk.CreateUser(fakeclerk.NewUser{})
	_ = fx.clerk.BanUser(banned)
	visit(t, fx.Syncer, id)
	visitFails(t, fx.Syncer, banned, clerksync.ErrUserInactive)
	fx.store.fail(errDown)
	if u := visit(t, fx.Syncer, id); !u.Partial {
		t.Errorf("served %+v", u)
	}
	visitFails(t, fx.Syncer, banned, clerksync.ErrUserInactive)
}

// The app suspends the user while an event is being written, and then the Store fails. What
// the event wrote was read before the suspension, so it must not become the standby.
func TestSuspensionDuringAWriteLastsThroughAnOutage(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	s, store := fx.hooked(t, 0)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, s, id)
	fx.clock.Advance(time.Second)
	if err := fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("New") }); err != nil {
		t.Fatal(err)
	}
	raw, _ := fx.clerk.User(id)
	store.afterUpsert = func() {
		if err := fx.store.Edit(id, func(u *clerksync.User) { u.IsActive = false }); err != nil {
			t.Error(err)
		}
		s.Forget(id)
	}
	e := clerksync.Event{Type: "user.updated", Timestamp: fx.clock.Now(), Data: raw}
	if res, err := s.Apply(t.Context(), e); err != nil || res.Outcome != clerksync.Updated {
		t.Fatalf("Apply: %v, %v", res.Outcome, err)
	}
	fx.store.fail(errDown)
	visitFails(t, s, id, clerksync.ErrUnavailable)
}
