package fakeclerk

import (
	crand "crypto/rand"
	"encoding/binary"
	"math/rand/v2"
	"sync"
)

// idLength is the length of an id of Clerk's without its prefix: a KSUID in base 62.
const idLength = 27

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// idSource makes ids and secrets. It is safe for concurrent use.
type idSource struct {
	mu  sync.Mutex
	src *rand.ChaCha8
	rnd *rand.Rand // reads src
}

// looseIDs makes the ids of objects that do not belong to a Server.
var looseIDs = newIDSource(0)

// newIDSource returns a source that is determined by the seed, or an unpredictable one if seed is 0.
func newIDSource(seed uint64) *idSource {
	var key [32]byte
	if seed == 0 {
		crand.Read(key[:]) // never fails
	} else {
		binary.LittleEndian.PutUint64(key[:], seed)
	}
	src := rand.NewChaCha8(key)
	return &idSource{src: src, rnd: rand.New(src)}
}

// id returns prefix and 27 base-62 characters, such as user_2g7np7Hrk0SN6kj5EDMLDaKNL0S.
func (s *idSource) id(prefix string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := make([]byte, 0, len(prefix)+idLength)
	b = append(b, prefix...)
	for range idLength {
		b = append(b, base62[s.rnd.IntN(len(base62))])
	}
	return string(b)
}

// bytes returns n random bytes.
func (s *idSource) bytes(n int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := make([]byte, n)
	_, _ = s.src.Read(b) // never fails
	return b
}
