package storetest

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// docJobs returns the jobs of a document. They are kept as they are under their kinds.
func docJobs(doc map[string]any) *clerksync.Jobs {
	all, _ := doc["clerkJobs"].(map[string]any)
	create, _ := all["create"].(clerksync.JobState)
	del, _ := all["delete"].(clerksync.JobState)
	if create == (clerksync.JobState{}) && del == (clerksync.JobState{}) {
		return nil
	}
	return &clerksync.Jobs{Create: create, Delete: del}
}

// owe replaces a job of a document. It returns false if something else is in its place.
func (s *docStore) owe(doc map[string]any, kind clerksync.JobKind, state clerksync.JobState) bool {
	all, isDocument := doc["clerkJobs"].(map[string]any)
	_, isNull := doc["clerkJobs"].(Null)
	switch {
	case isDocument:
	case isNull || doc["clerkJobs"] == nil || s.fault == "jobs replace what is there":
		all = make(map[string]any)
		doc["clerkJobs"] = all
	default:
		return false
	}
	all[string(kind)] = state.Canonical()
	if state == (clerksync.JobState{}) {
		delete(all, string(kind))
	}
	return true
}

func (s *docStore) oweCreate(doc map[string]any, u *clerksync.User) {
	if !u.CreateDue.IsZero() && s.fault != "owes no create job" {
		s.owe(doc, clerksync.JobCreate, clerksync.JobState{Due: u.CreateDue})
	}
}

// DeactivateOwing implements clerksync.JobStore.
func (s *docStore) DeactivateOwing(
	ctx context.Context, clerkID, _ string, at, due time.Time,
) (clerksync.Result, clerksync.Owing, error) {
	s.mu.Lock()
	before, _ := s.read(clerkID)
	s.mu.Unlock()
	res, err := s.Deactivate(ctx, clerkID, at)
	if err != nil {
		return res, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	doc := s.doc(clerkID)
	deletedAt := decode(doc).DeletedAt
	owes := before != nil && before.DeletedAt.IsZero() && deletedAt.Equal(at.UTC().Truncate(time.Millisecond)) || before == nil && s.fault == "a tombstone owes a job"
	if !owes || s.fault == "owes no delete job" {
		return res, clerksync.OwesNone, nil
	}
	if !s.owe(doc, clerksync.JobDelete, clerksync.JobState{Due: due, DeletedAt: deletedAt}) {
		return res, clerksync.OwesNoRoom, nil
	}
	res.User, err = s.read(clerkID)
	return res, clerksync.OwesJob, err
}

// ChangeJob implements clerksync.JobStore.
func (s *docStore) ChangeJob(ctx context.Context, c clerksync.JobChange) (bool, error) {
	if err := s.jobErr(ctx); err != nil {
		return false, err
	}
	if c.ClerkID == "" {
		return false, errors.New("no ClerkID")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.read(c.ClerkID)
	if err != nil || u == nil {
		return false, err
	}
	sameState := u.Jobs.Of(c.Kind) == c.From
	sameDeletion := u.DeletedAt.Equal(c.DeletedAt)
	switch {
	case s.fault == "claims whatever was read" && !c.EndsAttempt(), s.fault == "ends any attempt" && c.EndsAttempt():
		sameState = true
	case s.fault == "claims any deletion", c.EndsAttempt() && s.fault != "an end needs the deletion":
		sameDeletion = true
	}
	if !sameState || !sameDeletion && (!c.EndsAttempt() || s.fault == "an end needs the deletion") {
		return false, nil
	}
	to := c.To
	if s.fault == "an ended job stays" && to == (clerksync.JobState{}) {
		to.Attempt = 1
	}
	return s.owe(s.doc(c.ClerkID), c.Kind, to), nil
}

func (s *docStore) jobErr(ctx context.Context) error {
	if s.fault == "jobs ignore the context" {
		return nil
	}
	return s.ctxErr(ctx)
}

// DueJobs implements clerksync.JobStore.
func (s *docStore) DueJobs(ctx context.Context, kind clerksync.JobKind, by time.Time, limit int) ([]clerksync.JobEntry, error) {
	if err := s.jobErr(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var due []clerksync.JobEntry
	for _, doc := range s.docs {
		jobs := docJobs(doc)
		state := jobs.Of(kind)
		waits := kind == clerksync.JobDelete && s.runs(jobs.Of(clerksync.JobCreate), by) && s.fault != "deletes beside a creation"
		isDue := !state.Due.IsZero() && (!state.Due.After(by) || s.fault == "all jobs are due")
		if isDue && !waits && len(due) < limit {
			due = append(due, clerksync.JobEntry{ClerkID: doc["clerkId"].(string), Kind: kind, State: state})
		}
	}
	return due, nil
}

// Jobs implements clerksync.JobStore.
func (s *docStore) Jobs(ctx context.Context) iter.Seq2[clerksync.JobEntry, error] {
	return func(yield func(clerksync.JobEntry, error) bool) {
		if err := s.jobErr(ctx); err != nil {
			yield(clerksync.JobEntry{}, err)
			return
		}
		s.mu.Lock()
		var all []clerksync.JobEntry
		for _, doc := range s.docs {
			for _, kind := range []clerksync.JobKind{clerksync.JobCreate, clerksync.JobDelete} {
				state := docJobs(doc).Of(kind)
				if !state.Due.IsZero() || !state.FailedAt.IsZero() || state.Attempt > 0 && s.fault == "lists the ended" {
					all = append(all, clerksync.JobEntry{ClerkID: doc["clerkId"].(string), Kind: kind, State: state})
				}
			}
		}
		s.mu.Unlock()
		for _, entry := range all {
			if !yield(entry, nil) {
				return
			}
		}
	}
}

// PrepareJobs implements clerksync.JobStore.
func (s *docStore) PrepareJobs(ctx context.Context, _ clerksync.JobKind) error { return s.jobErr(ctx) }

// runs reports whether a job is running.
func (s *docStore) runs(job clerksync.JobState, now time.Time) bool {
	return job.Token != "" && job.Due.After(now) && s.fault != "restores a running job"
}

// takeBack takes the delete job of a document back.
func (s *docStore) takeBack(doc map[string]any, job clerksync.JobState) {
	if s.fault != "restores without the job" && job != (clerksync.JobState{}) {
		s.owe(doc, clerksync.JobDelete, clerksync.JobState{Attempt: job.Attempt})
	}
}
