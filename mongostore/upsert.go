package mongostore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
)

// Upsert implements [clerksync.Store].
//
// A new user, or a newer version of one, takes one round trip: an upsert whose
// filter leaves out a record that is deleted or as new as u, so that the unique
// index refuses to have a second one. What the refusal means is then decided on
// what is stored, by [clerksync.Decide], and written on condition that nobody
// else wrote meanwhile.
//
// Where a unique index of the app's own stands in the way and deleted records
// hold the value, as after an account was made anew with the same e-mail
// address, they give it up: the field is removed from them, by the one write whose
// filter has no clerkId. Otherwise the error is a [*clerksync.ConflictError].
//
// The Result's User is nil for Updated, which reads nothing.
func (s *Store) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	ctx, err := enter(ctx, "upsert")
	if err != nil {
		return clerksync.Result{}, err
	}
	up, err := s.newUpsert(u)
	if err != nil {
		return clerksync.Result{}, err
	}
	return up.run(ctx)
}

// upsert is one call of Upsert, over all its attempts.
type upsert struct {
	*Store
	u    *clerksync.User // canonical, and nobody else's
	time time.Time       // of the call
	// id is the _id of the record if this call creates it. It is the same in
	// each attempt, so that one whose answer was lost is recognized.
	id       bson.ObjectID
	attempts int
	refusals int // duplicate keys that no record read afterwards explains
}

func (s *Store) newUpsert(u *clerksync.User) (*upsert, error) {
	u, err := u.Canonical()
	if err != nil {
		return nil, fmt.Errorf("mongostore: upsert: %w", err)
	}
	return &upsert{Store: s, u: u, time: s.millis(), id: bson.NewObjectID()}, nil
}

func (up *upsert) run(ctx context.Context) (clerksync.Result, error) {
	var res clerksync.Result
	err := up.retry(ctx, "upsert", func() (err error) {
		res, err = up.try(ctx)
		return err
	})
	if err != nil {
		return clerksync.Result{}, err
	}
	return res, nil
}

// try is one attempt; errLostRace asks for another. Only the first one writes before
// it reads: many upserts of one key at once are what some servers deadlock on.
func (up *upsert) try(ctx context.Context) (clerksync.Result, error) {
	var duplicate error
	if up.attempts++; up.attempts == 1 && !up.u.ClerkUpdatedAt.IsZero() {
		outcome, err := up.write(ctx, up.guard(), up.guardedUpdate(), true)
		if !mongo.IsDuplicateKeyError(err) {
			return up.written(outcome), up.obstacle(ctx, err)
		}
		duplicate = err
		if r, err := up.confirm(ctx); err != nil {
			return clerksync.Result{}, err
		} else if r != nil {
			return up.unchanged(r), nil
		}
	}
	r, err := up.read(ctx, up.u.ClerkID)
	if err == nil && r == nil && duplicate == nil {
		_, err = up.coll.InsertOne(ctx, up.document())
		if !mongo.IsDuplicateKeyError(err) {
			return up.written(clerksync.Created), err
		}
		duplicate = err
		r, err = up.read(ctx, up.u.ClerkID)
	}
	if err != nil {
		return clerksync.Result{}, err
	}
	if r == nil {
		return clerksync.Result{}, up.conflict(ctx, duplicate)
	}
	return up.settle(ctx, r)
}

// settle decides on a record as it was read, and writes if it is still so.
func (up *upsert) settle(ctx context.Context, r *record) (clerksync.Result, error) {
	outcome := r.decide(up.u, up.time)
	update := up.moves()
	switch outcome {
	case clerksync.Updated:
		update = up.update(r.lost(up.u))
	case clerksync.Unchanged:
		if _, moved := r.confirmed(up.u); !moved {
			return up.unchanged(r), nil
		}
	default:
		return clerksync.Result{Outcome: up.outcome(r, outcome), User: r.user()}, nil
	}
	if _, err := up.write(ctx, r.asRead(), update, false); err != nil {
		return clerksync.Result{}, up.obstacle(ctx, err)
	}
	if outcome == clerksync.Unchanged {
		return up.unchanged(r), nil
	}
	return clerksync.Result{Outcome: up.outcome(r, outcome)}, nil
}

