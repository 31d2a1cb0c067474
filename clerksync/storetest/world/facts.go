package world

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// facts is what Clerk owns in a record, and the version. It is comparable.
type facts struct {
	Email, Name, First, Last, Full, Image, Phone, Birthday, Gender, Plan string

	EmailVerified, PhoneVerified, Banned bool
	Created, Version                     int64
}

// factsOfClerk maps Clerk's JSON by the documented rules. It does not use clerksync's own mapping,
// which it checks. role is what RoleOf returns.
func factsOfClerk(raw json.RawMessage) (f facts, role clerksync.Role, lastSignIn int64) {
	type identifier struct {
		ID           string
		Email        string `json:"email_address"`
		Phone        string `json:"phone_number"`
		Verification *struct{ Status string }
	}
	var u struct {
		First         string         `json:"first_name"`
		Last          string         `json:"last_name"`
		Image         string         `json:"image_url"`
		Emails        []identifier   `json:"email_addresses"`
		Phones        []identifier   `json:"phone_numbers"`
		PrimaryEmail  string         `json:"primary_email_address_id"`
		PrimaryPhone  string         `json:"primary_phone_number_id"`
		Public        map[string]any `json:"public_metadata"`
		Unsafe        map[string]any `json:"unsafe_metadata"`
		Birthday      string
		Gender        string
		Banned        bool
		Deprovisioned bool
		Created       int64 `json:"created_at"`
		Updated       int64 `json:"updated_at"`
		SignedIn      int64 `json:"last_sign_in_at"`
	}
	if err := json.Unmarshal(raw, &u); err != nil {
		panic(err) // fakeclerk's own JSON
	}
	f = facts{
		First: u.First, Last: u.Last, Name: strings.TrimSpace(u.First + " " + u.Last), Image: u.Image,
		Banned: u.Banned || u.Deprovisioned, Created: u.Created, Version: u.Updated,
	}
	f.Full = f.Name
	for _, e := range u.Emails {
		if e.ID == u.PrimaryEmail {
			f.Email, f.EmailVerified = e.Email, e.Verification != nil && e.Verification.Status == "verified"
		}
	}
	for _, p := range u.Phones {
		if p.ID == u.PrimaryPhone {
			f.Phone, f.PhoneVerified = p.Phone, p.Verification != nil && p.Verification.Status == "verified"
		}
	}
	either := func(top, name string) string {
		for _, v := range []any{top, u.Public[name], u.Unsafe[name]} {
			if s, _ := v.(string); s != "" {
				return s
			}
		}
		return ""
	}
	f.Birthday, f.Gender = either(u.Birthday, "birthday"), either(u.Gender, "gender")
	f.Plan, _ = u.Public["plan"].(string)
	text, _ := u.Public["role"].(string)
	return f, clerksync.Role(text), u.SignedIn
}

// identityInClerk returns the external id of Clerk's JSON, and whether the user has proven to control the
// primary address. It knows the ways of verification that the world has.
func identityInClerk(raw json.RawMessage, email string) (externalID string, proven bool) {
	var u struct {
		ExternalID string `json:"external_id"`
		Primary    string `json:"primary_email_address_id"`
		Emails     []struct {
			ID           string
			Reserved     bool
			Verification struct{ Status, Strategy string }
		} `json:"email_addresses"`
		Accounts []struct {
			Email    string `json:"email_address"`
			Verified bool   `json:"email_address_verified"`
		} `json:"external_accounts"`
	}
	if err := json.Unmarshal(raw, &u); err != nil {
		panic(err) // fakeclerk's own JSON
	}
	for _, e := range u.Emails {
		if e.ID != u.Primary || e.Reserved || e.Verification.Status != "verified" {
			continue
		}
		switch e.Verification.Strategy {
		case "email_code", "email_link":
			proven = true
		case "from_oauth_google":
			for _, a := range u.Accounts {
				proven = proven || a.Verified && a.Email == email
			}
		}
	}
	return u.ExternalID, proven
}

// factsOfRecord returns the facts in a record.
func factsOfRecord(u *clerksync.User) facts {
	f := facts{
		Email: u.Email, Name: u.Name, First: u.Profile.FirstName, Last: u.Profile.LastName, Full: u.Profile.FullName,
		Image: u.Profile.ImageURL, Phone: u.Profile.PhoneNumber, Birthday: u.Profile.Birthday, Gender: u.Profile.Gender,
		EmailVerified: u.EmailVerified, PhoneVerified: u.PhoneVerified, Banned: u.Banned,
		Created: ms(u.ClerkCreatedAt), Version: ms(u.ClerkUpdatedAt),
	}
	f.Plan, _ = u.Extra["plan"].(string)
	return f
}

// ms returns a time in milliseconds, 0 for none.
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// recordKey is a whole record in a comparable form.
type recordKey struct {
	facts    facts
	Role     clerksync.Role
	Location clerksync.Location
	Active   bool

	// In milliseconds, 0 for none.
	SignedIn, Synced, Deleted, RecordCreated, Updated int64
}

func keyOf(u *clerksync.User) recordKey {
	k := recordKey{
		facts: factsOfRecord(u), Role: u.Role, Active: u.IsActive,
		SignedIn: ms(u.LastSignInAt), Synced: ms(u.SyncedAt), Deleted: ms(u.DeletedAt),
		RecordCreated: ms(u.CreatedAt), Updated: ms(u.UpdatedAt),
	}
	if u.Location != nil {
		k.Location = *u.Location
	}
	return k
}

// barred reports whether the record bars its user.
func (k *recordKey) barred() bool { return !k.Active || k.facts.Banned || k.Deleted != 0 }

// bannedOnly reports whether the user is banned and not deleted.
func (k *recordKey) bannedOnly() bool { return k.facts.Banned && k.Deleted == 0 }
