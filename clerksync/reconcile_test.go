package clerksync_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// bulkFixture is a world for whole runs.
type bulkFixture struct {
	*fixture
	store *bulkStore
	// What happens to requests on the way to Clerk and to answers on the way back.
	request func(*http.Request)
	answer  func(*http.Request, *http.Response)

	signedUp int
}

func newBulkFixture(t testing.TB, change func(*clerksync.Config)) *bulkFixture {
	t.Helper()
	return startBulkFixture(t, fakeclerk.Config{RateLimit: -1}, change)
}

func startBulkFixture(t testing.TB, instance fakeclerk.Config, change func(*clerksync.Config)) *bulkFixture {
	t.Helper()
	fx := &bulkFixture{fixture: &fixture{clock: fakeclerk.NewClock(t0), logs: &logBuffer{}}}
	instance.Clock = fx.clock
	instance.InstanceID = cmp.Or(instance.InstanceID, sharedInstance)
	var err error
	if fx.clerk, err = fakeclerk.Start(instance); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fx.clerk.Close() })
	records := memstore.New()
	records.Now = fx.clock.Now
	fx.fixture.store = &countingStore{faultyStore: faultyStore{Store: records}}
	fx.store = &bulkStore{Store: records, calls: make(map[string]int)}
	fx.Syncer = fx.syncer(t, change)
	return fx
}

// syncer returns one more Syncer of the same world, as another process would have.
func (fx *bulkFixture) syncer(t testing.TB, change func(*clerksync.Config)) *clerksync.Syncer {
	t.Helper()
	return fx.fixture.syncer(t, func(cfg *clerksync.Config) {
		cfg.Store = fx.store
		clerksync.SetClock(cfg, eagerClock{fx.clock})
		cfg.HTTPClient.Transport = &meddler{cfg.HTTPClient.Transport.(*http.Transport), fx}
		if change != nil {
			change(cfg)
		}
	})
}

// meddler lets a test change requests and answers.
type meddler struct {
	*http.Transport
	fx *bulkFixture
}

func (m *meddler) RoundTrip(r *http.Request) (*http.Response, error) {
	if m.fx.request != nil {
		r = r.Clone(r.Context())
		m.fx.request(r)
	}
	resp, err := m.Transport.RoundTrip(r)
	if err == nil && m.fx.answer != nil {
		m.fx.answer(r, resp)
	}
	return resp, err
}

// bulkStore counts the calls, and lets a test fail them.
type bulkStore struct {
	*memstore.Store
	mu     sync.Mutex
	calls  map[string]int
	fault  func(op string) error // of a whole call; "Undeleted" is asked for each record
	refuse func(id string) error // of one user's write
	after  func(op string)       // of a Deactivate
}

func (s *bulkStore) enter(op string) error {
	s.mu.Lock()
	s.calls[op]++
	fault := s.fault
	s.mu.Unlock()
	if fault == nil {
		return nil
	}
	return fault(op)
}

func (s *bulkStore) refusal(id string) error {
	if s.refuse == nil {
		return nil
	}
	return s.refuse(id)
}

func (s *bulkStore) count(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[op]
}

// writes counts the calls that may have written.
func (s *bulkStore) writes() int {
	return s.count("Upsert") + s.count("UpsertBatch") + s.count("Deactivate") + s.count("Restore")
}

func (s *bulkStore) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.calls)
}

func (s *bulkStore) User(ctx context.Context, id string) (*clerksync.User, error) {
	if err := s.enter("User"); err != nil {
		return nil, err
	}
	return s.Store.User(ctx, id)
}

func (s *bulkStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	if err := cmp.Or(s.enter("Upsert"), s.refusal(u.ClerkID)); err != nil {
		return clerksync.Result{}, err
	}
	return s.Store.Upsert(ctx, u)
}

func (s *bulkStore) UpsertBatch(ctx context.Context, us []*clerksync.User) ([]clerksync.Result, error) {
	if err := s.enter("UpsertBatch"); err != nil {
		return nil, err
	}
	results, errs := make([]clerksync.Result, len(us)), make(map[int]error)
	for i, u := range us {
		err := s.refusal(u.ClerkID)
		if err == nil {
			results[i], err = s.Store.Upsert(ctx, u)
		}
		if err != nil {
			errs[i] = err
		}
	}
	if len(errs) > 0 {
		return results, &clerksync.BatchError{Errs: errs}
	}
	return results, nil
}

