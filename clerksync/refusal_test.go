package clerksync_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// A user whom this process knows to be refused is refused while the Store is
// down, in every policy, whatever came in between.
func TestKnownRefusalsOutlastTheStore(t *testing.T) {
	t.Parallel()
	event := func(t *testing.T, fx *fixture, typ, id string) {
		raw, ok := fx.clerk.User(id)
		if !ok {
			raw = json.RawMessage(`{"id":"` + id + `"}`)
		}
		if _, err := fx.Apply(t.Context(), clerksync.Event{Type: typ, Timestamp: fx.clock.Now(), Data: raw}); err != nil {
			t.Fatal(err)
		}
	}
	suspended := func(t *testing.T, fx *fixture, id string) {
		visit(t, fx.Syncer, id)
		_ = fx.store.Edit(id, func(u *clerksync.User) { u.IsActive = false })
		fx.Forget(id)
		refusedWith(t, fx.Syncer, id, clerksync.ErrUserInactive)
	}
	for name, arrange := range map[string]func(*testing.T, *fixture, string){
		"banned by an event": func(t *testing.T, fx *fixture, id string) {
			_ = fx.clerk.BanUser(id)
			event(t, fx, "user.updated", id)
		},
		"banned, then another event": func(t *testing.T, fx *fixture, id string) {
			_ = fx.clerk.BanUser(id)
			event(t, fx, "user.updated", id)
			refusedWith(t, fx.Syncer, id, clerksync.ErrUserInactive)
			fx.rename(t, id, "Ada")
			event(t, fx, "user.updated", id)
		},
		"suspended, then an event": func(t *testing.T, fx *fixture, id string) {
			suspended(t, fx, id)
			fx.rename(t, id, "Ada")
			event(t, fx, "user.updated", id)
		},
		"suspended, then Forget": func(t *testing.T, fx *fixture, id string) {
			suspended(t, fx, id)
			fx.Forget(id)
		},
		"suspended, then Sync": func(t *testing.T, fx *fixture, id string) {
			suspended(t, fx, id)
			fx.rename(t, id, "Ada")
			if _, err := fx.Sync(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		},
		"deleted, then a late event": func(t *testing.T, fx *fixture, id string) {
			raw, _ := fx.clerk.User(id)
			_ = fx.clerk.DeleteUser(id)
			event(t, fx, "user.deleted", id)
			if _, err := fx.Apply(t.Context(), clerksync.Event{Type: "user.updated", Data: raw}); err != nil {
				t.Fatal(err)
			}
			fx.Forget(id)
		},
	} {
		for mode, silent := range map[string]bool{"the Store returns records": false, "the Store returns none": true} {
			t.Run(name+", "+mode, func(t *testing.T) {
				t.Parallel()
				fx := newFixture(t, func(c *clerksync.Config) { c.OnFailure = clerksync.FailOpen })
				if silent {
					fx.Syncer = fx.syncer(t, func(c *clerksync.Config) { c.OnFailure, c.Store = clerksync.FailOpen, silentStore{fx.store} })
				}
				id := fx.clerk.CreateUser(fakeclerk.NewUser{})
				visit(t, fx.Syncer, id)
				arrange(t, fx, id)
				fx.store.fail(errDown)
				refusedWith(t, fx.Syncer, id, clerksync.ErrUserInactive)
				fx.clock.Advance(time.Minute)
				refusedWith(t, fx.Syncer, id, clerksync.ErrUserInactive)
			})
		}
	}
}

// silentStore reads nothing back on a write, as mongostore on an update.
type silentStore struct{ *countingStore }

func (s silentStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	res, err := s.countingStore.Upsert(ctx, u)
	res.User = nil
	return res, err
}

func TestLiftedRefusalIsNotKept(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) { c.OnFailure = clerksync.FailOpen })
	fx.Syncer = fx.syncer(t, func(c *clerksync.Config) { c.OnFailure, c.Store = clerksync.FailOpen, silentStore{fx.store} })
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	_ = fx.clerk.BanUser(id)
	refusedWith(t, fx.Syncer, id, clerksync.ErrUserInactive)
	_ = fx.clerk.UnbanUser(id)
	raw, _ := fx.clerk.User(id)
	if _, err := fx.Apply(t.Context(), clerksync.Event{Type: "user.updated", Data: raw}); err != nil {
		t.Fatal(err)
	}
	fx.store.fail(errDown)
	if u := visit(t, fx.Syncer, id); !u.Partial {
		t.Errorf("served %+v", u)
	}
}

