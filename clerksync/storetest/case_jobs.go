package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// jobStore is what the cases about jobs and Restore need.
type jobStore interface {
	clerksync.JobStore
	clerksync.RestoreStore
}

func (c *check) jobbing() clerksync.JobStore { return c.newStore().(clerksync.JobStore) }

// owing is person for an Upsert that owes a create job, due at hour n.
func owing(id string, n int) *clerksync.User {
	u := person(id, n)
	u.CreateDue = hour(n)
	return u
}

// job returns the state of a user's job.
func (c *check) job(s clerksync.Store, id string, kind clerksync.JobKind) clerksync.JobState {
	c.t.Helper()
	return c.record(s, id).Jobs.Of(kind)
}

// hasJob checks the state of a user's job.
func (c *check) hasJob(s clerksync.Store, id string, kind clerksync.JobKind, want clerksync.JobState) {
	c.t.Helper()
	if got := c.job(s, id, kind); got != want {
		c.errorf("the %s job of %s is\n\t%+v, want\n\t%+v", kind, id, got, want)
	}
}

// deactivateOwing checks what a deletion owes.
func (c *check) deactivateOwing(s clerksync.JobStore, id string, at, due time.Time, want clerksync.Owing) {
	c.t.Helper()
	res, owes, err := s.DeactivateOwing(c.t.Context(), id, "", at, due)
	if err != nil {
		c.fatalf("DeactivateOwing: %v", err)
	}
	if res.Outcome != clerksync.Deactivated || owes != want {
		c.errorf("DeactivateOwing: outcome %v, owes %v; want %v and %v", res.Outcome, owes, clerksync.Deactivated, want)
	}
	after := c.record(s, id)
	c.result(res, after)
	if after.DeletedAt.IsZero() || after.IsActive {
		c.errorf("after DeactivateOwing the record has DeletedAt %v, IsActive %t", after.DeletedAt, after.IsActive)
	}
}

// change checks what ChangeJob reports, and that nothing but the job changes.
func (c *check) change(s clerksync.JobStore, change clerksync.JobChange, want bool) {
	c.t.Helper()
	before := c.find(s, change.ClerkID)
	got, err := s.ChangeJob(c.t.Context(), change)
	if err != nil {
		c.fatalf("ChangeJob: %v", err)
	}
	if got != want {
		c.errorf("ChangeJob of %+v\n\treports %t, want %t", change, got, want)
	}
	after := c.find(s, change.ClerkID)
	if before == nil || after == nil {
		c.same("the record after a ChangeJob", after, before)
		return
	}
	expected := before.Clone()
	if want {
		jobs := clerksync.Jobs{Create: before.Jobs.Of(clerksync.JobCreate), Delete: before.Jobs.Of(clerksync.JobDelete)}
		if change.Kind == clerksync.JobDelete {
			jobs.Delete = change.To
		} else {
			jobs.Create = change.To
		}
		if expected.Jobs = &jobs; jobs == (clerksync.Jobs{}) {
			expected.Jobs = nil
		}
	}
	c.same(fmt.Sprintf("the record after a ChangeJob that must report %t", want), after, expected)
}

// claim returns the change that claims a job as the record has it.
func (c *check) claim(s clerksync.Store, id string, kind clerksync.JobKind, token string, due time.Time) clerksync.JobChange {
	c.t.Helper()
	u := c.record(s, id)
	from := u.Jobs.Of(kind)
	to := from
	to.Attempt, to.Token, to.Due = from.Attempt+1, token, due
	return clerksync.JobChange{ClerkID: id, Kind: kind, From: from, To: to, DeletedAt: u.DeletedAt}
}

// ending is the change that ends an attempt.
func ending(claim clerksync.JobChange, to clerksync.JobState) clerksync.JobChange {
	return clerksync.JobChange{ClerkID: claim.ClerkID, Kind: claim.Kind, From: claim.To, To: to}
}

