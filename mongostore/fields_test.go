package mongostore_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/storetest"
	"github.com/clerksync/clerksync-go/mongostore"
)

func TestSnakeCase(t *testing.T) {
	t.Parallel()
	got := mongostore.SnakeCase()
	for name, want := range map[string]string{
		"clerkId": "clerk_id", "email": "email", "emailVerified": "email_verified", "profile.firstName": "profile.first_name",
		"profile.imageUrl": "profile.image_url", "location.timezone": "location.timezone", "clerkUpdatedAt": "clerk_updated_at",
		"extraFields": "extra_fields", "clerkJobs": "clerk_jobs", "adoptedBy": "adopted_by",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	got["email"] = "mail" // is the caller's own
	if again := mongostore.SnakeCase(); again["email"] != "email" {
		t.Error("two calls return the same map")
	}
}

// TestFieldsFaults checks that Open refuses each kind of map, and says which fields are at fault.
func TestFieldsFaults(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	type fields = mongostore.Fields
	for name, c := range map[string]struct {
		fields fields
		want   []string
	}{
		"unknown":               {fields{"mail": "email2"}, []string{`"mail" is not the name of a field`}},
		"a path's name":         {fields{"email ": "x"}, []string{`"email " is not the name`}},
		"empty name":            {fields{"": "x"}, []string{`"" is not the name`}},
		"several fields":        {fields{"location": "place"}, []string{`"location" is not one field but several`, "location.city, location.country"}},
		"part of a field":       {fields{"clerkJobs.create": "x"}, []string{`"clerkJobs.create" is not the name`}},
		"the same path":         {fields{"email": "who", "name": "who"}, []string{`"email" and "name" have the same path, "who"`}},
		"a default":             {fields{"email": "name"}, []string{`"email" and "name", which keeps its name, have the same path, "name"`}},
		"inside":                {fields{"email": "contact", "name": "contact.name"}, []string{`"name"`, `"contact.name", is inside that of "email" "contact"`}},
		"a default inside":      {fields{"email": "profile"}, []string{`"profile.firstName", which keeps its name,`, `is inside that of "email" "profile"`}},
		"inside a default":      {fields{"email": "name.mail"}, []string{`"name.mail", is inside that of "name"`}},
		"operator":              {fields{"email": "$email"}, []string{`"email": "$email" is not a path`}},
		"operator inside":       {fields{"email": "a.$.b"}, []string{"is not a path"}},
		"NUL":                   {fields{"email": "a\x00"}, []string{"is not a path"}},
		"not UTF-8":             {fields{"email": "\xff"}, []string{"is not a path"}},
		"empty first segment":   {fields{"email": ".a"}, []string{"empty segment"}},
		"empty segment":         {fields{"email": "a..b"}, []string{"empty segment"}},
		"empty last segment":    {fields{"email": "a."}, []string{"empty segment"}},
		"dot":                   {fields{"email": "."}, []string{"empty segment"}},
		"index":                 {fields{"email": "mails.0"}, []string{"a number for a segment"}},
		"index first":           {fields{"email": "0"}, []string{"a number for a segment"}},
		"deep":                  {fields{"email": strings.Repeat("a.", 32) + "a"}, []string{"more than 32 segments"}},
		"_id":                   {fields{"email": "_id"}, []string{`"_id" may only hold clerkId`}},
		"in _id":                {fields{"clerkId": "_id.clerk"}, []string{"MongoDB's"}},
		"Mongoose's":            {fields{"email": "__v"}, []string{"Mongoose's"}},
		"the insert's token":    {fields{"email": "clerkInsert"}, []string{`"clerkInsert"`}},
		"all at once":           {fields{"mail": "x", "email": "a..b", "banned": "", "name": "role"}, []string{`"mail"`, "empty segment", `"banned"`, `"name" and "role"`}},
		"dropped clerkId":       {fields{"clerkId": ""}, []string{`"clerkId": "" means not stored, and clerksync needs this field`}},
		"dropped and exchanged": {fields{"isActive": "", "email": "isActive"}, []string{`"isActive": ""`}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := mongostore.Open(t.Context(), coll, &mongostore.Options{Fields: c.fields})
			if s != nil {
				t.Error("a Store beside the error")
			}
			wantError(t, err, append(c.want, "mongostore: open: Fields: ")...)
		})
	}
	for _, name := range []string{
		"clerkUpdatedAt", "syncedAt", "createdAt", "deletedAt", "isActive", "banned", "extraFields", "clerkJobs", "adoptedAt", "adoptedBy",
	} {
		_, err := mongostore.Open(t.Context(), coll, &mongostore.Options{Fields: fields{name: ""}})
		wantError(t, err, name, "may be renamed")
		if f, err := mongostore.Open(t.Context(), coll, &mongostore.Options{BatchSize: batchSize, Fields: fields{name: "x"}}); f == nil || err != nil {
			t.Errorf("%s cannot be renamed: %v", name, err)
		}
	}
	for name, f := range map[string]fields{
		"exchanged":       {"email": "name", "name": "email"},
		"in a freed name": {"email": "name.mail", "name": "fullName"},
		"a digit":         {"email": "mail2.v1"},
	} {
		if _, err := mongostore.Open(t.Context(), coll, &mongostore.Options{BatchSize: batchSize, Fields: f}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFieldsAreCopied changes the map after Open.
func TestFieldsAreCopied(t *testing.T) {
	t.Parallel()
	fields := mongostore.Fields{"email": "mail"}
	s := newMappedStore(t, fields)
	fields["email"], fields["name"] = "other", ""
	upsert(t, s.Store, ada(1), clerksync.Created)
	if got := s.raw.fields(t, "user_ada"); got["mail"] != "ada@example.com" || got["name"] != "ada 1" {
		t.Errorf("record %v", got)
	}
}

// dropped drops all that may be dropped.
func dropped() mongostore.Fields {
	fields := mongostore.Fields{"role": "", "updatedAt": "", "lastSignInAt": "", "location.country": "", "location.city": "",
		"location.state": "", "location.timezone": ""}
	for path := range (&clerksync.User{}).ClerkFields() {
		if path != "banned" {
			fields[path] = ""
		}
	}
	return fields
}

// TestDroppedFields checks that what is not stored is not written, read, compared or removed,
// also if the app has something of its own under such a name.
func TestDroppedFields(t *testing.T) {
	t.Parallel()
	appsOwn := map[string]any{"email": 42, "profile": "a text", "updatedAt": "yesterday", "lastSignInAt": true, "role": []any{"x"}}
	for _, erase := range []bool{false, true} {
		t.Run(fmt.Sprintf("Erase=%t", erase), func(t *testing.T) {
			t.Parallel()
			coll := newCollection(t)
			s := rawStore{open(t, coll, &mongostore.Options{BatchSize: batchSize, Fields: dropped(), EraseOnDelete: erase}), coll}
			full := func(n int) *clerksync.User {
				u := ada(n)
				u.RoleFromClerk = true
				return u
			}
			want := &clerksync.User{ClerkID: "user_ada", IsActive: true, ClerkUpdatedAt: hour(1), SyncedAt: hour(1), Extra: full(1).Extra}
			check := func(got *clerksync.User) {
				t.Helper()
				want.ID, want.CreatedAt = got.ID, got.CreatedAt
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("record (- want, + got):\n%s", d)
				}
			}
			check(upsert(t, s, full(1), clerksync.Created))
			record := s.fields(t, "user_ada")
			for _, name := range []string{"_id", "clerkId", "banned", "isActive", "createdAt", "clerkUpdatedAt", "syncedAt", "extraFields", "plan", "seats"} {
				delete(record, name)
			}
			if len(record) > 0 {
				t.Errorf("the record also has %v", record)
			}
			if err := s.SetFields(t.Context(), "user_ada", appsOwn); err != nil {
				t.Fatal(err)
			}
			upsert(t, s, full(1), clerksync.Unchanged)
			other := full(1)
			other.Email, other.Profile, other.LastSignInAt = "other@example.com", clerksync.Profile{}, hour(9)
			check(upsert(t, s, other, clerksync.Unchanged))
			want.ClerkUpdatedAt, want.SyncedAt, want.Extra = hour(2), hour(2), full(2).Extra
			check(upsert(t, s, full(2), clerksync.Updated))
			upsert(t, s, full(1), clerksync.Stale)
			banned := full(2)
			banned.Banned = true
			want.Banned = true
			check(upsert(t, s, banned, clerksync.Updated))
			checkBatches(t, s, full)
			deactivate(t, s, "user_ada", hour(9))
			if ok, err := s.Restore(t.Context(), "user_ada", hour(10)); !ok || err != nil {
				t.Errorf("Restore: %t, %v", ok, err)
			}
			upsert(t, s, full(6), clerksync.Updated)
			for name, value := range appsOwn {
				if got := s.fields(t, "user_ada")[name]; !cmp.Equal(fmt.Sprint(got), fmt.Sprint(value)) {
					t.Errorf("the app's own %s is %v, was %v", name, got, value)
				}
			}
		})
	}
}

// checkBatches checks the outcomes of batches, whatever the Store expects of them.
func checkBatches(t *testing.T, s rawStore, ada func(n int) *clerksync.User) {
	t.Helper()
	for i, guess := range []int{mongostore.GuessWritable, mongostore.GuessNew, mongostore.GuessReadFirst} {
		s.SetGuess(guess)
		us := []*clerksync.User{ada(3 + i), person(fmt.Sprint("new", i), 1), ada(1)}
		for range 2 {
			results, err := s.UpsertBatch(t.Context(), us)
			want := []clerksync.Outcome{clerksync.Updated, clerksync.Created, clerksync.Stale}
			if us[1].ClerkID == "" {
				t.Fatal("no id")
			}
			if err != nil {
				t.Fatal(err)
			}
			if results[1].Outcome == clerksync.Unchanged { // the second time
				want[0], want[1] = clerksync.Unchanged, clerksync.Unchanged
			}
			for i, r := range results {
				if r.Outcome != want[i] {
					t.Errorf("guess %d, number %d: %v, want %v", guess, i, r.Outcome, want[i])
				}
			}
		}
	}
}

func TestKeeps(t *testing.T) {
	t.Parallel()
	s := newMappedStore(t, mongostore.Fields{"profile.gender": "", "name": "who.name", "lastSignInAt": ""})
	for path, want := range map[string]bool{
		"profile.gender": false, "lastSignInAt": false, "name": true, "email": true, "clerkId": true, "syncedAt": true,
		"plan": true, "who": false, // a name in Extra
	} {
		if got := s.Keeps(path); got != want {
			t.Errorf("%s: %t, want %t", path, got, want)
		}
	}
	if s := newStore(t); !s.Keeps("email") || !s.Keeps("plan") {
		t.Error("a Store without Fields does not keep all")
	}
}

// TestExtraIntoMappedPaths checks that Extra cannot write into a field that is elsewhere, and
// that the rest of the user is written to a record that exists.
func TestExtraIntoMappedPaths(t *testing.T) {
	t.Parallel()
	s := newMappedStore(t, mongostore.Fields{"email": "contact.mail", "profile.imageUrl": "avatar", "name": "fullName"})
	for _, name := range []string{"contact", "avatar", "fullName", "email", "name"} {
		u := person("bob", 1)
		u.Extra = map[string]any{name: "x"}
		if _, err := s.Upsert(t.Context(), u); err == nil {
			t.Errorf("Extra has %s, and it was written", name)
		}
		results, err := s.UpsertBatch(t.Context(), []*clerksync.User{u, person("cid", 1)})
		batch := (*clerksync.BatchError)(nil)
		if !errors.As(err, &batch) || len(batch.Errs) != 1 || batch.Errs[0] == nil || results[1].Outcome == 0 {
			t.Errorf("Extra has %s, in a batch: %v, %v", name, results, err)
		}
	}
	u := person("bob", 1)
	u.Extra = map[string]any{"avatar": "x", "plan": "y"}
	_, err := s.Upsert(t.Context(), u)
	conflict := (*clerksync.ConflictError)(nil)
	if !errors.As(err, &conflict) || conflict.Field != "avatar" || conflict.Holder != "" || conflict.Type != "" {
		t.Fatalf("%v, want a conflict about avatar", err)
	}
	upsert(t, s.Store, person("bob", 1), clerksync.Created)
	u.ClerkUpdatedAt, u.Omit = hour(2), []string{"avatar"}
	if got := upsert(t, s.Store, u, clerksync.Updated); got.Extra["plan"] != "y" || got.Extra["avatar"] != nil {
		t.Errorf("Extra is %v", got.Extra)
	}
}

// TestExtraBecomesAField maps a field to a name that Extra had before.
func TestExtraBecomesAField(t *testing.T) {
	t.Parallel()
	base := newStore(t)
	u := ada(1)
	u.Extra = map[string]any{"avatar": "old", "plan": "x"}
	upsert(t, base, u, clerksync.Created)
	s := rawStore{open(t, base.coll, &mongostore.Options{BatchSize: batchSize, Fields: mongostore.Fields{"profile.imageUrl": "avatar"}}), base.coll}
	u = ada(2)
	u.Extra = nil
	if got := upsert(t, s, u, clerksync.Updated); got.Profile.ImageURL == "" || got.Extra != nil {
		t.Errorf("record %+v", got)
	}
	if got := s.fields(t, "user_ada"); got["avatar"] != u.Profile.ImageURL || got["plan"] != nil {
		t.Errorf("record %v", got)
	}
}

// barrierFields have parents for fields of every kind.
var barrierFields = mongostore.Fields{
	"email": "contact.mail", "name": "contact.who.name", "clerkUpdatedAt": "state.version", "syncedAt": "state.at", "deletedAt": "state.gone",
	"isActive": "flags.active", "extraFields": "names.extra",
}

// TestParentsOfMappedFields looks at records that the app has written and that have something
// else where a document is needed.
func TestParentsOfMappedFields(t *testing.T) {
	t.Parallel()
	values := map[string]any{"string": "x", "array": []any{map[string]any{"mail": "x", "active": true, "gone": hour(1), "at": hour(1)}}, "double": 0.5}
	for _, parent := range []string{"contact", "contact.who", "state", "flags", "names"} {
		for kind, value := range values {
			t.Run(parent+"/"+kind, func(t *testing.T) {
				t.Parallel()
				s := newMappedStore(t, barrierFields)
				id := "user_ada"
				set := func(fields map[string]any) {
					t.Helper()
					if err := s.raw.setFields(t.Context(), bson.D{{Key: "clerkId", Value: id}}, fields); err != nil {
						t.Fatal(err)
					}
				}
				set(map[string]any{parent: value, "credits": 7})
				for _, call := range []func() error{
					func() error { _, err := s.Store.Upsert(t.Context(), ada(1)); return err },
					func() error { _, err := s.UpsertBatch(t.Context(), []*clerksync.User{ada(1)}); return err },
				} {
					conflict := (*clerksync.ConflictError)(nil)
					if err := call(); !errors.As(err, &conflict) || conflict.Field != parent || conflict.Type != kind {
						t.Errorf("%v (%+v), want a conflict about %s of type %s", err, conflict, parent, kind)
					}
				}
				deactivate(t, s.Store, id, hour(2))
				if u, err := s.User(t.Context(), id); err != nil || !u.DeletedAt.Equal(hour(2)) || u.IsActive {
					t.Errorf("after the deletion: %+v, %v", u, err)
				}
				upsert(t, s.Store, ada(3), clerksync.Deactivated)
				if got := s.raw.fields(t, id)["credits"]; fmt.Sprint(got) != "7" {
					t.Errorf("the app's own field is %v", got)
				}
				id = "user_bob"
				set(map[string]any{parent: nil})
				set(map[string]any{parent: storetest.Null{}})
				upsert(t, s.Store, person("bob", 1), clerksync.Updated)
				upsert(t, s.Store, person("bob", 1), clerksync.Unchanged)

				// Once clerksync has written a record, what is in the way is nobody's.
				id = "user_cid"
				upsert(t, s.Store, person("cid", 1), clerksync.Created)
				set(map[string]any{parent: value})
				if parent == "state" { // holds syncedAt, so the record is the app's again
					return
				}
				upsert(t, s.Store, person("cid", 2), clerksync.Updated)
				upsert(t, s.Store, person("cid", 2), clerksync.Unchanged)
			})
		}
	}
}

// TestClerkIDInAnArray looks at a record that a filter finds and that has no Clerk id.
func TestClerkIDInAnArray(t *testing.T) {
	t.Parallel()
	s := newMappedStore(t, mongostore.Fields{"clerkId": "clerk.id", "deletedAt": "clerk.gone"})
	insert(t, s.raw.coll, bson.D{{Key: "clerk", Value: bson.A{bson.D{{Key: "id", Value: "user_ada"}}}}, {Key: "credits", Value: 7}})
	if _, err := s.raw.coll.InsertOne(t.Context(), bson.D{{Key: "clerk", Value: bson.D{{Key: "id", Value: "user_ada"}}}}); err == nil {
		t.Log("this server's unique index does not cover fields in arrays: FerretDB 1")
		return
	}
	_, err := s.Store.Upsert(t.Context(), ada(1))
	conflict := (*clerksync.ConflictError)(nil)
	if !errors.As(err, &conflict) || conflict.Field != "clerk" || conflict.Type != "array" {
		t.Errorf("%v, want a conflict about clerk", err)
	}
	deactivate(t, s.Store, "user_ada", hour(2))
	upsert(t, s.Store, ada(3), clerksync.Deactivated)
}

// TestMappedConflicts uses a unique index of the app's on a mapped path.
func TestMappedConflicts(t *testing.T) {
	t.Parallel()
	for name, clerkID := range map[string]string{"Path": "clerk.id", "ID": "_id"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			coll := newCollection(t)
			monitor.expect(coll.Name(), clerkID)
			createIndex(t, coll, ascending("contact.mail"), options.Index().SetUnique(true).SetSparse(true).SetName("mail"))
			s := rawStore{open(t, coll, &mongostore.Options{
				BatchSize: batchSize, AllowUnique: []string{"mail"},
				Fields: mongostore.Fields{"clerkId": clerkID, "email": "contact.mail", "emailVerified": "contact.verified", "updatedAt": "changed"},
			}), coll}
			upsert(t, s, ada(1), clerksync.Created)
			bob := person("bob", 1)
			bob.Email = "ada@example.com"
			_, err := s.Upsert(t.Context(), bob)
			wantConflict(t, err, "email")
			conflict := (*clerksync.ConflictError)(nil)
			if errors.As(err, &conflict) && conflict.Holder != "user_ada" {
				t.Errorf("holder %q", conflict.Holder)
			}
			upsert(t, s, person("bob", 1), clerksync.Created)
			bob.ClerkUpdatedAt = hour(2)
			_, err = s.UpsertBatch(t.Context(), []*clerksync.User{bob})
			batch := (*clerksync.BatchError)(nil)
			if !errors.As(err, &batch) {
				t.Fatal(err)
			}
			wantConflict(t, batch.Errs[0], "email")

			// A deleted record gives the address up.
			deactivate(t, s, "user_ada", hour(3))
			upsert(t, s, bob, clerksync.Updated)
			if got, err := s.User(t.Context(), "user_ada"); err != nil || got.Email != "" || !got.UpdatedAt.After(hour(3)) {
				t.Errorf("the deleted record: %+v, %v", got, err)
			}
		})
	}
}

