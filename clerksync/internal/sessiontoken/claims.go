package sessiontoken

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/clerk/clerk-sdk-go/v2"
	josejson "github.com/go-jose/go-jose/v3/json"
)

// moreClaims are the claims that clerk.SessionClaims lacks, or has in another form.
type moreClaims struct {
	payload []byte

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

// UnmarshalJSON fails if a name is ambiguous. It also keeps the payload, for the claim
// whose name is configured.
func (m *moreClaims) UnmarshalJSON(payload []byte) error {
	if mayBeAmbiguous(payload) {
		var all map[string]josejson.RawMessage
		if err := josejson.Unmarshal(payload, &all); err != nil { // it rejects a name that comes twice
			return err
		}
		for name := range all {
			if standard := standardClaim([]byte(name)); standard >= 0 && string(standardClaims[standard]) != name {
				return errors.New("a custom claim has the name of a standard one in another case")
			}
		}
	}
	type plain moreClaims
	m.payload = payload
	return json.Unmarshal(payload, (*plain)(m))
}

// version reads the claim that carries the user's version.
func (m *moreClaims) version(claim string) Version {
	if claim == DefaultVersionClaim {
		return ParseVersion(m.UpdatedAt)
	}
	var all map[string]json.RawMessage
	_ = json.Unmarshal(m.payload, &all) // it was decoded before
	return ParseVersion(all[claim])
}

// standardClaims are the names that Clerk gives a meaning.
var standardClaims = [][]byte{
	[]byte("iss"), []byte("sub"), []byte("aud"), []byte("exp"), []byte("nbf"), []byte("iat"), []byte("jti"),
	[]byte("sid"), []byte("azp"), []byte("v"), []byte("act"), []byte("fva"), []byte("sts"), []byte("fea"), []byte("pla"), []byte("o"),
	[]byte("org_id"), []byte("org_slug"), []byte("org_role"), []byte("org_permissions"),
}

// standardClaim returns the index of a name in standardClaims, in any case of its letters;
// -1 for any other name.
func standardClaim(name []byte) int {
	return slices.IndexFunc(standardClaims, func(standard []byte) bool { return bytes.EqualFold(name, standard) })
}

// mayBeAmbiguous reports whether a claim's name may come twice, or in another case. The
// SDK's type takes a custom claim "Sub" for sub, and the user may choose its value. It
// checks keys and values alike, so it may report true needlessly, but never false wrongly.
func mayBeAmbiguous(payload []byte) bool {
	var seen uint64
	for {
		start := bytes.IndexByte(payload, '"')
		if start < 0 {
			return false
		}
		payload = payload[start+1:]
		end := bytes.IndexByte(payload, '"')
		if end < 0 {
			return true
		}
		text := payload[:end]
		payload = payload[end+1:]
		if bytes.IndexByte(text, '\\') >= 0 {
			return true // escaped, so it may be anything
		}
		if i := standardClaim(text); i >= 0 {
			if seen&(1<<i) != 0 || !bytes.Equal(text, standardClaims[i]) {
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
