package clerksync

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

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
//   - If neither the Store nor Clerk has the user, the request is refused, and Clerk is
//     not asked again for ten seconds.
//   - A record that Clerk last confirmed more than RefreshAfter ago (a day, if the token
//     matches it) is served at once and refreshed in the background (visit_reread.go).
//   - If the Store or Clerk fails, a record on standby answers: one that this process
//     loaded, or learned to be barred, less than CacheTTL plus one hour ago (standby.go).
//     Otherwise the answer is 503, or with FailOpen a Partial user.
//
// In a stampede, the visits of one user share one lookup in this process. It runs on its
// own goroutine with its own deadline; each visit leaves at its own deadline. A visit
// whose token is newer than the cached record joins only a lookup for the same token
// version. Between processes, the Store decides: all their Upserts end in one record.
//
// An event, a Sync, a Reconcile or a Forget invalidates: it increases the user's
// generation in the cache, and from then on nothing is served or cached that was read
// before (visit_cache.go). A visit that waited for such a read looks again. A load that
// finds the user newly barred, or no longer barred, ends the other loads too. A lookup does
// not invalidate with its own write. If the generation has not changed since the lookup
// began, its record is cached; otherwise its write invalidates like any other.

// User returns the record of a signed-in user: from this process's cache, else from the
// Store, else from Clerk, which creates the record. It is the request path without HTTP,
// for RPC servers and workers; [Syncer.Middleware] lists the answers. The record is
// shared: callers may not modify it, only a [User.Clone].
//
// Errors: [ErrUserInactive] if the user is deleted, suspended or banned; [ErrUserUnknown]
// if Clerk does not have the user; [ErrUnavailable] if Clerk or the Store failed and
// nothing is known about the user (with [FailOpen] the result is a Partial User instead);
// [*ConflictError]; [ErrRejected]; a [*Problem] with the code "mapping_failed". If ctx ends
// first and no record is on standby, the error matches [ErrUnavailable] and ctx's cause,
// with either [FailurePolicy].
func (s *Syncer) User(ctx context.Context, clerkID string) (*User, error) {
	return s.visit(ctx, clerkID, sessiontoken.Version{})
}

// found is the answer to a visit, and where it came from.
type found struct {
	user    *User
	source  Source
	outcome Outcome // of the write, if there was one
	current bool    // not invalidated while it was loaded
	reread  bool    // Clerk was asked about a record that the Store had
}

// visit is User for a visitor whose session token may carry the user's version.
func (s *Syncer) visit(ctx context.Context, id string, token sessiontoken.Version) (*User, error) {
	now := s.clock.Now()
	token = token.Usable(now)
	f, err := s.find(ctx, id, now, token)
	if err == nil && !f.user.Partial {
		s.refreshIfDue(ctx, f.user, now, token)
		if barred(f.user) {
			f.user, err = nil, ErrUserInactive
		}
	}
	if s.cfg.Observe != nil {
		o := Observation{Op: OpVisit, ClerkID: id, Source: f.source, Outcome: f.outcome, Err: err}
		if errors.Is(err, errNotUserID) {
			o.ClerkID = "" // it could be anything
		}
		s.observe(ctx, now, o)
	}
	return f.user, err
}

var errNotUserID = fmt.Errorf("%w: not the form of a user id", ErrUserUnknown)

// barred reports whether the record keeps its user out.
func barred(u *User) bool { return !u.IsActive || u.Banned || !u.DeletedAt.IsZero() }

// find returns the record from the cache, from a lookup, or from standby.
func (s *Syncer) find(ctx context.Context, id string, now time.Time, token sessiontoken.Version) (found, error) {
	if u, ok := s.cache.fresh(id, now); ok && s.servable(u, now, token) {
		return found{user: u, source: SourceCache}, nil
	}
	if !clerkapi.ValidUserID(id) {
		return found{}, errNotUserID
	}
	f, err := s.lookup(ctx, id, now, token)
	if err == nil || !errors.Is(err, ErrUnavailable) {
		return f, err
	}
	if u, ok := s.cache.standby(id, now); ok {
		return found{user: u, source: SourceCache}, nil
	}
	if s.cfg.OnFailure == FailOpen && ctx.Err() == nil {
		s.cfg.Logger.WarnContext(ctx, "clerksync: letting a request through without its record", "clerk_id", id, "error", err)
		return found{user: &User{ClerkID: id, Partial: true}}, nil
	}
	return found{}, err
}

// servable reports whether a cached record may be served as it is.
func (s *Syncer) servable(u *User, now time.Time, token sessiontoken.Version) bool {
	if banMayBeLifted(u, now) && !s.rereads.isSettled(u.ClerkID, now) {
		return false
	}
	return !s.needsReread(u, now, token)
}

