package fakeclerk

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"sync"
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
