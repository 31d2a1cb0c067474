package mongostore

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
)

// RecordOf returns an [Options].Record that decodes each document into a new T, by T's bson
// tags and the driver's standard rules. The handlers get it by
// [clerksync.RecordFromContext][T].
//
// T's fields are in the names of the collection. Fields that T does not have are left out. If
// the document has a value that does not fit T, the error names the field and its type in the
// document, and does not show the value.
func RecordOf[T any]() func(bson.Raw) (any, error) {
	return func(raw bson.Raw) (any, error) {
		record := new(T)
		if err := bson.Unmarshal(raw, record); err != nil {
			return nil, misfit(raw, reflect.TypeFor[T](), err)
		}
		return record, nil
	}
}

// misfit is the error about a document that does not decode into a type. The driver's own text
// may quote a value.
func misfit(raw bson.Raw, into reflect.Type, err error) error {
	var at *bson.DecodeError
	if !errors.As(err, &at) || len(at.Keys()) == 0 {
		return fmt.Errorf("the document does not decode into %v", into)
	}
	field := shownPath(at.Keys(), into)
	if v, err := raw.LookupErr(at.Keys()...); err == nil {
		return fmt.Errorf("the field %q is of type %s in the document, and does not decode into %v", field, typeName(v.Type), into)
	}
	return fmt.Errorf("the field %q does not decode into %v", field, into)
}

// shownPath is a path for an error text, which is logged. It shows names of T's own fields and
// positions in lists. Keys of maps are not shown: users may have chosen them.
func shownPath(keys []string, t reflect.Type) string {
	shown := make([]string, len(keys))
	for i, key := range keys {
		shown[i], t = shownKey(key, t)
	}
	return strings.Join(shown, ".")
}

// shownKey returns a key as it may be shown, and the type of what it leads to, nil for any. t is
// the type that has the key.
func shownKey(key string, t reflect.Type) (string, reflect.Type) {
	const hidden = "…"
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil {
		return hidden, nil
	}
	switch t.Kind() {
	case reflect.Struct:
		if name, field := fieldOf(t, key); field != nil {
			return name, field
		}
	case reflect.Slice, reflect.Array:
		if _, err := strconv.Atoi(key); err == nil {
			return key, t.Elem()
		}
	case reflect.Map:
		return hidden, t.Elem()
	}
	return hidden, nil
}

// fieldOf returns the name in documents and the type of the field of a struct that key decodes
// into, nil for none.
func fieldOf(t reflect.Type, key string) (string, reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("bson"), ",")
		inlined := f.Type
		if inlined.Kind() == reflect.Pointer {
			inlined = inlined.Elem()
		}
		if slices.Contains(strings.Split(options, ","), "inline") && inlined.Kind() == reflect.Struct {
			if name, field := fieldOf(inlined, key); field != nil {
				return name, field
			}
			continue
		}
		if name = cmp.Or(name, strings.ToLower(f.Name)); strings.EqualFold(name, key) {
			return name, f.Type
		}
	}
	return "", nil
}

// ObjectID returns the _id of a user's record, for queries of other collections that refer to
// it. It fails if the _id is not an ObjectID. It does not read the database.
func ObjectID(u *clerksync.User) (bson.ObjectID, error) {
	if u == nil {
		return bson.ObjectID{}, errors.New("mongostore: no user")
	}
	id, err := bson.ObjectIDFromHex(u.ID)
	if err != nil { // the text would quote the id
		return bson.ObjectID{}, fmt.Errorf("mongostore: the _id of the record of user %s is not an ObjectID", u.ClerkID)
	}
	return id, nil
}

// makeRecord sets u's Record to what Options.Record makes of a document. The error is a
// [*clerksync.Problem] with the code "record_failed".
func (s *Store) makeRecord(u *clerksync.User, raw bson.Raw) error {
	if s.recordOf == nil {
		return nil
	}
	record, err := s.callRecord(raw)
	if err != nil {
		return &clerksync.Problem{
			Status: http.StatusInternalServerError, Code: clerksync.CodeRecordFailed,
			Err: fmt.Errorf("mongostore: Options.Record of user %s: %w", u.ClerkID, err),
		}
	}
	u.Record = record
	return nil
}

// callRecord calls the app's function and turns a panic into an error.
func (s *Store) callRecord(raw bson.Raw) (record any, err error) {
	defer func() {
		if p := recover(); p != nil { // its text may quote a value
			record, err = nil, fmt.Errorf("panic of type %T", p)
		}
	}()
	return s.recordOf(raw)
}

// withRecord returns the Result of an Upsert with the Record of its User. If the document
// is not at hand, or Options.Record fails, the Result has no User, and the caller reads the record.
func (up *upsert) withRecord(res clerksync.Result) clerksync.Result {
	if up.store.recordOf == nil || res.User == nil {
		return res
	}
	raw := up.found
	if raw == nil && res.Outcome == clerksync.Created {
		raw, _ = bson.Marshal(up.document())
	}
	if raw == nil || up.store.makeRecord(res.User, raw) != nil {
		res.User = nil
	}
	return res
}
