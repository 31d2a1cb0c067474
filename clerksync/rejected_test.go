package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

var errValidator = fmt.Errorf("%w: the validator", clerksync.ErrRejected)

// validating is a Store that rejects every record with a given name, and every tombstone if
// asked to.
type validating struct {
	clerksync.Store
	name       string
	tombstones bool
}

func (s *validating) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	if u.Profile.FirstName == s.name {
		return clerksync.Result{}, errValidator
	}
	return s.Store.Upsert(ctx, u)
}

func (s *validating) Deactivate(ctx context.Context, id string, at time.Time) (clerksync.Result, error) {
	if s.tombstones {
		return clerksync.Result{}, errValidator
	}
	return s.Store.Deactivate(ctx, id, at)
}

// A record that the Store never takes is not an outage: every path says so, and none waits or
// retries.
func TestRejectedRecord(t *testing.T) {
	t.Parallel()
	apply := func(typ, data string) func(context.Context, *clerksync.Syncer, string) error {
		return func(ctx context.Context, s *clerksync.Syncer, id string) error {
			_, err := s.Apply(ctx, clerksync.Event{Type: typ, Data: fmt.Appendf(nil, data, id), Timestamp: t0})
			return err
		}
	}
	for name, call := range map[string]func(context.Context, *clerksync.Syncer, string) error{
		"a visit": func(ctx context.Context, s *clerksync.Syncer, id string) error { _, err := s.User(ctx, id); return err },
		"Sync":    func(ctx context.Context, s *clerksync.Syncer, id string) error { _, err := s.Sync(ctx, id); return err },
		"user.updated": apply("user.updated",
			`{"id":%q,"first_name":"Bad","updated_at":1767225600000,"email_addresses":[]}`),
		"user.deleted": apply("user.deleted", `{"id":%q,"deleted":true}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			s := fx.syncer(t, func(c *clerksync.Config) {
				c.Store = &validating{Store: fx.store, name: "Bad", tombstones: true}
				c.OnFailure = clerksync.FailOpen // which is for outages
			})
			id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Bad"})
			err := call(t.Context(), s, id)
			if !errors.Is(err, clerksync.ErrRejected) || errors.Is(err, clerksync.ErrUnavailable) {
				t.Errorf("error %v, want ErrRejected alone", err)
			}
			if _, err := fx.store.Store.User(t.Context(), id); !errors.Is(err, clerksync.ErrNotFound) {
				t.Errorf("something was written: %v", err)
			}
		})
	}
}

// A user who has a record already keeps it if the Store rejects what Clerk has now.
func TestRejectedRereadKeepsTheRecord(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	s := fx.syncer(t, func(c *clerksync.Config) { c.Store = &validating{Store: fx.store, name: "Bad"} })
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	visit(t, s, id)
	fx.clock.Advance(time.Minute)
	fx.rename(t, id, "Bad")
	if u := fx.visitWith(t, s, id, fx.version(t, id).UnixMilli()); u.Profile.FirstName != "Ada" {
		t.Errorf("the visitor gets %+v", u)
	}
}

// A run counts the rejected users, says so in the log, and tries none of them twice.
func TestReconcileRejectedRecords(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		plain bool
		calls int
	}{"BatchStore": {false, 3}, "Store": {true, 30}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			ids := fx.signUp(30)
			reject := map[string]bool{ids[3]: true, ids[17]: true}
			fx.store.reject = func(id string) error {
				if reject[id] {
					return errValidator
				}
				return nil
			}
			s := fx.Syncer
			if tt.plain {
				s = fx.syncer(t, func(c *clerksync.Config) { c.Store = plainStore{fx.store} })
			}
			report, _ := s.Reconcile(t.Context(), options{PageSize: 10})
			wantCounts(t, report, tally{"seen": 30, "created": 28, "failed": 2})
			if n, m := fx.store.count("UpsertBatch"), fx.store.count("Upsert"); n+m != tt.calls {
				t.Errorf("%d calls of UpsertBatch and %d of Upsert, want %d", n, m, tt.calls)
			}
		})
	}
}

// If the Store rejects everybody, the run ends early, and its error says why.
func TestReconcileRejectsEverybody(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	fx.signUp(200)
	fx.store.reject = func(string) error { return errValidator }
	report, err := fx.Reconcile(t.Context(), options{PageSize: 10, Writers: 1})
	if !errors.Is(err, clerksync.ErrRejected) || report.Complete {
		t.Errorf("%v, %+v", err, report)
	}
	if n := fx.store.count("UpsertBatch"); n != 5 {
		t.Errorf("%d calls of UpsertBatch, want an end after 50 users", n)
	}
}
