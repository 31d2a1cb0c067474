package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/cwriter"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/clerksync/clerksync-go/clerksync"
)

// lineEvery is how often a line of progress is written if no bar can be drawn.
const lineEvery = 5 * time.Second

// isTerminal reports whether a bar can be drawn on w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && cwriter.IsTerminal(int(f.Fd()))
}

// progress shows on standard error how far a run has come: on a terminal as one bar per phase,
// otherwise as lines that end with the point to resume from. The log is written through it, so that
// a warning does not break the bar. It is safe for concurrent use.
type progress struct {
	env environment
	out io.Writer

	mu    sync.Mutex
	pace  *pace         // of the current phase; nil before the first
	next  time.Time     // when the next line is due
	bars  *mpb.Progress // nil before the first phase, and if lines are written
	bar   *mpb.Bar      // of the current phase
	drawn bool          // whether bars are drawn
}

func newProgress(env environment, out io.Writer) *progress {
	// TERM=dumb is a terminal that cannot move the cursor. Windows sets no TERM.
	term, _ := env.lookup("TERM")
	return &progress{env: env, out: out, drawn: env.terminal(out) && term != "dumb"}
}

// begin says what the run is about to do.
func (p *progress) begin(title string) {
	p.next = p.env.now().Add(lineEvery)
	p.note(title)
}

// note writes a line of the command's own, above the bar.
func (p *progress) note(text string) {
	prefix := ""
	if !p.drawn {
		prefix = stamp(p.env.now()) + " "
	}
	_, _ = io.WriteString(p, prefix+text+"\n")
}

// Write writes whole lines, above the bar.
func (p *progress) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bars != nil {
		if n, err := p.bars.Write(text); err == nil {
			return n, nil
		}
	}
	return p.out.Write(text)
}

// update shows what a run reports.
func (p *progress) update(now clerksync.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Phase == clerksync.PhaseDone {
		return // end does the rest
	}
	if p.pace == nil || p.pace.phase != now.Phase {
		p.startPhase(now)
	}
	p.pace.update(now)
	if p.bar != nil {
		p.bar.SetTotal(int64(max(now.Total, now.Done)), false)
		p.bar.SetCurrent(int64(now.Done))
		return
	}
	if at := p.env.now(); !at.Before(p.next) {
		p.next = at.Add(lineEvery)
		_, _ = fmt.Fprintln(p.out, p.line(at, now))
	}
}

// line is one line of progress. The point to resume from comes last, so that a run that was killed
// can be resumed from its log.
func (p *progress) line(at time.Time, now clerksync.Progress) string {
	r := &now.Report
	line := fmt.Sprintf("%s %s %s", stamp(at), now.Phase, p.pace.text(at))
	for _, found := range []struct {
		name string
		n    int
	}{
		{"created", r.Created.Count}, {"updated", r.Updated.Count}, {"ghosts", r.Ghosts.Count},
		{"conflicts", r.Conflicts.Count}, {"failed", r.Failed.Count}, {"throttled", r.Throttled},
	} {
		if found.n > 0 {
			line += fmt.Sprintf(" %s=%d", found.name, found.n)
		}
	}
	if r.Resume != "" {
		line += " resume=" + r.Resume
	}
	return line
}

// startPhase fills the bar of the last phase and begins a new one below it.
func (p *progress) startPhase(now clerksync.Progress) {
	p.pace = &pace{phase: now.Phase, since: p.env.now(), first: now.Done}
	if !p.drawn {
		return
	}
	if p.bars == nil {
		p.bars = mpb.New(append([]mpb.ContainerOption{mpb.WithOutput(p.out)}, p.env.bar...)...)
	}
	if p.bar != nil {
		p.bar.SetTotal(-1, true)
	}
	pace := p.pace
	p.bar = p.bars.New(0, mpb.BarStyle().Padding(" "),
		mpb.PrependDecorators(decor.Any(func(s decor.Statistics) string {
			return fmt.Sprintf("%-*s %3d%%", nameWidth, phaseNames[pace.phase], percent(s.Current, s.Total))
		})),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return pace.text(p.env.now()) })),
	)
}

// end stops drawing. It fills the last bar if the run is complete.
func (p *progress) end(complete bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bars == nil {
		return
	}
	if complete {
		p.bar.SetTotal(-1, true)
	} else {
		p.bar.Abort(false)
	}
	p.bars.Wait()
}

// phaseNames are the names at the bars. The lines have the names of the API.
var phaseNames = map[clerksync.Phase]string{
	clerksync.PhaseUsers:  "Clerk's users",
	clerksync.PhaseGhosts: "records",
	phaseRecords:          "records",
}

// phaseRecords is the part of inspect that reads the records.
const phaseRecords clerksync.Phase = "records"

const nameWidth = len("Clerk's users")

func percent(n, of int64) int64 {
	if of <= 0 {
		return 0
	}
	return min(100*n/of, 100)
}

// pace is how fast a phase goes. It has its own lock because the bar reads it at any time.
type pace struct {
	phase clerksync.Phase
	since time.Time // when the phase began in this run
	first int       // how many were done then

	mu        sync.Mutex
	done, all int
	throttled time.Time
}

func (p *pace) update(now clerksync.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.all, p.throttled = now.Done, now.Total, now.Throttled
}

// text is "1500 of 20000, 500/s, 37s left", and how long Clerk asks the run to wait.
func (p *pace) text(at time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	parts := []string{fmt.Sprintf("%d of %d", p.done, max(p.all, p.done))}
	if took := at.Sub(p.since).Seconds(); took > 0 && p.done > p.first {
		rate := float64(p.done-p.first) / took
		format := "%.0f/s"
		if rate < 10 {
			format = "%.1f/s"
		}
		parts = append(parts, fmt.Sprintf(format, rate))
		if left := p.all - p.done; left > 0 {
			parts = append(parts, short(time.Duration(float64(left)/rate*float64(time.Second)))+" left")
		}
	}
	if wait := p.throttled.Sub(at); !p.throttled.IsZero() && wait > 0 {
		parts = append(parts, "Clerk asks to wait "+short(wait))
	}
	return strings.Join(parts, ", ")
}

// short is a duration in seconds, at least 1s, without zero seconds after minutes.
func short(d time.Duration) string {
	if d > 100*time.Hour {
		return "days"
	}
	text := max(d.Round(time.Second), time.Second).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	return text
}
