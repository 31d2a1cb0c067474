package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// If Reconcile fails before it calls Clerk, there is no report.
func TestReconcileRefusesOptions(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	refused := errors.Join(errors.New("clerksync: one"), errors.New("clerksync: two"))
	f.reports(clerksync.Report{DryRun: true}, refused)
	o := f.run(t, "drift")
	o.want(t, exitFailed, "clerksync: one\n  two\n")
	if o.stdout != "" {
		t.Error(o)
	}
}

func TestFlagsBecomeOptions(t *testing.T) {
	t.Parallel()
	comparer := cmp.Options{
		cmpopts.IgnoreUnexported(clerksync.ReconcileOptions{}),
		cmpopts.IgnoreFields(clerksync.ReconcileOptions{}, "Progress"),
	}
	for _, tt := range []struct {
		args string
		want clerksync.ReconcileOptions
	}{
		{"reconcile", clerksync.ReconcileOptions{Force: true}},
		{"reconcile -force", clerksync.ReconcileOptions{Force: true}},
		{"reconcile -versions", clerksync.ReconcileOptions{}},
		{"drift", clerksync.ReconcileOptions{DryRun: true, Force: true, MaxDeactivations: -1}},
		{"drift -versions", clerksync.ReconcileOptions{DryRun: true, MaxDeactivations: -1}},
		{"reconcile -ignore-unlinked", clerksync.ReconcileOptions{Force: true, IgnoreUnlinked: true}},
		{"drift -ignore-unlinked", clerksync.ReconcileOptions{DryRun: true, Force: true, MaxDeactivations: -1, IgnoreUnlinked: true}},
		{"reconcile -holdback 0s", clerksync.ReconcileOptions{Force: true, Holdback: -1}},
		{
			"reconcile -dry-run -force -restore -resume t.1 -instance ins_1 -max-deactivations -1" +
				" -holdback 1h -page-size 7 -writers 2 -rate 0.5",
			clerksync.ReconcileOptions{
				DryRun: true, Force: true, Restore: true, Resume: "t.1", InstanceID: "ins_1", MaxDeactivations: -1,
				Holdback: time.Hour, PageSize: 7, Writers: 2, RequestsPerSecond: 0.5,
			},
		},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			var got clerksync.ReconcileOptions
			f.onReconcile(func(_ context.Context, o clerksync.ReconcileOptions) (clerksync.Report, error) {
				got = o
				return complete, nil
			})
			f.run(t, strings.Fields(tt.args)...).want(t, exitDone)
			if got.Progress == nil {
				t.Error("Progress is nil")
			}
			if diff := cmp.Diff(tt.want, got, comparer); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A collection to which an app's Map added fields is left alone.
func TestMappedRecords(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.db.mappedID = "user_mapped"
	f.onReconcile(func(context.Context, clerksync.ReconcileOptions) (clerksync.Report, error) {
		t.Error("Reconcile was called")
		return complete, nil
	})
	golden(t, "reconcile", "reconcile", f.run(t, "reconcile").String())
	golden(t, "reconcile", "drift", f.run(t, "drift").String())
	f.run(t, "reconcile", "-dry-run").want(t, exitFailed)
	f.run(t, "reconcile", "-versions").want(t, exitFailed)
	f.reports(complete, nil)
	f.run(t, "drift", "-versions").want(t, exitDone)
}

// An interrupt ends the run and prints the point to resume from.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	for _, asJSON := range []bool{false, true} {
		f := newFixture(t)
		ctx, interrupt := context.WithCancel(t.Context())
		f.onReconcile(func(ctx context.Context, o clerksync.ReconcileOptions) (clerksync.Report, error) {
			report := clerksync.Report{Seen: 500, Unchanged: 500, Resume: "t.it's", ClerkCalls: 2}
			o.Progress(clerksync.Progress{Phase: clerksync.PhaseUsers, Done: 500, Total: 2000, Report: report})
			interrupt()
			<-ctx.Done()
			report.Reason = "context canceled"
			return report, context.Cause(ctx)
		})
		args := []string{"reconcile", "-force", "-db", "other"}
		if asJSON {
			args = append(args, "-json")
		}
		o := f.runIn(ctx, t, args...)
		o.want(t, exitFailed, `clerksync reconcile -db other -force -resume 't.it'\''s'`, "interrupt again to stop at once")
		if !asJSON {
			golden(t, "reconcile", "", o.String())
		} else if !json.Valid([]byte(o.stdout)) {
			t.Error(o)
		}
	}
}

