package clerksync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
	"github.com/clerksync/clerksync-go/clerksync/internal/setting"
)

// ReconcileOptions are the choices for one [Syncer.Reconcile]. The zero value compares
// versions, writes what is missing or older, and marks deleted what is gone.
type ReconcileOptions struct {
	_ [0]func() // forbids unkeyed literals

	maxUnlisted int // only tests set it; see the constant

	// DryRun writes nothing: the Report says what a run would have written.
	DryRun bool

	// Force compares whole records instead of their versions. So it finds and rewrites
	// what differs at an equal version: every record after a change of Map or RoleOf, and
	// edits by hand. It fills in Report.Fields. It reads more; it overrides none of the
	// rules of [Decide]. A dry run finds what a run with the same Force repairs. Defaults to
	// false; the command line's default is true.
	Force bool

	// Restore restores records that were marked deleted over an hour ago although Clerk
	// has the user, to undo an operator's mistake. The record becomes active, and in step
	// with Clerk. The Store must be a [RestoreStore]. Defaults to false: they are only
	// reported.
	Restore bool

	// Resume goes on from the point at which an earlier run ended: its [Report].Resume.
	// Defaults to the beginning.
	Resume string

	// InstanceID is the Clerk instance that the secret key must belong to, "ins_…"; it is in
	// the address of the Clerk Dashboard, https://dashboard.clerk.com/apps/app_…/instances/ins_….
	// If the key belongs to another, the run ends with [ErrWrongInstance] before it writes anything.
	// Without an InstanceID the run takes a hundred records of the Store and expects to
	// find at least one of these users in Clerk. That says nothing of a Store with fewer
	// than two, or of one that is not a [BatchStore]. Defaults to none.
	InstanceID string

	// MaxDeactivations is how many records a run may mark deleted. If more are gone from
	// Clerk, none is marked and the error matches [ErrTooManyGhosts]. Negative lifts the
	// limit. To mark none at all, use DryRun. Defaults to the larger of 10 and 2 % of the
	// records that are not deleted.
	MaxDeactivations int

	// Holdback is how long a record is not marked deleted after it was created, adopted or
	// confirmed by Clerk, because Clerk's list may lag behind. Negative means none. Defaults
	// to 10 minutes.
	Holdback time.Duration

	// IgnoreUnlinked makes the run create users although a record without a Clerk id has
	// their e-mail address: each of them then has two records, and what the app keeps in the
	// old one, such as a plan or a role, is not in the new one. A Store that adopts by e-mail
	// refuses such users all the same. It only has an effect with a [LegacyStore]. Defaults
	// to false: they are not created, and counted in Report.Unlinked.
	IgnoreUnlinked bool

	// PageSize is how many users one request to Clerk lists and one batch of the Store
	// holds, from 1 to 500. Defaults to 500.
	PageSize int

	// Writers is how many pages are compared and written at one time, while Clerk is
	// asked for the next. A negative number is an error. Defaults to 4.
	Writers int

	// RequestsPerSecond bounds the requests to Clerk. Defaults to 80 % of what Clerk
	// grants the instance: 80 with a secret key that begins with sk_live_, else 8. Both
	// are for the whole instance, so leave room for the app's own. A negative number is
	// an error.
	//
	// https://clerk.com/docs/guides/how-clerk-works/system-limits
	RequestsPerSecond float64

	// Progress is called with how far the run has come, after each page and at the end, by
	// one goroutine at a time. The run waits for it. Defaults to none.
	Progress func(Progress)
}

// withDefaults returns opts with their defaults filled in.
func (opts ReconcileOptions) withDefaults(secretKey string) ReconcileOptions {
	if opts.PageSize == 0 {
		opts.PageSize = clerkapi.MaxPageSize
	}
	if opts.Writers == 0 {
		opts.Writers = 4
	}
	if opts.RequestsPerSecond == 0 {
		opts.RequestsPerSecond = clerkapi.DefaultRate(secretKey)
	}
	if opts.Holdback == 0 {
		opts.Holdback = 10 * time.Minute
	}
	if opts.maxUnlisted == 0 {
		opts.maxUnlisted = maxUnlisted
	}
	return opts
}

