package fakeclerk_test

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

func TestCreateUser(t *testing.T) {
	t.Parallel()
	s, _ := startClocked(t, fakeclerk.Config{})

	t.Run("zero value", func(t *testing.T) {
		id := s.CreateUser(fakeclerk.NewUser{})
		if !regexp.MustCompile(`^user_[0-9A-Za-z]{27}$`).MatchString(id) {
			t.Errorf("id: got %q", id)
		}
		u := object(t, s, id)
		if u.FirstName != nil || u.LastName != nil || u.PrimaryEmailAddressID != nil || u.PrimaryPhoneNumberID != nil {
			t.Errorf("the fields are not null: %+v", u)
		}
		check(t, "created_at", u.CreatedAt, epoch.UnixMilli())
		check(t, "updated_at", u.UpdatedAt, epoch.UnixMilli())
		check(t, "public_metadata", string(u.PublicMetadata), "{}")
		raw, _ := s.User(id)
		for _, field := range []string{
			"email_addresses", "phone_numbers", "web3_wallets", "passkeys", "external_accounts",
		} {
			var fields map[string]json.RawMessage
			must(t, json.Unmarshal(raw, &fields))
			check(t, field, string(fields[field]), "[]")
		}
	})

	t.Run("everything", func(t *testing.T) {
		id := s.CreateUser(fakeclerk.NewUser{
			ID: "user_fixed", FirstName: "Ada", LastName: "Lovelace", Username: "ada", ExternalID: "ext",
			Email: "ada@example.com", Phone: "+4412345678", PhoneUnverified: true,
			ImageURL: "https://img.example/ada", Birthday: "1815-12-10", Gender: "female",
			PublicMetadata: map[string]any{"role": "ADMIN"}, CreatedAt: epoch.Add(-time.Hour),
		})
		check(t, "id", id, "user_fixed")
		u := object(t, s, id)
		check(t, "first_name", *u.FirstName, "Ada")
		check(t, "email", u.EmailAddresses[0].EmailAddress, "ada@example.com")
		check(t, "primary email", *u.PrimaryEmailAddressID, u.EmailAddresses[0].ID)
		check(t, "email status", u.EmailAddresses[0].Verification.Status, "verified")
		check(t, "primary phone", *u.PrimaryPhoneNumberID, u.PhoneNumbers[0].ID)
		check(t, "phone status", u.PhoneNumbers[0].Verification.Status, "unverified")
		check(t, "has_image", u.HasImage, true)
		check(t, "public_metadata", string(u.PublicMetadata), `{"role":"ADMIN"}`)
		check(t, "created_at", u.CreatedAt, epoch.Add(-time.Hour).UnixMilli())
		var more struct{ Birthday, Gender string }
		raw, _ := s.User(id)
		must(t, json.Unmarshal(raw, &more))
		check(t, "birthday", more.Birthday, "1815-12-10")
		check(t, "gender", more.Gender, "female")
	})

	t.Run("an id can be used only once", func(t *testing.T) {
		panics := func(id string) (did bool) {
			defer func() { did = recover() != nil }()
			s.CreateUser(fakeclerk.NewUser{ID: id})
			return false
		}
		id := s.CreateUser(fakeclerk.NewUser{})
		check(t, "while the user exists", panics(id), true)
		must(t, s.DeleteUser(id))
		check(t, "after the deletion", panics(id), true)
		// The panic released the server's lock.
		s.CreateUser(fakeclerk.NewUser{})
	})
}

