package world

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// do runs an operation; around is the one in whose middle it happens, nil for none.
func (w *world) do(o op, around *run) {
	w.trace(o, around)
	u := w.pickUser(o, around)
	p := w.procs[o.proc%len(w.procs)]
	depth := 0
	if around != nil {
		depth = 1
		w.counts.add("in the middle of " + string(around.kind) + ": " + string(o.kind))
	}
	switch o.kind {
	case visit:
		w.visit(o, p, u, around)
	case syncNow:
		w.sync(o, p, u, depth)
	case forget:
		p.syncer.Forget(u.id)
		w.seq++
		w.dropped(p, u, w.seq)
		p.forgot[u.id] = w.seq
	case reconcile:
		w.reconcile(o, p, depth)
	case runRefresh:
		for i := range w.procs {
			p := w.procs[(o.proc+i)%len(w.procs)]
			if n := len(p.parked); n > 0 && (around == nil || around.p != p || around.kind != visit) {
				p.goOn(o.n%n, o, depth)
				break
			}
		}
	case deliver:
		w.deliverNext(o, p, depth)
	case deliverAny:
		if i, ok := w.pickMail(o.n, u); ok {
			w.deliver(o, i, p, depth)
		}
	case deliverAll:
		for range len(w.mail) {
			if !w.deliverNext(op{kind: deliver}, p, depth) {
				break
			}
		}
	case dropHook:
		if i, ok := w.pickMail(o.n, u); ok {
			w.drop(i)
		}
	case doubleHook:
		if i, ok := w.pickMail(o.n, u); ok {
			w.mail = append(w.mail, w.mail[i])
			w.mail[i].copies++
		}
	case delayHook:
		if i, ok := w.pickMail(o.n, u); ok {
			w.mail[i].due = w.clock.Now().Add(o.d + time.Hour)
		}
	case replayHook:
		w.replay(o, p, u, depth)
	case signUp, makeAnew:
		w.newcomer(o)
	case update, silent, silentSignIn, ban, unban, signIn, deleteUser:
		if u.lives() {
			w.clerkDoes(o, u)
		}
		if n := len(w.mail); o.lands && n > 0 && w.mail[n-1].user == u {
			w.deliver(op{kind: deliver}, n-1, p, depth)
		}
		w.clock.Advance(o.d)
	case editApp, suspend, unsuspend:
		w.edit(o, u)
	case pass:
		w.clock.Advance(o.d)
		if around != nil {
			w.trouble(around)
		}
	case clerkDown:
		w.clerkIsDown, w.clerkOutage = true, o.n
		w.clerkOutageEnds = w.steps + 1 + o.n%8
	case storeDown:
		w.storeIsDown = true
		w.storeOutageEnds = w.steps + 1 + o.n%8
	case restart:
		w.restart(o, depth)
	case leave:
		w.leave(around)
	case cancelRun:
		if around.kind == reconcile && around.cancel != nil {
			around.cancel()
			w.trouble(around)
		}
	case quiet:
		w.end(o)
	}
	w.counts.add(string(o.kind))
	if around == nil {
		w.steps++
		w.clerkIsDown = w.clerkIsDown && w.steps < w.clerkOutageEnds
		w.storeIsDown = w.storeIsDown && w.steps < w.storeOutageEnds
		for _, p := range w.procs {
			p.drain(true)
		}
		for _, p := range w.retired {
			p.stop()
		}
		w.retired = nil
		w.align()
	}
}

func (w *world) pickUser(o op, around *run) *user {
	if o.user == sameUser && around != nil && around.user != nil {
		return around.user
	}
	n := len(w.users)
	return w.users[n-1-max(o.user, 0)%n]
}

// pickMail chooses a pending message, one of u's if there is any.
func (w *world) pickMail(n int, u *user) (int, bool) {
	if len(w.mail) == 0 {
		return 0, false
	}
	for i := range w.mail {
		j := (i + n) % len(w.mail)
		if w.mail[j].user == u {
			return j, true
		}
	}
	return n % len(w.mail), true
}

