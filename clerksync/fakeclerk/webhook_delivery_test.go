package fakeclerk_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	svix "github.com/svix/svix-webhooks/go"
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
