package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
	"github.com/clerksync/clerksync-go/mongostore"
)

// owe gives a user a record and a create job in the given state. The user is deleted if the job is
// a delete job.
func owe(t *testing.T, store clerksync.JobStore, id string, kind clerksync.JobKind, state clerksync.JobState) {
	t.Helper()
	ctx, now := t.Context(), epoch
	u := &clerksync.User{ClerkID: id, ClerkUpdatedAt: now, SyncedAt: now, Name: "Ada"}
	if kind == clerksync.JobCreate {
		u.CreateDue = now
	}
	if _, err := store.Upsert(ctx, u); err != nil {
		t.Fatal(err)
	}
	from, deletedAt := clerksync.JobState{Due: now}, time.Time{}
	if kind == clerksync.JobDelete {
		deletedAt = now
		from.DeletedAt, state.DeletedAt = now, now
		if _, _, err := store.DeactivateOwing(ctx, id, "", now, now); err != nil {
			t.Fatal(err)
		}
	}
	if from == state {
		return
	}
	change := clerksync.JobChange{ClerkID: id, Kind: kind, From: from, DeletedAt: deletedAt, To: state}
	if changed, err := store.ChangeJob(ctx, change); err != nil || !changed {
		t.Fatal(changed, err)
	}
}

// oweAll makes a job in each state. The fixture's clock is at epoch.
func oweAll(t *testing.T, store clerksync.JobStore) {
	t.Helper()
	for _, job := range []struct {
		id    string
		kind  clerksync.JobKind
		state clerksync.JobState
	}{
		{"user_failed", clerksync.JobCreate, clerksync.JobState{Attempt: 20, FailedAt: epoch.Add(-time.Hour), Code: "panic"}},
		{"user_unclean", clerksync.JobDelete, clerksync.JobState{Attempt: 20, FailedAt: epoch.Add(-2 * time.Hour), Code: "timeout"}},
		{"user_due", clerksync.JobCreate, clerksync.JobState{Due: epoch}},
		{"user_died", clerksync.JobCreate, clerksync.JobState{Attempt: 1, Token: "t", Due: epoch.Add(-11 * time.Minute)}},
		{"user_running", clerksync.JobCreate, clerksync.JobState{Attempt: 2, Token: "t", Due: epoch.Add(6 * time.Minute), Code: "error"}},
		{"user_waiting", clerksync.JobDelete, clerksync.JobState{Due: epoch.Add(24 * time.Hour)}},
		{"user_done", clerksync.JobCreate, clerksync.JobState{Attempt: 1}},
		{"user_discarded", clerksync.JobCreate, clerksync.JobState{Attempt: 1, Code: codeDiscarded}},
	} {
		owe(t, store, job.id, job.kind, job.state)
	}
}

// jobsFixture has a job in each state and no CLERK_SECRET_KEY, which the command does not need.
func jobsFixture(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	delete(f.vars, secretKeyVar)
	oweAll(t, f.db.records)
	return f
}

func (f *fixture) job(t *testing.T, id string, kind clerksync.JobKind) clerksync.JobState {
	t.Helper()
	return f.record(t, id).Jobs.Of(kind)
}

func wantOutput(t *testing.T, o output, code int, want string) {
	t.Helper()
	if o.code != code || o.stderr != "" {
		t.Errorf("exit code %d, want %d; standard error %q", o.code, code, o.stderr)
	}
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), o.stdout); diff != "" {
		t.Errorf("standard output (-want +got):\n%s", diff)
	}
}

func TestJobs(t *testing.T) {
	t.Parallel()
	f := jobsFixture(t)
	wantOutput(t, f.run(t, "jobs", "-db", "app"), exitDiffer, `
Jobs of app.users

  failed            2   out of attempts: nobody tries them again
  due               2   may be attempted now
  running           1   being attempted, or their process died and the lease has not ended
  waiting           1   for the next attempt, or for DeleteDelay

  user           job      state     attempts   due, or failed at          last error   result
  user_unclean   delete   failed    20         2026-03-01 10:00:00.000Z   timeout
  user_failed    create   failed    20         2026-03-01 11:00:00.000Z   panic
  user_died      create   due       1          2026-03-01 11:49:00.000Z
  user_due       create   due       0          2026-03-01 12:00:00.000Z
  user_running   create   running   2          2026-03-01 12:06:00.000Z   error
  user_waiting   delete   waiting   0          2026-03-02 12:00:00.000Z

1 job has been due for more than 10 minutes: does a process call RunJobs or DrainJobs?

To try the failed ones again, once the cause is gone; or to end them:
  clerksync jobs -db app -retry
  clerksync jobs -db app -discard
`)
	if !f.db.settings.writesNothing {
		t.Error("a list opens the collection for writing")
	}
	wantOutput(t, f.run(t, "jobs", "-kind", "create", "-limit", "1"), exitDiffer, `
Jobs of school.users

  failed            1   out of attempts: nobody tries them again
  due               2   may be attempted now
  running           1   being attempted, or their process died and the lease has not ended
  waiting           0   for the next attempt, or for DeleteDelay

  user          job      state    attempts   due, or failed at          last error   result
  user_failed   create   failed   20         2026-03-01 11:00:00.000Z   panic
  … and 3 more (-limit)

1 job has been due for more than 10 minutes: does a process call RunJobs or DrainJobs?

To try the failed ones again, once the cause is gone; or to end them:
  clerksync jobs -kind create -limit 1 -retry
  clerksync jobs -kind create -limit 1 -discard
`)
	wantOutput(t, f.run(t, "jobs", "user_discarded", "user_nobody", "user_done", "user_done"), exitDone, `
Jobs of school.users

  user             job      state       attempts   due, or failed at   last error   result
  user_discarded   create   discarded   1                              discarded
  user_done        create   done        1
  user_nobody               none        0
`)
}

