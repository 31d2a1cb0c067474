package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// configs returns the Config and the Options that the settings make, after the app's configure.
func (s *settings) configs(env environment) (*clerksync.Config, *mongostore.Options) {
	config := &clerksync.Config{
		SecretKey:   s.secretKey,
		APIURL:      s.apiURL,
		DefaultRole: clerksync.Role(s.defaultRole),
	}
	options := &mongostore.Options{
		BatchSize:     s.batchSize,
		AllowUnique:   s.allowUnique,
		EraseOnDelete: s.eraseOnDelete,
	}
	if env.configure != nil {
		env.configure(config, options)
		options.Record = nil // no command needs it, and a document that does not decode would fail one
	}
	return config, options
}

// newSyncer returns a Syncer that writes to store, logs to logs and calls Clerk over transport. A
// nil transport is the default one.
func newSyncer(
	env environment, config clerksync.Config, store clerksync.Store, logs *progress, transport http.RoundTripper,
) (*clerksync.Syncer, error) {
	config.Store = store
	config.HTTPClient = &http.Client{Transport: transport}
	config.CacheTTL = -1
	config.Now = env.now
	config.Logger = slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{
		Level: slog.LevelWarn,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.String(a.Key, stamp(env.now()))
			}
			if err, ok := a.Value.Any().(error); ok { // the message has the prefix
				return slog.String(a.Key, plain(err.Error()))
			}
			return a
		},
	}))
	syncer, err := clerksync.New(config)
	if err != nil { // a setting is wrong; the error names the field of Config
		return nil, usagef("%s", plain(err.Error()))
	}
	return syncer, nil
}

// stamp is the form of a time in the log.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// patience is how long Syncer.Reconcile keeps asking Clerk while Clerk fails.
const patience = 5 * time.Minute

// outage is a transport that reports when Clerk begins to fail, with the cause, and when Clerk
// answers again. Reconcile's Progress does not report that.
type outage struct {
	env  environment
	note func(string)

	mu    sync.Mutex
	cause string // empty while Clerk answers
	noted bool
}

func (o *outage) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	switch {
	case err == nil && resp.StatusCode >= 500:
		o.set(fmt.Sprintf("status %d", resp.StatusCode))
	case err == nil:
		o.set("")
	case r.Context().Err() == nil || errors.Is(context.Cause(r.Context()), context.DeadlineExceeded):
		o.set(unanswered(err))
	}
	return resp, err
}

func (o *outage) set(cause string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case cause != "" && o.cause != "" && !o.noted: // not at the first failure, which may end the run
		o.noted = true
		giveUp := o.env.now().Add(patience).UTC().Format("15:04 UTC")
		o.note(fmt.Sprintf("waiting for Clerk: %s; giving up at %s", cause, giveUp))
	case cause == "" && o.noted:
		o.noted = false
		o.note("Clerk answers again")
	}
	o.cause = cause
}

// current returns why Clerk fails, or "" if it answers.
func (o *outage) current() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cause
}
