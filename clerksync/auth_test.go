package clerksync_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	clerkhttp "github.com/clerk/clerk-sdk-go/v2/http"
	"github.com/clerk/clerk-sdk-go/v2/jwks"
	"github.com/clerk/clerk-sdk-go/v2/jwt"
	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

const (
	appOrigin   = "https://app.example.com"
	otherOrigin = "https://evil.example.com"
	proxyURL    = "https://app.example.com/__clerk"
)

// sdkRequire is the SDK's own strict middleware, bound to the world's Clerk and clock.
func (fx *fixture) sdkRequire(next http.Handler, opts ...clerkhttp.AuthorizationOption) http.Handler {
	url, key := fx.clerk.APIURL(), fx.clerk.SecretKey()
	keys := jwks.NewClient(&clerk.ClientConfig{BackendConfig: clerk.BackendConfig{
		URL: &url, Key: &key, HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	}})
	bound := []clerkhttp.AuthorizationOption{clerkhttp.JWKSClient(keys), clerkhttp.Clock(fx.clock)}
	return clerkhttp.RequireHeaderAuthorization(append(bound, opts...)...)(next)
}

func (fx *fixture) token(t testing.TB, subject string, opts fakeclerk.TokenOptions) string {
	t.Helper()
	token, err := fx.clerk.Token(subject, opts)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// signer signs what no instance of Clerk's signs.
type signer struct {
	key *rsa.PrivateKey
	pem string
}

// testSigner is the one that JWTKey and the SDK's JSONWebKey are given in tests.
var testSigner = sync.OnceValue(func() *signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return &signer{key, publicPEM(&key.PublicKey)}
})

func publicPEM(key any) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

const sessionHeader = `{"alg":"RS256","cat":"cl_B7d4PD111AAA","kid":"ins_1","typ":"JWT"}`

// sign makes a token of this header and these claims, to the byte.
func (s *signer) sign(header, claims string) string {
	input := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	digest := sha256.Sum256([]byte(input))
	signature, err := rsa.SignPKCS1v15(nil, s.key, crypto.SHA256, digest[:])
	if err != nil {
		panic(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// claimsJSON is the JSON of a session that is good at t0, with more members at its end.
func claimsJSON(subject, more string) string {
	return fmt.Sprintf(`{"iss":"https://clerk.example.com","sub":%q,"sid":"sess_1","iat":%d,"nbf":%d,"exp":%d%s}`,
		subject, t0.Unix(), t0.Unix()-10, t0.Unix()+60, more)
}

// customClaims are an app's own.
type customClaims struct {
	Plan  string `json:"plan"`
	Seats int    `json:"seats"`
}

func newCustomClaims(context.Context) any { return &customClaims{} }

// authCase is one request, and what becomes of it in the SDK's middleware and ours.
type authCase struct {
	name    string
	auth    clerksync.AuthConfig            // ours
	sdk     []clerkhttp.AuthorizationOption // the same for the SDK, as far as it can
	subject string                          // defaults to a user whom Clerk knows
	opts    fakeclerk.TokenOptions
	claims  map[string]any // in place of opts.Claims
	change  func(token string) string
	raw     func(id string) string // a token not of fakeclerk's; testSigner signs
	header  func(token string) []string
	cookie  func(token string) string

	theirs, ours int
	code         string // of a refusal of ours
}

var (
	bearer     = func(token string) []string { return []string{"Bearer " + token} }
	noHeader   = func(string) []string { return nil }
	headerForm = func(format string) func(string) []string {
		return func(token string) []string { return []string{strings.ReplaceAll(format, "TOKEN", token)} }
	}
	sameToken = func(token string) string { return token }
	becomes   = func(token string) func(string) string { return func(string) string { return token } }
	inParts   = func(f func(header, payload, signature string) string) func(string) string {
		return func(token string) string {
			p := strings.Split(token, ".")
			return f(p[0], p[1], p[2])
		}
	}
)

// spareBits sets bits of a base64url text's last character that stand for nothing.
func spareBits(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	i := strings.IndexByte(alphabet, s[len(s)-1]) // -1 where the text is no base64url
	if i < 0 || len(s)%4 < 2 {
		return s // none are spare
	}
	return s[:len(s)-1] + string(alphabet[i^1])
}

// tampered replaces a text in the decoded part.
func tampered(part, old, with string) string {
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil || !strings.Contains(string(b), old) {
		panic(fmt.Sprintf("%q is not in %s", old, b))
	}
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(b), old, with, 1)))
}

