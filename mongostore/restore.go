package mongostore

import (
	"context"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Restore implements [clerksync.RestoreStore], in one round trip. The next Upsert brings
// back what EraseOnDelete removed, or what the record gave up to another user with the
// same e-mail address. It does not bring back role and location, which are the app's: a
// tombstone of a user who never had a record has neither.
//
// If the answer is lost, the driver sends the write again. A server that does not
// recognize the second one (DocumentDB on PostgreSQL) then makes Restore report false
// although it restored the record.
func (s *Store) Restore(ctx context.Context, clerkID string, before time.Time) (bool, error) {
	const op = "restore"
	ctx, err := begin(ctx, op)
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
		{Key: "$set", Value: bson.D{{Key: "isActive", Value: true}, {Key: "updatedAt", Value: s.nowMillis()}}},
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
