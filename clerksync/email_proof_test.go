package clerksync_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync"
)

// object is a JSON object that a test changes.
type object = map[string]any

// emailUser is a user with one address, which was verified by this strategy.
func emailUser(strategy string) object {
	return object{
		"id": "user_1", "updated_at": t0.UnixMilli(), "primary_email_address_id": "idn_1",
		"email_addresses": []any{object{
			"object": "email_address", "id": "idn_1", "email_address": "ada@example.com", "reserved": false,
			"verification": object{"status": "verified", "strategy": strategy, "attempts": nil, "expire_at": nil},
			"linked_to":    []any{}, "created_at": 1, "updated_at": 1,
		}},
		"external_accounts": []any{},
	}
}

// oauthUser is a user whose address comes from a Google account, as Clerk's API has it.
func oauthUser() object {
	u := emailUser("from_oauth_google")
	email(u)["linked_to"] = []any{object{"id": "idn_2", "type": "oauth_google"}}
	u["external_accounts"] = []any{object{
		"object": "external_account", "id": "eac_1", "provider": "oauth_google", "identification_id": "idn_2",
		"provider_user_id": "1008", "email_address": "ada@example.com", "email_address_verified": true,
		"verification": object{"status": "verified", "strategy": "oauth_google", "attempts": nil, "expire_at": 1},
	}}
	return u
}

func email(u object) object   { return u["email_addresses"].([]any)[0].(object) }
func account(u object) object { return u["external_accounts"].([]any)[0].(object) }

// with returns u after a change.
func with(u object, change func(u object)) object {
	change(u)
	return u
}

// proofOf returns EmailProven of the record that is made of u.
func proofOf(t *testing.T, s *clerksync.Syncer, u object) bool {
	t.Helper()
	raw, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	got, err := clerksync.MapUser(s, raw, t0)
	if err != nil {
		t.Fatal(err)
	}
	return got.EmailProven
}

