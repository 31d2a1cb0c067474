// Package embeddeddb runs a MongoDB-compatible database inside the process, so
// that the examples and the tests need no server.
//
// The engine is FerretDB v1 on SQLite: pure Go, the data in a directory. Taken
// alone it breaks promises that MongoDB makes and clerksync relies on: it
// reads a document and writes it back with nothing in between to stop the
// next, so that concurrent updates of one document are lost, and a
// compare-and-set has several winners. Clients therefore do not reach the
// engine but a front, which passes the wire protocol on and puts right:
//
//   - one message at a time goes to the engine, over all connections: what
//     MongoDB does to one document atomically is atomic;
//   - a write that wants no acknowledgement gets none; the engine would send
//     one, and the driver take it for the reply to its next message;
//   - the statements of a bulk of updates go one by one: a hundred in one
//     message would hang the engine for good, and its reply would name the
//     wrong ones;
//   - where a unique index refuses an update, a findAndModify or its own
//     creation, the code is 11000, as for an insert, and not 1.
//
// What remains different from MongoDB:
//
//   - Only a lookup by _id uses an index, anything else reads the whole
//     collection (25 ms for a thousand documents): fine for hundreds.
//   - Every unique index is sparse, and is listed without that attribute.
//   - Indexes with partialFilterExpression, expireAfterSeconds or collation,
//     pipeline updates, transactions, change streams, findAndModify with a
//     projection and most aggregation operators are refused with an error.
//   - Decimal128 and NaN end the connection. Field names with a quotation mark
//     or a backslash are refused with code 1.
//
// There is no authentication, therefore it listens on loopback addresses only.
//
// The engine's other backend, PostgreSQL, is left out of a program that is
// built with the tag ferretdb_no_postgresql:
//
//	go build -tags ferretdb_no_postgresql ./internal/embeddeddb/serve
package embeddeddb
