package storetest

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// raw returns a new Store for a case that writes to the database directly.
func (c *check) raw() RawStore { return c.newStore().(RawStore) }

// set writes fields as the app does.
func (c *check) set(s RawStore, id string, fields map[string]any) {
	c.t.Helper()
	if err := s.SetFields(c.t.Context(), id, fields); err != nil {
		c.t.Fatalf("RawStore.SetFields(%q, %v): %v", id, fields, err)
	}
}

// fields returns the record in the database, as a flat map by dotted path.
func (c *check) fields(s RawStore, id string) map[string]any {
	c.t.Helper()
	record, err := s.Fields(c.t.Context(), id)
	if err != nil {
		c.t.Fatalf("RawStore.Fields(%q): %v", id, err)
	}
	flat := make(map[string]any)
	flatten("", record, flat)
	return flat
}

func flatten(prefix string, nested, flat map[string]any) {
	for name, v := range nested {
		v = plain(reflect.ValueOf(v))
		if m, ok := v.(map[string]any); ok && len(m) > 0 {
			flatten(prefix+name+".", m, flat)
		} else {
			flat[prefix+name] = v
		}
	}
}

// plain converts a value of a driver's own type to a built-in type, a time.Time or a Null.
func plain(v reflect.Value) any {
	if !v.IsValid() {
		return Null{}
	}
	switch x := v.Interface().(type) {
	case time.Time:
		return x.UTC().Truncate(time.Millisecond)
	case Null:
		return x
	}
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		return plain(v.Elem())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int()
	case reflect.Float32, reflect.Float64:
		return v.Float()
	case reflect.String:
		return v.String()
	case reflect.Map:
		m := make(map[string]any, v.Len())
		for it := v.MapRange(); it.Next(); {
			m[it.Key().String()] = plain(it.Value())
		}
		return m
	case reflect.Slice:
		l := make([]any, v.Len())
		for i := range l {
			l[i] = plain(v.Index(i))
		}
		return l
	default:
		return v.Interface()
	}
}

// untouched checks that a record in the database did not change, except for the paths in but
// and all paths beneath them.
func (c *check) untouched(what string, got, want map[string]any, but ...string) {
	c.t.Helper()
	rest := func(m map[string]any) map[string]any {
		m = maps.Clone(m)
		maps.DeleteFunc(m, func(path string, _ any) bool {
			return slices.ContainsFunc(but, func(b string) bool { return path == b || strings.HasPrefix(path, b+".") })
		})
		return m
	}
	var d []string
	diffMaps("", rest(got), rest(want), &d)
	if len(d) > 0 {
		c.errorf("%s, the record in the database differs:\n\t%s", what, strings.Join(d, "\n\t"))
	}
}

// synced lists the paths that an applied Upsert of a person may write.
var synced = []string{
	"email", "name", "profile.firstName", "profile.lastName", "profile.fullName", "profile.imageUrl",
	"profile.phoneNumber", "profile.birthday", "profile.gender", "emailVerified", "phoneVerified", "banned",
	"clerkCreatedAt", "clerkUpdatedAt", "syncedAt", "lastSignInAt", "updatedAt", "extraFields", "plan", "seats",
}

// deleted lists the paths that Deactivate may write.
var deleted = []string{"isActive", "deletedAt", "updatedAt"}

