package clerksync

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// Every refusal leaves a trace: an Observation with its code, and a log line that says which
// check failed and what was expected. Neither has the token, the secret, the body or the
// user's data in it. Anybody can cause refusals, so the log lines are limited; the
// Observations are not.

// refusal is a request, an RPC's visit or a delivery that was refused.
type refusal struct {
	Observation // Err says why

	// check tells apart the causes of one code. It is one of a few constants, because the
	// log lines of each kind are limited apart.
	check string
	// fault means that somebody should act, whatever the status is. It is logged as an error.
	fault bool
	attrs []slog.Attr // more for the log line; bounded
}

// refused leaves the trace of r, which began at start.
func (s *Syncer) refused(ctx context.Context, start time.Time, r refusal) {
	s.observe(ctx, start, r.Observation)
	if errors.Is(r.Err, ErrUnlinked) {
		r.check = "unlinked"
	}
	p := problemOf(r.Err)
	left := errors.Is(ctx.Err(), context.Canceled) && errors.Is(r.Err, context.Canceled)
	if left { // a client that does not wait for the answer is not a fault
		return
	}
	level, message := slog.LevelWarn, "clerksync: a request was refused"
	if p.Status >= http.StatusInternalServerError || r.fault {
		level = slog.LevelError
	}
	if r.Op == OpWebhook {
		message = "clerksync: a webhook was refused"
	}
	attrs := []slog.Attr{slog.Int("status", p.Status), slog.String("code", clipped(p.Code))}
	for _, a := range []slog.Attr{
		slog.String("check", r.check), slog.String("clerk_id", r.ClerkID),
		slog.String("event_id", clipped(r.EventID)), slog.String("event_type", clipped(r.EventType)),
	} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	attrs = append(attrs, r.attrs...)
	if errors.Is(r.Err, ErrUnlinked) {
		attrs = append(attrs, slog.String("advice", unlinkedAdvice))
	}
	if p.Err != nil {
		attrs = append(attrs, slog.Any("error", p.Err))
	}
	s.logLimited(ctx, level, string(r.Op)+" "+p.Code+" "+r.check, message, attrs...)
}

// logLimited writes a log line, unless there were too many of its kind. kind is one of a few
// constants.
func (s *Syncer) logLimited(ctx context.Context, level slog.Level, kind, message string, attrs ...slog.Attr) {
	suppressed, ok := s.logLimit.allow(kind)
	if !ok {
		return
	}
	if suppressed > 0 {
		attrs = append(attrs, slog.Int("suppressed", suppressed))
	}
	s.cfg.Logger.LogAttrs(ctx, level, message, attrs...) //nolint:sloglint // a constant of each caller's
}

const (
	// logBurst is how many log lines of one kind may come at once. Afterwards one may come
	// each logInterval.
	logBurst    = 10
	logInterval = time.Minute
	// maxLogKinds bounds the kinds that are limited apart. The others share one limit.
	maxLogKinds = 100
)

// logLimit limits log lines by kind. It is safe for concurrent use.
type logLimit struct {
	clock clock.Clock

	mu    sync.Mutex
	kinds map[string]*logKind
}

// logKind is what is known of the lines of one kind.
type logKind struct {
	limit      *rate.Limiter
	suppressed int // since the last line that was written
}

func newLogLimit(c clock.Clock) *logLimit {
	return &logLimit{clock: c, kinds: make(map[string]*logKind)}
}

// allow reports whether a line of this kind may be written and, if so, how many were
// suppressed since the one before.
func (l *logLimit) allow(kind string) (suppressed int, ok bool) {
	now := l.clock.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[kind]
	if k == nil && len(l.kinds) >= maxLogKinds {
		kind = ""
		k = l.kinds[kind]
	}
	if k == nil {
		k = &logKind{limit: rate.NewLimiter(rate.Every(logInterval), logBurst)}
		l.kinds[kind] = k
	}
	if !k.limit.AllowN(now, 1) {
		k.suppressed++
		return 0, false
	}
	suppressed, k.suppressed = k.suppressed, 0
	return suppressed, true
}

// maxClipped bounds what a log line or an Observation takes from a request.
const maxClipped = 100

// clipped is at most the first maxClipped bytes of a text.
func clipped(text string) string { return text[:min(len(text), maxClipped)] }
