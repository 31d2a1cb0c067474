package mongostore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Values as mongosh reads them. Extended JSON is something else to it: {"$numberInt": "1"}
// is a document with a field of that name.

// shellText quotes a string. JSON's quotes are JavaScript's too.
func shellText(text string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(text); err != nil {
		return strconv.QuoteToASCII(text)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// operator matches the names that are not quoted, so that they stand out.
var operator = regexp.MustCompile(`^\$[A-Za-z]+$`)

// plainName matches paths that JavaScript takes unquoted.
var plainName = regexp.MustCompile(`^[A-Za-z_]\w*$`)

func shellName(path string) string {
	if plainName.MatchString(path) {
		return path
	}
	return shellText(path)
}

func shellDocument(d bson.Raw) string {
	elements, _ := d.Elements()
	parts := make([]string, len(elements))
	for i, e := range elements {
		name := e.Key()
		if !operator.MatchString(name) {
			name = shellText(name)
		}
		parts[i] = name + ": " + shellValue(e.Value())
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func shellValue(v bson.RawValue) string {
	switch v.Type {
	case bson.TypeEmbeddedDocument:
		return shellDocument(v.Document())
	case bson.TypeArray:
		values, _ := v.Array().Values()
		parts := make([]string, len(values))
		for i := range values {
			parts[i] = shellValue(values[i])
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case bson.TypeString:
		return shellText(v.StringValue())
	case bson.TypeBoolean:
		return strconv.FormatBool(v.Boolean())
	case bson.TypeNull:
		return "null"
	case bson.TypeInt32, bson.TypeInt64, bson.TypeDouble:
		return shellNumber(v)
	case bson.TypeObjectID:
		return fmt.Sprintf("ObjectId(%q)", v.ObjectID().Hex())
	case bson.TypeDateTime:
		return fmt.Sprintf("ISODate(%q)", v.Time().UTC().Format(time.RFC3339Nano))
	default:
		return fmt.Sprintf("EJSON.parse(%s)", shellText(v.String()))
	}
}

// shellNumber returns a number that compares equal. mongosh makes an int or a double of it.
func shellNumber(v bson.RawValue) string {
	const safe = 1 << 53 // a double holds every whole number up to here
	f, _ := v.AsFloat64OK()
	if math.IsNaN(f) || math.Abs(f) > safe {
		return fmt.Sprintf("EJSON.parse(%s)", shellText(v.String()))
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}
