package fakeclerk_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/jwks"
	"github.com/clerk/clerk-sdk-go/v2/user"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

func TestAuthorization(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{SecretKey: "sk_test_right", InstanceID: testInstance})
	for _, test := range []struct {
		name, header, code string
		status             int
	}{
		{"right", "Bearer sk_test_right", "", 200},
		{"none", "", "authentication_invalid", 401},
		{"wrong", "Bearer sk_test_wrong", "clerk_key_invalid", 401},
		{"empty", "Bearer ", "clerk_key_invalid", 401},
		{"other scheme", "Basic sk_test_right", "clerk_key_invalid", 401},
	} {
		for _, path := range []string{"/users", "/jwks"} {
			r, err := http.NewRequestWithContext(t.Context(), "GET", s.APIURL()+path, nil)
			must(t, err)
			if test.header != "" {
				r.Header.Set("Authorization", test.header)
			}
			res, err := http.DefaultClient.Do(r)
			must(t, err)
			body, err := io.ReadAll(res.Body)
			must(t, err)
			res.Body.Close()
			if test.code != "" {
				checkShape(t, "errors", body)
				var e clerk.APIErrorResponse
				must(t, json.Unmarshal(body, &e))
				check(t, test.name+path+": code", e.Errors[0].Code, test.code)
			}
			check(t, test.name+path, res.StatusCode, test.status)
		}
	}
}

func TestNoRoute(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{})
	for _, path := range []string{"/nothing", "/users/user_x/nothing", "/"} {
		res, body := get(t, s, path)
		check(t, path, res.StatusCode, 404)
		if !strings.Contains(string(body), "resource_not_found") {
			t.Errorf("%s: %s", path, body)
		}
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		cfg  fakeclerk.Config
		want int
	}{
		{"development", fakeclerk.Config{InstanceID: testInstance}, 100},
		{"production", fakeclerk.Config{InstanceID: testInstance, SecretKey: "sk_live_x"}, 1000},
		{"configured", fakeclerk.Config{InstanceID: testInstance, RateLimit: 3}, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, clock := startClocked(t, test.cfg)
			id := s.CreateUser(fakeclerk.NewUser{})
			for i := range test.want {
				if res, _ := get(t, s, "/users/"+id); res.StatusCode != 200 {
					t.Fatalf("request %d: %d", i, res.StatusCode)
				}
			}
			clock.Advance(7500 * time.Millisecond)
			_, err := userClient(s).Get(t.Context(), id)
			e := apiError(t, "over the limit", err, 429, "too_many_requests")
			check(t, "Retry-After", e.Response.Header.Get("Retry-After"), "3")
			res, _ := get(t, s, "/jwks")
			check(t, "JWKS", res.StatusCode, 200)
			check(t, "RateLimited", s.RateLimited(), 1)

			clock.Advance(2499 * time.Millisecond)
			res, _ = get(t, s, "/users")
			check(t, "just before the window ends", res.StatusCode, 429)
			check(t, "Retry-After at the end", res.Header.Get("Retry-After"), "1")
			clock.Advance(time.Millisecond)
			res, _ = get(t, s, "/users")
			check(t, "in the next window", res.StatusCode, 200)
		})
	}
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		s, _ := startClocked(t, fakeclerk.Config{RateLimit: -1})
		for range 150 {
			if res, _ := get(t, s, "/users/count"); res.StatusCode != 200 {
				t.Fatal(res.Status)
			}
		}
	})
}

func TestCalls(t *testing.T) {
	t.Parallel()
	s, _ := startClocked(t, fakeclerk.Config{RateLimit: 5, InstanceID: testInstance})
	users := userClient(s)
	id := s.CreateUser(fakeclerk.NewUser{})
	for range 2 {
		_, err := users.Get(t.Context(), id)
		must(t, err)
	}
	_, err := users.List(t.Context(), &user.ListParams{})
	must(t, err)
	_, err = jwksClient(s).Get(t.Context(), &jwks.GetParams{})
	must(t, err)
	get(t, s, "/nothing")
	get(t, s, "/users") // refused by the rate limit, but counted
	for route, want := range map[string]int{
		"GET /v1/users/{id}": 2, "GET /v1/users": 2, "GET /v1/users/count": 1, "POST /v1/users": 0,
		"GET /v1/jwks": 1, "": 7,
	} {
		check(t, route, s.Calls(route), want)
	}
	check(t, "RateLimited", s.RateLimited(), 1)
	s.ResetCalls()
	check(t, "after ResetCalls", s.Calls("")+s.RateLimited(), 0)
}

func TestAnswersAreDatedByTheClock(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{})
	clock.Advance(time.Hour)
	res, _ := get(t, s, "/users")
	check(t, "Date", res.Header.Get("Date"), epoch.Add(time.Hour).Format(http.TimeFormat))
	check(t, "Now", s.Now(), epoch.Add(time.Hour))
}

