package clerksync_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// cachedVisit returns a request of a signed-in user whose record is cached, the middleware, and the
// floor: the cheapest middleware that passes a value to its handler.
func cachedVisit(tb testing.TB) (r *http.Request, middleware, floor http.Handler) {
	tb.Helper()
	store := memstore.New()
	now := time.Now()
	if _, err := store.Upsert(tb.Context(), &clerksync.User{ClerkID: "user_2abcdefghijklmnopqrstuvwxyz",
		ClerkUpdatedAt: now, SyncedAt: now}); err != nil {
		tb.Fatal(err)
	}
	s := newTestSyncer(tb, func(c *clerksync.Config) { c.Store, c.Now, c.CacheTTL = store, time.Now, time.Hour })
	u := visit(tb, s, "user_2abcdefghijklmnopqrstuvwxyz")

	type key struct{}
	floor = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		appHandler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, u)))
	})
	r = httptest.NewRequest(http.MethodGet, "/api/me", nil)
	claims := &clerk.SessionClaims{RegisteredClaims: clerk.RegisteredClaims{Subject: u.ClerkID}}
	return r.WithContext(clerk.ContextWithSessionClaims(r.Context(), claims)), s.Middleware(appHandler), floor
}

// BenchmarkCachedMiddleware times the middleware and its floor by turns, and reports the ratio.
func BenchmarkCachedMiddleware(b *testing.B) {
	r, middleware, floor := cachedVisit(b)
	const turn = 50_000 // long enough to include its own garbage collection
	var ours, theirs time.Duration
	n := 0
	for b.Loop() {
		start := time.Now()
		for range turn {
			floor.ServeHTTP(nil, r)
		}
		half := time.Now()
		for range turn {
			middleware.ServeHTTP(nil, r)
		}
		theirs += half.Sub(start)
		ours += time.Since(half)
		n += turn
	}
	b.ReportMetric(float64(ours)/float64(theirs), "x-floor")
	b.ReportMetric(float64(ours.Nanoseconds())/float64(n), "ns/visit")
	b.ReportMetric(float64(theirs.Nanoseconds())/float64(n), "ns/floor")
	b.ReportMetric(0, "ns/op") // an op is 100,000 requests
}

func BenchmarkCachedMiddlewareParallel(b *testing.B) {
	r, middleware, _ := cachedVisit(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			middleware.ServeHTTP(nil, r)
		}
	})
}

// A cached visit allocates nothing but the context and the request's copy.
func TestCachedVisitAllocations(t *testing.T) {
	r, middleware, floor := cachedVisit(t)
	ours := testing.AllocsPerRun(1000, func() { middleware.ServeHTTP(nil, r) })
	least := testing.AllocsPerRun(1000, func() { floor.ServeHTTP(nil, r) })
	if ours > least {
		t.Errorf("%v allocations, and the floor is %v", ours, least)
	}
}

// BenchmarkCacheMemory reports what a full cache of 100,000 users takes.
func BenchmarkCacheMemory(b *testing.B) {
	const users = 100_000
	for b.Loop() {
		store := &generatedUsers{}
		s := newTestSyncer(b, func(c *clerksync.Config) { c.Store = store })
		before := heap()
		for i := range users {
			visit(b, s, fmt.Sprintf("user_%027d", i))
		}
		b.ReportMetric(float64(heap()-before)/1e6, "MB/100k-users")
		if again := store.reads; again < users {
			b.Fatalf("%d reads", again)
		}
		runtime.KeepAlive(s)
	}
}
