package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/mongostore"
)

func TestHelp(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	o := f.run(t, "-help")
	golden(t, "usage", "", o.String())
	for _, args := range [][]string{{"help"}, {"-h"}, {"--help"}} {
		if got := f.run(t, args...); got != o {
			t.Errorf("%v differs from -help:\n%s", args, got)
		}
	}
	for _, c := range commands() {
		o := f.run(t, "help", c.name)
		golden(t, "usage", c.name, o.String())
		if got := f.run(t, c.name, "-help"); got != o {
			t.Errorf("%s -help differs from help %[1]s:\n%s", c.name, got)
		}
		if what[c.name] == "" || details[c.name] == "" || examples[c.name] == "" {
			t.Errorf("a part of the help of %s is empty", c.name)
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
		{"recncile", `there is no command "recncile"; did you mean reconcile?`},
		{"help recncile", `there is no command "recncile"; did you mean reconcile?`},
		{"Drift", `there is no command "Drift"; did you mean drift?`},
		{"backup", "there is no command \"backup\"\n"},
		{"mongodb://app:" + password + "@host", "the first argument is not a command"},
		{"drift -nope", "there is no flag -nope\n"},
		{"drift -jsno", "there is no flag -jsno; did you mean -json?"},
		{"reconcile --dryrun", "there is no flag -dryrun; did you mean -dry-run?"},
		{"version -jason", "there is no flag -jason; did you mean -json?"},
		{"version now", "takes no arguments"},
		{"drift -secret-key " + secretKey, "never from flags"},
		{"drift -mongodb-uri=mongodb://app:" + password + "@host", "never from flags"},
		{"drift now", "takes no arguments"},
		{"indexes " + secretKey, "takes no arguments"},
		{"drift -dry-run", "there is no flag -dry-run"},
		{"drift -force", "there is no flag -force"},
		{"reconcile -force -versions", "-force and -versions exclude each other"},
		{"drift -timeout 0s", "-timeout must be more than 0"},
		{"drift -timeout soon", "the value of -timeout is wrong: parse error; write a duration such as 10m"},
		{"reconcile -holdback 10", "the value of -holdback is wrong: parse error; write a duration such as 10m\n"},
		{"drift -timeout " + secretKey, "the value of -timeout is wrong"},
		{"drift -json=" + secretKey, "the value of -json is wrong: parse error\n"},
		{"drift -page-size=mongodb://app:" + password + "@host", "the value of -page-size is wrong"},
		{"drift -allow-unique " + password + ",", "the value of -allow-unique is wrong: a name is empty"},
		{"drift -" + secretKey, "not a flag of this command"},
		{"drift ---" + secretKey, "not a flag of this command"},
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
		{"jobs -retry -discard", "-retry and -discard exclude each other"},
		{"jobs -kind both", "-kind must be create or delete"},
		{"jobs -limit 0", "-limit must be from 1 to 10000"},
		{"jobs " + secretKey, "not the id of a Clerk user"},
		{"reconcile -max-deactivations -2", "-max-deactivations must be 1 or more"},
		{"reconcile -default-role=", "-default-role must not be empty"},
		{"user", "takes one argument"},
		{"user user_1 user_2", "takes one argument"},
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
			f.env.open = func(context.Context, settings, *mongostore.Options) (database, error) {
				t.Error("the database was opened")
				return nil, errors.New("opened")
			}
			o := f.run(t, strings.Fields(tt.args)...)
			o.want(t, exitUsage, tt.want)
			if o.stdout != "" {
				t.Error("the error is on standard output")
			}
		})
	}
}

