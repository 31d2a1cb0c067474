package mongostore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/clerksync/clerksync-go/clerksync"
)

// Options configure a Store; see [Open].
type Options struct {
	_ [0]func() // unkeyed literals would break when a field is added

	// BatchSize is how many records one command of UpsertBatch, Users and Stamps handles.
	// One of Undeleted reads ten times as many stamps. A negative one is an error. FerretDB 1
	// on SQLite needs 100.
	//
	// Defaults to 500.
	BatchSize int

	// AllowUnique names unique indexes that Open would otherwise refuse because they
	// let in only one record without the field. List an index only if every user,
	// deleted ones included, is certain to have a value. Open also does not look for Clerk
	// ids in them; see Fields. Names of indexes that do not exist are ignored.
	//
	// Defaults to none.
	AllowUnique []string

	// EraseOnDelete makes Deactivate also erase what Clerk said about the person; see
	// [Store.Deactivate]. With clerksync's Config.OnDelete, the record is erased when its delete
	// job ends: it succeeded, failed for good, or was discarded.
	//
	// Defaults to false: a deleted record keeps its fields.
	EraseOnDelete bool

	// Fields says where the record's fields are in the collection, for one that has names of
	// its own; see [Fields].
	//
	// Open refuses a name that is not a field's, two fields on one path, a path inside another
	// field's, and a path with "$", an empty segment or a number for a segment. A field that
	// is not mapped keeps its name, so that is its path. Fields that clerksync decides by may
	// be renamed and not dropped: clerkId, clerkUpdatedAt, syncedAt, createdAt, deletedAt,
	// isActive, banned, extraFields, clerkJobs, adoptedAt, adoptedBy and clerkInsert.
	//
	// "clerkId": "_id" makes the Clerk id the _id. Each string in _id is then taken for a Clerk
	// id, and other types for records without one. A new record gets an ObjectID in
	// clerkInsert, by which an insert recognizes its own record if the answer was lost.
	//
	// Extra may not use the first part of a mapped path: then Upsert fails with a
	// [*clerksync.ConflictError], and a Syncer writes an existing record without that name. Nor
	// may it use the name of a field, also if that field has another path.
	//
	// Errors name clerksync's fields as [clerksync.User.ClerkFields] does, and everything else
	// by its path in the collection. Filters of the app's, such as those of an index, are in
	// the collection's names. Open copies the map.
	//
	// Defaults to none: each field is under its own name.
	Fields Fields

	// Adopt links Clerk users to records that the app had before Clerk, at their first sync.
	//
	// Defaults to linking none.
	Adopt *Adopt

	// Record makes the app's own value of each document, as it is stored, when the document is
	// read: [RecordOf] decodes it into a struct. Handlers get a copy of the value by
	// [clerksync.RecordFromContext], so they need no query of their own. It is called once for
	// each read and cached with the record; batches do not call it.
	//
	// If it fails or panics, the user's requests are answered 500 "record_failed". Its error is
	// logged, so it must not quote values. It must be safe for concurrent use, and must not
	// modify the document.
	//
	// Defaults to none.
	Record func(bson.Raw) (any, error)

	// ReadOnly is for a program that only reads, as a database user who may only read. Open
	// then writes nothing and makes no index: if clerkId does not have a unique one, that is an
	// error, unless the user may not list the indexes. All methods that write fail.
	//
	// Defaults to false.
	ReadOnly bool

	// Now is the clock for createdAt, updatedAt and [clerksync.Decide]. If clerksync's
	// Config.Now is set, set this to the same function.
	//
	// Defaults to time.Now.
	Now func() time.Time
}

// Store is a [clerksync.BatchStore], a [clerksync.RestoreStore], a [clerksync.JobStore] and, with
// [Options].Adopt, a [clerksync.AdoptStore] that adopts, on one collection; [Open] returns one. It
// is safe for concurrent use, by any number of processes. It does not need to be closed: the client is the caller's. Its calls do not join a
// session or transaction that their context holds.
type Store struct {
	coll      collection
	codec     *fieldMap
	batchSize int
	erase     bool
	readOnly  bool
	recordOf  func(bson.Raw) (any, error) // Options.Record, or nil
	adopt     *adopter                    // nil adopts nothing
	now       func() time.Time
	unique    []uniqueIndex // those without clerkId and _id
	// deadlocked admits one call at a time, of those whose write ended in a deadlock.
	deadlocked chan struct{}
	// next is the guess about the next batch. It is only a hint: concurrent batches may
	// set it in any order.
	next atomic.Int32
	// backfillSize is the least number of new users that makes a batch part of a backfill.
	backfillSize int
	legacy       bool // see HasLegacy
}

