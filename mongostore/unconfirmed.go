package mongostore

import (
	"maps"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
)

// An unconfirmed record is the app's own: clerksync has never written it, so it has neither
// a date in syncedAt nor a deletedAt. The app may use clerksync's names in it for something
// else. So an Upsert reads it first, fails if a value has another type than clerksync's, and
// writes only if these values are still as read.

// confirmed matches records that clerksync has written. The second condition leaves out
// arrays: a filter also matches their elements. They are apart because FerretDB 1 takes two
// operators in the filter of an upsert for a value.
var confirmed = bson.D{
	{Key: "syncedAt", Value: bson.D{{Key: "$type", Value: "date"}}},
	{Key: "syncedAt.0", Value: bson.D{{Key: "$exists", Value: false}}},
}

var notArray = bson.E{Key: "$not", Value: bson.D{{Key: "$type", Value: "array"}}}

// unconfirmed reports whether clerksync has never written the record. It writes none without a
// Clerk id.
func (r *record) unconfirmed() bool {
	if r.clerkID() == "" {
		return true
	}
	_, synced := r.value("syncedAt").DateTimeOK()
	return !synced && r.deletedAt().IsZero()
}

// bookkeeping are the fields of an unconfirmed record that must be clerksync's, besides those
// that Clerk owns: an Upsert writes them, or goes by them. It never writes createdAt, role
// and location to a record that exists.
var bookkeeping = []string{
	"clerkUpdatedAt", "syncedAt", "lastSignInAt", "updatedAt", "isActive", "deletedAt", "extraFields",
}

// fieldTypes are the types of clerksync's fields that are not text.
var fieldTypes = map[string]bson.Type{
	"emailVerified": bson.TypeBoolean, "phoneVerified": bson.TypeBoolean, "banned": bson.TypeBoolean,
	"isActive":       bson.TypeBoolean,
	"clerkCreatedAt": bson.TypeDateTime, "clerkUpdatedAt": bson.TypeDateTime, "syncedAt": bson.TypeDateTime,
	"lastSignInAt": bson.TypeDateTime, "updatedAt": bson.TypeDateTime, "deletedAt": bson.TypeDateTime,
	"extraFields": bson.TypeArray,
	"adoptedAt":   bson.TypeDateTime, insertToken: bson.TypeObjectID,
}

// checkedPaths returns the paths that matter to an Upsert of u to an unconfirmed record. It
// leaves out the names in Extra that the record has from an earlier Extra.
func (r *record) checkedPaths(u *clerksync.User) []string {
	written := r.extraFields()
	paths := slices.DeleteFunc(fieldPaths(u), func(path string) bool { return slices.Contains(written, path) })
	return append(paths, bookkeeping...)
}

// fieldPaths returns the paths that an Upsert of u writes or removes.
func fieldPaths(u *clerksync.User) (paths []string) {
	for path := range u.ClerkFields() {
		paths = append(paths, path)
	}
	return paths
}

// checkWritable returns a conflict about the first value that keeps u from being written to
// the record, nil if there is none. In an unconfirmed record, that is a value that is the
// app's: one of a type that clerksync does not write there, or any value under a name of
// u's Extra.
func (r *record) checkWritable(u *clerksync.User) error {
	if r.clerkID() == "" { // an array that holds the id, so the filter found it
		field, v := r.inTheWay("clerkId", bson.TypeString)
		return &clerksync.ConflictError{Field: field, Type: typeName(v.Type)}
	}
	if !r.unconfirmed() {
		return nil
	}
	return r.checkTypes(u, r.checkedPaths(u))
}

// checkTypes returns a conflict about the first value at one of paths that is the app's.
func (r *record) checkTypes(u *clerksync.User, paths []string) error {
	for _, path := range paths {
		want := typeAt(path)
		if _, extra := u.Extra[path]; extra {
			want = 0
		}
		if field, v := r.inTheWay(path, want); field != "" {
			return &clerksync.ConflictError{Field: field, Type: typeName(v.Type)}
		}
	}
	return nil
}

// typeAt returns the type of clerksync's values at a path.
func typeAt(path string) bson.Type {
	if t, ok := fieldTypes[path]; ok {
		return t
	}
	return bson.TypeString
}

// inTheWay returns the value of another type in a field, or of its parent, and the field that
// has it; an empty field for none. A parent is named by its path in the collection.
func (r *record) inTheWay(name string, want bson.Type) (field string, v bson.RawValue) {
	if parent, v := r.barrier(name); parent != "" && !fits(v, bson.TypeEmbeddedDocument) {
		return parent, v
	}
	if v := r.value(name); !fits(v, want) {
		return name, v
	}
	return "", bson.RawValue{}
}

