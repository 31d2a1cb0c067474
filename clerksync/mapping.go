package clerksync

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
)

// maxVersionAhead is how far ahead of the clock a version may be. A version further ahead
// would block every later one.
const maxVersionAhead = 24 * time.Hour

// userFromClerk maps Clerk's JSON of a user to a record. asOf is when the API request was
// sent, or the event's timestamp. The error matches ErrInvalidEvent if the JSON is not a usable user. It is a
// mapping_failed [*Problem] if the app's RoleOf or Map failed.
func (s *Syncer) userFromClerk(raw json.RawMessage, asOf time.Time) (*User, error) {
	o, err := parseClerkUser(raw)
	if err != nil {
		return nil, err
	}
	now := s.clock.Now()
	u := o.record(now)
	if u.ClerkUpdatedAt.After(now.Add(maxVersionAhead)) {
		return nil, fmt.Errorf("%w: updated_at is over %v ahead of the clock", ErrInvalidEvent, maxVersionAhead)
	}
	if asOf.IsZero() {
		asOf = u.ClerkUpdatedAt
	}
	if asOf.After(now) {
		asOf = now
	}
	u.SyncedAt = asOf
	u.IsActive = true
	u.Role = s.cfg.DefaultRole
	if s.cfg.RoleOf != nil || s.cfg.Map != nil {
		if err := s.customize(raw, u); err != nil {
			return nil, err
		}
	}
	c, err := u.Canonical()
	if err != nil {
		return nil, mappingFailed(u.ClerkID, err)
	}
	return c, nil
}

// customize applies RoleOf and Map, and checks what they did.
func (s *Syncer) customize(raw json.RawMessage, u *User) (err error) {
	id := u.ClerkID
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
		if err != nil {
			err = mappingFailed(id, err)
		}
	}()
	cu := sdkUser(raw)
	if s.cfg.RoleOf != nil {
		if role := s.cfg.RoleOf(cu); role != "" {
			u.Role, u.RoleFromClerk = role, true
		}
	}
	if s.cfg.Map == nil {
		return nil
	}
	standard := *u
	if err := s.cfg.Map(cu, u); err != nil {
		return err
	}
	if err := checkMapped(&standard, u); err != nil {
		return fmt.Errorf("Config.Map: %w", err)
	}
	return nil
}

func mappingFailed(id string, err error) error {
	return &Problem{Status: http.StatusInternalServerError, Code: codeMappingFailed, Err: fmt.Errorf("mapping user %s: %w", id, err)}
}

// checkMapped returns an error if Map has changed a field that it may not change.
func checkMapped(before, after *User) error {
	var errs []error
	for _, f := range []struct {
		name string
		same bool
	}{
		{"ClerkID", before.ClerkID == after.ClerkID},
		{"ClerkUpdatedAt", before.ClerkUpdatedAt.Equal(after.ClerkUpdatedAt)},
		{"SyncedAt", before.SyncedAt.Equal(after.SyncedAt)},
		{"IsActive", before.IsActive == after.IsActive},
		{"DeletedAt", before.DeletedAt.Equal(after.DeletedAt)},
	} {
		if !f.same {
			errs = append(errs, fmt.Errorf("it may not change %s", f.name))
		}
	}
	return errors.Join(errs...)
}

// clerkUser is the part of Clerk's JSON of a user that the record is made of, from an event
// or from the API. The two differ in shape, and Clerk adds fields. So only what the record
// cannot do without must be of the documented type; the rest may be anything.
type clerkUser struct {
	ID        string  `json:"id"`
	FirstName *string `json:"first_name"`
	LastName  *string `json:"last_name"`
	ImageURL  *string `json:"image_url"`
	Banned    bool    `json:"banned"`
	CreatedAt int64   `json:"created_at"`
	UpdatedAt int64   `json:"updated_at"`

	LastSignInAt          *int64  `json:"last_sign_in_at"`
	PrimaryEmailAddressID *string `json:"primary_email_address_id"`
	PrimaryPhoneNumberID  *string `json:"primary_phone_number_id"`
	EmailAddresses        []*struct {
		ID           string          `json:"id"`
		EmailAddress string          `json:"email_address"`
		Verification json.RawMessage `json:"verification"`
	} `json:"email_addresses"`
	PhoneNumbers []*struct {
		ID           string          `json:"id"`
		PhoneNumber  string          `json:"phone_number"`
		Verification json.RawMessage `json:"verification"`
	} `json:"phone_numbers"`

	PublicMetadata json.RawMessage `json:"public_metadata"`
	UnsafeMetadata json.RawMessage `json:"unsafe_metadata"`
	// Not in clerk.User.
	Deprovisioned json.RawMessage `json:"deprovisioned"`
	Birthday      json.RawMessage `json:"birthday"`
	Gender        json.RawMessage `json:"gender"`
}

