package clock

import (
	"context"
	"encoding/json"
)

// The random world of storetest/world uses these hooks to give a Syncer a clock with
// timers, and to wait for its background work. Neither may be part of the public API.
// Package clerksync sets them, as net/http sets those of net/http/internal/testhooks.
var (
	// Set gives a *clerksync.Config its clock.
	Set func(config any, c Clock)

	// Carry has the background work of a *clerksync.Syncer get the context that keep returns
	// for a request's, instead of an empty one.
	Carry func(syncer any, keep func(request context.Context) context.Context)

	// Refreshing returns how many background refreshes of a *clerksync.Syncer are
	// running. A visit that starts one has counted it before it returns.
	Refreshing func(syncer any) int

	// LookupsEnded waits until a user's lookups in a *clerksync.Syncer have ended, and
	// nobody can join them any more. claim is the token version of their visitor.
	LookupsEnded func(syncer any, id string, claim json.RawMessage)

	// OrderJobs has a *clerksync.Syncer run the jobs of a DrainJobs one after the other, in the order
	// in which the Store lists them, and without jitter. Before each attempt in the background
	// it calls turn, with the context from Carry. ended is closed when the attempt has ended.
	OrderJobs func(syncer any, turn func(ctx context.Context, id string, ended <-chan struct{}))

	// JobWorkers returns how many goroutines of a *clerksync.Syncer run jobs in the background. A
	// call that starts one has counted it before it returns.
	JobWorkers func(syncer any) int
)
