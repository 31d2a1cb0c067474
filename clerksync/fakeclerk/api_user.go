package fakeclerk

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

func (s *Server) getUser(r *http.Request) answer {
	id := r.PathValue("id")
	s.mu.Lock()
	e, found := s.users.find(id)
	s.mu.Unlock()
	if !found {
		return s.failed(ErrUserNotFound, id)
	}
	return okJSON(s.users.json(e))
}

func (s *Server) deleteUser(r *http.Request) answer {
	id := r.PathValue("id")
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.delete(id)
	if err != nil {
		return s.failed(err, id)
	}
	return ok(d)
}

func (s *Server) banUser(r *http.Request) answer {
	return s.changeUser(r, func(u *UserObject) error { u.Banned = true; return nil })
}

func (s *Server) unbanUser(r *http.Request) answer {
	return s.changeUser(r, func(u *UserObject) error { u.Banned = false; return nil })
}

// changeUser answers a request that changes the user in its path, with f's error or the changed user.
func (s *Server) changeUser(r *http.Request, f func(*UserObject) error) answer {
	id := r.PathValue("id")
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.users.get(id)
	if old == nil {
		return s.failed(ErrUserNotFound, id)
	}
	trial, err := old.clone() // an error of f must not change the user
	if err == nil {
		err = f(trial)
	}
	if err != nil {
		return s.failed(err, id)
	}
	u, err := s.change(id, true, func(u *UserObject) { *u = *trial })
	if err != nil {
		return s.failed(err, id)
	}
	s.emit("user.updated", u)
	return ok(u)
}

// mergeMetadata is PATCH /users/{id}/metadata. It merges deeply, and null removes a key.
func (s *Server) mergeMetadata(r *http.Request) answer { return s.changeMetadata(r, merge) }

// replaceMetadata is PUT /users/{id}/metadata. It replaces each kind of metadata in the request, and
// leaves the other kinds unchanged.
func (s *Server) replaceMetadata(r *http.Request) answer { return s.changeMetadata(r, replace) }

func (s *Server) changeMetadata(r *http.Request, combine func(old, patch map[string]any)) answer {
	fields, err := fieldsOf(r, false)
	if err != nil {
		return s.failed(err, "")
	}
	return s.changeUser(r, func(u *UserObject) error {
		for name, value := range fields {
			m := u.metadata(name)
			if m == nil {
				return badParam("unknown", name, "is not a valid parameter for this request")
			}
			if err := setMetadata(m, name, value, combine); err != nil {
				return err
			}
		}
		return nil
	})
}

