package clerksync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// sweep looks for ghosts: records of users that Clerk does not have.
type sweep struct {
	*reconciliation
	youngest time.Time // records made later are left for another run

	last    string   // the record looked at last
	records int      // looked at
	ask     []string // not seen in Clerk's list
	absent  []string // not found by their id either
}

// ghost is a user that Clerk does not have, as of a time.
type ghost struct {
	id   string
	asOf time.Time
}

// sweep marks deleted the records of those users whom the walk did not see and of
// whom Clerk knows nothing when asked for each. Nothing is written before all are
// known and counted.
func (r *reconciliation) sweep(ctx context.Context) error {
	s := &sweep{reconciliation: r, youngest: r.clock.Now().Add(-max(0, r.opts.Holdback))}
	r.mu.Lock()
	r.progress.Phase, r.progress.Done, r.progress.Total = PhaseGhosts, 0, r.pager.at.Passed
	r.mu.Unlock()
	if err := s.walk(ctx); err != nil {
		return err
	}
	ghosts, err := s.confirm(ctx)
	if err != nil || r.opts.DryRun {
		return err
	}
	return s.deactivate(ctx, ghosts)
}

// walk looks at all records that are not deleted.
func (s *sweep) walk(ctx context.Context) error {
	for interrupted := true; interrupted; {
		var failure error // not the Store's
		err := patiently(ctx, s.clock, func(error) bool { return failure != nil }, func() error {
			from := s.last
			interrupted = false
			for stamp, err := range s.store.Undeleted(ctx) {
				if err != nil && s.last > from {
					interrupted = true // with patience anew, as it has come further
					return nil
				}
				if err != nil {
					return storeError(err)
				}
				if stamp.ClerkID <= s.last {
					continue // an attempt before has come as far
				}
				s.last = stamp.ClerkID
				if failure = s.look(ctx, stamp); failure != nil {
					return failure
				}
			}
			failure = s.askAgain(ctx)
			return failure
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *sweep) look(ctx context.Context, stamp Stamp) error {
	s.records++
	switch {
	case !validUserID(stamp.ClerkID):
		s.count(&s.report.Unknown, stamp.ClerkID)
	case s.pager.seen.has(stamp.ClerkID) && !s.wasRestored(stamp.ClerkID):
	case stamp.CreatedAt.After(s.youngest):
		s.mu.Lock()
		s.report.HeldBack++
		s.mu.Unlock()
	default:
		if s.ask = append(s.ask, stamp.ClerkID); len(s.ask) == maxUserIDs {
			return s.askAgain(ctx)
		}
	}
	if s.records%maxPageSize == 0 {
		s.tellRecords()
	}
	return nil
}

// confirmLater has the sweep ask Clerk for a user whose record was given back. The user
// may have been deleted after Clerk listed it; that event found the record deleted, and
// has come and gone.
func (r *reconciliation) confirmLater(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.restored == nil {
		r.restored = newIDSet(0)
	}
	r.restored.add(id)
}

func (r *reconciliation) wasRestored(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.restored != nil && r.restored.has(id)
}

func (s *sweep) tellRecords() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.progress.Done = s.records
	s.progress.Total = max(s.progress.Total, s.records)
	s.tell()
}

// askAgain asks Clerk for users by their ids. Those whom it has are compared, as a
// resumed run has not seen the users that the run before passed.
func (s *sweep) askAgain(ctx context.Context) error {
	defer s.tellRecords()
	if len(s.ask) == 0 {
		return nil
	}
	users, asOf, err := s.reader.usersByID(ctx, s.ask)
	if err != nil {
		return err
	}
	known := make(map[string]bool, len(users))
	for _, u := range users {
		known[u.id] = true
	}
	for _, id := range s.ask {
		if !known[id] {
			s.absent = append(s.absent, id)
		}
	}
	s.ask = s.ask[:0]
	users = slices.DeleteFunc(users, func(u listed) bool { return s.wasRestored(u.id) }) // they have been
	return s.compare(ctx, clerkPage{users: users, asOf: asOf})
}

// confirm has Clerk's last word on each absent user, and refuses where too many are
// gone.
func (s *sweep) confirm(ctx context.Context) (ghosts []ghost, err error) {
	limit := s.opts.MaxDeactivations
	if limit == 0 {
		limit = max(10, s.records/50)
	}
	for i, id := range s.absent {
		u, asOf, err := s.reader.user(ctx, id)
		if err == nil && !s.wasRestored(id) {
			err = s.compare(ctx, clerkPage{users: []listed{u}, asOf: asOf})
		} else if errors.Is(err, ErrUserUnknown) {
			ghosts, err = append(ghosts, ghost{id, asOf}), nil
			s.count(&s.report.Ghosts, id)
		}
		if err != nil {
			return nil, err
		}
		if limit >= 0 && len(ghosts) > limit {
			more := ""
			if i+1 < len(s.absent) {
				more = " or more"
			}
			return nil, fmt.Errorf("%w: %d%s of %d records, the limit is %d; if they are rightly gone, raise MaxDeactivations", ErrTooManyGhosts, len(ghosts), more, s.records, limit)
		}
	}
	return ghosts, nil
}

// deactivate marks the ghosts' records deleted.
func (s *sweep) deactivate(ctx context.Context, ghosts []ghost) error {
	writers, writing := errgroup.WithContext(ctx)
	writers.SetLimit(s.opts.Writers)
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
	err = s.insistently(ctx, func() error {
		_, err := s.Syncer.deactivate(ctx, g.id, g.asOf)
		return err
	})
	var refused *refusal
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	if err != nil {
		s.warn(ctx, g.id, err)
		s.count(&s.report.Failed, g.id)
		return s.checkRefusals(0, 1, err)
	}
	s.count(&s.report.Deactivated, g.id)
	return s.checkRefusals(1, 0, nil)
}

func (s *sweep) count(t *Tally, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.add(id)
}
