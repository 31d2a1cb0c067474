package clerksync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
	"github.com/clerksync/clerksync-go/clerksync/internal/setting"
)

// Config configures [New].
type Config struct {
	_ [0]func() // forbids unkeyed literals

	// Store keeps the records. Required.
	Store Store

	// SecretKey is the Clerk instance's secret key, "sk_live_…" or "sk_test_…". White
	// space around it is ignored. Anything that is plainly not a secret key, such as another
	// key, a placeholder or a value in quotes, is an error that does not show it. Required
	// unless Backend is set.
	SecretKey string

	// Backend calls Clerk in place of the client that New builds from SecretKey, APIURL
	// and HTTPClient. That client retries; a Backend of your own is called once per
	// request. Defaults to none.
	Backend clerk.Backend

	// APIURL is the base URL of Clerk's Backend API. A URL without a path gets "/v1"; final
	// slashes and white space around it are ignored.
	// Defaults to "https://api.clerk.com/v1".
	APIURL string

	// HTTPClient sends the requests to Clerk. Its Transport is wrapped; its other
	// settings are kept. Defaults to a client on http.DefaultTransport.
	HTTPClient *http.Client

	// DefaultRole is the role of a new record. Defaults to [RoleStudent].
	DefaultRole Role

	// RoleOf returns a user's role if Clerk owns it, for example from public_metadata.
	// Each sync writes a role that is not empty. If it is empty, the app owns the role: a
	// new record gets DefaultRole, and no sync changes it afterwards. RoleOf must be safe
	// for concurrent use. Defaults to always empty.
	RoleOf func(*clerk.User) Role

	// Map runs after the standard mapping and may change the record: set Extra for fields
	// of your own, or map standard fields by other rules. The user's Response.RawJSON
	// holds Clerk's whole JSON, on every path. Map may not change ClerkID,
	// ClerkUpdatedAt, SyncedAt, IsActive, DeletedAt or Omit. Role and Location count only for
	// a new record: later they are the app's. Map must be safe for concurrent use. Defaults
	// to none.
	//
	// A value of Extra that cannot be stored ([User.Canonical] says which) is left out of an
	// existing record, and logged. After an error or a panic of Map only a ban is written, if
	// Clerk or Map itself says that the user is banned. The webhook answers 500, so Svix
	// delivers again; a visit goes on with the record as it is, or answers 503 if there is
	// none. Map's error is logged, so it must not quote values; of a panic, the log has the type.
	//
	// Users can write their unsafe_metadata: never take a role or a right from it.
	Map func(*clerk.User, *User) error

	// CacheTTL is how long a record is served from memory before it is read from the
	// Store again, and so how long a change by another process can stay unseen. For an
	// hour longer the record may stand in if the Store fails. A negative CacheTTL means
	// that every visit reads the Store; then only barred users are remembered for an
	// outage. Defaults to 30 seconds.
	CacheTTL time.Duration

	// CacheSize is how many records are kept in memory at most. 100,000 take under
	// 150 MB. A negative size is an error. Defaults to 100,000.
	CacheSize int

	// RefreshAfter is how old Clerk's last confirmation of a record may be before a visit
	// starts a re-read in the background, in case a webhook was lost. Negative means
	// never. Defaults to one hour.
	RefreshAfter time.Duration

	// OnFailure says what happens to a visit if Clerk or the Store fails. Defaults to
	// [FailClosed].
	OnFailure FailurePolicy

	// ErrorHandler answers refused requests and webhooks that were not applied. A webhook
	// answer with a status below 400, or without one, gets the Problem's status instead,
	// because Svix would take it as an acknowledgement. The error is a [*Problem] for
	// errors.As, and matches the package's error for its cause, if there is one, for
	// errors.Is. Defaults to [WriteProblem].
	ErrorHandler func(http.ResponseWriter, *http.Request, error)

	// Logger receives warnings and errors; routine work is at level Debug. A refusal is a
	// warning, or an error if somebody should act: ten of a kind at once, then one a minute.
	// No secret, token, e-mail address or name is logged. Defaults to slog.Default().
	Logger *slog.Logger

	// Auth says which session tokens RequireUser, WithUser and Authenticate accept.
	// Defaults to every session of the SecretKey's Clerk instance.
	Auth AuthConfig

	// OnCreate is called for each new user, on whichever path the record was made: by an event,
	// a visit, a Sync, an Apply or a Reconcile. It is for a welcome mail, or a default workspace.
	// Users who signed up more than Jobs.NewFor ago are not new, nor are those whose record the
	// app had before.
	//
	// It is called until it returns nil or an error of [Discard], or has failed Jobs.MaxAttempts
	// times: at once, in the background, by the process that made the record, and later by visits
	// and by [Syncer.RunJobs], which an app with OnCreate or OnDelete runs. If a process dies, it
	// can be called again after a success: [Job].Key is the same each time. Its context ends after
	// Jobs.Lease. A panic is an error. The user is a copy of the record as it was read before the
	// attempt, and [RecordFromContext] has the Store's Record.
	//
	// The log has the error's type, not its text, which may quote an address; Observe gets
	// the error itself. OnCreate must be safe for concurrent use. The Store must be a
	// [JobStore]. Defaults to none.
	OnCreate func(ctx context.Context, u *User, job Job) error

	// OnDelete is called once for each user who was deleted and had a record, as OnCreate is:
	// to clean up what refers to the record. It waits for an OnCreate of the same user that is
	// running, and for Jobs.DeleteDelay. A deletion that a Reconcile finds counts too.
	// Defaults to none.
	OnDelete func(ctx context.Context, u *User, job Job) error

	// Jobs says how OnCreate and OnDelete are run.
	Jobs JobConfig

	// Observe is called after each operation, and for each request and delivery that is
	// refused, on its goroutine. A refresh's context has no values of the request that caused
	// it. Observe must be quick, and safe for concurrent use. A panic in it is logged, and has no
	// other effect. Package otelsync, a module of its own, makes metrics and spans for
	// OpenTelemetry of Observe and Start. Defaults to none.
	Observe func(context.Context, Observation)

	// Start is called when an operation begins, for spans and traces; [Op] says which. It
	// returns the context for the operation's work, which must be ctx or made from it, and a
	// function that is called once at the end, unless the operation panics. Either may be nil.
	// Start is not called for a visit that the cache answers.
	//
	// A Clerk call within another operation has the context that Start returned for that one.
	// A lookup may serve several visits; it works with the context of the visit that began it.
	// A lookup and a refresh go on after the request: ctx then has the request's values only
	// until Start returns, so that a refresh's span can be linked to the request's, and
	// afterwards what Start added to it. clerkID is empty if it is not known yet, as with a
	// delivery, or if there are several users.
	//
	// Both functions must be quick, and safe for concurrent use. A panic in them is logged, and
	// has no other effect. Defaults to none, which costs nothing.
	Start func(ctx context.Context, op Op, clerkID string) (context.Context, func(Observation))

	// Now is the clock for ages, expiry and signatures. Timeouts and the waits between
	// retries run in real time. It must be safe for concurrent use. Defaults to time.Now.
	Now func() time.Time

	clock clock.Clock // for tests: a clock with timers
}

