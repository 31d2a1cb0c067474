package fakeclerk

import (
	"cmp"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
)

// TokenClass is a kind of token. The JWTs among them are signed with one and the same
// key, so that a verifier has to tell them apart by what they say.
type TokenClass int

const (
	// SessionToken is what a browser sends: cat cl_B7d4PD111AAA, sub user_…, sid sess_….
	SessionToken TokenClass = iota
	// TemplateToken comes from a JWT template: cat cl_B7d4PD222AAA, and no sid.
	TemplateToken
	// M2MToken is a machine's: cat cl_B7d4PD333AAA, sub mch_….
	M2MToken
	// OAuthToken is an OAuth access token: typ at+jwt, no cat, and no sid.
	OAuthToken
	// OpaqueM2MToken is no JWT: mt_….
	OpaqueM2MToken
	// OpaqueOAuthToken is no JWT: oat_….
	OpaqueOAuthToken
	// APIKey is no JWT: ak_….
	APIKey
)

// TokenOptions says which token [Server.Token] makes. The zero value is the session
// token that Clerk makes today.
type TokenOptions struct {
	_ [0]func() // fields are to be named

	// Class of the token. The opaque ones ignore all other options. Defaults to SessionToken.
	Class TokenClass

	// Version of the session claims: 1 (org_id, org_role, …) or 2 (v, sts, o). Defaults to 2.
	Version int

	// SessionID is sid. Defaults to a fresh "sess_" id.
	SessionID string

	// AuthorizedParty is azp, the origin of the frontend, such as
	// https://app.example.com. Defaults to no claim.
	AuthorizedParty string

	// Issuer is iss. Defaults to [Server.Issuer].
	Issuer string

	// IssuedAt is iat. Defaults to the server's time. Tokens count in whole seconds.
	IssuedAt time.Time

	// NotBefore is nbf. Defaults to 10 seconds before IssuedAt, as Clerk has it.
	NotBefore time.Time

	// ExpiresAt is exp. Defaults to a minute after IssuedAt, in every class.
	ExpiresAt time.Time

	// Pending is a session with open tasks: sts "pending". Defaults to false.
	Pending bool

	// Actor is who acts in the user's name: act. Defaults to no claim.
	Actor *Actor

	// Organization is the active one. Defaults to none.
	Organization *Organization

	// Claims sets claims last: custom ones, or others in place of those above. A nil
	// value removes the claim, so {"sid": nil} is a token without sid. Defaults to
	// none.
	Claims map[string]any

	// Header does to the JOSE header what Claims does to the claims: {"cat": nil}.
	// Defaults to none.
	Header map[string]any

	// KeyID is kid, whatever key signs. Defaults to the signing key's own.
	KeyID string

	// Algorithm is RS256, or one of an attacker's: "none", with an empty signature, or
	// HS256, keyed with the public key as PEM. Defaults to RS256.
	Algorithm string

	// WrongKey signs with a key that is in no JWKS. Defaults to false.
	WrongKey bool
}

// Actor is who impersonates a user: the act claim.
type Actor struct {
	Subject   string // the actor's user id
	SessionID string // defaults to a fresh "sess_" id
	Issuer    string // defaults to https://dashboard.clerk.com
}

// Organization is the active organization of a session.
type Organization struct {
	ID   string // org_…
	Slug string
	Role string // org:admin, org:member, …

	// Permissions are custom ones of the form org:<feature>:<permission>.
	Permissions []string
}

// SessionToken returns an ordinary session token of the user, valid for a minute from
// now: the value of an Authorization header after "Bearer ", or of the __session
// cookie. Whether there is such a user isn't checked: a deleted user's token lives on
// too.
func (s *Server) SessionToken(userID string) string {
	token, err := s.Token(userID, TokenOptions{})
	if err != nil {
		panic(err) // an ordinary token always encodes
	}
	return token
}

// Token returns a token whose subject is userID, which may be anything. M2M tokens want
// a machine's id, and get a fresh "mch_" one where it is empty. The errors are an
// unknown class, version or algorithm, and claims that are not what encoding/json
// takes.
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
		key = signingKey("") // no instance has this kid
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

// sign makes a compact JWS. It is no library's work, as no library makes the forged ones.
func sign(header, claims map[string]any, algorithm string, key *rsa.PrivateKey) (string, error) {
	h, err := json.Marshal(header)
	if err != nil {
		return "", fmt.Errorf("fakeclerk: token header: %w", err)
	}
	c, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("fakeclerk: token claims: %w", err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	input := encode(h) + "." + encode(c)
	var signature []byte
	switch algorithm {
	case "RS256":
		digest := sha256.Sum256([]byte(input))
		if signature, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:]); err != nil {
			return "", fmt.Errorf("fakeclerk: %w", err)
		}
	case "HS256":
		mac := hmac.New(sha256.New, []byte(publicPEM(key)))
		mac.Write([]byte(input))
		signature = mac.Sum(nil)
	case "none":
	default:
		return "", fmt.Errorf("fakeclerk: unknown token algorithm %q", algorithm)
	}
	return input + "." + encode(signature), nil
}
