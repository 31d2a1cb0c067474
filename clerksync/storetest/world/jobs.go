package world

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	maxAttempts = 2
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
	claims []*claimed
	over   string // "" while it is owed
	overAt uint64 // since when, by world.seq
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
		p.delay = deleteDelay
		cfg.Jobs.DeleteDelay = p.delay
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
	if kind == clerksync.JobDelete {
		u.cleanUp = w.jobs[key]
	}
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

// isPending reports whether a visit of the user may have to wait: OnCreate has not succeeded, and
// was not discarded.
func (w *world) isPending(id string) bool {
	j := w.jobs[createKey(id)]
	return j != nil && j.over != succeeded && j.over != discarded && j.over != gone
}

// wasPending reports whether a visit may have had to wait at any time.
func (w *world) wasPending(r *run) bool {
	j := w.jobs[createKey(r.user.id)]
	return w.isPending(r.user.id) || j != nil && j.overAt > r.seq
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
