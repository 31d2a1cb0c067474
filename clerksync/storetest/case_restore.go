package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// restoring returns a fresh Store for a case of RestoreStore.
func (c *check) restoring() clerksync.RestoreStore { return c.newStore().(clerksync.RestoreStore) }

// restore is Restore with what it must report, and with the checks of offer.
func (c *check) restore(s clerksync.RestoreStore, id string, before time.Time, want bool) {
	c.Helper()
	was := c.find(s, id)
	tick()
	got, err := s.Restore(c.Context(), id, before)
	if err != nil {
		c.fatalf("Restore of %s: %v", describe(was), err)
	}
	if got != want {
		c.errorf("Restore of %s before %v reports %t, want %t", describe(was), before, got, want)
	}
	after, expected := c.find(s, id), was.Clone()
	if want && after != nil {
		if !after.UpdatedAt.After(was.UpdatedAt) {
			c.errorf("UpdatedAt of a restored record is %v, and was %v before", after.UpdatedAt, was.UpdatedAt)
		}
		expected.IsActive, expected.DeletedAt, expected.UpdatedAt, expected.ClerkUpdatedAt = true, time.Time{}, after.UpdatedAt, time.Time{}
	}
	c.same(fmt.Sprintf("the record after a Restore that is to report %t", want), after, expected)
}

