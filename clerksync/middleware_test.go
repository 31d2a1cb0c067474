package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

func TestMiddleware(t *testing.T) {
	t.Parallel()
	storeDown := func(fx *fixture, _ string) { fx.store.fail(errDown) }
	ban := func(fx *fixture, id string) { _ = fx.clerk.BanUser(id) }
	deactivate := func(fx *fixture, id string) { _, _ = fx.store.Deactivate(context.Background(), id, t0) }
	takeEmail := func(fx *fixture, _ string) { fx.takeEmail() }
	of := func(subject string) func(*fixture, string) string {
		return func(fx *fixture, _ string) string { return fx.clerk.SessionToken(subject) }
	}
	none := func(*fixture, string) string { return "" }
	for name, tt := range map[string]middlewareCase{
		"signed in":          {status: 200},
		"no token":           {token: none, status: 401, code: "unauthenticated"},
		"a machine's token":  {token: of("mch_1"), status: 403, code: "user_unknown"},
		"a stranger's token": {token: of("user_ghost"), status: 403, code: "user_unknown"},
		"banned":             {arrange: ban, status: 403, code: "user_inactive"},
		"deleted":            {arrange: deactivate, status: 403, code: "user_inactive"},
		"store down":         {arrange: storeDown, status: 503, code: "unavailable"},
		"store down, open":   {policy: clerksync.FailOpen, arrange: storeDown, status: 200},
		"e-mail taken":       {arrange: takeEmail, status: 409, code: "conflict"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.run(t)
		})
	}
}

func (tt middlewareCase) run(t *testing.T) {
	fx := newFixture(t, func(c *clerksync.Config) { c.OnFailure = tt.policy })
	id := fx.clerk.CreateUser(fakeclerk.NewUser{Email: "ada@example.com"})
	if tt.arrange != nil {
		tt.arrange(fx, id)
	}
	var handler me
	url := serve(t, fx.sdkAuth(fx.Middleware(&handler)))
	token := fx.clerk.SessionToken(id)
	if tt.token != nil {
		token = tt.token(fx, id)
	}
	r, _ := http.NewRequest(http.MethodGet, url, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	a := send(t, r)
	if tt.status == 200 {
		if a.status != 200 || handler.served.Load() != 1 {
			t.Fatalf("status %d, handler ran %d times", a.status, handler.served.Load())
		}
		if !strings.Contains(string(a.body), id) {
			t.Errorf("body is %s", a.body)
		}
		if tt.policy == clerksync.FailOpen { // a Partial user
			if strings.Contains(string(a.body), `"email"`) {
				t.Errorf("body is %s", a.body)
			}
		} else if !strings.Contains(string(a.body), `"email":"ada@example.com"`) {
			t.Errorf("body is %s", a.body)
		}
		return
	}
	checkProblem(t, a, tt.status, tt.code)
	if handler.served.Load() != 0 {
		t.Error("the handler ran")
	}
	for _, secret := range []string{"hunter2", "ada@", id} {
		if strings.Contains(string(a.body), secret) {
			t.Errorf("the answer shows %q: %s", secret, a.body)
		}
	}
	for _, secret := range []string{"ada@", token, fx.clerk.SecretKey()} {
		if secret != "" && strings.Contains(fx.logs.String(), secret) {
			t.Errorf("the log shows %q: %s", secret, fx.logs)
		}
	}
}

func TestMiddlewareWithoutClaims(t *testing.T) {
	t.Parallel()
	var handler me
	h := newTestSyncer(t, nil).Middleware(&handler)
	for name, claims := range map[string]any{"none": nil, "nil": (*clerk.SessionClaims)(nil),
		"another type": "user_1"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if claims != nil {
			r = r.WithContext(clerk.ContextWithSessionClaims(r.Context(), claims))
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		t.Log(name)
		checkProblem(t, answer{w.Code, w.Header(), w.Body.Bytes()}, 401, "unauthenticated")
	}
	if handler.served.Load() != 0 {
		t.Error("the handler ran")
	}
}

func TestErrorHandler(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) {
		c.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
			var p *clerksync.Problem
			if !errors.As(err, &p) {
				t.Errorf("%v is not a *Problem", err)
			}
			if errors.Is(err, clerksync.ErrUserInactive) {
				http.Redirect(w, r, "/goodbye", http.StatusSeeOther)
				return
			}
			clerksync.WriteProblem(w, r, err)
		}
	})
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	_ = fx.clerk.BanUser(id)
	h := fx.Middleware(&me{})
	request := func(id string) answer {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		claims := &clerk.SessionClaims{RegisteredClaims: clerk.RegisteredClaims{Subject: id}}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r.WithContext(clerk.ContextWithSessionClaims(r.Context(), claims)))
		return answer{rec.Code, rec.Header(), rec.Body.Bytes()}
	}
	if a := request(id); a.status != http.StatusSeeOther || a.header.Get("Location") != "/goodbye" {
		t.Errorf("the case that it answers itself: %d %v", a.status, a.header)
	}
	checkProblem(t, request("user_ghost"), 403, "user_unknown")
}