// rawCases are about what the app writes to its database.
var rawCases = []testCase{
	{
		name:  "RecordHasTheFieldsOfTheContract",
		rule:  "the record in the database has the contract's field names and types, for other programs",
		needs: raw,
		run: func(c *check) {
			s := c.raw()
			u := person("user_1", 2)
			got := c.offer(s, u, clerksync.Created)
			want := map[string]any{
				"clerkId": "user_1", "role": "TEACHER", "isActive": true,
				"location.country": "GB", "location.city": "London",
				"location.state": "England", "location.timezone": "Europe/London",
				"lastSignInAt": u.LastSignInAt, "clerkUpdatedAt": u.ClerkUpdatedAt, "syncedAt": u.SyncedAt,
				"createdAt": got.CreatedAt, "updatedAt": got.UpdatedAt,
			}
			for path, v := range u.ClerkFields() {
				want[path] = v
			}
			c.untouched("a new record", c.fields(s, "user_1"), want, "_id", "__v", "extraFields")
			c.deactivate(s, "user_1", hour(3))
			want["isActive"], want["deletedAt"], want["updatedAt"] = false, hour(3), c.record(s, "user_1").UpdatedAt
			c.untouched("the deleted record", c.fields(s, "user_1"), want, "_id", "__v", "extraFields")
		},
	},
	{
		name:  "ClearedFieldsAreAbsent",
		rule:  "a field that Clerk no longer has is absent from the record, neither empty nor null",
		needs: raw,
		run: func(c *check) {
			s := c.raw()
			c.offer(s, person("user_1", 1), clerksync.Created)
			c.offer(s, &clerksync.User{ClerkID: "user_1", ClerkUpdatedAt: hour(2)}, clerksync.Updated)
			c.offer(s, &clerksync.User{ClerkID: "user_2"}, clerksync.Created)
			cleared := []string{"email", "name", "plan", "seats", "clerkCreatedAt"}
			for _, id := range []string{"user_1", "user_2"} {
				for path, v := range c.fields(s, id) {
					switch {
					case strings.HasPrefix(path, "profile.") || slices.Contains(cleared, path):
						c.errorf("the record of %s still has %s: %#v", id, path, v)
					case v == Null{} || v == "":
						c.errorf("the record of %s has %s: %#v", id, path, v)
					}
				}
			}
		},
	},
	{
		name:  "TombstoneHoldsNothingElse",
		rule:  "a tombstone holds no personal data",
		needs: raw,
		run: func(c *check) {
			s := c.raw()
			c.deactivate(s, "user_1", hour(3))
			c.offer(s, person("user_1", 4), clerksync.Deactivated)
			allowed := []string{"_id", "__v", "clerkId", "isActive", "deletedAt", "createdAt", "updatedAt"}
			for path, v := range c.fields(s, "user_1") {
				if !slices.Contains(allowed, path) {
					c.errorf("the tombstone has %s: %#v", path, v)
				}
			}
		},
	},
	{
		name:  "RoleOfTheAppSurvives",
		rule:  "a role that the app assigned survives every sync",
		needs: raw,
		run: func(c *check) {
			s := c.raw()
			u := person("user_1", 1)
			c.offer(s, u, clerksync.Created)
			c.set(s, "user_1", map[string]any{"role": "ADMIN"})
			c.offer(s, u, clerksync.Unchanged)
			got := c.offer(s, person("user_1", 2), clerksync.Updated)
			if got.Role != clerksync.RoleAdmin {
				c.errorf("a sync changed the app's role from %q to %q", clerksync.RoleAdmin, got.Role)
			}
			// A role that the app removed stays removed.
			c.set(s, "user_1", map[string]any{"role": nil})
			c.offer(s, person("user_1", 3), clerksync.Updated)
			if _, ok := c.fields(s, "user_1")["role"]; ok {
				c.errorf("a sync wrote a role that the app had removed")
			}
		},
	},
	{
		name:  "RoleFromClerkOverridesAHandEdit",
		rule:  "a sync overwrites a hand edit of a role that Clerk owns",
		needs: raw,
		run: func(c *check) {
			s := c.raw()
			u := person("user_1", 1)
			u.RoleFromClerk = true
			c.offer(s, u, clerksync.Created)
			c.set(s, "user_1", map[string]any{"role": "ADMIN"})
			got := c.offer(s, u, clerksync.Updated)
			if got.Role != clerksync.RoleTeacher {
				c.errorf("the role is %q, want %q", got.Role, clerksync.RoleTeacher)
			}
		},
	},
	{
		name:  "SuspensionSurvives",
		rule:  "a user whom the app suspended stays suspended through every sync",
		needs: raw,
		run: func(c *check) {
			s := c.raw()
			u := person("user_1", 1)
			c.offer(s, u, clerksync.Created)
			c.set(s, "user_1", map[string]any{"isActive": false})
			u.IsActive = true
			c.offer(s, u, clerksync.Unchanged)
			u.Name = "Grace"
			c.offer(s, u, clerksync.Updated)
			u = person("user_1", 2)
			u.IsActive = true
			if got := c.offer(s, u, clerksync.Updated); got.IsActive {
				c.errorf("a sync changed isActive from false to true")
			}
			c.offer(s, person("user_1", 1), clerksync.Stale)
			c.deactivate(s, "user_1", hour(5))
		},
	},
	{
		name:  "LocationOfTheAppSurvives",
		rule:  "a location that the app filled in survives every sync",
		needs: raw,
		run: func(c *check) {
			s := c.raw()
			u := person("user_1", 1)
			c.offer(s, u, clerksync.Created)
			c.set(s, "user_1", map[string]any{"location.city": "Paris", "location.state": nil})
			c.offer(s, u, clerksync.Unchanged)
			got := c.offer(s, person("user_1", 2), clerksync.Updated)
			if got.Location == nil || got.Location.City != "Paris" || got.Location.State != "" {
				c.errorf("the location is %+v", got.Location)
			}
		},
	},
	{
		name:  "HandEditsAreHealed",
		rule:  "a sync of the same version overwrites hand edits of Clerk's fields",
		needs: raw,
		run: func(c *check) {
			s := c.raw()
			u := person("user_1", 1)
			c.offer(s, u, clerksync.Created)
			edits := map[string]any{
				"email": "edited@example.com", "profile.firstName": nil, "banned": true, "plan": "edited", "seats": nil,
			}
			for path, v := range edits {
				c.set(s, "user_1", map[string]any{path: v})
				c.offer(s, u, clerksync.Updated)
				c.offer(s, u, clerksync.Unchanged)
			}
		},
	},
	{
		name:  "OldRecordsAreAdopted",
		rule:  "a record from before clerksync is older than any version, and keeps the app's fields",
		needs: raw,
		run: func(c *check) {
			s := c.raw()
			c.set(s, "user_1", map[string]any{
				"email": "old@example.com", "name": "Old", "role": "ADMIN", "profile.birthday": "1900",
				"location.city": "Paris", "createdAt": hour(-1000),
			})
			old := c.record(s, "user_1")
			if !old.IsActive {
				c.errorf("a record without isActive is not active")
			}
			got := c.offer(s, person("user_1", 1), clerksync.Updated)
			kept := got.Role == clerksync.RoleAdmin && got.ID == old.ID && got.CreatedAt.Equal(hour(-1000))
			if !kept || !got.IsActive {
				c.errorf("the adopted record has role %q, ID %s (was %s), createdAt %v, IsActive %t",
					got.Role, got.ID, old.ID, got.CreatedAt, got.IsActive)
			}
			// Without a version on either side, the versions are equal.
			c.set(s, "user_2", map[string]any{"email": "old2@example.com"})
			u := person("user_2", 1)
			u.ClerkUpdatedAt = time.Time{}
			c.offer(s, u, clerksync.Updated)
			c.offer(s, u, clerksync.Unchanged)
			// Such a record can be deleted too.
			c.set(s, "user_3", map[string]any{"email": "old3@example.com"})
			c.deactivate(s, "user_3", hour(1))
			c.offer(s, person("user_3", 1), clerksync.Deactivated)
		},
	},
	{
		name:  "ALostVersionIsOlderThanAny",
		rule:  "a record that lost its version takes the next one, whatever its syncedAt says",
		needs: raw,
		run: func(c *check) {
			s := c.raw()
			c.offer(s, person("user_1", 5), clerksync.Created)
			c.set(s, "user_1", map[string]any{"clerkUpdatedAt": nil})
			c.offer(s, person("user_1", 1), clerksync.Updated)
		},
	},
	{
		name:  "OneUpsertTouchesNoMore",
		rule:  "an Upsert writes only the fields it may, and nothing if it has no effect",
		needs: raw,
		run: func(c *check) {
			s := c.raw()
			c.offer(s, person("user_1", 1), clerksync.Created)
			c.set(s, "user_1", map[string]any{"role": "ADMIN", "isActive": false, "location.city": "Paris"})
			before := c.fields(s, "user_1")
			c.offer(s, person("user_1", 2), clerksync.Updated)
			after := c.fields(s, "user_1")
			c.untouched("after a newer version", after, before, synced...)
			tick()
			c.offer(s, person("user_1", 2), clerksync.Unchanged)
			c.untouched("after the same again", c.fields(s, "user_1"), after)
			c.offer(s, person("user_1", 1), clerksync.Stale)
			c.untouched("after an older version", c.fields(s, "user_1"), after)
			c.deactivate(s, "user_1", hour(3))
			gone := c.fields(s, "user_1")
			c.untouched("after the deletion", gone, after, deleted...)
			tick()
			c.offer(s, person("user_1", 4), clerksync.Deactivated)
			c.deactivate(s, "user_1", hour(5))
			c.untouched("after updates and deletions of a deleted user", c.fields(s, "user_1"), gone)
		},
	},
	{
		name:  "SuspendedIsNotDeleted",
		rule:  "a suspended user is not deleted",
		needs: raw | batch,
		run: func(c *check) {
			s := c.raw()
			b := s.(clerksync.BatchStore)
			c.offer(s, person("user_1", 1), clerksync.Created)
			c.offer(s, person("user_2", 5), clerksync.Created) // banned
			c.offer(s, person("user_3", 1), clerksync.Created)
			c.set(s, "user_1", map[string]any{"isActive": false})
			c.set(s, "user_4", map[string]any{"email": "old@example.com"})
			c.deactivate(s, "user_3", hour(2))
			c.undeleted(b, "user_1", "user_2", "user_4")
			c.stamps(b, "user_1", "user_2", "user_3", "user_4")
		},
	},
}

