package world

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// Jobs
//
// If the Store is a clerksync.JobStore, most processes have OnCreate and OnDelete, and some are of a
// version of the app without one or both. What the functions do is recorded here, outside of the
// Store, as a mail service would record it. The world decides on its own which write owes a job, and
// knows of each claim what became of it.

// The jobs' configuration. MaxAttempts and newFor are small so that jobs fail, and users are too old.
const (
	lease       = 5 * time.Minute
	leaseGrace  = time.Minute
	maxAttempts = 3
	newFor      = 24 * time.Hour
	deleteDelay = 2 * time.Hour
)

// The faults of a function.
const (
	failsEarly    = "a function fails before its effect"
	failsLate     = "a function fails after its effect"
	panics        = "a function panics after its effect"
	discardsEarly = "a function discards the job"
	discardsLate  = "a function discards the job after its effect"
	hangs         = "a function hangs until its context ends"
	outlives      = "a function outlives its lease"
)

var functionFaults = []string{failsEarly, failsLate, panics, discardsEarly, hangs, outlives, discardsLate}

// What must happen to jobs in a long run.
const (
	effectOfCreate = "job: effect of OnCreate"
	effectOfDelete = "job: effect of OnDelete"
	repeatedEffect = "job: an effect happens again"
	diedClaimed    = "job: a process dies after the claim"
	diedAfter      = "job: a process dies after the effect"
	outlived       = "job: another process claims the job of a function that outlives its lease"
	deletedBy      = "job: a user is deleted while OnCreate runs"
	lostEnd        = "job: an end that could not be written"
	deadEarly      = "job: a user is deleted before OnCreate runs"
	tooOld         = "job: a user who signed up too long ago is not owed one"
	withoutHooks   = "job: a process without OnCreate makes a record"
	pendingVisit   = "visit 503 job_pending"
)

var jobsNeed = slices.Concat(functionFaults, []string{
	effectOfCreate, effectOfDelete, repeatedEffect, diedClaimed, diedAfter, outlived, deletedBy, lostEnd, deadEarly,
	tooOld, withoutHooks, pendingVisit, string(drainJobs), string(runJob), string(kill),
	"job: " + succeeded, "job: " + failed, "job: " + discarded, "job: " + gone,
	"observed job succeeded", "observed job retried", "observed job failed", "observed job discarded", "observed job dropped",
	"observed job lost",
})

// restoresNeed must happen too, if the Store restores.
var restoresNeed = []string{restoredBefore, restoredAfter, notRestored, string(mistake)}

// The ways in which a job is over.
const (
	succeeded = "succeeded"
	failed    = "failed"
	discarded = "discarded"
	gone      = "dropped"
	takenBack = "taken back"
)

// job is a job that a write owed.
type job struct {
	key    string
	user   *user
	kind   clerksync.JobKind
	due    time.Time
	claims []*claimed
	over   string // "" while it is owed
}

// claimed is what the world knows of one claim of a job.
type claimed struct {
	by       *run
	p        *process
	attempt  int
	at       time.Time // by the world's clock
	called   bool
	returned bool
	effect   bool
	result   error // of the function
	ending   bool  // the end of the attempt is being written
	ended    bool  // it was written
	end      clerksync.JobState
	excuse   string // why it need not be
}

// running reports whether the function may be running within its lease.
func (c *claimed) running(now time.Time) bool {
	return c.called && !c.returned && now.Before(c.at.Add(lease))
}

var (
	errFunction  = errors.New("world: the function fails")
	errDiscarded = errors.New("world: the function gives up")
	errDied      = errors.New("world: the process has died")
)

// hooks says which functions a process has, by its options.
type hooks struct{ create, delete, await bool }

func hooksOf(options int) hooks {
	create := options%5 != 4
	return hooks{create: create, delete: options%7 != 6, await: create && options%4 == 3}
}

// configureJobs gives a process its functions.
func (p *process) configureJobs(cfg *clerksync.Config, options int) {
	if !p.w.able.jobs {
		return
	}
	p.hooks = hooksOf(options)
	cfg.Jobs = clerksync.JobConfig{Lease: lease, MaxAttempts: maxAttempts, NewFor: newFor, Await: p.hooks.await}
	if p.w.kindOfWorld%3 == 1 {
		cfg.Jobs.DeleteDelay = deleteDelay
	}
	if p.hooks.create {
		cfg.OnCreate = p.function(clerksync.JobCreate)
	}
	if p.hooks.delete {
		cfg.OnDelete = p.function(clerksync.JobDelete)
	}
}

