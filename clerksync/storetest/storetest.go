package storetest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/clerksync/clerksync-go/clerksync"
)

// RawStore is a [clerksync.Store] whose records a test can write and read as the
// app does that owns the database. Fields have the names of the record
// ("clerkUpdatedAt", "profile.firstName"), whatever the Store calls them.
type RawStore interface {
	clerksync.Store

	// SetFields writes fields of a record, by dotted path, and touches no
	// other; it creates the record if there is none. It sees to nothing else:
	// no version, no updatedAt. A nil value removes the field, [Null] stores a
	// null. Values are a string, a bool, an int, an int32, an int64, a float64,
	// a [time.Time], a []any or a map[string]any of these.
	//
	// A Store whose records cannot hold a field that clerksync does not know,
	// a null, or a value of another type than the field's, returns an error
	// that matches [errors.ErrUnsupported]; the cases about those do not run
	// then.
	SetFields(ctx context.Context, clerkID string, fields map[string]any) error

	// Fields returns the whole record as the database holds it, with a
	// map[string]any for each nested one: dates as [time.Time], numbers as any
	// Go type of numbers, absent fields absent. Without a record the error
	// matches [clerksync.ErrNotFound].
	Fields(ctx context.Context, clerkID string) (map[string]any, error)
}

// Null stands for a stored null in [RawStore].SetFields and Fields.
type Null struct{}

// Run checks that the Stores which newStore returns keep the contract of
// [clerksync.Store], and of [clerksync.BatchStore] and [clerksync.RestoreStore] if
// they have their methods.
// Each case is a subtest; see the package comment for what newStore must do.
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

// ability is what a case needs the Store under test to be besides a Store.
type ability uint

const (
	batch    ability = 1 << iota // a clerksync.BatchStore
	restores                     // a clerksync.RestoreStore
	raw                          // a RawStore
	foreign                      // a RawStore that holds what clerksync does not write
)

// abilities finds out what an empty Store is able to do.
func abilities(t testing.TB, s clerksync.Store) (able ability) {
	t.Helper()
	if _, ok := s.(clerksync.BatchStore); ok {
		able |= batch
	}
	if _, ok := s.(clerksync.RestoreStore); ok {
		able |= restores
	}
	r, ok := s.(RawStore)
	if !ok {
		return able
	}
	able |= raw
	err := r.SetFields(t.Context(), "user_probe", map[string]any{"favouriteColour": "green", "email": 42, "name": Null{}})
	switch {
	case err == nil:
		able |= foreign
	case !errors.Is(err, errors.ErrUnsupported):
		t.Fatalf("RawStore.SetFields of unusual fields: %v, want none or one matching errors.ErrUnsupported", err)
	}
	return able
}

// testCase is one rule of the contract.
type testCase struct {
	name  string
	rule  string // in words; part of every failure's message
	needs ability
	run   func(*check)
}

var cases = slices.Concat(upsertCases, fieldCases, argumentCases, extraCases, deactivateCases,
	orderCases, rawCases, foreignCases, concurrentCases, batchCases, restoreCases)
