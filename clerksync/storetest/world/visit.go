package world

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// visit is one visit of a user. In the middle of a visit of the same user to the same process it
// joins that visit's lookup.
func (w *world) visit(o op, m moment) {
	p, u := m.p, m.u
	if m.around != nil && m.around.kind == visit && m.around.p == p && m.around.user == u {
		w.join(m.around)
		return
	}
	if !p.mayAwait() {
		return
	}
	r := w.newRun(p, visit, o, u, m.depth())
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), runKey{}, r))
	defer cancel()
	r.cancel, r.returned = cancel, make(chan struct{})
	before := u.last()
	lived := u.lives()
	token := w.token(o, u)
	p.visitor(ctx, r, token)
	close(r.returned)
	for _, j := range r.joined {
		<-j.done
	}
	if r.leaves { // if nobody joined, its lookup is still running
		if len(r.joined) == 0 {
			clock.LookupsEnded(p.syncer, u.id, json.RawMessage(token.text))
		}
		p.drain(false)
		p.hasty = false
	}
	w.visited(r, lived, token)
	for _, j := range r.joined {
		w.visited(j.run, lived, tokenVersion{})
	}
	if u.unbanLost && before != nil && before.key.bannedOnly() && r.status == http.StatusOK {
		w.counts.add(banLiftingLost)
		u.unbanLost = false
	}
	if m.around != nil {
		p.drain(true)
	} else {
		p.arrived()
	}
}

// tokenVersion is what a session token says about the user's version.
type tokenVersion struct {
	text    string // the claim
	version int64  // in milliseconds, 0 for none
	seconds bool   // the claim is in seconds
}

// token makes the claim of a visit's token, by Clerk's clock.
func (w *world) token(o op, u *user) tokenVersion {
	s := u.now()
	switch o.claim {
	case noClaim:
		return tokenVersion{}
	case claimOld:
		s = &u.states[max(0, len(u.states)-3)]
	case claimSeconds:
		second := s.facts.Version / 1000
		if n := len(u.states); n > 1 {
			before := u.states[n-2].facts.Version
			if before != s.facts.Version && before/1000 == second {
				w.counts.add(twoInASecond)
			}
		}
		return tokenVersion{text: number(second), version: second * 1000, seconds: true}
	}
	return tokenVersion{text: number(s.facts.Version), version: s.facts.Version}
}

// visited checks a visit's answer. lived says whether the user was in Clerk at the start.
func (w *world) visited(r *run, lived bool, token tokenVersion) {
	name := "visit " + number(int64(r.status))
	if r.code != "" {
		name += " " + r.code
	}
	w.counts.add(name)
	u, healthy := r.user, r.healthy()
	if u.lives() && r.code == "user_unknown" {
		w.fail("a visit of %s, whom Clerk has, was answered 403 user_unknown", u.id)
	}
	if w.droppedWhileLoading(r) {
		w.counts.add(invalidatedLoad)
	}
	if !healthy {
		return
	}
	switch {
	case r.status == http.StatusOK, r.status == http.StatusConflict, r.code == "user_unknown":
	case r.code == "unavailable" && r.paused():
		w.counts.add(pausedVisit)
	case r.code == "job_pending" && r.p.hooks.await && w.wasPending(r):
	case r.code == "user_inactive":
		if !w.wasBarred(r) {
			w.fail("a visit of %s was refused as inactive, and no record within the cache's time bars the user: %+v",
				u.id, u.last())
		}
	default:
		w.fail("a visit of %s was answered %d %s without a fault", u.id, r.status, r.code)
	}
	if r.status == http.StatusOK && lived && u.lives() {
		w.checkTokenVersion(r, token)
	}
}

// checkTokenVersion checks that a visitor was served a record as new as the token. Shortly after a
// fault an older one is allowed.
func (w *world) checkTokenVersion(r *run, token tokenVersion) {
	if token.version == 0 || w.clock.Now().Sub(w.lastTrouble) < 2*time.Minute {
		return
	}
	served, least := ms(r.served.ClerkUpdatedAt), w.atLeast(token.version)
	if token.seconds {
		served, least = served/1000, least/1000
	}
	if served < least {
		w.fail("a visit of %s with a token of version %d got a record of version %d", r.user.id, token.version, served)
	}
}

// droppedWhileLoading reports whether r's process dropped what r was loading.
func (w *world) droppedWhileLoading(r *run) bool {
	w.lookups.Lock()
	defer w.lookups.Unlock()
	return r.storeRead > 0 && r.p.forgot[r.user.id] > r.storeRead
}

