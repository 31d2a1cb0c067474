package existing

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/mongostore"
)

// openClerkIDs is for records whose _id is the Clerk id.
func openClerkIDs(ctx context.Context, users *mongo.Collection) (*mongostore.Store, error) {
	return mongostore.Open(ctx, users, &mongostore.Options{
		Fields: mongostore.Fields{"clerkId": "_id"},
	})
}
