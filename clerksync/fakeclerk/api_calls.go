package fakeclerk

// Calls returns how many requests the Backend API has received since the start, or since
// [Server.ResetCalls]. It counts refused requests and faults too. route is a pattern of
// [http.ServeMux] with the wildcard {id}, such as "GET /v1/users", "GET /v1/users/count",
// "GET /v1/users/{id}" or "GET /v1/jwks". An empty route counts all requests, including those
// for routes that do not exist.
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

// RateLimited returns how many requests got a 429, from the rate limit or from a [Fault], since the
// start or since [Server.ResetCalls].
func (s *Server) RateLimited() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limited
}

// ResetCalls sets the counts of [Server.Calls] and [Server.RateLimited] to zero. It does not affect
// the rate limit.
func (s *Server) ResetCalls() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.calls)
	s.limited = 0
}
