package clerksync

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// Visits and create jobs
//
// A lookup that finds a create job that can be claimed starts it in the background. That does not
// delay the visit, and needs no further read: the record has the state of its jobs.
//
// With Await, the lookup waits until the job has succeeded, or was discarded, and the visit gets
// the record as it is then. An attempt of this process is waited for; one of another process is
// polled. After awaitTimeout, after a failed attempt and for a failed job the answer is 503
// "job_pending": standby and FailOpen do not apply, because the user is known not to be set up.
// Such a record is not cached, so each later visit looks again.

const (
	// awaitTimeout is how long a lookup waits for a create job.
	awaitTimeout = 5 * time.Second
	// pollEvery is how often the state of another process's attempt is read.
	pollEvery = 250 * time.Millisecond
	// The advice of job_pending: while an attempt runs, and at most.
	pendingRetryAfter    = 2 * time.Second
	maxPendingRetryAfter = time.Minute
)

// errNotSetUp is the cause of job_pending.
var errNotSetUp = errors.New("OnCreate has not succeeded for the user yet")

// awaited reports whether visits of the user must wait for the create job.
func (s *Syncer) awaited(u *User) bool {
	return s.cfg.Jobs.Await && s.cfg.OnCreate != nil && u.Jobs.Of(JobCreate).unfinished() && !barred(u)
}

// tryCreateJob starts the create job of u in the background, if it can be claimed or has to be
// ended as failed. owed says that the lookup that found u has created it.
func (s *Syncer) tryCreateJob(ctx context.Context, u *User, owed bool) {
	if s.cfg.OnCreate == nil || u.Jobs == nil || barred(u) {
		return
	}
	if step := nextStep(u, JobCreate, s.clock.Now(), s.cfg.Jobs.MaxAttempts); step == stepClaim || step == stepFail {
		s.startJob(ctx, jobRef{u.ClerkID, JobCreate}, owed)
	}
}

// afterLookup deals with the create job of a record that a lookup has found. With Await, it
// returns the record once the job is done.
func (s *Syncer) afterLookup(ctx context.Context, f found) (found, error) {
	if !s.awaited(f.user) {
		s.tryCreateJob(ctx, f.user, f.outcome == Created)
		return f, nil
	}
	bounded, cancel := clock.WithTimeout(ctx, s.clock, awaitTimeout)
	defer cancel()
	for s.awaited(f.user) {
		attempt, err := s.createAttempt(ctx, f)
		if err == nil {
			err = s.awaitAttempt(bounded, attempt)
		}
		if err != nil {
			return found{}, jobPending(f.user, s.clock.Now())
		}
		u, err := s.stored(ctx, f.user.ClerkID)
		if err != nil {
			return found{}, storeError(err)
		}
		// If the job is still to be claimed, the attempt has met a failure of the Store's. If it is
		// leased, another process was faster.
		now, unclaimed := s.clock.Now(), u.Jobs.Of(JobCreate) == f.user.Jobs.Of(JobCreate)
		if attempt != nil && unclaimed && !u.Jobs.Of(JobCreate).leased(now) {
			return found{}, jobPending(u, now)
		}
		f.user = u
	}
	return f, nil
}

// createAttempt returns the attempt of a create job to wait for; nil if it is another process's, or
// this one has no room for it. The error says that there is none.
func (s *Syncer) createAttempt(ctx context.Context, f found) (<-chan struct{}, error) {
	ref, now := jobRef{f.user.ClerkID, JobCreate}, s.clock.Now()
	switch nextStep(f.user, JobCreate, now, s.cfg.Jobs.MaxAttempts) {
	case stepClaim, stepFail:
		return s.startJob(ctx, ref, f.outcome == Created), nil
	case stepWait:
		if f.user.Jobs.Create.leased(now) {
			return s.jobs.flight(ref), nil
		}
	}
	return nil, errNotSetUp
}

// awaitAttempt waits until an attempt has ended, or for a moment if it is another process's.
func (s *Syncer) awaitAttempt(ctx context.Context, attempt <-chan struct{}) error {
	if attempt == nil {
		return s.clock.Sleep(ctx, pollEvery)
	}
	select {
	case <-attempt:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// flight returns the channel of an attempt that is under way in the background; nil for none.
func (r *jobRunner) flight(ref jobRef) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if flight := r.flights[ref]; flight != nil {
		return flight
	}
	return nil
}

// jobPending is the answer to a visit whose user's create job has not succeeded.
func jobPending(u *User, now time.Time) error {
	job, advice, err := u.Jobs.Of(JobCreate), pendingRetryAfter, errNotSetUp
	switch {
	case !job.FailedAt.IsZero():
		advice, err = maxPendingRetryAfter, fmt.Errorf("%w: the job has failed, and an operator has to act", errNotSetUp)
	case !job.leased(now):
		advice = min(max(job.Due.Sub(now), pendingRetryAfter), maxPendingRetryAfter)
	}
	return &Problem{Status: http.StatusServiceUnavailable, Code: CodeJobPending, RetryAfter: advice, Err: err}
}
