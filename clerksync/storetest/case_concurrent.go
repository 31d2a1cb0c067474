package storetest

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/clerksync/clerksync-go/clerksync"
)

// tally counts the outcomes of concurrent Upserts.
type tally struct {
	mu sync.Mutex
	n  map[clerksync.Outcome]int
}

func (t *tally) add(o clerksync.Outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = make(map[clerksync.Outcome]int)
	}
	t.n[o]++
}

// send is an Upsert for the goroutines of concurrently: it counts the outcome.
func (c *check) send(s clerksync.Store, u *clerksync.User, t *tally) {
	res, err := s.Upsert(c.t.Context(), u)
	if err != nil {
		c.errorf("a concurrent Upsert: %v", err)
		return
	}
	t.add(res.Outcome)
	if res.User != nil && res.User.ClerkID != u.ClerkID {
		c.errorf("Upsert of %q returns the record of %q", u.ClerkID, res.User.ClerkID)
	}
}

// endsAs checks that the record is exactly what an Upsert of want leaves.
func (c *check) endsAs(s clerksync.Store, want *clerksync.User) {
	c.t.Helper()
	got := c.record(s, want.ClerkID)
	c.same("the record in the end", got, createdFrom(want, got))
}

// createdFrom returns the record that Upserts of u leave. ID, CreatedAt and UpdatedAt are got's.
func createdFrom(u, got *clerksync.User) *clerksync.User {
	want := u.Clone()
	want.ID, want.CreatedAt, want.UpdatedAt, want.IsActive = got.ID, got.CreatedAt, got.UpdatedAt, true
	return want
}

// oneCreated checks that exactly one of the concurrent Upserts created the record.
func (c *check) oneCreated(t *tally) {
	c.t.Helper()
	if t.n[clerksync.Created] != 1 {
		c.errorf("%d Upserts were Created, want exactly one: %v", t.n[clerksync.Created], t.n)
	}
}

// deletedAmongUpdates deletes a user during updates. In the end the user must be deleted, and
// each Upsert that began after the first Deactivate returned must have been Deactivated.
func (c *check) deletedAmongUpdates(s clerksync.Store, id string) {
	c.t.Helper()
	known := c.find(s, id) != nil
	var t tally
	var deleted atomic.Bool
	c.concurrently(workers(), func(i int) {
		if i%8 != 0 {
			late := deleted.Load()
			res, err := s.Upsert(c.t.Context(), person(id, 1+i))
			if err != nil {
				c.errorf("Upsert during a deletion: %v", err)
			} else if late && res.Outcome != clerksync.Deactivated {
				c.errorf("an Upsert after the deletion ended %v", res.Outcome)
			}
			t.add(res.Outcome)
			return
		}
		res, err := s.Deactivate(c.t.Context(), id, hour(100+i))
		if err != nil || res.Outcome != clerksync.Deactivated {
			c.errorf("Deactivate during updates: %v, %v", res.Outcome, err)
		}
		deleted.Store(true)
	})
	got := c.record(s, id)
	if got.DeletedAt.IsZero() || got.IsActive {
		c.errorf("the record has DeletedAt %v and IsActive %t", got.DeletedAt, got.IsActive)
	}
	if t.n[clerksync.Created] > 1 || known && t.n[clerksync.Created] > 0 {
		c.errorf("Upserts created the record too often: %v", t.n)
	}
	c.offer(s, person(id, 200), clerksync.Deactivated)
}

