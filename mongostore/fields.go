package mongostore

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
)

// The code of this package names fields as the package's doc does ("The record"): "clerkId",
// "profile.firstName". Only the codec, a *fieldMap, knows the collection's paths:
//
//   - [collection] translates filters, updates and projections as they are sent.
//   - document makes what is inserted of a list of names and values.
//   - [record].lookup finds the value of a name in a document as it is stored.
//   - path, name and verbatim are for the few places that deal with paths of the collection:
//     its indexes, and parents of fields, which have no name.
//
// A nil codec translates nothing: then names and paths are the same.

// Fields maps names of the record's fields to paths in the collection, as in
//
//	mongostore.Fields{"clerkId": "clerk_id", "profile.imageUrl": "avatar", "profile.gender": ""}
//
// The names are those of the package's doc, "The record"; each is of one field, so "profile"
// and "location" are none. A path is a name or several with dots between them. A field that is
// not mapped keeps its name. "" means that the field is not stored: the Store never writes it
// and reads it as absent. See [Options].Fields for the rules.
type Fields map[string]string

// SnakeCase returns the Fields for a collection in snake case: clerk_id, email_verified,
// profile.first_name. Each call returns a map of its own, which the caller may change.
func SnakeCase() Fields {
	f := make(Fields, len(recordFields))
	for name := range recordFields {
		f[name] = snakeCase(name)
	}
	return f
}

func snakeCase(name string) string {
	var b strings.Builder
	for _, r := range name {
		if unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// recordFields are the names of the record's fields. True ones may not be dropped: clerksync
// decides by them.
var recordFields = map[string]bool{
	"clerkId": true, "email": false, "name": false, "role": false,
	"profile.firstName": false, "profile.lastName": false, "profile.fullName": false,
	"profile.imageUrl": false, "profile.phoneNumber": false, "profile.birthday": false, "profile.gender": false,
	"location.country": false, "location.city": false, "location.state": false, "location.timezone": false,
	"emailVerified": false, "phoneVerified": false, "isActive": true, "banned": true,
	"createdAt": true, "updatedAt": false, "lastSignInAt": false,
	"clerkCreatedAt": false, "clerkUpdatedAt": true, "syncedAt": true, "deletedAt": true,
	"extraFields": true, "clerkJobs": true, "adoptedAt": true, "adoptedBy": true,
	insertToken: true,
}

// insertToken is the name of the field by which an insert recognizes its own record if its
// answer was lost and the _id, which does that otherwise, is the Clerk id. An adoption
// recognizes its record by it, too.
const insertToken = "clerkInsert"

// fieldMap is the codec for one [Fields].
type fieldMap struct {
	paths    map[string]string   // of each name; "" if the field is not stored
	segments map[string][]string // of each name whose field is stored
	names    map[string]string   // of each path
	tops     map[string]bool     // the first segments of the paths
	parents  []string            // of the paths of fields that an Upsert writes to every record
}

// newFieldMap returns the codec, or all faults of the Fields, joined. It is nil if each field
// keeps its name.
func newFieldMap(fields Fields) (*fieldMap, error) {
	f := &fieldMap{
		paths: make(map[string]string, len(recordFields)), segments: make(map[string][]string, len(recordFields)),
		names: make(map[string]string, len(recordFields)), tops: make(map[string]bool, len(recordFields)),
	}
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("mongostore: open: Fields: "+format, args...))
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if text := nameFault(name); text != "" {
			fault("%q %s", name, text)
		} else if text := pathFault(name, fields[name]); text != "" {
			fault("%q: %q %s", name, fields[name], text)
		}
	}
	renamed := false
	for name := range recordFields {
		path, mapped := fields[name]
		if !mapped {
			path = name
		}
		renamed = renamed || path != name
		f.paths[name] = path
	}
	for _, text := range clashes(f.paths) {
		fault("%s", text)
	}
	if faults != nil || !renamed {
		return nil, errors.Join(faults...)
	}
	f.index()
	return f, nil
}

