package clerksync

import (
	"encoding/json"

	"github.com/clerksync/clerksync-go/clerksync/internal/clockhook"
)

// The simulation in storetest/world needs what only this package's tests reach.
func init() {
	clockhook.SetClock = func(config any, c clockhook.Clock) { config.(*Config).clock = c }
	clockhook.Refreshing = func(syncer any) int { return len(syncer.(*Syncer).refreshers) }
	clockhook.Landed = func(syncer any, id string, claim json.RawMessage) {
		s := syncer.(*Syncer)
		s.background.Wait()
		// Their lookups have ended; that they are no flights any more, singleflight knows.
		for _, informed := range []bool{false, true} {
			<-s.flights.DoChan(s.flightKey(id, parseFreshness(claim), informed), func() (any, error) { return found{}, nil })
		}
	}
}
