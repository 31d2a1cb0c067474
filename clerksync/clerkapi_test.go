package clerksync_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
	"github.com/clerksync/clerksync-go/clerksync/internal/retry"
)

// A Clerk, or whoever answers in its place, that never comes to an end.
func TestAnswersWithoutAnEnd(t *testing.T) {
	t.Parallel()
	read := func(s *clerksync.Syncer) error { _, err := s.User(t.Context(), "user_1"); return err }
	sync := func(s *clerksync.Syncer) error { _, err := s.Sync(t.Context(), "user_1"); return err }
	keys := func(s *clerksync.Syncer) error {
		_, err := s.Authenticate(bearing("Bearer " + testSigner().sign(sessionHeader, claimsJSON("user_1", ""))))
		return err
	}
	reconcile := func(s *clerksync.Syncer) error {
		_, err := s.Reconcile(t.Context(), clerksync.ReconcileOptions{})
		return err
	}
	for name, tt := range map[string]struct {
		ask  func(*clerksync.Syncer) error
		slow bool
		most int64 // bytes that are read in all
		took time.Duration
	}{
		"visit, fast":     {read, false, 17 << 20, time.Minute},
		"Sync, fast":      {sync, false, 17 << 20, time.Minute},
		"keys, fast":      {keys, false, 17 << 20, time.Minute},
		"visit, slow":     {read, true, 100, 2 * clerksync.CallTimeout},
		"Sync, slow":      {sync, true, 100, 2 * clerksync.CallTimeout},
		"keys, slow":      {keys, true, 100, 2 * clerksync.CallTimeout},
		"Reconcile, slow": {reconcile, true, 10_000, retry.GiveUpAfter + 2*clerkapi.BulkAttemptTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := fakeclerk.NewClock(t0)
			var read atomic.Int64
			s := newTestSyncer(t, func(c *clerksync.Config) {
				c.Logger = slog.New(slog.DiscardHandler)
				clerksync.SetClock(c, eagerClock{clock})
				c.HTTPClient = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					body := &endlessBody{}
					if tt.slow { // a byte in a second
						body.wait = func() error {
							clock.Advance(time.Second)
							return r.Context().Err()
						}
					}
					return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: -1, Request: r,
						Body: struct {
							io.Reader
							io.Closer
						}{io.TeeReader(body, counter{&read}), body}}, nil
				})}
			})
			if err := tt.ask(s); !errors.Is(err, clerksync.ErrUnavailable) {
				t.Errorf("error is %v", err)
			}
			if n := read.Load(); n > tt.most {
				t.Errorf("read %d bytes", n)
			}
			if took := clock.Now().Sub(t0); took > tt.took {
				t.Errorf("it took %v", took)
			}
		})
	}
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) { c.n.Add(int64(len(p))); return len(p), nil }

// The limit is on what an answer becomes, not on what was sent.
func TestAnswerThatUnpacksToMuch(t *testing.T) {
	t.Parallel()
	bomb := gzipped([]byte(`{"id":"user_1","first_name":"` + strings.Repeat("x", 32<<20) + `"}`))
	if len(bomb) > 1<<20 {
		t.Fatalf("%d bytes are no bomb", len(bomb))
	}
	fx := newFixture(t, nil)
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		return &fakeclerk.Fault{Status: 200, Body: string(bomb), Header: http.Header{"Content-Encoding": {"gzip"}}}
	})
	refusedWith(t, fx.Syncer, "user_1", clerksync.ErrUnavailable)
}

