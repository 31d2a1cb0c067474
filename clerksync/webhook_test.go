package clerksync_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// webhookCase is a delivery, and the answer that it must get.
type webhookCase struct {
	body    []byte    // defaults to createdEvent
	at      time.Time // of the signature; defaults to t0
	secret  string    // of the signature; defaults to testSecret
	change  func(*http.Request)
	webhook func(*clerksync.WebhookConfig)
	syncer  func(*clerksync.Config)
	store   error // what the Store fails with
	status  int
	code    string
	outcome clerksync.Outcome // of the event that OnEvent gets
}

// createdEvent is an ordinary user.created.
var createdEvent = envelope("user.created", userJSON("user_1", t0))

// manyAddresses is the JSON of 100,000 addresses.
func manyAddresses() string {
	many := make([]string, 100_000)
	for i := range many {
		many[i] = fmt.Sprintf(`{"id":"idn_%d","email_address":"%d@example.com"}`, i, i)
	}
	return "[" + strings.Join(many, ",") + "]"
}

func TestWebhookAnswers(t *testing.T) {
	t.Parallel()
	for _, group := range []map[string]webhookCase{
		appliedEvents(), otherEvents(), forgedDeliveries(), invalidEvents(), otherRefusals(), failedDeliveries(),
	} {
		for name, tt := range group {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				tt.run(t)
			})
		}
	}
}

// appliedEvents are acknowledged, and create or delete the record.
func appliedEvents() map[string]webhookCase {
	user := userJSON("user_1", t0)
	data := func(timestamp string) []byte {
		return []byte(`{"type":"user.created","timestamp":` + timestamp + `,"data":` + user + `}`)
	}
	manyOfOne := `{"id":"user_1","updated_at":1,"primary_email_address_id":"idn_99999","email_addresses":` +
		manyAddresses() + `}`
	cases := map[string]webhookCase{
		"created":                   {},
		"updated":                   {body: envelope("user.updated", user)},
		"session with its user":     {body: envelope("session.created", `{"id":"sess_1","user":`+user+`}`)},
		"timestamp in seconds":      {body: data(strconv.FormatInt(t0.Unix(), 10))},
		"timestamp of another type": {body: data(`"yesterday"`)},
		"the specification's names": {change: standardHeaders},
		"several signatures": {change: func(r *http.Request) {
			r.Header.Set("svix-signature", "v1a,x v1,AAAA "+r.Header.Get("svix-signature"))
		}},
		"second secret": {
			secret:  otherSecret,
			webhook: func(c *clerksync.WebhookConfig) { c.Secrets = append(c.Secrets, otherSecret) },
		},
		"signed five minutes ago":   {at: t0.Add(-5 * time.Minute)},
		"signed five minutes ahead": {at: t0.Add(5 * time.Minute)},
		"own instance":              {webhook: func(c *clerksync.WebhookConfig) { c.InstanceID = "ins_1" }},
		"100,000 addresses, allowed": {
			body:    envelope("user.created", manyOfOne),
			webhook: func(c *clerksync.WebhookConfig) { c.MaxBodyBytes = 10 << 20 },
		},
		"deleted": {
			body:    envelope("user.deleted", `{"object":"user","id":"user_1","deleted":true}`),
			outcome: clerksync.Deactivated,
		},
	}
	for name, tt := range cases {
		tt.status = 204
		if tt.outcome == 0 {
			tt.outcome = clerksync.Created
		}
		cases[name] = tt
	}
	return cases
}

// otherEvents are acknowledged although they do not concern a user record.
func otherEvents() map[string]webhookCase {
	small := envelope("x.y", "{}")
	limit := func(c *clerksync.WebhookConfig) { c.MaxBodyBytes = int64(len(small)) }
	return map[string]webhookCase{
		"session without its user":  {body: envelope("session.created", `{"id":"sess_1","user":null}`), status: 204},
		"session of the older form": {body: envelope("session.created", `{"id":"sess_1"}`), status: 204},
		"unknown type":              {body: envelope("organization.created", `{"id":"org_1"}`), status: 204},
		"unknown type without data": {body: []byte(`{"type":"x.y"}`), status: 204},
		"just small enough":         {body: small, webhook: limit, status: 204},
	}
}

