package clerksync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	svix "github.com/svix/svix-webhooks/go"

	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// WebhookConfig configures [Syncer.WebhookHandler].
type WebhookConfig struct {
	_ [0]func() // forbids unkeyed literals

	// Secrets are the endpoint's signing secrets, "whsec_…", from the Clerk Dashboard. An
	// event signed with any of them is accepted, so that a secret can be rotated. White
	// space around them is ignored. At least one is required; an empty one is an error.
	Secrets []string

	// InstanceID is the Clerk instance, "ins_…", whose events are accepted; others are
	// refused with 403. Defaults to any.
	InstanceID string

	// MaxBodyBytes is the size of the largest event accepted. A negative size is an error.
	// Defaults to 1 MiB.
	MaxBodyBytes int64

	// OnEvent is called for every verified event, of unknown types too, after the record
	// is written; [Event].Result says how. After an error or a panic the answer is 503, so
	// Svix delivers the event again and OnEvent runs again. Event.ID is the same each
	// time: an app that must act once remembers it. The context ends with the delivery.
	// Defaults to none.
	OnEvent func(context.Context, Event) error
}

const (
	// signatureTolerance is how far off the clock a signature's time may be, as in Svix's
	// own libraries.
	signatureTolerance = 5 * time.Minute
	// deliveryTimeout bounds all work on one delivery, reading the body included. Svix
	// gives up after 15 s.
	deliveryTimeout = 10 * time.Second
)

// WebhookHandler returns the handler for the endpoint that receives Clerk's webhooks
// through Svix, or an error that names every fault of cfg. Mount it outside any middleware
// that asks for a session.
//
// It answers 204 after it has applied an event, and to a repeated, stale or unknown one;
// never before the write is done. After any other answer Svix delivers again, and no
// [Config].ErrorHandler can turn one of these into a success:
//
//   - 400 invalid_signature: signature missing or wrong, or its time over five minutes
//     off; unreadable_body.
//   - 403 wrong_instance.
//   - 405 method_not_allowed, 413 body_too_large.
//   - 409 conflict: one of the app's unique indexes keeps the record out.
//   - 422 invalid_event: signed but not usable; rejected: the Store never takes such a
//     record, see [ErrRejected]. Both are logged as errors.
//   - 500 mapping_failed: RoleOf or Map failed.
//   - 503 unavailable: the Store failed; event_hook_failed: OnEvent did.
func (s *Syncer) WebhookHandler(cfg WebhookConfig) (http.Handler, error) {
	h := &webhookHandler{syncer: s, cfg: cfg}
	var errs []error
	if len(cfg.Secrets) == 0 {
		errs = append(errs, errors.New("clerksync: WebhookConfig.Secrets is empty: take the endpoint's signing secret from the Clerk Dashboard under Webhooks (CLERK_WEBHOOK_SIGNING_SECRET)"))
	}
	for i, secret := range cfg.Secrets {
		verifier, err := newVerifier(secret)
		if err != nil {
			errs = append(errs, fmt.Errorf("clerksync: WebhookConfig.Secrets[%d] %w", i, err))
		}
		h.verifiers = append(h.verifiers, verifier)
	}
	switch {
	case cfg.MaxBodyBytes < 0:
		errs = append(errs, errors.New("clerksync: WebhookConfig.MaxBodyBytes is negative"))
	case cfg.MaxBodyBytes == 0:
		h.cfg.MaxBodyBytes = 1 << 20
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return h, nil
}

// newVerifier returns a verifier. Its errors do not show the secret.
func newVerifier(secret string) (*svix.Webhook, error) {
	secret = strings.TrimSpace(secret)
	switch {
	case secret == "" || secret == "whsec_":
		return nil, errors.New("is empty")
	case !strings.HasPrefix(secret, "whsec_"):
		return nil, errors.New("is not a signing secret: those begin with whsec_")
	}
	verifier, err := svix.NewWebhook(secret)
	if err != nil {
		return nil, errors.New("is not a signing secret: what follows whsec_ is not base64")
	}
	return verifier, nil
}

type webhookHandler struct {
	syncer    *Syncer
	cfg       WebhookConfig
	verifiers []*svix.Webhook
}

func (h *webhookHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := clock.WithTimeout(r.Context(), h.syncer.clock, deliveryTimeout)
	defer cancel()
	if err := h.serve(ctx, w, r); err != nil {
		failure := &failureWriter{ResponseWriter: w, status: problemOf(err).Status}
		h.syncer.refuse(failure, r, err)
		failure.finish()
		return
	}
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

// Unwrap is for http.ResponseController.
func (w *failureWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (h *webhookHandler) serve(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return &Problem{Status: http.StatusMethodNotAllowed, Code: codeMethodNotAllowed}
	}
	body, err := h.read(w, r)
	if err != nil {
		return err
	}
	id, err := h.verify(body, r.Header)
	if err != nil {
		return err
	}
	e, err := parseEvent(id, body)
	if err == nil && h.cfg.InstanceID != "" && e.InstanceID != h.cfg.InstanceID {
		err = ErrWrongInstance
	}
	if err == nil {
		e.Result, err = h.syncer.Apply(ctx, e)
	}
	if err != nil {
		if problemOf(err).Status < 500 { // refuse logs the others
			h.syncer.cfg.Logger.ErrorContext(ctx, "clerksync: a webhook could not be applied", "event_id", id, "event_type", e.Type, "error", err)
		}
		return err
	}
	h.syncer.cfg.Logger.DebugContext(ctx, "clerksync: webhook applied", "event_id", id, "event_type", e.Type, "outcome", e.Result.Outcome.String())
	return h.runHook(ctx, e)
}

// read reads the whole body, within deliveryTimeout.
func (h *webhookHandler) read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	// Not every ResponseWriter supports this; the server's own timeouts apply in any case.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(deliveryTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.cfg.MaxBodyBytes))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, &Problem{Status: http.StatusRequestEntityTooLarge, Code: codeBodyTooLarge, Err: err}
	}
	if err != nil {
		return nil, &Problem{Status: http.StatusBadRequest, Code: codeUnreadableBody, Err: err}
	}
	return body, nil
}

