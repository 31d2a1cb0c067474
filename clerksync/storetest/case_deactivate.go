package storetest

import (
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// deactivateCases are about deletion.
var deactivateCases = []testCase{
	{
		name: "DeletionMarksTheRecord",
		rule: "Deactivate sets IsActive to false and DeletedAt, and leaves the rest",
		run: func(c *check) {
			s := c.newStore()
			c.offer(s, person("user_1", 1), clerksync.Created)
			c.offer(s, person("user_2", 1), clerksync.Created)
			got := c.deactivate(s, "user_1", hour(2).Add(123456*time.Nanosecond))
			if got.IsActive || !got.DeletedAt.Equal(hour(2)) || got.Name != "Ada 1" {
				c.errorf("the deleted record has IsActive %t, DeletedAt %v, name %q",
					got.IsActive, got.DeletedAt, got.Name)
			}
			c.offer(s, person("user_2", 1), clerksync.Unchanged)
		},
	},
	{
		name: "DeletionIsFinal",
		rule: "no Upsert brings a deleted user back or writes to the record",
		run: func(c *check) {
			s := c.newStore()
			c.offer(s, person("user_1", 2), clerksync.Created)
			c.deactivate(s, "user_1", hour(3))
			for _, n := range []int{1, 2, 3, 9} {
				u := person("user_1", n)
				u.RoleFromClerk = true
				got := c.offer(s, u, clerksync.Deactivated)
				if got.DeletedAt.IsZero() || got.IsActive {
					c.errorf("version %d restored the deleted user", n)
				}
			}
			u := person("user_1", 9)
			u.ClerkUpdatedAt = time.Time{}
			c.offer(s, u, clerksync.Deactivated)
		},
	},
	{
		name: "DeletionBeforeTheRecord",
		rule: "deleting an unknown user leaves a tombstone without personal data, which stops a late creation",
		run: func(c *check) {
			s := c.newStore()
			got := c.deactivate(s, "user_1", hour(3))
			if got.DeletedAt.IsZero() || got.IsActive {
				c.errorf("the tombstone has DeletedAt %v and IsActive %t", got.DeletedAt, got.IsActive)
			}
			c.deactivate(s, "user_2", hour(3)) // another one, which has no e-mail either
			for _, n := range []int{1, 9} {
				got = c.offer(s, person("user_1", n), clerksync.Deactivated)
				empty := got.Email == "" && got.Name == "" && got.Profile == (clerksync.Profile{})
				if !empty || got.Location != nil || got.Extra != nil {
					c.errorf("a late creation wrote personal data to the tombstone")
				}
			}
		},
	},
	{
		name: "DeletionTwiceKeepsTheFirst",
		rule: "deleting a deleted record changes nothing, not even deletedAt",
		run: func(c *check) {
			s := c.newStore()
			c.offer(s, person("user_1", 1), clerksync.Created)
			for _, id := range []string{"user_1", "user_2"} { // with a record, without
				c.deactivate(s, id, hour(5))
				tick()
				for _, n := range []int{5, 6, 4} {
					if got := c.deactivate(s, id, hour(n)); !got.DeletedAt.Equal(hour(5)) {
						c.errorf("DeletedAt went from %v to %v", hour(5), got.DeletedAt)
					}
				}
			}
		},
	},
	{
		name: "DeletionWithoutATimeDeletes",
		rule: "Deactivate with a zero time deletes as of now",
		run: func(c *check) {
			s := c.newStore()
			c.offer(s, person("user_1", 1), clerksync.Created)
			for _, id := range []string{"user_1", "user_2"} {
				c.deactivate(s, id, time.Time{})
				c.offer(s, person(id, 2), clerksync.Deactivated)
			}
		},
	},
	{
		name: "DeletionAtTheEpochDeletes",
		rule: "the start of 1970 is a valid time of deletion",
		run: func(c *check) {
			s := c.newStore()
			c.offer(s, person("user_1", 1), clerksync.Created)
			for _, id := range []string{"user_1", "user_2"} {
				c.deactivate(s, id, time.Unix(0, 0))
				c.offer(s, person(id, 2), clerksync.Deactivated)
			}
		},
	},
	{
		name: "DeletionOfABannedUser",
		rule: "a banned user can be deleted, and lifting the ban does not undo that",
		run: func(c *check) {
			s := c.newStore()
			c.offer(s, person("user_1", 5), clerksync.Created) // version 5 is banned
			c.deactivate(s, "user_1", hour(6))
			c.offer(s, person("user_1", 7), clerksync.Deactivated)
		},
	},
}
