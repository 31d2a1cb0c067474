package fakeclerk

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
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
	for _, e := range s.endpoints {
		if len(e.events) > 0 && !slices.Contains(e.events, eventType) {
			continue
		}
		now := s.Now()
		if body == nil {
			body = mustMarshal(newEnvelope(eventType, s.instanceID, now, data))
		}
		e.accept(Message{ID: id, Type: eventType, Body: body, CreatedAt: now, State: Pending})
	}
	return id
}
