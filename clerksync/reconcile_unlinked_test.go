package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/internal/retry"
)

// legacyStore is a Store that also has records without a Clerk id.
type legacyStore struct {
	*bulkStore
	emails []string // of these records
	legacy bool
	stamp  func(*clerksync.Stamp) // changes what Undeleted yields
}

func (s *legacyStore) HasLegacy() bool { return s.legacy }

func (s *legacyStore) UnlinkedEmails(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, email := range append(s.emails, "the end") {
			err := s.enter(ctx, "UnlinkedEmails")
			if err == nil && email == "the end" {
				return
			}
			if !yield(email, err) || err != nil {
				return
			}
		}
	}
}

func (s *legacyStore) Undeleted(ctx context.Context) iter.Seq2[clerksync.Stamp, error] {
	return func(yield func(clerksync.Stamp, error) bool) {
		for stamp, err := range s.bulkStore.Undeleted(ctx) {
			if s.stamp != nil {
				s.stamp(&stamp)
			}
			if !yield(stamp, err) {
				return
			}
		}
	}
}

// adoptingStore is a legacyStore that adopts. would says what an Upsert of each user does.
type adoptingStore struct {
	*legacyStore
	would map[string]clerksync.Adoption
	asked []string
}

func (s *adoptingStore) Adoptions(ctx context.Context, us []*clerksync.User) ([]clerksync.Adoption, error) {
	if err := s.enter(ctx, "Adoptions"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	adoptions := make([]clerksync.Adoption, len(us))
	for i, u := range us {
		s.asked = append(s.asked, u.ClerkID)
		adoptions[i] = s.would[u.ClerkID]
	}
	return adoptions, nil
}

func (s *adoptingStore) UpsertBatch(ctx context.Context, us []*clerksync.User) ([]clerksync.Result, error) {
	results, errs := make([]clerksync.Result, len(us)), make(map[int]error)
	var allowed []*clerksync.User
	for i, u := range us {
		if errs[i] = s.would[u.ClerkID].Err; errs[i] == nil {
			delete(errs, i)
			allowed = append(allowed, u)
		}
	}
	done, err := s.bulkStore.UpsertBatch(ctx, allowed)
	if err != nil {
		return nil, err
	}
	for i, u := range us {
		if errs[i] != nil {
			continue
		}
		results[i], done = done[0], done[1:]
		if s.would[u.ClerkID].By != "" && results[i].Outcome == clerksync.Created {
			results[i].Outcome = clerksync.Adopted
		}
	}
	if len(errs) > 0 {
		return results, &clerksync.BatchError{Errs: errs}
	}
	return results, nil
}

func (s *adoptingStore) DeactivateExternal(
	ctx context.Context, id, _ string, at time.Time,
) (clerksync.Result, error) {
	return s.Deactivate(ctx, id, at)
}

var (
	_ clerksync.LegacyStore = (*legacyStore)(nil)
	_ clerksync.AdoptStore  = (*adoptingStore)(nil)
)

// newLegacyFixture is a newBulkFixture whose Store has records without a Clerk id.
func newLegacyFixture(t testing.TB, emails ...string) (*bulkFixture, *legacyStore) {
	t.Helper()
	fx := newBulkFixture(t, nil)
	s := &legacyStore{bulkStore: fx.store, emails: emails}
	fx.Syncer = fx.syncer(t, func(c *clerksync.Config) { c.Store = s })
	return fx, s
}

func newAdoptFixture(t testing.TB, emails ...string) (*bulkFixture, *adoptingStore) {
	t.Helper()
	fx, legacy := newLegacyFixture(t, emails...)
	s := &adoptingStore{legacyStore: legacy, would: make(map[string]clerksync.Adoption)}
	fx.Syncer = fx.syncer(t, func(c *clerksync.Config) { c.Store = s })
	return fx, s
}

// wantUnlinked checks a run that left users out, and what its error matches.
func wantUnlinked(t testing.TB, report *clerksync.Report, err error) {
	t.Helper()
	wantUnwritten(t, report, err)
	if errors.Is(err, clerksync.ErrUnlinked) != (report.Unlinked.Count > 0) || !report.Complete {
		t.Errorf("%v, reports %+v", err, report)
	}
}

// TestReconcileUnlinked has records without a Clerk id. No user is created beside one of them,
// whatever else a run does.
func TestReconcileUnlinked(t *testing.T) {
	t.Parallel()
	for _, dry := range []bool{false, true} {
		for _, force := range []bool{false, true} {
			t.Run(fmt.Sprint("dry ", dry, " force ", force), func(t *testing.T) {
				t.Parallel()
				// ada0 has a record, so it does not matter that an unlinked one has her address.
				fx, s := newLegacyFixture(t)
				ids := fx.backfill(t, 1)
				s.emails = []string{"", "ada0@example.com", "ADA1@Example.com", "", "other@example.com", " ada4@example.com"}
				fx.rename(t, "Augusta", ids[0])
				ids = append(ids, fx.signUp(4)...)
				ids = append(ids, fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "No address"}))
				want := []string{ids[1], ids[4]}

				report, err := fx.Reconcile(t.Context(), options{DryRun: dry, Force: force, PageSize: 2})
				wantUnlinked(t, &report, err)
				wantCounts(t, report, tally{"seen": 6, "updated": 1, "created": 3, "unlinked": 2})
				if got := slices.Sorted(slices.Values(report.Unlinked.IDs)); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
					t.Errorf("unlinked are %v, want %v", got, want)
				}
				if text := err.Error(); strings.Contains(text, "@") || !strings.Contains(text, "EXISTING_USERS.md") {
					t.Errorf("the error is %s", text)
				}
				for id := range fx.records(t, want) {
					t.Errorf("%s was created", id)
				}
				if n := len(fx.records(t, ids)); n != 4 && !dry || dry && n != 1 {
					t.Errorf("%d records", n)
				}

				ignoring := options{DryRun: dry, Force: force, IgnoreUnlinked: true}
				report = fx.reconcile(t, ignoring)
				if left := 2; report.Unlinked.Count != 0 || !dry && report.Created.Count != left || dry && report.Created.Count != 3+left {
					t.Errorf("ignoring them, reports %+v", report)
				}
			})
		}
	}
}

