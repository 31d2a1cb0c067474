package clerksync

import (
	"iter"
	"maps"
	"slices"
	"time"
)

// Role is what a user may do in the app. Any string but the empty one is a role; the
// constants are those that clerksync itself knows.
type Role string

// The predefined roles.
const (
	RoleStudent Role = "STUDENT"
	RoleTeacher Role = "TEACHER"
	RoleAdmin   Role = "ADMIN"
)

// User is the app's record of one Clerk user.
//
// Its JSON form uses the field names of the record in the database, except that the fields
// of Extra are under "extra", while in the database they are top-level fields. It leaves out
// the bookkeeping, which is not for the app's clients.
//
// A *User that clerksync hands out (by [Syncer.User], [UserFromContext] or in a [Result] of
// the Syncer) is the caller's own copy.
type User struct {
	// ID is the Store's own id of the record, the _id in hex for MongoDB. Other
	// collections refer to it. Stores set it, and ignore it in arguments.
	ID string `json:"_id,omitempty"`
	// ClerkID is Clerk's id of the user, "user_…". Clerk never reuses one.
	ClerkID string `json:"clerkId"`
	// Email is the user's primary e-mail address, empty if there is none.
	Email string `json:"email,omitempty"`
	// Name is first and last name, empty if Clerk knows neither.
	Name string `json:"name,omitempty"`
	// Role belongs to the app: it is written when the record is created and never again,
	// unless RoleFromClerk is set.
	Role    Role    `json:"role,omitempty"`
	Profile Profile `json:"profile"`
	// Location belongs to the app: it is written when the record is created and never
	// again. Clerk's user object does not have one; [Config].Map may set it.
	Location *Location `json:"location,omitempty"`

	// LastSignInAt is the user's latest sign-in. It never goes back.
	LastSignInAt time.Time `json:"lastSignInAt,omitzero"`
	// CreatedAt and UpdatedAt are the record's own times, set by the Store.
	CreatedAt time.Time `json:"createdAt,omitzero"`
	UpdatedAt time.Time `json:"updatedAt,omitzero"`

	EmailVerified bool `json:"emailVerified"`
	PhoneVerified bool `json:"phoneVerified"`
	// IsActive is true for a new record and false for a deleted one. An app may set it to
	// false in the database to suspend a user; no sync sets it back. A record without the
	// field is active.
	IsActive bool `json:"isActive"`
	// Banned is true while the user is banned, or deprovisioned by SCIM, in Clerk.
	Banned bool `json:"banned"`

	// Extra holds the fields that [Config].Map added, by name. They are top-level fields
	// of the record and belong to Clerk: each sync writes them, and removes those that Map
	// no longer sets. [User.Canonical] says which names and values are allowed.
	Extra map[string]any `json:"extra,omitempty"`

	// ClerkCreatedAt is when the user signed up.
	ClerkCreatedAt time.Time `json:"-"`
	// ClerkUpdatedAt is the version: Clerk's updated_at, in milliseconds. The zero time
	// means that no version is known, which is older than any.
	ClerkUpdatedAt time.Time `json:"-"`
	// SyncedAt is when Clerk last confirmed the record: when the API request was sent, or
	// the event's timestamp. It never goes back.
	SyncedAt time.Time `json:"-"`
	// DeletedAt is when the user was deleted in Clerk: the tombstone. The zero time means
	// that the user exists.
	DeletedAt time.Time `json:"-"`
	// RoleFromClerk says that [Config].RoleOf returned the Role, so Clerk owns it: every
	// applied sync writes it. It is an Upsert's argument and not stored.
	RoleFromClerk bool `json:"-"`
	// Omit names fields that Clerk owns and that an Upsert leaves as they are: it neither
	// writes, removes nor compares them. The names are the paths that [User.ClerkFields]
	// yields ("email", "profile.phoneNumber", "role", a name in Extra); "extraFields" stands
	// for all of Extra. Other names have no effect. It is an Upsert's argument and not
	// stored.
	//
	// An Upsert with Omit only writes records that exist. The [Store] contract says which
	// version it leaves: the same user without Omit still counts as newer.
	Omit []string `json:"-"`
	// ExternalID is the external_id that Clerk has for the user: the app's own id of the
	// user, often set by a migration. It is an Upsert's argument, for a [Store] that adopts,
	// and not stored.
	ExternalID string `json:"-"`
	// EmailProven says that the user has proven to Clerk to control Email. It is an Upsert's
	// argument, for a [Store] that adopts, and not stored. Map may set it.
	EmailProven bool `json:"-"`
	// CreateDue says that an Upsert that creates the record owes a create job, and when it is
	// due. The zero time means that it owes none. It is an Upsert's argument, for a [JobStore],
	// and not stored. The Syncer sets it; Map cannot.
	CreateDue time.Time `json:"-"`
	// Jobs is the state of the record's jobs, nil if it has none. A [JobStore] sets it, and
	// ignores it in arguments. Users that clerksync hands out do not have it.
	Jobs *Jobs `json:"-"`
	// Record is what the Store's Record option made of the whole document, nil without one.
	// Users that the middleware and [Syncer.User] hand out do not have it; see
	// [RecordFromContext].
	Record any `json:"-"`
	// Partial says that Clerk or the Store failed and [FailOpen] let the request through.
	// Only ClerkID is known.
	Partial bool `json:"-"`
}

