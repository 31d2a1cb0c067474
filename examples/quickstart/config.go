package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// config comes from the environment. env.example explains the variables.
type config struct {
	secretKey, webhookSecret, mongoURI string // required
	apiURL, database, jobsURL          string
	cacheTTL, refreshAfter             time.Duration // 0 means clerksync's default
}

var errConfig = errors.New("config")

// readConfig returns the zero config if no required variable is set. Its errors never contain values.
func readConfig(getenv func(name string) string) (config, error) {
	c := config{
		secretKey:     getenv("CLERK_SECRET_KEY"),
		webhookSecret: cmp.Or(getenv("CLERK_WEBHOOK_SIGNING_SECRET"), getenv("CLERK_WEBHOOK_SECRET")), // the older name
		mongoURI:      getenv("MONGODB_URI"),
	}
	if c == (config{}) {
		return c, nil
	}
	missing := ""
	require := func(value, help string) {
		if value == "" {
			missing += "\n  " + help
		}
	}
	require(c.secretKey, "CLERK_SECRET_KEY: sk_test_… or sk_live_…, in the Clerk Dashboard under Configure > API keys")
	require(c.webhookSecret, "CLERK_WEBHOOK_SIGNING_SECRET: whsec_…, in the Clerk Dashboard under Configure > Webhooks")
	require(c.mongoURI, "MONGODB_URI: mongodb://… or mongodb+srv://…, in Atlas under Connect > Drivers")
	if missing != "" {
		return config{}, fmt.Errorf("%w: these variables are missing, see env.example:%s", errConfig, missing)
	}
	c.database = cmp.Or(getenv("MONGODB_DATABASE"), databaseIn(c.mongoURI), "clerksync_quickstart")
	c.jobsURL = getenv("JOBS_URL")
	if api := getenv("CLERK_API_URL"); api != "" {
		c.apiURL = strings.TrimSuffix(strings.TrimRight(api, "/"), "/v1") + "/v1"
	}
	return c, nil
}

// databaseIn returns the database that a connection string names, or "".
func databaseIn(uri string) string {
	_, rest, _ := strings.Cut(uri, "://")
	_, path, _ := strings.Cut(rest, "/")
	name, _ := url.PathUnescape(strings.Split(path, "?")[0])
	return name
}

// connect replaces the driver's errors, which can quote a password that is not percent-encoded.
func connect(uri string) (*mongo.Client, error) {
	if strings.Count(uri, "@") <= 1 {
		if client, err := mongo.Connect(options.Client().ApplyURI(uri)); err == nil {
			return client, nil
		}
	}
	return nil, fmt.Errorf("%w: MONGODB_URI is not a connection string: check the host, and percent-encode what is special in the password, as %%40 for @", errConfig)
}
