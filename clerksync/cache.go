package clerksync

import (
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// recordCache holds records for a while. It does not go back in version, and what
// was loaded before an invalidation is not stored after it.
//
// The latter rests on generations: whoever loads a record takes the id's
// generation first and hands it back with the record; an invalidation in between
// has moved it. The generations are striped, so that their memory is bounded: two
// ids may share one, which costs a needless reload at worst.
type recordCache struct {
	records     *otter.Cache[string, *cachedRecord]
	generations [4096]atomic.Uint64
	seed        maphash.Seed
	ttl         time.Duration // negative: only refusals are kept, and only for outages
}

// cachedRecord is immutable.
type cachedRecord struct {
	user     *User
	loadedAt time.Time
	expired  bool // only for outages
}

// staleFor is how long past its TTL a record is kept for outages of the Store.
const staleFor = time.Hour

func newRecordCache(size int, ttl time.Duration) *recordCache {
	return &recordCache{
		records: otter.Must(&otter.Options[string, *cachedRecord]{MaximumSize: size}),
		seed:    maphash.MakeSeed(),
		ttl:     ttl,
	}
}

// fresh returns the user's record if it was loaded less than TTL ago.
func (c *recordCache) fresh(id string, now time.Time) (*User, bool) {
	r, ok := c.records.GetIfPresent(id)
	if !ok || r.expired || c.ttl < 0 || now.Sub(r.loadedAt) >= c.ttl {
		return nil, false
	}
	return r.user, true
}

// stale returns the user's record if there is any that may stand in during an outage.
func (c *recordCache) stale(id string, now time.Time) (*User, bool) {
	r, ok := c.records.GetIfPresent(id)
	if !ok || c.outlived(r, now) {
		return nil, false
	}
	return r.user, true
}

// outlived reports whether a record is too old even for an outage.
func (c *recordCache) outlived(r *cachedRecord, now time.Time) bool {
	return now.Sub(r.loadedAt) >= max(c.ttl, 0)+staleFor
}

func (c *recordCache) generation(id string) *atomic.Uint64 {
	return &c.generations[maphash.String(c.seed, id)%uint64(len(c.generations))]
}

// put offers a record that was loaded in generation gen. It returns the record to
// serve, which is a newer one where the cache has it, and false where the record
// was invalidated meanwhile and must not be served.
func (c *recordCache) put(id string, gen uint64, u *User, now time.Time) (*User, bool) {
	current := true
	keep := c.ttl >= 0 || refused(u)
	winner := u
	c.records.Compute(id, func(old *cachedRecord, found bool) (*cachedRecord, otter.ComputeOp) {
		if c.generation(id).Load() != gen {
			current = false
			return old, otter.CancelOp
		}
		if found && newerThan(old.user, u) && !c.outlived(old, now) {
			winner = old.user
			return old, otter.CancelOp
		}
		if !found {
			old = &cachedRecord{user: &User{IsActive: true}}
		}
		if !sameStanding(old.user, u) || refused(u) && laterState(u, old.user) {
			// What began to be loaded before does not take its place: it may have been
			// read before the deletion or the ban, or before the ban's end.
			c.generation(id).Add(1)
		}
		if !keep {
			return nil, otter.InvalidateOp
		}
		return &cachedRecord{user: u, loadedAt: now}, otter.WriteOp
	})
	return winner, current
}

// sameStanding reports whether both records let their user in, or refuse for the same.
func sameStanding(a, b *User) bool {
	return a.IsActive == b.IsActive && a.Banned == b.Banned && a.DeletedAt.IsZero() == b.DeletedAt.IsZero()
}

// newerThan reports whether a, which the cache holds, is a later state of the
// record than b, which was just loaded. Where one of them refuses, what was loaded
// last counts: whether a deletion or a suspension began or ended, the version does not
// say, and only the Store knows.
func newerThan(a, b *User) bool {
	return !refused(a) && !refused(b) && laterState(a, b)
}

// laterState goes by Clerk's version, and where that is the same, by when Clerk
// confirmed it.
func laterState(a, b *User) bool {
	if va, vb := version(a), version(b); va != vb {
		return va > vb
	}
	return a.SyncedAt.After(b.SyncedAt)
}

// invalidate drops the record, and every load of it that is under way. What
// standby makes of the record that was cached (nil if none was) may stand in
// during an outage; nil for nothing.
func (c *recordCache) invalidate(id string, now time.Time, standby func(old *User) *User) {
	c.generation(id).Add(1)
	// Compute waits for a put that looked at the generation before it moved;
	// otter's ComputeIfPresent and Invalidate need not, where nothing is cached yet.
	c.records.Compute(id, func(old *cachedRecord, found bool) (*cachedRecord, otter.ComputeOp) {
		if !found || c.outlived(old, now) {
			old = &cachedRecord{loadedAt: now}
		}
		u := standby(old.user)
		if u == nil {
			return nil, otter.InvalidateOp
		}
		r := &cachedRecord{user: u, loadedAt: now, expired: true}
		if u == old.user {
			r.loadedAt = old.loadedAt
		}
		return r, otter.WriteOp
	})
}

// clerkMemory remembers, for a while, when Clerk was last asked about a user and
// whether Clerk did not know it.
type clerkMemory struct {
	asked *otter.Cache[string, askedClerk]
}

type askedClerk struct {
	at      time.Time
	unknown bool
	settled bool      // what came of asking for a ban's end is in the cache
	claim   time.Time // the latest token claim that caused a re-read
	got     int64     // the version that came of it
	again   time.Time // when the same claim may cause another; zero: never
}

const (
	// askAgainAfter is the least time between two re-reads of one user that
	// visits cause.
	askAgainAfter = time.Minute
	// unknownFor is how long a user that Clerk does not know is refused without
	// asking again.
	unknownFor = 10 * time.Second
)

func newClerkMemory(size int) clerkMemory {
	return clerkMemory{otter.Must(&otter.Options[string, askedClerk]{MaximumSize: size})}
}

// reserve reports whether a visit may cause a re-read now; then the caller has it
// and no other does for askAgainAfter.
func (m clerkMemory) reserve(id string, now time.Time) bool {
	if a, ok := m.asked.GetIfPresent(id); ok && now.Sub(a.at) < askAgainAfter {
		return false
	}
	reserved := false
	m.asked.Compute(id, func(old askedClerk, found bool) (askedClerk, otter.ComputeOp) {
		reserved = !found || now.Sub(old.at) >= askAgainAfter
		if !reserved {
			return old, otter.CancelOp
		}
		old.at, old.unknown, old.settled = now, false, false
		return old, otter.WriteOp
	})
	return reserved
}

// settle records that what came of a reservation, or of another's, is in the cache.
func (m clerkMemory) settle(id string) {
	m.asked.Compute(id, func(old askedClerk, found bool) (askedClerk, otter.ComputeOp) {
		if !found || old.settled {
			return old, otter.CancelOp
		}
		old.settled = true
		return old, otter.WriteOp
	})
}

// settled reports whether the cache has what came of the last reservation, and the
// next is not possible yet.
func (m clerkMemory) settled(id string, now time.Time) bool {
	a, ok := m.asked.GetIfPresent(id)
	return ok && a.settled && now.Sub(a.at) < askAgainAfter
}

// note records what came of asking.
func (m clerkMemory) note(id string, now time.Time, unknown bool) {
	m.asked.Compute(id, func(old askedClerk, _ bool) (askedClerk, otter.ComputeOp) {
		old.at, old.unknown = now, unknown
		return old, otter.WriteOp
	})
}

// answer records that Clerk was asked for a record as new as claim, and that u came of
// it: once, whatever the answer is, and no sooner than a minute later where there was
// none.
func (m clerkMemory) answer(u *User, claim freshness, now time.Time, answered bool) {
	if claim.at.IsZero() {
		return
	}
	m.asked.Compute(u.ClerkID, func(old askedClerk, _ bool) (askedClerk, otter.ComputeOp) {
		if !claim.at.Before(old.claim) {
			old.claim, old.got, old.again = claim.at, version(u), time.Time{}
			if !answered {
				old.again = now.Add(askAgainAfter)
			}
		}
		return old, otter.WriteOp
	})
}

// answered reports whether Clerk was asked for a record as new as claim, and nothing
// newer than u came of it.
func (m clerkMemory) answered(u *User, claim freshness, now time.Time) bool {
	a, ok := m.asked.GetIfPresent(u.ClerkID)
	return ok && version(u) >= a.got && !claim.at.After(a.claim) && (a.again.IsZero() || now.Before(a.again))
}

// unknown reports whether Clerk lately did not know the user.
func (m clerkMemory) unknown(id string, now time.Time) bool {
	a, ok := m.asked.GetIfPresent(id)
	return ok && a.unknown && now.Sub(a.at) < unknownFor
}

// known takes back that Clerk did not know the user: an event says otherwise.
func (m clerkMemory) known(id string) {
	m.asked.Compute(id, func(a askedClerk, found bool) (askedClerk, otter.ComputeOp) {
		if !found {
			return a, otter.CancelOp
		}
		a.unknown = false
		return a, otter.WriteOp
	})
}