// due returns the ids of the users with due jobs.
func (c *check) due(s clerksync.JobStore, kind clerksync.JobKind, by time.Time, limit int) map[string]bool {
	c.t.Helper()
	entries, err := s.DueJobs(c.t.Context(), kind, by, limit)
	if err != nil {
		c.fatalf("DueJobs: %v", err)
	}
	ids := make(map[string]bool)
	for _, e := range entries {
		if ids[e.ClerkID] {
			c.errorf("DueJobs has the job of %s twice", e.ClerkID)
		}
		ids[e.ClerkID] = true
		if state := c.job(s, e.ClerkID, kind); e.Kind != kind || e.State != state {
			c.errorf("DueJobs has a %s job %+v of %s, want a %s job %+v", e.Kind, e.State, e.ClerkID, kind, state)
		}
	}
	return ids
}

// dueAre checks who has due jobs.
func (c *check) dueAre(s clerksync.JobStore, kind clerksync.JobKind, by time.Time, want ...string) {
	c.t.Helper()
	ids := make(map[string]bool)
	for _, id := range want {
		ids[id] = true
	}
	if got := c.due(s, kind, by, 100); !maps.Equal(got, ids) {
		c.errorf("%s jobs are due at %v for %v, want %v", kind, by, got, want)
	}
}

// dueAt is a time that a Store must keep in milliseconds.
func dueAt(n int) time.Time { return hour(n).Add(789 * time.Millisecond) }

