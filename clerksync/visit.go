package clerksync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
	"github.com/clerksync/clerksync-go/clerksync/internal/sessiontoken"
)

// The visit protocol
//
// A visit asks three places for the user's record, in this order, and stops at the first
// that has it: this process's cache, the Store, Clerk. What Clerk answers is written to
// the Store before the visit goes on. The exceptions:
//
//   - The cache answers for CacheTTL. It does not answer if the session token is newer
//     than the record, or if the user is banned and Clerk last confirmed the record over a
//     minute ago. Then Clerk is asked too (a re-read): once for a token version, or again
//     after a minute if that failed, and at most once a minute for a ban. If the re-read
//     fails for any reason, even because Clerk does not have the user, the Store's record
//     stands. A visit never deletes a record: with one wrong secret key it would delete
//     them all.
//   - A record that Clerk has never confirmed (the app made it) counts as none, unless the
//     app has suspended its user.
//   - If neither the Store nor Clerk has the user, the request is refused, and Clerk is
//     not asked again for ten seconds. Other lasting failures to create the record are
//     remembered too, and after a 429 Clerk is left alone for as long as it asked
//     (visit_create.go).
//   - A record that Clerk last confirmed more than RefreshAfter ago (a day, if the token
//     matches it) is served at once and refreshed in the background (visit_reread.go).
//   - With Config.Jobs.Await, a user whose OnCreate has not succeeded waits for it, and gets
//     503 "job_pending" if it does not in time (jobs_await.go).
//   - If the Store or Clerk fails, a record on standby answers: one that this process
//     loaded, or learned to be barred, less than CacheTTL plus one hour ago (standby.go).
//     Otherwise the answer is 503, or with FailOpen a Partial user.
//
// In a stampede, the visits of one user share one lookup in this process. It runs on its
// own goroutine with its own deadline; each visit leaves at its own deadline. A visit
// whose token is newer than the cached record joins only a lookup for the same token
// version. Between processes, the Store decides: all their Upserts end in one record.
//
// An event, a Sync, a Reconcile or a Forget invalidates: it increases the user's generation
// in the cache, and nothing that was read before is cached afterwards (visit_cache.go). A
// visit that waited for such a read looks again, once. The second lookup reads the record
// after the visit came, so its answer may be served. But if this process has learned
// meanwhile that the user is deleted or suspended, the visit looks once more. After such an
// answer, nothing earlier is served.
//
// A load also ends the user's other loads if it finds the user newly barred or no longer
// barred, or if it did not run in the user's one plain lookup. So the versions that visits
// get do not go back: a visit that comes after another has ended gets the same version or a
// later one. A lookup's own write does not invalidate. If the generation has not changed
// since the lookup began, its record is cached; otherwise its write invalidates like any
// other.

// User returns the record of a signed-in user: from this process's cache, else from the
// Store, else from Clerk, which creates the record. It is the request path without HTTP,
// for RPC servers and workers; [Syncer.Middleware] lists the answers. The result is a copy,
// which the caller may modify.
//
// ctx only limits the caller's own wait. The lookup, which may serve several callers, does
// not see its values, such as a transaction; it sees what [Config].Start has added to them.
//
// Errors: [ErrUserInactive] if the user is deleted, suspended or banned; [ErrUserUnknown]
// if Clerk does not have the user; [ErrUnavailable] if Clerk or the Store failed and
// nothing is known about the user (with [FailOpen] the result is a Partial User instead);
// [*ConflictError]; [ErrRejected]; a [*Problem] with the code "mapping_failed",
// "record_failed" or "job_pending". If ctx ends first and no record is on standby, the error
// matches [ErrUnavailable] and ctx's cause, with either [FailurePolicy].
func (s *Syncer) User(ctx context.Context, clerkID string) (*User, error) {
	u, err := s.visit(ctx, clerkID, visitToken{})
	return handedOut(u), err
}

// visitToken is what a visit's session token says. The zero visitToken says nothing.
type visitToken struct {
	version  sessiontoken.Version // of the user, when the token was made
	issuedAt int64                // in seconds since 1970, 0 if unknown
}

func newVisitToken(claims *clerk.SessionClaims, version sessiontoken.Version) visitToken {
	t := visitToken{version: version}
	if claims.IssuedAt != nil {
		t.issuedAt = *claims.IssuedAt
	}
	return t
}

// young reports whether the token was issued less than youngToken ago. The clock may be a
// little behind Clerk's.
func (t visitToken) young(now time.Time) bool {
	return t.issuedAt != 0 && now.Sub(time.Unix(t.issuedAt, 0)).Abs() < youngToken
}

