package mongostore

import (
	"context"
	"maps"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// encode returns a canonical value as it is stored. The fields of maps get one order, so
// that the server finds equal values equal, and names that every server can hold.
func encode(value any) any {
	switch v := value.(type) {
	case map[string]any:
		d := make(bson.D, 0, len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			d = append(d, bson.E{Key: escapeName(name), Value: encode(v[name])})
		}
		return d
	case []any:
		a := make(bson.A, len(v))
		for i := range v {
			a[i] = encode(v[i])
		}
		return a
	default:
		return v
	}
}

// valueOf returns the value of an Extra field in the types of [clerksync.User.Canonical].
// It is nil for other types, which clerksync does not write.
func valueOf(v bson.RawValue) any {
	switch v.Type {
	case bson.TypeString:
		return v.StringValue()
	case bson.TypeBoolean:
		return v.Boolean()
	case bson.TypeInt32: // mongosh writes whole numbers like this
		return int64(v.Int32())
	case bson.TypeInt64:
		return v.Int64()
	case bson.TypeDouble:
		return v.Double()
	case bson.TypeDateTime:
		return timeOf(v)
	case bson.TypeArray:
		values, _ := v.Array().Values()
		list := make([]any, len(values))
		for i, e := range values {
			list[i] = valueOf(e)
		}
		return list
	case bson.TypeEmbeddedDocument:
		elements, _ := v.Document().Elements()
		m := make(map[string]any, len(elements))
		for _, e := range elements {
			m[unescapeName(e.Key())] = valueOf(e.Value())
		}
		return m
	default:
		return nil
	}
}

// Names in nested values of Extra are often chosen by users, and not every server holds all
// of them: before MongoDB 5.0 none may begin with "$", a path cannot name one with a dot, and
// none may contain NUL (https://www.mongodb.com/docs/manual/core/dot-dollar-considerations/).
// So these characters are stored as in a URL, and the empty name as a word. A percent sign is
// escaped only if it would be read as the beginning of an escape: ordinary names, "100%" too,
// are stored as they are.
var (
	nameEscapes = strings.NewReplacer("$", "%24", ".", "%2E", "\x00", "%00",
		"%24", "%2524", "%2E", "%252E", "%00", "%2500", "%25", "%2525")
	nameUnescapes = strings.NewReplacer("%24", "$", "%2E", ".", "%00", "\x00", "%25", "%")
)

// escapedEmpty stands for the empty name.
const escapedEmpty = "%empty"

func escapeName(name string) string {
	switch name {
	case "":
		return escapedEmpty
	case escapedEmpty:
		return "%25" + escapedEmpty[1:]
	}
	return nameEscapes.Replace(name)
}

// unescapeName reverses escapeName.
func unescapeName(stored string) string {
	if stored == escapedEmpty {
		return ""
	}
	return nameUnescapes.Replace(stored)
}

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
