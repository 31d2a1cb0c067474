package storetest

import (
	"context"
	"errors"
	"strings"

	"github.com/clerksync/clerksync-go/clerksync"
)

// oddIDs are ids that a careless Store would interpret. Some differ only in case, Unicode
// normalization or spaces.
var oddIDs = []string{
	"user_plain", "USER_PLAIN", "User_Plain", "user_plain ", " user_plain",
	"$where", "user.with.dots", "user/with/slashes", `user\back`, "..", "*", "%", "_id", "%s%d", "null", "0",
	`{"$ne":null}`, `"quoted"`, "it's; DROP TABLE users; --", "user with spaces", "line\nbreak\ttab", "a=b&c=d",
	"é-composed", "e\u0301-composed", "straße", "STRASSE", "用户", "😀", "\u202eright-to-left",
	strings.Repeat("long", 200),
}

// oddTexts are texts that a careless Store would change or interpret.
var oddTexts = []string{
	"O'Brien", `"quoted" \ back`, "$set", "a.b", "<script>", "line\nbreak", " spaces ", "é e\u0301", "用户 😀",
	"null", "true", "12", "2024-03-01T12:00:00Z", "65e1c5400000000000000000", strings.Repeat("long ", 10_000),
}

// argumentCases are about ids, contexts, and who owns arguments and results.
var argumentCases = []testCase{
	{
		name: "NoRecordIsErrNotFound",
		rule: "User without a record returns an error that matches ErrNotFound",
		run: func(c *check) {
			s := c.newStore()
			c.offer(s, person("user_1", 1), clerksync.Created)
			u, err := s.User(c.t.Context(), "user_2")
			if !errors.Is(err, clerksync.ErrNotFound) || u != nil {
				c.errorf("User of an unknown id: %v, %v, want nil and ErrNotFound", u, err)
			}
		},
	},
	{
		name: "IDsAreCaseSensitive",
		rule: "ids are compared byte for byte",
		run: func(c *check) {
			s := c.newStore()
			ids := []string{"user_2abcDEF", "user_2ABCdef", "user_2abcdef"}
			for i, id := range ids {
				c.offer(s, person(id, i), clerksync.Created)
			}
			c.deactivate(s, ids[1], hour(9))
			for i, id := range ids {
				if got := c.record(s, id); got.DeletedAt.IsZero() != (i != 1) || !got.ClerkUpdatedAt.Equal(hour(i)) {
					c.errorf("the record of %q is %s, after one of %q was deleted", id, describe(got), ids[1])
				}
			}
		},
	},
	{
		name: "IDsArePlainData",
		rule: "an id may be any text: it is never syntax, and different ids are different users",
		run: func(c *check) {
			s := c.newStore()
			for i, id := range oddIDs {
				if c.find(s, id) != nil {
					c.errorf("%q has a record before the first Upsert", id)
				}
				c.offer(s, plainPerson(id, i), clerksync.Created)
			}
			for i, id := range oddIDs {
				if got := c.record(s, id); !got.ClerkUpdatedAt.Equal(hour(i)) {
					c.errorf("the record of %q is that of another id: %s", id, describe(got))
				}
				c.offer(s, plainPerson(id, i+1), clerksync.Updated)
			}
			for i, id := range oddIDs {
				if i%2 == 0 {
					c.deactivate(s, id, hour(99))
				}
			}
			for i, id := range oddIDs {
				if deleted := !c.record(s, id).DeletedAt.IsZero(); deleted != (i%2 == 0) {
					c.errorf("record of %q deleted: %t", id, deleted)
				}
			}
		},
	},
	{
		name: "EmptyIDIsRejected",
		rule: "an empty id is an error",
		run: func(c *check) {
			s := c.newStore()
			c.offer(s, person("user_1", 1), clerksync.Created)
			u := person("", 2)
			_, err := s.Upsert(c.t.Context(), u)
			c.rejected("Upsert without a ClerkID", err, u)
			_, err = s.Deactivate(c.t.Context(), "", hour(1))
			c.rejected("Deactivate without a ClerkID", err, u)
			_, err = s.User(c.t.Context(), "")
			c.rejected("User without a ClerkID", err, u)
			c.offer(s, person("user_1", 1), clerksync.Unchanged)
		},
	},
	{
		name: "DoneContextChangesNothing",
		rule: "with a done context every method returns the context's error and changes nothing",
		run: func(c *check) {
			s := c.newStore()
			before := c.offer(s, person("user_1", 1), clerksync.Created)
			for _, done := range []struct {
				ctx  context.Context
				want error
			}{{cancelled(c), context.Canceled}, {expired(c), context.DeadlineExceeded}} {
				for _, id := range []string{"user_1", "user_2"} {
					fails := func(method string, err error) {
						if !errors.Is(err, done.want) {
							c.errorf("%s(%q) with a done context: %v, want an error matching %v",
								method, id, err, done.want)
						}
						if err != nil && errors.Is(err, clerksync.ErrNotFound) {
							c.errorf("%s(%q) with a done context matches ErrNotFound: %v", method, id, err)
						}
					}
					u, err := s.User(done.ctx, id)
					fails("User", err)
					if u != nil {
						c.errorf("User with a done context returns a record")
					}
					_, err = s.Upsert(done.ctx, person(id, 2))
					fails("Upsert", err)
					_, err = s.Deactivate(done.ctx, id, hour(3))
					fails("Deactivate", err)
				}
			}
			c.same("the record after calls with a done context", c.find(s, "user_1"), before)
			c.same("the record that such calls must not create", c.find(s, "user_2"), nil)
		},
	},
	{
		name: "ArgumentsAreNotModified",
		rule: "a Store does not modify its arguments",
		run: func(c *check) {
			s := c.newStore()
			u := nonCanonical("user_1")
			unchanged := nonCanonical("user_1")
			for _, want := range []clerksync.Outcome{clerksync.Created, clerksync.Unchanged} {
				c.offer(s, u, want)
				c.same("the argument after an Upsert", u, unchanged)
			}
		},
	},
	{
		name: "ArgumentsAreNotKept",
		rule: "changing an argument after the call does not change the record",
		run: func(c *check) {
			s := c.newStore()
			for _, want := range []clerksync.Outcome{clerksync.Created, clerksync.Updated} {
				u := person("user_1", int(want))
				u.Extra = map[string]any{
					"list":   []any{"a", "b"},
					"nested": map[string]any{"deep": map[string]any{"x": "y"}},
					"gone":   true,
				}
				stored := c.offer(s, u, want)
				u.Name, u.Location.City, u.ClerkUpdatedAt = "changed", "changed", hour(99)
				u.Extra["list"].([]any)[0] = "changed"
				u.Extra["nested"].(map[string]any)["deep"].(map[string]any)["x"] = "changed"
				u.Extra["new"] = "changed"
				delete(u.Extra, "gone")
				c.same("the record after its argument was changed", c.record(s, "user_1"), stored)
			}
		},
	},
	{
		name: "ReturnedRecordsStay",
		rule: "a Store never modifies a record that it returned",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			u.Extra["nested"] = map[string]any{"list": []any{"a", "b"}}
			res, err := s.Upsert(c.t.Context(), u)
			if err != nil {
				c.fatalf("Upsert: %v", err)
			}
			returned := []*clerksync.User{c.record(s, "user_1"), c.record(s, "user_1")}
			if res.User != nil {
				returned = append(returned, res.User)
			}
			want := returned[0].Clone()
			confirmation := u.Clone()
			confirmation.SyncedAt, confirmation.LastSignInAt = hour(3), hour(3)
			c.offer(s, confirmation, clerksync.Unchanged)
			other := person("user_1", 2)
			other.Extra["nested"] = map[string]any{"list": []any{"b", "a"}}
			c.offer(s, other, clerksync.Updated)
			c.offer(s, &clerksync.User{ClerkID: "user_1", ClerkUpdatedAt: hour(4)}, clerksync.Updated)
			c.deactivate(s, "user_1", hour(5))
			for _, r := range returned {
				c.same("a record returned before those writes", r, want)
			}
		},
	},
}
