package world

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// user is what the world knows about a user: the truth in Clerk, and what the app wrote.
type user struct {
	id        string
	number    int // by birth, from 1
	email     string
	born      int64
	deletedAt int64 // in Clerk; 0 if the user lives
	signedIn  int64 // last_sign_in_at
	states    []state
	app       appOwned
	records   []*snapshot
	webhookAt uint64 // when a webhook of this user was last applied, by world.seq
	emails    int    // how many addresses the user has had, to make new ones
	silent    bool   // it changed without a new version, or the app edited a role that Clerk owns
	edited    bool   // the role is the app's
	cleanUp   *job   // the last delete job that it owed
	mistaken  bool   // the record is marked deleted by mistake
	unbanLost bool   // the event that lifted its ban was lost
}

// state is one state of a user in Clerk.
type state struct {
	facts      facts
	role       clerksync.Role // "" if the app owns it. States that differ in it differ in facts.Plan too.
	externalID string
	proven     bool // the user has proven to control the address
	// In milliseconds, both inclusive, because two changes may share a millisecond.
	from, until int64
}

const forever = 1<<63 - 1

// last returns the present record, or nil if there is none.
func (u *user) last() *snapshot {
	if len(u.records) == 0 {
		return nil
	}
	return u.records[len(u.records)-1]
}

func (u *user) lives() bool { return u.deletedAt == 0 }

// now returns the state in Clerk.
func (u *user) now() *state { return &u.states[len(u.states)-1] }

// wasSince reports whether f was the user's state at at, or at any time after it. If addresses
// are unique, a record may have the state without its address, because another record has it.
func (w *world) wasSince(u *user, f facts, at int64) bool {
	for i := len(u.states) - 1; i >= 0 && u.states[i].until >= at; i-- {
		s := &u.states[i]
		if s.facts == f || w.opts.UniqueEmail && u.hadAddress(f.Email) && s.isButForEmail(f) {
			return true
		}
	}
	return false
}

// isButForEmail reports whether a record with f is in this state but for the address. Then it is a
// millisecond older, or another record took the address from it afterwards.
func (s *state) isButForEmail(f facts) bool {
	want := s.facts
	want.Email, want.EmailVerified = f.Email, f.EmailVerified
	if f.Version == want.Version-1 {
		want.Version--
	}
	return f == want
}

// wasBannedSince reports whether the user was banned in Clerk at at, or at any time after it.
func (u *user) wasBannedSince(at int64) bool {
	return slices.ContainsFunc(u.states, func(s state) bool { return s.until >= at && s.facts.Banned })
}

// hadAddress reports whether the user had an address in Clerk. Everybody had none.
func (u *user) hadAddress(email string) bool {
	return email == "" || slices.ContainsFunc(u.states, func(s state) bool { return s.facts.Email == email })
}

// equals reports whether a record is what a state in Clerk makes of it.
func (s *state) equals(r *clerksync.User) bool {
	return factsOfRecord(r) == s.facts && (s.role == "" || r.Role == s.role)
}

// changed reads the truth after a change in Clerk.
func (w *world) changed(u *user) {
	raw, ok := w.clerk.User(u.id)
	if !ok {
		panic("world: " + u.id + " is gone")
	}
	f, role, signedIn := factsOfClerk(raw)
	externalID, proven := identityInClerk(raw, f.Email)
	if !w.clerksRoles {
		role = ""
	}
	now := ms(w.clock.Now())
	if n := len(u.states); n > 0 {
		u.states[n-1].until = now
	}
	u.states = append(u.states, state{
		facts: f, role: role, externalID: externalID, proven: proven, from: now, until: forever,
	})
	u.signedIn = signedIn
}

// maxLiving bounds the users, and so the cost of an ending.
const maxLiving = 8

func (w *world) living() (n int) {
	for _, u := range w.users {
		if u.lives() {
			n++
		}
	}
	return n
}

