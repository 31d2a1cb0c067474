package mongostore_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
	"github.com/clerksync/clerksync-go/clerksync/storetest"
	"github.com/clerksync/clerksync-go/mongostore"
)

// typedValues are values that an app may keep, by the name of their type.
var typedValues = map[string]any{
	"string": "x", "object": bson.D{{Key: "first", Value: "x"}}, "array": bson.A{"x"}, "objectId": bson.NewObjectID(),
	"bool": true, "date": hour(-9), "int": int32(1), "long": int64(1), "double": 1.5, "timestamp": bson.Timestamp{T: 1},
	"binData": bson.Binary{Data: []byte("x")}, "regex": bson.Regex{Pattern: "x"}, "null": nil,
}

// wantedTypes are the types of clerksync's names in a record that exists already. Those of other
// names, role, location and createdAt among them, do not matter.
func wantedTypes() map[string]string {
	types := map[string]string{
		"profile": "object", "clerkUpdatedAt": "date", "syncedAt": "date", "lastSignInAt": "date", "updatedAt": "date",
		"isActive": "bool", "deletedAt": "date", "extraFields": "array",
	}
	for path, value := range person("any", 1).ClerkFields() {
		switch value.(type) {
		case bool:
			types[path] = "bool"
		case string:
			types[path] = "string"
		default:
			types[path] = "date"
		}
	}
	types["plan"], types["seats"] = "none", "none" // of Extra
	return types
}

// raw returns the record's document.
func (s rawStore) rawDocument(t testing.TB, clerkID string) bson.Raw {
	t.Helper()
	raw, err := s.coll.FindOne(t.Context(), bson.D{{Key: "clerkId", Value: clerkID}}).Raw()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// rawDocuments returns all documents, by Clerk id.
func (s rawStore) rawDocuments(t testing.TB) map[string]bson.Raw {
	t.Helper()
	cursor, err := s.coll.Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	var all []bson.Raw
	if err := cursor.All(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	docs := make(map[string]bson.Raw)
	for _, doc := range all {
		id, _ := doc.Lookup("clerkId").StringValueOK() // empty for a record to adopt
		docs[id] = doc
	}
	return docs
}

// insertTyped replaces all records by one of the app for each of typedValues, whose user is named
// after the type. It returns them by Clerk id.
func insertTyped(t testing.TB, s rawStore, path string) map[string]bson.Raw {
	t.Helper()
	empty(t, s.coll)
	var docs []bson.D
	for typ, value := range typedValues {
		docs = append(docs, bson.D{{Key: "clerkId", Value: "user_" + typ}, nested(path, value)})
	}
	insert(t, s.coll, docs...)
	return s.rawDocuments(t)
}

// nested returns a document with a value at a path.
func nested(path string, value any) bson.E {
	if head, rest, ok := strings.Cut(path, "."); ok {
		return bson.E{Key: head, Value: bson.D{{Key: "more", Value: "of the app"}, nested(rest, value)}}
	}
	return bson.E{Key: path, Value: value}
}

// wantTypeConflict checks a conflict about the app's value of a type at a path.
func wantTypeConflict(t testing.TB, err error, path, typ string) {
	t.Helper()
	conflict := (*clerksync.ConflictError)(nil)
	if !errors.As(err, &conflict) || conflict.Field != path || conflict.Type != typ || conflict.Holder != "" {
		t.Errorf("%s of type %s: error %v (%+v), want a conflict about these", path, typ, err, conflict)
	}
}

// TestUnconfirmedTypes has records that the app made, with a value of some type at each path. A
// value of another type than clerksync's is a conflict, and nothing is written but a deletion. By
// default each path has a fifth of the other types in turn, with -rounds=2 all of them.
func TestUnconfirmedTypes(t *testing.T) {
	t.Parallel()
	wanted, types := wantedTypes(), slices.Sorted(maps.Keys(typedValues))
	for i, path := range slices.Sorted(maps.Keys(wanted)) {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			s, want := newStore(t), wanted[path]
			for j, typ := range types {
				free := typ == want || typ == "null"
				inTurn := (i+j)%5 == 0 || *rounds > 1
				if typ == want && path == "deletedAt" || !free && !inTurn {
					continue
				}
				checkUnconfirmed(t, s, fmt.Sprint(j), path, typ, typedValues[typ], free)
			}
		})
	}
}

