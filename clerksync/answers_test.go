package clerksync_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// answering is an app with all three handlers: /visit is behind the SDK's middleware and ours,
// /session behind RequireUser, /webhook takes events. Its one user is Ada.
type answering struct {
	*fixture
	url, ada string
	useless  atomic.Bool // CustomClaims gives nothing to decode into

	mu   sync.Mutex
	errs []error // what ErrorHandler got
}

func newAnswering(t *testing.T) *answering {
	t.Helper()
	a := &answering{}
	a.fixture = newFixture(t, func(c *clerksync.Config) {
		c.Auth = clerksync.AuthConfig{Cookie: true, AuthorizedParties: []string{appOrigin}}
		c.Auth.CustomClaims = func(context.Context) any {
			if a.useless.Load() {
				return nil
			}
			return &struct{}{}
		}
		c.Map = func(cu *clerk.User, _ *clerksync.User) error {
			if cu.FirstName != nil && *cu.FirstName == "Unmappable" {
				return errDown
			}
			return nil
		}
		c.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
			a.mu.Lock()
			a.errs = append(a.errs, err)
			a.mu.Unlock()
			clerksync.WriteProblem(w, r, err)
		}
	})
	a.ada = a.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: "ada@example.com"})
	webhook, err := a.WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{testSecret}, InstanceID: "ins_1", MaxBodyBytes: 4096,
		OnEvent: func(_ context.Context, e clerksync.Event) error {
			if e.Type == "app.fails" {
				return errDown
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") })
	mux := http.NewServeMux()
	mux.Handle("/visit", a.sdkAuth(a.Middleware(next)))
	mux.Handle("/session", a.RequireUser(next))
	mux.Handle("/webhook", webhook)
	a.url = serve(t, mux)
	return a
}

// get sends a request with the token, if there is one.
func (a *answering) get(t *testing.T, path, token string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return send(t, r)
}

// deliver sends an event, signed.
func (a *answering) deliver(t *testing.T, secret string, body []byte) answer {
	t.Helper()
	return send(t, signed(t, a.url+"/webhook", secret, a.clock.Now(), body))
}

// visiting is a request of Ada's through Middleware, after what arrange does.
func visiting(arrange func(t *testing.T, a *answering)) func(*testing.T, *answering) answer {
	return func(t *testing.T, a *answering) answer {
		arrange(t, a)
		return a.get(t, "/visit", a.clerk.SessionToken(a.ada))
	}
}

// session is a request of Ada's through RequireUser.
func session(opts fakeclerk.TokenOptions) func(*testing.T, *answering) answer {
	return func(t *testing.T, a *answering) answer {
		if opts.AuthorizedParty == "" {
			opts.AuthorizedParty = appOrigin
		}
		return a.get(t, "/session", a.token(t, a.ada, opts))
	}
}

// event is a delivery of Ada's user.created, after what arrange does.
func event(arrange func(t *testing.T, a *answering)) func(*testing.T, *answering) answer {
	return func(t *testing.T, a *answering) answer {
		arrange(t, a)
		raw, _ := a.clerk.User(a.ada)
		return a.deliver(t, testSecret, envelope("user.created", string(raw)))
	}
}

// delivery is one of this body.
func delivery(body string) func(*testing.T, *answering) answer {
	return func(t *testing.T, a *answering) answer { return a.deliver(t, testSecret, []byte(body)) }
}

// TestEveryAnswer gets each answer that the handlers document from a real server, and fails
// where problem.go has a code that none of them gave.
func TestEveryAnswer(t *testing.T) {
	t.Parallel()
	type opts = fakeclerk.TokenOptions
	storeDown := func(_ *testing.T, a *answering) { a.store.fail(errDown) }
	clerkDown := func(_ *testing.T, a *answering) {
		a.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
			if strings.Contains(r.URL.Path, "/users/") {
				return fakeclerk.ErrorFault(500, "internal_clerk_error")
			}
			return nil
		})
	}
	taken := func(_ *testing.T, a *answering) { a.takeEmail() }
	unmappable := func(t *testing.T, a *answering) { a.rename(t, a.ada, "Unmappable") }
	tests := []struct {
		by     string
		status int
		code   string
		is     error // the one that ErrorHandler can tell it by
		ask    func(*testing.T, *answering) answer
	}{
		{"Middleware", 401, "unauthenticated", clerksync.ErrUnauthenticated, func(t *testing.T, a *answering) answer { return a.get(t, "/visit", "") }},
		{"Middleware", 403, "user_inactive", clerksync.ErrUserInactive, visiting(func(_ *testing.T, a *answering) { _ = a.clerk.BanUser(a.ada) })},
		{"Middleware", 403, "user_unknown", clerksync.ErrUserUnknown, visiting(func(_ *testing.T, a *answering) { _ = a.clerk.DeleteUser(a.ada) })},
		{"Middleware", 409, "conflict", nil, visiting(taken)},
		{"Middleware, Store", 503, "unavailable", clerksync.ErrUnavailable, visiting(storeDown)},
		{"Middleware, Clerk", 503, "unavailable", clerksync.ErrUnavailable, visiting(clerkDown)},
		{"Middleware", 503, "mapping_failed", nil, visiting(unmappable)},

		{"RequireUser", 401, "token_missing", clerksync.ErrUnauthenticated, func(t *testing.T, a *answering) answer { return a.get(t, "/session", "") }},
		{"RequireUser", 401, "token_malformed", clerksync.ErrUnauthenticated, func(t *testing.T, a *answering) answer { return a.get(t, "/session", "nonsense") }},
		{"RequireUser", 401, "token_expired", clerksync.ErrUnauthenticated, session(opts{IssuedAt: t0.Add(-time.Hour)})},
		{"RequireUser", 401, "token_not_yet_valid", clerksync.ErrUnauthenticated, session(opts{IssuedAt: t0.Add(time.Hour)})},
		{"RequireUser", 401, "token_wrong_class", clerksync.ErrUnauthenticated, session(opts{Class: fakeclerk.TemplateToken})},
		{"RequireUser", 401, "token_wrong_party", clerksync.ErrUnauthenticated, session(opts{AuthorizedParty: otherOrigin})},
		{"RequireUser", 401, "token_wrong_issuer", clerksync.ErrUnauthenticated, session(opts{Issuer: "https://evil.com"})},
		{"RequireUser", 401, "token_bad_signature", clerksync.ErrUnauthenticated, session(opts{WrongKey: true})},
		{"RequireUser", 401, "token_unknown_key", clerksync.ErrUnauthenticated, session(opts{KeyID: "ins_unknown"})},
		{"RequireUser", 401, "session_pending", clerksync.ErrUnauthenticated, session(opts{Pending: true})},
		{"RequireUser", 403, "cross_origin", clerksync.ErrUnauthenticated, func(t *testing.T, a *answering) answer {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.url+"/session", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Origin", otherOrigin)
			r.AddCookie(&http.Cookie{Name: "__session", Value: a.token(t, a.ada, opts{AuthorizedParty: appOrigin})})
			return send(t, r)
		}},
		{"RequireUser, keys", 503, "unavailable", clerksync.ErrUnavailable, func(t *testing.T, a *answering) answer {
			a.clerk.SetFault(down)
			return session(opts{})(t, a)
		}},
		{"RequireUser", 403, "user_inactive", clerksync.ErrUserInactive, func(t *testing.T, a *answering) answer {
			_, _ = a.store.Deactivate(t.Context(), a.ada, t0)
			return session(opts{})(t, a)
		}},
		{"RequireUser", 500, "internal", nil, func(t *testing.T, a *answering) answer {
			a.useless.Store(true)
			return session(opts{})(t, a)
		}},

		{"WebhookHandler", 400, "invalid_signature", clerksync.ErrInvalidSignature, func(t *testing.T, a *answering) answer { return a.deliver(t, otherSecret, envelope("x.y", "{}")) }},
		{"WebhookHandler", 400, "unreadable_body", nil, func(t *testing.T, a *answering) answer { return sendHalf(t, a.url) }},
		{"WebhookHandler", 403, "wrong_instance", clerksync.ErrWrongInstance, delivery(`{"type":"x.y","instance_id":"ins_2","data":{}}`)},
		{"WebhookHandler", 405, "method_not_allowed", nil, func(t *testing.T, a *answering) answer { return a.get(t, "/webhook", "") }},
		{"WebhookHandler", 409, "conflict", nil, event(taken)},
		{"WebhookHandler", 413, "body_too_large", nil, delivery(strings.Repeat("x", 4097))},
		{"WebhookHandler", 422, "invalid_event", clerksync.ErrInvalidEvent, delivery(`{"type":"user.created","instance_id":"ins_1","data":{}}`)},
		{"WebhookHandler", 500, "mapping_failed", nil, event(unmappable)},
		{"WebhookHandler", 503, "unavailable", clerksync.ErrUnavailable, event(storeDown)},
		{"WebhookHandler", 503, "event_hook_failed", nil, delivery(`{"type":"app.fails","instance_id":"ins_1","data":{}}`)},
	}
	sentinels := []error{
		clerksync.ErrNotFound, clerksync.ErrUnauthenticated, clerksync.ErrUserInactive, clerksync.ErrUserUnknown, clerksync.ErrUnavailable,
		clerksync.ErrInvalidSignature, clerksync.ErrInvalidEvent, clerksync.ErrWrongInstance, clerksync.ErrIncomplete, clerksync.ErrTooManyGhosts,
	}
	var given []string
	for _, tt := range tests {
		given = append(given, tt.code)
		t.Run(fmt.Sprintf("%s: %d %s", tt.by, tt.status, tt.code), func(t *testing.T) {
			t.Parallel()
			app := newAnswering(t)
			a := tt.ask(t, app)
			checkProblem(t, a, tt.status, tt.code)
			var body struct{ Title, Detail string }
			if err := json.Unmarshal(a.body, &body); err != nil || body.Detail == body.Title {
				t.Errorf("the code has no detail of its own: %s, %v", a.body, err)
			}
			if strings.Contains(string(a.body), "hunter2") {
				t.Errorf("the answer shows an internal error: %s", a.body)
			}

			app.mu.Lock()
			defer app.mu.Unlock()
			if len(app.errs) != 1 {
				t.Fatalf("ErrorHandler got %v", app.errs)
			}
			var p *clerksync.Problem
			if err := app.errs[0]; !errors.As(err, &p) || p.Status != tt.status || p.Code != tt.code {
				t.Errorf("ErrorHandler got %v", err)
			}
			for _, sentinel := range sentinels {
				if got := errors.Is(p, sentinel); got != (sentinel == tt.is) {
					t.Errorf("%v matches %v: %t", p, sentinel, got)
				}
			}
			var conflict *clerksync.ConflictError
			if got := errors.As(p, &conflict); got != (tt.code == "conflict") || got && conflict.Field != "email" {
				t.Errorf("%v is a conflict: %t, %v", p, got, conflict)
			}
		})
	}
	slices.Sort(given)
	if declared := clerksync.ProblemCodes(); !slices.Equal(slices.Compact(given), declared) {
		t.Errorf("given are\n%q, problem.go has\n%q", slices.Compact(given), declared)
	}
}

