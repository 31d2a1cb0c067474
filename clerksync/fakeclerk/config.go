package fakeclerk

import (
	"strings"
	"time"
)

// DefaultSecretKey is the secret key of a [Server] if Config.SecretKey is empty.
const DefaultSecretKey = "sk_test_fakeclerk"

// Clerk limits the Backend API to so many requests per instance in each window of 10 seconds:
// https://clerk.com/docs/guides/how-clerk-works/system-limits.
const (
	developmentRateLimit = 100
	productionRateLimit  = 1000
	rateWindow           = 10 * time.Second
)

// Config configures [Start]. The zero value is a development instance that runs in real time and has
// Clerk's own rate limit.
type Config struct {
	_ [0]func() // requires field names in literals

	// Clock is the source of all the server's times: timestamps, tokens, the rate limit and webhook
	// deliveries. With a Clock, webhooks are delivered only inside Clock.Advance, [Server.Deliver] and
	// [Server.Settle]. Without one, background goroutines deliver them. Defaults to the real time.
	Clock *Clock

	// SecretKey is the key that the Backend API accepts. A key that starts with sk_live_ makes this a
	// production instance, which has a higher rate limit and an issuer of the form
	// https://clerk.<domain>. Defaults to [DefaultSecretKey].
	SecretKey string

	// InstanceID is the id of the Clerk instance. It is the instance_id of the webhooks and the kid of
	// the tokens. Servers in one process that have the same InstanceID share a signing key, as if one
	// were a restart of the other. Tests of the official SDK's middleware need this, because it caches
	// keys by kid for the whole process. Defaults to a fresh "ins_" id.
	InstanceID string

	// RateLimit is the number of Backend API requests allowed in 10 seconds. Further requests get a
	// 429. Requests for the JWKS are not limited, as at Clerk. A negative value removes the limit.
	// Defaults to Clerk's limits: 100, or 1000 with an sk_live_ key.
	RateLimit int

	// Seed makes ids and webhook secrets the same in every run. Signing keys always differ. Defaults to
	// 0, which makes ids and secrets unpredictable.
	Seed uint64

	// Population is the number of users that exist from the start, for load tests. The server generates
	// each one on request, and it takes no memory until it is changed or deleted. With a Seed, users are
	// the same in every run, except their times. They signed up one second apart, the last one a second
	// before the start, and no webhooks were sent for them. Their ids ascend in the same order: see
	// [Server.PopulationID].
	//
	// With a Population, GET /users and GET /users/count answer 422 to filters other than user_id, and
	// GET /users to orders other than created_at. Defaults to 0, as does a negative value.
	Population int
}

// isProduction reports whether the secret key makes this a production instance.
func (cfg Config) isProduction() bool { return strings.HasPrefix(cfg.SecretKey, "sk_live_") }

// withDefaults fills in the fields that have a default. ids makes the InstanceID.
func (cfg Config) withDefaults(ids *idSource) Config {
	if cfg.SecretKey == "" {
		cfg.SecretKey = DefaultSecretKey
	}
	if cfg.InstanceID == "" {
		cfg.InstanceID = ids.id("ins_")
	}
	if cfg.RateLimit == 0 {
		cfg.RateLimit = developmentRateLimit
		if cfg.isProduction() {
			cfg.RateLimit = productionRateLimit
		}
	}
	return cfg
}