func checkUnconfirmed(t *testing.T, s rawStore, name, path, typ string, value any, free bool) {
	t.Helper()
	id, inBatch := "user_"+name, "user_batch"+name
	of := func(id string) bson.D {
		return bson.D{{Key: "clerkId", Value: id}, {Key: "role", Value: "ADMIN"}, nested(path, value), {Key: "cart", Value: "full"}}
	}
	empty(t, s.coll)
	insert(t, s.coll, of(id), of(inBatch))
	before := s.rawDocuments(t)
	beside := person("beside"+name, 1)
	if free {
		got := upsert(t, s, person(name, 1), clerksync.Updated)
		if got.Role != clerksync.RoleAdmin || got.Name != person(name, 1).Name || !got.SyncedAt.Equal(hour(1)) {
			t.Errorf("%s of type %s: record %+v", path, typ, got)
		}
		upsert(t, s, person(name, 1), clerksync.Unchanged)
		res, err := s.UpsertBatch(t.Context(), []*clerksync.User{person("batch"+name, 1), beside})
		if err != nil || res[0].Outcome != clerksync.Updated || res[1].Outcome != clerksync.Created {
			t.Errorf("%s of type %s: batch: %v, %v", path, typ, res, err)
		}
		return
	}
	inBatchOffered := person("batch"+name, 1)
	for _, bare := range []bool{false, true} {
		u := person(name, 1)
		if _, extra := u.Extra[path]; bare && !extra { // a guard may pass without other names
			u.Extra, inBatchOffered.Extra = nil, nil
		}
		_, err := s.Upsert(t.Context(), u)
		wantTypeConflict(t, err, path, typ)
	}
	batch := []*clerksync.User{inBatchOffered, beside}
	res, err := s.UpsertBatch(t.Context(), batch)
	failed := &clerksync.BatchError{}
	if !errors.As(err, &failed) || len(failed.Errs) != 1 || res[1].Outcome != clerksync.Created {
		t.Fatalf("%s of type %s: batch: %v, %v", path, typ, res, err)
	}
	wantTypeConflict(t, failed.Errs[0], path, typ)
	after := s.rawDocuments(t)
	for _, id := range []string{id, inBatch} {
		if !bytes.Equal(before[id], after[id]) {
			t.Errorf("%s of type %s: the record changed: %s", path, typ, after[id])
		}
	}
	deactivate(t, s.Store, id, hour(2))
	upsert(t, s, person(name, 3), clerksync.Deactivated)
}

// TestUnconfirmedNamesOfTheApp has values of the app that clerksync does not write to a record
// that exists: their types do not matter, and they stay.
func TestUnconfirmedNamesOfTheApp(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	for _, path := range []string{"role", "location", "createdAt", "location.city", "profile.bio", "points"} {
		before := insertTyped(t, s, path)
		for typ := range typedValues {
			upsert(t, s, person(typ, 1), clerksync.Updated)
		}
		for id, doc := range s.rawDocuments(t) {
			if after := doc.Lookup(strings.Split(path, ".")...); !before[id].Lookup(strings.Split(path, ".")...).Equal(after) {
				t.Errorf("%s of %s is now %v", path, id, after)
			}
		}
	}
}

// TestUnconfirmedParents has values in place of the profile, whether or not Clerk has one.
func TestUnconfirmedParents(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	bare := func(name string) *clerksync.User {
		return &clerksync.User{ClerkID: "user_" + name, ClerkUpdatedAt: hour(1), SyncedAt: hour(1)}
	}
	for typ, value := range typedValues {
		for name, u := range map[string]*clerksync.User{"full" + typ: person("full"+typ, 1), "bare" + typ: bare("bare" + typ)} {
			insert(t, s.coll, bson.D{{Key: "clerkId", Value: "user_" + name}, {Key: "profile", Value: value}})
			if typ != "object" && typ != "null" {
				_, err := s.Upsert(t.Context(), u)
				wantTypeConflict(t, err, "profile", typ)
				continue
			}
			got := upsert(t, s, u, clerksync.Updated)
			if got.Profile != u.Profile {
				t.Errorf("%s: profile %+v", name, got.Profile)
			}
			upsert(t, s, change(u, func(u *clerksync.User) { u.ClerkUpdatedAt = hour(2) }), clerksync.Updated)
		}
	}
}

