package mongostore_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// verified is what the apps of these tests trust.
var verified = bson.D{{Key: "emailVerified", Value: true}}

// adoptAny adopts in both ways. The app's own ids are in legacyId.
func adoptAny() *mongostore.Adopt {
	return &mongostore.Adopt{ByExternalID: "legacyId", ByEmail: true, Trusted: verified}
}

// openAdopting returns a Store on coll that adopts, with the collection.
func openAdopting(t testing.TB, coll *mongo.Collection, adopt *mongostore.Adopt) rawStore {
	t.Helper()
	return rawStore{open(t, coll, &mongostore.Options{BatchSize: batchSize, Adopt: adopt}), coll}
}

// legacy is a record that the app had before Clerk, with ada's address.
func legacy(id any, more ...bson.E) bson.D {
	d := bson.D{
		{Key: "_id", Value: id}, {Key: "email", Value: "ada@example.com"}, {Key: "emailVerified", Value: true},
		{Key: "role", Value: "ADMIN"}, {Key: "credits", Value: int32(7)},
	}
	for _, e := range more {
		d = slices.DeleteFunc(d, func(old bson.E) bool { return old.Key == e.Key })
		d = append(d, e)
	}
	return d
}

func without(d bson.D, fields ...string) bson.D {
	return slices.DeleteFunc(d, func(e bson.E) bool { return slices.Contains(fields, e.Key) })
}

// proven is ada at version n, who controls her address.
func proven(n int) *clerksync.User {
	return change(ada(n), func(u *clerksync.User) { u.EmailProven = true })
}

// external is ada at version n with an external id. She has not proven to control her address.
func external(id string, n int) *clerksync.User {
	return change(ada(n), func(u *clerksync.User) { u.ExternalID = id })
}

// snapshot returns all documents as Extended JSON, in order.
func (s rawStore) snapshot(t testing.TB) (all []string) {
	t.Helper()
	cursor, err := s.coll.Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	var docs []bson.Raw
	if err := cursor.All(t.Context(), &docs); err != nil {
		t.Fatal(err)
	}
	for _, doc := range docs {
		all = append(all, doc.String())
	}
	slices.Sort(all)
	return all
}

// TestAdopt adopts a record by its address and by its external id, and checks all of it.
func TestAdopt(t *testing.T) {
	t.Parallel()
	for by, u := range map[string]*clerksync.User{clerksync.ByEmail: proven(1), clerksync.ByExternalID: external("a7", 1)} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			s := openAdopting(t, newCollection(t), adoptAny())
			made := hour(-900)
			insert(t, s.coll, legacy("app-7", bson.E{Key: "legacyId", Value: "a7"}, bson.E{Key: "isActive", Value: false},
				bson.E{Key: "createdAt", Value: made}, bson.E{Key: "profile", Value: bson.D{{Key: "bio", Value: "x"}, {Key: "gender", Value: "unknown"}}}))
			got := upsert(t, s, u, clerksync.Adopted)
			want, err := u.Canonical()
			if err != nil {
				t.Fatal(err)
			}
			want.ID, want.Role, want.CreatedAt, want.UpdatedAt, want.Location = "app-7", clerksync.RoleAdmin, made, got.UpdatedAt, nil
			want.ExternalID, want.EmailProven = "", false
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("the record (- want, + got):\n%s", d)
			}
			fields := s.fields(t, "user_ada")
			if fields["credits"] != int32(7) || fields["legacyId"] != "a7" || fields["profile"].(map[string]any)["bio"] != "x" {
				t.Errorf("fields of the app are gone: %v", fields)
			}
			if at, ok := fields["adoptedAt"].(time.Time); !ok || !at.Equal(got.UpdatedAt) || fields["adoptedBy"] != by {
				t.Errorf("adoptedAt %v (updatedAt %v), adoptedBy %v", fields["adoptedAt"], got.UpdatedAt, fields["adoptedBy"])
			}
			upsert(t, s, u, clerksync.Unchanged)
			u.ClerkUpdatedAt = hour(2)
			upsert(t, s, u, clerksync.Updated)
			if n := len(s.snapshot(t)); n != 1 {
				t.Errorf("%d records", n)
			}
		})
	}
}

