// Command nethttp is a minimal app with clerksync on net/http. The README links to it. It
// reads CLERK_SECRET_KEY, CLERK_WEBHOOK_SIGNING_SECRET and MONGODB_URI.
package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client := must(mongo.Connect(options.Client().ApplyURI(os.Getenv("MONGODB_URI"))))
	store := must(mongostore.Open(ctx, client.Database("app").Collection("users"), nil))
	syncer := must(clerksync.New(clerksync.Config{Store: store, SecretKey: os.Getenv("CLERK_SECRET_KEY")}))
	webhooks := must(syncer.WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{os.Getenv("CLERK_WEBHOOK_SIGNING_SECRET")},
	}))

	server := &http.Server{Addr: "127.0.0.1:8080", Handler: newRouter(syncer, webhooks), ReadHeaderTimeout: 5 * time.Second}
	log.Println("serving on http://" + server.Addr)
	log.Fatal(server.ListenAndServe())
}

func newRouter(syncer *clerksync.Syncer, webhooks http.Handler) http.Handler {
	protected := http.NewServeMux()
	protected.HandleFunc("GET /api/me", me)
	protected.Handle("GET /api/admin", clerksync.RequireRole(clerksync.RoleAdmin)(http.HandlerFunc(me)))

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello\n")) })
	mux.Handle("/api/", syncer.RequireUser(protected))
	mux.Handle("/api/webhooks/clerk", webhooks) // Clerk has no session: outside of the group
	mux.Handle("/api/webhooks/clerk/{$}", webhooks)
	return mux
}

func me(w http.ResponseWriter, r *http.Request) {
	user, _ := clerksync.UserFromContext(r.Context())
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(user)
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
