package mongostore

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// The bounds of retry, besides the context. The usual total is about ten seconds, which
// a webhook has. It is never more than maxPauses, even if a throttling server asks for
// longer pauses.
const (
	maxAttempts = 50
	firstPause  = 2 * time.Millisecond
	maxPause    = 500 * time.Millisecond
	maxPauses   = 20 * time.Second
)

// errLostRace means that another writer came in between: the call must decide again on
// what is stored now.
var errLostRace = errors.New("too many concurrent writes to this record")

// Transient errors that the driver does not retry on every server.
// https://www.mongodb.com/docs/manual/reference/error-codes/
const (
	codeLockTimeout   = 24
	codeWriteConflict = 112
	// Azure Cosmos DB: the request rate is too large.
	// https://learn.microsoft.com/azure/cosmos-db/mongodb/error-codes-solutions
	codeThrottled = 16500
	// DocumentDB on PostgreSQL: its unique indexes are exclusion constraints, so racing
	// first inserts of one key can deadlock.
	codeDeadlock = 16908292
)

// notPrimary are the codes of a server that is not, or is about to stop being, the primary.
// The driver looks for the new one, and retries once, but only with retryable writes.
// https://github.com/mongodb/specifications/blob/master/source/server-discovery-and-monitoring/server-discovery-and-monitoring.md
var notPrimary = []int{
	91,    // ShutdownInProgress
	189,   // PrimarySteppedDown
	10107, // NotWritablePrimary
	11600, // InterruptedAtShutdown
	11602, // InterruptedDueToReplStateChange
	13435, // NotPrimaryNoSecondaryOk
	13436, // NotPrimaryOrSecondary
}

// codeInternal is FerretDB 1's code for a unique violation by an update. Other servers
// use it for many faults, most of them permanent.
const codeInternal = 1

// retry calls f until it succeeds, fails with an error that is not transient, or ctx is
// done. It wraps the last error for the caller.
func (s *Store) retry(ctx context.Context, op string, f func() error) error {
	queued := false
	for attempt, paused := 1, time.Duration(0); ; attempt++ {
		err := f()
		if err == nil {
			return nil
		}
		pause := max(backoff(attempt), retryAfter(err))
		paused += pause
		if !transient(err) || attempt == maxAttempts || paused > maxPauses || !sleep(ctx, pause) {
			return wrapDriverErr(ctx, op, err)
		}
		if hasCode(err, codeDeadlock) && !queued {
			// Dozens of first inserts of one key deadlock again and again, whatever
			// their pauses. One at a time, the first one succeeds, and the others find
			// its record.
			select {
			case s.deadlocked <- struct{}{}:
				queued = true
				defer func() { <-s.deadlocked }()
			case <-ctx.Done():
				return wrapDriverErr(ctx, op, err)
			}
		}
	}
}

// transient reports whether another attempt may succeed.
func transient(err error) bool {
	return errors.Is(err, errLostRace) ||
		hasCode(err, codeLockTimeout, codeWriteConflict, codeThrottled, codeDeadlock) || hasCode(err, notPrimary...)
}

// backoff returns a random pause, so that writers that collided do not collide again.
// Its upper bound doubles with each attempt.
func backoff(attempt int) time.Duration {
	bound := min(firstPause<<min(attempt, 20), maxPause)
	return rand.N(bound) + 1
}

// retryAfter returns how long a throttling server asks to wait, 0 if it does not say so
// in a field.
func retryAfter(err error) time.Duration {
	ms, _ := errorDocument(err).Lookup("RetryAfterMs").AsInt64OK()
	return time.Duration(min(max(ms, 0), 60_000)) * time.Millisecond
}

// errorDocument returns what the server says about a command or a single write that failed, nil
// if err is another error.
func errorDocument(err error) bson.Raw {
	if cmd := (mongo.CommandError{}); errors.As(err, &cmd) {
		return cmd.Raw
	}
	if we := firstWriteError(err); we != nil {
		return we.Raw
	}
	return nil
}

// sleep reports false if ctx ends first. It does not wait if the deadline is nearer than d.
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

// firstWriteError returns the server's error for a single write, nil if err is another one.
func firstWriteError(err error) *mongo.WriteError {
	we := mongo.WriteException{}
	if errors.As(err, &we) && len(we.WriteErrors) > 0 {
		return &we.WriteErrors[0]
	}
	return nil
}
