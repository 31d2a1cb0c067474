package otelsync_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
	"github.com/clerksync/clerksync-go/clerksync/otelsync"
)

const (
	secret      = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	otherSecret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	ada         = "user_ada"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// sensitive are texts that may be in no attribute. The id of a user is another matter.
var sensitive = []string{"ada@example.com", "Augusta", "Lovelace", "eyJ", secret, fakeclerk.DefaultSecretKey, "hunter2"}

var (
	hunter2    = "hunter2"
	errHunter2 = errors.New("mongodb://admin:hunter2@db.internal has no ada@example.com")
)

// telemetry is a pair of providers that keep what they get.
type telemetry struct {
	reader *sdkmetric.ManualReader // of what is new since it was last read
	meters *sdkmetric.MeterProvider
	ended  *tracetest.SpanRecorder
	traces *sdktrace.TracerProvider
}

func newTelemetry() *telemetry {
	delta := func(sdkmetric.InstrumentKind) metricdata.Temporality { return metricdata.DeltaTemporality }
	tel := &telemetry{
		reader: sdkmetric.NewManualReader(sdkmetric.WithTemporalitySelector(delta)), ended: tracetest.NewSpanRecorder(),
	}
	tel.meters = sdkmetric.NewMeterProvider(sdkmetric.WithReader(tel.reader))
	tel.traces = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(tel.ended))
	return tel
}

func (tel *telemetry) options() otelsync.Options {
	return otelsync.Options{MeterProvider: tel.meters, TracerProvider: tel.traces}
}

