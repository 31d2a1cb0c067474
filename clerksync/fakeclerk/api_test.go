package fakeclerk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/jwks"
	"github.com/clerk/clerk-sdk-go/v2/user"
	"github.com/google/go-cmp/cmp"

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

func TestSDKLifecycle(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s, clock := startClocked(t, fakeclerk.Config{})
	users := userClient(s)
	endpoint := s.AddEndpoint("http://127.0.0.1:1", fakeclerk.EndpointOptions{})
	endpoint.Hold()

	u, err := users.Create(ctx, &user.CreateParams{
		FirstName:      clerk.String("Ada"),
		EmailAddresses: &[]string{"ada@example.com", "countess@example.com"},
		PhoneNumbers:   &[]string{"+15550100"},
		Web3Wallets:    &[]string{"0xada"},
		Username:       clerk.String("ada"), Password: clerk.String("correct horse"),
		PublicMetadata:  raw(`{"a":{"b":1,"c":2}}`),
		LegalAcceptedAt: clerk.String(epoch.Format(time.RFC3339)),
	})
	must(t, err)
	check(t, "created: first name", *u.FirstName, "Ada")
	check(t, "created: primary email", *u.PrimaryEmailAddressID, u.EmailAddresses[0].ID)
	check(t, "created: verified", u.EmailAddresses[1].Verification.Status, "verified")
	check(t, "created: primary phone", *u.PrimaryPhoneNumberID, u.PhoneNumbers[0].ID)
	check(t, "created: primary wallet", *u.PrimaryWeb3WalletID, u.Web3Wallets[0].ID)
	check(t, "created: password", u.PasswordEnabled, true)
	check(t, "created: created_at", u.CreatedAt, epoch.UnixMilli())
	check(t, "created: legal_accepted_at", *u.LegalAcceptedAt, epoch.UnixMilli())

	got, err := users.Get(ctx, u.ID)
	must(t, err)
	check(t, "got: id", got.ID, u.ID)
	own, _ := s.User(u.ID)
	check(t, "got: the bytes that User returns", string(got.Response.RawJSON), string(own))

	clock.Advance(time.Second)
	updated, err := users.Update(ctx, u.ID, &user.UpdateParams{
		LastName: clerk.String("Lovelace"), Username: clerk.String(""),
		PrimaryEmailAddressID: clerk.String(u.EmailAddresses[1].ID),
	})
	must(t, err)
	check(t, "updated: first name", *updated.FirstName, "Ada")
	check(t, "updated: last name", *updated.LastName, "Lovelace")
	check(t, "updated: username removed", updated.Username == nil, true)
	check(t, "updated: primary email", *updated.PrimaryEmailAddressID, u.EmailAddresses[1].ID)
	check(t, "updated: updated_at", updated.UpdatedAt, epoch.Add(time.Second).UnixMilli())

	merged, err := users.UpdateMetadata(ctx, u.ID, &user.UpdateMetadataParams{
		PublicMetadata: raw(`{"a":{"b":null,"d":3},"e":{"f":4}}`),
	})
	must(t, err)
	check(t, "merged metadata", string(merged.PublicMetadata), `{"a":{"c":2,"d":3},"e":{"f":4}}`)
	replaced, err := users.ReplaceMetadata(ctx, u.ID, &user.ReplaceMetadataParams{
		PublicMetadata: raw(`{"x":1}`), UnsafeMetadata: raw(`{"y":2}`),
	})
	must(t, err)
	check(t, "replaced metadata", string(replaced.PublicMetadata)+string(replaced.UnsafeMetadata), `{"x":1}{"y":2}`)

	banned, err := users.Ban(ctx, u.ID)
	must(t, err)
	check(t, "banned", banned.Banned, true)
	unbanned, err := users.Unban(ctx, u.ID)
	must(t, err)
	check(t, "unbanned", unbanned.Banned, false)

	deleted, err := users.Delete(ctx, u.ID)
	must(t, err)
	check(t, "deleted", *deleted, clerk.DeletedResource{
		APIResource: deleted.APIResource, ID: u.ID, Object: "user", Deleted: true,
	})
	_, err = users.Get(ctx, u.ID)
	e := apiError(t, "get after the deletion", err, 404, "resource_not_found")
	check(t, "long message", e.Errors[0].LongMessage, "No user was found with id "+u.ID)
	for name, f := range map[string]func() error{
		"delete": func() error { _, err := users.Delete(ctx, u.ID); return err },
		"ban":    func() error { _, err := users.Ban(ctx, u.ID); return err },
		"update": func() error {
			_, err := users.Update(ctx, u.ID, &user.UpdateParams{FirstName: clerk.String("x")})
			return err
		},
		"metadata": func() error {
			_, err := users.UpdateMetadata(ctx, u.ID, &user.UpdateMetadataParams{})
			return err
		},
	} {
		apiError(t, name+" after the deletion", f(), 404, "resource_not_found")
	}

	var types []string
	for _, m := range endpoint.Messages() {
		types = append(types, m.Type)
	}
	want := append([]string{"user.created"}, slices.Repeat([]string{"user.updated"}, 5)...)
	if diff := cmp.Diff(append(want, "user.deleted"), types); diff != "" {
		t.Errorf("webhooks (-want +got):\n%s", diff)
	}
}

