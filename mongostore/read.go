package mongostore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
)

// User implements [clerksync.Store], in one read from the primary. If [Options].Record fails,
// the error is a [*clerksync.Problem] with the code "record_failed", beside the user.
func (s *Store) User(ctx context.Context, clerkID string) (*clerksync.User, error) {
	const op = "user"
	ctx, err := begin(ctx, op)
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
	u := r.user()
	return u, s.makeRecord(u, r.raw)
}

// read returns the record as it is stored, nil if there is none.
func (s *Store) read(ctx context.Context, clerkID string) (*record, error) {
	raw, err := s.coll.FindOne(ctx, bson.D{{Key: "clerkId", Value: clerkID}}).Raw()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s.record(raw), nil
}

// record returns a document that was read.
func (s *Store) record(raw bson.Raw) *record { return &record{raw: raw, codec: s.codec} }

// Users implements [clerksync.BatchStore].
func (s *Store) Users(ctx context.Context, clerkIDs []string) (map[string]*clerksync.User, error) {
	return readAll(ctx, s, "users", clerkIDs, nil, (*record).user)
}

// Stamps implements [clerksync.BatchStore].
func (s *Store) Stamps(ctx context.Context, clerkIDs []string) (map[string]clerksync.Stamp, error) {
	return readAll(ctx, s, "stamps", clerkIDs, stampFields, (*record).stamp)
}

// readAll reads the records of clerkIDs, BatchSize at a time. Ids without a record are
// not in the result.
func readAll[T any](ctx context.Context, s *Store, op string, clerkIDs []string, fields bson.D, of func(*record) T) (map[string]T, error) {
	ctx, err := begin(ctx, op)
	if err != nil {
		return nil, err
	}
	found := make(map[string]T, len(clerkIDs))
	ids := slices.Compact(slices.Sorted(slices.Values(clerkIDs)))
	for chunk := range slices.Chunk(ids, s.batchSize) {
		filter := bson.D{{Key: "clerkId", Value: bson.D{{Key: "$in", Value: chunk}}}}
		records, err := s.find(ctx, op, s.batchSize, filter, fields)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if id := r.clerkID(); id != "" {
				found[id] = of(r)
			}
		}
	}
	return found, nil
}

// closeTimeout bounds the command that closes a cursor.
const closeTimeout = 5 * time.Second

// Undeleted implements [clerksync.BatchStore], in one pass over the collection, ten times
// BatchSize records a round trip. It leaves out records whose clerkId is not a string. A
// server ends the pass if the caller pauses for ten minutes, or if another server becomes
// the primary.
func (s *Store) Undeleted(ctx context.Context) iter.Seq2[clerksync.Stamp, error] {
	return pass(ctx, s, "undeleted", stampFields, func(r *record) (clerksync.Stamp, bool) {
		stamp := r.stamp()
		return stamp, stamp.ClerkID != "" && stamp.DeletedAt.IsZero()
	})
}

// pass reads these fields of all documents, in any order, and yields what of returns for each,
// unless of reports false.
func pass[T any](ctx context.Context, s *Store, op string, fields bson.D, of func(*record) (T, bool)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		ctx, err := begin(ctx, op)
		if err != nil {
			yield(none, err)
			return
		}
		cursor, err := s.scan(ctx, op, fields)
		if err != nil {
			yield(none, err)
			return
		}
		defer closeCursor(ctx, cursor)
		r := s.record(nil) // one for all: they are millions
		for cursor.Next(ctx) {
			r.raw = cursor.Current
			element, ok := of(r)
			if !ok {
				continue
			}
			if !yield(element, nil) {
				return
			}
			if err := ctxErr(ctx, op); err != nil {
				yield(none, err)
				return
			}
		}
		if err := cursor.Err(); err != nil {
			yield(none, wrapDriverErr(ctx, op, err))
		}
	}
}

// closeCursor closes a cursor also after ctx has ended: the server keeps an open one for ten
// minutes.
func closeCursor(ctx context.Context, cursor *mongo.Cursor) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = cursor.Close(ctx)
}

// maxScanBatch bounds the memory for a batch of stamps, which are some 200 bytes each.
const maxScanBatch = 20_000

// scan begins to read these fields of all documents, deleted ones too. It has neither order
// nor filter, because some servers sort all that is left for each batch, and search an
// index that matches the filter from its beginning.
func (s *Store) scan(ctx context.Context, op string, fields bson.D) (cursor *mongo.Cursor, err error) {
	opts := options.Find().SetBatchSize(int32(min(10*s.batchSize, maxScanBatch))).SetProjection(s.codec.keys(fields))
	err = s.retry(ctx, op, func() (err error) {
		cursor, err = s.coll.Find(ctx, bson.D{}, opts)
		return err
	})
	return cursor, err
}

// find reads at most limit records, in any order. If fields is nil it reads whole ones.
func (s *Store) find(ctx context.Context, op string, limit int, filter, fields bson.D) (records []*record, err error) {
	err = s.retry(ctx, op, func() (err error) {
		records, err = s.findOnce(ctx, limit, filter, fields)
		return err
	})
	return records, err
}

// findOnce is find without other attempts.
func (s *Store) findOnce(ctx context.Context, limit int, filter, fields bson.D) ([]*record, error) {
	opts := options.Find().
		SetLimit(int64(limit)).
		SetBatchSize(int32(limit) + 1) // all in one reply; by default the first 101 come alone
	if fields != nil {
		opts.SetProjection(s.codec.keys(fields))
	}
	cursor, err := s.coll.Find(ctx, filter, opts)
	if err != nil {
		return nil, err
	}
	var documents []bson.Raw
	if err := cursor.All(ctx, &documents); err != nil {
		return nil, err
	}
	records := make([]*record, len(documents))
	for i, raw := range documents {
		records[i] = s.record(raw)
	}
	return records, nil
}
