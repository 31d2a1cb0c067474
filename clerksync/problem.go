package clerksync

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
)

// Problem is the HTTP answer to an error. [Config].ErrorHandler receives it (with
// [errors.As]), and [WriteProblem] writes it.
type Problem struct {
	// Status is the HTTP status code.
	Status int
	// Code tells causes apart for programs: one of the constants "Code…", or the app's own.
	Code string
	// RetryAfter is how long to wait before trying again; 0 means no advice.
	RetryAfter time.Duration
	// Err is the cause. Its text is for logs; it is never sent to a client.
	Err error
}

// Error returns status, code and cause.
func (p *Problem) Error() string {
	if p.Err == nil {
		return fmt.Sprintf("clerksync: %d %s", p.Status, p.Code)
	}
	return fmt.Sprintf("clerksync: %d %s: %s", p.Status, p.Code, withoutPrefix(p.Err))
}

// Unwrap returns Err.
func (p *Problem) Unwrap() error { return p.Err }

// The codes of the answers: the values of [Problem].Code. They do not change between versions;
// a later version may add some. A handler of the app's own may use others.
const (
	// Of a request that is not signed in. The status is 401.

	CodeUnauthenticated   = "unauthenticated"     // the context has neither session claims nor a user
	CodeTokenMissing      = "token_missing"       // neither a bearer token nor, with [AuthConfig].Cookie, a session cookie
	CodeTokenMalformed    = "token_malformed"     // it is not a token of Clerk's form, or there are several that differ
	CodeTokenExpired      = "token_expired"       // its time is over
	CodeTokenNotYetValid  = "token_not_yet_valid" // its time has not begun: a clock is wrong
	CodeTokenWrongClass   = "token_wrong_class"   // it is not a session's, but a template's, a machine's, …
	CodeTokenWrongParty   = "token_wrong_party"   // its origin (azp) is not in [AuthConfig].AuthorizedParties, or it has none
	CodeTokenWrongIssuer  = "token_wrong_issuer"  // it is not from [AuthConfig].Issuer, or not from a Clerk instance
	CodeTokenBadSignature = "token_bad_signature" // it is not signed with the key that it names
	CodeTokenUnknownKey   = "token_unknown_key"   // it is signed with a key that the instance does not have
	CodeSessionPending    = "session_pending"     // the session has open tasks; see [AuthConfig].AllowPending

	// Of a request that is signed in and refused.

	CodeCrossOrigin  = "cross_origin"  // 403: another origin made the request, and the session is in a cookie
	CodeUserInactive = "user_inactive" // 403: deleted, suspended by the app, or banned in Clerk
	CodeUserUnknown  = "user_unknown"  // 403: Clerk does not have the user, or the subject is not a user id
	CodeRoleRequired = "role_required" // 403: the user has none of the roles of [RequireRole]
	CodeJobPending   = "job_pending"   // 503: OnCreate has not succeeded for the user; see [JobConfig].Await

	// Of both a request and a delivery of a webhook.

	CodeConflict      = "conflict"       // 409: what the database holds keeps the record out; see [ConflictError]
	CodeRejected      = "rejected"       // 422: the Store never takes such a record; see [ErrRejected]
	CodeInternal      = "internal"       // 500: a fault in the app, such as an [AuthConfig].CustomClaims that returns no pointer
	CodeMappingFailed = "mapping_failed" // 503 for a request, 500 for a delivery: RoleOf or Map failed
	CodeRecordFailed  = "record_failed"  // 500: the Store's Record option failed; see [RecordFromContext]
	CodeUnavailable   = "unavailable"    // 503: Clerk or the Store failed

	// Of a delivery of a webhook.

	CodeInvalidSignature = "invalid_signature"  // 400: not signed with the endpoint's secret, or too long ago
	CodeUnreadableBody   = "unreadable_body"    // 400: the body ended early, or came too slowly
	CodeWrongInstance    = "wrong_instance"     // 403: the event is not from [WebhookConfig].InstanceID
	CodeMethodNotAllowed = "method_not_allowed" // 405: not a POST
	CodeBodyTooLarge     = "body_too_large"     // 413: larger than [WebhookConfig].MaxBodyBytes
	CodeInvalidEvent     = "invalid_event"      // 422: signed, and cannot be used
	CodeEventHookFailed  = "event_hook_failed"  // 503: [WebhookConfig].OnEvent failed

	// Of the Observation of an [OpJob]. It is never an answer.

	CodeJobFailed = "job_failed" // an attempt of OnCreate or OnDelete failed, or could not be finished
)

