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
	res, _, err := s.deactivate(ctx, clerkID, "", at, time.Time{})
	return res, err
}

// DeactivateOwing implements [clerksync.JobStore]. If the user has a record, it takes one round
// trip, also with [Options].EraseOnDelete: the record is erased when its job ends. If clerkJobs
// in the record is not a document, it takes three, and unless it is null, no job is owed. For a
// user without a record it takes three, too.
func (s *Store) DeactivateOwing(
	ctx context.Context, clerkID, externalID string, at, due time.Time,
) (clerksync.Result, clerksync.Owing, error) {
	return s.deactivate(ctx, clerkID, externalID, at, due)
}

// deactivate owes a delete job if due is not zero.
func (s *Store) deactivate(
	ctx context.Context, clerkID, externalID string, at, due time.Time,
) (clerksync.Result, clerksync.Owing, error) {
	const op = "deactivate"
	ctx, err := begin(ctx, op)
	if err != nil {
		return clerksync.Result{}, 0, err
	}
	if s.readOnly {
		return clerksync.Result{}, 0, errReadOnly
	}
	if clerkID == "" {
		return clerksync.Result{}, 0, errors.New("mongostore: deactivate: no clerkID")
	}
	now := s.nowMillis()
	if at.Before(epoch) { // to the filters, such a date is not a tombstone
		at = now
	}
	d := &deactivation{
		store: s, erase: s.erase, clerkID: clerkID, externalID: externalID, id: bson.NewObjectID(), time: now,
		at: at, job: clerksync.JobState{Due: due, DeletedAt: at}.Canonical(),
	}
	res := clerksync.Result{Outcome: clerksync.Deactivated}
	err = s.retry(ctx, op, func() (err error) {
		res.User, err = d.try(ctx)
		return err
	})
	if err != nil {
		return clerksync.Result{}, 0, err
	}
	return res, d.owing, nil
}

// deactivation is one call of Deactivate, over all its attempts.
type deactivation struct {
	store      *Store
	erase      bool
	clerkID    string
	externalID string             // may name a record to adopt
	id         bson.ObjectID      // of the tombstone, if this call inserts it
	time       time.Time          // when the call began
	at         time.Time          // of the deletion
	job        clerksync.JobState // to owe, if it has a Due
	owing      clerksync.Owing
	attempts   int
	duplicates int // duplicate key errors that no record explained
}

