package mongostore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// raceCase lets another writer come in just before a command of an Upsert.
type raceCase struct {
	stored  *clerksync.User // at first, if any
	command string          // see commandKind
	nth     int64           // of its kind
	other   func(ctx context.Context, s rawStore) error
	u       *clerksync.User // what is offered
	want    clerksync.Outcome
	record  string // name in the end; empty if deleted
}

func upserting(u *clerksync.User) func(context.Context, rawStore) error {
	return func(ctx context.Context, s rawStore) error { _, err := s.Upsert(ctx, u); return err }
}

func deleting(ctx context.Context, s rawStore) error {
	_, err := s.Deactivate(ctx, "user_ada", hour(3))
	return err
}

func removing(ctx context.Context, s rawStore) error {
	_, err := s.coll.DeleteMany(ctx, bson.D{})
	return err
}

func raceCases() map[string]raceCase {
	differs := func(n int) *clerksync.User {
		return change(ada(n), func(u *clerksync.User) { u.Extra = map[string]any{"other": "x"} })
	}
	unseen := func(name string, extra string) *clerksync.User { // without a time of evidence
		return change(ada(1), func(u *clerksync.User) {
			u.SyncedAt, u.Name, u.Extra = time.Time{}, name, map[string]any{extra: "x"}
		})
	}
	none := (*clerksync.User)(nil)
	newer := change(unseen("newer", "a"), func(u *clerksync.User) { u.ClerkUpdatedAt = hour(2) })
	noVersion := change(ada(1), func(u *clerksync.User) { u.ClerkUpdatedAt = time.Time{} })
	const created, updated, unchanged = clerksync.Created, clerksync.Updated, clerksync.Unchanged
	const stale, deactivated = clerksync.Stale, clerksync.Deactivated
	return map[string]raceCase{
		"NewerBeforeCompareAndSet":   {ada(1), "write", 2, upserting(ada(9)), differs(2), stale, "ada 9"},
		"OlderBeforeCompareAndSet":   {ada(1), "write", 2, upserting(ada(2)), differs(3), updated, "ada 3"},
		"DeletedBeforeCompareAndSet": {ada(1), "write", 2, deleting, differs(2), deactivated, ""},
		"DeletedBeforeConfirm":       {ada(1), "findAndModify", 1, deleting, ada(1), deactivated, ""},
		"VersionBeforeCompareAndSet": {
			unseen("old", "a"), "write", 2, upserting(newer), unseen("late", "b"), stale, "newer",
		},
		"ExtrasBeforeCompareAndSet": {
			unseen("old", "a"), "write", 2, upserting(unseen("other", "lost")), unseen("new", "b"), updated, "new",
		},
		"RemovedBeforeRead":                  {ada(2), "find", 1, removing, ada(1), created, "ada 1"},
		"InsertedBeforeInsert":               {none, "write", 1, upserting(ada(9)), ada(2), stale, "ada 9"},
		"InsertedBeforeInsertWithoutVersion": {none, "write", 1, upserting(ada(9)), noVersion, stale, "ada 9"},
		"SameBeforeInsertWithoutVersion":     {none, "write", 1, upserting(noVersion), noVersion, unchanged, "ada 1"},
		"TombstoneBeforeInsert":              {none, "write", 1, deleting, ada(2), deactivated, ""},
	}
}

func TestRacesAreDecidedAnew(t *testing.T) {
	t.Parallel()
	for name, c := range raceCases() {
		t.Run(name+"/Upsert", func(t *testing.T) {
			base := newStore(t)
			s := c.begin(t, base)
			res, err := s.Upsert(t.Context(), c.u)
			if err != nil || res.Outcome != c.want {
				t.Errorf("Upsert: %v, %v, want %v", res.Outcome, err, c.want)
			}
			c.check(t, base, res)
		})
		if c.command == "findAndModify" {
			continue // a batch does not send it
		}
		t.Run(name+"/Batch", func(t *testing.T) {
			base := newStore(t)
			s := c.begin(t, base)
			results, err := s.UpsertBatch(t.Context(), []*clerksync.User{c.u})
			if err != nil || results[0].Outcome != c.want {
				t.Fatalf("UpsertBatch: %v, %v, want %v", results, err, c.want)
			}
			c.check(t, base, results[0])
		})
	}
}

func (c raceCase) begin(t *testing.T, base rawStore) *mongostore.Store {
	t.Helper()
	if c.stored != nil {
		upsert(t, base, c.stored, clerksync.Created)
	}
	return interrupted(t, base, c.command, c.nth, func() {
		if err := c.other(t.Context(), base); err != nil {
			t.Error(err)
		}
	})
}

