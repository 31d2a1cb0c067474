// Command crash kills the app and the database under traffic. It checks that nothing that was
// acknowledged is lost, and that all records converge to Clerk's state.
//
//	go -C examples run ./internal/crash [-kills 20] [-database-kills 2] [-processes 3] [-users 60] [-seed N]
//
// The app is the quickstart, in several processes. A balancer sends each webhook to a random one,
// dead or alive. The database is the embedded one, also a process. Both are killed with SIGKILL, at
// random moments and during a webhook, one or several at once, and started again. Clerk is a
// fakeclerk in this program. Three flags replace the embedded database with another engine:
//
//	-mongodb-uri mongodb://127.0.0.1:27117/ \
//	-database-kill '…/documentdb kill' -database-start 'DURABLE=1 …/documentdb start'
//
// Meanwhile users sign up, change, are banned and leave in Clerk. Some webhooks arrive twice or out
// of order. Existing and deleted users visit. The app edits its own fields in the database. The
// program records what it was told is done (ledger.go). It compares the database with that after
// each restart of the database and every second, and at the end also with Clerk (audit.go).
//
// The apps have an OnCreate and an OnDelete, which ask this program to act. It records each effect by
// the job's key (jobs.go). At the end it runs the jobs that are left, with a clock that is past the
// leases of dead processes. No job may be lost. One may have more than one effect only if the process
// was killed, or the database, before it could write that the attempt had ended.
//
// Redelivery works as at Svix: a message that is not answered 2xx is sent again under the same
// svix-id, with a fresh signature. Only the delays, which are hours at Svix, are shorter
// (webhooks.go).
//
// The exit status is 0 with a summary, or 1 with the first violation, the seed, and the folder of
// the processes' logs. The seed repeats the plan of kills and changes, but not the operating
// system's timing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
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

	// For another engine; empty for the embedded database.
	mongoURI, databaseKill, databaseStart string

	// Only set by tests.
	programs *programs                 // already built
	started  func(pid int)             // called for each process
	killed   func(folder string) error // called while the embedded database is dead
}

// run returns the exit status: 2 if the flags are wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil: // parse has printed it
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
	flags.IntVar(&o.users, "users", 60, "how many users to start with")
	flags.Uint64Var(&o.seed, "seed", 0, "seed of the plan; random by default")
	flags.StringVar(&o.mongoURI, "mongodb-uri", "", "connection `string` of a running database; default the embedded one")
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
		err = errors.New("-database-kill and -database-start need -mongodb-uri")
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

// stream returns the random numbers of one part of the program. They do not depend on how many
// numbers another part has drawn.
func stream(seed uint64, part string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(part))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// summary counts what a run did.
type summary struct {
	seed                  uint64
	took                  time.Duration
	kills, ambushes       int
	jobAmbushes           int
	jobs, effects         int
	refusedJobs           int
	starts                int
	databaseKills         int
	databaseOutage        time.Duration
	users, deleted        int
	webhooks              int // messages, not attempts
	attempts, redelivered int
	doubled, replayed     int
	visits, answers       map[string]int
	silence               time.Duration
	tally                 tally
	cut                   int // webhooks that no app process answered
}

func (p *proof) summarize() *summary {
	s := &summary{
		seed: p.config.seed, took: time.Since(p.began),
		kills: int(p.fleet.kills.Load()), ambushes: int(p.fleet.ambushes[inWebhook].Load()), starts: int(p.fleet.starts.Load()),
		databaseKills: p.databaseKills, databaseOutage: p.database.longest,
		replayed: int(p.courier.replayed.Load()), cut: int(p.balancer.cut.Load()),
	}
	s.jobAmbushes = int(p.fleet.ambushes[inJob].Load())
	s.jobs, s.effects, s.refusedJobs = p.jobs.counts()
	s.visits, s.answers, s.silence, s.tally = p.ledger.counts()
	for _, st := range p.ledger.states() {
		s.users++
		if st.deleted {
			s.deleted++
		}
	}
	for _, m := range p.endpoint.Messages() {
		s.webhooks++
		s.attempts += len(m.Attempts)
		good, failed := 0, false
		for _, a := range m.Attempts {
			if a.Status >= 200 && a.Status <= 299 {
				good++
			} else {
				failed = true
			}
		}
		if failed {
			s.redelivered++
		}
		if good > 1 {
			s.doubled++
		}
	}
	return s
}

func (s *summary) String() string {
	var b strings.Builder
	line := func(what, format string, args ...any) {
		_, _ = fmt.Fprintf(&b, "%-18s"+format+"\n", append([]any{what}, args...)...)
	}
	line("result", "nothing acknowledged was lost, and all records equal Clerk; seed %d, %v",
		s.seed, s.took.Round(100*time.Millisecond))
	line("kills", "%d of app processes, %d of them right after a webhook was sent to them, %d after a job had its effect; %d starts",
		s.kills, s.ambushes, s.jobAmbushes, s.starts)
	line("database kills", "%d; the longest outage was %v", s.databaseKills, s.databaseOutage.Round(10*time.Millisecond))
	line("users", "%d, %d of them deleted", s.users, s.deleted)
	line("webhooks", "%d, all acknowledged in the end; %d attempts, %d without an answer, answers %v",
		s.webhooks, s.attempts, s.cut, ordered(s.answers))
	line("", "%d redelivered after a failure, %d acknowledged more than once, %d old ones replayed",
		s.redelivered, s.doubled, s.replayed)
	line("jobs", "%d of OnCreate and OnDelete, none lost; %d effects, more than one only after a kill; %d attempts refused",
		s.jobs, s.effects, s.refusedJobs)
	line("visits", "%v", ordered(s.visits))
	line("", "%d by deleted users to a process that had acknowledged the deletion: all refused", s.tally.knownDeleted)
	line("", "%d by deleted users more than %v after another process had acknowledged it: all refused",
		s.tally.lateDeleted, lateness)
	line("", "%d to a process that had acknowledged or served the user before: none got an older revision",
		s.tally.knownRevision)
	line("longest silence", "%v without a visit that got 200 or 403", s.silence.Round(10*time.Millisecond))
	line("the app's edits", "%d made, %d of them acknowledged", s.tally.editsMade, s.tally.editsDone)
	line("5xx without cause", "%d visits, %d webhooks (503 from a living process, with the database up for over %v)",
		s.tally.oddVisits, s.tally.oddWebhooks, recovery)
	return b.String()
}

func ordered(counts map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s: %d", k, counts[k]))
	}
	return strings.Join(parts, ", ")
}
