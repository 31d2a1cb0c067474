package mongostore_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/clerk/clerk-sdk-go/v2"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/mongostore"
)

// The benchmarks compare the Store with the driver alone, which writes the same fields by an
// upsert on clerkId without a guard. Both take turns in one run. The metrics "store-ns" and
// "bare-ns" are their medians, and "ratio" is the quotient: below 1, the Store is faster. Do
// not run them on the embedded database, which reads whole collections. What -benchmem counts
// includes the bare driver and the tests' check of each command.
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
	compare(b, func(i int) error {
		_, err := s.Upsert(b.Context(), user(i))
		return err
	}, func(i int) error {
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
		const sets = 20 // so that no record is updated in every round
		compareBatches(b, size, func(round, i int) *clerksync.User { return person(fmt.Sprint(round%sets, "_", i), 1+round) })
	})
}

func compareBatches(b *testing.B, size int, user func(round, i int) *clerksync.User) {
	coll, bare := newCollection(b), newStore(b).coll
	s := open(b, coll, &mongostore.Options{BatchSize: size})
	compare(b, func(round int) error {
		us := make([]*clerksync.User, size)
		for i := range us {
			us[i] = user(round, i)
		}
		_, err := s.UpsertBatch(b.Context(), us)
		return err
	}, func(round int) error {
		models := make([]mongo.WriteModel, size)
		for i := range models {
			filter, update := bareUpsert(user(round, i))
			models[i] = mongo.NewUpdateOneModel().SetFilter(filter).SetUpdate(update).SetUpsert(true)
		}
		_, err := bare.BulkWrite(b.Context(), models, options.BulkWrite().SetOrdered(false))
		return err
	})
}

// BenchmarkBackfill is a first run on an empty collection: pages of new users. The bare
// driver does it by upserts, and by inserts, which fail if another program, such as a
// webhook, writes the same users. Their documents have an _id, as the Store's do, because the
// driver does not tell which _ids it makes for a bulk write.
func BenchmarkBackfill(b *testing.B) {
	const size = 500
	coll := newCollection(b)
	s := open(b, coll, &mongostore.Options{BatchSize: size})
	page := func(round int) []*clerksync.User {
		us := make([]*clerksync.User, size)
		for i := range us {
			us[i] = person(fmt.Sprint(round, "_", i), 1)
		}
		return us
	}
	bare := func(model func(u *clerksync.User) mongo.WriteModel) func(int) error {
		coll := newStore(b).coll
		return func(round int) error {
			models := make([]mongo.WriteModel, size)
			for i, u := range page(round) {
				models[i] = model(u)
			}
			_, err := coll.BulkWrite(b.Context(), models, options.BulkWrite().SetOrdered(false))
			return err
		}
	}
	medians := turns(b, func(round int) error {
		_, err := s.UpsertBatch(b.Context(), page(round))
		return err
	}, bare(func(u *clerksync.User) mongo.WriteModel {
		id := bson.D{{Key: "_id", Value: bson.NewObjectID()}}
		return mongo.NewInsertOneModel().SetDocument(append(id, bareDocument(u)...))
	}), bare(func(u *clerksync.User) mongo.WriteModel {
		filter, update := bareUpsert(u)
		return mongo.NewUpdateOneModel().SetFilter(filter).SetUpdate(update).SetUpsert(true)
	}))
	b.ReportMetric(medians[0]/medians[1], "ratio-to-inserts")
	b.ReportMetric(medians[0]/medians[2], "ratio-to-upserts")
	b.ReportMetric(medians[0], "store-ns")
	b.ReportMetric(medians[1], "inserts-ns")
	b.ReportMetric(medians[2], "upserts-ns")
}

