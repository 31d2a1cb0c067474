package mongostore_test

import (
	"cmp"
	"context"
	"errors"
	"hash/crc32"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/storetest"
	"github.com/clerksync/clerksync-go/clerksync/storetest/world"
	"github.com/clerksync/clerksync-go/mongostore"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) clerksync.Store { return newStore(t) })
}

// The flags of rapid make a longer run:
//
//	go test ./mongostore -run 'TestWorld$' -timeout 2h -rapid.checks=250 -rapid.steps=200
func TestWorld(t *testing.T) {
	t.Parallel()
	world.Run(t, func(t testing.TB, now func() time.Time) clerksync.Store {
		coll := newCollection(t)
		return countingStore{rawStore{open(t, coll, worldOptions(now)), coll}}
	}, world.Options{Checks: 1, Steps: 60})
}

// TestWorldOptions has worlds of a Store with options. By default it is one with all of them: records
// from before Clerk, whose fields are nested elsewhere, a unique index on the e-mail address, and
// EraseOnDelete. With MONGODB_URI or -rounds above 1 there are the others, too.
func TestWorldOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]struct{ adopts, unique, erases bool }{
		"All": {true, true, true}, "Adopting": {adopts: true}, "AdoptingUniqueEmail": {adopts: true, unique: true},
		"AdoptingEraseOnDelete": {adopts: true, erases: true}, "UniqueEmail": {unique: true}, "EraseOnDelete": {erases: true},
	} {
		if name != "All" && !thorough() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			world.Run(t, func(t testing.TB, now func() time.Time) clerksync.Store {
				coll, opts := newCollection(t), worldOptions(now)
				opts.EraseOnDelete, opts.Fields = o.erases, mongostore.SnakeCase()
				if o.adopts {
					opts.Fields, opts.Adopt = nestedFields(), adoptTrusted()
				}
				if o.unique {
					email := cmp.Or(opts.Fields["email"], "email")
					createIndex(t, coll, ascending(email), options.Index().SetUnique(true).SetSparse(true).SetName("email"))
					opts.AllowUnique = []string{"email"} // the embedded database does not list it as sparse
				}
				if o.adopts {
					return adoptingStore{openMappedIn(t, coll, opts)}
				}
				return openMappedIn(t, coll, opts)
			}, world.Options{Checks: 1, Steps: 60, UniqueEmail: o.unique, Erases: o.erases})
		})
	}
}

func worldOptions(now func() time.Time) *mongostore.Options {
	return &mongostore.Options{BatchSize: batchSize, Now: now}
}

// countingStore lets the world notice a second record of a user.
type countingStore struct{ rawStore }

var _ world.Counter = countingStore{}

// Count implements world.Counter.
func (s countingStore) Count(ctx context.Context, clerkID string) (int, error) {
	n, err := s.coll.CountDocuments(ctx, bson.D{{Key: "clerkId", Value: clerkID}})
	return int(n), err
}

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

// count is how many of something a test has: few by default.
func count(few, many int) int {
	if thorough() {
		return many
	}
	return few
}

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

// adoptingStore lets the suite insert records from before Clerk.
type adoptingStore struct{ mappedStore }

var _ storetest.AdoptingStore = adoptingStore{}

// InsertLegacy implements storetest.AdoptingStore.
func (s adoptingStore) InsertLegacy(ctx context.Context, externalID string, trusted bool, fields map[string]any) (string, error) {
	id, all := bson.NewObjectID(), map[string]any{"trusted": trusted}
	maps.Copy(all, fields)
	if externalID != "" {
		all["legacy.id"] = externalID
	}
	return id.Hex(), s.setFields(ctx, bson.D{{Key: "_id", Value: id}}, all)
}

// LegacyFields implements storetest.AdoptingStore.
func (s adoptingStore) LegacyFields(ctx context.Context, id string) (map[string]any, error) {
	oid, err := bson.ObjectIDFromHex(id)
	if err != nil {
		return nil, err
	}
	return s.fieldsOf(ctx, bson.D{{Key: "_id", Value: oid}})
}

// adoptTrusted is the Adopt for an adoptingStore.
func adoptTrusted() *mongostore.Adopt {
	return &mongostore.Adopt{ByExternalID: "legacy.id", ByEmail: true, Trusted: bson.D{{Key: "trusted", Value: true}}}
}

