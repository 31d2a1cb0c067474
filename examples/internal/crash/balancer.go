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
)

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
	slot.webhookSent()
	resp, err := b.client.Do(out)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}
