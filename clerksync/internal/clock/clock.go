// Package clock is clerksync's one source of time: of "now", and of every timeout and
// wait. Tests and simulations replace it, so none of them sleeps.
package clock

import (
	"context"
	"time"
)

// Clock tells the time, and waits. It must be safe for concurrent use.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f after d, in a goroutine of its own or before it returns. stop
	// prevents the call if it has not begun.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
	// Sleep waits for d. If ctx ends first, it returns ctx's cause.
	Sleep(ctx context.Context, d time.Duration) error
}

// System returns a Clock with real timers that takes "now" from the given function.
func System(now func() time.Time) Clock { return system{now} }

type system struct{ now func() time.Time }

func (c system) Now() time.Time { return c.now() }

func (c system) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

func (system) Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// WithTimeout is context.WithTimeout on c. If c is not the system's clock, the context
// has no Deadline and its Err is Canceled; its Cause is context.DeadlineExceeded.
func WithTimeout(ctx context.Context, c Clock, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := c.(system); ok {
		return context.WithTimeout(ctx, d)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := c.AfterFunc(d, func() { cancel(context.DeadlineExceeded) })
	return ctx, func() {
		stop()
		cancel(context.Canceled)
	}
}
