package clerksync_test

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync"
)

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
