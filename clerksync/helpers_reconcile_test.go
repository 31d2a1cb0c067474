package clerksync_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

type options = clerksync.ReconcileOptions

// tally is a Report's counts by name. See counts.
type tally = map[string]int

// bulkFixture is a fixture for whole runs of Reconcile.
type bulkFixture struct {
	*fixture
	store *bulkStore
	// Called with each request on its way to Clerk, and with each answer on its way back, if set.
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

// syncer returns another Syncer on the same Store and Clerk, as another process would have.
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
	order  uint64                                     // seeds the next order of Undeleted
	fault  func(op string) error                      // of a whole call; called with "Undeleted" for each record
	hang   func(ctx context.Context, op string) error // as fault, with the call's context
	reject func(id string) error                      // rejects one user's write
	after  func(op string)                            // called after a Deactivate
}

func (s *bulkStore) enter(ctx context.Context, op string) error {
	s.mu.Lock()
	s.calls[op]++
	fault, hang := s.fault, s.hang
	s.mu.Unlock()
	if hang != nil {
		if err := hang(ctx, op); err != nil {
			return err
		}
	}
	if fault == nil {
		return nil
	}
	return fault(op)
}

func (s *bulkStore) rejection(id string) error {
	if s.reject == nil {
		return nil
	}
	return s.reject(id)
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
	if err := s.enter(ctx, "User"); err != nil {
		return nil, err
	}
	return s.Store.User(ctx, id)
}

func (s *bulkStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	if err := cmp.Or(s.enter(ctx, "Upsert"), s.rejection(u.ClerkID)); err != nil {
		return clerksync.Result{}, err
	}
	return s.Store.Upsert(ctx, u)
}

