package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// member is an app's own type.
type member struct {
	Name     string
	Plan     string
	SyncedAt time.Time
	Tags     []string
}

// errOddPlan is why a document cannot be decoded.
var errOddPlan = errors.New(`the field "plan" does not decode into member`)

// recordStore makes an member of each record that it reads or writes, as mongostore's Record
// option does. In a batch it does not.
type recordStore struct {
	*countingStore
	made atomic.Int32
	odd  atomic.Bool // the documents do not decode
}

func (s *recordStore) record(u *clerksync.User) (any, error) {
	s.made.Add(1)
	if s.odd.Load() {
		return nil, fmt.Errorf("store: %w", &clerksync.Problem{Status: 500, Code: "record_failed", Err: errOddPlan})
	}
	return &member{Name: u.Name, Plan: "pro", SyncedAt: u.SyncedAt, Tags: []string{"a"}}, nil
}

func (s *recordStore) User(ctx context.Context, id string) (*clerksync.User, error) {
	u, err := s.countingStore.User(ctx, id)
	if err == nil {
		u.Record, err = s.record(u)
	}
	return u, err
}

func (s *recordStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	res, err := s.countingStore.Upsert(ctx, u)
	if res.User != nil {
		var recordErr error
		if res.User.Record, recordErr = s.record(res.User); recordErr != nil {
			res.User = nil
		}
	}
	return res, err
}

// recording is an app with a recordStore. Ada is in Clerk.
type recording struct {
	*fixture
	records *recordStore
	ada     string
}

func newRecording(t testing.TB, change func(*clerksync.Config)) *recording {
	t.Helper()
	r := &recording{}
	r.fixture = newFixture(t, func(c *clerksync.Config) {
		r.records = &recordStore{countingStore: c.Store.(*countingStore)}
		c.Store = r.records
		if change != nil {
			change(c)
		}
	})
	r.ada = r.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: adaEmail})
	return r
}

// request sends Ada's request through RequireUser. within runs in the handler.
func (r *recording) request(t testing.TB, claim any, within func(ctx context.Context)) answer {
	t.Helper()
	token, err := r.clerk.Token(r.ada, fakeclerk.TokenOptions{Claims: map[string]any{"updated_at": claim}})
	if err != nil {
		t.Fatal(err)
	}
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	req.Header.Set("Authorization", "Bearer "+token)
	return answerOf(r.RequireUser(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) { within(req.Context()) })), req)
}

// wantRecord checks that the handler of a request of Ada's gets the member of this name, which
// is the member of the record that it gets too.
func (r *recording) wantRecord(t testing.TB, claim any, name, when string) {
	t.Helper()
	handled := false
	a := r.request(t, claim, func(ctx context.Context) {
		handled = true
		got, ok := clerksync.RecordFromContext[member](ctx)
		u, _ := clerksync.UserFromContext(ctx)
		if !ok || got.Name != name || got.Plan != "pro" || u.Name != name || !got.SyncedAt.Equal(u.SyncedAt) {
			t.Errorf("%s: the handler gets %+v, %t, and the user %+v; want %s", when, got, ok, u, name)
		}
	})
	if !handled {
		t.Errorf("%s: refused: %d %s", when, a.status, a.body)
	}
}

func (r *recording) applyUpdate(t *testing.T) {
	t.Helper()
	raw, _ := r.clerk.User(r.ada)
	if _, err := r.Apply(t.Context(), clerksync.Event{Type: "user.updated", Timestamp: r.clock.Now(), Data: raw}); err != nil {
		t.Fatal(err)
	}
}

