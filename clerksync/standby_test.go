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

// An event that says "banned" or "deleted" bars its user during an outage, even if the outage
// keeps the event from being written.
func TestUnwrittenEventsBar(t *testing.T) {
	t.Parallel()
	for name, event := range map[string]func(fx *fixture, id string) clerksync.Event{
		"banned": func(fx *fixture, id string) clerksync.Event {
			_ = fx.clerk.BanUser(id)
			return fx.event(id)
		},
		"banned, in a session": func(fx *fixture, id string) clerksync.Event {
			_ = fx.clerk.BanUser(id)
			e := fx.event(id)
			e.Type, e.Data = "session.created", json.RawMessage(`{"user":`+string(e.Data)+`}`)
			return e
		},
		"banned, and Map fails": func(fx *fixture, id string) clerksync.Event {
			_ = fx.clerk.BanUser(id)
			return fx.event(id)
		},
		"deleted": func(fx *fixture, id string) clerksync.Event {
			_ = fx.clerk.DeleteUser(id)
			return clerksync.Event{Type: "user.deleted", Timestamp: fx.clock.Now(), Data: json.RawMessage(`{"id":"` + id + `"}`)}
		},
	} {
		for _, policy := range []clerksync.FailurePolicy{clerksync.FailClosed, clerksync.FailOpen} {
			for _, visited := range []bool{true, false} {
				t.Run(fmt.Sprint(name, ", policy ", policy, ", visited before ", visited), func(t *testing.T) {
					t.Parallel()
					fx := newFixture(t, func(c *clerksync.Config) {
						c.OnFailure = policy
						if name == "banned, and Map fails" {
							c.Map = func(_ *clerk.User, u *clerksync.User) error {
								if u.Banned {
									return errors.New("no plan")
								}
								return nil
							}
						}
					})
					id := fx.clerk.CreateUser(fakeclerk.NewUser{})
					if visited {
						visit(t, fx.Syncer, id)
					} else {
						fx.createRecord(t, id)
					}
					fx.clock.Advance(time.Minute)
					fx.store.fail(errDown)
					e := event(fx, id)
					if _, err := fx.Apply(t.Context(), e); !errors.Is(err, clerksync.ErrUnavailable) {
						t.Fatalf("the event: %v", err)
					}
					want := clerksync.ErrUserInactive
					if e.Type != "user.deleted" && policy == clerksync.FailClosed && fx.store.users.Load() == 0 {
						want = clerksync.ErrUnavailable // nothing is known, and nobody is let in
					}
					visitFails(t, fx.Syncer, id, want)
					fx.clock.Advance(time.Hour)
					visitFails(t, fx.Syncer, id, want)
					fx.store.fail(nil)
					_, _ = fx.Apply(t.Context(), e) // delivered again
					visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
				})
			}
		}
	}
}

// event is a user.updated of the user as Clerk has it now.
func (fx *fixture) event(id string) clerksync.Event {
	raw, _ := fx.clerk.User(id)
	return clerksync.Event{Type: "user.updated", Timestamp: fx.clock.Now(), Data: raw}
}

// An event that comes late bars nobody whose ban has ended, and an event that ends a ban does so.
func TestUnwrittenEventsDoNotBarForLong(t *testing.T) {
	t.Parallel()
	for name, of := range map[string]func(t *testing.T, fx *fixture, id string){
		"a late ban": func(t *testing.T, fx *fixture, id string) {
			_ = fx.clerk.BanUser(id)
			ban := fx.event(id)
			fx.clock.Advance(time.Minute)
			_ = fx.clerk.UnbanUser(id)
			if _, err := fx.Apply(t.Context(), fx.event(id)); err != nil {
				t.Fatal(err)
			}
			visit(t, fx.Syncer, id)
			fx.store.fail(errDown)
			_, _ = fx.Apply(t.Context(), ban)
			visit(t, fx.Syncer, id)
		},
		"a ban, and its end": func(t *testing.T, fx *fixture, id string) {
			fx.store.fail(errDown)
			_ = fx.clerk.BanUser(id)
			_, _ = fx.Apply(t.Context(), fx.event(id))
			visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
			fx.clock.Advance(time.Second)
			_ = fx.clerk.UnbanUser(id)
			_, _ = fx.Apply(t.Context(), fx.event(id))
			visitFails(t, fx.Syncer, id, clerksync.ErrUnavailable)
			fx.store.fail(nil)
			visit(t, fx.Syncer, id)
		},
		"a deletion, and the Store's record": func(t *testing.T, fx *fixture, id string) {
			fx.store.fail(errDown)
			e := clerksync.Event{Type: "user.deleted", Timestamp: fx.clock.Now(), Data: json.RawMessage(`{"id":"` + id + `"}`)}
			_, _ = fx.Apply(t.Context(), e)
			visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
			fx.store.fail(nil)
			visit(t, fx.Syncer, id) // until the event is delivered again
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			id := fx.clerk.CreateUser(fakeclerk.NewUser{})
			visit(t, fx.Syncer, id)
			fx.clock.Advance(time.Minute)
			of(t, fx, id)
		})
	}
}

// The process does not take up memory for events that it could not write.
func TestUnwrittenEventsAreBounded(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) { c.CacheSize, c.OnFailure = 100, clerksync.FailOpen })
	fx.store.fail(errDown)
	for i := range 1000 {
		data := fmt.Sprintf(`{"id":"user_%d","banned":true,"updated_at":%d}`, i, t0.UnixMilli())
		_, _ = fx.Apply(t.Context(), clerksync.Event{Type: "user.updated", Timestamp: t0, Data: json.RawMessage(data)})
		_, _ = fx.Apply(t.Context(), clerksync.Event{Type: "user.deleted", Data: json.RawMessage(fmt.Sprintf(`{"id":"user_gone%d"}`, i))})
	}
	if n := clerksync.CachedRecords(fx.Syncer); n == 0 || n > 100 {
		t.Errorf("%d records", n)
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
