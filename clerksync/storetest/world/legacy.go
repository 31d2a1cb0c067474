package world

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/storetest"
)

// Records from before Clerk
//
// A world whose Store adopts begins with such records, and its users have what leads to them:
// an external id, or an address that they have proven, prove later or never prove.

// legacy is a record that the app had before Clerk.
type legacy struct {
	id, externalID string
	email          string
	trusted        bool
	app            appOwned // what the user gets with the record
	created        int64    // 0 if the record does not say
	fields         map[string]any

	owner *user // who is linked to it, nil for nobody
}

// kept are the app's fields that no sync may change, with values that the world gives to them.
var kept = []string{"credits", "nickname"}

// A legacyCase says which records there are before a user signs up, and how the user does.
type legacyCase struct {
	name     string
	records  []legacy // email may be own, the address of the user to come
	strategy string   // how the user's address is verified
	named    bool     // the user has the external id
}

const own = "own"

var legacyCases = []legacyCase{
	{name: "external id", records: []legacy{{externalID: own}}, named: true},
	{name: "proven", records: []legacy{{email: own, trusted: true}}},
	{name: "by an administrator", records: []legacy{{email: own, trusted: true}}, strategy: "admin"},
	{name: "proof missing in events", records: []legacy{{email: own, trusted: true}}, strategy: "from_oauth_google"},
	{name: "no record"},
	{name: "untrusted", records: []legacy{{email: own}}},
	{name: "ambiguous", records: []legacy{{email: own, trusted: true}, {email: own, trusted: true}}},
	{name: "external id to come", records: []legacy{{externalID: own, email: own}}, strategy: "ticket"},
	{name: "external id and address", records: []legacy{{externalID: own, email: own}}, strategy: "saml", named: true},
	{name: "external id beside an address", records: []legacy{{externalID: own}, {email: own, trusted: true}}, named: true},
}

// legacyUsers is how many users have records from before Clerk.
const legacyUsers = 10

// plain, added to a kind of world, makes one in which nobody has a record from before Clerk. It may
// also change which functions the processes have; see hooksOf.
const plain = 96

// caseOf returns the case of the user who signs up as the nth, by the kind of world.
func (w *world) caseOf(n int) legacyCase {
	if w.legacyStore == nil || n > legacyUsers || w.kindOfWorld >= plain {
		return legacyCase{name: "no record"}
	}
	return legacyCases[(n-1+w.kindOfWorld)%len(legacyCases)]
}

func externalIDOf(n int) string { return fmt.Sprintf("a%d", n) }

// insertLegacy makes the records from before Clerk.
func (w *world) insertLegacy() {
	for n := 1; w.legacyStore != nil && w.kindOfWorld < plain && n <= legacyUsers; n++ {
		u := user{id: idOf(n)}
		first := u.freshEmail()
		for _, r := range w.caseOf(n).records {
			w.insertRecord(&r, n, first)
		}
		// The user may change to an address that another record has.
		w.insertRecord(&legacy{email: u.freshEmail(), trusted: true}, n, "")
	}
}

func (w *world) insertRecord(r *legacy, n int, email string) {
	if r.externalID == own {
		r.externalID = externalIDOf(n)
	}
	if r.email == own {
		r.email = email
	}
	if w.isTaken(r.email, nil) {
		return // two records must not have the address
	}
	i := len(w.legacy)
	r.app = appOwned{Role: "STUDENT"}
	r.fields = map[string]any{"credits": 100 + i, "nickname": fmt.Sprintf("nick %d", i)}
	if r.email != "" {
		r.fields["email"] = r.email
	}
	if i%2 == 0 {
		r.app.Role = "MENTOR"
		r.fields["role"] = "MENTOR"
	}
	if i%3 == 0 {
		created := epoch.Add(-time.Duration(i+1) * time.Hour)
		r.created = ms(created)
		r.fields["createdAt"] = created
	}
	if i%5 == 3 {
		r.app.Suspended = true
		r.fields["isActive"] = false
	}
	id, err := w.legacyStore.InsertLegacy(context.Background(), r.externalID, r.trusted, r.fields)
	w.must(err)
	r.id = id
	if r.fields, err = w.legacyStore.LegacyFields(context.Background(), id); err != nil {
		w.fail("LegacyFields: %v", err)
	}
	w.legacy = append(w.legacy, r)
}

