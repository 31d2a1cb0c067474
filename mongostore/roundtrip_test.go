package mongostore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

func TestRoundTrips(t *testing.T) {
	coll, sent := newMonitored(t, newCollection(t))
	s := open(t, coll, nil)
	erasing := open(t, coll, &mongostore.Options{EraseOnDelete: true, BatchSize: batchSize})
	changed := func(n int, change func(u *clerksync.User)) *clerksync.User {
		u := ada(n)
		change(u)
		return u
	}
	crowd := func(n int, kind string, version int) (us []*clerksync.User) {
		for i := range n {
			us = append(us, person(fmt.Sprint(kind, i), version))
		}
		return us
	}
	people := func(kind string, version int, odd ...*clerksync.User) []*clerksync.User {
		return append(crowd(10, kind, version), odd...)
	}
	odd := func(version int, change func(u *clerksync.User)) *clerksync.User {
		u := person("odd", version)
		change(u)
		return u
	}
	var ids []string
	for _, u := range crowd(batchSize, "n", 1) {
		ids = append(ids, u.ClerkID)
	}
	upsert := func(u *clerksync.User, want clerksync.Outcome) func() error {
		return func() error {
			res, err := s.Upsert(t.Context(), u)
			if err == nil && res.Outcome != want {
				err = fmt.Errorf("outcome %v, want %v", res.Outcome, want)
			}
			return err
		}
	}
	// upsertBatch wants the last one, or all where no other is named, to end so.
	upsertBatch := func(us []*clerksync.User, want clerksync.Outcome, others ...clerksync.Outcome) func() error {
		return func() error {
			res, err := s.UpsertBatch(t.Context(), us)
			for i, r := range res {
				want := want
				if others != nil && i < len(res)-1 {
					want = others[i*len(others)/len(res)]
				}
				if r.Outcome != want {
					err = errors.Join(err, fmt.Errorf("number %d: outcome %v, want %v", i, r.Outcome, want))
				}
			}
			return err
		}
	}
	const created, updated, unchanged, stale, deactivated = clerksync.Created, clerksync.Updated, clerksync.Unchanged, clerksync.Stale, clerksync.Deactivated
	deactivate := func(s *mongostore.Store, id string) func() error {
		return func() error { _, err := s.Deactivate(t.Context(), id, hour(9)); return err }
	}
	for _, step := range []struct {
		name string
		call func() error
		want []string
	}{
		{"create", upsert(ada(1), clerksync.Created), []string{"update"}},
		{"read", func() error { _, err := s.User(t.Context(), "user_ada"); return err }, []string{"find"}},
		{"newer", upsert(ada(3), clerksync.Updated), []string{"update"}},
		{"again", upsert(ada(3), clerksync.Unchanged), []string{"update", "findAndModify"}},
		{"again, seen later", upsert(changed(3, func(u *clerksync.User) { u.SyncedAt = hour(4) }), clerksync.Unchanged), []string{"update", "findAndModify"}},
		{"again, seen before", upsert(changed(3, func(u *clerksync.User) { u.SyncedAt, u.Name = hour(2), "x" }), clerksync.Unchanged), []string{"update", "findAndModify", "find"}},
		{"same version, other fields", upsert(changed(3, func(u *clerksync.User) { u.SyncedAt, u.Name = hour(5), "x" }), clerksync.Updated), []string{"update", "findAndModify", "find", "update"}},
		{"older", upsert(ada(2), clerksync.Stale), []string{"update", "findAndModify", "find"}},
		{"newer, other extras", upsert(changed(4, func(u *clerksync.User) { u.Extra = nil }), clerksync.Updated), []string{"update", "findAndModify", "find", "update"}},
		{"delete", deactivate(s, "user_ada"), []string{"update"}},
		{"delete again", deactivate(s, "user_ada"), []string{"update", "find"}},
		{"deleted", upsert(ada(5), clerksync.Deactivated), []string{"update", "findAndModify", "find"}},
		{"delete unknown", deactivate(s, "user_none"), []string{"update"}},
		{"restore", func() error {
			restored, err := s.Restore(t.Context(), "user_ada", hour(10))
			if !restored {
				err = errors.Join(err, errors.New("was not restored"))
			}
			return err
		}, []string{"update"}},
		{"restored", upsert(changed(4, func(u *clerksync.User) { u.SyncedAt = hour(6) }), clerksync.Updated), []string{"update", "findAndModify", "find", "update"}},
		{"delete once more", deactivate(s, "user_ada"), []string{"update"}},
		{"create without version", upsert(&clerksync.User{ClerkID: "user_bob"}, clerksync.Created), []string{"find", "insert"}},
		{"again without version", upsert(&clerksync.User{ClerkID: "user_bob"}, clerksync.Unchanged), []string{"find"}},
		{"erase", deactivate(erasing, "user_bob"), []string{"find", "update"}},
		{"erase unknown", deactivate(erasing, "user_cid"), []string{"find", "insert"}},
		{"batch: new", upsertBatch(crowd(batchSize, "n", 1), created), []string{"update"}},
		{"batch: new after new", upsertBatch(crowd(batchSize, "m", 1), created), []string{"insert"}},
		{"batch: many older after new", upsertBatch(crowd(batchSize, "n", 2), updated), []string{"insert", "find", "update"}},
		{"batch: older", upsertBatch(people("n", 3), updated), []string{"update"}},
		{"batch: new and older", upsertBatch(append(people("n", 4), people("k", 1)...), created, updated, created), []string{"update"}},
		{"batch: one new", upsertBatch(people("n", 5, person("odd", 2)), created, updated), []string{"update"}},
		{"batch: one equal", upsertBatch(people("n", 6, person("odd", 2)), unchanged, updated), []string{"update", "find"}},
		{"batch: one equal, seen later", upsertBatch(people("n", 7, odd(2, func(u *clerksync.User) { u.SyncedAt = hour(3) })), unchanged, updated), []string{"update", "find", "update"}},
		{"batch: one newer", upsertBatch(people("n", 8, person("odd", 1)), stale, updated), []string{"update", "find"}},
		{"batch: one of equal version", upsertBatch(people("n", 9, odd(2, func(u *clerksync.User) { u.Name, u.SyncedAt = "x", hour(4) })), updated, updated), []string{"update", "find", "update"}},
		{"batch: one of other extras", upsertBatch(people("n", 10, odd(5, func(u *clerksync.User) { u.Extra = nil })), updated, updated), []string{"update", "find", "update"}},
		{"batch: one without version", upsertBatch(people("n", 11, &clerksync.User{ClerkID: "user_dot"}), created, updated), []string{"update", "find", "insert"}},
		{"batch: one deleted", upsertBatch(people("n", 12, ada(9)), deactivated, updated), []string{"update", "find"}},
		{"batch: equal", upsertBatch(people("m", 1), unchanged), []string{"update", "find"}},
		{"batch: equal after equal", upsertBatch(people("m", 1), unchanged), []string{"find"}},
		{"batch: newer after equal", upsertBatch(people("n", 1), stale), []string{"find"}},
		{"batch: older after equal", upsertBatch(people("m", 2), updated), []string{"find", "update"}},
		{"batch: older again", upsertBatch(people("m", 3), updated), []string{"update"}},
		{"batch: many new after older", upsertBatch(crowd(batchSize, "l", 1), created), []string{"update"}},
		{"batch: few older after new", upsertBatch(people("n", 13), updated), []string{"update"}},
		{"users", func() error { _, err := s.Users(t.Context(), ids); return err }, []string{"find"}},
		{"stamps", func() error { _, err := s.Stamps(t.Context(), ids); return err }, []string{"find"}},
		{"two pages", func() error {
			_, err := s.Stamps(t.Context(), append(slices.Clone(ids), "user_ada"))
			return err
		}, []string{"find", "find"}},
	} {
		sent.take()
		if err := step.call(); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		var got []string
		for _, cmd := range sent.take() {
			got = append(got, commandName(cmd))
		}
		if !slices.Equal(got, step.want) {
			t.Errorf("%s: sends %q, want %q", step.name, got, step.want)
		}
		t.Logf("%-28s %d round trips: %v", step.name, len(got), got)
	}
}

