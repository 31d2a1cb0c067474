package mongostore

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// The bounds of retry, besides the context: about ten seconds in all, which is
// what a webhook has, and never more than maxPauses, however long a throttling
// server asks to wait.
const (
	maxAttempts = 50
	firstPause  = 2 * time.Millisecond
	maxPause    = 500 * time.Millisecond
	maxPauses   = 20 * time.Second
)

// errLostRace says that another writer came in between; the decision has to be made
// again on what is stored now.
var errLostRace = errors.New("too many concurrent writes to this record")

// Errors that pass by themselves and that the driver does not retry everywhere.
// https://www.mongodb.com/docs/manual/reference/error-codes/
const (
	codeLockTimeout   = 24
	codeWriteConflict = 112
	// Azure Cosmos DB asks for a pause: request rate is large.
	// https://learn.microsoft.com/azure/cosmos-db/mongodb/error-codes-solutions
	codeThrottled = 16500
	// DocumentDB on PostgreSQL: racing first inserts of one key can deadlock,
	// as its unique indexes are exclusion constraints.
	codeDeadlock = 16908292
)

// codeInternal is what FerretDB 1 calls a unique violation by an update, and
// every server much else: it is permanent as often as not.
const codeInternal = 1

// retry calls f until it succeeds, fails for good, or ctx is done, and prepares
// the error for the caller.
func (s *Store) retry(ctx context.Context, op string, f func() error) error {
	queued := false
	for attempt, paused := 1, time.Duration(0); ; attempt++ {
		err := f()
		if err == nil {
			return nil
		}
		pause := max(backoff(attempt), retryAfter(err))
		paused += pause
		if !passing(err) || attempt == maxAttempts || paused > maxPauses || !sleep(ctx, pause) {
			return fail(ctx, op, err)
		}
		if hasCode(err, codeDeadlock) && !queued {
			// Dozens of first inserts of one key deadlock each other again and again,
			// however long they pause. In a queue the first one gets through, and
			// the others find its record.
			select {
			case s.deadlocked <- struct{}{}:
				queued = true
				defer func() { <-s.deadlocked }()
			case <-ctx.Done():
				return fail(ctx, op, err)
			}
		}
	}
}

func passing(err error) bool {
	return errors.Is(err, errLostRace) ||
		hasCode(err, codeLockTimeout, codeWriteConflict, codeThrottled, codeDeadlock)
}

// backoff is random up to a bound that doubles: writers that collided must not
// collide again.
func backoff(attempt int) time.Duration {
	bound := min(firstPause<<min(attempt, 20), maxPause)
	return rand.N(bound) + 1
}

// retryAfter is how long a throttling server asks to wait, 0 if it does not say
// so in a field of its own.
func retryAfter(err error) time.Duration {
	var raw bson.Raw
	if cmd := (mongo.CommandError{}); errors.As(err, &cmd) {
		raw = cmd.Raw
	} else if we := firstWriteError(err); we != nil {
		raw = we.Raw
	}
	ms, _ := raw.Lookup("RetryAfterMs").AsInt64OK()
	return time.Duration(min(max(ms, 0), 60_000)) * time.Millisecond
}

// sleep reports false if ctx is done before d has passed, at once if it is
// certain to be.
func sleep(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// firstWriteError is the refusal of a single write, nil if err is none.
func firstWriteError(err error) *mongo.WriteError {
	we := mongo.WriteException{}
	if errors.As(err, &we) && len(we.WriteErrors) > 0 {
		return &we.WriteErrors[0]
	}
	return nil
}