func (s *bulkStore) UpsertBatch(ctx context.Context, us []*clerksync.User) ([]clerksync.Result, error) {
	if err := s.enter(ctx, "UpsertBatch"); err != nil {
		return nil, err
	}
	results, errs := make([]clerksync.Result, len(us)), make(map[int]error)
	for i, u := range us {
		err := s.rejection(u.ClerkID)
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
	if err := cmp.Or(s.enter(ctx, "Deactivate"), s.rejection(id)); err != nil {
		return clerksync.Result{}, err
	}
	if s.after != nil {
		defer s.after("Deactivate")
	}
	return s.Store.Deactivate(ctx, id, at)
}

func (s *bulkStore) Restore(ctx context.Context, id string, before time.Time) (bool, error) {
	if err := cmp.Or(s.enter(ctx, "Restore"), s.rejection(id)); err != nil {
		return false, err
	}
	return s.Store.Restore(ctx, id, before)
}

func (s *bulkStore) Users(ctx context.Context, ids []string) (map[string]*clerksync.User, error) {
	if err := s.enter(ctx, "Users"); err != nil {
		return nil, err
	}
	return s.Store.Users(ctx, ids)
}

func (s *bulkStore) Stamps(ctx context.Context, ids []string) (map[string]clerksync.Stamp, error) {
	if err := s.enter(ctx, "Stamps"); err != nil {
		return nil, err
	}
	return s.Store.Stamps(ctx, ids)
}

// Undeleted yields the records in another order each time.
func (s *bulkStore) Undeleted(ctx context.Context) iter.Seq2[clerksync.Stamp, error] {
	return func(yield func(clerksync.Stamp, error) bool) {
		var stamps []clerksync.Stamp
		for stamp, err := range s.Store.Undeleted(ctx) {
			if err != nil {
				yield(clerksync.Stamp{}, err)
				return
			}
			stamps = append(stamps, stamp)
		}
		s.mu.Lock()
		s.order++
		random := rand.New(rand.NewPCG(s.order, 0))
		s.mu.Unlock()
		random.Shuffle(len(stamps), func(i, j int) { stamps[i], stamps[j] = stamps[j], stamps[i] })
		for _, stamp := range stamps {
			if err := cmp.Or(s.enter(ctx, "Undeleted"), context.Cause(ctx)); err != nil {
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
		ids[i] = fx.clerk.CreateUser(fakeclerk.NewUser{
			FirstName: "Ada", LastName: "Lovelace", Email: fmt.Sprintf("ada%d@example.com", fx.signedUp),
		})
		fx.signedUp++
		fx.clock.Advance(time.Second)
	}
	return ids
}

// backfill makes n users in Clerk and their records, all confirmed two hours ago.
func (fx *bulkFixture) backfill(t testing.TB, n int) []string {
	t.Helper()
	ids := fx.signUp(n)
	fx.reconcile(t, options{RequestsPerSecond: 1e6})
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

// record makes a record of a user whom Clerk may not have.
func (fx *bulkFixture) record(t testing.TB, id string) {
	t.Helper()
	u := &clerksync.User{ClerkID: id, Name: "Grace", ClerkUpdatedAt: t0.Add(-time.Hour), SyncedAt: t0}
	if _, err := fx.store.Store.Upsert(t.Context(), u); err != nil {
		t.Fatal(err)
	}
}

func (fx *bulkFixture) rename(t testing.TB, name string, ids ...string) {
	t.Helper()
	for _, id := range ids {
		fx.fixture.rename(t, id, name)
	}
}

// setEmail changes the user's address in Clerk.
func (fx *bulkFixture) setEmail(t testing.TB, id, address string) {
	t.Helper()
	if err := fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) {
		u.EmailAddresses[0].EmailAddress = address
	}); err != nil {
		t.Fatal(err)
	}
}

// updateSilently changes the user in Clerk without a new version.
func (fx *bulkFixture) updateSilently(t testing.TB, id string, change func(*fakeclerk.UserObject)) {
	t.Helper()
	if err := fx.clerk.UpdateUserSilently(id, change); err != nil {
		t.Fatal(err)
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

// deactivate marks the records deleted, as an event would.
func (fx *bulkFixture) deactivate(t testing.TB, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if _, err := fx.store.Store.Deactivate(t.Context(), id, fx.clock.Now()); err != nil {
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

// records returns the records of these users.
func (fx *bulkFixture) records(t testing.TB, ids []string) map[string]*clerksync.User {
	t.Helper()
	records, err := fx.store.Store.Users(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// reconcile runs Reconcile, which must succeed.
func (fx *bulkFixture) reconcile(t testing.TB, opts options) clerksync.Report {
	t.Helper()
	report, err := fx.Reconcile(t.Context(), opts)
	if err != nil {
		t.Fatalf("Reconcile: %v\n%+v", err, report)
	}
	return report
}

// reconcileSome runs Reconcile, which must come to its end, write some users and say in its error
// that it did not write others.
func (fx *bulkFixture) reconcileSome(t testing.TB, opts options) clerksync.Report {
	t.Helper()
	report, err := fx.Reconcile(t.Context(), opts)
	wantUnwritten(t, &report, err)
	if !report.Complete {
		t.Errorf("reports %+v", report)
	}
	return report
}

// wantUnwritten checks that the error counts the users who were not written.
func wantUnwritten(t testing.TB, report *clerksync.Report, err error) {
	t.Helper()
	if err == nil || report.InStep() || errors.Is(err, clerksync.ErrUnavailable) {
		t.Fatalf("Reconcile: %v\n%+v", err, report)
	}
	for _, n := range []int{report.Conflicts.Count, report.Unlinked.Count, report.Failed.Count} {
		if want := fmt.Sprintf("users not written: %d, ", n); n > 0 && !strings.Contains(err.Error(), want) {
			t.Errorf("Reconcile: %v, want %q", err, want)
		}
	}
	var conflict *clerksync.ConflictError
	if errors.As(err, &conflict) != (report.Conflicts.Count > 0) {
		t.Errorf("%d conflicts, and the error is %v", report.Conflicts.Count, err)
	}
}

// inStep checks, by whole records, that nothing is left to do.
func (fx *bulkFixture) inStep(t testing.TB) {
	t.Helper()
	before := fx.store.writes()
	report := fx.reconcile(t, options{DryRun: true, Force: true, Holdback: -1, MaxDeactivations: -1})
	if !report.InStep() {
		t.Errorf("not in step: %v, reason %q", counts(&report), report.Reason)
	}
	if fx.store.writes() != before {
		t.Error("the dry run wrote")
	}
}

// counts returns the Report's counts that are not zero.
func counts(r *clerksync.Report) map[string]int {
	all := map[string]int{
		"seen": r.Seen, "unchanged": r.Unchanged, "created": r.Created.Count, "updated": r.Updated.Count,
		"stale": r.Stale.Count, "ghosts": r.Ghosts.Count, "deactivated": r.Deactivated.Count,
		"tombstoned": r.Tombstoned.Count, "restored": r.Restored.Count, "conflicts": r.Conflicts.Count,
		"failed": r.Failed.Count, "unknown": r.Unknown.Count, "adopted": r.Adopted.Count, "unlinked": r.Unlinked.Count,
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

// deleteEvent applies the event of a deletion.
func deleteEvent(t *testing.T, fx *bulkFixture, id string) {
	t.Helper()
	data := json.RawMessage(fmt.Sprintf(`{"id":%q,"deleted":true}`, id))
	e := clerksync.Event{ID: "msg_1", Type: "user.deleted", Timestamp: fx.clock.Now(), Data: data}
	if _, err := fx.Apply(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

// isList reports whether a request is for a page of the list.
func isList(r *http.Request) bool {
	return r.URL.Path == "/v1/users" && !r.URL.Query().Has("user_id")
}
