package world_test

import (
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/storetest/world"
)

func TestMemstore(t *testing.T) {
	world.Run(t, func(_ testing.TB, now func() time.Time) clerksync.Store {
		return newStore(now)
	}, world.Options{})
}

// TestMemstoreUniqueEmail is about a database with a unique index on the e-mail address.
func TestMemstoreUniqueEmail(t *testing.T) {
	world.Run(t, func(_ testing.TB, now func() time.Time) clerksync.Store {
		s := newStore(now)
		s.UniqueEmail = true
		return s
	}, world.Options{Checks: 10, UniqueEmail: true})
}
