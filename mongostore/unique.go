package mongostore

import (
	"context"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// maxHolders bounds how many records a lookup by a key reads. Only an index on an array
// lets several records stand in the way of one.
const maxHolders = 100

// uniqueIndex is a unique index of the app's that may keep a record out.
type uniqueIndex struct {
	fields    []string
	partial   bson.Raw // nil if the index covers every record
	collation bson.Raw // nil for the simple, binary one
}

func (ix uniqueIndex) has(field string) bool { return slices.Contains(ix.fields, field) }

// uniqueKey is the entry of one record in a unique index.
type uniqueKey struct {
	index  uniqueIndex
	filter bson.D   // on all fields of the index
	paths  []string // the fields that u sets and the entry is made of, as ClerkFields names them
}

// key returns the entry in an index of the record as it is after u was written. It is nil
// if none of the values comes from u, or if no other record can have the same.
func (up *upsert) key(after bson.Raw, ix uniqueIndex) *uniqueKey {
	fields := up.codec
	if ix.has(fields.path("clerkId")) || ix.has("_id") {
		return nil
	}
	k := &uniqueKey{index: ix}
	for _, field := range ix.fields {
		for path, value := range up.u.ClerkFields() {
			if value != nil && within(field, fields.path(path)) {
				k.paths = append(k.paths, path)
			}
		}
		k.filter = append(k.filter, bson.E{Key: fields.verbatim(field), Value: sameEntry(after, field)})
	}
	if k.paths == nil {
		return nil
	}
	return k
}

// within reports whether one path is the other or leads into it.
func within(a, b string) bool {
	return a == b || strings.HasPrefix(a, b+".") || strings.HasPrefix(b, a+".")
}

// sameEntry returns the condition under which another record has the same index entry in a
// field. An index stores null for an absent field, and one entry for each element of an
// array.
func sameEntry(after bson.Raw, field string) bson.D {
	document := bson.RawValue{Type: bson.TypeEmbeddedDocument, Value: after}
	switch values := entries(document, strings.Split(field, ".")); len(values) {
	case 0:
		return bson.D{{Key: "$eq", Value: nil}}
	case 1:
		return bson.D{{Key: "$eq", Value: values[0]}}
	default:
		return bson.D{{Key: "$in", Value: values}}
	}
}

// entries returns the values that an index stores for a path in v.
// https://www.mongodb.com/docs/manual/core/indexes/index-types/index-multikey/
func entries(v bson.RawValue, path []string) []bson.RawValue {
	switch {
	case v.Type == bson.TypeArray:
		elements, _ := v.Array().Values()
		if len(path) == 0 && len(elements) == 0 {
			return []bson.RawValue{v} // an empty array has an entry of its own
		}
		if len(path) == 0 {
			return elements
		}
		var all []bson.RawValue
		for _, e := range elements {
			if e.Type == bson.TypeEmbeddedDocument {
				all = append(all, entries(e, path)...)
			}
		}
		return all
	case len(path) == 0:
		return []bson.RawValue{v}
	case v.Type != bson.TypeEmbeddedDocument:
		return nil
	}
	child, err := v.Document().LookupErr(path[0])
	if err != nil {
		return nil
	}
	return entries(child, path[1:])
}

// after returns the record as it is after u was written to r, which is nil for a new one.
func (up *upsert) after(r *record) (bson.Raw, error) {
	if r == nil {
		return bson.Marshal(up.document())
	}
	var doc bson.D
	if err := bson.Unmarshal(r.raw, &doc); err != nil {
		return nil, err
	}
	set, unset := up.fields(r)
	for _, e := range up.codec.keys(set) {
		doc = setPath(doc, strings.Split(e.Key, "."), e.Value)
	}
	for _, e := range up.codec.keys(unset) {
		doc = setPath(doc, strings.Split(e.Key, "."), nil) // an index takes null for absent
	}
	for _, name := range r.lost(up.u) {
		doc = setPath(doc, []string{name}, nil)
	}
	return bson.Marshal(doc)
}

// setPath sets one field of a document, as $set does.
func setPath(doc bson.D, path []string, value any) bson.D {
	i := slices.IndexFunc(doc, func(e bson.E) bool { return e.Key == path[0] })
	if i < 0 {
		i, doc = len(doc), append(doc, bson.E{Key: path[0]})
	}
	if len(path) == 1 {
		doc[i].Value = value
		return doc
	}
	child, _ := doc[i].Value.(bson.D)
	doc[i].Value = setPath(child, path[1:], value)
	return doc
}

// holders returns the records of others that have a key. It compares as the index does, and
// leaves out records that are not in the index, and r, to which u is to be written.
func (up *upsert) holders(ctx context.Context, k *uniqueKey, r *record) (holders []*record, err error) {
	filter := slices.Clone(k.filter)
	opts := options.Find().SetLimit(maxHolders)
	if k.index.collation != nil {
		opts.SetCollation(collationOf(k.index.collation)) // it holds for the whole filter
	} else {
		filter = append(filter, bson.E{Key: "clerkId", Value: bson.D{{Key: "$ne", Value: up.u.ClerkID}}})
	}
	if k.index.partial != nil {
		filter = append(filter, bson.E{Key: "$and", Value: bson.A{k.index.partial}})
	}
	cursor, err := up.store.coll.Find(ctx, filter, opts)
	if err != nil {
		return nil, err
	}
	var documents []bson.Raw
	if err := cursor.All(ctx, &documents); err != nil {
		return nil, err
	}
	for _, raw := range documents {
		holder := up.store.record(raw)
		itself := r != nil && r.raw.Lookup("_id").Equal(raw.Lookup("_id"))
		if !itself && holder.clerkID() != up.u.ClerkID {
			holders = append(holders, holder)
		}
	}
	return holders, nil
}

// collationOf returns a collation as the driver takes it.
func collationOf(raw bson.Raw) *options.Collation {
	text := func(name string) string {
		s, _ := raw.Lookup(name).StringValueOK()
		return s
	}
	truth := func(name string) bool { return isTrue(raw.Lookup(name)) }
	strength, _ := raw.Lookup("strength").AsInt64OK()
	return &options.Collation{
		Locale:          text("locale"),
		Strength:        int(strength),
		CaseLevel:       truth("caseLevel"),
		CaseFirst:       text("caseFirst"),
		NumericOrdering: truth("numericOrdering"),
		Alternate:       text("alternate"),
		MaxVariable:     text("maxVariable"),
		Normalization:   truth("normalization"),
		Backwards:       truth("backwards"),
	}
}

// candidates returns the unique indexes that err may be about: the one that the server
// names, or else all that are known.
func (s *Store) candidates(err error) []uniqueIndex {
	keys := duplicateKeys(err)
	if keys == nil {
		email := s.codec.path("email")
		if email == "" || slices.ContainsFunc(s.unique, func(ix uniqueIndex) bool { return ix.has(email) }) {
			return s.unique
		}
		return append(slices.Clone(s.unique), uniqueIndex{fields: []string{email}}) // perhaps made after Open
	}
	var named []uniqueIndex
	for _, ix := range s.unique {
		if slices.Equal(ix.fields, keys) {
			named = append(named, ix)
		}
	}
	if named == nil {
		ix := uniqueIndex{fields: keys}
		ix.collation, _ = errorDocument(err).Lookup("collation").DocumentOK()
		named = append(named, ix)
	}
	return named
}

// duplicateKeys returns the fields of the index that err is about. MongoDB has told them
// since 4.4; other servers do not.
func duplicateKeys(err error) []string {
	pattern, _ := errorDocument(err).Lookup("keyPattern").DocumentOK()
	if len(pattern) == 0 {
		return nil
	}
	return index{keys: pattern}.fields()
}
