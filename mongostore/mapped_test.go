package mongostore_test

import (
	"context"
	"errors"
	"hash/crc32"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/storetest"
	"github.com/clerksync/clerksync-go/clerksync/storetest/world"
	"github.com/clerksync/clerksync-go/mongostore"
)

// nestedFields moves fields into documents, out of them and deeper.
func nestedFields() mongostore.Fields {
	return mongostore.Fields{
		"clerkId": "auth.id", "clerkUpdatedAt": "auth.state.version", "syncedAt": "auth.state.synced",
		"clerkCreatedAt": "auth.since", "banned": "auth.state.banned", "deletedAt": "auth.state.removed", "extraFields": "auth.map.fields",
		"email": "mail", "emailVerified": "mails.verified", "name": "called", "lastSignInAt": "seen.last", "updatedAt": "seen.changed",
		"profile.firstName": "person.given", "profile.lastName": "person.family", "profile.fullName": "person.full",
		"profile.imageUrl": "person.image", "profile.phoneNumber": "person.phone", "profile.birthday": "person.born", "profile.gender": "person.gender",
		"location.country": "address.where.country", "location.city": "address.where.city",
		"location.state": "address.where.state", "location.timezone": "address.where.zone",
	}
}

// maps that the conformance suite runs under.
var fieldMaps = map[string]func() mongostore.Fields{
	"SnakeCase": mongostore.SnakeCase,
	"Nested":    nestedFields,
	"ID":        func() mongostore.Fields { return mongostore.Fields{"clerkId": "_id"} },
}

// mappedStore adds the app's access to the records to a Store with Fields. It translates on
// its own, so that the suite does not compare the codec with itself.
type mappedStore struct {
	*mongostore.Store
	raw  rawStore
	path map[string]string // of each name and of each parent
}

func newMappedStore(t testing.TB, fields mongostore.Fields) mappedStore {
	t.Helper()
	return openMapped(t, &mongostore.Options{BatchSize: batchSize, Fields: fields})
}

func openMapped(t testing.TB, opts *mongostore.Options) mappedStore {
	t.Helper()
	return openMappedIn(t, newCollection(t), opts)
}

func openMappedIn(t testing.TB, coll *mongo.Collection, opts *mongostore.Options) mappedStore {
	t.Helper()
	fields := opts.Fields
	monitor.expect(coll.Name(), fields["clerkId"])
	s := mappedStore{Store: open(t, coll, opts), path: make(map[string]string)}
	s.raw = rawStore{s.Store, coll}
	for name, path := range fields {
		s.path[name] = path
		parent, _, nested := strings.Cut(name, ".")
		if i := strings.LastIndexByte(path, '.'); nested && i >= 0 {
			s.path[parent] = path[:i]
		}
	}
	return s
}

func (s mappedStore) to(path string) string {
	if to, mapped := s.path[path]; mapped {
		return to
	}
	if head, rest, nested := strings.Cut(path, "."); nested && s.path[head] != "" {
		return s.path[head] + "." + rest // the app's own field in profile or location
	}
	return path
}

// SetFields implements storetest.RawStore.
func (s mappedStore) SetFields(ctx context.Context, clerkID string, fields map[string]any) error {
	return s.setFields(ctx, bson.D{{Key: s.to("clerkId"), Value: clerkID}}, fields)
}

func (s mappedStore) setFields(ctx context.Context, filter bson.D, fields map[string]any) error {
	mapped := make(map[string]any)
	for path, value := range fields {
		if children, ok := value.(map[string]any); ok && (path == "profile" || path == "location") {
			nested := make(map[string]any)
			for name, value := range children {
				nested[strings.TrimPrefix(s.to(path+"."+name), s.to(path)+".")] = value
			}
			value = nested
		}
		mapped[s.to(path)] = value
	}
	return s.raw.setFields(ctx, filter, mapped)
}

// Fields implements storetest.RawStore.
func (s mappedStore) Fields(ctx context.Context, clerkID string) (map[string]any, error) {
	return s.fieldsOf(ctx, bson.D{{Key: s.to("clerkId"), Value: clerkID}})
}