// visit is one visit of a user.
func (w *world) visit(o op, p *process, u *user, around *run) {
	if around != nil && around.kind == visit && around.p == p && around.user == u {
		w.join(around)
		return
	}
	depth := 0
	if around != nil {
		depth = 1
	}
	r := w.newRun(p, visit, o, u, depth)
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), runKey{}, r))
	defer cancel()
	r.cancel, r.returned = cancel, make(chan struct{})
	before := u.last()
	lived := u.lives()
	claim := w.token(o, u)
	p.visitor(ctx, r, claim)
	close(r.returned)
	for _, j := range r.joined {
		<-j.done
	}
	if r.leaves { // its flight is still to land, if nobody joined it
		if len(r.joined) == 0 {
			clock.LookupsEnded(p.syncer, u.id, json.RawMessage(claim.text))
		}
		p.drain(false)
		p.hasty = false
	}
	w.visited(r, lived, claim)
	for _, j := range r.joined {
		w.visited(j.run, lived, freshness{})
	}
	if before != nil && before.key.Banned && before.key.Deleted == 0 && r.status == http.StatusOK && u.unbanLost {
		w.counts.add(banLiftingLost)
		u.unbanLost = false
	}
	if depth > 0 {
		p.drain(true)
	} else {
		p.arrived()
	}
}

// token makes the claim of a visit's token, by Clerk's clock.
func (w *world) token(o op, u *user) (f freshness) {
	s := u.now()
	switch o.claim {
	case noClaim:
		return f
	case claimOld:
		s = &u.states[max(0, len(u.states)-3)]
	case claimSeconds:
		f.seconds = true
		f.version = s.Version / 1000 * 1000
		f.text = number(s.Version / 1000)
		if n := len(u.states); n > 1 && u.states[n-2].Version != s.Version && u.states[n-2].Version/1000 == s.Version/1000 {
			w.counts.add(twoInASecond)
		}
		return f
	}
	f.version, f.text = s.Version, number(s.Version)
	return f
}

// visited checks a visit's answer.
func (w *world) visited(r *run, lived bool, claim freshness) {
	name := "visit " + number(int64(r.status))
	if r.code != "" {
		name += " " + r.code
	}
	w.counts.add(name)
	u, healthy := r.user, r.healthy()
	if u.lives() && r.code == "user_unknown" {
		w.fail("a visit of %s, whom Clerk has, was answered 403 user_unknown", u.id)
	}
	if w.inval(r) {
		w.counts.add(invalidatedLoad)
	}
	if !healthy {
		return
	}
	switch {
	case r.status == http.StatusOK, r.status == http.StatusConflict, r.code == "user_unknown":
	case r.code == "user_inactive":
		if !w.wasRefused(r) {
			w.fail("a visit of %s was refused as inactive, and the record was not within its cache's time: %+v", u.id, u.last())
		}
	default:
		w.fail("a visit of %s was answered %d %s with nothing amiss", u.id, r.status, r.code)
	}
	if r.status != http.StatusOK || claim.version == 0 || w.clock.Now().Sub(w.lastTrouble) < 2*time.Minute || !lived || !u.lives() {
		return
	}
	have := ms(r.served.ClerkUpdatedAt)
	if claim.seconds {
		have = have / 1000 * 1000
	}
	if have < claim.version {
		w.fail("a visit of %s with a token of version %d got a record of version %d", u.id, claim.version, have)
	}
}

// inval reports whether r's process dropped what it was loading.
func (w *world) inval(r *run) bool {
	w.flights.Lock()
	defer w.flights.Unlock()
	return r.storeRead > 0 && r.p.forgot[r.user.id] > r.storeRead
}

// wasRefused reports whether some state of the record that a visit may have seen bars
// its user.
func (w *world) wasRefused(r *run) bool {
	for _, s := range slices.Backward(r.user.records) {
		if s.until != 0 && r.start.Sub(s.supersededAt) > r.p.ttl {
			return false
		}
		if s.key.refused() {
			return true
		}
	}
	return false
}

