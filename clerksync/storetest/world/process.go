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

// process is one process of the app: a Syncer with its cache, and what the process must know.
type process struct {
	w        *world
	skew     time.Duration
	ttl      time.Duration // the CacheTTL
	failOpen bool
	syncer   *clerksync.Syncer
	app      http.Handler
	hook     http.Handler
	hooks    hooks
	delay    time.Duration // the DeleteDelay
	dead     bool          // no call of it has an effect any more

	// By user. The numbers are of world.seq.
	knownDeleted map[string]time.Time // since when the process knows that the user is deleted
	drops        map[string][]drop    // of the user's records
	forgot       map[string]uint64    // when it last forgot a lookup

	hasty bool // no refresh may wait

	mu         sync.Mutex
	refreshing map[*run]*run // the refresh, by the visit that caused it
	parked     []*parked
	slots      int // refreshes that reached the transport and have not ended
	abandoned  bool

	parkedJobs  []*parkedJob
	moves       int // of jobs: how often one was parked or let go
	runningJobs int // that were let go and have not ended
}

// parked is a refresh that waits in the transport.
type parked struct {
	run  *run
	of   *run          // the visit
	wait bool          // beyond the end of the visit
	let  chan struct{} // closed to let it continue
}

const webhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func (w *world) newProcess(skew time.Duration, options int) *process {
	p := &process{
		w: w, skew: skew, ttl: 30 * time.Second, failOpen: options%3 == 1,
		knownDeleted: make(map[string]time.Time), drops: make(map[string][]drop), forgot: make(map[string]uint64),
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
	if p.failOpen {
		cfg.OnFailure = clerksync.FailOpen
	}
	if w.clerksRoles {
		cfg.RoleOf = roleOf
	}
	p.configureJobs(&cfg, options)
	clock.Set(&cfg, processClock{w, skew})
	var err error
	if p.syncer, err = clerksync.New(cfg); err != nil {
		panic(err)
	}
	clock.Carry(p.syncer, p.carry)
	clock.OrderJobs(p.syncer, p.turn)
	p.app = p.syncer.Middleware(http.HandlerFunc(p.handle))
	webhooks := clerksync.WebhookConfig{Secrets: []string{webhookSecret}, InstanceID: w.clerk.InstanceID()}
	if p.hook, err = p.syncer.WebhookHandler(webhooks); err != nil {
		panic(err)
	}
	return p
}

const refreshAfter = time.Hour

// mapPlan is the app's Map. It sets one field if Clerk has it.
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
	if o.Op == clerksync.OpJob {
		p.w.counts.add("observed job " + string(o.Job.Outcome))
	}
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
		w.fail("the handler got the user %+v for %s", served, id)
		return
	}
	r.served = served
	since, known := p.knownDeleted[id]
	if known && !(served.Partial && w.clock.Now().Sub(since) > standbyFor) {
		w.fail("a handler ran for %s, and the process knows that the user is deleted", id)
	}
	switch {
	case served.Partial:
		w.counts.add("served a Partial user")
		if r.healthy() && !r.paused() || !p.failOpen {
			w.fail("the handler got a Partial user without an outage")
		}
		return
	case !served.IsActive, served.Banned, !served.DeletedAt.IsZero():
		w.fail("a handler ran for a barred record of %s: %+v", id, served)
	}
	p.checkSetUp(id)
	w.checkServed(r, served)
}

// standbyFor is how long a process keeps what it knows for an outage.
const standbyFor = time.Hour

// visitor runs one visit to its end, on the caller's goroutine.
func (p *process) visitor(ctx context.Context, r *run, token tokenVersion) {
	claims := &clerk.SessionClaims{RegisteredClaims: clerk.RegisteredClaims{Subject: r.user.id}}
	if token.text != "" {
		claims.Custom = &clerksync.FreshnessClaims{UpdatedAt: json.RawMessage(token.text)}
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

// recorder is a minimal http.ResponseWriter.
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

// park holds a refresh until the world lets it continue. It returns nil if the world ends first.
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

// refreshOf returns the refresh behind a visit, or nil if there is none.
func (p *process) refreshOf(visitRun *run) *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refreshing[visitRun]
}

// arrived waits until each refresh that has begun waits in the transport.
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

// goOn runs refresh i to its end.
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

// drain runs all waiting refreshes and jobs, or, if lazy, those that need not wait beyond their visit.
func (p *process) drain(lazy bool) {
	p.arrived()
	for i := 0; i < len(p.parked); {
		if lazy && p.parked[i].wait && !p.hasty {
			i++
			continue
		}
		p.goOn(i, op{}, 1)
	}
	p.drainJobs(lazy)
}

// post delivers a message and returns the status of the answer.
func (p *process) post(ctx context.Context, m *message) int {
	request := fakeclerk.SignedRequest(ctx, "http://app.example/webhooks", webhookSecret,
		fakeclerk.Event{ID: m.event.ID, Body: m.event.Body, Time: p.w.clock.Now()})
	var answer recorder
	p.hook.ServeHTTP(&answer, request)
	status, _ := answer.result()
	return status
}

// stop runs the waiting refreshes and jobs, and closes the Syncer.
func (p *process) stop() {
	if p.dead {
		p.abandon()
		return
	}
	p.drain(false)
	_ = p.syncer.Close()
}

// restart replaces a process with a new one whose cache is cold. In the middle of an operation, it
// leaves the old one running until the operation has ended.
func (w *world) restart(o op, m moment) {
	i := o.proc % len(w.procs)
	old := w.procs[i]
	w.procs[i] = w.newProcess(old.skew, o.n)
	if m.around != nil {
		w.retired = append(w.retired, old)
		return
	}
	old.stop()
}

// abandon closes the Syncer. Waiting refreshes and jobs fail: the world may end in the middle of an
// operation.
func (p *process) abandon() {
	p.mu.Lock()
	waiting, jobs := p.parked, p.parkedJobs
	p.parked, p.parkedJobs, p.abandoned, p.dead = nil, nil, true, true
	p.mu.Unlock()
	for _, one := range waiting {
		close(one.let)
	}
	for _, one := range jobs {
		close(one.let)
	}
	_ = p.syncer.Close()
}

func (p *process) wasAbandoned() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.abandoned
}

func number(n int64) string { return strconv.FormatInt(n, 10) }
