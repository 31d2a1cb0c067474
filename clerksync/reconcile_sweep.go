package clerksync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
	"github.com/clerksync/clerksync-go/clerksync/internal/idset"
	"github.com/clerksync/clerksync-go/clerksync/internal/retry"
)

// maxUnlisted bounds the memory for records that Clerk's list does not have. After so many,
// Clerk is asked for them, and the records are read again from the beginning.
const maxUnlisted = 100_000

// sweep looks for ghosts: records of users that Clerk does not have.
type sweep struct {
	run      *reconcileRun
	youngest time.Time // records that are younger are left to another run; see Stamp.young

	records  int        // the most that one pass has yielded
	handled  *idset.Set // ids that Clerk's list does not have, in any pass so far
	unlisted []string   // those of them that Clerk is to be asked for
	absent   []string   // not found by their id either
}

// ghost is a user that Clerk does not have, as of a time.
type ghost struct {
	id   string
	asOf time.Time
}

// sweepGhosts marks deleted the records of those users whom Clerk's list did not contain and
// whom Clerk does not have when asked for each. No record is marked deleted before all
// ghosts are known and counted.
func (r *reconcileRun) sweepGhosts(ctx context.Context) error {
	s := &sweep{run: r, youngest: r.syncer.clock.Now().Add(-max(0, r.opts.Holdback)), handled: idset.New(0)}
	r.mu.Lock()
	r.progress.Phase, r.progress.Done, r.progress.Total = PhaseGhosts, 0, r.pager.Passed()
	r.mu.Unlock()
	if err := s.walk(ctx); err != nil {
		return err
	}
	ghosts, err := s.verifyAbsent(ctx)
	if err != nil || r.opts.DryRun {
		return err
	}
	return s.deactivate(ctx, ghosts)
}

// walk looks at all records that are not deleted. Clerk is asked only between two passes
// over the Store, so that none of them has to wait for Clerk.
func (s *sweep) walk(ctx context.Context) error {
	for done := false; !done; {
		var err error
		if done, err = s.pass(ctx); err != nil {
			return err
		}
		if err := s.askForUnlisted(ctx); err != nil {
			return err
		}
	}
	return nil
}

// pass reads the Store's records until it has seen all, or enough to ask Clerk for. After a
// failure of the Store it begins again. A failure later than every one before restarts the
// time for retries: the Store may have closed a long iteration.
func (s *sweep) pass(ctx context.Context) (done bool, err error) {
	for furthest := -1; ; {
		further := false
		err = retry.Do(ctx, s.run.syncer.clock, func(error) bool { return further }, func() (err error) {
			var n int
			n, done, err = s.passOnce(ctx)
			further, furthest = n > furthest && furthest >= 0, max(n, furthest)
			return err
		})
		if err == nil || !further || ctx.Err() != nil {
			return done, err
		}
	}
}

// passOnce is one attempt of pass. It returns how many records the Store yielded.
func (s *sweep) passOnce(ctx context.Context) (n int, done bool, err error) {
	for stamp, err := range s.run.store.Undeleted(ctx) {
		if err != nil {
			return n, false, storeError(err)
		}
		n++
		s.look(stamp)
		s.records = max(s.records, n)
		if n%clerkapi.MaxPageSize == 0 {
			s.tellRecords()
		}
		if len(s.unlisted) == s.run.opts.maxUnlisted {
			return n, false, nil
		}
	}
	return n, true, nil
}

// look decides what to do about a record. The Store may yield it more than once.
func (s *sweep) look(stamp Stamp) {
	id := stamp.ClerkID
	if s.run.pager.Seen(id) || !s.handled.Add(id) {
		return
	}
	switch {
	case !clerkapi.ValidUserID(id):
		s.run.count(&s.run.report.Unknown, id)
	case stamp.young(s.youngest, s.run.syncer.clock.Now()):
		s.run.mu.Lock()
		s.run.report.HeldBack++
		s.run.mu.Unlock()
	default:
		s.unlisted = append(s.unlisted, id)
	}
}

