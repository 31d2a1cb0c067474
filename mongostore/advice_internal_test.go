package mongostore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver"

	"github.com/clerksync/clerksync-go/clerksync"
)

// errorsWith returns all the forms in which the driver gives an error code.
func errorsWith(code int) []error {
	const secret = "ada@example.com retryWrites=nonsense"
	return []error{
		mongo.CommandError{Code: int32(code), Message: secret},
		writeError(code, nil),
		mongo.WriteException{WriteConcernError: &mongo.WriteConcernError{Code: code, Message: secret}},
		mongo.BulkWriteException{WriteErrors: []mongo.BulkWriteError{{WriteError: mongo.WriteError{Code: code, Message: secret}}}},
		fmt.Errorf("%s: %w", secret, mongo.CommandError{Code: int32(code)}),
	}
}

// TestAdvice checks that an error's text has the advice for its code, in each form that the
// driver has, and whether it matches ErrRejected.
func TestAdvice(t *testing.T) {
	for code, advice := range advices {
		if advice.text == "" || strings.HasSuffix(advice.text, ".") {
			t.Errorf("%d: %q is not a part of a sentence", code, advice.text)
		}
		for _, err := range errorsWith(code) {
			err = wrapDriverErr(t.Context(), "upsert", err)
			want := fmt.Sprintf("mongostore: upsert: server error %d: %s", code, advice.text)
			if err.Error() != want {
				t.Errorf("%v\nwant %s", err, want)
			}
			if got := errors.Is(err, clerksync.ErrRejected); got != advice.rejects {
				t.Errorf("%v: rejected %t, want %t", err, got, advice.rejects)
			}
			if !hasCode(err, code) {
				t.Errorf("%v is not the driver's error any more", err)
			}
		}
	}
}

// TestAdviceByCode checks the codes that the documentation of servers promises.
func TestAdviceByCode(t *testing.T) {
	for code, want := range map[int]string{
		301: "retryWrites=false", 20: "retryWrites=false", 9: "retryWrites=false", 2: "retryWrites=false",
		13: "find, insert, update and listIndexes", 18: "authSource", 67: "shard key",
		322: "version 1", 323: "strict",
		26: "create it", 59: "4.4", 115: "4.4", 85: "getIndexes()", 86: "getIndexes()", 121: "validator",
	} {
		if got := Describe(mongo.CommandError{Code: int32(code)}); !strings.Contains(got, want) {
			t.Errorf("%d: %s, want %q", code, got, want)
		}
	}
	for _, transient := range []int{16500, 10107, 91, 24, 112, 16908292, 64} {
		if _, rejects := adviceFor(mongo.CommandError{Code: int32(transient)}); rejects {
			t.Errorf("%d counts as a rejection", transient)
		}
	}
}

// TestAdviceOnTheDriversOwnErrors uses errors that do not come from the server.
func TestAdviceOnTheDriversOwnErrors(t *testing.T) {
	badValue := mongo.CommandError{Code: 2}
	for name, tt := range map[string]struct {
		err      error
		want     string
		rejected bool
	}{
		"retryable writes": {driver.ErrUnsupportedStorageEngine, "upsert: server error 20: " + retryWrites, false},
		"too large":        {driver.ErrDocumentTooLarge, "upsert: not sent: " + tooLarge, true},
		"found too large":  {errors.Join(errTooLarge, badValue), tooLarge, true},
		"not encodable":    {mongo.MarshalError{Value: "ada@example.com", Err: errors.New("x")}, "cannot be encoded", true},
		"a race":           {errLostRace, errLostRace.Error(), false},
		"cancelled":        {context.Canceled, "context canceled", false},
	} {
		t.Run(name, func(t *testing.T) {
			err := wrapDriverErr(t.Context(), "upsert", tt.err)
			if !strings.HasSuffix(err.Error(), tt.want) || strings.Contains(err.Error(), "@") ||
				strings.Contains(err.Error(), perhapsRetryWrites) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if got := errors.Is(err, clerksync.ErrRejected); got != tt.rejected {
				t.Errorf("%v: rejected %t", err, got)
			}
		})
	}
}

