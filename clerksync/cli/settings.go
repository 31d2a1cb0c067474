package cli

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// The variables. Secrets are taken from nowhere else: what stands in a command line
// is in the shell's history and in everybody's list of processes.
const (
	secretKeyVar  = "CLERK_SECRET_KEY"
	apiURLVar     = "CLERK_API_URL"
	mongoURIVar   = "MONGODB_URI"
	databaseVar   = "MONGODB_DATABASE"
	collectionVar = "MONGODB_COLLECTION"
)

// settings are what every command needs: where the records are, and where Clerk is.
// Their String says nothing, as there are secrets in them.
type settings struct {
	secretKey string
	apiURL    string // empty: Clerk's own
	mongoURI  string

	database, collection string
	timeout              time.Duration
	batchSize            int
	allowUnique          list
	eraseOnDelete        bool
	defaultRole          string
	writesNothing        bool // neither a collection nor an index is made

	envFile string
	json    bool
}

func (*settings) String() string { return "settings" }

// name is how messages call the collection.
func (s *settings) name() string { return visible(s.database + "." + s.collection) }

// bind adds the flags that every command has.
func (s *settings) bind(f *flag.FlagSet) {
	f.StringVar(&s.envFile, "env-file", "", "read variables from this `file`, which must exist (default .env, which need not)")
	f.StringVar(&s.database, "db", "", "`name` of the database (default "+databaseVar+", else the one in the path of "+mongoURIVar+")")
	f.StringVar(&s.collection, "collection", "", "`name` of the collection (default "+collectionVar+", else users)")
	f.DurationVar(&s.timeout, "timeout", 10*time.Second, "how long to try to connect to MongoDB")
	f.IntVar(&s.batchSize, "batch-size", 0, "`records` in one command to MongoDB; FerretDB 1 wants 100 (default 500)")
	f.Var(&s.allowUnique, "allow-unique", "accept these unique `indexes` although they are neither sparse nor partial; names with commas between, or the flag several times")
	f.BoolVar(&s.json, "json", false, "print one JSON value on standard output, and nothing else there")
}

// resolve completes the settings from the variables. Its error names all that is wrong
// and all that is missing.
func (s *settings) resolve(env environment, needClerk bool) error {
	v, err := readVariables(env.lookup, cmp.Or(s.envFile, ".env"))
	if err != nil {
		return usagef("the file of variables cannot be used: %v", err)
	}
	if v.file == "" && s.envFile != "" {
		return usagef("-env-file: there is no %s", s.envFile)
	}
	s.secretKey, s.apiURL, s.mongoURI = v.get(secretKeyVar), v.get(apiURLVar), v.get(mongoURIVar)
	s.collection = cmp.Or(s.collection, v.get(collectionVar), "users")
	s.database = cmp.Or(s.database, v.get(databaseVar), databaseOf(s.mongoURI))

	var missing []string
	miss := func(name, whence string) {
		line := fmt.Sprintf("  %s: %s", name, whence)
		if v.shadowed(name) {
			line += fmt.Sprintf(" (%s has it, but it is set to nothing in the environment, which wins)", v.file)
		}
		missing = append(missing, line)
	}
	if needClerk && s.secretKey == "" {
		miss(secretKeyVar, "sk_test_… or sk_live_…, in the Clerk Dashboard under Configure > API keys")
	}
	if s.mongoURI == "" {
		miss(mongoURIVar, "mongodb://… or mongodb+srv://…, in Atlas under Connect > Drivers")
	}
	if s.database == "" && databaseOf("mongodb://"+withoutScheme(s.mongoURI)) == "" { // whatever else is wrong with it
		miss("the database", fmt.Sprintf("name it with -db, in %s, or in the path of %s: mongodb://host/NAME", databaseVar, mongoURIVar))
	}
	wrong := errors.Join(s.checkNames(), s.checkClerk(needClerk), checkMongoURI(s.mongoURI))
	if len(missing) > 0 {
		where := "no .env is here"
		if v.file != "" {
			where = v.file + " was read"
		}
		wrong = errors.Join(wrong, usagef("missing:\n%s\nSet variables in the environment or in .env (%s)", strings.Join(missing, "\n"), where))
	}
	return wrong
}

// checkNames refuses what MongoDB would, and what is no name: it might hold a password.
func (s *settings) checkNames() error {
	if strings.ContainsAny(s.database, "/\\. \"$*<>:|?@\x00") || len(s.database) > 63 {
		return usagef("the name of the database (-db, %s or in the path of %s) has a character that MongoDB does not allow, or is too long", databaseVar, mongoURIVar)
	}
	if strings.ContainsAny(s.collection, "$\x00@/") || strings.HasPrefix(s.collection, "system.") || len(s.collection) > 200 {
		return usagef("the name of the collection (-collection or %s) is none that MongoDB allows", collectionVar)
	}
	return nil
}

func (s *settings) checkClerk(need bool) error {
	if !need {
		return nil
	}
	var wrong error
	switch {
	case s.secretKey == "": // missing
	case strings.HasPrefix(s.secretKey, "pk_"):
		wrong = usagef("%s is a publishable key (pk_…); the secret key begins with sk_", secretKeyVar)
	case !strings.HasPrefix(s.secretKey, "sk_"):
		wrong = usagef("%s does not begin with sk_, as Clerk's secret keys do", secretKeyVar)
	}
	return errors.Join(wrong, s.checkAPIURL())
}

func (s *settings) checkAPIURL() error {
	if s.apiURL == "" {
		return nil
	}
	u, err := url.Parse(s.apiURL)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		return usagef("%s is no URL of an API; it looks like https://api.clerk.com", apiURLVar)
	}
	// The ecosystem's form is without the version, and clerksync wants the version.
	if !strings.HasSuffix(strings.TrimRight(u.Path, "/"), "/v1") {
		u = u.JoinPath("v1")
	}
	s.apiURL = strings.TrimRight(u.String(), "/")
	return nil
}