// problemDetails are the texts for clients, one for each code of an answer.
var problemDetails = map[string]string{
	CodeUnauthenticated:   "This resource needs a signed-in user.",
	CodeTokenMissing:      "This resource needs a signed-in user.",
	CodeTokenMalformed:    "The token is not a session token of the documented form.",
	CodeTokenExpired:      "The session token is expired. Get a new one.",
	CodeTokenNotYetValid:  "The session token is not valid yet.",
	CodeTokenWrongClass:   "The token is not a session token.",
	CodeTokenWrongParty:   "The session token was not made for an origin of this app.",
	CodeTokenWrongIssuer:  "The session token is from another issuer.",
	CodeTokenBadSignature: "The session token's signature is wrong.",
	CodeTokenUnknownKey:   "The session token is signed with an unknown key.",
	CodeSessionPending:    "The session has tasks to complete before it is signed in.",
	CodeCrossOrigin:       "The request comes from another origin and carries the session in a cookie.",
	CodeUserInactive:      "This account is not active.",
	CodeUserUnknown:       "This session does not belong to a known user.",
	CodeRoleRequired:      "This account does not have the role that is needed here.",
	CodeJobPending:        "This account is being set up. Try again shortly.",
	CodeUnavailable:       "The service cannot check your account right now. Try again shortly.",
	CodeConflict:          "Another account already uses a value that must be unique.",
	CodeRejected:          "This account's data cannot be stored.",
	CodeMappingFailed:     "The account could not be converted to this app's form.",
	CodeRecordFailed:      "The account could not be converted to this app's form.",
	CodeInternal:          "Something went wrong.",
	CodeMethodNotAllowed:  "Webhooks are delivered by POST.",
	CodeUnreadableBody:    "The body could not be read to its end.",
	CodeBodyTooLarge:      "The body is larger than this endpoint accepts.",
	CodeInvalidSignature:  "The webhook is not signed with this endpoint's secret, or its timestamp is too far off.",
	CodeInvalidEvent:      "The event is signed but cannot be used.",
	CodeWrongInstance:     "The event is from another Clerk instance.",
	CodeEventHookFailed:   "The event was applied, but the app's own handling of it failed.",
}

// defaultRetryAfter is advised if the failed service gave no advice.
const defaultRetryAfter = 5 * time.Second

// sentinelProblems are the answers to the sentinel errors.
var sentinelProblems = []struct {
	err    error
	status int
	code   string
	retry  time.Duration
}{
	{ErrUnauthenticated, http.StatusUnauthorized, CodeUnauthenticated, 0},
	{ErrUserInactive, http.StatusForbidden, CodeUserInactive, 0},
	{ErrUserUnknown, http.StatusForbidden, CodeUserUnknown, 0},
	{ErrInvalidSignature, http.StatusBadRequest, CodeInvalidSignature, 0},
	{ErrInvalidEvent, http.StatusUnprocessableEntity, CodeInvalidEvent, 0},
	{ErrWrongInstance, http.StatusForbidden, CodeWrongInstance, 0},
	{ErrRejected, http.StatusUnprocessableEntity, CodeRejected, 0},
	{ErrUnavailable, http.StatusServiceUnavailable, CodeUnavailable, defaultRetryAfter},
}

// problemOf returns the answer to any error: the *Problem in its chain, or the one for its
// sentinel, or 500.
func problemOf(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		if p == nil { // an app's function returned a nil *Problem as an error
			p = &Problem{Status: http.StatusInternalServerError, Code: CodeInternal}
		}
		return p
	}
	for _, s := range sentinelProblems {
		if errors.Is(err, s.err) {
			return &Problem{Status: s.status, Code: s.code, RetryAfter: s.retry, Err: err}
		}
	}
	var conflict *ConflictError
	if errors.As(err, &conflict) {
		return &Problem{Status: http.StatusConflict, Code: CodeConflict, Err: err}
	}
	return &Problem{Status: http.StatusInternalServerError, Code: CodeInternal, Err: err}
}

// unavailable is the answer if Clerk or the Store failed. It matches [ErrUnavailable] and
// err. If err is a *Problem already, it stays as it is.
func unavailable(err error) error {
	var p *Problem
	if errors.As(err, &p) {
		return err
	}
	retry := defaultRetryAfter
	var clerk *clerkapi.Error
	if errors.As(err, &clerk) && clerk.RetryAfter() > 0 {
		retry = min(clerk.RetryAfter(), time.Minute)
	}
	return &Problem{
		Status:     http.StatusServiceUnavailable,
		Code:       CodeUnavailable,
		RetryAfter: retry,
		Err:        prefixed("%w: %w", ErrUnavailable, err),
	}
}

// WriteProblem writes the standard answer to err: an application/problem+json document
// (RFC 9457) with the stable code. err is a [*Problem], or one of the package's errors, or
// anything else for a 500. Its text is not sent. The answer has Retry-After if the Problem
// advises it, and WWW-Authenticate on a 401 (RFC 6750).
//
// Use it in an ErrorHandler for the cases that you do not answer yourself.
func WriteProblem(w http.ResponseWriter, _ *http.Request, err error) {
	p := *problemOf(err)
	if p.Status < 400 || p.Status > 599 {
		p.Status = http.StatusInternalServerError
	}
	title := cmp.Or(http.StatusText(p.Status), "Error") // an app's Problem may have a status without a name
	detail := cmp.Or(problemDetails[p.Code], title)
	body, _ := json.Marshal(struct { // strings and an int always marshal
		Title  string `json:"title"`
		Status int    `json:"status"`
		Code   string `json:"code"`
		Detail string `json:"detail"`
	}{title, p.Status, p.Code, detail})

	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Del("Content-Length")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds()))))
	}
	if p.Status == http.StatusUnauthorized {
		challenge := "Bearer"
		if p.Code != CodeTokenMissing && p.Code != CodeUnauthenticated { // RFC 6750, section 3.1: no error if no token was sent
			challenge = fmt.Sprintf(`Bearer error="invalid_token", error_description="%s"`, detail)
		}
		h.Set("WWW-Authenticate", challenge)
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n'))
}
