// Package clerkapi reads from Clerk's Backend API through the official SDK: a single
// user, the keys that sign session tokens, and whole lists of users. It knows Clerk's
// answers, limits and failures, and nothing of clerksync's records.
package clerkapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// MaxUserCalls bounds how many calls read users at one time, and so the connections to a slow
// Clerk. Clerk allows 1000 requests in 10 seconds, so the bound is not reached while
// Clerk is healthy.
const MaxUserCalls = 1000

// Config says how to reach Clerk.
type Config struct {
	// Backend is called as it is, once per request. Defaults to a client that retries,
	// made from the fields below.
	Backend clerk.Backend

	SecretKey  string
	APIURL     string
	HTTPClient *http.Client // nil for one on http.DefaultTransport
	Clock      clock.Clock

	// OnCall is called when a call begins: once for a call with its retries, but once for each
	// attempt of a [BulkReader]. It returns the context for the call, and a function to call with
	// its error at the end. userID is empty unless the call reads one user. Defaults to none.
	OnCall func(ctx context.Context, op, userID string) (context.Context, func(error))
}

// Client calls Clerk's Backend API. It is safe for concurrent use.
type Client struct {
	backend  clerk.Backend // retries
	bulk     clerk.Backend // for a BulkReader, which retries itself
	clock    clock.Clock
	userSlot chan struct{} // one for each call that reads users
	onCall   func(ctx context.Context, op, userID string) (context.Context, func(error))
}

// New returns a Client. It does no I/O.
func New(cfg Config) *Client {
	c := &Client{backend: cfg.Backend, bulk: cfg.Backend, clock: cfg.Clock, userSlot: make(chan struct{}, MaxUserCalls), onCall: cfg.OnCall}
	if cfg.Backend != nil {
		return c
	}
	var client http.Client
	if cfg.HTTPClient != nil {
		client = *cfg.HTTPClient
	}
	if client.CheckRedirect == nil { // Clerk does not redirect, and nobody else may see the secret key
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	next := client.Transport
	backend := func(transport http.RoundTripper) clerk.Backend {
		own := client
		own.Transport = transport
		return clerk.NewBackend(&clerk.BackendConfig{HTTPClient: &own, URL: &cfg.APIURL, Key: &cfg.SecretKey})
	}
	c.backend = backend(&retryTransport{next: &attempt{next: next, clock: cfg.Clock, maxBytes: maxAnswerBytes}, clock: cfg.Clock})
	c.bulk = backend(&bodyTransport{next: &attempt{next: next, clock: cfg.Clock, maxBytes: maxPageBytes}})
	return c
}

// User reads one user: Clerk's JSON of it, and as of when this was Clerk's latest state.
// The caller has checked id with [ValidUserID]: the SDK puts it into the path unescaped.
// The error is an [*Error]; it matches [ErrUserUnknown] if Clerk itself says that there is
// no such user.
func (c *Client) User(ctx context.Context, id string) (raw json.RawMessage, asOf time.Time, err error) {
	const op = "get user"
	release, err := c.acquireSlot(ctx, op)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer release()
	var call callInfo
	err = c.get(ctx, c.backend, &call, op, "/users/"+id, nil, func(answer json.RawMessage) error {
		var got struct {
			ID string `json:"id"`
		}
		// A cache or a proxy in between may answer with another user, or 304 and no body.
		if err := json.Unmarshal(answer, &got); err != nil || got.ID != id {
			return errNotTheUser
		}
		raw = answer
		return nil
	})
	return raw, call.sentAt, err
}

var errNotTheUser = errors.New("the answer is not the user asked for")

// get makes one request and has parse read the answer. call describes the last attempt.
// Every error is an *Error; its text quotes nothing of the answer, unless parse's
// own error does.
func (c *Client) get(
	ctx context.Context, backend clerk.Backend, call *callInfo,
	op, path string, params url.Values, parse func(json.RawMessage) error,
) error {
	if c.onCall == nil {
		return c.ask(ctx, backend, call, op, path, params, parse)
	}
	userID := strings.TrimPrefix(path, "/users/")
	if !ValidUserID(userID) {
		userID = ""
	}
	ctx, end := c.onCall(ctx, op, userID)
	err := c.ask(ctx, backend, call, op, path, params, parse)
	end(err)
	return err
}

// ask is get, unwatched.
func (c *Client) ask(
	ctx context.Context, backend clerk.Backend, call *callInfo,
	op, path string, params url.Values, parse func(json.RawMessage) error,
) error {
	call.sentAt = c.clock.Now()
	request := clerk.NewAPIRequest(http.MethodGet, path)
	if params != nil {
		request.SetParams(&query{values: params})
	}
	var body rawBody
	err := backend.Call(context.WithValue(ctx, callInfoKey{}, call), request, &body)
	if err != nil {
		return describe(ctx, op, call, err)
	}
	if call.body != nil {
		body.json = call.body
	}
	if err := parse(body.json); err != nil {
		return &Error{op: op, status: call.status, notClerk: call.status >= 300 || notJSON(body.json), err: err}
	}
	return nil
}

// notJSON reports whether an answer is something else than JSON, such as a web page.
func notJSON(answer []byte) bool {
	answer = bytes.TrimSpace(answer)
	return len(answer) > 0 && answer[0] != '{' && answer[0] != '[' && string(answer) != "null"
}

// callInfo is how the transport reports what the SDK does not hand out.
type callInfo struct {
	// Of the last attempt.
	sentAt     time.Time
	status     int // 0: no answer
	retryAfter time.Duration
	body       []byte // the answer of a bodyTransport
}

type callInfoKey struct{}

// query is the parameters of a GET.
type query struct {
	clerk.APIParams
	values url.Values
}

func (q *query) ToQuery() url.Values { return q.values }

// rawBody receives an answer undecoded: clerksync decodes more leniently than the SDK.
type rawBody struct{ json json.RawMessage }

func (b *rawBody) Read(*clerk.APIResponse)      {}
func (b *rawBody) UnmarshalJSON(p []byte) error { b.json = append(b.json[:0], p...); return nil }

// ValidUserID reports whether id may be the id of a Clerk user: "user_" and up to 64
// letters, digits, "_" or "-". No other id may enter a path or a query.
func ValidUserID(id string) bool {
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

// SecondsBelow tells apart the two units in which Clerk's times arrive: smaller numbers
// are seconds since 1970, the others milliseconds. Clerk sends milliseconds, but the
// examples in its schema and some of its token shortcodes are in seconds.
const SecondsBelow = 1e11
