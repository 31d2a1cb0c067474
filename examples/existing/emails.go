package existing

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

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
