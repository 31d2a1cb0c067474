package world

import "testing"

// scope is a testing.TB whose cleanups run when a world ends.
type scope struct {
	testing.TB
	cleanups []func()
}

// Cleanup runs f when the world ends.
func (s *scope) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

func (s *scope) end() {
	for len(s.cleanups) > 0 {
		f := s.cleanups[len(s.cleanups)-1]
		s.cleanups = s.cleanups[:len(s.cleanups)-1]
		f()
	}
}
