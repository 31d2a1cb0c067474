package clerksync_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

var (
	exploreSchedules = flag.Int("explore.schedules", 500, "how many schedules TestExplore runs")
	exploreSeed      = flag.Uint64("explore.seed", 1, "the seed of TestExplore's first schedule; the others follow")
)

// TestExplore searches for interleavings that break the promise. In each schedule two
// processes, each with a Syncer, share a Store and one Clerk user. Visits, events, Syncs
// and the app's own changes run at the same time, and stop at every call to the Store or
// to Clerk. A random scheduler decides which of them goes on. Time is synctest's, so a
// schedule takes about a millisecond.
//
// A seed repeats the choices. It does not always repeat the order in which goroutines
// come to a stop, so a failing seed may need a few runs.
func TestExplore(t *testing.T) {
	seen := make(map[string]int)
	for i := range *exploreSchedules {
		seed := *exploreSeed + uint64(i)
		var s *schedule
		synctest.Test(t, func(t *testing.T) { s = runSchedule(t, seed) })
		if len(s.violations) > 0 {
			t.Fatalf("seed %d: %s\n%s", seed, s.violations[0], strings.Join(s.trace, "\n"))
		}
		for what, n := range s.seen {
			seen[what] += n
		}
	}
	t.Logf("%d schedules from seed %d: %v", *exploreSchedules, *exploreSeed, seen)
	for _, what := range []string{
		"let in", "refused", "unavailable", "two visits at once", "event", "sync",
		"suspension", "ban", "deletion", "store failure", "clerk failure", "rate limit", "unconfirmed record", "eviction",
		"unwritten ban", "record from before Clerk", "adoption", "held back",
		"jobs", "OnCreate", "OnDelete", "a version without OnCreate", "a slow function", "a failed function", "the end of a job",
	} {
		if seen[what] == 0 && *exploreSchedules >= 500 {
			t.Errorf("no schedule had: %s", what)
		}
	}
}

const exploredID = "user_explored"

// schedule is one run: the scheduler, the world it schedules, and what it has seen.
type schedule struct {
	rng    *rand.Rand // used by the scheduling goroutine alone
	faults bool       // calls to the Store and to Clerk may fail
	ending bool       // from now on they do not
	clerk  *exploredClerk
	store  *memstore.Store
	legacy *adoptStore   // the same with a record from before Clerk, nil for none
	jobs   *exploredJobs // nil for an app without OnCreate and OnDelete
	procs  []*exploredProcess
	events []clerksync.Event // every event so far, delivered or not

	mu         sync.Mutex
	parked     []*parkedCall
	running    int    // operations that have not ended
	visiting   int    // visits among them
	suspended  []bool // whether the app suspended the user, now and before
	trace      []string
	violations []string
	seen       map[string]int
}

// parkedCall is a goroutine that waits at a call for its turn.
type parkedCall struct {
	label string
	turn  chan bool // true if the call is to fail
}

func runSchedule(t *testing.T, seed uint64) *schedule {
	s := &schedule{
		rng: rand.New(rand.NewPCG(seed, 0)), store: memstore.New(),
		suspended: []bool{false}, seen: make(map[string]int),
	}
	s.faults = s.rng.IntN(2) == 0
	s.clerk = &exploredClerk{schedule: s, states: []clerkState{{version: time.Now().Add(-time.Hour).UnixMilli(), created: 1000}}}
	switch s.rng.IntN(4) {
	case 0:
		s.importRecord(t)
	case 1:
		s.keepLegacy()
	}
	if s.legacy == nil && s.rng.IntN(2) == 0 {
		s.jobs = newExploredJobs(s)
	}
	for i := range 2 {
		s.procs = append(s.procs, newExploredProcess(t, s, fmt.Sprintf("P%d", i)))
	}
	for range 80 {
		synctest.Wait()
		if s.count(&s.running) < 4 && s.rng.IntN(3) == 0 || !s.resumeOne() {
			s.begin()
		}
	}
	s.ending = true
	s.drain()
	s.checkConvergence(t)
	for _, p := range s.procs {
		_ = p.syncer.Close()
	}
	return s
}