// collect reads the metrics that are new.
func (tel *telemetry) collect(t testing.TB) []metricdata.Metrics {
	t.Helper()
	all, err := tel.tryCollect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (tel *telemetry) tryCollect(ctx context.Context) (all []metricdata.Metrics, err error) {
	var collected metricdata.ResourceMetrics
	err = tel.reader.Collect(ctx, &collected)
	for _, scope := range collected.ScopeMetrics {
		all = append(all, scope.Metrics...)
	}
	return all, err
}

// point is a data point of a metric.
type point struct {
	attributes attribute.Set
	text       string // its value
}

func pointsOf(m metricdata.Metrics) (points []point) {
	switch data := m.Data.(type) {
	case metricdata.Histogram[float64]:
		for _, p := range data.DataPoints {
			points = append(points, point{p.Attributes, fmt.Sprintf("%d in %gs", p.Count, p.Sum)})
		}
	case metricdata.Gauge[int64]:
		for _, p := range data.DataPoints {
			points = append(points, point{p.Attributes, fmt.Sprint(p.Value)})
		}
	}
	return points
}

// texts describes metrics, one line for each data point that is not 0.
func texts(metrics []metricdata.Metrics) (lines []string) {
	for _, m := range metrics {
		for _, p := range pointsOf(m) {
			if p.text != "0" {
				lines = append(lines, short(fmt.Sprintf("%s{%s} %s", m.Name, attributesText(p.attributes.ToSlice()), p.text)))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

func attributesText(all []attribute.KeyValue) string {
	var parts []string
	for _, a := range all {
		value := a.Value.String()
		if a.Key == "clerksync.event.id" && strings.HasPrefix(value, "msg_") {
			value = "msg_1" // they are random
		}
		parts = append(parts, string(a.Key)+"="+value)
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

func short(text string) string { return strings.ReplaceAll(text, "clerksync.", "") }

// spans returns the spans that have ended, and forgets them.
func (tel *telemetry) spans() []sdktrace.ReadOnlySpan {
	defer tel.ended.Reset()
	return tel.ended.Ended()
}

// spanTexts describes spans: "parent > name{attributes} kind error, linked to name".
func spanTexts(spans []sdktrace.ReadOnlySpan) (lines []string) {
	names := make(map[trace.SpanID]string)
	for _, s := range spans {
		names[s.SpanContext().SpanID()] = s.Name()
	}
	for _, s := range spans {
		if s.Name() == "request" {
			continue
		}
		line := s.Name() + "{" + attributesText(s.Attributes()) + "}"
		if s.Parent().IsValid() {
			line = names[s.Parent().SpanID()] + " > " + line
		}
		if s.SpanKind() != trace.SpanKindInternal {
			line += " " + s.SpanKind().String()
		}
		if s.Status().Code == codes.Error {
			line += " error"
		}
		for _, link := range s.Links() {
			line += ", linked to " + names[link.SpanContext.SpanID()]
		}
		lines = append(lines, short(line))
	}
	slices.Sort(lines)
	return lines
}

// eagerClock ends each wait of a Syncer at once, by moving the clock on.
type eagerClock struct{ *fakeclerk.Clock }

func (c eagerClock) Sleep(ctx context.Context, d time.Duration) error {
	c.Advance(d)
	return context.Cause(ctx)
}

// fixture is an app on a fake Clerk and a Store in memory that reports to telemetry.
type fixture struct {
	*telemetry
	clock    *fakeclerk.Clock
	clerk    *fakeclerk.Server
	store    *faultyStore
	syncer   *clerksync.Syncer
	url      string // of the app
	endpoint *fakeclerk.Endpoint
	visited  chan struct{} // closed by visitAndEnd
}

// faultyStore is a Store in memory that fails with err, and counts the reads of due jobs.
type faultyStore struct {
	*memstore.Store
	err     error
	dueRead atomic.Int32
}

func (s *faultyStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	if s.err != nil {
		return clerksync.Result{}, s.err
	}
	return s.Store.Upsert(ctx, u)
}

func (s *faultyStore) DueJobs(ctx context.Context, kind clerksync.JobKind, by time.Time, limit int) ([]clerksync.JobEntry, error) {
	s.dueRead.Add(1)
	if s.err != nil {
		return nil, s.err
	}
	return s.Store.DueJobs(ctx, kind, by, limit)
}

// newFixture starts an app. change changes its Config before it is instrumented.
func newFixture(t testing.TB, change func(*fixture, *clerksync.Config, *otelsync.Options)) *fixture {
	t.Helper()
	fx := &fixture{
		telemetry: newTelemetry(), clock: fakeclerk.NewClock(t0), store: &faultyStore{Store: memstore.New()},
		visited: make(chan struct{}),
	}
	fx.store.Now = fx.clock.Now
	var err error
	if fx.clerk, err = fakeclerk.Start(fakeclerk.Config{Clock: fx.clock, InstanceID: "ins_otelsync", RateLimit: -1}); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	cfg := clerksync.Config{
		Store: fx.store, SecretKey: fx.clerk.SecretKey(), APIURL: fx.clerk.APIURL(), HTTPClient: client,
		Now: fx.clock.Now, Logger: slog.New(slog.DiscardHandler),
	}
	clock.Set(&cfg, eagerClock{fx.clock})
	opts := fx.options()
	if change != nil {
		change(fx, &cfg, &opts)
	}
	if err := otelsync.Instrument(&cfg, opts); err != nil {
		t.Fatal(err)
	}
	if fx.syncer, err = clerksync.New(cfg); err != nil {
		t.Fatal(err)
	}
	app := httptest.NewServer(fx.handler(t))
	fx.url = app.URL
	fx.endpoint = fx.clerk.AddEndpoint(app.URL+"/webhooks", fakeclerk.EndpointOptions{Secret: secret})
	t.Cleanup(func() {
		_, _ = fx.syncer.Close(), fx.clerk.Close()
		app.Close()
		client.CloseIdleConnections()
	})
	return fx
}

// handler is the app's. Each request has a span, as an instrumented server gives it.
func (fx *fixture) handler(t testing.TB) http.Handler {
	webhooks, err := fx.syncer.WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{secret},
		OnEvent: func(_ context.Context, e clerksync.Event) error {
			if e.Type == "session.created" {
				return errHunter2
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	mux := http.NewServeMux()
	mux.Handle("/me", fx.syncer.RequireUser(ok))
	mux.Handle("/admin", fx.syncer.RequireUser(clerksync.RequireRole(clerksync.RoleAdmin)(ok)))
	mux.Handle("/webhooks", webhooks)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, span := fx.traces.Tracer("test").Start(r.Context(), "request")
		defer span.End()
		mux.ServeHTTP(w, r.WithContext(ctx))
	})
}

// signUp makes a user, and delivers no event.
func (fx *fixture) signUp(id string) {
	fx.endpoint.SetPolicy(func(fakeclerk.Message) fakeclerk.Delivery { return fakeclerk.Delivery{Drop: true} })
	fx.clerk.CreateUser(fakeclerk.NewUser{ID: id, Email: "ada@example.com", FirstName: "Augusta", LastName: "Lovelace"})
	fx.endpoint.SetPolicy(nil)
}

// get is a request of a browser's to the app.
func (fx *fixture) get(path, token string) int {
	r, _ := http.NewRequest(http.MethodGet, fx.url+path, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return send(r)
}

func send(r *http.Request) int {
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

func (fx *fixture) visit() { fx.get("/me", fx.clerk.SessionToken(ada)) }

// visitAndEnd is a visit, and the end of the app after what the visit has caused.
func (fx *fixture) visitAndEnd() {
	fx.visit()
	close(fx.visited)
	_ = fx.syncer.Close()
}

// ghosts makes records of users that Clerk does not have.
func (fx *fixture) ghosts(ids ...string) {
	for _, id := range ids {
		_, _ = fx.store.Store.Upsert(context.Background(), &clerksync.User{ClerkID: id, ClerkUpdatedAt: t0, SyncedAt: t0})
	}
	fx.clock.Advance(time.Hour)
}

// operation is something that a Syncer does, and what it reports.
type operation struct {
	config  func(*fixture, *clerksync.Config)
	arrange func(*fixture)
	do      func(*fixture, context.Context)
	metrics []string
	spans   []string
}

var visits = map[string]operation{
	"a first visit": {
		do: func(fx *fixture, _ context.Context) { fx.visit() },
		metrics: []string{
			"operation.duration{operation.name=clerk} 2 in 0s",
			"operation.duration{operation.name=visit operation.outcome=created operation.source=clerk} 1 in 0s",
		},
		spans: []string{
			"clerk get keys{clerk.call=get keys operation.name=clerk} client",
			"clerksync visit > clerk get user{clerk.call=get user operation.name=clerk} client",
			"request > clerksync visit{operation.name=visit operation.outcome=created operation.source=clerk}",
		},
	},
	"a cached visit": {
		arrange: (*fixture).visit,
		do:      func(fx *fixture, _ context.Context) { fx.visit() },
		metrics: []string{
			"operation.duration{operation.name=visit operation.source=cache} 1 in 0s",
		},
	},
	"a visit that the Store answers": {
		arrange: func(fx *fixture) { fx.visit(); fx.syncer.Forget(ada) },
		do:      func(fx *fixture, _ context.Context) { fx.visit() },
		metrics: []string{
			"operation.duration{operation.name=visit operation.source=store} 1 in 0s",
		},
		spans: []string{
			"request > clerksync visit{operation.name=visit operation.source=store}",
		},
	},
	"a refresh": {
		arrange: func(fx *fixture) { fx.visit(); fx.clock.Advance(2 * time.Hour) },
		do:      func(fx *fixture, _ context.Context) { fx.visitAndEnd() },
		metrics: []string{
			"operation.duration{operation.name=clerk} 2 in 0s",
			"operation.duration{operation.name=refresh operation.outcome=unchanged} 1 in 0s",
			"operation.duration{operation.name=visit operation.source=store} 1 in 0s",
		},
		spans: []string{
			"clerk get keys{clerk.call=get keys operation.name=clerk} client",
			"clerksync refresh > clerk get user{clerk.call=get user operation.name=clerk} client",
			"clerksync refresh{operation.name=refresh operation.outcome=unchanged}, linked to request",
			"request > clerksync visit{operation.name=visit operation.source=store}",
		},
	},
	"Clerk is down": {
		arrange: func(fx *fixture) {
			fx.visit()
			fx.signUp("user_new")
			fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return &fakeclerk.Fault{Status: 404, Body: "<html>"} })
		},
		do: func(fx *fixture, _ context.Context) { fx.get("/me", fx.clerk.SessionToken("user_new")) },
		metrics: []string{
			"operation.duration{operation.name=clerk error.type=unavailable} 1 in 0s",
			"operation.duration{operation.name=visit error.type=unavailable} 1 in 0s",
		},
		spans: []string{
			"clerksync visit > clerk get user{clerk.call=get user operation.name=clerk error.type=unavailable} client error",
			"request > clerksync visit{operation.name=visit error.type=unavailable} error",
		},
	},
	"a visitor who has left": {
		do: func(fx *fixture, ctx context.Context) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			_, _ = fx.syncer.User(ctx, ada)
		},
		metrics: []string{
			"operation.duration{operation.name=visit error.type=canceled} 1 in 0s",
		},
		spans: []string{
			"clerksync visit{operation.name=visit error.type=canceled} error",
		},
	},
	"an error with a code of the app's": {
		arrange: func(fx *fixture) {
			fx.store.err = &clerksync.Problem{Status: 500, Code: "ada@example.com", Err: errHunter2}
		},
		do: func(fx *fixture, ctx context.Context) { _, _ = fx.syncer.User(ctx, ada) },
		metrics: []string{
			"operation.duration{operation.name=clerk} 1 in 0s",
			"operation.duration{operation.name=visit error.type=_OTHER} 1 in 0s",
		},
		spans: []string{
			"clerksync visit > clerk get user{clerk.call=get user operation.name=clerk} client",
			"clerksync visit{operation.name=visit error.type=_OTHER} error",
		},
	},
	"a banned user": {
		arrange: func(fx *fixture) { fx.visit(); _ = fx.clerk.BanUser(ada); fx.clock.Advance(0) },
		do:      func(fx *fixture, _ context.Context) { fx.visit() },
		metrics: []string{
			"operation.duration{operation.name=visit operation.source=store error.type=user_inactive} 1 in 0s",
		},
		spans: []string{
			"request > clerksync visit{operation.name=visit operation.source=store error.type=user_inactive} error",
		},
	},
	"no token": {
		do: func(fx *fixture, _ context.Context) { fx.get("/me", "null") },
		metrics: []string{
			"operation.duration{operation.name=visit error.type=token_missing} 1 in 0s",
		},
	},
	"a forged token": {
		arrange: (*fixture).visit,
		do:      func(fx *fixture, _ context.Context) { fx.get("/me", fx.clerk.SessionToken(ada)+"x") },
		metrics: []string{
			"operation.duration{operation.name=visit error.type=token_malformed} 1 in 0s",
		},
	},
	"a missing role": {
		arrange: (*fixture).visit,
		do:      func(fx *fixture, _ context.Context) { fx.get("/admin", fx.clerk.SessionToken(ada)) },
		metrics: []string{
			"operation.duration{operation.name=role error.type=role_required} 1 in 0s",
			"operation.duration{operation.name=visit operation.source=cache} 1 in 0s",
		},
	},
	"a sync": {
		do: func(fx *fixture, ctx context.Context) { _, _ = fx.syncer.Sync(ctx, ada) },
		metrics: []string{
			"operation.duration{operation.name=clerk} 1 in 0s",
			"operation.duration{operation.name=sync operation.outcome=created} 1 in 0s",
		},
		spans: []string{
			"clerksync sync > clerk get user{clerk.call=get user operation.name=clerk} client",
			"clerksync sync{operation.name=sync operation.outcome=created}",
		},
	},
	"a sync of nobody": {
		do: func(fx *fixture, ctx context.Context) { _, _ = fx.syncer.Sync(ctx, "user_nobody") },
		metrics: []string{
			"operation.duration{operation.name=clerk error.type=user_unknown} 1 in 0s",
			"operation.duration{operation.name=sync error.type=user_unknown} 1 in 0s",
		},
		spans: []string{
			"clerksync sync > clerk get user{clerk.call=get user operation.name=clerk error.type=user_unknown} client error",
			"clerksync sync{operation.name=sync error.type=user_unknown} error",
		},
	},
}

var deliveries = map[string]operation{
	"a late delivery": {
		arrange: func(fx *fixture) {
			fx.endpoint.SetPolicy(func(fakeclerk.Message) fakeclerk.Delivery { return fakeclerk.Delivery{Delay: 90 * time.Second} })
			_ = fx.clerk.UpdateUser(ada, func(u *fakeclerk.UserObject) { u.Username = &hunter2 })
		},
		do: func(fx *fixture, _ context.Context) { fx.clock.Advance(90 * time.Second) },
		metrics: []string{
			"operation.duration{operation.name=webhook operation.outcome=created} 1 in 0s",
			"webhook.delay{} 1 in 90s",
		},
		spans: []string{
			"request > clerksync webhook{event.id=msg_1 event.type=user.updated operation.name=webhook operation.outcome=created}",
		},
	},
	"a deletion": {
		arrange: func(fx *fixture) { fx.visit(); _ = fx.clerk.DeleteUser(ada) },
		do:      func(fx *fixture, _ context.Context) { fx.clock.Advance(0) },
		metrics: []string{
			"operation.duration{operation.name=webhook operation.outcome=deactivated} 1 in 0s",
			"webhook.delay{} 1 in 0s",
		},
		spans: []string{
			"request > clerksync webhook{event.id=msg_1 event.type=user.deleted operation.name=webhook operation.outcome=deactivated}",
		},
	},
	"a delivery before its event, by the clocks": {
		do: func(fx *fixture, ctx context.Context) {
			_, _ = fx.syncer.Apply(ctx, clerksync.Event{ID: "msg_1", Type: "email.created", Timestamp: t0.Add(time.Second)})
		},
		metrics: []string{
			"operation.duration{operation.name=webhook} 1 in 0s",
			"webhook.delay{} 1 in 0s",
		},
		spans: []string{
			"clerksync webhook{event.id=msg_1 event.type=email.created operation.name=webhook}",
		},
	},
	"a delivery that OnEvent refuses": {
		arrange: func(fx *fixture) { _ = fx.clerk.SignIn(ada) },
		do:      func(fx *fixture, _ context.Context) { fx.clock.Advance(0) },
		metrics: []string{
			"operation.duration{operation.name=webhook operation.outcome=created error.type=event_hook_failed} 1 in 0s",
			"operation.duration{operation.name=webhook operation.outcome=unchanged} 1 in 0s",
			"webhook.delay{error.type=event_hook_failed} 1 in 0s",
			"webhook.delay{} 1 in 0s",
		},
		spans: []string{
			"request > clerksync webhook{event.id=msg_1 event.type=session.created operation.name=webhook operation.outcome=created error.type=event_hook_failed} error",
			"request > clerksync webhook{event.id=msg_1 event.type=user.updated operation.name=webhook operation.outcome=unchanged}",
		},
	},
	"a forged delivery": {
		do: func(fx *fixture, ctx context.Context) {
			send(fakeclerk.SignedRequest(ctx, fx.url+"/webhooks", otherSecret, fakeclerk.Event{ID: "Augusta", Type: "user.created", Time: t0}))
		},
		metrics: []string{
			"operation.duration{operation.name=webhook error.type=invalid_signature} 1 in 0s",
		},
		spans: []string{
			"request > clerksync webhook{operation.name=webhook error.type=invalid_signature} error",
		},
	},
}

var jobs = map[string]operation{
	"a job": {
		config: func(fx *fixture, cfg *clerksync.Config) {
			cfg.OnCreate = func(ctx context.Context, u *clerksync.User, _ clerksync.Job) error {
				<-fx.visited
				fx.clock.Advance(2 * time.Second)
				_, err := fx.syncer.Sync(ctx, u.ClerkID)
				return err
			}
		},
		do: func(fx *fixture, _ context.Context) { fx.visitAndEnd() },
		metrics: []string{
			"operation.duration{operation.name=clerk} 3 in 0s",
			"operation.duration{operation.name=job operation.outcome=succeeded} 1 in 2s",
			"operation.duration{operation.name=sync operation.outcome=unchanged} 1 in 0s",
			"operation.duration{operation.name=visit operation.outcome=created operation.source=clerk} 1 in 0s",
		},
		spans: []string{
			"clerk get keys{clerk.call=get keys operation.name=clerk} client",
			"clerksync job > clerksync sync{operation.name=sync operation.outcome=unchanged}",
			"clerksync job{job.attempt=1 job.kind=create operation.name=job operation.outcome=succeeded}",
			"clerksync sync > clerk get user{clerk.call=get user operation.name=clerk} client",
			"clerksync visit > clerk get user{clerk.call=get user operation.name=clerk} client",
			"request > clerksync visit{operation.name=visit operation.outcome=created operation.source=clerk}",
		},
	},
	"a job that fails": {
		config: func(_ *fixture, cfg *clerksync.Config) {
			cfg.OnCreate = func(context.Context, *clerksync.User, clerksync.Job) error { return errHunter2 }
		},
		do: func(fx *fixture, _ context.Context) { fx.visitAndEnd(); fx.clock.Advance(time.Minute) },
		metrics: []string{
			"jobs.due{job.kind=create} 1",
			"operation.duration{operation.name=clerk} 2 in 0s",
			"operation.duration{operation.name=job operation.outcome=retried error.type=job_failed} 1 in 0s",
			"operation.duration{operation.name=visit operation.outcome=created operation.source=clerk} 1 in 0s",
		},
		spans: []string{
			"clerk get keys{clerk.call=get keys operation.name=clerk} client",
			"clerksync job{job.attempt=1 job.kind=create operation.name=job operation.outcome=retried error.type=job_failed} error",
			"clerksync visit > clerk get user{clerk.call=get user operation.name=clerk} client",
			"request > clerksync visit{operation.name=visit operation.outcome=created operation.source=clerk}",
		},
	},
	"a clean-up that gives up": {
		config: func(_ *fixture, cfg *clerksync.Config) {
			cfg.OnDelete = func(context.Context, *clerksync.User, clerksync.Job) error { return clerksync.Discard(errHunter2) }
		},
		arrange: func(fx *fixture) { fx.visit(); _ = fx.clerk.DeleteUser(ada) },
		do:      func(fx *fixture, _ context.Context) { fx.clock.Advance(0); _ = fx.syncer.Close() },
		metrics: []string{
			"operation.duration{operation.name=job operation.outcome=discarded error.type=job_failed} 1 in 0s",
			"operation.duration{operation.name=webhook operation.outcome=deactivated} 1 in 0s",
			"webhook.delay{} 1 in 0s",
		},
		spans: []string{
			"clerksync job{job.attempt=1 job.kind=delete operation.name=job operation.outcome=discarded error.type=job_failed} error",
			"request > clerksync webhook{event.id=msg_1 event.type=user.deleted operation.name=webhook operation.outcome=deactivated}",
		},
	},
}

var reconciles = map[string]operation{
	"a reconcile": {
		arrange: func(fx *fixture) { fx.visit(); fx.signUp("user_new"); fx.ghosts("user_ghost") },
		do:      func(fx *fixture, ctx context.Context) { _, _ = fx.syncer.Reconcile(ctx, clerksync.ReconcileOptions{}) },
		metrics: []string{
			"operation.duration{operation.name=clerk error.type=user_unknown} 1 in 0s",
			"operation.duration{operation.name=clerk} 5 in 0s",
			"operation.duration{operation.name=reconcile} 1 in 0.625s",
			"reconcile.users{reconcile.dry_run=false reconcile.result=created} 1",
			"reconcile.users{reconcile.dry_run=false reconcile.result=deactivated} 1",
			"reconcile.users{reconcile.dry_run=false reconcile.result=unchanged} 1",
		},
		spans: []string{
			"clerksync reconcile > clerk count users{clerk.call=count users operation.name=clerk} client",
			"clerksync reconcile > clerk count users{clerk.call=count users operation.name=clerk} client",
			"clerksync reconcile > clerk get user{clerk.call=get user operation.name=clerk error.type=user_unknown} client error",
			"clerksync reconcile > clerk list users{clerk.call=list users operation.name=clerk} client",
			"clerksync reconcile > clerk list users{clerk.call=list users operation.name=clerk} client",
			"clerksync reconcile > clerk list users{clerk.call=list users operation.name=clerk} client",
			"clerksync reconcile{operation.name=reconcile reconcile.dry_run=false}",
		},
	},
	"a dry run that finds too many ghosts": {
		arrange: func(fx *fixture) { fx.visit(); fx.ghosts("user_ghost1", "user_ghost2") },
		do: func(fx *fixture, ctx context.Context) {
			_, _ = fx.syncer.Reconcile(ctx, clerksync.ReconcileOptions{DryRun: true, MaxDeactivations: 1})
		},
		metrics: []string{
			"operation.duration{operation.name=clerk error.type=user_unknown} 2 in 0s",
			"operation.duration{operation.name=clerk} 5 in 0s",
			"operation.duration{operation.name=reconcile error.type=too_many_ghosts} 1 in 0.75s",
			"reconcile.users{reconcile.dry_run=true reconcile.result=ghost} 2",
			"reconcile.users{reconcile.dry_run=true reconcile.result=unchanged} 1",
		},
		spans: []string{
			"clerksync reconcile > clerk count users{clerk.call=count users operation.name=clerk} client",
			"clerksync reconcile > clerk count users{clerk.call=count users operation.name=clerk} client",
			"clerksync reconcile > clerk get user{clerk.call=get user operation.name=clerk error.type=user_unknown} client error",
			"clerksync reconcile > clerk get user{clerk.call=get user operation.name=clerk error.type=user_unknown} client error",
			"clerksync reconcile > clerk list users{clerk.call=list users operation.name=clerk} client",
			"clerksync reconcile > clerk list users{clerk.call=list users operation.name=clerk} client",
			"clerksync reconcile > clerk list users{clerk.call=list users operation.name=clerk} client",
			"clerksync reconcile{operation.name=reconcile reconcile.dry_run=true error.type=too_many_ghosts} error",
		},
	},
	"a reconcile that the mapping stops": {
		config: func(_ *fixture, cfg *clerksync.Config) {
			cfg.Map = func(*clerk.User, *clerksync.User) error { return errHunter2 }
		},
		do: func(fx *fixture, ctx context.Context) { _, _ = fx.syncer.Reconcile(ctx, clerksync.ReconcileOptions{}) },
		metrics: []string{
			"operation.duration{operation.name=clerk} 3 in 0s",
			"operation.duration{operation.name=reconcile error.type=users_not_written} 1 in 0.25s",
			"reconcile.users{reconcile.dry_run=false reconcile.result=failed} 1",
		},
		spans: []string{
			"clerksync reconcile > clerk count users{clerk.call=count users operation.name=clerk} client",
			"clerksync reconcile > clerk count users{clerk.call=count users operation.name=clerk} client",
			"clerksync reconcile > clerk list users{clerk.call=list users operation.name=clerk} client",
			"clerksync reconcile{operation.name=reconcile reconcile.dry_run=false error.type=users_not_written} error",
		},
	},
}

// instruments are all instruments, with their kinds, units, attributes and buckets.
var instruments = []string{
	"clerksync.jobs.due Gauge[int64] {job}: clerksync.job.kind",
	"clerksync.operation.duration Histogram[float64] s: clerksync.operation.name clerksync.operation.outcome " +
		"clerksync.operation.source error.type, [0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 30 60 300 1800]",
	"clerksync.reconcile.users Gauge[int64] {user}: clerksync.reconcile.dry_run clerksync.reconcile.result",
	"clerksync.webhook.delay Histogram[float64] s: error.type, [0.1 0.25 0.5 1 2.5 4 15 60 600 3600 10800 36000 72000 108000]",
}

// Each operation leaves the data points and the spans that the page of the package lists, and no
// others.
func TestOperations(t *testing.T) {
	t.Parallel()
	var all seen
	t.Run("operations", func(t *testing.T) {
		for _, group := range []map[string]operation{visits, deliveries, jobs, reconciles} {
			for name, op := range group {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					fx := newFixture(t, func(fx *fixture, cfg *clerksync.Config, _ *otelsync.Options) {
						if op.config != nil {
							op.config(fx, cfg)
						}
					})
					fx.signUp(ada)
					if op.arrange != nil {
						op.arrange(fx)
					}
					fx.collect(t)
					fx.spans()
					op.do(fx, t.Context())
					metrics, spans := fx.collect(t), fx.spans()
					if diff := cmp.Diff(op.metrics, texts(metrics)); diff != "" {
						t.Errorf("metrics (-want +got):\n%s", diff)
					}
					if diff := cmp.Diff(op.spans, spanTexts(spans)); diff != "" {
						t.Errorf("spans (-want +got):\n%s", diff)
					}
					all.add(metrics)
					checkPrivacy(t, metrics, spans)
				})
			}
		}
	})
	if diff := cmp.Diff(instruments, all.lines()); diff != "" {
		t.Errorf("instruments (-want +got):\n%s", diff)
	}
}

// The page of the package lists every instrument, attribute and span.
func TestPageIsComplete(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range instruments {
		for _, name := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" :,[]", r) }) {
			if strings.Contains(name, ".type") || strings.HasPrefix(name, "clerksync.") {
				checkListed(t, page, name)
			}
		}
	}
	for _, group := range []map[string]operation{visits, deliveries, jobs, reconciles} {
		for _, op := range group {
			for _, span := range op.spans {
				name, rest, _ := strings.Cut(span[strings.Index(span, "> ")+1:], "{")
				checkListed(t, page, strings.TrimSpace(name))
				attributes, _, _ := strings.Cut(rest, "}")
				for _, key := range regexp.MustCompile(`([a-z._]+)=`).FindAllStringSubmatch(attributes, -1) {
					checkListed(t, page, strings.Replace("clerksync."+key[1], "clerksync.error", "error", 1))
				}
			}
		}
	}
}

func checkListed(t *testing.T, page []byte, name string) {
	t.Helper()
	if !strings.Contains(string(page), "`"+name+"`") {
		t.Errorf("README.md does not list %s", name)
	}
}

// seen collects instruments and the keys of their attributes.
type seen struct {
	mu  sync.Mutex
	all map[string]*seenInstrument // by name, kind and unit
}

type seenInstrument struct {
	keys    map[string]bool
	buckets string
}

func (s *seen) add(metrics []metricdata.Metrics) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[string]*seenInstrument)
	}
	for _, m := range metrics {
		name := fmt.Sprintf("%s %s %s", m.Name, strings.TrimPrefix(fmt.Sprintf("%T", m.Data), "metricdata."), m.Unit)
		one := s.all[name]
		if one == nil {
			one = &seenInstrument{keys: make(map[string]bool)}
			s.all[name] = one
		}
		if h, ok := m.Data.(metricdata.Histogram[float64]); ok {
			one.buckets = fmt.Sprintf(", %v", h.DataPoints[0].Bounds)
		}
		for _, p := range pointsOf(m) {
			for _, a := range p.attributes.ToSlice() {
				one.keys[string(a.Key)] = true
			}
		}
	}
}

