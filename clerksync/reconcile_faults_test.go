package clerksync_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
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

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
	"github.com/clerksync/clerksync-go/clerksync/internal/retry"
)

// TestReconcileOfAnotherInstance has a secret key that is none, or of another instance
// than the Store's users: nothing may be written.
func TestReconcileOfAnotherInstance(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		stored   int // records
		listed   int // users of the instance
		revoked  bool
		instance func(fx *bulkFixture, other *fakeclerk.Server) string
		want     error
		calls    int
	}{
		"another key":                     {stored: 3, listed: 3, want: clerksync.ErrWrongInstance, calls: 1},
		"another key, many records":       {stored: 150, listed: 3, want: clerksync.ErrWrongInstance, calls: 1},
		"an empty instance":               {stored: 3, want: clerksync.ErrWrongInstance, calls: 1},
		"an empty instance and Store":     {calls: 3},
		"an empty Store":                  {listed: 3, calls: 4},
		"revoked":                         {stored: 3, listed: 3, revoked: true, want: clerksync.ErrUnavailable, calls: 1},
		"revoked, and an empty Store":     {listed: 3, revoked: true, want: clerksync.ErrUnavailable, calls: 1},
		"another instance than was named": {stored: 3, listed: 3, instance: func(fx *bulkFixture, _ *fakeclerk.Server) string { return fx.clerk.InstanceID() }, want: clerksync.ErrWrongInstance, calls: 1},
		"another one, and an empty Store": {listed: 3, instance: func(fx *bulkFixture, _ *fakeclerk.Server) string { return fx.clerk.InstanceID() }, want: clerksync.ErrWrongInstance, calls: 1},
		// All records are gone from Clerk, rightly.
		"the instance that was named": {stored: 3, listed: 3, instance: func(_ *bulkFixture, o *fakeclerk.Server) string { return o.InstanceID() }, calls: 4 + 1 + 1 + 3},
	} {
		for _, dry := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " dry ", dry), func(t *testing.T) {
				t.Parallel()
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
				opts := clerksync.ReconcileOptions{DryRun: dry, PageSize: 2}
				if tt.instance != nil {
					opts.InstanceID = tt.instance(fx, other)
				}
				before := fx.records(t, ids)
				report, err := s.Reconcile(t.Context(), opts)
				if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
					t.Fatalf("error is %v, want %v", err, tt.want)
				}
				if n := other.Calls(""); n != tt.calls || report.ClerkCalls != n {
					t.Errorf("%d calls, of which %d are reported; want %d", n, report.ClerkCalls, tt.calls)
				}
				if tt.want == nil {
					want := map[string]int{"seen": tt.listed, "created": tt.listed, "ghosts": tt.stored, "deactivated": tt.stored}
					if dry {
						want["deactivated"] = 0
					}
					maps.DeleteFunc(want, func(_ string, n int) bool { return n == 0 })
					wantCounts(t, report, want)
					if !report.Complete {
						t.Errorf("reports %+v", report)
					}
					return
				}
				if fx.store.writes() != 0 || fx.store.Len() != tt.stored || gocmp.Diff(before, fx.records(t, ids)) != "" {
					t.Errorf("wrote %d times", fx.store.writes())
				}
				if report.Complete || report.Resume != "" || report.Reason != err.Error() {
					t.Errorf("reports %+v", report)
				}
				if tt.revoked != strings.Contains(err.Error(), "check that it is this instance's") || tt.revoked && !strings.Contains(err.Error(), "401 clerk_key_invalid") {
					t.Errorf("error is %v", err)
				}
			})
		}
	}
}

// TestReconcileKeyRevokedMidway: a 401 stops at once, wherever it comes.
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
		report, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{PageSize: 2})
		if !errors.Is(err, clerksync.ErrUnavailable) || !strings.Contains(err.Error(), "secret key") || report.Complete {
			t.Errorf("call %d: %v, %+v", call, err, report)
		}
		if n := fx.clerk.Calls(""); n != call || fx.store.writes() != 0 {
			t.Errorf("call %d: went on to %d, and wrote %d times", call, n, fx.store.writes())
		}
	}
}

// TestReconcileWithAFailingClerk fails one call in five in every way there is; runs are
// the same each time.
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
			fx.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault { // one call at a time
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
			report := fx.reconcile(t, clerksync.ReconcileOptions{PageSize: 4})
			if failed < 5 || report.ClerkCalls < 30+failed {
				t.Errorf("only %d calls failed; reports %+v", failed, report)
			}
			wantCounts(t, report, map[string]int{"seen": 80, "unchanged": 40, "created": len(created), "ghosts": 5, "deactivated": len(ghosts)})
			fx.clerk.SetFault(nil)
			fx.inStep(t)
		})
	}
}

// TestReconcileWithClerkDown has Clerk fail from some call on, for over five minutes.
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
			report, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{PageSize: 5})
			if !errors.Is(err, clerksync.ErrUnavailable) || report.Complete || report.Created.Count != 15 || report.Resume == "" {
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
			resumed := fx.reconcile(t, clerksync.ReconcileOptions{PageSize: 5, Resume: report.Resume})
			if resumed.Created.Count != 10 || !resumed.Complete {
				t.Errorf("resumed, it reports %+v", resumed)
			}
			fx.inStep(t)
		})
	}
}

