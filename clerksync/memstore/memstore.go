// Package memstore keeps records in memory. It is the reference implementation of
// [clerksync.Store], [clerksync.BatchStore], [clerksync.RestoreStore] and [clerksync.JobStore],
// and the Store for an app's unit tests.
//
// It behaves like a Store on a database, down to the precision of its times, and passes the same
// conformance suite, package storetest. Do not use it in production: the records are gone when
// the process ends, and other processes do not see them.
//
// An app owns some fields of the record and writes them to the database itself. [Store.Edit]
// makes such a write:
//
//	store := memstore.New()
//	syncer, err := clerksync.New(clerksync.Config{Store: store, …})
//	…
//	err = store.Edit("user_2abc", func(u *clerksync.User) { u.Role = clerksync.RoleAdmin })
package memstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// Store is a [clerksync.BatchStore], a [clerksync.RestoreStore] and a [clerksync.JobStore] in
// memory. Create one with [New]. It is safe for concurrent use, and everything it returns is a copy.
type Store struct {
	// Now is the clock. CreatedAt and UpdatedAt come from it, and [clerksync.Decide] uses it
	// to detect confirmations from the future. Set it before the first use.
	//
	// Defaults to time.Now.
	Now func() time.Time

	// UniqueEmail makes the Store behave like a database with a unique index on the e-mail
	// address. An Upsert that would give two users the same address fails with a
	// [*clerksync.ConflictError]. If the other user is deleted, its record loses the address
	// instead. Set it before the first use.
	//
	// Defaults to false.
	UniqueEmail bool

	mu      sync.RWMutex
	records map[string]*clerksync.User // by ClerkID; replaced, never modified
	lastID  uint64
}

var (
	_ clerksync.BatchStore   = (*Store)(nil)
	_ clerksync.RestoreStore = (*Store)(nil)
	_ clerksync.JobStore     = (*Store)(nil)
)

// New returns an empty Store.
func New() *Store {
	return &Store{records: make(map[string]*clerksync.User), lastID: rand.Uint64()}
}

// User implements [clerksync.Store].
func (s *Store) User(ctx context.Context, clerkID string) (*clerksync.User, error) {
	if err := ctxErr(ctx); err != nil {
		return nil, err
	}
	s.mu.RLock()
	r := s.records[clerkID]
	s.mu.RUnlock()
	if r == nil {
		return nil, fmt.Errorf("memstore: %w", clerksync.ErrNotFound)
	}
	return r.Clone(), nil
}

// Upsert implements [clerksync.Store]. Result.User is nil for Updated, as in mongostore, so that
// a test of an app does not come to rely on it.
func (s *Store) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	if err := ctxErr(ctx); err != nil {
		return clerksync.Result{}, err
	}
	return s.upsert(u)
}

