package fakeclerk

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// attemptTimeout is how long Svix waits for an answer: https://docs.svix.com/retries.
const attemptTimeout = 15 * time.Second

// retryDelays are the waits before the second and later attempts, each counted from the failure before
// it: https://docs.svix.com/retries.
var retryDelays = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 10 * time.Hour,
}

var (
	errOutage  = errors.New("fakeclerk: the endpoint has an outage")
	errTimeout = errors.New("fakeclerk: no answer within 15 s")
)

// delivery is one copy of a message on its way to an endpoint, with its retries.
type delivery struct {
	message *message
	due     time.Time
	seq     uint64 // orders deliveries that are due at the same time
	failed  int    // attempts that have failed
}

// Deliver makes the attempts that are due now, in order for each endpoint. It goes on with those that
// fall due because of what the app does meanwhile, and returns when none is left. An endpoint with a
// Concurrency above 1 also uses other goroutines. Deliver does not wait for later attempts, such as
// retries: Clock.Advance reaches those. If ctx ends, Deliver fails the attempt in progress and returns
// ctx's error, its only one.
func (s *Server) Deliver(ctx context.Context) error {
	for {
		idle := true
		for _, e := range s.endpointsNow() {
			if e.drain(ctx) {
				idle = false
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if idle {
			return nil
		}
	}
}

// Settle waits until no attempt is due or in progress. By then, each event so far has been delivered,
// waits for a retry, or is delayed or held. Settle makes attempts itself as [Server.Deliver] does, so
// it also works with a [Clock]. It returns ctx's error if ctx ends, and has no other errors.
func (s *Server) Settle(ctx context.Context) error {
	for {
		if err := s.Deliver(ctx); err != nil {
			return err
		}
		s.mu.Lock()
		settled := s.closed || !slices.ContainsFunc(s.endpoints, (*Endpoint).busy)
		inProgress := slices.ContainsFunc(s.endpoints, func(e *Endpoint) bool { return e.inFlight > 0 })
		changed := s.changed
		s.mu.Unlock()
		switch {
		case settled:
			return nil
		case !inProgress: // an attempt has fallen due since Deliver returned
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// endpointsNow returns a copy of the list of endpoints.
func (s *Server) endpointsNow() []*Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.endpoints)
}

// notify wakes Settle. The caller holds s.mu.
func (s *Server) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// nextSeq numbers the deliveries. The caller holds s.mu.
func (s *Server) nextSeq() uint64 {
	s.seq++
	return s.seq
}

// busy reports whether an attempt is due or in progress. The caller holds s.mu.
func (e *Endpoint) busy() bool {
	return e.inFlight > 0 || e.queue.Len() > 0 && !e.queue[0].due.After(e.s.Now())
}

// schedule starts a delivery of m after a delay. The caller holds s.mu.
func (e *Endpoint) schedule(m *message, delay time.Duration) {
	m.open++
	m.failed, m.dropped = false, false
	e.enqueue(&delivery{message: m, due: e.s.Now().Add(max(delay, 0))})
}

// enqueue puts a delivery into the queue, or among those that wait for Release. The caller holds s.mu.
func (e *Endpoint) enqueue(d *delivery) {
	d.seq = e.s.nextSeq()
	if e.holding {
		e.held = append(e.held, d)
		return
	}
	heap.Push(&e.queue, d)
	e.arm()
	e.s.notify()
}

// arm schedules wake for when the next delivery is due, or cancels it if there is none or the server
// is closed. It also cancels wake while as many attempts are in progress as allowed, because a
// goroutine that finishes its attempt takes the next delivery. The caller holds s.mu.
func (e *Endpoint) arm() {
	idle := e.s.closed || e.queue.Len() == 0 || e.inFlight >= e.concurrency
	if e.cancelWake != nil {
		if !idle && e.wakeAt.Equal(e.queue[0].due) {
			return
		}
		e.cancelWake()
		e.cancelWake = nil
	}
	if idle {
		return
	}
	e.wakeAt = e.queue[0].due
	e.cancelWake = e.s.time.AfterFunc(e.wakeAt.Sub(e.s.Now()), e.wake)
}

// wake runs when a delivery is due: on the goroutine that advances the Clock, or in real time on its
// own goroutine.
func (e *Endpoint) wake() {
	e.s.mu.Lock()
	e.cancelWake = nil
	e.s.mu.Unlock()
	e.drain(e.s.ctx)
}

// drain makes the attempts that are due, with as much concurrency as the endpoint allows. It reports
// whether there were any.
func (e *Endpoint) drain(ctx context.Context) (made bool) {
	if !e.s.begin() {
		return false
	}
	defer e.s.wg.Done()
	var others sync.WaitGroup
	for range e.spare() {
		others.Go(func() { e.work(ctx) })
	}
	made = e.work(ctx)
	others.Wait()
	return made
}

// spare returns how many goroutines drain can use besides the caller's.
func (e *Endpoint) spare() int {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	return max(min(e.concurrency-e.inFlight, e.queue.Len())-1, 0)
}

// work makes one attempt after the other until none is due. It reports whether there were any.
func (e *Endpoint) work(ctx context.Context) (made bool) {
	for {
		c := e.claim(ctx)
		if c == nil {
			return made
		}
		made = true
		c.finish(c.attempt(ctx))
	}
}

// claimed is a delivery whose next attempt is about to be made. No other goroutine makes it.
type claimed struct {
	delivery *delivery
	endpoint *Endpoint
	at       time.Time
	secrets  []string
	outage   bool
}

// claim takes the next delivery that is due. It returns nil if there is none, if the endpoint does not
// allow another attempt now, or if ctx or the server has ended.
func (e *Endpoint) claim(ctx context.Context) *claimed {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	defer e.arm()
	now := e.s.Now()
	switch {
	case e.s.closed, ctx.Err() != nil, e.inFlight >= e.concurrency:
		return nil
	case e.queue.Len() == 0, e.queue[0].due.After(now):
		return nil
	}
	e.inFlight++
	c := &claimed{delivery: heap.Pop(&e.queue).(*delivery), endpoint: e, at: now, outage: e.outage}
	for _, s := range e.secrets {
		if s.expires.IsZero() || now.Before(s.expires) {
			c.secrets = append(c.secrets, s.value)
		}
	}
	return c
}

// attempt sends the message once. It holds no lock meanwhile.
func (c *claimed) attempt(ctx context.Context) Attempt {
	a := Attempt{At: c.at}
	if c.outage {
		a.Err = errOutage
		return a
	}
	s, sent := c.endpoint.s, c.delivery.message.sent
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(context.Canceled) })()
	expire := func() { cancel(errTimeout) }
	defer s.time.AfterFunc(attemptTimeout, expire)()
	if s.isClocked {
		// If the app's handler waits for the Clock to move, and Clock.Advance waits for the handler,
		// nothing else would ever end the attempt.
		defer time.AfterFunc(attemptTimeout, expire).Stop()
	}
	r, err := newDelivery(ctx, c.endpoint.url, c.secrets, sent.ID, c.at, sent.Body)
	if err != nil {
		a.Err = err
		return a
	}
	response, err := s.client.Do(r)
	if err != nil {
		a.Err = cmp.Or(context.Cause(ctx), err)
		return a
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<20)) // so that the connection can be reused
	a.Status = response.StatusCode
	return a
}