// importRecord makes a record that Clerk has never confirmed.
func (s *schedule) importRecord(t *testing.T) {
	_, err := s.store.Upsert(t.Context(), &clerksync.User{ClerkID: exploredID, Role: clerksync.RoleAdmin})
	if err == nil {
		err = s.store.Edit(exploredID, func(u *clerksync.User) { u.SyncedAt, u.ClerkUpdatedAt = time.Time{}, time.Time{} })
	}
	if err != nil {
		t.Fatal(err)
	}
	s.note("the app has imported the record")
	s.saw("unconfirmed record")
}

// keepLegacy makes a record from before Clerk that has the user's address.
func (s *schedule) keepLegacy() {
	inner := &countingStore{}
	inner.Store = s.store
	s.legacy = &adoptStore{countingStore: inner, legacy: []*legacyRecord{{id: "65f0", email: adaEmail}}}
	s.clerk.states[0].hasEmail = true
	s.note("the app has a record from before Clerk")
	s.saw("record from before Clerk")
}

// linked reports whether the record from before Clerk is the user's.
func (s *schedule) linked() bool {
	s.legacy.mu.Lock()
	defer s.legacy.mu.Unlock()
	return s.legacy.legacy[0].linked != ""
}

// checkUpsert checks that the Store made no record beside the one from before Clerk, and that the user
// whom it linked had proven the address in the version that was offered.
func (s *schedule) checkUpsert(u *clerksync.User, outcome clerksync.Outcome) {
	switch {
	case s.legacy == nil:
	case outcome == clerksync.Created:
		s.violate("the user is created beside the record from before Clerk")
	case outcome == clerksync.Adopted:
		s.saw("adoption")
		offered := func(st clerkState) bool { return st.version == u.ClerkUpdatedAt.UnixMilli() && st.proven }
		if !slices.ContainsFunc(s.clerk.all(), offered) {
			s.violate("the user is linked, and had not proven the address in %v", describeRecord(u))
		}
	}
}

// park stops the caller until the scheduler resumes it, and reports whether its call is to
// fail.
func (s *schedule) park(format string, args ...any) (fail bool) {
	p := &parkedCall{fmt.Sprintf(format, args...), make(chan bool)}
	s.mu.Lock()
	s.parked = append(s.parked, p)
	s.mu.Unlock()
	return <-p.turn
}

// resumeOne lets one of the parked calls go on. It returns false if there is none.
func (s *schedule) resumeOne() bool {
	s.mu.Lock()
	if len(s.parked) == 0 {
		s.mu.Unlock()
		return false
	}
	slices.SortStableFunc(s.parked, func(a, b *parkedCall) int { return strings.Compare(a.label, b.label) })
	i := s.rng.IntN(len(s.parked))
	p := s.parked[i]
	s.parked = slices.Delete(s.parked, i, i+1)
	fail := s.faults && !s.ending && s.rng.IntN(12) == 0
	if fail {
		p.label += " FAILS"
	}
	s.trace = append(s.trace, "    "+p.label)
	s.mu.Unlock()
	p.turn <- fail
	return true
}

func (s *schedule) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trace = append(s.trace, fmt.Sprintf(format, args...))
}

