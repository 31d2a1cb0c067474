//go:build !race

package clerksync_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"runtime"
	"runtime/metrics"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// TestReconcileMemory runs over users whom neither Clerk nor the Store keeps in memory, so that
// what grows is the run's own. The race detector needs memory too, so the test is not for its
// builds.
func TestReconcileMemory(t *testing.T) {
	users := manyUsers()
	bound := uint64(16<<20 + 48*users)
	clock := fakeclerk.NewClock(t0)
	server, err := fakeclerk.Start(fakeclerk.Config{Clock: clock, RateLimit: -1, Population: users})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	store := &populationStore{server: server, users: users}
	s := newTestSyncer(t, func(c *clerksync.Config) {
		c.Store, c.APIURL, c.SecretKey = store, server.APIURL(), server.SecretKey()
		clerksync.SetClock(c, eagerClock{clock})
	})

	runtime.GC() // of earlier tests
	before := heapLive()
	peak := before
	report, err := s.Reconcile(t.Context(), options{
		RequestsPerSecond: 1e9,
		Progress:          func(clerksync.Progress) { peak = max(peak, heapLive()) },
	})
	if err != nil || !report.InStep() || report.Unchanged != users {
		t.Fatalf("%+v, %v", report, err)
	}
	if want := users/maxPage + 1; store.reads.Load() != int64(want)-1 || report.ClerkCalls < want {
		t.Errorf("%d reads of the Store and %d calls to Clerk, want some %d", store.reads.Load(), report.ClerkCalls,
			want)
	}
	t.Logf("%d users: the heap grew from %.1f by at most %.1f MB", users, float64(before)/1e6,
		float64(peak-before)/1e6)
	if peak-before > bound {
		t.Errorf("the heap grew by %d bytes, over %d", peak-before, bound)
	}
}

const maxPage = 500

// heapLive is what the last collection kept. The number of dead objects depends on what other tests
// keep.
func heapLive() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// populationStore is in step with a fake Clerk's population, and counts its calls.
type populationStore struct {
	server *fakeclerk.Server
	users  int
	reads  atomic.Int64
}

func (s *populationStore) stamp(id string) clerksync.Stamp {
	raw, ok := s.server.User(id)
	if !ok {
		return clerksync.Stamp{}
	}
	const name = `"updated_at":`
	raw = raw[bytes.LastIndex(raw, []byte(name))+len(name):]
	end := bytes.IndexAny(raw, ",}")
	ms, err := strconv.ParseInt(string(raw[:end]), 10, 64)
	if err != nil {
		panic(err)
	}
	return clerksync.Stamp{ClerkID: id, ClerkUpdatedAt: time.UnixMilli(ms), IsActive: true}
}

func (s *populationStore) Stamps(_ context.Context, ids []string) (map[string]clerksync.Stamp, error) {
	s.reads.Add(1)
	found := make(map[string]clerksync.Stamp, len(ids))
	for _, id := range ids {
		found[id] = s.stamp(id)
	}
	return found, nil
}

func (s *populationStore) Undeleted(context.Context) iter.Seq2[clerksync.Stamp, error] {
	return func(yield func(clerksync.Stamp, error) bool) {
		for i := range s.users {
			if !yield(clerksync.Stamp{ClerkID: s.server.PopulationID(i), IsActive: true}, nil) {
				return
			}
		}
	}
}

var errNothingToDo = errors.New("nothing is to be read whole or written")

func (s *populationStore) User(context.Context, string) (*clerksync.User, error) {
	return nil, errNothingToDo
}

func (s *populationStore) Users(context.Context, []string) (map[string]*clerksync.User, error) {
	return nil, errNothingToDo
}

func (s *populationStore) Upsert(context.Context, *clerksync.User) (clerksync.Result, error) {
	return clerksync.Result{}, errNothingToDo
}

func (s *populationStore) UpsertBatch(context.Context, []*clerksync.User) ([]clerksync.Result, error) {
	return nil, errNothingToDo
}

func (s *populationStore) Deactivate(context.Context, string, time.Time) (clerksync.Result, error) {
	return clerksync.Result{}, errNothingToDo
}
