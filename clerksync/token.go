package clerksync

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/go-jose/go-jose/v3"
	josejson "github.com/go-jose/go-jose/v3/json"
	"github.com/go-jose/go-jose/v3/jwt"
)

const (
	// signatureAlgorithm is the only one Clerk signs with.
	signatureAlgorithm = string(jose.RS256)
	// sessionCategory is the "cat" header of a session token. Older tokens have
	// none. See Clerk's token categories in clerk/javascript.
	sessionCategory = "cl_B7d4PD111AAA"
	// maxTokenBytes is far more than any session token has; a cookie holds 4096.
	maxTokenBytes = 16 << 10
)

// otherCategories are the tokens that Clerk signs with the same keys.
var otherCategories = map[string]string{
	"cl_B7d4PD222AAA": "a JWT template's token",
	"cl_B7d4PD333AAA": "a machine's token",
}

// opaquePrefixes are of tokens of Clerk's that are no JWT.
var opaquePrefixes = map[string]string{
	"mt_":  "an opaque machine token",
	"oat_": "an opaque OAuth token",
	"ak_":  "an API key",
}

// session is a verified session token; immutable.
type session struct {
	claims    *clerk.SessionClaims
	keys      uint64 // the generation of the keys that verified it
	freshness freshness
}

// unauthenticated is the 401 of a token that was sent and is refused.
func unauthenticated(code, why string) error {
	return &Problem{Status: http.StatusUnauthorized, Code: code, Err: fmt.Errorf("%w: %s", ErrUnauthenticated, why)}
}

// verifyToken checks a token in full. The order of the checks is part of the
// answer's code: form and class, key and
// signature, class again by the claims, issuer, party, state, time.
func (s *Syncer) verifyToken(ctx context.Context, token string) (*session, error) {
	for prefix, class := range opaquePrefixes {
		if strings.HasPrefix(token, prefix) {
			return nil, unauthenticated(codeTokenWrongClass, class)
		}
	}
	if len(token) > maxTokenBytes || !compactForm(token) {
		return nil, unauthenticated(codeTokenMalformed, "not a JWT in the compact form")
	}
	parsed, err := jwt.ParseSigned(token)
	if err != nil || len(parsed.Headers) != 1 {
		return nil, unauthenticated(codeTokenMalformed, "not a JWT")
	}
	header := parsed.Headers[0]
	if header.Algorithm != signatureAlgorithm {
		return nil, unauthenticated(codeBadSignature, "not signed with "+signatureAlgorithm)
	}
	if err := checkHeaderClass(header); err != nil {
		return nil, err
	}
	key, keys, err := s.keys.key(ctx, header.KeyID)
	if err != nil {
		return nil, err
	}

	claims, more := &clerk.SessionClaims{}, &moreClaims{}
	dest := []any{claims, more}
	if s.cfg.Auth.CustomClaims != nil {
		claims.Custom = s.cfg.Auth.CustomClaims(ctx)
		if v := reflect.ValueOf(claims.Custom); v.Kind() != reflect.Pointer || v.IsNil() {
			return nil, &Problem{Status: http.StatusInternalServerError, Code: codeInternal, Err: errors.New("clerksync: Config.Auth.CustomClaims must return a pointer to decode into")}
		}
		dest = append(dest, claims.Custom)
	}
	if err := parsed.Claims(key, dest...); err != nil {
		if errors.Is(err, jose.ErrCryptoFailure) {
			return nil, unauthenticated(codeBadSignature, "wrong signature")
		}
		return nil, unauthenticated(codeTokenMalformed, "its claims are not of the documented types")
	}
	more.complete(claims)
	session := &session{claims: claims, keys: keys.generation, freshness: more.freshness(s.cfg.Auth.FreshnessClaim)}
	if err := s.checkClaims(claims, more); err != nil {
		return nil, err
	}
	return session, session.validAt(s.clock.Now(), s.cfg.Auth.Leeway)
}