func TestEmailProven(t *testing.T) {
	t.Parallel()
	otherAccount := func(change func(account object)) object {
		u := oauthUser()
		second := maps.Clone(account(u))
		second["id"], second["identification_id"] = "eac_2", "idn_3"
		change(second)
		u["external_accounts"] = append(u["external_accounts"].([]any), second)
		return u
	}
	secondEntry := func(strategy string) object {
		return with(emailUser("email_code"), func(u object) {
			e := maps.Clone(email(u))
			e["id"], e["verification"] = "idn_9", object{"status": "verified", "strategy": strategy}
			u["email_addresses"] = append(u["email_addresses"].([]any), e)
		})
	}
	googleAccount := func(u object) { // the shape in events
		account(u)["object"], account(u)["id"] = "google_account", "idn_2"
		delete(account(u), "provider")
		delete(account(u), "identification_id")
		delete(account(u), "email_address_verified")
	}
	tests := map[string]struct {
		user object
		want bool
	}{
		"a code":           {emailUser("email_code"), true},
		"a link":           {emailUser("email_link"), true},
		"Google":           {oauthUser(), true},
		"Google's token":   {with(oauthUser(), func(u object) { verification(u)["strategy"] = "from_oauth_token_google" }), true},
		"without from_":    {with(oauthUser(), func(u object) { verification(u)["strategy"] = "oauth_google" }), true},
		"provider's name":  {with(oauthUser(), func(u object) { account(u)["provider"] = "google" }), true},
		"an event's ids":   {with(oauthUser(), func(u object) { account(u)["id"] = "idn_2"; delete(account(u), "identification_id") }), true},
		"another account":  {otherAccount(func(a object) { a["email_address"] = "bob@example.com" }), true},
		"other providers":  {otherAccount(func(a object) { a["provider"], a["email_address_verified"] = "oauth_x", nil }), true},
		"no reserved":      {with(emailUser("email_code"), func(u object) { delete(email(u), "reserved") }), true},
		"no linked_to":     {with(oauthUser(), func(u object) { delete(email(u), "linked_to") }), true},
		"no account state": {with(oauthUser(), func(u object) { delete(account(u), "verification") }), true},

		"an administrator":                      {emailUser("admin"), false},
		"an invitation":                         {emailUser("ticket"), false},
		"SAML":                                  {emailUser("saml"), false},
		"SCIM":                                  {emailUser("scim"), false},
		"a code to reset":                       {emailUser("reset_password_email_code"), false},
		"a code by phone":                       {emailUser("phone_code"), false},
		"a password":                            {emailUser("password"), false},
		"a passkey":                             {emailUser("passkey"), false},
		"no strategy":                           {emailUser(""), false},
		"an unknown one":                        {emailUser("email_code_2"), false},
		"another case":                          {emailUser("EMAIL_CODE"), false},
		"a prefix":                              {emailUser("from_email_code"), false},
		"OAuth without a name":                  {with(oauthUser(), func(u object) { verification(u)["strategy"] = "from_oauth_" }), false},
		"unverified":                            {with(emailUser("email_code"), func(u object) { verification(u)["status"] = "unverified" }), false},
		"expired":                               {with(emailUser("email_code"), func(u object) { verification(u)["status"] = "expired" }), false},
		"failed":                                {with(emailUser("email_code"), func(u object) { verification(u)["status"] = "failed" }), false},
		"transferable":                          {with(emailUser("email_link"), func(u object) { verification(u)["status"] = "transferable" }), false},
		"no verification":                       {with(emailUser("email_code"), func(u object) { email(u)["verification"] = nil }), false},
		"reserved":                              {with(emailUser("email_code"), func(u object) { email(u)["reserved"] = true }), false},
		"reserved, Google":                      {with(oauthUser(), func(u object) { email(u)["reserved"] = true }), false},
		"reserved, of other types":              {with(emailUser("email_code"), func(u object) { email(u)["reserved"] = "false" }), false},
		"reserved, null":                        {with(emailUser("email_code"), func(u object) { email(u)["reserved"] = nil }), false},
		"no address":                            {with(emailUser("email_code"), func(u object) { email(u)["email_address"] = "" }), false},
		"no primary one":                        {with(emailUser("email_code"), func(u object) { u["primary_email_address_id"] = nil }), false},
		"the primary is not there":              {with(emailUser("email_code"), func(u object) { u["primary_email_address_id"] = "idn_7" }), false},
		"the same address, by an administrator": {secondEntry("admin"), false},
		"the same address, by a link":           {secondEntry("email_link"), true},
		"the same address, first by SAML":       {with(secondEntry("email_link"), func(u object) { verification(u)["strategy"] = "saml" }), false},

		"Google does not say verified": {with(oauthUser(), func(u object) { account(u)["email_address_verified"] = false }), false},
		"Google does not know":         {with(oauthUser(), func(u object) { account(u)["email_address_verified"] = nil }), false},
		"Google says a text":           {with(oauthUser(), func(u object) { account(u)["email_address_verified"] = "true" }), false},
		"Google says a number":         {with(oauthUser(), func(u object) { account(u)["email_address_verified"] = 1 }), false},
		"another provider's account":   {with(oauthUser(), func(u object) { account(u)["provider"] = "oauth_github" }), false},
		"no provider":                  {with(oauthUser(), func(u object) { delete(account(u), "provider") }), false},
		"another address":              {with(oauthUser(), func(u object) { account(u)["email_address"] = "bob@example.com" }), false},
		"another case of the address":  {with(oauthUser(), func(u object) { account(u)["email_address"] = "Ada@example.com" }), false},
		"white space in the address":   {with(oauthUser(), func(u object) { account(u)["email_address"] = "ada@example.com " }), false},
		"an unverified account":        {with(oauthUser(), func(u object) { account(u)["verification"] = object{"status": "unverified"} }), false},
		"a transferable account": {with(oauthUser(), func(u object) {
			account(u)["verification"] = object{"status": "transferable", "strategy": "oauth_google"}
		}), false},
		"an account without a verification": {with(oauthUser(), func(u object) { account(u)["verification"] = nil }), false},
		"not linked":                        {with(oauthUser(), func(u object) { email(u)["linked_to"] = []any{} }), false},
		"linked to nothing":                 {with(oauthUser(), func(u object) { email(u)["linked_to"] = nil }), false},
		"linked to another account": {with(oauthUser(), func(u object) {
			email(u)["linked_to"] = []any{object{"id": "idn_5", "type": "oauth_google"}}
		}), false},
		"linked to another provider": {with(oauthUser(), func(u object) {
			email(u)["linked_to"] = []any{object{"id": "idn_2", "type": "saml"}}
		}), false},
		"linked without ids": {with(oauthUser(), func(u object) {
			email(u)["linked_to"] = []any{object{"id": "", "type": "oauth_google"}}
			account(u)["id"], account(u)["identification_id"] = "", ""
		}), false},
		"Google, disconnected since":       {with(oauthUser(), func(u object) { u["external_accounts"] = []any{} }), false},
		"Google, and a second one denies":  {twoAccounts(true, false), false},
		"Google, and the first one denies": {twoAccounts(false, true), false},
		"Google, and both verified":        {twoAccounts(true, true), true},
		"an event's Google account":        {with(oauthUser(), googleAccount), false},
		"an administrator, and an account of no provider": {with(oauthUser(), func(u object) {
			verification(u)["strategy"] = "admin"
			delete(account(u), "provider")
			delete(email(u), "linked_to")
		}), false},
		"a SAML account beside": {with(emailUser("saml"), func(u object) { u["external_accounts"] = oauthUser()["external_accounts"] }), false},
	}
	s := newTestSyncer(t, nil)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := proofOf(t, s, tt.user); got != tt.want {
				t.Errorf("EmailProven is %t, want %t", got, tt.want)
			}
		})
	}
}