// strangeFields are fields of the app that clerksync does not know.
var strangeFields = map[string]any{
	"points": 7, "nickname": "ada", "settings.theme": "dark", "settings.tags": []any{"a", "b"}, "trialEnds": hour(9),
	"profile.bio": "mathematician", "profile.links.home": "https://example.com",
	"location.street": "12 St James's Square", "Email": "another field than email", "clerk": map[string]any{"id": "mine"},
	"nothing": Null{}, "ratio": 0.5,
}

// foreignCases are about records and fields that clerksync does not write.
var foreignCases = []testCase{
	{
		name:  "UnknownFieldsSurvive",
		rule:  "fields that clerksync does not know are never touched, not even inside profile and location",
		needs: foreign,
		run: func(c *check) {
			s := c.raw()
			c.offer(s, person("user_1", 1), clerksync.Created)
			c.set(s, "user_1", strangeFields)
			before := c.fields(s, "user_1")
			u := person("user_1", 1)
			u.Name = "Grace"
			c.offer(s, u, clerksync.Updated)
			c.untouched("after other content of the same version", c.fields(s, "user_1"), before, synced...)
			c.offer(s, person("user_1", 2), clerksync.Updated)
			c.untouched("after a newer version", c.fields(s, "user_1"), before, synced...)
			c.offer(s, &clerksync.User{ClerkID: "user_1", ClerkUpdatedAt: hour(3)}, clerksync.Updated)
			c.untouched("after a version without anything", c.fields(s, "user_1"), before, synced...)
			c.deactivate(s, "user_1", hour(4))
			but := slices.Concat(synced, deleted)
			c.untouched("after the deletion", c.fields(s, "user_1"), before, but...)
		},
	},
	{
		name:  "UnknownFieldsOfOldRecordsSurvive",
		rule:  "adopting a record from before clerksync leaves the app's fields",
		needs: foreign,
		run: func(c *check) {
			s := c.raw()
			c.set(s, "user_1", strangeFields)
			before := c.fields(s, "user_1")
			got := c.offer(s, person("user_1", 1), clerksync.Updated)
			if len(got.Extra) != 2 {
				c.errorf("the record has Extra %v: the app's fields are not Map's", got.Extra)
			}
			c.untouched("after the first sync", c.fields(s, "user_1"), before, synced...)
		},
	},
	{
		name:  "ExtraIsToldFromTheAppsFields",
		rule:  "Extra holds only what Map set, and removing it leaves the app's fields",
		needs: foreign,
		run: func(c *check) {
			s := c.raw()
			c.offer(s, person("user_1", 1), clerksync.Created)
			c.set(s, "user_1", map[string]any{"points": 7})
			if got := c.record(s, "user_1"); len(got.Extra) != 2 {
				c.errorf("the record has Extra %v, want only plan and seats", got.Extra)
			}
			u := person("user_1", 2)
			u.Extra = nil
			c.offer(s, u, clerksync.Updated)
			f := c.fields(s, "user_1")
			if _, ok := f["plan"]; ok || f["points"] != int64(7) {
				c.errorf("after Map set no more names, plan is %#v and the app's points are %#v",
					f["plan"], f["points"])
			}
			// A field of the app becomes part of Extra if Map sets it.
			u = person("user_1", 3)
			u.Extra = map[string]any{"points": 8}
			c.offer(s, u, clerksync.Updated)
			c.offer(s, u, clerksync.Unchanged)
		},
	},
	{
		name:  "ExtraThatOthersWroteIsCanonical",
		rule:  "values of Extra come back in canonical types, whoever wrote them",
		needs: foreign,
		run: func(c *check) {
			s := c.raw()
			u := person("user_1", 1)
			u.Extra = map[string]any{"seats": 3, "list": []any{1, 2}, "nested": map[string]any{"a": 1}}
			c.offer(s, u, clerksync.Created)
			c.set(s, "user_1", map[string]any{
				"seats": int32(3), "list": []any{int32(1), int32(2)}, "nested": map[string]any{"a": int32(1)},
			})
			c.offer(s, u, clerksync.Unchanged)
		},
	},
	{
		name:  "NullsReadAsAbsent",
		rule:  "a null in the database reads as absent and does not make writes fail",
		needs: foreign,
		run: func(c *check) {
			nulls := make(map[string]any)
			paths := []string{
				"email", "role", "name", "profile", "location", "lastSignInAt", "emailVerified", "phoneVerified",
				"isActive", "banned", "createdAt", "updatedAt", "clerkCreatedAt", "clerkUpdatedAt", "syncedAt",
				"deletedAt", "extraFields",
			}
			for _, path := range paths {
				nulls[path] = Null{}
			}
			c.adopts(nulls)
		},
	},
	{
		name:  "WrongTypesReadAsAbsent",
		rule:  "a field of the wrong type reads as absent, never as an error, and makes no write fail once clerksync has written the record",
		needs: foreign,
		run: func(c *check) {
			c.heals(map[string]any{
				"email": 42, "role": true, "name": []any{"Ada"}, "profile": "a text", "location": 3.5,
				"lastSignInAt": "yesterday", "emailVerified": "yes", "phoneVerified": 1, "isActive": "no",
				"banned": "true", "createdAt": "2020", "updatedAt": "2020", "clerkCreatedAt": "2020",
				"clerkUpdatedAt": "2999-01-01", "deletedAt": "never", "extraFields": "email",
			})
			c.heals(map[string]any{
				"profile": map[string]any{
					"firstName": 1, "fullName": Null{}, "gender": map[string]any{"is": "nested"},
				},
				"location": map[string]any{"city": 7}, "deletedAt": false,
				"extraFields": []any{1, Null{}, "email", "nowhere"},
			})
		},
	},
	{
		name:  "TypesOfTheAppAreConflicts",
		rule:  "in a record that clerksync has never written, a value of another type is the app's: a conflict, and nothing is written but a deletion",
		needs: foreign,
		run: func(c *check) {
			next := c.small()
			own := ownTypes()
			for i, path := range slices.Sorted(maps.Keys(own)) {
				for _, kind := range kindsInTurn(i, own[path]) {
					c.conflicts(next().(RawStore), "user_"+path+kind, path, kind, typedValues[kind])
				}
			}
			for _, kind := range []string{"string", "bool", "object"} { // a name of Extra, whatever its type is
				c.conflicts(next().(RawStore), "user_plan"+kind, "plan", kind, typedValues[kind])
			}
		},
	},
	{
		name:  "NamesOfTheAppDoNotConflict",
		rule:  "in a record that clerksync has never written, names that only a new record gets may have any type, and stay",
		needs: foreign,
		run: func(c *check) {
			next := c.small()
			for i, path := range []string{"role", "location", "createdAt", "points", "profile.bio"} {
				for _, kind := range kindsInTurn(i, "") {
					s, id := next().(RawStore), "user_"+path+kind
					c.set(s, id, map[string]any{path: typedValues[kind]})
					before := c.fields(s, id)
					c.offer(s, person(id, 1), clerksync.Updated)
					c.untouched("after the first sync", c.fields(s, id), before, synced...)
				}
			}
		},
	},
	{
		name:  "RightTypesOfTheAppAreWritten",
		rule:  "in a record that clerksync has never written, values of the right type are brought in step",
		needs: foreign,
		run: func(c *check) {
			next := c.small()
			for path, kind := range ownTypes() {
				if path == "deletedAt" || path == "profile" || path == "extraFields" {
					continue
				}
				s, id := next().(RawStore), "user_"+path
				c.set(s, id, map[string]any{path: typedValues[kind]})
				c.offer(s, person(id, 1), clerksync.Updated)
				c.offer(s, person(id, 1), clerksync.Unchanged)
			}
			// An Extra that an earlier Upsert wrote is not the app's, although there was no syncedAt.
			s, u := next(), person("user_1", 1)
			u.SyncedAt = time.Time{}
			c.offer(s, u, clerksync.Created)
			c.offer(s, person("user_1", 2), clerksync.Updated)
		},
	},
	{
		name:  "StrangeRecordsCanBeDeleted",
		rule:  "a record of any shape can be deleted for good",
		needs: foreign,
		run: func(c *check) {
			s := c.raw()
			for i, fields := range []map[string]any{
				{"deletedAt": Null{}},
				{"deletedAt": "never"},
				{"deletedAt": false, "isActive": "yes", "profile": Null{}},
				{"clerkUpdatedAt": "2999", "createdAt": Null{}},
			} {
				id := "user_" + string(rune('a'+i))
				c.set(s, id, fields)
				c.deactivate(s, id, hour(1))
				c.offer(s, person(id, 2), clerksync.Deactivated)
			}
		},
	},
}

