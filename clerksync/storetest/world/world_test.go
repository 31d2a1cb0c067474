package world_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
	"github.com/clerksync/clerksync-go/clerksync/storetest"
	"github.com/clerksync/clerksync-go/clerksync/storetest/world"
)

func TestMemstore(t *testing.T) {
	world.Run(t, func(_ testing.TB, now func() time.Time) clerksync.Store {
		return newStore(now)
	}, world.Options{})
}

// TestMemstoreUniqueEmail is about a database with a unique index on the e-mail address.
func TestMemstoreUniqueEmail(t *testing.T) {
	world.Run(t, func(_ testing.TB, now func() time.Time) clerksync.Store {
		s := newStore(now)
		s.UniqueEmail = true
		return s
	}, world.Options{Checks: 10, UniqueEmail: true})
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newStore returns a memstore that the world can edit.
func newStore(now func() time.Time) rawStore {
	s := memstore.New()
	s.Now = now
	return rawStore{s}
}

// rawStore lets the world write the fields that the app owns.
type rawStore struct{ *memstore.Store }

var _ storetest.RawStore = rawStore{}

// SetFields implements storetest.RawStore for the fields of the app that a clerksync.User has.
func (s rawStore) SetFields(_ context.Context, id string, fields map[string]any) error {
	for path := range fields {
		switch path {
		case "role", "isActive", "location.city":
		default:
			return fmt.Errorf("%s: %w", path, errors.ErrUnsupported)
		}
	}
	return s.Edit(id, func(u *clerksync.User) {
		for path, v := range fields {
			switch path {
			case "role":
				u.Role = clerksync.Role(v.(string))
			case "isActive":
				u.IsActive = v.(bool)
			case "location.city":
				u.Location = &clerksync.Location{City: v.(string)}
			}
		}
	})
}

// Fields implements storetest.RawStore.
func (s rawStore) Fields(ctx context.Context, id string) (map[string]any, error) {
	u, err := s.User(ctx, id)
	if err != nil {
		return nil, err
	}
	return map[string]any{"role": string(u.Role), "isActive": u.IsActive}, nil
}
