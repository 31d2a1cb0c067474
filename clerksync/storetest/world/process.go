package world

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// process is one app process: a Syncer with a cache of its own, and what the process
// was told and so must know.
type process struct {
	w      *world
	skew   time.Duration
	ttl    time.Duration
	open   bool // FailOpen
	syncer *clerksync.Syncer
	app    http.Handler
	hook   http.Handler

	known  map[string]time.Time // users that it knows are deleted, and since when
	floor  map[string]uint64    // when a webhook, Sync or Forget last became visible to it, by world.seq
	forgot map[string]uint64    // when it last forgot a flight, by world.seq
	hasty  bool                 // no refresh may wait

	mu         sync.Mutex
	refreshing map[*run]*run // by the run of the visit that caused it
	parked     []*parked
	slots      int // refreshes that reached Clerk and did not end
	abandoned  bool
}

// parked is a refresh that waits on its way to Clerk.
type parked struct {
	run  *run
	of   *run // the visit's
	wait bool // longer than the visit
	let  chan struct{}
}

const webhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func (w *world) newProcess(skew time.Duration, options int) *process {
	p := &process{
		w: w, skew: skew, ttl: 30 * time.Second, open: options%3 == 1,
		known: make(map[string]time.Time), floor: make(map[string]uint64), forgot: make(map[string]uint64),
		refreshing: make(map[*run]*run),
	}
	cfg := clerksync.Config{
		Store: w.access, SecretKey: w.clerk.SecretKey(), APIURL: w.clerk.APIURL(),
		HTTPClient: &http.Client{Transport: &transport{w: w, p: p, base: w.network}},
		Map:        mapPlan, CacheSize: 1000, RefreshAfter: refreshAfter,
		Logger: slog.New(slog.DiscardHandler), Observe: p.observe,
	}
	if options%6 == 5 {
		p.ttl, cfg.CacheTTL = 0, -1
	}
	if p.open {
		cfg.OnFailure = clerksync.FailOpen
	}
	if w.clerksRoles {
		cfg.RoleOf = roleOf
	}
	clock.Set(&cfg, processClock{w, skew})
	var err error
	if p.syncer, err = clerksync.New(cfg); err != nil {
		panic(err)
	}
	p.app = p.syncer.Middleware(http.HandlerFunc(p.handle))
	if p.hook, err = p.syncer.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{webhookSecret}, InstanceID: w.clerk.InstanceID()}); err != nil {
		panic(err)
	}
	return p
}

const refreshAfter = time.Hour

// mapPlan is the app's Map: a field of its own, removed where Clerk has none.
func mapPlan(cu *clerk.User, u *clerksync.User) error {
	var public struct{ Plan any }
	_ = json.Unmarshal(cu.PublicMetadata, &public)
	if plan, ok := public.Plan.(string); ok && plan != "" {
		u.Extra = map[string]any{"plan": plan}
	}
	return nil
}

func (p *process) observe(ctx context.Context, o clerksync.Observation) {
	p.w.counts.add("observed " + string(o.Op))
	if o.Op == clerksync.OpRefresh {
		visitRun, _ := ctx.Value(runKey{}).(*run)
		visitRun.ended <- struct{}{}
	}
}

// handle is the app's handler behind the middleware.
func (p *process) handle(_ http.ResponseWriter, request *http.Request) {
	w, r := p.w, request.Context().Value(visitorKey{}).(*run)
	served, ok := clerksync.UserFromContext(request.Context())
	id := r.user.id
	if !ok || served.ClerkID != id {
		w.fail("the handler got %+v for %s", served, id)
		return
	}
	r.served = served
	since, known := p.known[id]
	if known && !(served.Partial && w.clock.Now().Sub(since) > standbyFor) {
		w.fail("a handler ran for %s, who is deleted, and the process knows", id)
	}
	switch {
	case served.Partial:
		w.counts.add("served a Partial user")
		if r.healthy() || !p.open {
			w.fail("a Partial user without an outage")
		}
		return
	case !served.IsActive, served.Banned, !served.DeletedAt.IsZero():
		w.fail("a handler ran for a refused record of %s: %+v", id, served)
	}
	w.checkServed(r, served)
}

// standbyFor is how long what a process knows outlasts its cache in an outage.
const standbyFor = time.Hour

// checkServed checks that a record is one that the Store had, after the process last
// dropped it, and not longer ago than a cache may keep it.
func (w *world) checkServed(r *run, served *clerksync.User) {
	key := keyOf(served)
	floor := r.p.floor[r.user.id]
	i := len(r.user.records) - 1
	for ; i >= 0; i-- {
		if r.user.records[i].key == key {
			break
		}
	}
	if i < 0 {
		w.fail("the handler got a record of %s that the Store never held:\n%+v\nit holds\n%+v", r.user.id, key, r.user.last().key)
		return
	}
	s := r.user.records[i]
	if s.until != 0 && s.until < floor {
		w.fail("the handler got a record of %s from before a webhook, Sync or Forget in its process:\n%+v\nthe Store holds\n%+v", r.user.id, key, r.user.last().key)
	}
	// What was loaded slowly counts from the end of the loading.
	settled := w.clock.Now().Sub(w.lastTrouble) > 2*r.p.ttl
	if s.until != 0 && settled && r.healthy() && r.start.Sub(s.supersededAt) > r.p.ttl {
		w.fail("the handler got a record of %s that was changed %v before, and the cache may keep it for %v", r.user.id, r.start.Sub(s.supersededAt), r.p.ttl)
	}
}

