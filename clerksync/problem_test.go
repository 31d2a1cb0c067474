package clerksync_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
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

// unspeakable is an error that nobody may put into words.
type unspeakable struct{ error }

func (unspeakable) Error() string { panic("the error's text was asked for") }

func (u unspeakable) Unwrap() error { return u.error }

// FuzzWriteProblem: whatever the error is, the answer is a whole problem document of a
// failure, with headers of one line, and the error's text is not even asked for.
func FuzzWriteProblem(f *testing.F) {
	for kind := range uint8(8) {
		f.Add(kind, "user_inactive", 403, int64(1500*time.Millisecond), "X-Own", "value")
		f.Add(kind, "", 0, int64(-1), "Content-Type", "text/html")
		f.Add(kind, "x\r\nSet-Cookie: a=b", 200, int64(math.MaxInt64), "Content-Length", "5")
		f.Add(kind, "\xff\"</script>", 401, int64(1), "WWW-Authenticate", "Basic")
		f.Add(kind, "token_expired", 401, int64(math.MinInt64), "Retry-After", "9")
		f.Add(kind, "slow_down", 499, int64(0), "", "")
	}
	sentinels := []error{
		clerksync.ErrUnauthenticated, clerksync.ErrUserInactive, clerksync.ErrUserUnknown, clerksync.ErrInvalidSignature,
		clerksync.ErrInvalidEvent, clerksync.ErrWrongInstance, clerksync.ErrUnavailable, clerksync.ErrNotFound,
	}
	f.Fuzz(func(t *testing.T, kind uint8, code string, status int, retry int64, header, value string) {
		var err error = unspeakable{errDown}
		switch p := (&clerksync.Problem{Status: status, Code: code, RetryAfter: time.Duration(retry), Err: unspeakable{errDown}}); kind % 8 {
		case 0:
			err = p
		case 1:
			err = fmt.Errorf("%s: %w", code, &clerksync.Problem{Status: status, Code: code, RetryAfter: time.Duration(retry), Err: errDown})
		case 2:
			err = &clerksync.ConflictError{Field: "hunter2" + code, Err: unspeakable{errDown}}
		case 3:
			err = &clerksync.BatchError{Errs: map[int]error{0: errDown, status: &clerksync.ConflictError{Field: "hunter2"}}}
		case 4:
			err = unspeakable{sentinels[uint(status)%uint(len(sentinels))]}
		case 5:
			err = errors.Join(errDown, sentinels[uint(status)%uint(len(sentinels))], nil)
		case 6:
			err = (*clerksync.Problem)(nil)
		}
		w := httptest.NewRecorder()
		if header != "" {
			w.Header()[http.CanonicalHeaderKey(header)] = []string{value}
		}
		clerksync.WriteProblem(w, httptest.NewRequest(http.MethodGet, "/", nil), err)

		if w.Code < 400 || w.Code > 599 {
			t.Fatalf("status %d", w.Code)
		}
		var fields map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &fields); err != nil || len(fields) != 4 {
			t.Fatalf("%v in %s", err, w.Body)
		}
		if fields["status"] != float64(w.Code) || fields["title"] == "" || fields["detail"] == "" {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if _, ok := fields["code"].(string); !ok {
			t.Fatalf("%s", w.Body)
		}
		got := w.Result().Header
		if got.Get("Content-Type") != "application/problem+json" || got.Get("Cache-Control") != "no-store" || got.Get("Content-Length") != "" {
			t.Fatalf("headers %v", got)
		}
		for _, name := range []string{"Retry-After", "Www-Authenticate"} {
			if http.CanonicalHeaderKey(header) != name && strings.ContainsAny(got.Get(name), "\r\n\x00") {
				t.Fatalf("%s is %q", name, got.Get(name))
			}
		}
		if s := got.Get("Retry-After"); s != "" && http.CanonicalHeaderKey(header) != "Retry-After" {
			if n, err := strconv.ParseInt(s, 10, 64); err != nil || n < 1 {
				t.Fatalf("Retry-After is %q", s)
			}
		}
		if w.Code == 401 && !strings.HasPrefix(got.Get("WWW-Authenticate"), "Bearer") {
			t.Fatalf("WWW-Authenticate is %q", got.Get("WWW-Authenticate"))
		}
		if !strings.Contains(code+value, "hunter2") && strings.Contains(fmt.Sprint(w.Body, got), "hunter2") {
			t.Fatalf("the error shows: %v %s", got, w.Body)
		}
	})
}

func TestWriteProblem(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err    error
		status int
		code   string
		retry  string
	}{
		"unknown error": {errDown, 500, "internal", ""},
		"nil":           {nil, 500, "internal", ""},
		"own problem":   {&clerksync.Problem{Status: 429, Code: "slow_down", RetryAfter: 1500 * time.Millisecond}, 429, "slow_down", "2"},
		"conflict":      {&clerksync.ConflictError{}, 409, "conflict", ""},
		"not found":     {clerksync.ErrNotFound, 500, "internal", ""},
		"no status":     {&clerksync.Problem{Code: "x"}, 500, "x", ""},
		"a status of 2": {&clerksync.Problem{Status: 200, Code: "x"}, 500, "x", ""},
		"no name":       {&clerksync.Problem{Status: 499, Code: "x"}, 499, "x", ""},
		"nil problem":   {(*clerksync.Problem)(nil), 500, "internal", ""},
		"unavailable":   {clerksync.ErrUnavailable, 503, "unavailable", "5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			w.Header().Set("Content-Length", "5")
			clerksync.WriteProblem(w, httptest.NewRequest(http.MethodGet, "/", nil), tt.err)
			var body struct{ Code, Detail string }
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != tt.status || body.Code != tt.code || body.Detail == "" || w.Header().Get("Retry-After") != tt.retry {
				t.Errorf("%d %s, Retry-After %q, %v", w.Code, w.Body, w.Header().Get("Retry-After"), err)
			}
			if strings.Contains(w.Body.String(), "hunter2") || w.Header().Get("Content-Length") != "" {
				t.Errorf("%v %s", w.Header(), w.Body)
			}
		})
	}
}
