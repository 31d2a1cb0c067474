package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// The rules about jobs, and the tests of each. Everything is also checked at random, by
// storetest/world and TestExplore, and in each Store, by the Jobs cases of storetest.
//
//	the write owes the job, on each path     TestOnCreateOnEveryPath, TestOnDeleteOnEveryPath
//	only the first insert does               the same, TestMapOwesNoJob, mongostore TestAdoptionOwesNoJob
//	not for old users, or unknown ages       TestNewFor, TestCreateDue
//	not by a version without the function    TestTwoVersionsOfTheApp
//	not by a tombstone without a record      TestTombstoneOwesNoOnDelete
//	something else in the place of a job     TestNoRoomForAJob, mongostore TestForeignJobs
//	no crash loses one                       TestCrashAtEachCall, TestDeadProcesses, examples/internal/crash
//	read, claim, finish: one command each    mongostore TestJobRoundTrips
//	a claim is guarded on what was read      TestNextStep, TestUserDeletedBeforeTheClaim, TestRestoredBeforeTheDrop
//	the context ends at Lease                TestLeaseExpiry, TestFunctionOutlivesItsContext, TestLeaseOverBeforeTheCall
//	others wait a minute longer              TestLeaseExpiry, TestClocksAMinuteApart, TestClaimed
//	attempts, their waits and their end      TestJobsAreRetriedAndFail, TestAfterAttempt, TestRetryWait
//	Discard                                  TestDiscard, TestAwaitEndsWithout
//	the first attempt, at most eight         TestAtMostEightAtATime, TestCloseAndJobs
//	visits try one claim                     TestVisitsTryTheJob
//	RunJobs and DrainJobs                    TestRunJobs, TestDrainJobsReadsAgain, TestRunJobsGivesUp
//	random order, a list that is worked off  TestJobsAreClaimedInRandomOrder, TestListThatOthersWorkedOff
//	OnDelete waits for OnCreate              TestUserDeletedWhileOnCreateRuns
//	Await                                    TestAwait and those that follow it
//	DeleteDelay and Restore                  TestRestoreAndOnDelete
//	EraseOnDelete                            mongostore TestEraseOnDeleteWaitsForTheJob, TestEraseIsGuarded
//	indexes                                  mongostore TestJobsOfAnApp, TestPrepareJobsUsesTheAppsIndex
//	nothing without functions                mongostore TestJobsCostNothingWithout
//	all of it at once                        TestOneWelcome

// jobLog is an OnCreate or OnDelete that notes its calls.
type jobLog struct {
	mu    sync.Mutex
	calls []clerksync.Job
	users []*clerksync.User
	// do is called after that; nil does nothing.
	do func(ctx context.Context, u *clerksync.User, job clerksync.Job) error
}

func (l *jobLog) run(ctx context.Context, u *clerksync.User, job clerksync.Job) error {
	l.mu.Lock()
	l.calls, l.users = append(l.calls, job), append(l.users, u)
	do := l.do
	l.mu.Unlock()
	if do == nil {
		return nil
	}
	return do(ctx, u, job)
}

func (l *jobLog) set(do func(ctx context.Context, u *clerksync.User, job clerksync.Job) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.do = do
}

// keys returns the keys of the calls with their attempts.
func (l *jobLog) keys() (keys []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, job := range l.calls {
		keys = append(keys, fmt.Sprintf("%s #%d", job.Key, job.Attempt))
	}
	return keys
}

// want checks the calls so far.
func (l *jobLog) want(t *testing.T, keys ...string) {
	t.Helper()
	if got := l.keys(); !slices.Equal(got, keys) {
		t.Errorf("the function was called for %q, want %q", got, keys)
	}
}

// jobFixture is a fixture whose Syncer has both functions.
type jobFixture struct {
	*fixture
	created, deleted *jobLog
}

func newJobFixture(t *testing.T, change func(*clerksync.Config)) *jobFixture {
	t.Helper()
	fx := &jobFixture{created: &jobLog{}, deleted: &jobLog{}}
	fx.fixture = newFixture(t, fx.with(change))
	return fx
}

func (fx *jobFixture) with(change func(*clerksync.Config)) func(*clerksync.Config) {
	return func(c *clerksync.Config) {
		c.OnCreate, c.OnDelete = fx.created.run, fx.deleted.run
		if change != nil {
			change(c)
		}
	}
}

// another is another process of the app.
func (fx *jobFixture) another(t *testing.T, change func(*clerksync.Config)) *clerksync.Syncer {
	t.Helper()
	return fx.syncer(t, fx.with(change))
}

func (fx *jobFixture) signUp() string {
	return fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: "ada@example.com"})
}

// settle waits for the jobs in the background.
func (fx *jobFixture) settle() { clerksync.WaitBackground(fx.Syncer) }

// drain runs what is due, and checks how many that is.
func drain(t *testing.T, s *clerksync.Syncer, want int) {
	t.Helper()
	if n, err := s.DrainJobs(t.Context()); err != nil || n != want {
		t.Errorf("DrainJobs: %d, %v; want %d", n, err, want)
	}
}

func (fx *jobFixture) job(t *testing.T, id string, kind clerksync.JobKind) clerksync.JobState {
	t.Helper()
	return fx.stored(t, id).Jobs.Of(kind)
}

// apply applies an event, which must succeed.
func apply(t *testing.T, s *clerksync.Syncer, e clerksync.Event) {
	t.Helper()
	if _, err := s.Apply(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

// deletion is the user.deleted of a user, as of now.
func (fx *fixture) deletion(id string) clerksync.Event {
	return clerksync.Event{Type: "user.deleted", Timestamp: fx.clock.Now(), Data: fmt.Appendf(nil, `{"id":%q}`, id)}
}

func deleteKey(id string, at time.Time) string {
	return fmt.Sprintf("%s/delete/%d", id, at.UnixMilli())
}

// jobOutcomes returns what was observed of jobs.
func (fx *jobFixture) jobOutcomes() (seen []string) {
	fx.seen.mu.Lock()
	defer fx.seen.mu.Unlock()
	for _, o := range fx.seen.all {
		if o.Op != clerksync.OpJob {
			continue
		}
		text := fmt.Sprintf("%s #%d %s", o.Job.Kind, o.Job.Attempt, o.Job.Outcome)
		if o.Err != nil {
			text += ", error"
		}
		seen = append(seen, text)
	}
	return seen
}

func wantTexts(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%q, want\n%q", what, got, want)
	}
}

// Rule: OnCreate runs once for each new user, on whichever path the record was made; updates and
// repeats owe none.
func TestOnCreateOnEveryPath(t *testing.T) {
	t.Parallel()
	paths := map[string]func(t *testing.T, fx *jobFixture, id string) error{
		"Apply": func(t *testing.T, fx *jobFixture, id string) error {
			_, err := fx.Apply(t.Context(), fx.event(id))
			return err
		},
		"visit": func(t *testing.T, fx *jobFixture, id string) error { _, err := fx.User(t.Context(), id); return err },
		"Sync":  func(t *testing.T, fx *jobFixture, id string) error { _, err := fx.Sync(t.Context(), id); return err },
		"Reconcile": func(t *testing.T, fx *jobFixture, _ string) error {
			_, err := fx.Reconcile(t.Context(), options{Force: true})
			return err
		},
	}
	for name, first := range paths {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newJobFixture(t, nil)
			id := fx.signUp()
			if err := first(t, fx, id); err != nil {
				t.Fatal(err)
			}
			fx.settle()
			fx.created.want(t, id+"/create #1")
			if u := fx.created.users[0]; u.Email != "ada@example.com" || u.ID == "" || u.Jobs != nil || fx.created.calls[0].Due.Before(t0) || fx.created.calls[0].Due.After(fx.clock.Now()) {
				t.Errorf("OnCreate got %+v, due %v", u, fx.created.calls[0].Due)
			}
			if job := fx.job(t, id, clerksync.JobCreate); job != (clerksync.JobState{Attempt: 1}) {
				t.Errorf("the job is %+v afterwards", job)
			}
			fx.rename(t, id, "Grace")
			for _, again := range paths {
				if err := again(t, fx, id); err != nil {
					t.Fatal(err)
				}
			}
			fx.settle()
			drain(t, fx.Syncer, 0)
			fx.created.want(t, id+"/create #1")
			wantTexts(t, "observed", fx.jobOutcomes(), "create #1 succeeded")
		})
	}
}

