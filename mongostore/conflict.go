package mongostore

import (
	"context"
	"errors"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

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
	if parent, v := up.barrier(r); parent != "" {
		if !r.unconfirmed() {
			return up.removeBarrier(ctx, parent, v)
		}
		if up.attempts == 1 { // the filter took it for confirmed
			return errLostRace
		}
	}
	if !mongo.IsDuplicateKeyError(err) && !hasCode(err, codeInternal) {
		return err
	}
	return up.conflict(ctx, r, err)
}

// barrier returns what r has in place of the parent of a field that u writes, see
// record.barrier. r may be nil.
func (up *upsert) barrier(r *record) (path string, v bson.RawValue) {
	if r == nil {
		return "", bson.RawValue{}
	}
	for _, name := range append(fieldPaths(up.u), "clerkUpdatedAt", "syncedAt", "lastSignInAt", "updatedAt", "extraFields") {
		if path, v := r.barrier(name); path != "" {
			return path, v
		}
	}
	return "", bson.RawValue{}
}

// removeBarrier removes a parent that is not a document, such as the null that a Mongoose
// model may leave for profile. Neither clerksync nor an app can read it as one.
func (up *upsert) removeBarrier(ctx context.Context, parent string, v bson.RawValue) error {
	key := up.codec.verbatim(parent)
	filter := bson.D{{Key: "clerkId", Value: up.u.ClerkID}, equalTo(key, v)}
	update := bson.D{{Key: "$unset", Value: bson.D{{Key: key, Value: ""}}}}
	if _, err := up.store.write(ctx, filter, update, false); err != nil {
		return err
	}
	return errLostRace
}

// conflict deals with a unique index other than clerkId's, which keeps u from being
// written to r, nil for a new record. r may be one to adopt. Deleted records give up the values,
// and errLostRace asks for another attempt. If another user has them, it returns a
// [*clerksync.ConflictError].
func (up *upsert) conflict(ctx context.Context, r *record, err error) error {
	if !up.writes(r) {
		return errLostRace // nothing is to be released for it
	}
	key, holders, e := up.findConflict(ctx, r, err)
	if e != nil {
		return e
	}
	if key == nil {
		return up.unexplained(ctx, err)
	}
	conflict := &clerksync.ConflictError{Field: key.paths[0], Err: wrapDriverErr(ctx, "upsert", err)}
	for _, holder := range holders {
		if up.spare(holder, key.paths) == nil {
			conflict.Holder = undeletedID(holder)
			return up.confirmConflict(ctx, conflict)
		}
	}
	for _, holder := range holders {
		switch e := up.release(ctx, holder, up.spare(holder, key.paths)); {
		case isUniqueViolation(e), refusedRecord(e):
			// Without the value, the deleted record would equal another one, or break a rule.
			return conflict
		case e != nil:
			return e
		}
	}
	return errLostRace
}

// writes reports whether u would be written over r, which is nil if there is no record.
func (up *upsert) writes(r *record) bool {
	if r != nil && !r.hasClerkID() {
		return true // to adopt it
	}
	outcome := r.decide(up.u, up.time)
	return outcome == clerksync.Created || outcome == clerksync.Updated
}

// confirmConflict returns the conflict, or errLostRace if another call has made u stale or
// deleted the user: then the value may have become another user's after that.
func (up *upsert) confirmConflict(ctx context.Context, conflict *clerksync.ConflictError) error {
	r, err := up.store.read(ctx, up.u.ClerkID)
	switch {
	case err != nil:
		return err
	case !up.writes(r):
		return errLostRace
	}
	return conflict
}

// findConflict returns the key of the first index in which other records have the same key
// as r after the write, and these records. The key is nil if there are none.
func (up *upsert) findConflict(ctx context.Context, r *record, refusal error) (*uniqueKey, []*record, error) {
	after, err := up.after(r)
	if err != nil {
		return nil, nil, err
	}
	for _, ix := range up.store.candidates(refusal) {
		key := up.key(after, ix)
		if key == nil {
			continue
		}
		if holders, err := up.holders(ctx, key, r); err != nil || len(holders) > 0 {
			return key, holders, err
		}
	}
	return nil, nil, nil
}

// undeletedID returns the Clerk id of a record, empty if its user is deleted.
func undeletedID(r *record) string {
	if !r.deletedAt().IsZero() {
		return ""
	}
	return r.clerkID()
}

// isUniqueViolation reports whether err may be about a unique index.
func isUniqueViolation(err error) bool {
	return mongo.IsDuplicateKeyError(err) || hasCode(err, codeInternal)
}

// unexplained deals with a refusal that no record explains.
func (up *upsert) unexplained(ctx context.Context, err error) error {
	if !mongo.IsDuplicateKeyError(err) {
		if up.duplicates++; up.duplicates > maxUnexplained {
			return err // not a unique violation after all
		}
		return errLostRace
	}
	e := up.store.unexplained(ctx, "upsert", err, &up.duplicates)
	if conflict := (*clerksync.ConflictError)(nil); errors.As(e, &conflict) {
		for _, field := range up.store.refusedFields(err) {
			if path := up.source(field); path != "" {
				conflict.Field = path
				break
			}
		}
	}
	return e
}

// source returns the path, as ClerkFields names it, from which an indexed field gets its
// value; empty if the field is not Clerk's.
func (up *upsert) source(field string) string {
	for path := range up.u.ClerkFields() {
		if within(field, up.codec.path(path)) {
			return path
		}
	}
	return ""
}

// unexplained deals with a duplicate key error that no record explains. It takes the
// first ones for races, and returns a [*clerksync.ConflictError] if they go on. count
// counts those of the call.
func (s *Store) unexplained(ctx context.Context, op string, err error, count *int) error {
	*count++
	if *count <= maxUnexplained || slices.Contains(duplicateKeys(err), s.codec.path("clerkId")) {
		return errLostRace
	}
	conflict := &clerksync.ConflictError{Err: wrapDriverErr(ctx, op, err)}
	if fields := s.refusedFields(err); len(fields) > 0 {
		conflict.Field = s.codec.name(fields[0])
	}
	return conflict
}

// refusedFields returns the fields of the index that err is about, nil if that is not known.
func (s *Store) refusedFields(err error) []string {
	if keys := duplicateKeys(err); keys != nil {
		return keys
	}
	if len(s.unique) == 1 {
		return s.unique[0].fields
	}
	return nil
}
