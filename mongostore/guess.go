package mongostore

import (
	"context"
	"errors"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/clerksync"
)

// guess is how UpsertBatch begins: with the one command that suffices if the batch is
// like the last one. A wrong guess costs only that command: users who are not certainly
// written are then read and decided on.
type guess int32

const (
	// guessWritable: most users are new or newer. Guarded upserts write these.
	guessWritable guess = iota
	// guessNew: all users are new, and many, as in a backfill. Inserts take half the
	// time of upserts.
	guessNew
	// guessReadFirst: most users are equal to their records, older, deleted or with other
	// names in Extra, and their guarded upserts would fail. Read first.
	guessReadFirst
)

// backfillSize is how many users make a batch part of a backfill. For the few of a run
// that keeps up, inserts do not pay.
const backfillSize = 100

// guess returns what to begin with for these items.
func (b *batch) guess(items []*item) guess {
	g := guess(b.store.next.Load())
	if g == guessNew && len(items) < b.store.backfillSize {
		g = guessWritable
	}
	if g == guessWritable && b.store.codec.drops("updatedAt") { // the item could not tell what it wrote
		return guessReadFirst
	}
	return g
}

// learn sets the guess for the next batch by the results of this one.
func (b *batch) learn(items []*item) {
	created, passed := 0, 0
	for _, it := range items {
		if b.results[it.index].Outcome == clerksync.Created {
			created++
		}
		if it.passes && b.errs[it.index] == nil {
			passed++
		}
	}
	next := guessWritable
	switch {
	case created == len(items) && created >= b.store.backfillSize:
		next = guessNew
	case passed < len(items)-passed:
		next = guessReadFirst
	}
	b.store.next.Store(int32(next))
}

// tryUnread writes items in one command without reading them first. It returns those
// that are not certainly written.
func (b *batch) tryUnread(ctx context.Context, items []*item, g guess) (rest []*item) {
	sent, models, rest := unreadModels(items, g)
	if len(models) == 0 {
		return rest
	}
	res, err := b.store.coll.BulkWrite(ctx, models)
	told := readBulk(res, err, len(models))
	unconfirmed := unconfirmed(ctx, err)
	for _, it := range sent {
		it.unconfirmed = unconfirmed
	}
	for _, i := range told.failed {
		sent[i].sent, sent[i].unconfirmed = false, nil
	}
	for _, it := range sent {
		switch {
		case told.upserted[it.up.recordID()], told.all && g == guessNew:
			it.result = it.up.written(clerksync.Created)
		case told.all:
			it.result = it.up.written(clerksync.Updated)
		default:
			rest = append(rest, it)
			continue
		}
		it.passes = true
		b.conclude(ctx, it)
	}
	return rest
}

// unreadModels returns the writes to begin with and their items, and apart from them the
// items that must be read first.
func unreadModels(items []*item, g guess) (sent []*item, models []mongo.WriteModel, rest []*item) {
	for _, it := range items {
		switch {
		case len(it.up.u.Omit) > 0: // the write depends on the record
			rest = append(rest, it)
			continue
		case g == guessNew && !it.up.mayAdopt():
			models = append(models, mongo.NewInsertOneModel().SetDocument(it.up.document()))
		case g == guessWritable && it.up.guardable():
			models = append(models, it.up.guardedModel())
			it.sent = true
		default:
			rest = append(rest, it)
			continue
		}
		sent = append(sent, it)
	}
	return sent, models, rest
}

// guardedModel is the write of a user who is new or newer. It does not insert one who may adopt
// a record.
func (up *upsert) guardedModel() mongo.WriteModel {
	model := mongo.NewUpdateOneModel().SetFilter(up.guard())
	if up.mayAdopt() {
		return model.SetUpdate(up.update(nil))
	}
	return model.SetUpdate(up.guardedUpdate()).SetUpsert(true)
}

// bulkAnswer is what a server's answer to an unordered bulk says for certain.
type bulkAnswer struct {
	all bool // every model was written
	// upserted holds the _ids of new records. Servers get these right, even if they
	// number the models of a bulk wrongly.
	upserted map[any]bool
	failed   []int // indexes of models; none if the counts do not add up
}

// readBulk reads the answer to a bulk of n models. res may be nil.
func readBulk(res *mongo.BulkWriteResult, err error, n int) bulkAnswer {
	if res == nil {
		res = &mongo.BulkWriteResult{}
	}
	written := int(res.InsertedCount + res.MatchedCount + res.UpsertedCount)
	answer := bulkAnswer{
		all:      err == nil && written == n && int(res.UpsertedCount) == len(res.UpsertedIDs),
		upserted: make(map[any]bool, len(res.UpsertedIDs)),
	}
	for _, id := range res.UpsertedIDs {
		switch id.(type) {
		case bson.ObjectID, string: // others may be no keys of a map
			answer.upserted[id] = true
		}
	}
	bulk := mongo.BulkWriteException{}
	if !errors.As(err, &bulk) || written+len(bulk.WriteErrors) != n {
		return answer
	}
	for _, we := range bulk.WriteErrors {
		if 0 <= we.Index && we.Index < n {
			answer.failed = append(answer.failed, we.Index)
		}
	}
	return answer
}
