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

// Adoption
//
// A user who may adopt a record must not be inserted before the Store has looked for it. So the
// first command of an Upsert only updates, and also says whether the Clerk id has a record: a
// known user takes no command more. If there is none, one search finds the record of the Clerk
// id, if another call has just made it, those that the external id names, and those that have
// the e-mail address. Then the record is inserted or adopted.
//
// An adoption is one update, so a process that dies leaves nothing half done. Its filter has all
// that the decision depends on: the record still has no Clerk id, no tombstone, the same
// external id or address, the same values under clerksync's names, and is trusted. The unique
// index on clerkId decides between two records for one user. If the update fails, the next
// attempt reads the Clerk id and looks again.
//
// What no filter can see is a record that the app inserts between the search and the insert.
// Only a unique index on the address keeps it out.

// adopted reports whether this call adopted the record: it recognizes its token if the answer
// was lost.
func (up *upsert) adopted(r *record) bool {
	id, _ := r.value(insertToken).ObjectIDOK()
	return id == up.id
}

// adoptionPaths returns the paths at which a record must have no value of the app's to be adopted
// by u: those of an Upsert, and those that only an adoption writes.
func (r *record) adoptionPaths(u *clerksync.User) []string {
	return append(r.checkedPaths(u), "adoptedAt", "adoptedBy", insertToken)
}

// checkAdoptable returns a conflict about the first value that keeps u from being written to the
// record, nil if there is none.
func (r *record) checkAdoptable(u *clerksync.User) error { return r.checkTypes(u, r.adoptionPaths(u)) }

// lacks reports whether a top-level field is absent or null.
func (r *record) lacks(field string) bool {
	v := r.value(field)
	return v.IsZero() || v.Type == bson.TypeNull
}

// missing returns the fields of a new record that the record lacks. A value of any type is the
// app's.
func (up *upsert) missing(r *record) bson.D {
	fields := bson.D{{Key: "isActive", Value: true}, {Key: "createdAt", Value: up.time}}
	if up.u.Role != "" && !up.u.RoleFromClerk {
		fields = append(fields, bson.E{Key: "role", Value: string(up.u.Role)})
	}
	return slices.DeleteFunc(fields, func(e bson.E) bool { return !r.lacks(e.Key) })
}

// adoption is the update that links a user to a record.
type adoption struct {
	of     *record
	asRead bson.D // matches the record as long as the decision to adopt it holds, trusted or not
	filter bson.D // asRead, and that the record is trusted if it must be
	update bson.D
	// trusting says that the record must be trusted.
	trusting bool
}

// adoption returns the update for a choice to adopt.
func (up *upsert) adoption(c choice) adoption {
	r, a := c.adopt, up.store.adopt
	paths := append(r.adoptionPaths(up.u), "clerkId")
	for _, e := range up.missing(r) {
		paths = append(paths, e.Key)
	}
	slices.Sort(paths)
	asRead := append(bson.D{{Key: "_id", Value: r.raw.Lookup("_id")}}, withoutIndexes(r.unchanged(slices.Compact(paths)))...)
	if c.by == clerksync.ByExternalID {
		asRead = append(asRead, bson.E{Key: "$and", Value: bson.A{a.namedBy(up.codec, up.u.ExternalID)}})
	}
	filter, trusting := asRead, c.by == clerksync.ByEmail && a.trusted != nil
	if trusting {
		filter = append(slices.Clip(asRead), a.isTrusted())
	}
	return adoption{of: r, asRead: asRead, filter: filter, update: up.adoptingUpdate(r, c.by), trusting: trusting}
}

// withoutIndexes says that none of the opposites of the conditions holds. That has the same meaning,
// but a server that finds the record by its _id does not look it up in the index on the address or on
// clerkId too.
func withoutIndexes(filter bson.D) (rewritten bson.D) {
	opposites := make(bson.A, 0, len(filter)+2)
	for _, e := range filter {
		condition := e.Value.(bson.D)
		switch {
		case condition[0].Key == "$eq" && condition[0].Value == nil:
			opposites = append(opposites, bson.D{{Key: e.Key, Value: bson.D{{Key: "$exists", Value: true}}}})
		case condition[0].Key == "$eq" && len(condition) == 2: // the other is notArray
			opposites = append(opposites,
				bson.D{{Key: e.Key, Value: bson.D{{Key: "$ne", Value: condition[0].Value}}}},
				bson.D{{Key: e.Key, Value: bson.D{{Key: "$type", Value: "array"}}}})
		default:
			rewritten = append(rewritten, e)
		}
	}
	return append(rewritten, bson.E{Key: "$nor", Value: opposites})
}

