package clerksync

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// bulkPatience is how long a Reconcile goes on asking for one thing that
	// Clerk or the Store fails to give.
	bulkPatience = 5 * time.Minute
	// bulkAttemptTimeout bounds one attempt: a page of 500 users is large.
	bulkAttemptTimeout = 30 * time.Second
	firstBulkBackoff   = 500 * time.Millisecond
	maxBulkBackoff     = 30 * time.Second

	// maxUserIDs is how many users Clerk looks up by id in one call.
	maxUserIDs = 100
)

// bulkReader asks Clerk for a Reconcile, which has time: it keeps to a rate and
// does not give up quickly. One goroutine at a time uses it.
type bulkReader struct {
	api     *clerkAPI
	limiter *rate.Limiter
	// waiting is told that Clerk asked for a pause, and when it ends.
	waiting func(until time.Time)

	calls, throttled atomic.Int64
}

// defaultRate is 80 % of the requests that Clerk grants an instance, in a second:
// 1000 in 10 seconds in production, 100 in development.
func defaultRate(secretKey string) float64 {
	if strings.HasPrefix(secretKey, "sk_live_") {
		return 80
	}
	return 8
}

// users reads one page of the list, as of the time of asking.
func (b *bulkReader) users(ctx context.Context, params url.Values) (page []listed, asOf time.Time, err error) {
	asOf, err = b.get(ctx, "list users", "/users", params, func(answer json.RawMessage) (err error) {
		page, err = parsePage(answer)
		return err
	})
	return page, asOf, err
}

// usersByID reads those of at most maxUserIDs users that there are.
func (b *bulkReader) usersByID(ctx context.Context, ids []string) ([]listed, time.Time, error) {
	// The limit is ten unless one is named.
	return b.users(ctx, url.Values{"user_id": ids, "limit": {strconv.Itoa(maxUserIDs)}})
}

// user is Clerk's last word on one user; the error matches ErrUserUnknown where
// there is none.
func (b *bulkReader) user(ctx context.Context, id string) (u listed, asOf time.Time, err error) {
	asOf, err = b.get(ctx, "get user", "/users/"+id, nil, func(answer json.RawMessage) error {
		page, err := parsePage(append(append(json.RawMessage{'['}, answer...), ']'))
		if err != nil || len(page) != 1 || page[0].id != id {
			return errors.New("the answer is not the user asked for")
		}
		u = page[0]
		return nil
	})
	return u, asOf, err
}

// count is how many users Clerk says it has.
func (b *bulkReader) count(ctx context.Context) (n int, err error) {
	_, err = b.get(ctx, "count users", "/users/count", nil, func(answer json.RawMessage) error {
		var total struct {
			Count *int `json:"total_count"`
		}
		if json.Unmarshal(answer, &total) != nil || total.Count == nil || *total.Count < 0 {
			return errors.New("the answer is not a number of users")
		}
		n = *total.Count
		return nil
	})
	return n, err
}

// get asks until Clerk answers, refuses for good, or bulkPatience is over.
func (b *bulkReader) get(ctx context.Context, op, path string, params url.Values, parse func(json.RawMessage) error) (asOf time.Time, err error) {
	err = patiently(ctx, b.api.clock, final, func() error {
		if err := b.pace(ctx); err != nil {
			return err
		}
		call := &callInfo{bulk: true}
		attempt, cancel := withTimeout(ctx, b.api.clock, bulkAttemptTimeout)
		defer cancel()
		err := b.api.get(attempt, call, op, path, params, parse)
		asOf = call.sentAt
		b.calls.Add(1)
		var failed *clerkError
		if errors.As(err, &failed) && failed.status == http.StatusTooManyRequests {
			b.throttled.Add(1)
			b.waiting(b.api.clock.Now().Add(failed.retryAfter))
		}
		return err
	})
	if err != nil && ctx.Err() == nil && !errors.Is(err, ErrUserUnknown) {
		err = unavailable(err)
	}
	return asOf, err
}

// checkInstance makes sure that the secret key is that of an instance, whose id is
// that of a key in its JSON Web Key Set.
func (b *bulkReader) checkInstance(ctx context.Context, id string) error {
	var set struct {
		Keys []struct {
			ID string `json:"kid"`
		}
	}
	_, err := b.get(ctx, "get keys", "/jwks", nil, func(answer json.RawMessage) error {
		if json.Unmarshal(answer, &set) != nil || len(set.Keys) == 0 {
			return errors.New("the answer holds no keys")
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, key := range set.Keys {
		if key.ID == id {
			return nil
		}
	}
	return fmt.Errorf("%w: the secret key is not of %s", ErrWrongInstance, id)
}

// pace waits until the next request may be sent.
func (b *bulkReader) pace(ctx context.Context) error {
	now := b.api.clock.Now()
	if wait := b.limiter.ReserveN(now, 1).DelayFrom(now); wait > 0 {
		return b.api.clock.Sleep(ctx, wait)
	}
	return ctx.Err()
}

// final reports whether Clerk means what it says: asking again would give the same
// answer. A 404 or 403 that is not in Clerk's form is a proxy's.
func final(err error) bool {
	var failed *clerkError
	if !errors.As(err, &failed) {
		return false
	}
	switch failed.status {
	case http.StatusUnauthorized, http.StatusBadRequest, http.StatusUnprocessableEntity:
		return true
	case http.StatusForbidden, http.StatusNotFound:
		return failed.code != ""
	}
	return false
}

// patiently calls f until it succeeds, fails for good, or ctx or bulkPatience is
// over. It waits with jitter in between, and as long as Clerk asked for.
func patiently(ctx context.Context, c clock, final func(error) bool, f func() error) error {
	var failing time.Time
	for backoff := firstBulkBackoff; ; backoff = min(2*backoff, maxBulkBackoff) {
		err := f()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case final(err):
			return err
		}
		wait := backoff/2 + rand.N(backoff)
		var failed *clerkError
		if errors.As(err, &failed) {
			wait = max(wait, min(failed.retryAfter, bulkPatience))
		}
		now := c.Now()
		if failing.IsZero() {
			failing = now
		} else if now.Sub(failing)+wait > bulkPatience {
			return fmt.Errorf("giving up after %v: %w", now.Sub(failing).Round(time.Second), err)
		}
		if err := c.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}
