package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// orders calls yield with every order of 0 to n-1, by default with every other one.
func orders(n int, yield func([]int)) {
	count := 0
	permutations(n, func(order []int) {
		if count++; count%2 == 0 || thorough() {
			yield(order)
		}
	})
}

// permutations calls yield with every order of 0 to n-1.
func permutations(n int, yield func([]int)) {
	order := make([]int, 0, n)
	used := make([]bool, n)
	var next func()
	next = func() {
		if len(order) == n {
			yield(order)
			return
		}
		for i := range n {
			if !used[i] {
				used[i], order = true, append(order, i)
				next()
				used[i], order = false, order[:len(order)-1]
			}
		}
	}
	next()
}

// orderCases are about events in any order.
var orderCases = []testCase{
	{
		name: "AnyOrderConverges",
		rule: "events in any order, once or twice, end in the newest version with the latest evidence",
		run: func(c *check) {
			next := c.small()
			events := func(id string) []*clerksync.User {
				early, late := person(id, 3), person(id, 3) // two changes in one millisecond
				early.Name, early.Extra = "Grace", map[string]any{"beta": true}
				late.SyncedAt = early.SyncedAt.Add(time.Second)
				return []*clerksync.User{person(id, 1), person(id, 2), early, late}
			}
			orders(4, func(order []int) {
				s, id := next(), fmt.Sprint("user_", order)
				es := events(id)
				for _, i := range slices.Concat(order, order[:2]) {
					if _, err := s.Upsert(c.t.Context(), es[i]); err != nil {
						c.fatalf("Upsert of event %d in order %v: %v", i, order, err)
					}
				}
				got := c.record(s, id)
				c.same(fmt.Sprintf("the record after events in order %v", order), got, createdFrom(es[3], got))
			})
		},
	},
	{
		name: "AnyOrderWithADeletionEndsDeleted",
		rule: "events in any order end in a deleted record if one of them is a deletion",
		run: func(c *check) {
			next := c.small()
			orders(4, func(order []int) {
				s, id := next(), fmt.Sprint("user_", order)
				for _, i := range slices.Concat(order, order[:2]) {
					if i == 3 {
						c.deactivate(s, id, hour(4))
					} else if _, err := s.Upsert(c.t.Context(), person(id, 1+i)); err != nil {
						c.fatalf("Upsert of event %d in order %v: %v", i, order, err)
					}
				}
				if got := c.record(s, id); got.IsActive || !got.DeletedAt.Equal(hour(4)) {
					c.errorf("after order %v (3 is the deletion) the record has IsActive %t and DeletedAt %v",
						order, got.IsActive, got.DeletedAt)
				}
			})
		},
	},
	{
		name: "AnyOrderWithOmitConverges",
		rule: "events of which some have Omit, in any order, end in the newest whole version, and a ban in one of them is not lifted by an older event",
		run: func(c *check) {
			next := c.small()
			orders(4, func(order []int) {
				s, id := next(), fmt.Sprint("user_", order)
				ban, noMail := omitting(id, 5, onlyBanned()...), omitting(id, 4, "email", "seats")
				es := []*clerksync.User{person(id, 2), person(id, 3), ban, noMail}
				banned := false
				for _, i := range slices.Concat(order, order[:2]) {
					_, err := s.Upsert(c.t.Context(), es[i])
					if err != nil && (len(es[i].Omit) == 0 || !errors.Is(err, clerksync.ErrNotFound)) {
						c.fatalf("Upsert of event %d in order %v: %v", i, order, err)
					}
					banned = banned || i == 2 && err == nil
					if r := c.find(s, id); banned && !r.Banned {
						c.errorf("event %d in order %v lifts the ban", i, order)
					}
				}
				if _, err := s.Upsert(c.t.Context(), person(id, 5)); err != nil {
					c.fatalf("Upsert of the last version: %v", err)
				}
				got := c.record(s, id)
				c.same(fmt.Sprintf("the record after events in order %v", order), got, createdFrom(person(id, 5), got))
			})
		},
	},
	{
		name: "RandomHistories",
		rule: "after each step of a random history the record is what the rules make of it",
		run: func(c *check) {
			s := c.newStore()
			rnd := random(1)
			for i := range 20 * rounds() {
				id := fmt.Sprint("user_", i/40, rnd.IntN(2))
				if rnd.IntN(40) == 0 {
					c.deactivate(s, id, hour(rnd.IntN(10)))
					continue
				}
				u := person(id, rnd.IntN(6))
				if rnd.IntN(3) == 0 {
					u.Name = "other"
				}
				switch rnd.IntN(8) {
				case 0, 1:
					u.ClerkUpdatedAt = time.Time{}
				case 2: // the version that an Upsert with Omit leaves
					u.ClerkUpdatedAt = u.ClerkUpdatedAt.Add(-time.Millisecond)
				}
				if rnd.IntN(3) == 0 {
					u.Extra = map[string]any{"plan": rnd.IntN(2), "beta": true}
				}
				if rnd.IntN(4) == 0 {
					u.Email, u.Profile.Gender, u.Location, u.LastSignInAt = "", "", nil, time.Time{}
				}
				u.Role = []clerksync.Role{clerksync.RoleStudent, clerksync.RoleAdmin}[rnd.IntN(2)]
				u.RoleFromClerk = rnd.IntN(4) == 0
				u.SyncedAt = hour(rnd.IntN(10))
				before := c.find(s, id)
				if rnd.IntN(3) == 0 && before != nil {
					u.Omit = someOmitted(rnd)
				}
				canonical, err := u.Canonical()
				if err != nil {
					c.t.Fatalf("storetest: the test's user is invalid: %v", err)
				}
				c.offer(s, u, clerksync.Decide(before, canonical, time.Now()))
			}
		},
	},
}

// someOmitted returns some of the paths that a user can omit.
func someOmitted(rnd *rand.Rand) []string {
	paths := append(clerkPaths(), "beta", "extraFields")
	rnd.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
	return paths[:1+rnd.IntN(len(paths))]
}
