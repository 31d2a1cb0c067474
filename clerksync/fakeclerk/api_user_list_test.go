package fakeclerk_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/user"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

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
