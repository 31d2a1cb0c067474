// Package otelsync reports to OpenTelemetry what a [clerksync.Syncer] does: metrics and spans, from
// the app's own providers.
//
//	cfg := clerksync.Config{Store: store, SecretKey: os.Getenv("CLERK_SECRET_KEY")}
//	if err := otelsync.Instrument(&cfg, otelsync.Options{}); err != nil {
//		log.Fatal(err)
//	}
//	syncer, err := clerksync.New(cfg)
//
// The metrics are clerksync.operation.duration, clerksync.webhook.delay, clerksync.jobs.due and
// clerksync.reconcile.users. There are spans for visits that the cache does not answer, syncs,
// refreshes, webhooks, jobs, reconciles and calls of Clerk's API. The [page of the package] lists
// them with their attributes and what they cost.
//
// No attribute has an e-mail address, a name, a token or the text of an error. The ids of users are
// only on spans, and only if [Options].UserIDs is set.
//
// It is a module of its own, so that an app without OpenTelemetry does not get OpenTelemetry's.
//
// [page of the package]: https://github.com/clerksync/clerksync-go/blob/main/clerksync/otelsync/README.md
package otelsync

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/clerksync/clerksync-go/clerksync"
)

// scope is the name of the meter and of the tracer.
const scope = "github.com/clerksync/clerksync-go/clerksync/otelsync"

// Options are the choices for [Instrument]. The zero value is good for most apps.
type Options struct {
	_ [0]func() // forbids unkeyed literals

	// MeterProvider is what the metrics go to. Shut it down before the Store's database is
	// disconnected, because clerksync.jobs.due reads it. The metrics of two Syncers with one provider
	// cannot be told apart. Defaults to OpenTelemetry's global one, also if that is set later.
	MeterProvider metric.MeterProvider

	// TracerProvider is what the spans go to. Defaults to OpenTelemetry's global one, also if that
	// is set later.
	TracerProvider trace.TracerProvider

	// UserIDs puts the user's Clerk id on spans, as user.id. No metric has it. Defaults to false.
	UserIDs bool

	// JobsInterval is how old clerksync.jobs.due may be before a collection of metrics counts the
	// due jobs anew: one read of the Store for OnCreate and one for OnDelete, each of at most a
	// thousand jobs and five seconds. Without collections, or without OnCreate and OnDelete,
	// nothing is read. All processes of an app report the same number, so those that need not can
	// set a negative JobsInterval: then this process does not have the metric. Defaults to one
	// minute.
	JobsInterval time.Duration
}

// Instrument makes a [clerksync.Syncer] report to OpenTelemetry. Call it with the finished
// Config, right before [clerksync.New]: it adds to the Config's Observe and Start, which still
// get what they got, and reads its Store, OnCreate, OnDelete and Now.
//
// It does no I/O and starts no goroutine. What it adds is safe for concurrent use.
//
// If there is an error, it names every fault, and the Config is unchanged. It is an error to
// instrument a Config twice, since everything would be counted twice.
func Instrument(cfg *clerksync.Config, opts Options) error {
	if err := validate(cfg, opts); err != nil {
		return err
	}
	if opts.MeterProvider == nil {
		opts.MeterProvider = otel.GetMeterProvider()
	}
	if opts.TracerProvider == nil {
		opts.TracerProvider = otel.GetTracerProvider()
	}
	in := &instrumentation{
		tracer:  opts.TracerProvider.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL)),
		userIDs: opts.UserIDs,
		now:     cfg.Now, appObserve: cfg.Observe, appStart: cfg.Start,
	}
	if in.now == nil {
		in.now = time.Now
	}
	meter := opts.MeterProvider.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL))
	err := in.createInstruments(meter)
	if err == nil {
		err = createJobsGauge(meter, cfg, opts.JobsInterval, in.now)
	}
	if err != nil {
		return fmt.Errorf("otelsync: the MeterProvider does not make the instruments: %w", err)
	}
	cfg.Observe, cfg.Start = in.observe, in.start
	return nil
}