// join is a second visit of the user whose visit is being looked up: it waits for that
// very flight, which cannot land before this function returns. So it is left waiting.
func (w *world) join(around *run) {
	if around.op.claim != noClaim || around.p.ttl <= 0 || around.joiners >= 3 || around.leaves {
		return
	}
	around.joiners++
	visitor := *around // with what troubles the one around, and an answer of its own
	r := &visitor
	r.served, r.status, r.code, r.leaves, r.joined = nil, 0, "", false, nil
	ctx := &joining{Context: context.WithValue(context.Background(), runKey{}, around), waits: make(chan struct{})}
	done := make(chan struct{})
	joins := !w.forgotten(around) // now: where it was, the visitor's own flight takes the place of the one around
	go func() {
		defer close(done)
		around.p.visitor(ctx, r, freshness{})
	}()
	if joins {
		select {
		case <-ctx.waits:
			w.counts.add("a visitor joined a flight")
			around.joined = append(around.joined, joined{r, done})
			return
		case <-done:
		}
	}
	<-done // its own flight lands by itself
	w.visited(r, true, freshness{})
}

// joined is a visitor who waits for a flight that another one began.
type joined struct {
	run  *run
	done chan struct{}
}

// forgotten reports whether the flight of r was forgotten, so that the next visitor
// begins another.
func (w *world) forgotten(r *run) bool {
	w.flights.Lock()
	defer w.flights.Unlock()
	return r.p.forgot[r.user.id] > r.flight
}

// joining is a context that tells when its visitor begins to wait.
type joining struct {
	context.Context
	once  sync.Once
	waits chan struct{}
}

func (c *joining) Done() <-chan struct{} {
	c.once.Do(func() { close(c.waits) })
	return c.Context.Done()
}

// leave makes the visitor around give up, with its flight under way.
func (w *world) leave(around *run) {
	if around.kind != visit || around.returned == nil || around.leaves {
		return
	}
	around.leaves = true
	w.counts.add(firstWaiterLeaves)
	around.p.hasty = true
	around.p.drain(false)
	around.cancel()
	<-around.returned
	around.p.drain(false) // it may have been served what was cached, and a refresh be due
}

// sync is Sync.
func (w *world) sync(o op, p *process, u *user, depth int) {
	r := w.newRun(p, syncNow, o, u, depth)
	lived := u.lives()
	res, err := p.syncer.Sync(context.WithValue(context.Background(), runKey{}, r), u.id)
	w.invalidated(r)
	if err == nil {
		w.dropped(p, u, r.wroteAt)
	}
	var conflict *clerksync.ConflictError
	switch {
	case err == nil && res.Outcome == clerksync.Deactivated:
		p.known[u.id] = w.clock.Now()
	case err == nil:
		last := u.last()
		// Where a clock is ahead, its confirmations are not believed, and an older event
		// of the same version that comes after the Sync's own write is.
		overtaken := w.ahead && last != nil && last.from > r.wroteAt+1
		if last == nil || last.key.Deleted == 0 && p.isRight(r) && !overtaken && !u.wasSince(last.key.facts, ms(r.start)) {
			w.fail("after Sync the record of %s is not what Clerk had since: %+v", u.id, last)
		}
	case errors.Is(err, clerksync.ErrUserUnknown):
		if u.lives() {
			w.fail("Sync of %s, whom Clerk has: %v", u.id, err)
		}
	case errors.As(err, &conflict):
		w.counts.add("Sync in conflict")
	case r.healthy() && lived:
		w.fail("Sync of %s failed with nothing amiss: %v", u.id, err)
	}
}

// isRight reports whether the time of a run's reading is to be believed over what other
// processes wrote: its clock is right, and where another's is ahead, no time passed.
func (p *process) isRight(r *run) bool {
	return p.skew == 0 && (!p.w.ahead || p.w.clock.Now().Equal(r.start))
}

// dropped notes that what the process had of a user from before at is not to be served
// any more.
func (w *world) dropped(p *process, u *user, at uint64) { p.floor[u.id] = max(p.floor[u.id], at) }

// invalidated notes the users that an operation made its process load anew, whatever
// came of it.
func (w *world) invalidated(r *run) {
	w.seq++
	for _, id := range r.offers {
		r.p.forgot[id] = w.seq
	}
}

// deliverNext delivers the message that is due the longest; false where none is.
func (w *world) deliverNext(o op, p *process, depth int) bool {
	best := -1
	for i, m := range w.mail {
		if !m.due.After(w.clock.Now()) && (best < 0 || m.due.Before(w.mail[best].due)) {
			best = i
		}
	}
	if best >= 0 {
		w.deliver(o, best, p, depth)
	}
	return best >= 0
}

