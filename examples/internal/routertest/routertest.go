// Package routertest is the test suite of the router examples. It tests over HTTP, with a fake Clerk,
// that clerksync works behind the router, and that the example is short.
package routertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// Parts are what an example's router is made of.
type Parts struct {
	Syncer   *clerksync.Syncer
	Webhooks http.Handler
}

// Router makes an example's router and serves it until the test ends. It returns its URL.
type Router func(t *testing.T, p Parts) (url string)

// Handler is the Router of an example that is built on http.Handler.
func Handler[H http.Handler](newRouter func(*clerksync.Syncer, http.Handler) H) Router {
	return func(t *testing.T, p Parts) string {
		server := httptest.NewServer(newRouter(p.Syncer, p.Webhooks))
		t.Cleanup(server.Close)
		return server.URL
	}
}

const (
	mePath      = "/api/me"
	adminPath   = "/api/admin"
	webhookPath = "/api/webhooks/clerk"
)

type testCase struct {
	name string
	test func(*testing.T, *app)
}

// Run tests a router. GET / must be public, GET /api/me must be protected and answer with the
// record, and /api/webhooks/clerk must receive webhooks.
func Run(t *testing.T, router Router) {
	t.Helper()
	checkLength(t)
	run(t, router, []testCase{
		{"a public route needs no session", func(t *testing.T, a *app) {
			a.visit(t, "/", "")
		}},
		{"a first visit creates the record", func(t *testing.T, a *app) {
			id := a.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", LastName: "Lovelace"})
			u := a.visit(t, mePath, a.clerk.SessionToken(id))
			if u.ClerkID != id || u.Name != "Ada Lovelace" || u.Role != clerksync.RoleStudent {
				t.Errorf("clerkId, name, role = %q, %q, %q, want %q, Ada Lovelace, STUDENT", u.ClerkID, u.Name, u.Role, id)
			}
		}},
		{"a webhook needs no session", func(t *testing.T, a *app) {
			endpoint := a.subscribe()
			id := a.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
			a.settle(t)
			if got := endpoint.Messages()[0].State; got != fakeclerk.Delivered {
				t.Fatalf("the message is %s, want %s", got, fakeclerk.Delivered)
			}
			if u := a.visit(t, mePath, a.clerk.SessionToken(id)); u.Name != "Ada" {
				t.Errorf("name = %q, want Ada", u.Name)
			}
			if n := a.clerk.Calls("GET /v1/users/{id}"); n != 0 {
				t.Errorf("%d calls to Clerk for the user, want 0: the webhook created the record", n)
			}
		}},
		{"the webhook's URL may end with a slash", func(t *testing.T, a *app) {
			event := fakeclerk.Event{Type: "user.created", Data: fakeclerk.NewUser{ID: "user_slash"}.Object(time.Now())}
			a.do(t, fakeclerk.SignedRequest(t.Context(), a.url+webhookPath+"/", webhookSecret, event), http.StatusNoContent, "")
		}},
		{"a forged webhook is refused", func(t *testing.T, a *app) {
			id := "user_forged"
			const wrong = "whsec_d3JvbmcgLSB3cm9uZyAtIHdyb25n"
			event := fakeclerk.Event{Type: "user.created", Data: fakeclerk.NewUser{ID: id}.Object(time.Now())}
			forged := fakeclerk.SignedRequest(t.Context(), a.url+webhookPath, wrong, event)
			a.do(t, forged, http.StatusBadRequest, "invalid_signature")
			if _, err := a.store.User(t.Context(), id); !errors.Is(err, clerksync.ErrNotFound) {
				t.Errorf("reading the record: %v, want ErrNotFound", err)
			}
		}},
		{"without a token: 401", func(t *testing.T, a *app) {
			a.expectRefusal(t, "", http.StatusUnauthorized, "token_missing")
		}},
		{"with an expired token: 401", func(t *testing.T, a *app) {
			id := a.clerk.CreateUser(fakeclerk.NewUser{})
			token, err := a.clerk.Token(id, fakeclerk.TokenOptions{IssuedAt: time.Now().Add(-time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			a.expectRefusal(t, token, http.StatusUnauthorized, "token_expired")
		}},
		{"a banned user: 403", func(t *testing.T, a *app) {
			a.subscribe()
			id := a.clerk.CreateUser(fakeclerk.NewUser{})
			if err := a.clerk.BanUser(id); err != nil {
				t.Fatal(err)
			}
			a.settle(t)
			a.expectRefusal(t, a.clerk.SessionToken(id), http.StatusForbidden, "user_inactive")
		}},
		{"a deleted user: 403", func(t *testing.T, a *app) {
			a.subscribe()
			id := a.clerk.CreateUser(fakeclerk.NewUser{})
			token := a.clerk.SessionToken(id)
			a.visit(t, mePath, token)
			if err := a.clerk.DeleteUser(id); err != nil {
				t.Fatal(err)
			}
			a.settle(t)
			a.expectRefusal(t, token, http.StatusForbidden, "user_inactive")
		}},
		{"a user unknown to Clerk: 403", func(t *testing.T, a *app) {
			a.expectRefusal(t, a.clerk.SessionToken("user_nobody"), http.StatusForbidden, "user_unknown")
		}},
		{"Clerk is down: 503", func(t *testing.T, a *app) {
			id := a.clerk.CreateUser(fakeclerk.NewUser{})
			a.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
				if strings.HasSuffix(r.URL.Path, "/jwks") {
					return nil
				}
				f := fakeclerk.ErrorFault(http.StatusServiceUnavailable, "service_unavailable")
				f.Header.Set("Retry-After", "30") // longer than a visit waits: no retries
				return f
			})
			header := a.expectRefusal(t, a.clerk.SessionToken(id), http.StatusServiceUnavailable, "unavailable")
			if got := header.Get("Retry-After"); got != "30" {
				t.Errorf("Retry-After = %q, want 30, as Clerk said", got)
			}
		}},
		{"the Store is down: 503", func(t *testing.T, a *app) {
			id := a.clerk.CreateUser(fakeclerk.NewUser{})
			a.store.down.Store(true)
			header := a.expectRefusal(t, a.clerk.SessionToken(id), http.StatusServiceUnavailable, "unavailable")
			if header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
		}},
		{"records are refreshed in the background, each with its own user's", refreshes},
	})
}

// RunRoles tests a router whose GET /api/admin is only for users with the role ADMIN.
func RunRoles(t *testing.T, router Router) {
	t.Helper()
	run(t, router, []testCase{
		{"without the role: 403", func(t *testing.T, a *app) {
			id := a.clerk.CreateUser(fakeclerk.NewUser{})
			a.do(t, a.request(t, adminPath, a.clerk.SessionToken(id)), http.StatusForbidden, "role_required")
		}},
		{"without a token: 401", func(t *testing.T, a *app) {
			a.do(t, a.request(t, adminPath, ""), http.StatusUnauthorized, "token_missing")
		}},
		{"with the role", func(t *testing.T, a *app) {
			id := a.clerk.CreateUser(fakeclerk.NewUser{})
			a.visit(t, mePath, a.clerk.SessionToken(id))
			if err := a.store.Edit(id, func(u *clerksync.User) { u.Role = clerksync.RoleAdmin }); err != nil {
				t.Fatal(err)
			}
			a.syncer.Forget(id)
			if u := a.visit(t, adminPath, a.clerk.SessionToken(id)); u.ClerkID != id {
				t.Errorf("clerkId = %q, want %q", u.ClerkID, id)
			}
		}},
	})
}

func run(t *testing.T, router Router, cases []testCase) {
	t.Helper()
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.test(t, start(t, router))
		})
	}
}

