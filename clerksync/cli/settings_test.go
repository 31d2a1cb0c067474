package cli

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMissingVariables(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.vars = nil
	golden(t, "usage", "", f.run(t, "drift").String())

	f.vars = map[string]string{secretKeyVar: " "}
	f.run(t, "indexes").want(t, exitUsage, mongoURIVar)
	f.run(t, "indexes").lacks(t, secretKeyVar) // indexes does not call Clerk

	f = newFixture(t)
	f.vars[mongoURIVar] = "mongodb://localhost"
	f.run(t, "drift").want(t, exitUsage, "missing:\n  the database: name it with -db")
}

// One error lists everything wrong and everything missing.
func TestWrongAndMissingVariables(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.vars[secretKeyVar], f.vars[mongoURIVar] = "pk_test_s3cr3tk3y", "localhost:27017"
	golden(t, "usage", "", f.run(t, "drift").String())

	f.vars[mongoURIVar] = "localhost:27017/school" // which names the database
	o := f.run(t, "drift")
	o.want(t, exitUsage, "does not begin with mongodb://")
	o.lacks(t, "missing")
	delete(f.vars, secretKeyVar)
	f.vars[apiURLVar] = "api.clerk.com"
	f.run(t, "drift").want(t, exitUsage,
		"missing:\n  CLERK_SECRET_KEY", "looks like https://api.clerk.com", "does not begin with mongodb://")
}

func TestWrongVariables(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, value, want string }{
		{secretKeyVar, "pk_test_s3cr3tk3y", "publishable key"},
		{secretKeyVar, "whsec_s3cr3tk3y", "does not begin with sk_"},
		{secretKeyVar, "sk_test_ s3cr3tk3y", "SecretKey "},
		{secretKeyVar, `"sk_test_s3cr3tk3y"`, "CLERK_SECRET_KEY has quotation marks around it"},
		{secretKeyVar, "CLERK_SECRET_KEY=sk_test_s3cr3tk3y", "CLERK_SECRET_KEY has the name of a variable in it"},
		{secretKeyVar, "undefined", "CLERK_SECRET_KEY is what a program prints for a missing value"},
		{secretKeyVar, "sk_test_...", "CLERK_SECRET_KEY is a placeholder"},
		{apiURLVar, `"https://api.clerk.com"`, "CLERK_API_URL has quotation marks around it"},
		{mongoURIVar, `"mongodb://app:` + password + `@localhost/school"`, "MONGODB_URI has quotation marks around it"},
		{mongoURIVar, "MONGODB_URI=mongodb://localhost/school", "MONGODB_URI has the name of a variable in it"},
		{apiURLVar, "api.clerk.com", "looks like https://api.clerk.com"},
		{apiURLVar, "https://u:" + password + "@api.clerk.com", "looks like https://api.clerk.com"},
		{mongoURIVar, "postgres://app:" + password + "@localhost/school", "does not begin with mongodb://"},
		{mongoURIVar, "mongodb://app:" + password + "/@localhost/school", "percent-encoded"},
		{databaseVar, "a b", "the name of the database"},
		{collectionVar, "system.users", "the name of the collection"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.vars[databaseVar] = "school"
			f.vars[tt.name] = tt.value
			o := f.run(t, "drift")
			o.want(t, exitUsage, tt.want)
			o.lacks(t, "s3cr3tk3y")
		})
	}
}

