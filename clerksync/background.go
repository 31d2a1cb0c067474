package clerksync

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

const (
	// callTimeout bounds all that one user's lookup, sync or event does: Clerk and Store
	// together. Svix gives up on a webhook after 15 s.
	callTimeout = 8 * time.Second
	// maxRefreshers bounds the background refreshes at one time.
	maxRefreshers = 8
)

// background runs work that does not end with the request that caused it: lookups that
// several requests wait for, refreshes behind a visit, and fetches of the key set. Every
// piece of it is bounded in time and survives a panic of the app's code. Close waits for what
// began before it.
//
// The work does not hold the request's context. Some frameworks use a request again for
// the next client, so its values must not be read after the handler has returned; and a
// value such as a database session is not meant for the others who wait for a lookup.
type background struct {
	clock  clock.Clock
	logger *slog.Logger
	slots  chan struct{} // one for each started goroutine
	carry  func(context.Context) context.Context

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

func newBackground(c clock.Clock, logger *slog.Logger) *background {
	return &background{
		clock: c, logger: logger, slots: make(chan struct{}, maxRefreshers),
		carry: func(context.Context) context.Context { return context.Background() },
	}
}

// detach returns the context for work that a request causes. It has nothing of the
// request's context, neither values nor cancellation. Only a test lets it carry something.
// It must be called before the request ends.
func (b *background) detach(request context.Context) context.Context { return b.carry(request) }

// run does the work on the calling goroutine, with its own deadline. ctx is from detach, or
// context.Background. After close, run still works: the Syncer goes on answering.
func (b *background) run(ctx context.Context, work func(context.Context) error) (err error) {
	if b.begin() {
		defer b.running.Done()
	}
	defer func() {
		if p := recover(); p != nil {
			err = unavailable(fmt.Errorf("panic: %v", p))
		}
	}()
	ctx, cancel := clock.WithTimeout(ctx, b.clock, callTimeout)
	defer cancel()
	return work(ctx)
}

// start does work on its own goroutine, detached from the request. It does nothing if all
// slots are taken, wanted returns false, or close was called. Otherwise it calls begin before
// it returns, for the context, which is from detach, and the work.
func (b *background) start(wanted func() bool, begin func() (context.Context, func(context.Context))) {
	select {
	case b.slots <- struct{}{}:
	default:
		return
	}
	if !wanted() || !b.begin() {
		<-b.slots
		return
	}
	ctx, work := begin()
	go func() {
		defer b.running.Done()
		defer func() { <-b.slots }()
		defer func() {
			if p := recover(); p != nil { // it would end the process
				b.logger.ErrorContext(ctx, "clerksync: panic in background work", "panic", p)
			}
		}()
		work(ctx)
	}()
}

// begin counts a piece of work that close waits for. It returns false once closed.
func (b *background) begin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.running.Add(1)
	return true
}

// close waits for the work under way, which callTimeout bounds, and starts no more.
func (b *background) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.running.Wait()
}