func (s *schedule) violate(format string, args ...any) {
	s.note("*** "+format, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violations = append(s.violations, fmt.Sprintf(format, args...))
}

func (s *schedule) saw(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[what]++
}

func (s *schedule) count(n *int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *n
}

func (s *schedule) add(n *int, delta int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*n += delta
}

// begin begins a random operation, of a random process.
func (s *schedule) begin() {
	p := s.procs[s.rng.IntN(len(s.procs))]
	switch r := s.rng.IntN(24); {
	case r < 5:
		s.changeUser()
	case r < 13:
		s.run(p.visit(s.drawToken()))
	case r < 17 && len(s.events) > 0:
		s.run(p.apply(s.drawEvent()))
	case r < 18:
		s.run(p.sync())
	case r < 19:
		p.toggleSuspension()
	case r < 20 && s.jobs != nil:
		s.run(p.drainJobs())
	case r < 21:
		clerksync.Evict(p.syncer, exploredID)
		p.learn(func(k *knowledge) { k.heard = heard{} })
		s.note("%s: the cache drops the record", p.name)
		s.saw("eviction")
	default:
		s.passTime()
	}
}

func (s *schedule) run(operation func()) {
	s.add(&s.running, 1)
	go func() {
		operation()
		s.add(&s.running, -1)
	}()
}

// changeUser changes the user in Clerk, which sends an event.
func (s *schedule) changeUser() {
	state := s.clerk.now()
	if state.deleted {
		return
	}
	kind := "user.updated"
	state.version++
	switch r := s.rng.IntN(20); {
	case r < 9:
		state.banned = !state.banned
		s.saw("ban")
	case r < 10:
		state.deleted = true
		kind = "user.deleted"
		s.saw("deletion")
	case r < 15 && s.legacy != nil:
		state.proven = !state.proven
	}
	s.clerk.set(state)
	id := strconv.Itoa(len(s.events))
	told := state
	told.proven = state.proven && s.rng.IntN(2) == 0 // an event may lack the proof
	s.events = append(s.events, clerksync.Event{ID: id, Type: kind, Timestamp: time.Now(), Data: told.json()})
	s.note("Clerk's user is %v", state)
}

// drawEvent draws an event to deliver: the latest, or any, which may be late or repeated.
func (s *schedule) drawEvent() clerksync.Event {
	if s.rng.IntN(2) == 0 {
		return s.events[len(s.events)-1]
	}
	return s.events[s.rng.IntN(len(s.events))]
}

// drawToken draws a visitor's token version: the latest, the one before, or none (0).
func (s *schedule) drawToken() int64 {
	if s.rng.IntN(2) == 0 {
		return 0
	}
	states := s.clerk.all()
	return states[max(0, len(states)-1-s.rng.IntN(2))].version
}

// passTime moves the clock: by a second while calls are under way, which must not time out
// too often, else by up to a minute.
func (s *schedule) passTime() {
	s.mu.Lock()
	busy := slices.ContainsFunc(s.parked, func(p *parkedCall) bool { return !isFunction(p.label) })
	s.mu.Unlock()
	d := time.Second
	if !busy {
		d = []time.Duration{time.Second, 20 * time.Second, 31 * time.Second, 61 * time.Second}[s.rng.IntN(4)]
	}
	s.note("%v pass", d)
	time.Sleep(d)
}

// checkConvergence delivers the last event everywhere. Then the record, and what each process
// serves, must be Clerk's latest state.
func (s *schedule) checkConvergence(t *testing.T) {
	state := s.clerk.now()
	s.jobs.settle(t)
	defer s.jobs.settle(t)
	for _, p := range s.procs {
		s.forgetUnlinked()
		if len(s.events) > 0 {
			s.run(p.apply(s.events[len(s.events)-1]))
		} else {
			s.run(p.sync())
		}
		s.drain()
	}
	s.mu.Lock()
	suspended := s.suspended[len(s.suspended)-1]
	s.mu.Unlock()
	for _, p := range s.procs {
		s.forgetUnlinked()
		p.syncer.Forget(exploredID) // the app may have changed the record in the other process
		var u *clerksync.User
		var err error
		s.run(func() { u, err = p.syncer.User(t.Context(), exploredID) })
		s.drain()
		barred := state.banned || state.deleted || suspended
		switch {
		case s.mustWait(state):
			if !errors.Is(err, clerksync.ErrUnlinked) && !(state.banned && errors.Is(err, clerksync.ErrUserInactive)) {
				s.violate("%s: at the end the user is %v and must not be linked; the visit got %v", p.name, state, err)
			}
		case barred && !errors.Is(err, clerksync.ErrUserInactive):
			s.violate("%s: at the end the user is %v, suspended %t; the visit got %v", p.name, state, suspended, err)
		case !barred && (err != nil || u.ClerkUpdatedAt.UnixMilli() != state.version):
			s.violate("%s: at the end the user is %v; the visit got %v, %v", p.name, state, describeRecord(u), err)
		}
	}
}

// forgetUnlinked lets so much time pass that every process asks Clerk again about a user who was held
// back.
func (s *schedule) forgetUnlinked() {
	if s.legacy != nil {
		time.Sleep(2 * time.Minute)
		s.drain()
	}
}

// mustWait reports whether the user must not be linked to the record from before Clerk, and was not.
func (s *schedule) mustWait(state clerkState) bool {
	return s.legacy != nil && !state.proven && !state.deleted && !s.linked()
}

// clerkState is Clerk's user at one time.
type clerkState struct {
	version          int64 // updated_at in milliseconds
	banned, deleted  bool
	created          int64 // in milliseconds
	hasEmail, proven bool  // the user has an address, and has proven to control it
}

func (st clerkState) String() string {
	return fmt.Sprintf("version %d, banned %t, deleted %t, proven %t", st.version%100_000, st.banned, st.deleted, st.proven)
}

func (st clerkState) json() json.RawMessage {
	email, strategy := "", "admin"
	if st.proven {
		strategy = "email_code"
	}
	if st.hasEmail {
		email = fmt.Sprintf(`,"primary_email_address_id":"idn_1","email_addresses":[{"id":"idn_1","email_address":%q,`+
			`"verification":{"status":"verified","strategy":%q}}]`, adaEmail, strategy)
	}
	return json.RawMessage(fmt.Sprintf(`{"id":%q,"banned":%t,"created_at":%d,"updated_at":%d%s}`, exploredID, st.banned, st.created, st.version, email))
}

// exploredClerk is a Backend with one user.
type exploredClerk struct {
	schedule *schedule

	mu     sync.Mutex
	states []clerkState // all there ever were
}

func (c *exploredClerk) now() clerkState { all := c.all(); return all[len(all)-1] }

func (c *exploredClerk) all() []clerkState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.states)
}

