package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// upsertCases are about the rules of Decide.
var upsertCases = []testCase{
	{
		name: "NewUserIsCreated",
		rule: "a user without a record gets an active one, with Clerk's fields and the argument's role and location",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			got := c.offer(s, u, clerksync.Created)
			if !got.IsActive {
				c.errorf("a new record is not active")
			}
			located := got.Location != nil && got.Location.City == "London"
			if got.Email != u.Email || got.Role != clerksync.RoleTeacher || !located {
				c.errorf("a new record has e-mail %q, role %q, location %v", got.Email, got.Role, got.Location)
			}
			if !got.CreatedAt.Equal(got.UpdatedAt) {
				c.errorf("a new record was created at %v and updated at %v", got.CreatedAt, got.UpdatedAt)
			}
		},
	},
	{
		name: "NewUserWithNothingIsCreated",
		rule: "a user gets a record even if Clerk knows only the id",
		run: func(c *check) {
			s := c.newStore()
			c.offer(s, &clerksync.User{ClerkID: "user_1"}, clerksync.Created)
			// A second one: two users without an e-mail address do not conflict.
			c.offer(s, &clerksync.User{ClerkID: "user_2"}, clerksync.Created)
			c.offer(s, &clerksync.User{ClerkID: "user_1"}, clerksync.Unchanged)
		},
	},
	{
		name: "NewerVersionIsWritten",
		rule: "a newer version replaces the fields that Clerk owns",
		run: func(c *check) {
			s := c.newStore()
			c.offer(s, person("user_1", 1), clerksync.Created)
			got := c.offer(s, person("user_1", 2), clerksync.Updated)
			if got.Name != "Ada 2" || !got.ClerkUpdatedAt.Equal(hour(2)) {
				c.errorf("the record has name %q and version %v", got.Name, got.ClerkUpdatedAt)
			}
			c.offer(s, person("user_1", 9), clerksync.Updated)
		},
	},
	{
		name: "NewerVersionOfSameContentIsWritten",
		rule: "a newer version is recorded even if nothing else changed",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			c.offer(s, u, clerksync.Created)
			u.ClerkUpdatedAt = hour(2)
			got := c.offer(s, u, clerksync.Updated)
			if !got.ClerkUpdatedAt.Equal(hour(2)) {
				c.errorf("the version is %v, want %v", got.ClerkUpdatedAt, hour(2))
			}
		},
	},
	{
		name: "OlderVersionIsStale",
		rule: "an older version changes nothing, whatever its other fields say",
		run: func(c *check) {
			s := c.newStore()
			c.offer(s, person("user_1", 3), clerksync.Created)
			u := person("user_1", 2)
			c.offer(s, u, clerksync.Stale)
			// A late event changes nothing even with later evidence and sign-ins.
			u.SyncedAt, u.LastSignInAt, u.RoleFromClerk = hour(9), hour(9), true
			c.offer(s, u, clerksync.Stale)
			c.offer(s, person("user_1", 1), clerksync.Stale)
			c.offer(s, person("user_1", 3), clerksync.Unchanged)
		},
	},
	{
		name: "EqualVersionOfSameContentIsUnchanged",
		rule: "the same state again only moves syncedAt and lastSignInAt forward",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			c.offer(s, u, clerksync.Created)
			tick()
			c.offer(s, u, clerksync.Unchanged)
			u.SyncedAt, u.LastSignInAt = hour(5), hour(4)
			got := c.offer(s, u, clerksync.Unchanged)
			if !got.SyncedAt.Equal(hour(5)) || !got.LastSignInAt.Equal(hour(4)) {
				c.errorf("syncedAt is %v and lastSignInAt %v, want %v and %v",
					got.SyncedAt, got.LastSignInAt, hour(5), hour(4))
			}
		},
	},
	{
		name: "EqualVersionOfOtherContentIsWritten",
		rule: "two changes within one version are both written: an equal version is not older",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			c.offer(s, u, clerksync.Created)
			u.Name = "Grace"
			got := c.offer(s, u, clerksync.Updated)
			if got.Name != "Grace" {
				c.errorf("the name is %q, want %q", got.Name, "Grace")
			}
			u.Name, u.SyncedAt = "Katherine", u.SyncedAt.Add(time.Millisecond)
			c.offer(s, u, clerksync.Updated)
		},
	},
	{
		name: "EqualVersionOlderEvidenceIsIgnored",
		rule: "a late event does not undo what a later read of the same version found",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			u.SyncedAt = hour(5)
			c.offer(s, u, clerksync.Created)
			late := person("user_1", 1)
			late.SyncedAt = hour(4)
			c.offer(s, late, clerksync.Unchanged) // same content
			late.Name, late.Extra = "Grace", nil
			c.offer(s, late, clerksync.Unchanged)
			late.SyncedAt = hour(5)
			c.offer(s, late, clerksync.Updated)
		},
	},
	{
		name: "EqualVersionWithoutEvidenceIsWritten",
		rule: "an argument without syncedAt cannot be late: an equal version that differs is written",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			c.offer(s, u, clerksync.Created)
			u.Name, u.SyncedAt = "Grace", time.Time{}
			c.offer(s, u, clerksync.Updated)
		},
	},
	{
		name: "ConfirmationFromTheFutureIsDisbelieved",
		rule: "a stored syncedAt ahead of the clock does not make later reads late",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			u.SyncedAt = time.Now().Add(48 * time.Hour)
			c.offer(s, u, clerksync.Created)
			u.Name, u.SyncedAt = "Grace", hour(9)
			c.offer(s, u, clerksync.Updated)
		},
	},
	{
		name: "VersionOverNoVersion",
		rule: "a record without a version is older than any version",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			u.ClerkUpdatedAt = time.Time{}
			u.SyncedAt = hour(9)
			c.offer(s, u, clerksync.Created)
			u.ClerkUpdatedAt = hour(1)
			c.offer(s, u, clerksync.Updated) // with the same content
			u = person("user_2", 1)
			u.ClerkUpdatedAt, u.SyncedAt = time.Time{}, hour(9)
			c.offer(s, u, clerksync.Created)
			c.offer(s, person("user_2", 2), clerksync.Updated)
		},
	},
	{
		name: "NoVersionOverVersionIsStale",
		rule: "a user without a version is older than any record that has one",
		run: func(c *check) {
			s := c.newStore()
			c.offer(s, person("user_1", 1), clerksync.Created)
			u := person("user_1", 2)
			u.ClerkUpdatedAt = time.Time{}
			c.offer(s, u, clerksync.Stale)
		},
	},
	{
		name: "NoVersionOverNoVersion",
		rule: "two missing versions are equal",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			u.ClerkUpdatedAt = time.Time{}
			c.offer(s, u, clerksync.Created)
			c.offer(s, u, clerksync.Unchanged)
			u.Name = "Grace"
			c.offer(s, u, clerksync.Updated)
			u.Name, u.SyncedAt = "Katherine", u.SyncedAt.Add(-time.Minute)
			c.offer(s, u, clerksync.Unchanged)
		},
	},
	{
		name: "VersionAheadOfTheClockIsAVersion",
		rule: "a Store writes a version from the future like any other, and older ones are stale after it",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			c.offer(s, u, clerksync.Created)
			for _, ahead := range []time.Duration{time.Hour, 48 * time.Hour} {
				u.ClerkUpdatedAt = time.Now().Add(ahead)
				c.offer(s, u, clerksync.Updated)
				c.offer(s, u, clerksync.Unchanged)
				c.offer(s, person("user_1", 2), clerksync.Stale)
			}
		},
	},
	{
		name: "VersionsAreMilliseconds",
		rule: "versions are compared in whole milliseconds",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			u.ClerkUpdatedAt = hour(1).Add(500 * time.Microsecond)
			c.offer(s, u, clerksync.Created)
			for _, within := range []time.Duration{0, time.Microsecond, 999 * time.Microsecond} {
				u.ClerkUpdatedAt = hour(1).Add(within)
				c.offer(s, u, clerksync.Unchanged)
			}
			u.Name = "Grace"
			u.ClerkUpdatedAt = hour(1).Add(999 * time.Microsecond)
			c.offer(s, u, clerksync.Updated)
			u.ClerkUpdatedAt = hour(1).Add(-time.Microsecond)
			c.offer(s, u, clerksync.Stale)
			u.ClerkUpdatedAt = hour(1).Add(time.Millisecond)
			c.offer(s, u, clerksync.Updated)
			u.ClerkUpdatedAt = hour(1)
			c.offer(s, u, clerksync.Stale)
		},
	},
	{
		name: "TimesComeBackInMilliseconds",
		rule: "times come back in UTC and whole milliseconds, whatever their zone and precision were",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			zone := time.FixedZone("", 5*60*60+30*60)
			for _, t := range []*time.Time{&u.ClerkUpdatedAt, &u.ClerkCreatedAt, &u.SyncedAt, &u.LastSignInAt} {
				*t = t.Add(123456789 * time.Nanosecond).In(zone)
			}
			u.Extra["since"] = hour(1).Add(123456789 * time.Nanosecond).In(zone)
			got := c.offer(s, u, clerksync.Created)
			if want := hour(1).Add(123 * time.Millisecond); !got.ClerkUpdatedAt.Equal(want) {
				c.errorf("the version is %v, want %v", got.ClerkUpdatedAt, want)
			}
			c.offer(s, u, clerksync.Unchanged)
			u.ClerkUpdatedAt = time.Now() // with a monotonic reading
			u.Extra["since"] = time.Now()
			c.offer(s, u, clerksync.Updated)
			c.offer(s, u, clerksync.Unchanged)
		},
	},
	{
		name: "TimesBefore1970AreTimes",
		rule: "times at and before the start of 1970 are times like any other",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			u.ClerkUpdatedAt, u.ClerkCreatedAt = time.UnixMilli(0), time.UnixMilli(-1)
			u.LastSignInAt, u.SyncedAt = time.UnixMilli(-86_400_000), time.UnixMilli(0)
			c.offer(s, u, clerksync.Created)
			c.offer(s, u, clerksync.Unchanged)
			c.offer(s, person("user_1", 1), clerksync.Updated)
			c.offer(s, u, clerksync.Stale)
		},
	},
}

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