func createKey(id string) string { return id + "/create" }

func deleteKey(id string, deletedAt time.Time) string {
	return fmt.Sprintf("%s/delete/%d", id, ms(deletedAt))
}

// function returns the app's function for a kind of jobs.
func (p *process) function(kind clerksync.JobKind) func(context.Context, *clerksync.User, clerksync.Job) error {
	return func(ctx context.Context, u *clerksync.User, called clerksync.Job) error {
		w, r := p.w, runOf(ctx)
		c := w.called(r, kind, u, called)
		if c == nil {
			return errFunction
		}
		c.called = true
		n := r.touch()
		r.interrupt(n, false)
		fault := w.functionFault(r, n)
		if p.dead {
			return errDied
		}
		if fault != "" {
			w.counts.add(fault)
		}
		c.result = w.work(ctx, c, kind, fault)
		if c.effect {
			r.interrupt(n, true)
		}
		if p.dead && c.effect {
			w.counts.add(diedAfter)
		}
		c.returned = true
		if fault == panics {
			panic("world: the function panics")
		}
		return c.result
	}
}

// functionFault returns the fault of call n, which is one of a function, "" for none. In a random
// world, every other call fails in some way. One that a visit waits for takes no time, because the visit
// would go on at the same time.
func (w *world) functionFault(r *run, n int) string {
	if f := r.fault(n); f != 0 {
		return functionFaults[(f-1)%len(functionFaults)]
	}
	f := int(r.seq * 2654435761 >> 16 & 1023) // at random, and the same in each run
	if w.reliable || f%2 == 0 {
		return ""
	}
	fault := functionFaults[f/2%len(functionFaults)]
	if r.awaited && (fault == hangs || fault == outlives) {
		return failsEarly
	}
	return fault
}

// work is what a function does.
func (w *world) work(ctx context.Context, c *claimed, kind clerksync.JobKind, fault string) error {
	switch fault {
	case failsEarly:
		return errFunction
	case discardsEarly:
		return clerksync.Discard(errDiscarded)
	case hangs:
		w.trouble()
		w.clock.Advance(lease + time.Second)
		if ctx.Err() == nil {
			w.fail("a function has run for longer than its lease, and its context has not ended")
		}
		return context.Cause(ctx)
	}
	w.effect(c, kind)
	switch fault {
	case failsLate, panics:
		return errFunction
	case discardsLate:
		return clerksync.Discard(errDiscarded)
	case outlives:
		w.trouble()
		w.clock.Advance(lease + leaseGrace + time.Second)
	}
	return nil
}

// effect records what the function did.
func (w *world) effect(c *claimed, kind clerksync.JobKind) {
	c.effect = true
	name := effectOfCreate
	if kind == clerksync.JobDelete {
		name = effectOfDelete
	}
	w.counts.add(name)
}

// called checks a call of a function, and returns its claim.
func (w *world) called(r *run, kind clerksync.JobKind, u *clerksync.User, called clerksync.Job) *claimed {
	key := createKey(u.ClerkID)
	if kind == clerksync.JobDelete {
		key = deleteKey(u.ClerkID, u.DeletedAt)
	}
	j := w.jobs[key]
	switch {
	case called.Key != key:
		w.fail("the key of a job of %s is %q, want %q", u.ClerkID, called.Key, key)
	case j == nil:
		w.fail("the function is called for %s, which nobody owes", key)
	case j.over != "" && w.keepsLeases():
		w.fail("the function is called for %s, which %s", key, j.over)
	case u.DeletedAt.IsZero() != (kind == clerksync.JobCreate):
		w.fail("the function is called for %s with a record that was deleted at %v", key, u.DeletedAt)
	default:
		return w.claimOf(r, j, called)
	}
	return nil
}

// claimOf returns the claim of a call, and checks that its lease is not over, and that no other call is
// running within its lease.
func (w *world) claimOf(r *run, j *job, called clerksync.Job) *claimed {
	own, now := j.claimBy(r, called.Attempt), w.clock.Now()
	switch {
	case own == nil || own.called:
		w.fail("attempt %d is called for %s, and its claims are %+v", called.Attempt, j.key, j.claims)
		return nil
	case !now.Before(own.at.Add(lease)):
		w.fail("the function is called for %s after the lease: %+v", j.key, own)
	case own != j.claims[len(j.claims)-1] && w.keepsLeases():
		w.fail("the function is called for %s, which another process has claimed: %+v", j.key, own)
	}
	others := slices.DeleteFunc(slices.Clone(j.claims), func(c *claimed) bool { return c == own })
	if create := w.jobs[createKey(j.user.id)]; create != nil && j.kind == clerksync.JobDelete {
		others = slices.Concat(others, create.claims)
	}
	if i := slices.IndexFunc(others, func(c *claimed) bool { return c.running(now) }); i >= 0 && w.keepsLeases() {
		w.fail("the function is called for %s while a function runs for the user: %+v", j.key, others[i])
	}
	if slices.ContainsFunc(j.claims, func(c *claimed) bool { return c.effect }) {
		w.counts.add(repeatedEffect)
	}
	return own
}

