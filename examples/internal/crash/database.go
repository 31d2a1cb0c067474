package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
)

// recovery is how long after its start the database still excuses a 503. Drivers look for a lost
// server twice a second while a call waits for it.
const recovery = 3 * time.Second

// database is the apps' database.
type database struct {
	uri    string
	name   string // the MongoDB database of the users collection
	client *mongo.Client

	// Only for the embedded database; folder is empty for another engine.
	folder     string
	spec       spec
	process    *process
	afterKill  func(folder string) error
	fail       func(error)
	killer     string
	starter    string
	commandLog string

	mu      sync.Mutex
	down    bool
	since   time.Time // the latest kill, or the latest start
	longest time.Duration
	outages []outage
}

func openDatabase(ctx context.Context, o config, built *programs, folder string, fail func(error)) (*database, error) {
	d := &database{
		uri: o.mongoURI, name: "clerksync_crash_" + bson.NewObjectID().Hex(), fail: fail, afterKill: o.killed,
		killer: o.databaseKill, starter: o.databaseStart, commandLog: filepath.Join(folder, "database.log"),
	}
	if d.uri == "" {
		address, err := freeAddress(ctx)
		if err != nil {
			return nil, err
		}
		d.uri, d.folder = "mongodb://"+address+"/", filepath.Join(folder, "data")
		d.spec = spec{
			name: "the database", program: built.database, args: []string{"-dir", d.folder, "-listen", address},
			env: []string{"TMPDIR=" + folder}, // after a kill its socket stays there
			log: d.commandLog, ready: "mongodb://", started: o.started,
		}
		if err := d.startEmbedded(ctx); err != nil {
			return nil, err
		}
	}
	var err error
	d.client, err = mongo.Connect(clientOptions(d.uri))
	if err != nil {
		return nil, errors.Join(err, d.stopEmbedded())
	}
	if err := d.await(ctx); err != nil {
		return nil, errors.Join(err, d.close(ctx, false))
	}
	d.since = time.Time{} // its first start does not count as an outage
	return d, nil
}

// clientOptions configures this program's own client, which must notice an outage soon.
func clientOptions(uri string) *options.ClientOptions {
	return options.Client().ApplyURI(uri).SetServerSelectionTimeout(3 * time.Second).SetTimeout(20 * time.Second)
}

// freeAddress finds a port on which a server can be restarted. It is below the ports of outgoing
// connections, which could take it while the server is down.
func freeAddress(ctx context.Context) (string, error) {
	var err error
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 20000+rand.N(12000))
		var l net.Listener
		if l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", err
}

// users is the collection that the apps share.
func (d *database) users() *mongo.Collection { return d.client.Database(d.name).Collection("users") }

// kill ends the database without a warning.
func (d *database) kill(ctx context.Context) error {
	d.mu.Lock()
	d.down, d.since = true, time.Now()
	d.mu.Unlock()
	if d.folder == "" {
		return d.command(ctx, d.killer)
	}
	if !d.process.kill() {
		return violated("the database ended before it was killed: %v", d.process.cmd.ProcessState)
	}
	if d.afterKill != nil {
		return d.afterKill(d.folder)
	}
	return nil
}

// start starts the database again, on the same data.
func (d *database) start(ctx context.Context) error {
	var err error
	if d.folder != "" {
		err = d.startEmbedded(ctx)
	} else {
		err = d.command(ctx, d.starter)
	}
	if err != nil {
		return err
	}
	return d.await(ctx)
}

func (d *database) startEmbedded(ctx context.Context) error {
	// The process outlives ctx. stopEmbedded ends it, or the end of this program.
	p, err := startProcess(context.WithoutCancel(ctx), d.spec)
	if err != nil {
		return err
	}
	d.process = p
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-p.ready:
	case <-p.exited:
		return fmt.Errorf("the embedded database does not start: %v; see %s", p.cmd.ProcessState, d.commandLog)
	case <-limit.C:
		p.kill()
		return fmt.Errorf("the embedded database does not start within %v; see %s", patience, d.commandLog)
	case <-ctx.Done():
		p.kill()
		return context.Cause(ctx)
	}
	go func() {
		<-p.exited
		if !p.killed.Load() {
			d.fail(violated("the database ended by itself: %v; see %s", p.cmd.ProcessState, d.commandLog))
		}
	}()
	return nil
}

// command runs another engine's command. Its output goes to a file, because the servers that it
// starts would hold a pipe open.
func (d *database) command(ctx context.Context, text string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	log, err := os.OpenFile(d.commandLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.CommandContext(ctx, "sh", "-c", text)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%q: %w; see %s", text, err, d.commandLog)
	}
	return nil
}

// await waits until the database answers.
func (d *database) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the database does not answer within %v", patience))
	defer cancel()
	for {
		err := d.client.Ping(ctx, readpref.Primary())
		if err == nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.down {
				d.longest = max(d.longest, time.Since(d.since))
				d.outages = append(d.outages, outage{d.since, time.Now().Add(recovery)})
			}
			d.down, d.since = false, time.Now()
			return nil
		}
		if pause(ctx, 50*time.Millisecond) != nil {
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// outage is a time in which calls of the database may have failed.
type outage struct{ from, to time.Time }

// excuses reports whether a process that was killed then may have been unable to write after since: it
// had too little time, or the database was down.
func (d *database) excuses(since, killed time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return excuses(d.outages, since, killed)
}

func excuses(outages []outage, since, killed time.Time) bool {
	limit := since.Add(finishing)
	for _, o := range outages { // in their order
		if o.from.Before(limit) && o.to.After(since) {
			limit = o.to.Add(finishing)
		}
	}
	return killed.Before(limit)
}

// calm reports whether the database is up and, at the given time, had been up for longer than
// recovery.
func (d *database) calm(since time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.down && since.Sub(d.since) > recovery
}

// close ends the embedded database. It leaves another engine running, and drops the run's database
// there unless keep is true.
func (d *database) close(ctx context.Context, keep bool) error {
	var errs []error
	d.mu.Lock()
	down := d.down
	d.mu.Unlock()
	if d.folder == "" && down {
		errs = append(errs, d.command(context.WithoutCancel(ctx), d.starter))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	if d.folder == "" && !keep {
		errs = append(errs, d.client.Database(d.name).Drop(ctx))
	}
	return errors.Join(append(errs, d.client.Disconnect(ctx), d.stopEmbedded())...)
}

func (d *database) stopEmbedded() error {
	if d.process == nil || !d.process.alive() {
		return nil
	}
	return d.process.end(d.process.stdin.Close)
}

// location says where the data is, for a look after a violation.
func (d *database) location() string {
	if d.folder != "" {
		return d.folder
	}
	return strings.TrimSuffix(d.uri, "/") + ", database " + d.name
}