// TestCheckSize tells a record over the limit from other reasons for the same code.
func TestCheckSize(t *testing.T) {
	badValue := error(mongo.CommandError{Code: 2})
	for name, tt := range map[string]struct {
		size int
		err  error
		want bool
	}{
		"too large":           {maxRecordSize, badValue, true},
		"at the limit":        {maxRecordSize - 1000, badValue, false},
		"small":               {1, badValue, false},
		"large, another code": {maxRecordSize, mongo.CommandError{Code: 302776349}, true},
		"large, transient":    {maxRecordSize, mongo.CommandError{Code: codeThrottled}, false},
		"large, duplicate":    {maxRecordSize, writeError(11000, nil), false},
		"large, no answer":    {maxRecordSize, mongo.CommandError{Labels: []string{"NetworkError"}}, false},
		"large, no error":     {maxRecordSize, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			u := &clerksync.User{ClerkID: "user_ada", Extra: map[string]any{"text": strings.Repeat("x", tt.size)}}
			up := &upsert{u: u, id: bson.NewObjectID()}
			got := up.checkSize(tt.err)
			if errors.Is(got, errTooLarge) != tt.want {
				t.Errorf("%v, want too large: %t", got, tt.want)
			}
			if fmt.Sprint(codes(got)) != fmt.Sprint(codes(tt.err)) {
				t.Errorf("%v is not the driver's error any more", got)
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	const secret = "ada@example.com"
	command := func(code int32, name string, labels ...string) error {
		return mongo.CommandError{Code: code, Name: name, Labels: labels, Message: secret}
	}
	for want, err := range map[string]error{
		"server error 11000": writeError(11000, nil),
		"server error 13, Unauthorized: " + advices[13].text: command(13, "Unauthorized"),
		"RetryableWriteError, NetworkError, network error":   command(0, "", "RetryableWriteError", "NetworkError"),
		"server error 50, MaxTimeMSExpired, timed out":       command(50, "MaxTimeMSExpired"),
		"server error 64: " + advices[64].text: mongo.WriteException{
			WriteConcernError: &mongo.WriteConcernError{Code: 64, Message: secret},
		},
		"server error 1, server error 11000": mongo.BulkWriteException{WriteErrors: []mongo.BulkWriteError{
			{WriteError: mongo.WriteError{Code: 11000, Message: secret}},
			{WriteError: mongo.WriteError{Code: 1}},
			{WriteError: mongo.WriteError{Code: 11000}},
		}},
		"client is disconnected": mongo.ErrClientDisconnected,
		"*errors.errorString":    errors.New(secret),
	} {
		got := wrapDriverErr(t.Context(), "upsert", err)
		if got.Error() != "mongostore: upsert: "+want {
			t.Errorf("%v, want %s", got, want)
		}
		if !errors.Is(got, err) && !strings.HasPrefix(want, "server") && !strings.HasPrefix(want, "Retry") {
			t.Errorf("%v is not the driver's error any more", got)
		}
	}
}

func TestUnreachable(t *testing.T) {
	network := mongo.CommandError{Labels: []string{"NetworkError"}}
	noPrimary := mongo.CommandError{Code: 10107}
	for _, err := range []error{mongo.ErrClientDisconnected, context.Canceled, network, noPrimary} {
		if !unreachable(wrapDriverErr(t.Context(), "op", err)) {
			t.Errorf("%v counts as an answer", err)
		}
	}
	conflict := &clerksync.ConflictError{}
	answers := []error{
		errLostRace, mongo.CommandError{Code: 13}, writeError(121, nil), conflict, clerksync.ErrRejected,
		driver.ErrDocumentTooLarge, mongo.MarshalError{Err: errors.New("no encoder")},
	}
	for _, err := range answers {
		if unreachable(wrapDriverErr(t.Context(), "op", err)) {
			t.Errorf("%v counts as no answer", err)
		}
	}
}

func TestRetry(t *testing.T) {
	transient := map[string]error{
		"LostRace":      errLostRace,
		"LockTimeout":   mongo.CommandError{Code: 24},
		"WriteConflict": mongo.CommandError{Code: 112},
		"Throttled":     writeError(16500, nil),
		"Deadlock":      mongo.CommandError{Code: 16908292, Message: "deadlock detected"},
		"NotPrimary":    mongo.CommandError{Code: 10107},
		"SteppedDown":   mongo.CommandError{Code: 189},
		"ShuttingDown":  mongo.CommandError{Code: 91},
	}
	for name, transient := range transient {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				err := newOffline().retry(t.Context(), "op", func() error {
					if calls++; calls < 5 {
						return transient
					}
					return nil
				})
				if err != nil || calls != 5 {
					t.Errorf("%d calls, %v", calls, err)
				}
			})
		})
	}
	for name, final := range map[string]error{
		"Internal":  mongo.CommandError{Code: 1},
		"Duplicate": writeError(11000, nil),
		"Conflict":  &clerksync.ConflictError{Field: "email"},
		"Network":   &net.OpError{Op: "read", Err: errors.New("reset")},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			err := newOffline().retry(t.Context(), "op", func() error { calls++; return final })
			if err == nil || calls != 1 {
				t.Errorf("%d calls, %v", calls, err)
			}
		})
	}
}

