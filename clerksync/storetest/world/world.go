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

// NewStore returns a fresh and empty Store, whose own times are now's: the world's clock
// stands still but for what the world does. What it registers with t.Cleanup runs when
// the Store is done with.
type NewStore func(t testing.TB, now func() time.Time) clerksync.Store

// Counter is a Store of which the world may ask how many records a user has, deleted
// ones included.
type Counter interface {
	Count(ctx context.Context, clerkID string) (int, error)
}

// Options say how much Run does, and what the Store is set to.
type Options struct {
	_ [0]func() // unkeyed literals would break when a field is added

	// Checks and Steps are how many worlds there are, and how many steps each has on
	// average, where rapid's flags -rapid.checks and -rapid.steps are not given.
	//
	// Defaults to 30 and 300.
	Checks, Steps int

	// UniqueEmail says that no two records may have the same e-mail address. Only then
	// does Run accept a [*clerksync.ConflictError], and that a deleted record gives
	// its address up.
	//
	// Defaults to false.
	UniqueEmail bool

	// Erases says that a deletion takes from the record what Clerk told about the
	// person.
	//
	// Defaults to false: a deleted record keeps it.
	Erases bool
}

// longRun is the number of steps from which on everything must have happened: what is
// rarest happens once in some thousand.
const longRun = 20_000

// Run checks that a Store, and the Syncers on it, converge in random worlds and in the
// scenarios that are named after the interleavings which matter most. See the package
// comment for how to repeat a failure.
func Run(t *testing.T, newStore NewStore, opts Options) {
	t.Helper()
	probing := newWorld(t, newStore, opts, 1, 0)
	possible := needs(probing)
	probing.close()
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
		w := newWorld(t, newStore, opts, rapid.Uint64Range(1, 1<<62).Draw(rt, "seed"), rapid.IntRange(0, 63).Draw(rt, "kind of world"))
		if counts == nil {
			counts = newCounts(needs(w))
		}
		w.counts = counts
		defer w.close()
		rt.Repeat(map[string]func(*rapid.T){
			"step": func(rt *rapid.T) {
				total++
				w.step(rt, step.Draw(rt, "step"))
			},
		})
		w.step(rt, op{kind: quiet, n: rapid.IntRange(0, 63).Draw(rt, "ending")})
	})
	took := time.Since(start)
	t.Logf("%d steps in %v, %.0f a second", total, took.Round(time.Millisecond), float64(total)/took.Seconds())
	t.Logf("how often what happened:\n%v", counts)
	if zeros := counts.zeros(); len(zeros) > 0 && total >= longRun {
		t.Errorf("in %d steps these never happened:\n%s", total, strings.Join(zeros, "\n"))
	}
}

// orDefault sets rapid's flags where the command line did not.
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

// ability is what a Store can do besides.
type ability struct {
	batch   bool // it is a BatchStore
	app     bool // the app's fields can be written
	foreign bool // fields that clerksync does not know too
}

// world is Clerk, a Store, some processes, and the network between them, in a time of
// its own. One thing happens at a time.
type world struct {
	flights sync.Mutex // for what a run notes of its flight, which a visitor who joins may look at

	clock   *fakeclerk.Clock
	clerk   *fakeclerk.Server
	network *http.Transport
	store   *store
	access  clerksync.Store // what the processes have of it
	raw     storetest.RawStore
	able    ability
	opts    Options
	scope   *scope
	counts  *counts

	procs   []*process
	retired []*process // replaced in the middle of an operation
	ahead   bool       // some process's clock is
	skewed  bool       // or behind

	clerksRoles bool // the processes have a RoleOf

	users     []*user // in the order of birth
	byID      map[string]*user
	born      int
	bystander json.RawMessage // a user whom nobody asks for
	mail      []*message      // on its way
	sent      []*message      // all that there was
	losing    bool            // events are lost at once

	seq         uint64 // orders what happens
	troubles    int
	lastTrouble time.Time
	steps       int
	clerkIsDown bool
	storeIsDown bool
	clerkOutage int // which fault
	// The steps at which they end.
	clerkOutageEnds, storeOutageEnds int
	reconciling                      int
	jittered                         atomic.Bool // the page writers of a Reconcile wait, too
	depth                            int
	resume                           *resumePoint

	mu         sync.Mutex
	fault      *fakeclerk.Fault // of the next request
	violations []string
	history    []traced
	watch      *time.Timer
	broken     bool // in the middle of a step
}