// TestAdoptFillsIn has records that lack what a new record has, or have null there.
func TestAdoptFillsIn(t *testing.T) {
	t.Parallel()
	s := openAdopting(t, newCollection(t), adoptAny())
	null := func(field string) bson.E { return bson.E{Key: field} }
	for name, doc := range map[string]bson.D{
		"absent": without(legacy("x"), "role"),
		"null": legacy("x", null("role"), null("isActive"), null("createdAt"), null("clerkId"), null("deletedAt"), null("syncedAt"),
			null("clerkUpdatedAt"), null("profile"), null("name"), null("adoptedAt"), null("plan"), null("extraFields")),
	} {
		empty(t, s.coll)
		insert(t, s.coll, doc)
		u := proven(1)
		got := upsert(t, s, u, clerksync.Adopted)
		if got.Role != u.Role || !got.IsActive || got.CreatedAt.IsZero() || !got.CreatedAt.Equal(got.UpdatedAt) || got.Profile != u.Profile {
			t.Errorf("%s: the record is not filled in: %+v", name, got)
		}
		if active := s.fields(t, "user_ada")["isActive"]; active != true {
			t.Errorf("%s: isActive is %v", name, active)
		}
		upsert(t, s, u, clerksync.Unchanged)
	}
	// What the app has there stays, whatever it is.
	empty(t, s.coll)
	roles := []any{"ADMIN", "OWNER"}
	insert(t, s.coll, legacy("x", bson.E{Key: "role", Value: roles}, bson.E{Key: "createdAt", Value: "1999"}))
	upsert(t, s, proven(1), clerksync.Adopted)
	if f := s.fields(t, "user_ada"); !cmp.Equal(f["role"], roles) || f["createdAt"] != "1999" {
		t.Errorf("role %v, createdAt %v", f["role"], f["createdAt"])
	}
	// But a role from Clerk is written.
	empty(t, s.coll)
	insert(t, s.coll, legacy("x"))
	got := upsert(t, s, change(proven(1), func(u *clerksync.User) { u.RoleFromClerk = true }), clerksync.Adopted)
	if got.Role != clerksync.RoleTeacher {
		t.Errorf("role %s, want Clerk's", got.Role)
	}
}

// TestAdoptWithoutVersion adopts for users of whom neither version nor time is known. What the
// record has there is not about this user.
func TestAdoptWithoutVersion(t *testing.T) {
	t.Parallel()
	s := openAdopting(t, newCollection(t), adoptAny())
	for name, clear := range map[string]func(u *clerksync.User){
		"version":        func(u *clerksync.User) { u.ClerkUpdatedAt = time.Time{} },
		"both":           func(u *clerksync.User) { u.ClerkUpdatedAt, u.SyncedAt = time.Time{}, time.Time{} },
		"neither":        func(*clerksync.User) {},
		"everything":     func(u *clerksync.User) { *u = clerksync.User{ClerkID: u.ClerkID, ExternalID: "a7"} },
		"email, by id":   func(u *clerksync.User) { u.Email, u.ExternalID = "", "a7" },
		"another, by id": func(u *clerksync.User) { u.Email, u.ExternalID = "new@example.com", "a7" },
	} {
		empty(t, s.coll)
		insert(t, s.coll, legacy("x", bson.E{Key: "legacyId", Value: "a7"},
			bson.E{Key: "syncedAt", Value: hour(50)}, bson.E{Key: "clerkUpdatedAt", Value: hour(50)}))
		u := change(proven(1), clear)
		got := upsert(t, s, u, clerksync.Adopted)
		if !got.SyncedAt.Equal(u.SyncedAt) || !got.ClerkUpdatedAt.Equal(u.ClerkUpdatedAt) || got.Email != u.Email {
			t.Errorf("without %s: syncedAt %v, version %v, email %q", name, got.SyncedAt, got.ClerkUpdatedAt, got.Email)
		}
		upsert(t, s, u, clerksync.Unchanged)
	}
}

// refusal is a record that must not be adopted.
type refusal struct {
	docs    []bson.D
	u       *clerksync.User
	want    clerksync.ConflictError
	created bool // the user gets a record of their own, and want is empty
}

