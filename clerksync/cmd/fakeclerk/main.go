// Command fakeclerk serves a fake Clerk for programs in any language: Clerk's Backend API, session
// tokens and signed webhooks, at a fixed address, without an account. It prints the environment for
// your app:
//
//	fakeclerk -users 3 -webhook http://127.0.0.1:8080/api/webhooks/clerk
//
// People sign up and sign in, Clerk goes down, and webhooks are lost, doubled or late by flags and by
// requests to the control API, which fakeclerk -help lists:
//
//	curl -X POST http://127.0.0.1:4455/__fake/users
//	curl -X POST http://127.0.0.1:4455/__fake/sessions -d '{"user_id": "user_…", "seconds": 3600}'
//	curl -X POST http://127.0.0.1:4455/__fake/webhooks/next -d '{"drop": true}'
//
// Clerk's own command line works with it (npx clerk users list), with CLERK_SECRET_KEY and
// CLERK_BACKEND_API_URL set. Package fakeclerk is the same for Go tests, and says what is modelled.
//
// The users are in memory and gone when the command ends. It listens on the loopback interface only.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// The exit statuses are those of command clerksync.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 64 // EX_USAGE of sysexits.h
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run serves until ctx is done. It returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = io.WriteString(stdout, help())
		return exitDone
	case err != nil:
		_, _ = fmt.Fprintf(stderr, "fakeclerk: %v\nfakeclerk -help explains the flags\n", err)
		return exitUsage
	}
	err = o.serve(ctx, stdout, stderr)
	var usage *usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage):
		_, _ = fmt.Fprintf(stderr, "fakeclerk: %v\nfakeclerk -help explains the flags\n", err)
		return exitUsage
	}
	_, _ = fmt.Fprintln(stderr, "fakeclerk:", strings.ReplaceAll(err.Error(), "fakeclerk: ", ""))
	return exitFailed
}

// usageError means that flags are wrong.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// options are the flags.
type options struct {
	addr, key       string
	webhook, secret string
	users           int
	tokens          time.Duration
	party           string
	outage          string
	rateLimit       int
	seed            uint64
	quiet           bool
}

const (
	defaultAddr = "127.0.0.1:4455"
	maxUsers    = 100_000
	// maxShown is how many users are listed at the start.
	maxShown = 3
)

func (o *options) bind(f *flag.FlagSet) {
	f.StringVar(&o.addr, "addr", defaultAddr, "listen on this loopback `address`; port 0 is a free one")
	f.StringVar(&o.key, "key", fakeclerk.DefaultSecretKey,
		"secret `key` that the API accepts: sk_test_…, or sk_live_… for production's rate limit")
	f.StringVar(&o.webhook, "webhook", "", "deliver webhooks to this `URL` of your app")
	f.StringVar(&o.secret, "secret", "", "sign them with this secret, `whsec_…` (default a new one, which is printed)")
	f.IntVar(&o.users, "users", 0, "`number` of users who exist at the start, without webhooks")
	f.DurationVar(&o.tokens, "tokens", 0,
		"print session tokens of the first users that are valid for this `duration`: 24h (default none)")
	f.StringVar(&o.party, "party", "",
		"`origin` of your frontend, for apps with AuthorizedParties: the printed tokens are made for it (default none)")
	f.StringVar(&o.outage, "outage", "", "start with an outage: the API answers this `status`, 503 or 429, or not at all: hang")
	f.IntVar(&o.rateLimit, "rate-limit", 0,
		"`requests` to the API in 10 seconds; -1: any (default Clerk's 100, or 1000 with sk_live_)")
	f.Uint64Var(&o.seed, "seed", 0, "ids and secrets are the same at each start with this `number` (default 0: they differ)")
	f.BoolVar(&o.quiet, "quiet", false, "do not log requests and webhooks on standard error")
}

// parse reads the flags.
func parse(args []string) (*options, error) {
	var o options
	f := flag.NewFlagSet("fakeclerk", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	o.bind(f)
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, errors.New("there are only flags, no arguments")
	}
	return &o, o.check()
}

