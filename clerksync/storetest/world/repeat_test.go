package world

import (
	"fmt"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// A recorded seed is of use only if it leads to the very same run.
func TestARunRepeats(t *testing.T) {
	const steps = 150
	ops := make([]op, steps)
	for i := range ops {
		ops[i] = step.Example(i)
	}
	run := func(kindOfWorld int) string {
		w := newWorld(t, func(_ testing.TB, now func() time.Time) clerksync.Store {
			s := memstore.New()
			s.Now = now
			return s
		}, Options{}, 7, kindOfWorld)
		defer w.close()
		for _, o := range ops {
			w.step(t, o)
		}
		told := w.counts.String()
		for _, h := range w.history {
			told += fmt.Sprintln(h.at.UnixMilli(), h.depth, h.op)
		}
		for _, u := range w.users {
			for _, s := range u.records {
				told += fmt.Sprintln(u.id, s.key, s.from, s.until)
			}
		}
		return told
	}
	for kindOfWorld := range 32 {
		if a, b := run(kindOfWorld), run(kindOfWorld); a != b {
			i := 0
			for i < min(len(a), len(b)) && a[i] == b[i] {
				i++
			}
			t.Errorf("two runs of world %d differ, the first in\n%.2000s\nand the second in\n%.2000s", kindOfWorld, a[max(0, i-500):], b[max(0, i-500):])
		}
	}
}
