package clerksync_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/internal/retry"
)

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
