package clerksync

import (
	"context"
	"fmt"
	"time"
)

// Jobs: once per user
//
// A job is a call of OnCreate or OnDelete that is still to be made: the record owes it. The write
// that creates or deletes the record also notes the job in it (JobStore). So no crash loses a job,
// and no record owes the same one twice. A job is carried out at least once:
//
//  1. Read the record, and decide (nextStep).
//  2. Claim the job: a write that is guarded on the state as read counts the attempt and leaves
//     a token and the end of the lease. Of many who try, one succeeds.
//  3. Call the function, with a context that ends with the lease.
//  4. Write the end, guarded on the token (afterAttempt).
//
// A process that dies in between leaves a job that is due again a minute after its lease. Apart from
// retries after an error, the function runs twice for one job only if a process dies after the
// effect and before step 4, if step 4 cannot be written, or if the function outlives its context.
// The receiver can recognize the second call by Job.Key.
//
// Who attempts a job: the process that owed it, at once and in the background; a visit's
// lookup that comes upon it; RunJobs and DrainJobs, which look for what is due. See
// jobs_attempt.go and jobs_await.go.

// JobConfig says how [Config].OnCreate and OnDelete are run. The zero value is good for most
// apps.
type JobConfig struct {
	_ [0]func() // forbids unkeyed literals

	// Lease is how long one attempt may take: then the function's context ends, and a minute
	// later another process may try. A negative one is an error. Defaults to 5 minutes.
	Lease time.Duration

	// MaxAttempts is after how many attempts a job has failed. Between two attempts it waits
	// for some seconds at first and for up to an hour in the end. A negative number is an
	// error. Defaults to 20.
	MaxAttempts int

	// NewFor is how long after signing up a user counts as new: OnCreate does not run for
	// users who signed up longer ago when their record is made, so that a backfill mails
	// nobody. A negative one is an error. Defaults to 7 days.
	NewFor time.Duration

	// DeleteDelay is how long OnDelete waits after the deletion. Within it, a Reconcile with
	// Restore takes the deletion back, and OnDelete does not run. Restore leaves deletions of the
	// last hour alone, so make it longer than that. A negative one is an error. Defaults to none.
	DeleteDelay time.Duration

	// Await makes visits wait until OnCreate has succeeded for their user, for at most some
	// seconds. If it has not by then, the answer is 503 "job_pending" with Retry-After. So a
	// handler finds what OnCreate makes, such as a workspace. An error of [Discard] lets the
	// user in all the same; after MaxAttempts the answer stays 503 until an operator acts.
	// Defaults to false: a visit does not wait.
	Await bool
}

const (
	defaultLease       = 5 * time.Minute
	defaultMaxAttempts = 20
	defaultNewFor      = 7 * 24 * time.Hour
)

// withDefaults returns c with its defaults filled in.
func (c JobConfig) withDefaults() JobConfig {
	if c.Lease == 0 {
		c.Lease = defaultLease
	}
	if c.MaxAttempts == 0 {
		c.MaxAttempts = defaultMaxAttempts
	}
	if c.NewFor == 0 {
		c.NewFor = defaultNewFor
	}
	return c
}

// validateJobs checks what concerns jobs.
func (cfg *Config) validateJobs(fault func(format string, args ...any)) {
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"Lease", cfg.Jobs.Lease}, {"NewFor", cfg.Jobs.NewFor}, {"DeleteDelay", cfg.Jobs.DeleteDelay}} {
		if d.value < 0 {
			fault("Jobs.%s is negative", d.name)
		}
	}
	if cfg.Jobs.MaxAttempts < 0 {
		fault("Jobs.MaxAttempts is negative")
	}
	if _, keeps := cfg.Store.(JobStore); !keeps && cfg.Store != nil {
		const cannot = " is set, but the Store, a %T, cannot keep jobs: use mongostore or memstore, or make it a clerksync.JobStore"
		if cfg.OnCreate != nil {
			fault("OnCreate"+cannot, cfg.Store)
		}
		if cfg.OnDelete != nil {
			fault("OnDelete"+cannot, cfg.Store)
		}
	}
}

// Job is one attempt of a job, as OnCreate and OnDelete get it.
type Job struct {
	// Key is the same for each attempt of a job, and no other job has it:
	// "<clerkID>/create", or "<clerkID>/delete/<deletedAt in milliseconds>". Give it to whoever
	// does the work as the idempotency key, and a second attempt has no second effect.
	Key string
	// Attempt is the number of the attempt, from 1.
	Attempt int
	// Due is since when the attempt could have been made.
	Due time.Time
}

// jobKey returns the [Job].Key of a job of the record u.
func jobKey(u *User, kind JobKind) string {
	if kind == JobDelete {
		return fmt.Sprintf("%s/delete/%d", u.ClerkID, u.DeletedAt.UnixMilli())
	}
	return u.ClerkID + "/create"
}

// Discard returns an error that ends the job for good if OnCreate or OnDelete returns it. The job
// is not attempted again, and does not count as failed. Use it if trying again will not help, as
// with an address that does not exist. errors.Is finds err in it. If err is nil, so is the result.
func Discard(err error) error {
	if err == nil {
		return nil
	}
	return &discardError{err}
}

type discardError struct{ err error }

func (e *discardError) Error() string { return e.err.Error() }

func (e *discardError) Unwrap() error { return e.err }

// panicError is the error of an attempt whose function panicked. It does not show the value,
// which may quote the user's data.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("panic of type %T", e.value) }

// hook returns the function for a kind of jobs; nil if there is none.
func (cfg *Config) hook(kind JobKind) func(context.Context, *User, Job) error {
	if kind == JobDelete {
		return cfg.OnDelete
	}
	return cfg.OnCreate
}

// jobKinds are the kinds of jobs that this Syncer has functions for.
func (s *Syncer) jobKinds() (kinds []JobKind) {
	for _, kind := range []JobKind{JobCreate, JobDelete} {
		if s.cfg.hook(kind) != nil {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}
