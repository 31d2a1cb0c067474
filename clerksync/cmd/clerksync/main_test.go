package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "rewrite the golden files")

// What must be in no output.
const (
	password  = "p4ssw0rd"
	secretKey = "sk_test_s3cr3tk3y"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fixture is a world for the program: a Clerk over HTTP, records in memory, and a
// clock that stands still.
type fixture struct {
	clock *fakeclerk.Clock
	clerk *fakeclerk.Server
	db    *fakeDatabase
	vars  map[string]string
	env   environment
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{clock: fakeclerk.NewClock(epoch), db: &fakeDatabase{records: memstore.New()}}
	var err error
	f.clerk, err = fakeclerk.Start(fakeclerk.Config{Clock: f.clock, SecretKey: secretKey, Seed: 1, RateLimit: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.clerk.Close() })
	f.db.records.Now = f.clock.Now
	f.vars = map[string]string{
		secretKeyVar: secretKey,
		apiURLVar:    f.clerk.APIURL(),
		mongoURIVar:  "mongodb://app:" + password + "@localhost:27017/school",
	}
	f.env = environment{
		lookup:   func(name string) (string, bool) { v, ok := f.vars[name]; return v, ok },
		now:      f.clock.Now,
		terminal: func(io.Writer) bool { return false },
		open: func(_ context.Context, s settings) (database, error) {
			f.db.settings = s
			return f.db, f.db.openErr
		},
		reconcile: (*clerksync.Syncer).Reconcile,
	}
	return f
}

// reports replaces Reconcile by one that reports as told.
func (f *fixture) reports(report clerksync.Report, err error) {
	f.env.reconcile = func(*clerksync.Syncer, context.Context, clerksync.ReconcileOptions) (clerksync.Report, error) {
		return report, err
	}
}

// run runs the program, and checks that it lets out no secret and closes what it opened.
func (f *fixture) run(t *testing.T, args ...string) output {
	t.Helper()
	return f.runIn(t.Context(), t, args...)
}

func (f *fixture) runIn(ctx context.Context, t *testing.T, args ...string) output {
	t.Helper()
	var stdout, stderr bytes.Buffer
	o := output{code: run(ctx, f.env, args, &stdout, &stderr)}
	o.stdout, o.stderr = stdout.String(), stderr.String()
	for _, secret := range []string{password, secretKey} {
		if strings.Contains(o.stdout+o.stderr, secret) {
			t.Errorf("the secret %s is in the output:\n%s", secret, o)
		}
	}
	if f.db.settings.mongoURI != "" && f.db.openErr == nil && !f.db.closed {
		t.Error("the database was not closed")
	}
	return o
}

type output struct {
	code           int
	stdout, stderr string
}

func (o output) String() string {
	return fmt.Sprintf("exit status %d\n-- stdout --\n%s-- stderr --\n%s", o.code, o.stdout, o.stderr)
}

// golden compares text with a file.
func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; go test ./clerksync/cmd/clerksync -update writes it", err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s (-golden +now):\n%s", file, diff)
	}
}

// want checks the exit status, and that the parts are in the output.
func (o output) want(t *testing.T, code int, parts ...string) {
	t.Helper()
	if o.code != code {
		t.Errorf("exit status %d, want %d", o.code, code)
	}
	for _, part := range parts {
		if !strings.Contains(o.stdout+o.stderr, part) {
			t.Errorf("the output does not have %q", part)
		}
	}
	if t.Failed() {
		t.Log(o)
	}
}

// fakeDatabase is a database in memory.
type fakeDatabase struct {
	records  *memstore.Store
	settings settings // what it was opened with
	openErr  error
	mappedID string
	hasNone  bool
	list     []index
	closed   bool
}

func (d *fakeDatabase) store() clerksync.Store                   { return d.records }
func (d *fakeDatabase) empty(context.Context) (bool, error)      { return d.hasNone, nil }
func (d *fakeDatabase) mapped(context.Context) (string, error)   { return d.mappedID, nil }
func (d *fakeDatabase) indexes(context.Context) ([]index, error) { return d.list, nil }
func (d *fakeDatabase) close(context.Context) error              { d.closed = true; return nil }

