package clerksync_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	clerkhttp "github.com/clerk/clerk-sdk-go/v2/http"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// authCase is one request, and the answers of the SDK's middleware and of ours.
type authCase struct {
	name    string
	auth    clerksync.AuthConfig            // ours
	sdk     []clerkhttp.AuthorizationOption // the same for the SDK, as far as it has options for it
	subject string                          // defaults to a user whom Clerk knows

	// The token: fakeclerk's with these options, or one with this payload that testSigner signs.
	// Then both middlewares are given testSigner's key. ID stands for the subject.
	opts    fakeclerk.TokenOptions
	claims  map[string]any // in place of opts.Claims
	head    string         // of a payload; defaults to sessionHeader
	payload string
	change  func(token string) string

	header func(token string) []string // defaults to bearer
	cookie func(token string) string   // defaults to none

	theirs int    // the SDK's status
	code   string // of our refusal; "" if the token is accepted
}

// ours is the status of our middleware.
func (tt *authCase) ours() int {
	switch tt.code {
	case "":
		return 200
	case "user_unknown":
		return 403
	}
	return 401
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

// tampered decodes a part of a token, replaces a text in it, and encodes it again.
func tampered(part, old, with string) string {
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil || !strings.Contains(string(b), old) {
		panic(fmt.Sprintf("%q is not in %s", old, b))
	}
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(b), old, with, 1)))
}

func authCases() []authCase {
	return slices.Concat(acceptedTokens(), partyCases(), timeCases(), classCases(), signatureCases(), formCases(),
		headerCases(), cookieCases(), issuerCases())
}

// acceptedTokens are good tokens, and odd ones that the SDK accepts.
func acceptedTokens() []authCase {
	type opts = fakeclerk.TokenOptions
	type sdk = []clerkhttp.AuthorizationOption
	type claims = map[string]any
	org := &fakeclerk.Organization{
		ID: "org_1", Slug: "acme", Role: "org:admin",
		Permissions: []string{"org:posts:read", "org:posts:write", "org:users:ban"},
	}
	parties := clerksync.AuthConfig{AuthorizedParties: []string{appOrigin, "http://localhost:3000"}}
	sdkParties := sdk{clerkhttp.AuthorizedPartyMatches(appOrigin, "http://localhost:3000")}
	custom := clerksync.AuthConfig{CustomClaims: newCustomClaims}
	sdkCustom := sdk{clerkhttp.CustomClaimsConstructor(newCustomClaims)}
	return []authCase{
		{name: "ordinary", theirs: 200},
		{name: "with an organization", opts: opts{Organization: org}, theirs: 200},
		{name: "with an organization without permissions", theirs: 200,
			opts: opts{Organization: &fakeclerk.Organization{ID: "org_1", Slug: "acme", Role: "org:member"}}},
		{name: "custom claims, unread", claims: claims{"plan": "pro", "nested": claims{"a": []int{1}}}, theirs: 200},
		{name: "custom claims", theirs: 200,
			auth: custom, sdk: sdkCustom, claims: claims{"plan": "pro", "seats": 7}},
		{name: "custom claims of another type", theirs: 401, code: "token_malformed",
			auth: custom, sdk: sdkCustom, claims: claims{"seats": "many"}},
		{name: "impersonation", opts: opts{Actor: &fakeclerk.Actor{Subject: "user_actor"}}, theirs: 200},
		{name: "act null", payload: claimsJSON("ID", `,"v":2,"act":null`), theirs: 200},
		{name: "audience, one", claims: claims{"aud": "https://api.example.com"}, theirs: 200},
		{name: "audience, several", claims: claims{"aud": []string{"a", "b"}}, theirs: 200},
		{name: "no nbf, iat, jti, fva", claims: claims{"nbf": nil, "iat": nil, "jti": nil, "fva": nil}, theirs: 200},
		{name: "no cat", opts: opts{Header: claims{"cat": nil}}, theirs: 200},
		{name: "no typ", opts: opts{Header: claims{"typ": nil}}, theirs: 200},
		{name: "networkless", payload: claimsJSON("ID", `,"v":2`), theirs: 200},
		{name: "custom claims that differ from others only in case", theirs: 200, code: "token_malformed",
			payload: claimsJSON("ID", `,"v":2,"O":{"id":"org_evil","rol":"admin"},"FEA":["a"],"Sts":5,`+
				`"o":{"id":"org_1","rol":"member"}`)},
		{name: "custom claim Sub", theirs: 200, code: "token_malformed",
			payload: claimsJSON("user_mallory", `,"Sub":"ID"`)},
		{name: "custom claim Sid", payload: claimsJSON("ID", `,"Sid":"sess_2"`), theirs: 200, code: "token_malformed"},
		{name: "custom claim Iss", theirs: 200, code: "token_malformed",
			payload: claimsJSON("ID", `,"Iss":"https://clerk.example.org"`)},
		{name: "custom claim AZP", theirs: 200, code: "token_malformed", auth: parties, sdk: sdkParties,
			payload: claimsJSON("ID", `,"azp":"`+otherOrigin+`","AZP":"`+appOrigin+`"`)},
		{name: "custom claim Exp", theirs: 200, code: "token_malformed",
			payload: claimsJSON("ID", `,"Exp":99999999999`)},
		{name: "custom claim Exp, null", theirs: 200, code: "token_malformed",
			payload: claimsJSON("ID", `,"Exp":null`)},
		{name: "custom claim Exp, the same", theirs: 200, code: "token_malformed",
			payload: claimsJSON("ID", fmt.Sprintf(`,"Exp":%d`, t0.Unix()+60))},
		{name: "custom claim sub with a long s", theirs: 200, code: "token_malformed",
			payload: claimsJSON("user_mallory", ",\"\u017fub\":\"ID\"")},
	}
}

