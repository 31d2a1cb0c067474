package clerksync

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// Store keeps exactly one record per Clerk user. Many goroutines and many
// processes use one Store at once; it must be safe for that.
//
// The three methods are each one atomic decision, so that any interleaving of
// callers ends in the same record; the rules of that decision are [Decide]'s.
// All are idempotent. Ids are compared byte for byte. Times are kept in
// milliseconds. A Store does not keep or modify its arguments, and what it
// returns it never modifies again.
//
// With a context that is done, a method returns an error matching its cause
// (context.Canceled or context.DeadlineExceeded) and, unless the write was
// already under way, has changed nothing. An empty id is an error. Any error other
// than those named at the methods is taken as "the Store is unavailable".
// An error's text holds no personal data: it is logged.
//
// Package storetest checks all of this for any Store.
type Store interface {
	// User returns the record of a user, active or not, deleted or not. Where
	// there is none the error matches [ErrNotFound].
	User(ctx context.Context, clerkID string) (*User, error)

	// Upsert brings the record in step with u, as [Decide] says:
	//
	//   - Created: a record with u's Clerk-owned fields, Role, Location, and
	//     IsActive true.
	//   - Updated: u's Clerk-owned fields ([User.ClerkFields]) and its version
	//     are written, and removed where u has none; LastSignInAt and SyncedAt
	//     move forward, UpdatedAt is set. Nothing else in the record is
	//     touched, fields that clerksync does not know included.
	//   - Unchanged: at most SyncedAt and LastSignInAt move forward.
	//   - Stale, Deactivated: nothing is written.
	//
	// ID, CreatedAt, UpdatedAt, IsActive, DeletedAt and Partial of u have no
	// effect. The error is a [*ConflictError] where a unique index of the
	// app's own stands in the way.
	Upsert(ctx context.Context, u *User) (Result, error)

	// Deactivate marks the record deleted for good: IsActive false, DeletedAt
	// at. Where there is no record it leaves a tombstone without personal
	// data, so that a late Upsert finds it. A record that is already deleted
	// stays as it is. The zero time, and any before 1970, stands for the Store's now.
	// The Outcome is Deactivated in every case.
	Deactivate(ctx context.Context, clerkID string, at time.Time) (Result, error)
}

// BatchStore is a [Store] that can also do many users in one go. It is optional:
// Reconcile uses it where a Store has it and does without otherwise.
type BatchStore interface {
	Store

	// UpsertBatch does what Upsert does for each of us in turn, and returns one
	// Result each, in the same order. Where some could not be written the
	// error is a [*BatchError] that says which and why, and the results of the
	// others hold; with any other error nothing is known of any.
	UpsertBatch(ctx context.Context, us []*User) ([]Result, error)

	// Users returns the records of those users that have one, by ClerkID.
	Users(ctx context.Context, clerkIDs []string) (map[string]*User, error)

	// Stamps is Users without the weight.
	Stamps(ctx context.Context, clerkIDs []string) (map[string]Stamp, error)

	// Undeleted yields the stamp of every record without a DeletedAt,
	// suspended and banned ones too, in ascending order of ClerkID. Records
	// written meanwhile may or may not be among them. After an error it stops.
	Undeleted(ctx context.Context) iter.Seq2[Stamp, error]
}

// RestoreStore is a [Store] that can take a deletion back. It is optional, and
// only a Reconcile with [ReconcileOptions].Restore asks for it.
type RestoreStore interface {
	Store

	// Restore makes a record that was marked deleted before the given time
	// active again: no DeletedAt, IsActive true, UpdatedAt set, all else as it
	// is, but for ClerkUpdatedAt: without it the record is older than whatever is
	// offered next, which brings back what the deletion may have removed. It is
	// one atomic decision, and reports whether it was that one's: a record that is
	// not deleted, deleted later or not there stays as it is.
	Restore(ctx context.Context, clerkID string, before time.Time) (bool, error)
}

// Result is what became of an Upsert or a Deactivate.
type Result struct {
	// Outcome is zero only where nothing was attempted, as for an event that
	// concerns no user.
	Outcome Outcome
	// User is the whole stored record after the call, or nil where the Store
	// did not read it; read it from the Store then. It is an echo of the argument only
	// for Created. Shared; callers may not modify it.
	User *User
}

// Outcome says what an Upsert or a Deactivate did.
type Outcome int

const (
	// Created means that there was no record, and now there is.
	Created Outcome = iota + 1
	// Updated means that the record was older or differed, and was written.
	Updated
	// Unchanged means that the record was already equal.
	Unchanged
	// Stale means that the record is newer than what was offered; nothing was
	// written.
	Stale
	// Deactivated means that the record is marked deleted, by this call or an
	// earlier one, for good.
	Deactivated
)

// String returns the Outcome's name in lower case, "none" for the zero Outcome.
func (o Outcome) String() string {
	names := [...]string{"none", "created", "updated", "unchanged", "stale", "deactivated"}
	if o < 0 || int(o) >= len(names) {
		return fmt.Sprintf("Outcome(%d)", int(o))
	}
	return names[o]
}

// Stamp is what Reconcile needs of a record. The times are as in [User].
type Stamp struct {
	ClerkID                                        string
	ClerkUpdatedAt, SyncedAt, CreatedAt, DeletedAt time.Time
	IsActive                                       bool
}
