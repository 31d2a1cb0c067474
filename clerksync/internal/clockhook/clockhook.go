// Package clockhook lets the random world of storetest/world give a Syncer a clock
// with timers, and wait for its background work, as clerksync's own tests can. It
// exists because neither may be part of the public API. Package clerksync sets the
// variables, as net/http does those of net/http/internal/testhooks.
package clockhook

import "time"

// Clock is what a Syncer takes all its time from: the clock of package clerksync.
type Clock interface {
	Now() time.Time
	// AfterFunc may call f before it returns.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

var (
	// SetClock gives a *clerksync.Config its clock.
	SetClock func(config any, c Clock)

	// Refreshing returns how many background refreshes a *clerksync.Syncer has
	// begun and not ended. One is counted before the visit that causes it returns.
	Refreshing func(syncer any) int

	// Wait waits for all that runs behind a *clerksync.Syncer's answers, and
	// unlike Close lets more of it begin afterwards.
	Wait func(syncer any)
)