// partyCases are about azp, the origin that the token was made for.
func partyCases() []authCase {
	type opts = fakeclerk.TokenOptions
	type sdk = []clerkhttp.AuthorizationOption
	type claims = map[string]any
	parties := clerksync.AuthConfig{AuthorizedParties: []string{appOrigin, "http://localhost:3000"}}
	sdkParties := sdk{clerkhttp.AuthorizedPartyMatches(appOrigin, "http://localhost:3000")}
	native := clerksync.AuthConfig{AuthorizedParties: []string{appOrigin}, AllowNoParty: true}
	return []authCase{
		{name: "azp, no parties set", opts: opts{AuthorizedParty: otherOrigin}, theirs: 200},
		{name: "azp right", auth: parties, sdk: sdkParties, opts: opts{AuthorizedParty: appOrigin}, theirs: 200},
		{name: "azp right, the second", theirs: 200,
			auth: parties, sdk: sdkParties, opts: opts{AuthorizedParty: "http://localhost:3000"}},
		{name: "azp wrong", theirs: 401, code: "token_wrong_party",
			auth: parties, sdk: sdkParties, opts: opts{AuthorizedParty: otherOrigin}},
		{name: "azp missing", auth: parties, sdk: sdkParties, theirs: 200, code: "token_wrong_party"},
		{name: "azp empty", theirs: 200, code: "token_wrong_party",
			auth: parties, sdk: sdkParties, claims: claims{"azp": ""}},
		{name: "azp with a slash", theirs: 401, code: "token_wrong_party",
			auth: parties, sdk: sdkParties, opts: opts{AuthorizedParty: appOrigin + "/"}},
		{name: "azp in other case", theirs: 401, code: "token_wrong_party",
			auth: parties, sdk: sdkParties, opts: opts{AuthorizedParty: "https://APP.example.com"}},
		{name: "azp missing, allowed", theirs: 200, auth: native, sdk: sdkParties},
		{name: "azp empty, allowed", theirs: 200, auth: native, sdk: sdkParties, claims: claims{"azp": ""}},
		{name: "azp null, allowed", theirs: 200, auth: native, sdk: sdkParties,
			claims: claims{"azp": json.RawMessage("null")}},
		{name: "azp right, missing allowed", theirs: 200,
			auth: native, sdk: sdkParties, opts: opts{AuthorizedParty: appOrigin}},
		{name: "azp wrong, missing allowed", theirs: 401, code: "token_wrong_party",
			auth: native, sdk: sdkParties, opts: opts{AuthorizedParty: otherOrigin}},
		{name: `azp "null", missing allowed`, theirs: 401, code: "token_wrong_party",
			auth: native, sdk: sdkParties, opts: opts{AuthorizedParty: "null"}},
		{name: "azp missing, allowed, no parties set", theirs: 200, auth: clerksync.AuthConfig{AllowNoParty: true}},
		{name: "azp right, the party written in another way", theirs: 200,
			auth: clerksync.AuthConfig{AuthorizedParties: []string{"HTTPS://APP.Example.com:443/"}},
			sdk:  sdkParties, opts: opts{AuthorizedParty: appOrigin}},
		{name: "azp that goes on", theirs: 401, code: "token_wrong_party",
			auth: parties, sdk: sdkParties, opts: opts{AuthorizedParty: appOrigin + ".evil.com"}},
	}
}

