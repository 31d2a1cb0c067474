package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
	"github.com/clerksync/clerksync-go/clerksync/internal/retry"
)

// instanceCase is a run against an instance that is not the one of the Store's users, or that may
// be it.
type instanceCase struct {
	stored   int // records
	listed   int // users of the instance
	revoked  bool
	instance string // what ReconcileOptions.InstanceID names: "own" for the Store's, "other" for the other one
	want     error
	calls    int
}

// TestReconcileOfAnotherInstance runs with a secret key that is revoked, or that belongs to another
// instance than the Store's users. Nothing may be written.
func TestReconcileOfAnotherInstance(t *testing.T) {
	t.Parallel()
	wrong, unavailable := clerksync.ErrWrongInstance, clerksync.ErrUnavailable
	for name, tt := range map[string]instanceCase{
		"another key":                     {stored: 3, listed: 3, want: wrong, calls: 1},
		"another key, many records":       {stored: 150, listed: 3, want: wrong, calls: 1},
		"an empty instance":               {stored: 3, want: wrong, calls: 1},
		"an empty instance and Store":     {calls: 3},
		"an empty Store":                  {listed: 3, calls: 4},
		"one record, and nobody listed":   {stored: 1, calls: 3 - 1 + 1 + 2}, // the only user was deleted
		"one record, and others listed":   {stored: 1, listed: 3, calls: 4 + 1 + 1},
		"two records":                     {stored: 2, listed: 3, want: wrong, calls: 1},
		"revoked":                         {stored: 3, listed: 3, revoked: true, want: unavailable, calls: 1},
		"revoked, and an empty Store":     {listed: 3, revoked: true, want: unavailable, calls: 1},
		"another instance than was named": {stored: 3, listed: 3, instance: "own", want: wrong, calls: 1},
		"another one, and an empty Store": {listed: 3, instance: "own", want: wrong, calls: 1},
		// All records are rightly found to be ghosts.
		"the instance that was named": {stored: 3, listed: 3, instance: "other", calls: 4 + 1 + 1 + 3},
	} {
		for _, dry := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " dry ", dry), func(t *testing.T) {
				t.Parallel()
				tt.run(t, dry)
			})
		}
	}
}

func (tt instanceCase) run(t *testing.T, dry bool) {
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, tt.stored)
	other, err := fakeclerk.Start(fakeclerk.Config{Clock: fx.clock, SecretKey: "sk_test_other", RateLimit: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	for range tt.listed {
		other.CreateUser(fakeclerk.NewUser{})
	}
	s := fx.syncer(t, func(c *clerksync.Config) {
		c.APIURL, c.SecretKey = other.APIURL(), other.SecretKey()
		if tt.revoked {
			c.SecretKey = "sk_test_revoked"
		}
	})
	instance := map[string]string{"own": fx.clerk.InstanceID(), "other": other.InstanceID()}[tt.instance]
	before := fx.records(t, ids)
	report, err := s.Reconcile(t.Context(), options{DryRun: dry, PageSize: 2, InstanceID: instance})
	if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
		t.Fatalf("error is %v, want %v", err, tt.want)
	}
	if n := other.Calls(""); n != tt.calls || report.ClerkCalls != n {
		t.Errorf("%d calls, of which %d are reported; want %d", n, report.ClerkCalls, tt.calls)
	}
	if err == nil {
		tt.checkComplete(t, &report, dry)
		return
	}
	if fx.store.writes() != 0 || fx.store.Len() != tt.stored {
		t.Errorf("wrote %d times", fx.store.writes())
	}
	if diff := gocmp.Diff(before, fx.records(t, ids)); diff != "" {
		t.Errorf("records (-before +after):\n%s", diff)
	}
	tt.checkRefused(t, &report, err)
}

func (tt instanceCase) checkRefused(t *testing.T, report *clerksync.Report, err error) {
	t.Helper()
	if report.Complete || report.Resume != "" || report.Reason != err.Error() {
		t.Errorf("reports %+v", report)
	}
	if tt.revoked != strings.Contains(err.Error(), "check that it is this instance's") {
		t.Errorf("error is %v", err)
	}
	if tt.revoked && !strings.Contains(err.Error(), "401 clerk_key_invalid") {
		t.Errorf("error is %v", err)
	}
}

