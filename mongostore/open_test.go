package mongostore_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// TestOpenUnreachable opens a Store on a port without a server. The bubble's clock moves
// only while all wait, so each dial fails before a timeout ends.
func TestOpenUnreachable(t *testing.T) {
	t.Parallel()
	const password = "p4ssw0rd"
	nobody := func(t *testing.T, timeout time.Duration) *mongo.Collection {
		return newClient(t, func(o *options.ClientOptions) {
			o.SetHosts([]string{"127.0.0.1:1"}).SetAuth(options.Credential{Username: "app", Password: password})
			o.SetServerSelectionTimeout(timeout)
		}).Database("app").Collection("users")
	}
	t.Run("Deadline", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			_, err := mongostore.Open(ctx, nobody(t, time.Minute), nil)
			wantError(t, err, "mongostore: open: MongoDB cannot be reached: ", "127.0.0.1:1", "refused")
			if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), password) {
				t.Errorf("error %v", err)
			}
		})
	})
	t.Run("ClientTimeout", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, err := mongostore.Open(t.Context(), nobody(t, 3*time.Second), nil)
			wantError(t, err, "127.0.0.1:1", "refused")
		})
	})
	t.Run("Cancelled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cause := errors.New("the app shuts down")
			ctx, stop := context.WithCancelCause(t.Context())
			time.AfterFunc(50*time.Millisecond, func() { stop(cause) })
			_, err := mongostore.Open(ctx, nobody(t, time.Minute), nil)
			if !errors.Is(err, context.Canceled) || !errors.Is(err, cause) {
				t.Errorf("error %v", err)
			}
		})
	})
}

// TestOpenUnauthenticated opens a Store as a user whom the server does not know. The error
// must not show the password.
func TestOpenUnauthenticated(t *testing.T) {
	t.Parallel()
	const password = "p4ssw0rd"
	coll := newClient(t, func(o *options.ClientOptions) {
		o.SetAuth(options.Credential{AuthMechanism: "SCRAM-SHA-256", Username: "nobody", Password: password})
	}).Database(databases[0].Name()).Collection("users")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := mongostore.Open(ctx, coll, nil)
	wantError(t, err, "mongostore: open: MongoDB cannot be reached: ")
	if strings.Contains(err.Error(), password) {
		t.Errorf("the error contains the password: %v", err)
	}
	t.Log(err)
}

func TestOpenCreatesSparseUniqueIndex(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	insert(t, coll, bson.D{{Key: "email", Value: "a@example.com"}}, bson.D{{Key: "name", Value: "no id"}}, bson.D{})
	open(t, coll, nil)
	spec, ok := indexSpecs(t, coll)["clerkId_1"]
	if !ok || spec.Unique == nil || !*spec.Unique {
		t.Errorf("index: %+v, want a unique one", spec)
	}
	if listsSparse() && (spec.Sparse == nil || !*spec.Sparse) {
		t.Errorf("index: %+v, want a sparse one", spec)
	}
	insert(t, coll, bson.D{{Key: "name", Value: "no id either"}})
	insert(t, coll, bson.D{{Key: "clerkId", Value: "user_1"}})
	if _, err := coll.InsertOne(t.Context(), bson.D{{Key: "clerkId", Value: "user_1"}}); !mongo.IsDuplicateKeyError(err) {
		t.Errorf("a second user_1: %v, want a duplicate key error", err)
	}

	before := indexSpecs(t, coll)
	open(t, coll, nil)
	if d := cmp.Diff(before, indexSpecs(t, coll)); d != "" {
		t.Errorf("the second Open changes the indexes:\n%s", d)
	}
}

