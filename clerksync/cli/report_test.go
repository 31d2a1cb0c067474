package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/clerksync/clerksync-go/clerksync"
)

func TestReports(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		args   string
		report clerksync.Report
		err    error
		code   int
	}{
		{"drift-none", "drift", complete, nil, exitDone},
		{"drift-found", "drift -db other -page-size 100", clerksync.Report{
			DryRun: true, Complete: true, Seen: 2412, Unchanged: 2399,
			Created: tally(3), Updated: tally(10), Ghosts: tally(1), Deactivated: tally(1), Tombstoned: tally(2),
			Unknown:  clerksync.Tally{Count: 1, IDs: []string{"x\x1b[2J"}},
			Fields:   map[string]int{"email": 3, "profile.imageUrl": 9, "name": 3},
			Duration: 72345 * time.Millisecond, ClerkCalls: 28, Throttled: 2,
		}, nil, exitDiffer},
		{"drift-versions", "drift -versions", clerksync.Report{
			DryRun: true, Complete: true, Seen: 5, Unchanged: 4, Updated: tally(1), ClerkCalls: 2,
		}, nil, exitDiffer},
		{"drift-incomplete", "drift -versions -rate 5", clerksync.Report{
			DryRun: true, Reason: "Clerk did not answer", Resume: "t.1-2", Seen: 500, Unchanged: 500, ClerkCalls: 9,
		}, fmt.Errorf("clerksync: reconcile: %w", clerksync.ErrUnavailable), exitFailed},
		{"dry-run", "reconcile -dry-run -force", clerksync.Report{
			DryRun: true, Complete: true, Seen: 2, Unchanged: 1, Updated: tally(1), ClerkCalls: 2,
			Fields: map[string]int{"email": 1},
		}, nil, exitDone},
		{"dry-run-incomplete", "reconcile -dry-run", clerksync.Report{
			DryRun: true, Resume: "t.1-2", Reason: "the Store cannot list its records",
			Seen: 2, Unchanged: 2, ClerkCalls: 2,
		}, nil, exitFailed},
		{"reconciled", "reconcile", clerksync.Report{
			Complete: true, Seen: 100000, Unchanged: 99890, Created: tally(100), Updated: tally(10), Stale: tally(1),
			Ghosts: tally(6), Deactivated: tally(6), HeldBack: 1,
			Duration: time.Hour + 61*time.Second, ClerkCalls: 221,
		}, nil, exitDone},
		{"restored", "reconcile -restore", clerksync.Report{
			Complete: true, Seen: 2, Tombstoned: tally(2), Restored: tally(1), ClerkCalls: 2,
		}, nil, exitDone},
		{"not-all-written", "reconcile -collection members", clerksync.Report{
			Complete: true, Seen: 3, Conflicts: tally(1), Failed: tally(2), ClerkCalls: 2,
		}, nil, exitFailed},
		{"adopted", "reconcile", clerksync.Report{
			Complete: true, Seen: 12, Created: tally(2), Adopted: tally(10), ClerkCalls: 2,
		}, nil, exitDone},
		{"unlinked", "reconcile -collection members", clerksync.Report{
			Complete: true, Seen: 9, Created: tally(2), Adopted: tally(1), Unlinked: tally(6), ClerkCalls: 2,
		}, fmt.Errorf("clerksync: reconcile: users not written: 6, because %w", clerksync.ErrUnlinked), exitFailed},
		{"unlinked-dry-run", "reconcile -dry-run", clerksync.Report{
			DryRun: true, Complete: true, Seen: 2, Unlinked: tally(1), Adopted: tally(1), ClerkCalls: 2,
		}, fmt.Errorf("clerksync: reconcile: users not written: 1, because %w", clerksync.ErrUnlinked), exitFailed},
		{"unlinked-drift", "drift -collection members", clerksync.Report{
			DryRun: true, Complete: true, Seen: 2, Unlinked: tally(1), Adopted: tally(1), ClerkCalls: 2,
		}, clerksync.ErrUnlinked, exitDiffer},
		{"unlinked-only", "drift -rate 5", clerksync.Report{
			DryRun: true, Complete: true, Seen: 2, Unchanged: 1, Unlinked: tally(1), ClerkCalls: 2,
		}, clerksync.ErrUnlinked, exitDiffer},
		{"ignoring-unlinked", "drift -ignore-unlinked", clerksync.Report{
			DryRun: true, Complete: true, Seen: 2, Unchanged: 1, Created: tally(1), ClerkCalls: 2,
		}, nil, exitDiffer},
		{"too-many-ghosts", "reconcile -rate 50 -collection members", clerksync.Report{
			Complete: true, Seen: 100, Unchanged: 100, Ghosts: tally(57), ClerkCalls: 2,
		}, fmt.Errorf("clerksync: reconcile: %w", clerksync.ErrTooManyGhosts), exitFailed},
		{"nothing-to-resume", "reconcile", clerksync.Report{
			Reason: "Clerk lists another user twice", Seen: 1, ClerkCalls: 1,
		}, clerksync.ErrIncomplete, exitFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.reports(tt.report, tt.err)
			o := f.run(t, strings.Fields(tt.args)...)
			o.want(t, tt.code)
			golden(t, "report", "", o.String())

			j := f.run(t, append(strings.Fields(tt.args), "-json")...)
			j.want(t, tt.code)
			var got clerksync.Report
			if err := json.Unmarshal([]byte(j.stdout), &got); err != nil {
				t.Fatalf("%v:\n%s", err, j.stdout)
			}
			if diff := cmp.Diff(tt.report, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("the JSON is another report (-want +got):\n%s", diff)
			}
			if want := fmt.Sprintf(`"durationSeconds": %v`+"\n", tt.report.Duration.Seconds()); !strings.Contains(j.stdout, want) {
				t.Errorf("the JSON does not have %s:\n%s", want, j.stdout)
			}
		})
	}
}
