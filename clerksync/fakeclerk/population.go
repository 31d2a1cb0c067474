package fakeclerk

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"
)

// population is the users of Config.Population. They are numbered from 0, oldest first, and each is
// generated from its number. Only gone ever changes, so users are generated without the server's lock.
type population struct {
	size  int
	seed  uint64
	first int64 // created_at of user 0, in ms
	start int64 // when the server started, in ms
	ids   *idSource

	templates []template
	width     int // estimated length of the longest user's JSON, in bytes

	// gone are the numbers of users that are no longer generated, ascending. They were deleted, or they
	// were changed and are now stored like any other user.
	gone []int
}

// populationStep is the time between two sign-ups, in ms. It is short, so that even a billion users
// need no more than 32 years.
const populationStep = 1000

// newPopulation returns nil if size is 0 or less.
func newPopulation(size int, seed uint64, start time.Time, ids *idSource) *population {
	if size <= 0 {
		return nil
	}
	p := &population{
		size: size,
		// A seed from ids would change the ids that the server makes next.
		seed:  binary.LittleEndian.Uint64(newIDSource(seed).bytes(8)),
		start: start.UnixMilli(),
		ids:   ids,
	}
	p.first = p.start - int64(size)*populationStep
	for _, kind := range populationKinds {
		t := newTemplate(kind.user, kind.signedIn)
		width := 40 * len(t.slots) // bytes; more than a slot takes on average
		for _, text := range t.text {
			width += len(text)
		}
		p.templates = append(p.templates, t)
		p.width = max(p.width, width)
	}
	return p
}

// PopulationID returns the id of a user of [Config.Population], even if the user has been deleted.
// Users are numbered from 0, oldest first. It panics if there is no user with that number.
func (s *Server) PopulationID(number int) string {
	p := s.users.population
	if p == nil || number < 0 || number >= p.size {
		panic(fmt.Sprintf("fakeclerk: PopulationID(%d): no such user", number))
	}
	return p.id(number)
}

// created returns created_at of user i.
func (p *population) created(i int) int64 { return p.first + int64(i)*populationStep }

// numberDigits is how many characters of an id encode the user's number.
const numberDigits = 8

// key returns what follows "user_" in the id of user i: the encoded number, then random characters.
// Keys ascend with i.
func (p *population) key(i int) [idLength]byte {
	var key [idLength]byte
	n := p.origin() + uint64(i)
	for k := numberDigits - 1; k >= 0; k-- {
		key[k] = base62[n%62]
		n /= 62
	}
	for k := numberDigits; k < idLength; {
		r := p.random(i, 2+(k-numberDigits)/10)
		for range min(10, idLength-k) { // 64 bits are enough for 10 characters
			var c uint64
			c, r = bits.Mul64(r, 62)
			key[k] = base62[c]
			k++
		}
	}
	return key
}

// origin is added to the numbers in ids, so that ids do not look like numbers. It is less than half of
// what numberDigits can hold.
func (p *population) origin() uint64 { return p.seed >> 18 }

// id returns the id of user i.
func (p *population) id(i int) string {
	key := p.key(i)
	return "user_" + string(key[:])
}

// number returns the number of the user with the id, gone or not. It reports false if the id does not
// belong to the population.
func (p *population) number(id string) (i int, ok bool) {
	key, ok := strings.CutPrefix(id, "user_")
	if !ok || len(key) != idLength {
		return 0, false
	}
	var n uint64
	for _, c := range []byte(key[:numberDigits]) {
		n = n*62 + uint64(max(strings.IndexByte(base62, c), 0))
	}
	if n < p.origin() || n-p.origin() >= uint64(p.size) {
		return 0, false
	}
	i = int(n - p.origin())
	want := p.key(i)
	return i, key == string(want[:])
}

// populationPhone is the start of each phone number. The user's number follows.
const populationPhone = "+1555"

// owns reports whether text is the e-mail address or phone number of a user of the population who is
// not gone and does not have the id except. The caller holds the server's lock.
func (p *population) owns(text, except string) bool {
	if p == nil {
		return false
	}
	name, _, isEmail := strings.Cut(text, "@")
	digits := strings.TrimPrefix(name, populationPhone)
	if isEmail {
		digits = name[len(strings.TrimRight(name, "0123456789")):]
	}
	i, err := strconv.Atoi(digits)
	if err != nil || i < 0 || i >= p.size || p.isGone(i) {
		return false
	}
	u := p.object(i)
	owned := slices.Concat(u.emails(), u.phones())
	return u.ID != except && slices.Contains(texts(owned), text)
}

// isGone reports whether user i is no longer generated. The caller holds the server's lock.
func (p *population) isGone(i int) bool {
	_, gone := slices.BinarySearch(p.gone, i)
	return gone
}

// leave stops generating the user, and reports whether the user was generated until now. The caller
// holds the server's lock.
func (p *population) leave(id string) bool {
	i, ok := p.number(id)
	if !ok {
		return false
	}
	n, gone := slices.BinarySearch(p.gone, i)
	if !gone {
		p.gone = slices.Insert(p.gone, n, i)
	}
	return !gone
}

// before reports whether user i comes before u in the order of compareCreated.
func (p *population) before(i int, u *UserObject) bool {
	if created := p.created(i); created != u.CreatedAt {
		return created < u.CreatedAt
	}
	return p.id(i) < u.ID
}

// random returns the nth random number of user i.
func (p *population) random(i, n int) uint64 {
	const each = 4 // random numbers of a user
	// SplitMix64: its output is random from any starting state.
	z := p.seed + uint64(i*each+n+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below maps a random number to one from 0 to n-1.
func below(random uint64, n int64) int64 {
	high, _ := bits.Mul64(random, uint64(n))
	return int64(high)
}
