package clerksync

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
)

// The errors that callers tell apart, with [errors.Is].
var (
	// ErrNotFound: the Store does not have a record of this user.
	ErrNotFound = errors.New("clerksync: no record of this user")
	// ErrUnauthenticated: the request does not carry a valid session.
	ErrUnauthenticated = errors.New("clerksync: not signed in")
	// ErrUserInactive: the user is deleted, suspended by the app, or banned in Clerk.
	ErrUserInactive = errors.New("clerksync: user is not active")
	// ErrUserUnknown: Clerk does not have the user, or the id is not a user id.
	ErrUserUnknown = clerkapi.ErrUserUnknown
	// ErrUnavailable: Clerk or the Store failed, did not answer in time, or gave an
	// unusable answer. Trying again later may succeed.
	ErrUnavailable = errors.New("clerksync: Clerk or the store is unavailable")
	// ErrRejected: the Store is up but rejects the record that a write would leave, for
	// example because it is too large or the database validates records. Trying again will
	// not help until the user, the app's Map or the database's rules change. Nothing was
	// written.
	ErrRejected = errors.New("clerksync: the store rejects this record")
	// ErrUnlinked: a record without a Clerk id has the user's e-mail address, and clerksync
	// neither links the two nor makes a second record.
	ErrUnlinked = errors.New("clerksync: a record without a Clerk id has the same email")
	// ErrInvalidSignature: a webhook is not signed, wrongly signed, or its signature's
	// time is off by more than [WebhookConfig].Tolerance.
	ErrInvalidSignature = errors.New("clerksync: invalid webhook signature")
	// ErrInvalidEvent: a verified event cannot be used. Delivering it again will not help.
	ErrInvalidEvent = errors.New("clerksync: unusable event")
	// ErrWrongInstance: an event is from another Clerk instance than
	// [WebhookConfig].InstanceID, or the secret key of a Reconcile belongs to another
	// instance than the Store's users.
	ErrWrongInstance = errors.New("clerksync: another Clerk instance")
	// ErrIncomplete: in a Reconcile, Clerk listed over 1 % fewer users than it counts, so
	// the run did not look for ghosts.
	ErrIncomplete = errors.New("clerksync: Clerk did not list all its users")
	// ErrTooManyGhosts: more users are gone from Clerk than
	// [ReconcileOptions].MaxDeactivations allows. None was marked deleted.
	ErrTooManyGhosts = errors.New("clerksync: more users are gone from Clerk than a run may mark deleted")
)

// prefix begins the text of each of the package's errors, and stands nowhere else in it.
const prefix = "clerksync: "

// prefixedError is an error that may wrap others of the package: its text has the prefix once.
type prefixedError struct{ err error }

// prefixed is fmt.Errorf with the prefix.
func prefixed(format string, args ...any) error { return &prefixedError{fmt.Errorf(format, args...)} }

func (e *prefixedError) Error() string { return prefix + withoutPrefix(e.err) }

func (e *prefixedError) Unwrap() error { return e.err }

// withoutPrefix is an error's text without the prefixes of the errors in it.
func withoutPrefix(err error) string { return strings.ReplaceAll(err.Error(), prefix, "") }

// ConflictError says that a record could not be written because of what the database holds.
// Either another record has the value of a field on which the app has a unique index. Or the
// record is one that clerksync has never written, and the app keeps something else under a
// name of clerksync's: then Type is not empty. Or a Store that adopts must not link the user to
// the record that an external id names, or that has the e-mail address; see [AdoptStore].
type ConflictError struct {
	// Field is the field's path in the record, such as "email"; empty if the Store cannot
	// tell.
	Field string
	// Holder is the Clerk id of another user's record that has the value and is not deleted.
	// It is empty if the Store cannot tell, and if Type is not empty.
	Holder string
	// Type is the type of the value in the way, as MongoDB's $type calls it: "object",
	// "array", "objectId", "date", …
	// https://www.mongodb.com/docs/manual/reference/bson-types/
	//
	// It is empty if a unique index is in the way.
	Type string
	// Err is the Store's own error; may be nil. It matches [ErrUnlinked] if a record without a
	// Clerk id has the user's e-mail address and is not adopted.
	Err error
}

// Error names the field, and the holder or the type. It does not show the value.
func (e *ConflictError) Error() string {
	if e.Type != "" {
		return fmt.Sprintf("clerksync: the app's record has %s of type %s, which clerksync would overwrite", cmp.Or(e.Field, "a field"), e.Type)
	}
	var adopting interface{ ConflictText() string } // the error of a Store that adopts
	if errors.As(e.Err, &adopting) {
		return prefix + adopting.ConflictText()
	}
	if errors.Is(e.Err, ErrUnlinked) {
		return prefix + withoutPrefix(e.Err)
	}
	holder := "another record"
	if clerkapi.ValidUserID(e.Holder) { // the app may have other texts there, such as an address
		holder = "the record of " + e.Holder
	}
	if e.Field == "" {
		return fmt.Sprintf("clerksync: %s has a value that a unique index allows only once", holder)
	}
	return fmt.Sprintf("clerksync: %s has the same %s, and a unique index forbids that", holder, e.Field)
}

// Unwrap returns Err.
func (e *ConflictError) Unwrap() error { return e.Err }

// ofIndex reports whether a unique index is in the way, so that the user could be written
// without the field, or after another user has given the value up. In a conflict about an adoption, a
// record of the app's is in the way: Clerk cannot say whose it is.
func (e *ConflictError) ofIndex() bool {
	var adopting interface{ ConflictText() string }
	return e.Type == "" && !errors.Is(e.Err, ErrUnlinked) && !errors.As(e.Err, &adopting)
}

// BatchError says which users of an UpsertBatch could not be written.
type BatchError struct {
	// Errs are the causes, by index into the batch: what Upsert would have returned. Never
	// empty.
	Errs map[int]error
}

// Error counts the failures and gives the first cause.
func (e *BatchError) Error() string {
	first := slices.Min(slices.Collect(maps.Keys(e.Errs)))
	return fmt.Sprintf("clerksync: %d users of the batch failed, the first at index %d: %s", len(e.Errs), first, withoutPrefix(e.Errs[first]))
}

// Unwrap returns the causes in the order of the batch.
func (e *BatchError) Unwrap() []error {
	errs := make([]error, 0, len(e.Errs))
	for _, i := range slices.Sorted(maps.Keys(e.Errs)) {
		errs = append(errs, e.Errs[i])
	}
	return errs
}
