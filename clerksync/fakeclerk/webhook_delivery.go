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

// attemptTimeout is how long Svix waits for an answer.
const attemptTimeout = 15 * time.Second

// retryDelays are the waits before the second and further attempts, each from the
// failure of the one before: https://docs.svix.com/retries.
var retryDelays = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 10 * time.Hour,
}

var (
	errOutage  = errors.New("fakeclerk: the endpoint has an outage")
	errTimeout = errors.New("fakeclerk: no answer within 15 s")
)

// delivery is one copy of a message, with its retries.
type delivery struct {
	message *message
	due     time.Time
	seq     uint64 // breaks ties of due
	failed  int    // attempts so far
}

// Deliver makes the attempts that are due now, on the caller's goroutine and in order,
// and those that fall due by what the app does meanwhile; it returns when none is left.
// What lies in the future, such as a retry, stays there: Clock.Advance gets to it. The
// error is ctx's. Ending ctx fails the attempt that is in flight.
func (s *Server) Deliver(ctx context.Context) error {
	for {
		idle := true
		for _, e := range s.snapshot() {
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

// Settle waits until no attempt is due now or in flight: every event so far has then
// been delivered, or it failed and waits for its retry, or is delayed or held. It lends
// a hand, as Deliver does, so that it works with a [Clock] too. The error is ctx's.
func (s *Server) Settle(ctx context.Context) error {
	for {
		if err := s.Deliver(ctx); err != nil {
			return err
		}
		s.mu.Lock()
		settled := s.closed || !slices.ContainsFunc(s.endpoints, (*Endpoint).busy)
		flying := slices.ContainsFunc(s.endpoints, func(e *Endpoint) bool { return e.inFlight > 0 })
		changed := s.changed
		s.mu.Unlock()
		switch {
		case settled:
			return nil
		case !flying: // something fell due just now
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Server) snapshot() []*Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.endpoints)
}

// notify wakes Settle. The lock is held.
func (s *Server) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// nextSeq numbers the deliveries. The lock is held.
func (s *Server) nextSeq() uint64 {
	s.seq++
	return s.seq
}

// busy reports whether an attempt is due or in flight. The lock is held.
func (e *Endpoint) busy() bool {
	return e.inFlight > 0 || e.queue.Len() > 0 && !e.queue[0].due.After(e.s.Now())
}

// schedule begins a delivery of m after a delay. The lock is held.
func (e *Endpoint) schedule(m *message, delay time.Duration) {
	m.open++
	m.failed, m.dropped = false, false
	e.enqueue(&delivery{message: m, due: e.s.Now().Add(max(delay, 0))})
}

// enqueue puts a delivery where it waits. The lock is held.
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

// arm has wake called when the next delivery is due. Where all that may be in flight
// is, it does nothing: the goroutine that comes back takes the next one. The lock is
// held.
func (e *Endpoint) arm() {
	idle := e.s.closed || e.queue.Len() == 0 || e.inFlight >= e.concurrency
	if e.disarm != nil {
		if !idle && e.armed.Equal(e.queue[0].due) {
			return
		}
		e.disarm()
		e.disarm = nil
	}
	if idle {
		return
	}
	e.armed = e.queue[0].due
	e.disarm = e.s.time.AfterFunc(e.armed.Sub(e.s.Now()), e.wake)
}

// wake runs when a delivery is due: with a Clock on the goroutine that advances it,
// else on one of its own.
func (e *Endpoint) wake() {
	e.s.mu.Lock()
	e.disarm = nil
	e.s.mu.Unlock()
	e.drain(e.s.ctx)
}

// drain makes the attempts that are due, as many at a time as the endpoint allows, and
// reports whether it made any.
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

// spare returns how many goroutines are of use besides the caller's own.
func (e *Endpoint) spare() int {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	return max(min(e.concurrency-e.inFlight, e.queue.Len())-1, 0)
}

// work makes one attempt after the other until none is due.
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

// claimed is a delivery whose next attempt is the claimant's to make.
type claimed struct {
	*delivery
	endpoint *Endpoint
	at       time.Time
	secrets  []string
	outage   bool
}

// claim takes the next delivery that is due, nil where there is none to take.
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

// attempt sends the message once, and holds no lock while it does.
func (c *claimed) attempt(ctx context.Context) Attempt {
	a := Attempt{At: c.at}
	if c.outage {
		a.Err = errOutage
		return a
	}
	s := c.endpoint.s
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(context.Canceled) })()
	expire := func() { cancel(errTimeout) }
	defer s.time.AfterFunc(attemptTimeout, expire)()
	if s.isClocked {
		// A handler that waits for the Clock, which waits for the handler, must not
		// hang the test: here the real time counts as well.
		defer time.AfterFunc(attemptTimeout, expire).Stop()
	}
	r, err := newDelivery(ctx, c.endpoint.url, c.secrets, c.message.ID, c.at, c.message.Body)
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
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<20)) // for the connection to be used again
	a.Status = response.StatusCode
	return a
}

// finish records an attempt and schedules the next, if there is to be one.
func (c *claimed) finish(a Attempt) {
	e, m := c.endpoint, c.message
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	e.inFlight--
	m.Attempts = append(m.Attempts, a)
	switch {
	case a.succeeded():
		m.open--
	case c.failed == len(retryDelays):
		m.open--
		m.failed = true
	default:
		c.due = e.s.Now().Add(retryDelays[c.failed])
		c.failed++
		e.enqueue(c.delivery)
	}
	e.arm()
	e.s.notify()
}

// newDeliveryClient returns the client that posts webhooks: no redirects are followed,
// and no proxy of the environment is asked.
func newDeliveryClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

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
