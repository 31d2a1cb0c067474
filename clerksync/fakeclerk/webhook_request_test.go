package fakeclerk_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	svix "github.com/svix/svix-webhooks/go"
)

func TestSignedRequest(t *testing.T) {
	t.Parallel()
	const secret = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0"
	webhook, err := svix.NewWebhook(secret)
	must(t, err)
	handler := func(verify func([]byte, http.Header) error) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if verify(body, r.Header) != nil {
				w.WriteHeader(400)
			}
			w.Write(body)
		})
	}
	serve := func(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec
	}

	t.Run("defaults verify now", func(t *testing.T) {
		u := fakeclerk.NewUser{FirstName: "Ada"}.Object(time.Now())
		r := fakeclerk.SignedRequest(t.Context(), "/webhooks", secret, fakeclerk.Event{Type: "user.created", Data: u})
		check(t, "method", r.Method, "POST")
		check(t, "path", r.URL.Path, "/webhooks")
		rec := serve(handler(webhook.Verify), r)
		check(t, "status", rec.Code, 200)
		var event struct {
			Type       string
			InstanceID string `json:"instance_id"`
			Data       clerk.User
		}
		must(t, json.Unmarshal(rec.Body.Bytes(), &event))
		check(t, "type", event.Type, "user.created")
		check(t, "instance", event.InstanceID, "ins_fakeclerk")
		check(t, "data", event.Data.ID, u.ID)
	})
	t.Run("everything given", func(t *testing.T) {
		r := fakeclerk.SignedRequest(t.Context(), "http://app.example/", secret, fakeclerk.Event{
			ID: "msg_1", Time: epoch, Body: []byte("not JSON"),
		})
		check(t, "svix-id", r.Header.Get("svix-id"), "msg_1")
		check(t, "svix-timestamp", r.Header.Get("svix-timestamp"), strconv.FormatInt(epoch.Unix(), 10))
		rec := serve(handler(webhook.VerifyIgnoringTimestamp), r)
		check(t, "status", rec.Code, 200)
		check(t, "body", rec.Body.String(), "not JSON")
	})
	t.Run("another secret", func(t *testing.T) {
		r := fakeclerk.SignedRequest(t.Context(), "/", "whsec_YW5vdGhlcg==", fakeclerk.Event{Type: "user.created"})
		check(t, "status", serve(handler(webhook.Verify), r).Code, 400)
	})
	t.Run("an empty secret", func(t *testing.T) {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		fakeclerk.SignedRequest(t.Context(), "/", "", fakeclerk.Event{})
	})
}
