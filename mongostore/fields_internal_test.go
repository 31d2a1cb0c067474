package mongostore

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"pgregory.net/rapid"

	"github.com/clerksync/clerksync-go/clerksync"
)

// TestRecordFieldsAreComplete compares the names with the other lists of this package.
func TestRecordFieldsAreComplete(t *testing.T) {
	t.Parallel()
	known := func(name string) {
		if _, ok := recordFields[name]; !ok {
			t.Errorf("%s is not among the record's fields", name)
		}
	}
	u := allFields()
	u.Extra = nil
	for path := range u.ClerkFields() {
		known(path)
	}
	for _, list := range [][]string{bookkeeping, slices.Collect(maps.Keys(fieldTypes)), slices.Collect(maps.Keys(forgets))} {
		for _, name := range list {
			known(name)
		}
	}
	up := &upsert{u: u, time: time.UnixMilli(1)}
	for _, e := range up.firstFields() {
		known(e.Key)
	}
	for name, kept := range recordFields {
		if _, forgotten := forgets[name]; !kept && !forgotten && name != "updatedAt" {
			t.Errorf("%s may be dropped, and a User keeps it", name)
		}
		if canBeExtra(strings.Split(name, ".")[0]) && name != insertToken {
			t.Errorf("Extra may use %s", name)
		}
	}
}

// drawFields draws a valid map, with renamed, nested, exchanged and dropped fields.
func drawFields(t *rapid.T) Fields {
	fields := make(Fields)
	segment := rapid.SampledFrom([]string{"a", "b", "c", "d", "profile", "email", "name", "clerkId", "syncedAt", "x y", "é", "A"})
	for _, name := range slices.Sorted(maps.Keys(recordFields)) {
		path := name
		switch kind := rapid.IntRange(0, 9).Draw(t, name); {
		case kind < 3:
		case kind == 3 && !recordFields[name]:
			path = ""
		case kind == 4 && name == "clerkId":
			path = "_id"
		case kind == 5: // takes another's name
			path = rapid.SampledFrom(slices.Sorted(maps.Keys(recordFields))).Draw(t, "freed")
		default:
			path = strings.Join(rapid.SliceOfN(segment, 1, 4).Draw(t, "path"), ".")
		}
		fields[name] = path
	}
	// What clashes gets a path of its own.
	for _, name := range slices.Sorted(maps.Keys(recordFields)) {
		for _, other := range slices.Sorted(maps.Keys(recordFields)) {
			if name != other && fields[name] != "" && fields[other] != "" && within(fields[name], fields[other]) {
				fields[name] = "own." + strings.ReplaceAll(name, ".", "_")
			}
		}
	}
	return fields
}

// TestFieldMap checks the codec under random maps: what it writes it reads, no two fields
// share a path, and commands are about paths of the map alone.
func TestFieldMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		fields := drawFields(t)
		f, err := newFieldMap(fields)
		if err != nil {
			t.Fatalf("%v: %v", fields, err)
		}
		checkPaths(t, f, fields)

		s := &Store{codec: f, now: func() time.Time { return time.UnixMilli(5000) }}
		first, err := s.newUpsert(drawUser(t))
		if err != nil {
			t.Fatal(err)
		}
		stored := readBack(t, s, first.document())
		checkRead(t, f, "a new record", stored, first, &clerksync.User{CreatedAt: first.time, UpdatedAt: first.time, IsActive: true})
		if stored.clerkID() != first.u.ClerkID || !first.inserted(stored) {
			t.Fatalf("the record is not recognized: %s", stored.raw)
		}

		next, err := s.newUpsert(drawUser(t))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := next.after(stored)
		if err != nil {
			t.Fatal(err)
		}
		checkCommands(t, f, next, stored)
		before := stored.user()
		next.u.Role, next.u.Location = roleAfter(before, next.u), before.Location
		next.u.SyncedAt, next.u.LastSignInAt = before.SyncedAt, before.LastSignInAt // by $max
		checkRead(t, f, "an update", &record{raw: raw, codec: f}, next, before)
	})
}