func (s *seen) lines() (lines []string) {
	for name, one := range s.all {
		lines = append(lines, name+": "+strings.Join(slices.Sorted(maps.Keys(one.keys)), " ")+one.buckets)
	}
	slices.Sort(lines)
	return lines
}

// checkPrivacy checks that nothing that is exported names a user, or quotes what only an error may.
func checkPrivacy(t *testing.T, metrics []metricdata.Metrics, spans []sdktrace.ReadOnlySpan) {
	t.Helper()
	exported := fmt.Sprintf("%+v", metrics)
	for _, s := range spans {
		exported += fmt.Sprintf("%+v", tracetest.SpanStubFromReadOnlySpan(s))
	}
	exported = strings.NewReplacer("user_inactive", "", "user_unknown", "").Replace(exported)
	for _, text := range append(slices.Clone(sensitive), "user_") {
		if strings.Contains(exported, text) {
			t.Errorf("%q is exported", text)
		}
	}
}

// With UserIDs, spans have the user's id, and metrics still do not.
func TestUserIDs(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(_ *fixture, _ *clerksync.Config, opts *otelsync.Options) { opts.UserIDs = true })
	fx.signUp(ada)
	fx.visit()
	_, _ = fx.syncer.Reconcile(t.Context(), clerksync.ReconcileOptions{})
	checkPrivacy(t, fx.collect(t), nil)
	for _, s := range fx.spans() {
		has := slices.Contains(s.Attributes(), attribute.String("user.id", ada))
		if want := s.Name() == "clerksync visit" || s.Name() == "clerk get user"; has != want {
			t.Errorf("%s has a user.id: %v, want %v", s.Name(), has, want)
		}
	}
}

