package mongostore_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

func TestEraseOnDelete(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	now := hour(100)
	s := rawStore{open(t, coll, &mongostore.Options{EraseOnDelete: true, Now: func() time.Time { return now }}), coll}
	created := upsert(t, s, ada(1), clerksync.Created)
	ofTheApp := map[string]any{"profile.bio": "of the app", "cart": "full", "role": "ADMIN"}
	if err := s.SetFields(t.Context(), "user_ada", ofTheApp); err != nil {
		t.Fatal(err)
	}
	now = hour(200)
	if _, err := s.Deactivate(t.Context(), "user_ada", hour(2)); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"_id": created.ID, "clerkId": "user_ada", "role": "ADMIN", "cart": "full",
		"profile":  map[string]any{"bio": "of the app"},
		"location": map[string]any{"country": "GB", "city": "London"},
		"isActive": false, "emailVerified": true, "phoneVerified": false, "banned": false,
		"createdAt": hour(100), "updatedAt": hour(200), "clerkUpdatedAt": hour(1), "syncedAt": hour(1), "deletedAt": hour(2),
	}
	if d := cmp.Diff(want, s.fields(t, "user_ada")); d != "" {
		t.Errorf("the record (- want, + got):\n%s", d)
	}
	upsert(t, s, ada(3), clerksync.Deactivated)

	if _, err := s.Deactivate(t.Context(), "user_unknown", time.Time{}); err != nil {
		t.Fatal(err)
	}
	tombstone := s.fields(t, "user_unknown")
	want = map[string]any{
		"_id": tombstone["_id"], "clerkId": "user_unknown", "isActive": false,
		"createdAt": hour(200), "updatedAt": hour(200), "deletedAt": hour(200),
	}
	if d := cmp.Diff(want, tombstone); d != "" {
		t.Errorf("the tombstone (- want, + got):\n%s", d)
	}
}

// TestDeleteKeeps checks that by default a deleted record keeps its fields.
func TestDeleteKeeps(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	upsert(t, s, ada(1), clerksync.Created)
	want := s.fields(t, "user_ada")
	if _, err := s.Deactivate(t.Context(), "user_ada", hour(2)); err != nil {
		t.Fatal(err)
	}
	got := s.fields(t, "user_ada")
	want["isActive"], want["deletedAt"], want["updatedAt"] = false, hour(2), got["updatedAt"]
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the record (- want, + got):\n%s", d)
	}
}

// TestDeactivateBefore1970 has a date that the filters do not take for a tombstone.
func TestDeactivateBefore1970(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	if _, err := s.Deactivate(t.Context(), "user_ada", time.UnixMilli(-1)); err != nil {
		t.Fatal(err)
	}
	upsert(t, s, ada(1), clerksync.Deactivated)
}
