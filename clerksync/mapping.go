package clerksync

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
)

// maxVersionAhead is how far ahead of the clock a version may be. A version further ahead
// would block every later one.
const maxVersionAhead = 24 * time.Hour

// mapped is what the mapping of one of Clerk's users came to.
type mapped struct {
	id string // empty if Clerk's JSON does not have one

	// user is what may be offered to the Store. If err is set, its Omit names what is left
	// out, and it is nil if nothing is left.
	user *User
	// err says why user is not the whole record; nil if it is.
	err error
	// onlyFields says that err is about single fields: a record that exists is written
	// without them, and that counts as a success.
	onlyFields bool
}

// userFromClerk maps Clerk's JSON of a user to a whole record. asOf is when the API request
// was sent, or the event's timestamp. The error matches ErrInvalidEvent if the JSON is not a
// usable user. It is a mapping_failed [*Problem] if the app's RoleOf or Map failed.
func (s *Syncer) userFromClerk(raw json.RawMessage, asOf time.Time) (*User, error) {
	m := s.mapUser(raw, asOf)
	if m.err != nil {
		return nil, m.err
	}
	return m.user, nil
}

// mapListed is mapUser for a user of Clerk's list.
func (s *Syncer) mapListed(listed clerkapi.ListedUser, asOf time.Time) mapped {
	m := s.mapUser(listed.Raw, asOf)
	if m.id != "" && m.id != listed.ID {
		return mapped{err: fmt.Errorf("%w: user: two ids", ErrInvalidEvent)}
	}
	return m
}

// mapUser maps Clerk's JSON of a user as far as it can be mapped. A fault in one field must
// not keep a ban or the other fields of an existing record out:
//
//   - A field that is not of the documented type, or a value of Extra that cannot be stored,
//     is omitted alone.
//   - Without a usable version, only a ban can be set, as of asOf.
//   - If Map failed, only a ban can be set. If only RoleOf failed, what Map says of the ban
//     counts, both ways.
func (s *Syncer) mapUser(raw json.RawMessage, asOf time.Time) mapped {
	o, odd, err := parseClerkUser(raw)
	if err != nil {
		return mapped{err: err}
	}
	now := s.clock.Now()
	u := o.record(now)
	u.IsActive, u.Role = true, s.cfg.DefaultRole
	m := mapped{id: u.ClerkID, err: odd.err, onlyFields: odd.err != nil}
	if u.ClerkUpdatedAt.After(now.Add(maxVersionAhead)) {
		odd.version = true
		m.err = fmt.Errorf("%w: updated_at is over %v ahead of the clock", ErrInvalidEvent, maxVersionAhead)
	}
	if odd.version {
		u.SyncedAt = earlier(asOf, now)
		m.user, m.onlyFields = undatedBan(u), false
		return m
	}
	if asOf.IsZero() {
		asOf = u.ClerkUpdatedAt
	}
	u.SyncedAt = earlier(asOf, now)
	due := s.createDue(u, now)
	roleErr, mapErr := s.customize(raw, u)
	u.CreateDue = due                                       // whatever Map has set
	u.EmailProven = u.EmailProven || o.provesEmail(u.Email) // Map may have set it, or another Email
	u.Omit = odd.paths(u)
	if err := errors.Join(roleErr, mapErr); err != nil {
		return mapped{id: u.ClerkID, user: remainingBan(u, mapErr != nil), err: mappingFailed(u.ClerkID, err)}
	}
	if m.user, err = u.Canonical(); err == nil {
		return m
	}
	if m.err == nil {
		m.err, m.onlyFields = mappingFailed(u.ClerkID, err), true
	}
	omitUnstorable(u)
	if m.user, err = u.Canonical(); err != nil { // cannot be: only Extra can be at fault
		return mapped{id: u.ClerkID, err: mappingFailed(u.ClerkID, err)}
	}
	return m
}