// found is the answer to a visit, and where it came from.
type found struct {
	user    *User
	source  Source
	outcome Outcome // of the write, if there was one
	current bool    // not invalidated while it was loaded
	reread  bool    // Clerk was asked about a record that the Store had
	span    spanEnd // of a visit that the cache did not answer
}

// visit is User for a visitor with a session token. The record is shared: callers may not
// modify it.
func (s *Syncer) visit(ctx context.Context, id string, token visitToken) (*User, error) {
	now := s.clock.Now()
	token.version = token.version.Usable(now)
	f, err := s.find(ctx, id, now, token)
	if err == nil && !f.user.Partial {
		s.refreshIfDue(ctx, f.user, now, token.version)
		if err = refusedBy(f.user); err != nil {
			f.user = nil
		}
	}
	if err == nil && s.cfg.Observe == nil && f.span == nil {
		return f.user, nil
	}
	o := Observation{Op: OpVisit, ClerkID: id, Source: f.source, Outcome: f.outcome, Err: err}
	s.end(ctx, f.span, now, o)
	switch {
	case err == nil:
		s.observe(ctx, now, o)
	case errors.Is(err, errNotUserID):
		o.ClerkID = "" // it could be anything
		s.refused(ctx, now, refusal{Observation: o, check: "user_id"})
	default:
		s.refused(ctx, now, refusal{Observation: o})
	}
	return f.user, err
}

// refusedBy returns why a record keeps its user out, nil if it does not.
func refusedBy(u *User) error {
	if barred(u) {
		return inactive(u)
	}
	return recordErr(u)
}

// inactive is the refusal of a barred user. Its text says why, for the log.
func inactive(u *User) error {
	switch {
	case !u.DeletedAt.IsZero():
		return fmt.Errorf("%w: deleted", ErrUserInactive)
	case !u.IsActive:
		return fmt.Errorf("%w: suspended by the app (isActive: false)", ErrUserInactive)
	}
	return fmt.Errorf("%w: banned in Clerk", ErrUserInactive)
}

var errNotUserID = fmt.Errorf("%w: not the form of a user id", ErrUserUnknown)

// barred reports whether the record keeps its user out.
func barred(u *User) bool { return !u.IsActive || u.Banned || !u.DeletedAt.IsZero() }

// find returns the record from the cache, from a lookup, or from standby.
func (s *Syncer) find(ctx context.Context, id string, now time.Time, token visitToken) (found, error) {
	if u, ok := s.cache.fresh(id, now); ok && s.servable(u, now, token.version) {
		return found{user: u, source: SourceCache}, nil
	}
	if !clerkapi.ValidUserID(id) {
		return found{}, errNotUserID
	}
	detached, span := s.beginDetached(ctx, OpVisit, id)
	f, err := s.findOutside(ctx, detached, id, now, token)
	f.span = span
	return f, err
}

// findOutside is find for a user whose record the cache may not answer with.
func (s *Syncer) findOutside(ctx, detached context.Context, id string, now time.Time, token visitToken) (found, error) {
	f, err := s.lookup(ctx, detached, id, now, token)
	if err == nil || !errors.Is(err, ErrUnavailable) {
		return f, err
	}
	if u, ok := s.cache.standby(id, now); ok && !s.awaited(u) {
		return found{user: u, source: SourceCache}, nil
	}
	if s.cfg.OnFailure == FailOpen && ctx.Err() == nil {
		s.logLimited(ctx, slog.LevelWarn, "fail open", "clerksync: letting a request through without its record",
			slog.String("clerk_id", id), slog.Any("error", err))
		return found{user: &User{ClerkID: id, Partial: true}}, nil
	}
	return found{}, err
}

// servable reports whether a cached record may be served as it is.
func (s *Syncer) servable(u *User, now time.Time, version sessiontoken.Version) bool {
	if s.awaited(u) {
		return false
	}
	if banMayBeLifted(u, now) && !s.rereads.isSettled(u.ClerkID, now) {
		return false
	}
	return !s.needsReread(u, now, version)
}

