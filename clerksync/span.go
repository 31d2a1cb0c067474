package clerksync

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// spanEnd is what Config.Start returned for the end of an operation; nil for nothing.
type spanEnd func(Observation)

// begin tells Config.Start that an operation begins. The context is for the operation's work.
func (s *Syncer) begin(ctx context.Context, op Op, clerkID string) (context.Context, spanEnd) {
	if s.cfg.Start == nil {
		return ctx, nil
	}
	return s.callStart(ctx, op, clerkID)
}

func (s *Syncer) callStart(ctx context.Context, op Op, clerkID string) (work context.Context, span spanEnd) {
	work = ctx // after a panic too
	defer s.logPanic(ctx, "Config.Start")
	started, end := s.cfg.Start(ctx, op, clerkID)
	if started != nil {
		work = started
	}
	return work, end
}

// beginDetached is begin for work that goes on after the request. The context has nothing of
// the request's but what Start has put into it.
func (s *Syncer) beginDetached(request context.Context, op Op, clerkID string) (context.Context, spanEnd) {
	detached := s.background.detach(request)
	if s.cfg.Start == nil {
		return detached, nil
	}
	lent := &lentContext{Context: detached}
	values := context.WithoutCancel(request)
	lent.values.Store(&values)
	defer lent.values.Store(nil)
	return s.callStart(lent, op, clerkID)
}

// lentContext is a detached context that also has the values of a request's context, for as
// long as it is lent them. Afterwards they may be another client's: see background.
type lentContext struct {
	context.Context
	values atomic.Pointer[context.Context] // nil once they are taken back
}

func (c *lentContext) Value(key any) any {
	if value := c.Context.Value(key); value != nil {
		return value
	}
	if values := c.values.Load(); values != nil {
		return (*values).Value(key)
	}
	return nil
}

// end ends the span, if there is one, of the operation o, which began at start.
func (s *Syncer) end(ctx context.Context, span spanEnd, start time.Time, o Observation) {
	if span == nil {
		return
	}
	defer s.logPanic(ctx, "Config.Start")
	span(s.completed(start, o))
}

// onClerkCall returns what tells Config.Start of the calls of Clerk's API; nil without Start.
func (s *Syncer) onClerkCall() func(ctx context.Context, call, userID string) (context.Context, func(error)) {
	if s.cfg.Start == nil {
		return nil
	}
	return func(ctx context.Context, call, userID string) (context.Context, func(error)) {
		start := s.clock.Now()
		ctx, span := s.begin(ctx, OpClerk, userID)
		return ctx, func(err error) {
			if err != nil && !errors.Is(err, ErrUserUnknown) {
				err = unavailable(err)
			}
			s.end(ctx, span, start, Observation{Op: OpClerk, ClerkID: userID, Call: call, Err: err})
		}
	}
}
