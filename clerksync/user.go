package clerksync

import (
	"errors"
	"iter"
	"maps"
	"slices"
	"time"
	"unicode/utf8"
)

// Role is what a user may do in the app. Any non-empty string is a role; the
// constants are the ones that clerksync itself knows.
type Role string

// The predefined roles.
const (
	RoleStudent Role = "STUDENT"
	RoleTeacher Role = "TEACHER"
	RoleAdmin   Role = "ADMIN"
)

// User is the app's record of one Clerk user.
//
// Its JSON form uses the field names of the record in the database, and leaves
// out what an app's client has no business with: the bookkeeping that is tagged
// "-".
//
// A *User that clerksync hands out (by [Syncer.User], [UserFromContext] or in a
// [Result]) is shared with other goroutines and must not be modified; modify a
// [User.Clone].
type User struct {
	// ID is the Store's own id of the record, the _id in hex for MongoDB: what
	// other collections refer to. Stores set it; they ignore it in arguments.
	ID string `json:"_id,omitempty"`
	// ClerkID is Clerk's id of the user, "user_…". Clerk never reuses one.
	ClerkID string `json:"clerkId"`
	// Email is the user's primary e-mail address, empty if there is none.
	Email string `json:"email,omitempty"`
	// Name is first and last name, empty if Clerk knows neither.
	Name string `json:"name,omitempty"`
	// Role belongs to the app: it is written when the record is created and
	// never again, unless RoleFromClerk is set.
	Role    Role    `json:"role,omitempty"`
	Profile Profile `json:"profile"`
	// Location belongs to the app: it is written when the record is created
	// and never again. Clerk's user object holds none; [Config].Map may set it.
	Location *Location `json:"location,omitempty"`

	// LastSignInAt is the user's latest sign-in; it never goes backwards.
	LastSignInAt time.Time `json:"lastSignInAt,omitzero"`
	// CreatedAt and UpdatedAt are the record's own times, set by the Store.
	CreatedAt time.Time `json:"createdAt,omitzero"`
	UpdatedAt time.Time `json:"updatedAt,omitzero"`

	EmailVerified bool `json:"emailVerified"`
	PhoneVerified bool `json:"phoneVerified"`
	// IsActive is true for a new record and false for a deleted one. An app
	// may set it to false in the database to suspend a user; no sync turns it
	// back. A record that lacks the field is active.
	IsActive bool `json:"isActive"`
	// Banned is true while the user is banned, or deprovisioned by SCIM, in
	// Clerk.
	Banned bool `json:"banned"`

	// Extra holds the fields that [Config].Map added, by name. They are
	// top-level fields of the record and belong to Clerk: each sync writes
	// them, and removes those that Map no longer sets. See [User.Canonical]
	// for the names and values allowed.
	Extra map[string]any `json:"extra,omitempty"`

	// ClerkCreatedAt is when the user signed up.
	ClerkCreatedAt time.Time `json:"-"`
	// ClerkUpdatedAt is the version: Clerk's updated_at, in milliseconds. The
	// zero time means that no version is known, which is older than any.
	ClerkUpdatedAt time.Time `json:"-"`
	// SyncedAt is as of when the record is known to equal Clerk: the sending
	// time of the API request, or the event's timestamp. It never goes
	// backwards.
	SyncedAt time.Time `json:"-"`
	// DeletedAt is when the user was deleted in Clerk: the tombstone. The zero
	// time means that the user exists.
	DeletedAt time.Time `json:"-"`
	// RoleFromClerk says that [Config].RoleOf gave the Role, so that Clerk
	// owns it: it is written on every applied sync. It is part of an Upsert's
	// argument and not stored.
	RoleFromClerk bool `json:"-"`
	// Partial says that Clerk or the Store failed and [FailOpen] let the
	// request through: only ClerkID is known.
	Partial bool `json:"-"`
}

// Profile is the part of a [User] that describes the person. An empty string
// means that Clerk does not know.
type Profile struct {
	FirstName   string `json:"firstName,omitempty"`
	LastName    string `json:"lastName,omitempty"`
	FullName    string `json:"fullName,omitempty"`
	ImageURL    string `json:"imageUrl,omitempty"`
	PhoneNumber string `json:"phoneNumber,omitempty"`
	// Birthday and Gender come from the user object if it has them, else from
	// public_metadata, else from unsafe_metadata, which the user can write.
	Birthday string `json:"birthday,omitempty"`
	Gender   string `json:"gender,omitempty"`
}

// Location is where a user is. An empty string means unknown.
type Location struct {
	Country  string `json:"country,omitempty"`
	City     string `json:"city,omitempty"`
	State    string `json:"state,omitempty"`
	Timezone string `json:"timezone,omitempty"`
}

// Clone returns a deep copy that the caller may modify; nil for nil.
func (u *User) Clone() *User {
	if u == nil {
		return nil
	}
	c := *u
	if u.Location != nil {
		l := *u.Location
		c.Location = &l
	}
	if u.Extra != nil {
		c.Extra = make(map[string]any, len(u.Extra))
		for name, v := range u.Extra {
			c.Extra[name] = cloneValue(v)
		}
	}
	return &c
}