func (s *bulkStore) Deactivate(ctx context.Context, id string, at time.Time) (clerksync.Result, error) {
	if err := cmp.Or(s.enter("Deactivate"), s.refusal(id)); err != nil {
		return clerksync.Result{}, err
	}
	if s.after != nil {
		defer s.after("Deactivate")
	}
	return s.Store.Deactivate(ctx, id, at)
}

func (s *bulkStore) Restore(ctx context.Context, id string, before time.Time) (bool, error) {
	if err := cmp.Or(s.enter("Restore"), s.refusal(id)); err != nil {
		return false, err
	}
	return s.Store.Restore(ctx, id, before)
}

func (s *bulkStore) Users(ctx context.Context, ids []string) (map[string]*clerksync.User, error) {
	if err := s.enter("Users"); err != nil {
		return nil, err
	}
	return s.Store.Users(ctx, ids)
}

func (s *bulkStore) Stamps(ctx context.Context, ids []string) (map[string]clerksync.Stamp, error) {
	if err := s.enter("Stamps"); err != nil {
		return nil, err
	}
	return s.Store.Stamps(ctx, ids)
}

func (s *bulkStore) Undeleted(ctx context.Context) iter.Seq2[clerksync.Stamp, error] {
	return func(yield func(clerksync.Stamp, error) bool) {
		for stamp, err := range s.Store.Undeleted(ctx) {
			if err := cmp.Or(err, s.enter("Undeleted")); err != nil {
				yield(clerksync.Stamp{}, err)
				return
			}
			if !yield(stamp, nil) {
				return
			}
		}
	}
}

// signUp makes n users in Clerk, a second apart.
func (fx *bulkFixture) signUp(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", LastName: "Lovelace", Email: fmt.Sprintf("ada%d@example.com", fx.signedUp)})
		fx.signedUp++
		fx.clock.Advance(time.Second)
	}
	return ids
}

// backfill makes n users in Clerk with their records, all over an hour ago.
func (fx *bulkFixture) backfill(t testing.TB, n int) []string {
	t.Helper()
	ids := fx.signUp(n)
	fx.reconcile(t, clerksync.ReconcileOptions{RequestsPerSecond: 1e6})
	fx.clock.Advance(2 * time.Hour)
	fx.clerk.ResetCalls()
	fx.store.reset()
	return ids
}

// ghosts makes n records, two hours old, of users whom Clerk does not have. Their
// ids come after those of users.
func (fx *bulkFixture) ghosts(t testing.TB, n int) []string {
	t.Helper()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("user_zz_ghost_%05d", i)
		fx.record(t, ids[i])
	}
	fx.clock.Advance(2 * time.Hour)
	return ids
}

// record makes a record of a user whom Clerk need not have.
func (fx *bulkFixture) record(t testing.TB, id string) {
	t.Helper()
	if _, err := fx.store.Store.Upsert(t.Context(), &clerksync.User{ClerkID: id, Name: "Grace", ClerkUpdatedAt: t0.Add(-time.Hour), SyncedAt: t0}); err != nil {
		t.Fatal(err)
	}
}

func (fx *bulkFixture) rename(t testing.TB, name string, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String(name) }); err != nil {
			t.Fatal(err)
		}
	}
}

func (fx *bulkFixture) delete(t testing.TB, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := fx.clerk.DeleteUser(id); err != nil {
			t.Fatal(err)
		}
	}
}

func (fx *bulkFixture) edit(t testing.TB, id string, f func(*clerksync.User)) {
	t.Helper()
	if err := fx.store.Edit(id, f); err != nil {
		t.Fatal(err)
	}
}

func (fx *bulkFixture) get(t testing.TB, id string) *clerksync.User {
	t.Helper()
	u, err := fx.store.Store.User(t.Context(), id)
	if err != nil {
		t.Fatalf("record of %s: %v", id, err)
	}
	return u
}

// reconcile is a run that must succeed.
func (fx *bulkFixture) reconcile(t testing.TB, opts clerksync.ReconcileOptions) clerksync.Report {
	t.Helper()
	report, err := fx.Reconcile(t.Context(), opts)
	if err != nil {
		t.Fatalf("Reconcile: %v\n%+v", err, report)
	}
	return report
}

// inStep checks, by whole records, that nothing is left to do.
func (fx *bulkFixture) inStep(t testing.TB) {
	t.Helper()
	before := fx.store.writes()
	if report := fx.reconcile(t, clerksync.ReconcileOptions{DryRun: true, Force: true, Holdback: -1, MaxDeactivations: -1}); !report.InStep() {
		t.Errorf("not in step: %v, reason %q", counts(&report), report.Reason)
	}
	if fx.store.writes() != before {
		t.Error("the dry run wrote")
	}
}

