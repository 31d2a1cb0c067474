// Command jobs is an app that does things once per user: it welcomes each new user with a mail, or
// makes a workspace for each, and cleans up after those who are deleted. The page clerksync/JOBS.md
// quotes it. It reads CLERK_SECRET_KEY, CLERK_WEBHOOK_SIGNING_SECRET, MONGODB_URI, and MAIL_URL and
// MAIL_API_KEY of a mail service. Without MAIL_URL it makes workspaces.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"sync"
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
	db := client.Database("app")
	a := &app{
		mailer:     mailer{url: os.Getenv("MAIL_URL"), apiKey: os.Getenv("MAIL_API_KEY")},
		workspaces: db.Collection("workspaces"),
		documents:  db.Collection("documents"),
	}
	cfg := clerksync.Config{
		Store:     must(mongostore.Open(ctx, db.Collection("users"), nil)),
		SecretKey: os.Getenv("CLERK_SECRET_KEY"),
	}
	if a.mailer.url != "" {
		a.withWelcome(&cfg)
	} else {
		a.withWorkspace(&cfg)
	}
	a.withCleanUp(&cfg)
	syncer := must(clerksync.New(cfg))
	webhooks := must(syncer.WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{os.Getenv("CLERK_WEBHOOK_SIGNING_SECRET")},
	}))

	server := &http.Server{Addr: "127.0.0.1:8080", Handler: a.handler(syncer, webhooks), ReadHeaderTimeout: 5 * time.Second}
	if err := serve(ctx, server, syncer); err != nil {
		log.Fatal(err)
	}
}

// serve serves requests and works through due jobs until ctx ends.
func serve(ctx context.Context, server *http.Server, syncer *clerksync.Syncer) error {
	ctx, stop := context.WithCancel(ctx)
	var background sync.WaitGroup
	background.Go(func() { _ = syncer.RunJobs(ctx) }) // in every process; returns when ctx ends
	background.Go(func() {
		<-ctx.Done()
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = server.Shutdown(bounded)
	})
	err := server.ListenAndServe()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	stop()
	background.Wait()
	return errors.Join(err, syncer.Close()) // Close waits for what runs in the background
}

func (a *app) handler(syncer *clerksync.Syncer, webhooks http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /api/me", syncer.RequireUser(http.HandlerFunc(me)))
	mux.Handle("/api/webhooks/clerk", webhooks) // Clerk has no session
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