func TestDriftAndReconcile(t *testing.T) {
	t.Parallel()
	f := population(t, 25)
	f.run(t, "drift", quick).want(t, exitDone, "school.users is in step with Clerk")

	f.deleteUser(t, "user_003")
	f.clerk.CreateUser(fakeclerk.NewUser{ID: "user_new", FirstName: "New"})
	f.rename(t, "user_005", "Augusta")
	f.edit(t, "user_007", func(u *clerksync.User) { u.Profile.Gender = "?" })
	f.clock.Advance(time.Hour)

	o := f.run(t, "drift", quick, "-page-size", "10")
	o.want(t, exitDiffer)
	golden(t, "reconcile", "drift", o.String())
	o = f.run(t, "drift", quick, "-json")
	o.want(t, exitDiffer)
	var report clerksync.Report
	if err := json.Unmarshal([]byte(o.stdout), &report); err != nil {
		t.Fatal(err)
	}
	if report.Updated.Count != 2 || report.Fields["profile.gender"] != 1 || report.InStep() ||
		!slices.Equal(report.Ghosts.IDs, []string{"user_003"}) {
		t.Errorf("the JSON is %+v", report)
	}
	o = f.run(t, "drift", quick, "-versions")
	o.want(t, exitDiffer)
	o.lacks(t, "user_007") // its version is Clerk's
	f.run(t, "reconcile", quick, "-dry-run").want(t, exitDone, "Dry run")
	if u := f.record(t, "user_003"); !u.DeletedAt.IsZero() {
		t.Errorf("a dry run wrote: %+v", u)
	}

	o = f.run(t, "reconcile", quick, "-default-role", "MEMBER")
	o.want(t, exitDone)
	golden(t, "reconcile", "reconcile", o.String())
	f.run(t, "drift", quick).want(t, exitDone)
	if u := f.record(t, "user_new"); u.Role != "MEMBER" {
		t.Errorf("the new record is %+v", u)
	}
}

// What drift reports, reconcile repairs, and the other way round: both compare the same, by default
// and with -versions.
func TestReconcileRepairsWhatDriftReports(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{nil, {"-versions"}} {
		f := population(t, 5)
		f.rename(t, "user_001", "Augusta")
		f.edit(t, "user_002", func(u *clerksync.User) { u.Profile.Gender = "?" }) // at Clerk's version
		f.clock.Advance(time.Hour)
		run := func(command string) output { return f.run(t, append([]string{command, quick}, flags...)...) }
		run("drift").want(t, exitDiffer)
		run("reconcile").want(t, exitDone)
		run("drift").want(t, exitDone)
		edited := f.record(t, "user_002").Profile.Gender == "?"
		if edited != (flags != nil) {
			t.Errorf("%v: the edit by hand is still there: %t", flags, edited)
		}
	}
}

// A user whom a unique index keeps out is in the exit status, whoever looks.
func TestConflictThatRemains(t *testing.T) {
	t.Parallel()
	f := population(t, 2)
	f.db.records.UniqueEmail = true
	f.clerk.CreateUser(fakeclerk.NewUser{ID: "user_holder", FirstName: "Old", Email: "taken@example.com"})
	f.run(t, "reconcile", quick, "-versions").want(t, exitDone)
	f.clerk.CreateUser(fakeclerk.NewUser{ID: "user_new", FirstName: "New", Email: "taken@example.com"})
	f.run(t, "reconcile", quick, "-versions").want(t, exitFailed, "users not written: 1, in conflict", "but not everything was written")
	f.run(t, "reconcile", quick, "-versions", "-json").want(t, exitFailed, "users not written: 1, in conflict")
	f.run(t, "drift", quick, "-versions").want(t, exitDiffer)
}

// The command line that an interrupted run prints continues it.
func TestInterruptAndResume(t *testing.T) {
	t.Parallel()
	f := population(t, 40)
	f.db.records = memstore.New()
	f.db.records.Now = f.clock.Now
	ctx, interrupt := context.WithCancel(t.Context())
	reconcile := f.env.reconcile
	f.env.reconcile = func(
		s *clerksync.Syncer, ctx context.Context, o clerksync.ReconcileOptions,
	) (clerksync.Report, error) {
		show := o.Progress
		o.Progress = func(p clerksync.Progress) {
			show(p)
			if p.Done >= 10 {
				interrupt()
			}
		}
		return reconcile(s, ctx, o)
	}
	o := f.runIn(ctx, t, "reconcile", quick, "-page-size", "5", "-writers", "1")
	o.want(t, exitFailed, "Interrupted: ")
	_, line, found := strings.Cut(o.stdout, "Continue where it stopped:\n  clerksync ")
	line, _, _ = strings.Cut(line, "\n")
	written := f.db.records.Len()
	if !found || written == 0 || written == 40 {
		t.Fatalf("%d records are written\n%s", written, o)
	}
	f.env.reconcile = reconcile
	o = f.run(t, strings.Fields(line)...)
	o.want(t, exitDone, "30   had no record: user_010")
	if n := f.db.records.Len(); n != 40 {
		t.Errorf("%d records are written after the second run %s\n%s", n, line, o)
	}
	o.lacks(t, "user_000") // written by the first run
}