func (c raceCase) check(t *testing.T, base rawStore, res clerksync.Result) {
	t.Helper()
	u, err := base.User(t.Context(), "user_ada")
	if err != nil {
		t.Fatal(err)
	}
	if deleted := !u.DeletedAt.IsZero(); deleted != (c.record == "") || !deleted && u.Name != c.record {
		t.Errorf("record: %+v, want name %q", u, c.record)
	}
	if lost, kept := base.fields(t, "user_ada")["lost"]; kept {
		t.Errorf("a field of the other writer's Extra was left in the record: %v", lost)
	}
	if res.User != nil && !cmp.Equal(res.User, u) {
		t.Errorf("Result.User is not the record: %s", cmp.Diff(u, res.User))
	}
}

func TestRacesOfDeactivate(t *testing.T) {
	t.Parallel()
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
				deactivate(t, s, "user_ada", hour(3))
				if once {
					t.Fatal("the other writer did not come in")
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

// TestRaceWithoutEnd lets an Upsert lose every race: it tries until the context ends.
func TestRaceWithoutEnd(t *testing.T) {
	t.Parallel()
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
		synced := map[string]any{"syncedAt": hour(0).Add(time.Duration(n) * time.Second)}
		if err := base.SetFields(t.Context(), "user_ada", synced); err != nil {
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

// remake is one way in which callers write a new user whose values tombstones hold.
type remake struct {
	unique  []string // fields with a unique index of their own
	holders int      // deleted records that hold the values: one for all, or one for each
	before  bool     // the user has a record
}

// TestConcurrentRemakesOfOneUser lets several calls write the same user, whose values deleted
// records hold. Nobody else has the values, so all succeed.
func TestConcurrentRemakesOfOneUser(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]remake{
		"Email":               {unique: []string{"email"}, holders: 1},
		"Phone":               {unique: []string{"profile.phoneNumber"}, holders: 1},
		"Extra":               {unique: []string{"username"}, holders: 1},
		"Array":               {unique: []string{"tags"}, holders: 2},
		"TwoFieldsOneHolder":  {unique: []string{"email", "username"}, holders: 1},
		"TwoFieldsTwoHolders": {unique: []string{"email", "username"}, holders: 2},
		"Three":               {unique: []string{"email", "profile.phoneNumber", "username"}, holders: 3},
		"Update":              {unique: []string{"email", "username"}, holders: 2, before: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newUniqueStore(t, c.unique...)
			for round := range count(2, 4**rounds) {
				empty(t, s.coll)
				c.run(t, s, fmt.Sprintf("r%d", round))
			}
		})
	}
}

func (c remake) run(t *testing.T, s rawStore, sfx string) {
	t.Helper()
	for i := range c.holders {
		u := person(fmt.Sprintf("gone%d%s", i, sfx), 1)
		u.Profile.PhoneNumber = ""
		for j, field := range c.unique {
			if j%c.holders == i {
				setUnique(u, field, sfx)
			}
		}
		if c.unique[0] == "tags" {
			u.Extra["tags"] = []any{fmt.Sprint(i, sfx), fmt.Sprint("other", i, sfx)}
		}
		upsert(t, s, u, clerksync.Created)
		deactivate(t, s.Store, u.ClerkID, hour(2))
	}
	anew := person("anew"+sfx, 3)
	anew.Profile.PhoneNumber = ""
	if c.before {
		upsert(t, s, anew, clerksync.Created)
		anew.ClerkUpdatedAt = hour(4)
	}
	for _, field := range c.unique {
		setUnique(anew, field, sfx)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	outcomes := make(map[string]int)
	for i := range 5 {
		wg.Go(func() {
			var out string
			if i%2 == 0 {
				res, err := s.Upsert(t.Context(), anew.Clone())
				out = fmt.Sprint(res.Outcome, err)
			} else {
				res, err := s.UpsertBatch(t.Context(), []*clerksync.User{person(fmt.Sprint("b", i, sfx), 1), anew.Clone()})
				out = fmt.Sprint(res[1].Outcome, err)
			}
			mu.Lock()
			defer mu.Unlock()
			outcomes[out]++
		})
	}
	wg.Wait()
	// Batches of one millisecond cannot tell whose update it was, so several may report it.
	first, updated := outcomes[fmt.Sprint(clerksync.Created, nil)] == 1, outcomes[fmt.Sprint(clerksync.Updated, nil)]
	if c.before {
		first = updated > 0
	}
	if unchanged := outcomes[fmt.Sprint(clerksync.Unchanged, nil)]; !first || unchanged+max(updated, 1) != 5 {
		t.Errorf("%v, want all to succeed, one by writing the user", outcomes)
	}
}

func setUnique(u *clerksync.User, field, sfx string) {
	switch field {
	case "email":
		u.Email = "remade" + sfx + "@example.com"
	case "profile.phoneNumber":
		u.Profile.PhoneNumber = "+1555" + sfx
	case "username":
		u.Extra["username"] = "remade" + sfx
	case "tags":
		u.Extra["tags"] = []any{"0" + sfx, "1" + sfx}
	}
}
