package mongostore_test

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
	"$eq": {since: "3.0", v1: true}, "$gt": always, "$gte": always, "$lt": always, "$lte": always, "$ne": always, "$in": always, "$nin": always,
	"$exists": always,
	"$and":    {since: "2.6", v1: true},
	"$nor":    {since: "2.6", v1: true},
	"$or":     {since: "2.6", v1: true, but: "Amazon DocumentDB uses indexes for it only if each branch has one: Open creates them"},
	"$size":   always,
	"$type":   {since: "3.2", v1: true}, // by name
	"$not":    {since: "2.6", v1: true, but: "Amazon DocumentDB uses no index for it: the clerkId beside it has one"},

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
