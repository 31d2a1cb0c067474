package mongostore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
)

// Upsert implements [clerksync.Store].
//
// A new user, or a newer version of one, takes one round trip: an upsert whose filter
// leaves out a record that is deleted or as new as u. If there is such a record, the
// unique index refuses a second one. Upsert then reads the record, decides by
// [clerksync.Decide], and writes only if nobody else has written meanwhile.
//
// A unique index of the app's own may refuse the write because deleted records hold the
// value, for example after a deleted user signed up again with the same e-mail address.
// Upsert then removes the field from them, and gives it back if it does not write u after
// all. If another record has the value, the error is a [*clerksync.ConflictError] with its
// Clerk id as Holder.
//
// A record without a date in syncedAt and deletedAt is the app's: clerksync has never
// written it. The filter leaves it out too, so it takes up to three round trips more, once.
// Upsert reads it and repeats what it has read in the filter of its write. If a value has
// another type than clerksync's, the error is a [*clerksync.ConflictError] with Field and
// Type. So it is if the app has anything under a name of u's Extra.
//
// With Omit, Upsert reads the record first. If there is none, the error matches
// [clerksync.ErrNotFound].
//
// With [Options].Adopt, a user who may adopt a record is not inserted by the first command. It
// only updates, and says whether there is a record. If not, a search follows, and then the record
// is adopted or inserted; see [Adopt]. The Outcome of exactly one call is Adopted.
//
// The Result's User is nil for Updated, because the record is not read back.
func (s *Store) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	ctx, err := begin(ctx, "upsert")
	if err != nil {
		return clerksync.Result{}, err
	}
	up, err := s.newUpsert(u)
	if err != nil {
		return clerksync.Result{}, err
	}
	res, err := up.run(ctx)
	return up.withRecord(res), err
}

// upsert is one call of Upsert, over all its attempts.
type upsert struct {
	store *Store
	codec *fieldMap
	u     *clerksync.User // canonical, and not shared
	time  time.Time       // when the call began
	// id is the _id of the record if this call creates it, or else its insertToken: see
	// identity. All attempts use the same one, so that the call recognizes a record that it
	// inserted if the answer was lost.
	id         bson.ObjectID
	attempts   int
	duplicates int // duplicate key errors that no record explained
	released   []released
	// found is the document that the Result's User was read from, as it is stored now; nil if it
	// was not read or has changed since.
	found bson.Raw
	// lookedAgain says that a search for a record to adopt was repeated because an index
	// showed that there is one.
	lookedAgain bool
}

func (s *Store) newUpsert(u *clerksync.User) (*upsert, error) {
	if s.readOnly {
		return nil, errReadOnly
	}
	return s.plannedUpsert(u)
}

// plannedUpsert is newUpsert for callers that only plan the write: it may be ReadOnly.
func (s *Store) plannedUpsert(u *clerksync.User) (*upsert, error) {
	u, err := u.Canonical()
	if err != nil {
		return nil, fmt.Errorf("mongostore: upsert: %w", err)
	}
	if u, err = s.codec.stored(u); err != nil {
		return nil, err
	}
	return &upsert{store: s, codec: s.codec, u: u, time: s.nowMillis(), id: bson.NewObjectID()}, nil
}

// errNoRecord is the error of an Upsert with Omit if there is no record.
var errNoRecord = fmt.Errorf("mongostore: upsert: %w", clerksync.ErrNotFound)

func (up *upsert) run(ctx context.Context) (clerksync.Result, error) {
	var res clerksync.Result
	err := up.store.retry(ctx, "upsert", func() (err error) {
		res, err = up.try(ctx)
		return err
	})
	if inVain(res.Outcome, err) {
		up.giveBack(ctx)
	}
	if errors.Is(err, errNoRecord) {
		return clerksync.Result{}, errNoRecord
	}
	if err != nil {
		return clerksync.Result{}, err
	}
	return res, nil
}

