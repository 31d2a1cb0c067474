package clerksync

import (
	"reflect"
	"time"
)

// Decide is the convergence rule: what an Upsert of u must do if the stored record is
// stored (nil for none). Every [Store] decides by it, or by a guarded write that is
// equivalent. now is the Store's clock.
//
//  1. No record: Created. If u has Omit, the Upsert fails instead; see [Store].
//  2. The record is deleted: Deactivated, whatever u says. Deletion is final, because
//     Clerk never reuses an id.
//  3. u's version (ClerkUpdatedAt) is newer, or u has one and the record has none: Updated.
//     But if u has Omit and the record is exactly one millisecond older, rule 4 applies: an
//     earlier Upsert with Omit of the same version left that one.
//  4. The versions are equal: Updated if a Clerk-owned field differs (two changes in one
//     millisecond, a new Map, an edit by hand), else Unchanged. But if SyncedAt says that
//     the record was confirmed after u, the outcome is Unchanged: a late event does not
//     undo what a later read of the same version found. A SyncedAt in the future is
//     ignored.
//  5. u's version is older, or u has none and the record has one: Stale.
//
// Versions are compared in milliseconds. Fields that u omits are not compared.
//
// The rule is encoded again in these places, which must agree with it. In mongostore: guard
// (upsert_fields.go), confirm (upsert.go), wouldPass (batch.go) and record.decide
// (decode.go). Here: byVersion (reconcile_compare.go).
func Decide(stored, u *User, now time.Time) Outcome {
	if stored == nil {
		return Created
	}
	if !stored.DeletedAt.IsZero() {
		return Deactivated
	}
	switch have, offered := version(stored), version(u); {
	case len(u.Omit) > 0 && offered-have == 1: // as if they were equal
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

// version returns u's version in milliseconds. A user without a version is older than any
// with one.
func version(u *User) int64 {
	if u.ClerkUpdatedAt.IsZero() {
		return -1 << 63
	}
	return u.ClerkUpdatedAt.UnixMilli()
}

// confirmedLater reports whether stored was confirmed by later evidence than u.
func confirmedLater(stored, u *User, now time.Time) bool {
	return !u.SyncedAt.IsZero() &&
		stored.SyncedAt.UnixMilli() > u.SyncedAt.UnixMilli() &&
		!stored.SyncedAt.After(now)
}

// sameClerkFields reports whether applying u would leave stored's Clerk-owned fields as
// they are.
func sameClerkFields(stored, u *User) bool {
	for _, f := range clerkFields {
		if f.value(stored) != f.value(u) && !u.omits(f.path) {
			return false
		}
	}
	if u.RoleFromClerk && stored.Role != u.Role && !u.omits("role") {
		return false
	}
	return sameExtra(stored, u)
}

func sameExtra(stored, u *User) bool {
	for name, v := range u.Extra {
		if !u.omitsExtra(name) && !reflect.DeepEqual(stored.Extra[name], v) {
			return false
		}
	}
	for name := range stored.Extra {
		if _, has := u.Extra[name]; !has && !u.omitsExtra(name) {
			return false
		}
	}
	return true
}