func TestContextHelpers(t *testing.T) {
	t.Parallel()
	if u, ok := clerksync.UserFromContext(t.Context()); ok || u != nil {
		t.Error("an empty context has a user")
	}
	if u, ok := clerksync.UserFromContext(clerksync.ContextWithUser(t.Context(), nil)); ok || u != nil {
		t.Error("a nil user is one")
	}
	want := &clerksync.User{ClerkID: "user_1"}
	type key struct{}
	parent, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
	child, stop := context.WithTimeout(clerksync.ContextWithUser(parent, want), time.Hour)
	defer stop()
	cause := errors.New("cause")
	cancel(cause)
	if u, ok := clerksync.UserFromContext(child); !ok || u.ClerkID != want.ClerkID || child.Value(key{}) != "value" ||
		child.Err() == nil || context.Cause(child) != cause {
		t.Errorf("through a child: %v, %v, value %v, %v for %v", u, ok, child.Value(key{}), child.Err(),
			context.Cause(child))
	}
	if text := fmt.Sprintf("%v %+v", child, child); strings.Contains(text, want.ClerkID) {
		t.Errorf("the context tells of the user: %s", text)
	}
	if u, ok := clerksync.UserFromContext(clerksync.ContextWithUser(t.Context(), want)); !ok || !cmp.Equal(u, want) {
		t.Errorf("got %v, %v", u, ok)
	}
}

// middlewareCase is a request of a user's, and its answer.
type middlewareCase struct {
	policy  clerksync.FailurePolicy
	arrange func(fx *fixture, id string) // before the request
	token   func(fx *fixture, id string) string
	status  int
	code    string
}

// roleCase is a request to a handler behind RequireRole.
type roleCase struct {
	role   clerksync.Role // of the record
	needed []clerksync.Role
	behind func(*fixture, http.Handler) http.Handler // defaults to RequireUser
	anyone bool                                      // the request has no token
	change func(*clerksync.Config)
	down   bool // the Store fails
	status int
	code   string
	log    []string
}

func roleCases() map[string]roleCase {
	const admin, teacher, student = clerksync.RoleAdmin, clerksync.RoleTeacher, clerksync.RoleStudent
	type roles = []clerksync.Role
	withUser := func(fx *fixture, h http.Handler) http.Handler { return fx.WithUser(h) }
	sdk := func(fx *fixture, h http.Handler) http.Handler { return fx.sdkAuth(fx.Middleware(h)) }
	promoted := func(fx *fixture, h http.Handler) http.Handler {
		return fx.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			u, _ := clerksync.UserFromContext(r.Context())
			u.Role = admin
			h.ServeHTTP(w, r.WithContext(clerksync.ContextWithUser(r.Context(), u)))
		}))
	}
	signedOut := func(fx *fixture, h http.Handler) http.Handler {
		return fx.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r.WithContext(clerksync.ContextWithUser(r.Context(), nil)))
		}))
	}
	open := func(c *clerksync.Config) { c.OnFailure = clerksync.FailOpen }
	return map[string]roleCase{
		"the role":                   {role: admin, needed: roles{admin}, status: 200},
		"one of the roles":           {role: teacher, needed: roles{admin, teacher}, status: 200},
		"behind Middleware":          {role: admin, needed: roles{admin}, behind: sdk, status: 200},
		"behind WithUser":            {role: admin, needed: roles{admin}, behind: withUser, status: 200},
		"given by middleware":        {role: student, needed: roles{admin}, behind: promoted, status: 200},
		"another role":               {role: student, needed: roles{admin, teacher}, status: 403, code: "role_required", log: []string{"got=STUDENT", `want="ADMIN TEACHER"`}},
		"another role, Middleware":   {role: student, needed: roles{admin}, behind: sdk, status: 403, code: "role_required"},
		"in other letters":           {role: "admin", needed: roles{admin}, status: 403, code: "role_required", log: []string{"got=admin", "want=ADMIN"}},
		"the beginning of a role":    {role: "ADMINISTRATOR", needed: roles{admin}, status: 403, code: "role_required"},
		"no role":                    {role: "", needed: roles{admin}, status: 403, code: "role_required"},
		"the empty role is nobody's": {role: "", needed: roles{""}, status: 403, code: "role_required"},
		"without roles":              {role: admin, status: 403, code: "role_required", log: []string{"RequireRole has none"}},
		"a long role":                {role: clerksync.Role(strings.Repeat("x", 200)), needed: roles{admin}, status: 403, code: "role_required", log: []string{"got=" + strings.Repeat("x", 100) + " "}},
		"nobody":                     {needed: roles{admin}, behind: withUser, anyone: true, status: 401, code: "unauthenticated"},
		"signed out by middleware":   {role: admin, needed: roles{admin}, behind: signedOut, status: 401, code: "unauthenticated"},
		"the role is not known":      {role: admin, needed: roles{admin}, change: open, down: true, status: 503, code: "unavailable"},
		"nothing is known, no role":  {role: "", needed: roles{""}, change: open, down: true, status: 503, code: "unavailable"},
	}
}

