package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

func TestFirstVisitCreatesTheRecord(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: "ada@example.com"})
	fx.clock.Advance(time.Minute)

	u := visit(t, fx.Syncer, id)
	if u.Email != "ada@example.com" || u.ID == "" || u.Role != clerksync.RoleStudent || !u.IsActive {
		t.Errorf("record is %+v", u)
	}
	if !u.SyncedAt.Equal(fx.clock.Now()) {
		t.Errorf("SyncedAt is %v, want %v", u.SyncedAt, fx.clock.Now())
	}
	want := clerksync.Observation{
		Op: clerksync.OpVisit, Source: clerksync.SourceClerk, ClerkID: id, Outcome: clerksync.Created,
	}
	if o := fx.seen.last(); o != want {
		t.Errorf("observed %+v, want %+v", o, want)
	}
	fx.wantOneOfEach(t)

	if again := visit(t, fx.Syncer, id); again == u || again.ID != u.ID {
		t.Errorf("the second visit got %+v, want a copy of the same record", again)
	}
	fx.wantOneOfEach(t)
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
	fx.wantOneOfEach(t)
}

// barredCase is a user who does not get in, and why.
type barredCase struct {
	arrange func(*testing.T, *fixture, string)
	want    error
}

func barredCases() map[string]barredCase {
	return map[string]barredCase{
		"banned in Clerk": {
			func(_ *testing.T, fx *fixture, id string) { _ = fx.clerk.BanUser(id) },
			clerksync.ErrUserInactive,
		},
		"deprovisioned in Clerk": {
			func(_ *testing.T, fx *fixture, id string) {
				_ = fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.Deprovisioned = true })
			},
			clerksync.ErrUserInactive,
		},
		"suspended by the app": {
			func(t *testing.T, fx *fixture, id string) {
				visit(t, fx.Syncer, id)
				_ = fx.store.Edit(id, func(u *clerksync.User) { u.IsActive = false })
				fx.Forget(id)
			},
			clerksync.ErrUserInactive,
		},
		"deleted": {
			func(t *testing.T, fx *fixture, id string) {
				if _, err := fx.store.Deactivate(t.Context(), id, t0); err != nil {
					t.Fatal(err)
				}
			},
			clerksync.ErrUserInactive,
		},
		"unknown to Clerk": {
			func(_ *testing.T, fx *fixture, id string) { _ = fx.clerk.DeleteUser(id) },
			clerksync.ErrUserUnknown,
		},
	}
}

func TestBarredAndUnknownUsers(t *testing.T) {
	t.Parallel()
	for name, tt := range barredCases() {
		for _, policy := range []clerksync.FailurePolicy{clerksync.FailClosed, clerksync.FailOpen} {
			t.Run(fmt.Sprint(name, policy), func(t *testing.T) {
				t.Parallel()
				fx := newFixture(t, func(c *clerksync.Config) { c.OnFailure = policy })
				id := fx.clerk.CreateUser(fakeclerk.NewUser{})
				tt.arrange(t, fx, id)
				visitFails(t, fx.Syncer, id, tt.want)
				visitFails(t, fx.Syncer, id, tt.want) // from the cache
				var p *clerksync.Problem
				if o := fx.seen.last(); !errors.As(o.Err, &p) || p.Status != 403 || !errors.Is(o.Err, tt.want) {
					t.Errorf("observed %+v", o)
				}
			})
		}
	}
}

func TestSubjectsThatAreNotUserIDs(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	for _, id := range []string{
		"", "user_", "mch_1", "../jwks", "user_../../jwks", "user_1?x=1", "user_1/ban", "user_ö", "user_1\x00",
		"USER_1",
		"user_" + strings.Repeat("a", 65),
	} {
		visitFails(t, fx.Syncer, id, clerksync.ErrUserUnknown)
		if _, err := fx.Sync(t.Context(), id); !errors.Is(err, clerksync.ErrUserUnknown) {
			t.Errorf("Sync(%q): %v", id, err)
		}
	}
	if fx.clerk.Calls("") != 0 || fx.store.users.Load() != 0 {
		t.Errorf("%s; want none", fx.calls())
	}
}

