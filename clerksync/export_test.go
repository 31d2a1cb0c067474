package clerksync

import (
	"encoding/json"
	"time"
)

// Clock is the clock that tests put in place of the system's.
type Clock = clock

// SetClock gives cfg a clock with timers, where Now alone would leave the timers
// real.
func SetClock(cfg *Config, c Clock) { cfg.clock = c }

// MapUser is the path from Clerk's JSON to the record.
func MapUser(s *Syncer, raw json.RawMessage, asOf time.Time) (*User, error) {
	return s.userFromClerk(raw, asOf)
}

// The limits that tests refer to.
const (
	CallTimeout     = callTimeout
	DeliveryTimeout = deliveryTimeout
	RetryBudget     = retryBudget
	MaxRefreshers   = maxRefreshers
	MaxUserCalls    = maxUserCalls
	ExpiredKeysWait = expiredKeysWait

	BulkAttemptTimeout = bulkAttemptTimeout
	BulkPatience       = bulkPatience
)

// SameStripe reports whether an invalidation of one user ends the loads of the other.
func SameStripe(s *Syncer, a, b string) bool { return s.cache.generation(a) == s.cache.generation(b) }

// ListedUser is a user of a page that ParsePage cut up.
type ListedUser struct {
	ID               string
	Version, Created int64
	Raw              json.RawMessage
}

// ParsePage cuts a list of users into its users.
func ParsePage(page json.RawMessage) ([]ListedUser, error) {
	users, err := parsePage(page)
	var listed []ListedUser
	for _, u := range users {
		listed = append(listed, ListedUser{u.id, u.version, u.created, u.raw})
	}
	return listed, err
}

// NewIDSet returns the methods of a set of ids, and its size in bytes.
func NewIDSet(n int) (add, has func(string) bool, size func() int) {
	s := newIDSet(n)
	return s.add, s.has, func() int { return 8 * len(s.slots) }
}

// WaitBackground waits for the background work, as Close does, and goes on.
func WaitBackground(s *Syncer) { s.background.Wait() }

// ResumePoint is what a Report's Resume holds of the way.
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
	point := position{After: p.After, Created: p.Created, Passed: p.Passed}
	r := &reconciliation{Syncer: s, opts: opts, until: point, retry: p.Conflicts, carried: len(p.Conflicts)}
	return r.resume()
}