// postUser is POST /users. Identifiers must be unique, but none is required: at Clerk, the instance's
// settings say which ones a sign-up needs.
func (s *Server) postUser(r *http.Request) answer {
	fields, err := fieldsOf(r, true)
	if err != nil {
		return s.failed(err, "")
	}
	u, err := s.userFromFields(fields)
	if err != nil {
		return s.failed(err, "")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkUnique(u, func(string) bool { return true }); err != nil {
		return s.failed(err, "")
	}
	u.UpdatedAt = s.Now().UnixMilli()
	u.complete()
	s.create(u)
	return ok(u)
}

// userFromFields makes the user that the fields of POST /users describe.
func (s *Server) userFromFields(fields map[string]json.RawMessage) (*UserObject, error) {
	u, err := NewUser{}.object(s.Now(), s.ids)
	if err != nil {
		return nil, err
	}
	if err := addIdentifiers(u, fields); err != nil {
		return nil, err
	}
	for name, value := range fields {
		var err error
		switch name {
		case "email_address", "email_address_identification_status",
			"phone_number", "phone_number_identification_status", "web3_wallet": // addIdentifiers
		case "banned":
			err = param(name, value, &u.Banned)
		case "locked":
			err = param(name, value, &u.Locked)
		default:
			if m := u.metadata(name); m != nil {
				err = setMetadata(m, name, value, replace)
			} else {
				err = setField(u, name, value)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return u, nil
}

// patchUser is PATCH /users/{id}. Since API version 2026-05-12 it refuses metadata.
func (s *Server) patchUser(r *http.Request) answer {
	fields, err := fieldsOf(r, true)
	if err != nil {
		return s.failed(err, "")
	}
	return s.changeUser(r, func(u *UserObject) error {
		for name, value := range fields {
			var err error
			switch name {
			case "primary_email_address_id":
				err = setPrimary(&u.PrimaryEmailAddressID, name, value, u.emails())
			case "primary_phone_number_id":
				err = setPrimary(&u.PrimaryPhoneNumberID, name, value, u.phones())
			case "primary_web3_wallet_id":
				err = setPrimary(&u.PrimaryWeb3WalletID, name, value, u.wallets())
			default:
				if m := u.metadata(name); m != nil && olderThan(r, "2026-05-12") {
					err = setMetadata(m, name, value, replace)
				} else {
					err = setField(u, name, value)
				}
			}
			if err != nil {
				return err
			}
		}
		return s.checkUnique(u, func(param string) bool { _, named := fields[param]; return named })
	})
}

// addIdentifiers adds the e-mail addresses, phone numbers and wallets of POST /users. The first of
// each kind becomes the primary one.
func addIdentifiers(u *UserObject, fields map[string]json.RawMessage) error {
	for _, k := range []identifierParam{{
		name: "email_address", statusName: "email_address_identification_status",
		add: u.addEmailByAdmin, primary: &u.PrimaryEmailAddressID,
		valid: func(v string) bool { return strings.Count(v, "@") == 1 },
	}, {
		name: "phone_number", statusName: "phone_number_identification_status",
		add: u.AddPhoneNumber, primary: &u.PrimaryPhoneNumberID,
		valid: func(v string) bool { return len(v) > 1 && v[0] == '+' },
	}, {
		name: "web3_wallet",
		add:  u.addWeb3Wallet, primary: &u.PrimaryWeb3WalletID,
		valid: func(v string) bool { return v != "" },
	}} {
		if err := k.apply(fields); err != nil {
			return err
		}
	}
	return nil
}

// identifierParam is a parameter that holds identifiers of one kind.
type identifierParam struct {
	name       string
	statusName string // the parameter that says which of them are verified; "" if there is none
	add        func(text string, verified bool) (id string)
	primary    **string
	valid      func(text string) bool
}

// apply adds the identifiers of the parameter to the user. Without statuses, all are verified.
func (k identifierParam) apply(fields map[string]json.RawMessage) error {
	var values, statuses []string
	if v, given := fields[k.name]; given {
		if err := param(k.name, v, &values); err != nil {
			return err
		}
	}
	if v, given := fields[k.statusName]; given && k.statusName != "" {
		if err := param(k.statusName, v, &statuses); err != nil {
			return err
		}
		if len(statuses) != 0 && len(statuses) != len(values) {
			return badParam("value_invalid", k.statusName, "must have one item for each "+k.name)
		}
	}
	for i, v := range values {
		if !k.valid(v) {
			return badParam("format_invalid", k.name, "is not of a valid format")
		}
		id := k.add(v, len(statuses) == 0 || statuses[i] == "verified")
		if i == 0 {
			*k.primary = &id
		}
	}
	return nil
}

// setPrimary makes one of the user's identifiers the primary one of its kind. null changes nothing.
func setPrimary(to **string, name string, value json.RawMessage, of []identifier) error {
	var id *string
	if err := param(name, value, &id); err != nil || id == nil {
		return err
	}
	for _, v := range of {
		if v.id == *id {
			*to = id
			return nil
		}
	}
	return badParam("value_invalid", name, "does not belong to the user")
}

// checkUnique returns an error if another user has one of u's identifiers. sets reports whether the
// request sets a kind of identifier; the other kinds are not checked. The caller holds the server's
// lock.
func (s *Server) checkUnique(u *UserObject, sets func(param string) bool) error {
	kinds := []struct {
		param string
		of    func(*UserObject) []string
	}{
		{"email_address", func(u *UserObject) []string { return texts(u.emails()) }},
		{"phone_number", func(u *UserObject) []string { return texts(u.phones()) }},
		{"web3_wallet", func(u *UserObject) []string { return texts(u.wallets()) }},
		{"username", func(u *UserObject) []string { return texts(optional(u.Username)) }},
		{"external_id", func(u *UserObject) []string { return texts(optional(u.ExternalID)) }},
	}
	for _, kind := range kinds {
		mine := make(map[string]bool)
		for _, v := range kind.of(u) {
			mine[v] = true
		}
		if len(mine) == 0 || !sets(kind.param) {
			continue
		}
		taken := slices.ContainsFunc(s.users.ordered, func(other *UserObject) bool {
			return other.ID != u.ID && contains(mine, kind.of(other))
		})
		for v := range mine {
			taken = taken || s.users.population.owns(v, u.ID)
		}
		if taken {
			text := "That " + strings.ReplaceAll(kind.param, "_", " ") + " is taken. Please try another."
			return apiError{
				Code: "form_identifier_exists", Message: text, LongMessage: text,
				Meta: map[string]any{"param_name": kind.param},
			}
		}
	}
	return nil
}