// A collection sharded on clerkId routes by it.
func TestFiltersNameTheClerkID(t *testing.T) {
	base := newUniqueStore(t, "email").coll
	coll, sent := newMonitored(t, base)
	s := open(t, coll, &mongostore.Options{AllowUnique: []string{"email"}, BatchSize: batchSize, EraseOnDelete: true})
	plain := open(t, coll, &mongostore.Options{AllowUnique: []string{"email"}, BatchSize: batchSize})
	insert(t, base, bson.D{{Key: "clerkId", Value: "user_flat"}, {Key: "profile", Value: nil}})

	upsert(t, s, ada(1), clerksync.Created)
	upsert(t, s, ada(1), clerksync.Unchanged)
	upsert(t, s, ada(2), clerksync.Updated)
	upsert(t, s, ada(1), clerksync.Stale)
	upsert(t, s, person("flat", 1), clerksync.Updated)
	u := person("nov", 1)
	u.ClerkUpdatedAt = time.Time{}
	upsert(t, s, u, clerksync.Created)
	u.Name = "x"
	upsert(t, s, u, clerksync.Updated)
	if _, err := s.UpsertBatch(t.Context(), []*clerksync.User{ada(3), person("bob", 1), person("bob", 2), u}); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*mongostore.Store{s, plain} {
		for _, id := range []string{"user_flat", "user_nov", "user_none"} {
			if _, err := s.Deactivate(t.Context(), id, hour(3)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, err := range s.Undeleted(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := plain.Restore(t.Context(), "user_none", hour(4)); err != nil {
		t.Fatal(err)
	}
	if _, err := plain.Deactivate(t.Context(), "user_ada", hour(4)); err != nil {
		t.Fatal(err)
	}
	again := person("again", 5)
	again.Email = "ada@example.com"
	upsert(t, s, again, clerksync.Created)

	releases := 0
	check := func(cmd, filter bson.Raw) {
		if _, err := filter.LookupErr("clerkId"); err != nil {
			t.Errorf("no clerkId in the filter of %s", cmd)
		}
	}
	for _, cmd := range sent.take() {
		switch commandName(cmd) {
		case "find":
			check(cmd, cmd.Lookup("filter").Document())
		case "findAndModify":
			check(cmd, cmd.Lookup("query").Document())
		case "update":
			values, err := cmd.Lookup("updates").Array().Values()
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range values {
				if multi, _ := v.Document().Lookup("multi").BooleanOK(); multi {
					releases++
					continue
				}
				check(cmd, v.Document().Lookup("q").Document())
			}
		case "insert":
			values, err := cmd.Lookup("documents").Array().Values()
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range values {
				check(cmd, v.Document())
			}
		case "ping", "listIndexes", "createIndexes", "endSessions":
		default:
			t.Errorf("an unexpected command: %s", cmd)
		}
	}
	if releases != 1 {
		t.Errorf("%d writes to many records, want the one release", releases)
	}
}

// twice is a Store of which the server gets each write twice, and the Store only the
// answer to the second: the first's was lost, and the driver sent it again.
func twice(t *testing.T) rawStore {
	t.Helper()
	base := newCollection(t)
	open(t, base, nil)
	hooked := newHooked(t, base, func(cmd bson.Raw) {
		switch commandName(cmd) {
		case "insert", "update", "findAndModify":
			var d bson.D
			if err := bson.Unmarshal(cmd, &d); err != nil {
				panic(err)
			}
			d = slices.DeleteFunc(d, func(e bson.E) bool {
				return slices.Contains([]string{"lsid", "txnNumber", "$db", "$clusterTime", "$readPreference"}, e.Key)
			})
			if err := base.Database().RunCommand(context.Background(), d).Err(); err != nil {
				t.Log(err)
			}
		}
	})
	return rawStore{open(t, hooked, nil), base}
}

func TestWritesMayComeTwice(t *testing.T) {
	s := twice(t)
	created := upsert(t, s, ada(1), clerksync.Created)
	if d := cmp.Diff(created.CreatedAt, created.UpdatedAt); d != "" {
		t.Error(d)
	}
	if got := upsert(t, s, ada(1), clerksync.Unchanged); !cmp.Equal(got, created) {
		t.Errorf("unchanged: %s", cmp.Diff(created, got))
	}
	// Of an update done twice nobody but the server knows that it was one.
	res, err := s.Upsert(t.Context(), ada(2))
	if err != nil || res.Outcome != clerksync.Updated && res.Outcome != clerksync.Unchanged {
		t.Errorf("newer: %v, %v", res.Outcome, err)
	}
	if u, err := s.User(t.Context(), "user_ada"); err != nil || u.Name != "ada 2" || u.ID != created.ID {
		t.Errorf("record: %+v, %v", u, err)
	}
	u := person("nov", 1)
	u.ClerkUpdatedAt = time.Time{}
	upsert(t, s, u, clerksync.Created)
	us := []*clerksync.User{person("bob", 1), person("cid", 1), ada(3)}
	results, err := s.UpsertBatch(t.Context(), us)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []clerksync.Outcome{clerksync.Created, clerksync.Created, clerksync.Updated} {
		if got := results[i].Outcome; got != want && (want != clerksync.Updated || got != clerksync.Unchanged) {
			t.Errorf("batch, number %d: %v, want %v", i, got, want)
		}
		upsert(t, s, us[i], clerksync.Unchanged)
	}
	for _, id := range []string{"user_ada", "user_none"} {
		if res, err := s.Deactivate(t.Context(), id, hour(5)); err != nil || res.Outcome != clerksync.Deactivated {
			t.Errorf("Deactivate: %v, %v", res.Outcome, err)
		}
	}
	if n, err := s.coll.CountDocuments(t.Context(), bson.D{}); err != nil || n != 5 {
		t.Errorf("%d documents, %v", n, err)
	}
}

// interrupted is a Store in whose nth command of a kind someone else comes in
// just before.
func interrupted(t *testing.T, base rawStore, kind string, nth int64, other func()) *mongostore.Store {
	t.Helper()
	var seen atomic.Int64
	armed := false
	s := open(t, newHooked(t, base.coll, func(cmd bson.Raw) {
		if armed && commandKind(cmd) == kind && seen.Add(1) == nth {
			other()
		}
	}), nil)
	armed = true
	return s
}

// commandKind is the command's name, "write" for an insert or an update.
func commandKind(cmd bson.Raw) string {
	switch name := commandName(cmd); name {
	case "insert", "update":
		return "write"
	default:
		return name
	}
}

func TestRacesAreDecidedAnew(t *testing.T) {
	differs := func(n int) *clerksync.User {
		u := ada(n)
		u.Extra = map[string]any{"other": "x"}
		return u
	}
	none := (*clerksync.User)(nil)
	unseen := func(name string, extra string) *clerksync.User { // without a time of evidence
		u := ada(1)
		u.SyncedAt, u.Name, u.Extra = time.Time{}, name, map[string]any{extra: "x"}
		return u
	}
	newer := unseen("newer", "a")
	newer.ClerkUpdatedAt = hour(2)
	noVersion := ada(1)
	noVersion.ClerkUpdatedAt = time.Time{}
	for name, c := range map[string]struct {
		stored  *clerksync.User
		command string
		nth     int64
		other   func(s rawStore) error
		u       *clerksync.User
		want    clerksync.Outcome
		record  string // name in the end; empty if deleted
	}{
		"NewerBeforeCompareAndSet": {ada(1), "write", 2, func(s rawStore) error { _, err := s.Upsert(t.Context(), ada(9)); return err },
			differs(2), clerksync.Stale, "ada 9"},
		"OlderBeforeCompareAndSet": {ada(1), "write", 2, func(s rawStore) error { _, err := s.Upsert(t.Context(), ada(2)); return err },
			differs(3), clerksync.Updated, "ada 3"},
		"DeletedBeforeCompareAndSet": {ada(1), "write", 2, func(s rawStore) error { _, err := s.Deactivate(t.Context(), "user_ada", hour(3)); return err },
			differs(2), clerksync.Deactivated, ""},
		"DeletedBeforeConfirm": {ada(1), "findAndModify", 1, func(s rawStore) error { _, err := s.Deactivate(t.Context(), "user_ada", hour(3)); return err },
			ada(1), clerksync.Deactivated, ""},
		"VersionBeforeCompareAndSet": {unseen("old", "a"), "write", 2, func(s rawStore) error { _, err := s.Upsert(t.Context(), newer); return err },
			unseen("late", "b"), clerksync.Stale, "newer"},
		"ExtrasBeforeCompareAndSet": {unseen("old", "a"), "write", 2, func(s rawStore) error { _, err := s.Upsert(t.Context(), unseen("other", "lost")); return err },
			unseen("new", "b"), clerksync.Updated, "new"},
		"RemovedBeforeRead": {ada(2), "find", 1, func(s rawStore) error { _, err := s.coll.DeleteMany(t.Context(), bson.D{}); return err },
			ada(1), clerksync.Created, "ada 1"},
		"InsertedBeforeInsert": {none, "write", 1, func(s rawStore) error { _, err := s.Upsert(t.Context(), ada(9)); return err },
			ada(2), clerksync.Stale, "ada 9"},
		"InsertedBeforeInsertWithoutVersion": {none, "write", 1, func(s rawStore) error { _, err := s.Upsert(t.Context(), ada(9)); return err },
			noVersion, clerksync.Stale, "ada 9"},
		"SameBeforeInsertWithoutVersion": {none, "write", 1, func(s rawStore) error { _, err := s.Upsert(t.Context(), noVersion); return err },
			noVersion, clerksync.Unchanged, "ada 1"},
		"TombstoneBeforeInsert": {none, "write", 1, func(s rawStore) error { _, err := s.Deactivate(t.Context(), "user_ada", hour(3)); return err },
			ada(2), clerksync.Deactivated, ""},
	} {
		for _, batch := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/Batch=%t", name, batch), func(t *testing.T) {
				base := newStore(t)
				if c.stored != nil {
					upsert(t, base, c.stored, clerksync.Created)
				}
				s := interrupted(t, base, c.command, c.nth, func() {
					if err := c.other(base); err != nil {
						t.Error(err)
					}
				})
				var res clerksync.Result
				var err error
				if batch {
					var results []clerksync.Result
					if results, err = s.UpsertBatch(t.Context(), []*clerksync.User{c.u}); err == nil {
						res = results[0]
					}
				} else {
					res, err = s.Upsert(t.Context(), c.u)
				}
				reached := !batch || c.command != "findAndModify" // a batch asks otherwise
				if err != nil || reached && res.Outcome != c.want {
					t.Errorf("Upsert: %v, %v, want %v", res.Outcome, err, c.want)
				}
				u, err := base.User(t.Context(), "user_ada")
				if err != nil {
					t.Fatal(err)
				}
				if reached && c.record != "" && u.Name != c.record || reached && (c.record == "") != !u.DeletedAt.IsZero() {
					t.Errorf("record: %+v, want name %q", u, c.record)
				}
				if lost, kept := base.fields(t, "user_ada")["lost"]; kept {
					t.Errorf("an extra of the other writer is nobody's now: %v", lost)
				}
				if res.User != nil && !cmp.Equal(res.User, u) {
					t.Errorf("Result.User is not the record: %s", cmp.Diff(u, res.User))
				}
			})
		}
	}
}

func TestRacesOfDeactivate(t *testing.T) {
	for name, erase := range map[string]bool{"Keep": false, "Erase": true} {
		for _, stored := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/Stored=%t", name, stored), func(t *testing.T) {
				base := newStore(t)
				if stored {
					upsert(t, base, ada(1), clerksync.Created)
				}
				armed, once := false, true
				hooked := newHooked(t, base.coll, func(cmd bson.Raw) {
					if armed && once && commandKind(cmd) == "write" {
						once = false
						u := ada(2)
						u.Extra["more"] = "x"
						if _, err := base.Upsert(t.Context(), u); err != nil {
							t.Error(err)
						}
					}
				})
				s := open(t, hooked, &mongostore.Options{EraseOnDelete: erase})
				armed = true
				if _, err := s.Deactivate(t.Context(), "user_ada", hour(3)); err != nil {
					t.Fatal(err)
				}
				u, err := base.User(t.Context(), "user_ada")
				if err != nil || u.DeletedAt.IsZero() || u.IsActive {
					t.Fatalf("record: %+v, %v", u, err)
				}
				if erased := u.Email == "" && u.Extra == nil; erased != erase {
					t.Errorf("erased %t, want %t: %+v", erased, erase, u)
				}
				if more, kept := base.fields(t, "user_ada")["more"]; kept == erase {
					t.Errorf("an extra that came in between: %v", more)
				}
			})
		}
	}
}

// Who loses every race tries until the context ends.
func TestRaceWithoutEnd(t *testing.T) {
	base := newStore(t)
	upsert(t, base, ada(1), clerksync.Created)
	ctx, cancel := context.WithCancel(t.Context())
	armed, n := false, 0
	hooked := newHooked(t, base.coll, func(cmd bson.Raw) {
		if !armed || commandName(cmd) != "update" {
			return
		}
		if n++; n == 8 {
			cancel()
			return
		}
		if err := base.SetFields(t.Context(), "user_ada", map[string]any{"syncedAt": hour(0).Add(time.Duration(n) * time.Second)}); err != nil {
			t.Error(err)
		}
	})
	s := open(t, hooked, nil)
	armed = true
	u := ada(2)
	u.Extra = nil
	if _, err := s.Upsert(ctx, u); !errors.Is(err, context.Canceled) || n != 8 {
		t.Errorf("%v after %d writes, want context.Canceled after 8", err, n)
	}
}

// mortal dials connections that all break at once, for good.
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

// A batch does not ask a server that has gone for each of its users.
func TestBatchOnDyingServer(t *testing.T) {
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
