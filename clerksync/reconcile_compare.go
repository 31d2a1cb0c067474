package clerksync

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
)

// comparison is the work on one page: what was found, and what is to be written.
type comparison struct {
	run    *reconcileRun
	page   clerkapi.Page
	report Report // of this page

	write       []*User
	conflicting []inConflict // of those to write
	parts       []*User      // what can be written of users who cannot be written whole
	refused     []inConflict // of these
	kept        []inConflict // users to try again at the end of the run
	handover    *handover    // tried for users in conflict; nil before the end of the run
	rejected    int          // how many of those to write match ErrRejected
	rejection   error        // of the last of these
	// Of the users to write, by id:
	fields   map[string][]string // the fields that differ, if whole records are compared
	existing map[string]bool     // who has a record
	restored map[string]bool     // whose record may have been restored
	cleaned  map[string]bool     // of these, for whom OnDelete was called
}

// compare brings the records of a page's users in step with Clerk.
func (r *reconcileRun) compare(ctx context.Context, page clerkapi.Page) error {
	return r.compareWith(ctx, page, nil)
}

// compareWith is compare that also tries to write users whose values other records hold, if
// there is a handover.
func (r *reconcileRun) compareWith(ctx context.Context, page clerkapi.Page, h *handover) error {
	if len(page.Users) == 0 {
		return nil
	}
	c := &comparison{
		run: r, page: page, handover: h,
		fields: make(map[string][]string), existing: make(map[string]bool), restored: make(map[string]bool),
		cleaned: make(map[string]bool),
	}
	err := c.findAndWrite(ctx)
	if err = cmp.Or(err, c.checkRestored(ctx)); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep(c)
	r.report.add(&c.report)
	return nil
}

func (c *comparison) findAndWrite(ctx context.Context) error {
	if err := c.find(ctx); err != nil {
		return err
	}
	if err := c.judgeNew(ctx); err != nil {
		return err
	}
	if c.run.opts.DryRun {
		c.countWrites()
		return nil
	}
	return c.writeAll(ctx)
}

// find collects the users to write.
func (c *comparison) find(ctx context.Context) error {
	c.report.Seen = len(c.page.Users)
	ids := make([]string, 0, len(c.page.Users))
	for _, u := range c.page.Users {
		if u.ID == "" {
			c.failed(ctx, u.ID, fmt.Errorf("%w: user: its id is not a user id", ErrInvalidEvent))
			continue
		}
		ids = append(ids, u.ID)
	}
	if c.run.opts.Force {
		return c.byRecord(ctx, ids)
	}
	return c.byVersion(ctx, ids)
}

// byVersion finds what is missing or older, by one light read.
func (c *comparison) byVersion(ctx context.Context, ids []string) error {
	var stamps map[string]Stamp
	err := c.run.retry(ctx, func() (err error) {
		stamps, err = c.run.store.Stamps(ctx, ids)
		return storeError(err)
	})
	if err != nil {
		return err
	}
	for _, listed := range c.page.Users {
		stamp, exists := stamps[listed.ID]
		have, offered := version(&User{ClerkUpdatedAt: stamp.ClerkUpdatedAt}), version(&User{ClerkUpdatedAt: millis(listed.Version)})
		switch {
		case listed.ID == "":
		case !exists:
			c.offer(ctx, listed)
		case !stamp.DeletedAt.IsZero():
			if err := c.foundDeleted(ctx, listed, stamp.DeletedAt); err != nil {
				return err
			}
		case offered > have, listed.Version <= 0 && !c.run.opts.DryRun: // a ban may have to be written
			c.existing[listed.ID] = true
			c.offer(ctx, listed)
		case offered < have:
			c.report.Stale.add(listed.ID)
		default:
			c.report.Unchanged++
		}
	}
	return nil
}