func TestWrongInstance(t *testing.T) {
	t.Parallel()
	f := population(t, 2)
	f.run(t, "reconcile", quick, "-instance", f.clerk.InstanceID()).want(t, exitDone)
	o := f.run(t, "reconcile", quick, "-instance", "ins_other")
	o.want(t, exitFailed, "another Clerk instance", "belongs to "+f.clerk.InstanceID(), "-instance is ins_other")
	o.lacks(t, "nothing to resume")
	f.deleteUser(t, "user_000")
	f.deleteUser(t, "user_001")
	o = f.run(t, "reconcile", quick)
	o.want(t, exitFailed, "another Clerk instance", "-instance ins_…", "Clerk Dashboard, …/instances/ins_…",
		"with its key in CLERK_SECRET_KEY")
	o.lacks(t, "nothing to resume", "ReconcileOptions")
}

func TestTooManyGhosts(t *testing.T) {
	t.Parallel()
	f := population(t, 15)
	for i := range 11 {
		f.deleteUser(t, fmt.Sprintf("user_%03d", i))
	}
	f.run(t, "reconcile", quick).want(t, exitFailed, "11 users are in the collection but not in Clerk",
		"-max-deactivations 11", "clerksync user user_000")
	f.run(t, "drift", quick).want(t, exitDiffer, "11   records whose user Clerk does not have")
	f.run(t, "reconcile", quick, "-max-deactivations", "11").want(t, exitDone, "11   ghosts were marked deleted")
}

// The warnings of the Syncer are among the lines of progress, without personal data.
func TestWarning(t *testing.T) {
	t.Parallel()
	f := population(t, 2)
	future := f.clock.Now().AddDate(1, 0, 0).UnixMilli()
	err := f.clerk.UpdateUserSilently("user_001", func(u *fakeclerk.UserObject) { u.UpdatedAt = future })
	if err != nil {
		t.Fatal(err)
	}
	o := f.run(t, "reconcile", quick)
	o.want(t, exitFailed, "time=2026-03-01T13:00:02Z level=WARN", "clerk_id=user_001",
		"1 user could not be mapped or written")
	o.lacks(t, "@example.com")
}

// If Clerk refuses the key, the command says so at once.
func TestClerkRefusesKey(t *testing.T) {
	t.Parallel()
	f := population(t, 2)
	f.vars[secretKeyVar] = "sk_test_other"
	const want = "clerksync: Clerk refuses CLERK_SECRET_KEY (401 clerk_key_invalid): check that it is this instance's\n"
	o := f.run(t, "drift", quick)
	o.want(t, exitFailed, want)
	if o.stdout != "" || strings.Count(o.stderr, "\n") != 2 {
		t.Error(o)
	}
	o = f.run(t, "reconcile", quick, "-json")
	o.want(t, exitFailed, want)
	if !json.Valid([]byte(o.stdout)) {
		t.Error(o)
	}
	f.run(t, "drift", quick, "-resume", "nonsense").want(t, exitFailed, "ReconcileOptions.Resume")
	f.run(t, "drift", quick, "-resume", strings.Repeat("x", 5000)).want(t, exitFailed, "ReconcileOptions.Resume") // it names users in conflict
}

// If the key is revoked during a run, the report says what was found until then.
func TestClerkRefusesKeyLater(t *testing.T) {
	t.Parallel()
	f := population(t, 12)
	pages := 0
	f.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
		if r.URL.Path != "/v1/users" {
			return nil
		}
		if pages++; pages < 3 { // the first request asks for some users by their ids
			return nil
		}
		return fakeclerk.ErrorFault(401, "clerk_key_invalid")
	})
	o := f.run(t, "drift", quick, "-page-size", "5")
	o.want(t, exitFailed,
		"only in part: Clerk refuses CLERK_SECRET_KEY (401 clerk_key_invalid): check that it is this instance's\n",
		"5   users in Clerk", " -resume ")
}

// An empty collection gets a warning, because -db may be wrong, before the report says that all
// users are missing.
func TestEmptyCollection(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.db.isEmpty = true
	f.clerk.CreateUser(fakeclerk.NewUser{ID: "user_new", FirstName: "New"})
	const warning = "the collection school.users is empty; is -db right?"
	f.run(t, "drift", quick).want(t, exitDiffer, warning)
	f.run(t, "reconcile", quick, "-dry-run").want(t, exitDone, warning)
	f.run(t, "reconcile", quick).lacks(t, warning)
}

// Only reconcile without -dry-run and indexes may make the index on clerkId.
func TestWritesNothing(t *testing.T) {
	t.Parallel()
	f := newAda(t)
	f.reports(complete, nil)
	for args, want := range map[string]bool{
		"drift": true, "drift -versions": true, "reconcile -dry-run": true, "user " + ada: true,
		"reconcile": false, "indexes": false,
	} {
		f.run(t, strings.Fields(args)...).want(t, exitDone)
		if got := f.db.settings.writesNothing; got != want {
			t.Errorf("%s: writesNothing is %t", args, got)
		}
	}
}
