// Command prometheus is an app whose clerksync reports to Prometheus, at 127.0.0.1:9464/metrics. The
// page clerksync/otelsync/README.md quotes it. It reads CLERK_SECRET_KEY,
// CLERK_WEBHOOK_SIGNING_SECRET and MONGODB_URI.
package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/otelsync"
	"github.com/clerksync/clerksync-go/mongostore"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client := must(mongo.Connect(options.Client().ApplyURI(os.Getenv("MONGODB_URI"))))
	store := must(mongostore.Open(ctx, client.Database("app").Collection("users"), nil))
	cfg := clerksync.Config{Store: store, SecretKey: os.Getenv("CLERK_SECRET_KEY")}
	metrics := must(instrument(&cfg))
	syncer := must(clerksync.New(cfg))
	webhooks := must(syncer.WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{os.Getenv("CLERK_WEBHOOK_SIGNING_SECRET")},
	}))

	go serve("127.0.0.1:9464", metrics) // not for the app's clients
	serve("127.0.0.1:8080", newRouter(syncer, webhooks))
}

// instrument makes the Syncer report to Prometheus, and returns the handler for GET /metrics.
func instrument(cfg *clerksync.Config) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithoutScopeInfo())
	if err != nil {
		return nil, err
	}
	provider := metric.NewMeterProvider(metric.WithReader(exporter))
	if err := otelsync.Instrument(cfg, otelsync.Options{MeterProvider: provider}); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux, nil
}

func newRouter(syncer *clerksync.Syncer, webhooks http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /api/hello", syncer.RequireUser(http.HandlerFunc(hello)))
	mux.Handle("/api/webhooks/clerk", webhooks) // Clerk has no session
	return mux
}

func hello(w http.ResponseWriter, r *http.Request) {
	user, _ := clerksync.UserFromContext(r.Context())
	_, _ = w.Write([]byte("hello, " + user.Name + "\n"))
}

func serve(addr string, h http.Handler) {
	server := &http.Server{Addr: addr, Handler: h, ReadHeaderTimeout: 5 * time.Second}
	log.Println("serving on http://" + addr)
	log.Fatal(server.ListenAndServe())
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
