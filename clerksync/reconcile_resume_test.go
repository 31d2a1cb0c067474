package clerksync_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// A Resume that somebody made up costs queries, and does not mark a user deleted whom Clerk has.
func TestReconcileForgedResume(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 30)
	honest := ""
	fx.reconcile(t, options{PageSize: 5, Progress: func(p clerksync.Progress) {
		if p.Report.Resume != "" {
			honest = p.Report.Resume
		}
	}})
	text, err := base64.RawURLEncoding.DecodeString(honest)
	if err != nil {
		t.Fatal(err)
	}
	for name, forged := range map[string]map[string]any{
		"past the end":     {"after": "user_zzz", "created": int64(math.MaxInt64), "passed": math.MaxInt},
		"before the begin": {"after": "user_0", "created": int64(math.MinInt64), "passed": 0},
		"all in conflict":  {"conflicts": []string{"user_nobody", ids[0], ids[0]}},
	} {
		point := make(map[string]any)
		if err := json.Unmarshal(text, &point); err != nil {
			t.Fatal(err)
		}
		maps.Copy(point, forged)
		token, err := json.Marshal(point)
		if err != nil {
			t.Fatal(err)
		}
		got, err := fx.Reconcile(t.Context(), options{
			Resume: base64.RawURLEncoding.EncodeToString(token), MaxDeactivations: -1, Holdback: -1,
		})
		if err != nil && !errors.Is(err, clerksync.ErrIncomplete) {
			t.Errorf("%s: %v", name, err)
		}
		if got.Deactivated.Count != 0 || got.Created.Count != 0 {
			t.Errorf("%s: reports %+v", name, got)
		}
	}
	fx.inStep(t)
}

// FuzzResume checks that a Resume is accepted only if it is a point of a run of the same kind, and
// that the error does not quote it.
func FuzzResume(f *testing.F) {
	s := newTestSyncer(f, nil)
	token := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	honest := clerksync.FormatResume(s, clerksync.ResumePoint{After: "user_1"}, options{})
	for _, seed := range []string{honest, "", "user_1", "hunter2", honest + "=", honest[:len(honest)-1],
		honest + "\n"} {
		f.Add(seed, seed == honest, false, false)
	}
	for _, text := range []string{
		`{"after":"user_1"}`, `{"after":"user_1","passed":-1}`, `{"after":"../jwks"}`,
		`{"after":"user_1","conflicts":["&"]}`, `{"after":"user_1","After":"user_2","key":"0"}`,
		`{"after":{"$ne":null}}`, `{"after":"user_1","passed":1e400}`,
		`{"after":"user_1","created":9223372036854775808}`, "null", "[]", strings.Repeat("[", 20_000),
	} {
		f.Add(token(text), false, false, false)
	}
	f.Fuzz(func(t *testing.T, text string, dryRun, force, restore bool) {
		opts := options{Resume: text, DryRun: dryRun, Force: force, Restore: restore}
		point, err := clerksync.ParseResume(s, opts)
		switch {
		case err != nil:
			checkResumeError(t, text, point, err)
		case text != "":
			checkResumePoint(t, s, opts, point)
		}
	})
}

func checkResumeError(t *testing.T, text string, point clerksync.ResumePoint, err error) {
	t.Helper()
	if len(text) > 8 && strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("the error quotes it: %v", err)
	}
	if point.After != "" || point.Passed != 0 || point.Conflicts != nil {
		t.Fatalf("%+v beside %v", point, err)
	}
}

// checkResumePoint checks that the point is possible, survives being written and read, and is only
// accepted by a run of its kind.
func checkResumePoint(t *testing.T, s *clerksync.Syncer, opts options, point clerksync.ResumePoint) {
	t.Helper()
	if !userIDForm(point.After) || point.Passed < 0 || len(point.Conflicts) > 100 {
		t.Fatalf("accepted %+v", point)
	}
	for _, id := range point.Conflicts {
		if !userIDForm(id) {
			t.Fatalf("accepted %+v", point)
		}
	}
	opts.Resume = clerksync.FormatResume(s, point, opts)
	if again, err := clerksync.ParseResume(s, opts); err != nil || fmt.Sprint(again) != fmt.Sprint(point) {
		t.Fatalf("%+v became %+v, %v", point, again, err)
	}
	opts.DryRun = !opts.DryRun
	if _, err := clerksync.ParseResume(s, opts); err == nil {
		t.Fatal("accepted by a run of another kind")
	}
}

