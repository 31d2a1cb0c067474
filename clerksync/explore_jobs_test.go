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
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
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

// crashStore is the Store as one process sees it, which dies before or after its nth call: nothing that
// it calls afterwards has an effect or an answer. If it erases, the end of a delete job empties the
// address.
type crashStore struct {
	*memstore.Store
	nth    int
	after  bool
	erases bool

	mu    sync.Mutex
	calls int
	dead  bool
	ended bool // it wrote the end of an attempt
}

var errDead = fmt.Errorf("%w: the process has died", clerksync.ErrRejected)

// isDead reports whether the process has died.
func (s *crashStore) isDead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

// call makes one call, unless the process has died or dies.
func (s *crashStore) call(do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	dies := s.calls == s.nth
	if s.dead || dies && !s.after {
		s.dead = true
		return errDead
	}
	err := do()
	if dies {
		s.dead = true
		return errDead
	}
	return err
}

func (s *crashStore) User(ctx context.Context, id string) (u *clerksync.User, err error) {
	err = s.call(func() (err error) { u, err = s.Store.User(ctx, id); return err })
	return u, err
}

func (s *crashStore) Users(ctx context.Context, ids []string) (us map[string]*clerksync.User, err error) {
	err = s.call(func() (err error) { us, err = s.Store.Users(ctx, ids); return err })
	return us, err
}

func (s *crashStore) Stamps(ctx context.Context, ids []string) (stamps map[string]clerksync.Stamp, err error) {
	err = s.call(func() (err error) { stamps, err = s.Store.Stamps(ctx, ids); return err })
	return stamps, err
}

func (s *crashStore) Undeleted(ctx context.Context) iter.Seq2[clerksync.Stamp, error] {
	if err := s.call(func() error { return nil }); err != nil {
		return func(yield func(clerksync.Stamp, error) bool) { yield(clerksync.Stamp{}, err) }
	}
	return s.Store.Undeleted(ctx)
}

func (s *crashStore) Upsert(ctx context.Context, u *clerksync.User) (res clerksync.Result, err error) {
	err = s.call(func() (err error) { res, err = s.Store.Upsert(ctx, u); return err })
	return res, err
}

func (s *crashStore) UpsertBatch(ctx context.Context, us []*clerksync.User) (res []clerksync.Result, err error) {
	err = s.call(func() (err error) { res, err = s.Store.UpsertBatch(ctx, us); return err })
	return res, err
}

func (s *crashStore) Restore(ctx context.Context, id string, before time.Time) (restored bool, err error) {
	err = s.call(func() (err error) { restored, err = s.Store.Restore(ctx, id, before); return err })
	return restored, err
}

func (s *crashStore) DeactivateOwing(
	ctx context.Context, id, external string, at, due time.Time,
) (res clerksync.Result, owing clerksync.Owing, err error) {
	err = s.call(func() (err error) { res, owing, err = s.Store.DeactivateOwing(ctx, id, external, at, due); return err })
	return res, owing, err
}

func (s *crashStore) ChangeJob(ctx context.Context, c clerksync.JobChange) (changed bool, err error) {
	err = s.call(func() (err error) {
		changed, err = s.Store.ChangeJob(ctx, c)
		s.ended = s.ended || changed && c.EndsAttempt()
		if changed && s.erases && c.Kind == clerksync.JobDelete && c.Ends() {
			err = s.Edit(c.ClerkID, func(u *clerksync.User) { u.Email = "" })
		}
		return err
	})
	return changed && err == nil, err
}

func (s *crashStore) DueJobs(ctx context.Context, kind clerksync.JobKind, by time.Time, limit int) (due []clerksync.JobEntry, err error) {
	err = s.call(func() (err error) { due, err = s.Store.DueJobs(ctx, kind, by, limit); return err })
	return due, err
}

// crashCase is what a process does when it dies, and what must come of it.
type crashCase struct {
	await, erases bool
	delay         time.Duration
	onCreate      error // what the function returns after its effect
	onDelete      error
	// before is what a process does that does not die.
	before func(t *testing.T, fx *jobFixture, id string)
	// act is what the process does. If it fails, a second process does it again.
	act func(fx *jobFixture, s *clerksync.Syncer, id string) error
	// want checks the record in the end, and returns the keys of the effects.
	want func(t *testing.T, fx *jobFixture, u *clerksync.User) []string
}

// crashOf are the processes of one run of a crashCase.
type crashOf struct {
	*crashCase
	store   *crashStore
	effects map[string]int // by key, of both processes
	own     int            // of the process that dies
	mu      sync.Mutex
}

