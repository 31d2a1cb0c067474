package fakeclerk_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/google/go-cmp/cmp"
)

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
			for name, next := range map[string]func([]listed) string{"offset": byOffset, "keyset": byKeyset} {
				for order, want := range map[string][]string{"created_at": want, "-created_at": backwards} {
					users := readPages(t, s, order, limit, next)
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

	// Delete users at both ends and a range in between.
	for _, i := range []int{0, 1, 350, 351, 352, 353, size - 1} {
		id := s.PopulationID(i)
		must(t, s.DeleteUser(id))
		drop(id)
	}
	// A change does not move a user, except a change of created_at.
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
	// Create users now, before all others, between two others, and in the same millisecond as one of the
	// population: one id sorts before it and one after it.
	want = append(want, s.CreateUser(fakeclerk.NewUser{}))
	clock.Advance(time.Second)
	want = append(want, s.CreateUser(fakeclerk.NewUser{}))
	insert(want[0], s.CreateUser(fakeclerk.NewUser{CreatedAt: created(-5)}))
	insert(s.PopulationID(751), s.CreateUser(fakeclerk.NewUser{CreatedAt: created(750).Add(time.Millisecond)}))
	insert(s.PopulationID(800), s.CreateUser(fakeclerk.NewUser{ID: "user_", CreatedAt: created(800)}))
	insert(s.PopulationID(801), s.CreateUser(fakeclerk.NewUser{ID: "user_~", CreatedAt: created(800)}))
	read("after changes")

	filter := "user_id=" + moved + "&user_id=" + s.PopulationID(0) + "&user_id=user_x"
	check(t, "count of a user_id filter", count(t, s, filter), 1)
	second := list(t, s, "order_by=created_at&offset=1&limit=1")[0]
	check(t, "place of a banned user", second, listed{s.PopulationID(2), created(2).UnixMilli(), true})
	check(t, "number of UserIDs", len(s.UserIDs()), 6)
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
	for query, counts := range map[string]bool{ // true: GET /users/count refuses it too
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
		"CreateUser with an id of the population":  func() { s.CreateUser(fakeclerk.NewUser{ID: s.PopulationID(0)}) },
		"CreateUser with the id of a deleted user": func() { s.CreateUser(fakeclerk.NewUser{ID: s.PopulationID(3)}) },
		"PopulationID(-1)":                         func() { s.PopulationID(-1) },
		"PopulationID(10)":                         func() { s.PopulationID(10) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

// TestPopulationConcurrently lists users while others change. Run it with the race detector.
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
	var after []string // users listed so far, without those at the end that were found to be gone
	for full := true; full; {
		query := "order_by=-created_at&limit=100"
		if len(after) > 0 {
			query += "&starting_after=" + after[len(after)-1]
		}
		res, body := get(t, s, "/users?"+query)
		if res.StatusCode == http.StatusUnprocessableEntity && len(after) > 0 {
			_, exists := s.User(after[len(after)-1])
			check(t, "the user exists whom starting_after refused", exists, false)
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

// BenchmarkPopulationPage reads one page of 500 among a million users, over HTTP and by keyset.
func BenchmarkPopulationPage(b *testing.B) {
	const limit = 500
	s := start(b, fakeclerk.Config{Population: 1_000_000, RateLimit: -1, Seed: 1})
	client := &http.Client{}
	defer client.CloseIdleConnections()
	buffer := make([]byte, 2<<20)
	after := 0
	b.ReportAllocs()
	for b.Loop() {
		query := fmt.Sprintf("order_by=created_at&limit=%d&starting_after=%s", limit, s.PopulationID(after))
		r, err := http.NewRequestWithContext(b.Context(), "GET", s.APIURL()+"/users?"+query, nil)
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