// records are all those of the users named, as they are.
func (fx *bulkFixture) records(t testing.TB, ids []string) map[string]*clerksync.User {
	t.Helper()
	records, err := fx.store.Store.Users(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// counts are the Report's that are not zero.
func counts(r *clerksync.Report) map[string]int {
	all := map[string]int{
		"seen": r.Seen, "unchanged": r.Unchanged, "created": r.Created.Count, "updated": r.Updated.Count,
		"stale": r.Stale.Count, "ghosts": r.Ghosts.Count, "deactivated": r.Deactivated.Count,
		"tombstoned": r.Tombstoned.Count, "restored": r.Restored.Count, "conflicts": r.Conflicts.Count,
		"failed": r.Failed.Count, "unknown": r.Unknown.Count,
	}
	maps.DeleteFunc(all, func(_ string, n int) bool { return n == 0 })
	return all
}

func wantCounts(t testing.TB, r clerksync.Report, want map[string]int) {
	t.Helper()
	if diff := gocmp.Diff(want, counts(&r)); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

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
		d.ids[name] = fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", LastName: "Lovelace", Email: strings.ReplaceAll(name, " ", ".") + "@example.com"})
		fx.clock.Advance(time.Second)
		if name == "missing" || strings.HasPrefix(name, "heir") {
			continue
		}
		if _, err := fx.Sync(t.Context(), d.ids[name]); err != nil {
			t.Fatal(err)
		}
	}
	fx.clock.Advance(time.Hour)
	email := func(name, address string) {
		t.Helper()
		if err := fx.clerk.UpdateUser(d.ids[name], func(u *fakeclerk.UserObject) { u.EmailAddresses[0].EmailAddress = address }); err != nil {
			t.Fatal(err)
		}
	}
	fx.rename(t, "Augusta", d.ids["stale"], d.ids["legacy"], d.ids["suspended"], d.ids["appointed"])
	fx.delete(t, d.ids["ghost"], d.ids["deleted"], d.ids["suspended ghost"])
	for _, name := range []string{"mistaken", "deleted"} {
		if _, err := fx.store.Store.Deactivate(t.Context(), d.ids[name], fx.clock.Now()); err != nil {
			t.Fatal(err)
		}
	}
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
	email("testator", "other@example.com")
	email("heir", "testator@example.com")
	email("heir of a ghost", "ghost@example.com")
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
			want := map[string]int{
				"seen": 12, "unchanged": 2, // in step, edited
				"created": 3, "updated": 6, "ghosts": 2, "tombstoned": 1, "unknown": 1,
			}
			if force {
				want["unchanged"], want["updated"] = 1, 7
			}
			opts := clerksync.ReconcileOptions{PageSize: 4, Force: force}

			drift := d.all(t)
			opts.DryRun = true
			dry := d.reconcile(t, opts)
			wantCounts(t, dry, want)
			if !dry.DryRun || !dry.Complete || dry.InStep() {
				t.Errorf("the dry run reports %+v", dry)
			}
			if diff := gocmp.Diff(drift, d.all(t)); diff != "" || d.store.writes() != 0 {
				t.Errorf("the dry run made %d writes (-before +after):\n%s", d.store.writes(), diff)
			}

			opts.DryRun = false
			want["deactivated"] = 2
			report := d.reconcile(t, opts)
			wantCounts(t, report, want)
			if !report.Complete || report.DryRun || report.InStep() || report.Reason != "" || report.Resume != "" {
				t.Errorf("reports %+v", report)
			}
			for name, tally := range map[string]clerksync.Tally{"missing": report.Created, "heir": report.Created, "suspended ghost": report.Deactivated, "mistaken": report.Tombstoned, "foreign": report.Unknown, "legacy": report.Updated} {
				if !slices.Contains(tally.IDs, d.ids[name]) {
					t.Errorf("%s, %s, is not among %v", name, d.ids[name], tally.IDs)
				}
			}
			if fields := d.wantFields(force); !maps.Equal(report.Fields, fields) || !maps.Equal(dry.Fields, fields) {
				t.Errorf("fields differ: %v, in the dry run %v; want %v", report.Fields, dry.Fields, fields)
			}
			d.checkRepaired(t, drift, force)

			repaired := d.all(t)
			d.store.reset()
			again := d.reconcile(t, opts)
			wantCounts(t, again, map[string]int{"seen": 12, "unchanged": 11, "tombstoned": 1, "unknown": 1})
			if !again.InStep() || d.store.writes() != 0 {
				t.Errorf("a second run made %d writes and reports %+v", d.store.writes(), again)
			}
			if diff := gocmp.Diff(repaired, d.all(t)); diff != "" {
				t.Errorf("a second run changed (-before +after):\n%s", diff)
			}
		})
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