func cloneValue(v any) any {
	switch v := v.(type) {
	case []any:
		c := make([]any, len(v))
		for i := range v {
			c[i] = cloneValue(v[i])
		}
		return c
	case map[string]any:
		c := make(map[string]any, len(v))
		for k := range v {
			c[k] = cloneValue(v[k])
		}
		return c
	default:
		return v
	}
}

// Canonical returns a deep copy of u in the form that Stores keep, or an error
// that names the field at fault. Stores begin an Upsert with it, so that every
// Store accepts, refuses and returns the same.
//
// ClerkID must not be empty, and UTF-8; other text has what is not UTF-8
// replaced. Times become UTC in milliseconds. An empty Location becomes nil.
//
// Extra must not use the name of a field that clerksync or MongoDB already uses;
// names in it, also of nested maps, are UTF-8, not empty, and hold no "$", "." or
// NUL. Its values become string, bool, int64, float64, [time.Time], []any or
// map[string]any: other integer, float, string, slice and string-keyed map types
// are converted, pointers followed, and a json.RawMessage decoded. A name in Extra with a nil value is
// dropped; nested ones stay. Anything else, other bytes, a float that is infinite or not a
// number, and nesting over 32 levels are errors.
func (u *User) Canonical() (*User, error) {
	if u == nil {
		return nil, errors.New("clerksync: no User")
	}
	if u.ClerkID == "" || !utf8.ValidString(u.ClerkID) {
		return nil, errors.New("clerksync: a User needs a ClerkID, in UTF-8")
	}
	c := *u
	c.Role = Role(validText(string(u.Role)))
	text := []*string{
		&c.Email, &c.Name, &c.Profile.FirstName, &c.Profile.LastName, &c.Profile.FullName,
		&c.Profile.ImageURL, &c.Profile.PhoneNumber, &c.Profile.Birthday, &c.Profile.Gender,
	}
	if u.Location != nil {
		l := *u.Location
		c.Location = &l
		text = append(text, &l.Country, &l.City, &l.State, &l.Timezone)
		if l == (Location{}) {
			c.Location = nil
		}
	}
	for _, s := range text {
		*s = validText(*s)
	}
	for _, t := range []*time.Time{
		&c.LastSignInAt, &c.CreatedAt, &c.UpdatedAt,
		&c.ClerkCreatedAt, &c.ClerkUpdatedAt, &c.SyncedAt, &c.DeletedAt,
	} {
		*t = canonicalTime(*t)
	}
	var err error
	if c.Extra, err = canonicalExtra(u.Extra); err != nil {
		return nil, err
	}
	return &c, nil
}

// canonicalTime is t in UTC with the millisecond precision of Clerk's times and
// of MongoDB's dates, without a monotonic reading.
func canonicalTime(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMilli(t.UnixMilli()).UTC()
}

// clerkField is one field that Clerk owns, by its path in the record. The value
// is a string, a bool or a time.Time; nil means that the record lacks the field.
type clerkField struct {
	path  string
	value func(*User) any
}

// clerkFields are the Clerk-owned fields besides Role (see RoleFromClerk) and
// Extra. Version, SyncedAt and LastSignInAt move by rules of their own.
var clerkFields = []clerkField{
	{"email", func(u *User) any { return present(u.Email) }},
	{"name", func(u *User) any { return present(u.Name) }},
	{"profile.firstName", func(u *User) any { return present(u.Profile.FirstName) }},
	{"profile.lastName", func(u *User) any { return present(u.Profile.LastName) }},
	{"profile.fullName", func(u *User) any { return present(u.Profile.FullName) }},
	{"profile.imageUrl", func(u *User) any { return present(u.Profile.ImageURL) }},
	{"profile.phoneNumber", func(u *User) any { return present(u.Profile.PhoneNumber) }},
	{"profile.birthday", func(u *User) any { return present(u.Profile.Birthday) }},
	{"profile.gender", func(u *User) any { return present(u.Profile.Gender) }},
	{"emailVerified", func(u *User) any { return u.EmailVerified }},
	{"phoneVerified", func(u *User) any { return u.PhoneVerified }},
	{"banned", func(u *User) any { return u.Banned }},
	{"clerkCreatedAt", func(u *User) any {
		if u.ClerkCreatedAt.IsZero() {
			return nil
		}
		return canonicalTime(u.ClerkCreatedAt)
	}},
}

func present(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// ClerkFields yields the fields that a Store writes when it applies u, by their
// path in the record: the one list of what Clerk owns. A nil value means that
// Clerk has none and the field is to be removed. Role is among them only if
// RoleFromClerk is set. The names in Extra come last, in ascending order; a
// Store also removes those that the stored record has in Extra and u has not.
//
// Not among them are clerkUpdatedAt, syncedAt and lastSignInAt, which [Decide]
// and the [Store] contract govern.
func (u *User) ClerkFields() iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		for _, f := range clerkFields {
			if !yield(f.path, f.value(u)) {
				return
			}
		}
		if u.RoleFromClerk && !yield("role", present(string(u.Role))) {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(u.Extra)) {
			if !yield(name, u.Extra[name]) {
				return
			}
		}
	}
}
