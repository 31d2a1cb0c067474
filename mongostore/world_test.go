package mongostore_test

import (
	"context"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/storetest/world"
	"github.com/clerksync/clerksync-go/mongostore"
)

// The embedded server reads all of a collection to find one record; a longer run is
//
//	go test ./mongostore -run TestWorld -timeout 2h -rapid.checks=250 -rapid.steps=200
func TestWorld(t *testing.T) {
	world.Run(t, func(t testing.TB, now func() time.Time) clerksync.Store {
		coll := newCollection(t)
		s := open(t, coll, &mongostore.Options{BatchSize: batchSize, Now: now})
		return countingStore{rawStore{s, coll}}
	}, world.Size{Checks: 10, Steps: 200})
}

// countingStore lets the world see a second record of a user.
type countingStore struct{ rawStore }

var _ world.Counter = countingStore{}

// Count implements world.Counter.
func (s countingStore) Count(ctx context.Context, clerkID string) (int, error) {
	n, err := s.coll.CountDocuments(ctx, bson.D{{Key: "clerkId", Value: clerkID}})
	return int(n), err
}
