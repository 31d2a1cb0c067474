package cli

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// Nothing listens there.
func TestOpenMongoUnreachable(t *testing.T) {
	t.Parallel()
	s := settings{
		mongoURI: "mongodb://app:" + password + "@127.0.0.1:1/school", database: "school", collection: "users", timeout: 50 * time.Millisecond,
	}
	_, err := openMongo(t.Context(), s, nil)
	if err == nil || !strings.Contains(err.Error(), "MongoDB cannot be reached with MONGODB_URI (-timeout is 50ms)") || strings.Contains(err.Error(), password) {
		t.Errorf("got %v", err)
	}
}

func TestOpenMongoWrongURI(t *testing.T) {
	t.Parallel()
	_, err := openMongo(t.Context(), settings{mongoURI: "mongodb://app:" + password + "@localhost/?directConnection=" + password, timeout: time.Second}, nil)
	usage := (*usageError)(nil)
	if !errors.As(err, &usage) || strings.Contains(err.Error(), password) {
		t.Errorf("got %v, want a usageError without the password", err)
	}
}

// With a server of your own in MONGODB_URI.
func TestOnMongoDB(t *testing.T) {
	uri := os.Getenv(mongoURIVar)
	if uri == "" {
		t.Skip("MONGODB_URI is not set")
	}
	ctx := context.Background()
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Disconnect(ctx)
	coll := client.Database("clerksync_cmd_" + bson.NewObjectID().Hex()).Collection("users")
	defer coll.Database().Drop(ctx)

	f := newAda(t)
	f.env.open = openMongo
	f.db.closed = true
	f.vars[mongoURIVar] = uri
	f.vars[databaseVar] = coll.Database().Name()

	// Nothing is made by what writes nothing.
	reading := [][]string{{"drift"}, {"reconcile", "-dry-run"}, {"user", ada}}
	for _, args := range reading {
		f.run(t, args...).want(t, exitUsage, "the collection "+f.vars[databaseVar]+".users does not exist; is -db right?", "run `clerksync indexes` first")
	}
	if names, err := client.ListDatabaseNames(ctx, bson.D{{Key: "name", Value: f.vars[databaseVar]}}); err != nil || len(names) > 0 {
		t.Errorf("databases %v, %v", names, err)
	}
	if err := coll.Database().CreateCollection(ctx, "users"); err != nil {
		t.Fatal(err)
	}
	f.run(t, "drift").want(t, exitUsage, "is empty, and has no unique index on clerkId; is -db right?")
	if _, err := coll.InsertOne(ctx, bson.D{{Key: "name", Value: "theirs"}}); err != nil {
		t.Fatal(err)
	}
	for _, args := range reading {
		f.run(t, args...).want(t, exitFailed, ".users has no unique index on clerkId, and this writes nothing: run `clerksync indexes` first")
	}
	if specs, err := coll.Indexes().ListSpecifications(ctx); err != nil || len(specs) != 1 {
		t.Errorf("indexes %v, %v", specs, err)
	}
	if _, err := coll.DeleteMany(ctx, bson.D{}); err != nil {
		t.Fatal(err)
	}

	f.run(t, "indexes").want(t, exitDone, "clerkId_1", relied)
	f.run(t, "drift", quick).want(t, exitDiffer, "is empty; is -db right?")
	f.run(t, "user", ada).want(t, exitDiffer, "No record: ")
	d, err := openMongo(ctx, settings{mongoURI: uri, database: coll.Database().Name(), collection: "users", timeout: 10 * time.Second}, &mongostore.Options{BatchSize: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer d.close(ctx)
	u := &clerksync.User{ClerkID: "user_mapped", ClerkUpdatedAt: epoch}
	if _, err := d.store().Upsert(ctx, u); err != nil {
		t.Fatal(err)
	}
	if id, err := d.mapped(ctx); id != "" || err != nil {
		t.Errorf("mapped() = %q, %v", id, err)
	}
	u.ClerkUpdatedAt, u.Extra = epoch.Add(time.Hour), map[string]any{"plan": "free"}
	if _, err := d.store().Upsert(ctx, u); err != nil {
		t.Fatal(err)
	}
	if id, err := d.mapped(ctx); id != u.ClerkID || err != nil {
		t.Errorf("mapped() = %q, %v", id, err)
	}
	f.run(t, "drift").want(t, exitFailed, "extraFields")
	if _, err := coll.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.D{{Key: "email", Value: 1}}, Options: options.Index().SetUnique(true)}); err != nil {
		t.Fatal(err)
	}
	f.run(t, "indexes").want(t, exitFailed, `the unique index "email_1" on email is neither sparse nor partial`, "db.getCollection(")
	f.run(t, "indexes", "-allow-unique", "email_1").want(t, exitDone, conflicts)
}
