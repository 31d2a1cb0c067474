package mongostore

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
)

func rawOf(t testing.TB, doc bson.D) bson.Raw {
	t.Helper()
	r, err := bson.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// d makes a document of names and values.
func docOf(pairs ...any) bson.D {
	doc := bson.D{}
	for i := 0; i < len(pairs); i += 2 {
		doc = append(doc, bson.E{Key: pairs[i].(string), Value: pairs[i+1]})
	}
	return doc
}

func TestLook(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(0)
	for name, tt := range map[string]struct {
		doc  bson.D
		path string
		want bson.Type
		is   place
		at   string
	}{
		"absent":           {docOf("a", 1), "name", bson.TypeString, placeFree, ""},
		"null":             {docOf("name", nil), "name", bson.TypeString, placeFree, ""},
		"text":             {docOf("name", "x"), "name", bson.TypeString, placeFits, "name"},
		"empty text":       {docOf("name", ""), "name", bson.TypeString, placeFits, "name"},
		"number for text":  {docOf("name", 1), "name", bson.TypeString, placeTaken, "name"},
		"list for text":    {docOf("name", bson.A{"x"}), "name", bson.TypeString, placeTaken, "name"},
		"text for a flag":  {docOf("isActive", "yes"), "isActive", bson.TypeBoolean, placeTaken, "isActive"},
		"names":            {docOf("extraFields", bson.A{"a"}), "extraFields", bson.TypeArray, placeFits, "extraFields"},
		"documents":        {docOf("extraFields", bson.A{docOf("a", 1)}), "extraFields", bson.TypeArray, placeTaken, "extraFields"},
		"date":             {docOf("deletedAt", at), "deletedAt", bson.TypeDateTime, placeFits, "deletedAt"},
		"nested":           {docOf("profile", docOf("firstName", "x")), "profile.firstName", bson.TypeString, placeFits, "profile.firstName"},
		"nested, absent":   {docOf("profile", docOf("a", "x")), "profile.firstName", bson.TypeString, placeFree, ""},
		"nested, taken":    {docOf("profile", docOf("firstName", 1)), "profile.firstName", bson.TypeString, placeTaken, "profile.firstName"},
		"no parent":        {docOf(), "profile.firstName", bson.TypeString, placeFree, ""},
		"null parent":      {docOf("profile", nil), "profile.firstName", bson.TypeString, placeFree, ""},
		"parent is text":   {docOf("profile", "x"), "profile.firstName", bson.TypeString, placeTaken, "profile"},
		"parent is a list": {docOf("profile", bson.A{docOf("firstName", "x")}), "profile.firstName", bson.TypeString, placeTaken, "profile"},
		"deep parent":      {docOf("a", docOf("b", 1)), "a.b.c", bson.TypeString, placeTaken, "a.b"},
		"deep":             {docOf("a", docOf("b", docOf("c", "x"))), "a.b.c", bson.TypeString, placeFits, "a.b.c"},
	} {
		if is, at, _ := holds(rawOf(t, tt.doc), tt.path, tt.want); is != tt.is || at != tt.at {
			t.Errorf("%s: %d at %q, want %d at %q", name, is, at, tt.is, tt.at)
		}
	}
}

func TestLooksLikeClerkID(t *testing.T) {
	t.Parallel()
	for value, want := range map[any]bool{
		"user_2aBcDeFgHiJkLmNoPqRsTuVwXyZ": true,
		"user_29w83sxmDNGwOuEthce5gg56FcC": true,
		"user_ada":                         false,
		"user_2aBcDeFgHiJkLmNoPqRsTuVwX-Z": false,
		"user_a_name_that_is_long_enough_": false,
		"org_2aBcDeFgHiJkLmNoPqRsTuVwXyZ":  false,
		"user_2aBc…FgHiJkLmNoPqRsTuVwXyZ":  false,
		"":                                 false,
		1:                                  false,
	} {
		if got := looksLikeClerkID(rawOf(t, docOf("v", value)).Lookup("v")); got != want {
			t.Errorf("looksLikeClerkID(%v) = %t", value, got)
		}
	}
}

func TestShownID(t *testing.T) {
	t.Parallel()
	oid, _ := bson.ObjectIDFromHex("65f000000000000000000001")
	for want, id := range map[string]any{
		"65f000000000000000000001":   oid,
		"user_2aBcDeFg":              "user_2aBcDeFg",
		"42":                         int32(42),
		"one that is of type string": "ada1@example.com",
		"one that is of type object": docOf("email", "ada@example.com"),
		"one that is of type double": 1.5,
	} {
		got := shownID(rawOf(t, docOf("_id", id)).Lookup("_id"))
		if id == int32(42) {
			got = strings.Trim(strings.TrimPrefix(strings.TrimSuffix(got, `"}`), `{"$numberInt":"`), " ")
		}
		if got != want {
			t.Errorf("shownID(%v) = %q, want %q", id, got, want)
		}
	}
	for _, id := range []string{"Ada Lovelace", "ada", "+15551234", strings.Repeat("1", 65)} {
		if got := shownID(rawOf(t, docOf("_id", id)).Lookup("_id")); strings.Contains(got, id) {
			t.Errorf("%q is shown", id)
		}
	}
}

func TestSameName(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		field, path string
		want        bool
	}{
		{"createdAt", "created_at", true},
		{"createdAt", "CreatedAt", true},
		{"profile.firstName", "first_name", true},
		{"profile.firstName", "profile.first_name", true},
		{"profile.firstName", "profile.firstname", true},
		{"profile.imageUrl", "avatar", true},
		{"isActive", "is_active", true},
		{"isActive", "enabled", true},
		{"email", "emailAddress", true},
		{"email", "mails", false},
		{"profile.firstName", "name", false},
		{"name", "profile.name", false},
	} {
		if got := sameName(tt.field, tt.path); got != tt.want {
			t.Errorf("sameName(%q, %q) = %t", tt.field, tt.path, got)
		}
	}
}

