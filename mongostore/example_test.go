package mongostore_test

import (
	"context"
	"log"
	"net/http"
	"os"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// Open a Store for production and hand it to clerksync.
func ExampleOpen() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	client, err := mongo.Connect(options.Client().ApplyURI("mongodb+srv://…"))
	if err != nil {
		log.Fatal(err)
	}
	store, err := mongostore.Open(ctx, client.Database("app").Collection("users"), nil)
	if err != nil {
		log.Fatal(err) // says which index to drop or create, or which records are duplicates
	}
	syncer, err := clerksync.New(clerksync.Config{Store: store, SecretKey: os.Getenv("CLERK_SECRET_KEY")})
	if err != nil {
		log.Fatal(err)
	}
	_ = syncer // see package clerksync
}

// This app erases personal data on deletion, and each of its users has a username.
func ExampleOptions() {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	if err != nil {
		log.Fatal(err)
	}
	store, err := mongostore.Open(context.Background(), client.Database("app").Collection("users"), &mongostore.Options{
		EraseOnDelete: true,
		AllowUnique:   []string{"username_1"}, // neither sparse nor partial
	})
	if err != nil {
		log.Fatal(err)
	}
	_ = store
}

// This app's collection has names of its own, and does not store the gender.
func ExampleFields() {
	ctx := context.Background()
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	if err != nil {
		log.Fatal(err)
	}
	coll := client.Database("app").Collection("users")

	store, err := mongostore.Open(ctx, coll, &mongostore.Options{Fields: mongostore.Fields{
		"clerkId":           "auth.clerk_id",
		"profile.firstName": "givenName",
		"profile.imageUrl":  "avatar",
		"profile.gender":    "", // not stored
	}})
	if err != nil {
		log.Fatal(err) // names each fault of the map
	}
	_ = store
}

// This app's collection is in snake case, except for the picture.
func ExampleSnakeCase() {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	if err != nil {
		log.Fatal(err)
	}
	fields := mongostore.SnakeCase()
	fields["profile.imageUrl"] = "avatar"
	store, err := mongostore.Open(context.Background(), client.Database("app").Collection("users"), &mongostore.Options{
		Fields: fields,
	})
	if err != nil {
		log.Fatal(err)
	}
	_ = store
}

// This app's users have their Clerk ids as _id.
func ExampleFields_clerkIDAsID() {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	if err != nil {
		log.Fatal(err)
	}
	store, err := mongostore.Open(context.Background(), client.Database("app").Collection("users"), &mongostore.Options{
		Fields: mongostore.Fields{"clerkId": "_id"},
	})
	if err != nil {
		log.Fatal(err)
	}
	_ = store
}

// This app had users before Clerk. Those whom its migration imported have its own id as Clerk's
// external id; the others are found by their verified addresses.
func ExampleAdopt() {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	if err != nil {
		log.Fatal(err)
	}
	store, err := mongostore.Open(context.Background(), client.Database("app").Collection("users"), &mongostore.Options{
		Adopt: &mongostore.Adopt{
			ByExternalID: "_id",                                       // what Clerk's external_id names
			ByEmail:      true,                                        // else the record with the user's proven address
			Trusted:      bson.D{{Key: "emailVerified", Value: true}}, // that matches this filter
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	_ = store
}

// The handlers of this app use its own struct, and do not query the record a second time.
func ExampleRecordOf() {
	type account struct {
		ID      bson.ObjectID `bson:"_id"`
		Plan    string        `bson:"plan"`
		Credits int           `bson:"credits"`
	}
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:27017"))
	if err != nil {
		log.Fatal(err)
	}
	store, err := mongostore.Open(context.Background(), client.Database("app").Collection("users"), &mongostore.Options{
		Record: mongostore.RecordOf[account](),
	})
	if err != nil {
		log.Fatal(err)
	}
	_ = store

	_ = func(w http.ResponseWriter, r *http.Request) {
		account, ok := clerksync.RecordFromContext[account](r.Context())
		if !ok || account.Credits == 0 {
			http.Error(w, "no credits", http.StatusPaymentRequired)
			return
		}
	}
}

// Other collections refer to the record by its _id.
func ExampleObjectID() {
	orders := func(ctx context.Context, orders *mongo.Collection) (*mongo.Cursor, error) {
		user, _ := clerksync.UserFromContext(ctx)
		id, err := mongostore.ObjectID(user)
		if err != nil {
			return nil, err
		}
		return orders.Find(ctx, bson.D{{Key: "user", Value: id}})
	}
	_ = orders
}
