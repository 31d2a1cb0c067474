package mongostore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// mortal dials connections. After die, all of them are broken, and it dials no more.
type mortal struct {
	net.Dialer
	mu    sync.Mutex
	dead  bool
	conns []net.Conn
}

func (m *mortal) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := m.Dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return nil, errors.Join(errors.New("dead"), conn.Close())
	}
	m.conns = append(m.conns, conn)
	return conn, nil
}

func (m *mortal) die() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	for _, conn := range m.conns {
		_ = conn.Close()
	}
}

// TestBatchOnDyingServer checks that a batch does not go on, user by user, on a server that
// is gone.
func TestBatchOnDyingServer(t *testing.T) {
	t.Parallel()
	for name, dying := range map[string]string{"BeforeTheRead": "find", "BeforeTheWrite": "update"} {
		t.Run(name, func(t *testing.T) {
			base := newCollection(t)
			open(t, base, nil)
			dialer := &mortal{}
			armed, commands, seen := false, 0, 0
			c := newClient(t, func(o *options.ClientOptions) {
				o.SetDialer(dialer).SetServerSelectionTimeout(20 * time.Millisecond)
				o.SetMonitor(&event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
					if !armed {
						return
					}
					commands++
					if e.CommandName == dying {
						seen++
					}
					if seen > 1 {
						dialer.die()
					}
				}})
			})
			s := open(t, c.Database(base.Database().Name()).Collection(base.Name()), &mongostore.Options{BatchSize: 10})
			armed = true
			var us []*clerksync.User
			for i := range 20 {
				u := person(fmt.Sprintf("n%d", i), 1)
				if dying == "find" { // whoever has no version is read first
					u.ClerkUpdatedAt = time.Time{}
				}
				us = append(us, u)
			}
			res, err := s.UpsertBatch(t.Context(), us)
			var failed *clerksync.BatchError
			if !errors.As(err, &failed) || len(failed.Errs) != len(us)-10 {
				t.Errorf("error %v", err)
			}
			t.Log(err)
			for i, r := range res {
				if done := i < 10; done != (r.Outcome == clerksync.Created) || done == (failed.Errs[i] != nil) {
					t.Errorf("number %d: %v, %v", i, r.Outcome, failed.Errs[i])
				}
			}
			for i := 10; i < len(us); i++ {
				if failed.Errs[i] != failed.Errs[len(us)-1] {
					t.Errorf("number %d was tried: %v", i, failed.Errs[i])
				}
			}
			if commands > 6 {
				t.Errorf("%d commands", commands)
			}
		})
	}
}