// fits reports whether a value is absent, null, or of the wanted type. An array must be one
// of names; one of documents or arrays is the app's.
func fits(v bson.RawValue, want bson.Type) bool {
	switch {
	case v.IsZero() || v.Type == bson.TypeNull:
		return true
	case v.Type != want:
		return false
	case want != bson.TypeArray:
		return true
	}
	elements, _ := v.Array().Values()
	return !slices.ContainsFunc(elements, func(e bson.RawValue) bool {
		return e.Type == bson.TypeEmbeddedDocument || e.Type == bson.TypeArray
	})
}

// unchanged returns the conditions that the record still has the values of fields that it was
// read with.
func (r *record) unchanged(names []string) bson.D {
	filter := make(bson.D, 0, len(names))
	has := func(key string) bool {
		return slices.ContainsFunc(filter, func(e bson.E) bool { return e.Key == key })
	}
	for _, name := range names {
		segments := r.codec.segmentsOf(name)
		in, i := r.raw, 0
		for ; in != nil && i < len(segments)-1; i++ {
			key := r.codec.verbatim(strings.Join(segments[:i+1], "."))
			v := in.Lookup(segments[i])
			in, _ = v.DocumentOK()
			switch {
			case has(key):
			case in != nil: // the app may change what else is in it
				filter = append(filter, bson.E{Key: key, Value: bson.D{{Key: "$type", Value: "object"}, notArray}})
			default:
				filter = append(filter, onlyEqualTo(key, v))
			}
		}
		if in != nil && segments != nil {
			filter = append(filter, onlyEqualTo(name, in.Lookup(segments[i])))
		}
	}
	return filter
}

// onlyEqualTo is equalTo without the documents that a filter takes for equal: those in which
// the field is an array with such an element, or an equal number of another type.
func onlyEqualTo(key string, v bson.RawValue) bson.E {
	condition := append(make(bson.D, 0, 3), equalTo(key, v).Value.(bson.D)...)
	if v.IsNumber() {
		condition = append(condition, bson.E{Key: "$type", Value: typeName(v.Type)})
	}
	if v.Type != bson.TypeArray {
		condition = append(condition, notArray)
	}
	return bson.E{Key: key, Value: condition}
}

// replaceBarriers returns an update that can be made although r has something else in place
// of the parents of fields: it sets whole parents. Nothing that is no document is there to
// keep, except for the sake of a deletion, which must be written.
func (r *record) replaceBarriers(update bson.D) bson.D { return r.replaceParents(update, r.barrier) }

// replaceParents returns an update that sets as a whole each parent that parentOf returns for the
// name of a field. It removes nothing in such a parent.
func (r *record) replaceParents(update bson.D, parentOf func(name string) (path string, v bson.RawValue)) bson.D {
	parents := make(map[string]bson.D)
	passed := make(bson.D, 0, len(update)+1)
	for _, operator := range update {
		var fields bson.D
		for _, e := range operator.Value.(bson.D) {
			parent, _ := parentOf(e.Key)
			switch {
			case parent == "":
				fields = append(fields, e)
			case operator.Key != "$unset": // $max sets a field that is absent
				rest := strings.TrimPrefix(r.codec.path(e.Key), parent+".")
				parents[parent] = append(parents[parent], bson.E{Key: rest, Value: e.Value})
			}
		}
		if len(fields) > 0 {
			passed = append(passed, bson.E{Key: operator.Key, Value: fields})
		}
	}
	if len(parents) == 0 {
		return passed
	}
	i := slices.IndexFunc(passed, func(operator bson.E) bool { return operator.Key == "$set" })
	if i < 0 {
		i, passed = len(passed), append(passed, bson.E{Key: "$set", Value: bson.D{}})
	}
	for _, parent := range slices.Sorted(maps.Keys(parents)) {
		whole := bson.E{Key: r.codec.verbatim(parent), Value: nest(parents[parent])}
		passed[i].Value = append(passed[i].Value.(bson.D), whole)
	}
	return passed
}

// typeNames are the types as MongoDB's $type calls them.
// https://www.mongodb.com/docs/manual/reference/bson-types/
var typeNames = map[bson.Type]string{
	bson.TypeDouble: "double", bson.TypeString: "string", bson.TypeEmbeddedDocument: "object", bson.TypeArray: "array",
	bson.TypeBinary: "binData", bson.TypeUndefined: "undefined", bson.TypeObjectID: "objectId",
	bson.TypeBoolean: "bool", bson.TypeDateTime: "date", bson.TypeNull: "null", bson.TypeRegex: "regex",
	bson.TypeDBPointer: "dbPointer", bson.TypeJavaScript: "javascript", bson.TypeSymbol: "symbol",
	bson.TypeCodeWithScope: "javascriptWithScope", bson.TypeInt32: "int", bson.TypeTimestamp: "timestamp",
	bson.TypeInt64: "long", bson.TypeDecimal128: "decimal", bson.TypeMinKey: "minKey", bson.TypeMaxKey: "maxKey",
}

func typeName(t bson.Type) string {
	if name, ok := typeNames[t]; ok {
		return name
	}
	return t.String()
}
