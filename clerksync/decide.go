package clerksync

import (
	"reflect"
	"time"
)

// Decide is the convergence rule: what an Upsert of u must do where the stored
// record is stored (nil where there is none). Every [Store] decides by it, or by
// a guarded write that is equivalent. now is the Store's clock.
//
//  1. No record: Created.
//  2. The record is deleted: Deactivated, whatever u says. Deletion is final:
//     Clerk never reuses an id.
//  3. u's version (ClerkUpdatedAt) is newer, or u has one and the record has
//     none: Updated.
//  4. The versions are equal: Updated where a Clerk-owned field differs (two
//     changes in one millisecond, a new Map, a hand edit), else Unchanged.
//     A u that is older evidence than what last confirmed the record
//     (SyncedAt) changes nothing: a late event does not undo what a later
//     read of the same version found. Confirmations from the future are
//     disbelieved.
//  5. u's version is older, or u has none and the record has one: Stale.
//
// Versions are compared in milliseconds.
func Decide(stored, u *User, now time.Time) Outcome {
	if stored == nil {
		return Created
	}
	if !stored.DeletedAt.IsZero() {
		return Deactivated
	}
	switch have, offered := version(stored), version(u); {
	case offered > have:
		return Updated
	case offered < have:
		return Stale
	}
	if confirmedLater(stored, u, now) || sameClerkFields(stored, u) {
		return Unchanged
	}
	return Updated
}

// version makes versions comparable: no version is older than any.
func version(u *User) int64 {
	if u.ClerkUpdatedAt.IsZero() {
		return -1 << 63
	}
	return u.ClerkUpdatedAt.UnixMilli()
}

func confirmedLater(stored, u *User, now time.Time) bool {
	return !u.SyncedAt.IsZero() &&
		stored.SyncedAt.UnixMilli() > u.SyncedAt.UnixMilli() &&
		!stored.SyncedAt.After(now)
}

// sameClerkFields reports whether applying u would leave stored's Clerk-owned
// fields as they are.
func sameClerkFields(stored, u *User) bool {
	for _, f := range clerkFields {
		if f.value(stored) != f.value(u) {
			return false
		}
	}
	if u.RoleFromClerk && stored.Role != u.Role {
		return false
	}
	if len(stored.Extra) != len(u.Extra) {
		return false
	}
	for name, v := range u.Extra {
		if !reflect.DeepEqual(stored.Extra[name], v) {
			return false
		}
	}
	return true
}