// verify checks the signature and its time, and returns the message's id. It checks the
// time itself because svix reads the wall clock.
func (h *webhookHandler) verify(body []byte, header http.Header) (id string, err error) {
	id, timestamp := header.Get("svix-id"), header.Get("svix-timestamp")
	if id == "" || timestamp == "" || header.Get("svix-signature") == "" {
		// The names in the Standard Webhooks specification, which svix accepts too.
		id, timestamp = header.Get("webhook-id"), header.Get("webhook-timestamp")
	}
	signed := false
	for _, v := range h.verifiers {
		signed = v.VerifyIgnoringTimestamp(body, header) == nil || signed
	}
	if !signed {
		return "", ErrInvalidSignature
	}
	sent, err := strconv.ParseInt(timestamp, 10, 64)
	now, tolerance := h.syncer.clock.Now().Unix(), int64(signatureTolerance/time.Second)
	if err != nil || sent < now-tolerance || sent > now+tolerance {
		return "", fmt.Errorf("%w: its time is over %v off", ErrInvalidSignature, signatureTolerance)
	}
	return id, nil
}

// runHook calls OnEvent. It turns an error or a panic into a 503, so that Svix delivers
// again.
func (h *webhookHandler) runHook(ctx context.Context, e Event) (err error) {
	if h.cfg.OnEvent == nil {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
		if err != nil {
			err = &Problem{Status: http.StatusServiceUnavailable, Code: codeEventHookFailed, RetryAfter: defaultRetryAfter, Err: fmt.Errorf("OnEvent of %s %s: %w", e.Type, e.ID, err)}
		}
	}()
	return h.cfg.OnEvent(ctx, e)
}
