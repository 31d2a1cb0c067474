package cli

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

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
