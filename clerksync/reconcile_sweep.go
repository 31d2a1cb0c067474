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

// sweep looks for ghosts: records of users that Clerk does not have.
type sweep struct {
	run      *reconcileRun
	youngest time.Time // records made later are left to another run

	last    string   // the id of the record looked at last
	records int      // looked at
	ask     []string // not seen in Clerk's list
	absent  []string // not found by their id either
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
	s := &sweep{run: r, youngest: r.syncer.clock.Now().Add(-max(0, r.opts.Holdback))}
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

// walk looks at all records that are not deleted. A failure of the Store after new records
// restarts the time for retries.
func (s *sweep) walk(ctx context.Context) error {
	for done := false; !done; {
		var fatal error // from Clerk, or from comparing
		isFatal := func(error) bool { return fatal != nil }
		err := retry.Do(ctx, s.run.syncer.clock, isFatal, func() (err error) {
			done, fatal, err = s.walkOnce(ctx)
			return cmp.Or(fatal, err)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// walkOnce continues after the last record, to the end or to a failure of the Store. It
// returns storeErr only if the Store failed before it yielded a new record. Any other error
// is returned as fatal and is not retried.
func (s *sweep) walkOnce(ctx context.Context) (done bool, fatal, storeErr error) {
	from := s.last
	for stamp, err := range s.run.store.Undeleted(ctx) {
		if err != nil && s.last > from {
			return false, nil, nil
		}
		if err != nil {
			return false, nil, storeError(err)
		}
		if stamp.ClerkID <= s.last {
			continue // an earlier attempt has passed it
		}
		s.last = stamp.ClerkID
		if err := s.look(ctx, stamp); err != nil {
			return false, err, nil
		}
	}
	return true, s.askByID(ctx), nil
}

func (s *sweep) look(ctx context.Context, stamp Stamp) error {
	s.records++
	switch {
	case !clerkapi.ValidUserID(stamp.ClerkID):
		s.count(&s.run.report.Unknown, stamp.ClerkID)
	case s.run.pager.Seen(stamp.ClerkID) && !s.run.wasRestored(stamp.ClerkID):
	case stamp.CreatedAt.After(s.youngest):
		s.run.mu.Lock()
		s.run.report.HeldBack++
		s.run.mu.Unlock()
	default:
		if s.ask = append(s.ask, stamp.ClerkID); len(s.ask) == clerkapi.MaxUserIDs {
			return s.askByID(ctx)
		}
	}
	if s.records%clerkapi.MaxPageSize == 0 {
		s.tellRecords()
	}
	return nil
}

// recheckInSweep makes the sweep ask Clerk for a user whose record was restored. The user
// may have been deleted after Clerk listed it; that event found the record deleted, and
// will not come again.
func (r *reconcileRun) recheckInSweep(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.restored == nil {
		r.restored = idset.New(0)
	}
	r.restored.Add(id)
}

func (r *reconcileRun) wasRestored(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.restored != nil && r.restored.Has(id)
}

func (s *sweep) tellRecords() {
	s.run.mu.Lock()
	defer s.run.mu.Unlock()
	s.run.progress.Done = s.records
	s.run.progress.Total = max(s.run.progress.Total, s.records)
	s.run.reportProgress()
}

// askByID asks Clerk for the users that its list did not contain. Those that Clerk has are
// compared: a resumed run has not seen the users that the run before it passed.
func (s *sweep) askByID(ctx context.Context) error {
	defer s.tellRecords()
	if len(s.ask) == 0 {
		return nil
	}
	users, asOf, err := s.run.clerk.UsersByID(ctx, s.ask)
	if err != nil {
		return err
	}
	known := make(map[string]bool, len(users))
	for _, u := range users {
		known[u.ID] = true
	}
	for _, id := range s.ask {
		if !known[id] {
			s.absent = append(s.absent, id)
		}
	}
	s.ask = s.ask[:0]
	users = slices.DeleteFunc(users, func(u clerkapi.ListedUser) bool { return s.run.wasRestored(u.ID) }) // compared already
	return s.run.compare(ctx, clerkapi.Page{Users: users, AsOf: asOf}, nil)
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
			s.count(&s.run.report.Ghosts, id)
		case err != nil:
			return nil, err
		case !s.run.wasRestored(id):
			if err := s.run.compare(ctx, clerkapi.Page{Users: []clerkapi.ListedUser{u}, AsOf: asOf}, nil); err != nil {
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
		writers.Go(func() error { return s.deactivateOne(writing, g) })
	}
	return cmp.Or(writers.Wait(), context.Cause(ctx))
}

func (s *sweep) deactivateOne(ctx context.Context, g ghost) (err error) {
	defer recovered(&err)
	err = s.run.retryWrite(ctx, func() error {
		_, err := s.run.syncer.deactivate(ctx, g.id, g.asOf)
		return err
	})
	var rejected *rejectedError
	switch {
	case errors.As(err, &rejected):
		s.run.warn(ctx, g.id, err)
		s.count(&s.run.report.Failed, g.id)
		return s.run.checkRejected(0, 1, err)
	case err != nil:
		return err
	}
	s.count(&s.run.report.Deactivated, g.id)
	return s.run.checkRejected(1, 0, nil)
}

func (s *sweep) count(t *Tally, id string) {
	s.run.mu.Lock()
	defer s.run.mu.Unlock()
	t.add(id)
}