// timeCases are about exp, nbf and iat. By default the SDK does not have a leeway.
func timeCases() []authCase {
	type opts = fakeclerk.TokenOptions
	type sdk = []clerkhttp.AuthorizationOption
	type claims = map[string]any
	at := func(seconds int) time.Time { return t0.Add(time.Duration(seconds) * time.Second) }
	long, sdkLong := clerksync.AuthConfig{Leeway: time.Minute}, sdk{clerkhttp.Leeway(time.Minute)}
	return []authCase{
		{name: "no exp", claims: claims{"exp": nil}, theirs: 200, code: "token_malformed"},
		{name: "exp null", claims: claims{"exp": json.RawMessage("null")}, theirs: 200, code: "token_malformed"},
		{name: "exp not a number", claims: claims{"exp": "soon"}, theirs: 403, code: "token_malformed"},
		{name: "expired, within the leeway", opts: opts{IssuedAt: at(-64)}, theirs: 401},
		{name: "expired, to the leeway", opts: opts{IssuedAt: at(-65)}, theirs: 401, code: "token_expired"},
		{name: "expired", opts: opts{IssuedAt: at(-66)}, theirs: 401, code: "token_expired"},
		{name: "valid for a second, no leeway", theirs: 200,
			auth: clerksync.AuthConfig{Leeway: -1}, opts: opts{IssuedAt: at(-59)}},
		{name: "expired, no leeway, to the second", theirs: 200, code: "token_expired",
			auth: clerksync.AuthConfig{Leeway: -1}, opts: opts{IssuedAt: at(-60)}},
		{name: "expired, no leeway", theirs: 401, code: "token_expired",
			auth: clerksync.AuthConfig{Leeway: -1}, opts: opts{IssuedAt: at(-61)}},
		{name: "expired, within a long leeway", theirs: 200,
			auth: long, sdk: sdkLong, opts: opts{IssuedAt: at(-119)}},
		{name: "expired, to a long leeway", theirs: 200, code: "token_expired",
			auth: long, sdk: sdkLong, opts: opts{IssuedAt: at(-120)}},
		{name: "expired, past a long leeway", theirs: 401, code: "token_expired",
			auth: long, sdk: sdkLong, opts: opts{IssuedAt: at(-121)}},
		{name: "expired in 1970", claims: claims{"exp": 0}, theirs: 401, code: "token_expired"},
		{name: "nbf ahead, within the leeway", opts: opts{NotBefore: at(5)}, theirs: 401},
		{name: "nbf ahead", opts: opts{NotBefore: at(6)}, theirs: 401, code: "token_not_yet_valid"},
		{name: "iat ahead, within the leeway", opts: opts{IssuedAt: at(5)}, theirs: 401},
		{name: "iat ahead", opts: opts{IssuedAt: at(6)}, theirs: 401, code: "token_not_yet_valid"},
		{name: "iat ahead, no leeway", theirs: 401, code: "token_not_yet_valid",
			auth: clerksync.AuthConfig{Leeway: -1}, opts: opts{IssuedAt: at(1)}},
	}
}

