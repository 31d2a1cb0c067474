package existing

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/mongostore"
)

// openExternalIDs is for users whom Clerk's migration gave the _id of their record as
// external_id.
func openExternalIDs(ctx context.Context, users *mongo.Collection) (*mongostore.Store, error) {
	return mongostore.Open(ctx, users, &mongostore.Options{
		Adopt: &mongostore.Adopt{ByExternalID: "_id"},
	})
}
