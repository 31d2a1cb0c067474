package clerksync

import (
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// recordCache holds records for CacheTTL, and longer as standby for outages of the Store.
// A record in it does not go back to an earlier version, and a record that was loaded
// before an invalidation is not cached afterwards.
//
// Generations ensure this. A load takes the id's generation before it reads, and
// hands it back with the record; an invalidation in between has increased it. The
// generations are striped to bound their memory. Two ids may share one, which costs at
// worst a needless reload.
type recordCache struct {
	records     *otter.Cache[string, *cachedRecord]
	generations [4096]atomic.Uint64
	seed        maphash.Seed
	ttl         time.Duration // negative: only barred users are kept, on standby
}

// cachedRecord is immutable.
type cachedRecord struct {
	user        *User
	loadedAt    time.Time
	standbyOnly bool // not served while the Store answers
}

// standbyFor is how long after its TTL a record may still stand in for the Store.
const standbyFor = time.Hour

func newRecordCache(size int, ttl time.Duration) *recordCache {
	return &recordCache{
		records: otter.Must(&otter.Options[string, *cachedRecord]{MaximumSize: size}),
		seed:    maphash.MakeSeed(),
		ttl:     ttl,
	}
}

// fresh returns the user's record if it was loaded less than the TTL ago.
func (c *recordCache) fresh(id string, now time.Time) (*User, bool) {
	r, ok := c.records.GetIfPresent(id)
	if !ok || r.standbyOnly || c.ttl < 0 || now.Sub(r.loadedAt) >= c.ttl {
		return nil, false
	}
	return r.user, true
}

// standby returns the record that may stand in for the Store, fresh or not.
func (c *recordCache) standby(id string, now time.Time) (*User, bool) {
	r, ok := c.records.GetIfPresent(id)
	if !ok || c.tooOld(r, now) {
		return nil, false
	}
	return r.user, true
}

// tooOld reports whether a record may not even stand in for the Store.
func (c *recordCache) tooOld(r *cachedRecord, now time.Time) bool {
	return now.Sub(r.loadedAt) >= max(c.ttl, 0)+standbyFor
}

func (c *recordCache) generation(id string) *atomic.Uint64 {
	return &c.generations[maphash.String(c.seed, id)%uint64(len(c.generations))]
}

// put offers the record that a load has read, as of now. It returns the record to serve,
// which is a later one if the cache has that. current is false if the record was
// invalidated meanwhile: then it is not cached, and may be served only to visits that came
// before the load began.
func (c *recordCache) put(l load, u *User, now time.Time) (serve *User, current bool) {
	serve, current = u, true
	c.records.Compute(l.id, func(old *cachedRecord, found bool) (*cachedRecord, otter.ComputeOp) {
		superseded := found && supersedes(old.user, u) && !c.tooOld(old, now)
		if superseded {
			serve = old.user
		}
		if current = c.generation(l.id).Load() == l.gen; !current || superseded {
			return old, otter.CancelOp
		}
		if !found {
			old = &cachedRecord{user: &User{IsActive: true}} // as if an active user was cached
		}
		// A plain lookup that began earlier may have read an earlier version. Nothing else
		// would tell, if this record is not cached or evicted at once.
		if l.newer || endsOtherLoads(old.user, u) {
			c.generation(l.id).Add(1)
		}
		if c.ttl < 0 && !barred(u) {
			return nil, otter.InvalidateOp
		}
		return &cachedRecord{user: u, loadedAt: now}, otter.WriteOp
	})
	return serve, current
}

// overtake notes that a visit got a record that was not current, so that it was not cached:
// from now on nothing earlier is served.
func (c *recordCache) overtake(id string, u *User) {
	c.records.Compute(id, func(old *cachedRecord, found bool) (*cachedRecord, otter.ComputeOp) {
		if found && !old.standbyOnly && sameStanding(old.user, u) && !laterState(u, old.user) {
			return old, otter.CancelOp // it is no earlier
		}
		c.generation(id).Add(1)
		switch {
		case !found:
			return old, otter.CancelOp
		case !deletedOrSuspended(old.user) && laterState(u, old.user):
			return nil, otter.InvalidateOp
		}
		r := *old
		r.standbyOnly = true
		return &r, otter.WriteOp
	})
}

// knowsWorse reports whether the process knows the user to be deleted or suspended, and the
// loaded record is not.
func (c *recordCache) knowsWorse(id string, loaded *User, now time.Time) bool {
	known, ok := c.standby(id, now)
	return ok && deletedOrSuspended(known) && !deletedOrSuspended(loaded)
}

// supersedes reports whether the cached record is a later state than the loaded one.
// Versions do not order deletions and suspensions: if either record is deleted or
// suspended, the one loaded last wins. Bans are ordered by version.
func supersedes(cached, loaded *User) bool {
	return !deletedOrSuspended(cached) && !deletedOrSuspended(loaded) && laterState(cached, loaded)
}

func deletedOrSuspended(u *User) bool { return !u.IsActive || !u.DeletedAt.IsZero() }

// endsOtherLoads reports whether loads that began earlier must not be served: they may
// have missed that the user was barred, or no longer is. A later state of a barred record
// ends them too: in between, the user may have been let in and barred again.
func endsOtherLoads(cached, loaded *User) bool {
	return !sameStanding(cached, loaded) || barred(loaded) && laterState(loaded, cached)
}

// sameStanding reports whether both records are barred for the same reasons, or neither is.
func sameStanding(a, b *User) bool {
	return a.IsActive == b.IsActive && a.Banned == b.Banned && a.DeletedAt.IsZero() == b.DeletedAt.IsZero()
}

// laterState reports whether a is a later state than b: by version, then by SyncedAt.
func laterState(a, b *User) bool {
	if va, vb := version(a), version(b); va != vb {
		return va > vb
	}
	return a.SyncedAt.After(b.SyncedAt)
}

// invalidate drops the record, and makes every load under way return current = false. keep
// gets the cached record (nil for none) and the new generation, and returns the record to
// keep on standby: if it returns the cached record, the record's age runs on; any other
// starts anew. The generation is one more than before, unless something else was
// invalidated meanwhile.
func (c *recordCache) invalidate(id string, now time.Time, keep func(cached *User, generation uint64) *User) {
	c.generation(id).Add(1)
	// Compute waits for a put that read the generation before it grew. otter's
	// ComputeIfPresent and Invalidate do not, if nothing is cached yet.
	c.records.Compute(id, func(old *cachedRecord, found bool) (*cachedRecord, otter.ComputeOp) {
		if !found || c.tooOld(old, now) {
			old = &cachedRecord{loadedAt: now}
		}
		u := keep(old.user, c.generation(id).Load())
		if u == nil {
			return nil, otter.InvalidateOp
		}
		r := &cachedRecord{user: u, loadedAt: now, standbyOnly: true}
		if u == old.user {
			r.loadedAt = old.loadedAt
		}
		return r, otter.WriteOp
	})
}
