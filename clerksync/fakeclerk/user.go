package fakeclerk

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
)

// NewUser describes a user to create. The zero value is legal: a user without a name,
// an e-mail address or a phone number, as one who signed up with a wallet.
type NewUser struct {
	// ID defaults to a fresh one: "user_" and 27 base-62 characters.
	ID string

	FirstName, LastName  string // null when empty
	Username, ExternalID string // null when empty

	// Email becomes the only and primary e-mail address, verified unless
	// EmailUnverified. Defaults to none.
	Email           string
	EmailUnverified bool

	// Phone becomes the only and primary phone number (E.164), verified unless
	// PhoneUnverified. Defaults to none.
	Phone           string
	PhoneUnverified bool

	// ImageURL defaults to the placeholder of a user without an image.
	ImageURL string

	// Birthday and Gender are top-level fields that Clerk's documentation shows in
	// webhook payloads and its OpenAPI schema lacks. Default to absent.
	Birthday, Gender string

	// Metadata; what encoding/json takes. Default to {}.
	PublicMetadata, PrivateMetadata, UnsafeMetadata map[string]any

	// CreatedAt is the sign-up, and the last change. Defaults to the server's time.
	CreatedAt time.Time
}

// Object returns the user object that Clerk makes of u, for tests that need one without
// a server, such as one for [SignedRequest]. Each call makes fresh ids. now stands in
// for a zero CreatedAt. Object panics where the metadata is not what encoding/json
// takes.
func (u NewUser) Object(now time.Time) *UserObject {
	o, err := u.object(now, looseIDs)
	if err != nil {
		panic(err)
	}
	return o
}

func (u NewUser) object(now time.Time, ids *idSource) (*UserObject, error) {
	if !u.CreatedAt.IsZero() {
		now = u.CreatedAt
	}
	at := now.UnixMilli()
	o := &UserObject{ids: ids}
	o.ID = u.ID
	if o.ID == "" {
		o.ID = ids.id("user_")
	}
	o.FirstName, o.LastName = orNil(u.FirstName), orNil(u.LastName)
	o.Username, o.ExternalID = orNil(u.Username), orNil(u.ExternalID)
	o.Birthday, o.Gender = orNil(u.Birthday), orNil(u.Gender)
	o.CreatedAt, o.UpdatedAt = at, at
	o.DeleteSelfEnabled, o.CreateOrganizationEnabled = true, true
	o.HasImage = u.ImageURL != ""
	o.ImageURL = clerk.String(u.ImageURL)
	if !o.HasImage {
		o.ImageURL = clerk.String(placeholderImage)
	}
	if u.Email != "" {
		o.PrimaryEmailAddressID = clerk.String(o.AddEmailAddress(u.Email, !u.EmailUnverified))
	}
	if u.Phone != "" {
		o.PrimaryPhoneNumberID = clerk.String(o.AddPhoneNumber(u.Phone, !u.PhoneUnverified))
	}
	for _, m := range []struct {
		from map[string]any
		to   *json.RawMessage
	}{
		{u.PublicMetadata, &o.PublicMetadata},
		{u.PrivateMetadata, &o.PrivateMetadata},
		{u.UnsafeMetadata, &o.UnsafeMetadata},
	} {
		if m.from == nil {
			continue
		}
		raw, err := json.Marshal(m.from)
		if err != nil {
			return nil, err
		}
		*m.to = raw
	}
	o.complete()
	return o, nil
}

// placeholderImage stands for the avatar that Clerk draws for a user without an image.
const placeholderImage = "https://img.clerk.com/placeholder"

// UserObject is a user as the Backend API and the webhooks give it: the official SDK's
// clerk.User, and what that lacks. Times are Unix milliseconds. A nil slice is sent as
// [] and absent metadata as {}, as Clerk sends them.
type UserObject struct {
	clerk.User

	// ProfileImageURL is deprecated at Clerk. Left out when empty.
	ProfileImageURL string `json:"profile_image_url,omitempty"`

	// Deprovisioned says that a directory (SCIM) took the user's access away.
	Deprovisioned bool `json:"deprovisioned"`

	// Birthday and Gender: see [NewUser]. Left out when nil.
	Birthday *string `json:"birthday,omitempty"`
	Gender   *string `json:"gender,omitempty"`

	// Extra has further top-level fields, and replaces those it names again: an
	// undocumented field of Clerk's, or one of a wrong type.
	Extra map[string]any `json:"-"`

	ids *idSource
}

