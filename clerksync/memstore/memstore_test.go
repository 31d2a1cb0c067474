package memstore_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
	"github.com/clerksync/clerksync-go/clerksync/storetest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) clerksync.Store { return memstore.New() })
}

func TestConformanceBesideAnApp(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) clerksync.Store { return rawStore{memstore.New()} })
}

func TestConformanceWithUniqueEmail(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) clerksync.Store {
		s := memstore.New()
		s.UniqueEmail = true
		return s
	})
}

func TestIDsLookLikeObjectIDs(t *testing.T) {
	t.Parallel()
	s, other := memstore.New(), memstore.New()
	ids := make(map[string]bool)
	form := regexp.MustCompile(`^[0-9a-f]{24}$`)
	const users = 100
	for i := range users {
		u := &clerksync.User{ClerkID: fmt.Sprint("user_", i)}
		for _, store := range []*memstore.Store{s, other} {
			id := mustUpsert(t, store, u, clerksync.Created).ID
			if !form.MatchString(id) {
				t.Fatalf("ID %q is not 24 hex digits", id)
			}
			ids[id] = true
		}
	}
	if len(ids) != 2*users {
		t.Errorf("%d records have %d different IDs", 2*users, len(ids))
	}
}

func TestNow(t *testing.T) {
	t.Parallel()
	now := version.Add(123456 * time.Nanosecond).In(time.FixedZone("", 3600))
	s := memstore.New()
	s.Now = func() time.Time { return now }
	u := mustUpsert(t, s, &clerksync.User{ClerkID: "user_1", ClerkUpdatedAt: version}, clerksync.Created)
	if u.CreatedAt != version || u.UpdatedAt != version {
		t.Errorf("created at %v, updated at %v, want %v", u.CreatedAt, u.UpdatedAt, version)
	}
	now = version.Add(time.Hour)
	u = mustUpsert(t, s, &clerksync.User{ClerkID: "user_1", ClerkUpdatedAt: version, Name: "Ada"}, clerksync.Updated)
	if u.CreatedAt != version || u.UpdatedAt != now {
		t.Errorf("created at %v, updated at %v, want %v and %v", u.CreatedAt, u.UpdatedAt, version, now)
	}
	// The clock also decides which confirmations are from the future.
	ahead := &clerksync.User{ClerkID: "user_1", ClerkUpdatedAt: version, Name: "Ada", SyncedAt: now.Add(time.Minute)}
	u = mustUpsert(t, s, ahead, clerksync.Unchanged)
	if u.UpdatedAt != now {
		t.Errorf("a confirmation moved UpdatedAt to %v", u.UpdatedAt)
	}
	late := &clerksync.User{ClerkID: "user_1", ClerkUpdatedAt: version, Name: "Grace", SyncedAt: now}
	now = now.Add(time.Hour)
	mustUpsert(t, s, late, clerksync.Unchanged)
	now = now.Add(-time.Hour)
	mustUpsert(t, s, late, clerksync.Updated)
	if _, err := s.Deactivate(t.Context(), "user_1", time.Time{}); err != nil {
		t.Fatal(err)
	}
	if u := stored(t, s, "user_1"); u.DeletedAt != now {
		t.Errorf("Deactivate with a zero time: %v, want %v", u.DeletedAt, now)
	}
}

func TestReturnedRecordsAreCopies(t *testing.T) {
	t.Parallel()
	s := memstore.New()
	u := &clerksync.User{
		ClerkID: "user_1", Name: "Ada", Location: &clerksync.Location{City: "London"},
		Extra: map[string]any{"list": []any{"a"}},
	}
	want := mustUpsert(t, s, u, clerksync.Created).Clone()
	unchanged, err := s.Upsert(t.Context(), u)
	if err != nil || unchanged.User == nil {
		t.Fatalf("Upsert of the same: %+v, %v", unchanged, err)
	}
	one, err := s.User(t.Context(), "user_1")
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.Users(t.Context(), []string{"user_1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*clerksync.User{unchanged.User, one, all["user_1"]} {
		r.Name, r.Location.City, r.Extra["list"].([]any)[0] = "changed", "changed", "changed"
	}
	got, err := s.User(t.Context(), "user_1")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("the record is %+v, %v, want %+v", got, err, want)
	}
}

func TestEdit(t *testing.T) {
	t.Parallel()
	s := memstore.New()
	err := s.Edit("user_1", func(*clerksync.User) { t.Error("Edit without a record calls f") })
	if !errors.Is(err, clerksync.ErrNotFound) {
		t.Errorf("Edit without a record: %v, want ErrNotFound", err)
	}
	before := mustUpsert(t, s, &clerksync.User{ClerkID: "user_1", Name: "Ada", ClerkUpdatedAt: version}, clerksync.Created)
	var kept *clerksync.User
	err = s.Edit("user_1", func(u *clerksync.User) {
		kept = u
		u.ID, u.ClerkID, u.Partial, u.RoleFromClerk = "other", "user_2", true, true
		u.ExternalID, u.EmailProven = "65f0", true
		u.Role, u.IsActive = clerksync.RoleAdmin, false
		u.Extra = map[string]any{"seats": 3}
	})
	if err != nil {
		t.Fatal(err)
	}
	kept.Role = "changed"
	want := before.Clone()
	want.Role, want.IsActive, want.Extra = clerksync.RoleAdmin, false, map[string]any{"seats": int64(3)}
	if got, err := s.User(t.Context(), "user_1"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("the record is %+v, %v, want %+v", got, err, want)
	}
	if err := s.Edit("user_1", func(u *clerksync.User) { u.Extra["a.b"] = 1 }); err == nil {
		t.Error("Edit accepts an invalid Extra")
	}
	if got, err := s.User(t.Context(), "user_1"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("after a failed Edit the record is %+v, %v, want %+v", got, err, want)
	}
	if s.Len() != 1 {
		t.Errorf("Len is %d", s.Len())
	}
}