// index fills what the codec derives from its paths.
func (f *fieldMap) index() {
	parents := make(map[string]bool)
	for name, path := range f.paths {
		if path == "" {
			continue
		}
		f.names[path] = name
		segments := strings.Split(path, ".")
		f.segments[name], f.tops[segments[0]] = segments, true
		if !onlyOnInsert(name) {
			for i := 1; i < len(segments); i++ {
				parents[strings.Join(segments[:i], ".")] = true
			}
		}
	}
	f.parents = slices.Sorted(maps.Keys(parents))
}

// onlyOnInsert reports whether an Upsert never writes the field of a record that exists.
func onlyOnInsert(name string) bool {
	return strings.HasPrefix(name, "location.") || name == "createdAt" || name == insertToken
}

// nameFault says what is wrong with a name of the Fields, empty if nothing is.
func nameFault(name string) string {
	if _, known := recordFields[name]; known {
		return ""
	}
	var within []string
	for known := range recordFields {
		if strings.HasPrefix(known, name+".") && name != "" {
			within = append(within, known)
		}
	}
	if within != nil {
		slices.Sort(within)
		return "is not one field but several: map " + strings.Join(within, ", ")
	}
	return "is not the name of a field; the names are in the package's documentation, The record"
}

// pathFault says what is wrong with a path, empty if nothing is.
func pathFault(name, path string) string {
	if path == "" {
		if recordFields[name] {
			return "means not stored, and clerksync needs this field; it may be renamed"
		}
		return ""
	}
	if path == "_id" && name == "clerkId" {
		return ""
	}
	if strings.ContainsAny(path, "$\x00") || !utf8.ValidString(path) {
		return `is not a path: it must be UTF-8, without "$" and NUL`
	}
	segments := strings.Split(path, ".")
	switch first := segments[0]; {
	case path == "_id":
		return "may only hold clerkId"
	case first == "_id", first == "__v":
		return "is MongoDB's or Mongoose's own"
	case len(segments) > maxPathDepth:
		return fmt.Sprintf("has more than %d segments", maxPathDepth)
	case slices.Contains(segments, ""):
		return "has an empty segment"
	case slices.ContainsFunc(segments, isIndex):
		return "has a number for a segment, which could be an index into an array"
	}
	return ""
}

// maxPathDepth leaves room for what is below a path: MongoDB takes 100 levels.
// https://www.mongodb.com/docs/manual/reference/limits/#mongodb-limit-Nested-Depth-for-BSON-Documents
const maxPathDepth = 32

// isIndex reports whether a segment of a path may be an index into an array.
func isIndex(segment string) bool { return strings.Trim(segment, "0123456789") == "" }

// clashes says which fields have the same path, or one inside another's.
func clashes(paths map[string]string) (texts []string) {
	names := slices.Sorted(maps.Keys(paths))
	shown := func(name string) string {
		if paths[name] == name {
			return fmt.Sprintf("%q, which keeps its name,", name)
		}
		return fmt.Sprintf("%q", name)
	}
	for i, a := range names {
		for _, b := range names[i+1:] {
			switch pathA, pathB := paths[a], paths[b]; {
			case pathA == "" || pathB == "":
			case pathA == pathB:
				texts = append(texts, fmt.Sprintf("%s and %s have the same path, %q", shown(a), shown(b), pathA))
			case strings.HasPrefix(pathB, pathA+"."):
				texts = append(texts, fmt.Sprintf("the path of %s %q, is inside that of %s %q", shown(b), pathB, shown(a), pathA))
			case strings.HasPrefix(pathA, pathB+"."):
				texts = append(texts, fmt.Sprintf("the path of %s %q, is inside that of %s %q", shown(a), pathA, shown(b), pathB))
			}
		}
	}
	return texts
}

// parentPaths returns the paths of the collection that must hold documents.
func (f *fieldMap) parentPaths() []string {
	if f == nil {
		return ownParents
	}
	return f.parents
}

var ownParents = []string{"profile"}

// idIsClerkID reports whether the _id of a record is its Clerk id.
func (f *fieldMap) idIsClerkID() bool { return f != nil && f.paths["clerkId"] == "_id" }

// drops reports whether a field is not stored.
func (f *fieldMap) drops(name string) bool { return f.path(name) == "" }

