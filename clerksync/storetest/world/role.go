package world

import (
	"encoding/json"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
)

// roleOf is the app's RoleOf where Clerk owns the roles: of those users who have one in
// their public metadata.
func roleOf(cu *clerk.User) clerksync.Role {
	var public struct{ Role clerksync.Role }
	_ = json.Unmarshal(cu.PublicMetadata, &public)
	return public.Role
}

// applied is told that a sync wrote a state of the user's: its role, if Clerk had one, is
// the record's from then on, and the app's is otherwise.
func (w *world) applied(u *user, f facts) {
	role := u.roleWith(f)
	switch {
	case role == "" && u.edited && w.clerksRoles:
		w.counts.add(editOverSync)
	case role != "":
		if u.edited {
			w.counts.add(roleOverEdit)
		}
		u.app.Role, u.edited = role, false
	}
}

// roleWith is the role that Clerk had for the user together with f.
func (u *user) roleWith(f facts) clerksync.Role {
	for _, s := range u.states {
		if s.facts == f {
			return s.role
		}
	}
	return ""
}

// equals reports whether a record is what a state in Clerk makes of it.
func (s *state) equals(r *clerksync.User) bool {
	return factsOfRecord(r) == s.facts && (s.role == "" || r.Role == s.role)
}
