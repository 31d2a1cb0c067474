package fakeclerk_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/user"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/google/go-cmp/cmp"
)

// listed is what a test wants to know of a listed user.
type listed struct {
	ID        string `json:"id"`
	CreatedAt int64  `json:"created_at"`
	Banned    bool   `json:"banned"`
}

func list(t testing.TB, s *fakeclerk.Server, query string) []listed {
	t.Helper()
	res, body := get(t, s, "/users?"+query)
	if res.StatusCode != 200 {
		t.Fatalf("%s: %d: %s", query, res.StatusCode, body)
	}
	var users []listed
	must(t, json.Unmarshal(body, &users))
	return users
}

func count(t testing.TB, s *fakeclerk.Server, query string) int {
	t.Helper()
	_, body := get(t, s, "/users/count?"+query)
	var c struct {
		TotalCount int `json:"total_count"`
	}
	must(t, json.Unmarshal(body, &c))
	return c.TotalCount
}

func ids(users []listed) []string {
	ids := make([]string, len(users))
	for i, u := range users {
		ids[i] = u.ID
	}
	return ids
}

// readByOffset and readByKeyset list all users in pages.
func readByOffset(t testing.TB, s *fakeclerk.Server, order string, limit int) []listed {
	var all []listed
	for {
		page := list(t, s, fmt.Sprintf("order_by=%s&limit=%d&offset=%d", order, limit, len(all)))
		all = append(all, page...)
		if len(page) < limit {
			return all
		}
	}
}

func readByKeyset(t testing.TB, s *fakeclerk.Server, order string, limit int) []listed {
	var all []listed
	for after := ""; ; after = all[len(all)-1].ID {
		page := list(t, s, fmt.Sprintf("order_by=%s&limit=%d&starting_after=%s", order, limit, after))
		all = append(all, page...)
		if len(page) < limit {
			return all
		}
	}
}

func TestPopulationPages(t *testing.T) {
	t.Parallel()
	const size = 1172
	s, clock := startClocked(t, fakeclerk.Config{Population: size, RateLimit: -1})

	var want []string // ids, ascending by created_at
	for i := range size {
		want = append(want, s.PopulationID(i))
	}
	created := func(i int) time.Time { return epoch.Add(time.Duration(i-size) * time.Second) }
	drop := func(id string) {
		i := slices.Index(want, id)
		want = slices.Delete(want, i, i+1)
	}
	insert := func(before, id string) { want = slices.Insert(want, slices.Index(want, before), id) }

	read := func(what string) {
		t.Helper()
		backwards := slices.Clone(want)
		slices.Reverse(backwards)
		check(t, what+": count", count(t, s, ""), len(want))
		for _, limit := range []int{500, 67} {
			for name, read := range map[string]func(testing.TB, *fakeclerk.Server, string, int) []listed{"offset": readByOffset, "keyset": readByKeyset} {
				for order, want := range map[string][]string{"created_at": want, "-created_at": backwards} {
					users := read(t, s, order, limit)
					if diff := cmp.Diff(want, ids(users)); diff != "" {
						t.Fatalf("%s: by %s, order %s, limit %d (-want +got):\n%s", what, name, order, limit, diff)
					}
					sorted := slices.IsSortedFunc(users, func(a, b listed) int {
						d := a.CreatedAt - b.CreatedAt
						if order[0] == '-' {
							d = -d
						}
						return int(d)
					})
					check(t, what+": in the order of created_at", sorted, true)
				}
			}
		}
	}
	read("at the start")
	check(t, "created_at of the first", object(t, s, want[0]).CreatedAt, created(0).UnixMilli())
	check(t, "created_at of the last", object(t, s, want[size-1]).CreatedAt, epoch.UnixMilli()-1000)
	check(t, "ids ascend", slices.IsSorted(want), true)

	// The ends and a stretch are deleted.
	for _, i := range []int{0, 1, 350, 351, 352, 353, size - 1} {
		id := s.PopulationID(i)
		must(t, s.DeleteUser(id))
		drop(id)
	}
	// Changes keep the place, unless they are changes of it.
	for _, i := range []int{2, 349, 354, 355, 500, size - 2} {
		must(t, s.BanUser(s.PopulationID(i)))
	}
	moved := s.PopulationID(600)
	must(t, s.UpdateUser(moved, func(u *fakeclerk.UserObject) { u.CreatedAt = created(10).UnixMilli() + 1 }))
	drop(moved)
	insert(s.PopulationID(11), moved)
	changedThenDeleted := s.PopulationID(650)
	must(t, s.SignIn(changedThenDeleted))
	must(t, s.DeleteUser(changedThenDeleted))
	drop(changedThenDeleted)
	// Created now, long ago, in between, and with one of the population in the same
	// millisecond, on either side by the id.
	want = append(want, s.CreateUser(fakeclerk.NewUser{}))
	clock.Advance(time.Second)
	want = append(want, s.CreateUser(fakeclerk.NewUser{}))
	insert(want[0], s.CreateUser(fakeclerk.NewUser{CreatedAt: created(-5)}))
	insert(s.PopulationID(751), s.CreateUser(fakeclerk.NewUser{CreatedAt: created(750).Add(time.Millisecond)}))
	insert(s.PopulationID(800), s.CreateUser(fakeclerk.NewUser{ID: "user_", CreatedAt: created(800)}))
	insert(s.PopulationID(801), s.CreateUser(fakeclerk.NewUser{ID: "user_~", CreatedAt: created(800)}))
	read("after changes")

	check(t, "count of a user_id filter", count(t, s, "user_id="+moved+"&user_id="+s.PopulationID(0)+"&user_id=user_x"), 1)
	check(t, "a banned one's place", list(t, s, "order_by=created_at&offset=1&limit=1")[0], listed{s.PopulationID(2), created(2).UnixMilli(), true})
	check(t, "UserIDs", len(s.UserIDs()), 6)
}

