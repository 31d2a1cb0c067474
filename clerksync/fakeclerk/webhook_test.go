package fakeclerk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/google/go-cmp/cmp"
	svix "github.com/svix/svix-webhooks/go"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// gaps are Svix's waits between the attempts: https://docs.svix.com/retries.
var gaps = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 10 * time.Hour,
}

func TestRetrySchedule(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{})
	a := startApp(t)
	a.answerStatus(500)
	e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{})
	s.CreateUser(fakeclerk.NewUser{})
	clock.Advance(0)

	at := epoch
	for i, gap := range gaps {
		check(t, fmt.Sprint("requests before gap ", i), len(a.requests()), i+1)
		m := message(t, e, 0)
		check(t, "state", m.State, fakeclerk.Pending)
		at = at.Add(gap)
		check(t, "next", m.Next, at)
		clock.Advance(gap - 1)
		check(t, fmt.Sprint("requests just before the end of gap ", i), len(a.requests()), i+1)
		clock.Advance(1)
	}
	clock.Advance(1000 * time.Hour)

	m := message(t, e, 0)
	check(t, "state in the end", m.State, fakeclerk.Failed)
	check(t, "attempts", len(m.Attempts), len(gaps)+1)
	webhook, err := svix.NewWebhook(e.Secret())
	must(t, err)
	signatures := map[string]bool{}
	for i, d := range a.requests() {
		check(t, "svix-id", d.id, m.ID)
		check(t, "body", string(d.body), string(m.Body))
		check(t, "timestamp", d.header.Get("svix-timestamp"), strconv.FormatInt(m.Attempts[i].At.Unix(), 10))
		check(t, "status", m.Attempts[i].Status, 500)
		must(t, webhook.VerifyIgnoringTimestamp(d.body, d.header))
		signatures[d.header.Get("svix-signature")] = true
	}
	check(t, "fresh signatures", len(signatures), len(gaps)+1)

	t.Run("replay", func(t *testing.T) {
		must(t, e.Replay(m.ID))
		check(t, "state", message(t, e, 0).State, fakeclerk.Pending)
		clock.Advance(0)
		check(t, "retries from the start", message(t, e, 0).Next, clock.Now().Add(gaps[0]))
		a.answerStatus(200)
		clock.Advance(gaps[0])
		m := message(t, e, 0)
		check(t, "state", m.State, fakeclerk.Delivered)
		check(t, "attempts", len(m.Attempts), len(gaps)+3)
		must(t, e.Replay(m.ID)) // a delivered message can be replayed too
		must(t, s.Deliver(t.Context()))
		check(t, "attempts", len(message(t, e, 0).Attempts), len(gaps)+4)
		if err := e.Replay("msg_x"); err == nil {
			t.Error("replayed an unknown message")
		}
	})
}

func TestWhichAnswersSucceed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status int
		want   fakeclerk.MessageState
	}{
		{200, fakeclerk.Delivered}, {204, fakeclerk.Delivered}, {299, fakeclerk.Delivered},
		{301, fakeclerk.Pending}, {302, fakeclerk.Pending}, {307, fakeclerk.Pending},
		{400, fakeclerk.Pending}, {410, fakeclerk.Pending}, {503, fakeclerk.Pending},
	} {
		t.Run(fmt.Sprint(test.status), func(t *testing.T) {
			t.Parallel()
			s, clock := startClocked(t, fakeclerk.Config{})
			a := startApp(t)
			a.answerWith(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(test.status)
			})
			e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{})
			s.CreateUser(fakeclerk.NewUser{})
			clock.Advance(0)
			m := message(t, e, 0)
			check(t, "state", m.State, test.want)
			check(t, "status", m.Attempts[0].Status, test.status)
			check(t, "requests", len(a.requests()), 1)
		})
	}
	t.Run("a refused connection", func(t *testing.T) {
		t.Parallel()
		s, clock := startClocked(t, fakeclerk.Config{})
		e := s.AddEndpoint("http://127.0.0.1:1", fakeclerk.EndpointOptions{})
		s.CreateUser(fakeclerk.NewUser{})
		clock.Advance(0)
		m := message(t, e, 0)
		check(t, "state", m.State, fakeclerk.Pending)
		check(t, "has an error", m.Attempts[0].Err != nil, true)
	})
}