// deliver makes one attempt.
func (w *world) deliver(o op, i int, p *process, depth int) {
	m := w.mail[i]
	w.mail = slices.Delete(w.mail, i, i+1)
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
		w.fail("%s of %s was answered %d with nothing amiss", m.Type, m.user.id, status)
	}
	if m.attempts < len(retryDelays) {
		m.due = w.clock.Now().Add(retryDelays[m.attempts])
		m.attempts++
		w.mail = append(w.mail, m)
	} else {
		m.lost = true
		w.counts.add("webhook failed for good")
	}
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

// acknowledged checks that the write was done before the webhook was answered.
func (w *world) acknowledged(m *message, p *process, r *run) {
	u := m.user
	m.applied, m.lost = true, false
	w.seq++
	u.webhookAt = w.seq
	w.dropped(p, u, r.wroteAt)
	s := u.last()
	switch {
	case m.version == 0:
		p.known[u.id] = w.clock.Now()
		if s == nil || s.key.Deleted == 0 {
			w.fail("the deletion of %s was acknowledged, and the record is %+v", u.id, s)
		}
	case s == nil || s.key.Deleted == 0 && s.key.Version < m.version:
		w.fail("%s of %s at version %d was acknowledged, and the record is %+v", m.Type, u.id, m.version, s)
	case s.key.Deleted != 0 && r.sawDeleted:
		p.known[u.id] = w.clock.Now()
	}
}

// replay delivers an old message once more.
func (w *world) replay(o op, p *process, u *user, depth int) {
	var of []*message
	for _, m := range w.sent {
		if m.user == u {
			of = append(of, m)
		}
	}
	if len(of) == 0 {
		return
	}
	m := of[len(of)-1-o.n%len(of)]
	w.attempt(o, m, p, depth)
}

// maxLiving bounds the population, and with it what an ending costs.
const maxLiving = 8

func (w *world) newcomer(o op) {
	if w.living() >= maxLiving {
		return
	}
	email := ""
	if o.kind == makeAnew {
		email = w.emailOfDeleted()
		if email == "" {
			return
		}
		w.counts.add(madeAnew)
	}
	w.signUp(email)
}

func (w *world) living() (n int) {
	for _, u := range w.users {
		if u.lives() {
			n++
		}
	}
	return n
}

// emailOfDeleted is an address that no living user has.
func (w *world) emailOfDeleted() string {
	for _, u := range slices.Backward(w.users) {
		if !u.lives() && !slices.ContainsFunc(w.users, func(other *user) bool { return other.lives() && other.email == u.email }) {
			return u.email
		}
	}
	return ""
}

// clerkDoes is a change in Clerk.
func (w *world) clerkDoes(o op, u *user) {
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
		w.lost(o.flag, func() { w.ban(u, true) })
	case unban:
		if i := slices.IndexFunc(w.users, func(u *user) bool { return u.lives() && u.now().Banned }); i >= 0 {
			u = w.users[i]
		}
		s := u.last()
		banned := s != nil && s.key.Banned && s.key.Deleted == 0
		w.lost(o.flag, func() { w.ban(u, false) })
		u.unbanLost = o.flag && banned
	case deleteUser:
		if w.living() > 1 {
			w.lost(o.flag, func() { w.delete(u) })
		}
	}
}

// edit is the app's own write to its database.
func (w *world) edit(o op, u *user) {
	s := u.last()
	if w.raw == nil || s == nil || s.key.Deleted != 0 {
		return
	}
	app := u.app
	fields := make(map[string]any)
	switch {
	case o.kind == suspend:
		app.Suspended = true
		fields["isActive"] = false
	case o.kind == unsuspend:
		app.Suspended = false
		fields["isActive"] = true
	case o.n%3 == 0 && w.able.foreign:
		app.Theme = "theme " + number(int64(o.n))
		fields["theme"] = app.Theme
	case o.n%2 == 0:
		app.City = "City " + number(int64(o.n))
		fields["location.city"] = app.City
	default:
		app.Role = clerksync.Role([]string{"TEACHER", "ADMIN", "MENTOR"}[o.n%3])
		fields["role"] = string(app.Role)
		u.edited = true
		u.silent = u.silent || u.now().role != ""
	}
	u.app = app
	w.must(w.raw.SetFields(context.Background(), u.id, fields))
	w.store.note(u.id, false)
}

