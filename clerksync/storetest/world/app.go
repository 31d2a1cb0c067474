package world

import (
	"context"
	"encoding/json"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
)

// appOwned is what only the app may change in a record.
type appOwned struct {
	Role      clerksync.Role
	City      string
	Theme     string // a field that clerksync does not know
	Suspended bool
}

// edit is a write of the app to its database.
func (w *world) edit(o op, m moment) {
	u := m.u
	s := u.last()
	if w.raw == nil || s == nil || s.key.Deleted != 0 {
		return
	}
	app := u.app
	fields := make(map[string]any)
	switch {
	case o.kind == suspend:
		app.Suspended = true
		fields["isActive"] = false
	case o.kind == unsuspend:
		app.Suspended = false
		fields["isActive"] = true
	case o.n%3 == 0 && w.able.foreign:
		app.Theme = "theme " + number(int64(o.n))
		fields["theme"] = app.Theme
	case o.n%2 == 0:
		app.City = "City " + number(int64(o.n))
		fields["location.city"] = app.City
	default:
		app.Role = clerksync.Role([]string{"TEACHER", "ADMIN", "MENTOR"}[o.n%3])
		fields["role"] = string(app.Role)
		u.edited = true
		u.silent = u.silent || u.now().role != ""
	}
	u.app = app
	w.must(w.raw.SetFields(context.Background(), u.id, fields))
	w.store.note(u.id, false)
}

// roleOf is the app's RoleOf in worlds where Clerk owns roles. It returns the role in the user's
// public metadata, or "" if there is none.
func roleOf(cu *clerk.User) clerksync.Role {
	var public struct{ Role clerksync.Role }
	_ = json.Unmarshal(cu.PublicMetadata, &public)
	return public.Role
}

// applied notes that a sync wrote a state of the user. If Clerk had a role then, it is the
// record's from now on. Otherwise the app's stays.
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

// roleWith returns the role that Clerk had for the user together with f, perhaps with another
// address.
func (u *user) roleWith(f facts) clerksync.Role {
	for _, s := range u.states {
		if s.facts == f {
			return s.role
		}
	}
	for _, s := range u.states {
		if s.isButForEmail(f) {
			return s.role
		}
	}
	return ""
}