// checkRepaired checks that what is Clerk's is Clerk's again, and that what is the
// app's is as it was.
func (d *drifted) checkRepaired(t *testing.T, before map[string]*clerksync.User, force bool) {
	t.Helper()
	after := d.all(t)
	for name, id := range d.ids {
		u, old := after[id], before[id]
		raw, exists := d.clerk.User(id)
		if name == "mistaken" || name == "deleted" || name == "foreign" || name == "in step" || name == "edited" && !force {
			if diff := gocmp.Diff(old, u); diff != "" {
				t.Errorf("%s has changed (-before +after):\n%s", name, diff)
			}
			continue
		}
		if !exists { // a ghost
			if u.IsActive || u.DeletedAt.IsZero() || u.Name != old.Name || u.ID != old.ID {
				t.Errorf("%s is %+v", name, u)
			}
			continue
		}
		want, err := clerksync.MapUser(d.Syncer, raw, d.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		if old != nil {
			want.ID, want.CreatedAt, want.Role, want.Location, want.IsActive = old.ID, old.CreatedAt, old.Role, old.Location, old.IsActive
		}
		ignored := cmpopts.IgnoreFields(clerksync.User{}, "SyncedAt", "UpdatedAt")
		if old == nil {
			ignored = cmpopts.IgnoreFields(clerksync.User{}, "SyncedAt", "UpdatedAt", "ID", "CreatedAt")
		}
		if diff := gocmp.Diff(want, u, ignored); diff != "" {
			t.Errorf("%s is not what Clerk has (-want +got):\n%s", name, diff)
		}
	}
	if u := after[d.ids["suspended"]]; u.IsActive || u.Profile.FirstName != "Augusta" {
		t.Errorf("suspended: %+v", u)
	}
	if u := after[d.ids["appointed"]]; u.Role != clerksync.RoleAdmin || u.Location == nil || u.Location.City != "London" {
		t.Errorf("appointed: %+v", u)
	}
	if u := after[d.ids["heir of a ghost"]]; u.Email != "ghost@example.com" {
		t.Errorf("heir of a ghost: %+v", u)
	}
}

// TestReconcileHandedDownAddresses has users take each other's address, so that only
// the last can be written at first, and by each further try one more.
func TestReconcileHandedDownAddresses(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 4)
	fx.store.UniqueEmail = true
	for i, of := range []int{2, 3, 1, 4} {
		if err := fx.clerk.UpdateUser(ids[i], func(u *fakeclerk.UserObject) {
			u.EmailAddresses[0].EmailAddress = fmt.Sprintf("ada%d@example.com", of)
		}); err != nil {
			t.Fatal(err)
		}
	}
	report := fx.reconcile(t, clerksync.ReconcileOptions{PageSize: 2, Writers: 1})
	wantCounts(t, report, map[string]int{"seen": 4, "updated": 4})
	fx.inStep(t)
}

func TestReconcileSwappedAddressesStayInConflict(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 3)
	fx.store.UniqueEmail = true
	for i, id := range ids[:2] {
		if err := fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) {
			u.EmailAddresses[0].EmailAddress = fmt.Sprintf("ada%d@example.com", 1-i)
		}); err != nil {
			t.Fatal(err)
		}
	}
	report := fx.reconcile(t, clerksync.ReconcileOptions{})
	wantCounts(t, report, map[string]int{"seen": 3, "unchanged": 1, "conflicts": 2})
	if !report.Complete || report.InStep() || !slices.Equal(slices.Sorted(slices.Values(report.Conflicts.IDs)), slices.Sorted(slices.Values(ids[:2]))) {
		t.Errorf("reports %+v", report)
	}
}

func TestReconcileAfterAMappingChange(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 12)
	_ = fx.clerk.UpdateUserSilently(ids[2], func(u *fakeclerk.UserObject) { // at an equal version
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
				u.Location = &clerksync.Location{City: "Paris"} // the app's by now
			}
			return nil
		}
	}
	old, changed := fx.Syncer, fx.syncer(t, mapping)
	for _, step := range []struct {
		what   string
		syncer *clerksync.Syncer
		force  bool
		want   map[string]int
		fields map[string]int
	}{
		{"versions only", changed, false, map[string]int{"seen": 12, "unchanged": 12}, nil},
		{"whole records", changed, true, map[string]int{"seen": 12, "updated": 12}, map[string]int{"plan": 12, "tags": 12, "role": 11, "lastSignInAt": 1}},
		{"again", changed, true, map[string]int{"seen": 12, "unchanged": 12}, nil},
		{"the old mapping", old, true, map[string]int{"seen": 12, "updated": 12}, map[string]int{"plan": 12, "tags": 12}},
	} {
		for _, dry := range []bool{true, false} {
			report, err := step.syncer.Reconcile(t.Context(), clerksync.ReconcileOptions{Force: step.force, DryRun: dry, PageSize: 5})
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
		t.Errorf("%+v", u)
	}
	if u := fx.get(t, ids[5]); u.Role != clerksync.RoleStudent {
		t.Errorf("%+v", u)
	}
	fx.inStep(t)
}

