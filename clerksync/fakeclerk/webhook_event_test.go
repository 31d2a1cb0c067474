package fakeclerk_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/google/go-cmp/cmp"
	svix "github.com/svix/svix-webhooks/go"
)

func TestWebhookRequest(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{})
	a := startApp(t)
	e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{})
	id := s.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: "ada@example.com"})
	check(t, "before the clock moves", len(a.requests()), 0)
	clock.Advance(0)
	got := a.requests()
	check(t, "requests", len(got), 1)
	d := got[0]

	m := message(t, e, 0)
	check(t, "svix-id", d.header.Get("svix-id"), m.ID)
	check(t, "msg_", strings.HasPrefix(m.ID, "msg_"), true)
	check(t, "svix-timestamp", d.header.Get("svix-timestamp"), strconv.FormatInt(epoch.Unix(), 10))
	check(t, "Content-Type", d.header.Get("Content-Type"), "application/json")
	check(t, "User-Agent", strings.HasPrefix(d.header.Get("User-Agent"), "Svix-Webhooks/"), true)
	check(t, "body", string(d.body), string(m.Body))
	webhook, err := svix.NewWebhook(e.Secret())
	must(t, err)
	must(t, webhook.VerifyIgnoringTimestamp(d.body, d.header))

	var envelope struct {
		Object, Type string
		Timestamp    int64
		InstanceID   string `json:"instance_id"`
		Data         json.RawMessage
		Attributes   struct {
			HTTPRequest map[string]string `json:"http_request"`
		} `json:"event_attributes"`
	}
	must(t, json.Unmarshal(d.body, &envelope))
	check(t, "object", envelope.Object, "event")
	check(t, "type", envelope.Type, "user.created")
	check(t, "timestamp in ms", envelope.Timestamp, epoch.UnixMilli())
	check(t, "instance_id", envelope.InstanceID, s.InstanceID())
	own, _ := s.User(id)
	check(t, "data is the user object", string(envelope.Data), string(own))
	check(t, "client_ip", envelope.Attributes.HTTPRequest["client_ip"] != "", true)

	check(t, "state", m.State, fakeclerk.Delivered)
	check(t, "created at", m.CreatedAt, epoch)
	check(t, "attempts", len(m.Attempts), 1)
	check(t, "attempt", m.Attempts[0], fakeclerk.Attempt{At: epoch, Status: 204})
	check(t, "next", m.Next.IsZero(), true)
}

func TestWebhookEvents(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{})
	a := startApp(t)
	e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{})
	deletions := startApp(t)
	s.AddEndpoint(deletions.url, fakeclerk.EndpointOptions{Events: []string{"user.deleted"}})

	id := s.CreateUser(fakeclerk.NewUser{ExternalID: "ext"})
	clock.Advance(time.Second)
	must(t, s.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("Ada") }))
	must(t, s.UpdateUserSilently(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("Eve") }))
	must(t, s.BanUser(id))
	must(t, s.UnbanUser(id))
	must(t, s.SignIn(id))
	must(t, s.DeleteUser(id))
	_, err := s.Send("comet.sighted", map[string]any{"name": "Halley"})
	must(t, err)
	example := fakeclerk.NewUser{FirstName: "Example"}.Object(clock.Now())
	_, err = s.Send("user.created", example)
	must(t, err)
	must(t, s.Deliver(t.Context()))

	var types []string
	data := map[string]json.RawMessage{}
	for _, d := range a.requests() {
		var body struct{ Data json.RawMessage }
		must(t, json.Unmarshal(d.body, &body))
		types = append(types, d.eventType)
		data[d.eventType] = body.Data
	}
	want := []string{
		"user.created", "user.updated", "user.updated", "user.updated", "user.updated",
		"session.created", "user.updated", "user.deleted", "comet.sighted", "user.created",
	}
	if diff := cmp.Diff(want, types); diff != "" {
		t.Errorf("types (-want +got):\n%s", diff)
	}
	deleted := fmt.Sprintf(`{"object":"user","id":%q,"deleted":true,"external_id":"ext"}`, id)
	check(t, "user.deleted", string(data["user.deleted"]), deleted)
	check(t, "unknown", string(data["comet.sighted"]), `{"name":"Halley"}`)
	if _, ok := s.User(example.ID); ok {
		t.Error("the user of the example exists")
	}

	var session struct {
		User     clerk.User
		UserID   string                         `json:"user_id"`
		Activity struct{ City, Country string } `json:"latest_activity"`
	}
	must(t, json.Unmarshal(data["session.created"], &session))
	check(t, "session.created: user_id", session.UserID, id)
	check(t, "session.created: data.user", session.User.ID, id)
	check(t, "session.created: last_sign_in_at", *session.User.LastSignInAt, clock.Now().UnixMilli())
	check(t, "session.created: country", session.Activity.Country, "US")

	check(t, "filtered endpoint", len(deletions.requests()), 1)
	check(t, "same svix-id everywhere", deletions.requests()[0].id, e.Messages()[7].ID)

	if _, err := s.Send("x", func() {}); err == nil {
		t.Error("Send of a func returned no error")
	}
}

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