func TestRefusedWrites(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := start(t, fakeclerk.Config{RateLimit: -1})
	users := userClient(s)
	s.CreateUser(fakeclerk.NewUser{Email: "taken@example.com", Username: "taken", ExternalID: "taken"})
	id := s.CreateUser(fakeclerk.NewUser{Email: "mine@example.com"})
	before, _ := s.User(id)

	for _, test := range []struct {
		name string
		do   func() (*clerk.User, error)
		code string
	}{
		{"an e-mail address in use", func() (*clerk.User, error) {
			return users.Create(ctx, &user.CreateParams{EmailAddresses: &[]string{"taken@example.com"}})
		}, "form_identifier_exists"},
		{"not an e-mail address", func() (*clerk.User, error) {
			return users.Create(ctx, &user.CreateParams{EmailAddresses: &[]string{"nonsense"}})
		}, "form_param_format_invalid"},
		{"an external id in use", func() (*clerk.User, error) {
			return users.Update(ctx, id, &user.UpdateParams{
				FirstName: clerk.String("x"), ExternalID: clerk.String("taken"),
			})
		}, "form_identifier_exists"},
		{"another's e-mail address as the primary one", func() (*clerk.User, error) {
			return users.Update(ctx, id, &user.UpdateParams{
				FirstName: clerk.String("x"), PrimaryEmailAddressID: clerk.String("idn_x"),
			})
		}, "form_param_value_invalid"},
		{"metadata that is not an object", func() (*clerk.User, error) {
			return users.UpdateMetadata(ctx, id, &user.UpdateMetadataParams{PublicMetadata: raw(`[]`)})
		}, "form_param_format_invalid"},
	} {
		_, err := test.do()
		apiError(t, test.name, err, 422, test.code)
	}
	after, _ := s.User(id)
	check(t, "after refused writes", string(after), string(before))
	check(t, "users", len(s.UserIDs()), 2)

	// CreateUser allows an address that is in use. A change of another field still works then.
	s.CreateUser(fakeclerk.NewUser{Email: "mine@example.com"})
	_, err := users.Update(ctx, id, &user.UpdateParams{FirstName: clerk.String("Ada")})
	must(t, err)

	for _, test := range []struct {
		name, body, version string
		want                int
	}{
		{"metadata in PATCH", `{"public_metadata":{"a":1}}`, "2026-05-12", 422},
		{"metadata in PATCH, in an older API version", `{"public_metadata":{"a":1}}`, "2025-11-10", 200},
		{"an unknown parameter", `{"frist_name":"x"}`, "", 422},
		{"a value of the wrong type", `{"first_name":1}`, "", 422},
		{"not JSON", `{`, "", 400},
	} {
		res, _ := do(t, s, "PATCH", "/users/"+id, test.body, "Clerk-API-Version", test.version)
		check(t, test.name, res.StatusCode, test.want)
	}
}