// adoptRefusals are all reasons not to adopt ada's record.
func adoptRefusals() map[string]refusal {
	field := func(name string, value any) bson.E { return bson.E{Key: name, Value: value} }
	unlinked := clerksync.ConflictError{Field: "email", Err: clerksync.ErrUnlinked}
	named := func(holder string) clerksync.ConflictError {
		return clerksync.ConflictError{Field: "legacyId", Holder: holder}
	}
	typed := func(path, typ string) clerksync.ConflictError {
		return clerksync.ConflictError{Field: path, Type: typ}
	}
	of := func(id any, more ...bson.E) bson.D { return legacy(id, append(more, field("legacyId", "a7"))...) }
	other := field("clerkId", "user_other")
	deleted := field("deletedAt", hour(0))
	return map[string]refusal{
		// By the address.
		"unproven":  {docs: []bson.D{legacy(1)}, u: ada(1), want: unlinked},
		"ambiguous": {docs: []bson.D{legacy(1), legacy(2)}, u: proven(1), want: unlinked},
		// The one that is trusted must not be picked.
		"ambiguous, one trusted": {docs: []bson.D{legacy(1), legacy(2, field("emailVerified", false))}, u: proven(1), want: unlinked},
		"ambiguous in two forms": {
			docs: []bson.D{legacy(1), legacy(2, field("email", "Ada@example.com"))},
			u:    change(proven(1), func(u *clerksync.User) { u.Email = "Ada@example.com" }), want: unlinked,
		},
		"untrusted":             {docs: []bson.D{legacy(1, field("emailVerified", false))}, u: proven(1), want: unlinked},
		"untrusted, absent":     {docs: []bson.D{without(legacy(1), "emailVerified")}, u: proven(1), want: unlinked},
		"unproven, untrusted":   {docs: []bson.D{legacy(1, field("emailVerified", false))}, u: ada(1), want: unlinked},
		"in upper case":         {docs: []bson.D{legacy(1, field("email", "ADA@example.com"))}, u: proven(1), created: true},
		"of another user":       {docs: []bson.D{legacy(1, other)}, u: proven(1), created: true},
		"a tombstone":           {docs: []bson.D{legacy(1, deleted)}, u: proven(1), created: true},
		"a tombstone of a user": {docs: []bson.D{legacy(1, other, deleted)}, u: proven(1), created: true},
		"with another address":  {docs: []bson.D{legacy(1, field("email", "eve@example.com"))}, u: proven(1), created: true},
		"a user with no address": {
			docs: []bson.D{legacy(1, field("email", "")), legacy(2, field("email", nil)), without(legacy(3), "email")},
			u:    change(proven(1), func(u *clerksync.User) { u.Email = "" }), created: true,
		},
		"of another user and unproven": {docs: []bson.D{legacy(1, other), legacy(2)}, u: ada(1), want: unlinked},
		"a clerkId of another type":    {docs: []bson.D{legacy(1, field("clerkId", int32(7)))}, u: proven(1), created: true},

		// By the external id.
		"named: of another user":      {docs: []bson.D{of(1, other)}, u: external("a7", 1), want: named("user_other")},
		"named: of one, and unlinked": {docs: []bson.D{of(1), of(2, other)}, u: external("a7", 1), want: named("user_other")},
		"named: of a deleted user":    {docs: []bson.D{of(1, other, deleted)}, u: external("a7", 1), want: named("")},
		"named: a tombstone":          {docs: []bson.D{of(1, deleted)}, u: external("a7", 1), want: named("")},
		"named: ambiguous":            {docs: []bson.D{of(1), of(2)}, u: external("a7", 1), want: named("")},
		"named: clerkId of a type":    {docs: []bson.D{of(1, field("clerkId", int32(7)))}, u: external("a7", 1), want: typed("clerkId", "int")},
		// If it names a record, the address is not tried.
		"named: of another, proven": {
			docs: []bson.D{of(1, other, field("email", "eve@example.com")), legacy(2)},
			u:    change(proven(1), func(u *clerksync.User) { u.ExternalID = "a7" }), want: named("user_other"),
		},
		"named: none, unproven": {docs: []bson.D{legacy(1)}, u: external("a7", 1), want: unlinked},
		"named: none at all":    {docs: []bson.D{of(1, field("email", "eve@example.com"))}, u: external("a8", 1), created: true},
		"named: by no id":       {docs: []bson.D{legacy(1, field("legacyId", ""), field("email", "eve@example.com"))}, u: external("", 1), created: true},

		// What the app keeps under clerksync's names.
		"types: name":         {docs: []bson.D{of(1, field("name", bson.D{{Key: "first", Value: "x"}}))}, u: external("a7", 1), want: typed("name", "object")},
		"types: by email":     {docs: []bson.D{legacy(1, field("name", bson.D{{Key: "first", Value: "x"}}))}, u: proven(1), want: typed("name", "object")},
		"types: addresses":    {docs: []bson.D{legacy(1, field("email", bson.A{"ada@example.com"}))}, u: proven(1), want: typed("email", "array")},
		"types: profile":      {docs: []bson.D{of(1, field("profile", "url"))}, u: external("a7", 1), want: typed("profile", "string")},
		"types: isActive":     {docs: []bson.D{of(1, field("isActive", "yes"))}, u: external("a7", 1), want: typed("isActive", "string")},
		"types: deletedAt":    {docs: []bson.D{of(1, field("deletedAt", true))}, u: external("a7", 1), want: typed("deletedAt", "bool")},
		"types: syncedAt":     {docs: []bson.D{of(1, field("syncedAt", "now"))}, u: external("a7", 1), want: typed("syncedAt", "string")},
		"types: adoptedAt":    {docs: []bson.D{of(1, field("adoptedAt", "the shelter"))}, u: external("a7", 1), want: typed("adoptedAt", "string")},
		"types: adoptedBy":    {docs: []bson.D{of(1, field("adoptedBy", int32(7)))}, u: external("a7", 1), want: typed("adoptedBy", "int")},
		"types: Extra":        {docs: []bson.D{of(1, field("plan", "gold"))}, u: external("a7", 1), want: typed("plan", "string")},
		"types: with a time":  {docs: []bson.D{of(1, field("plan", "gold"), field("syncedAt", hour(1)))}, u: external("a7", 1), want: typed("plan", "string")},
		"types: with a time2": {docs: []bson.D{of(1, field("name", int32(1)), field("syncedAt", hour(1)))}, u: external("a7", 1), want: typed("name", "int")},
	}
}