// keepsLeases reports whether the processes' clocks differ by no more than a lease allows for.
func (w *world) keepsLeases() bool { return w.disagreement() <= leaseGrace }

// owe notes a job that a write owed.
func (w *world) owe(key string, u *user, kind clerksync.JobKind) {
	if u == nil {
		return
	}
	if w.jobs[key] != nil {
		w.fail("%s is owed twice", key)
	}
	w.jobs[key] = &job{key: key, user: u, kind: kind}
}

// created checks whether the write that made a record owed the job that it should.
func (w *world) created(r *run, offered *clerksync.User) {
	u := w.byID[offered.ClerkID]
	if !w.able.jobs || u == nil {
		return
	}
	owes := !offered.CreateDue.IsZero()
	if owes {
		w.owe(createKey(u.id), u, clerksync.JobCreate)
	}
	// Some time may have passed since the decision.
	skew := r.p.skew
	oldest, youngest := w.clock.Now().Add(skew).Sub(offered.ClerkCreatedAt), r.start.Add(skew).Sub(offered.ClerkCreatedAt)
	switch {
	case !r.p.hooks.create:
		w.counts.add(withoutHooks)
		if owes {
			w.fail("a process without OnCreate owes %s", createKey(u.id))
		}
	case oldest <= newFor && !owes:
		w.fail("no job is owed for %s, who signed up %v ago", u.id, oldest)
	case youngest > newFor:
		w.counts.add(tooOld)
		if owes {
			w.fail("a job is owed for %s, who signed up %v ago", u.id, youngest)
		}
	}
}

// jobStore has the methods of a clerksync.JobStore, for the wrappers of a Store that is one.
type jobStore struct {
	s     *store
	inner clerksync.JobStore
}

type (
	jobBatchStore struct {
		batchStore
		jobStore
	}
	jobAdoptingStore struct {
		adoptingStore
		jobStore
	}
)

func (j jobStore) DeactivateOwing(
	ctx context.Context, id, externalID string, at, due time.Time,
) (res clerksync.Result, owing clerksync.Owing, err error) {
	res, err = j.s.deactivate(ctx, id, func(ctx context.Context) (res clerksync.Result, err error) {
		before, _ := j.s.inner.User(ctx, id) // nil if there is none
		if res, owing, err = j.inner.DeactivateOwing(ctx, id, externalID, at, due); err == nil {
			j.s.w.deactivated(id, before, due, owing)
		}
		return res, err
	})
	return res, owing, err
}

// deactivated checks what a deletion owes: a job if there was a record that was not deleted.
func (w *world) deactivated(id string, before *clerksync.User, due time.Time, owing clerksync.Owing) {
	u := w.byID[id]
	after, err := w.store.inner.User(context.Background(), id)
	if u == nil || err != nil {
		return // see store.note
	}
	want := clerksync.OwesNone
	if before != nil && before.DeletedAt.IsZero() || before == nil && w.isLegacy(after.ID) {
		want = clerksync.OwesJob
		if j := w.jobs[createKey(id)]; j != nil && slices.ContainsFunc(j.claims, func(c *claimed) bool { return c.called && !c.returned }) {
			w.counts.add(deletedBy)
		}
		w.owe(deleteKey(id, after.DeletedAt), u, clerksync.JobDelete)
	}
	// A Store may take such a job for its own, whose answer was lost.
	again := want == clerksync.OwesNone && before != nil && ms(before.Jobs.Of(clerksync.JobDelete).Due) == ms(due) && owing == clerksync.OwesJob
	if owing != want && !again {
		w.fail("the deletion of %s owes %v, want %v: before, the record was %+v", id, owing, want, before)
	}
}

