package world

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// op is one operation. It is drawn completely before it begins, including what happens in the
// middle of it. So the number of calls that an operation makes does not affect later draws, and
// two goroutines never draw at the same time.
type op struct {
	kind      kind
	user      int // index among the users, from the youngest on; or sameUser
	proc      int // index of the process
	n         int // its meaning depends on the kind
	d         time.Duration
	flag      bool // of a visit: its refresh waits; of a ban, its end, or a deletion: the webhook is lost
	delivered bool // of a change in Clerk: its webhook is delivered at once
	claim     claim
	breaks    []interrupt
}

// sameUser, as op.user, is the user of the interrupted operation.
const sameUser = -1

// interrupt is what happens during one call of an operation to the Store or to Clerk.
type interrupt struct {
	call   int  // number of the call, from 0
	after  bool // after the call's effect and before its return; otherwise before the call
	do     *op
	fault  int // 0 for none
	repeat int // how many later calls have the fault too
}

type kind string

const (
	visit        kind = "visit"
	syncNow      kind = "Sync"
	forget       kind = "Forget"
	reconcile    kind = "Reconcile"
	runRefresh   kind = "a refresh goes on"
	deliver      kind = "webhook delivered"
	deliverAny   kind = "webhook delivered out of order"
	deliverAll   kind = "backlog of webhooks delivered"
	dropHook     kind = "webhook dropped"
	doubleHook   kind = "webhook doubled"
	delayHook    kind = "webhook delayed over hours"
	replayHook   kind = "webhook replayed"
	signUp       kind = "user signed up"
	signUpAgain  kind = "account created again"
	update       kind = "user changed"
	silent       kind = "changed at equal version"
	silentSignIn kind = "signed in at equal version"
	ban          kind = "user banned"
	unban        kind = "ban lifted"
	signIn       kind = "user signed in"
	exchange     kind = "two users exchange addresses"
	deleteUser   kind = "user deleted"
	editApp      kind = "app's edit"
	suspend      kind = "app suspends"
	unsuspend    kind = "app's suspension ends"
	pass         kind = "time passes"
	clerkDown    kind = "outage of Clerk"
	storeDown    kind = "outage of the Store"
	restart      kind = "process restarted"
	kill         kind = "process killed"
	drainJobs    kind = "DrainJobs"
	runJob       kind = "a job goes on"
	mistake      kind = "user deleted by mistake"
	restore      kind = "Reconcile restores"
	quiet        kind = "ending"
	leave        kind = "visitor leaves"
	cancelRun    kind = "Reconcile cancelled"
)

// operation is a kind of operation: how often it is drawn, as a step and in the middle of another
// operation, and what it does.
type operation struct {
	kind   kind
	weight int
	nested int
	do     func(*world, op, moment)
}

// moment is when an operation happens, and to whom.
type moment struct {
	p      *process
	u      *user
	around *run // the interrupted operation, or nil
}

// depth is 1 in the middle of another operation, otherwise 0.
func (m moment) depth() int {
	if m.around != nil {
		return 1
	}
	return 0
}

// operations lists all kinds. It is a function because a variable would depend on itself: any
// operation may run in the middle of another one.
func operations() []operation {
	return []operation{
		{visit, 40, 8, (*world).visit},
		{update, 9, 6, (*world).changeInClerk},
		{deliver, 16, 3, func(w *world, o op, m moment) { w.deliverNext(o, m.p, m.depth()) }},
		{deliverAny, 4, 9, (*world).deliverAny},
		{pass, 14, 3, (*world).pass},
		{syncNow, 4, 3, (*world).sync},
		{reconcile, 2, 1, (*world).reconcile},
		{forget, 2, 2, (*world).forget},
		{runRefresh, 3, 1, (*world).runRefresh},
		{dropHook, 4, 0, (*world).dropHook},
		{doubleHook, 2, 0, (*world).doubleHook},
		{delayHook, 2, 0, (*world).delayHook},
		{replayHook, 3, 2, (*world).replayHook},
		{deliverAll, 1, 0, (*world).deliverAll},
		{signUp, 4, 0, (*world).newUser},
		{signUpAgain, 2, 1, (*world).newUser},
		{silent, 3, 2, (*world).changeInClerk},
		{silentSignIn, 1, 0, (*world).changeInClerk},
		{ban, 2, 1, (*world).changeInClerk},
		{unban, 3, 2, (*world).changeInClerk},
		{signIn, 3, 1, (*world).changeInClerk},
		{exchange, 2, 1, (*world).changeInClerk},
		{deleteUser, 3, 2, (*world).changeInClerk},
		{editApp, 4, 2, (*world).edit},
		{suspend, 2, 1, (*world).edit},
		{unsuspend, 2, 0, (*world).edit},
		{clerkDown, 1, 0, (*world).startClerkOutage},
		{storeDown, 1, 0, (*world).startStoreOutage},
		{restart, 1, 1, (*world).restart},
		{kill, 1, 3, (*world).kill},
		{drainJobs, 3, 3, (*world).drainNow},
		{runJob, 5, 1, (*world).runJob},
		{mistake, 1, 0, (*world).mistake},
		{restore, 0, 0, (*world).restore},
		{quiet, 2, 0, (*world).end},
		{leave, 0, 3, (*world).leave},
		{cancelRun, 0, 4, (*world).cancelReconcile},
	}
}

