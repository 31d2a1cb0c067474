package clerksync_test

import (
	"cmp"
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

// An answer that never ends, from Clerk or from whoever answers in its place, is cut off by size
// and by time.
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
					return &http.Response{
						StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}},
						ContentLength: -1, Request: r, Body: struct {
							io.Reader
							io.Closer
						}{io.TeeReader(body, counter{&read}), body},
					}, nil
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

// The size limit applies to the unpacked answer.
func TestAnswerThatUnpacksToMuch(t *testing.T) {
	t.Parallel()
	bomb := gzipped([]byte(`{"id":"user_1","first_name":"` + strings.Repeat("x", 32<<20) + `"}`))
	if len(bomb) > 1<<20 {
		t.Fatalf("the packed answer has %d bytes, which is over the limit itself", len(bomb))
	}
	fx := newFixture(t, nil)
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		return &fakeclerk.Fault{Status: 200, Body: string(bomb), Header: http.Header{"Content-Encoding": {"gzip"}}}
	})
	visitFails(t, fx.Syncer, "user_1", clerksync.ErrUnavailable)
}

// However long Clerk's Retry-After is, no request waits for it, and no client is told to wait over
// a minute.
func TestHugeRetryAfter(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]struct {
		calls int
		retry time.Duration
	}{
		"60":    {1, time.Minute},
		"86400": {1, time.Minute},
		// Anything but a plausible number of seconds is ignored.
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
			if !errors.As(err, &p) || p.Status != 503 || p.RetryAfter != want.retry || fx.userCalls() != want.calls {
				t.Errorf("%v, Retry-After %v, after %d calls; want %+v", err, p.RetryAfter, fx.userCalls(), want)
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
		_, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{})
		if !errors.Is(err, clerksync.ErrUnavailable) {
			t.Errorf("error is %v", err)
		}
		if waited := fx.clock.Now().Sub(t0); waited > 2*retry.GiveUpAfter {
			t.Errorf("waited %v", waited)
		}
	})
}

// failure is an answer of Clerk's, and what a visit makes of it.
type failure struct {
	fault *fakeclerk.Fault
	want  error         // defaults to ErrUnavailable
	calls int           // with retries; defaults to 1
	retry time.Duration // Retry-After; defaults to 5 s
}

// failuresOfClerk are all answers but a good one.
func failuresOfClerk() map[string]failure {
	html := func(status int) *fakeclerk.Fault {
		return &fakeclerk.Fault{Status: status, ContentType: "text/html", Body: "<html>secret page</html>"}
	}
	body := func(text string) *fakeclerk.Fault { return &fakeclerk.Fault{Status: 200, Body: text} }
	unknown := fakeclerk.ErrorFault(404, "resource_not_found")
	limited := fakeclerk.ErrorFault(429, "too_many_requests")
	limited.Header.Set("Retry-After", "30")
	tooLong := `{"id":"user_1","first_name":"` + strings.Repeat("x", 17<<20) + `"}`
	return map[string]failure{
		"404 of Clerk's":          {fault: unknown, want: clerksync.ErrUserUnknown},
		"404 with another code":   {fault: fakeclerk.ErrorFault(404, "host_not_found")},
		"404 of a proxy":          {fault: html(404)},
		"401":                     {fault: fakeclerk.ErrorFault(401, "clerk_key_invalid")},
		"403":                     {fault: fakeclerk.ErrorFault(403, "forbidden")},
		"429 for longer":          {fault: limited, retry: 30 * time.Second},
		"500":                     {fault: fakeclerk.ErrorFault(500, "internal_clerk_error"), calls: 4},
		"502 of a proxy":          {fault: html(502), calls: 4},
		"HTML and 200":            {fault: html(200)},
		"304":                     {fault: &fakeclerk.Fault{Status: 304}},
		"204":                     {fault: &fakeclerk.Fault{Status: 204}},
		"empty":                   {fault: body(" ")},
		"null":                    {fault: body("null")},
		"an array":                {fault: body("[]")},
		"half a document":         {fault: body(`{"id":"user_1","first_n`)},
		"a broken connection":     {fault: &fakeclerk.Fault{Truncate: true}},
		"another user":            {fault: body(documentedUser)},
		"a user from the future":  {fault: body(userJSON("user_1", t0.Add(48*time.Hour)))},
		"a name of another type":  {fault: body(`{"id":"user_1","first_name":{}}`)},
		"larger than the limit":   {fault: body(tooLong)},
		"no answer":               {fault: &fakeclerk.Fault{Hang: true}},
		"an answer after an hour": {fault: &fakeclerk.Fault{Delay: time.Hour}},
	}
}

func TestFailuresOfClerk(t *testing.T) {
	t.Parallel()
	for name, tt := range failuresOfClerk() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := tt.want
			if want == nil {
				want = clerksync.ErrUnavailable
			}
			fx := newFixture(t, nil)
			fx.clerk.CreateUser(fakeclerk.NewUser{ID: "user_1"})
			fx.answerUsersWith(tt.fault)
			u, err := fx.User(t.Context(), "user_1")
			if !errors.Is(err, want) || u != nil {
				t.Fatalf("got %+v, %v; want %v", u, err, want)
			}
			if got := fx.userCalls(); got != cmp.Or(tt.calls, 1) {
				t.Errorf("%d Clerk calls, want %d", got, cmp.Or(tt.calls, 1))
			}
			var p *clerksync.Problem
			if errors.As(err, &p) && (p.Status != 503 || p.RetryAfter != cmp.Or(tt.retry, 5*time.Second)) {
				t.Errorf("problem is %+v", p)
			}
			if s := err.Error(); strings.Contains(s, "secret page") || strings.Contains(s, fx.clerk.SecretKey()) {
				t.Errorf("the error shows too much: %v", err)
			}
			if _, err = fx.store.Store.User(t.Context(), "user_1"); !errors.Is(err, clerksync.ErrNotFound) {
				t.Errorf("record in the Store: %v", err)
			}
		})
	}
}

func TestSlowAnswerOfClerk(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	fx.clerk.CreateUser(fakeclerk.NewUser{ID: "user_1"})
	fx.answerUsersWith(&fakeclerk.Fault{Delay: 5 * time.Second})
	visit(t, fx.Syncer, "user_1")
	if got := fx.userCalls(); got != 1 {
		t.Errorf("%d Clerk calls, want 1", got)
	}
	fx.stored(t, "user_1")
}

// answerUsersWith has Clerk answer with the fault. If it hangs or waits, the clock moves on.
func (fx *fixture) answerUsersWith(fault *fakeclerk.Fault) {
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		f := *fault
		if f.Hang {
			go fx.clock.Advance(clerksync.CallTimeout)
		}
		if f.Delay > 0 {
			f.BeforeSend = func() { fx.clock.Advance(min(f.Delay, clerksync.CallTimeout)) }
		}
		return &f
	})
}

// The secret key is not sent to a host that an answer names.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		location := http.Header{"Location": {fx.clerk.APIURL() + "/jwks"}}
		return &fakeclerk.Fault{Status: http.StatusTemporaryRedirect, Header: location}
	})
	visitFails(t, fx.Syncer, id, clerksync.ErrUnavailable)
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
	visitFails(t, s, "user_2", clerksync.ErrUnavailable)
	if fx.userCalls() != 2 {
		t.Errorf("%d calls: the app's own Backend is called once, without retries", fx.userCalls())
	}
}