func TestNoJobs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	wantOutput(t, f.run(t, "jobs"), exitDone, `
Jobs of school.users

  failed            0   out of attempts: nobody tries them again
  due               0   may be attempted now
  running           0   being attempted, or their process died and the lease has not ended
  waiting           0   for the next attempt, or for DeleteDelay
`)
	wantOutput(t, f.run(t, "jobs", "-retry"), exitDone, "Jobs of school.users: 0 due again\n\n  none\n")
	wantOutput(t, f.run(t, "jobs", "-json"), exitDone, `
{
  "failed": 0,
  "due": 0,
  "running": 0,
  "waiting": 0,
  "late": 0,
  "changed": 0,
  "left": 0,
  "jobs": [],
  "omitted": 0
}
`)
}

// jsonReport runs the command with -json.
func jsonReport(t *testing.T, f *fixture, code int, args ...string) (report jobsReport) {
	t.Helper()
	o := f.run(t, append([]string{"jobs", "-json"}, args...)...)
	o.want(t, code)
	if err := json.Unmarshal([]byte(o.stdout), &report); err != nil {
		t.Fatal(err)
	}
	return report
}

// results lists what was done, as "user state: result".
func (r *jobsReport) results() (all []string) {
	for _, row := range r.Jobs {
		all = append(all, fmt.Sprintf("%s %s: %s", row.ClerkID, row.State, row.Result))
	}
	return all
}

func TestRetryAndDiscardJobs(t *testing.T) {
	t.Parallel()
	created := func(id string) jobID { return jobID{id, clerksync.JobCreate} }
	deleted := func(id string) jobID { return jobID{id, clerksync.JobDelete} }
	for _, tt := range []struct {
		args    string
		code    int
		results []string
		changed map[jobID]clerksync.JobState
	}{
		{
			"-retry", exitDone,
			[]string{"user_failed due: due again", "user_unclean due: due again"},
			map[jobID]clerksync.JobState{
				created("user_failed"):  {Due: epoch, Code: "panic"},
				deleted("user_unclean"): {Due: epoch, Code: "timeout", DeletedAt: epoch},
			},
		},
		{
			"-discard -kind delete", exitDone,
			[]string{"user_unclean discarded: discarded"},
			map[jobID]clerksync.JobState{deleted("user_unclean"): {Attempt: 20, Code: codeDiscarded, DeletedAt: epoch}},
		},
		{
			"-retry user_discarded user_waiting user_died", exitDone,
			[]string{"user_died due: due again", "user_discarded due: due again", "user_waiting due: due again"},
			map[jobID]clerksync.JobState{
				created("user_discarded"): {Due: epoch},
				created("user_died"):      {Due: epoch},
				deleted("user_waiting"):   {Due: epoch, DeletedAt: epoch},
			},
		},
		{
			"-discard user_due", exitDone,
			[]string{"user_due discarded: discarded"},
			map[jobID]clerksync.JobState{created("user_due"): {Code: codeDiscarded}},
		},
		{"-retry user_done", exitFailed, []string{"user_done done: left alone"}, nil},
		{"-retry user_running", exitFailed, []string{"user_running running: left alone"}, nil},
		{"-discard user_running", exitFailed, []string{"user_running running: left alone"}, nil},
		{"-discard user_discarded", exitFailed, []string{"user_discarded discarded: left alone"}, nil},
		{"-retry user_nobody", exitFailed, []string{"user_nobody none: left alone"}, nil},
		{"-retry -kind delete user_failed", exitFailed, []string{"user_failed none: left alone"}, nil},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			f := jobsFixture(t)
			before := allJobs(t, f.db.records)
			report := jsonReport(t, f, tt.code, strings.Fields(tt.args)...)
			if diff := cmp.Diff(tt.results, report.results()); diff != "" || report.Changed != len(tt.changed) {
				t.Errorf("%d changed, results (-want +got):\n%s", report.Changed, diff)
			}
			for job, state := range tt.changed {
				before[job] = state
			}
			if diff := cmp.Diff(before, allJobs(t, f.db.records)); diff != "" {
				t.Errorf("jobs (-want +got):\n%s", diff)
			}
			if f.db.settings.writesNothing {
				t.Error("the collection was opened for reading only")
			}
		})
	}
}