// lookup waits for the lookup of this user that is under way, or begins one, which works with
// the detached context.
func (s *Syncer) lookup(ctx, detached context.Context, id string, now time.Time, token visitToken) (found, error) {
	if ctx.Err() != nil {
		return found{}, unavailable(context.Cause(ctx))
	}
	cached, ok := s.cache.standby(id, now)
	newer := ok && s.needsReread(cached, now, token.version)
	heard, checked := true, false
	s.audiences.join(id)
	defer func() { s.logUnheard(detached, id, s.audiences.leave(id, heard)) }()
	for first := true; ; first = false {
		gen := s.cache.generation(id).Load()
		l := load{id: id, gen: gen, token: token, newer: newer}
		result := s.lookups.DoChan(l.key(), func() (any, error) { return s.load(detached, l) })
		select {
		case res := <-result:
			f := res.Val.(found)
			switch {
			case !f.current && first:
				// A webhook, Sync or Forget came in between, and the lookup may have begun
				// before this visit: look again.
			case res.Err == nil && !newer && s.needsReread(f.user, now, token.version):
				newer = true // another visitor's lookup, which did not know what this token says
			case res.Err == nil && !f.current && !checked && s.cache.knowsWorse(id, f.user, now):
				checked = true // if the user is restored since, the Store says so
			case res.Err == nil && !f.current:
				s.cache.overtake(id, f.user)
				return f, nil
			default:
				return f, res.Err
			}
		case <-ctx.Done():
			heard = false
			return found{}, unavailable(context.Cause(ctx))
		}
	}
}

// load is one reading of the user's record.
type load struct {
	id    string
	gen   uint64 // the generation in which it began
	token visitToken
	newer bool // the token is newer than the record: this is not the user's plain lookup
}

// key is the singleflight key: the user's id. A visit whose token is newer than the record
// shares a lookup only with visits of the same token version and generation. The plain id
// needs no generation, because invalidate calls lookups.Forget.
func (l load) key() string {
	if l.newer {
		return fmt.Sprint(l.id, " ", l.token.version.At.UnixMilli(), " ", l.gen)
	}
	return l.id
}

// load reads the record, for all visits that wait for it. ctx is detached from them.
func (s *Syncer) load(ctx context.Context, l load) (found, error) {
	f := found{current: true}
	id, token := l.id, l.token
	s.writes.begin(id)
	defer s.writes.end(id)
	err := s.background.run(ctx, func(ctx context.Context) (err error) {
		now := s.clock.Now()
		// The lookup before may have ended after this visit looked into the cache.
		if u, ok := s.cache.fresh(id, now); ok && s.servable(u, now, token.version) {
			f = found{user: u, source: SourceCache, current: s.cache.generation(id).Load() == l.gen}
			return nil
		}
		f, err = s.loadFromStore(ctx, id, token)
		if err == nil {
			f, err = s.afterLookup(ctx, f)
		}
		if err != nil {
			f.current = s.cache.generation(id).Load() == l.gen
			return err
		}
		f = s.cacheLoaded(l, f, now) // now is from before the read: the record may have changed since
		// After caching: before, these notes would let the older cached record be served.
		if f.reread {
			s.rereads.recordReread(f.user, token.version, now, f.source == SourceClerk)
		}
		if banMayBeLifted(f.user, now) {
			s.rereads.recordSettled(f.user)
		}
		return nil
	})
	if err != nil {
		s.logUnheard(ctx, id, s.audiences.ended(id, err))
	}
	return f, err
}

// cacheLoaded offers the cache a record that was loaded. If something was invalidated in
// between, the record is not cached, and what the load has written is treated as any other
// write.
func (s *Syncer) cacheLoaded(l load, f found, now time.Time) found {
	loaded := f.user
	l.newer = l.newer || !s.writes.alone(l.id) // other loads of the user may have read earlier
	f.user, f.current = s.cache.put(l, loaded, now)
	later := s.writes.show(l.id, loaded) // the cache may drop the record before an earlier write ends
	if !f.current && f.source == SourceClerk {
		s.invalidateAfter(upserted{offered: loaded, res: Result{Outcome: f.outcome, User: loaded}, later: later}, l.gen)
	}
	return f
}

// loadFromStore reads the record from the Store. It goes on to Clerk if there is none that
// may be served, if the token is newer, or if Clerk may have lifted a ban.
func (s *Syncer) loadFromStore(ctx context.Context, id string, token visitToken) (found, error) {
	u, err := s.stored(ctx, id)
	now := s.clock.Now()
	switch {
	case errors.Is(err, ErrNotFound):
		return s.create(ctx, id, token)
	case err == nil && unconfirmed(u) && u.IsActive:
		return s.confirm(ctx, u, token)
	case err != nil:
		return found{}, storeError(err)
	case unconfirmed(u): // the app suspended the user
		return found{user: u, source: SourceStore}, nil
	}
	if !(s.banIsDue(u, now) && s.rereads.reserve(id, now)) && !s.needsReread(u, now, token.version) {
		return found{user: u, source: SourceStore}, nil
	}
	f, err := s.readAndUpsert(ctx, id)
	if err != nil && f.user == nil {
		f = found{user: u, source: SourceStore} // keep the record: a visit never deletes
	}
	f.reread = true
	return f, nil
}

