package clerksync

import (
	"cmp"
	"sync"
	"time"
)

// A standby record may be served while the Store is down, until CacheTTL plus one hour
// after it was loaded (visit_cache.go keeps it, visit.go serves it). The functions here
// decide, after a write, which record to keep. They are pure. cached and the result may be
// nil: no record.
//
// Two rules run through them. A barred user stays barred: no outage may let in somebody
// whom this process knows to be deleted, suspended or banned, even if that could not be
// written. And a later state is never replaced by an earlier one, because writes may end in
// another order than they began.

// upserted is what this process knows after an Upsert.
type upserted struct {
	offered *User
	res     Result
	err     error
	// overtaken says that the generation has increased since the Upsert began: the app may
	// have suspended the user meanwhile (or another user shares the generation).
	overtaken bool
	// later is the latest state that another Upsert or load has shown while this one was under
	// way.
	later   *User
	caching bool // this process caches users who are not barred
	open    bool // an outage lets in users of whom nothing is known
	at      time.Time
}

// standby returns the record to keep after the Upsert.
func (w *upserted) standby(cached *User) *User {
	if w.err == nil && w.res.Outcome == Deactivated {
		return &User{ClerkID: w.offered.ClerkID, DeletedAt: w.at} // a new record restarts the hour, see invalidate
	}
	if cached != nil && !cached.DeletedAt.IsZero() {
		return cached // the deletion came in between, and is final
	}
	if w.err != nil {
		return w.unwritten(cached)
	}
	written := w.written()
	if w.learnedNothing() {
		return cached
	}
	if w.isOvertaken(cached, written) {
		return w.laterCached(cached)
	}
	if written != nil && barred(written) {
		if w.res.User == nil {
			return w.ban(cached)
		}
		return written
	}
	if written == nil || w.overtaken || unconfirmed(written) || lacksRecord(written, cached) {
		// The Store did not return the record (as mongostore after an update) or its Record (in
		// a batch), it may be out of date, or Clerk has never confirmed it: keep nothing but
		// what bars the user.
		return w.onlyBar(cached)
	}
	if cached != nil && w.caching {
		return written
	}
	return nil // not cached, so nobody visits: do not start caching
}

// laterCached is the cached user, who looks later than what was written: another write came
// later. But if a write of the same version replaced the record, the Store may have ignored a
// later SyncedAt, because it was in the future by its clock. Then nothing is known, unless the
// cached user is barred.
func (w *upserted) laterCached(cached *User) *User {
	replaced := w.res.Outcome == Updated && w.res.User == nil
	if replaced && cached != nil && version(cached) == version(w.offered) && !barred(cached) {
		return nil
	}
	return cached
}

// onlyBar is the cached user if the Upsert leaves them barred, nil otherwise.
func (w *upserted) onlyBar(cached *User) *User {
	if w.leavesBarred(cached) {
		return cached
	}
	return nil
}

// unwritten is standby for an Upsert that failed. After a transient error, what Clerk said about a
// ban counts although it could not be written, unless a later state is known. If no record is
// cached, the ban may have ended long ago, so it counts only with FailOpen, which would let the
// user in. The ban also bars while the Store can be read, until the Store shows a later state, or
// a re-read finds the ban lifted; see banIsDue.
func (w *upserted) unwritten(cached *User) *User {
	switch {
	case permanent(w.err), w.offered.omits("banned"), w.isOvertaken(cached, nil):
		return cached
	case w.offered.Banned && (cached != nil || w.open):
		return w.ban(cached)
	case cached != nil && cached.Banned && cached.IsActive:
		return nil // Clerk has lifted the ban
	}
	return cached
}

// ban is the record that has only the ban of the Upsert, and the suspension of the cached user.
func (w *upserted) ban(cached *User) *User {
	ban := knownBan(w.offered)
	ban.IsActive = cached == nil || cached.IsActive
	return ban
}