// Rule: OnDelete runs once for each deleted user, by an event or a Reconcile that finds the
// deletion, and the user is as the record was read.
func TestOnDeleteOnEveryPath(t *testing.T) {
	t.Parallel()
	for name, del := range map[string]func(t *testing.T, fx *jobFixture, id string){
		"event": func(t *testing.T, fx *jobFixture, id string) { apply(t, fx.Syncer, fx.deletion(id)) },
		"Reconcile": func(t *testing.T, fx *jobFixture, id string) {
			_ = fx.clerk.DeleteUser(id)
			if report, err := fx.Reconcile(t.Context(), options{InstanceID: sharedInstance}); err != nil || report.Deactivated.Count != 1 {
				t.Fatalf("%+v, %v", report, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newJobFixture(t, nil)
			id := fx.signUp()
			visit(t, fx.Syncer, id)
			fx.settle()
			fx.clock.Advance(time.Hour)
			del(t, fx, id)
			fx.settle()
			at := fx.stored(t, id).DeletedAt
			fx.deleted.want(t, deleteKey(id, at)+" #1")
			if u := fx.deleted.users[0]; !u.DeletedAt.Equal(at) || u.Email == "" {
				t.Errorf("OnDelete got %+v", u)
			}
			apply(t, fx.Syncer, fx.deletion(id))
			fx.settle()
			drain(t, fx.Syncer, 0)
			fx.deleted.want(t, deleteKey(id, at)+" #1")
		})
	}
}

// Rule: a tombstone without a record owes no OnDelete.
func TestTombstoneOwesNoOnDelete(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, nil)
	id := fx.signUp()
	apply(t, fx.Syncer, fx.deletion(id))
	apply(t, fx.Syncer, fx.event(id))
	fx.settle()
	drain(t, fx.Syncer, 0)
	fx.created.want(t)
	fx.deleted.want(t)
}

// Rule: NewFor, at its edge, and an unknown ClerkCreatedAt.
func TestNewFor(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, func(c *clerksync.Config) { c.Jobs.NewFor = time.Hour })
	for name, tt := range map[string]struct {
		change func(*fakeclerk.UserObject)
		owes   bool
	}{
		"at the edge":  {func(u *fakeclerk.UserObject) { u.CreatedAt = t0.Add(-time.Hour).UnixMilli() }, true},
		"a moment ago": {func(u *fakeclerk.UserObject) { u.CreatedAt = t0.Add(-time.Hour).UnixMilli() - 1 }, false},
		"unknown":      {func(u *fakeclerk.UserObject) { u.CreatedAt = 0 }, false},
	} {
		id := fx.clerk.CreateUser(fakeclerk.NewUser{CreatedAt: t0.Add(-2 * time.Hour)})
		if err := fx.clerk.UpdateUserSilently(id, tt.change); err != nil {
			t.Fatal(err)
		}
		visit(t, fx.Syncer, id)
		fx.settle()
		if owes := fx.job(t, id, clerksync.JobCreate) != (clerksync.JobState{}); owes != tt.owes {
			t.Errorf("%s: there is a job: %t, want %t", name, owes, tt.owes)
		}
	}
}

// Rule: Map decides nothing about jobs: neither when a user counts as new, nor the state.
func TestMapOwesNoJob(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, func(c *clerksync.Config) {
		c.Jobs.NewFor = time.Hour
		c.Map = mapJobs
	})
	id := fx.clerk.CreateUser(fakeclerk.NewUser{CreatedAt: t0.Add(-2 * time.Hour)})
	visit(t, fx.Syncer, id)
	fx.settle()
	fx.created.want(t)
}

// Rule: records from a version without OnCreate owe none, and such a version leaves jobs alone.
func TestTwoVersionsOfTheApp(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, nil)
	old := fx.syncer(t, func(c *clerksync.Config) { c.Store = jobless{fx.store, t} })
	before, after := fx.signUp(), fx.signUp()
	visit(t, old, before)
	visit(t, fx.Syncer, before)
	fx.settle()
	fx.created.want(t)

	fx.created.set(func(context.Context, *clerksync.User, clerksync.Job) error { return errDown })
	visit(t, fx.Syncer, after)
	fx.settle()
	owed := fx.job(t, after, clerksync.JobCreate)
	visit(t, old, after)
	fx.rename(t, after, "Grace")
	apply(t, old, fx.event(after))
	if n, err := old.DrainJobs(t.Context()); n != 0 || err != nil {
		t.Errorf("DrainJobs without functions: %d, %v", n, err)
	}
	if job := fx.job(t, after, clerksync.JobCreate); job != owed || job.Due.IsZero() {
		t.Errorf("the version without OnCreate made %+v of the job %+v", job, owed)
	}
	apply(t, old, fx.deletion(before))
	fx.settle()
	drain(t, fx.Syncer, 0)
	fx.deleted.want(t)
}

// jobless is a Store whose methods for jobs must not be called: without functions there is not
// one command more.
type jobless struct {
	*countingStore
	t *testing.T
}

func (s jobless) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	if !u.CreateDue.IsZero() {
		s.t.Errorf("an Upsert without OnCreate has CreateDue %v", u.CreateDue)
	}
	return s.countingStore.Upsert(ctx, u)
}

func (s jobless) DeactivateOwing(context.Context, string, string, time.Time, time.Time) (clerksync.Result, clerksync.Owing, error) {
	s.t.Error("DeactivateOwing without OnDelete")
	return clerksync.Result{}, 0, errDown
}

