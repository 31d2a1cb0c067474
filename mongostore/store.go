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

// Options are the choices [Open] leaves open.
type Options struct {
	_ [0]func() // unkeyed literals would break when a field is added

	// BatchSize is how many records go into one command of UpsertBatch, Users,
	// Stamps and Undeleted. A negative one is an error. FerretDB 1 on SQLite
	// wants 100.
	//
	// Defaults to 500.
	BatchSize int

	// AllowUnique names unique indexes that Open would refuse because they
	// admit one record without the field at most: list one if every user,
	// deleted ones included, is certain to have a value. Names of indexes that
	// do not exist are ignored.
	//
	// Defaults to none.
	AllowUnique []string

	// EraseOnDelete makes Deactivate also erase what Clerk told about the
	// person; see [Store.Deactivate].
	//
	// Defaults to false: a deleted record keeps its fields.
	EraseOnDelete bool

	// Now is the clock behind createdAt and updatedAt, and what
	// [clerksync.Decide] needs it for. Where clerksync's Config.Now is set, set
	// this to the same.
	//
	// Defaults to time.Now.
	Now func() time.Time
}

// Store is a [clerksync.BatchStore] and a [clerksync.RestoreStore] on one
// collection; [Open] makes it. It is safe for concurrent use, by any number of
// processes, and has nothing to close: the client is the caller's. Its calls are
// no part of a session or transaction that their context holds.
type Store struct {
	coll      *mongo.Collection
	batchSize int
	erase     bool
	now       func() time.Time
	unique    [][]string // fields of each unique index that has neither clerkId nor _id
	// deadlocked lets calls whose write ended in a deadlock try again one by one.
	deadlocked chan struct{}
	// next is the guess about the next batch. It is a hint, and needs no order
	// among batches that run at once.
	next atomic.Int32
}

var (
	_ clerksync.BatchStore   = (*Store)(nil)
	_ clerksync.RestoreStore = (*Store)(nil)
)

// Open returns a Store on coll, a nil opts standing for the defaults. The
// collection need not exist yet.
//
// It makes sure that clerkId is unique. An existing unique index on clerkId
// alone is taken as it is, sparse or not; otherwise Open creates a sparse one,
// named clerkId_1 if that is free, which lets records without a clerkId stand
// beside. Where records with the same clerkId stand in the way, the error
// names some of them; where the user may not create indexes, it says which one to create.
//
// Open also refuses any other unique index that is neither sparse nor partial
// and does not contain clerkId. A unique index on email, for one, lets only one
// record be without an e-mail address, and so loses users who signed up by phone,
// and tombstones. The error gives the partial form to replace it with; see
// [Options].AllowUnique.
//
// Reads always go to the primary, whatever coll says, and documents are
// encoded in the driver's standard way, whatever registry coll has; coll's
// read concern, write concern, timeouts and retries are kept. Write concern 0 is an
// error, as a Store must know what became of a write. Several processes may
// call Open at once.
//
// Open refuses a collection that was made with a default collation: its indexes
// inherit that, and so may take two users' ids for equal.
//
// A server that does not answer is the first thing that Open finds; the error then
// has the driver's text, with the servers' names and what became of each. All other
// faults are reported at once, with [errors.Join].
func Open(ctx context.Context, coll *mongo.Collection, opts *Options) (*Store, error) {
	if coll == nil {
		return nil, errors.New("mongostore: open: no collection")
	}
	if opts == nil {
		opts = &Options{}
	}
	if opts.BatchSize < 0 {
		return nil, fmt.Errorf("mongostore: open: BatchSize is %d; it must be positive, or 0 for the default", opts.BatchSize)
	}
	ctx, err := enter(ctx, "open")
	if err != nil {
		return nil, err
	}
	s := &Store{
		coll: coll.Clone(options.Collection().
			SetReadPreference(readpref.Primary()).
			SetRegistry(bson.NewRegistry()).
			SetBSONOptions(&options.BSONOptions{})),
		batchSize: opts.BatchSize,
		erase:     opts.EraseOnDelete,
		now:       opts.Now,

		deadlocked: make(chan struct{}, 1),
	}
	if s.batchSize == 0 {
		s.batchSize = 500
	}
	if s.now == nil {
		s.now = time.Now
	}
	if err := coll.Database().Client().Ping(ctx, readpref.Primary()); err != nil {
		return nil, unreached(ctx, err)
	}
	fault := s.checkAcknowledged(ctx)
	if errors.Is(fault, errUnacknowledged) { // look for further faults
		s.coll = s.coll.Clone(options.Collection().SetWriteConcern(writeconcern.W1()))
	} else if fault != nil {
		return nil, fault
	}
	if err := errors.Join(fault, s.ensureIndexes(ctx, opts.AllowUnique)); err != nil {
		return nil, err
	}
	return s, nil
}

// checkAcknowledged refuses write concern 0. The driver does not tell what write
// concern a collection has, and a write that is not acknowledged must not be
// sent to find out: some servers answer it all the same, and the client takes that for
// the answer to its next command. But a write with a hint is one that the
// driver does not send without acknowledgement. This one matches no record.
func (s *Store) checkAcknowledged(ctx context.Context) error {
	filter := bson.D{{Key: "clerkId", Value: ""}, {Key: "_id", Value: bson.NewObjectID()}}
	update := bson.D{{Key: "$set", Value: bson.D{{Key: "clerkId", Value: ""}}}}
	res, err := s.coll.UpdateOne(ctx, filter, update, options.UpdateOne().SetHint("_id_"))
	switch {
	case err == nil && res.Acknowledged:
		return nil
	case err == nil, strings.Contains(err.Error(), "unacknowledged"):
		return errUnacknowledged
	case len(codes(err)) > 0:
		return nil // the server answered: that the user may not write, or that it knows no hints
	default:
		return fail(ctx, "open: try a write that matches nothing", err)
	}
}

var errUnacknowledged = errors.New(`mongostore: open: the collection has write concern 0, which hides whether a write succeeded; use w: 1 or "majority"`)

// User implements [clerksync.Store]: one read from the primary.
func (s *Store) User(ctx context.Context, clerkID string) (*clerksync.User, error) {
	const op = "user"
	ctx, err := enter(ctx, op)
	if err != nil {
		return nil, err
	}
	var r *record
	err = s.retry(ctx, op, func() (err error) {
		r, err = s.read(ctx, clerkID)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case r == nil:
		return nil, fmt.Errorf("mongostore: %s: %w", op, clerksync.ErrNotFound)
	}
	return r.user(), nil
}

// read returns the record as it stands, nil where there is none.
func (s *Store) read(ctx context.Context, clerkID string) (*record, error) {
	raw, err := s.coll.FindOne(ctx, bson.D{{Key: "clerkId", Value: clerkID}}).Raw()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &record{raw: raw}, nil
}

// millis is the clock as the database keeps it.
func (s *Store) millis() time.Time { return time.UnixMilli(s.now().UnixMilli()).UTC() }