// BenchmarkAdopt is a first run on a collection of 50,000 records from before Clerk: pages of
// which every other user adopts one, by e-mail. It takes turns with a first run on an empty
// collection by a Store that does not adopt. "rate" is the quotient of the rates.
//
//	MONGODB_URI=… go test ./mongostore -run '^$' -bench Adopt -benchtime 200x
func BenchmarkAdopt(b *testing.B) {
	const size, rounds = 500, 200
	adopting := newBenchAdopter(b, size)
	plain := open(b, newCollection(b), &mongostore.Options{BatchSize: size})
	page := func(round int) (us []*clerksync.User) {
		for i := range size {
			u := person(fmt.Sprint(round, "_", i), 1)
			u.EmailProven, u.ExternalID = true, "none"
			us = append(us, u)
		}
		return us
	}
	for round := 1; round <= rounds; round++ {
		var docs []bson.D
		for _, u := range page(round)[:size/2] {
			docs = append(docs, legacy("of "+u.ClerkID, bson.E{Key: "email", Value: u.Email}))
		}
		insert(b, adopting.coll, docs...)
	}
	adopted := 0
	medians := turns(b, func(round int) error {
		results, err := adopting.UpsertBatch(b.Context(), page(round))
		for _, r := range results {
			if r.Outcome == clerksync.Adopted {
				adopted++
			}
		}
		return err
	}, func(round int) error {
		_, err := plain.UpsertBatch(b.Context(), page(round))
		return err
	})
	if adopted != min(b.N, rounds)*size/2 {
		b.Errorf("%d users adopted a record", adopted)
	}
	b.ReportMetric(medians[1]/medians[0], "rate")
	b.ReportMetric(medians[0], "adopting-ns")
	b.ReportMetric(medians[1], "plain-ns")
}

func newBenchAdopter(b *testing.B, size int) rawStore {
	b.Helper()
	coll, adopt := newCollection(b), &mongostore.Adopt{ByExternalID: "_id", ByEmail: true, Trusted: verified}
	return rawStore{open(b, coll, &mongostore.Options{BatchSize: size, Adopt: adopt}), coll}
}

// bareUpsert returns what an app would write without clerksync.
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
		{Key: "plan", Value: u.Extra["plan"]}, {Key: "seats", Value: u.Extra["seats"]},
		{Key: "extraFields", Value: []string{"plan", "seats"}},
		{Key: "clerkCreatedAt", Value: u.ClerkCreatedAt}, {Key: "clerkUpdatedAt", Value: u.ClerkUpdatedAt},
		{Key: "syncedAt", Value: u.SyncedAt},
	}
	onInsert := bson.D{{Key: "isActive", Value: true}, {Key: "createdAt", Value: time.Now()}}
	filter = bson.D{{Key: "clerkId", Value: u.ClerkID}}
	return filter, bson.D{{Key: "$set", Value: set}, {Key: "$setOnInsert", Value: onInsert}}
}

// bareDocument returns what bareUpsert inserts.
func bareDocument(u *clerksync.User) bson.D {
	filter, update := bareUpsert(u)
	doc, nested := slices.Clone(filter), make(map[string]bson.D)
	for _, operator := range update {
		for _, e := range operator.Value.(bson.D) {
			if head, rest, ok := strings.Cut(e.Key, "."); ok {
				nested[head] = append(nested[head], bson.E{Key: rest, Value: e.Value})
			} else {
				doc = append(doc, e)
			}
		}
	}
	for _, head := range []string{"profile", "location"} {
		doc = append(doc, bson.E{Key: head, Value: nested[head]})
	}
	return doc
}

// compare runs the two in turn.
func compare(b *testing.B, store, bare func(round int) error) {
	b.Helper()
	medians := turns(b, store, bare)
	b.ReportMetric(medians[0]/medians[1], "ratio")
	b.ReportMetric(medians[0], "store-ns")
	b.ReportMetric(medians[1], "bare-ns")
}

// turns runs all fs in each round, another one first each time, and returns their median
// times.
func turns(b *testing.B, fs ...func(round int) error) []float64 {
	b.Helper()
	took := make([][]time.Duration, len(fs))
	for round := 1; b.Loop(); round++ {
		for i := range fs {
			i = (round + i) % len(fs)
			start := time.Now()
			if err := fs[i](round); err != nil {
				b.Fatal(err)
			}
			took[i] = append(took[i], time.Since(start))
		}
	}
	medians := make([]float64, len(fs))
	for i := range took {
		slices.Sort(took[i])
		medians[i] = float64(took[i][len(took[i])/2])
	}
	return medians
}

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

