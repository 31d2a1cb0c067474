package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// TestReconcileBadUsers has one user of ten whom the run cannot handle. It is counted,
// logged, and stops nothing.
func TestReconcileBadUsers(t *testing.T) {
	t.Parallel()
	conflict := &clerksync.ConflictError{Field: "email"}
	for name, tt := range map[string]struct {
		mapping  func(*clerk.User, *clerksync.User) error
		change   func(*fakeclerk.UserObject)
		refuse   error
		conflict bool
		nameless bool // the Report cannot say whom
	}{
		"Map fails":                             {mapping: func(*clerk.User, *clerksync.User) error { return errors.New("no tenant") }},
		"Map panics":                            {mapping: func(*clerk.User, *clerksync.User) error { panic("nil map") }},
		"Map lies":                              {mapping: func(_ *clerk.User, u *clerksync.User) error { u.ClerkID = "user_x"; return nil }},
		"of the future":                         {change: func(u *fakeclerk.UserObject) { u.UpdatedAt = t0.Add(48 * time.Hour).UnixMilli() }},
		"of wrong types":                        {change: func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"email_addresses": 7} }},
		"without an id":                         {change: func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"id": nil} }, nameless: true},
		"refused":                               {refuse: errors.New("document failed validation")},
		"in conflict":                           {refuse: conflict, conflict: true},
		"in conflict, so it is said in passing": {refuse: fmt.Errorf("store: %w", conflict), conflict: true},
	} {
		for _, force := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " force ", force), func(t *testing.T) {
				t.Parallel()
				bad := ""
				fx := newBulkFixture(t, func(c *clerksync.Config) {
					c.Map = func(cu *clerk.User, u *clerksync.User) error {
						if tt.mapping != nil && cu.ID == bad {
							return tt.mapping(cu, u)
						}
						return nil
					}
				})
				ids := fx.signUp(10)
				bad = ids[4]
				if tt.change != nil {
					if err := fx.clerk.UpdateUserSilently(bad, tt.change); err != nil {
						t.Fatal(err)
					}
				}
				fx.store.refuse = func(id string) error {
					if id == bad {
						return tt.refuse
					}
					return nil
				}
				report := fx.reconcile(t, clerksync.ReconcileOptions{PageSize: 3, Force: force})
				want, tally := map[string]int{"seen": 10, "created": 9, "failed": 1}, report.Failed
				if tt.conflict {
					want, tally = map[string]int{"seen": 10, "created": 9, "conflicts": 1}, report.Conflicts
				}
				wantCounts(t, report, want)
				if !report.Complete || report.InStep() {
					t.Errorf("reports %+v", report)
				}
				if !tt.nameless && !slices.Equal(tally.IDs, []string{bad}) {
					t.Errorf("names %v", tally.IDs)
				}
				if !tt.conflict && (strings.Count(fx.logs.String(), "could not be reconciled") != 1 || !tt.nameless && !strings.Contains(fx.logs.String(), bad)) {
					t.Errorf("logs:\n%s", fx.logs)
				}
			})
		}
	}
}

// TestReconcileManyBadUsers: the log is bounded as the Report is.
func TestReconcileManyBadUsers(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, func(c *clerksync.Config) {
		c.Map = func(*clerk.User, *clerksync.User) error { return errors.New("no tenant") }
	})
	fx.signUp(250)
	report := fx.reconcile(t, clerksync.ReconcileOptions{PageSize: 20})
	wantCounts(t, report, map[string]int{"seen": 250, "failed": 250})
	if n := strings.Count(fx.logs.String(), "could not be reconciled"); n != 100 || len(report.Failed.IDs) != 100 {
		t.Errorf("logs %d and names %d users, want 100", n, len(report.Failed.IDs))
	}
}

