package mongostore

import (
	"context"
	"errors"
	"slices"
	"strings"

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
		if r == nil {
			return up.conflict(ctx, err)
		}
		return up.conflictOf(ctx, r, err)
	}
	return err
}

// conflict is conflictOf for a record that could not be inserted.
func (up *upsert) conflict(ctx context.Context, err error) error {
	raw, e := bson.Marshal(up.document())
	if e != nil {
		return err
	}
	return up.conflictOf(ctx, &record{raw: raw}, err)
}

// conflictOf deals with a unique index other than clerkId's, which refuses to have u
// written to r. Deleted records give up the values, and errLostRace asks to try
// again; where another user has them the error is a [*clerksync.ConflictError].
func (up *upsert) conflictOf(ctx context.Context, r *record, err error) error {
	key, e := up.rival(ctx, r, up.suspects(err))
	switch {
	case e != nil:
		return e
	case key != nil:
		released, e := up.release(ctx, key)
		if e != nil && !mongo.IsDuplicateKeyError(e) { // without its values it may be in the way of others
			return e
		}
		if released {
			return errLostRace
		}
		return &clerksync.ConflictError{Field: key.written[0], Err: fail(ctx, "upsert", err)}
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
	case len(s.unique) == 1 && len(s.unique[0]) == 1:
		conflict.Field = s.unique[0][0]
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

// suspects are the fields of each index that err may be about: one where the server
// says which.
func (up *upsert) suspects(err error) [][]string {
	if keys := duplicateKeys(err); len(keys) > 0 {
		return [][]string{keys}
	}
	for _, fields := range up.unique {
		if slices.Contains(fields, "email") {
			return up.unique
		}
	}
	return append(slices.Clone(up.unique), []string{"email"}) // made after Open, perhaps
}

// uniqueKey is what a unique index refuses to have twice.
type uniqueKey struct {
	filter  bson.D   // by all fields of the index
	written []string // those of them that u gives a value
}

// key is what the record would have in an index on fields if u were written to r; nil
// if nothing of that is from u, or no other record can have the same.
func (up *upsert) key(r *record, fields []string) *uniqueKey {
	if slices.Contains(fields, "clerkId") || slices.Contains(fields, "_id") {
		return nil
	}
	k := &uniqueKey{}
	for _, field := range fields {
		value, owned := up.value(field)
		if value != nil {
			k.written = append(k.written, field)
		}
		if !owned {
			value = stored(r, field)
		}
		k.filter = append(k.filter, bson.E{Key: field, Value: value})
	}
	if k.written == nil {
		return nil
	}
	return k
}

// stored is what a filter wants of a field that is not u's to write, in which another
// record stands in r's way: in an index no value is null, and each of an array counts.
func stored(r *record, field string) any {
	value, err := r.raw.LookupErr(strings.Split(field, ".")...)
	if err != nil {
		return nil
	}
	if value.Type == bson.TypeArray {
		return bson.D{{Key: "$in", Value: value}}
	}
	return value
}

// rival returns the key of the first index in which a record of someone else has the
// same, nil if there is none.
func (up *upsert) rival(ctx context.Context, r *record, indexes [][]string) (*uniqueKey, error) {
	for _, fields := range indexes {
		key := up.key(r, fields)
		if key == nil {
			continue
		}
		filter := append(slices.Clone(key.filter), bson.E{Key: "clerkId", Value: bson.D{{Key: "$ne", Value: up.u.ClerkID}}})
		err := up.coll.FindOne(ctx, filter, options.FindOne().SetProjection(bson.D{{Key: "_id", Value: 1}})).Err()
		if err == nil {
			return key, nil
		}
		if !errors.Is(err, mongo.ErrNoDocuments) {
			return nil, err
		}
	}
	return nil, nil
}

// value is what u wants to write to a field, nil for none, and whether that is Clerk's
// to say.
func (up *upsert) value(field string) (value any, owned bool) {
	for path, value := range up.u.ClerkFields() {
		if path == field {
			return encode(value), true
		}
	}
	return nil, false
}

// release removes what u writes of a key from the deleted records that have the whole
// key, and reports whether there were any.
func (up *upsert) release(ctx context.Context, key *uniqueKey) (bool, error) {
	filter := append(slices.Clone(key.filter), bson.E{Key: "deletedAt", Value: bson.D{{Key: "$gte", Value: epoch}}})
	isExtra := func(field string) bool { _, extra := up.u.Extra[field]; return extra }
	remove := slices.DeleteFunc(slices.Clone(key.written), isExtra)
	if len(remove) == 0 {
		remove = key.written
		filter = append(filter, bson.E{Key: "extraFields", Value: bson.D{{Key: "$all", Value: remove}}}) // else the app's own of that name
	}
	unset := make(bson.D, len(remove))
	for i, field := range remove {
		unset[i] = bson.E{Key: field, Value: ""}
	}
	res, err := up.coll.UpdateMany(ctx, filter, bson.D{
		{Key: "$unset", Value: unset},
		{Key: "$set", Value: bson.D{{Key: "updatedAt", Value: up.time}}},
	})
	return err == nil && res.ModifiedCount > 0, err
}
