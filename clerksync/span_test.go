package clerksync_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

type spanKey struct{}

// spans is a Config.Start that remembers what it was told of.
type spans struct {
	mu  sync.Mutex
	all []*aSpan
}

// aSpan is one operation. Its text is "parent > op", and how it ended.
type aSpan struct {
	op      clerksync.Op
	clerkID string
	parent  any // of the context: what Start has put there for the outer operation, or a test
	ends    []clerksync.Observation
}

func (s *spans) start(ctx context.Context, op clerksync.Op, clerkID string) (context.Context, func(clerksync.Observation)) {
	one := &aSpan{op: op, clerkID: clerkID, parent: ctx.Value(spanKey{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, one)
	return context.WithValue(ctx, spanKey{}, string(op)), func(o clerksync.Observation) {
		s.mu.Lock()
		defer s.mu.Unlock()
		one.ends = append(one.ends, o)
	}
}

// texts describes the operations and forgets them. Each must have ended, once and as what it
// began.
func (s *spans) texts(t *testing.T) (texts []string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		text := string(one.op)
		if one.parent != nil {
			text = fmt.Sprint(one.parent, " > ", text)
		}
		if len(one.ends) != 1 {
			t.Errorf("%s ended %d times", text, len(one.ends))
			continue
		}
		o := one.ends[0]
		if o.Op != one.op || one.clerkID != "" && o.ClerkID != one.clerkID || (o.Call != "") != (o.Op == clerksync.OpClerk) {
			t.Errorf("%s for %q ended as %+v", text, one.clerkID, o)
		}
		if o.Call != "" {
			text += " " + o.Call
		}
		if one.clerkID != "" {
			text += " of a user"
		}
		var p *clerksync.Problem
		if errors.As(o.Err, &p) {
			text += ": " + p.Code
		} else if o.Err != nil {
			t.Errorf("%s ended with %v, which is not a Problem", text, o.Err)
		}
		texts = append(texts, text)
	}
	s.all = nil
	return texts
}

// startCase is something that a Syncer does, and the operations that Start is told of.
type startCase struct {
	job     func(context.Context) error // OnCreate
	arrange func(t *testing.T, fx *fixture, id string)
	do      func(t *testing.T, fx *fixture, ctx context.Context, id string)
	want    []string
}

func startCases() map[string]startCase {
	type ctx = context.Context
	visited := func(t *testing.T, fx *fixture, id string) { visit(t, fx.Syncer, id) }
	old := func(t *testing.T, fx *fixture, id string) {
		visit(t, fx.Syncer, id)
		fx.clock.Advance(2 * time.Hour)
	}
	check := func(t *testing.T, fx *fixture, ctx ctx, id string) {
		if _, err := fx.Check(bearing("Bearer " + fx.clerk.SessionToken(id)).WithContext(ctx)); err != nil {
			t.Error(err)
		}
		fx.waitForRefreshes()
	}
	user := func(_ *testing.T, fx *fixture, ctx ctx, id string) { _, _ = fx.User(ctx, id) }
	clerkDown := func(_ *testing.T, fx *fixture, _ string) { fx.clerk.SetFault(down) }
	deliver := func(secret string, body []byte) func(*testing.T, *fixture, ctx, string) {
		return func(t *testing.T, fx *fixture, ctx ctx, _ string) {
			h, err := fx.WebhookHandler(clerksync.WebhookConfig{
				Secrets: []string{testSecret},
				OnEvent: func(ctx context.Context, e clerksync.Event) error {
					if ctx.Value(spanKey{}) != "webhook" {
						t.Error("OnEvent does not have the context of Start")
					}
					return nil
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			answerOf(h, signed(t, "/", secret, fx.clock.Now(), body).WithContext(ctx))
		}
	}
	return map[string]startCase{
		"a first visit": {do: check, want: []string{
			"clerk get keys", "request > visit of a user", "visit > clerk get user of a user",
		}},
		"a visit that the Store answers": {
			arrange: func(t *testing.T, fx *fixture, id string) { visit(t, fx.Syncer, id); fx.Forget(id) },
			do:      user, want: []string{"request > visit of a user"},
		},
		"a cached visit":  {arrange: visited, do: user},
		"no user's visit": {do: func(_ *testing.T, fx *fixture, ctx ctx, _ string) { _, _ = fx.User(ctx, "hunter2") }},
		"a visit and Clerk is down": {
			arrange: clerkDown, do: user,
			want: []string{"request > visit of a user: unavailable", "visit > clerk get user of a user: unavailable"},
		},
		"a stranger's visit": {
			do:   func(_ *testing.T, fx *fixture, ctx ctx, _ string) { _, _ = fx.User(ctx, "user_ghost") },
			want: []string{"request > visit of a user: user_unknown", "visit > clerk get user of a user: user_unknown"},
		},
		"a refused visit": {
			arrange: func(_ *testing.T, fx *fixture, id string) { _ = fx.clerk.BanUser(id) }, do: user,
			want: []string{"request > visit of a user: user_inactive", "visit > clerk get user of a user"},
		},
		"a refresh": {
			arrange: old, do: func(_ *testing.T, fx *fixture, ctx ctx, id string) { _, _ = fx.User(ctx, id); fx.waitForRefreshes() },
			want: []string{"request > visit of a user", "request > refresh of a user", "refresh > clerk get user of a user"},
		},
		"a refresh that fails": {
			arrange: func(t *testing.T, fx *fixture, id string) { old(t, fx, id); clerkDown(t, fx, id) },
			do:      func(_ *testing.T, fx *fixture, ctx ctx, id string) { _, _ = fx.User(ctx, id); fx.waitForRefreshes() },
			want:    []string{"request > visit of a user", "request > refresh of a user: unavailable", "refresh > clerk get user of a user: unavailable"},
		},
		"a delivery":        {do: deliver(testSecret, createdEvent), want: []string{"request > webhook"}},
		"a forged delivery": {do: deliver(otherSecret, createdEvent), want: []string{"request > webhook: invalid_signature"}},
		"an unusable event": {do: deliver(testSecret, envelope("user.deleted", "{}")), want: []string{"request > webhook: invalid_event"}},
		"an event that asks": {
			arrange: func(_ *testing.T, fx *fixture, id string) {
				fx.store.UniqueEmail = true
				_, _ = fx.store.Upsert(context.Background(), &clerksync.User{ClerkID: "user_other", Email: "ada@example.com"})
			},
			do: func(_ *testing.T, fx *fixture, ctx ctx, id string) {
				raw, _ := fx.clerk.User(id)
				_, _ = fx.Apply(ctx, clerksync.Event{Type: "user.updated", Data: raw, UserID: id})
			},
			want: []string{"request > webhook of a user: conflict", "webhook > clerk list users"},
		},
		"an event of the app's": {
			do: func(_ *testing.T, fx *fixture, ctx ctx, _ string) {
				_, _ = fx.Apply(ctx, clerksync.Event{Type: "x.y", UserID: "hunter2"})
			},
			want: []string{"request > webhook"},
		},
		"a sync": {
			do:   func(_ *testing.T, fx *fixture, ctx ctx, id string) { _, _ = fx.Sync(ctx, id) },
			want: []string{"request > sync of a user", "sync > clerk get user of a user"},
		},
		"a new user's job": {
			job: func(ctx context.Context) error {
				if ctx.Value(spanKey{}) != "job" {
					return errors.New("not the context of Start")
				}
				return nil
			},
			do:   user,
			want: []string{"request > visit of a user", "visit > clerk get user of a user", "job of a user"},
		},
		"a job that fails": {
			job: func(context.Context) error { return errDown }, do: user,
			want: []string{"request > visit of a user", "visit > clerk get user of a user", "job of a user: job_failed"},
		},
		"a reconcile": {
			do: func(_ *testing.T, fx *fixture, ctx ctx, _ string) {
				_, _ = fx.Reconcile(ctx, clerksync.ReconcileOptions{})
			},
			want: []string{"request > reconcile", "reconcile > clerk count users", "reconcile > clerk list users", "reconcile > clerk count users"},
		},
	}
}

// Start is told of each operation that does more than look into the cache, within the context of the
// outer one, and of how it ended.
func TestStart(t *testing.T) {
	t.Parallel()
	for name, tt := range startCases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := &spans{}
			fx := newFixture(t, func(c *clerksync.Config) {
				c.Start = seen.start
				if tt.job != nil {
					c.OnCreate = func(ctx context.Context, _ *clerksync.User, _ clerksync.Job) error { return tt.job(ctx) }
				}
			})
			id := fx.clerk.CreateUser(fakeclerk.NewUser{Email: "ada@example.com"})
			if tt.arrange != nil {
				tt.arrange(t, fx, id)
			}
			fx.waitForRefreshes()
			seen.texts(t)
			tt.do(t, fx, context.WithValue(t.Context(), spanKey{}, "request"), id)
			fx.waitForRefreshes()
			_, _ = fx.DrainJobs(t.Context())
			got := slices.Compact(seen.texts(t)) // a reconcile asks for several pages
			if !slices.Equal(got, tt.want) {
				t.Errorf("Start was told of\n%q, want\n%q", got, tt.want)
			}
		})
	}
}

// What Start is told at the end is what Observe is told.
func TestStartAndObserveAgree(t *testing.T) {
	t.Parallel()
	seen := &spans{}
	fx := newFixture(t, func(c *clerksync.Config) { c.Start = seen.start })
	visit(t, fx.Syncer, fx.clerk.CreateUser(fakeclerk.NewUser{}))
	if got, want := seen.all[0].ends[0], fx.seen.last(); got != want || want.Source != clerksync.SourceClerk || want.Outcome != clerksync.Created {
		t.Errorf("Start's function got %+v, Observe %+v", got, want)
	}
	seen.texts(t)
	if _, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{}); err != nil {
		t.Error(err)
	}
	if got, want := seen.all[0].ends[0], fx.seen.last(); got != want || want.Report == nil || want.Report.Unchanged != 1 {
		t.Errorf("Start's function got %+v, Observe %+v", got, want)
	}
}

