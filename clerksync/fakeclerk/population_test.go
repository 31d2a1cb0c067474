package fakeclerk_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/user"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/google/go-cmp/cmp"
)

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
