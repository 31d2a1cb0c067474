package mongostore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

func TestConflictOnInsert(t *testing.T) {
	t.Parallel()
	s := newUniqueStore(t, "email")
	upsert(t, s, ada(1), clerksync.Created)
	u := person("bob", 1)
	u.Email = "ada@example.com"
	_, err := s.Upsert(t.Context(), u)
	wantConflict(t, err, "email")
	if _, err := s.User(t.Context(), "user_bob"); !errors.Is(err, clerksync.ErrNotFound) {
		t.Errorf("User: %v", err)
	}
	u.ClerkUpdatedAt = time.Time{}
	_, err = s.Upsert(t.Context(), u)
	wantConflict(t, err, "email")
	upsert(t, s, person("bob", 1), clerksync.Created)
}

func TestConflictOnUpdate(t *testing.T) {
	t.Parallel()
	s := newUniqueStore(t, "email")
	upsert(t, s, ada(1), clerksync.Created)
	upsert(t, s, person("bob", 1), clerksync.Created)
	before := s.fields(t, "user_bob")
	u := person("bob", 2)
	u.Email = "ada@example.com"
	_, err := s.Upsert(t.Context(), u)
	wantConflict(t, err, "email")
	u.Extra = nil // which the guarded upsert does not match
	_, err = s.Upsert(t.Context(), u)
	wantConflict(t, err, "email")
	u = person("bob", 1) // at the same version
	u.Email = "ada@example.com"
	_, err = s.Upsert(t.Context(), u)
	wantConflict(t, err, "email")
	if d := cmp.Diff(before, s.fields(t, "user_bob")); d != "" {
		t.Errorf("the record changed:\n%s", d)
	}
}

func TestConflictInBatch(t *testing.T) {
	t.Parallel()
	s := newUniqueStore(t, "email")
	upsert(t, s, ada(1), clerksync.Created)
	upsert(t, s, person("old", 1), clerksync.Created)
	var us []*clerksync.User
	for i := range 10 {
		us = append(us, person(fmt.Sprintf("n%d", i), 1))
	}
	us = append(us, person("old", 2), ada(1))
	us[3].Email = "ada@example.com"
	us[7].Email = "ada@example.com"
	res, err := s.UpsertBatch(t.Context(), us)
	var failed *clerksync.BatchError
	if !errors.As(err, &failed) || len(failed.Errs) != 2 {
		t.Fatalf("error %v", err)
	}
	wantConflict(t, failed.Errs[3], "email")
	wantConflict(t, failed.Errs[7], "email")
	for i, r := range res {
		want := clerksync.Created
		switch i {
		case 3, 7:
			want = 0
		case 10:
			want = clerksync.Updated
		case 11:
			want = clerksync.Unchanged
		}
		if r.Outcome != want {
			t.Errorf("number %d: %v, want %v", i, r.Outcome, want)
		}
	}
}

// TestConflictWithDeletedRecord writes a user who was deleted and has signed up again: the
// deleted record gives the address up.
func TestConflictWithDeletedRecord(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(s rawStore, u *clerksync.User){
		"Insert": func(rawStore, *clerksync.User) {},
		"Update": func(s rawStore, u *clerksync.User) { upsert(t, s, person("new", 1), clerksync.Created) },
		"CompareAndSet": func(s rawStore, u *clerksync.User) {
			upsert(t, s, person("new", 1), clerksync.Created)
			u.Extra = nil
		},
		"NoVersion": func(_ rawStore, u *clerksync.User) { u.ClerkUpdatedAt = time.Time{} },
	} {
		t.Run(name, func(t *testing.T) {
			s := newUniqueStore(t, "email")
			upsert(t, s, ada(1), clerksync.Created)
			if _, err := s.Deactivate(t.Context(), "user_ada", hour(2)); err != nil {
				t.Fatal(err)
			}
			before := s.fields(t, "user_ada")
			u := person("new", 3)
			u.Email = "ada@example.com"
			prepare(s, u)
			res, err := s.Upsert(t.Context(), u)
			if err != nil || res.Outcome != clerksync.Created && res.Outcome != clerksync.Updated {
				t.Fatalf("Upsert: %v, %v", res.Outcome, err)
			}
			if got := s.fields(t, "user_new")["email"]; got != "ada@example.com" {
				t.Errorf("email of the new record: %v", got)
			}
			after := s.fields(t, "user_ada")
			delete(before, "email")
			before["updatedAt"] = after["updatedAt"]
			if d := cmp.Diff(before, after); d != "" {
				t.Errorf("the deleted record lost more than its address:\n%s", d)
			}
		})
	}
}