// The handler gets the Record on whichever way its record came.
func TestRecordFromContext(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]func(t *testing.T, r *recording){
		"created, then cached": func(t *testing.T, r *recording) {
			r.wantRecord(t, nil, "Ada", "created")
			made := r.records.made.Load()
			for range 3 {
				r.wantRecord(t, nil, "Ada", "cached")
			}
			if n := r.records.made.Load() - made; n != 0 {
				t.Errorf("%d Records made for cached visits, want 0", n)
			}
			if n := r.records.users.Load(); n != 1 {
				t.Errorf("%d reads of the Store, want 1", n)
			}
		},
		"read from the Store": func(t *testing.T, r *recording) {
			r.createRecord(t, r.ada)
			r.wantRecord(t, nil, "Ada", "read")
		},
		"updated by an event": func(t *testing.T, r *recording) {
			r.wantRecord(t, nil, "Ada", "created")
			r.rename(t, r.ada, "Augusta")
			r.applyUpdate(t)
			r.wantRecord(t, nil, "Augusta", "updated")
		},
		"updated by a re-read": func(t *testing.T, r *recording) {
			r.wantRecord(t, nil, "Ada", "created")
			r.clock.Advance(time.Second)
			r.rename(t, r.ada, "Augusta")
			r.wantRecord(t, r.version(t, r.ada).UnixMilli(), "Augusta", "re-read")
		},
		"unchanged after an event": func(t *testing.T, r *recording) {
			r.wantRecord(t, nil, "Ada", "created")
			r.clock.Advance(time.Second)
			r.applyUpdate(t)
			r.wantRecord(t, nil, "Ada", "unchanged")
		},
		"imported": func(t *testing.T, r *recording) {
			r.importRecord(t, r.ada, nil)
			r.wantRecord(t, nil, "Ada", "imported")
		},
		"refreshed": func(t *testing.T, r *recording) {
			r.wantRecord(t, nil, "Ada", "created")
			r.rename(t, r.ada, "Augusta")
			r.clock.Advance(2 * time.Hour)
			r.wantRecord(t, nil, "Ada", "before the refresh")
			r.waitForRefreshes()
			r.wantRecord(t, nil, "Augusta", "refreshed")
		},
		"on standby": func(t *testing.T, r *recording) {
			r.wantRecord(t, nil, "Ada", "created")
			r.clock.Advance(time.Minute)
			r.store.fail(errDown)
			r.wantRecord(t, nil, "Ada", "standby")
		},
		"on standby after an event": func(t *testing.T, r *recording) {
			r.wantRecord(t, nil, "Ada", "created")
			r.clock.Advance(time.Second)
			r.applyUpdate(t)
			r.store.fail(errDown)
			r.wantRecord(t, nil, "Ada", "standby")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path(t, newRecording(t, nil))
		})
	}
}