// TestReconcileLastWord has a record that the list lacks, and Clerk answer the question
// for it in ways that are no proof that the user is gone.
func TestReconcileLastWord(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault *fakeclerk.Fault // of the last word
		want  error
	}{
		"a proxy's 404":   {&fakeclerk.Fault{Status: 404, ContentType: "text/html", Body: "<html>"}, clerksync.ErrUnavailable},
		"another 404":     {fakeclerk.ErrorFault(404, "api_version_not_found"), clerksync.ErrUnavailable},
		"410":             {fakeclerk.ErrorFault(410, "resource_not_found"), clerksync.ErrUnavailable},
		"another user":    {&fakeclerk.Fault{Status: 200, Body: `{"id":"user_other"}`}, clerksync.ErrUnavailable},
		"nobody":          {&fakeclerk.Fault{Status: 200, Body: `null`}, clerksync.ErrUnavailable},
		"the user itself": {&fakeclerk.Fault{Status: 200, Body: userJSON("user_zz_ghost_00000", t0.Add(time.Minute))}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			fx.backfill(t, 3)
			ghost := fx.ghosts(t, 1)[0]
			fx.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
				if strings.HasSuffix(r.URL.Path, ghost) {
					return tt.fault
				}
				return nil
			})
			report, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{})
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) || report.Complete != (tt.want == nil) {
				t.Errorf("%v, reports %+v", err, report)
			}
			if u := fx.get(t, ghost); !u.IsActive || report.Ghosts.Count != 0 {
				t.Errorf("the record is %+v", u)
			}
			if tt.want == nil && (report.Updated.Count != 1 || fx.get(t, ghost).Name == "Grace") {
				t.Errorf("the record is %+v, reports %+v", fx.get(t, ghost), report)
			}
		})
	}
}

// TestReconcileWhileUsersChange has something happen to one user of twenty while a page
// is on its way from Clerk.
func TestReconcileWhileUsersChange(t *testing.T) {
	t.Parallel()
	at := func(r *http.Request, fx *bulkFixture, what string) bool {
		switch what {
		case "the page":
			return isList(r) && fx.clerk.Calls("GET /v1/users") == 2+1 // after the look-up by id
		case "the end":
			return r.URL.Path == "/v1/users/count" && fx.clerk.Calls("GET /v1/users/count") == 2
		case "the last word":
			return strings.HasPrefix(r.URL.Path, "/v1/users/user_")
		case "the look-up":
			return r.URL.Query().Has("user_id") && fx.clerk.Calls("GET /v1/users") > 2
		}
		panic(what)
	}
	for name, tt := range map[string]struct {
		when   string
		change func(t *testing.T, fx *bulkFixture, id string)
		ghosts bool // whether the user is found gone in the same run
		next   bool // whether the next run has something to do
	}{
		"changed, and its event came": {when: "the page", change: func(t *testing.T, fx *bulkFixture, id string) {
			fx.rename(t, "Augusta", id)
			if _, err := fx.Sync(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}},
		"changed, and its event is lost": {when: "the page", next: true, change: func(t *testing.T, fx *bulkFixture, id string) {
			fx.rename(t, "Augusta", id)
		}},
		"deleted, and its event came": {when: "the page", change: func(t *testing.T, fx *bulkFixture, id string) {
			fx.delete(t, id)
			deleteEvent(t, fx, id)
		}},
		"deleted, and its event is lost": {when: "the page", next: true, change: func(t *testing.T, fx *bulkFixture, id string) {
			fx.delete(t, id)
		}},
		"no record, deleted, and its event came": {when: "the page", change: func(t *testing.T, fx *bulkFixture, id string) {
			late := fx.clerk.UserIDs()[7] // was never synced, and is on the page
			fx.delete(t, late)
			deleteEvent(t, fx, late)
		}},
		"signed up and visited before the ghosts are looked for": {when: "the end", change: func(t *testing.T, fx *bulkFixture, _ string) {
			id := fx.clerk.CreateUser(fakeclerk.NewUser{})
			visit(t, fx.Syncer, id)
			fx.edit(t, id, func(u *clerksync.User) { u.CreatedAt = t0 }) // an importer's: the holdback does not save it
		}},
		"the ghost is deactivated before its turn": {when: "the look-up", ghosts: true, change: func(t *testing.T, fx *bulkFixture, _ string) {
			deleteEvent(t, fx, "user_zz_ghost_00000")
		}},
		"signed up while the ghosts are looked for": {when: "the last word", ghosts: true, next: true, change: func(_ *testing.T, fx *bulkFixture, _ string) {
			fx.clerk.CreateUser(fakeclerk.NewUser{})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, func(c *clerksync.Config) { c.RefreshAfter = -1 })
			ids := fx.backfill(t, 20)
			missing := fx.signUp(1)[0]
			fx.clerk.UpdateUserSilently(missing, func(u *fakeclerk.UserObject) { u.CreatedAt = t0.UnixMilli() + 6500 })
			ghost := fx.ghosts(t, 1)[0]
			var once sync.Once
			fx.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
				if !at(r, fx, tt.when) {
					return nil
				}
				return &fakeclerk.Fault{BeforeSend: func() {
					once.Do(func() { tt.change(t, fx, ids[7]) })
				}}
			})
			report := fx.reconcile(t, clerksync.ReconcileOptions{PageSize: 5})
			once.Do(func() { t.Error("nothing happened in between") })
			fx.clerk.SetFault(nil)
			if u := fx.get(t, ghost); u.IsActive || report.Deactivated.Count != 1 || !report.Complete {
				t.Errorf("the ghost is %+v; reports %+v", u, report)
			}
			next := fx.reconcile(t, clerksync.ReconcileOptions{Force: true, Holdback: -1})
			if next.InStep() == tt.next {
				t.Errorf("the next run finds %v", counts(&next))
			}
			fx.inStep(t)
			for id, u := range fx.records(t, append(ids, missing)) {
				if _, exists := fx.clerk.User(id); exists != u.DeletedAt.IsZero() || exists != u.IsActive {
					t.Errorf("in Clerk %v: %+v", exists, u)
				}
			}
		})
	}
}

