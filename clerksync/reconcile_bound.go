package clerksync

import (
	"context"
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

// errNoAnswer means that a call of the Store reached storeTimeout.
var errNoAnswer = fmt.Errorf("no answer within %v", storeTimeout)

// inTime makes one call of the Store, bounded by storeTimeout.
func (r *reconcileRun) inTime(ctx context.Context, call func(context.Context) error) error {
	return inTime(ctx, r.syncer.clock, call)
}

func inTime(ctx context.Context, c clock.Clock, call func(context.Context) error) error {
	bounded, cancel := clock.WithTimeout(ctx, c, storeTimeout)
	defer cancel()
	return explainTimeout(ctx, bounded, call(bounded))
}

// explainTimeout makes err match errNoAnswer if the bound ended the call and not ctx.
func explainTimeout(ctx, bounded context.Context, err error) error {
	if err == nil || bounded.Err() == nil || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %w", errNoAnswer, err)
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

// Undeleted bounds the wait for each record. The time that the caller takes does not count.
func (s boundedBatchStore) Undeleted(ctx context.Context) iter.Seq2[Stamp, error] {
	return func(yield func(Stamp, error) bool) {
		bounded, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		wait := func() (stop func() bool) {
			return s.clock.AfterFunc(storeTimeout, func() { cancel(context.DeadlineExceeded) })
		}
		stop := wait()
		defer func() { stop() }()
		for stamp, err := range s.batch.Undeleted(bounded) {
			stop()
			more := yield(stamp, explainTimeout(ctx, bounded, err))
			stop = wait() // the Store may still have something to close
			if !more {
				return
			}
		}
	}
}
