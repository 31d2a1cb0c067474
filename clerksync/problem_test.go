package clerksync_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
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

// answering is an app with all handlers. /visit is behind the SDK's middleware and ours, /session
// behind RequireUser, /role also behind RequireRole, and /webhook takes events. Its one user is Ada.
type answering struct {
	*fixture
	url, ada string
	useless  atomic.Bool // CustomClaims returns nothing to decode into

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
		c.OnCreate = func(context.Context, *clerksync.User, clerksync.Job) error { return errDown }
		c.Jobs = clerksync.JobConfig{Await: true, NewFor: time.Millisecond} // Ada is not new
		c.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
			a.mu.Lock()
			a.errs = append(a.errs, err)
			a.mu.Unlock()
			clerksync.WriteProblem(w, r, err)
		}
	})
	a.ada = a.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: "ada@example.com", CreatedAt: t0.Add(-time.Hour)})
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
	mux.Handle("/role", a.RequireUser(clerksync.RequireRole(clerksync.RoleAdmin)(next)))
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

// visiting is Ada's request through Middleware, after arrange.
func visiting(arrange func(t *testing.T, a *answering)) func(*testing.T, *answering) answer {
	return func(t *testing.T, a *answering) answer {
		arrange(t, a)
		return a.get(t, "/visit", a.clerk.SessionToken(a.ada))
	}
}

// session is Ada's request through RequireUser.
func session(opts fakeclerk.TokenOptions) func(*testing.T, *answering) answer {
	return func(t *testing.T, a *answering) answer {
		if opts.AuthorizedParty == "" {
			opts.AuthorizedParty = appOrigin
		}
		return a.get(t, "/session", a.token(t, a.ada, opts))
	}
}

// event is a delivery of Ada's user.created, after arrange.
func event(arrange func(t *testing.T, a *answering)) func(*testing.T, *answering) answer {
	return func(t *testing.T, a *answering) answer {
		arrange(t, a)
		raw, _ := a.clerk.User(a.ada)
		return a.deliver(t, testSecret, envelope("user.created", string(raw)))
	}
}

// delivery is a signed delivery of this body.
func delivery(body string) func(*testing.T, *answering) answer {
	return func(t *testing.T, a *answering) answer { return a.deliver(t, testSecret, []byte(body)) }
}

// answerCase is a request, and the answer that it must get.
type answerCase struct {
	by     string // the handler
	status int
	code   string
	is     error // the sentinel error that ErrorHandler can tell it by
	ask    func(*testing.T, *answering) answer
}

// sentinels are all the errors that a caller may compare with.
var sentinels = []error{
	clerksync.ErrNotFound, clerksync.ErrUnauthenticated, clerksync.ErrUserInactive, clerksync.ErrUserUnknown,
	clerksync.ErrUnavailable, clerksync.ErrInvalidSignature, clerksync.ErrInvalidEvent, clerksync.ErrWrongInstance,
	clerksync.ErrIncomplete, clerksync.ErrTooManyGhosts, clerksync.ErrRejected, clerksync.ErrUnlinked,
}

// TestEveryAnswer gets each answer that the handlers document from a real server. It fails if
// problem.go has a code that no handler gave.
func TestEveryAnswer(t *testing.T) {
	t.Parallel()
	var given []string
	for _, tt := range slices.Concat(middlewareAnswers(), requireUserAnswers(), webhookAnswers()) {
		given = append(given, tt.code)
		t.Run(fmt.Sprintf("%s: %d %s", tt.by, tt.status, tt.code), func(t *testing.T) {
			t.Parallel()
			app := newAnswering(t)
			a := tt.ask(t, app)
			checkProblem(t, a, tt.status, tt.code)
			var body struct{ Title, Detail string }
			if err := json.Unmarshal(a.body, &body); err != nil || body.Detail == body.Title {
				t.Errorf("the code does not have a detail: %s, %v", a.body, err)
			}
			if strings.Contains(string(a.body), "hunter2") {
				t.Errorf("the answer shows an internal error: %s", a.body)
			}
			ops := map[string]clerksync.Op{"WebhookHandler": clerksync.OpWebhook, "RequireRole": clerksync.OpRole}
			checkTrace(t, app.fixture, cmp.Or(ops[tt.by], clerksync.OpVisit), tt.code)
			app.mu.Lock()
			defer app.mu.Unlock()
			tt.checkErrors(t, app.errs)
		})
	}
	slices.Sort(given)
	given = slices.Compact(given)
	if declared := clerksync.ProblemCodes(); !slices.Equal(given, declared) {
		t.Errorf("the handlers gave\n%q, problem.go has\n%q", given, declared)
	}
}

