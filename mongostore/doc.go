// Package mongostore keeps clerksync's records in a MongoDB collection, usually the
// app's own users collection. It is the [clerksync.BatchStore] and
// [clerksync.RestoreStore] for production, and a [clerksync.JobStore].
//
//	store, err := mongostore.Open(ctx, client.Database("app").Collection("users"), nil)
//
// Only [Open] returns a Store, because everything that clerksync promises depends on one
// unique index on clerkId: Open creates it, or checks that it exists.
//
// # The record
//
// These are the names of the record's fields. [Options].Fields takes them, and errors name fields
// so; in the collection each may have another path. The README of this package says more about
// the sources of the values.
//
//	clerkId                                    string, unique   Clerk
//	email, name                                string           Clerk
//	profile.firstName, profile.lastName, profile.fullName, profile.imageUrl,
//	profile.phoneNumber, profile.birthday, profile.gender
//	                                           string           Clerk
//	emailVerified, phoneVerified, banned       bool             Clerk
//	clerkCreatedAt, clerkUpdatedAt             date             Clerk
//	lastSignInAt                               date             Clerk
//	role                                       string           the app; Clerk with RoleOf
//	location.country, location.city, location.state, location.timezone
//	                                           string           the app
//	isActive                                   bool             the app
//	createdAt, updatedAt                       date             the Store
//	syncedAt, deletedAt                        date             the Store
//	extraFields                                list of strings  the Store
//	clerkJobs                                  document         the Store
//	adoptedAt, adoptedBy                       date, string     the Store
//	clerkInsert                                ObjectID         the Store, if adopted or the _id is the Clerk id
//
// The names in Extra are further top-level fields, which belong to Clerk.
//
// # What it needs from the server
//
// MongoDB 4.4 or later, or a server that speaks its protocol. The Store uses only what
// MongoDB, Atlas, Amazon DocumentDB, Azure Cosmos DB and FerretDB have in common: plain
// reads, inserts, updateOne with upsert, updateMany, findAndModify, unordered bulk writes, and
// unique, sparse and plain indexes. Open names duplicate Clerk ids by an aggregate. The Store does
// not use transactions, pipeline updates, change streams, partial or TTL indexes. The user needs
// the privileges find, insert, update and listIndexes on the collection, and createIndex if an
// index has to be made. With OnCreate or OnDelete there is one more index for each, sparse and on
// clerkJobs.create.due or clerkJobs.delete.due; it is made when the first job is owed or looked for.
//
// It is tested on FerretDB 1 (SQLite) and 2 (DocumentDB on PostgreSQL), and written for
// MongoDB 4.4 and later from its documentation; CI is set up for MongoDB 8. The README of
// this package says what other servers need: Amazon DocumentDB, for one, needs
// retryWrites=false in the connection string.
//
// # Errors
//
// Errors of the database do not quote records. They have the server's code, and what to do
// about it if that is known; see [Describe]. If the database will never take a record, for
// example because a validator of the app's refuses it or because it is too large, the error
// matches [clerksync.ErrRejected].
//
// # What it does to records
//
// It writes single fields by their dotted paths, and never whole documents: the app's
// fields, and every field that clerksync does not know, stay as they are. See
// [clerksync.User.ClerkFields] and the README of this package for the fields and their
// owners. It reads records that others wrote leniently: a field of a wrong type counts
// as absent, a record without clerkUpdatedAt is older than any version, one without
// isActive is active, and deletedAt counts only if it is a date. It writes a record that
// clerksync has never written (no date in syncedAt and deletedAt) only if no value in it has
// a wrong type. Names in nested values of Extra are escaped if a server may be unable to
// hold them.
//
// Most calls take one round trip: reading a record, creating one, updating an older one,
// deleting one, restoring one, and a batch of users who are new or newer. An event that
// was applied before takes two (three if it moves a time and Extra has lists or maps), and
// one that is out of date three. A user with Omit takes two. A record that clerksync has
// never written takes four, once. With [Options].Adopt, the first sync of a user takes three:
// the first looks for the user's record, the second for one to adopt, and the third writes. A
// batch searches once. A user with a record takes no more than without Adopt.
//
// Filters name the clerkIds that they are about, so commands on a collection that is
// sharded on clerkId go to single shards. These are the exceptions. Undeleted, Jobs,
// UnlinkedEmails and Inspect read the whole collection. Open looks at a hundred records, and reads
// all if it cannot make clerkId unique. DueJobs asks every shard's index. With Adopt, the search for
// records without a Clerk id asks every shard. If a unique index of the app's own rejects an Upsert,
// it looks on every shard for another user's record with the same value, and has deleted records
// give it up.
package mongostore
