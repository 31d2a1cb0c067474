package clerksync

import (
	"context"
	"encoding/json"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
	"github.com/clerksync/clerksync-go/clerksync/internal/sessiontoken"
)

// These hooks let storetest/world set the clock, and order background work, wait for it, and tell
// which request caused it.
func init() {
	clock.Set = func(config any, c clock.Clock) { config.(*Config).clock = c }
	clock.Carry = func(syncer any, keep func(context.Context) context.Context) {
		syncer.(*Syncer).background.carry = keep
	}
	clock.Refreshing = func(syncer any) int { return len(syncer.(*Syncer).background.slots) }
	clock.OrderJobs = func(syncer any, turn func(context.Context, string, <-chan struct{})) {
		r := syncer.(*Syncer).jobs
		r.pace = jobPace{
			atOnce: 1, shuffle: func(int, func(i, j int)) {}, random: func() float64 { return 1 },
			turn: func(ctx context.Context, ref jobRef) {
				r.mu.Lock()
				flight := r.flights[ref]
				r.mu.Unlock()
				turn(ctx, ref.id, flight)
			},
		}
	}
	clock.JobWorkers = func(syncer any) int {
		r := syncer.(*Syncer).jobs
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.workers
	}
	clock.LookupsEnded = func(syncer any, id string, claim json.RawMessage) {
		s := syncer.(*Syncer)
		s.background.running.Wait()
		// The work has ended. Ask singleflight whether it has forgotten the lookups too.
		for _, newer := range []bool{false, true} {
			l := load{id: id, gen: s.cache.generation(id).Load(), newer: newer}
			l.token.version = sessiontoken.ParseVersion(claim)
			<-s.lookups.DoChan(l.key(), func() (any, error) { return found{}, nil })
		}
	}
}
