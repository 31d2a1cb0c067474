package main

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"

	"github.com/clerk/clerk-sdk-go/v2"
	clerkhttp "github.com/clerk/clerk-sdk-go/v2/http"
	"github.com/clerk/clerk-sdk-go/v2/jwks"

	"github.com/clerksync/clerksync-go/clerksync"
)

// This file is the app. The other files only run it: against a real Clerk and
// MongoDB, or against the demo's.

// newSyncer makes the one Syncer of the app.
func newSyncer(env settings, store clerksync.Store, observe func(context.Context, clerksync.Observation)) (*clerksync.Syncer, error) {
	return clerksync.New(clerksync.Config{
		Store:     store,
		SecretKey: env.secretKey,
		APIURL:    env.apiURL,
		Observe:   observe,
	})
}

// newHandler makes the app's routes.
func newHandler(env settings, syncer *clerksync.Syncer) (http.Handler, error) {
	webhooks, err := syncer.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{env.webhookSecret}})
	if err != nil {
		return nil, err
	}
	sessions := verifySessions(env)
	protected := func(h http.HandlerFunc) http.Handler { return sessions(syncer.Middleware(h)) }

	mux := http.NewServeMux()
	mux.Handle("/api/webhooks/clerk", webhooks) // signed by Clerk, and without a session
	mux.Handle("GET /api/me", protected(me))
	return mux, nil
}

// verifySessions returns the Clerk SDK's middleware, which verifies the session
// token of a request that has one. Those without it get their 401 from
// Syncer.Middleware.
func verifySessions(env settings) func(http.Handler) http.Handler {
	apiURL := cmp.Or(env.apiURL, clerk.APIURL)
	keys := jwks.NewClient(&clerk.ClientConfig{BackendConfig: clerk.BackendConfig{Key: &env.secretKey, URL: &apiURL}})
	return clerkhttp.WithHeaderAuthorization(
		clerkhttp.JWKSClient(keys),
		clerkhttp.AuthorizationFailureHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			clerksync.WriteProblem(w, r, clerksync.ErrUnauthenticated)
		})),
	)
}

// me answers with the record of the user who asks.
func me(w http.ResponseWriter, r *http.Request) {
	user, _ := clerksync.UserFromContext(r.Context()) // behind the middleware there always is one
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(user)
}