// concurrentCases are about many callers at the same time.
var concurrentCases = []testCase{
	{
		name: "ConcurrentFirstVisits",
		rule: "if many create the same new user at once, one creates the record and nobody fails",
		run: func(c *check) {
			s := c.newStore()
			for round := range rounds() {
				u := person(fmt.Sprint("user_", round), 1)
				var t tally
				c.concurrently(workers(), func(int) { c.send(s, u, &t) })
				c.oneCreated(&t)
				if t.n[clerksync.Unchanged] != workers()-1 {
					c.errorf("want all other outcomes to be Unchanged: %v", t.n)
				}
				c.endsAs(s, u)
			}
		},
	},
	{
		name: "ConcurrentVersionsOfANewUser",
		rule: "if many versions of a new user come at once, one is Created and the newest wins",
		run: func(c *check) {
			s := c.newStore()
			for round := range rounds() {
				id := fmt.Sprint("user_", round)
				order := random(uint64(round)).Perm(workers())
				var t tally
				c.concurrently(workers(), func(i int) { c.send(s, person(id, order[i]), &t) })
				c.oneCreated(&t)
				if t.n[clerksync.Unchanged] != 0 || t.n[clerksync.Deactivated] != 0 {
					c.errorf("the versions all differ, and the outcomes are %v", t.n)
				}
				c.endsAs(s, person(id, workers()-1))
			}
		},
	},
	{
		name: "ConcurrentVersionsOfAKnownUser",
		rule: "while many write, the version never goes back, and each read returns a whole record",
		run: func(c *check) {
			s := c.newStore()
			for round := range rounds() {
				id := fmt.Sprint("user_", round)
				c.offer(s, person(id, 0), clerksync.Created)
				order := random(uint64(round)).Perm(workers())
				var t tally
				c.concurrently(workers(), func(i int) {
					if i%4 != 0 {
						c.send(s, person(id, order[i]), &t)
						return
					}
					last := -1
					for range 8 {
						got, err := s.User(c.t.Context(), id)
						if err != nil {
							c.errorf("User during writes: %v", err)
							return
						}
						n := int(got.ClerkUpdatedAt.Sub(epoch).Hours())
						if n < last {
							c.errorf("the record went back from version %d to %d", last, n)
						}
						last = n
						c.same("a record read during writes", got, createdFrom(person(id, n), got))
					}
				})
				newest := 0
				for i, n := range order {
					if i%4 != 0 {
						newest = max(newest, n)
					}
				}
				c.endsAs(s, person(id, newest))
			}
		},
	},
	{
		name: "ConcurrentDeletion",
		rule: "a deletion among many updates is final",
		run: func(c *check) {
			s := c.newStore()
			for round := range rounds() {
				c.deletedAmongUpdates(s, fmt.Sprint("user_new_", round))
				known := fmt.Sprint("user_known_", round)
				c.offer(s, person(known, 0), clerksync.Created)
				c.deletedAmongUpdates(s, known)
			}
		},
	},
	{
		name: "ConcurrentDeletions",
		rule: "of many deletions one sets the time, and it stays",
		run: func(c *check) {
			s := c.newStore()
			for round := range rounds() {
				id := fmt.Sprint("user_", round)
				var mu sync.Mutex
				first := make(map[string]bool)
				c.concurrently(workers(), func(i int) {
					_, err := s.Deactivate(c.t.Context(), id, hour(i))
					if err != nil {
						c.errorf("a concurrent Deactivate: %v", err)
						return
					}
					got, err := s.User(c.t.Context(), id)
					if err != nil {
						c.errorf("User after Deactivate: %v", err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					first[got.DeletedAt.String()] = true
				})
				if len(first) != 1 {
					c.errorf("%d different values of DeletedAt were read, want one", len(first))
				}
			}
		},
	},
	{
		name: "ConcurrentManyUsers",
		rule: "of many users created at once, each gets one record, with its own data",
		run: func(c *check) {
			s := c.newStore()
			tallies := make([]tally, 6)
			c.concurrently(workers(), func(i int) {
				for j := range tallies {
					j = (i + j) % len(tallies)
					c.send(s, person(fmt.Sprint("user_", j), 1), &tallies[j])
				}
			})
			ids := make(map[string]bool)
			for j := range tallies {
				c.oneCreated(&tallies[j])
				id := fmt.Sprint("user_", j)
				c.endsAs(s, person(id, 1))
				ids[c.record(s, id).ID] = true
			}
			if len(ids) != len(tallies) {
				c.errorf("%d users have %d IDs", len(tallies), len(ids))
			}
		},
	},
	{
		name: "ConcurrentEqualVersions",
		rule: "of many contents of one version one wins, as a whole",
		run: func(c *check) {
			s := c.newStore()
			for round := range rounds() {
				id := fmt.Sprint("user_", round)
				content := func(n int) *clerksync.User {
					u := person(id, n)
					u.ClerkUpdatedAt, u.SyncedAt, u.LastSignInAt = hour(1), hour(2), hour(1)
					return u
				}
				var t tally
				c.concurrently(workers(), func(i int) { c.send(s, content(i), &t) })
				c.oneCreated(&t)
				if t.n[clerksync.Stale] != 0 {
					c.errorf("the versions are equal, and the outcomes are %v", t.n)
				}
				seats, _ := c.record(s, id).Extra["seats"].(int64)
				c.endsAs(s, content(int(seats)))
			}
		},
	},
	{
		name: "ConcurrentEvidence",
		rule: "of many contents of one version the one with the latest syncedAt wins, even in a race",
		run: func(c *check) {
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
				c.concurrently(workers(), func(i int) { c.send(s, content(order[i]), &t) })
				c.oneCreated(&t)
				c.endsAs(s, content(workers()-1))
			}
		},
	},
	{
		name:  "ConcurrentWritesOfTheApp",
		rule:  "an update at the same moment does not overwrite what the app wrote",
		needs: raw,
		run: func(c *check) {
			s := c.raw()
			c.offer(s, person("user_1", 0), clerksync.Created)
			const updaters = 7
			writes := 3 * rounds()
			var newest, finished atomic.Int64
			var done atomic.Bool
			gone := make(chan struct{}, updaters)
			var t tally
			c.concurrently(1+updaters, func(i int) {
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
					if err := s.SetFields(c.t.Context(), "user_1", map[string]any{"role": role}); err != nil {
						c.errorf("RawStore.SetFields: %v", err)
						return
					}
					for was := finished.Load(); finished.Load() < was+2 && len(gone) < updaters; {
						got, err := s.User(c.t.Context(), "user_1")
						if err != nil {
							c.errorf("User during writes: %v", err)
							return
						}
						if string(got.Role) != role {
							c.errorf("the app wrote role %s and then read %s", role, got.Role)
							return
						}
					}
				}
			})
			want := person("user_1", int(newest.Load()))
			want.Role = clerksync.Role(fmt.Sprint("ROLE_", writes-1))
			c.endsAs(s, want)
		},
	},
}
