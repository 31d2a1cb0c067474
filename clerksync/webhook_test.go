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
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

func TestWebhookAnswers(t *testing.T) {
	t.Parallel()
	user := userJSON("user_1", t0)
	many := make([]string, 100_000)
	for i := range many {
		many[i] = fmt.Sprintf(`{"id":"idn_%d","email_address":"%d@example.com"}`, i, i)
	}
	resigned := func(header, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(header, value) }
	}
	tests := map[string]struct {
		body    []byte
		at      time.Time // of the signature; t0 if zero
		secret  string
		change  func(*http.Request)
		config  func(*clerksync.WebhookConfig)
		syncer  func(*clerksync.Config)
		store   error
		status  int
		code    string
		outcome clerksync.Outcome // of OnEvent's event, where it is called
	}{
		"created":                        {body: envelope("user.created", user), status: 204, outcome: clerksync.Created},
		"updated":                        {body: envelope("user.updated", user), status: 204, outcome: clerksync.Created},
		"deleted":                        {body: envelope("user.deleted", `{"object":"user","id":"user_1","deleted":true}`), status: 204, outcome: clerksync.Deactivated},
		"session with its user":          {body: envelope("session.created", `{"id":"sess_1","user":`+user+`}`), status: 204, outcome: clerksync.Created},
		"session without its user":       {body: envelope("session.created", `{"id":"sess_1","user":null}`), status: 204},
		"session of old":                 {body: envelope("session.created", `{"id":"sess_1"}`), status: 204},
		"unknown type":                   {body: envelope("organization.created", `{"id":"org_1"}`), status: 204},
		"unknown type without data":      {body: []byte(`{"type":"x.y"}`), status: 204},
		"timestamp in seconds":           {body: fmt.Appendf(nil, `{"type":"user.created","timestamp":%d,"data":%s}`, t0.Unix(), user), status: 204, outcome: clerksync.Created},
		"timestamp of another type":      {body: []byte(`{"type":"user.created","timestamp":"yesterday","data":` + user + `}`), status: 204, outcome: clerksync.Created},
		"spec's header names":            {body: envelope("user.created", user), change: standardHeaders, status: 204, outcome: clerksync.Created},
		"several signatures":             {body: envelope("user.created", user), change: func(r *http.Request) { r.Header.Set("svix-signature", "v1a,x v1,AAAA "+r.Header.Get("svix-signature")) }, status: 204, outcome: clerksync.Created},
		"second secret":                  {body: envelope("user.created", user), secret: otherSecret, config: func(c *clerksync.WebhookConfig) { c.Secrets = append(c.Secrets, otherSecret) }, status: 204, outcome: clerksync.Created},
		"signed five minutes ago":        {body: envelope("user.created", user), at: t0.Add(-5 * time.Minute), status: 204, outcome: clerksync.Created},
		"signed five minutes ahead":      {body: envelope("user.created", user), at: t0.Add(5 * time.Minute), status: 204, outcome: clerksync.Created},
		"own instance":                   {body: envelope("user.created", user), config: func(c *clerksync.WebhookConfig) { c.InstanceID = "ins_1" }, status: 204, outcome: clerksync.Created},
		"100,000 addresses, allowed":     {body: envelope("user.created", `{"id":"user_1","updated_at":1,"primary_email_address_id":"idn_99999","email_addresses":[`+strings.Join(many, ",")+`]}`), config: func(c *clerksync.WebhookConfig) { c.MaxBodyBytes = 10 << 20 }, status: 204, outcome: clerksync.Created},
		"signed over five minutes ago":   {body: envelope("user.created", user), at: t0.Add(-5*time.Minute - time.Second), status: 400, code: "invalid_signature"},
		"signed over five minutes ahead": {body: envelope("user.created", user), at: t0.Add(5*time.Minute + time.Second), status: 400, code: "invalid_signature"},
		"signed with another secret":     {body: envelope("user.created", user), secret: otherSecret, status: 400, code: "invalid_signature"},
		"not signed":                     {body: envelope("user.created", user), change: func(r *http.Request) { r.Header = http.Header{} }, status: 400, code: "invalid_signature"},
		"no signature":                   {body: envelope("user.created", user), change: func(r *http.Request) { r.Header.Del("svix-signature") }, status: 400, code: "invalid_signature"},
		"no timestamp":                   {body: envelope("user.created", user), change: func(r *http.Request) { r.Header.Del("svix-timestamp") }, status: 400, code: "invalid_signature"},
		"no id":                          {body: envelope("user.created", user), change: func(r *http.Request) { r.Header.Del("svix-id") }, status: 400, code: "invalid_signature"},
		"another timestamp":              {body: envelope("user.created", user), change: resigned("svix-timestamp", strconv.FormatInt(t0.Unix()+1, 10)), status: 400, code: "invalid_signature"},
		"a timestamp that is no number":  {body: envelope("user.created", user), change: resigned("svix-timestamp", "now"), status: 400, code: "invalid_signature"},
		"a huge timestamp":               {body: envelope("user.created", user), change: resigned("svix-timestamp", "99999999999999999999"), status: 400, code: "invalid_signature"},
		"another id":                     {body: envelope("user.created", user), change: resigned("svix-id", "msg_2"), status: 400, code: "invalid_signature"},
		"an empty signature":             {body: envelope("user.created", user), change: resigned("svix-signature", "v1,"), status: 400, code: "invalid_signature"},
		"another version's signature":    {body: envelope("user.created", user), change: func(r *http.Request) { r.Header.Set("svix-signature", "v2"+r.Header.Get("svix-signature")[2:]) }, status: 400, code: "invalid_signature"},
		"no body":                        {body: nil, status: 422, code: "invalid_event"},
		"no body, not signed":            {body: nil, change: func(r *http.Request) { r.Header = http.Header{} }, status: 400, code: "invalid_signature"},
		"not JSON":                       {body: []byte("user.created"), status: 422, code: "invalid_event"},
		"an array":                       {body: []byte("[]"), status: 422, code: "invalid_event"},
		"null":                           {body: []byte("null"), status: 422, code: "invalid_event"},
		"two documents":                  {body: append(envelope("user.created", user), "{}"...), status: 422, code: "invalid_event"},
		"no type":                        {body: []byte(`{"data":` + user + `}`), status: 422, code: "invalid_event"},
		"data null":                      {body: envelope("user.created", "null"), status: 422, code: "invalid_event"},
		"data an array":                  {body: envelope("user.updated", "["+user+"]"), status: 422, code: "invalid_event"},
		"no data":                        {body: []byte(`{"type":"user.created"}`), status: 422, code: "invalid_event"},
		"created without an id":          {body: envelope("user.created", `{"first_name":"A"}`), status: 422, code: "invalid_event"},
		"deleted without an id":          {body: envelope("user.deleted", `{"deleted":true,"slug":"a"}`), status: 422, code: "invalid_event"},
		"deleted with data null":         {body: envelope("user.deleted", `null`), status: 422, code: "invalid_event"},
		"deleted with an operator":       {body: envelope("user.deleted", `{"id":{"$ne":""}}`), status: 422, code: "invalid_event"},
		"an id with a slash":             {body: envelope("user.deleted", `{"id":"user_1/x"}`), status: 422, code: "invalid_event"},
		"an id with NUL":                 {body: envelope("user.created", `{"id":"user_1\u0000"}`), status: 422, code: "invalid_event"},
		"an id with a dollar and a dot":  {body: envelope("user.created", `{"id":"user_$.1"}`), status: 422, code: "invalid_event"},
		"session's user of another type": {body: envelope("session.created", `{"user":"user_1"}`), status: 422, code: "invalid_event"},
		"session data an array":          {body: envelope("session.created", `[]`), status: 422, code: "invalid_event"},
		"deep nesting":                   {body: envelope("user.created", `{"id":"user_1","public_metadata":`+strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000)+`}`), status: 422, code: "invalid_event"},
		"a version a day ahead":          {body: envelope("user.created", userJSON("user_1", t0.Add(25*time.Hour))), status: 422, code: "invalid_event"},
		"100,000 addresses":              {body: envelope("user.created", `{"id":"user_1","email_addresses":[`+strings.Join(many, ",")+`]}`), status: 413, code: "body_too_large"},
		"10 MB":                          {body: bytes.Repeat([]byte("x"), 10<<20), status: 413, code: "body_too_large"},
		"one byte too many":              {body: envelope("x.y", "{}"), config: func(c *clerksync.WebhookConfig) { c.MaxBodyBytes = int64(len(envelope("x.y", "{}"))) - 1 }, status: 413, code: "body_too_large"},
		"just small enough":              {body: envelope("x.y", "{}"), config: func(c *clerksync.WebhookConfig) { c.MaxBodyBytes = int64(len(envelope("x.y", "{}"))) }, status: 204},
		"compressed":                     {body: []byte("\x1f\x8b\x08\x00garbage"), change: resigned("Content-Encoding", "gzip"), status: 422, code: "invalid_event"},
		"GET":                            {change: func(r *http.Request) { r.Method = http.MethodGet }, status: 405, code: "method_not_allowed"},
		"another instance":               {body: envelope("user.created", user), config: func(c *clerksync.WebhookConfig) { c.InstanceID = "ins_2" }, status: 403, code: "wrong_instance"},
		"no instance where one is asked": {body: []byte(`{"type":"user.created","data":` + user + `}`), config: func(c *clerksync.WebhookConfig) { c.InstanceID = "ins_1" }, status: 403, code: "wrong_instance"},
		"store down":                     {body: envelope("user.created", user), store: errDown, status: 503, code: "unavailable"},
		"store down on deletion":         {body: envelope("user.deleted", `{"id":"user_1"}`), store: errDown, status: 503, code: "unavailable"},
		"store out of time":              {body: envelope("user.created", user), store: context.DeadlineExceeded, status: 503, code: "unavailable"},
		"conflict":                       {body: envelope("user.created", user), store: &clerksync.ConflictError{Field: "email", Err: errDown}, status: 409, code: "conflict"},
		"Map fails":                      {body: envelope("user.created", user), syncer: func(c *clerksync.Config) { c.Map = func(*clerk.User, *clerksync.User) error { return errDown } }, status: 500, code: "mapping_failed"},
		"RoleOf panics":                  {body: envelope("user.created", user), syncer: func(c *clerksync.Config) { c.RoleOf = func(*clerk.User) clerksync.Role { panic(errDown) } }, status: 500, code: "mapping_failed"},
		"OnEvent fails": {body: envelope("user.created", user), config: func(c *clerksync.WebhookConfig) {
			c.OnEvent = func(context.Context, clerksync.Event) error { return errDown }
		}, status: 503, code: "event_hook_failed"},
		"OnEvent panics": {body: envelope("user.created", user), config: func(c *clerksync.WebhookConfig) {
			c.OnEvent = func(context.Context, clerksync.Event) error { panic(errDown) }
		}, status: 503, code: "event_hook_failed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
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
			if tt.config != nil {
				tt.config(&cfg)
			}
			h, err := s.WebhookHandler(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if tt.at.IsZero() {
				tt.at = t0
			}
			if tt.secret == "" {
				tt.secret = testSecret
			}
			r := signed(t, serve(t, h), tt.secret, tt.at, tt.body)
			if tt.change != nil {
				tt.change(r)
			}
			a := send(t, r)
			checkProblem(t, a, tt.status, tt.code)

			if tt.status == 204 {
				if len(events) != 1 || events[0].ID != "msg_1" || events[0].Result.Outcome != tt.outcome {
					t.Errorf("OnEvent got %+v, want one event with outcome %v", events, tt.outcome)
				}
			} else if len(events) != 0 {
				t.Errorf("OnEvent got %+v beside a %d", events, tt.status)
			}
			if tt.status == 405 && a.header.Get("Allow") != "POST" {
				t.Errorf("Allow is %q", a.header.Get("Allow"))
			}
			if wantLog := tt.status == 403 || tt.status == 409 || tt.status == 422 || tt.status >= 500; strings.Contains(logs.String(), "level=ERROR") != wantLog {
				t.Errorf("on a %d the log is %q", tt.status, logs.String())
			}
			if bytes.Contains(a.body, []byte("hunter2")) {
				t.Errorf("the answer shows an internal error: %s", a.body)
			}
			_, err = store.Store.User(t.Context(), "user_1")
			if written := !errors.Is(err, clerksync.ErrNotFound); written != (tt.outcome != 0 || tt.code == "event_hook_failed") {
				t.Errorf("record written: %v, on a %d", written, tt.status)
			}
		})
	}
}

