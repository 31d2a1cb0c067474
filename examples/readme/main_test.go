package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// TestProgram has a user visit, and the user's webhook arrive, at the README's program.
func TestProgram(t *testing.T) {
	t.Parallel()
	clerk := must(fakeclerk.Start(fakeclerk.Config{}))
	t.Cleanup(func() { _ = clerk.Close() })
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	store := memstore.New()
	syncer := must(clerksync.New(clerksync.Config{Store: store, SecretKey: clerk.SecretKey(), APIURL: clerk.APIURL()}))
	t.Cleanup(func() { _ = syncer.Close() })
	router := newRouter(syncer, must(syncer.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{secret}})))

	id := clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	r := httptest.NewRequest(http.MethodGet, "/api/me", nil)
	answer := httptest.NewRecorder()
	router.ServeHTTP(answer, r)
	if answer.Code != http.StatusUnauthorized {
		t.Errorf("without a token: %d %s", answer.Code, answer.Body)
	}
	r.Header.Set("Authorization", "Bearer "+clerk.SessionToken(id))
	answer = httptest.NewRecorder()
	router.ServeHTTP(answer, r)
	if u, err := store.User(t.Context(), id); err != nil || answer.Code != http.StatusOK || u.Profile.FirstName != "Ada" {
		t.Errorf("a visit: %d %s, record %+v, %v", answer.Code, answer.Body, u, err)
	}
	event := fakeclerk.Event{Type: "user.deleted", Data: map[string]any{"id": id, "object": "user", "deleted": true}}
	answer = httptest.NewRecorder()
	router.ServeHTTP(answer, fakeclerk.SignedRequest(t.Context(), "/api/webhooks/clerk", secret, event))
	if u, err := store.User(t.Context(), id); err != nil || answer.Code != http.StatusNoContent || u.DeletedAt.IsZero() {
		t.Errorf("a webhook: %d %s, record %+v, %v", answer.Code, answer.Body, u, err)
	}
}
