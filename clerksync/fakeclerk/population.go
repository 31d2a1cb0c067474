package fakeclerk

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/bits"
	"net/http"
	"slices"
	"sort"
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

// populationPhone begins a phone number, and the user's number follows.
const populationPhone = "+1555"

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

// populationKinds are the kinds of users; share is how many of 16 are of the kind. What
// stands between two $ is filled in for each user.
var populationKinds = []struct {
	share    int
	signedIn bool
	user     NewUser
}{
	{9, true, NewUser{FirstName: "$first$", LastName: "$last$", Email: "$email$", ImageURL: "https://img.clerk.com/$id$"}},
	{4, true, NewUser{FirstName: "$first$", LastName: "$last$", Email: "$email$", PublicMetadata: map[string]any{"plan": "pro"}}},
	{2, false, NewUser{Email: "$email$"}},
	{1, true, NewUser{FirstName: "$first$", Phone: "$phone$"}},
}

// populationKind maps 4 random bits to an index of populationKinds.
var populationKind = func() (kinds [16]int) {
	n := 0
	for kind, k := range populationKinds {
		for range k.share {
			kinds[n] = kind
			n++
		}
	}
	return kinds
}()

// Names of users, whose e-mail addresses are made of mail.
var firstNames, lastNames = [16]personName{
	{"Ada", "ada"}, {"Ben", "ben"}, {"Chloé", "chloe"}, {"Dmitri", "dmitri"},
	{"Emma", "emma"}, {"Fatima", "fatima"}, {"Grace", "grace"}, {"Hiroshi", "hiroshi"},
	{"Ines", "ines"}, {"José", "jose"}, {"Kwame", "kwame"}, {"Łucja", "lucja"},
	{"Mei", "mei"}, {"Noah", "noah"}, {"Olga", "olga"}, {"Priya", "priya"},
}, [16]personName{
	{"Andersen", "andersen"}, {"Brown", "brown"}, {"Chen", "chen"}, {"Dubois", "dubois"},
	{"Eriksson", "eriksson"}, {"Fischer", "fischer"}, {"García", "garcia"}, {"Haddad", "haddad"},
	{"Ivanova", "ivanova"}, {"Jones", "jones"}, {"Kowalska", "kowalska"}, {"López", "lopez"},
	{"Müller", "mueller"}, {"Nakamura", "nakamura"}, {"O'Brien", "obrien"}, {"Patel", "patel"},
}

type personName struct{ name, mail string }

// template is the JSON of a user, as encoding/json writes it, with slots: text[0],
// slots[0], text[1] and so on to the last text.
type template struct {
	text  []string
	slots []string
}