func (tt instanceCase) checkComplete(t *testing.T, report *clerksync.Report, dry bool) {
	t.Helper()
	want := tally{"seen": tt.listed, "created": tt.listed, "ghosts": tt.stored, "deactivated": tt.stored}
	if dry {
		want["deactivated"] = 0
	}
	maps.DeleteFunc(want, func(_ string, n int) bool { return n == 0 })
	wantCounts(t, *report, want)
	if !report.Complete {
		t.Errorf("reports %+v", report)
	}
}

// A 401 ends the run at once, whichever call gets it.
func TestReconcileKeyRevokedMidway(t *testing.T) {
	t.Parallel()
	for call := 1; call <= 7; call++ {
		fx := newBulkFixture(t, nil)
		fx.backfill(t, 5)
		fx.ghosts(t, 1)
		var calls atomic.Int32
		fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
			if int(calls.Add(1)) >= call {
				return fakeclerk.ErrorFault(401, "clerk_key_invalid")
			}
			return nil
		})
		report, err := fx.Reconcile(t.Context(), options{PageSize: 2})
		if !errors.Is(err, clerksync.ErrUnavailable) || !strings.Contains(err.Error(), "secret key") ||
			report.Complete {
			t.Errorf("call %d: %v, %+v", call, err, report)
		}
		if n := fx.clerk.Calls(""); n != call || fx.store.writes() != 0 {
			t.Errorf("call %d: went on to %d, and wrote %d times", call, n, fx.store.writes())
		}
	}
}

// TestReconcileWithAFailingClerk fails one call in five, in many ways. A seed makes the same calls
// fail each time.
func TestReconcileWithAFailingClerk(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			fx.backfill(t, 40)
			created := fx.signUp(40)
			ghosts := fx.ghosts(t, 5)
			random, failed := rand.New(rand.NewPCG(seed, 1)), 0
			fx.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault { // not called concurrently
				if random.IntN(5) > 0 {
					return nil
				}
				failed++
				throttled := fakeclerk.ErrorFault(429, "too_many_requests")
				throttled.Header.Set("Retry-After", "3")
				faults := []*fakeclerk.Fault{
					throttled,
					fakeclerk.ErrorFault(500, "internal_clerk_error"),
					{Status: 502, ContentType: "text/html", Body: "<html>bad gateway</html>"},
					{Status: 404, ContentType: "text/html", Body: "<html>not found</html>"},
					{Status: 200, Body: `[{"id":"user_1","first_name":"A`},
					{Status: 200, Body: `{"id":"user_other"}`},
					{Status: 200, Body: `null`},
					{Status: 204},
					{Truncate: true},
					{Hang: true},
				}
				f := faults[random.IntN(len(faults))]
				if f.Hang {
					go fx.clock.Advance(clerkapi.BulkAttemptTimeout)
				}
				return f
			})
			report := fx.reconcile(t, options{PageSize: 4})
			if failed < 5 || report.ClerkCalls < 30+failed {
				t.Errorf("only %d calls failed; reports %+v", failed, report)
			}
			wantCounts(t, report, tally{"seen": 80, "unchanged": 40, "created": len(created), "ghosts": 5,
				"deactivated": len(ghosts)})
			fx.clerk.SetFault(nil)
			fx.inStep(t)
		})
	}
}

