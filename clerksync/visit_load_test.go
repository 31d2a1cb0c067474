package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
)

// Thousands of first visits of one user cost one call to Clerk, and leave no goroutines behind.
func TestLoadStampedeOfOneUser(t *testing.T) {
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	held := fx.holdClerk()
	before := runtime.NumGoroutine()
	visitors := manyVisitors()
	visits := fx.visitAll(t, visitors, func(int) string { return id })
	held.waitFor(t, 1)
	if n := runtime.NumGoroutine() - before; n > visitors+50 {
		t.Errorf("%d goroutines for %d visitors", n, visitors)
	}
	held.release()
	if failed := visits.wait(); failed != 0 {
		t.Errorf("%d visits failed", failed)
	}
	fx.wantOneOfEach(t)
}

// If many users come many times at once, Clerk is called once for each user, and a user takes a
// bounded number of goroutines besides the visitors' own.
func TestLoadStampedeOfManyUsers(t *testing.T) {
	users := min(manyVisitors()/20, 1000)
	each := manyVisitors() / users
	fx := newFixture(t, nil)
	ids := make([]string, users)
	for i := range ids {
		ids[i] = fx.clerk.CreateUser(fakeclerk.NewUser{})
	}
	held := fx.holdClerk()
	before := runtime.NumGoroutine()
	// One visitor of each user comes first, so that the connections are open before all the
	// goroutines are busy.
	first := fx.visitAll(t, users, func(i int) string { return ids[i] })
	held.waitFor(t, users)
	visits := fx.visitAll(t, users*(each-1), func(i int) string { return ids[i%users] })
	waitUntil(t, "all visitors have arrived", func() bool { return visits.arrived.Load() == int64(users*(each-1)) })
	// A call to Clerk takes two goroutines of net/http here, and three in the fake.
	if n := runtime.NumGoroutine() - before; n > users*each+8*users+100 {
		t.Errorf("%d goroutines for %d visitors of %d users", n, users*each, users)
	}
	held.release()
	if failed := first.wait() + visits.wait(); failed != 0 {
		t.Errorf("%d visits failed", failed)
	}
	if fx.userCalls() != users || int(fx.store.upserts.Load()) != users {
		t.Errorf("%d Clerk calls and %d writes for %d users", fx.userCalls(), fx.store.upserts.Load(), users)
	}
	settled(t, before+8*users+100)
}

// However many users are new, at most MaxUserCalls calls to Clerk run at one time.
func TestLoadCallsToClerkAreBounded(t *testing.T) {
	const users = clerkapi.MaxUserCalls + 300
	fx := newFixture(t, nil)
	ids := make([]string, users)
	for i := range ids {
		ids[i] = fx.clerk.CreateUser(fakeclerk.NewUser{})
	}
	held := fx.holdClerk()
	visits := fx.visitAll(t, users, func(i int) string { return ids[i] })
	held.waitFor(t, clerkapi.MaxUserCalls)
	waitUntil(t, "all lookups have read the Store", func() bool { return fx.store.users.Load() == users })
	if n := held.now.Load(); n != clerkapi.MaxUserCalls {
		t.Errorf("%d calls to Clerk at one time, want %d", n, clerkapi.MaxUserCalls)
	}
	held.release()
	if failed := visits.wait(); failed != 0 {
		t.Errorf("%d visits failed", failed)
	}
}

// While Clerk takes five seconds, only new users wait. Once it is quick again, nobody does.
func TestLoadSlowClerk(t *testing.T) {
	fx := newFixture(t, nil)
	known := fx.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, fx.Syncer, known)
	var asked atomic.Int64
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		return &fakeclerk.Fault{Delay: 5 * time.Second, BeforeSend: func() { asked.Add(1) }}
	})
	const users = 200
	ids := make([]string, users)
	for i := range ids {
		ids[i] = fx.clerk.CreateUser(fakeclerk.NewUser{})
	}
	visits := fx.visitAll(t, users, func(i int) string { return ids[i] })
	waitUntil(t, "Clerk is asked for all users", func() bool { return asked.Load() == users })
	visit(t, fx.Syncer, known)
	fx.clerk.SetFault(nil)
	visit(t, fx.Syncer, fx.clerk.CreateUser(fakeclerk.NewUser{})) // the clock stands still: this visit did not wait
	fx.clock.Advance(5 * time.Second)
	if failed := visits.wait(); failed != 0 {
		t.Errorf("%d visits failed", failed)
	}
}

