package fakeclerk

import (
	"container/heap"
	"fmt"
	"net/url"
	"slices"
	"time"

	svix "github.com/svix/svix-webhooks/go"
)

// secretOverlap is how long a replaced secret goes on signing, as Svix has it.
const secretOverlap = 24 * time.Hour

// EndpointOptions configures [Server.AddEndpoint].
type EndpointOptions struct {
	_ [0]func() // fields are to be named

	// Secret is the signing secret, "whsec_" and base64. Defaults to a fresh one.
	Secret string

	// Events are the event types to deliver. Defaults to all.
	Events []string

	// Concurrency is how many deliveries to the endpoint may be in flight at once. With
	// more than one their order is open, as it is at Svix. Defaults to 1: strictly one
	// after the other, by due time.
	Concurrency int
}

// Endpoint is a URL of the app that the webhooks are delivered to, as the Dashboard
// lists them. It is made by [Server.AddEndpoint], and its methods are safe for
// concurrent use.
type Endpoint struct {
	s           *Server
	url         string
	events      []string
	concurrency int

	// What follows is guarded by s.mu.

	secrets  []secret // the newest first
	policy   func(Message) Delivery
	outage   bool
	holding  bool
	messages []*message
	byID     map[string]*message
	queue    deliveryHeap // deliveries that wait for their time
	held     []*delivery  // deliveries that wait for Release
	inFlight int
	armed    time.Time         // when wake is going to be called
	disarm   func() (was bool) // nil where it isn't
}

type secret struct {
	value   string
	expires time.Time // zero: never
}

// AddEndpoint has all events from now on delivered to the app at url by POST, signed as
// Svix signs them. A message that isn't answered 2xx within 15 s is tried again 5 s
// after that, then after 5 min, 30 min, 2 h, 5 h, 10 h and 10 h, and then has failed:
// https://docs.svix.com/retries. Svix's disabling of endpoints that fail for five days
// is not modelled.
//
// In real time the deliveries run in the background. With a [Clock] nothing is
// delivered until Clock.Advance, [Server.Deliver] or [Server.Settle] does it.
// AddEndpoint panics where the URL or the secret is malformed.
func (s *Server) AddEndpoint(url string, opts EndpointOptions) *Endpoint {
	if opts.Secret == "" {
		opts.Secret = newSecret(s.ids)
	}
	e := &Endpoint{
		s: s, url: url,
		events:      slices.Clone(opts.Events),
		concurrency: max(opts.Concurrency, 1),
		secrets:     []secret{{value: opts.Secret}},
		byID:        make(map[string]*message),
	}
	mustEndpoint(url, opts.Secret)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endpoints = append(s.endpoints, e)
	return e
}

func mustEndpoint(endpoint, secret string) {
	u, err := url.Parse(endpoint)
	if err == nil && (u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		err = fmt.Errorf("no http URL: %q", endpoint)
	}
	if err == nil {
		_, err = svix.NewWebhook(secret)
	}
	if err != nil {
		panic(fmt.Errorf("fakeclerk: webhook endpoint: %w", err))
	}
}

// Secret returns the signing secret ("whsec_…"): what the app is to verify with.
func (e *Endpoint) Secret() string {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	return e.secrets[0].value
}

// RotateSecret replaces the signing secret by a fresh one and returns it. As at Svix
// the old one goes on signing beside it for 24 hours: svix-signature has two entries.
func (e *Endpoint) RotateSecret() string {
	value := newSecret(e.s.ids)
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	e.secrets[0].expires = e.s.Now().Add(secretOverlap)
	e.secrets = slices.Insert(e.secrets, 0, secret{value: value})
	return value
}

// SetPolicy has f decide, from now on, how each new message is delivered: dropped,
// late, several times. Replays are delivered at once, whatever f says. A nil f removes
// the policy. f is called as the event happens and must not call methods of the Server
// or the Endpoint.
func (e *Endpoint) SetPolicy(f func(m Message) Delivery) {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	e.policy = f
}

// SetOutage makes the endpoint unreachable, or reachable again. During an outage the
// attempts fail without reaching the app, and count.
func (e *Endpoint) SetOutage(outage bool) {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	e.outage = outage
}

// Hold keeps back all deliveries that have not begun, and those to come, until Release.
func (e *Endpoint) Hold() {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	e.holding = true
	for e.queue.Len() > 0 {
		e.held = append(e.held, heap.Pop(&e.queue).(*delivery))
	}
	e.arm()
}

// Release makes the named messages due now, in the given order, and holds the others
// back as before; the error is that one is not held, and then none is released. Without
// names it ends the hold: the deliveries keep their due times, so that what fell due
// meanwhile is due now, in its old order.
func (e *Endpoint) Release(messageIDs ...string) error {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	if len(messageIDs) == 0 {
		e.holding = false
		for _, d := range e.held {
			heap.Push(&e.queue, d)
		}
		e.held = nil
		e.arm()
		e.s.notify()
		return nil
	}
	for _, id := range messageIDs {
		if !slices.ContainsFunc(e.held, func(d *delivery) bool { return d.message.ID == id }) {
			return fmt.Errorf("fakeclerk: message %q is not held", id)
		}
	}
	now := e.s.Now()
	for _, id := range messageIDs {
		e.held = slices.DeleteFunc(e.held, func(d *delivery) bool {
			if d.message.ID != id {
				return false
			}
			d.due, d.seq = now, e.s.nextSeq()
			heap.Push(&e.queue, d)
			return true
		})
	}
	e.arm()
	e.s.notify()
	return nil
}

// Replay delivers a message again from the start, as "Resend" in the Dashboard does:
// now, and with all retries, whatever has become of it. The error is that there is no
// such message.
func (e *Endpoint) Replay(messageID string) error {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	m := e.byID[messageID]
	if m == nil {
		return fmt.Errorf("fakeclerk: no message %q", messageID)
	}
	e.schedule(m, 0)
	return nil
}

// Messages returns what the endpoint was sent, oldest first; what its event filter
// leaves out is not among it.
func (e *Endpoint) Messages() []Message {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	list := make([]Message, len(e.messages))
	at := make(map[*message]int, len(e.messages))
	for i, m := range e.messages {
		list[i] = m.Message
		list[i].Attempts = slices.Clone(m.Attempts)
		list[i].State = m.state()
		at[m] = i
	}
	for _, d := range e.queue {
		next := &list[at[d.message]].Next
		if next.IsZero() || d.due.Before(*next) {
			*next = d.due
		}
	}
	return list
}

// accept takes a new message in by the endpoint's policy. The lock is held.
func (e *Endpoint) accept(msg Message) {
	m := &message{Message: msg}
	e.messages = append(e.messages, m)
	e.byID[m.ID] = m
	var how Delivery
	if e.policy != nil {
		how = e.policy(msg)
	}
	if how.Drop {
		m.dropped = true
		return
	}
	for range max(how.Copies, 1) {
		e.schedule(m, how.Delay)
	}
}
