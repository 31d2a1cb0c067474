// Package existing shows how an app that already has users opens its collection: one function for
// each situation of the guide mongostore/EXISTING_USERS.md.
package existing

import (
	"context"
	"encoding/json"
	"net/http"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// openEmails is for records that have an e-mail address and no id of Clerk's.
func openEmails(ctx context.Context, users *mongo.Collection) (*mongostore.Store, error) {
	return mongostore.Open(ctx, users, &mongostore.Options{
		Adopt: &mongostore.Adopt{
			ByEmail: true,
			Trusted: bson.D{{Key: "emailVerified", Value: true}},
		},
	})
}

// openExternalIDs is for users whom Clerk's migration gave the _id of their record as
// external_id.
func openExternalIDs(ctx context.Context, users *mongo.Collection) (*mongostore.Store, error) {
	return mongostore.Open(ctx, users, &mongostore.Options{
		Adopt: &mongostore.Adopt{ByExternalID: "_id"},
	})
}

// openFieldNames is for records that have the Clerk id in clerk_id, and names of their own.
func openFieldNames(ctx context.Context, users *mongo.Collection) (*mongostore.Store, error) {
	fields := mongostore.SnakeCase() // clerk_id, email_verified, profile.first_name, …
	fields["name"] = "display_name"
	fields["profile.imageUrl"] = "avatar"
	fields["profile.birthday"] = "" // not stored
	return mongostore.Open(ctx, users, &mongostore.Options{
		Fields: fields,
		Record: mongostore.RecordOf[Account](),
	})
}

// Account is the app's own type of a record.
type Account struct {
	ID      bson.ObjectID `bson:"_id" json:"id"`
	Name    string        `bson:"display_name" json:"name"`
	Plan    string        `bson:"plan" json:"plan"`
	Credits int           `bson:"credits" json:"credits"`
}

// showAccount is a protected handler. It does not query the database.
func showAccount(w http.ResponseWriter, r *http.Request) {
	account, ok := clerksync.RecordFromContext[Account](r.Context())
	if !ok {
		http.Error(w, "no account", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(account)
}

// openClerkIDs is for records whose _id is the Clerk id.
func openClerkIDs(ctx context.Context, users *mongo.Collection) (*mongostore.Store, error) {
	return mongostore.Open(ctx, users, &mongostore.Options{
		Fields: mongostore.Fields{"clerkId": "_id"},
	})
}

// openMongoose is for a collection that a Mongoose model uses too. With the timestamps option,
// createdAt and updatedAt are Mongoose's: clerksync sets them in the same way.
func openMongoose(ctx context.Context, users *mongo.Collection) (*mongostore.Store, error) {
	return mongostore.Open(ctx, users, &mongostore.Options{
		Adopt: &mongostore.Adopt{
			ByExternalID: "_id",
			ByEmail:      true,
			Trusted:      bson.D{{Key: "emailVerified", Value: true}},
		},
	})
}
