package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		_ = os.RemoveAll(programFolder)
		os.Exit(status)
	}))
}

// built builds the programs once for all tests.
var built = sync.OnceValues(func() (*programs, error) {
	folder, err := os.MkdirTemp("", "crash-programs-")
	if err != nil {
		return nil, err
	}
	programFolder = folder
	return buildPrograms(context.Background(), folder)
})

var programFolder string // removed at the end

// The defaults make a short run. Raise them for a longer one.
var (
	kills         = flag.Int("crash.kills", 6, "how many app processes TestShortRun kills")
	databaseKills = flag.Int("crash.database-kills", 1, "how many times TestShortRun kills the database")
	users         = flag.Int("crash.users", 12, "how many users each run starts with")
	seed          = flag.Uint64("crash.seed", 1, "seed of the plan of each run")
)

// short returns the config of a short run.
func short(t *testing.T) config {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("no signals there")
	}
	p, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return config{kills: *kills, databaseKills: *databaseKills, processes: 3, users: *users, seed: *seed, programs: p}
}

// children are the processes that a run starts.
type children struct {
	mu   sync.Mutex
	pids []int
	some chan struct{} // closed when the n-th starts
}

// watch records the processes that a run with c starts.
func watch(c *config, n int) *children {
	k := &children{some: make(chan struct{})}
	c.started = func(pid int) {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.pids = append(k.pids, pid); len(k.pids) == n {
			close(k.some)
		}
	}
	return k
}

// left fails the test if a process is still there, alive or as a zombie.
func (k *children) left(t *testing.T) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, pid := range k.pids {
		if p, err := os.FindProcess(pid); err == nil && p.Signal(syscall.Signal(0)) == nil {
			t.Errorf("process %d is still there", pid)
		}
	}
}

func TestShortRun(t *testing.T) {
	c := short(t)
	k := watch(&c, 8)
	s, err := prove(t.Context(), c, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", s)
	if s.kills != c.kills || s.databaseKills != c.databaseKills || s.starts < c.kills+c.processes {
		t.Errorf("%d kills, %d of the database, %d starts; want %d, %d and at least %d",
			s.kills, s.databaseKills, s.starts, c.kills, c.databaseKills, c.kills+c.processes)
	}
	if s.webhooks <= c.users || s.redelivered == 0 || s.visits["200"] == 0 || s.tally.editsDone == 0 || s.jobs <= c.users {
		t.Error("the run had too few webhooks, redeliveries, visits, edits or jobs")
	}
	k.left(t)
}

// The run notices a database that loses acknowledged writes. Which loss it notices first depends on
// the timing: a record may be gone, or already created anew by a visit or a webhook.
func TestForgetfulDatabase(t *testing.T) {
	c := short(t)
	c.kills, c.databaseKills = 0, 1
	k := watch(&c, 8)
	c.killed = os.RemoveAll
	_, err := prove(t.Context(), c, t.Logf)
	if v := (*violation)(nil); !errors.As(err, &v) || !v.lost {
		t.Errorf("got %v, want a loss", err)
	}
	k.left(t)
	removeLogs(t, err)
}

// removeLogs removes the logs and data that a violation leaves.
func removeLogs(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	_, after, found := strings.Cut(err.Error(), "the logs are in ")
	folder, _, _ := strings.Cut(after, ",")
	if !found || !strings.HasPrefix(filepath.Base(folder), "crash-") {
		t.Errorf("no folder of logs in %v", err)
		return
	}
	if err := os.RemoveAll(folder); err != nil {
		t.Error(err)
	}
}

// An interrupted run leaves no process behind. Here the interrupt comes after some kills.
func TestInterrupted(t *testing.T) {
	c := short(t)
	c.kills = 1 << 20
	k := watch(&c, 8)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	interrupt := errors.New("interrupted")
	go func() {
		select {
		case <-k.some:
		case <-ctx.Done():
		}
		cancel(interrupt)
	}()
	if _, err := prove(ctx, c, t.Logf); !errors.Is(err, interrupt) {
		t.Errorf("got %v", err)
	}
	k.left(t)
}

func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		args   string
		status int
		says   string
	}{
		{"-h", 0, "-database-kills"},
		{"-bogus", 2, "-bogus"},
		{"bogus", 2, `unexpected argument "bogus"`},
		{"-kills -1", 2, "negative"},
		{"-processes 0", 2, "at least 1"},
		{"-database-kill true", 2, "need -mongodb-uri"},
		{"-mongodb-uri mongodb://127.0.0.1:1/", 2, "-database-kills 0"},
	} {
		var stderr bytes.Buffer
		got := run(t.Context(), strings.Fields(tt.args), &stderr, &stderr)
		if got != tt.status || !strings.Contains(stderr.String(), tt.says) {
			t.Errorf("%s: status %d, want %d and %q:\n%s", tt.args, got, tt.status, tt.says, &stderr)
		}
	}
}

func TestSeed(t *testing.T) {
	draw := func(seed uint64, part string) []int {
		rng := stream(seed, part)
		return []int{rng.IntN(1 << 30), rng.IntN(1 << 30), rng.IntN(1 << 30)}
	}
	first := draw(1, "a")
	if !slices.Equal(first, draw(1, "a")) || slices.Equal(first, draw(1, "b")) || slices.Equal(first, draw(2, "a")) {
		t.Error("a stream must depend on the seed and the part, and on nothing else")
	}
}
