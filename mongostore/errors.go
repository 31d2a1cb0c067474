package mongostore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/clerksync"
)

// databaseError is what every failure of the database becomes on its way out.
// The server's own text stays behind: that of a duplicate key error quotes the
// value, an e-mail address as a rule.
type databaseError struct {
	op    string
	cause []error // the driver's error last; before it the context's, if it is done
	text  string  // where the driver's text may be shown; else empty
}

func (e *databaseError) Error() string {
	text := e.text
	if text == "" {
		text = describe(e.cause[0])
	}
	return "mongostore: " + e.op + ": " + text
}

// Unwrap gives the driver's error, so that errors.As and mongo.IsTimeout work.
// Its text may hold personal data.
func (e *databaseError) Unwrap() []error { return e.cause }

// fail prepares err for the caller.
func fail(ctx context.Context, op string, err error) error {
	if conflict := (*clerksync.ConflictError)(nil); errors.As(err, &conflict) {
		return err
	}
	return &databaseError{op: op, cause: append(done(ctx), err)}
}

// unreached is the failure of a ping, which carries nothing of a record: the driver's
// text names the servers that do not answer, and why. It quotes no password.
func unreached(ctx context.Context, err error) error {
	e := &databaseError{op: "open: MongoDB cannot be reached", cause: append(done(ctx), err)}
	if !errors.Is(ctx.Err(), context.Canceled) {
		e.text = err.Error()
	}
	return e
}

// enter begins a call: it returns an error if ctx is done, else ctx without the
// driver's session. An app may call within a transaction of its own, and what the
// Store writes must neither be rolled back with that nor fail with it.
func enter(ctx context.Context, op string) (context.Context, error) {
	if err := alive(ctx, op); err != nil {
		return nil, err
	}
	if mongo.SessionFromContext(ctx) != nil {
		ctx = mongo.NewSessionContext(ctx, nil)
	}
	return ctx, nil
}

// alive returns an error if ctx is done.
func alive(ctx context.Context, op string) error {
	if errs := done(ctx); errs != nil {
		return &databaseError{op: op, cause: errs}
	}
	return nil
}

// done returns why ctx is done, nil if it is not. An own cause is among it.
func done(ctx context.Context) []error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); !errors.Is(cause, err) {
		return []error{err, cause}
	}
	return []error{err}
}

// describe tells an error by what cannot hold personal data: codes, code names,
// labels, kinds.
func describe(err error) string {
	for _, known := range []error{context.Canceled, errLostRace, mongo.ErrClientDisconnected} {
		if errors.Is(err, known) {
			return known.Error()
		}
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
		// The type at the root says most: topology.ServerSelectionError, for one.
		for next := err; next != nil; next = errors.Unwrap(next) {
			err = next
		}
		parts = append(parts, fmt.Sprintf("%T", err))
	}
	return strings.Join(parts, ", ")
}

// unreachable reports whether err says that nobody answered, so that the next
// call will hardly fare better.
func unreachable(err error) bool {
	if errors.Is(err, context.Canceled) || mongo.IsTimeout(err) || mongo.IsNetworkError(err) {
		return true
	}
	conflict := (*clerksync.ConflictError)(nil)
	return len(codes(err)) == 0 && !errors.As(err, &conflict) && !errors.Is(err, errLostRace)
}

func hasCode(err error, codes ...int) bool {
	server := mongo.ServerError(nil)
	return errors.As(err, &server) && slices.ContainsFunc(codes, server.HasErrorCode)
}

// codes are those that the server gave, none if it gave no answer.
func codes(err error) []int {
	server := mongo.ServerError(nil)
	if !errors.As(err, &server) {
		return nil
	}
	codes := server.ErrorCodes()
	slices.Sort(codes)
	return slices.DeleteFunc(slices.Compact(codes), func(code int) bool { return code == 0 })
}