// A user who comes from somewhere else than the list is not created beside a record either.
func TestReconcileUnlinkedOnAllPaths(t *testing.T) {
	t.Parallel()
	fx, s := newLegacyFixture(t, "ada1@example.com")
	fx.store.UniqueEmail = true
	ids := fx.backfill(t, 1)
	// The new user's address is ada0's: a conflict. When it is tried again, it is another one.
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Eve", Email: "ada0@example.com"})
	fx.request = func(r *http.Request) {
		if r.URL.Query().Has("user_id") && s.count("UpsertBatch") > 0 {
			fx.setEmail(t, id, "ada1@example.com")
		}
	}
	report, err := fx.Reconcile(t.Context(), options{PageSize: 1, Writers: 1})
	wantUnlinked(t, &report, err)
	wantCounts(t, report, tally{"seen": 2, "unchanged": 1, "unlinked": 1})
	if len(fx.records(t, append(ids, id))) != 1 {
		t.Error("a user was created beside a record")
	}
}

// Without records of the app's, one pass over the Store is all that a run does more.
func TestReconcileUnlinkedCosts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		opts   options
		emails []string
		calls  int // of UnlinkedEmails, one for each record and one for the end
		asks   int // calls of Adoptions
	}{
		"no such records":             {options{}, nil, 1, 0},
		"dry run":                     {options{DryRun: true}, nil, 1, 0},
		"ignored":                     {options{IgnoreUnlinked: true}, []string{"ada0@example.com"}, 0, 0},
		"ignored, to say who adopts":  {options{IgnoreUnlinked: true, DryRun: true}, []string{""}, 2, 1},
		"dry run, to say who adopts":  {options{DryRun: true}, []string{"other@example.com"}, 2, 1},
		"records of others":           {options{}, []string{"other@example.com"}, 2, 0},
		"the address of one new user": {options{}, []string{"ada1@example.com"}, 2, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx, s := newAdoptFixture(t, tt.emails...)
			ids := fx.signUp(3)
			s.would[ids[1]] = clerksync.Adoption{By: clerksync.ByEmail}
			report := fx.reconcile(t, tt.opts)
			if n := s.count("UnlinkedEmails"); n != tt.calls {
				t.Errorf("%d calls of UnlinkedEmails, want %d", n, tt.calls)
			}
			if n := s.count("Adoptions"); n != tt.asks {
				t.Errorf("%d calls of Adoptions, want %d", n, tt.asks)
			}
			if report.Created.Count+report.Adopted.Count != 3 {
				t.Errorf("reports %+v", report)
			}
			wantAsked := map[bool]int{true: len(ids), false: tt.asks}[tt.opts.DryRun && tt.asks > 0]
			if len(s.asked) != wantAsked {
				t.Errorf("asked about %v, want %d", s.asked, wantAsked)
			}
		})
	}
}

