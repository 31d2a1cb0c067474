// Package story runs an app on a fake Clerk and an embedded database, and tells in the terminal
// what becomes of a user's record if webhooks are lost, late, doubled or out of order. It checks
// everything that it tells. Then it serves a page on which anybody can try the same.
package story

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/clerksync/clerksync-go/clerksync"
)

const databaseName = "clerksync_quickstart"

// Options say which app the story is about, and how to run it.
type Options struct {
	Addr string // the address of the app
	Data string // the folder of the database, which is emptied
	Once bool   // end after the story

	// NewApp makes the app. It must serve GET /api/me and /api/webhooks/clerk.
	NewApp func(ctx context.Context, s Services) (*App, error)
	// Serve serves until ctx is done.
	Serve func(ctx context.Context, listener net.Listener, handler http.Handler) error

	chapters []chapter // only set by tests
}

// Services are what the app is configured with.
type Services struct {
	SecretKey, APIURL, WebhookSecret string
	MongoURI, Database               string

	// Observe and OnCreate are for the app's clerksync.Config.
	Observe  func(context.Context, clerksync.Observation)
	OnCreate func(context.Context, *clerksync.User, clerksync.Job) error
}

// App is a running app.
type App struct {
	Handler http.Handler
	Syncer  *clerksync.Syncer
	Close   func() error
}

// Run tells the story. Then it serves until ctx is done, unless opts.Once is set.
func Run(ctx context.Context, out *Printer, opts Options) (err error) {
	if opts.chapters == nil {
		opts.chapters = chapters
	}
	out.printf("The app of quickstart/app.go, on a fake Clerk and an embedded database.")
	d, err := startDemo(ctx, out, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()

	failed, err := d.tell(ctx, opts.chapters)
	switch {
	case ctx.Err() != nil:
		out.printf("\nInterrupted.")
		if opts.Once {
			return context.Cause(ctx) // the story is incomplete
		}
		return nil
	case err != nil:
		return err
	case failed > 0:
		err = fmt.Errorf("checks failed: %d", failed)
	default:
		out.printf("\n%s", out.paint(bold, "All checks passed."))
	}
	if opts.Once {
		return err
	}
	d.serving.Store(true) // first: whoever reads the invitation may follow it at once
	d.invite()
	select {
	case <-ctx.Done():
	case serveErr := <-d.appEnded:
		err = errors.Join(err, serveErr)
	}
	return err
}