// Each code is an exported constant with a comment, a text for clients and a place in the
// documentation, and no code is written as a literal anywhere else.
func TestProblemCodesAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for _, spec := range constantsOf(t, "problem.go", "Code") {
		code, _ := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		codes = append(codes, code)
		if len(strings.TrimSpace(spec.Comment.Text())) < 10 {
			t.Errorf("%s does not have a comment", spec.Names[0])
		}
		if !strings.Contains(string(page), "`"+code+"`") {
			t.Errorf("README.md does not have %s", code)
		}
	}
	codes = slices.DeleteFunc(codes, func(code string) bool { return code == clerksync.CodeJobFailed }) // never an answer
	slices.Sort(codes)
	if declared := clerksync.ProblemCodes(); !slices.Equal(codes, declared) {
		t.Errorf("the constants are\n%q, and those with a text\n%q", codes, declared)
	}
	for _, file := range glob(t, "*.go", "*/*.go", "*/*/*.go", "../mongostore/*.go") {
		// Clerk and jobs have codes of their own.
		if strings.HasSuffix(file.name, "_test.go") || strings.HasPrefix(file.name, "fakeclerk/") || strings.HasPrefix(file.name, "storetest/") {
			continue
		}
		if literal := regexp.MustCompile(`\bCode(:| ==| !=) *"[^"]+"`).FindString(file.text); literal != "" {
			t.Errorf("%s: %s: use the constant", file.name, literal)
		}
	}
}

// constantsOf parses a file of the package and returns the constants whose names begin with
// prefix.
func constantsOf(t *testing.T, file, prefix string) (specs []*ast.ValueSpec) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, prefix) {
			specs = append(specs, spec)
		}
		return true
	})
	return specs
}

// checkErrors checks what ErrorHandler got.
func (tt *answerCase) checkErrors(t *testing.T, errs []error) {
	t.Helper()
	if len(errs) != 1 {
		t.Fatalf("ErrorHandler got %v", errs)
	}
	checkText(t, errs[0].Error())
	var p *clerksync.Problem
	if !errors.As(errs[0], &p) || p.Status != tt.status || p.Code != tt.code {
		t.Errorf("ErrorHandler got %v", errs[0])
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
}

func storeFails(_ *testing.T, a *answering) { a.store.fail(errDown) }

func storeRejects(_ *testing.T, a *answering) {
	a.store.fail(fmt.Errorf("hunter2: %w", clerksync.ErrRejected))
}

func emailIsTaken(_ *testing.T, a *answering) { a.takeEmail() }

func recordFails(_ *testing.T, a *answering) {
	a.store.fail(&clerksync.Problem{Status: http.StatusInternalServerError, Code: "record_failed", Err: errOddPlan})
}

func jobFails(t *testing.T, a *answering) {
	a.createRecord(t, a.ada)
	_ = a.store.Edit(a.ada, func(u *clerksync.User) {
		u.Jobs = &clerksync.Jobs{Create: clerksync.JobState{Attempt: 20, FailedAt: t0, Code: "error"}}
	})
}

func mapFails(t *testing.T, a *answering) { a.rename(t, a.ada, "Unmappable") }

func middlewareAnswers() []answerCase {
	const by = "Middleware"
	signedOut := func(t *testing.T, a *answering) answer { return a.get(t, "/visit", "") }
	banned := func(_ *testing.T, a *answering) { _ = a.clerk.BanUser(a.ada) }
	unknown := func(_ *testing.T, a *answering) { _ = a.clerk.DeleteUser(a.ada) }
	clerkFails := func(_ *testing.T, a *answering) {
		a.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
			if strings.Contains(r.URL.Path, "/users/") {
				return fakeclerk.ErrorFault(500, "internal_clerk_error")
			}
			return nil
		})
	}
	return []answerCase{
		{by, 401, "unauthenticated", clerksync.ErrUnauthenticated, signedOut},
		{by, 403, "user_inactive", clerksync.ErrUserInactive, visiting(banned)},
		{by, 403, "user_unknown", clerksync.ErrUserUnknown, visiting(unknown)},
		{by, 409, "conflict", nil, visiting(emailIsTaken)},
		{by, 422, "rejected", clerksync.ErrRejected, visiting(storeRejects)},
		{by + ", Store", 503, "unavailable", clerksync.ErrUnavailable, visiting(storeFails)},
		{by + ", Clerk", 503, "unavailable", clerksync.ErrUnavailable, visiting(clerkFails)},
		{by, 500, "record_failed", nil, visiting(recordFails)},
		{by, 503, "mapping_failed", nil, visiting(mapFails)},
		{by, 503, "job_pending", nil, visiting(jobFails)},
	}
}

