package storetest

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/clerksync/clerksync-go/clerksync"
)

// tally counts outcomes.
type tally struct {
	mu sync.Mutex
	of map[clerksync.Outcome]int
}

func (t *tally) add(o clerksync.Outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = make(map[clerksync.Outcome]int)
	}
	t.of[o]++
}

// send is an Upsert on a goroutine of together.
func (c *check) send(s clerksync.Store, u *clerksync.User, t *tally) {
	res, err := s.Upsert(c.Context(), u)
	if err != nil {
		c.errorf("Upsert beside others: %v", err)
		return
	}
	t.add(res.Outcome)
	if res.User != nil && res.User.ClerkID != u.ClerkID {
		c.errorf("Upsert of %q returns the record of %q", u.ClerkID, res.User.ClerkID)
	}
}

// ends compares the record with the user that must have won, at its version
// whole, and with the latest times of all.
func (c *check) ends(s clerksync.Store, want *clerksync.User) {
	c.Helper()
	got := c.record(s, want.ClerkID)
	want = want.Clone()
	want.ID, want.CreatedAt, want.UpdatedAt, want.IsActive = got.ID, got.CreatedAt, got.UpdatedAt, true
	c.same("the record after all", got, want)
}

func (c *check) oneCreated(t *tally) {
	c.Helper()
	if t.of[clerksync.Created] != 1 {
		c.errorf("of %d Upserts %d were Created, want exactly one: %v", workers(), t.of[clerksync.Created], t.of)
	}
}

// deletedAmongUpdates deletes a user while others update it: afterwards it is deleted, and
// no Upsert that began later said otherwise.
func (c *check) deletedAmongUpdates(s clerksync.Store, id string) {
	c.Helper()
	known := c.find(s, id) != nil
	var t tally
	var deleted atomic.Bool
	c.together(workers(), func(i int) {
		if i%8 != 0 {
			late := deleted.Load()
			res, err := s.Upsert(c.Context(), person(id, 1+i))
			if err != nil {
				c.errorf("Upsert beside a deletion: %v", err)
			} else if late && res.Outcome != clerksync.Deactivated {
				c.errorf("an Upsert after the deletion ended %v", res.Outcome)
			}
			t.add(res.Outcome)
			return
		}
		res, err := s.Deactivate(c.Context(), id, hour(100+i))
		if err != nil || res.Outcome != clerksync.Deactivated {
			c.errorf("Deactivate beside updates: %v, %v", res.Outcome, err)
		}
		deleted.Store(true)
	})
	got := c.record(s, id)
	if got.DeletedAt.IsZero() || got.IsActive {
		c.errorf("the record has DeletedAt %v and IsActive %t", got.DeletedAt, got.IsActive)
	}
	if t.of[clerksync.Created] > 1 || known && t.of[clerksync.Created] > 0 {
		c.errorf("a record was created where there was one: %v", t.of)
	}
	c.offer(s, person(id, 200), clerksync.Deactivated)
}

