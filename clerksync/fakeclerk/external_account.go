package fakeclerk

import (
	"encoding/json"
	"strings"

	"github.com/clerk/clerk-sdk-go/v2"
)

// AddExternalAccount adds an account of the user's at an OAuth provider ("oauth_google") and returns
// its id ("eac_…"). Those of the user's e-mail addresses that equal address become linked to it.
// verified is email_address_verified: whether the provider has verified the address. nil is null,
// which means unknown.
//
// Events have another shape than the API: there, a Google account is a "google_account" without
// provider, identification_id and email_address_verified.
func (u *UserObject) AddExternalAccount(provider, address string, verified *bool) string {
	a := &clerk.ExternalAccount{
		Object: "external_account", ID: u.idSource().id("eac_"), Provider: provider,
		IdentificationID: u.idSource().id("idn_"), ProviderUserID: u.idSource().id(""), EmailAddress: address,
		PublicMetadata: json.RawMessage("{}"), CreatedAt: u.UpdatedAt, UpdatedAt: u.UpdatedAt,
		Verification: verificationBy(provider, "verified"),
	}
	u.ExternalAccounts = append(u.ExternalAccounts, a)
	if u.emailVerified == nil {
		u.emailVerified = make(map[string]*bool)
	}
	u.emailVerified[a.ID] = verified
	for _, e := range u.EmailAddresses {
		if e.EmailAddress == address {
			e.LinkedTo = append(e.LinkedTo, &clerk.LinkedIdentification{ID: a.IdentificationID, Type: provider})
		}
	}
	return a.ID
}

// accounts are the external accounts as they are sent. One that was added without
// AddExternalAccount does not have email_address_verified.
func (u *UserObject) accounts() []any {
	list := make([]any, len(u.ExternalAccounts))
	for i, a := range u.ExternalAccounts {
		verified, known := u.emailVerified[a.ID]
		switch {
		case u.inEvent && a.Provider == "oauth_google":
			list[i] = googleAccount(a)
		case known:
			list[i] = struct {
				*clerk.ExternalAccount
				EmailAddressVerified *bool `json:"email_address_verified"`
			}{a, verified}
		default:
			list[i] = a
		}
	}
	return list
}

// googleAccount is a Google account as events have it.
func googleAccount(a *clerk.ExternalAccount) map[string]any {
	return map[string]any{
		"object": "google_account", "id": a.IdentificationID, "google_id": a.ProviderUserID,
		"approved_scopes": a.ApprovedScopes, "email_address": a.EmailAddress,
		"given_name": a.FirstName, "family_name": a.LastName, "picture": a.AvatarURL,
		"username": a.Username, "label": a.Label, "public_metadata": a.PublicMetadata,
		"verification": a.Verification, "created_at": a.CreatedAt, "updated_at": a.UpdatedAt,
	}
}

// forEvent returns the data of an event in the shape that events have.
func forEvent(data any) any {
	switch v := data.(type) {
	case *UserObject:
		if v == nil || len(v.ExternalAccounts) == 0 {
			return v
		}
		c := *v
		c.inEvent = true
		return &c
	case session:
		v.User = forEvent(v.User).(*UserObject)
		return v
	}
	return data
}

// verificationBy returns a verification by this strategy.
func verificationBy(strategy, status string) *clerk.Verification {
	v := &clerk.Verification{Object: verificationObjects[strategy], Status: status, Strategy: strategy}
	switch {
	case strings.HasPrefix(strategy, "from_oauth_"):
		v.Object = "verification_from_oauth"
	case strings.HasPrefix(strategy, "oauth_"):
		v.Object = "verification_oauth"
	}
	return v
}

// verificationObjects are the types of verifications, by their strategy.
var verificationObjects = map[string]string{
	"email_code": "verification_otp", "phone_code": "verification_otp", "reset_password_email_code": "verification_otp",
	"email_link": "verification_email_link", "admin": "verification_admin", "ticket": "verification_ticket",
	"saml": "verification_saml", "scim": "verification_scim",
}
