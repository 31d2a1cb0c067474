package clerksync_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/clerksync/clerksync-go/clerksync"
)

func newVerifier(t testing.TB, cfg clerksync.WebhookConfig) *clerksync.Verifier {
	t.Helper()
	cfg.OnEvent = nil
	v, err := clerksync.NewVerifier(cfg)
	if err != nil {
		t.Fatal(err)
	}
	clerksync.SetVerifierClock(v, func() time.Time { return t0 })
	return v
}

// checkVerifier checks that a Verifier decides on a delivery as a WebhookHandler did, which gave
// the code, "" for an acknowledgement, and events to OnEvent. It returns the Verifier's error.
func checkVerifier(t *testing.T, cfg clerksync.WebhookConfig, r *http.Request, code string, events []clerksync.Event) error {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil || code == "method_not_allowed" { // both come before the check
		return nil //nolint:nilerr // the Verifier does not see the delivery
	}
	if r.ContentLength >= 0 {
		r.Header.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10)) // of a gateway
	}
	header := lowerCase(r.Header)
	before, sent := header.Clone(), bytes.Clone(body)
	e, err := newVerifier(t, cfg).Verify(header, body)
	if !cmp.Equal(header, before) || !bytes.Equal(body, sent) {
		t.Error("Verify changed the delivery")
	}
	var p *clerksync.Problem
	got := ""
	if errors.As(err, &p) {
		got = p.Code
		checkText(t, err.Error())
	}
	switch code {
	case "invalid_signature", "wrong_instance", "body_too_large":
	case "invalid_event": // Apply knows more of them
		if err == nil {
			code = ""
		}
	default:
		code = ""
	}
	if got != code || (err != nil) != (p != nil) {
		t.Errorf("Verify: %v, want the code %q", err, code)
	}
	if err != nil && !cmp.Equal(e, clerksync.Event{}) {
		t.Errorf("an event beside the error: %+v", e)
	}
	for _, want := range events {
		if diff := cmp.Diff(want, e, cmpopts.IgnoreFields(clerksync.Event{}, "Result")); diff != "" {
			t.Errorf("OnEvent got another event than Verify returns: %s", diff)
		}
	}
	return err
}

// lowerCase is the header as some gateways hand it on.
func lowerCase(header http.Header) http.Header {
	lower := http.Header{}
	for name, lines := range header {
		lower[strings.ToLower(name)] = lines
	}
	return lower
}