// TestClerkIDAsID checks what is special about a Clerk id in _id.
func TestClerkIDAsID(t *testing.T) {
	t.Parallel()
	s := newMappedStore(t, mongostore.Fields{"clerkId": "_id"})
	if specs := indexSpecs(t, s.raw.coll); len(specs) > 1 {
		t.Errorf("indexes %v, want only that on _id", specs)
	}
	if got := upsert(t, s.Store, ada(1), clerksync.Created); got.ID != "user_ada" || got.ClerkID != "user_ada" {
		t.Errorf("ids %q and %q", got.ID, got.ClerkID)
	}
	deactivate(t, s.Store, "user_bob", hour(1)) // without a record
	upsert(t, s.Store, person("bob", 2), clerksync.Deactivated)
	oid := bson.NewObjectID()
	insert(t, s.raw.coll, bson.D{{Key: "_id", Value: oid}, {Key: "email", Value: "old@example.com"}},
		bson.D{{Key: "_id", Value: int64(7)}}, bson.D{{Key: "_id", Value: ""}})
	if _, err := s.User(t.Context(), oid.Hex()); !errors.Is(err, clerksync.ErrNotFound) {
		t.Errorf("a record with an ObjectID: %v", err)
	}
	var ids []string
	for stamp, err := range s.Undeleted(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, stamp.ClerkID)
	}
	if !slices.Equal(ids, []string{"user_ada"}) {
		t.Errorf("undeleted: %q", ids)
	}
	var record bson.M
	if err := s.raw.coll.FindOne(t.Context(), bson.D{{Key: "_id", Value: "user_ada"}}).Decode(&record); err != nil {
		t.Fatal(err)
	}
	if _, ok := record["clerkInsert"].(bson.ObjectID); !ok || record["clerkId"] != nil {
		t.Errorf("record %v", record)
	}
	record["email"] = "mine" // the app may copy a record, and its token with it
	record["_id"], record["clerkUpdatedAt"] = "user_cid", hour(1)
	if _, err := s.raw.coll.InsertOne(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	upsert(t, s.Store, person("cid", 2), clerksync.Updated)
}