// write is one round trip. It fails with errLostRace if no record matches and
// none is inserted.
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

// written is the Result of a write that applied u without reading.
func (up *upsert) written(outcome clerksync.Outcome) clerksync.Result {
	res := clerksync.Result{Outcome: outcome}
	if outcome == clerksync.Created {
		u := *up.u
		u.ID, u.CreatedAt, u.UpdatedAt = up.id.Hex(), up.time, up.time
		u.IsActive, u.DeletedAt, u.RoleFromClerk, u.Partial = true, time.Time{}, false, false
		res.User = &u
	}
	return res
}

// outcome is decided unless this call itself inserted r, by a write whose answer was
// lost: somebody has to have created a record, whatever others did to it since.
func (up *upsert) outcome(r *record, decided clerksync.Outcome) clerksync.Outcome {
	if r.is(up.id) && decided != clerksync.Deactivated {
		return clerksync.Created
	}
	return decided
}

// unchanged is the Result for a record that was read as equal to u.
func (up *upsert) unchanged(r *record) clerksync.Result {
	after, _ := r.confirmed(up.u)
	return clerksync.Result{Outcome: up.outcome(r, clerksync.Unchanged), User: after}
}

var epoch = time.UnixMilli(0).UTC()

// undeleted matches records without a tombstone. Unlike null, the condition also
// matches one that is null or no date at all.
var undeleted = bson.E{Key: "deletedAt", Value: not("$gte", epoch)}

func not(operator string, value any) bson.D {
	return bson.D{{Key: "$not", Value: bson.D{{Key: operator, Value: value}}}}
}

// guard matches the record if u is newer, and has the same names in Extra, so
// that none is to be removed which only a read would tell.
func (up *upsert) guard() bson.D {
	return bson.D{
		{Key: "clerkId", Value: up.u.ClerkID},
		undeleted,
		{Key: "clerkUpdatedAt", Value: not("$gte", up.u.ClerkUpdatedAt)},
		up.sameExtraFields(),
	}
}

func (up *upsert) sameExtraFields() bson.E {
	if names := up.extraNames(); len(names) > 0 {
		return bson.E{Key: "extraFields", Value: names}
	}
	return bson.E{Key: "extraFields", Value: bson.D{{Key: "$in", Value: bson.A{nil, bson.A{}}}}}
}

func (up *upsert) extraNames() []string { return slices.Sorted(maps.Keys(up.u.Extra)) }

// update writes the fields that Clerk owns and removes those that Clerk does not
// have; lost are the names that an earlier Extra wrote.
func (up *upsert) update(lost []string) bson.D {
	set, unset := up.fields()
	for _, name := range lost {
		unset = append(unset, bson.E{Key: name, Value: ""})
	}
	update := bson.D{{Key: "$set", Value: set}}
	if len(unset) > 0 { // before MongoDB 5.0 an operator must not be empty
		update = append(update, bson.E{Key: "$unset", Value: unset})
	}
	return append(update, up.moves()...)
}

// guardedUpdate is update for an upsert that may insert.
func (up *upsert) guardedUpdate() bson.D {
	onInsert := append(bson.D{{Key: "_id", Value: up.id}}, up.firstFields()...)
	return append(up.update(nil), bson.E{Key: "$setOnInsert", Value: onInsert})
}

// document is the record that the guarded upsert would insert.
func (up *upsert) document() bson.D {
	set, _ := up.fields()
	set = append(append(set, up.firstFields()...), up.times()...)
	doc := set[:0] // in place: nested ones leave
	profile, location := make(bson.D, 0, 8), make(bson.D, 0, 4)
	for _, e := range set {
		if name, ok := strings.CutPrefix(e.Key, "profile."); ok {
			profile = append(profile, bson.E{Key: name, Value: e.Value})
		} else if name, ok := strings.CutPrefix(e.Key, "location."); ok {
			location = append(location, bson.E{Key: name, Value: e.Value})
		} else {
			doc = append(doc, e)
		}
	}
	if len(profile) > 0 {
		doc = append(doc, bson.E{Key: "profile", Value: profile})
	}
	if len(location) > 0 {
		doc = append(doc, bson.E{Key: "location", Value: location})
	}
	return slices.Insert(doc, 0, bson.E{Key: "_id", Value: up.id}, bson.E{Key: "clerkId", Value: up.u.ClerkID})
}

