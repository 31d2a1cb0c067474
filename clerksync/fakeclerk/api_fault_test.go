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
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

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
		{"a change behind the answer", &fakeclerk.Fault{BeforeSend: func() {
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
