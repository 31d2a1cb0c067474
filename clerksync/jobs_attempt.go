package clerksync

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
	"github.com/clerksync/clerksync-go/clerksync/internal/retry"
)

const (
	// maxJobs is how many jobs run at one time in the background, and how many in one RunJobs
	// or DrainJobs.
	maxJobs = 8
	// maxQueued bounds the memory for jobs that this process owed while maxJobs were running.
	// RunJobs finds those that had no room.
	maxQueued = 1000
	// closeTimeout is how long Close, and a RunJobs whose context has ended, wait for functions
	// that are running.
	closeTimeout = 10 * time.Second
	// prepareAgainAfter is the least time between two attempts to prepare the Store.
	prepareAgainAfter = 10 * time.Minute
)

// jobRef names a job.
type jobRef struct {
	id   string
	kind JobKind
}

// jobRunner knows the jobs that this process is about to run, or running.
type jobRunner struct {
	clock clock.Clock
	// ended is done when nobody waits for the functions any more: their contexts end too.
	ended  context.Context
	giveUp context.CancelCauseFunc

	// closing is done once close was called.
	closing context.Context
	noMore  context.CancelFunc

	pace jobPace

	mu       sync.Mutex
	running  sync.WaitGroup           // workers, and attempts of RunJobs
	workers  int                      // in the background
	queue    []queuedJob              // those that wait for a worker
	flights  map[jobRef]chan struct{} // of the background's jobs; closed when the attempt has ended
	prepared map[JobKind]time.Time    // when PrepareJobs was last tried; zero if it succeeded
}

// jobPace says in which order jobs run. The world of storetest/world, in which one thing happens at
// a time, replaces it.
type jobPace struct {
	atOnce  int                                   // how many jobs of one list run at one time
	shuffle func(n int, swap func(i, j int))      // of a list
	random  func() float64                        // for the pause after a failed attempt
	turn    func(ctx context.Context, ref jobRef) // called before an attempt in the background
}

// defaultPace lets jobs run at once and at random.
func defaultPace() jobPace {
	return jobPace{atOnce: maxJobs, shuffle: rand.Shuffle, random: rand.Float64, turn: func(context.Context, jobRef) {}}
}

// queuedJob is a job for the background.
type queuedJob struct {
	jobRef
	ctx  context.Context // from detach
	owed bool            // this process has just owed it
}

func newJobRunner(c clock.Clock) *jobRunner {
	r := &jobRunner{
		clock: c, pace: defaultPace(),
		flights: make(map[jobRef]chan struct{}), prepared: make(map[JobKind]time.Time),
	}
	r.ended, r.giveUp = context.WithCancelCause(context.Background())
	r.closing, r.noMore = context.WithCancel(context.Background())
	return r
}

// isClosed reports whether close was called.
func (r *jobRunner) isClosed() bool { return r.closing.Err() != nil }

// begin counts an attempt that close waits for. It returns false once closed.
func (r *jobRunner) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isClosed() {
		return false
	}
	r.running.Add(1)
	return true
}

// close starts no more jobs, and forgets those that have not begun. The returned function waits
// for those that are running, for at most closeTimeout since close, and then ends their contexts.
func (r *jobRunner) close() (wait func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noMore()
	for _, q := range r.queue {
		r.land(q.jobRef)
	}
	r.queue = nil
	over, done := make(chan struct{}), make(chan struct{})
	stop := r.clock.AfterFunc(closeTimeout, func() { close(over) })
	go func() {
		r.running.Wait()
		close(done)
	}()
	return func() {
		defer stop()
		select {
		case <-done:
		case <-over:
			r.giveUp(errGivenUp)
		}
	}
}

// land notes that a job of the background has ended. The caller holds mu.
func (r *jobRunner) land(ref jobRef) {
	if flight := r.flights[ref]; flight != nil {
		close(flight)
		delete(r.flights, ref)
	}
}

// errGivenUp is the cause of the end of a function's context if the process no longer waits for
// it.
var errGivenUp = errors.New("clerksync no longer waits for the function, because the app shuts down")

// createDue returns the [User].CreateDue for a user whom Clerk has described.
func (s *Syncer) createDue(u *User, now time.Time) time.Time {
	if s.cfg.OnCreate == nil {
		return time.Time{}
	}
	return createDue(u, s.cfg.Jobs.NewFor, now)
}