// TestRetryAfterDeadlockQueues checks that calls that ended in a deadlock try again one at a
// time.
func TestRetryAfterDeadlockQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newOffline()
		var inside, done atomic.Int64
		for range 10 {
			go func() {
				calls := 0
				err := s.retry(t.Context(), "op", func() error {
					if calls++; calls == 1 {
						return mongo.CommandError{Code: codeDeadlock}
					}
					if inside.Add(1) > 1 {
						t.Error("two at a time")
					}
					<-time.After(time.Second)
					inside.Add(-1)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				done.Add(1)
			}()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		<-time.After(50 * time.Millisecond)
		err := s.retry(ctx, "op", func() error { return mongo.CommandError{Code: codeDeadlock} })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("in the queue: %v, want context.DeadlineExceeded", err)
		}
		<-time.After(time.Minute)
		if done.Load() != 10 {
			t.Errorf("%d of 10 got through", done.Load())
		}
	})
}

func TestRetryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, calls := time.Now(), 0
		err := newOffline().retry(t.Context(), "upsert", func() error { calls++; return errLostRace })
		const want = "mongostore: upsert: too many concurrent writes to this record"
		if err == nil || err.Error() != want || !errors.Is(err, errLostRace) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(start); calls != maxAttempts || took < time.Second || took > 25*time.Second {
			t.Errorf("%d calls in %v", calls, took)
		}
	})
}

func TestRetryEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		start := time.Now()
		err := newOffline().retry(ctx, "op", func() error { return mongo.CommandError{Code: 112} })
		if !errors.Is(err, context.Canceled) || time.Since(start) != 100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		throttled := writeError(16500, bson.D{{Key: "RetryAfterMs", Value: 2000}})
		err := newOffline().retry(ctx, "op", func() error { return throttled })
		if err == nil || time.Since(start) != 0 {
			t.Errorf("%v after %v: want no pause that outlasts the context", err, time.Since(start))
		}
	})
}

// TestRetryBoundsItsPauses makes a call without a deadline to a server that asks for long
// pauses.
func TestRetryBoundsItsPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, calls := time.Now(), 0
		err := newOffline().retry(t.Context(), "op", func() error {
			calls++
			return writeError(codeThrottled, bson.D{{Key: "RetryAfterMs", Value: 3000}})
		})
		if took := time.Since(start); !hasCode(err, codeThrottled) || calls != 7 || took != 18*time.Second {
			t.Errorf("%d calls in %v, %v", calls, took, err)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	raw, err := bson.Marshal(bson.D{{Key: "ok", Value: 0}, {Key: "RetryAfterMs", Value: int64(34)}})
	if err != nil {
		t.Fatal(err)
	}
	for want, err := range map[time.Duration]error{
		34 * time.Millisecond: mongo.CommandError{Code: 16500, Raw: raw},
		7 * time.Millisecond:  writeError(16500, bson.D{{Key: "RetryAfterMs", Value: 7.0}}),
		0:                     writeError(16500, bson.D{{Key: "RetryAfterMs", Value: "soon"}}),
		time.Minute:           writeError(16500, bson.D{{Key: "RetryAfterMs", Value: 1 << 40}}),
	} {
		if got := retryAfter(err); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
	for _, err := range []error{errLostRace, mongo.CommandError{Code: 16500}, mongo.WriteException{}} {
		if got := retryAfter(err); got != 0 {
			t.Errorf("%v of %v, want 0", got, err)
		}
	}
}