// try makes one attempt; errLostRace asks for another. Only the first attempt writes
// before it reads, because some servers deadlock on many upserts of one key at once.
func (up *upsert) try(ctx context.Context) (clerksync.Result, error) {
	if up.mayAdopt() {
		return up.tryAdopting(ctx)
	}
	var duplicate error // or the record is rejected
	if up.attempts++; up.attempts == 1 && up.guardable() {
		outcome, err := up.store.write(ctx, up.guard(), up.guardedUpdate(), true)
		if err = up.checkSize(err); !refusedRecord(err) {
			return up.written(outcome), up.diagnose(ctx, err)
		}
		duplicate = err
		if r, err := up.confirmRefused(ctx, duplicate); err != nil {
			return clerksync.Result{}, err
		} else if r != nil {
			return up.unchanged(r), nil
		}
	}
	r, err := up.store.read(ctx, up.u.ClerkID)
	switch {
	case err != nil:
		return clerksync.Result{}, err
	case r != nil:
		return up.settle(ctx, r)
	case len(up.u.Omit) > 0:
		return clerksync.Result{}, errNoRecord
	case duplicate != nil:
		return clerksync.Result{}, up.insertError(ctx, duplicate)
	default:
		return up.insert(ctx)
	}
}

// insert creates the record, or settles on one that another call has created.
func (up *upsert) insert(ctx context.Context) (clerksync.Result, error) {
	_, err := up.store.coll.InsertOne(ctx, up.document())
	if !mongo.IsDuplicateKeyError(err) {
		return up.written(clerksync.Created), up.checkSize(err)
	}
	r, readErr := up.store.read(ctx, up.u.ClerkID)
	switch {
	case readErr != nil:
		return clerksync.Result{}, readErr
	case r == nil:
		return clerksync.Result{}, up.insertError(ctx, err)
	default:
		return up.settle(ctx, r)
	}
}

// insertError returns the error for a record that could not be inserted.
func (up *upsert) insertError(ctx context.Context, err error) error {
	if !mongo.IsDuplicateKeyError(err) {
		return err // rejected
	}
	return up.conflict(ctx, nil, err)
}

// maxRecordSize is MongoDB's limit for one document.
// https://www.mongodb.com/docs/manual/reference/limits/#mongodb-limit-BSON-Document-Size
const maxRecordSize = 16 << 20

// checkSize adds errTooLarge to the server's error if u is over the limit: MongoDB's code for
// such an insert is 2, which has many reasons, and other servers have codes of their own.
func (up *upsert) checkSize(err error) error {
	if !answered(err) || transient(err) || mongo.IsDuplicateKeyError(err) {
		return err
	}
	if raw, e := bson.Marshal(up.document()); e != nil || len(raw) <= maxRecordSize {
		return err
	}
	return errors.Join(errTooLarge, err)
}

// settle decides on a record that was read, and writes if the record is still the same.
func (up *upsert) settle(ctx context.Context, r *record) (clerksync.Result, error) {
	p, err := up.plan(r)
	if err != nil || p.update == nil {
		return p.result, err
	}
	if _, err := up.store.write(ctx, p.filter, p.update, false); err != nil {
		return clerksync.Result{}, up.diagnose(ctx, up.checkSize(err))
	}
	return p.result, nil
}

// plan is what an upsert does to a record that exists.
type plan struct {
	filter, update bson.D           // of the write; update is nil if there is nothing to write
	result         clerksync.Result // if the write succeeds
}

// plan decides on r. The error is a [*clerksync.ConflictError] if r must be written and
// holds a value that is the app's.
func (up *upsert) plan(r *record) (plan, error) {
	p := plan{}
	switch outcome := r.decide(up.u, up.time); outcome {
	case clerksync.Updated:
		p.update = up.update(r)
		p.result = clerksync.Result{Outcome: up.outcome(r, outcome)}
	case clerksync.Unchanged:
		if _, moved := r.confirmed(up.u); moved {
			p.update = up.moveTimes(r)
		}
		p.result = up.unchanged(r)
	default:
		p.result = clerksync.Result{Outcome: up.outcome(r, outcome), User: r.user()}
		up.found = r.raw
	}
	if p.update == nil {
		return p, nil
	}
	if err := r.checkWritable(up.u); err != nil {
		return plan{}, err
	}
	switch {
	case r.unconfirmed():
		p.update = r.replaceBarriers(p.update)
		p.filter = r.asRead(r.checkedPaths(up.u))
	case p.result.Outcome == clerksync.Updated && !r.codec.drops("updatedAt"):
		p.filter = r.asRead(nil)
	default: // another call may write other fields of the same version and the same syncedAt
		p.filter = append(r.asRead(nil), r.unchanged(fieldPaths(up.u))...)
	}
	return p, nil
}