// unlinked returns the records that nobody is linked to and that have this address.
func (w *world) unlinked(email string) (found []*legacy) {
	for _, r := range w.legacy {
		if r.owner == nil && email != "" && r.email == email {
			found = append(found, r)
		}
	}
	return found
}

// isTaken reports whether a record that nobody is linked to, other than except, keeps this address
// from the records of users, because addresses are unique.
func (w *world) isTaken(email string, except *legacy) bool {
	return w.opts.UniqueEmail && slices.ContainsFunc(w.unlinked(email), func(r *legacy) bool { return r != except })
}

func (w *world) legacyByID(id string) *legacy {
	i := slices.IndexFunc(w.legacy, func(l *legacy) bool { return l.id == id })
	if i < 0 {
		return nil
	}
	return w.legacy[i]
}

func (w *world) isLegacy(id string) bool { return w.legacyByID(id) != nil }

func (w *world) named(externalID string) *legacy {
	i := slices.IndexFunc(w.legacy, func(r *legacy) bool { return externalID != "" && r.externalID == externalID })
	if i < 0 {
		return nil
	}
	return w.legacy[i]
}

// fate is what is to become of a user without a record at their next write.
type fate int

const (
	toInsert fate = iota
	toAdopt
	heldBack // a record has the address, and must not be linked
	heldByID // the external id names the record of another user
	blocked  // the external id names a record, and another one has the address, which is unique
)

// fateOf decides by the state of a user in Clerk, on its own: it does not use what clerksync made
// of the state.
func (w *world) fateOf(s *state) (fate, *legacy) {
	if r := w.named(s.externalID); r != nil {
		if r.owner != nil {
			return heldByID, nil
		}
		if w.isTaken(s.facts.Email, r) {
			return blocked, nil
		}
		return toAdopt, r
	}
	switch found := w.unlinked(s.facts.Email); {
	case len(found) == 0:
		return toInsert, nil
	case len(found) > 1 || !s.proven || !found[0].trusted:
		return heldBack, nil
	default:
		return toAdopt, found[0]
	}
}

// appeared checks the first record of a user: it is one from before Clerk that the user may have, or
// there is none for the user.
func (w *world) appeared(u *user, r *clerksync.User) {
	if w.legacyStore == nil {
		return
	}
	l := w.legacyByID(r.ID)
	if l == nil {
		w.checkInserted(u, r)
		return
	}
	if l.owner != nil {
		w.fail("%s is linked to the record of %s", u.id, l.owner.id)
	}
	w.checkLinked(u, r, l)
	l.owner = u
	u.app = l.app
	if l.created != 0 && ms(r.CreatedAt) != l.created {
		w.fail("createdAt of the record that %s is linked to went from %d to %v", u.id, l.created, r.CreatedAt)
	}
}

// checkLinked checks that u may have the record l, in a state that the user had in Clerk since the
// record was confirmed.
func (w *world) checkLinked(u *user, r *clerksync.User, l *legacy) {
	deleted := !r.DeletedAt.IsZero()
	for i := range u.states {
		s := &u.states[i]
		if !deleted && !w.ahead && s.until < ms(r.SyncedAt) {
			continue
		}
		byID := l.externalID != "" && s.externalID == l.externalID
		switch f, candidate := w.fateOf(s); {
		case deleted && byID:
			w.counts.add(legacyTombstone)
			return
		case deleted || f != toAdopt || candidate != l:
		case byID:
			w.counts.add(adoptedByID)
			return
		default:
			w.counts.add(adoptedByEmail)
			return
		}
	}
	w.fail("%s is linked to the record %+v, and the user never was entitled to it: %+v", u.id, *l, u.states)
}

// checkInserted checks that no record is the user's or has the address, in each state that the new
// record may come from.
func (w *world) checkInserted(u *user, r *clerksync.User) {
	if !r.DeletedAt.IsZero() {
		return // a tombstone has no address
	}
	f := factsOfRecord(r)
	if found := w.unlinked(f.Email); len(found) > 0 {
		w.fail("%s is created beside the record %+v", u.id, *found[0])
	}
	for i := range u.states {
		if s := &u.states[i]; s.facts == f && w.named(s.externalID) == nil {
			return
		}
	}
	w.fail("%s is created although the external id names a record: %+v", u.id, u.states)
}