// checkLength checks that a reader sees the whole example on one screen.
func checkLength(t *testing.T) {
	t.Helper()
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), "\n"); n >= 60 {
		t.Errorf("main.go has %d lines, want under 60", n)
	}
}

// refreshes has many clients visit at once, whose records are old. Each must get its own record, and
// the refreshes behind the visits must find the right users, although a framework may use a request's
// memory again for the next client. Run it with the race detector.
func refreshes(t *testing.T, a *app) {
	const users = 40
	old := time.Now().Add(-48 * time.Hour)
	ids := make([]string, users)
	for i := range ids {
		ids[i] = a.clerk.CreateUser(fakeclerk.NewUser{FirstName: fmt.Sprint("New", i)})
		u := &clerksync.User{ClerkID: ids[i], Name: fmt.Sprint("Old", i), ClerkUpdatedAt: old, SyncedAt: old}
		if _, err := a.store.Upsert(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	refreshed := func(i int) bool {
		u, err := a.store.User(t.Context(), ids[i])
		if err != nil {
			t.Fatal(err)
		}
		return u.Name == fmt.Sprint("New", i)
	}
	deadline := time.Now().Add(30 * time.Second)
	var clients sync.WaitGroup
	for i, id := range ids {
		token := a.clerk.SessionToken(id)
		clients.Go(func() {
			for !refreshed(i) && time.Now().Before(deadline) { // a few refreshes run at one time
				u := a.visit(t, mePath, token)
				if want := fmt.Sprint(i); u.ClerkID != id || u.Name != "Old"+want && u.Name != "New"+want {
					t.Errorf("the client of user %d got %q, %q", i, u.ClerkID, u.Name)
					return
				}
			}
		})
	}
	clients.Wait()
	_ = a.syncer.Close() // waits for the refreshes
	for i := range ids {
		if !refreshed(i) {
			t.Errorf("the record of user %d was not refreshed", i)
		}
	}
}

// app serves an example's router, with a fake Clerk and a Store.
type app struct {
	url    string
	clerk  *fakeclerk.Server
	store  *store
	syncer *clerksync.Syncer
	client *http.Client
}

const webhookSecret = "whsec_cm91dGVydGVzdCAtIHJvdXRlcnRlc3Q="

func start(t *testing.T, router Router) *app {
	t.Helper()
	fake, err := fakeclerk.Start(fakeclerk.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fake.Close() })
	a := &app{clerk: fake, store: &store{Store: memstore.New()}, client: &http.Client{Transport: &http.Transport{}}}

	syncer, err := clerksync.New(clerksync.Config{
		Store:     a.store,
		SecretKey: fake.SecretKey(),
		APIURL:    fake.APIURL(),
		Logger:    slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syncer.Close() })
	webhooks, err := syncer.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{webhookSecret}})
	if err != nil {
		t.Fatal(err)
	}
	a.syncer = syncer
	a.url = router(t, Parts{Syncer: syncer, Webhooks: webhooks})
	// A server may wait for open connections at its end: fasthttp does, even if they were never used.
	t.Cleanup(func() {
		a.client.CloseIdleConnections()
		_ = fake.Close()
	})
	return a
}