// banIsDue reports whether Clerk should be asked if a ban is lifted: that of the record u, or
// one that this process knows and that could not be written to the record.
func (s *Syncer) banIsDue(u *User, now time.Time) bool {
	known, ok := s.cache.standby(u.ClerkID, now)
	return banMayBeLifted(u, now) || ok && banMayBeLifted(known, now) && laterState(known, u)
}

// stored reads the record from the Store.
func (s *Syncer) stored(ctx context.Context, id string) (*User, error) {
	u, err := s.store.User(ctx, id)
	if err == nil && u == nil {
		return nil, errors.New("neither a record nor an error")
	}
	if failed, ok := withFailure(u, err); ok {
		return failed, nil
	}
	return u, err
}

// readAndUpsert reads the user from Clerk, writes it to the Store, and returns the record
// there. If Map or RoleOf fails, the error is a 503 that does not match ErrUnavailable, so
// neither standby nor FailOpen applies.
func (s *Syncer) readAndUpsert(ctx context.Context, id string) (found, error) {
	if err := s.paused(); err != nil {
		return found{}, err
	}
	m := s.readFromClerk(ctx, id)
	gen := s.cache.generation(id).Load()
	res, err := s.write(ctx, m, s.upsertQuietly)
	if p := (*Problem)(nil); errors.As(err, &p) && p.Code == CodeMappingFailed {
		err = &Problem{Status: http.StatusServiceUnavailable, Code: p.Code, RetryAfter: failureFor, Err: p.Err}
	}
	if err != nil && res.Outcome == 0 {
		s.liftUnwritten(m.user, gen, err)
		return s.bannedInClerk(ctx, m, err)
	}
	if res.User == nil {
		u, readErr := s.stored(ctx, id)
		if readErr != nil {
			s.invalidateUpserted(m.user, gen, res, nil) // nobody else will show what was written
			return found{}, unavailable(fmt.Errorf("store: reading back a record: %w", readErr))
		}
		res.User = u
	}
	switch {
	case err == nil && unconfirmed(res.User):
		res.User = s.rereads.recordConfirmed(res.User, m.user)
	case err == nil:
	case unconfirmed(res.User) && !barred(res.User):
		return found{}, err // nothing that may be served
	}
	return found{user: res.User, source: SourceClerk, outcome: res.Outcome}, err
}

// upsertQuietly is upsert for a load, which does not invalidate itself: see cacheLoaded.
func (s *Syncer) upsertQuietly(ctx context.Context, u *User) (Result, error) {
	res, err := s.store.Upsert(ctx, u)
	return res, storeError(err)
}

// liftUnwritten ends a ban that this process knows, if Clerk has lifted it and that could not be
// written.
func (s *Syncer) liftUnwritten(u *User, gen uint64, err error) {
	if u == nil || u.Banned {
		return
	}
	if known, ok := s.cache.standby(u.ClerkID, s.clock.Now()); ok && known.Banned {
		s.invalidateUpserted(u, gen, Result{}, err)
	}
}

// bannedInClerk is the answer if nothing could be written. A user whom Clerk says is banned is
// refused all the same: the ban stands beside the error.
func (s *Syncer) bannedInClerk(ctx context.Context, m mapped, err error) (found, error) {
	if m.user == nil || !m.user.Banned {
		return found{}, err
	}
	s.logLimited(ctx, slog.LevelWarn, "unwritten ban", "clerksync: a ban could not be written",
		slog.String("clerk_id", m.id), slog.Any("error", err))
	return found{user: knownBan(m.user), source: SourceClerk}, err
}

// readFromClerk reads one user from Clerk and maps it to a record.
func (s *Syncer) readFromClerk(ctx context.Context, id string) mapped {
	raw, asOf, err := s.api.User(ctx, id)
	unknown := errors.Is(err, ErrUserUnknown)
	now := s.clock.Now()
	s.rereads.recordAsked(id, now, unknown)
	s.pause.record(err, now)
	if unknown {
		return mapped{err: err}
	}
	if err != nil {
		return mapped{err: unavailable(err)}
	}
	m := s.mapUser(raw, asOf)
	if errors.Is(m.err, ErrInvalidEvent) { // here the input is Clerk's answer, not an event
		m.err = unavailable(fmt.Errorf("answer of Clerk: %w", m.err))
	}
	return m
}