// A run whose API URL is wrong ends at its first call, and says what to check.
func TestReconcileOfAWrongURL(t *testing.T) {
	t.Parallel()
	page := func(status int) *fakeclerk.Fault {
		return &fakeclerk.Fault{Status: status, ContentType: "text/html", Body: "<html>hunter2"}
	}
	for name, tt := range map[string]struct {
		fault *fakeclerk.Fault
		url   string
		calls int // 1: ends at once
	}{
		"a page":            {fault: page(200), calls: 1},
		"no page":           {fault: page(404), calls: 1},
		"a page and 403":    {fault: page(403), calls: 1},
		"a page and 405":    {fault: page(405), calls: 1},
		"a redirect":        {fault: &fakeclerk.Fault{Status: 301, Header: http.Header{"Location": {"https://x.example"}}}, calls: 1},
		"another API's 403": {fault: &fakeclerk.Fault{Status: 403, Body: `{"message":"hunter2"}`}, calls: 1},
		"no content":        {fault: &fakeclerk.Fault{Status: 204}},
		"nobody listens":    {url: "http://127.0.0.1:1", calls: 1},
		"no such host":      {url: "http://clerksync.invalid", calls: 1},
		"a proxy's 502":     {fault: page(502)},
		"a proxy's 429":     {fault: page(429)},
		"an empty list":     {fault: &fakeclerk.Fault{Status: 200, Body: "null"}},
		"half of a list":    {fault: &fakeclerk.Fault{Status: 200, Body: `[{"id":"user_1"`}},
		"Clerk's own 500":   {fault: fakeclerk.ErrorFault(500, "internal_clerk_error")},
		"a broken answer":   {fault: &fakeclerk.Fault{Truncate: true}},
		"Clerk's own 403":   {fault: fakeclerk.ErrorFault(403, "forbidden"), calls: -1}, // ends at once, whatever the URL
		"a page of a user":  {fault: &fakeclerk.Fault{Status: 200, Body: `{"id":"user_1"}`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			s := fx.Syncer
			if tt.url != "" {
				s = fx.syncer(t, func(c *clerksync.Config) { c.APIURL = tt.url })
			}
			fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return tt.fault })
			report, err := s.Reconcile(t.Context(), options{})
			if !errors.Is(err, clerksync.ErrUnavailable) || report.Complete {
				t.Fatalf("%v, reports %+v", err, report)
			}
			if atOnce := report.ClerkCalls == 1; atOnce != (tt.calls != 0) {
				t.Errorf("%d calls: %v", report.ClerkCalls, err)
			}
			says := strings.Contains(err.Error(), "Check Config.APIURL (CLERK_API_URL): Clerk's is https://api.clerk.com")
			if says != (tt.calls == 1) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error is %v", err)
			}
			checkText(t, err.Error())
		})
	}
}

// TestReconcileWithClerkDown lets Clerk fail from the fourth list on, for longer than a run waits.
func TestReconcileWithClerkDown(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]*fakeclerk.Fault{
		"500":           fakeclerk.ErrorFault(500, "internal_clerk_error"),
		"429":           fakeclerk.ErrorFault(429, "too_many_requests"),
		"a proxy's 404": {Status: 404, ContentType: "text/html", Body: "<html>no such page</html>"},
		"a proxy's 403": {Status: 403, Body: "{}"},
		"hangs":         {Hang: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			fx.signUp(25)
			var lists atomic.Int32
			fx.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
				if isList(r) {
					lists.Add(1)
				}
				if lists.Load() <= 3 {
					return nil
				}
				if fault.Hang {
					go fx.clock.Advance(clerkapi.BulkAttemptTimeout)
				}
				return fault
			})
			report, err := fx.Reconcile(t.Context(), options{PageSize: 5})
			if !errors.Is(err, clerksync.ErrUnavailable) || report.Complete || report.Created.Count != 15 ||
				report.Resume == "" {
				t.Fatalf("%v, reports %+v", err, report)
			}
			if d := report.Duration; d < retry.GiveUpAfter-2*time.Minute || d > retry.GiveUpAfter+2*time.Minute {
				t.Errorf("gave up after %v", d)
			}
			var p *clerksync.Problem
			if o := fx.seen.last(); !errors.As(o.Err, &p) || p.Status != 503 {
				t.Errorf("observed %+v", o)
			}
			fx.clerk.SetFault(nil)
			fx.clerk.ResetCalls()
			resumed := fx.reconcile(t, options{PageSize: 5, Resume: report.Resume})
			if resumed.Created.Count != 10 || !resumed.Complete {
				t.Errorf("resumed, it reports %+v", resumed)
			}
			fx.inStep(t)
		})
	}
}

// midwayChange is something that happens to a user while a run goes on.
type midwayChange struct {
	when   string // see arrives
	change func(t *testing.T, fx *bulkFixture, id string)
	next   bool // the next run has something to do
}

