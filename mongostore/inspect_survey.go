package mongostore

import (
	"cmp"
	"context"
	"hash/maphash"
	"maps"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
)

// A survey is what a pass over the records has found. Its size is bounded, whatever the records
// hold, and of their values it keeps a few _ids only.
type survey struct {
	// at returns the path in the collection of one of clerksync's fields, empty if it is not
	// stored.
	at func(path string) string

	read, linked, unlinked int
	unsynced               int // records that clerksync has never written

	// Of records that clerksync has never written:
	ours     map[string]*tally // values of clerksync's type, by clerksync's name
	clashes  map[string]*clash // values of another type, by their path in the collection
	names    map[string]*usage // the paths in use; those of other records have no count
	inactive tally             // isActive is false

	// Of records without a Clerk id:
	idFields                  map[string]*idField // values that look like Clerk ids, by path
	emails                    repeats
	noEmail, oddEmail         tally
	deletedByApp, syncedByApp tally // a date in deletedAt or in syncedAt
	nullIDs, emptyIDs         tally // clerkId is null or ""

	// Of records with a Clerk id:
	clerkIDs repeats
	ownIDs   tally // clerkId is a text that does not look like one of Clerk's
}

// The bounds of a survey. A hash takes some 20 bytes.
const (
	maxTallyIDs = 10
	maxNames    = 1000
	maxDepth    = 4
	maxIDFields = 20
	maxHashes   = 1_000_000
	maxIDHashes = 100_000
)

func newSurvey(at func(string) string) *survey {
	return &survey{
		at:       at,
		ours:     make(map[string]*tally),
		clashes:  make(map[string]*clash),
		names:    make(map[string]*usage),
		idFields: make(map[string]*idField),
		emails:   newRepeats(maxHashes),
		clerkIDs: newRepeats(maxHashes),
	}
}

// tally counts records and keeps the _ids of the first.
type tally struct {
	n   int
	ids []string
}

func (s *tally) add(r bson.Raw) {
	s.n++
	if len(s.ids) < maxTallyIDs {
		s.ids = append(s.ids, shownID(r.Lookup("_id")))
	}
}

// shownID returns an _id for an operator. It does not show text that may be an address or a
// name.
func shownID(v bson.RawValue) string {
	switch v.Type {
	case bson.TypeObjectID, bson.TypeInt32, bson.TypeInt64, bson.TypeBinary:
		return idOf(v)
	case bson.TypeString:
		if id := idOf(v); strings.ContainsAny(id, "0123456789") && isIdentifier(id) {
			return id
		}
	}
	return "one that is of type " + typeName(v.Type)
}

// isIdentifier reports whether text can be the name of a field in a program, or an id: then it is
// no address.
func isIdentifier(text string) bool {
	return text != "" && len(text) <= 64 && !strings.ContainsFunc(text, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-')
	})
}

// clash is a value of another type at a path that clerksync writes.
type clash struct {
	tally
	types  map[string]int // records by type
	fields []string       // clerksync's names that need the place
}

// usage says what a path holds in records that clerksync has never written.
type usage struct {
	n     int // neither absent nor null
	types map[bson.Type]int
}

// idField is a field with values that look like Clerk ids.
type idField struct {
	tally
	values repeats
}

// repeats counts records that share a value with another. It keeps the values' hashes.
type repeats struct {
	most   int
	seen   map[uint64]bool // whether the value came again
	shared tally           // the ids are of those that came later
	cut    bool            // there were more values than most
}

var hashSeed = maphash.MakeSeed()

func newRepeats(most int) repeats { return repeats{most: most, seen: make(map[uint64]bool)} }

func (d *repeats) add(value string, r bson.Raw) {
	hash := maphash.String(hashSeed, value)
	again, known := d.seen[hash]
	switch {
	case !known && len(d.seen) >= d.most:
		d.cut = true
	case !known:
		d.seen[hash] = false
	default:
		d.shared.add(r)
		if !again { // so the first one counts too
			d.shared.n++
			d.seen[hash] = true
		}
	}
}

// place is what a record holds where clerksync keeps a field.
type place int

const (
	placeFree  place = iota // nothing, or null
	placeFits               // a value of clerksync's type
	placeTaken              // another value, there or on the way there
)

// holds returns what a record holds at a path, and the value and its path if there is one.
func holds(raw bson.Raw, path string, want bson.Type) (place, string, bson.RawValue) {
	for end := 0; ; end++ {
		next := strings.IndexByte(path[end:], '.')
		if next < 0 {
			break
		}
		end += next
		v := raw.Lookup(strings.Split(path[:end], ".")...)
		switch {
		case v.IsZero() || v.Type == bson.TypeNull:
			return placeFree, "", v
		case v.Type != bson.TypeEmbeddedDocument:
			return placeTaken, path[:end], v
		}
	}
	v := raw.Lookup(strings.Split(path, ".")...)
	switch {
	case v.IsZero() || v.Type == bson.TypeNull:
		return placeFree, "", v
	case !fits(v, want):
		return placeTaken, path, v
	}
	return placeFits, path, v
}