// owedCreate attempts the create job at once if an Upsert of u has just owed one.
func (s *Syncer) owedCreate(ctx context.Context, u *User, outcome Outcome) {
	if outcome == Created && !u.CreateDue.IsZero() {
		s.startJob(ctx, jobRef{u.ClerkID, JobCreate}, true)
	}
}

// owedDelete attempts the delete job at once that a deletion has just owed.
func (s *Syncer) owedDelete(ctx context.Context, id string, owing Owing) {
	switch owing {
	case OwesJob:
		s.startJob(ctx, jobRef{id, JobDelete}, true)
	case OwesNoRoom:
		s.logLimited(ctx, slog.LevelWarn, "no room for a job",
			"clerksync: a deletion was written, but OnDelete will not run for it: the record's clerkJobs is not clerksync's document",
			slog.String("clerk_id", id))
	}
}

// startJob attempts a job in the background. If too many are running, the attempt waits in a queue.
// The channel is closed when the attempt has ended; it is nil if the queue is full.
func (s *Syncer) startJob(request context.Context, ref jobRef, owed bool) <-chan struct{} {
	r := s.jobs
	r.mu.Lock()
	defer r.mu.Unlock()
	if flight := r.flights[ref]; flight != nil {
		return flight
	}
	if r.isClosed() || len(r.queue) >= maxQueued {
		return nil
	}
	q, flight := queuedJob{ref, s.background.detach(request), owed}, make(chan struct{})
	r.flights[ref] = flight
	if r.workers == maxJobs {
		r.queue = append(r.queue, q)
		return flight
	}
	r.workers++
	r.running.Add(1)
	go s.workOnJobs(q)
	return flight
}

// workOnJobs runs a job, and then those that wait.
func (s *Syncer) workOnJobs(q queuedJob) {
	r := s.jobs
	defer r.running.Done()
	for more := true; more; {
		r.pace.turn(q.ctx, q.jobRef)
		if _, err := s.attemptJob(q.ctx, JobEntry{ClerkID: q.id, Kind: q.kind}); err != nil {
			s.logJobs(q.ctx, q.kind, "clerksync: a job could not be attempted; it stays due", err)
		}
		r.mu.Lock()
		r.land(q.jobRef)
		r.mu.Unlock()
		if q.owed {
			s.prepareJobs(q.ctx, q.kind)
		}
		r.mu.Lock()
		if more = len(r.queue) > 0; more {
			q = r.queue[0]
			r.queue = slices.Delete(r.queue, 0, 1)
		} else {
			r.workers--
		}
		r.mu.Unlock()
	}
}

// prepareJobs has the Store prepare itself for jobs of a kind, once in this process.
func (s *Syncer) prepareJobs(ctx context.Context, kind JobKind) {
	r, now := s.jobs, s.clock.Now()
	r.mu.Lock()
	last, tried := r.prepared[kind]
	if tried && (last.IsZero() || now.Sub(last) < prepareAgainAfter) {
		r.mu.Unlock()
		return
	}
	r.prepared[kind] = now
	r.mu.Unlock()
	err := s.callJobStore(ctx, func(ctx context.Context, store JobStore) error { return store.PrepareJobs(ctx, kind) })
	if err != nil {
		s.logJobs(ctx, kind, "clerksync: the Store could not be prepared for jobs, so looking for them is slow", err)
		return
	}
	r.mu.Lock()
	r.prepared[kind] = time.Time{} // for good
	r.mu.Unlock()
}

// callJobStore makes a call of the Store that may have to read much, bounded by storeTimeout.
func (s *Syncer) callJobStore(ctx context.Context, call func(context.Context, JobStore) error) (err error) {
	defer recovered(&err)
	return inTime(ctx, s.clock, func(ctx context.Context) error { return call(ctx, s.store.(JobStore)) })
}

// logJobs warns of a failure of the Store's. The lines are limited.
func (s *Syncer) logJobs(ctx context.Context, kind JobKind, message string, err error) {
	s.logLimited(ctx, slog.LevelWarn, "jobs "+string(kind)+" "+message, message, slog.String("kind", string(kind)), slog.Any("error", err))
}

// attempted is what came of a job that was to be attempted.
type attempted int

const (
	jobLeft  attempted = iota // nothing was done: it cannot be claimed, another process was faster, or the Store failed
	jobTaken                  // another process has claimed or ended it since it was listed
	jobEnded                  // without a call of the function
	jobRun                    // the function was called
)