func (c *exploredClerk) set(st clerkState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.states = append(c.states, st)
}

func (c *exploredClerk) Call(ctx context.Context, _ *clerk.APIRequest, out clerk.ResponseReader) error {
	c.schedule.park("Clerk is asked")
	st := c.now()
	fail := c.schedule.park("Clerk answers: %v", st)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case fail && st.version%2 == 0:
		c.schedule.saw("rate limit")
		return &clerk.APIErrorResponse{HTTPStatusCode: http.StatusTooManyRequests}
	case fail:
		c.schedule.saw("clerk failure")
		return errors.New("Clerk is down")
	case st.deleted:
		return &clerk.APIErrorResponse{HTTPStatusCode: http.StatusNotFound, Errors: []clerk.Error{{Code: "resource_not_found"}}}
	}
	return json.Unmarshal(st.json(), out)
}

// exploredStore stops before and after each call.
type exploredStore struct {
	schedule  *schedule
	process   *exploredProcess
	name      string
	store     clerksync.Store
	withholds bool // an Updated does not return the record, as with mongostore
	answers   atomic.Int32
}

var errExploredStore = errors.New("the Store is down")

func (d *exploredStore) User(ctx context.Context, id string) (*clerksync.User, error) {
	if d.schedule.park("%s: Store.User", d.name) {
		d.schedule.saw("store failure")
		return nil, errExploredStore
	}
	u, err := d.store.User(ctx, id)
	d.schedule.park("%s: Store.User returns %v, %v", d.name, describeRecord(u), err)
	d.answers.Add(1)
	return u, err
}

func (d *exploredStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	if d.schedule.park("%s: Store.Upsert(%v)", d.name, describeRecord(u)) {
		return clerksync.Result{}, errExploredStore
	}
	res, err := d.store.Upsert(ctx, u)
	d.schedule.checkUpsert(u, res.Outcome)
	d.schedule.jobs.upserted(d.process, u, res.Outcome)
	if d.schedule.park("%s: Store.Upsert returns %v", d.name, res.Outcome) {
		return clerksync.Result{}, errExploredStore // the answer is lost
	}
	d.answers.Add(1)
	if d.withholds && res.Outcome == clerksync.Updated {
		res.User = nil
	}
	return res, err
}