// While Clerk does not answer, new users get a 503 with Retry-After. Once it answers, no visit
// waits for the calls that hang.
func TestLoadHangingClerk(t *testing.T) {
	fx := newFixture(t, nil)
	var asked atomic.Int64
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { asked.Add(1); return &fakeclerk.Fault{Hang: true} })
	const users = 200
	ids := make([]string, users)
	for i := range ids {
		ids[i] = fx.clerk.CreateUser(fakeclerk.NewUser{})
	}
	before := runtime.NumGoroutine()
	visits := fx.visitAll(t, users, func(i int) string { return ids[i] })
	waitUntil(t, "Clerk is asked for all users", func() bool { return asked.Load() == users })
	fx.clerk.SetFault(nil)
	visit(t, fx.Syncer, fx.clerk.CreateUser(fakeclerk.NewUser{}))
	fx.clock.Advance(clerksync.CallTimeout)
	if failed := visits.wait(); failed != users {
		t.Errorf("%d of %d visits failed", failed, users)
	}
	visits = fx.visitAll(t, users, func(i int) string { return ids[i] })
	if failed := visits.wait(); failed != 0 {
		t.Errorf("%d visits failed after Clerk came back", failed)
	}
	settled(t, before+3*users) // idle connections, in the fake too
}

// While the Store takes five seconds, only users who are not in the cache wait. Once it is quick
// again, nobody does. If it does not answer in time, the visit gets a 503.
func TestLoadSlowStore(t *testing.T) {
	fx := newFixture(t, nil)
	slow := &slowStore{countingStore: fx.store, clock: fx.clock}
	s := fx.syncer(t, func(c *clerksync.Config) { c.Store = slow })
	const users = 200
	ids := make([]string, users)
	for i := range ids {
		ids[i] = fx.clerk.CreateUser(fakeclerk.NewUser{})
	}
	visit(t, s, ids[0])
	for _, tt := range []struct {
		name   string
		takes  time.Duration
		failed int
	}{
		{"five seconds", 5 * time.Second, 0},
		{"too long", clerksync.CallTimeout + time.Second, users - 1},
	} {
		for _, id := range ids[1:] {
			s.Forget(id)
		}
		slow.takes.Store(int64(tt.takes))
		slow.waiting.Store(0)
		visits := visitAll(t, s, users-1, func(i int) string { return ids[1+i] })
		waitUntil(t, "all visitors wait for the Store", func() bool { return slow.waiting.Load() == users-1 })
		visit(t, s, ids[0])
		slow.takes.Store(0)
		visit(t, s, fx.clerk.CreateUser(fakeclerk.NewUser{}))
		fx.clock.Advance(tt.takes)
		waitUntil(t, "no visitor waits", func() bool {
			fx.clock.Advance(0) // for the write after the read
			return visits.left() == 0
		})
		if failed := visits.wait(); failed != tt.failed {
			t.Errorf("%s: %d visits failed, want %d", tt.name, failed, tt.failed)
		}
	}
}

// Visitors who hang up leave no goroutines behind, and the lookup goes on for the one who stays.
func TestLoadClientsThatHangUp(t *testing.T) {
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	held := fx.holdClerk()
	ctx, hangUp := context.WithCancel(t.Context())
	before := runtime.NumGoroutine()
	var gone sync.WaitGroup
	for range 2000 {
		gone.Go(func() {
			if _, err := fx.User(ctx, id); !errors.Is(err, context.Canceled) {
				t.Errorf("a visitor who hung up got %v", err)
			}
		})
	}
	stays := fx.visitAll(t, 1, func(int) string { return id })
	held.waitFor(t, 1)
	hangUp()
	gone.Wait()
	settled(t, before+20)
	held.release()
	if stays.wait() != 0 || fx.userCalls() != 1 {
		t.Errorf("the one who stayed failed, or Clerk was asked %d times", fx.userCalls())
	}
}

