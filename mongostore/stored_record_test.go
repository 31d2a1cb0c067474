package mongostore_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/mongostore"
)

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
