package memstore_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
	"github.com/clerksync/clerksync-go/clerksync/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rawStore lets the suite write as an app does. A record in memory holds only the fields and
// types of a clerksync.User.
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
	created := errors.Is(err, clerksync.ErrNotFound)
	if created {
		_, err = s.Upsert(ctx, &clerksync.User{ClerkID: clerkID})
	}
	if err != nil {
		return err
	}
	return s.Edit(clerkID, func(u *clerksync.User) {
		if created {
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
		// A tombstone does not have Clerk's fields, not even the flags.
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

// fields returns pointers to the fields of a record, by path.
func fields(u *clerksync.User) map[string]any {
	if u.Location == nil {
		u.Location = new(clerksync.Location)
	}
	return map[string]any{
		"email": &u.Email, "role": &u.Role, "name": &u.Name, "isActive": &u.IsActive, "banned": &u.Banned,
		"emailVerified": &u.EmailVerified, "phoneVerified": &u.PhoneVerified,
		"profile.firstName": &u.Profile.FirstName, "profile.lastName": &u.Profile.LastName,
		"profile.fullName": &u.Profile.FullName, "profile.imageUrl": &u.Profile.ImageURL,
		"profile.phoneNumber": &u.Profile.PhoneNumber,
		"profile.birthday":    &u.Profile.Birthday, "profile.gender": &u.Profile.Gender,
		"location.country": &u.Location.Country, "location.city": &u.Location.City,
		"location.state": &u.Location.State, "location.timezone": &u.Location.Timezone,
		"lastSignInAt": &u.LastSignInAt, "createdAt": &u.CreatedAt, "updatedAt": &u.UpdatedAt,
		"clerkCreatedAt": &u.ClerkCreatedAt, "clerkUpdatedAt": &u.ClerkUpdatedAt,
		"syncedAt": &u.SyncedAt, "deletedAt": &u.DeletedAt,
	}
}

// set writes a field of the record, or a value of Extra, which holds "plan" and "seats".
func set(u *clerksync.User, path string, value any) error {
	if path == "plan" || path == "seats" {
		setExtra(u, path, value)
		return nil
	}
	f, known := fields(u)[path]
	if !known {
		return unsupported(path, value)
	}
	field := reflect.ValueOf(f).Elem()
	if value == nil {
		field.SetZero()
		return nil
	}
	v := reflect.ValueOf(value)
	if v.Kind() != field.Kind() || !v.CanConvert(field.Type()) {
		return unsupported(path, value)
	}
	field.Set(v.Convert(field.Type()))
	return nil
}

func setExtra(u *clerksync.User, name string, value any) {
	if value == nil {
		delete(u.Extra, name)
		return
	}
	if u.Extra == nil {
		u.Extra = make(map[string]any)
	}
	u.Extra[name] = value
}

func unsupported(path string, value any) error {
	return fmt.Errorf("%s of %T: %w", path, value, errors.ErrUnsupported)
}

// mustUpsert returns the stored record.
func mustUpsert(t *testing.T, s *memstore.Store, u *clerksync.User, want clerksync.Outcome) *clerksync.User {
	t.Helper()
	res, err := s.Upsert(t.Context(), u)
	if err != nil {
		t.Fatalf("Upsert: %v", err)
	}
	if res.Outcome != want {
		t.Fatalf("Upsert: outcome %v, want %v", res.Outcome, want)
	}
	if hasUser := res.User != nil; hasUser != (want != clerksync.Updated) {
		t.Fatalf("Upsert: %v with a Result.User: %t", res.Outcome, hasUser)
	}
	return stored(t, s, u.ClerkID)
}

func stored(t *testing.T, s *memstore.Store, clerkID string) *clerksync.User {
	t.Helper()
	u, err := s.User(t.Context(), clerkID)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

var version = time.Date(2025, time.May, 1, 12, 0, 0, 0, time.UTC)