// BenchmarkReconcileAdopt takes over a collection of 50,000 records from before Clerk, for 100,000
// users, who have proven their addresses. It compares that with a first backfill of the same users
// into an empty collection, in turn in one run. "scan" is the pass for
// records without a Clerk id over the records of the backfill, as a part of it.
//
//	MONGODB_URI=… go test ./mongostore -run '^$' -bench ReconcileAdopt -benchtime 3x -timeout 60m
func BenchmarkReconcileAdopt(b *testing.B) {
	const users, legacy = 100_000, 50_000
	clerk, err := fakeclerk.Start(fakeclerk.Config{RateLimit: -1, Population: users})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = clerk.Close() }()
	prove := func(_ *sdk.User, u *clerksync.User) error {
		u.EmailProven = true
		return nil
	}
	run := func(coll *mongo.Collection, opts *mongostore.Options) (report clerksync.Report, took time.Duration) {
		s, err := clerksync.New(clerksync.Config{
			Store: open(b, coll, opts), SecretKey: clerk.SecretKey(), APIURL: clerk.APIURL(), Map: prove,
			Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		report, err = s.Reconcile(b.Context(), clerksync.ReconcileOptions{RequestsPerSecond: 1e6})
		if err != nil {
			b.Fatal(err)
		}
		return report, time.Since(start)
	}
	var plain, adopting, scan time.Duration
	for b.Loop() {
		empty, existing := newCollection(b), newCollection(b)
		report, took := run(empty, &mongostore.Options{})
		if plain += took; report.Created.Count != users {
			b.Fatalf("%+v", report)
		}
		start := time.Now()
		for email := range open(b, empty, &mongostore.Options{}).UnlinkedEmails(b.Context()) {
			b.Fatalf("an unlinked record: %d bytes", len(email))
		}
		scan += time.Since(start)
		fillLegacy(b, empty, existing, legacy)
		report, took = run(existing, &mongostore.Options{Adopt: &mongostore.Adopt{ByEmail: true, Trusted: bson.D{}}})
		if adopting += took; report.Adopted.Count != legacy || report.Created.Count != users-legacy {
			b.Fatalf("%+v", report)
		}
	}
	n := float64(users * b.N)
	b.ReportMetric(n/plain.Seconds(), "backfilled/s")
	b.ReportMetric(n/adopting.Seconds(), "adopting/s")
	b.ReportMetric(plain.Seconds()/adopting.Seconds(), "rate/backfill")
	b.ReportMetric(scan.Seconds()/plain.Seconds(), "scan/backfill")
}

// fillLegacy writes n records from before Clerk, for users of a backfill who have an address.
func fillLegacy(b *testing.B, backfilled, to *mongo.Collection, n int) {
	cursor, err := backfilled.Find(b.Context(), exists("email"), options.Find().SetProjection(bson.D{{Key: "email", Value: 1}}))
	if err != nil {
		b.Fatal(err)
	}
	var users []struct{ Email string }
	if err := cursor.All(b.Context(), &users); err != nil {
		b.Fatal(err)
	}
	var docs []bson.D
	for i := range n { // spread over the pages
		email := users[i*len(users)/n].Email
		docs = append(docs, bson.D{{Key: "email", Value: email}, {Key: "role", Value: "TEACHER"}, {Key: "plan", Value: "pro"}})
	}
	for chunk := range slices.Chunk(docs, 1000) {
		insert(b, to, chunk...)
	}
}

// BenchmarkUndeleted compares the pass over collections of several sizes. The passes take turns,
// so that the load of the machine is the same for all.
//
//	MONGODB_URI=… go test ./mongostore -run '^$' -bench Undeleted -benchtime 5x -timeout 60m -reconcile.users 50000,400000,1000000
func BenchmarkUndeleted(b *testing.B) {
	var passes []func(int) error
	sizes := strings.Split(*reconcileUsers, ",")
	for _, text := range sizes {
		users, err := strconv.Atoi(text)
		if err != nil {
			b.Fatal(err)
		}
		coll := newCollection(b)
		store := open(b, coll, &mongostore.Options{})
		fill(b, coll, users)
		passes = append(passes, func(int) error {
			n := 0
			for _, err := range store.Undeleted(b.Context()) {
				if err != nil {
					return err
				}
				n++
			}
			if n != users {
				return fmt.Errorf("the pass yielded %d records of %d", n, users)
			}
			return nil
		})
	}
	medians := turns(b, passes...)
	for i, text := range sizes {
		users, _ := strconv.ParseFloat(text, 64)
		b.ReportMetric(users/medians[i]*1e9, "of-"+text+"/s")
	}
}

// fill inserts records with ids as random as Clerk's.
func fill(b *testing.B, coll *mongo.Collection, users int) {
	random := rand.New(rand.NewPCG(1, uint64(users)))
	for done := 0; done < users; done += 1000 {
		docs := make([]bson.D, min(1000, users-done))
		for i := range docs {
			docs[i] = bareDocument(person(fmt.Sprintf("%016x%08x", random.Uint64(), done+i), 1))
		}
		if _, err := coll.InsertMany(b.Context(), docs, options.InsertMany().SetOrdered(false)); err != nil {
			b.Fatal(err)
		}
	}
}

var reconcileUsers = flag.String("reconcile.users", "50000", "the sizes for BenchmarkUndeleted and BenchmarkReconcileInStep")

// BenchmarkReconcileInStep fills collections of several sizes, and times a run over each that
// finds all records in step, by versions and by whole records, and the part of it that looks for
// ghosts. Filling a million takes minutes.
//
//	MONGODB_URI=… go test ./mongostore -run '^$' -bench ReconcileInStep -benchtime 1x -timeout 60m -reconcile.users 50000,400000,1000000
func BenchmarkReconcileInStep(b *testing.B) {
	for text := range strings.SplitSeq(*reconcileUsers, ",") {
		users, err := strconv.Atoi(text)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(text, func(b *testing.B) { reconcileInStep(b, users) })
	}
}

func reconcileInStep(b *testing.B, users int) {
	clerk, err := fakeclerk.Start(fakeclerk.Config{RateLimit: -1, Population: users})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = clerk.Close() }()
	coll := newCollection(b)
	s := newBenchReconciler(b, coll, clerk)
	var ghosts time.Time // when the run began to look for them
	run := func(force bool) (clerksync.Report, time.Duration) {
		start := time.Now()
		report, err := s.Reconcile(b.Context(), clerksync.ReconcileOptions{
			RequestsPerSecond: 1e6, Force: force, Holdback: -1,
			Progress: func(p clerksync.Progress) {
				if p.Phase == clerksync.PhaseUsers {
					ghosts = time.Now()
				}
			},
		})
		if err != nil {
			b.Fatal(err)
		}
		return report, time.Since(start)
	}
	_, filled := run(false)
	b.Logf("filled with %d users in %v", users, filled)
	took := make(map[string]time.Duration)
	for b.Loop() {
		for name, force := range map[string]bool{"versions/s": false, "whole/s": true} {
			report, d := run(force)
			if report.Unchanged != users {
				b.Fatalf("%+v", report)
			}
			took[name] += d
			took["ghosts-of-"+name] += time.Since(ghosts)
		}
	}
	for name, d := range took {
		b.ReportMetric(float64(users*b.N)/d.Seconds(), name)
	}
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

// jobProcesses is how many Syncers BenchmarkJobs has, each with a client of its own. jobWorkers is how
// many jobs one runs at a time.
const jobProcesses, jobWorkers = 3, 8

// BenchmarkJobs has 10,000 OnCreate jobs due at once, which three Syncers work off, as three processes
// of an app do. It compares that with the commands that each job needs, by the driver alone, with as
// many clients and goroutines, in turn in one run: read, claim and finish, without a guard. "rate" is
// the quotient of the rates, and "peak-MB" the highest heap while the Syncers were at work.
// "commands" is how many commands a job took, of which three are its own.
//
//	MONGODB_URI=… go test ./mongostore -run '^$' -bench Jobs -benchtime 5x
func BenchmarkJobs(b *testing.B) {
	const users = 10_000
	ours, bare := newStore(b), newStore(b)
	var commands atomic.Int64
	var syncers []*clerksync.Syncer
	var clients []*mongo.Collection
	for range jobProcesses {
		coll := benchCollection(b, ours.coll, &commands)
		s, err := clerksync.New(clerksync.Config{
			Store: open(b, coll, nil), SecretKey: "sk_test_x", Logger: slog.New(slog.DiscardHandler),
			OnCreate: func(context.Context, *clerksync.User, clerksync.Job) error { return nil },
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = s.Close() })
		syncers, clients = append(syncers, s), append(clients, benchCollection(b, bare.coll, nil))
	}
	for _, s := range []rawStore{ours, bare} {
		fill(b, s.coll, users)
		if err := s.PrepareJobs(b.Context(), clerksync.JobCreate); err != nil {
			b.Fatal(err)
		}
	}
	ids, err := bare.coll.Distinct(b.Context(), "clerkId", bson.D{}).Raw()
	if err != nil {
		b.Fatal(err)
	}
	values, err := ids.Values()
	if err != nil || len(values) != users {
		b.Fatal(len(values), err)
	}
	peak := uint64(0)
	var rates [2][]float64
	for round := 0; b.Loop(); round++ {
		for _, s := range []rawStore{ours, bare} {
			owed := bson.D{{Key: "$set", Value: bson.D{{Key: "clerkJobs", Value: bson.D{{Key: "create", Value: bson.D{{Key: "due", Value: hour(1)}}}}}}}}
			if _, err := s.coll.UpdateMany(b.Context(), bson.D{}, owed); err != nil {
				b.Fatal(err)
			}
		}
		for i := range 2 {
			start := time.Now()
			if (i+round)%2 == 0 {
				peak = max(peak, drainAll(b, syncers, users))
				rates[0] = append(rates[0], users/time.Since(start).Seconds())
			} else {
				bareJobs(b, clients, values)
				rates[1] = append(rates[1], users/time.Since(start).Seconds())
			}
		}
	}
	for i := range rates {
		slices.Sort(rates[i])
	}
	our, their := rates[0][len(rates[0])/2], rates[1][len(rates[1])/2]
	b.ReportMetric(our, "jobs/s")
	b.ReportMetric(their, "bare/s")
	b.ReportMetric(our/their, "rate")
	b.ReportMetric(float64(peak)/1e6, "peak-MB")
	b.ReportMetric(float64(commands.Load())/float64(users*b.N), "commands")
}

// benchCollection is the collection on a client of its own, whose commands are counted if count is
// not nil.
func benchCollection(b *testing.B, coll *mongo.Collection, count *atomic.Int64) *mongo.Collection {
	b.Helper()
	opts := options.Client().ApplyURI(uri)
	if count != nil {
		opts.SetMonitor(&event.CommandMonitor{Started: func(context.Context, *event.CommandStartedEvent) { count.Add(1) }})
	}
	own, err := mongo.Connect(opts)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = own.Disconnect(context.Background()) })
	return own.Database(coll.Database().Name()).Collection(coll.Name())
}