// validate returns every fault of Instrument's arguments, joined.
func validate(cfg *clerksync.Config, opts Options) error {
	if cfg == nil {
		return errors.New("otelsync: the Config is nil: pass the one that clerksync.New gets")
	}
	var faults []error
	checkProvider := func(name string, provider any) {
		if v := reflect.ValueOf(provider); v.Kind() == reflect.Pointer && v.IsNil() {
			faults = append(faults, fmt.Errorf("otelsync: Options.%s is a nil %T: was the error of the call that makes it checked?", name, provider))
		}
	}
	checkProvider("MeterProvider", opts.MeterProvider)
	checkProvider("TracerProvider", opts.TracerProvider)
	if isInstrumented(cfg) {
		faults = append(faults, errors.New("otelsync: the Config is instrumented already: call Instrument once"))
	}
	return errors.Join(faults...)
}

// isInstrumented reports whether Observe or Start is Instrument's. Functions cannot be compared, but
// the values of one method share their code.
func isInstrumented(cfg *clerksync.Config) bool {
	code := func(f any) uintptr { return reflect.ValueOf(f).Pointer() }
	var in *instrumentation
	return code(cfg.Observe) == code(in.observe) || code(cfg.Start) == code(in.start)
}

// instrumentation is what Instrument adds to one Config.
type instrumentation struct {
	duration metric.Float64Histogram
	delay    metric.Float64Histogram
	users    metric.Int64Gauge
	tracer   trace.Tracer
	userIDs  bool
	now      func() time.Time
	cached   []metric.RecordOption // of a visit that the cache answers

	// The app's own; nil for none.
	appObserve func(context.Context, clerksync.Observation)
	appStart   func(context.Context, clerksync.Op, string) (context.Context, func(clerksync.Observation))
}

// The attributes that are not OpenTelemetry's own.
const (
	operationName    = attribute.Key("clerksync.operation.name")
	operationSource  = attribute.Key("clerksync.operation.source")
	operationOutcome = attribute.Key("clerksync.operation.outcome")
	clerkCall        = attribute.Key("clerksync.clerk.call")
	eventID          = attribute.Key("clerksync.event.id")
	eventType        = attribute.Key("clerksync.event.type")
	jobKind          = attribute.Key("clerksync.job.kind")
	jobAttempt       = attribute.Key("clerksync.job.attempt")
	reconcileResult  = attribute.Key("clerksync.reconcile.result")
	reconcileDryRun  = attribute.Key("clerksync.reconcile.dry_run")
)

var (
	// durations are from a read of the Store to a long reconcile. A cached visit is below all.
	durations = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800}
	// delays tell apart Svix's attempts, which are 0 s, 5 s, 5 min, 35 min, 2.6 h, 7.6 h, 17.6 h and
	// 27.6 h after the event. https://docs.svix.com/retries
	delays = []float64{0.1, 0.25, 0.5, 1, 2.5, 4, 15, 60, 600, 3600, 10_800, 36_000, 72_000, 108_000}
)

func (in *instrumentation) createInstruments(meter metric.Meter) error {
	var errs [3]error
	in.duration, errs[0] = meter.Float64Histogram("clerksync.operation.duration",
		metric.WithUnit("s"), metric.WithDescription("Duration of the operations of clerksync."),
		metric.WithExplicitBucketBoundaries(durations...))
	in.delay, errs[1] = meter.Float64Histogram("clerksync.webhook.delay",
		metric.WithUnit("s"), metric.WithDescription("Time from an event in Clerk to the end of its delivery."),
		metric.WithExplicitBucketBoundaries(delays...))
	in.users, errs[2] = meter.Int64Gauge("clerksync.reconcile.users",
		metric.WithUnit("{user}"), metric.WithDescription("What the last reconcile found about users and records."))
	cached := attributes(clerksync.Observation{Op: clerksync.OpVisit, Source: clerksync.SourceCache})
	in.cached = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(cached...))}
	return errors.Join(errs[:]...)
}

