package mongostore

import (
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
)

// record is a document as it was read from the database.
type record struct {
	raw     bson.Raw
	decoded *clerksync.User
}

// user returns the document decoded.
func (r *record) user() *clerksync.User {
	if r.decoded == nil {
		r.decoded = decode(r.raw)
	}
	return r.decoded
}

// clerkID returns the clerkId, empty if it is not a string.
func (r *record) clerkID() string { return textOf(r.raw, "clerkId") }

// is reports whether the record has this _id.
func (r *record) is(id bson.ObjectID) bool { return idOf(r.raw.Lookup("_id")) == id.Hex() }

// decide is [clerksync.Decide] for a record that may be nil. It decodes the whole record
// only at equal versions and with Omit, because most users of a batch are newer.
func (r *record) decide(u *clerksync.User, now time.Time) clerksync.Outcome {
	if r == nil {
		return clerksync.Decide(nil, u, now)
	}
	brief := &clerksync.User{ClerkUpdatedAt: dateOf(r.raw, "clerkUpdatedAt"), DeletedAt: deletedAt(r.raw)}
	if brief.ClerkUpdatedAt.Equal(u.ClerkUpdatedAt) || len(u.Omit) > 0 {
		return clerksync.Decide(r.user(), u, now)
	}
	return clerksync.Decide(brief, u, now)
}

// asRead returns the filter of a compare-and-set: it matches the record until another
// writer changes a field that the decision depends on. updatedAt tells of a write of the
// same version and the same evidence. It compares the stored values, because several of
// them may decode to the same one. paths are those that the write is
// about: if the record is not confirmed, what the app has there is part of the decision.
func (r *record) asRead(paths []string) bson.D {
	filter := bson.D{{Key: "clerkId", Value: r.clerkID()}}
	if filter[0].Value == "" { // an array that holds the id
		filter[0] = r.equal("clerkId")
	}
	state := []string{"clerkUpdatedAt", "syncedAt", "updatedAt", "extraFields", "deletedAt"}
	if r.unconfirmed() {
		paths = slices.DeleteFunc(paths, func(path string) bool { return slices.Contains(state, path) })
		return append(filter, r.unchanged(append(state, paths...))...)
	}
	for _, field := range state {
		filter = append(filter, r.equal(field))
	}
	return filter
}

// equal matches documents whose field has the same value as r's, or is absent if r's is.
// Without the operator, a filter would take some values for conditions.
func (r *record) equal(field string) bson.E {
	var value any // null also matches an absent field
	if v, err := r.raw.LookupErr(field); err == nil {
		value = v
	}
	return bson.E{Key: field, Value: bson.D{{Key: "$eq", Value: value}}}
}

// flatProfile reports whether the record has a profile that is not a document. No update
// can write into it.
func (r *record) flatProfile() bool {
	v, err := r.raw.LookupErr("profile")
	return err == nil && v.Type != bson.TypeEmbeddedDocument
}

// lost returns the names of the record's Extra that u neither has nor omits.
func (r *record) lost(u *clerksync.User) []string {
	return slices.DeleteFunc(extraFields(r.raw), func(name string) bool {
		_, kept := u.Extra[name]
		return kept || slices.Contains(u.Omit, name) || slices.Contains(u.Omit, "extraFields")
	})
}

