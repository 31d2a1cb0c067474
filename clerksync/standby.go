package clerksync

import (
	"cmp"
	"time"
)

// Standby is the record of a user that may stand in while the Store is down, for an hour
// after it was last known to be right. The functions here decide, after a write, what of
// the user stays on standby. They are pure: cached is the record that the cache held
// before, nil for none, and so is the result.
//
// Two rules run through them. A barred user stays barred: no outage may let in somebody
// whom this process knows to be deleted, suspended or banned. And a later state is never
// replaced by an earlier one, because writes may end in another order than they began.

// standbyAfterUpsert is the standby after an Upsert of offered returned res and err.
// caching says that this process caches records of users who are not barred.
func standbyAfterUpsert(cached, offered *User, res Result, err error, caching bool, now time.Time) *User {
	if err == nil && res.Outcome == Deactivated {
		return &User{ClerkID: offered.ClerkID, DeletedAt: now} // heard again: known for the whole hour again
	}
	if cached != nil && !cached.DeletedAt.IsZero() {
		return cached // the deletion came in between, and is final
	}
	written := writtenBy(offered, res)
	if err != nil || written == nil && (res.Outcome == Stale || res.Outcome == Unchanged) {
		return cached // as far as anybody knows, nothing was written
	}
	if cached != nil && laterState(cached, cmp.Or(written, offered)) {
		return cached // another write came later
	}
	if written == nil {
		if cached != nil && !cached.IsActive {
			return cached // the app suspended the user, which an Upsert does not change
		}
		return nil
	}
	if barred(written) || cached != nil && caching {
		return written
	}
	return nil // a user whom nobody visits is not worth a place
}

// writtenBy is the record after an Upsert, as far as it is known: the one that the Store
// returned, or the ban that it has just written; else nil.
func writtenBy(offered *User, res Result) *User {
	if res.User == nil && offered.Banned && (res.Outcome == Created || res.Outcome == Updated) {
		return &User{
			ClerkID: offered.ClerkID, Banned: true, IsActive: true,
			ClerkUpdatedAt: offered.ClerkUpdatedAt, SyncedAt: offered.SyncedAt,
		}
	}
	return res.User
}

// standbyAfterDeactivate is the standby after a Deactivate returned err.
func standbyAfterDeactivate(cached *User, id string, at time.Time, err error) *User {
	if err != nil {
		return cached
	}
	return &User{ClerkID: id, DeletedAt: at}
}

// standbyAfterForget is the standby after the app changed the record in a way that only
// the Store knows.
func standbyAfterForget(cached *User) *User {
	if cached != nil && barred(cached) {
		return cached
	}
	return nil
}
