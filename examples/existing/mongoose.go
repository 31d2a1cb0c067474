package existing

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/mongostore"
)

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