func (d *exploredStore) Deactivate(ctx context.Context, id string, at time.Time) (clerksync.Result, error) {
	if d.schedule.park("%s: Store.Deactivate", d.name) {
		return clerksync.Result{}, errExploredStore
	}
	res, err := d.store.Deactivate(ctx, id, at)
	if d.schedule.park("%s: Store.Deactivate returns", d.name) {
		return clerksync.Result{}, errExploredStore // the answer is lost
	}
	if d.withholds {
		res.User = nil
	}
	return res, err
}

func describeRecord(u *clerksync.User) string {
	if u == nil {
		return "no record"
	}
	return fmt.Sprintf("version %d, banned %t, active %t, deleted %t",
		u.ClerkUpdatedAt.UnixMilli()%100_000, u.Banned, u.IsActive, !u.DeletedAt.IsZero())
}

// exploredProcess is a process of the app.
type exploredProcess struct {
	schedule *schedule
	name     string
	syncer   *clerksync.Syncer
	caches   bool
	hooks    bool // it has OnCreate and OnDelete
	number   int  // of its operations

	mu    sync.Mutex
	knows knowledge
	store *exploredStore
}

// knowledge is what completed operations of a process have shown it. A visit that begins
// later must not get anything older.
type knowledge struct {
	version    int64     // the latest version
	confirmed  time.Time // the latest SyncedAt of that version
	deleted    bool
	linked     bool // the user has a record
	suspension int  // the index in schedule.suspended at the process's last Forget
	heard      heard
}

// heard is what the last event said that could not be written, until the cache drops the record.
type heard struct {
	ban     int64 // the version of the ban
	deleted bool
	answers int // of the Store until then
	at      time.Time
}

func newExploredProcess(t *testing.T, s *schedule, name string) *exploredProcess {
	p := &exploredProcess{schedule: s, name: name}
	p.store = &exploredStore{schedule: s, process: p, name: name, store: s.store, withholds: s.rng.IntN(3) > 0}
	if s.legacy != nil {
		p.store.store = s.legacy
	}
	cfg := clerksync.Config{
		Store:   p.store,
		Backend: s.clerk, CacheSize: 100, RefreshAfter: time.Hour,
		Logger: slog.New(slog.DiscardHandler),
		Auth:   clerksync.AuthConfig{TokenCacheSize: -1},
	}
	switch s.rng.IntN(6) {
	case 0:
		cfg.CacheTTL = -1
	case 1, 2:
		cfg.CacheTTL = 500 * time.Millisecond // ends while calls are under way
	}
	if s.rng.IntN(2) == 0 {
		cfg.RefreshAfter = 40 * time.Second
	}
	if s.jobs != nil {
		s.jobs.configure(p, &cfg)
	}
	p.caches = cfg.CacheTTL >= 0
	var err error
	if p.syncer, err = clerksync.New(cfg); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *exploredProcess) learn(change func(*knowledge)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.knows)
}

func (p *exploredProcess) learnVersion(v int64) {
	p.learn(func(k *knowledge) {
		if v > k.version {
			k.version, k.confirmed = v, time.Time{}
		}
	})
}

// learnRecord is learnVersion for a record that a visit got.
func (p *exploredProcess) learnRecord(u *clerksync.User) {
	p.learnVersion(u.ClerkUpdatedAt.UnixMilli())
	p.learn(func(k *knowledge) {
		k.linked = true
		if u.ClerkUpdatedAt.UnixMilli() == k.version && u.SyncedAt.After(k.confirmed) {
			k.confirmed = u.SyncedAt
		}
	})
}

// next names the next operation of the process.
func (p *exploredProcess) next(what string) string {
	p.number++
	return fmt.Sprintf("%s %s %d", p.name, what, p.number)
}

