// Package storetest is the conformance suite for [clerksync.Store]. Each rule of the Store
// contract is a named subtest, and so is each failure that clerksync exists to prevent.
//
// # Use
//
// Call [Run] from a test of your Store's package:
//
//	package mystore_test
//
//	import (
//		"testing"
//
//		"github.com/clerksync/clerksync-go/clerksync"
//		"github.com/clerksync/clerksync-go/clerksync/storetest"
//
//		"example.com/mystore"
//	)
//
//	func TestConformance(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) clerksync.Store {
//			s, err := mystore.Open(t.Context(), newEmptyDatabase(t))
//			if err != nil {
//				t.Fatal(err)
//			}
//			t.Cleanup(s.Close)
//			return s
//		})
//	}
//
// newStore must return a new, empty Store on each call: its own table, collection or database.
// Run calls it once to find out what the Store can do, and each subtest calls it once or more.
// The Stores must not see each other's records. A Store's clock must run and be within an hour
// of time.Now.
//
// The suite never sleeps, and runs its cases one after the other. To run it beside other tests,
// call t.Parallel before Run. Run it under the race detector too.
//
// # How much
//
// By default a run is small enough for a Store that scans all records to find one. What the
// cases named Concurrent… find depends on luck. When the Store changes, repeat them with more
// goroutines:
//
//	go test -race -run '/Concurrent' -count=100 -storetest.workers=64
//
// Each test binary that imports this package has these flags. They raise the counts and never
// skip a case. A value below the default counts as the default.
//
//	-storetest.rounds n   repeat each concurrent case and random history (default 3); above the
//	                      default, try every order of events and every type at every path
//	-storetest.workers n  goroutines of each concurrent case (default 8)
//	-storetest.users n    users in the largest batches (default 105)
//
// # Which cases run
//
// The cases named Batch… run if the Store is a [clerksync.BatchStore], and those named Restore…
// if it is a [clerksync.RestoreStore]. Those named Jobs… run if it is a [clerksync.JobStore], and
// those named Adopt… if it is an [AdoptingStore].
//
// A Store shares its records with the app, which writes to them directly. The cases about that
// run if the Store is a [RawStore]: roles that the app assigned, suspended users, records from
// before clerksync, fields that it does not know. A Store need not be a RawStore by itself. Wrap
// it in the test, and embed the concrete type to keep its other methods:
//
//	type rawStore struct {
//		*mystore.Store
//		db *mydb.Collection
//	}
//
//	func (s rawStore) SetFields(ctx context.Context, clerkID string, fields map[string]any) error { … }
//	func (s rawStore) Fields(ctx context.Context, clerkID string) (map[string]any, error) { … }
//
// Cases that do not apply are left out, not skipped, so each case in the output has run.
//
// # The random world
//
// Run checks single rules. Package
// [github.com/clerksync/clerksync-go/clerksync/storetest/world] checks that they are enough: it
// runs Syncers on the Store through random steps and faults. Call its Run in the same way; its
// newStore is also given the clock.
package storetest