// customize applies RoleOf and Map, and checks what they did. If Map failed, u is as before,
// except that it is banned if Map has banned it.
func (s *Syncer) customize(raw json.RawMessage, u *User) (roleErr, mapErr error) {
	if s.cfg.RoleOf == nil && s.cfg.Map == nil {
		return nil, nil
	}
	cu := sdkUser(raw)
	if s.cfg.RoleOf != nil {
		roleErr = guarded(func() error {
			if role := s.cfg.RoleOf(cu); role != "" {
				u.Role, u.RoleFromClerk = role, true
			}
			return nil
		})
	}
	if s.cfg.Map == nil {
		return roleErr, nil
	}
	standard := *u
	mapErr = guarded(func() error { return s.cfg.Map(cu, u) })
	if mapErr == nil {
		if err := checkMapped(&standard, u); err != nil {
			mapErr = fmt.Errorf("Config.Map: %w", err)
		}
	}
	if mapErr != nil {
		standard.Banned = standard.Banned || u.Banned
		*u = standard
	}
	return roleErr, mapErr
}

// guarded calls a function of the app's and turns a panic into an error.
func guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{p}
		}
	}()
	return f()
}

// onlyBan is what writes u's Banned, either way, and leaves the rest of the record.
func onlyBan(u *User) *User {
	return &User{
		ClerkID: u.ClerkID, Banned: u.Banned, IsActive: true, Role: u.Role, Omit: allButBanned(),
		ClerkUpdatedAt: u.ClerkUpdatedAt, SyncedAt: u.SyncedAt, LastSignInAt: u.LastSignInAt,
	}
}

// remainingBan is what can be written after RoleOf or Map failed; nil for nothing.
func remainingBan(u *User, mapFailed bool) *User {
	if !u.Banned && (mapFailed || u.omits("banned")) {
		return nil // it could lift a ban
	}
	return onlyBan(u)
}

// undatedBan sets the ban of a user whose version is unusable; nil if it must not. SyncedAt
// stands in for the version: the change is not later than the event or the API's answer. So
// older events do not lift the ban, and the next change of the user is newer.
func undatedBan(u *User) *User {
	if !u.Banned || u.SyncedAt.IsZero() {
		return nil
	}
	ban := onlyBan(u)
	ban.ClerkUpdatedAt = u.SyncedAt
	return ban
}

// staleBan returns the ban that is still to be written after an Upsert of u: u has no version and the
// record has one, so the Upsert was Stale. It returns nil if nothing is missing.
func staleBan(u *User, outcome Outcome) *User {
	if outcome != Stale || !u.ClerkUpdatedAt.IsZero() {
		return nil
	}
	return undatedBan(u)
}

// omitUnstorable removes from u's Extra the values that no Store can keep, and adds their names to
// u's Omit.
func omitUnstorable(u *User) {
	extra := u.Extra
	u.Extra = make(map[string]any, len(extra))
	hasNameless := false
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		one := User{ClerkID: u.ClerkID, Extra: map[string]any{name: extra[name]}}
		if _, err := one.Canonical(); err == nil {
			u.Extra[name] = extra[name]
		} else if checkFieldName(name) == nil && !reservedFields[name] {
			u.Omit = append(u.Omit, name)
		} else {
			hasNameless = true
		}
	}
	if hasNameless {
		u.Omit = append(u.Omit, nameless)
	}
}

// nameless, in Omit, stands for names that no record has in Extra, or that are those of the
// record's own fields. It names nothing, and makes the write one for an existing record.
const nameless = "extraFields."

