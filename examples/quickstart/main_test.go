package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/examples/internal/embeddeddb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOnce(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	args := []string{"-once", "-demo", "-data", t.TempDir()}
	if status := run(t.Context(), args, lookupIn(complete), &out, &errs); status != 0 {
		t.Fatalf("status %d\n%s\n%s", status, &errs, &out)
	}
	told := out.String()
	if !strings.Contains(told, "6. ") || !strings.HasSuffix(told, "All checks passed.\n") {
		t.Errorf("a chapter or the end is missing:\n%s", told)
	}
	if strings.Contains(told, "\x1b") {
		t.Errorf("colours, although the output is not a terminal:\n%s", told)
	}
}

// A wrong key or secret is found by clerksync, after the database was opened. The errors never
// contain values.
func TestWrongVariables(t *testing.T) {
	t.Parallel()
	db, err := embeddeddb.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for name, want := range map[[2]string]string{
		{"CLERK_SECRET_KEY", "pk_test_hunter2"}:                            "Config.SecretKey",
		{"CLERK_WEBHOOK_SIGNING_SECRET", "hunter2"}:                        "WebhookConfig.Secrets",
		{"CLERK_API_URL", "hunter2"}:                                       "Config.APIURL",
		{"CLERK_API_URL", "https://user:hunter2@api.clerk.com"}:            "Config.APIURL",
		{"MONGODB_URI", "hunter2:27017"}:                                   "MONGODB_URI is not a connection string",
		{"MONGODB_URI", "mongodb://user:a@hunter2@127.0.0.1:1/?ssl=false"}: "MONGODB_URI is not a connection string",
	} {
		vars := with(map[string]string{"MONGODB_URI": db.URI(), name[0]: name[1]})
		var errs bytes.Buffer
		status := run(t.Context(), nil, lookupIn(vars), io.Discard, &errs)
		if status == 0 || !strings.Contains(errs.String(), want) {
			t.Errorf("%s: status %d, want %q on standard error:\n%s", name, status, want, &errs)
		}
		if strings.Contains(errs.String(), "hunter2") {
			t.Errorf("%s: a secret is on standard error:\n%s", name, &errs)
		}
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	malformed := filepath.Join(dir, "malformed")
	writeFile(t, malformed, "CLERK_SECRET_KEY=sk_test_hunter2\nhunter2\n")
	half := filepath.Join(dir, "half")
	writeFile(t, half, "CLERK_SECRET_KEY=sk_test_hunter2\n")
	const unreachable = "mongodb://user:hunter2@127.0.0.1:1/?serverSelectionTimeoutMS=100"
	const wrongOption = "mongodb://user:hunter2@host/?ssl=maybe"

	for _, tt := range []struct {
		name string
		args []string
		vars map[string]string
		want int
		says string
	}{
		{"help", []string{"-h"}, nil, 0, "Usage"},
		{"unknown flag", []string{"-bogus"}, nil, 2, `unknown flag "-bogus"`},
		{"argument", []string{"bogus"}, nil, 2, `unexpected argument "bogus"`},
		{"argument that may be a secret", []string{"sk_test_hunter2"}, nil, 2, "unexpected argument (not shown"},
		{"unknown flag that may be a secret", []string{"-sk_test_hunter2"}, nil, 2, "unknown flag (not shown"},
		{"not a flag's syntax", []string{"---hunter2"}, nil, 2, "is not a flag"},
		{"a flag's value", []string{"-once=hunter2"}, nil, 2, "the value of -once is wrong"},
		{"a flag's duration", []string{"-cache-ttl", "hunter2"}, nil, 2, "the value of -cache-ttl is wrong: parse error"},
		{"a flag without its value", []string{"-cache-ttl"}, nil, 2, "flag needs an argument: -cache-ttl"},
		{"half of the settings", []string{"-once"}, with(map[string]string{"MONGODB_URI": ""}), 2, "MONGODB_URI: mongodb://"},
		{"half of the settings, in a file", []string{"-once", "-env", half}, nil, 2, "CLERK_WEBHOOK_SIGNING_SECRET: whsec_"},
		{"malformed file", []string{"-once", "-env", malformed}, nil, 2, malformed + ": not every line is NAME=VALUE"},
		{"no file", []string{"-env", filepath.Join(dir, "missing")}, nil, 2, "missing"},
		{"once with settings", []string{"-once"}, complete, 2, "-demo"},
		{"no MongoDB", nil, with(map[string]string{"MONGODB_URI": unreachable}), 1, "127.0.0.1:1"},
		{"MongoDB's options", nil, with(map[string]string{"MONGODB_URI": wrongOption}), 2, "MONGODB_URI is not a connection string"},
		{"the data folder is a file", []string{"-once", "-data", half}, nil, 1, "-data names another"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var errs bytes.Buffer
			got := run(t.Context(), tt.args, lookupIn(tt.vars), io.Discard, &errs)
			if got != tt.want || !strings.Contains(errs.String(), tt.says) {
				t.Errorf("status %d, want %d and %q on standard error:\n%s", got, tt.want, tt.says, &errs)
			}
			if strings.Contains(errs.String(), "hunter2") {
				t.Errorf("a secret is on standard error:\n%s", &errs)
			}
		})
	}
}