// fields are what every applied u writes and removes, by path.
func (up *upsert) fields() (set, unset bson.D) {
	set = make(bson.D, 0, 32) // a batch makes many
	set = append(set, bson.E{Key: "updatedAt", Value: up.time})
	for path, value := range up.u.ClerkFields() {
		if value != nil {
			set = append(set, bson.E{Key: path, Value: encode(value)})
		} else {
			unset = append(unset, bson.E{Key: path, Value: ""})
		}
	}
	if !up.u.ClerkUpdatedAt.IsZero() {
		set = append(set, bson.E{Key: "clerkUpdatedAt", Value: up.u.ClerkUpdatedAt})
	}
	if names := up.extraNames(); len(names) > 0 {
		set = append(set, bson.E{Key: "extraFields", Value: names})
	} else {
		unset = append(unset, bson.E{Key: "extraFields", Value: ""})
	}
	return set, unset
}

// firstFields are what a new record has besides: the app's from then on.
func (up *upsert) firstFields() bson.D {
	d := append(make(bson.D, 0, 8), bson.E{Key: "isActive", Value: true}, bson.E{Key: "createdAt", Value: up.time})
	text := func(path, value string) {
		if value != "" {
			d = append(d, bson.E{Key: path, Value: value})
		}
	}
	if !up.u.RoleFromClerk {
		text("role", string(up.u.Role))
	}
	if l := up.u.Location; l != nil {
		text("location.country", l.Country)
		text("location.city", l.City)
		text("location.state", l.State)
		text("location.timezone", l.Timezone)
	}
	return d
}

// times are the two that move forward and never back.
func (up *upsert) times() (times bson.D) {
	if !up.u.SyncedAt.IsZero() {
		times = append(times, bson.E{Key: "syncedAt", Value: up.u.SyncedAt})
	}
	if !up.u.LastSignInAt.IsZero() {
		times = append(times, bson.E{Key: "lastSignInAt", Value: up.u.LastSignInAt})
	}
	return times
}

// moves is the update for times, nil if there are none.
func (up *upsert) moves() bson.D {
	if times := up.times(); times != nil {
		return bson.D{{Key: "$max", Value: times}}
	}
	return nil
}

// encode gives maps one order, that equal values are equal to the server.
func encode(value any) any {
	switch v := value.(type) {
	case map[string]any:
		d := make(bson.D, 0, len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			d = append(d, bson.E{Key: name, Value: encode(v[name])})
		}
		return d
	case []any:
		a := make(bson.A, len(v))
		for i := range v {
			a[i] = encode(v[i])
		}
		return a
	default:
		return v
	}
}

// confirm carries the two times forward if the record is at u's version and its
// fields equal u's: an event that comes again. It returns the record as it was
// before, nil if it is not so. The times must not move ahead of the fields: a
// record that says it was confirmed disbelieves whatever is older.
func (up *upsert) confirm(ctx context.Context) (*record, error) {
	moves := up.moves()
	if moves == nil {
		return nil, nil
	}
	filter := bson.D{
		{Key: "clerkId", Value: up.u.ClerkID},
		undeleted,
		{Key: "clerkUpdatedAt", Value: up.u.ClerkUpdatedAt},
		up.sameExtraFields(),
	}
	for path, value := range up.u.ClerkFields() {
		filter = append(filter, bson.E{Key: path, Value: encode(value)})
	}
	raw, err := up.coll.FindOneAndUpdate(ctx, filter, moves,
		options.FindOneAndUpdate().SetReturnDocument(options.Before)).Raw()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &record{raw: raw}
	if r.decide(up.u, up.time) != clerksync.Unchanged {
		return nil, nil // equal by the server's rules only, as 1 and 1.0 are
	}
	return r, nil
}
