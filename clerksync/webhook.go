package clerksync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// WebhookConfig configures [Syncer.WebhookHandler] and [NewVerifier].
type WebhookConfig struct {
	_ [0]func() // forbids unkeyed literals

	// Secrets are the endpoint's signing secrets, "whsec_…", from the Clerk Dashboard. An
	// event signed with any of them is accepted, so that a secret can be rotated. White
	// space around them is ignored. At least one is required. One of fewer than 16 bytes is an
	// error: Svix's have 24 (whsec_ and 32 characters).
	Secrets []string

	// InstanceID is the Clerk instance, "ins_…", whose events are accepted; others are
	// refused with 403. It is in the address of the Clerk Dashboard:
	// https://dashboard.clerk.com/apps/app_…/instances/ins_…. Defaults to any.
	InstanceID string

	// Tolerance is how far a signature's time may be off this server's clock, in either
	// direction. Raise it if something on the way holds deliveries back, such as a queue:
	// otherwise those that waited longer are lost, because only Svix signs afresh. Negative,
	// or over 24 hours, is an error. Defaults to 5 minutes, as in Svix's own libraries.
	//
	// For this long, somebody who has recorded a delivery can send it again. To the records
	// that does no harm: Apply decides by version, however often an event comes. The
	// exception is a deletion that an operator took back ([ReconcileOptions].Restore): a
	// repeated "user.deleted" deletes again. OnEvent runs again; Event.ID tells it that the
	// event is the same.
	Tolerance time.Duration

	// MaxBodyBytes is the size of the largest event accepted. A negative size is an error.
	// Defaults to 1 MiB.
	MaxBodyBytes int64

	// OnEvent is called for every verified event, of unknown types too, after the record
	// is written; [Event].Result says how. After an error or a panic the answer is 503, so
	// Svix delivers the event again and OnEvent runs again. Event.ID is the same each
	// time: an app that must act once remembers it. Its error is logged, so it must not quote
	// values. The context ends with the delivery. An error for [NewVerifier], which applies
	// nothing. Defaults to none.
	OnEvent func(context.Context, Event) error
}

const (
	// defaultTolerance is that of Svix's own libraries.
	defaultTolerance = 5 * time.Minute
	maxTolerance     = 24 * time.Hour
	// deliveryTimeout bounds all work on one delivery, reading the body included. Svix
	// gives up after 15 s.
	deliveryTimeout = 10 * time.Second
)

// WebhookHandler returns the handler for the endpoint that receives Clerk's webhooks
// through Svix, or an error that names every fault of cfg. Mount it outside any middleware
// that asks for a session.
//
// It answers 204 after it has applied an event, and to a repeated, stale or unknown one;
// never before the write is done. A field that a unique index refuses, or that cannot be
// stored, is left out of an existing record: that is 204 too, and logged. After any other
// answer Svix delivers again, and no [Config].ErrorHandler can turn one of these into a
// success:
//
//   - 400 invalid_signature: signature missing or wrong, or its time off by more than
//     Tolerance; unreadable_body.
//   - 403 wrong_instance.
//   - 405 method_not_allowed, 413 body_too_large.
//   - 409 conflict: one of the app's unique indexes keeps a new record out, or the app's own
//     record has a value of another type; see [ConflictError].
//   - 422 invalid_event: signed but not usable; rejected: the Store never takes such a
//     record, see [ErrRejected]. Both are logged as errors.
//   - 500 mapping_failed: RoleOf or Map failed. A ban is written all the same.
//   - 503 unavailable: the Store failed; event_hook_failed: OnEvent did.
//
// The answer does not reveal which check failed. The log does: at most ten lines of a kind at
// once, then one a minute. Each delivery is one [Observation], refused ones included.
//
// A signature header that was split at its commas, repeated or joined on its way is read as
// it was meant (RFC 9110, section 5.3).
func (s *Syncer) WebhookHandler(cfg WebhookConfig) (http.Handler, error) {
	v, faults := newVerifier(cfg)
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return &webhookHandler{syncer: s, verifier: v, onEvent: cfg.OnEvent}, nil
}

type webhookHandler struct {
	syncer   *Syncer
	verifier *Verifier
	onEvent  func(context.Context, Event) error // nil for none
}

func (h *webhookHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := h.syncer.clock.Now()
	ctx, span := h.syncer.begin(r.Context(), OpWebhook, "")
	ctx, cancel := clock.WithTimeout(ctx, h.syncer.clock, deliveryTimeout)
	defer cancel()
	d := refusal{Observation: Observation{Op: OpWebhook}}
	err := h.serve(ctx, w, r, &d)
	d.Err = err
	h.syncer.end(ctx, span, start, d.Observation)
	if err != nil {
		h.syncer.refused(ctx, start, d)
		failure := &failureWriter{ResponseWriter: w, status: problemOf(err).Status}
		h.syncer.answer(failure, r, err)
		failure.finish()
		return
	}
	h.syncer.observe(ctx, start, d.Observation)
	w.WriteHeader(http.StatusNoContent)
}

// failureWriter keeps an ErrorHandler from acknowledging an event that was not applied: a
// body without a status, or nothing at all, would be 200, and Svix would not deliver the
// event again.
type failureWriter struct {
	http.ResponseWriter
	status  int // the Problem's
	written bool
}

func (w *failureWriter) WriteHeader(status int) {
	if status >= 200 && status < 400 {
		status = w.status
	}
	w.written = w.written || status >= 200
	w.ResponseWriter.WriteHeader(status)
}

func (w *failureWriter) Write(b []byte) (int, error) {
	w.finish()
	return w.ResponseWriter.Write(b)
}

func (w *failureWriter) finish() {
	if !w.written {
		w.WriteHeader(w.status)
	}
}

