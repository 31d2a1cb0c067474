package cli

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/vbauerster/mpb/v8"

	"github.com/clerksync/clerksync-go/clerksync"
)

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