// finish records an attempt and schedules the next one, if there is to be one.
func (c *claimed) finish(a Attempt) {
	e, d, m := c.endpoint, c.delivery, c.delivery.message
	e.logAttempt(m, a)
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	e.inFlight--
	m.attempts = append(m.attempts, a)
	switch {
	case a.succeeded():
		m.open--
	case d.failed == len(retryDelays):
		m.open--
		m.failed = true
	default:
		d.due = e.s.Now().Add(retryDelays[d.failed])
		d.failed++
		e.enqueue(d)
	}
	e.arm()
	e.s.notify()
}

// logAttempt writes the line of an attempt to the log. The status is 0 if there was no answer.
func (e *Endpoint) logAttempt(m *message, a Attempt) {
	if e.s.logger == nil {
		return
	}
	args := []any{"type", m.sent.Type, "message", m.sent.ID, "status", a.Status}
	if a.Err != nil {
		args = append(args, "error", a.Err)
	}
	e.s.logger.InfoContext(e.s.ctx, "webhook", args...)
}

// newDeliveryClient returns the client that posts webhooks. It does not follow redirects and ignores
// the environment's proxy settings.
func newDeliveryClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// deliveryHeap is a heap.Interface whose first delivery is due next.
type deliveryHeap []*delivery

func (h deliveryHeap) Len() int { return len(h) }

func (h deliveryHeap) Less(i, j int) bool {
	if !h[i].due.Equal(h[j].due) {
		return h[i].due.Before(h[j].due)
	}
	return h[i].seq < h[j].seq
}

func (h deliveryHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

func (h *deliveryHeap) Push(x any) { *h = append(*h, x.(*delivery)) }

func (h *deliveryHeap) Pop() any {
	old := *h
	d := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return d
}
