package clerkapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
)

// ErrUserUnknown says that Clerk has no such user, or that an id is no user id. Package
// clerksync exports it under the same name.
var ErrUserUnknown = errors.New("clerksync: Clerk has no such user")

// Error is a failed call. Its text quotes nothing of the answer but Clerk's error code
// and trace id.
type Error struct {
	op         string
	status     int // 0: no answer
	code       string
	traceID    string
	retryAfter time.Duration
	notClerk   bool // the answer is not in the form of Clerk's
	err        error
}

// Error names the operation, the status, and what to check.
func (e *Error) Error() string {
	text := "clerk: " + e.op
	if e.status != 0 {
		text += fmt.Sprintf(": status %d", e.status)
	}
	if e.code != "" {
		text += " " + e.code
	}
	if e.traceID != "" {
		text += " (trace " + e.traceID + ")"
	}
	if (e.status == http.StatusUnauthorized || e.status == http.StatusForbidden) && !e.notClerk {
		text += ": Clerk rejects the secret key; check that it is this instance's"
	}
	if e.err != nil {
		text += ": " + strings.TrimPrefix(e.err.Error(), "clerksync: ") // ErrUserUnknown's
	}
	if e.wrongPlace() {
		text += ". Check Config.APIURL (CLERK_API_URL): Clerk's is https://api.clerk.com"
	}
	return text
}

// wrongPlace reports whether the failure points to a wrong APIURL rather than to an outage of
// Clerk: the host does not exist, nothing listens there, its certificate is not valid for it, http
// and https are mixed up, or something other than Clerk answers.
func (e *Error) wrongPlace() bool {
	if e.status != 0 {
		transient := e.status >= http.StatusInternalServerError || e.status == http.StatusTooManyRequests ||
			e.status == http.StatusRequestTimeout || e.status == http.StatusTooEarly
		return e.notClerk && !transient
	}
	var host *net.DNSError
	var certificate *tls.CertificateVerificationError
	return errors.As(e.err, &host) && host.IsNotFound || errors.As(e.err, &certificate) ||
		errors.Is(e.err, syscall.ECONNREFUSED) || errors.Is(e.err, http.ErrSchemeMismatch)
}

// isWrongPlace is wrongPlace for any error.
func isWrongPlace(err error) bool {
	var failed *Error
	return errors.As(err, &failed) && failed.wrongPlace()
}

// isAnswer reports whether a call got an answer of Clerk's, be it an error.
func isAnswer(err error) bool {
	var failed *Error
	return err == nil || errors.As(err, &failed) && failed.status != 0 && !failed.notClerk
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.err }

// RetryAfter is how long Clerk asked to wait; 0 if it did not.
func (e *Error) RetryAfter() time.Duration { return e.retryAfter }

// RateLimited reports whether Clerk answered 429.
func (e *Error) RateLimited() bool { return e.status == http.StatusTooManyRequests }

// permanent reports whether asking again would give the same answer. A 403 or 404 without one of
// Clerk's error codes comes from a proxy, and may be transient.
func permanent(err error) bool {
	var failed *Error
	if !errors.As(err, &failed) {
		return false
	}
	switch failed.status {
	case http.StatusUnauthorized, http.StatusBadRequest, http.StatusUnprocessableEntity:
		return true
	case http.StatusForbidden, http.StatusNotFound:
		return failed.code != ""
	}
	return false
}

// rejectsParameter reports whether Clerk rejected a parameter of the request.
func rejectsParameter(err error) bool {
	var failed *Error
	if !errors.As(err, &failed) {
		return false
	}
	switch failed.status {
	case http.StatusUnprocessableEntity, http.StatusBadRequest:
		return true
	case http.StatusNotFound:
		return failed.code != "" // otherwise it comes from a proxy
	}
	return false
}

// describe turns the SDK's error into one that is safe to log and to branch on. If an
// answer is not in Clerk's form, the SDK's error is the whole body, without the status.
func describe(ctx context.Context, op string, call *callInfo, err error) error {
	e := &Error{op: op, status: call.status, retryAfter: call.retryAfter}
	var api *clerk.APIErrorResponse
	switch {
	case errors.As(err, &api):
		e.status, e.traceID = api.HTTPStatusCode, api.TraceID
		if len(api.Errors) > 0 {
			e.code = api.Errors[0].Code
		}
		e.notClerk = len(api.Errors) == 0
		if e.status == http.StatusNotFound && e.code == "resource_not_found" {
			e.err = ErrUserUnknown
		}
	case ctx.Err() != nil:
		e.err = context.Cause(ctx)
	case e.status >= 400:
		e.notClerk = true
		e.err = errors.New("the answer is not in Clerk's form; something between here and Clerk gave it")
	case e.status >= 300:
		e.notClerk = true
		e.err = errors.New("the answer is a redirect, and Clerk gives none")
	case e.status != 0:
		e.err = errors.New("the answer could not be read")
	default:
		e.err = whyNoAnswer(err)
	}
	return e
}

// whyNoAnswer picks the part of err that is safe to log. The URL of a *url.Error may come
// from a redirect, and other causes may quote an answer that was not HTTP.
func whyNoAnswer(err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	var certificate *tls.CertificateVerificationError
	var network net.Error
	switch {
	case errors.As(err, &certificate):
		return certificate
	case errors.Is(err, http.ErrSchemeMismatch):
		return http.ErrSchemeMismatch
	case errors.As(err, &network):
		return network // an address and a reason
	}
	return errors.New("no answer")
}
