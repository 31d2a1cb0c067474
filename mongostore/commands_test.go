package mongostore_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// TestFiltersNameTheClerkID checks that all commands but the release of an address, Open's
// sample and the passes over the whole collection go to one shard of a collection that is sharded on clerkId.
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

	releases, passes, samples := 0, 0, 0
	for _, cmd := range sent.take() {
		if isRelease(cmd) {
			releases++
			continue
		}
		if isPass(cmd) {
			if _, err := cmd.LookupErr("limit"); err == nil {
				samples++
			} else {
				passes++
			}
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
	if passes != 2 {
		t.Errorf("%d passes over the collection, want the ones of Undeleted and UnlinkedEmails", passes)
	}
	if samples != 2 {
		t.Errorf("%d samples of the collection, want one of each Open", samples)
	}
}

// isPass reports whether a command begins a pass over the whole collection, which must have
// neither a filter nor an order: see the comment on scan.
func isPass(cmd bson.Raw) bool {
	filter, ok := cmd.Lookup("filter").DocumentOK()
	_, noSort := cmd.LookupErr("sort")
	return commandName(cmd) == "find" && ok && len(filter) == 5 && noSort != nil // 5 bytes are an empty document
}

// callEverything calls all methods, often enough that each sends every command it can send.
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
	for _, err := range erasing.UnlinkedEmails(t.Context()) {
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

// TestCallsJoinNoSession calls the Store with a session in the context, which has ended and
// belongs to another client. The Store must not use it.
func TestCallsJoinNoSession(t *testing.T) {
	t.Parallel()
	session, err := newClient(t, nil).StartSession()
	if err != nil {
		t.Fatal(err)
	}
	ctx := mongo.NewSessionContext(t.Context(), session)
	session.EndSession(ctx)

	coll := newCollection(t)
	if err := coll.FindOne(ctx, map[string]any{}).Err(); err == nil || err == mongo.ErrNoDocuments {
		t.Fatalf("the driver accepts such a session: %v", err)
	}
	s, err := mongostore.Open(ctx, coll, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []struct {
		name string
		run  func(ctx context.Context) error
	}{
		{"Upsert", func(ctx context.Context) error { _, err := s.Upsert(ctx, ada(1)); return err }},
		{"Upsert again", func(ctx context.Context) error { _, err := s.Upsert(ctx, ada(1)); return err }},
		{"UpsertBatch", func(ctx context.Context) error {
			_, err := s.UpsertBatch(ctx, []*clerksync.User{ada(1), person("bob", 1)})
			return err
		}},
		{"User", func(ctx context.Context) error { _, err := s.User(ctx, "user_ada"); return err }},
		{"Users", func(ctx context.Context) error { _, err := s.Users(ctx, []string{"user_ada"}); return err }},
		{"Stamps", func(ctx context.Context) error { _, err := s.Stamps(ctx, []string{"user_ada"}); return err }},
		{"Undeleted", func(ctx context.Context) (err error) {
			for _, err = range s.Undeleted(ctx) {
			}
			return err
		}},
		{"UnlinkedEmails", func(ctx context.Context) (err error) {
			for _, err = range s.UnlinkedEmails(ctx) {
			}
			return err
		}},
		{"Deactivate", func(ctx context.Context) error { _, err := s.Deactivate(ctx, "user_ada", hour(1)); return err }},
		{"Restore", func(ctx context.Context) error { _, err := s.Restore(ctx, "user_ada", hour(2)); return err }},
	} {
		if err := call.run(ctx); err != nil {
			t.Errorf("%s: %v", call.name, err)
		}
	}
	if u, err := s.User(t.Context(), "user_ada"); err != nil || !u.IsActive {
		t.Errorf("record: %+v, %v", u, err)
	}
}

// TestWritesMayComeTwice loses the answer to every write, so that the driver sends it again.
func TestWritesMayComeTwice(t *testing.T) {
	t.Parallel()
	for name, fields := range map[string]mongostore.Fields{"NoFields": nil, "ID": {"clerkId": "_id"}, "NoUpdatedAt": {"updatedAt": ""}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkTwice(t, twice(t, fields))
		})
	}
}

func checkTwice(t *testing.T, s rawStore) {
	t.Helper()
	created := upsert(t, s, ada(1), clerksync.Created)
	if d := cmp.Diff(created.CreatedAt, created.UpdatedAt); d != "" && !created.UpdatedAt.IsZero() {
		t.Error(d)
	}
	if got := upsert(t, s, ada(1), clerksync.Unchanged); !cmp.Equal(got, created) {
		t.Errorf("unchanged: %s", cmp.Diff(created, got))
	}
	res, err := s.Upsert(t.Context(), ada(2))
	if err != nil {
		t.Fatal(err)
	}
	wantUpdatedTwice(t, "newer", res.Outcome)
	if u, err := s.User(t.Context(), "user_ada"); err != nil || u.Name != "ada 2" || u.ID != created.ID {
		t.Errorf("record: %+v, %v", u, err)
	}
	upsert(t, s, change(person("nov", 1), func(u *clerksync.User) { u.ClerkUpdatedAt = time.Time{} }), clerksync.Created)

	us := []*clerksync.User{person("bob", 1), person("cid", 1), ada(3)}
	results, err := s.UpsertBatch(t.Context(), us)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if got := results[i].Outcome; got != clerksync.Created {
			t.Errorf("batch, number %d: %v, want created", i, got)
		}
	}
	wantUpdatedTwice(t, "batch, number 2", results[2].Outcome)
	for _, u := range us {
		upsert(t, s, u, clerksync.Unchanged)
	}

	deactivate(t, s.Store, "user_ada", hour(5))
	deactivate(t, s.Store, "user_none", hour(5))
	if n, err := s.coll.CountDocuments(t.Context(), bson.D{}); err != nil || n != 5 {
		t.Errorf("%d documents, %v", n, err)
	}
}