func authCases() []authCase {
	type opts = fakeclerk.TokenOptions
	type sdk = []clerkhttp.AuthorizationOption
	type claims = map[string]any
	at := func(seconds int) time.Time { return t0.Add(time.Duration(seconds) * time.Second) }
	org := &fakeclerk.Organization{ID: "org_1", Slug: "acme", Role: "org:admin", Permissions: []string{"org:posts:read", "org:posts:write", "org:users:ban"}}
	parties := clerksync.AuthConfig{AuthorizedParties: []string{appOrigin, "http://localhost:3000"}}
	sdkParties := sdk{clerkhttp.AuthorizedPartyMatches(appOrigin, "http://localhost:3000")}
	cookies := clerksync.AuthConfig{Cookie: true, AuthorizedParties: []string{appOrigin}}
	own := clerksync.AuthConfig{JWTKey: testSigner().pem}
	sdkOwn := sdk{clerkhttp.JSONWebKey(testSigner().pem)}
	raw := func(header, payload string) func(string) string {
		return func(id string) string {
			return testSigner().sign(header, strings.ReplaceAll(payload, "ID", id))
		}
	}

	cases := []authCase{
		// Accepted by both.
		{name: "ordinary", theirs: 200, ours: 200},
		{name: "with an organization", opts: opts{Organization: org}, theirs: 200, ours: 200},
		{name: "with an organization without permissions", opts: opts{Organization: &fakeclerk.Organization{ID: "org_1", Slug: "acme", Role: "org:member"}}, theirs: 200, ours: 200},
		{name: "custom claims, unread", claims: claims{"plan": "pro", "nested": claims{"a": []int{1}}}, theirs: 200, ours: 200},
		{name: "custom claims", auth: clerksync.AuthConfig{CustomClaims: newCustomClaims}, sdk: sdk{clerkhttp.CustomClaimsConstructor(newCustomClaims)},
			claims: claims{"plan": "pro", "seats": 7}, theirs: 200, ours: 200},
		{name: "custom claims of another type", auth: clerksync.AuthConfig{CustomClaims: newCustomClaims}, sdk: sdk{clerkhttp.CustomClaimsConstructor(newCustomClaims)},
			claims: claims{"seats": "many"}, theirs: 401, ours: 401, code: "token_malformed"},
		{name: "impersonation", opts: opts{Actor: &fakeclerk.Actor{Subject: "user_actor"}}, theirs: 200, ours: 200},
		{name: "act null", auth: own, sdk: sdkOwn, raw: raw(sessionHeader, claimsJSON("ID", `,"v":2,"act":null`)), theirs: 200, ours: 200},
		{name: "audience, one", claims: claims{"aud": "https://api.example.com"}, theirs: 200, ours: 200},
		{name: "audience, several", claims: claims{"aud": []string{"a", "b"}}, theirs: 200, ours: 200},
		{name: "no nbf, iat, jti, fva", claims: claims{"nbf": nil, "iat": nil, "jti": nil, "fva": nil}, theirs: 200, ours: 200},
		{name: "no cat", opts: opts{Header: claims{"cat": nil}}, theirs: 200, ours: 200},
		{name: "no typ", opts: opts{Header: claims{"typ": nil}}, theirs: 200, ours: 200},
		{name: "networkless", auth: own, sdk: sdkOwn, raw: raw(sessionHeader, claimsJSON("ID", `,"v":2`)), theirs: 200, ours: 200},
		{name: "custom claims that look like others but for case", auth: own, sdk: sdkOwn,
			raw:    raw(sessionHeader, claimsJSON("ID", `,"v":2,"O":{"id":"org_evil","rol":"admin"},"FEA":["a"],"Sts":5,"o":{"id":"org_1","rol":"member"}`)),
			theirs: 200, ours: 401, code: "token_malformed"},
		{name: "custom claim Sub", auth: own, sdk: sdkOwn, raw: raw(sessionHeader, claimsJSON("user_mallory", `,"Sub":"ID"`)), theirs: 200, ours: 401, code: "token_malformed"},
		{name: "custom claim Sid", auth: own, sdk: sdkOwn, raw: raw(sessionHeader, claimsJSON("ID", `,"Sid":"sess_2"`)), theirs: 200, ours: 401, code: "token_malformed"},
		{name: "custom claim Iss", auth: own, sdk: sdkOwn, raw: raw(sessionHeader, claimsJSON("ID", `,"Iss":"https://clerk.example.org"`)), theirs: 200, ours: 401, code: "token_malformed"},
		{name: "custom claim AZP", auth: clerksync.AuthConfig{JWTKey: testSigner().pem, AuthorizedParties: []string{appOrigin}}, sdk: append(sdkParties, sdkOwn...),
			raw: raw(sessionHeader, claimsJSON("ID", `,"azp":"`+otherOrigin+`","AZP":"`+appOrigin+`"`)), theirs: 200, ours: 401, code: "token_malformed"},
		{name: "custom claim Exp", auth: own, sdk: sdkOwn, raw: raw(sessionHeader, claimsJSON("ID", `,"Exp":99999999999`)), theirs: 200, ours: 401, code: "token_malformed"},
		{name: "custom claim Exp, null", auth: own, sdk: sdkOwn, raw: raw(sessionHeader, claimsJSON("ID", `,"Exp":null`)), theirs: 200, ours: 401, code: "token_malformed"},
		{name: "custom claim Exp, the same", auth: own, sdk: sdkOwn, raw: raw(sessionHeader, claimsJSON("ID", fmt.Sprintf(`,"Exp":%d`, t0.Unix()+60))), theirs: 200, ours: 401, code: "token_malformed"},
		{name: "custom claim sub with a long s", auth: own, sdk: sdkOwn, raw: raw(sessionHeader, claimsJSON("user_mallory", ",\"\u017fub\":\"ID\"")), theirs: 200, ours: 401, code: "token_malformed"},

		// The party.
		{name: "azp, no parties set", opts: opts{AuthorizedParty: otherOrigin}, theirs: 200, ours: 200},
		{name: "azp right", auth: parties, sdk: sdkParties, opts: opts{AuthorizedParty: appOrigin}, theirs: 200, ours: 200},
		{name: "azp right, the second", auth: parties, sdk: sdkParties, opts: opts{AuthorizedParty: "http://localhost:3000"}, theirs: 200, ours: 200},
		{name: "azp wrong", auth: parties, sdk: sdkParties, opts: opts{AuthorizedParty: otherOrigin}, theirs: 401, ours: 401, code: "token_wrong_party"},
		{name: "azp missing", auth: parties, sdk: sdkParties, theirs: 200, ours: 401, code: "token_wrong_party"},
		{name: "azp empty", auth: parties, sdk: sdkParties, claims: claims{"azp": ""}, theirs: 200, ours: 401, code: "token_wrong_party"},
		{name: "azp with a slash", auth: parties, sdk: sdkParties, opts: opts{AuthorizedParty: appOrigin + "/"}, theirs: 401, ours: 401, code: "token_wrong_party"},
		{name: "azp in other case", auth: parties, sdk: sdkParties, opts: opts{AuthorizedParty: "https://APP.example.com"}, theirs: 401, ours: 401, code: "token_wrong_party"},
		{name: "azp that goes on", auth: parties, sdk: sdkParties, opts: opts{AuthorizedParty: appOrigin + ".evil.com"}, theirs: 401, ours: 401, code: "token_wrong_party"},

		// The times. By default the SDK has no leeway.
		{name: "no exp", claims: claims{"exp": nil}, theirs: 200, ours: 401, code: "token_malformed"},
		{name: "exp null", claims: claims{"exp": json.RawMessage("null")}, theirs: 200, ours: 401, code: "token_malformed"},
		{name: "exp no number", claims: claims{"exp": "soon"}, theirs: 403, ours: 401, code: "token_malformed"},
		{name: "expired, within the leeway", opts: opts{IssuedAt: at(-65)}, theirs: 401, ours: 200},
		{name: "expired", opts: opts{IssuedAt: at(-66)}, theirs: 401, ours: 401, code: "token_expired"},
		{name: "expired, no leeway, to the second", auth: clerksync.AuthConfig{Leeway: -1}, opts: opts{IssuedAt: at(-60)}, theirs: 200, ours: 200},
		{name: "expired, no leeway", auth: clerksync.AuthConfig{Leeway: -1}, opts: opts{IssuedAt: at(-61)}, theirs: 401, ours: 401, code: "token_expired"},
		{name: "expired, within a long leeway", auth: clerksync.AuthConfig{Leeway: time.Minute}, sdk: sdk{clerkhttp.Leeway(time.Minute)}, opts: opts{IssuedAt: at(-120)}, theirs: 200, ours: 200},
		{name: "expired, past a long leeway", auth: clerksync.AuthConfig{Leeway: time.Minute}, sdk: sdk{clerkhttp.Leeway(time.Minute)}, opts: opts{IssuedAt: at(-121)}, theirs: 401, ours: 401, code: "token_expired"},
		{name: "expired in 1970", claims: claims{"exp": 0}, theirs: 401, ours: 401, code: "token_expired"},
		{name: "nbf ahead, within the leeway", opts: opts{NotBefore: at(5)}, theirs: 401, ours: 200},
		{name: "nbf ahead", opts: opts{NotBefore: at(6)}, theirs: 401, ours: 401, code: "token_not_yet_valid"},
		{name: "iat ahead, within the leeway", opts: opts{IssuedAt: at(5)}, theirs: 401, ours: 200},
		{name: "iat ahead", opts: opts{IssuedAt: at(6)}, theirs: 401, ours: 401, code: "token_not_yet_valid"},
		{name: "iat ahead, no leeway", auth: clerksync.AuthConfig{Leeway: -1}, opts: opts{IssuedAt: at(1)}, theirs: 401, ours: 401, code: "token_not_yet_valid"},

		// What is no session of a user's.
		{name: "no sub", claims: claims{"sub": nil}, theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "sub empty", claims: claims{"sub": ""}, theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "sub a machine's", subject: "mch_1", theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "sub only the prefix", subject: "user_", theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "sub a path", subject: "user_/../../jwks", theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "sub no text", claims: claims{"sub": 5}, theirs: 403, ours: 401, code: "token_malformed"},
		{name: "no sid", claims: claims{"sid": nil}, theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "sid empty", claims: claims{"sid": ""}, theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "sid no text", claims: claims{"sid": []int{1}}, theirs: 401, ours: 401, code: "token_malformed"},
		{name: "template token", opts: opts{Class: fakeclerk.TemplateToken}, theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "template token with a sid", opts: opts{Class: fakeclerk.TemplateToken}, claims: claims{"sid": "sess_1"}, theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "template token, no cat", opts: opts{Class: fakeclerk.TemplateToken, Header: claims{"cat": nil}}, theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "machine's token", subject: "mch_1", opts: opts{Class: fakeclerk.M2MToken}, theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "machine's token, no cat", subject: "mch_1", opts: opts{Class: fakeclerk.M2MToken, Header: claims{"cat": nil}}, theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "OAuth token", opts: opts{Class: fakeclerk.OAuthToken}, theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "OAuth token with a sid", opts: opts{Class: fakeclerk.OAuthToken}, claims: claims{"sid": "sess_1"}, theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "OAuth token, typ JWT", opts: opts{Class: fakeclerk.OAuthToken, Header: claims{"typ": "JWT"}}, theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "opaque machine token", opts: opts{Class: fakeclerk.OpaqueM2MToken}, theirs: 403, ours: 401, code: "token_wrong_class"},
		{name: "opaque OAuth token", opts: opts{Class: fakeclerk.OpaqueOAuthToken}, theirs: 403, ours: 401, code: "token_wrong_class"},
		{name: "API key", opts: opts{Class: fakeclerk.APIKey}, theirs: 403, ours: 401, code: "token_wrong_class"},
		{name: "cat unknown", opts: opts{Header: claims{"cat": "cl_unknown"}}, theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "cat no text", opts: opts{Header: claims{"cat": 1}}, theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "typ unknown", opts: opts{Header: claims{"typ": "dpop+jwt"}}, theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "typ no text", opts: opts{Header: claims{"typ": 1}}, theirs: 200, ours: 401, code: "token_wrong_class"},
		{name: "pending", opts: opts{Pending: true}, theirs: 200, ours: 401, code: "session_pending"},
		{name: "pending, allowed", auth: clerksync.AuthConfig{AllowPending: true}, opts: opts{Pending: true}, theirs: 200, ours: 200},
		{name: "v 3", claims: claims{"v": 3}, theirs: 200, ours: 401, code: "token_malformed"},
		{name: "v 0", claims: claims{"v": 0}, theirs: 200, ours: 401, code: "token_malformed"},
		{name: "v a text", claims: claims{"v": "2"}, theirs: 401, ours: 401, code: "token_malformed"},
		{name: "a user whom Clerk does not know", subject: "user_ghost", theirs: 200, ours: 403, code: "user_unknown"},

		// The signature.
		{name: "wrong key", opts: opts{WrongKey: true}, theirs: 401, ours: 401, code: "token_bad_signature"},
		{name: "unknown kid", opts: opts{KeyID: "ins_unknown"}, theirs: 401, ours: 401, code: "token_unknown_key"},
		{name: "no kid", opts: opts{Header: claims{"kid": nil}}, theirs: 401, ours: 401, code: "token_unknown_key"},
		{name: "kid no text", opts: opts{Header: claims{"kid": 1}}, theirs: 403, ours: 401, code: "token_malformed"},
		{name: "alg none", opts: opts{Algorithm: "none"}, theirs: 401, ours: 401, code: "token_bad_signature"},
		{name: "alg none, in capitals", opts: opts{Algorithm: "none", Header: claims{"alg": "NONE"}}, theirs: 401, ours: 401, code: "token_bad_signature"},
		{name: "alg HS256 with the public key", opts: opts{Algorithm: "HS256"}, theirs: 401, ours: 401, code: "token_bad_signature"},
		{name: "alg HS256 with the public key that is set", auth: own, sdk: sdkOwn, opts: opts{Algorithm: "HS256"}, theirs: 401, ours: 401, code: "token_bad_signature"},
		{name: "alg RS512", opts: opts{Header: claims{"alg": "RS512"}}, theirs: 401, ours: 401, code: "token_bad_signature"},
		{name: "no alg", opts: opts{Header: claims{"alg": nil}}, theirs: 401, ours: 401, code: "token_bad_signature"},
		{name: "a header that must be understood", opts: opts{Header: claims{"crit": []string{"x"}, "x": 1}}, theirs: 401, ours: 401, code: "token_bad_signature"},
		{name: "a key of its own", opts: opts{WrongKey: true, Header: claims{"jwk": json.RawMessage(`{"kty":"RSA","e":"AQAB","n":"` +
			base64.RawURLEncoding.EncodeToString(testSigner().key.N.Bytes()) + `"}`)}}, theirs: 401, ours: 401, code: "token_bad_signature"},
		{name: "payload changed", change: inParts(func(h, p, s string) string { return h + "." + tampered(p, `"sub":"user_`, `"sub":"user_x`) + "." + s }),
			theirs: 401, ours: 401, code: "token_bad_signature"},
		{name: "header changed", opts: opts{Class: fakeclerk.TemplateToken}, claims: claims{"sid": "sess_1"},
			change: inParts(func(h, p, s string) string { return tampered(h, "222", "111") + "." + p + "." + s }), theirs: 401, ours: 401, code: "token_bad_signature"},
		{name: "signature changed", change: inParts(func(h, p, s string) string { return h + "." + p + "." + tampered(s, "", "x") }), theirs: 401, ours: 401, code: "token_bad_signature"},
		{name: "signature cut off", change: inParts(func(h, p, s string) string { return h + "." + p + "." + s[:100] }), theirs: 401, ours: 401, code: "token_bad_signature"},
		{name: "no signature", change: inParts(func(h, p, _ string) string { return h + "." + p + "." }), theirs: 401, ours: 401, code: "token_bad_signature"},
		{name: "signature of another token", change: inParts(func(h, p, _ string) string {
			return h + "." + p + "." + strings.Split(testSigner().sign(sessionHeader, "{}"), ".")[2]
		}), theirs: 401, ours: 401, code: "token_bad_signature"},
		// Bits that stand for nothing are set: the bytes that were signed are the same.
		{name: "spare bits set", change: inParts(func(h, p, s string) string { return spareBits(h) + "." + spareBits(p) + "." + spareBits(s) }), theirs: 200, ours: 200},

		// The form.
		{name: "JSON form", change: inParts(func(h, p, s string) string {
			return `{"protected":"` + h + `","payload":"` + p + `","signature":"` + s + `"}`
		}), theirs: 200, ours: 401, code: "token_malformed"},
		{name: "JSON form with two dots in it", change: inParts(func(h, p, s string) string {
			return `{"protected":"` + h + `","payload":"` + p + `","signature":"` + s + `","x":".."}`
		}), theirs: 200, ours: 401, code: "token_malformed"},
		{name: "JSON form with an unprotected cat", opts: opts{Header: claims{"cat": nil}}, change: inParts(func(h, p, s string) string {
			return `{"protected":"` + h + `","header":{"cat":"cl_B7d4PD111AAA","x":".."},"payload":"` + p + `","signature":"` + s + `"}`
		}), theirs: 200, ours: 401, code: "token_malformed"},
		{name: "a dot more", change: func(token string) string { return token + "." }, theirs: 403, ours: 401, code: "token_malformed"},
		{name: "a part more", change: func(token string) string { return token + ".e30" }, theirs: 403, ours: 401, code: "token_malformed"},
		{name: "a part less", change: inParts(func(h, p, _ string) string { return h + "." + p }), theirs: 403, ours: 401, code: "token_malformed"},
		{name: "only dots", change: becomes(".."), theirs: 403, ours: 401, code: "token_bad_signature"},
		{name: "no header", change: inParts(func(_, p, s string) string { return "." + p + "." + s }), theirs: 401, ours: 401, code: "token_bad_signature"},
		{name: "no payload", change: inParts(func(h, _, s string) string { return h + ".." + s }), theirs: 403, ours: 401, code: "token_bad_signature"},
		{name: "white space in it", change: func(token string) string { return token[:50] + " \t" + token[50:] }, theirs: 200, ours: 401, code: "token_malformed"},
		{name: "no-break space in it", change: func(token string) string { return token[:50] + "\u00a0" + token[50:] }, theirs: 200, ours: 401, code: "token_malformed"},
		{name: "padded", change: func(token string) string { return token + "==" }, theirs: 200, ours: 401, code: "token_malformed"},
		{name: "in quotes", change: func(token string) string { return `"` + token + `"` }, theirs: 403, ours: 401, code: "token_malformed"},
		{name: "standard base64", change: becomes("eyJ+/w.e30.e30"), theirs: 403, ours: 401, code: "token_malformed"},
		{name: "no base64", change: becomes("!!!.???.%%%"), theirs: 403, ours: 401, code: "token_malformed"},
		{name: "no JSON", change: becomes("Zm9v.YmFy.YmF6"), theirs: 403, ours: 401, code: "token_malformed"},
		{name: "no JWT", change: becomes("token"), theirs: 403, ours: 401, code: "token_malformed"},
		{name: "encrypted", change: becomes("eyJhbGciOiJSU0EtT0FFUCJ9.e30.e30.e30.e30"), theirs: 403, ours: 401, code: "token_malformed"},
		{name: "huge", claims: claims{"plan": strings.Repeat("x", 16<<10)}, theirs: 200, ours: 401, code: "token_malformed"},
		{name: "large", claims: claims{"plan": strings.Repeat("x", 8<<10)}, theirs: 200, ours: 200},
		{name: "claims null", auth: own, sdk: sdkOwn, raw: raw(sessionHeader, "null"), theirs: 401, ours: 401, code: "token_wrong_class"},
		{name: "claims an array", auth: own, sdk: sdkOwn, raw: raw(sessionHeader, "[]"), theirs: 403, ours: 401, code: "token_malformed"},
		{name: "claims a text", auth: own, sdk: sdkOwn, raw: raw(sessionHeader, `"claims"`), theirs: 403, ours: 401, code: "token_malformed"},
		{name: "claims no JSON", auth: own, sdk: sdkOwn, raw: raw(sessionHeader, `{"sub":`), theirs: 403, ours: 401, code: "token_malformed"},
		{name: "a claim twice", auth: own, sdk: sdkOwn, raw: raw(sessionHeader, claimsJSON("user_evil", `,"sub":"ID"`)), theirs: 403, ours: 401, code: "token_malformed"},
		{name: "a claim twice, once escaped", auth: own, sdk: sdkOwn, raw: raw(sessionHeader, claimsJSON("user_evil", `,"s\u0075b":"ID"`)), theirs: 403, ours: 401, code: "token_malformed"},
		{name: "custom claim Sub, escaped", auth: own, sdk: sdkOwn, raw: raw(sessionHeader, claimsJSON("user_mallory", `,"\u0053ub":"ID"`)), theirs: 200, ours: 401, code: "token_malformed"},
		{name: "custom claims with odd names and values", auth: own, sdk: sdkOwn,
			raw:    raw(sessionHeader, claimsJSON("ID", ` , "a\"b\\":"Sub", "Plan" : {"Sub":"x","sub":["SID",{"Exp":2}]}, "":"v", "é":[["O"]], "\u003c":"\\"`)),
			theirs: 200, ours: 200},
		{name: "a header twice", auth: own, sdk: sdkOwn, raw: raw(`{"alg":"none","alg":"RS256"}`, claimsJSON("ID", "")), theirs: 403, ours: 401, code: "token_malformed"},

		// The header.
		{name: "bearer", header: headerForm("bearer TOKEN"), theirs: 403, ours: 200},
		{name: "BEARER and two spaces", header: headerForm("BEARER  TOKEN"), theirs: 403, ours: 200},
		{name: "Bearer and two spaces", header: headerForm("Bearer  TOKEN"), theirs: 200, ours: 200},
		{name: "spaces around", header: headerForm("  Bearer TOKEN  "), theirs: 200, ours: 200},
		{name: "Bearer alone", header: headerForm("Bearer"), theirs: 403, ours: 401, code: "token_missing"},
		{name: "Bearer and spaces", header: headerForm("Bearer   "), theirs: 403, ours: 401, code: "token_missing"},
		{name: "Bearer, no space", header: headerForm("BearerTOKEN"), theirs: 403, ours: 401, code: "token_missing"},
		{name: "Bearer: and a token", header: headerForm("Bearer: TOKEN"), theirs: 403, ours: 401, code: "token_missing"},
		{name: "Bearer Bearer", header: headerForm("Bearer Bearer TOKEN"), theirs: 403, ours: 401, code: "token_malformed"},
		{name: "two tokens in one", header: headerForm("Bearer TOKEN, Bearer TOKEN"), theirs: 403, ours: 401, code: "token_malformed"},
		{name: "Basic", header: headerForm("Basic dXNlcjpwYXNz"), theirs: 403, ours: 401, code: "token_missing"},
		{name: "Basic with a token", header: headerForm("Basic TOKEN"), theirs: 403, ours: 401, code: "token_missing"},
		{name: "no scheme", header: headerForm("TOKEN"), theirs: 200, ours: 401, code: "token_missing"},
		{name: "empty", header: headerForm(""), theirs: 403, ours: 401, code: "token_missing"},
		{name: "none", header: noHeader, theirs: 403, ours: 401, code: "token_missing"},
		{name: "two", header: func(token string) []string { return []string{"Bearer " + token, "Bearer " + token} }, theirs: 200, ours: 401, code: "token_malformed"},
		{name: "two, one of them Basic", header: func(token string) []string { return []string{"Basic dXNlcjpwYXNz", "Bearer " + token} }, theirs: 403, ours: 401, code: "token_malformed"},

		// The cookie, which the SDK does not look at.
		{name: "cookie, off", header: noHeader, cookie: sameToken, theirs: 403, ours: 401, code: "token_missing"},
		{name: "cookie", auth: cookies, opts: opts{AuthorizedParty: appOrigin}, header: noHeader, cookie: sameToken, theirs: 403, ours: 200},
		{name: "cookie of another origin", auth: cookies, opts: opts{AuthorizedParty: otherOrigin}, header: noHeader, cookie: sameToken, theirs: 403, ours: 401, code: "token_wrong_party"},
		{name: "cookie without azp", auth: cookies, header: noHeader, cookie: sameToken, theirs: 403, ours: 401, code: "token_wrong_party"},
		{name: "cookie expired", auth: cookies, opts: opts{AuthorizedParty: appOrigin, IssuedAt: at(-90)}, header: noHeader, cookie: sameToken, theirs: 403, ours: 401, code: "token_expired"},
		{name: "cookie empty", auth: cookies, header: noHeader, cookie: becomes(""), theirs: 403, ours: 401, code: "token_missing"},
		{name: "cookie nonsense", auth: cookies, header: noHeader, cookie: becomes("nonsense"), theirs: 403, ours: 401, code: "token_malformed"},
		{name: "header, and a worse cookie", auth: cookies, sdk: sdkParties, opts: opts{AuthorizedParty: appOrigin}, cookie: becomes("nonsense"), theirs: 200, ours: 200},
		{name: "cookie, and a worse header", auth: cookies, opts: opts{AuthorizedParty: appOrigin}, header: headerForm("Bearer nonsense"), cookie: sameToken, theirs: 403, ours: 401, code: "token_malformed"},
		{name: "cookie, and a Basic header", auth: cookies, opts: opts{AuthorizedParty: appOrigin}, header: headerForm("Basic dXNlcjpwYXNz"), cookie: sameToken, theirs: 403, ours: 401, code: "token_missing"},
	}

	// The issuer.
	exact := clerksync.AuthConfig{Issuer: proxyURL}
	sdkExact := sdk{clerkhttp.ProxyURL(proxyURL)}
	for _, tt := range []struct {
		issuer       string
		auth         clerksync.AuthConfig
		sdk          sdk
		theirs, ours int
	}{
		{"https://clerk.example.com", clerksync.AuthConfig{}, nil, 200, 200},
		{"https://clerk.app.example.co.uk", clerksync.AuthConfig{}, nil, 200, 200},
		{"https://happy-cat-42.clerk.accounts.dev", clerksync.AuthConfig{}, nil, 200, 200},
		{proxyURL, exact, sdkExact, 200, 200},
		{proxyURL, clerksync.AuthConfig{}, nil, 401, 401},
		{"https://clerk.example.com", exact, sdkExact, 401, 401},
		{proxyURL + "/", exact, sdkExact, 401, 401},
		{"", clerksync.AuthConfig{}, nil, 401, 401},
		{"", exact, sdkExact, 401, 401},
		{"https://evil.com/.clerk.accounts", clerksync.AuthConfig{}, nil, 200, 401},
		{"https://evil.com/.clerk.accounts.dev", clerksync.AuthConfig{}, nil, 200, 401},
		{"https://evil.com?.clerk.accounts.dev", clerksync.AuthConfig{}, nil, 200, 401},
		{"https://evil.com#.clerk.accounts.dev", clerksync.AuthConfig{}, nil, 200, 401},
		{"https://clerk.evil", clerksync.AuthConfig{}, nil, 200, 401},
		{"https://clerk.", clerksync.AuthConfig{}, nil, 200, 401},
		{"https://clerk.x.com/path", clerksync.AuthConfig{}, nil, 200, 401},
		{"https://clerk.x.com?a=1", clerksync.AuthConfig{}, nil, 200, 401},
		{"https://clerk.x.com#a", clerksync.AuthConfig{}, nil, 200, 401},
		{"https://clerk.x.com@evil.com", clerksync.AuthConfig{}, nil, 200, 401},
		{"https://clerk.evil@clerk.x.com", clerksync.AuthConfig{}, nil, 200, 401},
		{"https://clerk.x.com:8443", clerksync.AuthConfig{}, nil, 200, 401},
		{"http://clerk.x.com", clerksync.AuthConfig{}, nil, 401, 401},
		{"http://a.clerk.accounts.dev", clerksync.AuthConfig{}, nil, 200, 401},
		{"https://a.clerk.accounts.dev.evil.com", clerksync.AuthConfig{}, nil, 200, 401},
		{"https://a.clerk.accounts.evil.com", clerksync.AuthConfig{}, nil, 200, 401},
		{"https://.clerk.accounts.dev", clerksync.AuthConfig{}, nil, 200, 401},
		{"https://clerk.accounts.dev.evil", clerksync.AuthConfig{}, nil, 200, 200}, // of the form of a domain's: the keys decide
		{"https://aclerk.accounts.dev", clerksync.AuthConfig{}, nil, 401, 401},
		{"clerk.example.com", clerksync.AuthConfig{}, nil, 401, 401},
		{"a.clerk.accounts.dev", clerksync.AuthConfig{}, nil, 200, 401},
		{"https://xclerk.example.com", clerksync.AuthConfig{}, nil, 401, 401},
		{"https://clerk.x.com%zz", clerksync.AuthConfig{}, nil, 200, 401},
	} {
		c := authCase{name: fmt.Sprintf("issuer %q", tt.issuer), auth: tt.auth, sdk: tt.sdk, claims: claims{"iss": tt.issuer}, theirs: tt.theirs, ours: tt.ours}
		if tt.auth.Issuer != "" {
			c.name += " where it is set"
		}
		if tt.ours != 200 {
			c.code = "token_wrong_issuer"
		}
		cases = append(cases, c)
	}
	return cases
}