func TestPopulationUserIDFilter(t *testing.T) {
	t.Parallel()
	s, _ := startClocked(t, fakeclerk.Config{Population: 100, RateLimit: -1})
	p := s.PopulationID
	c := s.CreateUser(fakeclerk.NewUser{})
	must(t, s.BanUser(p(20)))
	must(t, s.DeleteUser(p(30)))
	filter := "&" + url.Values{"user_id": {p(40), c, p(10), p(30), p(20), p(10), "+" + p(99), "user_x"}}.Encode()
	for query, want := range map[string][]string{
		"":                             {c, p(99), p(40), p(20), p(10)},
		"order_by=created_at":          {p(10), p(20), p(40), p(99), c},
		"order_by=created_at&limit=2":  {p(10), p(20)},
		"order_by=created_at&offset=3": {p(99), c},
		"offset=1&limit=2":             {p(99), p(40)},
		"offset=7":                     {},
		"starting_after=" + p(20):      {p(10)},
		"starting_after=" + p(50):      {p(40), p(20), p(10)},
		"limit=1&starting_after=" + c:  {p(99)},
		"order_by=created_at&starting_after=" + p(20): {p(40), p(99), c},
		"order_by=created_at&starting_after=" + p(21): {p(40), p(99), c},
		"order_by=created_at&starting_after=" + c:     {},
	} {
		if diff := cmp.Diff(want, ids(list(t, s, query+filter))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
	check(t, "count", count(t, s, filter[1:]), 5)
	check(t, "nobody", len(list(t, s, "user_id=user_x")), 0)
}

func TestPopulationRefusals(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{Population: 10, RateLimit: -1})
	must(t, s.DeleteUser(s.PopulationID(3)))
	for query, counts := range map[string]bool{ // whether GET /users/count refuses it too
		"order_by=-updated_at":                false,
		"order_by=email_address":              false,
		"order_by=nonsense":                   false,
		"banned=true":                         true,
		"query=ada":                           true,
		"name_query=ada":                      true,
		"email_address=ada@example.com":       true,
		"external_id=1":                       true,
		"created_at_after=1":                  true,
		"last_sign_in_at_before=1":            true,
		"user_id=-" + s.PopulationID(1):       true,
		"starting_after=user_x":               false,
		"starting_after=" + s.PopulationID(3): false,
	} {
		res, body := get(t, s, "/users?"+query)
		check(t, query, res.StatusCode, 422)
		if !strings.Contains(string(body), `"errors":[{"message":`) {
			t.Errorf("%s: %s", query, body)
		}
		if counts {
			res, _ := get(t, s, "/users/count?"+query)
			check(t, "count: "+query, res.StatusCode, 422)
		}
	}
	for name, f := range map[string]func(){
		"CreateUser with the id of one":         func() { s.CreateUser(fakeclerk.NewUser{ID: s.PopulationID(0)}) },
		"CreateUser with the id of one deleted": func() { s.CreateUser(fakeclerk.NewUser{ID: s.PopulationID(3)}) },
		"PopulationID(-1)":                      func() { s.PopulationID(-1) },
		"PopulationID(10)":                      func() { s.PopulationID(10) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s does not panic", name)
				}
			}()
			f()
		}()
	}
}

