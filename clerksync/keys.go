package clerksync

import (
	"context"
	"crypto/rsa"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"golang.org/x/sync/singleflight"
)

const (
	// keysFor is how long fetched keys count as current; from the fetch on,
	// however often they are used.
	keysFor = time.Hour
	// keysAgainAfter is the least time between two fetches, however many unknown
	// key ids arrive.
	keysAgainAfter = 10 * time.Second
	// keysAgainAfterFailure is the same after a fetch that failed.
	keysAgainAfterFailure = time.Second
	// minKeyBits is the smallest RSA key that is trusted.
	minKeyBits = 2048
)

// keySet is the public keys of one Clerk instance at one time; immutable.
type keySet struct {
	byID      map[string]*rsa.PublicKey
	fetchedAt time.Time
}

// keyring holds the keys that a Clerk instance signs session tokens with, fetched
// with the instance's own credentials.
type keyring struct {
	api     *clerkAPI // nil: the one key is given
	clock   clock
	track   func() (done func())
	current atomic.Pointer[keySet]
	flight  singleflight.Group

	mu      sync.Mutex
	triedAt time.Time // zero: never
	failure error     // of the last fetch
}

// newStaticKeyring returns a keyring of one key that signs whatever the key id: no
// key is ever fetched.
func newStaticKeyring(key *rsa.PublicKey) *keyring {
	k := &keyring{}
	k.current.Store(&keySet{byID: map[string]*rsa.PublicKey{anyKeyID: key}})
	return k
}

// anyKeyID is no key's id.
const anyKeyID = ""

// set returns the keys where they need no fetch, else nil.
func (k *keyring) set(now time.Time) *keySet {
	set := k.current.Load()
	if set == nil || k.api != nil && now.Sub(set.fetchedAt) >= keysFor {
		return nil
	}
	return set
}

// key returns the key with this id and the set it is from. It fetches the keys
// where it has none, where those at hand are too old (and goes on with them if
// Clerk is down), and where they lack the id. The error matches ErrUnavailable
// where Clerk was asked in vain and ErrUnauthenticated where the key is unknown.
func (k *keyring) key(ctx context.Context, id string) (*rsa.PublicKey, *keySet, error) {
	if k.api == nil {
		set := k.current.Load()
		return set.byID[anyKeyID], set, nil
	}
	if set := k.set(k.clock.Now()); set != nil && set.byID[id] != nil {
		return set.byID[id], set, nil
	}
	fetched := k.fetch(ctx)
	if set := k.current.Load(); set != nil && set.byID[id] != nil && k.failing() {
		return set.byID[id], set, nil // too old, and nobody waits for a fetch that will fail
	}
	var failure error
	select {
	case res := <-fetched:
		failure = res.Err
	case <-ctx.Done():
		failure = unavailable(context.Cause(ctx))
	}
	set := k.current.Load()
	switch {
	case set != nil && set.byID[id] != nil:
		return set.byID[id], set, nil
	case failure != nil:
		return nil, nil, failure
	default:
		return nil, nil, unauthenticated(codeUnknownKey, "signed with a key that this Clerk instance does not have")
	}
}

// failing reports whether the last fetch failed.
func (k *keyring) failing() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failure != nil
}

// fetch reads the keys from Clerk, unless it lately did; its error is that of the
// last attempt. One runs at a time, on a goroutine and a deadline of its own.
func (k *keyring) fetch(ctx context.Context) <-chan singleflight.Result {
	return k.flight.DoChan("", func() (any, error) {
		defer k.track()()
		k.mu.Lock()
		now, wait := k.clock.Now(), keysAgainAfter
		if k.failure != nil {
			wait = keysAgainAfterFailure
		}
		recent, failure := !k.triedAt.IsZero() && now.Sub(k.triedAt) < wait, k.failure
		if !recent {
			k.triedAt = now
		}
		k.mu.Unlock()
		if recent {
			return nil, failure
		}
		ctx, cancel := withTimeout(context.WithoutCancel(ctx), k.clock, callTimeout)
		defer cancel()
		keys, err := k.api.keys(ctx)
		if err != nil {
			err = unavailable(err)
		} else {
			k.current.Store(&keySet{byID: keys, fetchedAt: now})
		}
		k.mu.Lock()
		k.failure = err
		k.mu.Unlock()
		return nil, err
	})
}

// keys reads the instance's JSON Web Key Set, by key id.
func (a *clerkAPI) keys(ctx context.Context) (map[string]*rsa.PublicKey, error) {
	call := &callInfo{sentAt: a.clock.Now()}
	var set clerk.JSONWebKeySet
	err := a.backend.Call(context.WithValue(ctx, callInfoKey{}, call), clerk.NewAPIRequest(http.MethodGet, "/jwks"), &set)
	if err != nil {
		return nil, describe(ctx, "get keys", call, err)
	}
	keys := make(map[string]*rsa.PublicKey)
	for _, k := range set.Keys {
		if k == nil || k.KeyID == anyKeyID || k.Algorithm != signatureAlgorithm || k.Use != "" && k.Use != "sig" {
			continue
		}
		if key, ok := k.Key.(*rsa.PublicKey); ok && key.N.BitLen() >= minKeyBits {
			keys[k.KeyID] = key
		}
	}
	if len(keys) == 0 {
		return nil, &clerkError{op: "get keys", status: call.status, err: errors.New("the answer holds no key that signs session tokens")}
	}
	return keys, nil
}