// TestSessionTokens sends every kind of token and header through the SDK's own
// middleware and through ours, both in the forms of version 1 and 2 of the session
// claims, and logs where the two differ.
func TestSessionTokens(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{Email: "ada@example.com"})
	cases := authCases()
	t.Run("cases", func(t *testing.T) {
		for _, tt := range cases {
			for version := 1; version <= 2; version++ {
				t.Run(fmt.Sprintf("%s, v%d", tt.name, version), func(t *testing.T) {
					t.Parallel()
					tt.run(t, fx, id, version)
				})
			}
		}
	})

	var table strings.Builder
	tw := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	for _, title := range []string{"the SDK accepts, clerksync refuses", "the SDK refuses, clerksync accepts"} {
		fmt.Fprintf(tw, "\n%s\tSDK\tclerksync\n", title)
		for _, tt := range cases {
			if (title == "the SDK accepts, clerksync refuses") == (tt.theirs == 200) && (tt.theirs == 200) != (tt.ours == 200) {
				fmt.Fprintf(tw, "%s\t%d\t%d %s\n", tt.name, tt.theirs, tt.ours, tt.code)
			}
		}
	}
	tw.Flush()
	t.Log(table.String())
}

func (tt *authCase) run(t *testing.T, fx *fixture, id string, version int) {
	subject := tt.subject
	if subject == "" {
		subject = id
	}
	opts := tt.opts
	opts.Version = version
	if tt.claims != nil {
		opts.Claims = tt.claims
	}
	var token string
	if tt.raw != nil {
		token = tt.raw(subject)
	} else {
		token = fx.token(t, subject, opts)
	}
	if tt.change != nil {
		token = tt.change(token)
	}
	request := func() *http.Request {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		header := tt.header
		if header == nil {
			header = bearer
		}
		if values := header(token); values != nil {
			r.Header["Authorization"] = values
		}
		if tt.cookie != nil {
			r.Header.Set("Cookie", "__session="+tt.cookie(token))
		}
		return r
	}

	reached := &me{}
	rec := httptest.NewRecorder()
	fx.sdkRequire(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), tt.sdk...).ServeHTTP(rec, request())
	if rec.Code != tt.theirs {
		t.Errorf("the SDK answers %d, want %d", rec.Code, tt.theirs)
	}

	s := fx.syncer(t, func(c *clerksync.Config) { c.Auth = tt.auth })
	var got []*clerk.SessionClaims
	h := s.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := clerk.SessionClaimsFromContext(r.Context())
		got = append(got, claims)
		reached.ServeHTTP(w, r)
	}))
	const times = 3 // the later ones are cached
	for range times {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, request())
		a := answer{rec.Code, rec.Header(), rec.Body.Bytes()}
		if tt.ours != 200 {
			checkProblem(t, a, tt.ours, tt.code)
		} else if a.status != 200 || !strings.Contains(string(a.body), id) {
			t.Fatalf("answered %d: %s", a.status, a.body)
		}
		if strings.Contains(string(a.body), "ada@") != (tt.ours == 200) {
			t.Errorf("the body is %s", a.body)
		}
	}
	claims, err := s.Authenticate(request())
	if tt.ours == 200 || tt.ours == 403 {
		if err != nil {
			t.Fatalf("Authenticate: %v", err)
		}
		checkSDKClaims(t, claims, token, fx, tt)
	} else {
		var p *clerksync.Problem
		if claims != nil || !errors.As(err, &p) || p.Code != tt.code || !errors.Is(err, clerksync.ErrUnauthenticated) {
			t.Errorf("Authenticate: %+v, %v; want %s", claims, err, tt.code)
		}
	}
	if tt.ours != 200 {
		if reached.served.Load() != 0 {
			t.Error("the handler ran")
		}
		return
	}
	if reached.served.Load() != times {
		t.Errorf("the handler ran %d times", reached.served.Load())
	}
	for _, c := range got {
		if c != claims {
			t.Error("a cached token was verified again")
		}
	}
}

