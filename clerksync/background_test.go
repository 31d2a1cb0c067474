package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// panicking is a transport that panics.
type panicking struct{}

func (panicking) RoundTrip(*http.Request) (*http.Response, error) { panic("nil map") }

func TestPanicsInTheAppsCode(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	s := fx.syncer(t, func(c *clerksync.Config) { c.HTTPClient = &http.Client{Transport: panicking{}} })
	if got := authenticate(t, s, fx.clerk.SessionToken("user_1")); got != "unavailable" {
		t.Errorf("fetching keys: %q", got)
	}
	visitFails(t, s, "user_1", clerksync.ErrUnavailable)

	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	s = fx.syncer(t, func(c *clerksync.Config) {
		c.Observe = func(_ context.Context, o clerksync.Observation) {
			if o.Op == clerksync.OpRefresh {
				panic("nil map")
			}
		}
	})
	visit(t, s, id)
	fx.clock.Advance(2 * time.Hour)
	visit(t, s, id)
	clerksync.WaitBackground(s)
}

func TestRefreshIsObservedWithALiveContext(t *testing.T) {
	t.Parallel()
	seen := errors.New("not called")
	fx := newFixture(t, func(c *clerksync.Config) {
		c.Observe = func(ctx context.Context, o clerksync.Observation) {
			if o.Op == clerksync.OpRefresh {
				seen = ctx.Err()
				if o.Outcome != clerksync.Unchanged {
					seen = fmt.Errorf("observed %+v", o)
				}
			}
		}
	})
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, fx.Syncer, id)
	fx.clock.Advance(2 * time.Hour)
	visit(t, fx.Syncer, id)
	fx.waitForRefreshes()
	if seen != nil {
		t.Error(seen)
	}
}

func TestPanickingStore(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	fx.store.before = func() { panic("nil map") }
	visitFails(t, fx.Syncer, "user_1", clerksync.ErrUnavailable)
}

// recycledRequest is the context of a request in a framework that uses requests again: once the
// handler has returned, its values are another client's.
type recycledRequest struct {
	context.Context
	values map[any]any // not safe for concurrent use, like fasthttp's
}

func (r *recycledRequest) Value(key any) any {
	if v, ok := r.values[key]; ok {
		return v
	}
	return r.Context.Value(key)
}

// recycle gives the request to the next client.
func (r *recycledRequest) recycle() {
	clear(r.values)
	r.values[ownerKey{}] = "the next client"
}

type ownerKey struct{}

// ownerOf is what background work finds in its context.
type ownerOf struct {
	mu    sync.Mutex
	found []any
}

func (o *ownerOf) look(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.found = append(o.found, ctx.Value(ownerKey{}))
}

// ownedStore looks at the context of each call.
type ownedStore struct {
	*countingStore
	owner *ownerOf
}

func (s *ownedStore) User(ctx context.Context, id string) (*clerksync.User, error) {
	s.owner.look(ctx)
	return s.countingStore.User(ctx, id)
}

func (s *ownedStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	s.owner.look(ctx)
	return s.countingStore.Upsert(ctx, u)
}

// ownedHandler looks at the context of each log record.
type ownedHandler struct {
	slog.Handler
	owner *ownerOf
}

func (h ownedHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h ownedHandler) Handle(ctx context.Context, _ slog.Record) error {
	h.owner.look(ctx)
	return nil
}

// Work that outlives its request reads nothing of the request's context. The race detector sees
// it too, because the test writes to the values while the work is running. With Start, it keeps
// what Start has added.
func TestBackgroundWorkHoldsNoRequest(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		arrange func(t *testing.T, fx *fixture, s *clerksync.Syncer, id string)
		leaves  bool // the client hangs up before Clerk answers
		keys    bool // the request carries a token, and the keys are not known yet
	}{
		"a refresh": {arrange: func(t *testing.T, fx *fixture, s *clerksync.Syncer, id string) {
			visit(t, s, id)
			fx.clock.Advance(2 * time.Hour)
			_ = fx.store.Edit(id, func(u *clerksync.User) { u.ClerkUpdatedAt = u.ClerkUpdatedAt.Add(-time.Hour) })
			s.Forget(id)
		}},
		"a refresh that fails": {arrange: func(t *testing.T, fx *fixture, s *clerksync.Syncer, id string) {
			visit(t, s, id)
			fx.clock.Advance(2 * time.Hour)
			visit(t, s, id) // the record is read before the Store fails
			clerksync.WaitBackground(s)
			fx.clock.Advance(2 * time.Hour)
			_ = fx.clerk.DeleteUser(id)
		}},
		"a first visit":       {leaves: true},
		"a fetch of the keys": {leaves: true, keys: true},
	} {
		for _, start := range []func(context.Context, clerksync.Op, string) (context.Context, func(clerksync.Observation)){
			nil,
			func(ctx context.Context, op clerksync.Op, _ string) (context.Context, func(clerksync.Observation)) {
				return context.WithValue(ctx, spanKey{}, op), nil
			},
		} {
			t.Run(fmt.Sprint(name, start != nil), func(t *testing.T) {
				t.Parallel()
				fx := newFixture(t, nil)
				owner := &ownerOf{}
				s := fx.syncer(t, func(c *clerksync.Config) {
					c.Store, c.Start = &ownedStore{fx.store, owner}, start
					c.Logger = slog.New(ownedHandler{slog.DiscardHandler, owner})
					c.Observe = func(ctx context.Context, o clerksync.Observation) {
						if o.Op == clerksync.OpRefresh {
							owner.look(ctx)
						}
					}
					transport := &http.Transport{}
					c.HTTPClient = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
						owner.look(r.Context())
						return transport.RoundTrip(r)
					})}
					t.Cleanup(transport.CloseIdleConnections)
				})
				id := fx.clerk.CreateUser(fakeclerk.NewUser{})
				if tt.arrange != nil {
					tt.arrange(t, fx, s, id)
				}
				owner.found = nil
				asked, answer := make(chan struct{}, 1), make(chan struct{})
				fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { asked <- struct{}{}; <-answer; return nil })

				ctx, hangUp := context.WithCancel(t.Context())
				defer hangUp()
				if tt.leaves {
					go func() { <-asked; hangUp() }()
				}
				claims := &clerk.SessionClaims{RegisteredClaims: clerk.RegisteredClaims{Subject: id}}
				request := &recycledRequest{
					Context: clerk.ContextWithSessionClaims(ctx, claims),
					values:  map[any]any{ownerKey{}: "the client"},
				}
				r := httptest.NewRequest(http.MethodGet, "/", nil).WithContext(request)
				handler := s.Middleware(&me{})
				if tt.keys {
					r.Header.Set("Authorization", "Bearer "+fx.clerk.SessionToken(id))
					handler = s.RequireUser(&me{})
				}
				handler.ServeHTTP(httptest.NewRecorder(), r)
				request.recycle()
				close(answer)
				clerksync.WaitBackground(s)
				owner.mu.Lock()
				defer owner.mu.Unlock()
				if len(owner.found) == 0 {
					t.Fatal("nothing was done in the background")
				}
				for i, found := range owner.found {
					if found != nil {
						t.Errorf("call %d finds a value of %v in its context", i, found)
					}
				}
			})
		}
	}
}
