// Command clerksync keeps a users collection in step with Clerk from the command
// line: where webhooks were lost, for a collection that is older than its
// webhooks, and in cron or CI, to find out whether there is anything to do.
//
//	go run ./clerksync/cmd/clerksync -help
//
// reconcile brings the whole collection in step, drift says what a reconcile
// would change, user shows one record beside Clerk's state, and indexes lists the
// collection's indexes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/vbauerster/mpb/v8"

	"github.com/clerksync/clerksync-go/clerksync"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	env := environment{
		lookup:    os.LookupEnv,
		now:       time.Now,
		terminal:  isTerminal,
		open:      openMongo,
		reconcile: (*clerksync.Syncer).Reconcile,
	}
	os.Exit(run(ctx, env, os.Args[1:], os.Stdout, os.Stderr))
}

// environment is what the program touches of the world; tests have their own.
type environment struct {
	lookup    func(string) (string, bool)
	now       func() time.Time
	terminal  func(io.Writer) bool // whether a bar can be drawn there
	open      func(context.Context, settings) (database, error)
	reconcile func(*clerksync.Syncer, context.Context, clerksync.ReconcileOptions) (clerksync.Report, error)
	bar       []mpb.ContainerOption
}

// The exit statuses. They are part of what scripts rely on.
const (
	exitDone   = 0
	exitFailed = 1
	exitDiffer = 2
	exitUsage  = 64 // EX_USAGE of sysexits.h
)

// errDiffer and errReported end a command whose output has said all.
var (
	errDiffer   = errors.New("not in step")
	errReported = errors.New("failed")
)

// usageError is a fault of the flags or the settings: nothing has been done.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// run is the program without the process around it; it returns the exit status.
func run(ctx context.Context, env environment, args []string, stdout, stderr io.Writer) int {
	err := dispatch(ctx, env, args, stdout, stderr)
	var usage *usageError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errDiffer):
		return exitDiffer
	case errors.Is(err, errReported):
		return exitFailed
	case errors.As(err, &usage):
		_, _ = fmt.Fprintln(stderr, "clerksync:", err)
		return exitUsage
	case ctx.Err() != nil:
		_, _ = fmt.Fprintln(stderr, "clerksync: interrupted")
		return exitFailed
	}
	_, _ = fmt.Fprintln(stderr, "clerksync:", plain(err.Error()))
	return exitFailed
}

// plain is an error's text without the library's name, with which every message of
// the library's begins, and without the status that the library would answer with.
func plain(text string) string {
	text = strings.ReplaceAll(text, "clerksync: ", "")
	text = strings.ReplaceAll(text, "503 unavailable: Clerk or the store is unavailable: ", "")
	text = refusal.ReplaceAllString(text, "Clerk refuses "+secretKeyVar+" ($1): check that it is this instance's")
	return strings.ReplaceAll(text, "\n", "\n  ")
}

// refusal is what an error says of a key that Clerk itself refuses, and all before it. An answer
// without a code of Clerk's may be a proxy's.
var refusal = regexp.MustCompile(`(?m)^.*: status (40[13] [a-z0-9_]+)(?: \(trace [^)]*\))?: Clerk refuses the secret key; check that it is this instance's`)

// dispatch finds the command that args begin with, and runs it.
func dispatch(ctx context.Context, env environment, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return usagef("no command\n%s", helpHint)
	}
	name, rest := args[0], args[1:]
	switch name {
	case "-h", "-help", "--help":
		return print(stdout, help())
	case "help":
		if len(rest) == 0 {
			return print(stdout, help())
		}
		name, rest = rest[0], []string{"-help"}
	}
	for _, c := range commands() {
		if c.name == name {
			return c.run(ctx, &call{env: env, command: c, stdout: stdout, stderr: stderr}, rest)
		}
	}
	if isWord.MatchString(name) { // what is none might be a secret
		return usagef("there is no command %q\n%s", name, helpHint)
	}
	return usagef("the first argument is no command\n%s", helpHint)
}

const helpHint = "clerksync -help lists the commands, clerksync help COMMAND explains one"

var isWord = regexp.MustCompile(`^-{0,2}[a-zA-Z]{1,20}$`)

// command is one of the program's commands.
type command struct {
	name string
	args string // for the usage line
	run  func(context.Context, *call, []string) error
}

// commands are the program's, in the order of the help.
func commands() []command {
	return []command{
		{"reconcile", "", runReconcile},
		{"drift", "", runDrift},
		{"user", " USER_ID", runUser},
		{"indexes", "", runIndexes},
	}
}

// call is one run of a command.
type call struct {
	env            environment
	command        command
	stdout, stderr io.Writer
}
