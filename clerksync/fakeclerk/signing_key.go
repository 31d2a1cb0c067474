package fakeclerk

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"sync"

	"github.com/go-jose/go-jose/v3"
)

// keyBits is the size of Clerk's signing keys.
const keyBits = 2048

// signingKeys holds the keys of this process by kid. They are made when first needed,
// since many tests never sign a token.
var signingKeys sync.Map // kid string → func() *rsa.PrivateKey

func signingKey(kid string) *rsa.PrivateKey {
	key, _ := signingKeys.LoadOrStore(kid, sync.OnceValue(newKey))
	return key.(func() *rsa.PrivateKey)()
}

func newKey() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		panic(fmt.Errorf("fakeclerk: %w", err)) // no fault of a caller's can lead here
	}
	return key
}

// kid returns the id of the key that signs.
func (s *Server) kid() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kids[len(s.kids)-1]
}

// RotateKey makes a new signing key, under a new kid, for the tokens to come. The keys
// that were stay in the JWKS, so tokens they signed stay valid, until
// [Server.RetireKeys].
func (s *Server) RotateKey() {
	kid := s.ids.id("ins_")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kids = append(s.kids, kid)
}

// RetireKeys takes all keys but the one that signs out of the JWKS.
func (s *Server) RetireKeys() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kids = s.kids[len(s.kids)-1:]
}

// JWTKey returns the public key of the signing key as PEM ("PUBLIC KEY", PKIX), as the
// Dashboard shows it for CLERK_JWT_KEY.
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

func (s *Server) getJWKS(*http.Request) answer {
	s.mu.Lock()
	kids := append([]string(nil), s.kids...)
	s.mu.Unlock()
	var set jose.JSONWebKeySet
	for _, kid := range kids {
		set.Keys = append(set.Keys, jose.JSONWebKey{
			Key: &signingKey(kid).PublicKey, KeyID: kid, Algorithm: string(jose.RS256), Use: "sig",
		})
	}
	return ok(set)
}
