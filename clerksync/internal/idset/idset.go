// Package idset holds a set of ids in little memory.
package idset

import (
	"hash/maphash"
	"math/bits"
)

// Set is a set of ids whose size depends on their number and not on their length: it
// keeps a 64-bit hash of each, in about 11 bytes. Two of a million ids share a hash in
// one of some 40 million sets, and the hashes differ in each process. It is not safe for
// concurrent use.
type Set struct {
	seed  maphash.Seed
	slots []uint64 // open addressing; 0 is free
	n     int
}

// New returns a Set with room for n ids before it grows, up to ten million.
func New(n int) *Set {
	n = min(max(n, 0), 10_000_000)
	return &Set{seed: maphash.MakeSeed(), slots: make([]uint64, n+n/3+64)}
}

// Add adds an id and reports whether it is new.
func (s *Set) Add(id string) bool {
	if s.n >= len(s.slots)/4*3 {
		s.grow()
	}
	h := s.hash(id)
	at, found := s.find(h)
	if !found {
		s.slots[at] = h
		s.n++
	}
	return !found
}

// Has reports whether an id was added.
func (s *Set) Has(id string) bool {
	_, found := s.find(s.hash(id))
	return found
}

func (s *Set) hash(id string) uint64 { return max(1, maphash.String(s.seed, id)) }

// find returns the slot that holds h, or the free slot for it.
func (s *Set) find(h uint64) (at int, found bool) {
	high, _ := bits.Mul64(h, uint64(len(s.slots))) // h scaled from 64 bits to the number of slots
	for at = int(high); s.slots[at] != 0; at = (at + 1) % len(s.slots) {
		if s.slots[at] == h {
			return at, true
		}
	}
	return at, false
}

// grow adds a quarter.
func (s *Set) grow() {
	old := s.slots
	s.slots = make([]uint64, len(old)+len(old)/4)
	for _, h := range old {
		if h != 0 {
			at, _ := s.find(h)
			s.slots[at] = h
		}
	}
}