// A Start that panics, or returns nothing, and an Observe that panics, leave all as it is without
// them. A panic leaves a line in the log.
func TestPanicsOfTelemetry(t *testing.T) {
	t.Parallel()
	type start = func(context.Context, clerksync.Op, string) (context.Context, func(clerksync.Observation))
	for name, tt := range map[string]struct {
		start   start
		observe func(context.Context, clerksync.Observation)
		log     string
	}{
		"Start panics": {start: func(context.Context, clerksync.Op, string) (context.Context, func(clerksync.Observation)) {
			panic("nil map")
		}, log: "function=Config.Start"},
		"the end panics": {start: func(ctx context.Context, _ clerksync.Op, _ string) (context.Context, func(clerksync.Observation)) {
			return ctx, func(clerksync.Observation) { panic("nil map") }
		}, log: "function=Config.Start"},
		"Start returns nothing": {start: func(context.Context, clerksync.Op, string) (context.Context, func(clerksync.Observation)) {
			return nil, nil
		}},
		"Observe panics": {
			observe: func(context.Context, clerksync.Observation) { panic(http.ErrAbortHandler) },
			log:     "function=Config.Observe",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, func(c *clerksync.Config) { c.Start, c.Observe = tt.start, tt.observe })
			ada := fx.clerk.CreateUser(fakeclerk.NewUser{})
			h, err := fx.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{testSecret}})
			if err != nil {
				t.Fatal(err)
			}
			visitor := &me{}
			for range 2 {
				a := answerOf(fx.RequireUser(visitor), bearing("Bearer "+fx.clerk.SessionToken(ada)))
				if a.status != http.StatusOK {
					t.Errorf("a visit: %d %s", a.status, a.body)
				}
				fx.clock.Advance(2 * time.Hour)
			}
			fx.waitForRefreshes()
			if got := fx.stored(t, ada).SyncedAt; !got.After(t0.Add(time.Hour)) {
				t.Errorf("no refresh: %v", got)
			}
			checkProblem(t, answerOf(h, signed(t, "/", testSecret, fx.clock.Now(), createdEvent)), 204, "")
			if report, err := fx.Reconcile(t.Context(), clerksync.ReconcileOptions{IgnoreUnlinked: true}); err != nil || !report.Complete {
				t.Errorf("reconcile: %+v, %v", report, err)
			}
			if log := fx.logs.String(); tt.log != "" && !strings.Contains(log, tt.log) || tt.log == "" && strings.Contains(log, "panic") {
				t.Errorf("log: %s", log)
			}
		})
	}
}

