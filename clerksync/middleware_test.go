package clerksync_test

import (
	"context"
	"errors"
	"fmt"
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
