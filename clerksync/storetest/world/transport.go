package world

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
)

// The faults of a call to Clerk.
const (
	clerk500      = "Clerk answers 500"
	clerkRate     = "Clerk answers 429"
	clerkRateLong = "Clerk answers 429 for a minute"
	proxy404      = "a proxy answers 404 in HTML"
	proxy502      = "a proxy answers 502 in HTML"
	truncated     = "Clerk's answer is cut off"
	halfDocument  = "Clerk's answer is half a document"
	noConnection  = "Clerk refuses the connection"
	hanging       = "Clerk hangs until the clock moves"
	slowAnswer    = "Clerk is slow to answer"
	otherUser     = "Clerk answers another user"
	keyRefused    = "Clerk refuses the secret key"
)

var clerkFaults = []string{
	clerk500, clerkRate, proxy404, truncated, hanging, slowAnswer,
	proxy502, halfDocument, noConnection, clerkRateLong, otherUser, keyRefused,
}

var errNoConnection = errors.New("world: connection refused")

// transport carries a process's requests to Clerk. Faults and interrupts happen here, on the
// goroutine of the caller. Clerk's answer is made before what happens after it, so nothing has to
// wait.
type transport struct {
	w    *world
	p    *process
	base http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	w, ctx := t.w, request.Context()
	r, err := t.owner(request)
	if err != nil {
		return nil, err
	}
	if t.p.dead {
		return nil, errNoConnection
	}
	n := r.touch()
	r.interrupt(n, false)
	fault := w.clerkFault(r, n)
	switch fault {
	case noConnection:
		return nil, errNoConnection
	case hanging:
		w.clock.Advance(bulkAttemptTimeout + time.Second)
		if ctx.Err() == nil {
			return nil, errNoConnection // the caller is more patient than the network
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	w.setFault(w.answerOf(fault))
	response, err := t.base.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	w.seq++
	r.clerkRead = w.seq
	var listed []string
	if r.pages != nil {
		listed = r.edit(request, response)
	}
	r.interrupt(n, true)
	if fault == slowAnswer {
		w.clock.Advance([]time.Duration{3 * time.Second, callTimeout + time.Second}[n%2])
	}
	if ctx.Err() != nil || t.p.dead {
		_ = response.Body.Close()
		return nil, cmp.Or(context.Cause(ctx), errNoConnection)
	}
	if listed != nil {
		r.pages.serve(listed)
	}
	return response, nil
}

// owner returns the run that makes a request. A background refresh waits here for its turn, and a
// page for the page before.
func (t *transport) owner(request *http.Request) (*run, error) {
	ctx := request.Context()
	r := runOf(ctx)
	if r == nil {
		panic("world: a call to Clerk outside of any operation")
	}
	if r.kind == visit && isRefresh() {
		if r = t.p.park(r); r == nil {
			return nil, errNoConnection
		}
	} else if r.kind == runRefresh && t.p.wasAbandoned() { // a retry of one that waited
		return nil, errNoConnection
	}
	if r.pages != nil && isPage(request) && !r.pages.wait(ctx) {
		return nil, context.Cause(ctx)
	}
	// A call with a done context is not counted: whether it gets this far depends on luck.
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return r, nil
}

// clerkFault returns the fault of call n, "" for none.
func (w *world) clerkFault(r *run, n int) string {
	fault := ""
	if f := r.fault(n); f != 0 {
		fault = clerkFaults[f%len(clerkFaults)]
	} else if w.clerkOutage.down {
		fault = clerkFaults[w.clerkOutage.fault%len(clerkFaults)]
		if fault == slowAnswer {
			fault = clerk500
		}
	}
	if fault != "" {
		w.counts.add(fault)
		w.trouble()
	}
	switch fault {
	case clerkRate:
		w.limited(time.Second)
	case clerkRateLong:
		w.limited(time.Minute)
	}
	if fault == proxy404 {
		w.counts.add(proxysNotFound)
	}
	return fault
}

// limited notes that Clerk asked for a pause, in which visits do not ask it. A process counts it from the
// end of the call, which may have waited for another attempt.
func (w *world) limited(pause time.Duration) {
	if until := w.clock.Now().Add(pause + clerkapi.RetryBudget); until.After(w.limitedUntil) {
		w.limitedUntil = until
	}
}

// answerOf returns what the server answers with a fault, or nil for Clerk's own answer.
func (w *world) answerOf(fault string) *fakeclerk.Fault {
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

// isRefresh reports whether the caller is a background refresh. A visit's lookup and the refresh
// behind it have the same context, so only the stack tells them apart.
func isRefresh() bool { return isCalledBy("clerksync.(*Syncer).refresh") }

// isCalledBy reports whether a function is on the caller's stack.
func isCalledBy(function string) bool {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, function) {
			return true
		}
		if !more {
			return false
		}
	}
}
