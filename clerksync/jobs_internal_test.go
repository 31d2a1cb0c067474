package clerksync

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"
)

var jobNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Rule: OnCreate is for users who signed up at most NewFor ago; an unknown ClerkCreatedAt owes no
// job.
func TestCreateDue(t *testing.T) {
	const week = 7 * 24 * time.Hour
	for name, tt := range map[string]struct {
		signedUp time.Time
		owes     bool
	}{
		"just now":          {jobNow, true},
		"by a clock ahead":  {jobNow.Add(time.Minute), true},
		"exactly NewFor":    {jobNow.Add(-week), true},
		"a moment too long": {jobNow.Add(-week - time.Millisecond), false},
		"unknown":           {time.Time{}, false},
	} {
		due := createDue(&User{ClerkCreatedAt: tt.signedUp}, week, jobNow)
		if tt.owes != due.Equal(jobNow) || tt.owes == due.IsZero() {
			t.Errorf("%s: due at %v, want a job: %t", name, due, tt.owes)
		}
	}
	if due := createDue(&User{}, math.MaxInt64, jobNow); !due.IsZero() {
		t.Error("an unknown ClerkCreatedAt owes a job if NewFor has no end")
	}
}

// Rules: a claim needs what was read; create needs a record that is not deleted, delete the
// deletion that it was made for; a job out of attempts whose lease has run out has failed; OnDelete
// waits for a running OnCreate.
func TestNextStep(t *testing.T) {
	const most = 3
	before, after := jobNow.Add(-time.Second), jobNow.Add(time.Second)
	deleted := jobNow.Add(-time.Hour)
	for name, tt := range map[string]struct {
		kind      JobKind
		jobs      *Jobs
		deletedAt time.Time
		want      jobStep
	}{
		"no jobs":                   {JobCreate, nil, time.Time{}, stepNone},
		"another job":               {JobCreate, &Jobs{Delete: JobState{Due: before}}, deleted, stepNone},
		"ended":                     {JobCreate, &Jobs{Create: JobState{Attempt: 1}}, time.Time{}, stepNone},
		"failed":                    {JobCreate, &Jobs{Create: JobState{Attempt: 3, FailedAt: before}}, time.Time{}, stepNone},
		"due":                       {JobCreate, &Jobs{Create: JobState{Due: before}}, time.Time{}, stepClaim},
		"due now":                   {JobCreate, &Jobs{Create: JobState{Due: jobNow}}, time.Time{}, stepClaim},
		"not yet due":               {JobCreate, &Jobs{Create: JobState{Due: after}}, time.Time{}, stepWait},
		"leased":                    {JobCreate, &Jobs{Create: JobState{Due: after, Token: "t", Attempt: 1}}, time.Time{}, stepWait},
		"lease over":                {JobCreate, &Jobs{Create: JobState{Due: jobNow, Token: "t", Attempt: 2}}, time.Time{}, stepClaim},
		"last lease over":           {JobCreate, &Jobs{Create: JobState{Due: jobNow, Token: "t", Attempt: 3}}, time.Time{}, stepFail},
		"last lease runs":           {JobCreate, &Jobs{Create: JobState{Due: after, Token: "t", Attempt: 3}}, time.Time{}, stepWait},
		"fewer attempts by now":     {JobCreate, &Jobs{Create: JobState{Due: jobNow, Attempt: 9}}, time.Time{}, stepFail},
		"user deleted":              {JobCreate, &Jobs{Create: JobState{Due: before}}, deleted, stepDrop},
		"user deleted, not yet due": {JobCreate, &Jobs{Create: JobState{Due: after, Attempt: 1}}, deleted, stepDrop},
		"user deleted, running":     {JobCreate, &Jobs{Create: JobState{Due: after, Token: "t", Attempt: 1}}, deleted, stepWait},
		"delete":                    {JobDelete, &Jobs{Delete: JobState{Due: before, DeletedAt: deleted}}, deleted, stepClaim},
		"delete of any":             {JobDelete, &Jobs{Delete: JobState{Due: before}}, deleted, stepClaim},
		"delete of another":         {JobDelete, &Jobs{Delete: JobState{Due: before, DeletedAt: before}}, deleted, stepDrop},
		"delete of the restored":    {JobDelete, &Jobs{Delete: JobState{Due: before, DeletedAt: deleted}}, time.Time{}, stepDrop},
		"delete beside a creation": {
			JobDelete, &Jobs{Create: JobState{Due: after, Token: "t"}, Delete: JobState{Due: before, DeletedAt: deleted}}, deleted, stepWait,
		},
		"delete beside an owed creation": {
			JobDelete, &Jobs{Create: JobState{Due: before}, Delete: JobState{Due: before, DeletedAt: deleted}}, deleted, stepClaim,
		},
		"delete beside a dead creation": {
			JobDelete, &Jobs{Create: JobState{Due: jobNow, Token: "t"}, Delete: JobState{Due: before, DeletedAt: deleted}}, deleted, stepClaim,
		},
		"last delete beside a creation": {
			JobDelete, &Jobs{Create: JobState{Due: after, Token: "t"}, Delete: JobState{Due: before, Attempt: 3}}, deleted, stepWait,
		},
	} {
		u := &User{Jobs: tt.jobs, DeletedAt: tt.deletedAt}
		if got := nextStep(u, tt.kind, jobNow, most); got != tt.want {
			t.Errorf("%s: step %d, want %d", name, got, tt.want)
		}
	}
}

