package mongostore

import (
	"context"
	"errors"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
)

// maxRefusals is how often a duplicate key that nothing explains is put down to a race
// (the record was removed, or is not yet visible to a majority read) before
// it is reported as a conflict.
const maxRefusals = 6

// obstacle finds out why the server refused to write a record that the filter
// matched. It removes what it can, and returns errLostRace then. It goes by what is
// stored: codes and texts of these errors differ between servers.
func (up *upsert) obstacle(ctx context.Context, err error) error {
	server := mongo.ServerError(nil)
	if !errors.As(err, &server) || passing(err) || mongo.IsNetworkError(err) || mongo.IsTimeout(err) {
		return err
	}
	r, readErr := up.read(ctx, up.u.ClerkID)
	if readErr != nil {
		return err
	}
	if r != nil && r.flatProfile() {
		// profile: null, as a Mongoose model may leave it. It holds nothing that
		// clerksync or an app could read as a profile.
		filter := bson.D{{Key: "clerkId", Value: up.u.ClerkID}, r.equal("profile")}
		_, err := up.write(ctx, filter, bson.D{{Key: "$unset", Value: bson.D{{Key: "profile", Value: ""}}}}, false)
		if err == nil {
			err = errLostRace
		}
		return err
	}
	if mongo.IsDuplicateKeyError(err) || hasCode(err, codeInternal) {
		return up.conflict(ctx, err)
	}
	return err
}

// conflict deals with a unique index other than clerkId's. Deleted records give up
// the value, and errLostRace asks to try again; where another user has it the
// error is a [*clerksync.ConflictError].
func (up *upsert) conflict(ctx context.Context, err error) error {
	field, e := up.rival(ctx, slices.Concat(duplicateKeys(err), up.unique, []string{"email"}))
	switch {
	case e != nil:
		return e
	case field != "":
		released, e := up.release(ctx, field)
		if e != nil {
			return e
		}
		if released {
			return errLostRace
		}
		return &clerksync.ConflictError{Field: field, Err: fail(ctx, "upsert", err)}
	case mongo.IsDuplicateKeyError(err):
		return up.refused(ctx, "upsert", err, &up.refusals)
	default:
		return err // no unique violation after all
	}
}

// refused is for a duplicate key that no record explains: a race at first, a
// [*clerksync.ConflictError] when it persists.
func (s *Store) refused(ctx context.Context, op string, err error, refusals *int) error {
	*refusals++
	keys := duplicateKeys(err)
	if *refusals <= maxRefusals || slices.Contains(keys, "clerkId") {
		return errLostRace
	}
	conflict := &clerksync.ConflictError{Err: fail(ctx, op, err)}
	switch {
	case len(keys) > 0:
		conflict.Field = keys[0]
	case len(s.unique) == 1:
		conflict.Field = s.unique[0]
	}
	return conflict
}

// duplicateKeys are the fields of the index that err is about, as MongoDB tells
// since 4.4; other servers do not.
func duplicateKeys(err error) []string {
	we := firstWriteError(err)
	if we == nil {
		return nil
	}
	pattern, _ := we.Raw.Lookup("keyPattern").DocumentOK()
	elements, _ := pattern.Elements()
	var keys []string
	for _, e := range elements {
		keys = append(keys, e.Key())
	}
	return keys
}

// rival returns the first of fields in which a record of someone else has u's
// value, "" if there is none.
func (up *upsert) rival(ctx context.Context, fields []string) (string, error) {
	for _, field := range fields {
		value := up.value(field)
		if value == nil {
			continue
		}
		filter := bson.D{
			{Key: field, Value: value},
			{Key: "clerkId", Value: bson.D{{Key: "$ne", Value: up.u.ClerkID}}},
		}
		err := up.coll.FindOne(ctx, filter, options.FindOne().SetProjection(bson.D{{Key: "_id", Value: 1}})).Err()
		if err == nil {
			return field, nil
		}
		if !errors.Is(err, mongo.ErrNoDocuments) {
			return "", err
		}
	}
	return "", nil
}

// value is what u wants to write to a field, nil if nothing.
func (up *upsert) value(field string) any {
	for path, value := range up.u.ClerkFields() {
		if path == field {
			return encode(value)
		}
	}
	return nil
}

// release removes u's value of a field from deleted records, and reports whether
// any had it.
func (up *upsert) release(ctx context.Context, field string) (bool, error) {
	filter := bson.D{
		{Key: field, Value: up.value(field)},
		{Key: "deletedAt", Value: bson.D{{Key: "$gte", Value: epoch}}},
	}
	if _, extra := up.u.Extra[field]; extra { // else the app's own of that name
		filter = append(filter, bson.E{Key: "extraFields", Value: field})
	}
	res, err := up.coll.UpdateMany(ctx, filter, bson.D{
		{Key: "$unset", Value: bson.D{{Key: field, Value: ""}}},
		{Key: "$set", Value: bson.D{{Key: "updatedAt", Value: up.time}}},
	})
	return err == nil && res.ModifiedCount > 0, err
}