// sendHalf sends a delivery that ends before its body does.
func sendHalf(t *testing.T, url string) answer {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /webhook HTTP/1.1\r\nHost: app\r\nContent-Length: 10\r\n\r\nhalf")
	_ = conn.(*net.TCPConn).CloseWrite()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, body}
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

// A re-read from Clerk, by Sync or behind a visit, finds the record in any state, and tells
// what the Store made of it.
func TestEveryOutcomeOfAReRead(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		arrange func(t *testing.T, fx *fixture, id string) // where there is a record of two hours ago
		want    clerksync.Outcome
	}{
		"equal":   {func(*testing.T, *fixture, string) {}, clerksync.Unchanged},
		"older":   {func(t *testing.T, fx *fixture, id string) { fx.rename(t, id, "Ada") }, clerksync.Updated},
		"newer":   {func(_ *testing.T, fx *fixture, id string) { newerRecord(fx, id) }, clerksync.Stale},
		"deleted": {func(t *testing.T, fx *fixture, id string) { _, _ = fx.store.Deactivate(t.Context(), id, t0) }, clerksync.Deactivated},
	} {
		for _, op := range []clerksync.Op{clerksync.OpSync, clerksync.OpRefresh} {
			t.Run(fmt.Sprint(op, ", ", name), func(t *testing.T) {
				t.Parallel()
				fx := newFixture(t, func(c *clerksync.Config) { c.CacheTTL = 3 * time.Hour })
				id := fx.clerk.CreateUser(fakeclerk.NewUser{})
				if res, err := fx.Sync(t.Context(), id); err != nil || res.Outcome != clerksync.Created {
					t.Fatalf("Sync without a record: %+v, %v", res, err)
				}
				visit(t, fx.Syncer, id)
				fx.clock.Advance(2 * time.Hour)
				tt.arrange(t, fx, id)
				fx.seen.all = nil
				if op == clerksync.OpSync {
					if res, err := fx.Sync(t.Context(), id); err != nil || res.Outcome != tt.want {
						t.Errorf("Sync: %+v, %v; want %v", res, err, tt.want)
					}
				} else {
					visit(t, fx.Syncer, id)
					fx.waitForRefreshes()
				}
				i := slices.IndexFunc(fx.seen.all, func(o clerksync.Observation) bool { return o.Op == op })
				if i < 0 || fx.seen.all[i].ClerkID != id || fx.seen.all[i].Outcome != tt.want || fx.seen.all[i].Err != nil {
					t.Errorf("observed %+v, want %s %v", fx.seen.all, op, tt.want)
				}
				if tt.want == clerksync.Deactivated {
					refusedWith(t, fx.Syncer, id, clerksync.ErrUserInactive)
				} else if served, stored := visit(t, fx.Syncer, id), fx.stored(t, id); served.Name != stored.Name || !served.ClerkUpdatedAt.Equal(stored.ClerkUpdatedAt) {
					t.Errorf("serves %+v, stored is %+v", served, stored)
				}
			})
		}
	}
}

