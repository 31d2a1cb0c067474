package memstore

import (
	"slices"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// write writes the fields that Clerk owns from u to r. u is canonical, and nobody else has it.
func write(r, u *clerksync.User) {
	before := r.Extra
	r.Extra = u.Extra
	for name, v := range before {
		if omitsExtra(u, name) {
			if r.Extra == nil {
				r.Extra = make(map[string]any)
			}
			r.Extra[name] = v
		}
	}
	for path, value := range u.ClerkFields() {
		if _, extra := u.Extra[path]; !extra {
			set(r, path, value)
		}
	}
	r.ClerkUpdatedAt = version(r, u)
	confirm(r, u)
}

func omitsExtra(u *clerksync.User, name string) bool {
	return slices.Contains(u.Omit, name) || slices.Contains(u.Omit, "extraFields")
}

// version returns the version of r after u is written to it. If u omits anything, that is one
// older than u, so that u without Omit is still newer.
func version(r, u *clerksync.User) time.Time {
	if len(u.Omit) == 0 || u.ClerkUpdatedAt.IsZero() {
		return u.ClerkUpdatedAt
	}
	return latest(r.ClerkUpdatedAt, u.ClerkUpdatedAt.Add(-time.Millisecond))
}

// confirm moves SyncedAt and LastSignInAt forward, never back. A u that omits anything does not
// confirm a record that was not confirmed before.
func confirm(r, u *clerksync.User) {
	if len(u.Omit) == 0 || !r.SyncedAt.IsZero() {
		r.SyncedAt = latest(r.SyncedAt, u.SyncedAt)
	}
	r.LastSignInAt = latest(r.LastSignInAt, u.LastSignInAt)
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// set writes the field at a path; a nil value removes it.
func set(r *clerksync.User, path string, value any) {
	switch f := field(r, path).(type) {
	case *string:
		*f, _ = value.(string)
	case *clerksync.Role:
		s, _ := value.(string)
		*f = clerksync.Role(s)
	case *bool:
		*f, _ = value.(bool)
	case *time.Time:
		*f, _ = value.(time.Time)
	default:
		panic("memstore: no field for " + path)
	}
}

// field returns a pointer to the field at a path, or nil if there is none.
func field(r *clerksync.User, path string) any {
	switch path {
	case "email":
		return &r.Email
	case "name":
		return &r.Name
	case "role":
		return &r.Role
	case "profile.firstName":
		return &r.Profile.FirstName
	case "profile.lastName":
		return &r.Profile.LastName
	case "profile.fullName":
		return &r.Profile.FullName
	case "profile.imageUrl":
		return &r.Profile.ImageURL
	case "profile.phoneNumber":
		return &r.Profile.PhoneNumber
	case "profile.birthday":
		return &r.Profile.Birthday
	case "profile.gender":
		return &r.Profile.Gender
	case "emailVerified":
		return &r.EmailVerified
	case "phoneVerified":
		return &r.PhoneVerified
	case "banned":
		return &r.Banned
	case "clerkCreatedAt":
		return &r.ClerkCreatedAt
	default:
		return nil
	}
}
