package fakeclerk

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	svix "github.com/svix/svix-webhooks/go"
)

// What Clerk's servers saw of the user whose action caused an event.
const (
	clientIP        = "203.0.113.7"
	clientUserAgent = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) " +
		"Chrome/128.0.0.0 Safari/537.36"
)

// envelope is Clerk's WebhookEventPayload schema. The timestamp is in milliseconds, as in real payloads
// and in Clerk's documentation. Only the examples in the OpenAPI file have seconds.
type envelope struct {
	Data            any             `json:"data"`
	EventAttributes eventAttributes `json:"event_attributes"`
	InstanceID      string          `json:"instance_id"`
	Object          string          `json:"object"`
	Timestamp       int64           `json:"timestamp"`
	Type            string          `json:"type"`
}

type eventAttributes struct {
	HTTPRequest struct {
		ClientIP  string `json:"client_ip"`
		UserAgent string `json:"user_agent"`
	} `json:"http_request"`
}

func newEnvelope(eventType, instanceID string, at time.Time, data any) envelope {
	e := envelope{Data: data, InstanceID: instanceID, Object: "event", Timestamp: at.UnixMilli(), Type: eventType}
	e.EventAttributes.HTTPRequest.ClientIP = clientIP
	e.EventAttributes.HTTPRequest.UserAgent = clientUserAgent
	return e
}

// Send sends an event of any type to the endpoints and returns its message id. data need not match the
// users of the instance: "Send Example" in the Dashboard, too, sends a user that the Backend API does
// not have. Send returns an error if encoding/json cannot encode data.
func (s *Server) Send(eventType string, data any) (messageID string, err error) {
	raw, err := json.Marshal(data)
	if err != nil {
		return "", fmt.Errorf("fakeclerk: Send %s: %w", eventType, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.emit(eventType, json.RawMessage(raw)), nil
}

// emit sends an event to the endpoints. The caller holds s.mu.
func (s *Server) emit(eventType string, data any) (messageID string) {
	id := s.ids.id("msg_")
	var body []byte
	var planned *Delivery
	for _, e := range s.endpoints {
		if len(e.events) > 0 && !slices.Contains(e.events, eventType) {
			continue
		}
		now := s.Now()
		if body == nil {
			body = mustMarshal(newEnvelope(eventType, s.instanceID, now, forEvent(data)))
			if len(s.plan) > 0 {
				planned, s.plan = &s.plan[0], s.plan[1:]
			}
		}
		e.accept(Message{ID: id, Type: eventType, Body: body, CreatedAt: now, State: Pending}, planned)
	}
	return id
}

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
	// Delivered means that the app has answered 2xx to every copy of the message, or to the last
	// [Endpoint.Replay].
	Delivered MessageState = "delivered"
	// Failed means that a copy ran out of attempts and none is pending. [Endpoint.Replay] makes the
	// message Pending again.
	Failed MessageState = "failed"
	// Dropped means that the endpoint's policy or the control API lost the message.
	// [Endpoint.Replay] makes it Pending.
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

// Event is a webhook event for [SignedRequest].
type Event struct {
	// ID is the svix-id. Defaults to a fresh "msg_" id.
	ID string

	// Type is the event type, such as user.created. Defaults to "".
	Type string

	// Data is the event's object, such as a result of [NewUser.Object] or [Server.User]. It must be
	// encodable by encoding/json. Defaults to null.
	Data any

	// InstanceID is the id of the instance that sends the event. Defaults to "ins_fakeclerk".
	InstanceID string

	// Time is when the event happened and when it is sent. Defaults to time.Now().
	Time time.Time

	// Body is the whole body, sent and signed byte for byte. Type, Data and InstanceID are then ignored.
	// Defaults to Clerk's envelope around Data.
	Body []byte
}

// SignedRequest returns the request with which Svix delivers an event to the endpoint at url, signed
// with the endpoint's secret ("whsec_…"). Pass it to a handler with an httptest.ResponseRecorder. It
// does not need a server. Like httptest.NewRequest, it panics if the URL, the secret or the event is
// malformed.
func SignedRequest(ctx context.Context, url, secret string, e Event) *http.Request {
	at := e.Time
	if at.IsZero() {
		at = time.Now()
	}
	body := e.Body
	if body == nil {
		body = mustMarshal(newEnvelope(e.Type, cmp.Or(e.InstanceID, "ins_fakeclerk"), at, forEvent(e.Data)))
	}
	r, err := newDelivery(ctx, url, []string{secret}, cmp.Or(e.ID, looseIDs.id("msg_")), at, body)
	if err != nil {
		panic(err)
	}
	return r
}

// webhookUserAgent has the form of the User-Agent that Svix's servers send.
const webhookUserAgent = "Svix-Webhooks/1.99.1 (sender-fake1; +https://www.svix.com/http-sender/)"

// newDelivery returns the request of one attempt to deliver a message. Each secret adds a signature.
func newDelivery(
	ctx context.Context, url string, secrets []string, id string, at time.Time, body []byte,
) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("fakeclerk: %w", err)
	}
	signatures := make([]string, len(secrets))
	for i, secret := range secrets {
		webhook, err := svix.NewWebhook(secret)
		if err != nil {
			return nil, fmt.Errorf("fakeclerk: signing secret: %w", err)
		}
		if signatures[i], err = webhook.Sign(id, at, body); err != nil {
			return nil, fmt.Errorf("fakeclerk: %w", err)
		}
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", webhookUserAgent)
	r.Header.Set("Svix-Id", id)
	r.Header.Set("Svix-Timestamp", strconv.FormatInt(at.Unix(), 10))
	r.Header.Set("Svix-Signature", strings.Join(signatures, " "))
	return r, nil
}

// newSecret returns a fresh signing secret in Svix's form.
func newSecret(ids *idSource) string {
	return "whsec_" + base64.StdEncoding.EncodeToString(ids.bytes(24))
}