// path returns the collection's path for a name, or for a path that begins with one, such as
// "extraFields.0". It is empty if the field is not stored. Other paths, such as a name in
// Extra, stay as they are.
func (f *fieldMap) path(name string) string {
	if f == nil {
		return name
	}
	for head, rest := name, ""; ; {
		if path, known := f.paths[head]; known {
			if path == "" {
				return ""
			}
			return path + rest
		}
		dot := strings.LastIndexByte(head, '.')
		if dot < 0 {
			return name
		}
		head, rest = head[:dot], name[dot:]
	}
}

// ownSegments are the segments of each name.
var ownSegments = func() map[string][]string {
	segments := make(map[string][]string, len(recordFields))
	for name := range recordFields {
		segments[name] = strings.Split(name, ".")
	}
	return segments
}()

// segmentsOf returns the path of a name in parts, nil if the field is not stored.
func (f *fieldMap) segmentsOf(name string) []string {
	segments := ownSegments
	if f != nil {
		segments = f.segments
	}
	if segments, known := segments[name]; known {
		return segments
	}
	if path := f.path(name); path != "" {
		return strings.Split(path, ".")
	}
	return nil
}

// name returns the name for a path of the collection: path reversed.
func (f *fieldMap) name(path string) string {
	if f == nil {
		return path
	}
	for head, rest := path, ""; ; {
		if name, known := f.names[head]; known {
			return name + rest
		}
		dot := strings.LastIndexByte(head, '.')
		if dot < 0 {
			return path
		}
		head, rest = head[:dot], path[dot:]
	}
}

// asIs begins a key that is a path of the collection. No field's name can begin with it.
const asIs = "\x00"

// verbatim returns the key for a path of the collection in a filter or an update.
func (f *fieldMap) verbatim(path string) string {
	if f == nil {
		return path
	}
	return asIs + path
}

// key translates a key of a filter or an update; empty if the field is not stored.
func (f *fieldMap) key(key string) string {
	if path, found := strings.CutPrefix(key, asIs); found {
		return path
	}
	return f.path(key)
}

// keys translates the keys of a document, and leaves out fields that are not stored.
func (f *fieldMap) keys(d bson.D) bson.D {
	if f == nil {
		return d
	}
	translated := make(bson.D, 0, len(d))
	for _, e := range d {
		if key := f.key(e.Key); key != "" {
			translated = append(translated, bson.E{Key: key, Value: e.Value})
		}
	}
	return translated
}

// filter translates a filter. A condition on a field that is not stored is left out: it is
// about a value that was read as absent. Documents in the arrays of $and, $or and $nor are
// translated too if they are of type bson.D.
func (f *fieldMap) filter(d bson.D) bson.D {
	if f == nil {
		return d
	}
	translated := make(bson.D, 0, len(d))
	for _, e := range d {
		if strings.HasPrefix(e.Key, "$") {
			translated = append(translated, bson.E{Key: e.Key, Value: f.clauses(e.Value)})
		} else if key := f.key(e.Key); key != "" {
			translated = append(translated, bson.E{Key: key, Value: e.Value})
		}
	}
	return translated
}

func (f *fieldMap) clauses(value any) any {
	list, isList := value.(bson.A)
	if !isList {
		return value
	}
	translated := make(bson.A, len(list))
	for i, clause := range list {
		translated[i] = clause
		if d, ok := clause.(bson.D); ok {
			translated[i] = f.filter(d)
		}
	}
	return translated
}

// update translates an update. An operator that has nothing left to do is left out: before
// MongoDB 5.0 it must not be empty.
func (f *fieldMap) update(d bson.D) bson.D {
	if f == nil {
		return d
	}
	translated := make(bson.D, 0, len(d))
	for _, operator := range d {
		fields, _ := operator.Value.(bson.D)
		if fields = f.keys(fields); len(fields) > 0 {
			translated = append(translated, bson.E{Key: operator.Key, Value: fields})
		}
	}
	return translated
}

// document returns the document of a list of names and values. It may reuse the list.
func (f *fieldMap) document(fields bson.D) bson.D { return nest(f.keys(fields)) }