// observe is the Config's Observe.
func (in *instrumentation) observe(ctx context.Context, o clerksync.Observation) {
	in.measure(ctx, o)
	if in.appObserve != nil {
		in.appObserve(ctx, o)
	}
}

func (in *instrumentation) measure(ctx context.Context, o clerksync.Observation) {
	if o.Op == clerksync.OpVisit && o.Source == clerksync.SourceCache && o.Err == nil { // the hot path: nothing is allocated
		in.duration.Record(ctx, o.Duration.Seconds(), in.cached...)
		return
	}
	in.duration.Record(ctx, o.Duration.Seconds(), metric.WithAttributes(attributes(o)...))
	if !o.EventTime.IsZero() {
		delay := max(0, in.now().Sub(o.EventTime)) // Clerk's clock may be ahead
		in.delay.Record(ctx, delay.Seconds(), metric.WithAttributes(errorAttributes(o)...))
	}
	if r := o.Report; r != nil {
		for _, result := range results(r) {
			in.users.Record(ctx, int64(result.users), metric.WithAttributes(
				reconcileResult.String(result.name), reconcileDryRun.Bool(r.DryRun)))
		}
	}
}

// start is the Config's Start. The app's own comes first, so that a span of its own is the outer one.
func (in *instrumentation) start(ctx context.Context, op clerksync.Op, clerkID string) (context.Context, func(clerksync.Observation)) {
	appEnd := func(clerksync.Observation) {}
	if in.appStart != nil {
		started, end := in.appStart(ctx, op, clerkID)
		if started != nil {
			ctx = started
		}
		if end != nil {
			appEnd = end
		}
	}
	ctx, span := in.tracer.Start(ctx, "clerksync "+string(op), spanOptions(ctx, op)...)
	return ctx, func(o clerksync.Observation) {
		in.end(ctx, span, o)
		appEnd(o)
	}
}

// spanOptions returns how the span of an operation begins.
func spanOptions(ctx context.Context, op clerksync.Op) []trace.SpanStartOption {
	switch op {
	case clerksync.OpClerk:
		return []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient)}
	case clerksync.OpRefresh: // it outlives the request that caused it
		return []trace.SpanStartOption{trace.WithNewRoot(), trace.WithLinks(trace.LinkFromContext(ctx))}
	}
	return nil
}

// end ends a span, and measures what Observe is not told of.
func (in *instrumentation) end(ctx context.Context, span trace.Span, o clerksync.Observation) {
	if o.Op == clerksync.OpClerk {
		in.measure(ctx, o)
	}
	if span.IsRecording() {
		if o.Call != "" {
			span.SetName("clerk " + o.Call)
		}
		span.SetAttributes(attributes(o)...)
		span.SetAttributes(details(o)...)
		if in.userIDs && o.ClerkID != "" {
			span.SetAttributes(semconv.UserID(o.ClerkID))
		}
		if o.Err != nil {
			span.SetStatus(codes.Error, "") // the error's text may quote what is personal
		}
	}
	span.End()
}

// attributes are what a measurement and a span of an operation have in common. Each has few values.
func attributes(o clerksync.Observation) []attribute.KeyValue {
	all := []attribute.KeyValue{operationName.String(string(o.Op))}
	if o.Source != "" {
		all = append(all, operationSource.String(string(o.Source)))
	}
	switch {
	case o.Job.Outcome != "":
		all = append(all, operationOutcome.String(string(o.Job.Outcome)))
	case o.Outcome != 0:
		all = append(all, operationOutcome.String(o.Outcome.String()))
	}
	return append(all, errorAttributes(o)...)
}

