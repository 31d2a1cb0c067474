package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
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

// restoring returns a new Store for a case about RestoreStore.
func (c *check) restoring() clerksync.RestoreStore { return c.newStore().(clerksync.RestoreStore) }

// restore calls Restore and checks what it reports and leaves.
func (c *check) restore(s clerksync.RestoreStore, id string, before time.Time, want bool) {
	c.t.Helper()
	was := c.find(s, id)
	tick()
	got, err := s.Restore(c.t.Context(), id, before)
	if err != nil {
		c.fatalf("Restore of %s: %v", describe(was), err)
	}
	if got != want {
		c.errorf("Restore of %s before %v reports %t, want %t", describe(was), before, got, want)
	}
	after, expected := c.find(s, id), was.Clone()
	if want && after != nil {
		if !after.UpdatedAt.After(was.UpdatedAt) {
			c.errorf("UpdatedAt of a restored record went from %v to %v", was.UpdatedAt, after.UpdatedAt)
		}
		expected.IsActive, expected.DeletedAt, expected.ClerkUpdatedAt = true, time.Time{}, time.Time{}
		expected.UpdatedAt = after.UpdatedAt
	}
	c.same(fmt.Sprintf("the record after a Restore that must report %t", want), after, expected)
}

// restoreCases are about the method of RestoreStore.
var restoreCases = []testCase{
	{
		name:  "RestoreBringsBack",
		rule:  "a record deleted before the given time is active again; otherwise only its version changes",
		needs: restores,
		run: func(c *check) {
			s := c.restoring()
			for n, id := range []string{"user_1", "user_2"} {
				c.offer(s, person(id, n), clerksync.Created)
				c.deactivate(s, id, hour(3))
			}
			c.restore(s, "user_1", hour(3).Add(time.Millisecond), true)
			c.restore(s, "user_1", hour(4), false)
			if got := c.record(s, "user_2"); got.DeletedAt.IsZero() {
				c.errorf("restoring one record restored another")
			}
		},
	},
	{
		name:  "RestoreLeavesLaterDeletions",
		rule:  "a record that was not deleted before the given time stays deleted",
		needs: restores,
		run: func(c *check) {
			s := c.restoring()
			c.offer(s, person("user_1", 1), clerksync.Created)
			notAfter := []time.Time{hour(3), hour(3).Add(time.Microsecond), hour(2), time.Unix(0, 0), {}}
			for _, id := range []string{"user_1", "user_2"} { // with a record, without
				c.deactivate(s, id, hour(3))
				for _, before := range notAfter {
					c.restore(s, id, before, false)
				}
			}
		},
	},
	{
		name:  "RestoreLeavesTheOthers",
		rule:  "Restore does nothing if the record is not deleted or does not exist",
		needs: restores,
		run: func(c *check) {
			s := c.restoring()
			c.offer(s, person("user_1", 5), clerksync.Created) // version 5 is banned
			c.restore(s, "user_1", hour(9), false)
			c.restore(s, "user_2", hour(9), false)
			c.offer(s, person("user_2", 1), clerksync.Created)
		},
	},
	{
		name:  "RestoreLeavesTheSuspended",
		rule:  "a user whom the app suspended is not deleted, and stays suspended",
		needs: restores | raw,
		run: func(c *check) {
			s := c.raw()
			c.offer(s, person("user_1", 1), clerksync.Created)
			c.set(s, "user_1", map[string]any{"isActive": false})
			c.restore(s.(clerksync.RestoreStore), "user_1", hour(9), false)
		},
	},
	{
		name:  "RestoredRecordIsLikeAny",
		rule:  "a restored record is older than any version, then follows the rules of Upsert and Deactivate",
		needs: restores,
		run: func(c *check) {
			s := c.restoring()
			u := person("user_1", 2)
			c.offer(s, u, clerksync.Created)
			c.deactivate(s, "user_1", hour(3))
			c.restore(s, "user_1", hour(4), true)
			c.offer(s, u, clerksync.Updated)
			c.offer(s, u, clerksync.Unchanged)
			c.offer(s, person("user_1", 1), clerksync.Stale)
			other := person("user_1", 2)
			other.Name, other.SyncedAt = "other", hour(5)
			c.offer(s, other, clerksync.Updated)
			c.offer(s, person("user_1", 6), clerksync.Updated)
			c.deactivate(s, "user_1", hour(7))
			c.offer(s, person("user_1", 8), clerksync.Deactivated)
			c.restore(s, "user_1", hour(7), false)
			c.restore(s, "user_1", hour(8), true)
		},
	},
	{
		name:  "RestoredTombstoneBecomesWhole",
		rule:  "a tombstone of a user who never had a record can be restored, and the next Upsert fills it",
		needs: restores,
		run: func(c *check) {
			s := c.restoring()
			c.deactivate(s, "user_1", hour(3))
			c.restore(s, "user_1", hour(4), true)
			c.offer(s, person("user_1", 1), clerksync.Updated)
			c.offer(s, person("user_1", 1), clerksync.Unchanged)
		},
	},
	{
		name:  "RestoreTouchesNoMore",
		rule:  "Restore removes deletedAt and leaves the app's fields and those that clerksync does not know",
		needs: restores | raw | foreign,
		run: func(c *check) {
			s := c.raw()
			c.offer(s, person("user_1", 1), clerksync.Created)
			c.set(s, "user_1", strangeFields)
			c.set(s, "user_1", map[string]any{"role": "ADMIN", "location.city": "Turin"})
			c.deactivate(s, "user_1", hour(3))
			before := c.fields(s, "user_1")
			c.restore(s.(clerksync.RestoreStore), "user_1", hour(4), true)
			after := c.fields(s, "user_1")
			c.untouched("after a Restore", after, before, append(deleted, "clerkUpdatedAt")...)
			if v, ok := after["deletedAt"]; ok {
				c.errorf("the restored record has deletedAt %#v", v)
			}
		},
	},
	{
		name:  "RestoreChecksItsArguments",
		rule:  "an empty id is an error; with a done context Restore returns its error and changes nothing",
		needs: restores,
		run: func(c *check) {
			s := c.restoring()
			c.offer(s, person("user_1", 1), clerksync.Created)
			before := c.deactivate(s, "user_1", hour(3))
			restored, err := s.Restore(c.t.Context(), "", hour(4))
			c.rejected("Restore without a ClerkID", err, before)
			if restored {
				c.errorf("Restore without a ClerkID reports a restored record")
			}
			for _, done := range []struct {
				ctx  context.Context
				want error
			}{{cancelled(c), context.Canceled}, {expired(c), context.DeadlineExceeded}} {
				restored, err := s.Restore(done.ctx, "user_1", hour(4))
				if !errors.Is(err, done.want) || restored {
					c.errorf("Restore with a done context: %t, %v, want an error matching %v",
						restored, err, done.want)
				}
			}
			c.same("the record after such calls", c.record(s, "user_1"), before)
		},
	},
	{
		name:  "ConcurrentRestores",
		rule:  "if many restore a record at once, one reports that it did",
		needs: restores,
		run: func(c *check) {
			s := c.restoring()
			for round := range rounds() {
				id := fmt.Sprint("user_", round)
				c.offer(s, person(id, 1), clerksync.Created)
				c.deactivate(s, id, hour(2))
				var restored atomic.Int64
				c.concurrently(workers(), func(int) {
					ok, err := s.Restore(c.t.Context(), id, hour(3))
					if err != nil {
						c.errorf("a concurrent Restore: %v", err)
					}
					if ok {
						restored.Add(1)
					}
				})
				if n := restored.Load(); n != 1 {
					c.errorf("of %d Restores %d report that they restored the record, want one", workers(), n)
				}
				c.offer(s, person(id, 1), clerksync.Updated)
				c.endsAs(s, person(id, 1))
			}
		},
	},
	{
		name:  "ConcurrentRestoreAndDeletion",
		rule:  "during restores and deletions a record is always either active or deleted",
		needs: restores,
		run: func(c *check) {
			s := c.restoring()
			for round := range rounds() {
				id := fmt.Sprint("user_", round)
				c.offer(s, person(id, 1), clerksync.Created)
				c.concurrently(workers(), func(i int) {
					var err error
					if i%2 == 0 {
						_, err = s.Deactivate(c.t.Context(), id, hour(2))
					} else {
						_, err = s.Restore(c.t.Context(), id, hour(3))
					}
					if err != nil {
						c.errorf("a concurrent Deactivate or Restore: %v", err)
					}
					got, err := s.User(c.t.Context(), id)
					if err != nil {
						c.errorf("User during deletions and restores: %v", err)
					} else if got.IsActive != got.DeletedAt.IsZero() {
						c.errorf("the record has DeletedAt %v and IsActive %t", got.DeletedAt, got.IsActive)
					}
				})
				if got := c.record(s, id); !got.DeletedAt.IsZero() {
					c.restore(s, id, hour(3), true)
				}
				c.offer(s, person(id, 1), clerksync.Updated)
				c.endsAs(s, person(id, 1))
			}
		},
	},
}
