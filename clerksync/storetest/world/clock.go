package world

import (
	"context"
	"time"
)

// processClock is the clock of one process: the world's, ahead or behind.
type processClock struct {
	w    *world
	skew time.Duration
}

func (c processClock) Now() time.Time { return c.w.clock.Now().Add(c.skew) }

// AfterFunc is that of the world's clock: a timeout fires when something else takes
// that long.
func (c processClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	return c.w.clock.AfterFunc(d, f)
}

// Sleep passes here and now, on the goroutine that waits. So nothing ever waits for a
// driver that waits for it.
func (c processClock) Sleep(ctx context.Context, d time.Duration) error {
	c.w.clock.Advance(c.w.withoutJitter(d))
	return context.Cause(ctx)
}

// The timeouts of package clerksync.
const (
	callTimeout        = 8 * time.Second
	deliveryTimeout    = 10 * time.Second
	bulkAttemptTimeout = 30 * time.Second
)

// withoutJitter gives a wait a length that is the same in each run. The jitter is
// of clerksync's own random numbers, which no seed reaches; what Clerk asked for by
// Retry-After is kept.
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

// align takes away what is left of the jitter after a Reconcile: how often it tried
// before it gave up.
func (w *world) align() {
	if !w.jittered.Load() || w.reconciling > 0 {
		return
	}
	w.jittered.Store(false)
	const grid = 20 * time.Minute
	now := w.clock.Now()
	w.clock.Advance(now.Truncate(grid).Add(grid).Sub(now))
}