// young reports whether a record was created, adopted or confirmed after the given time: Clerk's
// list may be older than that. A confirmation in the future is ignored, as by [Decide].
func (s *Stamp) young(after, now time.Time) bool {
	confirmed := s.SyncedAt.After(after) && !s.SyncedAt.After(now)
	return confirmed || s.CreatedAt.After(after) || s.AdoptedAt.After(after)
}

func (s *sweep) tellRecords() {
	s.run.mu.Lock()
	defer s.run.mu.Unlock()
	s.run.progress.Done = s.records
	s.run.progress.Total = max(s.run.progress.Total, s.records)
	s.run.reportProgress()
}

// askForUnlisted asks Clerk for the users that its list did not contain. Those that Clerk
// has are compared: a resumed run has not seen the users that the run before it passed.
func (s *sweep) askForUnlisted(ctx context.Context) error {
	slices.Sort(s.unlisted)
	for ids := range slices.Chunk(s.unlisted, clerkapi.MaxUserIDs) {
		users, asOf, err := s.run.clerk.UsersByID(ctx, ids)
		if err != nil {
			return err
		}
		s.absent = append(s.absent, absent(ids, users)...)
		if err := s.run.compare(ctx, clerkapi.Page{Users: users, AsOf: asOf}); err != nil {
			return err
		}
		s.tellRecords()
	}
	s.unlisted = nil
	s.tellRecords()
	return nil
}

// absent returns those of ids that are not among users.
func absent(ids []string, users []clerkapi.ListedUser) []string {
	known := make(map[string]bool, len(users))
	for _, u := range users {
		known[u.ID] = true
	}
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return known[id] })
}

// verifyAbsent asks Clerk for each absent user alone, and fails if too many are gone.
func (s *sweep) verifyAbsent(ctx context.Context) (ghosts []ghost, err error) {
	limit := s.run.opts.MaxDeactivations
	if limit == 0 {
		limit = max(10, s.records/50)
	}
	for i, id := range s.absent {
		u, asOf, err := s.run.clerk.User(ctx, id)
		switch {
		case errors.Is(err, ErrUserUnknown):
			ghosts = append(ghosts, ghost{id, asOf})
			s.run.count(&s.run.report.Ghosts, id)
		case err != nil:
			return nil, err
		default:
			if err := s.run.compare(ctx, clerkapi.Page{Users: []clerkapi.ListedUser{u}, AsOf: asOf}); err != nil {
				return nil, err
			}
		}
		if limit >= 0 && len(ghosts) > limit {
			more := ""
			if i+1 < len(s.absent) {
				more = " or more"
			}
			return nil, fmt.Errorf("%w: %d%s of %d records, the limit is %d; if they are rightly gone, raise MaxDeactivations",
				ErrTooManyGhosts, len(ghosts), more, s.records, limit)
		}
	}
	return ghosts, nil
}

// deactivate marks the ghosts' records deleted.
func (s *sweep) deactivate(ctx context.Context, ghosts []ghost) error {
	writers, writing := errgroup.WithContext(ctx)
	writers.SetLimit(s.run.opts.Writers)
	for _, g := range ghosts {
		if writing.Err() != nil {
			break
		}
		writers.Go(func() (err error) {
			defer recovered(&err)
			return s.run.deactivate(writing, g)
		})
	}
	return cmp.Or(writers.Wait(), context.Cause(ctx))
}

// deactivate marks a ghost's record deleted.
func (r *reconcileRun) deactivate(ctx context.Context, g ghost) error {
	err := r.retryWrite(ctx, func() error {
		return r.inTime(ctx, func(ctx context.Context) error {
			_, err := r.syncer.deactivate(ctx, g.id, g.asOf)
			return err
		})
	})
	var rejected *rejectedError
	switch {
	case errors.As(err, &rejected):
		r.warn(ctx, g.id, err)
		r.count(&r.report.Failed, g.id)
		return r.checkRejected(0, 1, err)
	case err != nil:
		return err
	}
	r.count(&r.report.Deactivated, g.id)
	return r.checkRejected(1, 0, nil)
}

func (r *reconcileRun) count(t *Tally, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.add(id)
}