// newUser signs a user up, with the address of a deleted one if the kind says so.
func (w *world) newUser(o op, _ moment) {
	if w.living() >= maxLiving {
		return
	}
	if o.kind == signUp {
		w.signUp("", "")
	} else if deleted := w.deletedWithoutHeir(); deleted != nil {
		w.counts.add(sameEmail)
		w.signUp(deleted.email, deleted.now().externalID)
	}
}

func idOf(n int) string { return fmt.Sprintf("user_%04dw", n) }

// signUp creates a user in Clerk. An empty email means a new one.
func (w *world) signUp(email, externalID string) {
	w.born++
	u := &user{id: idOf(w.born), number: w.born, born: ms(w.clock.Now())}
	before := w.caseOf(w.born)
	if before.named {
		externalID = externalIDOf(w.born)
	}
	u.app.Role = "STUDENT"
	if email == "" {
		email = u.freshEmail()
	}
	u.email = email
	w.users = append(w.users, u)
	w.byID[u.id] = u
	w.clerk.CreateUser(fakeclerk.NewUser{
		ID: u.id, FirstName: "Ada", LastName: "No" + strconv.Itoa(w.born), Email: email,
		EmailUnverified: w.born%3 == 0, EmailStrategy: before.strategy, ExternalID: externalID,
		PublicMetadata: map[string]any{"plan": "free", "role": []string{"", "ADMIN"}[w.born%2]},
	})
	w.changed(u)
}

func (u *user) freshEmail() string {
	u.emails++
	return fmt.Sprintf("%s.%d@example.com", u.id, u.emails)
}

// deletedWithoutHeir returns a deleted user whose address no living one has, nil if there is none.
func (w *world) deletedWithoutHeir() *user {
	for _, u := range slices.Backward(w.users) {
		inUse := func(other *user) bool { return other.lives() && other.email == u.email }
		if !u.lives() && !slices.ContainsFunc(w.users, inUse) {
			return u
		}
	}
	return nil
}

// changeInClerk is a change of a user in Clerk. Its webhook may be delivered at once.
func (w *world) changeInClerk(o op, m moment) {
	if m.u.lives() {
		w.clerkChanges(o, m.u)
	}
	if n := len(w.pending); o.delivered && n > 0 && w.pending[n-1].user == m.u {
		w.deliver(op{kind: deliver}, n-1, m.p, m.depth())
	}
	w.clock.Advance(o.d)
}

func (w *world) clerkChanges(o op, u *user) {
	switch o.kind {
	case update:
		w.change(u, o.n, false)
	case silent:
		w.change(u, o.n, true)
	case silentSignIn:
		w.signIn(u, true)
	case signIn:
		w.signIn(u, false)
	case ban:
		w.withWebhook(!o.flag, func() { w.ban(u, true) })
	case unban:
		isBanned := func(u *user) bool { return u.lives() && u.now().facts.Banned }
		if i := slices.IndexFunc(w.users, isBanned); i >= 0 {
			u = w.users[i]
		}
		s := u.last()
		wasBanned := s != nil && s.key.bannedOnly()
		w.withWebhook(!o.flag, func() { w.ban(u, false) })
		u.unbanLost = o.flag && wasBanned
	case exchange:
		w.withWebhook(!o.flag, func() { w.exchange(u, o.n) })
	case deleteUser:
		if w.living() > 1 {
			w.withWebhook(!o.flag, func() { w.delete(u) })
		}
	}
}

// exchange gives a user the address of another one, who gets the user's.
func (w *world) exchange(u *user, n int) {
	other := w.users[n%len(w.users)]
	if other == u || !other.lives() {
		return
	}
	w.counts.add(exchanged)
	u.email, other.email = other.email, u.email
	for _, one := range []*user{u, other} {
		w.must(w.clerk.UpdateUser(one.id, func(o *fakeclerk.UserObject) {
			o.EmailAddresses = nil
			o.PrimaryEmailAddressID = clerk.String(o.AddEmailAddress(one.email, n%2 == 0))
		}))
		w.changed(one)
	}
}