// TestReconcileSignInAtAnEqualVersion: Unchanged, for the Store, and a difference all the
// same.
func TestReconcileSignInAtAnEqualVersion(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 3)
	if err := fx.clerk.UpdateUserSilently(ids[1], func(u *fakeclerk.UserObject) { u.LastSignInAt = clerk.Int64(fx.clock.Now().UnixMilli()) }); err != nil {
		t.Fatal(err)
	}
	for _, dry := range []bool{true, false} {
		report := fx.reconcile(t, clerksync.ReconcileOptions{Force: true, DryRun: dry})
		wantCounts(t, report, map[string]int{"seen": 3, "unchanged": 2, "updated": 1})
		if !maps.Equal(report.Fields, map[string]int{"lastSignInAt": 1}) {
			t.Errorf("fields %v", report.Fields)
		}
	}
	fx.inStep(t)
}

// TestReconcileLeavesNewerRecords: Clerk's clock went back, or its answer is a copy.
func TestReconcileLeavesNewerRecords(t *testing.T) {
	t.Parallel()
	for _, force := range []bool{false, true} {
		fx := newBulkFixture(t, nil)
		ids := fx.backfill(t, 3)
		if err := fx.clerk.UpdateUserSilently(ids[1], func(u *fakeclerk.UserObject) { u.UpdatedAt--; u.FirstName = clerk.String("Augusta") }); err != nil {
			t.Fatal(err)
		}
		before := fx.records(t, ids)
		report := fx.reconcile(t, clerksync.ReconcileOptions{Force: force})
		wantCounts(t, report, map[string]int{"seen": 3, "unchanged": 2, "stale": 1})
		if diff := gocmp.Diff(before, fx.records(t, ids)); diff != "" || !slices.Equal(report.Stale.IDs, ids[1:2]) || !report.InStep() || fx.store.writes() != 0 {
			t.Errorf("reports %+v; records (-before +after):\n%s", report, diff)
		}
	}
}

// TestReconcileTwiceAtOnce: each user is created by one of two runs.
func TestReconcileTwiceAtOnce(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.signUp(100)
	fx.record(t, ids[0])
	fx.clock.Advance(2 * time.Hour)
	ghosts := fx.ghosts(t, 5)
	other := fx.syncer(t, nil)
	var reports [2]clerksync.Report
	var runs sync.WaitGroup
	for i, s := range []*clerksync.Syncer{fx.Syncer, other} {
		runs.Go(func() {
			var err error
			if reports[i], err = s.Reconcile(t.Context(), clerksync.ReconcileOptions{PageSize: 3}); err != nil {
				t.Error(err)
			}
		})
	}
	runs.Wait()
	if n := reports[0].Created.Count + reports[1].Created.Count; n != 99 || reports[0].Seen != 100 || reports[1].Seen != 100 {
		t.Errorf("created %d users: %+v", n, reports)
	}
	for id, u := range fx.records(t, ghosts) {
		if u.DeletedAt.IsZero() {
			t.Errorf("%s is %+v", id, u)
		}
	}
	fx.inStep(t)
}

// TestReconcileThroughABackend has the app call Clerk its own way.
func TestReconcileThroughABackend(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	fx.backfill(t, 20)
	created, ghosts := fx.signUp(3), fx.ghosts(t, 2)
	url, key := fx.clerk.APIURL(), fx.clerk.SecretKey()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	s := fx.syncer(t, func(c *clerksync.Config) {
		c.Backend = clerk.NewBackend(&clerk.BackendConfig{URL: &url, Key: &key, HTTPClient: client})
		c.SecretKey, c.APIURL, c.HTTPClient = "", "", nil
	})
	calls := 0
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		if calls++; calls%3 == 0 {
			return &fakeclerk.Fault{Status: 502, Body: "<html>", ContentType: "text/html"}
		}
		return nil
	})
	report, err := s.Reconcile(t.Context(), clerksync.ReconcileOptions{PageSize: 5})
	if err != nil {
		t.Fatal(err)
	}
	wantCounts(t, report, map[string]int{"seen": 23, "unchanged": 20, "created": len(created), "ghosts": 2, "deactivated": len(ghosts)})
	fx.clerk.SetFault(nil)
	fx.inStep(t)
}

