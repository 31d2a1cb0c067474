package clerksync

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// Observation is one thing that a [Syncer] did, for [Config].Observe: the raw material of
// an app's metrics. The ids of users are the only personal data in it, unless the text of Err
// quotes the app's own error.
type Observation struct {
	// Op says what was done.
	Op Op
	// ClerkID is the user concerned, empty for none. It always has the form of a user id.
	ClerkID string
	// EventID and EventType are set for OpWebhook, as far as they are known, and cut off
	// after 100 bytes. If Err's code is "invalid_signature", EventID is what the sender
	// claimed.
	EventID, EventType string
	// EventTime is when the event of an OpWebhook happened, as Clerk says. It is zero if the
	// delivery is not verified, or if the event does not say.
	EventTime time.Time
	// Call says what an OpClerk asked for: "get user", "list users", "count users" or
	// "get keys".
	Call string
	// Source says what answered an OpVisit; empty if nothing did.
	Source Source
	// Outcome is what the Store did; zero if nothing was written to it. Visits that waited
	// for the same lookup all have its Outcome.
	Outcome Outcome
	// Job says more of an OpJob; it is zero for other operations.
	Job JobObservation
	// Report is what an OpReconcile found, also beside an Err; nil for other operations. It is
	// shared: do not modify it.
	Report *Report
	// Duration is the time taken, by the Syncer's clock.
	Duration time.Duration
	// Err is nil if the operation succeeded, else a [*Problem] for errors.As, whose Code
	// is fit for a label.
	Err error
}

// JobObservation is what an [Observation] says of an attempt of a job.
type JobObservation struct {
	// Kind is which of the user's jobs it is.
	Kind JobKind
	// Attempt is the number of the attempt, from 1. If the job ended without one, it is the number of
	// the last attempt, or 0 if there was none.
	Attempt int
	// Outcome is what became of it. If it is [JobSucceeded] or [JobDropped], the
	// Observation has no Err.
	Outcome JobOutcome
}

// Op is a kind of [Observation].
type Op string

// The operations. Observe is told of all but OpClerk, Start of those marked with *.
const (
	OpVisit     Op = "visit"     // * a visit, or a request that is refused before it
	OpSync      Op = "sync"      // * Syncer.Sync
	OpRefresh   Op = "refresh"   // * a re-read from Clerk in the background
	OpWebhook   Op = "webhook"   // * a delivery, refused or not, OnEvent included; a Syncer.Apply of the app's
	OpReconcile Op = "reconcile" // * Syncer.Reconcile, a whole run
	OpClerk     Op = "clerk"     // * a call of Clerk's API, retries included; of a Reconcile's, each attempt
	OpRole      Op = "role"      // a request that RequireRole or CheckRole refused, after its visit
	OpJob       Op = "job"       // * an attempt of OnCreate or OnDelete; the end of a job without one
)

// Source is what answered a visit.
type Source string

// The sources of a visit's answer, from the fastest to the slowest.
const (
	SourceCache Source = "cache" // this process's cache, at any age
	SourceStore Source = "store"
	SourceClerk Source = "clerk"
)

// observe passes o, of an operation that began at start, to the app, if it wants to know.
func (s *Syncer) observe(ctx context.Context, start time.Time, o Observation) {
	if s.cfg.Observe == nil {
		return
	}
	defer s.logPanic(ctx, "Config.Observe")
	s.cfg.Observe(ctx, s.completed(start, o))
}

// completed fills in o's Duration, and makes its Err a Problem.
func (s *Syncer) completed(start time.Time, o Observation) Observation {
	o.Duration = s.clock.Now().Sub(start)
	o.EventID, o.EventType = clipped(o.EventID), clipped(o.EventType)
	if o.Err != nil {
		o.Err = problemOf(o.Err)
	}
	return o
}

// logPanic, deferred, ends a panic in a function of the app's that only watches. It must
// neither refuse a request nor end the process.
func (s *Syncer) logPanic(ctx context.Context, function string) {
	if p := recover(); p != nil {
		s.logLimited(ctx, slog.LevelError, "panic "+function, "clerksync: panic in a function of the app's",
			slog.String("function", function), slog.String("panic", clipped(fmt.Sprint(p))))
	}
}
