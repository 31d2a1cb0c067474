package mongostore_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// TestBatchAfterAnyBatch checks that a batch with users of every kind ends the same,
// whatever the batch before makes the Store expect.
func TestBatchAfterAnyBatch(t *testing.T) {
	t.Parallel()
	const backfill = 15 // as many users as mixedBatch has, or more
	for name, c := range map[string]struct {
		before [][]*clerksync.User
		first  string // command of the mixed batch
	}{
		"Nothing": {nil, "update"},
		"New":     {[][]*clerksync.User{crowd(backfill, "p", 1)}, "insert"},
		"Newer":   {[][]*clerksync.User{crowd(10, "p", 1), {person("p0", 2), person("p1", 2)}}, "update"},
		"Equal":   {[][]*clerksync.User{crowd(10, "p", 1), crowd(10, "p", 1)}, "find"},
	} {
		t.Run(name, func(t *testing.T) {
			base := newUniqueStore(t, "email")
			for _, id := range []string{"ada", "older", "newer", "equal", "differs", "extras", "gone"} {
				upsert(t, base, person(id, 5), clerksync.Created)
			}
			deactivate(t, base, "user_gone", hour(6))
			coll, sent := newMonitored(t, base.coll)
			s := open(t, coll, &mongostore.Options{AllowUnique: []string{"email"}, BatchSize: batchSize})
			s.SetBackfillSize(backfill)
			for _, us := range c.before {
				if _, err := s.UpsertBatch(t.Context(), us); err != nil {
					t.Fatal(err)
				}
			}

			us, want := mixedBatch()
			if name == "New" { // only a batch with many new users continues a backfill
				for _, u := range crowd(backfill, "more", 1) {
					us, want = append(us, u), append(want, clerksync.Created)
				}
			}
			sent.take()
			results, err := s.UpsertBatch(t.Context(), us)
			if names := sent.names(); names[0] != c.first {
				t.Errorf("the batch sends %q, want %s first", names, c.first)
			}
			var failed *clerksync.BatchError
			if !errors.As(err, &failed) || !slices.Equal(slices.Collect(maps.Keys(failed.Errs)), []int{7}) {
				t.Fatalf("error %v, want a BatchError about number 7", err)
			}
			wantConflict(t, failed.Errs[7], "email")
			var got []clerksync.Outcome
			for _, r := range results {
				got = append(got, r.Outcome)
			}
			if !slices.Equal(got, want) {
				t.Errorf("outcomes %v, want %v", got, want)
			}
			checkMixedBatch(t, base)
		})
	}
}

// mixedBatch returns users of every kind, and their outcomes. Number 7 is a conflict.
func mixedBatch() (us []*clerksync.User, want []clerksync.Outcome) {
	add := func(u *clerksync.User, o clerksync.Outcome, f func(u *clerksync.User)) {
		if f != nil {
			f(u)
		}
		us, want = append(us, u), append(want, o)
	}
	add(person("new1", 1), clerksync.Created, nil)
	add(person("older", 6), clerksync.Updated, nil)
	add(person("equal", 5), clerksync.Unchanged, nil)
	add(person("differs", 5), clerksync.Updated, func(u *clerksync.User) { u.Name, u.SyncedAt = "x", hour(7) })
	add(person("new2", 1), clerksync.Created, nil)
	add(person("newer", 4), clerksync.Stale, nil)
	add(person("gone", 9), clerksync.Deactivated, nil)
	add(person("conflict", 1), 0, func(u *clerksync.User) { u.Email = "ada@example.com" })
	add(person("nov", 1), clerksync.Created, func(u *clerksync.User) { u.ClerkUpdatedAt = time.Time{} })
	add(person("extras", 6), clerksync.Updated, func(u *clerksync.User) { u.Extra = nil })
	add(person("again", 1), clerksync.Created, func(u *clerksync.User) { u.Email = "gone@example.com" })
	add(person("new1", 1), clerksync.Unchanged, nil)
	add(person("new2", 2), clerksync.Updated, nil)
	add(person("older", 5), clerksync.Stale, nil)
	return us, want
}

func checkMixedBatch(t *testing.T, s rawStore) {
	t.Helper()
	for id, want := range map[string]string{
		"new1": "new1 1", "older": "older 6", "equal": "equal 5", "differs": "x", "new2": "new2 2",
		"newer": "newer 5", "nov": "nov 1", "extras": "extras 6", "again": "again 1", "ada": "ada 5",
	} {
		u, err := s.User(t.Context(), "user_"+id)
		if err != nil || u.Name != want || !u.IsActive || id == "extras" && u.Extra != nil {
			t.Errorf("record of %s: %+v, %v, want name %q", id, u, err, want)
		}
	}
	if _, err := s.User(t.Context(), "user_conflict"); !errors.Is(err, clerksync.ErrNotFound) {
		t.Errorf("the user in conflict: %v, want ErrNotFound", err)
	}
}

