package fakeclerk

import (
	"encoding/json"
	"time"
)

// Message is one event on its way to an endpoint.
type Message struct {
	ID        string          // svix-id, the same in every attempt and replay
	Type      string          // such as user.created
	Body      json.RawMessage // the exact bytes sent: Clerk's envelope; not to be modified
	CreatedAt time.Time
	State     MessageState
	Attempts  []Attempt // oldest first
	Next      time.Time // when the next attempt is due; zero where none is scheduled or the message is held
}

// MessageState says how far a message has come.
type MessageState string

const (
	// Pending messages have attempts before them, and held ones are pending too.
	Pending MessageState = "pending"
	// Delivered messages were answered 2xx, each copy of them.
	Delivered MessageState = "delivered"
	// Failed messages have used up their attempts; Replay makes them pending again.
	Failed MessageState = "failed"
	// Dropped messages were lost by the endpoint's policy; Replay brings them back.
	Dropped MessageState = "dropped"
)

// Attempt is one attempt to deliver a message.
type Attempt struct {
	At     time.Time // when it was made and signed
	Status int       // the app's answer; 0 where there was none
	Err    error     // why there was none: an outage, a refused connection, no answer in 15 s
}

// succeeded is Svix's rule: redirects too are failures.
func (a Attempt) succeeded() bool { return a.Status >= 200 && a.Status <= 299 }

// Delivery is how a policy has a message delivered. The zero value is: at once, and one time.
type Delivery struct {
	// Drop loses the message: no attempt is made.
	Drop bool

	// Delay puts the first attempt off. Different delays reorder messages.
	Delay time.Duration

	// Copies is how many times the message is delivered, each copy with attempts of its
	// own and all with the same svix-id. Defaults to 1.
	Copies int
}

// message is a Message and the state of its deliveries.
type message struct {
	Message
	open    int  // deliveries that go on
	failed  bool // one of them ran out of attempts, and none was begun since
	dropped bool
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
