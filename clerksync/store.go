package clerksync

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// Store keeps exactly one record per Clerk user. It must be safe for concurrent use, by
// many goroutines and many processes.
//
// Each method is one atomic decision, so that any interleaving of callers ends in the same
// record; [Decide] has the rules of that decision. All methods are idempotent. Ids are
// compared byte for byte. Times are kept in milliseconds. A Store does not keep or modify
// its arguments, and never modifies what it has returned.
//
// If the context is done, a method returns an error matching its cause (context.Canceled
// or context.DeadlineExceeded); unless the write was already under way, it has changed
// nothing. An empty id is an error. Any error other than those named at the methods means
// "the Store is unavailable". An error's text holds no personal data, because it is
// logged.
//
// A Store may leave out fields of its choice, except those that it decides by. Then it has a
// method Keeps(path string) bool, and a Reconcile ignores what it does not keep. The paths are
// those of [User.ClerkFields], and "lastSignInAt". Such a Store reads these fields as absent,
// and neither writes nor compares them.
//
// Package storetest checks all of this for any Store.
type Store interface {
	// User returns the record of a user, active or not, deleted or not. If there is none,
	// the error matches [ErrNotFound].
	//
	// A Store may make a Record of its own of each document, see [User].Record. If that fails,
	// User returns the record without it, and a [*Problem] with the Code "record_failed" and a
	// Status from 500 that says why. The Results of Upsert have a User with Record, or none.
	User(ctx context.Context, clerkID string) (*User, error)

	// Upsert brings the record in step with u, as [Decide] says:
	//
	//   - Created: a record with u's Clerk-owned fields, Role, Location, and IsActive true.
	//   - Updated: u's Clerk-owned fields ([User.ClerkFields]) and its version are written,
	//     and removed if u does not have them; LastSignInAt and SyncedAt move forward,
	//     UpdatedAt is set. Nothing else in the record is touched, including fields that
	//     clerksync does not know.
	//   - Unchanged: at most SyncedAt and LastSignInAt move forward.
	//   - Stale, Deactivated: nothing is written.
	//
	// u's ID, CreatedAt, UpdatedAt, IsActive, DeletedAt, Jobs and Partial have no effect. The
	// error is a [*ConflictError] if one of the app's unique indexes is in the way, and
	// matches [ErrRejected] if the Store never takes such a record, whatever other records hold.
	//
	// If u has Omit, Upsert does not create a record: if there is none, the error matches
	// [ErrNotFound]. The fields that Omit names stay, and so does what the record has in
	// Extra under such a name. The version becomes the later one of the record's and u's
	// less a millisecond, so that older events are Stale and u without Omit is still newer.
	// LastSignInAt and SyncedAt move as above, but a record without a SyncedAt gets none: it
	// has not been confirmed as a whole.
	//
	// A record without SyncedAt and DeletedAt is one that clerksync has never written, and
	// the app may use clerksync's names for something else. If Upsert would write to it, and
	// it has a value of another type under the name of a field that Clerk owns, of the
	// bookkeeping that Upsert writes, of IsActive or of DeletedAt, or any value under a name
	// of u's Extra that an earlier Upsert did not write, then the error is a
	// [*ConflictError] with Field and Type, and nothing is written. A null counts as absent.
	// Once the record has a SyncedAt, these names in it are clerksync's.
	Upsert(ctx context.Context, u *User) (Result, error)

	// Deactivate marks the record deleted for good: it sets IsActive to false and DeletedAt
	// to at. If there is no record, it leaves a tombstone without personal data for a late
	// Upsert to find. A record that is already deleted stays as it is. If at is zero or
	// before 1970, the Store's current time is used. The Outcome is always Deactivated. The
	// error matches [ErrRejected] if the Store never takes such a record.
	Deactivate(ctx context.Context, clerkID string, at time.Time) (Result, error)
}

// BatchStore is a [Store] that can also handle many users in one call. It is optional:
// without it Reconcile calls the Store for each user, and cannot look for ghosts (records
// of users that Clerk does not have).
type BatchStore interface {
	Store

	// UpsertBatch does what Upsert does, for each of us in turn, and returns one Result
	// each, in the same order. If some could not be written, the error is a [*BatchError]
	// that says which and why, and the results of the others are valid. A user whom Upsert
	// would reject does not make the others fail. After any other error nothing is known
	// about any of them.
	UpsertBatch(ctx context.Context, us []*User) ([]Result, error)

	// Users returns the records of those users that have one, by ClerkID.
	Users(ctx context.Context, clerkIDs []string) (map[string]*User, error)

	// Stamps is like Users, but returns only stamps, which are cheaper to read.
	Stamps(ctx context.Context, clerkIDs []string) (map[string]Stamp, error)

	// Undeleted yields the stamp of every record without a DeletedAt, suspended and banned
	// ones too, each once and in any order. A record that is written meanwhile may be
	// missing or come twice. The caller may call the Store meanwhile, but should not pause
	// for minutes: a database may then have ended the iteration. After an error it stops,
	// and only starting over yields the rest.
	Undeleted(ctx context.Context) iter.Seq2[Stamp, error]
}