// restart replaces a process by a new one, whose caches are cold. In the middle of an
// operation the old one lives on until that is over.
func (w *world) restart(o op, depth int) {
	i := o.proc % len(w.procs)
	old := w.procs[i]
	w.procs[i] = w.newProcess(old.skew, o.n)
	if depth > 0 {
		w.retired = append(w.retired, old)
		return
	}
	old.stop()
}

// reconcile is one Reconcile. Its Clerk may leave users out of its lists.
func (w *world) reconcile(o op, p *process, depth int) {
	opts := clerksync.ReconcileOptions{
		DryRun: o.n&1 != 0 && o.n&2 != 0, Force: o.n&4 != 0,
		PageSize: []int{500, 1, 3, 500}[o.n&pageSizes>>3], Writers: 1, RequestsPerSecond: math.Inf(1),
	}
	if o.n&32 != 0 {
		opts.MaxDeactivations = -1
	}
	if o.n&64 != 0 {
		opts.InstanceID = w.clerk.InstanceID()
	}
	resumed := w.resume
	if resumed != nil {
		opts.DryRun, opts.Force, opts.Resume = resumed.dry, resumed.force, resumed.point
		w.resume = nil
		w.counts.add("Reconcile resumed")
	}
	omits := omission{}
	if depth == 0 && resumed == nil {
		omits = w.omission(o.n>>7&3, p)
	}
	report, untroubled, err := w.runReconcile(o, p, depth, opts, omits)
	switch {
	case err == nil:
		w.counts.add("Reconcile finished")
	case report.Resume != "":
		w.resume = &resumePoint{report.Resume, opts.DryRun, opts.Force}
	}
	if errors.Is(err, context.Canceled) {
		w.counts.add("Reconcile cancelled")
	}
	if opts.DryRun {
		w.counts.add("Reconcile dry run")
	}
	if omits.lists && !omits.count && len(o.breaks) == 0 && untroubled {
		if !errors.Is(err, clerksync.ErrIncomplete) && !errors.Is(err, clerksync.ErrWrongInstance) {
			w.fail("Clerk counted %d users that it did not list, and Reconcile's error is %v", len(omits.ids), err)
		}
	}
}

type resumePoint struct {
	point      string
	dry, force bool
}

func (w *world) runReconcile(o op, p *process, depth int, opts clerksync.ReconcileOptions, omits omission) (_ clerksync.Report, untroubled bool, _ error) {
	r := w.newRun(p, reconcile, o, nil, depth)
	r.dry, r.omits = opts.DryRun, omits
	r.pages = newPages("")
	opts.Progress = func(progress clerksync.Progress) {
		if progress.Phase == clerksync.PhaseUsers && progress.Throttled.IsZero() {
			r.pages.finish()
		}
	}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), runKey{}, r))
	defer cancel()
	r.cancel = cancel
	w.reconciling++
	report, err := p.syncer.Reconcile(ctx, opts)
	w.reconciling--
	w.invalidated(r)
	for _, id := range r.deactivated {
		p.known[id] = w.clock.Now()
	}
	return report, w.troubles == r.troubles && !w.clerkIsDown && !w.storeIsDown, err
}

// The ways in which Clerk's lists may be short.
const (
	lagging     = "Clerk's replica lags behind"
	missingOne  = "Clerk's lists lack a user"
	missingMany = "Clerk's lists are short of its count"
)

// omission chooses what Clerk leaves out.
func (w *world) omission(n int, p *process) omission {
	ids := make(map[string]bool)
	living := slices.DeleteFunc(slices.Clone(w.users), func(u *user) bool { return !u.lives() })
	switch n {
	case 1:
		if p.skew > 0 {
			break // its idea of a young record is another
		}
		for _, u := range living {
			if ms(w.clock.Now())-u.born < lagsBy.Milliseconds() {
				ids[u.id] = true
			}
		}
		if len(ids) > 0 {
			w.counts.add(lagging)
			return omission{lists: true, one: true, count: true, young: true, ids: ids}
		}
	case 2:
		ids[living[len(w.sent)%len(living)].id] = true
		w.counts.add(missingOne)
		return omission{lists: true, count: true, ids: ids}
	case 3:
		for _, u := range living[len(living)/2:] {
			ids[u.id] = true
		}
		w.counts.add(missingMany)
		return omission{lists: true, ids: maps.Clone(ids)}
	}
	return omission{}
}