// drainAll has the Syncers run the jobs that are due, and returns the highest heap.
func drainAll(b *testing.B, syncers []*clerksync.Syncer, users int) (peak uint64) {
	b.Helper()
	var all, watching sync.WaitGroup
	var ran atomic.Int64
	over := make(chan struct{})
	watching.Go(func() {
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-tick.C:
			case <-over:
				tick.Stop()
				return
			}
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
		}
	})
	for _, s := range syncers {
		all.Go(func() {
			n, err := s.DrainJobs(b.Context())
			if err != nil {
				b.Error(err)
			}
			ran.Add(int64(n))
		})
	}
	all.Wait()
	close(over)
	watching.Wait()
	if int(ran.Load()) != users {
		b.Errorf("%d jobs ran, want %d", ran.Load(), users)
	}
	return peak
}

// bareJobs reads, claims and finishes a job of each user by the driver alone.
func bareJobs(b *testing.B, clients []*mongo.Collection, ids []bson.RawValue) {
	b.Helper()
	next := make(chan bson.RawValue)
	var all sync.WaitGroup
	for _, coll := range clients {
		for range jobWorkers {
			all.Go(func() {
				for id := range next {
					if err := bareJob(b.Context(), coll, id.StringValue()); err != nil {
						b.Error(err)
					}
				}
			})
		}
	}
	for _, id := range ids {
		next <- id
	}
	close(next)
	all.Wait()
}

func bareJob(ctx context.Context, coll *mongo.Collection, id string) error {
	filter := bson.D{{Key: "clerkId", Value: id}}
	var u map[string]any
	if err := coll.FindOne(ctx, filter).Decode(&u); err != nil {
		return err
	}
	claim := bson.D{{Key: "due", Value: time.Now().Add(time.Hour)}, {Key: "attempt", Value: 1}, {Key: "token", Value: id}}
	for _, job := range []bson.D{claim, {{Key: "attempt", Value: 1}}} {
		if _, err := coll.UpdateOne(ctx, filter, bson.D{{Key: "$set", Value: bson.D{{Key: "clerkJobs.create", Value: job}}}}); err != nil {
			return err
		}
	}
	return nil
}
