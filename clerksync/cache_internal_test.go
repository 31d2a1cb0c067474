package clerksync

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"
)

// An invalidation waits for a put that has looked at the generation and not yet
// written, also where nothing was cached before.
func TestInvalidationInTheMiddleOfAPut(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c := newRecordCache(1000, time.Hour)
	before := c.generation("user_1").Load()
	invalidated := make(chan struct{})
	c.records.Compute("user_1", func(*cachedRecord, bool) (*cachedRecord, otter.ComputeOp) {
		go func() {
			c.invalidate("user_1", now, func(*User) *User { return nil })
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
		t.Error("what was loaded before the invalidation is served after it")
	}
}

// What refuses was read last, whatever lands later of what was under way: it may have been
// read before the deletion or the ban.
func TestRefusalEndsTheLoadsUnderWay(t *testing.T) {
	t.Parallel()
	now := time.Now()
	active := &User{ClerkID: "user_1", IsActive: true, ClerkUpdatedAt: now}
	for name, refusing := range map[string]*User{
		"deleted":   {ClerkID: "user_1", DeletedAt: now},
		"suspended": {ClerkID: "user_1", ClerkUpdatedAt: now},
		"banned":    {ClerkID: "user_1", IsActive: true, Banned: true, ClerkUpdatedAt: now},
	} {
		for _, ttl := range []time.Duration{time.Hour, -1} {
			c := newRecordCache(1000, ttl)
			gen := c.generation("user_1").Load()
			if _, current := c.put("user_1", gen, refusing, now); !current {
				t.Fatalf("%s, %v: its own load is not current", name, ttl)
			}
			if _, current := c.put("user_1", gen, active, now); current {
				t.Errorf("%s, %v: a load that began before takes its place", name, ttl)
			}
			if u, ok := c.stale("user_1", now); !ok || u != refusing {
				t.Errorf("%s, %v: the cache has %+v", name, ttl, u)
			}
			gen = c.generation("user_1").Load()
			if _, current := c.put("user_1", gen, active, now); !current {
				t.Errorf("%s, %v: a load that began after does not count", name, ttl)
			}
		}
	}
}

// A refusal that is known already, of a user who keeps knocking, ends no loads of
// others.
func TestKnownRefusalEndsNoLoads(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, ttl := range []time.Duration{time.Hour, -1} {
		c := newRecordCache(1000, ttl)
		suspended := &User{ClerkID: "user_1", ClerkUpdatedAt: now}
		c.put("user_1", c.generation("user_1").Load(), suspended, now)
		gen := c.generation("user_1").Load()
		for range 3 {
			c.put("user_1", gen, &User{ClerkID: "user_1", ClerkUpdatedAt: now}, now)
		}
		if c.generation("user_1").Load() != gen {
			t.Errorf("%v: loads ended over a refusal that was known", ttl)
		}
		banned := &User{ClerkID: "user_1", Banned: true, ClerkUpdatedAt: now}
		if c.put("user_1", gen, banned, now); c.generation("user_1").Load() == gen {
			t.Errorf("%v: no loads ended over another refusal", ttl)
		}
	}
}

// What Clerk was asked for is known only of a record that is no older than what came of it.
func TestAnswerIsOfAVersion(t *testing.T) {
	t.Parallel()
	now := time.Now()
	user := func(version time.Time) *User { return &User{ClerkID: "user_1", ClerkUpdatedAt: version} }
	old, got, newer := user(now), user(now.Add(time.Second)), user(now.Add(2*time.Second))
	claim := freshness{at: now.Add(2 * time.Second)}
	m := newClerkMemory(10)
	m.answer(got, claim, now, true)
	for name, tt := range map[string]struct {
		u    *User
		want bool
	}{"older": {old, false}, "the same": {got, true}, "newer": {newer, true}} {
		if m.answered(tt.u, claim, now) != tt.want {
			t.Errorf("%s: answered is %v", name, !tt.want)
		}
	}
}

// One who knows how fresh the record must be does not join a lookup that began before
// an invalidation.
func TestFlightsEndAtAnInvalidation(t *testing.T) {
	t.Parallel()
	s := &Syncer{cache: newRecordCache(1000, time.Hour), clock: systemClock{time.Now}}
	claim := freshness{at: time.Now()}
	before := s.flightKey("user_1", claim, true)
	if s.flightKey("user_1", claim, true) != before || s.flightKey("user_1", claim, false) == before {
		t.Error("the key is not that of the user, the claim and the knowledge")
	}
	s.invalidate("user_1", func(*User) *User { return nil })
	if s.flightKey("user_1", claim, true) == before {
		t.Error("a lookup of before is joined")
	}
}

// What stands in for the Store after an Upsert is the latest that the process knows.
func TestStandbyAfterAnUpsert(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(version int, change func(*User)) *User {
		u := &User{ClerkID: "user_1", IsActive: true, ClerkUpdatedAt: start.Add(time.Duration(version) * time.Minute), SyncedAt: start}
		if change != nil {
			change(u)
		}
		return u
	}
	banned := func(u *User) { u.Banned = true }
	suspended := func(u *User) { u.IsActive = false }
	type upsert struct {
		offered *User
		Result
		err error
	}
	written := func(u *User) upsert { return upsert{u, Result{Updated, u}, nil} }
	blind := func(u *User, o Outcome) upsert { return upsert{u, Result{Outcome: o}, nil} }
	const passes, refuses, unknown = "passes", "is refused", "is unknown"
	for name, tt := range map[string]struct {
		cached  *User
		upserts []upsert
		after   time.Duration // from the first to the Upserts
		ttl     time.Duration // zero: half a minute
		want    string
	}{
		"newer":                                   {at(1, nil), []upsert{written(at(2, nil))}, 0, 0, passes},
		"a ban":                                   {at(1, nil), []upsert{written(at(2, banned))}, 0, 0, refuses},
		"a ban that was not read back":            {at(1, nil), []upsert{blind(at(2, banned), Updated)}, 0, 0, refuses},
		"a ban of somebody not cached":            {nil, []upsert{blind(at(2, banned), Created)}, 0, 0, refuses},
		"somebody not cached":                     {nil, []upsert{written(at(2, nil))}, 0, 0, unknown},
		"not read back":                           {at(1, nil), []upsert{blind(at(2, nil), Updated)}, 0, 0, unknown},
		"the end of a ban":                        {at(1, banned), []upsert{written(at(2, nil))}, 0, 0, passes},
		"an old event after a ban":                {at(3, banned), []upsert{blind(at(1, nil), Stale)}, 0, 0, refuses},
		"the same event after a ban":              {at(3, banned), []upsert{blind(at(3, banned), Unchanged)}, 0, 0, refuses},
		"an old ban after its end":                {at(3, nil), []upsert{blind(at(1, banned), Stale)}, 0, 0, passes},
		"a ban that is told first":                {at(1, nil), []upsert{written(at(3, banned)), written(at(2, nil))}, 0, 0, refuses},
		"a ban that is told first, not read back": {at(1, nil), []upsert{blind(at(3, banned), Updated), blind(at(2, nil), Updated)}, 0, 0, refuses},
		"an error":                                {at(1, nil), []upsert{{offered: at(2, banned), err: errors.New("down")}}, 0, 0, passes},
		"a suspension":                            {at(1, suspended), []upsert{blind(at(2, nil), Updated)}, 0, 0, refuses},
		"a suspension of a month ago":             {at(1, suspended), []upsert{blind(at(2, nil), Updated)}, 30 * 24 * time.Hour, 0, unknown},
		"a suspension that events would keep":     {at(1, suspended), []upsert{blind(at(2, nil), Updated)}, 50 * time.Minute, 0, unknown}, // a quarter of an hour later
		"a deletion":                              {at(1, nil), []upsert{blind(at(2, nil), Deactivated), written(at(3, nil))}, 0, 0, refuses},
		"without a cache, an active record":       {nil, []upsert{written(at(2, nil))}, 0, -1, unknown},
		"without a cache, a ban":                  {nil, []upsert{written(at(2, banned))}, 0, -1, refuses},
		"without a cache, the end of a known ban": {at(1, banned), []upsert{written(at(2, nil))}, 0, -1, unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := start
			s, err := New(Config{Store: downStore{}, SecretKey: "sk_test_x", CacheTTL: tt.ttl, Now: func() time.Time { return now }})
			if err != nil {
				t.Fatal(err)
			}
			if tt.cached != nil {
				s.cache.put("user_1", s.cache.generation("user_1").Load(), tt.cached, now)
			}
			now = now.Add(tt.after)
			for _, u := range tt.upserts {
				s.upserted(u.offered, u.Result, u.err)
			}
			now = now.Add(15 * time.Minute)
			got := passes
			switch _, err := s.User(t.Context(), "user_1"); {
			case errors.Is(err, ErrUserInactive):
				got = refuses
			case errors.Is(err, ErrUnavailable):
				got = unknown
			case err != nil:
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("with the Store down, the user %s; want: %s", got, tt.want)
			}
		})
	}
}

// downStore cannot be read.
type downStore struct{ Store }

func (downStore) User(context.Context, string) (*User, error) { return nil, errors.New("down") }

// A Reconcile in the app's process leaves the cache to those who visit.
func TestUpsertsTakeNoPlaceInTheCache(t *testing.T) {
	t.Parallel()
	s, err := New(Config{Store: downStore{}, SecretKey: "sk_test_x", CacheSize: 100})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10_000 {
		u := &User{ClerkID: "user_" + strconv.Itoa(i), IsActive: true}
		s.upserted(u, Result{Created, u}, nil)
	}
	s.cache.records.CleanUp()
	if n := s.cache.records.EstimatedSize(); n != 0 {
		t.Errorf("%d records that nobody asked for", n)
	}
}
