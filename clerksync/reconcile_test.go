package clerksync_test

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// Two runs at once create each user once.
func TestReconcileTwiceAtOnce(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.signUp(100)
	fx.record(t, ids[0])
	fx.clock.Advance(2 * time.Hour)
	ghosts := fx.ghosts(t, 5)
	other := fx.syncer(t, nil)
	var reports [2]clerksync.Report
	var runs sync.WaitGroup
	for i, s := range []*clerksync.Syncer{fx.Syncer, other} {
		runs.Go(func() {
			var err error
			if reports[i], err = s.Reconcile(t.Context(), options{PageSize: 3}); err != nil {
				t.Error(err)
			}
		})
	}
	runs.Wait()
	n := reports[0].Created.Count + reports[1].Created.Count
	if n != 99 || reports[0].Seen != 100 || reports[1].Seen != 100 {
		t.Errorf("created %d users: %+v", n, reports)
	}
	for id, u := range fx.records(t, ghosts) {
		if u.DeletedAt.IsZero() {
			t.Errorf("%s is %+v", id, u)
		}
	}
	fx.inStep(t)
}

// Reconcile calls Clerk through the app's own Backend.
func TestReconcileThroughABackend(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	fx.backfill(t, 20)
	created, ghosts := fx.signUp(3), fx.ghosts(t, 2)
	url, key := fx.clerk.APIURL(), fx.clerk.SecretKey()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	s := fx.syncer(t, func(c *clerksync.Config) {
		c.Backend = clerk.NewBackend(&clerk.BackendConfig{URL: &url, Key: &key, HTTPClient: client})
		c.SecretKey, c.APIURL, c.HTTPClient = "", "", nil
	})
	calls := 0
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		if calls++; calls%3 == 0 {
			return &fakeclerk.Fault{Status: 502, Body: "<html>", ContentType: "text/html"}
		}
		return nil
	})
	report, err := s.Reconcile(t.Context(), options{PageSize: 5})
	if err != nil {
		t.Fatal(err)
	}
	wantCounts(t, report, tally{
		"seen": 23, "unchanged": 20, "created": len(created), "ghosts": 2, "deactivated": len(ghosts),
	})
	fx.clerk.SetFault(nil)
	fx.inStep(t)
}

func TestReconcileCost(t *testing.T) {
	t.Parallel()
	fx := startBulkFixture(t, fakeclerk.Config{RateLimit: -1, Population: 1000}, nil)
	var mu sync.Mutex
	var lists []url.Values
	fx.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
		if r.URL.Path == "/v1/users" {
			mu.Lock()
			defer mu.Unlock()
			lists = append(lists, r.URL.Query())
		}
		return nil
	})
	run := func(what string, opts options, calls map[string]int) clerksync.Report {
		t.Helper()
		lists = nil
		fx.clerk.ResetCalls()
		fx.store.reset()
		report := fx.reconcile(t, opts)
		got := tally{
			"list": fx.clerk.Calls("GET /v1/users"), "get": fx.userCalls(),
			"count": fx.clerk.Calls("GET /v1/users/count"),
		}
		for _, op := range []string{"User", "Users", "Upsert", "UpsertBatch", "Stamps", "Deactivate", "Restore"} {
			got[op] = fx.store.count(op)
		}
		maps.DeleteFunc(got, func(_ string, n int) bool { return n == 0 })
		if diff := gocmp.Diff(calls, got); diff != "" {
			t.Errorf("%s: calls (-want +got):\n%s", what, diff)
		}
		if report.ClerkCalls != fx.clerk.Calls("") || report.Throttled != 0 {
			t.Errorf("%s: reports %d calls and %d throttled, Clerk counted %d", what, report.ClerkCalls,
				report.Throttled, fx.clerk.Calls(""))
		}
		return report
	}

	// Two full pages and the end. The Store is empty, so Reconcile does not ask for anybody by id.
	backfill := run("backfill", options{}, tally{"list": 3, "count": 2, "Stamps": 2, "UpsertBatch": 2})
	wantCounts(t, backfill, tally{"seen": 1000, "created": 1000})
	if len(backfill.Created.IDs) != 100 {
		t.Errorf("names %d of the created, want 100", len(backfill.Created.IDs))
	}
	for i, after := range []string{"", fx.clerk.PopulationID(499), fx.clerk.PopulationID(999)} {
		want := url.Values{"limit": {"500"}, "order_by": {"created_at"}}
		if after != "" {
			want.Set("starting_after", after)
		}
		if diff := gocmp.Diff(want, lists[i]); diff != "" {
			t.Errorf("list %d (-want +got):\n%s", i, diff)
		}
	}
	fx.clock.Advance(2 * time.Hour)

	unchanged := run("unchanged", options{}, tally{"list": 4, "count": 2, "Stamps": 2})
	wantCounts(t, unchanged, tally{"seen": 1000, "unchanged": 1000})
	if !unchanged.InStep() || len(lists[0]["user_id"]) != 100 || lists[0].Get("limit") != "100" {
		t.Errorf("asks first for %v; reports %+v", lists[0], unchanged)
	}

	whole := run("whole records", options{Force: true}, tally{"list": 4, "count": 2, "Users": 2})
	wantCounts(t, whole, tally{"seen": 1000, "unchanged": 1000})

	fx.rename(t, "Augusta", fx.clerk.PopulationID(3), fx.clerk.PopulationID(77))
	changed := run("changed", options{}, tally{"list": 4, "count": 2, "Stamps": 2, "UpsertBatch": 1})
	wantCounts(t, changed, tally{"seen": 1000, "unchanged": 998, "updated": 2})

	ghosts := fx.ghosts(t, 230)
	gone := run("ghosts", options{MaxDeactivations: 230}, tally{
		"list": 4 + 3, "count": 2, "get": 230, "Stamps": 2, "Deactivate": 230,
	})
	wantCounts(t, gone, tally{"seen": 1000, "unchanged": 1000, "ghosts": 230, "deactivated": 230})
	var asked []string
	for _, list := range lists[4:] {
		asked = append(asked, list["user_id"]...)
		if list.Get("limit") != "100" {
			t.Errorf("asks for %v", list)
		}
	}
	if !slices.Equal(asked, ghosts) {
		t.Errorf("asks for %v", asked)
	}
}

