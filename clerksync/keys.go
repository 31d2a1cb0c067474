package clerksync

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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

	// expiredKeysWait is how long a request waits for the fetch of new keys where
	// the expired ones have its own.
	expiredKeysWait = time.Second
)

// keySet is the public keys of one Clerk instance at one time; immutable.
type keySet struct {
	byID       map[string]*rsa.PublicKey
	generation uint64 // moves when the keys do
	fetchedAt  time.Time
}

// next is the set after s (nil: none), of the same generation if it is of the same
// keys.
func (s *keySet) next(keys map[string]*rsa.PublicKey, at time.Time) *keySet {
	next := &keySet{byID: keys, generation: 1, fetchedAt: at}
	if s != nil {
		next.generation = s.generation
		if !maps.EqualFunc(s.byID, keys, func(a, b *rsa.PublicKey) bool { return a.Equal(b) }) {
			next.generation++
		}
	}
	return next
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
	expired := make(chan struct{})
	if set := k.current.Load(); set != nil && set.byID[id] != nil {
		if k.failing() {
			return set.byID[id], set, nil // nobody waits for a fetch that will fail
		}
		defer k.clock.AfterFunc(expiredKeysWait, func() { close(expired) })()
	}
	var failure error
	select {
	case res := <-fetched:
		failure = res.Err
	case <-expired:
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
	return k.flight.DoChan("", func() (_ any, err error) {
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
		defer func() {
			if p := recover(); p != nil { // of the app's Backend or HTTPClient; on this goroutine it would end the process
				err = fmt.Errorf("panic: %v", p)
			}
			if err != nil {
				err = unavailable(err)
			}
			k.mu.Lock()
			k.failure = err
			k.mu.Unlock()
		}()
		ctx, cancel := withTimeout(context.WithoutCancel(ctx), k.clock, callTimeout)
		defer cancel()
		keys, err := k.api.keys(ctx)
		if err == nil {
			k.current.Store(k.current.Load().next(keys, now))
		}
		return nil, err
	})
}

// keys reads the instance's JSON Web Key Set, by key id.
func (a *clerkAPI) keys(ctx context.Context) (map[string]*rsa.PublicKey, error) {
	var set struct{ Keys []json.RawMessage }
	call := &callInfo{}
	err := a.get(ctx, call, "get keys", "/jwks", nil, func(answer json.RawMessage) error {
		_ = json.Unmarshal(answer, &set) // anything else holds no keys
		return nil
	})
	if err != nil {
		return nil, err
	}
	keys := make(map[string]*rsa.PublicKey)
	for _, raw := range set.Keys {
		var k clerk.JSONWebKey
		if json.Unmarshal(raw, &k) != nil || k.KeyID == anyKeyID || k.Algorithm != signatureAlgorithm || k.Use != "" && k.Use != "sig" {
			continue // RFC 7517, section 5: what is not understood is ignored
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