// TestAdoptRefusals offers ada to Stores with records that must not be linked to her: nothing is
// written, or she gets a record of her own.
func TestAdoptRefusals(t *testing.T) {
	t.Parallel()
	s := openAdopting(t, newCollection(t), adoptAny())
	for name, r := range adoptRefusals() {
		empty(t, s.coll)
		insert(t, s.coll, r.docs...)
		before := s.snapshot(t)
		for _, unversioned := range []bool{false, true} {
			u := *r.u
			if unversioned {
				u.ClerkUpdatedAt = time.Time{}
			}
			res, err := s.Upsert(t.Context(), &u)
			r.check(t, name, res.Outcome, err)
		}
		checkBeside(t, s, name, before, r.created)
	}
}

// check checks what an Upsert of the refused user returned. The first of two creates the record.
func (r refusal) check(t testing.TB, name string, got clerksync.Outcome, err error) {
	t.Helper()
	if r.created {
		if err != nil || !slices.Contains([]clerksync.Outcome{clerksync.Created, clerksync.Stale}, got) {
			t.Errorf("%s: %v, %v, want created", name, got, err)
		}
		return
	}
	var conflict *clerksync.ConflictError
	if !errors.As(err, &conflict) {
		t.Errorf("%s: %v, %v, want a conflict", name, got, err)
		return
	}
	if conflict.Field != r.want.Field || conflict.Holder != r.want.Holder || conflict.Type != r.want.Type {
		t.Errorf("%s: conflict %+v, want %+v", name, conflict, r.want)
	}
	if errors.Is(err, clerksync.ErrUnlinked) != (r.want.Err != nil) {
		t.Errorf("%s: %v matches ErrUnlinked: %t", name, err, r.want.Err == nil)
	}
	if text := err.Error(); strings.Contains(text, "@") || strings.Contains(text, "unique index") || strings.Contains(text, "a7") {
		t.Errorf("%s: the text %q", name, text)
	}
}

