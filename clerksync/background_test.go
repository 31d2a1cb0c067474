package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

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
