package clerksync

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
)

// A user without a record that may be served
//
// A visit reads such a user from Clerk before the handler runs. The user has no record, or one that
// the app made and Clerk has never confirmed (unconfirmed). Until Clerk confirms it, that record can
// only keep its user out, by isActive: false.
//
// A failure that trying again would not change is remembered for a moment (lasts), because
// otherwise each request would ask Clerk again. An event for the user, a Reconcile or a Forget ends
// that earlier. If Clerk has answered and the record still stays unconfirmed, the answer is
// remembered too (confirmation). After a 429, the visits and refreshes of this process do not ask
// Clerk for as long as it asked: the limit is for the instance, not for a user. Events and Syncs
// still go through.

const (
	// failureFor is how long requests of a user who could not be created, or whom Clerk does
	// not have, get the same answer without asking Clerk again.
	failureFor = 10 * time.Second
	// youngUnknownFor replaces failureFor if Clerk does not have the user, and the token is
	// younger than youngToken: Clerk's API can lag behind a sign-up.
	youngUnknownFor = time.Second
	youngToken      = 10 * time.Second
	// maxPause bounds the Retry-After of a 429, and pauseWithoutAdvice replaces a missing one.
	maxPause           = time.Minute
	pauseWithoutAdvice = time.Second
)

// unconfirmed reports whether Clerk has never confirmed the record.
func unconfirmed(u *User) bool { return u.SyncedAt.IsZero() && u.DeletedAt.IsZero() }

// confirmation is what Clerk said of a user whose record stays unconfirmed. The zero confirmation
// is none.
type confirmation struct {
	at     time.Time
	banned bool
}

// of returns the record as it may be served and cached.
func (c confirmation) of(u *User) *User {
	confirmed := u.Clone()
	confirmed.SyncedAt, confirmed.Banned = c.at, u.Banned || c.banned
	return confirmed
}

// recordConfirmed notes that an Upsert of offered succeeded, and yet the record u is unconfirmed:
// a field was omitted, or the record has a version of its own. It returns the record to serve.
func (l rereadLog) recordConfirmed(u, offered *User) *User {
	c := confirmation{offered.SyncedAt, offered.Banned}
	l.update(u.ClerkID, func(e reread, _ bool) (reread, bool) {
		e.confirmed = c
		return e, true
	})
	return c.of(u)
}

// confirmation returns what Clerk said of the user less than askAgainAfter ago.
func (l rereadLog) confirmation(id string, now time.Time) (confirmation, bool) {
	e, ok := l.entries.GetIfPresent(id)
	since := now.Sub(e.confirmed.at)
	return e.confirmed, ok && 0 <= since && since < askAgainAfter
}

// confirm has Clerk confirm a record that is unconfirmed in the Store.
func (s *Syncer) confirm(ctx context.Context, u *User, token visitToken) (found, error) {
	now := s.clock.Now()
	if c, ok := s.rereads.confirmation(u.ClerkID, now); ok && !s.needsReread(u, now, token.version) {
		return found{user: c.of(u), source: SourceStore}, nil
	}
	f, err := s.create(ctx, u.ClerkID, token)
	f.reread = f.user != nil
	return f, err
}

// create reads from Clerk a user who has no record that may be served.
func (s *Syncer) create(ctx context.Context, id string, token visitToken) (found, error) {
	now := s.clock.Now()
	if err := s.rereads.failure(id, now, token.young(now)); err != nil {
		return found{}, err
	}
	f, err := s.readAndUpsert(ctx, id)
	if err == nil {
		return f, nil
	}
	length := lasts(err, token.young(now))
	if f.user != nil {
		// The record was made meanwhile and could be written in part, or Clerk says that the
		// user is banned.
		err = nil
	}
	if length > 0 && (f.outcome == 0 || unconfirmed(f.user)) {
		remembered := err
		if f.user != nil {
			remembered = inactive(f.user)
		}
		s.rereads.recordFailure(id, remembered, s.clock.Now(), length)
	}
	return f, err
}

