package fakeclerk

// Calls returns how many requests the Backend API received, whatever it answered, since
// the start or ResetCalls. route is a [http.ServeMux] pattern with the wildcard {id}:
// "GET /v1/users", "GET /v1/users/count", "GET /v1/users/{id}", "GET /v1/jwks" and so
// on. An empty route stands for all of them, and for those that do not exist.
func (s *Server) Calls(route string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if route != "" {
		return s.calls[route]
	}
	n := 0
	for _, c := range s.calls {
		n += c
	}
	return n
}

// RateLimited returns how many requests were answered 429, by the rate limit or by a
// [Fault], since the start or ResetCalls.
func (s *Server) RateLimited() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limited
}

// ResetCalls sets the counts of Calls and RateLimited to zero. The rate limit goes on as it was.
func (s *Server) ResetCalls() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.calls)
	s.limited = 0
}
