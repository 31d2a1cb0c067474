package mongostore

import (
	"context"
	"iter"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
)

// UpsertBatch implements [clerksync.BatchStore]. Users who are new or newer than
// their records, in any mixture, take one command for each BatchSize: an unordered
// bulk of the writes of [Store.Upsert], or, for a hundred or more after as many who were
// all new, of plain inserts. Users whom that leaves open (equal to their
// records, older, deleted, without a version, in the way of a unique index) are
// read together and, where they need it, written together. Where another writer
// comes in between, or the server refuses something, those records are settled
// one by one. A batch after one that was mostly left open is read first.
//
// If the server cannot be reached any more the error is a [*clerksync.BatchError]
// all the same; the users not yet tried fail with the same cause.
func (s *Store) UpsertBatch(ctx context.Context, us []*clerksync.User) ([]clerksync.Result, error) {
	ctx, err := enter(ctx, "upsert batch")
	if err != nil {
		return nil, err
	}
	b := &batch{Store: s, results: make([]clerksync.Result, len(us)), errs: make(map[int]error)}
	// A user who comes twice is in two rounds: each sees what the one before wrote.
	var rounds [][]*item
	times := make(map[string]int)
	for i, u := range us {
		up, err := s.newUpsert(u)
		if err != nil {
			b.errs[i] = err
			continue
		}
		round := times[u.ClerkID]
		times[u.ClerkID]++
		if round == len(rounds) {
			rounds = append(rounds, nil)
		}
		rounds[round] = append(rounds[round], &item{upsert: up, index: i})
	}
	for i, round := range rounds {
		for items := range slices.Chunk(round, s.batchSize) {
			b.apply(ctx, items, i == 0)
		}
	}
	if len(b.errs) > 0 {
		return b.results, &clerksync.BatchError{Errs: b.errs}
	}
	return b.results, nil
}

// batch is one call of UpsertBatch.
type batch struct {
	*Store
	results []clerksync.Result
	errs    map[int]error
	down    error // nobody answers; do not keep asking
}

// item is one user of a batch.
type item struct {
	*upsert
	index  int
	result clerksync.Result // if what is planned is done
	sent   bool             // a guarded upsert is under way or done: the server did not say that it refused it
	passes bool             // a guarded upsert writes it, or would have
}

// apply upserts items of different users. Those who come again are read first: what
// the round before wrote tells nothing of the next batch.
func (b *batch) apply(ctx context.Context, items []*item, first bool) {
	if b.down != nil {
		b.fail(items, b.down)
		return
	}
	if !first {
		b.decide(ctx, items)
		return
	}
	rest := b.try(ctx, items, b.guess(items))
	if len(rest) == 0 || b.decide(ctx, rest) {
		b.learn(items)
	}
}

// decide reads items, and writes those that need it. It reports whether they could
// be read.
func (b *batch) decide(ctx context.Context, items []*item) bool {
	records, err := b.records(ctx, "upsert batch", items)
	if err != nil {
		b.fail(items, err)
		return false
	}

	var planned []*item
	var models []mongo.WriteModel
	var inserts, updates int64
	for _, it := range items {
		r := records[it.u.ClerkID]
		var model mongo.WriteModel
		outcome := r.decide(it.u, it.time)
		if outcome == clerksync.Unchanged && it.wrote(r) {
			b.results[it.index], it.passes = it.written(clerksync.Updated), true
			continue
		}
		it.passes = it.wouldPass(r, outcome)
		switch outcome {
		case clerksync.Created:
			// Not the guarded upsert, so that it is certain who created the record.
			model = mongo.NewInsertOneModel().SetDocument(it.document())
			it.result = it.written(outcome)
			inserts++
		case clerksync.Updated:
			model = mongo.NewUpdateOneModel().SetFilter(r.asRead()).SetUpdate(it.update(r.lost(it.u)))
			it.result = clerksync.Result{Outcome: it.outcome(r, outcome)}
			updates++
		case clerksync.Unchanged:
			it.result = it.unchanged(r)
			if _, moved := r.confirmed(it.u); !moved {
				b.results[it.index] = it.result
				continue
			}
			model = mongo.NewUpdateOneModel().SetFilter(r.asRead()).SetUpdate(it.moves())
			updates++
		default:
			b.results[it.index] = clerksync.Result{Outcome: it.outcome(r, outcome), User: r.user()}
			continue
		}
		planned, models = append(planned, it), append(models, model)
	}

	if len(models) > 0 {
		res, err := b.coll.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false))
		if err != nil || res.InsertedCount != inserts || res.MatchedCount != updates {
			var rest []*item
			planned, rest = b.check(ctx, planned)
			b.settle(ctx, rest)
		}
	}
	for _, it := range planned {
		b.results[it.index] = it.result
	}
	return true
}

// wrote reports whether r, which equals u, does so by the guarded upsert that was
// sent. Where the server did not say what became of it, the time tells.
func (it *item) wrote(r *record) bool {
	return it.sent && !r.is(it.id) && dateOf(r.raw, "updatedAt").Equal(it.time)
}

