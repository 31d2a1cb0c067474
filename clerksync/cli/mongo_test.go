package cli

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// Nothing listens on port 1.
func TestOpenMongoUnreachable(t *testing.T) {
	t.Parallel()
	s := settings{
		mongoURI: "mongodb://app:" + password + "@127.0.0.1:1/school", database: "school", collection: "users",
		timeout: 50 * time.Millisecond,
	}
	_, err := openMongo(t.Context(), s, nil)
	const want = "MongoDB cannot be reached with MONGODB_URI (-timeout is 50ms)"
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), password) {
		t.Errorf("openMongo fails with %v, want %s… without the password", err, want)
	}
}

func TestOpenMongoWrongURI(t *testing.T) {
	t.Parallel()
	uri := "mongodb://app:" + password + "@localhost/?directConnection=" + password
	_, err := openMongo(t.Context(), settings{mongoURI: uri, timeout: time.Second}, nil)
	usage := (*usageError)(nil)
	if !errors.As(err, &usage) || strings.Contains(err.Error(), password) {
		t.Errorf("openMongo fails with %v, want a usageError without the password", err)
	}
}

// newOnMongoDB is newAda with a database of the test's own on the server that MONGODB_URI names.
// Without MONGODB_URI it skips the test.
func newOnMongoDB(t *testing.T) (*fixture, *mongo.Collection) {
	t.Helper()
	uri := os.Getenv(mongoURIVar)
	if uri == "" {
		t.Skip("MONGODB_URI is not set")
	}
	ctx := context.Background() // the cleanup outlives the test's
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	db := client.Database("clerksync_cmd_" + bson.NewObjectID().Hex())
	t.Cleanup(func() {
		if err := errors.Join(db.Drop(ctx), client.Disconnect(ctx)); err != nil {
			t.Error(err)
		}
	})
	f := newAda(t)
	f.env.open = openMongo
	f.db.closed = true // it is not used
	f.vars[mongoURIVar] = uri
	f.vars[databaseVar] = db.Name()
	return f, db.Collection("users")
}

func TestMongoCommandsThatWriteNothing(t *testing.T) {
	t.Parallel()
	f, coll := newOnMongoDB(t)
	ctx := t.Context()
	commands := [][]string{{"drift"}, {"reconcile", "-dry-run"}, {"user", ada}}
	for _, args := range commands {
		f.run(t, args...).want(t, exitUsage,
			"the collection "+f.vars[databaseVar]+".users does not exist; is -db right?", "run `clerksync indexes` first")
	}
	names, err := coll.Database().Client().ListDatabaseNames(ctx, bson.D{{Key: "name", Value: f.vars[databaseVar]}})
	if err != nil || len(names) > 0 {
		t.Errorf("a database was made: %v, %v", names, err)
	}

	if err := coll.Database().CreateCollection(ctx, "users"); err != nil {
		t.Fatal(err)
	}
	f.run(t, "drift").want(t, exitUsage, "is empty and has no unique index on clerkId; is -db right?")

	if _, err := coll.InsertOne(ctx, bson.D{{Key: "name", Value: "theirs"}}); err != nil {
		t.Fatal(err)
	}
	for _, args := range commands {
		f.run(t, args...).want(t, exitFailed,
			".users has no unique index on clerkId, and this command writes nothing: run `clerksync indexes` first")
	}
	if specs, err := coll.Indexes().ListSpecifications(ctx); err != nil || len(specs) != 1 {
		t.Errorf("an index was made: %v, %v", specs, err)
	}
}

// A command that writes nothing works as a database user who may only read. The test servers do
// not have access control; mongostore tests ReadOnly.
func TestStoreOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []*mongostore.Options{nil, {BatchSize: 7}} {
		reading := settings{writesNothing: true}.storeOptions(o)
		if !reading.ReadOnly || o != nil && (reading.BatchSize != 7 || o.ReadOnly) {
			t.Errorf("options %+v become %+v", o, reading)
		}
		if got := (settings{}).storeOptions(o); got != o {
			t.Errorf("a command that writes: options %+v become %+v", o, got)
		}
	}
	if !isUnauthorized(mongo.CommandError{Code: 13}) || isUnauthorized(mongo.CommandError{Code: 8}) || isUnauthorized(nil) {
		t.Error("isUnauthorized does not tell")
	}
}

func TestMongoIndexes(t *testing.T) {
	t.Parallel()
	f, coll := newOnMongoDB(t)
	f.run(t, "indexes").want(t, exitDone, "clerkId_1", relied)
	f.run(t, "drift", quick).want(t, exitDiffer, "is empty; is -db right?")
	f.run(t, "user", ada).want(t, exitDiffer, "No record: ")

	email := mongo.IndexModel{Keys: bson.D{{Key: "email", Value: 1}}, Options: options.Index().SetUnique(true)}
	if _, err := coll.Indexes().CreateOne(t.Context(), email); err != nil {
		t.Fatal(err)
	}
	f.run(t, "indexes").want(t, exitFailed,
		`the unique index "email_1" on email is neither sparse nor partial`, "db.getCollection(")
	f.run(t, "indexes", "-allow-unique", "email_1").want(t, exitDone, conflicts)
}