// adopts checks that a record of unusable fields reads as an empty record, and that the next
// version is written to it.
func (c *check) adopts(fields map[string]any) {
	c.t.Helper()
	c.brings(fields, time.Time{})
}

// heals is adopts for a record that clerksync has written.
func (c *check) heals(fields map[string]any) {
	c.t.Helper()
	c.brings(fields, hour(0))
}

func (c *check) brings(fields map[string]any, syncedAt time.Time) {
	c.t.Helper()
	next := c.small()
	for path, v := range fields { // one at a time, so that a failure names the field
		s, id := next().(RawStore), "user_"+path
		c.set(s, id, map[string]any{path: v})
		got := c.record(s, id)
		want := &clerksync.User{ClerkID: id, ID: got.ID, IsActive: true}
		c.same("a record whose "+path+" is "+show(v), got, want)
		if !syncedAt.IsZero() {
			c.set(s, id, map[string]any{"syncedAt": syncedAt})
		}
		c.offer(s, person(id, 1), clerksync.Updated)
		c.offer(s, person(id, 2), clerksync.Updated)
	}
	s, id := next().(RawStore), "user_all"
	c.set(s, id, fields)
	if !syncedAt.IsZero() {
		c.set(s, id, map[string]any{"syncedAt": syncedAt})
	}
	c.offer(s, person(id, 1), clerksync.Updated)
	c.offer(s, person(id, 1), clerksync.Unchanged)
}

