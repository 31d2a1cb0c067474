package clerksync

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// User returns the record of a user who is signed in: from this process's cache,
// else from the Store, else from Clerk, in which case the record is created. It is
// the request path without HTTP, for RPC servers and workers; see [Syncer.Middleware] for what
// happens when. The record is shared: callers may not modify it, only a
// [User.Clone].
//
// Errors: where ctx ends first, with either [FailurePolicy], one that matches
// [ErrUnavailable] and ctx's cause; [ErrUserInactive] for one who is deleted,
// suspended or banned; [ErrUserUnknown] where Clerk has no such user; [ErrUnavailable] where Clerk or
// the Store failed and nothing is known (with [FailOpen] a Partial User instead);
// [*ConflictError]; a [*Problem] with the code "mapping_failed".
func (s *Syncer) User(ctx context.Context, clerkID string) (*User, error) {
	return s.visitor(ctx, clerkID, freshness{})
}

// visitor is User where a token may know how fresh the record must be.
func (s *Syncer) visitor(ctx context.Context, clerkID string, claim freshness) (*User, error) {
	now := s.clock.Now()
	claim = claim.usable(now)
	var f found
	var err error
	if u, ok := s.cache.fresh(clerkID, now); ok && s.serves(u, now, claim) {
		f = found{user: u, source: SourceCache}
	} else {
		f, err = s.visit(ctx, clerkID, now, claim)
	}
	if err == nil && !f.user.Partial {
		s.refreshIfDue(ctx, f.user, now, claim)
		if refused(f.user) {
			f.user, err = nil, ErrUserInactive
		}
	}
	if s.cfg.Observe != nil {
		o := Observation{Op: OpVisit, Source: f.source, Outcome: f.outcome, Err: err}
		if validUserID(clerkID) {
			o.ClerkID = clerkID
		}
		s.observe(ctx, now, o)
	}
	return f.user, err
}

// visit finds the record where the cache has none to serve, or with FailOpen makes do
// with a Partial user.
func (s *Syncer) visit(ctx context.Context, id string, now time.Time, claim freshness) (found, error) {
	if !validUserID(id) {
		return found{}, fmt.Errorf("%w: not the form of a user id", ErrUserUnknown)
	}
	f, err := s.find(ctx, id, claim)
	if err == nil || !errors.Is(err, ErrUnavailable) {
		return f, err
	}
	// A record that we have is better than none, and one that refuses, refuses.
	if u, ok := s.cache.stale(id, now); ok {
		return found{user: u, source: SourceCache}, nil
	}
	if s.cfg.OnFailure == FailOpen && ctx.Err() == nil {
		s.cfg.Logger.WarnContext(ctx, "clerksync: letting a request through without its record", "clerk_id", id, "error", err)
		return found{user: &User{ClerkID: id, Partial: true}}, nil
	}
	return found{}, err
}

// refused reports whether the record bars its user.
func refused(u *User) bool { return !u.IsActive || u.Banned || !u.DeletedAt.IsZero() }

// serves reports whether a cached record may be served as it is.
func (s *Syncer) serves(u *User, now time.Time, claim freshness) bool {
	return !(s.banMayBeLifted(u, now) && !s.clerk.settled(u.ClerkID, now)) && !s.outdated(u, now, claim)
}

// outdated reports whether the visitor's token knows that the record is, and the
// record was not re-read for that yet: one re-read a user and claim, whatever
// comes of it.
func (s *Syncer) outdated(u *User, now time.Time, claim freshness) bool {
	return u.DeletedAt.IsZero() && claim.newerThan(u) && !s.clerk.answered(u, claim, now)
}

// banMayBeLifted reports whether a record refuses for a ban that Clerk has not
// confirmed for a minute: the event that lifted it may be lost, and the user
// stands at the door.
func (s *Syncer) banMayBeLifted(u *User, now time.Time) bool {
	return u.Banned && u.DeletedAt.IsZero() && confirmedBefore(u, now, time.Minute)
}

// confirmedBefore reports whether Clerk last confirmed the record longer than age
// ago. A confirmation from the future, by a clock that was ahead, is none.
func confirmedBefore(u *User, now time.Time, age time.Duration) bool {
	since := now.Sub(u.SyncedAt)
	return since > age || since < -time.Minute
}

// found is a record and where it came from.
type found struct {
	user    *User
	source  Source
	outcome Outcome // of the write, where there was one
	current bool    // not invalidated while it was loaded
	reread  bool    // Clerk was asked about a record that the Store had
}

// find reads the record for a visit that the cache cannot answer. There is one
// lookup per user at a time, on a goroutine and a deadline of its own; each
// visitor leaves at its own without disturbing it.
//
// A visitor whose token is newer than the record does not board a flight that
// began without knowing that.
func (s *Syncer) find(ctx context.Context, id string, claim freshness) (found, error) {
	if ctx.Err() != nil {
		return found{}, unavailable(context.Cause(ctx))
	}
	now := s.clock.Now()
	u, ok := s.cache.stale(id, now)
	informed := ok && s.outdated(u, now, claim)
	for {
		flight := s.flights.DoChan(s.flightKey(id, claim, informed), func() (any, error) { return s.lookupAndCache(context.WithoutCancel(ctx), id, claim) })
		select {
		case res := <-flight:
			f := res.Val.(found)
			if !f.current {
				// A webhook, Sync or Forget came in between: what was loaded
				// before it does not count any more.
				continue
			}
			if res.Err == nil && !informed && s.outdated(f.user, now, claim) {
				informed = true
				continue
			}
			return f, res.Err
		case <-ctx.Done():
			return found{}, unavailable(context.Cause(ctx))
		}
	}
}