func TestUpdatedAtGrows(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{})
	id := s.CreateUser(fakeclerk.NewUser{})
	version := func() int64 { return object(t, s, id).UpdatedAt - epoch.UnixMilli() }
	rename := func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("x") }

	for _, step := range []struct {
		name string
		do   func() error
		want int64 // updated_at, in ms since epoch
	}{
		{"while the clock stands still", func() error { return s.UpdateUser(id, rename) }, 1},
		{"while it still does", func() error { return s.UpdateUser(id, rename) }, 2},
		{"silently", func() error { return s.UpdateUserSilently(id, rename) }, 2},
		{"after the clock has moved", func() error {
			clock.Advance(time.Second)
			return s.UpdateUser(id, rename)
		}, 1000},
		{"ban", func() error { return s.BanUser(id) }, 1001},
		{"unban", func() error { return s.UnbanUser(id) }, 1002},
		{"sign-in", func() error { clock.Advance(time.Second); return s.SignIn(id) }, 2000},
		{"a version from the future", func() error {
			return s.UpdateUserSilently(id, func(u *fakeclerk.UserObject) { u.UpdatedAt += 5000 })
		}, 7000},
		{"after a version from the future", func() error { return s.UpdateUser(id, rename) }, 7001},
		{"a version that went backwards", func() error {
			return s.UpdateUserSilently(id, func(u *fakeclerk.UserObject) { u.UpdatedAt = epoch.UnixMilli() })
		}, 0},
	} {
		must(t, step.do())
		check(t, step.name, version(), step.want)
	}
	u := object(t, s, id)
	check(t, "last_sign_in_at", *u.LastSignInAt, epoch.Add(2*time.Second).UnixMilli())
	check(t, "banned", u.Banned, false)
}

func TestUpdateUserObject(t *testing.T) {
	t.Parallel()
	s, _ := startClocked(t, fakeclerk.Config{})
	id := s.CreateUser(fakeclerk.NewUser{Email: "old@example.com"})

	var kept *fakeclerk.UserObject
	must(t, s.UpdateUser(id, func(u *fakeclerk.UserObject) {
		u.PrimaryEmailAddressID = clerk.String(u.AddEmailAddress("new@example.com", true))
		u.AddPhoneNumber("+15550100", false)
		u.EmailAddresses = append(u.EmailAddresses, &clerk.EmailAddress{EmailAddress: "bare@example.com"})
		u.Deprovisioned = true
		u.Extra = map[string]any{"novelty": 1, "gender": 42}
		kept = u
	}))
	kept.EmailAddresses[0].EmailAddress = "changed after UpdateUser"

	u := object(t, s, id)
	var emails []string
	for _, e := range u.EmailAddresses {
		emails = append(emails, e.EmailAddress)
		if e.ID == "" || e.Object != "email_address" || e.LinkedTo == nil {
			t.Errorf("e-mail address is incomplete: %+v", e)
		}
	}
	if diff := cmp.Diff([]string{"old@example.com", "new@example.com", "bare@example.com"}, emails); diff != "" {
		t.Errorf("e-mail addresses (-want +got):\n%s", diff)
	}
	check(t, "primary", *u.PrimaryEmailAddressID, u.EmailAddresses[1].ID)
	if v := u.EmailAddresses[2].Verification; v != nil {
		t.Errorf("verification of the bare address: got %+v, want null", v)
	}
	var more map[string]any
	raw, _ := s.User(id)
	must(t, json.Unmarshal(raw, &more))
	check(t, "deprovisioned", more["deprovisioned"], any(true))
	check(t, "novelty", more["novelty"], any(1.0))
	check(t, "gender", more["gender"], any(42.0))

	t.Run("Extra survives the next change", func(t *testing.T) {
		must(t, s.BanUser(id))
		raw, _ := s.User(id)
		more := map[string]any{}
		must(t, json.Unmarshal(raw, &more))
		check(t, "novelty", more["novelty"], any(1.0))
	})
}