// withWebhook makes a change in Clerk. If not sent, its events are lost at once.
func (w *world) withWebhook(sent bool, change func()) {
	w.losing = !sent
	change()
	w.losing = false
}

// change changes a user in Clerk in one of many ways. Silently means without a new version.
func (w *world) change(u *user, n int, silently bool) {
	edit := func(o *fakeclerk.UserObject) { u.edit(o, n) }
	if silently {
		u.silent = true
		w.must(w.clerk.UpdateUserSilently(u.id, edit))
	} else {
		w.must(w.clerk.UpdateUser(u.id, edit))
	}
	w.changed(u)
}

// edit makes change n%18.
func (u *user) edit(o *fakeclerk.UserObject, n int) {
	s := strconv.Itoa(n) + "." + strconv.Itoa(len(u.states))
	switch n % 18 {
	case 0, 1, 2:
		o.FirstName = clerk.String("First " + s)
	case 3:
		o.FirstName, o.LastName = nil, nil
	case 4:
		o.LastName = clerk.String("Last " + s)
	case 5:
		u.email = u.freshEmail()
		o.EmailAddresses = nil
		o.PrimaryEmailAddressID = clerk.String(o.AddEmailAddress(u.email, n%2 == 0))
	case 6:
		o.AddEmailAddress("second."+u.freshEmail(), true)
	case 7:
		for _, e := range o.EmailAddresses {
			e.Verification.Status = []string{"verified", "failed"}[len(u.states)%2]
		}
	case 8:
		o.PrimaryPhoneNumberID = clerk.String(o.AddPhoneNumber("+1555"+strconv.Itoa(len(u.states)), n%3 == 0))
	case 9:
		o.PhoneNumbers, o.PrimaryPhoneNumberID = nil, nil
	case 10:
		o.ImageURL = clerk.String("https://img.example.com/" + s)
	case 11:
		role := []string{"", "TEACHER", "ADMIN"}[len(u.states)%3]
		o.PublicMetadata = json.RawMessage(`{"plan":"plan ` + s + `","gender":"x` + s + `","role":"` + role + `"}`)
	case 12:
		o.PublicMetadata = json.RawMessage(`{}`)
	case 13:
		o.UnsafeMetadata = json.RawMessage(`{"birthday":"1815-12-` + s + `"}`)
	case 14:
		o.Birthday = clerk.String("1815-11-" + s)
	case 15:
		o.Deprovisioned = !o.Deprovisioned
	default:
		u.identify(o, n)
	}
}

// identify makes change 16 or 17, of what may link the user to a record from before Clerk.
func (u *user) identify(o *fakeclerk.UserObject, n int) {
	if n%18 == 17 {
		o.ExternalID = clerk.String(externalIDOf(u.number))
		return
	}
	for _, e := range o.EmailAddresses { // an administrator vouches for the address, or its user proves it
		e.Verification.Status, e.Verification.Strategy = "verified", []string{"email_link", "admin", "email_code"}[len(u.states)%3]
		e.Reserved = len(u.states)%5 == 4
	}
}

// must fails if a call that cannot fail does.
func (w *world) must(err error) {
	if err != nil {
		w.fail("%v", err)
	}
}

func (w *world) ban(u *user, banned bool) {
	if banned {
		w.must(w.clerk.BanUser(u.id))
	} else {
		w.must(w.clerk.UnbanUser(u.id))
	}
	w.changed(u)
}

func (w *world) signIn(u *user, silently bool) {
	if silently {
		u.silent = true
		now := ms(w.clock.Now())
		w.must(w.clerk.UpdateUserSilently(u.id, func(o *fakeclerk.UserObject) { o.LastSignInAt = &now }))
	} else {
		w.must(w.clerk.SignIn(u.id))
	}
	w.changed(u)
}

func (w *world) delete(u *user) {
	w.must(w.clerk.DeleteUser(u.id))
	u.deletedAt = max(ms(w.clock.Now()), 1)
}
