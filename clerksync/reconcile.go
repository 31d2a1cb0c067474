package clerksync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// ReconcileOptions are the choices of one [Syncer.Reconcile]. The zero value
// compares versions and writes what is missing, older or gone.
type ReconcileOptions struct {
	_ [0]func() // unkeyed literals would break when a field is added

	// DryRun writes nothing: the Report says what a run would have written.
	DryRun bool

	// Force compares whole records instead of their versions, and so finds and
	// rewrites what differs at an equal version: everybody after a change of
	// Map or RoleOf, and what was edited by hand. It fills in Report.Fields. It
	// reads more; it overrides none of the rules of [Decide]. Defaults to
	// false.
	Force bool

	// Restore gives back records marked deleted over an hour ago whose user
	// Clerk has: the way back from an operator's mistake. The record becomes
	// active, and in step with Clerk. The Store must be a [RestoreStore].
	// Defaults to false: they are only reported.
	Restore bool

	// Resume goes on where an earlier run ended: its [Report].Resume. Defaults
	// to the beginning.
	Resume string

	// InstanceID is the Clerk instance that the secret key must be of, "ins_…";
	// another one is [ErrWrongInstance] before anything is written. Without
	// it, the run takes a hundred records of the Store and wants to find at
	// least one of these users in Clerk, which a Store that is no [BatchStore]
	// does not allow. Defaults to none.
	InstanceID string

	// MaxDeactivations is how many records a run may mark deleted. Where more
	// are gone from Clerk, none is marked and the error matches
	// [ErrTooManyGhosts]. Negative lifts the limit. To mark none at all, run with
	// DryRun. Defaults to the larger of 10 and 2 % of the records not deleted.
	MaxDeactivations int

	// Holdback is the age below which a record is never taken for gone: Clerk's
	// list may lag behind. Negative means none. Defaults to 10 minutes.
	Holdback time.Duration

	// PageSize is how many users one request to Clerk lists and one batch of the
	// Store holds, from 1 to 500. Defaults to 500.
	PageSize int

	// Writers is how many pages are compared and written at one time, while
	// Clerk is asked for the next. A negative number is an error. Defaults to 4.
	Writers int

	// RequestsPerSecond bounds the requests to Clerk. Defaults to 80 % of what
	// Clerk grants the instance: 80 with a secret key that begins with sk_live_,
	// else 8. Both are for the whole instance: leave room for the app's own. A
	// negative number is an error.
	//
	// https://clerk.com/docs/guides/how-clerk-works/system-limits
	RequestsPerSecond float64

	// Progress is told how far the run has come, after each page and at the
	// end, by one goroutine at a time. The run waits for it. Defaults to none.
	Progress func(Progress)
}

// Reconcile brings the whole Store in step with Clerk and says what was wrong: the
// first backfill of an app that has users already, a nightly check, the repair
// after an outage that outlasted Svix's retries, the rewriting after a change of
// Map. It runs beside webhooks and visits, as each write is the same guarded one, and
// beside other runs, of which each asks Clerk at the whole of its RequestsPerSecond.
//
// It walks Clerk's users in the order in which they signed up, compares their
// versions with the Store's in batches, and writes what is missing or older. Then
// it looks at the Store's records that are not deleted and were not among those
// users, asks Clerk for each by its id, and marks deleted those that Clerk does not
// have. That part needs a Store that is a [BatchStore]; without it the Report is
// never Complete. Users deleted in Clerk while the run goes on, whose event is
// lost, are found by the next one.
//
// Before the first write it makes sure that the secret key is the one of the
// Store's Clerk instance: see [ReconcileOptions].InstanceID. Clerk's rate limit,
// failures of Clerk and of the Store are waited out for up to five minutes each.
// A user who cannot be written is counted and stops nothing.
//
// The Report is of use beside an error too. A run that was stopped or killed has
// lost nothing: run again, from the beginning or with [Report].Resume.
//
// Errors: [ErrWrongInstance]; [ErrIncomplete]; [ErrTooManyGhosts]; [ErrUnavailable]
// where Clerk or the Store failed for too long or Clerk refuses the secret key;
// the context's. Faults of opts are reported all at once and match none of them.
func (s *Syncer) Reconcile(ctx context.Context, opts ReconcileOptions) (Report, error) {
	start := s.clock.Now()
	r, err := s.newReconciliation(opts)
	if err != nil {
		return Report{DryRun: opts.DryRun, Reason: err.Error()}, err
	}
	if err = r.run(ctx); err != nil {
		err = fmt.Errorf("clerksync: reconcile: %w", err)
	}
	report := r.finish(err)
	s.observe(ctx, start, Observation{Op: OpReconcile, Err: err})
	return report, err
}

