package world

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/storetest"
)

// NewStore returns a new, empty Store, which takes all its times from now: the world's clock moves
// only when the world moves it. Functions registered with t.Cleanup run when the world ends.
type NewStore func(t testing.TB, now func() time.Time) clerksync.Store

// Counter is implemented by a Store that can count the records of a user.
type Counter interface {
	// Count returns how many records the user has, deleted ones included.
	Count(ctx context.Context, clerkID string) (int, error)
}

// Options say how much Run does and how the Store is configured.
type Options struct {
	_ [0]func() // an unkeyed literal would break when a field is added

	// Checks is how many worlds there are, and Steps how many steps each has on average. The
	// flags -rapid.checks and -rapid.steps override them.
	//
	// Defaults to 30 and 300.
	Checks, Steps int

	// UniqueEmail says that two records must not have the same e-mail address. Only then may
	// the Store return a [*clerksync.ConflictError] about an address in use, and may a deleted
	// record lose its address.
	//
	// Defaults to false.
	UniqueEmail bool

	// Erases says that a deletion removes personal data from the record.
	//
	// Defaults to false: a deleted record keeps its fields.
	Erases bool
}

// orDefault sets those of rapid's flags that the command line and the environment do not.
func (o Options) orDefault(t testing.TB) {
	if o.Checks == 0 {
		o.Checks = 30
	}
	if o.Steps == 0 {
		o.Steps = 300
	}
	given := make(map[string]bool)
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, n := range map[string]int{"rapid.checks": o.Checks, "rapid.steps": o.Steps} {
		env := strings.ToUpper(strings.ReplaceAll(name, ".", "_"))
		if given[name] || os.Getenv(env) != "" {
			continue
		}
		f := flag.Lookup(name)
		old := f.Value.String()
		if err := f.Value.Set(fmt.Sprint(n)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Value.Set(old) })
	}
}

// longRun is the number of steps after which each fault, outcome and interleaving must have
// happened. The rarest happen once in some thousand steps.
const longRun = 20_000

// Run checks that a Store, and the Syncers on it, converge in random worlds and in one scenario
// for each important interleaving. See the package comment for how to repeat a failure.
func Run(t *testing.T, newStore NewStore, opts Options) {
	t.Helper()
	first := newWorld(t, newStore, opts, 1, 0)
	possible := needs(first)
	first.close()
	for _, s := range scenarios {
		if slices.Contains(possible, s.happened) {
			t.Run(s.name, func(t *testing.T) { runScenario(t, newStore, opts, s) })
		}
	}
	t.Run("Random", func(t *testing.T) { runRandom(t, newStore, opts) })
}

func runRandom(t *testing.T, newStore NewStore, opts Options) {
	opts.orDefault(t)
	var counts *counts
	total, start := 0, time.Now()
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64Range(1, 1<<62).Draw(rt, "seed")
		w := newWorld(t, newStore, opts, seed, large.Draw(rt, "kind of world"))
		if counts == nil {
			counts = newCounts(slices.DeleteFunc(needs(w), isTooRare))
		}
		w.counts = counts
		defer w.close()
		rt.Repeat(map[string]func(*rapid.T){
			"step": func(rt *rapid.T) {
				total++
				w.step(rt, step.Draw(rt, "step"))
			},
		})
		w.step(rt, op{kind: quiet, n: large.Draw(rt, "ending")})
	})
	took := time.Since(start)
	t.Logf("%d steps in %v, %.0f a second", total, took.Round(time.Millisecond), float64(total)/took.Seconds())
	t.Logf("how often each thing happened:\n%v", counts)
	if zeros := counts.zeros(); len(zeros) > 0 && total >= longRun {
		t.Errorf("these never happened in %d steps:\n%s", total, strings.Join(zeros, "\n"))
	}
}

// ability is what the Store offers beyond clerksync.Store.
type ability struct {
	batch   bool // it is a BatchStore
	app     bool // the app's fields can be written
	foreign bool // so can fields that clerksync does not know
	jobs    bool // it is a BatchStore and a JobStore
	restore bool // it is a RestoreStore too
}

// world is Clerk, a Store, some processes and the network between them, in virtual time. One
// thing happens at a time.
type world struct {
	operations map[kind]func(*world, op, moment)
	opts       Options
	clock      *fakeclerk.Clock
	clerk      *fakeclerk.Server
	network    *http.Transport
	store      *store
	access     clerksync.Store // the store as the processes see it
	raw        storetest.RawStore

	legacyStore storetest.AdoptingStore // nil if the Store does not adopt
	legacy      []*legacy
	kindOfWorld int

	able   ability
	scope  *scope
	counts *counts

	procs   []*process
	retired []*process // replaced in the middle of an operation
	ahead   bool       // some process's clock is ahead
	skewed  bool       // some process's clock is ahead or behind

	clerksRoles bool // the processes have a RoleOf

	jobs      map[string]*job // by key
	ending    *job            // the one of which a state is being written
	reliable  bool            // functions fail only if an operation says so
	cleanedUp int             // users restored by the present Reconcile whose OnDelete was called

	users     []*user // by birth
	byID      map[string]*user
	born      int
	bystander json.RawMessage // a user whom nobody asks for
	pending   []*message      // not delivered yet
	sent      []*message      // all
	losing    bool            // events are lost at once

	seq         uint64 // orders what happens
	steps       int
	troubles    int // faults so far
	lastTrouble time.Time
	// limitedUntil is the end of the latest pause that Clerk asked for.
	limitedUntil time.Time
	clerkOutage  outage
	storeOutage  outage
	reconciling  int         // Reconciles that are running
	jittered     atomic.Bool // a Reconcile waited; its writers call the clock at the same time
	depth        int         // of the running operation
	resume       *resumePoint

	lookups sync.Mutex // guards what a run notes about its lookup, which joining visitors read too

	mu         sync.Mutex
	fault      *fakeclerk.Fault // of the next request
	violations []string
	history    []traced
	watch      *time.Timer
	broken     bool // inside a step
}