func requireUserAnswers() []answerCase {
	type opts = fakeclerk.TokenOptions
	const by = "RequireUser"
	unauthenticated := clerksync.ErrUnauthenticated
	bearing := func(token string) func(*testing.T, *answering) answer {
		return func(t *testing.T, a *answering) answer { return a.get(t, "/session", token) }
	}
	crossOrigin := func(t *testing.T, a *answering) answer {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.url+"/session", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", otherOrigin)
		token := a.token(t, a.ada, opts{AuthorizedParty: appOrigin})
		r.AddCookie(&http.Cookie{Name: "__session", Value: token})
		return send(t, r)
	}
	withoutKeys := func(t *testing.T, a *answering) answer {
		a.clerk.SetFault(down)
		return session(opts{})(t, a)
	}
	deleted := func(t *testing.T, a *answering) answer {
		_, _ = a.store.Deactivate(t.Context(), a.ada, t0)
		return session(opts{})(t, a)
	}
	uselessClaims := func(t *testing.T, a *answering) answer {
		a.useless.Store(true)
		return session(opts{})(t, a)
	}
	otherRole := func(t *testing.T, a *answering) answer {
		return a.get(t, "/role", a.token(t, a.ada, opts{AuthorizedParty: appOrigin}))
	}
	return []answerCase{
		{by, 401, "token_missing", unauthenticated, bearing("")},
		{by, 401, "token_malformed", unauthenticated, bearing("nonsense")},
		{by, 401, "token_expired", unauthenticated, session(opts{IssuedAt: t0.Add(-time.Hour)})},
		{by, 401, "token_not_yet_valid", unauthenticated, session(opts{IssuedAt: t0.Add(time.Hour)})},
		{by, 401, "token_wrong_class", unauthenticated, session(opts{Class: fakeclerk.TemplateToken})},
		{by, 401, "token_wrong_party", unauthenticated, session(opts{AuthorizedParty: otherOrigin})},
		{by, 401, "token_wrong_issuer", unauthenticated, session(opts{Issuer: "https://evil.com"})},
		{by, 401, "token_bad_signature", unauthenticated, session(opts{WrongKey: true})},
		{by, 401, "token_unknown_key", unauthenticated, session(opts{KeyID: "ins_unknown"})},
		{by, 401, "session_pending", unauthenticated, session(opts{Pending: true})},
		{by, 403, "cross_origin", unauthenticated, crossOrigin},
		{by + ", keys", 503, "unavailable", clerksync.ErrUnavailable, withoutKeys},
		{by, 403, "user_inactive", clerksync.ErrUserInactive, deleted},
		{by, 500, "internal", nil, uselessClaims},
		{"RequireRole", 403, "role_required", nil, otherRole},
	}
}

