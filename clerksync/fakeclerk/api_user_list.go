package fakeclerk

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
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

// parseFilters returns a function that reports whether a query selects a user, and the parameters that
// it depends on.
func parseFilters(values url.Values) (matches func(*UserObject) bool, params []string, err error) {
	var filters []func(*UserObject) bool
	add := func(param string, f func(*UserObject) bool) {
		filters, params = append(filters, f), append(params, param)
	}

	// Exact values. A user needs one of them.
	for _, f := range []struct {
		param  string
		signed bool // values may start with + or -
		of     func(*UserObject) []string
	}{
		{"user_id", true, func(u *UserObject) []string { return []string{u.ID} }},
		{"external_id", true, func(u *UserObject) []string { return []string{deref(u.ExternalID)} }},
		{"email_address", false, func(u *UserObject) []string { return texts(u.emails()) }},
		{"phone_number", false, func(u *UserObject) []string { return texts(u.phones()) }},
		{"web3_wallet", false, func(u *UserObject) []string { return texts(u.wallets()) }},
		{"username", false, func(u *UserObject) []string { return []string{deref(u.Username)} }},
	} {
		wanted, unwanted, err := split(values[f.param], f.param, f.signed)
		if err != nil {
			return nil, nil, err
		}
		if len(wanted) > 0 {
			add(f.param, func(u *UserObject) bool { return contains(wanted, f.of(u)) })
		}
		if len(unwanted) > 0 {
			add(f.param, func(u *UserObject) bool { return !contains(unwanted, f.of(u)) })
		}
	}

	// Parts of a text, ignoring case.
	for param, of := range map[string]func(*UserObject) []string{
		"email_address_query": func(u *UserObject) []string { return texts(u.emails()) },
		"phone_number_query":  func(u *UserObject) []string { return texts(u.phones()) },
		"username_query":      func(u *UserObject) []string { return []string{deref(u.Username)} },
		"name_query":          func(u *UserObject) []string { return []string{u.name()} },
		"query": func(u *UserObject) []string {
			all := []string{u.ID, deref(u.Username), u.name()}
			return slices.Concat(all, texts(u.emails()), texts(u.phones()), texts(u.wallets()))
		},
	} {
		if part := strings.ToLower(values.Get(param)); part != "" {
			add(param, func(u *UserObject) bool {
				return slices.ContainsFunc(of(u), func(s string) bool {
					return strings.Contains(strings.ToLower(s), part)
				})
			})
		}
	}

	// Times in Unix milliseconds. Users without the field are left out.
	for _, f := range []struct {
		param string
		of    func(*UserObject) int64
		holds func(field, bound int64) bool
	}{
		{"created_at_before", createdAt, isBefore}, {"created_at_after", createdAt, isAfter},
		{"last_active_at_before", lastActiveAt, isBefore}, {"last_active_at_after", lastActiveAt, isAfter},
		{"last_active_at_since", lastActiveAt, func(field, bound int64) bool { return field >= bound }},
		{"last_sign_in_at_before", lastSignInAt, isBefore}, {"last_sign_in_at_after", lastSignInAt, isAfter},
	} {
		v := values.Get(f.param)
		if v == "" {
			continue
		}
		bound, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return nil, nil, badParam("format_invalid", f.param, "must be a Unix time in milliseconds")
		}
		add(f.param, func(u *UserObject) bool { field := f.of(u); return field != 0 && f.holds(field, bound) })
	}

	if v := values.Get("banned"); v != "" {
		banned, err := strconv.ParseBool(v)
		if err != nil {
			return nil, nil, badParam("format_invalid", "banned", "must be true or false")
		}
		add("banned", func(u *UserObject) bool { return u.Banned == banned })
	}
	for _, param := range []string{"organization_id", "provider", "provider_user_id"} {
		if values.Has(param) { // ignoring the filter would select the wrong users
			return nil, nil, badParam("unknown", param, "is a filter that fakeclerk does not have")
		}
	}
	return func(u *UserObject) bool {
		for _, f := range filters {
			if !f(u) {
				return false
			}
		}
		return true
	}, params, nil
}

func createdAt(u *UserObject) int64 { return u.CreatedAt }

func lastActiveAt(u *UserObject) int64 { return deref(u.LastActiveAt) }

func lastSignInAt(u *UserObject) int64 { return deref(u.LastSignInAt) }

func isBefore(field, bound int64) bool { return field < bound }

func isAfter(field, bound int64) bool { return field > bound }

// split parses a repeated parameter into the values to include and the values to exclude.
func split(values []string, param string, signed bool) (wanted, unwanted map[string]bool, err error) {
	if len(values) > maxValues {
		return nil, nil, badParam("exceeds_allowed_size", param, "accepts up to 100 values")
	}
	wanted, unwanted = make(map[string]bool), make(map[string]bool)
	for _, v := range values {
		if !signed {
			wanted[v] = true
			continue
		}
		if sign, v := cutSign(v); sign == '-' {
			unwanted[v] = true
		} else {
			wanted[v] = true
		}
	}
	return wanted, unwanted, nil
}

// cutSign cuts off a + or - before a value. Without one, it returns +. A + that the client did not
// escape arrives as a space.
func cutSign(v string) (sign byte, rest string) {
	if v != "" && (v[0] == '-' || v[0] == '+' || v[0] == ' ') {
		if v[0] == '-' {
			return '-', v[1:]
		}
		return '+', v[1:]
	}
	return '+', v
}

func contains(set map[string]bool, values []string) bool {
	return slices.ContainsFunc(values, func(v string) bool { return set[v] })
}
