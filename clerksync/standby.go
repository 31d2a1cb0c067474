package clerksync

import (
	"cmp"
	"time"
)

// Standby is the record of a user that may stand in while the Store is down, for an hour
// after it was last known to be right. The functions here decide, after a write, what of
// the user stays on standby. They are pure: cached is the record that the cache holds, nil
// for none, and so is the result.
//
// Two rules run through them. A barred user stays barred: no outage may let in somebody
// whom this process knows to be deleted, suspended or banned. And a later state is never
// replaced by an earlier one, because writes may end in another order than they began.

// upserted is what this process knows after an Upsert.
type upserted struct {
	offered *User
	res     Result
	err     error
	// overtaken says that the user, or one of the same stripe, was invalidated since the
	// Upsert began: the app may have suspended the user in the meantime.
	overtaken bool
	caching   bool // this process caches users who are not barred
	at        time.Time
}

// standby is the standby after the Upsert.
func (w *upserted) standby(cached *User) *User {
	if w.err == nil && w.res.Outcome == Deactivated {
		return &User{ClerkID: w.offered.ClerkID, DeletedAt: w.at} // heard again: known for the whole hour again
	}
	if cached != nil && !cached.DeletedAt.IsZero() {
		return cached // the deletion came in between, and is final
	}
	written := w.written()
	if w.wroteNothing() {
		return cached
	}
	if cached != nil && laterState(cached, cmp.Or(written, w.offered)) {
		return cached // another write came later
	}
	if written != nil && barred(written) {
		return written
	}
	if written == nil || w.overtaken {
		if cached != nil && !cached.IsActive {
			return cached // the app suspended the user, which an Upsert does not change
		}
		return nil
	}
	if cached != nil && w.caching {
		return written
	}
	return nil // a user whom nobody visits is not worth a place
}

// wroteNothing reports whether nothing was written, as far as anybody knows, and the Store
// did not return the record either.
func (w *upserted) wroteNothing() bool {
	return w.err != nil || w.res.User == nil && (w.res.Outcome == Stale || w.res.Outcome == Unchanged)
}

// written is the record after the Upsert, as far as it is known: the one that the Store
// returned, or the ban that it has just written; else nil.
func (w *upserted) written() *User {
	outcome := w.res.Outcome
	if w.res.User == nil && w.offered.Banned && (outcome == Created || outcome == Updated) {
		return &User{
			ClerkID: w.offered.ClerkID, Banned: true, IsActive: true,
			ClerkUpdatedAt: w.offered.ClerkUpdatedAt, SyncedAt: w.offered.SyncedAt,
		}
	}
	return w.res.User
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