// After the story the demo serves until it is interrupted.
func TestServeDemo(t *testing.T) {
	t.Parallel()
	p := startProcess(t, []string{"-data", t.TempDir()}, nil)
	told := p.until(t, "Interrupt (Ctrl-C) to end.")
	find := func(pattern string) string {
		t.Helper()
		m := regexp.MustCompile(pattern).FindStringSubmatch(told)
		if m == nil {
			t.Fatalf("no %s in:\n%s", pattern, told)
		}
		return m[1]
	}
	pageURL := find(`Open the page: +(\S+)`)
	meURL := find(`curl -i (\S+/api/me)`)
	if status, _ := httpGet(t, meURL, ""); status != http.StatusUnauthorized {
		t.Errorf("without a token: %d, want 401", status)
	}
	_, token := httpGet(t, find(`curl -s (\S+/token)\)`), "")
	if status, body := httpGet(t, meURL, strings.TrimSpace(token)); status != http.StatusOK {
		t.Errorf("with a token: %d %s, want 200", status, body)
	}
	p.until(t, "visit: answered")
	if status, body := httpGet(t, pageURL, ""); status != http.StatusOK || !strings.Contains(body, "converge") {
		t.Errorf("the page: %d %s, want 200", status, body)
	}
	p.interrupt(t)
}

// The variables name the Clerk instance and the database.
func TestServeApp(t *testing.T) {
	t.Parallel()
	db, err := embeddeddb.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	clerk, err := fakeclerk.Start(fakeclerk.Config{SecretKey: "sk_live_quickstart"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = clerk.Close() })

	// Some variables come from a file, which also has a wrong CLERK_SECRET_KEY. The environment
	// overrides it.
	const secret = "whsec_cXVpY2tzdGFydCAtIHF1aWNrc3RhcnQ="
	file := filepath.Join(t.TempDir(), "settings")
	writeFile(t, file, "export CLERK_WEBHOOK_SECRET='"+secret+"'\n"+
		"MONGODB_URI="+db.URI()+" # embedded\n"+
		"CLERK_SECRET_KEY=sk_live_wrong\n")
	p := startProcess(t, []string{"-addr", "127.0.0.1:0", "-env", file}, map[string]string{
		"CLERK_SECRET_KEY": clerk.SecretKey(),
		"CLERK_API_URL":    strings.TrimSuffix(clerk.APIURL(), "/v1"),
		"MONGODB_DATABASE": "school",
	})
	told := p.until(t, "school.users")
	app := regexp.MustCompile(`http://[\d.:]+`).FindString(told)

	// A webhook creates one record, a visit another.
	endpoint := clerk.AddEndpoint(app+"/api/webhooks/clerk", fakeclerk.EndpointOptions{Secret: secret})
	ada := clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := clerk.Settle(ctx); err != nil {
		t.Fatal(err)
	}
	if got := endpoint.Messages()[0].State; got != fakeclerk.Delivered {
		t.Errorf("the webhook is %s, want delivered", got)
	}
	endpoint.SetOutage(true)
	alan := clerk.CreateUser(fakeclerk.NewUser{FirstName: "Alan"})
	for id, name := range map[string]string{ada: "Ada", alan: "Alan"} {
		status, body := httpGet(t, app+"/api/me", clerk.SessionToken(id))
		var me struct{ ClerkID, Name string }
		err := json.Unmarshal([]byte(body), &me)
		if err != nil || status != http.StatusOK || me.ClerkID != id || me.Name != name {
			t.Errorf("%s: %d %s, want 200 and the record", name, status, body)
		}
	}
	if n := clerk.Calls("GET /v1/users/{id}"); n != 1 {
		t.Errorf("%d calls to Clerk for a user, want 1", n)
	}
	for what, token := range map[string]string{
		"no token":                 "",
		"an opaque token":          "oat_abc",
		"another instance's token": foreignToken(t),
	} {
		status, body := httpGet(t, app+"/api/me", token)
		if status != http.StatusUnauthorized || !strings.Contains(body, `"code":"token_`) {
			t.Errorf("%s: %d %s, want 401 with a token's code", what, status, body)
		}
	}

	client, err := mongo.Connect(options.Client().ApplyURI(db.URI()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(t.Context())) }()
	records := client.Database("school").Collection("users")
	if n, err := records.CountDocuments(t.Context(), bson.D{}); err != nil || n != 2 {
		t.Errorf("%d records, %v, want 2", n, err)
	}
	p.interrupt(t)
}

// foreignToken returns a session token of another Clerk instance.
func foreignToken(t *testing.T) string {
	t.Helper()
	other, err := fakeclerk.Start(fakeclerk.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	return other.SessionToken("user_other")
}

func httpGet(t *testing.T, url, token string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// process is a run of the program on a goroutine.
type process struct {
	cancel context.CancelFunc
	lines  chan string
	status chan int
	errs   *bytes.Buffer // read it only after status
}

func startProcess(t *testing.T, args []string, vars map[string]string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := &process{cancel: cancel, lines: make(chan string, 1000), status: make(chan int, 1), errs: new(bytes.Buffer)}
	r, w := io.Pipe()
	go func() {
		p.status <- run(ctx, args, lookupIn(vars), w, p.errs)
		_ = w.Close()
	}()
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	return p
}

// until reads standard output up to a line that contains text.
func (p *process) until(t *testing.T, text string) string {
	t.Helper()
	timeout := time.After(time.Minute)
	var told strings.Builder
	for {
		select {
		case line, ok := <-p.lines:
			told.WriteString(line + "\n")
			if strings.Contains(line, text) {
				return told.String()
			}
			if !ok {
				t.Fatalf("it ended with status %d before %q:\n%s\n%s", <-p.status, text, &told, p.errs)
			}
		case <-timeout:
			t.Fatalf("no %q within a minute:\n%s", text, &told)
		}
	}
}

// interrupt does what a signal does. The program must end with status 0.
func (p *process) interrupt(t *testing.T) {
	t.Helper()
	p.cancel()
	if status := <-p.status; status != 0 {
		t.Errorf("status %d after an interrupt, want 0:\n%s", status, p.errs)
	}
}
