package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// exploredLease is short, so that schedules have functions that outlive it.
const exploredLease = 20 * time.Second

// exploredJobs checks OnCreate and OnDelete in a schedule of TestExplore. The functions stop at their
// beginning and before their end, as calls to the Store do, and their effect is in between.
type exploredJobs struct {
	schedule *schedule
	await    bool
	delay    time.Duration

	mu        sync.Mutex
	owed      map[string]bool // the keys of the jobs that a write owed
	successes map[string]int  // by key: how often the function ended well
	excuses   map[string]int  // by key: ends that could not be written in time
	over      map[string]bool // by key: the end was written
}

func newExploredJobs(s *schedule) *exploredJobs {
	j := &exploredJobs{
		schedule: s, await: s.rng.IntN(2) == 0,
		owed: map[string]bool{}, successes: map[string]int{}, excuses: map[string]int{}, over: map[string]bool{},
	}
	if s.rng.IntN(2) == 0 {
		j.delay = 30 * time.Second
	}
	s.clerk.states[0].created = time.Now().Add(-time.Minute).UnixMilli()
	s.note("the app has OnCreate and OnDelete, await %t, delay %v", j.await, j.delay)
	s.saw("jobs")
	return j
}

// configure gives a process the functions, unless it is of a version of the app without them.
func (j *exploredJobs) configure(p *exploredProcess, cfg *clerksync.Config) {
	if len(j.schedule.procs) > 0 && j.schedule.rng.IntN(4) == 0 {
		j.schedule.saw("a version without OnCreate")
		return
	}
	p.hooks = true
	cfg.Jobs = clerksync.JobConfig{Lease: exploredLease, Await: j.await, DeleteDelay: j.delay}
	cfg.OnCreate = func(ctx context.Context, _ *clerksync.User, job clerksync.Job) error {
		return j.call(ctx, p, "OnCreate", job)
	}
	cfg.OnDelete = func(ctx context.Context, _ *clerksync.User, job clerksync.Job) error {
		return j.call(ctx, p, "OnDelete", job)
	}
}

// isFunction reports whether a parked call is a function of the app's.
func isFunction(label string) bool {
	return strings.Contains(label, "OnCreate") || strings.Contains(label, "OnDelete")
}

func (j *exploredJobs) call(ctx context.Context, p *exploredProcess, function string, job clerksync.Job) error {
	s, began := j.schedule, time.Now()
	fail := s.park("%s: %s of %s begins, attempt %d", p.name, function, job.Key, job.Attempt)
	j.checkCall(function, job)
	s.saw(function)
	fail = s.park("%s: %s of %s ends", p.name, function, job.Key) || fail
	if took := time.Since(began); took >= exploredLease {
		s.saw("a slow function")
		if ctx.Err() == nil {
			s.violate("%s runs for %v, and its context has not ended", function, took)
		}
		j.excuse(job.Key)
	}
	if fail {
		s.saw("a failed function")
		return errors.New("the mailer is down")
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.successes[job.Key]++
	if j.successes[job.Key] > 1+j.excuses[job.Key] {
		s.violate("%s of %s ended well %d times, and %d ends could not be written in time", function, job.Key, j.successes[job.Key], j.excuses[job.Key])
	}
	return nil
}

// checkCall checks that the job is owed and not over.
func (j *exploredJobs) checkCall(function string, job clerksync.Job) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.owed[job.Key] {
		j.schedule.violate("%s is called for %s, which nobody owes", function, job.Key)
	}
	if j.over[job.Key] {
		j.schedule.violate("%s is called for %s, whose end was written", function, job.Key)
	}
}

func (j *exploredJobs) excuse(key string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.excuses[key]++
}

// upserted checks what a write owes: the first insert by a process with OnCreate, and no other.
func (j *exploredJobs) upserted(p *exploredProcess, u *clerksync.User, outcome clerksync.Outcome) {
	if j == nil {
		return
	}
	if p.hooks == u.CreateDue.IsZero() {
		j.schedule.violate("%s, which has OnCreate: %t, offers a user whose CreateDue is %v", p.name, p.hooks, u.CreateDue)
	}
	if outcome == clerksync.Created && p.hooks {
		j.owe(exploredID + "/create")
	}
}

func (j *exploredJobs) owe(key string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.owed[key] {
		j.schedule.violate("%s is owed twice", key)
	}
	j.owed[key] = true
}

// stored returns the record, nil for none.
func (j *exploredJobs) stored() *clerksync.User {
	u, _ := j.schedule.store.User(context.Background(), exploredID) // it fails only if there is none
	return u
}

// checkLetIn checks that a visit was not let in before OnCreate had succeeded.
func (j *exploredJobs) checkLetIn(p *exploredProcess, name string) {
	if j == nil || !j.await || !p.hooks {
		return
	}
	if job := j.stored().Jobs.Of(clerksync.JobCreate); !job.Due.IsZero() || !job.FailedAt.IsZero() {
		j.schedule.violate("%s was let in, but the create job is %+v", name, job)
	}
}

