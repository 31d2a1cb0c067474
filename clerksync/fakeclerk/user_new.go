package fakeclerk

import (
	"encoding/json"
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

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
