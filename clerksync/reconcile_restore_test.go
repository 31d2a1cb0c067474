package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// A user is deleted in Clerk after the list and before the record is restored. The event found the
// record deleted already, so nothing else will delete it: the run must.
func TestRestoreOfAUserDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 3)
	gone, kept := ids[0], ids[1]
	for _, id := range []string{gone, kept} {
		if _, err := fx.store.Deactivate(t.Context(), id, fx.clock.Now()); err != nil {
			t.Fatal(err)
		}
	}
	fx.clock.Advance(2 * time.Hour)
	var once sync.Once
	fx.store.fault = func(op string) error {
		if op == "Restore" {
			once.Do(func() {
				fx.delete(t, gone)
				deleteEvent(t, fx, gone)
			})
		}
		return nil
	}
	report := fx.reconcile(t, options{Restore: true})
	wantCounts(t, report, tally{"seen": 3, "unchanged": 1, "tombstoned": 2, "restored": 2, "ghosts": 1,
		"deactivated": 1})
	if u := fx.get(t, gone); u.IsActive || u.DeletedAt.IsZero() {
		t.Errorf("the user who is deleted in Clerk has %+v", u)
	}
	if u := fx.get(t, kept); !u.IsActive {
		t.Errorf("the user who is still in Clerk has %+v", u)
	}
}

// restoreOnly is a Store and a RestoreStore, and not a BatchStore.
type restoreOnly struct {
	clerksync.Store
	restore func(ctx context.Context, id string, before time.Time) (bool, error)
}

func (s restoreOnly) Restore(ctx context.Context, id string, before time.Time) (bool, error) {
	return s.restore(ctx, id, before)
}

// TestRestoreOfAUserDeletedMeanwhileWithoutASweep is a run that does not look for ghosts, or not to
// the end. Nevertheless it may not bring back a user who was deleted before the record was restored.
func TestRestoreOfAUserDeletedMeanwhileWithoutASweep(t *testing.T) {
	t.Parallel()
	type arrange struct {
		plain      bool                                // the Store is not a BatchStore
		others     int                                 // users in step
		prepare    func(t *testing.T, fx *bulkFixture) // before the run
		write      func(stop func()) error             // at the write after the Restore
		want       error
		incomplete bool
	}
	short := func(_ *testing.T, fx *bulkFixture) {
		fx.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
			if r.URL.Path == "/v1/users/count" {
				return &fakeclerk.Fault{Body: `{"object":"total_count","total_count":1000}`}
			}
			return nil
		})
	}
	for name, tt := range map[string]arrange{
		"no BatchStore":      {plain: true, others: 2, incomplete: true},
		"only tombstones":    {},
		"an incomplete list": {others: 2, prepare: short, want: clerksync.ErrIncomplete},
		"too many ghosts":    {others: 2, prepare: func(t *testing.T, fx *bulkFixture) { fx.ghosts(t, 11) }, want: clerksync.ErrTooManyGhosts},
		"cancelled after it": {others: 2, write: func(stop func()) error {
			stop()
			return context.Canceled
		}, want: context.Canceled},
		"its write fails for too long": {others: 2, write: func(func()) error { return errDown }, want: clerksync.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			id := fx.backfill(t, 1+tt.others)[0]
			fx.deactivate(t, id)
			fx.clock.Advance(2 * time.Hour)
			if tt.prepare != nil {
				tt.prepare(t, fx)
			}
			s := fx.Syncer
			if tt.plain {
				s = fx.syncer(t, func(c *clerksync.Config) { c.Store = restoreOnly{plainStore{fx.store}, fx.store.Restore} })
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var once sync.Once
			fx.store.fault = func(op string) error {
				switch {
				case op == "Restore":
					once.Do(func() {
						fx.delete(t, id)
						deleteEvent(t, fx, id)
					})
				case tt.write != nil && fx.store.count("UpsertBatch") > 0 && (op == "UpsertBatch" || op == "Stamps"):
					return tt.write(stop)
				}
				return nil
			}
			report, err := s.Reconcile(ctx, options{Restore: true, Writers: 1})
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) ||
				report.Complete != (tt.want == nil && !tt.incomplete) {
				t.Errorf("%v, reports %+v", err, report)
			}
			if u := fx.get(t, id); u.IsActive || u.DeletedAt.IsZero() || fx.store.count("Restore") == 0 {
				t.Errorf("after %d restores, the user who is deleted in Clerk has %+v", fx.store.count("Restore"), u)
			}
		})
	}
}

// A restored record costs one more request to Clerk for each hundred, and none in a dry run.
func TestRestoreCost(t *testing.T) {
	t.Parallel()
	for _, dry := range []bool{false, true} {
		t.Run(fmt.Sprint("dry ", dry), func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			fx.deactivate(t, fx.backfill(t, 250)[:120]...)
			fx.clock.Advance(2 * time.Hour)
			fx.clerk.ResetCalls()
			report := fx.reconcile(t, options{Restore: true, DryRun: dry, RequestsPerSecond: 1e6})
			wantCounts(t, report, tally{"seen": 250, "unchanged": 130, "tombstoned": 120, "restored": 120})
			want := 1 + 1 + 2 // the sample, one page, two counts
			if !dry {
				want += 2
			}
			if n := fx.clerk.Calls(""); n != want {
				t.Errorf("%d requests, want %d", n, want)
			}
		})
	}
}