// reconciliation is one run of Reconcile.
type reconciliation struct {
	*Syncer
	opts   ReconcileOptions
	start  time.Time
	reader *bulkReader
	store  BatchStore
	whole  bool // store can list its records
	empty  bool // it had none when the run began
	from   position
	pager  *pager

	// What follows belongs to the goroutine that holds mu: pages are compared by
	// several.
	mu       sync.Mutex
	report   Report
	progress Progress
	finished map[int]position // pages done out of order, by number
	next     int              // the first page that is not done
	until    position         // the end of the page before it
	carried  int              // so many of retry were in conflict before until
	refusals int              // users whom the Store refused, since it took one
	retry    []string         // users in conflict with another
	restored *idSet           // users given back, to be asked for again; nil: none
	warnings int
}

// newReconciliation checks opts and fills in the defaults.
func (s *Syncer) newReconciliation(opts ReconcileOptions) (*reconciliation, error) {
	var errs []error
	fault := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("clerksync: ReconcileOptions."+format, args...))
	}
	if opts.PageSize == 0 {
		opts.PageSize = maxPageSize
	}
	if opts.PageSize < 1 || opts.PageSize > maxPageSize {
		fault("PageSize must be from 1 to %d", maxPageSize)
	}
	if opts.Writers == 0 {
		opts.Writers = 4
	}
	if opts.Writers < 1 {
		fault("Writers must be at least 1")
	}
	if opts.RequestsPerSecond == 0 {
		opts.RequestsPerSecond = defaultRate(s.cfg.SecretKey)
	}
	if !(opts.RequestsPerSecond > 0) {
		fault("RequestsPerSecond must be more than 0")
	}
	if opts.Holdback == 0 {
		opts.Holdback = 10 * time.Minute
	}
	if _, ok := s.store.(RestoreStore); opts.Restore && !ok {
		fault("Restore is set, and the Store is no RestoreStore")
	}
	point, err := s.parseResume(&opts)
	if err != nil {
		fault("Resume %w", err)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	r := &reconciliation{
		Syncer: s, opts: opts, start: s.clock.Now(),
		from: point.position, until: point.position, retry: point.Conflicts, carried: len(point.Conflicts),
		reader:   &bulkReader{api: s.api, limiter: rate.NewLimiter(rate.Limit(opts.RequestsPerSecond), 1)},
		finished: make(map[int]position),
		report:   Report{DryRun: opts.DryRun},
		progress: Progress{Phase: PhaseUsers, Done: point.Passed},
	}
	r.reader.waiting = r.throttled
	if r.store, r.whole = s.store.(BatchStore); !r.whole {
		r.store = oneByOne{s.store}
	}
	return r, nil
}

// maxPageSize is the most users that Clerk lists in one call; asked for more it has
// silently answered ten.
const maxPageSize = 500

