package mongostore_test

import (
	"context"
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

// TestConformanceAdopting runs the suite on Stores that adopt, under each map that allows it.
func TestConformanceAdopting(t *testing.T) {
	t.Parallel()
	for name, fields := range map[string]func() mongostore.Fields{
		"Plain": func() mongostore.Fields { return nil }, "SnakeCase": mongostore.SnakeCase, "Nested": nestedFields,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(t *testing.T) clerksync.Store {
				return adoptingStore{openMapped(t, &mongostore.Options{
					BatchSize: batchSize, Fields: fields(),
					Adopt: adoptTrusted(),
				})}
			})
		})
	}
}