// A verified event that was queued as JSON is applied as the WebhookHandler would have.
func TestQueuedEventIsApplied(t *testing.T) {
	t.Parallel()
	for name, body := range map[string][]byte{
		"created":          createdEvent,
		"deleted":          envelope("user.deleted", `{"id":"user_1","external_id":"7"}`),
		"another type":     envelope("organization.created", `{"id":"org_1"}`),
		"without a time":   []byte(`{"type":"user.created","data":` + userJSON("user_1", t0) + `}`),
		"without its data": []byte(`{"type":"x.y"}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVerifier(t, clerksync.WebhookConfig{Secrets: []string{otherSecret, testSecret}})
			e, err := v.Verify(signed(t, "/", testSecret, t0, body).Header, body)
			if err != nil {
				t.Fatal(err)
			}
			message, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			var queued clerksync.Event
			if err := json.Unmarshal(message, &queued); err != nil {
				t.Fatal(err)
			}
			now, later := newTestSyncer(t, nil), newTestSyncer(t, nil)
			res, err := now.Apply(t.Context(), e)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := later.Apply(t.Context(), queued); err != nil || again.Outcome != res.Outcome {
				t.Errorf("the queued event: %v, %v; at once: %v", again.Outcome, err, res.Outcome)
			}
			if queued.ID != "msg_1" || queued.UserID != e.UserID || !queued.Timestamp.Equal(e.Timestamp) {
				t.Errorf("queued %+v, verified %+v", queued, e)
			}
		})
	}
}

// A Verifier reads the system's clock.
func TestVerifierReadsTheClock(t *testing.T) {
	t.Parallel()
	v, err := clerksync.NewVerifier(clerksync.WebhookConfig{Secrets: []string{testSecret}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(signed(t, "/", testSecret, time.Now(), createdEvent).Header, createdEvent); err != nil {
		t.Errorf("signed now: %v", err)
	}
	_, err = v.Verify(signed(t, "/", testSecret, time.Now().Add(-time.Hour), createdEvent).Header, createdEvent)
	if !errors.Is(err, clerksync.ErrInvalidSignature) {
		t.Errorf("signed an hour ago: %v", err)
	}
}

// recycledID replaces the id in the headers by the same text in memory that a server uses again, as
// fasthttp does. The function gives the memory to the next request.
func recycledID(header http.Header) (recycle func()) {
	memory := []byte(header.Get("svix-id"))
	header["Svix-Id"] = []string{unsafe.String(&memory[0], len(memory))}
	return func() { copy(memory, "recycled") }
}

// The event keeps nothing of the memory that it was read from.
func TestVerifiedEventIsACopy(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, clerksync.WebhookConfig{Secrets: []string{testSecret}})
	body := bytes.Clone(createdEvent)
	r := signed(t, "/", testSecret, t0, body)
	recycle := recycledID(r.Header)
	e, err := v.Verify(r.Header, body)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := v.Verify(signed(t, "/", testSecret, t0, createdEvent).Header, createdEvent)
	clear(body)
	recycle()
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("the event changed with the body: %s", diff)
	}
}

// Nor do an Event and an Observation of the WebhookHandler's, whether it accepts the delivery or not.
func TestHandledEventIsACopy(t *testing.T) {
	t.Parallel()
	for secret, want := range map[string]int{testSecret: 1, otherSecret: 0} {
		fx := newFixture(t, nil)
		var events []clerksync.Event
		h, err := fx.WebhookHandler(clerksync.WebhookConfig{
			Secrets: []string{testSecret},
			OnEvent: func(_ context.Context, e clerksync.Event) error { events = append(events, e); return nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		r := signed(t, "/", secret, t0, createdEvent)
		recycle := recycledID(r.Header)
		answerOf(h, r)
		recycle()
		if len(events) != want || want == 1 && events[0].ID != "msg_1" {
			t.Errorf("OnEvent got %+v", events)
		}
		if id := fx.seen.last().EventID; id != "msg_1" {
			t.Errorf("observed the id %q, want msg_1", id)
		}
	}
}

// The two spellings of a header count as one list, so a second id is refused as ever.
func TestVerifierMergesSpellings(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, clerksync.WebhookConfig{Secrets: []string{testSecret}})
	header := signed(t, "/", testSecret, t0, createdEvent).Header
	header["svix-id"] = []string{"msg_1"}
	if _, err := v.Verify(header, createdEvent); err != nil {
		t.Errorf("the same id twice: %v", err)
	}
	header["SVIX-ID"] = []string{"msg_2"}
	if _, err := v.Verify(header, createdEvent); !errors.Is(err, clerksync.ErrInvalidSignature) {
		t.Errorf("two ids: %v", err)
	}
	if _, err := v.Verify(nil, nil); !errors.Is(err, clerksync.ErrInvalidSignature) {
		t.Errorf("nothing at all: %v", err)
	}
}

func TestNewVerifierReportsEveryFault(t *testing.T) {
	t.Parallel()
	v, err := clerksync.NewVerifier(clerksync.WebhookConfig{
		Secrets: []string{"x"}, InstanceID: "app_1", Tolerance: -1, MaxBodyBytes: -1,
		OnEvent: func(context.Context, clerksync.Event) error { return nil },
	})
	if v != nil || err == nil {
		t.Fatalf("%v, %v", v, err)
	}
	checkFaults(t, err, []string{"Secrets[0]", "InstanceID", "MaxBodyBytes", "Tolerance", "OnEvent has no effect"})
}
