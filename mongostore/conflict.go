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

// maxUnexplained is how many duplicate key errors that no record explains a call takes
// for races (the record was removed, or a majority read does not see it yet) before it
// reports a conflict.
const maxUnexplained = 6

// diagnose finds out why the server failed to write a record that the filter matched.
// It returns errLostRace if it removed the cause. It decides by what is stored, because
// the codes and texts of these errors differ between servers.
func (up *upsert) diagnose(ctx context.Context, err error) error {
	server := mongo.ServerError(nil)
	if !errors.As(err, &server) || transient(err) || mongo.IsNetworkError(err) || mongo.IsTimeout(err) {
		return err
	}
	r, readErr := up.store.read(ctx, up.u.ClerkID)
	if readErr != nil {
		return err
	}
	if r != nil && !r.unconfirmed() && r.flatProfile() {
		return up.removeFlatProfile(ctx, r)
	}
	if !mongo.IsDuplicateKeyError(err) && !hasCode(err, codeInternal) {
		return err
	}
	if r == nil {
		return up.insertConflict(ctx, err)
	}
	return up.conflict(ctx, r, err)
}

// removeFlatProfile removes a profile that is not a document, such as the null that a
// Mongoose model may leave. Neither clerksync nor an app can read it as a profile.
func (up *upsert) removeFlatProfile(ctx context.Context, r *record) error {
	filter := bson.D{{Key: "clerkId", Value: up.u.ClerkID}, r.equal("profile")}
	update := bson.D{{Key: "$unset", Value: bson.D{{Key: "profile", Value: ""}}}}
	if _, err := up.store.write(ctx, filter, update, false); err != nil {
		return err
	}
	return errLostRace
}

// insertConflict is conflict for a record that could not be inserted.
func (up *upsert) insertConflict(ctx context.Context, err error) error {
	raw, e := bson.Marshal(up.document())
	if e != nil {
		return err
	}
	return up.conflict(ctx, &record{raw: raw}, err)
}

// conflict deals with a unique index other than clerkId's, which keeps u from being
// written to r. Deleted records give up the values, and errLostRace asks for another
// attempt. If another user has them, it returns a [*clerksync.ConflictError].
func (up *upsert) conflict(ctx context.Context, r *record, err error) error {
	indexes := up.candidateIndexes(err)
	key, deleted, e := up.findConflict(ctx, r, indexes)
	if e != nil {
		return e
	}
	if key == nil && mongo.IsDuplicateKeyError(err) {
		return up.store.unexplained(ctx, "upsert", err, &up.duplicates)
	}
	if key == nil {
		return err // not a unique violation after all
	}
	released, e := up.release(ctx, key)
	if e != nil && !mongo.IsDuplicateKeyError(e) {
		return e
	}
	if released {
		return errLostRace
	}
	// The release itself may violate the index: without the value, the deleted record
	// may equal another one. That is a conflict too.
	if e == nil && deleted {
		// Another call may have released the value after the read above.
		held, _, e := up.findConflict(ctx, r, indexes)
		if e != nil {
			return e
		}
		if held == nil {
			return errLostRace
		}
	}
	return &clerksync.ConflictError{Field: key.written[0], Err: wrapDriverErr(ctx, "upsert", err)}
}

// unexplained deals with a duplicate key error that no record explains. It takes the
// first ones for races, and returns a [*clerksync.ConflictError] if they go on. count
// counts those of the call.
func (s *Store) unexplained(ctx context.Context, op string, err error, count *int) error {
	*count++
	keys := duplicateKeys(err)
	if *count <= maxUnexplained || slices.Contains(keys, "clerkId") {
		return errLostRace
	}
	conflict := &clerksync.ConflictError{Err: wrapDriverErr(ctx, op, err)}
	switch {
	case len(keys) > 0:
		conflict.Field = keys[0]
	case len(s.unique) == 1 && len(s.unique[0]) == 1:
		conflict.Field = s.unique[0][0]
	}
	return conflict
}

// duplicateKeys returns the fields of the index that err is about. MongoDB has told
// them since 4.4; other servers do not.
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

// candidateIndexes returns the fields of each index that err may be about: of only one
// if the server names it.
func (up *upsert) candidateIndexes(err error) [][]string {
	if keys := duplicateKeys(err); len(keys) > 0 {
		return [][]string{keys}
	}
	for _, fields := range up.store.unique {
		if slices.Contains(fields, "email") {
			return up.store.unique
		}
	}
	return append(slices.Clone(up.store.unique), []string{"email"}) // perhaps made after Open
}

// uniqueKey is what a unique index does not let two records have.
type uniqueKey struct {
	filter  bson.D   // on all fields of the index
	written []string // those of them that u gives a value
}

// key returns what r would have in an index on fields if u were written to it. It is
// nil if none of the values comes from u, or if no other record can have the same.
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

// value returns what u wants to write to a field, nil for none, and whether Clerk owns
// the field.
func (up *upsert) value(field string) (value any, owned bool) {
	for path, value := range up.u.ClerkFields() {
		if path == field {
			return encode(value), true
		}
	}
	return nil, false
}

// stored returns the condition under which another record has the same index entry as r
// in a field that u does not write. An index stores null for an absent field, and one
// entry for each element of an array.
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

// findConflict returns the key of the first index in which another user's record has
// the same key, and whether that record is deleted. The key is nil if there is none.
func (up *upsert) findConflict(ctx context.Context, r *record, indexes [][]string) (key *uniqueKey, deleted bool, err error) {
	for _, fields := range indexes {
		key := up.key(r, fields)
		if key == nil {
			continue
		}
		others := bson.E{Key: "clerkId", Value: bson.D{{Key: "$ne", Value: up.u.ClerkID}}}
		holder, err := up.store.coll.FindOne(ctx, append(slices.Clone(key.filter), others),
			options.FindOne().SetProjection(bson.D{{Key: "deletedAt", Value: 1}})).Raw()
		if err == nil {
			return key, !deletedAt(holder).IsZero(), nil
		}
		if !errors.Is(err, mongo.ErrNoDocuments) {
			return nil, false, err
		}
	}
	return nil, false, nil
}

// release removes the values that u writes from the deleted records that have the whole
// key. It reports whether there were any.
func (up *upsert) release(ctx context.Context, key *uniqueKey) (bool, error) {
	filter := append(slices.Clone(key.filter), bson.E{Key: "deletedAt", Value: bson.D{{Key: "$gte", Value: epoch}}})
	isExtra := func(field string) bool { _, extra := up.u.Extra[field]; return extra }
	remove := slices.DeleteFunc(slices.Clone(key.written), isExtra)
	if len(remove) == 0 {
		remove = key.written
		// In a record whose extraFields do not name it, the field is the app's.
		filter = append(filter, bson.E{Key: "extraFields", Value: bson.D{{Key: "$all", Value: remove}}})
	}
	unset := make(bson.D, len(remove))
	for i, field := range remove {
		unset[i] = bson.E{Key: field, Value: ""}
	}
	res, err := up.store.coll.UpdateMany(ctx, filter, bson.D{
		{Key: "$unset", Value: unset},
		{Key: "$set", Value: bson.D{{Key: "updatedAt", Value: up.time}}},
	})
	return err == nil && res.ModifiedCount > 0, err
}
