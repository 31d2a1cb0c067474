package fakeclerk

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
)

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
