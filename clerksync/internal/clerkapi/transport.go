package clerkapi

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

const (
	// RetryBudget is how long one call may wait between its attempts, in total.
	RetryBudget = 2 * time.Second

	// firstBackoff is the wait before the second attempt if Clerk gives no advice. It
	// doubles from there, with jitter.
	firstBackoff = 100 * time.Millisecond
	maxAttempts  = 4

	// maxAnswerBytes bounds an answer, which the SDK reads whole.
	maxAnswerBytes = 16 << 20
	// maxPageBytes bounds a page of 500 users with as much metadata as Clerk allows.
	maxPageBytes = 64 << 20
)

// attempt sends a request once. It notes in the request's callInfo how that went, and
// bounds the answer's size.
type attempt struct {
	next     http.RoundTripper // nil: http.DefaultTransport
	clock    clock.Clock
	maxBytes int64
}

func (t *attempt) RoundTrip(r *http.Request) (*http.Response, error) {
	next := t.next
	if next == nil {
		next = http.DefaultTransport
	}
	call := infoOf(r)
	*call = callInfo{sentAt: t.clock.Now()}
	resp, err := next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	call.status, call.retryAfter = resp.StatusCode, retryAfter(resp.Header)
	resp.Body = http.MaxBytesReader(nil, resp.Body, t.maxBytes)
	return resp, nil
}

func infoOf(r *http.Request) *callInfo {
	if call, ok := r.Context().Value(callInfoKey{}).(*callInfo); ok {
		return call
	}
	return &callInfo{}
}

// retryTransport repeats a GET, below the SDK, while Clerk answers 429 or 5xx or not at
// all, and the waits stay within RetryBudget. It waits on the injected clock, which the
// retrying HTTP clients at hand cannot do.
type retryTransport struct {
	next  *attempt
	clock clock.Clock
}

func (t *retryTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	call := infoOf(r)
	budget, backoff := RetryBudget, firstBackoff
	for attempt := 1; ; attempt++ {
		resp, err := t.next.RoundTrip(r)
		if err == nil && resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 500 {
			return resp, nil
		}
		wait := max(call.retryAfter, backoff/2+rand.N(backoff))
		// A GET has no body to send again, and repeating it is harmless.
		if r.Method != http.MethodGet || attempt == maxAttempts || wait > budget || r.Context().Err() != nil {
			return resp, err
		}
		if resp != nil {
			_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so the connection can be used again
			_ = resp.Body.Close()
		}
		if err := t.clock.Sleep(r.Context(), wait); err != nil {
			return nil, err
		}
		budget -= wait
		backoff *= 2
	}
}

// bodyTransport passes the body of a good answer around the SDK, in the callInfo: the
// SDK's two passes over a page of users cost more than everything else.
type bodyTransport struct{ next *attempt }

func (t *bodyTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err != nil || resp.StatusCode >= 400 {
		return resp, err
	}
	defer func() { _ = resp.Body.Close() }()
	var body bytes.Buffer
	if n := resp.ContentLength; 0 < n && n <= maxPageBytes {
		body.Grow(int(n) + bytes.MinRead)
	}
	if _, err := body.ReadFrom(resp.Body); err != nil {
		return nil, err
	}
	infoOf(r).body = body.Bytes()
	resp.Body = http.NoBody
	return resp, nil
}

// retryAfter reads the header in seconds, the form that Clerk sends.
func retryAfter(h http.Header) time.Duration {
	s, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || s < 0 || s > 24*60*60 {
		return 0
	}
	return time.Duration(s) * time.Second
}