// changed checks a state that a job has got, and that the record allowed it.
func (j *exploredJobs) changed(c clerksync.JobChange) {
	s, u, now := j.schedule, j.stored(), time.Now()
	key := jobKeyOf(c)
	claimed := c.To.Token != ""
	switch {
	case claimed && c.From.Token != "" && now.Before(c.From.Due):
		s.violate("%s is claimed at %v, although its lease lasts until %v", key, now, c.From.Due)
	case claimed && c.To.Attempt != c.From.Attempt+1:
		s.violate("%s: attempt %d follows attempt %d", key, c.To.Attempt, c.From.Attempt)
	case claimed && (c.Kind == clerksync.JobCreate) != u.DeletedAt.IsZero():
		s.violate("%s is claimed, and the record was deleted at %v", key, u.DeletedAt)
	case claimed && c.Kind == clerksync.JobDelete && u.Jobs.Create.Token != "" && now.Before(u.Jobs.Create.Due):
		s.violate("%s is claimed while OnCreate runs", key)
	case !claimed && c.To.Due.IsZero():
		s.saw("the end of a job")
		j.mu.Lock()
		j.over[key] = true
		j.mu.Unlock()
	}
}

func jobKeyOf(c clerksync.JobChange) string {
	if c.Kind == clerksync.JobDelete {
		return fmt.Sprintf("%s/delete/%d", exploredID, c.From.DeletedAt.UnixMilli())
	}
	return exploredID + "/create"
}

// drainJobs is a DrainJobs.
func (p *exploredProcess) drainJobs() func() {
	s, name := p.schedule, p.next("drain")
	s.note("%s begins", name)
	return func() {
		n, err := p.syncer.DrainJobs(context.Background())
		s.note("%s: ran %d, %v", name, n, err)
	}
}

// settle runs what is due until nothing is owed, and checks that nothing is lost. Nothing fails any
// more.
func (j *exploredJobs) settle(t *testing.T) {
	if j == nil {
		return
	}
	s := j.schedule
	for range 4 {
		for range 5 { // an end that failed is written again within seconds
			s.drain()
			time.Sleep(time.Second)
		}
		s.drain()
		time.Sleep(time.Hour + exploredLease + clerksync.LeaseGrace)
		for _, p := range s.procs {
			s.run(p.drainJobs())
			s.drain()
		}
	}
	u := j.stored()
	if u == nil {
		return
	}
	for _, job := range []clerksync.JobState{u.Jobs.Of(clerksync.JobCreate), u.Jobs.Of(clerksync.JobDelete)} {
		if !job.Due.IsZero() || !job.FailedAt.IsZero() {
			s.violate("at the end there is the job %+v", job)
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for key := range j.owed {
		if dropped := strings.HasSuffix(key, "/create") && !u.DeletedAt.IsZero(); j.successes[key] == 0 && !dropped {
			s.violate("%s is lost", key)
		}
	}
	t.Logf("owed %v, ended well %v, excuses %v", j.owed, j.successes, j.excuses)
}

// The methods of a JobStore stop before and after each call.

func (d *exploredStore) jobs() clerksync.JobStore { return d.schedule.store }

func (d *exploredStore) DeactivateOwing(ctx context.Context, id, external string, at, due time.Time) (clerksync.Result, clerksync.Owing, error) {
	if d.schedule.park("%s: Store.DeactivateOwing", d.name) {
		return clerksync.Result{}, 0, errExploredStore
	}
	res, owes, err := d.jobs().DeactivateOwing(ctx, id, external, at, due)
	if j := d.schedule.jobs; owes == clerksync.OwesJob {
		j.owe(fmt.Sprintf("%s/delete/%d", exploredID, j.stored().DeletedAt.UnixMilli()))
	}
	if d.schedule.park("%s: Store.DeactivateOwing returns, owes %v", d.name, owes) {
		return clerksync.Result{}, 0, errExploredStore // the answer is lost
	}
	if d.withholds {
		res.User = nil
	}
	return res, owes, err
}

func (d *exploredStore) ChangeJob(ctx context.Context, c clerksync.JobChange) (bool, error) {
	if d.schedule.park("%s: Store.ChangeJob to %+v", d.name, c.To) {
		return false, errExploredStore
	}
	changed, err := d.jobs().ChangeJob(ctx, c)
	switch {
	case changed:
		d.schedule.jobs.changed(c)
	case c.EndsAttempt() && ctx.Err() != nil: // the Store did not answer for so long
		d.schedule.jobs.excuse(jobKeyOf(c))
	}
	if d.schedule.park("%s: Store.ChangeJob returns %t", d.name, changed) {
		return false, errExploredStore // the answer is lost
	}
	return changed, err
}

func (d *exploredStore) DueJobs(ctx context.Context, kind clerksync.JobKind, by time.Time, limit int) ([]clerksync.JobEntry, error) {
	if d.schedule.park("%s: Store.DueJobs of %s", d.name, kind) {
		return nil, errExploredStore
	}
	due, err := d.jobs().DueJobs(ctx, kind, by, limit)
	d.schedule.park("%s: Store.DueJobs of %s returns %d", d.name, kind, len(due))
	return due, err
}

func (d *exploredStore) Jobs(ctx context.Context) iter.Seq2[clerksync.JobEntry, error] {
	return d.jobs().Jobs(ctx)
}

func (d *exploredStore) PrepareJobs(context.Context, clerksync.JobKind) error { return nil }

// drain lets everything go on until it has ended. Some of it waits for a while.
func (s *schedule) drain() {
	for waits := 0; waits < 60; {
		synctest.Wait()
		switch {
		case s.resumeOne():
		case s.count(&s.running) == 0:
			return
		default:
			time.Sleep(time.Second)
			waits++
		}
	}
	s.violate("%d operations never end", s.count(&s.running))
}
