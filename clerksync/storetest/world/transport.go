package world

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// transport carries a process's requests to Clerk. What goes wrong on the way, and what
// happens meanwhile, happens here, on the goroutine that asks: the answer of Clerk is
// made before what comes after it, and there is nothing to wait for.
type transport struct {
	w    *world
	p    *process
	base http.RoundTripper
}

// The faults of a call to Clerk.
const (
	clerk500      = "Clerk answers 500"
	clerkRate     = "Clerk answers 429"
	clerkRateLong = "Clerk answers 429 for a minute"
	proxy404      = "a proxy answers 404 in HTML"
	proxy502      = "a proxy answers 502 in HTML"
	truncated     = "Clerk's answer is cut off"
	halfDocument  = "Clerk's answer is half a document"
	refusedConn   = "Clerk refuses the connection"
	hanging       = "Clerk hangs until the clock moves"
	slowAnswer    = "Clerk is slow to answer"
	otherUser     = "Clerk answers another user"
	keyRefused    = "Clerk refuses the secret key"
)

var clerkFaults = []string{clerk500, clerkRate, proxy404, truncated, hanging, slowAnswer, proxy502, halfDocument, refusedConn, clerkRateLong, otherUser, keyRefused}

var errRefused = errors.New("world: connection refused")

func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	w, ctx := t.w, request.Context()
	r := runOf(ctx)
	if r == nil {
		panic("world: a call to Clerk outside of any operation")
	}
	if r.kind == visit && isRefresh() {
		if r = t.p.park(r); r == nil {
			return nil, errRefused
		}
	}
	if r.pages != nil && isPage(request) && !r.pages.wait(ctx) {
		return nil, context.Cause(ctx)
	}
	if ctx.Err() != nil { // no call of anybody's: some get as far as here, some do not
		return nil, context.Cause(ctx)
	}
	n := r.touch()
	r.interrupt(n, false)
	fault := ""
	if f := r.fault(n); f != 0 {
		fault = clerkFaults[f%len(clerkFaults)]
	} else if w.clerkIsDown {
		fault = clerkFaults[w.clerkOutage%len(clerkFaults)]
		if fault == slowAnswer {
			fault = clerk500
		}
	}
	if fault != "" {
		w.counts.add(fault)
		if fault == proxy404 {
			w.counts.add(proxysNotFound)
		}
		w.trouble(r)
	}
	switch fault {
	case refusedConn:
		return nil, errRefused
	case hanging:
		w.clock.Advance(bulkAttemptTimeout + time.Second)
		if ctx.Err() == nil {
			return nil, errRefused // whoever asks has more patience than the network
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	w.setFault(answerOf(fault, w))
	response, err := t.base.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	w.seq++
	r.clerkRead = w.seq
	var listed []string
	if r.pages != nil {
		listed = edit(r, request, response)
	}
	r.interrupt(n, true)
	if fault == slowAnswer {
		w.clock.Advance([]time.Duration{3 * time.Second, callTimeout + time.Second}[n%2])
	}
	if ctx.Err() != nil {
		_ = response.Body.Close()
		return nil, context.Cause(ctx)
	}
	if listed != nil {
		r.pages.serve(listed)
	}
	return response, nil
}

// answerOf is what the server answers in place of Clerk's answer, nil for nothing.
func answerOf(fault string, w *world) *fakeclerk.Fault {
	html := func(status int) *fakeclerk.Fault {
		return &fakeclerk.Fault{Status: status, ContentType: "text/html", Body: "<html><body>nginx</body></html>"}
	}
	rate := func(seconds string) *fakeclerk.Fault {
		f := fakeclerk.ErrorFault(http.StatusTooManyRequests, "too_many_requests")
		f.Header.Set("Retry-After", seconds)
		return f
	}
	switch fault {
	case clerk500:
		return fakeclerk.ErrorFault(http.StatusInternalServerError, "internal_clerk_error")
	case clerkRate:
		return rate("1")
	case clerkRateLong:
		return rate("60")
	case proxy404:
		return html(http.StatusNotFound)
	case proxy502:
		return html(http.StatusBadGateway)
	case truncated:
		return &fakeclerk.Fault{Truncate: true}
	case halfDocument:
		return &fakeclerk.Fault{Body: `{"object":"user","id":"user_`}
	case otherUser:
		return &fakeclerk.Fault{Body: string(w.bystander)}
	case keyRefused:
		return fakeclerk.ErrorFault(http.StatusUnauthorized, "clerk_key_invalid")
	}
	return nil
}

// isRefresh reports whether the caller runs behind a visit. A visit's own lookup and the
// refresh behind it have the same context, and nothing else tells them apart.
func isRefresh() bool {
	var pcs [48]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, "clerksync.(*Syncer).refresh") {
			return true
		}
		if !more {
			return false
		}
	}
}

