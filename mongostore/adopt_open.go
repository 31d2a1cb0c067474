package mongostore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// checkFields refuses what an Adopt cannot do under some Fields.
func (a *adopter) checkFields(codec *fieldMap) error {
	if a == nil {
		return nil
	}
	var faults []error
	if codec.idIsClerkID() {
		faults = append(faults, errors.New(`mongostore: open: Adopt gives records a Clerk id, and an _id cannot change: it does not go with Fields{"clerkId": "_id"}`))
	}
	if a.byEmail && codec.drops("email") {
		faults = append(faults, errors.New(`mongostore: open: Adopt.ByEmail needs the record's e-mail address, and Fields does not store it`))
	}
	if path := codec.path("clerkId"); path != "_id" && a.byExternalID != "" && within(a.byExternalID, path) {
		faults = append(faults, fmt.Errorf("mongostore: open: Adopt.ByExternalID is %q, where the Clerk id is", a.byExternalID))
	}
	return errors.Join(faults...)
}

// prepareAdopting refuses collections in which records cannot be adopted, and makes the indexes
// by which they are looked up. It returns all faults, joined.
func (s *Store) prepareAdopting(ctx context.Context) error {
	if s.adopt == nil {
		return nil
	}
	indexes, err := s.indexes(ctx)
	if err != nil {
		return err
	}
	faults := []error{s.refuseDense(ctx, indexes), s.refuseSharded(ctx), s.tryTrusted(ctx)}
	if s.adopt.byEmail {
		faults = append(faults, s.ensureLookup(ctx, indexes, s.codec.path("email")))
	}
	if path := s.adopt.byExternalID; path != "" && path != "_id" {
		faults = append(faults, s.ensureLookup(ctx, indexes, path))
	}
	return errors.Join(faults...)
}

// refuseDense refuses a unique index on clerkId that is neither sparse nor partial: only one
// record may be without a Clerk id.
func (s *Store) refuseDense(ctx context.Context, indexes []index) error {
	for _, ix := range indexes {
		if !ix.makesUnique() || ix.leavesOutAbsent() {
			continue
		}
		if sparse, err := s.isSparse(ctx, ix); sparse || err != nil {
			return err
		}
		return s.denseFault(ix, indexes)
	}
	return nil
}

// denseFault says why an Adopt cannot work with a unique index on clerkId that is not sparse,
// and how to replace the index.
func (s *Store) denseFault(ix index, indexes []index) error {
	replacement := s.clerkIDIndex(indexes)
	return fmt.Errorf("mongostore: open: Adopt needs records without a Clerk id, and the unique index %q on %s is not sparse: only one record may be without; replace it by a sparse one, in mongosh:%s\nOnly if that fails with code 85 or 86 (%s), drop the old index first. %s%s",
		ix.name, s.clerkIDPath(), lines(andThen(s.createLine(replacement), s.dropLine(ix))),
		oneIndexPerKey, s.swap(ix, replacement), mongooseClerkID(replacement))
}

// isSparse reports whether an index is sparse although the server does not list it so, as FerretDB 1
// never does. It asks for the same index with sparse. The name is taken, so that makes none, and it
// fails if the index is not sparse.
func (s *Store) isSparse(ctx context.Context, ix index) (bool, error) {
	elements, _ := without(ix.spec, "sparse").Elements()
	sparse := bson.D{{Key: "sparse", Value: true}}
	for _, e := range elements {
		sparse = append(sparse, bson.E{Key: e.Key(), Value: e.Value()})
	}
	command := bson.D{{Key: "createIndexes", Value: s.coll.Name()}, {Key: "indexes", Value: bson.A{sparse}}}
	err := s.retry(ctx, fmt.Sprintf("open: find out whether the index %q on %s is sparse", ix.name, ix.clerkIDPath()), func() error {
		return s.coll.Database().RunCommand(ctx, command).Err()
	})
	if err != nil && (!answered(err) || mongo.IsTimeout(err)) {
		return false, err
	}
	return err == nil, nil
}

