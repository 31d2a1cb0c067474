package clerksync

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// Users who have a record from before Clerk
//
// A Store that adopts ([AdoptStore]) links such a record at the user's first write, whatever
// causes it. If a record without a Clerk id has the user's address and must not be linked,
// nothing is written (ErrUnlinked): linking would give it to somebody who may not own it, and a
// second record would split the user's data. Visits and webhooks then answer 409.
//
// The proof of an address can be missing from an event although Clerk's API has it. So after an
// event the user is read from the API once, and offered as it is there. A visit, a Sync and a
// Reconcile have read the API already.

// linkAttempt stands in the handoverLog for an attempt to link a user. No field has this name.
const linkAttempt = ""

// linkFromClerk tries again to write a user whom an event could not link to a record, as
// Clerk's API has the user now. It asks at most once every handoverEvery for one user. cause is
// the error of that write, and is returned if Clerk is not asked or gives no user in time.
//
// If Clerk's answer leaves the user unlinked, visits get the same answer for failureFor without
// asking Clerk.
func (s *Syncer) linkFromClerk(ctx context.Context, id string, cause error) (Result, error) {
	now := s.clock.Now()
	if s.pause.left(now) > 0 {
		return Result{}, cause
	}
	if !s.handovers.reserve(id, linkAttempt, nil, now) {
		s.rereads.recordFailure(id, cause, now, failureFor)
		return Result{}, cause
	}
	callCtx, cancel := clock.WithTimeout(ctx, s.clock, holderTimeout)
	defer cancel()
	m := s.readFromClerk(callCtx, id)
	if m.user == nil {
		return Result{}, cause
	}
	res, err := s.write(ctx, m, s.upsert)
	if errors.Is(err, ErrUnlinked) {
		s.rereads.recordFailure(id, err, s.clock.Now(), failureFor)
	}
	return res, err
}

// unlinkedAdvice is what the log says to do about ErrUnlinked.
const unlinkedAdvice = "if the record is this user's, set its clerkId to the user's id, or the user's external id in Clerk to the record's; " +
	"a user who proves the address to Clerk, by a code or link, is linked at the next visit"

// Who controls an address
//
// A record that the app had before Clerk may hold money and rights, and an address is all that
// leads to it. So a [Store] that adopts links by address only if the person has shown to Clerk
// that mail to it reaches them. "verified" alone does not say that: an administrator, an
// invitation's ticket and a company's directory (SAML, SCIM) can assert any address. Two things
// do: a code or link that Clerk sent to the address, and an OAuth provider that says that it
// has verified the address itself.
//
// What proves something must be there, and what could speak against it must not. A field of
// another type than Clerk documents proves nothing. Events can lack the proof that Clerk's API
// has: there, a Google account is a "google_account" without provider and
// email_address_verified.
//
// The fields are those of the schemas EmailAddress and ExternalAccountWithVerification in
// https://github.com/clerk/openapi-specs.

// clerkEmail is one of a user's e-mail addresses.
type clerkEmail struct {
	ID           string          `json:"id"`
	EmailAddress string          `json:"email_address"`
	Verification json.RawMessage `json:"verification"`
	Reserved     json.RawMessage `json:"reserved"`
	LinkedTo     json.RawMessage `json:"linked_to"`
}

// provesEmail reports whether the user has proven to Clerk to control an address.
func (o *clerkUser) provesEmail(address string) bool {
	proven := false
	for _, e := range o.EmailAddresses {
		if e == nil || e.EmailAddress != address || address == "" {
			continue
		}
		if proven = e.proven(o.ExternalAccounts); !proven {
			return false
		}
	}
	return proven
}

// proven reports whether the user controls the address. accounts are the user's external_accounts.
func (e *clerkEmail) proven(accounts json.RawMessage) bool {
	if !absentOr(e.Reserved, "false") {
		return false
	}
	switch strategy := verifiedBy(e.Verification); strategy {
	case "email_code", "email_link":
		return true
	default:
		provider := oauthProvider(strings.TrimPrefix(strategy, "from_"))
		return provider != "" && e.provenByAccount(provider, accounts)
	}
}

// provenByAccount reports whether an account of the user at this OAuth provider is linked to the
// address, has exactly this address, and the provider says that it has verified it. No other
// such account may say otherwise.
func (e *clerkEmail) provenByAccount(provider string, raw json.RawMessage) bool {
	var accounts []map[string]json.RawMessage
	if json.Unmarshal(raw, &accounts) != nil {
		return false
	}
	proven := false
	for _, account := range accounts {
		if accountProvider(account["provider"]) != provider || firstText(account["email_address"]) != e.EmailAddress ||
			!e.linkedTo(provider, account) {
			continue
		}
		if proven = accountVerified(account); !proven {
			return false
		}
	}
	return proven
}

// accountVerified reports whether the provider of an external account has verified its address,
// and Clerk the account. Clerk documents null for "unknown".
func accountVerified(account map[string]json.RawMessage) bool {
	verification, stated := account["verification"]
	return string(account["email_address_verified"]) == "true" && (!stated || verifiedBy(verification) != "")
}

// linkedTo reports whether the address's linked_to names the account. An address without
// linked_to, which Clerk documents to be always there, says nothing about it.
func (e *clerkEmail) linkedTo(provider string, account map[string]json.RawMessage) bool {
	if len(e.LinkedTo) == 0 {
		return true
	}
	var links []struct {
		ID   json.RawMessage `json:"id"`
		Type json.RawMessage `json:"type"`
	}
	if json.Unmarshal(e.LinkedTo, &links) != nil {
		return false
	}
	for _, link := range links {
		id := firstText(link.ID)
		if id == "" || oauthProvider(firstText(link.Type)) != provider {
			continue
		}
		if id == firstText(account["identification_id"]) || id == firstText(account["id"]) { // the event's shape
			return true
		}
	}
	return false
}

// verifiedBy returns the strategy of a verification whose status is "verified"; empty for any
// other.
func verifiedBy(verification json.RawMessage) string {
	v := object(verification)
	if firstText(v["status"]) != "verified" {
		return ""
	}
	return firstText(v["strategy"])
}

// oauthProvider returns the provider in the name of an OAuth strategy: "google" of "oauth_google",
// and of "oauth_token_google", with which apps on a phone sign in. It is empty for other
// strategies.
func oauthProvider(strategy string) string {
	provider, isOAuth := strings.CutPrefix(strategy, "oauth_")
	if !isOAuth {
		return ""
	}
	return strings.TrimPrefix(provider, "token_")
}

// accountProvider returns the provider of an external account. The API has "oauth_google", and
// the documentation of Clerk's SDKs "google".
func accountProvider(raw json.RawMessage) string {
	return strings.TrimPrefix(firstText(raw), "oauth_")
}

// absentOr reports whether a field is absent or has exactly this JSON.
func absentOr(raw json.RawMessage, want string) bool { return len(raw) == 0 || string(raw) == want }