func (s jobless) ChangeJob(context.Context, clerksync.JobChange) (bool, error) {
	s.t.Error("ChangeJob without functions")
	return false, errDown
}

func (s jobless) DueJobs(context.Context, clerksync.JobKind, time.Time, int) ([]clerksync.JobEntry, error) {
	s.t.Error("DueJobs without functions")
	return nil, errDown
}

func (s jobless) PrepareJobs(context.Context, clerksync.JobKind) error {
	s.t.Error("PrepareJobs without functions")
	return errDown
}

// Rules: a failed attempt is tried again later, with the same Key; attempts are counted; after the
// last one the job has failed, and failing unsets due. A warning at each failure, an error at the
// last.
func TestJobsAreRetriedAndFail(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, func(c *clerksync.Config) { c.Jobs.MaxAttempts = 3 })
	fx.created.set(func(context.Context, *clerksync.User, clerksync.Job) error { return errDown })
	id := fx.signUp()
	visit(t, fx.Syncer, id)
	fx.settle()
	job := fx.job(t, id, clerksync.JobCreate)
	if wait := job.Due.Sub(fx.clock.Now()); job.Code != "error" || job.Token != "" || wait < 5*time.Second || wait > 10*time.Second {
		t.Errorf("after a failed attempt the job is %+v", job)
	}
	drain(t, fx.Syncer, 0)
	fx.clock.Advance(10 * time.Second)
	drain(t, fx.Syncer, 1)
	fx.clock.Advance(20 * time.Second)
	drain(t, fx.Syncer, 1)
	fx.clock.Advance(clerksync.MaxRetry)
	drain(t, fx.Syncer, 0)
	visit(t, fx.Syncer, id)
	fx.settle()
	fx.created.want(t, id+"/create #1", id+"/create #2", id+"/create #3")
	if job := fx.job(t, id, clerksync.JobCreate); !job.Due.IsZero() || job.FailedAt.IsZero() || job.Attempt != 3 || job.Code != "error" {
		t.Errorf("the failed job is %+v", job)
	}
	wantTexts(t, "observed", fx.jobOutcomes(), "create #1 retried, error", "create #2 retried, error", "create #3 failed, error")
	log := fx.logs.String()
	if warnings, errs := strings.Count(log, "level=WARN"), strings.Count(log, "level=ERROR"); warnings != 2 || errs != 1 {
		t.Errorf("%d warnings and %d errors in the log, want 2 and 1:\n%s", warnings, errs, log)
	}
}

// Rules: a panic is a failed attempt, and the log has nothing of the user's or of the error's text.
func TestJobErrorsAreNotQuoted(t *testing.T) {
	t.Parallel()
	const secret = "550 no such user: ada@example.com"
	fx := newJobFixture(t, func(c *clerksync.Config) { c.Jobs.MaxAttempts = 5 })
	dos := []func(context.Context, *clerksync.User, clerksync.Job) error{
		func(context.Context, *clerksync.User, clerksync.Job) error { panic(secret) },
		func(context.Context, *clerksync.User, clerksync.Job) error { panic(errors.New(secret)) },
		func(context.Context, *clerksync.User, clerksync.Job) error { var none *url.Error; return none }, // its Unwrap panics
		func(context.Context, *clerksync.User, clerksync.Job) error { return errors.New(secret) },
		func(context.Context, *clerksync.User, clerksync.Job) error {
			return clerksync.Discard(errors.New(secret))
		},
	}
	id := fx.signUp()
	for i, do := range dos {
		fx.created.set(do)
		if i == 0 {
			visit(t, fx.Syncer, id)
			fx.settle()
		} else {
			fx.clock.Advance(clerksync.MaxRetry)
			drain(t, fx.Syncer, 1)
		}
		wantCode := []string{"panic", "panic", "panic", "error", "discarded"}[i]
		if job := fx.job(t, id, clerksync.JobCreate); job.Code != wantCode || job.Due.IsZero() != (i == 4) || !job.FailedAt.IsZero() {
			t.Errorf("after attempt %d the job is %+v, want the code %q", i+1, job, wantCode)
		}
	}
	if log := fx.logs.String(); strings.Contains(log, "example.com") || !strings.Contains(log, "panic of type string") {
		t.Errorf("the log says\n%s", log)
	}
	wantTexts(t, "observed", fx.jobOutcomes(),
		"create #1 retried, error", "create #2 retried, error", "create #3 retried, error", "create #4 retried, error", "create #5 discarded, error")
	var p *clerksync.Problem
	for _, o := range fx.seen.all {
		if o.Op == clerksync.OpJob && (!errors.As(o.Err, &p) || p.Code != "job_failed" || o.ClerkID != id) {
			t.Errorf("observed %+v", o)
		}
	}
}

// held is a function that reports its start and waits until release or the end of its context.
type held struct {
	started chan context.Context
	release chan error
	deaf    bool // it does not hear the end of its context
}

func newHeld() *held {
	return &held{started: make(chan context.Context, 10), release: make(chan error)}
}

func (h *held) do(ctx context.Context, _ *clerksync.User, _ clerksync.Job) error {
	h.started <- ctx
	done := ctx.Done()
	if h.deaf {
		done = nil
	}
	select {
	case err := <-h.release:
		return err
	case <-done:
		return context.Cause(ctx)
	}
}

// Rules: the context ends at Lease, others may claim a minute after that; a function that outlives
// its context until then has lost its job.
func TestLeaseExpiry(t *testing.T) {
	t.Parallel()
	const lease = 5 * time.Minute
	fx := newJobFixture(t, nil)
	slow := newHeld()
	slow.deaf = true
	fx.created.set(slow.do)
	id := fx.signUp()
	visit(t, fx.Syncer, id)
	ctx := <-slow.started
	fx.created.set(nil)
	other := fx.another(t, nil)

	fx.clock.Advance(lease - time.Millisecond)
	if ctx.Err() != nil {
		t.Error("the context ends before the lease")
	}
	fx.clock.Advance(time.Millisecond)
	if ctx.Err() == nil || !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		t.Errorf("at the end of the lease the context's error is %v", ctx.Err())
	}
	fx.clock.Advance(clerksync.LeaseGrace - time.Millisecond)
	drain(t, other, 0)
	fx.clock.Advance(time.Millisecond)
	drain(t, other, 1)
	slow.release <- nil
	fx.settle()
	fx.created.want(t, id+"/create #1", id+"/create #2")
	wantTexts(t, "observed", fx.jobOutcomes(), "create #2 succeeded", "create #1 lost, error")
	if job := fx.job(t, id, clerksync.JobCreate); job != (clerksync.JobState{Attempt: 2}) {
		t.Errorf("the job is %+v", job)
	}
}

