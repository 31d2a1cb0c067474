package mongostore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver"

	"github.com/clerksync/clerksync-go/clerksync"
)

// databaseError wraps every failure of the database before the caller sees it. It does
// not show the server's text, because a duplicate key error quotes the value, which is
// often an e-mail address.
type databaseError struct {
	op    string
	cause []error // the driver's error last; before it the context's, if it is done
	text  string  // the driver's text if it may be shown; else empty
	// rejected says that the server never takes this record.
	rejected bool
}

func (e *databaseError) Error() string {
	text := e.text
	if text == "" {
		text = Describe(e.cause[0])
	}
	return "mongostore: " + e.op + ": " + text
}

// Unwrap returns the driver's error too, so that errors.As and mongo.IsTimeout work.
// The text of that error may hold personal data.
func (e *databaseError) Unwrap() []error {
	if e.rejected {
		return append(slices.Clip(e.cause), clerksync.ErrRejected)
	}
	return e.cause
}

// wrapDriverErr wraps err for the caller. It returns a [*clerksync.ConflictError] as it is.
func wrapDriverErr(ctx context.Context, op string, err error) error {
	if conflict := (*clerksync.ConflictError)(nil); errors.As(err, &conflict) {
		return err
	}
	_, rejected := adviceFor(err)
	return &databaseError{op: op, cause: append(ctxCauses(ctx), err), rejected: rejected}
}

// wrapPingErr wraps the error of a ping. A ping sends nothing of a record, so the
// driver's text may be shown: it names the servers that do not answer, and why. It does
// not quote the password.
func wrapPingErr(ctx context.Context, err error) error {
	e := &databaseError{op: "open: MongoDB cannot be reached", cause: append(ctxCauses(ctx), err)}
	if !errors.Is(ctx.Err(), context.Canceled) {
		e.text = err.Error()
	}
	return e
}

// begin starts a call. It fails if ctx is done; otherwise it returns ctx without the
// driver's session: an app may call the Store inside a transaction, and the Store's
// writes must not be rolled back or fail with it.
func begin(ctx context.Context, op string) (context.Context, error) {
	if err := ctxErr(ctx, op); err != nil {
		return nil, err
	}
	if mongo.SessionFromContext(ctx) != nil {
		ctx = mongo.NewSessionContext(ctx, nil)
	}
	return ctx, nil
}

// ctxErr returns an error if ctx is done.
func ctxErr(ctx context.Context, op string) error {
	if causes := ctxCauses(ctx); causes != nil {
		return &databaseError{op: op, cause: causes}
	}
	return nil
}

// ctxCauses returns why ctx is done: its error, and its cause if that is another one.
// It is nil if ctx is not done.
func ctxCauses(ctx context.Context) []error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); !errors.Is(cause, err) {
		return []error{err, cause}
	}
	return []error{err}
}

// describe describes an error by what cannot hold personal data: codes, code names,
// labels, types.
func describe(err error) string {
	for _, known := range []error{context.Canceled, errLostRace, mongo.ErrClientDisconnected} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	switch {
	case errors.Is(err, driver.ErrDocumentTooLarge):
		return "not sent"
	case errors.Is(err, driver.ErrUnsupportedStorageEngine):
		return "server error 20" // which the driver hides
	}
	var parts []string
	for _, code := range codes(err) {
		parts = append(parts, fmt.Sprintf("server error %d", code))
	}
	if cmd := (mongo.CommandError{}); errors.As(err, &cmd) {
		if cmd.Code != 0 && cmd.Name != "" {
			parts = append(parts, cmd.Name)
		}
		parts = append(parts, cmd.Labels...)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		parts = append(parts, context.DeadlineExceeded.Error())
	case mongo.IsTimeout(err):
		parts = append(parts, "timed out")
	case mongo.IsNetworkError(err):
		parts = append(parts, "network error")
	}
	if len(parts) == 0 {
		// The innermost type says most: topology.ServerSelectionError, for one.
		for next := err; next != nil; next = errors.Unwrap(next) {
			err = next
		}
		parts = append(parts, fmt.Sprintf("%T", err))
	}
	return strings.Join(parts, ", ")
}

// unreachable reports whether err says that no server, or no primary, answered. The next
// call would most likely fail too.
func unreachable(err error) bool {
	if errors.Is(err, context.Canceled) || mongo.IsTimeout(err) || mongo.IsNetworkError(err) || hasCode(err, notPrimary...) {
		return true
	}
	if _, rejects := adviceFor(err); rejects || errors.Is(err, clerksync.ErrRejected) {
		return false
	}
	conflict := (*clerksync.ConflictError)(nil)
	return len(codes(err)) == 0 && !errors.As(err, &conflict) && !errors.Is(err, errLostRace)
}

// refusedRecord reports whether the server rejected the record that an upsert would write, or found
// a duplicate key. Even if it rejected the record, the user may have one that needs no change:
// MongoDB validates a record before it looks for duplicates.
func refusedRecord(err error) bool {
	_, rejects := adviceFor(err)
	return rejects || mongo.IsDuplicateKeyError(err)
}

// answered reports whether err comes from a server that answered.
func answered(err error) bool {
	return len(codes(err)) > 0 || errors.Is(err, driver.ErrUnsupportedStorageEngine)
}

// unsatisfiable are the codes of a write concern that the deployment can never satisfy.
var unsatisfiable = []int{79, 100}

// onlyUnconfirmed reports whether the server did a single write, but not enough members
// confirmed it as the write concern asks.
func onlyUnconfirmed(err error) bool {
	we := mongo.WriteException{}
	return errors.As(err, &we) && len(we.WriteErrors) == 0 && we.WriteConcernError != nil
}

func hasCode(err error, codes ...int) bool {
	server := mongo.ServerError(nil)
	return errors.As(err, &server) && slices.ContainsFunc(codes, server.HasErrorCode)
}

// codes returns the codes that the server gave. It is empty if no server answered.
func codes(err error) []int {
	server := mongo.ServerError(nil)
	if !errors.As(err, &server) {
		return nil
	}
	codes := server.ErrorCodes()
	slices.Sort(codes)
	return slices.DeleteFunc(slices.Compact(codes), func(code int) bool { return code == 0 })
}