func TestClerkName(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		n     int
		snake bool
		want  string
	}{
		{"name", 1, false, "clerkName"},
		{"name", 2, false, "clerkName2"},
		{"email_verified", 1, true, "clerk_email_verified"},
		{"clerkId", 1, false, "clerkIdSync"},
		{"clerk_id", 1, true, "clerk_id_sync"},
		{"clerk", 1, false, "clerkClerk"},
	} {
		if got := clerkName(tt.name, tt.n, tt.snake); got != tt.want {
			t.Errorf("clerkName(%q, %d, %t) = %q, want %q", tt.name, tt.n, tt.snake, got, tt.want)
		}
	}
}

func TestRepeats(t *testing.T) {
	t.Parallel()
	r := newRepeats(2)
	for i, value := range []string{"a", "b", "a", "c", "a", "b"} {
		r.add(value, rawOf(t, docOf("_id", bson.ObjectID{11: byte(i)})))
	}
	want := []string{"000000000000000000000002", "000000000000000000000004", "000000000000000000000005"}
	if r.shared.n != 5 || !cmp.Equal(r.shared.ids, want) || !r.cut {
		t.Errorf("%+v", r)
	}
}

const clerkID1, clerkID2 = "user_2aBcDeFgHiJkLmNoPqRsTuVwXyZ", "user_29w83sxmDNGwOuEthce5gg56FcC"

// brief is a Finding without its text.
type brief struct {
	Kind, Field string
	Decision    bool
	Records     int
	Fields      Fields
}

// judged surveys documents and returns what was found.
func judged(t testing.TB, j judgement, docs ...bson.D) (found []brief, all []Finding) {
	t.Helper()
	at := func(field string) string {
		if path, ok := j.decided[field]; ok {
			return path
		}
		return field
	}
	j.survey, j.coll = newSurvey(at), `db.getCollection("users")`
	for i, doc := range docs {
		if len(doc) == 0 || doc[0].Key != "_id" {
			doc = append(docOf("_id", bson.ObjectID{11: byte(i)}), doc...)
		}
		j.survey.add(rawOf(t, doc))
	}
	all = j.judge()
	for _, f := range all {
		found = append(found, brief{f.Kind, f.Field, f.Decision, f.Records, f.Fields})
	}
	return found, all
}

