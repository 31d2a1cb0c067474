package mongostore

import (
	"maps"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

var epoch = time.UnixMilli(0).UTC()

// undeleted matches records without a tombstone. Unlike a comparison with null, it also
// matches a deletedAt that is null or not a date.
var undeleted = bson.E{Key: "deletedAt", Value: not("$gte", epoch)}

func not(operator string, value any) bson.D {
	return bson.D{{Key: "$not", Value: bson.D{{Key: operator, Value: value}}}}
}

// guard matches the record if u is newer and has the same names in Extra. With other
// names, a write would have to remove fields that only a read can name.
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

// update writes the fields that Clerk owns, and removes those that Clerk does not have
// and those in lost: the names that an earlier Extra wrote.
func (up *upsert) update(lost []string) bson.D {
	set, unset := up.fields()
	for _, name := range lost {
		unset = append(unset, bson.E{Key: name, Value: ""})
	}
	update := bson.D{{Key: "$set", Value: set}}
	if len(unset) > 0 { // before MongoDB 5.0 an operator must not be empty
		update = append(update, bson.E{Key: "$unset", Value: unset})
	}
	return append(update, up.moveTimes()...)
}

// guardedUpdate is update for an upsert that may insert.
func (up *upsert) guardedUpdate() bson.D {
	onInsert := append(bson.D{{Key: "_id", Value: up.id}}, up.firstFields()...)
	return append(up.update(nil), bson.E{Key: "$setOnInsert", Value: onInsert})
}

// document returns the record that the guarded upsert would insert.
func (up *upsert) document() bson.D {
	set, _ := up.fields()
	set = append(append(set, up.firstFields()...), up.times()...)
	doc := set[:0] // in place: only nested fields leave it
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

// fields returns what every applied u writes and removes, by path.
func (up *upsert) fields() (set, unset bson.D) {
	set = make(bson.D, 0, 32) // saves allocations in batches
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
	if l := up.u.Location; l != nil {
		text("location.country", l.Country)
		text("location.city", l.City)
		text("location.state", l.State)
		text("location.timezone", l.Timezone)
	}
	return d
}

// times returns the two times that only move forward, as far as u has them.
func (up *upsert) times() (times bson.D) {
	if !up.u.SyncedAt.IsZero() {
		times = append(times, bson.E{Key: "syncedAt", Value: up.u.SyncedAt})
	}
	if !up.u.LastSignInAt.IsZero() {
		times = append(times, bson.E{Key: "lastSignInAt", Value: up.u.LastSignInAt})
	}
	return times
}

// moveTimes returns the update for times, nil if there are none.
func (up *upsert) moveTimes() bson.D {
	if times := up.times(); times != nil {
		return bson.D{{Key: "$max", Value: times}}
	}
	return nil
}

// encode gives the fields of maps one order, so that the server finds equal values equal.
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
