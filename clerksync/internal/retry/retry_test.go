package retry

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// fakeClock moves at once by each wait, and remembers them.
type fakeClock struct {
	now   time.Time
	waits []time.Duration
}

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newFakeClock() *fakeClock { return &fakeClock{now: start} }

func (c *fakeClock) Now() time.Time                                     { return c.now }
func (c *fakeClock) AfterFunc(time.Duration, func()) (stop func() bool) { panic("not used") }

func (c *fakeClock) Sleep(ctx context.Context, d time.Duration) error {
	c.waits = append(c.waits, d)
	c.now = c.now.Add(d)
	return context.Cause(ctx)
}

// adviceError asks for a wait.
type adviceError time.Duration

func (e adviceError) Error() string             { return "busy" }
func (e adviceError) RetryAfter() time.Duration { return time.Duration(e) }

func never(error) bool { return false }

func TestDoSucceedsAfterFailures(t *testing.T) {
	c := newFakeClock()
	calls := 0
	err := Do(t.Context(), c, never, func() error {
		if calls++; calls < 10 {
			return errors.New("down")
		}
		return nil
	})
	if err != nil || calls != 10 || len(c.waits) != 9 {
		t.Fatalf("%v after %d calls and %d waits", err, calls, len(c.waits))
	}
	backoff := firstBackoff
	for i, wait := range c.waits {
		if wait < backoff/2 || wait >= backoff+backoff/2 {
			t.Errorf("wait %d is %v, want about %v", i, wait, backoff)
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

func TestDoGivesUp(t *testing.T) {
	c := newFakeClock()
	down := errors.New("down")
	err := Do(t.Context(), c, never, func() error { return down })
	if took := c.now.Sub(start); !errors.Is(err, down) || took > GiveUpAfter || took < GiveUpAfter-2*maxBackoff {
		t.Errorf("%v after %v", err, took)
	}
}

func TestDoReturnsAPermanentErrorAtOnce(t *testing.T) {
	c := newFakeClock()
	wrong := errors.New("wrong")
	err := Do(t.Context(), c, func(err error) bool { return errors.Is(err, wrong) }, func() error { return wrong })
	if err != wrong || len(c.waits) != 0 {
		t.Errorf("%v after %d waits", err, len(c.waits))
	}
}

func TestDoWaitsAsLongAsItIsAskedTo(t *testing.T) {
	for advice, want := range map[time.Duration]time.Duration{time.Minute: time.Minute, time.Hour: GiveUpAfter} {
		c := newFakeClock()
		calls := 0
		err := Do(t.Context(), c, never, func() error {
			if calls++; calls == 1 {
				return fmt.Errorf("wrapped: %w", adviceError(advice))
			}
			return nil
		})
		if err != nil || len(c.waits) != 1 || c.waits[0] != want {
			t.Errorf("advice %v: %v after waits %v, want %v", advice, err, c.waits, want)
		}
	}
}

func TestDoEndsWithItsContext(t *testing.T) {
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	c := newFakeClock()
	calls := 0
	err := Do(ctx, c, never, func() error {
		if calls++; calls == 3 {
			cancel(gone)
		}
		return errors.New("down")
	})
	if !errors.Is(err, gone) || calls != 3 {
		t.Errorf("%v after %d calls", err, calls)
	}
}
