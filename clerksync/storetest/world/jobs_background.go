package world

import (
	"context"
	"maps"
	"runtime"
	"slices"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// Jobs in the background
//
// A job in the background waits for its turn, like a refresh, so that one thing happens at a time. A visit
// of a process with Await waits for its user's job, so that job does not wait.

// parkedJob is a job in the background that waits for its turn.
type parkedJob struct {
	run   *run
	let   chan struct{}
	ended <-chan struct{}
}

// waits reports whether a waiting job may wait beyond the end of the step.
func (p *process) waits(j *parkedJob) bool { return j.run.seq%8 != 0 || p.w.reliable }

// carry returns the context of background work that a request causes. A job has a run of its own.
func (p *process) carry(request context.Context) context.Context {
	r := runOf(request)
	if !startsJob() {
		return context.WithValue(context.Background(), runKey{}, request.Value(runKey{}))
	}
	own := p.w.newRun(p, runJob, op{kind: runJob}, nil, 1)
	own.awaited = p.hooks.await && r != nil && r.kind == visit
	return context.WithValue(context.Background(), runKey{}, own)
}

// startsJob reports whether the caller starts a job in the background.
func startsJob() bool { return isCalledBy("clerksync.(*Syncer).startJob") }

// turn is called before a job in the background. It waits until the world lets the job go on,
// unless a visit waits for the job.
func (p *process) turn(ctx context.Context, id string, ended <-chan struct{}) {
	r := runOf(ctx)
	r.user = p.w.byID[id]
	if r.awaited {
		return
	}
	waiting := &parkedJob{run: r, let: make(chan struct{}), ended: ended}
	p.mu.Lock()
	if p.abandoned {
		p.mu.Unlock()
		return
	}
	p.parkedJobs = append(p.parkedJobs, waiting)
	p.moves++
	p.mu.Unlock()
	<-waiting.let
}

// jobsArrived waits until each job in the background waits for its turn. running is the number of
// jobs that the world lets run.
func (p *process) jobsArrived(running int) {
	for {
		p.mu.Lock()
		moves, parked := p.moves, len(p.parkedJobs)
		p.mu.Unlock()
		workers := clock.JobWorkers(p.syncer)
		p.mu.Lock()
		still := p.moves == moves
		p.mu.Unlock()
		if still && workers == parked+running {
			return
		}
		runtime.Gosched()
	}
}

// goOnJob lets the waiting job i run to its end.
func (p *process) goOnJob(i int, o op, depth int) {
	p.mu.Lock()
	waiting := p.parkedJobs[i]
	p.parkedJobs = slices.Delete(p.parkedJobs, i, i+1)
	p.moves++
	p.mu.Unlock()
	before := p.runningJobs
	p.runningJobs++
	r := waiting.run
	r.op.breaks, r.op.n, r.depth = o.breaks, o.n, depth
	r.start, r.troubles = p.w.clock.Now(), p.w.troubles
	close(waiting.let)
	<-waiting.ended
	p.jobsArrived(before)
	p.runningJobs = before
}

// drainJobs runs all waiting jobs, or, if lazy, those that need not wait beyond their step.
func (p *process) drainJobs(lazy bool) {
	p.jobsArrived(p.runningJobs)
	for i := 0; i < len(p.parkedJobs); {
		if lazy && p.waits(p.parkedJobs[i]) && len(p.parkedJobs) < maxParked {
			i++
			continue
		}
		p.goOnJob(i, op{}, 1)
	}
}

// maxParked is less than the number of jobs that run at one time.
const maxParked = 5

// mayAwait runs the waiting jobs of a process with Await, because a visit may wait for one of them. It
// reports false in the middle of a job of the process, for which the visit would wait for ever.
func (p *process) mayAwait() bool {
	if !p.hooks.await {
		return true
	}
	if p.runningJobs > 0 {
		return false
	}
	p.drainJobs(false)
	return true
}

// runJob continues a waiting job of the first process that has one.
func (w *world) runJob(o op, m moment) {
	first := slices.Index(w.procs, m.p)
	for i := range w.procs {
		p := w.procs[(first+i)%len(w.procs)]
		p.jobsArrived(p.runningJobs)
		if n := len(p.parkedJobs); n > 0 {
			p.goOnJob(o.n%n, o, m.depth())
			return
		}
	}
}

// drainNow is one DrainJobs.
func (w *world) drainNow(o op, m moment) {
	if !w.able.jobs {
		return
	}
	r := w.newRun(m.p, drainJobs, o, nil, m.depth())
	_, err := m.p.syncer.DrainJobs(context.WithValue(context.Background(), runKey{}, r))
	if err != nil && r.healthy() {
		w.fail("DrainJobs failed without a fault: %v", err)
	}
}

// owesJobs reports whether some job is not over.
func (w *world) owesJobs() bool {
	for _, j := range w.jobs {
		if j.over == "" {
			return true
		}
	}
	return false
}

// settleJobs runs all jobs in a process that does nothing else, and checks that none is lost.
func (w *world) settleJobs() {
	if !w.owesJobs() {
		return
	}
	defer func(before bool) { w.reliable = before }(w.reliable)
	w.reliable = true
	worker := w.newProcess(0, 0)
	w.clock.Advance(deleteDelay)
	for range maxAttempts + 2 {
		w.clock.Advance(lease + leaseGrace + w.disagreement())
		w.drainNow(op{kind: drainJobs}, moment{p: worker})
	}
	worker.abandon()
	for _, key := range slices.Sorted(maps.Keys(w.jobs)) {
		w.checkSettled(w.jobs[key])
	}
}

func (w *world) checkSettled(j *job) {
	u, err := w.store.inner.User(context.Background(), j.user.id)
	if err != nil {
		w.fail("in the end, the record of %s: %v", j.user.id, err)
		return
	}
	hasEffect := slices.ContainsFunc(j.claims, func(c *claimed) bool { return c.effect })
	state := u.Jobs.Of(j.kind)
	switch {
	case j.kind == clerksync.JobDelete && deleteKey(j.user.id, u.DeletedAt) != j.key: // taken back meanwhile
	case j.over == "":
		w.fail("in the end %s is lost: %+v", j.key, state)
	case j.over == succeeded && !hasEffect:
		w.fail("%s has succeeded without an effect", j.key)
	case !state.Due.IsZero(), (j.over == failed) == state.FailedAt.IsZero():
		w.fail("in the end %s %s, and the record has %+v", j.key, j.over, state)
	}
}

// kill ends a process at once: no call of it to the Store or to Clerk has any more effect. A new one
// takes its place, perhaps of another version.
func (w *world) kill(o op, m moment) {
	old := m.p
	if m.around != nil {
		old = m.around.p
	}
	i := slices.Index(w.procs, old)
	if i < 0 {
		return // already replaced
	}
	w.trouble()
	old.dead = true
	w.died(old)
	w.procs[i] = w.newProcess(old.skew, o.n)
	w.retired = append(w.retired, old)
	if m.around != nil && m.around.kind == reconcile && m.around.cancel != nil {
		m.around.cancel()
	}
}
