package fakeclerk

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// TokenClass is a kind of token. All the JWTs among them are signed with the same key, so a verifier
// has to tell them apart by their header and claims.
type TokenClass int

const (
	// SessionToken is what a browser sends: cat cl_B7d4PD111AAA, sub user_…, sid sess_….
	SessionToken TokenClass = iota
	// TemplateToken is made from a JWT template: cat cl_B7d4PD222AAA, without sid.
	TemplateToken
	// M2MToken is a machine's token: cat cl_B7d4PD333AAA, sub mch_….
	M2MToken
	// OAuthToken is an OAuth access token: typ at+jwt, without cat and sid.
	OAuthToken
	// OpaqueM2MToken is a machine's token that is not a JWT: mt_….
	OpaqueM2MToken
	// OpaqueOAuthToken is an OAuth access token that is not a JWT: oat_….
	OpaqueOAuthToken
	// APIKey is not a JWT: ak_….
	APIKey
)

// TokenOptions selects the token that [Server.Token] makes. The zero value is a session token as Clerk
// makes it today, valid for a minute.
type TokenOptions struct {
	_ [0]func() // requires field names in literals

	// Class is the kind of token. The opaque kinds ignore all other options, and Version, SessionID,
	// Pending, Actor and Organization apply only to session tokens. Defaults to SessionToken.
	Class TokenClass

	// Version is the version of the session claims: 1 (org_id, org_role, …) or 2 (v, sts, o). Defaults to
	// 2. See https://clerk.com/docs/guides/sessions/session-tokens.
	Version int

	// SessionID is the sid claim. Defaults to a fresh "sess_" id.
	SessionID string

	// AuthorizedParty is the azp claim: the origin of the frontend, such as https://app.example.com.
	// Defaults to no claim.
	AuthorizedParty string

	// Issuer is the iss claim. Defaults to [Server.Issuer].
	Issuer string

	// IssuedAt is the iat claim. Tokens hold whole seconds: the rest is cut off. Defaults to the server's
	// time.
	IssuedAt time.Time

	// NotBefore is the nbf claim. Defaults to 10 seconds before IssuedAt, as at Clerk.
	NotBefore time.Time

	// ExpiresAt is the exp claim. Defaults to one minute after IssuedAt, in every class.
	ExpiresAt time.Time

	// Pending makes the session one with open tasks: its sts claim is "pending". Defaults to false.
	Pending bool

	// Actor is who impersonates the user: the act claim. Defaults to no claim.
	Actor *Actor

	// Organization is the session's active organization. Defaults to none.
	Organization *Organization

	// Claims adds claims and replaces those that the options above set. A nil value removes a claim:
	// {"sid": nil} makes a token without sid. Defaults to none.
	Claims map[string]any

	// Header does the same for the JOSE header, such as {"cat": nil}. Defaults to none.
	Header map[string]any

	// KeyID is the kid in the header. It does not change which key signs. Defaults to the kid of the
	// signing key.
	KeyID string

	// Algorithm is RS256, or one that an attacker would try: "none", with an empty signature, or HS256,
	// with the public key in PEM as its secret. Defaults to RS256.
	Algorithm string

	// WrongKey signs with a key that is not in any JWKS. Defaults to false.
	WrongKey bool
}

// Actor is who impersonates a user: the act claim.
type Actor struct {
	Subject   string // the actor's user id
	SessionID string // the actor's session; defaults to a fresh "sess_" id
	Issuer    string // defaults to https://dashboard.clerk.com
}

// Organization is the active organization of a session.
type Organization struct {
	ID   string // org_…
	Slug string
	Role string // org:admin, org:member, …

	// Permissions are custom permissions of the form org:<feature>:<permission>. Defaults to none.
	Permissions []string
}

// SessionToken returns an ordinary session token for the user, valid for a minute from the server's
// time. Send it after "Bearer " in an Authorization header, or as the __session cookie. The user need
// not exist: at Clerk too, the token of a deleted user stays valid until it expires.
func (s *Server) SessionToken(userID string) string {
	token, err := s.Token(userID, TokenOptions{})
	if err != nil {
		panic(err) // an ordinary token always encodes
	}
	return token
}

// Token returns a token. userID becomes its sub claim and need not be the id of a user. For an M2M
// token, pass a machine's id; "" makes a fresh "mch_" id. Token returns an error if the class, version
// or algorithm is unknown, or if encoding/json cannot encode the claims or the header.
func (s *Server) Token(userID string, opts TokenOptions) (string, error) {
	switch opts.Class {
	case OpaqueM2MToken:
		return s.ids.id("mt_"), nil
	case OpaqueOAuthToken:
		return s.ids.id("oat_"), nil
	case APIKey:
		return s.ids.id("ak_"), nil
	}
	claims, err := s.claims(userID, opts)
	if err != nil {
		return "", err
	}
	kid := s.kid()
	key := signingKey(kid)
	if opts.WrongKey {
		key = signingKey("") // no instance has an empty kid
	}
	header := map[string]any{"alg": cmp.Or(opts.Algorithm, "RS256"), "kid": cmp.Or(opts.KeyID, kid), "typ": "JWT"}
	switch opts.Class {
	case SessionToken:
		header["cat"] = "cl_B7d4PD111AAA"
	case TemplateToken:
		header["cat"] = "cl_B7d4PD222AAA"
	case M2MToken:
		header["cat"] = "cl_B7d4PD333AAA"
	case OAuthToken:
		header["typ"] = "at+jwt"
	}
	override(header, opts.Header)
	return sign(header, claims, cmp.Or(opts.Algorithm, "RS256"), key)
}

