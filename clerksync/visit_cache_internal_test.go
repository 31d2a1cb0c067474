package clerksync

import (
	"runtime"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
	"github.com/clerksync/clerksync-go/clerksync/internal/sessiontoken"
)

// An invalidation waits for a put that has read the generation but not written yet, even
// if nothing was cached before.
func TestInvalidationInTheMiddleOfAPut(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c := newRecordCache(1000, time.Hour)
	before := c.generation("user_1").Load()
	invalidated := make(chan struct{})
	c.records.Compute("user_1", func(*cachedRecord, bool) (*cachedRecord, otter.ComputeOp) {
		go func() {
			c.invalidate("user_1", now, func(*User, uint64) *User { return nil })
			close(invalidated)
		}()
		for c.generation("user_1").Load() == before {
			runtime.Gosched()
		}
		for range 10_000 { // time enough to return too early
			runtime.Gosched()
		}
		return &cachedRecord{user: &User{ClerkID: "user_1", IsActive: true}, loadedAt: now}, otter.WriteOp
	})
	<-invalidated
	if _, ok := c.fresh("user_1", now); ok {
		t.Error("a record loaded before the invalidation is served after it")
	}
}

// A record that bars its user ends the loads that began before: they may have read the
// record before the deletion, the suspension or the ban.
func TestBarredRecordEndsOtherLoads(t *testing.T) {
	t.Parallel()
	now := time.Now()
	active := &User{ClerkID: "user_1", IsActive: true, ClerkUpdatedAt: now}
	for name, barred := range map[string]*User{
		"deleted":   {ClerkID: "user_1", DeletedAt: now},
		"suspended": {ClerkID: "user_1", ClerkUpdatedAt: now},
		"banned":    {ClerkID: "user_1", IsActive: true, Banned: true, ClerkUpdatedAt: now},
	} {
		for _, ttl := range []time.Duration{time.Hour, -1} {
			c := newRecordCache(1000, ttl)
			gen := c.generation("user_1").Load()
			if _, current := c.put(load{id: "user_1", gen: gen}, barred, now); !current {
				t.Fatalf("%s, TTL %v: its own load is not current", name, ttl)
			}
			if _, current := c.put(load{id: "user_1", gen: gen}, active, now); current {
				t.Errorf("%s, TTL %v: a load that began before replaces it", name, ttl)
			}
			if u, ok := c.standby("user_1", now); !ok || u != barred {
				t.Errorf("%s, TTL %v: the cache has %+v", name, ttl, u)
			}
			gen = c.generation("user_1").Load()
			if _, current := c.put(load{id: "user_1", gen: gen}, active, now); !current {
				t.Errorf("%s, TTL %v: a load that began after does not count", name, ttl)
			}
		}
	}
}

// A suspended user who keeps trying does not end the loads of other users.
func TestKnownBarredRecordEndsNoLoads(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, ttl := range []time.Duration{time.Hour, -1} {
		c := newRecordCache(1000, ttl)
		suspended := &User{ClerkID: "user_1", ClerkUpdatedAt: now}
		c.put(load{id: "user_1", gen: c.generation("user_1").Load()}, suspended, now)
		gen := c.generation("user_1").Load()
		for range 3 {
			c.put(load{id: "user_1", gen: gen}, &User{ClerkID: "user_1", ClerkUpdatedAt: now}, now)
		}
		if c.generation("user_1").Load() != gen {
			t.Errorf("TTL %v: loads ended although the suspension was known", ttl)
		}
		banned := &User{ClerkID: "user_1", Banned: true, ClerkUpdatedAt: now}
		if c.put(load{id: "user_1", gen: gen}, banned, now); c.generation("user_1").Load() == gen {
			t.Errorf("TTL %v: no loads ended although a ban is new", ttl)
		}
	}
}

