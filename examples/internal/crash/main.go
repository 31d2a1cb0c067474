// Command crash kills the app and the database under traffic, and checks that nothing
// that was acknowledged is lost and that all converges.
//
//	go -C examples run ./internal/crash [-kills 20] [-database-kills 2] [-processes 3] [-users 60] [-seed N]
//
// The app is the quickstart, in processes of its own behind a balancer that picks one at
// random, dead or alive; the database is the embedded one, a process too. Both are
// killed with SIGKILL, at random moments and in the middle of a webhook, one process or all at
// once, and started again. Clerk is a fakeclerk in this program. Another engine takes
// the embedded one's place by three flags:
//
//	-mongodb-uri mongodb://127.0.0.1:27117/ \
//	-database-kill '…/documentdb kill' -database-start 'DURABLE=1 …/documentdb start'
//
// Meanwhile users sign up, change, are banned and leave in Clerk; their webhooks arrive doubled
// and out of order; users who are there and who have left visit; the app's own fields are edited
// in the database. The program writes down what it was told is done (ledger.go), and compares the
// database with that after each of its restarts, every second, and at the end with Clerk (audit.go).
//
// Svix's rule is fakeclerk's: what is not answered 2xx is sent again under the same svix-id,
// signed afresh. Only the waits of its schedule, hours in all, are this program's and
// shorter (courier.go).
//
// It ends with status 0 and a summary, or with 1 and the first violation, the seed, and where the
// processes' logs are. The seed repeats the plan, though not the operating system's timing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// config is what the flags choose.
type config struct {
	kills, databaseKills int
	processes, users     int
	seed                 uint64

	// Another engine's; empty: the embedded database.
	mongoURI, databaseKill, databaseStart string

	// For tests.
	programs *programs                 // built before
	started  func(pid int)             // called for each process
	killed   func(folder string) error // called while the embedded database is dead
}

// run returns the exit status: 2 where the flags are wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil: // it has been said
		return 2
	}
	began := time.Now()
	say := func(format string, args ...any) {
		_, _ = fmt.Fprintf(stdout, "%7.1fs  "+format+"\n", append([]any{time.Since(began).Seconds()}, args...)...)
	}
	s, err := prove(ctx, o, say)
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "crash: %v\ncrash: the seed was %d\n", err, o.seed)
		return 1
	}
	_, _ = fmt.Fprint(stdout, s)
	return 0
}

func parse(args []string, stderr io.Writer) (config, error) {
	var o config
	flags := flag.NewFlagSet("crash", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.kills, "kills", 20, "how many app processes to kill")
	flags.IntVar(&o.databaseKills, "database-kills", 2, "how many times to kill the database")
	flags.IntVar(&o.processes, "processes", 3, "how many app processes to run")
	flags.IntVar(&o.users, "users", 60, "how many users to begin with")
	flags.Uint64Var(&o.seed, "seed", 0, "seed of the plan; default a random one")
	flags.StringVar(&o.mongoURI, "mongodb-uri", "", "connection `string` of a running database to use in place of the embedded one")
	flags.StringVar(&o.databaseKill, "database-kill", "", "shell `command` that kills the database of -mongodb-uri")
	flags.StringVar(&o.databaseStart, "database-start", "", "shell `command` that starts it again on the same data")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.kills < 0 || o.databaseKills < 0:
		err = errors.New("the number of kills is negative")
	case o.processes < 1 || o.users < 1:
		err = errors.New("-processes and -users must be at least 1")
	case o.mongoURI == "" && o.databaseKill+o.databaseStart != "":
		err = errors.New("-database-kill and -database-start go with -mongodb-uri")
	case o.mongoURI != "" && o.databaseKills > 0 && (o.databaseKill == "" || o.databaseStart == ""):
		err = errors.New("-mongodb-uri needs -database-kill and -database-start, or -database-kills 0")
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "crash:", err)
		return o, err
	}
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	return o, nil
}