// validate returns every fault of options with their defaults filled in, joined. resume is
// the fault of Resume, if it has one.
func (opts *ReconcileOptions) validate(store Store, resume error) error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("clerksync: ReconcileOptions."+format, args...))
	}
	if opts.PageSize < 1 || opts.PageSize > clerkapi.MaxPageSize {
		fault("PageSize must be from 1 to %d", clerkapi.MaxPageSize)
	}
	if opts.Writers < 1 {
		fault("Writers must be at least 1")
	}
	if !(opts.RequestsPerSecond > 0) { // NaN too
		fault("RequestsPerSecond must be more than 0")
	}
	if _, ok := store.(RestoreStore); opts.Restore && !ok {
		fault("Restore is set, but the Store is not a RestoreStore")
	}
	if resume != nil {
		fault("Resume %w", resume)
	}
	if is := setting.InstanceID(opts.InstanceID); is != "" && opts.InstanceID != "" {
		fault("InstanceID %s", is)
	}
	return errors.Join(faults...)
}

// Reconcile brings the whole Store in step with Clerk and says what was wrong. Use it for
// the first backfill of an app that has users already, as a nightly check, as the repair
// after an outage that outlasted Svix's retries, and to rewrite records after a change of
// Map. It runs beside webhooks and visits, because every write is the same guarded one. It
// also runs beside other runs; each of them uses the whole of its RequestsPerSecond.
//
// It walks Clerk's users in the order in which they signed up, compares their versions
// with the Store's in batches, and writes what is missing or older. Then it looks for
// ghosts: records that are not deleted and whose user was not among Clerk's. It asks Clerk
// for each by its id, and marks deleted those that Clerk does not have. That part needs a
// Store that is a [BatchStore]; without it the Report is never Complete. If a user is
// deleted in Clerk while the run goes on, and the event is lost, the next run finds it.
//
// Before the first write it makes sure that the secret key belongs to the Clerk instance
// of the Store's users: see [ReconcileOptions].InstanceID. It waits out Clerk's rate limit
// and failures of Clerk and of the Store for up to five minutes each. A call of the Store
// may take two minutes, so a Store that does not answer ends the run too. A user who cannot
// be written is counted and does not stop the run, but it ends with an error: the Report is
// then Complete.
//
// If the Store is a [LegacyStore], the run first reads the e-mail addresses of the records
// without a Clerk id, in one pass. It keeps a hash of each, in about 11 bytes. A user who has
// no record and whose address is among them is not created, because that record is probably
// the user's: see [ReconcileOptions].IgnoreUnlinked. The case of letters does not matter. A
// user whom an [AdoptStore] would link to a record is not held back.
//
// The Report is useful beside an error too. A run that was stopped or killed has lost
// nothing: run again, from the beginning or with [Report].Resume.
//
// Errors: [ErrWrongInstance]; [ErrIncomplete]; [ErrTooManyGhosts]; [ErrUnavailable] if
// Clerk or the Store failed for too long or Clerk rejects the secret key; the context's; a
// [*ConflictError] if users are kept out by a unique index (Report.Conflicts); [ErrUnlinked]
// if users were not created because of records without a Clerk id (Report.Unlinked); and one
// that matches none of these if the mapping or the Store rejects users (Report.Failed).
// Faults of opts are reported all at once and match none of them.
func (s *Syncer) Reconcile(ctx context.Context, opts ReconcileOptions) (Report, error) {
	start := s.clock.Now()
	r, err := s.newReconcileRun(opts)
	if err != nil {
		return Report{DryRun: opts.DryRun, Reason: err.Error()}, err
	}
	ctx, span := s.begin(ctx, OpReconcile, "")
	if err = r.run(ctx); err != nil {
		err = prefixed("reconcile: %w", err)
	}
	report := r.finish(err)
	if err == nil || onlyGhostsLeft(err) {
		err = errors.Join(err, r.unwritten(&report))
	}
	o := Observation{Op: OpReconcile, Err: err}
	if span != nil || s.cfg.Observe != nil {
		observed := report.clone()
		o.Report = &observed
	}
	s.end(ctx, span, start, o)
	s.observe(ctx, start, o)
	return report, err
}

