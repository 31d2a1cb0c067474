package clerksync_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
)

// BenchmarkCachedRecord times cached visits by turns, with a handler that takes its Record and
// with one that does nothing, and reports the ratio.
func BenchmarkCachedRecord(b *testing.B) {
	app := newRecording(b, func(c *clerksync.Config) { c.Now, c.CacheTTL = time.Now, time.Hour })
	visit(b, app.Syncer, app.ada)
	found := false
	taking := app.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, found = clerksync.RecordFromContext[member](r.Context())
	}))
	idle := app.Middleware(appHandler)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	claims := &clerk.SessionClaims{RegisteredClaims: clerk.RegisteredClaims{Subject: app.ada}}
	r = r.WithContext(clerk.ContextWithSessionClaims(r.Context(), claims))

	const turn = 50_000 // long enough to include its own garbage collection
	var with, without time.Duration
	n := 0
	for b.Loop() {
		start := time.Now()
		for range turn {
			idle.ServeHTTP(nil, r)
		}
		half := time.Now()
		for range turn {
			taking.ServeHTTP(nil, r)
		}
		without += half.Sub(start)
		with += time.Since(half)
		n += turn
	}
	if !found {
		b.Fatal("the handler got no Record")
	}
	b.ReportMetric(float64(with)/float64(without), "x-idle")
	b.ReportMetric(float64(with.Nanoseconds())/float64(n), "ns/visit")
	b.ReportMetric(float64(without.Nanoseconds())/float64(n), "ns/idle")
	b.ReportMetric(0, "ns/op") // an op is 100,000 requests
}
