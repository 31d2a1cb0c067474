// Package cli is the command line of clerksync as a package. Command clerksync runs it with the standard
// mapping; an app that has a Map or a RoleOf runs it from a program of its own.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"github.com/vbauerster/mpb/v8"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// Main is the command line for an app. It reads flags and variables as command clerksync does (-help lists
// them), runs the command that they name and ends the process with its exit code.
//
// If configure is not nil, it is called once for each command, with the Config and the Options that the
// flags and variables made, so that the app adds its Map, RoleOf and so on. What it sets wins over the
// flags, except that the command sets Store, HTTPClient, CacheTTL, Logger and Now of the Config itself.
//
//	func main() {
//		cli.Main(func(c *clerksync.Config, o *mongostore.Options) {
//			c.Map, c.RoleOf = myMap, myRoleOf
//			o.EraseOnDelete = true
//		})
//	}
func Main(configure func(*clerksync.Config, *mongostore.Options)) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	env := environment{
		lookup:    os.LookupEnv,
		now:       time.Now,
		terminal:  isTerminal,
		configure: configure,
		open:      openMongo,
		reconcile: (*clerksync.Syncer).Reconcile,
	}
	os.Exit(run(ctx, env, os.Args[1:], os.Stdout, os.Stderr))
}

// environment is what the program touches of the world; tests have their own.
type environment struct {
	lookup    func(string) (string, bool)
	now       func() time.Time
	terminal  func(io.Writer) bool                         // whether a bar can be drawn there
	configure func(*clerksync.Config, *mongostore.Options) // nil: nothing to add
	open      func(context.Context, settings, *mongostore.Options) (database, error)
	reconcile func(*clerksync.Syncer, context.Context, clerksync.ReconcileOptions) (clerksync.Report, error)
	bar       []mpb.ContainerOption
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