type jobID struct {
	ClerkID string
	Kind    clerksync.JobKind
}

// allJobs returns the jobs of oweAll, ended ones too.
func allJobs(t *testing.T, store clerksync.Store) map[jobID]clerksync.JobState {
	t.Helper()
	jobs := make(map[jobID]clerksync.JobState)
	for _, name := range []string{"failed", "unclean", "due", "died", "running", "waiting", "done", "discarded"} {
		u, err := store.User(t.Context(), "user_"+name)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []clerksync.JobKind{clerksync.JobCreate, clerksync.JobDelete} {
			if state := u.Jobs.Of(kind); state != (clerksync.JobState{}) {
				jobs[jobID{u.ClerkID, kind}] = state
			}
		}
	}
	return jobs
}

func TestRetriedJobsText(t *testing.T) {
	t.Parallel()
	f := jobsFixture(t)
	wantOutput(t, f.run(t, "jobs", "-retry", "user_failed", "user_running"), exitFailed, `
Jobs of school.users: 1 due again

  user           job      state     attempts   due, or failed at          last error   result
  user_failed    create   due       0          2026-03-01 12:00:00.000Z   panic        due again
  user_running   create   running   2          2026-03-01 12:06:00.000Z   error        left alone

The app's RunJobs attempts them within seconds, and its next DrainJobs does.
`)
}

// A job that somebody else changes meanwhile stays as they left it.
func TestJobChangesMeanwhile(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(*fixture) error{
		"read": func(f *fixture) error {
			return f.db.records.Edit("user_failed", func(u *clerksync.User) { u.Jobs.Create.Code = "error" })
		},
		"removed": func(*fixture) error { return clerksync.ErrNotFound },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := jobsFixture(t)
			store := &busyStore{Store: f.db.records, before: func() error { return meanwhile(f) }}
			f.env.open = func(context.Context, settings, *mongostore.Options) (database, error) {
				return &otherStore{f.db, store}, nil
			}
			report := jsonReport(t, f, exitDone, "-retry", "-kind", "create")
			if got := report.results(); !slices.Equal(got, []string{"user_failed failed: changed meanwhile"}) {
				t.Errorf("results: %q", got)
			}
		})
	}
}

// What was changed before the database fails is reported.
func TestJobsDatabaseFails(t *testing.T) {
	t.Parallel()
	f := jobsFixture(t)
	calls, failAt := 0, 0
	store := &busyStore{Store: f.db.records, before: func() error {
		if calls++; calls == failAt {
			return errors.New("the database is down")
		}
		return nil
	}}
	f.env.open = func(context.Context, settings, *mongostore.Options) (database, error) {
		return &otherStore{f.db, store}, nil
	}
	for failAt = 1; failAt <= 2; failAt++ {
		calls = 0
		o := f.run(t, "jobs", "-retry")
		o.want(t, exitFailed, "clerksync: the database is down\n")
		if reported := strings.Contains(o.stdout, "1 due again"); reported != (failAt == 2) {
			t.Error(o)
		}
	}
	calls, failAt = 0, 1
	f.run(t, "jobs", "user_failed").want(t, exitFailed, "clerksync: the database is down\n")
}

// A run changes a bounded number of jobs, and says that there are more.
func TestManyJobs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const more = 3
	for i := range maxJobsChanged + more {
		owe(t, f.db.records, fmt.Sprint("user_", i), clerksync.JobCreate, clerksync.JobState{Attempt: 20, FailedAt: epoch})
	}
	if report := jsonReport(t, f, exitDiffer); report.Failed != maxJobsChanged+more || len(report.Jobs) != 50 || report.Omitted != maxJobsChanged+more-50 {
		t.Errorf("%d failed, %d shown, %d omitted", report.Failed, len(report.Jobs), report.Omitted)
	}
	f.run(t, "jobs", "-discard").want(t, exitFailed, ": 10000 discarded\n", "3 more have failed: run the command again.")
	f.run(t, "jobs", "-discard").want(t, exitDone, ": 3 discarded\n")
	ids := strings.Fields(strings.Repeat("user_1 ", maxJobUsers+1))
	f.run(t, append([]string{"jobs"}, ids...)...).want(t, exitUsage, "at most 500 ids")
}

