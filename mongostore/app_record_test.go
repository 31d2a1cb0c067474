package mongostore_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/mongostore"
)

// member is an app's own struct.
type member struct {
	ID      bson.ObjectID `bson:"_id"`
	Name    string        `bson:"name"`
	Tier    string        `bson:"tier"`
	Credits int           `bson:"credits"`
	Teams   []struct {
		Size int `bson:"size"`
	} `bson:"teams"`
	Limits map[string]int   `bson:"limits"` // by the user's own names
	Homes  map[string]*home `bson:"homes"`
	Where  home             `bson:",inline"`
}

type home struct{ Zip int }

func openMembers(t *testing.T) rawStore {
	coll := newCollection(t)
	return rawStore{open(t, coll, &mongostore.Options{Record: mongostore.RecordOf[member]()}), coll}
}

func wantMember(t *testing.T, u *clerksync.User, name, tier string) {
	t.Helper()
	m, ok := u.Record.(*member)
	if !ok || m.Name != name || m.Tier != tier || m.ID.Hex() != u.ID {
		t.Errorf("the Record is %+v, want the member %s of tier %q and _id %s", u.Record, name, tier, u.ID)
	}
}

// A Result has a User with the Record of what is stored now, or none.
func TestRecordOfEachOutcome(t *testing.T) {
	t.Parallel()
	s := openMembers(t)
	u := upsert(t, s, ada(2), clerksync.Created)
	wantMember(t, u, ada(2).Name, "")
	if err := s.SetFields(t.Context(), u.ClerkID, map[string]any{"tier": "pro"}); err != nil {
		t.Fatal(err)
	}
	moved := ada(2)
	moved.SyncedAt = hour(5)
	for _, tt := range []struct {
		u     *clerksync.User
		want  clerksync.Outcome
		whole bool // the record was read, and has not changed since
	}{
		{ada(1), clerksync.Stale, true}, {ada(2), clerksync.Unchanged, true},
		{moved, clerksync.Unchanged, false}, {ada(3), clerksync.Updated, false},
	} {
		res, err := s.Upsert(t.Context(), tt.u)
		if err != nil || res.Outcome != tt.want {
			t.Fatalf("%v, %v, want %v", res.Outcome, err, tt.want)
		}
		if (res.User != nil) != tt.whole {
			t.Errorf("%v: the user is %+v, want one: %v", tt.want, res.User, tt.whole)
		}
		if res.User != nil {
			wantMember(t, res.User, res.User.Name, "pro")
		}
	}
	u, err := s.User(t.Context(), u.ClerkID)
	if err != nil {
		t.Fatal(err)
	}
	wantMember(t, u, ada(3).Name, "pro")
}

func TestRecordOfAnAdopted(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	insert(t, coll, bson.D{{Key: "email", Value: "ada@example.com"}, {Key: "tier", Value: "pro"}, {Key: "credits", Value: 7}})
	s := open(t, coll, &mongostore.Options{
		Record: mongostore.RecordOf[member](),
		Adopt:  &mongostore.Adopt{ByEmail: true, Trusted: bson.D{}},
	})
	u := ada(1)
	u.Email, u.EmailProven = "ada@example.com", true
	res, err := s.Upsert(t.Context(), u)
	if err != nil || res.Outcome != clerksync.Adopted || res.User == nil {
		t.Fatalf("%v of %+v, %v, want adopted", res.Outcome, res.User, err)
	}
	wantMember(t, res.User, u.Name, "pro")
	got, err := s.User(t.Context(), u.ClerkID)
	if err != nil {
		t.Fatal(err)
	}
	wantMember(t, got, u.Name, "pro")
}

// Record gets the document as it is stored, with the collection's names, from a creation too.
func TestRecordOfMappedFields(t *testing.T) {
	t.Parallel()
	type account struct {
		ClerkID string `bson:"clerkId"`
		Name    string `bson:"full_name"`
		Auth    struct {
			Mail string `bson:"mail"`
		} `bson:"auth"`
	}
	s := open(t, newCollection(t), &mongostore.Options{
		Fields: mongostore.Fields{"name": "full_name", "email": "auth.mail"},
		Record: mongostore.RecordOf[account](),
	})
	created := upsert(t, s, ada(1), clerksync.Created)
	read, err := s.User(t.Context(), ada(1).ClerkID)
	if err != nil {
		t.Fatal(err)
	}
	for when, u := range map[string]*clerksync.User{"created": created, "read": read} {
		a, ok := u.Record.(*account)
		if !ok || a.ClerkID != ada(1).ClerkID || a.Name != ada(1).Name || a.Auth.Mail != ada(1).Email || a.Auth.Mail == "" {
			t.Errorf("%s: the Record is %+v", when, u.Record)
		}
	}
}

