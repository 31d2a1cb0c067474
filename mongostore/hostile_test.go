package mongostore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// hostile are texts that some database does not take for plain text.
var hostile = []string{
	`{"$ne":null}`, `{"$gt":""}`, `{"$where":"sleep(1000)"}`, `[$ne]=1`, `$ne`, `$email`, `$$ROOT`, `$set`,
	`email.0`, `a.b`, `.`, `$`, `..`, `' OR '1'='1`, `"; db.dropDatabase(); //`,
	"%00", "a\x00b", "\x00", "line\nbreak", "\u202egnp", "\ufeffbom", `\`, `"`, "/.*/", "^.*$", ".*",
	"null", "undefined", "{}", "[]", "ObjectId('000000000000000000000000')", strings.Repeat("x", 10_000),
}

// TestHostileTexts puts them into every text field that users choose. They come back
// unchanged, and no other record is touched.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	upsert(t, s, person("bystander", 1), clerksync.Created)
	bystander := s.fields(t, "user_bystander")
	for i, text := range hostile {
		u := person(fmt.Sprint(i), 1)
		u.Email, u.Name, u.Role = text, text, clerksync.Role(text)
		u.Profile = clerksync.Profile{
			FirstName: text, LastName: text, FullName: text, ImageURL: text,
			PhoneNumber: text, Birthday: text, Gender: text,
		}
		u.Location = &clerksync.Location{Country: text, City: text, State: text, Timezone: text}
		u.Extra = map[string]any{"text": text, "list": []any{text}, "nested": map[string]any{"text": text}}
		upsert(t, s, u, clerksync.Created)
		upsert(t, s, u, clerksync.Unchanged)
		want := map[string]any{
			"email": text, "name": text, "role": text, "text": text, "list": []any{text}, "nested": map[string]any{"text": text},
			"profile": map[string]any{
				"firstName": text, "lastName": text, "fullName": text, "imageUrl": text,
				"phoneNumber": text, "birthday": text, "gender": text,
			},
			"location": map[string]any{"country": text, "city": text, "state": text, "timezone": text},
		}
		check := func(when string) {
			t.Helper()
			got := s.fields(t, u.ClerkID)
			for name, value := range want {
				if d := cmp.Diff(value, got[name]); d != "" {
					t.Errorf("%.40q %s, %s (-want +got):\n%.500s", text, when, name, d)
				}
			}
		}
		check("inserted")
		u.ClerkUpdatedAt = hour(2)
		u.Extra["more"] = text
		want["more"] = text
		upsert(t, s, u, clerksync.Updated)
		check("updated")
		if _, err := s.UpsertBatch(t.Context(), []*clerksync.User{u}); err != nil {
			t.Error(err)
		}
		check("in a batch")
		if _, err := s.coll.DeleteOne(t.Context(), bson.D{{Key: "clerkId", Value: u.ClerkID}}); err != nil { // as empty does
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(bystander, s.fields(t, "user_bystander")); d != "" {
		t.Errorf("another record changed:\n%s", d)
	}
}

// TestHostileIDs checks that the Store takes any text for an id, and only for an id.
func TestHostileIDs(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	upsert(t, s, person("bystander", 1), clerksync.Created)
	bystander := s.fields(t, "user_bystander")
	for _, id := range hostile {
		if len(id) > 1000 {
			continue // too long for an index
		}
		if u, err := s.User(t.Context(), id); !errors.Is(err, clerksync.ErrNotFound) {
			t.Errorf("%q finds %+v, %v", id, u, err)
		}
		for name, find := range map[string]func() (int, error){
			"Users":  func() (int, error) { m, err := s.Users(t.Context(), []string{id}); return len(m), err },
			"Stamps": func() (int, error) { m, err := s.Stamps(t.Context(), []string{id}); return len(m), err },
		} {
			if n, err := find(); n != 0 || err != nil {
				t.Errorf("%s of %q finds %d, %v", name, id, n, err)
			}
		}
		if ok, err := s.Restore(t.Context(), id, hour(100)); ok || err != nil {
			t.Errorf("Restore of %q: %v, %v", id, ok, err)
		}
		if res, err := s.Deactivate(t.Context(), id, hour(2)); err != nil || res.Outcome != clerksync.Deactivated {
			t.Errorf("Deactivate of %q: %v, %v", id, res.Outcome, err)
		}
		if got := s.fields(t, id); got["clerkId"] != id || got["isActive"] != false {
			t.Errorf("the tombstone of %q is %v", id, got)
		}
		u := ada(3)
		u.ClerkID = id
		upsert(t, s, u, clerksync.Deactivated)
	}
	if d := cmp.Diff(bystander, s.fields(t, "user_bystander")); d != "" {
		t.Errorf("another record changed:\n%s", d)
	}
}

// TestHostileEmailReleasesItsOwn checks that the release, whose filter is not on an id,
// matches only the same address.
func TestHostileEmailReleasesItsOwn(t *testing.T) {
	t.Parallel()
	s := newUniqueStore(t, "email")
	for _, text := range hostile {
		if len(text) > 1000 {
			continue // too long for an index
		}
		empty(t, s.coll)
		for i, email := range []string{"bystander@example.com", text} {
			u := person(fmt.Sprint("gone", i), 1)
			u.Email = email
			upsert(t, s, u, clerksync.Created)
			if _, err := s.Deactivate(t.Context(), u.ClerkID, hour(2)); err != nil {
				t.Fatal(err)
			}
		}
		bystander := s.fields(t, "user_gone0")
		u := person("again", 3)
		u.Email = text
		if got := upsert(t, s, u, clerksync.Created); got.Email != text {
			t.Errorf("%q is stored as %q", text, got.Email)
		}
		if email, kept := s.fields(t, "user_gone1")["email"]; kept {
			t.Errorf("%q was not released: %v", text, email)
		}
		if d := cmp.Diff(bystander, s.fields(t, "user_gone0")); d != "" {
			t.Errorf("%q: another record changed:\n%s", text, d)
		}
		other := person("other", 3)
		other.Email = text
		_, err := s.Upsert(t.Context(), other)
		wantConflict(t, err, "email")
	}
}

// TestHostileExtraNames checks that names with a meaning to the database are rejected and
// nothing is written, and that all others are stored unchanged. Inside a value, names with a
// meaning are escaped.
func TestHostileExtraNames(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	upsert(t, s, ada(1), clerksync.Created)
	before := s.fields(t, "user_ada")
	for _, name := range []string{
		"$set", "$where", "a$b", "$", ".", "a.b", "profile.firstName", "a\x00b", "", "\xff", "_id", "__v", "clerkId",
		"role", "isActive", "deletedAt", "clerkUpdatedAt", "extraFields", "profile",
	} {
		u := ada(2)
		u.Extra = map[string]any{name: "x"}
		if res, err := s.Upsert(t.Context(), u); err == nil {
			t.Errorf("%q: %v", name, res.Outcome)
		}
		if d := cmp.Diff(before, s.fields(t, "user_ada")); d != "" {
			t.Errorf("%q: the record changed:\n%s", name, d)
		}
	}
	n := int64(0) // the embedded database does not write a value in which only names differ
	for name, stored := range map[string]string{
		"$set": "%24set", "$where": "%24where", "a$b": "a%24b", "$": "%24", ".": "%2E", "profile.firstName": "profile%2EfirstName",
		"a\x00b": "a%00b", "": "%empty", "\xff": "\ufffd", "100%": "100%", "50% off": "50% off", "%": "%", "%41": "%41",
		"%24set": "%2524set", "%2e": "%2e", "_id": "_id", "clerkId": "clerkId", "role": "role",
	} {
		n++
		u := ada(1)
		u.Extra = map[string]any{"meta": []any{map[string]any{"a": map[string]any{name: n}}}}
		got := upsert(t, s, u, clerksync.Updated)
		want := []any{map[string]any{"a": map[string]any{stored: n}}}
		if d := cmp.Diff(want, s.fields(t, "user_ada")["meta"]); d != "" {
			t.Errorf("%q inside (- want, + got):\n%s", name, d)
		}
		read := got.Extra["meta"].([]any)[0].(map[string]any)["a"].(map[string]any)
		if _, ok := read[strings.ToValidUTF8(name, "\ufffd")]; !ok || len(read) != 1 {
			t.Errorf("%q inside is read as %v", name, read)
		}
		upsert(t, s, u, clerksync.Unchanged)
	}
	names := []string{
		"constructor", "__proto__", "toString", "a b", "é", "0", "-1", "ID", "Role", "ISACTIVE", "clerkid",
		"\u202e", "'", "' OR 1=1 --", strings.Repeat("n", 1000),
	}
	if os.Getenv("MONGODB_URI") != "" {
		names = append(names, `"`, `{"x":1}`, "a\nb", `\`) // the embedded database answers these with an InternalError
	}
	for i, name := range names {
		u := person(fmt.Sprint(i), 1)
		u.Extra = map[string]any{name: "x", "meta": map[string]any{name: "y"}}
		upsert(t, s, u, clerksync.Created)
		upsert(t, s, u, clerksync.Unchanged)
		got := s.fields(t, u.ClerkID)
		if got[name] != "x" || got["meta"].(map[string]any)[name] != "y" ||
			got["role"] != "TEACHER" || got["isActive"] != true || got["clerkId"] != u.ClerkID {
			t.Errorf("%.40q: %v", name, got)
		}
		u.Extra, u.ClerkUpdatedAt = nil, hour(2)
		upsert(t, s, u, clerksync.Updated)
		if _, kept := s.fields(t, u.ClerkID)[name]; kept {
			t.Errorf("%.40q was not removed", name)
		}
	}
}

// TestHostileWebhookIntoTheDatabase sends what a user can choose in Clerk, signed by Clerk,
// through the handler and an app's Map, and reads the raw record.
func TestHostileWebhookIntoTheDatabase(t *testing.T) {
	t.Parallel()
	const secret = "whsec_dGVzdC1zZWNyZXQtdGVzdC1zZWNyZXQ="
	store := newStore(t)
	upsert(t, store, person("bystander", 1), clerksync.Created)
	bystander := store.fields(t, "user_bystander")
	syncer, err := clerksync.New(clerksync.Config{
		Store: store.Store, SecretKey: "sk_test_x",
		Map: func(cu *clerk.User, u *clerksync.User) error {
			u.Extra = map[string]any{"meta": cu.UnsafeMetadata}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syncer.Close() })
	webhook, err := syncer.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{secret}})
	if err != nil {
		t.Fatal(err)
	}
	text := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	for name, tt := range map[string]struct {
		typ, data string
		status    int
		meta      any
	}{
		"operators as values of metadata": {
			"user.created", `"unsafe_metadata":{"q":` + text(`{"$ne":null}`) + `,"s":"$role"}`,
			204, map[string]any{"q": `{"$ne":null}`, "s": "$role"},
		},
		"operators as names in metadata": {
			"user.created", `"unsafe_metadata":{"a":{"$ne":null}}`,
			204, map[string]any{"a": map[string]any{"%24ne": nil}},
		},
		"update operators in metadata": {
			"user.updated", `"unsafe_metadata":{"$set":{"role":"ADMIN"}}`,
			204, map[string]any{"%24set": map[string]any{"role": "ADMIN"}},
		},
		"paths in metadata": {
			"user.updated", `"unsafe_metadata":{"profile.firstName":"x"}`,
			204, map[string]any{"profile%2EfirstName": "x"},
		},
		"the record's names in metadata": {
			"user.updated", `"unsafe_metadata":{"role":"ADMIN","deletedAt":null}`,
			204, map[string]any{"role": "ADMIN", "deletedAt": nil},
		},
		"operators as an id":       {"user.created", `"ID":{"$ne":null}`, 422, nil},
		"operators for a deletion": {"user.deleted", `"ID":{"$exists":true}`, 422, nil},
		"a session's user":         {"session.created", `"user":{"id":{"$regex":".*"}}`, 422, nil},
	} {
		t.Run(name, func(t *testing.T) {
			id := "user_" + strings.ReplaceAll(strings.ReplaceAll(name, " ", "_"), "'", "")
			body := fmt.Sprintf(`{"type":%q,"timestamp":1772366400000,"data":{"id":%q,"updated_at":1772366400000,
				"first_name":"$first","last_name":"{\"$gt\":\"\"}","primary_email_address_id":"i",
				"email_addresses":[{"id":"i","email_address":"{\"$ne\":null}"}],%s}}`, tt.typ, id, tt.data)
			app := httptest.NewServer(webhook)
			defer app.Close()
			event := fakeclerk.Event{Body: []byte(body)}
			res, err := app.Client().Do(fakeclerk.SignedRequest(t.Context(), app.URL, secret, event))
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != tt.status {
				t.Fatalf("status %d, want %d", res.StatusCode, tt.status)
			}
			got, err := store.Fields(t.Context(), id)
			if tt.status != http.StatusNoContent {
				if !errors.Is(err, clerksync.ErrNotFound) {
					t.Errorf("a record was written: %v, %v", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]any{
				"email": `{"$ne":null}`, "name": `$first {"$gt":""}`, "role": "STUDENT", "isActive": true, "meta": tt.meta,
				"profile": map[string]any{"firstName": "$first", "lastName": `{"$gt":""}`, "fullName": `$first {"$gt":""}`},
			}
			for field, value := range want {
				if d := cmp.Diff(value, got[field]); d != "" {
					t.Errorf("%s (-want +got):\n%s", field, d)
				}
			}
		})
	}
	if d := cmp.Diff(bystander, store.fields(t, "user_bystander")); d != "" {
		t.Errorf("another record changed:\n%s", d)
	}
}
