package mongostore_test

import (
	"context"
	"log"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// A Store for production, handed to clerksync.
func ExampleOpen() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	client, err := mongo.Connect(options.Client().ApplyURI("mongodb+srv://…"))
	if err != nil {
		log.Fatal(err)
	}
	store, err := mongostore.Open(ctx, client.Database("app").Collection("users"), nil)
	if err != nil {
		log.Fatal(err) // says what to do: which index to drop or create, which records are double
	}
	syncer, err := clerksync.New(clerksync.Config{Store: store, SecretKey: "sk_live_…"})
	if err != nil {
		log.Fatal(err)
	}
	_ = syncer // see package clerksync
}

// An app that erases people's data when they delete their account, and whose
// every user has a username.
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
