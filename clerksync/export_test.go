package clerksync

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// SetClock gives cfg a clock with timers. With Now alone, the timers would stay real.
func SetClock(cfg *Config, c clock.Clock) { cfg.clock = c }

// SetVerifierClock has v read the time from now.
func SetVerifierClock(v *Verifier, now func() time.Time) { v.now = now }

// MapUser is the path from Clerk's JSON to the record.
func MapUser(s *Syncer, raw json.RawMessage, asOf time.Time) (*User, error) {
	return s.userFromClerk(raw, asOf)
}

// UserIDOf is Event.UserID of an event of this type and data.
func UserIDOf(typ string, data json.RawMessage) string { return userIDOf(typ, data) }

// Unavailable and Prefixed make errors as the package does.
func Unavailable(err error) error               { return unavailable(err) }
func Prefixed(format string, args ...any) error { return prefixed(format, args...) }

// The limits that tests refer to.
const (
	CallTimeout     = callTimeout
	DeliveryTimeout = deliveryTimeout
	MaxRefreshers   = maxRefreshers
	MaxJobs         = maxJobs
	MaxTaken        = maxTaken
	MaxDueRead      = maxDueRead
	CloseTimeout    = closeTimeout
	AwaitTimeout    = awaitTimeout
	LeaseGrace      = leaseGrace
	MaxRetry        = maxRetry
	StoreTimeout    = storeTimeout
)

// ProblemCodes are the codes that have a text for clients, sorted.
func ProblemCodes() []string { return slices.Sorted(maps.Keys(problemDetails)) }

// SameStripe reports whether an invalidation of one user ends the loads of the other.
func SameStripe(s *Syncer, a, b string) bool { return s.cache.generation(a) == s.cache.generation(b) }

// Refresh re-reads a user, as the background does behind a visit.
func Refresh(s *Syncer, id string) { s.refresh(context.Background(), nil, id) }

// Waiting is how many visits wait for a user's lookups.
func Waiting(s *Syncer, id string) int {
	s.audiences.mu.Lock()
	defer s.audiences.mu.Unlock()
	if those := s.audiences.of[id]; those != nil {
		return those.waiting
	}
	return 0
}

// Evict drops a user from the cache, as the cache itself may at any time.
func Evict(s *Syncer, id string) { s.cache.records.Invalidate(id) }

// CachedRecords counts the records in the cache, those on standby too.
func CachedRecords(s *Syncer) int {
	s.cache.records.CleanUp()
	return s.cache.records.EstimatedSize()
}

// SetMaxUnlisted bounds how many records that Clerk's list does not have a run remembers.
func SetMaxUnlisted(opts *ReconcileOptions, n int) { opts.maxUnlisted = n }

// WaitBackground waits for the background work, as Close does, and goes on.
func WaitBackground(s *Syncer) {
	s.jobs.running.Wait() // it makes calls in the background
	s.background.running.Wait()
	s.jobs.running.Wait()
}

// LostAttempt leaves a trace of an attempt in the background that has ended without a claim and has
// not been tidied up yet.
func LostAttempt(s *Syncer, id string, kind JobKind) {
	ended := make(chan struct{})
	close(ended)
	s.jobs.mu.Lock()
	defer s.jobs.mu.Unlock()
	s.jobs.flights[jobRef{id, kind}] = ended
}

// CloseJobs is the part of Close that is about jobs. The time that it waits has begun when it
// returns.
func CloseJobs(s *Syncer) (wait func()) { return s.jobs.close() }

// ResumePoint is what a Report's Resume holds about how far the run came.
type ResumePoint struct {
	After     string
	Created   int64
	Passed    int
	Conflicts []string
}

// ParseResume reads opts.Resume.
func ParseResume(s *Syncer, opts ReconcileOptions) (ResumePoint, error) {
	p, err := s.parseResume(&opts)
	return ResumePoint{p.After, p.Created, p.Passed, p.Conflicts}, err
}

// FormatResume is the Resume of a run with opts that has come to p.
func FormatResume(s *Syncer, p ResumePoint, opts ReconcileOptions) string {
	point := clerkapi.Position{After: p.After, Created: p.Created, Passed: p.Passed}
	r := &reconcileRun{syncer: s, opts: opts, until: point, conflicts: p.Conflicts, resumeConflicts: len(p.Conflicts)}
	return r.resume()
}
