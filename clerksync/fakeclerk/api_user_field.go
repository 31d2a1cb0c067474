package fakeclerk

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
)

// fieldsOf decodes the JSON object in a request's body. If the body is not required and is empty, it
// returns no fields.
func fieldsOf(r *http.Request, required bool) (map[string]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	err := json.NewDecoder(r.Body).Decode(&fields)
	if errors.Is(err, io.EOF) && !required {
		return nil, nil
	}
	if err != nil {
		return nil, apiError{
			Code: "request_body_invalid", Message: "Request body invalid",
			LongMessage: "The request body is not a JSON object.", status: http.StatusBadRequest,
		}
	}
	return fields, nil
}

// param decodes a parameter. null leaves a value that is not a pointer unchanged.
func param[T any](name string, value json.RawMessage, to *T) error {
	if err := json.Unmarshal(value, to); err != nil {
		return badParam("format_invalid", name, "is of the wrong type")
	}
	return nil
}

// text decodes a nullable string. An empty string is null too.
func text(name string, value json.RawMessage, to **string) error {
	*to = nil
	if err := param(name, value, to); err != nil {
		return err
	}
	*to = orNil(deref(*to))
	return nil
}

// setField sets a field of the user. POST and PATCH both take these fields.
func setField(u *UserObject, name string, value json.RawMessage) error {
	if set, ok := fieldSetters[name]; ok {
		return set(u, name, value)
	}
	if ignoredParams[name] {
		return nil
	}
	return badParam("unknown", name, "is not a valid parameter for this request")
}

// fieldSetters are the parameters that setField takes, and what each does to the user.
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

// ignoredParams are parameters that fakeclerk accepts without effect. The effect of most of them would
// not show in a user object.
var ignoredParams = map[string]bool{
	"password_hasher": true, "skip_password_checks": true, "skip_password_requirement": true,
	"totp_secret": true, "backup_codes": true, "skip_legal_checks": true, "skip_user_requirement": true,
	"bypass_client_trust": true, "notify_primary_email_address_changed": true,
	"profile_image_id": true, "sign_out_of_other_sessions": true,
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

// metadata returns the metadata of a parameter's name, or nil if there is no such metadata.
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

// setMetadata decodes a parameter and combines it with the present metadata.
func setMetadata(
	to *json.RawMessage, name string, value json.RawMessage, combine func(old, patch map[string]any),
) error {
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

// replace makes old equal to patch.
func replace(old, patch map[string]any) {
	clear(old)
	maps.Copy(old, patch)
}

// merge merges patch into a map. A nil value removes the key.
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
