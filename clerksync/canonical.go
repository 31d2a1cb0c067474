package clerksync

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Canonical returns a deep copy of u in the form that Stores keep, or an error that names
// the field at fault. Stores begin an Upsert with it, so that every Store accepts, rejects
// and returns the same.
//
// ClerkID must be UTF-8 and not empty; in other text, bytes that are not UTF-8 are
// replaced. Times become UTC in milliseconds. An empty Location becomes nil.
//
// Extra must not use the name of a field that clerksync or MongoDB already uses. Names in
// it must be UTF-8, not empty, and without "$", "." and NUL. Those of nested maps may be any
// text: a Store whose database cannot hold one must escape it. Two names of one map that
// become equal, because of bytes that are not UTF-8, are an error.
//
// Values become string, bool, int64, float64, [time.Time], []any or map[string]any: other
// integer, float, string, slice and string-keyed map types are converted, pointers
// followed, and a json.RawMessage decoded. A name in Extra with a nil value is dropped;
// nested ones stay. Anything else is an error: []byte, a float that is infinite or not a
// number, nesting over 32 levels.
//
// Omit becomes sorted and without repetitions. What it names of Extra is dropped from Extra
// and not checked, so that the rest can be stored.
func (u *User) Canonical() (*User, error) {
	if u == nil {
		return nil, errors.New("clerksync: no User")
	}
	if u.ClerkID == "" || !utf8.ValidString(u.ClerkID) {
		return nil, errors.New("clerksync: a User needs a ClerkID, in UTF-8")
	}
	c := *u
	c.Role = Role(validText(string(u.Role)))
	text := []*string{
		&c.ExternalID, &c.Email, &c.Name, &c.Profile.FirstName, &c.Profile.LastName, &c.Profile.FullName,
		&c.Profile.ImageURL, &c.Profile.PhoneNumber, &c.Profile.Birthday, &c.Profile.Gender,
	}
	if u.Location != nil {
		l := *u.Location
		c.Location = &l
		text = append(text, &l.Country, &l.City, &l.State, &l.Timezone)
		if l == (Location{}) {
			c.Location = nil
		}
	}
	for _, s := range text {
		*s = validText(*s)
	}
	for _, t := range []*time.Time{
		&c.LastSignInAt, &c.CreatedAt, &c.UpdatedAt,
		&c.ClerkCreatedAt, &c.ClerkUpdatedAt, &c.SyncedAt, &c.DeletedAt, &c.CreateDue,
	} {
		*t = canonicalTime(*t)
	}
	c.Jobs = u.Jobs.clone()
	var err error
	if c.Extra, err = canonicalExtra(u); err != nil {
		return nil, err
	}
	c.Omit = slices.Compact(slices.Sorted(slices.Values(u.Omit)))
	return &c, nil
}

// canonicalTime is t in UTC, with the millisecond precision of Clerk's times and MongoDB's
// dates, and without a monotonic reading.
func canonicalTime(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMilli(t.UnixMilli()).UTC()
}

// maxExtraDepth bounds the nesting of a value in Extra. MongoDB rejects documents nested
// deeper than 100 levels.
const maxExtraDepth = 32

// reservedFields are the top-level names of the record that Extra may not use.
var reservedFields = map[string]bool{
	"_id": true, "__v": true,
	"clerkId": true, "email": true, "role": true, "name": true, "profile": true, "location": true,
	"lastSignInAt": true, "emailVerified": true, "phoneVerified": true, "isActive": true, "banned": true,
	"createdAt": true, "updatedAt": true, "clerkCreatedAt": true, "clerkUpdatedAt": true,
	"syncedAt": true, "deletedAt": true, "extraFields": true,
	"adoptedAt": true, "adoptedBy": true, "clerkInsert": true, "clerkJobs": true,
}