// TestUnconfirmedIsFilled has a record of nulls, and of what the app has that is right.
func TestUnconfirmedIsFilled(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	nulls := bson.D{{Key: "clerkId", Value: "user_ada"}}
	for path := range wantedTypes() {
		if !strings.Contains(path, ".") {
			nulls = append(nulls, bson.E{Key: path})
		}
	}
	insert(t, s.coll, nulls)
	upsert(t, s, ada(1), clerksync.Updated)
	fresh := person("new", 1)
	upsert(t, s, fresh, clerksync.Created)
	want := s.fields(t, "user_new")
	got := s.fields(t, "user_ada")
	for path, value := range got {
		if value == nil && path != "isActive" && path != "deletedAt" {
			t.Errorf("%s is still null", path)
		}
	}
	if len(got["profile"].(map[string]any)) != len(want["profile"].(map[string]any)) {
		t.Errorf("profile %v, want like %v", got["profile"], want["profile"])
	}
	// A name that extraFields has is from an earlier Extra.
	insert(t, s.coll, bson.D{
		{Key: "clerkId", Value: "user_bob"}, {Key: "plan", Value: 7}, {Key: "old", Value: 7}, {Key: "seats", Value: nil},
		{Key: "extraFields", Value: bson.A{"plan", "old"}},
	})
	upsert(t, s, person("bob", 1), clerksync.Updated)
	if bob := s.fields(t, "user_bob"); bob["plan"] != "plan 1" || bob["seats"] != int64(1) || bob["old"] != nil {
		t.Errorf("record %v", bob)
	}
	// A list of documents is not a list of names.
	for _, list := range []bson.A{{bson.D{{Key: "label", Value: "Size"}}}, {"plan", bson.D{}}} {
		id := fmt.Sprint("user_list", len(list))
		insert(t, s.coll, bson.D{{Key: "clerkId", Value: id}, {Key: "extraFields", Value: list}})
		_, err := s.Upsert(t.Context(), person(fmt.Sprint("list", len(list)), 1))
		wantTypeConflict(t, err, "extraFields", "array")
	}
}

// meanwhile is a value that the app writes after an Upsert has read the record and before it
// writes.
type meanwhile struct {
	path, typ string
	before    any // nil for none
	value     any
	conflicts bool
}

func meanwhiles() (all []meanwhile) {
	for path, want := range wantedTypes() {
		filled := typedValues[want]
		switch {
		case want == "none": // of Extra
			continue
		case path == "clerkUpdatedAt", path == "deletedAt", path == "syncedAt", path == "profile":
			filled = nil // such a value changes the decision, or other paths
		default:
			all = append(all, meanwhile{path, want, nil, filled, false})
		}
		for _, typ := range []string{"array", "objectId", "object"} {
			if typ == want {
				continue
			}
			value := typedValues[typ]
			if path == "profile" {
				value = bson.A{bson.D{{Key: "firstName", Value: "x"}}}
				typ = "array"
			}
			all = append(all, meanwhile{path, typ, nil, value, true})
			if filled != nil {
				all = append(all, meanwhile{path, typ, filled, value, true})
			}
			if filled != nil && want != "array" { // a filter takes the element for the value
				all = append(all, meanwhile{path, "array", filled, bson.A{filled}, true})
			}
		}
	}
	return all
}

// TestUnconfirmedChangesMeanwhile has the app change a record that it made, after an Upsert has
// read it and before it writes: what the app has written is not overwritten.
func TestUnconfirmedChangesMeanwhile(t *testing.T) {
	t.Parallel()
	base := newStore(t)
	all := meanwhiles()
	if len(all) < 100 {
		t.Errorf("%d cases", len(all))
	}
	var other func() // before the second write, if not nil
	writes := 0
	s := open(t, newHooked(t, base.coll, func(cmd bson.Raw) {
		if other == nil || commandKind(cmd) != "write" {
			return
		}
		if writes++; writes == 2 {
			other()
		}
	}), nil)
	for i, m := range all {
		name := fmt.Sprint(i)
		if !chosen(fmt.Sprint(m.path, m.value, m.before), 3) {
			continue
		}
		doc := bson.D{{Key: "clerkId", Value: "user_" + name}, {Key: "cart", Value: "full"}}
		if m.before != nil {
			doc = append(doc, nested(m.path, m.before))
		}
		empty(t, base.coll)
		insert(t, base.coll, doc)
		writes, other = 0, func() {
			if err := base.SetFields(t.Context(), "user_"+name, map[string]any{m.path: m.value}); err != nil {
				t.Error(err)
			}
		}
		_, err := s.Upsert(t.Context(), person(name, 1))
		if other = nil; writes < 2 {
			t.Errorf("%s becomes %v: %d writes, so not meanwhile", m.path, m.value, writes)
		}
		if !m.conflicts {
			if err != nil {
				t.Errorf("%s becomes %v: %v", m.path, m.value, err)
			}
			continue
		}
		wantTypeConflict(t, err, m.path, m.typ)
		got := base.rawDocument(t, "user_"+name)
		if m.path != "syncedAt" && !got.Lookup("syncedAt").IsZero() {
			t.Errorf("%s becomes %v meanwhile: the record is %s", m.path, m.value, got)
		}
	}
}

