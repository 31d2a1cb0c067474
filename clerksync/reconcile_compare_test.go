package clerksync_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// drifted is a collection that has drifted in every way.
type drifted struct {
	*bulkFixture
	ids map[string]string // by name
}

func newDrifted(t *testing.T) *drifted {
	fx := newBulkFixture(t, nil)
	d := &drifted{fx, make(map[string]string)}
	fx.store.UniqueEmail = true
	for _, name := range []string{ // in the order of their sign-up, in which a run sees them
		"in step", "missing", "heir", "heir of a ghost", "stale", "ghost", "mistaken", "deleted", "legacy",
		"suspended", "suspended ghost", "banned", "testator", "edited", "appointed",
	} {
		d.ids[name] = fx.clerk.CreateUser(fakeclerk.NewUser{
			FirstName: "Ada", LastName: "Lovelace", Email: strings.ReplaceAll(name, " ", ".") + "@example.com",
		})
		fx.clock.Advance(time.Second)
		if name == "missing" || strings.HasPrefix(name, "heir") {
			continue
		}
		if _, err := fx.Sync(t.Context(), d.ids[name]); err != nil {
			t.Fatal(err)
		}
	}
	fx.clock.Advance(time.Hour)
	fx.rename(t, "Augusta", d.ids["stale"], d.ids["legacy"], d.ids["suspended"], d.ids["appointed"])
	fx.delete(t, d.ids["ghost"], d.ids["deleted"], d.ids["suspended ghost"])
	fx.deactivate(t, d.ids["mistaken"], d.ids["deleted"])
	fx.edit(t, d.ids["legacy"], func(u *clerksync.User) {
		*u = clerksync.User{Name: "somebody", Role: clerksync.RoleTeacher, IsActive: true}
	})
	for _, name := range []string{"suspended", "suspended ghost"} {
		fx.edit(t, d.ids[name], func(u *clerksync.User) { u.IsActive = false })
	}
	if err := fx.clerk.BanUser(d.ids["banned"]); err != nil {
		t.Fatal(err)
	}
	// The heirs come first, and find their addresses still taken.
	fx.setEmail(t, d.ids["testator"], "other@example.com")
	fx.setEmail(t, d.ids["heir"], "testator@example.com")
	fx.setEmail(t, d.ids["heir of a ghost"], "ghost@example.com")
	fx.edit(t, d.ids["edited"], func(u *clerksync.User) { u.Name, u.Profile.Gender = "Byron", "?" })
	fx.edit(t, d.ids["appointed"], func(u *clerksync.User) {
		u.Role, u.Location = clerksync.RoleAdmin, &clerksync.Location{City: "London"}
	})
	d.ids["foreign"] = "legacy-42"
	fx.record(t, "legacy-42")
	fx.clock.Advance(time.Hour)
	fx.clerk.ResetCalls()
	fx.store.reset()
	return d
}

func (d *drifted) all(t *testing.T) map[string]*clerksync.User {
	return d.records(t, slices.Collect(maps.Values(d.ids)))
}

func TestReconcileRepairsEveryDrift(t *testing.T) {
	t.Parallel()
	for _, force := range []bool{false, true} {
		t.Run(fmt.Sprint("force ", force), func(t *testing.T) {
			t.Parallel()
			d := newDrifted(t)
			want := tally{
				"seen": 12, "unchanged": 2, // in step, edited
				"created": 3, "updated": 6, "ghosts": 2, "tombstoned": 1, "unknown": 1,
			}
			if force {
				want["unchanged"], want["updated"] = 1, 7
			}
			opts := options{PageSize: 4, Force: force}
			drift := d.all(t)
			d.dryRun(t, opts, want)

			want["deactivated"] = 2
			report := d.reconcile(t, opts)
			wantCounts(t, report, want)
			d.checkReport(t, &report, force)
			d.checkRepaired(t, drift, force)
			d.runAgain(t, opts)
		})
	}
}

// dryRun checks that a dry run reports what there is to do, and changes nothing.
func (d *drifted) dryRun(t *testing.T, opts options, want tally) {
	t.Helper()
	before := d.all(t)
	opts.DryRun = true
	report := d.reconcile(t, opts)
	wantCounts(t, report, want)
	if !report.DryRun || !report.Complete || report.InStep() {
		t.Errorf("the dry run reports %+v", report)
	}
	if fields := d.wantFields(opts.Force); !maps.Equal(report.Fields, fields) {
		t.Errorf("the dry run finds that %v differ, want %v", report.Fields, fields)
	}
	if diff := gocmp.Diff(before, d.all(t)); diff != "" || d.store.writes() != 0 {
		t.Errorf("the dry run made %d writes (-before +after):\n%s", d.store.writes(), diff)
	}
}

