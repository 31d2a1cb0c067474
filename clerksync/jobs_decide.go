package clerksync

import (
	"errors"
	"time"
)

// The decisions about jobs. They are pure: the Store compares and writes, see JobStore.

// leaseGrace is how long after the end of a lease others may claim the job. The clocks of two
// processes may differ by as much.
const leaseGrace = time.Minute

const (
	// firstRetry is how long a job waits at most after its first failed attempt. The bound
	// doubles with each attempt.
	firstRetry = 10 * time.Second
	// maxRetry bounds the wait. The waits between twenty attempts add up to 6 to 11 hours.
	maxRetry = time.Hour
)

// createDue returns the [User].CreateDue for a user: when the job is due if an Upsert creates the
// record, zero if it owes none. A user who signed up more than newFor ago, or at an unknown time, is
// not new.
func createDue(u *User, newFor time.Duration, now time.Time) time.Time {
	if u.ClerkCreatedAt.IsZero() || now.Sub(u.ClerkCreatedAt) > newFor {
		return time.Time{}
	}
	return canonicalTime(now)
}

// unfinished reports whether a job is owed or has failed.
func (j JobState) unfinished() bool { return !j.Due.IsZero() || !j.FailedAt.IsZero() }

// leased reports whether an attempt of the job may be running.
func (j JobState) leased(now time.Time) bool { return j.Token != "" && j.Due.After(now) }

// jobStep is what to do about a job.
type jobStep int

const (
	stepNone  jobStep = iota // nothing is owed
	stepWait                 // it is not due, it is running, or it waits for another job
	stepClaim                // it may be attempted
	stepFail                 // its last attempt did not end
	stepDrop                 // remove it: the user is deleted, or the deletion was taken back
)

// nextStep decides what to do about a job of the record u.
//
//   - A job that is running is left alone until its lease has run out.
//   - A create job is for a user who is not deleted, and a delete job for the deletion that
//     owed it. Otherwise it is dropped.
//   - A delete job waits while a create job of the same user is running.
//   - A job whose last attempt has not ended within its lease has failed.
func nextStep(u *User, kind JobKind, now time.Time, maxAttempts int) jobStep {
	job := u.Jobs.Of(kind)
	switch {
	case job.Due.IsZero():
		return stepNone
	case job.leased(now):
		return stepWait
	case !wanted(u, kind):
		return stepDrop
	case job.Due.After(now):
		return stepWait
	case kind == JobDelete && u.Jobs.Create.leased(now):
		return stepWait
	case job.Attempt >= maxAttempts:
		return stepFail
	}
	return stepClaim
}

// wanted reports whether the record is still in the state for which the job was made.
func wanted(u *User, kind JobKind) bool {
	if kind == JobCreate {
		return u.DeletedAt.IsZero()
	}
	of := u.Jobs.Delete.DeletedAt
	return !u.DeletedAt.IsZero() && (of.IsZero() || of.Equal(u.DeletedAt))
}

// claimed returns the state of a job whose next attempt begins now.
func (j JobState) claimed(token string, now time.Time, lease time.Duration) JobState {
	j.Attempt++
	j.Token, j.Due = token, canonicalTime(now.Add(lease+leaseGrace))
	return j
}

// failed returns the state of a job that has failed for good.
func (j JobState) failed(code string, now time.Time) JobState {
	return JobState{Attempt: j.Attempt, FailedAt: canonicalTime(now), Code: code, DeletedAt: j.DeletedAt}
}

// JobOutcome is what became of an attempt; see [Observation].
type JobOutcome string

// The outcomes of attempts.
const (
	JobSucceeded JobOutcome = "succeeded"
	JobRetried   JobOutcome = "retried"   // the attempt failed, and the job is due again later
	JobFailed    JobOutcome = "failed"    // the last attempt failed, or did not end within its lease
	JobDiscarded JobOutcome = "discarded" // the function returned an error of Discard
	JobDropped   JobOutcome = "dropped"   // no longer wanted: the user is deleted, or the deletion was taken back
	JobLost      JobOutcome = "lost"      // the end could not be written; the job may be attempted once more
)

// The codes of attempts that went wrong: the Code of a JobState.
const (
	jobCodeError     = "error"     // the function returned an error
	jobCodePanic     = "panic"     // it panicked
	jobCodeTimeout   = "timeout"   // its context had ended
	jobCodeUnended   = "unended"   // the process did not say how it ended
	jobCodeDiscarded = "discarded" // the function asked for that
)

// afterAttempt decides what becomes of a job whose attempt has ended. random is from 0 up to 1.
func (j JobState) afterAttempt(err error, maxAttempts int, now time.Time, random float64) (JobState, JobOutcome) {
	ended := JobState{Attempt: j.Attempt, DeletedAt: j.DeletedAt}
	var discard *discardError
	switch {
	case err == nil:
		return ended, JobSucceeded
	case errors.As(err, &discard):
		ended.Code = jobCodeDiscarded
		return ended, JobDiscarded
	case j.Attempt >= maxAttempts:
		return j.failed(jobCodeOf(err), now), JobFailed
	}
	ended.Due, ended.Code = canonicalTime(now.Add(retryWait(j.Attempt, random))), jobCodeOf(err)
	return ended, JobRetried
}

// retryWait returns how long a job waits after so many attempts: between a half and the whole
// of a bound that doubles.
func retryWait(attempts int, random float64) time.Duration {
	bound := min(firstRetry<<min(max(attempts-1, 0), 20), maxRetry)
	return bound/2 + time.Duration(random*float64(bound/2))
}

// jobCodeOf returns the code for the error of an attempt.
func jobCodeOf(err error) string {
	var panicked *panicError
	switch {
	case errors.As(err, &panicked):
		return jobCodePanic
	case errors.Is(err, errLeaseEnded):
		return jobCodeTimeout
	}
	return jobCodeError
}

// errLeaseEnded is the cause of the end of a function's context.
var errLeaseEnded = errors.New("the attempt took longer than Config.Jobs.Lease")