// TestReconcileBesideLiveTraffic runs while users sign up, change and go, with their
// webhooks delivered to another process and visits in a third.
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
				_ = fx.clerk.UpdateUser(alive[i], func(u *fakeclerk.UserObject) { u.FirstName = clerk.String(fmt.Sprint("Ada ", n)) })
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
			// A user may be gone by now.
			_, _ = visitor.User(ctx, all[random.IntN(len(all))])
		}
	})
	for range 3 {
		// Some may be deleted while they are looked at; none of that is an error.
		if report, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{PageSize: 5, MaxDeactivations: -1}); err != nil && !errors.Is(err, clerksync.ErrIncomplete) {
			t.Errorf("%v, %+v", err, report)
		}
	}
	stop()
	traffic.Wait()
	clerksync.WaitBackground(visitor)
	fx.clock.Advance(24 * time.Hour) // what failed is delivered again
	if err := fx.clerk.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	app.Close() // waits for the deliveries that were given up, too
	fx.inStep(t)
}

func TestReconcileLimitsDeactivations(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		users, ghosts, limit int
		refused              bool
	}{
		"default of few, at it":    {users: 5, ghosts: 10},
		"default of few, over it":  {users: 5, ghosts: 11, refused: true},
		"default of many, at it":   {users: 600, ghosts: 12}, // of 612
		"default of many, over it": {users: 600, ghosts: 13, refused: true},
		"explicit, at it":          {users: 5, ghosts: 2, limit: 2},
		"explicit, over it":        {users: 5, ghosts: 3, limit: 2, refused: true},
		"lifted":                   {users: 5, ghosts: 120, limit: -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			fx.backfill(t, tt.users)
			ghosts := fx.ghosts(t, tt.ghosts)
			fx.edit(t, ghosts[0], func(u *clerksync.User) { u.IsActive = false }) // suspended: gone all the same
			for _, dry := range []bool{true, false} {
				report, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{DryRun: dry, MaxDeactivations: tt.limit, RequestsPerSecond: 1e6})
				if tt.refused != errors.Is(err, clerksync.ErrTooManyGhosts) || !tt.refused && err != nil || report.Complete == tt.refused {
					t.Fatalf("dry %v: %v, %+v", dry, err, report)
				}
				if report.Ghosts.Count != tt.ghosts || !slices.Equal(report.Ghosts.IDs, ghosts[:min(len(ghosts), 100)]) {
					t.Errorf("dry %v: finds %d ghosts", dry, report.Ghosts.Count)
				}
				want := tt.ghosts
				if dry || tt.refused {
					want = 0
				}
				if report.Deactivated.Count != want || fx.store.count("Deactivate") != want {
					t.Errorf("dry %v: deactivates %d, want %d", dry, fx.store.count("Deactivate"), want)
				}
			}
			for id, u := range fx.records(t, ghosts) {
				if u.DeletedAt.IsZero() != tt.refused {
					t.Errorf("%s is %+v", id, u)
				}
			}
		})
	}
}

func TestReconcileHoldback(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		holdback, age time.Duration
		ghost         bool
	}{
		"default, younger": {0, 9 * time.Minute, false},
		"default, older":   {0, 11 * time.Minute, true},
		"longer, younger":  {3 * time.Hour, 2 * time.Hour, false},
		"none":             {-1, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			fx.backfill(t, 3)
			fx.record(t, "user_zz_ghost")
			fx.clock.Advance(tt.age)
			report := fx.reconcile(t, clerksync.ReconcileOptions{Holdback: tt.holdback})
			if u := fx.get(t, "user_zz_ghost"); u.DeletedAt.IsZero() == tt.ghost || (report.Ghosts.Count == 1) != tt.ghost || !report.Complete {
				t.Errorf("the record is %+v, reports %+v", u, report)
			}
			if tt.ghost == (fx.lookups() == 0) {
				t.Errorf("%d look-ups", fx.lookups())
			}
		})
	}
}

