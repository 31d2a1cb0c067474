// Package embeddeddb runs a MongoDB-compatible database inside the process, so
// that the examples and the tests need no server.
//
// The engine is FerretDB v1 on SQLite: pure Go, with the data in a directory. It
// does not make updates atomic: it reads a document and writes it back, and
// does not keep other writes out in between. Concurrent updates of one document
// are lost, and a compare-and-set can have several winners. MongoDB's updates are
// atomic, and clerksync relies on that. Clients therefore connect to a front,
// which forwards the wire protocol to the engine and corrects it:
//
//   - The engine gets one message to a database at a time, over all connections.
//     So what MongoDB does to one document atomically is atomic.
//   - A write without acknowledgement gets no reply. The engine would send one,
//     and the driver would take it for the reply to its next message.
//   - The statements of a bulk of updates go one by one. A hundred in one
//     message hang the engine for good, and its reply names the wrong ones.
//   - If a unique index refuses an update, a findAndModify or its own creation,
//     the code is 11000, as for an insert. The engine's code is 1.
//
// These differences from MongoDB remain:
//
//   - Only a query by _id uses an index. All others read the whole collection
//     (25 ms for a thousand documents), which is fine for hundreds.
//   - Every unique index is sparse, but is listed without that attribute.
//   - Indexes with partialFilterExpression, expireAfterSeconds or collation,
//     pipeline updates, transactions, change streams, findAndModify with a
//     projection and most aggregation operators are refused with an error.
//   - Decimal128 and NaN end the connection. Field names with a quotation mark
//     or a backslash are refused with code 1.
//
// There is no authentication, so it listens on loopback addresses only.
//
// The tag ferretdb_no_postgresql leaves out the engine's other backend, PostgreSQL:
//
//	go build -tags ferretdb_no_postgresql ./internal/embeddeddb/serve
package embeddeddb
