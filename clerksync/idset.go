package clerksync

import (
	"hash/maphash"
	"math/bits"
)

// idSet is a set of ids that grows with their number and not with their length:
// it keeps a 64-bit hash of each, in about 11 bytes. Of a million ids two have the
// same hash in one of some 40 million sets, and not in the next process's.
type idSet struct {
	seed  maphash.Seed
	slots []uint64 // open addressing; 0 is free
	n     int
}

// newIDSet has room for n ids before it grows, up to ten million: n is Clerk's count.
func newIDSet(n int) *idSet {
	n = min(max(n, 0), 10_000_000)
	return &idSet{seed: maphash.MakeSeed(), slots: make([]uint64, n+n/3+64)}
}

// add reports whether id is new.
func (s *idSet) add(id string) bool {
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

func (s *idSet) has(id string) bool {
	_, found := s.find(s.hash(id))
	return found
}

func (s *idSet) hash(id string) uint64 { return max(1, maphash.String(s.seed, id)) }

// find returns the slot that holds h, or the free one for it.
func (s *idSet) find(h uint64) (at int, found bool) {
	high, _ := bits.Mul64(h, uint64(len(s.slots))) // h as a fraction of 1, of the slots
	for at = int(high); s.slots[at] != 0; at = (at + 1) % len(s.slots) {
		if s.slots[at] == h {
			return at, true
		}
	}
	return at, false
}

// grow is by little, as it is rarely called: Clerk counts its users beforehand.
func (s *idSet) grow() {
	old := s.slots
	s.slots = make([]uint64, len(old)+len(old)/4)
	for _, h := range old {
		if h != 0 {
			at, _ := s.find(h)
			s.slots[at] = h
		}
	}
}
