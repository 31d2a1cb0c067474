package main

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/clerksync/clerksync-go/clerksync"
)

// This file is the app. The other files only run it: against a real Clerk and
// MongoDB, or against the demo's.

// newSyncer makes the one Syncer of the app.
func newSyncer(env settings, store clerksync.Store, observe func(context.Context, clerksync.Observation)) (*clerksync.Syncer, error) {
	return clerksync.New(clerksync.Config{
		Store:        store,
		SecretKey:    env.secretKey,
		APIURL:       env.apiURL,
		CacheTTL:     env.cacheTTL,
		RefreshAfter: env.refreshAfter,
		Observe:      observe,
	})
}

// newHandler makes the app's routes.
func newHandler(env settings, syncer *clerksync.Syncer) (http.Handler, error) {
	webhooks, err := syncer.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{env.webhookSecret}})
	if err != nil {
		return nil, err
	}

	mux := http.NewServeMux()
	mux.Handle("/api/webhooks/clerk", webhooks) // signed by Clerk, and without a session
	mux.Handle("GET /api/me", syncer.RequireUser(http.HandlerFunc(me)))
	return mux, nil
}

// me answers with the record of the user who asks.
func me(w http.ResponseWriter, r *http.Request) {
	user, _ := clerksync.UserFromContext(r.Context()) // behind the middleware there always is one
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(user)
}
