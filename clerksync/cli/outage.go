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

// patience is how long Syncer.Reconcile keeps asking Clerk while Clerk fails.
const patience = 5 * time.Minute

// outage is a transport that reports when Clerk begins to fail, with the cause, and when Clerk
// answers again. The progress of a reconcile does not tell.
type outage struct {
	env  environment
	note func(string)

	mu    sync.Mutex
	cause string // empty while Clerk answers
}

func (o *outage) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	switch {
	case err == nil && resp.StatusCode >= 500:
		o.set(fmt.Sprintf("status %d", resp.StatusCode))
	case err == nil:
		o.set("")
	case r.Context().Err() == nil || errors.Is(context.Cause(r.Context()), context.DeadlineExceeded):
		o.set(unanswered(err))
	}
	return resp, err
}

func (o *outage) set(cause string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case cause != "" && o.cause == "":
		giveUp := o.env.now().Add(patience).UTC().Format("15:04 UTC")
		o.note(fmt.Sprintf("waiting for Clerk: %s; giving up at %s", cause, giveUp))
	case cause == "" && o.cause != "":
		o.note("Clerk answers again")
	}
	o.cause = cause
}

// current returns why Clerk fails, or "" if it answers.
func (o *outage) current() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cause
}

// unanswered describes why a request has no answer. It quotes only errors that do not quote the
// answer.
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