// The app's own Observe and Start get what they got, and its span is the outer one. They may return
// nothing.
func TestTheAppsOwnFunctionsStay(t *testing.T) {
	t.Parallel()
	var observed, ended atomic.Int32
	fx := newFixture(t, func(fx *fixture, cfg *clerksync.Config, _ *otelsync.Options) {
		cfg.Observe = func(context.Context, clerksync.Observation) { observed.Add(1) }
		cfg.Start = func(ctx context.Context, op clerksync.Op, clerkID string) (context.Context, func(clerksync.Observation)) {
			if op == clerksync.OpClerk {
				return nil, nil
			}
			ctx, span := fx.traces.Tracer("app").Start(ctx, "app "+clerkID)
			return ctx, func(clerksync.Observation) { ended.Add(1); span.End() }
		}
	})
	fx.signUp(ada)
	_, _ = fx.syncer.User(t.Context(), ada)
	_, _ = fx.syncer.User(t.Context(), ada)
	if observed.Load() != 2 || ended.Load() != 1 {
		t.Errorf("the app's Observe was called %d times, and its function of Start %d times", observed.Load(), ended.Load())
	}
	want := []string{
		"app user_ada > clerksync visit{operation.name=visit operation.outcome=created operation.source=clerk}",
		"app user_ada{}",
		"clerksync visit > clerk get user{clerk.call=get user operation.name=clerk} client",
	}
	if diff := cmp.Diff(want, spanTexts(fx.spans())); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}