// TestConflictOnOtherFields uses unique indexes on another field of Clerk's and on a field of Extra.
func TestConflictOnOtherFields(t *testing.T) {
	t.Parallel()
	for field, set := range map[string]func(u *clerksync.User){
		"profile.phoneNumber": func(u *clerksync.User) { u.Profile.PhoneNumber = "+1555000" },
		"username":            func(u *clerksync.User) { u.Extra["username"] = "ada" },
	} {
		t.Run(field, func(t *testing.T) {
			s := newUniqueStore(t, "email", field)
			first, second := ada(1), person("bob", 1)
			set(first)
			set(second)
			upsert(t, s, first, clerksync.Created)
			_, err := s.Upsert(t.Context(), second)
			wantConflict(t, err, field)
			if _, err := s.Deactivate(t.Context(), "user_ada", hour(2)); err != nil {
				t.Fatal(err)
			}
			upsert(t, s, second, clerksync.Created)
		})
	}
}

// TestConflictLeavesTheAppsFields uses a deleted record with a field that no Map wrote: the
// field is the app's.
func TestConflictLeavesTheAppsFields(t *testing.T) {
	t.Parallel()
	s := newUniqueStore(t, "username")
	insert(t, s.coll, bson.D{
		{Key: "clerkId", Value: "user_ada"}, {Key: "username", Value: "ada"}, {Key: "deletedAt", Value: hour(1)},
	})
	u := person("bob", 1)
	u.Extra["username"] = "ada"
	_, err := s.Upsert(t.Context(), u)
	wantHolder(t, err, "username", "") // nobody but a deleted user
	if got := s.fields(t, "user_ada")["username"]; got != "ada" {
		t.Errorf("username: %v", got)
	}
}

// TestConflictOnTwoFields uses an index on two fields, which rejects a record only if another
// one has both of its values.
func TestConflictOnTwoFields(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	createIndex(t, coll, ascending("name", "email"), options.Index().SetUnique(true).SetSparse(true).SetName("both"))
	s := rawStore{open(t, coll, &mongostore.Options{BatchSize: batchSize, AllowUnique: []string{"both"}}), coll}
	namesake := func(id, email string) *clerksync.User {
		u := person(id, 1)
		u.Name, u.Email = "Ada", email
		return u
	}
	for _, id := range []string{"gone", "other", "live"} {
		upsert(t, s, namesake(id, id+"@example.com"), clerksync.Created)
	}
	for _, id := range []string{"user_gone", "user_other"} {
		if _, err := s.Deactivate(t.Context(), id, hour(2)); err != nil {
			t.Fatal(err)
		}
	}
	other, live := s.fields(t, "user_other"), s.fields(t, "user_live")

	upsert(t, s, namesake("new", "gone@example.com"), clerksync.Created)
	if f := s.fields(t, "user_gone"); f["name"] != nil || f["email"] != nil || f["profile"] == nil {
		t.Errorf("the deleted record did not give up the two fields, or more than them: %v", f)
	}
	_, err := s.Upsert(t.Context(), namesake("second", "live@example.com"))
	wantConflict(t, err, "name")
	if d := cmp.Diff(other, s.fields(t, "user_other")); d != "" {
		t.Errorf("a deleted record that has one of the two lost it:\n%s", d)
	}
	if d := cmp.Diff(live, s.fields(t, "user_live")); d != "" {
		t.Errorf("the other record changed:\n%s", d)
	}
}

func inTenant(id, tenant, email string) bson.D {
	return bson.D{{Key: "clerkId", Value: id}, {Key: "tenant", Value: tenant}, {Key: "email", Value: email}}
}