// checkBeside checks that records stayed as they were, and whether ada has one of her own.
func checkBeside(t testing.TB, s rawStore, name string, before []string, created bool) {
	t.Helper()
	after := s.snapshot(t)
	after = slices.DeleteFunc(after, func(doc string) bool { return strings.Contains(doc, "user_ada") })
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("%s: the records have changed:\n%s", name, d)
	}
	_, err := s.User(t.Context(), "user_ada")
	if created != (err == nil) {
		t.Errorf("%s: ada's record: %v, want one: %t", name, err, created)
	}
}

// TestAdoptMatches has records that an external id names, or that have the user's address.
func TestAdoptMatches(t *testing.T) {
	t.Parallel()
	oid, uuid := bson.NewObjectID(), bson.Binary{Subtype: 4, Data: []byte("0123456789abcdef")}
	uuidText := "30313233-3435-3637-3839-616263646566"
	for name, c := range map[string]struct {
		id         any
		externalID string
	}{
		"string": {"a7", "a7"}, "objectId": {oid, oid.Hex()}, "objectId in capitals": {oid, strings.ToUpper(oid.Hex())},
		"hex text": {oid.Hex(), oid.Hex()}, "int": {int32(7), "7"}, "long": {int64(1 << 40), "1099511627776"},
		"double": {float64(7), "7"}, "number as text": {"7", "7"}, "text that is no number": {"007", "007"},
		"uuid": {uuid, uuidText}, "uuid in capitals": {uuid, strings.ToUpper(uuidText)}, "uuid text": {uuidText, uuidText},
		"negative": {int32(-7), "-7"},
	} {
		for _, field := range []string{"_id", "legacyId", "legacy.id"} {
			t.Run(name+" in "+field, func(t *testing.T) {
				t.Parallel()
				s := openAdopting(t, newCollection(t), &mongostore.Adopt{ByExternalID: field})
				doc := legacy("mine", nested(field, c.id))
				others := []bson.D{
					legacy("b1", nested("legacyId", "07")), legacy("b2", nested("legacyId", "8")), legacy("b3", nested("legacyId", 7.5)),
				}
				insert(t, s.coll, append(others, doc)...)
				upsert(t, s, external(c.externalID, 1), clerksync.Adopted)
				if id := s.rawDocument(t, "user_ada").Lookup("_id"); field != "_id" && id.StringValue() != "mine" {
					t.Errorf("adopted %v", id)
				}
			})
		}
	}
	for name, c := range map[string]struct{ stored, offered string }{
		"as Clerk writes it": {"Ada@Example.com", "Ada@Example.com"}, "in lower case": {"ada@example.com", "Ada@Example.com"},
	} {
		s := openAdopting(t, newCollection(t), adoptAny())
		insert(t, s.coll, legacy("x", bson.E{Key: "email", Value: c.stored}))
		if got := upsert(t, s, change(proven(1), func(u *clerksync.User) { u.Email = c.offered }), clerksync.Adopted); got.Email != c.offered {
			t.Errorf("%s: address %q", name, got.Email)
		}
	}
}

// TestAdoptNone has records whose clerkId is absent, null or empty: none of them has one.
func TestAdoptNone(t *testing.T) {
	t.Parallel()
	s := openAdopting(t, newCollection(t), adoptAny())
	for name, doc := range map[string]bson.D{
		"absent": legacy(1), "null": legacy(1, bson.E{Key: "clerkId"}), "empty": legacy(1, bson.E{Key: "clerkId", Value: ""}),
	} {
		for _, u := range []*clerksync.User{proven(1), external("a7", 1)} {
			empty(t, s.coll)
			insert(t, s.coll, append(slices.Clone(doc), bson.E{Key: "legacyId", Value: "a7"}))
			if got := upsert(t, s, u, clerksync.Adopted); got.ID != "{\"$numberInt\":\"1\"}" {
				t.Errorf("%s: adopted %s", name, got.ID)
			}
		}
	}
}

// TestAdoptOtherLetters has addresses that Unicode folds to that of a record. They are other people's:
// only the case of ASCII letters does not matter.
func TestAdoptOtherLetters(t *testing.T) {
	t.Parallel()
	for email, want := range map[string]clerksync.Outcome{
		"KATE@Milk.example": clerksync.Adopted, "\u212aate@milk.example": clerksync.Created, "kate@m\u0130lk.example": clerksync.Created,
	} {
		s := openAdopting(t, newCollection(t), adoptAny())
		insert(t, s.coll, legacy(1, bson.E{Key: "email", Value: "kate@milk.example"}))
		upsert(t, s, change(proven(1), func(u *clerksync.User) { u.Email = email }), want)
	}
}

