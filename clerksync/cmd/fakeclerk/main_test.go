package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/jwks"
	"github.com/clerk/clerk-sdk-go/v2/jwt"
	"github.com/clerk/clerk-sdk-go/v2/user"
	svix "github.com/svix/svix-webhooks/go"
	"go.uber.org/goleak"
)

// In a process with COMMAND set, the test binary is the command.
func TestMain(m *testing.M) {
	if os.Getenv("COMMAND") != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// served is a running command.
type served struct {
	greeting string
	env      map[string]string // what the greeting exports
}

// start runs the command until the end of the test and checks that it then succeeds.
func start(t *testing.T, args ...string) served {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	r, w := io.Pipe()
	var log bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, append([]string{"-addr", "127.0.0.1:0"}, args...), w, &log)
		w.Close()
	}()
	t.Cleanup(func() {
		interrupt()
		if code := <-ended; code != exitDone {
			t.Errorf("exit status %d:\n%s", code, &log)
		}
	})
	// The greeting is one write. A command that fails ends it.
	buffer := make([]byte, 1<<16)
	n, _ := r.Read(buffer)
	s := served{greeting: string(buffer[:n]), env: map[string]string{}}
	for line := range strings.Lines(s.greeting) {
		if name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "="); ok && line[0] == 'e' {
			s.env[name] = value
		} else if line[0] != '#' {
			t.Errorf("the line is neither a comment nor a variable: %s", line)
		}
	}
	return s
}

func (s served) config() *clerk.ClientConfig {
	return &clerk.ClientConfig{BackendConfig: clerk.BackendConfig{
		URL: clerk.String(s.env["CLERK_API_URL"] + "/v1"), Key: clerk.String(s.env["CLERK_SECRET_KEY"]),
	}}
}

// control posts to the control API and decodes the answer.
func (s served) control(t *testing.T, route, body string) (answer map[string]any) {
	t.Helper()
	res, err := http.Post(s.env["CLERK_API_URL"]+"/__fake"+route, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || res.StatusCode != 200 {
		t.Fatalf("%s: %s %v %v", route, res.Status, answer, err)
	}
	return answer
}

// An app configured by the printed environment lists users, takes the printed tokens and verifies the
// webhooks.
func TestServe(t *testing.T) {
	t.Parallel()
	type delivery struct {
		header http.Header
		body   []byte
	}
	deliveries := make(chan delivery)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	app := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		deliveries <- delivery{r.Header, body}
	})}
	go app.Serve(listener)
	t.Cleanup(func() { app.Close() })

	const origin = "http://localhost:3000"
	s := start(t, "-users", "5", "-tokens", "24h", "-party", origin, "-secret", secret, "-webhook", "http://"+listener.Addr().String()+"/hooks")
	users, err := user.NewClient(s.config()).List(t.Context(), &user.ListParams{})
	if err != nil || len(users.Users) != 5 {
		t.Fatalf("the users are %v, %v", users, err)
	}
	oldest := users.Users[4]
	if !strings.Contains(s.greeting, "# "+oldest.ID+" is Ada Andersen, ada.andersen@example.com\n") ||
		!strings.Contains(s.greeting, "# and 2 more") || !strings.Contains(s.greeting, `"authorized_party": "`+origin+`"}'`) {
		t.Errorf("the greeting is\n%s", s.greeting)
	}
	claims, err := jwt.Verify(t.Context(), &jwt.VerifyParams{Token: s.env["TOKEN_1"], JWKSClient: jwks.NewClient(s.config())})
	if err != nil || claims.Subject != oldest.ID || *claims.Expiry-*claims.IssuedAt != 24*60*60 || claims.AuthorizedParty != origin {
		t.Errorf("the token has %+v, %v", claims, err)
	}

	webhook, err := svix.NewWebhook(s.env["CLERK_WEBHOOK_SIGNING_SECRET"])
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range []string{"/users", "/users"} {
		s.control(t, route, "")
		d := <-deliveries
		if err := webhook.Verify(d.body, d.header); err != nil || !bytes.Contains(d.body, []byte(`"user.created"`)) {
			t.Errorf("the webhook is %s, %v", d.body, err)
		}
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	down := start(t, "-outage", "429", "-key", "sk_live_1")
	_, err := user.NewClient(down.config()).List(t.Context(), &user.ListParams{})
	if e, ok := err.(*clerk.APIErrorResponse); !ok || e.HTTPStatusCode != 429 {
		t.Errorf("during an outage: %v", err)
	}
	limited := start(t, "-rate-limit", "1", "-quiet")
	client := user.NewClient(limited.config())
	_, _ = client.Get(t.Context(), "user_1")
	_, err = client.Get(t.Context(), "user_1")
	if e, ok := err.(*clerk.APIErrorResponse); !ok || e.HTTPStatusCode != 429 {
		t.Errorf("over the rate limit: %v", err)
	}
	hangs := start(t, "-outage", "hang") // and ends all the same
	go func() { _, _ = user.NewClient(hangs.config()).Get(context.Background(), "user_1") }()

	a, b := start(t, "-seed", "7", "-users", "1"), start(t, "-seed", "7", "-users", "1")
	same := func(s served) string { return strings.ReplaceAll(s.greeting, s.env["CLERK_API_URL"], "") }
	if same(a) != same(b) {
		t.Errorf("a seed makes\n%s\nand\n%s", same(a), same(b))
	}
}

