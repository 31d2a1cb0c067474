package clerksync

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"
)

const (
	// restorableAfter is how old a deletion must be that is called a mistake where
	// Clerk has the user: a younger one may be younger than Clerk's answer.
	restorableAfter = time.Hour
	// writeAttempts is how often a user is offered to a Store that answers
	// otherwise.
	writeAttempts = 3
	// maxFailuresInARow is how many users a Store may refuse with none written in
	// between, before that is the Store's fault and not theirs.
	maxFailuresInARow = 50
	// maxConflictsRetried bounds the memory for users to try again at the end.
	maxConflictsRetried = 10_000
)

// comparison is the work on one page: what was found of it, and what is to be
// written.
type comparison struct {
	*reconciliation
	page  clerkPage
	found Report
	write []*User
	// Of the users to write, by id: the fields that differ from the record, where
	// whole records are compared; who has one; whose was given back.
	fields             map[string][]string
	existing, restored map[string]bool
}

// compare brings the records of a page's users in step with Clerk.
func (r *reconciliation) compare(ctx context.Context, page clerkPage) error {
	c := &comparison{
		reconciliation: r, page: page,
		fields: make(map[string][]string), existing: make(map[string]bool), restored: make(map[string]bool),
	}
	if c.found.Seen = len(page.users); c.found.Seen == 0 {
		return nil
	}
	ids := make([]string, 0, len(page.users))
	for _, u := range page.users {
		if u.id == "" {
			c.failed(ctx, u.id, fmt.Errorf("%w: user: no id of a user", ErrInvalidEvent))
			continue
		}
		ids = append(ids, u.id)
	}
	var err error
	if r.opts.Force {
		err = c.byRecord(ctx, ids)
	} else {
		err = c.byVersion(ctx, ids)
	}
	if err == nil && r.opts.DryRun {
		c.pretend()
	} else if err == nil {
		err = c.writeAll(ctx)
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.add(&c.found)
	return nil
}

// byVersion finds what is missing or older, by one light read.
func (c *comparison) byVersion(ctx context.Context, ids []string) error {
	var stamps map[string]Stamp
	err := c.patiently(ctx, func() (err error) {
		stamps, err = c.store.Stamps(ctx, ids)
		return storeError(err)
	})
	if err != nil {
		return err
	}
	for _, listed := range c.page.users {
		stamp, exists := stamps[listed.id]
		have, offered := version(&User{ClerkUpdatedAt: stamp.ClerkUpdatedAt}), version(&User{ClerkUpdatedAt: millis(listed.version)})
		switch {
		case listed.id == "":
		case !exists:
			c.offer(ctx, listed)
		case !stamp.DeletedAt.IsZero():
			if err := c.tombstone(ctx, listed, stamp.DeletedAt); err != nil {
				return err
			}
		case offered > have:
			c.existing[listed.id] = true
			c.offer(ctx, listed)
		case offered < have:
			c.found.Stale.add(listed.id)
		default:
			c.found.Unchanged++
		}
	}
	return nil
}

// byRecord finds what differs, by reading whole records.
func (c *comparison) byRecord(ctx context.Context, ids []string) error {
	var records map[string]*User
	err := c.patiently(ctx, func() (err error) {
		records, err = c.store.Users(ctx, ids)
		return storeError(err)
	})
	if err != nil {
		return err
	}
	now := c.clock.Now()
	for _, listed := range c.page.users {
		if listed.id == "" {
			continue
		}
		stored := records[listed.id]
		if stored != nil && !stored.DeletedAt.IsZero() {
			if err := c.tombstone(ctx, listed, stored.DeletedAt); err != nil {
				return err
			}
			continue
		}
		u, err := c.mapped(listed)
		if err != nil {
			c.failed(ctx, listed.id, err)
			continue
		}
		switch outcome := Decide(stored, u, now); {
		case outcome == Stale:
			c.found.Stale.add(u.ClerkID)
		case outcome == Unchanged && !u.LastSignInAt.After(stored.LastSignInAt):
			c.found.Unchanged++
		default:
			if stored != nil {
				c.existing[u.ClerkID] = true
				c.fields[u.ClerkID] = differences(stored, u)
			}
			c.write = append(c.write, u)
		}
	}
	return nil
}

// differences lists the fields, by path, that an Upsert of u would change.
func differences(stored, u *User) (paths []string) {
	for _, f := range clerkFields {
		if f.value(stored) != f.value(u) {
			paths = append(paths, f.path)
		}
	}
	if u.RoleFromClerk && stored.Role != u.Role {
		paths = append(paths, "role")
	}
	for name, v := range u.Extra {
		if !reflect.DeepEqual(stored.Extra[name], v) {
			paths = append(paths, name)
		}
	}
	for name := range stored.Extra {
		if _, kept := u.Extra[name]; !kept {
			paths = append(paths, name)
		}
	}
	if u.LastSignInAt.After(stored.LastSignInAt) {
		paths = append(paths, lastSignInAt)
	}
	return paths
}

const lastSignInAt = "lastSignInAt"

// tombstone counts a user whose record is marked deleted and whom Clerk has, and
// gives the record back if that was asked for.
func (c *comparison) tombstone(ctx context.Context, listed listed, deletedAt time.Time) error {
	c.found.Tombstoned.add(listed.id)
	if !c.opts.Restore || deletedAt.After(c.page.asOf.Add(-restorableAfter)) {
		return nil
	}
	u, err := c.mapped(listed)
	if err != nil {
		c.failed(ctx, listed.id, err)
		return nil
	}
	if !c.opts.DryRun {
		// Whether it was this call that restored does not matter: the answer of one
		// before may be lost. A record that is still deleted is left so by the Upsert.
		err = c.insistently(ctx, func() error {
			_, err := c.Syncer.store.(RestoreStore).Restore(ctx, u.ClerkID, c.page.asOf.Add(-restorableAfter))
			return storeError(err)
		})
		var refused *refusal
		switch {
		case errors.As(err, &refused):
			c.failed(ctx, u.ClerkID, err)
			return c.checkRefusals(0, 1, err)
		case err != nil:
			return err
		}
		c.confirmLater(u.ClerkID)
	}
	c.restored[u.ClerkID] = true
	c.write = append(c.write, u)
	return nil
}

// offer adds a user to those to write.
func (c *comparison) offer(ctx context.Context, listed listed) {
	u, err := c.mapped(listed)
	if err != nil {
		c.failed(ctx, listed.id, err)
		return
	}
	c.write = append(c.write, u)
}

// mapped is the record that a user is to have.
func (c *comparison) mapped(listed listed) (*User, error) {
	u, err := c.userFromClerk(listed.raw, c.page.asOf)
	if err == nil && u.ClerkID != listed.id {
		return nil, fmt.Errorf("%w: user: two ids", ErrInvalidEvent)
	}
	return u, err
}

// pretend counts what would be written.
func (c *comparison) pretend() {
	for _, u := range c.write {
		switch {
		case c.restored[u.ClerkID]:
			c.found.Restored.add(u.ClerkID)
		case c.existing[u.ClerkID]:
			c.updated(u.ClerkID)
		default:
			c.found.Created.add(u.ClerkID)
		}
	}
}

// writeAll offers the users to the Store.
func (c *comparison) writeAll(ctx context.Context) error {
	pending := c.write
	var cause error // why the pending ones are
	err := c.insistently(ctx, func() error {
		if len(pending) == 0 {
			return nil
		}
		results, err := c.store.UpsertBatch(ctx, pending)
		var partly *BatchError
		if err != nil && !errors.As(err, &partly) {
			cause = err
			return storeError(err)
		}
		var failing []*User
		for i, u := range pending {
			var err error
			if partly != nil {
				err = partly.Errs[i]
			}
			var conflict *ConflictError
			switch {
			case err == nil:
				c.upserted(u, results[i], nil)
				c.written(u.ClerkID, results[i].Outcome)
			case errors.As(err, &conflict):
				c.conflict(u.ClerkID)
			default:
				failing, cause = append(failing, u), err
			}
		}
		if pending = failing; len(pending) > 0 {
			return storeError(cause)
		}
		return nil
	})
	if cause != nil {
		for _, u := range pending { // whether they were written is not known
			c.upserted(u, Result{}, cause)
		}
	}
	var refused *refusal
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	for _, u := range pending {
		c.failed(ctx, u.ClerkID, cause)
	}
	return c.checkRefusals(len(c.write)-len(pending), len(pending), cause)
}

// written counts what the Store did with a user.
func (c *comparison) written(id string, outcome Outcome) {
	c.Syncer.clerk.known(id)
	switch {
	case outcome == Deactivated && c.restored[id]: // counted already
	case outcome == Deactivated: // meanwhile
		c.found.Tombstoned.add(id)
	case c.restored[id]:
		c.found.Restored.add(id)
	case outcome == Created:
		c.found.Created.add(id)
	case outcome == Updated, outcome == Unchanged && slices.Equal(c.fields[id], []string{lastSignInAt}):
		c.updated(id)
	case outcome == Stale:
		c.found.Stale.add(id)
	default:
		c.found.Unchanged++
	}
}

func (c *comparison) updated(id string) {
	c.found.Updated.add(id)
	for _, path := range c.fields[id] {
		if c.found.Fields == nil {
			c.found.Fields = make(map[string]int)
		}
		c.found.Fields[path]++
	}
}

// conflict keeps a user for the end of the run: the one in the way may be about to
// change, or gone.
func (c *comparison) conflict(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.retry) == maxConflictsRetried {
		c.found.Conflicts.add(id)
		return
	}
	c.retry = append(c.retry, id)
	c.found.Seen-- // will be seen again
}

