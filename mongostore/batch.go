package mongostore

import (
	"context"
	"errors"
	"slices"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/clerksync"
)

// UpsertBatch implements [clerksync.BatchStore]. Users who are new or newer than their
// records, in any mixture, take one command for each BatchSize: an unordered bulk of the
// writes of [Store.Upsert]. A hundred or more users that follow as many new ones are
// written by plain inserts. All users that this leaves undecided (equal to their
// records, older, deleted, without a version, with Omit, rejected by a unique index, or with
// a record that clerksync has never written) are read
// together and, if they need it, written together. If another writer comes in between,
// or the server rejects a write, those records are settled one by one. So a user may be
// written twice, which changes nothing unless the app wrote Clerk's fields in between. After
// a batch that was mostly left undecided, the next one is read first.
//
// If too few members confirm a command, each user whose record it wrote fails with that error,
// as with Upsert. Doing it again is safe.
//
// If the server becomes unreachable, the error is still a [*clerksync.BatchError]; the
// users not yet tried fail with the same cause.
func (s *Store) UpsertBatch(ctx context.Context, us []*clerksync.User) ([]clerksync.Result, error) {
	ctx, err := begin(ctx, "upsert batch")
	if err != nil {
		return nil, err
	}
	b := &batch{store: s, results: make([]clerksync.Result, len(us)), errs: make(map[int]error)}
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
		rounds[round] = append(rounds[round], &item{up: up, index: i})
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
	store   *Store
	results []clerksync.Result
	errs    map[int]error
	down    error // the server is unreachable: do not try again
}

// item is one user of a batch.
type item struct {
	up     *upsert
	index  int
	result clerksync.Result // if the planned write succeeds
	sent   bool             // a guarded upsert was sent, and the server did not say that it failed
	passes bool             // a guarded upsert wrote it, or would have
	adopts *adoption        // if that is the planned write
	// unconfirmed is the error of the last command that wrote the item, or may have: too few
	// members confirmed it.
	unconfirmed error
}

// apply upserts items of different users. Those that come again are read first, and
// teach nothing about the next batch: the round before has just written them.
func (b *batch) apply(ctx context.Context, items []*item, first bool) {
	if b.down != nil {
		b.fail(items, b.down)
		return
	}
	if !first {
		b.decide(ctx, items)
		return
	}
	rest := b.tryUnread(ctx, items, b.guess(items))
	if len(rest) == 0 || b.decide(ctx, rest) {
		b.learn(items)
	}
}

// decide reads items and writes those that need it. It reports whether they could be
// read.
func (b *batch) decide(ctx context.Context, items []*item) bool {
	found, err := b.look(ctx, items)
	if err != nil {
		b.fail(items, err)
		return false
	}
	items, alone := found.complete(items)
	var planned []*item
	var models []mongo.WriteModel
	var inserts, updates int64
	for _, it := range items {
		model := b.plan(it, found)
		switch model.(type) {
		case nil:
			if o := it.result.Outcome; o != clerksync.Created && o != clerksync.Updated && o != clerksync.Adopted {
				it.unconfirmed = nil // it is not this batch's write that the record shows
			}
			b.conclude(ctx, it)
			continue
		case *mongo.InsertOneModel:
			inserts++
		default:
			updates++
		}
		planned, models = append(planned, it), append(models, model)
	}

	if len(models) > 0 {
		res, err := b.store.coll.BulkWrite(ctx, models)
		for _, it := range planned {
			it.unconfirmed = unconfirmed(ctx, err)
		}
		if err != nil || res.InsertedCount != inserts || res.MatchedCount != updates {
			var rest []*item
			planned, rest = b.check(ctx, planned)
			alone = append(alone, b.refuseUntrusted(ctx, rest)...)
		}
	}
	for _, it := range planned {
		b.conclude(ctx, it)
	}
	b.settle(ctx, alone)
	return true
}

// conclude sets the result of an item that is written. If too few members confirmed it, that
// is an error, as it is for Upsert.
func (b *batch) conclude(ctx context.Context, it *item) {
	switch {
	case it.unconfirmed == nil:
		b.results[it.index] = it.result
	case transient(it.unconfirmed):
		b.settle(ctx, []*item{it})
	default:
		b.errs[it.index] = it.unconfirmed
	}
}

