package clerksync_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// checkTrace checks that the last thing observed is a refusal with this code, and that the log has a
// line for it.
func checkTrace(t *testing.T, fx *fixture, op clerksync.Op, code string) clerksync.Observation {
	t.Helper()
	fx.seen.mu.Lock()
	n := len(fx.seen.all)
	fx.seen.mu.Unlock()
	if n == 0 {
		t.Fatalf("nothing was observed of a %s", code)
	}
	o := fx.seen.last()
	var p *clerksync.Problem
	if !errors.As(o.Err, &p) || p.Code != code || o.Op != op {
		t.Errorf("observed %+v, want the code %s of a %s", o, code, op)
	}
	if log := fx.logs.String(); !strings.Contains(log, " code="+code+" ") {
		t.Errorf("the log does not have %s: %q", code, log)
	}
	return o
}

// refusedDelivery is a delivery that is refused, and what the log says of it.
type refusedDelivery struct {
	secret  string              // of the signature; defaults to testSecret
	at      time.Time           // of the signature; defaults to t0
	body    []byte              // defaults to createdEvent
	between func(*http.Request) // what happened on the way
	code    string              // defaults to invalid_signature
	id      string              // the Observation's EventID; defaults to msg_1
	want    []string            // texts of the log line
	webhook func(*clerksync.WebhookConfig)
}

// consumed reads the body, as a middleware may do that then lets the request go on.
func consumed(r *http.Request) { _, _ = io.ReadAll(r.Body) }

func refusedDeliveries() map[string]refusedDelivery {
	without := func(names ...string) func(*http.Request) {
		return func(r *http.Request) {
			for _, name := range names {
				r.Header.Del(name)
			}
		}
	}
	return map[string]refusedDelivery{
		"wrong secret": {
			secret: otherSecret,
			want:   []string{"check=secret", "not made with this endpoint's secret", "body_bytes=184"},
		},
		"wrong secrets": {
			secret:  otherSecret,
			webhook: func(c *clerksync.WebhookConfig) { c.Secrets = []string{testSecret, testSecret} },
			want:    []string{"check=secret", "any of this endpoint's 2 secrets"},
		},
		"no headers": {
			between: without("svix-id", "svix-timestamp", "svix-signature"), id: "-",
			want: []string{"check=headers_missing", "missing: svix-id, svix-timestamp, svix-signature"},
		},
		"one header": {between: without("svix-signature"), want: []string{"check=headers_missing", "missing: svix-signature;"}},
		"one header of the specification's": {
			between: func(r *http.Request) { standardHeaders(r); r.Header.Del("webhook-timestamp") },
			want:    []string{"check=headers_missing", "missing: webhook-timestamp;"},
		},
		"two ids": {
			between: setHeader("svix-id", "msg_1", "msg_2"),
			want:    []string{"check=headers_malformed", "svix-id is there several times, with different values"},
		},
		"no number for the time": {
			between: setHeader("svix-timestamp", "noon"),
			want:    []string{"check=headers_malformed", "svix-timestamp is not a number of seconds"},
		},
		"no signature of this version": {
			between: setHeader("svix-signature", "v1a,AAAA"),
			want:    []string{"check=headers_malformed", "svix-signature has no entry of the form v1,<base64>"},
		},
		"too old": {
			at: t0.Add(-7*time.Minute - 3*time.Second), want: []string{"check=timestamp", "7m3s old", "Tolerance is 5m0s"},
		},
		"too new": {
			at: t0.Add(2 * time.Hour), want: []string{"check=timestamp", "2h0m0s ahead of this server's clock", "Tolerance is 10m0s"},
			webhook: func(c *clerksync.WebhookConfig) { c.Tolerance = 10 * time.Minute },
		},
		"body consumed": {
			between: consumed,
			want:    []string{"check=body_consumed", "a middleware has read it", "body_bytes=0", "content_length=184"},
		},
		"body consumed in part": {
			between: func(r *http.Request) { _, _ = io.ReadFull(r.Body, make([]byte, 10)) },
			want:    []string{"check=body_length", "174 bytes, and 184 were announced", "body_bytes=174", "content_length=184"},
		},
		"no body": {
			between: func(r *http.Request) { r.Body, r.ContentLength = http.NoBody, 0 },
			want:    []string{"check=body_length", "the body is empty", "body_bytes=0"},
		},
		"body unpacked": {
			between: func(r *http.Request) {
				r.Header.Set("Content-Encoding", "gzip")
				packed := gzipped(createdEvent)
				r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(packed)), int64(len(packed))
			},
			want: []string{"check=content_encoding", "compressed or decompressed", "content_encoding=gzip"},
		},
		"body closed": {
			between: func(r *http.Request) { r.Body = closedBody{} }, code: "unreadable_body",
			want: []string{"a middleware has read it"},
		},
		"body cut off": {
			between: func(r *http.Request) { r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, 10), errReader{})) },
			code:    "unreadable_body", want: []string{"ended after 10 bytes"},
		},
		"body too large": {
			webhook: func(c *clerksync.WebhookConfig) { c.MaxBodyBytes = 100 }, code: "body_too_large",
			want: []string{"WebhookConfig.MaxBodyBytes, 100 bytes"},
		},
		"another method": {
			between: func(r *http.Request) { r.Method = http.MethodGet }, code: "method_not_allowed",
			want: []string{"check=method", "the method is GET, and Svix sends POST"},
		},
		"another instance": {
			webhook: func(c *clerksync.WebhookConfig) { c.InstanceID = "ins_2" }, code: "wrong_instance",
			want: []string{"level=ERROR", "check=instance", "from ins_1", "InstanceID is ins_2", "Dashboard, …/instances/ins_…",
				"event_type=user.created", "clerk_id=user_1"},
		},
		"unusable": {
			body: envelope("user.deleted", `{"id":"x"}`), code: "invalid_event",
			want: []string{"level=ERROR", "event_type=user.deleted", "its id is not a user id"},
		},
		"not an event": {body: []byte("hunter3"), code: "invalid_event", want: []string{"level=ERROR", "not Clerk's envelope"}},
		"an id to confuse the log": {
			between: setHeader("svix-id", "x\nlevel=ERROR"), id: "-", want: []string{"check=secret"},
		},
		"a long id": {between: setHeader("svix-id", strings.Repeat("x", 101)), id: "-", want: []string{"check=secret"}},
	}
}