// classCases are tokens that are not the session of a user.
func classCases() []authCase {
	type opts = fakeclerk.TokenOptions
	type claims = map[string]any
	uncategorized := claims{"cat": "cl_I7d4PD111III"}
	return []authCase{
		{name: "no sub", claims: claims{"sub": nil}, theirs: 200, code: "token_wrong_class"},
		{name: "sub empty", claims: claims{"sub": ""}, theirs: 200, code: "token_wrong_class"},
		{name: "sub a machine's", subject: "mch_1", theirs: 200, code: "token_wrong_class"},
		{name: "sub only the prefix", subject: "user_", theirs: 200, code: "token_wrong_class"},
		{name: "sub a path", subject: "user_/../../jwks", theirs: 200, code: "token_wrong_class"},
		{name: "sub not a string", claims: claims{"sub": 5}, theirs: 403, code: "token_malformed"},
		{name: "no sid", claims: claims{"sid": nil}, theirs: 200, code: "token_wrong_class"},
		{name: "sid empty", claims: claims{"sid": ""}, theirs: 200, code: "token_wrong_class"},
		{name: "sid not a string", claims: claims{"sid": []int{1}}, theirs: 401, code: "token_malformed"},
		{name: "template token", opts: opts{Class: fakeclerk.TemplateToken}, theirs: 200, code: "token_wrong_class"},
		{name: "template token with a sid", theirs: 200, code: "token_wrong_class",
			opts: opts{Class: fakeclerk.TemplateToken}, claims: claims{"sid": "sess_1"}},
		{name: "template token, no cat", theirs: 200, code: "token_wrong_class",
			opts: opts{Class: fakeclerk.TemplateToken, Header: claims{"cat": nil}}},
		{name: "machine's token", theirs: 200, code: "token_wrong_class",
			subject: "mch_1", opts: opts{Class: fakeclerk.M2MToken}},
		{name: "machine's token, no cat", theirs: 200, code: "token_wrong_class",
			subject: "mch_1", opts: opts{Class: fakeclerk.M2MToken, Header: claims{"cat": nil}}},
		{name: "OAuth token", opts: opts{Class: fakeclerk.OAuthToken}, theirs: 200, code: "token_wrong_class"},
		{name: "OAuth token with a sid", theirs: 200, code: "token_wrong_class",
			opts: opts{Class: fakeclerk.OAuthToken}, claims: claims{"sid": "sess_1"}},
		{name: "OAuth token, typ JWT", theirs: 200, code: "token_wrong_class",
			opts: opts{Class: fakeclerk.OAuthToken, Header: claims{"typ": "JWT"}}},
		{name: "opaque machine token", theirs: 403, code: "token_wrong_class",
			opts: opts{Class: fakeclerk.OpaqueM2MToken}},
		{name: "opaque OAuth token", theirs: 403, code: "token_wrong_class",
			opts: opts{Class: fakeclerk.OpaqueOAuthToken}},
		{name: "API key", opts: opts{Class: fakeclerk.APIKey}, theirs: 403, code: "token_wrong_class"},
		{name: "another opaque machine token", theirs: 403, code: "token_wrong_class", change: becomes("m2m_2abc")},
		{name: "no categories", opts: opts{Header: uncategorized}, theirs: 200},
		{name: "no categories, pending", theirs: 200, code: "session_pending",
			opts: opts{Header: uncategorized, Pending: true}},
		{name: "no categories, template token", theirs: 200, code: "token_wrong_class",
			opts: opts{Class: fakeclerk.TemplateToken, Header: uncategorized}},
		{name: "no categories, machine's token", theirs: 200, code: "token_wrong_class",
			subject: "mch_1", opts: opts{Class: fakeclerk.M2MToken, Header: uncategorized}},
		{name: "no categories, OAuth token", theirs: 200, code: "token_wrong_class",
			opts: opts{Class: fakeclerk.OAuthToken, Header: uncategorized}},
		{name: "no categories, OAuth token with a sid", theirs: 200, code: "token_wrong_class",
			opts: opts{Class: fakeclerk.OAuthToken, Header: uncategorized}, claims: claims{"sid": "sess_1"}},
		{name: "no categories, OAuth token, typ JWT", theirs: 200, code: "token_wrong_class",
			opts: opts{Class: fakeclerk.OAuthToken, Header: claims{"cat": "cl_I7d4PD111III", "typ": "JWT"}}},
		{name: "no categories, wrong key", theirs: 401, code: "token_bad_signature",
			opts: opts{Header: uncategorized, WrongKey: true}},
		{name: "cat like that of no categories", theirs: 200, code: "token_wrong_class",
			opts: opts{Header: claims{"cat": "cl_I7d4PD222III"}}},
		{name: "cat empty", opts: opts{Header: claims{"cat": ""}}, theirs: 200, code: "token_wrong_class"},
		{name: "cat unknown, wrong key", theirs: 401, code: "token_bad_signature",
			opts: opts{Header: claims{"cat": "cl_unknown"}, WrongKey: true}},
		{name: "cat unknown", opts: opts{Header: claims{"cat": "cl_unknown"}}, theirs: 200, code: "token_wrong_class"},
		{name: "cat not a string", opts: opts{Header: claims{"cat": 1}}, theirs: 200, code: "token_wrong_class"},
		{name: "typ unknown", opts: opts{Header: claims{"typ": "dpop+jwt"}}, theirs: 200, code: "token_wrong_class"},
		{name: "typ not a string", opts: opts{Header: claims{"typ": 1}}, theirs: 200, code: "token_wrong_class"},
		{name: "pending", opts: opts{Pending: true}, theirs: 200, code: "session_pending"},
		{name: "pending, allowed", theirs: 200,
			auth: clerksync.AuthConfig{AllowPending: true}, opts: opts{Pending: true}},
		{name: "v 3", claims: claims{"v": 3}, theirs: 200, code: "token_malformed"},
		{name: "v 0", claims: claims{"v": 0}, theirs: 200, code: "token_malformed"},
		{name: "v a text", claims: claims{"v": "2"}, theirs: 401, code: "token_malformed"},
		{name: "a user whom Clerk does not know", subject: "user_ghost", theirs: 200, code: "user_unknown"},
	}
}

