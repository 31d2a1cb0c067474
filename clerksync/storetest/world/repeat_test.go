package world

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// A recorded seed helps only if it leads to exactly the same run.
func TestARunRepeats(t *testing.T) {
	const steps, kindsOfWorld = 150, 32
	ops := make([]op, steps)
	for i := range ops {
		ops[i] = step.Example(i)
	}
	for kindOfWorld := range kindsOfWorld {
		a, b := historyOf(t, ops, kindOfWorld), historyOf(t, ops, kindOfWorld)
		if a == b {
			continue
		}
		i := 0
		for i < min(len(a), len(b)) && a[i] == b[i] {
			i++
		}
		from := max(0, i-500)
		t.Errorf("two runs of world %d differ: the first in\n%.2000s\nthe second in\n%.2000s",
			kindOfWorld, a[from:], b[from:])
	}
}

// historyOf runs the operations on a memstore and returns all that happened.
func historyOf(t *testing.T, ops []op, kindOfWorld int) string {
	w := newWorld(t, func(_ testing.TB, now func() time.Time) clerksync.Store {
		s := memstore.New()
		s.Now = now
		return s
	}, Options{}, 7, kindOfWorld)
	defer w.close()
	for _, o := range ops {
		w.step(t, o)
	}
	var b strings.Builder
	b.WriteString(w.counts.String())
	for _, h := range w.history {
		fmt.Fprintln(&b, h.at.UnixMilli(), h.depth, h.op)
	}
	for _, u := range w.users {
		for _, s := range u.records {
			fmt.Fprintln(&b, u.id, s.key, s.from, s.until)
		}
	}
	return b.String()
}
