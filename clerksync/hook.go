package clerksync

import "github.com/clerksync/clerksync-go/clerksync/internal/clockhook"

// The simulation in storetest/world needs what only this package's tests reach.
func init() {
	clockhook.SetClock = func(config any, c clockhook.Clock) { config.(*Config).clock = c }
	clockhook.Refreshing = func(syncer any) int { return len(syncer.(*Syncer).refreshers) }
	clockhook.Wait = func(syncer any) { syncer.(*Syncer).background.Wait() }
}
