package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ledger is what this program was told is done, and so must stay done: webhooks that an app
// process answered 2xx, records that a visit was served, edits that the database acknowledged. What
// is not in it may be lost, as long as it comes again.
//
// A user's every change in Clerk is a revision, whose number stands in the last name and
// in the e-mail address: a record tells which one it is of, and whether it is of one alone.
type ledger struct {
	late time.Duration // after which no process may serve a record that another has seen deleted
	calm func(since time.Time) bool

	mu         sync.Mutex
	users      map[string]*account
	progress   int
	lastAnswer time.Time // of a visit; zero: nobody is about to visit
	silence    time.Duration
	visits     map[string]int // by answer
	webhooks   map[string]int // by answer
	tally
}

// tally counts what a summary tells beside the answers.
type tally struct {
	// 503 of a process that lived on, while the database was up.
	oddVisits, oddWebhooks int
	// Visits of deleted users that had to be refused: the process had acknowledged the deletion, or it was
	// long ago.
	knownDeleted, lateDeleted int
	// Visits to a process that had acknowledged or served a revision, and might not go back on it.
	knownRevision int
	// The app's edits.
	editsMade, editsDone int
}

// account is what the ledger has of a user. Revisions count from 1.
type account struct {
	banned   []bool // by revision, the first of them revision 1
	existing bool   // signed up in Clerk
	deleted  bool   // in Clerk, or being so
	promise

	_id       string // as served
	tried     int    // edits begun; the acknowledged ones are in promise
	knows     map[*process]*knowledge
	tombstone *record // as first seen
}

// promise is what must be in the database.
type promise struct {
	revision  int   // acknowledged or served; 0: none, and there may be no record
	version   int64 // Clerk's updated_at of the latest acknowledged
	deletion  bool
	deletedAt time.Time // when the deletion was first acknowledged
	edit      int       // acknowledged
}

// knowledge is what a process has acknowledged or served: it may not go back on it.
type knowledge struct {
	revision int
	deletion bool
}

func newLedger(late time.Duration, calm func(time.Time) bool) *ledger {
	return &ledger{late: late, calm: calm, users: map[string]*account{}, visits: map[string]int{}, webhooks: map[string]int{}}
}

// signUp enters a user who is about to be created in Clerk; signedUp says it has happened.
func (l *ledger) signUp(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users[id] = &account{banned: []bool{false}, knows: map[*process]*knowledge{}}
}

func (l *ledger) signedUp(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users[id].existing = true
}

// revise enters a revision that is about to be made in Clerk.
func (l *ledger) revise(id string, banned bool) (revision int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.users[id]
	a.banned = append(a.banned, banned)
	return len(a.banned)
}

// leave enters a deletion that is about to be made in Clerk.
func (l *ledger) leave(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users[id].deleted = true
}

// namesOf returns a revision's last name and e-mail address.
func namesOf(id string, revision int) (lastName, email string) {
	return fmt.Sprintf("r%d", revision), fmt.Sprintf("%s.r%d@example.com", strings.ToLower(id), revision)
}

// revisionOf finds the revision of a record, 0 for one without names. The error is that it is of more than one.
func revisionOf(id, lastName, email string) (int, error) {
	if lastName == "" && email == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(strings.TrimPrefix(lastName, "r"))
	if wantName, wantEmail := namesOf(id, n); err != nil || lastName != wantName || email != wantEmail {
		return 0, fmt.Errorf("last name %q and e-mail address %q are of no one revision", lastName, email)
	}
	return n, nil
}

// event is what a webhook says, as far as the ledger minds.
type event struct {
	Type string `json:"type"`
	Data struct {
		ID        string  `json:"id"`
		LastName  *string `json:"last_name"`
		UpdatedAt int64   `json:"updated_at"`
		// session.created has the user in it.
		User *struct {
			ID        string  `json:"id"`
			LastName  *string `json:"last_name"`
			UpdatedAt int64   `json:"updated_at"`
		} `json:"user"`
	} `json:"data"`
}

// acknowledged enters an app process's answer to a webhook; a nil p is one that has died since. sent
// is when the webhook went out.
func (l *ledger) acknowledged(body []byte, p *process, status int, sent time.Time) error {
	var e event
	if err := json.Unmarshal(body, &e); err != nil {
		return err
	}
	if e.Data.User != nil {
		e.Data.ID, e.Data.LastName, e.Data.UpdatedAt = e.Data.User.ID, e.Data.User.LastName, e.Data.User.UpdatedAt
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.webhooks[strconv.Itoa(status)]++
	switch {
	case status == 503:
		if p != nil && l.calm(sent) {
			l.oddWebhooks++
		}
		return nil
	case status < 200 || status > 299:
		return violated("a webhook %s of %s was answered %d", e.Type, e.Data.ID, status)
	}
	a := l.users[e.Data.ID]
	if a == nil {
		return violated("a webhook %s of %q, whom nobody made", e.Type, e.Data.ID)
	}
	l.progress++
	k := a.known(p)
	if e.Type == "user.deleted" {
		if !a.deletion {
			a.deletion, a.deletedAt = true, time.Now()
		}
		k.deletion = true
		return nil
	}
	if e.Data.LastName == nil {
		return violated("a webhook %s of %s without a revision", e.Type, e.Data.ID)
	}
	revision, err := strconv.Atoi(strings.TrimPrefix(*e.Data.LastName, "r"))
	if err != nil {
		return err
	}
	a.revision, a.version = max(a.revision, revision), max(a.version, e.Data.UpdatedAt)
	k.revision = max(k.revision, revision)
	return nil
}

// known is a process's knowledge; that of one that died is of no use.
func (a *account) known(p *process) *knowledge {
	if p == nil {
		return &knowledge{}
	}
	k := a.knows[p]
	if k == nil {
		k = &knowledge{}
		a.knows[p] = k
	}
	return k
}

// visit is one that is under way: what its process knew, and what was known at all, before.
type visit struct {
	id      string
	process *process
	began   time.Time
	knew    knowledge
	late    bool // a deletion was acknowledged so long ago that every process must know
}

func (l *ledger) visit(id string, p *process) visit {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.users[id]
	v := visit{id: id, process: p, began: time.Now(), knew: *a.known(p)}
	v.late = a.deletion && time.Since(a.deletedAt) > l.late
	return v
}

// served is the app's answer to a visit.
type served struct {
	ID      string `json:"_id"`
	ClerkID string `json:"clerkId"`
	Email   string `json:"email"`
	Role    string `json:"role"`
	Banned  bool   `json:"banned"`
	Active  bool   `json:"isActive"`
	Profile struct {
		LastName string `json:"lastName"`
	} `json:"profile"`
	Code string `json:"code"` // of a refusal
}

// cutOff enters a visit that got no answer.
func (l *ledger) cutOff() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.visits["cut off"]++
}

