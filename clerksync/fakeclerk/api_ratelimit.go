package fakeclerk

import (
	"time"
)

// window is the time span whose requests count against the rate limit. It starts with a request and
// lasts for rateWindow. That Clerk's windows are fixed rather than sliding is an assumption.
type window struct {
	start time.Time
	n     int
}

// admit counts a request against the rate limit. If the limit is exceeded, it returns after how many
// seconds the client may try again.
func (s *Server) admit() (retryAfter int, admitted bool) {
	if s.limit < 0 {
		return 0, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Now()
	if s.window.n == 0 || now.Sub(s.window.start) >= rateWindow {
		s.window = window{start: now}
	}
	if s.window.n >= s.limit {
		left := s.window.start.Add(rateWindow).Sub(now)
		return int((left + time.Second - 1) / time.Second), false
	}
	s.window.n++
	return 0, true
}