func TestOpenAcceptsUniqueIndex(t *testing.T) {
	t.Parallel()
	cases := map[string]mongo.IndexModel{
		"Unique":     {Keys: ascending("clerkId"), Options: options.Index().SetUnique(true)},
		"Sparse":     {Keys: ascending("clerkId"), Options: options.Index().SetUnique(true).SetSparse(true)},
		"Descending": {Keys: bson.D{{Key: "clerkId", Value: -1}}, Options: options.Index().SetUnique(true)},
		"Named":      {Keys: ascending("clerkId"), Options: options.Index().SetUnique(true).SetName("theirs")},
	}
	if partialIndexes() {
		cases["PartialExists"] = mongo.IndexModel{Keys: ascending("clerkId"), Options: options.Index().SetUnique(true).
			SetPartialFilterExpression(exists("clerkId"))}
	}
	for name, model := range cases {
		t.Run(name, func(t *testing.T) {
			coll := newCollection(t)
			if _, err := coll.Indexes().CreateOne(t.Context(), model); err != nil {
				t.Fatal(err)
			}
			before := indexSpecs(t, coll)
			s := open(t, coll, nil)
			if after := indexSpecs(t, coll); len(after) != len(before) {
				t.Errorf("Open made an index: %v", after)
			}
			if res, err := s.Upsert(t.Context(), ada(1)); err != nil || res.Outcome != clerksync.Created {
				t.Errorf("Upsert: %v, %v", res.Outcome, err)
			}
			if res, err := s.Upsert(t.Context(), ada(1)); err != nil || res.Outcome != clerksync.Unchanged {
				t.Errorf("Upsert again: %v, %v", res.Outcome, err)
			}
		})
	}
}

// TestOpenDoesNotTrustOtherPartialIndexes uses a partial index that leaves out some records.
func TestOpenDoesNotTrustOtherPartialIndexes(t *testing.T) {
	t.Parallel()
	if !partialIndexes() {
		t.Log("the server has no partial indexes")
		return
	}
	coll := newCollection(t)
	createIndex(t, coll, ascending("clerkId"), options.Index().SetUnique(true).SetName("active_only").
		SetPartialFilterExpression(bson.D{{Key: "isActive", Value: true}}))
	mayStandInTheWay(t, coll, "active_only")
}

func TestOpenWithNonUniqueIndexOnClerkID(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	createIndex(t, coll, ascending("clerkId"), options.Index())
	mayStandInTheWay(t, coll, "clerkId_1")
}

// mayStandInTheWay checks Open with a useless index on clerkId. Some servers allow another
// one beside it.
func mayStandInTheWay(t *testing.T, coll *mongo.Collection, name string) {
	t.Helper()
	_, err := mongostore.Open(t.Context(), coll, nil)
	if err != nil {
		t.Log(err)
		wantError(t, err, `"`+name+`"`, `.dropIndex("`+name+`")`)
		before := indexSpecs(t, coll)
		drop, create, restore := threeCalls(t, err)
		followAdvice(t, coll, []mongostore.ShellCall{drop, restore}, mongostore.ShellCall{})
		if d := cmp.Diff(before, indexSpecs(t, coll), cmp.Comparer(sameIndex)); d != "" {
			t.Errorf("the last line does not restore the index:\n%s", d)
		}
		followAdvice(t, coll, []mongostore.ShellCall{drop, create}, mongostore.ShellCall{})
		open(t, coll, nil)
	}
	insert(t, coll, bson.D{{Key: "clerkId", Value: "user_1"}})
	if _, err := coll.InsertOne(t.Context(), bson.D{{Key: "clerkId", Value: "user_1"}}); !mongo.IsDuplicateKeyError(err) {
		t.Errorf("a second user_1: %v, want a duplicate key error", err)
	}
}

// threeCalls returns the lines for mongosh. After them comes the one for Mongoose.
func threeCalls(t *testing.T, err error) (drop, create, restore mongostore.ShellCall) {
	t.Helper()
	calls, err := mongostore.ShellCalls(err.Error())
	if err != nil || len(calls) != 4 || calls[3].Collection != "schema" {
		t.Fatalf("%v, %v", calls, err)
	}
	return calls[0], calls[1], calls[2]
}