// newerRecord makes the record newer than the user in Clerk, whose clock went back.
func newerRecord(fx *fixture, id string) {
	_ = fx.store.Edit(id, func(u *clerksync.User) { u.ClerkUpdatedAt, u.Name = u.ClerkUpdatedAt.Add(time.Hour), "Newer" })
}

func (fx *fixture) stored(t *testing.T, id string) *clerksync.User {
	t.Helper()
	u, err := fx.store.Store.User(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// A first visit may find, once Clerk has answered, that the record was made meanwhile, in any
// state: it serves what the Store has.
func TestEveryOutcomeOfAFirstVisit(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		meanwhile func(t *testing.T, fx *fixture, id string)
		want      clerksync.Outcome
	}{
		"nothing": {func(*testing.T, *fixture, string) {}, clerksync.Created},
		"equal":   {func(t *testing.T, fx *fixture, id string) { fx.made(t, id) }, clerksync.Unchanged},
		"older": {func(t *testing.T, fx *fixture, id string) {
			fx.made(t, id)
			_ = fx.store.Edit(id, func(u *clerksync.User) { u.ClerkUpdatedAt, u.Name = u.ClerkUpdatedAt.Add(-time.Hour), "Older" })
		}, clerksync.Updated},
		"newer": {func(t *testing.T, fx *fixture, id string) {
			fx.made(t, id)
			newerRecord(fx, id)
		}, clerksync.Stale},
		"deleted": {func(t *testing.T, fx *fixture, id string) { _, _ = fx.store.Deactivate(t.Context(), id, t0) }, clerksync.Deactivated},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
			fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
				fx.clerk.SetFault(nil)
				tt.meanwhile(t, fx, id)
				return nil
			})
			u, err := fx.User(t.Context(), id)
			if o := fx.seen.last(); o.Op != clerksync.OpVisit || o.Source != clerksync.SourceClerk || o.Outcome != tt.want {
				t.Errorf("observed %+v, want the Outcome %v", o, tt.want)
			}
			if tt.want == clerksync.Deactivated {
				if !errors.Is(err, clerksync.ErrUserInactive) || u != nil {
					t.Errorf("visit: %+v, %v", u, err)
				}
				return
			}
			want := map[clerksync.Outcome]string{clerksync.Stale: "Newer"}[tt.want]
			if want == "" {
				want = "Ada"
			}
			if stored := fx.stored(t, id); err != nil || u.Name != want || stored.Name != want || u.ID != stored.ID {
				t.Errorf("visit: %+v, %v; stored is %+v", u, err, stored)
			}
		})
	}
}