// midwayChanges are changes of the user that is given, or of another one.
func midwayChanges() map[string]midwayChange {
	rename := func(t *testing.T, fx *bulkFixture, id string) { fx.rename(t, "Augusta", id) }
	remove := func(t *testing.T, fx *bulkFixture, id string) { fx.delete(t, id) }
	return map[string]midwayChange{
		"changed, and its event came": {when: "the page", change: func(t *testing.T, fx *bulkFixture, id string) {
			rename(t, fx, id)
			if _, err := fx.Sync(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}},
		"changed, and its event is lost": {when: "the page", next: true, change: rename},
		"deleted, and its event came": {when: "the page", change: func(t *testing.T, fx *bulkFixture, id string) {
			remove(t, fx, id)
			deleteEvent(t, fx, id)
		}},
		"deleted, and its event is lost": {when: "the page", next: true, change: remove},
		"no record, deleted, and its event came": {
			when: "the page",
			change: func(t *testing.T, fx *bulkFixture, _ string) {
				late := fx.clerk.UserIDs()[7] // without a record, and on the page
				remove(t, fx, late)
				deleteEvent(t, fx, late)
			},
		},
		"signed up and visited before the ghosts are looked for": {
			when: "the end",
			change: func(t *testing.T, fx *bulkFixture, _ string) {
				id := fx.clerk.CreateUser(fakeclerk.NewUser{})
				visit(t, fx.Syncer, id)
				// As an importer would: the holdback does not protect the record.
				fx.edit(t, id, func(u *clerksync.User) { u.CreatedAt = t0 })
			},
		},
		"the ghost is deactivated before its turn": {
			when:   "the query by id",
			change: func(t *testing.T, fx *bulkFixture, _ string) { deleteEvent(t, fx, "user_zz_ghost_00000") },
		},
		"signed up while the ghosts are looked for": {
			when: "the last word", next: true,
			change: func(_ *testing.T, fx *bulkFixture, _ string) { fx.clerk.CreateUser(fakeclerk.NewUser{}) },
		},
	}
}

// arrives reports whether r is the request before whose answer the change happens.
func (c midwayChange) arrives(r *http.Request, fx *bulkFixture) bool {
	switch c.when {
	case "the page":
		return isList(r) && fx.clerk.Calls("GET /v1/users") == 2+1 // after the query by id
	case "the end":
		return r.URL.Path == "/v1/users/count" && fx.clerk.Calls("GET /v1/users/count") == 2
	case "the last word":
		return strings.HasPrefix(r.URL.Path, "/v1/users/user_")
	case "the query by id":
		return r.URL.Query().Has("user_id") && fx.clerk.Calls("GET /v1/users") > 2
	}
	panic(c.when)
}

// TestReconcileWhileUsersChange changes one user of twenty while an answer is on its way from Clerk.
func TestReconcileWhileUsersChange(t *testing.T) {
	t.Parallel()
	for name, tt := range midwayChanges() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, func(c *clerksync.Config) { c.RefreshAfter = -1 })
			ids := fx.backfill(t, 20)
			missing := fx.signUp(1)[0]
			fx.updateSilently(t, missing, func(u *fakeclerk.UserObject) { u.CreatedAt = t0.UnixMilli() + 6500 })
			ghost := fx.ghosts(t, 1)[0]
			var once sync.Once
			fx.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
				if !tt.arrives(r, fx) {
					return nil
				}
				return &fakeclerk.Fault{BeforeSend: func() {
					once.Do(func() { tt.change(t, fx, ids[7]) })
				}}
			})
			report := fx.reconcile(t, options{PageSize: 5})
			once.Do(func() { t.Error("nothing happened in between") })
			fx.clerk.SetFault(nil)
			if u := fx.get(t, ghost); u.IsActive || report.Deactivated.Count != 1 || !report.Complete {
				t.Errorf("the ghost is %+v; reports %+v", u, report)
			}
			next := fx.reconcile(t, options{Force: true, Holdback: -1})
			if next.InStep() == tt.next {
				t.Errorf("the next run finds %v", counts(&next))
			}
			fx.inStep(t)
			for id, u := range fx.records(t, append(ids, missing)) {
				_, exists := fx.clerk.User(id)
				if exists != u.DeletedAt.IsZero() || exists != u.IsActive {
					t.Errorf("in Clerk %v: %+v", exists, u)
				}
			}
		})
	}
}

