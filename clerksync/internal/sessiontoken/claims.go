package sessiontoken

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/clerk/clerk-sdk-go/v2"
	josejson "github.com/go-jose/go-jose/v3/json"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
)

// moreClaims are the claims of clerk.SessionClaims without the registered ones, and claims that it
// lacks or has in another form.
type moreClaims struct {
	clerk.Claims

	FormatVersion *int64 `json:"v"`
	Status        string `json:"sts"`
	Features      string `json:"fea"`
	Organization  struct {
		ID          string `json:"id"`
		Slug        string `json:"slg"`
		Role        string `json:"rol"`
		Permissions string `json:"per"`
		Mappings    string `json:"fpm"`
	} `json:"o"`
	UpdatedAt json.RawMessage `json:"updated_at"`
}

// decodeClaims decodes all claims but the app's own. It fails if the name of a standard one is
// ambiguous.
func decodeClaims(payload []byte) (*clerk.SessionClaims, *moreClaims, error) {
	if err := checkClaimNames(payload); err != nil {
		return nil, nil, err
	}
	claims, more := &clerk.SessionClaims{}, &moreClaims{}
	if err := claims.RegisteredClaims.UnmarshalJSON(payload); err != nil {
		return nil, nil, err
	}
	if err := json.Unmarshal(payload, more); err != nil {
		return nil, nil, err
	}
	claims.Claims = more.Claims
	more.complete(claims)
	return claims, more, nil
}

// checkClaimNames returns an error if a standard claim comes twice, or under its name in another
// case. The SDK's type takes a custom claim "Sub" for sub, and the user may choose
// its value.
func checkClaimNames(payload []byte) error {
	if !mayBeAmbiguous(payload, standardClaims) {
		return nil
	}
	var all map[string]josejson.RawMessage
	if err := josejson.Unmarshal(payload, &all); err != nil { // it rejects a name that comes twice
		return err
	}
	for name := range all {
		if i := indexFold(standardClaims, []byte(name)); i >= 0 && string(standardClaims[i]) != name {
			return errors.New("a custom claim has the name of a standard one in another case")
		}
	}
	return nil
}

// version reads the claim that carries the user's version.
func (m *moreClaims) version(payload []byte, claim string) Version {
	if claim == DefaultVersionClaim {
		return ParseVersion(m.UpdatedAt)
	}
	var all map[string]json.RawMessage
	_ = json.Unmarshal(payload, &all) // it was decoded before
	return ParseVersion(all[claim])
}

// standardClaims are the names that Clerk gives a meaning.
var standardClaims = [][]byte{
	[]byte("iss"), []byte("sub"), []byte("aud"), []byte("exp"), []byte("nbf"), []byte("iat"), []byte("jti"),
	[]byte("sid"), []byte("azp"), []byte("v"), []byte("act"), []byte("fva"), []byte("sts"), []byte("fea"), []byte("pla"), []byte("o"),
	[]byte("org_id"), []byte("org_slug"), []byte("org_role"), []byte("org_permissions"),
}

// indexFold returns the index of a name in names, in any case of its letters; -1 for any other
// name. Two ASCII names that differ only in case have the same length; other names may not.
func indexFold(names [][]byte, name []byte) int {
	ascii := !slices.ContainsFunc(name, func(c byte) bool { return c >= utf8.RuneSelf })
	return slices.IndexFunc(names, func(n []byte) bool {
		return (len(n) == len(name) || !ascii) && bytes.EqualFold(name, n)
	})
}

// mayBeAmbiguous reports whether one of the names may come twice in a JSON object, or in
// another case. It checks keys and values alike, so it may report true needlessly, but never
// false wrongly.
func mayBeAmbiguous(object []byte, names [][]byte) bool {
	var seen uint64
	for {
		start := bytes.IndexByte(object, '"')
		if start < 0 {
			return false
		}
		object = object[start+1:]
		end := bytes.IndexByte(object, '"')
		if end < 0 {
			return true
		}
		text := object[:end]
		object = object[end+1:]
		if bytes.IndexByte(text, '\\') >= 0 {
			return true // escaped, so it may be anything
		}
		if i := indexFold(names, text); i >= 0 {
			if seen&(1<<i) != 0 || !bytes.Equal(text, names[i]) {
				return true
			}
			seen |= 1 << i
		}
	}
}

