package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"
)

// If this variable is set, the test binary runs the program instead of the tests.
const runMain = "EMBEDDEDDB_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

type program struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr strings.Builder
	tmp    string // the folder of its temporary files
	uri    string
}

func run(t *testing.T, args ...string) *program {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // must outlive t.Context
	t.Cleanup(cancel)
	p := &program{cmd: exec.CommandContext(ctx, exe, args...)}
	// Not t.TempDir, whose name could be too long for a socket.
	if p.tmp, err = os.MkdirTemp("", "serve-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(p.tmp) })
	p.cmd.Env = append(os.Environ(), runMain+"=1", "TMPDIR="+p.tmp, "TMP="+p.tmp)
	p.cmd.Stderr = &p.stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdout = bufio.NewReader(stdout)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := p.stdout.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	p.uri = strings.TrimSuffix(line, "\n")
	return p
}

// wait returns the exit code, and checks that the program leaves no files behind.
func (p *program) wait(t *testing.T) int {
	t.Helper()
	rest, err := io.ReadAll(p.stdout)
	if err != nil {
		t.Fatal(err)
	}
	if len(rest) > 0 {
		t.Errorf("more than one line: %q", rest)
	}
	if err := p.cmd.Wait(); err != nil {
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	left, err := os.ReadDir(p.tmp)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		t.Errorf("left behind: %s", f.Name())
	}
	return p.cmd.ProcessState.ExitCode()
}

func insertAndCount(t *testing.T, uri string) int64 {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(uri).SetTimeout(5 * time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := client.Disconnect(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	c := client.Database("test").Collection("c")
	if _, err := c.InsertOne(t.Context(), bson.M{"x": 1}); err != nil {
		t.Fatal(err)
	}
	n, err := c.CountDocuments(t.Context(), bson.M{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestServe(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*program) error{
		"end of input": func(p *program) error { return p.stdin.Close() },
		"SIGINT":       func(p *program) error { return p.cmd.Process.Signal(os.Interrupt) },
		"SIGTERM":      func(p *program) error { return p.cmd.Process.Signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if runtime.GOOS == "windows" && name != "end of input" {
				t.Skip("no signals there")
			}
			p := run(t)
			if !regexp.MustCompile(`^mongodb://127\.0\.0\.1:\d+/$`).MatchString(p.uri) {
				t.Errorf("printed %q; %s", p.uri, &p.stderr)
			}
			if n := insertAndCount(t, p.uri); n != 1 {
				t.Errorf("%d documents", n)
			}
			if err := end(p); err != nil {
				t.Fatal(err)
			}
			if code := p.wait(t); code != 0 {
				t.Errorf("exit code %d; %s", code, &p.stderr)
			}
		})
	}
}

func TestServeDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range int64(2) {
		p := run(t, "-dir", dir)
		if n := insertAndCount(t, p.uri); n != i+1 {
			t.Errorf("start %d: %d documents", i+1, n)
		}
		if second := run(t, "-dir", dir); second.wait(t) != 1 || !strings.Contains(second.stderr.String(), "in use") {
			t.Errorf("second program on one directory: %s", &second.stderr)
		}
		if err := p.stdin.Close(); err != nil {
			t.Fatal(err)
		}
		if code := p.wait(t); code != 0 {
			t.Errorf("exit code %d; %s", code, &p.stderr)
		}
	}
}

// A killed program leaves its directory free for the next one.
func TestServeKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := run(t, "-dir", dir)
	insertAndCount(t, p.uri)
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait()
	p = run(t, "-dir", dir)
	if n := insertAndCount(t, p.uri); n != 2 {
		t.Errorf("%d documents after the kill, want 2", n)
	}
	if err := p.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(t); code != 0 {
		t.Errorf("exit code %d; %s", code, &p.stderr)
	}
}

func TestServeErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args   []string
		code   int
		stderr string
	}{
		"argument":       {[]string{"x"}, 2, `unexpected argument "x"`},
		"flag":           {[]string{"-x"}, 2, "not defined"},
		"all interfaces": {[]string{"-listen", ":0"}, 1, "loopback"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := run(t, test.args...)
			if p.uri != "" {
				t.Errorf("printed %q", p.uri)
			}
			if code := p.wait(t); code != test.code || !strings.Contains(p.stderr.String(), test.stderr) {
				t.Errorf("exit code %d, %q; want %d, %q", code, p.stderr.String(), test.code, test.stderr)
			}
		})
	}
}