func webhookAnswers() []answerCase {
	const by = "WebhookHandler"
	forged := func(t *testing.T, a *answering) answer { return a.deliver(t, otherSecret, envelope("x.y", "{}")) }
	cutOff := func(t *testing.T, a *answering) answer { return sendHalf(t, a.url) }
	get := func(t *testing.T, a *answering) answer { return a.get(t, "/webhook", "") }
	otherInstance := delivery(`{"type":"x.y","instance_id":"ins_2","data":{}}`)
	withoutID := delivery(`{"type":"user.created","instance_id":"ins_1","data":{}}`)
	hookFails := delivery(`{"type":"app.fails","instance_id":"ins_1","data":{}}`)
	return []answerCase{
		{by, 400, "invalid_signature", clerksync.ErrInvalidSignature, forged},
		{by, 400, "unreadable_body", nil, cutOff},
		{by, 403, "wrong_instance", clerksync.ErrWrongInstance, otherInstance},
		{by, 405, "method_not_allowed", nil, get},
		{by, 409, "conflict", nil, event(emailIsTaken)},
		{by, 413, "body_too_large", nil, delivery(strings.Repeat("x", 4097))},
		{by, 422, "invalid_event", clerksync.ErrInvalidEvent, withoutID},
		{by, 422, "rejected", clerksync.ErrRejected, event(storeRejects)},
		{by, 500, "mapping_failed", nil, event(mapFails)},
		{by, 503, "unavailable", clerksync.ErrUnavailable, event(storeFails)},
		{by, 503, "event_hook_failed", nil, hookFails},
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
		"own problem": {
			&clerksync.Problem{Status: 429, Code: "slow_down", RetryAfter: 1500 * time.Millisecond},
			429, "slow_down", "2",
		},
		"conflict":          {&clerksync.ConflictError{}, 409, "conflict", ""},
		"not found":         {clerksync.ErrNotFound, 500, "internal", ""},
		"no status":         {&clerksync.Problem{Code: "x"}, 500, "x", ""},
		"a success":         {&clerksync.Problem{Status: 200, Code: "x"}, 500, "x", ""},
		"a nameless status": {&clerksync.Problem{Status: 499, Code: "x"}, 499, "x", ""},
		"nil problem":       {(*clerksync.Problem)(nil), 500, "internal", ""},
		"unavailable":       {clerksync.ErrUnavailable, 503, "unavailable", "5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			w.Header().Set("Content-Length", "5")
			clerksync.WriteProblem(w, httptest.NewRequest(http.MethodGet, "/", nil), tt.err)
			var body struct{ Code, Detail string }
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Fatalf("%v in %s", err, w.Body)
			}
			retry := w.Header().Get("Retry-After")
			if w.Code != tt.status || body.Code != tt.code || body.Detail == "" || retry != tt.retry {
				t.Errorf("%d %s, Retry-After %q", w.Code, w.Body, retry)
			}
			if strings.Contains(w.Body.String(), "hunter2") || w.Header().Get("Content-Length") != "" {
				t.Errorf("%v %s", w.Header(), w.Body)
			}
		})
	}
}

func TestErrorsOfSync(t *testing.T) {
	t.Parallel()
	deleted := func(_ *testing.T, a *answering) { _ = a.clerk.DeleteUser(a.ada) }
	readError := func(_ *testing.T, a *answering) { a.store.fail(clerksync.ErrNotFound) }
	for _, tt := range []struct {
		name, code string
		status     int
		is         error
		arrange    func(t *testing.T, a *answering)
	}{
		{"no such user", "user_unknown", 403, clerksync.ErrUserUnknown, deleted},
		{"the e-mail is taken", "conflict", 409, nil, emailIsTaken},
		{"Map fails", "mapping_failed", 500, nil, mapFails},
		{"the Store fails", "unavailable", 503, clerksync.ErrUnavailable, storeFails},
		{"an error that only a read may have", "unavailable", 503, clerksync.ErrUnavailable, readError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := newAnswering(t)
			tt.arrange(t, a)
			res, err := a.Sync(t.Context(), a.ada)
			if err != nil {
				checkText(t, err.Error())
			}
			if err == nil || res.Outcome != 0 || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("Sync: %+v, %v", res, err)
			}
			var conflict *clerksync.ConflictError
			if errors.As(err, &conflict) != (tt.code == "conflict") {
				t.Errorf("Sync: %v", err)
			}
			o := a.seen.last()
			if o.Op != clerksync.OpSync || o.ClerkID != a.ada || o.Outcome != 0 {
				t.Errorf("observed %+v", o)
			}
			var p *clerksync.Problem
			if !errors.As(o.Err, &p) || p.Status != tt.status || p.Code != tt.code {
				t.Errorf("observed the error %v, want %d %s", o.Err, tt.status, tt.code)
			}
		})
	}
}

