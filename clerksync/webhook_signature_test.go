package clerksync_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/clerksync/clerksync-go/clerksync"
)

// carried draws what proxies make of a header's line on its way. They split it at commas, put
// entries on lines of their own, join lines by commas, and repeat what they have.
func carried(t *rapid.T, name, line string) []string {
	draw := func(what string, from ...string) string { return rapid.SampledFrom(from).Draw(t, name+" "+what) }
	var text strings.Builder
	for _, r := range line {
		switch r {
		case ',':
			text.WriteString(draw("at a comma", ",", "\n", ", ", ",\n"))
		case ' ':
			text.WriteString(draw("between entries", " ", "  ", "\t", ", ", ",", "\n", "\n\n"))
		default:
			text.WriteRune(r)
		}
	}
	lines := strings.Split(text.String(), "\n")
	if draw("repeated", "no", "yes") == "yes" {
		lines = append(lines, lines...)
	}
	if draw("with empty lines", "no", "yes") == "yes" {
		lines = append([]string{"", " "}, append(lines, ",", "")...)
	}
	if by := draw("joined by", "", ",", ", ", " , "); by != "" {
		lines = []string{strings.Join(lines, by)}
	}
	return lines
}

// However its headers were split, repeated and joined, a delivery that is signed is accepted,
// under the id that was signed, and one that is not signed is refused.
func TestSignaturesSurviveProxies(t *testing.T) {
	t.Parallel()
	s := newTestSyncer(t, func(c *clerksync.Config) { c.Logger = slog.New(slog.DiscardHandler) })
	h, err := s.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{testSecret}})
	if err != nil {
		t.Fatal(err)
	}
	genuine := "v1," + macOf(testSecret, "msg_1", nowText, createdEvent)
	forged := []string{
		"v1," + macOf(otherSecret, "msg_1", nowText, createdEvent), "v1," + macOf(testSecret, "msg_2", nowText, createdEvent),
		"v1," + macOf(testSecret, "msg_1", nowText, []byte("{}")), "v1a" + genuine[2:], "v2" + genuine[2:], "v1,AAAA",
	}
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfN(rapid.SampledFrom(forged), 0, 3).Draw(t, "other signatures")
		want := http.StatusBadRequest
		if rapid.Bool().Draw(t, "signed") {
			at := rapid.IntRange(0, len(entries)).Draw(t, "place")
			entries = append(append(append([]string{}, entries[:at]...), genuine), entries[at:]...)
			want = http.StatusNoContent
		}
		family := rapid.SampledFrom([]string{"svix-", "webhook-"}).Draw(t, "family")
		r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(createdEvent))
		lines := map[string]string{"id": "msg_1", "timestamp": nowText, "signature": strings.Join(entries, " ")}
		for _, name := range []string{"id", "timestamp", "signature"} { // in the order in which rapid repeats it
			r.Header[http.CanonicalHeaderKey(family+name)] = carried(t, name, lines[name])
		}
		if a := answerOf(h, r); a.status != want {
			t.Fatalf("status %d, want %d: %q", a.status, want, r.Header)
		}
	})
}

