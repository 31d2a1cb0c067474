package clerksync_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// mapNested fills what a copy must not share.
func mapNested(_ *clerk.User, u *clerksync.User) error {
	u.Location = &clerksync.Location{Country: "GB"}
	u.Extra = map[string]any{"plan": "free", "limits": map[string]any{"seats": 1, "teams": []any{"a", "b"}}}
	return nil
}

// tamper changes everything that it can reach from u.
func tamper(u *clerksync.User) {
	u.Role, u.Email, u.IsActive, u.Profile.FirstName = clerksync.RoleAdmin, "tampered", false, "tampered"
	u.Location.Country = "tampered"
	u.Extra["plan"] = "tampered"
	limits := u.Extra["limits"].(map[string]any)
	limits["seats"] = "tampered"
	limits["teams"].([]any)[0] = "tampered"
}

// sharingStore returns the same *User again and again, as a Store may.
type sharingStore struct {
	*countingStore
	mu     sync.Mutex
	shared map[string]*clerksync.User
}

func (s *sharingStore) share(u *clerksync.User) *clerksync.User {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u == nil {
		return nil
	}
	if before := s.shared[u.ClerkID]; before != nil && cmp.Equal(before, u) {
		return before
	}
	s.shared[u.ClerkID] = u
	return u
}

func (s *sharingStore) User(ctx context.Context, id string) (*clerksync.User, error) {
	u, err := s.countingStore.User(ctx, id)
	return s.share(u), err
}

func (s *sharingStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	res, err := s.countingStore.Upsert(ctx, u)
	res.User = s.share(res.User)
	return res, err
}

// Whoever gets a user may change it. No other request, and no outage, shows the change.
func TestHandedOutUsersAreCopies(t *testing.T) {
	t.Parallel()
	event := func(fx *fixture, id string) clerksync.Event {
		raw, _ := fx.clerk.User(id)
		return clerksync.Event{ID: "msg_1", Type: "user.updated", Timestamp: fx.clock.Now(), Data: raw}
	}
	for name, handOut := range map[string]func(*testing.T, *fixture, string) *clerksync.User{
		"Syncer.User": func(t *testing.T, fx *fixture, id string) *clerksync.User { return visit(t, fx.Syncer, id) },
		"UserFromContext": func(t *testing.T, fx *fixture, id string) (u *clerksync.User) {
			fx.serveAs(t, id, func(ctx context.Context) { u, _ = clerksync.UserFromContext(ctx) })
			return u
		},
		"Sync": func(t *testing.T, fx *fixture, id string) *clerksync.User {
			res, err := fx.Sync(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			return res.User
		},
		"Apply": func(t *testing.T, fx *fixture, id string) *clerksync.User {
			res, err := fx.Apply(t.Context(), event(fx, id))
			if err != nil {
				t.Fatal(err)
			}
			return res.User
		},
		"OnEvent": func(t *testing.T, fx *fixture, id string) (u *clerksync.User) {
			h, err := fx.WebhookHandler(clerksync.WebhookConfig{
				Secrets: []string{testSecret},
				OnEvent: func(_ context.Context, e clerksync.Event) error { u = e.Result.User; return nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			raw, _ := fx.clerk.User(id)
			now := fx.clock.Now()
			checkProblem(t, answerOf(h, signed(t, "http://app.example", testSecret, now,
				envelope("user.updated", string(raw)))), 204, "")
			return u
		},
	} {
		for _, outage := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				fx := newFixture(t, func(c *clerksync.Config) { c.Map = mapNested })
				store := &sharingStore{countingStore: fx.store, shared: make(map[string]*clerksync.User)}
				fx.Syncer = fx.syncer(t, func(c *clerksync.Config) { c.Map, c.Store = mapNested, store })
				id := fx.clerk.CreateUser(fakeclerk.NewUser{Email: "ada@example.com", FirstName: "Ada"})
				want := visit(t, fx.Syncer, id)
				u := handOut(t, fx, id)
				if diff := cmp.Diff(want, u); diff != "" {
					t.Fatalf("handed out (-want +got):\n%s", diff)
				}
				tamper(u)
				if outage {
					fx.store.fail(errDown)
				}
				if diff := cmp.Diff(want, visit(t, fx.Syncer, id)); diff != "" {
					t.Errorf("the next visit (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// serveAs serves a request of the user through the middleware.
func (fx *fixture) serveAs(t testing.TB, id string, handler func(context.Context)) {
	t.Helper()
	served := false
	h := fx.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		served = true
		handler(r.Context())
	}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	claims := &clerk.SessionClaims{RegisteredClaims: clerk.RegisteredClaims{Subject: id}}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r.WithContext(clerk.ContextWithSessionClaims(r.Context(), claims)))
	if !served {
		t.Fatalf("the request of %s was answered %d %s", id, rec.Code, rec.Body)
	}
}

// Within a request too, a change is passed on only by ContextWithUser.
func TestChangesArePassedOnByContextWithUser(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) { c.Map = mapNested })
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	fx.serveAs(t, id, func(ctx context.Context) {
		mine, _ := clerksync.UserFromContext(ctx)
		tamper(mine)
		if again, _ := clerksync.UserFromContext(ctx); again.Role != clerksync.RoleStudent {
			t.Errorf("a second call returns %+v", again)
		}
		mine.Name = "passed on"
		passed := clerksync.ContextWithUser(ctx, mine)
		mine.Name = "changed afterwards"
		got, ok := clerksync.UserFromContext(passed)
		if !ok || got.Name != "passed on" || got.Role != clerksync.RoleAdmin {
			t.Errorf("passed on: %+v", got)
		}
	})
}

// Requests of one user change their copies at the same time; the race detector looks on.
func TestConcurrentRequestsChangeTheirCopies(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) { c.Map = mapNested })
	id := fx.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	want := visit(t, fx.Syncer, id)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			fx.serveAs(t, id, func(ctx context.Context) {
				u, _ := clerksync.UserFromContext(ctx)
				if !cmp.Equal(want, u) {
					t.Errorf("a request got %+v", u)
				}
				tamper(u)
			})
		})
	}
	all.Wait()
}

