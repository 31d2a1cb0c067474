// Command quickstart shows clerksync at work.
//
//	go -C examples run ./quickstart
//
// The app is in app.go. With CLERK_SECRET_KEY, CLERK_WEBHOOK_SIGNING_SECRET and MONGODB_URI set, in
// the environment or in a .env file, the command serves it on real Clerk and MongoDB.
//
// Without them it runs a demo, which needs no account, no server and no network. It serves the same
// app on a fake Clerk and an embedded database, and tells a story in the terminal: what becomes of
// a user's record if webhooks are lost, late, doubled or out of order. It checks everything that it
// says. Then it serves a page, on this machine alone, whose buttons do all of that to a user and her
// record, until it is interrupted. With -once it ends after the story, with status 1 if a check
// failed.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/joho/godotenv"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/examples/internal/story"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr))
}

// run returns the exit status: 2 if flags or variables are wrong.
func run(ctx context.Context, args []string, lookup lookupFunc, stdout, stderr io.Writer) int {
	flags, err := parseFlags(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil: // parseFlags has printed it
		return 2
	}
	err = start(ctx, flags, lookup, stdout, stderr)
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintln(stderr, "quickstart:", strings.TrimPrefix(err.Error(), errConfig.Error()+": "))
	if errors.Is(err, errConfig) {
		return 2
	}
	return 1
}

// lookupFunc is os.LookupEnv, or a test's environment.
type lookupFunc func(name string) (value string, ok bool)

func start(ctx context.Context, f flags, lookup lookupFunc, stdout, stderr io.Writer) error {
	var c config
	if !f.demo {
		getenv, err := environment(lookup, f.envFile)
		if err != nil {
			return err
		}
		if c, err = readConfig(getenv); err != nil {
			return err
		}
	}
	if c == (config{}) {
		return story.Run(ctx, story.NewPrinter(stdout, lookup), story.Options{
			Addr: cmp.Or(f.addr, "127.0.0.1:0"), Data: f.data, Once: f.once, NewApp: newDemoApp, Serve: serve,
		})
	}
	if f.once {
		return fmt.Errorf("%w: -once is for the demo, but the variables for Clerk and MongoDB are set; add -demo", errConfig)
	}
	c.cacheTTL, c.refreshAfter = f.cacheTTL, f.refreshAfter
	return serveApp(ctx, c, cmp.Or(f.addr, "127.0.0.1:8080"), stdout, slog.New(slog.NewTextHandler(stderr, nil)))
}

// environment returns a function that looks a variable up in the environment and, if it is unset or
// empty there, in envFile. If envFile is empty, that is the first of quickstart/.env and .env that
// exists.
func environment(lookup lookupFunc, envFile string) (getenv func(name string) string, err error) {
	files := []string{envFile}
	if envFile == "" {
		files = []string{filepath.Join("quickstart", ".env"), ".env"}
	}
	var vars map[string]string
	for _, file := range files {
		vars, err = godotenv.Read(file)
		_, nameless := vars[""] // from a line without "=", which godotenv accepts
		if err == nil && !nameless {
			break
		}
		// "quickstart" may be the program, and then it is not a directory.
		if envFile == "" && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)) {
			continue
		}
		if errors.As(err, new(*fs.PathError)) {
			return nil, fmt.Errorf("%w: %w", errConfig, err)
		}
		// godotenv's error quotes the file, which contains secrets.
		return nil, fmt.Errorf("%w: %s: not every line is NAME=VALUE or a comment", errConfig, file)
	}
	return func(name string) string {
		value, _ := lookup(name)
		return cmp.Or(strings.TrimSpace(value), strings.TrimSpace(vars[name]))
	}, nil
}

// serveApp serves the app on a real Clerk and MongoDB until ctx is done.
func serveApp(ctx context.Context, c config, addr string, stdout io.Writer, logger *slog.Logger) (err error) {
	a, err := newApp(ctx, c, hooks{logger: logger, observe: func(ctx context.Context, o clerksync.Observation) {
		logger.InfoContext(ctx, "clerksync", "op", o.Op, "user", o.ClerkID, "event", o.EventType,
			"source", o.Source, "outcome", o.Outcome, "took", o.Duration, "error", o.Err)
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close(ctx)) }()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(stdout, `Serving on http://%s, with the records in %s.users.
  GET  /api/me               needs a session token of your Clerk instance: Authorization: Bearer …
  POST /api/webhooks/clerk   is the endpoint for the Clerk Dashboard, which reaches it through a tunnel
`, listener.Addr(), c.database)
	return serve(ctx, listener, a.handler)
}

// newDemoApp makes the app for the story. It does not log, because the story shows the refusals itself.
func newDemoApp(ctx context.Context, s story.Services) (*story.App, error) {
	c := config{
		secretKey: s.SecretKey, webhookSecret: s.WebhookSecret, mongoURI: s.MongoURI, apiURL: s.APIURL, database: s.Database,
	}
	a, err := newApp(ctx, c, hooks{slog.New(slog.DiscardHandler), s.Observe, s.OnCreate})
	if err != nil {
		return nil, err
	}
	return &story.App{Handler: a.handler, Syncer: a.syncer, Close: func() error { return a.close(ctx) }}, nil
}
