package mongostore

import (
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
)

// record is a document as it was read from the database. Its methods take names of the
// record's fields; only raw has the collection's.
type record struct {
	raw     bson.Raw
	codec   *fieldMap
	decoded *clerksync.User
}

// lookup returns the value of a field. The error says that the record does not have it.
func (r *record) lookup(name string) (bson.RawValue, error) {
	if r.codec != nil {
		return r.raw.LookupErr(r.codec.segmentsOf(name)...) // without a path, that is an error
	}
	if head, rest, nested := strings.Cut(name, "."); nested {
		return r.raw.LookupErr(head, rest)
	}
	return r.raw.LookupErr(name)
}

// value is lookup, with a zero value for an absent field.
func (r *record) value(name string) bson.RawValue {
	v, _ := r.lookup(name)
	return v
}

func (r *record) text(name string) string {
	s, _ := r.value(name).StringValueOK()
	return s
}

func (r *record) truth(name string, absent bool) bool {
	if b, ok := r.value(name).BooleanOK(); ok {
		return b
	}
	return absent
}

func (r *record) date(name string) time.Time { return timeOf(r.value(name)) }

// user returns the document decoded.
func (r *record) user() *clerksync.User {
	if r.decoded == nil {
		r.decoded = r.decode()
	}
	return r.decoded
}

// clerkID returns the clerkId, empty if it is not a string.
func (r *record) clerkID() string { return r.text("clerkId") }

// key returns the conditions for this record alone.
func (r *record) key() bson.D {
	key := bson.D{{Key: "_id", Value: r.raw.Lookup("_id")}}
	if r.codec.idIsClerkID() {
		return key
	}
	return append(key, bson.E{Key: "clerkId", Value: r.clerkID()})
}

// decide is [clerksync.Decide] for a record that may be nil. It decodes the whole record
// only at equal versions and with Omit, because most users of a batch are newer.
func (r *record) decide(u *clerksync.User, now time.Time) clerksync.Outcome {
	if r == nil {
		return clerksync.Decide(nil, u, now)
	}
	brief := &clerksync.User{ClerkUpdatedAt: r.date("clerkUpdatedAt"), DeletedAt: r.deletedAt()}
	if brief.ClerkUpdatedAt.Equal(u.ClerkUpdatedAt) || len(u.Omit) > 0 {
		return clerksync.Decide(r.user(), u, now)
	}
	return clerksync.Decide(brief, u, now)
}

// asRead returns the filter of a compare-and-set: it matches the record until another
// writer changes a field that the decision depends on. updatedAt tells of a write of the
// same version and the same evidence. It compares the stored values, because several of
// them may decode to the same one. paths are those that the write is about: if clerksync has
// never written the record, what the app has there is part of the decision.
func (r *record) asRead(paths []string) bson.D {
	filter := bson.D{{Key: "clerkId", Value: r.clerkID()}}
	if filter[0].Value == "" { // an array that holds the id, or that has it in a document
		filter[0] = r.equal("clerkId")
		if parent, v := r.barrier("clerkId"); parent != "" {
			filter[0] = equalTo(r.codec.verbatim(parent), v)
		}
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
func (r *record) equal(field string) bson.E { return equalTo(field, r.value(field)) }

// equalTo matches documents that have this value; a zero one stands for none. Without the
// operator, a filter would take some values for conditions.
func equalTo(key string, v bson.RawValue) bson.E {
	var value any // null also matches an absent field
	if !v.IsZero() {
		value = v
	}
	return bson.E{Key: key, Value: bson.D{{Key: "$eq", Value: value}}}
}

// barrier returns the first parent of a field, as a path of the collection, that is in the
// record and not a document. No update can write through it. The path is empty if there is
// none.
func (r *record) barrier(name string) (path string, v bson.RawValue) {
	path, v = r.noDocument(name)
	if v.IsZero() {
		path = ""
	}
	return path, v
}

// noDocument returns the first parent of a field that is not a document in the record, as a path of
// the collection, with its value: a zero one if it is absent. The path is empty if all are documents.
func (r *record) noDocument(name string) (path string, v bson.RawValue) {
	segments, in := r.codec.segmentsOf(name), r.raw
	for i := 1; i < len(segments); i++ {
		v := in.Lookup(segments[i-1])
		document, ok := v.DocumentOK()
		if !ok {
			return strings.Join(segments[:i], "."), v
		}
		in = document
	}
	return "", bson.RawValue{}
}

// lost returns the names of the record's Extra that u neither has nor omits.
func (r *record) lost(u *clerksync.User) []string {
	return slices.DeleteFunc(r.extraFields(), func(name string) bool {
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
func (r *record) decode() *clerksync.User {
	u := &clerksync.User{
		ID:      idOf(r.raw.Lookup("_id")),
		ClerkID: r.clerkID(),
		Email:   r.text("email"),
		Name:    r.text("name"),
		Role:    clerksync.Role(r.text("role")),
		Profile: clerksync.Profile{
			FirstName:   r.text("profile.firstName"),
			LastName:    r.text("profile.lastName"),
			FullName:    r.text("profile.fullName"),
			ImageURL:    r.text("profile.imageUrl"),
			PhoneNumber: r.text("profile.phoneNumber"),
			Birthday:    r.text("profile.birthday"),
			Gender:      r.text("profile.gender"),
		},
		LastSignInAt:   r.date("lastSignInAt"),
		CreatedAt:      r.date("createdAt"),
		UpdatedAt:      r.date("updatedAt"),
		EmailVerified:  r.truth("emailVerified", false),
		PhoneVerified:  r.truth("phoneVerified", false),
		IsActive:       r.truth("isActive", true),
		Banned:         r.truth("banned", false),
		ClerkCreatedAt: r.date("clerkCreatedAt"),
		ClerkUpdatedAt: r.date("clerkUpdatedAt"),
		SyncedAt:       r.date("syncedAt"),
		DeletedAt:      r.deletedAt(),
		Jobs:           r.jobs(),
	}
	location := clerksync.Location{
		Country:  r.text("location.country"),
		City:     r.text("location.city"),
		State:    r.text("location.state"),
		Timezone: r.text("location.timezone"),
	}
	if location != (clerksync.Location{}) {
		u.Location = &location
	}
	for _, name := range r.extraFields() {
		if v := valueOf(r.raw.Lookup(name)); v != nil {
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
func (r *record) deletedAt() time.Time {
	at := r.date("deletedAt")
	if at.Before(epoch) {
		return time.Time{}
	}
	return at
}

// extraFields returns the names that clerksync wrote from an Extra. It leaves out names
// that clerksync cannot have written, so that no record makes it remove an _id, and names
// that a field is mapped to: they were in Extra before.
func (r *record) extraFields() []string {
	list, _ := r.value("extraFields").ArrayOK()
	values, _ := list.Values()
	var names []string
	for _, v := range values {
		if name, ok := v.StringValueOK(); ok && !r.codec.taken(name) {
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
		ClerkUpdatedAt: r.date("clerkUpdatedAt"), SyncedAt: r.date("syncedAt"),
		CreatedAt: r.date("createdAt"), DeletedAt: r.deletedAt(),
		IsActive: r.truth("isActive", true), AdoptedAt: r.date("adoptedAt"),
	}
}

// stampFields is the projection that stamp needs.
var stampFields = bson.D{
	{Key: "clerkId", Value: 1}, {Key: "clerkUpdatedAt", Value: 1}, {Key: "syncedAt", Value: 1},
	{Key: "createdAt", Value: 1}, {Key: "deletedAt", Value: 1}, {Key: "isActive", Value: 1},
	{Key: "adoptedAt", Value: 1},
}
