package clerksync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"golang.org/x/sync/singleflight"
)

// FailurePolicy says what becomes of a visit where Clerk or the Store fails and
// nothing is known of the user.
type FailurePolicy int

const (
	// FailClosed answers 503 with Retry-After.
	FailClosed FailurePolicy = iota
	// FailOpen lets the request through with a [User] that has only ClerkID and
	// Partial set. A user known to be deleted, suspended or banned is refused
	// all the same. Such a User is never cached.
	FailOpen
)

// Config configures [New].
type Config struct {
	_ [0]func() // forbids unkeyed literals

	// Store keeps the records. Required.
	Store Store

	// SecretKey is the Clerk instance's secret key, "sk_live_…" or
	// "sk_test_…". White space around it is ignored. Required unless Backend
	// is set.
	SecretKey string

	// Backend is used to call Clerk, in place of the client that New builds
	// from SecretKey, APIURL and HTTPClient. That client retries; a Backend of your
	// own is called once. Defaults to none.
	Backend clerk.Backend

	// APIURL is the base URL of Clerk's Backend API. A URL without a path gets
	// "/v1". Defaults to "https://api.clerk.com/v1".
	APIURL string

	// HTTPClient sends the requests to Clerk. Its Transport is wrapped, its
	// other settings are kept. Defaults to a client on http.DefaultTransport.
	HTTPClient *http.Client

	// DefaultRole is the role of a new record. Defaults to [RoleStudent].
	DefaultRole Role

	// RoleOf returns the role of a user where Clerk owns it, say in
	// public_metadata: a role that is not empty is written on each sync. For an empty one
	// the app owns the role: a new record gets DefaultRole and no sync changes it
	// afterwards. Must be safe for concurrent use. Defaults to always empty.
	RoleOf func(*clerk.User) Role

	// Map runs after the standard mapping and may change the record: set Extra
	// for fields of your own, or map standard ones by other rules. The user's
	// Response.RawJSON holds Clerk's whole JSON on every path. It may not change
	// ClerkID, ClerkUpdatedAt, SyncedAt, IsActive or DeletedAt. Role and Location
	// count for a new record only: later they are the app's. An error or a
	// panic writes nothing: the webhook answers 500 and Svix delivers again, a visit answers 503.
	// Must be safe for concurrent use. Defaults to none.
	//
	// unsafe_metadata is the user's to write: never take a role or a right
	// from it.
	Map func(*clerk.User, *User) error

	// CacheTTL is how long a record is served from memory before it is read
	// from the Store again: how long a change by another process stays unseen.
	// For an hour longer the record may stand in where the Store fails. Negative
	// means that every visit reads the Store; then only refusals stand in. Defaults
	// to 30 seconds.
	CacheTTL time.Duration

	// CacheSize is how many records are kept in memory at most. 100,000 take
	// under 150 MB. A negative one is an error. Defaults to 100,000.
	CacheSize int

	// RefreshAfter is how old the last confirmation by Clerk may be before a
	// visit causes a re-read behind it, for the webhooks that were lost.
	// Negative means never. Defaults to one hour.
	RefreshAfter time.Duration

	// OnFailure says what becomes of a visit where Clerk or the Store fails.
	// Defaults to [FailClosed].
	OnFailure FailurePolicy

	// ErrorHandler answers the requests that do not reach the app's handler, and the
	// webhooks that are not done: whatever status below 400 it gives those, or none,
	// becomes the Problem's, as Svix would take it that the event is done.
	// Its error is a [*Problem] for errors.As, and matches the package's error of
	// that cause, if it has one, for errors.Is. Defaults to [WriteProblem].
	ErrorHandler func(http.ResponseWriter, *http.Request, error)

	// Logger receives warnings and errors; what happens as a matter of course
	// is at level Debug. No secret, token, e-mail or name is logged. Defaults to
	// slog.Default().
	Logger *slog.Logger

	// Auth says which session tokens RequireUser, WithUser and Authenticate
	// accept. Defaults to every session of the SecretKey's Clerk instance.
	Auth AuthConfig

	// Observe is called after each operation, on its goroutine: it must be
	// quick, and safe for concurrent use. Defaults to none.
	Observe func(context.Context, Observation)

	// Now is the clock by which ages, expiry and signatures are judged. Timeouts and the
	// waits between retries run in real time. Must be safe for concurrent use.
	// Defaults to time.Now.
	Now func() time.Time

	clock clock // tests' own; with timers
}

// Syncer keeps records in step with Clerk. It is safe for concurrent use; an app
// makes one and closes it at shutdown.
type Syncer struct {
	cfg      Config
	clock    clock
	store    Store
	api      *clerkAPI
	keys     *keyring
	sessions *sessionCache // nil: none
	cache    *recordCache
	clerk    clerkMemory
	flights  singleflight.Group

	refreshers chan struct{} // one slot for each background refresh
	background sync.WaitGroup
	closeMu    sync.Mutex
	closed     bool
}