// checkReport checks all of the Report but its counts.
func (d *drifted) checkReport(t *testing.T, report *clerksync.Report, force bool) {
	t.Helper()
	if !report.Complete || report.DryRun || report.InStep() || report.Reason != "" || report.Resume != "" {
		t.Errorf("reports %+v", report)
	}
	for name, named := range map[string]clerksync.Tally{
		"missing": report.Created, "heir": report.Created, "suspended ghost": report.Deactivated,
		"mistaken": report.Tombstoned, "foreign": report.Unknown, "legacy": report.Updated,
	} {
		if !slices.Contains(named.IDs, d.ids[name]) {
			t.Errorf("%s, %s, is not among %v", name, d.ids[name], named.IDs)
		}
	}
	if fields := d.wantFields(force); !maps.Equal(report.Fields, fields) {
		t.Errorf("the run found that %v differ, want %v", report.Fields, fields)
	}
}

// runAgain checks that a second run does not have anything to do.
func (d *drifted) runAgain(t *testing.T, opts options) {
	t.Helper()
	repaired := d.all(t)
	d.store.reset()
	again := d.reconcile(t, opts)
	wantCounts(t, again, tally{"seen": 12, "unchanged": 11, "tombstoned": 1, "unknown": 1})
	if !again.InStep() || d.store.writes() != 0 {
		t.Errorf("a second run made %d writes and reports %+v", d.store.writes(), again)
	}
	if diff := gocmp.Diff(repaired, d.all(t)); diff != "" {
		t.Errorf("a second run changed (-before +after):\n%s", diff)
	}
}

// wantFields are how often each field differed, which only force compares.
func (*drifted) wantFields(force bool) map[string]int {
	if !force {
		return nil
	}
	return map[string]int{
		"name":              5, // stale, legacy, suspended, appointed, edited
		"profile.firstName": 4, "profile.fullName": 4,
		"profile.lastName": 1, "profile.imageUrl": 1, "emailVerified": 1, "clerkCreatedAt": 1, // legacy
		"profile.gender": 1, // edited
		"email":          2, // legacy, testator
		"banned":         1,
	}
}

// checkRepaired checks that Clerk's fields are as in Clerk, and that the app's are as they were.
func (d *drifted) checkRepaired(t *testing.T, before map[string]*clerksync.User, force bool) {
	t.Helper()
	untouched := []string{"mistaken", "deleted", "foreign", "in step"}
	if !force {
		untouched = append(untouched, "edited")
	}
	after := d.all(t)
	for name, id := range d.ids {
		u, old := after[id], before[id]
		raw, exists := d.clerk.User(id)
		switch {
		case slices.Contains(untouched, name):
			if diff := gocmp.Diff(old, u); diff != "" {
				t.Errorf("%s has changed (-before +after):\n%s", name, diff)
			}
		case exists:
			d.checkAsInClerk(t, name, raw, old, u)
		case u.IsActive || u.DeletedAt.IsZero() || u.Name != old.Name || u.ID != old.ID:
			t.Errorf("%s is %+v, want a deleted record", name, u)
		}
	}
	if u := after[d.ids["suspended"]]; u.IsActive || u.Profile.FirstName != "Augusta" {
		t.Errorf("suspended: %+v", u)
	}
	u := after[d.ids["appointed"]]
	if u.Role != clerksync.RoleAdmin || u.Location == nil || u.Location.City != "London" {
		t.Errorf("appointed: %+v", u)
	}
	if u := after[d.ids["heir of a ghost"]]; u.Email != "ghost@example.com" {
		t.Errorf("heir of a ghost: %+v", u)
	}
}

// checkAsInClerk checks the record of a user whom Clerk has. old is the record before the run, nil
// for none.
func (d *drifted) checkAsInClerk(t *testing.T, name string, raw json.RawMessage, old, u *clerksync.User) {
	t.Helper()
	want, err := clerksync.MapUser(d.Syncer, raw, d.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	ignored := []string{"SyncedAt", "UpdatedAt", "EmailProven"} // the last one is not stored
	if old == nil {
		ignored = append(ignored, "ID", "CreatedAt")
	} else {
		want.ID, want.CreatedAt, want.IsActive = old.ID, old.CreatedAt, old.IsActive
		want.Role, want.Location = old.Role, old.Location
	}
	if diff := gocmp.Diff(want, u, cmpopts.IgnoreFields(clerksync.User{}, ignored...)); diff != "" {
		t.Errorf("%s is not what Clerk has (-want +got):\n%s", name, diff)
	}
}

func TestReconcileAfterAMappingChange(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 12)
	fx.updateSilently(t, ids[2], func(u *fakeclerk.UserObject) { // at an equal version
		u.LastSignInAt = clerk.Int64(fx.clock.Now().UnixMilli())
	})
	mapping := func(c *clerksync.Config) {
		c.RoleOf = func(u *clerk.User) clerksync.Role {
			if u.ID == ids[5] {
				return ""
			}
			return clerksync.RoleTeacher
		}
		c.Map = func(cu *clerk.User, u *clerksync.User) error {
			u.Extra = map[string]any{"plan": "free", "tags": []string{"a"}}
			if cu.ID == ids[7] {
				u.Location = &clerksync.Location{City: "Paris"} // app-owned once the record exists
			}
			return nil
		}
	}
	old, changed := fx.Syncer, fx.syncer(t, mapping)
	gained := tally{"plan": 12, "tags": 12, "role": 11, "lastSignInAt": 1}
	lost := tally{"plan": 12, "tags": 12}
	for _, step := range []struct {
		what   string
		syncer *clerksync.Syncer
		force  bool
		want   tally
		fields tally
	}{
		{"versions only", changed, false, tally{"seen": 12, "unchanged": 12}, nil},
		{"whole records", changed, true, tally{"seen": 12, "updated": 12}, gained},
		{"again", changed, true, tally{"seen": 12, "unchanged": 12}, nil},
		{"the old mapping", old, true, tally{"seen": 12, "updated": 12}, lost},
	} {
		for _, dry := range []bool{true, false} {
			report, err := step.syncer.Reconcile(t.Context(), options{Force: step.force, DryRun: dry, PageSize: 5})
			if err != nil || report.InStep() != (step.want["updated"] == 0) {
				t.Errorf("%s: %v, %+v", step.what, err, report)
			}
			wantCounts(t, report, step.want)
			if !maps.Equal(report.Fields, step.fields) {
				t.Errorf("%s: fields %v, want %v", step.what, report.Fields, step.fields)
			}
		}
	}
	if u := fx.get(t, ids[7]); u.Role != clerksync.RoleTeacher || u.Location != nil || u.Extra != nil {
		t.Errorf("the record whose Location Map set is %+v", u)
	}
	if u := fx.get(t, ids[5]); u.Role != clerksync.RoleStudent {
		t.Errorf("the record without a role in Clerk is %+v", u)
	}
	fx.inStep(t)
}

