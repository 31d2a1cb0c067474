package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ledger records what this program was told is done, and so must stay done: webhooks that an app
// process answered 2xx, records that a visit was served, edits that the database acknowledged.
// Anything else may be lost, because it comes again.
//
// Each change of a user in Clerk is a revision. Its number is in the last name and in the e-mail
// address, so a record shows which revision it has, and whether it mixes two.
type ledger struct {
	late time.Duration // how long after an acknowledged deletion a process may still serve the record
	calm func(since time.Time) bool

	mu         sync.Mutex
	users      map[string]*account
	progress   int       // answers to webhooks and visits that count as progress
	lastAnswer time.Time // of a visit; zero if nobody visits
	silence    time.Duration
	visits     map[string]int // by answer
	webhooks   map[string]int // by answer
	tally      tally
}

// tally counts what only the summary needs.
type tally struct {
	// 503s from a living process while the database was up.
	oddVisits, oddWebhooks int
	// Visits by deleted users that had to be refused, because this process had acknowledged the
	// deletion, or another process had done so long before.
	knownDeleted, lateDeleted int
	// Visits to a process that had acknowledged or served a revision, and so must not serve an
	// older one.
	knownRevision int
	// Edits by the app.
	editsMade, editsDone int
}

// account is what the ledger knows about a user.
type account struct {
	banned   []bool // by revision; revisions count from 1
	existing bool   // signed up in Clerk
	deleted  bool   // deleted in Clerk, or about to be
	promise  promise

	recordID  string // the record's _id, as served
	tried     int    // edits begun; promise.edit has the acknowledged ones
	knows     map[*process]*knowledge
	tombstone *record // as first seen
}

// promise is what must be in the database.
type promise struct {
	revision  int   // the latest acknowledged or served; 0 if none, and then there may be no record
	version   int64 // Clerk's updated_at of the latest acknowledged webhook
	deletion  bool
	deletedAt time.Time // when the deletion was first acknowledged
	edit      int       // the latest acknowledged
}

// knowledge is what a process has acknowledged or served. It must not serve anything older.
type knowledge struct {
	revision int
	deletion bool
}

func newLedger(late time.Duration, calm func(time.Time) bool) *ledger {
	return &ledger{
		late: late, calm: calm,
		users: map[string]*account{}, visits: map[string]int{}, webhooks: map[string]int{},
	}
}

// signUp records a user who is about to be created in Clerk. signedUp records that it has happened.
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

// revise records a change that is about to be made in Clerk.
func (l *ledger) revise(id string, banned bool) (revision int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.users[id]
	a.banned = append(a.banned, banned)
	return len(a.banned)
}

// leave records a deletion that is about to be made in Clerk.
func (l *ledger) leave(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users[id].deleted = true
}

// namesOf returns a revision's last name and e-mail address.
func namesOf(id string, revision int) (lastName, email string) {
	return fmt.Sprintf("r%d", revision), fmt.Sprintf("%s.r%d@example.com", strings.ToLower(id), revision)
}

// revisionOf returns the revision of a record, and 0 if the record has no names. It fails if the
// record mixes revisions.
func revisionOf(id, lastName, email string) (int, error) {
	if lastName == "" && email == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(strings.TrimPrefix(lastName, "r"))
	if wantName, wantEmail := namesOf(id, n); err != nil || lastName != wantName || email != wantEmail {
		return 0, fmt.Errorf("last name %q and e-mail address %q are not of one revision", lastName, email)
	}
	return n, nil
}

// event is the part of a webhook that the ledger needs.
type event struct {
	Type string `json:"type"`
	Data struct {
		eventUser
		User *eventUser `json:"user"` // of session.created
	} `json:"data"`
}

type eventUser struct {
	ID        string  `json:"id"`
	LastName  *string `json:"last_name"`
	UpdatedAt int64   `json:"updated_at"`
}

// acknowledged records an app process's answer to a webhook that was sent at the given time. p is
// nil if the process has died since.
func (l *ledger) acknowledged(body []byte, p *process, status int, sent time.Time) error {
	var e event
	if err := json.Unmarshal(body, &e); err != nil {
		return err
	}
	user := e.Data.eventUser
	if e.Data.User != nil {
		user = *e.Data.User
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.webhooks[strconv.Itoa(status)]++
	switch {
	case status == 503:
		if p != nil && l.calm(sent) {
			l.tally.oddWebhooks++
		}
		return nil
	case status < 200 || status > 299:
		return violated("a webhook %s of %s was answered %d", e.Type, user.ID, status)
	}
	a := l.users[user.ID]
	if a == nil {
		return violated("a webhook %s of %q, whom nobody created", e.Type, user.ID)
	}
	l.progress++
	k := a.known(p)
	if e.Type == "user.deleted" {
		if !a.promise.deletion {
			a.promise.deletion, a.promise.deletedAt = true, time.Now()
		}
		k.deletion = true
		return nil
	}
	if user.LastName == nil {
		return violated("a webhook %s of %s without a revision", e.Type, user.ID)
	}
	revision, err := strconv.Atoi(strings.TrimPrefix(*user.LastName, "r"))
	if err != nil {
		return err
	}
	a.promise.revision = max(a.promise.revision, revision)
	a.promise.version = max(a.promise.version, user.UpdatedAt)
	k.revision = max(k.revision, revision)
	return nil
}

// known returns a process's knowledge, which the caller may update. For a nil p the update is
// dropped.
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

// visit is a visit under way, with what was known when it began.
type visit struct {
	id      string
	process *process
	began   time.Time
	knew    knowledge // what the process knew
	late    bool      // a deletion was acknowledged so long ago that every process must know of it
}

func (l *ledger) visit(id string, p *process) visit {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.users[id]
	v := visit{id: id, process: p, began: time.Now(), knew: *a.known(p)}
	v.late = a.promise.deletion && time.Since(a.promise.deletedAt) > l.late
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
	Code string `json:"code"` // of a refused request
}

// cutOff records a visit that got no answer.
func (l *ledger) cutOff() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.visits["cut off"]++
}

