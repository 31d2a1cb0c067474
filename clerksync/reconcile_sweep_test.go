package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// TestReconcileLastWord has a record that the list lacks. Clerk's answer to the last question about
// it does not prove that the user is gone.
func TestReconcileLastWord(t *testing.T) {
	t.Parallel()
	page := &fakeclerk.Fault{Status: 404, ContentType: "text/html", Body: "<html>"}
	body := func(text string) *fakeclerk.Fault { return &fakeclerk.Fault{Status: 200, Body: text} }
	itself := userJSON("user_zz_ghost_00000", t0.Add(time.Minute))
	for name, tt := range map[string]struct {
		fault *fakeclerk.Fault // of the last question
		want  error
	}{
		"a proxy's 404":   {page, clerksync.ErrUnavailable},
		"another 404":     {fakeclerk.ErrorFault(404, "api_version_not_found"), clerksync.ErrUnavailable},
		"410":             {fakeclerk.ErrorFault(410, "resource_not_found"), clerksync.ErrUnavailable},
		"another user":    {body(`{"id":"user_other"}`), clerksync.ErrUnavailable},
		"nobody":          {body(`null`), clerksync.ErrUnavailable},
		"the user itself": {body(itself), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			fx.backfill(t, 3)
			ghost := fx.ghosts(t, 1)[0]
			fx.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
				if strings.HasSuffix(r.URL.Path, ghost) {
					return tt.fault
				}
				return nil
			})
			report, err := fx.Reconcile(t.Context(), options{})
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) || report.Complete != (tt.want == nil) {
				t.Errorf("%v, reports %+v", err, report)
			}
			if u := fx.get(t, ghost); !u.IsActive || report.Ghosts.Count != 0 {
				t.Errorf("the record is %+v", u)
			}
			if tt.want == nil && (report.Updated.Count != 1 || fx.get(t, ghost).Name == "Grace") {
				t.Errorf("the record is %+v, reports %+v", fx.get(t, ghost), report)
			}
		})
	}
}

func TestReconcileLimitsDeactivations(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		users, ghosts, limit int
		tooMany              bool
	}{
		"default of few, at it":    {users: 5, ghosts: 10},
		"default of few, over it":  {users: 5, ghosts: 11, tooMany: true},
		"default of many, at it":   {users: 600, ghosts: 12}, // of 612
		"default of many, over it": {users: 600, ghosts: 13, tooMany: true},
		"explicit, at it":          {users: 5, ghosts: 2, limit: 2},
		"explicit, over it":        {users: 5, ghosts: 3, limit: 2, tooMany: true},
		"lifted":                   {users: 5, ghosts: 120, limit: -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			fx.backfill(t, tt.users)
			ghosts := fx.ghosts(t, tt.ghosts)
			// A suspended user can be a ghost too.
			fx.edit(t, ghosts[0], func(u *clerksync.User) { u.IsActive = false })
			for _, dry := range []bool{true, false} {
				opts := options{DryRun: dry, MaxDeactivations: tt.limit, RequestsPerSecond: 1e6}
				report, err := fx.Reconcile(t.Context(), opts)
				if tt.tooMany != errors.Is(err, clerksync.ErrTooManyGhosts) || !tt.tooMany && err != nil ||
					report.Complete == tt.tooMany {
					t.Fatalf("dry %v: %v, %+v", dry, err, report)
				}
				named := ghosts[:min(len(ghosts), 100)]
				if report.Ghosts.Count != tt.ghosts || !slices.Equal(report.Ghosts.IDs, named) {
					t.Errorf("dry %v: finds %d ghosts", dry, report.Ghosts.Count)
				}
				want := tt.ghosts
				if dry || tt.tooMany {
					want = 0
				}
				if report.Deactivated.Count != want || fx.store.count("Deactivate") != want {
					t.Errorf("dry %v: deactivates %d, want %d", dry, fx.store.count("Deactivate"), want)
				}
			}
			for id, u := range fx.records(t, ghosts) {
				if u.DeletedAt.IsZero() != tt.tooMany {
					t.Errorf("%s is %+v", id, u)
				}
			}
		})
	}
}

