package world

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// message is one webhook event.
type message struct {
	event    fakeclerk.Message
	user     *user
	version  int64 // 0 for a deletion
	due      time.Time
	attempts int
	copies   int
	applied  bool // an attempt was acknowledged
	lost     bool // no attempt was acknowledged, and no more will be made
}

// retryDelays are Svix's.
var retryDelays = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 10 * time.Hour,
}

// mostPending limits the events that are not delivered yet. Beyond it, the oldest one is lost.
const mostPending = 60

// receive takes an event as soon as Clerk creates it. The endpoint of fakeclerk drops it: the
// world delivers it, because it would have to wait for the endpoint's own delivery.
func (w *world) receive(event fakeclerk.Message) fakeclerk.Delivery {
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
	if err := json.Unmarshal(event.Body, &e); err != nil {
		panic(err)
	}
	id, version := e.Data.ID, e.Data.Updated
	switch event.Type {
	case "session.created":
		id, version = e.Data.User.ID, e.Data.User.Updated
	case "user.deleted":
		version = 0
	}
	msg := &message{event: event, user: w.byID[id], version: version, due: w.clock.Now()}
	w.sent = append(w.sent, msg)
	if w.losing {
		msg.lost = true
		w.counts.add(string(dropHook))
		return fakeclerk.Delivery{Drop: true}
	}
	w.pending = append(w.pending, msg)
	if len(w.pending) > mostPending {
		w.drop(0)
	}
	return fakeclerk.Delivery{Drop: true}
}

// drop loses pending message i.
func (w *world) drop(i int) {
	m := w.pending[i]
	w.pending = slices.Delete(w.pending, i, i+1)
	if !m.applied {
		m.lost = true
	}
	w.counts.add(string(dropHook))
}

// pickPending chooses a pending message, one of u's if there is any.
func (w *world) pickPending(n int, u *user) (int, bool) {
	if len(w.pending) == 0 {
		return 0, false
	}
	for i := range w.pending {
		j := (i + n) % len(w.pending)
		if w.pending[j].user == u {
			return j, true
		}
	}
	return n % len(w.pending), true
}

func (w *world) dropHook(o op, m moment) {
	if i, ok := w.pickPending(o.n, m.u); ok {
		w.drop(i)
	}
}

func (w *world) doubleHook(o op, m moment) {
	if i, ok := w.pickPending(o.n, m.u); ok {
		w.pending = append(w.pending, w.pending[i])
		w.pending[i].copies++
	}
}

func (w *world) delayHook(o op, m moment) {
	if i, ok := w.pickPending(o.n, m.u); ok {
		w.pending[i].due = w.clock.Now().Add(o.d + time.Hour)
	}
}

// deliverNext delivers the message that has been due for the longest time. It reports whether one
// was due.
func (w *world) deliverNext(o op, p *process, depth int) bool {
	best := -1
	for i, m := range w.pending {
		if !m.due.After(w.clock.Now()) && (best < 0 || m.due.Before(w.pending[best].due)) {
			best = i
		}
	}
	if best >= 0 {
		w.deliver(o, best, p, depth)
	}
	return best >= 0
}

func (w *world) deliverAny(o op, m moment) {
	if i, ok := w.pickPending(o.n, m.u); ok {
		w.deliver(o, i, m.p, m.depth())
	}
}

func (w *world) deliverAll(_ op, m moment) {
	for range len(w.pending) {
		if !w.deliverNext(op{kind: deliver}, m.p, m.depth()) {
			return
		}
	}
}

// replayHook delivers a message of the user that was sent before.
func (w *world) replayHook(o op, m moment) {
	var sent []*message
	for _, msg := range w.sent {
		if msg.user == m.u {
			sent = append(sent, msg)
		}
	}
	if len(sent) > 0 {
		w.attempt(o, sent[len(sent)-1-o.n%len(sent)], m.p, m.depth())
	}
}

// deliver makes one attempt to deliver pending message i.
func (w *world) deliver(o op, i int, p *process, depth int) {
	m := w.pending[i]
	w.pending = slices.Delete(w.pending, i, i+1)
	w.attempt(o, m, p, depth)
}

func (w *world) attempt(o op, m *message, p *process, depth int) {
	r := w.newRun(p, deliver, o, m.user, depth)
	if w.lostNewer(m) {
		w.counts.add(oldAfterLost)
	}
	status := p.post(context.WithValue(context.Background(), runKey{}, r), m)
	w.counts.add("webhook " + number(int64(status)))
	w.invalidated(r)
	if status/100 == 2 {
		w.acknowledged(m, p, r)
		return
	}
	skewed := p.skew.Abs() > 5*time.Minute-10*time.Second
	if r.healthy() && !skewed && status != http.StatusConflict {
		w.fail("%s of %s was answered %d without a fault", m.event.Type, m.user.id, status)
	}
	if m.attempts == len(retryDelays) {
		m.lost = true
		w.counts.add("webhook failed for good")
		return
	}
	m.due = w.clock.Now().Add(retryDelays[m.attempts])
	m.attempts++
	w.pending = append(w.pending, m)
}

// lostNewer reports whether an event of the same user that is newer than m was lost.
func (w *world) lostNewer(m *message) bool {
	if m.version == 0 || !m.user.lives() {
		return false
	}
	for _, other := range slices.Backward(w.sent) {
		if other == m {
			return false
		}
		if other.user == m.user && other.lost && other.version > m.version {
			return true
		}
	}
	return false
}

// atLeast returns the version that a record has after this version was written. It is one
// millisecond older if another record has the address.
func (w *world) atLeast(version int64) int64 {
	if w.opts.UniqueEmail {
		return version - 1
	}
	return version
}

// acknowledged checks that the event was written before it was acknowledged.
func (w *world) acknowledged(m *message, p *process, r *run) {
	u := m.user
	m.applied, m.lost = true, false
	w.seq++
	u.webhookAt = w.seq
	w.dropped(p, u, r.wroteAt)
	s := u.last()
	switch {
	case m.version == 0:
		p.knownDeleted[u.id] = w.clock.Now()
		if s == nil || s.key.Deleted == 0 {
			w.fail("the deletion of %s was acknowledged, and the record is %+v", u.id, s)
		}
	case s == nil || s.key.Deleted == 0 && s.key.facts.Version < w.atLeast(m.version):
		w.fail("%s of %s at version %d was acknowledged, and the record is %+v", m.event.Type, u.id, m.version, s)
	case s.key.Deleted != 0 && r.sawDeleted:
		p.knownDeleted[u.id] = w.clock.Now()
	}
}