func TestInspectFindings(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_700_000_000_000)
	unlinked := func(n int) brief { return brief{Kind: findUnlinked, Decision: true, Records: n} }
	noEmail := func(n int) brief { return brief{Kind: findNoEmail, Field: "email", Records: n} }
	linked := func(pairs ...any) bson.D { return append(docOf("clerkId", clerkID1), docOf(pairs...)...) }
	for name, tt := range map[string]struct {
		j    judgement
		docs []bson.D
		want []brief
	}{
		"nothing": {},
		"records of clerksync's": {docs: []bson.D{
			linked("syncedAt", now, "name", "Ada", "emailVerified", "a wrong type"),
			linked("deletedAt", now),
		}, want: []brief{{findSharedID, "clerkId", true, 2, nil}}},
		"without a Clerk id": {docs: []bson.D{docOf("email", "a@x"), docOf("email", "b@x")}, want: []brief{unlinked(2)}},
		"with Adopt": {
			j: judgement{adopt: &Adopt{ByEmail: true}}, docs: []bson.D{docOf("email", "a@x"), docOf()},
			want: []brief{{Kind: findUnlinked, Records: 2}, noEmail(1)},
		},
		"the same address": {
			docs: []bson.D{docOf("email", "a@x"), docOf("email", "A@x"), docOf("email", " a@x"), docOf("email", "b@x")},
			want: []brief{unlinked(4), {findAmbiguous, "email", true, 3, nil}, {findOddEmail, "email", true, 2, nil}},
		},
		"the same address, by external id only": {
			j:    judgement{adopt: &Adopt{ByExternalID: "_id"}},
			docs: []bson.D{docOf("email", "a@x"), docOf("email", "a@x")},
			want: []brief{{Kind: findUnlinked, Records: 2}, {findAmbiguous, "email", false, 2, nil}},
		},
		"an address of a linked record": {docs: []bson.D{linked("email", "a@x", "syncedAt", now), docOf("email", "a@x")},
			want: []brief{unlinked(1)}},
		"Clerk ids elsewhere": {docs: []bson.D{
			docOf("clerk_id", clerkID1, "invitedBy", clerkID2), docOf("clerk_id", clerkID2, "invitedBy", clerkID2, "email", "b@x"),
		}, want: []brief{
			{findClerkID, "clerk_id", true, 2, Fields{"clerkId": "clerk_id"}},
			{findReference, "invitedBy", false, 2, nil}, noEmail(1),
		}},
		"the _id is the Clerk id": {docs: []bson.D{docOf("_id", clerkID1, "email", "a@x")},
			want: []brief{{findClerkID, "_id", true, 1, Fields{"clerkId": "_id"}}}},
		"nested Clerk ids": {docs: []bson.D{docOf("auth", docOf("clerk", clerkID1), "email", "a@x"), docOf("email", "b@x")},
			want: []brief{{findClerkID, "auth.clerk", true, 1, Fields{"clerkId": "auth.clerk"}}, unlinked(1)}},
		"Clerk ids of friends": {docs: []bson.D{docOf("friends", bson.A{clerkID1}, "email", "a@x")}, want: []brief{unlinked(1)}},
		"no ids": {docs: []bson.D{docOf("clerkId", nil), docOf("clerkId", nil), docOf("clerkId", "")}, want: []brief{
			{findNoneID, "clerkId", true, 2, nil}, unlinked(3), noEmail(3),
		}},
		"an id that is no text": {docs: []bson.D{docOf("clerkId", 42)}, want: []brief{
			{findType, "clerkId", true, 1, Fields{"clerkId": "clerkIdSync"}},
		}},
		"an id of another kind": {docs: []bson.D{docOf("clerkId", "42")}, want: []brief{{findOddID, "clerkId", false, 1, nil}}},
		"types": {docs: []bson.D{
			linked("profile", "text", "isActive", 1), linked("profile", 2, "isActive", true, "role", bson.A{"ADMIN"}),
		}, want: []brief{
			{findSharedID, "clerkId", true, 2, nil},
			{findType, "profile", true, 2, Fields{
				"profile.firstName": "clerkProfile.firstName", "profile.lastName": "clerkProfile.lastName",
				"profile.fullName": "clerkProfile.fullName", "profile.imageUrl": "clerkProfile.imageUrl",
				"profile.phoneNumber": "clerkProfile.phoneNumber", "profile.birthday": "clerkProfile.birthday",
				"profile.gender": "clerkProfile.gender",
			}},
			{findType, "isActive", true, 1, Fields{"isActive": "clerkIsActive"}},
			{findUnread, "role", false, 1, nil},
		}},
		"types in a document": {docs: []bson.D{linked("profile", docOf("gender", 1, "clerkGender", "taken", "firstName", "Ada"))},
			want: []brief{
				{findType, "profile.gender", true, 1, Fields{"profile.gender": "profile.clerkGender2"}},
				{findReplaced, "profile.firstName", true, 1, Fields{"profile.firstName": "profile.clerkFirstName"}},
			}},
		"values that a sync replaces": {docs: []bson.D{
			linked("email", "a@x", "name", "Ada", "banned", true, "createdAt", now, "updatedAt", now, "role", "ADMIN"),
		}, want: []brief{
			{findReplaced, "banned", true, 1, Fields{"banned": "clerkBanned"}},
			{findReplaced, "name", true, 1, Fields{"name": "clerkName"}},
		}},
		"values that may be replaced": {j: judgement{decided: Fields{"name": "name", "banned": "clerkBanned"}},
			docs: []bson.D{linked("name", "Ada", "banned", true)},
			want: []brief{{findReplaced, "name", false, 1, Fields{"name": "clerkName"}}}},
		"accepted": {j: judgement{decided: SnakeCase(), accept: []string{"name", findUnlinked, findAmbiguous}},
			docs: []bson.D{docOf("email", "a@x", "name", "Ada"), docOf("email", "a@x", "name", "Bob")},
			want: []brief{
				{findUnlinked, "", false, 2, nil}, {findAmbiguous, "email", false, 2, nil},
				{findReplaced, "name", false, 2, Fields{"name": "clerk_name"}},
			}},
		"a field accepted, and no kind": {j: judgement{accept: []string{"name"}}, docs: []bson.D{linked("name", "Ada", "is_active", true)},
			want: []brief{
				{findName, "", true, 1, Fields{"isActive": "is_active"}},
				{findReplaced, "name", false, 1, Fields{"name": "clerk_name"}},
			}},
		"roles of Clerk's": {j: judgement{users: &userSurvey{roleFromClerk: true}}, docs: []bson.D{linked("role", "ADMIN")},
			want: []brief{{findReplaced, "role", true, 1, Fields{"role": "clerkRole"}}}},
		"names of Map's": {j: judgement{users: &userSurvey{extra: map[string]bool{"plan": true, "seats": true}}},
			docs: []bson.D{linked("plan", "pro")}, want: []brief{{findExtra, "plan", true, 1, nil}}},
		"states": {docs: []bson.D{
			docOf("email", "a@x", "deletedAt", now, "isActive", false), docOf("email", "b@x", "syncedAt", now),
		}, want: []brief{
			unlinked(1),
			{findDeleted, "deletedAt", true, 1, Fields{"deletedAt": "clerkDeletedAt"}},
			{findSynced, "syncedAt", true, 1, Fields{"syncedAt": "clerkSyncedAt"}},
			{findInactive, "isActive", false, 1, nil},
		}},
		"other names": {docs: []bson.D{linked("active", true, "avatar", "https://x", "phone", 42)}, want: []brief{
			{findName, "active", true, 1, Fields{"isActive": "active"}},
			{findName, "avatar", false, 1, Fields{"profile.imageUrl": "avatar"}},
		}},
		"snake case": {docs: []bson.D{
			linked("created_at", now, "is_active", true, "first_name", "Ada", "updated_at", "soon", "name", "Ada"),
		}, want: []brief{
			{findReplaced, "name", true, 1, Fields{"name": "clerk_name"}},
			{findName, "", true, 1, Fields{"isActive": "is_active", "createdAt": "created_at"}},
			{findName, "first_name", false, 1, Fields{"profile.firstName": "first_name"}},
		}},
		"SnakeCase": {j: judgement{decided: SnakeCase()},
			docs: []bson.D{docOf("clerk_id", clerkID1, "name", "Ada", "email_verified", true, "profile", docOf("first_name", 7))},
			want: []brief{
				{findType, "profile.first_name", true, 1, Fields{"profile.firstName": "profile.clerk_first_name"}},
				{findReplaced, "email_verified", true, 1, Fields{"emailVerified": "clerk_email_verified"}},
				{findReplaced, "name", true, 1, Fields{"name": "clerk_name"}},
			}},
		"mapped": {j: judgement{decided: Fields{"clerkId": "clerk_id", "email": "mail", "name": ""}},
			docs: []bson.D{docOf("clerk_id", clerkID1, "name", 1), docOf("mail", "A@x", "clerkId", 42)},
			want: []brief{unlinked(1), {findOddEmail, "mail", true, 1, nil}}},
	} {
		got, all := judged(t, tt.j, tt.docs...)
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		for _, f := range all {
			if text := f.Text + f.Fix; strings.ContainsAny(strings.ReplaceAll(text, "user_", ""), "@") || strings.Contains(text, "Ada") {
				t.Errorf("%s: the finding quotes a record: %s", name, text)
			}
		}
	}
}
