package clerksync

import (
	"context"
	"time"
)

// Observation is one thing that a [Syncer] did, for [Config].Observe: the raw
// material of an app's metrics. It holds no personal data but the user's id.
type Observation struct {
	// Op says what was done.
	Op Op
	// ClerkID is the user concerned, empty where there is none. It is checked
	// to be of a user id's form.
	ClerkID string
	// EventID and EventType are set for OpWebhook.
	EventID, EventType string
	// Source says what answered an OpVisit; zero where nothing did.
	Source Source
	// Outcome is what the Store did with what was offered to it; zero where nothing
	// was. Visits that waited for the same lookup all have its Outcome.
	Outcome Outcome
	// Duration is the time taken, by the Syncer's clock.
	Duration time.Duration
	// Err is nil where the operation succeeded, else a [*Problem] for errors.As,
	// whose Code is fit for a label.
	Err error
}

// Op is a kind of [Observation].
type Op string

// The operations observed.
const (
	OpVisit     Op = "visit"     // Syncer.User and the middlewares on it
	OpSync      Op = "sync"      // Syncer.Sync
	OpRefresh   Op = "refresh"   // a re-read from Clerk behind a visit
	OpWebhook   Op = "webhook"   // Syncer.Apply, through the webhook handler or not
	OpReconcile Op = "reconcile" // Syncer.Reconcile, a whole run
)

// Source is what answered a visit.
type Source string

// The sources of a visit's answer, from the fastest to the slowest.
const (
	SourceCache Source = "cache" // this process's cache, at any age
	SourceStore Source = "store"
	SourceClerk Source = "clerk"
)

// observe reports o, begun at start, if the app wants to know. It fills in Duration,
// and makes Err a Problem.
func (s *Syncer) observe(ctx context.Context, start time.Time, o Observation) {
	if s.cfg.Observe == nil {
		return
	}
	o.Duration = s.clock.Now().Sub(start)
	if o.Err != nil {
		o.Err = problemOf(o.Err)
	}
	s.cfg.Observe(ctx, o)
}