// signatureCases are about the key, the algorithm and the signature.
func signatureCases() []authCase {
	type opts = fakeclerk.TokenOptions
	type sdk = []clerkhttp.AuthorizationOption
	type claims = map[string]any
	own := clerksync.AuthConfig{JWTKey: testSigner().pem}
	sdkOwn := sdk{clerkhttp.JSONWebKey(testSigner().pem)}
	modulus := base64.RawURLEncoding.EncodeToString(testSigner().key.N.Bytes())
	jwk := `{"kty":"RSA","e":"AQAB","n":"` + modulus + `"}`
	return []authCase{
		{name: "wrong key", opts: opts{WrongKey: true}, theirs: 401, code: "token_bad_signature"},
		{name: "unknown kid", opts: opts{KeyID: "ins_unknown"}, theirs: 401, code: "token_unknown_key"},
		{name: "no kid", opts: opts{Header: claims{"kid": nil}}, theirs: 401, code: "token_unknown_key"},
		{name: "kid not a string", opts: opts{Header: claims{"kid": 1}}, theirs: 403, code: "token_malformed"},
		{name: "alg none", opts: opts{Algorithm: "none"}, theirs: 401, code: "token_bad_signature"},
		{name: "alg none, in capitals", theirs: 401, code: "token_bad_signature",
			opts: opts{Algorithm: "none", Header: claims{"alg": "NONE"}}},
		{name: "alg HS256 with the public key", theirs: 401, code: "token_bad_signature",
			opts: opts{Algorithm: "HS256"}},
		{name: "alg HS256 with the public key that is set", theirs: 401, code: "token_bad_signature",
			auth: own, sdk: sdkOwn, opts: opts{Algorithm: "HS256"}},
		{name: "alg RS512", opts: opts{Header: claims{"alg": "RS512"}}, theirs: 401, code: "token_bad_signature"},
		{name: "no alg", opts: opts{Header: claims{"alg": nil}}, theirs: 401, code: "token_bad_signature"},
		{name: "a header that must be understood", theirs: 401, code: "token_bad_signature",
			opts: opts{Header: claims{"crit": []string{"x"}, "x": 1}}},
		{name: "a key in the header", theirs: 401, code: "token_bad_signature",
			opts: opts{WrongKey: true, Header: claims{"jwk": json.RawMessage(jwk)}}},
		{name: "payload changed", change: inParts(func(h, p, s string) string {
			return h + "." + tampered(p, `"sub":"user_`, `"sub":"user_x`) + "." + s
		}),
			theirs: 401, code: "token_bad_signature"},
		{name: "header changed", opts: opts{Class: fakeclerk.TemplateToken}, claims: claims{"sid": "sess_1"},
			change: inParts(func(h, p, s string) string { return tampered(h, "222", "111") + "." + p + "." + s }),
			theirs: 401, code: "token_bad_signature"},
		{name: "signature changed", theirs: 401, code: "token_bad_signature",
			change: inParts(func(h, p, s string) string { return h + "." + p + "." + tampered(s, "", "x") })},
		{name: "signature cut off", theirs: 401, code: "token_bad_signature",
			change: inParts(func(h, p, s string) string { return h + "." + p + "." + s[:100] })},
		{name: "no signature", theirs: 401, code: "token_bad_signature",
			change: inParts(func(h, p, _ string) string { return h + "." + p + "." })},
		{name: "signature of another token", change: inParts(func(h, p, _ string) string {
			return h + "." + p + "." + strings.Split(testSigner().sign(sessionHeader, "{}"), ".")[2]
		}), theirs: 401, code: "token_bad_signature"},
		// Unused bits are set. The bytes are the same, but this text was not signed.
		{name: "spare bits set", theirs: 200, code: "token_malformed",
			change: inParts(func(h, p, s string) string {
				return spareBits(h) + "." + spareBits(p) + "." + spareBits(s)
			})},
	}
}