// TestUnconfirmedExtraMeanwhile is TestUnconfirmedChangesMeanwhile for a name in Extra.
func TestUnconfirmedExtraMeanwhile(t *testing.T) {
	t.Parallel()
	base := newStore(t)
	insert(t, base.coll, bson.D{{Key: "clerkId", Value: "user_ada"}})
	s := interrupted(t, base, "write", 2, func() {
		if err := base.SetFields(t.Context(), "user_ada", map[string]any{"plan": "of the app"}); err != nil {
			t.Error(err)
		}
	})
	_, err := s.Upsert(t.Context(), ada(1))
	wantTypeConflict(t, err, "plan", "string")
	if got := base.fields(t, "user_ada"); got["plan"] != "of the app" || got["syncedAt"] != nil {
		t.Errorf("record %v", got)
	}
}

// TestUnconfirmedOutcomes has other decisions on records that the app made: nothing is written
// to them, so nothing conflicts.
func TestUnconfirmedOutcomes(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	insert(t, s.coll, bson.D{
		{Key: "clerkId", Value: "user_ada"}, {Key: "name", Value: bson.D{}}, {Key: "clerkUpdatedAt", Value: hour(2)},
	})
	upsert(t, s, ada(1), clerksync.Stale)
	_, err := s.Upsert(t.Context(), ada(2))
	wantTypeConflict(t, err, "name", "object")

	// Fields that are equal to Clerk's do not make a record clerksync's.
	u := &clerksync.User{ClerkID: "user_bob", ClerkUpdatedAt: hour(2), SyncedAt: hour(2)}
	insert(t, s.coll, bson.D{
		{Key: "clerkId", Value: "user_bob"}, {Key: "clerkUpdatedAt", Value: hour(2)}, {Key: "banned", Value: false},
		{Key: "emailVerified", Value: false}, {Key: "phoneVerified", Value: false}, {Key: "updatedAt", Value: "today"},
	})
	_, err = s.Upsert(t.Context(), u)
	wantTypeConflict(t, err, "updatedAt", "string")
	if err := s.SetFields(t.Context(), "user_bob", map[string]any{"updatedAt": hour(0)}); err != nil {
		t.Fatal(err)
	}
	if got := upsert(t, s, u, clerksync.Unchanged); !got.SyncedAt.Equal(hour(2)) {
		t.Errorf("syncedAt %v", got.SyncedAt)
	}
	// With Omit, only what would be written matters.
	insert(t, s.coll, bson.D{{Key: "clerkId", Value: "user_cid"}, {Key: "name", Value: bson.D{}}})
	omitting := change(person("cid", 1), func(u *clerksync.User) { u.Omit = []string{"email"} })
	_, err = s.Upsert(t.Context(), omitting)
	wantTypeConflict(t, err, "name", "object")
	omitting.Omit = []string{"name"}
	if got := upsert(t, s, omitting, clerksync.Updated); !got.SyncedAt.IsZero() || got.Email != omitting.Email {
		t.Errorf("record %+v", got)
	}
	_, err = s.Upsert(t.Context(), person("cid", 1))
	wantTypeConflict(t, err, "name", "object")
}