func TestWebhookBodyCutOff(t *testing.T) {
	t.Parallel()
	h, err := newTestSyncer(t, nil).WebhookHandler(clerksync.WebhookConfig{Secrets: []string{testSecret}})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	r := signed(t, "/", testSecret, t0, envelope("user.created", userJSON("user_1", t0)))
	r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, 10), errReader{}))
	h.ServeHTTP(w, r)
	checkProblem(t, answer{w.Code, w.Header(), w.Body.Bytes()}, 400, "unreadable_body")
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
	if got.ID != "msg_1" || got.Type != "user.created" || got.InstanceID != "ins_1" || !got.Timestamp.Equal(t0) || string(got.Data) != data {
		t.Errorf("event is %+v", got)
	}
	if got.Result.Outcome != clerksync.Created || got.Result.User == nil || got.Result.User.ClerkID != "user_1" {
		t.Errorf("result is %+v", got.Result)
	}
}

// The rules of order, through Apply: what a queue's consumer calls.
func TestApplyConverges(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store := memstore.New()
	s := newTestSyncer(t, func(c *clerksync.Config) { c.Store = store })
	apply := func(typ, data string, at time.Time, want clerksync.Outcome) {
		t.Helper()
		res, err := s.Apply(ctx, clerksync.Event{ID: "msg", Type: typ, Timestamp: at, Data: json.RawMessage(data)})
		if err != nil || res.Outcome != want {
			t.Errorf("%s at %v: %v, %v; want %v", typ, at, res.Outcome, err, want)
		}
	}
	v := func(minutes int) time.Time { return t0.Add(time.Duration(minutes-60) * time.Minute) }
	apply("user.updated", userJSON("user_1", v(2)), v(2), clerksync.Created)
	apply("user.created", userJSON("user_1", v(1)), v(1), clerksync.Stale)
	apply("user.updated", userJSON("user_1", v(2)), v(2), clerksync.Unchanged)
	apply("session.created", `{"user":`+userJSON("user_1", v(3))+`}`, v(3), clerksync.Updated)
	apply("user.deleted", `{"id":"user_1"}`, v(4), clerksync.Deactivated)
	apply("user.deleted", `{"id":"user_1"}`, v(5), clerksync.Deactivated)
	apply("user.updated", userJSON("user_1", v(6)), v(6), clerksync.Deactivated)
	apply("user.deleted", `{"id":"user_2"}`, v(1), clerksync.Deactivated)
	apply("user.created", userJSON("user_2", v(0)), v(0), clerksync.Deactivated)

	u, err := store.User(ctx, "user_1")
	if err != nil || u.IsActive || !u.DeletedAt.Equal(v(4)) || !u.SyncedAt.Equal(v(3)) {
		t.Errorf("record is %+v, %v", u, err)
	}
}