func TestReconcileKeepsToTheRate(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		key    string
		option float64
		want   float64
	}{
		"development": {"", 0, 8},
		"production":  {"sk_live_fake", 0, 80},
		"slower":      {"sk_live_fake", 2.5, 2.5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := startBulkFixture(t, fakeclerk.Config{SecretKey: tt.key}, nil) // with Clerk's rate limit
			fx.signUp(200)
			ghosts := fx.ghosts(t, 60)
			fx.record(t, fx.clerk.UserIDs()[0])
			report := fx.reconcile(t, options{
				PageSize: 2, RequestsPerSecond: tt.option, MaxDeactivations: -1, Holdback: -1,
			})
			if report.Deactivated.Count != len(ghosts) || report.ClerkCalls < 160 {
				t.Fatalf("reports %+v", report)
			}
			if fx.clerk.RateLimited() != 0 || report.Throttled != 0 {
				t.Errorf("Clerk answered 429 %d times", fx.clerk.RateLimited())
			}
			got := float64(report.ClerkCalls-1) / report.Duration.Seconds()
			if got < 0.95*tt.want || got > 1.001*tt.want {
				t.Errorf("asks %.2f times a second, want %v", got, tt.want)
			}
		})
	}
}

func TestReconcileWaitsAsClerkAsks(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	fx.signUp(5)
	var throttled atomic.Int32
	fx.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
		if r.URL.Query().Has("starting_after") && throttled.Add(1) == 1 {
			f := fakeclerk.ErrorFault(429, "too_many_requests")
			f.Header.Set("Retry-After", "17")
			return f
		}
		return nil
	})
	var waits []time.Duration
	report := fx.reconcile(t, options{PageSize: 2, Progress: func(p clerksync.Progress) {
		if !p.Throttled.IsZero() {
			waits = append(waits, p.Throttled.Sub(fx.clock.Now()))
		}
	}})
	if report.Throttled != 1 || report.Created.Count != 5 || report.Duration < 17*time.Second {
		t.Errorf("reports %+v", report)
	}
	if !slices.Equal(waits, []time.Duration{17 * time.Second}) {
		t.Errorf("Progress reported waits of %v", waits)
	}
}

func TestReconcileOptionFaults(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, func(c *clerksync.Config) { c.Store = plainStore{memstore.New()} })
	report, err := fx.Reconcile(t.Context(), options{
		PageSize: 501, Writers: -1, RequestsPerSecond: -1, Restore: true, Resume: "nonsense",
	})
	checkFaults(t, err, []string{"PageSize", "Writers", "RequestsPerSecond", "Restore", "Resume"})
	if report.Complete || report.Reason != err.Error() || fx.clerk.Calls("") != 0 {
		t.Errorf("made %d calls and reports %+v", fx.clerk.Calls(""), report)
	}
	for _, sentinel := range sentinels {
		if errors.Is(err, sentinel) {
			t.Errorf("matches %v", sentinel)
		}
	}
}

