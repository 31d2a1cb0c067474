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
		c.addBan(u, cause)
	}
	if err := c.writeParts(ctx); err != nil {
		return err
	}
	failed := len(pending) + c.rejected
	return c.run.checkRejected(len(c.write)-failed, failed, cmp.Or(cause, c.rejection))
}

// writeBatch writes users. It returns those that failed and may be tried again, with the
// cause.
func (c *comparison) writeBatch(ctx context.Context, users []*User) (failing []*User, cause error) {
	results, errs, err := c.upsertBatch(ctx, users)
	if err != nil {
		return users, err
	}
	for i, u := range users {
		var conflict *ConflictError
		switch err := errs[i]; {
		case err == nil:
			c.written(u.ClerkID, results[i].Outcome)
		case errors.Is(err, ErrUnlinked): // nothing of the user is written, and the API has the last word
			c.report.Unlinked.add(u.ClerkID)
		case errors.As(err, &conflict):
			c.conflicting(ctx, u, conflict)
		case errors.Is(err, ErrRejected):
			c.rejected, c.rejection = c.rejected+1, err
			c.failed(ctx, u.ClerkID, err)
			c.addBan(u, err)
		default:
			failing, cause = append(failing, u), err
		}
	}
	return failing, cause
}

// upsertBatch is the Store's UpsertBatch. The next visits see the results. errs are the errors
// of single users, by index.
func (c *comparison) upsertBatch(ctx context.Context, users []*User) (results []Result, errs map[int]error, err error) {
	s, gens := c.run.syncer, make([]uint64, len(users))
	for i, u := range users {
		gens[i] = s.cache.generation(u.ClerkID).Load()
		s.writes.begin(u.ClerkID)
	}
	defer func() {
		for _, u := range users {
			s.writes.end(u.ClerkID)
		}
	}()
	results, err = c.run.store.UpsertBatch(ctx, users)
	var partly *BatchError
	if errors.As(err, &partly) {
		errs, err = partly.Errs, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for i, u := range users {
		if errs[i] == nil {
			s.invalidateUpserted(u, gens[i], results[i], nil)
		}
	}
	return results, errs, nil
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
	case outcome == Adopted:
		c.report.Adopted.add(id)
	case outcome == Updated, onlySignedIn:
		c.updated(id)
	case outcome == Stale:
		c.report.Stale.add(id)
	default:
		c.report.Unchanged++
	}
}

// addBan has the ban of a user written alone, if the Store rejects the rest. The end of a ban
// is left to events and visits: it is not worth a second write of each rejected user.
func (c *comparison) addBan(u *User, err error) {
	if ban := banAlone(u); ban != nil && u.Banned && errors.Is(err, ErrRejected) {
		c.parts = append(c.parts, ban)
	}
}

// writeParts writes what can be written of users who cannot be written whole. These users are
// counted already.
func (c *comparison) writeParts(ctx context.Context) error {
	for round := 0; len(c.parts) > 0; round++ {
		pending := c.parts
		c.parts = nil
		err := c.run.retryWrite(ctx, func() (err error) {
			pending, err = c.offerParts(ctx, pending, round)
			return storeError(err)
		})
		var rejected *rejectedError
		if err != nil && !errors.As(err, &rejected) {
			return err
		}
	}
	return nil
}

// offerParts offers parts to the Store. It leaves in c.parts those that have to be offered
// again with less, and returns those that failed and may be tried again, with the cause.
func (c *comparison) offerParts(ctx context.Context, parts []*User, round int) (failing []*User, cause error) {
	if len(parts) == 0 {
		return nil, nil
	}
	_, errs, err := c.upsertBatch(ctx, parts)
	if err != nil {
		return parts, err
	}
	for i, u := range parts {
		var final *ConflictError
		err := errs[i]
		if conflict := refusedField(err); conflict != nil {
			if less := omitNext(u, conflict, round); less != nil {
				c.parts = append(c.parts, less)
			}
		} else if errors.Is(err, ErrRejected) {
			c.addBan(u, err)
		} else if err != nil && !errors.As(err, &final) && !errors.Is(err, ErrNotFound) {
			failing, cause = append(failing, u), err
		}
	}
	return failing, cause
}

// conflicting deals with a user whom a conflict keeps out. What can be written of the user is
// written with the page. The rest is tried again at the end of the run: by then, the other
// user may have changed or be gone.
func (c *comparison) conflicting(ctx context.Context, u *User, conflict *ConflictError) {
	if c.handover != nil {
		if outcome, ok := c.handover.tryOne(ctx, u, conflict); ok {
			c.written(u.ClerkID, outcome)
			return
		}
	}
	if conflict.Type == "" {
		c.parts = append(c.parts, omitRefused(u, conflict.Field))
	}
	c.keepConflict(u.ClerkID, conflict)
}

// keepConflict keeps a user for the end of the run.
func (c *comparison) keepConflict(id string, err *ConflictError) {
	r := c.run
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conflict = err
	if len(r.conflicts) == maxConflictsRetried {
		c.report.Conflicts.add(id)
		return
	}
	r.conflicts = append(r.conflicts, id)
	r.inConflict[id] = err
	c.report.Seen-- // it will be seen again
}

// retryConflicts tries the users in conflict again, as Clerk has them now, as long as that
// helps any of them: one that is written may make way for the next. For those that remain it
// asks Clerk about the holders of their values too; see holders.go.
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
	return r.handOverConflicts(ctx)
}

// handOverConflicts writes users in conflict whose values other users hold. It asks Clerk for
// 50 pairs at a time.
func (r *reconcileRun) handOverConflicts(ctx context.Context) error {
	ids := r.conflicts
	r.conflicts = nil
	written := make(map[string]Outcome) // by handovers
	for len(ids) > 0 {
		n := min(len(ids), clerkapi.MaxUserIDs/2)
		if err := r.handOverPairs(ctx, ids[:n], written); err != nil {
			r.conflicts = append(r.conflicts, ids...)
			return err
		}
		ids = ids[n:]
	}
	return nil
}

func (r *reconcileRun) handOverPairs(ctx context.Context, ids []string, written map[string]Outcome) error {
	writers := make(map[string]bool)
	var pairs []string
	for _, id := range ids {
		holder := r.inConflict[id].Holder
		if _, done := written[id]; !done && clerkapi.ValidUserID(holder) {
			writers[id] = true
			pairs = append(pairs, id, holder)
		}
	}
	if len(pairs) > 0 {
		slices.Sort(pairs)
		pairs = slices.Compact(pairs)
		users, asOf, err := r.clerk.UsersByID(ctx, pairs)
		if err != nil {
			return err
		}
		h := r.syncer.newHandover(r.store, r.clerk.UsersByID)
		h.written = written
		h.keep(pairs, users, asOf)
		users = slices.DeleteFunc(users, func(u clerkapi.ListedUser) bool { return !writers[u.ID] })
		if err := r.compareWith(ctx, clerkapi.Page{Users: users, AsOf: asOf}, h); err != nil {
			return err
		}
	}
	rest := &comparison{run: r}
	for _, id := range ids {
		if writers[id] {
			continue
		}
		rest.report.Seen++
		if outcome, done := written[id]; done { // as the holder of another user's value
			rest.written(id, outcome)
		} else {
			rest.keepConflict(id, r.inConflict[id])
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.add(&rest.report)
	return nil
}
