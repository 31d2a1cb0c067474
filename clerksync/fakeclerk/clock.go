package fakeclerk

import (
	"container/heap"
	"sync"
	"time"
)

// Clock is a clock for tests: it stands still until [Clock.Advance] moves it. Give it
// to a [Server] by Config.Clock, and its Now to the code under test, so that both live
// in the same time and nothing ever has to sleep. It has the method set of clerk.Clock,
// which the official SDK takes in jwt.VerifyParams.
//
// The zero Clock stands at the zero [time.Time]; [NewClock] makes one that stands
// anywhere else. A Clock is safe for concurrent use and must not be copied.
type Clock struct {
	mu     sync.Mutex
	now    time.Time
	seq    uint64
	timers timerHeap
}

// NewClock returns a Clock that stands at now. A monotonic reading is stripped.
func NewClock(now time.Time) *Clock {
	return &Clock{now: now.Round(0)}
}

// Now returns the time at which the clock stands.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// AfterFunc has f called once the clock has moved by d. A d of zero or less makes f due
// now: it runs in the next Advance, never in AfterFunc itself. What is due at the same
// time runs in the order of the calls to AfterFunc.
//
// stop prevents the call and reports whether it did: false where f has been called, is
// being called or was stopped before. It does not wait for f.
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

// Advance moves the clock forward by d. On the way it calls what falls due, one by one
// in order of due time, on the caller's goroutine, with Now at that time; what such a
// call schedules inside the span runs in the same Advance. Advance(0) runs what is due
// now.
//
// A function that Advance calls may itself call Advance, which is how a webhook handler
// "takes" time: the outer call goes on from wherever the clock then stands, and time
// never goes backwards. Advance panics if d is negative.
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

// Next returns when the earliest scheduled function is due, which is now or later, and
// false where nothing is scheduled. A simulation steps from event to event with it.
func (c *Clock) Next() (due time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.timers) == 0 {
		return time.Time{}, false
	}
	return c.timers[0].due, true
}

// timeSource is what a Server takes its time from: a Clock, or the real one.
type timeSource interface {
	Now() time.Time
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

type realTime struct{}

func (realTime) Now() time.Time { return time.Now() }

func (realTime) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

// timer is one scheduled call; index is its place in the heap, -1 once it left it.
type timer struct {
	due   time.Time
	seq   uint64
	f     func()
	index int
}

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
