package mongostore_test

import (
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// TestFiltersNameTheClerkID checks that all commands but the release of an address go to
// one shard of a collection that is sharded on clerkId.
func TestFiltersNameTheClerkID(t *testing.T) {
	t.Parallel()
	base := newUniqueStore(t, "email").coll
	coll, sent := newMonitored(t, base)
	opts := &mongostore.Options{AllowUnique: []string{"email"}, BatchSize: batchSize}
	keeping := open(t, coll, opts)
	opts.EraseOnDelete = true
	erasing := open(t, coll, opts)
	insert(t, base, bson.D{{Key: "clerkId", Value: "user_flat"}, {Key: "profile", Value: nil}})
	callEverything(t, keeping, erasing)

	releases := 0
	for _, cmd := range sent.take() {
		if isRelease(cmd) {
			releases++
			continue
		}
		for _, filter := range filtersOf(t, cmd) {
			if _, err := filter.LookupErr("clerkId"); err != nil {
				t.Errorf("no clerkId in the filter of %s", cmd)
			}
		}
	}
	if releases != 1 {
		t.Errorf("%d writes to many records, want the one release", releases)
	}
}

// callEverything calls all methods, and each so that it takes all its ways.
func callEverything(t *testing.T, keeping, erasing *mongostore.Store) {
	t.Helper()
	upsert(t, erasing, ada(1), clerksync.Created)
	upsert(t, erasing, ada(1), clerksync.Unchanged)
	upsert(t, erasing, ada(2), clerksync.Updated)
	upsert(t, erasing, ada(1), clerksync.Stale)
	upsert(t, erasing, person("flat", 1), clerksync.Updated)
	u := change(person("nov", 1), func(u *clerksync.User) { u.ClerkUpdatedAt = time.Time{} })
	upsert(t, erasing, u, clerksync.Created)
	u.Name = "x"
	upsert(t, erasing, u, clerksync.Updated)
	us := []*clerksync.User{ada(3), person("bob", 1), person("bob", 2), u}
	if _, err := erasing.UpsertBatch(t.Context(), us); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*mongostore.Store{erasing, keeping} {
		for _, id := range []string{"user_flat", "user_nov", "user_none"} {
			deactivate(t, s, id, hour(3))
		}
	}
	for _, err := range erasing.Undeleted(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := keeping.Restore(t.Context(), "user_none", hour(4)); err != nil {
		t.Fatal(err)
	}
	deactivate(t, keeping, "user_ada", hour(4))
	again := person("again", 5)
	again.Email = "ada@example.com"
	upsert(t, erasing, again, clerksync.Created)
}

// filtersOf returns the filters of a command, and the documents of an insert.
func filtersOf(t *testing.T, cmd bson.Raw) (filters []bson.Raw) {
	t.Helper()
	each := func(list string, filter func(bson.Raw) bson.Raw) {
		values, err := cmd.Lookup(list).Array().Values()
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			filters = append(filters, filter(v.Document()))
		}
	}
	switch name := commandName(cmd); name {
	case "find":
		return []bson.Raw{cmd.Lookup("filter").Document()}
	case "findAndModify":
		return []bson.Raw{cmd.Lookup("query").Document()}
	case "update":
		each("updates", func(d bson.Raw) bson.Raw { return d.Lookup("q").Document() })
	case "insert":
		each("documents", func(d bson.Raw) bson.Raw { return d })
	case "ping", "listIndexes", "createIndexes", "endSessions":
	default:
		t.Errorf("an unexpected command: %s", cmd)
	}
	return filters
}
