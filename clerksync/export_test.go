package clerksync

import (
	"encoding/json"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
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

// StandardUser is the mapping before RoleOf and Map.
func StandardUser(cu *clerk.User, now time.Time) *User { return standardUser(cu, now) }

// The limits that tests refer to.
const (
	CallTimeout     = callTimeout
	DeliveryTimeout = deliveryTimeout
	RetryBudget     = retryBudget
	MaxRefreshers   = maxRefreshers
	ExpiredKeysWait = expiredKeysWait
)

// WaitBackground waits for the background work, as Close does, and goes on.
func WaitBackground(s *Syncer) { s.background.Wait() }
