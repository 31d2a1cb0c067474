package mongostore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/storetest"
	"github.com/clerksync/clerksync-go/mongostore"
)

// TestShapeWithoutVersion takes over a record from before clerksync.
func TestShapeWithoutVersion(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	insert(t, s.coll, bson.D{
		{Key: "clerkId", Value: "user_ada"}, {Key: "email", Value: "old@example.com"}, {Key: "role", Value: "ADMIN"},
		{Key: "profile", Value: bson.D{{Key: "bio", Value: "writes programs"}, {Key: "gender", Value: "unknown"}}},
		{Key: "__v", Value: 3}, {Key: "cart", Value: bson.A{1, 2}},
	})
	u := ada(1)
	u.Profile.Gender = ""
	got := upsert(t, s, u, clerksync.Updated)
	if got.Role != clerksync.RoleAdmin || !got.IsActive || got.Location != nil ||
		got.Email != "ada@example.com" || !got.ClerkUpdatedAt.Equal(hour(1)) {
		t.Errorf("record: %+v", got)
	}
	fields := s.fields(t, "user_ada")
	profile := fields["profile"].(map[string]any)
	if _, gender := profile["gender"]; gender || profile["bio"] != "writes programs" {
		t.Errorf("profile: %v", profile)
	}
	if fields["__v"] != int32(3) || !cmp.Equal(fields["cart"], []any{int32(1), int32(2)}) {
		t.Errorf("fields of the app: %v", fields)
	}
	if _, invented := fields["isActive"]; invented {
		t.Errorf("isActive was written: %v", fields)
	}
}

// TestShapeWithoutVersionAtAll syncs a user without a version to a record without one.
func TestShapeWithoutVersionAtAll(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	u := ada(1)
	u.ClerkUpdatedAt = time.Time{}
	upsert(t, s, u, clerksync.Created)
	upsert(t, s, u, clerksync.Unchanged)
	u.Name = "Countess"
	upsert(t, s, u, clerksync.Updated)
	upsert(t, s, ada(1), clerksync.Updated)
	upsert(t, s, u, clerksync.Stale)
}

func TestShapeDeletedAtNull(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	insert(t, s.coll, bson.D{{Key: "clerkId", Value: "user_ada"}, {Key: "deletedAt", Value: nil}})
	upsert(t, s, ada(1), clerksync.Updated)
	upsert(t, s, ada(1), clerksync.Unchanged)
	u := ada(1)
	u.Name = "Countess" // at the same version: a compare-and-set on null
	upsert(t, s, u, clerksync.Updated)
	if res, err := s.Deactivate(t.Context(), "user_ada", hour(2)); err != nil || res.User != nil {
		t.Fatal(res, err)
	}
	if got := upsert(t, s, ada(3), clerksync.Deactivated); !got.DeletedAt.Equal(hour(2)) || got.IsActive {
		t.Errorf("record: %+v", got)
	}
}

func TestShapeDeletedByHand(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	insert(t, s.coll, bson.D{
		{Key: "clerkId", Value: "user_ada"}, {Key: "email", Value: "ada@example.com"}, {Key: "deletedAt", Value: hour(5)},
	})
	before := s.fields(t, "user_ada")
	upsert(t, s, ada(9), clerksync.Deactivated)
	res, err := s.Deactivate(t.Context(), "user_ada", hour(9))
	if err != nil || res.User == nil || !res.User.DeletedAt.Equal(hour(5)) {
		t.Errorf("Deactivate: %+v, %v", res, err)
	}
	if d := cmp.Diff(before, s.fields(t, "user_ada")); d != "" {
		t.Errorf("the record changed:\n%s", d)
	}
}