// owe makes users whose create job is due.
func (fx *fixture) owe(t *testing.T, n int) {
	t.Helper()
	for range n {
		u := &clerksync.User{ClerkID: fmt.Sprintf("user_owing%d", fx.store.Len()), ClerkUpdatedAt: t0, CreateDue: t0}
		if _, err := fx.store.Store.Upsert(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
}

func noJob(context.Context, *clerksync.User, clerksync.Job) error { return nil }

// Due jobs are counted at most once in JobsInterval, however often metrics are collected. A count
// that fails is reported, and leaves a gap.
func TestJobsDue(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(_ *fixture, cfg *clerksync.Config, _ *otelsync.Options) {
		cfg.OnCreate, cfg.OnDelete = noJob, noJob
	})
	fx.owe(t, 4)
	if _, _, err := fx.store.DeactivateOwing(t.Context(), "user_owing0", "", t0, t0); err != nil {
		t.Fatal(err)
	}
	step := func(name string, wait time.Duration, reads int32, wantErr string, want ...string) {
		t.Helper()
		fx.clock.Advance(wait)
		fx.store.dueRead.Store(0)
		metrics, err := fx.tryCollect(t.Context())
		if diff := cmp.Diff(want, texts(metrics)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if got := fx.store.dueRead.Load(); got != reads {
			t.Errorf("%s: %d reads of the Store, want %d", name, got, reads)
		}
		if (err != nil) != (wantErr != "") || err != nil && !strings.Contains(err.Error(), wantErr) {
			t.Errorf("%s: %v, want %q", name, err, wantErr)
		}
	}
	step("first", 0, 2, "", "jobs.due{job.kind=create} 4", "jobs.due{job.kind=delete} 1")
	fx.owe(t, 1)
	step("soon after", 59*time.Second, 0, "", "jobs.due{job.kind=create} 4", "jobs.due{job.kind=delete} 1")
	step("a minute after", time.Second, 2, "", "jobs.due{job.kind=create} 5", "jobs.due{job.kind=delete} 1")
	fx.store.err = errHunter2
	step("the Store is down", time.Minute, 2, "otelsync: due jobs cannot be counted")
	step("and is not asked again", time.Second, 0, "")
	fx.store.err = nil
	fx.owe(t, 1000)
	step("the Store is back", time.Minute, 2, "", "jobs.due{job.kind=create} 1000", "jobs.due{job.kind=delete} 1")
	fx.store.Store = nil
	step("the Store panics", time.Minute, 2, "otelsync: panic of type runtime.errorString in the Store's DueJobs")
}

// Without OnCreate and OnDelete, without a JobStore, or with a negative JobsInterval, the metric does not
// exist.
func TestNoJobsDue(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*fixture, *clerksync.Config, *otelsync.Options){
		"no functions": func(*fixture, *clerksync.Config, *otelsync.Options) {},
		"switched off": func(_ *fixture, cfg *clerksync.Config, opts *otelsync.Options) {
			cfg.OnCreate, opts.JobsInterval = noJob, -1
		},
		"a Store without jobs": func(fx *fixture, cfg *clerksync.Config, _ *otelsync.Options) {
			cfg.Store = struct{ clerksync.Store }{fx.store}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, change)
			fx.owe(t, 1)
			if metrics := fx.collect(t); len(metrics) != 0 || fx.store.dueRead.Load() != 0 {
				t.Errorf("%v, after %d reads", texts(metrics), fx.store.dueRead.Load())
			}
		})
	}
}

