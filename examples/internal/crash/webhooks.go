package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// waits are the delays before the second and later attempts at a webhook. Svix waits 5 s, 5 min, 30
// min, 2 h, 5 h, 10 h and 10 h. A message that fails after the last wait is replayed.
var waits = [...]time.Duration{
	50 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond,
	time.Second, 2 * time.Second, 4 * time.Second, 4 * time.Second,
}

// courier decides when each webhook is delivered. The endpoint holds all deliveries, also retries,
// until the courier releases them. Attempts and signatures are fakeclerk's.
type courier struct {
	endpoint *fakeclerk.Endpoint
	rng      *rand.Rand
	plans    map[string]*plan
	replay   atomic.Bool  // whether to replay old messages now and then, as from the Dashboard
	pending  atomic.Int64 // messages without a 2xx at the last look
	replayed atomic.Int64 // messages replayed although they were delivered
}

// plan is the schedule of one message.
type plan struct {
	attempts int
	due      time.Time
}

// policy sends one message in ten twice, at the same time.
func (c *courier) policy(seed uint64) func(fakeclerk.Message) fakeclerk.Delivery {
	rng := stream(seed, "doubles")
	return func(fakeclerk.Message) fakeclerk.Delivery {
		if rng.IntN(10) == 0 {
			return fakeclerk.Delivery{Copies: 2}
		}
		return fakeclerk.Delivery{}
	}
}

// run delivers until ctx is done.
func (c *courier) run(ctx context.Context) {
	for pause(ctx, 40*time.Millisecond) == nil {
		c.look(time.Now())
	}
}

// look releases the messages that are due, in random order.
func (c *courier) look(now time.Time) {
	messages := c.endpoint.Messages()
	var due []string
	pending := int64(0)
	for _, m := range messages {
		if m.State == fakeclerk.Delivered {
			delete(c.plans, m.ID)
			continue
		}
		pending++
		p := c.plans[m.ID]
		switch {
		case m.State == fakeclerk.Failed:
			_ = c.endpoint.Replay(m.ID) // it fails only for an unknown message
			c.plans[m.ID] = &plan{attempts: len(m.Attempts), due: now}
			continue
		case p == nil:
			p = &plan{attempts: len(m.Attempts), due: now.Add(c.delay())}
			c.plans[m.ID] = p
		case len(m.Attempts) > p.attempts:
			p.attempts = len(m.Attempts)
			p.due = now.Add(waits[min(p.attempts, len(waits))-1])
		}
		if !p.due.After(now) {
			due = append(due, m.ID)
		}
	}
	c.pending.Store(pending)
	if c.replay.Load() && len(messages) > 0 && c.rng.IntN(10) == 0 {
		m := messages[c.rng.IntN(len(messages))]
		if m.State == fakeclerk.Delivered {
			c.replayed.Add(1)
			_ = c.endpoint.Replay(m.ID)
		}
	}
	c.rng.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	for _, id := range due {
		_ = c.endpoint.Release(id) // an error means that it is under way already
	}
}

// delay is the wait before a first attempt. It lets later messages overtake earlier ones.
func (c *courier) delay() time.Duration {
	switch c.rng.IntN(10) {
	case 0:
		return time.Duration(c.rng.Int64N(int64(3 * time.Second)))
	case 1, 2, 3:
		return time.Duration(c.rng.Int64N(int64(300 * time.Millisecond)))
	default:
		return 0
	}
}

// balancer receives the webhooks. It passes each to a random process, dead or alive, and records
// the answer in the ledger before it returns the answer to Svix.
type balancer struct {
	fleet  *fleet
	ledger *ledger
	fail   func(error)
	client *http.Client
	mu     sync.Mutex
	rng    *rand.Rand

	webhooks, cut atomic.Int64

	server *http.Server
	ended  chan error
	url    string
}

func newClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 16},
		Timeout:       40 * time.Second, // the app stops after 20
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (b *balancer) serve(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b.url = "http://" + listener.Addr().String()
	b.server = &http.Server{Handler: b, ReadHeaderTimeout: 10 * time.Second}
	b.ended = make(chan error, 1)
	go func() { b.ended <- b.server.Serve(listener) }()
	return nil
}

func (b *balancer) close() {
	_ = b.server.Close()
	<-b.ended
	b.client.CloseIdleConnections()
}

// pick returns a random slot.
func (b *balancer) pick() *slot {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fleet.slots[b.rng.IntN(len(b.fleet.slots))]
}

func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	b.webhooks.Add(1)
	slot := b.pick()
	to, sent := slot.target(), time.Now()
	status, answer, err := b.post(r, to.url, body, slot)
	if err != nil {
		b.cut.Add(1)
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	p := to.process
	if !p.alive() {
		p = nil
	}
	if err := b.ledger.acknowledged(body, p, status, sent); err != nil {
		b.fail(err)
	}
	w.WriteHeader(status)
	_, _ = w.Write(answer)
}

func (b *balancer) post(r *http.Request, url string, body []byte, slot *slot) (status int, answer []byte, err error) {
	if url == "" {
		return 0, nil, errors.New("no process yet")
	}
	out, err := http.NewRequestWithContext(r.Context(), http.MethodPost, url+r.URL.Path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	out.Header = r.Header.Clone()
	slot.happened(inWebhook)
	resp, err := b.client.Do(out)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}
