package fakeclerk_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	svix "github.com/svix/svix-webhooks/go"
)

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
