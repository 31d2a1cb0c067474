package mongostore_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// Whatever the batch before makes the Store expect, a batch of everything ends as it
// must.
func TestBatchAfterAnyBatch(t *testing.T) {
	people := func(n int) (us []*clerksync.User) {
		for i := range n {
			us = append(us, person(fmt.Sprint("p", i), 1))
		}
		return us
	}
	for name, before := range map[string][][]*clerksync.User{
		"Nothing": nil,
		"New":     {people(batchSize)},
		"Newer":   {people(10), {person("p0", 2), person("p1", 2)}},
		"Equal":   {people(10), people(10)},
	} {
		t.Run(name, func(t *testing.T) {
			base := newUniqueStore(t, "email")
			for _, id := range []string{"ada", "older", "newer", "equal", "differs", "extras", "gone"} {
				upsert(t, base, person(id, 5), clerksync.Created)
			}
			if _, err := base.Deactivate(t.Context(), "user_gone", hour(6)); err != nil {
				t.Fatal(err)
			}
			coll, sent := newMonitored(t, base.coll)
			s := open(t, coll, &mongostore.Options{AllowUnique: []string{"email"}, BatchSize: batchSize})
			for _, us := range before {
				if _, err := s.UpsertBatch(t.Context(), us); err != nil {
					t.Fatal(err)
				}
			}

			change := func(u *clerksync.User, f func(u *clerksync.User)) *clerksync.User { f(u); return u }
			us := []*clerksync.User{
				person("new1", 1), person("older", 6), person("equal", 5),
				change(person("differs", 5), func(u *clerksync.User) { u.Name, u.SyncedAt = "x", hour(7) }),
				person("new2", 1), person("newer", 4), person("gone", 9),
				change(person("conflict", 1), func(u *clerksync.User) { u.Email = "ada@example.com" }),
				change(person("nov", 1), func(u *clerksync.User) { u.ClerkUpdatedAt = time.Time{} }),
				change(person("extras", 6), func(u *clerksync.User) { u.Extra = nil }),
				change(person("again", 1), func(u *clerksync.User) { u.Email = "gone@example.com" }),
				person("new1", 1), person("new2", 2), person("older", 5),
			}
			const created, updated, unchanged, stale = clerksync.Created, clerksync.Updated, clerksync.Unchanged, clerksync.Stale
			want := []clerksync.Outcome{
				created, updated, unchanged, updated,
				created, stale, clerksync.Deactivated, 0, created, updated, created,
				unchanged, updated, stale,
			}
			if name == "New" { // or it is not taken for more of the same
				for i := range batchSize {
					us, want = append(us, person(fmt.Sprint("more", i), 1)), append(want, created)
				}
			}
			sent.take()
			results, err := s.UpsertBatch(t.Context(), us)
			t.Logf("%d commands", len(sent.take()))
			var failed *clerksync.BatchError
			if !errors.As(err, &failed) || !slices.Equal(slices.Collect(maps.Keys(failed.Errs)), []int{7}) {
				t.Fatalf("error %v, want a BatchError about number 7", err)
			}
			wantConflict(t, failed.Errs[7], "email")
			var got []clerksync.Outcome
			for _, r := range results {
				got = append(got, r.Outcome)
			}
			if !slices.Equal(got, want) {
				t.Errorf("outcomes %v, want %v", got, want)
			}
			for id, want := range map[string]string{
				"new1": "new1 1", "older": "older 6", "equal": "equal 5", "differs": "x", "new2": "new2 2",
				"newer": "newer 5", "nov": "nov 1", "extras": "extras 6", "again": "again 1", "ada": "ada 5",
			} {
				u, err := base.User(t.Context(), "user_"+id)
				if err != nil || u.Name != want || !u.IsActive || id == "extras" && u.Extra != nil {
					t.Errorf("record of %s: %+v, %v, want name %q", id, u, err, want)
				}
			}
			if _, err := base.User(t.Context(), "user_conflict"); !errors.Is(err, clerksync.ErrNotFound) {
				t.Errorf("the one in the way: %v, want ErrNotFound", err)
			}
		})
	}
}

// Whether a batch wrote a record is not told by the time alone.
func TestBatchByAClockThatStands(t *testing.T) {
	s := open(t, newCollection(t), &mongostore.Options{BatchSize: batchSize, Now: func() time.Time { return hour(9) }})
	for _, want := range []clerksync.Outcome{clerksync.Created, clerksync.Unchanged, clerksync.Unchanged} {
		res, err := s.UpsertBatch(t.Context(), []*clerksync.User{ada(1)})
		if err != nil || res[0].Outcome != want {
			t.Errorf("%v, %v, want %v", res[0].Outcome, err, want)
		}
	}
}

// Who inserts a record has Created it, also where another writer changes it before
// the batch can find out what became of its writes.
func TestBatchCreatedAndChangedAtOnce(t *testing.T) {
	for name, version := range map[string]int{"Newer": 2, "Same": 0} {
		t.Run(name, func(t *testing.T) {
			base := newStore(t)
			inserted := false
			s := open(t, newHooked(t, base.coll, func(cmd bson.Raw) {
				switch {
				case commandName(cmd) == "insert" && !inserted: // bob is in the way: the bulk fails in part
					inserted = true
					upsert(t, base, person("bob", 1), clerksync.Created)
				case commandName(cmd) == "find" && inserted && version > 0:
					upsert(t, base, person("ada", version), clerksync.Updated)
					version = 0
				}
			}), nil)
			versionless := func(id string) *clerksync.User {
				u := person(id, 1)
				u.ClerkUpdatedAt = time.Time{}
				return u
			}
			res, err := s.UpsertBatch(t.Context(), []*clerksync.User{versionless("ada"), versionless("bob")})
			if err != nil {
				t.Fatal(err)
			}
			if res[0].Outcome != clerksync.Created || res[1].Outcome != clerksync.Stale {
				t.Errorf("outcomes %v and %v, want created and stale", res[0].Outcome, res[1].Outcome)
			}
		})
	}
}
