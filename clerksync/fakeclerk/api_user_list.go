package fakeclerk

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
)

// Bounds of GET /users, from Clerk's OpenAPI file.
const (
	defaultLimit = 10
	maxLimit     = 500
	maxValues    = 100 // values of a repeated filter
)

func (s *Server) listUsers(r *http.Request) answer {
	q, err := parseListQuery(r)
	if err != nil {
		return s.failed(err, "")
	}
	if s.users.population != nil {
		return s.listPopulation(r, q)
	}
	s.mu.Lock()
	users, err := q.page(&s.users)
	s.mu.Unlock()
	if err != nil {
		return s.failed(err, "")
	}
	return ok(users)
}

func (s *Server) countUsers(r *http.Request) answer {
	matches, filters, err := parseFilters(r.URL.Query())
	if err != nil {
		return s.failed(err, "")
	}
	if s.users.population != nil {
		return s.countPopulation(r, filters)
	}
	n := 0
	s.mu.Lock()
	for _, u := range s.users.ordered {
		if matches(u) {
			n++
		}
	}
	s.mu.Unlock()
	return totalCount(n)
}

func totalCount(n int) answer {
	return ok(struct {
		Object     string `json:"object"`
		TotalCount int    `json:"total_count"`
	}{"total_count", n})
}

// listQuery is a parsed query of GET /users.
type listQuery struct {
	limit, offset int
	startingAfter string
	compare       func(a, b *UserObject) int // nil: compareCreated
	descending    bool
	matches       func(*UserObject) bool
	filters       []string // the parameters that matches depends on
}

func parseListQuery(r *http.Request) (listQuery, error) {
	values := r.URL.Query()
	q := listQuery{limit: defaultLimit}
	var err error
	if v := values.Get("limit"); v != "" {
		if q.limit, err = strconv.Atoi(v); err != nil || q.limit < 1 {
			return q, badParam("format_invalid", "limit", "must be an integer from 1 to 500")
		}
		if q.limit > maxLimit { // undocumented: https://github.com/clerk/clerk-sdk-python/issues/166
			q.limit = defaultLimit
		}
	}
	if v := values.Get("offset"); v != "" {
		if q.offset, err = strconv.Atoi(v); err != nil || q.offset < 0 {
			return q, badParam("format_invalid", "offset", "must be an integer of at least 0")
		}
	}
	field, descending := "created_at", true
	if v := values.Get("order_by"); v != "" {
		var sign byte
		sign, field = cutSign(v)
		descending = sign == '-'
	}
	q.descending = descending
	if field != "created_at" {
		if q.compare = orders[field]; q.compare == nil {
			return q, badParam("value_invalid", "order_by", "does not match the allowed values for this parameter")
		}
	}
	if q.startingAfter = values.Get("starting_after"); q.startingAfter != "" {
		switch {
		case olderThan(r, "2026-05-12"):
			return q, badParam("unknown", "starting_after", "is not a valid parameter for this request")
		case q.compare != nil:
			return q, badParam("value_invalid", "starting_after", "requires ordering by created_at")
		case q.offset != 0:
			return q, badParam("value_invalid", "starting_after", "cannot be combined with offset")
		}
	}
	q.matches, q.filters, err = parseFilters(values)
	return q, err
}

// errStartingAfter is the answer to an unknown id. That it is a 422 is an assumption: the OpenAPI
// file does not list a 404 for GET /users.
var errStartingAfter = badParam("value_invalid", "starting_after", "does not match any user")

// page returns the users of one page. The caller holds the server's lock.
func (q listQuery) page(t *userTable) ([]*UserObject, error) {
	users := t.ordered
	if q.compare != nil {
		users = slices.Clone(users)
		slices.SortStableFunc(users, q.compare)
	}
	step, next := 1, 0
	if q.descending {
		step, next = -1, len(users)-1
	}
	if q.startingAfter != "" {
		last := t.byID[q.startingAfter]
		if last == nil {
			return nil, errStartingAfter
		}
		i, _ := slices.BinarySearchFunc(users, last, compareCreated)
		next = i + step
	}
	page := []*UserObject{}
	skip := q.offset
	for ; next >= 0 && next < len(users) && len(page) < q.limit; next += step {
		switch u := users[next]; {
		case !q.matches(u):
		case skip > 0:
			skip--
		default:
			page = append(page, u)
		}
	}
	return page, nil
}

// orders are the values of order_by except created_at. Users without the field come first in
// ascending order, and ties are in the order of created_at. Both are assumptions.
var orders = map[string]func(a, b *UserObject) int{
	"updated_at":      by(func(u *UserObject) int64 { return u.UpdatedAt }),
	"last_active_at":  by(func(u *UserObject) int64 { return deref(u.LastActiveAt) }),
	"last_sign_in_at": by(func(u *UserObject) int64 { return deref(u.LastSignInAt) }),
	"first_name":      by(func(u *UserObject) string { return deref(u.FirstName) }),
	"last_name":       by(func(u *UserObject) string { return deref(u.LastName) }),
	"username":        by(func(u *UserObject) string { return deref(u.Username) }),
	"email_address":   by(func(u *UserObject) string { return first(u.emails(), u.PrimaryEmailAddressID) }),
	"phone_number":    by(func(u *UserObject) string { return first(u.phones(), u.PrimaryPhoneNumberID) }),
	"web3wallet":      by(func(u *UserObject) string { return first(u.wallets(), u.PrimaryWeb3WalletID) }),
}

func by[T cmp.Ordered](key func(*UserObject) T) func(a, b *UserObject) int {
	return func(a, b *UserObject) int { return cmp.Compare(key(a), key(b)) }
}
