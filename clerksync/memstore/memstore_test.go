package memstore_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
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

// rawStore lets the suite write as an app does. A record in memory holds no
// other fields and types than a clerksync.User has.
type rawStore struct{ *memstore.Store }

var _ storetest.RawStore = rawStore{}

// SetFields implements storetest.RawStore.
func (s rawStore) SetFields(ctx context.Context, clerkID string, fields map[string]any) error {
	for path, v := range fields {
		if err := set(new(clerksync.User), path, v); err != nil {
			return err
		}
	}
	_, err := s.User(ctx, clerkID)
	made := errors.Is(err, clerksync.ErrNotFound)
	if made {
		_, err = s.Upsert(ctx, &clerksync.User{ClerkID: clerkID})
	}
	if err != nil {
		return err
	}
	return s.Edit(clerkID, func(u *clerksync.User) {
		if made {
			u.CreatedAt, u.UpdatedAt = time.Time{}, time.Time{}
		}
		for path, v := range fields {
			if err := set(u, path, v); err != nil {
				panic(err)
			}
		}
	})
}

// Fields implements storetest.RawStore.
func (s rawStore) Fields(ctx context.Context, clerkID string) (map[string]any, error) {
	u, err := s.User(ctx, clerkID)
	if err != nil {
		return nil, err
	}
	record := map[string]any{"clerkId": u.ClerkID}
	for path, f := range fields(u) {
		v := reflect.ValueOf(f).Elem()
		_, isBool := f.(*bool)
		// A tombstone has none of Clerk's fields, not even the flags.
		if v.IsZero() && (!isBool || path != "isActive" && !u.DeletedAt.IsZero() && u.ClerkUpdatedAt.IsZero()) {
			continue
		}
		in := record
		if head, rest, nested := strings.Cut(path, "."); nested {
			if record[head] == nil {
				record[head] = make(map[string]any)
			}
			in, path = record[head].(map[string]any), rest
		}
		in[path] = v.Interface()
	}
	for name, v := range u.Extra {
		record[name] = v
	}
	return record, nil
}

// fields are pointers to what a record holds, by path.
func fields(u *clerksync.User) map[string]any {
	if u.Location == nil {
		u.Location = new(clerksync.Location)
	}
	return map[string]any{
		"email": &u.Email, "role": &u.Role, "name": &u.Name, "isActive": &u.IsActive, "banned": &u.Banned,
		"emailVerified": &u.EmailVerified, "phoneVerified": &u.PhoneVerified,
		"profile.firstName": &u.Profile.FirstName, "profile.lastName": &u.Profile.LastName, "profile.fullName": &u.Profile.FullName,
		"profile.imageUrl": &u.Profile.ImageURL, "profile.phoneNumber": &u.Profile.PhoneNumber,
		"profile.birthday": &u.Profile.Birthday, "profile.gender": &u.Profile.Gender,
		"location.country": &u.Location.Country, "location.city": &u.Location.City,
		"location.state": &u.Location.State, "location.timezone": &u.Location.Timezone,
		"lastSignInAt": &u.LastSignInAt, "createdAt": &u.CreatedAt, "updatedAt": &u.UpdatedAt,
		"clerkCreatedAt": &u.ClerkCreatedAt, "clerkUpdatedAt": &u.ClerkUpdatedAt,
		"syncedAt": &u.SyncedAt, "deletedAt": &u.DeletedAt,
	}
}

// set writes what a record can hold: its fields, and values of Extra.
func set(u *clerksync.User, path string, value any) error {
	f, known := fields(u)[path]
	extra := path == "plan" || path == "seats"
	switch {
	case known && value == nil:
		reflect.ValueOf(f).Elem().SetZero()
	case known && reflect.TypeOf(value).ConvertibleTo(reflect.TypeOf(f).Elem()) && reflect.TypeOf(value).Kind() == reflect.TypeOf(f).Elem().Kind():
		reflect.ValueOf(f).Elem().Set(reflect.ValueOf(value).Convert(reflect.TypeOf(f).Elem()))
	case extra && value == nil:
		delete(u.Extra, path)
	case extra:
		if u.Extra == nil {
			u.Extra = make(map[string]any)
		}
		u.Extra[path] = value
	default:
		return fmt.Errorf("%s of %T: %w", path, value, errors.ErrUnsupported)
	}
	return nil
}

func mustUpsert(t *testing.T, s *memstore.Store, u *clerksync.User, want clerksync.Outcome) *clerksync.User {
	t.Helper()
	res, err := s.Upsert(t.Context(), u)
	if err != nil {
		t.Fatalf("Upsert: %v", err)
	}
	if res.Outcome != want {
		t.Fatalf("Upsert: outcome %v, want %v", res.Outcome, want)
	}
	return res.User
}

var version = time.Date(2025, time.May, 1, 12, 0, 0, 0, time.UTC)