// Once the Store has shown that it looks for addresses, a run that writes leaves that to it, but for
// addresses that the Store would not find.
func TestReconcileAsksUntilItKnows(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		opts  options
		first clerksync.Adoption
		last  string // ada3's address in its record
		asked int
	}{
		"adopted by address":       {options{}, clerksync.Adoption{By: clerksync.ByEmail}, "ada3@example.com", 1},
		"unlinked by address":      {options{}, clerksync.Adoption{Err: clerksync.ErrUnlinked}, "ada3@example.com", 1},
		"an address in upper case": {options{}, clerksync.Adoption{By: clerksync.ByEmail}, "ADA3@example.com", 2},
		"adopted by external id":   {options{}, clerksync.Adoption{By: clerksync.ByExternalID}, "ada3@example.com", 4},
		"dry run":                  {options{DryRun: true}, clerksync.Adoption{By: clerksync.ByEmail}, "ada3@example.com", 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx, s := newAdoptFixture(t, "ada0@example.com", "ada1@example.com", "ada2@example.com", tt.last)
			ids := fx.signUp(4)
			for _, id := range ids {
				s.would[id] = clerksync.Adoption{By: tt.first.By, Err: tt.first.Err}
			}
			tt.opts.PageSize, tt.opts.Writers = 1, 1
			_, _ = fx.Reconcile(t.Context(), tt.opts)
			if len(s.asked) != tt.asked {
				t.Errorf("asked about %d users, want %d", len(s.asked), tt.asked)
			}
		})
	}
}

// TestReconcileAdopts compares what a dry run foretells with what the run does.
func TestReconcileAdopts(t *testing.T) {
	t.Parallel()
	for _, force := range []bool{false, true} {
		t.Run(fmt.Sprint("force ", force), func(t *testing.T) {
			t.Parallel()
			fx, s := newAdoptFixture(t, "ada0@example.com", "ada1@example.com", "ADA3@example.com", "ada4@example.com", "ada5@example.com")
			ids := fx.signUp(8)
			unlinked := &clerksync.ConflictError{Field: "email", Err: clerksync.ErrUnlinked}
			s.would = map[string]clerksync.Adoption{
				ids[0]: {By: clerksync.ByEmail},
				ids[1]: {Err: unlinked},
				ids[2]: {By: clerksync.ByExternalID}, // the record has no address
				// Nothing is known of ids[3], whose address is in other letters, and of ids[6] and ids[7].
				ids[4]: {By: clerksync.ByExternalID, Err: &clerksync.ConflictError{Field: "externalId", Holder: "user_other"}},
				ids[5]: {By: clerksync.ByEmail, Err: fmt.Errorf("too large: %w", clerksync.ErrRejected)},
			}
			want := tally{"seen": 8, "adopted": 2, "unlinked": 2, "created": 2, "conflicts": 1, "failed": 1}
			for _, dry := range []bool{true, false} {
				report, err := fx.Reconcile(t.Context(), options{DryRun: dry, Force: force, PageSize: 4})
				wantUnlinked(t, &report, err)
				wantCounts(t, report, want)
				if !slices.Equal(slices.Sorted(slices.Values(report.Adopted.IDs)), slices.Sorted(slices.Values([]string{ids[0], ids[2]}))) {
					t.Errorf("dry %t: adopted are %v", dry, report.Adopted.IDs)
				}
				if n := len(fx.records(t, ids)); dry && n != 0 || !dry && n != 4 {
					t.Errorf("dry %t: %d records", dry, n)
				}
				if report.InStep() {
					t.Errorf("dry %t: in step", dry)
				}
			}
		})
	}
}

// A dry run that would only adopt is not in step, and has no error.
func TestReconcileAdoptionIsAChange(t *testing.T) {
	t.Parallel()
	fx, s := newAdoptFixture(t, "ada0@example.com")
	id := fx.signUp(1)[0]
	s.would[id] = clerksync.Adoption{By: clerksync.ByEmail}
	if report := fx.reconcile(t, options{DryRun: true}); report.InStep() || report.Adopted.Count != 1 {
		t.Errorf("reports %+v", report)
	}
	fx.reconcile(t, options{})
	if report := fx.reconcile(t, options{DryRun: true}); !report.InStep() {
		t.Errorf("afterwards reports %+v", report)
	}
}

