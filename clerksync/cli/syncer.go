package cli

import (
	"log/slog"
	"net/http"
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