// A sign-in does not raise the version: the Store calls it Unchanged, and with Force the Report
// says that it differs.
func TestReconcileSignInAtAnEqualVersion(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 3)
	fx.updateSilently(t, ids[1], func(u *fakeclerk.UserObject) {
		u.LastSignInAt = clerk.Int64(fx.clock.Now().UnixMilli())
	})
	for _, dry := range []bool{true, false} {
		report := fx.reconcile(t, options{Force: true, DryRun: dry})
		wantCounts(t, report, tally{"seen": 3, "unchanged": 2, "updated": 1})
		if !maps.Equal(report.Fields, tally{"lastSignInAt": 1}) {
			t.Errorf("fields %v", report.Fields)
		}
	}
	fx.inStep(t)
}

// A record may be newer than Clerk's answer if Clerk's clock went back, or if the answer comes from
// a replica.
func TestReconcileLeavesNewerRecords(t *testing.T) {
	t.Parallel()
	for _, force := range []bool{false, true} {
		fx := newBulkFixture(t, nil)
		ids := fx.backfill(t, 3)
		fx.updateSilently(t, ids[1], func(u *fakeclerk.UserObject) {
			u.UpdatedAt--
			u.FirstName = clerk.String("Augusta")
		})
		before := fx.records(t, ids)
		report := fx.reconcile(t, options{Force: force})
		wantCounts(t, report, tally{"seen": 3, "unchanged": 2, "stale": 1})
		if !slices.Equal(report.Stale.IDs, ids[1:2]) || !report.InStep() || fx.store.writes() != 0 {
			t.Errorf("%d writes, reports %+v", fx.store.writes(), report)
		}
		if diff := gocmp.Diff(before, fx.records(t, ids)); diff != "" {
			t.Errorf("records (-before +after):\n%s", diff)
		}
	}
}

// lossyStore keeps neither addresses nor sign-ins.
type lossyStore struct{ *bulkStore }

func (s lossyStore) Keeps(path string) bool { return path != "email" && path != "lastSignInAt" }

func (s lossyStore) UpsertBatch(ctx context.Context, us []*clerksync.User) ([]clerksync.Result, error) {
	kept := make([]*clerksync.User, len(us))
	for i, u := range us {
		kept[i] = u.Clone()
		kept[i].Email, kept[i].LastSignInAt = "", time.Time{}
	}
	return s.bulkStore.UpsertBatch(ctx, kept)
}

// TestReconcileIgnoresWhatTheStoreDoesNotKeep compares whole records.
func TestReconcileIgnoresWhatTheStoreDoesNotKeep(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	fx.Syncer = fx.syncer(t, func(cfg *clerksync.Config) { cfg.Store = lossyStore{fx.store} })
	ids := fx.backfill(t, 3)
	fx.updateSilently(t, ids[0], func(u *fakeclerk.UserObject) {
		at := fx.clock.Now().UnixMilli()
		u.LastSignInAt = &at
	})
	if u := fx.get(t, ids[0]); u.Email != "" {
		t.Fatalf("the Store keeps %q", u.Email)
	}
	wantCounts(t, fx.reconcile(t, options{Force: true}), tally{"seen": 3, "unchanged": 3})
	if n := fx.store.writes(); n != 0 {
		t.Errorf("%d writes", n)
	}
	fx.edit(t, ids[1], func(u *clerksync.User) { u.Name = "Byron" })
	report := fx.reconcile(t, options{Force: true})
	wantCounts(t, report, tally{"seen": 3, "unchanged": 2, "updated": 1})
	if diff := gocmp.Diff(map[string]int{"name": 1}, report.Fields); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}
