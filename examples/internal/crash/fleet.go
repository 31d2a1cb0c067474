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

// serving is how the line begins by which the quickstart says where it serves.
const serving = "Serving on "

// fleet is the app's processes.
type fleet struct {
	slots    []*slot
	starts   atomic.Int64
	kills    atomic.Int64
	ambushes atomic.Int64
	waiting  sync.WaitGroup
}

// slot is a place for one process at a time: when it dies, the next takes it.
type slot struct {
	fleet *fleet
	spec  spec
	rng   *rand.Rand
	calm  func(since time.Time) bool // the database's

	mu      sync.Mutex
	current target
	serving bool
	ambush  chan struct{} // closed by the next webhook that is on its way; nil: nobody waits
}

// target is where a request may go. It stays what it was when its process has died, as a
// balancer's does for a while.
type target struct {
	url     string // empty where the first process has not come up
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

// keep has a process in every slot until ctx is done, and ends them then; waiting tells when they
// are gone. fail gets to know of one that ended otherwise than by a kill.
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
		p, err := startProcess(context.WithoutCancel(ctx), s.spec) // the end of ctx asks it to end, and no more
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

// attend stays with a process until it is gone.
func (s *slot) attend(ctx context.Context, p *process) error {
	s.set(target{s.target().url, p}, false)
	began := time.Now()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	stop := func() error {
		if context.Cause(ctx) != context.Canceled { //nolint:errorlint // the very value: a run that ended well
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
		// One that finds no database gives up, as it should, and is started again.
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

// up returns when every slot has a process that serves.
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

// kill kills the slot's process; where there is none, the next one.
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

// killInWebhook kills the slot's process a moment after the next webhook went to it, and
// without one after a second.
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

// webhookSent springs the ambush.
func (s *slot) webhookSent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ambush != nil {
		close(s.ambush)
		s.ambush = nil
	}
}