// unconfirmed returns what err says about the write concern of a whole bulk; nil if nothing.
func unconfirmed(ctx context.Context, err error) error {
	bulk := mongo.BulkWriteException{}
	if !errors.As(err, &bulk) || bulk.WriteConcernError == nil {
		return nil
	}
	bulk.WriteErrors = nil // of other users
	return wrapDriverErr(ctx, "upsert batch", bulk)
}

// plan sets an item's result or error, and returns the write that it needs, nil for none.
func (b *batch) plan(it *item, found *sighting) mongo.WriteModel {
	up, r := it.up, found.own[it.up.u.ClerkID]
	outcome := r.decide(up.u, up.time)
	if outcome == clerksync.Unchanged && it.wrote(r) {
		it.result, it.passes = up.written(clerksync.Updated), true
		return nil
	}
	it.passes = it.wouldPass(r, outcome)
	if r == nil && len(up.u.Omit) > 0 {
		b.errs[it.index] = errNoRecord
		return nil
	}
	if r == nil && up.mayAdopt() {
		switch c := b.store.adopt.choose(up.u, found); {
		case c.err != nil:
			b.errs[it.index] = c.err
			return nil
		case c.adopt != nil:
			a := up.adoption(c)
			it.adopts, it.result = &a, clerksync.Result{Outcome: clerksync.Adopted}
			return mongo.NewUpdateOneModel().SetFilter(a.filter).SetUpdate(a.update)
		}
	}
	if r == nil {
		it.result = up.written(outcome)
		// The guarded upsert would leave open who created the record.
		return mongo.NewInsertOneModel().SetDocument(up.document())
	}
	p, err := up.plan(r)
	if err != nil {
		b.errs[it.index] = err
		return nil
	}
	it.result = p.result
	if p.update == nil {
		return nil
	}
	return mongo.NewUpdateOneModel().SetFilter(p.filter).SetUpdate(p.update)
}

// wrote reports whether r equals u because this item's guarded upsert updated it.
func (it *item) wrote(r *record) bool {
	return it.sent && !it.up.inserted(r) && it.stamped(r)
}

// stamped reports whether this item wrote r last, and not another call with the same user.
// If the server did not say what it wrote, updatedAt tells. If that is not stored, nothing does;
// see guess.
func (it *item) stamped(r *record) bool { return r.date("updatedAt").Equal(it.up.time) }

// didWrite reports whether r, which equals u, is the result of the planned write.
func (it *item) didWrite(r *record) bool {
	switch it.result.Outcome {
	case clerksync.Created:
		return it.up.inserted(r)
	case clerksync.Adopted:
		return it.up.adopted(r)
	case clerksync.Updated:
		return it.stamped(r)
	default:
		return true
	}
}

// wouldPass reports whether a guarded upsert over r writes.
func (it *item) wouldPass(r *record, outcome clerksync.Outcome) bool {
	if len(it.up.u.Omit) > 0 {
		return false
	}
	if r == nil {
		return !it.up.mayAdopt()
	}
	if it.up.inserted(r) {
		return true
	}
	return outcome == clerksync.Updated && !r.unconfirmed() && !r.date("clerkUpdatedAt").Equal(it.up.u.ClerkUpdatedAt) &&
		slices.Equal(r.extraFields(), it.up.extraNames())
}

// check reads which of the planned writes succeeded. Errors and counts do not tell:
// servers report a partial failure of an unordered bulk differently.
func (b *batch) check(ctx context.Context, planned []*item) (done, rest []*item) {
	records, err := b.records(ctx, planned)
	if err != nil {
		return nil, planned
	}
	for _, it := range planned {
		r := records[it.up.u.ClerkID]
		if r == nil || r.decide(it.up.u, it.up.time) != clerksync.Unchanged || !it.didWrite(r) {
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
		res, err := it.up.run(ctx)
		if err != nil {
			if unreachable(err) && !errors.Is(err, errNoRecord) {
				b.fail(items[i:], err)
				return
			}
			b.errs[it.index] = err
		}
		b.results[it.index] = res
	}
}

// fail sets the error of items. If err says that the server is unreachable, it also
// ends the batch.
func (b *batch) fail(items []*item, err error) {
	if unreachable(err) {
		b.down = err
	}
	for _, it := range items {
		b.errs[it.index] = err
	}
}

func (b *batch) records(ctx context.Context, items []*item) (map[string]*record, error) {
	ids := make([]string, len(items))
	for i, it := range items {
		ids[i] = it.up.u.ClerkID
	}
	return readAll(ctx, b.store, "upsert batch", ids, nil, func(r *record) *record { return r })
}
