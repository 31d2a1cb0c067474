package sessiontoken

import (
	"context"
	"crypto/rsa"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

const (
	// keysMaxAge is how long fetched keys count as current.
	keysMaxAge = time.Hour
	// fetchInterval is the least time between two fetches, however many unknown key ids
	// arrive.
	fetchInterval = 10 * time.Second
	// fetchIntervalAfterFailure is the same after a fetch that failed.
	fetchIntervalAfterFailure = time.Second

	// ExpiredKeysWait is how long a request waits for new keys if the expired ones have
	// the key it needs.
	ExpiredKeysWait = time.Second
)

// keySet is the public keys of one Clerk instance at one time. It is immutable.
type keySet struct {
	byID       map[string]*rsa.PublicKey
	generation uint64 // grows when the keys change
	fetchedAt  time.Time
}

// next is the set that follows s (nil: none). It has the same generation if it holds the
// same keys.
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

// Keyring holds the keys that a Clerk instance signs session tokens with. It is safe for
// concurrent use.
type Keyring struct {
	fetchKeys func(context.Context) (map[string]*rsa.PublicKey, error) // nil: the one key is given
	detached  func(func(context.Context) error) error
	clock     clock.Clock
	current   atomic.Pointer[keySet]
	fetching  singleflight.Group

	mu      sync.Mutex
	triedAt time.Time // zero: never
	failure error     // of the last fetch
}

// NewKeyring returns a Keyring that fetches the keys when it needs them. detached runs a
// fetch on the calling goroutine, with its own deadline and nothing of the request's
// context, and turns a panic into an error.
func NewKeyring(
	fetch func(context.Context) (map[string]*rsa.PublicKey, error),
	detached func(func(context.Context) error) error,
	c clock.Clock,
) *Keyring {
	return &Keyring{fetchKeys: fetch, detached: detached, clock: c}
}

// NewStaticKeyring returns a Keyring that never fetches: key signs every token, whatever
// the token's key id.
func NewStaticKeyring(key *rsa.PublicKey) *Keyring {
	k := &Keyring{}
	k.current.Store(&keySet{byID: map[string]*rsa.PublicKey{anyKeyID: key}})
	return k
}

// anyKeyID is not the id of a fetched key.
const anyKeyID = ""

// usable returns the keys, or nil if they must be fetched first.
func (k *Keyring) usable(now time.Time) *keySet {
	set := k.current.Load()
	if set == nil || k.fetchKeys != nil && now.Sub(set.fetchedAt) >= keysMaxAge {
		return nil
	}
	return set
}

// key returns the key with this id and the set it is from. It fetches the keys if it has
// none, if they lack the id, and if they are too old. If they are only too old, it falls
// back to them if Clerk is down or slower than ExpiredKeysWait. The error is an *Error if the key is unknown, else that of the fetch.
func (k *Keyring) key(ctx context.Context, id string) (*rsa.PublicKey, *keySet, error) {
	if k.fetchKeys == nil {
		set := k.current.Load()
		return set.byID[anyKeyID], set, nil
	}
	if set := k.usable(k.clock.Now()); set != nil && set.byID[id] != nil {
		return set.byID[id], set, nil
	}
	fetched := k.fetch()
	waitedEnough := make(chan struct{})
	if set := k.current.Load(); set != nil && set.byID[id] != nil {
		if k.failing() {
			return set.byID[id], set, nil // the last fetch failed: do not wait
		}
		defer k.clock.AfterFunc(ExpiredKeysWait, func() { close(waitedEnough) })()
	}
	var failure error
	select {
	case res := <-fetched:
		failure = res.Err
	case <-waitedEnough:
	case <-ctx.Done():
		failure = context.Cause(ctx)
	}
	set := k.current.Load()
	switch {
	case set != nil && set.byID[id] != nil:
		return set.byID[id], set, nil
	case failure != nil:
		return nil, nil, failure
	default:
		return nil, nil, refuse(UnknownKey, "signed with a key that this Clerk instance does not have")
	}
}

// failing reports whether the last fetch failed.
func (k *Keyring) failing() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failure != nil
}

// fetch reads the keys from Clerk, at most once per fetchInterval. In between it returns the
// error of the last attempt. One fetch runs at a time.
func (k *Keyring) fetch() <-chan singleflight.Result {
	return k.fetching.DoChan("", func() (any, error) {
		now, recent, failure := k.begin()
		if recent {
			return nil, failure
		}
		err := k.detached(func(ctx context.Context) error {
			keys, err := k.fetchKeys(ctx)
			if err == nil {
				k.current.Store(k.current.Load().next(keys, now))
			}
			return err
		})
		k.mu.Lock()
		k.failure = err
		k.mu.Unlock()
		return nil, err
	})
}

// begin records an attempt. If there was one within the minimum interval, it returns that
// attempt's error instead.
func (k *Keyring) begin() (now time.Time, recent bool, failure error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	wait := fetchInterval
	if k.failure != nil {
		wait = fetchIntervalAfterFailure
	}
	now = k.clock.Now()
	recent = !k.triedAt.IsZero() && now.Sub(k.triedAt) < wait
	if !recent {
		k.triedAt = now
	}
	return now, recent, k.failure
}