// typedValues are values that an app may keep, by the name of their type.
var typedValues = map[string]any{
	"string": "x", "bool": true, "date": hour(-9), "double": 0.5, "object": map[string]any{"first": "x"}, "array": []any{"x"},
}

// kindsInTurn are the types of value, but own, to try at the i-th path: all in a long run, else one.
func kindsInTurn(i int, own string) []string {
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(typedValues)) {
		if kind != own {
			kinds = append(kinds, kind)
		}
	}
	if thorough() {
		return kinds
	}
	i %= len(kinds)
	return kinds[i : i+1]
}

// ownTypes are the types of clerksync's fields in a record that exists. The app's are not among
// them, nor is createdAt, which only a new record gets.
func ownTypes() map[string]string {
	types := map[string]string{
		"profile": "object", "clerkUpdatedAt": "date", "syncedAt": "date", "lastSignInAt": "date", "updatedAt": "date",
		"isActive": "bool", "deletedAt": "date", "extraFields": "array",
	}
	u := person("user_1", 1)
	u.Extra = nil
	for path, value := range u.ClerkFields() {
		switch value.(type) {
		case string:
			types[path] = "string"
		case bool:
			types[path] = "bool"
		default:
			types[path] = "date"
		}
	}
	return types
}

// conflicts checks that a record with a value at a path is not written, but can be deleted.
func (c *check) conflicts(s RawStore, id, path, kind string, value any) {
	c.t.Helper()
	c.set(s, id, map[string]any{path: value, "role": "ADMIN"})
	before := c.fields(s, id)
	for n := range 3 {
		u := person(id, 1)
		switch {
		case n == 1:
			u.ClerkUpdatedAt = time.Time{}
		case n == 2 && path != "plan":
			u.Extra = nil
		}
		_, err := s.Upsert(c.t.Context(), u)
		var conflict *clerksync.ConflictError
		if !errors.As(err, &conflict) || conflict.Field != path || conflict.Type != kind {
			c.errorf("%s is of type %s: %v (%+v), want a ConflictError with this Field and Type", path, kind, err, conflict)
		}
		c.rejected("Upsert over a value of the app", err, u)
	}
	c.untouched("after Upserts that conflict", c.fields(s, id), before)
	c.deactivate(s, id, hour(2))
	c.offer(s, person(id, 3), clerksync.Deactivated)
}