// However long Clerk tells us to wait, no request waits for it and no client is told
// of more than a minute.
func TestHugeRetryAfter(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]struct {
		calls int
		retry time.Duration
	}{
		"60":    {1, time.Minute},
		"86400": {1, time.Minute},
		// What is no sane number of seconds is no advice.
		"86401":                         {4, 5 * time.Second},
		"9223372036854775807":           {4, 5 * time.Second},
		"99999999999999999999999999":    {4, 5 * time.Second},
		"-1":                            {4, 5 * time.Second},
		"1e9":                           {4, 5 * time.Second},
		"Fri, 31 Dec 9999 23:59:59 GMT": {4, 5 * time.Second},
		strings.Repeat("9", 100_000):    {4, 5 * time.Second},
		"30\u00a0":                      {4, 5 * time.Second},
	} {
		t.Run(value[:min(len(value), 30)], func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			fault := fakeclerk.ErrorFault(429, "too_many_requests")
			fault.Header.Set("Retry-After", value)
			fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return fault })
			_, err := fx.User(t.Context(), "user_1")
			var p *clerksync.Problem
			if !errors.As(err, &p) || p.Status != 503 || p.RetryAfter != want.retry || fx.lookups() != want.calls {
				t.Errorf("%v, Retry-After %v, after %d calls; want %+v", err, p.RetryAfter, fx.lookups(), want)
			}
			if waited := fx.clock.Now().Sub(t0); waited > clerkapi.RetryBudget {
				t.Errorf("waited %v", waited)
			}
		})
	}
	t.Run("Reconcile", func(t *testing.T) {
		t.Parallel()
		fx := newBulkFixture(t, nil)
		fault := fakeclerk.ErrorFault(429, "too_many_requests")
		fault.Header.Set("Retry-After", "86400")
		fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return fault })
		if _, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{}); !errors.Is(err, clerksync.ErrUnavailable) {
			t.Errorf("error is %v", err)
		}
		if waited := fx.clock.Now().Sub(t0); waited > 2*retry.GiveUpAfter {
			t.Errorf("waited %v", waited)
		}
	})
}

