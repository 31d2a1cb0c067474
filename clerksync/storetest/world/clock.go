package world

import (
	"context"
	"time"
)

// processClock is the clock of one process: the world's clock, ahead or behind by skew.
type processClock struct {
	w    *world
	skew time.Duration
}

func (c processClock) Now() time.Time { return c.w.clock.Now().Add(c.skew) }

// AfterFunc calls f after d of the world's time. So a timeout fires when something else takes that
// long.
func (c processClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return c.w.clock.AfterFunc(d, f)
}

// Sleep advances the world's clock at once, on the goroutine that sleeps. So no operation waits
// for a test that itself waits for the operation.
func (c processClock) Sleep(ctx context.Context, d time.Duration) error {
	if r := runOf(ctx); r != nil && (r.kind == runJob || r.kind == drainJobs) {
		d = 10 * time.Second // an end that could not be written is written again
	}
	c.w.clock.Advance(c.w.withoutJitter(d))
	return context.Cause(ctx)
}

// The timeouts of package clerksync.
const (
	callTimeout        = 8 * time.Second
	deliveryTimeout    = 10 * time.Second
	bulkAttemptTimeout = 30 * time.Second
)

// withoutJitter makes a wait the same in each run: clerksync's random numbers do not have a seed.
// It keeps what Clerk asked for in Retry-After.
func (w *world) withoutJitter(d time.Duration) time.Duration {
	switch {
	case w.reconciling > 0 && d <= 45*time.Second:
		w.jittered.Store(true)
		return 10 * time.Second
	case d < 750*time.Millisecond:
		return 250 * time.Millisecond
	default:
		return d
	}
}

// align removes what is left of the jitter after a Reconcile: the number of its attempts. It
// advances the clock to a multiple of grid.
func (w *world) align() {
	if !w.jittered.Load() || w.reconciling > 0 {
		return
	}
	w.jittered.Store(false)
	const grid = 20 * time.Minute
	now := w.clock.Now()
	w.clock.Advance(now.Truncate(grid).Add(grid).Sub(now))
}