var (
	_ clerksync.BatchStore   = (*Store)(nil)
	_ clerksync.RestoreStore = (*Store)(nil)
	_ clerksync.LegacyStore  = (*Store)(nil)
	_ clerksync.AdoptStore   = (*Store)(nil)
	_ clerksync.JobStore     = (*Store)(nil)
)

// Open returns a Store on coll. If opts is nil, the defaults apply. The collection does
// not need to exist yet.
//
// Open makes sure that clerkId is unique. It accepts an existing unique index on
// clerkId alone that lookups use: one that is not hidden and, if it is partial, has the
// filter {clerkId: {$exists: true}}. If the index is still being built, Open waits for it,
// provided that the user may create indexes. Otherwise it creates a sparse one, which allows
// records without a clerkId; its name is clerkId_1 if that is free. If several records have the
// same clerkId, the error names some of them. If the user may not create indexes, the
// error says which one to create.
//
// Open also refuses any other unique index that is neither sparse nor partial and does
// not contain clerkId. For example, a unique index on email lets in only one record
// without an e-mail address, so users who signed up by phone, and tombstones, could not
// be stored. The error has the mongosh lines that replace it by a partial index, and the line
// for a Mongoose schema; see [Options].AllowUnique.
//
// Reads always go to the primary, whatever coll says, and documents are encoded in the
// driver's standard way, whatever registry coll has. The read concern, write concern,
// timeouts and retries of coll are kept. Write concern 0 is an error: a Store must know
// whether a write succeeded. Several processes may call Open at once.
//
// Open also tries a write that matches nothing. If the server refuses retryable writes,
// which are the driver's default, the error says to add retryWrites=false to the connection
// string. If the user may not write, it names the privileges; see [Options].ReadOnly.
//
// Open refuses a collection with a default collation: its indexes inherit the
// collation, which may make the ids of two users equal.
//
// With [Options].Adopt, Open also refuses a unique index on clerkId that is neither sparse nor
// partial, because only one record could be without a Clerk id, and a collection that is sharded
// on clerkId, as far as the user may know that. It makes plain indexes on the e-mail address and
// on the field of the external id, each unless an index serves such lookups.
//
// Last, Open looks at a hundred records for [Store.HasLegacy].
//
// If no server answers before the driver's server selection times out or ctx ends, that is the
// error. It has the driver's text, which names the servers and says why each does not answer. The
// faults of Fields are reported together, with [errors.Join], and so are those of the indexes.
func Open(ctx context.Context, coll *mongo.Collection, opts *Options) (*Store, error) {
	if opts == nil {
		opts = &Options{}
	}
	s, err := newStore(coll, opts)
	if err != nil {
		return nil, err
	}
	ctx, err = begin(ctx, "open")
	if err != nil {
		return nil, err
	}
	if err := coll.Database().Client().Ping(ctx, readpref.Primary()); err != nil {
		return nil, wrapPingErr(ctx, err)
	}
	if s.readOnly {
		err = s.checkIndexes(ctx, opts.AllowUnique)
	} else {
		err = s.prepare(ctx, opts.AllowUnique)
	}
	if err == nil {
		err = s.sampleLegacy(ctx)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// prepare makes sure that the Store can write, and makes its indexes.
func (s *Store) prepare(ctx context.Context, allowed []string) error {
	fault := s.checkWrites(ctx)
	if errors.Is(fault, errUnacknowledged) { // look for further faults
		s.coll.raw = s.coll.raw.Clone(options.Collection().SetWriteConcern(writeconcern.W1()))
	} else if fault != nil {
		return fault
	}
	if err := errors.Join(fault, s.ensureIndexes(ctx, allowed)); err != nil {
		return err
	}
	return s.prepareAdopting(ctx)
}

// newStore returns a Store on coll without asking the server. Its errors are about opts.
func newStore(coll *mongo.Collection, opts *Options) (*Store, error) {
	if coll == nil {
		return nil, errors.New("mongostore: open: no collection")
	}
	if opts.BatchSize < 0 {
		return nil, fmt.Errorf("mongostore: open: BatchSize is %d; it must be positive, or 0 for the default", opts.BatchSize)
	}
	adopt, err := newAdopter(opts.Adopt)
	if err != nil {
		return nil, err
	}
	fields, err := newFieldMap(opts.Fields)
	if err != nil {
		return nil, err
	}
	if err := adopt.checkFields(fields); err != nil {
		return nil, err
	}
	s := &Store{
		coll: collection{codec: fields, raw: coll.Clone(options.Collection().
			SetReadPreference(readpref.Primary()).
			SetRegistry(bson.NewRegistry()).
			SetBSONOptions(&options.BSONOptions{}))},
		codec:        fields,
		batchSize:    opts.BatchSize,
		erase:        opts.EraseOnDelete,
		readOnly:     opts.ReadOnly,
		recordOf:     opts.Record,
		adopt:        adopt,
		now:          opts.Now,
		deadlocked:   make(chan struct{}, 1),
		backfillSize: backfillSize,
	}
	if s.batchSize == 0 {
		s.batchSize = 500
	}
	if s.now == nil {
		s.now = time.Now
	}
	return s, nil
}

// errReadOnly is the error of the methods that write, with [Options].ReadOnly.
var errReadOnly = errors.New("mongostore: the Store was opened with ReadOnly")

// checkWrites finds out whether the server takes the Store's writes. It tries one that
// matches no record, in up to three forms, because codes alone do not tell why a server
// refuses it.
func (s *Store) checkWrites(ctx context.Context) error {
	const op = "open: try a write that matches nothing"
	err := s.checkAcknowledged(ctx)
	if err == nil || errors.Is(err, errUnacknowledged) || !answered(err) {
		return err
	}
	// The server may only not know hints.
	err = s.retry(ctx, op, func() error {
		_, err := s.coll.UpdateOne(ctx, s.nothing(), s.noChange())
		return err
	})
	if err == nil || !answered(err) || transient(err) { // that says nothing about retryable writes
		return err
	}
	if onlyUnconfirmed(err) {
		if hasCode(err, unsatisfiable...) {
			return err
		}
		return nil // transient: members are down or slow
	}
	// The same without a transaction number, as with retryWrites=false.
	command := bson.D{{Key: "update", Value: s.coll.Name()}, {Key: "updates", Value: bson.A{
		bson.D{{Key: "q", Value: s.codec.filter(s.nothing())}, {Key: "u", Value: s.codec.update(s.noChange())}},
	}}}
	if s.coll.Database().RunCommand(ctx, command).Err() != nil {
		return err
	}
	return wrapDriverErr(ctx, "open: the server takes a write only without a transaction number: add retryWrites=false "+
		"to the connection string (if it is there, the server refuses the write concern)", err)
}

// nothing matches no record.
func (s *Store) nothing() bson.D {
	id := bson.E{Key: "_id", Value: bson.NewObjectID()}
	if s.codec.idIsClerkID() {
		return bson.D{id}
	}
	return bson.D{{Key: "clerkId", Value: ""}, id}
}

func (s *Store) noChange() bson.D {
	field := "clerkId"
	if s.codec.idIsClerkID() { // no update may set it
		field = insertToken
	}
	return bson.D{{Key: "$set", Value: bson.D{{Key: field, Value: ""}}}}
}

// checkAcknowledged refuses write concern 0. The driver does not tell which write
// concern a collection has. An unacknowledged write cannot be sent to find out: some
// servers answer it anyway, and the client takes the answer for that to its next
// command. But the driver refuses to send an unacknowledged write that has a hint.
func (s *Store) checkAcknowledged(ctx context.Context) error {
	res, err := s.coll.UpdateOne(ctx, s.nothing(), s.noChange(), options.UpdateOne().SetHint("_id_"))
	switch {
	case err == nil && res.Acknowledged:
		return nil
	case err == nil, strings.Contains(err.Error(), "unacknowledged"):
		return errUnacknowledged
	default:
		return wrapDriverErr(ctx, "open: try a write that matches nothing", err)
	}
}

var errUnacknowledged = errors.New(`mongostore: open: the collection has write concern 0, which hides whether a write succeeded; use w: 1 or "majority"`)

// nowMillis returns the time in the database's precision.
func (s *Store) nowMillis() time.Time { return time.UnixMilli(s.now().UnixMilli()).UTC() }
