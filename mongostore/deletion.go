package mongostore

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/clerksync"
)

// Deactivate implements [clerksync.Store], in one round trip. An at that is zero or
// before 1970 means now. The Result's User is nil unless the record was deleted before.
//
// With [Options].EraseOnDelete it takes two round trips, and the record loses email,
// name, profile.firstName, .lastName, .fullName, .imageUrl, .phoneNumber, .birthday and
// .gender, clerkCreatedAt, lastSignInAt, and the fields that [clerksync.Config].Map
// added to Extra, with extraFields. It keeps _id, clerkId, the flags (isActive,
// emailVerified, phoneVerified, banned), the record's own times, and the app's fields:
// role, location and each field that clerksync does not know. In a record that clerksync
// has never written, a value of another type than clerksync's is the app's too. A record
// that is already deleted stays as it is.
func (s *Store) Deactivate(ctx context.Context, clerkID string, at time.Time) (clerksync.Result, error) {
	return s.deactivate(ctx, clerkID, "", at)
}

func (s *Store) deactivate(ctx context.Context, clerkID, externalID string, at time.Time) (clerksync.Result, error) {
	const op = "deactivate"
	ctx, err := begin(ctx, op)
	if err != nil {
		return clerksync.Result{}, err
	}
	if s.readOnly {
		return clerksync.Result{}, errReadOnly
	}
	if clerkID == "" {
		return clerksync.Result{}, errors.New("mongostore: deactivate: no clerkID")
	}
	now := s.nowMillis()
	if at.Before(epoch) { // to the filters, such a date is not a tombstone
		at = now
	}
	d := &deactivation{store: s, erase: s.erase, clerkID: clerkID, externalID: externalID, id: bson.NewObjectID(), time: now, at: at}
	res := clerksync.Result{Outcome: clerksync.Deactivated}
	err = s.retry(ctx, op, func() (err error) {
		res.User, err = d.try(ctx)
		return err
	})
	if err != nil {
		return clerksync.Result{}, err
	}
	return res, nil
}

// deactivation is one call of Deactivate, over all its attempts.
type deactivation struct {
	store      *Store
	erase      bool
	clerkID    string
	externalID string        // may name a record to adopt
	id         bson.ObjectID // of the tombstone, if this call inserts it
	time       time.Time     // when the call began
	at         time.Time     // of the deletion
	attempts   int
	duplicates int // duplicate key errors that no record explained
}

// try makes one attempt. It returns the record if it was deleted before.
func (d *deactivation) try(ctx context.Context) (*clerksync.User, error) {
	if d.store.adopt.external(d.externalID) {
		return d.tryAdopting(ctx)
	}
	if d.attempts++; d.attempts == 1 && !d.erase {
		filter := bson.D{{Key: "clerkId", Value: d.clerkID}, undeleted}
		onInsert := bson.D{{Key: "_id", Value: d.id}, {Key: "createdAt", Value: d.time}}
		if d.store.codec.idIsClerkID() {
			onInsert = onInsert[1:] // the filter has the _id
		}
		update := bson.D{{Key: "$set", Value: d.fields()}, {Key: "$setOnInsert", Value: onInsert}}
		_, err := d.store.write(ctx, filter, update, true)
		if !refusedRecord(err) && !d.store.perhapsBarred(err) {
			return nil, err
		}
	}
	r, err := d.store.read(ctx, d.clerkID)
	switch {
	case err != nil:
		return nil, err
	case r == nil:
		return nil, d.insertTombstone(ctx)
	default:
		return d.settle(ctx, r)
	}
}

// settle marks a record deleted that was read. It returns the record if it was deleted before.
func (d *deactivation) settle(ctx context.Context, r *record) (*clerksync.User, error) {
	if !r.deletedAt().IsZero() {
		return r.user(), nil
	}
	update, erased := d.update(r)
	if parent, _ := r.barrier("clerkId"); parent != "" { // keep the id: a parent is replaced as a whole
		update[0].Value = append(d.fields(), bson.E{Key: "clerkId", Value: d.clerkID})
	}
	_, err := d.store.write(ctx, r.asRead(erased), r.replaceBarriers(update), false)
	return nil, err
}

// update returns the update that marks r deleted, and the paths that it erases.
func (d *deactivation) update(r *record) (update bson.D, erased []string) {
	update = bson.D{{Key: "$set", Value: d.fields()}}
	if !d.erase {
		return update, nil
	}
	erased = erasure(r)
	unset := make(bson.D, len(erased))
	for i, path := range erased {
		unset[i] = bson.E{Key: path, Value: ""}
	}
	if len(unset) > 0 { // before MongoDB 5.0 an operator must not be empty
		update = append(update, bson.E{Key: "$unset", Value: unset})
	}
	return update, erased
}

// perhapsBarred reports whether the server may have refused a write because a record has
// something else in place of the parent of a mapped field.
func (s *Store) perhapsBarred(err error) bool {
	return s.codec != nil && answered(err) && !transient(err)
}

func (d *deactivation) insertTombstone(ctx context.Context) error {
	tombstone := bson.D{{Key: "_id", Value: d.id}, {Key: "clerkId", Value: d.clerkID}, {Key: "createdAt", Value: d.time}}
	if d.store.codec.idIsClerkID() {
		tombstone = tombstone[1:]
	}
	_, err := d.store.coll.InsertOne(ctx, d.store.codec.document(append(tombstone, d.fields()...)))
	if mongo.IsDuplicateKeyError(err) {
		return d.store.unexplained(ctx, "deactivate", err, &d.duplicates)
	}
	return err
}

// fields returns what makes a record a tombstone.
func (d *deactivation) fields() bson.D {
	return bson.D{{Key: "isActive", Value: false}, {Key: "deletedAt", Value: d.at}, {Key: "updatedAt", Value: d.time}}
}

// erasure returns the paths of everything that a sync would remove if Clerk knew nothing
// about the user, and lastSignInAt. In an unconfirmed record, it leaves out what has
// another type than clerksync's: that is the app's.
func erasure(r *record) []string {
	nobody := &clerksync.User{}
	paths := []string{"lastSignInAt", "extraFields"}
	for path, value := range nobody.ClerkFields() {
		if barrier, _ := r.barrier(path); value == nil && barrier == "" {
			paths = append(paths, path)
		}
	}
	if r.unconfirmed() {
		paths = slices.DeleteFunc(paths, func(path string) bool {
			field, _ := r.inTheWay(path, typeAt(path))
			return field != ""
		})
	}
	return append(paths, r.lost(nobody)...)
}

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
	if s.readOnly {
		return false, errReadOnly
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