func TestFailuresOfClerk(t *testing.T) {
	t.Parallel()
	html := func(status int) *fakeclerk.Fault {
		return &fakeclerk.Fault{Status: status, ContentType: "text/html", Body: "<html>secret page</html>"}
	}
	limited := fakeclerk.ErrorFault(429, "too_many_requests")
	limited.Header.Set("Retry-After", "30")
	for name, tt := range map[string]struct {
		fault *fakeclerk.Fault
		want  error
		calls int // with retries
		retry time.Duration
	}{
		"404 in Clerk's words":    {fakeclerk.ErrorFault(404, "resource_not_found"), clerksync.ErrUserUnknown, 1, 0},
		"404 in other words":      {fakeclerk.ErrorFault(404, "host_not_found"), clerksync.ErrUnavailable, 1, 5 * time.Second},
		"404 of a proxy":          {html(404), clerksync.ErrUnavailable, 1, 5 * time.Second},
		"401":                     {fakeclerk.ErrorFault(401, "clerk_key_invalid"), clerksync.ErrUnavailable, 1, 5 * time.Second},
		"403":                     {fakeclerk.ErrorFault(403, "forbidden"), clerksync.ErrUnavailable, 1, 5 * time.Second},
		"429 for longer":          {limited, clerksync.ErrUnavailable, 1, 30 * time.Second},
		"500":                     {fakeclerk.ErrorFault(500, "internal_clerk_error"), clerksync.ErrUnavailable, 4, 5 * time.Second},
		"502 of a proxy":          {html(502), clerksync.ErrUnavailable, 4, 5 * time.Second},
		"HTML and 200":            {html(200), clerksync.ErrUnavailable, 1, 5 * time.Second},
		"304":                     {&fakeclerk.Fault{Status: 304}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"204":                     {&fakeclerk.Fault{Status: 204}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"empty":                   {&fakeclerk.Fault{Status: 200, Body: " "}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"null":                    {&fakeclerk.Fault{Status: 200, Body: "null"}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"an array":                {&fakeclerk.Fault{Status: 200, Body: "[]"}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"half a document":         {&fakeclerk.Fault{Status: 200, Body: `{"id":"user_1","first_n`}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"a broken connection":     {&fakeclerk.Fault{Truncate: true}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"another user":            {&fakeclerk.Fault{Status: 200, Body: documentedUser}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"a user from the future":  {&fakeclerk.Fault{Status: 200, Body: userJSON("user_1", t0.Add(48*time.Hour))}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"a name of another type":  {&fakeclerk.Fault{Status: 200, Body: `{"id":"user_1","first_name":{}}`}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"more than anybody reads": {&fakeclerk.Fault{Status: 200, Body: `{"id":"user_1","first_name":"` + strings.Repeat("x", 17<<20) + `"}`}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"no answer":               {&fakeclerk.Fault{Hang: true}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"an answer after an hour": {&fakeclerk.Fault{Delay: time.Hour}, clerksync.ErrUnavailable, 1, 5 * time.Second},
		"an answer after 5 s":     {&fakeclerk.Fault{Delay: 5 * time.Second}, nil, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			fx.clerk.CreateUser(fakeclerk.NewUser{ID: "user_1"})
			fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
				f := *tt.fault
				if f.Hang {
					go fx.clock.Advance(clerksync.CallTimeout)
				}
				if f.Delay > 0 {
					f.BeforeSend = func() { fx.clock.Advance(min(f.Delay, clerksync.CallTimeout)) }
				}
				return &f
			})
			u, err := fx.User(t.Context(), "user_1")
			if !errors.Is(err, tt.want) || (err == nil) != (u != nil) {
				t.Fatalf("got %+v, %v; want %v", u, err, tt.want)
			}
			if got := fx.lookups(); got != tt.calls {
				t.Errorf("%d Clerk calls, want %d", got, tt.calls)
			}
			var p *clerksync.Problem
			if errors.As(err, &p) && (p.Status != 503 || p.RetryAfter != tt.retry) {
				t.Errorf("problem is %+v", p)
			}
			if err != nil && (strings.Contains(err.Error(), "secret page") || strings.Contains(err.Error(), fx.clerk.SecretKey())) {
				t.Errorf("the error shows too much: %v", err)
			}
			_, err = fx.store.Store.User(t.Context(), "user_1")
			if errors.Is(err, clerksync.ErrNotFound) != (u == nil) {
				t.Errorf("record in the Store: %v", err)
			}
		})
	}
}

// The secret key goes to no host that an answer names.
func TestClerkRedirectsNobody(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		return &fakeclerk.Fault{Status: http.StatusTemporaryRedirect, Header: http.Header{"Location": {fx.clerk.APIURL() + "/jwks"}}}
	})
	refusedWith(t, fx.Syncer, id, clerksync.ErrUnavailable)
	if n := fx.clerk.Calls("GET /v1/jwks"); n != 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
}

func TestClerkRecoversWithinTheBudget(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]*fakeclerk.Fault{
		"500": fakeclerk.ErrorFault(500, "x"),
		"429": func() *fakeclerk.Fault {
			f := fakeclerk.ErrorFault(429, "too_many_requests")
			f.Header.Set("Retry-After", "2")
			return f
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			id := fx.clerk.CreateUser(fakeclerk.NewUser{})
			var calls atomic.Int32
			fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
				if calls.Add(1) == 1 {
					return fault
				}
				return nil
			})
			u := visit(t, fx.Syncer, id)
			if !u.SyncedAt.Equal(fx.clock.Now().Truncate(time.Millisecond)) {
				t.Errorf("SyncedAt is %v, want the time of the attempt that succeeded, %v", u.SyncedAt, fx.clock.Now())
			}
			if waited := fx.clock.Now().Sub(t0); waited == 0 || waited > clerkapi.RetryBudget {
				t.Errorf("waited %v", waited)
			}
		})
	}
}

func TestOwnBackend(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	url, key := fx.clerk.APIURL(), fx.clerk.SecretKey()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	s := fx.syncer(t, func(c *clerksync.Config) {
		c.APIURL, c.HTTPClient, c.SecretKey = "", nil, ""
		c.Backend = clerk.NewBackend(&clerk.BackendConfig{URL: &url, Key: &key, HTTPClient: client})
	})
	if u := visit(t, s, id); u.Name != "Ada" {
		t.Errorf("record is %+v", u)
	}
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return fakeclerk.ErrorFault(500, "x") })
	refusedWith(t, s, "user_2", clerksync.ErrUnavailable)
	if fx.lookups() != 2 {
		t.Errorf("%d calls: a Backend of the app's own is called once", fx.lookups())
	}
}
