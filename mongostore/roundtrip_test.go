package mongostore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/mongostore"
)

// step is a call and the commands that it must send.
type step struct {
	name string
	call func() error
	want []string
}

// manyUsers makes a batch part of a backfill in TestRoundTrips, and is its BatchSize.
const manyUsers = 20

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	coll, sent := newMonitored(t, newCollection(t))
	s := open(t, coll, &mongostore.Options{BatchSize: manyUsers})
	s.SetBackfillSize(manyUsers)
	erasing := open(t, coll, &mongostore.Options{EraseOnDelete: true, BatchSize: batchSize})
	steps := slices.Concat(singleSteps(t, s, erasing), batchSteps(t, s))
	for _, step := range steps {
		sent.take()
		if err := step.call(); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		got := sent.names()
		if !slices.Equal(got, step.want) {
			t.Errorf("%s: sends %q, want %q", step.name, got, step.want)
		}
		t.Logf("%-28s %d round trips: %v", step.name, len(got), got)
	}
}

// change returns u after f has changed it.
func change(u *clerksync.User, f func(u *clerksync.User)) *clerksync.User { f(u); return u }

// crowd returns n users.
func crowd(n int, kind string, version int) (us []*clerksync.User) {
	for i := range n {
		us = append(us, person(fmt.Sprint(kind, i), version))
	}
	return us
}

func singleSteps(t *testing.T, s, erasing *mongostore.Store) []step {
	upsert := func(u *clerksync.User, want clerksync.Outcome) func() error {
		return func() error {
			res, err := s.Upsert(t.Context(), u)
			if err == nil && res.Outcome != want {
				err = fmt.Errorf("outcome %v, want %v", res.Outcome, want)
			}
			return err
		}
	}
	deactivate := func(s *mongostore.Store, id string) func() error {
		return func() error { _, err := s.Deactivate(t.Context(), id, hour(9)); return err }
	}
	read := func() error { _, err := s.User(t.Context(), "user_ada"); return err }
	restore := func() error {
		restored, err := s.Restore(t.Context(), "user_ada", hour(10))
		if !restored {
			err = errors.Join(err, errors.New("was not restored"))
		}
		return err
	}
	adaWith := func(n, synced int, name string) *clerksync.User {
		return change(ada(n), func(u *clerksync.User) { u.SyncedAt, u.Name = hour(synced), name })
	}
	noExtras := change(ada(4), func(u *clerksync.User) { u.Extra = nil })
	bob := &clerksync.User{ClerkID: "user_bob"}
	const created, updated, unchanged = clerksync.Created, clerksync.Updated, clerksync.Unchanged
	refused := []string{"update", "findAndModify", "find"} // and why
	rewritten := append(slices.Clone(refused), "update")
	return []step{
		{"create", upsert(ada(1), created), []string{"update"}},
		{"read", read, []string{"find"}},
		{"newer", upsert(ada(3), updated), []string{"update"}},
		{"again", upsert(ada(3), unchanged), []string{"update", "findAndModify"}},
		{"again, seen later", upsert(adaWith(3, 4, "ada 3"), unchanged), []string{"update", "findAndModify"}},
		{"again, seen before", upsert(adaWith(3, 2, "x"), unchanged), refused},
		{"same version, other fields", upsert(adaWith(3, 5, "x"), updated), rewritten},
		{"older", upsert(ada(2), clerksync.Stale), refused},
		{"newer, other extras", upsert(noExtras, updated), rewritten},
		{"delete", deactivate(s, "user_ada"), []string{"update"}},
		{"delete again", deactivate(s, "user_ada"), []string{"update", "find"}},
		{"deleted", upsert(ada(5), clerksync.Deactivated), refused},
		{"delete unknown", deactivate(s, "user_none"), []string{"update"}},
		{"restore", restore, []string{"update"}},
		{"restored", upsert(adaWith(4, 6, "ada 4"), updated), rewritten},
		{"delete once more", deactivate(s, "user_ada"), []string{"update"}},
		{"create without version", upsert(bob, created), []string{"find", "insert"}},
		{"again without version", upsert(bob, unchanged), []string{"find"}},
		{"erase", deactivate(erasing, "user_bob"), []string{"find", "update"}},
		{"erase unknown", deactivate(erasing, "user_cid"), []string{"find", "insert"}},
	}
}

