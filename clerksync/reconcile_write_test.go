package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// badUser is a way in which a run cannot handle one user.
type badUser struct {
	mapping  func(*clerk.User, *clerksync.User) error
	change   func(*fakeclerk.UserObject)
	reject   error // of the Store
	conflict bool  // counts as a conflict
	nameless bool  // the Report cannot say whom
}

func badUsers() map[string]badUser {
	conflict := &clerksync.ConflictError{Field: "email"}
	type clerkUser = clerk.User
	type user = clerksync.User
	return map[string]badUser{
		"Map fails":      {mapping: func(*clerkUser, *user) error { return errors.New("no tenant") }},
		"Map panics":     {mapping: func(*clerkUser, *user) error { panic("nil map") }},
		"Map lies":       {mapping: func(_ *clerkUser, u *user) error { u.ClerkID = "user_x"; return nil }},
		"of the future":  {change: func(u *fakeclerk.UserObject) { u.UpdatedAt = t0.Add(48 * time.Hour).UnixMilli() }},
		"of wrong types": {change: func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"email_addresses": 7} }},
		"without an id": {
			change:   func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"id": nil} },
			nameless: true,
		},
		"rejected":             {reject: errors.New("document failed validation")},
		"in conflict":          {reject: conflict, conflict: true},
		"in conflict, wrapped": {reject: fmt.Errorf("store: %w", conflict), conflict: true},
	}
}

// TestReconcileBadUsers runs over ten users, one of whom it cannot handle. The user is counted and
// logged, and the run goes on.
func TestReconcileBadUsers(t *testing.T) {
	t.Parallel()
	for name, tt := range badUsers() {
		for _, force := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " force ", force), func(t *testing.T) {
				t.Parallel()
				tt.run(t, force)
			})
		}
	}
}

func (tt badUser) run(t *testing.T, force bool) {
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
		fx.updateSilently(t, bad, tt.change)
	}
	fx.store.reject = func(id string) error {
		if id == bad {
			return tt.reject
		}
		return nil
	}
	report := fx.reconcileSome(t, options{PageSize: 3, Force: force})
	want, counted := tally{"seen": 10, "created": 9, "failed": 1}, report.Failed
	if tt.conflict {
		want, counted = tally{"seen": 10, "created": 9, "conflicts": 1}, report.Conflicts
	}
	wantCounts(t, report, want)
	if !report.Complete || report.InStep() {
		t.Errorf("reports %+v", report)
	}
	if !tt.nameless && !slices.Equal(counted.IDs, []string{bad}) {
		t.Errorf("names %v", counted.IDs)
	}
	logs := fx.logs.String()
	if !tt.conflict && strings.Count(logs, "could not be reconciled") != 1 {
		t.Errorf("logs:\n%s", logs)
	}
	if !tt.conflict && !tt.nameless && !strings.Contains(logs, bad) {
		t.Errorf("the logs do not name %s:\n%s", bad, logs)
	}
}

// The log is limited to 100 users, as the Report is.
func TestReconcileManyBadUsers(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, func(c *clerksync.Config) {
		c.Map = func(*clerk.User, *clerksync.User) error { return errors.New("no tenant") }
	})
	fx.signUp(250)
	report := fx.reconcileSome(t, options{PageSize: 20})
	wantCounts(t, report, tally{"seen": 250, "failed": 250})
	if n := strings.Count(fx.logs.String(), "could not be reconciled"); n != 100 || len(report.Failed.IDs) != 100 {
		t.Errorf("logs %d and names %d users, want 100", n, len(report.Failed.IDs))
	}
}

// If the Store rejects one user after the other, the fault is the Store's, and the run ends.
func TestReconcileStoreRejectsEveryUser(t *testing.T) {
	t.Parallel()
	invalid := errors.New("not authorized")
	for name, tt := range map[string]struct {
		arrange func(t *testing.T, fx *bulkFixture)
		opts    options
		op      string // is called at most so many times
		calls   int
	}{
		"all writes": {
			arrange: func(_ *testing.T, fx *bulkFixture) { fx.signUp(200) },
			opts:    options{PageSize: 10},
			op:      "UpsertBatch", calls: 4*3*5 + 4*3,
		},
		"all restores": {
			arrange: func(t *testing.T, fx *bulkFixture) {
				fx.deactivate(t, fx.backfill(t, 200)...)
				fx.clock.Advance(2 * time.Hour)
			},
			opts: options{Restore: true, Writers: 1},
			op:   "Restore", calls: 3 * 50,
		},
		"all deactivations": {
			arrange: func(t *testing.T, fx *bulkFixture) {
				fx.backfill(t, 3)
				fx.ghosts(t, 200)
			},
			opts: options{MaxDeactivations: -1},
			op:   "Deactivate", calls: 3*50 + 4*3,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			tt.arrange(t, fx)
			fx.store.reset()
			fx.store.reject = func(string) error { return invalid }
			report, err := fx.Reconcile(t.Context(), tt.opts)
			if !errors.Is(err, clerksync.ErrUnavailable) || !errors.Is(err, invalid) || report.Complete {
				t.Errorf("%v, %+v", err, report)
			}
			if n := fx.store.count(tt.op); n == 0 || n > tt.calls {
				t.Errorf("%s was called %d times, want at most %d", tt.op, n, tt.calls)
			}
		})
	}
}