func TestRequireRole(t *testing.T) {
	t.Parallel()
	for name, tt := range roleCases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.run(t)
		})
	}
}

func (tt roleCase) run(t *testing.T) {
	handled := 0
	fx := newFixture(t, func(c *clerksync.Config) {
		if tt.change != nil {
			tt.change(c)
		}
		c.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
			handled++
			clerksync.WriteProblem(w, r, err)
		}
	})
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	fx.createRecord(t, id)
	_ = fx.store.Edit(id, func(u *clerksync.User) { u.Role = tt.role })
	if tt.down {
		fx.store.fail(errDown)
	}
	if tt.behind == nil {
		tt.behind = func(fx *fixture, h http.Handler) http.Handler { return fx.RequireUser(h) }
	}
	var handler me
	url := serve(t, tt.behind(fx, clerksync.RequireRole(tt.needed...)(&handler)))
	r, _ := http.NewRequest(http.MethodGet, url, nil)
	if !tt.anyone {
		r.Header.Set("Authorization", "Bearer "+fx.clerk.SessionToken(id))
	}
	a := send(t, r)
	if tt.status == http.StatusOK {
		if a.status != tt.status || handler.served.Load() != 1 || handled != 0 {
			t.Fatalf("status %d %s, the handler ran %d times, ErrorHandler %d times", a.status, a.body, handler.served.Load(), handled)
		}
		return
	}
	checkProblem(t, a, tt.status, tt.code)
	if handler.served.Load() != 0 || handled != 1 {
		t.Errorf("the handler ran %d times, ErrorHandler %d times", handler.served.Load(), handled)
	}
	if o := checkTrace(t, fx, clerksync.OpRole, tt.code); (o.ClerkID != id) == (tt.code != "unauthenticated") {
		t.Errorf("observed %+v", o)
	}
	for _, want := range tt.log {
		if log := fx.logs.String(); !strings.Contains(log, want) {
			t.Errorf("the log does not say %q: %s", want, log)
		}
	}
}

// CheckRole says the same, and leaves the answer to the caller.
func TestCheckRole(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) {
		c.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { t.Error("ErrorHandler was called") }
	})
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	r, err := fx.Check(bearing("Bearer " + fx.clerk.SessionToken(id)))
	if err != nil {
		t.Fatal(err)
	}
	if err := clerksync.CheckRole(r.Context(), clerksync.RoleAdmin, clerksync.RoleStudent); err != nil {
		t.Errorf("a role that the user has: %v", err)
	}
	err = clerksync.CheckRole(r.Context(), clerksync.RoleAdmin)
	var p *clerksync.Problem
	if !errors.As(err, &p) || p.Status != 403 || p.Code != clerksync.CodeRoleRequired {
		t.Fatalf("another role: %v", err)
	}
	checkText(t, err.Error())
	if o := checkTrace(t, fx, clerksync.OpRole, "role_required"); o.ClerkID != id {
		t.Errorf("observed %+v", o)
	}
}

// Without a Syncer, as in an app's own tests, the standard answer is written.
func TestRequireRoleWithoutSyncer(t *testing.T) {
	t.Parallel()
	var handler me
	h := clerksync.RequireRole(clerksync.RoleAdmin)(&handler)
	request := func(ctx context.Context) answer {
		return answerOf(h, httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx))
	}
	checkProblem(t, request(t.Context()), 401, "unauthenticated")
	for _, u := range []*clerksync.User{{ClerkID: "user_1", Role: clerksync.RoleStudent}, {Role: clerksync.RoleStudent}, {}} {
		checkProblem(t, request(clerksync.ContextWithUser(t.Context(), u)), 403, "role_required")
	}
	if handler.served.Load() != 0 {
		t.Error("the handler ran")
	}
	if a := request(clerksync.ContextWithUser(t.Context(), &clerksync.User{Role: clerksync.RoleAdmin})); a.status != 200 {
		t.Errorf("the role: %d %s", a.status, a.body)
	}
}

// A caller that changes the roles afterwards changes nothing.
func TestRequireRoleKeepsItsRoles(t *testing.T) {
	t.Parallel()
	roles := []clerksync.Role{clerksync.RoleAdmin}
	h := clerksync.RequireRole(roles...)(&me{})
	roles[0] = clerksync.RoleStudent
	ctx := clerksync.ContextWithUser(t.Context(), &clerksync.User{Role: clerksync.RoleStudent})
	checkProblem(t, answerOf(h, httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx)), 403, "role_required")
}