// TestReconcileBesideLiveTraffic runs while users sign up, change and are deleted. Their webhooks
// go to a second process, and their visits to a third.
func TestReconcileBesideLiveTraffic(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 60)
	process := fx.syncer(t, nil)
	handler, err := process.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{testSecret}})
	if err != nil {
		t.Fatal(err)
	}
	app := httptest.NewServer(handler)
	defer app.Close()
	fx.clerk.AddEndpoint(app.URL, fakeclerk.EndpointOptions{Secret: testSecret})
	ctx, stop := context.WithCancel(t.Context())
	var traffic sync.WaitGroup
	traffic.Go(func() {
		random := rand.New(rand.NewPCG(1, 2))
		alive := slices.Clone(ids)
		for n := 0; ctx.Err() == nil && n < 400; n++ {
			i := random.IntN(len(alive))
			switch random.IntN(6) {
			case 0:
				alive = append(alive, fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Late"}))
			case 1:
				_ = fx.clerk.DeleteUser(alive[i])
				alive = slices.Delete(alive, i, i+1)
			default:
				_ = fx.clerk.UpdateUser(alive[i], func(u *fakeclerk.UserObject) {
					u.FirstName = clerk.String(fmt.Sprint("Ada ", n))
				})
			}
			if err := fx.clerk.Settle(ctx); err != nil {
				return
			}
		}
	})
	visitor := fx.syncer(t, nil)
	traffic.Go(func() {
		random := rand.New(rand.NewPCG(3, 4))
		for ctx.Err() == nil {
			all := fx.clerk.UserIDs()
			// The user may be deleted by now.
			_, _ = visitor.User(ctx, all[random.IntN(len(all))])
		}
	})
	for range 3 {
		// ErrIncomplete is right if users are deleted during the run.
		if report, err := fx.Reconcile(t.Context(), options{PageSize: 5, MaxDeactivations: -1}); err != nil &&
			!errors.Is(err, clerksync.ErrIncomplete) {
			t.Errorf("%v, %+v", err, report)
		}
	}
	stop()
	traffic.Wait()
	clerksync.WaitBackground(visitor)
	fx.clock.Advance(24 * time.Hour) // Svix retries what failed
	if err := fx.clerk.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	app.Close() // waits for deliveries that were given up, too
	fx.inStep(t)
}

// Clerk's count is not trusted as a size to allocate.
func TestReconcileOfAnImpossibleCount(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	fx.backfill(t, 2)
	fx.answer = func(r *http.Request, resp *http.Response) {
		if strings.HasSuffix(r.URL.Path, "/users/count") {
			count := strings.NewReader(`{"object":"total_count","total_count":4000000000000000000}`)
			resp.Body, resp.ContentLength = io.NopCloser(count), -1
		}
	}
	if report, err := fx.Reconcile(t.Context(), options{}); !errors.Is(err, clerksync.ErrIncomplete) ||
		report.Seen != 2 {
		t.Errorf("%v, reports %+v", err, report)
	}
}

// stuck is a primary that accepts calls and does not answer, beginning with a call of one method.
type stuck struct {
	clock *fakeclerk.Clock
	op    string // the method
	skip  int    // calls of op that are answered
	once  bool   // only one call is stuck

	mu        sync.Mutex
	began     time.Time
	unbounded []string // methods that were called without a bound
}

// hang lets a call take as long as its context lasts.
func (s *stuck) hang(ctx context.Context, op string) error {
	s.mu.Lock()
	begins := s.began.IsZero() && op == s.op
	if begins && s.skip > 0 {
		s.skip--
		begins = false
	}
	if begins {
		s.began = s.clock.Now()
	}
	hangs := begins || !s.began.IsZero() && !s.once
	s.mu.Unlock()
	if !hangs {
		return nil
	}
	s.clock.Advance(clerksync.StoreTimeout)
	if ctx.Err() == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.unbounded = append(s.unbounded, op)
		return errDown
	}
	return context.Cause(ctx)
}

// stuckCases are the Store calls of a run.
var stuckCases = []struct {
	name, op string
	skip     int
}{
	{"sample", "Undeleted", 0},
	{"sample, later", "Undeleted", 5},
	{"versions", "Stamps", 0},
	{"whole records", "Users", 0},
	{"writes", "UpsertBatch", 0},
	{"restores", "Restore", 0},
	{"ghosts", "Undeleted", 30},
	{"deactivations", "Deactivate", 0},
	{"plain store, reads", "User", 0},
	{"plain store, writes", "Upsert", 0},
}