func batchSteps(t *testing.T, s *mongostore.Store) []step {
	// batch wants the last user to have this outcome, and all users if there are no others.
	batch := func(us []*clerksync.User, want clerksync.Outcome, others ...clerksync.Outcome) func() error {
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
	few := func(kind string, version int, odd ...*clerksync.User) []*clerksync.User {
		return append(crowd(manyUsers/2, kind, version), odd...)
	}
	odd := func(version int, f func(u *clerksync.User)) *clerksync.User { return change(person("odd", version), f) }
	later := odd(2, func(u *clerksync.User) { u.SyncedAt = hour(3) })
	renamed := odd(2, func(u *clerksync.User) { u.Name, u.SyncedAt = "x", hour(4) })
	noExtras := odd(5, func(u *clerksync.User) { u.Extra = nil })
	noVersion := &clerksync.User{ClerkID: "user_dot"}
	var ids []string
	for _, u := range crowd(manyUsers, "n", 1) {
		ids = append(ids, u.ClerkID)
	}
	users := func() error { _, err := s.Users(t.Context(), ids); return err }
	stamps := func() error { _, err := s.Stamps(t.Context(), ids); return err }
	twoPages := func() error { _, err := s.Stamps(t.Context(), append(slices.Clone(ids), "user_ada")); return err }
	const created, updated, unchanged = clerksync.Created, clerksync.Updated, clerksync.Unchanged
	const stale, deactivated = clerksync.Stale, clerksync.Deactivated
	read := []string{"update", "find"}
	rewritten := []string{"update", "find", "update"}
	return []step{
		{"new", batch(crowd(manyUsers, "n", 1), created), []string{"update"}},
		{"new after new", batch(crowd(manyUsers, "m", 1), created), []string{"insert"}},
		{"many newer after new", batch(crowd(manyUsers, "n", 2), updated), []string{"insert", "find", "update"}},
		{"newer", batch(few("n", 3), updated), []string{"update"}},
		{"new and newer", batch(append(few("n", 4), few("k", 1)...), created, updated, created), []string{"update"}},
		{"one new", batch(few("n", 5, person("odd", 2)), created, updated), []string{"update"}},
		{"one equal", batch(few("n", 6, person("odd", 2)), unchanged, updated), read},
		{"one equal, seen later", batch(few("n", 7, later), unchanged, updated), rewritten},
		{"one older", batch(few("n", 8, person("odd", 1)), stale, updated), read},
		{"one of equal version", batch(few("n", 9, renamed), updated, updated), rewritten},
		{"one of other extras", batch(few("n", 10, noExtras), updated, updated), rewritten},
		{"one without version", batch(few("n", 11, noVersion), created, updated), []string{"update", "find", "insert"}},
		{"one deleted", batch(few("n", 12, ada(9)), deactivated, updated), read},
		{"equal", batch(few("m", 1), unchanged), read},
		{"equal after equal", batch(few("m", 1), unchanged), []string{"find"}},
		{"older after equal", batch(few("n", 1), stale), []string{"find"}},
		{"newer after older", batch(few("m", 2), updated), []string{"find", "update"}},
		{"newer again", batch(few("m", 3), updated), []string{"update"}},
		{"many new after newer", batch(crowd(manyUsers, "l", 1), created), []string{"update"}},
		{"few newer after new", batch(few("n", 13), updated), []string{"update"}},
		{"users", users, []string{"find"}},
		{"stamps", stamps, []string{"find"}},
		{"two pages", twoPages, []string{"find", "find"}},
	}
}

// TestReconcileRoundTrips counts the commands of whole pages.
func TestReconcileRoundTrips(t *testing.T) {
	t.Parallel()
	clerk, err := fakeclerk.Start(fakeclerk.Config{RateLimit: -1, Population: 2 * batchSize})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = clerk.Close() }()
	coll, sent := newMonitored(t, newCollection(t))
	s := newReconciler(t, coll, clerk)
	run := func(opts clerksync.ReconcileOptions) clerksync.Report {
		t.Helper()
		clerk.ResetCalls()
		sent.take()
		opts.PageSize, opts.RequestsPerSecond, opts.Writers = batchSize, 1e6, 1
		report, err := s.Reconcile(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	writes := func() (n int) {
		for _, cmd := range sent.take() {
			if name := commandName(cmd); slices.Contains([]string{"insert", "update", "delete", "findAndModify"}, name) {
				n++
			}
		}
		return n
	}

	report := run(clerksync.ReconcileOptions{})
	if n := writes(); report.Created.Count != 2*batchSize || n != 2 {
		t.Errorf("a backfill of two pages took %d writes: %+v", n, report)
	}
	if lists := clerk.Calls("GET /v1/users"); lists != 3 { // the last one is empty
		t.Errorf("a backfill of two pages took %d lists", lists)
	}
	report = run(clerksync.ReconcileOptions{})
	if n := writes(); report.Unchanged != 2*batchSize || n != 0 {
		t.Errorf("a run that found all in step took %d writes: %+v", n, report)
	}
	// One of each page has changed. The first run writes one page as if it were of new
	// users still, which the Store learns from.
	for round := range 2 {
		for _, i := range []int{3, batchSize + 3} {
			ban := func(u *fakeclerk.UserObject) { u.Banned = round == 0 }
			if err := clerk.UpdateUser(clerk.PopulationID(i), ban); err != nil {
				t.Fatal(err)
			}
		}
		report = run(clerksync.ReconcileOptions{})
	}
	var names []string
	for _, cmd := range sent.take() {
		switch name := commandName(cmd); name {
		case "getMore", "killCursors": // how many there are is the server's choice
		default:
			names = append(names, name)
		}
	}
	// The instance's check; the pass for records without a Clerk id; a read and a write for each
	// page; the walk over the records.
	want := []string{"find", "find", "find", "update", "find", "update", "find"}
	if report.Updated.Count != 2 || !slices.Equal(names, want) {
		t.Errorf("a run that found one user of each page changed sent %v, want %v: %+v", names, want, report)
	}
}

// TestRoundTripsOfVisits checks that first visits take one Clerk call and two round trips,
// even if many come at once, and that cached ones take none.
func TestRoundTripsOfVisits(t *testing.T) {
	t.Parallel()
	for name, visitors := range map[string]int{"one": 1, "thousand at once": 1000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			coll := newCollection(t)
			server, syncer, sent := newApp(t, coll, nil)
			id := server.CreateUser(fakeclerk.NewUser{Email: "ada@example.com"})
			for _, want := range []struct{ calls, roundTrips int }{{1, 2}, {1, 0}} {
				var all sync.WaitGroup
				for range visitors {
					all.Go(func() {
						if _, err := syncer.User(t.Context(), id); err != nil {
							t.Error(err)
						}
					})
				}
				all.Wait()
				if calls := server.Calls(""); calls != want.calls {
					t.Errorf("%d Clerk calls, want %d", calls, want.calls)
				}
				if got := sent.take(); len(got) != want.roundTrips {
					t.Errorf("%d round trips, want %d: %v", len(got), want.roundTrips, got)
				}
			}
		})
	}
}

