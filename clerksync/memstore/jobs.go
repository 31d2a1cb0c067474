package memstore

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// owe replaces the state of one of r's jobs.
func owe(r *clerksync.User, kind clerksync.JobKind, state clerksync.JobState) {
	jobs := clerksync.Jobs{}
	if r.Jobs != nil {
		jobs = *r.Jobs
	}
	if kind == clerksync.JobDelete {
		jobs.Delete = state.Canonical()
	} else {
		jobs.Create = state.Canonical()
	}
	if r.Jobs = &jobs; jobs == (clerksync.Jobs{}) {
		r.Jobs = nil
	}
}

// ChangeJob implements [clerksync.JobStore].
func (s *Store) ChangeJob(ctx context.Context, c clerksync.JobChange) (bool, error) {
	if err := ctxErr(ctx); err != nil {
		return false, err
	}
	if c.ClerkID == "" {
		return false, errors.New("memstore: ChangeJob needs a ClerkID")
	}
	s.mu.Lock()
	defer s.mu.Unlock()

	r := s.records[c.ClerkID].Clone()
	if r == nil || r.Jobs.Of(c.Kind) != c.From.Canonical() {
		return false, nil
	}
	if !c.EndsAttempt() && (r.DeletedAt.IsZero() != c.DeletedAt.IsZero() || !r.DeletedAt.IsZero() && !r.DeletedAt.Equal(canonical(c.DeletedAt))) {
		return false, nil
	}
	owe(r, c.Kind, c.To)
	s.records[c.ClerkID] = r
	return true, nil
}

// DueJobs implements [clerksync.JobStore]. The jobs that are due longest come first.
func (s *Store) DueJobs(ctx context.Context, kind clerksync.JobKind, by time.Time, limit int) ([]clerksync.JobEntry, error) {
	var due []clerksync.JobEntry
	for entry, err := range s.Jobs(ctx) {
		if err != nil {
			return nil, err
		}
		if entry.Kind == kind && !entry.State.Due.IsZero() && !entry.State.Due.After(by) && !s.waits(entry, by) {
			due = append(due, entry)
		}
	}
	slices.SortStableFunc(due, func(a, b clerksync.JobEntry) int { return a.State.Due.Compare(b.State.Due) })
	return due[:min(len(due), max(limit, 0))], nil
}

// waits reports whether a delete job has to wait, because the create job is running.
func (s *Store) waits(entry clerksync.JobEntry, by time.Time) bool {
	if entry.Kind != clerksync.JobDelete {
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	create := s.records[entry.ClerkID].Jobs.Of(clerksync.JobCreate)
	return create.Token != "" && create.Due.After(by)
}

// Jobs implements [clerksync.JobStore]. It yields the jobs of the moment when the iteration
// began, in ascending order of ClerkID. The Store may be used during it.
func (s *Store) Jobs(ctx context.Context) iter.Seq2[clerksync.JobEntry, error] {
	return func(yield func(clerksync.JobEntry, error) bool) {
		for _, entry := range s.jobs() {
			if ctx.Err() != nil {
				break
			}
			if !yield(entry, nil) {
				return
			}
		}
		if err := ctxErr(ctx); err != nil {
			yield(clerksync.JobEntry{}, err)
		}
	}
}

func (s *Store) jobs() []clerksync.JobEntry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var entries []clerksync.JobEntry
	for _, r := range s.records {
		for _, kind := range []clerksync.JobKind{clerksync.JobCreate, clerksync.JobDelete} {
			state := r.Jobs.Of(kind)
			if !state.Due.IsZero() || !state.FailedAt.IsZero() {
				entries = append(entries, clerksync.JobEntry{ClerkID: r.ClerkID, Kind: kind, State: state})
			}
		}
	}
	slices.SortStableFunc(entries, func(a, b clerksync.JobEntry) int { return cmp.Compare(a.ClerkID, b.ClerkID) })
	return entries
}

// PrepareJobs implements [clerksync.JobStore]. There is nothing to prepare.
func (s *Store) PrepareJobs(ctx context.Context, _ clerksync.JobKind) error { return ctxErr(ctx) }