// namedBy matches the records that an external id names.
func (a *adopter) namedBy(codec *fieldMap, id string) bson.D {
	return bson.D{{Key: codec.verbatim(a.byExternalID), Value: bson.D{{Key: "$in", Value: externalValues(id)}}}}
}

// adoptingUpdate writes u to r, links them, and fills in what a new record has. Version and
// syncedAt become u's, whatever the record has there: it was not the record of this user. The filter
// says what the record lacks, so nothing is removed there, and a parent that it lacks is set as a whole.
func (up *upsert) adoptingUpdate(r *record, by string) bson.D {
	set, unset := up.fields(r)
	set = append(set,
		bson.E{Key: "clerkId", Value: up.u.ClerkID},
		bson.E{Key: "adoptedAt", Value: up.time}, bson.E{Key: "adoptedBy", Value: by}, bson.E{Key: insertToken, Value: up.id},
	)
	set = append(set, up.missing(r)...)
	if up.u.ClerkUpdatedAt.IsZero() { // else fields has it
		unset = append(unset, bson.E{Key: "clerkUpdatedAt", Value: ""})
	}
	if up.u.SyncedAt.IsZero() {
		unset = append(unset, bson.E{Key: "syncedAt", Value: ""})
	} else {
		set = append(set, bson.E{Key: "syncedAt", Value: up.u.SyncedAt})
	}
	unset = slices.DeleteFunc(unset, func(e bson.E) bool { return r.value(e.Key).IsZero() })
	update := up.change(r, set, unset)
	if !up.u.LastSignInAt.IsZero() {
		update = append(update, bson.E{Key: "$max", Value: bson.D{{Key: "lastSignInAt", Value: up.u.LastSignInAt}}})
	}
	return r.replaceParents(update, r.noDocument)
}

// mayAdopt reports whether the user may adopt a record. If so, no record is inserted before the
// search for one to adopt.
func (up *upsert) mayAdopt() bool { return up.store.adopt.applies(up.u) }

// tryAdopting is try for a user who may adopt a record.
func (up *upsert) tryAdopting(ctx context.Context) (clerksync.Result, error) {
	if up.attempts++; up.attempts > 1 || !up.guardable() {
		return up.lookAndWrite(ctx)
	}
	found, err := up.store.writeKnown(ctx, up.u.ClerkID, up.guard(), up.update(nil))
	err = up.checkSize(err)
	switch {
	case err == nil && found == noRecord:
		return up.lookAndWrite(ctx)
	case err == nil && found == recordWritten:
		return up.written(clerksync.Updated), nil
	case err == nil:
		if r, err := up.confirm(ctx); err != nil {
			return clerksync.Result{}, err
		} else if r != nil {
			return up.unchanged(r), nil
		}
	case !refusedRecord(err):
		return clerksync.Result{}, up.diagnose(ctx, err)
	}
	r, err := up.store.read(ctx, up.u.ClerkID)
	if err == nil && r == nil {
		err = errLostRace
	}
	if err != nil {
		return clerksync.Result{}, err
	}
	return up.settle(ctx, r)
}

// known says what writeKnown found.
type known int

const (
	noRecord      known = iota
	recordOnly          // a record that the filter does not match
	recordWritten       // the filter matched it
)

// writeKnown writes to the record of a Clerk id if the filter matches it, and says whether there
// is one. It never inserts. It takes one round trip: a second update in the same command, which
// changes nothing, counts the record.
func (s *Store) writeKnown(ctx context.Context, clerkID string, filter, update bson.D) (known, error) {
	id := bson.D{{Key: "clerkId", Value: clerkID}}
	res, err := s.coll.BulkWrite(ctx, []mongo.WriteModel{
		mongo.NewUpdateOneModel().SetFilter(filter).SetUpdate(update),
		mongo.NewUpdateOneModel().SetFilter(id).SetUpdate(bson.D{{Key: "$max", Value: id}}), // also equal in an array
	})
	if err != nil {
		return noRecord, singleError(err)
	}
	return known(min(res.MatchedCount, 2)), nil
}