// answered checks a visit's answer, and enters it. alive says that the visit's process was alive when
// it came: else it may have been another's.
func (l *ledger) answered(v visit, status int, body []byte, alive bool) error {
	var s served
	if err := json.Unmarshal(body, &s); err != nil {
		return violated("a visit of %s was answered %d with no JSON: %.200q", v.id, status, body)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	name := strconv.Itoa(status)
	if s.Code != "" {
		name += " " + s.Code
	}
	l.visits[name]++
	a := l.users[v.id]
	if alive && v.knew.deletion {
		l.knownDeleted++
	} else if v.late && l.calm(v.began) {
		l.lateDeleted++
	}
	if status == 200 && alive && v.knew.revision > 0 {
		l.knownRevision++
	}
	switch status {
	case 200, 403:
		l.progress++
		l.heard(time.Now())
	case 503:
		if alive && l.calm(v.began) {
			l.oddVisits++
		}
		return nil
	default:
		return violated("a visit of %s was answered %d %s", v.id, status, s.Code)
	}
	if status == 403 {
		if a.deleted || s.Code == "user_inactive" && a.everBanned() {
			return nil
		}
		return violated("%s, who is there and never was banned, was refused with %s", v.id, s.Code)
	}

	revision, err := revisionOf(v.id, s.Profile.LastName, s.Email)
	switch {
	case err != nil:
		return violated("a visit of %s was served a record whose %v", v.id, err)
	case s.ClerkID != v.id:
		return violated("a visit of %s was served the record of %q", v.id, s.ClerkID)
	case revision < 1 || revision > len(a.banned):
		return violated("a visit of %s was served revision %d of %d", v.id, revision, len(a.banned))
	case a.banned[revision-1] || s.Banned || !s.Active:
		return violated("a visit of %s was served revision %d, which is banned or not active", v.id, revision)
	case a._id != "" && a._id != s.ID:
		return violated("the record of %s had _id %s and has %s: it was made anew", v.id, a._id, s.ID)
	case alive && v.knew.deletion:
		return violated("%s was served 200 by %s, which had acknowledged the deletion before", v.id, v.process.name)
	case v.late && l.calm(v.began):
		return violated("%s was served 200 over %v after the deletion had been acknowledged", v.id, l.late)
	case alive && revision < v.knew.revision:
		return violated("%s was served revision %d by %s, which had acknowledged or served revision %d before", v.id, revision, v.process.name, v.knew.revision)
	}
	a._id = s.ID
	a.revision = max(a.revision, revision)
	if alive {
		k := a.known(v.process)
		k.revision = max(k.revision, revision)
	}
	return nil
}

// listen begins and ends the time in which somebody always visits.
func (l *ledger) listen(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard(time.Now())
	l.lastAnswer = time.Time{}
	if on {
		l.lastAnswer = time.Now()
	}
}

// heard enters that a visit got its answer. The lock is held.
func (l *ledger) heard(now time.Time) {
	if !l.lastAnswer.IsZero() {
		l.silence, l.lastAnswer = max(l.silence, now.Sub(l.lastAnswer)), now
	}
}

func (a *account) everBanned() bool {
	for _, b := range a.banned {
		if b {
			return true
		}
	}
	return false
}

// begin enters an edit that is about to be made, the user's next; done says that it was acknowledged.
func (l *ledger) begin(id string) (edit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users[id].tried++
	l.editsMade++
	return l.users[id].tried
}

func (l *ledger) done(id string, edit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.users[id]
	a.edit = max(a.edit, edit)
	l.editsDone++
}

// promises returns what must be in the database from now on.
func (l *ledger) promises() map[string]promise {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]promise, len(l.users))
	for id, a := range l.users {
		all[id] = a.promise
	}
	return all
}

// state is what may be in the database at most.
type state struct {
	revisions, edits int
	banned           bool // in Clerk
	existing         bool
	deleted          bool
	_id              string
}

func (l *ledger) states() map[string]state {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]state, len(l.users))
	for id, a := range l.users {
		all[id] = state{len(a.banned), a.tried, a.banned[len(a.banned)-1], a.existing, a.deleted, a._id}
	}
	return all
}

// progressed counts what was acknowledged and served so far.
func (l *ledger) progressed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.progress
}

// counts returns the visits and webhooks by answer, and the longest time without a visit that got its answer.
func (l *ledger) counts() (visits, webhooks map[string]int, silence time.Duration, t tally) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.visits), maps.Clone(l.webhooks), l.silence, l.tally
}