func (s *Store) upsert(u *clerksync.User) (clerksync.Result, error) {
	u, err := u.Canonical()
	if err != nil {
		return clerksync.Result{}, fmt.Errorf("memstore: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()

	now, stored := s.now(), s.records[u.ClerkID]
	if stored == nil && len(u.Omit) > 0 {
		return clerksync.Result{}, fmt.Errorf("memstore: %w", clerksync.ErrNotFound)
	}
	outcome := clerksync.Decide(stored, u, now)
	r := stored.Clone()
	switch outcome {
	case clerksync.Created:
		r = s.newRecord(u.ClerkID, now)
		r.Role, r.Location, r.IsActive = u.Role, u.Location, true
		owe(r, clerksync.JobCreate, clerksync.JobState{Due: u.CreateDue})
		write(r, u)
	case clerksync.Updated:
		r.UpdatedAt = now
		write(r, u)
	case clerksync.Unchanged:
		confirm(r, u)
	default: // Stale or Deactivated: nothing is written
		return clerksync.Result{Outcome: outcome, User: r}, nil
	}
	if s.UniqueEmail && outcome != clerksync.Unchanged {
		if err := s.claimEmail(r, now); err != nil {
			return clerksync.Result{}, err
		}
	}
	s.records[r.ClerkID] = r
	if outcome == clerksync.Updated {
		return clerksync.Result{Outcome: outcome}, nil
	}
	return clerksync.Result{Outcome: outcome, User: r.Clone()}, nil
}

// Deactivate implements [clerksync.Store]. An at that is zero or before 1970
// means now. Result.User is nil unless the record was deleted before, as in mongostore.
func (s *Store) Deactivate(ctx context.Context, clerkID string, at time.Time) (clerksync.Result, error) {
	res, _, err := s.deactivate(ctx, clerkID, at, time.Time{})
	return res, err
}

// DeactivateOwing implements [clerksync.JobStore]. externalID has no effect: this Store does not
// adopt.
func (s *Store) DeactivateOwing(ctx context.Context, clerkID, _ string, at, due time.Time) (clerksync.Result, clerksync.Owing, error) {
	return s.deactivate(ctx, clerkID, at, due)
}

// deactivate owes a delete job if due is not zero.
func (s *Store) deactivate(ctx context.Context, clerkID string, at, due time.Time) (clerksync.Result, clerksync.Owing, error) {
	if err := ctxErr(ctx); err != nil {
		return clerksync.Result{}, 0, err
	}
	if clerkID == "" {
		return clerksync.Result{}, 0, errors.New("memstore: Deactivate needs a ClerkID")
	}
	s.mu.Lock()
	defer s.mu.Unlock()

	now, owing := s.now(), clerksync.OwesNone
	if at.Before(time.Unix(0, 0)) {
		at = now
	}
	res := clerksync.Result{Outcome: clerksync.Deactivated}
	r := s.records[clerkID].Clone()
	switch {
	case r == nil:
		r = s.newRecord(clerkID, now)
	case !r.DeletedAt.IsZero():
		res.User = r
		return res, owing, nil
	case !due.IsZero():
		owing = clerksync.OwesJob
		owe(r, clerksync.JobDelete, clerksync.JobState{Due: due, DeletedAt: at})
	}
	r.IsActive, r.DeletedAt, r.UpdatedAt = false, canonical(at), now
	s.records[clerkID] = r
	return res, owing, nil
}

// Restore implements [clerksync.RestoreStore].
func (s *Store) Restore(ctx context.Context, clerkID string, before time.Time) (bool, error) {
	if err := ctxErr(ctx); err != nil {
		return false, err
	}
	if clerkID == "" {
		return false, errors.New("memstore: Restore needs a ClerkID")
	}
	s.mu.Lock()
	defer s.mu.Unlock()

	r, now := s.records[clerkID].Clone(), s.now()
	if r == nil || r.DeletedAt.IsZero() || !r.DeletedAt.Before(canonical(before)) {
		return false, nil
	}
	job := r.Jobs.Of(clerksync.JobDelete)
	if job.Token != "" && job.Due.After(now) { // it is running
		return false, nil
	}
	owe(r, clerksync.JobDelete, clerksync.JobState{Attempt: job.Attempt})
	r.IsActive, r.DeletedAt, r.UpdatedAt, r.ClerkUpdatedAt = true, time.Time{}, now, time.Time{}
	s.records[clerkID] = r
	return true, nil
}

// UpsertBatch implements [clerksync.BatchStore]. It is not a transaction: other writes may come
// between those of the batch.
func (s *Store) UpsertBatch(ctx context.Context, us []*clerksync.User) ([]clerksync.Result, error) {
	if err := ctxErr(ctx); err != nil {
		return nil, err
	}
	results := make([]clerksync.Result, len(us))
	errs := make(map[int]error)
	for i, u := range us {
		r, err := s.upsert(u)
		if err != nil {
			errs[i] = err
		}
		results[i] = r
	}
	if len(errs) > 0 {
		return results, &clerksync.BatchError{Errs: errs}
	}
	return results, nil
}

// Users implements [clerksync.BatchStore].
func (s *Store) Users(ctx context.Context, clerkIDs []string) (map[string]*clerksync.User, error) {
	return collect(ctx, s, clerkIDs, (*clerksync.User).Clone)
}

// Stamps implements [clerksync.BatchStore].
func (s *Store) Stamps(ctx context.Context, clerkIDs []string) (map[string]clerksync.Stamp, error) {
	return collect(ctx, s, clerkIDs, stamp)
}

func collect[T any](ctx context.Context, s *Store, clerkIDs []string, of func(*clerksync.User) T) (map[string]T, error) {
	if err := ctxErr(ctx); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	found := make(map[string]T)
	for _, id := range clerkIDs {
		if r := s.records[id]; r != nil {
			found[id] = of(r)
		}
	}
	return found, nil
}

// Undeleted implements [clerksync.BatchStore]. It yields the records of the moment when the
// iteration began, in ascending order of ClerkID. The Store may be used during it.
func (s *Store) Undeleted(ctx context.Context) iter.Seq2[clerksync.Stamp, error] {
	return func(yield func(clerksync.Stamp, error) bool) {
		for _, st := range s.undeleted() {
			if err := ctxErr(ctx); err != nil {
				yield(clerksync.Stamp{}, err)
				return
			}
			if !yield(st, nil) {
				return
			}
		}
		// An iteration that ends without an error is complete, so a done context is reported here too.
		if err := ctxErr(ctx); err != nil {
			yield(clerksync.Stamp{}, err)
		}
	}
}

func (s *Store) undeleted() []clerksync.Stamp {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var stamps []clerksync.Stamp
	for _, r := range s.records {
		if r.DeletedAt.IsZero() {
			stamps = append(stamps, stamp(r))
		}
	}
	slices.SortFunc(stamps, func(a, b clerksync.Stamp) int { return cmp.Compare(a.ClerkID, b.ClerkID) })
	return stamps
}

// Edit changes a record without the convergence rules, as an app does that writes to its own
// database: to assign a role, to suspend a user (IsActive), to fill in a Location, or to have an
// old record without a ClerkUpdatedAt. If there is no record, the error matches
// [clerksync.ErrNotFound].
//
// f gets a copy, which replaces the record when f returns. ID and ClerkID do not change, and
// UpdatedAt changes only if f changes it. f must not call the Store. A Syncer that has cached the
// record sees the change after its CacheTTL, or after Syncer.Forget.
func (s *Store) Edit(clerkID string, f func(*clerksync.User)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	stored := s.records[clerkID]
	if stored == nil {
		return fmt.Errorf("memstore: %w", clerksync.ErrNotFound)
	}
	u := stored.Clone()
	f(u)
	u.ID, u.ClerkID, u.RoleFromClerk, u.Partial, u.Omit = stored.ID, clerkID, false, false, nil
	u.ExternalID, u.EmailProven, u.CreateDue = "", false, time.Time{}
	r, err := u.Canonical()
	if err != nil {
		return fmt.Errorf("memstore: %w", err)
	}
	s.records[clerkID] = r
	return nil
}

// Len returns the number of records, deleted ones included.
func (s *Store) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.records)
}

