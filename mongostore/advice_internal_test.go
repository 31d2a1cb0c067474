package mongostore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

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
