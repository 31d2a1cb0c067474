package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// This file is the app: copy it. main.go is only the command line.

// config comes from the environment. env.example explains the variables.
type config struct {
	secretKey, webhookSecret, mongoURI string // required
	apiURL, database                   string
	cacheTTL, refreshAfter             time.Duration // 0 means clerksync's default
}

var errConfig = errors.New("config")

// readConfig returns the zero config if no required variable is set. Its errors never contain values.
func readConfig(getenv func(name string) string) (config, error) {
	c := config{
		secretKey:     getenv("CLERK_SECRET_KEY"),
		webhookSecret: cmp.Or(getenv("CLERK_WEBHOOK_SIGNING_SECRET"), getenv("CLERK_WEBHOOK_SECRET")), // the older name
		mongoURI:      getenv("MONGODB_URI"),
	}
	if c == (config{}) {
		return c, nil
	}
	missing := ""
	require := func(value, help string) {
		if value == "" {
			missing += "\n  " + help
		}
	}
	require(c.secretKey, "CLERK_SECRET_KEY: sk_test_… or sk_live_…, in the Clerk Dashboard under Configure > API keys")
	require(c.webhookSecret, "CLERK_WEBHOOK_SIGNING_SECRET: whsec_…, in the Clerk Dashboard under Configure > Webhooks")
	require(c.mongoURI, "MONGODB_URI: mongodb://… or mongodb+srv://…, in Atlas under Connect > Drivers")
	if missing != "" {
		return config{}, fmt.Errorf("%w: these variables are missing, see env.example:%s", errConfig, missing)
	}
	c.database = cmp.Or(getenv("MONGODB_DATABASE"), databaseIn(c.mongoURI), "clerksync_quickstart")
	if api := getenv("CLERK_API_URL"); api != "" {
		c.apiURL = strings.TrimSuffix(strings.TrimRight(api, "/"), "/v1") + "/v1"
	}
	return c, nil
}

// databaseIn returns the database that a connection string names, or "".
func databaseIn(uri string) string {
	_, rest, _ := strings.Cut(uri, "://")
	_, path, _ := strings.Cut(rest, "/")
	name, _ := url.PathUnescape(strings.Split(path, "?")[0])
	return name
}

// connect replaces the driver's errors, which can quote a password that is not percent-encoded.
func connect(uri string) (*mongo.Client, error) {
	if strings.Count(uri, "@") <= 1 {
		if client, err := mongo.Connect(options.Client().ApplyURI(uri)); err == nil {
			return client, nil
		}
	}
	return nil, fmt.Errorf("%w: MONGODB_URI has a wrong host, or a character to percent-encode, as %%40 for @", errConfig)
}

// hooks are passed on to clerksync. An app with an onCreate also runs Syncer.RunJobs.
type hooks struct {
	logger   *slog.Logger
	observe  func(context.Context, clerksync.Observation)
	onCreate func(context.Context, *clerksync.User, clerksync.Job) error
}

type app struct {
	client  *mongo.Client
	syncer  *clerksync.Syncer
	handler http.Handler
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
	a.syncer, err = clerksync.New(clerksync.Config{
		Store: store, SecretKey: c.secretKey, APIURL: c.apiURL,
		CacheTTL: c.cacheTTL, RefreshAfter: c.refreshAfter,
		Logger: h.logger, Observe: h.observe, OnCreate: h.onCreate,
	})
	if err != nil {
		return nil, err
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

// me answers with the record of the signed-in user.
func me(w http.ResponseWriter, r *http.Request) {
	user, _ := clerksync.UserFromContext(r.Context()) // RequireUser ensures that there is one
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(user)
}

// close may be called after ctx is done.
func (a *app) close(ctx context.Context) (err error) {
	if a.syncer != nil {
		err = a.syncer.Close()
	}
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
