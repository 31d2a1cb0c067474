package world

import (
	"context"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// run is an operation that a process is running. It is in the context, so that each call to the
// Store or to Clerk finds it.
type run struct {
	w     *world
	p     *process
	kind  kind // deliver for all webhooks
	op    op
	user  *user // or nil
	depth int

	calls     int // how many it has made
	lastFault int // the fault that repeats
	repeats   int // how often it still does

	start    time.Time
	seq      uint64
	troubles int    // world.troubles at the start
	wroteAt  uint64 // when it last wrote, by world.seq

	storeRead   uint64   // when it first read from the Store, by world.seq
	clerkRead   uint64   // when Clerk last answered, by world.seq
	offers      []string // users that it offered to the Store
	deactivated []string
	sawDeleted  bool // an Upsert found the record deleted

	// Of a visit.
	cancel   context.CancelFunc // of a Reconcile too
	returned chan struct{}      // closed when the visitor has its answer
	leaves   bool               // the visitor gave up
	joined   []joined           // visitors who wait for its lookup
	joiners  int
	joins    bool          // it joined another visitor's lookup
	lookup   uint64        // when its latest lookup began, by world.seq; 0 for none
	lookups  int           // how many it has begun
	readBack bool          // the next read belongs to the same lookup: the Store did not return what it wrote
	ended    chan struct{} // receives when the refresh behind it was observed
	status   int
	code     string
	served   *clerksync.User

	awaited bool // of a job in the background: a visit waits for it

	// Of a Reconcile.
	dry   bool
	pages *pages
	omits omission
}

// runKey is the key of the run that makes the calls, and visitorKey of the one that gets the
// answer. They differ if a visitor joins another's lookup.
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
	return &run{
		w: w, p: p, kind: kind, op: o, user: u, depth: depth, ended: make(chan struct{}, 8),
		start: w.clock.Now(), seq: w.seq, troubles: w.troubles,
	}
}

// isAbout reports whether the run is for this user, or for all. In a visit, a Sync or an event it
// may also write the holder of the user's address.
func (r *run) isAbout(id string) bool { return r.user == nil || r.user.id == id }

// touch numbers a call.
func (r *run) touch() int {
	n := r.calls
	r.calls++
	return n
}

// fault returns the fault of call n, 0 for none.
func (r *run) fault(n int) int {
	for _, in := range r.op.breaks {
		if in.fault != 0 && in.call == n {
			r.lastFault, r.repeats = in.fault, in.repeat
			return in.fault
		}
	}
	if r.repeats > 0 {
		r.repeats--
		return r.lastFault
	}
	return 0
}

// interrupt runs the operations that happen before or after call n.
func (r *run) interrupt(n int, after bool) {
	for _, in := range r.op.breaks {
		if in.do == nil || in.call != n || in.after != after {
			continue
		}
		r.w.depth++
		r.w.do(*in.do, r)
		r.w.depth--
	}
}

// readsStore notes a read of the Store. Each lookup begins with one of the visitor's record.
func (r *run) readsStore(id string) {
	if !r.isAbout(id) {
		return
	}
	r.w.lookups.Lock()
	defer r.w.lookups.Unlock()
	if !r.readBack {
		r.lookup = r.w.seq
		r.lookups++
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

// healthy reports whether nothing happened that could excuse a failure: no fault, no outage, and
// not enough time for a timeout.
func (r *run) healthy() bool {
	w := r.w
	return !r.leaves && w.troubles == r.troubles && !w.clerkOutage.down && !w.storeOutage.down &&
		w.clock.Now().Sub(r.start) < callTimeout
}

// paused reports whether Clerk had asked for a pause that was not over when the run began.
func (r *run) paused() bool { return r.start.Before(r.w.limitedUntil) }

// trouble notes a fault.
func (w *world) trouble() {
	w.troubles++
	w.lastTrouble = w.clock.Now()
}
