package clerksync_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/internal/retry"
)

// outage has all calls of the Store fail for a while, beginning with a call of one method.
type outage struct {
	clock  *fakeclerk.Clock
	op     string // the method
	calls  int    // of op; the second one begins the outage
	length time.Duration

	mu    sync.Mutex
	began time.Time
}

func (o *outage) fault(called string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if called == o.op {
		o.calls++
	}
	if o.calls == 2 && o.began.IsZero() {
		o.began = o.clock.Now()
	}
	if !o.began.IsZero() && o.clock.Now().Sub(o.began) < o.length {
		return errDown
	}
	return nil
}

// TestReconcileStoreDown lets the Store fail in each of its methods, for a while and for longer than
// a run waits.
func TestReconcileStoreDown(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"Stamps", "Users", "UpsertBatch", "Undeleted", "Deactivate", "Restore"} {
		for _, length := range []time.Duration{3 * time.Minute, time.Hour} {
			t.Run(fmt.Sprint(op, " ", length), func(t *testing.T) {
				t.Parallel()
				fx := newBulkFixture(t, nil)
				ids := fx.backfill(t, 20)
				fx.deactivate(t, ids[3])
				fx.rename(t, "Augusta", ids[12:]...)
				fx.ghosts(t, 3)
				down := &outage{clock: fx.clock, op: op, length: length}
				if op == "Restore" || op == "Undeleted" {
					down.calls = 1
				}
				fx.store.fault = down.fault
				opts := options{PageSize: 5, Restore: true, Force: op == "Users", Writers: 1}
				report, err := fx.Reconcile(t.Context(), opts)
				if down.began.IsZero() {
					t.Fatal("the Store was never down")
				}
				fx.store.fault = nil
				if length > retry.GiveUpAfter {
					took := fx.clock.Now().Sub(down.began)
					if !errors.Is(err, clerksync.ErrUnavailable) || report.Complete ||
						took > retry.GiveUpAfter+2*time.Minute {
						t.Fatalf("%v after %v, %+v", err, took, report)
					}
					opts.Resume = report.Resume
					if _, err = fx.Reconcile(t.Context(), opts); err != nil {
						t.Fatal(err)
					}
				} else {
					if err != nil || !report.Complete || report.Failed.Count != 0 {
						t.Fatalf("%v, %+v", err, report)
					}
					wantCounts(t, report, tally{
						"seen": 20, "unchanged": 11, "updated": 8, "tombstoned": 1, "restored": 1,
						"ghosts": 3, "deactivated": 3,
					})
				}
				fx.inStep(t)
			})
		}
	}
}

// TestReconcileStoreThatBreaksOff lets the list of records end in an error again and again, each
// time a record later. Altogether this takes longer than a run waits for one call.
func TestReconcileStoreThatBreaksOff(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 1)
	ghosts := fx.ghosts(t, 30)
	yielded, passed := 0, 1
	fx.store.fault = func(op string) error {
		if op != "Undeleted" || fx.clerk.Calls("GET /v1/users/count") < 2 { // not yet looking for ghosts
			return nil
		}
		if yielded++; yielded <= passed {
			return nil
		}
		yielded = 0
		passed++
		fx.clock.Advance(time.Minute)
		return errDown
	}
	report := fx.reconcile(t, options{MaxDeactivations: -1})
	wantCounts(t, report, tally{
		"seen": len(ids), "unchanged": len(ids), "ghosts": len(ghosts), "deactivated": len(ghosts),
	})
	if report.Duration < 20*time.Minute {
		t.Errorf("took only %v", report.Duration)
	}
}

// A write without an answer may have been applied, so the next visit reads the Store.
func TestReconcileWritesWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, func(c *clerksync.Config) { c.CacheTTL, c.RefreshAfter = 24*time.Hour, -1 })
	id := fx.backfill(t, 1)[0]
	visit(t, fx.Syncer, id)
	fx.clock.Advance(time.Second)
	if err := fx.clerk.BanUser(id); err != nil {
		t.Fatal(err)
	}
	fx.store.fault = func(op string) error {
		if op != "UpsertBatch" {
			return nil
		}
		if err := fx.store.Edit(id, func(u *clerksync.User) { u.Banned = true }); err != nil {
			t.Error(err)
		}
		return errDown
	}
	if report := fx.reconcileSome(t, options{}); report.Failed.Count != 1 {
		t.Errorf("reports %+v", report)
	}
	visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
}

func TestReconcileStoreThatPanics(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"Stamps", "UpsertBatch", "Deactivate"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			ids := fx.backfill(t, 10)
			fx.rename(t, "Augusta", ids...)
			fx.ghosts(t, 3)
			fx.store.fault = func(called string) error {
				if called == op {
					panic("nil map")
				}
				return nil
			}
			report, err := fx.Reconcile(t.Context(), options{PageSize: 2})
			if !errors.Is(err, clerksync.ErrUnavailable) || !strings.Contains(err.Error(), "nil map") ||
				report.Complete {
				t.Errorf("%v, %+v", err, report)
			}
		})
	}
}

func TestReconcilePlainStore(t *testing.T) {
	t.Parallel()
	for _, force := range []bool{false, true} {
		fx := newBulkFixture(t, nil)
		ids := fx.backfill(t, 10)
		fx.ghosts(t, 2)
		fx.rename(t, "Augusta", ids[2])
		created := fx.signUp(2)
		fx.store.reject = func(id string) error {
			if id == created[0] {
				return errors.New("document failed validation")
			}
			return nil
		}
		s := fx.syncer(t, func(c *clerksync.Config) { c.Store = plainStore{fx.store} })
		report, err := s.Reconcile(t.Context(), options{PageSize: 5, Force: force})
		if report.Complete || report.InStep() || !strings.Contains(report.Reason, "BatchStore") || report.Resume != "" {
			t.Errorf("%v, %+v", err, report)
		}
		wantUnwritten(t, &report, err)
		wantCounts(t, report, tally{"seen": 12, "unchanged": 9, "updated": 1, "created": 1, "failed": 1})
		if fx.store.count("Deactivate") != 0 || fx.store.count("UpsertBatch") != 0 || fx.userCalls() != 0 {
			t.Error("looked for ghosts")
		}
		if fx.get(t, ids[2]).Profile.FirstName != "Augusta" || !fx.get(t, created[1]).IsActive {
			t.Error("the users are not in step")
		}
	}
}
