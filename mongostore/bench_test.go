package mongostore_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// The benchmarks measure the Store against the driver alone: the same fields, by
// an upsert on clerkId that guards nothing. Both alternate in one run, and
// the metric "ratio" is the quotient of their medians; "store-ns" and "bare-ns" are
// these. Not for the embedded server, which reads whole collections.
//
//	MONGODB_URI=… go test -run '^$' -bench . -benchtime 3000x ./mongostore

func BenchmarkUpsert(b *testing.B) {
	b.Run("Create", func(b *testing.B) {
		compareUpserts(b, func(i int) *clerksync.User { return person(fmt.Sprint(i), 1) })
	})
	b.Run("Newer", func(b *testing.B) {
		compareUpserts(b, func(i int) *clerksync.User { return person(fmt.Sprint(i%100), 1+i) })
	})
}

func compareUpserts(b *testing.B, user func(i int) *clerksync.User) {
	s, bare := newStore(b), newStore(b).coll
	i := 0
	compare(b, func() error {
		i++
		_, err := s.Upsert(b.Context(), user(i))
		return err
	}, func() error {
		filter, update := bareUpsert(user(i))
		_, err := bare.UpdateOne(b.Context(), filter, update, options.UpdateOne().SetUpsert(true))
		return err
	})
}

func BenchmarkUpsertBatch(b *testing.B) {
	const size = 500
	b.Run("Create", func(b *testing.B) {
		compareBatches(b, size, func(round, i int) *clerksync.User { return person(fmt.Sprint(round, "_", i), 1) })
	})
	b.Run("Newer", func(b *testing.B) {
		const sets = 20 // to take turns: a record is not updated time and again
		compareBatches(b, size, func(round, i int) *clerksync.User { return person(fmt.Sprint(round%sets, "_", i), 1+round) })
	})
}

func compareBatches(b *testing.B, size int, user func(round, i int) *clerksync.User) {
	coll, bare := newCollection(b), newStore(b).coll
	s := open(b, coll, &mongostore.Options{BatchSize: size})
	round := 0
	compare(b, func() error {
		round++
		us := make([]*clerksync.User, size)
		for i := range us {
			us[i] = user(round, i)
		}
		_, err := s.UpsertBatch(b.Context(), us)
		return err
	}, func() error {
		models := make([]mongo.WriteModel, size)
		for i := range models {
			filter, update := bareUpsert(user(round, i))
			models[i] = mongo.NewUpdateOneModel().SetFilter(filter).SetUpdate(update).SetUpsert(true)
		}
		_, err := bare.BulkWrite(b.Context(), models, options.BulkWrite().SetOrdered(false))
		return err
	})
}

// bareUpsert is what an app would write without clerksync.
func bareUpsert(u *clerksync.User) (filter, update bson.D) {
	set := bson.D{
		{Key: "email", Value: u.Email}, {Key: "name", Value: u.Name}, {Key: "role", Value: u.Role},
		{Key: "profile.firstName", Value: u.Profile.FirstName}, {Key: "profile.lastName", Value: u.Profile.LastName},
		{Key: "profile.fullName", Value: u.Profile.FullName}, {Key: "profile.imageUrl", Value: u.Profile.ImageURL},
		{Key: "profile.phoneNumber", Value: u.Profile.PhoneNumber}, {Key: "profile.birthday", Value: u.Profile.Birthday},
		{Key: "profile.gender", Value: u.Profile.Gender},
		{Key: "location.country", Value: u.Location.Country}, {Key: "location.city", Value: u.Location.City},
		{Key: "lastSignInAt", Value: u.LastSignInAt}, {Key: "updatedAt", Value: time.Now()},
		{Key: "emailVerified", Value: u.EmailVerified}, {Key: "phoneVerified", Value: u.PhoneVerified},
		{Key: "banned", Value: u.Banned},
		{Key: "plan", Value: u.Extra["plan"]}, {Key: "seats", Value: u.Extra["seats"]}, {Key: "extraFields", Value: []string{"plan", "seats"}},
		{Key: "clerkCreatedAt", Value: u.ClerkCreatedAt}, {Key: "clerkUpdatedAt", Value: u.ClerkUpdatedAt}, {Key: "syncedAt", Value: u.SyncedAt},
	}
	onInsert := bson.D{{Key: "isActive", Value: true}, {Key: "createdAt", Value: time.Now()}}
	return bson.D{{Key: "clerkId", Value: u.ClerkID}}, bson.D{{Key: "$set", Value: set}, {Key: "$setOnInsert", Value: onInsert}}
}

// compare alternates the two.
func compare(b *testing.B, store, bare func() error) {
	b.Helper()
	var stores, bares []time.Duration
	measure := func(f func() error, to *[]time.Duration) {
		start := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		*to = append(*to, time.Since(start))
	}
	for b.Loop() {
		measure(store, &stores)
		measure(bare, &bares)
	}
	median := func(ds []time.Duration) float64 {
		slices.Sort(ds)
		return float64(ds[len(ds)/2])
	}
	b.ReportMetric(median(stores)/median(bares), "ratio")
	b.ReportMetric(median(stores), "store-ns")
	b.ReportMetric(median(bares), "bare-ns")
}