func TestReconcileCost(t *testing.T) {
	t.Parallel()
	fx := startBulkFixture(t, fakeclerk.Config{RateLimit: -1, Population: 1000}, nil)
	var mu sync.Mutex
	var lists []url.Values
	fx.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
		if r.URL.Path == "/v1/users" {
			mu.Lock()
			defer mu.Unlock()
			lists = append(lists, r.URL.Query())
		}
		return nil
	})
	run := func(what string, opts clerksync.ReconcileOptions, calls map[string]int) clerksync.Report {
		t.Helper()
		lists = nil
		fx.clerk.ResetCalls()
		fx.store.reset()
		report := fx.reconcile(t, opts)
		got := map[string]int{"list": fx.clerk.Calls("GET /v1/users"), "count": fx.clerk.Calls("GET /v1/users/count"), "get": fx.lookups()}
		for _, op := range []string{"User", "Users", "Upsert", "UpsertBatch", "Stamps", "Deactivate", "Restore"} {
			got[op] = fx.store.count(op)
		}
		maps.DeleteFunc(got, func(_ string, n int) bool { return n == 0 })
		if diff := gocmp.Diff(calls, got); diff != "" {
			t.Errorf("%s: calls (-want +got):\n%s", what, diff)
		}
		if report.ClerkCalls != fx.clerk.Calls("") || report.Throttled != 0 {
			t.Errorf("%s: reports %d calls and %d throttled, Clerk counted %d", what, report.ClerkCalls, report.Throttled, fx.clerk.Calls(""))
		}
		return report
	}

	// Two full pages and the end; the Store is empty, so there is nobody to look up.
	backfill := run("backfill", clerksync.ReconcileOptions{}, map[string]int{"list": 3, "count": 2, "Stamps": 2, "UpsertBatch": 2})
	wantCounts(t, backfill, map[string]int{"seen": 1000, "created": 1000})
	if len(backfill.Created.IDs) != 100 {
		t.Errorf("names %d of the created, want 100", len(backfill.Created.IDs))
	}
	for i, after := range []string{"", fx.clerk.PopulationID(499), fx.clerk.PopulationID(999)} {
		want := url.Values{"limit": {"500"}, "order_by": {"created_at"}}
		if after != "" {
			want.Set("starting_after", after)
		}
		if diff := gocmp.Diff(want, lists[i]); diff != "" {
			t.Errorf("list %d (-want +got):\n%s", i, diff)
		}
	}
	fx.clock.Advance(2 * time.Hour)

	unchanged := run("unchanged", clerksync.ReconcileOptions{}, map[string]int{"list": 4, "count": 2, "Stamps": 2})
	wantCounts(t, unchanged, map[string]int{"seen": 1000, "unchanged": 1000})
	if !unchanged.InStep() || len(lists[0]["user_id"]) != 100 || lists[0].Get("limit") != "100" {
		t.Errorf("asks first for %v; reports %+v", lists[0], unchanged)
	}

	whole := run("whole records", clerksync.ReconcileOptions{Force: true}, map[string]int{"list": 4, "count": 2, "Users": 2})
	wantCounts(t, whole, map[string]int{"seen": 1000, "unchanged": 1000})

	fx.rename(t, "Augusta", fx.clerk.PopulationID(3), fx.clerk.PopulationID(77))
	changed := run("changed", clerksync.ReconcileOptions{}, map[string]int{"list": 4, "count": 2, "Stamps": 2, "UpsertBatch": 1})
	wantCounts(t, changed, map[string]int{"seen": 1000, "unchanged": 998, "updated": 2})

	ghosts := fx.ghosts(t, 230)
	gone := run("ghosts", clerksync.ReconcileOptions{MaxDeactivations: 230}, map[string]int{"list": 4 + 3, "count": 2, "get": 230, "Stamps": 2, "Deactivate": 230})
	wantCounts(t, gone, map[string]int{"seen": 1000, "unchanged": 1000, "ghosts": 230, "deactivated": 230})
	var asked []string
	for _, list := range lists[4:] {
		asked = append(asked, list["user_id"]...)
		if list.Get("limit") != "100" {
			t.Errorf("asks for %v", list)
		}
	}
	if !slices.Equal(asked, ghosts) {
		t.Errorf("asks for %v", asked)
	}
}