// TestMappedIndex checks the index that Open creates, and that it takes one that exists.
func TestMappedIndex(t *testing.T) {
	t.Parallel()
	for path, name := range map[string]string{
		"clerk_id": "clerk_id_1", "auth.clerkId": "auth.clerkId_1", "clerk.id": "clerk.id_1", "uid": "clerksync_uid", "auth.id": "clerksync_auth.id",
	} {
		s := newMappedStore(t, mongostore.Fields{"clerkId": path})
		spec, ok := indexSpecs(t, s.raw.coll)[name]
		if !ok || spec.Unique == nil || !*spec.Unique || !cmp.Equal(spec.KeysDocument.Index(0).Key(), path) {
			t.Errorf("%s: indexes %v", path, indexSpecs(t, s.raw.coll))
		}
		open(t, s.raw.coll, &mongostore.Options{BatchSize: batchSize, Fields: mongostore.Fields{"clerkId": path}})
		if n := len(indexSpecs(t, s.raw.coll)); n != 2 {
			t.Errorf("%s: %d indexes after the second Open", path, n)
		}
	}
}

// TestDuplicateMappedIDs checks the advice on a collection that cannot have the index.
func TestDuplicateMappedIDs(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	monitor.expect(coll.Name(), "auth.clerk_id")
	for range 2 {
		insert(t, coll, bson.D{{Key: "auth", Value: bson.D{{Key: "clerk_id", Value: "user_ada"}}}})
	}
	_, err := mongostore.Open(t.Context(), coll, &mongostore.Options{BatchSize: batchSize, Fields: mongostore.Fields{"clerkId": "auth.clerk_id"}})
	wantError(t, err, "auth.clerk_id cannot be made unique", `2 records have "user_ada"`, "remove auth.clerk_id from the others", `.find({"auth.clerk_id": …})`)
}