func TestDeletionIsNotDatedInTheFuture(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]time.Time{"ahead": t0.Add(time.Hour), "missing": {}} {
		store := memstore.New()
		s := newTestSyncer(t, func(c *clerksync.Config) { c.Store = store })
		if _, err := s.Apply(t.Context(), clerksync.Event{Type: "user.deleted", Timestamp: at, Data: json.RawMessage(`{"id":"user_1"}`)}); err != nil {
			t.Fatal(err)
		}
		if u, err := store.User(t.Context(), "user_1"); err != nil || !u.DeletedAt.Equal(t0) {
			t.Errorf("%s: record is %+v, %v", name, u, err)
		}
	}
}

func FuzzWebhookHandler(f *testing.F) {
	for _, typ := range []string{"user.created", "user.updated", "session.created", "user.deleted", "x"} {
		for _, data := range []string{documentedUser, `{"user":` + documentedUser + `}`, `{"object":"user","deleted":true,"id":"user_1"}`, "null", "[]", `{"id":{"$gt":""}}`} {
			f.Add(envelope(typ, data), "msg_1", "v1,x", true)
		}
	}
	f.Add([]byte(`{"type":"user.created","timestamp":1e999}`), "", "v1,", false)
	h, err := newTestSyncer(f, func(c *clerksync.Config) { c.Logger = slog.New(slog.DiscardHandler) }).
		WebhookHandler(clerksync.WebhookConfig{Secrets: []string{testSecret}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte, id, signature string, genuine bool) {
		w := httptest.NewRecorder()
		r := signed(t, "/", testSecret, t0, body)
		if !genuine {
			r.Header.Set("svix-id", id)
			r.Header.Set("svix-signature", signature)
		}
		h.ServeHTTP(w, r)
		switch w.Code {
		case 204, 413, 422:
			if !genuine && id != "msg_1" {
				t.Fatalf("%d for a forged delivery", w.Code)
			}
		case 400:
			if genuine {
				t.Fatalf("400 for a genuine delivery: %s", w.Body)
			}
		default:
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
	})
}

// Svix takes whatever is 2xx for done.
func TestErrorHandlerCannotAcknowledge(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		handler func(w http.ResponseWriter, r *http.Request, err error)
		status  int
		body    string
	}{
		"body alone": {func(w http.ResponseWriter, _ *http.Request, _ error) { _, _ = io.WriteString(w, "page") }, 503, "page"},
		"nothing":    {func(http.ResponseWriter, *http.Request, error) {}, 503, ""},
		"200": {func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.WriteHeader(200)
			_, _ = io.WriteString(w, "page")
		}, 503, "page"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request, _ error) {
			http.Redirect(w, r, "/sorry", http.StatusSeeOther)
		}, 503, ""},
		"its own": {func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(500) }, 500, ""},
		"flushed": {func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.WriteString(w, "page")
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
			a := send(t, signed(t, serve(t, h), testSecret, t0, envelope("user.created", userJSON("user_1", t0))))
			if a.status != tt.status || tt.body != "" && string(a.body) != tt.body {
				t.Errorf("answers %d %q, want %d %q", a.status, a.body, tt.status, tt.body)
			}
		})
	}
}

// Whatever the Store made of an event, a delivery that is done is a 204, and OnEvent and
// Observe are told what it was.
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
		checkProblem(t, send(t, signed(t, url, testSecret, t0, envelope(tt.typ, tt.data))), 204, "")
		if got.Type != tt.typ || got.Result.Outcome != tt.want {
			t.Errorf("%s: OnEvent got %+v, want %v", tt.name, got, tt.want)
		}
		id := "user_1"
		if tt.want == 0 {
			id = ""
		}
		if o := fx.seen.last(); o.Op != clerksync.OpWebhook || o.EventID != "msg_1" || o.EventType != tt.typ || o.ClerkID != id || o.Outcome != tt.want || o.Source != "" || o.Err != nil {
			t.Errorf("%s: observed %+v, want %v", tt.name, o, tt.want)
		}
	}
	fx.store.fail(errDown)
	checkProblem(t, send(t, signed(t, url, testSecret, t0, envelope("user.created", user(6)))), 503, "unavailable")
	var p *clerksync.Problem
	if o := fx.seen.last(); o.Op != clerksync.OpWebhook || o.Outcome != 0 || !errors.As(o.Err, &p) || p.Code != "unavailable" {
		t.Errorf("observed %+v", o)
	}
}