// forgedDeliveries get 400 invalid_signature.
func forgedDeliveries() map[string]webhookCase {
	set := func(header, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(header, value) }
	}
	without := func(header string) func(*http.Request) { return func(r *http.Request) { r.Header.Del(header) } }
	unsigned := func(r *http.Request) { r.Header = http.Header{} }
	cases := map[string]webhookCase{
		"signed over five minutes ago":     {at: t0.Add(-5*time.Minute - time.Second)},
		"signed over five minutes ahead":   {at: t0.Add(5*time.Minute + time.Second)},
		"signed with another secret":       {secret: otherSecret},
		"not signed":                       {change: unsigned},
		"no body, not signed":              {body: []byte{}, change: unsigned},
		"no signature":                     {change: without("svix-signature")},
		"no timestamp":                     {change: without("svix-timestamp")},
		"no id":                            {change: without("svix-id")},
		"another timestamp":                {change: set("svix-timestamp", strconv.FormatInt(t0.Unix()+1, 10))},
		"a timestamp that is not a number": {change: set("svix-timestamp", "now")},
		"a huge timestamp":                 {change: set("svix-timestamp", "99999999999999999999")},
		"another id":                       {change: set("svix-id", "msg_2")},
		"an empty signature":               {change: set("svix-signature", "v1,")},
		"another version's signature": {change: func(r *http.Request) {
			r.Header.Set("svix-signature", "v2"+r.Header.Get("svix-signature")[2:])
		}},
	}
	for name, tt := range cases {
		tt.status, tt.code = 400, "invalid_signature"
		cases[name] = tt
	}
	return cases
}

// invalidEvents are signed, and get 422 invalid_event.
func invalidEvents() map[string]webhookCase {
	user := userJSON("user_1", t0)
	deep := strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)
	cases := map[string]webhookCase{"compressed": {
		body:   []byte("\x1f\x8b\x08\x00garbage"),
		change: func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") },
	}}
	for name, body := range map[string][]byte{
		"no body":                        {},
		"not JSON":                       []byte("user.created"),
		"an array":                       []byte("[]"),
		"null":                           []byte("null"),
		"two documents":                  append(bytes.Clone(createdEvent), "{}"...),
		"no type":                        []byte(`{"data":` + user + `}`),
		"data null":                      envelope("user.created", "null"),
		"data an array":                  envelope("user.updated", "["+user+"]"),
		"no data":                        []byte(`{"type":"user.created"}`),
		"created without an id":          envelope("user.created", `{"first_name":"A"}`),
		"deleted without an id":          envelope("user.deleted", `{"deleted":true,"slug":"a"}`),
		"deleted with data null":         envelope("user.deleted", `null`),
		"deleted with an operator":       envelope("user.deleted", `{"id":{"$ne":""}}`),
		"an id with a slash":             envelope("user.deleted", `{"id":"user_1/x"}`),
		"an id with NUL":                 envelope("user.created", `{"id":"user_1\u0000"}`),
		"an id with a dollar and a dot":  envelope("user.created", `{"id":"user_$.1"}`),
		"session's user of another type": envelope("session.created", `{"user":"user_1"}`),
		"session data an array":          envelope("session.created", `[]`),
		"deep nesting":                   envelope("user.created", `{"id":"user_1","public_metadata":`+deep+`}`),
		"a version a day ahead":          envelope("user.created", userJSON("user_1", t0.Add(25*time.Hour))),
	} {
		cases[name] = webhookCase{body: body}
	}
	for name, tt := range cases {
		tt.status, tt.code = 422, "invalid_event"
		cases[name] = tt
	}
	return cases
}

