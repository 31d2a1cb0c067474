package fakeclerk

import (
	"container/heap"
	"sync"
	"time"
)

// Clock is a clock for tests. It stands still until [Clock.Advance] moves it. Set it as Config.Clock
// of a [Server], and give its Now method to the code under test: both then share one time, and no test
// has to sleep. A Clock also implements clerk.Clock, which the official SDK takes in jwt.VerifyParams.
//
// The zero Clock is ready to use and stands at the zero [time.Time]. A Clock is safe for concurrent
// use and must not be copied.
type Clock struct {
	mu     sync.Mutex
	now    time.Time
	seq    uint64
	timers timerHeap
}

// NewClock returns a Clock that stands at now, without now's monotonic reading.
func NewClock(now time.Time) *Clock {
	return &Clock{now: now.Round(0)}
}

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// AfterFunc makes f run once the clock has moved by d. If d is zero or negative, f is due now and runs
// in the next Advance, never in AfterFunc itself. Functions that are due at the same time run in the
// order of their AfterFunc calls.
//
// stop keeps f from running. It reports false if f has already started or was stopped before. It does
// not wait for f to return.
func (c *Clock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &timer{due: c.now.Add(max(d, 0)), seq: c.seq, f: f}
	c.seq++
	heap.Push(&c.timers, t)
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if t.index < 0 {
			return false
		}
		heap.Remove(&c.timers, t.index)
		return true
	}
}

// Advance moves the clock forward by d and panics if d is negative. On the way it runs the functions
// that fall due, one by one in the order of their due times, on the caller's goroutine. During each
// one, Now is its due time. A function that is scheduled meanwhile runs in the same Advance if it is
// due in time. Advance(0) runs what is due now.
//
// A function that Advance runs may itself call Advance. A webhook handler can take time this way. The
// outer Advance then continues from the time the clock has reached. Time never goes backwards.
func (c *Clock) Advance(d time.Duration) {
	if d < 0 {
		panic("fakeclerk: Clock.Advance by a negative duration")
	}
	c.mu.Lock()
	target := c.now.Add(d)
	for len(c.timers) > 0 && !c.timers[0].due.After(target) {
		t := heap.Pop(&c.timers).(*timer)
		if t.due.After(c.now) {
			c.now = t.due
		}
		c.mu.Unlock()
		t.f()
		c.mu.Lock()
	}
	if target.After(c.now) {
		c.now = target
	}
	c.mu.Unlock()
}

// Next returns when the earliest scheduled function is due, which is never before Now. It returns
// false if nothing is scheduled. Simulations use it to step from event to event.
func (c *Clock) Next() (due time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.timers) == 0 {
		return time.Time{}, false
	}
	return c.timers[0].due, true
}

// timeSource is the source of a Server's time: a Clock or realTime.
type timeSource interface {
	Now() time.Time
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// realTime is the real time.
type realTime struct{}

func (realTime) Now() time.Time { return time.Now() }

func (realTime) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

// timer is one scheduled call.
type timer struct {
	due   time.Time
	seq   uint64 // orders timers that are due at the same time
	f     func()
	index int // in the heap; -1 once removed
}

// timerHeap is a heap.Interface whose first timer is the one that runs next.
type timerHeap []*timer

func (h timerHeap) Len() int { return len(h) }

func (h timerHeap) Less(i, j int) bool {
	if !h[i].due.Equal(h[j].due) {
		return h[i].due.Before(h[j].due)
	}
	return h[i].seq < h[j].seq
}

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *timerHeap) Push(x any) {
	t := x.(*timer)
	t.index = len(*h)
	*h = append(*h, t)
}

func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.index = -1
	return t
}
