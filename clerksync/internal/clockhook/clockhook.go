// Package clockhook lets the random world of storetest/world give a Syncer a clock
// with timers, and wait for its background work, as clerksync's own tests can. It
// exists because neither may be part of the public API. Package clerksync sets the
// variables, as net/http does those of net/http/internal/testhooks.
package clockhook

import (
	"context"
	"encoding/json"
	"time"
)

// Clock is what a Syncer takes all its time from: the clock of package clerksync.
type Clock interface {
	Now() time.Time
	// AfterFunc may call f before it returns.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
	Sleep(ctx context.Context, d time.Duration) error
}

var (
	// SetClock gives a *clerksync.Config its clock.
	SetClock func(config any, c Clock)

	// Refreshing returns how many background refreshes a *clerksync.Syncer has
	// begun and not ended. One is counted before the visit that causes it returns.
	Refreshing func(syncer any) int

	// Landed waits for the lookups of a user that a *clerksync.Syncer's visitor left,
	// whose token had that claim: nobody joins them any more.
	Landed func(syncer any, id string, claim json.RawMessage)
)
