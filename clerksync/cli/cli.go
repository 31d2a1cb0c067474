// Package cli is the command line of clerksync as a package. Command clerksync calls it with the
// standard mapping. An app with a Map, a RoleOf, Fields or Adopt calls it from its own program.
package cli

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/vbauerster/mpb/v8"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// Main is the command line for an app. It reads the flags and variables that command clerksync
// reads (-help lists them), runs the command they name and ends the process with its exit code.
//
// If configure is not nil, Main calls it with the settings it read, so that the app can add its
// Map, RoleOf, Fields, Adopt and so on. What configure sets wins over flags and variables, so no
// flag has to repeat it. Afterwards the command sets Store, HTTPClient, CacheTTL, Logger and Now
// of the Config, and clears Record of the Options, which is for handlers.
//
// A command that compares whole records refuses a collection to which a Map has added fields, unless
// configure sets a Map.
//
//	func main() {
//		cli.Main(func(c *clerksync.Config, o *mongostore.Options) {
//			c.Map, c.RoleOf, c.DefaultRole = myMap, myRoleOf, "MEMBER"
//			o.Fields, o.Adopt = myFields, myAdopt
//		})
//	}
func Main(configure func(*clerksync.Config, *mongostore.Options)) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	env := environment{
		lookup:    os.LookupEnv,
		now:       time.Now,
		terminal:  isTerminal,
		configure: configure,
		open:      openMongo,
		reconcile: (*clerksync.Syncer).Reconcile,
		buildInfo: debug.ReadBuildInfo,
	}
	if configure != nil {
		env.program = filepath.Base(os.Args[0])
	}
	os.Exit(run(ctx, env, os.Args[1:], os.Stdout, os.Stderr))
}

// environment is everything outside the program that the commands use. Tests replace it.
type environment struct {
	lookup    func(string) (string, bool) // os.LookupEnv
	now       func() time.Time
	terminal  func(io.Writer) bool                         // whether a progress bar can be drawn there
	configure func(*clerksync.Config, *mongostore.Options) // may be nil
	open      func(context.Context, settings, *mongostore.Options) (database, error)
	reconcile func(*clerksync.Syncer, context.Context, clerksync.ReconcileOptions) (clerksync.Report, error)
	buildInfo func() (*debug.BuildInfo, bool)
	bar       []mpb.ContainerOption
	program   string // the name of an app's own program; empty for command clerksync
}

// programName is what a user types to run a command. An app's own program knows what command
// clerksync does not.
func (e *environment) programName() string { return cmp.Or(e.program, "clerksync") }

// command is one of the program's commands.
type command struct {
	name string
	args string // for the usage line
	run  func(context.Context, *call, []string) error
}

// commands returns the commands in the order of the help.
func commands() []command {
	return []command{
		{"inspect", "", runInspect},
		{"reconcile", "", runReconcile},
		{"drift", "", runDrift},
		{"user", " USER_ID", runUser},
		{"jobs", " [USER_ID…]", runJobs},
		{"indexes", "", runIndexes},
		{"version", "", runVersion},
	}
}

func names(commands []command) []string {
	names := make([]string, len(commands))
	for i, c := range commands {
		names[i] = c.name
	}
	return names
}

// call is one run of a command.
type call struct {
	env            environment
	command        command
	stdout, stderr io.Writer
}

// run is Main without the process around it. It returns the exit code.
func run(ctx context.Context, env environment, args []string, stdout, stderr io.Writer) int {
	err := dispatch(ctx, env, args, stdout, stderr)
	return exitCode(ctx, err, stderr)
}

// dispatch runs the command that args begin with.
func dispatch(ctx context.Context, env environment, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return usagef("no command\n%s", env.helpHint())
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
	case "-version", "--version":
		name = "version"
	}
	for _, c := range commands() {
		if c.name == name {
			return c.run(ctx, &call{env: env, command: c, stdout: stdout, stderr: stderr}, rest)
		}
	}
	if isWord.MatchString(name) { // anything else might be a secret
		return usagef("there is no command %q%s\n%s", name, didYouMean(name, "", names(commands())), env.helpHint())
	}
	return usagef("the first argument is not a command\n%s", env.helpHint())
}

func (e *environment) helpHint() string {
	return fmt.Sprintf("%s -help lists the commands, %[1]s help COMMAND explains one", e.programName())
}

var isWord = regexp.MustCompile(`^-{0,2}[a-zA-Z]{1,20}$`)

// modulePath is the module whose version the program has.
const modulePath = "github.com/clerksync/clerksync-go"

// version is what the program was built from.
type version struct {
	Version  string `json:"version"`            // of the module; "(devel)" if it was built from a clone
	Revision string `json:"revision,omitempty"` // the commit, if it was built from a clone
	Modified bool   `json:"modified"`           // the clone had changes that were not committed
	Go       string `json:"go"`
	Platform string `json:"platform"` // such as linux/amd64
}

// runVersion prints the version.
func runVersion(_ context.Context, c *call, args []string) error {
	var f flag.FlagSet
	asJSON := f.Bool("json", false, "print one JSON value on standard output, and nothing else there")
	if done, err := c.parseNoArguments(&f, nil, args); done || err != nil {
		return err
	}
	built, ok := c.env.buildInfo()
	v := versionOf(built, ok)
	if *asJSON {
		return printJSON(c.stdout, v)
	}
	return print(c.stdout, v.String()+"\n")
}

// versionOf finds the version in what the build recorded. An app's own program has the module among
// its dependencies, possibly replaced.
func versionOf(built *debug.BuildInfo, ok bool) version {
	v := version{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if !ok {
		return v
	}
	if built.Main.Path != modulePath {
		for _, m := range built.Deps {
			if m.Path == modulePath {
				for m.Replace != nil {
					m = m.Replace
				}
				v.Version = cmp.Or(m.Version, "(devel)")
			}
		}
		return v // the revision is the app's
	}
	v.Version = cmp.Or(built.Main.Version, "(devel)")
	for _, s := range built.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

// String is the version for people.
func (v version) String() string {
	text := "clerksync " + v.Version
	if v.Revision != "" {
		text += fmt.Sprintf(", revision %.12s", v.Revision)
	}
	if v.Modified {
		text += " with changes"
	}
	return fmt.Sprintf("%s, %s %s", text, v.Go, v.Platform)
}