// checkSDKClaims checks that claims are what the SDK's own verification makes of
// the token, unexported fields included.
func checkSDKClaims(t *testing.T, claims *clerk.SessionClaims, token string, fx *fixture, tt *authCase) {
	t.Helper()
	key := fx.clerk.JWTKey()
	if tt.raw != nil {
		key = testSigner().pem
	}
	jwk, err := clerk.JSONWebKeyFromPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	params := &jwt.VerifyParams{Token: token, JWK: jwk, Clock: fx.clock, Leeway: max(tt.auth.Leeway, 5*time.Second), CustomClaimsConstructor: tt.auth.CustomClaims}
	if tt.cookie != nil {
		params.Token = tt.cookie(token)
		if tt.header == nil {
			params.Token = token
		}
	}
	if tt.auth.Issuer != "" {
		params.ProxyURL = &tt.auth.Issuer
	}
	want, err := jwt.Verify(t.Context(), params)
	if err != nil {
		t.Fatalf("the SDK's Verify: %v", err)
	}
	if !reflect.DeepEqual(claims, want) {
		t.Errorf("claims are\n%+v\nthe SDK's\n%+v", claims, want)
	}
}

// The same through a real server, where the header lines are parsed.
func TestRequireUserThroughAServer(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	var handler me
	url := serve(t, fx.RequireUser(&handler))
	request := func(values ...string) answer {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header["Authorization"] = values
		return send(t, r)
	}
	token := fx.clerk.SessionToken(id)
	for _, form := range []string{"Bearer ", "bearer ", "BEARER  ", " bEaReR "} {
		if a := request(form + token); a.status != 200 || !strings.Contains(string(a.body), id) {
			t.Errorf("%q: %d %s", form, a.status, a.body)
		}
	}
	served := handler.served.Load()
	checkProblem(t, request(), 401, "token_missing")
	checkProblem(t, request("Bearer "+token, "Bearer "+token), 401, "token_malformed")
	checkProblem(t, request("Bearer "+token+" "+token), 401, "token_malformed")
	checkProblem(t, request("Bearer "+fx.clerk.SessionToken("mch_1")), 401, "token_wrong_class")
	if handler.served.Load() != served {
		t.Error("the handler ran")
	}
	if strings.Contains(fx.logs.String(), token) {
		t.Error("the log shows a token")
	}
}