// busyStore calls before at each read of a record.
type busyStore struct {
	*memstore.Store
	before func() error
}

func (s *busyStore) User(ctx context.Context, id string) (*clerksync.User, error) {
	if err := s.before(); err != nil {
		return nil, err
	}
	return s.Store.User(ctx, id)
}

// otherStore is a database with another Store.
type otherStore struct {
	*fakeDatabase
	of clerksync.Store
}

func (d *otherStore) store() clerksync.Store { return d.of }

func TestJobsNeedAJobStore(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.env.open = func(context.Context, settings, *mongostore.Options) (database, error) {
		return &otherStore{f.db, struct{ clerksync.Store }{f.db.records}}, nil
	}
	f.run(t, "jobs").want(t, exitFailed, "cannot keep jobs")
}

// No command calls the app's OnCreate and OnDelete, except that a reconcile makes records that owe
// jobs, as in the app.
func TestCommandsAndHooks(t *testing.T) {
	t.Parallel()
	f := newAda(t)
	f.clerk.CreateUser(fakeclerk.NewUser{ID: "user_new", FirstName: "Grace"})
	called := make(chan string, 10)
	hook := func(_ context.Context, _ *clerksync.User, job clerksync.Job) error { called <- job.Key; return nil }
	f.env.configure = func(c *clerksync.Config, _ *mongostore.Options) { c.OnCreate, c.OnDelete = hook, hook }
	f.db.look = func(ctx context.Context, look mongostore.InspectOptions) error {
		return look.Users(ctx, func(context.Context, []*clerksync.User) error { return nil })
	}
	f.db.found.Ready = true
	f.run(t, "inspect").want(t, exitDone)
	f.run(t, "user", "user_new").want(t, exitDiffer)
	f.run(t, "drift", quick).want(t, exitDiffer)
	owe(t, f.db.records, "user_failed", clerksync.JobCreate, clerksync.JobState{FailedAt: epoch})
	f.run(t, "jobs", "-retry").want(t, exitDone, "1 due again")
	if len(called) > 0 {
		t.Errorf("the hook was called for %s", <-called)
	}
	f.run(t, "reconcile", quick).want(t, exitDone)
	if key := <-called; key != "user_new/create" || len(called) > 0 {
		t.Errorf("the hook was called for %s, and %d times more", key, len(called))
	}
}

// The command reads and changes jobs on MongoDB, under the app's own Fields, and erases with
// -erase-on-delete what the end of a delete job uncovers.
func TestMongoJobs(t *testing.T) {
	t.Parallel()
	f, coll := newOnMongoDB(t)
	f.env.program, f.env.now = "appsync", func() time.Time { return epoch }
	f.env.configure = func(_ *clerksync.Config, o *mongostore.Options) {
		o.Fields = mongostore.Fields{"clerkId": "auth.clerk_id", "clerkJobs": "auth.jobs"}
	}
	f.run(t, "jobs").want(t, exitUsage, "does not exist; is -db right?", "run `appsync indexes` first")
	store, err := mongostore.Open(t.Context(), coll, &mongostore.Options{
		Fields: mongostore.Fields{"clerkId": "auth.clerk_id", "clerkJobs": "auth.jobs"}, EraseOnDelete: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	oweAll(t, store)
	wantJobs := allJobs(t, store)
	f.run(t, "jobs").want(t, exitDiffer, "  failed            2 ", "user_unclean   delete   failed", "\n  appsync jobs -retry\n")
	if diff := cmp.Diff(wantJobs, allJobs(t, store)); diff != "" {
		t.Errorf("a list changed jobs (-want +got):\n%s", diff)
	}

	f.run(t, "jobs", "-retry", "-kind", "create").want(t, exitDone, ": 1 due again\n")
	f.run(t, "jobs", "-discard", "-erase-on-delete").want(t, exitDone, ": 1 discarded\n")
	wantJobs[jobID{"user_failed", clerksync.JobCreate}] = clerksync.JobState{Due: epoch, Code: "panic"}
	wantJobs[jobID{"user_unclean", clerksync.JobDelete}] = clerksync.JobState{Attempt: 20, Code: codeDiscarded, DeletedAt: epoch}
	if diff := cmp.Diff(wantJobs, allJobs(t, store)); diff != "" {
		t.Errorf("jobs (-want +got):\n%s", diff)
	}
	raw, err := coll.FindOne(t.Context(), bson.D{{Key: "auth.clerk_id", Value: "user_unclean"}}).Raw()
	if err != nil || !raw.Lookup("name").IsZero() || raw.Lookup("auth", "jobs", "delete").IsZero() {
		t.Errorf("the record is not erased: %v, %v", raw, err)
	}
	f.run(t, "jobs").want(t, exitDone, "  failed            0 ")
}