// TestRoundTripsOfARaceLost takes one round trip more, because another process was faster.
func TestRoundTripsOfARaceLost(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	server, syncer, sent := newApp(t, coll, nil)
	id := server.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	other := open(t, coll, nil)
	server.SetFault(func(*http.Request) *fakeclerk.Fault { // between the read and the write
		server.SetFault(nil)
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		faster, err := clerksync.New(clerksync.Config{
			Store: other, SecretKey: server.SecretKey(), APIURL: server.APIURL(), HTTPClient: client,
		})
		if err != nil {
			t.Error(err)
			return nil
		}
		if _, err := faster.User(t.Context(), id); err != nil {
			t.Error(err)
		}
		return nil
	})
	u, err := syncer.User(t.Context(), id)
	if err != nil || u.Name != "Ada" {
		t.Fatalf("got %+v, %v", u, err)
	}
	if got := sent.take(); len(got) != 3 {
		t.Errorf("%d round trips, want 3: %v", len(got), got)
	}
}

func TestRoundTripsOfWebhooks(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	server, syncer, sent := newApp(t, coll, nil)
	id := server.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	created, _ := server.User(id)
	_ = server.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String("Countess") })
	updated, _ := server.User(id)
	deleted := json.RawMessage(`{"id":"` + id + `"}`)
	for _, step := range []struct {
		name, typ  string
		data       json.RawMessage
		want       clerksync.Outcome
		roundTrips int
	}{
		{"new", "user.created", created, clerksync.Created, 1},
		{"repeated", "user.created", created, clerksync.Unchanged, 3},
		{"newer", "user.updated", updated, clerksync.Updated, 1},
		{"repeated", "user.updated", updated, clerksync.Unchanged, 3},
		{"stale", "user.created", created, clerksync.Stale, 3},
		{"deletion", "user.deleted", deleted, clerksync.Deactivated, 1},
		{"repeated deletion", "user.deleted", deleted, clerksync.Deactivated, 3},
		{"after the deletion", "user.updated", updated, clerksync.Deactivated, 3},
	} {
		res, err := syncer.Apply(t.Context(), clerksync.Event{Type: step.typ, Timestamp: time.Now(), Data: step.data})
		if err != nil || res.Outcome != step.want {
			t.Errorf("%s: %v, %v; want %v", step.name, res.Outcome, err, step.want)
		}
		n := len(sent.take())
		t.Logf("%s: %d round trips", step.name, n)
		if n > step.roundTrips {
			t.Errorf("%s: %d round trips, want at most %d", step.name, n, step.roundTrips)
		}
	}
}

// TestRoundTripsOfAConflict checks that a conflict in a batch costs commands for its user only.
func TestRoundTripsOfAConflict(t *testing.T) {
	t.Parallel()
	base := newUniqueStore(t, "email")
	upsert(t, base, ada(1), clerksync.Created)
	coll, sent := newMonitored(t, base.coll)
	s := open(t, coll, &mongostore.Options{AllowUnique: []string{"email"}, BatchSize: batchSize})
	const n = 10
	var us []*clerksync.User
	for i := range n {
		us = append(us, person(fmt.Sprint("n", i), 1))
	}
	us[n-1].Email = "ada@example.com"
	sent.take()
	_, err := s.UpsertBatch(t.Context(), us)
	var failed *clerksync.BatchError
	if !errors.As(err, &failed) || len(failed.Errs) != 1 {
		t.Fatalf("error %v", err)
	}
	wantConflict(t, failed.Errs[n-1], "email")
	var got []string
	for _, cmd := range sent.take() {
		got = append(got, commandName(cmd))
	}
	if want := []string{
		"update", "find", // all at once, and who was refused
		"insert", "find", // it may have been a race
		"update", "findAndModify", "find", // alone
		"find", "find", // who else has the address, and whether the user is still to be written
	}; !slices.Equal(got, want) {
		t.Errorf("sends %q, want %q", got, want)
	}
}