// TestReconcileManyUnlistedRecords has more records that Clerk's list does not have than a run
// remembers at one time. Each is looked at once, in whatever order and however often it comes.
func TestReconcileManyUnlistedRecords(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]int{"one at a time": 1, "some": 7, "all at once": 50, "no limit": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			fx.backfill(t, 10)
			ghosts := fx.ghosts(t, 30)
			fx.record(t, "legacy-1")
			fx.record(t, "user_young")
			opts := options{MaxDeactivations: -1}
			clerksync.SetMaxUnlisted(&opts, limit)
			fx.store.fault = func(op string) error {
				if n := fx.store.count("Undeleted"); op == "Undeleted" && (n == 55 || n == 70) {
					return errDown // breaks off
				}
				return nil
			}
			report := fx.reconcile(t, opts)
			wantCounts(t, report, tally{
				"seen": 10, "unchanged": 10, "ghosts": 30, "deactivated": 30, "unknown": 1,
			})
			if report.HeldBack != 1 || !slices.Equal(slices.Sorted(slices.Values(report.Ghosts.IDs)), ghosts) {
				t.Errorf("reports %+v", report)
			}
			passes := 1 + 2 // two broke off
			if limit > 0 {
				passes += 30 / limit
			}
			if n, most := fx.store.count("Undeleted"), 42*(passes+1); n < 70 || n > most { // one is the sample
				t.Errorf("read %d records, want at most %d", n, most)
			}
		})
	}
}

// A resumed run has not seen the users that the run before it passed: it asks for them by id, as
// few at a time as it remembers, and compares them.
func TestReconcileResumedWithManyUnlistedRecords(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 40)
	fx.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
		if r.URL.Query().Get("starting_after") == ids[29] {
			return fakeclerk.ErrorFault(401, "clerk_key_invalid")
		}
		return nil
	})
	report, err := fx.Reconcile(t.Context(), options{PageSize: 10, Writers: 1})
	if err == nil || report.Resume == "" {
		t.Fatalf("%v, reports %+v", err, report)
	}
	fx.clerk.SetFault(nil)
	fx.rename(t, "Augusta", ids[3])
	fx.delete(t, ids[4])
	opts := options{PageSize: 10, Resume: report.Resume}
	clerksync.SetMaxUnlisted(&opts, 6)
	report = fx.reconcile(t, opts)
	if report.Updated.Count != 1 || report.Deactivated.Count != 1 || report.Seen != 39 {
		t.Errorf("reports %+v", report)
	}
	fx.inStep(t)
}

func TestReconcileHoldback(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		holdback, age time.Duration
		ghost         bool
	}{
		"default, younger": {0, 9 * time.Minute, false},
		"default, older":   {0, 11 * time.Minute, true},
		"longer, younger":  {3 * time.Hour, 2 * time.Hour, false},
		"none":             {-1, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			fx.backfill(t, 3)
			fx.record(t, "user_zz_ghost")
			fx.clock.Advance(tt.age)
			report := fx.reconcile(t, options{Holdback: tt.holdback})
			if u := fx.get(t, "user_zz_ghost"); u.DeletedAt.IsZero() == tt.ghost ||
				(report.Ghosts.Count == 1) != tt.ghost || !report.Complete {
				t.Errorf("the record is %+v, reports %+v", u, report)
			}
			if tt.ghost == (fx.userCalls() == 0) {
				t.Errorf("%d calls for the user", fx.userCalls())
			}
		})
	}
}

func TestReconcileCancelledWhileDeactivating(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	fx.backfill(t, 3)
	ghosts := fx.ghosts(t, 10)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	fx.store.after = func(op string) {
		if fx.store.count(op) == 3 {
			cancel()
		}
	}
	report, err := fx.Reconcile(ctx, options{Writers: 1})
	if !errors.Is(err, context.Canceled) || report.Complete || report.Ghosts.Count != len(ghosts) ||
		report.Deactivated.Count != 3 {
		t.Errorf("%v, %+v", err, report)
	}
	report = fx.reconcile(t, options{})
	if report.Ghosts.Count != 7 || report.Deactivated.Count != 7 {
		t.Errorf("the next run reports %+v", report)
	}
}

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
