package world

import (
	"context"
	"errors"
	"math"
	"net/http"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// end makes the world quiet and checks that it converges, by a Reconcile or by visits. Webhooks
// that are not delivered yet are delivered later, as old ones.
func (w *world) end(o op, _ moment) {
	defer w.checkLegacy()
	defer w.settleJobs()
	w.clerkOutage.down, w.storeOutage.down = false, false
	for _, p := range w.procs {
		p.drain(false)
	}
	p := w.procs[o.n%len(w.procs)]
	if p.hooks.await {
		w.settleJobs()
	}
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

// disagreement returns how far apart the processes' clocks are. What one process confirmed an hour
// ago may look that much newer or older to another.
func (w *world) disagreement() time.Duration {
	var ahead, behind time.Duration
	for _, p := range w.procs {
		ahead, behind = max(ahead, p.skew), max(behind, -p.skew)
	}
	return ahead + behind
}

// holdback is the reconcile's.
const holdback = 10 * time.Minute

// endByReconcile lets time pass, runs one Reconcile, and checks that all records equal Clerk.
// Without Force a Reconcile does not find what changed without a new version.
func (w *world) endByReconcile(p *process, force bool) {
	w.counts.add(endingReconcile)
	w.clock.Advance(refreshAfter + holdback + time.Minute + w.disagreement())
	options := clerksync.ReconcileOptions{
		Force: force, MaxDeactivations: -1, InstanceID: w.clerk.InstanceID(),
		RequestsPerSecond: math.Inf(1), Writers: 1,
	}
	report, err := w.lastReconcile(p, options)
	if err != nil {
		w.fail("the last Reconcile failed: %v", err)
		return
	}
	for _, u := range w.users {
		switch {
		case !u.lives():
			w.checkGone(u)
		case w.waits(u):
		case force || !u.silent:
			w.checkInStep(u)
		}
	}
	w.checkCount()
	options.DryRun = true
	report, _, err = w.runReconcile(op{kind: reconcile}, moment{p: p}, options, omission{})
	if w.excuses(err) != nil || err == nil && w.able.batch && !report.InStep() && w.stuck() == 0 {
		w.fail("after a Reconcile a dry run finds %+v, %v", report, err)
	}
	waiting, byIndex := w.waiting()
	if found := report.Unlinked.Count + report.Conflicts.Count; found != waiting-byIndex {
		w.fail("a dry run finds %d users who cannot be linked, and there are %d", found, waiting-byIndex)
	}
	// The keys, the count, the only page, and the count again.
	if report.ClerkCalls > 4 {
		w.fail("a Reconcile that finds nothing made %d calls to Clerk", report.ClerkCalls)
	}
}

// lastReconcile is a Reconcile that must write each user who may be written. If records are
// linked, it runs several times, because each link may let another user in.
func (w *world) lastReconcile(p *process, options clerksync.ReconcileOptions) (report clerksync.Report, err error) {
	for range maxLiving + 1 {
		stuck := w.stuck()
		report, _, err = w.runReconcile(op{kind: reconcile}, moment{p: p}, options, omission{})
		if err = w.excuses(err); err != nil || w.stuck() == stuck {
			return report, err
		}
	}
	return report, err
}

// stuck returns how many users a Reconcile cannot write as they are in Clerk.
func (w *world) stuck() int {
	waiting, _ := w.waiting()
	return waiting + w.lacking()
}

// excuses returns the error of a Reconcile, nil if it is only about users who cannot be linked, or
// whose address cannot be written.
func (w *world) excuses(err error) error {
	conflict := (*clerksync.ConflictError)(nil)
	if w.stuck() > 0 && (errors.Is(err, clerksync.ErrUnlinked) || errors.As(err, &conflict)) {
		return nil
	}
	return err
}

// endByVisits lets time pass, makes each user who lives visit twice, and checks that their records
// equal Clerk. A token that confirms a record postpones its re-read for a day. Before that, a
// change without a new version may be missing, and so may what a wrong clock confirmed.
func (w *world) endByVisits(p *process, c claim, wait time.Duration) {
	ending, exact := endingVisits, true
	if c != noClaim {
		ending, exact = endingClaims, wait > refreshAfter
	}
	w.counts.add(ending)
	w.clock.Advance(wait + time.Minute + w.disagreement())
	for _, u := range w.users {
		if u.lives() && (exact || !u.silent && !w.skewed && !w.confirmedByOldToken(u, c)) {
			w.endByVisitsOf(u, p, c)
		}
	}
}

func (w *world) endByVisitsOf(u *user, p *process, c claim) {
	first := w.lastVisit(p, u, c)
	p.drain(false)
	last := w.lastVisit(p, u, c)
	p.drain(false)
	if w.waits(u) {
		if last.status != http.StatusConflict && !(u.now().facts.Banned && last.code == "user_inactive") {
			w.fail("in the end a visit of %s, who cannot be linked, is answered %d %s", u.id, last.status, last.code)
		}
		return
	}
	if p.hooks.await && w.isPending(u.id) {
		if last.code != "job_pending" && last.code != "user_inactive" {
			w.fail("in the end OnCreate has failed for %s, and a visit is answered %d %s", u.id, last.status, last.code)
		}
		return
	}
	w.checkInStep(u)
	if u.app.Suspended || u.now().facts.Banned {
		if last.status != http.StatusForbidden {
			w.fail("in the end a visit of %s (suspended: %t, banned: %t) is answered %d %s",
				u.id, u.app.Suspended, u.now().facts.Banned, last.status, last.code)
		}
		return
	}
	switch {
	case last.status != http.StatusOK:
		w.fail("in the end the second visit of %s is answered %d %s", u.id, last.status, last.code)
	case first.status != http.StatusOK && first.status != http.StatusConflict:
		w.fail("in the end the first visit of %s is answered %d %s", u.id, first.status, first.code)
	case !w.isInStep(u, last.served):
		w.fail("in the end the second visit of %s is served\n%+v\nand Clerk has\n%+v", u.id, last.served, u.now())
	}
}

// confirmedByOldToken reports whether the user's token confirms an outdated record: it is just as
// old, or in seconds, which does not tell a record that was written without a field, and so is a
// millisecond older, from the whole one.
func (w *world) confirmedByOldToken(u *user, c claim) bool {
	s := u.last()
	if s == nil {
		return false
	}
	version, now := s.key.facts.Version, u.now().facts.Version
	if c == claimSeconds {
		return w.opts.UniqueEmail && version == now-1 && version/1000 == now/1000
	}
	return c == claimOld && version != now && version == w.token(op{claim: c}, u).version
}

func (w *world) lastVisit(p *process, u *user, c claim) *run {
	o := op{kind: visit, claim: c}
	p.mayAwait()
	r := w.newRun(p, visit, o, u, 0)
	token := w.token(o, u)
	p.visitor(context.WithValue(context.Background(), runKey{}, r), r, token)
	w.visited(r, true, token)
	return r
}

// checkInStep checks that the record of a user who lives equals Clerk.
func (w *world) checkInStep(u *user) {
	r, err := w.store.inner.User(context.Background(), u.id)
	if err != nil {
		w.fail("in the end, the record of %s: %v", u.id, err)
		return
	}
	key := keyOf(r)
	if !w.isInStep(u, r) || key.SignedIn != u.signedIn || key.Deleted != 0 {
		w.fail("in the end the record of %s is\n%+v\nand Clerk has\n%+v signed in at %d",
			u.id, key, u.now(), u.signedIn)
	}
	w.checkRecord(u, &key)
	w.checkTheme(u)
}

// isInStep reports whether a record equals Clerk's user. An address that cannot be written is not
// compared.
func (w *world) isInStep(u *user, r *clerksync.User) bool {
	s := u.now()
	if !w.lacksAddress(u) {
		return s.equals(r)
	}
	return s.isButForEmail(factsOfRecord(r)) && u.hadAddress(r.Email) && (s.role == "" || r.Role == s.role)
}

// checkTheme checks the field that clerksync does not know.
func (w *world) checkTheme(u *user) {
	if !w.able.foreign || u.app.Theme == "" {
		return
	}
	fields, err := w.raw.Fields(context.Background(), u.id)
	if err != nil || fields["theme"] != u.app.Theme {
		w.fail("the app's field of %s is %v, %v; it wrote %q", u.id, fields["theme"], err, u.app.Theme)
	}
}

// checkGone checks that a user whom Clerk deleted is not active.
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

// checkCount checks that each user who lives has one record, and that there are no others.
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
			w.fail("in the end there is an unexpected record of %q", stamp.ClerkID)
		}
		seen[stamp.ClerkID] = true
	}
	if waiting, _ := w.waiting(); len(seen) != w.living()-waiting {
		w.fail("in the end there are %d records for %d users, of whom %d cannot be linked", len(seen), w.living(), waiting)
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
