package mongostore

import (
	"context"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Restore implements clerksync.RestoreStore, in one round trip. What EraseOnDelete
// or another user's claim to the e-mail address has removed comes back with the
// next Upsert, role and location apart: those are the app's. A tombstone of a
// user who never had a record has neither.
//
// Where the answer was lost and the driver sends the write again, a server that
// does not know it again (DocumentDB on PostgreSQL) has Restore say false of
// what it did.
func (s *Store) Restore(ctx context.Context, clerkID string, before time.Time) (bool, error) {
	const op = "restore"
	ctx, err := enter(ctx, op)
	if err != nil {
		return false, err
	}
	if clerkID == "" {
		return false, errors.New("mongostore: restore: no clerkID")
	}
	filter := bson.D{
		{Key: "clerkId", Value: clerkID},
		{Key: "deletedAt", Value: bson.D{{Key: "$gte", Value: epoch}, {Key: "$lt", Value: before}}},
	}
	update := bson.D{
		{Key: "$unset", Value: bson.D{{Key: "deletedAt", Value: ""}, {Key: "clerkUpdatedAt", Value: ""}}},
		{Key: "$set", Value: bson.D{{Key: "isActive", Value: true}, {Key: "updatedAt", Value: s.millis()}}},
	}
	restored := false
	err = s.retry(ctx, op, func() error {
		res, err := s.coll.UpdateOne(ctx, filter, update)
		if err != nil {
			return err
		}
		restored = res.MatchedCount > 0
		return nil
	})
	return restored, err
}