// write takes one round trip. It fails with errLostRace if no record matches and none
// is inserted.
func (s *Store) write(ctx context.Context, filter, update bson.D, insert bool) (clerksync.Outcome, error) {
	res, err := s.coll.UpdateOne(ctx, filter, update, options.UpdateOne().SetUpsert(insert))
	switch {
	case err != nil:
		return 0, err
	case res.UpsertedCount > 0:
		return clerksync.Created, nil
	case res.MatchedCount > 0:
		return clerksync.Updated, nil
	default:
		return 0, errLostRace
	}
}

// confirmRefused is confirm after the server refused the upsert.
func (up *upsert) confirmRefused(ctx context.Context, refusal error) (*record, error) {
	if !mongo.IsDuplicateKeyError(refusal) {
		return nil, nil // rejected: the filter may be too large as well
	}
	return up.confirm(ctx)
}

// confirm moves the two times forward if the record has u's version and fields: the
// same event came again. It returns the record as it was before, or nil if the record differs,
// or if a filter cannot tell. The fields are part of the filter because syncedAt says as of
// when they are known to equal Clerk's: moved alone, it would keep out the evidence that
// corrects them.
func (up *upsert) confirm(ctx context.Context) (*record, error) {
	update := up.moveTimes(nil)
	filter, exact := up.equalFilter()
	if update == nil || !exact {
		return nil, nil
	}
	raw, err := up.store.coll.FindOneAndUpdate(ctx, filter, update,
		options.FindOneAndUpdate().SetReturnDocument(options.Before)).Raw()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := up.store.record(raw)
	if r.decide(up.u, up.time) != clerksync.Unchanged {
		return nil, nil // equal by the rules of this server only
	}
	return r, nil
}

// inserted reports whether this call inserted the record.
func (up *upsert) inserted(r *record) bool {
	v := r.raw.Lookup("_id")
	if r.codec.idIsClerkID() {
		v = r.value(insertToken)
	}
	id, _ := v.ObjectIDOK()
	return id == up.id
}

// identity returns the fields that tell a record that this call inserts from all others.
func (up *upsert) identity() [2]bson.E {
	if up.codec.idIsClerkID() {
		return [2]bson.E{{Key: "clerkId", Value: up.u.ClerkID}, {Key: insertToken, Value: up.id}}
	}
	return [2]bson.E{{Key: "_id", Value: up.id}, {Key: "clerkId", Value: up.u.ClerkID}}
}

// recordID returns the _id of the record if this call inserts it.
func (up *upsert) recordID() any {
	if up.codec.idIsClerkID() {
		return up.u.ClerkID
	}
	return up.id
}

// written returns the Result of a write that applied u without reading.
func (up *upsert) written(outcome clerksync.Outcome) clerksync.Result {
	up.found = nil
	res := clerksync.Result{Outcome: outcome}
	if outcome == clerksync.Created {
		u := *up.u
		u.ID, u.CreatedAt, u.UpdatedAt = up.id.Hex(), up.time, up.time
		if up.codec.idIsClerkID() {
			u.ID = u.ClerkID
		}
		if up.codec.drops("updatedAt") {
			u.UpdatedAt = time.Time{}
		}
		u.IsActive, u.DeletedAt, u.RoleFromClerk, u.Partial = true, time.Time{}, false, false
		u.ExternalID, u.EmailProven = "", false
		u.Jobs, u.CreateDue = owedCreate(u.CreateDue), time.Time{}
		res.User = &u
	}
	return res
}

// outcome returns decided, or Created or Adopted if this call inserted or adopted r by a write
// whose answer was lost: exactly one call must report that, whatever others did to the record
// since.
func (up *upsert) outcome(r *record, decided clerksync.Outcome) clerksync.Outcome {
	switch {
	case decided == clerksync.Deactivated:
		return decided
	case up.inserted(r):
		return clerksync.Created
	case up.adopted(r):
		return clerksync.Adopted
	default:
		return decided
	}
}

// unchanged returns the Result for a record that equals u.
func (up *upsert) unchanged(r *record) clerksync.Result {
	after, moved := r.confirmed(up.u)
	if up.found = r.raw; moved {
		up.found = nil
	}
	return clerksync.Result{Outcome: up.outcome(r, clerksync.Unchanged), User: after}
}