// A batch does not make Records. What it returns does not take the place of a record with one.
func TestRecordAfterABatch(t *testing.T) {
	t.Parallel()
	r := newRecording(t, nil)
	r.wantRecord(t, nil, "Ada", "created")
	r.clock.Advance(time.Second)
	if _, err := r.Reconcile(t.Context(), clerksync.ReconcileOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	r.rename(t, r.ada, "Augusta")
	if _, err := r.Reconcile(t.Context(), clerksync.ReconcileOptions{}); err != nil {
		t.Fatal(err)
	}
	r.wantRecord(t, nil, "Augusta", "after the batch")
	newerRecord(r.fixture, r.ada)
	r.Forget(r.ada)
	r.wantRecord(t, nil, "Newer", "a newer record")
	if _, err := r.Sync(t.Context(), r.ada); err != nil { // Stale
		t.Fatal(err)
	}
	r.wantRecord(t, nil, "Newer", "after a stale write")
}

// What one handler gets is a copy: no other sees what it does with it.
func TestRecordsAreCopies(t *testing.T) {
	t.Parallel()
	r := newRecording(t, nil)
	r.request(t, nil, func(ctx context.Context) {
		mine, _ := clerksync.RecordFromContext[member](ctx)
		mine.Plan = "tampered"
		if u, _ := clerksync.UserFromContext(ctx); u.Record != nil {
			t.Errorf("UserFromContext hands out the shared Record %+v", u.Record)
		}
	})
	r.wantRecord(t, nil, "Ada", "after another request has changed its copy")
	if u := visit(t, r.Syncer, r.ada); u.Record != nil {
		t.Errorf("User hands out the shared Record %+v", u.Record)
	}
	res, err := r.Sync(t.Context(), r.ada)
	if err != nil || res.User == nil || res.User.Record != nil {
		t.Errorf("Sync returns %+v, %v; want a user without Record", res.User, err)
	}
	raw, _ := r.clerk.User(r.ada)
	res, err = r.Apply(t.Context(), clerksync.Event{Type: "user.updated", Timestamp: r.clock.Now(), Data: raw})
	if err != nil || res.User == nil || res.User.Record != nil {
		t.Errorf("Apply returns %+v, %v; want a user without Record", res.User, err)
	}
}

func TestRecordFromContextOfAnApp(t *testing.T) {
	t.Parallel()
	ada := &clerksync.User{ClerkID: "user_1", Record: &member{Name: "Ada"}}
	signedIn := clerksync.ContextWithUser(t.Context(), ada)
	passedOn := func(ctx context.Context) context.Context { // as middleware does that changes the user
		u, _ := clerksync.UserFromContext(ctx)
		u.Role = clerksync.RoleAdmin
		return clerksync.ContextWithUser(ctx, u)
	}
	with := func(record any) context.Context {
		return clerksync.ContextWithUser(signedIn, &clerksync.User{ClerkID: "user_1", Record: record})
	}
	for name, tt := range map[string]struct {
		ctx  context.Context
		want string // empty for none
	}{
		"signed in by a test":        {signedIn, "Ada"},
		"passed on":                  {passedOn(signedIn), "Ada"},
		"passed on twice":            {passedOn(passedOn(signedIn)), "Ada"},
		"replaced":                   {with(&member{Name: "Eve"}), "Eve"},
		"another type":               {with(&struct{ Name string }{"Eve"}), ""},
		"a value, not a pointer":     {with(member{Name: "Eve"}), ""},
		"a nil pointer":              {with((*member)(nil)), ""},
		"another user":               {clerksync.ContextWithUser(signedIn, &clerksync.User{ClerkID: "user_2"}), ""},
		"no user any more":           {clerksync.ContextWithUser(signedIn, nil), ""},
		"a user without one":         {clerksync.ContextWithUser(t.Context(), &clerksync.User{ClerkID: "user_1"}), ""},
		"no user":                    {t.Context(), ""},
		"a pointer to a pointer":     {with(&ada), ""},
		"passed on without a record": {passedOn(clerksync.ContextWithUser(t.Context(), &clerksync.User{ClerkID: "user_1"})), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, ok := clerksync.RecordFromContext[member](tt.ctx)
			if got.Name != tt.want || ok != (tt.want != "") {
				t.Errorf("%+v, %t; want %q", got, ok, tt.want)
			}
			if p, ok := clerksync.RecordFromContext[*member](tt.ctx); ok {
				t.Errorf("as a pointer: %+v; want none", p)
			}
		})
	}
}

// Reconcile needs no Record, also on a Store that is not a BatchStore.
func TestReconcileWithoutRecords(t *testing.T) {
	t.Parallel()
	r := newRecording(t, func(c *clerksync.Config) { c.Store = struct{ clerksync.Store }{c.Store} })
	r.records.odd.Store(true)
	for i, want := range []clerksync.Report{{Created: clerksync.Tally{Count: 1}}, {Unchanged: 1}} {
		report, err := r.Reconcile(t.Context(), clerksync.ReconcileOptions{Force: true})
		if err != nil || report.Created.Count != want.Created.Count || report.Unchanged != want.Unchanged {
			t.Errorf("run %d: %+v, %v", i, report, err)
		}
	}
}

