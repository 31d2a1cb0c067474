package clerksync

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// Event is one of Clerk's webhook events, verified. ID is the message's, from the
// headers; Type to Data are from the body; the signature covers both. Result is
// clerksync's.
type Event struct {
	// ID is the message's id, the svix-id header: the same for every delivery
	// of one event. Use it to do something once.
	ID string
	// Type is Clerk's name of the event, such as "user.created".
	Type string
	// InstanceID is the Clerk instance the event is from, "ins_…".
	InstanceID string
	// Timestamp is when the event happened; zero where the envelope lacks it.
	Timestamp time.Time
	// Data is the object that the event is about, as Clerk sent it.
	Data json.RawMessage
	// Result is what [Syncer.Apply] made of the event; for OnEvent.
	Result Result
}

// parseEvent decodes the envelope. The error matches ErrInvalidEvent.
func parseEvent(id string, body []byte) (Event, error) {
	var e struct {
		Type       string          `json:"type"`
		InstanceID string          `json:"instance_id"`
		Timestamp  json.RawMessage `json:"timestamp"`
		Data       json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return Event{}, fmt.Errorf("%w: not Clerk's envelope", ErrInvalidEvent)
	}
	if e.Type == "" {
		return Event{}, fmt.Errorf("%w: no type", ErrInvalidEvent)
	}
	var ts int64
	_ = json.Unmarshal(e.Timestamp, &ts) // anything but a number is taken as none
	if 0 < ts && ts < clerkapi.SecondsBelow {
		ts *= 1000
	}
	return Event{ID: id, Type: e.Type, InstanceID: e.InstanceID, Timestamp: millis(ts), Data: e.Data}, nil
}

// Apply brings the record in step with a verified event, for apps that queue
// events and apply them later; the webhook handler is made of it. Events may come
// in any order and repeatedly. The next visit in this process sees the outcome.
//
// "user.created", "user.updated" and, where it carries the user,
// "session.created" are an Upsert, "user.deleted" is a Deactivate. Any other type
// is no error and has a zero Result.
//
// Errors: where ctx ends first, one that matches [ErrUnavailable] and ctx's cause;
// [ErrInvalidEvent] where the event cannot be used and would not be if it
// came again, [ErrUnavailable], [*ConflictError], or a [*Problem] with the code "mapping_failed".
func (s *Syncer) Apply(ctx context.Context, e Event) (Result, error) {
	start := s.clock.Now()
	callCtx, cancel := clock.WithTimeout(ctx, s.clock, callTimeout)
	defer cancel()
	id, res, err := s.apply(callCtx, e)
	s.observe(ctx, start, Observation{Op: OpWebhook, ClerkID: id, EventID: e.ID, EventType: e.Type, Outcome: res.Outcome, Err: err})
	return res, err
}

// apply also returns the id of the user that the event is about, once it is known.
func (s *Syncer) apply(ctx context.Context, e Event) (string, Result, error) {
	switch e.Type {
	case "user.created", "user.updated":
		return s.applyUser(ctx, e, e.Data)
	case "session.created":
		var session struct {
			User json.RawMessage `json:"user"`
		}
		if err := json.Unmarshal(e.Data, &session); err != nil {
			return "", Result{}, fmt.Errorf("%w: session: not an object", ErrInvalidEvent)
		}
		if len(session.User) == 0 || string(session.User) == "null" {
			return "", Result{}, nil
		}
		return s.applyUser(ctx, e, session.User)
	case "user.deleted":
		return s.applyDeletion(ctx, e)
	}
	return "", Result{}, nil
}

func (s *Syncer) applyUser(ctx context.Context, e Event, data json.RawMessage) (string, Result, error) {
	u, err := s.userFromClerk(data, e.Timestamp)
	if err != nil {
		return "", Result{}, err
	}
	s.rereads.recordKnown(u.ClerkID)
	res, err := s.upsert(ctx, u)
	return u.ClerkID, res, err
}

func (s *Syncer) applyDeletion(ctx context.Context, e Event) (string, Result, error) {
	var deleted struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(e.Data, &deleted); err != nil || !clerkapi.ValidUserID(deleted.ID) {
		return "", Result{}, fmt.Errorf("%w: user.deleted: no id of a user", ErrInvalidEvent)
	}
	at := s.clock.Now()
	if !e.Timestamp.IsZero() && e.Timestamp.Before(at) {
		at = e.Timestamp
	}
	res, err := s.deactivate(ctx, deleted.ID, at)
	return deleted.ID, res, err
}