// endState returns the users' records, and checks that there are no others.
func endState(t *testing.T, fx *bulkFixture, ids []string) map[string]*clerksync.User {
	t.Helper()
	records := fx.records(t, ids)
	if len(records) != fx.store.Len() {
		t.Errorf("%d records, of which %d are the users'", fx.store.Len(), len(records))
	}
	return records
}

var idAndTimes = cmpopts.IgnoreFields(clerksync.User{}, "ID", "SyncedAt", "CreatedAt", "UpdatedAt", "DeletedAt")

// TestReconcileResumed stops a run at every point and continues it, with and without Resume. The
// records must be those of an undisturbed run.
func TestReconcileResumed(t *testing.T) {
	t.Parallel()
	prepare := func(t *testing.T) (*bulkFixture, []string) {
		fx := startBulkFixture(t, fakeclerk.Config{RateLimit: -1, Seed: 7}, nil)
		ids := fx.backfill(t, 20)
		fx.store.UniqueEmail = true
		// The first user takes the address of the last, who has given it up.
		for i, address := range map[int]string{0: "ada19@example.com", 19: "new@example.com"} {
			fx.setEmail(t, ids[i], address)
		}
		fx.rename(t, "Augusta", ids[1], ids[7], ids[13])
		fx.delete(t, ids[4], ids[16])
		ids = append(append(ids, fx.signUp(10)...), fx.ghosts(t, 2)...)
		// A new user has an address that a ghost holds.
		fx.edit(t, ids[len(ids)-1], func(u *clerksync.User) { u.Email = "ada20@example.com" })
		return fx, ids
	}
	fx, ids := prepare(t)
	undisturbed := fx.reconcile(t, options{PageSize: 3})
	wantCounts(t, undisturbed, tally{
		"seen": 28, "unchanged": 13, "created": 10, "updated": 5, "ghosts": 4, "deactivated": 4,
	})
	want := endState(t, fx, ids)
	fx.inStep(t)

	for stop := 1; ; stop++ {
		reached := false
		for _, resume := range []bool{true, false} {
			fx, ids := prepare(t)
			ctx, cancel := context.WithCancel(t.Context())
			// Every call to Clerk, to the Store and to Progress is a point to stop at.
			var calls atomic.Int32
			point := func() {
				if int(calls.Add(1)) == stop {
					cancel()
				}
			}
			fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { point(); return nil })
			fx.store.fault = func(string) error { point(); return nil }
			fx.store.after = func(string) { point() }
			report, err := fx.Reconcile(ctx, options{PageSize: 3, Progress: func(clerksync.Progress) { point() }})
			reached = ctx.Err() != nil
			cancel()
			fx.clerk.SetFault(nil)
			fx.store.fault, fx.store.after = nil, nil
			if !reached {
				break
			}
			// A run that is stopped at its very end may be complete.
			if report.Complete != (err == nil) || err != nil &&
				(!errors.Is(err, context.Canceled) || report.Reason == "") {
				t.Fatalf("stop %d: %v, %+v", stop, err, report)
			}
			opts := options{PageSize: 4}
			if resume {
				opts.Resume = report.Resume
			}
			second := report
			if err != nil {
				second = fx.reconcile(t, opts)
			}
			if !second.Complete {
				t.Errorf("stop %d, resume %v: reports %+v", stop, resume, second)
			}
			if diff := gocmp.Diff(want, endState(t, fx, ids), idAndTimes); diff != "" {
				t.Errorf("stop %d, resume %v: records (-of an undisturbed run +got):\n%s", stop, resume, diff)
			}
			fx.inStep(t)
		}
		if !reached {
			if stop < 60 {
				t.Errorf("only %d points to stop at", stop)
			}
			break
		}
	}
}