// TestConflictWithinTenant uses an index on a field of the app's and one of Clerk's: two users
// conflict only if their records have the same value in the app's field.
func TestConflictWithinTenant(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(t *testing.T, s rawStore){
		"Update": func(t *testing.T, s rawStore) {
			upsert(t, s, person("bob", 1), clerksync.Created)
			if err := s.SetFields(t.Context(), "user_bob", map[string]any{"tenant": "x"}); err != nil {
				t.Fatal(err)
			}
		},
		"NoVersion": func(t *testing.T, s rawStore) {
			insert(t, s.coll, inTenant("user_bob", "x", "bob@example.com"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			coll := newCollection(t)
			createIndex(t, coll, ascending("tenant", "email"), options.Index().SetUnique(true).SetSparse(true).SetName("both"))
			s := rawStore{open(t, coll, &mongostore.Options{BatchSize: batchSize, AllowUnique: []string{"both"}}), coll}
			for id, tenant := range map[string]string{"ada": "x", "elsewhere": "y"} {
				insert(t, coll, inTenant("user_"+id, tenant, "ada@example.com"))
			}
			prepare(t, s)
			if _, err := s.Deactivate(t.Context(), "user_elsewhere", hour(2)); err != nil {
				t.Fatal(err)
			}
			u := person("bob", 3)
			u.Email = "ada@example.com"
			_, err := s.Upsert(t.Context(), u)
			wantConflict(t, err, "email")
			if got := s.fields(t, "user_elsewhere")["email"]; got != "ada@example.com" {
				t.Errorf("email of the other tenant's deleted record: %v", got)
			}
			if _, err := s.Deactivate(t.Context(), "user_ada", hour(2)); err != nil {
				t.Fatal(err)
			}
			upsert(t, s, u, clerksync.Updated)
			if f := s.fields(t, "user_ada"); f["email"] != nil || f["tenant"] != "x" {
				t.Errorf("the deleted record: %v", f)
			}
			if got := s.fields(t, "user_elsewhere")["email"]; got != "ada@example.com" {
				t.Errorf("email of the other tenant's deleted record: %v", got)
			}
		})
	}
}

// TestConflictOfARelease uses a deleted record that, without its address, would conflict with
// another record. On servers that see it so, that is a conflict like any other.
func TestConflictOfARelease(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	createIndex(t, coll, ascending("tenant", "email"), options.Index().SetUnique(true).SetSparse(true).SetName("both"))
	s := open(t, coll, &mongostore.Options{BatchSize: batchSize, AllowUnique: []string{"both"}})
	insert(t, coll, bson.D{{Key: "clerkId", Value: "user_bob"}, {Key: "tenant", Value: "x"}})
	insert(t, coll, inTenant("user_ada", "x", "ada@example.com"))
	if _, err := s.Deactivate(t.Context(), "user_ada", hour(2)); err != nil {
		t.Fatal(err)
	}
	u := person("bob", 3)
	u.Email = "ada@example.com"
	if _, err := s.Upsert(t.Context(), u); err != nil {
		wantConflict(t, err, "email")
	}
}

// TestConflictWithFirstFields uses an index on role, which is written to new records only.
func TestConflictWithFirstFields(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	createIndex(t, coll, ascending("role", "email"), options.Index().SetUnique(true).SetSparse(true).SetName("both"))
	s := rawStore{open(t, coll, &mongostore.Options{BatchSize: batchSize, AllowUnique: []string{"both"}}), coll}
	upsert(t, s, ada(1), clerksync.Created)
	u := person("bob", 1)
	u.Email = "ada@example.com"
	_, err := s.Upsert(t.Context(), u)
	wantConflict(t, err, "email")
	if _, err := s.Deactivate(t.Context(), "user_ada", hour(2)); err != nil {
		t.Fatal(err)
	}
	upsert(t, s, u, clerksync.Created)
}

// TestConflictWithoutRival uses a unique index on two fields that clerksync does not write.
func TestConflictWithoutRival(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	createIndex(t, coll, ascending("tenant", "team"), options.Index().SetUnique(true).SetName("theirs"))
	s := open(t, coll, &mongostore.Options{AllowUnique: []string{"theirs"}})
	insert(t, coll, bson.D{{Key: "clerkId", Value: "user_ada"}, {Key: "tenant", Value: nil}, {Key: "team", Value: nil}})
	_, err := s.Upsert(t.Context(), person("bob", 1))
	_, err2 := s.Deactivate(t.Context(), "user_cid", hour(1))
	if err == nil && err2 == nil {
		t.Log("the server takes an index on several fields for sparse")
		return
	}
	for _, err := range []error{err, err2} {
		if conflict := (*clerksync.ConflictError)(nil); !errors.As(err, &conflict) {
			t.Errorf("error %v, want a ConflictError", err)
		}
	}
}

// TestConcurrentRemakes lets many users take over a deleted user's address at once: one
// gets it.
func TestConcurrentRemakes(t *testing.T) {
	t.Parallel()
	workers := count(8, 16)
	for round := range *rounds {
		s := newUniqueStore(t, "email")
		upsert(t, s, ada(1), clerksync.Created)
		if _, err := s.Deactivate(t.Context(), "user_ada", hour(2)); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var created, conflicts atomic.Int64
		for i := range workers {
			wg.Go(func() {
				u := person(fmt.Sprintf("n%d", i), 3)
				u.Email = "ada@example.com"
				res, err := s.Upsert(t.Context(), u)
				conflict := (*clerksync.ConflictError)(nil)
				switch {
				case errors.As(err, &conflict) && conflict.Field == "email":
					conflicts.Add(1)
				case err == nil && res.Outcome == clerksync.Created:
					created.Add(1)
				default:
					t.Errorf("%v, %v", res.Outcome, err)
				}
			})
		}
		wg.Wait()
		if created.Load() != 1 || conflicts.Load() != int64(workers-1) {
			t.Errorf("round %d: %d created, %d conflicts", round, created.Load(), conflicts.Load())
		}
	}
}

// TestReleasedByAnotherCall lets another call take the address from the deleted record
// between the read that finds it there and the write that releases it.
func TestReleasedByAnotherCall(t *testing.T) {
	t.Parallel()
	remade := func(name string) *clerksync.User {
		u := person(name, 3)
		u.Email = "ada@example.com"
		return u
	}
	for name, c := range map[string]struct {
		other    func(ctx context.Context, s rawStore) error
		want     clerksync.Outcome
		conflict bool
	}{
		"WhichWritesTheSameUser": {
			other: func(ctx context.Context, s rawStore) error { _, err := s.Upsert(ctx, remade("again")); return err },
			want:  clerksync.Unchanged,
		},
		"WhichDies": {
			other: func(ctx context.Context, s rawStore) error {
				return s.SetFields(ctx, "user_ada", map[string]any{"email": nil})
			},
			want: clerksync.Created,
		},
		"WhichWritesAnotherUser": {
			other:    func(ctx context.Context, s rawStore) error { _, err := s.Upsert(ctx, remade("other")); return err },
			conflict: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			base := newUniqueStore(t, "email")
			upsert(t, base, ada(1), clerksync.Created)
			if _, err := base.Deactivate(t.Context(), "user_ada", hour(2)); err != nil {
				t.Fatal(err)
			}
			releases := 0
			s := open(t, newHooked(t, base.coll, func(cmd bson.Raw) {
				if !isRelease(cmd) {
					return
				}
				if releases++; releases == 1 {
					if err := c.other(t.Context(), base); err != nil {
						t.Error(err)
					}
				}
			}), &mongostore.Options{BatchSize: batchSize, AllowUnique: []string{"email"}})
			res, err := s.Upsert(t.Context(), remade("again"))
			if releases == 0 {
				t.Fatal("nothing was released")
			}
			if c.conflict {
				wantConflict(t, err, "email")
				return
			}
			if err != nil || res.Outcome != c.want {
				t.Errorf("Upsert: %v, %v, want %v", res.Outcome, err, c.want)
			}
			if got := base.fields(t, "user_again")["email"]; got != "ada@example.com" {
				t.Errorf("email of the new record: %v", got)
			}
		})
	}
}