func TestReconcileIsSeenByTheNextVisit(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, func(c *clerksync.Config) { c.RefreshAfter = -1 })
	ids := fx.backfill(t, 4)
	renamed, gone, restored, banned := ids[0], ids[1], ids[2], ids[3]
	fx.deactivate(t, restored)
	fx.clock.Advance(2 * time.Hour)
	for _, id := range ids { // into the cache
		_, _ = fx.User(t.Context(), id)
	}
	fx.rename(t, "Augusta", renamed)
	fx.delete(t, gone)
	if err := fx.clerk.BanUser(banned); err != nil {
		t.Fatal(err)
	}
	late := fx.clerk.CreateUser(fakeclerk.NewUser{ID: "user_late"})
	fx.reconcile(t, options{Restore: true})

	if u := visit(t, fx.Syncer, renamed); u.Profile.FirstName != "Augusta" {
		t.Errorf("the next visit gets %+v", u)
	}
	if u := visit(t, fx.Syncer, restored); !u.IsActive || !u.DeletedAt.IsZero() {
		t.Errorf("the next visit gets %+v", u)
	}
	visitFails(t, fx.Syncer, gone, clerksync.ErrUserInactive)
	visitFails(t, fx.Syncer, banned, clerksync.ErrUserInactive)
	visit(t, fx.Syncer, late)
	if fx.userCalls() != 1 { // for the user who is gone, before the deactivation
		t.Errorf("%d users looked up", fx.userCalls())
	}
}

func TestReconcileProgressPanics(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	fx.signUp(30)
	calls := 0
	report, err := fx.Reconcile(t.Context(), options{PageSize: 10, Progress: func(clerksync.Progress) {
		calls++
		panic("of the app's")
	}})
	if err != nil || !report.Complete || report.Created.Count != 30 || calls != 1 {
		t.Errorf("%v after %d calls, reports %+v", err, calls, report)
	}
	if !strings.Contains(fx.logs.String(), "panic in ReconcileOptions.Progress") {
		t.Errorf("the panic is not in the log:\n%s", fx.logs)
	}
}

func TestReconcileProgress(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	fx.backfill(t, 47)
	fx.ghosts(t, 4)
	var calls atomic.Int32
	var all []clerksync.Progress
	report := fx.reconcile(t, options{PageSize: 2, Progress: func(p clerksync.Progress) {
		if calls.Add(1) != 1 {
			t.Error("Progress is called while it runs")
		}
		all = append(all, p)
		calls.Add(-1)
	}})
	checkPhases(t, all)
	for i, p := range all {
		checkProgress(t, p, 47)
		if i > 0 && p.Phase == all[i-1].Phase {
			checkForward(t, all[i-1], p)
		}
	}
	last := all[len(all)-1]
	if diff := gocmp.Diff(report, last.Report); diff != "" || !last.Report.Complete {
		t.Errorf("the last Progress does not have the Report (-want +got):\n%s", diff)
	}
	ghosts := func(p clerksync.Progress) bool { return p.Phase == clerksync.PhaseGhosts }
	users := slices.IndexFunc(all, ghosts) - 1
	if all[users].Done != 47 || users+1 != 24 {
		t.Errorf("after %d pages Progress got %d users", users+1, all[users].Done)
	}
	o := fx.seen.last()
	if o.Op != clerksync.OpReconcile || o.Err != nil || o.ClerkID != "" || o.Duration != report.Duration {
		t.Errorf("observed %+v", o)
	}
	if diff := gocmp.Diff(&report, o.Report); diff != "" {
		t.Errorf("Observe does not get the Report (-want +got):\n%s", diff)
	}
	report.Ghosts.IDs[0] = "the caller's own"
	if o.Report.Ghosts.IDs[0] == report.Ghosts.IDs[0] {
		t.Error("Observe's Report is not a copy of the caller's")
	}
}

func checkProgress(t *testing.T, p clerksync.Progress, users int) {
	t.Helper()
	if p.Total < p.Done || p.Phase == clerksync.PhaseUsers && p.Total != users {
		t.Errorf("%s: %d of %d", p.Phase, p.Done, p.Total)
	}
	if p.Phase == clerksync.PhaseUsers && p.Done > 0 && p.Report.Resume == "" {
		t.Errorf("no point to resume from after %d", p.Done)
	}
}

// checkPhases checks that the phases come one after the other.
func checkPhases(t *testing.T, all []clerksync.Progress) {
	t.Helper()
	var phases []clerksync.Phase
	for _, p := range all {
		phases = append(phases, p.Phase)
	}
	want := []clerksync.Phase{clerksync.PhaseUsers, clerksync.PhaseGhosts, clerksync.PhaseDone}
	if phases = slices.Compact(phases); !slices.Equal(phases, want) {
		t.Errorf("phases are %v", phases)
	}
}

// checkForward checks that no count goes back within a phase.
func checkForward(t *testing.T, before, p clerksync.Progress) {
	t.Helper()
	if p.Done < before.Done || p.Report.Seen < before.Report.Seen || p.Report.ClerkCalls < before.Report.ClerkCalls {
		t.Errorf("from %+v back to %+v", before, p)
	}
}