// traced is one operation of the history.
type traced struct {
	at    time.Time
	depth int
	op    op
}

var epoch = time.Date(2025, time.March, 3, 8, 0, 0, 0, time.UTC)

// instance is the same in all worlds, so that its key is made once.
const instance = "ins_randomworld"

func newWorld(t testing.TB, newStore NewStore, opts Options, seed uint64, kindOfWorld int) *world {
	w := &world{
		clock: fakeclerk.NewClock(epoch), byID: make(map[string]*user), scope: &scope{TB: t}, opts: opts,
		network: &http.Transport{MaxIdleConnsPerHost: 16}, counts: newCounts(nil),
	}
	var err error
	w.clerk, err = fakeclerk.Start(fakeclerk.Config{Clock: w.clock, RateLimit: -1, Seed: seed, InstanceID: instance})
	if err != nil {
		t.Fatal(err)
	}
	w.clerk.SetFault(w.takeFault)
	w.bystander, _ = json.Marshal(fakeclerk.NewUser{ID: "user_bystander"}.Object(epoch))
	w.clerk.AddEndpoint("http://app.example/webhooks", fakeclerk.EndpointOptions{Secret: webhookSecret}).SetPolicy(w.receive)

	inner := newStore(w.scope, w.clock.Now)
	w.store, w.access = newStoreOf(w, inner)
	_, w.able.batch = inner.(clerksync.BatchStore)
	if w.raw, w.able.app = inner.(storetest.RawStore); w.able.app {
		w.able.foreign = w.takesForeign()
	}
	skew := []time.Duration{0, 0, 4 * time.Minute, 0, 2 * time.Hour, 0, -4 * time.Minute, -time.Hour}[kindOfWorld%8]
	w.ahead, w.skewed = skew > 0, skew != 0
	w.clerksRoles = kindOfWorld/16%2 == 1
	for i := range 2 + kindOfWorld/8%2 {
		if i != 1 {
			w.procs = append(w.procs, w.newProcess(0, kindOfWorld+i))
		} else {
			w.procs = append(w.procs, w.newProcess(skew, kindOfWorld+i))
		}
	}
	for range 3 {
		w.signUp("")
	}
	w.watch = time.AfterFunc(patience, w.hangs)
	return w
}

// patience is how long a step may take in real time. None waits for anything, but a
// machine may stand still for a while.
const patience = 2 * time.Minute

// hangs ends the program: whatever waits for something that cannot come, a Syncer of
// which another operation waits for itself, say, cannot be made to stop.
func (w *world) hangs() {
	debug.SetTraceback("all")
	panic("world: a step hangs; the last operations:\n" + w.story())
}

// takesForeign tries on a user whom Clerk does not have, and takes it back.
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

const probe = "user_probe"

func (w *world) close() {
	w.watch.Stop()
	if w.broken { // by a panic; what it left behind cannot be made to stop
		return
	}
	for _, p := range append(w.procs, w.retired...) {
		p.abandon()
	}
	_ = w.clerk.Close()
	w.network.CloseIdleConnections()
	w.scope.end()
}

// step runs one operation of the top level, and reports what it broke.
func (w *world) step(t rapid.TB, o op) {
	w.watch.Reset(patience)
	w.broken = true
	w.do(o, nil)
	w.broken = false
	w.mu.Lock()
	violations := w.violations
	w.mu.Unlock()
	if len(violations) > 0 {
		t.Fatalf("%s\n\nthe last operations:\n%s", strings.Join(violations, "\n"), w.story())
	}
}

func (w *world) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.violations) < 5 {
		w.violations = append(w.violations, fmt.Sprintf(format, args...))
	}
}

func (w *world) trace(o op, around *run) {
	depth := 0
	if around != nil {
		depth = 1 + w.depth
	}
	w.history = append(w.history, traced{w.clock.Now(), depth, o})
}

// story tells the last operations.
func (w *world) story() string {
	var b strings.Builder
	for _, h := range w.history[max(0, len(w.history)-80):] {
		fmt.Fprintf(&b, "%s %s%v\n", h.at.Format("Jan 2 15:04:05.000"), strings.Repeat("    ", h.depth), h.op)
	}
	return b.String()
}

// setFault has the next request to Clerk answered by f.
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

// scope is a testing.TB that ends with a world.
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