// claims returns the claims of a JWT.
func (s *Server) claims(subject string, opts TokenOptions) (map[string]any, error) {
	iat := opts.IssuedAt
	if iat.IsZero() {
		iat = s.Now()
	}
	nbf, exp := opts.NotBefore, opts.ExpiresAt
	if nbf.IsZero() {
		nbf = iat.Add(-10 * time.Second)
	}
	if exp.IsZero() {
		exp = iat.Add(time.Minute)
	}
	c := map[string]any{
		"iss": cmp.Or(opts.Issuer, s.issuer),
		"sub": subject,
		"iat": iat.Unix(),
		"nbf": nbf.Unix(),
		"exp": exp.Unix(),
		"jti": hex.EncodeToString(s.ids.bytes(10)),
	}
	if opts.AuthorizedParty != "" {
		c["azp"] = opts.AuthorizedParty
	}
	switch opts.Class {
	case SessionToken:
		if err := s.sessionClaims(c, opts); err != nil {
			return nil, err
		}
	case TemplateToken:
	case M2MToken:
		c["sub"] = cmp.Or(subject, s.ids.id("mch_"))
		c["jti"] = s.ids.id("mt_")
	case OAuthToken:
		c["jti"] = s.ids.id("oat_")
		c["client_id"] = s.ids.id("client_")
		c["scope"] = "email profile"
	default:
		return nil, fmt.Errorf("fakeclerk: unknown token class %d", opts.Class)
	}
	override(c, opts.Claims)
	return c, nil
}

// sessionClaims adds the claims that only a session token has.
func (s *Server) sessionClaims(c map[string]any, opts TokenOptions) error {
	c["sid"] = cmp.Or(opts.SessionID, s.ids.id("sess_"))
	c["fva"] = [2]int{0, -1} // minutes since the first factor; -1: no second factor
	if a := opts.Actor; a != nil {
		c["act"] = map[string]any{
			"iss": cmp.Or(a.Issuer, "https://dashboard.clerk.com"),
			"sid": cmp.Or(a.SessionID, s.ids.id("sess_")),
			"sub": a.Subject,
		}
	}
	if opts.Pending {
		c["sts"] = "pending"
	}
	o := opts.Organization
	switch opts.Version {
	case 1:
		if o != nil {
			c["org_id"], c["org_slug"], c["org_role"] = o.ID, o.Slug, o.Role
			c["org_permissions"] = orEmpty(o.Permissions)
		}
	case 0, 2:
		c["v"] = 2
		if !opts.Pending {
			c["sts"] = "active"
		}
		if o != nil {
			claim, features := compactOrganization(o)
			c["o"] = claim
			if features != "" {
				c["fea"] = features
			}
		}
	default:
		return fmt.Errorf("fakeclerk: unknown version %d of the session claims", opts.Version)
	}
	return nil
}

// compactOrganization encodes an organization as version 2 of the session claims does. fea lists the
// features that the permissions are about. In the claim, per lists the permissions, and fpm holds a
// number for each feature: its bit i is set if the feature has the i-th permission. See
// https://clerk.com/docs/guides/sessions/session-tokens.
func compactOrganization(o *Organization) (claim map[string]any, fea string) {
	var features, permissions []string
	bits := make(map[string]int)
	for _, p := range o.Permissions {
		feature, permission, _ := strings.Cut(strings.TrimPrefix(p, "org:"), ":")
		if !slices.Contains(features, feature) {
			features = append(features, feature)
		}
		i := slices.Index(permissions, permission)
		if i < 0 {
			i = len(permissions)
			permissions = append(permissions, permission)
		}
		bits[feature] |= 1 << i
	}
	masks := make([]string, len(features))
	for i, feature := range features {
		masks[i] = fmt.Sprint(bits[feature])
		features[i] = "o:" + feature
	}
	claim = map[string]any{"id": o.ID, "slg": o.Slug, "rol": strings.TrimPrefix(o.Role, "org:")}
	if len(permissions) > 0 {
		claim["per"], claim["fpm"] = strings.Join(permissions, ","), strings.Join(masks, ",")
	}
	return claim, strings.Join(features, ",")
}

// override copies entries to a map. A nil value removes the entry.
func override(in, with map[string]any) {
	maps.Copy(in, with)
	maps.DeleteFunc(in, func(_ string, v any) bool { return v == nil })
}