// Which of two records the cache keeps, if a load ends while another is cached.
func TestPutKeepsTheLaterState(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(version int, change func(*User)) *User {
		u := &User{ClerkID: "user_1", IsActive: true, ClerkUpdatedAt: start.Add(time.Duration(version) * time.Second)}
		if change != nil {
			change(u)
		}
		return u
	}
	banned := func(u *User) { u.Banned = true }
	suspended := func(u *User) { u.IsActive = false }
	deleted := func(u *User) { u.IsActive, u.DeletedAt = false, start }
	confirmed := func(u *User) { u.SyncedAt = start }
	for name, tt := range map[string]struct {
		cached, loaded *User
		keep           bool // the cached one
	}{
		"an older version":                       {at(2, nil), at(1, nil), true},
		"a newer version":                        {at(1, nil), at(2, nil), false},
		"the same version, confirmed later":      {at(1, nil), at(1, confirmed), false},
		"the same version, confirmed earlier":    {at(1, confirmed), at(1, nil), true},
		"a late ban over its end":                {at(2, nil), at(1, banned), true},
		"a new ban":                              {at(1, nil), at(2, banned), false},
		"a late active record over a ban":        {at(2, banned), at(1, nil), true},
		"the end of a ban":                       {at(1, banned), at(2, nil), false},
		"a suspension, which has no version":     {at(2, nil), at(1, suspended), false},
		"the end of a suspension":                {at(2, suspended), at(1, nil), false},
		"a deletion, which has no version":       {at(2, nil), at(1, deleted), false},
		"a restored record, which has a version": {at(2, deleted), at(1, nil), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newRecordCache(1000, time.Hour)
			c.put(load{id: "user_1", gen: c.generation("user_1").Load()}, tt.cached, start)
			served, current := c.put(load{id: "user_1", gen: c.generation("user_1").Load()}, tt.loaded, start)
			want := tt.loaded
			if tt.keep {
				want = tt.cached
			}
			if cached, _ := c.fresh("user_1", start); served != want || cached != want || !current {
				t.Errorf("served %+v, cached %+v, current %v; want %+v", served, cached, current, want)
			}
		})
	}
}

// A visit with a newer token does not join a lookup that began before an invalidation.
func TestLookupKeyChangesAtAnInvalidation(t *testing.T) {
	t.Parallel()
	s := &Syncer{cache: newRecordCache(1000, time.Hour), clock: clock.System(time.Now)}
	token := sessiontoken.Version{At: time.Now()}
	key := func(newer bool) string {
		return load{id: "user_1", gen: s.cache.generation("user_1").Load(), token: visitToken{version: token}, newer: newer}.key()
	}
	before := key(true)
	if key(true) != before || key(false) == before {
		t.Error("the key does not depend on the user, the token version, and whether it is newer")
	}
	s.invalidate("user_1", func(*User, uint64) *User { return nil })
	if key(true) == before {
		t.Error("a lookup that began before the invalidation is joined")
	}
}

// After a visit got a record that could not be cached, nothing earlier is served, neither from the
// cache nor by a load that began before.
func TestNothingEarlierIsServedAfterwards(t *testing.T) {
	t.Parallel()
	now := time.Now()
	at := func(version int, change ...func(*User)) *User {
		u := standbyUser(version)
		for _, c := range change {
			c(u)
		}
		return u
	}
	for name, tt := range map[string]struct {
		cached, served *User
		fresh, standby bool // whether the cached record stays
		ends           bool // whether the loads that began before are over
	}{
		"nothing is cached":          {nil, at(2), false, false, true},
		"an earlier version":         {at(1), at(2), false, false, true},
		"the same record":            {at(2), at(2), true, true, false},
		"a later version":            {at(3), at(2), true, true, false},
		"confirmed earlier":          {at(2), at(2, confirmed), false, false, true},
		"an earlier ban":             {at(1, banned), at(2), false, false, true},
		"a ban that came later":      {at(2, banned), at(1), false, true, true},
		"a suspension":               {at(1, suspended), at(2), false, true, true},
		"a deletion":                 {at(1, deleted), at(2), false, true, true},
		"the visit found a deletion": {at(1), at(1, deleted), false, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newRecordCache(1000, time.Hour)
			if tt.cached != nil {
				c.put(load{id: "user_1", gen: c.generation("user_1").Load()}, tt.cached, now)
			}
			gen := c.generation("user_1").Load()
			c.overtake("user_1", tt.served)
			_, fresh := c.fresh("user_1", now)
			_, standby := c.standby("user_1", now)
			if ends := c.generation("user_1").Load() != gen; fresh != tt.fresh || standby != tt.standby || ends != tt.ends {
				t.Errorf("fresh %t, on standby %t, other loads end %t; want %+v", fresh, standby, ends, tt)
			}
		})
	}
}