// TestAdoptWhatIsOff has each way of adoption alone.
func TestAdoptWhatIsOff(t *testing.T) {
	t.Parallel()
	both := change(proven(1), func(u *clerksync.User) { u.ExternalID = "a7" })
	for name, c := range map[string]struct {
		adopt *mongostore.Adopt
		doc   bson.D
		want  clerksync.Outcome
	}{
		"no Adopt":              {nil, legacy(1, bson.E{Key: "legacyId", Value: "a7"}), clerksync.Created},
		"an empty Adopt":        {&mongostore.Adopt{}, legacy(1, bson.E{Key: "legacyId", Value: "a7"}), clerksync.Created},
		"the address is off":    {&mongostore.Adopt{ByExternalID: "legacyId"}, legacy(1), clerksync.Created},
		"the external id is":    {&mongostore.Adopt{ByEmail: true, Trusted: bson.D{}}, legacy(1, bson.E{Key: "email"}, bson.E{Key: "legacyId", Value: "a7"}), clerksync.Created},
		"everything is trusted": {&mongostore.Adopt{ByEmail: true, Trusted: bson.D{}}, legacy(1, bson.E{Key: "emailVerified"}), clerksync.Adopted},
	} {
		s := openAdopting(t, newCollection(t), c.adopt)
		insert(t, s.coll, c.doc)
		if res, err := s.Upsert(t.Context(), both); err != nil || res.Outcome != c.want {
			t.Errorf("%s: %v, %v, want %v", name, res.Outcome, err, c.want)
		}
	}
}

// TestAdoptOmit offers a user with Omit, who is never adopted.
func TestAdoptOmit(t *testing.T) {
	t.Parallel()
	s := openAdopting(t, newCollection(t), adoptAny())
	insert(t, s.coll, legacy(1))
	before := s.snapshot(t)
	u := change(proven(1), func(u *clerksync.User) { u.Omit = []string{"profile.phoneNumber"} })
	if res, err := s.Upsert(t.Context(), u); !errors.Is(err, clerksync.ErrNotFound) {
		t.Errorf("%v, %v, want ErrNotFound", res.Outcome, err)
	}
	checkBeside(t, s, "with Omit", before, false)
	upsert(t, s, proven(1), clerksync.Adopted)
}

// TestAdoptUniqueEmail adopts under a unique index on the address.
func TestAdoptUniqueEmail(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	createIndex(t, coll, ascending("email"), options.Index().SetUnique(true).SetSparse(true).SetName("email"))
	s := rawStore{open(t, coll, &mongostore.Options{AllowUnique: []string{"email"}, Adopt: adoptAny()}), coll}
	insert(t, s.coll, legacy(1, bson.E{Key: "legacyId", Value: "a7"}),
		legacy(2, bson.E{Key: "email", Value: "taken@example.com"}, bson.E{Key: "clerkId", Value: "user_bob"}),
		legacy(3, bson.E{Key: "email", Value: "app@example.com"}))
	for email, holder := range map[string]string{"taken@example.com": "user_bob", "app@example.com": ""} {
		_, err := s.Upsert(t.Context(), change(external("a7", 1), func(u *clerksync.User) { u.Email = email }))
		wantHolder(t, err, "email", holder)
		if errors.Is(err, clerksync.ErrUnlinked) {
			t.Errorf("%v matches ErrUnlinked", err)
		}
	}
	upsert(t, s, external("a7", 1), clerksync.Adopted)
	// A deleted user gives the address up.
	deactivate(t, s, "user_bob", hour(2))
	insert(t, s.coll, legacy(4, bson.E{Key: "email"}, bson.E{Key: "legacyId", Value: "a8"}))
	eve := change(person("eve", 1), func(u *clerksync.User) { u.Email, u.ExternalID = "taken@example.com", "a8" })
	upsert(t, s, eve, clerksync.Adopted)
}