// wasBarred reports whether a state of the record that the visit may have seen bars the user, or
// a ban in Clerk that the process may have seen and could not write.
func (w *world) wasBarred(r *run) bool {
	unwritten := max(r.p.ttl, 5*time.Minute) // Clerk is asked again each minute
	if r.start.Sub(w.lastTrouble) < 2*time.Minute {
		unwritten += time.Hour // not if that failed
	}
	if r.user.wasBannedSince(ms(r.start.Add(-unwritten))) {
		return true
	}
	for _, s := range slices.Backward(r.user.records) {
		if s.until != 0 && r.start.Sub(s.supersededAt) > r.p.ttl {
			return false
		}
		if s.key.barred() {
			return true
		}
	}
	return false
}

// joined is a visitor who waits for another visitor's lookup.
type joined struct {
	run  *run
	done chan struct{}
}

// join is a second visit of the user during the lookup of the first. It waits for that lookup,
// which cannot end before this function returns. So the visitor is left waiting, and the first
// visit checks its answer.
func (w *world) join(around *run) {
	if around.op.claim != noClaim || around.p.ttl <= 0 || around.joiners >= 3 || around.leaves {
		return
	}
	around.joiners++
	visitor := *around // the same troubles, but its own answer
	r := &visitor
	r.served, r.status, r.code, r.leaves, r.joined = nil, 0, "", false, nil
	r.seq, r.joins = w.seq, true
	ctx := &joining{
		Context: context.WithValue(context.Background(), runKey{}, around),
		waits:   make(chan struct{}),
	}
	done := make(chan struct{})
	joins := !w.forgotten(around) // before the visitor's own lookup may replace the one around
	go func() {
		defer close(done)
		around.p.visitor(ctx, r, tokenVersion{})
	}()
	if joins {
		select {
		case <-ctx.waits:
			w.counts.add(joinedLookup)
			around.joined = append(around.joined, joined{r, done})
			return
		case <-done:
		}
	}
	<-done // its own lookup needs nobody else
	w.visited(r, true, tokenVersion{})
}

// forgotten reports whether the process forgot the lookup of r, so that the next visitor begins
// another one.
func (w *world) forgotten(r *run) bool {
	w.lookups.Lock()
	defer w.lookups.Unlock()
	return r.p.forgot[r.user.id] > r.lookup
}

// joining is a context that reports when its visitor begins to wait.
type joining struct {
	context.Context
	once  sync.Once
	waits chan struct{}
}

func (c *joining) Done() <-chan struct{} {
	c.once.Do(func() { close(c.waits) })
	return c.Context.Done()
}

// leave makes the interrupted visitor give up while its lookup is running.
func (w *world) leave(_ op, m moment) {
	around := m.around
	if around.kind != visit || around.returned == nil || around.leaves {
		return
	}
	around.leaves = true
	w.counts.add(firstWaiterLeaves)
	around.p.hasty = true
	around.p.drain(false)
	around.cancel()
	<-around.returned
	around.p.drain(false) // a visitor served from the cache may have caused a refresh
}

// obeys reports whether the visitor must not be served what was dropped. A visitor looks again if
// something is dropped during the lookup, but only once: the second lookup began after the visit. One
// who joins a lookup counts the first as its own.
func (r *run) obeys(d drop) bool {
	switch {
	case r.joins:
		return d.ended < r.seq
	case r.lookups < 2:
		return true
	}
	return d.ended < r.lookup
}

// checkServed checks that a served record was in the Store after the process last dropped it, and
// within the time that a cache may keep it.
func (w *world) checkServed(r *run, served *clerksync.User) {
	key := keyOf(served)
	i := len(r.user.records) - 1
	for i >= 0 && r.user.records[i].key != key {
		i--
	}
	if i < 0 {
		w.fail("the handler got a record of %s that was never in the Store:\n%+v\nthe Store holds\n%+v",
			r.user.id, key, r.user.last().key)
		return
	}
	s := r.user.records[i]
	if s.until != 0 && slices.ContainsFunc(r.p.drops[r.user.id], func(d drop) bool { return r.obeys(d) && s.until <= d.wroteAt }) {
		w.fail("the handler got a record of %s from before a webhook, Sync or Forget in its process:\n%+v\n"+
			"the Store holds\n%+v", r.user.id, key, r.user.last().key)
	}
	// Soon after a fault, a served record may be older.
	settled := w.clock.Now().Sub(w.lastTrouble) > 2*r.p.ttl
	age := r.start.Sub(s.supersededAt)
	if s.until != 0 && settled && r.healthy() && age > r.p.ttl {
		w.fail("the handler got a record of %s that changed %v before, and the cache may keep it for %v",
			r.user.id, age, r.p.ttl)
	}
}