type closedBody struct{ io.ReadCloser }

func (closedBody) Read([]byte) (int, error) { return 0, http.ErrBodyReadAfterClose }

func (closedBody) Close() error { return nil }

// The log tells apart what the answer does not, and shows neither secrets nor the body.
func TestRefusedDeliveriesAreTraced(t *testing.T) {
	t.Parallel()
	for name, tt := range refusedDeliveries() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.run(t)
		})
	}
}

func (tt refusedDelivery) run(t *testing.T) {
	fx := newFixture(t, nil)
	cfg := clerksync.WebhookConfig{Secrets: []string{testSecret}}
	if tt.webhook != nil {
		tt.webhook(&cfg)
	}
	h, err := fx.WebhookHandler(cfg)
	if err != nil {
		t.Fatal(err)
	}
	delivery := webhookCase{body: tt.body, at: tt.at, secret: tt.secret, change: tt.between}
	r := delivery.request(t, "/")
	a := answerOf(h, r)
	if tt.code == "" {
		tt.code = "invalid_signature"
	}
	o := checkTrace(t, fx, clerksync.OpWebhook, tt.code)
	if n := len(fx.seen.all); n != 1 {
		t.Errorf("%d Observations of one delivery", n)
	}
	if want := strings.TrimPrefix(cmp.Or(tt.id, "msg_1"), "-"); o.EventID != want {
		t.Errorf("EventID is %q, want %q", o.EventID, want)
	}
	log := fx.logs.String()
	for _, want := range tt.want {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q: %s", want, log)
		}
	}
	if strings.Count(log, "\n") != 1 {
		t.Errorf("not one line: %s", log)
	}
	for _, hidden := range []string{testSecret[6:], otherSecret[6:], "v1772366400", "hunter3", strings.Repeat("x", 101)} {
		if strings.Contains(log, hidden) || strings.Contains(string(a.body), hidden) {
			t.Errorf("%q shows: %s, %s", hidden, log, a.body)
		}
	}
	if tt.code == "invalid_signature" && strings.Contains(string(a.body), "check") {
		t.Errorf("the answer tells the causes apart: %s", a.body)
	}
	tt.checkVerify(t, cfg, delivery.request(t, "/"))
}

