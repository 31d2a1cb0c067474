package world

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/storetest"
)

// store is between the processes and the Store under test. It fails, stalls, runs the operations
// that happen in the middle of a call, and checks each record that was written.
type store struct {
	w     *world
	inner clerksync.Store
}

// batchStore is a store if the Store under test is a BatchStore.
type batchStore struct {
	*store
	inner clerksync.BatchStore
}

// newStoreOf also returns the Store for the processes, which is a BatchStore, a JobStore, and one that
// adopts, if inner is.
func newStoreOf(w *world, inner clerksync.Store) (*store, clerksync.Store) {
	s := &store{w: w, inner: inner}
	b, ok := inner.(clerksync.BatchStore)
	if !ok {
		return s, s
	}
	jobs, ok := inner.(clerksync.JobStore)
	w.able.jobs = ok
	if _, restores := inner.(clerksync.RestoreStore); restores && ok && !w.opts.UniqueEmail {
		w.able.restore = true
	}
	adopting, adopts := inner.(storetest.AdoptingStore)
	switch {
	case adopts && ok:
		w.legacyStore = adopting
		return s, jobAdoptingStore{adoptingStore{batchStore{s, b}, adopting}, jobStore{s, jobs}}
	case adopts:
		w.legacyStore = adopting
		return s, adoptingStore{batchStore{s, b}, adopting}
	case ok:
		return s, jobBatchStore{batchStore{s, b}, jobStore{s, jobs}}
	}
	return s, batchStore{s, b}
}

var errStore = errors.New("world: the Store fails")

// The faults of a call to the Store.
const (
	failBefore  = "Store fails before the write"
	failAfter   = "Store fails after the write"
	stallBefore = "Store stalls before the write"
	stallAfter  = "Store stalls after the write"
)

var storeFaults = []string{failBefore, failAfter, stallBefore, stallAfter}

