package clerksync

import (
	"context"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/clerksync/clerksync-go/clerksync/internal/sessiontoken"
)

const (
	// askAgainAfter is the least time between two re-reads of one user by visits, except
	// for a new token version.
	askAgainAfter = time.Minute
	// banConfirmedFor is how old Clerk's confirmation of a ban may be before the banned
	// user's visit causes a re-read: the event that lifted the ban may be lost.
	banConfirmedFor = time.Minute
	// refreshAfterTokenMatches replaces a shorter RefreshAfter while the token itself
	// says that the record is up to date.
	refreshAfterTokenMatches = 24 * time.Hour
)

// needsReread reports whether the token is newer than u, and no re-read has been attempted
// for that token version.
func (s *Syncer) needsReread(u *User, now time.Time, token sessiontoken.Version) bool {
	return u.DeletedAt.IsZero() && token.NewerThan(u.ClerkUpdatedAt) && !s.rereads.wasReread(u, token, now)
}

// banMayBeLifted reports whether the user is banned and Clerk last confirmed the record
// over a minute ago.
func banMayBeLifted(u *User, now time.Time) bool {
	return u.Banned && u.DeletedAt.IsZero() && !confirmedWithin(u, now, banConfirmedFor)
}

// confirmedWithin reports whether Clerk confirmed the record at most age ago. A time over
// a minute ahead, from a clock that was wrong, does not count.
func confirmedWithin(u *User, now time.Time, age time.Duration) bool {
	since := now.Sub(u.SyncedAt)
	return since <= age && since >= -time.Minute
}

// refreshIfDue starts a re-read in the background if Clerk last confirmed the record more
// than RefreshAfter ago. If too many refreshes are running, a later visit starts it.
func (s *Syncer) refreshIfDue(ctx context.Context, u *User, now time.Time, version sessiontoken.Version) {
	after := s.cfg.RefreshAfter
	if after < 0 || !u.DeletedAt.IsZero() || confirmedWithin(u, now, after) {
		return
	}
	if version.Matches(u.ClerkUpdatedAt, u.SyncedAt) && confirmedWithin(u, now, max(after, refreshAfterTokenMatches)) {
		return
	}
	wanted := func() bool { return s.pause.left(now) == 0 && s.rereads.reserve(u.ClerkID, now) }
	s.background.start(wanted, func() (context.Context, func(context.Context)) {
		detached, span := s.beginDetached(ctx, OpRefresh, u.ClerkID)
		return detached, func(ctx context.Context) { s.refresh(ctx, span, u.ClerkID) }
	})
}

func (s *Syncer) refresh(ctx context.Context, span spanEnd, id string) {
	start := s.clock.Now()
	l := load{id: id, gen: s.cache.generation(id).Load(), newer: true}
	s.writes.begin(id)
	defer s.writes.end(id)
	var f found
	err := s.background.run(ctx, func(ctx context.Context) (err error) {
		f, err = s.readAndUpsert(ctx, id)
		return err
	})
	if f.user != nil {
		f = s.cacheLoaded(l, f, start)
		s.tryCreateJob(ctx, f.user, f.outcome == Created)
	}
	if err != nil {
		s.cfg.Logger.WarnContext(ctx, "clerksync: a record could not be refreshed", "clerk_id", id, "error", err)
	}
	o := Observation{Op: OpRefresh, ClerkID: id, Outcome: f.outcome, Err: err}
	s.end(ctx, span, start, o)
	s.observe(ctx, start, o)
}

// rereadLog remembers, for up to CacheSize users, when Clerk was last asked about a user,
// and what for. It keeps visits from asking the same thing twice.
type rereadLog struct {
	entries *otter.Cache[string, reread]
}

// reread is what is remembered about one user.
type reread struct {
	at        time.Time    // when Clerk was last asked, or a visit reserved to ask
	failed    failed       // why the user could not be created
	confirmed confirmation // of a record that stays unconfirmed
	settled   bool         // a due re-read for a ban was tried: the cached record may be served

	token   time.Time // the latest token version that caused a re-read
	version int64     // the version of the record that this re-read returned
	retryAt time.Time // when the same token may cause another; zero: never
}

func newRereadLog(size int) rereadLog {
	return rereadLog{otter.Must(&otter.Options[string, reread]{MaximumSize: size})}
}

// reserve reports whether a visit may now re-read the user for a ban or a refresh. If so,
// no other visit may for askAgainAfter.
func (l rereadLog) reserve(id string, now time.Time) bool {
	if e, ok := l.entries.GetIfPresent(id); ok && now.Sub(e.at) < askAgainAfter {
		return false
	}
	reserved := false
	l.update(id, func(e reread, found bool) (reread, bool) {
		reserved = !found || now.Sub(e.at) >= askAgainAfter
		e.at, e.failed, e.settled = now, failed{}, false
		return e, reserved
	})
	return reserved
}

// recordAsked notes that Clerk was asked, and whether it did not know the user.
func (l rereadLog) recordAsked(id string, now time.Time, unknown bool) {
	l.update(id, func(e reread, _ bool) (reread, bool) {
		e.at, e.failed = now, failed{}
		if unknown {
			e.failed = failed{ErrUserUnknown, now, failureFor}
		}
		return e, true
	})
}

// recordSettled notes that the cache has the record after a re-read for a ban was due.
func (l rereadLog) recordSettled(u *User) {
	l.update(u.ClerkID, func(e reread, found bool) (reread, bool) {
		changed := found && !e.settled
		e.settled = true
		return e, changed
	})
}

// isSettled reports whether the cached record of a banned user may be served, because the
// re-read that was due has been tried and Clerk may not be asked again yet.
func (l rereadLog) isSettled(id string, now time.Time) bool {
	e, ok := l.entries.GetIfPresent(id)
	return ok && e.settled && now.Sub(e.at) < askAgainAfter
}

// recordReread notes that a re-read for this token version returned u, so that the same
// version does not cause another. If the re-read failed, it may after askAgainAfter.
func (l rereadLog) recordReread(u *User, token sessiontoken.Version, now time.Time, succeeded bool) {
	if token.At.IsZero() {
		return
	}
	l.update(u.ClerkID, func(e reread, _ bool) (reread, bool) {
		if token.At.Before(e.token) {
			return e, false
		}
		e.token, e.version, e.retryAt = token.At, version(u), time.Time{}
		if !succeeded {
			e.retryAt = now.Add(askAgainAfter)
		}
		return e, true
	})
}

// wasReread reports whether a re-read for this token version, or a newer one, returned u or
// an older record, and may not be tried again yet.
func (l rereadLog) wasReread(u *User, token sessiontoken.Version, now time.Time) bool {
	e, ok := l.entries.GetIfPresent(u.ClerkID)
	return ok && version(u) >= e.version && !token.At.After(e.token) && (e.retryAt.IsZero() || now.Before(e.retryAt))
}

// update changes the entry of a user atomically, if change returns true.
func (l rereadLog) update(id string, change func(e reread, found bool) (reread, bool)) {
	l.entries.Compute(id, func(e reread, found bool) (reread, otter.ComputeOp) {
		changed, write := change(e, found)
		if !write {
			return e, otter.CancelOp
		}
		return changed, otter.WriteOp
	})
}
