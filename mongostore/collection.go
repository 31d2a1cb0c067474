package mongostore

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// collection is the app's collection. Its methods are those of the driver, and take filters and
// updates in the record's names. What Aggregate and InsertOne take, and the documents of a
// BulkWrite, are in the collection's names: fieldMap.document makes them.
type collection struct {
	raw   *mongo.Collection
	codec *fieldMap
}

func (c collection) Name() string              { return c.raw.Name() }
func (c collection) Database() *mongo.Database { return c.raw.Database() }
func (c collection) Indexes() mongo.IndexView  { return c.raw.Indexes() }

func (c collection) Aggregate(
	ctx context.Context, pipeline bson.A, opts ...options.Lister[options.AggregateOptions],
) (*mongo.Cursor, error) {
	return c.raw.Aggregate(ctx, pipeline, opts...)
}

// Find does not translate the projection in opts; see fieldMap.keys.
func (c collection) Find(ctx context.Context, filter bson.D, opts ...options.Lister[options.FindOptions]) (*mongo.Cursor, error) {
	return c.raw.Find(ctx, c.codec.filter(filter), opts...)
}

func (c collection) FindOne(ctx context.Context, filter bson.D, opts ...options.Lister[options.FindOneOptions]) *mongo.SingleResult {
	return c.raw.FindOne(ctx, c.codec.filter(filter), opts...)
}

func (c collection) FindOneAndUpdate(
	ctx context.Context, filter, update bson.D, opts ...options.Lister[options.FindOneAndUpdateOptions],
) *mongo.SingleResult {
	return c.raw.FindOneAndUpdate(ctx, c.codec.filter(filter), c.codec.update(update), opts...)
}

func (c collection) UpdateOne(
	ctx context.Context, filter, update bson.D, opts ...options.Lister[options.UpdateOneOptions],
) (*mongo.UpdateResult, error) {
	return c.raw.UpdateOne(ctx, c.codec.filter(filter), c.codec.update(update), opts...)
}

func (c collection) UpdateMany(
	ctx context.Context, filter, update bson.D, opts ...options.Lister[options.UpdateManyOptions],
) (*mongo.UpdateResult, error) {
	return c.raw.UpdateMany(ctx, c.codec.filter(filter), c.codec.update(update), opts...)
}

func (c collection) InsertOne(ctx context.Context, document bson.D) (*mongo.InsertOneResult, error) {
	return c.raw.InsertOne(ctx, document)
}

// BulkWrite sends an unordered bulk. It may translate models in place, so they are not to be
// sent again.
func (c collection) BulkWrite(ctx context.Context, models []mongo.WriteModel) (*mongo.BulkWriteResult, error) {
	if c.codec != nil {
		for _, model := range models {
			if m, ok := model.(*mongo.UpdateOneModel); ok {
				m.Filter, m.Update = c.codec.filter(m.Filter.(bson.D)), c.codec.update(m.Update.(bson.D))
			}
		}
	}
	return c.raw.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false))
}
