package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// process is a child of this program.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.Closer     // closing it ends the embedded database
	ready  chan string   // receives the line that says that the process serves
	exited chan struct{} // closed when the process is gone
	killed atomic.Bool   // this program killed it or told it to end
	ended  time.Time     // when it was gone; read it after exited is closed
}

// spec says how to start a process.
type spec struct {
	name    string
	program string
	args    []string
	env     []string // added to this program's environment
	log     string   // standard error is appended to this file
	ready   string   // prefix of the line that it prints when it serves
	started func(pid int)
}

// startProcess starts a child. The end of ctx kills it.
func startProcess(ctx context.Context, s spec) (*process, error) {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own copy
	p := &process{
		name: s.name, cmd: exec.CommandContext(ctx, s.program, s.args...),
		ready: make(chan string, 1), exited: make(chan struct{}),
	}
	p.cmd.Env = append(os.Environ(), s.env...)
	p.cmd.Stderr = log
	p.cmd.SysProcAttr = childAttributes()
	p.cmd.WaitDelay = 5 * time.Second
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if s.started != nil {
		s.started(p.cmd.Process.Pid)
	}
	go func() {
		defer close(p.exited)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), s.ready) {
				select {
				case p.ready <- lines.Text():
				default:
				}
			}
		}
		_ = p.cmd.Wait() // how it ended is in ProcessState
		p.ended = time.Now()
	}()
	return p, nil
}

// alive reports whether the process has not ended yet. If it is true after an answer, this process
// gave the answer, and not one that got its port later.
func (p *process) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// kill sends SIGKILL and waits until the process is gone. It reports whether the signal ended it.
func (p *process) kill() bool {
	p.killed.Store(true)
	err := p.cmd.Process.Kill()
	<-p.exited
	return err == nil && !p.cmd.ProcessState.Exited()
}

// end asks the process to end. It is a violation if it does not within 20 seconds, or ends with an
// error.
func (p *process) end(ask func() error) error {
	p.killed.Store(true)
	if err := ask(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	select {
	case <-p.exited:
	case <-limit.C:
		p.kill()
		return violated("%s did not end within 20 s of being told to", p.name)
	}
	if !p.cmd.ProcessState.Success() {
		return violated("%s ended with %v", p.name, p.cmd.ProcessState)
	}
	return nil
}

// programs are the executables that the proof runs.
type programs struct{ app, database string }

// buildPrograms builds both into a folder.
func buildPrograms(ctx context.Context, folder string) (*programs, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // the embedded database is slow to compile, once
	defer cancel()
	p := &programs{app: filepath.Join(folder, "app.exe"), database: filepath.Join(folder, "database.exe")}
	var appFlags []string
	if raceDetector() { // the database is not under test
		appFlags = []string{"-race"}
	}
	var appErr, databaseErr error
	var builds sync.WaitGroup
	builds.Go(func() { appErr = build(ctx, p.app, "quickstart", appFlags...) })
	builds.Go(func() { databaseErr = build(ctx, p.database, "internal/embeddeddb/serve") })
	builds.Wait()
	return p, errors.Join(appErr, databaseErr)
}

// build builds a program of the examples module into the file out.
func build(ctx context.Context, out, path string, flags ...string) error {
	const module = "github.com/clerksync/clerksync-go/examples/"
	args := []string{"build", "-o", out, "-tags", "ferretdb_no_postgresql", "-ldflags", "-s -w"} // quicker to link
	args = append(append(args, flags...), module+path)
	if text, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, text)
	}
	return nil
}

// raceDetector reports whether this program was built with -race.
func raceDetector() bool {
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// pause waits for d. If ctx ends first, it returns ctx's cause.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// patience bounds each wait: for a process, for the database, for the webhooks. It is generous, for a
// busy machine.
const patience = 90 * time.Second

// until polls a condition that other processes make true. It is a violation if it stays false.
func until(ctx context.Context, holds func() bool, otherwise string) error {
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			return violated("%s within %v", otherwise, patience)
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
