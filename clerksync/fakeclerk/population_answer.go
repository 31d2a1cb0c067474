package fakeclerk

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// populationKinds are the kinds of users. share is how many of 16 users are of the kind. A name between
// two $ is a slot that is filled in for each user.
var populationKinds = []struct {
	share    int
	signedIn bool
	user     NewUser
}{
	{share: 9, signedIn: true, user: NewUser{
		FirstName: "$first$", LastName: "$last$", Email: "$email$", ImageURL: "https://img.clerk.com/$id$",
	}},
	{share: 4, signedIn: true, user: NewUser{
		FirstName: "$first$", LastName: "$last$", Email: "$email$", PublicMetadata: map[string]any{"plan": "pro"},
	}},
	{share: 2, signedIn: false, user: NewUser{Email: "$email$"}},
	{share: 1, signedIn: true, user: NewUser{FirstName: "$first$", Phone: "$phone$"}},
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

// firstNames and lastNames hold names, and how they are spelled in e-mail addresses.
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

// template is the JSON of a user, as encoding/json writes it, with slots to fill in. It reads text[0],
// slots[0], text[1] and so on, up to the last text.
type template struct {
	text  []string
	slots []string
}

// newTemplate returns the template for the object that Clerk would make of u.
func newTemplate(u NewUser, signedIn bool) template {
	// Placeholders for the times: no other number in the object is negative.
	created, updated, active := int64(-1), int64(-2), int64(-3)
	u.ID, u.CreatedAt = "user_$id$", time.UnixMilli(created)
	o := u.Object(time.Time{})
	o.UpdatedAt = updated
	if signedIn {
		o.LastSignInAt, o.LastActiveAt = &active, &active
	}
	// Each user has one identifier. Its id has the same random part as the user's.
	for _, e := range o.EmailAddresses {
		e.ID = "idn_$id$"
		o.PrimaryEmailAddressID = &e.ID
	}
	for _, p := range o.PhoneNumbers {
		p.ID = "idn_$id$"
		o.PrimaryPhoneNumberID = &p.ID
	}
	var t template
	times := strings.NewReplacer(":-1", ":$created$", ":-2", ":$updated$", ":-3", ":$active$")
	for i, part := range strings.Split(times.Replace(string(mustMarshal(o))), "$") {
		if i%2 == 0 {
			t.text = append(t.text, part)
		} else {
			t.slots = append(t.slots, part)
		}
	}
	return t
}

// appendJSON appends the JSON of user i. It does not need the server's lock.
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
				b = append(b, '0') // pads the number to 7 digits
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

// object returns user i as an object that can be changed.
func (p *population) object(i int) *UserObject {
	type plain UserObject
	u := &UserObject{ids: p.ids}
	if err := json.Unmarshal(p.appendJSON(nil, i), (*plain)(u)); err != nil {
		panic(fmt.Errorf("fakeclerk: %w", err))
	}
	return u
}

// listJSON returns the JSON of a list. It does not need the server's lock.
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

// These methods of userTable treat the stored users and the population as one list in the order of
// compareCreated. They find a place in it by binary search, so a page costs the same wherever it is.

// count returns how many users there are.
func (t *userTable) count() int {
	n := len(t.ordered)
	if p := t.population; p != nil {
		n += p.size - len(p.gone)
	}
	return n
}

// place returns how many users come before a user.
func (t *userTable) place(e entry) int {
	u := e.user
	if u == nil {
		u = &UserObject{}
		u.ID, u.CreatedAt = t.population.id(e.number), t.population.created(e.number)
	}
	stored, _ := slices.BinarySearchFunc(t.ordered, u, compareCreated)
	return stored + t.generatedBefore(u)
}

// generatedBefore returns how many users of the population, without those gone, come before u.
func (t *userTable) generatedBefore(u *UserObject) int {
	p := t.population
	i := sort.Search(p.size, func(i int) bool { return !p.before(i, u) })
	gone, _ := slices.BinarySearch(p.gone, i)
	return i - gone
}

// between returns the users from place lo to place hi-1.
func (t *userTable) between(lo, hi int) []entry {
	if lo >= hi {
		return nil
	}
	p := t.population
	// Of the lo users before the first one, find how many are stored. The others are the population's.
	stored := sort.Search(len(t.ordered), func(n int) bool { return n+t.generatedBefore(t.ordered[n]) >= lo })
	generated := lo - stored
	gone := sort.Search(len(p.gone), func(n int) bool { return p.gone[n]-n > generated })
	i := generated + gone
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

// places returns the places of the users with the given ids, ascending. It leaves out users that do not
// exist.
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

// populationFilter returns the ids that a query asks for, or nil if it asks for all users. It returns
// an error if the query would have to look at every user. filters are the query's filters.
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

// entries returns the users of one page, as page does, for a table with a population. ids are the users
// that the query asks for, nil for all. The caller holds the server's lock.
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