func TestErrorsGiveNothingAway(t *testing.T) {
	t.Parallel()
	s := newUniqueStore(t, "email")
	upsert(t, s, ada(1), clerksync.Created)
	u := person("bob", 1)
	u.Email = "ada@example.com"
	large := ada(2)
	large.Extra = map[string]any{"email2": strings.Repeat("secret@example.com ", 1<<20)}
	bad := ada(2)
	bad.Extra = map[string]any{"a.b": "secret@example.com"}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	gone := newClient(t, func(o *options.ClientOptions) {
		o.SetHosts([]string{"127.0.0.1:1"}).SetServerSelectionTimeout(1)
	}).Database("x").Collection("users")

	errs := make(map[string]error)
	_, errs["conflict"] = s.Upsert(t.Context(), u)
	_, errs["conflict in a batch"] = s.UpsertBatch(t.Context(), []*clerksync.User{u})
	_, errs["invalid"] = s.Upsert(t.Context(), bad)
	_, errs["cancelled"] = s.Upsert(cancelled, u)
	_, errs["unreachable"] = mongostore.Open(t.Context(), gone, nil)
	_, errs["not found"] = s.User(t.Context(), "user_nobody")
	if os.Getenv("MONGODB_URI") != "" { // the embedded database takes it, in ten seconds
		_, errs["too large"] = s.Upsert(t.Context(), large)
		if err := errs["too large"]; !errors.Is(err, clerksync.ErrRejected) {
			t.Errorf("a record of 19 MB: %v, want ErrRejected", err)
		}
	}
	for name, err := range errs {
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		t.Logf("%s: %v", name, err)
		if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, "@") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func TestErrorsOfContext(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	cause := errors.New("the app shuts down")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	calls := map[string]func() error{
		"User":        func() error { _, err := s.User(ctx, "user_ada"); return err },
		"Upsert":      func() error { _, err := s.Upsert(ctx, ada(1)); return err },
		"Deactivate":  func() error { _, err := s.Deactivate(ctx, "user_ada", hour(1)); return err },
		"Restore":     func() error { _, err := s.Restore(ctx, "user_ada", hour(1)); return err },
		"UpsertBatch": func() error { _, err := s.UpsertBatch(ctx, []*clerksync.User{ada(1)}); return err },
		"Users":       func() error { _, err := s.Users(ctx, []string{"user_ada"}); return err },
		"Stamps":      func() error { _, err := s.Stamps(ctx, nil); return err },
		"Undeleted": func() (err error) {
			for _, err = range s.Undeleted(ctx) {
			}
			return err
		},
		"UnlinkedEmails": func() (err error) {
			for _, err = range s.UnlinkedEmails(ctx) {
			}
			return err
		},
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, context.Canceled) || !errors.Is(err, cause) {
			t.Errorf("%s: %v, want both context.Canceled and its cause", name, err)
		}
	}
	if n, err := s.coll.CountDocuments(t.Context(), bson.D{}); err != nil || n != 0 {
		t.Errorf("%d documents, %v", n, err)
	}
}

