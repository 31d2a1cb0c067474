package clerksync_test

import (
	"errors"
	"testing"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

func TestSyncOfAnInvalidID(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	if _, err := fx.Sync(t.Context(), "../users"); !errors.Is(err, clerksync.ErrUserUnknown) {
		t.Error(err)
	}
	if o := fx.seen.last(); o.Op != clerksync.OpSync || o.ClerkID != "" ||
		!errors.Is(o.Err, clerksync.ErrUserUnknown) {
		t.Errorf("observed %+v", o)
	}
}

func TestSyncReturnsTheOutcomeAndInvalidates(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Old"})
	for _, want := range []clerksync.Outcome{clerksync.Created, clerksync.Unchanged} {
		if res, err := fx.Sync(t.Context(), id); err != nil || res.Outcome != want {
			t.Errorf("Sync: %+v, %v; want %v", res, err, want)
		}
	}
	visit(t, fx.Syncer, id)
	_ = fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("New") })
	if res, err := fx.Sync(t.Context(), id); err != nil || res.Outcome != clerksync.Updated {
		t.Errorf("Sync: %+v, %v", res, err)
	}
	if u := visit(t, fx.Syncer, id); u.Name != "New" {
		t.Errorf("the visit after it got %s", u.Name)
	}
	if _, err := fx.store.Deactivate(t.Context(), id, fx.clock.Now()); err != nil {
		t.Fatal(err)
	}
	if res, err := fx.Sync(t.Context(), id); err != nil || res.Outcome != clerksync.Deactivated {
		t.Errorf("Sync: %+v, %v", res, err)
	}
	fx.store.fail(errDown)
	if _, err := fx.Sync(t.Context(), id); !errors.Is(err, clerksync.ErrUnavailable) {
		t.Errorf("Sync: %v", err)
	}
	visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive) // on standby
}
