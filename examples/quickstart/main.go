// Command quickstart shows clerksync at work.
//
//	go -C examples run ./quickstart
//
// Without settings it is a demo, which needs no account, no server and no network: it
// starts an embedded database and a fake Clerk, serves the app of app.go on them and
// tells in the terminal what becomes of a user's record when webhooks are lost,
// late, doubled and out of order. It checks everything that it says. Then it serves
// on, with curl lines to try, until it is interrupted; with -once it ends there, with
// status 1 if anything did not hold.
//
// With CLERK_SECRET_KEY, CLERK_WEBHOOK_SIGNING_SECRET and MONGODB_URI set, in the
// environment or in a .env file, it serves the same app on the real Clerk and MongoDB.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr))
}

// run returns the exit status: 2 where flags or settings are wrong.
func run(ctx context.Context, args []string, lookup func(string) (string, bool), stdout, stderr io.Writer) int {
	err := start(ctx, args, lookup, stdout, stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errFlags): // start has said so itself
		return 2
	}
	_, _ = fmt.Fprintln(stderr, "quickstart:", strings.TrimPrefix(err.Error(), errSettings.Error()+": "))
	if errors.Is(err, errSettings) {
		return 2
	}
	return 1
}

var errFlags = errors.New("wrong flags")

func start(ctx context.Context, args []string, lookup func(string) (string, bool), stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // what it says quotes the arguments
	once := flags.Bool("once", false, "end after the demo's story, with status 1 if a step did not hold")
	forceDemo := flags.Bool("demo", false, "run the demo whatever is set")
	addr := flags.String("addr", "", "`address` to serve the app on; default 127.0.0.1:8080, in the demo a free port")
	data := flags.String("data", "data", "`folder` of the demo's database; each run begins with an empty one")
	cacheTTL := flags.Duration("cache-ttl", 0, "how long the app serves a record from memory, outside of the demo; default clerksync's")
	refreshAfter := flags.Duration("refresh-after", 0, "how old a record's confirmation by Clerk may get, outside of the demo; default clerksync's")
	envFile := flags.String("env", "", "`file` with settings; default quickstart/.env or .env, if there is one")
	err := flags.Parse(args)
	flags.SetOutput(stderr)
	if err == nil && flags.NArg() > 0 {
		err = errors.New("unexpected argument " + word(flags.Arg(0)))
	}
	if errors.Is(err, flag.ErrHelp) {
		flags.Usage()
		return err
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "quickstart:", explainFlag(err))
		flags.Usage()
		return errFlags
	}

	var s settings
	if !*forceDemo {
		var err error
		if s, err = settingsFrom(lookup, *envFile); err != nil {
			return err
		}
	}
	if s == (settings{}) {
		out := newPrinter(stdout, lookup)
		return runDemo(ctx, out, demoOptions{addr: *addr, data: *data, once: *once, chapters: chapters})
	}
	if *once {
		return fmt.Errorf("%w: -once is for the demo, and settings for the real Clerk and MongoDB are there; add -demo to leave them aside", errSettings)
	}
	if *addr == "" {
		*addr = "127.0.0.1:8080"
	}
	s.cacheTTL, s.refreshAfter = *cacheTTL, *refreshAfter
	return serveApp(ctx, s, *addr, stdout, slog.New(slog.NewTextHandler(stderr, nil)))
}

func settingsFrom(lookup func(string) (string, bool), envFile string) (settings, error) {
	files := []string{filepath.Join("quickstart", ".env"), ".env"}
	if envFile != "" {
		if _, err := os.Stat(envFile); err != nil {
			return settings{}, fmt.Errorf("%w: -env: %w", errSettings, err)
		}
		files = []string{envFile}
	}
	get, err := environment(lookup, files...)
	if err != nil {
		return settings{}, err
	}
	return readSettings(get)
}

// serveApp serves the app on a real Clerk and MongoDB until ctx is done.
func serveApp(ctx context.Context, s settings, addr string, stdout io.Writer, logger *slog.Logger) (err error) {
	client, store, err := openStore(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disconnect(ctx, client)) }()

	syncer, err := newSyncer(s, store, func(ctx context.Context, o clerksync.Observation) {
		logger.InfoContext(ctx, "clerksync", "op", o.Op, "user", o.ClerkID, "event", o.EventType, "source", o.Source, "outcome", o.Outcome, "took", o.Duration, "error", o.Err)
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, syncer.Close()) }()
	handler, err := newHandler(s, syncer)
	if err != nil {
		return err
	}

	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	server := serve(listener, handler)
	_, _ = fmt.Fprintf(stdout, `Serving on http://%s, with the records in %s.users.
  GET  /api/me               wants a session token of your Clerk instance: Authorization: Bearer …
  POST /api/webhooks/clerk   is the endpoint for the Clerk Dashboard; a tunnel makes it reachable from there
`, listener.Addr(), s.database)
	return server.wait(ctx)
}

// openStore connects to MongoDB. Its errors hold no password.
func openStore(ctx context.Context, s settings) (*mongo.Client, *mongostore.Store, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client, err := mongo.Connect(options.Client().ApplyURI(s.mongoURI))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %s cannot be used: %s", errSettings, mongoURIVar, withoutPassword(err, s.mongoURI))
	}
	store, err := mongostore.Open(ctx, client.Database(s.database).Collection("users"), nil)
	if err != nil {
		return nil, nil, errors.Join(errors.New(withoutPassword(err, s.mongoURI)), disconnect(ctx, client))
	}
	return client, store, nil
}

// disconnect works where ctx is done, too.
func disconnect(ctx context.Context, client *mongo.Client) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return client.Disconnect(ctx)
}

// httpServer is an HTTP server that runs.
type httpServer struct {
	server *http.Server
	ended  chan error
}

func serve(listener net.Listener, handler http.Handler) *httpServer {
	s := &httpServer{ended: make(chan error, 1), server: &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       20 * time.Second,
		WriteTimeout:      20 * time.Second, // a webhook takes up to 10
		IdleTimeout:       2 * time.Minute,
	}}
	go func() { s.ended <- s.server.Serve(listener) }()
	return s
}

// wait serves until ctx is done and then shuts down.
func (s *httpServer) wait(ctx context.Context) error {
	select {
	case err := <-s.ended:
		return err
	case <-ctx.Done():
		return s.shutdown(ctx)
	}
}

// shutdown lets the requests under way end, for ten seconds. It works where ctx
// is done, too.
func (s *httpServer) shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		return errors.Join(err, s.server.Close())
	}
	return nil
}