// formCases are about the token's form.
func formCases() []authCase {
	type claims = map[string]any
	noCat := fakeclerk.TokenOptions{Header: claims{"cat": nil}}
	return []authCase{
		{name: "JSON form", change: inParts(func(h, p, s string) string {
			return `{"protected":"` + h + `","payload":"` + p + `","signature":"` + s + `"}`
		}), theirs: 200, code: "token_malformed"},
		{name: "JSON form with two dots in it", change: inParts(func(h, p, s string) string {
			return `{"protected":"` + h + `","payload":"` + p + `","signature":"` + s + `","x":".."}`
		}), theirs: 200, code: "token_malformed"},
		{name: "JSON form with an unprotected cat", opts: noCat, change: inParts(func(h, p, s string) string {
			return `{"protected":"` + h + `","header":{"cat":"cl_B7d4PD111AAA","x":".."},` +
				`"payload":"` + p + `","signature":"` + s + `"}`
		}), theirs: 200, code: "token_malformed"},
		{name: "a dot more", theirs: 403, code: "token_malformed",
			change: func(token string) string { return token + "." }},
		{name: "a part more", theirs: 403, code: "token_malformed",
			change: func(token string) string { return token + ".e30" }},
		{name: "a part less", theirs: 403, code: "token_malformed",
			change: inParts(func(h, p, _ string) string { return h + "." + p })},
		{name: "only dots", change: becomes(".."), theirs: 403, code: "token_malformed"},
		{name: "no header", theirs: 401, code: "token_malformed",
			change: inParts(func(_, p, s string) string { return "." + p + "." + s })},
		{name: "no payload", theirs: 403, code: "token_malformed",
			change: inParts(func(h, _, s string) string { return h + ".." + s })},
		{name: "line break in it", theirs: 200, code: "token_malformed",
			change: func(token string) string { return token[:50] + "\r\n" + token[50:] }},
		{name: "line break in its signature", theirs: 200, code: "token_malformed",
			change: func(token string) string { return token[:len(token)-9] + "\n" + token[len(token)-9:] }},
		{name: "white space in it", theirs: 200, code: "token_malformed",
			change: func(token string) string { return token[:50] + " \t" + token[50:] }},
		{name: "no-break space in it", theirs: 200, code: "token_malformed",
			change: func(token string) string { return token[:50] + "\u00a0" + token[50:] }},
		{name: "padded", theirs: 200, code: "token_malformed",
			change: func(token string) string { return token + "==" }},
		{name: "in quotes", theirs: 403, code: "token_malformed",
			change: func(token string) string { return `"` + token + `"` }},
		{name: "standard base64", change: becomes("eyJ+/w.e30.e30"), theirs: 403, code: "token_malformed"},
		{name: "not base64", change: becomes("!!!.???.%%%"), theirs: 403, code: "token_malformed"},
		{name: "not JSON", change: becomes("Zm9v.YmFy.YmF6"), theirs: 403, code: "token_malformed"},
		{name: "not a JWT", change: becomes("token"), theirs: 403, code: "token_malformed"},
		{name: "encrypted", theirs: 403, code: "token_malformed",
			change: becomes("eyJhbGciOiJSU0EtT0FFUCJ9.e30.e30.e30.e30")},
		{name: "huge", claims: claims{"plan": strings.Repeat("x", 16<<10)}, theirs: 200, code: "token_malformed"},
		{name: "large", claims: claims{"plan": strings.Repeat("x", 8<<10)}, theirs: 200},
		{name: "claims null", payload: "null", theirs: 401, code: "token_wrong_class"},
		{name: "claims an array", payload: "[]", theirs: 403, code: "token_malformed"},
		{name: "claims a text", payload: `"claims"`, theirs: 403, code: "token_malformed"},
		{name: "claims not JSON", payload: `{"sub":`, theirs: 403, code: "token_malformed"},
		{name: "a claim twice", payload: claimsJSON("user_evil", `,"sub":"ID"`), theirs: 403, code: "token_malformed"},
		{name: "a claim twice, once escaped", theirs: 403, code: "token_malformed",
			payload: claimsJSON("user_evil", `,"s\u0075b":"ID"`)},
		{name: "custom claim Sub, escaped", theirs: 200, code: "token_malformed",
			payload: claimsJSON("user_mallory", `,"\u0053ub":"ID"`)},
		{name: "custom claims with odd names and values", theirs: 200,
			payload: claimsJSON("ID", ` , "a\"b\\":"Sub", "Plan" : {"Sub":"x","sub":["SID",{"Exp":2}]}, "":"v",`+
				` "é":[["O"]], "\u003c":"\\"`)},
		{name: "a header twice", theirs: 403, code: "token_malformed",
			head: `{"alg":"none","alg":"RS256"}`, payload: claimsJSON("ID", "")},
	}
}

