package clerksync

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
)

// maxConflictsRetried bounds the memory for users to try again at the end.
const maxConflictsRetried = 10_000

// writeAll offers the users to the Store.
func (c *comparison) writeAll(ctx context.Context) error {
	pending := c.write
	var cause error // why the pending ones are still pending
	err := c.run.retryWrite(ctx, func() (err error) {
		if len(pending) == 0 {
			return nil
		}
		pending, err = c.writeBatch(ctx, pending)
		if err != nil {
			cause = err
		}
		return storeError(err)
	})
	if cause != nil {
		for _, u := range pending { // they may have been written
			c.run.syncer.invalidateUpserted(u, 0, Result{}, cause) // the generation does not matter after an error
		}
	}
	var rejected *rejectedError
	if err != nil && !errors.As(err, &rejected) {
		return err
	}
	for _, u := range pending {
		c.failed(ctx, u.ClerkID, cause)
	}
	failed := len(pending) + c.rejected
	return c.run.checkRejected(len(c.write)-failed, failed, cmp.Or(cause, c.rejection))
}

// writeBatch writes users. It returns those that failed and may be tried again, with the
// cause.
func (c *comparison) writeBatch(ctx context.Context, users []*User) (failing []*User, cause error) {
	gens := make([]uint64, len(users))
	for i, u := range users {
		gens[i] = c.run.syncer.cache.generation(u.ClerkID).Load()
	}
	results, err := c.run.store.UpsertBatch(ctx, users)
	var partly *BatchError
	if err != nil && !errors.As(err, &partly) {
		return users, err
	}
	for i, u := range users {
		var err error
		if partly != nil {
			err = partly.Errs[i]
		}
		var conflict *ConflictError
		switch {
		case err == nil:
			c.run.syncer.invalidateUpserted(u, gens[i], results[i], nil)
			c.written(u.ClerkID, results[i].Outcome)
		case errors.As(err, &conflict):
			c.conflict(u.ClerkID, conflict)
		case errors.Is(err, ErrRejected):
			c.rejected, c.rejection = c.rejected+1, err
			c.failed(ctx, u.ClerkID, err)
		default:
			failing, cause = append(failing, u), err
		}
	}
	return failing, cause
}

// written counts what the Store did with a user.
func (c *comparison) written(id string, outcome Outcome) {
	c.run.syncer.rereads.recordKnown(id)
	onlySignedIn := outcome == Unchanged && slices.Equal(c.fields[id], []string{lastSignInAt})
	switch {
	case outcome == Deactivated && c.restored[id]: // foundDeleted has counted it
		delete(c.restored, id) // deleted again, or still
	case outcome == Deactivated: // deleted in the meantime
		c.report.Tombstoned.add(id)
	case c.restored[id]:
		c.report.Restored.add(id)
	case outcome == Created:
		c.report.Created.add(id)
	case outcome == Updated, onlySignedIn:
		c.updated(id)
	case outcome == Stale:
		c.report.Stale.add(id)
	default:
		c.report.Unchanged++
	}
}

// conflict keeps a user for the end of the run. By then, the other user may have changed
// or be gone.
func (c *comparison) conflict(id string, err *ConflictError) {
	r := c.run
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conflict = err
	if len(r.conflicts) == maxConflictsRetried {
		c.report.Conflicts.add(id)
		return
	}
	r.conflicts = append(r.conflicts, id)
	c.report.Seen-- // it will be seen again
}

// retryConflicts tries the users in conflict again, as Clerk has them now, as long as that
// helps any of them: one that is written may make way for the next.
func (r *reconcileRun) retryConflicts(ctx context.Context) error {
	for tried := 0; len(r.conflicts) != tried; {
		ids := r.conflicts
		r.conflicts, tried = nil, len(ids)
		for len(ids) > 0 {
			n := min(len(ids), clerkapi.MaxUserIDs)
			users, asOf, err := r.clerk.UsersByID(ctx, ids[:n])
			if err == nil {
				err = r.compare(ctx, clerkapi.Page{Users: users, AsOf: asOf})
			}
			if err != nil {
				r.conflicts = append(r.conflicts, ids...)
				return err
			}
			ids = ids[n:]
		}
	}
	return nil
}
