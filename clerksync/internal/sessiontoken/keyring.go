package sessiontoken

import (
	"context"
	"crypto/rsa"
	"maps"
	"slices"
	"strings"
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
	// arrive. Wrong signatures have an interval of their own, so that they never delay the
	// fetch for an unknown key id.
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
	fetching  singleflight.Group // by cause
	oneFetch  sync.Mutex         // held during a fetch

	mu      sync.Mutex
	triedAt [causes]time.Time // the last fetch for each cause; zero: never
	failure error             // of the last fetch
}

// cause is why the keys are fetched.
type cause int

const (
	missingKey     cause = iota // there are no keys, they are too old, or none has the token's id
	wrongSignature              // the key with the token's id may have been replaced
	causes
)

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
// back to them if Clerk is down or slower than ExpiredKeysWait. The error is an *Error if the
// key is unknown, else that of the fetch.
func (k *Keyring) key(ctx context.Context, id string) (*rsa.PublicKey, *keySet, error) {
	if k.fetchKeys == nil {
		set := k.current.Load()
		return set.byID[anyKeyID], set, nil
	}
	if set := k.usable(k.clock.Now()); set != nil && set.byID[id] != nil {
		return set.byID[id], set, nil
	}
	fetched := k.fetch(missingKey)
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
		return nil, nil, unknownKey(set)
	}
}

// renewed returns the key that has taken the place of used under the same id, and the set it
// is from. Clerk's key id is the instance's id, so a rotation may keep it. renewed fetches the
// keys, within the limits, unless that was done meanwhile. It returns nil if used is still the
// key, and the error of the fetch if that is not known.
func (k *Keyring) renewed(ctx context.Context, id string, used *rsa.PublicKey) (*rsa.PublicKey, *keySet, error) {
	if k.fetchKeys == nil {
		return nil, nil, nil
	}
	if set := k.current.Load(); set.replaced(id, used) {
		return set.byID[id], set, nil
	}
	select {
	case res := <-k.fetch(wrongSignature):
		if res.Err != nil {
			return nil, nil, res.Err
		}
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	if set := k.current.Load(); set.replaced(id, used) {
		return set.byID[id], set, nil
	}
	return nil, nil, nil
}

// replaced reports whether the key with this id is another than used.
func (s *keySet) replaced(id string, used *rsa.PublicKey) bool {
	key := s.byID[id]
	return key != nil && !key.Equal(used)
}

// unknownKey is the error for a key id that is not in set (nil: no keys).
func unknownKey(set *keySet) error {
	e := &Error{Code: UnknownKey, Why: "signed with a key that this Clerk instance does not have"}
	if set != nil {
		e.Want = printable(strings.Join(slices.Sorted(maps.Keys(set.byID)), " "))
	}
	return e
}

// failing reports whether the last fetch failed.
func (k *Keyring) failing() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failure != nil
}

// fetch reads the keys from Clerk, for each cause at most once per fetchInterval. In between
// it returns the error of the last attempt. One fetch runs at a time.
func (k *Keyring) fetch(why cause) <-chan singleflight.Result {
	return k.fetching.DoChan(string('0'+rune(why)), func() (any, error) {
		k.oneFetch.Lock()
		defer k.oneFetch.Unlock()
		now, recent, failure := k.begin(why)
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

// begin records an attempt. If there was one within the minimum interval, it returns the error
// of the last attempt instead.
func (k *Keyring) begin(why cause) (now time.Time, recent bool, failure error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	wait := fetchInterval
	if k.failure != nil {
		wait = fetchIntervalAfterFailure
	}
	now = k.clock.Now()
	for _, tried := range k.triedAt[:why+1] { // a fetch for missing keys counts for wrong signatures too
		recent = recent || !tried.IsZero() && now.Sub(tried) < wait
	}
	if !recent {
		k.triedAt[why] = now
	}
	return now, recent, k.failure
}