// Whatever an error wraps, its text has the prefix once.
func TestErrorTextsDoNotStutter(t *testing.T) {
	t.Parallel()
	inner := []error{
		clerksync.ErrNotFound, clerksync.ErrUnavailable, clerksync.ErrUserUnknown, &clerksync.ConflictError{Field: "email"},
		&clerksync.Problem{Status: 503, Code: "unavailable", Err: fmt.Errorf("%w: down", clerksync.ErrUnavailable)},
		&clerksync.BatchError{Errs: map[int]error{3: clerksync.ErrNotFound}},
		errors.Join(clerksync.ErrTooManyGhosts, clerksync.ErrIncomplete),
	}
	for _, err := range inner {
		for _, outer := range []error{
			&clerksync.Problem{Status: 503, Code: "x", Err: fmt.Errorf("giving up: %w", err)},
			&clerksync.BatchError{Errs: map[int]error{0: err}},
			clerksync.Unavailable(fmt.Errorf("store: %w", err)),
			clerksync.Prefixed("reconcile: %w", clerksync.Unavailable(fmt.Errorf("store: %w", err))),
		} {
			for _, e := range []error{outer, errors.Unwrap(outer)} {
				if e == nil {
					continue
				}
				text := e.Error()
				checkText(t, text)
				if e == outer && !strings.Contains(text, "clerksync: ") {
					t.Errorf("the prefix is missing: %s", text)
				}
			}
			if !errors.Is(outer, err) {
				t.Errorf("%v does not match %v", outer, err)
			}
		}
	}
}

// textless is an error whose text nobody may ask for.
type textless struct{ error }

func (textless) Error() string { panic("the error's text was asked for") }

func (e textless) Unwrap() error { return e.error }

// FuzzWriteProblem checks that the answer to any error is a complete problem document with a
// failure's status and headers of one line, and that WriteProblem does not ask for the error's
// text.
func FuzzWriteProblem(f *testing.F) {
	for kind := range uint8(8) {
		f.Add(kind, "user_inactive", 403, int64(1500*time.Millisecond), "X-Own", "value")
		f.Add(kind, "", 0, int64(-1), "Content-Type", "text/html")
		f.Add(kind, "x\r\nSet-Cookie: a=b", 200, int64(math.MaxInt64), "Content-Length", "5")
		f.Add(kind, "\xff\"</script>", 401, int64(1), "WWW-Authenticate", "Basic")
		f.Add(kind, "token_expired", 401, int64(math.MinInt64), "Retry-After", "9")
		f.Add(kind, "slow_down", 499, int64(0), "", "")
	}
	f.Fuzz(func(t *testing.T, kind uint8, code string, status int, retry int64, header, value string) {
		err := errorOfKind(kind, code, status, time.Duration(retry))
		w := httptest.NewRecorder()
		if header != "" {
			w.Header()[http.CanonicalHeaderKey(header)] = []string{value}
		}
		clerksync.WriteProblem(w, httptest.NewRequest(http.MethodGet, "/", nil), err)
		got := answer{w.Code, w.Result().Header, w.Body.Bytes()}

		checkProblemDocument(t, got)
		checkProblemHeaders(t, got, http.CanonicalHeaderKey(header))
		shown := fmt.Sprint(string(got.body), got.header)
		if !strings.Contains(code+value, "hunter2") && strings.Contains(shown, "hunter2") {
			t.Fatalf("the error shows: %s", shown)
		}
	})
}

