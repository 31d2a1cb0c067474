package clerksync

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// Event is one of Clerk's webhook events, verified. ID comes from the headers, Type to UserID
// from the body; the signature covers both. Result is set after the event was applied.
type Event struct {
	// ID is the message's id, the svix-id header. It is the same for every delivery of one
	// event: use it to do something once.
	ID string
	// Type is Clerk's name of the event, such as "user.created".
	Type string
	// InstanceID is the Clerk instance the event is from, "ins_…".
	InstanceID string
	// Timestamp is when the event happened; zero if the envelope does not say.
	Timestamp time.Time
	// Data is the object that the event is about, as Clerk sent it.
	Data json.RawMessage
	// UserID is the id of the user whom an event "user.…" or "session.…" is about, of
	// deletions too. Empty for other events, and if the event does not name one that has the
	// form of a user's id.
	UserID string
	// Result is what [Syncer.Apply] returned for the event; for OnEvent.
	Result Result
}

// parseEvent decodes the envelope. The error matches ErrInvalidEvent.
func parseEvent(id string, body []byte) (Event, error) {
	var e struct {
		Type       string          `json:"type"`
		InstanceID json.RawMessage `json:"instance_id"`
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
	_ = json.Unmarshal(e.Timestamp, &ts) // anything but a number counts as none
	if 0 < ts && ts < clerkapi.SecondsBelow {
		ts *= 1000
	}
	return Event{
		ID: id, Type: e.Type, InstanceID: firstText(e.InstanceID), Timestamp: millis(ts), Data: e.Data,
		UserID: userIDOf(e.Type, e.Data),
	}, nil
}

// userIDOf returns [Event].UserID. A session names its user twice: in "user", which apply
// uses and which may be null, and in "user_id".
func userIDOf(typ string, data json.RawMessage) string {
	var object, user struct {
		ID     json.RawMessage `json:"id"`
		UserID json.RawMessage `json:"user_id"`
		User   json.RawMessage `json:"user"`
	}
	_ = json.Unmarshal(data, &object) // anything but an object names no user
	var id string
	switch family, _, _ := strings.Cut(typ, "."); family {
	case "user":
		id = firstText(object.ID)
	case "session":
		_ = json.Unmarshal(object.User, &user)
		id = firstText(user.ID, object.UserID)
	}
	if !clerkapi.ValidUserID(id) {
		return ""
	}
	return id
}

// Apply brings the record in step with a verified event. The webhook handler uses it; so
// do apps that queue events and apply them later. Events may come in any order and
// repeatedly. The next visit in this process sees the outcome.
//
// "user.created", "user.updated" and, if it carries the user, "session.created" are an
// Upsert; "user.deleted" is a Deactivate. Any other type is ignored, with a zero Result.
//
// A field that a unique index refuses, or that cannot be stored, is left out of an existing
// record and logged, and the error is nil. If another record holds the value, Clerk is asked
// for both users, at most once a minute, and the value goes to the one who has it there. A
// ban is written before that, and also beside an error.
//
// Errors: [ErrInvalidEvent] if the event cannot be used, so delivering it again will not
// help; [ErrUnavailable]; [*ConflictError]; [ErrRejected]; a [*Problem] with the code
// "mapping_failed". If ctx ends first, the error matches [ErrUnavailable] and ctx's cause.
func (s *Syncer) Apply(ctx context.Context, e Event) (Result, error) {
	start, user := s.clock.Now(), ""
	if clerkapi.ValidUserID(e.UserID) {
		user = e.UserID
	}
	ctx, span := s.begin(ctx, OpWebhook, user)
	id, res, err := s.applyEvent(ctx, e)
	o := Observation{
		Op: OpWebhook, ClerkID: cmp.Or(id, user), EventID: e.ID, EventType: e.Type, EventTime: e.Timestamp,
		Outcome: res.Outcome, Err: err,
	}
	s.end(ctx, span, start, o)
	if err != nil {
		s.refused(ctx, start, refusal{Observation: o, fault: true})
		return Result{}, err // the ban may be written
	}
	s.observe(ctx, start, o)
	return res, nil
}

// applyEvent is apply within callTimeout. The record in the Result is the caller's own.
func (s *Syncer) applyEvent(ctx context.Context, e Event) (string, Result, error) {
	ctx, cancel := clock.WithTimeout(ctx, s.clock, callTimeout)
	defer cancel()
	id, res, err := s.apply(ctx, e)
	res.User = handedOut(res.User) // the cache may have it
	return id, res, err
}

// apply also returns the id of the user that the event is about, as far as it is known.
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
	m := s.mapUser(data, e.Timestamp)
	if m.id != "" {
		s.rereads.recordKnown(m.id)
	}
	res, err := s.write(ctx, m, s.upsert)
	if errors.Is(err, ErrUnlinked) {
		res, err = s.linkFromClerk(ctx, m.id, err)
	}
	return m.id, res, err
}

func (s *Syncer) applyDeletion(ctx context.Context, e Event) (string, Result, error) {
	var deleted struct {
		ID         string          `json:"id"`
		ExternalID json.RawMessage `json:"external_id"`
	}
	if err := json.Unmarshal(e.Data, &deleted); err != nil || !clerkapi.ValidUserID(deleted.ID) {
		return "", Result{}, fmt.Errorf("%w: user.deleted: its id is not a user id", ErrInvalidEvent)
	}
	at := s.clock.Now()
	if !e.Timestamp.IsZero() && e.Timestamp.Before(at) {
		at = e.Timestamp
	}
	res, err := s.deactivateExternal(ctx, deleted.ID, firstText(deleted.ExternalID), at)
	return deleted.ID, res, err
}
