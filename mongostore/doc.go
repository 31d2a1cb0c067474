// Package mongostore keeps clerksync's records in a MongoDB collection, the
// app's own users collection as a rule: it is the [clerksync.BatchStore] and
// [clerksync.RestoreStore] for production.
//
//	store, err := mongostore.Open(ctx, client.Database("app").Collection("users"), nil)
//
// [Open] is the only way to a Store, because everything clerksync promises rests
// on one unique index on clerkId: Open makes it, or checks that it is there.
//
// # What it asks of the server
//
// MongoDB 4.4 or later, or a server that speaks its protocol. The Store keeps to
// what MongoDB, Atlas, Amazon DocumentDB, Azure Cosmos DB and FerretDB have in
// common: plain reads, inserts, updateOne with upsert, findAndModify, unordered
// bulk writes and one unique index; no transactions, pipeline updates, change
// streams, partial or TTL indexes. Its tests run on FerretDB 1 (SQLite) and 2
// (DocumentDB on PostgreSQL), and on any server that MONGODB_URI names.
// The user needs the privileges find, insert, update and listIndexes on the
// collection, and createIndex unless the index is there already.
//
// # What it does to records
//
// It writes single fields by their dotted paths, and never whole documents: what
// the app owns in a record, and every field clerksync does not know, stays as it
// is. The fields and their owners are those of [clerksync.User.ClerkFields] and
// the README. Records that others wrote are read leniently: a field of a wrong
// type reads as absent, a record without clerkUpdatedAt is older than anything,
// one without isActive is active, deletedAt counts only if it is a date.
//
// Most calls are one round trip: reading a record, creating one, updating an
// older one, deleting one, restoring one, and a batch of users who are new or newer.
// An event that was applied before takes two, one that is out of date three.
//
// Filters name the clerkIds they are about, so that a collection sharded on clerkId stays
// targeted; the exceptions are Undeleted, which reads all, and what Upsert does
// about a unique index of the app's own: it looks for the record of another user
// that has the value, and has deleted ones give it up, on every shard.
package mongostore