// fieldPaths returns the keys of a JSON object and of those within it, but for the
// contents of metadata.
func fieldPaths(t testing.TB, document []byte) []string {
	var all []string
	var walk func(path string, v any)
	walk = func(path string, v any) {
		all = append(all, path)
		switch v := v.(type) {
		case map[string]any:
			for name, v := range v {
				if !strings.HasSuffix(path, "_metadata") {
					walk(path+"."+name, v)
				}
			}
		case []any:
			for _, v := range v {
				walk(path+"[]", v)
			}
		}
	}
	var v any
	must(t, json.Unmarshal(document, &v))
	walk("$", v)
	slices.Sort(all)
	return all
}

func TestPopulationObjects(t *testing.T) {
	t.Parallel()
	const size = 300
	s, _ := startClocked(t, fakeclerk.Config{Population: size, Seed: 1, RateLimit: -1})
	_, body := get(t, s, "/users?order_by=created_at&limit=500")
	var page []json.RawMessage
	must(t, json.Unmarshal(body, &page))
	check(t, "users", len(page), size)

	seen := map[string]bool{}
	once := func(what, v string) {
		if seen[v] {
			t.Errorf("%s %q twice", what, v)
		}
		seen[v] = true
	}
	var withoutEmail, withoutName, withoutImage, withoutSignIn int
	valid := regexp.MustCompile(`^user_[0-9A-Za-z]{27}$`)
	for i, raw := range page {
		var u fakeclerk.UserObject
		must(t, json.Unmarshal(raw, &u))
		once("id", u.ID)
		check(t, "id", u.ID, s.PopulationID(i))
		check(t, "form of the id", valid.MatchString(u.ID), true)
		_, body := get(t, s, "/users/"+u.ID)
		check(t, "GET /users/{id}", string(body), string(raw))
		own, _ := s.User(u.ID)
		check(t, "User", string(own), string(raw))

		// encoding/json has the same bytes of what it decodes, and of what is kept
		// once there was a change, even if it is of nothing.
		again, err := json.Marshal(u)
		must(t, err)
		check(t, "marshalled again", string(again), string(raw))
		must(t, s.UpdateUserSilently(u.ID, func(*fakeclerk.UserObject) {}))
		kept, _ := s.User(u.ID)
		check(t, "kept", string(kept), string(raw))

		// What is created with the same fields has the same ones.
		twin := fakeclerk.NewUser{FirstName: "Ada"}
		if len(u.EmailAddresses) > 0 {
			twin.Email = "ada@example.com"
			check(t, "primary e-mail address", *u.PrimaryEmailAddressID, u.EmailAddresses[0].ID)
			once("e-mail address", u.EmailAddresses[0].EmailAddress)
			once("e-mail address id", u.EmailAddresses[0].ID)
		} else {
			withoutEmail++
			twin.Phone = "+15550100"
			check(t, "primary phone number", *u.PrimaryPhoneNumberID, u.PhoneNumbers[0].ID)
			once("phone number", u.PhoneNumbers[0].PhoneNumber)
			if n := u.PhoneNumbers[0].PhoneNumber; len(n) != len("+15550000000") {
				t.Errorf("phone number %q", n)
			}
		}
		raw2, _ := s.User(s.CreateUser(twin))
		if diff := cmp.Diff(fieldPaths(t, raw2), fieldPaths(t, raw)); diff != "" {
			t.Fatalf("user %d against one created (-want +got):\n%s", i, diff)
		}

		if u.FirstName == nil {
			withoutName++
		}
		if !u.HasImage {
			withoutImage++
		}
		if u.LastSignInAt == nil {
			withoutSignIn++
		} else if *u.LastSignInAt < u.CreatedAt || *u.LastSignInAt > u.UpdatedAt {
			t.Errorf("last_sign_in_at %d, created_at %d, updated_at %d", *u.LastSignInAt, u.CreatedAt, u.UpdatedAt)
		}
		if u.UpdatedAt < u.CreatedAt || u.UpdatedAt > epoch.UnixMilli() {
			t.Errorf("updated_at %d, created_at %d", u.UpdatedAt, u.CreatedAt)
		}
	}
	for what, n := range map[string]int{"e-mail address": withoutEmail, "first name": withoutName, "image": withoutImage, "sign-in": withoutSignIn} {
		if n == 0 || n > size/2 {
			t.Errorf("%d of %d are without %s", n, size, what)
		}
	}
}