// brokenMeters makes no gauge.
type brokenMeters struct{ metricnoop.MeterProvider }

func (brokenMeters) Meter(string, ...metric.MeterOption) metric.Meter { return brokenMeter{} }

type brokenMeter struct{ metricnoop.Meter }

func (brokenMeter) Int64Gauge(string, ...metric.Int64GaugeOption) (metric.Int64Gauge, error) {
	return nil, errors.New("no gauges")
}

func TestFaults(t *testing.T) {
	t.Parallel()
	twice := func(cfg *clerksync.Config) { _ = otelsync.Instrument(cfg, otelsync.Options{}) }
	for name, tt := range map[string]struct {
		arrange func(*clerksync.Config)
		opts    otelsync.Options
		want    string
	}{
		"no provider of the call that makes it": {
			opts: otelsync.Options{MeterProvider: (*sdkmetric.MeterProvider)(nil), TracerProvider: (*sdktrace.TracerProvider)(nil)},
			want: "otelsync: Options.MeterProvider is a nil *metric.MeterProvider: was the error of the call that makes it checked?\n" +
				"otelsync: Options.TracerProvider is a nil *trace.TracerProvider: was the error of the call that makes it checked?",
		},
		"twice": {arrange: twice, want: "otelsync: the Config is instrumented already: call Instrument once"},
		"twice, and the app's own Start": {
			arrange: func(cfg *clerksync.Config) { twice(cfg); cfg.Start = nil },
			want:    "otelsync: the Config is instrumented already: call Instrument once",
		},
		"twice, and the app's own Observe": {
			arrange: func(cfg *clerksync.Config) { twice(cfg); cfg.Observe = nil },
			want:    "otelsync: the Config is instrumented already: call Instrument once",
		},
		"no instruments": {
			opts: otelsync.Options{MeterProvider: brokenMeters{}},
			want: "otelsync: the MeterProvider does not make the instruments: no gauges",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var cfg clerksync.Config
			if tt.arrange != nil {
				tt.arrange(&cfg)
			}
			observed := cfg.Observe != nil
			err := otelsync.Instrument(&cfg, tt.opts)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if (cfg.Observe != nil) != observed {
				t.Error("the Config is changed")
			}
		})
	}
	if err := otelsync.Instrument(nil, otelsync.Options{}); err == nil || !strings.Contains(err.Error(), "the Config is nil") {
		t.Errorf("got %v", err)
	}
}