// checkVerify checks that a Verifier refuses the delivery too, and says as much of it as the log.
func (tt refusedDelivery) checkVerify(t *testing.T, cfg clerksync.WebhookConfig, r *http.Request) {
	t.Helper()
	err := checkVerifier(t, cfg, r, tt.code, nil)
	for _, want := range tt.want {
		if err != nil && !strings.Contains(want, "=") && !strings.Contains(err.Error(), want) {
			t.Errorf("Verify does not say %q: %v", want, err)
		}
	}
}

// All answers to unsigned deliveries are the same, so that they tell a forger nothing.
func TestUnsignedDeliveriesGetOneAnswer(t *testing.T) {
	t.Parallel()
	var first string
	for name, tt := range refusedDeliveries() {
		if tt.code != "" {
			continue
		}
		h, err := newTestSyncer(t, func(c *clerksync.Config) { c.Logger = (&logBuffer{}).logger() }).
			WebhookHandler(clerksync.WebhookConfig{Secrets: []string{testSecret}})
		if err != nil {
			t.Fatal(err)
		}
		delivery := webhookCase{body: tt.body, at: tt.at, secret: tt.secret, change: tt.between}
		got := string(answerOf(h, delivery.request(t, "/")).body)
		if first == "" {
			first = got
		}
		if got != first {
			t.Errorf("%s: %s, want %s", name, got, first)
		}
	}
}

// The log lines of one kind are limited, the Observations are not.
func TestRefusalsDoNotFloodTheLog(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	h, err := fx.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{testSecret}})
	if err != nil {
		t.Fatal(err)
	}
	forge := func(n int) {
		for range n {
			answerOf(h, signed(t, "/", otherSecret, t0, createdEvent))
		}
	}
	forge(100)
	if n := strings.Count(fx.logs.String(), "\n"); n != 10 {
		t.Errorf("%d lines for 100 refusals, want 10", n)
	}
	if n := len(fx.seen.all); n != 100 {
		t.Errorf("%d Observations of 100 refusals", n)
	}
	answerOf(h, httptest.NewRequest(http.MethodPost, "/", http.NoBody))
	if log := fx.logs.String(); !strings.Contains(log, "check=headers_missing") {
		t.Errorf("another check does not show: %s", log)
	}
	fx.clock.Advance(time.Minute)
	forge(2)
	if log := fx.logs.String(); strings.Count(log, "\n") != 12 || !strings.Contains(log, "suppressed=90") {
		t.Errorf("a minute later: %s", log)
	}
}