func parseClerkUser(raw json.RawMessage) (*clerkUser, error) {
	o := new(clerkUser)
	if err := json.Unmarshal(raw, o); err != nil {
		var field *json.UnmarshalTypeError
		if errors.As(err, &field) { // its text can hold the value
			return nil, fmt.Errorf("%w: user: field %q is not of the documented type", ErrInvalidEvent, field.Field)
		}
		return nil, fmt.Errorf("%w: user: not JSON", ErrInvalidEvent)
	}
	if !clerkapi.ValidUserID(o.ID) {
		return nil, fmt.Errorf("%w: user: its id is not a user id", ErrInvalidEvent)
	}
	return o, nil
}

// sdkUser decodes a user as the official SDK does, for RoleOf and Map. Fields that are not
// of the SDK's type are left out. Response.RawJSON holds the JSON itself, also for an
// event.
func sdkUser(raw json.RawMessage) *clerk.User {
	u := new(clerk.User)
	// It is valid JSON, as parseClerkUser has decoded it. After a field of another type,
	// encoding/json goes on.
	_ = json.Unmarshal(raw, u)
	u.Response = &clerk.APIResponse{RawJSON: raw}
	return u
}

// record is the mapping to the fields that Clerk owns, before RoleOf and Map.
func (o *clerkUser) record(now time.Time) *User {
	u := &User{
		ClerkID:        o.ID,
		Banned:         o.Banned || string(o.Deprovisioned) == "true",
		ClerkCreatedAt: pastMillis(o.CreatedAt, now),
		ClerkUpdatedAt: millis(o.UpdatedAt),
		Profile: Profile{
			FirstName: deref(o.FirstName),
			LastName:  deref(o.LastName),
			ImageURL:  deref(o.ImageURL),
		},
	}
	u.Name = strings.TrimSpace(u.Profile.FirstName + " " + u.Profile.LastName)
	u.Profile.FullName = u.Name
	if o.LastSignInAt != nil {
		u.LastSignInAt = pastMillis(*o.LastSignInAt, now)
	}
	// The primary one, not just the first: anybody may add an address without verifying it,
	// and that must not become the user's.
	if primary := deref(o.PrimaryEmailAddressID); primary != "" {
		for _, e := range o.EmailAddresses {
			if e != nil && e.ID == primary {
				u.Email, u.EmailVerified = e.EmailAddress, verified(e.Verification)
				break
			}
		}
	}
	if primary := deref(o.PrimaryPhoneNumberID); primary != "" {
		for _, p := range o.PhoneNumbers {
			if p != nil && p.ID == primary {
				u.Profile.PhoneNumber, u.PhoneVerified = p.PhoneNumber, verified(p.Verification)
				break
			}
		}
	}
	public, unsafe := object(o.PublicMetadata), object(o.UnsafeMetadata)
	u.Profile.Birthday = firstText(o.Birthday, public["birthday"], unsafe["birthday"])
	u.Profile.Gender = firstText(o.Gender, public["gender"], unsafe["gender"])
	return u
}

// object decodes a JSON object's fields by their exact names; nil if it is not an object.
func object(raw json.RawMessage) map[string]json.RawMessage {
	var fields map[string]json.RawMessage
	if len(raw) <= len("{}") || json.Unmarshal(raw, &fields) != nil {
		return nil
	}
	return fields
}

// firstText returns the first value that is a string and not empty.
func firstText(values ...json.RawMessage) string {
	for _, v := range values {
		var text string
		if len(v) > 0 && v[0] == '"' && json.Unmarshal(v, &text) == nil && text != "" {
			return text
		}
	}
	return ""
}

// verified reports whether a verification, which may be any JSON, says "verified".
func verified(verification json.RawMessage) bool {
	var v struct {
		Status json.RawMessage `json:"status"`
	}
	_ = json.Unmarshal(verification, &v)
	return firstText(v.Status) == "verified"
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// millis converts one of Clerk's times; 0 and less become the zero time.
func millis(ms int64) time.Time {
	if ms <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// pastMillis is millis for a time in the past. A time more than maxVersionAhead ahead of the
// clock becomes zero: it is wrong, and no later time could replace it.
func pastMillis(ms int64, now time.Time) time.Time {
	t := millis(ms)
	if t.After(now.Add(maxVersionAhead)) {
		return time.Time{}
	}
	return t
}