func (s mappedStore) fieldsOf(ctx context.Context, filter bson.D) (map[string]any, error) {
	raw, err := s.raw.coll.FindOne(ctx, filter).Raw()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, clerksync.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	record := plain(bson.RawValue{Type: bson.TypeEmbeddedDocument, Value: raw}).(map[string]any)
	delete(record, "clerkInsert")
	moved := make(map[string]any)
	names := slices.Collect(maps.Keys(s.path))
	slices.SortFunc(names, func(a, b string) int { return strings.Count(b, ".") - strings.Count(a, ".") })
	for _, name := range names { // parents last: what is left in them is the app's
		if v, ok := take(record, strings.Split(s.path[name], ".")); ok {
			put(moved, strings.Split(name, "."), v)
		}
	}
	for _, path := range s.path {
		prune(record, strings.Split(path, "."))
	}
	maps.Copy(record, moved)
	return record, nil
}

// take removes a field.
func take(doc map[string]any, path []string) (v any, ok bool) {
	if v, ok = doc[path[0]]; len(path) == 1 {
		delete(doc, path[0])
		return v, ok
	}
	child, _ := v.(map[string]any)
	return take(child, path[1:])
}

// prune removes the documents along a path that are empty.
func prune(doc map[string]any, path []string) {
	child, _ := doc[path[0]].(map[string]any)
	if child == nil {
		return
	}
	if len(path) > 1 {
		prune(child, path[1:])
	}
	if len(child) == 0 {
		delete(doc, path[0])
	}
}

// put adds a value, or what a document has, to a document.
func put(doc map[string]any, path []string, v any) {
	child, isDoc := doc[path[0]].(map[string]any)
	switch more, ok := v.(map[string]any); {
	case len(path) > 1:
		if !isDoc {
			child = make(map[string]any)
			doc[path[0]] = child
		}
		put(child, path[1:], v)
	case ok && isDoc:
		maps.Copy(child, more)
	default:
		doc[path[0]] = v
	}
}

// Upsert implements clerksync.Store. The suite expects conflicts under its own names.
func (s mappedStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	res, err := s.Store.Upsert(ctx, u)
	return res, s.renamed(err)
}

// renamed gives the error about a parent the name that the suite has for it.
func (s mappedStore) renamed(err error) error {
	conflict := (*clerksync.ConflictError)(nil)
	if !errors.As(err, &conflict) {
		return err
	}
	for _, parent := range []string{"profile", "location"} {
		if s.path[parent] == conflict.Field {
			renamed := *conflict
			renamed.Field = parent
			return &renamed
		}
	}
	return err
}

// Count implements world.Counter.
func (s mappedStore) Count(ctx context.Context, clerkID string) (int, error) {
	n, err := s.raw.coll.CountDocuments(ctx, bson.D{{Key: s.to("clerkId"), Value: clerkID}})
	return int(n), err
}

var (
	_ storetest.RawStore = mappedStore{}
	_ world.Counter      = mappedStore{}
)

// thorough reports whether tests of many combinations try them all. By default, on the embedded
// database, they try some.
func thorough() bool { return os.Getenv("MONGODB_URI") != "" || *rounds > 1 }

// TestConformanceMapped runs the suite under maps: each case under one of them, and with
// MONGODB_URI or -rounds above 1 under all. One of them is that of a Store that adopts.
func TestConformanceMapped(t *testing.T) {
	t.Parallel()
	names := slices.Sorted(maps.Keys(fieldMaps))
	if !thorough() {
		storetest.Run(t, func(t *testing.T) clerksync.Store {
			name := names[crc32.ChecksumIEEE([]byte(t.Name()))%uint32(len(names))]
			_, aCase, isCase := strings.Cut(t.Name(), "/")
			switch {
			case !isCase || strings.Contains(aCase, "Adopt"):
				name = "Nested"
			case strings.Contains(aCase, "Batch"):
				name = "ID" // the embedded database finds a record among many by its _id
			}
			if name == "Nested" {
				return newAdoptingStore(t, nestedFields())
			}
			return newMappedStore(t, fieldMaps[name]())
		})
		return
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(t *testing.T) clerksync.Store { return newMappedStore(t, fieldMaps[name]()) })
		})
	}
}