// subscribe delivers Clerk's webhooks to the app from now on.
func (a *app) subscribe() *fakeclerk.Endpoint {
	return a.clerk.AddEndpoint(a.url+webhookPath, fakeclerk.EndpointOptions{Secret: webhookSecret})
}

// settle waits until the app has answered all webhooks.
func (a *app) settle(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := a.clerk.Settle(ctx); err != nil {
		t.Fatal(err)
	}
}

// visit expects 200 and returns the record in the answer, if there is one.
func (a *app) visit(t *testing.T, path, token string) *clerksync.User {
	t.Helper()
	_, body := a.do(t, a.request(t, path, token), http.StatusOK, "")
	u := &clerksync.User{}
	_ = json.Unmarshal(body, u)
	return u
}

// expectRefusal visits the protected route. The request must be refused, and the handler must not
// write to the answer too.
func (a *app) expectRefusal(t *testing.T, token string, status int, code string) http.Header {
	t.Helper()
	header, _ := a.do(t, a.request(t, mePath, token), status, code)
	return header
}

func (a *app) request(t *testing.T, path, token string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

// do sends a request and checks the status and, if code is not empty, that the answer is one
// problem document with this code.
func (a *app) do(t *testing.T, r *http.Request, status int, code string) (http.Header, []byte) {
	t.Helper()
	r.RequestURI = "" // SignedRequest returns a server's request
	resp, err := a.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var problem struct{ Code string }
	if code != "" {
		if err := json.Unmarshal(body, &problem); err != nil {
			t.Errorf("the answer is not one JSON document: %v", err)
		}
		if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("Content-Type = %q, want application/problem+json", got)
		}
	}
	if resp.StatusCode != status || problem.Code != code {
		t.Fatalf("%s %s: %d %q, want %d %q; body: %s",
			r.Method, r.URL.Path, resp.StatusCode, problem.Code, status, code, body)
	}
	return resp.Header, body
}

// store fails while down is set.
type store struct {
	*memstore.Store
	down atomic.Bool
}

func (s *store) User(ctx context.Context, clerkID string) (*clerksync.User, error) {
	if s.down.Load() {
		return nil, errors.New("connection refused")
	}
	return s.Store.User(ctx, clerkID)
}