// TestUnconfirmedClerkIDInAnArray has a record in which clerkId is an array with the id: a filter
// finds it, and the unique index keeps out another.
func TestUnconfirmedClerkIDInAnArray(t *testing.T) {
	t.Parallel()
	for _, erase := range []bool{false, true} {
		coll := newCollection(t)
		s := rawStore{open(t, coll, &mongostore.Options{EraseOnDelete: erase}), coll}
		insert(t, coll, bson.D{{Key: "clerkId", Value: bson.A{"user_ada", "x"}}})
		res, err := s.Upsert(t.Context(), ada(1))
		if err == nil {
			t.Log("this server does not index the elements of an array: the app's record is another one")
			untouched := bson.D{{Key: "clerkId", Value: bson.A{"user_ada", "x"}}, {Key: "syncedAt", Value: nil}}
			if n, err := coll.CountDocuments(t.Context(), untouched); res.Outcome != clerksync.Created || err != nil || n != 1 {
				t.Errorf("%v, and %d records are the app's, %v", res.Outcome, n, err)
			}
			continue
		}
		wantTypeConflict(t, err, "clerkId", "array")
		deactivate(t, s.Store, "user_ada", hour(2))
		if n, err := coll.CountDocuments(t.Context(), bson.D{{Key: "deletedAt", Value: hour(2)}}); err != nil || n != 1 {
			t.Errorf("%d documents are deleted, %v", n, err)
		}
	}
}

// TestUnconfirmedErase deletes records that the app made: what has another type stays.
func TestUnconfirmedErase(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	s := rawStore{open(t, coll, &mongostore.Options{EraseOnDelete: true}), coll}
	for path, want := range wantedTypes() {
		keys, before := strings.Split(path, "."), insertTyped(t, s, path)
		for typ := range typedValues {
			deactivate(t, s.Store, "user_"+typ, hour(2))
		}
		after := s.rawDocuments(t)
		for typ := range typedValues {
			before, got := before["user_"+typ].Lookup(keys...), after["user_"+typ]
			if got.Lookup("deletedAt").IsZero() {
				t.Fatalf("%s of type %s: not deleted: %s", path, typ, got)
			}
			switch path {
			case "isActive", "deletedAt", "updatedAt":
				continue
			}
			if after := got.Lookup(keys...); typ != want && typ != "null" && !before.Equal(after) {
				t.Errorf("%s of type %s is now %v", path, typ, after)
			}
			if path == "email" && typ == want && !got.Lookup("email").IsZero() {
				t.Error("the e-mail address is still there")
			}
		}
	}
}

// TestUnconfirmedRoundTrips counts what a record of the app takes, once.
func TestUnconfirmedRoundTrips(t *testing.T) {
	t.Parallel()
	base := newStore(t)
	insert(t, base.coll, bson.D{{Key: "clerkId", Value: "user_ada"}, {Key: "name", Value: "of the app"}},
		bson.D{{Key: "clerkId", Value: "user_bob"}})
	coll, sent := newMonitored(t, base.coll)
	s := open(t, coll, &mongostore.Options{BatchSize: batchSize})
	sent.take()
	for _, step := range []struct {
		call func() error
		want []string
	}{
		{func() error { _, err := s.Upsert(t.Context(), ada(1)); return err },
			[]string{"update", "findAndModify", "find", "update"}},
		{func() error { _, err := s.Upsert(t.Context(), ada(2)); return err }, []string{"update"}},
		{func() error {
			_, err := s.UpsertBatch(t.Context(), []*clerksync.User{person("bob", 1), person("cid", 1), ada(3)})
			return err
		}, []string{"update", "find", "update"}},
		{func() error {
			_, err := s.UpsertBatch(t.Context(), []*clerksync.User{person("bob", 2), person("cid", 2), ada(4)})
			return err
		}, []string{"update"}},
	} {
		if err := step.call(); err != nil {
			t.Error(err)
		}
		if got := sent.names(); !slices.Equal(got, step.want) {
			t.Errorf("sends %q, want %q", got, step.want)
		}
	}
}

// TestRestoredTombstoneIsFilled restores the tombstone of a user without a record: it has no
// syncedAt, and nothing in it is in the way.
func TestRestoredTombstoneIsFilled(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	deactivate(t, s.Store, "user_ada", hour(1))
	if restored, err := s.Restore(t.Context(), "user_ada", hour(2)); err != nil || !restored {
		t.Fatal(restored, err)
	}
	upsert(t, s, ada(1), clerksync.Updated)
}