func TestImpersonation(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{Email: "ada@example.com"})
	actor := fx.clerk.CreateUser(fakeclerk.NewUser{Email: "support@example.com"})
	token := fx.token(t, id, fakeclerk.TokenOptions{Actor: &fakeclerk.Actor{Subject: actor}})
	ran := false
	h := fx.RequireUser(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ran = true
		u, _ := clerksync.UserFromContext(r.Context())
		if u.ClerkID != id || u.Email != "ada@example.com" || !u.LastSignInAt.IsZero() {
			t.Errorf("record is %+v, want the impersonated user's", u)
		}
		claims, ok := clerk.SessionClaimsFromContext(r.Context())
		var act struct{ Sub string }
		if !ok || json.Unmarshal(claims.Actor, &act) != nil || act.Sub != actor {
			t.Errorf("the handler sees the actor %s", claims.Actor)
		}
	}))
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	h.ServeHTTP(httptest.NewRecorder(), r)
	if !ran {
		t.Fatal("the handler did not run")
	}
	if u, err := fx.store.Store.User(t.Context(), actor); !errors.Is(err, clerksync.ErrNotFound) {
		t.Errorf("the actor has the record %+v, %v", u, err)
	}
}

func TestWithUser(t *testing.T) {
	t.Parallel()
	type opts = fakeclerk.TokenOptions
	for name, tt := range map[string]struct {
		opts   opts
		change func(string) string
		header func(string) []string // defaults to none: the token is the cookie
		code   string                // of a refusal
		user   bool
	}{
		"signed in":         {header: bearer, user: true},
		"signed in, cookie": {user: true},
		"no token":          {header: noHeader, change: becomes("")},
		"empty bearer":      {header: headerForm("Bearer "), change: becomes("")},
		"another scheme":    {header: headerForm("Basic dXNlcjpwYXNz"), change: becomes("")},
		"pending":           {header: bearer, opts: opts{Pending: true}},
		"pending cookie":    {opts: opts{Pending: true}},
		"expired cookie":    {opts: opts{IssuedAt: t0.Add(-90 * time.Second)}},
		"expired":           {header: bearer, opts: opts{IssuedAt: t0.Add(-90 * time.Second)}, code: "token_expired"},
		"malformed":         {header: bearer, change: becomes("nonsense"), code: "token_malformed"},
		"malformed cookie":  {change: becomes("nonsense"), code: "token_malformed"},
		"not yet valid":     {opts: opts{IssuedAt: t0.Add(time.Minute)}, code: "token_not_yet_valid"},
		"wrong class":       {opts: opts{Class: fakeclerk.TemplateToken}, code: "token_wrong_class"},
		"wrong party":       {opts: opts{AuthorizedParty: otherOrigin}, code: "token_wrong_party"},
		"wrong issuer":      {opts: opts{Issuer: "https://evil.com"}, code: "token_wrong_issuer"},
		"wrong key":         {opts: opts{WrongKey: true}, code: "token_bad_signature"},
		"unknown key":       {opts: opts{KeyID: "ins_unknown"}, code: "token_unknown_key"},
		"two headers":       {header: func(token string) []string { return []string{"Bearer " + token, "Bearer " + token} }, code: "token_malformed"},
		"expired, and pending, but of a wrong key": {opts: opts{IssuedAt: t0.Add(-90 * time.Second), Pending: true, WrongKey: true}, code: "token_bad_signature"},
		"expired, and of another origin":           {opts: opts{IssuedAt: t0.Add(-90 * time.Second), AuthorizedParty: otherOrigin}, code: "token_wrong_party"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, func(c *clerksync.Config) {
				c.Auth = clerksync.AuthConfig{Cookie: true, AuthorizedParties: []string{appOrigin}}
			})
			id := fx.clerk.CreateUser(fakeclerk.NewUser{})
			if tt.opts.AuthorizedParty == "" {
				tt.opts.AuthorizedParty = appOrigin
			}
			token := fx.token(t, id, tt.opts)
			if tt.change != nil {
				token = tt.change(token)
			}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			if tt.header != nil {
				r.Header["Authorization"] = tt.header(token)
			} else {
				r.Header.Set("Cookie", "theme=dark; __session="+token+"; other=1")
			}
			ran := 0
			h := fx.WithUser(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				ran++
				u, ok := clerksync.UserFromContext(r.Context())
				claims, signedIn := clerk.SessionClaimsFromContext(r.Context())
				if ok != tt.user || signedIn != tt.user || tt.user && (u.ClerkID != id || claims.Subject != id) {
					t.Errorf("the handler got %+v and %+v", u, claims)
				}
			}))
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			if tt.code != "" {
				checkProblem(t, answer{rec.Code, rec.Header(), rec.Body.Bytes()}, 401, tt.code)
			}
			if (ran == 1) != (tt.code == "") {
				t.Errorf("the handler ran %d times", ran)
			}
			if !tt.user && (fx.store.users.Load() != 0 || fx.lookups() != 0) {
				t.Errorf("%d reads of the Store, %d Clerk calls without a user", fx.store.users.Load(), fx.lookups())
			}
		})
	}
}