// A record that went back in the Store does not hide what the app did to it.
func TestSuspensionCountsWhateverTheVersion(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, fx.Syncer, id)
	_ = fx.store.Edit(id, func(u *clerksync.User) { u.ClerkUpdatedAt, u.IsActive = t0.Add(-time.Hour), false })
	fx.clock.Advance(30 * time.Second)
	refusedWith(t, fx.Syncer, id, clerksync.ErrUserInactive)
}

func TestCookieOfAnotherOriginsRequest(t *testing.T) {
	t.Parallel()
	const app = "https://app.example.com"
	fx := newFixture(t, func(c *clerksync.Config) { c.Auth.Cookie, c.Auth.AuthorizedParties = true, []string{app} })
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	token, err := fx.clerk.Token(id, fakeclerk.TokenOptions{AuthorizedParty: app})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		method, site, origin string
		bearer               bool
		status               int
		code                 string
	}{
		"own page":                   {method: "POST", site: "same-origin", origin: "https://api.example.com", status: 200},
		"own page, old browser":      {method: "POST", origin: "https://api.example.com", status: 200},
		"authorized party":           {method: "POST", site: "same-site", origin: app, status: 200},
		"another origin of the site": {method: "POST", site: "same-site", origin: "https://evil.example.com", status: 403, code: "cross_origin"},
		"another site":               {method: "DELETE", site: "cross-site", origin: "https://evil.test", status: 403, code: "cross_origin"},
		"another site, old browser":  {method: "POST", origin: "https://evil.test", status: 403, code: "cross_origin"},
		"another site reads":         {method: "GET", site: "cross-site", status: 200},
		"no browser":                 {method: "POST", status: 200},
		"another site with a header": {method: "POST", site: "cross-site", origin: "https://evil.test", bearer: true, status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(tt.method, "https://api.example.com/x", nil)
			if tt.bearer {
				r.Header.Set("Authorization", "Bearer "+token)
			} else {
				r.AddCookie(&http.Cookie{Name: "__session", Value: token})
			}
			for name, value := range map[string]string{"Sec-Fetch-Site": tt.site, "Origin": tt.origin} {
				if value != "" {
					r.Header.Set(name, value)
				}
			}
			for _, wrap := range []func(http.Handler) http.Handler{fx.RequireUser, fx.WithUser} {
				rec := httptest.NewRecorder()
				wrap(&me{}).ServeHTTP(rec, r)
				if tt.status != 200 {
					checkProblem(t, answer{rec.Code, rec.Header(), rec.Body.Bytes()}, tt.status, tt.code)
				} else if rec.Code != 200 {
					t.Errorf("%d %s", rec.Code, rec.Body)
				}
			}
		})
	}
}

// panicking is a transport of the app's own.
type panicking struct{}

func (panicking) RoundTrip(*http.Request) (*http.Response, error) { panic("nil map") }

func TestPanicsOfTheAppsParts(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	s := fx.syncer(t, func(c *clerksync.Config) { c.HTTPClient = &http.Client{Transport: panicking{}} })
	if got := authenticate(t, s, fx.clerk.SessionToken("user_1")); got != "unavailable" {
		t.Errorf("fetching keys: %q", got)
	}
	refusedWith(t, s, "user_1", clerksync.ErrUnavailable)

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

// What users chose to put into their metadata, and what a proxy answers, does not
// reach the log.
func TestErrorsHoldNoPersonalData(t *testing.T) {
	t.Parallel()
	const secret = "ada@example.com"
	for _, v := range []any{
		map[string]any{"$" + secret: 1}, map[string]any{secret: 1}, json.Number(secret), json.RawMessage(secret),
		[]any{map[string]any{"a": map[string]any{secret: 1}}}, []byte(secret),
	} {
		_, err := (&clerksync.User{ClerkID: "user_1", Extra: map[string]any{"meta": v}}).Canonical()
		if err == nil || strings.Contains(err.Error(), "example") || !strings.Contains(err.Error(), `"meta"`) {
			t.Errorf("%T: error is %v", v, err)
		}
	}
	fx := newFixture(t, nil)
	url, key := fx.clerk.APIURL(), fx.clerk.SecretKey()
	s := fx.syncer(t, func(c *clerksync.Config) {
		c.Backend = clerk.NewBackend(&clerk.BackendConfig{URL: &url, Key: &key, HTTPClient: c.HTTPClient})
		c.APIURL, c.HTTPClient = "", nil
	})
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return &fakeclerk.Fault{Status: 502, Body: "<html>" + secret} })
	if _, err := s.User(t.Context(), "user_1"); !errors.Is(err, clerksync.ErrUnavailable) || strings.Contains(err.Error(), secret) {
		t.Errorf("error is %v", err)
	}
}