func mappingFailed(id string, err error) error {
	return &Problem{Status: http.StatusInternalServerError, Code: CodeMappingFailed, Err: fmt.Errorf("mapping user %s: %w", id, err)}
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
		{"Omit", slices.Equal(before.Omit, after.Omit)},
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

	LastSignInAt          *int64        `json:"last_sign_in_at"`
	PrimaryEmailAddressID *string       `json:"primary_email_address_id"`
	PrimaryPhoneNumberID  *string       `json:"primary_phone_number_id"`
	EmailAddresses        []*clerkEmail `json:"email_addresses"`
	PhoneNumbers          []*struct {
		ID           string          `json:"id"`
		PhoneNumber  string          `json:"phone_number"`
		Verification json.RawMessage `json:"verification"`
	} `json:"phone_numbers"`

	ExternalID       json.RawMessage `json:"external_id"`
	ExternalAccounts json.RawMessage `json:"external_accounts"`

	PublicMetadata json.RawMessage `json:"public_metadata"`
	UnsafeMetadata json.RawMessage `json:"unsafe_metadata"`
	// Not in clerk.User.
	Deprovisioned json.RawMessage `json:"deprovisioned"`
	Birthday      json.RawMessage `json:"birthday"`
	Gender        json.RawMessage `json:"gender"`
}

// parseClerkUser decodes a user. odd says what is not of the documented type; the rest is
// decoded. The error matches ErrInvalidEvent.
func parseClerkUser(raw json.RawMessage) (o *clerkUser, odd oddFields, err error) {
	o = new(clerkUser)
	if err := json.Unmarshal(raw, o); err != nil {
		var field *json.UnmarshalTypeError // encoding/json has gone on after it
		if !errors.As(err, &field) {
			return nil, odd, fmt.Errorf("%w: user: not JSON", ErrInvalidEvent)
		}
		odd = findOddFields(raw)
		if field.Field == "" || odd.id {
			return nil, odd, fmt.Errorf("%w: user: not an object with an id", ErrInvalidEvent)
		}
		if odd.matters() { // the error's own text can hold the value
			odd.err = fmt.Errorf("%w: user: field %q is not of the documented type", ErrInvalidEvent, field.Field)
		}
	}
	if !clerkapi.ValidUserID(o.ID) {
		return nil, odd, fmt.Errorf("%w: user: its id is not a user id", ErrInvalidEvent)
	}
	return o, odd, nil
}

// oddFields says which of Clerk's fields are not of the documented type.
type oddFields struct {
	err         error // nil if none of them is needed
	id, version bool
	names       []string // of those that the record has something from
}

// recordPaths are the fields of the record that one of Clerk's determines.
var recordPaths = map[string][]string{
	"first_name":               {"profile.firstName", "profile.fullName", "name"},
	"last_name":                {"profile.lastName", "profile.fullName", "name"},
	"image_url":                {"profile.imageUrl"},
	"banned":                   {"banned"},
	"created_at":               {"clerkCreatedAt"},
	"primary_email_address_id": {"email", "emailVerified"},
	"email_addresses":          {"email", "emailVerified"},
	"primary_phone_number_id":  {"profile.phoneNumber", "phoneVerified"},
	"phone_numbers":            {"profile.phoneNumber", "phoneVerified"},
}

// findOddFields decodes each field by itself. As in encoding/json, the case of the names does
// not matter.
func findOddFields(raw json.RawMessage) (odd oddFields) {
	for name, value := range object(raw) {
		alone, _ := json.Marshal(map[string]json.RawMessage{name: value})
		if json.Unmarshal(alone, new(clerkUser)) == nil {
			continue
		}
		switch name = strings.ToLower(name); {
		case name == "id":
			odd.id = true
		case name == "updated_at":
			odd.version = true
		case recordPaths[name] != nil:
			odd.names = append(odd.names, name)
		}
	}
	slices.Sort(odd.names)
	return odd
}

func (odd *oddFields) matters() bool { return odd.version || len(odd.names) > 0 }

// paths returns the fields of the record that are unknown because of the odd ones. A ban or
// an address that could be decoded beside them is known.
func (odd *oddFields) paths(u *User) (paths []string) {
	for _, name := range odd.names {
		switch {
		case name == "banned" && u.Banned: // deprovisioned
		case name == "email_addresses" && u.Email != "":
		case name == "phone_numbers" && u.Profile.PhoneNumber != "":
		default:
			paths = append(paths, recordPaths[name]...)
		}
	}
	return paths
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
		ExternalID:     firstText(o.ExternalID),
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

// earlier returns the earlier of two times.
func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