// A constructor of custom claims that returns nothing to decode into is the app's
// fault, and no user's.
func TestUselessCustomClaims(t *testing.T) {
	t.Parallel()
	for name, custom := range map[string]any{"nil": nil, "a nil pointer": (*customClaims)(nil), "no pointer": customClaims{}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, func(c *clerksync.Config) { c.Auth.CustomClaims = func(context.Context) any { return custom } })
			rec := httptest.NewRecorder()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			r.Header.Set("Authorization", "Bearer "+fx.clerk.SessionToken("user_1"))
			handler := &me{}
			fx.RequireUser(handler).ServeHTTP(rec, r)
			checkProblem(t, answer{rec.Code, rec.Header(), rec.Body.Bytes()}, 500, "internal")
			if handler.served.Load() != 0 || !strings.Contains(fx.logs.String(), "CustomClaims") {
				t.Errorf("the handler ran, or the log does not say why: %s", fx.logs)
			}
		})
	}
}

// An outage is no reason to take a visitor with a token for one without.
func TestWithUserInAnOutage(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	fx.clerk.SetFault(down)
	h := fx.WithUser(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") }))
	for _, wrap := range []http.Handler{h, fx.RequireUser(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") }))} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+fx.clerk.SessionToken("user_1"))
		rec := httptest.NewRecorder()
		wrap.ServeHTTP(rec, r)
		checkProblem(t, answer{rec.Code, rec.Header(), rec.Body.Bytes()}, 503, "unavailable")
	}
}

// What the SDK builds on the claims in the context works behind RequireUser.
func TestReverificationBehindRequireUser(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	h := fx.RequireUser(clerkhttp.NeedsSessionReverification(clerk.SessionReverificationPolicy{
		Level: clerk.SessionReverificationLevelFirstFactor, AfterMinutes: 10,
	})(&me{}))
	for minutes, want := range map[int]int{0: 200, 10: 200, 11: 403} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+fx.token(t, id, fakeclerk.TokenOptions{Claims: map[string]any{"fva": []int{minutes, -1}}}))
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != want {
			t.Errorf("%d minutes after the first factor: %d, want %d", minutes, rec.Code, want)
		}
	}
}