// TestJavaScriptSDK makes requests that only @clerk/backend 3.25.0 makes, and clerk-sdk-go v2.7.0
// cannot: some have a timezone, and a request without fields has no body.
func TestJavaScriptSDK(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{RateLimit: -1})
	id := s.CreateUser(fakeclerk.NewUser{PublicMetadata: map[string]any{"a": 1}})

	for _, test := range []struct {
		name, method, path, body string
		status                   int
		zone                     any // timezone in the answer
	}{
		{"updateUserMetadata without fields", "PATCH", "/users/" + id + "/metadata", "", 200, nil},
		{"replaceUserMetadata without fields", "PUT", "/users/" + id + "/metadata", "", 200, nil},
		{"updateUser without fields", "PATCH", "/users/" + id, "", 400, nil},
		{"createUser without fields", "POST", "/users", "", 400, nil},
		{"half a body", "PATCH", "/users/" + id + "/metadata", `{"public_metadata":`, 400, nil},
		{"createUser with a timezone", "POST", "/users", `{"timezone":"Europe/Zurich"}`, 200, "Europe/Zurich"},
		{"updateUser with a timezone", "PATCH", "/users/" + id, `{"timezone":"Asia/Tokyo"}`, 200, "Asia/Tokyo"},
		{"updateUser of another field", "PATCH", "/users/" + id, `{"first_name":"Ada"}`, 200, "Asia/Tokyo"},
		{"updateUser with a timezone of the wrong type", "PATCH", "/users/" + id, `{"timezone":1}`, 422, nil},
		{"updateUser that removes the timezone", "PATCH", "/users/" + id, `{"timezone":null}`, 200, nil},
	} {
		res, body := do(t, s, test.method, test.path, test.body)
		var answer map[string]any
		must(t, json.Unmarshal(body, &answer))
		check(t, test.name, res.StatusCode, test.status)
		check(t, test.name+": timezone", answer["timezone"], test.zone)
	}
	check(t, "metadata", string(object(t, s, id).PublicMetadata), `{"a":1}`)
}

