package mongostore

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
)

var epoch = time.UnixMilli(0).UTC()

// undeleted matches records without a tombstone. Unlike a comparison with null, it also
// matches a deletedAt that is null or not a date.
var undeleted = bson.E{Key: "deletedAt", Value: not("$gte", epoch)}

func not(operator string, value any) bson.D {
	return bson.D{{Key: "$not", Value: bson.D{{Key: operator, Value: value}}}}
}

// guardable reports whether guard can decide. With Omit, a write depends on the record's
// version and on its names in Extra.
func (up *upsert) guardable() bool {
	return !up.u.ClerkUpdatedAt.IsZero() && len(up.u.Omit) == 0
}

// guard matches the record if clerksync has written it, u is newer, and has the same names
// in Extra. With other names, a write would have to remove fields that only a read can name.
func (up *upsert) guard() bson.D {
	return append(bson.D{
		{Key: "clerkId", Value: up.u.ClerkID},
		undeleted,
		{Key: "clerkUpdatedAt", Value: not("$gte", up.u.ClerkUpdatedAt)},
		up.sameExtraFields(),
	}, confirmed...)
}

func (up *upsert) sameExtraFields() bson.E {
	if names := up.extraNames(); len(names) > 0 {
		return bson.E{Key: "extraFields", Value: names}
	}
	return bson.E{Key: "extraFields", Value: bson.D{{Key: "$in", Value: bson.A{nil, bson.A{}}}}}
}

// equalFilter matches the record if clerksync has written it, and version, fields and Extra
// equal u's. exact is false if a filter cannot tell: it takes 1 and 1.0 for equal, and an
// array for its elements, at any depth.
func (up *upsert) equalFilter() (filter bson.D, exact bool) {
	filter = bson.D{
		{Key: "clerkId", Value: up.u.ClerkID},
		undeleted,
		exactly("clerkUpdatedAt", up.u.ClerkUpdatedAt, "date"),
	}
	for _, parent := range up.codec.parentPaths() { // a path leads into the elements of an array
		filter = append(filter, bson.E{Key: up.codec.verbatim(parent), Value: bson.D{notArray}})
	}
	filter = append(filter, confirmed...)
	for path, value := range up.u.ClerkFields() {
		switch value.(type) {
		case nil:
			filter = append(filter, bson.E{Key: path, Value: bson.D{{Key: "$exists", Value: false}}})
		case string:
			filter = append(filter, exactly(path, value, "string"))
		case bool:
			filter = append(filter, exactly(path, value, "bool"))
		case time.Time:
			filter = append(filter, exactly(path, value, "date"))
		case int64:
			filter = append(filter, exactly(path, value, "long"))
		case float64:
			filter = append(filter, exactly(path, value, "double"))
		default:
			return nil, false
		}
	}
	return append(filter, up.exactExtraFields()...), true
}

// exactly matches documents in which the field has this value and type.
func exactly(field string, value any, typ string) bson.E {
	return bson.E{Key: field, Value: bson.D{{Key: "$eq", Value: value}, {Key: "$type", Value: typ}, notArray}}
}

// exactExtraFields is sameExtraFields without the arrays that have such a list as an element.
func (up *upsert) exactExtraFields() bson.D {
	names := up.extraNames()
	if len(names) == 0 {
		return bson.D{{Key: "extraFields", Value: bson.D{{Key: "$exists", Value: false}}}}
	}
	filter := bson.D{{Key: "extraFields", Value: bson.D{{Key: "$eq", Value: names}, {Key: "$size", Value: len(names)}}}}
	for i := range names {
		filter = append(filter, bson.E{Key: "extraFields." + strconv.Itoa(i), Value: bson.D{notArray}})
	}
	return filter
}

func (up *upsert) extraNames() []string {
	if len(up.u.Extra) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(up.u.Extra))
}

// update writes the fields that Clerk owns to r, and removes those that Clerk does not have
// and those that an earlier Extra wrote. r is nil for a record that guard matches.
func (up *upsert) update(r *record) bson.D {
	set, unset := up.fields(r)
	return append(up.change(r, set, unset), up.moveTimes(r)...)
}