func TestWrongFlags(t *testing.T) {
	t.Parallel()
	taken := start(t)
	address := strings.TrimPrefix(taken.env["CLERK_API_URL"], "http://")
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"-addr " + address, exitFailed, "-addr: Addr " + address + " is taken"},
		{"-addr 0.0.0.0:4455", exitFailed, "is not a loopback address"},
		{"-users -1", exitUsage, "-users is not from 0"},
		{"-users 100001", exitUsage, "-users is not from 0"},
		{"-users x", exitUsage, "invalid value"},
		{"-user 3", exitUsage, "-user"},
		{"3", exitUsage, "no arguments"},
		{"-key pk_test_x", exitUsage, "-key does not begin with"},
		{"-key=sk_test_\n", exitUsage, "-key has a character"},
		{"-tokens 1h", exitUsage, "-tokens needs -users"},
		{"-tokens -1h -users 1", exitUsage, "-tokens is negative"},
		{"-party '", exitUsage, "-party is not an origin"},
		{"-secret " + secret, exitUsage, "-secret needs -webhook"},
		{"-addr 127.0.0.1:0 -webhook /hooks", exitUsage, "-webhook: "},
		{"-addr 127.0.0.1:0 -webhook http://127.0.0.1:1 -secret whsec_?", exitUsage, "-webhook: "},
		{"-outage down", exitUsage, "-outage is neither"},
		{"-addr 127.0.0.1:0 -outage 200", exitUsage, "-outage: status is not one of an error"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), strings.Split(test.args, " "), &stdout, &stderr)
		if code != test.code || !strings.Contains(stderr.String(), test.want) || stdout.Len() > 0 {
			t.Errorf("%s: status %d, %s, want %d, %q", test.args, code, &stderr, test.code, test.want)
		}
		if strings.Contains(strings.TrimPrefix(stderr.String(), "fakeclerk: "), "fakeclerk: ") {
			t.Errorf("it stutters: %s", &stderr)
		}
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-help"}, {"--help"}, {"-h"}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, &stdout, &stderr); code != exitDone || stderr.Len() > 0 {
			t.Errorf("status %d: %s", code, &stderr)
		}
		for _, want := range []string{"  -webhook URL\n", "POST   /__fake/outage", `127.0.0.1:4455/__fake/env`} {
			if !strings.Contains(stdout.String(), want) {
				t.Errorf("the help lacks %q:\n%s", want, &stdout)
			}
		}
	}
}

// As a process, it ends with status 0 on a signal.
func TestSignal(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-addr", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "COMMAND=fakeclerk")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, stdout)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