func verification(u object) object { return email(u)["verification"].(object) }

// twoAccounts is a user with two Google accounts of one address, both linked.
func twoAccounts(firstVerified, secondVerified bool) object {
	u := oauthUser()
	second := maps.Clone(account(u))
	second["id"], second["identification_id"], second["email_address_verified"] = "eac_2", "idn_3", secondVerified
	account(u)["email_address_verified"] = firstVerified
	u["external_accounts"] = append(u["external_accounts"].([]any), second)
	email(u)["linked_to"] = []any{
		object{"id": "idn_2", "type": "oauth_google"}, object{"id": "idn_3", "type": "oauth_google"},
	}
	return u
}

// A field of another type than documented, at any place, proves nothing and is not an error.
func TestEmailProofOfOtherTypes(t *testing.T) {
	t.Parallel()
	s := newTestSyncer(t, nil)
	others := []any{nil, true, false, 7, 1.5, "x", "", []any{}, []any{1}, object{}, object{"status": "verified"}, []any{nil}}
	places := map[string]func(u object, v any){
		"verification":              func(u object, v any) { email(u)["verification"] = v },
		"status":                    func(u object, v any) { verification(u)["status"] = v },
		"strategy":                  func(u object, v any) { verification(u)["strategy"] = v },
		"linked_to":                 func(u object, v any) { email(u)["linked_to"] = v },
		"a link":                    func(u object, v any) { email(u)["linked_to"] = []any{v} },
		"a link's id":               func(u object, v any) { email(u)["linked_to"] = []any{object{"id": v, "type": "oauth_google"}} },
		"a link's type":             func(u object, v any) { email(u)["linked_to"] = []any{object{"id": "idn_2", "type": v}} },
		"external_accounts":         func(u object, v any) { u["external_accounts"] = v },
		"an account":                func(u object, v any) { u["external_accounts"] = []any{v} },
		"an account's provider":     func(u object, v any) { account(u)["provider"] = v },
		"an account's address":      func(u object, v any) { account(u)["email_address"] = v },
		"an account's verification": func(u object, v any) { account(u)["verification"] = v },
		"an account's status":       func(u object, v any) { account(u)["verification"] = object{"status": v, "strategy": "oauth_google"} },
		"both ids":                  func(u object, v any) { account(u)["identification_id"], account(u)["id"] = v, v },
	}
	for _, place := range slices.Sorted(maps.Keys(places)) {
		for _, v := range others {
			if proofOf(t, s, with(oauthUser(), func(u object) { places[place](u, v) })) {
				t.Errorf("%s: %#v: the address counts as proven", place, v)
			}
		}
	}
	for _, v := range others {
		reserved := with(emailUser("email_code"), func(u object) { email(u)["reserved"] = v })
		if got, want := proofOf(t, s, reserved), v == false; got != want {
			t.Errorf("reserved: %#v: EmailProven is %t, want %t", v, got, want)
		}
		says := with(oauthUser(), func(u object) { account(u)["email_address_verified"] = v })
		if got, want := proofOf(t, s, says), v == true; got != want {
			t.Errorf("email_address_verified: %#v: EmailProven is %t, want %t", v, got, want)
		}
	}
}