func TestStoredRecordNeedsNoClerk(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, fx.Syncer, id)
	other := fx.syncer(t, nil)
	visit(t, other, id)
	if fx.userCalls() != 1 {
		t.Errorf("%d Clerk calls, want the first visit's only", fx.userCalls())
	}
	if o := fx.seen.last(); o.Source != clerksync.SourceStore {
		t.Errorf("observed %+v", o)
	}
}

func TestUnknownUserIsRememberedForAMoment(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	const id = "user_ghost"
	visitFails(t, fx.Syncer, id, clerksync.ErrUserUnknown)
	fx.clock.Advance(9 * time.Second)
	visitFails(t, fx.Syncer, id, clerksync.ErrUserUnknown)
	if fx.userCalls() != 1 {
		t.Errorf("%d Clerk calls, want 1", fx.userCalls())
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
	visitFails(t, fx.Syncer, id, clerksync.ErrUserUnknown)
	fx.clerk.CreateUser(fakeclerk.NewUser{ID: id})
	raw, _ := fx.clerk.User(id)
	if _, err := fx.Apply(t.Context(), clerksync.Event{Type: "user.created", Timestamp: fx.clock.Now(),
		Data: raw}); err != nil {
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
	fx.clock.Advance(2 * time.Hour) // a refresh is due, and Clerk does not have the user
	visit(t, fx.Syncer, id)
	_ = fx.Close()
	if _, err := fx.Sync(t.Context(), id); !errors.Is(err, clerksync.ErrUserUnknown) {
		t.Errorf("Sync: %v", err)
	}
	if u, err := fx.store.Store.User(t.Context(), id); err != nil || !u.IsActive || !u.DeletedAt.IsZero() {
		t.Errorf("record is %+v, %v", u, err)
	}
}

// A visitor who leaves returns at once, and the lookup goes on for the others.
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
	if fx.userCalls() != 1 {
		t.Errorf("%d Clerk calls", fx.userCalls())
	}
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

// While a first visit waits for Clerk, another process may create the record, in any state. The
// visit serves what the Store has.
func TestEveryOutcomeOfAFirstVisit(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		meanwhile func(t *testing.T, fx *fixture, id string)
		want      clerksync.Outcome
	}{
		"nothing": {func(*testing.T, *fixture, string) {}, clerksync.Created},
		"equal":   {func(t *testing.T, fx *fixture, id string) { fx.createRecord(t, id) }, clerksync.Unchanged},
		"older": {func(t *testing.T, fx *fixture, id string) {
			fx.createRecord(t, id)
			_ = fx.store.Edit(id, func(u *clerksync.User) {
				u.ClerkUpdatedAt, u.Name = u.ClerkUpdatedAt.Add(-time.Hour), "Older"
			})
		}, clerksync.Updated},
		"newer": {func(t *testing.T, fx *fixture, id string) {
			fx.createRecord(t, id)
			newerRecord(fx, id)
		}, clerksync.Stale},
		"deleted": {func(t *testing.T, fx *fixture, id string) {
			_, _ = fx.store.Deactivate(t.Context(), id, t0)
		}, clerksync.Deactivated},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
			fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
				fx.clerk.SetFault(nil)
				tt.meanwhile(t, fx, id)
				return nil
			})
			u, err := fx.User(t.Context(), id)
			if o := fx.seen.last(); o.Op != clerksync.OpVisit || o.Source != clerksync.SourceClerk ||
				o.Outcome != tt.want {
				t.Errorf("observed %+v, want the Outcome %v", o, tt.want)
			}
			if tt.want == clerksync.Deactivated {
				if !errors.Is(err, clerksync.ErrUserInactive) || u != nil {
					t.Errorf("visit: %+v, %v", u, err)
				}
				return
			}
			want := map[clerksync.Outcome]string{clerksync.Stale: "Newer"}[tt.want]
			if want == "" {
				want = "Ada"
			}
			if stored := fx.stored(t, id); err != nil || u.Name != want || stored.Name != want || u.ID != stored.ID {
				t.Errorf("visit: %+v, %v; stored is %+v", u, err, stored)
			}
		})
	}
}