// errorOfKind returns one of the errors that WriteProblem may meet.
func errorOfKind(kind uint8, code string, status int, retry time.Duration) error {
	sentinel := sentinels[uint(status)%uint(len(sentinels))]
	switch kind % 8 {
	case 0:
		return &clerksync.Problem{Status: status, Code: code, RetryAfter: retry, Err: textless{errDown}}
	case 1:
		p := &clerksync.Problem{Status: status, Code: code, RetryAfter: retry, Err: errDown}
		return fmt.Errorf("%s: %w", code, p)
	case 2:
		return &clerksync.ConflictError{Field: "hunter2" + code, Err: textless{errDown}}
	case 3:
		conflict := &clerksync.ConflictError{Field: "hunter2"}
		return &clerksync.BatchError{Errs: map[int]error{0: errDown, status: conflict}}
	case 4:
		return textless{sentinel}
	case 5:
		return errors.Join(errDown, sentinel, nil)
	case 6:
		return (*clerksync.Problem)(nil)
	}
	return textless{errDown}
}

func checkProblemDocument(t *testing.T, a answer) {
	t.Helper()
	if a.status < 400 || a.status > 599 {
		t.Fatalf("status %d", a.status)
	}
	var fields map[string]any
	if err := json.Unmarshal(a.body, &fields); err != nil || len(fields) != 4 {
		t.Fatalf("%v in %s", err, a.body)
	}
	if fields["status"] != float64(a.status) || fields["title"] == "" || fields["detail"] == "" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if _, ok := fields["code"].(string); !ok {
		t.Fatalf("%s", a.body)
	}
}

// checkProblemHeaders checks all headers but the preset one that WriteProblem may leave as it was.
func checkProblemHeaders(t *testing.T, a answer, preset string) {
	t.Helper()
	h := a.header
	if h.Get("Content-Type") != "application/problem+json" || h.Get("Cache-Control") != "no-store" ||
		h.Get("Content-Length") != "" {
		t.Fatalf("headers %v", h)
	}
	for _, name := range []string{"Retry-After", "Www-Authenticate"} {
		if preset != name && strings.ContainsAny(h.Get(name), "\r\n\x00") {
			t.Fatalf("%s is %q", name, h.Get(name))
		}
	}
	if s := h.Get("Retry-After"); s != "" && preset != "Retry-After" {
		if n, err := strconv.ParseInt(s, 10, 64); err != nil || n < 1 {
			t.Fatalf("Retry-After is %q", s)
		}
	}
	if a.status == 401 && !strings.HasPrefix(h.Get("WWW-Authenticate"), "Bearer") {
		t.Fatalf("WWW-Authenticate is %q", h.Get("WWW-Authenticate"))
	}
}

func TestConflictErrorText(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  clerksync.ConflictError
		want string
	}{
		{clerksync.ConflictError{},
			"clerksync: another record has a value that a unique index allows only once"},
		{clerksync.ConflictError{Field: "email"},
			"clerksync: another record has the same email, and a unique index forbids that"},
		{clerksync.ConflictError{Field: "email", Holder: "user_2", Err: errDown},
			"clerksync: the record of user_2 has the same email, and a unique index forbids that"},
		{clerksync.ConflictError{Field: "name", Holder: "ada@example.com"}, // the app's _id
			"clerksync: another record has the same name, and a unique index forbids that"},
		{clerksync.ConflictError{Holder: "user_2"},
			"clerksync: the record of user_2 has a value that a unique index allows only once"},
		{clerksync.ConflictError{Field: "profile", Type: "objectId"},
			"clerksync: the app's record has profile of type objectId, which clerksync would overwrite"},
		{clerksync.ConflictError{Type: "array"},
			"clerksync: the app's record has a field of type array, which clerksync would overwrite"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.err, got, tt.want)
		}
	}
}