// Profile is the part of a [User] that describes the person. An empty string means that
// Clerk does not know.
type Profile struct {
	FirstName   string `json:"firstName,omitempty"`
	LastName    string `json:"lastName,omitempty"`
	FullName    string `json:"fullName,omitempty"`
	ImageURL    string `json:"imageUrl,omitempty"`
	PhoneNumber string `json:"phoneNumber,omitempty"`
	// Birthday and Gender come from the user object if it has them, else from
	// public_metadata, else from unsafe_metadata, which users can write themselves.
	Birthday string `json:"birthday,omitempty"`
	Gender   string `json:"gender,omitempty"`
}

// Location is the user's place. An empty string means unknown.
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
	c.Omit, c.Jobs = slices.Clone(u.Omit), u.Jobs.clone()
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

// clerkField is one field that Clerk owns, by its path in the record. The value is a
// string, a bool or a time.Time; nil means that the record does not have the field.
type clerkField struct {
	path  string
	value func(*User) any
}

// clerkFields are the Clerk-owned fields, except Role (see RoleFromClerk) and Extra.
// ClerkUpdatedAt, SyncedAt and LastSignInAt follow rules of their own.
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

// ClerkFields yields the fields that a Store writes when it applies u, by their path in
// the record. It is the one list of what Clerk owns. A nil value means that Clerk does not
// have one and the field is to be removed. Role is among them only if RoleFromClerk is
// set. The names in Extra come last, in ascending order; a Store also removes those that
// the stored record has in Extra and u does not. What Omit names is left out, and a Store
// does not remove it.
//
// clerkUpdatedAt, syncedAt and lastSignInAt are not included: [Decide] and the [Store]
// contract govern these.
func (u *User) ClerkFields() iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		for _, f := range clerkFields {
			if !u.omits(f.path) && !yield(f.path, f.value(u)) {
				return
			}
		}
		if u.RoleFromClerk && !u.omits("role") && !yield("role", present(string(u.Role))) {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(u.Extra)) {
			if !u.omitsExtra(name) && !yield(name, u.Extra[name]) {
				return
			}
		}
	}
}

// omits reports whether Omit names a path.
func (u *User) omits(path string) bool { return slices.Contains(u.Omit, path) }

// omitsExtra reports whether Omit names a name in Extra, or all of Extra.
func (u *User) omitsExtra(name string) bool { return u.omits(name) || u.omits("extraFields") }