func TestUserErrors(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{})
	nothing := func(*fakeclerk.UserObject) {}
	for name, err := range map[string]error{
		"UpdateUser":         s.UpdateUser("user_x", nothing),
		"UpdateUserSilently": s.UpdateUserSilently("user_x", nothing),
		"DeleteUser":         s.DeleteUser("user_x"),
		"BanUser":            s.BanUser("user_x"),
		"UnbanUser":          s.UnbanUser("user_x"),
		"SignIn":             s.SignIn("user_x"),
	} {
		if !errors.Is(err, fakeclerk.ErrUserNotFound) {
			t.Errorf("%s: got %v, want ErrUserNotFound", name, err)
		}
	}
	if _, ok := s.User("user_x"); ok {
		t.Error("User found a user that does not exist")
	}

	id := s.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	before, _ := s.User(id)
	for name, f := range map[string]func(*fakeclerk.UserObject){
		"another id":    func(u *fakeclerk.UserObject) { u.ID = "user_y" },
		"not JSON":      func(u *fakeclerk.UserObject) { u.PublicMetadata = json.RawMessage("{") },
		"not encodable": func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"f": func() {}} },
	} {
		if err := s.UpdateUser(id, f); err == nil {
			t.Errorf("%s: UpdateUser returned no error", name)
		}
	}
	after, _ := s.User(id)
	check(t, "after refused changes", string(after), string(before))
}

func TestUserIDs(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{})
	var want []string
	for range 5 {
		want = append(want, s.CreateUser(fakeclerk.NewUser{}))
		clock.Advance(time.Second)
	}
	must(t, s.DeleteUser(want[2]))
	want = slices.Delete(want, 2, 3)
	must(t, s.UpdateUser(want[3], func(u *fakeclerk.UserObject) { u.CreatedAt = epoch.Add(-time.Hour).UnixMilli() }))
	want = []string{want[3], want[0], want[1], want[2]}
	if diff := cmp.Diff(want, s.UserIDs()); diff != "" {
		t.Errorf("UserIDs (-want +got):\n%s", diff)
	}
}

func TestSeed(t *testing.T) {
	t.Parallel()
	run := func(seed uint64) []string {
		s := start(t, fakeclerk.Config{Seed: seed})
		e := s.AddEndpoint("http://127.0.0.1:1", fakeclerk.EndpointOptions{})
		e.Hold()
		user := s.CreateUser(fakeclerk.NewUser{Email: "a@example.com"})
		return []string{s.InstanceID(), e.Secret(), user, e.Messages()[0].ID}
	}
	if diff := cmp.Diff(run(7), run(7)); diff != "" {
		t.Errorf("the same seed made different ids:\n%s", diff)
	}
	for i, v := range run(7) {
		if v == run(8)[i] || v == run(0)[i] {
			t.Errorf("seed 7 and another seed both made %q", v)
		}
	}
}

// addresses is what proves an e-mail address, of a user as it is sent.
type addresses struct {
	EmailAddresses []struct {
		Reserved     bool `json:"reserved"`
		Verification struct{ Object, Status, Strategy string }
		LinkedTo     []struct{ ID, Type string } `json:"linked_to"`
	} `json:"email_addresses"`
	ExternalAccounts []map[string]any `json:"external_accounts"`
}

func addressesOf(t *testing.T, user []byte) addresses {
	t.Helper()
	var a addresses
	must(t, json.Unmarshal(user, &a))
	if len(a.EmailAddresses) != 1 {
		t.Fatalf("%d addresses: %s", len(a.EmailAddresses), user)
	}
	return a
}