// newTemplate makes the template from the object that Clerk makes of u.
func newTemplate(u NewUser, signedIn bool) template {
	// No other number in the object is negative.
	created, updated, active := int64(-1), int64(-2), int64(-3)
	u.ID, u.CreatedAt = "user_$id$", time.UnixMilli(created)
	o := u.Object(time.Time{})
	o.UpdatedAt = updated
	if signedIn {
		o.LastSignInAt, o.LastActiveAt = &active, &active
	}
	// Each user has one identifier, which shares what follows the prefix of its id.
	for _, e := range o.EmailAddresses {
		e.ID = "idn_$id$"
		o.PrimaryEmailAddressID = &e.ID
	}
	for _, p := range o.PhoneNumbers {
		p.ID = "idn_$id$"
		o.PrimaryPhoneNumberID = &p.ID
	}
	var t template
	text := strings.NewReplacer(":-1", ":$created$", ":-2", ":$updated$", ":-3", ":$active$").Replace(string(mustMarshal(o)))
	for i, part := range strings.Split(text, "$") {
		if i%2 == 0 {
			t.text = append(t.text, part)
		} else {
			t.slots = append(t.slots, part)
		}
	}
	return t
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

// appendJSON appends the JSON of user i. It needs no lock.
func (p *population) appendJSON(b []byte, i int) []byte {
	key := p.key(i)
	r := p.random(i, 0)
	first, last := firstNames[r>>56&15], lastNames[r>>52&15]
	t := p.templates[populationKind[r>>60]]
	created := p.created(i)
	updated := created + below(p.random(i, 1), p.start-created)
	active := created + below(r<<12, updated-created+1)
	for n, slot := range t.slots {
		b = append(b, t.text[n]...)
		switch slot {
		case "id":
			b = append(b, key[:]...)
		case "first":
			b = append(b, first.name...)
		case "last":
			b = append(b, last.name...)
		case "email":
			b = append(b, first.mail...)
			b = append(b, '.')
			b = append(b, last.mail...)
			b = strconv.AppendInt(b, int64(i), 10)
			b = append(b, "@example.com"...)
		case "phone":
			b = append(b, populationPhone...)
			for limit := 1_000_000; limit > max(i, 1); limit /= 10 {
				b = append(b, '0') // to 7 digits
			}
			b = strconv.AppendInt(b, int64(i), 10)
		case "created":
			b = strconv.AppendInt(b, created, 10)
		case "updated":
			b = strconv.AppendInt(b, updated, 10)
		case "active":
			b = strconv.AppendInt(b, active, 10)
		}
	}
	return append(b, t.text[len(t.slots)]...)
}

// below maps a random number to one from 0 to n-1, by its high bits.
func below(random uint64, n int64) int64 {
	high, _ := bits.Mul64(random, uint64(n))
	return int64(high)
}

// object returns user i as one that can be changed.
func (p *population) object(i int) *UserObject {
	type plain UserObject
	u := &UserObject{ids: p.ids}
	if err := json.Unmarshal(p.appendJSON(nil, i), (*plain)(u)); err != nil {
		panic(fmt.Errorf("fakeclerk: %w", err))
	}
	return u
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

// entry is a user in a list: a stored one, or where user is nil one of the population.
type entry struct {
	user   *UserObject
	number int
}

// listJSON returns a list's JSON. It needs no lock.
func (p *population) listJSON(list []entry) []byte {
	b := make([]byte, 0, 2+len(list)*(p.width+1))
	b = append(b, '[')
	for i, e := range list {
		if i > 0 {
			b = append(b, ',')
		}
		if e.user != nil {
			b = append(b, mustMarshal(e.user)...)
		} else {
			b = p.appendJSON(b, e.number)
		}
	}
	return append(b, ']')
}

// The methods of userTable below see the stored users and the population as one list in
// the order of compareCreated. A place in it is found by binary searches, so that a page
// costs the same wherever it lies. The server's lock is held.

// find returns a user.
func (t *userTable) find(id string) (e entry, ok bool) {
	if u := t.byID[id]; u != nil {
		return entry{user: u}, true
	}
	if t.population == nil {
		return entry{}, false
	}
	i, ok := t.population.number(id)
	return entry{number: i}, ok && !t.population.isGone(i)
}

// json makes the JSON of what find found. It needs no lock.
func (t *userTable) json(e entry) []byte {
	if e.user != nil {
		return mustMarshal(e.user)
	}
	return t.population.appendJSON(nil, e.number)
}

// get returns a user's object, nil where there is no such user. One of the population is
// made, and not stored.
func (t *userTable) get(id string) *UserObject {
	e, ok := t.find(id)
	if ok && e.user == nil {
		return t.population.object(e.number)
	}
	return e.user
}

// used reports whether an id is or was a user's.
func (t *userTable) used(id string) bool {
	if t.population != nil {
		if _, ok := t.population.number(id); ok {
			return true
		}
	}
	return t.byID[id] != nil || t.deleted[id]
}

// count returns how many users there are.
func (t *userTable) count() int {
	n := len(t.ordered)
	if p := t.population; p != nil {
		n += p.size - len(p.gone)
	}
	return n
}

// place returns how many users come before that one.
func (t *userTable) place(e entry) int {
	u := e.user
	if u == nil {
		u = &UserObject{}
		u.ID, u.CreatedAt = t.population.id(e.number), t.population.created(e.number)
	}
	stored, _ := slices.BinarySearchFunc(t.ordered, u, compareCreated)
	return stored + t.madeBefore(u)
}

// madeBefore returns how many of the population, without those gone, come before u.
func (t *userTable) madeBefore(u *UserObject) int {
	p := t.population
	i := sort.Search(p.size, func(i int) bool { return !p.before(i, u) })
	gone, _ := slices.BinarySearch(p.gone, i)
	return i - gone
}

// between returns the users from place lo up to place hi.
func (t *userTable) between(lo, hi int) []entry {
	if lo >= hi {
		return nil
	}
	p := t.population
	// Of the lo users before, so many are stored, and the rest are the population's.
	stored := sort.Search(len(t.ordered), func(n int) bool { return n+t.madeBefore(t.ordered[n]) >= lo })
	made := lo - stored
	gone := sort.Search(len(p.gone), func(n int) bool { return p.gone[n]-n > made })
	i := made + gone
	list := make([]entry, 0, hi-lo)
	for len(list) < hi-lo {
		switch {
		case gone < len(p.gone) && p.gone[gone] == i:
			gone++
			i++
		case stored < len(t.ordered) && (i >= p.size || !p.before(i, t.ordered[stored])):
			list = append(list, entry{user: t.ordered[stored]})
			stored++
		default:
			list = append(list, entry{number: i})
			i++
		}
	}
	return list
}

// places returns the places of those users that exist, ascending.
func (t *userTable) places(ids map[string]bool) []int {
	var places []int
	for id := range ids {
		if e, ok := t.find(id); ok {
			places = append(places, t.place(e))
		}
	}
	slices.Sort(places)
	return places
}

// listPopulation is GET /users with a population.
func (s *Server) listPopulation(r *http.Request, q listQuery) answer {
	ids, err := populationFilter(r, q.filters)
	if err == nil && q.compare != nil {
		err = badParam("value_invalid", "order_by", "is an order that fakeclerk does not have with a Population")
	}
	if err != nil {
		return s.failed(err, "")
	}
	s.mu.Lock()
	list, err := q.entries(&s.users, ids)
	s.mu.Unlock()
	if err != nil {
		return s.failed(err, "")
	}
	return okJSON(s.users.population.listJSON(list))
}

// countPopulation is GET /users/count with a population.
func (s *Server) countPopulation(r *http.Request, filters []string) answer {
	ids, err := populationFilter(r, filters)
	if err != nil {
		return s.failed(err, "")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ids != nil {
		return totalCount(len(s.users.places(ids)))
	}
	return totalCount(s.users.count())
}

// populationFilter returns the ids that a query is about, nil for all, and refuses what
// would take a look at every user. filters are the parameters that filter.
func populationFilter(r *http.Request, filters []string) (map[string]bool, error) {
	for _, param := range filters {
		if param != "user_id" {
			return nil, badParam("unknown", param, "is a filter that fakeclerk does not have with a Population")
		}
	}
	ids, unwanted, err := split(r.URL.Query()["user_id"], "user_id", true)
	if err == nil && len(unwanted) > 0 {
		err = badParam("value_invalid", "user_id", "takes no - in fakeclerk with a Population")
	}
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	return ids, nil
}

// entries returns the users of one page, as page does, of a table with a population. ids
// are those it is about, nil for all. The server's lock is held.
func (q listQuery) entries(t *userTable, ids map[string]bool) ([]entry, error) {
	total := t.count()
	var places []int
	if ids != nil {
		places = t.places(ids)
		total = len(places)
	}
	lo, hi := min(q.offset, total), total
	if q.descending {
		lo, hi = 0, total-lo
	}
	if q.startingAfter != "" {
		last, ok := t.find(q.startingAfter)
		if !ok {
			return nil, errStartingAfter
		}
		before := t.place(last)
		next := before + 1
		if ids != nil {
			before, _ = slices.BinarySearch(places, before)
			next, _ = slices.BinarySearch(places, next)
		}
		if q.descending {
			hi = before
		} else {
			lo = next
		}
	}
	if q.descending {
		lo = max(lo, hi-q.limit)
	} else {
		hi = min(hi, lo+q.limit)
	}
	var list []entry
	if ids == nil {
		list = t.between(lo, hi)
	} else {
		for _, place := range places[lo:hi] {
			list = append(list, t.between(place, place+1)...)
		}
	}
	if q.descending {
		slices.Reverse(list)
	}
	return list, nil
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