// TestShapeProfileIsNoDocument syncs records that clerksync has written, and in which the app
// then put something else in place of the profile.
func TestShapeProfileIsNoDocument(t *testing.T) {
	t.Parallel()
	for name, profile := range map[string]any{
		"Null": nil, "String": "a teacher", "Number": 7, "Array": bson.A{"x"}, "EmptyArray": bson.A{}, "Bool": false,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			shape := func(id string) {
				insert(t, s.coll, bson.D{
					{Key: "clerkId", Value: id}, {Key: "profile", Value: profile}, {Key: "cart", Value: "full"},
					{Key: "syncedAt", Value: hour(0)},
				})
			}
			shape("user_ada")
			if u, err := s.User(t.Context(), "user_ada"); err != nil || u.Profile != (clerksync.Profile{}) {
				t.Fatal(u, err)
			}
			got := upsert(t, s, ada(1), clerksync.Updated)
			if got.Profile != ada(1).Profile {
				t.Errorf("profile: %+v", got.Profile)
			}
			if cart := s.fields(t, "user_ada")["cart"]; cart != "full" {
				t.Errorf("cart: %v", cart)
			}

			shape("user_none") // with nothing to write there, it stays if the server lets it
			upsert(t, s, &clerksync.User{ClerkID: "user_none", ClerkUpdatedAt: hour(1)}, clerksync.Updated)
			if _, kept := s.fields(t, "user_none")["profile"]; !kept && name != "Array" && name != "EmptyArray" {
				t.Error("profile is gone")
			}

			shape("user_bob")
			shape("user_cid")
			res, err := s.UpsertBatch(t.Context(), []*clerksync.User{person("bob", 1), person("cid", 1), person("dot", 1)})
			if err != nil || res[0].Outcome != clerksync.Updated ||
				res[1].Outcome != clerksync.Updated || res[2].Outcome != clerksync.Created {
				t.Errorf("batch: %v, %v", res, err)
			}
			shape("user_eve")
			if _, err := s.Deactivate(t.Context(), "user_eve", hour(1)); err != nil {
				t.Error(err)
			}
			erasing := open(t, s.coll, &mongostore.Options{EraseOnDelete: true})
			shape("user_fay")
			if _, err := erasing.Deactivate(t.Context(), "user_fay", hour(1)); err != nil {
				t.Error(err)
			}
		})
	}
}

// wrongTypes are values that a field of the record may have if clerksync did not write it.
var wrongTypes = map[string]any{
	"Null": storetest.Null{}, "Number": 42, "Text": "2024-03-01", "Array": bson.A{"x"}, "Dates": bson.A{hour(20)},
	"Document": bson.D{{Key: "x", Value: 1}}, "OldDate": time.UnixMilli(-5), "ObjectID": bson.NewObjectID(),
}

// fieldShape is a record that has a value of one of wrongTypes in all of these fields.
type fieldShape struct {
	right  string // of wrongTypes, the one that is right
	fields []string
}

// Each field that a filter or a $max uses is in a separate record: there one wrong value could
// hide what another does.
var fieldShapes = map[string]fieldShape{
	"texts": {"Text", []string{
		"email", "role", "name", "profile.firstName", "profile.lastName", "profile.fullName", "profile.imageUrl",
		"profile.phoneNumber", "profile.birthday", "profile.gender", "location.country",
	}},
	"flags":          {"", []string{"emailVerified", "phoneVerified", "isActive", "banned"}},
	"dates":          {"OldDate", []string{"createdAt", "updatedAt", "clerkCreatedAt"}},
	"location":       {"", []string{"location"}},
	"lastSignInAt":   {"OldDate", []string{"lastSignInAt"}},
	"clerkUpdatedAt": {"OldDate", []string{"clerkUpdatedAt"}},
	"syncedAt":       {"OldDate", []string{"syncedAt"}},
	"deletedAt":      {"OldDate", []string{"deletedAt"}},
	"extraFields":    {"", []string{"extraFields"}},
}