func TestMongoMapped(t *testing.T) {
	t.Parallel()
	f, coll := newOnMongoDB(t)
	ctx := t.Context()
	s := settings{
		mongoURI: f.vars[mongoURIVar], database: coll.Database().Name(), collection: "users", timeout: 10 * time.Second,
	}
	d, err := openMongo(ctx, s, &mongostore.Options{BatchSize: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.close(ctx); err != nil {
			t.Error(err)
		}
	}()
	u := &clerksync.User{ClerkID: "user_mapped", ClerkUpdatedAt: epoch}
	upsertAndWantMapped := func(want string) {
		t.Helper()
		if _, err := d.store().Upsert(ctx, u); err != nil {
			t.Fatal(err)
		}
		if id, err := d.mapped(ctx); id != want || err != nil {
			t.Errorf("mapped() = %q, %v, want %q", id, err, want)
		}
	}
	upsertAndWantMapped("")
	u.ClerkUpdatedAt, u.Extra = epoch.Add(time.Hour), map[string]any{"plan": "free"}
	upsertAndWantMapped(u.ClerkID)
	f.run(t, "drift").want(t, exitFailed, "extraFields")
}

// No command waits for a primary that does not answer for longer than its timeout.
func TestMongoCommandsAreBounded(t *testing.T) {
	t.Parallel()
	_, coll := newOnMongoDB(t)
	d := &mongoDatabase{client: coll.Database().Client(), coll: coll, timeout: time.Nanosecond}
	for name, command := range map[string]func() error{
		"empty":   func() error { _, err := d.empty(t.Context()); return err },
		"mapped":  func() error { _, err := d.mapped(t.Context()); return err },
		"indexes": func() error { _, err := d.indexes(t.Context()); return err },
	} {
		err := command() // its text is the driver's, or the context's
		if err == nil || !strings.Contains(err.Error(), "timed out") && !strings.Contains(err.Error(), "deadline exceeded") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWithoutSecrets(t *testing.T) {
	t.Parallel()
	uri := "mongodb+srv://app:p%40ss@host/db?tlsCertificateKeyFilePassword=hush%2B1" +
		"&authMechanismProperties=AWS_SESSION_TOKEN:t0ken,SERVICE_NAME:mongo&w=1"
	err := errors.New("cannot parse " + uri + ": p@ss hush+1 t0ken")
	got := withoutSecrets(err, uri)
	for _, secret := range []string{"p%40ss", "p@ss", "hush", "t0ken"} {
		if strings.Contains(got, secret) {
			t.Errorf("%q is in %q", secret, got)
		}
	}
	if !strings.Contains(got, "mongodb+srv://app:…@host/db") {
		t.Errorf("too much is removed: %q", got)
	}
	uri = "mongodb://host/dbtlsCertificateKeyFilePassword=hush" // without the ?
	if got := withoutSecrets(errors.New("cannot parse "+uri), uri); strings.Contains(got, "hush") {
		t.Errorf("got %q", got)
	}
	if got := withoutSecrets(errors.New("plain"), "mongodb://localhost"); got != "plain" {
		t.Errorf("got %q", got)
	}
}

func TestDatabaseOf(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]string{
		"mongodb://localhost":                      "",
		"mongodb://localhost/":                     "",
		"mongodb://localhost/?w=1":                 "",
		"mongodb://localhost/school":               "school",
		"mongodb://a:b@h1:1,h2:2/school?w=1":       "school",
		"mongodb+srv://a:b@h/my%2Ddb?authSource=x": "my-db",
		"postgres://localhost/school":              "",
		"":                                         "",
	} {
		if got := databaseOf(uri); got != want {
			t.Errorf("databaseOf(%q) = %q, want %q", uri, got, want)
		}
	}
}

// mongostore.Open decides by the same rule whether it must make an index.
func TestOnClerkID(t *testing.T) {
	t.Parallel()
	const key, unique = `"key": {"clerkId": 1}`, `"key": {"clerkId": 1}, "unique": true`
	partial := func(filter string) string { return unique + `, "partialFilterExpression": ` + filter }
	for spec, want := range map[string]bool{
		unique: true,
		`"key": {"clerkId": {"$numberDouble": "-1"}}, "unique": true, "sparse": true`: true,
		key: false,
		`"key": {"clerkId": "hashed"}, "unique": true`:              false,
		`"key": {"clerkId": 1, "email": 1}, "unique": true`:         false,
		unique + `, "collation": {"locale": "en"}`:                  false,
		partial(`{"clerkId": {"$exists": true}}`):                   true,
		partial(`{"clerkId": {"$exists": false}}`):                  false,
		partial(`{"clerkId": {"$type": "string"}}`):                 false, // MongoDB does not use it for lookups
		partial(`{"clerkId": {"$type": 2}}`):                        false,
		unique + `, "hidden": true`:                                 false,
		unique + `, "hidden": false`:                                true,
		partial(`{"clerkId": {"$type": "int"}}`):                    false,
		partial(`{"clerkId": "user_1"}`):                            false,
		partial(`{"clerkId": {"$gt": "m"}}`):                        false,
		partial(`{"isActive": true}`):                               false,
		partial(`{"clerkId": {"$exists": true}, "isActive": true}`): false,
	} {
		if ix := parseIndex(t, "{"+spec+"}"); ix.onClerkID("clerkId") != want {
			t.Errorf("onClerkID() of {%s} is %t", spec, !want)
		}
	}
}

func TestIndexes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	delete(f.vars, secretKeyVar)
	f.db.list = listedIndexes(t)
	o := f.run(t, "indexes")
	o.want(t, exitDone)
	golden(t, "indexes", "", o.String())

	var got []index
	if err := json.Unmarshal([]byte(f.run(t, "indexes", "-json").stdout), &got); err != nil {
		t.Fatal(err)
	}
	want := listedIndexes(t)
	want[2].Role, want[3].Role = relied, conflicts
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
}