// What an app puts into the context is observed as a user only if it has the form of one.
func TestRefusedRoleOfAnOddUser(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	odd := &clerksync.User{ClerkID: "ada@example.com"}
	h := fx.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := clerksync.ContextWithUser(r.Context(), odd)
		clerksync.RequireRole(clerksync.RoleAdmin)(&me{}).ServeHTTP(w, r.WithContext(ctx))
	}))
	checkProblem(t, answerOf(h, bearing("Bearer "+fx.clerk.SessionToken(id))), 403, "role_required")
	if o := checkTrace(t, fx, clerksync.OpRole, "role_required"); o.ClerkID != "" {
		t.Errorf("observed %+v", o)
	}
	if log := fx.logs.String(); strings.Contains(log, "ada@") {
		t.Errorf("the log shows the id: %s", log)
	}
}

// Check lets in whom RequireUser lets in, and gives the request that the handler would get.
func TestCheck(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	token := fx.clerk.SessionToken(id)
	type key struct{}
	body := strings.NewReader("the body")
	r := httptest.NewRequest(http.MethodPost, "/api/me?page=2", body)
	r = r.WithContext(context.WithValue(r.Context(), key{}, "value"))
	r.Header.Set("Authorization", "Bearer "+token)
	in, err := fx.Check(r)
	if err != nil {
		t.Fatal(err)
	}
	u, ok := clerksync.UserFromContext(in.Context())
	if !ok || u.ClerkID != id || u.Name != "Ada" || in.URL.String() != r.URL.String() || in.Context().Value(key{}) != "value" {
		t.Errorf("user %+v, %t; URL %s", u, ok, in.URL)
	}
	if _, ok := clerksync.UserFromContext(r.Context()); ok {
		t.Error("the request itself was changed")
	}
	if text := fmt.Sprintf("%v %+v", in.Context(), in.Context()); strings.Contains(text, id) || strings.Contains(text, "Ada") {
		t.Errorf("the context tells of the user: %s", text)
	}
	if rest, _ := io.ReadAll(in.Body); string(rest) != "the body" {
		t.Errorf("Check read the body: %q is left", rest)
	}
	if o := fx.seen.last(); o.Op != clerksync.OpVisit || o.ClerkID != id || o.Err != nil || len(fx.seen.all) != 1 {
		t.Errorf("observed %+v", fx.seen.all)
	}
}

// A request that a framework is converted to needs no URL and no body, not even to be checked for
// its origin.
func TestCheckNeedsLittle(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) {
		c.Auth = clerksync.AuthConfig{Cookie: true, AuthorizedParties: []string{appOrigin}}
	})
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	token := fx.token(t, id, fakeclerk.TokenOptions{AuthorizedParty: appOrigin})
	for origin, want := range map[string]string{appOrigin: "", "https://api.example.com": "", otherOrigin: "cross_origin"} {
		r := &http.Request{Method: http.MethodPost, Host: "api.example.com", Header: http.Header{"Origin": {origin}}}
		r.AddCookie(&http.Cookie{Name: "__session", Value: token})
		in, err := fx.Check(r)
		var p *clerksync.Problem
		if errors.As(err, &p) {
			if p.Code != want {
				t.Errorf("from %s: %v", origin, err)
			}
		} else if u, ok := clerksync.UserFromContext(in.Context()); want != "" || !ok || u.ClerkID != id {
			t.Errorf("from %s: %+v, %v", origin, u, err)
		}
	}
}

// Each request of TestRefusedRequestsAreTraced gets the same from Check.
func TestRefusalsOfCheckAreTraced(t *testing.T) {
	t.Parallel()
	for name, tt := range refusedRequests() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.check(t, func(fx *fixture) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					in, err := fx.Check(r)
					var p *clerksync.Problem
					if in != nil || !errors.As(err, &p) {
						t.Fatalf("request %v, error %v", in, err)
					}
					clerksync.WriteProblem(w, r, err)
				})
			})
		})
	}
}

// Those who are refused by their record, and callers may change their error.
func TestCheckRefusesByRecord(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) {
		c.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { t.Error("ErrorHandler was called") }
	})
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	_ = fx.clerk.BanUser(id)
	for range 2 {
		in, err := fx.Check(bearing("Bearer " + fx.clerk.SessionToken(id)))
		var p *clerksync.Problem
		if in != nil || !errors.Is(err, clerksync.ErrUserInactive) || !errors.As(err, &p) || p.Status != 403 || p.Code != clerksync.CodeUserInactive {
			t.Fatalf("request %v, error %v", in, err)
		}
		p.Code = "changed"
	}
	checkTrace(t, fx, clerksync.OpVisit, "user_inactive")
}