// TestReconcileStoreThatRefuses: users whom the Store refuses one after the other are
// the Store's fault.
func TestReconcileStoreThatRefuses(t *testing.T) {
	t.Parallel()
	invalid := errors.New("not authorized")
	for name, tt := range map[string]struct {
		arrange func(t *testing.T, fx *bulkFixture)
		opts    clerksync.ReconcileOptions
		op      string // at most so many calls of it
		calls   int
	}{
		"all writes": {func(_ *testing.T, fx *bulkFixture) { fx.signUp(200) }, clerksync.ReconcileOptions{PageSize: 10}, "UpsertBatch", 4*3*5 + 4*3},
		"all restores": {func(t *testing.T, fx *bulkFixture) {
			for _, id := range fx.backfill(t, 200) {
				if _, err := fx.store.Store.Deactivate(t.Context(), id, fx.clock.Now()); err != nil {
					t.Fatal(err)
				}
			}
			fx.clock.Advance(2 * time.Hour)
		}, clerksync.ReconcileOptions{Restore: true, Writers: 1}, "Restore", 3 * 50},
		"all deactivations": {func(t *testing.T, fx *bulkFixture) {
			fx.backfill(t, 3)
			fx.ghosts(t, 200)
		}, clerksync.ReconcileOptions{MaxDeactivations: -1}, "Deactivate", 3*50 + 4*3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			tt.arrange(t, fx)
			fx.store.reset()
			fx.store.refuse = func(string) error { return invalid }
			report, err := fx.Reconcile(t.Context(), tt.opts)
			if !errors.Is(err, clerksync.ErrUnavailable) || !errors.Is(err, invalid) || report.Complete {
				t.Errorf("%v, %+v", err, report)
			}
			if n := fx.store.count(tt.op); n == 0 || n > tt.calls {
				t.Errorf("%d times %s, want at most %d", n, tt.op, tt.calls)
			}
		})
	}
}

// TestReconcileStoreThatRefusesSome: with others written in between, any number may be
// refused.
func TestReconcileStoreThatRefusesSome(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	refused := make(map[string]bool)
	for i, id := range fx.signUp(140) {
		refused[id] = i%2 == 0
	}
	fx.store.refuse = func(id string) error {
		if refused[id] {
			return errors.New("document failed validation")
		}
		return nil
	}
	report := fx.reconcile(t, clerksync.ReconcileOptions{PageSize: 20})
	wantCounts(t, report, map[string]int{"seen": 140, "created": 70, "failed": 70})
	if !report.Complete || report.InStep() {
		t.Errorf("reports %+v", report)
	}
}

func TestReconcileRestore(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		opts              clerksync.ReconcileOptions
		restored, written bool
	}{
		"reported only":   {},
		"restored":        {clerksync.ReconcileOptions{Restore: true}, true, true},
		"with Force":      {clerksync.ReconcileOptions{Restore: true, Force: true}, true, true},
		"in a dry run":    {clerksync.ReconcileOptions{Restore: true, DryRun: true}, true, false},
		"only with Force": {clerksync.ReconcileOptions{Force: true}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			ids := fx.backfill(t, 6)
			old, changed, young, gone := ids[0], ids[1], ids[2], ids[3]
			for _, id := range []string{old, changed, gone} {
				if _, err := fx.store.Store.Deactivate(t.Context(), id, fx.clock.Now()); err != nil {
					t.Fatal(err)
				}
			}
			fx.edit(t, old, func(u *clerksync.User) { u.Role = clerksync.RoleAdmin })
			fx.rename(t, "Augusta", changed)
			fx.delete(t, gone)
			fx.clock.Advance(time.Hour)
			if _, err := fx.store.Store.Deactivate(t.Context(), young, fx.clock.Now()); err != nil {
				t.Fatal(err)
			}
			fx.clock.Advance(time.Minute)
			before := fx.records(t, ids)

			report := fx.reconcile(t, tt.opts)
			want := map[string]int{"seen": 5, "unchanged": 2, "tombstoned": 3}
			if tt.restored {
				want["restored"] = 2
			}
			wantCounts(t, report, want)
			if report.InStep() == tt.restored || !slices.Contains(report.Tombstoned.IDs, young) {
				t.Errorf("reports %+v", report)
			}
			after := fx.records(t, ids)
			if !tt.written {
				if diff := gocmp.Diff(before, after); diff != "" {
					t.Errorf("wrote (-before +after):\n%s", diff)
				}
				return
			}
			for _, id := range []string{old, changed} {
				if u := after[id]; !u.IsActive || !u.DeletedAt.IsZero() || u.ID != before[id].ID {
					t.Errorf("%+v", u)
				}
			}
			if after[old].Role != clerksync.RoleAdmin || after[changed].Profile.FirstName != "Augusta" {
				t.Errorf("%+v, %+v", after[old], after[changed])
			}
			for _, id := range []string{young, gone} {
				if diff := gocmp.Diff(before[id], after[id]); diff != "" {
					t.Errorf("wrote (-before +after):\n%s", diff)
				}
			}
			fx.inStep(t)
		})
	}
}

