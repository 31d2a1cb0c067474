package clerksync

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// maxDueRead is how many due jobs of a kind are read at a time.
	maxDueRead = 500
	// maxTaken is how many jobs of a list other processes may have taken before a new list is
	// read: each of them costs a read. If three processes work on one list, each has run about
	// 70 of its jobs by then.
	maxTaken = 2 * maxJobs
	// lookAgainAfter is how long RunJobs waits at most after it found nothing to do, and half
	// of it at least.
	lookAgainAfter = 10 * time.Second
)

// RunJobs looks for due jobs and runs them, eight at a time, until ctx ends. It runs those of the
// kinds that Config has a function for: OnCreate, OnDelete. Every process of an app may run it;
// each job is attempted by one of them. Without it, a job whose first attempt fails, or whose
// process dies, waits for the user's next visit or for a [Syncer.DrainJobs], and a deletion for
// DrainJobs.
//
// When ctx ends, RunJobs begins no further job, waits up to ten seconds for those that are
// running, ends their contexts, and returns nil: that was asked for. It also returns when the
// Syncer is closed. If the Store fails, it logs that and goes on. At most 500 jobs of each kind are
// in memory at a time.
func (s *Syncer) RunJobs(ctx context.Context) error {
	for ctx.Err() == nil && !s.jobs.isClosed() {
		if _, err := s.DrainJobs(ctx); err != nil && ctx.Err() == nil {
			s.logLimited(ctx, slog.LevelWarn, "run jobs", "clerksync: due jobs cannot be read or claimed; RunJobs goes on", slog.Any("error", err))
		}
		s.pauseJobs(ctx)
	}
	return nil
}

// pauseJobs waits before due jobs are looked for again. Processes do so at different times.
func (s *Syncer) pauseJobs(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.jobs.closing, cancel)()
	_ = s.clock.Sleep(ctx, lookAgainAfter/2+rand.N(lookAgainAfter/2))
}

// DrainJobs runs the jobs that are due now, eight at a time, and returns how many it ran,
// whether they succeeded or not. It is one pass of [Syncer.RunJobs], for a cron job, a serverless
// function or a test: jobs that fall due meanwhile, and those that failed, are left to the next.
//
// If ctx ends first, it returns as RunJobs does, and the error is ctx's cause. If the Store
// fails, the error matches [ErrUnavailable]. The error of a job is not one of DrainJobs: it is
// logged and observed.
func (s *Syncer) DrainJobs(ctx context.Context) (int, error) {
	kinds, by, ran := s.jobKinds(), s.clock.Now(), 0
	for _, kind := range kinds {
		s.prepareJobs(ctx, kind)
	}
	for ctx.Err() == nil && !s.jobs.isClosed() {
		due, err := s.dueJobs(ctx, kinds, by)
		if err != nil {
			return ran, storeError(err)
		}
		done, err := s.attemptAll(ctx, due)
		ran += done.run
		if err != nil || done.run+done.ended+done.taken == 0 { // nothing is left, or only what cannot be claimed
			return ran, err
		}
	}
	return ran, context.Cause(ctx)
}

// dueJobs returns some of the jobs that are due at by, in a random order, so that several
// processes do not all try the same one.
func (s *Syncer) dueJobs(ctx context.Context, kinds []JobKind, by time.Time) (due []JobEntry, err error) {
	for _, kind := range kinds {
		var some []JobEntry
		err := s.callJobStore(ctx, func(ctx context.Context, store JobStore) (err error) {
			some, err = store.DueJobs(ctx, kind, by, maxDueRead)
			return err
		})
		if err != nil {
			return nil, err
		}
		due = append(due, some...)
	}
	s.jobs.pace.shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	return due, nil
}

// tally counts what came of jobs.
type tally struct{ run, ended, taken int }

// drain is the work on one list of due jobs.
type drain struct {
	syncer *Syncer
	asked  context.Context // ends when no further job is to begin
	work   context.Context // the functions'

	mu      sync.Mutex
	done    tally
	failure error // the last one of the Store's
}

// attemptAll attempts jobs, maxJobs at a time. If other processes have taken more than maxTaken of
// them, it leaves the rest, because a new list has fewer of those. The error is the last failure of
// the Store's, or ctx's cause: then functions may still be running.
func (s *Syncer) attemptAll(ctx context.Context, due []JobEntry) (tally, error) {
	if len(due) == 0 {
		return tally{}, nil
	}
	work, giveUp := context.WithCancelCause(context.WithoutCancel(ctx))
	over := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		s.clock.AfterFunc(closeTimeout, func() {
			giveUp(errGivenUp)
			close(over)
		})
	})()
	d := &drain{syncer: s, asked: ctx, work: work}
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.attempt(due)
		giveUp(nil)
	}()
	select {
	case <-done:
	case <-over:
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return d.done, err
	}
	return d.done, d.failure
}

// attempt attempts jobs until enough of them were taken, and waits for those that it began.
func (d *drain) attempt(due []JobEntry) {
	var group errgroup.Group
	group.SetLimit(d.syncer.jobs.pace.atOnce)
	for _, entry := range due {
		if d.enoughTaken() {
			break
		}
		group.Go(func() error {
			d.attemptOne(entry)
			return nil
		})
	}
	_ = group.Wait() // no attempt returns an error
}

func (d *drain) enoughTaken() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done.taken > maxTaken
}

func (d *drain) attemptOne(entry JobEntry) {
	if d.asked.Err() != nil || !d.syncer.jobs.begin() {
		return
	}
	defer d.syncer.jobs.running.Done()
	result, err := d.syncer.attemptJob(d.work, entry)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.failure = err
	}
	switch result {
	case jobTaken:
		d.done.taken++
	case jobEnded:
		d.done.ended++
	case jobRun:
		d.done.run++
	}
}
