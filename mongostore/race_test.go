package mongostore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

func TestRacesAreDecidedAnew(t *testing.T) {
	differs := func(n int) *clerksync.User {
		u := ada(n)
		u.Extra = map[string]any{"other": "x"}
		return u
	}
	none := (*clerksync.User)(nil)
	unseen := func(name string, extra string) *clerksync.User { // without a time of evidence
		u := ada(1)
		u.SyncedAt, u.Name, u.Extra = time.Time{}, name, map[string]any{extra: "x"}
		return u
	}
	newer := unseen("newer", "a")
	newer.ClerkUpdatedAt = hour(2)
	noVersion := ada(1)
	noVersion.ClerkUpdatedAt = time.Time{}
	for name, c := range map[string]struct {
		stored  *clerksync.User
		command string
		nth     int64
		other   func(s rawStore) error
		u       *clerksync.User
		want    clerksync.Outcome
		record  string // name in the end; empty if deleted
	}{
		"NewerBeforeCompareAndSet": {ada(1), "write", 2, func(s rawStore) error { _, err := s.Upsert(t.Context(), ada(9)); return err },
			differs(2), clerksync.Stale, "ada 9"},
		"OlderBeforeCompareAndSet": {ada(1), "write", 2, func(s rawStore) error { _, err := s.Upsert(t.Context(), ada(2)); return err },
			differs(3), clerksync.Updated, "ada 3"},
		"DeletedBeforeCompareAndSet": {ada(1), "write", 2, func(s rawStore) error { _, err := s.Deactivate(t.Context(), "user_ada", hour(3)); return err },
			differs(2), clerksync.Deactivated, ""},
		"DeletedBeforeConfirm": {ada(1), "findAndModify", 1, func(s rawStore) error { _, err := s.Deactivate(t.Context(), "user_ada", hour(3)); return err },
			ada(1), clerksync.Deactivated, ""},
		"VersionBeforeCompareAndSet": {unseen("old", "a"), "write", 2, func(s rawStore) error { _, err := s.Upsert(t.Context(), newer); return err },
			unseen("late", "b"), clerksync.Stale, "newer"},
		"ExtrasBeforeCompareAndSet": {unseen("old", "a"), "write", 2, func(s rawStore) error { _, err := s.Upsert(t.Context(), unseen("other", "lost")); return err },
			unseen("new", "b"), clerksync.Updated, "new"},
		"RemovedBeforeRead": {ada(2), "find", 1, func(s rawStore) error { _, err := s.coll.DeleteMany(t.Context(), bson.D{}); return err },
			ada(1), clerksync.Created, "ada 1"},
		"InsertedBeforeInsert": {none, "write", 1, func(s rawStore) error { _, err := s.Upsert(t.Context(), ada(9)); return err },
			ada(2), clerksync.Stale, "ada 9"},
		"InsertedBeforeInsertWithoutVersion": {none, "write", 1, func(s rawStore) error { _, err := s.Upsert(t.Context(), ada(9)); return err },
			noVersion, clerksync.Stale, "ada 9"},
		"SameBeforeInsertWithoutVersion": {none, "write", 1, func(s rawStore) error { _, err := s.Upsert(t.Context(), noVersion); return err },
			noVersion, clerksync.Unchanged, "ada 1"},
		"TombstoneBeforeInsert": {none, "write", 1, func(s rawStore) error { _, err := s.Deactivate(t.Context(), "user_ada", hour(3)); return err },
			ada(2), clerksync.Deactivated, ""},
	} {
		for _, batch := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/Batch=%t", name, batch), func(t *testing.T) {
				base := newStore(t)
				if c.stored != nil {
					upsert(t, base, c.stored, clerksync.Created)
				}
				s := interrupted(t, base, c.command, c.nth, func() {
					if err := c.other(base); err != nil {
						t.Error(err)
					}
				})
				var res clerksync.Result
				var err error
				if batch {
					var results []clerksync.Result
					if results, err = s.UpsertBatch(t.Context(), []*clerksync.User{c.u}); err == nil {
						res = results[0]
					}
				} else {
					res, err = s.Upsert(t.Context(), c.u)
				}
				reached := !batch || c.command != "findAndModify" // a batch asks otherwise
				if err != nil || reached && res.Outcome != c.want {
					t.Errorf("Upsert: %v, %v, want %v", res.Outcome, err, c.want)
				}
				u, err := base.User(t.Context(), "user_ada")
				if err != nil {
					t.Fatal(err)
				}
				if reached && c.record != "" && u.Name != c.record || reached && (c.record == "") != !u.DeletedAt.IsZero() {
					t.Errorf("record: %+v, want name %q", u, c.record)
				}
				if lost, kept := base.fields(t, "user_ada")["lost"]; kept {
					t.Errorf("an extra of the other writer is nobody's now: %v", lost)
				}
				if res.User != nil && !cmp.Equal(res.User, u) {
					t.Errorf("Result.User is not the record: %s", cmp.Diff(u, res.User))
				}
			})
		}
	}
}

func TestRacesOfDeactivate(t *testing.T) {
	for name, erase := range map[string]bool{"Keep": false, "Erase": true} {
		for _, stored := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/Stored=%t", name, stored), func(t *testing.T) {
				base := newStore(t)
				if stored {
					upsert(t, base, ada(1), clerksync.Created)
				}
				armed, once := false, true
				hooked := newHooked(t, base.coll, func(cmd bson.Raw) {
					if armed && once && commandKind(cmd) == "write" {
						once = false
						u := ada(2)
						u.Extra["more"] = "x"
						if _, err := base.Upsert(t.Context(), u); err != nil {
							t.Error(err)
						}
					}
				})
				s := open(t, hooked, &mongostore.Options{EraseOnDelete: erase})
				armed = true
				if _, err := s.Deactivate(t.Context(), "user_ada", hour(3)); err != nil {
					t.Fatal(err)
				}
				u, err := base.User(t.Context(), "user_ada")
				if err != nil || u.DeletedAt.IsZero() || u.IsActive {
					t.Fatalf("record: %+v, %v", u, err)
				}
				if erased := u.Email == "" && u.Extra == nil; erased != erase {
					t.Errorf("erased %t, want %t: %+v", erased, erase, u)
				}
				if more, kept := base.fields(t, "user_ada")["more"]; kept == erase {
					t.Errorf("an extra that came in between: %v", more)
				}
			})
		}
	}
}

// Who loses every race tries until the context ends.
func TestRaceWithoutEnd(t *testing.T) {
	base := newStore(t)
	upsert(t, base, ada(1), clerksync.Created)
	ctx, cancel := context.WithCancel(t.Context())
	armed, n := false, 0
	hooked := newHooked(t, base.coll, func(cmd bson.Raw) {
		if !armed || commandName(cmd) != "update" {
			return
		}
		if n++; n == 8 {
			cancel()
			return
		}
		if err := base.SetFields(t.Context(), "user_ada", map[string]any{"syncedAt": hour(0).Add(time.Duration(n) * time.Second)}); err != nil {
			t.Error(err)
		}
	})
	s := open(t, hooked, nil)
	armed = true
	u := ada(2)
	u.Extra = nil
	if _, err := s.Upsert(ctx, u); !errors.Is(err, context.Canceled) || n != 8 {
		t.Errorf("%v after %d writes, want context.Canceled after 8", err, n)
	}
}
