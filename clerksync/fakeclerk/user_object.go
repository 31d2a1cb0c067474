package fakeclerk

import (
	"encoding/json"
	"maps"
	"strings"

	"github.com/clerk/clerk-sdk-go/v2"
)

// UserObject is a user as the Backend API and the webhooks send it: the official SDK's clerk.User, and
// the fields that clerk.User does not have. Times are Unix milliseconds. As at Clerk, nil slices are
// sent as [] and absent metadata as {}.
type UserObject struct {
	clerk.User

	// ProfileImageURL is deprecated at Clerk. "" leaves it out.
	ProfileImageURL string `json:"profile_image_url,omitempty"`

	// Deprovisioned means that a directory (SCIM) has withdrawn the user's access.
	Deprovisioned bool `json:"deprovisioned"`

	// See [NewUser] for Birthday and Gender. nil leaves them out.
	Birthday *string `json:"birthday,omitempty"`
	Gender   *string `json:"gender,omitempty"`

	// Extra holds more top-level fields, such as undocumented ones. A field that the object already has
	// is replaced, possibly by a value of the wrong type. The values must be encodable by encoding/json.
	Extra map[string]any `json:"-"`

	ids *idSource // nil: looseIDs
	// emailVerified is the email_address_verified of external accounts, by their ids. clerk.User does
	// not have it.
	emailVerified map[string]*bool
	inEvent       bool // encode the shape that events have
}

// MarshalJSON encodes the object with the fields of Extra.
func (u UserObject) MarshalJSON() ([]byte, error) {
	type plain UserObject // without this method
	b, err := json.Marshal(plain(u))
	if err != nil || len(u.Extra) == 0 && len(u.ExternalAccounts) == 0 {
		return b, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return nil, err
	}
	if fields["external_accounts"], err = json.Marshal(u.accounts()); err != nil {
		return nil, err
	}
	for name, value := range u.Extra {
		if fields[name], err = json.Marshal(value); err != nil {
			return nil, err
		}
	}
	return json.Marshal(fields)
}

// AddEmailAddress adds an e-mail address and returns its id ("idn_…"). It does not make the address
// primary: set PrimaryEmailAddressID for that. If verified is false, the status of its verification is
// "unverified".
func (u *UserObject) AddEmailAddress(address string, verified bool) string {
	e := &clerk.EmailAddress{ID: u.idSource().id("idn_"), EmailAddress: address}
	e.Verification = verification(verified, "email_code")
	u.EmailAddresses = append(u.EmailAddresses, e)
	return e.ID
}

// addEmailByAdmin adds an address as the Backend API does: it is verified without the user, or
// reserved.
func (u *UserObject) addEmailByAdmin(address string, verified bool) string {
	id := u.AddEmailAddress(address, verified)
	e := u.EmailAddresses[len(u.EmailAddresses)-1]
	if e.Reserved = !verified; verified {
		e.Verification = verificationBy("admin", "verified")
	}
	return id
}

// AddPhoneNumber adds a phone number and returns its id ("idn_…"). It does not make the number
// primary: set PrimaryPhoneNumberID for that. If verified is false, the status of its verification is
// "unverified".
func (u *UserObject) AddPhoneNumber(number string, verified bool) string {
	p := &clerk.PhoneNumber{ID: u.idSource().id("idn_"), PhoneNumber: number}
	p.Verification = verification(verified, "phone_code")
	u.PhoneNumbers = append(u.PhoneNumbers, p)
	return p.ID
}

func (u *UserObject) addWeb3Wallet(address string, _ bool) string {
	w := &clerk.Web3Wallet{ID: u.idSource().id("idn_"), Web3Wallet: address}
	w.Verification = &clerk.Verification{Object: "verification_admin", Status: "verified", Strategy: "admin"}
	u.Web3Wallets = append(u.Web3Wallets, w)
	return w.ID
}

// verification returns a verification by a one-time code.
func verification(verified bool, strategy string) *clerk.Verification {
	v := &clerk.Verification{
		Object: "verification_otp", Status: "unverified", Strategy: strategy, Attempts: clerk.Int64(0),
	}
	if verified {
		v.Status, v.Attempts = "verified", clerk.Int64(1)
	}
	return v
}