func TestUniqueEmail(t *testing.T) {
	t.Parallel()
	s := memstore.New()
	s.UniqueEmail = true
	user := func(id, email string, hours int) *clerksync.User {
		return &clerksync.User{ClerkID: id, Email: email, ClerkUpdatedAt: version.Add(time.Duration(hours) * time.Hour)}
	}
	conflicts := func(u *clerksync.User, holder string) {
		t.Helper()
		before, _ := s.User(t.Context(), u.ClerkID)
		_, err := s.Upsert(t.Context(), u)
		var ce *clerksync.ConflictError
		if !errors.As(err, &ce) || ce.Field != "email" || ce.Holder != holder {
			t.Errorf("Upsert with an e-mail address in use: %v, want a *ConflictError of email, held by %s", err, holder)
		}
		if after, _ := s.User(t.Context(), u.ClerkID); !reflect.DeepEqual(after, before) {
			t.Errorf("a conflict changed the record from %+v to %+v", before, after)
		}
	}
	mustUpsert(t, s, user("user_1", "ada@example.com", 1), clerksync.Created)
	mustUpsert(t, s, user("user_1", "ada@example.com", 2), clerksync.Updated)
	conflicts(user("user_2", "ada@example.com", 1), "user_1")
	mustUpsert(t, s, user("user_2", "", 1), clerksync.Created)
	mustUpsert(t, s, user("user_3", "", 1), clerksync.Created)
	conflicts(user("user_2", "ada@example.com", 2), "user_1")

	// A conflict in a batch does not stop the others.
	us := []*clerksync.User{user("user_2", "ada@example.com", 3), user("user_3", "grace@example.com", 3)}
	results, err := s.UpsertBatch(t.Context(), us)
	var be *clerksync.BatchError
	var ce *clerksync.ConflictError
	conflict := errors.As(err, &be) && len(be.Errs) == 1 && errors.As(be.Errs[0], &ce)
	if !conflict || results[1].Outcome != clerksync.Updated {
		t.Errorf("UpsertBatch with a conflict: %v, %v", results, err)
	}

	// A stale Upsert does not write the e-mail, so there is no conflict.
	mustUpsert(t, s, user("user_3", "ada@example.com", 0), clerksync.Stale)

	// A deleted user loses the address.
	if _, err := s.Deactivate(t.Context(), "user_1", version); err != nil {
		t.Fatal(err)
	}
	mustUpsert(t, s, user("user_2", "ada@example.com", 4), clerksync.Updated)
	gone, err := s.User(t.Context(), "user_1")
	if err != nil || gone.Email != "" || gone.DeletedAt.IsZero() {
		t.Errorf("the deleted record still has e-mail %q (deleted %v), %v", gone.Email, gone.DeletedAt, err)
	}
	conflicts(user("user_4", "ada@example.com", 1), "user_2")

	// What is omitted does not conflict.
	u := user("user_3", "ada@example.com", 9)
	u.Omit = []string{"email"}
	if got := mustUpsert(t, s, u, clerksync.Updated); got.Email != "grace@example.com" {
		t.Errorf("with the e-mail address omitted, it is %q", got.Email)
	}
}

func TestCauseOfADoneContext(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(boom)
	_, err := memstore.New().User(ctx, "user_1")
	if !errors.Is(err, context.Canceled) || !errors.Is(err, boom) {
		t.Errorf("User: %v, want an error matching context.Canceled and its cause", err)
	}
}

func TestUndeletedOfAnEmptyStoreReportsADoneContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var errs []error
	for _, err := range memstore.New().Undeleted(ctx) {
		errs = append(errs, err)
	}
	if len(errs) != 1 || !errors.Is(errs[0], context.Canceled) {
		t.Errorf("Undeleted yields %v, want one error matching context.Canceled", errs)
	}
}

// TestEveryClerkFieldIsKept writes each field that Clerk owns alone. If Clerk comes to own
// another field, this package must know it.
func TestEveryClerkFieldIsKept(t *testing.T) {
	t.Parallel()
	values := map[reflect.Kind]any{reflect.String: "x", reflect.Bool: true, reflect.Struct: version}
	empty := &clerksync.User{ClerkID: "user_1", RoleFromClerk: true}
	tried := 0
	for path := range empty.ClerkFields() {
		tried++
		f, known := fields(new(clerksync.User))[path]
		if !known {
			t.Errorf("the test does not know %s", path)
			continue
		}
		u := &clerksync.User{ClerkID: "user_1", RoleFromClerk: true}
		if err := set(u, path, values[reflect.TypeOf(f).Elem().Kind()]); err != nil {
			t.Fatal(err)
		}
		s := memstore.New()
		mustUpsert(t, s, u, clerksync.Created)
		got, err := s.User(t.Context(), "user_1")
		if err != nil {
			t.Fatal(err)
		}
		got.RoleFromClerk = true // not stored; without it ClerkFields leaves role out
		want, kept := maps.Collect(u.ClerkFields()), maps.Collect(got.ClerkFields())
		if want[path] == nil || !reflect.DeepEqual(kept, want) {
			t.Errorf("with only %s: kept %v, want %v", path, kept, want)
		}
	}
	if tried < 14 {
		t.Errorf("ClerkFields yields %d paths", tried)
	}
}
