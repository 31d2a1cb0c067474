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
	report, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{PageSize: 10, Progress: func(clerksync.Progress) {
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
	report := fx.reconcile(t, clerksync.ReconcileOptions{PageSize: 2, Progress: func(p clerksync.Progress) {
		if calls.Add(1) != 1 {
			t.Error("Progress is called while it runs")
		}
		all = append(all, p)
		calls.Add(-1)
	}})
	var phases []clerksync.Phase
	for i, p := range all {
		if i == 0 || p.Phase != all[i-1].Phase {
			phases = append(phases, p.Phase)
		} else if p.Done < all[i-1].Done || p.Report.Seen < all[i-1].Report.Seen || p.Report.ClerkCalls < all[i-1].Report.ClerkCalls {
			t.Errorf("from %+v back to %+v", all[i-1], p)
		}
		if p.Total < p.Done || p.Phase == clerksync.PhaseUsers && p.Total != 47 {
			t.Errorf("%s: %d of %d", p.Phase, p.Done, p.Total)
		}
		if p.Phase == clerksync.PhaseUsers && p.Done > 0 && p.Report.Resume == "" {
			t.Errorf("no point to resume from after %d", p.Done)
		}
	}
	if want := []clerksync.Phase{clerksync.PhaseUsers, clerksync.PhaseGhosts, clerksync.PhaseDone}; !slices.Equal(phases, want) {
		t.Errorf("phases are %v", phases)
	}
	last := all[len(all)-1]
	if diff := gocmp.Diff(report, last.Report); diff != "" || !last.Report.Complete {
		t.Errorf("the last report is not the Report (-want +got):\n%s", diff)
	}
	users := slices.IndexFunc(all, func(p clerksync.Progress) bool { return p.Phase == clerksync.PhaseGhosts }) - 1
	if all[users].Done != 47 || users+1 != 24 {
		t.Errorf("after %d pages Progress was told of %d users", users+1, all[users].Done)
	}
	if o := fx.seen.last(); o.Op != clerksync.OpReconcile || o.Err != nil || o.ClerkID != "" || o.Duration != report.Duration {
		t.Errorf("observed %+v", o)
	}
}