// TestReconcileStuckStore lets the Store's primary get stuck in each of its methods, for one call
// and for good. Real time does not pass: each stuck call moves the clock by the bound.
func TestReconcileStuckStore(t *testing.T) {
	t.Parallel()
	for _, tt := range stuckCases {
		for _, once := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, " once ", once), func(t *testing.T) {
				t.Parallel()
				fx := newBulkFixture(t, nil)
				ids := fx.backfill(t, 20)
				fx.deactivate(t, ids[3])
				fx.rename(t, "Augusta", ids[12:]...)
				fx.ghosts(t, 3)
				s := &stuck{clock: fx.clock, op: tt.op, skip: tt.skip, once: once}
				fx.store.hang = s.hang
				syncer := fx.Syncer
				if tt.op == "User" || tt.op == "Upsert" {
					syncer = fx.syncer(t, func(c *clerksync.Config) { c.Store = plainStore{fx.store} })
				}
				opts := options{PageSize: 5, Restore: syncer == fx.Syncer, Force: tt.op == "Users", Writers: 1}
				report, err := syncer.Reconcile(t.Context(), opts)
				if s.began.IsZero() || len(s.unbounded) > 0 {
					t.Fatalf("began %v, not bounded: %v", s.began, s.unbounded)
				}
				if once {
					if err != nil || report.Updated.Count != 8 || report.Failed.Count != 0 {
						t.Errorf("%v, reports %+v", err, report)
					}
					return
				}
				if !errors.Is(err, clerksync.ErrUnavailable) || report.Complete ||
					!strings.Contains(err.Error(), "no answer within "+clerksync.StoreTimeout.String()) {
					t.Errorf("%v, reports %+v", err, report)
				}
				if took := fx.clock.Now().Sub(s.began); took > retry.GiveUpAfter+4*clerksync.StoreTimeout {
					t.Errorf("gave up after %v", took)
				}
			})
		}
	}
}

// An app's Progress that takes its time does not count as the Store's time.
func TestReconcileSlowProgress(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	fx.backfill(t, 600)
	report := fx.reconcile(t, options{RequestsPerSecond: 1e6, Progress: func(p clerksync.Progress) {
		if p.Phase == clerksync.PhaseGhosts {
			fx.clock.Advance(2 * clerksync.StoreTimeout)
		}
	}})
	if n := fx.store.count("Undeleted"); n != 100+600 || report.Duration < 4*clerksync.StoreTimeout {
		t.Errorf("read %d records in %v, want a sample of 100 and 600 once", n, report.Duration)
	}
}

// outage has all calls of the Store fail for a while, beginning with a call of one method.
type outage struct {
	clock  *fakeclerk.Clock
	op     string // the method
	calls  int    // of op; the second one begins the outage
	length time.Duration

	mu    sync.Mutex
	began time.Time
}

func (o *outage) fault(called string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if called == o.op {
		o.calls++
	}
	if o.calls == 2 && o.began.IsZero() {
		o.began = o.clock.Now()
	}
	if !o.began.IsZero() && o.clock.Now().Sub(o.began) < o.length {
		return errDown
	}
	return nil
}

// TestReconcileStoreDown lets the Store fail in each of its methods, for a while and for longer than
// a run waits.
func TestReconcileStoreDown(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"Stamps", "Users", "UpsertBatch", "Undeleted", "Deactivate", "Restore"} {
		for _, length := range []time.Duration{3 * time.Minute, time.Hour} {
			t.Run(fmt.Sprint(op, " ", length), func(t *testing.T) {
				t.Parallel()
				fx := newBulkFixture(t, nil)
				ids := fx.backfill(t, 20)
				fx.deactivate(t, ids[3])
				fx.rename(t, "Augusta", ids[12:]...)
				fx.ghosts(t, 3)
				down := &outage{clock: fx.clock, op: op, length: length}
				if op == "Restore" || op == "Undeleted" {
					down.calls = 1
				}
				fx.store.fault = down.fault
				opts := options{PageSize: 5, Restore: true, Force: op == "Users", Writers: 1}
				report, err := fx.Reconcile(t.Context(), opts)
				if down.began.IsZero() {
					t.Fatal("the Store was never down")
				}
				fx.store.fault = nil
				if length > retry.GiveUpAfter {
					took := fx.clock.Now().Sub(down.began)
					if !errors.Is(err, clerksync.ErrUnavailable) || report.Complete ||
						took > retry.GiveUpAfter+2*time.Minute {
						t.Fatalf("%v after %v, %+v", err, took, report)
					}
					opts.Resume = report.Resume
					if _, err = fx.Reconcile(t.Context(), opts); err != nil {
						t.Fatal(err)
					}
				} else {
					if err != nil || !report.Complete || report.Failed.Count != 0 {
						t.Fatalf("%v, %+v", err, report)
					}
					wantCounts(t, report, tally{
						"seen": 20, "unchanged": 11, "updated": 8, "tombstoned": 1, "restored": 1,
						"ghosts": 3, "deactivated": 3,
					})
				}
				fx.inStep(t)
			})
		}
	}
}