// change returns the update that sets and removes these fields of r, and removes those that an
// earlier Extra wrote.
func (up *upsert) change(r *record, set, unset bson.D) bson.D {
	if r != nil {
		for _, name := range r.lost(up.u) {
			unset = append(unset, bson.E{Key: name, Value: ""})
		}
	}
	update := bson.D{{Key: "$set", Value: set}}
	if len(unset) > 0 { // before MongoDB 5.0 an operator must not be empty
		update = append(update, bson.E{Key: "$unset", Value: unset})
	}
	return update
}

// guardedUpdate is update for an upsert that may insert.
func (up *upsert) guardedUpdate() bson.D {
	// The filter has the clerkId.
	onInsert := append(bson.D{{Key: "_id", Value: up.id}}, up.firstFields()...)
	if up.codec.idIsClerkID() {
		onInsert[0].Key = insertToken
	}
	return append(up.update(nil), bson.E{Key: "$setOnInsert", Value: onInsert})
}

// document returns the record that the guarded upsert would insert, as it is stored.
func (up *upsert) document() bson.D {
	set, _ := up.fields(nil)
	set = append(append(set, up.firstFields()...), up.times(nil)...)
	identity := up.identity()
	return up.codec.document(slices.Insert(set, 0, identity[:]...))
}

// fields returns what every applied u writes to r and removes, by path. r is nil for a new
// record, and for one that guard matches.
func (up *upsert) fields(r *record) (set, unset bson.D) {
	set = make(bson.D, 0, 32) // saves allocations in batches
	set = append(set, bson.E{Key: "updatedAt", Value: up.time})
	for path, value := range up.u.ClerkFields() {
		if value != nil {
			set = append(set, bson.E{Key: path, Value: encode(value)})
		} else {
			unset = append(unset, bson.E{Key: path, Value: ""})
		}
	}
	if version := up.version(r); !version.IsZero() {
		set = append(set, bson.E{Key: "clerkUpdatedAt", Value: version})
	}
	if up.omits("extraFields") {
		return set, unset
	}
	if names := up.namesIn(r); len(names) > 0 {
		set = append(set, bson.E{Key: "extraFields", Value: names})
	} else {
		unset = append(unset, bson.E{Key: "extraFields", Value: ""})
	}
	return set, unset
}

// version returns the version of r, which may be nil, after u is written. With Omit it is a
// millisecond older than u's, so that u without Omit is still newer.
func (up *upsert) version(r *record) time.Time {
	offered := up.u.ClerkUpdatedAt
	if len(up.u.Omit) == 0 || offered.IsZero() {
		return offered
	}
	older := offered.Add(-time.Millisecond)
	if r == nil {
		return older
	}
	return latest(r.date("clerkUpdatedAt"), older)
}

// namesIn returns the names in Extra of r after u is written: those of u, and those of r that
// u omits.
func (up *upsert) namesIn(r *record) []string {
	names := up.extraNames()
	if r == nil || len(up.u.Omit) == 0 {
		return names
	}
	for _, name := range r.extraFields() {
		if up.omits(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (up *upsert) omits(path string) bool { return slices.Contains(up.u.Omit, path) }

// firstFields returns the fields that only a new record gets. From then on they are the
// app's.
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
	if !up.u.CreateDue.IsZero() {
		d = append(d, bson.E{Key: jobPath(clerksync.JobCreate, "due"), Value: up.u.CreateDue})
	}
	if l := up.u.Location; l != nil {
		text("location.country", l.Country)
		text("location.city", l.City)
		text("location.state", l.State)
		text("location.timezone", l.Timezone)
	}
	return d
}

// times returns the two times that only move forward, as far as u has them. With Omit, a
// record that is not confirmed stays so.
func (up *upsert) times(r *record) (times bson.D) {
	if !up.u.SyncedAt.IsZero() && !staysUnconfirmed(r, up.u) {
		times = append(times, bson.E{Key: "syncedAt", Value: up.u.SyncedAt})
	}
	if !up.u.LastSignInAt.IsZero() {
		times = append(times, bson.E{Key: "lastSignInAt", Value: up.u.LastSignInAt})
	}
	return times
}

// moveTimes returns the update for times, nil if there are none.
func (up *upsert) moveTimes(r *record) bson.D {
	if times := up.times(r); times != nil {
		return bson.D{{Key: "$max", Value: times}}
	}
	return nil
}

// staysUnconfirmed reports whether u leaves r, which may be nil, without a syncedAt.
func staysUnconfirmed(r *record, u *clerksync.User) bool {
	return r != nil && len(u.Omit) > 0 && r.date("syncedAt").IsZero()
}