const (
	// callTimeout bounds all that one user's lookup, sync or event does: Clerk
	// and Store together. Svix gives up on a webhook after 15 s.
	callTimeout = 8 * time.Second
	// maxRefreshers bounds the background refreshes at one time.
	maxRefreshers = 8
)

// New returns a Syncer, or an error that names every fault of cfg. It does no I/O
// and starts no goroutine.
func New(cfg Config) (*Syncer, error) {
	var errs []error
	fault := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("clerksync: Config."+format, args...))
	}

	if cfg.Store == nil {
		fault("Store is missing: open one with mongostore.Open, or use memstore.New in tests")
	}
	cfg.SecretKey = strings.TrimSpace(cfg.SecretKey)
	switch {
	case cfg.SecretKey == "" && cfg.Backend == nil:
		fault("SecretKey is missing: take it from the Clerk Dashboard under API keys (CLERK_SECRET_KEY)")
	case strings.HasPrefix(cfg.SecretKey, "pk_"):
		fault("SecretKey is a publishable key (pk_…): the secret key begins with sk_")
	case strings.HasPrefix(cfg.SecretKey, "whsec_"):
		fault("SecretKey is a webhook's signing secret (whsec_…): the secret key begins with sk_")
	case strings.ContainsFunc(cfg.SecretKey, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		fault("SecretKey has characters in it that no key has")
	}
	if cfg.Backend != nil && cfg.APIURL != "" {
		fault("APIURL has no effect beside Backend: set one of the two")
	}
	if cfg.Backend != nil && cfg.HTTPClient != nil {
		fault("HTTPClient has no effect beside Backend: set one of the two")
	}
	if cfg.APIURL == "" {
		cfg.APIURL = clerk.APIURL
	}
	switch u, err := url.Parse(cfg.APIURL); {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		fault("APIURL is no http or https URL")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		fault("APIURL may have no user, query or fragment")
	case strings.Trim(u.Path, "/") == "":
		cfg.APIURL = u.JoinPath("v1").String()
	}
	if cfg.DefaultRole == "" {
		cfg.DefaultRole = RoleStudent
	}
	if cfg.CacheTTL == 0 {
		cfg.CacheTTL = 30 * time.Second
	}
	switch {
	case cfg.CacheSize < 0:
		fault("CacheSize is negative: to have no cache, set CacheTTL to a negative value")
	case cfg.CacheSize == 0:
		cfg.CacheSize = 100_000
	}
	if cfg.RefreshAfter == 0 {
		cfg.RefreshAfter = time.Hour
	}
	if cfg.OnFailure != FailClosed && cfg.OnFailure != FailOpen {
		fault("OnFailure is neither FailClosed nor FailOpen")
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
		cfg.clock = systemClock{cfg.Now}
	}
	jwtKey := cfg.Auth.prepare(fault)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	s := &Syncer{
		cfg:        cfg,
		clock:      cfg.clock,
		store:      cfg.Store,
		api:        newClerkAPI(&cfg, cfg.clock),
		cache:      newRecordCache(cfg.CacheSize, cfg.CacheTTL),
		clerk:      newClerkMemory(cfg.CacheSize),
		sessions:   newSessionCache(cfg.Auth.TokenCacheSize),
		refreshers: make(chan struct{}, maxRefreshers),
	}
	if jwtKey != nil {
		s.keys = newStaticKeyring(jwtKey)
	} else {
		s.keys = &keyring{api: s.api, clock: s.clock, track: s.track}
	}
	return s, nil
}

// Sync reads one user from Clerk now and brings the record in step, as after an
// event. The next visit in this process sees the outcome. It does not join a
// lookup under way.
//
// Errors: where ctx ends first, one that matches [ErrUnavailable] and ctx's cause;
// [ErrUserUnknown] where Clerk has no such user (the record is left as it
// is: a wrong key must not delete users), [ErrUnavailable], [*ConflictError], or a
// [*Problem] with the code "mapping_failed".
func (s *Syncer) Sync(ctx context.Context, clerkID string) (Result, error) {
	start := s.clock.Now()
	if !validUserID(clerkID) {
		err := fmt.Errorf("%w: not the form of a user id", ErrUserUnknown)
		s.observe(ctx, start, Observation{Op: OpSync, Err: err})
		return Result{}, err
	}
	callCtx, cancel := withTimeout(ctx, s.clock, callTimeout)
	defer cancel()
	var res Result
	u, err := s.readFromClerk(callCtx, clerkID)
	if err == nil {
		res, err = s.upsert(callCtx, u)
	}
	s.observe(ctx, start, Observation{Op: OpSync, ClerkID: clerkID, Outcome: res.Outcome, Err: err})
	return res, err
}