// refuseSharded refuses a collection that is sharded on clerkId: before MongoDB 7.1 an update
// that gives a record its shard key must name the old one. If the user may not read the cluster's
// metadata, a findAndModify that matches nothing shows it: mongos refuses one without the shard key.
// https://www.mongodb.com/docs/manual/core/sharding-change-shard-key-value/
func (s *Store) refuseSharded(ctx context.Context) error {
	const op = "open: find out whether the collection is sharded"
	database := s.coll.Database()
	metadata := database.Client().Database("config").Collection("collections")
	id := bson.D{{Key: "_id", Value: database.Name() + "." + s.coll.Name()}}
	var raw bson.Raw
	err := s.retry(ctx, op, func() (err error) {
		raw, err = metadata.FindOne(ctx, id, options.FindOne().SetProjection(bson.D{{Key: "key", Value: 1}})).Raw()
		if errors.Is(err, mongo.ErrNoDocuments) {
			return nil
		}
		return err
	})
	sharded := false
	switch {
	case err == nil:
		key, _ := raw.Lookup("key").DocumentOK()
		sharded = slices.Contains(index{keys: key}.fields(), s.clerkIDPath())
	case answered(err):
		err = s.retry(ctx, op, func() error {
			err := s.coll.FindOneAndUpdate(ctx, bson.D{{Key: "_id", Value: bson.NewObjectID()}}, s.noChange()).Err()
			if errors.Is(err, mongo.ErrNoDocuments) {
				return nil
			}
			return err
		})
		sharded = hasCode(err, codeShardKeyNotFound)
		if answered(err) {
			err = nil
		}
	}
	if sharded {
		return fmt.Errorf("mongostore: open: Adopt gives records a Clerk id, and the collection is sharded on %s: link the records before it is sharded", s.clerkIDPath())
	}
	return err
}

// codeShardKeyNotFound is the code of mongos for a findAndModify without the shard key.
const codeShardKeyNotFound = 61

// tryTrusted finds out whether the server takes Trusted for a filter.
func (s *Store) tryTrusted(ctx context.Context) error {
	if s.adopt.trusted == nil {
		return nil
	}
	filter := append(s.nothing(), s.adopt.isTrusted())
	_, err := s.find(ctx, "open: try Adopt.Trusted, which must be a filter", 1, filter, nil)
	return err
}

// ensureLookup makes an index on a path unless there is one that serves lookups. Without one,
// the first sync of each user would read the whole collection.
func (s *Store) ensureLookup(ctx context.Context, indexes []index, path string) error {
	for attempt := 1; ; attempt++ {
		if slices.ContainsFunc(indexes, func(ix index) bool { return ix.serves(path) }) {
			return nil
		}
		keys, _ := bson.Marshal(bson.D{{Key: path, Value: 1}})
		wanted := index{name: path + "_1", keys: keys}
		if slices.ContainsFunc(indexes, func(ix index) bool { return ix.name == wanted.name }) {
			wanted.name = "clerksync_" + path
		}
		_, err := s.coll.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: keys, Options: options.Index().SetName(wanted.name)})
		if err == nil {
			return nil
		}
		if attempt == indexAttempts || !answered(err) || hasCode(err, codeUnauthorized) || !sleep(ctx, 10*backoff(attempt)) {
			return wrapDriverErr(ctx, "open: Adopt looks records up by "+path+", and no index serves that; have it created: "+s.createLine(wanted), err)
		}
		if indexes, err = s.indexes(ctx); err != nil { // another process may have created it
			return err
		}
	}
}

// serves reports whether lookups of texts and numbers at a path use the index.
func (ix index) serves(path string) bool {
	fields := ix.fields()
	if len(fields) == 0 || fields[0] != path || ix.collation != nil || ix.hidden() {
		return false
	}
	kind, isText := ix.keys.Lookup(path).StringValueOK()
	if isText && kind != "hashed" {
		return false
	}
	ix.clerkID = path // whose condition it is
	operator, v := ix.condition()
	return ix.partial == nil || operator == "$exists" && isTrue(v)
}
