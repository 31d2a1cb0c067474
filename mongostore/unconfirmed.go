package mongostore

import (
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
	_, synced := r.raw.Lookup("syncedAt").DateTimeOK()
	return !synced && deletedAt(r.raw).IsZero()
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
	"adoptedAt":   bson.TypeDateTime, adoptedIn: bson.TypeObjectID,
}

// checkedPaths returns the paths that matter to an Upsert of u to an unconfirmed record. It
// leaves out the names in Extra that the record has from an earlier Extra.
func (r *record) checkedPaths(u *clerksync.User) []string {
	written := extraFields(r.raw)
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
		return &clerksync.ConflictError{Field: "clerkId", Type: typeName(r.raw.Lookup("clerkId").Type)}
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

// inTheWay returns the value of another type at a path, or of its parent, and the field that
// has it; an empty field for none.
func (r *record) inTheWay(path string, want bson.Type) (field string, v bson.RawValue) {
	in, name := r.raw, path
	if head, rest, nested := strings.Cut(path, "."); nested {
		v := r.raw.Lookup(head)
		if !fits(v, bson.TypeEmbeddedDocument) {
			return head, v
		}
		in, _ = v.DocumentOK()
		name = rest
	}
	if v := in.Lookup(name); !fits(v, want) {
		return path, v
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

// unchanged returns the conditions that the record still has the values of paths that it was
// read with.
func (r *record) unchanged(paths []string) (filter bson.D) {
	for _, path := range paths {
		head, name, nested := strings.Cut(path, ".")
		if !nested {
			filter = append(filter, r.equalOnly(path))
			continue
		}
		in, isDocument := r.raw.Lookup(head).DocumentOK()
		if !slices.ContainsFunc(filter, func(e bson.E) bool { return e.Key == head }) {
			condition := r.equalOnly(head)
			if isDocument { // the app may change what else is in it
				condition.Value = bson.D{{Key: "$type", Value: "object"}, notArray}
			}
			filter = append(filter, condition)
		}
		if isDocument {
			condition := (&record{raw: in}).equalOnly(name)
			filter = append(filter, bson.E{Key: path, Value: condition.Value})
		}
	}
	return filter
}

// equalOnly is equal without the documents that a filter takes for equal: those in which the
// field is an array with such an element, or an equal number of another type.
func (r *record) equalOnly(field string) bson.E {
	condition := r.equal(field)
	v := r.raw.Lookup(field)
	if v.IsNumber() {
		condition.Value = append(condition.Value.(bson.D), bson.E{Key: "$type", Value: typeName(v.Type)})
	}
	if v.Type != bson.TypeArray {
		condition.Value = append(condition.Value.(bson.D), notArray)
	}
	return condition
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
