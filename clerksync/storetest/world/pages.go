package world

import (
	"context"
	"sync"
	"time"
)

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