// do runs an operation, in the middle of the run around if that is not nil.
func (w *world) do(o op, around *run) {
	w.trace(o, around)
	if around != nil {
		w.counts.add("in the middle of " + string(around.kind) + ": " + string(o.kind))
	}
	m := moment{p: w.procs[o.proc%len(w.procs)], u: w.pickUser(o, around), around: around}
	w.operations[o.kind](w, o, m)
	w.counts.add(string(o.kind))
	for _, p := range w.procs {
		p.jobsArrived(p.runningJobs)
	}
	if around != nil && around.kind == visit {
		around.p.mayAwait() // the visit may come upon a job that began in the middle of it
	}
	if around == nil {
		w.afterStep()
	}
}

// afterStep ends outages that are over, runs the refreshes that are due, and stops the processes
// that were replaced.
func (w *world) afterStep() {
	w.steps++
	w.clerkOutage.endAt(w.steps)
	w.storeOutage.endAt(w.steps)
	for _, p := range w.procs {
		p.drain(true)
	}
	for _, p := range w.retired {
		p.stop()
	}
	w.retired = nil
	w.align()
}

func (w *world) pickUser(o op, around *run) *user {
	if o.user == sameUser && around != nil && around.user != nil {
		return around.user
	}
	n := len(w.users)
	return w.users[n-1-max(o.user, 0)%n]
}

// outage is a time in which Clerk or the Store fails each call.
type outage struct {
	down  bool
	fault int // which fault of Clerk
	ends  int // the step at which it ends
}

func (o *outage) endAt(step int) { o.down = o.down && step < o.ends }

func (w *world) startClerkOutage(o op, _ moment) {
	w.clerkOutage = outage{down: true, fault: o.n, ends: w.steps + 1 + o.n%8}
}

func (w *world) startStoreOutage(o op, _ moment) {
	w.storeOutage = outage{down: true, ends: w.steps + 1 + o.n%8}
}

func (w *world) pass(o op, m moment) {
	w.clock.Advance(o.d)
	if m.around != nil {
		w.trouble()
	}
}

func (w *world) forget(_ op, m moment) {
	m.p.syncer.Forget(m.u.id)
	w.seq++
	w.dropped(m.p, m.u, w.seq)
	m.p.forgot[m.u.id] = w.seq
}

// runRefresh continues a waiting refresh of the first process that has one.
func (w *world) runRefresh(o op, m moment) {
	first := slices.Index(w.procs, m.p)
	for i := range w.procs {
		p := w.procs[(first+i)%len(w.procs)]
		inItsVisit := m.around != nil && m.around.p == p && m.around.kind == visit
		if n := len(p.parked); n > 0 && !inItsVisit {
			p.goOn(o.n%n, o, m.depth())
			return
		}
	}
}

// traced is one operation of the history.
type traced struct {
	at    time.Time
	depth int
	op    op
}

func (w *world) trace(o op, around *run) {
	depth := 0
	if around != nil {
		depth = 1 + w.depth
	}
	w.history = append(w.history, traced{w.clock.Now(), depth, o})
}

// story lists the last operations.
func (w *world) story() string {
	var b strings.Builder
	for _, h := range w.history[max(0, len(w.history)-80):] {
		fmt.Fprintf(&b, "%s %s%v\n", h.at.Format("Jan 2 15:04:05.000"), strings.Repeat("    ", h.depth), h.op)
	}
	return b.String()
}
