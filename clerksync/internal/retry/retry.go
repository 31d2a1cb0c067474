// Package retry repeats a call that fails, with growing waits on an injected clock.
package retry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

const (
	// GiveUpAfter is how long Do goes on after the first failure.
	GiveUpAfter = 5 * time.Minute

	firstBackoff = 500 * time.Millisecond
	maxBackoff   = 30 * time.Second
)

// Do calls f until it succeeds, permanent reports that its error will not change, ctx
// ends, or GiveUpAfter has passed. The waits double, with jitter. An error that has a method
// RetryAfter() time.Duration asks for a wait at least that long.
func Do(ctx context.Context, c clock.Clock, permanent func(error) bool, f func() error) error {
	var failingSince time.Time
	for backoff := firstBackoff; ; backoff = min(2*backoff, maxBackoff) {
		err := f()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case permanent(err):
			return err
		}
		wait := backoff/2 + rand.N(backoff)
		var advice interface{ RetryAfter() time.Duration }
		if errors.As(err, &advice) {
			wait = max(wait, min(advice.RetryAfter(), GiveUpAfter))
		}
		now := c.Now()
		if failingSince.IsZero() {
			failingSince = now
		} else if now.Sub(failingSince)+wait > GiveUpAfter {
			return fmt.Errorf("giving up after %v: %w", now.Sub(failingSince).Round(time.Second), err)
		}
		if err := c.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}