// Without providers, the global ones get everything.
func TestGlobalProviders(t *testing.T) {
	fx := newFixture(t, func(fx *fixture, _ *clerksync.Config, opts *otelsync.Options) {
		otel.SetMeterProvider(fx.meters)
		otel.SetTracerProvider(fx.traces)
		*opts = otelsync.Options{}
	})
	fx.signUp(ada)
	_, _ = fx.syncer.Sync(t.Context(), ada)
	if metrics, spans := texts(fx.collect(t)), spanTexts(fx.spans()); len(metrics) != 2 || len(spans) != 2 {
		t.Errorf("%v, %v", metrics, spans)
	}
}

// Each code of clerksync's is an error.type.
func TestProblemCodes(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "../problem.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	tel, cfg := newTelemetry(), clerksync.Config{}
	if err := otelsync.Instrument(&cfg, tel.options()); err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Code") {
			return true
		}
		code := strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`)
		cfg.Observe(t.Context(), clerksync.Observation{Op: clerksync.OpRole, Err: &clerksync.Problem{Code: code}})
		if got, want := texts(tel.collect(t)), "operation.duration{operation.name=role error.type="+code+"} 1 in 0s"; got[0] != want {
			t.Errorf("%s: %s", code, got[0])
		}
		n++
		return true
	})
	if n < 30 {
		t.Errorf("only %d codes were found", n)
	}
}

// Everything is counted once, whatever goes on at the same time.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(_ *fixture, cfg *clerksync.Config, _ *otelsync.Options) { cfg.OnCreate = noJob })
	var all sync.WaitGroup
	const goroutines, rounds = 8, 25
	counted := make(chan uint64, goroutines+1)
	for i := range goroutines {
		all.Go(func() {
			for round := range rounds {
				id := fmt.Sprintf("user_%d", round)
				fx.clerk.CreateUser(fakeclerk.NewUser{ID: fmt.Sprintf("%s_%d", id, i)})
				_, _ = fx.syncer.User(t.Context(), fmt.Sprintf("%s_%d", id, i))
				_, _ = fx.syncer.User(t.Context(), id+"_0")
				_, _ = fx.syncer.Apply(t.Context(), clerksync.Event{Type: "user.deleted", Data: []byte(`{"id": "` + id + `_1"}`), Timestamp: t0})
			}
			counted <- countOf(fx.collect(t), "visit")
		})
	}
	all.Wait()
	_ = fx.syncer.Close()
	counted <- countOf(fx.collect(t), "visit")
	close(counted)
	n := uint64(0)
	for c := range counted {
		n += c
	}
	if n != 2*goroutines*rounds {
		t.Errorf("%d visits were counted, want %d", n, 2*goroutines*rounds)
	}
}

// countOf counts the operations of a name.
func countOf(metrics []metricdata.Metrics, name string) (n uint64) {
	for _, m := range metrics {
		h, ok := m.Data.(metricdata.Histogram[float64])
		if !ok {
			continue
		}
		for _, p := range h.DataPoints {
			if v, _ := p.Attributes.Value("clerksync.operation.name"); v.AsString() == name {
				n += p.Count
			}
		}
	}
	return n
}

// An app with metrics. It has the reader of an exporter, such as Prometheus's or OTLP's.
func ExampleInstrument() {
	server, err := fakeclerk.Start(fakeclerk.Config{}) // in place of Clerk
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))

	cfg := clerksync.Config{Store: memstore.New(), SecretKey: server.SecretKey(), APIURL: server.APIURL()}
	if err := otelsync.Instrument(&cfg, otelsync.Options{MeterProvider: provider}); err != nil {
		log.Fatal(err)
	}
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()

	id := server.CreateUser(fakeclerk.NewUser{})
	for range 3 {
		_, _ = syncer.User(context.Background(), id)
	}
	var collected metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &collected); err != nil {
		log.Fatal(err)
	}
	duration := collected.ScopeMetrics[0].Metrics[0]
	for _, point := range duration.Data.(metricdata.Histogram[float64]).DataPoints {
		source, _ := point.Attributes.Value("clerksync.operation.source")
		fmt.Println(duration.Name, source.AsString(), point.Count)
	}
	// Unordered output:
	// clerksync.operation.duration  1
	// clerksync.operation.duration clerk 1
	// clerksync.operation.duration cache 2
}

// cachedVisits returns requests of a signed-in user whose record is cached, through an app without
// Instrument and through one with it, and the middleware for each.
func cachedVisits(tb testing.TB, use func(*clerksync.Syncer, http.Handler) http.Handler) (r *http.Request, without, with http.Handler) {
	tb.Helper()
	clerkServer, err := fakeclerk.Start(fakeclerk.Config{RateLimit: -1})
	if err != nil {
		tb.Fatal(err)
	}
	clerkServer.CreateUser(fakeclerk.NewUser{ID: ada})
	claims := &clerk.SessionClaims{RegisteredClaims: clerk.RegisteredClaims{Subject: ada}}
	r = httptest.NewRequest(http.MethodGet, "/api/me", nil)
	r = r.WithContext(clerk.ContextWithSessionClaims(r.Context(), claims))
	r.Header.Set("Authorization", "Bearer "+clerkServer.SessionToken(ada))
	app := func(instrument bool) http.Handler {
		cfg := clerksync.Config{
			Store: memstore.New(), SecretKey: clerkServer.SecretKey(), APIURL: clerkServer.APIURL(), CacheTTL: time.Hour,
			Logger: slog.New(slog.DiscardHandler),
		}
		if instrument {
			if err := otelsync.Instrument(&cfg, newTelemetry().options()); err != nil {
				tb.Fatal(err)
			}
		}
		syncer, err := clerksync.New(cfg)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = syncer.Close() })
		h := use(syncer, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		h.ServeHTTP(httptest.NewRecorder(), r)
		return h
	}
	without, with = app(false), app(true)
	_ = clerkServer.Close() // from here on the cache answers
	return r, without, with
}

func requireUser(s *clerksync.Syncer, h http.Handler) http.Handler { return s.RequireUser(h) }
func middleware(s *clerksync.Syncer, h http.Handler) http.Handler  { return s.Middleware(h) }

// A cached visit allocates nothing more.
func TestCachedVisitAllocations(t *testing.T) {
	r, without, with := cachedVisits(t, middleware)
	least := testing.AllocsPerRun(1000, func() { without.ServeHTTP(nil, r) })
	if got := testing.AllocsPerRun(1000, func() { with.ServeHTTP(nil, r) }); got > least {
		t.Errorf("%v allocations, and %v without Instrument", got, least)
	}
}

// BenchmarkCachedVisit times cached visits with and without Instrument by turns, and reports the
// ratio: of RequireUser, which checks the session token, and of Middleware, which does not.
func BenchmarkCachedVisit(b *testing.B) {
	for name, use := range map[string]func(*clerksync.Syncer, http.Handler) http.Handler{"RequireUser": requireUser, "Middleware": middleware} {
		b.Run(name, func(b *testing.B) {
			r, without, with := cachedVisits(b, use)
			const turn = 10_000
			var plain, instrumented time.Duration
			n := 0
			for b.Loop() {
				start := time.Now()
				for range turn {
					without.ServeHTTP(nil, r)
				}
				half := time.Now()
				for range turn {
					with.ServeHTTP(nil, r)
				}
				plain += half.Sub(start)
				instrumented += time.Since(half)
				n += turn
			}
			b.ReportMetric(float64(instrumented)/float64(plain), "x-without")
			b.ReportMetric(float64(instrumented.Nanoseconds())/float64(n), "ns/with")
			b.ReportMetric(float64(plain.Nanoseconds())/float64(n), "ns/without")
			b.ReportMetric(0, "ns/op") // an op is 20,000 visits
		})
	}
}