// otherRefusals get 403, 405 or 413.
func otherRefusals() map[string]webhookCase {
	small := envelope("x.y", "{}")
	tooSmall := func(c *clerksync.WebhookConfig) { c.MaxBodyBytes = int64(len(small)) - 1 }
	instance := func(id string) func(*clerksync.WebhookConfig) {
		return func(c *clerksync.WebhookConfig) { c.InstanceID = id }
	}
	withoutInstance := []byte(`{"type":"user.created","data":` + userJSON("user_1", t0) + `}`)
	addresses := envelope("user.created", `{"id":"user_1","email_addresses":`+manyAddresses()+`}`)
	return map[string]webhookCase{
		"100,000 addresses": {body: addresses, status: 413, code: "body_too_large"},
		"10 MB":             {body: bytes.Repeat([]byte("x"), 10<<20), status: 413, code: "body_too_large"},
		"one byte too many": {body: small, webhook: tooSmall, status: 413, code: "body_too_large"},
		"GET": {
			body:   []byte{},
			change: func(r *http.Request) { r.Method = http.MethodGet },
			status: 405, code: "method_not_allowed",
		},
		"another instance": {webhook: instance("ins_2"), status: 403, code: "wrong_instance"},
		"no instance, and one is configured": {
			body: withoutInstance, webhook: instance("ins_1"),
			status: 403, code: "wrong_instance",
		},
	}
}

// failedDeliveries are right, and meet a failure of the Store's or the app's.
func failedDeliveries() map[string]webhookCase {
	deletion := envelope("user.deleted", `{"id":"user_1"}`)
	onEvent := func(f func(context.Context, clerksync.Event) error) func(*clerksync.WebhookConfig) {
		return func(c *clerksync.WebhookConfig) { c.OnEvent = f }
	}
	return map[string]webhookCase{
		"store down":             {store: errDown, status: 503, code: "unavailable"},
		"store down on deletion": {body: deletion, store: errDown, status: 503, code: "unavailable"},
		"store out of time":      {store: context.DeadlineExceeded, status: 503, code: "unavailable"},
		"conflict": {
			store:  &clerksync.ConflictError{Field: "email", Err: errDown},
			status: 409, code: "conflict",
		},
		"Map fails": {
			syncer: func(c *clerksync.Config) {
				c.Map = func(*clerk.User, *clerksync.User) error { return errDown }
			},
			status: 500, code: "mapping_failed",
		},
		"RoleOf panics": {
			syncer: func(c *clerksync.Config) { c.RoleOf = func(*clerk.User) clerksync.Role { panic(errDown) } },
			status: 500, code: "mapping_failed",
		},
		"OnEvent fails": {
			webhook: onEvent(func(context.Context, clerksync.Event) error { return errDown }),
			status:  503, code: "event_hook_failed",
		},
		"OnEvent panics": {
			webhook: onEvent(func(context.Context, clerksync.Event) error { panic(errDown) }),
			status:  503, code: "event_hook_failed",
		},
	}
}

func (tt *webhookCase) run(t *testing.T) {
	store := &faultyStore{Store: memstore.New(), err: tt.store}
	var logs logBuffer
	s := newTestSyncer(t, func(c *clerksync.Config) {
		c.Store, c.Logger = store, logs.logger()
		if tt.syncer != nil {
			tt.syncer(c)
		}
	})
	var events []clerksync.Event
	cfg := clerksync.WebhookConfig{
		Secrets: []string{testSecret},
		OnEvent: func(_ context.Context, e clerksync.Event) error { events = append(events, e); return nil },
	}
	if tt.webhook != nil {
		tt.webhook(&cfg)
	}
	h, err := s.WebhookHandler(cfg)
	if err != nil {
		t.Fatal(err)
	}
	a := send(t, tt.request(t, serve(t, h)))
	checkProblem(t, a, tt.status, tt.code)
	if tt.status == 405 && a.header.Get("Allow") != "POST" {
		t.Errorf("Allow is %q", a.header.Get("Allow"))
	}
	if bytes.Contains(a.body, []byte("hunter2")) {
		t.Errorf("the answer shows an internal error: %s", a.body)
	}
	tt.checkEffects(t, events, logs.String(), store)
	code := tt.code
	if tt.status == http.StatusNoContent {
		code = ""
	}
	checkVerifier(t, cfg, tt.request(t, "/"), code, events)
}

