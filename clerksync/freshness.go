package clerksync

import (
	"encoding/json"
	"strconv"
	"time"
)

// freshness is what a session token knows of the user's version: Clerk's
// updated_at when the token was made. The zero freshness knows nothing.
type freshness struct {
	at        time.Time
	inSeconds bool // rounded, so that it cannot tell two changes in a second apart
}

const (
	defaultFreshnessClaim = "updated_at"
	// maxFreshnessAhead is how far ahead of the clock the claim may be.
	maxFreshnessAhead = 24 * time.Hour
	// refreshAfterConfirmed takes the place of a shorter RefreshAfter while the
	// token itself says that the record is up to date.
	refreshAfterConfirmed = 24 * time.Hour
	// secondsSettle is how long after a claim in seconds the record must have been
	// confirmed to be of that very version.
	secondsSettle = 2 * time.Second
)

// parseFreshness reads the claim: a number or its digits in a string, in seconds
// or milliseconds. Anything else knows nothing.
func parseFreshness(claim json.RawMessage) freshness {
	text := string(claim)
	if unquoted := ""; json.Unmarshal(claim, &unquoted) == nil {
		text = unquoted
	}
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil || n <= 0:
		return freshness{}
	case n < secondsBelow:
		return freshness{time.Unix(n, 0).UTC(), true}
	default:
		return freshness{time.UnixMilli(n).UTC(), false}
	}
}

// usable returns f, or the zero freshness where f is nonsense at this time.
func (f freshness) usable(now time.Time) freshness {
	if f.at.After(now.Add(maxFreshnessAhead)) {
		return freshness{}
	}
	return f
}

// newerThan reports whether the record is certainly older than the token.
func (f freshness) newerThan(u *User) bool {
	if f.at.IsZero() {
		return false
	}
	if f.inSeconds {
		return f.at.Unix() > u.ClerkUpdatedAt.Unix()
	}
	return f.at.UnixMilli() > version(u)
}

// confirms reports whether the token says that the record is up to date.
func (f freshness) confirms(u *User) bool {
	if f.at.IsZero() {
		return false
	}
	if f.inSeconds {
		return f.at.Unix() == u.ClerkUpdatedAt.Unix() && !u.SyncedAt.Before(f.at.Add(secondsSettle))
	}
	return f.at.UnixMilli() == version(u)
}

// FreshnessClaims brings the claim "updated_at" through the SDK's own middleware to
// [Syncer.Middleware], which then knows from the token that a record is out of
// date: pass it to the SDK's CustomClaimsConstructor, alone or embedded in the
// app's own claims type. [Syncer.RequireUser] does not need it.
//
// The claim is set in the Clerk Dashboard under Sessions, Customize session token:
//
//	{"updated_at": "{{user.updated_at}}"}
type FreshnessClaims struct {
	// UpdatedAt is Clerk's value: seconds or milliseconds since 1970, as a number
	// or a string. Anything else is ignored.
	UpdatedAt json.RawMessage `json:"updated_at,omitempty"`
}

func (c *FreshnessClaims) freshness() freshness {
	if c == nil {
		return freshness{}
	}
	return parseFreshness(c.UpdatedAt)
}