// TestShapeWrongTypes reads, writes and deletes records whose fields have wrong types, although
// clerksync has written them. What it does to others is TestUnconfirmedTypes.
func TestShapeWrongTypes(t *testing.T) {
	t.Parallel()
	for kind, value := range wrongTypes {
		t.Run(kind, func(t *testing.T) {
			s := newStore(t)
			for name, shape := range fieldShapes {
				if !chosen(kind+name, 3) {
					continue
				}
				empty(t, s.coll)
				id := "user_" + name
				wrong := make(map[string]any)
				for _, field := range shape.fields {
					wrong[field] = value
				}
				if err := s.SetFields(t.Context(), id, wrong); err != nil {
					t.Fatal(err)
				}
				u, err := s.User(t.Context(), id)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if kind != shape.right {
					want := &clerksync.User{ID: u.ID, ClerkID: id, IsActive: true}
					if d := cmp.Diff(want, u); d != "" {
						t.Errorf("%s: a wrong type does not read as absent:\n%s", name, d)
					}
				}
				if name == "syncedAt" && kind != "Null" && kind != shape.right {
					continue // only a date says that clerksync has written the record
				}
				if name != "syncedAt" {
					if err := s.SetFields(t.Context(), id, map[string]any{"syncedAt": hour(0)}); err != nil {
						t.Fatal(err)
					}
				}
				upsert(t, s, person(name, 1), clerksync.Updated)
				again := upsert(t, s, person(name, 1), clerksync.Unchanged)
				if again.Name != person(name, 1).Name || !again.ClerkUpdatedAt.Equal(hour(1)) {
					t.Errorf("%s: record %+v", name, again)
				}
				deactivate(t, s, id, hour(2))
				upsert(t, s, person(name, 3), clerksync.Deactivated)
			}
		})
	}
}

func TestShapeWithoutClerkID(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	insert(t, s.coll,
		bson.D{{Key: "email", Value: "one@example.com"}}, bson.D{{Key: "email", Value: "two@example.com"}},
		bson.D{{Key: "clerkId", Value: 7}}, bson.D{{Key: "clerkId", Value: nil}}, bson.D{{Key: "clerkId", Value: ""}})
	upsert(t, s, ada(1), clerksync.Created)
	if _, err := s.Deactivate(t.Context(), "user_gone", hour(1)); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for st, err := range s.Undeleted(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, st.ClerkID)
	}
	if !cmp.Equal(ids, []string{"user_ada"}) {
		t.Errorf("Undeleted: %q", ids)
	}
	if n, err := s.coll.CountDocuments(t.Context(), bson.D{}); err != nil || n != 7 {
		t.Errorf("%d documents, %v", n, err)
	}
}

// TestShapeForeignIDs reads records whose _ids have the types that other applications use.
func TestShapeForeignIDs(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	for i, c := range []struct {
		id   any
		want string
	}{
		{"ada-1", "ada-1"},
		{int64(7), `{"$numberLong":"7"}`},
	} {
		name := fmt.Sprint(i)
		insert(t, s.coll, bson.D{{Key: "_id", Value: c.id}, {Key: "clerkId", Value: "user_" + name}})
		if got := upsert(t, s, person(name, 1), clerksync.Updated); got.ID != c.want {
			t.Errorf("ID %q, want %q", got.ID, c.want)
		}
	}
}

// TestShapeForgedExtraFields syncs a record whose extraFields names fields that clerksync must
// not remove.
func TestShapeForgedExtraFields(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	insert(t, s.coll, bson.D{
		{Key: "clerkId", Value: "user_ada"}, {Key: "role", Value: "ADMIN"},
		{Key: "__v", Value: 1}, {Key: "plan", Value: "old"},
		{Key: "extraFields", Value: bson.A{"_id", "clerkId", "role", "__v", "", "a.b", "$set", 5, "plan", "plan"}},
	})
	u := ada(1)
	u.Extra = nil
	got := upsert(t, s, u, clerksync.Updated)
	if got.Role != clerksync.RoleAdmin || got.Extra != nil {
		t.Errorf("record: %+v", got)
	}
	fields := s.fields(t, "user_ada")
	if _, kept := fields["plan"]; kept || fields["__v"] != int32(1) {
		t.Errorf("fields: %v", fields)
	}
	if _, kept := fields["extraFields"]; kept {
		t.Errorf("extraFields: %v", fields["extraFields"])
	}
}

// TestCreatedIsAsRead checks that Created returns what a read returns, even if u has empty
// values and fields that the Store sets itself.
func TestCreatedIsAsRead(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	upsert(t, s, &clerksync.User{
		ClerkID: "user_ada", Location: &clerksync.Location{}, Extra: map[string]any{"plan": nil},
		ID: "x", RoleFromClerk: true, Partial: true, DeletedAt: hour(1), CreatedAt: hour(1),
		ClerkUpdatedAt: hour(1).Add(1234567), SyncedAt: hour(1).In(time.FixedZone("", 3600)),
	}, clerksync.Created)
}
