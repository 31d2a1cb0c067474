package clerksync

import (
	"context"
	"time"
)

// clock is the one source of time: of "now", and of every timeout and wait. Tests
// and simulations replace it, so that nothing in them sleeps.
type clock interface {
	Now() time.Time
	// AfterFunc is what a timeout is made of.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
	// Sleep waits for d, or for ctx and returns its cause.
	Sleep(ctx context.Context, d time.Duration) error
}

// systemClock runs real timers.
type systemClock struct{ now func() time.Time }

func (c systemClock) Now() time.Time { return c.now() }

func (c systemClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

func (systemClock) Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// withTimeout is context.WithTimeout on c. On a clock other than the system's, ctx
// has no Deadline and its Err is Canceled, with context.DeadlineExceeded as the Cause.
func withTimeout(ctx context.Context, c clock, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := c.(systemClock); ok {
		return context.WithTimeout(ctx, d)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := c.AfterFunc(d, func() { cancel(context.DeadlineExceeded) })
	return ctx, func() {
		stop()
		cancel(context.Canceled)
	}
}
