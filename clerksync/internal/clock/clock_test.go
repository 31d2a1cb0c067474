package clock

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestSystemClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := System(time.Now)
		start := c.Now()
		fired := make(chan time.Time, 1)
		c.AfterFunc(time.Second, func() { fired <- c.Now() })
		stop := c.AfterFunc(time.Second, func() { t.Error("a stopped timer fired") })
		if !stop() {
			t.Error("stop reports that the timer has fired")
		}
		if err := c.Sleep(t.Context(), 2*time.Second); err != nil || c.Now().Sub(start) != 2*time.Second {
			t.Errorf("Sleep: %v after %v", err, c.Now().Sub(start))
		}
		if at := <-fired; at.Sub(start) != time.Second {
			t.Errorf("the timer fired after %v", at.Sub(start))
		}
	})
}

func TestSleepEndsWithItsContext(t *testing.T) {
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	if err := System(time.Now).Sleep(ctx, time.Hour); err != gone {
		t.Errorf("Sleep: %v, want the context's cause", err)
	}
}

// manualClock calls the functions of its timers when told to.
type manualClock struct {
	Clock
	timers  []func()
	stopped int
}

func (c *manualClock) AfterFunc(_ time.Duration, f func()) func() bool {
	c.timers = append(c.timers, f)
	return func() bool { c.stopped++; return true }
}

func TestWithTimeout(t *testing.T) {
	t.Run("system clock", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := WithTimeout(t.Context(), System(time.Now), time.Second)
			defer cancel()
			<-ctx.Done()
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				t.Errorf("Err is %v", ctx.Err())
			}
		})
	})
	t.Run("another clock", func(t *testing.T) {
		c := &manualClock{}
		ctx, cancel := WithTimeout(t.Context(), c, time.Second)
		if ctx.Err() != nil {
			t.Fatalf("Err is %v before the timeout", ctx.Err())
		}
		c.timers[0]()
		if !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			t.Errorf("Cause is %v", context.Cause(ctx))
		}
		cancel()
		if c.stopped != 1 {
			t.Error("cancel does not stop the timer")
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := WithTimeout(t.Context(), &manualClock{}, time.Second)
		cancel()
		if !errors.Is(context.Cause(ctx), context.Canceled) {
			t.Errorf("Cause is %v", context.Cause(ctx))
		}
	})
}