// Rule: a function that returns after its context, and before others may claim, has been in time.
func TestFunctionOutlivesItsContext(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err      error
		code     string
		observed string
	}{
		"with success":  {nil, "", "create #1 succeeded"},
		"with an error": {errDown, "timeout", "create #1 retried, error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newJobFixture(t, func(c *clerksync.Config) { c.Jobs.Lease = time.Minute })
			slow := newHeld()
			slow.deaf = true
			fx.created.set(slow.do)
			id := fx.signUp()
			visit(t, fx.Syncer, id)
			<-slow.started
			fx.clock.Advance(time.Minute + time.Second)
			slow.release <- tt.err
			fx.settle()
			wantTexts(t, "observed", fx.jobOutcomes(), tt.observed)
			if job := fx.job(t, id, clerksync.JobCreate); job.Code != tt.code || job.Token != "" {
				t.Errorf("the job is %+v", job)
			}
		})
	}
}

// Rule: the context ends at Lease, so a process that stood still between claim and call does not call the
// function: others may have done so.
func TestLeaseOverBeforeTheCall(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, nil)
	id := fx.owe(t)
	s := fx.another(t, func(c *clerksync.Config) { c.Store = &slowClaim{fx.store, fx} })
	drain(t, s, 1)
	fx.created.want(t)
	wantTexts(t, "observed", fx.jobOutcomes(), "create #1 retried, error")
	if job := fx.job(t, id, clerksync.JobCreate); job.Attempt != 1 || job.Code != "timeout" || job.Token != "" {
		t.Errorf("the job is %+v", job)
	}
	fx.clock.Advance(clerksync.MaxRetry)
	drain(t, fx.Syncer, 1)
	fx.created.want(t, id+"/create #2")
}

// slowClaim is a Store whose answer to a claim takes as long as the lease.
type slowClaim struct {
	*countingStore
	fx *jobFixture
}

func (s *slowClaim) ChangeJob(ctx context.Context, c clerksync.JobChange) (bool, error) {
	changed, err := s.fx.store.ChangeJob(ctx, c)
	if c.To.Token != "" {
		s.fx.clock.Advance(5 * time.Minute)
	}
	return changed, err
}

// die has a process claim the job of a user and do nothing more.
func (fx *jobFixture) die(t *testing.T, id string, kind clerksync.JobKind) {
	t.Helper()
	u := fx.stored(t, id)
	to := u.Jobs.Of(kind)
	c := clerksync.JobChange{ClerkID: id, Kind: kind, From: to, DeletedAt: u.DeletedAt}
	to.Attempt++
	to.Token, to.Due = fmt.Sprint("dead ", to.Attempt), fx.clock.Now().Add(6*time.Minute)
	c.To = to
	if ok, err := fx.store.Store.ChangeJob(t.Context(), c); err != nil || !ok {
		t.Fatalf("claim: %t, %v", ok, err)
	}
}

// owe makes a record that owes OnCreate, as by a process that dies at once.
func (fx *jobFixture) owe(t *testing.T) string {
	t.Helper()
	id := fx.signUp()
	raw, _ := fx.clerk.User(id)
	u, err := clerksync.MapUser(fx.Syncer, raw, fx.clock.Now())
	if err == nil {
		_, err = fx.store.Store.Upsert(t.Context(), u)
	}
	if err != nil || u.CreateDue.IsZero() {
		t.Fatalf("%+v, %v", u, err)
	}
	return id
}

// Rule: a job whose process has died is due again, and one out of attempts whose lease has run out
// is failed by whoever finds it.
func TestDeadProcesses(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, func(c *clerksync.Config) { c.Jobs.MaxAttempts = 2 })
	one, two := fx.owe(t), fx.owe(t)
	drainOne := func(s *clerksync.Syncer, want int) { t.Helper(); drain(t, s, want) }
	fx.die(t, one, clerksync.JobCreate)
	fx.die(t, two, clerksync.JobCreate)
	drainOne(fx.Syncer, 0)
	fx.clock.Advance(6 * time.Minute)
	fx.die(t, two, clerksync.JobCreate)
	drainOne(fx.Syncer, 1)
	fx.created.want(t, one+"/create #2")
	fx.clock.Advance(6 * time.Minute)
	drainOne(fx.Syncer, 0)
	if job := fx.job(t, two, clerksync.JobCreate); job.FailedAt.IsZero() || job.Code != "unended" || !job.Due.IsZero() {
		t.Errorf("the job out of attempts is %+v", job)
	}
	wantTexts(t, "observed", fx.jobOutcomes(), "create #2 succeeded", "create #2 failed, error")
}

// Rule: the process that made the record attempts the job at once, in the background, at most 8 at
// a time. The others follow.
func TestAtMostEightAtATime(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, nil)
	const users = 3 * clerksync.MaxJobs
	var running, most atomic.Int64
	gate := make(chan struct{})
	fx.created.set(func(context.Context, *clerksync.User, clerksync.Job) error {
		now := running.Add(1)
		for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
		}
		<-gate
		running.Add(-1)
		return nil
	})
	for range users {
		visit(t, fx.Syncer, fx.signUp())
	}
	waitUntil(t, "eight jobs run", func() bool { return running.Load() >= clerksync.MaxJobs })
	close(gate)
	fx.settle()
	if got := len(fx.created.keys()); got != users || most.Load() != clerksync.MaxJobs {
		t.Errorf("%d of %d jobs ran, %d at a time\n%s\n%q", got, users, most.Load(), fx.logs, fx.jobOutcomes())
	}
}

// Rule: visits try one claim for each lookup, and none from the cache.
func TestVisitsTryTheJob(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, nil)
	id := fx.owe(t)
	fx.created.set(func(context.Context, *clerksync.User, clerksync.Job) error { return errDown })
	visit(t, fx.Syncer, id)
	fx.settle()
	fx.clock.Advance(20 * time.Second)
	visit(t, fx.Syncer, id) // from the cache
	fx.settle()
	fx.created.want(t, id+"/create #1")
	fx.clock.Advance(10 * time.Second)
	visit(t, fx.Syncer, id)
	fx.settle()
	fx.created.want(t, id+"/create #1", id+"/create #2")
	_ = fx.store.Edit(id, func(u *clerksync.User) { u.IsActive = false })
	fx.clock.Advance(time.Minute)
	visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
	fx.settle()
	fx.created.want(t, id+"/create #1", id+"/create #2")
}

// Rule: OnDelete waits for a running OnCreate, whose record keeps its create job; the create job of
// a deleted user is dropped.
func TestUserDeletedWhileOnCreateRuns(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, nil)
	slow := newHeld()
	fx.created.set(slow.do)
	id := fx.signUp()
	visit(t, fx.Syncer, id)
	<-slow.started
	other := fx.another(t, nil)
	apply(t, other, fx.deletion(id))
	clerksync.WaitBackground(other)
	drain(t, other, 0)
	fx.deleted.want(t)
	if job := fx.job(t, id, clerksync.JobCreate); job.Token == "" {
		t.Errorf("the deletion made %+v of the running job", job)
	}
	slow.release <- errDown
	fx.settle()
	fx.clock.Advance(time.Minute)
	drain(t, other, 1)
	fx.deleted.want(t, deleteKey(id, fx.stored(t, id).DeletedAt)+" #1")
	fx.created.want(t, id+"/create #1")
	if job := fx.job(t, id, clerksync.JobCreate); job != (clerksync.JobState{}) {
		t.Errorf("the create job of the deleted user is %+v", job)
	}
}

