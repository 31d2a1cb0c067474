package fakeclerk

import (
	"encoding/json"
	"errors"
	"fmt"
)

// ErrUserNotFound is what the methods that name a user return, wrapped with the id,
// where the instance has no such user, or no longer.
var ErrUserNotFound = errors.New("fakeclerk: no such user")

// CreateUser signs a user up and returns the id. It sends user.created. It does not
// keep e-mail addresses unique, as POST /users does: a test may arrange what it likes.
// It panics where NewUser.ID is taken or was, as Clerk never uses an id again, and
// where metadata is not what encoding/json takes.
func (s *Server) CreateUser(u NewUser) string {
	o, err := u.object(s.Now(), s.ids)
	if err != nil {
		panic(fmt.Errorf("fakeclerk: CreateUser: %w", err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users.used(o.ID) {
		panic(fmt.Sprintf("fakeclerk: CreateUser: the id %s has been used", o.ID))
	}
	s.create(o)
	return o.ID
}

// UpdateUser changes a user and sends user.updated. f gets a copy, which becomes the
// user's new state; it must not call methods of the Server, nor keep the copy.
//
// updated_at moves to the server's time, and by at least a millisecond, so that it
// grows with each change even while a [Clock] stands still. The errors are
// [ErrUserNotFound], and that f changed the id or left metadata that is not JSON.
func (s *Server) UpdateUser(id string, f func(*UserObject)) error {
	return s.update(id, true, f)
}

// UpdateUserSilently is [Server.UpdateUser] without the move of updated_at, which stays
// as f leaves it: two changes in one millisecond, a clock at Clerk that went backwards,
// a version from the future. It sends user.updated.
func (s *Server) UpdateUserSilently(id string, f func(*UserObject)) error {
	return s.update(id, false, f)
}

// BanUser bans a user: banned becomes true, and user.updated is sent. Sessions are not
// modelled: tokens that exist run out by themselves.
func (s *Server) BanUser(id string) error {
	return s.update(id, true, func(u *UserObject) { u.Banned = true })
}

// UnbanUser takes the ban back, and sends user.updated.
func (s *Server) UnbanUser(id string) error {
	return s.update(id, true, func(u *UserObject) { u.Banned = false })
}

// SignIn signs a user in: last_sign_in_at and last_active_at become the server's time
// and updated_at moves, as it appears to at Clerk. It sends session.created, which
// carries the whole user and data.latest_activity, and then user.updated. Nobody is
// refused, banned users included.
func (s *Server) SignIn(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.change(id, true, func(u *UserObject) {
		now := s.Now().UnixMilli()
		u.LastSignInAt, u.LastActiveAt = &now, &now
	})
	if err != nil {
		return err
	}
	s.emit("session.created", s.newSession(u))
	s.emit("user.updated", u)
	return nil
}

// DeleteUser deletes a user for good and sends user.deleted, which carries no more than
// the id, and the external id where there is one.
func (s *Server) DeleteUser(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.delete(id)
	return err
}

// User returns a user's object as GET /users/{id} gives it, and false where there is no
// such user. The caller may modify it.
func (s *Server) User(id string) (json.RawMessage, bool) {
	s.mu.Lock()
	e, ok := s.users.find(id)
	s.mu.Unlock()
	if !ok {
		return nil, false
	}
	return s.users.json(e), true
}

// UserIDs returns the ids of all users but those of [Config.Population], changed or not,
// ascending by created_at, then id.
func (s *Server) UserIDs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]string, 0, len(s.users.ordered))
	for _, u := range s.users.ordered {
		if p := s.users.population; p != nil {
			if _, ok := p.number(u.ID); ok {
				continue
			}
		}
		ids = append(ids, u.ID)
	}
	return ids
}

func (s *Server) update(id string, bump bool, f func(*UserObject)) error {
	s.mu.Lock()
	defer s.mu.Unlock() // deferred, as f may end the test and with it the goroutine
	u, err := s.change(id, bump, f)
	if err != nil {
		return err
	}
	s.emit("user.updated", u)
	return nil
}

// create stores a new user and sends user.created. The lock is held.
func (s *Server) create(u *UserObject) {
	s.users.put(u)
	s.emit("user.created", u)
}

// change replaces a user by what f makes of it. The lock is held.
func (s *Server) change(id string, bump bool, f func(*UserObject)) (*UserObject, error) {
	old := s.users.get(id)
	if old == nil {
		return nil, fmt.Errorf("%w: %q", ErrUserNotFound, id)
	}
	u, err := old.clone()
	if err != nil {
		return nil, fmt.Errorf("fakeclerk: user %s: %w", id, err)
	}
	f(u)
	if u.ID != id {
		return nil, fmt.Errorf("fakeclerk: user %s: the id cannot be changed to %q", id, u.ID)
	}
	if bump {
		u.UpdatedAt = max(s.Now().UnixMilli(), old.UpdatedAt+1)
	}
	u.complete()
	// A copy of its own: f may have kept u, or slices of it.
	if u, err = u.clone(); err != nil {
		return nil, fmt.Errorf("fakeclerk: user %s: %w", id, err)
	}
	if _, err := json.Marshal(u); err != nil { // Extra
		return nil, fmt.Errorf("fakeclerk: user %s: %w", id, err)
	}
	s.users.put(u)
	return u, nil
}

// delete removes a user and sends user.deleted. The lock is held.
func (s *Server) delete(id string) (deletedObject, error) {
	u := s.users.get(id)
	if u == nil {
		return deletedObject{}, fmt.Errorf("%w: %q", ErrUserNotFound, id)
	}
	s.users.remove(u)
	d := deletedObject{Object: "user", ID: id, Deleted: true, ExternalID: u.ExternalID}
	s.emit("user.deleted", d)
	return d, nil
}

// deletedObject is Clerk's DeletedObject schema.
type deletedObject struct {
	Object     string  `json:"object"`
	ID         string  `json:"id"`
	Deleted    bool    `json:"deleted"`
	ExternalID *string `json:"external_id,omitempty"`
}