// confirmed returns the record as it is after a u with the same content has moved the two
// times forward, and whether there is anything to move.
func (r *record) confirmed(u *clerksync.User) (after *clerksync.User, moved bool) {
	after = r.user()
	synced := u.SyncedAt
	if staysUnconfirmed(r, u) {
		synced = time.Time{}
	}
	if synced.After(after.SyncedAt) || u.LastSignInAt.After(after.LastSignInAt) {
		after = after.Clone()
		after.SyncedAt = latest(after.SyncedAt, synced)
		after.LastSignInAt = latest(after.LastSignInAt, u.LastSignInAt)
	}
	return after, after != r.user()
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// decode reads a document that others may have written: a field of a wrong type counts
// as absent.
func decode(raw bson.Raw) *clerksync.User {
	text := func(path ...string) string { return textOf(raw, path...) }
	date := func(field string) time.Time { return dateOf(raw, field) }
	truth := func(field string, absent bool) bool { return truthOf(raw, field, absent) }

	u := &clerksync.User{
		ID:      idOf(raw.Lookup("_id")),
		ClerkID: text("clerkId"),
		Email:   text("email"),
		Name:    text("name"),
		Role:    clerksync.Role(text("role")),
		Profile: clerksync.Profile{
			FirstName:   text("profile", "firstName"),
			LastName:    text("profile", "lastName"),
			FullName:    text("profile", "fullName"),
			ImageURL:    text("profile", "imageUrl"),
			PhoneNumber: text("profile", "phoneNumber"),
			Birthday:    text("profile", "birthday"),
			Gender:      text("profile", "gender"),
		},
		LastSignInAt:   date("lastSignInAt"),
		CreatedAt:      date("createdAt"),
		UpdatedAt:      date("updatedAt"),
		EmailVerified:  truth("emailVerified", false),
		PhoneVerified:  truth("phoneVerified", false),
		IsActive:       truth("isActive", true),
		Banned:         truth("banned", false),
		ClerkCreatedAt: date("clerkCreatedAt"),
		ClerkUpdatedAt: date("clerkUpdatedAt"),
		SyncedAt:       date("syncedAt"),
		DeletedAt:      deletedAt(raw),
	}
	location := clerksync.Location{
		Country:  text("location", "country"),
		City:     text("location", "city"),
		State:    text("location", "state"),
		Timezone: text("location", "timezone"),
	}
	if location != (clerksync.Location{}) {
		u.Location = &location
	}
	for _, name := range extraFields(raw) {
		if v := valueOf(raw.Lookup(name)); v != nil {
			if u.Extra == nil {
				u.Extra = make(map[string]any)
			}
			u.Extra[name] = v
		}
	}
	return u
}

// deletedAt returns the time of the deletion, zero before 1970: the filters take only later
// dates for tombstones.
func deletedAt(raw bson.Raw) time.Time {
	at := dateOf(raw, "deletedAt")
	if at.Before(epoch) {
		return time.Time{}
	}
	return at
}

// extraFields returns the names that clerksync wrote from an Extra. It leaves out names
// that clerksync cannot have written, so that no record makes it remove an _id.
func extraFields(raw bson.Raw) []string {
	list, _ := raw.Lookup("extraFields").ArrayOK()
	values, _ := list.Values()
	var names []string
	for _, v := range values {
		if name, ok := v.StringValueOK(); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if !canBeExtra(names...) {
		names = slices.DeleteFunc(names, func(name string) bool { return !canBeExtra(name) })
	}
	return names
}

func canBeExtra(names ...string) bool {
	probe := clerksync.User{ClerkID: "-", Extra: make(map[string]any, len(names))}
	for _, name := range names {
		probe.Extra[name] = true
	}
	_, err := probe.Canonical()
	return err == nil
}

// idOf returns an ObjectID in hex, a string as it is, and any other type as Extended JSON.
func idOf(v bson.RawValue) string {
	if id, ok := v.ObjectIDOK(); ok {
		return id.Hex()
	}
	if s, ok := v.StringValueOK(); ok {
		return s
	}
	return v.String()
}

func textOf(raw bson.Raw, path ...string) string {
	s, _ := raw.Lookup(path...).StringValueOK()
	return s
}

func truthOf(raw bson.Raw, field string, absent bool) bool {
	if b, ok := raw.Lookup(field).BooleanOK(); ok {
		return b
	}
	return absent
}

func dateOf(raw bson.Raw, field string) time.Time { return timeOf(raw.Lookup(field)) }

func timeOf(v bson.RawValue) time.Time {
	if ms, ok := v.DateTimeOK(); ok {
		return time.UnixMilli(ms).UTC()
	}
	return time.Time{}
}

// stamp returns what Reconcile needs of the record. It decodes nothing else, because
// Undeleted reads millions.
func (r *record) stamp() clerksync.Stamp {
	return clerksync.Stamp{
		ClerkID:        r.clerkID(),
		ClerkUpdatedAt: dateOf(r.raw, "clerkUpdatedAt"), SyncedAt: dateOf(r.raw, "syncedAt"),
		CreatedAt: dateOf(r.raw, "createdAt"), DeletedAt: deletedAt(r.raw),
		IsActive: truthOf(r.raw, "isActive", true), AdoptedAt: dateOf(r.raw, "adoptedAt"),
	}
}

// stampFields is the projection that stamp needs.
var stampFields = bson.D{
	{Key: "clerkId", Value: 1}, {Key: "clerkUpdatedAt", Value: 1}, {Key: "syncedAt", Value: 1},
	{Key: "createdAt", Value: 1}, {Key: "deletedAt", Value: 1}, {Key: "isActive", Value: 1},
	{Key: "adoptedAt", Value: 1},
}