// Map decides which address it is about, and may vouch for it.
func TestEmailProvenAfterMap(t *testing.T) {
	t.Parallel()
	const own, asserted = "ada@example.com", "admin@example.com"
	user := with(emailUser("email_code"), func(u object) {
		u["email_addresses"] = append(u["email_addresses"].([]any), object{
			"id": "idn_5", "email_address": asserted, "reserved": false, "linked_to": []any{},
			"verification": object{"status": "verified", "strategy": "admin"},
		})
	})
	primary := func(id string) object {
		u := maps.Clone(user)
		u["primary_email_address_id"] = id
		return u
	}
	tests := map[string]struct {
		primary string
		change  func(*clerksync.User)
		want    bool
	}{
		"nothing":                         {"idn_1", func(*clerksync.User) {}, true},
		"the proven address":              {"idn_5", func(u *clerksync.User) { u.Email = own }, true},
		"the asserted address":            {"idn_1", func(u *clerksync.User) { u.Email = asserted }, false},
		"an address from elsewhere":       {"idn_1", func(u *clerksync.User) { u.Email = "eve@example.com" }, false},
		"an address in another case":      {"idn_1", func(u *clerksync.User) { u.Email = "Ada@example.com" }, false},
		"no address":                      {"idn_1", func(u *clerksync.User) { u.Email = "" }, false},
		"vouched for the asserted one":    {"idn_5", func(u *clerksync.User) { u.EmailProven = true }, true},
		"vouched for one from elsewhere":  {"idn_1", func(u *clerksync.User) { u.Email, u.EmailProven = "eve@example.com", true }, true},
		"an address, but it says nothing": {"idn_1", func(u *clerksync.User) { u.EmailVerified = true; u.Email = asserted }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTestSyncer(t, func(c *clerksync.Config) {
				c.Map = func(_ *clerk.User, u *clerksync.User) error {
					if u.EmailProven {
						return errors.New("judged before Map")
					}
					tt.change(u)
					return nil
				}
			})
			if got := proofOf(t, s, primary(tt.primary)); got != tt.want {
				t.Errorf("EmailProven is %t, want %t", got, tt.want)
			}
		})
	}
}

func TestExternalID(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ json, want string }{
		"a text":      {`"65f0"`, "65f0"},
		"empty":       {`""`, ""},
		"null":        {`null`, ""},
		"a number":    {`7`, ""},
		"an object":   {`{"$ne":null}`, ""},
		"a list":      {`["65f0"]`, ""},
		"not UTF-8":   {"\"65\xff\"", "65\uFFFD"},
		"white space": {`" 65f0 "`, " 65f0 "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw := fmt.Sprintf(`{"id":"user_1","external_id":%s}`, tt.json)
			u, err := clerksync.MapUser(newTestSyncer(t, nil), json.RawMessage(raw), t0)
			if err != nil || u.ExternalID != tt.want {
				t.Errorf("%+v, %v; want the external id %q", u, err, tt.want)
			}
		})
	}
}

// What only an Upsert is told is not part of the record: nothing compares it, and copies keep it.
func TestUpsertArgumentsAreNotTheRecord(t *testing.T) {
	t.Parallel()
	plain := fullUser()
	told := fullUser()
	told.ExternalID, told.EmailProven, told.Record = "65f0", true, &struct{ Plan string }{"pro"}

	if diff := cmp.Diff(maps.Collect(plain.ClerkFields()), maps.Collect(told.ClerkFields())); diff != "" {
		t.Errorf("ClerkFields (-without +with):\n%s", diff)
	}
	stored := fullUser()
	stored.DeletedAt = time.Time{}
	if got := clerksync.Decide(stored, told, t0); got != clerksync.Unchanged {
		t.Errorf("Decide says %s, want unchanged", got)
	}
	for name, u := range map[string]*clerksync.User{"Clone": told.Clone(), "Canonical": canonical(t, told)} {
		if u.ExternalID != told.ExternalID || !u.EmailProven || u.Record != told.Record {
			t.Errorf("%s keeps %q, %t, %v", name, u.ExternalID, u.EmailProven, u.Record)
		}
	}
	a, err := json.Marshal(plain)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(told)
	if err != nil || string(a) != string(b) {
		t.Errorf("JSON differs: %s and %s, %v", a, b, err)
	}
}

func canonical(t *testing.T, u *clerksync.User) *clerksync.User {
	t.Helper()
	c, err := u.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