// A visit that is refused says why, also without HTTP.
func TestRefusedVisitsAreTraced(t *testing.T) {
	t.Parallel()
	edit := func(change func(*clerksync.User)) func(*testing.T, *fixture, string) {
		return func(t *testing.T, fx *fixture, id string) {
			fx.createRecord(t, id)
			_ = fx.store.Edit(id, change)
		}
	}
	for name, tt := range map[string]struct {
		arrange func(*testing.T, *fixture, string)
		id      string
		code    string
		want    []string
	}{
		"deleted":   {arrange: edit(func(u *clerksync.User) { u.DeletedAt = t0 }), code: "user_inactive", want: []string{"deleted"}},
		"suspended": {arrange: edit(func(u *clerksync.User) { u.IsActive = false }), code: "user_inactive", want: []string{"isActive: false"}},
		"banned": {arrange: func(_ *testing.T, fx *fixture, id string) { _ = fx.clerk.BanUser(id) },
			code: "user_inactive", want: []string{"banned in Clerk"}},
		"unknown": {arrange: func(_ *testing.T, fx *fixture, id string) { _ = fx.clerk.DeleteUser(id) },
			code: "user_unknown", want: []string{"no such user"}},
		"not an id": {id: "machine_1", code: "user_unknown", want: []string{"check=user_id", "not the form of a user id"}},
		"conflict": {arrange: func(_ *testing.T, fx *fixture, _ string) { fx.takeEmail() },
			code: "conflict", want: []string{"email"}},
		"store down": {arrange: func(_ *testing.T, fx *fixture, _ string) { fx.store.fail(errDown) },
			code: "unavailable", want: []string{"level=ERROR", "store"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: "ada@example.com"})
			if tt.arrange != nil {
				tt.arrange(t, fx, id)
			}
			if tt.id != "" {
				id = tt.id
			}
			if _, err := fx.User(t.Context(), id); err == nil {
				t.Fatal("the visit was not refused")
			}
			checkTrace(t, fx, clerksync.OpVisit, tt.code)
			log := fx.logs.String()
			for _, want := range append(tt.want, "a request was refused") {
				if !strings.Contains(log, want) {
					t.Errorf("the log does not say %q: %s", want, log)
				}
			}
			if strings.Contains(log, "ada@example.com") || strings.Contains(log, "machine_1") {
				t.Errorf("the log shows what it may not: %s", log)
			}
			if hasID := strings.Contains(log, "clerk_id="+id); hasID != (tt.id == "") {
				t.Errorf("the user's id is in the log: %t: %s", hasID, log)
			}
		})
	}
}

// A client that left is not worth a line.
func TestVisitorWhoLeftIsNotLogged(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := fx.User(ctx, "user_1"); !errors.Is(err, clerksync.ErrUnavailable) {
		t.Errorf("visit: %v", err)
	}
	if log := fx.logs.String(); log != "" {
		t.Errorf("log: %s", log)
	}
	if o := fx.seen.last(); o.Op != clerksync.OpVisit || o.Err == nil {
		t.Errorf("observed %+v", o)
	}
}

// If a lookup fails after its last visitor has left, the log says so. If a visitor hears of it, the
// refusal is the only line.
func TestLookupThatFailsUnheardIsLogged(t *testing.T) {
	t.Parallel()
	const unheard = "a user's lookup failed after the last request had left"
	for name, tt := range map[string]struct {
		leave, stay int
		err         error
		level, code string
	}{
		"one left":             {leave: 1, err: errDown, level: "ERROR", code: "unavailable"},
		"all left":             {leave: 5, err: errDown, level: "ERROR", code: "unavailable"},
		"all but one":          {leave: 4, stay: 1, err: errDown},
		"nobody left":          {stay: 3, err: errDown},
		"left, and no failure": {leave: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			id := fx.clerk.CreateUser(fakeclerk.NewUser{})
			fx.createRecord(t, id)
			fx.store.fail(tt.err)
			began, ended := make(chan struct{}), make(chan struct{})
			var once sync.Once
			store := &busyStore{countingStore: fx.store, afterUser: func() {
				once.Do(func() { close(began) })
				<-ended
			}}
			s := fx.syncer(t, func(c *clerksync.Config) { c.Store = store })
			ctx, leave := context.WithCancel(t.Context())
			var left, stayed sync.WaitGroup
			for range tt.leave {
				left.Go(func() { _, _ = s.User(ctx, id) })
			}
			for range tt.stay {
				stayed.Go(func() { _, _ = s.User(t.Context(), id) })
			}
			<-began
			waitUntil(t, "all visitors wait", func() bool { return clerksync.Waiting(s, id) == tt.leave+tt.stay })
			leave()
			left.Wait()
			close(ended)
			stayed.Wait()
			if tt.level != "" {
				waitUntil(t, "the failure is logged", func() bool { return fx.logs.String() != "" })
			}
			clerksync.WaitBackground(s)
			log := fx.logs.String()
			want := tt.stay // each has its line
			if tt.level != "" {
				want = 1
			}
			if strings.Contains(log, unheard) != (tt.level != "") || strings.Count(log, "\n") != want {
				t.Errorf("log: %s", log)
			}
			for _, want := range []string{"level=" + tt.level, " code=" + tt.code, " clerk_id=" + id} {
				if tt.level != "" && !strings.Contains(log, want) {
					t.Errorf("the log does not say %q: %s", want, log)
				}
			}
		})
	}
}

