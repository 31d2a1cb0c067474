package sessiontoken

import (
	"crypto/rsa"
	"encoding/json"
	"errors"
	"strings"

	josejson "github.com/go-jose/go-jose/v3/json"
	"github.com/golang-jwt/jwt/v5"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
)

const (
	// sessionCategory is the "cat" header of a session token. Older tokens have none.
	//
	// This and the next: https://github.com/clerk/javascript: packages/backend/src/tokens/jwtCategories.ts
	sessionCategory = "cl_B7d4PD111AAA"
	// noCategory is on the tokens of every class if the instance opted out of categories.
	noCategory = "cl_I7d4PD111III"
	// maxTokenBytes is far more than any session token has; a cookie holds 4096.
	maxTokenBytes = 16 << 10
)

// otherCategories are the tokens that Clerk signs with the same keys.
var otherCategories = map[string]string{
	"cl_B7d4PD222AAA": "a JWT template's token",
	"cl_B7d4PD333AAA": "a machine's token",
}

// opaquePrefixes are those of Clerk's tokens that are not JWTs.
var opaquePrefixes = map[string]string{
	"mt_":  "an opaque machine token",
	"m2m_": "an opaque machine token",
	"oat_": "an opaque OAuth token",
	"ak_":  "an API key",
}

// parsedToken is a token taken apart. Nothing in it can be believed before verify.
type parsedToken struct {
	keyID     string
	category  any    // the "cat" header; nil: none
	signed    string // header and payload, as they were signed
	signature []byte
	payload   []byte
}

// verify checks the signature.
func (t *parsedToken) verify(key *rsa.PublicKey) error {
	return jwt.SigningMethodRS256.Verify(t.signed, t.signature, key)
}

// parser takes the exact text that was signed: no other encoding of the same bytes.
var parser = jwt.NewParser(jwt.WithStrictDecoding())

// parse checks the form of a token, and what its header says about its class.
func parse(token string) (*parsedToken, error) {
	for prefix, class := range opaquePrefixes {
		if strings.HasPrefix(token, prefix) {
			return nil, refuse(WrongClass, class)
		}
	}
	if len(token) > maxTokenBytes {
		return nil, refuse(Malformed, "too long")
	}
	if strings.IndexByte(token, '\r') >= 0 || strings.IndexByte(token, '\n') >= 0 { // the parser would skip them
		return nil, refuse(Malformed, "it has a line break")
	}
	t, parts, err := parser.ParseUnverified(token, &unreadClaims{})
	switch {
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return nil, refuse(BadSignature, notRS256)
	case err != nil:
		return nil, refuse(Malformed, "not a JWT in the compact form")
	}
	header, _ := parser.DecodeSegment(parts[0]) // ParseUnverified decoded both
	payload, _ := parser.DecodeSegment(parts[1])
	keyID, err := checkHeader(t.Header, header)
	if err != nil {
		return nil, err
	}
	return &parsedToken{
		keyID: keyID, category: t.Header["cat"], signed: token[:strings.LastIndexByte(token, '.')],
		signature: t.Signature, payload: payload,
	}, nil
}

const notRS256 = "not signed with " + clerkapi.SigningAlgorithm

// unreadClaims leaves the claims alone until the signature is verified.
type unreadClaims struct{ jwt.MapClaims }

func (*unreadClaims) UnmarshalJSON([]byte) error { return nil }

// headerNames are the names that checkHeader reads.
var headerNames = [][]byte{[]byte("alg"), []byte("crit"), []byte("kid"), []byte("typ"), []byte("cat")}

// checkHeader checks a header, decoded and as JSON, and returns its key id.
func checkHeader(header map[string]any, text []byte) (keyID string, err error) {
	if mayBeAmbiguous(text, headerNames) {
		var all map[string]json.RawMessage
		if err := josejson.Unmarshal(text, &all); err != nil { // it rejects a name that comes twice
			return "", refuse(Malformed, "not a JWT")
		}
	}
	if header["alg"] != clerkapi.SigningAlgorithm {
		return "", refuse(BadSignature, notRS256)
	}
	if _, ok := header["crit"]; ok { // RFC 7515, section 4.1.11: refuse what is not understood
		return "", refuse(BadSignature, "its header has critical extensions")
	}
	keyID, ok := header["kid"].(string)
	if !ok && header["kid"] != nil {
		return "", refuse(Malformed, "its key id is not a string")
	}
	return keyID, checkHeaderClass(header)
}

// checkHeaderClass refuses tokens whose header says that they are known not to be session
// tokens.
func checkHeaderClass(header map[string]any) error {
	if typ, ok := header["typ"]; ok && typ != "JWT" {
		return refuse(WrongClass, "not a session token by its typ, perhaps an OAuth token")
	}
	category, _ := header["cat"].(string)
	if class := otherCategories[category]; class != "" {
		return refuse(WrongClass, class)
	}
	return nil
}

// checkCategory refuses a category that this package does not know. The signature must be
// right: the error names the category, so that an operator can see what Clerk has changed.
func (t *parsedToken) checkCategory() error {
	switch t.category {
	case nil, sessionCategory, noCategory:
		return nil
	}
	name, ok := t.category.(string)
	if !ok {
		name = "not a string"
	}
	return &Error{
		Code: WrongClass, Check: UnknownCategory, Why: "not a session token by its category, which is unknown",
		Got: printable(name), Want: sessionCategory,
	}
}