// As long as others are written in between, any number of users may be rejected.
func TestReconcileStoreRejectsEverySecondUser(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	rejected := make(map[string]bool)
	for i, id := range fx.signUp(140) {
		rejected[id] = i%2 == 0
	}
	fx.store.reject = func(id string) error {
		if rejected[id] {
			return errors.New("document failed validation")
		}
		return nil
	}
	report := fx.reconcileSome(t, options{PageSize: 20})
	wantCounts(t, report, tally{"seen": 140, "created": 70, "failed": 70})
	if !report.Complete || report.InStep() {
		t.Errorf("reports %+v", report)
	}
}

// restoreCase is a run over records that are marked deleted although Clerk has their users.
type restoreCase struct {
	opts              options
	restored, written bool
}

func TestReconcileRestore(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]restoreCase{
		"reported only":   {},
		"restored":        {options{Restore: true}, true, true},
		"with Force":      {options{Restore: true, Force: true}, true, true},
		"in a dry run":    {options{Restore: true, DryRun: true}, true, false},
		"only with Force": {options{Force: true}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			ids := fx.backfill(t, 6)
			old, changed, young, gone := ids[0], ids[1], ids[2], ids[3]
			fx.deactivate(t, old, changed, gone)
			fx.edit(t, old, func(u *clerksync.User) { u.Role = clerksync.RoleAdmin })
			fx.rename(t, "Augusta", changed)
			fx.delete(t, gone)
			fx.clock.Advance(time.Hour)
			fx.deactivate(t, young)
			fx.clock.Advance(time.Minute)
			before := fx.records(t, ids)

			report := fx.reconcile(t, tt.opts)
			want := tally{"seen": 5, "unchanged": 2, "tombstoned": 3}
			if tt.restored {
				want["restored"] = 2
			}
			wantCounts(t, report, want)
			if report.InStep() == tt.restored || !slices.Contains(report.Tombstoned.IDs, young) {
				t.Errorf("reports %+v", report)
			}
			after := fx.records(t, ids)
			if !tt.written {
				old, changed = "", ""
			}
			for _, id := range ids {
				switch id {
				case old:
					checkRestored(t, before[id], after[id], clerksync.RoleAdmin, "Ada")
				case changed:
					checkRestored(t, before[id], after[id], clerksync.RoleStudent, "Augusta")
				default:
					if diff := gocmp.Diff(before[id], after[id]); diff != "" {
						t.Errorf("wrote (-before +after):\n%s", diff)
					}
				}
			}
			if tt.written {
				fx.inStep(t)
			}
		})
	}
}

// checkRestored checks that a record is active again, the same one, with Clerk's first name and the
// app's role.
func checkRestored(t *testing.T, before, u *clerksync.User, role clerksync.Role, firstName string) {
	t.Helper()
	if !u.IsActive || !u.DeletedAt.IsZero() || u.ID != before.ID {
		t.Errorf("restored: %+v", u)
	}
	if u.Role != role || u.Profile.FirstName != firstName {
		t.Errorf("restored with the role %s and the name %s: %+v", u.Role, u.Profile.FirstName, u)
	}
}

// A restored record is brought in step, even if the run ends in between or the answer of Restore is
// lost.
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
			fx.edit(t, id, func(u *clerksync.User) { u.Email = "" }) // as EraseOnDelete does
			fx.clock.Advance(2 * time.Hour)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			fx.store.fault = tt.fault(fx, id, stop)
			for run := range tt.runs {
				if _, err := fx.Reconcile(ctx, options{Restore: true}); (err == nil) != (run == tt.runs-1) {
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

// TestReconcileHandedDownAddresses lets users take each other's addresses, so that only the last can
// be written at first, and one more by each further try.
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
	report := fx.reconcile(t, options{PageSize: 2, Writers: 1})
	wantCounts(t, report, tally{"seen": 4, "updated": 4})
	fx.inStep(t)
}