// attemptJob reads a record and takes the next step of its job; see jobs.go. ctx is for the
// function and the writes. The error is a failure of the Store before the function was called.
func (s *Syncer) attemptJob(ctx context.Context, listed JobEntry) (attempted, error) {
	start := s.clock.Now()
	var u *User
	err := s.background.run(ctx, func(ctx context.Context) (err error) {
		u, err = s.stored(ctx, listed.ClerkID)
		return err
	})
	switch {
	case errors.Is(err, ErrNotFound):
		return jobTaken, nil
	case err != nil:
		return jobLeft, storeError(err)
	}
	kind, now := listed.Kind, s.clock.Now()
	job := u.Jobs.Of(kind)
	a := &jobAttempt{syncer: s, user: u, kind: kind, from: job, start: start, now: now}
	switch nextStep(u, kind, now, s.cfg.Jobs.MaxAttempts) {
	case stepDrop:
		return a.endWithout(ctx, JobState{}, JobDropped)
	case stepFail:
		return a.endWithout(ctx, job.failed(jobCodeUnended, now), JobFailed)
	case stepClaim:
		return a.make(ctx)
	}
	if job != listed.State {
		return jobTaken, nil
	}
	return jobLeft, nil
}

// jobAttempt is one attempt of a job, or the end of a job without one.
type jobAttempt struct {
	syncer *Syncer
	user   *User // as it was read
	kind   JobKind
	from   JobState // as it was read
	start  time.Time
	now    time.Time // when the record was read
	span   spanEnd   // of the attempt
}

// change writes a state.
func (a *jobAttempt) change(ctx context.Context, from, to JobState) (changed bool, err error) {
	c := JobChange{ClerkID: a.user.ClerkID, Kind: a.kind, From: from, To: to, DeletedAt: a.user.DeletedAt}
	err = a.syncer.background.run(ctx, func(ctx context.Context) (err error) {
		changed, err = a.syncer.store.(JobStore).ChangeJob(ctx, c)
		return err
	})
	return changed, storeError(err)
}

// endWithout ends the job without an attempt.
func (a *jobAttempt) endWithout(ctx context.Context, to JobState, outcome JobOutcome) (attempted, error) {
	if changed, err := a.change(ctx, a.from, to); err != nil || !changed {
		return jobLeft, err
	}
	var why error
	if outcome == JobFailed {
		why = errUnended
	}
	a.report(ctx, a.from, to, outcome, why)
	return jobEnded, nil
}

// errUnended is the error of a job whose last attempt has not ended.
var errUnended = errors.New("the last attempt did not end within its lease: its process has died, or could not write the end")

// make claims the job, calls the function, and writes the end.
func (a *jobAttempt) make(ctx context.Context) (attempted, error) {
	s := a.syncer
	claimed := a.from.claimed(crand.Text(), a.now, s.cfg.Jobs.Lease)
	if changed, err := a.change(ctx, a.from, claimed); err != nil || !changed {
		return jobLeft, err
	}
	ctx, a.span = s.begin(ctx, OpJob, a.user.ClerkID)
	givenUp, err := a.call(ctx, claimed)
	if givenUp && err != nil {
		a.report(ctx, claimed, claimed, JobLost, &lostError{errGivenUp, err})
		return jobRun, nil //nolint:nilerr // it is the function's, and reported
	}
	to, outcome := claimed.afterAttempt(err, s.cfg.Jobs.MaxAttempts, s.clock.Now(), s.jobs.pace.random())
	if lost := a.writeEnd(ctx, claimed, to); lost != nil {
		outcome, err = JobLost, &lostError{lost, err}
	}
	a.report(ctx, claimed, to, outcome, err)
	return jobRun, nil
}

// call calls the function. Its context ends Lease after the record was read, so that it is over when
// others may claim the job. If the lease is over already, because the process or the Store stood
// still, the function is not called. givenUp says that the process did not wait for it any longer.
func (a *jobAttempt) call(ctx context.Context, claimed JobState) (givenUp bool, err error) {
	s := a.syncer
	left := a.now.Add(s.cfg.Jobs.Lease).Sub(s.clock.Now())
	if left <= 0 {
		return false, errLeaseEnded
	}
	ctx, end := context.WithCancelCause(contextOfVisit(ctx, s, a.user))
	defer end(nil)
	defer context.AfterFunc(s.jobs.ended, func() { end(errGivenUp) })()
	ctx, cancel := clock.WithTimeout(ctx, s.clock, left)
	defer cancel()
	job := Job{Key: jobKey(a.user, a.kind), Attempt: claimed.Attempt, Due: a.from.Due}
	err = callHook(ctx, s.cfg.hook(a.kind), handedOut(a.user), job)
	cause := context.Cause(ctx)
	if err != nil && errors.Is(cause, context.DeadlineExceeded) {
		err = &lateError{err}
	}
	return errors.Is(cause, errGivenUp), err
}