func TestWebhookTimeout(t *testing.T) {
	t.Parallel()
	t.Run("no answer", func(t *testing.T) {
		t.Parallel()
		s, clock := startClocked(t, fakeclerk.Config{})
		a := startApp(t)
		received := make(chan struct{})
		a.answerWith(func(_ http.ResponseWriter, r *http.Request) { close(received); <-r.Context().Done() })
		e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{})
		s.CreateUser(fakeclerk.NewUser{})
		done := make(chan error, 1)
		go func() { done <- s.Deliver(t.Context()) }()
		<-received
		clock.Advance(15 * time.Second)
		must(t, <-done)
		m := message(t, e, 0)
		check(t, "status", m.Attempts[0].Status, 0)
		check(t, "error", m.Attempts[0].Err.Error(), "fakeclerk: no answer within 15 s")
		check(t, "next counts from the failure", m.Next, epoch.Add(20*time.Second))
	})
	t.Run("a handler that takes too long by the clock", func(t *testing.T) {
		t.Parallel()
		s, clock := startClocked(t, fakeclerk.Config{})
		a := startApp(t)
		a.answerWith(func(_ http.ResponseWriter, r *http.Request) {
			clock.Advance(16 * time.Second)
			<-r.Context().Done()
		})
		e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{})
		s.CreateUser(fakeclerk.NewUser{})
		clock.Advance(0)
		m := message(t, e, 0)
		check(t, "has an error", m.Attempts[0].Err != nil, true)
	})
}

func TestDeliver(t *testing.T) {
	t.Parallel()
	t.Run("also delivers what the app causes", func(t *testing.T) {
		t.Parallel()
		s, clock := startClocked(t, fakeclerk.Config{})
		a, b := startApp(t), startApp(t)
		a.answerWith(func(w http.ResponseWriter, r *http.Request) {
			if ids := s.UserIDs(); len(ids) < 3 {
				s.CreateUser(fakeclerk.NewUser{})
			}
		})
		s.AddEndpoint(b.url, fakeclerk.EndpointOptions{})
		e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{})
		s.CreateUser(fakeclerk.NewUser{})
		must(t, s.Deliver(t.Context()))
		check(t, "one endpoint", a.letters(e), "abc")
		check(t, "the other", len(b.requests()), 3)
		check(t, "the clock", clock.Now(), epoch)
		if _, ok := clock.Next(); ok {
			t.Error("something is still scheduled")
		}
	})
	t.Run("does not wait for later attempts", func(t *testing.T) {
		t.Parallel()
		s, _ := startClocked(t, fakeclerk.Config{})
		a := startApp(t)
		a.answerStatus(500)
		e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{})
		s.CreateUser(fakeclerk.NewUser{})
		must(t, s.Deliver(t.Context()))
		must(t, s.Settle(t.Context()))
		check(t, "attempts", len(message(t, e, 0).Attempts), 1)
	})
	t.Run("ends with its context", func(t *testing.T) {
		t.Parallel()
		s, clock := startClocked(t, fakeclerk.Config{})
		a := startApp(t)
		ctx, cancel := context.WithCancel(t.Context())
		a.answerWith(func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
		e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{})
		s.CreateUser(fakeclerk.NewUser{})
		s.CreateUser(fakeclerk.NewUser{})
		if err := s.Deliver(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("error: got %v, want context.Canceled", err)
		}
		check(t, "attempts of the first", len(message(t, e, 0).Attempts), 1)
		check(t, "attempts of the second", len(message(t, e, 1).Attempts), 0)
		a.answerStatus(200)
		clock.Advance(5 * time.Second)
		check(t, "the first, later", message(t, e, 0).State, fakeclerk.Delivered)
		check(t, "the second, later", message(t, e, 1).State, fakeclerk.Delivered)
	})
	t.Run("makes several attempts at a time", func(t *testing.T) {
		t.Parallel()
		s, _ := startClocked(t, fakeclerk.Config{})
		a := startApp(t)
		var together sync.WaitGroup
		together.Add(3)
		a.answerWith(func(w http.ResponseWriter, _ *http.Request) { together.Done(); together.Wait() })
		e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{Concurrency: 3})
		for range 3 {
			s.CreateUser(fakeclerk.NewUser{})
		}
		must(t, s.Deliver(t.Context())) // the handlers wait for each other
		for _, m := range e.Messages() {
			check(t, "state", m.State, fakeclerk.Delivered)
		}
	})
}

