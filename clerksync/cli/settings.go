package cli

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/setting"
)

// The variables. Secrets are read from variables only, because a command line ends up in the
// shell's history and in the list of processes.
const (
	secretKeyVar  = "CLERK_SECRET_KEY"
	apiURLVar     = "CLERK_API_URL"
	mongoURIVar   = "MONGODB_URI"
	databaseVar   = "MONGODB_DATABASE"
	collectionVar = "MONGODB_COLLECTION"
)

// settings say where the records are, where Clerk is, and how to open the collection.
type settings struct {
	secretKey string
	apiURL    string // empty means Clerk's own
	mongoURI  string

	database, collection string
	timeout              time.Duration // for connecting
	batchSize            int
	allowUnique          list
	eraseOnDelete        bool
	defaultRole          string
	writesNothing        bool // not even a collection or an index is made
	looksOnly            bool // no Store is opened

	envFile string
	json    bool

	program string // its name, for the commands in messages
}

// String keeps the secrets out of logs.
func (*settings) String() string { return "settings" }

// name is the collection's name in messages.
func (s *settings) name() string { return visible(s.database + "." + s.collection) }

// bind adds the flags that every command has.
func (s *settings) bind(f *flag.FlagSet) {
	f.StringVar(&s.envFile, "env-file", "",
		"read variables from this `file`, which must exist (default .env, which need not)")
	f.StringVar(&s.database, "db", "",
		"`name` of the database (default "+databaseVar+", else the one in the path of "+mongoURIVar+")")
	f.StringVar(&s.collection, "collection", "", "`name` of the collection (default "+collectionVar+", else users)")
	f.DurationVar(&s.timeout, "timeout", 10*time.Second, "how long to try to connect to MongoDB")
	f.IntVar(&s.batchSize, "batch-size", 0, "`records` in one command to MongoDB; FerretDB 1 needs 100 (default 500)")
	f.Var(&s.allowUnique, "allow-unique", "accept these unique `indexes` although they are neither sparse nor partial; "+
		"separate names with commas, or repeat the flag")
	f.BoolVar(&s.json, "json", false, "print one JSON value on standard output, and nothing else there")
}

// resolve completes the settings with the variables. Its error lists everything wrong and
// everything missing.
func (s *settings) resolve(env environment, needClerk bool) error {
	v, err := readVariables(env.lookup, cmp.Or(s.envFile, ".env"))
	if err != nil {
		return usagef("cannot read the variables: %v", err)
	}
	if v.file == "" && s.envFile != "" {
		return usagef("-env-file: there is no %s", s.envFile)
	}
	s.program = env.programName()
	s.secretKey, s.apiURL, s.mongoURI = v.get(secretKeyVar), v.get(apiURLVar), v.get(mongoURIVar)
	s.collection = cmp.Or(s.collection, v.get(collectionVar), "users")
	s.database = cmp.Or(s.database, v.get(databaseVar), databaseOf(s.mongoURI))

	wrong := errors.Join(s.checkNames(), s.checkClerk(needClerk), checkMongoURI(s.mongoURI))
	if missing := s.missing(v, needClerk); len(missing) > 0 {
		from := "there is no .env here"
		if v.file != "" {
			from = v.file + " was read"
		}
		wrong = errors.Join(wrong, usagef("missing:\n%s\nSet variables in the environment or in .env (%s)",
			strings.Join(missing, "\n"), from))
	}
	return wrong
}

// missing returns a line for each required variable that is not set.
func (s *settings) missing(v variables, needClerk bool) []string {
	var lines []string
	add := func(name, hint string) {
		line := fmt.Sprintf("  %s: %s", name, hint)
		if v.shadowed(name) {
			line += fmt.Sprintf(" (%s has it, but the environment, which wins, sets it to an empty value)", v.file)
		}
		lines = append(lines, line)
	}
	if needClerk && s.secretKey == "" {
		add(secretKeyVar, "sk_test_… or sk_live_…, in the Clerk Dashboard under Configure > API keys")
	}
	if s.mongoURI == "" {
		add(mongoURIVar, "mongodb://… or mongodb+srv://…, in Atlas under Connect > Drivers")
	}
	// A URI with a wrong scheme may name the database too.
	if s.database == "" && databaseOf("mongodb://"+withoutScheme(s.mongoURI)) == "" {
		add("the database", fmt.Sprintf("name it with -db, in %s, or in the path of %s: mongodb://host/NAME", databaseVar, mongoURIVar))
	}
	return lines
}

// checkNames refuses names that MongoDB does not allow. It does not quote them: a password may be
// in the wrong place.
func (s *settings) checkNames() error {
	if strings.ContainsAny(s.database, "/\\. \"$*<>:|?@\x00") || len(s.database) > 63 {
		return usagef("the name of the database (-db, %s or in the path of %s) is too long or has a character that MongoDB does not allow",
			databaseVar, mongoURIVar)
	}
	if strings.ContainsAny(s.collection, "$\x00@/") || strings.HasPrefix(s.collection, "system.") || len(s.collection) > 200 {
		return usagef("the name of the collection (-collection or %s) is not one that MongoDB allows", collectionVar)
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
	case setting.Fault(s.secretKey) != "":
		wrong = usagef("%s %s", secretKeyVar, setting.Fault(s.secretKey))
	case strings.HasPrefix(s.secretKey, "pk_"):
		wrong = usagef("%s is a publishable key (pk_…); the secret key begins with sk_", secretKeyVar)
	case !strings.HasPrefix(s.secretKey, "sk_"):
		wrong = usagef("%s does not begin with sk_, as Clerk's secret keys do", secretKeyVar)
	}
	return errors.Join(wrong, s.checkAPIURL())
}

// checkAPIURL also adds the version to the URL. Other tools take CLERK_API_URL without it,
// clerksync needs it.
func (s *settings) checkAPIURL() error {
	if s.apiURL == "" {
		return nil
	}
	if is := setting.Fault(s.apiURL); is != "" {
		return usagef("%s %s; it looks like https://api.clerk.com", apiURLVar, is)
	}
	u, err := url.Parse(s.apiURL)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		return usagef("%s is not the URL of an API; it looks like https://api.clerk.com", apiURLVar)
	}
	if !strings.HasSuffix(strings.TrimRight(u.Path, "/"), "/v1") {
		u = u.JoinPath("v1")
	}
	s.apiURL = strings.TrimRight(u.String(), "/")
	return nil
}