func TestReconcileKeepsToTheRate(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		key    string
		option float64
		want   float64
	}{
		"development": {"", 0, 8},
		"production":  {"sk_live_fake", 0, 80},
		"slower":      {"sk_live_fake", 2.5, 2.5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := startBulkFixture(t, fakeclerk.Config{SecretKey: tt.key}, nil) // with Clerk's own limit
			fx.signUp(200)
			ghosts := fx.ghosts(t, 60)
			fx.record(t, fx.clerk.UserIDs()[0])
			report := fx.reconcile(t, clerksync.ReconcileOptions{PageSize: 2, RequestsPerSecond: tt.option, MaxDeactivations: -1, Holdback: -1})
			if report.Deactivated.Count != len(ghosts) || report.ClerkCalls < 160 {
				t.Fatalf("reports %+v", report)
			}
			if fx.clerk.RateLimited() != 0 || report.Throttled != 0 {
				t.Errorf("Clerk answered 429 %d times", fx.clerk.RateLimited())
			}
			if got := float64(report.ClerkCalls-1) / report.Duration.Seconds(); got < 0.95*tt.want || got > 1.001*tt.want {
				t.Errorf("asks %.2f times a second, want %v", got, tt.want)
			}
		})
	}
}

func TestReconcileWaitsAsClerkAsks(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	fx.signUp(5)
	var refusals atomic.Int32
	fx.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
		if r.URL.Query().Has("starting_after") && refusals.Add(1) == 1 {
			f := fakeclerk.ErrorFault(429, "too_many_requests")
			f.Header.Set("Retry-After", "17")
			return f
		}
		return nil
	})
	var waits []time.Duration
	report := fx.reconcile(t, clerksync.ReconcileOptions{PageSize: 2, Progress: func(p clerksync.Progress) {
		if !p.Throttled.IsZero() {
			waits = append(waits, p.Throttled.Sub(fx.clock.Now()))
		}
	}})
	if report.Throttled != 1 || report.Created.Count != 5 || report.Duration < 17*time.Second {
		t.Errorf("reports %+v", report)
	}
	if !slices.Equal(waits, []time.Duration{17 * time.Second}) {
		t.Errorf("Progress told of waits %v", waits)
	}
}

func TestReconcileOptionFaults(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, func(c *clerksync.Config) { c.Store = plainStore{memstore.New()} })
	report, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{
		PageSize: 501, Writers: -1, RequestsPerSecond: -1, Restore: true, Resume: "nonsense",
	})
	checkFaults(t, err, []string{"PageSize", "Writers", "RequestsPerSecond", "Restore", "Resume"})
	if report.Complete || report.Reason != err.Error() || fx.clerk.Calls("") != 0 {
		t.Errorf("made %d calls and reports %+v", fx.clerk.Calls(""), report)
	}
	for _, sentinel := range []error{clerksync.ErrUnavailable, clerksync.ErrWrongInstance, clerksync.ErrIncomplete, clerksync.ErrTooManyGhosts} {
		if errors.Is(err, sentinel) {
			t.Errorf("matches %v", sentinel)
		}
	}
}

// plainStore is a Store and no more.
type plainStore struct{ clerksync.Store }

func TestReconcileProgress(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	fx.backfill(t, 47)
	fx.ghosts(t, 4)
	var calls atomic.Int32
	var all []clerksync.Progress
	report := fx.reconcile(t, clerksync.ReconcileOptions{PageSize: 2, Progress: func(p clerksync.Progress) {
		if calls.Add(1) != 1 {
			t.Error("Progress is called while it runs")
		}
		all = append(all, p)
		calls.Add(-1)
	}})
	var phases []clerksync.Phase
	for i, p := range all {
		if i == 0 || p.Phase != all[i-1].Phase {
			phases = append(phases, p.Phase)
		} else if p.Done < all[i-1].Done || p.Report.Seen < all[i-1].Report.Seen || p.Report.ClerkCalls < all[i-1].Report.ClerkCalls {
			t.Errorf("from %+v back to %+v", all[i-1], p)
		}
		if p.Total < p.Done || p.Phase == clerksync.PhaseUsers && p.Total != 47 {
			t.Errorf("%s: %d of %d", p.Phase, p.Done, p.Total)
		}
		if p.Phase == clerksync.PhaseUsers && p.Done > 0 && p.Report.Resume == "" {
			t.Errorf("no point to resume from after %d", p.Done)
		}
	}
	if want := []clerksync.Phase{clerksync.PhaseUsers, clerksync.PhaseGhosts, clerksync.PhaseDone}; !slices.Equal(phases, want) {
		t.Errorf("phases are %v", phases)
	}
	last := all[len(all)-1]
	if diff := gocmp.Diff(report, last.Report); diff != "" || !last.Report.Complete {
		t.Errorf("the last report is not the Report (-want +got):\n%s", diff)
	}
	users := slices.IndexFunc(all, func(p clerksync.Progress) bool { return p.Phase == clerksync.PhaseGhosts }) - 1
	if all[users].Done != 47 || users+1 != 24 {
		t.Errorf("after %d pages Progress was told of %d users", users+1, all[users].Done)
	}
	if o := fx.seen.last(); o.Op != clerksync.OpReconcile || o.Err != nil || o.ClerkID != "" || o.Duration != report.Duration {
		t.Errorf("observed %+v", o)
	}
}