func (o *options) check() error {
	switch {
	case !strings.HasPrefix(o.key, "sk_test_") && !strings.HasPrefix(o.key, "sk_live_"):
		return errors.New("-key does not begin with sk_test_ or sk_live_, as Clerk's secret keys do")
	case !visible(o.key):
		return errors.New("-key has a character that a header cannot have")
	case o.users < 0 || o.users > maxUsers:
		return fmt.Errorf("-users is not from 0 to %d", maxUsers)
	case o.tokens < 0:
		return errors.New("-tokens is negative")
	case o.tokens > 0 && o.users == 0:
		return errors.New("-tokens needs -users")
	case !visible(o.party), strings.ContainsAny(o.party, `'"\`): // it is printed in quotes, for a shell
		return errors.New("-party is not an origin, such as http://localhost:3000")
	case o.secret != "" && o.webhook == "":
		return errors.New("-secret needs -webhook")
	}
	if _, err := strconv.Atoi(o.outage); err != nil && o.outage != "" && o.outage != "hang" {
		return errors.New(`-outage is neither a status, such as 503, nor "hang"`)
	}
	return nil
}

// visible reports whether s has only visible ASCII characters, as headers and origins have.
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// serve starts the server, says how to use it, and returns when ctx is done.
func (o *options) serve(ctx context.Context, stdout, stderr io.Writer) (err error) {
	srv, err := fakeclerk.Start(fakeclerk.Config{
		Addr: o.addr, SecretKey: o.key, RateLimit: o.rateLimit, Seed: o.seed, Logger: o.logger(stderr),
	})
	if err != nil {
		return fmt.Errorf("-addr: %w", err)
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	for n := range o.users {
		u := fakeclerk.SampleUser(n)
		u.CreatedAt = srv.Now().Add(time.Duration(n-o.users) * time.Second) // in this order
		srv.CreateUser(u)
	}
	text, err := o.begin(ctx, srv)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(stdout, text); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// begin does what the flags say, by the control API, and returns what the command prints at the start.
// All of it may be pasted into a shell.
func (o *options) begin(ctx context.Context, srv *fakeclerk.Server) (string, error) {
	var b strings.Builder
	if o.webhook != "" { // after the users, who signed up earlier
		body := map[string]any{"url": o.webhook, "secret": o.secret}
		if _, err := control(ctx, srv, "POST /webhooks", body); err != nil {
			return "", fmt.Errorf("-webhook: %w", err)
		}
		fmt.Fprintf(&b, "# Webhooks go to %s\n", o.webhook)
	}
	if o.outage != "" {
		body := map[string]any{"hang": o.outage == "hang"}
		if status, err := strconv.Atoi(o.outage); err == nil {
			body["status"] = status
		}
		if _, err := control(ctx, srv, "POST /outage", body); err != nil {
			return "", fmt.Errorf("-outage: %w", err)
		}
		fmt.Fprintf(&b, "# Clerk is down until:   curl -X DELETE %s/outage\n", srv.ControlURL())
	}
	if err := o.showUsers(&b, srv); err != nil {
		return "", err
	}
	env, err := control(ctx, srv, "GET /env", nil)
	if err != nil {
		return "", err
	}
	party := ""
	if o.party != "" {
		party = fmt.Sprintf(`, "authorized_party": %q`, o.party)
	}
	return fmt.Sprintf(`# A fake Clerk is at %[1]s until you press Ctrl-C. For your app,
# or eval "$(curl -s %[4]s/env)":
%[2]s%[3]s# Somebody signs up:     curl -X POST %[4]s/users
# A session token:       curl -X POST %[4]s/tokens -d '{"user_id": "user_…", "seconds": 3600%[5]s}'
# What else can happen:  curl %[4]s
`, strings.TrimSuffix(srv.APIURL(), "/v1"), env, b.String(), srv.ControlURL(), party), nil
}

// showUsers lists the first users, with their tokens.
func (o *options) showUsers(b *strings.Builder, srv *fakeclerk.Server) error {
	ids := srv.UserIDs()
	for n, id := range ids[:min(len(ids), maxShown)] {
		var u clerk.User
		raw, _ := srv.User(id)
		if err := json.Unmarshal(raw, &u); err != nil {
			return err
		}
		fmt.Fprintf(b, "# %s is %s %s, %s\n", id, *u.FirstName, *u.LastName, u.EmailAddresses[0].EmailAddress)
		if o.tokens > 0 {
			token, err := srv.Token(id, fakeclerk.TokenOptions{ExpiresAt: srv.Now().Add(o.tokens), AuthorizedParty: o.party})
			if err != nil {
				return err
			}
			fmt.Fprintf(b, "export TOKEN_%d=%s\n", n+1, token)
		}
	}
	if more := len(ids) - maxShown; more > 0 {
		fmt.Fprintf(b, "# and %d more: GET /v1/users lists them\n", more)
	}
	return nil
}

// control sends a request to the control API and returns its answer.
func control(ctx context.Context, srv *fakeclerk.Server, route string, body map[string]any) (string, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return "", err
	}
	method, path, _ := strings.Cut(route, " ")
	r, err := http.NewRequestWithContext(ctx, method, srv.ControlURL()+path, bytes.NewReader(raw))
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode == http.StatusOK {
		return string(answer), err
	}
	var refused struct{ Error string }
	if json.Unmarshal(answer, &refused) != nil {
		return "", errors.New(res.Status)
	}
	return "", &usageError{refused.Error}
}

// logger writes a line for each request and each webhook, with the time of day.
func (o *options) logger(w io.Writer) *slog.Logger {
	if o.quiet {
		return nil
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			switch a.Key {
			case slog.LevelKey:
				return slog.Attr{}
			case slog.TimeKey:
				return slog.String(a.Key, a.Value.Time().Format(time.TimeOnly))
			}
			return a
		},
	}))
}

// help explains the command.
func help() string {
	var o options
	var flags strings.Builder
	f := flag.NewFlagSet("fakeclerk", flag.ContinueOnError)
	f.SetOutput(&flags)
	o.bind(f)
	f.PrintDefaults()
	return fmt.Sprintf(`fakeclerk serves a fake Clerk on this machine: Backend API, session tokens and signed webhooks,
for apps in any language, without an account. It prints the environment for your app and logs
requests and webhooks on standard error. Its users are in memory.

Usage: fakeclerk [flags]

Flags:
%s
Exit status:
  0    it was ended: Ctrl-C, SIGTERM
  1    it could not run
  64   wrong flags

Examples:
  fakeclerk -users 3 -tokens 24h -party http://localhost:3000
  fakeclerk -webhook http://127.0.0.1:8080/api/webhooks/clerk
  eval "$(curl -s http://%s/__fake/env)"     # in the shell of your app
  npx clerk users list                              # Clerk's own command line, in that shell

%s`, &flags, defaultAddr, fakeclerk.ControlHelp)
}
