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

// population is the users of Config.Population. They are numbered from 0, oldest first,
// and made from their numbers. All but gone stays as it is from the start, so that they
// are made without the server's lock.
type population struct {
	size  int
	seed  uint64
	first int64 // created_at of user 0, in ms
	start int64 // when the server started, in ms
	ids   *idSource

	templates []template
	width     int // of the widest user's JSON, about

	// gone are the users that are not made any more, ascending: they were deleted, or
	// changed, and a changed one is stored as any other user.
	gone []int
}

// populationStep is how long after one user the next one signed up, in ms: short, so that
// a thousand million users take no more than 32 years.
const populationStep = 1000

// newPopulation returns nil for a size of 0 or less.
func newPopulation(size int, seed uint64, start time.Time, ids *idSource) *population {
	if size <= 0 {
		return nil
	}
	p := &population{
		size: size,
		// Not from ids: those that the server makes are the same with a population.
		seed:  binary.LittleEndian.Uint64(newIDSource(seed).bytes(8)),
		start: start.UnixMilli(),
		ids:   ids,
	}
	p.first = p.start - int64(size)*populationStep
	for _, kind := range populationKinds {
		t := newTemplate(kind.user, kind.signedIn)
		width := 40 * len(t.slots) // more than they take on average
		for _, text := range t.text {
			width += len(text)
		}
		p.templates = append(p.templates, t)
		p.width = max(p.width, width)
	}
	return p
}

// PopulationID returns the id of one user of [Config.Population], whether or not it has
// been deleted since. They are numbered from 0, oldest first. It panics where there is
// no user of that number.
func (s *Server) PopulationID(number int) string {
	p := s.users.population
	if p == nil || number < 0 || number >= p.size {
		panic(fmt.Sprintf("fakeclerk: PopulationID(%d): no such user", number))
	}
	return p.id(number)
}

func (p *population) created(i int) int64 { return p.first + int64(i)*populationStep }

// numberDigits is how many characters of an id tell the user's number.
const numberDigits = 8

// key returns what follows "user_" in the id of user i: the number, to which the seed is
// added so that it doesn't look like one, and random characters. Keys ascend.
func (p *population) key(i int) [idLength]byte {
	var key [idLength]byte
	n := p.origin() + uint64(i)
	for k := numberDigits - 1; k >= 0; k-- {
		key[k] = base62[n%62]
		n /= 62
	}
	for k := numberDigits; k < idLength; {
		r := p.random(i, 2+(k-numberDigits)/10)
		for range min(10, idLength-k) { // 64 bits are worth 10 characters
			var c uint64
			c, r = bits.Mul64(r, 62)
			key[k] = base62[c]
			k++
		}
	}
	return key
}

// origin is user 0's number in ids, below half of what numberDigits hold.
func (p *population) origin() uint64 { return p.seed >> 18 }

func (p *population) id(i int) string {
	key := p.key(i)
	return "user_" + string(key[:])
}

// number returns the user whose id this is, gone or not, and false where it is none of
// the population's.
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

// populationPhone begins a phone number, and the user's number follows.
const populationPhone = "+1555"

// owns reports whether a text is the e-mail address or phone number of one of the
// population, but for those gone and the user of that id. The server's lock is held.
func (p *population) owns(text, butFor string) bool {
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
	return u.ID != butFor && slices.Contains(texts(owned), text)
}

// isGone reports whether user i is not made any more. The server's lock is held.
func (p *population) isGone(i int) bool {
	_, gone := slices.BinarySearch(p.gone, i)
	return gone
}

// leave removes the user from those that are made, and reports whether it was among
// them. The server's lock is held.
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
	// SplitMix64, which is as good from any state.
	z := p.seed + uint64(i*each+n+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below maps a random number to one from 0 to n-1, by its high bits.
func below(random uint64, n int64) int64 {
	high, _ := bits.Mul64(random, uint64(n))
	return int64(high)
}
