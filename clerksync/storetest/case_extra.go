package storetest

import (
	"encoding/json"
	"math"
	"strconv"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// richExtra returns an Extra with every type of value, in canonical form.
func richExtra() map[string]any {
	return map[string]any{
		"text": "pro", "empty": "", "yes": true, "no": false,
		"int": int64(5), "zero": int64(0), "big": int64(math.MaxInt64), "small": int64(math.MinInt64),
		"half": 0.5, "whole": 2.0, "huge": math.MaxFloat64, "tiny": math.SmallestNonzeroFloat64,
		"since": hour(1), "before": time.UnixMilli(-1).UTC(),
		"list": []any{"a", int64(1), 1.0, true, hour(2), map[string]any{"x": nil}, nil},
		"nested": map[string]any{
			"a": int64(1), "b": map[string]any{"list": []any{map[string]any{"c": "d"}}, "at": hour(3)},
		},
		"emptyMap": map[string]any{}, "emptyList": []any{},
		"with space": "x", "ünï-cödé 😀": "x", "Text": "another field than text", "extra": "not the Extra itself",
		"ID": "not the record's", "clerkID": "x", "Profile": "x", "firstName": "x", "0": "x", "constructor": "x",
	}
}

// nonCanonical returns a user whose Extra and times are not in canonical form.
func nonCanonical(id string) *clerksync.User {
	u := person(id, 1)
	n := 7
	u.ClerkUpdatedAt = u.ClerkUpdatedAt.Add(123 * time.Microsecond).In(time.FixedZone("", 3600))
	u.Extra = map[string]any{
		"int": 1, "int32": int32(2), "uint16": uint16(3), "float32": float32(0.5), "pointer": &n,
		"number": json.Number("12"), "fraction": json.Number("1.5"),
		"strings": []string{"a", "b"}, "ints": [2]int{1, 2}, "map": map[string]int{"a": 1}, "type": clerksync.RoleAdmin,
		"nested": map[string]any{"ints": []int{1}, "at": hour(1).Add(time.Microsecond)}, "nil": nil,
	}
	return u
}

// oddNames are names in nested maps that a database may be unable to hold, and names that look
// like what a Store may write instead.
var oddNames = []string{
	"", ".", "..", "a.b", ".a", "a.", "$", "$set", "a$", "$$", "nul\x00", "\x00", "%", "%%", "100%", "%2", "%2.", "%.",
	"%24", "%2E", "%2e", "%00", "%25", "%2524", "%25%24", "%24set", "%empty", "%25empty", "%%24", "$.%24.$", "\\u0024",
	"_", "\uff04", "\uff0e", "emoji 😀.$", "0", "a b", "\uFFFD", "%\uFFFD", "\u2024",
}

// extraCases are about Extra, which holds the fields that Map sets.
var extraCases = []testCase{
	{
		name: "ExtraRoundTrips",
		rule: "each value of Extra comes back equal to what was written, and writing it again changes nothing",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 1)
			u.Extra = richExtra()
			c.offer(s, u, clerksync.Created)
			c.offer(s, u, clerksync.Unchanged)
			c.offer(s, person("user_2", 1), clerksync.Created)
			u = person("user_2", 2)
			u.Extra = richExtra()
			c.offer(s, u, clerksync.Updated)
			c.offer(s, u, clerksync.Unchanged)
		},
	},
	{
		name: "ExtraIsCanonical",
		rule: "values of Extra come back in the types of User.Canonical",
		run: func(c *check) {
			s := c.newStore()
			u := nonCanonical("user_1")
			got := c.offer(s, u, clerksync.Created)
			if v, ok := got.Extra["int32"].(int64); !ok || v != 2 {
				c.errorf("an int32 came back as %#v, want int64(2)", got.Extra["int32"])
			}
			c.offer(s, u, clerksync.Unchanged)
			u.ClerkUpdatedAt = hour(2)
			c.offer(s, u, clerksync.Updated)
			c.offer(s, u, clerksync.Unchanged)
		},
	},
	{
		name: "ExtraTakesAnyNestedName",
		rule: "a name in a nested map may be any text, and no two are confused",
		run: func(c *check) {
			next := c.small()
			all, changed := make(map[string]any), make(map[string]any)
			var listed []any
			for i, name := range oddNames {
				all[name], changed[name] = map[string]any{name: i}, map[string]any{name: -i}
				listed = append(listed, map[string]any{name: name})
			}
			lists := [][]any{listed}
			if thorough() { // each in a record of its own
				lists = nil
				for _, item := range listed {
					lists = append(lists, []any{item})
				}
			}
			for i, list := range lists {
				s, u := next(), person("user_"+strconv.Itoa(i), 1)
				u.Extra = map[string]any{"prefs": list}
				c.offer(s, u, clerksync.Created)
				c.offer(s, u, clerksync.Unchanged)
				u.SyncedAt = hour(9)
				c.offer(s, u, clerksync.Unchanged)
			}
			s, u := next(), person("user_all", 1)
			u.Extra = map[string]any{"prefs": all}
			got := c.offer(s, u, clerksync.Created)
			if prefs, _ := got.Extra["prefs"].(map[string]any); len(prefs) != len(oddNames) {
				c.errorf("of %d names, %d came back", len(oddNames), len(prefs))
			}
			c.offer(s, u, clerksync.Unchanged)
			u.Extra = map[string]any{"prefs": changed}
			c.offer(s, u, clerksync.Updated)
			u.Extra = map[string]any{"prefs": map[string]any{"a\xff": 1}}
			c.offer(s, u, clerksync.Updated)
			c.offer(s, u, clerksync.Unchanged)
		},
	},
	{
		name: "ExtraIsGainedChangedAndLost",
		rule: "names in Extra are added, changed and removed as Map sets them",
		run: func(c *check) {
			s := c.newStore()
			version := 1
			offer := func(want clerksync.Outcome, newer bool, extra map[string]any) {
				if newer {
					version++
				}
				u := person("user_1", version)
				u.Extra = extra
				got := c.offer(s, u, want)
				if len(got.Extra) != len(extra) {
					c.errorf("the record has Extra %v, want %v", got.Extra, extra)
				}
				c.offer(s, u, clerksync.Unchanged)
			}
			offer(clerksync.Created, true, nil)
			for _, newer := range []bool{false, true} { // at the same version, at newer ones
				offer(clerksync.Updated, newer, map[string]any{"plan": "free", "seats": 1})
				offer(clerksync.Updated, newer, map[string]any{"plan": "pro", "seats": 1})
				offer(clerksync.Updated, newer, map[string]any{"plan": "pro"})
				offer(clerksync.Updated, newer, map[string]any{"beta": "pro"})
				offer(clerksync.Updated, newer, map[string]any{"beta": map[string]any{"a": 1, "b": 2}})
				offer(clerksync.Updated, newer, map[string]any{"beta": map[string]any{"b": 2}})
				offer(clerksync.Updated, newer, map[string]any{"beta": []any{1}})
				offer(clerksync.Updated, newer, map[string]any{"beta": 1})
				offer(clerksync.Updated, newer, map[string]any{"beta": 1.0})
				offer(clerksync.Updated, newer, nil)
			}
		},
	},
	{
		name: "ExtraIsLeftByStale",
		rule: "a Stale or Deactivated Upsert does not touch Extra",
		run: func(c *check) {
			s := c.newStore()
			u := person("user_1", 2)
			u.Extra = richExtra()
			c.offer(s, u, clerksync.Created)
			c.offer(s, person("user_1", 1), clerksync.Stale)
			c.deactivate(s, "user_1", hour(3))
			c.offer(s, person("user_1", 4), clerksync.Deactivated)
		},
	},
	{
		name: "InvalidExtraWritesNothing",
		rule: "an invalid name or value in Extra is an error, and nothing is written",
		run: func(c *check) {
			s := c.newStore()
			before := c.offer(s, person("user_1", 1), clerksync.Created)
			deep := any("x")
			for range 40 {
				deep = map[string]any{"x": deep}
			}
			invalid := []map[string]any{
				{"": 1}, {"a.b": 1}, {"$set": 1}, {"a$": 1}, {"nul\x00": 1},
				{"_id": 1}, {"__v": 1}, {"clerkId": "x"}, {"email": "x"}, {"role": "ADMIN"}, {"name": "x"},
				{"profile": map[string]any{}}, {"location": nil}, {"lastSignInAt": 1}, {"emailVerified": true},
				{"phoneVerified": true}, {"isActive": true}, {"banned": false}, {"createdAt": 1}, {"updatedAt": 1},
				{"clerkCreatedAt": 1}, {"clerkUpdatedAt": 1}, {"syncedAt": 1}, {"deletedAt": nil},
				{"extraFields": []any{}},
				{"x": map[string]any{"a\xff": 1, "a\xfe": 2}},
				{"x": func() {}}, {"x": make(chan int)}, {"x": struct{}{}}, {"x": complex(1, 1)},
				{"x": map[int]int{1: 1}},
				{"x": math.Inf(1)}, {"x": math.NaN()}, {"x": uint64(math.MaxUint64)}, {"x": deep},
				{"x": []any{struct{}{}}},
			}
			for _, id := range []string{"user_1", "user_2"} {
				for _, extra := range invalid {
					u := person(id, 2)
					extra["fine"] = "fine"
					u.Extra = extra
					_, err := s.Upsert(c.t.Context(), u)
					for name := range extra {
						if name != "fine" {
							c.rejected("Upsert with Extra name "+name, err, u)
						}
					}
				}
			}
			c.same("the record after Upserts with an invalid Extra", c.find(s, "user_1"), before)
			c.same("the record that such an Upsert must not create", c.find(s, "user_2"), nil)
		},
	},
}
