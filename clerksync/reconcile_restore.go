package clerksync

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// restorableAfter is how old a deletion must be before Restore treats it as a mistake. A
// recent deletion may have happened after Clerk answered.
const restorableAfter = time.Hour

// foundDeleted counts a user whom Clerk has and whose record is marked deleted. If Restore
// is set, it restores the record.
func (c *comparison) foundDeleted(ctx context.Context, listed clerkapi.ListedUser, deletedAt time.Time) error {
	c.report.Tombstoned.add(listed.ID)
	before := c.page.AsOf.Add(-restorableAfter)
	if !c.run.opts.Restore || deletedAt.After(before) {
		return nil
	}
	u := c.mapped(ctx, listed)
	if u == nil {
		return nil
	}
	if c.run.opts.DryRun {
		c.restored[u.ClerkID] = true
		c.write = append(c.write, u)
		return c.lookForCleanUp(ctx, u.ClerkID)
	}
	return c.restore(ctx, u, before)
}

// restore restores a record and offers the user to the Store, unless the Store rejects that.
func (c *comparison) restore(ctx context.Context, u *User, before time.Time) error {
	r := c.run
	// Whatever the outcome, the record may be restored: the answer may be lost. If it is
	// still deleted, the Upsert leaves it so.
	c.restored[u.ClerkID] = true
	err := r.retryWrite(ctx, func() error {
		return r.inTime(ctx, func(ctx context.Context) error {
			_, err := r.syncer.store.(RestoreStore).Restore(ctx, u.ClerkID, before)
			return storeError(err)
		})
	})
	var rejected *rejectedError
	if errors.As(err, &rejected) {
		c.failed(ctx, u.ClerkID, err)
		return r.checkRejected(0, 1, err)
	}
	if err == nil {
		c.write = append(c.write, u)
		err = c.lookForCleanUp(ctx, u.ClerkID)
	}
	return err
}

// countRestored counts a user whose record was, or would be, restored.
func (c *comparison) countRestored(id string) {
	c.report.Restored.add(id)
	if c.cleaned[id] {
		c.report.CleanedUp.add(id)
	}
}

// lookForCleanUp notes whether OnDelete was called for a record that was restored. It is asked
// afterwards, because until then the job could begin; Restore leaves its attempts.
func (c *comparison) lookForCleanUp(ctx context.Context, id string) error {
	r := c.run
	if r.syncer.cfg.OnDelete == nil {
		return nil
	}
	return r.retry(ctx, func() error {
		records, err := r.store.Users(ctx, []string{id})
		if u := records[id]; u != nil && u.Jobs.Of(JobDelete).Attempt > 0 {
			c.cleaned[id] = true
		}
		return storeError(err)
	})
}

// checkRestored asks Clerk once more for the users of restored records, and marks those
// deleted whom Clerk does not have. They were deleted after Clerk listed them: that event
// found the record still deleted, and will not come again. If ctx has ended, checkRestored
// takes a few seconds more.
func (c *comparison) checkRestored(ctx context.Context) error {
	if c.run.opts.DryRun || len(c.restored) == 0 {
		return nil
	}
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = clock.WithTimeout(context.WithoutCancel(ctx), c.run.syncer.clock, callTimeout)
		defer cancel()
	}
	ids := slices.Sorted(maps.Keys(c.restored))
	for chunk := range slices.Chunk(ids, clerkapi.MaxUserIDs) {
		users, _, err := c.run.clerk.UsersByID(ctx, chunk)
		if err != nil {
			return err
		}
		for _, id := range absent(chunk, users) {
			if err := c.run.deactivateIfGone(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// deactivateIfGone marks a restored record deleted if Clerk does not have its user.
func (r *reconcileRun) deactivateIfGone(ctx context.Context, id string) error {
	_, asOf, err := r.clerk.User(ctx, id)
	if !errors.Is(err, ErrUserUnknown) {
		return err
	}
	r.count(&r.report.Ghosts, id)
	return r.deactivate(ctx, ghost{id, asOf})
}