// callHook calls a function of the app's and turns a panic into an error. It also calls the methods of
// the error that the function returns, because they may panic, as those of a nil *url.Error do.
func callHook(ctx context.Context, hook func(context.Context, *User, Job) error, u *User, job Job) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{p}
		}
	}()
	if err = hook(ctx, u, job); err != nil {
		_, _ = err.Error(), errors.Is(err, errUnended)
	}
	return err
}

// lateError is the error of a function whose context had ended.
type lateError struct{ err error }

func (e *lateError) Error() string { return errLeaseEnded.Error() + ": " + e.err.Error() }

func (e *lateError) Unwrap() []error { return []error{errLeaseEnded, e.err} }

// lostError says why the end of an attempt is not written. err is the function's, or nil.
type lostError struct{ why, err error }

func (e *lostError) Error() string { return errors.Join(e.why, e.err).Error() }

func (e *lostError) Unwrap() []error { return []error{e.why, e.err} }

// errTakenOver is the error of an end that came too late.
var errTakenOver = errors.New("the job has changed meanwhile: another process has claimed it, or an operator has changed it")

// writeEnd writes the end of an attempt, also if the process no longer waits for it. It tries
// again while nobody else may claim the job.
func (a *jobAttempt) writeEnd(ctx context.Context, claimed, to JobState) error {
	s := a.syncer
	ctx, cancel := clock.WithTimeout(context.WithoutCancel(ctx), s.clock, claimed.Due.Sub(s.clock.Now()))
	defer cancel()
	changed := false
	permanent := func(err error) bool { return errors.Is(err, ErrRejected) || s.jobs.ended.Err() != nil }
	err := retry.Do(ctx, s.clock, permanent, func() (err error) {
		changed, err = a.change(ctx, claimed, to)
		return err
	})
	if err == nil && !changed {
		err = errTakenOver
	}
	return err
}

// report leaves the trace of an attempt, or of the end of a job without one. err is the
// function's, or says why the end could not be written.
func (a *jobAttempt) report(ctx context.Context, from, to JobState, outcome JobOutcome, err error) {
	s := a.syncer
	o := Observation{Op: OpJob, ClerkID: a.user.ClerkID, Job: JobObservation{a.kind, from.Attempt, outcome}}
	if err != nil {
		o.Err = &Problem{Status: http.StatusInternalServerError, Code: CodeJobFailed, Err: err}
	}
	s.end(ctx, a.span, a.start, o)
	s.observe(ctx, a.start, o)
	level, message := slog.LevelWarn, "clerksync: an attempt of a job failed; it will be tried again"
	switch outcome {
	case JobRetried:
	case JobFailed:
		level, message = slog.LevelError, "clerksync: a job failed for good: make it due again, or discard it, once the cause is gone"
	case JobDiscarded:
		message = "clerksync: a job was discarded by its function"
	case JobLost:
		message = "clerksync: the end of a job's attempt is not written; it may be attempted once more"
	default:
		level, message = slog.LevelDebug, "clerksync: a job is done"
	}
	attrs := []slog.Attr{
		slog.String("clerk_id", a.user.ClerkID), slog.String("kind", string(a.kind)),
		slog.Int("attempt", from.Attempt), slog.String("outcome", string(outcome)),
	}
	if to.Code != "" {
		attrs = append(attrs, slog.String("code", to.Code))
	}
	if outcome == JobRetried {
		attrs = append(attrs, slog.Time("due", to.Due))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", loggedJobError(err)))
	}
	s.cfg.Logger.LogAttrs(ctx, level, message, attrs...) //nolint:sloglint // one of those above
}

// loggedJobError is what the log says of an attempt's error. The text of an app's error may quote
// an address, so it is left out.
func loggedJobError(err error) string {
	var lost *lostError
	var panicked *panicError
	switch {
	case errors.As(err, &lost):
		return lost.why.Error()
	case errors.Is(err, errUnended):
		return errUnended.Error()
	case errors.As(err, &panicked):
		return panicked.Error()
	case errors.Is(err, errLeaseEnded):
		return errLeaseEnded.Error()
	}
	for next := err; next != nil; next = errors.Unwrap(next) {
		err = next // the innermost type says most
	}
	return fmt.Sprintf("of type %T", err)
}