// function is the app's: its effect is that of a process that lives.
func (c *crashOf) function(store *crashStore, result error) func(context.Context, *clerksync.User, clerksync.Job) error {
	return func(_ context.Context, _ *clerksync.User, job clerksync.Job) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if store.isDead() {
			return errDead
		}
		c.effects[job.Key]++
		if store == c.store {
			c.own++
		}
		return result
	}
}

// process returns a process on a Store, whose clock is its own.
func (c *crashOf) process(t *testing.T, fx *jobFixture, store *crashStore, clock *fakeclerk.Clock) *clerksync.Syncer {
	store.Store, store.erases = fx.store.Store, c.erases
	return fx.syncer(t, func(cfg *clerksync.Config) {
		cfg.Store, cfg.Now = store, clock.Now
		clerksync.SetClock(cfg, eagerClock{clock})
		cfg.OnCreate, cfg.OnDelete = c.function(store, c.onCreate), c.function(store, c.onDelete)
		cfg.Jobs = clerksync.JobConfig{MaxAttempts: 3, Await: c.await, DeleteDelay: c.delay}
	})
}

var errMailer = errors.New("the mailer is down")

func crashCases() map[string]crashCase {
	visitOf := func(_ *jobFixture, s *clerksync.Syncer, id string) error { return findUser(s, id) }
	created := func(fx *jobFixture, s *clerksync.Syncer, id string) error {
		raw, _ := fx.clerk.User(id)
		_, err := s.Apply(context.Background(), clerksync.Event{Type: "user.created", Timestamp: t0, Data: raw})
		return err
	}
	deleted := func(fx *jobFixture, s *clerksync.Syncer, id string) error {
		e := fx.deletion(id)
		e.Timestamp = t0.Add(time.Minute)
		_, err := s.Apply(context.Background(), e)
		return err
	}
	synced := func(_ *jobFixture, s *clerksync.Syncer, id string) error {
		_, err := s.Sync(context.Background(), id)
		return err
	}
	reconciled := func(o options) func(*jobFixture, *clerksync.Syncer, string) error {
		return func(_ *jobFixture, s *clerksync.Syncer, _ string) error {
			o.InstanceID = sharedInstance
			_, err := s.Reconcile(context.Background(), o)
			return err
		}
	}
	drained := func(_ *jobFixture, s *clerksync.Syncer, _ string) error {
		_, err := s.DrainJobs(context.Background())
		return err
	}
	aRecord := func(t *testing.T, fx *jobFixture, id string) {
		visit(t, fx.Syncer, id)
		fx.settle()
		fx.clock.Advance(time.Minute)
	}
	tombstone := func(after time.Duration) func(t *testing.T, fx *jobFixture, id string) {
		return func(t *testing.T, fx *jobFixture, id string) {
			aRecord(t, fx, id)
			if _, _, err := fx.store.Store.DeactivateOwing(t.Context(), id, "", fx.clock.Now(), fx.clock.Now().Add(24*time.Hour)); err != nil {
				t.Fatal(err)
			}
			fx.clock.Advance(after)
		}
	}
	welcomed := func(code string, failed bool) func(*testing.T, *jobFixture, *clerksync.User) []string {
		return func(t *testing.T, _ *jobFixture, u *clerksync.User) []string {
			job := u.Jobs.Of(clerksync.JobCreate)
			if !u.IsActive || !job.Due.IsZero() || job.Code != code || job.FailedAt.IsZero() == failed || job.Attempt > 3 {
				t.Errorf("in the end the record is %+v, its job %+v", u, job)
			}
			return []string{u.ClerkID + "/create"}
		}
	}
	cleaned := func(email string) func(*testing.T, *jobFixture, *clerksync.User) []string {
		return func(t *testing.T, _ *jobFixture, u *clerksync.User) []string {
			job := u.Jobs.Of(clerksync.JobDelete)
			if u.DeletedAt.IsZero() || u.IsActive || u.Email != email || !job.Due.IsZero() || !job.FailedAt.IsZero() {
				t.Errorf("in the end the record is %+v, its job %+v", u, job)
			}
			return []string{deleteKey(u.ClerkID, u.DeletedAt)}
		}
	}
	restored := func(t *testing.T, _ *jobFixture, u *clerksync.User) []string {
		if job := u.Jobs.Of(clerksync.JobDelete); !u.DeletedAt.IsZero() || !u.IsActive || job != (clerksync.JobState{}) {
			t.Errorf("in the end the record is %+v, its job %+v", u, job)
		}
		return nil
	}
	const email = "ada@example.com"
	day := 24 * time.Hour
	return map[string]crashCase{
		"first visit":                 {act: visitOf, want: welcomed("", false)},
		"first visit, awaited":        {await: true, act: visitOf, want: welcomed("", false)},
		"webhook creates":             {act: created, want: welcomed("", false)},
		"Sync creates":                {act: synced, want: welcomed("", false)},
		"Reconcile creates":           {act: reconciled(options{}), want: welcomed("", false)},
		"discarded":                   {onCreate: clerksync.Discard(errMailer), act: visitOf, want: welcomed("discarded", false)},
		"failing":                     {onCreate: errMailer, act: visitOf, want: welcomed("error", true)},
		"deletion":                    {before: aRecord, act: deleted, want: cleaned(email)},
		"deletion that erases":        {before: aRecord, act: deleted, want: cleaned(""), erases: true},
		"deletion with a delay":       {before: aRecord, act: deleted, want: cleaned(email), delay: day},
		"clean-up after the delay":    {before: tombstone(day), act: drained, want: cleaned(email), delay: day},
		"clean-up that erases":        {before: tombstone(day), act: drained, want: cleaned(""), delay: day, erases: true},
		"discarded clean-up, erasing": {before: tombstone(day), act: drained, want: cleaned(""), onDelete: clerksync.Discard(errMailer), erases: true},
		"Reconcile finds a deletion": {
			before: func(t *testing.T, fx *jobFixture, id string) {
				aRecord(t, fx, id)
				fx.clock.Advance(time.Hour)
				_ = fx.clerk.DeleteUser(id)
			},
			act: reconciled(options{}), want: cleaned(email),
		},
		"Restore": {before: tombstone(2 * time.Hour), act: reconciled(options{Restore: true}), want: restored, delay: day},
	}
}