// visit is a request of the user through the middleware.
func (p *exploredProcess) visit(token int64) func() {
	s, name := p.schedule, p.next("visit")
	p.mu.Lock()
	before := p.knows
	p.mu.Unlock()
	s.note("%s begins, token version %d, known: %+v", name, token%100_000, before)
	custom := &clerksync.FreshnessClaims{}
	if token != 0 {
		custom.UpdatedAt = json.RawMessage(strconv.FormatInt(token, 10))
	}
	claims := &clerk.SessionClaims{RegisteredClaims: clerk.RegisteredClaims{Subject: exploredID}, Custom: custom}
	return func() {
		s.add(&s.visiting, 1)
		defer s.add(&s.visiting, -1)
		if s.count(&s.visiting) > 1 {
			s.saw("two visits at once")
		}
		var u *clerksync.User
		handler := p.syncer.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			u, _ = clerksync.UserFromContext(r.Context())
		}))
		answer := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		handler.ServeHTTP(answer, r.WithContext(clerk.ContextWithSessionClaims(r.Context(), claims)))
		s.note("%s gets %d, %s", name, answer.Code, describeRecord(u))
		switch answer.Code {
		case http.StatusOK:
			s.saw("let in")
			s.jobs.checkLetIn(p, name)
			p.checkLetIn(name, before, u)
			p.learnRecord(u)
		case http.StatusForbidden:
			s.saw("refused")
			p.checkRefused(name, before)
			p.learnBan(before)
		case http.StatusServiceUnavailable:
			s.saw("unavailable")
		case http.StatusConflict:
			s.saw("held back")
			if s.legacy == nil || before.linked {
				s.violate("%s is held back, but the process knew a record before it began", name)
			}
		default:
			s.violate("%s gets %d", name, answer.Code)
		}
	}
}

// checkLetIn checks the record of a visit that went through.
func (p *exploredProcess) checkLetIn(name string, before knowledge, u *clerksync.User) {
	s := p.schedule
	if v := u.ClerkUpdatedAt.UnixMilli(); v < before.version {
		s.violate("%s got version %d, but %d was known before it began", name, v%100_000, before.version%100_000)
	}
	if u.ClerkUpdatedAt.UnixMilli() == before.version && u.SyncedAt.Before(before.confirmed) {
		s.violate("%s got a record confirmed at %v, but one of %v was known before it began", name, u.SyncedAt, before.confirmed)
	}
	if u.SyncedAt.IsZero() {
		s.violate("%s was let in, but Clerk has never confirmed the record", name)
	}
	p.checkHeard(name, before.heard, u)
	if before.deleted {
		s.violate("%s was let in, but the deletion was known before it began", name)
	}
	s.mu.Lock()
	since := s.suspended[before.suspension:]
	s.mu.Unlock()
	if !slices.Contains(since, false) {
		s.violate("%s was let in, but the suspension was known before it began", name)
	}
}

// checkHeard checks that a visit was not let in against what events have said before it began, while
// the Store has not answered since.
func (p *exploredProcess) checkHeard(name string, h heard, u *clerksync.User) {
	s := p.schedule
	s.mu.Lock()
	suspended := slices.Contains(s.suspended, true) // then the Store's record counts
	s.mu.Unlock()
	if time.Since(h.at) >= time.Hour || suspended || int(p.store.answers.Load()) != h.answers {
		return
	}
	if h.deleted {
		s.violate("%s was let in without the Store, but an event had said that the user is deleted", name)
	}
	later := slices.ContainsFunc(s.clerk.all(), func(st clerkState) bool { return st.version > h.ban && !st.banned })
	if u.ClerkUpdatedAt.UnixMilli() < h.ban && !later {
		s.violate("%s got version %d, but an event had said that version %d is banned", name, u.ClerkUpdatedAt.UnixMilli()%100_000, h.ban%100_000)
	}
}

// hear notes what an event said that could not be written.
func (p *exploredProcess) hear(kind string, version int64, banned bool) {
	if kind == "user.deleted" {
		p.schedule.saw("unwritten deletion")
		p.learn(func(k *knowledge) {
			k.heard = heard{0, true, int(p.store.answers.Load()), time.Now()}
		})
	} else if banned {
		p.schedule.saw("unwritten ban")
		p.learn(func(k *knowledge) {
			k.heard = heard{version, false, int(p.store.answers.Load()), time.Now()}
		})
	}
}

