package clerksync

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/clerksync/clerksync-go/clerksync/internal/retry"
)

const (
	// writeAttempts is how many times a write is tried while the Store is up.
	writeAttempts = 3
	// maxRejectedInARow is after how many rejected users in a row the run ends: then the
	// Store is at fault, not the users.
	maxRejectedInARow = 50
)

// retry calls f until it succeeds, for at most [retry.GiveUpAfter]: the Store may be down.
func (r *reconcileRun) retry(ctx context.Context, f func() error) error {
	return retry.Do(ctx, r.syncer.clock, func(error) bool { return false }, f)
}

// rejectedError means that the Store is up but rejects this user: retrying will not help.
type rejectedError struct{ error }

func (e *rejectedError) Unwrap() error { return e.error }

// retryWrite retries f. It gives up with a *rejectedError if the Store says that it rejects
// the record, or if the Store turns out to be up after writeAttempts failures.
func (r *reconcileRun) retryWrite(ctx context.Context, f func() error) error {
	attempts, rejected := 0, false
	storeIsUp := func(err error) bool {
		if rejected = errors.Is(err, ErrRejected); rejected {
			return true
		}
		if attempts++; attempts >= writeAttempts {
			_, err := r.store.Stamps(ctx, []string{"user_0"})
			rejected = err == nil
		}
		return rejected
	}
	err := retry.Do(ctx, r.syncer.clock, storeIsUp, f)
	if rejected {
		return &rejectedError{err}
	}
	return err
}

// checkRejected ends the run if the Store rejects one user after the other.
func (r *reconcileRun) checkRejected(written, rejected int, cause error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rejectedInARow += rejected; written > 0 {
		r.rejectedInARow = 0
	}
	if r.rejectedInARow >= maxRejectedInARow {
		return storeError(fmt.Errorf("rejected %d users in a row, the last: %w", r.rejectedInARow, cause))
	}
	return nil
}

// oneByOne makes a BatchStore of any Store, except that Undeleted yields nothing: a Store
// that cannot list its records cannot be searched for ghosts.
type oneByOne struct{ Store }

func (s oneByOne) UpsertBatch(ctx context.Context, us []*User) ([]Result, error) {
	results := make([]Result, len(us))
	errs := make(map[int]error)
	for i, u := range us {
		var err error
		if results[i], err = s.Upsert(ctx, u); err != nil {
			errs[i] = err
		}
		if errors.Is(err, errNoAnswer) {
			return nil, err // the others would wait as long
		}
	}
	if len(errs) > 0 {
		return results, &BatchError{Errs: errs}
	}
	return results, nil
}

func (s oneByOne) Users(ctx context.Context, ids []string) (map[string]*User, error) {
	found := make(map[string]*User, len(ids))
	for _, id := range ids {
		u, err := s.User(ctx, id)
		if failed, ok := withFailure(u, err); ok {
			u, err = failed, nil
		}
		if err == nil {
			found[id] = u
		} else if !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	return found, nil
}

func (s oneByOne) Stamps(ctx context.Context, ids []string) (map[string]Stamp, error) {
	users, err := s.Users(ctx, ids)
	stamps := make(map[string]Stamp, len(users))
	for id, u := range users {
		stamps[id] = Stamp{
			ClerkID:        id,
			ClerkUpdatedAt: u.ClerkUpdatedAt, SyncedAt: u.SyncedAt, CreatedAt: u.CreatedAt, DeletedAt: u.DeletedAt,
			IsActive: u.IsActive,
		}
	}
	return stamps, err
}

func (s oneByOne) Undeleted(context.Context) iter.Seq2[Stamp, error] {
	return func(func(Stamp, error) bool) {}
}
