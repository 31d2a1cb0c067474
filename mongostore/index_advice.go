package mongostore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// Advice about indexes is for mongosh. It builds before it destroys: a new index has a name
// of its own, and the old one goes when the new one is there. Where a server allows one
// index on a key only, the advice ends with the line that brings the old one back.

// oneIndexPerKey says which servers refuse a second index on the same keys.
// https://jira.mongodb.org/browse/SERVER-47657 (unique and sparse count since MongoDB 5.0),
// https://github.com/gravitee-io/gravitee-api-management/pull/19258 (Amazon DocumentDB)
const oneIndexPerKey = "MongoDB before 5.0 and Amazon DocumentDB allow one index on the same keys"

// shell returns the collection as mongosh names it.
func (s *Store) shell() string { return fmt.Sprintf("db.getCollection(%s)", shellText(s.coll.Name())) }

// createLine returns the mongosh line that creates an index.
func (s *Store) createLine(ix index) string {
	return fmt.Sprintf("%s.createIndex(%s, %s)", s.shell(), shellDocument(ix.keys), ix.shellOptions())
}

func (s *Store) dropLine(ix index) string {
	return fmt.Sprintf("%s.dropIndex(%s)", s.shell(), shellText(ix.name))
}

// lines puts each line of mongosh on a line of its own.
func lines(lines ...string) string { return "\n\t" + strings.Join(lines, "\n\t") }

// andThen puts two statements on one line. If the first fails, mongosh does not run the second;
// on lines of their own it would.
func andThen(first, second string) string { return first + "; " + second }