// headerCases are about the Authorization header.
func headerCases() []authCase {

	return []authCase{
		{name: "bearer", header: headerForm("bearer TOKEN"), theirs: 403},
		{name: "BEARER and two spaces", header: headerForm("BEARER  TOKEN"), theirs: 403},
		{name: "Bearer and two spaces", header: headerForm("Bearer  TOKEN"), theirs: 200},
		{name: "spaces around", header: headerForm("  Bearer TOKEN  "), theirs: 200},
		{name: "Bearer alone", header: headerForm("Bearer"), theirs: 403, code: "token_missing"},
		{name: "Bearer and spaces", header: headerForm("Bearer   "), theirs: 403, code: "token_missing"},
		{name: "Bearer, no space", header: headerForm("BearerTOKEN"), theirs: 403, code: "token_missing"},
		{name: "Bearer: and a token", header: headerForm("Bearer: TOKEN"), theirs: 403, code: "token_missing"},
		{name: "Bearer Bearer", header: headerForm("Bearer Bearer TOKEN"), theirs: 403, code: "token_malformed"},
		{name: "two tokens in one", theirs: 403, code: "token_malformed",
			header: headerForm("Bearer TOKEN, Bearer TOKENx")},
		{name: "one token twice in one", theirs: 403, header: headerForm("Bearer TOKEN, Bearer TOKEN")},
		{name: "one token twice in one, with Basic between", theirs: 403,
			header: headerForm("bearer TOKEN,Basic dXNlcjpwYXNz,BEARER  TOKEN")},
		{name: "one bad token twice", theirs: 403, code: "token_malformed", header: headerForm("Bearer x, Bearer x")},
		{name: "Basic", header: headerForm("Basic dXNlcjpwYXNz"), theirs: 403, code: "token_missing"},
		{name: "Basic with a token", header: headerForm("Basic TOKEN"), theirs: 403, code: "token_missing"},
		{name: "no scheme", header: headerForm("TOKEN"), theirs: 200, code: "token_missing"},
		{name: "empty", header: headerForm(""), theirs: 403, code: "token_missing"},
		{name: "none", header: noHeader, theirs: 403, code: "token_missing"},
		{name: "two", theirs: 200, code: "token_malformed",
			header: func(token string) []string { return []string{"Bearer " + token, "Bearer " + token + "x"} }},
		{name: "two, the same", theirs: 200,
			header: func(token string) []string { return []string{"Bearer " + token, "bearer  " + token + " "} }},
		{name: "two, the same, and a third", theirs: 200, code: "token_malformed",
			header: func(token string) []string { return []string{"Bearer " + token, "Bearer " + token, "Bearer x"} }},
		{name: "two, one of them Basic", theirs: 403,
			header: func(token string) []string { return []string{"Basic dXNlcjpwYXNz", "Bearer " + token} }},
		{name: "two, the second Basic", theirs: 200,
			header: func(token string) []string { return []string{"Bearer " + token, "Basic dXNlcjpwYXNz"} }},
		{name: "two, one of them null", theirs: 403,
			header: func(token string) []string { return []string{"Bearer null", "Bearer " + token} }},
		{name: "Basic and Bearer, joined", header: headerForm("Basic dXNlcjpwYXNz, Bearer TOKEN"), theirs: 403},
		{name: "Bearer and Basic, joined", header: headerForm("bearer TOKEN,Basic dXNlcjpwYXNz"), theirs: 403},
		{name: "Digest and Bearer, joined", theirs: 403,
			header: headerForm(`Digest username="a", realm="b c", nonce="d" , BEARER TOKEN`)},
		{name: "Bearer and more after a comma", theirs: 403, code: "token_malformed",
			header: headerForm("Bearer TOKEN,TOKEN")},
		{name: "Bearer and a comma", header: headerForm("Bearer TOKEN,"), theirs: 403, code: "token_malformed"},
		{name: "Bearer null", header: headerForm("Bearer null"), theirs: 403, code: "token_missing"},
		{name: "Bearer undefined", header: headerForm("Bearer undefined"), theirs: 403, code: "token_missing"},
		{name: "bearer NULL", header: headerForm("bearer  NULL "), theirs: 403, code: "token_missing"},
		{name: "Bearer nil", header: headerForm("Bearer nil"), theirs: 403, code: "token_missing"},
		{name: "Bearer nullified", header: headerForm("Bearer nullified"), theirs: 403, code: "token_malformed"},
		{name: "Bearer an object", theirs: 403, code: "token_malformed", header: headerForm("Bearer [object Promise]")},
	}
}

