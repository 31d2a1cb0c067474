package idset

import (
	"fmt"
	"testing"
)

func TestSet(t *testing.T) {
	id := func(i int) string { return fmt.Sprintf("user_%d", i) }
	const n = 50_000
	for _, expected := range []int{0, n / 2, n, 2 * n} {
		s := New(expected)
		for i := range n {
			if !s.Add(id(i)) {
				t.Fatalf("room for %d: %s is in the set before it was added", expected, id(i))
			}
		}
		for i := range n {
			if s.Add(id(i)) || !s.Has(id(i)) {
				t.Fatalf("room for %d: %s is not in the set", expected, id(i))
			}
			if s.Has(id(n + i)) {
				t.Fatalf("room for %d: %s is in the set and was never added", expected, id(n+i))
			}
		}
		if size := 8 * len(s.slots); expected <= n && size > 16*n {
			t.Errorf("room for %d: %d bytes for %d ids", expected, size, n)
		}
	}
}
