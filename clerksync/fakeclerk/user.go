package fakeclerk

import (
	"encoding/json"
	"errors"
	"fmt"
)

// ErrUserNotFound means that the instance does not have the user, or that the user was deleted.
// Methods return it wrapped with the id.
var ErrUserNotFound = errors.New("fakeclerk: no such user")

// CreateUser signs a user up, sends user.created and returns the id. Unlike POST /users, it allows an
// identifier that another user has, so that tests can arrange any state. It panics if NewUser.ID was
// used before, even by a user who was deleted since, because Clerk never uses an id again. It also
// panics if encoding/json cannot encode the metadata.
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

// UpdateUser changes a user and sends user.updated. f gets a copy of the user, which becomes the new
// state when f returns. f must not keep the copy or call methods of the Server.
//
// updated_at becomes the server's time. It grows by at least a millisecond, even if a [Clock] stands
// still. UpdateUser returns [ErrUserNotFound], or another error if f changed the id or left a value
// that is not valid JSON. After an error, the user is unchanged.
func (s *Server) UpdateUser(id string, f func(*UserObject)) error {
	return s.update(id, true, f)
}

// UpdateUserSilently is like [Server.UpdateUser], but leaves updated_at as f leaves it. Use it for two
// changes in one millisecond, a version that went backwards, or one from the future. It does send
// user.updated.
func (s *Server) UpdateUserSilently(id string, f func(*UserObject)) error {
	return s.update(id, false, f)
}

// BanUser sets banned to true, moves updated_at as [Server.UpdateUser] does, and sends user.updated.
// Existing tokens stay valid until they expire, because sessions are not modelled. Its only error is
// [ErrUserNotFound].
func (s *Server) BanUser(id string) error {
	return s.update(id, true, func(u *UserObject) { u.Banned = true })
}

// UnbanUser sets banned to false, moves updated_at as [Server.UpdateUser] does, and sends
// user.updated. Its only error is [ErrUserNotFound].
func (s *Server) UnbanUser(id string) error {
	return s.update(id, true, func(u *UserObject) { u.Banned = false })
}

// SignIn signs a user in, even a banned one. last_sign_in_at and last_active_at become the server's
// time, and updated_at moves as in [Server.UpdateUser]. SignIn sends session.created, which carries
// the whole user and the session's latest_activity, and then user.updated. Clerk does not document
// that a sign-in moves updated_at, but appears to do so. The only error is [ErrUserNotFound].
func (s *Server) SignIn(id string) error {
	_, err := s.signIn(id)
	return err
}

// signIn is SignIn. It returns the id of the session.
func (s *Server) signIn(id string) (sessionID string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.change(id, true, func(u *UserObject) {
		now := s.Now().UnixMilli()
		u.LastSignInAt, u.LastActiveAt = &now, &now
	})
	if err != nil {
		return "", err
	}
	session := s.newSession(u)
	s.emit("session.created", session)
	s.emit("user.updated", u)
	return session.ID, nil
}

// DeleteUser deletes a user for good and sends user.deleted, which carries only the id and, if there
// is one, the external id. Its only error is [ErrUserNotFound].
func (s *Server) DeleteUser(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.delete(id)
	return err
}

// User returns a user as GET /users/{id} answers it, or false if there is no such user. The caller may
// modify the result.
func (s *Server) User(id string) (json.RawMessage, bool) {
	s.mu.Lock()
	e, ok := s.users.find(id)
	s.mu.Unlock()
	if !ok {
		return nil, false
	}
	return s.users.json(e), true
}

// UserIDs returns the ids of all users except those of [Config.Population], in the order of created_at,
// then of the id.
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

// update changes a user and sends user.updated. If bump is true, it moves updated_at.
func (s *Server) update(id string, bump bool, f func(*UserObject)) error {
	s.mu.Lock()
	defer s.mu.Unlock() // also if f ends the goroutine, as t.FailNow does
	u, err := s.change(id, bump, f)
	if err != nil {
		return err
	}
	s.emit("user.updated", u)
	return nil
}

// create stores a new user and sends user.created. The caller holds s.mu.
func (s *Server) create(u *UserObject) {
	s.users.put(u)
	s.emit("user.created", u)
}

// change replaces a user with what f makes of it. If bump is true, it moves updated_at. The caller
// holds s.mu.
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
	// f may have kept u or slices of it.
	if u, err = u.clone(); err != nil {
		return nil, fmt.Errorf("fakeclerk: user %s: %w", id, err)
	}
	if _, err := json.Marshal(u); err != nil { // Extra
		return nil, fmt.Errorf("fakeclerk: user %s: %w", id, err)
	}
	s.users.put(u)
	return u, nil
}

// delete removes a user and sends user.deleted. The caller holds s.mu.
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

// session is Clerk's SessionEventPayload schema.
type session struct {
	Object         string          `json:"object"`
	ID             string          `json:"id"`
	UserID         string          `json:"user_id"`
	User           *UserObject     `json:"user"`
	ClientID       string          `json:"client_id"`
	Actor          *struct{}       `json:"actor"`
	Status         string          `json:"status"`
	LastActiveOrg  *string         `json:"last_active_organization_id"`
	LastActiveAt   int64           `json:"last_active_at"`
	LatestActivity sessionActivity `json:"latest_activity"`
	ExpireAt       int64           `json:"expire_at"`
	AbandonAt      int64           `json:"abandon_at"`
	UpdatedAt      int64           `json:"updated_at"`
	CreatedAt      int64           `json:"created_at"`
}

// sessionActivity is Clerk's SessionActivityResponse schema.
type sessionActivity struct {
	Object         string `json:"object"`
	ID             string `json:"id"`
	DeviceType     string `json:"device_type"`
	IsMobile       bool   `json:"is_mobile"`
	BrowserName    string `json:"browser_name"`
	BrowserVersion string `json:"browser_version"`
	IPAddress      string `json:"ip_address"`
	City           string `json:"city"`
	Country        string `json:"country"`
}

// newSession makes the data of session.created for a user who has just signed in. It expires after 7
// days, Clerk's default: https://clerk.com/docs/guides/secure/session-options.
func (s *Server) newSession(u *UserObject) session {
	const day = 24 * 60 * 60 * 1000
	now := *u.LastSignInAt
	return session{
		Object: "session", ID: s.ids.id("sess_"), UserID: u.ID, User: u, ClientID: s.ids.id("client_"),
		Status: "active", LastActiveAt: now, CreatedAt: now, UpdatedAt: now,
		ExpireAt: now + 7*day, AbandonAt: now + 30*day,
		LatestActivity: sessionActivity{
			Object: "session_activity", ID: s.ids.id("sess_activity_"), DeviceType: "Macintosh",
			BrowserName: "Chrome", BrowserVersion: "128.0.0.0", IPAddress: clientIP,
			City: "San Francisco", Country: "US",
		},
	}
}
