package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/joho/godotenv"
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

// environment looks variables up in the process's environment, and where they are not
// set, or empty, in the first of the files that exists; none need exist.
func environment(lookup func(string) (string, bool), files ...string) (get func(name string) string, err error) {
	var vars map[string]string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // quickstart may be the program
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errSettings, err)
		}
		vars, err = godotenv.UnmarshalBytes(text)
		if _, nameless := vars[""]; err != nil || nameless {
			// The error quotes the file, in which there are secrets.
			return nil, fmt.Errorf("%w: %s: not every line is NAME=VALUE or a comment", errSettings, file)
		}
		break
	}
	return func(name string) string {
		v, _ := lookup(name)
		return cmp.Or(strings.TrimSpace(v), strings.TrimSpace(vars[name]))
	}, nil
}

// readSettings returns the zero settings where none of the three required
// variables is set, and an error where only some are.
func readSettings(get func(name string) string) (settings, error) {
	s := settings{
		secretKey:     get(secretKeyVar),
		webhookSecret: cmp.Or(get(webhookSecretVar), get(webhookSecretOther)),
		mongoURI:      get(mongoURIVar),
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
		missing = append(missing, fmt.Sprintf("  %s: %s", v.name, v.whence))
	}
	switch {
	case len(present) == 0:
		return settings{}, nil
	case len(missing) > 0:
		return settings{}, fmt.Errorf("%w: beside %s these are missing:\n%s\nSet all three in the environment or in a .env file (see env.example), or none for the demo",
			errSettings, strings.Join(present, " and "), strings.Join(missing, "\n"))
	case !strings.HasPrefix(s.secretKey, "sk_"):
		return settings{}, fmt.Errorf("%w: %s does not begin with sk_, as Clerk's secret keys do", errSettings, secretKeyVar)
	case !strings.HasPrefix(s.webhookSecret, "whsec_"):
		return settings{}, fmt.Errorf("%w: %s does not begin with whsec_, as signing secrets do", errSettings, webhookSecretVar)
	}

	if err := checkMongoURI(s.mongoURI); err != nil {
		return settings{}, err
	}
	s.database = cmp.Or(get(databaseVar), databaseOf(s.mongoURI), defaultDatabase)
	if api := get(apiURLVar); api != "" {
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
	_, err := url.PathUnescape(userinfo)
	if err != nil || strings.Contains(hosts, "@") || strings.ContainsAny(userinfo, "/?#[]") || strings.Count(userinfo, ":") > 1 {
		return fmt.Errorf("%w: %s has a character, most likely in the user name or the password, that must be percent-encoded, such as %%40 for @, %%2F for /, %%3A for : and %%25 for %%", errSettings, mongoURIVar)
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