func TestPopulationChanges(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s, clock := startClocked(t, fakeclerk.Config{Population: 50, Seed: 3, RateLimit: -1})
	e := s.AddEndpoint("http://127.0.0.1:1", fakeclerk.EndpointOptions{})
	e.Hold()
	users := userClient(s)
	clock.Advance(time.Minute)

	id := s.PopulationID(7)
	before := object(t, s, id)
	u, err := users.Update(ctx, id, &user.UpdateParams{FirstName: clerk.String("Augusta")})
	must(t, err)
	check(t, "first_name", *u.FirstName, "Augusta")
	check(t, "created_at", u.CreatedAt, before.CreatedAt)
	check(t, "updated_at", u.UpdatedAt, clock.Now().UnixMilli())
	must(t, s.SignIn(id))
	check(t, "last_sign_in_at", *object(t, s, id).LastSignInAt, clock.Now().UnixMilli())
	check(t, "first_name after the sign-in", *object(t, s, id).FirstName, "Augusta")
	got, err := users.Get(ctx, id)
	must(t, err)
	check(t, "GET", *got.FirstName, "Augusta")

	_, err = users.Delete(ctx, s.PopulationID(8))
	must(t, err)
	_, err = users.Delete(ctx, id)
	must(t, err)
	for _, id := range []string{id, s.PopulationID(8)} {
		_, err = users.Get(ctx, id)
		apiError(t, "get after the deletion", err, 404, "resource_not_found")
		_, err = users.Delete(ctx, id)
		apiError(t, "delete after the deletion", err, 404, "resource_not_found")
		if _, ok := s.User(id); ok {
			t.Error("User finds one that was deleted")
		}
	}
	check(t, "count", count(t, s, ""), 48)

	before = object(t, s, s.PopulationID(9))
	_, err = users.Update(ctx, before.ID, &user.UpdateParams{PrimaryEmailAddressID: clerk.String("idn_x")})
	apiError(t, "a refused change", err, 422, "form_param_value_invalid")
	var types []string
	for _, m := range e.Messages() {
		types = append(types, m.Type)
	}
	want := []string{"user.updated", "session.created", "user.updated", "user.deleted", "user.deleted"}
	if diff := cmp.Diff(want, types); diff != "" {
		t.Errorf("webhooks (-want +got):\n%s", diff)
	}

	// Identifiers of the population are taken, until their users are gone.
	for i := range 20 {
		u := object(t, s, s.PopulationID(20+i))
		params := &user.CreateParams{}
		if len(u.EmailAddresses) > 0 {
			params.EmailAddresses = &[]string{u.EmailAddresses[0].EmailAddress}
		} else {
			params.PhoneNumbers = &[]string{u.PhoneNumbers[0].PhoneNumber}
		}
		_, err = users.Create(ctx, params)
		apiError(t, "an identifier of the population's", err, 422, "form_identifier_exists")
		must(t, s.DeleteUser(u.ID))
		_, err = users.Create(ctx, params)
		must(t, err)
	}
	_, err = users.Create(ctx, &user.CreateParams{EmailAddresses: &[]string{"nobody7@example.com"}})
	must(t, err)
}