// byRecord finds what differs, by reading whole records.
func (c *comparison) byRecord(ctx context.Context, ids []string) error {
	var records map[string]*User
	err := c.run.retry(ctx, func() (err error) {
		records, err = c.run.store.Users(ctx, ids)
		return storeError(err)
	})
	if err != nil {
		return err
	}
	now := c.run.syncer.clock.Now()
	for _, listed := range c.page.Users {
		if listed.ID == "" {
			continue
		}
		stored := records[listed.ID]
		if stored != nil && !stored.DeletedAt.IsZero() {
			if err := c.foundDeleted(ctx, listed, stored.DeletedAt); err != nil {
				return err
			}
			continue
		}
		u := c.mapped(ctx, listed)
		if u == nil {
			continue
		}
		switch outcome, fields := c.run.decide(stored, u, now); {
		case outcome == Stale:
			c.report.Stale.add(u.ClerkID)
			c.addPart(staleBan(u, outcome))
		case outcome == Unchanged && !slices.Contains(fields, lastSignInAt):
			c.report.Unchanged++
		default:
			if stored != nil {
				c.existing[u.ClerkID] = true
				c.fields[u.ClerkID] = fields
			}
			c.write = append(c.write, u)
		}
	}
	return nil
}

const lastSignInAt = "lastSignInAt"

// keeper is a [Store] that may not keep all fields of a User; see there.
type keeper interface{ Keeps(path string) bool }

// decide is Decide, with the fields that an Upsert of u would change. It ignores what the
// Store does not keep.
func (r *reconcileRun) decide(stored, u *User, now time.Time) (Outcome, []string) {
	outcome := Decide(stored, u, now)
	if stored == nil {
		return outcome, nil
	}
	fields := differences(stored, u)
	if k, ok := r.syncer.store.(keeper); ok {
		fields = slices.DeleteFunc(fields, func(path string) bool { return !k.Keeps(path) })
		same := !slices.ContainsFunc(fields, func(path string) bool { return path != lastSignInAt })
		if outcome == Updated && same && version(stored) == version(u) {
			outcome = Unchanged
		}
	}
	return outcome, fields
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

// offer adds a user to those to write.
func (c *comparison) offer(ctx context.Context, listed clerkapi.ListedUser) {
	if u := c.mapped(ctx, listed); u != nil {
		c.write = append(c.write, u)
	}
}

// mapped is the record that a user should have. A user who cannot be mapped counts as failed,
// and the result is nil. What is left of the user is written all the same.
func (c *comparison) mapped(ctx context.Context, listed clerkapi.ListedUser) *User {
	m := c.run.syncer.mapListed(listed, c.page.AsOf)
	if m.err == nil {
		return m.user
	}
	if m.user != nil {
		c.parts = append(c.parts, m.user)
	}
	c.failed(ctx, listed.ID, m.err)
	return nil
}

// countWrites counts what would be written.
func (c *comparison) countWrites() {
	for _, u := range c.write {
		switch {
		case c.restored[u.ClerkID]:
			c.countRestored(u.ClerkID)
		case c.existing[u.ClerkID]:
			c.updated(u.ClerkID)
		default:
			c.report.Created.add(u.ClerkID)
		}
	}
}

// updated counts a record that was, or would be, written.
func (c *comparison) updated(id string) {
	c.report.Updated.add(id)
	for _, path := range c.fields[id] {
		if c.report.Fields == nil {
			c.report.Fields = make(map[string]int)
		}
		c.report.Fields[path]++
	}
}

func (c *comparison) failed(ctx context.Context, id string, err error) {
	c.report.Failed.add(id)
	c.run.warn(ctx, id, err)
}

// warn logs a failed user, at most maxTallyIDs in a run.
func (r *reconcileRun) warn(ctx context.Context, id string, err error) {
	r.mu.Lock()
	r.warnings++
	n := r.warnings
	r.mu.Unlock()
	if n <= maxTallyIDs {
		r.syncer.cfg.Logger.WarnContext(ctx, "clerksync: a user could not be reconciled", "clerk_id", id, "error", err)
	}
}