// TestReconcileBadUsers has one user of ten whom the run cannot handle. It is counted,
// logged, and stops nothing.
func TestReconcileBadUsers(t *testing.T) {
	t.Parallel()
	conflict := &clerksync.ConflictError{Field: "email"}
	for name, tt := range map[string]struct {
		mapping  func(*clerk.User, *clerksync.User) error
		change   func(*fakeclerk.UserObject)
		refuse   error
		conflict bool
		nameless bool // the Report cannot say whom
	}{
		"Map fails":                             {mapping: func(*clerk.User, *clerksync.User) error { return errors.New("no tenant") }},
		"Map panics":                            {mapping: func(*clerk.User, *clerksync.User) error { panic("nil map") }},
		"Map lies":                              {mapping: func(_ *clerk.User, u *clerksync.User) error { u.ClerkID = "user_x"; return nil }},
		"of the future":                         {change: func(u *fakeclerk.UserObject) { u.UpdatedAt = t0.Add(48 * time.Hour).UnixMilli() }},
		"of wrong types":                        {change: func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"email_addresses": 7} }},
		"without an id":                         {change: func(u *fakeclerk.UserObject) { u.Extra = map[string]any{"id": nil} }, nameless: true},
		"refused":                               {refuse: errors.New("document failed validation")},
		"in conflict":                           {refuse: conflict, conflict: true},
		"in conflict, so it is said in passing": {refuse: fmt.Errorf("store: %w", conflict), conflict: true},
	} {
		for _, force := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " force ", force), func(t *testing.T) {
				t.Parallel()
				bad := ""
				fx := newBulkFixture(t, func(c *clerksync.Config) {
					c.Map = func(cu *clerk.User, u *clerksync.User) error {
						if tt.mapping != nil && cu.ID == bad {
							return tt.mapping(cu, u)
						}
						return nil
					}
				})
				ids := fx.signUp(10)
				bad = ids[4]
				if tt.change != nil {
					if err := fx.clerk.UpdateUserSilently(bad, tt.change); err != nil {
						t.Fatal(err)
					}
				}
				fx.store.refuse = func(id string) error {
					if id == bad {
						return tt.refuse
					}
					return nil
				}
				report := fx.reconcile(t, clerksync.ReconcileOptions{PageSize: 3, Force: force})
				want, tally := map[string]int{"seen": 10, "created": 9, "failed": 1}, report.Failed
				if tt.conflict {
					want, tally = map[string]int{"seen": 10, "created": 9, "conflicts": 1}, report.Conflicts
				}
				wantCounts(t, report, want)
				if !report.Complete || report.InStep() {
					t.Errorf("reports %+v", report)
				}
				if !tt.nameless && !slices.Equal(tally.IDs, []string{bad}) {
					t.Errorf("names %v", tally.IDs)
				}
				if !tt.conflict && (strings.Count(fx.logs.String(), "could not be reconciled") != 1 || !tt.nameless && !strings.Contains(fx.logs.String(), bad)) {
					t.Errorf("logs:\n%s", fx.logs)
				}
			})
		}
	}
}

// TestReconcileManyBadUsers: the log is bounded as the Report is.
func TestReconcileManyBadUsers(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, func(c *clerksync.Config) {
		c.Map = func(*clerk.User, *clerksync.User) error { return errors.New("no tenant") }
	})
	fx.signUp(250)
	report := fx.reconcile(t, clerksync.ReconcileOptions{PageSize: 20})
	wantCounts(t, report, map[string]int{"seen": 250, "failed": 250})
	if n := strings.Count(fx.logs.String(), "could not be reconciled"); n != 100 || len(report.Failed.IDs) != 100 {
		t.Errorf("logs %d and names %d users, want 100", n, len(report.Failed.IDs))
	}
}

// TestReconcileStoreThatRefuses: users whom the Store refuses one after the other are
// the Store's fault.
func TestReconcileStoreThatRefuses(t *testing.T) {
	t.Parallel()
	invalid := errors.New("not authorized")
	for name, tt := range map[string]struct {
		arrange func(t *testing.T, fx *bulkFixture)
		opts    clerksync.ReconcileOptions
		op      string // at most so many calls of it
		calls   int
	}{
		"all writes": {func(_ *testing.T, fx *bulkFixture) { fx.signUp(200) }, clerksync.ReconcileOptions{PageSize: 10}, "UpsertBatch", 4*3*5 + 4*3},
		"all restores": {func(t *testing.T, fx *bulkFixture) {
			for _, id := range fx.backfill(t, 200) {
				if _, err := fx.store.Store.Deactivate(t.Context(), id, fx.clock.Now()); err != nil {
					t.Fatal(err)
				}
			}
			fx.clock.Advance(2 * time.Hour)
		}, clerksync.ReconcileOptions{Restore: true, Writers: 1}, "Restore", 3 * 50},
		"all deactivations": {func(t *testing.T, fx *bulkFixture) {
			fx.backfill(t, 3)
			fx.ghosts(t, 200)
		}, clerksync.ReconcileOptions{MaxDeactivations: -1}, "Deactivate", 3*50 + 4*3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			tt.arrange(t, fx)
			fx.store.reset()
			fx.store.refuse = func(string) error { return invalid }
			report, err := fx.Reconcile(t.Context(), tt.opts)
			if !errors.Is(err, clerksync.ErrUnavailable) || !errors.Is(err, invalid) || report.Complete {
				t.Errorf("%v, %+v", err, report)
			}
			if n := fx.store.count(tt.op); n == 0 || n > tt.calls {
				t.Errorf("%d times %s, want at most %d", n, tt.op, tt.calls)
			}
		})
	}
}

