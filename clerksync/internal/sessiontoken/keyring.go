package sessiontoken

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

const (
	// keysMaxAge is how long fetched keys count as current.
	keysMaxAge = time.Hour
	// fetchInterval is the least time between the starts of two fetches for the same cause,
	// unless the last one failed. So wrong signatures never delay the fetch for an unknown key id.
	fetchInterval = 10 * time.Second
	// fetchIntervalAfterFailure is the least time between the end of a fetch that failed and
	// the next fetch, whatever the causes are.
	fetchIntervalAfterFailure = time.Second

	// FetchPatience is how long after the start of a fetch some requests wait for it: those that
	// have an expired key to use, and all if the fetch before failed. The fetch itself may take
	// much longer.
	FetchPatience = time.Second
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

	mu       sync.Mutex
	inFlight [causes]*fetch
	triedAt  [causes]time.Time // when the last fetch for each cause began; zero: never
	failure  error             // of the fetch that ended last; nil: it did not fail
	failedAt time.Time         // when that was
}

// fetch is one reading of the keys, which any number of requests wait for.
type fetch struct {
	began time.Time
	again error         // of the fetch before; nil: it did not fail
	done  chan struct{} // closed at the end
	err   error         // set before done is closed
}

// ErrKeysNeeded says that the keys at hand do not tell whether a token is good.
var ErrKeysNeeded = errors.New("the keys at hand do not tell")

// ErrNotOurs says that the keys could not be fetched, and that the known ones, perhaps expired, do
// not include the token's. Most likely another Clerk instance signed it.
var ErrNotOurs = errors.New("the token's key is not among the known ones")

// cause is why the keys are fetched.
type cause int

const (
	missingKey     cause = iota // the ring is empty or too old, or does not have the token's key id
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

// key returns the key with this id and the set it is from. It fetches the keys if the ring is
// empty, too old, or does not have the id. If the ring is only too old, and Clerk is down or
// slower than FetchPatience, it uses the old keys. Without mayFetch it does not fetch for an id
// that the ring does not have.
//
// The error is an *Error if the key is unknown, ErrKeysNeeded if that could not be found out
// without a fetch, or that of the fetch, which matches ErrNotOurs if there are keys.
func (k *Keyring) key(ctx context.Context, id string, mayFetch bool) (*rsa.PublicKey, *keySet, error) {
	if k.fetchKeys == nil {
		set := k.current.Load()
		return set.byID[anyKeyID], set, nil
	}
	if set := k.usable(k.clock.Now()); set.has(id) {
		return set.byID[id], set, nil
	}
	expired := k.current.Load().has(id)
	if !expired && !mayFetch {
		return nil, nil, ErrKeysNeeded
	}
	failure := k.wait(ctx, k.fetch(missingKey), expired)
	set := k.current.Load()
	switch {
	case set.has(id):
		return set.byID[id], set, nil
	case failure != nil && set != nil && ctx.Err() == nil:
		return nil, nil, fmt.Errorf("%w: %w", ErrNotOurs, failure)
	case failure != nil:
		return nil, nil, failure
	default:
		return nil, nil, unknownKey(set)
	}
}

// renewed returns the key that has taken the place of used under the same id, and the set it
// is from. Clerk's key id is the instance's id, so a rotation may keep it. renewed fetches the
// keys, within the limits, unless that was done meanwhile. It returns nil if used is still the
// key, and the error of the fetch if that is not known. Without mayFetch that is ErrKeysNeeded.
func (k *Keyring) renewed(
	ctx context.Context, id string, used *rsa.PublicKey, mayFetch bool,
) (*rsa.PublicKey, *keySet, error) {
	if k.fetchKeys == nil {
		return nil, nil, nil
	}
	if set := k.current.Load(); set.replaced(id, used) {
		return set.byID[id], set, nil
	}
	if !mayFetch {
		return nil, nil, ErrKeysNeeded
	}
	if err := k.wait(ctx, k.fetch(wrongSignature), false); err != nil {
		return nil, nil, err
	}
	if set := k.current.Load(); set.replaced(id, used) {
		return set.byID[id], set, nil
	}
	return nil, nil, nil
}

// has reports whether the key with this id is in the set (nil: no keys).
func (s *keySet) has(id string) bool { return s != nil && s.byID[id] != nil }

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

// wait waits for a fetch and returns its error. If the fetch before did not fail, a request with an
// expired key to use waits until FetchPatience, and any other until the fetch ends. If it failed,
// the first does not wait, and the other waits until FetchPatience and then gets that one's error:
// so in an outage, no request waits for one hanging fetch after another.
func (k *Keyring) wait(ctx context.Context, f *fetch, expired bool) error {
	var enough chan struct{}
	if expired || f.again != nil {
		left := func() time.Duration { return f.began.Add(FetchPatience).Sub(k.clock.Now()) }
		if left() <= 0 || expired && f.again != nil {
			return f.soFar()
		}
		enough = make(chan struct{})
		defer k.clock.AfterFunc(left(), func() { close(enough) })()
		if left() <= 0 { // the time went by before AfterFunc began to count
			return f.soFar()
		}
	}
	select {
	case <-f.done:
		return f.err
	case <-enough:
		return f.soFar()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// soFar is what is known of the fetch now: its error if it has ended, else that of the one
// before.
func (f *fetch) soFar() error {
	select {
	case <-f.done:
		return f.err
	default:
		return f.again
	}
}

// fetch starts to read the keys from Clerk, or returns a fetch in progress. If it is too soon for
// another one, it returns one that has ended, with the error of the last.
func (k *Keyring) fetch(why cause) *fetch {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range k.inFlight[:why+1] { // a fetch for missing keys counts for wrong signatures too
		if f != nil {
			return f
		}
	}
	f := &fetch{began: k.clock.Now(), again: k.failure, done: make(chan struct{})}
	if k.tooSoon(why, f.began) {
		f.err = k.failure
		close(f.done)
		return f
	}
	k.triedAt[why], k.inFlight[why] = f.began, f
	go k.run(f, why)
	return f
}

// tooSoon reports whether the limits forbid a fetch. k.mu is held.
func (k *Keyring) tooSoon(why cause, now time.Time) bool {
	if k.failure != nil {
		return now.Sub(k.failedAt) < fetchIntervalAfterFailure
	}
	return slices.ContainsFunc(k.triedAt[:why+1], func(tried time.Time) bool {
		return !tried.IsZero() && now.Sub(tried) < fetchInterval
	})
}

// run does the fetch f.
func (k *Keyring) run(f *fetch, why cause) {
	var keys map[string]*rsa.PublicKey
	f.err = k.detached(func(ctx context.Context) (err error) {
		keys, err = k.fetchKeys(ctx)
		return err
	})
	k.mu.Lock()
	defer k.mu.Unlock()
	if set := k.current.Load(); f.err == nil && (set == nil || !f.began.Before(set.fetchedAt)) {
		k.current.Store(set.next(keys, f.began)) // a fetch that began before the set's may have older keys
	}
	k.failure, k.failedAt = f.err, k.clock.Now()
	k.inFlight[why] = nil
	close(f.done)
}