// The lines that real intermediaries make of a delivery's headers.
func TestSignatureHeadersAsTheyArrive(t *testing.T) {
	t.Parallel()
	mac := macOf(testSecret, "msg_1", nowText, createdEvent)
	const other = "b3RoZXI="
	lines := func(signature ...string) func(*http.Request) { return setHeader("svix-signature", signature...) }
	for name, tt := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"cut at the comma":                 {lines("v1", mac), 204},
		"two signatures, cut at commas":    {lines("v1", other+" v1", mac), 204},
		"two signatures, the first is it":  {lines("v1", mac+" v1", other), 204},
		"another version, cut at commas":   {lines("v1a", other+" v1", mac), 204},
		"two lines":                        {lines("v1,"+other, "v1,"+mac), 204},
		"two lines joined":                 {lines("v1," + other + ", v1," + mac), 204},
		"two lines joined, no space":       {lines("v1," + other + ",v1," + mac), 204},
		"joined and then cut":              {lines("v1", other, "v1", mac), 204},
		"a version's signature elsewhere":  {lines("v1", other, mac), 400},
		"the signature before its version": {lines(mac, "v1"), 400},
		"v1a and the comma of v1":          {lines("v1a", mac+" v1", other), 400},
		"100 lines":                        {lines(append(make([]string, 99), "v1,"+mac)...), 204},
		"101 lines":                        {lines(append(make([]string, 100), "v1,"+mac)...), 400},
		"id twice":                         {setHeader("svix-id", "msg_1", "msg_1"), 204},
		"id twice, joined":                 {setHeader("svix-id", "msg_1, msg_1"), 204},
		"id twice, two values":             {setHeader("svix-id", "msg_1", "msg_2"), 400},
		"id twice, two values, joined":     {setHeader("svix-id", "msg_2,msg_1"), 400},
		"id with an empty line":            {setHeader("svix-id", "", "msg_1"), 204},
		"id empty":                         {setHeader("svix-id", "", ","), 400},
		"time twice":                       {setHeader("svix-timestamp", nowText, nowText), 204},
		"time twice, joined":               {setHeader("svix-timestamp", nowText+","+nowText), 204},
		"time twice, two values":           {setHeader("svix-timestamp", nowText, "1"+nowText), 400},
		"time twice, written otherwise":    {setHeader("svix-timestamp", nowText, "+"+nowText), 400},
		"time in milliseconds":             {setHeader("svix-timestamp", nowText+"000"), 400},
		"both families, the other forged": {func(r *http.Request) {
			r.Header["Webhook-Id"], r.Header["Webhook-Timestamp"] = []string{"msg_2"}, []string{nowText}
			r.Header["Webhook-Signature"] = []string{"v1,AAAA"}
		}, 204},
		"a family of both": {func(r *http.Request) {
			r.Header["Webhook-Signature"] = r.Header["Svix-Signature"]
			delete(r.Header, "Svix-Signature")
		}, 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hostileDelivery{change: tt.change, status: tt.status}.run(t)
		})
	}
}

func TestTolerance(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		tolerance, off time.Duration
		status         int
	}{
		{0, 5 * time.Minute, 204},
		{0, 5*time.Minute + time.Second, 400},
		{time.Minute, time.Minute, 204},
		{time.Minute, time.Minute + time.Second, 400},
		{time.Hour, -time.Hour, 204},
		{time.Hour, -time.Hour - time.Second, 400},
		{24 * time.Hour, 24 * time.Hour, 204},
		{24 * time.Hour, 24*time.Hour + time.Second, 400},
		{time.Millisecond, time.Second, 204}, // a signature's time is in seconds
		{time.Millisecond, 2 * time.Second, 400},
	} {
		t.Run(fmt.Sprint(tt.tolerance, tt.off), func(t *testing.T) {
			t.Parallel()
			tt := webhookCase{
				at: t0.Add(-tt.off), webhook: func(c *clerksync.WebhookConfig) { c.Tolerance = tt.tolerance },
				status: tt.status, code: "invalid_signature", outcome: map[int]clerksync.Outcome{204: clerksync.Created}[tt.status],
			}
			tt.run(t)
		})
	}
}

// A delivery's time that is far off, even by more than a Duration can say, is refused.
func TestFarTimes(t *testing.T) {
	t.Parallel()
	for _, sent := range []string{"0", "1", "99999999999", "100000000000", "100000000001", "-1", strconv.Itoa(1 << 62)} {
		signature := "v1," + macOf(testSecret, "msg_1", sent, createdEvent)
		hostileDelivery{change: func(r *http.Request) {
			r.Header.Set("svix-timestamp", sent)
			r.Header.Set("svix-signature", signature)
		}, status: 400}.run(t)
	}
}

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
		want.Result = clerksync.Result{}
		if !reflect.DeepEqual(want, e) { // cmp takes long for a large body
			t.Errorf("OnEvent got another event than Verify returns: %s", cmp.Diff(want, e))
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