var epoch = time.Date(2025, time.March, 3, 8, 0, 0, 0, time.UTC)

// instance is the same in all worlds, so that its key is generated once.
const instance = "ins_randomworld"

// skews are how far the clock of the second process is ahead, by the kind of world.
var skews = []time.Duration{
	0, 0, 4 * time.Minute, 0, 2 * time.Hour, 0, -4 * time.Minute, -time.Hour,
	0, time.Minute, 4 * time.Minute, -time.Minute, 2 * time.Hour, 0, -4 * time.Minute, -time.Hour,
}

// newWorld makes a world with three users. kindOfWorld chooses the clocks, the number of
// processes and their options, and who owns the roles.
func newWorld(t testing.TB, newStore NewStore, opts Options, seed uint64, kindOfWorld int) *world {
	w := &world{
		operations: make(map[kind]func(*world, op, moment)), opts: opts,
		clock: fakeclerk.NewClock(epoch), byID: make(map[string]*user), scope: &scope{TB: t},
		network: &http.Transport{MaxIdleConnsPerHost: 16}, counts: newCounts(nil), kindOfWorld: kindOfWorld,
		jobs: make(map[string]*job),
	}
	for _, o := range operations() {
		w.operations[o.kind] = o.do
	}
	var err error
	w.clerk, err = fakeclerk.Start(fakeclerk.Config{Clock: w.clock, RateLimit: -1, Seed: seed, InstanceID: instance})
	if err != nil {
		t.Fatal(err)
	}
	w.clerk.SetFault(w.takeFault)
	w.bystander, _ = json.Marshal(fakeclerk.NewUser{ID: "user_bystander"}.Object(epoch))
	endpoint := w.clerk.AddEndpoint("http://app.example/webhooks", fakeclerk.EndpointOptions{Secret: webhookSecret})
	endpoint.SetPolicy(w.receive)

	inner := newStore(w.scope, w.clock.Now)
	w.store, w.access = newStoreOf(w, inner)
	_, w.able.batch = inner.(clerksync.BatchStore)
	if w.raw, w.able.app = inner.(storetest.RawStore); w.able.app {
		w.able.foreign = w.takesForeign()
	}
	w.insertLegacy()
	skew := skews[kindOfWorld%len(skews)]
	w.ahead, w.skewed = skew > 0, skew != 0
	w.clerksRoles = kindOfWorld/16%2 == 1
	for i := range 2 + kindOfWorld/8%2 {
		ofThis := time.Duration(0)
		if i == 1 {
			ofThis = skew
		}
		w.procs = append(w.procs, w.newProcess(ofThis, kindOfWorld+i))
	}
	for range 3 {
		w.signUp("", "")
	}
	w.watch = time.AfterFunc(patience, w.hangs)
	return w
}

// patience is how long a step may take in real time. No step waits for anything, but the machine
// may stand still for a while.
const patience = 2 * time.Minute

// hangs ends the program, because an operation cannot be stopped while it waits for something that
// never happens.
func (w *world) hangs() {
	debug.SetTraceback("all")
	panic("world: a step hangs; the last operations:\n" + w.story())
}

// takesForeign reports whether the Store can hold a field that clerksync does not know. It tries that
// on the record of a user who is not in Clerk, and then deletes that record.
func (w *world) takesForeign() bool {
	err := w.raw.SetFields(context.Background(), probe, map[string]any{"theme": "probe"})
	if errors.Is(err, errors.ErrUnsupported) {
		return false
	}
	w.must(err)
	_, err = w.store.inner.Deactivate(context.Background(), probe, w.clock.Now())
	w.must(err)
	return true
}

// probe is the user of takesForeign.
const probe = "user_probe"

func (w *world) close() {
	w.watch.Stop()
	if w.broken { // a step panicked, and what it started cannot be stopped
		return
	}
	for _, p := range append(w.procs, w.retired...) {
		p.abandon()
	}
	_ = w.clerk.Close()
	w.network.CloseIdleConnections()
	w.scope.end()
}

// step runs one operation of the top level, and fails the test if a check failed.
func (w *world) step(t rapid.TB, o op) {
	w.watch.Reset(patience)
	w.broken = true
	w.do(o, nil)
	w.broken = false
	w.mu.Lock()
	violations := w.violations
	w.mu.Unlock()
	if len(violations) > 0 {
		t.Fatalf("the last operations:\n%s\n%s", w.story(), strings.Join(violations, "\n"))
	}
}

func (w *world) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.violations) < 5 {
		w.violations = append(w.violations, fmt.Sprintf(format, args...))
	}
}

// setFault makes the server answer the next request with f.
func (w *world) setFault(f *fakeclerk.Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = f
}

func (w *world) takeFault(*http.Request) *fakeclerk.Fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.fault
	w.fault = nil
	return f
}

// scope is a testing.TB whose cleanups run when a world ends.
type scope struct {
	testing.TB
	cleanups []func()
}

// Cleanup runs f when the world ends.
func (s *scope) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

func (s *scope) end() {
	for len(s.cleanups) > 0 {
		f := s.cleanups[len(s.cleanups)-1]
		s.cleanups = s.cleanups[:len(s.cleanups)-1]
		f()
	}
}
