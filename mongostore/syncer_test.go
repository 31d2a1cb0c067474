package mongostore_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// newApp is a Syncer between a fake Clerk and a collection, and what it sends to
// the server.
func newApp(t *testing.T, coll *mongo.Collection) (*fakeclerk.Server, *clerksync.Syncer, *commands) {
	t.Helper()
	server, err := fakeclerk.Start(fakeclerk.Config{RateLimit: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	monitored, sent := newMonitored(t, coll)
	client := &http.Client{Transport: &http.Transport{}}
	syncer, err := clerksync.New(clerksync.Config{
		Store: open(t, monitored, nil), SecretKey: server.SecretKey(), APIURL: server.APIURL(), HTTPClient: client,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syncer.Close()
		client.CloseIdleConnections()
	})
	sent.take() // Open's
	return server, syncer, sent
}

// Clerk's own example events go through the handler into the database.
func TestClerksExampleEvents(t *testing.T) {
	t.Parallel()
	const secret = "whsec_dGVzdC1zZWNyZXQtdGVzdC1zZWNyZXQ="
	at := func(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
	john := map[string]any{
		"clerkId": "user_2g7np7Hrk0SN6kj5EDMLDaKNL0S", "name": "John Doe", "role": "STUDENT", "isActive": true, "banned": false,
		"emailVerified": false, "phoneVerified": false, // no addresses, though a primary one is named
		"profile":      map[string]any{"firstName": "John", "lastName": "Doe", "fullName": "John Doe", "imageUrl": "https://img.clerk.com/xxxxxx"},
		"lastSignInAt": at(1716883200000), "clerkCreatedAt": at(1716883200000), "clerkUpdatedAt": at(1716883200000), "syncedAt": at(1716883200000),
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
			"name":         "John Doe Updated",
			"profile":      map[string]any{"firstName": "John", "lastName": "Doe Updated", "fullName": "John Doe Updated", "imageUrl": "https://img.clerk.com/yyyyy"},
			"lastSignInAt": at(1716883400000), "clerkUpdatedAt": at(1716883500000), // the envelope's timestamp is older than the version
		}),
		"openapi-user.deleted.json": {"clerkId": "user_2g7np7Hrk0SN6kj5EDMLDaKNL0S", "isActive": false, "deletedAt": at(1716883200000)},
		"documentation-user.created.json": {
			"clerkId": "user_29w83sxmDNGwOuEthce5gg56FcC", "email": "example@example.org", "emailVerified": true, "phoneVerified": false,
			"name": "Example Example", "role": "STUDENT", "isActive": true, "banned": false,
			"profile":      map[string]any{"firstName": "Example", "lastName": "Example", "fullName": "Example Example", "imageUrl": "https://img.clerk.com/xxxxxx"},
			"lastSignInAt": at(1654012591514), "clerkCreatedAt": at(1654012591514), "clerkUpdatedAt": at(1654012591835), "syncedAt": at(1654012591835),
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

// A first visit costs one call of Clerk's and two round trips, however many come
// at once; a cached one costs nothing.
func TestRoundTripsOfVisits(t *testing.T) {
	t.Parallel()
	for name, visitors := range map[string]int{"one": 1, "thousand at once": 1000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			coll := newCollection(t)
			server, syncer, sent := newApp(t, coll)
			id := server.CreateUser(fakeclerk.NewUser{Email: "ada@example.com"})
			for _, want := range []struct{ calls, roundTrips int }{{1, 2}, {1, 0}} {
				var all sync.WaitGroup
				for range visitors {
					all.Go(func() {
						if _, err := syncer.User(t.Context(), id); err != nil {
							t.Error(err)
						}
					})
				}
				all.Wait()
				if calls := server.Calls(""); calls != want.calls {
					t.Errorf("%d Clerk calls, want %d", calls, want.calls)
				}
				if got := sent.take(); len(got) != want.roundTrips {
					t.Errorf("%d round trips, want %d: %v", len(got), want.roundTrips, got)
				}
			}
		})
	}
}

// One more where another process was faster.
func TestRoundTripsOfARaceLost(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	server, syncer, sent := newApp(t, coll)
	id := server.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	other := open(t, coll, nil)
	server.SetFault(func(*http.Request) *fakeclerk.Fault { // between the read and the write
		server.SetFault(nil)
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		faster, err := clerksync.New(clerksync.Config{Store: other, SecretKey: server.SecretKey(), APIURL: server.APIURL(), HTTPClient: client})
		if err != nil {
			t.Error(err)
			return nil
		}
		if _, err := faster.User(t.Context(), id); err != nil {
			t.Error(err)
		}
		return nil
	})
	u, err := syncer.User(t.Context(), id)
	if err != nil || u.Name != "Ada" {
		t.Fatalf("got %+v, %v", u, err)
	}
	if got := sent.take(); len(got) != 3 {
		t.Errorf("%d round trips, want 3: %v", len(got), got)
	}
}

func TestRoundTripsOfWebhooks(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	server, syncer, sent := newApp(t, coll)
	id := server.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	created, _ := server.User(id)
	_ = server.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("Countess") })
	updated, _ := server.User(id)
	deleted := json.RawMessage(`{"id":"` + id + `"}`)
	for _, step := range []struct {
		name, typ  string
		data       json.RawMessage
		want       clerksync.Outcome
		roundTrips int
	}{
		{"new", "user.created", created, clerksync.Created, 1},
		{"repeated", "user.created", created, clerksync.Unchanged, 3},
		{"newer", "user.updated", updated, clerksync.Updated, 1},
		{"repeated", "user.updated", updated, clerksync.Unchanged, 3},
		{"stale", "user.created", created, clerksync.Stale, 3},
		{"deletion", "user.deleted", deleted, clerksync.Deactivated, 1},
		{"repeated deletion", "user.deleted", deleted, clerksync.Deactivated, 3},
		{"after the deletion", "user.updated", updated, clerksync.Deactivated, 3},
	} {
		res, err := syncer.Apply(t.Context(), clerksync.Event{Type: step.typ, Timestamp: time.Now(), Data: step.data})
		if err != nil || res.Outcome != step.want {
			t.Errorf("%s: %v, %v; want %v", step.name, res.Outcome, err, step.want)
		}
		n := len(sent.take())
		t.Logf("%s: %d round trips", step.name, n)
		if n > step.roundTrips {
			t.Errorf("%s: %d round trips, want at most %d", step.name, n, step.roundTrips)
		}
	}
}