// reconcileRun is one run of Reconcile.
type reconcileRun struct {
	syncer         *Syncer
	opts           ReconcileOptions
	start          time.Time
	clerk          *clerkapi.BulkReader
	store          BatchStore
	canList        bool            // the Store itself is a BatchStore, so its records can be listed
	storeEmpty     bool            // the Store had no undeleted record when the run began
	adopts         AdoptStore      // nil if the Store does not adopt
	unlinked       *unlinkedEmails // nil if the run did not look for them
	looksForEmails atomic.Bool     // the Store looks for records to adopt by their addresses
	from           clerkapi.Position
	pager          *clerkapi.Pager

	mu       sync.Mutex // guards what follows: several goroutines compare pages
	report   Report
	progress Progress

	finished        map[int]clerkapi.Position // pages done out of order, by number
	nextPage        int                       // the first page that is not done
	until           clerkapi.Position         // the end of the page before it
	conflicts       []string                  // users in conflict with another, to be tried again
	conflict        *ConflictError            // the last conflict, nil for none
	resumeConflicts int                       // how many of conflicts come before until
	inConflict      map[string]*ConflictError // why each of conflicts is one, by id
	partly          map[string]*ConflictError // of users who are counted as failed, by id

	rejectedInARow int // users whom the Store rejected since it last accepted one
	warnings       int
}

// newReconcileRun checks opts and fills in the defaults.
func (s *Syncer) newReconcileRun(opts ReconcileOptions) (*reconcileRun, error) {
	opts = opts.withDefaults(s.cfg.SecretKey)
	point, resumeErr := s.parseResume(&opts)
	if err := opts.validate(s.store, resumeErr); err != nil {
		return nil, err
	}
	r := &reconcileRun{
		syncer: s, opts: opts, start: s.clock.Now(),
		from: point.Position, until: point.Position,
		conflicts: point.Conflicts, resumeConflicts: len(point.Conflicts),
		finished: make(map[int]clerkapi.Position), inConflict: make(map[string]*ConflictError),
		partly:   make(map[string]*ConflictError),
		report:   Report{DryRun: opts.DryRun},
		progress: Progress{Phase: PhaseUsers, Done: point.Passed},
	}
	r.clerk = s.api.NewBulkReader(opts.RequestsPerSecond, r.throttled, unavailable)
	bounded := boundedStore{s.store, s.clock}
	if batch, ok := s.store.(BatchStore); ok {
		r.store, r.canList = boundedBatchStore{bounded, batch}, true
	} else {
		r.store = oneByOne{bounded}
	}
	r.adopts, _ = s.store.(AdoptStore)
	return r, nil
}