// Here the fixture's variables come from a file.
func TestVariablesFromFile(t *testing.T) {
	f := newFixture(t)
	text := ""
	for name, value := range f.vars {
		text += name + "='" + value + "'\n"
	}
	f.vars = map[string]string{collectionVar: "members"}
	t.Chdir(t.TempDir())

	writeFile(t, "other.env", text)
	f.run(t, "indexes", "-env-file", "other.env").want(t, exitDone, "school.members")
	f.run(t, "indexes").want(t, exitUsage, "there is no .env here")
	f.run(t, "indexes", "-env-file", "missing.env").want(t, exitUsage, "-env-file: there is no missing.env")

	writeFile(t, ".env", text+databaseVar+"=courses\n")
	f.run(t, "indexes").want(t, exitDone, "courses.members")
	f.run(t, "indexes", "-db", "flag", "-collection", "people").want(t, exitDone, "flag.people")
	f.vars[databaseVar] = "environment"
	f.run(t, "indexes").want(t, exitDone, "environment.members")
	f.vars[mongoURIVar] = ""
	f.run(t, "indexes").want(t, exitUsage, ".env has it, but the environment, which wins, sets it to an empty value")

	writeFile(t, ".env", "NONSENSE "+password+"\n")
	f.run(t, "indexes").want(t, exitUsage, "cannot read the variables: .env:1: the line is not NAME=VALUE")
	writeFile(t, ".env", strings.Repeat("#", maxEnvFile+1))
	f.run(t, "indexes").want(t, exitUsage, "cannot read the variables: .env is larger than 64 KiB")
}

func TestFlagsBecomeSettings(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.run(t, "indexes", "-timeout", "3s", "-batch-size=100", "-allow-unique", "a_1, b_1", "-allow-unique", "c_1").
		want(t, exitDone)
	got := f.db.settings
	want := settings{
		apiURL: f.vars[apiURLVar], mongoURI: mongoURI, secretKey: secretKey, database: "school", collection: "users",
		timeout: 3 * time.Second, batchSize: 100, allowUnique: list{"a_1", "b_1", "c_1"}, program: "clerksync",
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(settings{})); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}

	f.vars[apiURLVar] = "https://clerk.example.com/"
	f.reports(complete, nil)
	f.run(t, "reconcile", "-erase-on-delete").want(t, exitDone)
	if got := f.db.settings.apiURL; got != "https://clerk.example.com/v1" {
		t.Errorf("apiURL = %q", got)
	}
	if !f.db.options.EraseOnDelete {
		t.Error("EraseOnDelete is false")
	}
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.db.openErr = errors.New("mongostore: open: the unique index \"email_1\" …; replace it: db.…")
	for _, args := range [][]string{{"indexes"}, {"drift"}, {"reconcile"}, {"user", "user_1"}} {
		o := f.run(t, args...)
		o.want(t, exitFailed, f.db.openErr.Error())
		if o.stdout != "" {
			t.Errorf("%v prints on standard output:\n%s", args, o)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.runIn(ctx, t, "indexes").want(t, exitFailed, "interrupted")
}

func TestParseEnv(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		want       map[string]string
	}{
		{"empty file", "", map[string]string{}},
		{"plain", "A=1\nB=2", map[string]string{"A": "1", "B": "2"}},
		{"blank lines and comments", "\n  # A=1\n\t\nB=2\n", map[string]string{"B": "2"}},
		{"space around", "  A =  b c  \n", map[string]string{"A": "b c"}},
		{"export", "export A=1\nexport\tB=2", map[string]string{"A": "1", "B": "2"}},
		{"a name that begins with export", "exporter=1\nexport=2", map[string]string{"exporter": "1", "export": "2"}},
		{"empty values", "A=\nB=''\nC=\"\"\n", map[string]string{"A": "", "B": "", "C": ""}},
		{"= in the value", "A=mongodb://h/?w=1&j=true", map[string]string{"A": "mongodb://h/?w=1&j=true"}},
		{"comment after a value", "A=b # c", map[string]string{"A": "b"}},
		{"# in a value", "A=b#c", map[string]string{"A": "b#c"}},
		{"single quotes", `A='b # "c" \n $D' # e`, map[string]string{"A": `b # "c" \n $D`}},
		{"double quotes", `A="b # 'c'\n\"\$D"`, map[string]string{"A": "b # 'c'\n\"$D"}},
		{"several lines", "A='b\nc'\nD=1", map[string]string{"A": "b\nc", "D": "1"}},
		{"the last one wins", "A=1\nA=2", map[string]string{"A": "2"}},
		{"byte order mark and CRLF", "\ufeffA=1\r\nB='2'\r\n", map[string]string{"A": "1", "B": "2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseEnv(".env", tt.text)
			if err != nil || !maps.Equal(got, tt.want) {
				t.Errorf("parseEnv(%q) = %q, %v, want %q", tt.text, got, err, tt.want)
			}
		})
	}
}

func TestParseEnvFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		line       string
	}{
		{"no =", "A=1\n\nSECRET\n", "3"},
		{"no = at the end of the file", "A=1\nSECRET", "2"},
		{"no = before a URI", "A=1\nB mongodb://SECRET@h\n", "2"},
		{"no = after a value of several lines", "A='b\nc'\nSECRET\nD=1\n", "3"},
		{"export alone", "export SECRET", "1"},
		{"no name", "=SECRET", "1"},
		{"a digit first", "1SECRET=1", "1"},
		{"a name with a space", "SECRET B=1", "1"},
		{"open single quote", "A=1\nB='SECRET\nC=1\n", "2"},
		{"open double quote", `A="SECRET\"`, "1"},
		{"backslash at the end", `A="SECRET\`, "1"},
		{"text after a quote", "A='b'SECRET", "1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := parseEnv("dir/.env", tt.text)
			want := "dir/.env:" + tt.line + ": the line is not NAME=VALUE, or a quote is not closed"
			if err == nil || err.Error() != want {
				t.Errorf("parseEnv(%q): %v, want %s", tt.text, err, want)
			}
		})
	}
}

// FuzzParseEnv checks that an error does not quote the file.
func FuzzParseEnv(f *testing.F) {
	for _, seed := range []string{
		"", "A=1\nB='2'\nexport C=\"3\\n\" # c", "A='", `A="\`, "A=#", "=x", "A B=1", "export", "export=",
		"A=\x00", "A='b'c", "\xff=\xff", "A=1\rB=2", "#\n \t\n", "A='\n\n'\nB", "A=\"\n'\nB='\"\n",
	} {
		f.Add(seed)
	}
	fault := regexp.MustCompile(`^dir/\.env:[1-9][0-9]*: the line is not NAME=VALUE, or a quote is not closed$`)
	f.Fuzz(func(t *testing.T, text string) {
		vars, err := parseEnv("dir/.env", text)
		if err != nil && (vars != nil || !fault.MatchString(err.Error())) {
			t.Errorf("parseEnv(%q) = %v, %v", text, vars, err)
		}
	})
}

func TestReadVariables(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "a.env")
	writeFile(t, file, "A=file\nB=file\nC=file\n")
	process := map[string]string{"A": " process ", "B": ""}
	v, err := readVariables(lookupIn(process), file)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, want string
		shadowed   bool
	}{
		{"A", "process", false},
		{"B", "", true},
		{"C", "file", false},
		{"D", "", false},
	} {
		if got := v.get(tt.name); got != tt.want || v.shadowed(tt.name) != tt.shadowed {
			t.Errorf("get(%s) = %q, shadowed = %t, want %q, %t",
				tt.name, got, v.shadowed(tt.name), tt.want, tt.shadowed)
		}
	}
	if v.file != file {
		t.Errorf("file = %q, want %q", v.file, file)
	}

	v, err = readVariables(lookupIn(process), filepath.Join(dir, "missing"))
	if err != nil || v.file != "" || v.get("A") != "process" {
		t.Errorf("without a file: %+v, %v", v, err)
	}
	if _, err := readVariables(lookupIn(process), dir); err == nil {
		t.Error("a directory is read as a file")
	}
}

func TestReadVariablesOfLargeFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), ".env")
	largest := "A='" + strings.Repeat("x", maxEnvFile-len("A=''")) + "'"
	writeFile(t, file, largest)
	if _, err := readVariables(os.LookupEnv, file); err != nil {
		t.Errorf("a file of %d bytes: %v", len(largest), err)
	}
	writeFile(t, file, largest+"\n")
	_, err := readVariables(os.LookupEnv, file)
	if want := file + " is larger than 64 KiB"; err == nil || err.Error() != want {
		t.Errorf("a file of %d bytes: %v, want %s", len(largest)+1, err, want)
	}
}