// What does not decode is an error that names the field, and neither its value nor a panic. The
// record itself is still returned.
func TestRecordFails(t *testing.T) {
	t.Parallel()
	const secret = "s3cret"
	for name, tt := range map[string]struct {
		fields map[string]any
		record func(bson.Raw) (any, error)
		want   string
	}{
		"a type": {map[string]any{"credits": secret}, nil,
			`the field "credits" is of type string in the document, and does not decode into mongostore_test.member`},
		"in an array": {map[string]any{"teams": bson.A{bson.D{{Key: "size", Value: 1}}, bson.D{{Key: "size", Value: secret}}}}, nil,
			`the field "teams.1.size" is of type string`},
		"under a user's own name": {map[string]any{"limits": bson.D{{Key: secret, Value: "x"}}}, nil,
			`the field "limits.…" is of type string`},
		"below a user's own name": {map[string]any{"homes": bson.D{{Key: secret, Value: bson.D{{Key: "zip", Value: secret}}}}}, nil,
			`the field "homes.….zip" is of type string`},
		"inline":   {map[string]any{"zip": secret}, nil, `the field "zip" is of type string`},
		"an error": {nil, func(bson.Raw) (any, error) { return nil, errors.New("no plan") }, "no plan"},
		"a panic":  {nil, func(bson.Raw) (any, error) { panic(secret) }, "panic of type string"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			coll := newCollection(t)
			record := tt.record
			if record == nil {
				record = mongostore.RecordOf[member]()
			}
			s := rawStore{open(t, coll, &mongostore.Options{Record: record}), coll}
			res, err := s.Upsert(t.Context(), ada(1))
			if err != nil || res.Outcome != clerksync.Created {
				t.Fatalf("%v, %v", res.Outcome, err)
			}
			if tt.record != nil && res.User != nil {
				t.Errorf("the Result has a user without a Record: %+v", res.User)
			}
			if err := s.SetFields(t.Context(), ada(1).ClerkID, tt.fields); err != nil && tt.fields != nil {
				t.Fatal(err)
			}
			u, err := s.User(t.Context(), ada(1).ClerkID)
			var p *clerksync.Problem
			if !errors.As(err, &p) || p.Code != "record_failed" || p.Status != http.StatusInternalServerError {
				t.Fatalf("the error is %v, want record_failed", err)
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), secret) {
				t.Errorf("the error is %v, want %s and not the value", err, tt.want)
			}
			if u == nil || u.Name != ada(1).Name || u.Record != nil {
				t.Errorf("the user is %+v, want the record without a Record", u)
			}
		})
	}
}

// A handler gets the app's struct on every path, and the first visit takes no read more.
func TestRecordFromContext(t *testing.T) {
	t.Parallel()
	server, syncer, sent := newApp(t, newCollection(t), &mongostore.Options{Record: mongostore.RecordOf[member]()})
	id := server.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	visit := func(want string) {
		t.Helper()
		handler := syncer.RequireUser(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			m, ok := clerksync.RecordFromContext[member](r.Context())
			u, _ := clerksync.UserFromContext(r.Context())
			objectID, err := mongostore.ObjectID(u)
			if !ok || m.Name != want || err != nil || m.ID != objectID {
				t.Errorf("the handler got %+v, %v, and the _id %v, %v; want %s", m, ok, objectID, err, want)
			}
		}))
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+server.SessionToken(id))
		w := httptest.NewRecorder()
		if handler.ServeHTTP(w, r); w.Code != http.StatusOK {
			t.Errorf("the visit: %d %s", w.Code, w.Body)
		}
	}
	visit("Ada")
	if got := strings.Join(sent.names(), " "); got != "find update" {
		t.Errorf("the first visit sent %q, want find update", got)
	}
	sent.take()
	visit("Ada")
	if got := sent.names(); len(got) != 0 {
		t.Errorf("a cached visit sent %q", got)
	}
	if err := server.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("Augusta") }); err != nil {
		t.Fatal(err)
	}
	if _, err := syncer.Sync(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	visit("Augusta")
}

func TestObjectIDFaults(t *testing.T) {
	t.Parallel()
	for _, u := range []*clerksync.User{nil, {ClerkID: "user_1"}, {ClerkID: "user_1", ID: "user_1"}} {
		if id, err := mongostore.ObjectID(u); err == nil {
			t.Errorf("%+v has the _id %v", u, id)
		}
	}
}

func TestEraseOnDelete(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	now := hour(100)
	s := rawStore{open(t, coll, &mongostore.Options{EraseOnDelete: true, Now: func() time.Time { return now }}), coll}
	created := upsert(t, s, ada(1), clerksync.Created)
	ofTheApp := map[string]any{"profile.bio": "of the app", "cart": "full", "role": "ADMIN"}
	if err := s.SetFields(t.Context(), "user_ada", ofTheApp); err != nil {
		t.Fatal(err)
	}
	now = hour(200)
	if _, err := s.Deactivate(t.Context(), "user_ada", hour(2)); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"_id": created.ID, "clerkId": "user_ada", "role": "ADMIN", "cart": "full",
		"profile":  map[string]any{"bio": "of the app"},
		"location": map[string]any{"country": "GB", "city": "London"},
		"isActive": false, "emailVerified": true, "phoneVerified": false, "banned": false,
		"createdAt": hour(100), "updatedAt": hour(200), "clerkUpdatedAt": hour(1), "syncedAt": hour(1), "deletedAt": hour(2),
	}
	if d := cmp.Diff(want, s.fields(t, "user_ada")); d != "" {
		t.Errorf("the record (- want, + got):\n%s", d)
	}
	upsert(t, s, ada(3), clerksync.Deactivated)

	if _, err := s.Deactivate(t.Context(), "user_unknown", time.Time{}); err != nil {
		t.Fatal(err)
	}
	tombstone := s.fields(t, "user_unknown")
	want = map[string]any{
		"_id": tombstone["_id"], "clerkId": "user_unknown", "isActive": false,
		"createdAt": hour(200), "updatedAt": hour(200), "deletedAt": hour(200),
	}
	if d := cmp.Diff(want, tombstone); d != "" {
		t.Errorf("the tombstone (- want, + got):\n%s", d)
	}
}

