package clerksync

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
)

const (
	// retryBudget is how long one Clerk call may wait between its attempts, in all.
	retryBudget = 2 * time.Second
	// firstBackoff is the wait before the second attempt where Clerk gives no
	// advice; it doubles from there, with jitter.
	firstBackoff = 100 * time.Millisecond
	maxAttempts  = 4
	// maxUserCalls bounds the users that are read at one time, and so the
	// connections to a Clerk that is slow: more than it answers anybody in ten
	// seconds, to keep nobody waiting while it is not.
	maxUserCalls = 1000
	// maxAnswerBytes bounds an answer of Clerk's, which the SDK reads whole.
	maxAnswerBytes = 16 << 20
	// maxPageBytes bounds a page of 500 users with all their metadata full.
	maxPageBytes = 64 << 20
)

// clerkAPI reads from Clerk's Backend API through the official SDK.
type clerkAPI struct {
	backend clerk.Backend
	clock   clock
	reading chan struct{} // one slot for each user that is being read
}

// newClerkAPI wraps cfg.Backend, or a client of its own that retries.
func newClerkAPI(cfg *Config, c clock) *clerkAPI {
	reading := make(chan struct{}, maxUserCalls)
	if cfg.Backend != nil {
		return &clerkAPI{backend: cfg.Backend, clock: c, reading: reading}
	}
	client := http.Client{}
	if cfg.HTTPClient != nil {
		client = *cfg.HTTPClient
	}
	if client.CheckRedirect == nil { // Clerk redirects nowhere, and the secret key goes to Clerk alone
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	client.Transport = &retryTransport{next: client.Transport, clock: c}
	return &clerkAPI{
		backend: clerk.NewBackend(&clerk.BackendConfig{
			HTTPClient: &client,
			URL:        &cfg.APIURL,
			Key:        &cfg.SecretKey,
		}),
		clock:   c,
		reading: reading,
	}
}

// user reads one user: Clerk's JSON of it, and as of when it is Clerk's latest
// state. id has been checked: the SDK puts it into the path as it is. The error
// matches ErrUserUnknown where Clerk has no such user, in Clerk's own words.
func (a *clerkAPI) user(ctx context.Context, id string) (raw json.RawMessage, asOf time.Time, err error) {
	if ctx.Err() != nil {
		return nil, time.Time{}, &clerkError{op: "get user", err: context.Cause(ctx)}
	}
	select {
	case a.reading <- struct{}{}:
		defer func() { <-a.reading }()
	case <-ctx.Done():
		return nil, time.Time{}, &clerkError{op: "get user", err: context.Cause(ctx)}
	}
	call := &callInfo{}
	err = a.get(ctx, call, "get user", "/users/"+id, nil, userWithID(id, &raw))
	return raw, call.sentAt, err
}

// userWithID takes an answer that is the user asked for: a cache or proxy in between
// may give another, or a 304 and no body at all.
func userWithID(id string, raw *json.RawMessage) func(json.RawMessage) error {
	return func(answer json.RawMessage) error {
		var got struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(answer, &got); err != nil || got.ID != id {
			return errors.New("the answer is not the user asked for")
		}
		*raw = answer
		return nil
	}
}

// get asks Clerk once, retries of the transport aside, and has parse read the
// answer. Every error is a *clerkError, but for parse's it holds nothing of the
// answer; call tells of the attempt that decided.
func (a *clerkAPI) get(ctx context.Context, call *callInfo, op, path string, params url.Values, parse func(json.RawMessage) error) error {
	call.sentAt = a.clock.Now()
	request := clerk.NewAPIRequest(http.MethodGet, path)
	if params != nil {
		request.SetParams(&query{values: params})
	}
	var body rawBody
	err := a.backend.Call(context.WithValue(ctx, callInfoKey{}, call), request, &body)
	if err != nil {
		return describe(ctx, op, call, err)
	}
	if call.body != nil {
		body.json = call.body
	}
	if err := parse(body.json); err != nil {
		return &clerkError{op: op, status: call.status, err: err}
	}
	return nil
}

// query is the parameters of a GET.
type query struct {
	clerk.APIParams
	values url.Values
}

func (q *query) ToQuery() url.Values { return q.values }

// rawBody receives an answer undecoded: clerksync decodes more leniently than
// the SDK.
type rawBody struct{ json json.RawMessage }

func (b *rawBody) Read(*clerk.APIResponse)      {}
func (b *rawBody) UnmarshalJSON(p []byte) error { b.json = append(b.json[:0], p...); return nil }

// clerkError is a failed call. Its text holds nothing of the answer but Clerk's
// error code and trace id.
type clerkError struct {
	op         string
	status     int // 0: no answer
	code       string
	traceID    string
	retryAfter time.Duration
	err        error
}

func (e *clerkError) Error() string {
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
	if e.status == http.StatusUnauthorized || e.status == http.StatusForbidden {
		text += ": Clerk refuses the secret key; check that it is this instance's"
	}
	if e.err != nil {
		text += ": " + e.err.Error()
	}
	return text
}

func (e *clerkError) Unwrap() error { return e.err }

// describe turns the SDK's error into one that is safe to log and to branch on:
// an answer that is not in Clerk's form makes the SDK return the whole body as
// the error's text, without the status.
func describe(ctx context.Context, op string, call *callInfo, err error) error {
	e := &clerkError{op: op, status: call.status, retryAfter: call.retryAfter}
	var api *clerk.APIErrorResponse
	switch {
	case errors.As(err, &api):
		e.status, e.traceID = api.HTTPStatusCode, api.TraceID
		if len(api.Errors) > 0 {
			e.code = api.Errors[0].Code
		}
		if e.status == http.StatusNotFound && e.code == "resource_not_found" {
			e.err = ErrUserUnknown
		}
	case ctx.Err() != nil:
		e.err = context.Cause(ctx)
	case e.status >= 400:
		e.err = errors.New("the answer is not in Clerk's form; something between here and Clerk gave it")
	case e.status != 0:
		e.err = errors.New("the answer could not be read")
	default:
		e.err = noAnswer(err)
	}
	return e
}

// noAnswer is why there is none. A *url.Error is looked into only: its URL may be one
// that an answer redirected to, and the cause may quote what was no HTTP.
func noAnswer(err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	var certificate *tls.CertificateVerificationError
	var network net.Error
	switch {
	case errors.As(err, &certificate):
		return certificate
	case errors.As(err, &network):
		return network // an address and a reason
	}
	return errors.New("no answer")
}

// callInfo is what the SDK does not hand out about the attempt that decided a call,
// and what it does not pass on to the transport.
type callInfo struct {
	sentAt     time.Time
	status     int
	retryAfter time.Duration

	// bulk leaves retrying to the caller, and takes a good answer's body past the
	// SDK: its two passes over a page of users cost more than all the rest.
	bulk bool
	body []byte
}

type callInfoKey struct{}

// retryTransport sends a request again, below the SDK, while Clerk answers 429 or
// 5xx or not at all, and the waits between stay within retryBudget. It waits on
// the Syncer's clock, which the retrying HTTP clients at hand cannot.
type retryTransport struct {
	next  http.RoundTripper // nil: http.DefaultTransport
	clock clock
}

func (t *retryTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	next := t.next
	if next == nil {
		next = http.DefaultTransport
	}
	call, _ := r.Context().Value(callInfoKey{}).(*callInfo)
	if call == nil {
		call = &callInfo{}
	}
	budget, backoff := retryBudget, firstBackoff
	for attempt := 1; ; attempt++ {
		*call = callInfo{sentAt: t.clock.Now(), bulk: call.bulk}
		resp, err := next.RoundTrip(r)
		if err == nil {
			call.status = resp.StatusCode
			call.retryAfter = retryAfter(resp.Header)
			if call.bulk {
				if err := call.take(resp); err != nil {
					return nil, err
				}
				return resp, nil
			}
			resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswerBytes)
			if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 500 {
				return resp, nil
			}
		} else if call.bulk {
			return nil, err
		}
		wait := max(call.retryAfter, backoff/2+rand.N(backoff))
		// Only reads have no body to send again and may be repeated blindly.
		if r.Method != http.MethodGet || attempt == maxAttempts || wait > budget || r.Context().Err() != nil {
			return resp, err
		}
		if resp != nil {
			_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // lets the connection be used again
			_ = resp.Body.Close()
		}
		if err := t.clock.Sleep(r.Context(), wait); err != nil {
			return nil, err
		}
		budget -= wait
		backoff *= 2
	}
}

// take keeps the body of an answer that is no error, and leaves the SDK none.
func (c *callInfo) take(resp *http.Response) error {
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxPageBytes)
	if resp.StatusCode >= 400 {
		return nil
	}
	defer func() { _ = resp.Body.Close() }()
	var body bytes.Buffer
	if n := resp.ContentLength; 0 < n && n <= maxPageBytes {
		body.Grow(int(n) + bytes.MinRead)
	}
	_, err := body.ReadFrom(resp.Body)
	c.body, resp.Body = body.Bytes(), http.NoBody
	return err
}

// retryAfter reads the header's form in seconds, the one that Clerk sends.
func retryAfter(h http.Header) time.Duration {
	s, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || s < 0 || s > 24*60*60 {
		return 0
	}
	return time.Duration(s) * time.Second
}

// validUserID reports whether id may be the id of a Clerk user: "user_" and up to
// 64 letters, digits, "_" or "-". What is not never enters a path or a query.
func validUserID(id string) bool {
	const prefix = "user_"
	if len(id) <= len(prefix) || len(id) > len(prefix)+64 || id[:len(prefix)] != prefix {
		return false
	}
	for _, c := range []byte(id[len(prefix):]) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