// complete makes c equal to what the SDK's own verification returns for the same token:
// the organization of format version 2 fills the fields of version 1, and without an
// organization Version is 1.
func (m *moreClaims) complete(c *clerk.SessionClaims) {
	if m.FormatVersion == nil || *m.FormatVersion != 2 || m.Organization.ID == "" {
		c.Version = 1
		return
	}
	c.Version = 2
	c.ActiveOrganizationID = m.Organization.ID
	c.ActiveOrganizationSlug = m.Organization.Slug
	c.ActiveOrganizationRole = "org:" + m.Organization.Role
	c.ActiveOrganizationPermissions = m.permissions()
}

// permissions unfolds the organization permissions of format version 2. For each feature
// of the organization, the number at the same place in fpm has a bit for each permission
// in per.
func (m *moreClaims) permissions() []string {
	names, mappings := strings.Split(m.Organization.Permissions, ","), strings.Split(m.Organization.Mappings, ",")
	permissions := make([]string, 0)
	for i, feature := range strings.Split(m.Features, ",") {
		scope, name, ok := strings.Cut(feature, ":")
		if !ok || !strings.Contains(scope, "o") || i >= len(mappings) {
			continue
		}
		name, _, _ = strings.Cut(name, ":")
		mapping, err := strconv.Atoi(mappings[i])
		if err != nil || mapping < 0 || mapping>>len(names) != 0 {
			continue
		}
		for j := range names {
			if mapping>>j&1 == 1 {
				permissions = append(permissions, "org:"+name+":"+names[j])
			}
		}
	}
	return permissions
}

// Version is what a session token says about the user's version: Clerk's updated_at when
// the token was made. The zero Version says nothing.
type Version struct {
	At        time.Time
	InSeconds bool // At is rounded down: it cannot tell apart two changes in one second
}

const (
	// DefaultVersionClaim is the claim that carries the version unless the app names another.
	DefaultVersionClaim = "updated_at"
	// maxAhead is how far ahead of the clock a version may be.
	maxAhead = 24 * time.Hour
	// secondsSettle is how long after a version in seconds a record must be confirmed. Then it
	// has every change of that second; the version does not tell which of them it includes.
	secondsSettle = 2 * time.Second
)

// ParseVersion reads a claim: a number, or its digits in a string, in seconds or
// milliseconds since 1970. Anything else says nothing.
func ParseVersion(claim json.RawMessage) Version {
	text := string(claim)
	if unquoted := ""; json.Unmarshal(claim, &unquoted) == nil {
		text = unquoted
	}
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil || n <= 0:
		return Version{}
	case n < clerkapi.SecondsBelow:
		return Version{time.Unix(n, 0).UTC(), true}
	default:
		return Version{time.UnixMilli(n).UTC(), false}
	}
}

// Usable returns v, or the zero Version if v is more than a day ahead of the clock.
func (v Version) Usable(now time.Time) Version {
	if v.At.After(now.Add(maxAhead)) {
		return Version{}
	}
	return v
}

// NewerThan reports whether a record of the version updatedAt is certainly out of date.
func (v Version) NewerThan(updatedAt time.Time) bool {
	if v.At.IsZero() {
		return false
	}
	if v.InSeconds {
		return v.At.Unix() > updatedAt.Unix()
	}
	return v.At.UnixMilli() > updatedAt.UnixMilli()
}

// Matches reports whether the token says that a record with version updatedAt, last
// confirmed at syncedAt, is up to date.
func (v Version) Matches(updatedAt, syncedAt time.Time) bool {
	if v.At.IsZero() {
		return false
	}
	if v.InSeconds {
		return v.At.Unix() == updatedAt.Unix() && !syncedAt.Before(v.At.Add(secondsSettle))
	}
	return v.At.UnixMilli() == updatedAt.UnixMilli()
}