// Apply leaves a trace too, for apps that queue events.
func TestRefusedEventsAreTraced(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	e := clerksync.Event{
		ID: strings.Repeat("m", 1000), Type: "user.deleted", UserID: "user_1", Data: json.RawMessage(`{"id":1}`),
	}
	if _, err := fx.Apply(t.Context(), e); !errors.Is(err, clerksync.ErrInvalidEvent) {
		t.Fatalf("Apply: %v", err)
	}
	o := checkTrace(t, fx, clerksync.OpWebhook, "invalid_event")
	if len(o.EventID) != 100 || o.EventType != "user.deleted" || o.ClerkID != "user_1" {
		t.Errorf("observed %+v", o)
	}
	if log := fx.logs.String(); !strings.Contains(log, "level=ERROR") || strings.Contains(log, e.ID) {
		t.Errorf("log: %s", log)
	}
}

// OnEvent's failure is the delivery's: one Observation has the Outcome and the code.
func TestFailedHookIsObservedOnce(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	h, err := fx.WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{testSecret}, OnEvent: func(context.Context, clerksync.Event) error { return errDown },
	})
	if err != nil {
		t.Fatal(err)
	}
	checkProblem(t, answerOf(h, signed(t, "/", testSecret, t0, createdEvent)), 503, "event_hook_failed")
	o := checkTrace(t, fx, clerksync.OpWebhook, "event_hook_failed")
	if len(fx.seen.all) != 1 || o.Outcome != clerksync.Created || o.ClerkID != "user_1" || o.EventID != "msg_1" {
		t.Errorf("observed %+v", fx.seen.all)
	}
}

// A context of the app's own that has ended is not a client that has left.
func TestHookWhoseContextEndedIsTraced(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	h, err := fx.WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{testSecret},
		OnEvent: func(context.Context, clerksync.Event) error { return fmt.Errorf("queue: %w", context.Canceled) },
	})
	if err != nil {
		t.Fatal(err)
	}
	checkProblem(t, answerOf(h, signed(t, "/", testSecret, t0, createdEvent)), 503, "event_hook_failed")
	checkTrace(t, fx, clerksync.OpWebhook, "event_hook_failed")
}

func TestEventUserID(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ typ, data, want string }{
		{"user.created", `{"id":"user_1"}`, "user_1"},
		{"user.updated", documentedUser, "user_29w83sxmDNGwOuEthce5gg56FcC"},
		{"user.deleted", `{"object":"user","id":"user_1","deleted":true}`, "user_1"},
		{"user.deleted", `{"object":"user","deleted":true}`, ""},
		{"user.of_the_future", `{"id":"user_1"}`, "user_1"},
		{"session.created", `{"id":"sess_1","user_id":"user_1","user":{"id":"user_1"}}`, "user_1"},
		{"session.created", `{"id":"sess_1","user_id":"user_1","user":null}`, "user_1"},
		{"session.created", `{"id":"sess_1","user_id":"user_1"}`, "user_1"},
		{"session.created", `{"id":"sess_1","user_id":null,"user":{"id":"user_1"}}`, "user_1"},
		{"session.created", `{"id":"sess_1","user":{"id":"user_1"}}`, "user_1"},
		{"session.created", `{"id":"sess_1","user_id":null,"user":null}`, ""},
		{"session.created", `{"id":"sess_1"}`, ""},
		{"session.ended", `{"id":"sess_1","user_id":"user_1","user":null}`, "user_1"},
		{"session.pending", `{"id":"sess_1","user_id":"user_1"}`, "user_1"},
		{"session.removed", `{"id":"sess_1","user_id":"user_1","user":[]}`, "user_1"},
		{"session.revoked", `{"id":"sess_1","user":{"id":"user_1"}}`, "user_1"},
		{"session.revoked", `{"id":"user_1"}`, ""},
		{"user.created", `null`, ""},
		{"user.created", `[]`, ""},
		{"user.created", `{"id":null}`, ""},
		{"user.created", `{"id":{"$ne":""}}`, ""},
		{"user.created", `{"id":"machine_1"}`, ""},
		{"user.created", `{"id":"user_1/x"}`, ""},
		{"organization.created", `{"id":"org_1","user_id":"user_1","user":{"id":"user_1"}}`, ""},
		{"email.created", `{"id":"ema_1","user_id":"user_1"}`, ""},
		{"users.created", `{"id":"user_1"}`, ""},
	} {
		if got := clerksync.UserIDOf(tt.typ, json.RawMessage(tt.data)); got != tt.want {
			t.Errorf("%s %s: %q, want %q", tt.typ, tt.data, got, tt.want)
		}
	}
	if got := clerksync.UserIDOf("user.created", nil); got != "" {
		t.Errorf("without data: %q", got)
	}
}

