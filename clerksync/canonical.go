package clerksync

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"
)

// maxExtraDepth bounds the nesting of a value in Extra; MongoDB refuses documents
// nested deeper than 100 levels.
const maxExtraDepth = 32

// reservedFields are the top-level names of the record that Extra may not use.
var reservedFields = map[string]bool{
	"_id": true, "__v": true,
	"clerkId": true, "email": true, "role": true, "name": true, "profile": true, "location": true,
	"lastSignInAt": true, "emailVerified": true, "phoneVerified": true, "isActive": true, "banned": true,
	"createdAt": true, "updatedAt": true, "clerkCreatedAt": true, "clerkUpdatedAt": true,
	"syncedAt": true, "deletedAt": true, "extraFields": true,
}

// canonicalExtra checks the names in extra and converts its values; see
// [User.Canonical]. It returns nil where nothing is left.
func canonicalExtra(extra map[string]any) (map[string]any, error) {
	if len(extra) == 0 {
		return nil, nil
	}
	c := make(map[string]any, len(extra))
	for name, v := range extra {
		if err := checkFieldName(name); err != nil {
			return nil, fmt.Errorf("clerksync: Extra[%q]: %w", name, err)
		}
		if reservedFields[name] {
			return nil, fmt.Errorf("clerksync: Extra[%q]: the record already has a field of this name; choose another", name)
		}
		cv, err := canonicalValue(reflect.ValueOf(v), 1)
		if err != nil {
			return nil, fmt.Errorf("clerksync: Extra[%q]: %w", name, err)
		}
		if cv != nil {
			c[name] = cv
		}
	}
	if len(c) == 0 {
		return nil, nil
	}
	return c, nil
}

// The errors about what is inside a value do not quote it: metadata is the user's,
// and errors are logged.
var errFieldName = errors.New(`no field name: it must be UTF-8, not empty, and hold no "$", "." or NUL`)

func checkFieldName(name string) error {
	if name == "" || strings.ContainsAny(name, "$.\x00") || !utf8.ValidString(name) {
		return errFieldName
	}
	return nil
}

// Types that canonicalValue treats as a whole, not by their kind.
var (
	timeType   = reflect.TypeFor[time.Time]()
	numberType = reflect.TypeFor[json.Number]()
	rawType    = reflect.TypeFor[json.RawMessage]()
)

func canonicalValue(v reflect.Value, depth int) (any, error) {
	if depth > maxExtraDepth {
		return nil, fmt.Errorf("nested over %d levels deep", maxExtraDepth)
	}
	if !v.IsValid() {
		return nil, nil
	}
	switch v.Type() {
	case timeType:
		return canonicalTime(v.Interface().(time.Time)), nil
	case rawType:
		var decoded any
		if raw := v.Bytes(); len(raw) > 0 && json.Unmarshal(raw, &decoded) != nil {
			return nil, errors.New("a json.RawMessage that is no JSON")
		}
		return canonicalValue(reflect.ValueOf(decoded), depth+1)
	case numberType:
		n := v.Interface().(json.Number)
		if i, err := n.Int64(); err == nil {
			return i, nil
		}
		f, err := n.Float64()
		if err != nil {
			return nil, errors.New("a json.Number that is no number")
		}
		return canonicalFloat(f)
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return canonicalValue(v.Elem(), depth+1)
	case reflect.String:
		return validText(v.String()), nil
	case reflect.Bool:
		return v.Bool(), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int(), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if v.Uint() > math.MaxInt64 {
			return nil, errors.New("a number that does not fit in an int64")
		}
		return int64(v.Uint()), nil
	case reflect.Float32, reflect.Float64:
		return canonicalFloat(v.Float())
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			break // bytes: text, JSON, or what nobody can query
		}
		if v.Kind() == reflect.Slice && v.IsNil() {
			return nil, nil
		}
		s := make([]any, v.Len())
		for i := range s {
			e, err := canonicalValue(v.Index(i), depth+1)
			if err != nil {
				return nil, err
			}
			s[i] = e
		}
		return s, nil
	case reflect.Map:
		if v.Type().Key().Kind() != reflect.String {
			break
		}
		if v.IsNil() {
			return nil, nil
		}
		m := make(map[string]any, v.Len())
		for it := v.MapRange(); it.Next(); {
			name := it.Key().String()
			if err := checkFieldName(name); err != nil {
				return nil, fmt.Errorf("a name in a nested map: %w", err)
			}
			e, err := canonicalValue(it.Value(), depth+1)
			if err != nil {
				return nil, err
			}
			m[name] = e
		}
		return m, nil
	}
	return nil, fmt.Errorf("a %s cannot be stored; use a string, bool, number, time.Time, slice or map[string]any", v.Type())
}

func canonicalFloat(f float64) (any, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, fmt.Errorf("%v is no number that two records can agree on", f)
	}
	return f, nil
}

// validText is s as a database can hold it: in UTF-8.
func validText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