// The Store has the last word: it may find a record that came after the scan. Such a user is not
// a conflict, which would be tried again.
func TestReconcileStoreFindsUnlinked(t *testing.T) {
	t.Parallel()
	for _, ignore := range []bool{false, true} {
		fx, s := newAdoptFixture(t)
		ids := fx.signUp(3)
		s.would[ids[1]] = clerksync.Adoption{Err: &clerksync.ConflictError{Field: "email", Err: clerksync.ErrUnlinked}}
		report, err := fx.Reconcile(t.Context(), options{IgnoreUnlinked: ignore})
		wantUnlinked(t, &report, err)
		wantCounts(t, report, tally{"seen": 3, "created": 2, "unlinked": 1})
		if n := fx.store.count("UpsertBatch"); n != 1 {
			t.Errorf("%d calls of UpsertBatch, want 1", n)
		}
	}
}

// A Store that adopts and does not know its unlinked records is asked about each new user of a dry
// run.
func TestReconcileAdoptsWithoutScan(t *testing.T) {
	t.Parallel()
	fx, s := newAdoptFixture(t, "ada0@example.com")
	ids := fx.signUp(2)
	s.would[ids[0]] = clerksync.Adoption{By: clerksync.ByExternalID}
	syncer := fx.syncer(t, func(c *clerksync.Config) { c.Store = withoutScan{s.bulkStore, s} })
	report, err := syncer.Reconcile(t.Context(), options{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	wantCounts(t, report, tally{"seen": 2, "adopted": 1, "created": 1})
}

// withoutScan is an AdoptStore that is not a LegacyStore.
type withoutScan struct {
	*bulkStore
	adopts *adoptingStore
}

func (s withoutScan) Adoptions(ctx context.Context, us []*clerksync.User) ([]clerksync.Adoption, error) {
	return s.adopts.Adoptions(ctx, us)
}

func (s withoutScan) DeactivateExternal(ctx context.Context, id, external string, at time.Time) (clerksync.Result, error) {
	return s.adopts.DeactivateExternal(ctx, id, external, at)
}

// TestReconcileUnlinkedFaults lets the Store fail, and get stuck, in the calls that are about
// unlinked records. A failure that passes changes nothing. One that stays ends the run before it
// writes.
func TestReconcileUnlinkedFaults(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"UnlinkedEmails", "Adoptions"} {
		for _, stays := range []bool{false, true} {
			t.Run(fmt.Sprint(op, " stays ", stays), func(t *testing.T) {
				t.Parallel()
				fx, s := newAdoptFixture(t, "", "ada1@example.com")
				fx.signUp(3)
				failed := 0
				fx.store.fault = func(called string) error {
					if called == op && (stays || failed < 2 && s.count(op) > 1 || op == "Adoptions" && failed < 2) {
						failed++
						return errDown
					}
					return nil
				}
				began := fx.clock.Now()
				report, err := fx.Reconcile(t.Context(), options{})
				if failed == 0 {
					t.Fatal("nothing failed")
				}
				if !stays {
					wantUnlinked(t, &report, err)
					wantCounts(t, report, tally{"seen": 3, "created": 2, "unlinked": 1})
					return
				}
				if !errors.Is(err, clerksync.ErrUnavailable) || report.Complete || fx.store.writes() != 0 {
					t.Errorf("%v after %d writes, reports %+v", err, fx.store.writes(), report)
				}
				if took := fx.clock.Now().Sub(began); took > 2*retry.GiveUpAfter {
					t.Errorf("gave up after %v", took)
				}
			})
		}
	}
}

// A Store may read millions of records before it comes to one without a Clerk id. One that never
// answers ends the run all the same.
func TestReconcileUnlinkedTakesLong(t *testing.T) {
	t.Parallel()
	for _, never := range []bool{false, true} {
		fx, _ := newLegacyFixture(t, "ada1@example.com")
		fx.signUp(3)
		fx.store.hang = func(ctx context.Context, op string) error {
			if op != "UnlinkedEmails" {
				return nil
			}
			fx.clock.Advance(5 * clerksync.StoreTimeout)
			for never && ctx.Err() == nil {
				fx.clock.Advance(clerksync.StoreTimeout)
			}
			return context.Cause(ctx)
		}
		report, err := fx.Reconcile(t.Context(), options{})
		if !never {
			wantUnlinked(t, &report, err)
			continue
		}
		if !errors.Is(err, clerksync.ErrUnavailable) || !strings.Contains(err.Error(), "no answer within 30m0s") ||
			fx.store.writes() != 0 {
			t.Errorf("%v, reports %+v", err, report)
		}
	}
}

// A ghost sweep right after an adoption: the record is old, and Clerk's list may not have the user
// yet.
func TestReconcileHoldsBackAdopted(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		stamp func(s *clerksync.Stamp, now time.Time)
		ghost bool
	}{
		"old":                          {func(*clerksync.Stamp, time.Time) {}, true},
		"adopted":                      {func(s *clerksync.Stamp, now time.Time) { s.AdoptedAt = now.Add(-time.Minute) }, false},
		"adopted long ago":             {func(s *clerksync.Stamp, now time.Time) { s.AdoptedAt = now.Add(-time.Hour) }, true},
		"confirmed":                    {func(s *clerksync.Stamp, now time.Time) { s.SyncedAt = now.Add(-time.Minute) }, false},
		"confirmed by a wrong clock":   {func(s *clerksync.Stamp, now time.Time) { s.SyncedAt = now.Add(24 * time.Hour) }, true},
		"adopted by a late event":      {func(s *clerksync.Stamp, now time.Time) { s.SyncedAt, s.AdoptedAt = now.Add(-time.Hour), now }, false},
		"adopted, created before 1970": {func(s *clerksync.Stamp, now time.Time) { s.CreatedAt, s.AdoptedAt = time.Time{}, now }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx, s := newLegacyFixture(t)
			fx.backfill(t, 3)
			ghost := fx.ghosts(t, 1)[0]
			s.stamp = func(stamp *clerksync.Stamp) {
				if stamp.ClerkID == ghost {
					tt.stamp(stamp, fx.clock.Now())
				}
			}
			report := fx.reconcile(t, options{})
			if held := report.HeldBack == 1; held == tt.ghost || fx.get(t, ghost).DeletedAt.IsZero() == tt.ghost {
				t.Errorf("reports %+v", report)
			}
		})
	}
}

