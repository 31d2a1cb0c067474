package storetest

import (
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// Deletion.
var deactivateCases = []testCase{
	{"DeletionMarksTheRecord", "Deactivate sets IsActive false and DeletedAt, and leaves the rest", 0, func(c *check) {
		s := c.newStore()
		c.offer(s, person("user_1", 1), clerksync.Created)
		c.offer(s, person("user_2", 1), clerksync.Created)
		got := c.delete(s, "user_1", hour(2).Add(123456*time.Nanosecond))
		if got.IsActive || !got.DeletedAt.Equal(hour(2)) || got.Name != "Ada 1" {
			c.errorf("the deleted record has IsActive %t, DeletedAt %v, name %q", got.IsActive, got.DeletedAt, got.Name)
		}
		c.offer(s, person("user_2", 1), clerksync.Unchanged)
	}},
	{"DeletionIsFinal", "nothing brings a deleted user back, and nothing is written to the record", 0, func(c *check) {
		s := c.newStore()
		c.offer(s, person("user_1", 2), clerksync.Created)
		c.delete(s, "user_1", hour(3))
		for _, n := range []int{1, 2, 3, 9} {
			u := person("user_1", n)
			u.RoleFromClerk = true
			got := c.offer(s, u, clerksync.Deactivated)
			if got.DeletedAt.IsZero() || got.IsActive {
				c.errorf("version %d brought the deleted user back", n)
			}
		}
		u := person("user_1", 9)
		u.ClerkUpdatedAt = time.Time{}
		c.offer(s, u, clerksync.Deactivated)
	}},
	{"DeletionBeforeTheRecord", "the deletion of an unknown user leaves a tombstone without personal data, and a late creation finds it", 0, func(c *check) {
		s := c.newStore()
		got := c.delete(s, "user_1", hour(3))
		if got.DeletedAt.IsZero() || got.IsActive {
			c.errorf("the tombstone has DeletedAt %v and IsActive %t", got.DeletedAt, got.IsActive)
		}
		c.delete(s, "user_2", hour(3)) // another one, which has no e-mail either
		for _, n := range []int{1, 9} {
			got = c.offer(s, person("user_1", n), clerksync.Deactivated)
			if got.Email != "" || got.Name != "" || got.Profile != (clerksync.Profile{}) || got.Location != nil || got.Extra != nil {
				c.errorf("a late user.created put personal data into the tombstone")
			}
		}
	}},
	{"DeletionTwiceKeepsTheFirst", "a record that is deleted stays as it is, the time of its deletion too", 0, func(c *check) {
		s := c.newStore()
		c.offer(s, person("user_1", 1), clerksync.Created)
		for _, id := range []string{"user_1", "user_2"} { // with a record, without
			c.delete(s, id, hour(5))
			tick()
			for _, n := range []int{5, 6, 4} {
				if got := c.delete(s, id, hour(n)); !got.DeletedAt.Equal(hour(5)) {
					c.errorf("DeletedAt went from %v to %v", hour(5), got.DeletedAt)
				}
			}
		}
	}},
	{"DeletionWithoutATimeDeletes", "a deletion is one even if nobody said when: a zero time means now", 0, func(c *check) {
		s := c.newStore()
		c.offer(s, person("user_1", 1), clerksync.Created)
		for _, id := range []string{"user_1", "user_2"} {
			c.delete(s, id, time.Time{})
			c.offer(s, person(id, 2), clerksync.Deactivated)
		}
	}},
	{"DeletionAtTheEpochDeletes", "1970 is a time like any other", 0, func(c *check) {
		s := c.newStore()
		c.offer(s, person("user_1", 1), clerksync.Created)
		for _, id := range []string{"user_1", "user_2"} {
			c.delete(s, id, time.Unix(0, 0))
			c.offer(s, person(id, 2), clerksync.Deactivated)
		}
	}},
	{"DeletionOfABannedUser", "a banned user can be deleted, and stays deleted when unbanned", 0, func(c *check) {
		s := c.newStore()
		c.offer(s, person("user_1", 5), clerksync.Created) // version 5 is banned
		c.delete(s, "user_1", hour(6))
		c.offer(s, person("user_1", 7), clerksync.Deactivated)
	}},
}