// Many at once.
var concurrentCases = []testCase{
	{"ConcurrentFirstVisits", "of many who bring the same new user one creates the record, and no one fails", 0, func(c *check) {
		s := c.newStore()
		for round := range rounds() {
			u := person(fmt.Sprint("user_", round), 1)
			var t tally
			c.together(workers(), func(int) { c.send(s, u, &t) })
			c.oneCreated(&t)
			if t.of[clerksync.Unchanged] != workers()-1 {
				c.errorf("the others were not Unchanged: %v", t.of)
			}
			c.ends(s, u)
		}
	}},
	{"ConcurrentVersionsOfANewUser", "of many versions of a new user, whoever comes first, the newest wins and one is Created", 0, func(c *check) {
		s := c.newStore()
		for round := range rounds() {
			id := fmt.Sprint("user_", round)
			order := random(uint64(round)).Perm(workers())
			var t tally
			c.together(workers(), func(i int) { c.send(s, person(id, order[i]), &t) })
			c.oneCreated(&t)
			if t.of[clerksync.Unchanged] != 0 || t.of[clerksync.Deactivated] != 0 {
				c.errorf("versions that all differ ended %v", t.of)
			}
			c.ends(s, person(id, workers()-1))
		}
	}},
	{"ConcurrentVersionsOfAKnownUser", "a record never goes back in version while many write, and is whole whenever it is read", 0, func(c *check) {
		s := c.newStore()
		for round := range rounds() {
			id := fmt.Sprint("user_", round)
			c.offer(s, person(id, 0), clerksync.Created)
			order := random(uint64(round)).Perm(workers())
			var t tally
			c.together(workers(), func(i int) {
				if i%4 != 0 {
					c.send(s, person(id, order[i]), &t)
					return
				}
				last := -1
				for range 8 {
					got, err := s.User(c.Context(), id)
					if err != nil {
						c.errorf("User while others write: %v", err)
						return
					}
					n := int(got.ClerkUpdatedAt.Sub(epoch).Hours())
					if n < last {
						c.errorf("the record went back from version %d to %d", last, n)
					}
					last = n
					want := person(id, n)
					want.ID, want.CreatedAt, want.UpdatedAt, want.IsActive = got.ID, got.CreatedAt, got.UpdatedAt, true
					c.same("a record read while others write", got, want)
				}
			})
			newest := 0
			for i, n := range order {
				if i%4 != 0 {
					newest = max(newest, n)
				}
			}
			c.ends(s, person(id, newest))
		}
	}},
	{"ConcurrentDeletion", "a deletion among many updates is final", 0, func(c *check) {
		s := c.newStore()
		for round := range rounds() {
			c.deletedAmongUpdates(s, fmt.Sprint("user_new_", round))
			known := fmt.Sprint("user_known_", round)
			c.offer(s, person(known, 0), clerksync.Created)
			c.deletedAmongUpdates(s, known)
		}
	}},
	{"ConcurrentDeletions", "of many deletions one sets the time, and it stays", 0, func(c *check) {
		s := c.newStore()
		for round := range rounds() {
			id := fmt.Sprint("user_", round)
			var mu sync.Mutex
			first := make(map[string]bool)
			c.together(workers(), func(i int) {
				_, err := s.Deactivate(c.Context(), id, hour(i))
				if err != nil {
					c.errorf("Deactivate beside others: %v", err)
					return
				}
				got, err := s.User(c.Context(), id)
				if err != nil {
					c.errorf("User after Deactivate: %v", err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				first[got.DeletedAt.String()] = true
			})
			if len(first) != 1 {
				c.errorf("DeletedAt was seen as %d different times", len(first))
			}
		}
	}},
	{"ConcurrentManyUsers", "many users are created at once, each once, and none gets another's data", 0, func(c *check) {
		s := c.newStore()
		tallies := make([]tally, 6)
		c.together(workers(), func(i int) {
			for j := range tallies {
				j = (i + j) % len(tallies)
				c.send(s, person(fmt.Sprint("user_", j), 1), &tallies[j])
			}
		})
		ids := make(map[string]bool)
		for j := range tallies {
			c.oneCreated(&tallies[j])
			id := fmt.Sprint("user_", j)
			c.ends(s, person(id, 1))
			ids[c.record(s, id).ID] = true
		}
		if len(ids) != len(tallies) {
			c.errorf("%d users have %d IDs", len(tallies), len(ids))
		}
	}},
	{"ConcurrentEqualVersions", "of many contents of one version one wins, whole", 0, func(c *check) {
		s := c.newStore()
		for round := range rounds() {
			id := fmt.Sprint("user_", round)
			content := func(n int) *clerksync.User {
				u := person(id, n)
				u.ClerkUpdatedAt, u.SyncedAt, u.LastSignInAt = hour(1), hour(2), hour(1)
				return u
			}
			var t tally
			c.together(workers(), func(i int) { c.send(s, content(i), &t) })
			c.oneCreated(&t)
			if t.of[clerksync.Stale] != 0 {
				c.errorf("equal versions ended %v", t.of)
			}
			seats, _ := c.record(s, id).Extra["seats"].(int64)
			c.ends(s, content(int(seats)))
		}
	}},
	{"ConcurrentEvidence", "of many contents of one version the one with the latest syncedAt wins: late evidence undoes nothing, even in a race", 0, func(c *check) {
		s := c.newStore()
		for round := range rounds() {
			id := fmt.Sprint("user_", round)
			content := func(n int) *clerksync.User {
				u := person(id, n)
				u.ClerkUpdatedAt = hour(1)
				return u
			}
			order := random(uint64(round)).Perm(workers())
			var t tally
			c.together(workers(), func(i int) { c.send(s, content(order[i]), &t) })
			c.oneCreated(&t)
			c.ends(s, content(workers()-1))
		}
	}},
	{"ConcurrentWritesOfTheApp", "a write of the app's own is not lost to an update at the same moment", raw, func(c *check) {
		s := c.raw()
		c.offer(s, person("user_1", 0), clerksync.Created)
		const updaters = 7
		writes := 3 * rounds()
		var newest, finished atomic.Int64
		var done atomic.Bool
		gone := make(chan struct{}, updaters)
		var t tally
		c.together(1+updaters, func(i int) {
			if i != 0 {
				for n := 0; n < 1000 && !done.Load(); n++ {
					c.send(s, person("user_1", int(newest.Add(1))), &t)
					finished.Add(1)
				}
				gone <- struct{}{}
				return
			}
			defer done.Store(true)
			for n := range writes {
				role := fmt.Sprint("ROLE_", n)
				if err := s.SetFields(c.Context(), "user_1", map[string]any{"role": role}); err != nil {
					c.errorf("RawStore.SetFields: %v", err)
					return
				}
				for was := finished.Load(); finished.Load() < was+2 && len(gone) < updaters; {
					got, err := s.User(c.Context(), "user_1")
					if err != nil {
						c.errorf("User while others write: %v", err)
						return
					}
					if string(got.Role) != role {
						c.errorf("the app wrote role %s and reads %s", role, got.Role)
						return
					}
				}
			}
		})
		want := person("user_1", int(newest.Load()))
		want.Role = clerksync.Role(fmt.Sprint("ROLE_", writes-1))
		c.ends(s, want)
	}},
}