func (u *UserObject) idSource() *idSource {
	if u.ids == nil {
		return looseIDs
	}
	return u.ids
}

// complete fills in the fields that Clerk never leaves out.
func (u *UserObject) complete() {
	u.Object = "user"
	for _, m := range []*json.RawMessage{&u.PublicMetadata, &u.PrivateMetadata, &u.UnsafeMetadata} {
		if len(*m) == 0 {
			*m = json.RawMessage("{}")
		}
	}
	u.EmailAddresses = orEmpty(u.EmailAddresses)
	for _, e := range u.EmailAddresses {
		e.Object = "email_address"
		u.identify(&e.ID, &e.CreatedAt, &e.UpdatedAt)
		e.LinkedTo = orEmpty(e.LinkedTo)
	}
	u.PhoneNumbers = orEmpty(u.PhoneNumbers)
	for _, p := range u.PhoneNumbers {
		p.Object = "phone_number"
		u.identify(&p.ID, &p.CreatedAt, &p.UpdatedAt)
		p.LinkedTo = orEmpty(p.LinkedTo)
	}
	u.Web3Wallets = orEmpty(u.Web3Wallets)
	for _, w := range u.Web3Wallets {
		w.Object = "web3_wallet"
		u.identify(&w.ID, &w.CreatedAt, &w.UpdatedAt)
	}
	u.Passkeys = orEmpty(u.Passkeys)
	u.ExternalAccounts = orEmpty(u.ExternalAccounts)
	u.SAMLAccounts = orEmpty(u.SAMLAccounts)
	u.EnterpriseAccounts = orEmpty(u.EnterpriseAccounts)
}

// identify gives an identifier the id and the times that it lacks.
func (u *UserObject) identify(id *string, createdAt, updatedAt *int64) {
	if *id == "" {
		*id = u.idSource().id("idn_")
	}
	if *createdAt == 0 {
		*createdAt = u.UpdatedAt
	}
	if *updatedAt == 0 {
		*updatedAt = *createdAt
	}
}

// clone returns a deep copy, except that the values of Extra are shared.
func (u *UserObject) clone() (*UserObject, error) {
	type plain UserObject
	b, err := json.Marshal((*plain)(u))
	if err != nil {
		return nil, err
	}
	var c UserObject
	if err := json.Unmarshal(b, (*plain)(&c)); err != nil {
		return nil, err
	}
	c.Extra, c.ids, c.emailVerified = maps.Clone(u.Extra), u.ids, maps.Clone(u.emailVerified)
	return &c, nil
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// identifier is an e-mail address, a phone number, a wallet or, without an id, a username or external
// id.
type identifier struct{ id, text string }

func (u *UserObject) emails() []identifier {
	return identifiers(u.EmailAddresses, func(e *clerk.EmailAddress) identifier {
		return identifier{e.ID, e.EmailAddress}
	})
}

func (u *UserObject) phones() []identifier {
	return identifiers(u.PhoneNumbers, func(p *clerk.PhoneNumber) identifier {
		return identifier{p.ID, p.PhoneNumber}
	})
}

func (u *UserObject) wallets() []identifier {
	return identifiers(u.Web3Wallets, func(w *clerk.Web3Wallet) identifier {
		return identifier{w.ID, w.Web3Wallet}
	})
}

func (u *UserObject) name() string {
	return strings.TrimSpace(deref(u.FirstName) + " " + deref(u.LastName))
}

func identifiers[T any](from []T, f func(T) identifier) []identifier {
	list := make([]identifier, len(from))
	for i, v := range from {
		list[i] = f(v)
	}
	return list
}

func texts(list []identifier) []string {
	s := make([]string, len(list))
	for i, v := range list {
		s[i] = v.text
	}
	return s
}

// first returns the text of the primary identifier, or "" if there is none.
func first(list []identifier, primary *string) string {
	for _, v := range list {
		if primary != nil && v.id == *primary {
			return v.text
		}
	}
	return ""
}

func optional(s *string) []identifier {
	if s == nil {
		return nil
	}
	return []identifier{{text: *s}}
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