// A run cannot be resumed with another IgnoreUnlinked: it would not come back to the users whom
// the run before it left out.
func TestReconcileResumeUnlinked(t *testing.T) {
	t.Parallel()
	fx, _ := newLegacyFixture(t, "ada1@example.com")
	ids := fx.signUp(6)
	fx.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
		if r.URL.Query().Get("starting_after") == ids[3] {
			return fakeclerk.ErrorFault(401, "clerk_key_invalid")
		}
		return nil
	})
	report, err := fx.Reconcile(t.Context(), options{PageSize: 2, Writers: 1})
	if err == nil || report.Resume == "" || report.Unlinked.Count != 1 {
		t.Fatalf("%v, reports %+v", err, report)
	}
	fx.clerk.SetFault(nil)
	_, err = fx.Reconcile(t.Context(), options{Resume: report.Resume, IgnoreUnlinked: true})
	if err == nil || !strings.Contains(err.Error(), "Restore or IgnoreUnlinked") {
		t.Errorf("resumed: %v", err)
	}
	fx.reconcile(t, options{Resume: report.Resume})
}

// New warns once of records that clerksync has never written, and says what to read and to run.
func TestNewWarnsOfLegacy(t *testing.T) {
	t.Parallel()
	for _, legacy := range []bool{false, true} {
		fx := newBulkFixture(t, nil)
		fx.syncer(t, func(c *clerksync.Config) { c.Store = &legacyStore{bulkStore: fx.store, legacy: legacy} })
		logs := fx.logs.String()
		warned := strings.Count(logs, "has records that clerksync has never written")
		if warned != map[bool]int{true: 1}[legacy] {
			t.Errorf("legacy %t: %d warnings in\n%s", legacy, warned, logs)
		}
		if legacy && (!strings.Contains(logs, "mongostore/EXISTING_USERS.md") || !strings.Contains(logs, "clerksync inspect")) {
			t.Errorf("the warning is\n%s", logs)
		}
	}
}
