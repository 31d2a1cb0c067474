package fakeclerk

import (
	"net/http"
)

func (s *Server) getUser(r *http.Request) answer {
	id := r.PathValue("id")
	s.mu.Lock()
	e, found := s.users.find(id)
	s.mu.Unlock()
	if !found {
		return s.failed(ErrUserNotFound, id)
	}
	return okJSON(s.users.json(e))
}

func (s *Server) deleteUser(r *http.Request) answer {
	id := r.PathValue("id")
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.delete(id)
	if err != nil {
		return s.failed(err, id)
	}
	return ok(d)
}

func (s *Server) banUser(r *http.Request) answer {
	return s.changeUser(r, func(u *UserObject) error { u.Banned = true; return nil })
}

func (s *Server) unbanUser(r *http.Request) answer {
	return s.changeUser(r, func(u *UserObject) error { u.Banned = false; return nil })
}

// changeUser answers a request that changes the user in its path, with f's error or the changed user.
func (s *Server) changeUser(r *http.Request, f func(*UserObject) error) answer {
	id := r.PathValue("id")
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.users.get(id)
	if old == nil {
		return s.failed(ErrUserNotFound, id)
	}
	trial, err := old.clone() // an error of f must not change the user
	if err == nil {
		err = f(trial)
	}
	if err != nil {
		return s.failed(err, id)
	}
	u, err := s.change(id, true, func(u *UserObject) { *u = *trial })
	if err != nil {
		return s.failed(err, id)
	}
	s.emit("user.updated", u)
	return ok(u)
}