// TestAdoptionIsOneWrite counts what a first sync takes: at most two commands more than without
// Adopt, and none for known users.
func TestAdoptionIsOneWrite(t *testing.T) {
	t.Parallel()
	base := newCollection(t)
	coll, sent := newMonitored(t, base)
	s := open(t, coll, &mongostore.Options{BatchSize: batchSize, Adopt: adoptAny()})
	insert(t, base, legacy(1), legacy(2, bson.E{Key: "email", Value: "x"}, bson.E{Key: "legacyId", Value: "a7"}))
	bob := func(n int) *clerksync.User {
		return change(person("bob", n), func(u *clerksync.User) { u.ExternalID = "none" })
	}
	cid := change(person("cid", 1), func(u *clerksync.User) { u.ExternalID = "a7" })
	phone := change(person("phone", 1), func(u *clerksync.User) { u.Email = "" })
	later := change(bob(2), func(u *clerksync.User) { u.SyncedAt = hour(5) })
	for _, step := range []struct {
		name string
		u    *clerksync.User
		want clerksync.Outcome
		sent []string
	}{
		{"by email", proven(1), clerksync.Adopted, []string{"update", "find", "findAndModify"}},
		{"by external id", cid, clerksync.Adopted, []string{"update", "find", "findAndModify"}},
		{"new", bob(1), clerksync.Created, []string{"update", "find", "insert"}},
		{"new, with nothing to adopt by", phone, clerksync.Created, []string{"update"}},
		{"newer", bob(2), clerksync.Updated, []string{"update"}},
		{"equal", bob(2), clerksync.Unchanged, []string{"update", "findAndModify"}},
		{"confirmed", later, clerksync.Unchanged, []string{"update", "findAndModify"}},
		{"older", bob(1), clerksync.Stale, []string{"update", "findAndModify", "find"}},
	} {
		sent.take()
		res, err := s.Upsert(t.Context(), step.u)
		if got := sent.names(); err != nil || res.Outcome != step.want || !slices.Equal(got, step.sent) {
			t.Errorf("%s: %v, %v, sends %q, want %v and %q", step.name, res.Outcome, err, got, step.want, step.sent)
		}
		if wantUser := step.want != clerksync.Updated; wantUser != (res.User != nil) {
			t.Errorf("%s: Result.User is %+v", step.name, res.User)
		}
	}
}

func openDeleting(t *testing.T, coll *mongo.Collection, erase bool) rawStore {
	t.Helper()
	return rawStore{open(t, coll, &mongostore.Options{BatchSize: batchSize, Adopt: adoptAny(), EraseOnDelete: erase}), coll}
}

// TestDeactivateExternal deletes users of whom only the external id is known, and others.
func TestDeactivateExternal(t *testing.T) {
	t.Parallel()
	field := func(name string, value any) bson.E { return bson.E{Key: name, Value: value} }
	of := func(id any, more ...bson.E) bson.D { return legacy(id, append(more, field("legacyId", "a7"))...) }
	for name, tt := range map[string]struct {
		docs   []bson.D
		linked bool // the first record becomes the tombstone
	}{
		"named":               {[]bson.D{of(1)}, true},
		"named, clerkId null": {[]bson.D{of(1, field("clerkId", nil))}, true},
		// A deletion is always written.
		"named, odd types":          {[]bson.D{of(1, field("isActive", "yes"), field("name", int32(1)), field("updatedAt", "x"), field("profile", "x"))}, true},
		"named, deletedAt odd":      {[]bson.D{of(1, field("deletedAt", true))}, true},
		"named, beside a tombstone": {[]bson.D{of(1), of(2, field("deletedAt", hour(0)))}, true},
		"not named":                 {[]bson.D{legacy(1)}, false},
		"ambiguous":                 {[]bson.D{of(1), of(2)}, false},
		"of another user":           {[]bson.D{of(1, field("clerkId", "user_other"))}, false},
		"of another user and free":  {[]bson.D{of(1), of(2, field("clerkId", "user_other"))}, false},
		"a tombstone":               {[]bson.D{of(1, field("deletedAt", hour(0)))}, false},
		"none at all":               {nil, false},
	} {
		for _, erase := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := openDeleting(t, newCollection(t), erase)
				if tt.docs != nil {
					insert(t, s.coll, tt.docs...)
				}
				before := s.snapshot(t)
				for range 2 {
					res, err := s.DeactivateExternal(t.Context(), "user_ada", "a7", hour(3))
					if err != nil || res.Outcome != clerksync.Deactivated {
						t.Fatalf("%v, %v", res.Outcome, err)
					}
				}
				after := s.snapshot(t)
				others := slices.DeleteFunc(slices.Clone(after), func(doc string) bool { return strings.Contains(doc, "user_ada") })
				if tt.linked {
					before = before[1:] // the first one, sorted by _id
				}
				if len(after) != len(others)+1 || !slices.Equal(others, before) {
					t.Errorf("erase %t: the other records are %q, want %q", erase, others, before)
				}
				checkTombstone(t, s, tt.linked, erase)
				upsert(t, s, external("a7", 5), clerksync.Deactivated)
			})
		}
	}
}

