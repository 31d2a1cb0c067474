package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// patience is how long Syncer.Reconcile asks a Clerk that fails.
const patience = 5 * time.Minute

// outage is a transport that says why a run waits for Clerk, which the run's own
// progress does not tell: once when Clerk begins to fail, and when it answers again.
type outage struct {
	env  environment
	note func(string)

	mu    sync.Mutex
	cause string // empty where Clerk answers
}

func (o *outage) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	switch {
	case err == nil && resp.StatusCode >= 500:
		o.now(fmt.Sprintf("status %d", resp.StatusCode))
	case err == nil:
		o.now("")
	case r.Context().Err() == nil || errors.Is(context.Cause(r.Context()), context.DeadlineExceeded):
		o.now(unanswered(err))
	}
	return resp, err
}

func (o *outage) now(cause string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case cause != "" && o.cause == "":
		o.note(fmt.Sprintf("waiting for Clerk: %s; giving up at %s", cause, o.env.now().Add(patience).UTC().Format("15:04 UTC")))
	case cause == "" && o.cause != "":
		o.note("Clerk answers again")
	}
	o.cause = cause
}

// current is why Clerk fails, empty if it does not.
func (o *outage) current() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cause
}

// unanswered is why there is no answer. Other errors than these may quote what was
// no HTTP.
func unanswered(err error) string {
	var certificate *tls.CertificateVerificationError
	var network net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &certificate):
		return certificate.Error()
	case errors.As(err, &network):
		return network.Error() // an address and a reason
	}
	return "no answer"
}