func TestPopulationSeed(t *testing.T) {
	t.Parallel()
	run := func(seed uint64, population int) (page, created string) {
		s, _ := startClocked(t, fakeclerk.Config{Seed: seed, Population: population, RateLimit: -1})
		_, body := get(t, s, "/users?limit=100&order_by=created_at")
		return string(body), s.CreateUser(fakeclerk.NewUser{})
	}
	page, created := run(7, 100)
	again, createdAgain := run(7, 100)
	check(t, "the same seed", again, page)
	check(t, "the same seed: created", createdAgain, created)
	_, createdAlone := run(7, 0)
	check(t, "without a population: created", createdAlone, created)
	for _, seed := range []uint64{8, 0} {
		if other, _ := run(seed, 100); other == page {
			t.Errorf("seed %d: the same population", seed)
		}
	}
	s := start(t, fakeclerk.Config{Seed: 7, Population: 5000})
	more := start(t, fakeclerk.Config{Seed: 7, Population: 1_000_000})
	check(t, "the same user in a larger population", more.PopulationID(4999), s.PopulationID(4999))
	if _, ok := s.User(more.PopulationID(5000)); ok {
		t.Error("a user beyond the population")
	}
	for i := range 5000 {
		if _, ok := s.User(s.PopulationID(i)); !ok {
			t.Fatalf("no user %d", i)
		}
	}
	for _, spoilt := range []string{"", "user_", "user_\xff" + s.PopulationID(1)[6:], s.PopulationID(1)[:31] + "~", s.PopulationID(1) + "0", "user_" + strings.Repeat("z", 27)} {
		if _, ok := s.User(spoilt); ok {
			t.Errorf("a user %q", spoilt)
		}
	}
}

// TestPopulationConcurrently is for the race detector.
func TestPopulationConcurrently(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{Population: 2000, RateLimit: -1})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 200 {
			_ = s.SignIn(s.PopulationID(i * 7))
			_ = s.DeleteUser(s.PopulationID(i*7 + 3))
		}
	}()
	seen := map[string]bool{}
	var after []string // where to go on from: the last user listed, or if that is gone, the one before
	for full := true; full; {
		query := "order_by=-created_at&limit=100"
		if len(after) > 0 {
			query += "&starting_after=" + after[len(after)-1]
		}
		res, body := get(t, s, "/users?"+query)
		if res.StatusCode == http.StatusUnprocessableEntity && len(after) > 0 {
			_, exists := s.User(after[len(after)-1])
			check(t, "a user who is refused as a place exists", exists, false)
			after = after[:len(after)-1]
			continue
		}
		check(t, query, res.StatusCode, http.StatusOK)
		var page []listed
		must(t, json.Unmarshal(body, &page))
		for _, u := range page {
			check(t, u.ID+" listed before", seen[u.ID], false)
			seen[u.ID] = true
			after = append(after, u.ID)
		}
		full = len(page) == 100
	}
	<-done
	check(t, "count", count(t, s, ""), 1800)
}

// BenchmarkPopulationPage lists a million users over HTTP, again and again, in pages of
// 500 by keyset.
func BenchmarkPopulationPage(b *testing.B) {
	const limit = 500
	s := start(b, fakeclerk.Config{Population: 1_000_000, RateLimit: -1, Seed: 1})
	client := &http.Client{}
	defer client.CloseIdleConnections()
	buffer := make([]byte, 2<<20)
	after := 0
	b.ReportAllocs()
	for b.Loop() {
		r, err := http.NewRequestWithContext(b.Context(), "GET", fmt.Sprintf("%s/users?order_by=created_at&limit=%d&starting_after=%s", s.APIURL(), limit, s.PopulationID(after)), nil)
		must(b, err)
		r.Header.Set("Authorization", "Bearer "+s.SecretKey())
		res, err := client.Do(r)
		must(b, err)
		n := 0
		for {
			m, err := res.Body.Read(buffer[n:])
			n += m
			if err != nil {
				break
			}
		}
		res.Body.Close()
		b.SetBytes(int64(n))
		after = (after + limit) % 999_000
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/limit, "ns/user")
}

// BenchmarkPopulationUser makes one user's JSON.
func BenchmarkPopulationUser(b *testing.B) {
	s := start(b, fakeclerk.Config{Population: 1_000_000, Seed: 1})
	id := s.PopulationID(123_456)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := s.User(id); !ok {
			b.Fatal("no user")
		}
	}
}
