package world

import (
	"context"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// run is an operation of a process that is under way. It travels in the context, so
// that each call to the Store or to Clerk knows whose it is.
type run struct {
	w     *world
	p     *process
	kind  kind // deliver for all webhooks
	op    op
	user  *user // nil where there is none
	depth int

	calls    int
	repeated int // the fault that goes on, and how often it will
	left     int

	start       time.Time
	seq         uint64
	troubles    int // world.troubles at the start
	storeRead   uint64
	clerkRead   uint64 // when Clerk last answered, by world.seq
	deactivated []string
	dry         bool

	cancel     context.CancelFunc
	returned   chan struct{} // a visitor's
	leaves     bool
	joined     []joined // visitors who wait for its flight
	joiners    int
	flight     uint64   // when its latest flight began, by world.seq
	readBack   bool     // the Store did not return what it wrote: the same flight reads it
	wroteAt    uint64   // when its write began, by world.seq
	offers     []string // users that it offered to the Store
	sawDeleted bool     // an Upsert found the record deleted

	status int
	code   string
	served *clerksync.User

	ended chan struct{} // a visit's: the refresh behind it was observed

	pages *pages // of a Reconcile
	omits omission
}

// runKey is whose the calls are; visitorKey is who gets the answer. They differ for one
// who joins another's flight.
type (
	runKey     struct{}
	visitorKey struct{}
)

func runOf(ctx context.Context) *run {
	r, _ := ctx.Value(runKey{}).(*run)
	if r != nil && r.p != nil && r.kind == visit {
		if refresh := r.p.refreshOf(r); refresh != nil {
			return refresh
		}
	}
	return r
}

func (w *world) newRun(p *process, kind kind, o op, u *user, depth int) *run {
	w.seq++
	return &run{w: w, p: p, kind: kind, op: o, user: u, depth: depth, start: w.clock.Now(), seq: w.seq, troubles: w.troubles, ended: make(chan struct{}, 8)}
}

// touch numbers a call.
func (r *run) touch() int {
	n := r.calls
	r.calls++
	return n
}

// fault is what hits call n, 0 for nothing.
func (r *run) fault(n int) int {
	for _, in := range r.op.breaks {
		if in.fault != 0 && in.call == n {
			r.repeated, r.left = in.fault, in.repeat
			return in.fault
		}
	}
	if r.left > 0 {
		r.left--
		return r.repeated
	}
	return 0
}

// interrupt runs what is to happen at call n.
func (r *run) interrupt(n int, after bool) {
	for _, in := range r.op.breaks {
		if in.do == nil || in.call != n || in.after != after {
			continue
		}
		o := *in.do
		r.w.depth++
		r.w.do(o, r)
		r.w.depth--
	}
}

// readsStore notes that a flight begins, as each does by a read of the Store.
func (r *run) readsStore() {
	r.w.flights.Lock()
	defer r.w.flights.Unlock()
	if !r.readBack {
		r.flight = r.w.seq
	}
	r.readBack = false
	if r.storeRead == 0 {
		r.storeRead = r.w.seq
	}
}

// writes checks that this run may write.
func (r *run) writes(what string) {
	if r.dry {
		r.w.fail("a dry run calls %s", what)
	}
}

// healthy reports whether nothing went wrong that could excuse a failure: no fault,
// no outage, and no time passed that a timeout could have noticed.
func (r *run) healthy() bool {
	return !r.leaves && r.w.troubles == r.troubles && !r.w.clerkIsDown && !r.w.storeIsDown && r.w.clock.Now().Sub(r.start) < callTimeout
}

// trouble notes a fault.
func (w *world) trouble(r *run) {
	w.troubles++
	w.lastTrouble = w.clock.Now()
	_ = r
}