func (tt *webhookCase) request(t *testing.T, url string) *http.Request {
	t.Helper()
	body, at := tt.body, tt.at
	if body == nil {
		body = createdEvent
	}
	if at.IsZero() {
		at = t0
	}
	r := signed(t, url, cmp.Or(tt.secret, testSecret), at, body)
	if tt.change != nil {
		tt.change(r)
	}
	return r
}

// checkEffects checks what OnEvent got, what was logged and what was written.
func (tt *webhookCase) checkEffects(t *testing.T, events []clerksync.Event, log string, store *faultyStore) {
	t.Helper()
	switch {
	case tt.status != 204 && len(events) != 0:
		t.Errorf("OnEvent got %+v beside a %d", events, tt.status)
	case tt.status != 204:
	case len(events) != 1 || events[0].ID != "msg_1" || events[0].Result.Outcome != tt.outcome:
		t.Errorf("OnEvent got %+v, want one event with outcome %v", events, tt.outcome)
	}
	wantLog := tt.status == 403 || tt.status == 409 || tt.status == 422 || tt.status >= 500
	if strings.Contains(log, "level=ERROR") != wantLog {
		t.Errorf("on a %d the log is %q", tt.status, log)
	}
	_, err := store.Store.User(t.Context(), "user_1")
	wantRecord := tt.outcome != 0 || tt.code == "event_hook_failed"
	if written := !errors.Is(err, clerksync.ErrNotFound); written != wantRecord {
		t.Errorf("record written: %v, on a %d", written, tt.status)
	}
}