// TestConfirmIsExact has records that a filter may take for equal to Clerk's, and that differ. While
// they do, syncedAt does not move: it would keep out the evidence that corrects them.
func TestConfirmIsExact(t *testing.T) {
	t.Parallel()
	base := newStore(t)
	edits := map[string]any{
		"email": []any{"e@example.com", "x"}, "name": []any{"n"}, "emailVerified": []any{true}, "clerkCreatedAt": []any{hour(0)},
		"profile.firstName": []any{"f"}, "profile.gender": []any{storetest.Null{}, "x"}, "profile": []any{map[string]any{}},
		"clerkUpdatedAt": []any{hour(1)},
	}
	ofExtra := map[string]any{
		"n": 1.0, "half": []any{0.5}, "plan": []any{"free"}, "on": []any{true}, "at": []any{hour(3)},
		"extraFields": []any{"plan", "n", "half", "on", "at", "x"},
	}
	nestedOnes := map[string]any{
		"tags": []any{"a", 1.0}, "prefs": bson.D{{Key: "a", Value: 1.0}, {Key: "b", Value: "x"}},
		"n": 1.0, "plan": []any{"free"}, "email": []any{"e@example.com"},
	}
	scalars := map[string]any{"plan": "free", "n": int64(1), "half": 0.5, "on": true, "at": hour(3)}
	c := newConfirmer(t, base)
	n := 0
	for _, tt := range []struct {
		edits, extra map[string]any
	}{
		{edits, nil}, {edits, scalars}, {ofExtra, scalars},
		{nestedOnes, map[string]any{
			"plan": "free", "n": int64(1), "tags": []any{"a", int64(1)}, "prefs": map[string]any{"a": int64(1), "b": "x"},
		}},
	} {
		for path, value := range tt.edits {
			n++
			u := person(fmt.Sprint(n), 1)
			u.Email, u.Name, u.Profile.FirstName, u.Profile.Gender = "e@example.com", "n", "f", ""
			u.Extra = tt.extra
			c.confirmEdited(t, u, path, value)
		}
	}
}

// confirmer offers users to a Store, and calls hook before each command if it is not nil.
type confirmer struct {
	base rawStore
	s    *mongostore.Store
	hook func()
}

func newConfirmer(t *testing.T, base rawStore) *confirmer {
	t.Helper()
	c := &confirmer{base: base}
	c.s = open(t, newHooked(t, base.coll, func(bson.Raw) {
		if c.hook != nil {
			c.hook()
		}
	}), nil)
	return c
}

// confirmEdited stores u, changes a value, and offers u again with later evidence.
func (c *confirmer) confirmEdited(t *testing.T, u *clerksync.User, path string, value any) {
	t.Helper()
	base := c.base
	empty(t, base.coll)
	want := upsert(t, base, u, clerksync.Created)
	edit := bson.D{{Key: "$set", Value: bson.D{{Key: path, Value: nulled(value)}}}}
	if _, err := base.coll.UpdateOne(t.Context(), bson.D{{Key: "clerkId", Value: u.ClerkID}}, edit); err != nil {
		t.Fatal(err)
	}
	keys := strings.Split(path, ".")
	edited := base.rawDocument(t, u.ClerkID).Lookup(keys...)
	c.hook = func() {
		raw := base.rawDocument(t, u.ClerkID)
		if raw.Lookup(keys...).Equal(edited) && !raw.Lookup("syncedAt").Time().Equal(hour(1)) {
			t.Errorf("syncedAt moved although %s is %v", path, value)
		}
	}
	u.SyncedAt = hour(5)
	_, err := c.s.Upsert(t.Context(), u)
	c.hook = nil
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
	want.SyncedAt = hour(5)
	got := upsert(t, base, u, clerksync.Unchanged)
	got.UpdatedAt = want.UpdatedAt
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (- want, + got):\n%s", path, d)
	}
}

// nulled returns v with nulls for the storetest.Nulls in it.
func nulled(v any) any {
	if list, ok := v.([]any); ok {
		out := make(bson.A, len(list))
		for i, e := range list {
			out[i] = nulled(e)
		}
		return out
	}
	if v == (storetest.Null{}) {
		return nil
	}
	return v
}

// TestConfirmReadsWhatItMoves has the app change a field after an Upsert has read that the record
// equals Clerk's, and before it moves syncedAt.
func TestConfirmReadsWhatItMoves(t *testing.T) {
	t.Parallel()
	base := newStore(t)
	u := change(ada(1), func(u *clerksync.User) { u.Extra = map[string]any{"tags": []string{"a"}} })
	upsert(t, base, u, clerksync.Created)
	u.SyncedAt = hour(5)
	s := interrupted(t, base, "write", 2, func() {
		if err := base.SetFields(t.Context(), "user_ada", map[string]any{"name": "of the app"}); err != nil {
			t.Error(err)
		}
	})
	upsert(t, s, u, clerksync.Updated)
	if got := base.fields(t, "user_ada"); got["name"] != u.Name || got["syncedAt"] != hour(5) {
		t.Errorf("record %v", got)
	}
}