// singleError returns an error of a bulk as that of a single write.
func singleError(err error) error {
	bulk := mongo.BulkWriteException{}
	if !errors.As(err, &bulk) {
		return err
	}
	single := mongo.WriteException{WriteConcernError: bulk.WriteConcernError, Labels: bulk.Labels}
	for _, we := range bulk.WriteErrors {
		single.WriteErrors = append(single.WriteErrors, we.WriteError)
	}
	return single
}

// lookAndWrite looks for the user's record and for one to adopt, and settles on the former,
// adopts the latter or inserts one.
func (up *upsert) lookAndWrite(ctx context.Context) (clerksync.Result, error) {
	found, err := up.store.adopt.look(ctx, up.store, []*clerksync.User{up.u})
	if err != nil {
		return clerksync.Result{}, err
	}
	if r := found.own[up.u.ClerkID]; r != nil {
		return up.settle(ctx, r)
	}
	switch c := up.store.adopt.choose(up.u, found); {
	case c.err != nil:
		return clerksync.Result{}, c.err
	case c.adopt != nil:
		return up.adopt(ctx, c)
	default:
		return up.insertAlone(ctx)
	}
}

// insertAlone is insert for a user beside whom no record has the address. If one came since,
// and a unique index tells so, the next attempt finds it.
func (up *upsert) insertAlone(ctx context.Context) (clerksync.Result, error) {
	res, err := up.insert(ctx)
	var conflict *clerksync.ConflictError
	if errors.As(err, &conflict) && conflict.Field == "email" && conflict.Holder == "" && up.store.adopt.byEmail && !up.lookedAgain {
		up.lookedAgain = true
		return clerksync.Result{}, errLostRace
	}
	return res, err
}

// adopt links u to a record.
func (up *upsert) adopt(ctx context.Context, c choice) (clerksync.Result, error) {
	a := up.adoption(c)
	raw, err := up.store.coll.FindOneAndUpdate(ctx, a.filter, a.update,
		options.FindOneAndUpdate().SetReturnDocument(options.After)).Raw()
	switch {
	case err == nil:
		up.found = raw
		return clerksync.Result{Outcome: clerksync.Adopted, User: up.store.record(raw).user()}, nil
	case errors.Is(err, mongo.ErrNoDocuments):
		return clerksync.Result{}, up.notAdopted(ctx, a)
	default:
		return up.settleAdoption(ctx, c, err)
	}
}

// notAdopted says why no record matched an adoption: the record is not trusted, or it has
// changed since it was read.
func (up *upsert) notAdopted(ctx context.Context, a adoption) error {
	if !a.trusting {
		return errLostRace
	}
	err := up.store.coll.FindOne(ctx, append(slices.Clip(a.asRead), up.store.adopt.isUntrusted())).Err()
	switch {
	case errors.Is(err, mongo.ErrNoDocuments):
		return errLostRace
	case err != nil:
		return err
	default:
		return notLinked(untrustedRecord)
	}
}

// settleAdoption deals with an adoption that the server refused: another call has made or
// adopted a record of this user, or an index of the app's or a rule is in the way.
func (up *upsert) settleAdoption(ctx context.Context, c choice, refusal error) (clerksync.Result, error) {
	refusal = up.checkSize(refusal)
	if !refusedRecord(refusal) && !isUniqueViolation(refusal) {
		return clerksync.Result{}, refusal
	}
	r, err := up.store.read(ctx, up.u.ClerkID)
	switch {
	case err != nil:
		return clerksync.Result{}, err
	case r != nil:
		return up.settle(ctx, r)
	case !isUniqueViolation(refusal):
		return clerksync.Result{}, refusal // rejected
	default:
		return clerksync.Result{}, up.conflict(ctx, c.adopt, refusal)
	}
}