func TestDidYouMean(t *testing.T) {
	t.Parallel()
	names := []string{"inspect", "reconcile", "drift", "user", "indexes", "db"}
	for typed, want := range map[string]string{
		"drift": "drift", "dirft": "drift", "drft": "drift", "drifts": "drift", "drizz": "drift", "drizzle": "",
		"users": "user", "usr": "user", "index": "indexes", "rec": "reconcile", "re": "",
		"inspekt": "inspect", "INSPECT": "inspect", "bd": "db", "x": "", "": "",
		"reconciliation": "", "synchronise": "",
	} {
		if want != "" {
			want = "; did you mean " + want + "?"
		}
		if got := didYouMean(typed, "", names); got != want {
			t.Errorf("didYouMean(%q) = %q, want %q", typed, got, want)
		}
	}
	for pair, want := range map[[2]string]int{
		{"", ""}: 0, {"", "abc"}: 3, {"abc", ""}: 3, {"abc", "acb"}: 1, {"abc", "abd"}: 1, {"kitten", "sitting"}: 3,
	} {
		if got := editDistance(pair[0], pair[1]); got != want {
			t.Errorf("editDistance(%q) = %d, want %d", pair, got, want)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	module := func(path, v string) debug.Module { return debug.Module{Path: path, Version: v} }
	dependency, local := module(modulePath, "v0.3.0"), module("../clerksync-go", "")
	replaced := dependency
	replaced.Replace = &local
	for _, tt := range []struct {
		name  string
		built *debug.BuildInfo
		want  version
		text  string
	}{
		{"release", &debug.BuildInfo{Main: module(modulePath, "v0.1.0")}, version{Version: "v0.1.0"}, "clerksync v0.1.0, go"},
		{"clone", &debug.BuildInfo{Main: module(modulePath, "(devel)"), Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"},
		}}, version{Version: "(devel)", Revision: "0123456789abcdef", Modified: true},
			"clerksync (devel), revision 0123456789ab with changes, go"},
		{"app", &debug.BuildInfo{Main: module("example.com/app", "v9.9.9"), Deps: []*debug.Module{{Path: "x"}, &dependency}, Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "0123456789abcdef"},
		}}, version{Version: "v0.3.0"}, "clerksync v0.3.0, go"},
		{"app with a replaced module", &debug.BuildInfo{Deps: []*debug.Module{&replaced}}, version{Version: "(devel)"}, "clerksync (devel), go"},
		{"nothing recorded", nil, version{Version: "unknown"}, "clerksync unknown, go"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.built = tt.built
			f.vars = nil // it needs no variables
			o := f.run(t, "version")
			o.want(t, exitDone, tt.text, runtime.GOOS+"/"+runtime.GOARCH+"\n")
			if got := f.run(t, "--version"); got != o {
				t.Errorf("--version prints %v", got)
			}
			var got version
			if err := json.Unmarshal([]byte(f.run(t, "version", "-json").stdout), &got); err != nil {
				t.Fatal(err)
			}
			tt.want.Go, tt.want.Platform = runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH
			if got != tt.want {
				t.Errorf("the JSON is %+v, want %+v", got, tt.want)
			}
		})
	}
}

// configure is called with the settings read, and what it adds is used.
func TestConfigure(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.clerk.CreateUser(fakeclerk.NewUser{ID: ada, FirstName: "Ada"})
	var role clerksync.Role
	f.env.configure = func(c *clerksync.Config, o *mongostore.Options) {
		if c.SecretKey != secretKey || c.APIURL != f.vars[apiURLVar] || c.DefaultRole != "MEMBER" || o.BatchSize != 7 {
			t.Errorf("configure is called with %+v and %+v", c, o)
		}
		c.RoleOf = func(*clerk.User) clerksync.Role { return role }
		c.Map = func(_ *clerk.User, u *clerksync.User) error { u.Name = "Mapped"; return nil }
		o.EraseOnDelete = true
	}
	args := []string{"reconcile", quick, "-default-role", "MEMBER", "-batch-size", "7"}
	f.run(t, args...).want(t, exitDone)
	if u := f.record(t, ada); u.Name != "Mapped" || u.Role != "MEMBER" {
		t.Errorf("the record is %+v", u)
	}
	if !f.db.options.EraseOnDelete || f.db.options.BatchSize != 7 {
		t.Errorf("the collection was opened with %+v", f.db.options)
	}
	role = "TEACHER"
	f.run(t, append(args, "-force")...).want(t, exitDone)
	if u := f.record(t, ada); u.Role != "TEACHER" {
		t.Errorf("the record is %+v", u)
	}
}

// The manual has every flag in its table, with the commands that take it.
func TestReadmeHasEveryFlag(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../cmd/clerksync/README.md")
	if err != nil {
		t.Fatal(err)
	}
	takenBy := make(map[string][]string)
	f := newFixture(t)
	for _, c := range commands() {
		for _, m := range regexp.MustCompile(`(?m)^  (-[a-z-]+)`).FindAllStringSubmatch(f.run(t, "help", c.name).stdout, -1) {
			takenBy[m[1]] = append(takenBy[m[1]], c.name)
		}
	}
	want := make(map[string]string)
	for flag, by := range takenBy {
		want[flag] = strings.Join(by, ", ")
		switch others := slices.DeleteFunc(names(commands()), func(name string) bool { return name == "version" }); {
		case slices.Equal(by, names(commands())):
			want[flag] = "all"
		case slices.Equal(by, others):
			want[flag] = "all but version"
		}
	}
	got := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `(-[a-z-]+)` \\| ([a-z, ]+) \\|").FindAllStringSubmatch(string(readme), -1) {
		got[m[1]] = m[2]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("flags in README.md (-help +README):\n%s", diff)
	}
}