func TestWebhookBodyCutOff(t *testing.T) {
	t.Parallel()
	h, err := newTestSyncer(t, nil).WebhookHandler(clerksync.WebhookConfig{Secrets: []string{testSecret}})
	if err != nil {
		t.Fatal(err)
	}
	r := signed(t, "/", testSecret, t0, createdEvent)
	r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, 10), errReader{}))
	checkProblem(t, answerOf(h, r), 400, "unreadable_body")
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestEventCarriesEnvelopeAndRecord(t *testing.T) {
	t.Parallel()
	var got clerksync.Event
	h, err := newTestSyncer(t, nil).WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{testSecret},
		OnEvent: func(_ context.Context, e clerksync.Event) error { got = e; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	data := userJSON("user_1", t0)
	send(t, signed(t, serve(t, h), testSecret, t0, envelope("user.created", data)))
	if got.ID != "msg_1" || got.Type != "user.created" || got.InstanceID != "ins_1" {
		t.Errorf("event is %+v", got)
	}
	if got.UserID != "user_1" {
		t.Errorf("UserID is %q", got.UserID)
	}
	if !got.Timestamp.Equal(t0) || string(got.Data) != data {
		t.Errorf("event is of %v, with the data %s", got.Timestamp, got.Data)
	}
	if got.Result.Outcome != clerksync.Created || got.Result.User == nil || got.Result.User.ClerkID != "user_1" {
		t.Errorf("result is %+v", got.Result)
	}
}

// An Apply decides by version, whatever order the events come in.
func TestApplyConverges(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store := memstore.New()
	s := newTestSyncer(t, func(c *clerksync.Config) { c.Store = store })
	at := func(minutes int) time.Time { return t0.Add(time.Duration(minutes-60) * time.Minute) }
	version := func(id string, minutes int) string { return userJSON(id, at(minutes)) }
	for i, tt := range []struct {
		typ     string
		data    string
		minutes int
		want    clerksync.Outcome
	}{
		{"user.updated", version("user_1", 2), 2, clerksync.Created},
		{"user.created", version("user_1", 1), 1, clerksync.Stale},
		{"user.updated", version("user_1", 2), 2, clerksync.Unchanged},
		{"session.created", `{"user":` + version("user_1", 3) + `}`, 3, clerksync.Updated},
		{"user.deleted", `{"id":"user_1"}`, 4, clerksync.Deactivated},
		{"user.deleted", `{"id":"user_1"}`, 5, clerksync.Deactivated},
		{"user.updated", version("user_1", 6), 6, clerksync.Deactivated},
		{"user.deleted", `{"id":"user_2"}`, 1, clerksync.Deactivated},
		{"user.created", version("user_2", 0), 0, clerksync.Deactivated},
	} {
		e := clerksync.Event{ID: "msg", Type: tt.typ, Timestamp: at(tt.minutes), Data: json.RawMessage(tt.data)}
		if res, err := s.Apply(ctx, e); err != nil || res.Outcome != tt.want {
			t.Errorf("event %d, %s: %v, %v; want %v", i, tt.typ, res.Outcome, err, tt.want)
		}
	}

	u, err := store.User(ctx, "user_1")
	if err != nil || u.IsActive || !u.DeletedAt.Equal(at(4)) || !u.SyncedAt.Equal(at(3)) {
		t.Errorf("record is %+v, %v", u, err)
	}
}

func TestDeletionIsNotDatedInTheFuture(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]time.Time{"ahead": t0.Add(time.Hour), "missing": {}} {
		store := memstore.New()
		s := newTestSyncer(t, func(c *clerksync.Config) { c.Store = store })
		e := clerksync.Event{Type: "user.deleted", Timestamp: at, Data: json.RawMessage(`{"id":"user_1"}`)}
		if _, err := s.Apply(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if u, err := store.User(t.Context(), "user_1"); err != nil || !u.DeletedAt.Equal(t0) {
			t.Errorf("%s: record is %+v, %v", name, u, err)
		}
	}
}

func FuzzWebhookHandler(f *testing.F) {
	for _, typ := range []string{"user.created", "user.updated", "session.created", "user.deleted", "x"} {
		for _, data := range []string{
			documentedUser, `{"user":` + documentedUser + `}`, `{"object":"user","deleted":true,"id":"user_1"}`,
			"null", "[]", `{"id":{"$gt":""}}`,
		} {
			f.Add(envelope(typ, data), "msg_1", "v1,x", true)
		}
	}
	f.Add([]byte(`{"type":"user.created","timestamp":1e999}`), "", "v1,", false)
	s := newTestSyncer(f, func(c *clerksync.Config) { c.Logger = slog.New(slog.DiscardHandler) })
	h, err := s.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{testSecret}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte, id, signature string, genuine bool) {
		r := signed(t, "/", testSecret, t0, body)
		if !genuine {
			r.Header.Set("svix-id", id)
			r.Header.Set("svix-signature", signature)
		}
		a := answerOf(h, r)
		switch a.status {
		case 204, 413, 422:
			if !genuine && id != "msg_1" {
				t.Fatalf("%d for a forged delivery", a.status)
			}
		case 400:
			if genuine {
				t.Fatalf("400 for a genuine delivery: %s", a.body)
			}
		default:
			t.Fatalf("status %d: %s", a.status, a.body)
		}
	})
}

// Svix takes any 2xx for an acknowledgement, so an ErrorHandler cannot answer a failure with one.
func TestErrorHandlerCannotAcknowledge(t *testing.T) {
	t.Parallel()
	page := func(w http.ResponseWriter, _ *http.Request, _ error) { _, _ = io.WriteString(w, "page") }
	for name, tt := range map[string]struct {
		handler func(w http.ResponseWriter, r *http.Request, err error)
		status  int
		body    string
	}{
		"body alone": {page, 503, "page"},
		"nothing":    {func(http.ResponseWriter, *http.Request, error) {}, 503, ""},
		"200": {func(w http.ResponseWriter, r *http.Request, err error) {
			w.WriteHeader(200)
			page(w, r, err)
		}, 503, "page"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request, _ error) {
			http.Redirect(w, r, "/sorry", http.StatusSeeOther)
		}, 503, ""},
		"its own": {func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(500) }, 500, ""},
		"flushed first": {func(w http.ResponseWriter, r *http.Request, err error) {
			_ = http.NewResponseController(w).Flush()
			page(w, r, err)
		}, 503, "page"},
		"flushed": {func(w http.ResponseWriter, r *http.Request, err error) {
			w.WriteHeader(http.StatusEarlyHints)
			page(w, r, err)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
		}, 503, "page"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, func(c *clerksync.Config) { c.ErrorHandler = tt.handler })
			h, err := fx.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{testSecret}})
			if err != nil {
				t.Fatal(err)
			}
			fx.store.fail(errDown)
			a := send(t, signed(t, serve(t, h), testSecret, t0, createdEvent))
			if a.status != tt.status || tt.body != "" && string(a.body) != tt.body {
				t.Errorf("answers %d %q, want %d %q", a.status, a.body, tt.status, tt.body)
			}
		})
	}
}

