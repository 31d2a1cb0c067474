package mongostore_test

import (
	"context"
	"errors"
	"maps"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/storetest"
	"github.com/clerksync/clerksync-go/mongostore"
)

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
