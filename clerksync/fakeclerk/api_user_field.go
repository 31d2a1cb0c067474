package fakeclerk

import (
	"encoding/json"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
)

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