// omission is what Clerk leaves out of its lists for the length of one Reconcile.
type omission struct {
	lists bool            // pages, and lists by id
	one   bool            // single users: a replica that lags behind
	count bool            // they are not counted either
	young bool            // only while they are, as a replica lags so far and no further
	ids   map[string]bool // who
}

// lagsBy is how far a replica lags: less than the holdback.
const lagsBy = holdback - time.Minute

// lacks reports whether Clerk leaves the user out now.
func (w *world) lacks(o omission, id string) bool {
	return o.ids[id] && (!o.young || ms(w.clock.Now())-w.byID[id].born < lagsBy.Milliseconds())
}

// edit leaves out of an answer what Clerk's lists lack, and returns the users of a page.
func edit(r *run, request *http.Request, response *http.Response) (listed []string) {
	path := request.URL.Path
	if response.StatusCode != http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil { // cut off: let the Syncer find that out
		response.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failingReader{err}))
		return nil
	}
	switch {
	case strings.HasSuffix(path, "/users/count"):
		n := 0
		for id := range r.omits.ids {
			if r.w.lacks(r.omits, id) && r.w.byID[id].lives() {
				n++
			}
		}
		if r.omits.count && n > 0 {
			var c struct {
				Count int `json:"total_count"`
			}
			if json.Unmarshal(body, &c) == nil {
				body = []byte(`{"object":"total_count","total_count":` + strconv.Itoa(c.Count-n) + `}`)
			}
		}
	case strings.HasSuffix(path, "/users"):
		var users []json.RawMessage
		if json.Unmarshal(body, &users) != nil {
			break
		}
		kept := make([]json.RawMessage, 0, len(users))
		for _, u := range users {
			var user struct{ ID string }
			_ = json.Unmarshal(u, &user)
			if r.omits.lists && r.w.lacks(r.omits, user.ID) {
				continue
			}
			kept = append(kept, u)
			if isPage(request) {
				listed = append(listed, user.ID)
			}
		}
		if len(kept) < len(users) {
			body, _ = json.Marshal(kept)
		}
	case r.omits.one && r.w.lacks(r.omits, path[strings.LastIndexByte(path, '/')+1:]):
		gone := fakeclerk.ErrorFault(http.StatusNotFound, "resource_not_found")
		body, response.StatusCode = []byte(gone.Body), http.StatusNotFound
	}
	response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	response.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return listed
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

// isPage reports whether a page of the list of all users is asked for.
func isPage(r *http.Request) bool {
	return strings.HasSuffix(r.URL.Path, "/users") && !r.URL.Query().Has("user_id")
}

// pages makes a Reconcile do one thing at a time: it asks Clerk for the next page only
// once the page before is compared and written.
type pages struct {
	mu   sync.Mutex
	seen map[string]bool
	open int           // pages that are not done
	busy bool          // one of them is being compared
	done chan struct{} // closed and replaced when one is
}

func newPages(resumedAfter string) *pages {
	p := &pages{seen: make(map[string]bool), done: make(chan struct{})}
	p.seen[resumedAfter] = true
	return p
}

// serve counts a page if it has any user that the Reconcile has not seen.
func (p *pages) serve(ids []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fresh := false
	for _, id := range ids {
		fresh = fresh || !p.seen[id]
		p.seen[id] = true
	}
	if fresh {
		p.open++
	}
}

// finish is told that a page is done.
func (p *pages) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open, p.busy = max(0, p.open-1), false
	close(p.done)
	p.done = make(chan struct{})
}

// begin is told that a page is read from the Store.
func (p *pages) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy = p.open > 0
}

// wait waits for the page before; false where the run ended over it.
func (p *pages) wait(ctx context.Context) bool {
	for waited := 0; ; {
		p.mu.Lock()
		if waited == graceOfPages && !p.busy {
			p.open = 0
		}
		open, done := p.open, p.done
		p.mu.Unlock()
		if open == 0 {
			return true
		}
		grace := time.NewTimer(time.Millisecond)
		select {
		case <-done:
			waited = 0
		case <-ctx.Done():
		case <-grace.C:
			waited = min(waited+1, graceOfPages)
		}
		grace.Stop()
		if ctx.Err() != nil {
			return false
		}
	}
}

// graceOfPages is how long a page that Clerk listed may take until it is compared, in
// milliseconds of real time, but counted one by one: on a machine that stands still, or
// is busy with other things, they take longer. Some pages never are compared, as they
// are a step back after a deletion.
const graceOfPages = 100
