package fakeclerk

import (
	"container/heap"
	"fmt"
	"net/url"
	"slices"
	"time"

	svix "github.com/svix/svix-webhooks/go"
)

// secretOverlap is how long a replaced secret still signs, as at Svix.
const secretOverlap = 24 * time.Hour

// EndpointOptions configures [Server.AddEndpoint]. The zero value is valid.
type EndpointOptions struct {
	_ [0]func() // requires field names in literals

	// Secret is the signing secret: "whsec_" and base64. Defaults to a fresh one: see [Endpoint.Secret].
	Secret string

	// Events are the event types to deliver, such as user.created. Defaults to all.
	Events []string

	// Concurrency is the maximum number of attempts in progress at once. If it is more than 1, the order
	// of deliveries is not defined, as at Svix. Defaults to 1, as does a negative number: one attempt
	// after the other, in the order of their due times.
	Concurrency int
}

// Endpoint is a URL of the app that receives webhooks, like those in Clerk's Dashboard. Use
// [Server.AddEndpoint] to make one. Its methods are safe for concurrent use.
type Endpoint struct {
	s           *Server
	url         string
	events      []string // empty: all
	concurrency int

	// s.mu guards the fields below.

	secrets  []secret // newest first
	policy   func(Message) Delivery
	outage   bool
	holding  bool
	messages []*message
	byID     map[string]*message
	queue    deliveryHeap // deliveries that wait for their due time
	held     []*delivery  // deliveries that wait for Release
	inFlight int          // attempts in progress

	wakeAt     time.Time         // when wake is scheduled
	cancelWake func() (was bool) // nil if wake is not scheduled
}

type secret struct {
	value   string
	expires time.Time // zero: never
}

// AddEndpoint sends all events from now on to the app at url, as POST requests signed as Svix signs
// them. If the app does not answer 2xx within 15 s, Svix's schedule (https://docs.svix.com/retries)
// applies: the next attempt follows after 5 s, then after 5 min, 30 min, 2 h, 5 h, 10 h and 10 h, each
// counted from the failure before it. Then the message has failed. Svix disables an endpoint after
// five days of failures, but fakeclerk does not.
//
// In real time, deliveries run in the background. With a [Clock], they run only inside Clock.Advance,
// [Server.Deliver] and [Server.Settle], and an attempt also fails after 15 s of real time.
//
// AddEndpoint panics if the URL or the secret is malformed.
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
	if err := checkEndpoint(url, opts.Secret); err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endpoints = append(s.endpoints, e)
	return e
}

// checkEndpoint returns an error if a URL or a secret is malformed.
func checkEndpoint(endpoint, secret string) error {
	u, err := url.Parse(endpoint)
	if err == nil && (u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		err = fmt.Errorf("not an http or https URL: %q", endpoint)
	}
	if err == nil {
		_, err = svix.NewWebhook(secret)
	}
	if err != nil {
		return fmt.Errorf("fakeclerk: webhook endpoint: %w", err)
	}
	return nil
}

// Secret returns the signing secret ("whsec_…") that the app verifies webhooks with. After
// [Endpoint.RotateSecret], it is the new one.
func (e *Endpoint) Secret() string {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	return e.secrets[0].value
}

// RotateSecret replaces the signing secret with a new one and returns it. As at Svix, the old secret
// also signs for another 24 hours: svix-signature then has two entries.
func (e *Endpoint) RotateSecret() string {
	value := newSecret(e.s.ids)
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	e.secrets[0].expires = e.s.Now().Add(secretOverlap)
	e.secrets = slices.Insert(e.secrets, 0, secret{value: value})
	return value
}

// SetPolicy makes f decide how each new message is delivered. A nil f removes the policy. f is not
// asked about replays, which are delivered at once, nor about messages whose delivery the control API
// has planned. The server calls f as the event happens, so f must not call methods of the Server or
// the Endpoint.
func (e *Endpoint) SetPolicy(f func(m Message) Delivery) {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	e.policy = f
}

// SetOutage makes the endpoint unreachable or reachable again. During an outage, attempts fail without
// reaching the app. They count as attempts in the retry schedule.
func (e *Endpoint) SetOutage(outage bool) {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	e.outage = outage
}

// Hold keeps back all deliveries until [Endpoint.Release], except attempts in progress.
func (e *Endpoint) Hold() {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	e.holding = true
	for e.queue.Len() > 0 {
		e.held = append(e.held, heap.Pop(&e.queue).(*delivery))
	}
	e.arm()
}

// Release makes the messages with the given ids due now, in that order, and keeps holding the others.
// If one of them is not held, Release returns an error and releases none.
//
// Without ids, Release ends the hold. Deliveries keep their due times, so those that fell due
// meanwhile are due now, in their original order.
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
		if !slices.ContainsFunc(e.held, func(d *delivery) bool { return d.message.sent.ID == id }) {
			return fmt.Errorf("fakeclerk: message %q is not held", id)
		}
	}
	now := e.s.Now()
	for _, id := range messageIDs {
		e.held = slices.DeleteFunc(e.held, func(d *delivery) bool {
			if d.message.sent.ID != id {
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

// Replay delivers a message again, as "Resend" in the Dashboard does: now, or at the end of a Hold,
// and with all retries. Any message can be replayed, also one that was delivered or dropped. The error
// says that there is no such message.
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

// Messages returns the messages to the endpoint, oldest first, without those that its Events option
// leaves out. The caller must not modify their bodies.
func (e *Endpoint) Messages() []Message {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	list := make([]Message, len(e.messages))
	at := make(map[*message]int, len(e.messages))
	for i, m := range e.messages {
		list[i] = m.snapshot()
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

// accept schedules the deliveries of a new message: as planned by the control API, or else as the
// policy says. The caller holds s.mu.
func (e *Endpoint) accept(msg Message, planned *Delivery) {
	m := &message{sent: msg}
	e.messages = append(e.messages, m)
	e.byID[msg.ID] = m
	var how Delivery
	switch {
	case planned != nil:
		how = *planned
	case e.policy != nil:
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