// answered checks a visit's answer, and records it. alive means that the visit's process was alive
// when the answer came. Otherwise another process may have answered.
func (l *ledger) answered(v visit, status int, body []byte, alive bool) error {
	var s served
	if err := json.Unmarshal(body, &s); err != nil {
		return violated("a visit of %s was answered %d without JSON: %.200q", v.id, status, body)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count(v, status, s.Code, alive)
	a := l.users[v.id]
	switch {
	case status == 503:
		return nil
	case status == 200:
		return l.checkServed(v, &s, alive)
	case status == 403 && (a.deleted || s.Code == "user_inactive" && slices.Contains(a.banned, true)):
		return nil
	case status == 403:
		return violated("%s, who exists and was never banned, was refused with %s", v.id, s.Code)
	default:
		return violated("a visit of %s was answered %d %s", v.id, status, s.Code)
	}
}

// count counts an answer to a visit. The lock is held.
func (l *ledger) count(v visit, status int, code string, alive bool) {
	name := strconv.Itoa(status)
	if code != "" {
		name += " " + code
	}
	l.visits[name]++
	switch {
	case alive && v.knew.deletion:
		l.tally.knownDeleted++
	case v.late && l.calm(v.began):
		l.tally.lateDeleted++
	}
	if status == 200 && alive && v.knew.revision > 0 {
		l.tally.knownRevision++
	}
	switch status {
	case 200, 403:
		l.progress++
		l.heard(time.Now())
	case 503:
		if alive && l.calm(v.began) {
			l.tally.oddVisits++
		}
	}
}

// checkServed checks a record that a visit was served, and records it. The lock is held.
func (l *ledger) checkServed(v visit, s *served, alive bool) error {
	a := l.users[v.id]
	revision, err := a.checkPage(v.id, s)
	if err != nil {
		return err
	}
	switch {
	case a.recordID != "" && a.recordID != s.ID:
		return lost("the record of %s had _id %s but has %s: it was created anew", v.id, a.recordID, s.ID)
	case alive && v.knew.deletion:
		return lost("%s was served 200 by %s, which had acknowledged the deletion before", v.id, v.process.name)
	case v.late && l.calm(v.began):
		return lost("%s was served 200 more than %v after the deletion was acknowledged", v.id, l.late)
	case alive && revision < v.knew.revision:
		return lost("%s was served revision %d by %s, which had acknowledged or served revision %d before",
			v.id, revision, v.process.name, v.knew.revision)
	}
	a.recordID = s.ID
	a.promise.revision = max(a.promise.revision, revision)
	if alive {
		k := a.known(v.process)
		k.revision = max(k.revision, revision)
	}
	return nil
}

// checkPage checks that a record served to the user was true at some time, and returns its revision.
func (a *account) checkPage(id string, s *served) (revision int, err error) {
	revision, err = revisionOf(id, s.Profile.LastName, s.Email)
	switch {
	case err != nil:
		return 0, violated("a visit of %s was served a mixed record: %v", id, err)
	case s.ClerkID != id:
		return 0, violated("a visit of %s was served the record of %q", id, s.ClerkID)
	case revision < 1 || revision > len(a.banned):
		return 0, violated("a visit of %s was served revision %d of %d", id, revision, len(a.banned))
	case a.banned[revision-1] || s.Banned || !s.Active:
		return 0, violated("a visit of %s was served revision %d, which is banned or not active", id, revision)
	}
	return revision, nil
}

// listen begins and ends the time in which visits never pause, so that a silence counts.
func (l *ledger) listen(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard(time.Now())
	l.lastAnswer = time.Time{}
	if on {
		l.lastAnswer = time.Now()
	}
}

// heard records that a visit got an answer. The lock is held.
func (l *ledger) heard(now time.Time) {
	if !l.lastAnswer.IsZero() {
		l.silence, l.lastAnswer = max(l.silence, now.Sub(l.lastAnswer)), now
	}
}

// begin records that the user's next edit is about to be made. done records that it was acknowledged.
func (l *ledger) begin(id string) (edit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users[id].tried++
	l.tally.editsMade++
	return l.users[id].tried
}

func (l *ledger) done(id string, edit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.users[id]
	a.promise.edit = max(a.promise.edit, edit)
	l.tally.editsDone++
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

// state is an upper bound of what may be in the database.
type state struct {
	revisions, edits int
	banned           bool // in Clerk
	existing         bool
	deleted          bool
	recordID         string // as served
}

func (l *ledger) states() map[string]state {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]state, len(l.users))
	for id, a := range l.users {
		all[id] = state{
			revisions: len(a.banned), edits: a.tried, banned: a.banned[len(a.banned)-1],
			existing: a.existing, deleted: a.deleted, recordID: a.recordID,
		}
	}
	return all
}

// progressed counts the webhooks acknowledged and the visits answered 200 or 403 so far.
func (l *ledger) progressed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.progress
}

// counts returns the visits and webhooks by answer, the longest time without an answered visit, and the
// tally.
func (l *ledger) counts() (visits, webhooks map[string]int, silence time.Duration, t tally) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.visits), maps.Clone(l.webhooks), l.silence, l.tally
}
