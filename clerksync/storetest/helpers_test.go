package storetest

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/clerksync"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder collects the failures of a case instead of failing the test.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	failures []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// failing runs the wanted cases against a Store, as Run does. It returns the messages of those
// that fail, by name.
func failing(t *testing.T, newStore func() clerksync.Store, wanted func(name string) bool) map[string][]string {
	failed := make(map[string][]string)
	able := abilities(t, newStore())
	for _, k := range cases {
		if k.needs&^able != 0 || !wanted(k.name) {
			continue
		}
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			k.run(&check{t: r, rule: k.rule, newStore: newStore})
		}()
		<-done
		if len(r.failures) > 0 {
			failed[k.name] = r.failures
		}
	}
	return failed
}
