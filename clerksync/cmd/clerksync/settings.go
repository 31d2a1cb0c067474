package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/internal/dotenv"
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

// list is a flag of names, separated by commas or given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(value string) error {
	for name := range strings.SplitSeq(value, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			return errors.New("a name is empty")
		}
		*l = append(*l, name)
	}
	return nil
}

// parse reads flags, which may also stand behind the arguments, and checks those of
// settings. Where help is asked for it prints that, and done is true.
func (c *call) parse(f *flag.FlagSet, s *settings, args []string) (arguments []string, done bool, err error) {
	f.Init(c.command.name, flag.ContinueOnError)
	f.SetOutput(io.Discard) // its own messages come with the whole list of flags
	s.bind(f)
	for {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, true, print(c.stdout, c.command.help(f))
			}
			return nil, false, c.wrongFlags("%s", explainFlag(f, err))
		}
		if f.NArg() == 0 {
			break
		}
		arguments, args = append(arguments, f.Arg(0)), f.Args()[1:]
	}
	set := given(f)
	switch {
	case s.timeout <= 0:
		return nil, false, c.wrongFlags("-timeout must be more than 0, such as 10s")
	case set["batch-size"] && s.batchSize < 1:
		return nil, false, c.wrongFlags("-batch-size must be 1 or more")
	}
	return arguments, false, nil
}

// given are the names of the flags that were set.
func given(f *flag.FlagSet) map[string]bool {
	set := make(map[string]bool)
	f.Visit(func(f *flag.Flag) { set[f.Name] = true })
	return set
}

func (c *call) wrongFlags(format string, args ...any) error {
	return usagef("%s: %s\nclerksync help %[1]s lists its flags", c.command.name, fmt.Sprintf(format, args...))
}

// explainFlag tells what is wrong with a flag in other words than flag's own, which
// quote: an argument in the wrong place may be a secret. It also helps where somebody
// looks for a flag that must not be.
func explainFlag(f *flag.FlagSet, err error) string {
	text := err.Error()
	if m := wrongValue.FindStringSubmatch(text); m != nil {
		text := fmt.Sprintf("the value of %s is wrong: %s", m[1], m[2])
		if value, ok := f.Lookup(m[1][1:]).Value.(flag.Getter); ok {
			if _, ok := value.Get().(time.Duration); ok {
				text += "; a duration such as 10m"
			}
		}
		return text
	}
	if strings.HasPrefix(text, "flag needs an argument: ") {
		return text
	}
	name, unknown := strings.CutPrefix(text, "flag provided but not defined: ")
	if !unknown || !isFlag.MatchString(name) {
		return "an argument that begins with - is none of its flags"
	}
	for _, word := range []string{"key", "secret", "uri", "url", "token", "password"} {
		if strings.Contains(name, word) {
			return fmt.Sprintf("there is no flag %s: secrets are read from the environment or from .env (%s, %s), never from flags", name, secretKeyVar, mongoURIVar)
		}
	}
	return fmt.Sprintf("there is no flag %s", name)
}

var (
	wrongValue = regexp.MustCompile(`^invalid (?:boolean )?value .* for (?:flag )?(-[a-z-]+): (.*)$`)
	isFlag     = regexp.MustCompile(`^-[a-zA-Z-]{1,20}$`)
)