// TestBatchByAClockThatStands checks that an equal updatedAt alone does not make a batch
// believe that it wrote the record.
func TestBatchByAClockThatStands(t *testing.T) {
	t.Parallel()
	now := func() time.Time { return hour(9) }
	s := open(t, newCollection(t), &mongostore.Options{BatchSize: batchSize, Now: now})
	for _, want := range []clerksync.Outcome{clerksync.Created, clerksync.Unchanged, clerksync.Unchanged} {
		res, err := s.UpsertBatch(t.Context(), []*clerksync.User{ada(1)})
		if err != nil || res[0].Outcome != want {
			t.Errorf("%v, %v, want %v", res[0].Outcome, err, want)
		}
	}
}

// TestBatchCreatedAndChangedAtOnce checks that the batch that inserted a record reports
// Created, even if another writer changes it before the batch reads what it wrote.
func TestBatchCreatedAndChangedAtOnce(t *testing.T) {
	t.Parallel()
	for name, newer := range map[string]bool{"Newer": true, "Same": false} {
		t.Run(name, func(t *testing.T) {
			base := newStore(t)
			inserted := false
			s := open(t, newHooked(t, base.coll, func(cmd bson.Raw) {
				switch {
				case commandName(cmd) == "insert" && !inserted: // bob is in the way: the bulk fails in part
					inserted = true
					upsert(t, base, person("bob", 1), clerksync.Created)
				case commandName(cmd) == "find" && inserted && newer:
					newer = false
					upsert(t, base, person("ada", 2), clerksync.Updated)
				}
			}), nil)
			versionless := func(id string) *clerksync.User {
				return change(person(id, 1), func(u *clerksync.User) { u.ClerkUpdatedAt = time.Time{} })
			}
			us := []*clerksync.User{versionless("ada"), versionless("bob")}
			res, err := s.UpsertBatch(t.Context(), us)
			if err != nil {
				t.Fatal(err)
			}
			if res[0].Outcome != clerksync.Created || res[1].Outcome != clerksync.Stale {
				t.Errorf("outcomes %v and %v, want created and stale", res[0].Outcome, res[1].Outcome)
			}
			if !inserted || newer {
				t.Error("the other writer did not come in")
			}
		})
	}
}

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

// TestUndeletedOfAnEndedCursor has the server forget the cursor in the middle, as it does after ten
// idle minutes, or if another server becomes the primary. The rest must not seem to be missing.
func TestUndeletedOfAnEndedCursor(t *testing.T) {
	t.Parallel()
	base := newStore(t)
	for i := range 15 {
		upsert(t, base, person(fmt.Sprint(i), 1), clerksync.Created)
	}
	killed := false
	coll := newHooked(t, base.coll, func(cmd bson.Raw) {
		if commandName(cmd) != "getMore" || killed {
			return
		}
		killed = true
		kill := bson.D{
			{Key: "killCursors", Value: base.coll.Name()}, {Key: "cursors", Value: bson.A{cmd.Lookup("getMore").Int64()}},
		}
		if err := base.coll.Database().RunCommand(t.Context(), kill).Err(); err != nil {
			t.Error(err)
		}
	})
	s := open(t, coll, &mongostore.Options{BatchSize: 1})
	n, err := 0, error(nil)
	for _, e := range s.Undeleted(t.Context()) {
		if err = e; e == nil {
			n++
		}
	}
	if !killed || n != 10 || err == nil {
		t.Errorf("killed the cursor: %t; %d records and the error %v", killed, n, err)
	}
	n = 0
	for _, err := range s.Undeleted(t.Context()) {
		if err != nil {
			t.Error(err)
		}
		n++
	}
	if n != 15 {
		t.Errorf("%d records in the second pass", n)
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
			for c.Ping(t.Context(), nil) != nil { // to find the server may take longer than that timeout
			}
			s := open(t, c.Database(base.Database().Name()).Collection(base.Name()), &mongostore.Options{BatchSize: 10})
			armed = true
			var us []*clerksync.User
			for i := range 20 {
				u := person(fmt.Sprintf("n%d", i), 1)
				if dying == "find" { // users without a version are read first
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