// Forget drops the user's record from this process's cache: the app calls it when
// it has changed the record in the database, so that the next visit sees the change.
// Other processes see it after their CacheTTL.
func (s *Syncer) Forget(clerkID string) {
	s.invalidate(clerkID, func(old *User) *User {
		if old != nil && refused(old) {
			return old // until the Store says otherwise
		}
		return nil
	})
}

// Close waits for the background work to end, at most some ten seconds, and starts no more. The
// Syncer goes on answering visits and webhooks. The error is always nil.
func (s *Syncer) Close() error {
	s.closeMu.Lock()
	s.closed = true
	s.closeMu.Unlock()
	s.background.Wait()
	return nil
}

// begin counts work that Close is to wait for; false once closed.
func (s *Syncer) begin() bool {
	s.closeMu.Lock()
	defer s.closeMu.Unlock()
	if s.closed {
		return false
	}
	s.background.Add(1)
	return true
}

// track counts work that ends by itself, for Close to wait for as well.
func (s *Syncer) track() (done func()) {
	if s.begin() {
		return s.background.Done
	}
	return func() {}
}

// invalidate makes the next visit read the Store: nothing that was loaded, or began
// to be loaded, before it is served afterwards, but for what standby keeps for
// outages of the Store.
func (s *Syncer) invalidate(id string, standby func(old *User) *User) {
	s.cache.invalidate(id, s.clock.Now(), standby)
	s.flights.Forget(id)
}

// upsert offers u to the Store, and makes the next visit see what came of it.
func (s *Syncer) upsert(ctx context.Context, u *User) (Result, error) {
	res, err := s.store.Upsert(ctx, u)
	s.upserted(u, res, err)
	return res, storeError(err)
}

// upserted makes the next visit see what came of an Upsert of u.
func (s *Syncer) upserted(u *User, res Result, err error) {
	s.invalidate(u.ClerkID, func(old *User) *User {
		known := res.User
		if known == nil && u.Banned && (res.Outcome == Created || res.Outcome == Updated) {
			known = &User{ClerkID: u.ClerkID, Banned: true, IsActive: true, ClerkUpdatedAt: u.ClerkUpdatedAt, SyncedAt: u.SyncedAt}
		}
		switch {
		case err == nil && res.Outcome == Deactivated:
			return &User{ClerkID: u.ClerkID, DeletedAt: s.clock.Now()} // known anew, for its whole time
		case old != nil && !old.DeletedAt.IsZero():
			return old // the deletion came in between, and is final
		case err != nil, res.Outcome == Stale && known == nil, res.Outcome == Unchanged && known == nil:
			return old // nothing was written, as far as anybody knows
		case old != nil && laterState(old, cmp.Or(known, u)):
			return old // another's, which was written after this one
		case known != nil && (refused(known) || old != nil && s.cfg.CacheTTL >= 0):
			return known // what nobody visits is not worth a place
		case known == nil && old != nil && !old.IsActive:
			return old // suspended by the app, which this did not change
		}
		return nil
	})
}

// deactivate marks the user deleted, and makes the next visit see it. The deletion
// is kept in mind, so that this process refuses the user even while the Store is
// down.
func (s *Syncer) deactivate(ctx context.Context, id string, at time.Time) (Result, error) {
	res, err := s.store.Deactivate(ctx, id, at)
	s.invalidate(id, func(old *User) *User {
		if err != nil {
			return old
		}
		return &User{ClerkID: id, DeletedAt: at}
	})
	return res, storeError(err)
}

// readFromClerk reads one user from Clerk and maps it.
func (s *Syncer) readFromClerk(ctx context.Context, id string) (*User, error) {
	raw, asOf, err := s.api.user(ctx, id)
	unknown := errors.Is(err, ErrUserUnknown)
	s.clerk.note(id, s.clock.Now(), unknown)
	if unknown {
		return nil, err
	}
	if err != nil {
		return nil, unavailable(err)
	}
	u, err := s.userFromClerk(raw, asOf)
	if errors.Is(err, ErrInvalidEvent) { // here it is Clerk's answer that is unusable
		err = unavailable(fmt.Errorf("answer of Clerk: %w", err))
	}
	return u, err
}

// storeError makes a failure of the Store match ErrUnavailable; a conflict is none.
func storeError(err error) error {
	var conflict *ConflictError
	if err == nil || errors.As(err, &conflict) {
		return err
	}
	return unavailable(fmt.Errorf("store: %w", err))
}
