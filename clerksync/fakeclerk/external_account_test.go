package fakeclerk_test

import (
	"encoding/json"
	"testing"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

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