// The holder of an address gives it up without a wait, although its document does not decode.
func TestHandoverWithoutRecords(t *testing.T) {
	t.Parallel()
	r := newRecording(t, nil)
	r.store.UniqueEmail = true
	gone := &clerksync.User{ClerkID: "user_gone", Email: adaEmail, ClerkUpdatedAt: r.clock.Now(), SyncedAt: r.clock.Now()}
	if _, err := r.store.Upsert(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	r.records.odd.Store(true)
	start := r.clock.Now()
	report, err := r.Reconcile(t.Context(), clerksync.ReconcileOptions{})
	if err != nil || report.Created.Count != 1 || r.clock.Now().Sub(start) > 10*time.Second {
		t.Errorf("%+v, %v, after %v", report, err, r.clock.Now().Sub(start))
	}
}

// A document that does not decode refuses its user's requests, says why in the log, and keeps
// nothing from being written.
func TestRecordFails(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]clerksync.FailurePolicy{"closed": clerksync.FailClosed, "open": clerksync.FailOpen} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRecording(t, func(c *clerksync.Config) { c.OnFailure = policy })
			refused := func(status int, code, when string) {
				t.Helper()
				a := r.request(t, nil, func(context.Context) { t.Errorf("%s: the handler ran", when) })
				checkProblem(t, a, status, code)
			}
			r.records.odd.Store(true)
			refused(500, "record_failed", "created")
			if u := r.stored(t, r.ada); u.Name != "Ada" {
				t.Errorf("the record is %+v, want it written", u)
			}
			made, calls := r.records.made.Load(), r.userCalls()
			for range 3 {
				refused(500, "record_failed", "cached")
			}
			if n := r.records.made.Load() - made; n != 0 || r.userCalls() != calls {
				t.Errorf("%d attempts to make a Record and %d calls to Clerk more; want none", n, r.userCalls()-calls)
			}
			if _, err := r.User(t.Context(), r.ada); !errors.Is(err, errOddPlan) || errors.Is(err, clerksync.ErrUnavailable) {
				t.Errorf("User: %v, want the Record's error, and not ErrUnavailable", err)
			}
			if logs := r.logs.String(); !strings.Contains(logs, "code=record_failed") || !strings.Contains(logs, `\"plan\"`) {
				t.Errorf("the log does not name the field:\n%s", logs)
			}
			if err := r.clerk.BanUser(r.ada); err != nil {
				t.Fatal(err)
			}
			r.applyUpdate(t)
			refused(403, "user_inactive", "banned")
			if err := r.clerk.UnbanUser(r.ada); err != nil {
				t.Fatal(err)
			}
			r.applyUpdate(t)
			refused(500, "record_failed", "no longer banned")

			r.records.odd.Store(false)
			r.Forget(r.ada)
			r.wantRecord(t, nil, "Ada", "repaired")
		})
	}
}

// During an outage of Clerk and the Store a request may pass without its record.
func TestRecordOfAPartialUser(t *testing.T) {
	t.Parallel()
	r := newRecording(t, func(c *clerksync.Config) { c.OnFailure = clerksync.FailOpen })
	r.store.fail(errDown)
	passed := false
	r.request(t, nil, func(ctx context.Context) {
		passed = true
		if got, ok := clerksync.RecordFromContext[member](ctx); ok {
			t.Errorf("a Partial user has the Record %+v", got)
		}
	})
	if !passed {
		t.Error("the request was refused")
	}
}

// A Store in memory keeps a Record that a test gives to it.
func TestRecordInMemory(t *testing.T) {
	t.Parallel()
	store := memstore.New()
	if _, err := store.Upsert(t.Context(), &clerksync.User{ClerkID: "user_1", SyncedAt: t0}); err != nil {
		t.Fatal(err)
	}
	if err := store.Edit("user_1", func(u *clerksync.User) { u.Record = &member{Plan: "pro"} }); err != nil {
		t.Fatal(err)
	}
	u, err := store.User(t.Context(), "user_1")
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := clerksync.RecordFromContext[member](clerksync.ContextWithUser(t.Context(), u)); !ok || a.Plan != "pro" {
		t.Errorf("%+v, %t", a, ok)
	}
}