// TestChangedFields opens a collection with other Fields than before.
func TestChangedFields(t *testing.T) {
	t.Parallel()
	maps := map[string]mongostore.Fields{
		"none": nil, "snake": mongostore.SnakeCase(), "nested": nestedFields(), "id": {"clerkId": "_id"},
	}
	for before, fields := range maps {
		for after, other := range maps {
			t.Run(before+" to "+after, func(t *testing.T) {
				t.Parallel()
				s := newMappedStore(t, fields)
				upsert(t, s.Store, ada(1), clerksync.Created)
				monitor.expect(s.raw.coll.Name(), other["clerkId"])
				indexes := indexSpecs(t, s.raw.coll)
				opts := &mongostore.Options{BatchSize: batchSize, Fields: other}
				_, err := mongostore.Open(t.Context(), s.raw.coll, opts)
				if before == after {
					if err != nil {
						t.Error(err)
					}
					return
				}
				path := s.to("clerkId")
				wantError(t, err, "records have their Clerk ids in "+path+",")
				if got := indexSpecs(t, s.raw.coll); len(got) != len(indexes) {
					t.Errorf("Open made an index: %v", got)
				}
			})
		}
	}
}

// TestFieldsThatDidNotChange looks at collections in which other unique indexes are not about
// Clerk ids, or are empty.
func TestFieldsThatDidNotChange(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		path string
		docs []bson.D
	}{
		"the app's ids":     {"handle", []bson.D{{{Key: "handle", Value: "user_42"}}, {{Key: "handle", Value: "user_43"}}}},
		"the app's _id":     {"handle", []bson.D{{{Key: "_id", Value: "user_42"}, {Key: "email", Value: "x"}}}},
		"no records":        {"clerk_id", nil},
		"no ids":            {"clerk_id", []bson.D{{{Key: "clerk_id", Value: 7}}, {{Key: "email", Value: "y"}, {Key: "clerk_id", Value: ""}}}},
		"both":              {"clerk_id", []bson.D{{{Key: "clerk_id", Value: "user_ada"}, {Key: "clerkId", Value: "user_ada"}}}},
		"inside the new":    {"clerkId.old", nil},
		"allowed":           {"clerk_id", []bson.D{{{Key: "clerk_id", Value: "user_ada"}}}},
		"another direction": {"handle", []bson.D{{{Key: "handle", Value: "user_2NNEqL2nrIRdJ194ndJqAHwEfx"}}}}, // too short
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			coll := newCollection(t)
			createIndex(t, coll, ascending(c.path), options.Index().SetUnique(true).SetSparse(true).SetName("theirs"))
			if c.docs != nil {
				insert(t, coll, c.docs...)
			}
			opts := &mongostore.Options{BatchSize: batchSize}
			if name == "allowed" {
				opts.AllowUnique = []string{"theirs"}
			}
			// The embedded database does not list the index as sparse.
			if _, err := mongostore.Open(t.Context(), coll, opts); err != nil && strings.Contains(err.Error(), "Clerk ids in") {
				t.Error(err)
			}
		})
	}
	coll := newCollection(t)
	createIndex(t, coll, ascending("handle"), options.Index().SetUnique(true).SetSparse(true).SetName("theirs"))
	insert(t, coll, bson.D{{Key: "handle", Value: "user_2NNEqL2nrIRdJ194ndJqAHwEfxC"}})
	_, err := mongostore.Open(t.Context(), coll, &mongostore.Options{BatchSize: batchSize})
	wantError(t, err, "records have their Clerk ids in handle,", `"theirs"`)
}

