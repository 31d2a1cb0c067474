package world

import (
	"context"
	"errors"

	"github.com/clerksync/clerksync-go/clerksync"
)

// sync is one Sync.
func (w *world) sync(o op, m moment) {
	p, u := m.p, m.u
	r := w.newRun(p, syncNow, o, u, m.depth())
	lived := u.lives()
	res, err := p.syncer.Sync(context.WithValue(context.Background(), runKey{}, r), u.id)
	w.invalidated(r)
	if err == nil {
		w.dropped(p, u, r.wroteAt)
	}
	var conflict *clerksync.ConflictError
	switch {
	case err == nil && res.Outcome == clerksync.Deactivated:
		p.knownDeleted[u.id] = w.clock.Now()
	case err == nil:
		w.checkSynced(r)
	case errors.Is(err, clerksync.ErrUserUnknown):
		if u.lives() {
			w.fail("Sync of %s, whom Clerk has: %v", u.id, err)
		}
	case errors.As(err, &conflict):
		w.counts.add("Sync in conflict")
	case r.healthy() && lived:
		w.fail("Sync of %s failed without a fault: %v", u.id, err)
	}
}

// checkSynced checks that the record is what Clerk had after the Sync began.
func (w *world) checkSynced(r *run) {
	u := r.user
	last := u.last()
	if last == nil {
		w.fail("after Sync there is no record of %s", u.id)
		return
	}
	// If some clock is ahead, its confirmations are not believed. Then an older event of the same
	// version may overwrite what the Sync wrote.
	overtaken := w.ahead && last.from > r.wroteAt
	if last.key.Deleted == 0 && r.p.isRight(r) && !overtaken && !w.wasSince(u, last.key.facts, ms(r.start)) {
		w.fail("after Sync the record of %s is not what Clerk had since: %+v", u.id, last)
	}
}

// isRight reports whether what a run read from Clerk must replace what other processes wrote before.
// That needs a right clock. If another process's clock is ahead, no time may have passed either.
func (p *process) isRight(r *run) bool {
	return p.skew == 0 && (!p.w.ahead || p.w.clock.Now().Equal(r.start))
}

// drop is a webhook, Sync or Forget that made a process drop what it had of a user. From its end
// on, the process must not serve a record that was superseded at wroteAt or earlier.
type drop struct{ wroteAt, ended uint64 } // by world.seq

// dropped notes a drop by an operation that has written for the last time at wroteAt, and ends now.
func (w *world) dropped(p *process, u *user, wroteAt uint64) {
	w.seq++
	p.drops[u.id] = append(p.drops[u.id], drop{wroteAt, w.seq})
}

// invalidated notes the users whom an operation made its process load again, whether or not it
// succeeded.
func (w *world) invalidated(r *run) {
	w.seq++
	for _, id := range r.offers {
		r.p.forgot[id] = w.seq
	}
}
