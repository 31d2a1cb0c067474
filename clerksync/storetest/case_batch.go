package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// batch returns a new Store for a case about BatchStore.
func (c *check) batch() clerksync.BatchStore { return c.newStore().(clerksync.BatchStore) }

// offerBatch calls UpsertBatch and checks the outcomes, and each Result against its record.
func (c *check) offerBatch(s clerksync.BatchStore, us []*clerksync.User, want ...clerksync.Outcome) {
	c.t.Helper()
	results, err := s.UpsertBatch(c.t.Context(), us)
	if err != nil {
		c.fatalf("UpsertBatch of %d: %v", len(us), err)
	}
	c.results(s, us, results, want...)
}

// results checks what an UpsertBatch of us returned and left.
func (c *check) results(
	s clerksync.BatchStore, us []*clerksync.User, results []clerksync.Result, want ...clerksync.Outcome,
) {
	c.t.Helper()
	got := make([]clerksync.Outcome, len(results))
	for i, res := range results {
		got[i] = res.Outcome
	}
	if !slices.Equal(got, want) {
		c.errorf("UpsertBatch: outcomes %v, want %v", got, want)
		return
	}
	count := make(map[string]int)
	for _, u := range us {
		count[u.ClerkID]++
	}
	stored := c.records(s, slices.Sorted(maps.Keys(count)))
	for i, res := range results {
		id := us[i].ClerkID
		switch {
		case res.User == nil:
		case res.User.ClerkID != id:
			c.errorf("UpsertBatch: result %d is of %q, want %q", i, res.User.ClerkID, id)
		case count[id] == 1: // otherwise a later element may have changed the record
			c.result(res, stored[id])
		}
	}
}

// few is how many records are read one by one: a Store that scans takes long for each.
const few = 20

// records returns the records of these users, which must exist.
func (c *check) records(s clerksync.BatchStore, ids []string) map[string]*clerksync.User {
	c.t.Helper()
	records := make(map[string]*clerksync.User)
	if len(ids) <= few {
		for _, id := range ids {
			records[id] = c.record(s, id)
		}
		return records
	}
	records, err := s.Users(c.t.Context(), ids)
	if err != nil {
		c.fatalf("Users of %d: %v", len(ids), err)
	}
	for _, id := range ids {
		if records[id] == nil {
			c.fatalf("Users of %d does not return the record of %q", len(ids), id)
		}
		c.wellFormed("Users", id, records[id])
	}
	return records
}

// undeleted checks that Undeleted yields the stamps of exactly these users.
func (c *check) undeleted(s clerksync.BatchStore, ids ...string) {
	c.t.Helper()
	var got []string
	for st, err := range s.Undeleted(c.t.Context()) {
		if err != nil {
			c.fatalf("Undeleted: %v", err)
		}
		got = append(got, st.ClerkID)
		if len(ids) <= few {
			if want := stampOf(c.record(s, st.ClerkID)); !reflect.DeepEqual(st, want) {
				c.errorf("Undeleted yields %+v, want %+v", st, want)
			}
		}
	}
	if want := slices.Sorted(slices.Values(ids)); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		c.errorf("Undeleted yields %d: %s\nwant %d: %s", len(got), shorten(got), len(want), shorten(want))
	}
}

// stamps checks that Users and Stamps agree with User.
func (c *check) stamps(s clerksync.BatchStore, ids ...string) {
	c.t.Helper()
	users, err := s.Users(c.t.Context(), ids)
	if err != nil {
		c.fatalf("Users of %d: %v", len(ids), err)
	}
	stamps, err := s.Stamps(c.t.Context(), ids)
	if err != nil {
		c.fatalf("Stamps of %d: %v", len(ids), err)
	}
	known := make(map[string]bool)
	for _, id := range ids {
		want := c.find(s, id)
		got, ok := users[id]
		if ok != (want != nil) {
			c.errorf("Users has %q: %t; User has it: %t", id, ok, want != nil)
		}
		c.same("Users["+id+"] against User", got, want)
		stamp, ok := stamps[id]
		if ok != (want != nil) {
			c.errorf("Stamps has %q: %t; User has it: %t", id, ok, want != nil)
		}
		if want != nil {
			known[id] = true
			if !reflect.DeepEqual(stamp, stampOf(want)) {
				c.errorf("Stamps[%q] is %+v, want %+v", id, stamp, stampOf(want))
			}
		}
	}
	if len(users) != len(known) || len(stamps) != len(known) {
		c.errorf("of %d records Users has %d and Stamps %d", len(known), len(users), len(stamps))
	}
}