// lasts returns how long it is remembered that a user could not be created; 0 if trying again
// at once may help. That does not help if Clerk does not have the user or gives an unusable
// answer, RoleOf or Map failed, or the Store refuses the record.
func lasts(err error, young bool) time.Duration {
	var p *Problem
	switch {
	case errors.Is(err, ErrUserUnknown) && young:
		return youngUnknownFor
	case errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrInvalidEvent):
		return 0
	case errors.As(err, &p) && p != nil && p.RetryAfter > 0:
		return p.RetryAfter // the client was told to come back then
	default:
		return failureFor
	}
}

// retryAfter returns err with this advice, if it gives any.
func retryAfter(err error, after time.Duration) error {
	var p *Problem
	if !errors.As(err, &p) || p == nil || p.RetryAfter == 0 {
		return err
	}
	c := *p
	c.RetryAfter = after
	return &c
}

// failed is a failure that is remembered about one user.
type failed struct {
	err    error
	at     time.Time
	length time.Duration // how long it is remembered
}

// left returns how long the failure still stands, for a visitor with a young token or not.
func (f failed) left(now time.Time, young bool) time.Duration {
	length := f.length
	if young && errors.Is(f.err, ErrUserUnknown) {
		length = min(length, youngUnknownFor)
	}
	if since := now.Sub(f.at); since >= 0 {
		return length - since
	}
	return 0 // from a clock that was wrong
}

// failure returns the remembered failure of a user, with the time that is left of it as
// advice; nil if there is none.
func (l rereadLog) failure(id string, now time.Time, young bool) error {
	e, ok := l.entries.GetIfPresent(id)
	if !ok || e.failed.err == nil {
		return nil
	}
	left := e.failed.left(now, young)
	if left <= 0 {
		return nil
	}
	return retryAfter(e.failed.err, left)
}

// recordFailure notes why a user could not be created.
func (l rereadLog) recordFailure(id string, err error, now time.Time, length time.Duration) {
	l.update(id, func(e reread, _ bool) (reread, bool) {
		e.failed = failed{err, now, length}
		return e, true
	})
}

// recordKnown takes a failure back: an event or a Reconcile has shown that Clerk has the user,
// or the app has changed the record.
func (l rereadLog) recordKnown(id string) {
	l.update(id, func(e reread, found bool) (reread, bool) {
		e.failed, e.confirmed = failed{}, confirmation{}
		return e, found
	})
}

// pause is until when visits and refreshes do not ask Clerk. The zero pause is over.
type pause struct {
	until atomic.Int64 // in nanoseconds since 1970
}

// left returns how long the pause still lasts, at most maxPause.
func (p *pause) left(now time.Time) time.Duration {
	left := time.Duration(p.until.Load() - now.UnixNano())
	if left < 0 || left > maxPause { // more comes from a clock that was wrong
		return 0
	}
	return left
}

// record notes a failed call to Clerk.
func (p *pause) record(err error, now time.Time) {
	length := pauseAfter(err)
	if length == 0 {
		return
	}
	until := now.Add(length).UnixNano()
	for { // an answer that was on its way does not shorten the pause
		old := p.until.Load()
		if p.left(now) >= length || p.until.CompareAndSwap(old, until) {
			return
		}
	}
}

// pauseAfter returns how long Clerk is left alone after this error.
func pauseAfter(err error) time.Duration {
	var answer *clerkapi.Error
	if !errors.As(err, &answer) || !answer.RateLimited() {
		return 0
	}
	if answer.RetryAfter() == 0 {
		return pauseWithoutAdvice
	}
	return min(answer.RetryAfter(), maxPause)
}

// paused returns the error of a visit or refresh that would ask Clerk during a pause; nil if
// there is none.
func (s *Syncer) paused() error {
	left := s.pause.left(s.clock.Now())
	if left == 0 {
		return nil
	}
	return &Problem{
		Status: http.StatusServiceUnavailable, Code: CodeUnavailable, RetryAfter: left,
		Err: fmt.Errorf("%w: Clerk's rate limit is reached, and it asked for a pause", ErrUnavailable),
	}
}
