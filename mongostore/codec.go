package mongostore

import (
	"maps"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
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