func TestRealTime(t *testing.T) {
	t.Parallel()
	t.Run("in the background, in order", func(t *testing.T) {
		t.Parallel()
		s := start(t, fakeclerk.Config{})
		a := startApp(t)
		e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{})
		arrived := make(chan struct{}, 100)
		a.answerWith(func(http.ResponseWriter, *http.Request) { arrived <- struct{}{} })
		id := s.CreateUser(fakeclerk.NewUser{})
		<-arrived // without a call of Deliver or Settle
		for range 10 {
			must(t, s.BanUser(id))
		}
		must(t, s.Settle(t.Context()))
		check(t, "order", a.letters(e), "abcdefghijk")

		webhook, err := svix.NewWebhook(e.Secret())
		must(t, err)
		for _, d := range a.requests() {
			must(t, webhook.Verify(d.body, d.header)) // checks the timestamp against the real time
		}
	})
	t.Run("Settle waits for attempts in progress", func(t *testing.T) {
		t.Parallel()
		s := start(t, fakeclerk.Config{})
		a := startApp(t)
		received, answer := make(chan struct{}), make(chan struct{})
		a.answerWith(func(http.ResponseWriter, *http.Request) { close(received); <-answer })
		e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{})
		s.CreateUser(fakeclerk.NewUser{})
		<-received
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Settle(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("error: got %v, want context.Canceled", err)
		}
		settled := make(chan error, 1)
		go func() { settled <- s.Settle(t.Context()) }()
		close(answer)
		must(t, <-settled)
		check(t, "state", message(t, e, 0).State, fakeclerk.Delivered)
	})
	t.Run("Close cancels attempts in progress", func(t *testing.T) {
		t.Parallel()
		s := start(t, fakeclerk.Config{})
		a := startApp(t)
		received := make(chan struct{})
		a.answerWith(func(_ http.ResponseWriter, r *http.Request) { close(received); <-r.Context().Done() })
		e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{})
		s.CreateUser(fakeclerk.NewUser{})
		s.CreateUser(fakeclerk.NewUser{})
		<-received
		must(t, s.Close())
		check(t, "attempts", len(message(t, e, 0).Attempts), 1)
		check(t, "has an error", message(t, e, 0).Attempts[0].Err != nil, true)
		check(t, "attempts of the next", len(message(t, e, 1).Attempts), 0)
		must(t, s.Settle(t.Context())) // returns at once after Close
		s.CreateUser(fakeclerk.NewUser{})
		check(t, "requests", len(a.requests()), 1)
	})
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"real time", "a clock"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := fakeclerk.NewClock(epoch)
			cfg := fakeclerk.Config{RateLimit: -1, InstanceID: testInstance}
			if name == "a clock" {
				cfg.Clock = clock
			}
			s := start(t, cfg)
			a := startApp(t)
			e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{Concurrency: 4})
			users := userClient(s)
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for range 5 {
						id := s.CreateUser(fakeclerk.NewUser{})
						if _, err := users.Get(t.Context(), id); err != nil {
							t.Error(err)
						}
						if _, err := users.Ban(t.Context(), id); err != nil {
							t.Error(err)
						}
						// The clock moves 10 s in all. After 15 s, attempts would fail.
						clock.Advance(500 * time.Millisecond)
						if err := s.DeleteUser(id); err != nil {
							t.Error(err)
						}
						if err := s.Settle(t.Context()); err != nil {
							t.Error(err)
						}
						s.SessionToken(id)
						e.Messages()
						s.UserIDs()
					}
				})
			}
			wg.Wait()
			must(t, s.Settle(t.Context()))
			check(t, "deliveries", len(a.requests()), 60)
			for _, m := range e.Messages() {
				check(t, "state", m.State, fakeclerk.Delivered)
			}
		})
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		policy func(i int) fakeclerk.Delivery // for the i-th message
		now    string                         // letters of the messages that arrive at once
		later  string                         // and of those that arrive within a minute
	}{
		{"none", nil, "abc", "abc"},
		{"zero", func(int) fakeclerk.Delivery { return fakeclerk.Delivery{} }, "abc", "abc"},
		{"lost", func(i int) fakeclerk.Delivery { return fakeclerk.Delivery{Drop: i == 1} }, "ac", "ac"},
		{"late", func(i int) fakeclerk.Delivery {
			return fakeclerk.Delivery{Delay: time.Duration(i) * time.Second}
		}, "a", "abc"},
		{"reversed", func(i int) fakeclerk.Delivery {
			return fakeclerk.Delivery{Delay: time.Duration(3-i) * time.Second}
		}, "", "cba"},
		{"doubled", func(i int) fakeclerk.Delivery { return fakeclerk.Delivery{Copies: 1 + i%2} }, "abbc", "abbc"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, clock := startClocked(t, fakeclerk.Config{})
			a := startApp(t)
			e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{})
			if test.policy != nil {
				i := 0
				e.SetPolicy(func(m fakeclerk.Message) fakeclerk.Delivery {
					if m.Type != "user.created" || len(m.Body) == 0 || m.CreatedAt != epoch {
						t.Errorf("policy got %+v", m)
					}
					i++
					return test.policy(i - 1)
				})
			}
			for range 3 {
				s.CreateUser(fakeclerk.NewUser{})
			}
			clock.Advance(0)
			check(t, "now", a.letters(e), test.now)
			clock.Advance(time.Minute)
			check(t, "later", a.letters(e), test.later)

			e.SetPolicy(nil)
			s.CreateUser(fakeclerk.NewUser{})
			clock.Advance(0)
			check(t, "without the policy", a.letters(e), test.later+"d")
		})
	}
	t.Run("a lost message can be replayed", func(t *testing.T) {
		t.Parallel()
		s, clock := startClocked(t, fakeclerk.Config{})
		a := startApp(t)
		e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{})
		e.SetPolicy(func(fakeclerk.Message) fakeclerk.Delivery { return fakeclerk.Delivery{Drop: true} })
		s.CreateUser(fakeclerk.NewUser{})
		clock.Advance(100 * time.Hour)
		m := message(t, e, 0)
		check(t, "state", m.State, fakeclerk.Dropped)
		must(t, e.Replay(m.ID))
		clock.Advance(0)
		check(t, "state", message(t, e, 0).State, fakeclerk.Delivered)
		check(t, "requests", len(a.requests()), 1)
	})
	t.Run("each copy has its own attempts", func(t *testing.T) {
		t.Parallel()
		s, clock := startClocked(t, fakeclerk.Config{})
		a := startApp(t)
		n := 0
		a.answerWith(func(w http.ResponseWriter, _ *http.Request) {
			if n++; n == 1 {
				w.WriteHeader(500)
			}
		})
		e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{})
		e.SetPolicy(func(fakeclerk.Message) fakeclerk.Delivery { return fakeclerk.Delivery{Copies: 2} })
		s.CreateUser(fakeclerk.NewUser{})
		clock.Advance(0)
		check(t, "state after one", message(t, e, 0).State, fakeclerk.Pending)
		clock.Advance(5 * time.Second)
		check(t, "state after both", message(t, e, 0).State, fakeclerk.Delivered)
		check(t, "attempts", len(message(t, e, 0).Attempts), 3)
	})
}