// wantUpdatedTwice checks the outcome of an update that was done twice. Only the server
// knows that the first one was an update.
func wantUpdatedTwice(t *testing.T, name string, got clerksync.Outcome) {
	t.Helper()
	if !slices.Contains([]clerksync.Outcome{clerksync.Updated, clerksync.Unchanged}, got) {
		t.Errorf("%s: %v, want updated or unchanged", name, got)
	}
}

// What the Store may send. The whole suite runs under a monitor that compares each of its
// commands with these lists (monitor_test.go); a full run also fails if an entry is unused.
//
// Sources:
//   - commands, their options, and the versions that brought them: the pages under
//     https://www.mongodb.com/docs/manual/reference/command/
//   - Stable API V1: https://www.mongodb.com/docs/manual/reference/stable-api/, and for the options of indexes
//     https://github.com/mongodb/mongo/blob/master/src/mongo/db/create_indexes.idl ("stability: unstable")
//   - Amazon DocumentDB: https://docs.aws.amazon.com/documentdb/latest/devguide/mongo-apis.html,
//     https://docs.aws.amazon.com/documentdb/latest/devguide/functional-differences.html
//   - Azure Cosmos DB: https://learn.microsoft.com/azure/cosmos-db/mongodb/feature-support-42

// support says which servers take a command, an option or an operator.
type support struct {
	since string // the MongoDB version that brought it
	v1    bool   // part of Stable API V1
	// strict is what happens to a client whose ServerAPI options are strict; only for what is
	// not part of V1.
	strict string
	// rare is why not every server's run of the suite uses it; empty if each does.
	rare string
	// but is a server that is known not to take it, or not as MongoDB does, and what the
	// Store does about that.
	but string
}

var (
	always = support{since: "2.6", v1: true}
	in36   = support{since: "3.6", v1: true}
)

// anyCommand are the options that the driver adds to every command.
var anyCommand = map[string]support{
	"$db":          in36,
	"lsid":         in36,
	"$clusterTime": in36,
	"txnNumber": {since: "3.6", v1: true, but: "Amazon DocumentDB refuses it (301), Azure Cosmos DB by its settings (2), " +
		"standalone servers too (20): Open says retryWrites=false"},
	"writeConcern":    always,
	"readConcern":     {since: "3.2", v1: true},
	"maxTimeMS":       always,
	"$readPreference": in36,
}

