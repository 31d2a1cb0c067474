package sessiontoken

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
)

// Version is what a session token says about the user's version: Clerk's updated_at when
// the token was made. The zero Version says nothing.
type Version struct {
	At        time.Time
	InSeconds bool // At is rounded down: it cannot tell apart two changes in one second
}

const (
	// DefaultVersionClaim is the claim that carries the version unless the app names another.
	DefaultVersionClaim = "updated_at"
	// maxAhead is how far ahead of the clock a version may be.
	maxAhead = 24 * time.Hour
	// secondsSettle is how long after a version in seconds a record must be confirmed to
	// have every change of that second, which the version does not show.
	secondsSettle = 2 * time.Second
)

// ParseVersion reads a claim: a number, or its digits in a string, in seconds or
// milliseconds since 1970. Anything else says nothing.
func ParseVersion(claim json.RawMessage) Version {
	text := string(claim)
	if unquoted := ""; json.Unmarshal(claim, &unquoted) == nil {
		text = unquoted
	}
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil || n <= 0:
		return Version{}
	case n < clerkapi.SecondsBelow:
		return Version{time.Unix(n, 0).UTC(), true}
	default:
		return Version{time.UnixMilli(n).UTC(), false}
	}
}

// Usable returns v, or the zero Version if v is more than a day ahead of the clock.
func (v Version) Usable(now time.Time) Version {
	if v.At.After(now.Add(maxAhead)) {
		return Version{}
	}
	return v
}

// NewerThan reports whether a record of the version updatedAt is certainly out of date.
func (v Version) NewerThan(updatedAt time.Time) bool {
	if v.At.IsZero() {
		return false
	}
	if v.InSeconds {
		return v.At.Unix() > updatedAt.Unix()
	}
	return v.At.UnixMilli() > updatedAt.UnixMilli()
}

// Matches reports whether the token says that a record with version updatedAt, last
// confirmed at syncedAt, is up to date.
func (v Version) Matches(updatedAt, syncedAt time.Time) bool {
	if v.At.IsZero() {
		return false
	}
	if v.InSeconds {
		return v.At.Unix() == updatedAt.Unix() && !syncedAt.Before(v.At.Add(secondsSettle))
	}
	return v.At.UnixMilli() == updatedAt.UnixMilli()
}