// made makes the record as another process would.
func (fx *fixture) made(t *testing.T, id string) {
	t.Helper()
	raw, _ := fx.clerk.User(id)
	u, err := clerksync.MapUser(fx.Syncer, raw, fx.clock.Now())
	if err == nil {
		_, err = fx.store.Store.Upsert(t.Context(), u)
	}
	if err != nil {
		t.Error(err)
	}
}

func TestErrorsOfSync(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, code string
		status     int
		is         error
		spoil      func(t *testing.T, a *answering)
	}{
		{"no such user", "user_unknown", 403, clerksync.ErrUserUnknown, func(_ *testing.T, a *answering) { _ = a.clerk.DeleteUser(a.ada) }},
		{"the e-mail is taken", "conflict", 409, nil, func(_ *testing.T, a *answering) { a.takeEmail() }},
		{"Map fails", "mapping_failed", 500, nil, func(t *testing.T, a *answering) { a.rename(t, a.ada, "Unmappable") }},
		{"the Store fails", "unavailable", 503, clerksync.ErrUnavailable, func(_ *testing.T, a *answering) { a.store.fail(errDown) }},
		{"an error that only a read may have", "unavailable", 503, clerksync.ErrUnavailable, func(_ *testing.T, a *answering) { a.store.fail(clerksync.ErrNotFound) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := newAnswering(t)
			tt.spoil(t, a)
			res, err := a.Sync(t.Context(), a.ada)
			if err == nil || res.Outcome != 0 || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("Sync: %+v, %v", res, err)
			}
			var conflict *clerksync.ConflictError
			if errors.As(err, &conflict) != (tt.code == "conflict") {
				t.Errorf("Sync: %v", err)
			}
			var p *clerksync.Problem
			if o := a.seen.last(); o.Op != clerksync.OpSync || o.ClerkID != a.ada || o.Outcome != 0 || !errors.As(o.Err, &p) || p.Status != tt.status || p.Code != tt.code {
				t.Errorf("observed %+v", o)
			}
		})
	}
}

func TestSyncOfNoID(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	if _, err := fx.Sync(t.Context(), "../users"); !errors.Is(err, clerksync.ErrUserUnknown) {
		t.Error(err)
	}
	if o := fx.seen.last(); o.Op != clerksync.OpSync || o.ClerkID != "" || !errors.Is(o.Err, clerksync.ErrUserUnknown) {
		t.Errorf("observed %+v", o)
	}
}