// Rule: a claim needs a record that is not deleted; the deletion comes between the read and the
// claim.
func TestUserDeletedBeforeTheClaim(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, nil)
	id := fx.owe(t)
	store := &claimHook{countingStore: fx.store}
	s := fx.another(t, func(c *clerksync.Config) { c.Store = store })
	store.before = func() { apply(t, fx.Syncer, fx.deletion(id)) }
	_, _ = s.DrainJobs(t.Context())
	fx.settle()
	drain(t, s, 0)
	fx.created.want(t)
	fx.deleted.want(t, deleteKey(id, t0)+" #1")
}

// claimHook calls before, once, before a ChangeJob.
type claimHook struct {
	*countingStore
	once   sync.Once
	before func()
}

func (s *claimHook) ChangeJob(ctx context.Context, c clerksync.JobChange) (bool, error) {
	s.once.Do(s.before)
	return s.countingStore.ChangeJob(ctx, c)
}

// Rules: DeleteDelay is a pause before OnDelete, in which Restore takes it back; Restore reports
// false while OnDelete runs; Report.CleanedUp counts those whose job ran.
func TestRestoreAndOnDelete(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	restore := func(t *testing.T, fx *jobFixture, restored, cleaned int) {
		t.Helper()
		for _, dry := range []bool{true, false} {
			report, err := fx.Reconcile(t.Context(), options{Restore: true, DryRun: dry})
			if err != nil || report.Restored.Count != restored && !dry || report.CleanedUp.Count != cleaned && restored > 0 {
				t.Errorf("dry %t: restored %d, cleaned up %d, %v; want %d and %d", dry, report.Restored.Count, report.CleanedUp.Count, err, restored, cleaned)
			}
		}
	}
	setUp := func(t *testing.T) (*jobFixture, string) {
		fx := newJobFixture(t, func(c *clerksync.Config) { c.Jobs.DeleteDelay = day })
		id := fx.signUp()
		visit(t, fx.Syncer, id)
		fx.settle()
		apply(t, fx.Syncer, fx.deletion(id))
		fx.settle()
		fx.clock.Advance(day - time.Millisecond)
		drain(t, fx.Syncer, 0)
		if fx.deleted.want(t); t.Failed() {
			t.FailNow() // a test would wait for a call that has been made
		}
		return fx, id
	}
	t.Run("before", func(t *testing.T) {
		t.Parallel()
		fx, id := setUp(t)
		restore(t, fx, 1, 0)
		fx.clock.Advance(day)
		drain(t, fx.Syncer, 0)
		fx.deleted.want(t)
		at := fx.clock.Now()
		apply(t, fx.Syncer, fx.deletion(id)) // deleted again: a job of its own
		fx.settle()
		fx.clock.Advance(day)
		drain(t, fx.Syncer, 1)
		fx.deleted.want(t, deleteKey(id, at)+" #1")
	})
	t.Run("while", func(t *testing.T) {
		t.Parallel()
		fx, id := setUp(t)
		slow := newHeld()
		fx.deleted.set(slow.do)
		fx.clock.Advance(time.Millisecond)
		var draining sync.WaitGroup
		draining.Go(func() { drain(t, fx.Syncer, 1) })
		<-slow.started
		restore(t, fx, 0, 0)
		if fx.stored(t, id).DeletedAt.IsZero() {
			t.Error("the record was restored while OnDelete ran")
		}
		slow.release <- nil
		draining.Wait()
	})
	t.Run("after", func(t *testing.T) {
		t.Parallel()
		fx, id := setUp(t)
		fx.clock.Advance(time.Millisecond)
		drain(t, fx.Syncer, 1)
		restore(t, fx, 1, 1)
		fx.created.want(t, id+"/create #1")
		if u := fx.stored(t, id); !u.IsActive || u.Jobs.Of(clerksync.JobDelete) != (clerksync.JobState{Attempt: 1}) {
			t.Errorf("the restored record is %+v", u)
		}
	})
}

// Rule: clocks a minute apart do not run a function twice.
func TestClocksAMinuteApart(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, nil)
	slow := newHeld()
	fx.created.set(slow.do)
	id := fx.signUp()
	visit(t, fx.Syncer, id)
	ctx := <-slow.started
	ahead := fakeclerk.NewClock(t0.Add(time.Minute))
	other := fx.another(t, func(c *clerksync.Config) {
		c.Now = ahead.Now
		clerksync.SetClock(c, eagerClock{ahead})
	})
	step := func(d time.Duration) { fx.clock.Advance(d); ahead.Advance(d) }
	step(5*time.Minute - time.Millisecond)
	drain(t, other, 0)
	if ctx.Err() != nil {
		t.Error("the context has ended early")
	}
	fx.created.set(nil)
	step(time.Millisecond)
	drain(t, other, 1)
	if ctx.Err() == nil {
		t.Error("the other process runs the job while the first may")
	}
	fx.settle()
	fx.created.want(t, id+"/create #1", id+"/create #2")
}

// Rule: Close waits for running jobs within its bound, then ends their contexts; such a job is due
// again when its lease ends.
func TestCloseAndJobs(t *testing.T) {
	t.Parallel()
	t.Run("in time", func(t *testing.T) {
		t.Parallel()
		fx := newJobFixture(t, nil)
		slow := newHeld()
		fx.created.set(slow.do)
		id := fx.signUp()
		visit(t, fx.Syncer, id)
		<-slow.started
		closed := make(chan struct{})
		go func() { _ = fx.Close(); close(closed) }()
		slow.release <- nil
		<-closed
		if job := fx.job(t, id, clerksync.JobCreate); job != (clerksync.JobState{Attempt: 1}) {
			t.Errorf("the job is %+v", job)
		}
		if err := fx.RunJobs(t.Context()); err != nil {
			t.Errorf("RunJobs of a closed Syncer: %v", err)
		}
		other := fx.signUp()
		visit(t, fx.Syncer, other)
		fx.settle()
		fx.created.want(t, id+"/create #1")
		if job := fx.job(t, other, clerksync.JobCreate); job.Due.IsZero() {
			t.Errorf("the job of a closed Syncer is %+v", job)
		}
	})
	t.Run("too late", func(t *testing.T) {
		t.Parallel()
		fx := newJobFixture(t, nil)
		slow := newHeld()
		fx.created.set(slow.do)
		id := fx.signUp()
		visit(t, fx.Syncer, id)
		ctx := <-slow.started
		leased := fx.job(t, id, clerksync.JobCreate)
		wait := clerksync.CloseJobs(fx.Syncer)
		fx.clock.Advance(clerksync.CloseTimeout)
		wait()
		<-ctx.Done()
		fx.settle()
		if job := fx.job(t, id, clerksync.JobCreate); job != leased {
			t.Errorf("the job is %+v, want the lease %+v", job, leased)
		}
		wantTexts(t, "observed", fx.jobOutcomes(), "create #1 lost, error")
	})
}

