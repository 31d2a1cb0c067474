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
	"github.com/clerksync/clerksync-go/clerksync/internal/sessiontoken"
)

// Problem is the HTTP answer to an error. [Config].ErrorHandler receives it (with
// [errors.As]), and [WriteProblem] writes it.
type Problem struct {
	// Status is the HTTP status code.
	Status int
	// Code tells causes apart for programs. It does not change between versions.
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

// The codes of the answers. Each has its detail text in problemDetails.
const (
	codeUnauthenticated  = "unauthenticated"
	codeTokenMissing     = "token_missing"
	codeTokenMalformed   = string(sessiontoken.Malformed)
	codeTokenExpired     = string(sessiontoken.Expired)
	codeTokenNotYetValid = string(sessiontoken.NotYetValid)
	codeTokenWrongClass  = string(sessiontoken.WrongClass)
	codeTokenWrongParty  = string(sessiontoken.WrongParty)
	codeTokenWrongIssuer = string(sessiontoken.WrongIssuer)
	codeBadSignature     = string(sessiontoken.BadSignature)
	codeUnknownKey       = string(sessiontoken.UnknownKey)
	codeSessionPending   = string(sessiontoken.Pending)
	codeCrossOrigin      = "cross_origin"
	codeUserInactive     = "user_inactive"
	codeUserUnknown      = "user_unknown"
	codeUnavailable      = "unavailable"
	codeConflict         = "conflict"
	codeRejected         = "rejected"
	codeMappingFailed    = "mapping_failed"
	codeRecordFailed     = "record_failed"
	codeInternal         = "internal"
	codeMethodNotAllowed = "method_not_allowed"
	codeUnreadableBody   = "unreadable_body"
	codeBodyTooLarge     = "body_too_large"
	codeInvalidSignature = "invalid_signature"
	codeInvalidEvent     = "invalid_event"
	codeWrongInstance    = "wrong_instance"
	codeEventHookFailed  = "event_hook_failed"
	codeJobPending       = "job_pending"
	codeJobFailed        = "job_failed" // of an Observation; never an answer
)

var problemDetails = map[string]string{
	codeUnauthenticated:  "This resource needs a signed-in user.",
	codeTokenMissing:     "This resource needs a signed-in user.",
	codeTokenMalformed:   "The token is not a session token of the documented form.",
	codeTokenExpired:     "The session token is expired. Get a new one.",
	codeTokenNotYetValid: "The session token is not valid yet.",
	codeTokenWrongClass:  "The token is not a session token.",
	codeTokenWrongParty:  "The session token was made for another origin.",
	codeTokenWrongIssuer: "The session token is from another issuer.",
	codeBadSignature:     "The session token's signature is wrong.",
	codeUnknownKey:       "The session token is signed with an unknown key.",
	codeSessionPending:   "The session has tasks to complete before it is signed in.",
	codeCrossOrigin:      "The request comes from another origin and carries the session in a cookie.",
	codeUserInactive:     "This account is not active.",
	codeUserUnknown:      "This session does not belong to a known user.",
	codeUnavailable:      "The service cannot check your account right now. Try again shortly.",
	codeConflict:         "Another account already uses a value that must be unique.",
	codeRejected:         "This account's data cannot be stored.",
	codeMappingFailed:    "The account could not be converted to this app's form.",
	codeRecordFailed:     "The account could not be converted to this app's form.",
	codeInternal:         "Something went wrong.",
	codeMethodNotAllowed: "Webhooks are delivered by POST.",
	codeUnreadableBody:   "The body could not be read to its end.",
	codeBodyTooLarge:     "The body is larger than this endpoint accepts.",
	codeInvalidSignature: "The webhook is not signed with this endpoint's secret, or its timestamp is too far off.",
	codeInvalidEvent:     "The event is signed but cannot be used.",
	codeWrongInstance:    "The event is from another Clerk instance.",
	codeEventHookFailed:  "The event was applied, but the app's own handling of it failed.",
	codeJobPending:       "This account is being set up. Try again shortly.",
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
	{ErrUnauthenticated, http.StatusUnauthorized, codeUnauthenticated, 0},
	{ErrUserInactive, http.StatusForbidden, codeUserInactive, 0},
	{ErrUserUnknown, http.StatusForbidden, codeUserUnknown, 0},
	{ErrInvalidSignature, http.StatusBadRequest, codeInvalidSignature, 0},
	{ErrInvalidEvent, http.StatusUnprocessableEntity, codeInvalidEvent, 0},
	{ErrWrongInstance, http.StatusForbidden, codeWrongInstance, 0},
	{ErrRejected, http.StatusUnprocessableEntity, codeRejected, 0},
	{ErrUnavailable, http.StatusServiceUnavailable, codeUnavailable, defaultRetryAfter},
}

// problemOf returns the answer to any error: the *Problem in its chain, or the one for its
// sentinel, or 500.
func problemOf(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		if p == nil { // an app's function returned a nil *Problem as an error
			p = &Problem{Status: http.StatusInternalServerError, Code: codeInternal}
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
		return &Problem{Status: http.StatusConflict, Code: codeConflict, Err: err}
	}
	return &Problem{Status: http.StatusInternalServerError, Code: codeInternal, Err: err}
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
		Code:       codeUnavailable,
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
		if p.Code != codeTokenMissing && p.Code != codeUnauthenticated { // RFC 6750, section 3.1: no error if no token was sent
			challenge = fmt.Sprintf(`Bearer error="invalid_token", error_description="%s"`, detail)
		}
		h.Set("WWW-Authenticate", challenge)
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n'))
}
