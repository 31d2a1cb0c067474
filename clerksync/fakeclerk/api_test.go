package fakeclerk_test

import (
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
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/google/go-cmp/cmp"
)

// apiError asserts that err is an error of Clerk's with the given status and code.
func apiError(t testing.TB, what string, err error, status int, code string) *clerk.APIErrorResponse {
	t.Helper()
	var e *clerk.APIErrorResponse
	if !errors.As(err, &e) {
		t.Fatalf("%s: got error %v, want an APIErrorResponse", what, err)
	}
	check(t, what+": status", e.HTTPStatusCode, status)
	check(t, what+": code", e.Errors[0].Code, code)
	if e.Errors[0].Message == "" || e.Errors[0].LongMessage == "" || e.TraceID == "" || e.TraceID != e.Response.TraceID {
		t.Errorf("%s: incomplete: %v", what, e)
	}
	return e
}

func raw(s string) *json.RawMessage { return clerk.JSONRawMessage(json.RawMessage(s)) }

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

	merged, err := users.UpdateMetadata(ctx, u.ID, &user.UpdateMetadataParams{PublicMetadata: raw(`{"a":{"b":null,"d":3},"e":{"f":4}}`)})
	must(t, err)
	check(t, "merged metadata", string(merged.PublicMetadata), `{"a":{"c":2,"d":3},"e":{"f":4}}`)
	replaced, err := users.ReplaceMetadata(ctx, u.ID, &user.ReplaceMetadataParams{PublicMetadata: raw(`{"x":1}`), UnsafeMetadata: raw(`{"y":2}`)})
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
	check(t, "deleted", *deleted, clerk.DeletedResource{APIResource: deleted.APIResource, ID: u.ID, Object: "user", Deleted: true})
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
		"metadata": func() error { _, err := users.UpdateMetadata(ctx, u.ID, &user.UpdateMetadataParams{}); return err },
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
		{"no e-mail address", func() (*clerk.User, error) {
			return users.Create(ctx, &user.CreateParams{EmailAddresses: &[]string{"nonsense"}})
		}, "form_param_format_invalid"},
		{"an external id in use", func() (*clerk.User, error) {
			return users.Update(ctx, id, &user.UpdateParams{FirstName: clerk.String("x"), ExternalID: clerk.String("taken")})
		}, "form_identifier_exists"},
		{"another's e-mail address as the primary one", func() (*clerk.User, error) {
			return users.Update(ctx, id, &user.UpdateParams{FirstName: clerk.String("x"), PrimaryEmailAddressID: clerk.String("idn_x")})
		}, "form_param_value_invalid"},
		{"metadata that is no object", func() (*clerk.User, error) {
			return users.UpdateMetadata(ctx, id, &user.UpdateMetadataParams{PublicMetadata: raw(`[]`)})
		}, "form_param_format_invalid"},
	} {
		_, err := test.do()
		apiError(t, test.name, err, 422, test.code)
	}
	after, _ := s.User(id)
	check(t, "after refused writes", string(after), string(before))
	check(t, "users", len(s.UserIDs()), 2)

	// What a test arranges need not be unique, and doesn't get in the way of a change to
	// something else.
	s.CreateUser(fakeclerk.NewUser{Email: "mine@example.com"})
	_, err := users.Update(ctx, id, &user.UpdateParams{FirstName: clerk.String("Ada")})
	must(t, err)

	for _, test := range []struct {
		name, body, version string
		want                int
	}{
		{"metadata in PATCH", `{"public_metadata":{"a":1}}`, "2026-05-12", 422},
		{"metadata in PATCH, before it was moved", `{"public_metadata":{"a":1}}`, "2025-11-10", 200},
		{"an unknown parameter", `{"frist_name":"x"}`, "", 422},
		{"a wrong type", `{"first_name":1}`, "", 422},
		{"no JSON", `{`, "", 400},
	} {
		res, _ := do(t, s, "PATCH", "/users/"+id, test.body, "Clerk-API-Version", test.version)
		check(t, test.name, res.StatusCode, test.want)
	}
}

// TestJavaScriptSDK makes the requests of @clerk/backend 3.25.0 that clerk-sdk-go v2.7.0
// cannot make: a body without fields is left out, and there is a timezone.
func TestJavaScriptSDK(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{RateLimit: -1})
	id := s.CreateUser(fakeclerk.NewUser{PublicMetadata: map[string]any{"a": 1}})

	for _, test := range []struct {
		name, method, path, body string
		status                   int
		zone                     any // timezone in the answer
	}{
		{"updateUserMetadata of nothing", "PATCH", "/users/" + id + "/metadata", "", 200, nil},
		{"replaceUserMetadata of nothing", "PUT", "/users/" + id + "/metadata", "", 200, nil},
		{"updateUser of nothing", "PATCH", "/users/" + id, "", 400, nil},
		{"createUser of nothing", "POST", "/users", "", 400, nil},
		{"half a body", "PATCH", "/users/" + id + "/metadata", `{"public_metadata":`, 400, nil},
		{"createUser with a timezone", "POST", "/users", `{"timezone":"Europe/Zurich"}`, 200, "Europe/Zurich"},
		{"updateUser with a timezone", "PATCH", "/users/" + id, `{"timezone":"Asia/Tokyo"}`, 200, "Asia/Tokyo"},
		{"which stays", "PATCH", "/users/" + id, `{"first_name":"Ada"}`, 200, "Asia/Tokyo"},
		{"timezone of a wrong type", "PATCH", "/users/" + id, `{"timezone":1}`, 422, nil},
		{"updateUser without the timezone", "PATCH", "/users/" + id, `{"timezone":null}`, 200, nil},
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
	// Named by the order in which they were created; c and d in the same millisecond.
	ids := map[string]string{}
	for i, u := range []fakeclerk.NewUser{
		{ID: "user_a", FirstName: "Zoe", Email: "Zoe@example.com", Phone: "+15550101", Username: "zed", ExternalID: "1"},
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
		want  string // letters of the ids
		count int    // -1: as many as are listed
	}{
		{"", "edcba", -1},
		{"order_by=created_at", "abcde", -1},
		{"order_by=%2Bcreated_at", "abcde", -1},
		{"order_by=+created_at", "abcde", -1}, // a client that forgot to escape
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

	t.Run("starting_after is as new as its API version", func(t *testing.T) {
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
	for range total { // all in one millisecond, the hard case for a cursor
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
	check(t, "501 answers 10, as Clerk has been seen to", length("limit=501"), 10)

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
	get(t, s, "/users") // refused, counted
	for route, want := range map[string]int{
		"GET /v1/users/{id}": 2, "GET /v1/users": 2, "GET /v1/users/count": 1, "GET /v1/jwks": 1, "POST /v1/users": 0, "": 7,
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