// commandList has the Store's commands with their options. Those of the elements of an
// array are written with a dot.
var commandList = map[string]map[string]support{
	"ping":        {"ping": always},
	"listIndexes": {"listIndexes": {since: "3.0", v1: true}, "cursor": {since: "3.0", v1: true}},
	"createIndexes": {
		"createIndexes":  always,
		"indexes":        always,
		"indexes.key":    always,
		"indexes.name":   always,
		"indexes.unique": {since: "2.6", v1: true, but: "Azure Cosmos DB: only in an empty collection (67): Open says so"},
		"indexes.sparse": {since: "2.6", strict: "error 323, also for one that exists: Open says which index to create",
			but: "Azure Cosmos DB does not have it, Amazon DocumentDB uses such an index " +
				"only in queries with $exists: Open accepts a unique index that is not sparse, and the README says so"},
		"indexes.partialFilterExpression": {since: "3.2", v1: true, but: "not everywhere: only sent if such an index exists"},
		"indexes.storageEngine": {since: "3.0", strict: "error 323, which Open ignores: the index exists",
			rare: "only sent if an index has it, as those of DocumentDB on PostgreSQL do"},
	},
	"find": {
		"find": {since: "3.2", v1: true}, "filter": {since: "3.2", v1: true},
		"projection": {since: "3.2", v1: true}, "limit": {since: "3.2", v1: true}, "batchSize": {since: "3.2", v1: true},
		"singleBatch": {since: "3.2", v1: true},
		"collation": {since: "3.4", v1: true, but: "Azure Cosmos DB does not have it, and Amazon DocumentDB since 8.0 only: " +
			"only sent if one of the app's unique indexes has one"},
	},
	"count": {"count": {since: "2.6", v1: true, but: "in Stable API V1 since MongoDB 5.0.9 only: only Inspect sends it"}},
	"getMore": {
		"getMore": {since: "3.2", v1: true}, "collection": {since: "3.2", v1: true}, "batchSize": {since: "3.2", v1: true},
	},
	"killCursors": {"killCursors": {since: "3.2", v1: true}, "cursors": {since: "3.2", v1: true}},
	"insert":      {"insert": always, "documents": always, "ordered": always},
	"update": {
		"update": always, "updates": always, "ordered": always, "updates.q": always, "updates.u": always,
		"updates.upsert": always, "updates.multi": always,
		"updates.hint": {since: "4.2", v1: true, but: "not documented for Amazon DocumentDB and Azure Cosmos DB: " +
			"only Open sends it, and tries without"},
	},
	"findAndModify": {"findAndModify": always, "query": always, "update": always, "new": always},
	"aggregate":     {"aggregate": always, "pipeline": always, "cursor": always, "allowDiskUse": always},
}

// operatorList has the operators of filters, updates and pipelines.
var operatorList = map[string]support{
	"$eq": {since: "3.0", v1: true}, "$gt": always, "$gte": always, "$lt": always, "$lte": always, "$ne": always,
	"$in": always, "$nin": always, "$exists": always,
	"$and":  {since: "2.6", v1: true},
	"$nor":  {since: "2.6", v1: true},
	"$or":   {since: "2.6", v1: true, but: "Amazon DocumentDB uses indexes for it only if each branch has one: Open creates them"},
	"$size": always,
	"$type": {since: "3.2", v1: true}, // by name
	"$not":  {since: "2.6", v1: true, but: "Amazon DocumentDB uses no index for it: the clerkId beside it has one"},

	"$set": always, "$unset": always, "$setOnInsert": always, "$max": always,

	"$match": always, "$group": always, "$sort": always, "$limit": always, "$sum": always,
}

// withoutClerkID are the functions whose filters need no equality on the Clerk id, and why.
var withoutClerkID = map[string]string{
	"(*Store).scan":          "reads all records",
	"(*Store).DueJobs":       "looks for due jobs, whoever's they are",
	"(*Store).movedFrom":     "looks for Clerk ids at other paths",
	"(*Store).sampleLegacy":  "reads some records, whoever's they are",
	"(*Store).duplicates":    "looks for records with the same Clerk id",
	"(*adopter).untrusted":   "looks for records without a Clerk id that are not trusted",
	"(*adopter).look":        "looks for records without a Clerk id",
	"(*inspector).survey":    "reads all records",
	"(*Store).refuseSharded": "reads the cluster's metadata, and matches no record",
	"(*upsert).findConflict": "looks for the holder of a value, whoever that is",
}