func TestHelp(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	o := f.run(t, "-help")
	golden(t, "help", o.String())
	for _, args := range [][]string{{"help"}, {"-h"}, {"--help"}} {
		if got := f.run(t, args...); got != o {
			t.Errorf("%v differs from -help:\n%s", args, got)
		}
	}
	for _, c := range commands() {
		o := f.run(t, "help", c.name)
		golden(t, "help-"+c.name, o.String())
		if got := f.run(t, c.name, "-help"); got != o {
			t.Errorf("%s -help differs from help %[1]s:\n%s", c.name, got)
		}
		if what[c.name] == "" || details[c.name] == "" || examples[c.name] == "" {
			t.Errorf("the help of %s has a hole", c.name)
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		want string
	}{
		{"", "no command"},
		{"recncile", `there is no command "recncile"`},
		{"help recncile", `there is no command "recncile"`},
		{"mongodb://app:" + password + "@host", "the first argument is no command"},
		{"drift -nope", "there is no flag -nope"},
		{"drift -secret-key " + secretKey, "never from flags"},
		{"drift -mongodb-uri=mongodb://app:" + password + "@host", "never from flags"},
		{"drift now", "takes no arguments"},
		{"indexes " + secretKey, "takes no arguments"},
		{"drift -dry-run", "there is no flag -dry-run"},
		{"drift -force", "there is no flag -force"},
		{"drift -timeout 0s", "-timeout must be more than 0"},
		{"drift -timeout soon", "the value of -timeout is wrong: parse error; a duration such as 10m"},
		{"reconcile -holdback 10", "the value of -holdback is wrong: parse error; a duration such as 10m\n"},
		{"drift -timeout " + secretKey, "the value of -timeout is wrong"},
		{"drift -json=" + secretKey, "the value of -json is wrong: parse error\n"},
		{"drift -page-size=mongodb://app:" + password + "@host", "the value of -page-size is wrong"},
		{"drift -allow-unique " + password + ",", "the value of -allow-unique is wrong: a name is empty"},
		{"drift -" + secretKey, "none of its flags"},
		{"drift ---" + secretKey, "none of its flags"},
		{"drift -timeout", "flag needs an argument: -timeout"},
		{"drift -batch-size 0", "-batch-size must be 1 or more"},
		{"drift -allow-unique a,,b", "a name is empty"},
		{"drift -page-size 0", "-page-size must be from 1 to 500"},
		{"drift -page-size 501", "-page-size must be from 1 to 500"},
		{"drift -writers 0", "-writers must be"},
		{"drift -rate 0", "-rate must be more than 0"},
		{"drift -rate NaN", "-rate must be more than 0"},
		{"drift -rate +Inf", "-rate must be more than 0"},
		{"drift -holdback -1s", "-holdback must not be negative"},
		{"drift -instance prod", "-instance must be the id of a Clerk instance"},
		{"drift -resume=", "-resume must be"},
		{"reconcile -max-deactivations 0", "-max-deactivations must be 1 or more"},
		{"reconcile -max-deactivations -2", "-max-deactivations must be 1 or more"},
		{"reconcile -default-role=", "-default-role must not be empty"},
		{"user", "wants one argument"},
		{"user user_1 user_2", "wants one argument"},
		{"user ada@example.com", "not the id of a Clerk user"},
		{"user ../jwks", "not the id of a Clerk user"},
		{"drift -db a/b", "the name of the database"},
		{"drift -db mongodb://app:" + password + "@host", "the name of the database"},
		{"drift -collection $x", "the name of the collection"},
		{"drift -env-file testdata/none.env", "testdata/none.env"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.env.open = func(context.Context, settings) (database, error) {
				t.Error("the database was opened")
				return nil, errors.New("opened")
			}
			o := f.run(t, strings.Fields(tt.args)...)
			o.want(t, exitUsage, tt.want)
			if o.stdout != "" {
				t.Error("a fault is told on standard output")
			}
		})
	}
}