func (j jobStore) ChangeJob(ctx context.Context, c clerksync.JobChange) (changed bool, err error) {
	w, r := j.s.w, runOf(ctx)
	before, _ := j.s.inner.User(context.Background(), c.ClerkID)
	if job := w.jobOf(c); job != nil && c.EndsAttempt() {
		if own := job.claimBy(r, c.From.Attempt); own != nil {
			own.ending = true
			defer func() { own.ending = false }()
		}
	}
	fault := j.s.call(ctx, "ChangeJob", func(ctx context.Context) error {
		w.endIsLate(r, c)
		if changed, err = j.inner.ChangeJob(ctx, c); changed {
			w.changedJob(r, before, c)
			w.ending = w.jobOf(c)
			j.s.note(c.ClerkID, false)
			w.ending = nil
		}
		return err
	})
	if fault != nil {
		w.excuse(r, c, "the Store failed")
	}
	if r.p.dead { // it does not try again
		return false, fmt.Errorf("%w: %w", clerksync.ErrRejected, errDied)
	}
	return changed && fault == nil, fault
}

// DueJobs returns the jobs in an order that is the same in each run.
func (j jobStore) DueJobs(ctx context.Context, kind clerksync.JobKind, by time.Time, limit int) (due []clerksync.JobEntry, err error) {
	fault := j.s.call(ctx, "", func(ctx context.Context) error {
		due, err = j.inner.DueJobs(ctx, kind, by, limit)
		return err
	})
	if fault != nil {
		return nil, fault
	}
	slices.SortFunc(due, func(a, b clerksync.JobEntry) int { return strings.Compare(a.ClerkID, b.ClerkID) })
	return due, nil
}

func (j jobStore) Jobs(ctx context.Context) iter.Seq2[clerksync.JobEntry, error] {
	return j.inner.Jobs(ctx)
}

// PrepareJobs never fails: a lookup that waited for the job goes on meanwhile.
func (j jobStore) PrepareJobs(ctx context.Context, kind clerksync.JobKind) error {
	return j.inner.PrepareJobs(ctx, kind)
}

// jobOf returns the job that a change is about.
func (w *world) jobOf(c clerksync.JobChange) *job {
	if c.Kind == clerksync.JobDelete {
		return w.jobs[deleteKey(c.ClerkID, c.From.DeletedAt)]
	}
	return w.jobs[createKey(c.ClerkID)]
}

// claimBy returns the claim of attempt by a run, nil if it has none.
func (j *job) claimBy(r *run, attempt int) *claimed {
	i := slices.IndexFunc(j.claims, func(c *claimed) bool { return c.by == r && c.attempt == attempt })
	if i < 0 {
		return nil
	}
	return j.claims[i]
}

// excuse notes why the end of a run's attempt need not have been written.
func (w *world) excuse(r *run, c clerksync.JobChange, why string) {
	j := w.jobOf(c)
	if j == nil {
		return
	}
	if own := j.claimBy(r, max(c.From.Attempt, c.To.Attempt)); own != nil && !own.ended {
		own.excuse = why
		w.counts.add(lostEnd)
	}
}

// endIsLate excuses an end that comes after the lease.
func (w *world) endIsLate(r *run, c clerksync.JobChange) {
	j := w.jobOf(c)
	if j == nil || !c.EndsAttempt() {
		return
	}
	if own := j.claimBy(r, c.From.Attempt); own != nil && w.clock.Now().Sub(own.at) >= lease {
		own.excuse = "it came after the lease"
	}
}

// died excuses what a process that has died leaves behind.
func (w *world) died(p *process) {
	for _, j := range w.jobs {
		for _, c := range j.claims {
			if c.p == p && !c.ended && j.over == "" {
				c.excuse = "the process died"
				w.counts.add(diedClaimed)
			}
		}
	}
}

// changedJob checks a new state of a job. before is the record as it was.
func (w *world) changedJob(r *run, before *clerksync.User, c clerksync.JobChange) {
	j := w.jobOf(c)
	if j == nil {
		w.fail("a job of %s that nobody owes is changed: %+v", c.ClerkID, c)
		return
	}
	wanted := before.DeletedAt.IsZero()
	if j.kind == clerksync.JobDelete {
		wanted = before.DeletedAt.Equal(c.From.DeletedAt)
	}
	switch own := j.claimBy(r, c.From.Attempt); {
	case own != nil && own.ended && c.EndsAttempt() && own.end == c.To: // it was written again: the answer was lost
	case j.over != "":
		w.fail("%s is changed to %+v, and %s", j.key, c.To, j.over)
	case c.To.Token != "":
		w.claimed(r, j, c, wanted)
	case c.To == clerksync.JobState{}:
		j.over = gone
		if j.kind == clerksync.JobCreate {
			w.counts.add(deadEarly)
		}
		if wanted {
			w.fail("%s is dropped, and the record was deleted at %v", j.key, before.DeletedAt)
		}
	case c.To.Code == "unended":
		w.unended(j, c)
	default:
		w.endedAttempt(r, j, c)
	}
	if j.over != "" {
		w.counts.add("job: " + j.over)
	}
}