// refusedRequest is a request that comes to no visit, and what the log says of it.
type refusedRequest struct {
	opts    fakeclerk.TokenOptions
	request func(token string) *http.Request // defaults to a bearer token
	change  func(*clerksync.Config)
	code    string
	want    []string // texts of the log line
}

func refusedRequests() map[string]refusedRequest {
	type opts = fakeclerk.TokenOptions
	type claims = map[string]any
	noCredential := func(string) *http.Request { return httptest.NewRequest(http.MethodGet, "/", nil) }
	cookie := func(token string) *http.Request {
		r := noCredential("")
		r.AddCookie(&http.Cookie{Name: "__session", Value: token})
		return r
	}
	two := func(token string) *http.Request {
		r := bearing("Bearer " + token)
		r.Header.Add("Authorization", "Bearer hunter2")
		return r
	}
	header := func(form string) func(string) *http.Request {
		return func(token string) *http.Request { return bearing(strings.ReplaceAll(form, "TOKEN", token)) }
	}
	crossSite := func(token string) *http.Request {
		r := cookie(token)
		r.Method = http.MethodPost
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		return r
	}
	noCookies := func(c *clerksync.Config) { c.Auth.Cookie = false }
	return map[string]refusedRequest{
		"no token":  {request: noCredential, code: "token_missing", want: []string{"neither a bearer token nor a session cookie"}},
		"no header": {request: noCredential, change: noCookies, code: "token_missing", want: []string{"no bearer token"}},
		"cookie off": {request: cookie, change: noCookies, code: "token_missing",
			want: []string{"there is a session cookie, but Auth.Cookie is not set"}},
		"token without a scheme": {request: header("TOKEN"), code: "token_missing",
			want: []string{"check=scheme", "something like a token", `Bearer <token>`}},
		"token without a scheme, no cookies": {request: header("TOKEN"), change: noCookies, code: "token_missing",
			want: []string{"check=scheme", "something like a token"}},
		"token in quotes":           {request: header(`"Bearer TOKEN"`), code: "token_missing", want: []string{"check=scheme"}},
		"token after a colon":       {request: header("Bearer: TOKEN"), code: "token_missing", want: []string{"check=scheme"}},
		"token without a space":     {request: header("BearerTOKEN"), code: "token_missing", want: []string{"check=scheme"}},
		"token of another scheme":   {request: header("Token TOKEN"), code: "token_missing", want: []string{"check=scheme"}},
		"token as a parameter":      {request: header(`Token token="TOKEN"`), code: "token_missing", want: []string{"check=scheme"}},
		"token without a signature": {request: header("eyJhbGciOiJub25lIn0.hunter2."), code: "token_missing", want: []string{"error=", "neither"}},
		"two tokens":                {request: two, code: "token_malformed", want: []string{"several bearer tokens"}},
		"not a JWT":                 {request: func(string) *http.Request { return bearing("Bearer hunter2") }, code: "token_malformed", want: []string{"compact form"}},
		"expired": {opts: opts{IssuedAt: t0.Add(-2 * time.Minute)}, code: "token_expired",
			want: []string{"got=2026-03-01T11:59:00Z", "want=", "2026-03-01T12:00:00Z, give or take 5s"}},
		"not yet valid": {opts: opts{IssuedAt: t0.Add(time.Minute)}, code: "token_not_yet_valid",
			want: []string{"got=2026-03-01T12:00:50Z"}},
		"template token": {opts: opts{Class: fakeclerk.TemplateToken}, code: "token_wrong_class", want: []string{"JWT template"}},
		"unknown category": {opts: opts{Header: claims{"cat": "cl_N3wC4tegory"}}, code: "token_wrong_class",
			want: []string{"check=category", "got=cl_N3wC4tegory", "want=cl_B7d4PD111AAA"}},
		"unprintable category": {opts: opts{Header: claims{"cat": "cl_\n\x1b[31m\u202e"}}, code: "token_wrong_class",
			want: []string{"check=category", "got=cl_??[31m?"}},
		"huge category": {opts: opts{Header: claims{"cat": strings.Repeat("c", 8000)}}, code: "token_wrong_class",
			want: []string{"got=" + strings.Repeat("c", 200) + " "}},
		"category no text": {opts: opts{Header: claims{"cat": 7}}, code: "token_wrong_class", want: []string{`got="not a string"`}},
		"wrong party": {opts: opts{AuthorizedParty: otherOrigin}, code: "token_wrong_party",
			want: []string{"made for another origin", "want=" + appOrigin}},
		"no party": {opts: opts{Claims: claims{"azp": nil}}, code: "token_wrong_party",
			want: []string{"check=no_party", "does not say for which origin", "want=" + appOrigin}},
		"wrong issuer": {opts: opts{Issuer: "https://evil.com"}, code: "token_wrong_issuer",
			want: []string{"want=", "https://clerk.<domain> or https://<name>.clerk.accounts.dev"}},
		"wrong issuer, one is set": {change: func(c *clerksync.Config) { c.Auth.Issuer = proxyURL },
			code: "token_wrong_issuer", want: []string{"want=" + proxyURL}},
		"wrong key":   {opts: opts{WrongKey: true}, code: "token_bad_signature", want: []string{"wrong signature"}},
		"no alg":      {opts: opts{Algorithm: "none"}, code: "token_bad_signature", want: []string{"not signed with RS256"}},
		"unknown key": {opts: opts{KeyID: "ins_hunter2"}, code: "token_unknown_key", want: []string{"want=" + sharedInstance}},
		"pending":     {opts: opts{Pending: true}, code: "session_pending", want: []string{"open tasks"}},
		"cross-origin": {request: crossSite, code: "cross_origin",
			want: []string{"status=403", "cross-origin request", "own origin, or " + appOrigin}},
		"keys not to be had": {change: func(c *clerksync.Config) { c.SecretKey = "sk_test_wrong" },
			code: "unavailable", want: []string{"level=ERROR", "get keys"}},
		"useless custom claims": {change: func(c *clerksync.Config) { c.Auth.CustomClaims = func(context.Context) any { return nil } },
			code: "internal", want: []string{"level=ERROR", "CustomClaims"}},
	}
}