// Whatever the Store made of an event, an applied delivery gets 204, and OnEvent and Observe get
// the Outcome.
func TestEveryOutcomeOfADelivery(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	var got clerksync.Event
	h, err := fx.WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{testSecret},
		OnEvent: func(_ context.Context, e clerksync.Event) error { got = e; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	url := serve(t, h)
	deliver := func(typ, data string) answer {
		return send(t, signed(t, url, testSecret, t0, envelope(typ, data)))
	}
	user := func(minutes int) string { return userJSON("user_1", t0.Add(time.Duration(minutes)*time.Minute)) }
	for _, tt := range []struct {
		name, typ, data string
		want            clerksync.Outcome
	}{
		{"new", "user.created", user(1), clerksync.Created},
		{"repeated", "user.created", user(1), clerksync.Unchanged},
		{"newer", "user.updated", user(3), clerksync.Updated},
		{"late", "user.updated", user(2), clerksync.Stale},
		{"a session's, late", "session.created", `{"user":` + user(2) + `}`, clerksync.Stale},
		{"a session's, newer", "session.created", `{"user":` + user(4) + `}`, clerksync.Updated},
		{"deletion", "user.deleted", `{"id":"user_1"}`, clerksync.Deactivated},
		{"repeated deletion", "user.deleted", `{"id":"user_1"}`, clerksync.Deactivated},
		{"after the deletion", "user.created", user(5), clerksync.Deactivated},
		{"of no user", "organization.created", `{"id":"org_1"}`, 0},
	} {
		checkProblem(t, deliver(tt.typ, tt.data), 204, "")
		if got.Type != tt.typ || got.Result.Outcome != tt.want {
			t.Errorf("%s: OnEvent got %+v, want %v", tt.name, got, tt.want)
		}
		want := clerksync.Observation{
			Op: clerksync.OpWebhook, EventID: "msg_1", EventType: tt.typ, EventTime: t0, ClerkID: "user_1", Outcome: tt.want,
		}
		if tt.want == 0 {
			want.ClerkID = ""
		}
		o := fx.seen.last()
		if o.Duration = 0; o != want {
			t.Errorf("%s: observed %+v, want %+v", tt.name, o, want)
		}
	}
	fx.store.fail(errDown)
	checkProblem(t, deliver("user.created", user(6)), 503, "unavailable")
	var p *clerksync.Problem
	o := fx.seen.last()
	if o.Op != clerksync.OpWebhook || o.Outcome != 0 || !o.EventTime.Equal(t0) || !errors.As(o.Err, &p) || p.Code != "unavailable" {
		t.Errorf("observed %+v", o)
	}
	checkProblem(t, send(t, signed(t, url, otherSecret, t0, envelope("user.created", user(6)))), 400, "invalid_signature")
	if o := fx.seen.last(); !o.EventTime.IsZero() {
		t.Errorf("a forged delivery says when its event happened: %+v", o)
	}
	_, _ = fx.Apply(t.Context(), clerksync.Event{Type: "x.y", Timestamp: t0})
	if o := fx.seen.last(); !o.EventTime.Equal(t0) {
		t.Errorf("an event of the app's: %+v", o)
	}
}
