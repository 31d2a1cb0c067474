package mongostore_test

import (
	"context"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
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
	world.Run(t, func(t testing.TB, now func() time.Time) clerksync.Store {
		coll := newCollection(t)
		return countingStore{rawStore{open(t, coll, worldOptions(now)), coll}}
	}, world.Options{Checks: 1, Steps: 100})
}

// TestWorldUniqueEmail uses a unique index on the e-mail address.
func TestWorldUniqueEmail(t *testing.T) {
	world.Run(t, func(t testing.TB, now func() time.Time) clerksync.Store {
		coll := newCollection(t)
		createIndex(t, coll, ascending("email"), options.Index().SetUnique(true).SetSparse(true).SetName("email"))
		opts := worldOptions(now)
		opts.AllowUnique = []string{"email"} // the embedded database does not list it as sparse
		return countingStore{rawStore{open(t, coll, opts), coll}}
	}, world.Options{Checks: 1, Steps: 100, UniqueEmail: true})
}

// TestWorldEraseOnDelete erases what Clerk said about a deleted user. The fields have other names.
func TestWorldEraseOnDelete(t *testing.T) {
	world.Run(t, func(t testing.TB, now func() time.Time) clerksync.Store {
		opts := worldOptions(now)
		opts.EraseOnDelete, opts.Fields = true, mongostore.SnakeCase()
		return openMapped(t, opts)
	}, world.Options{Checks: 1, Steps: 100, Erases: true})
}

// TestWorldAdopting begins with records from before Clerk, whose fields are nested elsewhere. With
// MONGODB_URI or -rounds above 1 there are such worlds with the options of the others, too.
func TestWorldAdopting(t *testing.T) {
	for name, o := range map[string]world.Options{
		"Keeping": {}, "EraseOnDelete": {Erases: true}, "UniqueEmail": {UniqueEmail: true}, "Both": {UniqueEmail: true, Erases: true},
	} {
		if name != "Keeping" && !thorough() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			o.Checks, o.Steps = 1, 100
			world.Run(t, func(t testing.TB, now func() time.Time) clerksync.Store {
				coll, opts := newCollection(t), worldOptions(now)
				opts.Fields, opts.Adopt, opts.EraseOnDelete = nestedFields(), adoptTrusted(), o.Erases
				if o.UniqueEmail {
					createIndex(t, coll, ascending(opts.Fields["email"]), options.Index().SetUnique(true).SetSparse(true).SetName("email"))
					opts.AllowUnique = []string{"email"} // the embedded database does not list it as sparse
				}
				return adoptingStore{openMappedIn(t, coll, opts)}
			}, o)
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
