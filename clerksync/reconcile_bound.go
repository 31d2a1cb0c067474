package clerksync

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// storeTimeout bounds one call of the Store in a Reconcile, and the wait for one record of
// Undeleted. A page of 500 users is far below it, even if they are written one by one. A
// primary that accepts connections and answers nothing would otherwise stop the run for
// ever: the driver has no timeout of its own.
const storeTimeout = 2 * time.Minute

// errNoAnswer means that a call of the Store reached its bound.
var errNoAnswer = errors.New("no answer")

// inTime makes one call of the Store, bounded by storeTimeout.
func (r *reconcileRun) inTime(ctx context.Context, call func(context.Context) error) error {
	return inTime(ctx, r.syncer.clock, call)
}

func inTime(ctx context.Context, c clock.Clock, call func(context.Context) error) error {
	bounded, cancel := clock.WithTimeout(ctx, c, storeTimeout)
	defer cancel()
	return explainTimeout(ctx, bounded, call(bounded), storeTimeout)
}

// explainTimeout makes err match errNoAnswer if the bound ended the call and not ctx.
func explainTimeout(ctx, bounded context.Context, err error, timeout time.Duration) error {
	if err == nil || bounded.Err() == nil || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w within %v: %w", errNoAnswer, timeout, err)
}

// boundedStore bounds each call of a Store.
type boundedStore struct {
	Store
	clock clock.Clock
}

func (s boundedStore) User(ctx context.Context, id string) (u *User, err error) {
	err = inTime(ctx, s.clock, func(ctx context.Context) (err error) {
		u, err = s.Store.User(ctx, id)
		return err
	})
	return u, err
}

func (s boundedStore) Upsert(ctx context.Context, u *User) (res Result, err error) {
	err = inTime(ctx, s.clock, func(ctx context.Context) (err error) {
		res, err = s.Store.Upsert(ctx, u)
		return err
	})
	return res, err
}

func (s boundedStore) Deactivate(ctx context.Context, id string, at time.Time) (res Result, err error) {
	err = inTime(ctx, s.clock, func(ctx context.Context) (err error) {
		res, err = s.Store.Deactivate(ctx, id, at)
		return err
	})
	return res, err
}

// boundedBatchStore bounds each call of a BatchStore.
type boundedBatchStore struct {
	boundedStore
	batch BatchStore
}

func (s boundedBatchStore) UpsertBatch(ctx context.Context, us []*User) (results []Result, err error) {
	err = inTime(ctx, s.clock, func(ctx context.Context) (err error) {
		results, err = s.batch.UpsertBatch(ctx, us)
		return err
	})
	return results, err
}

func (s boundedBatchStore) Users(ctx context.Context, ids []string) (users map[string]*User, err error) {
	err = inTime(ctx, s.clock, func(ctx context.Context) (err error) {
		users, err = s.batch.Users(ctx, ids)
		return err
	})
	return users, err
}

func (s boundedBatchStore) Stamps(ctx context.Context, ids []string) (stamps map[string]Stamp, err error) {
	err = inTime(ctx, s.clock, func(ctx context.Context) (err error) {
		stamps, err = s.batch.Stamps(ctx, ids)
		return err
	})
	return stamps, err
}

func (s boundedBatchStore) Undeleted(ctx context.Context) iter.Seq2[Stamp, error] {
	return inTimeEach(ctx, s.clock, storeTimeout, s.batch.Undeleted)
}

// inTimeEach bounds the wait for each element. The time that the caller takes does not count.
func inTimeEach[T any](
	ctx context.Context, c clock.Clock, timeout time.Duration, each func(context.Context) iter.Seq2[T, error],
) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		bounded, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		wait := func() (stop func() bool) {
			return c.AfterFunc(timeout, func() { cancel(context.DeadlineExceeded) })
		}
		stop := wait()
		defer func() { stop() }()
		for element, err := range each(bounded) {
			stop()
			more := yield(element, explainTimeout(ctx, bounded, err, timeout))
			stop = wait() // the Store may still have something to close
			if !more {
				return
			}
		}
	}
}