// RestoreStore is a [Store] that can take a deletion back. It is optional; only a
// Reconcile with [ReconcileOptions].Restore needs it.
type RestoreStore interface {
	Store

	// Restore makes a record active again that was marked deleted before the given time:
	// no DeletedAt, IsActive true, UpdatedAt set. It also removes ClerkUpdatedAt, so that
	// the record is older than whatever is offered next, which brings back what the
	// deletion may have removed. Everything else stays.
	//
	// Restore is atomic. It reports whether this call restored the record: one that is not
	// deleted, was deleted later, or does not exist stays as it is.
	//
	// A Store that is a [JobStore] takes a delete job back that is not running: only Attempt
	// stays, so that the state says whether it ever ran. While it is running, that is while it
	// has a Token and a Due after the Store's current time, Restore reports false, and nothing
	// changes.
	Restore(ctx context.Context, clerkID string, before time.Time) (bool, error)
}

// AdoptStore is a [Store] that can link a Clerk user to a record that the app had before
// Clerk. It is optional.
//
// Its Upsert and UpsertBatch adopt: if the Clerk id has no record, they look for one without
// a Clerk id that is the user's, by [User].ExternalID or by a proven e-mail address
// ([User].EmailProven). If there is one, it gets the Clerk id and is brought in step; the
// Outcome is [Adopted]. If a record without a Clerk id has the address and must not be
// adopted, nothing is written, and the error is a [*ConflictError] that matches
// [ErrUnlinked]. If the external id names a record of another Clerk user, the error is a
// [*ConflictError] with its Clerk id as Holder. A user with Omit is never adopted. A Store that
// looks for the addresses of some users looks for those of all, as they are and in lower case.
type AdoptStore interface {
	Store

	// Adoptions says what an Upsert of each of us would do, without writing, in the order
	// of us. Users who have a record get a zero Adoption.
	Adoptions(ctx context.Context, us []*User) ([]Adoption, error)

	// DeactivateExternal is Deactivate for a user who had an external id. If the Clerk id
	// has no record and the external id names one without a Clerk id, that record becomes
	// the tombstone.
	DeactivateExternal(ctx context.Context, clerkID, externalID string, at time.Time) (Result, error)
}

// Adoption is what an Upsert would do to adopt a record for a user. The zero Adoption adopts
// none.
type Adoption struct {
	// By is how the record would be found: [ByExternalID] or [ByEmail]; empty for none.
	By string
	// Err is the error that Upsert would return, nil if it would succeed.
	Err error
}

// The ways to find the record that a user adopts: the values of [Adoption].By and of
// adoptedBy in the record.
const (
	ByExternalID = "external_id"
	ByEmail      = "email"
)

// LegacyStore is a [Store] that knows about records that the app had before clerksync. It is
// optional.
type LegacyStore interface {
	Store

	// HasLegacy reports whether the Store, when it was opened, came upon records that
	// clerksync has never written.
	HasLegacy() bool

	// UnlinkedEmails yields the e-mail address of each record without a Clerk id that is not
	// marked deleted, in any order: an empty one if it has none, and each if it has several.
	// After an error it stops, and only starting over yields the rest.
	UnlinkedEmails(ctx context.Context) iter.Seq2[string, error]
}

// Result is what an Upsert or a Deactivate did.
type Result struct {
	// Outcome is zero beside an error, and for an event that is not about a user.
	Outcome Outcome
	// User is the whole stored record after the call. If it is nil, read the record with
	// User. A Store may build it from the argument only for Created. The Syncer does not
	// modify what a Store returns, and hands out copies.
	User *User
}

// Outcome says what an Upsert or a Deactivate did.
type Outcome int

const (
	// Created means that there was no record, and now there is.
	Created Outcome = iota + 1
	// Updated means that the record was older or differed, and was written.
	Updated
	// Unchanged means that the versions are equal and nothing had to change: the record is
	// equal, or it was confirmed later than what was offered.
	Unchanged
	// Stale means that the record is newer than what was offered. Nothing was written.
	Stale
	// Deactivated means that the record is marked deleted, by this call or an earlier one,
	// for good.
	Deactivated
	// Adopted means that a record that the app had before Clerk was linked to the user and
	// brought in step. See [AdoptStore].
	Adopted
)

// String returns the Outcome's name in lower case, "none" for the zero Outcome.
func (o Outcome) String() string {
	names := [...]string{"none", "created", "updated", "unchanged", "stale", "deactivated", "adopted"}
	if o < 0 || int(o) >= len(names) {
		return fmt.Sprintf("Outcome(%d)", int(o))
	}
	return names[o]
}

// wrote reports whether an Upsert wrote the user's fields.
func (o Outcome) wrote() bool { return o == Created || o == Updated || o == Adopted }

// Stamp is the part of a record that Reconcile compares. The times are as in [User].
type Stamp struct {
	ClerkID                                        string
	ClerkUpdatedAt, SyncedAt, CreatedAt, DeletedAt time.Time
	IsActive                                       bool
	// AdoptedAt is when the record was adopted; zero if it was not. See [AdoptStore].
	AdoptedAt time.Time
}