// A burst of webhooks, far more than the Store takes at one time, gets 204, or 503 if the Store
// fails. A 204 means that the record is written, and an event with a 503 is applied when it comes
// again.
func TestLoadBurstOfWebhooks(t *testing.T) {
	fx := newFixture(t, nil)
	narrow := &narrowStore{countingStore: fx.store, slots: make(chan struct{}, 8)}
	s := fx.syncer(t, func(c *clerksync.Config) { c.Store = narrow })
	handler, err := s.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{testSecret}})
	if err != nil {
		t.Fatal(err)
	}
	app := httptest.NewServer(handler)
	defer app.Close()
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 160, MaxIdleConnsPerHost: 160}}
	defer client.CloseIdleConnections()

	const events = 1600 // at 160 at once, 20 for each that the Store takes
	before := runtime.NumGoroutine()
	var peak atomic.Int64
	send := func(i int) int {
		id := fmt.Sprintf("user_burst%d", i)
		now := fx.clock.Now()
		resp, err := client.Do(signed(t, app.URL, testSecret, now, envelope("user.created", userJSON(id, now))))
		if err != nil {
			t.Error(err)
			return 0
		}
		_ = resp.Body.Close()
		if n := goroutines(before + 160*8); n > int(peak.Load()) {
			peak.Store(int64(n))
		}
		return resp.StatusCode
	}
	var mu sync.Mutex
	var again []int
	var all sync.WaitGroup
	turn := make(chan struct{}, 160)
	for i := range events {
		turn <- struct{}{}
		all.Go(func() {
			defer func() { <-turn }()
			switch status := send(i); status {
			case http.StatusNoContent:
				if _, err := fx.store.Store.User(t.Context(), fmt.Sprintf("user_burst%d", i)); err != nil {
					t.Errorf("event %d was acknowledged, and reading its record fails: %v", i, err)
				}
			case http.StatusServiceUnavailable:
				mu.Lock()
				again = append(again, i)
				mu.Unlock()
			default:
				t.Errorf("event %d: status %d", i, status)
			}
		})
	}
	all.Wait()
	if len(again) == 0 || len(again) == events {
		t.Errorf("%d of %d events met the Store's failure", len(again), events)
	}
	if n := int(peak.Load()) - before; n > 160*8 {
		t.Errorf("%d goroutines for 160 connections", n)
	}
	narrow.healthy.Store(true)
	for _, i := range again {
		if status := send(i); status != http.StatusNoContent {
			t.Errorf("event %d came again: status %d", i, status)
		}
	}
	if n := fx.store.Len(); n != events {
		t.Errorf("%d records of %d events", n, events)
	}
}

// narrowStore takes a few writes at one time, and fails every tenth.
type narrowStore struct {
	*countingStore
	slots   chan struct{}
	n       atomic.Int64
	healthy atomic.Bool
}

func (s *narrowStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	s.slots <- struct{}{}
	defer func() { <-s.slots }()
	runtime.Gosched()
	if s.n.Add(1)%10 == 0 && !s.healthy.Load() {
		return clerksync.Result{}, errors.New("out of connections")
	}
	return s.countingStore.Upsert(ctx, u)
}

// slowStore waits on the fake clock, unless the context ends first.
type slowStore struct {
	*countingStore
	clock   *fakeclerk.Clock
	takes   atomic.Int64
	waiting atomic.Int64
}

func (s *slowStore) User(ctx context.Context, id string) (*clerksync.User, error) {
	if d := time.Duration(s.takes.Load()); d > 0 {
		done := make(chan struct{})
		defer s.clock.AfterFunc(d, func() { close(done) })()
		s.waiting.Add(1)
		select {
		case <-done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return s.countingStore.User(ctx, id)
}

// heldCalls are calls to Clerk that wait for release.
type heldCalls struct {
	now  atomic.Int64
	open chan struct{}
}

// holdClerk has Clerk hold its answers until release.
func (fx *fixture) holdClerk() *heldCalls {
	h := &heldCalls{open: make(chan struct{})}
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		h.now.Add(1)
		<-h.open
		h.now.Add(-1)
		return nil
	})
	return h
}

func (h *heldCalls) waitFor(t *testing.T, n int) {
	t.Helper()
	waitUntil(t, fmt.Sprint(n, " calls to Clerk wait"), func() bool { return h.now.Load() >= int64(n) })
}

func (h *heldCalls) release() { close(h.open) }

// visits are visits that run at the same time.
type visits struct {
	all                      sync.WaitGroup
	arrived, under, failures atomic.Int64
}

func (fx *fixture) visitAll(t *testing.T, n int, id func(int) string) *visits {
	return visitAll(t, fx.Syncer, n, id)
}

// visitAll starts n visits at once, through the middleware.
func visitAll(t *testing.T, s *clerksync.Syncer, n int, id func(int) string) *visits {
	v := &visits{}
	handler := s.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
	}))
	v.under.Store(int64(n))
	for i := range n {
		v.all.Go(func() {
			v.arrived.Add(1)
			defer v.under.Add(-1)
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			claims := &clerk.SessionClaims{RegisteredClaims: clerk.RegisteredClaims{Subject: id(i)}}
			rec := httptest.NewRecorder()
			handler.ServeHTTP(rec, r.WithContext(clerk.ContextWithSessionClaims(r.Context(), claims)))
			switch rec.Code {
			case http.StatusOK:
			case http.StatusServiceUnavailable:
				v.failures.Add(1)
				if rec.Header().Get("Retry-After") == "" || !strings.Contains(rec.Body.String(), `"unavailable"`) {
					t.Errorf("a 503 without Retry-After or the code unavailable: %v %s", rec.Header(), rec.Body)
				}
			default:
				t.Errorf("status %d: %s", rec.Code, rec.Body)
			}
		})
	}
	return v
}

func (v *visits) left() int64 { return v.under.Load() }

func (v *visits) wait() (failed int) {
	v.all.Wait()
	return int(v.failures.Load())
}