func stampOf(u *clerksync.User) clerksync.Stamp {
	return clerksync.Stamp{
		ClerkID:        u.ClerkID,
		ClerkUpdatedAt: u.ClerkUpdatedAt, SyncedAt: u.SyncedAt, CreatedAt: u.CreatedAt, DeletedAt: u.DeletedAt,
		IsActive: u.IsActive,
	}
}

func shorten(ids []string) string {
	if len(ids) > 12 {
		return strings.Join(ids[:12], " ") + " …"
	}
	return strings.Join(ids, " ")
}

// manyPeople returns users in random order, whose ids differ in case.
func manyPeople(version int) (ids []string, us []*clerksync.User) {
	for _, i := range random(1).Perm(many()) {
		id := fmt.Sprintf("user_%c%04d", "aAzZ"[i%4], i)
		ids = append(ids, id)
		us = append(us, plainPerson(id, version))
	}
	return ids, us
}

// allOf repeats an outcome for each of manyPeople.
func allOf(o clerksync.Outcome) []clerksync.Outcome {
	return slices.Repeat([]clerksync.Outcome{o}, many())
}

// batchCases are about the methods of BatchStore.
var batchCases = []testCase{
	{
		name:  "BatchEqualsOneByOne",
		rule:  "UpsertBatch does what Upsert does for each user in turn",
		needs: batch,
		run: func(c *check) {
			for seed := range uint64(rounds()) {
				rnd := random(seed)
				one, s := c.batch(), c.batch()
				for range 3 {
					if rnd.IntN(2) == 0 {
						id := fmt.Sprint("user_", rnd.IntN(12))
						c.deactivate(one, id, hour(7))
						c.deactivate(s, id, hour(7))
					}
					var us []*clerksync.User
					var want []clerksync.Outcome
					for range rnd.IntN(12) {
						u := person(fmt.Sprint("user_", rnd.IntN(12)), rnd.IntN(6))
						u.SyncedAt = hour(rnd.IntN(9))
						if rnd.IntN(3) == 0 {
							u.Name, u.Extra = "other", map[string]any{"beta": rnd.IntN(2)}
						}
						if rnd.IntN(5) == 0 {
							u.ClerkUpdatedAt = time.Time{}
						}
						u.Role, u.RoleFromClerk = clerksync.RoleAdmin, rnd.IntN(4) == 0
						res, err := one.Upsert(c.t.Context(), u)
						if err != nil {
							c.fatalf("Upsert: %v", err)
						}
						us, want = append(us, u), append(want, res.Outcome)
					}
					c.offerBatch(s, us, want...)
				}
				for i := range 12 {
					id := fmt.Sprint("user_", i)
					got, want := c.find(s, id), c.find(one, id)
					if got != nil && want != nil {
						want.ID, want.CreatedAt, want.UpdatedAt = got.ID, got.CreatedAt, got.UpdatedAt
					}
					c.same("the record after batches against the record after single Upserts", got, want)
				}
			}
		},
	},
	{
		name:  "BatchOfOneUser",
		rule:  "if a user is in a batch several times, the batch's order counts",
		needs: batch,
		run: func(c *check) {
			s := c.batch()
			other := person("user_1", 3)
			other.Name, other.SyncedAt = "other", other.SyncedAt.Add(time.Second)
			c.offerBatch(s,
				[]*clerksync.User{
					person("user_1", 2), person("user_1", 2), person("user_1", 3),
					person("user_1", 1), other, person("user_1", 3),
				},
				clerksync.Created, clerksync.Unchanged, clerksync.Updated,
				clerksync.Stale, clerksync.Updated, clerksync.Unchanged)
			c.endsAs(s, other)
		},
	},
	{
		name:  "BatchKeepsTheRules",
		rule:  "each rule of Upsert holds in a batch",
		needs: batch,
		run: func(c *check) {
			s := c.batch()
			for _, id := range []string{"newer", "older", "equal", "differing", "deleted"} {
				c.offer(s, person(id, 2), clerksync.Created)
			}
			c.deactivate(s, "deleted", hour(3))
			c.deactivate(s, "tombstone", hour(3))
			differing := person("differing", 2)
			differing.Name = "other"
			role := person("newer", 3)
			role.Role, role.IsActive = clerksync.RoleAdmin, false
			c.offerBatch(s,
				[]*clerksync.User{
					person("new", 1), role, person("older", 1), person("equal", 2),
					differing, person("deleted", 9), person("tombstone", 9),
				},
				clerksync.Created, clerksync.Updated, clerksync.Stale, clerksync.Unchanged,
				clerksync.Updated, clerksync.Deactivated, clerksync.Deactivated)
			c.endsAs(s, person("new", 1))
			c.endsAs(s, person("newer", 3))
			c.endsAs(s, person("older", 2))
			c.endsAs(s, person("equal", 2))
			c.endsAs(s, differing)
			if got := c.record(s, "tombstone"); got.Email != "" || got.DeletedAt.IsZero() {
				c.errorf("the tombstone after a batch has e-mail %q (deleted at %v)", got.Email, got.DeletedAt)
			}
		},
	},
	{
		name:  "BatchMayBeEmpty",
		rule:  "empty arguments are valid and return empty results",
		needs: batch,
		run: func(c *check) {
			s := c.batch()
			c.undeleted(s)
			for _, none := range [][]*clerksync.User{nil, {}} {
				c.offerBatch(s, none)
			}
			c.stamps(s)
			c.stamps(s, "user_1", "")
		},
	},
	{
		name:  "BatchErrorSaysWhich",
		rule:  "an invalid user does not stop the others, and the error says which one it is",
		needs: batch,
		run: func(c *check) {
			s := c.batch()
			c.offer(s, person("user_2", 1), clerksync.Created)
			invalid := person("user_2", 2)
			invalid.Extra = map[string]any{"a.b": 1}
			us := []*clerksync.User{
				person("user_1", 1), person("", 1), invalid, person("user_3", 1), invalid, person("user_2", 3),
			}
			results, err := s.UpsertBatch(c.t.Context(), us)
			var be *clerksync.BatchError
			if !errors.As(err, &be) {
				c.fatalf("UpsertBatch with invalid users: %v, want a *BatchError", err)
			}
			for i := range us {
				if wrong := i == 1 || i == 2 || i == 4; wrong != (be.Errs[i] != nil) {
					c.errorf("BatchError.Errs[%d]: %v", i, be.Errs[i])
				} else if wrong {
					c.rejected("UpsertBatch", be.Errs[i], us[i])
				}
			}
			if len(results) != len(us) {
				c.fatalf("UpsertBatch of %d returns %d results with its BatchError", len(us), len(results))
			}
			wanted := map[int]clerksync.Outcome{0: clerksync.Created, 3: clerksync.Created, 5: clerksync.Updated}
			for i, want := range wanted {
				if results[i].Outcome != want {
					c.errorf("result %d next to a BatchError is %v, want %v", i, results[i].Outcome, want)
				}
			}
			c.endsAs(s, us[0])
			c.endsAs(s, us[3])
			c.endsAs(s, us[5])
		},
	},
	{
		name:  "BatchArgumentsAreTheCallers",
		rule:  "UpsertBatch neither modifies nor keeps its argument",
		needs: batch,
		run: func(c *check) {
			s := c.batch()
			us := []*clerksync.User{nonCanonical("user_1"), nonCanonical("user_2"), nonCanonical("user_1")}
			backing := slices.Clone(us)
			c.offerBatch(s, us, clerksync.Created, clerksync.Created, clerksync.Unchanged)
			stored := c.record(s, "user_1")
			for i, u := range us {
				if u != backing[i] {
					c.errorf("UpsertBatch replaced element %d of its argument", i)
				}
				c.same("an argument of UpsertBatch", u, nonCanonical(u.ClerkID))
				u.Name, u.Location.City = "changed", "changed"
				u.Extra["strings"].([]string)[0] = "changed"
				u.Extra["nested"].(map[string]any)["new"] = "changed"
			}
			c.same("the record after the batch was changed", c.record(s, "user_1"), stored)
		},
	},
	{
		name:  "BatchOfMany",
		rule:  "a large batch is written and read completely",
		needs: batch,
		run: func(c *check) {
			s := c.batch()
			ids, us := manyPeople(2)
			c.offerBatch(s, us, allOf(clerksync.Created)...)
			// One batch of equal, older and newer versions.
			_, older := manyPeople(1)
			_, newer := manyPeople(3)
			mixed, outcomes := slices.Clone(us), allOf(clerksync.Unchanged)
			versions := make(map[string]time.Time)
			for i, u := range us {
				versions[u.ClerkID] = hour(2)
				switch i % 3 {
				case 1:
					mixed[i], outcomes[i] = older[i], clerksync.Stale
				case 2:
					mixed[i], outcomes[i] = newer[i], clerksync.Updated
					versions[u.ClerkID] = hour(3)
				}
			}
			c.offerBatch(s, mixed, outcomes...)
			gone := ids[:3]
			for _, id := range gone {
				c.deactivate(s, id, hour(9))
			}
			c.undeleted(s, ids[3:]...)
			users, err := s.Users(c.t.Context(), append(ids[:many():many()], "user_missing"))
			if err != nil || len(users) != many() {
				c.errorf("Users of %d: %d, %v", many(), len(users), err)
			}
			stamps, err := s.Stamps(c.t.Context(), append(ids[:many():many()], "user_missing"))
			if err != nil || len(stamps) != many() {
				c.errorf("Stamps of %d: %d, %v", many(), len(stamps), err)
			}
			for _, id := range ids {
				if u := users[id]; u == nil || !u.ClerkUpdatedAt.Equal(versions[id]) || stamps[id] != stampOf(u) {
					c.fatalf("%q: Users has %s, Stamps has %+v", id, describe(users[id]), stamps[id])
				}
			}
		},
	},
	{
		name:  "BatchUsersAndStamps",
		rule:  "Users and Stamps return what User returns: deleted users too, unknown ones not",
		needs: batch,
		run: func(c *check) {
			s := c.batch()
			u := person("user_1", 1)
			u.Extra = richExtra()
			c.offer(s, u, clerksync.Created)
			c.offer(s, &clerksync.User{ClerkID: "user_2"}, clerksync.Created)
			c.offer(s, person("user_3", 5), clerksync.Created)
			c.deactivate(s, "user_3", hour(6))
			c.deactivate(s, "user_4", hour(6))
			for i, id := range oddIDs {
				c.offer(s, plainPerson(id, i), clerksync.Created)
			}
			c.stamps(s, "user_1")
			ids := []string{"user_1", "user_2", "user_3", "user_4", "user_5", "user_1", "USER_1", ""}
			c.stamps(s, append(ids, oddIDs...)...)
		},
	},
	{
		name:  "BatchUndeleted",
		rule:  "Undeleted yields each record that is not deleted once",
		needs: batch,
		run: func(c *check) {
			s := c.batch()
			ids := []string{"user_b", "user_B", "user_a", "user_10", "user_9", "User_z", "user_", "user_aa", "userz"}
			for i, id := range ids {
				c.offer(s, person(id, i), clerksync.Created) // version 5 is banned
			}
			c.offer(s, person("user_gone", 1), clerksync.Created)
			c.deactivate(s, "user_gone", hour(2))
			c.deactivate(s, "user_tombstone", hour(2))
			c.undeleted(s, ids...)
			c.undeleted(s, ids...)
		},
	},
	{
		name:  "BatchUndeletedMayStop",
		rule:  "a caller may stop an iteration early, and may call the Store during one",
		needs: batch,
		run: func(c *check) {
			s := c.batch()
			ids := []string{"user_1", "user_2", "user_3"}
			for _, id := range ids {
				c.offer(s, person(id, 1), clerksync.Created)
			}
			seq := s.Undeleted(c.t.Context())
			for range 3 {
				for st, err := range seq {
					if err != nil || !slices.Contains(ids, st.ClerkID) {
						c.errorf("Undeleted begins with %q, %v", st.ClerkID, err)
					}
					break
				}
			}
			updated := make(map[string]bool)
			for st, err := range seq {
				if err != nil {
					c.fatalf("Undeleted during updates: %v", err)
				}
				if !updated[st.ClerkID] { // a record that was written may come again
					c.offer(s, person(st.ClerkID, 2), clerksync.Updated)
				}
				updated[st.ClerkID] = true
			}
			if len(updated) != len(ids) {
				c.errorf("Undeleted during updates yielded %d records, want %d", len(updated), len(ids))
			}
			for st, err := range seq {
				if err != nil {
					c.fatalf("Undeleted during deletions: %v", err)
				}
				c.deactivate(s, st.ClerkID, hour(3))
			}
			c.undeleted(s)
		},
	},
	{
		name:  "BatchDoneContext",
		rule:  "with a done context every batch method returns the context's error and changes nothing",
		needs: batch,
		run: func(c *check) {
			s := c.batch()
			before := c.offer(s, person("user_1", 1), clerksync.Created)
			for _, done := range []struct {
				ctx  context.Context
				want error
			}{{cancelled(c), context.Canceled}, {expired(c), context.DeadlineExceeded}} {
				fails := func(method string, err error) {
					if !errors.Is(err, done.want) {
						c.errorf("%s with a done context: %v, want an error matching %v", method, err, done.want)
					}
				}
				_, err := s.UpsertBatch(done.ctx, []*clerksync.User{person("user_1", 2), person("user_2", 2)})
				fails("UpsertBatch", err)
				_, err = s.Users(done.ctx, []string{"user_1"})
				fails("Users", err)
				_, err = s.Stamps(done.ctx, []string{"user_1"})
				fails("Stamps", err)
				err = nil
				for _, e := range s.Undeleted(done.ctx) {
					if e == nil {
						c.errorf("Undeleted yields a record with a done context")
					}
					if err != nil {
						c.errorf("Undeleted continues after an error")
					}
					err = e
				}
				fails("Undeleted", err)
			}
			c.same("the record after calls with a done context", c.find(s, "user_1"), before)
			c.same("the record that such calls must not create", c.find(s, "user_2"), nil)
		},
	},
	{
		name:  "BatchUndeletedIsNeverCutShort",
		rule:  "an iteration whose context ends yields every record or an error",
		needs: batch,
		run: func(c *check) {
			s := c.batch()
			_, us := manyPeople(1)
			c.offerBatch(s, us, allOf(clerksync.Created)...)
			for _, after := range []int{1, many() / 2, many()} {
				ctx, cancel := context.WithCancel(c.t.Context())
				n, err := 0, error(nil)
				for _, e := range s.Undeleted(ctx) {
					if err != nil {
						c.errorf("Undeleted continues after an error")
					}
					if err = e; e == nil {
						n++
					}
					if n == after {
						cancel()
					}
				}
				cancel()
				switch {
				case err == nil && n != many():
					c.errorf("after its context was cancelled, Undeleted yielded %d of %d records and no error",
						n, many())
				case err != nil && !errors.Is(err, context.Canceled):
					c.errorf("Undeleted: %v, want an error matching context.Canceled", err)
				}
			}
		},
	},
	{
		name:  "ConcurrentBatches",
		rule:  "batches of the same users in different orders do not make each other fail",
		needs: batch,
		run: func(c *check) {
			s := c.batch()
			const users = 12
			versions := workers() / 2
			tallies := make([]tally, users)
			c.concurrently(versions, func(version int) {
				var us []*clerksync.User
				order := random(uint64(version)).Perm(users)
				for _, i := range order {
					us = append(us, person(fmt.Sprint("user_", i), version))
				}
				results, err := s.UpsertBatch(c.t.Context(), us)
				if err != nil || len(results) != users {
					c.errorf("a concurrent UpsertBatch: %d results, %v", len(results), err)
					return
				}
				for i, res := range results {
					tallies[order[i]].add(res.Outcome)
				}
			})
			for i := range tallies {
				c.oneCreated(&tallies[i])
				c.endsAs(s, person(fmt.Sprint("user_", i), versions-1))
			}
		},
	},
}
