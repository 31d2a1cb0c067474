package clerksync_test

import (
	"fmt"
	"testing"

	"github.com/clerksync/clerksync-go/clerksync"
)

func TestIDSet(t *testing.T) {
	id := func(i int) string { return fmt.Sprintf("user_%d", i) }
	const n = 50_000
	for _, expected := range []int{0, n / 2, n, 2 * n} {
		add, has, size := clerksync.NewIDSet(expected)
		for i := range n {
			if !add(id(i)) {
				t.Fatalf("room for %d: %s is in the set before it was added", expected, id(i))
			}
		}
		for i := range n {
			if add(id(i)) || !has(id(i)) {
				t.Fatalf("room for %d: %s is not in the set", expected, id(i))
			}
			if has(id(n + i)) {
				t.Fatalf("room for %d: %s is in the set and was never added", expected, id(n+i))
			}
		}
		if expected <= n && size() > 16*n {
			t.Errorf("room for %d: %d bytes for %d ids", expected, size(), n)
		}
	}
}