func TestOpenNamesDuplicates(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	for i := range 8 {
		for range i + 1 {
			insert(t, coll, bson.D{{Key: "clerkId", Value: fmt.Sprintf("user_%d", i)}, {Key: "email", Value: "ada@example.com"}})
		}
	}
	monitored, sent := newMonitored(t, coll)
	_, err := mongostore.Open(t.Context(), monitored, nil)
	for _, cmd := range sent.take() {
		// Before MongoDB 6.0 a $group of more than 100 MB fails without it.
		if allowed, _ := cmd.Lookup("allowDiskUse").BooleanOK(); commandName(cmd) == "aggregate" && !allowed {
			t.Errorf("the search for duplicates must fit into memory: %s", cmd)
		}
	}
	wantError(t, err, `8 records have "user_7", 7 records have "user_6"`, `"user_3", and others`,
		"keep one record of each", coll.Name())
	for _, wrong := range []string{"user_2", "user_0", "example.com"} {
		if strings.Contains(err.Error(), wrong) {
			t.Errorf("the error has %q: %v", wrong, err)
		}
	}
	wantNoDeletion(t, err)
	if _, err := coll.DeleteMany(t.Context(), exists("clerkId")); err != nil {
		t.Fatal(err)
	}
	open(t, coll, nil)
}

// wantNoDeletion checks that the advice does not delete records: they are the app's.
func wantNoDeletion(t *testing.T, err error) {
	t.Helper()
	for _, word := range []string{"delete", "Delete", "deleteMany", "drop("} {
		if strings.Contains(err.Error(), word) {
			t.Errorf("the error says %q: %v", word, err)
		}
	}
}

// TestOpenRefusesMongooseUniqueEmail uses the index of a Mongoose model with
// email: {type: String, unique: true}.
func TestOpenRefusesMongooseUniqueEmail(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	createIndex(t, coll, ascending("email"), options.Index().SetUnique(true))
	_, err := mongostore.Open(t.Context(), coll, nil)
	wantError(t, err, `"email_1"`, "neither sparse nor partial",
		`dropIndex("email_1")`, `createIndex({"email": 1}, `+
			`{name: "email_1_partial", unique: true, partialFilterExpression: {"email": {$exists: true}}})`)
	open(t, coll, &mongostore.Options{AllowUnique: []string{"no_such_index", "email_1"}})

	if partialIndexes() {
		if err := coll.Indexes().DropOne(t.Context(), "email_1"); err != nil {
			t.Fatal(err)
		}
		createIndex(t, coll, ascending("email"), options.Index().SetUnique(true).SetPartialFilterExpression(exists("email")))
		open(t, coll, nil)
	}
}

