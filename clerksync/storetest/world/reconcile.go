package world

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// The bits of a Reconcile's op.n.
const (
	dryRunBits   = 1 | 2 // both are set
	forceBit     = 1 << 2
	pageSizes    = 3 << 3 // an index of pageSizeOf
	pagesOfOne   = 1 << 3
	unlimitedBit = 1 << 5
	instanceBit  = 1 << 6
	omissions    = 3 << 7 // see omission
)

var pageSizeOf = []int{500, 1, 3, 500}

// resumePoint is where a Reconcile stopped.
type resumePoint struct {
	point      string
	dry, force bool
}

// reconcile is one Reconcile, which resumes the one before if that stopped. Clerk may leave users
// out of its lists.
func (w *world) reconcile(o op, m moment) {
	opts := clerksync.ReconcileOptions{
		DryRun: o.n&dryRunBits == dryRunBits, Force: o.n&forceBit != 0,
		PageSize: pageSizeOf[o.n&pageSizes>>3], Writers: 1, RequestsPerSecond: math.Inf(1),
	}
	if o.n&unlimitedBit != 0 {
		opts.MaxDeactivations = -1
	}
	if o.n&instanceBit != 0 {
		opts.InstanceID = w.clerk.InstanceID()
	}
	omits := omission{}
	if resumed := w.resume; resumed != nil {
		opts.DryRun, opts.Force, opts.Resume = resumed.dry, resumed.force, resumed.point
		w.resume = nil
		w.counts.add("Reconcile resumed")
	} else if m.around == nil {
		omits = w.omission(o.n&omissions>>7, m.p)
	}
	report, untroubled, err := w.runReconcile(o, m, opts, omits)
	switch {
	case err == nil:
		w.counts.add("Reconcile finished")
	case report.Resume != "":
		w.resume = &resumePoint{report.Resume, opts.DryRun, opts.Force}
	}
	if errors.Is(err, context.Canceled) {
		w.counts.add("Reconcile cancelled")
	}
	if opts.DryRun {
		w.counts.add("Reconcile dry run")
	}
	stops := errors.Is(err, clerksync.ErrIncomplete) || errors.Is(err, clerksync.ErrWrongInstance)
	if omits.lists && !omits.count && len(o.breaks) == 0 && untroubled && !stops {
		w.fail("Clerk counted %d users that it did not list, and Reconcile's error is %v", len(omits.ids), err)
	}
}

// runReconcile reports whether nothing went wrong that could excuse an error.
func (w *world) runReconcile(
	o op, m moment, opts clerksync.ReconcileOptions, omits omission,
) (_ clerksync.Report, untroubled bool, _ error) {
	r := w.newRun(m.p, reconcile, o, nil, m.depth())
	r.dry, r.omits = opts.DryRun, omits
	r.pages = newPages()
	opts.Progress = func(progress clerksync.Progress) {
		if progress.Phase == clerksync.PhaseUsers && progress.Throttled.IsZero() {
			r.pages.finish()
		}
	}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), runKey{}, r))
	defer cancel()
	r.cancel = cancel
	w.reconciling++
	report, err := m.p.syncer.Reconcile(ctx, opts)
	w.reconciling--
	w.invalidated(r)
	for _, id := range r.deactivated {
		m.p.knownDeleted[id] = w.clock.Now()
	}
	return report, w.troubles == r.troubles && !w.clerkOutage.down && !w.storeOutage.down, err
}

// cancelReconcile cancels the interrupted Reconcile.
func (w *world) cancelReconcile(_ op, m moment) {
	if m.around.kind == reconcile && m.around.cancel != nil {
		m.around.cancel()
		w.trouble()
	}
}

// pages makes a Reconcile do one thing at a time: it asks Clerk for a page only when the page
// before is compared and written.
type pages struct {
	mu        sync.Mutex
	seen      map[string]bool
	open      int           // pages that are not finished
	comparing bool          // one of them is being compared
	finished  chan struct{} // closed and replaced when a page is finished
}

func newPages() *pages {
	return &pages{seen: make(map[string]bool), finished: make(chan struct{})}
}

// serve is called with the ids on a page. The page counts if the Reconcile has not seen all of
// them.
func (p *pages) serve(ids []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fresh := false
	for _, id := range ids {
		fresh = fresh || !p.seen[id]
		p.seen[id] = true
	}
	if fresh {
		p.open++
	}
}

// compare is called when a page's records are read from the Store.
func (p *pages) compare() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.comparing = p.open > 0
}

// finish is called when a page is compared and written.
func (p *pages) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open, p.comparing = max(0, p.open-1), false
	close(p.finished)
	p.finished = make(chan struct{})
}

// wait waits until all pages are finished. It returns false if the context ends first.
func (p *pages) wait(ctx context.Context) bool {
	for waited := 0; ; {
		p.mu.Lock()
		if waited == graceOfPages && !p.comparing {
			p.open = 0
		}
		open, finished := p.open, p.finished
		p.mu.Unlock()
		if open == 0 {
			return true
		}
		grace := time.NewTimer(time.Millisecond)
		select {
		case <-finished:
			waited = 0
		case <-ctx.Done():
		case <-grace.C:
			waited = min(waited+1, graceOfPages)
		}
		grace.Stop()
		if ctx.Err() != nil {
			return false
		}
	}
}

// graceOfPages is how many milliseconds of real time may pass between listing a page and
// comparing it. Some pages are never compared, because Reconcile lists them again after a
// deletion. The milliseconds are counted one by one, so that a busy machine gives more time.
const graceOfPages = 100