// Rules: attempts are counted on claiming; others may claim a minute after the lease.
func TestClaimed(t *testing.T) {
	job := JobState{Due: jobNow, Attempt: 2, Token: "old", Code: "error", DeletedAt: jobNow}
	want := JobState{Due: jobNow.Add(6 * time.Minute), Attempt: 3, Token: "new", Code: "error", DeletedAt: jobNow}
	if got := job.claimed("new", jobNow, 5*time.Minute); got != want {
		t.Errorf("claimed: %+v, want %+v", got, want)
	}
}

// Rules: failing unsets due; Discard ends the job without a failure; the last attempt fails it.
func TestAfterAttempt(t *testing.T) {
	job := JobState{Due: jobNow.Add(time.Hour), Attempt: 2, Token: "t", Code: "panic", DeletedAt: jobNow}
	ended := JobState{Attempt: 2, DeletedAt: jobNow}
	with := func(change func(*JobState)) JobState {
		c := ended
		change(&c)
		return c
	}
	later := jobNow.Add(15 * time.Second) // half of the second bound, and half of its half
	plain := errors.New("mail server down")
	for name, tt := range map[string]struct {
		err     error
		most    int
		want    JobState
		outcome JobOutcome
	}{
		"success":          {nil, 3, ended, JobSucceeded},
		"success at last":  {nil, 2, ended, JobSucceeded},
		"an error":         {plain, 3, with(func(j *JobState) { j.Due, j.Code = later, "error" }), JobRetried},
		"a panic":          {&panicError{1}, 3, with(func(j *JobState) { j.Due, j.Code = later, "panic" }), JobRetried},
		"a timeout":        {&lateError{plain}, 3, with(func(j *JobState) { j.Due, j.Code = later, "timeout" }), JobRetried},
		"the last attempt": {plain, 2, with(func(j *JobState) { j.FailedAt, j.Code = jobNow, "error" }), JobFailed},
		"discarded":        {Discard(plain), 3, with(func(j *JobState) { j.Code = "discarded" }), JobDiscarded},
		"discarded, wrapped": {
			fmt.Errorf("welcome: %w", Discard(plain)), 2, with(func(j *JobState) { j.Code = "discarded" }), JobDiscarded,
		},
	} {
		got, outcome := job.afterAttempt(tt.err, tt.most, jobNow, 0.5)
		if got != tt.want || outcome != tt.outcome {
			t.Errorf("%s: %+v, %s; want %+v, %s", name, got, outcome, tt.want, tt.outcome)
		}
	}
}

// Rule: the waits between attempts are bounded.
func TestRetryWait(t *testing.T) {
	for attempts, bound := range map[int]time.Duration{
		0: 10 * time.Second, 1: 10 * time.Second, 2: 20 * time.Second, 4: 80 * time.Second, 9: 2560 * time.Second,
		10: time.Hour, 20: time.Hour, 1 << 30: time.Hour,
	} {
		if low, high := retryWait(attempts, 0), retryWait(attempts, 1); low != bound/2 || high != bound {
			t.Errorf("after %d attempts: from %v to %v, want up to %v", attempts, low, high, bound)
		}
	}
}

func TestDiscard(t *testing.T) {
	cause := errors.New("no such address")
	if err := Discard(cause); !errors.Is(err, cause) || err.Error() != cause.Error() {
		t.Errorf("Discard: %v", err)
	}
	if err := Discard(nil); err != nil {
		t.Errorf("Discard(nil): %v, want nil", err)
	}
}

func TestJobPending(t *testing.T) {
	for name, tt := range map[string]struct {
		job  JobState
		want time.Duration
	}{
		"running":         {JobState{Due: jobNow.Add(6 * time.Minute), Token: "t"}, 2 * time.Second},
		"due":             {JobState{Due: jobNow}, 2 * time.Second},
		"retried soon":    {JobState{Due: jobNow.Add(20 * time.Second), Attempt: 1}, 20 * time.Second},
		"retried later":   {JobState{Due: jobNow.Add(time.Hour), Attempt: 1}, time.Minute},
		"failed for good": {JobState{FailedAt: jobNow, Attempt: 20}, time.Minute},
	} {
		var p *Problem
		err := jobPending(&User{Jobs: &Jobs{Create: tt.job}}, jobNow)
		if !errors.As(err, &p) || p.RetryAfter != tt.want || p.Code != CodeJobPending || errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v, try again after %v, want %v", name, err, p.RetryAfter, tt.want)
		}
	}
}
