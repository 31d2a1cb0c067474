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
	event := func(t *testing.T, w *world, typ, id string) {
		raw, ok := w.clerk.User(id)
		if !ok {
			raw = json.RawMessage(`{"id":"` + id + `"}`)
		}
		if _, err := w.Apply(t.Context(), clerksync.Event{Type: typ, Timestamp: w.clock.Now(), Data: raw}); err != nil {
			t.Fatal(err)
		}
	}
	suspended := func(t *testing.T, w *world, id string) {
		visit(t, w.Syncer, id)
		_ = w.store.Edit(id, func(u *clerksync.User) { u.IsActive = false })
		w.Forget(id)
		refusedWith(t, w.Syncer, id, clerksync.ErrUserInactive)
	}
	for name, arrange := range map[string]func(*testing.T, *world, string){
		"banned by an event": func(t *testing.T, w *world, id string) {
			_ = w.clerk.BanUser(id)
			event(t, w, "user.updated", id)
		},
		"banned, then another event": func(t *testing.T, w *world, id string) {
			_ = w.clerk.BanUser(id)
			event(t, w, "user.updated", id)
			refusedWith(t, w.Syncer, id, clerksync.ErrUserInactive)
			w.rename(t, id, "Ada")
			event(t, w, "user.updated", id)
		},
		"suspended, then an event": func(t *testing.T, w *world, id string) {
			suspended(t, w, id)
			w.rename(t, id, "Ada")
			event(t, w, "user.updated", id)
		},
		"suspended, then Forget": func(t *testing.T, w *world, id string) {
			suspended(t, w, id)
			w.Forget(id)
		},
		"suspended, then Sync": func(t *testing.T, w *world, id string) {
			suspended(t, w, id)
			w.rename(t, id, "Ada")
			if _, err := w.Sync(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		},
		"deleted, then a late event": func(t *testing.T, w *world, id string) {
			raw, _ := w.clerk.User(id)
			_ = w.clerk.DeleteUser(id)
			event(t, w, "user.deleted", id)
			if _, err := w.Apply(t.Context(), clerksync.Event{Type: "user.updated", Data: raw}); err != nil {
				t.Fatal(err)
			}
			w.Forget(id)
		},
	} {
		for mode, silent := range map[string]bool{"the Store returns records": false, "the Store returns none": true} {
			t.Run(name+", "+mode, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, func(c *clerksync.Config) { c.OnFailure = clerksync.FailOpen })
				if silent {
					w.Syncer = w.syncer(t, func(c *clerksync.Config) { c.OnFailure, c.Store = clerksync.FailOpen, silentStore{w.store} })
				}
				id := w.clerk.CreateUser(fakeclerk.NewUser{})
				visit(t, w.Syncer, id)
				arrange(t, w, id)
				w.store.fail(errDown)
				refusedWith(t, w.Syncer, id, clerksync.ErrUserInactive)
				w.clock.Advance(time.Minute)
				refusedWith(t, w.Syncer, id, clerksync.ErrUserInactive)
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
	w := newWorld(t, func(c *clerksync.Config) { c.OnFailure = clerksync.FailOpen })
	w.Syncer = w.syncer(t, func(c *clerksync.Config) { c.OnFailure, c.Store = clerksync.FailOpen, silentStore{w.store} })
	id := w.clerk.CreateUser(fakeclerk.NewUser{})
	_ = w.clerk.BanUser(id)
	refusedWith(t, w.Syncer, id, clerksync.ErrUserInactive)
	_ = w.clerk.UnbanUser(id)
	raw, _ := w.clerk.User(id)
	if _, err := w.Apply(t.Context(), clerksync.Event{Type: "user.updated", Data: raw}); err != nil {
		t.Fatal(err)
	}
	w.store.fail(errDown)
	if u := visit(t, w.Syncer, id); !u.Partial {
		t.Errorf("served %+v", u)
	}
}

// A record that went back in the Store does not hide what the app did to it.
func TestSuspensionCountsWhateverTheVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, w.Syncer, id)
	_ = w.store.Edit(id, func(u *clerksync.User) { u.ClerkUpdatedAt, u.IsActive = t0.Add(-time.Hour), false })
	w.clock.Advance(30 * time.Second)
	refusedWith(t, w.Syncer, id, clerksync.ErrUserInactive)
}

func TestCookieOfAnotherOriginsRequest(t *testing.T) {
	t.Parallel()
	const app = "https://app.example.com"
	w := newWorld(t, func(c *clerksync.Config) { c.Auth.Cookie, c.Auth.AuthorizedParties = true, []string{app} })
	id := w.clerk.CreateUser(fakeclerk.NewUser{})
	token, err := w.clerk.Token(id, fakeclerk.TokenOptions{AuthorizedParty: app})
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
			for _, wrap := range []func(http.Handler) http.Handler{w.RequireUser, w.WithUser} {
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
	w := newWorld(t, nil)
	s := w.syncer(t, func(c *clerksync.Config) { c.HTTPClient = &http.Client{Transport: panicking{}} })
	if got := authenticate(t, s, w.clerk.SessionToken("user_1")); got != "unavailable" {
		t.Errorf("fetching keys: %q", got)
	}
	refusedWith(t, s, "user_1", clerksync.ErrUnavailable)

	id := w.clerk.CreateUser(fakeclerk.NewUser{})
	s = w.syncer(t, func(c *clerksync.Config) {
		c.Observe = func(_ context.Context, o clerksync.Observation) {
			if o.Op == clerksync.OpRefresh {
				panic("nil map")
			}
		}
	})
	visit(t, s, id)
	w.clock.Advance(2 * time.Hour)
	visit(t, s, id)
	clerksync.WaitBackground(s)
}

func TestRefreshIsObservedWithALiveContext(t *testing.T) {
	t.Parallel()
	seen := errors.New("not called")
	w := newWorld(t, func(c *clerksync.Config) {
		c.Observe = func(ctx context.Context, o clerksync.Observation) {
			if o.Op == clerksync.OpRefresh {
				seen = ctx.Err()
				if o.Outcome != clerksync.Unchanged {
					seen = fmt.Errorf("observed %+v", o)
				}
			}
		}
	})
	id := w.clerk.CreateUser(fakeclerk.NewUser{})
	visit(t, w.Syncer, id)
	w.clock.Advance(2 * time.Hour)
	visit(t, w.Syncer, id)
	w.waitForRefreshes()
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
	w := newWorld(t, nil)
	url, key := w.clerk.APIURL(), w.clerk.SecretKey()
	s := w.syncer(t, func(c *clerksync.Config) {
		c.Backend = clerk.NewBackend(&clerk.BackendConfig{URL: &url, Key: &key, HTTPClient: c.HTTPClient})
		c.APIURL, c.HTTPClient = "", nil
	})
	w.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return &fakeclerk.Fault{Status: 502, Body: "<html>" + secret} })
	if _, err := s.User(t.Context(), "user_1"); !errors.Is(err, clerksync.ErrUnavailable) || strings.Contains(err.Error(), secret) {
		t.Errorf("error is %v", err)
	}
}
