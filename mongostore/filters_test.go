package mongostore_test

import (
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// A collection sharded on clerkId routes by it.
func TestFiltersNameTheClerkID(t *testing.T) {
	base := newUniqueStore(t, "email").coll
	coll, sent := newMonitored(t, base)
	s := open(t, coll, &mongostore.Options{AllowUnique: []string{"email"}, BatchSize: batchSize, EraseOnDelete: true})
	plain := open(t, coll, &mongostore.Options{AllowUnique: []string{"email"}, BatchSize: batchSize})
	insert(t, base, bson.D{{Key: "clerkId", Value: "user_flat"}, {Key: "profile", Value: nil}})

	upsert(t, s, ada(1), clerksync.Created)
	upsert(t, s, ada(1), clerksync.Unchanged)
	upsert(t, s, ada(2), clerksync.Updated)
	upsert(t, s, ada(1), clerksync.Stale)
	upsert(t, s, person("flat", 1), clerksync.Updated)
	u := person("nov", 1)
	u.ClerkUpdatedAt = time.Time{}
	upsert(t, s, u, clerksync.Created)
	u.Name = "x"
	upsert(t, s, u, clerksync.Updated)
	if _, err := s.UpsertBatch(t.Context(), []*clerksync.User{ada(3), person("bob", 1), person("bob", 2), u}); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*mongostore.Store{s, plain} {
		for _, id := range []string{"user_flat", "user_nov", "user_none"} {
			if _, err := s.Deactivate(t.Context(), id, hour(3)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, err := range s.Undeleted(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := plain.Restore(t.Context(), "user_none", hour(4)); err != nil {
		t.Fatal(err)
	}
	if _, err := plain.Deactivate(t.Context(), "user_ada", hour(4)); err != nil {
		t.Fatal(err)
	}
	again := person("again", 5)
	again.Email = "ada@example.com"
	upsert(t, s, again, clerksync.Created)

	releases := 0
	check := func(cmd, filter bson.Raw) {
		if _, err := filter.LookupErr("clerkId"); err != nil {
			t.Errorf("no clerkId in the filter of %s", cmd)
		}
	}
	for _, cmd := range sent.take() {
		switch commandName(cmd) {
		case "find":
			check(cmd, cmd.Lookup("filter").Document())
		case "findAndModify":
			check(cmd, cmd.Lookup("query").Document())
		case "update":
			values, err := cmd.Lookup("updates").Array().Values()
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range values {
				if multi, _ := v.Document().Lookup("multi").BooleanOK(); multi {
					releases++
					continue
				}
				check(cmd, v.Document().Lookup("q").Document())
			}
		case "insert":
			values, err := cmd.Lookup("documents").Array().Values()
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range values {
				check(cmd, v.Document())
			}
		case "ping", "listIndexes", "createIndexes", "endSessions":
		default:
			t.Errorf("an unexpected command: %s", cmd)
		}
	}
	if releases != 1 {
		t.Errorf("%d writes to many records, want the one release", releases)
	}
}