// TestEraseMapped checks that an erasure finds the fields where they are.
func TestEraseMapped(t *testing.T) {
	t.Parallel()
	for name, fields := range fieldMaps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			coll := newCollection(t)
			monitor.expect(coll.Name(), fields()["clerkId"])
			s := open(t, coll, &mongostore.Options{BatchSize: batchSize, Fields: fields(), EraseOnDelete: true})
			upsert(t, s, ada(1), clerksync.Created)
			deactivate(t, s, "user_ada", hour(2))
			u, err := s.User(t.Context(), "user_ada")
			if err != nil {
				t.Fatal(err)
			}
			want := &clerksync.User{
				ID: u.ID, ClerkID: "user_ada", Role: clerksync.RoleTeacher, Location: ada(1).Location, EmailVerified: true,
				CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt, ClerkUpdatedAt: hour(1), SyncedAt: hour(1), DeletedAt: hour(2),
			}
			if d := cmp.Diff(want, u); d != "" {
				t.Errorf("the deleted record (- want, + got):\n%s", d)
			}
			raw, err := coll.FindOne(t.Context(), bson.D{}).Raw()
			if err != nil || strings.Contains(raw.String(), "@") || strings.Contains(raw.String(), "+1555") {
				t.Errorf("the deleted record is %s, %v", raw, err)
			}
		})
	}
}

// TestMappedSyncer runs a Syncer and a Reconcile on a collection with dropped fields.
func TestMappedReconcile(t *testing.T) {
	t.Parallel()
	base := newCollection(t)
	clerk, _, _ := newApp(t, newCollection(t), nil)
	store := open(t, base, &mongostore.Options{BatchSize: batchSize, Fields: mongostore.Fields{
		"email": "contact.mail", "emailVerified": "", "lastSignInAt": "", "updatedAt": "", "profile.imageUrl": "",
	}})
	s, err := clerksync.New(clerksync.Config{Store: store, SecretKey: clerk.SecretKey(), APIURL: clerk.APIURL()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: fmt.Sprintf("ada%d@example.com", i)})
	}
	for _, want := range []map[string]int{{"created": 3}, {"unchanged": 3}, {"unchanged": 3}} {
		report, err := s.Reconcile(t.Context(), clerksync.ReconcileOptions{Force: true})
		got := map[string]int{"created": report.Created.Count, "unchanged": report.Unchanged, "updated": report.Updated.Count}
		maps.DeleteFunc(got, func(_ string, n int) bool { return n == 0 })
		if err != nil || !cmp.Equal(want, got) {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
}