func (r *reconcileRun) run(ctx context.Context) (err error) {
	defer recovered(&err)
	if err := r.checkInstance(ctx); err != nil {
		return err
	}
	if err := r.findUnlinked(ctx); err != nil {
		return err
	}
	if err := r.walkUsers(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	// A resumed run would ask Clerk by id for all users passed before. Starting over takes
	// fewer calls, so from here on there is no point to resume from.
	r.until = clerkapi.Position{}
	r.mu.Unlock()
	err = r.checkComplete()
	if err == nil && r.canList && !r.allTooYoung() {
		err = r.sweepGhosts(ctx)
	}
	if err != nil && !onlyGhostsLeft(err) {
		return err
	}
	return errors.Join(err, r.retryConflicts(ctx))
}

// onlyGhostsLeft reports whether a run ended with err after it had compared all users.
func onlyGhostsLeft(err error) bool {
	return errors.Is(err, ErrIncomplete) || errors.Is(err, ErrTooManyGhosts)
}

// allTooYoung reports whether every record is too young to be a ghost: after the first
// backfill of an empty Store they need not be read again. A restored record is an old one.
func (r *reconcileRun) allTooYoung() bool {
	return r.storeEmpty && !r.opts.Restore && r.syncer.clock.Now().Sub(r.start) < r.opts.Holdback
}

// fewestToTell is how many users a Store must have to tell their instance from another. The
// only user may just have been deleted, so a Store with one user is treated as an empty one.
const fewestToTell = 2

// checkInstance makes sure that the secret key belongs to the Clerk instance of the
// Store's users. With the key of another one, every user would look deleted.
func (r *reconcileRun) checkInstance(ctx context.Context) error {
	ids, err := r.sampleIDs(ctx)
	if err != nil {
		return err
	}
	if r.opts.InstanceID != "" {
		instances, err := r.clerk.Instances(ctx)
		if err == nil && !slices.Contains(instances, r.opts.InstanceID) {
			err = fmt.Errorf("%w: the secret key belongs to %s, and ReconcileOptions.InstanceID is %s: set the key of that instance, or the id of this one; %s",
				ErrWrongInstance, cmp.Or(plainName(instances[0]), "another instance"), r.opts.InstanceID, setting.InstanceIDPlace)
		}
		return err
	}
	if len(ids) < fewestToTell {
		return nil
	}
	known, _, err := r.clerk.UsersByID(ctx, ids)
	if err == nil && len(known) == 0 {
		err = fmt.Errorf("%w: Clerk has none of the first %d users of the Store: set the secret key of their instance, or open their collection. "+
			"If both are right, and Clerk has lost them, set ReconcileOptions.InstanceID to the key's instance, ins_…; %s",
			ErrWrongInstance, len(ids), setting.InstanceIDPlace)
	}
	return err
}

// sampleIDs returns the ids of some of the Store's users.
func (r *reconcileRun) sampleIDs(ctx context.Context) (ids []string, err error) {
	if !r.canList {
		return nil, nil
	}
	err = r.retry(ctx, func() error {
		ids, r.storeEmpty = ids[:0], true
		for stamp, err := range r.store.Undeleted(ctx) {
			if err != nil {
				return storeError(err)
			}
			r.storeEmpty = false
			if !clerkapi.ValidUserID(stamp.ClerkID) {
				continue
			}
			if ids = append(ids, stamp.ClerkID); len(ids) == clerkapi.MaxUserIDs {
				break
			}
		}
		return nil
	})
	return ids, err
}

// walkUsers compares all users of Clerk with the Store, several pages at a time, while
// Clerk is asked for the next.
func (r *reconcileRun) walkUsers(ctx context.Context) error {
	total, err := r.clerk.Count(ctx)
	if err != nil {
		return err
	}
	r.progress.Total = total
	r.pager = clerkapi.NewPager(r.clerk, r.opts.PageSize, r.from, total)

	writers, writing := errgroup.WithContext(ctx)
	writers.SetLimit(r.opts.Writers)
	for number := 0; ; number++ {
		page, err := r.pager.Next(writing)
		if err != nil || len(page.Users) == 0 {
			// A writer's failure cancels the reads, so report it first.
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

// recovered turns a panic in the app's Store into an error. On one of the run's goroutines
// it would end the process.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = unavailable(fmt.Errorf("panic: %v", p))
	}
}

// pageDone moves the point to resume from past the pages that are done, in their order.
func (r *reconcileRun) pageDone(number int, page clerkapi.Page) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finished[number] = page.Until
	for {
		until, ok := r.finished[r.nextPage]
		if !ok {
			break
		}
		delete(r.finished, r.nextPage)
		r.nextPage++
		// Users in conflict are not done. A run that resumes here tries them again; the
		// resume point holds a bounded number of them.
		if len(r.conflicts) <= maxTallyIDs {
			r.until, r.resumeConflicts = until, len(r.conflicts)
		}
		r.progress.Done = max(r.progress.Done, until.Passed)
	}
	r.reportProgress()
}

// checkComplete compares what Clerk listed with what it counts. With an incomplete list,
// users would look deleted.
func (r *reconcileRun) checkComplete() error {
	if r.pager.Complete() {
		return nil
	}
	return fmt.Errorf("%w: %d of %d", ErrIncomplete, r.pager.Passed(), r.pager.Total())
}

// reportProgress calls Progress. The caller holds mu.
func (r *reconcileRun) reportProgress() {
	if r.opts.Progress == nil {
		return
	}
	defer func() {
		if p := recover(); p != nil { // on one of the run's goroutines it would end the process
			r.opts.Progress = nil
			r.syncer.cfg.Logger.Error("clerksync: panic in ReconcileOptions.Progress; it will not be called again", "panic", p)
		}
	}()
	p := r.progress
	p.Report = r.snapshot()
	r.opts.Progress(p)
}

func (r *reconcileRun) throttled(until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress.Throttled = until
	r.reportProgress()
	r.progress.Throttled = time.Time{}
}

// finish completes the Report.
func (r *reconcileRun) finish(err error) Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Seen += len(r.conflicts)
	for _, id := range r.conflicts {
		r.report.Conflicts.add(id)
	}
	switch {
	case err != nil:
		r.report.Reason = err.Error()
	case !r.canList:
		r.report.Reason = "the Store is not a BatchStore: it cannot be searched for records that are gone from Clerk"
	default:
		r.report.Complete = true
	}
	r.progress.Phase = PhaseDone
	r.reportProgress()
	return r.snapshot()
}

// snapshot is the Report as it stands. The caller holds mu.
func (r *reconcileRun) snapshot() Report {
	report := r.report.clone()
	report.Duration = r.syncer.clock.Now().Sub(r.start)
	report.ClerkCalls, report.Throttled = r.clerk.Calls(), r.clerk.Throttled()
	if !report.Complete {
		report.Resume = r.resume()
	}
	return report
}