// call makes one call of a process, with its faults and interrupts. write is the method's name if
// it writes.
func (s *store) call(ctx context.Context, write string, do func(context.Context) error) error {
	w, r := s.w, runOf(ctx)
	if r == nil {
		panic("world: a call to the Store outside of any operation")
	}
	if r.p.dead {
		return errDied
	}
	if write != "" {
		r.writes(write)
	}
	n := r.touch()
	r.interrupt(n, false)
	fault := w.storeFault(r, n)
	switch fault {
	case failBefore:
		w.counts.add(fault)
		return errStore
	case stallBefore:
		w.counts.add(fault)
		w.clock.Advance(stall(r, n))
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	err := do(context.WithoutCancel(ctx)) // a call that has begun ends, even if nobody waits
	switch fault {
	case failAfter:
		w.counts.add(fault)
		err = errStore
	case stallAfter:
		w.counts.add(fault)
		w.clock.Advance(stall(r, n))
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
	}
	r.interrupt(n, true)
	if r.p.dead {
		return errDied
	}
	return err
}

// storeFault returns the fault of call n, "" for none.
func (w *world) storeFault(r *run, n int) string {
	fault := ""
	if f := r.fault(n); f != 0 {
		fault = storeFaults[f%len(storeFaults)]
	} else if w.storeOutage.down {
		fault = failBefore
	}
	if fault != "" {
		w.trouble()
	}
	return fault
}

// stall returns how long a call stalls: shorter than the caller's timeout, or longer.
func stall(r *run, n int) time.Duration {
	lengths := []time.Duration{
		2 * time.Second, callTimeout + time.Second, deliveryTimeout + time.Second, bulkAttemptTimeout + time.Second,
	}
	return lengths[(n+len(r.op.breaks)+r.op.n)%len(lengths)]
}

func (s *store) User(ctx context.Context, id string) (u *clerksync.User, err error) {
	runOf(ctx).readsStore(id)
	fault := s.call(ctx, "", func(ctx context.Context) error {
		u, err = s.inner.User(ctx, id)
		return err
	})
	if fault != nil {
		return nil, fault
	}
	return u, nil
}

func (s *store) Upsert(ctx context.Context, u *clerksync.User) (res clerksync.Result, err error) {
	runOf(ctx).offers = append(runOf(ctx).offers, u.ClerkID)
	fault := s.call(ctx, "Upsert", func(ctx context.Context) error {
		s.offered(runOf(ctx), u)
		res, err = s.inner.Upsert(ctx, u)
		s.upserted(runOf(ctx), u, res.Outcome, err)
		if runOf(ctx).isAbout(u.ClerkID) {
			runOf(ctx).wroteAt = s.w.seq
		}
		return err
	})
	if fault != nil {
		return clerksync.Result{}, fault
	}
	if r := runOf(ctx); r.isAbout(u.ClerkID) {
		r.sawDeleted = res.Outcome == clerksync.Deactivated
		r.w.lookups.Lock()
		r.readBack = res.User == nil
		r.w.lookups.Unlock()
	}
	s.w.outcome(res.Outcome)
	return res, nil
}

func (s *store) Deactivate(ctx context.Context, id string, at time.Time) (clerksync.Result, error) {
	return s.deactivate(ctx, id, func(ctx context.Context) (clerksync.Result, error) {
		return s.inner.Deactivate(ctx, id, at)
	})
}

func (s *store) deactivate(
	ctx context.Context, id string, do func(context.Context) (clerksync.Result, error),
) (res clerksync.Result, err error) {
	runOf(ctx).offers = append(runOf(ctx).offers, id)
	fault := s.call(ctx, "Deactivate", func(ctx context.Context) error {
		s.deactivating(runOf(ctx), id)
		res, err = do(ctx)
		s.note(id, false)
		runOf(ctx).wroteAt = s.w.seq
		return err
	})
	if fault != nil {
		return clerksync.Result{}, fault
	}
	runOf(ctx).deactivated = append(runOf(ctx).deactivated, id)
	s.w.outcome(res.Outcome)
	return res, nil
}

func (s batchStore) UpsertBatch(ctx context.Context, us []*clerksync.User) (results []clerksync.Result, err error) {
	fault := s.call(ctx, "UpsertBatch", func(ctx context.Context) error {
		for _, u := range us {
			s.offered(runOf(ctx), u)
		}
		results, err = s.inner.UpsertBatch(ctx, us)
		var partly *clerksync.BatchError
		errors.As(err, &partly)
		for i, u := range us {
			err := err
			if partly != nil {
				err = partly.Errs[i]
			}
			s.upserted(runOf(ctx), u, results[i].Outcome, err)
		}
		return nil
	})
	if fault != nil {
		return nil, fault
	}
	for i, u := range us {
		if results[i].Outcome != 0 {
			runOf(ctx).offers = append(runOf(ctx).offers, u.ClerkID)
			s.w.outcome(results[i].Outcome)
		}
	}
	return results, err
}

func (s batchStore) Users(ctx context.Context, ids []string) (found map[string]*clerksync.User, err error) {
	if p := runOf(ctx).pages; p != nil {
		p.compare()
	}
	fault := s.call(ctx, "", func(ctx context.Context) error {
		found, err = s.inner.Users(ctx, ids)
		return err
	})
	if fault != nil {
		return nil, fault
	}
	return found, nil
}

func (s batchStore) Stamps(ctx context.Context, ids []string) (found map[string]clerksync.Stamp, err error) {
	if p := runOf(ctx).pages; p != nil {
		p.compare()
	}
	fault := s.call(ctx, "", func(ctx context.Context) error {
		found, err = s.inner.Stamps(ctx, ids)
		return err
	})
	if fault != nil {
		return nil, fault
	}
	return found, nil
}

// Undeleted fails before the first stamp or after the last one.
func (s batchStore) Undeleted(ctx context.Context) iter.Seq2[clerksync.Stamp, error] {
	return func(yield func(clerksync.Stamp, error) bool) {
		var stamps []clerksync.Stamp
		fault := s.call(ctx, "", func(ctx context.Context) error {
			for stamp, err := range s.inner.Undeleted(ctx) {
				if err != nil {
					return err
				}
				stamps = append(stamps, stamp)
			}
			return nil
		})
		for _, stamp := range stamps {
			if !yield(stamp, nil) {
				return
			}
		}
		if fault != nil {
			yield(clerksync.Stamp{}, fault)
		}
	}
}

// snapshot is a record between one write and the next.
type snapshot struct {
	key          recordKey
	record       *clerksync.User
	from, until  uint64    // by world.seq; until is 0 for the present record
	supersededAt time.Time // zero for the present record
}

// upserted checks what an Upsert did.
func (s *store) upserted(r *run, u *clerksync.User, outcome clerksync.Outcome, err error) {
	if outcome == clerksync.Created {
		s.w.created(r, u)
	}
	applied := outcome == clerksync.Created || outcome == clerksync.Updated || outcome == clerksync.Adopted
	s.note(u.ClerkID, applied && (u.RoleFromClerk || len(u.Omit) == 0)) // a part may leave the role
	s.w.checkEmail(u, err)
}

// note reads a record after a write and checks what must hold after each write. synced says that
// a sync was applied, which may have changed the role.
func (s *store) note(id string, synced bool) {
	w := s.w
	u := w.byID[id]
	if u == nil {
		w.fail("a record of %s, who was never in Clerk, was written", id)
		return
	}
	r, err := s.inner.User(context.Background(), id)
	last := u.last()
	if errors.Is(err, clerksync.ErrNotFound) {
		if last != nil {
			w.fail("the record of %s is gone", id)
		}
		return
	}
	if err != nil {
		w.fail("reading %s: %v", id, err)
		return
	}
	key := keyOf(r)
	if last == nil {
		w.appeared(u, r)
	}
	if synced {
		w.applied(u, key.facts)
	}
	if last == nil || last.key != key {
		w.seq++
		switch {
		case last != nil:
			last.until, last.supersededAt = w.seq, w.clock.Now()
			s.compare(u, last.record, r)
		case key.Deleted != 0 && !w.isLegacy(r.ID):
			w.checkDeletion(u, &recordKey{RecordCreated: key.RecordCreated}, &key)
		}
		u.records = append(u.records, &snapshot{key: key, record: r, from: w.seq})
	}
	w.checkRecord(u, &key)
}

// compare checks that nothing went back that never may.
func (s *store) compare(u *user, before, after *clerksync.User) {
	w := s.w
	if after.ID != before.ID {
		w.fail("the record of %s has another ID", u.id)
	}
	was, is := keyOf(before), keyOf(after)
	switch {
	case was.Deleted != 0 && is.Deleted == 0 && u.mistaken: // taken back
	case was.Deleted != 0:
		w.checkTombstone(u, &was, &is)
	case is.Deleted != 0:
		w.checkDeletion(u, &was, &is)
	case is.SignedIn < was.SignedIn:
		w.fail("lastSignInAt of %s went back from %v to %v", u.id, before.LastSignInAt, after.LastSignInAt)
	}
	if after.SyncedAt.Before(before.SyncedAt) {
		w.fail("syncedAt of %s went back from %v to %v", u.id, before.SyncedAt, after.SyncedAt)
	}
	if after.ClerkUpdatedAt.Before(before.ClerkUpdatedAt) {
		w.fail("the version of %s went back from %v to %v", u.id, before.ClerkUpdatedAt, after.ClerkUpdatedAt)
	}
	if !after.CreatedAt.Equal(before.CreatedAt) {
		w.fail("createdAt of %s went from %v to %v", u.id, before.CreatedAt, after.CreatedAt)
	}
}

// checkRecord checks one record: the app's fields are as the app wrote them, and the others are a
// state that the user had in Clerk at syncedAt or later.
func (w *world) checkRecord(u *user, key *recordKey) {
	if key.Deleted != 0 {
		if u.deletedAt == 0 && !u.mistaken {
			w.fail("%s is marked deleted and is in Clerk", u.id)
		}
		if key.Active {
			w.fail("%s is deleted and active", u.id)
		}
		return // see checkDeletion
	}
	if key.Active == u.app.Suspended && !u.mistaken {
		w.fail("isActive of %s is %t, and the app suspended the user: %t", u.id, key.Active, u.app.Suspended)
	}
	if key.Role != u.app.Role || key.Location != (clerksync.Location{City: u.app.City}) {
		w.fail("the app's fields of %s are %s, %+v; it wrote %+v", u.id, key.Role, key.Location, u.app)
	}
	if key.SignedIn > u.signedIn {
		w.fail("lastSignInAt of %s is ahead of Clerk's", u.id)
	}
	if w.ahead {
		return // then syncedAt may be wrong
	}
	if key.Synced > ms(w.clock.Now()) {
		w.fail("syncedAt of %s is in the future", u.id)
	}
	if !w.wasSince(u, key.facts, key.Synced) {
		w.fail("the record of %s was confirmed at %d, and was not the state in Clerk since:\n%+v\nClerk's history: %+v",
			u.id, key.Synced, key.facts, u.states)
	}
}

// offered counts interleavings that show in what a run offers to the Store.
func (s *store) offered(r *run, u *clerksync.User) {
	w := s.w
	known := w.byID[u.ClerkID]
	if known == nil {
		return
	}
	last := known.last()
	if last != nil && last.key.Deleted == 0 && last.key.facts.Version == ms(u.ClerkUpdatedAt) {
		if f := factsOfRecord(u); f != last.key.facts {
			w.counts.add(equalVersion)
		}
	}
	if r.clerkRead > 0 && known.webhookAt > r.clerkRead {
		w.counts.add(readRacesWebhook)
	}
	if r.p.skew > 0 && r.kind != deliver {
		w.counts.add(clockAhead)
	}
}

// deactivating checks that the run may delete the user.
func (s *store) deactivating(r *run, id string) {
	w := s.w
	u := w.byID[id]
	switch {
	case u == nil:
		return
	case u.deletedAt == 0 && !u.mistaken:
		w.fail("%s deactivates %s, who is in Clerk", r.kind, id)
	case r.kind != deliver && r.kind != reconcile:
		w.fail("%s deactivates %s: only a webhook and Reconcile may", r.kind, id)
	}
	if last := u.last(); last != nil && last.key.Deleted == 0 && u.app.Suspended {
		w.counts.add(suspendedDeleted)
	}
}

func (w *world) outcome(o clerksync.Outcome) { w.counts.add("Outcome " + o.String()) }