// TestReconcileStoreThatRefusesSome: with others written in between, any number may be
// refused.
func TestReconcileStoreThatRefusesSome(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	refused := make(map[string]bool)
	for i, id := range fx.signUp(140) {
		refused[id] = i%2 == 0
	}
	fx.store.refuse = func(id string) error {
		if refused[id] {
			return errors.New("document failed validation")
		}
		return nil
	}
	report := fx.reconcile(t, clerksync.ReconcileOptions{PageSize: 20})
	wantCounts(t, report, map[string]int{"seen": 140, "created": 70, "failed": 70})
	if !report.Complete || report.InStep() {
		t.Errorf("reports %+v", report)
	}
}

// TestReconcileStoreDown has the Store fail in one of its methods for a while, or for
// too long.
func TestReconcileStoreDown(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"Stamps", "Users", "UpsertBatch", "Undeleted", "Deactivate", "Restore"} {
		for _, outage := range []time.Duration{3 * time.Minute, time.Hour} {
			t.Run(fmt.Sprint(op, " ", outage), func(t *testing.T) {
				t.Parallel()
				fx := newBulkFixture(t, nil)
				ids := fx.backfill(t, 20)
				if _, err := fx.store.Store.Deactivate(t.Context(), ids[3], fx.clock.Now()); err != nil {
					t.Fatal(err)
				}
				fx.rename(t, "Augusta", ids[12:]...)
				fx.ghosts(t, 3)
				var mu sync.Mutex
				var began time.Time
				down := false
				calls := 0
				fx.store.fault = func(called string) error {
					mu.Lock()
					defer mu.Unlock()
					if called == op {
						calls++
					}
					// From the second call of op on everything fails.
					if calls == 2 && began.IsZero() {
						began, down = fx.clock.Now(), true
					}
					if down = down && fx.clock.Now().Sub(began) < outage; down {
						return errDown
					}
					return nil
				}
				opts := clerksync.ReconcileOptions{PageSize: 5, Restore: true, Force: op == "Users", Writers: 1}
				if op == "Restore" || op == "Undeleted" {
					calls = 1
				}
				report, err := fx.Reconcile(t.Context(), opts)
				if began.IsZero() {
					t.Fatal("the Store was never down")
				}
				fx.store.fault = nil
				if outage > retry.GiveUpAfter {
					if !errors.Is(err, clerksync.ErrUnavailable) || report.Complete {
						t.Fatalf("%v, %+v", err, report)
					}
					if took := fx.clock.Now().Sub(began); took > retry.GiveUpAfter+2*time.Minute {
						t.Errorf("gave up after %v", took)
					}
					opts.Resume = report.Resume
					if _, err = fx.Reconcile(t.Context(), opts); err != nil {
						t.Fatal(err)
					}
				} else if err != nil || !report.Complete || report.Failed.Count != 0 {
					t.Fatalf("%v, %+v", err, report)
				} else {
					wantCounts(t, report, map[string]int{"seen": 20, "unchanged": 11, "updated": 8, "tombstoned": 1, "restored": 1, "ghosts": 3, "deactivated": 3})
				}
				fx.inStep(t)
			})
		}
	}
}

// TestReconcileStoreThatBreaksOff has the list of records end in an error again and
// again, each time a little further on: longer in all than the patience for one call.
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
	report := fx.reconcile(t, clerksync.ReconcileOptions{MaxDeactivations: -1})
	wantCounts(t, report, map[string]int{"seen": len(ids), "unchanged": len(ids), "ghosts": len(ghosts), "deactivated": len(ghosts)})
	if report.Duration < 20*time.Minute {
		t.Errorf("took only %v", report.Duration)
	}
}

// A write whose answer never comes may have been done: the next visit looks.
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
	if report := fx.reconcile(t, clerksync.ReconcileOptions{}); report.Failed.Count != 1 {
		t.Errorf("reports %+v", report)
	}
	refusedWith(t, fx.Syncer, id, clerksync.ErrUserInactive)
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
			report, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{PageSize: 2})
			if !errors.Is(err, clerksync.ErrUnavailable) || !strings.Contains(err.Error(), "nil map") || report.Complete {
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
		fx.store.refuse = func(id string) error {
			if id == created[0] {
				return errors.New("document failed validation")
			}
			return nil
		}
		s := fx.syncer(t, func(c *clerksync.Config) { c.Store = plainStore{fx.store} })
		report, err := s.Reconcile(t.Context(), clerksync.ReconcileOptions{PageSize: 5, Force: force})
		if err != nil || report.Complete || report.InStep() || !strings.Contains(report.Reason, "BatchStore") || report.Resume != "" {
			t.Errorf("%v, %+v", err, report)
		}
		wantCounts(t, report, map[string]int{"seen": 12, "unchanged": 9, "updated": 1, "created": 1, "failed": 1})
		if fx.store.count("Deactivate") != 0 || fx.store.count("UpsertBatch") != 0 || fx.lookups() != 0 {
			t.Error("looked for ghosts")
		}
		if fx.get(t, ids[2]).Profile.FirstName != "Augusta" || !fx.get(t, created[1]).IsActive {
			t.Error("the users are not in step")
		}
	}
}

// endState is what the records come to, however often and in which pieces a run was
// made.
func endState(t *testing.T, fx *bulkFixture, ids []string) map[string]*clerksync.User {
	t.Helper()
	records := fx.records(t, ids)
	if len(records) != fx.store.Len() {
		t.Errorf("%d records, of which %d are the users'", fx.store.Len(), len(records))
	}
	return records
}