// wouldPass reports whether a guarded upsert over r writes.
func (it *item) wouldPass(r *record, outcome clerksync.Outcome) bool {
	if r == nil || r.is(it.id) {
		return true
	}
	return outcome == clerksync.Updated && !dateOf(r.raw, "clerkUpdatedAt").Equal(it.u.ClerkUpdatedAt) &&
		slices.Equal(extraFields(r.raw), it.extraNames())
}

// check finds out by reading which of the planned writes were done. Errors and
// counts do not tell: servers differ in what they say of an unordered
// bulk write that failed in part.
func (b *batch) check(ctx context.Context, planned []*item) (done, rest []*item) {
	records, err := b.records(ctx, "upsert batch", planned)
	if err != nil {
		return nil, planned
	}
	for _, it := range planned {
		r := records[it.u.ClerkID]
		if r == nil || r.decide(it.u, it.time) != clerksync.Unchanged ||
			it.result.Outcome == clerksync.Created && !r.is(it.id) {
			rest = append(rest, it)
			continue
		}
		if it.result.User != nil {
			it.result.User = r.user()
		}
		done = append(done, it)
	}
	return done, rest
}

// settle upserts items one by one.
func (b *batch) settle(ctx context.Context, items []*item) {
	for i, it := range items {
		res, err := it.run(ctx)
		if err != nil {
			if unreachable(err) {
				b.fail(items[i:], err)
				return
			}
			b.errs[it.index] = err
		}
		b.results[it.index] = res
	}
}

func (b *batch) fail(items []*item, err error) {
	if unreachable(err) {
		b.down = err
	}
	for _, it := range items {
		b.errs[it.index] = err
	}
}

func (b *batch) records(ctx context.Context, op string, items []*item) (map[string]*record, error) {
	ids := make([]string, len(items))
	for i, it := range items {
		ids[i] = it.u.ClerkID
	}
	return lookup(ctx, b.Store, op, ids, nil, func(r *record) *record { return r })
}

// Users implements [clerksync.BatchStore].
func (s *Store) Users(ctx context.Context, clerkIDs []string) (map[string]*clerksync.User, error) {
	return lookup(ctx, s, "users", clerkIDs, nil, (*record).user)
}

// Stamps implements [clerksync.BatchStore].
func (s *Store) Stamps(ctx context.Context, clerkIDs []string) (map[string]clerksync.Stamp, error) {
	return lookup(ctx, s, "stamps", clerkIDs, stampFields, (*record).stamp)
}

// lookup reads the records that there are of clerkIDs, BatchSize at a time.
func lookup[T any](ctx context.Context, s *Store, op string, clerkIDs []string, fields bson.D, of func(*record) T) (map[string]T, error) {
	ctx, err := enter(ctx, op)
	if err != nil {
		return nil, err
	}
	found := make(map[string]T, len(clerkIDs))
	ids := slices.Compact(slices.Sorted(slices.Values(clerkIDs)))
	for chunk := range slices.Chunk(ids, s.batchSize) {
		filter := bson.D{{Key: "clerkId", Value: bson.D{{Key: "$in", Value: chunk}}}}
		records, err := s.find(ctx, op, s.batchSize, filter, fields, nil)
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

// Undeleted implements [clerksync.BatchStore], by keyset pages of BatchSize and
// more: no cursor is open while the caller works, so nothing times out. Records
// whose clerkId is not a string are not among them.
func (s *Store) Undeleted(ctx context.Context) iter.Seq2[clerksync.Stamp, error] {
	const op = "undeleted"
	return func(yield func(clerksync.Stamp, error) bool) {
		ctx, err := enter(ctx, op)
		if err != nil {
			yield(clerksync.Stamp{}, err)
			return
		}
		// The pages grow, as some servers sort all that is left for each.
		limit := s.batchSize
		for last, more := "", true; more; limit = min(2*limit, 20*s.batchSize) {
			filter := bson.D{{Key: "clerkId", Value: bson.D{{Key: "$gt", Value: last}}}, undeleted}
			page, err := s.find(ctx, op, limit, filter, stampFields, bson.D{{Key: "clerkId", Value: 1}})
			if err != nil {
				yield(clerksync.Stamp{}, err)
				return
			}
			more = false
			for _, r := range page {
				if r.clerkID() <= last {
					continue // an array that holds a string, say
				}
				last = r.clerkID()
				more = len(page) == limit
				if !yield(r.stamp(), nil) {
					return
				}
				if err := alive(ctx, op); err != nil {
					yield(clerksync.Stamp{}, err)
					return
				}
			}
		}
	}
}

// find reads at most limit records, whole and in any order unless fields and order
// say otherwise.
func (s *Store) find(ctx context.Context, op string, limit int, filter, fields, order bson.D) ([]*record, error) {
	opts := options.Find().
		SetLimit(int64(limit)).
		SetBatchSize(int32(limit) + 1) // all at once, the end included; else the first 101 come alone
	if fields != nil {
		opts.SetProjection(fields)
	}
	if order != nil {
		opts.SetSort(order)
	}
	var records []*record
	err := s.retry(ctx, op, func() error {
		cursor, err := s.coll.Find(ctx, filter, opts)
		if err != nil {
			return err
		}
		var documents []bson.Raw
		if err := cursor.All(ctx, &documents); err != nil {
			return err
		}
		records = make([]*record, len(documents))
		for i, raw := range documents {
			records[i] = &record{raw: raw}
		}
		return nil
	})
	return records, err
}