// Every refused request leaves an Observation and a line that says what was expected, without the
// token.
func TestRefusedRequestsAreTraced(t *testing.T) {
	t.Parallel()
	for name, tt := range refusedRequests() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.check(t, func(fx *fixture) http.Handler { return fx.RequireUser(&me{}) })
		})
	}
}

// Authenticate leaves the same trace, for apps with middleware of their own.
func TestRefusalsOfAuthenticateAreTraced(t *testing.T) {
	t.Parallel()
	for name, tt := range refusedRequests() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.check(t, func(fx *fixture) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if _, err := fx.Authenticate(r); err != nil {
						clerksync.WriteProblem(w, r, err)
					}
				})
			})
		})
	}
}

// check sends the request to the handler that ask returns.
func (tt refusedRequest) check(t *testing.T, ask func(*fixture) http.Handler) {
	t.Helper()
	fx := newFixture(t, func(c *clerksync.Config) {
		c.Auth = clerksync.AuthConfig{Cookie: true, AuthorizedParties: []string{appOrigin}}
		if tt.change != nil {
			tt.change(c)
		}
	})
	if tt.opts.AuthorizedParty == "" {
		tt.opts.AuthorizedParty = appOrigin
	}
	token := fx.token(t, "user_1", tt.opts)
	r := bearing("Bearer " + token)
	if tt.request != nil {
		r = tt.request(token)
	}
	a := answerOf(ask(fx), r)
	checkProblem(t, a, a.status, tt.code)
	o := checkTrace(t, fx, clerksync.OpVisit, tt.code)
	if o.ClerkID != "" || o.Source != "" || o.Outcome != 0 || len(fx.seen.all) != 1 {
		t.Errorf("observed %+v", fx.seen.all)
	}
	log := fx.logs.String()
	for _, want := range append(tt.want, "a request was refused") {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q: %s", want, log)
		}
	}
	if a.status < 500 && !strings.Contains(log, "level=WARN") || strings.Count(log, "\n") != 1 {
		t.Errorf("log: %s", log)
	}
	for _, part := range append(strings.Split(token, "."), "hunter2", otherOrigin, "evil.com", "user_1") {
		if len(part) > 4 && strings.Contains(log, part) {
			t.Errorf("the log shows %q: %s", part, log)
		}
	}
}

