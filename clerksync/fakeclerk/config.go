package fakeclerk

import (
	"time"
)

// DefaultSecretKey is the secret key of a [Server] whose Config names none.
const DefaultSecretKey = "sk_test_fakeclerk"

// Requests to the Backend API that Clerk answers per instance and 10 seconds:
// https://clerk.com/docs/guides/how-clerk-works/system-limits.
const (
	developmentRateLimit = 100
	productionRateLimit  = 1000
	rateWindow           = 10 * time.Second
)

// Config configures [Start]. The zero value is a development instance in real time with
// Clerk's own rate limit.
type Config struct {
	_ [0]func() // fields are to be named

	// Clock is the time of everything the server does: timestamps, tokens, the rate
	// limit, webhook deliveries. With a Clock, webhooks are delivered only in
	// Clock.Advance, [Server.Deliver] and [Server.Settle]; without one, by goroutines
	// in the background. Defaults to the real time.
	Clock *Clock

	// SecretKey is the key that the Backend API accepts. One that starts with sk_live_
	// makes the instance a production one: the higher rate limit, and an issuer of the
	// form https://clerk.<domain>. Defaults to [DefaultSecretKey].
	SecretKey string

	// InstanceID is the id of the Clerk instance: instance_id of its webhooks and kid
	// of its tokens. All servers of one process that share an InstanceID share the
	// signing key too, as if one were the other restarted; the official SDK's
	// middleware, which remembers keys by kid for the whole process, relies on it.
	// Defaults to a fresh "ins_" id.
	InstanceID string

	// RateLimit is how many Backend API requests are answered in 10 seconds before the
	// answer is 429; negative lifts the limit. The JWKS is never limited. Defaults to
	// Clerk's: 100, or 1000 with an sk_live_ key.
	RateLimit int

	// Seed makes the ids and webhook secrets of the server, though not its signing
	// keys, the same in every run. Defaults to 0: unpredictable ones.
	Seed uint64

	// Population is how many users exist from the start besides those that are created,
	// for load tests: each is made up when it is asked for, always the same for a Seed
	// but for its times, and takes no memory until it is changed or deleted. One signed
	// up each second, the last a second before the start, without a webhook; the ids
	// ascend. [Server.PopulationID] tells them. GET /users and GET /users/count then
	// answer 422 to filters other than user_id, and to orders other than created_at.
	// Defaults to 0, and so does a negative one.
	Population int
}