// visitor runs one visit to its end, on this goroutine.
func (p *process) visitor(ctx context.Context, r *run, claim freshness) {
	claims := &clerk.SessionClaims{RegisteredClaims: clerk.RegisteredClaims{Subject: r.user.id}}
	if claim.text != "" {
		claims.Custom = &clerksync.FreshnessClaims{UpdatedAt: json.RawMessage(claim.text)}
	}
	ctx = clerk.ContextWithSessionClaims(context.WithValue(ctx, visitorKey{}, r), claims)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://app.example/", nil)
	if err != nil {
		panic(err)
	}
	var answer recorder
	p.app.ServeHTTP(&answer, request)
	r.status, r.code = answer.result()
}

// freshness is what a token says of the user's version.
type freshness struct {
	text    string
	version int64 // ms
	seconds bool
}

// recorder is the least of an http.ResponseWriter.
type recorder struct {
	header http.Header
	status int
	body   []byte
}

func (r *recorder) Header() http.Header {
	if r.header == nil {
		r.header = make(http.Header)
	}
	return r.header
}
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { r.body = append(r.body, b...); return len(b), nil }

func (r *recorder) result() (status int, code string) {
	if r.status == 0 {
		return http.StatusOK, ""
	}
	var problem struct{ Code string }
	_ = json.Unmarshal(r.body, &problem)
	return r.status, problem.Code
}

// park holds a refresh back until the world lets it go on.
func (p *process) park(visitRun *run) *run {
	r := p.w.newRun(p, runRefresh, op{kind: runRefresh}, visitRun.user, 0)
	waiting := &parked{run: r, of: visitRun, wait: visitRun.op.flag, let: make(chan struct{})}
	p.mu.Lock()
	p.refreshing[visitRun] = r
	p.parked = append(p.parked, waiting)
	p.slots++
	p.mu.Unlock()
	<-waiting.let
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.abandoned {
		return nil
	}
	return r
}

// refreshOf is the refresh behind a visit, nil where there is none.
func (p *process) refreshOf(visitRun *run) *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refreshing[visitRun]
}

// arrived waits until each refresh that was begun has come as far as Clerk's door.
func (p *process) arrived() {
	for {
		p.mu.Lock()
		slots := p.slots
		p.mu.Unlock()
		if clock.Refreshing(p.syncer) == slots {
			return
		}
		runtime.Gosched()
	}
}

// goOn lets refresh i run to its end.
func (p *process) goOn(i int, o op, depth int) {
	p.mu.Lock()
	waiting := p.parked[i]
	p.parked = slices.Delete(p.parked, i, i+1)
	p.mu.Unlock()
	r := waiting.run
	r.op.breaks, r.op.n, r.depth = o.breaks, o.n, depth
	r.start, r.troubles = p.w.clock.Now(), p.w.troubles
	close(waiting.let)
	<-waiting.of.ended
	p.mu.Lock()
	p.slots--
	for visitRun, refresh := range p.refreshing {
		if refresh == r {
			delete(p.refreshing, visitRun)
		}
	}
	p.mu.Unlock()
	p.arrived()
	p.w.counts.add("refresh behind a visit")
}

// drain runs all refreshes that wait; with lazy, those only that need not wait longer.
func (p *process) drain(lazy bool) {
	p.arrived()
	for i := 0; i < len(p.parked); {
		if lazy && p.parked[i].wait && !p.hasty {
			i++
			continue
		}
		p.goOn(i, op{}, 1)
	}
}

// post delivers a message and returns the answer's status.
func (p *process) post(ctx context.Context, m *message) int {
	request := fakeclerk.SignedRequest(ctx, "http://app.example/webhooks", webhookSecret,
		fakeclerk.Event{ID: m.ID, Body: m.Body, Time: p.w.clock.Now()})
	var answer recorder
	p.hook.ServeHTTP(&answer, request)
	status, _ := answer.result()
	return status
}

// stop closes the Syncer, having run what waits behind it.
func (p *process) stop() {
	p.drain(false)
	_ = p.syncer.Close()
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// abandon ends what waits behind the Syncer without letting it reach Clerk, where a
// world ends in the middle of something.
func (p *process) abandon() {
	p.mu.Lock()
	waiting := p.parked
	p.parked, p.abandoned = nil, true
	p.mu.Unlock()
	for _, one := range waiting {
		close(one.let)
	}
	_ = p.syncer.Close()
}