// A function that succeeds after Close has given up is not called again.
func TestSuccessAfterCloseIsWritten(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, nil)
	slow := newHeld()
	slow.deaf = true
	fx.created.set(slow.do)
	id := fx.signUp()
	visit(t, fx.Syncer, id)
	<-slow.started
	wait := clerksync.CloseJobs(fx.Syncer)
	fx.clock.Advance(clerksync.CloseTimeout)
	wait()
	slow.release <- nil
	fx.settle()
	wantTexts(t, "observed", fx.jobOutcomes(), "create #1 succeeded")
	if job := fx.job(t, id, clerksync.JobCreate); job != (clerksync.JobState{Attempt: 1}) {
		t.Errorf("the job is %+v", job)
	}
}

// RunJobs waits for its functions when its context ends, within the bound, then gives up.
func TestRunJobsGivesUp(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, nil)
	slow := newHeld()
	slow.deaf = true
	fx.created.set(slow.do)
	id := fx.owe(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = fx.RunJobs(ctx) }()
	job := <-slow.started
	stop()
	waitUntil(t, "RunJobs ends", func() bool {
		fx.clock.Advance(clerksync.CloseTimeout / 10)
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
	<-job.Done()
	slow.release <- errDown
	fx.settle()
	if job := fx.job(t, id, clerksync.JobCreate); job.Attempt != 1 {
		t.Errorf("the job is %+v", job)
	}
}

// Rule: the end of an attempt is written again and again while nobody else may claim the job.
func TestEndIsWrittenAfterAnOutage(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, nil)
	store := &endFails{countingStore: fx.store}
	store.left.Store(3)
	s := fx.another(t, func(c *clerksync.Config) { c.Store = store })
	id := fx.signUp()
	visit(t, s, id)
	clerksync.WaitBackground(s)
	wantTexts(t, "observed", fx.jobOutcomes(), "create #1 succeeded")
	if job := fx.job(t, id, clerksync.JobCreate); job != (clerksync.JobState{Attempt: 1}) {
		t.Errorf("the job is %+v", job)
	}
	store.left.Store(1 << 30)
	id = fx.signUp()
	visit(t, s, id)
	clerksync.WaitBackground(s)
	if seen := fx.jobOutcomes(); seen[len(seen)-1] != "create #1 lost, error" {
		t.Errorf("observed %q", seen)
	}
}

// endFails is a Store that fails to write the end of an attempt some times.
type endFails struct {
	*countingStore
	left atomic.Int64
}

func (s *endFails) ChangeJob(ctx context.Context, c clerksync.JobChange) (bool, error) {
	if c.EndsAttempt() && s.left.Add(-1) >= 0 {
		return false, errDown
	}
	return s.countingStore.ChangeJob(ctx, c)
}

// Rule: RunJobs works through due jobs until ctx ends, over failures of the Store, and only the
// kinds that it has functions for.
func TestRunJobs(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, nil)
	ids := []string{fx.owe(t), fx.owe(t), fx.owe(t)}
	ctx, stop := context.WithCancel(t.Context())
	fx.created.set(func(context.Context, *clerksync.User, clerksync.Job) error {
		if len(fx.created.keys()) == len(ids) {
			stop()
		}
		return nil
	})
	fx.store.fail(errDown)
	var running sync.WaitGroup
	s := fx.another(t, func(c *clerksync.Config) { c.OnDelete = nil })
	running.Go(func() {
		if err := s.RunJobs(ctx); err != nil {
			t.Errorf("RunJobs: %v, want nil after the end of its context", err)
		}
	})
	waitUntil(t, "RunJobs has met the outage", func() bool { return strings.Contains(fx.logs.String(), "RunJobs goes on") })
	fx.store.fail(nil)
	running.Wait()
	keys := fx.created.keys()
	slices.Sort(keys)
	for i := range ids {
		ids[i] += "/create #1"
	}
	slices.Sort(ids)
	wantTexts(t, "calls", keys, ids...)
}

// Rule: DrainJobs reads up to 500 due jobs, runs them and reads again; failing jobs are left to the
// next pass.
func TestDrainJobsReadsAgain(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, nil)
	const users = clerksync.MaxDueRead + 20
	for i := range users {
		u := &clerksync.User{ClerkID: fmt.Sprint("user_", i), ClerkUpdatedAt: t0, SyncedAt: t0, CreateDue: t0}
		if _, err := fx.store.Store.Upsert(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	fx.created.set(func(context.Context, *clerksync.User, clerksync.Job) error { return errDown })
	drain(t, fx.Syncer, users)
	drain(t, fx.Syncer, 0)
	fx.store.fail(errDown)
	if n, err := fx.DrainJobs(t.Context()); n != 0 || !errors.Is(err, clerksync.ErrUnavailable) {
		t.Errorf("DrainJobs without a Store: %d, %v", n, err)
	}
	fx.store.fail(nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := fx.DrainJobs(ctx); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("DrainJobs after its context: %d, %v", n, err)
	}
}

// Rule: due jobs are claimed in random order, so that processes that read the same list do not all try the
// same one.
func TestJobsAreClaimedInRandomOrder(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, nil)
	var listed []string // in the order of the Store
	for i := range 200 {
		listed = append(listed, fx.owedBy(t, fmt.Sprintf("user_%03d", i)))
	}
	drain(t, fx.Syncer, len(listed))
	// Eight at a time of a list in order would all be among the first.
	if first := fx.created.keys()[:clerksync.MaxJobs]; slices.Max(first) < listed[3*clerksync.MaxJobs]+"/create" {
		t.Errorf("the first calls are %q", first)
	}
}

// owedBy makes a record with this id that owes OnCreate, and returns the id.
func (fx *jobFixture) owedBy(t *testing.T, id string) string {
	t.Helper()
	u := &clerksync.User{ClerkID: id, ClerkUpdatedAt: t0, SyncedAt: t0, CreateDue: t0}
	if _, err := fx.store.Store.Upsert(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	return id
}

// Rule: a list of due jobs that other processes have mostly worked off is left after a bounded number of
// reads, and a new one is read.
func TestListThatOthersWorkedOff(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, nil)
	for i := range clerksync.MaxDueRead {
		fx.owedBy(t, fmt.Sprintf("user_%03d", i))
	}
	other := fx.another(t, nil)
	late := &lateLister{countingStore: fx.store, meanwhile: func() { drain(t, other, clerksync.MaxDueRead) }}
	s := fx.another(t, func(c *clerksync.Config) { c.Store, c.OnDelete = late, nil })
	drain(t, s, 0)
	// Those that are running when it is enough are attempted too.
	if most := clerksync.MaxTaken + 1 + clerksync.MaxJobs; late.reads() > most || late.lists != 2 {
		t.Errorf("%d records and %d lists were read, want at most %d and 2", late.reads(), late.lists, most)
	}
}

