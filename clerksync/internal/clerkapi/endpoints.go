package clerkapi

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"net/url"
	"strconv"
	"time"

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

// Users reads the users with these ids, at most [MaxUserIDs], in one call. It leaves out those that
// do not exist. asOf is when this was Clerk's latest state. The caller has checked the ids with
// [ValidUserID]. The error is an [*Error].
func (c *Client) Users(ctx context.Context, ids []string) (users []ListedUser, asOf time.Time, err error) {
	const op = "list users"
	release, err := c.acquireSlot(ctx, op)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer release()
	var call callInfo
	params := url.Values{"user_id": ids, "limit": {strconv.Itoa(MaxUserIDs)}} // without a limit Clerk answers ten
	err = c.get(ctx, c.backend, &call, op, "/users", params, func(answer json.RawMessage) (err error) {
		users, err = ParsePage(answer)
		return err
	})
	return users, call.sentAt, err
}

// acquireSlot waits until fewer than [MaxUserCalls] calls are under way. The caller releases
// the slot.
func (c *Client) acquireSlot(ctx context.Context, op string) (release func(), err error) {
	if ctx.Err() != nil {
		return nil, &Error{op: op, err: context.Cause(ctx)}
	}
	select {
	case c.userSlot <- struct{}{}:
		return func() { <-c.userSlot }, nil
	case <-ctx.Done():
		return nil, &Error{op: op, err: context.Cause(ctx)}
	}
}
