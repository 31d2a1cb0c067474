package fakeclerk

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
)

// ignoredParams are parameters of the schema whose effect shows in no user object, or
// that fakeclerk does without.
var ignoredParams = map[string]bool{
	"password_hasher": true, "skip_password_checks": true, "skip_password_requirement": true,
	"totp_secret": true, "backup_codes": true, "skip_legal_checks": true, "skip_user_requirement": true,
	"bypass_client_trust": true, "notify_primary_email_address_changed": true,
	"profile_image_id": true, "sign_out_of_other_sessions": true,
}

// postUser is POST /users. It keeps identifiers unique, and asks for none: which ones a
// sign-up needs is a setting of the instance.
func (s *Server) postUser(r *http.Request) answer {
	fields, err := fieldsOf(r, true)
	if err != nil {
		return s.failed(err, "")
	}
	u, err := NewUser{}.object(s.Now(), s.ids)
	if err == nil {
		err = addIdentifiers(u, fields)
	}
	for name, value := range fields {
		if err != nil {
			break
		}
		switch name {
		case "email_address", "email_address_identification_status", "phone_number", "phone_number_identification_status", "web3_wallet":
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
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		err = s.checkUnique(u, func(string) bool { return true })
	}
	if err != nil {
		return s.failed(err, "")
	}
	u.UpdatedAt = s.Now().UnixMilli()
	u.complete()
	s.create(u)
	return ok(u)
}

// patchUser is PATCH /users/{id}, which takes no metadata since API version 2026-05-12.
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

// mergeMetadata is PATCH /users/{id}/metadata: a deep merge, in which null removes a key.
func (s *Server) mergeMetadata(r *http.Request) answer { return s.changeMetadata(r, merge) }

// replaceMetadata is PUT /users/{id}/metadata: what is given replaces what was.
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

// metadata returns the metadata that a parameter names, nil where it names none.
func (u *UserObject) metadata(name string) *json.RawMessage {
	switch name {
	case "public_metadata":
		return &u.PublicMetadata
	case "private_metadata":
		return &u.PrivateMetadata
	case "unsafe_metadata":
		return &u.UnsafeMetadata
	}
	return nil
}

func setMetadata(to *json.RawMessage, name string, value json.RawMessage, combine func(old, patch map[string]any)) error {
	var old, patch map[string]any
	if err := param(name, value, &patch); err != nil {
		return err
	}
	if json.Unmarshal(*to, &old) != nil || old == nil {
		old = make(map[string]any)
	}
	combine(old, patch)
	*to = mustMarshal(old)
	return nil
}

func replace(old, patch map[string]any) {
	clear(old)
	maps.Copy(old, patch)
}

func merge(into, patch map[string]any) {
	for k, v := range patch {
		if v == nil {
			delete(into, k)
			continue
		}
		child, isMap := v.(map[string]any)
		if !isMap {
			into[k] = v
			continue
		}
		old, isMap := into[k].(map[string]any)
		if !isMap {
			old = map[string]any{}
		}
		merge(old, child)
		into[k] = old
	}
}

// setField sets a field that POST and PATCH have in common.
func setField(u *UserObject, name string, value json.RawMessage) error {
	if set, ok := fieldSetters[name]; ok {
		return set(u, name, value)
	}
	if ignoredParams[name] {
		return nil
	}
	return badParam("unknown", name, "is not a valid parameter for this request")
}

// fieldSetters are the parameters that POST and PATCH have in common, with what each does to the
// user.
var fieldSetters = map[string]func(u *UserObject, name string, value json.RawMessage) error{
	"first_name":  textField(func(u *UserObject) **string { return &u.FirstName }),
	"last_name":   textField(func(u *UserObject) **string { return &u.LastName }),
	"username":    textField(func(u *UserObject) **string { return &u.Username }),
	"external_id": textField(func(u *UserObject) **string { return &u.ExternalID }),
	"locale":      textField(func(u *UserObject) **string { return &u.Locale }),
	"timezone":    setTimezone,

	"password":        setPassword,
	"password_digest": setPassword,

	"delete_self_enabled":         plainField(func(u *UserObject) *bool { return &u.DeleteSelfEnabled }),
	"create_organization_enabled": plainField(func(u *UserObject) *bool { return &u.CreateOrganizationEnabled }),
	"create_organizations_limit":  plainField(func(u *UserObject) **int { return &u.CreateOrganizationsLimit }),

	"legal_accepted_at": setLegalAcceptedAt,
	"created_at":        setCreatedAt,
}

func textField(field func(*UserObject) **string) func(*UserObject, string, json.RawMessage) error {
	return func(u *UserObject, name string, value json.RawMessage) error { return text(name, value, field(u)) }
}

func plainField[T any](field func(*UserObject) *T) func(*UserObject, string, json.RawMessage) error {
	return func(u *UserObject, name string, value json.RawMessage) error { return param(name, value, field(u)) }
}

// setTimezone sets a field that neither the OpenAPI file nor clerk.User has yet. @clerk/backend
// 3.25.0 sends it.
func setTimezone(u *UserObject, name string, value json.RawMessage) error {
	var zone *string
	if err := text(name, value, &zone); err != nil {
		return err
	}
	delete(u.Extra, name)
	if zone == nil {
		return nil
	}
	if u.Extra == nil {
		u.Extra = make(map[string]any)
	}
	u.Extra[name] = *zone
	return nil
}

func setPassword(u *UserObject, name string, value json.RawMessage) error {
	var password *string
	if err := text(name, value, &password); err != nil {
		return err
	}
	u.PasswordEnabled = u.PasswordEnabled || password != nil
	return nil
}

func setLegalAcceptedAt(u *UserObject, name string, value json.RawMessage) error {
	var at *time.Time
	if err := param(name, value, &at); err != nil {
		return err
	}
	u.LegalAcceptedAt = nil
	if at != nil {
		u.LegalAcceptedAt = clerk.Int64(at.UnixMilli())
	}
	return nil
}

func setCreatedAt(u *UserObject, name string, value json.RawMessage) error {
	var at time.Time
	if err := param(name, value, &at); err != nil || at.IsZero() {
		return err
	}
	u.CreatedAt = at.UnixMilli()
	return nil
}

// param decodes a parameter; null leaves a value that is not a pointer as it was.
func param[T any](name string, value json.RawMessage, to *T) error {
	if err := json.Unmarshal(value, to); err != nil {
		return badParam("format_invalid", name, "is of the wrong type")
	}
	return nil
}

// text decodes a nullable string; an empty one is null too.
func text(name string, value json.RawMessage, to **string) error {
	*to = nil
	if err := param(name, value, to); err != nil {
		return err
	}
	*to = orNil(deref(*to))
	return nil
}

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

// addIdentifiers adds the e-mail addresses, phone numbers and wallets of POST /users,
// of which the first becomes the primary one.
func addIdentifiers(u *UserObject, fields map[string]json.RawMessage) error {
	for _, k := range []struct {
		param   string
		add     func(text string, verified bool) string
		primary **string
		valid   func(string) bool
	}{
		{"email_address", u.AddEmailAddress, &u.PrimaryEmailAddressID, func(v string) bool { return strings.Count(v, "@") == 1 }},
		{"phone_number", u.AddPhoneNumber, &u.PrimaryPhoneNumberID, func(v string) bool { return len(v) > 1 && v[0] == '+' }},
		{"web3_wallet", u.addWeb3Wallet, &u.PrimaryWeb3WalletID, func(v string) bool { return v != "" }},
	} {
		var values, status []string
		if v, given := fields[k.param]; given {
			if err := param(k.param, v, &values); err != nil {
				return err
			}
		}
		if v, given := fields[k.param+"_identification_status"]; given && k.param != "web3_wallet" {
			if err := param(k.param+"_identification_status", v, &status); err != nil {
				return err
			}
			if len(status) != 0 && len(status) != len(values) {
				return badParam("value_invalid", k.param+"_identification_status", "must have one item for each "+k.param)
			}
		}
		for i, v := range values {
			if !k.valid(v) {
				return badParam("format_invalid", k.param, "is not of a valid format")
			}
			id := k.add(v, len(status) == 0 || status[i] == "verified")
			if i == 0 {
				*k.primary = &id
			}
		}
	}
	return nil
}

func (u *UserObject) addWeb3Wallet(address string, _ bool) string {
	w := &clerk.Web3Wallet{ID: u.idSource().id("idn_"), Web3Wallet: address}
	w.Verification = &clerk.Verification{Object: "verification_admin", Status: "verified", Strategy: "admin"}
	u.Web3Wallets = append(u.Web3Wallets, w)
	return w.ID
}

// checkUnique refuses a user who shares an identifier with another, of the kinds that
// the request sets. The lock is held.
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

func optional(s *string) []identifier {
	if s == nil {
		return nil
	}
	return []identifier{{text: *s}}
}