// Two instances in one process: the SDK's middleware of the one takes the other's
// tokens once it has seen one, ours never does.
func TestInstancesRefuseEachOther(t *testing.T) {
	t.Parallel()
	a := startFixture(t, fakeclerk.Config{RateLimit: -1, InstanceID: "ins_a"}, nil)
	b := startFixture(t, fakeclerk.Config{RateLimit: -1, InstanceID: "ins_b"}, nil)
	request := func(h func(http.Handler) http.Handler, token string) int {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		rec := httptest.NewRecorder()
		h(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(rec, r)
		return rec.Code
	}
	theirs := func(fx *fixture) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler { return fx.sdkRequire(next) }
	}
	// The same user id and session on both sides.
	const id = "user_shared"
	tokenA, tokenB := a.token(t, id, fakeclerk.TokenOptions{SessionID: "sess_1"}), b.token(t, id, fakeclerk.TokenOptions{SessionID: "sess_1"})
	check := func() {
		t.Helper()
		a.wantCode(t, tokenB, "token_unknown_key")
		b.wantCode(t, tokenA, "token_unknown_key")
		a.wantCode(t, a.token(t, id, fakeclerk.TokenOptions{KeyID: b.clerk.InstanceID()}), "token_unknown_key")
		b.wantCode(t, a.token(t, id, fakeclerk.TokenOptions{KeyID: b.clerk.InstanceID()}), "token_bad_signature")
	}
	check()
	for range 2 {
		a.wantCode(t, tokenA, "")
		b.wantCode(t, tokenB, "")
		check()
		a.clock.Advance(10 * time.Second)
		b.clock.Advance(10 * time.Second)
	}
	if got := request(theirs(a), tokenB); got != 401 {
		t.Errorf("the SDK answered %d before it saw the other instance", got)
	}
	request(theirs(b), tokenB)
	if got := request(theirs(a), tokenB); got != 200 {
		t.Errorf("the SDK answered %d to the other instance's token; it has learned", got)
	}
	if got := request(a.RequireUser, tokenB); got != 401 {
		t.Errorf("RequireUser answered %d to the other instance's token", got)
	}
	// Nor do keys that are given.
	static := a.syncer(t, func(c *clerksync.Config) { c.Auth.JWTKey = a.clerk.JWTKey() })
	if got := authenticate(t, static, tokenB); got != "token_bad_signature" {
		t.Errorf("with JWTKey: %q", got)
	}
	if got := authenticate(t, static, tokenA); got != "" {
		t.Errorf("its own token, with JWTKey: %q", got)
	}
}

func TestNewReportsAuthFaults(t *testing.T) {
	t.Parallel()
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(testSigner().key)}))
	key := testSigner().pem
	for name, tt := range map[string]struct {
		auth clerksync.AuthConfig
		want []string
	}{
		"nothing set":         {clerksync.AuthConfig{}, nil},
		"cookie with parties": {clerksync.AuthConfig{Cookie: true, AuthorizedParties: []string{appOrigin}}, nil},
		"origins of all sorts": {clerksync.AuthConfig{AuthorizedParties: []string{
			"https://app.example.com", "http://localhost:3000", "https://[::1]:8443", "capacitor://localhost", "chrome-extension://abcdefghijklmnop",
		}}, nil},
		"cookie without parties":     {clerksync.AuthConfig{Cookie: true}, []string{"Config.Auth.Cookie needs Auth.AuthorizedParties"}},
		"cookie with empty parties":  {clerksync.AuthConfig{Cookie: true, AuthorizedParties: []string{}}, []string{"Config.Auth.Cookie needs Auth.AuthorizedParties"}},
		"party with a slash":         {clerksync.AuthConfig{AuthorizedParties: []string{appOrigin, appOrigin + "/"}}, []string{"Config.Auth.AuthorizedParties[1] is not an origin"}},
		"party with a path":          {clerksync.AuthConfig{AuthorizedParties: []string{appOrigin + "/login"}}, []string{"AuthorizedParties[0]"}},
		"party with a query":         {clerksync.AuthConfig{AuthorizedParties: []string{appOrigin + "?a=1"}}, []string{"AuthorizedParties[0]"}},
		"party with a fragment":      {clerksync.AuthConfig{AuthorizedParties: []string{appOrigin + "#a"}}, []string{"AuthorizedParties[0]"}},
		"party with a user":          {clerksync.AuthConfig{AuthorizedParties: []string{"https://me@app.example.com"}}, []string{"AuthorizedParties[0]"}},
		"party a host":               {clerksync.AuthConfig{AuthorizedParties: []string{"app.example.com"}}, []string{"AuthorizedParties[0]"}},
		"party empty":                {clerksync.AuthConfig{AuthorizedParties: []string{""}}, []string{"AuthorizedParties[0]"}},
		"party any":                  {clerksync.AuthConfig{AuthorizedParties: []string{"*"}}, []string{"AuthorizedParties[0]"}},
		"party null":                 {clerksync.AuthConfig{AuthorizedParties: []string{"null"}}, []string{"AuthorizedParties[0]"}},
		"party with a space":         {clerksync.AuthConfig{AuthorizedParties: []string{" " + appOrigin}}, []string{"AuthorizedParties[0]"}},
		"key":                        {clerksync.AuthConfig{JWTKey: key}, nil},
		"key, white space around it": {clerksync.AuthConfig{JWTKey: "\n  " + key + "\t"}, nil},
		"key on one line":            {clerksync.AuthConfig{JWTKey: strings.ReplaceAll(key, "\n", `\n`)}, nil},
		"key with CRLF":              {clerksync.AuthConfig{JWTKey: strings.ReplaceAll(key, "\n", "\r\n")}, nil},
		"key blank":                  {clerksync.AuthConfig{JWTKey: " \n"}, nil},
		"key nonsense":               {clerksync.AuthConfig{JWTKey: "nonsense"}, []string{"Config.Auth.JWTKey is not an RSA public key"}},
		"key secret":                 {clerksync.AuthConfig{JWTKey: "sk_test_secret"}, []string{"JWTKey"}},
		"key private":                {clerksync.AuthConfig{JWTKey: private}, []string{"JWTKey"}},
		"key cut off":                {clerksync.AuthConfig{JWTKey: key[:200]}, []string{"JWTKey"}},
		"key damaged":                {clerksync.AuthConfig{JWTKey: strings.Replace(key, "MIIB", "AAAA", 1)}, []string{"JWTKey"}},
		"key of a curve":             {clerksync.AuthConfig{JWTKey: publicPEM(&curve.PublicKey)}, []string{"JWTKey"}},
		"key too small":              {clerksync.AuthConfig{JWTKey: publicPEM(&small.PublicKey)}, []string{"2048 bits or more"}},
		"all at once": {clerksync.AuthConfig{Cookie: true, JWTKey: "nonsense"},
			[]string{"Auth.Cookie", "Auth.JWTKey"}},
		"all at once, with parties": {clerksync.AuthConfig{Cookie: true, JWTKey: "nonsense", AuthorizedParties: []string{"*", appOrigin, "x"}},
			[]string{"AuthorizedParties[0]", "AuthorizedParties[2]", "JWTKey"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := clerksync.New(clerksync.Config{Store: &generatedUsers{}, SecretKey: "sk_test_secret", Auth: tt.auth})
			if tt.want == nil {
				if err != nil {
					t.Fatalf("New: %v", err)
				}
				_ = s.Close()
				return
			}
			checkFaults(t, err, tt.want)
			if s != nil {
				t.Error("New returned a Syncer beside the error")
			}
			if k := tt.auth.JWTKey; len(k) > 3 && strings.Contains(err.Error(), k) {
				t.Errorf("the error shows the key: %v", err)
			}
		})
	}
	t.Run("beside others", func(t *testing.T) {
		t.Parallel()
		_, err := clerksync.New(clerksync.Config{CacheSize: -1, Auth: clerksync.AuthConfig{Cookie: true, JWTKey: private}})
		checkFaults(t, err, []string{"Store", "SecretKey", "CacheSize", "Auth.Cookie", "Auth.JWTKey"})
		if strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("the error shows the key: %v", err)
		}
	})
}

