package world

import (
	"context"
	"errors"
	"math"
	"net/http"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// end makes the world quiet, and checks that it converges: in one of two ways. Webhooks
// that are still on their way stay there and come later, as old ones.
func (w *world) end(o op) {
	w.clerkIsDown, w.storeIsDown = false, false
	for _, p := range w.procs {
		p.drain(false)
	}
	p := w.procs[o.n%len(w.procs)]
	switch o.n / 8 % 4 {
	case 0:
		w.endByReconcile(p, true)
	case 1:
		w.endByReconcile(p, false)
	case 2:
		w.endByVisits(p, noClaim, refreshAfter)
	default:
		c := []claim{claimSeconds, claimMillis, claimOld, claimSeconds}[o.n%4]
		w.endByVisits(p, c, []time.Duration{refreshAfter, 24 * time.Hour}[o.n>>2&1])
	}
}

// disagreement is how far the processes' clocks are apart: what one confirmed an hour
// ago, another may hold for confirmed that much later or earlier.
func (w *world) disagreement() time.Duration {
	var ahead, behind time.Duration
	for _, p := range w.procs {
		ahead, behind = max(ahead, p.skew), max(behind, -p.skew)
	}
	return ahead + behind
}

const holdback = 10 * time.Minute

// endByReconcile: time passes, one Reconcile runs, and everything is in step. Without
// Force it finds nothing that changed at an equal version.
func (w *world) endByReconcile(p *process, force bool) {
	w.counts.add(endingReconcile)
	w.clock.Advance(refreshAfter + holdback + time.Minute + w.disagreement())
	options := clerksync.ReconcileOptions{
		Force: force, MaxDeactivations: -1, InstanceID: w.clerk.InstanceID(), RequestsPerSecond: math.Inf(1), Writers: 1,
	}
	report, _, err := w.runReconcile(op{kind: reconcile}, p, 0, options, omission{})
	if err != nil {
		w.fail("the Reconcile that ends all failed: %v", err)
		return
	}
	for _, u := range w.users {
		switch {
		case !u.lives():
			w.checkGone(u)
		case force || !u.silent:
			w.checkInStep(u)
		}
	}
	w.checkCount()
	options.DryRun = true
	report, _, err = w.runReconcile(op{kind: reconcile}, p, 0, options, omission{})
	if err != nil || w.able.batch && !report.InStep() {
		w.fail("after a Reconcile a dry run finds %+v, %v", report, err)
	}
	// The keys, the count, the one page, and the count again.
	if report.ClerkCalls > 4 {
		w.fail("a Reconcile that finds nothing took %d calls to Clerk", report.ClerkCalls)
	}
}

// endByVisits: time passes, everybody who lives visits twice, and their records are in
// step. A token that confirms a record puts its re-reading off for a day; before that,
// what changed without a new version, or was confirmed by a clock that is off, may stay.
func (w *world) endByVisits(p *process, c claim, wait time.Duration) {
	ending, exact := endingVisits, true
	if c != noClaim {
		ending, exact = endingClaims, wait > refreshAfter
	}
	w.counts.add(ending)
	w.clock.Advance(wait + time.Minute + w.disagreement())
	for _, u := range w.users {
		if !u.lives() || !exact && (u.silent || w.skewed || w.confirmedByOldToken(u, c)) {
			continue
		}
		first := w.lastVisit(p, u, c)
		p.drain(false)
		last := w.lastVisit(p, u, c)
		p.drain(false)
		if last.status == http.StatusConflict && w.emailTaken(u) {
			w.counts.add("ending: a user whose address an unnoticed ghost holds")
			continue
		}
		w.checkInStep(u)
		barred := u.app.Suspended || u.now().Banned
		switch {
		case barred && last.status != http.StatusForbidden, !barred && last.status != http.StatusOK:
			w.fail("in the end a visit of %s (suspended: %t, banned: %t) is answered %d %s", u.id, u.app.Suspended, u.now().Banned, last.status, last.code)
		case !barred && first.status != http.StatusOK && first.status != http.StatusConflict:
			w.fail("in the end the first visit of %s is answered %d %s", u.id, first.status, first.code)
		case !barred && !u.now().equals(last.served):
			w.fail("in the end the second visit of %s is served\n%+v\nwhere Clerk has\n%+v", u.id, last.served, u.now())
		}
	}
}

// confirmedByOldToken reports whether the user's token confirms a record that is out of
// date, as it is as old itself.
func (w *world) confirmedByOldToken(u *user, c claim) bool {
	s := u.last()
	return c == claimOld && s != nil && s.key.Version != u.now().Version && s.key.Version == w.token(op{claim: c}, u).version
}

func (w *world) lastVisit(p *process, u *user, c claim) *run {
	o := op{kind: visit, claim: c}
	r := w.newRun(p, visit, o, u, 0)
	claim := w.token(o, u)
	p.visitor(context.WithValue(context.Background(), runKey{}, r), r, claim)
	w.visited(r, true, claim)
	return r
}

// emailTaken reports whether a record of somebody who is gone, which nobody has noticed,
// holds the user's address: only Reconcile can tell then.
func (w *world) emailTaken(u *user) bool {
	holder := w.holder(u.id, u.email)
	return holder != nil && !holder.lives()
}

// checkInStep compares the record of one who lives with Clerk.
func (w *world) checkInStep(u *user) {
	r, err := w.store.inner.User(context.Background(), u.id)
	if err != nil {
		w.fail("in the end, the record of %s: %v", u.id, err)
		return
	}
	key := keyOf(r)
	if !u.now().equals(r) || key.SignedIn != u.signedIn || key.Deleted != 0 {
		w.fail("in the end the record of %s is\n%+v\nwhere Clerk has\n%+v signed in at %d", u.id, key, u.now(), u.signedIn)
	}
	w.checkRecord(u, &key)
	w.checkTheme(u)
}

// checkTheme looks at the field that clerksync does not know.
func (w *world) checkTheme(u *user) {
	if !w.able.foreign || u.app.Theme == "" {
		return
	}
	fields, err := w.raw.Fields(context.Background(), u.id)
	if err != nil || fields["theme"] != u.app.Theme {
		w.fail("the app's own field of %s is %v, %v; it wrote %q", u.id, fields["theme"], err, u.app.Theme)
	}
}

// checkGone checks that one whom Clerk deleted is not active.
func (w *world) checkGone(u *user) {
	r, err := w.store.inner.User(context.Background(), u.id)
	switch {
	case errors.Is(err, clerksync.ErrNotFound):
	case err != nil:
		w.fail("in the end, the record of %s: %v", u.id, err)
	case w.able.batch && (r.IsActive || r.DeletedAt.IsZero()):
		w.fail("in the end the record of %s, who is deleted, is %+v", u.id, r)
	default:
		w.checkTheme(u)
	}
}

// checkCount checks that there is one record each, and no other.
func (w *world) checkCount() {
	b, ok := w.store.inner.(clerksync.BatchStore)
	if !ok {
		return
	}
	seen := make(map[string]bool)
	for stamp, err := range b.Undeleted(context.Background()) {
		if err != nil {
			w.fail("Undeleted: %v", err)
			return
		}
		u := w.byID[stamp.ClerkID]
		if u == nil || !u.lives() || seen[stamp.ClerkID] {
			w.fail("in the end there is a record too many of %q", stamp.ClerkID)
		}
		seen[stamp.ClerkID] = true
	}
	if len(seen) != w.living() {
		w.fail("in the end there are %d records of %d users", len(seen), w.living())
	}
	counter, ok := w.store.inner.(Counter)
	if !ok {
		return
	}
	for _, u := range w.users {
		if n, err := counter.Count(context.Background(), u.id); err != nil || n > 1 {
			w.fail("there are %d records of %s, %v", n, u.id, err)
		}
	}
}