// FailurePolicy says what happens to a visit if Clerk or the Store fails and nothing is
// known about the user.
type FailurePolicy int

const (
	// FailClosed answers 503 with Retry-After.
	FailClosed FailurePolicy = iota
	// FailOpen lets the request through with a [User] that has only ClerkID and Partial
	// set. Requests of a user whom this process learned to be deleted, suspended or banned
	// less than CacheTTL plus one hour ago are still refused. A Partial User is never
	// cached.
	FailOpen
)

// withDefaults returns cfg with its defaults filled in.
func (cfg Config) withDefaults() Config {
	cfg.SecretKey, cfg.APIURL = strings.TrimSpace(cfg.SecretKey), strings.TrimSpace(cfg.APIURL)
	if cfg.APIURL == "" && cfg.Backend == nil {
		cfg.APIURL = clerk.APIURL
	}
	if u, err := url.Parse(cfg.APIURL); err == nil && u.Host != "" {
		if strings.Trim(u.Path, "/") == "" {
			u = u.JoinPath("v1")
		}
		u.Path = strings.TrimRight(u.Path, "/")
		cfg.APIURL = u.String()
	}
	if cfg.DefaultRole == "" {
		cfg.DefaultRole = RoleStudent
	}
	if cfg.CacheTTL == 0 {
		cfg.CacheTTL = 30 * time.Second
	}
	if cfg.CacheSize == 0 {
		cfg.CacheSize = 100_000
	}
	if cfg.RefreshAfter == 0 {
		cfg.RefreshAfter = time.Hour
	}
	if cfg.ErrorHandler == nil {
		cfg.ErrorHandler = WriteProblem
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.clock == nil {
		cfg.clock = clock.System(cfg.Now)
	}
	cfg.Auth, cfg.Jobs = cfg.Auth.withDefaults(), cfg.Jobs.withDefaults()
	return cfg
}

// validate returns every fault of a Config with its defaults filled in, joined.
func (cfg *Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("clerksync: Config."+format, args...))
	}
	switch {
	case cfg.Store == nil:
		fault("Store is missing: open one with mongostore.Open, or use memstore.New in tests")
	case setting.IsNil(cfg.Store):
		fault("Store is a nil %T: was the error of the call that opens it checked?", cfg.Store)
	}
	if handler := cfg.Logger.Handler(); setting.IsNil(handler) {
		fault("Logger has no handler: make it with slog.New")
	}
	cfg.validateClerk(fault)
	if is := setting.Word(string(cfg.DefaultRole)); is != "" {
		fault("DefaultRole %s", is)
	}
	if cfg.CacheSize < 0 {
		fault("CacheSize is negative: to have no cache, set CacheTTL to a negative value")
	}
	if cfg.OnFailure != FailClosed && cfg.OnFailure != FailOpen {
		fault("OnFailure is neither FailClosed nor FailOpen")
	}
	cfg.validateJobs(fault)
	cfg.Auth.validate(fault)
	cfg.Auth.validateWords(fault)
	cfg.validatePair(fault)
	return errors.Join(faults...)
}