// checkUnlinked checks an error that says that u was not linked. It reports whether err is one.
func (w *world) checkUnlinked(u *clerksync.User, err error) bool {
	conflict := (*clerksync.ConflictError)(nil)
	if w.legacyStore == nil || !errors.As(err, &conflict) {
		return false
	}
	if errors.Is(err, clerksync.ErrUnlinked) {
		w.counts.add(unlinkedUser)
		found := w.unlinked(u.Email)
		if len(found) == 0 {
			w.fail("%s is held back because of the address, and no record has it: %v", u.ClerkID, err)
		} else if len(found) == 1 && found[0].trusted && u.EmailProven {
			w.fail("%s is held back, and may be linked to %+v: %v", u.ClerkID, *found[0], err)
		}
		return true
	}
	r := w.named(u.ExternalID)
	if r == nil || conflict.Field == "email" { // see checkEmail
		return false
	}
	if r.owner == nil || r.owner.id == u.ClerkID {
		w.fail("%s is refused because of the external id, and nobody else is linked to %+v: %v", u.ClerkID, *r, err)
	}
	w.counts.add(namedAnothers)
	return true
}

// waits reports whether a user who lives rightly has no record.
func (w *world) waits(u *user) bool {
	if w.legacyStore == nil || u.last() != nil {
		return false
	}
	f, _ := w.fateOf(u.now())
	return f == heldBack || f == heldByID || f == blocked
}

// lacksAddress reports whether the record of a user who lives rightly lacks the address in Clerk.
func (w *world) lacksAddress(u *user) bool {
	return u.last() != nil && w.isTaken(u.now().facts.Email, nil)
}

// waiting returns how many users have no record, and how many of them because of a unique index,
// which only a write finds out.
func (w *world) waiting() (all, byIndex int) {
	for _, u := range w.users {
		if u.lives() && w.waits(u) {
			all++
			if f, _ := w.fateOf(u.now()); f == blocked {
				byIndex++
			}
		}
	}
	return all, byIndex
}

// lacking returns how many users have a record without the address in Clerk.
func (w *world) lacking() (n int) {
	for _, u := range w.users {
		if u.lives() && w.lacksAddress(u) {
			n++
		}
	}
	return n
}

// checkLegacy checks that records that nobody is linked to are as they were, and that the others
// keep what is the app's.
func (w *world) checkLegacy() {
	for _, r := range w.legacy {
		fields, err := w.legacyStore.LegacyFields(context.Background(), r.id)
		switch {
		case err != nil:
			w.fail("the record %s: %v", r.id, err)
		case r.owner == nil && !reflect.DeepEqual(fields, r.fields):
			w.fail("nobody is linked to a record, and it went from\n%v\nto\n%v", r.fields, fields)
		case r.owner != nil && fields["clerkId"] != r.owner.id:
			w.fail("the record of %s has the Clerk id %v", r.owner.id, fields["clerkId"])
		}
		for _, name := range kept {
			if err == nil && !reflect.DeepEqual(fields[name], r.fields[name]) {
				w.fail("the app's %s in the record %s went from %v to %v", name, r.id, r.fields[name], fields[name])
			}
		}
	}
}

// adoptingStore is a batchStore if the Store under test adopts.
type adoptingStore struct {
	batchStore
	inner storetest.AdoptingStore
}

func (s adoptingStore) Adoptions(ctx context.Context, us []*clerksync.User) (found []clerksync.Adoption, err error) {
	fault := s.call(ctx, "", func(ctx context.Context) error {
		found, err = s.inner.Adoptions(ctx, us)
		return err
	})
	if fault != nil {
		return nil, fault
	}
	return found, nil
}

func (s adoptingStore) DeactivateExternal(ctx context.Context, id, externalID string, at time.Time) (clerksync.Result, error) {
	return s.deactivate(ctx, id, func(ctx context.Context) (clerksync.Result, error) {
		return s.inner.DeactivateExternal(ctx, id, externalID, at)
	})
}

func (s adoptingStore) HasLegacy() bool { return true }

// UnlinkedEmails fails before the first address or after the last one.
func (s adoptingStore) UnlinkedEmails(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		inner, ok := s.inner.(clerksync.LegacyStore)
		if !ok {
			return
		}
		var emails []string
		fault := s.call(ctx, "", func(ctx context.Context) error {
			for email, err := range inner.UnlinkedEmails(ctx) {
				if err != nil {
					return err
				}
				emails = append(emails, email)
			}
			return nil
		})
		for _, email := range emails {
			if !yield(email, nil) {
				return
			}
		}
		if fault != nil {
			yield("", fault)
		}
	}
}
