package storetest

import (
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// fieldCases are about how each field is compared and written.
var fieldCases = []testCase{
	{
		name: "EveryClerkFieldIsWritten",
		rule: "each field that Clerk owns is compared and written by itself",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			c.offer(s, u, clerksync.Created)
			changes := []func(){
				func() { u.Email = "other@example.com" },
				func() { u.Name = "other" },
				func() { u.Profile.FirstName = "other" },
				func() { u.Profile.LastName = "other" },
				func() { u.Profile.FullName = "other" },
				func() { u.Profile.ImageURL = "other" },
				func() { u.Profile.PhoneNumber = "other" },
				func() { u.Profile.Birthday = "other" },
				func() { u.Profile.Gender = "other" },
				func() { u.EmailVerified = !u.EmailVerified },
				func() { u.PhoneVerified = !u.PhoneVerified },
				func() { u.Banned = !u.Banned },
				func() { u.Banned = !u.Banned },
				func() { u.ClerkCreatedAt = hour(-48) },
			}
			for i, change := range changes {
				change()
				c.offer(s, u, clerksync.Updated) // at the same version
				c.offer(s, u, clerksync.Unchanged)
				if i%2 == 0 {
					u.ClerkUpdatedAt = u.ClerkUpdatedAt.Add(time.Second)
					c.offer(s, u, clerksync.Updated)
				}
			}
		},
	},
	{
		name: "TextIsKeptAsItIs",
		rule: "text is kept byte for byte",
		run: func(c *check) {
			s := c.newStore()
			for i, text := range oddTexts {
				u := person("user_1", i)
				u.Name, u.Profile.Gender, u.Extra["motto"] = text, text, text
				want := clerksync.Updated
				if i == 0 {
					want = clerksync.Created
				}
				c.offer(s, u, want)
				c.offer(s, u, clerksync.Unchanged)
			}
		},
	},
	{
		name: "ClearedFieldsAreRemoved",
		rule: "a field that Clerk no longer has is removed from the record",
		run: func(c *check) {
			s := c.newStore()
			for id, version := range map[string]int{"user_newer": 2, "user_equal": 1} {
				c.offer(s, person(id, 1), clerksync.Created)
				cleared := &clerksync.User{ClerkID: id, ClerkUpdatedAt: hour(version), SyncedAt: hour(3)}
				got := c.offer(s, cleared, clerksync.Updated)
				empty := got.Email == "" && got.Name == "" && got.Profile == (clerksync.Profile{})
				if !empty || !got.ClerkCreatedAt.IsZero() {
					c.errorf("the record still has e-mail %q, name %q, profile %+v, clerkCreatedAt %v",
						got.Email, got.Name, got.Profile, got.ClerkCreatedAt)
				}
				c.offer(s, person(id, 4), clerksync.Updated)
			}
		},
	},
	{
		name: "LastSignInNeverGoesBack",
		rule: "lastSignInAt never goes back, whatever version comes with it",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			u.LastSignInAt = hour(10)
			c.offer(s, u, clerksync.Created)
			for n, signIn := range []time.Time{hour(9), {}, hour(10)} {
				u = person("user_1", 2+n)
				u.LastSignInAt = signIn
				got := c.offer(s, u, clerksync.Updated)
				if !got.LastSignInAt.Equal(hour(10)) {
					c.errorf("a newer version moved lastSignInAt from %v to %v", hour(10), got.LastSignInAt)
				}
				c.offer(s, u, clerksync.Unchanged)
			}
			u.LastSignInAt = hour(11)
			u.Name = "Grace"
			c.offer(s, u, clerksync.Updated)
		},
	},
	{
		name: "SyncedAtNeverGoesBack",
		rule: "syncedAt never goes back",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			u.SyncedAt = hour(10)
			c.offer(s, u, clerksync.Created)
			for n, synced := range []time.Time{hour(9), {}, hour(10)} {
				u = person("user_1", 2+n)
				u.SyncedAt = synced
				got := c.offer(s, u, clerksync.Updated)
				if !got.SyncedAt.Equal(hour(10)) {
					c.errorf("a newer version moved syncedAt from %v to %v", hour(10), got.SyncedAt)
				}
				c.offer(s, u, clerksync.Unchanged)
			}
			u.SyncedAt = hour(12)
			c.offer(s, u, clerksync.Unchanged)
		},
	},
	{
		name: "CreatedAtStays",
		rule: "createdAt and the ID never change",
		run: func(c *check) {
			s := c.newStore()
			first := c.offer(s, person("user_1", 1), clerksync.Created)
			tick()
			c.offer(s, person("user_1", 2), clerksync.Updated)
			last := c.deactivate(s, "user_1", hour(3))
			if !last.CreatedAt.Equal(first.CreatedAt) || last.ID != first.ID {
				c.errorf("createdAt and ID were %v and %s, and are now %v and %s",
					first.CreatedAt, first.ID, last.CreatedAt, last.ID)
			}
		},
	},
	{
		name: "UpdatedAtMovesOnChangeOnly",
		rule: "updatedAt moves when something changed, and only then",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 2)
			r := c.offer(s, u, clerksync.Created)
			step := func(what string, got *clerksync.User, moves bool) {
				if moved := got.UpdatedAt.After(r.UpdatedAt); moved != moves {
					c.errorf("%s: updatedAt went from %v to %v", what, r.UpdatedAt, got.UpdatedAt)
				}
				r = got
				tick()
			}
			tick()
			step("the same again", c.offer(s, u, clerksync.Unchanged), false)
			u.SyncedAt, u.LastSignInAt = hour(5), hour(5)
			step("a later confirmation", c.offer(s, u, clerksync.Unchanged), false)
			step("an older version", c.offer(s, person("user_1", 1), clerksync.Stale), false)
			step("a newer version", c.offer(s, person("user_1", 6), clerksync.Updated), true)
			u = person("user_1", 6)
			u.Extra["plan"] = "other"
			step("other content", c.offer(s, u, clerksync.Updated), true)
			step("the deletion", c.deactivate(s, "user_1", hour(7)), true)
			step("the deletion again", c.deactivate(s, "user_1", hour(8)), false)
			step("an update of a deleted user", c.offer(s, person("user_1", 9), clerksync.Deactivated), false)
		},
	},
	{
		name: "RoleIsTheApps",
		rule: "the role is written with a new record and never again",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			c.offer(s, u, clerksync.Created)
			u.Role = clerksync.RoleAdmin
			c.offer(s, u, clerksync.Unchanged) // no field that Clerk owns differs
			u.Name = "Grace"
			c.offer(s, u, clerksync.Updated)
			u = person("user_1", 2)
			u.Role = clerksync.RoleAdmin
			got := c.offer(s, u, clerksync.Updated)
			if got.Role != clerksync.RoleTeacher {
				c.errorf("a sync changed the role from %q to %q", clerksync.RoleTeacher, got.Role)
			}
			u.Role = ""
			u.ClerkUpdatedAt = hour(3)
			c.offer(s, u, clerksync.Updated)
		},
	},
	{
		name: "RoleFromClerkIsWritten",
		rule: "with RoleFromClerk the role is Clerk's: compared and written on every applied sync",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			u.RoleFromClerk = true
			c.offer(s, u, clerksync.Created)
			c.offer(s, u, clerksync.Unchanged)
			u.Role = clerksync.RoleAdmin
			got := c.offer(s, u, clerksync.Updated) // at the same version
			if got.Role != clerksync.RoleAdmin {
				c.errorf("the role is %q, want %q", got.Role, clerksync.RoleAdmin)
			}
			u = person("user_1", 2)
			u.Role, u.RoleFromClerk = "OWNER", true
			c.offer(s, u, clerksync.Updated)
			u = person("user_1", 3)
			got = c.offer(s, u, clerksync.Updated) // RoleFromClerk is not remembered: the role is the app's again
			if got.Role != "OWNER" {
				c.errorf("the role is %q, want %q: RoleFromClerk applies to one Upsert", got.Role, "OWNER")
			}
		},
	},
	{
		name: "LocationIsTheApps",
		rule: "the location is written with a new record and never again",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			c.offer(s, u, clerksync.Created)
			u.Location = &clerksync.Location{Country: "FR"}
			c.offer(s, u, clerksync.Unchanged)
			u = person("user_1", 2)
			u.Location = &clerksync.Location{Country: "FR", City: "Paris"}
			c.offer(s, u, clerksync.Updated)
			u = person("user_1", 3)
			u.Location = nil
			got := c.offer(s, u, clerksync.Updated)
			if got.Location == nil || got.Location.City != "London" {
				c.errorf("the location is %+v, want the one of the first Upsert", got.Location)
			}
			u = person("user_2", 1)
			u.Location = nil
			c.offer(s, u, clerksync.Created)
			c.offer(s, person("user_2", 2), clerksync.Updated)
			u = person("user_3", 1)
			u.Location = &clerksync.Location{Timezone: "Europe/Paris"}
			c.offer(s, u, clerksync.Created)
		},
	},
	{
		name: "FieldsOfTheStoreHaveNoEffect",
		rule: "the argument's ID, CreatedAt, UpdatedAt, IsActive, DeletedAt and Partial have no effect",
		run: func(c *check) {
			s := c.newStore()
			set := func(u *clerksync.User) *clerksync.User {
				u.ID, u.CreatedAt, u.UpdatedAt = "0123456789abcdef01234567", hour(-99), hour(-98)
				u.IsActive, u.DeletedAt, u.Partial = false, hour(1), true
				return u
			}
			got := c.offer(s, set(person("user_1", 1)), clerksync.Created)
			if !got.IsActive || !got.DeletedAt.IsZero() || got.ID == "0123456789abcdef01234567" {
				c.errorf("a new record has the argument's IsActive %t, DeletedAt %v or ID %s",
					got.IsActive, got.DeletedAt, got.ID)
			}
			c.offer(s, set(person("user_1", 1)), clerksync.Unchanged)
			c.offer(s, set(person("user_1", 2)), clerksync.Updated)
		},
	},
	{
		name: "ResultHoldsTheStoredRecord",
		rule: "Result.User is nil or the whole stored record, for every outcome",
		run: func(c *check) {
			// offer and deactivate compare the two. Here every argument differs from the
			// record in each field that it may differ in.
			s := c.newStore()
			differing := func(n int) *clerksync.User {
				u := person("user_1", n)
				u.ID, u.Role, u.Location, u.IsActive, u.Partial = "mine", "OTHER", nil, false, true
				u.LastSignInAt, u.CreatedAt, u.UpdatedAt, u.DeletedAt = hour(-9), hour(-9), hour(-9), hour(-9)
				return u
			}
			u := person("user_1", 2)
			u.RoleFromClerk = true
			c.offer(s, u, clerksync.Created)
			c.offer(s, differing(2), clerksync.Unchanged)
			c.offer(s, differing(3), clerksync.Updated)
			c.offer(s, differing(1), clerksync.Stale)
			c.deactivate(s, "user_1", hour(5))
			c.offer(s, differing(9), clerksync.Deactivated)
			c.deactivate(s, "user_1", hour(6))
			c.deactivate(s, "user_2", hour(6))
		},
	},
}
