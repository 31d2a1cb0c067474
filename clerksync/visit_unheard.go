package clerksync

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
)

// A lookup goes on after the visits that wait for it have left. A visit that gets its failure logs
// and observes it. If no visit gets it, the lookup logs it itself: otherwise nothing would show
// that a user never gets in.

// audiences are the visits that wait for lookups, by user. It is safe for concurrent use.
type audiences struct {
	mu sync.Mutex
	of map[string]*audience
}

type audience struct {
	waiting int
	failure error // of a lookup that ended, until a visit has heard of it
}

// join notes that a visit waits for the user's lookup. It must leave.
func (a *audiences) join(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of == nil {
		a.of = make(map[string]*audience)
	}
	if a.of[id] == nil {
		a.of[id] = &audience{}
	}
	a.of[id].waiting++
}

// leave notes that a visit has heard of the lookup's end, or no longer waits for it. It
// returns the failure that none of the user's visits has heard of, if this was the last one.
func (a *audiences) leave(id string, heard bool) (unheard error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	those := a.of[id]
	if heard {
		those.failure = nil
	}
	if those.waiting--; those.waiting > 0 {
		return nil
	}
	delete(a.of, id)
	return those.failure
}

// ended notes the failure of a lookup. It returns it if nobody waits for the user's lookup.
func (a *audiences) ended(id string, failure error) (unheard error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	those := a.of[id]
	if those == nil {
		return failure
	}
	those.failure = failure
	return nil
}

// logUnheard logs a lookup's failure (nil: none) that no visit has got.
func (s *Syncer) logUnheard(ctx context.Context, id string, failure error) {
	if failure == nil {
		return
	}
	p, level := problemOf(failure), slog.LevelWarn
	if p.Status >= http.StatusInternalServerError {
		level = slog.LevelError
	}
	s.logLimited(ctx, level, "unheard "+p.Code, "clerksync: a user's lookup failed after the last request had left",
		slog.String("code", clipped(p.Code)), slog.String("clerk_id", id), slog.Any("error", failure))
}
