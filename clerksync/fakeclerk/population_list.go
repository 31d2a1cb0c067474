package fakeclerk

import (
	"net/http"
	"slices"
	"sort"
)

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
