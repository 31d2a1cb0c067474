package storetest

import (
	"context"
	"errors"
	"flag"
	"slices"
	"testing"

	"github.com/clerksync/clerksync-go/clerksync"
)

// RawStore is a [clerksync.Store] whose records a test can read and write directly, as the app
// that owns the database does. Fields have the names of the contract ("clerkUpdatedAt",
// "profile.firstName"), whatever the Store calls them.
type RawStore interface {
	clerksync.Store

	// SetFields writes these fields of a record, by dotted path, and nothing else: no version
	// and no updatedAt. It creates the record if there is none. A nil value removes the field,
	// and [Null] stores a null. A value is a string, a bool, an int, an int32, an int64, a
	// float64, a [time.Time], or a []any or map[string]any of these.
	//
	// A Store may be unable to hold a field that clerksync does not know, a null, or a value
	// of the wrong type. Then it returns an error that matches [errors.ErrUnsupported], and the
	// cases about those do not run.
	SetFields(ctx context.Context, clerkID string, fields map[string]any) error

	// Fields returns the whole record as the database holds it. Nested objects are
	// map[string]any, dates are [time.Time], and numbers are any numeric Go type. Absent fields
	// are absent. If there is no record, the error matches [clerksync.ErrNotFound].
	Fields(ctx context.Context, clerkID string) (map[string]any, error)
}

// Null is a stored null in the arguments of [RawStore].SetFields and the results of Fields.
type Null struct{}

// Run checks that the Stores that newStore returns keep the contract of [clerksync.Store], and
// those of [clerksync.BatchStore], [clerksync.RestoreStore], [clerksync.JobStore] and
// [AdoptingStore] if they have the methods. Each case is a subtest. See the package comment for what newStore must do.
func Run(t *testing.T, newStore func(t *testing.T) clerksync.Store) {
	t.Helper()
	able := abilities(t, newStore(t))
	for _, k := range cases {
		if k.needs&^able == 0 {
			t.Run(k.name, func(t *testing.T) {
				k.run(&check{t: t, rule: k.rule, newStore: func() clerksync.Store { return newStore(t) }})
			})
		}
	}
}

// ability is what a Store offers beyond [clerksync.Store]. A case needs some of it.
type ability uint

const (
	batch    ability = 1 << iota // a clerksync.BatchStore
	restores                     // a clerksync.RestoreStore
	jobs                         // a clerksync.JobStore
	raw                          // a RawStore
	adopts                       // an AdoptingStore
	foreign                      // a RawStore that can hold fields and types unknown to clerksync
)

// abilities returns what a Store offers. It writes a record to the Store to find out.
func abilities(t testing.TB, s clerksync.Store) (able ability) {
	t.Helper()
	if _, ok := s.(clerksync.BatchStore); ok {
		able |= batch
	}
	if _, ok := s.(clerksync.RestoreStore); ok {
		able |= restores
	}
	if _, ok := s.(clerksync.JobStore); ok {
		able |= jobs
	}
	r, ok := s.(RawStore)
	if !ok {
		return able
	}
	able |= raw
	if _, ok := s.(AdoptingStore); ok {
		able |= adopts
	}
	unusual := map[string]any{"favouriteColour": "green", "email": 42, "name": Null{}}
	err := r.SetFields(t.Context(), "user_probe", unusual)
	switch {
	case err == nil:
		able |= foreign
	case !errors.Is(err, errors.ErrUnsupported):
		t.Fatalf("RawStore.SetFields of unusual fields: %v, want nil or an error matching errors.ErrUnsupported", err)
	}
	return able
}

// testCase is one rule of the contract.
type testCase struct {
	name  string
	rule  string // part of each failure message
	needs ability
	run   func(*check)
}

var cases = slices.Concat(upsertCases, fieldCases, argumentCases, extraCases, omitCases, deactivateCases,
	orderCases, rawCases, foreignCases, concurrentCases, batchCases, restoreCases, adoptCases, jobCases)

// How much a run does by default. This is small, so that a Store that scans all records for each
// read finishes in seconds. Flags raise it. No flag skips a case, and a value below the default
// counts as the default: with less, a case might miss what it is for.
//
// These are flags, not arguments of Run, so that the person who runs the tests can choose them: the
// test in the Store's package stays the same. Only tests import this package, so only test binaries
// have the flags, like those of package rapid. The prefix keeps them apart from others.
const (
	fewestRounds  = 3
	fewestWorkers = 8
	fewestUsers   = 105
)

var (
	roundsFlag = flag.Int("storetest.rounds", fewestRounds,
		"storetest: repeat each concurrent case and random history `n` times; "+
			"above the default, also try all orders of events, and each type at each path")
	workersFlag = flag.Int("storetest.workers", fewestWorkers,
		"storetest: run each concurrent case on `n` goroutines")
	usersFlag = flag.Int("storetest.users", fewestUsers,
		"storetest: put `n` users into the largest batches")
)

// rounds is how often a concurrent case and a random history are repeated.
func rounds() int { return max(fewestRounds, *roundsFlag) }

// thorough reports whether a case tries all orders, and each type at each path. By default it tries
// every other order, and one type at each path.
func thorough() bool { return rounds() > fewestRounds }

// workers is how many goroutines compete for one record.
func workers() int { return max(fewestWorkers, *workersFlag) }

// many is the size of the largest batches: more than a hundred, a common page size.
func many() int { return max(fewestUsers, *usersFlag) }
