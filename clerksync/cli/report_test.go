package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vbauerster/mpb/v8"

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

// If no bar can be drawn, there is at most one line every five seconds. Its last field is the point
// to resume from.
func TestLines(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.onReconcile(func(_ context.Context, o clerksync.ReconcileOptions) (clerksync.Report, error) {
		p := clerksync.Progress{Phase: clerksync.PhaseUsers, Total: 2000}
		for p.Done < 2000 {
			f.clock.Advance(time.Second)
			p.Done += 100
			p.Report.Resume = "u." + strings.Repeat("x", p.Done/100)
			p.Report.Created = tally(p.Done / 200)
			if p.Done == 1000 {
				p.Report.Throttled = 1
				p.Throttled = f.clock.Now().Add(90 * time.Second)
			}
			o.Progress(p)
		}
		p = clerksync.Progress{Phase: clerksync.PhaseGhosts, Total: 10, Report: clerksync.Report{Ghosts: tally(1)}}
		for p.Done < 10 {
			f.clock.Advance(2 * time.Second)
			p.Done++
			o.Progress(p)
		}
		p.Phase = clerksync.PhaseDone
		o.Progress(p)
		return complete, nil
	})
	golden(t, "reconcile", "", f.run(t, "reconcile").String())
}

// On a terminal a bar is redrawn in place, and what is written meanwhile is above it.
func TestBar(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	terminal := &screen{}
	redraw := make(chan any)
	var shown strings.Builder
	show := func(what string) { // a redraw is accepted only after the last one is drawn
		redraw <- time.Time{}
		redraw <- time.Time{}
		redraw <- time.Time{}
		shown.WriteString("== " + what + "\n" + terminal.String())
	}
	f.env.terminal = func(w io.Writer) bool { return w == io.Writer(terminal) }
	f.env.bar = []mpb.ContainerOption{mpb.ForceTTY(), mpb.WithWidth(100), mpb.WithManualRefresh(redraw)}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	f.onReconcile(func(ctx context.Context, o clerksync.ReconcileOptions) (clerksync.Report, error) {
		p := clerksync.Progress{Phase: clerksync.PhaseUsers, Total: 2000}
		o.Progress(p)
		show("begun")
		f.clock.Advance(10 * time.Second)
		p.Done, p.Throttled = 500, f.clock.Now().Add(12*time.Second)
		o.Progress(p)
		show("throttled")
		f.clock.Advance(5 * time.Second)
		show("throttled for less")
		p.Done, p.Throttled = 2100, time.Time{}
		o.Progress(p)
		o.Progress(clerksync.Progress{Phase: clerksync.PhaseGhosts, Done: 0, Total: 40})
		f.clock.Advance(10 * time.Second)
		o.Progress(clerksync.Progress{Phase: clerksync.PhaseGhosts, Done: 10, Total: 40})
		show("second phase")
		interrupt()
		<-ctx.Done()
		return clerksync.Report{Seen: 2100, Resume: "g.1", ClerkCalls: 9, Reason: "context canceled"}, context.Cause(ctx)
	})
	var stdout bytes.Buffer
	code := run(ctx, f.env, []string{"reconcile"}, &stdout, terminal)
	if code != exitFailed || !strings.Contains(stdout.String(), "-resume g.1") {
		t.Errorf("exit code %d, standard output:\n%s", code, &stdout)
	}
	if strings.Contains(stdout.String(), "\x1b") {
		t.Error("there are escape sequences on standard output")
	}
	golden(t, "reconcile", "", shown.String())
	if last := terminal.String(); !strings.Contains(last, "clerksync: interrupted") {
		t.Errorf("at the end the terminal shows:\n%s", last)
	}
}

// The bar redraws by its own timer. What is written while it is shown stays above it, down to the
// last line.
func TestBarKeepsNotes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	terminal := &screen{}
	f.env.terminal = func(w io.Writer) bool { return w == io.Writer(terminal) }
	f.env.bar = []mpb.ContainerOption{mpb.ForceTTY(), mpb.WithWidth(100)}
	ctx, interrupt := context.WithCancel(t.Context())
	f.onReconcile(func(ctx context.Context, o clerksync.ReconcileOptions) (clerksync.Report, error) {
		o.Progress(clerksync.Progress{Phase: clerksync.PhaseUsers, Done: 5, Total: 10})
		interrupt()
		return clerksync.Report{Seen: 5, ClerkCalls: 9, Reason: "context canceled"}, context.Cause(ctx)
	})
	run(ctx, f.env, []string{"reconcile"}, io.Discard, terminal)
	golden(t, "reconcile", "", terminal.String())
}

func TestShort(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "1s", 1400 * time.Millisecond: "1s", 59600 * time.Millisecond: "1m", 61 * time.Second: "1m1s",
		2 * time.Hour: "2h0m", 1000 * time.Hour: "days",
	} {
		if got := short(d); got != want {
			t.Errorf("short(%v) = %s, want %s", d, got, want)
		}
	}
}
