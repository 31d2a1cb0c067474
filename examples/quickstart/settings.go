package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/internal/dotenv"
)

// settings are what the app takes from the environment; env.example documents
// them. The zero settings stand for the demo.
type settings struct {
	secretKey     string
	apiURL        string // with /v1; empty: Clerk's own
	webhookSecret string
	mongoURI      string
	database      string

	// By flags; zero: clerksync's defaults.
	cacheTTL, refreshAfter time.Duration
}

const (
	secretKeyVar       = "CLERK_SECRET_KEY"
	webhookSecretVar   = "CLERK_WEBHOOK_SIGNING_SECRET"
	webhookSecretOther = "CLERK_WEBHOOK_SECRET" // the older name
	mongoURIVar        = "MONGODB_URI"
	databaseVar        = "MONGODB_DATABASE"
	apiURLVar          = "CLERK_API_URL"
)

const defaultDatabase = "clerksync_quickstart"

// errSettings is matched by the errors that the settings cause.
var errSettings = errors.New("settings")

// readSettings returns the zero settings where none of the three required
// variables is set, and an error where only some are.
func readSettings(e dotenv.Variables) (settings, error) {
	s := settings{
		secretKey:     e.Get(secretKeyVar),
		webhookSecret: cmp.Or(e.Get(webhookSecretVar), e.Get(webhookSecretOther)),
		mongoURI:      e.Get(mongoURIVar),
	}
	var present, missing []string
	for _, v := range []struct{ name, value, whence string }{
		{secretKeyVar, s.secretKey, "sk_test_… or sk_live_…, in the Clerk Dashboard under Configure > API keys"},
		{webhookSecretVar, s.webhookSecret, "whsec_…, in the Clerk Dashboard under Configure > Webhooks > your endpoint > Signing Secret"},
		{mongoURIVar, s.mongoURI, "mongodb://… or mongodb+srv://…, in Atlas under Connect > Drivers"},
	} {
		if v.value != "" {
			present = append(present, v.name)
			continue
		}
		line := fmt.Sprintf("  %s: %s", v.name, v.whence)
		if e.Shadowed(v.name) {
			line += fmt.Sprintf(" (%s has it, but it is set to nothing in the environment, which wins)", e.File)
		}
		missing = append(missing, line)
	}
	switch {
	case len(present) == 0:
		return settings{}, nil
	case len(missing) > 0:
		return settings{}, fmt.Errorf("%w: beside %s these are missing:\n%s\nSet all three in the environment or in a .env file (see env.example), or none for the demo",
			errSettings, strings.Join(present, " and "), strings.Join(missing, "\n"))
	}

	if err := checkMongoURI(s.mongoURI); err != nil {
		return settings{}, err
	}
	s.database = cmp.Or(e.Get(databaseVar), databaseOf(s.mongoURI), defaultDatabase)
	if api := e.Get(apiURLVar); api != "" {
		u, err := url.Parse(api)
		if err != nil || u.Host == "" {
			return settings{}, fmt.Errorf("%w: %s is no URL; it looks like https://api.clerk.com", errSettings, apiURLVar)
		}
		// The ecosystem's form is without the version, and clerksync wants the version.
		if !strings.HasSuffix(strings.TrimRight(u.Path, "/"), "/v1") {
			u = u.JoinPath("v1")
		}
		s.apiURL = strings.TrimRight(u.String(), "/")
	}
	return s, nil
}

// checkMongoURI finds what makes a connection string ambiguous. The driver's own
// errors would quote parts of a password that is not encoded.
func checkMongoURI(uri string) error {
	rest, ok := cutScheme(uri)
	if !ok {
		return fmt.Errorf("%w: %s does not begin with mongodb:// or mongodb+srv://", errSettings, mongoURIVar)
	}
	userinfo, hosts, found := strings.Cut(rest, "@")
	if !found {
		return nil
	}
	beforeQuery, _, _ := strings.Cut(hosts, "?")
	_, err := url.PathUnescape(userinfo)
	if err != nil || strings.Contains(beforeQuery, "@") || strings.Contains(userinfo, "/") || strings.Count(userinfo, ":") > 1 {
		return fmt.Errorf("%w: the user name or the password in %s has a character that must be percent-encoded, such as %%40 for @, %%2F for /, %%3A for : and %%25 for %%", errSettings, mongoURIVar)
	}
	return nil
}

// databaseOf returns the database that a connection string names, if it does.
func databaseOf(uri string) string {
	rest, _ := cutScheme(uri)
	rest, _, _ = strings.Cut(rest, "?")
	_, name, _ := strings.Cut(rest, "/")
	if unescaped, err := url.PathUnescape(name); err == nil {
		name = unescaped
	}
	return name
}

// withoutPassword returns an error's text without the password of a connection
// string, in either of the forms that an error could quote it in.
func withoutPassword(err error, uri string) string {
	text := err.Error()
	rest, _ := cutScheme(uri)
	userinfo, _, found := strings.Cut(rest, "@")
	_, password, _ := strings.Cut(userinfo, ":")
	if !found || password == "" {
		return text
	}
	text = strings.ReplaceAll(text, password, "…")
	if plain, err := url.PathUnescape(password); err == nil && plain != "" {
		text = strings.ReplaceAll(text, plain, "…")
	}
	return text
}

// cutScheme returns what follows the scheme, and whether it is one of MongoDB's.
func cutScheme(uri string) (rest string, ok bool) {
	scheme, rest, ok := strings.Cut(uri, "://")
	return rest, ok && (scheme == "mongodb" || scheme == "mongodb+srv")
}