// WithUser refuses a wrong header with the same trace. A cookie that it takes for none is worth a
// warning, unless its session has ended: otherwise a wrong key would sign everybody out in silence.
func TestWithUserLeavesATrace(t *testing.T) {
	t.Parallel()
	type opts = fakeclerk.TokenOptions
	for name, tt := range map[string]struct {
		opts   opts
		cookie bool
		header string // in place of a bearer token
		code   string // in the log
	}{
		"a wrong header":       {opts: opts{AuthorizedParty: otherOrigin}, code: "token_wrong_party"},
		"no scheme":            {header: "TOKEN", code: "token_missing"},
		"another scheme":       {header: "Token TOKEN", code: "token_missing"},
		"no token":             {header: "Basic dXNlcjpwYXNz"},
		"another app's cookie": {opts: opts{KeyID: "ins_other"}, cookie: true, code: "token_unknown_key"},
		"a forged cookie":      {opts: opts{WrongKey: true}, cookie: true, code: "token_bad_signature"},
		"a cookie without azp": {opts: opts{Claims: map[string]any{"azp": nil}}, cookie: true, code: "token_wrong_party"},
		"an expired cookie":    {opts: opts{IssuedAt: t0.Add(-time.Hour)}, cookie: true},
		"a pending cookie":     {opts: opts{Pending: true}, cookie: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, func(c *clerksync.Config) {
				c.Auth = clerksync.AuthConfig{Cookie: true, AuthorizedParties: []string{appOrigin}}
			})
			if tt.opts.AuthorizedParty == "" {
				tt.opts.AuthorizedParty = appOrigin
			}
			token := fx.token(t, "user_1", tt.opts)
			r := bearing(strings.ReplaceAll(cmp.Or(tt.header, "Bearer TOKEN"), "TOKEN", token))
			if tt.cookie {
				r.Header.Del("Authorization")
				r.AddCookie(&http.Cookie{Name: "__session", Value: token})
			}
			for range 100 {
				answerOf(fx.WithUser(&me{}), r)
			}
			log := fx.logs.String()
			if tt.code == "" {
				if log != "" || len(fx.seen.all) != 0 {
					t.Errorf("a signed-out visitor left a trace: %s, %+v", log, fx.seen.all)
				}
				return
			}
			if n := strings.Count(log, " code="+tt.code+" "); n != 10 || strings.Count(log, "level=WARN") != 10 {
				t.Errorf("%d warnings of 100: %s", n, log)
			}
			signedOut := tt.cookie || tt.header != ""
			if signedOut != strings.Contains(log, "counts as signed out") || signedOut != (len(fx.seen.all) == 0) {
				t.Errorf("log %s, observed %+v", log, fx.seen.all)
			}
		})
	}
}

// Middleware without Clerk's own middleware before it says what is missing.
func TestMiddlewareWithoutClaimsIsTraced(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	checkProblem(t, answerOf(fx.Middleware(&me{}), bearing("Bearer "+fx.clerk.SessionToken("user_1"))), 401, "unauthenticated")
	checkTrace(t, fx, clerksync.OpVisit, "unauthenticated")
	if log := fx.logs.String(); !strings.Contains(log, "no session claims in the context") {
		t.Errorf("log: %s", log)
	}
}