// TestReconcileStoreThatBreaksOff lets the list of records end in an error again and again, each
// time a record later. Altogether this takes longer than a run waits for one call.
func TestReconcileStoreThatBreaksOff(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 1)
	ghosts := fx.ghosts(t, 30)
	yielded, passed := 0, 1
	fx.store.fault = func(op string) error {
		if op != "Undeleted" || fx.clerk.Calls("GET /v1/users/count") < 2 { // not yet looking for ghosts
			return nil
		}
		if yielded++; yielded <= passed {
			return nil
		}
		yielded = 0
		passed++
		fx.clock.Advance(time.Minute)
		return errDown
	}
	report := fx.reconcile(t, options{MaxDeactivations: -1})
	wantCounts(t, report, tally{
		"seen": len(ids), "unchanged": len(ids), "ghosts": len(ghosts), "deactivated": len(ghosts),
	})
	if report.Duration < 20*time.Minute {
		t.Errorf("took only %v", report.Duration)
	}
}

// A write without an answer may have been applied, so the next visit reads the Store.
func TestReconcileWritesWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, func(c *clerksync.Config) { c.CacheTTL, c.RefreshAfter = 24*time.Hour, -1 })
	id := fx.backfill(t, 1)[0]
	visit(t, fx.Syncer, id)
	fx.clock.Advance(time.Second)
	if err := fx.clerk.BanUser(id); err != nil {
		t.Fatal(err)
	}
	fx.store.fault = func(op string) error {
		if op != "UpsertBatch" {
			return nil
		}
		if err := fx.store.Edit(id, func(u *clerksync.User) { u.Banned = true }); err != nil {
			t.Error(err)
		}
		return errDown
	}
	if report := fx.reconcileSome(t, options{}); report.Failed.Count != 1 {
		t.Errorf("reports %+v", report)
	}
	visitFails(t, fx.Syncer, id, clerksync.ErrUserInactive)
}

func TestReconcileStoreThatPanics(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"Stamps", "UpsertBatch", "Deactivate"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			ids := fx.backfill(t, 10)
			fx.rename(t, "Augusta", ids...)
			fx.ghosts(t, 3)
			fx.store.fault = func(called string) error {
				if called == op {
					panic("nil map")
				}
				return nil
			}
			report, err := fx.Reconcile(t.Context(), options{PageSize: 2})
			if !errors.Is(err, clerksync.ErrUnavailable) || !strings.Contains(err.Error(), "nil map") ||
				report.Complete {
				t.Errorf("%v, %+v", err, report)
			}
		})
	}
}

func TestReconcilePlainStore(t *testing.T) {
	t.Parallel()
	for _, force := range []bool{false, true} {
		fx := newBulkFixture(t, nil)
		ids := fx.backfill(t, 10)
		fx.ghosts(t, 2)
		fx.rename(t, "Augusta", ids[2])
		created := fx.signUp(2)
		fx.store.reject = func(id string) error {
			if id == created[0] {
				return errors.New("document failed validation")
			}
			return nil
		}
		s := fx.syncer(t, func(c *clerksync.Config) { c.Store = plainStore{fx.store} })
		report, err := s.Reconcile(t.Context(), options{PageSize: 5, Force: force})
		if report.Complete || report.InStep() || !strings.Contains(report.Reason, "BatchStore") || report.Resume != "" {
			t.Errorf("%v, %+v", err, report)
		}
		wantUnwritten(t, &report, err)
		wantCounts(t, report, tally{"seen": 12, "unchanged": 9, "updated": 1, "created": 1, "failed": 1})
		if fx.store.count("Deactivate") != 0 || fx.store.count("UpsertBatch") != 0 || fx.userCalls() != 0 {
			t.Error("looked for ghosts")
		}
		if fx.get(t, ids[2]).Profile.FirstName != "Augusta" || !fx.get(t, created[1]).IsActive {
			t.Error("the users are not in step")
		}
	}
}
