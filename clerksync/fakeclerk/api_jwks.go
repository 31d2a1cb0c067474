package fakeclerk

import (
	"net/http"
	"slices"

	"github.com/go-jose/go-jose/v3"
)

const jwksRoute = "GET /v1/jwks"

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