// shellOptions returns all options of the index, as createIndex takes them.
func (ix index) shellOptions() string {
	parts := []string{"name: " + shellText(ix.name)}
	if ix.unique {
		parts = append(parts, "unique: true")
	}
	if ix.sparse {
		parts = append(parts, "sparse: true")
	}
	if ix.partial != nil {
		parts = append(parts, "partialFilterExpression: "+shellDocument(ix.partial))
	}
	if ix.collation != nil {
		parts = append(parts, "collation: "+shellDocument(without(ix.collation, "version")))
	}
	elements, _ := ix.others.Elements()
	for _, e := range elements {
		parts = append(parts, shellText(e.Key())+": "+shellValue(e.Value()))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// without returns a document without some fields.
func without(d bson.Raw, names ...string) bson.Raw {
	elements, _ := d.Elements()
	rest := bson.D{}
	for _, e := range elements {
		if !slices.Contains(names, e.Key()) {
			rest = append(rest, bson.E{Key: e.Key(), Value: e.Value()})
		}
	}
	raw, _ := bson.Marshal(rest)
	return raw
}

// replaceByPartial says how to replace a unique index by one that leaves out records without
// a value. indexes are all that there are.
func (s *Store) replaceByPartial(old index, indexes []index) string {
	partial := old.partialForm(indexes)
	if slices.ContainsFunc(indexes, partial.equals) {
		return fmt.Sprintf("the index %q takes its place; drop this one, in mongosh:", partial.name) +
			lines(s.dropLine(old)) + s.inMongoose(partial, indexes)
	}
	return "replace it by a partial one, in mongosh:" + lines(andThen(s.createLine(partial), s.dropLine(old))) +
		"\nOnly if that fails with code 85 or 86 (" + oneIndexPerKey + "), drop the old index first. " +
		s.swap(old, partial) + s.inMongoose(partial, indexes)
}

// dropCollated says how to get rid of a unique index on clerkId that has a collation.
func (s *Store) dropCollated(old index, indexes []index) string {
	if slices.ContainsFunc(indexes, index.keepsClerkID) {
		return "drop it: " + s.dropLine(old)
	}
	wanted := s.clerkIDIndex(indexes)
	return "make one without, and drop it then, in mongosh:" + lines(andThen(s.createLine(wanted), s.dropLine(old))) +
		mongooseClerkID(wanted)
}

// swap says how to replace an index on a server that allows one on a key.
func (s *Store) swap(old, replacement index) string {
	return "If the second of these lines fails, the third one brings it back:" +
		lines(s.dropLine(old), s.createLine(replacement), s.createLine(old))
}

// replaceOnClerkID says what to do about an index on clerkId that is not enough and does not
// let another one be made beside it.
func (s *Store) replaceOnClerkID(old index) string {
	wanted := s.clerkIDIndex(nil)
	wanted.name = old.name
	path := s.clerkIDPath()
	shown := old
	shown.others = without(old.others, "hidden")
	switch {
	case shown.keepsClerkID():
		return fmt.Sprintf("the index %q on %s is hidden, so that every lookup reads the whole collection; show it to the server, in mongosh:",
			old.name, path) + lines(fmt.Sprintf("%s.unhideIndex(%s)", s.shell(), shellText(old.name)))
	case old.makesUnique():
		return fmt.Sprintf("the index %q on %s, whose filter keeps MongoDB from using it for lookups, stands in the way of one that it uses; replace it, in mongosh. %s",
			old.name, path, s.swap(old, wanted)) + mongooseClerkID(wanted)
	}
	return fmt.Sprintf("the index %q on %s, which does not make every %[2]s unique, stands in the way of one that does; replace it, in mongosh. %[3]s",
		old.name, path, s.swap(old, wanted)) + mongooseClerkID(wanted)
}

// partialForStrict says which index a client with strict ServerAPI options needs. Sparse ones
// are not in the Stable API: such a client can neither create nor use them.
// https://www.mongodb.com/docs/manual/reference/stable-api/
func (s *Store) partialForStrict(indexes []index) string {
	ix := s.clerkIDIndex(indexes)
	ix.sparse = false
	ix.partial, _ = bson.Marshal(bson.D{{Key: ix.clerkIDPath(), Value: bson.D{{Key: "$exists", Value: true}}}})
	return "the client's ServerAPI options are strict, and sparse indexes are not in the Stable API; make a partial one, in mongosh:" +
		lines(s.createLine(ix)) + mongooseClerkID(ix)
}

// inMongoose says what goes into a Mongoose schema. Mongoose makes the indexes of the schema
// when the app starts, and Model.syncIndexes drops all others.
// https://mongoosejs.com/docs/guide.html#indexes
func (s *Store) inMongoose(ix index, indexes []index) string {
	own := s.clerkIDIndex(indexes)
	if i := slices.IndexFunc(indexes, index.keepsClerkID); i >= 0 {
		own = indexes[i]
	}
	return "\nIn a Mongoose schema, remove the old index (unique: true at the field, or a schema.index of these keys): " +
		"with it, Mongoose fails or makes the old index again. Write:" + lines(schemaLine(ix)) +
		"\nIf you call syncIndexes, which drops what the schema does not have, add the unique index on " + s.clerkIDPath() + ":" +
		lines(schemaLine(own))
}

// mongooseClerkID is inMongoose for an index on clerkId.
func mongooseClerkID(ix index) string {
	return "\nIn a Mongoose schema, remove any other index on " + ix.clerkIDPath() + ". If you call syncIndexes, which drops what the schema " +
		"does not have, add this one:" + lines(schemaLine(ix))
}

// schemaLine returns the line that puts an index into a Mongoose schema.
func schemaLine(ix index) string {
	return fmt.Sprintf("schema.index(%s, %s)", shellDocument(ix.keys), ix.shellOptions())
}

// partialForm returns the index with a filter and a name of its own.
func (ix index) partialForm(indexes []index) index {
	filter := bson.D{}
	for _, field := range ix.fields() {
		filter = append(filter, bson.E{Key: field, Value: bson.D{{Key: "$exists", Value: true}}})
	}
	ix.partial, _ = bson.Marshal(filter)
	base := ix.name + "_partial"
	ix.name = base
	for n := 2; ; n++ {
		taken := slices.IndexFunc(indexes, func(other index) bool { return other.name == ix.name })
		if taken < 0 || indexes[taken].equals(ix) {
			return ix
		}
		ix.name = fmt.Sprintf("%s_%d", base, n)
	}
}

// equals reports whether both indexes have the same name, keys, filter and collation, and are alike
// in unique and sparse.
func (ix index) equals(other index) bool {
	return ix.name == other.name && ix.unique == other.unique && ix.sparse == other.sparse &&
		shellDocument(ix.keys) == shellDocument(other.keys) &&
		shellDocument(ix.partial) == shellDocument(other.partial) &&
		shellDocument(ix.collation) == shellDocument(other.collation)
}

// duplicates names some clerkIds that several records have, and says what to do about them.
// It is empty if there are none, or if they cannot be read.
func (s *Store) duplicates(ctx context.Context) string {
	const most = 5
	path := s.clerkIDPath()
	cursor, err := s.coll.Aggregate(ctx, bson.A{
		bson.D{{Key: "$match", Value: bson.D{{Key: path, Value: bson.D{{Key: "$exists", Value: true}}}}}},
		bson.D{{Key: "$group", Value: bson.D{
			{Key: "_id", Value: "$" + path},
			{Key: "n", Value: bson.D{{Key: "$sum", Value: 1}}},
		}}},
		bson.D{{Key: "$match", Value: bson.D{{Key: "n", Value: bson.D{{Key: "$gt", Value: 1}}}}}},
		bson.D{{Key: "$sort", Value: bson.D{{Key: "n", Value: -1}, {Key: "_id", Value: 1}}}},
		bson.D{{Key: "$limit", Value: most + 3}}, // two of them may be no ids
	}, options.Aggregate().SetAllowDiskUse(true)) // the default since MongoDB 6.0; a $group of millions needs it
	if err != nil {
		return ""
	}
	var groups []bson.Raw
	if err := cursor.All(ctx, &groups); err != nil {
		return ""
	}
	var users, none []string
	for _, g := range groups {
		id := g.Lookup("_id")
		n, _ := g.Lookup("n").AsInt64OK()
		if isNoID(id) {
			none = append(none, fmt.Sprintf("%d records have %s, which an index takes for a value; remove the field from them, in mongosh:", n, shellValue(id))+
				lines(fmt.Sprintf("%s.updateMany({%[2]s: %[3]s}, {$unset: {%[2]s: 1}})", s.shell(), shellName(path), shellValue(id))))
			continue
		}
		users = append(users, fmt.Sprintf("%d records have %s", n, id))
	}
	if len(users) > most {
		users = append(users[:most], "and others")
	}
	if users == nil {
		return strings.Join(none, "\n")
	}
	return strings.Join(append([]string{fmt.Sprintf("%s; keep one record of each, the one that the app refers to, and remove %s from the others; %s.find({%s: …}) shows them",
		strings.Join(users, ", "), path, s.shell(), shellName(path))}, none...), "\n")
}

// isNoID reports whether a clerkId stands for none. Such records are the app's own.
func isNoID(v bson.RawValue) bool {
	text, isText := v.StringValueOK()
	return v.Type == bson.TypeNull || v.Type == bson.TypeUndefined || v.IsZero() || isText && text == ""
}
