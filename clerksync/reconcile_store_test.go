package clerksync_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/internal/retry"
)

// TestReconcileStoreDown has the Store fail in one of its methods for a while, or for
// too long.
func TestReconcileStoreDown(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"Stamps", "Users", "UpsertBatch", "Undeleted", "Deactivate", "Restore"} {
		for _, outage := range []time.Duration{3 * time.Minute, time.Hour} {
			t.Run(fmt.Sprint(op, " ", outage), func(t *testing.T) {
				t.Parallel()
				fx := newBulkFixture(t, nil)
				ids := fx.backfill(t, 20)
				if _, err := fx.store.Store.Deactivate(t.Context(), ids[3], fx.clock.Now()); err != nil {
					t.Fatal(err)
				}
				fx.rename(t, "Augusta", ids[12:]...)
				fx.ghosts(t, 3)
				var mu sync.Mutex
				var began time.Time
				down := false
				calls := 0
				fx.store.fault = func(called string) error {
					mu.Lock()
					defer mu.Unlock()
					if called == op {
						calls++
					}
					// From the second call of op on everything fails.
					if calls == 2 && began.IsZero() {
						began, down = fx.clock.Now(), true
					}
					if down = down && fx.clock.Now().Sub(began) < outage; down {
						return errDown
					}
					return nil
				}
				opts := clerksync.ReconcileOptions{PageSize: 5, Restore: true, Force: op == "Users", Writers: 1}
				if op == "Restore" || op == "Undeleted" {
					calls = 1
				}
				report, err := fx.Reconcile(t.Context(), opts)
				if began.IsZero() {
					t.Fatal("the Store was never down")
				}
				fx.store.fault = nil
				if outage > retry.GiveUpAfter {
					if !errors.Is(err, clerksync.ErrUnavailable) || report.Complete {
						t.Fatalf("%v, %+v", err, report)
					}
					if took := fx.clock.Now().Sub(began); took > retry.GiveUpAfter+2*time.Minute {
						t.Errorf("gave up after %v", took)
					}
					opts.Resume = report.Resume
					if _, err = fx.Reconcile(t.Context(), opts); err != nil {
						t.Fatal(err)
					}
				} else if err != nil || !report.Complete || report.Failed.Count != 0 {
					t.Fatalf("%v, %+v", err, report)
				} else {
					wantCounts(t, report, map[string]int{"seen": 20, "unchanged": 11, "updated": 8, "tombstoned": 1, "restored": 1, "ghosts": 3, "deactivated": 3})
				}
				fx.inStep(t)
			})
		}
	}
}

// TestReconcileStoreThatBreaksOff has the list of records end in an error again and
// again, each time a little further on: longer in all than the patience for one call.
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
	report := fx.reconcile(t, clerksync.ReconcileOptions{MaxDeactivations: -1})
	wantCounts(t, report, map[string]int{"seen": len(ids), "unchanged": len(ids), "ghosts": len(ghosts), "deactivated": len(ghosts)})
	if report.Duration < 20*time.Minute {
		t.Errorf("took only %v", report.Duration)
	}
}

// A write whose answer never comes may have been done: the next visit looks.
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
	if report := fx.reconcile(t, clerksync.ReconcileOptions{}); report.Failed.Count != 1 {
		t.Errorf("reports %+v", report)
	}
	refusedWith(t, fx.Syncer, id, clerksync.ErrUserInactive)
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
			report, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{PageSize: 2})
			if !errors.Is(err, clerksync.ErrUnavailable) || !strings.Contains(err.Error(), "nil map") || report.Complete {
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
		fx.store.refuse = func(id string) error {
			if id == created[0] {
				return errors.New("document failed validation")
			}
			return nil
		}
		s := fx.syncer(t, func(c *clerksync.Config) { c.Store = plainStore{fx.store} })
		report, err := s.Reconcile(t.Context(), clerksync.ReconcileOptions{PageSize: 5, Force: force})
		if err != nil || report.Complete || report.InStep() || !strings.Contains(report.Reason, "BatchStore") || report.Resume != "" {
			t.Errorf("%v, %+v", err, report)
		}
		wantCounts(t, report, map[string]int{"seen": 12, "unchanged": 9, "updated": 1, "created": 1, "failed": 1})
		if fx.store.count("Deactivate") != 0 || fx.store.count("UpsertBatch") != 0 || fx.lookups() != 0 {
			t.Error("looked for ghosts")
		}
		if fx.get(t, ids[2]).Profile.FirstName != "Augusta" || !fx.get(t, created[1]).IsActive {
			t.Error("the users are not in step")
		}
	}
}