// flightKey tells the flights of those who know how fresh the record must be from the
// others', and from those that began before an invalidation, which has the others'
// forgotten.
func (s *Syncer) flightKey(id string, claim freshness, informed bool) string {
	if informed {
		return fmt.Sprint(id, " ", claim.at.UnixMilli(), " ", s.cache.generation(id).Load())
	}
	return id
}

func (s *Syncer) lookupAndCache(ctx context.Context, id string, claim freshness) (f found, err error) {
	defer s.track()()
	defer func() {
		if p := recover(); p != nil { // of the Store's; on this goroutine it would end the process
			f, err = found{current: true}, unavailable(fmt.Errorf("panic: %v", p))
		}
	}()
	ctx, cancel := withTimeout(ctx, s.clock, callTimeout)
	defer cancel()
	// The flight before may have landed between this visitor's look into the cache
	// and its boarding.
	now := s.clock.Now()
	generation := s.cache.generation(id)
	gen := generation.Load()
	if u, ok := s.cache.fresh(id, now); ok && s.serves(u, now, claim) {
		return found{user: u, source: SourceCache, current: generation.Load() == gen}, nil
	}
	f, err = s.lookup(ctx, id, claim)
	if err != nil {
		f.current = generation.Load() == gen
		return f, err
	}
	f.user, f.current = s.cache.put(id, gen, f.user, now) // as old as the question, not as the answer
	s.loaded(f)
	if f.reread { // noted once the cache has the answer: until then what it has is out of date
		s.clerk.answer(f.user, claim, now, f.source == SourceClerk)
	}
	if s.banMayBeLifted(f.user, now) {
		s.clerk.settle(id)
	}
	return f, nil
}

// loaded sees to it that what a load has written is seen, even where it could not be
// cached: an invalidation of this user, or of one of the same stripe, came in between.
func (s *Syncer) loaded(f found) {
	if !f.current && f.source == SourceClerk {
		s.upserted(f.user, Result{Outcome: f.outcome, User: f.user}, nil)
	}
}

// lookup asks the Store, and Clerk where the Store has no record, or one that may
// bar its user wrongly or that the visitor's token knows to be out of date.
func (s *Syncer) lookup(ctx context.Context, id string, claim freshness) (found, error) {
	u, err := s.store.User(ctx, id)
	now := s.clock.Now()
	switch {
	case err == nil && (s.banMayBeLifted(u, now) && s.clerk.reserve(id, now) || s.outdated(u, now, claim)):
		f, err := s.fetch(ctx, id)
		if err != nil {
			f = found{user: u, source: SourceStore} // it stands until Clerk says otherwise
		}
		f.reread = true
		return f, nil
	case err == nil:
		return found{user: u, source: SourceStore}, nil
	case !errors.Is(err, ErrNotFound):
		return found{}, storeError(err)
	case s.clerk.unknown(id, now):
		return found{}, ErrUserUnknown
	}
	return s.fetch(ctx, id)
}

// fetch reads the user from Clerk into the Store and returns the record there. A
// failure of the app's own mapping is as good as an outage to a visitor.
func (s *Syncer) fetch(ctx context.Context, id string) (found, error) {
	var res Result
	u, err := s.readFromClerk(ctx, id)
	if err == nil {
		// Not s.upsert: this is the load, and invalidates nothing.
		res, err = s.store.Upsert(ctx, u)
		err = storeError(err)
	}
	if p := (*Problem)(nil); errors.As(err, &p) && p.Code == codeMappingFailed {
		err = &Problem{Status: http.StatusServiceUnavailable, Code: p.Code, RetryAfter: defaultRetryAfter, Err: p.Err}
	}
	if err != nil {
		return found{}, err
	}
	if res.User == nil {
		if res.User, err = s.store.User(ctx, id); err != nil {
			return found{}, unavailable(fmt.Errorf("store: reading back a record: %w", err))
		}
	}
	return found{user: res.User, source: SourceClerk, outcome: res.Outcome}, nil
}

// refreshIfDue starts a re-read from Clerk behind a visit where the record was
// confirmed too long ago. Where all refreshers are busy, a later visit does it.
func (s *Syncer) refreshIfDue(ctx context.Context, u *User, now time.Time, claim freshness) {
	after := s.cfg.RefreshAfter
	if after < 0 || !u.DeletedAt.IsZero() || !confirmedBefore(u, now, after) {
		return
	}
	if claim.confirms(u) && !confirmedBefore(u, now, max(after, refreshAfterConfirmed)) {
		return
	}
	select {
	case s.refreshers <- struct{}{}:
	default:
		return
	}
	if !s.clerk.reserve(u.ClerkID, now) || !s.begin() {
		<-s.refreshers
		return
	}
	go func() {
		defer s.background.Done()
		defer func() { <-s.refreshers }()
		s.refresh(context.WithoutCancel(ctx), u.ClerkID)
	}()
}

func (s *Syncer) refresh(ctx context.Context, id string) {
	defer func() {
		if p := recover(); p != nil { // of the app's Store or Observe; on this goroutine it would end the process
			s.cfg.Logger.ErrorContext(ctx, "clerksync: panic while refreshing a record", "clerk_id", id, "panic", p)
		}
	}()
	start := s.clock.Now()
	gen := s.cache.generation(id).Load()
	callCtx, cancel := withTimeout(ctx, s.clock, callTimeout)
	f, err := s.fetch(callCtx, id)
	cancel()
	if err == nil {
		f.user, f.current = s.cache.put(id, gen, f.user, start)
		s.loaded(f)
	} else {
		s.cfg.Logger.WarnContext(ctx, "clerksync: a record could not be refreshed", "clerk_id", id, "error", err)
	}
	s.observe(ctx, start, Observation{Op: OpRefresh, ClerkID: id, Outcome: f.outcome, Err: err})
}
