package storetest

import (
	"errors"
	"slices"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// omitting returns a person at version n who omits these paths.
func omitting(id string, n int, paths ...string) *clerksync.User {
	u := person(id, n)
	u.Omit = paths
	return u
}

// clerkPaths returns the paths of all fields that Clerk owns in a person.
func clerkPaths() (paths []string) {
	u := person("user_1", 1)
	u.RoleFromClerk = true
	for path := range u.ClerkFields() {
		paths = append(paths, path)
	}
	return paths
}

// onlyBanned is what a user omits of whom only the ban is known.
func onlyBanned() []string {
	return append(slices.DeleteFunc(clerkPaths(), func(path string) bool { return path == "banned" }), "extraFields")
}

// omitCases are about User.Omit.
var omitCases = []testCase{
	{
		name: "OmitLeavesAField",
		rule: "a field in Omit stays as it is, the others are written, and the same version repairs the record later",
		run: func(c *check) {
			next := c.small()
			for _, path := range append(clerkPaths(), "extraFields") {
				s, id := next(), "user_"+path
				first, second := person(id, 1), omitting(id, 4, path)
				first.RoleFromClerk, second.RoleFromClerk = true, true
				second.Role, second.ClerkCreatedAt = clerksync.RoleAdmin, hour(-48)
				second.EmailVerified, second.PhoneVerified, second.Banned = true, true, true
				first.PhoneVerified = false
				c.offer(s, first, clerksync.Created)
				c.offer(s, second, clerksync.Updated)
				c.offer(s, second, clerksync.Unchanged)
				second.Omit = nil
				c.offer(s, second, clerksync.Updated)
				c.offer(s, second, clerksync.Unchanged)
			}
		},
	},
	{
		name: "OmitIsNotCompared",
		rule: "an equal version that differs in an omitted field only is Unchanged, and an older one Stale",
		run: func(c *check) {
			s := c.newStore()
			c.offer(s, person("user_1", 2), clerksync.Created)
			u := omitting("user_1", 2, "email", "plan", "no such field")
			u.Email, u.Extra["plan"], u.SyncedAt = "other@example.com", "other", hour(5)
			c.offer(s, u, clerksync.Unchanged)
			u.Name = "Grace"
			got := c.offer(s, u, clerksync.Updated)
			if !got.ClerkUpdatedAt.Equal(hour(2)) {
				c.errorf("the version went from %v to %v", hour(2), got.ClerkUpdatedAt)
			}
			c.offer(s, omitting("user_1", 1, "email"), clerksync.Stale)
			late := omitting("user_1", 2, "email")
			late.SyncedAt = hour(4)
			c.offer(s, late, clerksync.Unchanged)
			unversioned := omitting("user_1", 2, "email")
			unversioned.ClerkUpdatedAt = time.Time{}
			c.offer(s, unversioned, clerksync.Stale)
		},
	},
	{
		name: "OmitLeavesAVersionInBetween",
		rule: "an Upsert with Omit leaves a version a millisecond older, and a repeat of it, or a late event of its version, is Unchanged",
		run: func(c *check) {
			s := c.newStore()
			c.offer(s, person("user_1", 1), clerksync.Created)
			u := omitting("user_1", 5, "email")
			got := c.offer(s, u, clerksync.Updated)
			if want := hour(5).Add(-time.Millisecond); !got.ClerkUpdatedAt.Equal(want) {
				c.errorf("the version is %v, want %v", got.ClerkUpdatedAt, want)
			}
			tick()
			u.SyncedAt, u.LastSignInAt = hour(6), hour(6)
			c.offer(s, u, clerksync.Unchanged)
			u.Name = "Grace"
			c.offer(s, u, clerksync.Updated)
			late := omitting("user_1", 5, "email") // the state before u's, in the same millisecond
			if got = c.offer(s, late, clerksync.Unchanged); got.Name != "Grace" {
				c.errorf("a late event of the same version wrote the name %q", got.Name)
			}
			c.offer(s, person("user_1", 5), clerksync.Updated)
			c.offer(s, omitting("user_1", 5, "email"), clerksync.Unchanged)

			unversioned := person("user_2", 1)
			unversioned.ClerkUpdatedAt = time.Time{}
			c.offer(s, unversioned, clerksync.Created)
			unversioned.Name, unversioned.Omit = "Grace", []string{"email"}
			c.offer(s, unversioned, clerksync.Updated)
			c.offer(s, unversioned, clerksync.Unchanged)
			c.offer(s, omitting("user_2", 3, "email"), clerksync.Updated)
		},
	},
	{
		name: "OmitKeepsABan",
		rule: "a ban of which nothing else could be written is not lifted by an older event",
		run: func(c *check) {
			s := c.newStore()
			c.offer(s, person("user_1", 1), clerksync.Created)
			got := c.offer(s, omitting("user_1", 5, onlyBanned()...), clerksync.Updated)
			if !got.Banned || got.Name != "Ada 1" || len(got.Extra) != 2 {
				c.errorf("banned is %t, the name %q, Extra %v", got.Banned, got.Name, got.Extra)
			}
			c.offer(s, person("user_1", 4), clerksync.Stale)
			c.offer(s, person("user_1", 5), clerksync.Updated)
			c.offer(s, omitting("user_1", 6, onlyBanned()...), clerksync.Updated)
		},
	},
	{
		name: "OmitCreatesNothing",
		rule: "an Upsert with Omit does not create a record, and does not bring back a deleted user",
		run: func(c *check) {
			s := c.newStore()
			u := omitting("user_1", 1, "email")
			res, err := s.Upsert(c.t.Context(), u)
			if !errors.Is(err, clerksync.ErrNotFound) {
				c.errorf("Upsert with Omit of a user without a record: %v, %v, want ErrNotFound", res.Outcome, err)
			}
			c.rejected("Upsert with Omit of a user without a record", err, u)
			c.same("the record that such an Upsert must not create", c.find(s, "user_1"), nil)
			c.deactivate(s, "user_1", hour(2))
			c.offer(s, omitting("user_1", 3, "email"), clerksync.Deactivated)
			c.offer(s, person("user_2", 1), clerksync.Created)
			c.deactivate(s, "user_2", hour(2))
			c.offer(s, omitting("user_2", 3, "email"), clerksync.Deactivated)
		},
	},
	{
		name: "OmitConfirmsNoNewRecord",
		rule: "an Upsert with Omit gives no syncedAt to a record without one, and moves one that there is",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			u.SyncedAt = time.Time{}
			c.offer(s, u, clerksync.Created)
			got := c.offer(s, omitting("user_1", 2, "email"), clerksync.Updated)
			same := omitting("user_1", 2, "email")
			same.SyncedAt, same.LastSignInAt = hour(9), hour(9)
			again := c.offer(s, same, clerksync.Unchanged)
			if !got.SyncedAt.IsZero() || !again.SyncedAt.IsZero() || !again.LastSignInAt.Equal(hour(9)) {
				c.errorf("syncedAt is %v, then %v, lastSignInAt %v", got.SyncedAt, again.SyncedAt, again.LastSignInAt)
			}
			c.offer(s, person("user_1", 3), clerksync.Updated)
			got = c.offer(s, omitting("user_1", 4, "email"), clerksync.Updated)
			if !got.SyncedAt.After(hour(4)) {
				c.errorf("syncedAt is %v, want later than %v", got.SyncedAt, hour(4))
			}
		},
	},
	{
		name: "OmitInExtra",
		rule: "a name of Extra in Omit stays with its value, and is still known to be Map's",
		run: func(c *check) {
			s := c.newStore()
			offer := func(version int, extra map[string]any, want clerksync.Outcome, omit ...string) map[string]any {
				u := omitting("user_1", version, omit...)
				u.Extra = extra
				return c.offer(s, u, want).Extra
			}
			offer(1, map[string]any{"plan": "free", "seats": 1}, clerksync.Created)
			got := offer(2, map[string]any{"seats": 2, "new": true}, clerksync.Updated, "plan")
			if got["plan"] != "free" || got["seats"] != int64(2) || got["new"] != true {
				c.errorf("Extra is %v", got)
			}
			// What is omitted is not checked: it may be why it is omitted.
			offer(3, map[string]any{"seats": 3, "plan": func() {}, "a.b": 1}, clerksync.Updated, "plan", "a.b", "email")
			got = offer(4, map[string]any{"any": func() {}}, clerksync.Updated, "extraFields")
			if len(got) != 2 || got["plan"] != "free" {
				c.errorf("with extraFields omitted, Extra is %v", got)
			}
			offer(5, nil, clerksync.Updated, "plan")
			if got = offer(5, nil, clerksync.Updated); len(got) != 0 {
				c.errorf("Map sets no more names, and Extra is %v", got)
			}
			// A name that the record does not have does not come by omission.
			if got = offer(6, map[string]any{"beta": 1}, clerksync.Updated, "plan"); len(got) != 1 {
				c.errorf("Extra is %v, want beta only", got)
			}
		},
	},
	{
		name:  "BatchOmit",
		rule:  "a batch does with Omit what single Upserts do",
		needs: batch,
		run: func(c *check) {
			s := c.newStore().(clerksync.BatchStore)
			for _, id := range []string{"user_1", "user_2", "user_3", "user_4"} {
				c.offer(s, person(id, 2), clerksync.Created)
			}
			c.deactivate(s, "user_4", hour(3))
			us := []*clerksync.User{
				omitting("user_new", 1, "email"), omitting("user_1", 5, onlyBanned()...), person("user_2", 3),
				omitting("user_3", 1, "email"), omitting("user_4", 5, "email"), omitting("user_1", 5, onlyBanned()...),
				person("user_1", 4), person("user_1", 5),
			}
			want := []clerksync.Outcome{
				0, clerksync.Updated, clerksync.Updated, clerksync.Stale, clerksync.Deactivated, clerksync.Unchanged,
				clerksync.Stale, clerksync.Updated,
			}
			got, err := s.UpsertBatch(c.t.Context(), us)
			var failed *clerksync.BatchError
			if !errors.As(err, &failed) || len(failed.Errs) != 1 || !errors.Is(failed.Errs[0], clerksync.ErrNotFound) {
				c.fatalf("UpsertBatch: %v, want a BatchError about index 0 that matches ErrNotFound", err)
			}
			for i := range us {
				if got[i].Outcome != want[i] {
					c.errorf("result %d is %v, want %v", i, got[i].Outcome, want[i])
				}
			}
			if c.find(s, "user_new") != nil {
				c.errorf("the batch created a record with Omit")
			}
			if r := c.record(s, "user_1"); !r.Banned || r.Name != "Ada 5" {
				c.errorf("after the batch, banned is %t and the name %q", r.Banned, r.Name)
			}
		},
	},
	{
		name: "ConcurrentOmit",
		rule: "of concurrent Upserts, with and without Omit, the newest version of each field is written",
		run: func(c *check) {
			for range rounds() {
				s := c.newStore()
				c.offer(s, person("user_1", 1), clerksync.Created)
				c.concurrently(workers(), func(i int) {
					u := omitting("user_1", 10, onlyBanned()...)
					if i%2 == 0 {
						u = person("user_1", 1+(i/2)%8)
						u.Banned = false
					}
					if _, err := s.Upsert(c.t.Context(), u); err != nil {
						c.errorf("Upsert of %s: %v", describe(u), err)
					}
				})
				got := c.record(s, "user_1")
				if want := hour(10).Add(-time.Millisecond); !got.Banned || !got.ClerkUpdatedAt.Equal(want) {
					c.errorf("banned is %t at version %v, want true at %v", got.Banned, got.ClerkUpdatedAt, want)
				}
				last := person("user_1", 10)
				c.offer(s, last, clerksync.Updated)
			}
		},
	},
}
