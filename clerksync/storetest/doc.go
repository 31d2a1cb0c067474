// Package storetest is the conformance suite that any [clerksync.Store] must
// pass: every rule of the Store contract is a named subtest, and so is every
// failure that clerksync exists to prevent.
//
// # Use
//
// Point [Run] at your Store in a test of its package:
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
// newStore must return a fresh, empty Store at each call: its own table,
// collection or database. It is called at least once in each subtest, sometimes
// twice, and what one returns must not see the records of another. Its clock
// must run and be within an hour of time.Now.
//
// The suite sleeps nowhere and runs its cases one after the other; call t.Parallel
// before Run to run it beside other tests. Run it under the race detector.
//
// # How much
//
// By default a run is small enough for a Store that scans all records to find one. The
// cases named Concurrent… depend on luck, so repeat them, and raise the counts, when the
// Store changes:
//
//	go test -race -run '/Concurrent' -count=100 -storetest.workers=64
//
// These flags are in each test binary that imports this package. They raise counts and
// never skip a case; a value below the default counts as the default.
//
//	-storetest.rounds n   repeat each concurrent case and each random history (default 4)
//	-storetest.workers n  goroutines of each concurrent case (default 16)
//	-storetest.users n    users in the largest batches (default 120)
//
// Run shows that single rules hold. Package
// [github.com/clerksync/clerksync-go/clerksync/storetest/world] shows that they
// are enough: it puts the Store, and Syncers on it, through a million random
// steps with faults. Point it at your Store in the same way, and run the same
// command as for memstore and mongostore. Its newStore is also given the clock;
// see there.
//
// # What runs
//
// The cases named Batch… run where the Store is a [clerksync.BatchStore], those
// named Restore… where it is a [clerksync.RestoreStore].
//
// A Store shares its records with the app, which writes to them past clerksync.
// The cases about that (an app's role, a suspended user, records from before
// clerksync, fields that it does not know) run where the Store is a [RawStore].
// A Store itself has no reason to be one; wrap it in the test, embedding the
// concrete type so that its other methods stay visible:
//
//	type rawStore struct {
//		*mystore.Store
//		db *mydb.Collection
//	}
//
//	func (s rawStore) SetFields(ctx context.Context, clerkID string, fields map[string]any) error { … }
//	func (s rawStore) Fields(ctx context.Context, clerkID string) (map[string]any, error) { … }
//
// A case that the Store gives no access to is not registered, rather than
// skipped: whatever the output names has run.
package storetest