// checkTombstone checks ada's tombstone, which may have been a record of the app's.
func checkTombstone(t *testing.T, s rawStore, linked, erase bool) {
	t.Helper()
	f := s.fields(t, "user_ada")
	if f["isActive"] != false || f["deletedAt"] != hour(3) || (f["credits"] == int32(7)) != linked || (f["role"] == "ADMIN") != linked {
		t.Errorf("erase %t: tombstone %v", erase, f)
	}
	if _, has := f["email"]; has != (linked && !erase) {
		t.Errorf("erase %t: email %v", erase, f["email"])
	}
}

// TestDeactivateExternalKnown deletes users who have a record: it takes what Deactivate takes,
// and leaves the record that the external id names.
func TestDeactivateExternalKnown(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	monitored, sent := newMonitored(t, coll)
	for _, erase := range []bool{false, true} {
		empty(t, coll)
		s := openDeleting(t, monitored, erase)
		s.coll = coll
		insert(t, coll, legacy(1, bson.E{Key: "legacyId", Value: "a7"}), bson.D{{Key: "clerkId", Value: bson.A{"user_array"}}})
		upsert(t, s, person("known", 1), clerksync.Created)
		before := s.snapshot(t)
		want := map[bool][][]string{false: {{"update"}, {"update", "find"}}, true: {{"find", "update"}, {"find"}}}[erase]
		for i := range 2 {
			sent.take()
			res, err := s.DeactivateExternal(t.Context(), "user_known", "a7", hour(3))
			if got := sent.names(); err != nil || !slices.Equal(got, want[i]) || (res.User != nil) != (i == 1) {
				t.Errorf("erase %t, call %d: %+v, %v, sends %q, want %q", erase, i, res, err, got, want[i])
			}
		}
		if after := s.snapshot(t); after[0] != before[0] && after[1] != before[0] && after[2] != before[0] {
			t.Errorf("the app's record has changed: %q", after)
		}
		if res, err := s.DeactivateExternal(t.Context(), "user_array", "a7", hour(3)); err != nil || res.Outcome != clerksync.Deactivated {
			t.Errorf("a clerkId in an array: %+v, %v", res, err)
		}
		// At most two commands more for a user without a record.
		for id, most := range map[string]int{"a7": 3, "none": 3, "": 3} {
			sent.take()
			if _, err := s.DeactivateExternal(t.Context(), "user_of_"+id, id, hour(3)); err != nil {
				t.Error(err)
			}
			if got := sent.names(); len(got) > most {
				t.Errorf("erase %t, external id %q: sends %q", erase, id, got)
			}
		}
	}
}

// TestDeactivateExternalOff leaves the app's records alone without ByExternalID.
func TestDeactivateExternalOff(t *testing.T) {
	t.Parallel()
	for _, adopt := range []*mongostore.Adopt{nil, {ByEmail: true, Trusted: bson.D{}}} {
		s := openAdopting(t, newCollection(t), adopt)
		insert(t, s.coll, legacy(1, bson.E{Key: "legacyId", Value: "a7"}))
		before := s.snapshot(t)
		if _, err := s.DeactivateExternal(t.Context(), "user_ada", "a7", hour(3)); err != nil {
			t.Error(err)
		}
		if after := s.snapshot(t); len(after) != 2 || !slices.Contains(after, before[0]) {
			t.Errorf("records %q", after)
		}
	}
	if _, err := newStore(t).DeactivateExternal(t.Context(), "", "a7", hour(3)); err == nil {
		t.Error("no Clerk id is no error")
	}
}
