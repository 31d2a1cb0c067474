package clerkapi

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"

	"github.com/clerk/clerk-sdk-go/v2"
)

const (
	// SigningAlgorithm is the only one that Clerk signs session tokens with.
	SigningAlgorithm = "RS256"
	// MinKeyBits is the size of the smallest RSA key that is trusted.
	MinKeyBits = 2048
)

// SigningKeys reads the keys that sign the instance's session tokens, by key id. The
// error is an [*Error].
func (c *Client) SigningKeys(ctx context.Context) (map[string]*rsa.PublicKey, error) {
	const op = "get keys"
	var set struct{ Keys []json.RawMessage }
	var call callInfo
	err := c.get(ctx, c.backend, &call, op, "/jwks", nil, func(answer json.RawMessage) error {
		_ = json.Unmarshal(answer, &set) // anything else holds no keys
		return nil
	})
	if err != nil {
		return nil, err
	}
	keys := make(map[string]*rsa.PublicKey)
	for _, raw := range set.Keys {
		var k clerk.JSONWebKey
		if json.Unmarshal(raw, &k) != nil || k.KeyID == "" || k.Algorithm != SigningAlgorithm || k.Use != "" && k.Use != "sig" {
			continue // RFC 7517, section 5: ignore keys that are not understood
		}
		if key, ok := k.Key.(*rsa.PublicKey); ok && key.N.BitLen() >= MinKeyBits {
			keys[k.KeyID] = key
		}
	}
	if len(keys) == 0 {
		return nil, &Error{op: op, status: call.status, err: errors.New("the answer holds no key that signs session tokens")}
	}
	return keys, nil
}
