package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// This file and config.go are the app: copy them. main.go is only the command line.

// hooks are passed on to clerksync. A caller that sets onCreate also runs Syncer.RunJobs. JOBS_URL
// replaces onCreate.
type hooks struct {
	logger   *slog.Logger
	observe  func(context.Context, clerksync.Observation)
	onCreate func(context.Context, *clerksync.User, clerksync.Job) error
}

type app struct {
	client  *mongo.Client
	syncer  *clerksync.Syncer
	handler http.Handler
	jobs    sync.WaitGroup
}

func newApp(ctx context.Context, c config, h hooks) (_ *app, err error) {
	client, err := connect(c.mongoURI)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	a := &app{client: client, handler: mux}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close(ctx))
		}
	}()
	openCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	store, err := mongostore.Open(openCtx, client.Database(c.database).Collection("users"), nil)
	if err != nil {
		return nil, err
	}
	cfg := clerksync.Config{
		Store: store, SecretKey: c.secretKey, APIURL: c.apiURL,
		CacheTTL: c.cacheTTL, RefreshAfter: c.refreshAfter,
		Logger: h.logger, Observe: h.observe, OnCreate: h.onCreate,
	}
	if c.jobsURL != "" {
		cfg.OnCreate, cfg.OnDelete = postTo(c.jobsURL), postTo(c.jobsURL)
	}
	if a.syncer, err = clerksync.New(cfg); err != nil {
		return nil, err
	}
	if c.jobsURL != "" {
		a.jobs.Go(func() { _ = a.syncer.RunJobs(ctx) }) // it returns nil
	}
	webhooks, err := a.syncer.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{c.webhookSecret}})
	if err != nil {
		return nil, err
	}
	mux.Handle("/api/webhooks/clerk", webhooks) // Clerk signs its requests and has no session
	mux.Handle("/api/webhooks/clerk/{$}", webhooks)
	mux.Handle("GET /api/me", a.syncer.RequireUser(http.HandlerFunc(me)))
	return a, nil
}

// postTo returns an OnCreate or OnDelete: it asks a service, such as a mailer, to do the job. A second
// attempt has no second effect there, because it has the same key.
func postTo(service string) func(context.Context, *clerksync.User, clerksync.Job) error {
	return func(ctx context.Context, u *clerksync.User, job clerksync.Job) error {
		body, err := json.Marshal(map[string]any{"userId": u.ClerkID, "job": job.Key})
		if err != nil {
			return err
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, service, bytes.NewReader(body))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", job.Key) // the same for each attempt, as the body is
		r.Header.Set("Attempt", strconv.Itoa(job.Attempt))
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode >= 300 {
			return fmt.Errorf("the service answered %d", resp.StatusCode)
		}
		return nil
	}
}

// me answers with the record of the signed-in user.
func me(w http.ResponseWriter, r *http.Request) {
	user, _ := clerksync.UserFromContext(r.Context()) // RequireUser ensures that there is one
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(user)
}

// close may be called after ctx is done.
func (a *app) close(ctx context.Context) (err error) {
	if a.syncer != nil {
		err = a.syncer.Close() // ends RunJobs too
	}
	a.jobs.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(err, a.client.Disconnect(ctx))
}

// serve serves until ctx is done. Then requests under way get ten seconds to end: a webhook takes up to ten.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadTimeout: 20 * time.Second, WriteTimeout: 20 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(server.Shutdown(ctx), server.Close())
}