// compactForm reports whether a token is three parts of base64url. The parser takes
// white space, padding and the JSON form as well, whose headers need not be signed.
func compactForm(token string) bool {
	dots := 0
	for _, c := range []byte(token) {
		switch {
		case c == '.':
			dots++
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return dots == 2
}

// checkHeaderClass refuses tokens whose header says that they are no session's.
func checkHeaderClass(header jose.Header) error {
	if typ, ok := header.ExtraHeaders[jose.HeaderType]; ok && typ != "JWT" {
		return unauthenticated(codeTokenWrongClass, "not a session token by its typ, an OAuth token perhaps")
	}
	cat, ok := header.ExtraHeaders["cat"]
	if !ok || cat == sessionCategory {
		return nil
	}
	name, _ := cat.(string)
	class := otherCategories[name]
	if class == "" {
		class = "not a session token by its cat"
	}
	return unauthenticated(codeTokenWrongClass, class)
}

// checkClaims checks what does not change with time.
func (s *Syncer) checkClaims(c *clerk.SessionClaims, more *moreClaims) error {
	switch auth := &s.cfg.Auth; {
	case !validUserID(c.Subject):
		return unauthenticated(codeTokenWrongClass, "its subject is no user, a machine perhaps")
	case c.SessionID == "":
		return unauthenticated(codeTokenWrongClass, "it has no session, as a JWT template's token")
	case c.Expiry == nil:
		return unauthenticated(codeTokenMalformed, "it never expires")
	case more.Version != nil && *more.Version != 1 && *more.Version != 2:
		return unauthenticated(codeTokenMalformed, "its version is neither 1 nor 2")
	case auth.Issuer != "" && c.Issuer != auth.Issuer, auth.Issuer == "" && !clerkIssuer(c.Issuer):
		return unauthenticated(codeTokenWrongIssuer, "another issuer")
	case len(auth.AuthorizedParties) > 0 && !slices.Contains(auth.AuthorizedParties, c.AuthorizedParty):
		return unauthenticated(codeTokenWrongParty, "made for another origin, or for none")
	case more.Status == "pending" && !auth.AllowPending:
		return unauthenticated(codeSessionPending, "the session has open tasks")
	}
	return nil
}

// clerkIssuer reports whether iss has the form of a Frontend API URL of Clerk's:
// https://clerk.<domain> or https://<name>.clerk.accounts.dev.
func clerkIssuer(iss string) bool {
	u, err := url.Parse(iss)
	if err != nil || u.Scheme != "https" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.Port() != "" {
		return false
	}
	host := u.Hostname()
	name, development := strings.CutSuffix(host, ".clerk.accounts.dev")
	domain, production := strings.CutPrefix(host, "clerk.")
	return development && name != "" || production && strings.Contains(domain, ".")
}

// validAt checks what changes with time.
func (s *session) validAt(now time.Time, leeway time.Duration) error {
	late, early := now.Add(-leeway), now.Add(leeway)
	switch c := s.claims; {
	case late.After(time.Unix(*c.Expiry, 0)):
		return unauthenticated(codeTokenExpired, "expired")
	case c.NotBefore != nil && early.Before(time.Unix(*c.NotBefore, 0)):
		return unauthenticated(codeTokenNotYetValid, "not valid yet")
	case c.IssuedAt != nil && early.Before(time.Unix(*c.IssuedAt, 0)):
		return unauthenticated(codeTokenNotYetValid, "issued in the future")
	}
	return nil
}

// moreClaims are those that clerk.SessionClaims lacks, or has in another form.
type moreClaims struct {
	payload []byte

	Version      *int64 `json:"v"`
	Status       string `json:"sts"`
	Features     string `json:"fea"`
	Organization struct {
		ID          string `json:"id"`
		Slug        string `json:"slg"`
		Role        string `json:"rol"`
		Permissions string `json:"per"`
		Mappings    string `json:"fpm"`
	} `json:"o"`
	UpdatedAt json.RawMessage `json:"updated_at"`
}

// UnmarshalJSON refuses ambiguous names. It also keeps the payload, for the claim
// whose name is configured.
func (m *moreClaims) UnmarshalJSON(payload []byte) error {
	if mayBeAmbiguous(payload) {
		var all map[string]josejson.RawMessage
		if err := josejson.Unmarshal(payload, &all); err != nil { // it refuses a name that comes twice
			return err
		}
		for name := range all {
			if standard := standardClaim([]byte(name)); standard >= 0 && string(standardClaims[standard]) != name {
				return errors.New("a custom claim has a standard one's name in other case")
			}
		}
	}
	type plain moreClaims
	m.payload = payload
	return json.Unmarshal(payload, (*plain)(m))
}

// freshness reads the claim that carries the record's version.
func (m *moreClaims) freshness(claim string) freshness {
	if claim == defaultFreshnessClaim {
		return parseFreshness(m.UpdatedAt)
	}
	var all map[string]json.RawMessage
	_ = json.Unmarshal(m.payload, &all) // has been decoded before
	return parseFreshness(all[claim])
}

// standardClaims are the names that Clerk gives a meaning.
var standardClaims = [][]byte{
	[]byte("iss"), []byte("sub"), []byte("aud"), []byte("exp"), []byte("nbf"), []byte("iat"), []byte("jti"),
	[]byte("sid"), []byte("azp"), []byte("v"), []byte("act"), []byte("fva"), []byte("sts"), []byte("fea"), []byte("pla"), []byte("o"),
	[]byte("org_id"), []byte("org_slug"), []byte("org_role"), []byte("org_permissions"),
}

// standardClaim returns the place of a name in standardClaims, in any case of its
// letters, and -1 for any other.
func standardClaim(name []byte) int {
	return slices.IndexFunc(standardClaims, func(standard []byte) bool { return bytes.EqualFold(name, standard) })
}

// mayBeAmbiguous reports whether a claim's name may come twice, or in a case other
// than its own: the SDK's type takes a custom claim "Sub" for sub, and its value may
// be the user's to choose. It looks at all strings alike; payloads that pass need
// no closer look.
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
			return true // escaped, and may be anything
		}
		if i := standardClaim(text); i >= 0 {
			if seen&(1<<i) != 0 || !bytes.Equal(text, standardClaims[i]) {
				return true
			}
			seen |= 1 << i
		}
	}
}

// complete makes c what the SDK's own verification makes of the same token, so that
// handlers see no difference: the organization of version 2 is spread over the fields of
// version 1, and without an organization Version is 1.
func (m *moreClaims) complete(c *clerk.SessionClaims) {
	if m.Version == nil || *m.Version != 2 || m.Organization.ID == "" {
		c.Version = 1
		return
	}
	c.ActiveOrganizationID = m.Organization.ID
	c.ActiveOrganizationSlug = m.Organization.Slug
	c.ActiveOrganizationRole = "org:" + m.Organization.Role
	c.ActiveOrganizationPermissions = m.permissions()
}

// permissions unfolds version 2's organization permissions. For each feature of
// the organization, the number at the same place in fpm has a bit for each
// permission in per.
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