func (c *comparison) failed(ctx context.Context, id string, err error) {
	c.found.Failed.add(id)
	c.warn(ctx, id, err)
}

// warn logs the first users that fail.
func (r *reconciliation) warn(ctx context.Context, id string, err error) {
	r.mu.Lock()
	r.warnings++
	n := r.warnings
	r.mu.Unlock()
	if n <= maxTallyIDs {
		r.cfg.Logger.WarnContext(ctx, "clerksync: a user could not be reconciled", "clerk_id", id, "error", err)
	}
}

// refusal is an error that the Store gives while it answers otherwise: it is about
// what was offered.
type refusal struct{ error }

func (r *refusal) Unwrap() error { return r.error }

// insistently calls f for as long as the Store is down, and for a few times where it
// is not; then the error is a *refusal.
func (r *reconciliation) insistently(ctx context.Context, f func() error) error {
	attempts, refused := 0, false
	err := patiently(ctx, r.clock, func(error) bool {
		if attempts++; attempts >= writeAttempts {
			_, err := r.store.Stamps(ctx, []string{"user_0"})
			refused = err == nil
		}
		return refused
	}, f)
	if refused {
		return &refusal{err}
	}
	return err
}

// checkRefusals ends the run where the Store refuses one user after the other.
func (r *reconciliation) checkRefusals(written, refused int, cause error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refusals += refused; written > 0 {
		r.refusals = 0
	}
	if r.refusals >= maxFailuresInARow {
		return storeError(fmt.Errorf("refused %d users one after the other, the last: %w", r.refusals, cause))
	}
	return nil
}

// retryConflicts tries the users in conflict again, as Clerk has them now, for as
// long as that helps any: one that is written may make way for the next.
func (r *reconciliation) retryConflicts(ctx context.Context) error {
	for tried := 0; len(r.retry) != tried; {
		ids := r.retry
		r.retry, tried = nil, len(ids)
		for len(ids) > 0 {
			n := min(len(ids), maxUserIDs)
			users, asOf, err := r.reader.usersByID(ctx, ids[:n])
			if err == nil {
				err = r.compare(ctx, clerkPage{users: users, asOf: asOf})
			}
			if err != nil {
				r.retry = append(r.retry, ids...)
				return err
			}
			ids = ids[n:]
		}
	}
	return nil
}
