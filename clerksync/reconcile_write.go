package clerksync

import (
	"cmp"
	"context"
	"errors"
	"maps"
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
	for _, one := range c.conflicting {
		if err := c.resolve(ctx, one); err != nil {
			return err
		}
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
			c.addPart(staleBan(u, results[i].Outcome))
		case errors.Is(err, ErrUnlinked): // nothing of the user is written, and the API has the last word
			c.report.Unlinked.add(u.ClerkID)
		case errors.As(err, &conflict):
			c.conflicting = append(c.conflicting, inConflict{u, conflict})
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
			s.owedCreate(ctx, u, results[i].Outcome)
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
		c.countRestored(id)
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
	if u.Banned && errors.Is(err, ErrRejected) {
		c.addPart(banAlone(u))
	}
}

func (c *comparison) addPart(u *User) {
	if u != nil {
		c.parts = append(c.parts, u)
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
	results, errs, err := c.upsertBatch(ctx, parts)
	if err != nil {
		return parts, err
	}
	for i, u := range parts {
		err := errs[i]
		conflict := refusedField(err)
		switch {
		case err == nil:
			c.addPart(staleBan(u, results[i].Outcome))
		case conflict != nil:
			c.addPart(omitNext(u, conflict, round))
			c.refused = append(c.refused, inConflict{u, conflict})
		case errors.Is(err, ErrRejected):
			c.addBan(u, err)
		case !permanent(err):
			failing, cause = append(failing, u), err
		}
	}
	return failing, cause
}

// inConflict is a user whom a conflict keeps out.
type inConflict struct {
	user     *User
	conflict *ConflictError
}

// resolve deals with a user in conflict. What can be written of the user is written with the
// page. The rest is tried again at the end of the run: by then, the other user may have changed
// or be gone. The error is a failure of Clerk's or the Store's that lasts.
func (c *comparison) resolve(ctx context.Context, one inConflict) error {
	u := one.user
	if c.handover != nil && one.conflict.ofIndex() {
		w, err := c.handover.tryOne(ctx, u, one.conflict)
		var rejected *rejectedError
		switch {
		case errors.Is(err, ErrRejected), errors.As(err, &rejected):
			c.failed(ctx, u.ClerkID, err)
			c.addBan(u, err)
			return nil
		case err != nil:
			return err
		case len(w.conflicts) == 0:
			c.written(u.ClerkID, w.res.Outcome)
			return nil
		}
	}
	if one.conflict.ofIndex() {
		c.addPart(omitRefused(u, one.conflict.Field))
	}
	c.kept = append(c.kept, one)
	c.report.Seen-- // it will be seen again
	return nil
}

// keep keeps users for the end of the run: those in conflict, and those who could not be mapped
// as a whole and whose remaining fields are refused. The caller holds mu.
func (r *reconcileRun) keep(c *comparison) {
	for _, one := range c.kept {
		r.conflict = one.conflict
		if len(r.conflicts) == maxConflictsRetried {
			c.report.Seen++
			c.report.Conflicts.add(one.user.ClerkID)
			continue
		}
		r.conflicts = append(r.conflicts, one.user.ClerkID)
		r.inConflict[one.user.ClerkID] = one.conflict
	}
	for _, one := range c.refused {
		// Other fields of a user in conflict may be refused too. Keep a conflict whose Holder is a
		// Clerk id: a handover can ask Clerk about that one.
		first, counted := r.inConflict[one.user.ClerkID]
		switch {
		case counted && !clerkapi.ValidUserID(first.Holder):
			r.inConflict[one.user.ClerkID] = one.conflict
		case !counted && len(r.partly) < maxConflictsRetried:
			r.partly[one.user.ClerkID] = one.conflict
		}
	}
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
	ids := slices.Concat(r.conflicts, slices.Sorted(maps.Keys(r.partly)))
	counted := len(r.conflicts)
	r.conflicts = nil
	written := make(map[string]Outcome) // by handovers
	for start := 0; start < len(ids); start += clerkapi.MaxUserIDs / 2 {
		some := ids[start:min(start+clerkapi.MaxUserIDs/2, len(ids))]
		if err := r.handOverPairs(ctx, some, written); err != nil {
			r.conflicts = append(r.conflicts, ids[min(start, counted):counted]...)
			return err
		}
	}
	return nil
}

func (r *reconcileRun) handOverPairs(ctx context.Context, ids []string, written map[string]Outcome) error {
	rest := &comparison{run: r}
	var writers, pairs []string
	for _, id := range ids {
		conflict, counted := r.inConflict[id]
		if !counted {
			conflict = r.partly[id]
		}
		outcome, done := written[id] // as the holder of another user's value
		switch {
		case !done && clerkapi.ValidUserID(conflict.Holder):
			writers = append(writers, id)
			pairs = append(pairs, id, conflict.Holder)
		case !counted:
		case done:
			rest.report.Seen++
			rest.written(id, outcome)
		default:
			rest.kept = append(rest.kept, inConflict{&User{ClerkID: id}, conflict})
		}
	}
	if len(pairs) > 0 {
		slices.Sort(pairs)
		pairs = slices.Compact(pairs)
		users, asOf, err := r.clerk.UsersByID(ctx, pairs)
		if err != nil {
			return err
		}
		h := r.syncer.newHandover(patientStore{r.store, r}, r.clerk.UsersByID)
		h.written = written
		h.keep(pairs, users, asOf)
		if err := r.handOverRest(ctx, h, writers); err != nil {
			return err
		}
		users = slices.DeleteFunc(users, func(u clerkapi.ListedUser) bool {
			return !slices.Contains(writers, u.ID) || r.inConflict[u.ID] == nil
		})
		if err := r.compareWith(ctx, clerkapi.Page{Users: users, AsOf: asOf}, h); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep(rest)
	r.report.add(&rest.report)
	return nil
}

// handOverRest writes what is left of those writers who could not be mapped as a whole. They are
// counted already.
func (r *reconcileRun) handOverRest(ctx context.Context, h *handover, writers []string) error {
	for _, id := range writers {
		conflict, u := r.partly[id], h.known[id].user
		if conflict == nil || u == nil {
			continue
		}
		_, err := h.tryOne(ctx, u, conflict)
		var rejected *rejectedError
		if err != nil && !errors.Is(err, ErrRejected) && !errors.As(err, &rejected) {
			return err
		}
	}
	return nil
}

// patientStore retries as the rest of a Reconcile does.
type patientStore struct {
	Store
	run *reconcileRun
}

func (s patientStore) User(ctx context.Context, id string) (u *User, err error) {
	err = s.run.retry(ctx, func() (err error) {
		u, err = s.Store.User(ctx, id)
		if failed, ok := withFailure(u, err); ok {
			u, err = failed, nil
		}
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	})
	if err == nil && u == nil {
		err = ErrNotFound
	}
	return u, err
}

func (s patientStore) Upsert(ctx context.Context, u *User) (res Result, err error) {
	var final error
	err = s.run.retryWrite(ctx, func() error {
		res, final = s.Store.Upsert(ctx, u)
		if permanent(final) && !errors.Is(final, ErrRejected) {
			return nil
		}
		return final
	})
	return res, cmp.Or(err, final)
}