// lacksRecord reports whether the Store made a Record for the cached user, but not for the
// written one.
func lacksRecord(written, cached *User) bool {
	return cached != nil && cached.Record != nil && written.Record == nil
}

// leavesBarred reports whether the Upsert has not changed what bars the cached user: a
// suspension, which is the app's, or a ban that it omitted.
func (w *upserted) leavesBarred(cached *User) bool {
	return cached != nil && (!cached.IsActive || cached.Banned && w.offered.omits("banned"))
}

// isOvertaken reports whether another write has shown a later state. As in Decide, a SyncedAt
// in the future is ignored: then the Store may just have replaced that state.
func (w *upserted) isOvertaken(cached, written *User) bool {
	state := cmp.Or(written, w.offered)
	later := func(u *User) bool {
		if u == nil || version(u) == version(state) && u.SyncedAt.After(w.at) {
			return false
		}
		return laterState(u, state)
	}
	return later(cached) || later(w.later)
}

// shown is the state that the Upsert has shown; nil for none.
func (w *upserted) shown() *User {
	if w.learnedNothing() || w.res.Outcome == Deactivated {
		return nil
	}
	return cmp.Or(w.written(), w.offered)
}

// writesUnderWay knows, for each user with Upserts or loads under way, the latest state that
// one of them has shown. Writes may end in another order than they began, and the Store may not
// return what it wrote: then nothing else would tell that an earlier ban has ended.
type writesUnderWay struct {
	mu    sync.Mutex
	users map[string]*userWrites
}

type userWrites struct {
	n      int // how many are under way
	latest *User
}

func (w *writesUnderWay) begin(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.users == nil {
		w.users = make(map[string]*userWrites)
	}
	if w.users[id] == nil {
		w.users[id] = &userWrites{}
	}
	w.users[id].n++
}

// show notes what an Upsert has shown, and returns the latest state that was shown before.
func (w *writesUnderWay) show(id string, shown *User) (latest *User) {
	w.mu.Lock()
	defer w.mu.Unlock()
	u := w.users[id]
	if u == nil { // nothing is under way
		return nil
	}
	latest = u.latest
	if shown != nil && (latest == nil || laterState(shown, latest)) {
		u.latest = shown
	}
	return latest
}

// alone reports whether at most one is under way.
func (w *writesUnderWay) alone(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.users[id] == nil || w.users[id].n == 1
}

func (w *writesUnderWay) end(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.users[id].n--; w.users[id].n == 0 {
		delete(w.users, id)
	}
}

// learnedNothing reports whether the Upsert says nothing about the stored record: it
// failed, or it returned no record and changed none.
func (w *upserted) learnedNothing() bool {
	return w.err != nil || w.res.User == nil && (w.res.Outcome == Stale || w.res.Outcome == Unchanged)
}

// written is the record after the Upsert, as far as it is known: the one that the Store
// returned, or the ban that it has just written; else nil.
func (w *upserted) written() *User {
	if w.res.User == nil && w.offered.Banned && !w.offered.omits("banned") && w.res.Outcome.wrote() {
		return knownBan(w.offered)
	}
	return w.res.User
}

// knownBan is a record that has only the ban of u and its version: the one that an Upsert of
// u leaves.
func knownBan(u *User) *User {
	ban := &User{
		ClerkID: u.ClerkID, Banned: true, IsActive: true,
		ClerkUpdatedAt: u.ClerkUpdatedAt, SyncedAt: u.SyncedAt,
	}
	if len(u.Omit) > 0 && !u.ClerkUpdatedAt.IsZero() {
		ban.ClerkUpdatedAt = u.ClerkUpdatedAt.Add(-time.Millisecond)
	}
	return ban
}

// standbyAfterForget returns the record to keep after a Forget. The app has changed the
// record, so only a barred one stays.
func standbyAfterForget(cached *User) *User {
	if cached != nil && barred(cached) {
		return cached
	}
	return nil
}
