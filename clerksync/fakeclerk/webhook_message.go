package fakeclerk

import (
	"encoding/json"
	"slices"
	"time"
)

// Message is one event on its way to an endpoint.
type Message struct {
	ID        string          // the svix-id: the same in every attempt and replay
	Type      string          // the event type, such as user.created
	Body      json.RawMessage // the exact bytes that are sent; read-only
	CreatedAt time.Time       // when the event happened
	State     MessageState
	Attempts  []Attempt // oldest first
	Next      time.Time // when the next attempt is due; zero if none is scheduled or the message is held
}

// MessageState says how far the delivery of a message has come.
type MessageState string

const (
	// Pending means that more attempts will follow, possibly only after [Endpoint.Release].
	Pending MessageState = "pending"
	// Delivered means that the app has answered 2xx to every copy of the message.
	Delivered MessageState = "delivered"
	// Failed means that a copy ran out of attempts and none is pending. [Endpoint.Replay] makes the
	// message Pending again.
	Failed MessageState = "failed"
	// Dropped means that the endpoint's policy lost the message. [Endpoint.Replay] makes it Pending.
	Dropped MessageState = "dropped"
)

// Attempt is one attempt to deliver a message.
type Attempt struct {
	At     time.Time // when the attempt was signed and sent
	Status int       // the HTTP status of the app's answer; 0 if there was no answer
	Err    error     // why there was no answer: an outage, a failed connection, or 15 s without one
}

// succeeded reports whether the app has accepted the message. To Svix, a redirect is a failure.
func (a Attempt) succeeded() bool { return a.Status >= 200 && a.Status <= 299 }

// Delivery is how a policy delivers a message: see [Endpoint.SetPolicy]. The zero value delivers it
// once, without delay.
type Delivery struct {
	// Drop loses the message: no attempt is made. Defaults to false.
	Drop bool

	// Delay postpones the first attempt. Different delays reorder messages. Defaults to none, as does a
	// negative delay.
	Delay time.Duration

	// Copies is how many times the message is delivered. Every copy has its own attempts, and all have
	// the same svix-id. Defaults to 1, as does a negative number.
	Copies int
}

// message is a message to one endpoint and the state of its deliveries. The server's lock guards it.
type message struct {
	sent     Message // never modified: snapshot has the current State and Attempts
	attempts []Attempt
	open     int  // deliveries that have attempts left
	failed   bool // a delivery ran out of attempts since the last one was scheduled
	dropped  bool
}

func (m *message) state() MessageState {
	switch {
	case m.open > 0:
		return Pending
	case m.failed:
		return Failed
	case m.dropped:
		return Dropped
	default:
		return Delivered
	}
}

// snapshot returns the message as it is now, without Next.
func (m *message) snapshot() Message {
	s := m.sent
	s.State = m.state()
	s.Attempts = slices.Clone(m.attempts)
	return s
}