// With JWTKey no key is ever fetched, whatever comes and however long it takes.
func TestJWTKeyNeedsNoNetwork(t *testing.T) {
	t.Parallel()
	for name, form := range map[string]func(string) string{
		"as it is":              func(key string) string { return key },
		"line breaks as \\n":    func(key string) string { return strings.ReplaceAll(key, "\n", `\n`) },
		"line breaks as \\r\\n": func(key string) string { return strings.ReplaceAll(key, "\n", "\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			s := fx.syncer(t, func(c *clerksync.Config) { c.Auth.JWTKey = form(fx.clerk.JWTKey()) })
			want := func(token, code string) {
				t.Helper()
				if got := authenticate(t, s, token); got != code {
					t.Errorf("answered %q, want %q", got, code)
				}
			}
			for range 3 {
				token := fx.clerk.SessionToken("user_1")
				want(token, "")
				want(token, "")
				want(fx.token(t, "user_1", fakeclerk.TokenOptions{KeyID: "ins_2"}), "") // the key decides, not its id
				want(fx.token(t, "user_1", fakeclerk.TokenOptions{WrongKey: true}), "token_bad_signature")
				want(fx.token(t, "user_1", fakeclerk.TokenOptions{KeyID: "ins_2", WrongKey: true}), "token_bad_signature")
				fx.clock.Advance(2 * time.Hour)
				want(token, "token_expired")
			}
			fx.clerk.RotateKey()
			want(fx.clerk.SessionToken("user_1"), "token_bad_signature")
			fx.wantKeyFetches(t, 0)
		})
	}
}

// Authenticate asks neither for the record nor for the user, and writes nothing.
func TestAuthenticateTouchesNoRecord(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	fx.store.fail(errDown)
	token := fx.token(t, id, fakeclerk.TokenOptions{Claims: map[string]any{"updated_at": t0.Add(time.Hour).UnixMilli()}})
	for _, token := range []string{token, token, fx.clerk.SessionToken("user_ghost"), fx.clerk.SessionToken(id)} {
		fx.wantCode(t, token, "")
	}
	fx.wantCode(t, "nonsense", "token_malformed")
	fx.wantCode(t, fx.token(t, id, fakeclerk.TokenOptions{IssuedAt: t0.Add(-time.Hour)}), "token_expired")
	if fx.store.users.Load() != 0 || fx.store.upserts.Load() != 0 || fx.clerk.Calls("") != fx.clerk.Calls(jwksRoute) {
		t.Errorf("%d reads, %d writes, %d Clerk calls", fx.store.users.Load(), fx.store.upserts.Load(), fx.clerk.Calls(""))
	}
	if len(fx.seen.all) != 0 || fx.logs.String() != "" {
		t.Errorf("it was observed (%+v) or logged (%s)", fx.seen.all, fx.logs)
	}
}

// A verified token is as good as its times, at every request, by the injected clock.
func TestCachedTokenEnds(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	token := fx.clerk.SessionToken("user_1")
	for _, step := range []struct {
		wait time.Duration
		code string
	}{
		{0, ""}, {time.Minute, ""}, {5 * time.Second, ""}, {time.Millisecond, "token_expired"}, {time.Hour, "token_expired"},
	} {
		fx.clock.Advance(step.wait)
		fx.wantCode(t, token, step.code)
		fx.wantCode(t, token, step.code)
	}
}

// One token in many goroutines at once, and many tokens.
func TestTokensAtOnce(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) { c.Auth.TokenCacheSize = 3 })
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	tokens := make([]string, 10)
	for i := range tokens {
		tokens[i] = fx.token(t, id, fakeclerk.TokenOptions{SessionID: fmt.Sprintf("sess_%d", i)})
	}
	var wrong atomic.Int32
	h := fx.RequireUser(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		claims, _ := clerk.SessionClaimsFromContext(r.Context())
		if claims.SessionID != r.Header.Get("Want") {
			wrong.Add(1)
		}
	}))
	var all sync.WaitGroup
	for g := range 16 {
		all.Go(func() {
			for i := range 50 {
				n := (g + i) % len(tokens)
				r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil)
				r.Header.Set("Authorization", "Bearer "+tokens[n])
				r.Header.Set("Want", fmt.Sprintf("sess_%d", n))
				rec := httptest.NewRecorder()
				if h.ServeHTTP(rec, r); rec.Code != 200 {
					wrong.Add(1)
				}
			}
		})
	}
	all.Wait()
	if wrong.Load() != 0 {
		t.Errorf("%d requests got another's claims or none", wrong.Load())
	}
	fx.wantKeyFetches(t, 1)
}

// Whoever makes up key ids costs neither calls of Clerk's nor memory. Not parallel:
// it counts goroutines.
func TestForgedKeyIDsCostNothing(t *testing.T) {
	fx := newFixture(t, nil)
	genuine := fx.token(t, "user_1", fakeclerk.TokenOptions{ExpiresAt: t0.Add(time.Hour)})
	fx.wantCode(t, genuine, "")
	parts := strings.Split(genuine, ".")
	forge := func(from, to int) {
		var all sync.WaitGroup
		for g := range 10 {
			all.Go(func() {
				for i := from + g; i < to; i += 10 {
					header := fmt.Sprintf(`{"alg":"RS256","cat":"cl_B7d4PD111AAA","kid":"ins_forged%d","typ":"JWT"}`, i)
					r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil)
					r.Header.Set("Authorization", "Bearer "+base64.RawURLEncoding.EncodeToString([]byte(header))+"."+parts[1]+"."+parts[2])
					var p *clerksync.Problem
					if _, err := fx.Authenticate(r); !errors.As(err, &p) || p.Code != "token_unknown_key" {
						t.Errorf("answered %v", err)
						return
					}
				}
			})
		}
		all.Wait()
	}
	forge(0, 1000)
	goroutines, memory := runtime.NumGoroutine(), heap()
	forge(1000, 10_000)
	clerksync.WaitBackground(fx.Syncer)
	if got := fx.clerk.Calls(jwksRoute); got > 2 {
		t.Errorf("%d fetches of the keys", got)
	}
	settled(t, goroutines+5)
	if got := heap(); got > memory+1<<20 {
		t.Errorf("%d bytes more on the heap", got-memory)
	}
	fx.wantCode(t, genuine, "")
}