func TestEmailStrategies(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{})
	const address = "ada@example.com"
	for _, tt := range []struct {
		user                     fakeclerk.NewUser
		object, status, strategy string
		reserved                 bool
	}{
		{fakeclerk.NewUser{}, "verification_otp", "verified", "email_code", false},
		{fakeclerk.NewUser{EmailUnverified: true}, "verification_otp", "unverified", "email_code", false},
		{fakeclerk.NewUser{EmailReserved: true}, "verification_otp", "unverified", "email_code", true},
		{fakeclerk.NewUser{EmailStrategy: "email_link"}, "verification_email_link", "verified", "email_link", false},
		{fakeclerk.NewUser{EmailStrategy: "admin"}, "verification_admin", "verified", "admin", false},
		{fakeclerk.NewUser{EmailStrategy: "ticket"}, "verification_ticket", "verified", "ticket", false},
		{fakeclerk.NewUser{EmailStrategy: "saml"}, "verification_saml", "verified", "saml", false},
		{fakeclerk.NewUser{EmailStrategy: "scim"}, "verification_scim", "verified", "scim", false},
		{fakeclerk.NewUser{EmailStrategy: "from_oauth_x"}, "verification_from_oauth", "verified", "from_oauth_x", false},
	} {
		tt.user.Email = address
		raw, _ := s.User(s.CreateUser(tt.user))
		checkShape(t, "user", raw)
		e := addressesOf(t, raw).EmailAddresses[0]
		check(t, "object", e.Verification.Object, tt.object)
		check(t, "status", e.Verification.Status, tt.status)
		check(t, "strategy", e.Verification.Strategy, tt.strategy)
		check(t, "reserved", e.Reserved, tt.reserved)
	}
}

// An administrator's addresses are verified without their owner, or reserved.
func TestEmailByAdmin(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{})
	_, raw := do(t, s, "POST", "/users", `{"email_address":["a@example.com"]}`)
	e := addressesOf(t, raw).EmailAddresses[0]
	check(t, "strategy", e.Verification.Strategy, "admin")
	check(t, "status", e.Verification.Status, "verified")
	_, raw = do(t, s, "POST", "/users",
		`{"email_address":["b@example.com"],"email_address_identification_status":["reserved"]}`)
	e = addressesOf(t, raw).EmailAddresses[0]
	check(t, "reserved", e.Reserved, true)
	check(t, "status", e.Verification.Status, "unverified")
}

// The API and the events have different shapes of a Google account.
func TestExternalAccounts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		provider string
		verified *bool
		inEvent  bool // whether the event has the provider's word
	}{
		"Google":          {"oauth_google", clerk.Bool(true), false},
		"Google, not":     {"oauth_google", clerk.Bool(false), false},
		"another":         {"oauth_github", clerk.Bool(true), true},
		"another, not":    {"oauth_github", clerk.Bool(false), true},
		"another, unsure": {"oauth_github", nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := startClocked(t, fakeclerk.Config{})
			endpoint := s.AddEndpoint("http://127.0.0.1:1", fakeclerk.EndpointOptions{})
			endpoint.Hold()
			id := s.CreateUser(fakeclerk.NewUser{Email: "ada@example.com"})
			must(t, s.UpdateUser(id, func(u *fakeclerk.UserObject) {
				u.AddExternalAccount(tt.provider, "ada@example.com", tt.verified)
			}))
			must(t, s.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("Ada") }))

			raw, _ := s.User(id)
			checkShape(t, "user", raw)
			api := addressesOf(t, raw)
			account, link := api.ExternalAccounts[0], api.EmailAddresses[0].LinkedTo[0]
			check(t, "link", link.Type, tt.provider)
			check(t, "identification", account["identification_id"], any(link.ID))
			check(t, "provider", account["provider"], any(tt.provider))
			said, states := account["email_address_verified"]
			check(t, "states", states, true)
			if tt.verified != nil {
				check(t, "verified", said, any(*tt.verified))
			} else {
				check(t, "verified", said, nil)
			}

			messages := endpoint.Messages()
			var event struct{ Data json.RawMessage }
			must(t, json.Unmarshal(messages[len(messages)-1].Body, &event))
			inEvent := addressesOf(t, event.Data).ExternalAccounts[0]
			_, states = inEvent["email_address_verified"]
			check(t, "the event states", states, tt.inEvent)
			check(t, "the event's address", inEvent["email_address"], any("ada@example.com"))
			if !tt.inEvent {
				check(t, "the event's object", inEvent["object"], any("google_account"))
				check(t, "the event's id", inEvent["id"], any(link.ID))
				_, states = inEvent["provider"]
				check(t, "the event's provider", states, false)
			}
		})
	}
}