// TestConfirmKeepsToTwoRoundTrips checks that what a filter can compare is confirmed without a
// read.
func TestConfirmKeepsToTwoRoundTrips(t *testing.T) {
	t.Parallel()
	coll, sent := newMonitored(t, newCollection(t))
	s := open(t, coll, nil)
	u := change(ada(1), func(u *clerksync.User) {
		u.Extra = map[string]any{"plan": "free", "n": int64(1), "half": 0.5, "on": true, "at": hour(3), "zero": 0.0}
	})
	upsert(t, s, u, clerksync.Created)
	u.SyncedAt = hour(5)
	sent.take()
	res, err := s.Upsert(t.Context(), u)
	if err != nil || res.Outcome != clerksync.Unchanged || !res.User.SyncedAt.Equal(hour(5)) {
		t.Errorf("%+v, %v", res, err)
	}
	if got := sent.names(); !slices.Equal(got, []string{"update", "findAndModify"}) {
		t.Errorf("sends %q", got)
	}
	// Lists and maps are read and compared.
	u.Extra, u.ClerkUpdatedAt = map[string]any{"tags": []string{"a"}}, hour(2)
	upsert(t, s, u, clerksync.Updated)
	for i, want := range [][]string{{"update", "find", "update"}, {"update", "find"}} {
		u.SyncedAt = hour(6)
		sent.take()
		if res, err := s.Upsert(t.Context(), u); err != nil || res.Outcome != clerksync.Unchanged {
			t.Errorf("%+v, %v", res, err)
		}
		if got := sent.names(); !slices.Equal(got, want) {
			t.Errorf("call %d sends %q, want %q", i, got, want)
		}
	}
}

// TestResultsAsInMemstore makes the same calls to memstore, which an app's unit tests use: the
// Result.User of a call is nil in both or in neither.
func TestResultsAsInMemstore(t *testing.T) {
	t.Parallel()
	ours, theirs := newStore(t), memstore.New()
	later := change(ada(2), func(u *clerksync.User) { u.SyncedAt = hour(3) })
	renamed := change(ada(2), func(u *clerksync.User) { u.Name, u.SyncedAt = "x", hour(4) })
	omitting := change(ada(4), func(u *clerksync.User) { u.Omit = []string{"email"} })
	offer := func(u *clerksync.User) func(clerksync.Store) (clerksync.Result, error) {
		return func(s clerksync.Store) (clerksync.Result, error) { return s.Upsert(t.Context(), u) }
	}
	batch := func(u *clerksync.User) func(clerksync.Store) (clerksync.Result, error) {
		return func(s clerksync.Store) (clerksync.Result, error) {
			res, err := s.(clerksync.BatchStore).UpsertBatch(t.Context(), []*clerksync.User{u})
			return res[0], err
		}
	}
	remove := func(id string) func(clerksync.Store) (clerksync.Result, error) {
		return func(s clerksync.Store) (clerksync.Result, error) { return s.Deactivate(t.Context(), id, hour(9)) }
	}
	seen := make(map[string]bool)
	for i, call := range []func(clerksync.Store) (clerksync.Result, error){
		offer(omitting), offer(ada(1)), offer(ada(1)), offer(ada(2)), offer(later), offer(ada(1)), offer(renamed),
		offer(omitting), offer(omitting), batch(person("bob", 1)), batch(person("bob", 2)), batch(person("bob", 2)), batch(person("bob", 1)),
		remove("user_ada"), remove("user_ada"), offer(ada(5)), remove("user_none"), remove("user_none"), batch(person("none", 1)),
	} {
		a, errA := call(ours.Store)
		b, errB := call(theirs)
		if a.Outcome != b.Outcome || (a.User == nil) != (b.User == nil) || (errA == nil) != (errB == nil) {
			t.Errorf("call %d: %v with a record %t, %v; memstore %v with a record %t, %v",
				i, a.Outcome, a.User != nil, errA, b.Outcome, b.User != nil, errB)
		}
		seen[fmt.Sprint(a.Outcome, a.User != nil)] = true
	}
	if len(seen) < 7 {
		t.Errorf("only %v happened", seen)
	}
}
