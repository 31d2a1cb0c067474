package clerksync

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
	"github.com/clerksync/clerksync-go/clerksync/internal/sessiontoken"
)

// Syncer keeps records in step with Clerk. It is safe for concurrent use. An app makes one
// and closes it at shutdown.
type Syncer struct {
	cfg        Config
	clock      clock.Clock
	store      Store
	api        *clerkapi.Client
	tokens     *sessiontoken.Verifier
	cache      *recordCache
	rereads    rereadLog
	pause      pause
	writes     writesUnderWay
	handovers  handoverLog
	lookups    singleflight.Group // lookups under way, by load.key
	audiences  audiences          // of the lookups
	background *background
	jobs       *jobRunner
	logLimit   *logLimit
}

// New returns a Syncer, or an error that names every fault of cfg. It does no I/O and
// starts no goroutine. If the Store is a [LegacyStore] that came upon records which clerksync
// has never written, New logs a warning.
func New(cfg Config) (*Syncer, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Syncer{
		cfg:        cfg,
		clock:      cfg.clock,
		store:      cfg.Store,
		cache:      newRecordCache(cfg.CacheSize, cfg.CacheTTL),
		rereads:    newRereadLog(cfg.CacheSize),
		handovers:  newHandoverLog(maxHandoversKnown),
		background: newBackground(cfg.clock, cfg.Logger),
		jobs:       newJobRunner(cfg.clock),
		logLimit:   newLogLimit(cfg.clock),
	}
	s.api = clerkapi.New(clerkapi.Config{
		Backend: cfg.Backend, SecretKey: cfg.SecretKey, APIURL: cfg.APIURL, HTTPClient: cfg.HTTPClient, Clock: cfg.clock,
		OnCall: s.onClerkCall(),
	})
	s.tokens = newTokenVerifier(&s.cfg, s.api, s.background)
	s.warnOfLegacy()
	return s, nil
}

// legacyAdvice says what to do before records of the app's are synced.
const legacyAdvice = `read the guide "Existing users", ` +
	"https://github.com/clerksync/clerksync-go/blob/main/mongostore/EXISTING_USERS.md, and run `clerksync inspect`"

// warnOfLegacy warns of records that clerksync has never written.
func (s *Syncer) warnOfLegacy() {
	if legacy, ok := s.store.(LegacyStore); ok && legacy.HasLegacy() {
		s.cfg.Logger.Warn("clerksync: the Store has records that clerksync has never written: " + legacyAdvice)
	}
}

// Sync reads one user from Clerk now and brings the record in step, as after an event. The
// next visit in this process sees the outcome. It does not join a lookup under way. Fields
// that cannot be written are treated as by [Syncer.Apply].
//
// Errors: [ErrUserUnknown] if Clerk does not have the user (the record stays as it is: a
// wrong key must not delete users); [ErrUnavailable]; [*ConflictError]; [ErrRejected]; a
// [*Problem] with the code "mapping_failed". If ctx ends first, the error matches
// [ErrUnavailable] and ctx's cause.
func (s *Syncer) Sync(ctx context.Context, clerkID string) (Result, error) {
	start := s.clock.Now()
	if !clerkapi.ValidUserID(clerkID) {
		s.observe(ctx, start, Observation{Op: OpSync, Err: errNotUserID})
		return Result{}, errNotUserID
	}
	ctx, span := s.begin(ctx, OpSync, clerkID)
	callCtx, cancel := clock.WithTimeout(ctx, s.clock, callTimeout)
	defer cancel()
	res, err := s.write(callCtx, s.readFromClerk(callCtx, clerkID), s.upsert)
	o := Observation{Op: OpSync, ClerkID: clerkID, Outcome: res.Outcome, Err: err}
	s.end(ctx, span, start, o)
	s.observe(ctx, start, o)
	if err != nil {
		return Result{}, err // the ban may be written
	}
	res.User = handedOut(res.User) // the cache may have it
	return res, nil
}