// A visit that the cache answers costs the same with Start and without.
func TestStartIsFreeForCachedVisits(t *testing.T) {
	env := newSignIn(t)
	r := env.request(env.token(t, "sess_1"))
	told := 0
	plain, started := env.syncer(t).RequireUser(appHandler), env.syncer(t, func(c *clerksync.Config) {
		c.Start = func(ctx context.Context, _ clerksync.Op, _ string) (context.Context, func(clerksync.Observation)) {
			told++
			return ctx, nil
		}
	}).RequireUser(appHandler)
	pass(t, plain, r)
	pass(t, started, r)
	told = 0
	without, with := allocations(t, plain, repeated(r, 101)...), allocations(t, started, repeated(r, 101)...)
	if with > without || told != 0 {
		t.Errorf("%v allocations with Start, %v without; it was told of %d operations", with, without, told)
	}
}

// An attempt of a job is an operation, and what its function asks of Clerk is within it.
func TestStartOfJobs(t *testing.T) {
	t.Parallel()
	var s spans
	var fx *jobFixture
	fx = newJobFixture(t, func(c *clerksync.Config) {
		c.Start = s.start
		c.OnCreate = func(ctx context.Context, u *clerksync.User, job clerksync.Job) error {
			_, err := fx.Sync(ctx, u.ClerkID)
			return cmp.Or(err, errOddPlan)
		}
	})
	visit(t, fx.Syncer, fx.signUp())
	clerksync.WaitBackground(fx.Syncer)
	var jobs []string
	for _, text := range s.texts(t) {
		if strings.Contains(text, "job") {
			jobs = append(jobs, text)
		}
	}
	wantTexts(t, "told of", jobs, "job of a user: job_failed", "job > sync of a user")
}