// An ErrorHandler may change the Problem: others who waited for the same lookup have their own.
func TestEachRefusedRequestHasItsOwnProblem(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) {
		c.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
			p := err.(*clerksync.Problem)
			p.Status++
			clerksync.WriteProblem(w, r, p)
		}
	})
	fx.store.fail(errDown)
	held := make(chan struct{})
	fx.store.before = func() { <-held }
	h := fx.Middleware(&me{})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			claims := &clerk.SessionClaims{RegisteredClaims: clerk.RegisteredClaims{Subject: "user_1"}}
			if a := answerOf(h, r.WithContext(clerk.ContextWithSessionClaims(r.Context(), claims))); a.status != 504 {
				t.Errorf("status %d, want 504", a.status)
			}
		})
	}
	close(held)
	all.Wait()
}

func TestUserJSON(t *testing.T) {
	t.Parallel()
	got, err := json.MarshalIndent(fullUser(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "_id": "65f000000000000000000001",
  "clerkId": "user_1",
  "email": "ada@example.com",
  "name": "Ada Lovelace",
  "role": "TEACHER",
  "profile": {
    "firstName": "Ada",
    "lastName": "Lovelace",
    "fullName": "Ada Lovelace",
    "imageUrl": "https://img.example/1",
    "phoneNumber": "+15555550100",
    "birthday": "1815-12-10",
    "gender": "f"
  },
  "location": {
    "country": "GB",
    "city": "London",
    "state": "England",
    "timezone": "Europe/London"
  },
  "lastSignInAt": "2026-03-01T12:00:00Z",
  "createdAt": "2026-03-01T12:00:00Z",
  "updatedAt": "2026-03-01T12:00:00Z",
  "emailVerified": true,
  "phoneVerified": true,
  "isActive": true,
  "banned": true,
  "extra": {
    "plan": "pro",
    "tags": [
      "a",
      {
        "b": 1
      }
    ]
  }
}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
	got, _ = json.Marshal(&clerksync.User{ClerkID: "user_1"})
	want = `{"clerkId":"user_1","profile":{},"emailVerified":false,"phoneVerified":false,` +
		`"isActive":false,"banned":false}`
	if string(got) != want {
		t.Errorf("JSON of an empty record is %s, want %s", got, want)
	}
}

func TestClone(t *testing.T) {
	t.Parallel()
	if (*clerksync.User)(nil).Clone() != nil {
		t.Error("the clone of nil is not nil")
	}
	u, c := fullUser(), fullUser().Clone()
	if diff := cmp.Diff(u, c); diff != "" {
		t.Fatalf("clone differs (-want +got):\n%s", diff)
	}
	c = u.Clone()
	c.Location.City = "Paris"
	c.Extra["plan"] = "free"
	c.Extra["tags"].([]any)[1].(map[string]any)["b"] = int64(2)
	omitting := &clerksync.User{Omit: []string{"email"}}
	omitting.Clone().Omit[0] = "name"
	if omitting.Omit[0] != "email" {
		t.Error("changing the clone's Omit changed the original")
	}
	if diff := cmp.Diff(fullUser(), u); diff != "" {
		t.Errorf("changing the clone changed the original (-want +got):\n%s", diff)
	}
}