// The method of RestoreStore.
var restoreCases = []testCase{
	{"RestoreBringsBack", "a record deleted before the given time is active again, and otherwise as it was, but for its version", restores, func(c *check) {
		s := c.restoring()
		for n, id := range []string{"user_1", "user_2"} {
			c.offer(s, person(id, n), clerksync.Created)
			c.delete(s, id, hour(3))
		}
		c.restore(s, "user_1", hour(3).Add(time.Millisecond), true)
		c.restore(s, "user_1", hour(4), false)
		if got := c.record(s, "user_2"); got.DeletedAt.IsZero() {
			c.errorf("the Restore of one record brought another one back")
		}
	}},
	{"RestoreLeavesLaterDeletions", "a record that was not deleted before the given time stays deleted", restores, func(c *check) {
		s := c.restoring()
		c.offer(s, person("user_1", 1), clerksync.Created)
		for _, id := range []string{"user_1", "user_2"} { // with a record, without
			c.delete(s, id, hour(3))
			for _, before := range []time.Time{hour(3), hour(3).Add(time.Microsecond), hour(2), time.Unix(0, 0), {}} {
				c.restore(s, id, before, false)
			}
		}
	}},
	{"RestoreLeavesTheOthers", "there is nothing to restore of a record that is not deleted, or not there", restores, func(c *check) {
		s := c.restoring()
		c.offer(s, person("user_1", 5), clerksync.Created) // version 5 is banned
		c.restore(s, "user_1", hour(9), false)
		c.restore(s, "user_2", hour(9), false)
		c.offer(s, person("user_2", 1), clerksync.Created)
	}},
	{"RestoreLeavesTheSuspended", "a user whom the app suspended is not deleted, and stays suspended", restores | raw, func(c *check) {
		s := c.raw()
		c.offer(s, person("user_1", 1), clerksync.Created)
		c.set(s, "user_1", map[string]any{"isActive": false})
		c.restore(s.(clerksync.RestoreStore), "user_1", hour(9), false)
	}},
	{"RestoredRecordIsLikeAny", "a restored record is older than any, and then the rules of Upsert and Deactivate hold for it", restores, func(c *check) {
		s := c.restoring()
		u := person("user_1", 2)
		c.offer(s, u, clerksync.Created)
		c.delete(s, "user_1", hour(3))
		c.restore(s, "user_1", hour(4), true)
		c.offer(s, u, clerksync.Updated)
		c.offer(s, u, clerksync.Unchanged)
		c.offer(s, person("user_1", 1), clerksync.Stale)
		other := person("user_1", 2)
		other.Name, other.SyncedAt = "other", hour(5)
		c.offer(s, other, clerksync.Updated)
		c.offer(s, person("user_1", 6), clerksync.Updated)
		c.delete(s, "user_1", hour(7))
		c.offer(s, person("user_1", 8), clerksync.Deactivated)
		c.restore(s, "user_1", hour(7), false)
		c.restore(s, "user_1", hour(8), true)
	}},
	{"RestoredTombstoneBecomesWhole", "a tombstone of a user who never had a record can be restored, and the next Upsert fills it", restores, func(c *check) {
		s := c.restoring()
		c.delete(s, "user_1", hour(3))
		c.restore(s, "user_1", hour(4), true)
		c.offer(s, person("user_1", 1), clerksync.Updated)
		c.offer(s, person("user_1", 1), clerksync.Unchanged)
	}},
	{"RestoreTouchesNoMore", "a Restore leaves what the app owns and what clerksync does not know, and no deletedAt", restores | raw | foreign, func(c *check) {
		s := c.raw()
		c.offer(s, person("user_1", 1), clerksync.Created)
		c.set(s, "user_1", strangeFields)
		c.set(s, "user_1", map[string]any{"role": "ADMIN", "location.city": "Turin"})
		c.delete(s, "user_1", hour(3))
		before := c.fields(s, "user_1")
		c.restore(s.(clerksync.RestoreStore), "user_1", hour(4), true)
		after := c.fields(s, "user_1")
		c.untouched("after a Restore", after, before, append(deleted, "clerkUpdatedAt")...)
		if v, ok := after["deletedAt"]; ok {
			c.errorf("the restored record has deletedAt, as %#v", v)
		}
	}},
	{"RestoreChecksItsArguments", "an empty id is an error, and with a context that is done Restore returns its cause and has changed nothing", restores, func(c *check) {
		s := c.restoring()
		c.offer(s, person("user_1", 1), clerksync.Created)
		before := c.delete(s, "user_1", hour(3))
		restored, err := s.Restore(c.Context(), "", hour(4))
		c.refused("Restore without a ClerkID", err, before)
		if restored {
			c.errorf("Restore without a ClerkID reports that it restored")
		}
		for _, done := range []struct {
			ctx  context.Context
			want error
		}{{cancelled(c), context.Canceled}, {expired(c), context.DeadlineExceeded}} {
			restored, err := s.Restore(done.ctx, "user_1", hour(4))
			if !errors.Is(err, done.want) || restored {
				c.errorf("Restore with a context that is done: %t, %v, want an error matching %v", restored, err, done.want)
			}
		}
		c.same("the record after such calls", c.record(s, "user_1"), before)
	}},
	{"ConcurrentRestores", "of many who restore a record one reports that it did", restores, func(c *check) {
		s := c.restoring()
		for round := range rounds() {
			id := fmt.Sprint("user_", round)
			c.offer(s, person(id, 1), clerksync.Created)
			c.delete(s, id, hour(2))
			var restored atomic.Int64
			c.together(workers(), func(int) {
				ok, err := s.Restore(c.Context(), id, hour(3))
				if err != nil {
					c.errorf("Restore beside others: %v", err)
				}
				if ok {
					restored.Add(1)
				}
			})
			if n := restored.Load(); n != 1 {
				c.errorf("of %d Restores %d report that they did it, want one", workers(), n)
			}
			c.offer(s, person(id, 1), clerksync.Updated)
			c.ends(s, person(id, 1))
		}
	}},
	{"ConcurrentRestoreAndDeletion", "a record that is restored and deleted at once is one or the other, whenever it is read", restores, func(c *check) {
		s := c.restoring()
		for round := range rounds() {
			id := fmt.Sprint("user_", round)
			c.offer(s, person(id, 1), clerksync.Created)
			c.together(workers(), func(i int) {
				var err error
				if i%2 == 0 {
					_, err = s.Deactivate(c.Context(), id, hour(2))
				} else {
					_, err = s.Restore(c.Context(), id, hour(3))
				}
				if err != nil {
					c.errorf("Deactivate or Restore beside others: %v", err)
				}
				got, err := s.User(c.Context(), id)
				if err != nil {
					c.errorf("User beside a Deactivate and a Restore: %v", err)
				} else if got.IsActive != got.DeletedAt.IsZero() {
					c.errorf("the record has DeletedAt %v and IsActive %t", got.DeletedAt, got.IsActive)
				}
			})
			if got := c.record(s, id); !got.DeletedAt.IsZero() {
				c.restore(s, id, hour(3), true)
			}
			c.offer(s, person(id, 1), clerksync.Updated)
			c.ends(s, person(id, 1))
		}
	}},
}
