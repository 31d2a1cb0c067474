package fakeclerk_test

import (
	"encoding/json"
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