func TestFaults(t *testing.T) {
	t.Parallel()
	s, _ := startClocked(t, fakeclerk.Config{InstanceID: testInstance})
	id := s.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	other, _ := s.User(s.CreateUser(fakeclerk.NewUser{ID: "user_other"}))
	throttle := fakeclerk.ErrorFault(429, "too_many_requests")
	throttle.Header.Set("Retry-After", "7")

	for _, test := range []struct {
		name  string
		fault *fakeclerk.Fault
		check func(t *testing.T, u *clerk.User, err error)
	}{
		{"nil", nil, func(t *testing.T, u *clerk.User, err error) {
			must(t, err)
			check(t, "id", u.ID, id)
		}},
		{"zero", &fakeclerk.Fault{}, func(t *testing.T, u *clerk.User, err error) {
			must(t, err)
			check(t, "id", u.ID, id)
		}},
		{"401", fakeclerk.ErrorFault(401, "clerk_key_invalid"), func(t *testing.T, _ *clerk.User, err error) {
			apiError(t, "error", err, 401, "clerk_key_invalid")
		}},
		{"429", throttle, func(t *testing.T, _ *clerk.User, err error) {
			e := apiError(t, "error", err, 429, "too_many_requests")
			check(t, "Retry-After", e.Response.Header.Get("Retry-After"), "7")
		}},
		{"500", fakeclerk.ErrorFault(500, "internal_clerk_error"), func(t *testing.T, _ *clerk.User, err error) {
			apiError(t, "error", err, 500, "internal_clerk_error")
		}},
		{"a proxy's page", &fakeclerk.Fault{
			Status: 502, ContentType: "text/html", Body: "<html>bad gateway</html>",
		}, func(t *testing.T, _ *clerk.User, err error) {
			if err == nil || err.Error() != "<html>bad gateway</html>" {
				t.Errorf("error: got %v, want the page", err)
			}
		}},
		{"another user", &fakeclerk.Fault{Body: string(other)}, func(t *testing.T, u *clerk.User, err error) {
			must(t, err)
			check(t, "id", u.ID, "user_other")
		}},
		{"304", &fakeclerk.Fault{Status: 304}, func(t *testing.T, u *clerk.User, err error) {
			must(t, err) // the SDK does not treat a 304 as an error
			check(t, "id", u.ID, "")
			check(t, "status", u.Response.StatusCode, 304)
		}},
		{"half a document", &fakeclerk.Fault{
			Body: string(other[:len(other)/2]),
		}, func(t *testing.T, _ *clerk.User, err error) {
			var syntax *json.SyntaxError
			if !errors.As(err, &syntax) {
				t.Errorf("error: got %v, want a JSON syntax error", err)
			}
		}},
		{"a broken connection", &fakeclerk.Fault{Truncate: true}, func(t *testing.T, _ *clerk.User, err error) {
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("error: got %v, want io.ErrUnexpectedEOF", err)
			}
		}},
		{"a header on Clerk's own answer", &fakeclerk.Fault{
			Header: http.Header{"x-extra": {"1"}},
		}, func(t *testing.T, u *clerk.User, err error) {
			must(t, err)
			check(t, "header", u.Response.Header.Get("X-Extra"), "1")
			check(t, "id", u.ID, id)
		}},
		{"a user who changes before the answer is sent", &fakeclerk.Fault{BeforeSend: func() {
			must(t, s.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("Augusta") }))
		}}, func(t *testing.T, u *clerk.User, err error) {
			must(t, err)
			check(t, "answered", *u.FirstName, "Ada")
			check(t, "by now", *object(t, s, id).FirstName, "Augusta")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.SetFault(func(*http.Request) *fakeclerk.Fault { return test.fault })
			u, err := userClient(s).Get(t.Context(), id)
			test.check(t, u, err)
		})
	}
	check(t, "RateLimited", s.RateLimited(), 1)

	s.SetFault(func(r *http.Request) *fakeclerk.Fault {
		if strings.HasSuffix(r.URL.Path, "/jwks") {
			return fakeclerk.ErrorFault(500, "internal_clerk_error")
		}
		return nil
	})
	_, err := jwksClient(s).Get(t.Context(), &jwks.GetParams{})
	apiError(t, "JWKS", err, 500, "internal_clerk_error")
	_, err = userClient(s).Get(t.Context(), id)
	must(t, err)

	s.SetFault(nil)
	_, err = jwksClient(s).Get(t.Context(), &jwks.GetParams{})
	must(t, err)
}

func TestSlowAnswer(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{})
	id := s.CreateUser(fakeclerk.NewUser{})
	ready := make(chan struct{})
	s.SetFault(func(*http.Request) *fakeclerk.Fault {
		return &fakeclerk.Fault{Delay: 3 * time.Second, BeforeSend: func() { close(ready) }}
	})
	answered := make(chan error, 1)
	go func() {
		_, err := userClient(s).Get(t.Context(), id)
		answered <- err
	}()
	<-ready
	due, _ := clock.Next()
	check(t, "due", due, epoch.Add(3*time.Second))
	clock.Advance(3*time.Second - 1)
	select {
	case err := <-answered:
		t.Fatalf("answered too early: %v", err)
	default:
	}
	clock.Advance(1)
	must(t, <-answered)
}

func TestHang(t *testing.T) {
	t.Parallel()
	t.Run("until the client gives up", func(t *testing.T) {
		t.Parallel()
		s, _ := startClocked(t, fakeclerk.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		s.SetFault(func(*http.Request) *fakeclerk.Fault { cancel(); return &fakeclerk.Fault{Hang: true} })
		_, err := userClient(s).Get(ctx, "user_x")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error: got %v, want context.Canceled", err)
		}
	})
	t.Run("until the server closes", func(t *testing.T) {
		t.Parallel()
		s, _ := startClocked(t, fakeclerk.Config{})
		received := make(chan struct{})
		s.SetFault(func(*http.Request) *fakeclerk.Fault { close(received); return &fakeclerk.Fault{Hang: true} })
		failed := make(chan error, 1)
		go func() {
			_, err := userClient(s).Get(t.Context(), "user_x")
			failed <- err
		}()
		<-received
		must(t, s.Close())
		if err := <-failed; err == nil {
			t.Error("the request was answered")
		}
		must(t, s.Close()) // a second Close
		check(t, "Calls after Close", s.Calls("GET /v1/users/{id}"), 1)
	})
}