// A record that is given back is brought in step, also where the run ends in between, or
// the answer of Restore is lost.
func TestRestoreIsFollowedByTheRest(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault func(fx *bulkFixture, id string, stop context.CancelFunc) func(op string) error
		runs  int
	}{
		"killed after it": {func(_ *bulkFixture, _ string, stop context.CancelFunc) func(string) error {
			return func(op string) error {
				if op != "UpsertBatch" {
					return nil
				}
				stop()
				return context.Canceled
			}
		}, 2},
		"its answer is lost": {func(fx *bulkFixture, id string, _ context.CancelFunc) func(string) error {
			lost := false
			return func(op string) error {
				if op != "Restore" || lost {
					return nil
				}
				lost = true
				_, _ = fx.store.Store.Restore(context.Background(), id, fx.clock.Now())
				return errDown
			}
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			id := fx.backfill(t, 3)[0]
			if _, err := fx.store.Deactivate(t.Context(), id, fx.clock.Now()); err != nil {
				t.Fatal(err)
			}
			email := fx.get(t, id).Email
			fx.edit(t, id, func(u *clerksync.User) { u.Email = "" }) // as EraseOnDelete does, or a claim of another's
			fx.clock.Advance(2 * time.Hour)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			fx.store.fault = tt.fault(fx, id, stop)
			for run := range tt.runs {
				if _, err := fx.Reconcile(ctx, clerksync.ReconcileOptions{Restore: true}); (err == nil) != (run == tt.runs-1) {
					t.Fatal(err)
				}
				ctx, fx.store.fault = t.Context(), nil
			}
			if u := fx.get(t, id); !u.IsActive || u.Email != email {
				t.Errorf("the record is %+v", u)
			}
			fx.inStep(t)
		})
	}
}

// A user who is deleted in Clerk after Clerk listed them, and before their record is given
// back, stays deleted: the event found the record deleted already, and has come and gone.
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
	report := fx.reconcile(t, clerksync.ReconcileOptions{Restore: true})
	wantCounts(t, report, map[string]int{"seen": 3, "unchanged": 1, "tombstoned": 2, "restored": 2, "ghosts": 1, "deactivated": 1})
	if u := fx.get(t, gone); u.IsActive || u.DeletedAt.IsZero() {
		t.Errorf("who is deleted in Clerk has %+v", u)
	}
	if u := fx.get(t, kept); !u.IsActive {
		t.Errorf("who lives in Clerk has %+v", u)
	}
}

// TestReconcileHandedDownAddresses has users take each other's address, so that only
// the last can be written at first, and by each further try one more.
func TestReconcileHandedDownAddresses(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 4)
	fx.store.UniqueEmail = true
	for i, of := range []int{2, 3, 1, 4} {
		if err := fx.clerk.UpdateUser(ids[i], func(u *fakeclerk.UserObject) {
			u.EmailAddresses[0].EmailAddress = fmt.Sprintf("ada%d@example.com", of)
		}); err != nil {
			t.Fatal(err)
		}
	}
	report := fx.reconcile(t, clerksync.ReconcileOptions{PageSize: 2, Writers: 1})
	wantCounts(t, report, map[string]int{"seen": 4, "updated": 4})
	fx.inStep(t)
}

func TestReconcileSwappedAddressesStayInConflict(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 3)
	fx.store.UniqueEmail = true
	for i, id := range ids[:2] {
		if err := fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) {
			u.EmailAddresses[0].EmailAddress = fmt.Sprintf("ada%d@example.com", 1-i)
		}); err != nil {
			t.Fatal(err)
		}
	}
	report := fx.reconcile(t, clerksync.ReconcileOptions{})
	wantCounts(t, report, map[string]int{"seen": 3, "unchanged": 1, "conflicts": 2})
	if !report.Complete || report.InStep() || !slices.Equal(slices.Sorted(slices.Values(report.Conflicts.IDs)), slices.Sorted(slices.Values(ids[:2]))) {
		t.Errorf("reports %+v", report)
	}
}