func TestIDsLookLikeObjectIDs(t *testing.T) {
	t.Parallel()
	s, other := memstore.New(), memstore.New()
	ids := make(map[string]bool)
	for i := range 1000 {
		u := &clerksync.User{ClerkID: fmt.Sprint("user_", i)}
		for _, id := range []string{mustUpsert(t, s, u, clerksync.Created).ID, mustUpsert(t, other, u, clerksync.Created).ID} {
			if !regexp.MustCompile(`^[0-9a-f]{24}$`).MatchString(id) {
				t.Fatalf("ID %q is not 24 hex digits", id)
			}
			ids[id] = true
		}
	}
	if len(ids) != 2000 {
		t.Errorf("2000 records have %d IDs", len(ids))
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
	u = mustUpsert(t, s, &clerksync.User{ClerkID: "user_1", ClerkUpdatedAt: version, Name: "Ada", SyncedAt: now.Add(time.Minute)}, clerksync.Unchanged)
	if u.UpdatedAt != now {
		t.Errorf("a confirmation moved UpdatedAt to %v", u.UpdatedAt)
	}
	late := &clerksync.User{ClerkID: "user_1", ClerkUpdatedAt: version, Name: "Grace", SyncedAt: now}
	now = now.Add(time.Hour)
	mustUpsert(t, s, late, clerksync.Unchanged)
	now = now.Add(-time.Hour)
	mustUpsert(t, s, late, clerksync.Updated)
	res, err := s.Deactivate(t.Context(), "user_1", time.Time{})
	if err != nil || res.User.DeletedAt != now {
		t.Errorf("Deactivate at no time: %v, %v, want %v", res.User.DeletedAt, err, now)
	}
}

func TestWhatIsReturnedIsTheCallers(t *testing.T) {
	t.Parallel()
	s := memstore.New()
	u := &clerksync.User{ClerkID: "user_1", Name: "Ada", Location: &clerksync.Location{City: "London"}, Extra: map[string]any{"list": []any{"a"}}}
	want := mustUpsert(t, s, u, clerksync.Created).Clone()
	returned := []*clerksync.User{mustUpsert(t, s, u, clerksync.Unchanged)}
	one, err := s.User(t.Context(), "user_1")
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.Users(t.Context(), []string{"user_1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range append(returned, one, all["user_1"]) {
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
	err := s.Edit("user_1", func(*clerksync.User) { t.Error("Edit of no record calls f") })
	if !errors.Is(err, clerksync.ErrNotFound) {
		t.Errorf("Edit of no record: %v, want ErrNotFound", err)
	}
	before := mustUpsert(t, s, &clerksync.User{ClerkID: "user_1", Name: "Ada", ClerkUpdatedAt: version}, clerksync.Created)
	var kept *clerksync.User
	err = s.Edit("user_1", func(u *clerksync.User) {
		kept = u
		u.ID, u.ClerkID, u.Partial, u.RoleFromClerk = "other", "user_2", true, true
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
		t.Error("Edit takes an invalid Extra")
	}
	if got, err := s.User(t.Context(), "user_1"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("after an Edit that failed the record is %+v, %v, want %+v", got, err, want)
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
	conflicts := func(u *clerksync.User) {
		t.Helper()
		before, _ := s.User(t.Context(), u.ClerkID)
		_, err := s.Upsert(t.Context(), u)
		var ce *clerksync.ConflictError
		if !errors.As(err, &ce) || ce.Field != "email" {
			t.Errorf("Upsert of an e-mail in use: %v, want a *ConflictError of email", err)
		}
		if after, _ := s.User(t.Context(), u.ClerkID); !reflect.DeepEqual(after, before) {
			t.Errorf("a conflict changed the record from %+v to %+v", before, after)
		}
	}
	mustUpsert(t, s, user("user_1", "ada@example.com", 1), clerksync.Created)
	mustUpsert(t, s, user("user_1", "ada@example.com", 2), clerksync.Updated)
	conflicts(user("user_2", "ada@example.com", 1))
	mustUpsert(t, s, user("user_2", "", 1), clerksync.Created)
	mustUpsert(t, s, user("user_3", "", 1), clerksync.Created)
	conflicts(user("user_2", "ada@example.com", 2))

	// In a batch the others are written.
	us := []*clerksync.User{user("user_2", "ada@example.com", 3), user("user_3", "grace@example.com", 3)}
	results, err := s.UpsertBatch(t.Context(), us)
	var be *clerksync.BatchError
	var ce *clerksync.ConflictError
	if !errors.As(err, &be) || len(be.Errs) != 1 || !errors.As(be.Errs[0], &ce) || results[1].Outcome != clerksync.Updated {
		t.Errorf("UpsertBatch with a conflict: %v, %v", results, err)
	}

	// A stale Upsert does not write the e-mail, so there is no conflict.
	mustUpsert(t, s, user("user_3", "ada@example.com", 0), clerksync.Stale)

	// A deleted user gives it up.
	if _, err := s.Deactivate(t.Context(), "user_1", version); err != nil {
		t.Fatal(err)
	}
	mustUpsert(t, s, user("user_2", "ada@example.com", 4), clerksync.Updated)
	gone, err := s.User(t.Context(), "user_1")
	if err != nil || gone.Email != "" || gone.DeletedAt.IsZero() {
		t.Errorf("the deleted record still has e-mail %q (deleted %v), %v", gone.Email, gone.DeletedAt, err)
	}
	conflicts(user("user_4", "ada@example.com", 1))
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