// A resumed run asks for the users of the first part by id, a hundred a call, and does not take
// them for ghosts.
func TestReconcileResumedCost(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 270)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	report, err := fx.Reconcile(ctx, options{PageSize: 50, Writers: 1, Progress: func(p clerksync.Progress) {
		if p.Done == 250 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || report.Seen != 250 {
		t.Fatalf("%v, %+v", err, report)
	}
	fx.delete(t, ids[100])           // passed, and gone since
	fx.rename(t, "Augusta", ids[30]) // passed, and changed since
	fx.delete(t, ids[249])           // the run resumes after this one
	fx.clerk.ResetCalls()
	resumed := fx.reconcile(t, options{PageSize: 50, Resume: report.Resume})
	if !resumed.Complete || resumed.Deactivated.Count != 2 || resumed.Updated.Count != 1 || resumed.Seen != 268 {
		t.Errorf("reports %+v", resumed)
	}
	if n := fx.clerk.Calls("GET /v1/users"); n > 10 || fx.userCalls() != 2 {
		t.Errorf("%d lists and %d calls for a user", n, fx.userCalls())
	}
	fx.inStep(t)
}

func TestReconcileResumePoints(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	fx.signUp(20)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	report, err := fx.Reconcile(ctx, options{PageSize: 5, Writers: 1, Progress: func(p clerksync.Progress) {
		if p.Report.Resume != "" {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || report.Resume == "" {
		t.Fatalf("%v, %+v", err, report)
	}
	if strings.Contains(report.Resume, fx.clerk.SecretKey()) || len(report.Resume) > 200 {
		t.Errorf("the point is %s", report.Resume)
	}
	other := fx.syncer(t, func(c *clerksync.Config) { c.SecretKey = "sk_test_other" })
	point := func(text string) options {
		return options{Resume: base64.RawURLEncoding.EncodeToString([]byte(text))}
	}
	for name, tt := range map[string]struct {
		syncer *clerksync.Syncer
		opts   options
		want   string
	}{
		"another key":     {other, options{Resume: report.Resume}, "another secret key"},
		"of no dry run":   {fx.Syncer, options{Resume: report.Resume, DryRun: true}, "another DryRun"},
		"without Force":   {fx.Syncer, options{Resume: report.Resume, Force: true}, "another DryRun, Force"},
		"without Restore": {fx.Syncer, options{Resume: report.Resume, Restore: true}, "DryRun, Force, Restore"},
		"cut short":       {fx.Syncer, options{Resume: report.Resume[:20]}, "copy it whole"},
		"not a token":     {fx.Syncer, options{Resume: "user_1"}, "copy it whole"},
		"not base64":      {fx.Syncer, options{Resume: "{}"}, "copy it whole"},
		"not a user":      {fx.Syncer, point(`{"after":"../jwks"}`), "copy it whole"},
		"not a conflict":  {fx.Syncer, point(`{"after":"user_1","conflicts":["&"]}`), "copy it whole"},
		"negative":        {fx.Syncer, point(`{"after":"user_1","passed":-1}`), "copy it whole"},
	} {
		got, err := tt.syncer.Reconcile(t.Context(), tt.opts)
		if err == nil || !strings.Contains(err.Error(), "ReconcileOptions.Resume") ||
			!strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if got.ClerkCalls != 0 { // not the fake's count, which a call that was cancelled above may still raise
			t.Errorf("%s: asked Clerk", name)
		}
	}
	// Another process with the same key can resume, with other pages.
	resumed, err := fx.syncer(t, nil).Reconcile(t.Context(), options{Resume: report.Resume})
	if err != nil || !resumed.Complete {
		t.Errorf("%v, %+v", err, resumed)
	}
	fx.inStep(t)
}