// cookieCases are about the cookie, which the SDK ignores.
func cookieCases() []authCase {
	type opts = fakeclerk.TokenOptions
	type sdk = []clerkhttp.AuthorizationOption
	at := func(seconds int) time.Time { return t0.Add(time.Duration(seconds) * time.Second) }
	sdkParties := sdk{clerkhttp.AuthorizedPartyMatches(appOrigin, "http://localhost:3000")}
	cookies := clerksync.AuthConfig{Cookie: true, AuthorizedParties: []string{appOrigin}}
	own := opts{AuthorizedParty: appOrigin}
	return []authCase{
		{name: "cookie, off", header: noHeader, cookie: sameToken, theirs: 403, code: "token_missing"},
		{name: "cookie", theirs: 403,
			auth: cookies, opts: opts{AuthorizedParty: appOrigin}, header: noHeader, cookie: sameToken},
		{name: "cookie of another origin", theirs: 403, code: "token_wrong_party",
			auth: cookies, opts: opts{AuthorizedParty: otherOrigin}, header: noHeader, cookie: sameToken},
		{name: "cookie without azp", theirs: 403, code: "token_wrong_party",
			auth: cookies, header: noHeader, cookie: sameToken},
		{name: "cookie expired", theirs: 403, code: "token_expired",
			auth: cookies, opts: opts{AuthorizedParty: appOrigin, IssuedAt: at(-90)},
			header: noHeader, cookie: sameToken},
		{name: "cookie empty", theirs: 403, code: "token_missing",
			auth: cookies, header: noHeader, cookie: becomes("")},
		{name: "cookie nonsense", theirs: 403, code: "token_malformed",
			auth: cookies, header: noHeader, cookie: becomes("nonsense")},
		{name: "header, and a worse cookie", theirs: 200,
			auth: cookies, sdk: sdkParties, opts: opts{AuthorizedParty: appOrigin}, cookie: becomes("nonsense")},
		{name: "cookie, and a worse header", theirs: 403, code: "token_malformed",
			auth: cookies, opts: own, header: headerForm("Bearer nonsense"), cookie: sameToken},
		{name: "cookie, and a Basic header", theirs: 403,
			auth: cookies, opts: own, header: headerForm("Basic dXNlcjpwYXNz"), cookie: sameToken},
		{name: "cookie, and a null header", theirs: 403,
			auth: cookies, opts: own, header: headerForm("Bearer null"), cookie: sameToken},
		{name: "cookie, and an empty header", theirs: 403,
			auth: cookies, opts: own, header: headerForm("Bearer "), cookie: sameToken},
		{name: "cookie, and two Basic headers", theirs: 403, auth: cookies, opts: own, cookie: sameToken,
			header: func(string) []string { return []string{"Basic dXNlcjpwYXNz", "Basic dXNlcjpwYXNz"} }},
		{name: "cookie, and two bearer tokens", theirs: 200, code: "token_malformed", auth: cookies, opts: own, cookie: sameToken,
			header: func(token string) []string { return []string{"Bearer " + token, "Bearer x"} }},
		{name: "cookie null", theirs: 403, code: "token_missing", auth: cookies, header: noHeader, cookie: becomes("null")},
		{name: "cookie undefined", theirs: 403, code: "token_missing",
			auth: cookies, header: noHeader, cookie: becomes("undefined")},
		{name: "cookie without azp, allowed for headers", theirs: 403, code: "token_wrong_party", auth: clerksync.AuthConfig{
			Cookie: true, AuthorizedParties: []string{appOrigin}, AllowNoParty: true,
		}, header: noHeader, cookie: sameToken},
		{name: "cookie expired, to the leeway", theirs: 403, code: "token_expired",
			auth: cookies, opts: opts{AuthorizedParty: appOrigin, IssuedAt: at(-65)}, header: noHeader, cookie: sameToken},
	}
}

// issuerCases are about iss, with and without AuthConfig.Issuer.
func issuerCases() []authCase {
	var cases []authCase
	for _, tt := range []struct {
		issuer string
		exact  bool // AuthConfig.Issuer is set, to proxyURL
		theirs int
		ours   int
	}{
		{"https://clerk.example.com", false, 200, 200},
		{"https://clerk.app.example.co.uk", false, 200, 200},
		{"https://happy-cat-42.clerk.accounts.dev", false, 200, 200},
		{proxyURL, true, 200, 200},
		{proxyURL, false, 401, 401},
		{"https://clerk.example.com", true, 401, 401},
		{proxyURL + "/", true, 401, 401},
		{"", false, 401, 401},
		{"", true, 401, 401},
		{"https://evil.com/.clerk.accounts", false, 200, 401},
		{"https://evil.com/.clerk.accounts.dev", false, 200, 401},
		{"https://evil.com?.clerk.accounts.dev", false, 200, 401},
		{"https://evil.com#.clerk.accounts.dev", false, 200, 401},
		{"https://clerk.evil", false, 200, 401},
		{"https://clerk.", false, 200, 401},
		{"https://clerk.x.com/path", false, 200, 401},
		{"https://clerk.x.com?a=1", false, 200, 401},
		{"https://clerk.x.com#a", false, 200, 401},
		{"https://clerk.x.com@evil.com", false, 200, 401},
		{"https://clerk.evil@clerk.x.com", false, 200, 401},
		{"https://clerk.x.com:8443", false, 200, 401},
		{"http://clerk.x.com", false, 401, 401},
		{"http://a.clerk.accounts.dev", false, 200, 401},
		{"https://a.clerk.accounts.dev.evil.com", false, 200, 401},
		{"https://a.clerk.accounts.evil.com", false, 200, 401},
		{"https://.clerk.accounts.dev", false, 200, 401},
		{"https://clerk.accounts.dev.evil", false, 200, 200}, // of the form of a domain's: the keys decide
		{"https://aclerk.accounts.dev", false, 401, 401},
		{"clerk.example.com", false, 401, 401},
		{"a.clerk.accounts.dev", false, 200, 401},
		{"https://xclerk.example.com", false, 401, 401},
		{"https://clerk.x.com%zz", false, 200, 401},
	} {
		c := authCase{
			name: fmt.Sprintf("issuer %q", tt.issuer), claims: map[string]any{"iss": tt.issuer}, theirs: tt.theirs,
		}
		if tt.exact {
			c.name += " with Issuer set"
			c.auth.Issuer = proxyURL
			c.sdk = []clerkhttp.AuthorizationOption{clerkhttp.ProxyURL(proxyURL)}
		}
		if tt.ours != 200 {
			c.code = "token_wrong_issuer"
		}
		cases = append(cases, c)
	}
	return cases
}