// resolve completes the settings from the variables. Its error names all that is wrong
// and all that is missing.
func (s *settings) resolve(env environment, needClerk bool) error {
	v, err := dotenv.Load(env.lookup, cmp.Or(s.envFile, ".env"))
	if err != nil {
		return usagef("the file of variables cannot be used: %v", err)
	}
	if v.File == "" && s.envFile != "" {
		return usagef("-env-file: there is no %s", s.envFile)
	}
	s.secretKey, s.apiURL, s.mongoURI = v.Get(secretKeyVar), v.Get(apiURLVar), v.Get(mongoURIVar)
	s.collection = cmp.Or(s.collection, v.Get(collectionVar), "users")
	s.database = cmp.Or(s.database, v.Get(databaseVar), databaseOf(s.mongoURI))

	var missing []string
	miss := func(name, whence string) {
		line := fmt.Sprintf("  %s: %s", name, whence)
		if v.Shadowed(name) {
			line += fmt.Sprintf(" (%s has it, but it is set to nothing in the environment, which wins)", v.File)
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
		if v.File != "" {
			where = v.File + " was read"
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

// checkMongoURI finds what makes a connection string ambiguous. The driver's own
// errors would quote parts of a password that is not encoded.
func checkMongoURI(uri string) error {
	if uri == "" {
		return nil // missing
	}
	rest, ok := cutScheme(uri)
	if !ok {
		return usagef("%s does not begin with mongodb:// or mongodb+srv://", mongoURIVar)
	}
	userinfo, hosts, found := strings.Cut(rest, "@")
	if !found {
		return nil
	}
	_, err := url.PathUnescape(userinfo)
	if err != nil || strings.Contains(hosts, "@") || strings.ContainsAny(userinfo, "/?#[]") || strings.Count(userinfo, ":") > 1 {
		return usagef("%s has a character, most likely in the user name or the password, that must be percent-encoded, such as %%40 for @, %%2F for /, %%3A for : and %%25 for %%", mongoURIVar)
	}
	return nil
}

// databaseOf returns the database that a connection string names, if it does.
func databaseOf(uri string) string {
	rest, ok := cutScheme(uri)
	if !ok {
		return ""
	}
	rest, _, _ = strings.Cut(rest, "?")
	if _, hosts, found := strings.Cut(rest, "@"); found {
		rest = hosts
	}
	_, name, _ := strings.Cut(rest, "/")
	if unescaped, err := url.PathUnescape(name); err == nil {
		name = unescaped
	}
	return name
}

// withoutSecrets returns an error's text without the secrets of a connection
// string, in any of the forms that an error could quote them in.
func withoutSecrets(err error, uri string) string {
	text := err.Error()
	for _, secret := range secretsOf(uri) {
		text = strings.ReplaceAll(text, secret, "…")
	}
	return text
}

// secretsOf are the parts of a connection string that nobody is to see, the longest first.
func secretsOf(uri string) []string {
	var secrets []string
	add := func(value string) {
		forms := []string{value}
		if unescaped, err := url.QueryUnescape(value); err == nil {
			forms = append(forms, unescaped)
		}
		if unescaped, err := url.PathUnescape(value); err == nil {
			forms = append(forms, unescaped)
		}
		for _, form := range forms {
			quoted := strconv.Quote(form) // as the driver does
			secrets = append(secrets, form, quoted[1:len(quoted)-1])
		}
	}
	rest, _ := cutScheme(uri)
	beforeQuery, query, found := strings.Cut(rest, "?")
	if !found {
		query = rest // the ? was forgotten, perhaps
	}
	if userinfo, _, found := strings.Cut(beforeQuery, "@"); found {
		_, password, _ := strings.Cut(userinfo, ":")
		add(password)
	}
	for parameter := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' }) {
		name, value, _ := strings.Cut(parameter, "=")
		switch name = strings.ToLower(name); {
		case strings.Contains(name, "password"):
			add(value)
		case name == "authmechanismproperties": // AWS_SESSION_TOKEN:…
			for property := range strings.SplitSeq(value, ",") {
				if name, value, _ := strings.Cut(property, ":"); strings.Contains(strings.ToLower(name), "token") {
					add(value)
				}
			}
		}
	}
	secrets = slices.DeleteFunc(secrets, func(s string) bool { return s == "" })
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return slices.Compact(secrets)
}

// withoutScheme returns what follows any scheme, or all.
func withoutScheme(uri string) string {
	if _, rest, ok := strings.Cut(uri, "://"); ok {
		return rest
	}
	return uri
}

// cutScheme returns what follows the scheme, and whether it is one of MongoDB's.
func cutScheme(uri string) (rest string, ok bool) {
	scheme, rest, ok := strings.Cut(uri, "://")
	return rest, ok && (scheme == "mongodb" || scheme == "mongodb+srv")
}
