package clerksync

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
)

// maxVersionAhead is how far ahead of the clock a version may be. One that is
// further would block every later one.
const maxVersionAhead = 24 * time.Hour

// userFromClerk maps Clerk's JSON of a user to the record that a Store is to
// hold, as of the time at which Clerk gave it. The error matches ErrInvalidEvent
// where the JSON is no usable user, and is a mapping_failed [*Problem] where the
// app's own RoleOf or Map failed.
func (s *Syncer) userFromClerk(raw json.RawMessage, asOf time.Time) (*User, error) {
	cu, err := decodeClerkUser(raw)
	if err != nil {
		return nil, err
	}
	now := s.clock.Now()
	u := standardUser(cu, now)
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
	return s.customize(cu, u)
}

// customize applies RoleOf and Map, and checks what they did.
func (s *Syncer) customize(cu *clerk.User, u *User) (_ *User, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
		if err != nil {
			err = &Problem{Status: http.StatusInternalServerError, Code: codeMappingFailed, Err: fmt.Errorf("mapping user %s: %w", cu.ID, err)}
		}
	}()
	if s.cfg.RoleOf != nil {
		if role := s.cfg.RoleOf(cu); role != "" {
			u.Role, u.RoleFromClerk = role, true
		}
	}
	if s.cfg.Map != nil {
		standard := *u
		if err := s.cfg.Map(cu, u); err != nil {
			return nil, err
		}
		if err := checkMapped(&standard, u); err != nil {
			return nil, err
		}
	}
	return u.Canonical()
}

// checkMapped refuses changes by which Map would decide what is not its to decide.
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
			errs = append(errs, fmt.Errorf("changing %s is not for Map to do", f.name))
		}
	}
	return errors.Join(errs...)
}

// decodeClerkUser decodes Clerk's JSON of a user, from an event or from the API.
// Both grow fields and differ in shape: only what the record rests on must be of
// the documented type, the rest may be anything. Response.RawJSON of the result
// holds the JSON itself on both paths.
func decodeClerkUser(raw json.RawMessage) (*clerk.User, error) {
	var essential struct {
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
			ID           string `json:"id"`
			EmailAddress string `json:"email_address"`
		} `json:"email_addresses"`
		PhoneNumbers []*struct {
			ID          string `json:"id"`
			PhoneNumber string `json:"phone_number"`
		} `json:"phone_numbers"`
	}
	if err := json.Unmarshal(raw, &essential); err != nil {
		var field *json.UnmarshalTypeError
		if errors.As(err, &field) { // its text can hold the value
			return nil, fmt.Errorf("%w: user: field %q is not of the documented type", ErrInvalidEvent, field.Field)
		}
		return nil, fmt.Errorf("%w: user: not JSON", ErrInvalidEvent)
	}
	if !validUserID(essential.ID) {
		return nil, fmt.Errorf("%w: user: no id of a user", ErrInvalidEvent)
	}
	u := new(clerk.User)
	if err := json.Unmarshal(raw, u); err != nil {
		var field *json.UnmarshalTypeError
		if !errors.As(err, &field) {
			return nil, fmt.Errorf("%w: user: not JSON", ErrInvalidEvent)
		}
		// A field outside the essential ones; encoding/json decodes the others.
	}
	u.Response = &clerk.APIResponse{RawJSON: raw}
	return u, nil
}

// standardUser is the mapping to the fields that Clerk owns, before RoleOf and Map.
func standardUser(cu *clerk.User, now time.Time) *User {
	more := undocumentedFields(cu.Response.RawJSON)
	u := &User{
		ClerkID:        cu.ID,
		Banned:         cu.Banned || more.Deprovisioned,
		ClerkCreatedAt: pastMillis(cu.CreatedAt, now),
		ClerkUpdatedAt: millis(cu.UpdatedAt),
		Profile: Profile{
			FirstName: deref(cu.FirstName),
			LastName:  deref(cu.LastName),
			ImageURL:  deref(cu.ImageURL),
		},
	}
	u.Name = strings.TrimSpace(u.Profile.FirstName + " " + u.Profile.LastName)
	u.Profile.FullName = u.Name
	if cu.LastSignInAt != nil {
		u.LastSignInAt = pastMillis(*cu.LastSignInAt, now)
	}
	// The primary one, never simply the first: an unverified address that
	// anybody may add must not become the user's.
	if primary := deref(cu.PrimaryEmailAddressID); primary != "" {
		for _, e := range cu.EmailAddresses {
			if e != nil && e.ID == primary {
				u.Email, u.EmailVerified = e.EmailAddress, verified(e.Verification)
				break
			}
		}
	}
	if primary := deref(cu.PrimaryPhoneNumberID); primary != "" {
		for _, p := range cu.PhoneNumbers {
			if p != nil && p.ID == primary {
				u.Profile.PhoneNumber, u.PhoneVerified = p.PhoneNumber, verified(p.Verification)
				break
			}
		}
	}
	public, unsafe := metadata(cu.PublicMetadata), metadata(cu.UnsafeMetadata)
	u.Profile.Birthday = firstString(more.Birthday, public["birthday"], unsafe["birthday"])
	u.Profile.Gender = firstString(more.Gender, public["gender"], unsafe["gender"])
	return u
}

// undocumented are the fields that Clerk sends and clerk.User lacks.
type undocumented struct {
	Deprovisioned    bool
	Birthday, Gender any
}

func undocumentedFields(raw json.RawMessage) undocumented {
	var f struct {
		Deprovisioned any `json:"deprovisioned"`
		Birthday      any `json:"birthday"`
		Gender        any `json:"gender"`
	}
	_ = json.Unmarshal(raw, &f) // has been decoded before; any type is taken
	deprovisioned, _ := f.Deprovisioned.(bool)
	return undocumented{deprovisioned, f.Birthday, f.Gender}
}

// metadata decodes one of the metadata objects; nil if it is none.
func metadata(raw json.RawMessage) map[string]any {
	var m map[string]any
	if json.Unmarshal(raw, &m) != nil {
		return nil
	}
	return m
}

// firstString returns the first of vs that is a string and not empty.
func firstString(vs ...any) string {
	for _, v := range vs {
		if s, ok := v.(string); ok && s != "" {
			return s
		}
	}
	return ""
}

func verified(v *clerk.Verification) bool { return v != nil && v.Status == "verified" }

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// millis converts one of Clerk's times; the zero time for none.
func millis(ms int64) time.Time {
	if ms <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// pastMillis is millis for what must have happened: a time well ahead of the
// clock is nonsense that could never be corrected, and taken as none.
func pastMillis(ms int64, now time.Time) time.Time {
	t := millis(ms)
	if t.After(now.Add(maxVersionAhead)) {
		return time.Time{}
	}
	return t
}