func TestPlain(t *testing.T) {
	t.Parallel()
	const refused = "Clerk refuses the secret key; check that it is this instance's"
	for _, tt := range []struct{ name, text, want string }{
		{"prefix", "clerksync: reconcile: clerksync: it failed", "reconcile: it failed"},
		{
			"unavailable",
			fmt.Sprintf("clerksync: reconcile: clerksync: 503 unavailable: %v: giving up: dial tcp", clerksync.ErrUnavailable),
			"reconcile: giving up: dial tcp",
		},
		{
			"key refused by Clerk",
			"clerk: get user: status 403 forbidden (trace a-1): " + refused + "\nmore",
			"Clerk refuses CLERK_SECRET_KEY (403 forbidden): check that it is this instance's\n  more",
		},
		{
			"key refused without a code of Clerk's",
			"clerk: get user: status 403: " + refused + ": the answer is not in Clerk's form",
			"clerk: get user: status 403: " + refused + ": the answer is not in Clerk's form",
		},
		{"several lines", errors.Join(errors.New("one"), errors.New("two")).Error(), "one\n  two"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := plain(tt.text); got != tt.want {
				t.Errorf("plain(%q)\n is %q\nwant %q", tt.text, got, tt.want)
			}
		})
	}
}

// If Clerk fails, the run says so while it waits, and again in the report of an interrupted run.
func TestClerkFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return fakeclerk.ErrorFault(502, "bad_gateway") })
	ctx, interrupt := context.WithCancel(t.Context())
	stderr := &trigger{text: "waiting for Clerk", fire: interrupt}
	var stdout bytes.Buffer
	if code := run(ctx, f.env, []string{"drift", quick}, &stdout, stderr); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	if n := strings.Count(stderr.String(), "waiting for Clerk: status 502; giving up at 12:05 UTC\n"); n != 1 {
		t.Errorf("standard error:\n%s", stderr)
	}
	if !strings.Contains(stdout.String(), "only in part; Clerk did not answer: status 502\n") {
		t.Errorf("standard output:\n%s", &stdout)
	}
}

// A wrong CLERK_API_URL ends each command at once, and the error says what to check.
func TestWrongAPIURL(t *testing.T) {
	t.Parallel()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		if strings.HasPrefix(r.URL.Path, "/missing/") {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, "<html>"+password)
	}))
	t.Cleanup(page.Close)
	for name, tt := range map[string]struct{ url, want string }{
		"refused":  {"http://127.0.0.1:1", "connection refused"},
		"no host":  {"https://clerksync.invalid", "no such host"},
		"a page":   {page.URL, "status 200"},
		"no page":  {page.URL + "/missing", "status 404"},
		"not TLS":  {strings.Replace(page.URL, "http:", "https:", 1), "HTTP response to HTTPS client"},
		"with /v1": {page.URL + "/v1", "status 200"},
	} {
		for _, args := range [][]string{{"drift", quick}, {"reconcile", quick}} {
			t.Run(name+" "+args[0], func(t *testing.T) {
				t.Parallel()
				f := newFixture(t)
				f.vars[apiURLVar] = tt.url
				o := f.run(t, args...)
				o.want(t, exitFailed, "Check CLERK_API_URL: Clerk's is https://api.clerk.com", tt.want)
				o.lacks(t, "waiting for Clerk", "Config.")
			})
		}
	}
}

func TestClerkAnswersAgain(t *testing.T) {
	t.Parallel()
	f := population(t, 2)
	calls := 0
	f.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		if calls++; calls <= 2 {
			return fakeclerk.ErrorFault(502, "bad_gateway")
		}
		return nil
	})
	o := f.run(t, "drift", quick)
	o.want(t, exitDone, "Z waiting for Clerk: status 502; giving up at 13:05 UTC\n", "Z Clerk answers again\n")
	if strings.Count(o.stderr, "waiting for Clerk") != 1 {
		t.Error(o)
	}
}

func TestUnanswered(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"no answer in time": context.DeadlineExceeded,
		"no answer":         errors.New("malformed HTTP response \"hush\""),
	} {
		if got := unanswered(err); got != want {
			t.Errorf("unanswered(%v) = %q, want %q", err, got, want)
		}
	}
}