func TestHoldAndRelease(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{})
	a := startApp(t)
	e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{})
	s.CreateUser(fakeclerk.NewUser{}) // due, but no attempt has been made
	e.Hold()
	for range 4 {
		s.CreateUser(fakeclerk.NewUser{})
	}
	clock.Advance(time.Hour)
	check(t, "while held", a.letters(e), "")
	m := e.Messages()
	check(t, "state", m[0].State, fakeclerk.Pending)
	check(t, "next", m[0].Next.IsZero(), true)

	if err := e.Release(m[2].ID, "msg_x"); err == nil {
		t.Error("released an unknown message")
	}
	clock.Advance(0)
	check(t, "after a refused release", a.letters(e), "")

	must(t, e.Release(m[3].ID, m[1].ID))
	clock.Advance(0)
	check(t, "two, in the given order", a.letters(e), "db")
	clock.Advance(time.Hour)
	check(t, "the others are still held", a.letters(e), "db")

	must(t, e.Release())
	clock.Advance(0)
	check(t, "the rest, in their original order", a.letters(e), "dbace")
	s.CreateUser(fakeclerk.NewUser{})
	clock.Advance(0)
	check(t, "after the hold", a.letters(e), "dbacef")
}

func TestOutage(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{})
	a := startApp(t)
	e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{})
	e.SetOutage(true)
	s.CreateUser(fakeclerk.NewUser{})
	clock.Advance(5 * time.Second)
	m := message(t, e, 0)
	check(t, "requests", len(a.requests()), 0)
	check(t, "attempts", len(m.Attempts), 2)
	check(t, "status", m.Attempts[1].Status, 0)
	check(t, "has an error", m.Attempts[1].Err != nil, true)
	e.SetOutage(false)
	clock.Advance(5 * time.Minute)
	check(t, "requests", len(a.requests()), 1)
	check(t, "state", message(t, e, 0).State, fakeclerk.Delivered)
}