// writtenFields are clerksync's fields that a sync writes to a record that exists, or goes by,
// except clerkId.
var writtenFields = slices.Concat(fieldPaths(&clerksync.User{}), bookkeeping, []string{"adoptedAt", "adoptedBy", insertToken})

// storedType returns the type of one of clerksync's fields, also of one that no sync writes.
func storedType(field string) bson.Type {
	if field == "createdAt" {
		return bson.TypeDateTime
	}
	return typeAt(field)
}

// readFields are those that are the app's from the first sync on.
var readFields = []string{
	"role", "createdAt", "location.country", "location.city", "location.state", "location.timezone",
}

// add surveys a record.
func (s *survey) add(r bson.Raw) {
	s.read++
	unsynced := s.neverSynced(r)
	switch v := s.value(r, "clerkId"); {
	case isNoID(v):
		s.addUnlinked(r, v)
	case v.Type == bson.TypeString:
		s.linked++
		id := v.StringValue()
		s.clerkIDs.add(id, r)
		if !strings.HasPrefix(id, "user_") {
			s.ownIDs.add(r)
		}
	default:
		s.clash(r, "clerkId", s.at("clerkId"), v)
	}
	s.walk(r, r, "", 1, unsynced)
	if !unsynced {
		return
	}
	s.unsynced++
	for _, field := range slices.Concat(writtenFields, readFields) {
		s.addOurs(r, field)
	}
	if active, ok := s.value(r, "isActive").BooleanOK(); ok && !active {
		s.inactive.add(r)
	}
}

// value returns the value of one of clerksync's fields, zero if there is none.
func (s *survey) value(r bson.Raw, field string) bson.RawValue {
	path := s.at(field)
	if path == "" {
		return bson.RawValue{}
	}
	return r.Lookup(strings.Split(path, ".")...)
}

// neverSynced reports whether clerksync has never written the record. One without a Clerk id
// is the app's, whatever dates it has.
func (s *survey) neverSynced(r bson.Raw) bool {
	if isNoID(s.value(r, "clerkId")) {
		return true
	}
	_, synced := s.value(r, "syncedAt").DateTimeOK()
	return !synced && timeOf(s.value(r, "deletedAt")).Before(epoch)
}

// addUnlinked surveys a record without a Clerk id, whose clerkId is id.
func (s *survey) addUnlinked(r bson.Raw, id bson.RawValue) {
	s.unlinked++
	if id.Type == bson.TypeNull || id.Type == bson.TypeUndefined {
		s.nullIDs.add(r)
	} else if id.Type == bson.TypeString {
		s.emptyIDs.add(r)
	}
	if _, ok := s.value(r, "syncedAt").DateTimeOK(); ok {
		s.syncedByApp.add(r)
	}
	if !timeOf(s.value(r, "deletedAt")).Before(epoch) {
		s.deletedByApp.add(r)
		return // no user adopts it
	}
	email, _ := s.value(r, "email").StringValueOK()
	if email == "" {
		s.noEmail.add(r)
		return
	}
	normal := strings.ToLower(strings.TrimSpace(email))
	if normal != email {
		s.oddEmail.add(r)
	}
	s.emails.add(normal, r)
}

// addOurs surveys what a record holds in the place of one of clerksync's fields.
func (s *survey) addOurs(r bson.Raw, field string) {
	path := s.at(field)
	if path == "" {
		return
	}
	switch place, at, v := holds(r, path, storedType(field)); place {
	case placeFits:
		seen := s.ours[field]
		if seen == nil {
			seen = &tally{}
			s.ours[field] = seen
		}
		seen.add(r)
	case placeTaken:
		s.clash(r, field, at, v)
	}
}

// clash notes that v, at a path, is in the way of one of clerksync's fields.
func (s *survey) clash(r bson.Raw, field, path string, v bson.RawValue) {
	c := s.clashes[path]
	if c == nil {
		c = &clash{types: make(map[string]int)}
		s.clashes[path] = c
	}
	if !slices.Contains(c.fields, field) {
		c.fields = append(c.fields, field)
	}
	if field == c.fields[0] { // a record counts once
		c.add(r)
		c.types[typeName(v.Type)]++
	}
}

// walk notes the paths of a record and where it has values that look like Clerk ids. It does
// not look into arrays: no field of clerksync's can be there.
func (s *survey) walk(r, in bson.Raw, prefix string, depth int, unsynced bool) {
	elements, err := in.Elements()
	if err != nil {
		return
	}
	for _, e := range elements {
		name, v := e.Key(), e.Value()
		if v.Type == bson.TypeNull || !isIdentifier(name) {
			continue
		}
		path := prefix + name
		s.use(path, v.Type, unsynced)
		if v.Type == bson.TypeEmbeddedDocument && depth < maxDepth {
			s.walk(r, v.Document(), path+".", depth+1, unsynced)
		}
		if looksLikeClerkID(v) && path != s.at("clerkId") && isNoID(s.value(r, "clerkId")) {
			s.addIDField(r, path, v.StringValue())
		}
	}
}