// learnBan learns from a refusal that only a ban in the record can explain: a later visit gets the
// version of that ban or a later one. If the Store fails, or the user must not be linked to a record,
// a visit may know of a ban that could not be written. The cache may drop that.
func (p *exploredProcess) learnBan(before knowledge) {
	s := p.schedule
	if s.faults || s.legacy != nil && !before.linked {
		return
	}
	s.mu.Lock()
	suspended := slices.Contains(s.suspended, true)
	s.mu.Unlock()
	earliest := int64(0)
	for _, st := range slices.Backward(s.clerk.all()) {
		if st.deleted || suspended {
			return
		}
		if st.banned && st.version >= before.version {
			earliest = st.version
		}
	}
	p.learnVersion(earliest)
}

// checkRefused checks that the user was barred, so that the visit was rightly refused.
func (p *exploredProcess) checkRefused(name string, before knowledge) {
	s := p.schedule
	for _, st := range s.clerk.all() {
		if st.deleted || st.banned && st.version >= before.version {
			return
		}
	}
	s.mu.Lock()
	since := s.suspended[before.suspension:]
	// What the app changed in the other process is seen after CacheTTL. And while the Store
	// is down, a barred user stays barred.
	if p.caches || s.faults {
		since = s.suspended
	}
	s.mu.Unlock()
	if !slices.Contains(since, true) {
		s.violate("%s was refused, but version %d was known before it began, and no later one is barred",
			name, before.version%100_000)
	}
}

// apply delivers an event.
func (p *exploredProcess) apply(e clerksync.Event) func() {
	s, name := p.schedule, p.next("event")
	s.note("%s begins: %s %s", name, e.Type, e.Data)
	return func() {
		res, err := p.syncer.Apply(context.Background(), e)
		s.note("%s: %v, %v", name, res.Outcome, err)
		var u struct {
			Banned    bool  `json:"banned"`
			UpdatedAt int64 `json:"updated_at"`
		}
		_ = json.Unmarshal(e.Data, &u) // made by clerkState.json
		if errors.Is(err, clerksync.ErrUnlinked) {
			return // nobody is let in without a record
		}
		if err != nil {
			p.hear(e.Type, u.UpdatedAt, u.Banned)
			return
		}
		s.saw("event")
		if res.Outcome == clerksync.Deactivated {
			p.learn(func(k *knowledge) { k.deleted = true })
			return
		}
		p.learnVersion(u.UpdatedAt)
		p.learn(func(k *knowledge) { k.linked = true })
	}
}

// sync is a Sync.
func (p *exploredProcess) sync() func() {
	s, name := p.schedule, p.next("sync")
	s.note("%s begins", name)
	return func() {
		res, err := p.syncer.Sync(context.Background(), exploredID)
		s.note("%s: %v, %v", name, res.Outcome, err)
		if err != nil {
			return
		}
		s.saw("sync")
		if res.Outcome == clerksync.Deactivated {
			p.learn(func(k *knowledge) { k.deleted = true })
		} else if res.User != nil {
			p.learnVersion(res.User.ClerkUpdatedAt.UnixMilli())
		}
	}
}

// toggleSuspension has the app suspend the user, or lift the suspension, in this process.
func (p *exploredProcess) toggleSuspension() {
	s := p.schedule
	s.mu.Lock()
	suspend := !s.suspended[len(s.suspended)-1]
	err := s.store.Edit(exploredID, func(u *clerksync.User) { u.IsActive = !suspend && u.DeletedAt.IsZero() })
	if err == nil {
		s.suspended = append(s.suspended, suspend)
		s.seen["suspension"]++
	}
	latest := len(s.suspended) - 1
	s.mu.Unlock()
	p.syncer.Forget(exploredID)
	p.learn(func(k *knowledge) { k.suspension = latest })
	s.note("%s: the app sets suspended %t (%v)", p.name, suspend, err)
}
