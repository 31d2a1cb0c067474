package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
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
	ambushes [numAmbushes]atomic.Int64
	waiting  sync.WaitGroup
	jobsURL  string
	// excused reports whether a process that was killed then had too little time, or no database, to write
	// after since.
	excused func(since, killed time.Time) bool

	mu      sync.Mutex
	started map[int64]started // all that were ever started
}

// started is a process and its slot.
type started struct {
	slot    *slot
	process *process
}

// ambush is what a kill waits for.
type ambush int

const (
	inWebhook   ambush = iota // a webhook is sent to the process
	inJob                     // a job of the process has had its effect
	numAmbushes = iota
)

// slot has one process at a time. When it dies, another takes its place.
type slot struct {
	fleet *fleet
	spec  spec
	rng   *rand.Rand
	calm  func(since time.Time) bool // database.calm

	mu      sync.Mutex
	current target
	serving bool
	ambush  [numAmbushes]chan struct{} // closed when that happens next; nil if nobody waits
}

// target is an address that a request may be sent to. It stays after its process has died, as in a
// real balancer for a while.
type target struct {
	url     string // empty until the slot's first process serves
	process *process
}

func newFleet(n int, sp spec, seed uint64, calm func(time.Time) bool) *fleet {
	f := &fleet{started: map[int64]started{}}
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
		n, sp := s.fleet.starts.Add(1), s.spec
		sp.env = append(slices.Clone(sp.env), fmt.Sprintf("JOBS_URL=%s%d", s.fleet.jobsURL, n))
		p, err := startProcess(context.WithoutCancel(ctx), sp) // attend ends it when ctx ends
		if err != nil {
			return err
		}
		s.fleet.mu.Lock()
		s.fleet.started[n] = started{s, p}
		s.fleet.mu.Unlock()
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

// killIn kills the slot's process a moment after the next webhook was sent to it, or after the next
// job had its effect. If there is none within a second, it kills it anyway.
func (s *slot) killIn(ctx context.Context, what ambush, moment time.Duration) error {
	sent := make(chan struct{})
	s.mu.Lock()
	s.ambush[what] = sent
	s.mu.Unlock()
	limit := time.NewTimer(time.Second)
	defer limit.Stop()
	select {
	case <-sent:
		s.fleet.ambushes[what].Add(1)
		if err := pause(ctx, moment); err != nil {
			return err
		}
	case <-limit.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.kill(ctx)
}

// happened starts the kill that killIn prepared.
func (s *slot) happened(what ambush) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ambush[what] != nil {
		close(s.ambush[what])
		s.ambush[what] = nil
	}
}

// acted notes that a job of the process with this number had its effect.
func (f *fleet) acted(start int64) {
	f.mu.Lock()
	of := f.started[start]
	f.mu.Unlock()
	if of.slot != nil && of.slot.target().process == of.process {
		of.slot.happened(inJob)
	}
}

// diedSoonAfter reports whether the process was killed so soon after t that it had no chance to
// write something since.
func (f *fleet) diedSoonAfter(start int64, t time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.started[start].process
	return p != nil && !p.alive() && !p.cmd.ProcessState.Exited() && f.excused(t, p.ended)
}