func (s *survey) use(path string, t bson.Type, unsynced bool) {
	u := s.names[path]
	if u == nil {
		if len(s.names) >= maxNames {
			return
		}
		u = &usage{types: make(map[bson.Type]int)}
		s.names[path] = u
	}
	if unsynced {
		u.n++
		u.types[t]++
	}
}

func (s *survey) addIDField(r bson.Raw, path, id string) {
	f := s.idFields[path]
	if f == nil {
		if len(s.idFields) >= maxIDFields {
			return
		}
		f = &idField{values: newRepeats(maxIDHashes)}
		s.idFields[path] = f
	}
	f.add(r)
	f.values.add(id, r)
}

// looksLikeClerkID reports whether a value has the form of the ids that Clerk gives to users:
// "user_" and at least 20 letters and digits.
func looksLikeClerkID(v bson.RawValue) bool {
	id, _ := v.StringValueOK()
	rest, ok := strings.CutPrefix(id, "user_")
	return ok && len(rest) >= 20 && isIdentifier(rest) && !strings.ContainsAny(rest, "_-")
}

// mostFirst returns the keys of found, those with the most records first.
func mostFirst[T any](found map[string]T, count func(T) int) []string {
	return slices.SortedFunc(maps.Keys(found), func(a, b string) int {
		if d := count(found[b]) - count(found[a]); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
}

// userSurvey counts what would become of Clerk's users, without writing.
type userSurvey struct {
	store               *Store
	byExternal, byEmail func(context.Context, []*clerksync.User) ([]clerksync.Adoption, error)
	counts              AdoptionCounts
	extra               map[string]bool // the names that Map sets, at most maxNames
	roleFromClerk       bool
}

// newUserSurvey returns a survey of the ways of adoption that these Options allow.
func (i *inspector) newUserSurvey() (*userSurvey, error) {
	u := &userSurvey{store: i.store, extra: make(map[string]bool)}
	if i.store.codec.idIsClerkID() {
		return u, nil // no record can get a Clerk id
	}
	has := Adopt{}
	if i.opts.Adopt != nil {
		has = *i.opts.Adopt
	}
	way := func(a *Adopt) (*Store, error) {
		opts := *i.opts
		opts.Adopt = a
		return newStore(i.store.coll.raw, &opts)
	}
	field := cmp.Or(has.ByExternalID, "_id")
	external, err := way(&Adopt{ByExternalID: field})
	if err != nil {
		return nil, err
	}
	u.byExternal = external.Adoptions
	u.counts.ByExternalID = AdoptionWay{On: has.ByExternalID != "", Field: field}
	if i.store.codec.drops("email") {
		return u, nil
	}
	email, err := way(&Adopt{ByEmail: true, Trusted: append(bson.D{}, has.Trusted...)})
	if err != nil {
		return nil, err
	}
	u.byEmail = email.Adoptions
	u.counts.ByEmail = AdoptionWay{On: has.ByEmail, Field: i.store.codec.path("email")}
	return u, nil
}

// visit counts some users.
func (u *userSurvey) visit(ctx context.Context, us []*clerksync.User) error {
	ids := make([]string, len(us))
	for i, user := range us {
		ids[i] = user.ClerkID
		u.roleFromClerk = u.roleFromClerk || user.RoleFromClerk
		for name := range user.Extra {
			if len(u.extra) < maxNames {
				u.extra[name] = true
			}
		}
	}
	known, err := u.store.Stamps(ctx, ids)
	if err != nil {
		return err
	}
	u.counts.Users += len(us)
	u.counts.Linked += len(known)
	unknown := us[:0:0]
	for _, user := range us {
		if _, ok := known[user.ClerkID]; !ok {
			unknown = append(unknown, user)
		}
	}
	return u.count(ctx, unknown)
}

// count counts users who have no record.
func (u *userSurvey) count(ctx context.Context, us []*clerksync.User) error {
	external, err := askWay(ctx, u.byExternal, us)
	if err != nil {
		return err
	}
	email, err := askWay(ctx, u.byEmail, us)
	if err != nil {
		return err
	}
	for i, user := range us {
		ext, mail := external[i], email[i]
		u.counts.ByExternalID.add(user.ExternalID, ext)
		u.counts.ByEmail.add(user.Email, mail)
		if ext.By == "" && ext.Err == nil {
			ext = mail // e-mail is tried if the external id names no record
		}
		switch {
		case ext.Err != nil:
		case ext.By != "":
			u.counts.Either++
		default:
			u.counts.New++
		}
	}
	return nil
}

// add counts a user who has value, and what the way would do to the user.
func (w *AdoptionWay) add(value string, a clerksync.Adoption) {
	if value != "" {
		w.Has++
	}
	switch {
	case a.Err != nil:
		w.Refuses++
	case a.By != "":
		w.Adopts++
	}
}

// askWay returns a zero Adoption for each user if the way does not exist.
func askWay(
	ctx context.Context, way func(context.Context, []*clerksync.User) ([]clerksync.Adoption, error), us []*clerksync.User,
) ([]clerksync.Adoption, error) {
	if way == nil || len(us) == 0 {
		return make([]clerksync.Adoption, len(us)), nil
	}
	return way(ctx, us)
}