// canonicalExtra checks the names in u's Extra and converts its values; see
// [User.Canonical]. It returns nil if nothing is left.
func canonicalExtra(u *User) (map[string]any, error) {
	if len(u.Extra) == 0 {
		return nil, nil
	}
	c := make(map[string]any, len(u.Extra))
	for name, v := range u.Extra {
		if u.omitsExtra(name) {
			continue
		}
		if err := checkFieldName(name); err != nil {
			return nil, fmt.Errorf("clerksync: Extra[%s]: %w", shownName(name), err)
		}
		if reservedFields[name] {
			return nil, fmt.Errorf("clerksync: Extra[%q]: the record already has a field of this name; choose another", name)
		}
		cv, err := canonicalValue(reflect.ValueOf(v), 1)
		if err != nil {
			return nil, fmt.Errorf("clerksync: Extra[%s]: %w", shownName(name), err)
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

// Errors do not quote nested values, and show names only through shownName: users may have written
// both, and errors are logged.
var (
	errFieldName = errors.New(`not a field name: it must be UTF-8, not empty, and without "$", "." and NUL`)
	errSameName  = errors.New("a nested map with two names that differ only in bytes that are not UTF-8")
)

func checkFieldName(name string) error {
	if name == "" || strings.ContainsAny(name, "$.\x00") || !utf8.ValidString(name) {
		return errFieldName
	}
	return nil
}

// shownName is a name of Extra for an error text, which is logged.
func shownName(name string) string {
	if !isLoggable(name) {
		return fmt.Sprintf("a name of %d bytes", len(name))
	}
	return fmt.Sprintf("%q", name)
}

// isLoggable reports whether a name of Extra may be logged. A Map that copies metadata takes
// names from users, so a name that could be an address or personal text may not be logged.
func isLoggable(name string) bool {
	const harmless = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.$"
	return len(name) <= 64 && strings.Trim(name, harmless) == ""
}

// Types that canonicalValue does not treat by their kind.
var (
	timeType   = reflect.TypeFor[time.Time]()
	numberType = reflect.TypeFor[json.Number]()
	rawType    = reflect.TypeFor[json.RawMessage]()
)

// canonicalValue converts one value, by its type or else by its kind.
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
			return nil, errors.New("a json.RawMessage that is not JSON")
		}
		return canonicalValue(reflect.ValueOf(decoded), depth+1)
	case numberType:
		return canonicalNumber(v.Interface().(json.Number))
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return canonicalValue(v.Elem(), depth+1)
	case reflect.Slice, reflect.Array:
		return canonicalList(v, depth)
	case reflect.Map:
		return canonicalMap(v, depth)
	}
	return canonicalScalar(v)
}

// canonicalScalar converts a value that is not a list or a map.
func canonicalScalar(v reflect.Value) (any, error) {
	switch {
	case v.Kind() == reflect.String:
		return validText(v.String()), nil
	case v.Kind() == reflect.Bool:
		return v.Bool(), nil
	case v.CanInt():
		return v.Int(), nil
	case v.CanUint() && v.Kind() != reflect.Uintptr:
		if v.Uint() > math.MaxInt64 {
			return nil, errors.New("a number that does not fit in an int64")
		}
		return int64(v.Uint()), nil
	case v.CanFloat():
		return canonicalFloat(v.Float())
	}
	return nil, errNotStorable(v)
}

func canonicalList(v reflect.Value, depth int) (any, error) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		return nil, errNotStorable(v) // bytes could be text, JSON or binary
	}
	if v.Kind() == reflect.Slice && v.IsNil() {
		return nil, nil
	}
	list := make([]any, v.Len())
	for i := range list {
		e, err := canonicalValue(v.Index(i), depth+1)
		if err != nil {
			return nil, err
		}
		list[i] = e
	}
	return list, nil
}

func canonicalMap(v reflect.Value, depth int) (any, error) {
	if v.Type().Key().Kind() != reflect.String {
		return nil, errNotStorable(v)
	}
	if v.IsNil() {
		return nil, nil
	}
	m := make(map[string]any, v.Len())
	for it := v.MapRange(); it.Next(); {
		name := validText(it.Key().String())
		if _, has := m[name]; has {
			return nil, errSameName
		}
		e, err := canonicalValue(it.Value(), depth+1)
		if err != nil {
			return nil, err
		}
		m[name] = e
	}
	return m, nil
}

func errNotStorable(v reflect.Value) error {
	return fmt.Errorf("a %s cannot be stored; use a string, bool, number, time.Time, slice or map[string]any", v.Type())
}

func canonicalNumber(n json.Number) (any, error) {
	if i, err := n.Int64(); err == nil {
		return i, nil
	}
	f, err := n.Float64()
	if err != nil {
		return nil, errors.New("a json.Number that is not a number")
	}
	return canonicalFloat(f)
}

func canonicalFloat(f float64) (any, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, fmt.Errorf("%v cannot be stored: it is not finite", f)
	}
	return f, nil
}

// validText is s in UTF-8, as a database can hold it.
func validText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