// jobCases are about the methods of JobStore, and what the others do with jobs.
var jobCases = []testCase{
	{
		name:  "JobsCreateIsOwedByTheFirstInsert",
		rule:  "an Upsert that creates the record owes the create job that CreateDue asks for, and no other does",
		needs: jobs,
		run: func(c *check) {
			s := c.jobbing()
			u := person("user_1", 1)
			u.CreateDue = dueAt(1).Add(654321 * time.Nanosecond).In(time.FixedZone("", 3600))
			res, err := s.Upsert(c.t.Context(), u)
			if err != nil || res.Outcome != clerksync.Created {
				c.fatalf("Upsert: %v, %v", res.Outcome, err)
			}
			c.result(res, c.record(s, "user_1"))
			want := clerksync.JobState{Due: dueAt(1)}
			c.hasJob(s, "user_1", clerksync.JobCreate, want)
			for _, n := range []int{1, 2, 1} {
				if _, err := s.Upsert(c.t.Context(), owing("user_1", n)); err != nil {
					c.fatalf("Upsert: %v", err)
				}
				c.hasJob(s, "user_1", clerksync.JobCreate, want)
			}
		},
	},
	{
		name:  "JobsAreNotOwedByOthers",
		rule:  "a record that exists owes no create job, whatever an Upsert asks for, and nor does a user without CreateDue or a tombstone",
		needs: jobs,
		run: func(c *check) {
			s := c.jobbing()
			c.offer(s, person("user_1", 2), clerksync.Created)
			c.offer(s, owing("user_1", 2), clerksync.Unchanged)
			c.offer(s, owing("user_1", 3), clerksync.Updated)
			c.offer(s, owing("user_1", 1), clerksync.Stale)
			c.deactivate(s, "user_2", hour(1))
			c.offer(s, owing("user_2", 2), clerksync.Deactivated)
			c.deactivate(s, "user_1", hour(4))
			c.offer(s, owing("user_1", 5), clerksync.Deactivated)
			for _, id := range []string{"user_1", "user_2"} {
				if u := c.record(s, id); u.Jobs != nil {
					c.errorf("%s has the jobs %+v", id, *u.Jobs)
				}
			}
		},
	},
	{
		name:  "JobsCreateInABatch",
		rule:  "UpsertBatch owes the create jobs of those users whom it creates",
		needs: jobs | batch,
		run: func(c *check) {
			s := c.newStore().(clerksync.BatchStore)
			c.offer(s, person("user_1", 1), clerksync.Created)
			for range 2 {
				us := []*clerksync.User{owing("user_1", 2), owing("user_2", 2), person("user_3", 2), owing("user_2", 3)}
				if _, err := s.UpsertBatch(c.t.Context(), us); err != nil {
					c.fatalf("UpsertBatch: %v", err)
				}
				c.hasJob(s, "user_1", clerksync.JobCreate, clerksync.JobState{})
				c.hasJob(s, "user_2", clerksync.JobCreate, clerksync.JobState{Due: hour(2)})
				c.hasJob(s, "user_3", clerksync.JobCreate, clerksync.JobState{})
			}
		},
	},
	{
		name:  "JobsDeleteIsOwedByTheDeletion",
		rule:  "DeactivateOwing owes a delete job for its deletion, once, and leaves the create job in place",
		needs: jobs,
		run: func(c *check) {
			s := c.jobbing()
			c.offer(s, owing("user_1", 1), clerksync.Created)
			c.deactivateOwing(s, "user_1", hour(2), dueAt(3), clerksync.OwesJob)
			want := clerksync.JobState{Due: dueAt(3), DeletedAt: hour(2)}
			c.hasJob(s, "user_1", clerksync.JobDelete, want)
			c.hasJob(s, "user_1", clerksync.JobCreate, clerksync.JobState{Due: hour(1)})
			c.deactivateOwing(s, "user_1", hour(4), dueAt(5), clerksync.OwesNone)
			c.deactivate(s, "user_1", hour(4))
			c.hasJob(s, "user_1", clerksync.JobDelete, want)
			c.offer(s, person("user_2", 1), clerksync.Created)
			c.deactivate(s, "user_2", hour(2))
			c.deactivateOwing(s, "user_2", hour(3), dueAt(3), clerksync.OwesNone)
			c.hasJob(s, "user_2", clerksync.JobDelete, clerksync.JobState{})
		},
	},
	{
		name:  "JobsTombstoneOwesNone",
		rule:  "a deletion of a user without a record owes no job",
		needs: jobs,
		run: func(c *check) {
			s := c.jobbing()
			for range 2 {
				c.deactivateOwing(s, "user_1", hour(2), dueAt(2), clerksync.OwesNone)
				c.hasJob(s, "user_1", clerksync.JobDelete, clerksync.JobState{})
			}
			c.offer(s, person("user_1", 3), clerksync.Deactivated)
		},
	},
	{
		name:  "JobsChangeIsGuarded",
		rule:  "ChangeJob writes only if the job is as read, and the record deleted or not as read",
		needs: jobs,
		run: func(c *check) {
			s := c.jobbing()
			from := clerksync.JobState{Due: dueAt(1), Attempt: 3, Code: "error"}
			u := person("user_1", 1)
			u.CreateDue = dueAt(1)
			c.offer(s, u, clerksync.Created)
			first := clerksync.JobState{Due: dueAt(1)}
			c.change(s, clerksync.JobChange{ClerkID: "user_1", Kind: clerksync.JobCreate, From: first, To: from}, true)
			to := clerksync.JobState{Due: dueAt(2), Attempt: 4, Token: "t", Code: "error"}
			claim := clerksync.JobChange{ClerkID: "user_1", Kind: clerksync.JobCreate, From: from, To: to}
			for _, differs := range []func(*clerksync.JobChange){
				func(o *clerksync.JobChange) { o.From.Due = dueAt(2) },
				func(o *clerksync.JobChange) { o.From.Due = time.Time{} },
				func(o *clerksync.JobChange) { o.From.Attempt = 2 },
				func(o *clerksync.JobChange) { o.From.Attempt = 0 },
				func(o *clerksync.JobChange) { o.From.Token = "other" },
				func(o *clerksync.JobChange) { o.From.Code = "" },
				func(o *clerksync.JobChange) { o.From.FailedAt = dueAt(1) },
				func(o *clerksync.JobChange) { o.From.DeletedAt = dueAt(1) },
				func(o *clerksync.JobChange) { o.DeletedAt = hour(1) },
				func(o *clerksync.JobChange) { o.Kind = clerksync.JobDelete },
				func(o *clerksync.JobChange) { o.ClerkID = "user_2" },
			} {
				other := claim
				differs(&other)
				c.change(s, other, false)
			}
			c.change(s, claim, true)
			c.change(s, clerksync.JobChange{
				ClerkID: "user_1", Kind: clerksync.JobCreate, From: to,
				To: clerksync.JobState{Attempt: 4, FailedAt: dueAt(3), Code: "panic"},
			}, true)
		},
	},
	{
		name:  "JobsClaimOfTheDeletion",
		rule:  "a claim of a delete job fails if the record has another DeletedAt by now, or none",
		needs: jobs | restores,
		run: func(c *check) {
			s := c.newStore().(jobStore)
			c.offer(s, owing("user_1", 1), clerksync.Created)
			create := c.claim(s, "user_1", clerksync.JobCreate, "create", dueAt(9))
			c.deactivateOwing(s, "user_1", hour(2), hour(2), clerksync.OwesJob)
			c.change(s, create, false) // it was read before the deletion
			claim := c.claim(s, "user_1", clerksync.JobDelete, "delete", dueAt(9))
			other := claim
			other.DeletedAt = hour(3)
			c.change(s, other, false)
			other.DeletedAt = time.Time{}
			c.change(s, other, false)
			c.change(s, claim, true)
		},
	},
	{
		name:  "JobsEndOfAnAttempt",
		rule:  "the end of an attempt needs its token, and is written although the user was deleted meanwhile",
		needs: jobs,
		run: func(c *check) {
			s := c.jobbing()
			c.offer(s, owing("user_1", 1), clerksync.Created)
			claim := c.claim(s, "user_1", clerksync.JobCreate, "one", dueAt(9))
			c.change(s, claim, true)
			c.deactivateOwing(s, "user_1", hour(2), hour(2), clerksync.OwesJob)
			end := ending(claim, clerksync.JobState{Attempt: 1})
			other := end
			other.From.Token = "another"
			c.change(s, other, false)
			c.change(s, end, true)
		},
	},
	{
		name:  "JobsAreRemoved",
		rule:  "a change to the zero JobState removes the job and nothing else",
		needs: jobs,
		run: func(c *check) {
			s := c.jobbing()
			c.offer(s, owing("user_1", 1), clerksync.Created)
			c.deactivateOwing(s, "user_1", hour(2), hour(2), clerksync.OwesJob)
			u := c.record(s, "user_1")
			c.change(s, clerksync.JobChange{ClerkID: "user_1", Kind: clerksync.JobCreate, From: u.Jobs.Create, DeletedAt: u.DeletedAt}, true)
			c.change(s, clerksync.JobChange{ClerkID: "user_1", Kind: clerksync.JobDelete, From: u.Jobs.Delete, DeletedAt: u.DeletedAt}, true)
		},
	},
	{
		name:  "JobsSurviveSyncs",
		rule:  "no Upsert changes the jobs of a record",
		needs: jobs,
		run: func(c *check) {
			s := c.jobbing()
			c.offer(s, owing("user_1", 1), clerksync.Created)
			c.change(s, c.claim(s, "user_1", clerksync.JobCreate, "one", dueAt(9)), true)
			want := c.job(s, "user_1", clerksync.JobCreate)
			c.offer(s, person("user_1", 2), clerksync.Updated)
			other := person("user_1", 2)
			other.Name, other.SyncedAt, other.Jobs = "other", hour(3), &clerksync.Jobs{Create: clerksync.JobState{Due: hour(7)}}
			c.offer(s, other, clerksync.Updated)
			c.offer(s, other, clerksync.Unchanged)
			c.hasJob(s, "user_1", clerksync.JobCreate, want)
		},
	},
	{
		name:  "JobsDue",
		rule:  "DueJobs returns the owed jobs of a kind whose Due is not later, up to the limit",
		needs: jobs,
		run: func(c *check) {
			s := c.jobbing()
			for n, id := range []string{"user_0", "user_1", "user_2", "user_3"} {
				c.offer(s, owing(id, n), clerksync.Created)
			}
			c.offer(s, person("user_4", 1), clerksync.Created)
			c.deactivateOwing(s, "user_3", hour(4), hour(5), clerksync.OwesJob)
			c.dueAre(s, clerksync.JobCreate, hour(1), "user_0", "user_1")
			c.dueAre(s, clerksync.JobCreate, hour(1).Add(-time.Millisecond), "user_0")
			c.dueAre(s, clerksync.JobDelete, hour(4))
			c.dueAre(s, clerksync.JobDelete, hour(5), "user_3")
			if got := c.due(s, clerksync.JobCreate, hour(9), 2); len(got) != 2 {
				c.errorf("DueJobs with a limit of 2 returns %v", got)
			}
			claim := c.claim(s, "user_0", clerksync.JobCreate, "one", hour(6))
			c.change(s, claim, true)
			c.change(s, c.claim(s, "user_1", clerksync.JobCreate, "two", hour(6)), true)
			c.dueAre(s, clerksync.JobCreate, hour(5), "user_2", "user_3")
			c.change(s, ending(claim, clerksync.JobState{Attempt: 1}), true)
			c.dueAre(s, clerksync.JobCreate, hour(6), "user_1", "user_2", "user_3")
		},
	},
	{
		name:  "JobsDeleteWaitsForCreate",
		rule:  "DueJobs leaves out a delete job while the create job of the record is running",
		needs: jobs,
		run: func(c *check) {
			s := c.jobbing()
			c.offer(s, owing("user_1", 1), clerksync.Created)
			claim := c.claim(s, "user_1", clerksync.JobCreate, "one", hour(6))
			c.change(s, claim, true)
			c.deactivateOwing(s, "user_1", hour(2), hour(2), clerksync.OwesJob)
			c.dueAre(s, clerksync.JobDelete, hour(5))
			c.dueAre(s, clerksync.JobDelete, hour(6), "user_1")
			c.change(s, ending(claim, clerksync.JobState{Due: hour(7), Attempt: 1}), true)
			c.dueAre(s, clerksync.JobDelete, hour(5), "user_1")
		},
	},
	{
		name:  "JobsAreListed",
		rule:  "Jobs yields what is owed and what has failed, and not what has ended",
		needs: jobs,
		run: func(c *check) {
			s := c.jobbing()
			for n, id := range []string{"user_0", "user_1", "user_2"} {
				c.offer(s, owing(id, n), clerksync.Created)
			}
			c.offer(s, person("user_3", 1), clerksync.Created)
			c.deactivateOwing(s, "user_0", hour(4), hour(5), clerksync.OwesJob)
			for id, end := range map[string]clerksync.JobState{
				"user_1": {Attempt: 1, FailedAt: hour(3), Code: "error"}, "user_2": {Attempt: 1},
			} {
				claim := c.claim(s, id, clerksync.JobCreate, "one", hour(6))
				c.change(s, claim, true)
				c.change(s, ending(claim, end), true)
			}
			want := map[string]int{"user_0/create": 1, "user_0/delete": 1, "user_1/create": 1}
			got := make(map[string]int)
			for e, err := range s.Jobs(c.t.Context()) {
				if err != nil {
					c.fatalf("Jobs: %v", err)
				}
				got[e.ClerkID+"/"+string(e.Kind)]++
				if state := c.job(s, e.ClerkID, e.Kind); e.State != state {
					c.errorf("Jobs yields %+v for %s, want %+v", e.State, e.ClerkID, state)
				}
			}
			if !maps.Equal(got, want) {
				c.errorf("Jobs yields %v, want %v", got, want)
			}
			for e := range s.Jobs(c.t.Context()) { // it may be left
				if e.ClerkID != "" {
					break
				}
			}
		},
	},
	{
		name:  "JobsRestoreTakesBack",
		rule:  "Restore takes back a delete job that is not running, and reports false while it is; its attempts stay",
		needs: jobs | restores,
		run: func(c *check) {
			s := c.newStore().(jobStore)
			for _, tt := range []struct {
				name  string
				claim time.Duration // when the lease ends, from now; zero: not claimed
				end   *clerksync.JobState
				want  bool
				left  clerksync.JobState
			}{
				{name: "waiting", want: true},
				{name: "running", claim: 24 * time.Hour},
				{name: "dead", claim: -24 * time.Hour, want: true, left: clerksync.JobState{Attempt: 1}},
				{name: "retried", claim: 24 * time.Hour, end: &clerksync.JobState{Due: dueAt(9), Attempt: 1, Code: "error", DeletedAt: hour(2)}, want: true, left: clerksync.JobState{Attempt: 1}},
				{name: "failed", claim: 24 * time.Hour, end: &clerksync.JobState{Attempt: 1, FailedAt: dueAt(9), Code: "error", DeletedAt: hour(2)}, want: true, left: clerksync.JobState{Attempt: 1}},
				{name: "ended", claim: 24 * time.Hour, end: &clerksync.JobState{Attempt: 1, DeletedAt: hour(2)}, want: true, left: clerksync.JobState{Attempt: 1}},
			} {
				id := "user_" + tt.name
				c.offer(s, person(id, 1), clerksync.Created)
				c.deactivateOwing(s, id, hour(2), dueAt(2), clerksync.OwesJob)
				if tt.claim != 0 {
					claim := c.claim(s, id, clerksync.JobDelete, "one", time.Now().Add(tt.claim).UTC().Truncate(time.Millisecond))
					c.change(s, claim, true)
					if tt.end != nil {
						c.change(s, ending(claim, *tt.end), true)
					}
				}
				before := c.record(s, id)
				got, err := s.Restore(c.t.Context(), id, hour(3))
				if err != nil || got != tt.want {
					c.errorf("%s: Restore reports %t, %v; want %t", tt.name, got, err, tt.want)
				}
				if !tt.want {
					c.same(tt.name+": the record after a Restore", c.record(s, id), before)
					continue
				}
				if after := c.record(s, id); !after.DeletedAt.IsZero() || !after.IsActive {
					c.errorf("%s: the restored record has DeletedAt %v, IsActive %t", tt.name, after.DeletedAt, after.IsActive)
				}
				c.hasJob(s, id, clerksync.JobDelete, tt.left)
				c.deactivateOwing(s, id, hour(5), dueAt(6), clerksync.OwesJob)
				c.hasJob(s, id, clerksync.JobDelete, clerksync.JobState{Due: dueAt(6), DeletedAt: hour(5)})
			}
		},
	},
	{
		name:  "JobsHaveNoRoom",
		rule:  "a clerkJobs of the app's that is no document keeps no deletion out and counts as no job; null counts as absent",
		needs: jobs | raw | foreign,
		run: func(c *check) {
			s := c.newStore().(interface {
				RawStore
				jobStore
			})
			for name, legacy := range map[string]any{
				"text": "none", "number": 7, "list": []any{map[string]any{"due": hour(1)}}, "empty": []any{}, "true": true,
				"null": Null{}, "other": map[string]any{"create": "welcome", "plan": "pro"},
			} {
				id, want := "user_"+name, clerksync.OwesNoRoom
				if name == "null" || name == "other" {
					want = clerksync.OwesJob
				}
				c.offer(s, person(id, 1), clerksync.Created)
				c.set(s, id, map[string]any{"clerkJobs": legacy})
				if u := c.record(s, id); u.Jobs != nil {
					c.errorf("%s: the record has the jobs %+v", name, *u.Jobs)
				}
				c.offer(s, owing(id, 2), clerksync.Updated)
				before := c.fields(s, id)
				c.deactivateOwing(s, id, hour(3), dueAt(3), want)
				if want == clerksync.OwesJob {
					c.hasJob(s, id, clerksync.JobDelete, clerksync.JobState{Due: dueAt(3), DeletedAt: hour(3)})
				} else {
					c.untouched(name+": after DeactivateOwing", c.fields(s, id), before, deleted...)
				}
				if restored, err := s.Restore(c.t.Context(), id, hour(4)); err != nil || !restored {
					c.errorf("%s: Restore: %t, %v", name, restored, err)
				}
			}
		},
	},
	{
		name:  "JobsCheckTheirArguments",
		rule:  "an empty id is an error; with a done context the methods return its error and change nothing",
		needs: jobs,
		run: func(c *check) {
			s := c.jobbing()
			u := person("user_1", 1)
			c.offer(s, owing("user_1", 1), clerksync.Created)
			claim := c.claim(s, "user_1", clerksync.JobCreate, "one", dueAt(9))
			nobody := claim
			nobody.ClerkID = ""
			_, err := s.ChangeJob(c.t.Context(), nobody)
			c.rejected("ChangeJob without a ClerkID", err, u)
			_, _, err = s.DeactivateOwing(c.t.Context(), "", "", hour(2), hour(2))
			c.rejected("DeactivateOwing without a ClerkID", err, u)
			before := c.record(s, "user_1")
			for _, done := range []struct {
				ctx  context.Context
				want error
			}{{cancelled(c), context.Canceled}, {expired(c), context.DeadlineExceeded}} {
				for name, err := range c.jobErrors(done.ctx, s, claim) {
					if !errors.Is(err, done.want) {
						c.errorf("%s with a done context: %v, want an error matching %v", name, err, done.want)
					}
				}
			}
			c.same("the record after such calls", c.record(s, "user_1"), before)
			for range 2 {
				for _, kind := range []clerksync.JobKind{clerksync.JobCreate, clerksync.JobDelete} {
					if err := s.PrepareJobs(c.t.Context(), kind); err != nil {
						c.errorf("PrepareJobs: %v", err)
					}
				}
			}
			c.dueAre(s, clerksync.JobCreate, hour(1), "user_1")
		},
	},
	{
		name:  "ConcurrentJobs",
		rule:  "of many first writes one owes the job, of many claims one succeeds, and of many deletions one owes the other job",
		needs: jobs,
		run: func(c *check) {
			s := c.jobbing()
			for round := range rounds() {
				id := fmt.Sprint("user_", round)
				c.concurrently(workers(), func(i int) {
					u := person(id, 1+i%3)
					u.CreateDue = hour(0).Add(time.Duration(i) * time.Minute)
					if _, err := s.Upsert(c.t.Context(), u); err != nil {
						c.errorf("a concurrent Upsert: %v", err)
					}
				})
				job := c.job(s, id, clerksync.JobCreate)
				if job.Due.IsZero() || job != (clerksync.JobState{Due: job.Due}) {
					c.errorf("after concurrent first writes the job is %+v", job)
				}
				var claimed, owed atomic.Int64
				c.concurrently(workers(), func(i int) {
					claim := clerksync.JobChange{ClerkID: id, Kind: clerksync.JobCreate, From: job, To: clerksync.JobState{Due: dueAt(9), Attempt: 1, Token: fmt.Sprint(i)}}
					ok, err := s.ChangeJob(c.t.Context(), claim)
					if err != nil {
						c.errorf("a concurrent ChangeJob: %v", err)
					}
					if ok {
						claimed.Add(1)
					}
				})
				c.concurrently(workers(), func(i int) {
					_, owes, err := s.DeactivateOwing(c.t.Context(), id, "", hour(4).Add(time.Duration(i)*time.Minute), dueAt(4))
					if err != nil {
						c.errorf("a concurrent DeactivateOwing: %v", err)
					}
					if owes == clerksync.OwesJob {
						owed.Add(1)
					}
				})
				if claimed.Load() != 1 || owed.Load() != 1 {
					c.errorf("%d of %d claims succeeded, and %d deletions owe a job; want one each", claimed.Load(), workers(), owed.Load())
				}
				if u := c.record(s, id); !u.Jobs.Of(clerksync.JobDelete).DeletedAt.Equal(u.DeletedAt) {
					c.errorf("the delete job is for %v, and the record was deleted at %v", u.Jobs.Of(clerksync.JobDelete).DeletedAt, u.DeletedAt)
				}
			}
		},
	},
}

// jobErrors calls the methods of JobStore with a context that is done.
func (c *check) jobErrors(ctx context.Context, s clerksync.JobStore, claim clerksync.JobChange) map[string]error {
	errs := make(map[string]error)
	_, errs["ChangeJob"] = s.ChangeJob(ctx, claim)
	_, _, errs["DeactivateOwing"] = s.DeactivateOwing(ctx, claim.ClerkID, "", hour(2), hour(2))
	_, errs["DueJobs"] = s.DueJobs(ctx, clerksync.JobCreate, hour(9), 1)
	errs["PrepareJobs"] = s.PrepareJobs(ctx, clerksync.JobCreate)
	errs["Jobs"] = nil
	for _, err := range s.Jobs(ctx) {
		errs["Jobs"] = err
	}
	return errs
}
