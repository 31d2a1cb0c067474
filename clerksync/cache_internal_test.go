package clerksync

import (
	"runtime"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"
)

// An invalidation waits for a put that has looked at the generation and not yet
// written, also where nothing was cached before.
func TestInvalidationInTheMiddleOfAPut(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c := newRecordCache(1000, time.Hour)
	before := c.generation("user_1").Load()
	invalidated := make(chan struct{})
	c.records.Compute("user_1", func(*cachedRecord, bool) (*cachedRecord, otter.ComputeOp) {
		go func() {
			c.invalidate("user_1", now, func(*User) *User { return nil })
			close(invalidated)
		}()
		for c.generation("user_1").Load() == before {
			runtime.Gosched()
		}
		for range 10_000 { // time enough to return too early
			runtime.Gosched()
		}
		return &cachedRecord{user: &User{ClerkID: "user_1", IsActive: true}, loadedAt: now}, otter.WriteOp
	})
	<-invalidated
	if _, ok := c.fresh("user_1", now); ok {
		t.Error("what was loaded before the invalidation is served after it")
	}
}
