package clerkapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
	"github.com/clerksync/clerksync-go/clerksync/internal/retry"
)

const (
	// BulkAttemptTimeout bounds one attempt of a BulkReader: a page of 500 users is large.
	BulkAttemptTimeout = 30 * time.Second
	// MaxUserIDs is how many users Clerk looks up by id in one call.
	MaxUserIDs = 100
	// MaxPageSize is the most users that Clerk lists in one call. Asked for more, it has
	// silently answered ten.
	MaxPageSize = 500
)

// BulkReader asks Clerk on behalf of a Reconcile, which can wait: it keeps to a rate and
// retries for [retry.GiveUpAfter]. It is safe for concurrent use.
type BulkReader struct {
	client     *Client
	limiter    *rate.Limiter
	onThrottle func(until time.Time)
	onFailure  func(error) error

	calls, throttled atomic.Int64
	answered         atomic.Bool // Clerk has answered, so the API's URL is right
}

// NewBulkReader returns a BulkReader that sends at most perSecond requests a second.
// onThrottle learns that Clerk asked for a pause, and when it ends. onFailure wraps the
// error of a call that failed for good, unless ctx ended or the user is unknown.
func (c *Client) NewBulkReader(perSecond float64, onThrottle func(until time.Time), onFailure func(error) error) *BulkReader {
	return &BulkReader{client: c, limiter: rate.NewLimiter(rate.Limit(perSecond), 1), onThrottle: onThrottle, onFailure: onFailure}
}

// DefaultRate is 80 % of the requests a second that Clerk grants an instance: 1000 in 10
// seconds in production, 100 in development.
//
// https://clerk.com/docs/guides/how-clerk-works/system-limits
func DefaultRate(secretKey string) float64 {
	if strings.HasPrefix(secretKey, "sk_live_") {
		return 80
	}
	return 8
}

// Calls counts the requests sent, retries included.
func (b *BulkReader) Calls() int { return int(b.calls.Load()) }

// Throttled counts the requests that Clerk answered 429.
func (b *BulkReader) Throttled() int { return int(b.throttled.Load()) }

// Users reads one page of the list, as of the time of asking.
func (b *BulkReader) Users(ctx context.Context, params url.Values) (page []ListedUser, asOf time.Time, err error) {
	asOf, err = b.get(ctx, "list users", "/users", params, func(answer json.RawMessage) (err error) {
		page, err = ParsePage(answer)
		return err
	})
	return page, asOf, err
}

// UsersByID reads those of at most [MaxUserIDs] users that exist.
func (b *BulkReader) UsersByID(ctx context.Context, ids []string) ([]ListedUser, time.Time, error) {
	return b.Users(ctx, url.Values{"user_id": ids, "limit": {strconv.Itoa(MaxUserIDs)}}) // without a limit Clerk answers ten
}

// User reads one user. The error matches [ErrUserUnknown] if there is none.
func (b *BulkReader) User(ctx context.Context, id string) (u ListedUser, asOf time.Time, err error) {
	asOf, err = b.get(ctx, "get user", "/users/"+id, nil, func(answer json.RawMessage) error {
		page, err := ParsePage(append(append(json.RawMessage{'['}, answer...), ']'))
		if err != nil || len(page) != 1 || page[0].ID != id {
			return errNotTheUser
		}
		u = page[0]
		return nil
	})
	return u, asOf, err
}

// Count is how many users Clerk says it has.
func (b *BulkReader) Count(ctx context.Context) (n int, err error) {
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

// Instances returns the ids of the instances that the secret key belongs to: those of the
// keys in its key set. There is one, unless Clerk rotates keys.
func (b *BulkReader) Instances(ctx context.Context) ([]string, error) {
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
	ids := make([]string, len(set.Keys))
	for i, key := range set.Keys {
		ids[i] = key.ID
	}
	return ids, err
}

// get asks until Clerk answers, rejects the request for good, or the time for retries is
// over.
func (b *BulkReader) get(
	ctx context.Context, op, path string, params url.Values, parse func(json.RawMessage) error,
) (asOf time.Time, err error) {
	err = retry.Do(ctx, b.client.clock, b.permanent, func() error {
		if err := b.pace(ctx); err != nil {
			return err
		}
		var call callInfo
		attempt, cancel := clock.WithTimeout(ctx, b.client.clock, BulkAttemptTimeout)
		defer cancel()
		err := b.client.get(attempt, b.client.bulk, &call, op, path, params, parse)
		asOf = call.sentAt
		b.calls.Add(1)
		if isAnswer(err) {
			b.answered.Store(true)
		}
		var failed *Error
		if errors.As(err, &failed) && failed.status == http.StatusTooManyRequests {
			b.throttled.Add(1)
			b.onThrottle(b.client.clock.Now().Add(failed.retryAfter))
		}
		return err
	})
	if err != nil && ctx.Err() == nil && !errors.Is(err, ErrUserUnknown) {
		err = b.onFailure(err)
	}
	return asOf, err
}

// permanent reports whether asking again would not help. Until Clerk has answered once, that is so
// for an error that points to a wrong URL. After that, it may be transient.
func (b *BulkReader) permanent(err error) bool {
	return permanent(err) || !b.answered.Load() && isWrongPlace(err)
}

// pace waits until the next request may be sent.
func (b *BulkReader) pace(ctx context.Context) error {
	now := b.client.clock.Now()
	if wait := b.limiter.ReserveN(now, 1).DelayFrom(now); wait > 0 {
		return b.client.clock.Sleep(ctx, wait)
	}
	return ctx.Err()
}