// nest turns paths into nested documents. It reuses set.
func nest(set bson.D) bson.D {
	type group struct {
		name   string
		fields bson.D
	}
	doc, groups := set[:0], make([]group, 0, 4) // in place: only nested fields leave set
	for _, e := range set {
		name, rest, nested := strings.Cut(e.Key, ".")
		if !nested {
			doc = append(doc, e)
			continue
		}
		i := slices.IndexFunc(groups, func(g group) bool { return g.name == name })
		if i < 0 {
			i, groups = len(groups), append(groups, group{name, make(bson.D, 0, 8)})
		}
		groups[i].fields = append(groups[i].fields, bson.E{Key: rest, Value: e.Value})
	}
	for _, g := range groups {
		doc = append(doc, bson.E{Key: g.name, Value: nest(g.fields)})
	}
	return doc
}

// taken reports whether a path of a mapped field begins with this name. Extra may not use it.
func (f *fieldMap) taken(name string) bool { return f != nil && f.tops[name] }

// errNameTaken is why an Extra cannot have a name.
var errNameTaken = errors.New("mongostore: Fields maps a field of the record to this name, or into it")

// stored returns u as the Store keeps it, without the fields that are not stored. u is not
// shared. The error is a [*clerksync.ConflictError] about a name in Extra that is taken, so
// that a record that exists is written without it.
func (f *fieldMap) stored(u *clerksync.User) (*clerksync.User, error) {
	if f == nil {
		return u, nil
	}
	for _, name := range slices.Sorted(maps.Keys(u.Extra)) {
		if f.taken(name) {
			return nil, &clerksync.ConflictError{Field: name, Err: errNameTaken}
		}
	}
	for name, forget := range forgets {
		if f.drops(name) {
			forget(u)
		}
	}
	if u.Location != nil && *u.Location == (clerksync.Location{}) {
		u.Location = nil
	}
	return u, nil
}

// forgets remove the fields from a User that may be dropped, except updatedAt, which only the
// Store sets.
var forgets = map[string]func(u *clerksync.User){
	"email":               func(u *clerksync.User) { u.Email = "" },
	"name":                func(u *clerksync.User) { u.Name = "" },
	"role":                func(u *clerksync.User) { u.Role, u.RoleFromClerk = "", false },
	"profile.firstName":   func(u *clerksync.User) { u.Profile.FirstName = "" },
	"profile.lastName":    func(u *clerksync.User) { u.Profile.LastName = "" },
	"profile.fullName":    func(u *clerksync.User) { u.Profile.FullName = "" },
	"profile.imageUrl":    func(u *clerksync.User) { u.Profile.ImageURL = "" },
	"profile.phoneNumber": func(u *clerksync.User) { u.Profile.PhoneNumber = "" },
	"profile.birthday":    func(u *clerksync.User) { u.Profile.Birthday = "" },
	"profile.gender":      func(u *clerksync.User) { u.Profile.Gender = "" },
	"location.country":    func(u *clerksync.User) { forgetPlace(u, func(l *clerksync.Location) { l.Country = "" }) },
	"location.city":       func(u *clerksync.User) { forgetPlace(u, func(l *clerksync.Location) { l.City = "" }) },
	"location.state":      func(u *clerksync.User) { forgetPlace(u, func(l *clerksync.Location) { l.State = "" }) },
	"location.timezone":   func(u *clerksync.User) { forgetPlace(u, func(l *clerksync.Location) { l.Timezone = "" }) },
	"emailVerified":       func(u *clerksync.User) { u.EmailVerified = false },
	"phoneVerified":       func(u *clerksync.User) { u.PhoneVerified = false },
	"lastSignInAt":        func(u *clerksync.User) { u.LastSignInAt = time.Time{} },
	"clerkCreatedAt":      func(u *clerksync.User) { u.ClerkCreatedAt = time.Time{} },
}

func forgetPlace(u *clerksync.User, forget func(*clerksync.Location)) {
	if u.Location != nil {
		forget(u.Location)
	}
}

// Keeps reports whether the Store keeps a field: false for one that [Options].Fields drops, and
// for a name in Extra that is taken by a mapped path. The path is one of
// [clerksync.User.ClerkFields], or any other name of a record's field. A Reconcile ignores what
// the Store does not keep.
func (s *Store) Keeps(path string) bool {
	if _, isField := recordFields[path]; isField {
		return !s.codec.drops(path)
	}
	return !s.codec.taken(path)
}