// try makes one attempt. It returns the record if it was deleted before.
func (d *deactivation) try(ctx context.Context) (*clerksync.User, error) {
	if d.store.adopt.external(d.externalID) {
		return d.tryAdopting(ctx)
	}
	if d.attempts++; d.attempts == 1 && d.owes() {
		if written, err := d.tryOwing(ctx); written || err != nil {
			return nil, err
		}
	} else if d.attempts == 1 && !d.erase {
		filter := bson.D{{Key: "clerkId", Value: d.clerkID}, undeleted}
		onInsert := bson.D{{Key: "_id", Value: d.id}, {Key: "createdAt", Value: d.time}}
		if d.store.codec.idIsClerkID() {
			onInsert = onInsert[1:] // the filter has the _id
		}
		update := bson.D{{Key: "$set", Value: d.fields()}, {Key: "$setOnInsert", Value: onInsert}}
		_, err := d.store.write(ctx, filter, update, true)
		if !refusedRecord(err) && !d.perhapsBarred(err) {
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

// tryOwing marks a record deleted, owing a job. It inserts no tombstone: that would owe one too.
// It reports whether there was such a record.
func (d *deactivation) tryOwing(ctx context.Context) (written bool, err error) {
	filter := bson.D{{Key: "clerkId", Value: d.clerkID}, undeleted}
	_, err = d.store.write(ctx, filter, bson.D{{Key: "$set", Value: d.fieldsOwing(true)}}, false)
	switch {
	case err == nil:
		d.wrote(true)
		return true, nil
	case errors.Is(err, errLostRace), refusedRecord(err), d.perhapsBarred(err):
		return false, nil
	}
	return false, err
}

// owes reports whether the call is to owe a job.
func (d *deactivation) owes() bool { return !d.job.Due.IsZero() }

// erasesNow reports whether the deletion itself erases the record. If it owes a job, the end of the
// job does.
func (d *deactivation) erasesNow(owes bool) bool { return d.erase && !owes }

// wrote notes that a record is marked deleted, and whether that owes a job.
func (d *deactivation) wrote(owes bool) {
	switch {
	case owes:
		d.owing = clerksync.OwesJob
	case d.owes():
		d.owing = clerksync.OwesNoRoom
	}
}

// settle marks a record deleted that was read. It returns the record if it was deleted before.
func (d *deactivation) settle(ctx context.Context, r *record) (*clerksync.User, error) {
	if !r.deletedAt().IsZero() {
		if d.owes() && r.jobs().Of(clerksync.JobDelete) == d.job { // the answer to this call's write was lost
			d.owing = clerksync.OwesJob
		}
		return r.user(), nil
	}
	update, erased, owes := d.update(r)
	if parent, _ := r.barrier("clerkId"); parent != "" { // keep the id: a parent is replaced as a whole
		update[0].Value = append(update[0].Value.(bson.D), bson.E{Key: "clerkId", Value: d.clerkID})
	}
	filter := r.asRead(erased)
	if owes {
		filter = append(filter, r.unchanged(d.paths(r, nil, owes))...)
	}
	_, err := d.store.write(ctx, filter, r.replaceBarriers(update), false)
	if err == nil {
		d.wrote(owes)
	}
	return nil, err
}

// update returns the update that marks r deleted, the paths that it erases, and whether it owes
// a job.
func (d *deactivation) update(r *record) (update bson.D, erased []string, owes bool) {
	owes = d.owes() && r.hasRoomForJobs()
	update = bson.D{{Key: "$set", Value: d.fieldsOwing(owes)}}
	if !d.erasesNow(owes) {
		return update, nil, owes
	}
	erased = erasure(r)
	if unset := unsetting(erased); len(unset) > 0 { // before MongoDB 5.0 an operator must not be empty
		update = append(update, bson.E{Key: "$unset", Value: unset})
	}
	return update, erased, owes
}

// paths adds the path of the job to erased, if the job is written together with its parent because
// r has no document there.
func (d *deactivation) paths(r *record, erased []string, owes bool) []string {
	job := jobPath(clerksync.JobDelete, "")
	if parent, _ := r.barrier(job); owes && parent != "" {
		return append(erased, job)
	}
	return erased
}

func unsetting(paths []string) bson.D {
	unset := make(bson.D, len(paths))
	for i, path := range paths {
		unset[i] = bson.E{Key: path, Value: ""}
	}
	return unset
}

// perhapsBarred reports whether the server may have refused a write because a record has
// something else in place of the parent of a field: of a mapped one, or of the job.
func (d *deactivation) perhapsBarred(err error) bool {
	return (d.store.codec != nil || d.owes()) && answered(err) && !transient(err)
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

// fieldsOwing is fields with the job, if it is owed.
func (d *deactivation) fieldsOwing(owes bool) bson.D {
	if !owes {
		return d.fields()
	}
	return append(d.fields(), bson.E{Key: jobPath(clerksync.JobDelete, ""), Value: encodeJob(d.job)})
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

// Restore implements [clerksync.RestoreStore], in one round trip. It takes back the delete job too.
// While that is running, by the Store's clock, Restore changes nothing and reports false. The next
// Upsert brings back what EraseOnDelete removed, or what the record gave up to another user with the
// same e-mail address. It does not bring back role and location, which are the app's: a tombstone of
// a user who never had a record has neither.
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
	now := s.nowMillis()
	filter := bson.D{
		{Key: "clerkId", Value: clerkID},
		{Key: "deletedAt", Value: bson.D{{Key: "$gte", Value: epoch}, {Key: "$lt", Value: before}}},
		notRunning(clerksync.JobDelete, now),
	}
	unset := bson.D{{Key: "deletedAt", Value: ""}, {Key: "clerkUpdatedAt", Value: ""}}
	for _, field := range []string{"due", "token", "failedAt", "code", "deletedAt"} { // attempt says that the job ran
		unset = append(unset, bson.E{Key: jobPath(clerksync.JobDelete, field), Value: ""})
	}
	set := bson.E{Key: "$set", Value: bson.D{{Key: "isActive", Value: true}, {Key: "updatedAt", Value: now}}}
	restored := false
	err = s.retry(ctx, op, func() error {
		res, err := s.coll.UpdateOne(ctx, filter, bson.D{{Key: "$unset", Value: unset}, set})
		if answered(err) && !transient(err) { // clerkJobs may be a list of the app's; then there is no job
			res, err = s.coll.UpdateOne(ctx, filter, bson.D{{Key: "$unset", Value: unset[:2]}, set})
		}
		if err != nil {
			return err
		}
		restored = res.MatchedCount > 0
		return nil
	})
	return restored, err
}
