package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// serving begins the line in which the quickstart prints its address.
const serving = "Serving on "

// fleet is the app's processes.
type fleet struct {
	slots    []*slot
	starts   atomic.Int64
	kills    atomic.Int64
	ambushes atomic.Int64
	waiting  sync.WaitGroup
}

// slot has one process at a time. When it dies, another takes its place.
type slot struct {
	fleet *fleet
	spec  spec
	rng   *rand.Rand
	calm  func(since time.Time) bool // database.calm

	mu      sync.Mutex
	current target
	serving bool
	ambush  chan struct{} // closed when the next webhook is sent; nil if nobody waits
}

// target is an address that a request may be sent to. It stays after its process has died, as in a
// real balancer for a while.
type target struct {
	url     string // empty until the slot's first process serves
	process *process
}

func newFleet(n int, sp spec, seed uint64, calm func(time.Time) bool) *fleet {
	f := &fleet{}
	for i := range n {
		s := &slot{fleet: f, spec: sp, calm: calm, rng: stream(seed, fmt.Sprint("slot ", i))}
		s.spec.name = fmt.Sprint("app process ", i)
		s.spec.log = filepath.Join(filepath.Dir(sp.log), fmt.Sprintf("app-%d.log", i))
		f.slots = append(f.slots, s)
	}
	return f
}

// keep keeps a process running in every slot until ctx is done, and then ends them. waiting.Wait
// returns when they are gone. keep calls fail if a process ends without being killed.
func (f *fleet) keep(ctx context.Context, fail func(error)) {
	for _, s := range f.slots {
		f.waiting.Go(func() {
			if err := s.keep(ctx); err != nil {
				fail(err)
			}
		})
	}
}

func (s *slot) keep(ctx context.Context) error {
	for ctx.Err() == nil {
		p, err := startProcess(context.WithoutCancel(ctx), s.spec) // attend ends it when ctx ends
		if err != nil {
			return err
		}
		s.fleet.starts.Add(1)
		if err := s.attend(ctx, p); err != nil {
			return err
		}
		_ = pause(ctx, time.Duration(s.rng.Int64N(int64(300*time.Millisecond))))
	}
	return nil
}

// attend watches a process until it is gone.
func (s *slot) attend(ctx context.Context, p *process) error {
	s.set(target{s.target().url, p}, false)
	began := time.Now()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	stop := func() error {
		if context.Cause(ctx) != context.Canceled { //nolint:errorlint // exactly this value means that the run ended well
			p.kill()
			return nil
		}
		return p.end(func() error { return p.cmd.Process.Signal(os.Interrupt) })
	}
	select {
	case line := <-p.ready:
		url, _, _ := strings.Cut(strings.TrimPrefix(line, serving), ",")
		s.set(target{url, p}, true)
	case <-p.exited:
		// A process that cannot reach the database ends, as it should. keep starts another.
		if !p.killed.Load() && s.calm(began) {
			return violated("%s ended before it served: %v; see %s", p.name, p.cmd.ProcessState, s.spec.log)
		}
		return nil
	case <-limit.C:
		p.kill()
		return violated("%s does not serve within %v; see %s", p.name, patience, s.spec.log)
	case <-ctx.Done():
		return stop()
	}
	select {
	case <-p.exited:
		s.set(s.target(), false)
		if !p.killed.Load() {
			return violated("%s ended by itself: %v; see %s", p.name, p.cmd.ProcessState, s.spec.log)
		}
		return nil
	case <-ctx.Done():
		return stop()
	}
}

func (s *slot) set(t target, serving bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current, s.serving = t, serving
}

func (s *slot) target() target {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// up waits until every slot has a process that serves.
func (f *fleet) up(ctx context.Context) error {
	return until(ctx, func() bool {
		for _, s := range f.slots {
			s.mu.Lock()
			up := s.serving && s.current.process.alive()
			s.mu.Unlock()
			if !up {
				return false
			}
		}
		return true
	}, "not all app processes serve")
}

// kill kills the slot's process. If there is none, it waits for the next one.
func (s *slot) kill(ctx context.Context) error {
	return until(ctx, func() bool {
		p := s.target().process
		if p == nil || !p.alive() || !p.kill() {
			return false
		}
		s.fleet.kills.Add(1)
		return true
	}, "no app process to kill")
}

// killInWebhook kills the slot's process a moment after the next webhook was sent to it. If none is
// sent within a second, it kills it anyway.
func (s *slot) killInWebhook(ctx context.Context, moment time.Duration) error {
	sent := make(chan struct{})
	s.mu.Lock()
	s.ambush = sent
	s.mu.Unlock()
	limit := time.NewTimer(time.Second)
	defer limit.Stop()
	select {
	case <-sent:
		s.fleet.ambushes.Add(1)
		if err := pause(ctx, moment); err != nil {
			return err
		}
	case <-limit.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.kill(ctx)
}

// webhookSent starts the kill that killInWebhook prepared.
func (s *slot) webhookSent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ambush != nil {
		close(s.ambush)
		s.ambush = nil
	}
}
