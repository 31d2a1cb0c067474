package clerksync

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// maxDueRead is how many due jobs of a kind are read at a time.
	maxDueRead = 500
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
// Syncer is closed. If the Store fails, it logs that and goes on. Jobs of at most 500 users are in
// memory at a time.
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
		called, moved, err := s.attemptAll(ctx, due)
		ran += called
		if err != nil || moved == 0 { // nothing is left, or only what fails in the Store
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
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	return due, nil
}

// attemptAll attempts jobs, maxJobs at a time. It returns how many functions it called, and how
// many jobs are no longer as they were listed. The error is the last failure of the Store's, or
// ctx's cause: then functions may still be running.
func (s *Syncer) attemptAll(ctx context.Context, due []JobEntry) (called, moved int, err error) {
	if len(due) == 0 {
		return 0, 0, nil
	}
	work, giveUp := context.WithCancelCause(context.WithoutCancel(ctx))
	over := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		s.clock.AfterFunc(closeTimeout, func() {
			giveUp(errGivenUp)
			close(over)
		})
	})()
	var numCalled, numMoved atomic.Int64
	var failure atomic.Pointer[error]
	group, done := errgroup.Group{}, make(chan struct{})
	group.SetLimit(maxJobs)
	go func() {
		defer close(done)
		for _, entry := range due {
			group.Go(func() error {
				if ctx.Err() != nil || !s.jobs.begin() {
					return nil
				}
				defer s.jobs.running.Done()
				result, err := s.attemptJob(work, entry)
				if err != nil {
					failure.Store(&err)
				}
				if result.called {
					numCalled.Add(1)
				}
				if result.moved {
					numMoved.Add(1)
				}
				return nil
			})
		}
		_ = group.Wait()
		giveUp(nil)
	}()
	select {
	case <-done:
	case <-over:
	}
	if err = context.Cause(ctx); err == nil && failure.Load() != nil {
		err = *failure.Load()
	}
	return int(numCalled.Load()), int(numMoved.Load()), err
}
