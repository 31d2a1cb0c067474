package clerksync_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	clerkhttp "github.com/clerk/clerk-sdk-go/v2/http"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

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
