package mongostore

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
)

// DeactivateExternal implements [clerksync.AdoptStore]. If clerkID has a record, it takes what
// [Store.Deactivate] takes. If not, the record that the external id names becomes the tombstone,
// whatever its fields hold: it gets the Clerk id, isActive false, deletedAt and updatedAt, and
// loses what Deactivate erases. It stays as it is if it has a Clerk id or a date in deletedAt,
// or if the external id names several; then there is a tombstone without personal data.
//
// Without [Adopt].ByExternalID, or without an external id, it is Deactivate.
func (s *Store) DeactivateExternal(ctx context.Context, clerkID, externalID string, at time.Time) (clerksync.Result, error) {
	res, _, err := s.deactivate(ctx, clerkID, externalID, at, time.Time{})
	return res, err
}

// tryAdopting is try for a user whose external id may name a record.
func (d *deactivation) tryAdopting(ctx context.Context) (*clerksync.User, error) {
	if d.attempts++; d.attempts == 1 && !d.erasesNow(d.owes()) {
		filter := bson.D{{Key: "clerkId", Value: d.clerkID}, undeleted}
		found, err := d.store.writeKnown(ctx, d.clerkID, filter, bson.D{{Key: "$set", Value: d.fieldsOwing(d.owes())}})
		switch {
		case err == nil && found == recordWritten:
			d.wrote(d.owes())
			return nil, nil
		case err == nil && found == recordOnly:
			r, err := d.store.read(ctx, d.clerkID)
			if err == nil && r != nil {
				return d.settle(ctx, r)
			} else if err != nil {
				return nil, err
			}
		case err != nil && !refusedRecord(err) && !d.perhapsBarred(err):
			return nil, err
		}
	}
	a, u := d.store.adopt, &clerksync.User{ClerkID: d.clerkID, ExternalID: d.externalID}
	found, err := a.look(ctx, d.store, []*clerksync.User{u})
	if err != nil {
		return nil, err
	}
	if r := found.own[d.clerkID]; r != nil {
		return d.settle(ctx, r)
	}
	if r := onlyUnlinked(collect(found.named, externalKeys(d.externalID))); r != nil {
		return nil, d.adopt(ctx, r)
	}
	return nil, d.insertTombstone(ctx)
}

// onlyUnlinked returns the one record that an external id names and that can be linked; nil if
// there is none, or more than one, or another user's.
func onlyUnlinked(named []*record) *record {
	for _, r := range named {
		if r.hasClerkID() {
			return nil
		}
	}
	if candidates := unlinked(named); len(candidates) == 1 {
		return candidates[0]
	}
	return nil
}

// adopt makes r the tombstone.
func (d *deactivation) adopt(ctx context.Context, r *record) error {
	update, erased, owes := d.update(r)
	update[0].Value = append(update[0].Value.(bson.D), bson.E{Key: "clerkId", Value: d.clerkID})
	filter := append(bson.D{{Key: "_id", Value: r.raw.Lookup("_id")}, onlyEqualTo("clerkId", r.value("clerkId"))},
		r.unchanged(append([]string{"deletedAt"}, d.paths(r, erased, owes)...))...)
	filter = append(filter, bson.E{Key: "$and", Value: bson.A{d.store.adopt.namedBy(d.store.codec, d.externalID)}})
	_, err := d.store.write(ctx, filter, r.replaceBarriers(update), false)
	if err == nil {
		d.wrote(owes)
	}
	if !isUniqueViolation(err) {
		return err
	}
	if d.duplicates++; d.duplicates > maxUnexplained {
		return err
	}
	return errLostRace // another call has made a record of this user
}
