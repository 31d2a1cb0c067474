package mongostore

import (
	"context"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
)

// released is what a call took from a deleted record.
type released struct {
	from  *record // as it was before
	paths []string
}

// spare returns the paths of a key that r can give up. There are none unless clerksync has
// marked r deleted. A record without a clerkId is the app's, and so is a field of Extra that
// extraFields does not name.
func (up *upsert) spare(r *record, paths []string) (spare []string) {
	if r.deletedAt().IsZero() || r.clerkID() == "" || r.deletedByApp() {
		return nil
	}
	var extra []string
	named := r.extraFields()
	for _, path := range paths {
		if _, err := r.lookup(path); err != nil {
			continue
		}
		if _, isExtra := up.u.Extra[path]; !isExtra {
			spare = append(spare, path)
		} else if slices.Contains(named, path) {
			extra = append(extra, path)
		}
	}
	if spare == nil {
		return extra
	}
	return spare
}

// deletedByApp reports whether the app itself has put a deletedAt into a record that clerksync
// has never written. Without a date in syncedAt, the other two fields that Deactivate writes tell
// its tombstones apart.
func (r *record) deletedByApp() bool {
	return r.date("syncedAt").IsZero() &&
		(r.truth("isActive", true) || !r.codec.drops("updatedAt") && r.date("updatedAt").IsZero())
}

// release removes fields from a deleted record. It fails with errLostRace if another call
// has changed them or restored the record.
func (up *upsert) release(ctx context.Context, r *record, paths []string) error {
	filter := append(r.key(), r.equal("deletedAt"))
	unset := bson.D{}
	for _, path := range paths {
		value, _ := r.lookup(path)
		filter = append(filter, bson.E{Key: path, Value: bson.D{{Key: "$eq", Value: value}}})
		unset = append(unset, bson.E{Key: path, Value: ""})
	}
	// The driver does not send an UpdateMany twice, so the count tells who released them.
	res, err := up.store.coll.UpdateMany(ctx, filter, bson.D{
		{Key: "$unset", Value: unset},
		{Key: "$set", Value: bson.D{{Key: "updatedAt", Value: up.time}}},
	})
	switch {
	case err != nil:
		return err
	case res.MatchedCount == 0:
		return errLostRace
	}
	up.released = append(up.released, released{r, paths})
	return nil
}

// giveBack undoes the releases of a call that did not write u after all: another call wrote
// a newer version, deleted the user or took the value. A record that was restored meanwhile
// gets its fields back too, unless it was written since. If this fails, a deleted record
// lacks a value that nobody has.
func (up *upsert) giveBack(ctx context.Context) {
	for _, taken := range slices.Backward(up.released) {
		filter := taken.from.key()
		for _, field := range []string{"deletedAt", "clerkUpdatedAt"} {
			asBefore := bson.A{nil}
			if value, err := taken.from.lookup(field); err == nil {
				asBefore = append(asBefore, value)
			}
			filter = append(filter, bson.E{Key: field, Value: bson.D{{Key: "$in", Value: asBefore}}})
		}
		set := bson.D{}
		for _, path := range taken.paths {
			value, _ := taken.from.lookup(path)
			set = append(set, bson.E{Key: path, Value: value})
			filter = append(filter, bson.E{Key: path, Value: bson.D{{Key: "$exists", Value: false}}})
		}
		// The index refuses it if another record has the value by now.
		_ = up.store.retry(ctx, "upsert", func() error {
			_, err := up.store.coll.UpdateOne(ctx, filter, bson.D{{Key: "$set", Value: set}})
			return err
		})
	}
	up.released = nil
}

// inVain reports whether a call that ended like this surely did not write u.
func inVain(outcome clerksync.Outcome, err error) bool {
	if err != nil {
		return !unreachable(err)
	}
	return outcome == clerksync.Stale || outcome == clerksync.Deactivated
}