func roleAfter(before, u *clerksync.User) clerksync.Role {
	if u.RoleFromClerk {
		return u.Role
	}
	return before.Role
}

// drawUser draws a user of whom Clerk knows more or less.
func drawUser(t *rapid.T) *clerksync.User {
	u := allFields()
	u.RoleFromClerk = rapid.Bool().Draw(t, "role from Clerk")
	for _, name := range slices.Sorted(maps.Keys(forgets)) {
		if rapid.IntRange(0, 3).Draw(t, "unknown "+name) == 0 {
			forgets[name](u)
		}
	}
	return u
}

func readBack(t *rapid.T, s *Store, document bson.D) *record {
	raw, err := bson.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	if elements, err := bson.Raw(raw).Elements(); err != nil || len(elements) != len(document) {
		t.Fatalf("%s: %v", raw, err)
	}
	return s.record(raw)
}

// checkRead compares a record with what up writes. The rest is as in before.
func checkRead(t *rapid.T, f *fieldMap, what string, r *record, up *upsert, before *clerksync.User) {
	want := up.u.Clone()
	want.ID, want.CreatedAt, want.UpdatedAt = idOf(r.raw.Lookup("_id")), before.CreatedAt, up.time
	want.IsActive, want.RoleFromClerk = before.IsActive, false
	if f.drops("updatedAt") {
		want.UpdatedAt = time.Time{}
	}
	if d := cmp.Diff(want, r.decode()); d != "" {
		t.Fatalf("%s (- want, + got):\n%s\n%s", what, d, r.raw)
	}
}

// checkPaths checks the map itself.
func checkPaths(t *rapid.T, f *fieldMap, fields Fields) {
	for name, path := range fields {
		if got := f.path(name); got != path {
			t.Fatalf("%s is at %q, want %q", name, got, path)
		}
		if path == "" {
			continue
		}
		if got := f.name(path); got != name {
			t.Fatalf("%q is %q, want %s", path, got, name)
		}
		if got := f.path(name + ".0"); got != path+".0" {
			t.Fatalf("%s.0 is at %q", name, got)
		}
		for other, otherPath := range fields {
			if other != name && otherPath != "" && within(path, otherPath) {
				t.Fatalf("%s and %s are at %q and %q", name, other, path, otherPath)
			}
		}
		if top, _, _ := strings.Cut(path, "."); !f.taken(top) {
			t.Fatalf("Extra may use %q", top)
		}
	}
}

// checkCommands checks the keys of the filters and updates of an Upsert over r.
func checkCommands(t *rapid.T, f *fieldMap, up *upsert, r *record) {
	allowed := map[string]bool{"_id": true, "plan": true, "seats": true}
	for _, path := range f.paths {
		segments := strings.Split(path, ".")
		for i := range segments {
			allowed[strings.Join(segments[:i+1], ".")] = true
		}
	}
	keys := func(what string, d bson.D) {
		seen := make(map[string]bool)
		for _, e := range d {
			path := strings.TrimRight(e.Key, ".0123456789")
			if seen[e.Key] || !allowed[e.Key] && !allowed[path] || path == "" {
				t.Fatalf("%s is about %q: %v", what, e.Key, f.paths)
			}
			seen[e.Key] = true
		}
	}
	all := slices.Concat(fieldPaths(up.u), bookkeeping)
	keys("the guard", f.filter(up.guard()))
	keys("asRead", f.filter(r.asRead(all)))
	keys("unchanged", f.filter(r.unchanged(all)))
	if equal, exact := up.equalFilter(); exact {
		keys("equalFilter", f.filter(equal))
	}
	keys("the projection", f.keys(stampFields))
	keys("the key", f.filter(r.key()))
	for _, update := range []bson.D{up.guardedUpdate(), up.update(r), r.replaceBarriers(up.update(r))} {
		paths := make(map[string]bool)
		for _, operator := range f.update(update) {
			set := operator.Value.(bson.D)
			keys(operator.Key, set)
			for _, e := range set {
				for path := range paths {
					if within(path, e.Key) {
						t.Fatalf("an update is about %q twice, as %q", e.Key, path)
					}
				}
				paths[e.Key] = true
			}
			if len(set) == 0 {
				t.Fatalf("%s is empty", operator.Key)
			}
		}
	}
}