// FlushError is for http.ResponseController. A flush alone would send 200.
func (w *failureWriter) FlushError() error {
	w.finish()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// serve applies one delivery. It notes in d what is known of it, for the Observation and for
// the log.
func (h *webhookHandler) serve(ctx context.Context, w http.ResponseWriter, r *http.Request, d *refusal) error {
	d.EventID = claimedID(r.Header)
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		d.check = checkMethod
		return &Problem{
			Status: http.StatusMethodNotAllowed, Code: CodeMethodNotAllowed,
			Err: fmt.Errorf("the method is %s, and Svix sends POST", cmp.Or(plainName(r.Method), "unknown")),
		}
	}
	body, err := h.read(w, r)
	if err != nil {
		return err
	}
	d.attrs = bodyAttrs(r, len(body))
	e, err := h.verifier.verify(r.Header, body, h.syncer.clock.Now())
	if e.ID != "" { // it is Clerk's: from here on somebody should look
		d.EventID, d.EventType, d.EventTime, d.ClerkID, d.fault = e.ID, e.Type, e.Timestamp, e.UserID, true
	}
	if err != nil {
		err = explainUnsigned(err, r, len(body))
		d.check = checkOf(err)
		return err
	}
	clerkID, res, err := h.syncer.applyEvent(ctx, e)
	d.ClerkID, d.Outcome = cmp.Or(clerkID, d.ClerkID), res.Outcome
	if err != nil {
		return err
	}
	e.Result = res
	h.syncer.cfg.Logger.DebugContext(ctx, "clerksync: webhook applied", "event_id", e.ID, "event_type", e.Type, "outcome", e.Result.Outcome.String())
	return h.runHook(ctx, e)
}

// claimedID is the message's id that a delivery claims to have, before its signature is
// checked; empty if it is not like one of Svix's.
func claimedID(header http.Header) string {
	for _, family := range headerFamilies {
		for id := range elements(header[family+"Id"], ",") {
			return strings.Clone(plainName(id)) // servers such as fasthttp use a header's memory again
		}
	}
	return ""
}

// plainName is a text from outside if it is short and has only letters, digits, hyphens and
// underscores, so that it may be logged; else it is empty.
func plainName(text string) string {
	other := func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
	}
	if len(text) > maxClipped || strings.ContainsFunc(text, other) {
		return ""
	}
	return text
}

// bodyAttrs describe a body in the log. They do not quote it.
func bodyAttrs(r *http.Request, read int) []slog.Attr {
	attrs := []slog.Attr{slog.Int("body_bytes", read)}
	if r.ContentLength >= 0 && r.ContentLength != int64(read) {
		attrs = append(attrs, slog.Int64("content_length", r.ContentLength))
	}
	if encoding := contentEncoding(r); encoding != "" {
		attrs = append(attrs, slog.String("content_encoding", encoding))
	}
	return attrs
}

// contentEncoding names how the body is compressed; empty if it is not.
func contentEncoding(r *http.Request) string {
	encoding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding")))
	if encoding == "" || encoding == "identity" {
		return ""
	}
	return cmp.Or(plainName(encoding), "several or unknown")
}

// explainUnsigned says more about a signature that no secret matches if the body, of which
// so many bytes could be read, is not what Svix sent.
func explainUnsigned(err error, r *http.Request, read int) error {
	var s *signatureError
	if !errors.As(err, &s) || s.check != checkSecret {
		return err
	}
	switch announced := r.ContentLength; {
	case read == 0 && announced == 0:
		return unsigned(checkBodyLength, "the body is empty; an event of Clerk's never is")
	case read == 0:
		return unsigned(checkBodyConsumed, "nothing is left of the body: a middleware has read it. Mount the webhook outside of that middleware")
	case announced >= 0 && announced != int64(read):
		return unsigned(checkBodyLength, "the body has %d bytes, and %d were announced: a middleware has read or changed it. Mount the webhook outside of that middleware",
			read, announced)
	case contentEncoding(r) != "":
		return unsigned(checkContentEncoding, "the body came with a Content-Encoding, and Svix sends none: something on the way has compressed or decompressed it")
	}
	return err
}

// read reads the whole body, within deliveryTimeout.
func (h *webhookHandler) read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	// Not every ResponseWriter supports this; the server's own timeouts apply in any case.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(deliveryTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.verifier.maxBytes))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, h.verifier.tooLarge(err)
	}
	if err != nil {
		return nil, &Problem{Status: http.StatusBadRequest, Code: CodeUnreadableBody, Err: &explained{whyUnreadable(err, len(body)), err}}
	}
	return body, nil
}

// whyUnreadable describes why only so many bytes of a body could be read.
func whyUnreadable(err error, read int) string {
	switch {
	case errors.Is(err, http.ErrBodyReadAfterClose):
		return "the body is closed: a middleware has read it. Mount the webhook outside of that middleware"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Sprintf("only %d bytes of the body came within %v", read, deliveryTimeout)
	}
	return fmt.Sprintf("the body ended after %d bytes", read)
}

// explained is an error with a text that may be logged.
type explained struct {
	text string
	err  error
}

func (e *explained) Error() string { return e.text }

func (e *explained) Unwrap() error { return e.err }

// runHook calls OnEvent. It turns an error or a panic into a 503, so that Svix delivers
// again.
func (h *webhookHandler) runHook(ctx context.Context, e Event) (err error) {
	if h.onEvent == nil {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{p}
		}
		if err != nil {
			err = &Problem{Status: http.StatusServiceUnavailable, Code: CodeEventHookFailed, RetryAfter: defaultRetryAfter, Err: fmt.Errorf("OnEvent of %s %s: %w", e.Type, e.ID, err)}
		}
	}()
	return h.onEvent(ctx, e)
}