// TestDeleteKeeps checks that by default a deleted record keeps its fields.
func TestDeleteKeeps(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	upsert(t, s, ada(1), clerksync.Created)
	want := s.fields(t, "user_ada")
	if _, err := s.Deactivate(t.Context(), "user_ada", hour(2)); err != nil {
		t.Fatal(err)
	}
	got := s.fields(t, "user_ada")
	want["isActive"], want["deletedAt"], want["updatedAt"] = false, hour(2), got["updatedAt"]
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the record (- want, + got):\n%s", d)
	}
}

// TestDeactivateBefore1970 uses a date that the filters do not take for a tombstone.
func TestDeactivateBefore1970(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	if _, err := s.Deactivate(t.Context(), "user_ada", time.UnixMilli(-1)); err != nil {
		t.Fatal(err)
	}
	upsert(t, s, ada(1), clerksync.Deactivated)
}

// TestClerksExampleEvents sends Clerk's own example events through the handler into the
// database.
func TestClerksExampleEvents(t *testing.T) {
	t.Parallel()
	const secret = "whsec_dGVzdC1zZWNyZXQtdGVzdC1zZWNyZXQ="
	at := func(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
	profile := func(first, last, image string) map[string]any {
		return map[string]any{"firstName": first, "lastName": last, "fullName": first + " " + last, "imageUrl": image}
	}
	john := map[string]any{
		"clerkId": "user_2g7np7Hrk0SN6kj5EDMLDaKNL0S", "name": "John Doe", "role": "STUDENT",
		"isActive": true, "banned": false,
		"emailVerified": false, "phoneVerified": false, // no addresses, though a primary one is named
		"profile":      profile("John", "Doe", "https://img.clerk.com/xxxxxx"),
		"lastSignInAt": at(1716883200000), "clerkCreatedAt": at(1716883200000),
		"clerkUpdatedAt": at(1716883200000), "syncedAt": at(1716883200000),
	}
	with := func(changes map[string]any) map[string]any {
		m := make(map[string]any)
		for _, from := range []map[string]any{john, changes} {
			for k, v := range from {
				m[k] = v
			}
		}
		return m
	}
	for file, want := range map[string]map[string]any{
		"openapi-user.created.json":    john,
		"openapi-session.created.json": john,
		"openapi-user.updated.json": with(map[string]any{
			"name":           "John Doe Updated",
			"profile":        profile("John", "Doe Updated", "https://img.clerk.com/yyyyy"),
			"lastSignInAt":   at(1716883400000),
			"clerkUpdatedAt": at(1716883500000), // the envelope's timestamp is older than the version
		}),
		"openapi-user.deleted.json": {
			"clerkId": "user_2g7np7Hrk0SN6kj5EDMLDaKNL0S", "isActive": false, "deletedAt": at(1716883200000),
		},
		"documentation-user.created.json": {
			"clerkId": "user_29w83sxmDNGwOuEthce5gg56FcC",
			"email":   "example@example.org", "emailVerified": true, "phoneVerified": false,
			"name": "Example Example", "role": "STUDENT", "isActive": true, "banned": false,
			"profile":      profile("Example", "Example", "https://img.clerk.com/xxxxxx"),
			"lastSignInAt": at(1654012591514), "clerkCreatedAt": at(1654012591514),
			"clerkUpdatedAt": at(1654012591835), "syncedAt": at(1654012591835),
		},
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			body, err := os.ReadFile(filepath.Join("..", "clerksync", "testdata", "events", file))
			if err != nil {
				t.Fatal(err)
			}
			store := newStore(t)
			_, syncer, _ := newApp(t, store.coll, nil)
			webhook, err := syncer.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{secret}})
			if err != nil {
				t.Fatal(err)
			}
			app := httptest.NewServer(webhook)
			defer app.Close()
			res, err := app.Client().Do(fakeclerk.SignedRequest(t.Context(), app.URL, secret, fakeclerk.Event{Body: body}))
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != http.StatusNoContent {
				t.Fatalf("status %d", res.StatusCode)
			}
			got := store.fields(t, want["clerkId"].(string))
			for _, own := range []string{"_id", "createdAt", "updatedAt"} {
				if got[own] == nil {
					t.Errorf("the record has no %s", own)
				}
				delete(got, own)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("record (-want +got):\n%s", diff)
			}
		})
	}
}