// details are what only a span has.
func details(o clerksync.Observation) (all []attribute.KeyValue) {
	if o.Call != "" {
		all = append(all, clerkCall.String(o.Call))
	}
	if o.EventType != "" { // it is verified: before that, the id is anybody's
		all = append(all, eventType.String(o.EventType), eventID.String(o.EventID))
	}
	if o.Job.Kind != "" {
		all = append(all, jobKind.String(string(o.Job.Kind)), jobAttempt.Int(o.Job.Attempt))
	}
	if o.Report != nil {
		all = append(all, reconcileDryRun.Bool(o.Report.DryRun))
	}
	return all
}

// errorAttributes are error.type, if there is an error.
func errorAttributes(o clerksync.Observation) []attribute.KeyValue {
	if o.Err == nil {
		return nil
	}
	return []attribute.KeyValue{semconv.ErrorTypeKey.String(errorType(o))}
}

// errorType returns the value of error.type. Most errors are Problems, and have a code; a few others
// have a name here. The codes of the app's own Problems could be anything, so they count as _OTHER.
func errorType(o clerksync.Observation) string {
	switch {
	case errors.Is(o.Err, context.Canceled):
		return "canceled"
	case errors.Is(o.Err, clerksync.ErrTooManyGhosts):
		return "too_many_ghosts"
	case errors.Is(o.Err, clerksync.ErrIncomplete):
		return "incomplete"
	case o.Report != nil && o.Report.Complete: // all that a complete run can fail with
		return "users_not_written"
	}
	var p *clerksync.Problem
	if errors.As(o.Err, &p) && slices.Contains(problemCodes, p.Code) {
		return p.Code
	}
	return semconv.ErrorTypeOther.Value.AsString()
}

// problemCodes are all codes of clerksync's.
var problemCodes = []string{
	clerksync.CodeUnauthenticated, clerksync.CodeTokenMissing, clerksync.CodeTokenMalformed, clerksync.CodeTokenExpired,
	clerksync.CodeTokenNotYetValid, clerksync.CodeTokenWrongClass, clerksync.CodeTokenWrongParty,
	clerksync.CodeTokenWrongIssuer, clerksync.CodeTokenBadSignature, clerksync.CodeTokenUnknownKey,
	clerksync.CodeSessionPending, clerksync.CodeCrossOrigin, clerksync.CodeUserInactive, clerksync.CodeUserUnknown,
	clerksync.CodeRoleRequired, clerksync.CodeJobPending, clerksync.CodeConflict, clerksync.CodeRejected,
	clerksync.CodeInternal, clerksync.CodeMappingFailed, clerksync.CodeRecordFailed, clerksync.CodeUnavailable,
	clerksync.CodeInvalidSignature, clerksync.CodeUnreadableBody, clerksync.CodeWrongInstance,
	clerksync.CodeMethodNotAllowed, clerksync.CodeBodyTooLarge, clerksync.CodeInvalidEvent,
	clerksync.CodeEventHookFailed, clerksync.CodeJobFailed,
}

// result is a number of users, or of records, that a Reconcile came to the same result about.
type result struct {
	name  string
	users int
}

// results are the counts of a Report, so that their sum makes sense: a ghost that was marked deleted
// is one of deactivated only, and a tombstone that was restored one of restored.
func results(r *clerksync.Report) []result {
	return []result{
		{"unchanged", r.Unchanged},
		{"created", r.Created.Count},
		{"adopted", r.Adopted.Count},
		{"updated", r.Updated.Count},
		{"stale", r.Stale.Count},
		{"deactivated", r.Deactivated.Count},
		{"ghost", max(0, r.Ghosts.Count-r.Deactivated.Count)},
		{"restored", r.Restored.Count},
		{"tombstoned", max(0, r.Tombstoned.Count-r.Restored.Count)},
		{"conflict", r.Conflicts.Count},
		{"unlinked", r.Unlinked.Count},
		{"failed", r.Failed.Count},
		{"unknown", r.Unknown.Count},
		{"held_back", r.HeldBack},
	}
}