// validatePair checks that two keys, each of which may be right, are not of two instances.
func (cfg *Config) validatePair(fault func(format string, args ...any)) {
	if cfg.Auth.publishableKeyFault() != "" || setting.SecretKey(cfg.SecretKey) != "" {
		return
	}
	key, secret := setting.Environment(cfg.Auth.PublishableKey), setting.Environment(cfg.SecretKey)
	if key != "" && secret != "" && key != secret {
		fault("Auth.PublishableKey is a %s instance's, and SecretKey a %s instance's: take both from the same instance", key, secret)
	}
}

// validateClerk checks how Clerk is called.
func (cfg *Config) validateClerk(fault func(format string, args ...any)) {
	if cfg.SecretKey == "" && cfg.Backend == nil {
		fault("SecretKey is missing: take it from the Clerk Dashboard under API keys (CLERK_SECRET_KEY)")
	}
	if is := setting.SecretKey(cfg.SecretKey); is != "" && cfg.SecretKey != "" {
		fault("SecretKey %s", is)
	}
	if cfg.Backend != nil {
		if setting.IsNil(cfg.Backend) {
			fault("Backend is a nil %T", cfg.Backend)
		}
		if cfg.APIURL != "" {
			fault("APIURL has no effect beside Backend: set one of the two")
		}
		if cfg.HTTPClient != nil {
			fault("HTTPClient has no effect beside Backend: set one of the two")
		}
		return
	}
	if is := setting.URL(cfg.APIURL); is != "" {
		fault("APIURL %s; Clerk's is https://api.clerk.com (CLERK_API_URL)", is)
	}
	if c := cfg.HTTPClient; c != nil && c.Transport != nil && setting.IsNil(c.Transport) {
		fault("HTTPClient.Transport is a nil %T", c.Transport)
	}
}

// validateWords checks the settings of a that are a URL or a word.
func (a *AuthConfig) validateWords(fault func(format string, args ...any)) {
	if is := setting.URL(a.Issuer); is != "" && a.Issuer != "" {
		fault("Auth.Issuer %s; it is the Frontend API URL", is)
	}
	if is := setting.Word(a.FreshnessClaim); is != "" {
		fault("Auth.FreshnessClaim %s: give only the claim's name", is)
	}
}
