package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"
)

// process is a child of this program.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.Closer     // its end tells the embedded database to end
	ready  chan string   // gets the line that says so, if it ever comes
	exited chan struct{} // closed when it is gone
	killed atomic.Bool   // by this program
}

// spec says how to start a process.
type spec struct {
	name    string
	program string
	args    []string
	env     []string // in addition
	log     string   // file that standard error is appended to
	ready   string   // how the line begins that it prints once it serves
	started func(pid int)
}

// startProcess starts a child, which dies with ctx at the latest.
func startProcess(ctx context.Context, s spec) (*process, error) {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	p := &process{name: s.name, cmd: exec.CommandContext(ctx, s.program, s.args...), ready: make(chan string, 1), exited: make(chan struct{})}
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
	}()
	return p, nil
}

// alive reports whether the process has not been seen to end. What answered before alive
// returned true was this process, and none that got its port.
func (p *process) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// kill sends SIGKILL and returns when the process is gone. It reports whether that
// was what ended it.
func (p *process) kill() bool {
	p.killed.Store(true)
	err := p.cmd.Process.Kill()
	<-p.exited
	return err == nil && !p.cmd.ProcessState.Exited()
}

// end asks the process to end by itself: it must, without an error and soon.
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

// buildPrograms builds them into a folder.
func buildPrograms(ctx context.Context, folder string) (*programs, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // the embedded database takes its time, once
	defer cancel()
	const module = "github.com/clerksync/clerksync-go/examples/"
	build := func(name, path string, flags ...string) (string, error) {
		out := folder + string(os.PathSeparator) + name
		args := append([]string{"build", "-o", out}, append(flags, module+path)...)
		if text, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, text)
		}
		return out, nil
	}
	var flags []string
	if raceDetector() { // then what is proved has it, too
		flags = append(flags, "-race")
	}
	app, err := build("app.exe", "quickstart", flags...)
	if err != nil {
		return nil, err
	}
	database, err := build("database.exe", "internal/embeddeddb/serve")
	return &programs{app: app, database: database}, err
}