var whenAndWhere = cmpopts.IgnoreFields(clerksync.User{}, "ID", "SyncedAt", "CreatedAt", "UpdatedAt", "DeletedAt")

// TestReconcileResumed stops a run at every point, goes on with and without the token,
// and wants the records of an undisturbed run.
func TestReconcileResumed(t *testing.T) {
	t.Parallel()
	prepare := func(t *testing.T) (*bulkFixture, []string) {
		fx := startBulkFixture(t, fakeclerk.Config{RateLimit: -1, Seed: 7}, nil)
		ids := fx.backfill(t, 20)
		fx.store.UniqueEmail = true
		// The first user takes the address of the last, who has given it up.
		for i, address := range map[int]string{0: "ada19@example.com", 19: "new@example.com"} {
			if err := fx.clerk.UpdateUser(ids[i], func(u *fakeclerk.UserObject) { u.EmailAddresses[0].EmailAddress = address }); err != nil {
				t.Fatal(err)
			}
		}
		fx.rename(t, "Augusta", ids[1], ids[7], ids[13])
		fx.delete(t, ids[4], ids[16])
		ids = append(append(ids, fx.signUp(10)...), fx.ghosts(t, 2)...)
		// A new user has an address that a ghost holds.
		fx.edit(t, ids[len(ids)-1], func(u *clerksync.User) { u.Email = "ada20@example.com" })
		return fx, ids
	}
	fx, ids := prepare(t)
	undisturbed := fx.reconcile(t, clerksync.ReconcileOptions{PageSize: 3})
	wantCounts(t, undisturbed, map[string]int{"seen": 28, "unchanged": 13, "created": 10, "updated": 5, "ghosts": 4, "deactivated": 4})
	want := endState(t, fx, ids)
	fx.inStep(t)

	for stop := 1; ; stop++ {
		reached := false
		for _, resume := range []bool{true, false} {
			fx, ids := prepare(t)
			ctx, cancel := context.WithCancel(t.Context())
			// Every call of Clerk, of the Store and of Progress is a point to stop at.
			var calls atomic.Int32
			point := func() {
				if int(calls.Add(1)) == stop {
					cancel()
				}
			}
			fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { point(); return nil })
			fx.store.fault = func(string) error { point(); return nil }
			fx.store.after = func(string) { point() }
			report, err := fx.Reconcile(ctx, clerksync.ReconcileOptions{PageSize: 3, Progress: func(clerksync.Progress) { point() }})
			reached = ctx.Err() != nil
			cancel()
			fx.clerk.SetFault(nil)
			fx.store.fault, fx.store.after = nil, nil
			if !reached {
				break
			}
			// A run that is stopped at its very end may be done.
			if report.Complete != (err == nil) || err != nil && (!errors.Is(err, context.Canceled) || report.Reason == "") {
				t.Fatalf("stop %d: %v, %+v", stop, err, report)
			}
			opts := clerksync.ReconcileOptions{PageSize: 4}
			if resume {
				opts.Resume = report.Resume
			}
			second := report
			if err != nil {
				second = fx.reconcile(t, opts)
			}
			if !second.Complete {
				t.Errorf("stop %d, resume %v: reports %+v", stop, resume, second)
			}
			if diff := gocmp.Diff(want, endState(t, fx, ids), whenAndWhere); diff != "" {
				t.Errorf("stop %d, resume %v: the records are not those of an undisturbed run (-want +got):\n%s", stop, resume, diff)
			}
			fx.inStep(t)
		}
		if !reached {
			if stop < 60 {
				t.Errorf("only %d points to stop at", stop)
			}
			break
		}
	}
}

func TestReconcileCancelledWhileDeactivating(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	fx.backfill(t, 3)
	ghosts := fx.ghosts(t, 10)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	fx.store.after = func(op string) {
		if fx.store.count(op) == 3 {
			cancel()
		}
	}
	report, err := fx.Reconcile(ctx, clerksync.ReconcileOptions{Writers: 1})
	if !errors.Is(err, context.Canceled) || report.Complete || report.Ghosts.Count != len(ghosts) || report.Deactivated.Count != 3 {
		t.Errorf("%v, %+v", err, report)
	}
	report = fx.reconcile(t, clerksync.ReconcileOptions{})
	if report.Ghosts.Count != 7 || report.Deactivated.Count != 7 {
		t.Errorf("the next run reports %+v", report)
	}
}