// TestErrorsOfContextUnderWay ends the context just before a command is sent.
func TestErrorsOfContextUnderWay(t *testing.T) {
	t.Parallel()
	base := newCollection(t)
	open(t, base, nil)
	for name, call := range map[string]func(ctx context.Context, s *mongostore.Store) error{
		"User":   func(ctx context.Context, s *mongostore.Store) error { _, err := s.User(ctx, "user_ada"); return err },
		"Upsert": func(ctx context.Context, s *mongostore.Store) error { _, err := s.Upsert(ctx, ada(1)); return err },
		"Deactivate": func(ctx context.Context, s *mongostore.Store) error {
			_, err := s.Deactivate(ctx, "user_bob", hour(1))
			return err
		},
		"UpsertBatch": func(ctx context.Context, s *mongostore.Store) error {
			_, err := s.UpsertBatch(ctx, []*clerksync.User{person("cid", 1), person("dot", 1)})
			return err
		},
		"Restore": func(ctx context.Context, s *mongostore.Store) error {
			_, err := s.Restore(ctx, "user_bob", hour(1))
			return err
		},
		"Users": func(ctx context.Context, s *mongostore.Store) error {
			_, err := s.Users(ctx, []string{"user_ada"})
			return err
		},
		"Undeleted": func(ctx context.Context, s *mongostore.Store) (err error) {
			for _, err = range s.Undeleted(ctx) {
			}
			return err
		},
		"UnlinkedEmails": func(ctx context.Context, s *mongostore.Store) (err error) {
			for _, err = range s.UnlinkedEmails(ctx) {
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			armed := false
			s := open(t, newHooked(t, base, func(bson.Raw) {
				if armed {
					cancel()
				}
			}), nil)
			armed = true
			if err := call(ctx, s); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want context.Canceled", err)
			}
		})
	}
}
