package cli

import (
	"context"
	"errors"
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