// TestReplaceBarriers looks at records that have something else in place of a parent.
func TestReplaceBarriers(t *testing.T) {
	t.Parallel()
	f := mapped(t, Fields{"email": "contact.mail", "name": "contact.who.name", "syncedAt": "state.at", "clerkUpdatedAt": "state.version"})
	update := func() bson.D {
		return bson.D{
			{Key: "$set", Value: bson.D{{Key: "email", Value: "a"}, {Key: "clerkUpdatedAt", Value: 7}, {Key: "banned", Value: true}}},
			{Key: "$unset", Value: bson.D{{Key: "name", Value: ""}, {Key: "role", Value: ""}}},
			{Key: "$max", Value: bson.D{{Key: "syncedAt", Value: 9}}},
		}
	}
	for name, c := range map[string]struct{ record, want bson.D }{
		"nothing": {bson.D{}, f.update(update())},
		"documents": {
			bson.D{{Key: "contact", Value: bson.D{}}, {Key: "state", Value: bson.D{}}}, f.update(update()),
		},
		"nulls": {
			bson.D{{Key: "contact", Value: nil}, {Key: "state", Value: nil}},
			bson.D{
				{Key: "$set", Value: bson.D{
					{Key: "banned", Value: true}, {Key: "contact", Value: bson.D{{Key: "mail", Value: "a"}}},
					{Key: "state", Value: bson.D{{Key: "version", Value: 7}, {Key: "at", Value: 9}}},
				}},
				{Key: "$unset", Value: bson.D{{Key: "role", Value: ""}}},
			},
		},
		"a deeper one": {
			bson.D{{Key: "contact", Value: bson.D{{Key: "who", Value: "x"}}}},
			bson.D{
				{Key: "$set", Value: bson.D{{Key: "contact.mail", Value: "a"}, {Key: "state.version", Value: 7}, {Key: "banned", Value: true}}},
				{Key: "$unset", Value: bson.D{{Key: "role", Value: ""}}},
				{Key: "$max", Value: bson.D{{Key: "state.at", Value: 9}}},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := &record{raw: mustMarshal(t, c.record), codec: f}
			if d := cmp.Diff(c.want, f.update(r.replaceBarriers(update()))); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestFilterOfDropped checks that a condition on a field that is not stored goes, and those
// beside it stay.
func TestFilterOfDropped(t *testing.T) {
	t.Parallel()
	f := mapped(t, Fields{"email": "", "name": "fullName"})
	got := f.filter(bson.D{
		{Key: "email", Value: nil}, {Key: "name", Value: "a"}, {Key: f.verbatim("name"), Value: "b"},
		{Key: "$or", Value: bson.A{bson.D{{Key: "email", Value: 1}, {Key: "name", Value: 2}}, bson.Raw{5, 0, 0, 0, 0}}},
	})
	want := bson.D{
		{Key: "fullName", Value: "a"}, {Key: "name", Value: "b"},
		{Key: "$or", Value: bson.A{bson.D{{Key: "fullName", Value: 2}}, bson.Raw{5, 0, 0, 0, 0}}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := f.update(bson.D{{Key: "$set", Value: bson.D{{Key: "email", Value: "x"}}}}); len(got) != 0 {
		t.Errorf("an update of nothing: %v", got)
	}
}

// TestNoFieldsNoCodec checks that a map of each field to its own name costs nothing.
func TestNoFieldsNoCodec(t *testing.T) {
	t.Parallel()
	for _, fields := range []Fields{nil, {}, {"email": "email", "profile.gender": "profile.gender"}} {
		if f := mapped(t, fields); f != nil {
			t.Errorf("%v makes a codec", fields)
		}
	}
}