// lateLister is the Store of a process for which something happens after its first list of due jobs. It
// counts lists and reads.
type lateLister struct {
	*countingStore
	meanwhile func()
	lists     int
	before    int32
}

func (s *lateLister) DueJobs(ctx context.Context, kind clerksync.JobKind, by time.Time, limit int) ([]clerksync.JobEntry, error) {
	due, err := s.countingStore.DueJobs(ctx, kind, by, limit)
	if s.lists++; s.lists == 1 {
		s.meanwhile()
		s.before = s.users.Load()
	}
	return due, err
}

func (s *lateLister) reads() int { return int(s.users.Load() - s.before) }

// Rule: the job of a deleted user is dropped only as it was read. If a Restore comes in between, OnCreate
// runs.
func TestRestoredBeforeTheDrop(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, func(c *clerksync.Config) { c.OnDelete = nil })
	id := fx.owe(t)
	apply(t, fx.Syncer, fx.deletion(id))
	fx.clock.Advance(2 * time.Hour)
	store := &claimHook{countingStore: fx.store}
	s := fx.another(t, func(c *clerksync.Config) { c.Store = store })
	store.before = func() {
		if ok, err := fx.store.Restore(t.Context(), id, fx.clock.Now()); err != nil || !ok {
			t.Errorf("Restore: %t, %v", ok, err)
		}
	}
	drain(t, s, 0)
	fx.created.want(t)
	drain(t, s, 1)
	fx.created.want(t, id+"/create #1")
}

// Rule: if the record has no room for the job, the deletion is written without it, and the log says so.
func TestNoRoomForAJob(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, func(c *clerksync.Config) { c.Store = &noRoom{c.Store.(*countingStore)} })
	id := fx.signUp()
	visit(t, fx.Syncer, id)
	fx.settle()
	apply(t, fx.Syncer, fx.deletion(id))
	fx.settle()
	if fx.stored(t, id).DeletedAt.IsZero() || !strings.Contains(fx.logs.String(), "OnDelete will not run") {
		t.Errorf("the record is %+v, the log\n%s", fx.stored(t, id), fx.logs.String())
	}
	fx.deleted.want(t)
}

// noRoom is a Store whose records have something else in the place of a job.
type noRoom struct{ *countingStore }

func (s *noRoom) DeactivateOwing(ctx context.Context, id, _ string, at, _ time.Time) (clerksync.Result, clerksync.Owing, error) {
	res, err := s.Deactivate(ctx, id, at)
	return res, clerksync.OwesNoRoom, err
}

// Rule: a Store that cannot keep jobs is refused if there are functions for them.
func TestNewNeedsAJobStore(t *testing.T) {
	t.Parallel()
	hook := (&jobLog{}).run
	cfg := clerksync.Config{Store: plainStore{memstore.New()}, SecretKey: "sk_test_secret"}
	if _, err := clerksync.New(cfg); err != nil {
		t.Errorf("without functions: %v", err)
	}
	cfg.OnCreate, cfg.OnDelete = hook, hook
	cfg.Jobs = clerksync.JobConfig{Lease: -1, MaxAttempts: -1, NewFor: -1, DeleteDelay: -1}
	_, err := clerksync.New(cfg)
	checkFaults(t, err, []string{
		"Jobs.Lease is negative", "Jobs.NewFor is negative", "Jobs.DeleteDelay is negative", "Jobs.MaxAttempts is negative",
		"OnCreate is set, but the Store, a clerksync_test.plainStore, cannot keep jobs", "OnDelete is set, but the Store",
	})
}

// Await: a visit waits for OnCreate, and gets the record as OnCreate has left it.
func TestAwait(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, func(c *clerksync.Config) { c.Jobs.Await = true })
	id := fx.signUp()
	fx.created.set(func(context.Context, *clerksync.User, clerksync.Job) error {
		return fx.store.Edit(id, func(u *clerksync.User) { u.Role = "OWNER" })
	})
	if u := visit(t, fx.Syncer, id); u.Role != "OWNER" {
		t.Errorf("the visit got the role %s", u.Role)
	}
	fx.created.want(t, id+"/create #1")
	reads := fx.store.users.Load()
	visit(t, fx.Syncer, id)
	if fx.store.users.Load() != reads {
		t.Error("a user whose OnCreate has succeeded is not served from the cache")
	}
}

// visitPending is a visit that is answered 503 job_pending.
func visitPending(t *testing.T, s *clerksync.Syncer, id string) {
	t.Helper()
	u, err := s.User(t.Context(), id)
	var p *clerksync.Problem
	if u != nil || !errors.As(err, &p) || p.Code != "job_pending" || p.Status != http.StatusServiceUnavailable || p.RetryAfter <= 0 {
		t.Errorf("visit: %+v, %v; want job_pending", u, err)
	}
}

// Await: 503 job_pending after a failed attempt and while it waits for the next; a failed job stays
// so until an operator acts; standby and FailOpen do not apply.
func TestAwaitAFailingJob(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, func(c *clerksync.Config) {
		c.Jobs, c.OnFailure = clerksync.JobConfig{Await: true, MaxAttempts: 2}, clerksync.FailOpen
	})
	fx.created.set(func(context.Context, *clerksync.User, clerksync.Job) error { return errDown })
	id := fx.signUp()
	visitPending(t, fx.Syncer, id)
	visitPending(t, fx.Syncer, id)
	fx.created.want(t, id+"/create #1")
	fx.clock.Advance(10 * time.Second)
	visitPending(t, fx.Syncer, id)
	fx.created.want(t, id+"/create #1", id+"/create #2")
	fx.clock.Advance(24 * time.Hour)
	fx.created.set(nil)
	visitPending(t, fx.Syncer, id)
	failed := fx.job(t, id, clerksync.JobCreate)
	again := clerksync.JobChange{ClerkID: id, Kind: clerksync.JobCreate, From: failed, To: clerksync.JobState{Due: fx.clock.Now()}}
	if ok, err := fx.store.ChangeJob(t.Context(), again); err != nil || !ok {
		t.Fatal(ok, err)
	}
	visit(t, fx.Syncer, id)
}