func TestOpenAcceptsIndexesThatAdmitAnyRecord(t *testing.T) {
	t.Parallel()
	cases := map[string]func(coll *mongo.Collection){
		"NotUnique": func(coll *mongo.Collection) {
			createIndex(t, coll, ascending("email"), options.Index())
		},
		"WithClerkID": func(coll *mongo.Collection) {
			createIndex(t, coll, ascending("tenant", "clerkId"), options.Index().SetUnique(true))
		},
	}
	if listsSparse() {
		cases["Sparse"] = func(coll *mongo.Collection) {
			createIndex(t, coll, ascending("email"), options.Index().SetUnique(true).SetSparse(true))
		}
	}
	if partialIndexes() {
		cases["Partial"] = func(coll *mongo.Collection) {
			createIndex(t, coll, ascending("email"), options.Index().SetUnique(true).SetPartialFilterExpression(exists("email")))
		}
	}
	for name, prepare := range cases {
		t.Run(name, func(t *testing.T) {
			coll := newCollection(t)
			prepare(coll)
			s := open(t, coll, nil)
			// Users without an e-mail address, and tombstones.
			for i := range 2 {
				u := &clerksync.User{ClerkID: fmt.Sprintf("user_phone%d", i), ClerkUpdatedAt: hour(1)}
				if _, err := s.Upsert(t.Context(), u); err != nil {
					t.Error(err)
				}
				if _, err := s.Deactivate(t.Context(), fmt.Sprintf("user_gone%d", i), hour(1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestOpenReportsAllFaults(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	createIndex(t, coll, ascending("email"), options.Index().SetUnique(true))
	createIndex(t, coll, ascending("tenant", "username"), options.Index().SetUnique(true))
	for _, name := range []string{"ada", "bob"} {
		insert(t, coll, bson.D{
			{Key: "clerkId", Value: "user_1"}, {Key: "email", Value: name}, {Key: "username", Value: name},
		})
	}
	unacknowledged := options.Collection().SetWriteConcern(writeconcern.Unacknowledged())
	_, err := mongostore.Open(t.Context(), coll.Clone(unacknowledged), nil)
	wantError(t, err, "write concern 0", `"email_1"`, `"tenant_1_username_1"`,
		`"tenant": {$exists: true}, "username": {$exists: true}`)
	_, err = mongostore.Open(t.Context(), coll, nil)
	wantError(t, err, `"email_1"`, `"tenant_1_username_1"`, `2 records have "user_1"`)
}

func TestOpenRefusesUnacknowledgedWrites(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	unacknowledged := options.Collection().SetWriteConcern(writeconcern.Unacknowledged())
	_, err := mongostore.Open(t.Context(), coll.Clone(unacknowledged), nil)
	wantError(t, err, "write concern 0")
	for name, wc := range map[string]*writeconcern.WriteConcern{
		"W1": writeconcern.W1(), "Majority": writeconcern.Majority(),
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, coll.Clone(options.Collection().SetWriteConcern(wc)), nil)
			if _, err := s.Upsert(t.Context(), ada(1)); err != nil {
				t.Error(err)
			}
		})
	}
	if n, err := coll.CountDocuments(t.Context(), bson.D{}); err != nil || n != 1 {
		t.Errorf("%d documents, %v: Open leaves some behind", n, err)
	}
}

func TestOpenChecksItsArguments(t *testing.T) {
	t.Parallel()
	if _, err := mongostore.Open(t.Context(), nil, nil); err == nil {
		t.Error("nil collection: no error")
	}
	coll := newCollection(t)
	_, err := mongostore.Open(t.Context(), coll, &mongostore.Options{BatchSize: -1})
	wantError(t, err, "BatchSize is -1")
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the app shuts down")
	cancel(cause)
	if _, err := mongostore.Open(ctx, coll, nil); !errors.Is(err, context.Canceled) || !errors.Is(err, cause) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestOpenTwiceAtOnce(t *testing.T) {
	t.Parallel()
	for range *rounds {
		coll := newCollection(t)
		var wg sync.WaitGroup
		for range 4 {
			own := newClient(t, nil).Database(coll.Database().Name()).Collection(coll.Name())
			wg.Go(func() {
				s, err := mongostore.Open(t.Context(), own, nil)
				if err == nil {
					_, err = s.Upsert(t.Context(), ada(1))
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n, err := coll.CountDocuments(t.Context(), bson.D{}); err != nil || n != 1 {
			t.Errorf("%d documents, %v", n, err)
		}
	}
}

func TestOpenReadsFromThePrimary(t *testing.T) {
	t.Parallel()
	coll, f := newFront(t, newCollection(t), replicaSet, nil)
	f.play(func(host string, cmd bson.Raw) reaction {
		if host != f.primary {
			t.Errorf("%s got %s", host, commandName(cmd))
		}
		return reaction{}
	})
	s := open(t, coll.Clone(options.Collection().SetReadPreference(readpref.Secondary())), nil)
	upsert(t, s, ada(1), clerksync.Created)
	upsert(t, s, ada(1), clerksync.Unchanged)
	users, err := s.Users(t.Context(), []string{"user_ada"})
	if err != nil || len(users) != 1 {
		t.Errorf("Users: %v, %v", users, err)
	}
	stamps, err := s.Stamps(t.Context(), []string{"user_ada"})
	if err != nil || len(stamps) != 1 {
		t.Errorf("Stamps: %v, %v", stamps, err)
	}
	for _, err := range s.Undeleted(t.Context()) {
		if err != nil {
			t.Error(err)
		}
	}
}

// TestOpenHasItsOwnRegistry uses a client that writes times as text.
func TestOpenHasItsOwnRegistry(t *testing.T) {
	t.Parallel()
	registry := bson.NewRegistry()
	asText := func(_ bson.EncodeContext, w bson.ValueWriter, v reflect.Value) error {
		return w.WriteString(v.Interface().(time.Time).String())
	}
	registry.RegisterTypeEncoder(reflect.TypeFor[time.Time](), bson.ValueEncoderFunc(asText))
	coll := newCollection(t)
	s := open(t, coll.Clone(options.Collection().SetRegistry(registry)), nil)
	if _, err := s.Upsert(t.Context(), ada(1)); err != nil {
		t.Fatal(err)
	}
	u, err := s.User(t.Context(), "user_ada")
	if err != nil || !u.ClerkUpdatedAt.Equal(hour(1)) {
		t.Errorf("version %v, %v", u, err)
	}
}

// TestOpenAdoptRefused opens Stores that could not adopt, or would adopt what they must not.
func TestOpenAdoptRefused(t *testing.T) {
	t.Parallel()
	byEmail := &mongostore.Adopt{ByEmail: true, Trusted: bson.D{}}
	byID := func(path string) *mongostore.Options {
		return &mongostore.Options{Adopt: &mongostore.Adopt{ByExternalID: path}}
	}
	for name, tt := range map[string]struct {
		opts *mongostore.Options
		want []string // nil if Open succeeds
	}{
		"by email without Trusted":   {&mongostore.Options{Adopt: &mongostore.Adopt{ByEmail: true}}, []string{"Trusted", "bson.D{} accepts every record"}},
		"by email, all trusted":      {&mongostore.Options{Adopt: byEmail}, nil},
		"nothing":                    {&mongostore.Options{Adopt: &mongostore.Adopt{}}, nil},
		"clerkId is the _id":         {&mongostore.Options{Adopt: byEmail, Fields: mongostore.Fields{"clerkId": "_id"}}, []string{"an _id cannot change"}},
		"no address":                 {&mongostore.Options{Adopt: byEmail, Fields: mongostore.Fields{"email": ""}}, []string{"Adopt.ByEmail needs the record's e-mail address"}},
		"no address, by external id": {&mongostore.Options{Adopt: &mongostore.Adopt{ByExternalID: "_id"}, Fields: mongostore.Fields{"email": ""}}, nil},
		"the Clerk id":               {byID("clerkId"), []string{`"clerkId", where the Clerk id is`}},
		"an empty name":              {byID("a..b"), []string{`"a..b"`, "an empty name"}},
		"a dollar":                   {byID("$where"), []string{"begins with $"}},
		"a number":                   {byID("ids.0"), []string{"a number"}},
		"a NUL":                      {byID("a\x00"), []string{"a NUL"}},
		"Trusted cannot be encoded": {
			&mongostore.Options{Adopt: &mongostore.Adopt{ByEmail: true, Trusted: bson.D{{Key: "x", Value: func() {}}}}},
			[]string{"Adopt.Trusted cannot be encoded"},
		},
		"two faults": {
			&mongostore.Options{Adopt: &mongostore.Adopt{ByExternalID: "$x", ByEmail: true}}, []string{"begins with $", "Trusted"},
		},
	} {
		_, err := mongostore.Open(t.Context(), newCollection(t), tt.opts)
		if tt.want == nil {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		t.Run(name, func(t *testing.T) { wantError(t, err, append(tt.want, "mongostore: open: ")...) })
	}
}

// TestOpenAdoptTrusted has a server that does not take Trusted for a filter.
func TestOpenAdoptTrusted(t *testing.T) {
	t.Parallel()
	coll, f := newFront(t, newStore(t).coll, standalone, retryWrites(false))
	f.play(func(_ string, cmd bson.Raw) reaction {
		if !cmd.Lookup("filter", "$and").IsZero() {
			return failed(2)
		}
		return reaction{}
	})
	_, err := mongostore.Open(t.Context(), coll, &mongostore.Options{Adopt: adoptAny()})
	wantError(t, err, "Adopt.Trusted, which must be a filter", "server error 2")
}

// TestOpenAdoptSparse has unique indexes on clerkId, and runs the line that replaces one that
// lets in only one record without a Clerk id.
func TestOpenAdoptSparse(t *testing.T) {
	t.Parallel()
	opts := &mongostore.Options{Adopt: adoptAny()}
	sparse := newCollection(t)
	open(t, sparse, nil)
	open(t, sparse, opts) // FerretDB 1 does not list it as sparse
	open(t, sparse, opts)
	if !listsSparse() {
		return
	}
	dense := newCollection(t)
	createIndex(t, dense, ascending("clerkId"), options.Index().SetUnique(true))
	open(t, dense, nil)
	_, err := mongostore.Open(t.Context(), dense, opts)
	wantError(t, err, `the unique index "clerkId_1" on clerkId is not sparse`)
	calls, parseErr := mongostore.ShellCalls(err.Error())
	if parseErr != nil || len(calls) != 6 {
		t.Fatalf("%v, %v", calls, parseErr)
	}
	followAdvice(t, dense, calls[:2], mongostore.ShellCall{})
	open(t, dense, opts)
	insert(t, dense, legacy(1), legacy(2))
	if partialIndexes() {
		partial := newCollection(t)
		createIndex(t, partial, ascending("clerkId"), options.Index().SetUnique(true).SetPartialFilterExpression(exists("clerkId")))
		open(t, partial, opts)
	}
}

// TestOpenAdoptIndexes checks which indexes Open makes for lookups, once.
func TestOpenAdoptIndexes(t *testing.T) {
	t.Parallel()
	own := []string{"_id_", "clerkId_1"}
	for name, tt := range map[string]struct {
		keys  bson.D // of an index of the app's
		opts  *options.IndexOptionsBuilder
		adopt *mongostore.Adopt
		want  []string
	}{
		"none":                {nil, nil, adoptAny(), []string{"email_1", "legacyId_1"}},
		"one on the address":  {ascending("email"), options.Index().SetName("own"), adoptAny(), []string{"legacyId_1", "own"}},
		"one that begins so":  {ascending("email", "x"), options.Index().SetName("own"), adoptAny(), []string{"legacyId_1", "own"}},
		"one that ends so":    {ascending("x", "email"), options.Index().SetName("own"), adoptAny(), []string{"email_1", "legacyId_1", "own"}},
		"one of that name":    {ascending("x"), options.Index().SetName("email_1"), adoptAny(), []string{"clerksync_email", "email_1", "legacyId_1"}},
		"by _id alone":        {nil, nil, &mongostore.Adopt{ByExternalID: "_id"}, nil},
		"by the address":      {nil, nil, &mongostore.Adopt{ByEmail: true, Trusted: bson.D{}}, []string{"email_1"}},
		"without Adopt":       {nil, nil, nil, nil},
		"without any of both": {nil, nil, &mongostore.Adopt{}, nil},
	} {
		coll := newCollection(t)
		if tt.keys != nil {
			createIndex(t, coll, tt.keys, tt.opts)
		}
		want := slices.Sorted(slices.Values(append(slices.Clone(own), tt.want...)))
		for range 2 {
			open(t, coll, &mongostore.Options{Adopt: tt.adopt})
			var got []string
			for name := range indexSpecs(t, coll) {
				got = append(got, name)
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
}

// TestOpenAdoptSharded plays clusters on which the collection is sharded, to users who may read
// the metadata and to others.
func TestOpenAdoptSharded(t *testing.T) {
	t.Parallel()
	base := newStore(t).coll
	metadata := func(key bson.D) reaction {
		return reaction{answer: bson.D{{Key: "ok", Value: 1.0}, {Key: "cursor", Value: bson.D{
			{Key: "id", Value: int64(0)}, {Key: "ns", Value: "config.collections"},
			{Key: "firstBatch", Value: bson.A{bson.D{{Key: "_id", Value: "x"}, {Key: "key", Value: key}}}},
		}}}}
	}
	for name, tt := range map[string]struct {
		metadata, write reaction
		refused         bool
	}{
		"on clerkId":             {metadata(ascending("clerkId")), reaction{}, true},
		"on clerkId and another": {metadata(ascending("x", "clerkId")), reaction{}, true},
		"on _id":                 {metadata(ascending("_id")), reaction{}, false},
		"not at all":             {reaction{}, reaction{}, false},
		"may not read, refused":  {failed(13), failed(61), true},
		"may not read":           {failed(13), reaction{}, false},
		"may not read, failed":   {failed(13), failed(9), false},
	} {
		for _, adopt := range []*mongostore.Adopt{adoptAny(), nil} {
			coll, f := newFront(t, base, mongos, retryWrites(false))
			f.play(func(_ string, cmd bson.Raw) reaction {
				switch {
				case cmd.Lookup("$db").StringValue() == "config":
					return tt.metadata
				case commandName(cmd) == "findAndModify":
					return tt.write
				}
				return reaction{}
			})
			_, err := mongostore.Open(t.Context(), coll, &mongostore.Options{Adopt: adopt})
			if tt.refused && adopt != nil {
				t.Run(name, func(t *testing.T) { wantError(t, err, "the collection is sharded on clerkId") })
			} else if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