// Forget drops the user's record from this process's cache, and what it remembers of a
// creation that failed. Call it after the app has changed the record in the database, so that the
// next visit sees the change. Other processes see it after their CacheTTL.
func (s *Syncer) Forget(clerkID string) {
	s.rereads.recordKnown(clerkID)
	s.invalidate(clerkID, func(cached *User, _ uint64) *User { return standbyAfterForget(cached) })
}

// Close waits for the background work to end, at most some ten seconds, and starts no
// more. The Syncer goes on answering visits and webhooks. The error is always nil.
//
// It also ends RunJobs and DrainJobs. If an OnCreate or OnDelete has not returned by then, its
// context ends, and the job is due again a minute after its lease.
func (s *Syncer) Close() error {
	waitForJobs := s.jobs.close()
	s.background.close()
	waitForJobs()
	return nil
}

// invalidate makes the next visit read the Store. Nothing is served afterwards that was
// loaded, or began to be loaded, before. During an outage of the Store, the record that
// keep returns may be served.
func (s *Syncer) invalidate(id string, keep func(cached *User, generation uint64) *User) {
	s.cache.invalidate(id, s.clock.Now(), keep)
	s.lookups.Forget(id)
}

// upsert offers u to the Store. The next visit sees the result.
func (s *Syncer) upsert(ctx context.Context, u *User) (Result, error) {
	return s.upsertTo(ctx, s.store, u)
}

// upsertTo is upsert to the Syncer's Store in another wrapping.
func (s *Syncer) upsertTo(ctx context.Context, store Store, u *User) (Result, error) {
	gen := s.cache.generation(u.ClerkID).Load()
	s.writes.begin(u.ClerkID)
	defer s.writes.end(u.ClerkID)
	res, err := store.Upsert(ctx, u)
	s.invalidateUpserted(u, gen, res, err)
	s.owedCreate(ctx, u, res.Outcome)
	return res, storeError(err)
}

// invalidateUpserted makes the next visit see the result of an Upsert of u, which began in
// generation gen.
func (s *Syncer) invalidateUpserted(u *User, gen uint64, res Result, err error) {
	w := upserted{offered: u, res: res, err: err}
	w.later = s.writes.show(u.ClerkID, w.shown())
	s.invalidateAfter(w, gen)
}

func (s *Syncer) invalidateAfter(w upserted, gen uint64) {
	w.caching, w.open, w.at = s.cfg.CacheTTL >= 0, s.cfg.OnFailure == FailOpen, s.clock.Now()
	s.invalidate(w.offered.ClerkID, func(cached *User, generation uint64) *User {
		w.overtaken = generation != gen+1
		return w.standby(cached)
	})
}

// deactivate marks the user deleted. The next visit sees it, even if the Store is down then or
// already now: Clerk has deleted the user.
func (s *Syncer) deactivate(ctx context.Context, id string, at time.Time) (Result, error) {
	return s.deactivateExternal(ctx, id, "", at)
}

// deactivateExternal is deactivate for a user who had an external id. It may lead to a record
// that was never linked.
func (s *Syncer) deactivateExternal(ctx context.Context, id, externalID string, at time.Time) (res Result, err error) {
	adopter, adopts := s.store.(AdoptStore)
	owing := OwesNone
	switch {
	case s.cfg.OnDelete != nil:
		due := s.clock.Now().Add(s.cfg.Jobs.DeleteDelay)
		res, owing, err = s.store.(JobStore).DeactivateOwing(ctx, id, externalID, at, due)
	case adopts && externalID != "":
		res, err = adopter.DeactivateExternal(ctx, id, externalID, at)
	default:
		res, err = s.store.Deactivate(ctx, id, at)
	}
	// If the Store can be read, its record counts: see supersedes.
	s.invalidate(id, func(*User, uint64) *User { return &User{ClerkID: id, DeletedAt: at} })
	s.owedDelete(ctx, id, owing)
	return res, storeError(err)
}

// storeError makes a failure of the Store match ErrUnavailable. A *ConflictError, and an
// error that matches ErrRejected, are returned as they are: the Store is up.
func storeError(err error) error {
	var conflict *ConflictError
	if err == nil || errors.As(err, &conflict) || errors.Is(err, ErrRejected) {
		return err
	}
	return unavailable(fmt.Errorf("store: %w", err))
}