// Await: a record with an unfinished create job is not served from the cache, nor from what is kept for an
// outage, however it got there.
func TestAwaitIsNotServedFromTheCache(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, func(c *clerksync.Config) { c.Jobs.Await = true })
	id := fx.signUp()
	visit(t, fx.Syncer, id)
	// An operator makes the job due again, and a refresh caches the record.
	again := clerksync.JobChange{ClerkID: id, Kind: clerksync.JobCreate, From: fx.job(t, id, clerksync.JobCreate)}
	again.To = clerksync.JobState{Due: fx.clock.Now()}
	if ok, err := fx.store.ChangeJob(t.Context(), again); err != nil || !ok {
		t.Fatal(ok, err)
	}
	fx.created.set(func(context.Context, *clerksync.User, clerksync.Job) error { return errDown })
	clerksync.Refresh(fx.Syncer, id)
	fx.settle()
	visitPending(t, fx.Syncer, id)
	fx.store.fail(errDown)
	var p *clerksync.Problem
	if u, err := fx.User(t.Context(), id); u != nil || !errors.As(err, &p) || p.Code != "unavailable" {
		t.Errorf("during an outage a visit gets %+v, %v", u, err)
	}
}

// Await: Discard lets the user in, and so does a deletion refuse.
func TestAwaitEndsWithout(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, func(c *clerksync.Config) { c.Jobs.Await = true })
	id := fx.signUp()
	fx.created.set(func(context.Context, *clerksync.User, clerksync.Job) error { return clerksync.Discard(errDown) })
	visit(t, fx.Syncer, id)

	id = fx.signUp()
	fx.created.set(func(context.Context, *clerksync.User, clerksync.Job) error {
		apply(t, fx.Syncer, fx.deletion(id))
		return errDown
	})
	visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
}

// Await: attempts of another process are polled, bounded.
func TestAwaitAnotherProcess(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, func(c *clerksync.Config) { c.Jobs.Await = true })
	id := fx.owe(t)
	fx.die(t, id, clerksync.JobCreate)
	began := fx.clock.Now()
	visitPending(t, fx.Syncer, id)
	if waited := fx.clock.Now().Sub(began); waited < clerksync.AwaitTimeout || waited > clerksync.AwaitTimeout+time.Second {
		t.Errorf("the visit waited %v, want about %v", waited, clerksync.AwaitTimeout)
	}
	polls := 0
	fx.store.before = func() {
		if polls++; polls == 5 {
			fx.endElsewhere(t, id)
		}
	}
	visit(t, fx.Syncer, id)
	fx.created.want(t)
}

// endElsewhere ends the first attempt of a user's create job, as the process that claimed it does.
func (fx *jobFixture) endElsewhere(t *testing.T, id string) {
	t.Helper()
	job := fx.job(t, id, clerksync.JobCreate)
	end := clerksync.JobChange{ClerkID: id, Kind: clerksync.JobCreate, From: job, To: clerksync.JobState{Attempt: 1}}
	if ok, err := fx.store.Store.ChangeJob(t.Context(), end); err != nil || !ok {
		t.Error(ok, err)
	}
}

// Await: if an attempt of this process comes too late for the claim, the visit waits for that of the
// process that was faster.
func TestAwaitTheFasterProcess(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, func(c *clerksync.Config) { c.Jobs.Await = true })
	id := fx.owe(t)
	fx.die(t, id, clerksync.JobCreate)
	clerksync.LostAttempt(fx.Syncer, id, clerksync.JobCreate)
	reads := 0
	fx.store.before = func() {
		if reads++; reads == 4 {
			fx.endElsewhere(t, id)
		}
	}
	visit(t, fx.Syncer, id)
	fx.created.want(t)
}

// Await: a function that hangs does not hold a visit for longer than the bound.
func TestAwaitIsBounded(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, func(c *clerksync.Config) { c.Jobs.Await = true })
	slow := newHeld()
	fx.created.set(slow.do)
	id := fx.signUp()
	done := make(chan struct{})
	go func() { defer close(done); visitPending(t, fx.Syncer, id) }()
	<-slow.started
	fx.clock.Advance(clerksync.AwaitTimeout)
	<-done
	slow.release <- nil
	fx.settle()
	visit(t, fx.Syncer, id)
	fx.created.want(t, id+"/create #1")
}

// Await: an attempt that cannot even be claimed is not tried over and over.
func TestAwaitWithoutWrites(t *testing.T) {
	t.Parallel()
	fx := newJobFixture(t, nil)
	id := fx.owe(t)
	store := &claimFails{countingStore: fx.store, clock: fx.clock}
	s := fx.another(t, func(c *clerksync.Config) {
		c.Store, c.Jobs.Await = store, true
	})
	visitPending(t, s, id)
	fx.created.want(t)
	if n := store.claims.Load(); n != 1 {
		t.Errorf("the visit tried to claim the job %d times", n)
	}
}

// claimFails is a Store that writes no job. A visit that tries again and again runs out of time.
type claimFails struct {
	*countingStore
	clock  *fakeclerk.Clock
	claims atomic.Int32
}

func (s *claimFails) ChangeJob(context.Context, clerksync.JobChange) (bool, error) {
	if s.claims.Add(1) > 1 {
		s.clock.Advance(clerksync.AwaitTimeout)
	}
	return false, errDown
}

// The whole: fifty first requests and two webhooks of one new user on two Syncers, one welcome. A
// process dies in the middle of one, and the mail still goes out.
func TestOneWelcome(t *testing.T) {
	t.Parallel()
	for _, await := range []bool{false, true} {
		t.Run(fmt.Sprint("await ", await), func(t *testing.T) {
			t.Parallel()
			fx := newJobFixture(t, func(c *clerksync.Config) { c.Jobs.Await = await })
			mails := make(map[string]int) // a mailer with idempotency keys
			var mu sync.Mutex
			fx.created.set(func(_ context.Context, _ *clerksync.User, job clerksync.Job) error {
				mu.Lock()
				defer mu.Unlock()
				mails[job.Key]++
				return nil
			})
			syncers := []*clerksync.Syncer{fx.Syncer, fx.another(t, func(c *clerksync.Config) { c.Jobs.Await = await })}
			id := fx.signUp()
			e := fx.event(id)
			e.Type = "user.created"
			var all sync.WaitGroup
			for i := range 50 {
				all.Go(func() {
					if _, err := syncers[i%2].User(t.Context(), id); err != nil {
						t.Error(err)
					}
				})
			}
			for _, s := range syncers {
				all.Go(func() { apply(t, s, e) })
			}
			all.Wait()
			for _, s := range syncers {
				clerksync.WaitBackground(s)
			}
			if len(mails) != 1 || mails[id+"/create"] != 1 {
				t.Errorf("mails: %v, want one welcome", mails)
			}

			dead := fx.owe(t)
			fx.die(t, dead, clerksync.JobCreate)
			fx.clock.Advance(6 * time.Minute)
			drain(t, syncers[1], 1)
			fx.clock.Advance(24 * time.Hour)
			drain(t, syncers[0], 0)
			if len(mails) != 2 || mails[dead+"/create"] != 1 {
				t.Errorf("mails: %v, want one more welcome", mails)
			}
		})
	}
}

// mapJobs tries what a Map may not do.
func mapJobs(_ *clerk.User, u *clerksync.User) error {
	u.CreateDue, u.Jobs = t0, &clerksync.Jobs{Create: clerksync.JobState{Due: t0}}
	return nil
}
