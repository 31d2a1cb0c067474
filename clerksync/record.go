package clerksync

import (
	"context"
	"errors"
)

// The app's own form of the record
//
// A Store can make something of each document as it reads it (mongostore's Options.Record), so
// that a handler gets the app's own struct without a query. User.Record carries it, from the
// Store through the cache and the standby to the request's context. It is shared by all who
// use the cached record, so only RecordFromContext hands it out, as a copy.
//
// A document of which nothing can be made refuses its user's requests, but must not keep a ban,
// a deletion or a field from being written. So inside the package it is a record like any
// other, with a recordFailure for its Record.

// recordFailure is the Record of a document of which the Store could not make one.
type recordFailure struct{ err error }

// withFailure returns the record that a Store returned beside err, if err says only that its
// Record failed.
func withFailure(u *User, err error) (*User, bool) {
	var p *Problem
	if u == nil || !errors.As(err, &p) || p == nil || p.Code != CodeRecordFailed {
		return nil, false
	}
	c := u.Clone()
	c.Record = recordFailure{err}
	return c, true
}

// recordErr returns why the Store could not make a Record; nil if it did not fail.
func recordErr(u *User) error {
	if failure, failed := u.Record.(recordFailure); failed {
		return failure.err
	}
	return nil
}

// handedOut returns a copy of u for the app. Record is shared, so it is not in it, and Jobs is
// not the app's.
func handedOut(u *User) *User {
	c := u.Clone()
	if c != nil {
		c.Record, c.Jobs = nil, nil
	}
	return c
}

// RecordFromContext returns a copy of the value to which the Store's Record option has decoded
// the document of the request's user, and whether there is one. T is the type that it points
// to: with mongostore.RecordOf[Account], call RecordFromContext[Account].
//
// It is false if the context does not have a user, the Store does not have the option, the
// Record is not a *T, or the user is Partial. Each call makes a new copy, but a shallow one:
// slices, maps and pointers in it are shared with other requests, so do not modify them.
//
// The value is as old as the record; see [Config].CacheTTL, and [Syncer.Forget] for changes of
// the app's own.
func RecordFromContext[T any](ctx context.Context) (T, bool) {
	if u, ok := ctx.Value(userKey{}).(*User); ok && u != nil {
		if record, is := u.Record.(*T); is && record != nil {
			return *record, true
		}
	}
	var none T
	return none, false
}