// lookup waits for the lookup of this user that is under way, or begins one.
func (s *Syncer) lookup(ctx context.Context, id string, now time.Time, token sessiontoken.Version) (found, error) {
	if ctx.Err() != nil {
		return found{}, unavailable(context.Cause(ctx))
	}
	cached, ok := s.cache.standby(id, now)
	newer := ok && s.needsReread(cached, now, token)
	for {
		gen := s.cache.generation(id).Load()
		result := s.lookups.DoChan(lookupKey(id, gen, token, newer), func() (any, error) { return s.load(ctx, id, gen, token) })
		select {
		case res := <-result:
			f := res.Val.(found)
			switch {
			case !f.current:
				// A webhook, Sync or Forget came in between: look again.
			case res.Err == nil && !newer && s.needsReread(f.user, now, token):
				newer = true // another visitor's lookup, which did not know what this token says
			default:
				return f, res.Err
			}
		case <-ctx.Done():
			return found{}, unavailable(context.Cause(ctx))
		}
	}
}

// lookupKey is the singleflight key: the user's id. A visit whose token is newer than the
// record shares a lookup only with visits of the same token version and generation. The
// plain id needs no generation, because invalidate calls lookups.Forget.
func lookupKey(id string, gen uint64, token sessiontoken.Version, newer bool) string {
	if newer {
		return fmt.Sprint(id, " ", token.At.UnixMilli(), " ", gen)
	}
	return id
}

// load reads the record, for all visits that wait for it, in generation gen of the cache.
func (s *Syncer) load(ctx context.Context, id string, gen uint64, token sessiontoken.Version) (found, error) {
	f := found{current: true}
	err := s.background.run(ctx, func(ctx context.Context) (err error) {
		now := s.clock.Now()
		// The lookup before may have ended after this visit looked into the cache.
		if u, ok := s.cache.fresh(id, now); ok && s.servable(u, now, token) {
			f = found{user: u, source: SourceCache, current: s.cache.generation(id).Load() == gen}
			return nil
		}
		f, err = s.loadFromStore(ctx, id, token)
		if err != nil {
			f.current = s.cache.generation(id).Load() == gen
			return err
		}
		f = s.cacheLoaded(id, gen, f, now) // now is from before the read: the record may have changed since
		// After caching: before, these notes would let the older cached record be served.
		if f.reread {
			s.rereads.recordReread(f.user, token, now, f.source == SourceClerk)
		}
		if banMayBeLifted(f.user, now) {
			s.rereads.recordSettled(f.user)
		}
		return nil
	})
	return f, err
}

// cacheLoaded offers the cache a record that was loaded since generation gen. If something
// was invalidated in between, the record is not cached, and what the load has written is
// treated as any other write.
func (s *Syncer) cacheLoaded(id string, gen uint64, f found, now time.Time) found {
	f.user, f.current = s.cache.put(id, gen, f.user, now)
	if !f.current && f.source == SourceClerk {
		s.invalidateUpserted(f.user, gen, Result{Outcome: f.outcome, User: f.user}, nil)
	}
	return f
}

// loadFromStore reads the record from the Store. It goes on to Clerk if there is none, if
// the token is newer, or if Clerk may have lifted a ban.
func (s *Syncer) loadFromStore(ctx context.Context, id string, token sessiontoken.Version) (found, error) {
	u, err := s.store.User(ctx, id)
	now := s.clock.Now()
	switch {
	case errors.Is(err, ErrNotFound) && s.rereads.isUnknown(id, now):
		return found{}, ErrUserUnknown
	case errors.Is(err, ErrNotFound):
		return s.readAndUpsert(ctx, id)
	case err != nil:
		return found{}, storeError(err)
	}
	if !(banMayBeLifted(u, now) && s.rereads.reserve(id, now)) && !s.needsReread(u, now, token) {
		return found{user: u, source: SourceStore}, nil
	}
	f, err := s.readAndUpsert(ctx, id)
	if err != nil {
		f = found{user: u, source: SourceStore} // keep the record: a visit never deletes
	}
	f.reread = true
	return f, nil
}

// readAndUpsert reads the user from Clerk, writes it to the Store, and returns the record
// there. If Map or RoleOf fails, the error is a 503 that does not match ErrUnavailable, so
// neither standby nor FailOpen applies.
func (s *Syncer) readAndUpsert(ctx context.Context, id string) (found, error) {
	var res Result
	u, err := s.readFromClerk(ctx, id)
	if err == nil {
		// Not s.upsert: the load does not invalidate itself, see cacheLoaded.
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

// readFromClerk reads one user from Clerk and maps it to a record.
func (s *Syncer) readFromClerk(ctx context.Context, id string) (*User, error) {
	raw, asOf, err := s.api.User(ctx, id)
	unknown := errors.Is(err, ErrUserUnknown)
	s.rereads.recordAsked(id, s.clock.Now(), unknown)
	if unknown {
		return nil, err
	}
	if err != nil {
		return nil, unavailable(err)
	}
	u, err := s.userFromClerk(raw, asOf)
	if errors.Is(err, ErrInvalidEvent) { // here the input is Clerk's answer, not an event
		err = unavailable(fmt.Errorf("answer of Clerk: %w", err))
	}
	return u, err
}
