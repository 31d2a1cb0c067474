package clerksync

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/setting"
)

// Verifier checks deliveries of Clerk's webhooks, for apps that queue events: verify at the
// edge, answer 2xx once the queue has the event, and call [Syncer.Apply] later. An [Event]
// survives encoding as JSON. A Verifier is safe for concurrent use.
//
// An app that applies events at once uses [Syncer.WebhookHandler], which does all of this.
type Verifier struct {
	signature  signatureVerifier
	instanceID string // "" for any
	maxBytes   int64
	now        func() time.Time
}

// NewVerifier returns a Verifier, or an error that names every fault of cfg. OnEvent must not
// be set, since a Verifier applies nothing. It needs no Syncer and does no I/O.
func NewVerifier(cfg WebhookConfig) (*Verifier, error) {
	v, faults := newVerifier(cfg)
	if cfg.OnEvent != nil {
		faults = append(faults, errors.New("clerksync: WebhookConfig.OnEvent has no effect on a Verifier: use it with WebhookHandler"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return v, nil
}

// newVerifier returns a Verifier, for a WebhookHandler too, and the faults of cfg.
func newVerifier(cfg WebhookConfig) (v *Verifier, faults []error) {
	v = &Verifier{now: time.Now}
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("clerksync: WebhookConfig."+format, args...))
	}
	if len(cfg.Secrets) == 0 {
		fault("Secrets is empty: take the endpoint's signing secret from the Clerk Dashboard under Webhooks (CLERK_WEBHOOK_SIGNING_SECRET)")
	}
	for i, secret := range cfg.Secrets {
		verifier, err := newSvixWebhook(secret)
		if err != nil {
			fault("Secrets[%d] %w", i, err)
		}
		v.signature.secrets = append(v.signature.secrets, verifier)
	}
	v.instanceID = strings.TrimSpace(cfg.InstanceID)
	if is := setting.InstanceID(v.instanceID); is != "" && cfg.InstanceID != "" {
		fault("InstanceID %s", is)
	}
	v.maxBytes = cmp.Or(cfg.MaxBodyBytes, 1<<20)
	if cfg.MaxBodyBytes < 0 {
		fault("MaxBodyBytes is negative")
	}
	v.signature.tolerance = cmp.Or(cfg.Tolerance, defaultTolerance)
	if cfg.Tolerance != 0 && (cfg.Tolerance < time.Millisecond || cfg.Tolerance > maxTolerance) {
		fault("Tolerance must be from 1ms to %v, or 0, which means %v", maxTolerance, defaultTolerance)
	}
	return v, faults
}

// Verify returns the event of a delivery, if it is signed with one of the secrets, recently
// enough, and from the right instance. header and body are the delivery's own: the body as it
// came, byte for byte, and headers in any case, such as those that an API gateway hands on in
// lower case. Neither is kept or changed.
//
// The error is a [*Problem], and says which check failed and what was expected. It quotes
// neither the body nor a secret, so it may be logged; [WriteProblem] answers it without the
// reason. It matches [ErrInvalidSignature], [ErrWrongInstance] or, if the event is signed and
// delivering it again will not help, [ErrInvalidEvent]. A body larger than MaxBodyBytes has
// the code [CodeBodyTooLarge].
//
// A delivery can be replayed for Tolerance, and Svix delivers some events twice: Event.ID is the
// same each time. Applying an event twice does no harm.
func (v *Verifier) Verify(header http.Header, body []byte) (Event, error) {
	header = withCanonicalNames(header)
	e, err := v.verify(header, body, v.now())
	if err == nil {
		return e, nil
	}
	length, lengthErr := strconv.ParseInt(header.Get("Content-Length"), 10, 64)
	if lengthErr != nil {
		length = -1 // not announced
	}
	return Event{}, problemOf(explainUnsigned(err, &http.Request{Header: header, ContentLength: length}, len(body)))
}

// withCanonicalNames returns a copy of header whose names are written as net/http does.
func withCanonicalNames(header http.Header) http.Header {
	renamed := make(http.Header, len(header))
	for name, lines := range header {
		name = http.CanonicalHeaderKey(name)
		renamed[name] = append(renamed[name], lines...)
	}
	return renamed
}

// verify also returns what is known of the event beside an error: nothing, not even its ID,
// unless the signature is right.
func (v *Verifier) verify(header http.Header, body []byte, now time.Time) (Event, error) {
	if int64(len(body)) > v.maxBytes {
		return Event{}, v.tooLarge(nil)
	}
	id, err := v.signature.verify(header, body, now)
	if err != nil {
		return Event{}, err
	}
	id = strings.Clone(id) // servers such as fasthttp use a header's memory again
	e, err := parseEvent(id, body)
	if err != nil {
		return Event{ID: id}, err
	}
	return e, v.checkInstance(e)
}

// tooLarge is the answer to a body that is larger than maxBytes; cause may be nil.
func (v *Verifier) tooLarge(cause error) error {
	why := fmt.Sprintf("the body is larger than WebhookConfig.MaxBodyBytes, %d bytes", v.maxBytes)
	return &Problem{Status: http.StatusRequestEntityTooLarge, Code: CodeBodyTooLarge, Err: &explained{why, cause}}
}

// checkInstance checks that an event is from the instance whose events are wanted.
func (v *Verifier) checkInstance(e Event) error {
	if v.instanceID == "" || e.InstanceID == v.instanceID {
		return nil
	}
	return fmt.Errorf("%w: the event is from %s, and WebhookConfig.InstanceID is %s: each instance has its own endpoint and secret. As for the id, %s",
		ErrWrongInstance, cmp.Or(plainName(e.InstanceID), "an unknown instance"), v.instanceID, setting.InstanceIDPlace)
}

// checkOf names the check that a delivery did not pass; "" if its code says enough.
func checkOf(err error) string {
	var s *signatureError
	switch {
	case errors.As(err, &s):
		return s.check
	case errors.Is(err, ErrWrongInstance):
		return checkInstance
	}
	return ""
}
