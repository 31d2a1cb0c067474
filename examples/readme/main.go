// The program of the README.
package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	client := must(mongo.Connect(options.Client().ApplyURI(os.Getenv("MONGODB_URI"))))
	store := must(mongostore.Open(ctx, client.Database("app").Collection("users"), nil))
	syncer := must(clerksync.New(clerksync.Config{
		Store:     store,
		SecretKey: os.Getenv("CLERK_SECRET_KEY"),
		APIURL:    os.Getenv("CLERK_API_URL"), // empty: Clerk's own
		Auth: clerksync.AuthConfig{
			AuthorizedParties: []string{"http://localhost:3000", "https://app.example.com"},
		},
	}))
	webhooks := must(syncer.WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{os.Getenv("CLERK_WEBHOOK_SIGNING_SECRET")},
	}))

	server := &http.Server{
		Addr:              "127.0.0.1:8080",
		Handler:           newRouter(syncer, webhooks),
		ReadHeaderTimeout: 5 * time.Second,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		log.Fatal(err) // the address is taken, for example
	case <-ctx.Done():
	}
	_ = server.Shutdown(context.Background()) // waits for requests
	_ = syncer.Close()                        // waits for background work
}

func newRouter(syncer *clerksync.Syncer, webhooks http.Handler) http.Handler {
	protected := http.NewServeMux()
	protected.HandleFunc("GET /api/me", me)

	mux := http.NewServeMux()
	mux.Handle("/api/", syncer.RequireUser(protected))
	mux.Handle("/api/webhooks/clerk", webhooks) // Clerk has no session: outside of the group
	return mux
}

func me(w http.ResponseWriter, r *http.Request) {
	user, ok := clerksync.UserFromContext(r.Context())
	if !ok {
		http.Error(w, "this route is not protected", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(user)
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