// ctxErr returns an error that matches both ctx.Err and the cause, once ctx is done.
func ctxErr(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(cause, err):
		return fmt.Errorf("memstore: %w", cause)
	default:
		return fmt.Errorf("memstore: %w: %w", err, cause)
	}
}

func (s *Store) now() time.Time {
	if s.Now != nil {
		return canonical(s.Now())
	}
	return canonical(time.Now())
}

// canonical returns t as a database returns it: in UTC and whole milliseconds.
func canonical(t time.Time) time.Time { return time.UnixMilli(t.UnixMilli()).UTC() }

// newRecord returns a record whose ID looks like an ObjectID: the seconds, then a counter that
// starts at random.
func (s *Store) newRecord(clerkID string, now time.Time) *clerksync.User {
	s.lastID++
	return &clerksync.User{
		ID:      fmt.Sprintf("%08x%016x", uint32(now.Unix()), s.lastID),
		ClerkID: clerkID, CreatedAt: now, UpdatedAt: now,
	}
}

// claimEmail removes r's e-mail address from deleted records. It fails if another user has it.
func (s *Store) claimEmail(r *clerksync.User, now time.Time) error {
	if r.Email == "" {
		return nil
	}
	var deleted []*clerksync.User
	for _, other := range s.records {
		switch {
		case other.ClerkID == r.ClerkID || other.Email != r.Email:
		case other.DeletedAt.IsZero():
			return &clerksync.ConflictError{Field: "email", Holder: other.ClerkID}
		default:
			deleted = append(deleted, other)
		}
	}
	for _, other := range deleted {
		other = other.Clone()
		other.Email, other.UpdatedAt = "", now
		s.records[other.ClerkID] = other
	}
	return nil
}

func stamp(r *clerksync.User) clerksync.Stamp {
	return clerksync.Stamp{
		ClerkID:        r.ClerkID,
		ClerkUpdatedAt: r.ClerkUpdatedAt, SyncedAt: r.SyncedAt, CreatedAt: r.CreatedAt, DeletedAt: r.DeletedAt,
		IsActive: r.IsActive,
	}
}
