package fakeclerk

import (
	"time"
)

// window is the span in which requests are counted against the rate limit.
type window struct {
	start time.Time
	n     int
}

// admit counts a request against the rate limit. Where it is over, it returns after how
// many seconds to try again.
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
