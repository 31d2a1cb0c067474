package fakeclerk

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	svix "github.com/svix/svix-webhooks/go"
)

// Event is a webhook event for [SignedRequest].
type Event struct {
	// ID is the svix-id. Defaults to a fresh "msg_" id.
	ID string

	// Type is the event type, such as user.created. Defaults to "".
	Type string

	// Data is the event's object, such as a result of [NewUser.Object] or [Server.User]. It must be
	// encodable by encoding/json. Defaults to null.
	Data any

	// InstanceID is the id of the instance that sends the event. Defaults to "ins_fakeclerk".
	InstanceID string

	// Time is when the event happened and when it is sent. Defaults to time.Now().
	Time time.Time

	// Body is the whole body, sent and signed byte for byte. Type, Data and InstanceID are then ignored.
	// Defaults to Clerk's envelope around Data.
	Body []byte
}

// SignedRequest returns the request with which Svix delivers an event to the endpoint at url, signed
// with the endpoint's secret ("whsec_…"). Pass it to a handler with an httptest.ResponseRecorder. It
// does not need a server. Like httptest.NewRequest, it panics if the URL, the secret or the event is
// malformed.
func SignedRequest(ctx context.Context, url, secret string, e Event) *http.Request {
	at := e.Time
	if at.IsZero() {
		at = time.Now()
	}
	body := e.Body
	if body == nil {
		body = mustMarshal(newEnvelope(e.Type, cmp.Or(e.InstanceID, "ins_fakeclerk"), at, e.Data))
	}
	r, err := newDelivery(ctx, url, []string{secret}, cmp.Or(e.ID, looseIDs.id("msg_")), at, body)
	if err != nil {
		panic(err)
	}
	return r
}

// webhookUserAgent has the form of the User-Agent that Svix's servers send.
const webhookUserAgent = "Svix-Webhooks/1.99.1 (sender-fake1; +https://www.svix.com/http-sender/)"

// newDelivery returns the request of one attempt to deliver a message. Each secret adds a signature.
func newDelivery(
	ctx context.Context, url string, secrets []string, id string, at time.Time, body []byte,
) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("fakeclerk: %w", err)
	}
	signatures := make([]string, len(secrets))
	for i, secret := range secrets {
		webhook, err := svix.NewWebhook(secret)
		if err != nil {
			return nil, fmt.Errorf("fakeclerk: signing secret: %w", err)
		}
		if signatures[i], err = webhook.Sign(id, at, body); err != nil {
			return nil, fmt.Errorf("fakeclerk: %w", err)
		}
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", webhookUserAgent)
	r.Header.Set("Svix-Id", id)
	r.Header.Set("Svix-Timestamp", strconv.FormatInt(at.Unix(), 10))
	r.Header.Set("Svix-Signature", strings.Join(signatures, " "))
	return r, nil
}

// newSecret returns a fresh signing secret in Svix's form.
func newSecret(ids *idSource) string {
	return "whsec_" + base64.StdEncoding.EncodeToString(ids.bytes(24))
}