func newAdoptingStore(t testing.TB, fields mongostore.Fields) adoptingStore {
	return adoptingStore{openMapped(t, &mongostore.Options{BatchSize: batchSize, Fields: fields, Adopt: adoptTrusted()})}
}

// TestConformanceAdopting runs the suite on a Store that adopts, with MONGODB_URI or -rounds
// above 1. By default TestConformanceMapped has its cases.
func TestConformanceAdopting(t *testing.T) {
	t.Parallel()
	if !thorough() {
		return
	}
	for name, fields := range map[string]func() mongostore.Fields{
		"Plain": func() mongostore.Fields { return nil }, "SnakeCase": mongostore.SnakeCase, "Nested": nestedFields,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(t *testing.T) clerksync.Store { return newAdoptingStore(t, fields()) })
		})
	}
}

// TestAdoptSnakeCase adopts in a collection in snake case. The names in Adopt are the collection's.
func TestAdoptSnakeCase(t *testing.T) {
	t.Parallel()
	s := openMapped(t, &mongostore.Options{
		BatchSize: batchSize, Fields: mongostore.SnakeCase(),
		Adopt: &mongostore.Adopt{ByExternalID: "old_id", ByEmail: true, Trusted: bson.D{{Key: "email_verified", Value: true}}},
	})
	insert(t, s.raw.coll,
		bson.D{{Key: "_id", Value: 1}, {Key: "email", Value: "ada@example.com"}, {Key: "email_verified", Value: true}, {Key: "role", Value: "ADMIN"}},
		bson.D{{Key: "_id", Value: 2}, {Key: "old_id", Value: int32(7)}, {Key: "profile", Value: nil}},
		bson.D{{Key: "_id", Value: 3}, {Key: "email", Value: "eve@example.com"}, {Key: "emailVerified", Value: true}},
		bson.D{{Key: "_id", Value: 4}, {Key: "email", Value: "joe@example.com"}, {Key: "email_verified", Value: true}, {Key: "deleted_at", Value: hour(0)}},
		bson.D{{Key: "_id", Value: 5}, {Key: "old_id", Value: "odd"}, {Key: "is_active", Value: "yes"}},
	)
	if got := upsert(t, s.Store, proven(1), clerksync.Adopted); got.Role != clerksync.RoleAdmin {
		t.Errorf("record %+v", got)
	}
	bob := change(person("bob", 1), func(u *clerksync.User) { u.ExternalID = "7" })
	if got := upsert(t, s.Store, bob, clerksync.Adopted); got.Profile != bob.Profile {
		t.Errorf("profile %+v", got.Profile)
	}
	var doc bson.Raw
	if doc, _ = s.raw.coll.FindOne(t.Context(), bson.D{{Key: "_id", Value: 2}}).Raw(); doc.Lookup("clerk_id").StringValue() != "user_bob" ||
		doc.Lookup("adopted_by").StringValue() != clerksync.ByExternalID || doc.Lookup("adopted_at").Time().IsZero() {
		t.Errorf("document %s", doc)
	}
	of := func(who, id string) *clerksync.User {
		return change(person(who, 1), func(u *clerksync.User) { u.EmailProven, u.ExternalID = true, id })
	}
	_, err := s.Store.Upsert(t.Context(), of("eve", ""))
	if !errors.Is(err, clerksync.ErrUnlinked) {
		t.Errorf("a name of clerksync's in Trusted: %v", err)
	}
	upsert(t, s.Store, of("joe", ""), clerksync.Created)
	_, err = s.Store.Upsert(t.Context(), of("odd", "odd"))
	wantTypeConflict(t, err, "isActive", "string")
	results, errs := upsertBatch(t, s.Store, of("eve", ""), of("bob", "7"), of("odd", "odd"))
	if len(errs) != 2 || results[1].Outcome != clerksync.Unchanged {
		t.Errorf("%v, %v", results, errs)
	}
	if res, err := s.DeactivateExternal(t.Context(), "user_odd", "odd", hour(2)); err != nil || res.Outcome != clerksync.Deactivated {
		t.Error(res, err)
	}
	if doc, _ = s.raw.coll.FindOne(t.Context(), bson.D{{Key: "_id", Value: 5}}).Raw(); doc.Lookup("clerk_id").StringValue() != "user_odd" {
		t.Errorf("document %s", doc)
	}
}
