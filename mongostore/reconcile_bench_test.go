package mongostore_test

import (
	"slices"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/mongostore"
)

// BenchmarkReconcileBackfill is a first backfill of 100,000 users, from Clerk's API to the
// last write. It compares that with the driver's unordered bulk write of the same documents,
// 500 a call, into a collection with the same index, in turn in one run. It also times a run
// that finds all records in step.
//
//	MONGODB_URI=… go test ./mongostore -run '^$' -bench ReconcileBackfill -benchtime 1x -timeout 60m
func BenchmarkReconcileBackfill(b *testing.B) {
	const users = 100_000
	clerk, err := fakeclerk.Start(fakeclerk.Config{RateLimit: -1, Population: users})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = clerk.Close() }()
	var ours, bare, check time.Duration
	for b.Loop() {
		coll := newCollection(b)
		s := newBenchReconciler(b, coll, clerk)
		run := func() (clerksync.Report, time.Duration) {
			start := time.Now()
			report, err := s.Reconcile(b.Context(), clerksync.ReconcileOptions{RequestsPerSecond: 1e6})
			if err != nil {
				b.Fatal(err)
			}
			return report, time.Since(start)
		}
		report, took := run()
		ours += took
		if report.Created.Count != users {
			b.Fatalf("%+v", report)
		}
		bare += bulkWrite(b, coll)
		report, took = run()
		check += took
		if report.Unchanged != users {
			b.Fatalf("%+v", report)
		}
	}
	n := float64(users * b.N)
	b.ReportMetric(n/ours.Seconds(), "backfilled/s")
	b.ReportMetric(n/bare.Seconds(), "bare/s")
	b.ReportMetric(bare.Seconds()/ours.Seconds(), "rate/bare")
	b.ReportMetric(n/check.Seconds(), "unchanged/s")
}

func newBenchReconciler(b *testing.B, coll *mongo.Collection, clerk *fakeclerk.Server) *clerksync.Syncer {
	s, err := clerksync.New(clerksync.Config{
		Store: open(b, coll, &mongostore.Options{}), SecretKey: clerk.SecretKey(), APIURL: clerk.APIURL(),
	})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// bulkWrite writes the documents of a collection into a new one, and returns the time.
func bulkWrite(b *testing.B, from *mongo.Collection) time.Duration {
	cursor, err := from.Find(b.Context(), bson.D{})
	if err != nil {
		b.Fatal(err)
	}
	var docs []bson.D // not raw: they must be encoded, as ours are
	if err := cursor.All(b.Context(), &docs); err != nil {
		b.Fatal(err)
	}
	to := newCollection(b)
	open(b, to, &mongostore.Options{}) // for the index
	start := time.Now()
	for chunk := range slices.Chunk(docs, 500) {
		models := make([]mongo.WriteModel, len(chunk))
		for i, doc := range chunk {
			models[i] = mongo.NewInsertOneModel().SetDocument(doc)
		}
		if _, err := to.BulkWrite(b.Context(), models, options.BulkWrite().SetOrdered(false)); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start)
}
