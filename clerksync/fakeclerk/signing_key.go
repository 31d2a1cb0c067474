package fakeclerk

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/go-jose/go-jose/v3"
)

// keyBits is the size of Clerk's RSA keys.
const keyBits = 2048

// signingKeys holds the signing keys of this process by kid. A key takes about a tenth of a second to
// make, and many tests never sign a token, so each is made on first use.
var signingKeys sync.Map // kid string → func() *rsa.PrivateKey

// signingKey returns the key for a kid, and makes it if there is none.
func signingKey(kid string) *rsa.PrivateKey {
	key, _ := signingKeys.LoadOrStore(kid, sync.OnceValue(newKey))
	return key.(func() *rsa.PrivateKey)()
}

func newKey() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		panic(fmt.Errorf("fakeclerk: %w", err)) // the system has no random numbers
	}
	return key
}

// kid returns the id of the key that signs.
func (s *Server) kid() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kids[len(s.kids)-1]
}

// RotateKey makes a new signing key with a new kid. Tokens made from now on are signed with it. The
// previous keys stay in the JWKS until [Server.RetireKeys], so the tokens they signed stay valid.
func (s *Server) RotateKey() {
	kid := s.ids.id("ins_")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kids = append(s.kids, kid)
}

// RetireKeys removes all keys from the JWKS except the one that signs.
func (s *Server) RetireKeys() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kids = s.kids[len(s.kids)-1:]
}

// JWTKey returns the public half of the signing key in PEM ("PUBLIC KEY", PKIX), as the Dashboard shows
// it for CLERK_JWT_KEY.
func (s *Server) JWTKey() string {
	return publicPEM(signingKey(s.kid()))
}

func publicPEM(key *rsa.PrivateKey) string {
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		panic(fmt.Errorf("fakeclerk: %w", err)) // an RSA key always encodes
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// sign makes a compact JWS. JOSE libraries refuse to make the forged ones.
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

// The Backend API serves the keys to requests with the secret key. The path of the Frontend API
// needs no key.
const (
	jwksRoute       = "GET /v1/jwks"
	publicJWKSRoute = "GET /.well-known/jwks.json"
)

// getJWKS is GET /jwks.
func (s *Server) getJWKS(*http.Request) answer {
	s.mu.Lock()
	kids := slices.Clone(s.kids)
	s.mu.Unlock()
	var set jose.JSONWebKeySet
	for _, kid := range kids {
		set.Keys = append(set.Keys, jose.JSONWebKey{
			Key: &signingKey(kid).PublicKey, KeyID: kid, Algorithm: string(jose.RS256), Use: "sig",
		})
	}
	return ok(set)
}