func TestRotateSecret(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{})
	a := startApp(t)
	e := s.AddEndpoint(a.url, fakeclerk.EndpointOptions{Secret: "whsec_b2xkIHNlY3JldA=="})
	check(t, "given", e.Secret(), "whsec_b2xkIHNlY3JldA==")
	fresh := e.RotateSecret()
	check(t, "Secret", e.Secret(), fresh)

	verifies := func(secret string) bool {
		s.CreateUser(fakeclerk.NewUser{})
		clock.Advance(0)
		got := a.requests()
		d := got[len(got)-1]
		webhook, err := svix.NewWebhook(secret)
		must(t, err)
		return webhook.VerifyIgnoringTimestamp(d.body, d.header) == nil
	}
	check(t, "new", verifies(fresh), true)
	clock.Advance(24*time.Hour - 1)
	check(t, "old, for a day", verifies("whsec_b2xkIHNlY3JldA=="), true)
	clock.Advance(1)
	check(t, "old, after that", verifies("whsec_b2xkIHNlY3JldA=="), false)
	check(t, "new, after that", verifies(fresh), true)
}

func TestAddEndpointPanics(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{})
	for name, args := range map[string][2]string{
		"relative URL": {"/webhooks", ""},
		"other scheme": {"ftp://host/", ""},
		"not base64":   {"http://127.0.0.1:1", "whsec_?"},
		"empty secret": {"http://127.0.0.1:1", "whsec_"},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			s.AddEndpoint(args[0], fakeclerk.EndpointOptions{Secret: args[1]})
		}()
	}
}

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
