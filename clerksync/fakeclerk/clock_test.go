package fakeclerk_test

import (
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/google/go-cmp/cmp"
)

func TestClockAdvance(t *testing.T) {
	t.Parallel()
	type fired struct {
		Name string
		At   time.Duration // since epoch
	}
	for _, test := range []struct {
		name string
		run  func(c *fakeclerk.Clock, note func(string) func())
		want []fired
		now  time.Duration
	}{
		{
			name: "in order of due time, each at its time",
			run: func(c *fakeclerk.Clock, note func(string) func()) {
				c.AfterFunc(3*time.Second, note("c"))
				c.AfterFunc(1*time.Second, note("a"))
				c.AfterFunc(2*time.Second, note("b"))
				c.AfterFunc(9*time.Second, note("never"))
				c.Advance(5 * time.Second)
			},
			want: []fired{{"a", time.Second}, {"b", 2 * time.Second}, {"c", 3 * time.Second}},
			now:  5 * time.Second,
		},
		{
			name: "ties in order of scheduling",
			run: func(c *fakeclerk.Clock, note func(string) func()) {
				for _, name := range []string{"a", "b", "c"} {
					c.AfterFunc(time.Second, note(name))
				}
				c.Advance(time.Second)
			},
			want: []fired{{"a", time.Second}, {"b", time.Second}, {"c", time.Second}},
			now:  time.Second,
		},
		{
			name: "zero fires what is due now",
			run: func(c *fakeclerk.Clock, note func(string) func()) {
				c.AfterFunc(0, note("now"))
				c.AfterFunc(-time.Hour, note("past"))
				c.AfterFunc(1, note("later"))
				c.Advance(0)
			},
			want: []fired{{"now", 0}, {"past", 0}},
		},
		{
			name: "what is scheduled on the way fires too",
			run: func(c *fakeclerk.Clock, note func(string) func()) {
				c.AfterFunc(time.Second, func() {
					note("a")()
					c.AfterFunc(time.Second, note("b"))
				})
				c.Advance(2 * time.Second)
			},
			want: []fired{{"a", time.Second}, {"b", 2 * time.Second}},
			now:  2 * time.Second,
		},
		{
			name: "advancing within a call takes time",
			run: func(c *fakeclerk.Clock, note func(string) func()) {
				c.AfterFunc(time.Second, func() { c.Advance(10 * time.Second); note("slow")() })
				c.AfterFunc(2*time.Second, note("inner"))
				c.AfterFunc(12*time.Second, note("outside"))
				c.Advance(3 * time.Second)
			},
			want: []fired{{"inner", 2 * time.Second}, {"slow", 11 * time.Second}},
			now:  11 * time.Second,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := fakeclerk.NewClock(epoch)
			var got []fired
			test.run(c, func(name string) func() {
				return func() { got = append(got, fired{name, c.Now().Sub(epoch)}) }
			})
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("fired (-want +got):\n%s", diff)
			}
			check(t, "Now", c.Now().Sub(epoch), test.now)
		})
	}
}

func TestClockStop(t *testing.T) {
	t.Parallel()
	c := fakeclerk.NewClock(epoch)
	n := 0
	stop := c.AfterFunc(time.Second, func() { n++ })
	check(t, "first stop", stop(), true)
	check(t, "second stop", stop(), false)
	stop = c.AfterFunc(time.Second, func() { n++ })
	c.Advance(time.Second)
	check(t, "stop after the call", stop(), false)
	check(t, "calls", n, 1)
}

func TestClockNext(t *testing.T) {
	t.Parallel()
	c := fakeclerk.NewClock(epoch)
	if _, ok := c.Next(); ok {
		t.Error("an idle clock has a next call")
	}
	c.AfterFunc(time.Minute, func() {})
	stop := c.AfterFunc(time.Second, func() {})
	next, ok := c.Next()
	check(t, "ok", ok, true)
	check(t, "next", next, epoch.Add(time.Second))
	stop()
	next, _ = c.Next()
	check(t, "next after stop", next, epoch.Add(time.Minute))
}

func TestClockRefusesToGoBack(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	fakeclerk.NewClock(epoch).Advance(-1)
}
