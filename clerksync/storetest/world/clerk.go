package world

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// user is what the world knows of a user: Clerk's truth, and what the app wrote.
type user struct {
	id        string
	email     string
	born      int64
	deletedAt int64 // in Clerk; 0: lives
	signedIn  int64 // last_sign_in_at
	states    []state
	app       appOwned
	records   []*snapshot
	webhookAt uint64 // when a webhook of this user was last applied, by world.seq
	emails    int    // addresses that it had, to make fresh ones
	silent    bool   // it changed without a new version, or the app edited a role of Clerk's
	edited    bool   // the role is the app's
	unbanLost bool   // the event that lifted its ban was lost
}

// state is one state of a user in Clerk.
type state struct {
	facts
	role        clerksync.Role // "" where the app owns it; the plan tells apart what differs in it
	from, until int64          // in ms, both inclusive, as two changes may share one
}

const forever = 1<<63 - 1

// last is the record as it is, nil where there is none.
func (u *user) last() *snapshot {
	if len(u.records) == 0 {
		return nil
	}
	return u.records[len(u.records)-1]
}

func (u *user) lives() bool { return u.deletedAt == 0 }

// now is the state in Clerk.
func (u *user) now() *state { return &u.states[len(u.states)-1] }

// wasSince reports whether f was the user's state at some time from at on.
func (u *user) wasSince(f facts, at int64) bool {
	for i := len(u.states) - 1; i >= 0 && u.states[i].until >= at; i-- {
		if u.states[i].facts == f {
			return true
		}
	}
	return false
}

// changed reads the truth after a change in Clerk.
func (w *world) changed(u *user) {
	raw, ok := w.clerk.User(u.id)
	if !ok {
		panic("world: " + u.id + " is gone")
	}
	f, role, signedIn := factsOfClerk(raw)
	if !w.clerksRoles {
		role = ""
	}
	now := ms(w.clock.Now())
	if n := len(u.states); n > 0 {
		u.states[n-1].until = now
	}
	u.states = append(u.states, state{facts: f, role: role, from: now, until: forever})
	u.signedIn = signedIn
}

// lost makes a change in Clerk whose events are lost at once, or are not.
func (w *world) lost(lost bool, change func()) {
	w.losing = lost
	change()
	w.losing = false
}

func (w *world) signUp(email string) {
	w.born++
	u := &user{id: fmt.Sprintf("user_%04dw", w.born), born: ms(w.clock.Now())}
	u.app.Role = "STUDENT"
	if email == "" {
		email = u.freshEmail()
	}
	u.email = email
	w.users = append(w.users, u)
	w.byID[u.id] = u
	w.clerk.CreateUser(fakeclerk.NewUser{
		ID: u.id, FirstName: "Ada", LastName: "No" + strconv.Itoa(w.born), Email: email,
		EmailUnverified: w.born%3 == 0, PublicMetadata: map[string]any{"plan": "free", "role": []string{"", "ADMIN"}[w.born%2]},
	})
	w.changed(u)
}

func (u *user) freshEmail() string {
	u.emails++
	return fmt.Sprintf("%s.%d@example.com", u.id, u.emails)
}

// change changes a user in Clerk, in one of many ways.
func (w *world) change(u *user, n int, silently bool) {
	s := strconv.Itoa(n) + "." + strconv.Itoa(len(u.states))
	f := func(o *fakeclerk.UserObject) {
		switch n % 16 {
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
			o.PublicMetadata = json.RawMessage(`{"plan":"plan ` + s + `","gender":"x` + s + `","role":"` + []string{"", "TEACHER", "ADMIN"}[len(u.states)%3] + `"}`)
		case 12:
			o.PublicMetadata = json.RawMessage(`{}`)
		case 13:
			o.UnsafeMetadata = json.RawMessage(`{"birthday":"1815-12-` + s + `"}`)
		case 14:
			o.Birthday = clerk.String("1815-11-" + s)
		case 15:
			o.Deprovisioned = !o.Deprovisioned
		}
	}
	if silently {
		u.silent = true
		w.must(w.clerk.UpdateUserSilently(u.id, f))
	} else {
		w.must(w.clerk.UpdateUser(u.id, f))
	}
	w.changed(u)
}

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

// message is one webhook event.
type message struct {
	fakeclerk.Message
	user     *user
	version  int64 // 0 for a deletion
	due      time.Time
	attempts int
	copies   int
	applied  bool // some attempt was acknowledged
	lost     bool // no attempt is to come, and none was acknowledged
}

// retryDelays are Svix's.
var retryDelays = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 10 * time.Hour,
}

// receive takes an event in as Clerk makes it. The endpoint of fakeclerk drops it then:
// the world delivers, as it would have to wait for the endpoint otherwise.
func (w *world) receive(m fakeclerk.Message) fakeclerk.Delivery {
	var e struct {
		Data struct {
			ID      string
			Updated int64 `json:"updated_at"`
			User    struct {
				ID      string
				Updated int64 `json:"updated_at"`
			}
		}
	}
	if err := json.Unmarshal(m.Body, &e); err != nil {
		panic(err)
	}
	id, version := e.Data.ID, e.Data.Updated
	switch m.Type {
	case "session.created":
		id, version = e.Data.User.ID, e.Data.User.Updated
	case "user.deleted":
		version = 0
	}
	msg := &message{Message: m, user: w.byID[id], version: version, due: w.clock.Now()}
	w.sent = append(w.sent, msg)
	if w.losing {
		msg.lost = true
		w.counts.add(string(dropHook))
		return fakeclerk.Delivery{Drop: true}
	}
	w.mail = append(w.mail, msg)
	if len(w.mail) > 60 {
		w.drop(0)
	}
	return fakeclerk.Delivery{Drop: true}
}

// drop loses message i.
func (w *world) drop(i int) {
	m := w.mail[i]
	w.mail = append(w.mail[:i:i], w.mail[i+1:]...)
	if !m.applied {
		m.lost = true
	}
	w.counts.add(string(dropHook))
}