func (r *reconciliation) run(ctx context.Context) (err error) {
	defer recovered(&err)
	if err := r.checkInstance(ctx); err != nil {
		return err
	}
	if err := r.walkUsers(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	r.until = position{} // from here on, to begin anew asks Clerk less than to resume
	r.mu.Unlock()
	err = r.checkComplete()
	// Where the Store was empty, all records are too young to be ghosts: a first
	// backfill need not read them again.
	if err == nil && r.whole && !(r.empty && r.clock.Now().Sub(r.start) < r.opts.Holdback) {
		err = r.sweep(ctx)
	}
	if err != nil && !errors.Is(err, ErrIncomplete) && !errors.Is(err, ErrTooManyGhosts) {
		return err
	}
	return errors.Join(err, r.retryConflicts(ctx))
}

// checkInstance makes sure that Clerk is the instance of the Store's users. The key
// of another one would make every user look deleted.
func (r *reconciliation) checkInstance(ctx context.Context) error {
	ids, err := r.someIDs(ctx)
	if err != nil {
		return err
	}
	if r.opts.InstanceID != "" {
		return r.reader.checkInstance(ctx, r.opts.InstanceID)
	}
	if len(ids) == 0 {
		return nil
	}
	known, _, err := r.reader.usersByID(ctx, ids)
	if err == nil && len(known) == 0 {
		err = fmt.Errorf("%w: Clerk has none of the first %d users of the Store; check that the secret key is the instance's (if it is, name it as InstanceID)", ErrWrongInstance, len(ids))
	}
	return err
}

// someIDs returns the ids of some of the Store's users.
func (r *reconciliation) someIDs(ctx context.Context) (ids []string, err error) {
	if !r.whole {
		return nil, nil
	}
	err = r.patiently(ctx, func() error {
		ids, r.empty = ids[:0], true
		for stamp, err := range r.store.Undeleted(ctx) {
			if err != nil {
				return storeError(err)
			}
			r.empty = false
			if !validUserID(stamp.ClerkID) {
				continue
			}
			if ids = append(ids, stamp.ClerkID); len(ids) == maxUserIDs {
				break
			}
		}
		return nil
	})
	return ids, err
}

// walkUsers compares all users of Clerk with the Store, several pages at a time while
// Clerk is asked for the next.
func (r *reconciliation) walkUsers(ctx context.Context) error {
	total, err := r.reader.count(ctx)
	if err != nil {
		return err
	}
	r.progress.Total = total
	r.pager = newPager(r.reader, r.opts.PageSize, r.from, total)

	writers, writing := errgroup.WithContext(ctx)
	writers.SetLimit(r.opts.Writers)
	for number := 0; ; number++ {
		page, err := r.pager.next(writing)
		if err != nil || len(page.users) == 0 {
			// A writer's failure ends the reading, and is the reason to give.
			return cmp.Or(writers.Wait(), err)
		}
		writers.Go(func() (err error) {
			defer recovered(&err)
			if err := r.compare(writing, page); err != nil {
				return err
			}
			r.pageDone(number, page)
			return nil
		})
	}
}

// recovered makes an error of a panic of the app's Store. On a goroutine of the run's
// own it would end the process.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = unavailable(fmt.Errorf("panic: %v", p))
	}
}

// pageDone moves the point from which to resume past the pages done, and no other.
func (r *reconciliation) pageDone(number int, page clerkPage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finished[number] = page.until
	for {
		until, ok := r.finished[r.next]
		if !ok {
			break
		}
		delete(r.finished, r.next)
		r.next++
		// What is in conflict is not done. A run that resumes here tries these users
		// again, but not any number.
		if len(r.retry) <= maxTallyIDs {
			r.until, r.carried = until, len(r.retry)
		}
		r.progress.Done = max(r.progress.Done, until.Passed)
	}
	r.tell()
}

// checkComplete compares what Clerk listed with what it counts. A list that is short
// would make users look deleted.
func (r *reconciliation) checkComplete() error {
	if r.pager.complete() {
		return nil
	}
	return fmt.Errorf("%w: %d of %d", ErrIncomplete, r.pager.at.Passed, r.pager.total)
}

// tell calls Progress. The lock is held.
func (r *reconciliation) tell() {
	if r.opts.Progress == nil {
		return
	}
	defer func() {
		if p := recover(); p != nil { // on a goroutine of the run's own it would end the process
			r.opts.Progress = nil
			r.cfg.Logger.Error("clerksync: panic in ReconcileOptions.Progress, which is told no more", "panic", p)
		}
	}()
	p := r.progress
	p.Report = r.snapshot()
	r.opts.Progress(p)
}

func (r *reconciliation) throttled(until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress.Throttled = until
	r.tell()
	r.progress.Throttled = time.Time{}
}

// finish completes the Report.
func (r *reconciliation) finish(err error) Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Seen += len(r.retry)
	for _, id := range r.retry {
		r.report.Conflicts.add(id)
	}
	switch {
	case err != nil:
		r.report.Reason = err.Error()
	case !r.whole:
		r.report.Reason = "the Store is no BatchStore: records that are gone from Clerk cannot be looked for"
	default:
		r.report.Complete = true
	}
	r.progress.Phase = PhaseDone
	r.tell()
	return r.snapshot()
}

// snapshot is the Report as it stands. The lock is held.
func (r *reconciliation) snapshot() Report {
	report := r.report.clone()
	report.Duration = r.clock.Now().Sub(r.start)
	report.ClerkCalls, report.Throttled = int(r.reader.calls.Load()), int(r.reader.throttled.Load())
	if !report.Complete {
		report.Resume = r.resume()
	}
	return report
}

// patiently retries what fails for the Store's sake.
func (r *reconciliation) patiently(ctx context.Context, f func() error) error {
	return patiently(ctx, r.clock, func(error) bool { return false }, f)
}