func TestReconcileIsSeenByTheNextVisit(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, func(c *clerksync.Config) { c.RefreshAfter = -1 })
	ids := fx.backfill(t, 4)
	renamed, gone, restored, banned := ids[0], ids[1], ids[2], ids[3]
	if _, err := fx.store.Store.Deactivate(t.Context(), restored, fx.clock.Now()); err != nil {
		t.Fatal(err)
	}
	fx.clock.Advance(2 * time.Hour)
	for _, id := range ids { // into the cache
		_, _ = fx.User(t.Context(), id)
	}
	fx.rename(t, "Augusta", renamed)
	fx.delete(t, gone)
	if err := fx.clerk.BanUser(banned); err != nil {
		t.Fatal(err)
	}
	late := fx.clerk.CreateUser(fakeclerk.NewUser{ID: "user_late"})
	fx.reconcile(t, clerksync.ReconcileOptions{Restore: true})

	if u := visit(t, fx.Syncer, renamed); u.Profile.FirstName != "Augusta" {
		t.Errorf("the next visit gets %+v", u)
	}
	if u := visit(t, fx.Syncer, restored); !u.IsActive || !u.DeletedAt.IsZero() {
		t.Errorf("the next visit gets %+v", u)
	}
	refusedWith(t, fx.Syncer, gone, clerksync.ErrUserInactive)
	refusedWith(t, fx.Syncer, banned, clerksync.ErrUserInactive)
	visit(t, fx.Syncer, late)
	if fx.lookups() != 1 { // the last word on the one who is gone
		t.Errorf("%d users looked up", fx.lookups())
	}
}

// TestReconcileTellsNothingPersonal searches all that a run puts out for what was in
// the users and the key.
func TestReconcileTellsNothingPersonal(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 8)
	fx.store.UniqueEmail = true
	for i, id := range ids[:2] { // swap
		_ = fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) {
			u.EmailAddresses[0].EmailAddress = fmt.Sprintf("ada%d@example.com", 1-i)
		})
	}
	_ = fx.clerk.UpdateUser(ids[2], func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"first_name": []string{"Ada"}} })
	_ = fx.clerk.UpdateUserSilently(ids[3], func(u *fakeclerk.UserObject) { u.UpdatedAt = fx.clock.Now().Add(48 * time.Hour).UnixMilli() })
	fx.delete(t, ids[4])
	fx.rename(t, "Augusta", ids[5])

	texts := []string{}
	report := fx.reconcile(t, clerksync.ReconcileOptions{Force: true})
	wantCounts(t, report, map[string]int{"seen": 7, "unchanged": 2, "updated": 1, "conflicts": 2, "failed": 2, "ghosts": 1, "deactivated": 1})
	texts = append(texts, fmt.Sprintf("%+v", report))
	for _, fault := range []*fakeclerk.Fault{
		{Status: 200, Body: `[{"id":"user_1","first_name":"Ada","email_addresses":[{"email_address":"ada1@example.com"}]`},
		{Status: 502, Body: "<html>Ada ada1@example.com</html>", ContentType: "text/html"},
		fakeclerk.ErrorFault(401, "clerk_key_invalid"),
		fakeclerk.ErrorFault(403, "forbidden"),
	} {
		fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return fault })
		report, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{})
		if !errors.Is(err, clerksync.ErrUnavailable) {
			t.Errorf("error is %v", err)
		}
		texts = append(texts, fmt.Sprintf("%+v", report), fmt.Sprint(err))
	}
	if !strings.Contains(fx.logs.String(), ids[2]) {
		t.Error("the log does not say who failed")
	}
	for _, text := range append(texts, fx.logs.String()) {
		for _, secret := range []string{"@", "Ada", "Augusta", fx.clerk.SecretKey()} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in %s", secret, text)
			}
		}
	}
}