// findUser is a visit, as far as its error.
func findUser(s *clerksync.Syncer, id string) error {
	_, err := s.User(context.Background(), id)
	return err
}

func isPending(err error) bool {
	var p *clerksync.Problem
	return errors.As(err, &p) && p.Code == clerksync.CodeJobPending
}

// TestCrashAtEachCall lets a process die before and after each of its calls to the Store. A second
// process does what was not acknowledged again, and runs what is due. No job is lost, and its effect
// happens again only if the process died between the effect and the end of the attempt.
func TestCrashAtEachCall(t *testing.T) {
	t.Parallel()
	for name, tt := range crashCases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, after := range []bool{false, true} {
				nth := 1
				for crash(t, &tt, nth, after) && !t.Failed() {
					nth++
				}
				if nth < 3 {
					t.Errorf("the process made only %d calls", nth-1)
				}
			}
		})
	}
}

// crash runs one case, and reports whether the process died.
func crash(t *testing.T, tt *crashCase, nth int, after bool) bool {
	t.Helper()
	c := &crashOf{crashCase: tt, store: &crashStore{nth: nth, after: after}, effects: map[string]int{}}
	fx := newJobFixture(t, nil)
	id := fx.signUp()
	if tt.before != nil {
		tt.before(t, fx, id)
	}
	dying := c.process(t, fx, c.store, fakeclerk.NewClock(fx.clock.Now()))
	err := tt.act(fx, dying, id)
	clerksync.WaitBackground(dying)
	died := c.store.isDead()

	second := c.process(t, fx, &crashStore{}, fx.clock)
	if fx.clock.Advance(time.Second); err != nil {
		if err := tt.act(fx, second, id); err != nil && !isPending(err) { // the attempt of the dead one may be running
			t.Errorf("dies at call %d, after it %t: the second process: %v", nth, after, err)
		}
	}
	fx.clock.Advance(tt.delay)
	for range 5 {
		clerksync.WaitBackground(second)
		fx.clock.Advance(5*time.Minute + clerksync.LeaseGrace)
		if _, err := second.DrainJobs(t.Context()); err != nil {
			t.Error(err)
		}
	}
	c.check(t, fmt.Sprintf("dies at call %d, after it %t", nth, after), tt.want(t, fx, fx.stored(t, id)))
	return died
}

// check checks that these effects have happened, and no others.
func (c *crashOf) check(t *testing.T, when string, keys []string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	most := 1
	if c.own > 0 && !c.store.ended {
		most = 2
	}
	if c.onCreate == errMailer { // it has its effect in each attempt
		most = 3
	}
	for _, key := range keys {
		if n := c.effects[key]; n < 1 || n > most {
			t.Errorf("%s: the effect of %s has happened %d times, at most %d expected", when, key, n, most)
		}
		delete(c.effects, key)
	}
	if len(c.effects) > 0 {
		t.Errorf("%s: these effects nobody owed: %v", when, c.effects)
	}
}
