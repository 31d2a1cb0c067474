package mongostore

import (
	"context"
	"errors"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
)

// guess is how UpsertBatch begins: with the one command that would be enough if
// the batch is like the last one. A wrong guess costs that command, and nothing
// else: what is not certain to be done is read and decided on.
type guess int32

const (
	// guessWritable: most are new or newer. Guarded upserts write these.
	guessWritable guess = iota
	// guessNew: all are new and many, as in a backfill. Inserts take half the time of
	// upserts.
	guessNew
	// guessRefused: most are as the record, older, deleted or with other names in
	// Extra, and their guarded upserts would be refused. Read first.
	guessRefused
)

// manyNew is how many users make a batch part of a backfill. Inserts do not pay for
// the few of a run that keeps up.
const manyNew = 100

// guess is what to begin with for these items.
func (b *batch) guess(items []*item) guess {
	g := guess(b.next.Load())
	if g == guessNew && len(items) < manyNew {
		return guessWritable
	}
	return g
}

// learn guesses the next batch from this one.
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
	case created == len(items) && created >= manyNew:
		next = guessNew
	case passed < len(items)-passed:
		next = guessRefused
	}
	b.next.Store(int32(next))
}

// try writes items unread, in one command, and returns those not known to be done.
// What was created is told by _ids, which servers get right even where they
// number the models of a bulk wrongly.
func (b *batch) try(ctx context.Context, items []*item, g guess) (rest []*item) {
	var sent []*item
	var models []mongo.WriteModel
	for _, it := range items {
		switch {
		case g == guessNew:
			models = append(models, mongo.NewInsertOneModel().SetDocument(it.document()))
		case g == guessWritable && !it.u.ClerkUpdatedAt.IsZero():
			models = append(models, mongo.NewUpdateOneModel().SetFilter(it.guard()).SetUpdate(it.guardedUpdate()).SetUpsert(true))
			it.sent = true
		default:
			rest = append(rest, it)
			continue
		}
		sent = append(sent, it)
	}
	if len(models) == 0 {
		return rest
	}
	res, err := b.coll.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false))
	if res == nil {
		res = &mongo.BulkWriteResult{}
	}
	written := res.InsertedCount + res.MatchedCount + res.UpsertedCount
	all := err == nil && written == int64(len(models)) && res.UpsertedCount == int64(len(res.UpsertedIDs))
	if bulk := (mongo.BulkWriteException{}); errors.As(err, &bulk) && written+int64(len(bulk.WriteErrors)) == int64(len(models)) {
		for _, we := range bulk.WriteErrors {
			if 0 <= we.Index && we.Index < len(sent) {
				sent[we.Index].sent = false
			}
		}
	}
	upserted := make(map[bson.ObjectID]bool, len(res.UpsertedIDs))
	for _, id := range res.UpsertedIDs {
		if id, ok := id.(bson.ObjectID); ok {
			upserted[id] = true
		}
	}
	for _, it := range sent {
		switch {
		case upserted[it.id], all && g == guessNew:
			b.results[it.index] = it.written(clerksync.Created)
		case all:
			b.results[it.index] = it.written(clerksync.Updated)
		default:
			rest = append(rest, it)
			continue
		}
		it.passes = true
	}
	return rest
}