// claimed checks a claim. If an attempt before has not ended, its lease is over, and there is a
// reason why its end is not written.
func (w *world) claimed(r *run, j *job, c clerksync.JobChange, wanted bool) {
	now := w.clock.Now()
	switch n := len(j.claims); {
	case c.To.Attempt != n+1 || c.To.Attempt > maxAttempts:
		w.fail("attempt %d of %s follows %d", c.To.Attempt, j.key, n)
	case !wanted:
		w.fail("%s is claimed for a record that is not in the state for it", j.key)
	case now.Add(r.p.skew).Before(c.From.Due):
		w.fail("%s is claimed by a process before it is due at %v", j.key, c.From.Due)
	case n > 0 && !j.claims[n-1].ended:
		w.checkUnended(j)
	}
	j.claims = append(j.claims, &claimed{by: r, p: r.p, attempt: c.To.Attempt, at: now})
}

// checkUnended checks that the last attempt, which has not ended, may be over.
func (w *world) checkUnended(j *job) {
	last := j.claims[len(j.claims)-1]
	if w.keepsLeases() && w.clock.Now().Before(last.at.Add(lease)) {
		w.fail("the lease of %s is ignored: %+v", j.key, last)
	}
	if last.called && !last.returned && last.excuse == "" {
		last.excuse = "it took longer than its lease"
		w.counts.add(outlived)
	}
	if last.excuse == "" && !last.ending && w.keepsLeases() {
		w.fail("the end of an attempt of %s is missing: %+v", j.key, last)
	}
}

// unended checks that a job has failed because its last attempt has not ended.
func (w *world) unended(j *job, c clerksync.JobChange) {
	j.over = failed
	if len(j.claims) != maxAttempts || c.To.Attempt != maxAttempts {
		w.fail("%s has failed after %d of %d attempts", j.key, len(j.claims), maxAttempts)
		return
	}
	w.checkUnended(j)
}

// endedAttempt checks that the end of an attempt is what its function asked for.
func (w *world) endedAttempt(r *run, j *job, c clerksync.JobChange) {
	own := j.claimBy(r, c.From.Attempt)
	isLate := own != nil && !own.called && c.To.Code == "timeout" // the lease was over before the call
	if isLate {
		own.result, own.called, own.returned = context.DeadlineExceeded, true, true
	}
	if own == nil || own != j.claims[len(j.claims)-1] || !own.returned {
		w.fail("the end of an attempt of %s is written by another, or before the function returned: %+v", j.key, own)
		return
	}
	own.ended, own.end = true, c.To
	after := c.To.Due.Sub(own.at.Add(r.p.skew)) // the write may have taken a while
	right := false
	switch {
	case own.result == nil:
		j.over = succeeded
		right = c.To == clerksync.JobState{Attempt: own.attempt, DeletedAt: c.From.DeletedAt}
	case errors.Is(own.result, errDiscarded):
		j.over = discarded
		right = c.To == clerksync.JobState{Attempt: own.attempt, DeletedAt: c.From.DeletedAt, Code: "discarded"}
	case own.attempt == maxAttempts:
		j.over = failed
		right = c.To.Due.IsZero() && !c.To.FailedAt.IsZero() && c.To.Code != ""
	default:
		right = after > 0 && c.To.FailedAt.IsZero() && c.To.Code != ""
	}
	if !right || c.To.Attempt != own.attempt || !c.To.DeletedAt.Equal(c.From.DeletedAt) {
		w.fail("the function's error for %s was %v, and the job is %+v", j.key, own.result, c.To)
	}
}

// isPending reports whether a visit of the user may have to wait: OnCreate has not succeeded, and
// was not discarded.
func (w *world) isPending(id string) bool {
	j := w.jobs[createKey(id)]
	return j != nil && j.over != succeeded && j.over != discarded && j.over != gone
}

// checkSetUp checks that a process with Await lets nobody in before OnCreate has succeeded.
func (p *process) checkSetUp(id string) {
	if p.hooks.await && p.w.isPending(id) {
		p.w.fail("a handler ran for %s, and OnCreate has not succeeded", id)
	}
}

// deleteJob returns the delete job of a deletion, nil if it owed none.
func (w *world) deleteJob(id string, deletedAt int64) *job {
	return w.jobs[deleteKey(id, time.UnixMilli(deletedAt))]
}