// TestReconcileResumedCost: the users of the first part are asked about by id, a hundred
// a call, and none is taken for a ghost.
func TestReconcileResumedCost(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 270)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	report, err := fx.Reconcile(ctx, clerksync.ReconcileOptions{PageSize: 50, Writers: 1, Progress: func(p clerksync.Progress) {
		if p.Done == 250 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || report.Seen != 250 {
		t.Fatalf("%v, %+v", err, report)
	}
	fx.delete(t, ids[100])           // passed, and gone since
	fx.rename(t, "Augusta", ids[30]) // passed, and changed since
	fx.delete(t, ids[249])           // the one to begin after
	fx.clerk.ResetCalls()
	resumed := fx.reconcile(t, clerksync.ReconcileOptions{PageSize: 50, Resume: report.Resume})
	if !resumed.Complete || resumed.Deactivated.Count != 2 || resumed.Updated.Count != 1 || resumed.Seen != 268 {
		t.Errorf("reports %+v", resumed)
	}
	if n := fx.clerk.Calls("GET /v1/users"); n > 10 || fx.lookups() != 2 {
		t.Errorf("%d lists and %d look-ups", n, fx.lookups())
	}
	fx.inStep(t)
}

func TestReconcileResumePoints(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	fx.signUp(20)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	report, err := fx.Reconcile(ctx, clerksync.ReconcileOptions{PageSize: 5, Progress: func(p clerksync.Progress) {
		if p.Report.Resume != "" {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || report.Resume == "" {
		t.Fatalf("%v, %+v", err, report)
	}
	if strings.Contains(report.Resume, fx.clerk.SecretKey()) || len(report.Resume) > 200 {
		t.Errorf("the point is %s", report.Resume)
	}
	other := fx.syncer(t, func(c *clerksync.Config) { c.SecretKey = "sk_test_other" })
	token := base64.RawURLEncoding.EncodeToString
	for name, tt := range map[string]struct {
		syncer *clerksync.Syncer
		opts   clerksync.ReconcileOptions
		want   string
	}{
		"another key":     {other, clerksync.ReconcileOptions{Resume: report.Resume}, "another secret key"},
		"of no dry run":   {fx.Syncer, clerksync.ReconcileOptions{Resume: report.Resume, DryRun: true}, "another DryRun"},
		"without Force":   {fx.Syncer, clerksync.ReconcileOptions{Resume: report.Resume, Force: true}, "another DryRun, Force"},
		"without Restore": {fx.Syncer, clerksync.ReconcileOptions{Resume: report.Resume, Restore: true}, "another DryRun, Force or Restore"},
		"cut short":       {fx.Syncer, clerksync.ReconcileOptions{Resume: report.Resume[:20]}, "copy it whole"},
		"no token":        {fx.Syncer, clerksync.ReconcileOptions{Resume: "user_1"}, "copy it whole"},
		"no base64":       {fx.Syncer, clerksync.ReconcileOptions{Resume: "{}"}, "copy it whole"},
		"no user":         {fx.Syncer, clerksync.ReconcileOptions{Resume: token([]byte(`{"after":"../jwks"}`))}, "copy it whole"},
		"no conflict":     {fx.Syncer, clerksync.ReconcileOptions{Resume: token([]byte(`{"after":"user_1","conflicts":["&"]}`))}, "copy it whole"},
		"negative":        {fx.Syncer, clerksync.ReconcileOptions{Resume: token([]byte(`{"after":"user_1","passed":-1}`))}, "copy it whole"},
	} {
		refused, err := tt.syncer.Reconcile(t.Context(), tt.opts)
		if err == nil || !strings.Contains(err.Error(), "ReconcileOptions.Resume") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if refused.ClerkCalls != 0 { // not the fake's count, which a call cancelled above may still move
			t.Errorf("%s: asked Clerk", name)
		}
	}
	// What the same key in another process makes of it, and a longer page.
	resumed, err := fx.syncer(t, nil).Reconcile(t.Context(), clerksync.ReconcileOptions{Resume: report.Resume})
	if err != nil || !resumed.Complete {
		t.Errorf("%v, %+v", err, resumed)
	}
	fx.inStep(t)
}

func TestReconcileRestore(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		opts              clerksync.ReconcileOptions
		restored, written bool
	}{
		"reported only":   {},
		"restored":        {clerksync.ReconcileOptions{Restore: true}, true, true},
		"with Force":      {clerksync.ReconcileOptions{Restore: true, Force: true}, true, true},
		"in a dry run":    {clerksync.ReconcileOptions{Restore: true, DryRun: true}, true, false},
		"only with Force": {clerksync.ReconcileOptions{Force: true}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			ids := fx.backfill(t, 6)
			old, changed, young, gone := ids[0], ids[1], ids[2], ids[3]
			for _, id := range []string{old, changed, gone} {
				if _, err := fx.store.Store.Deactivate(t.Context(), id, fx.clock.Now()); err != nil {
					t.Fatal(err)
				}
			}
			fx.edit(t, old, func(u *clerksync.User) { u.Role = clerksync.RoleAdmin })
			fx.rename(t, "Augusta", changed)
			fx.delete(t, gone)
			fx.clock.Advance(time.Hour)
			if _, err := fx.store.Store.Deactivate(t.Context(), young, fx.clock.Now()); err != nil {
				t.Fatal(err)
			}
			fx.clock.Advance(time.Minute)
			before := fx.records(t, ids)

			report := fx.reconcile(t, tt.opts)
			want := map[string]int{"seen": 5, "unchanged": 2, "tombstoned": 3}
			if tt.restored {
				want["restored"] = 2
			}
			wantCounts(t, report, want)
			if report.InStep() == tt.restored || !slices.Contains(report.Tombstoned.IDs, young) {
				t.Errorf("reports %+v", report)
			}
			after := fx.records(t, ids)
			if !tt.written {
				if diff := gocmp.Diff(before, after); diff != "" {
					t.Errorf("wrote (-before +after):\n%s", diff)
				}
				return
			}
			for _, id := range []string{old, changed} {
				if u := after[id]; !u.IsActive || !u.DeletedAt.IsZero() || u.ID != before[id].ID {
					t.Errorf("%+v", u)
				}
			}
			if after[old].Role != clerksync.RoleAdmin || after[changed].Profile.FirstName != "Augusta" {
				t.Errorf("%+v, %+v", after[old], after[changed])
			}
			for _, id := range []string{young, gone} {
				if diff := gocmp.Diff(before[id], after[id]); diff != "" {
					t.Errorf("wrote (-before +after):\n%s", diff)
				}
			}
			fx.inStep(t)
		})
	}
}

// A record that is given back is brought in step, also where the run ends in between, or
// the answer of Restore is lost.
func TestRestoreIsFollowedByTheRest(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault func(fx *bulkFixture, id string, stop context.CancelFunc) func(op string) error
		runs  int
	}{
		"killed after it": {func(_ *bulkFixture, _ string, stop context.CancelFunc) func(string) error {
			return func(op string) error {
				if op != "UpsertBatch" {
					return nil
				}
				stop()
				return context.Canceled
			}
		}, 2},
		"its answer is lost": {func(fx *bulkFixture, id string, _ context.CancelFunc) func(string) error {
			lost := false
			return func(op string) error {
				if op != "Restore" || lost {
					return nil
				}
				lost = true
				_, _ = fx.store.Store.Restore(context.Background(), id, fx.clock.Now())
				return errDown
			}
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newBulkFixture(t, nil)
			id := fx.backfill(t, 3)[0]
			if _, err := fx.store.Deactivate(t.Context(), id, fx.clock.Now()); err != nil {
				t.Fatal(err)
			}
			email := fx.get(t, id).Email
			fx.edit(t, id, func(u *clerksync.User) { u.Email = "" }) // as EraseOnDelete does, or a claim of another's
			fx.clock.Advance(2 * time.Hour)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			fx.store.fault = tt.fault(fx, id, stop)
			for run := range tt.runs {
				if _, err := fx.Reconcile(ctx, clerksync.ReconcileOptions{Restore: true}); (err == nil) != (run == tt.runs-1) {
					t.Fatal(err)
				}
				ctx, fx.store.fault = t.Context(), nil
			}
			if u := fx.get(t, id); !u.IsActive || u.Email != email {
				t.Errorf("the record is %+v", u)
			}
			fx.inStep(t)
		})
	}
}

// A user who is deleted in Clerk after Clerk listed them, and before their record is given
// back, stays deleted: the event found the record deleted already, and has come and gone.
func TestRestoreOfAUserDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	ids := fx.backfill(t, 3)
	gone, kept := ids[0], ids[1]
	for _, id := range []string{gone, kept} {
		if _, err := fx.store.Deactivate(t.Context(), id, fx.clock.Now()); err != nil {
			t.Fatal(err)
		}
	}
	fx.clock.Advance(2 * time.Hour)
	var once sync.Once
	fx.store.fault = func(op string) error {
		if op == "Restore" {
			once.Do(func() {
				fx.delete(t, gone)
				deleteEvent(t, fx, gone)
			})
		}
		return nil
	}
	report := fx.reconcile(t, clerksync.ReconcileOptions{Restore: true})
	wantCounts(t, report, map[string]int{"seen": 3, "unchanged": 1, "tombstoned": 2, "restored": 2, "ghosts": 1, "deactivated": 1})
	if u := fx.get(t, gone); u.IsActive || u.DeletedAt.IsZero() {
		t.Errorf("who is deleted in Clerk has %+v", u)
	}
	if u := fx.get(t, kept); !u.IsActive {
		t.Errorf("who lives in Clerk has %+v", u)
	}
}

func TestReconcileProgressPanics(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	fx.signUp(30)
	calls := 0
	report, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{PageSize: 10, Progress: func(clerksync.Progress) {
		calls++
		panic("of the app's")
	}})
	if err != nil || !report.Complete || report.Created.Count != 30 || calls != 1 {
		t.Errorf("%v after %d calls, reports %+v", err, calls, report)
	}
	if !strings.Contains(fx.logs.String(), "panic in ReconcileOptions.Progress") {
		t.Errorf("the panic is not in the log:\n%s", fx.logs)
	}
}

// Clerk's count is no size to make room for.
func TestReconcileOfAnImpossibleCount(t *testing.T) {
	t.Parallel()
	fx := newBulkFixture(t, nil)
	fx.backfill(t, 2)
	fx.answer = func(r *http.Request, resp *http.Response) {
		if strings.HasSuffix(r.URL.Path, "/users/count") {
			resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(`{"object":"total_count","total_count":4000000000000000000}`)), -1
		}
	}
	if report, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{}); !errors.Is(err, clerksync.ErrIncomplete) || report.Seen != 2 {
		t.Errorf("%v, reports %+v", err, report)
	}
}

// deleteEvent brings the event of a deletion.
func deleteEvent(t *testing.T, fx *bulkFixture, id string) {
	t.Helper()
	data := json.RawMessage(fmt.Sprintf(`{"id":%q,"deleted":true}`, id))
	if _, err := fx.Apply(t.Context(), clerksync.Event{ID: "msg_1", Type: "user.deleted", Timestamp: fx.clock.Now(), Data: data}); err != nil {
		t.Fatal(err)
	}
}
