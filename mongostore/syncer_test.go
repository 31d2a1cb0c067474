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
)

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
			_, syncer, _ := newApp(t, store.coll)
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
