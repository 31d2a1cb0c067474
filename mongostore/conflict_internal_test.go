package mongostore

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
)

// TestUniqueKey checks what another record must have to conflict with one that has arrays, a
// number of the app's, and no tenant.
func TestUniqueKey(t *testing.T) {
	s := offline(t)
	up, err := s.newUpsert(&clerksync.User{
		ClerkID: "user_ada", Email: "ada@example.com",
		Extra: map[string]any{
			"plan": "free", "groups": []any{"x", "y"}, "none": []any{},
			"address": map[string]any{"city": "London"},
			"phones":  []any{map[string]any{"number": int64(1)}, map[string]any{"number": int64(2)}, "odd"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := bson.Marshal(bson.D{
		{Key: "clerkId", Value: "user_ada"}, {Key: "email", Value: "old@example.com"}, {Key: "tags", Value: bson.A{"a", "b"}},
		{Key: "seat", Value: bson.D{{Key: "row", Value: int32(7)}}}, {Key: "name", Value: "Old"},
		{Key: "teams", Value: bson.A{bson.D{{Key: "id", Value: "t1"}}, bson.D{{Key: "id", Value: bson.A{"t2", "t3"}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	after, err := up.after(&record{raw: stored})
	if err != nil {
		t.Fatal(err)
	}
	for fields, want := range map[string]struct{ filter, paths string }{
		"email":           {`{"email": {"$eq": "ada@example.com"}}`, "email"},
		"tags email":      {`{"tags": {"$in": ["a","b"]},"email": {"$eq": "ada@example.com"}}`, "email"},
		"tenant email":    {`{"tenant": {"$eq": null},"email": {"$eq": "ada@example.com"}}`, "email"},
		"seat.row plan":   {`{"seat.row": {"$eq": {"$numberInt":"7"}},"plan": {"$eq": "free"}}`, "plan"},
		"email name":      {`{"email": {"$eq": "ada@example.com"},"name": {"$eq": null}}`, "email"},
		"groups":          {`{"groups": {"$in": ["x","y"]}}`, "groups"},
		"none":            {`{"none": {"$eq": []}}`, "none"},
		"address.city":    {`{"address.city": {"$eq": "London"}}`, "address"},
		"address.zip":     {`{"address.zip": {"$eq": null}}`, "address"},
		"phones.number":   {`{"phones.number": {"$in": [{"$numberLong":"1"},{"$numberLong":"2"}]}}`, "phones"},
		"teams.id email":  {`{"teams.id": {"$in": ["t1","t2","t3"]},"email": {"$eq": "ada@example.com"}}`, "email"},
		"seat.row.x plan": {`{"seat.row.x": {"$eq": null},"plan": {"$eq": "free"}}`, "plan"},
		"name":            {}, // Clerk has none
		"tenant tags":     {},
		"email clerkId":   {},
		"email _id":       {},
	} {
		key := up.key(after, uniqueIndex{fields: strings.Fields(fields)})
		if key == nil {
			if want.filter != "" {
				t.Errorf("%s: no key", fields)
			}
			continue
		}
		got, err := bson.MarshalExtJSON(key.filter, true, false)
		if err != nil {
			t.Fatal(err)
		}
		var gotRaw, wantRaw bson.Raw
		err = errors.Join(bson.UnmarshalExtJSON(got, true, &gotRaw), bson.UnmarshalExtJSON([]byte(want.filter), true, &wantRaw))
		if err != nil {
			t.Fatalf("%s: %s, %v", fields, got, err)
		}
		if !bytes.Equal(gotRaw, wantRaw) || strings.Join(key.paths, " ") != want.paths {
			t.Errorf("%s: %s of %s, want %s of %s", fields, got, key.paths, want.filter, want.paths)
		}
	}
}

// TestAfter checks that the record is judged as the write leaves it.
func TestAfter(t *testing.T) {
	up, err := offline(t).newUpsert(&clerksync.User{
		ClerkID: "user_ada", Email: "ada@example.com", Profile: clerksync.Profile{FirstName: "Ada"},
	})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := bson.Marshal(bson.D{
		{Key: "clerkId", Value: "user_ada"}, {Key: "name", Value: "Old"}, {Key: "plan", Value: "free"}, {Key: "seat", Value: "7"},
		{Key: "profile", Value: bson.D{{Key: "firstName", Value: "Old"}, {Key: "lastName", Value: "Old"}, {Key: "color", Value: "red"}}},
		{Key: "extraFields", Value: bson.A{"plan"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*record{nil, {raw: stored}} {
		after, err := up.after(r)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"email": "ada@example.com", "profile.firstName": "Ada", "name": "", "profile.lastName": "", "plan": ""}
		if r != nil {
			want["seat"], want["profile.color"] = "7", "red"
		}
		for path, text := range want {
			if got := (&record{raw: after}).text(path); got != text {
				t.Errorf("%s: %q, want %q", path, got, text)
			}
		}
	}
}

func TestDuplicateKeys(t *testing.T) {
	pattern := bson.D{{Key: "tenant", Value: 1}, {Key: "email", Value: 1}}
	err := writeError(11000, bson.D{{Key: "keyPattern", Value: pattern}})
	if got := duplicateKeys(err); len(got) != 2 || got[0] != "tenant" || got[1] != "email" {
		t.Errorf("%q", got)
	}
	odd := writeError(11000, bson.D{{Key: "keyPattern", Value: 1}})
	for _, err := range []error{nil, errLostRace, writeError(11000, nil), odd} {
		if got := duplicateKeys(err); got != nil {
			t.Errorf("%q of %v", got, err)
		}
	}
}

// TestCandidates uses what MongoDB says about a duplicate key: the key pattern, and the
// collation of the index if it has one.
func TestCandidates(t *testing.T) {
	caseless := mustMarshal(t, bson.D{{Key: "locale", Value: "en"}, {Key: "strength", Value: 2}})
	known := uniqueIndex{fields: []string{"email"}, collation: caseless}
	username := uniqueIndex{fields: []string{"username"}}
	refusal := func(field string, more ...bson.E) error {
		return writeError(11000, append(bson.D{{Key: "keyPattern", Value: bson.D{{Key: field, Value: 1}}}}, more...))
	}
	for name, c := range map[string]struct {
		unique []uniqueIndex
		err    error
		want   []uniqueIndex
	}{
		"Named":          {[]uniqueIndex{username, known}, refusal("email"), []uniqueIndex{known}},
		"NamedTwice":     {[]uniqueIndex{known, {fields: []string{"email"}}}, refusal("email"), []uniqueIndex{known, {fields: []string{"email"}}}},
		"NamedButNew":    {[]uniqueIndex{known}, refusal("phone"), []uniqueIndex{{fields: []string{"phone"}}}},
		"NewCollation":   {nil, refusal("email", bson.E{Key: "collation", Value: caseless}), []uniqueIndex{known}},
		"NotNamed":       {[]uniqueIndex{username, known}, writeError(11000, nil), []uniqueIndex{username, known}},
		"PerhapsAnEmail": {[]uniqueIndex{username}, writeError(11000, nil), []uniqueIndex{username, {fields: []string{"email"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := offline(t)
			s.unique = c.unique
			got := s.candidates(c.err)
			same := func(a, b uniqueIndex) bool {
				return slices.Equal(a.fields, b.fields) && bytes.Equal(a.collation, b.collation)
			}
			if !slices.EqualFunc(got, c.want, same) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func mustMarshal(t *testing.T, d any) bson.Raw {
	t.Helper()
	raw, err := bson.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