func TestListUsers(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{RateLimit: -1})
	// The ids are in the order of creation. c and d are created in the same millisecond.
	ids := map[string]string{}
	for i, u := range []fakeclerk.NewUser{
		{
			ID: "user_a", FirstName: "Zoe", Email: "Zoe@example.com", Phone: "+15550101",
			Username: "zed", ExternalID: "1",
		},
		{ID: "user_b", FirstName: "Yann", LastName: "Zulu", Email: "yann@example.org", ExternalID: "2"},
		{ID: "user_c", FirstName: "Xi", Phone: "+4930123"},
		{ID: "user_d"},
		{ID: "user_e", FirstName: "Abe"},
	} {
		if i != 3 {
			clock.Advance(time.Second)
		}
		ids[u.ID] = s.CreateUser(u)
	}
	clock.Advance(time.Second)
	must(t, s.UpdateUser("user_b", func(u *fakeclerk.UserObject) { u.LastName = nil }))
	clock.Advance(time.Second)
	must(t, s.SignIn("user_a"))
	clock.Advance(time.Second)
	must(t, s.BanUser("user_c"))
	ms := func(d time.Duration) string { return fmt.Sprint(epoch.Add(d).UnixMilli()) }

	for _, test := range []struct {
		query string
		want  string // last letters of the ids
		count int    // of GET /users/count; -1: as many as listed
	}{
		{"", "edcba", -1},
		{"order_by=created_at", "abcde", -1},
		{"order_by=%2Bcreated_at", "abcde", -1},
		{"order_by=+created_at", "abcde", -1}, // a client that does not escape the +
		{"order_by=-created_at&order_by=created_at", "edcba", -1},
		{"order_by=-updated_at", "cabed", -1},
		{"order_by=updated_at", "debac", -1},
		{"order_by=-last_sign_in_at&limit=1", "a", 5},
		{"order_by=first_name", "decba", -1},
		{"order_by=-email_address&limit=2", "ba", 5},
		{"limit=2", "ed", 5},
		{"limit=2&offset=1", "dc", 5},
		{"offset=99", "", 5},
		{"limit=500", "edcba", -1},

		{"starting_after=user_d", "cba", 5},
		{"starting_after=user_c&limit=1", "b", 5},
		{"starting_after=user_a", "", 5},
		{"starting_after=user_b&order_by=created_at", "cde", 5},
		{"starting_after=user_c&order_by=%2Bcreated_at&limit=1&offset=0", "d", 5},
		{"starting_after=user_e&banned=false", "dba", 4},

		{"user_id=user_a&user_id=user_c&user_id=user_nobody", "ca", -1},
		{"user_id=%2Buser_a", "a", -1},
		{"user_id=-user_a", "edcb", -1},
		{"external_id=2", "b", -1},
		{"username=zed&username=nobody", "a", -1},
		{"email_address=yann@example.org", "b", -1},
		{"phone_number=%2B4930123", "c", -1},
		{"web3_wallet=0x", "", -1},
		{"banned=true", "c", -1},
		{"banned=false", "edba", -1},
		{"query=zOe", "a", -1},
		{"query=USER_", "edcba", -1},
		{"email_address_query=EXAMPLE.", "ba", -1},
		{"phone_number_query=555", "a", -1},
		{"username_query=Z", "a", -1},
		{"name_query=x", "c", -1},
		{"created_at_after=" + ms(2*time.Second), "edc", -1},
		{"created_at_before=" + ms(2*time.Second), "a", -1},
		{"last_sign_in_at_after=" + ms(0), "a", -1},
		{"last_active_at_since=" + ms(6*time.Second), "a", -1},
		{"last_active_at_before=" + ms(time.Hour), "a", -1},
		{"paginated=true&unknown=1", "edcba", -1},
	} {
		t.Run(test.query, func(t *testing.T) {
			res, body := get(t, s, "/users?"+test.query)
			check(t, "status", res.StatusCode, 200)
			var users []clerk.User
			must(t, json.Unmarshal(body, &users))
			got := ""
			for _, u := range users {
				got += strings.TrimPrefix(u.ID, "user_")
			}
			check(t, "users", got, test.want)

			count := test.count
			if count < 0 {
				count = len(users)
			}
			_, body = get(t, s, "/users/count?"+test.query)
			check(t, "count", string(body), fmt.Sprintf(`{"object":"total_count","total_count":%d}`, count))
		})
	}

	many := url.Values{}
	for i := range 101 {
		many.Add("user_id", fmt.Sprint("user_", i))
	}
	for _, test := range []struct {
		query string
		code  string
	}{
		{"limit=0", "form_param_format_invalid"},
		{"limit=ten", "form_param_format_invalid"},
		{"offset=-1", "form_param_format_invalid"},
		{"order_by=shoe_size", "form_param_value_invalid"},
		{"starting_after=user_c&order_by=-updated_at", "form_param_value_invalid"},
		{"starting_after=user_c&offset=1", "form_param_value_invalid"},
		{"starting_after=user_nobody", "form_param_value_invalid"},
		{"created_at_after=yesterday", "form_param_format_invalid"},
		{"banned=perhaps", "form_param_format_invalid"},
		{"organization_id=org_1", "form_param_unknown"},
		{many.Encode(), "form_param_exceeds_allowed_size"},
	} {
		t.Run("422 "+test.query[:min(len(test.query), 60)], func(t *testing.T) {
			res, body := get(t, s, "/users?"+test.query)
			check(t, "status", res.StatusCode, 422)
			var e clerk.APIErrorResponse
			must(t, json.Unmarshal(body, &e))
			check(t, "code", e.Errors[0].Code, test.code)
		})
	}

	t.Run("starting_after needs a new API version", func(t *testing.T) {
		for version, want := range map[string]int{"2026-05-12": 200, "2025-11-10": 422} {
			res, _ := get(t, s, "/users?starting_after=user_c", "Clerk-API-Version", version)
			check(t, version, res.StatusCode, want)
		}
	})

	t.Run("the official SDK", func(t *testing.T) {
		list, err := userClient(s).List(t.Context(), &user.ListParams{
			ListParams: clerk.ListParams{Limit: clerk.Int64(2)}, OrderBy: clerk.String("+created_at"),
		})
		must(t, err)
		check(t, "users", len(list.Users), 2)
		check(t, "first", list.Users[0].ID, "user_a")
		check(t, "total", list.TotalCount, 5)
	})
}

func TestListLimits(t *testing.T) {
	t.Parallel()
	s, _ := startClocked(t, fakeclerk.Config{RateLimit: -1})
	const total = 1203
	for range total { // all in the same millisecond, which is the hard case for a cursor
		s.CreateUser(fakeclerk.NewUser{})
	}
	length := func(query string) (n int) {
		_, body := get(t, s, "/users?"+query)
		var users []clerk.User
		must(t, json.Unmarshal(body, &users))
		return len(users)
	}
	check(t, "default", length(""), 10)
	check(t, "500", length("limit=500"), 500)
	check(t, "a limit of 501 returns 10 users, as Clerk does", length("limit=501"), 10)

	seen, after := map[string]bool{}, ""
	for {
		_, body := get(t, s, "/users?limit=500&order_by=created_at&starting_after="+after)
		var users []clerk.User
		must(t, json.Unmarshal(body, &users))
		for _, u := range users {
			seen[u.ID] = true
			after = u.ID
		}
		if len(users) < 500 {
			break
		}
	}
	check(t, "walked by cursor", len(seen), total)
}