// MarshalJSON encodes the object with Extra merged in.
func (u UserObject) MarshalJSON() ([]byte, error) {
	type plain UserObject // without this method
	b, err := json.Marshal(plain(u))
	if err != nil || len(u.Extra) == 0 {
		return b, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return nil, err
	}
	for name, value := range u.Extra {
		if fields[name], err = json.Marshal(value); err != nil {
			return nil, err
		}
	}
	return json.Marshal(fields)
}

// AddEmailAddress adds an e-mail address and returns its id ("idn_…"). It does not make
// it the primary one: PrimaryEmailAddressID does. An unverified one has a verification
// that is under way.
func (u *UserObject) AddEmailAddress(address string, verified bool) string {
	e := &clerk.EmailAddress{ID: u.idSource().id("idn_"), EmailAddress: address}
	e.Verification = verification(verified, "email_code")
	u.EmailAddresses = append(u.EmailAddresses, e)
	return e.ID
}

// AddPhoneNumber adds a phone number and returns its id ("idn_…"). It does not make it
// the primary one: PrimaryPhoneNumberID does. An unverified one has a verification that
// is under way.
func (u *UserObject) AddPhoneNumber(number string, verified bool) string {
	p := &clerk.PhoneNumber{ID: u.idSource().id("idn_"), PhoneNumber: number}
	p.Verification = verification(verified, "phone_code")
	u.PhoneNumbers = append(u.PhoneNumbers, p)
	return p.ID
}

func verification(verified bool, strategy string) *clerk.Verification {
	v := &clerk.Verification{Object: "verification_otp", Status: "unverified", Strategy: strategy, Attempts: clerk.Int64(0)}
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

// complete fills in what Clerk never leaves out.
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

// clone returns a deep copy, but for the values of Extra.
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
	c.Extra, c.ids = maps.Clone(u.Extra), u.ids
	return &c, nil
}

// userTable holds the users. Stored objects are never modified, only replaced, so what
// was read under the server's lock stays valid outside it.
type userTable struct {
	byID    map[string]*UserObject
	ordered []*UserObject   // by compareCreated
	deleted map[string]bool // ids that are never used again

	population *population // further users, nil where there are none
}

func newUserTable() userTable {
	return userTable{byID: make(map[string]*UserObject), deleted: make(map[string]bool)}
}

// compareCreated is the order of created_at: total, as the id breaks ties.
func compareCreated(a, b *UserObject) int {
	if a.CreatedAt != b.CreatedAt {
		if a.CreatedAt < b.CreatedAt {
			return -1
		}
		return 1
	}
	return strings.Compare(a.ID, b.ID)
}

func (t *userTable) put(u *UserObject) {
	if old, ok := t.byID[u.ID]; ok {
		i, _ := slices.BinarySearchFunc(t.ordered, old, compareCreated)
		if old.CreatedAt == u.CreatedAt {
			t.ordered[i] = u
			t.byID[u.ID] = u
			return
		}
		t.ordered = slices.Delete(t.ordered, i, i+1)
	} else if t.population != nil {
		t.population.leave(u.ID) // where it is the first change
	}
	i, _ := slices.BinarySearchFunc(t.ordered, u, compareCreated)
	t.ordered = slices.Insert(t.ordered, i, u)
	t.byID[u.ID] = u
}

func (t *userTable) remove(u *UserObject) {
	if t.population != nil && t.population.leave(u.ID) {
		return // it was never stored
	}
	i, _ := slices.BinarySearchFunc(t.ordered, u, compareCreated)
	t.ordered = slices.Delete(t.ordered, i, i+1)
	delete(t.byID, u.ID)
	t.deleted[u.ID] = true
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
