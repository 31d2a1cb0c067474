package mongostore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/mongostore"
)

// wantHolder checks a ConflictError and who has the value.
func wantHolder(t *testing.T, err error, field, holder string) {
	t.Helper()
	wantConflict(t, err, field)
	if conflict := (*clerksync.ConflictError)(nil); errors.As(err, &conflict) && (conflict.Holder != holder || conflict.Type != "") {
		t.Errorf("holder %q, type %q, want %q", conflict.Holder, conflict.Type, holder)
	}
}

// TestConflictHolder offers bob values that another record has.
func TestConflictHolder(t *testing.T) {
	t.Parallel()
	taken := "ada@example.com"
	for name, c := range map[string]struct {
		other  bson.D // besides the address
		holder string
	}{
		"User":            {bson.D{{Key: "clerkId", Value: "user_ada"}, {Key: "syncedAt", Value: hour(1)}}, "user_ada"},
		"NeverWritten":    {bson.D{{Key: "clerkId", Value: "user_ada"}}, "user_ada"},
		"OddDeletedAt":    {bson.D{{Key: "clerkId", Value: "user_ada"}, {Key: "deletedAt", Value: "no"}}, "user_ada"},
		"NoClerkID":       {bson.D{{Key: "note", Value: "the app's"}}, ""},
		"NullClerkID":     {bson.D{{Key: "clerkId", Value: nil}}, ""},
		"NumberAsClerkID": {bson.D{{Key: "clerkId", Value: 7}}, ""},
		// Soft deletion by the app, before Clerk: not clerksync's to change.
		"DeletedByTheApp":            {bson.D{{Key: "note", Value: "the app's"}, {Key: "deletedAt", Value: hour(1)}}, ""},
		"DeletedByTheAppWithClerkID": {bson.D{{Key: "clerkId", Value: "user_ada"}, {Key: "deletedAt", Value: hour(1)}}, ""},
		"DeletedByTheAppInactive": {bson.D{
			{Key: "clerkId", Value: "user_ada"}, {Key: "deletedAt", Value: hour(1)}, {Key: "isActive", Value: false},
		}, ""},
		"DeletedByTheAppTimestamps": {bson.D{
			{Key: "clerkId", Value: "user_ada"}, {Key: "deletedAt", Value: hour(1)}, {Key: "updatedAt", Value: hour(1)},
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newUniqueStore(t, "email")
			insert(t, s.coll, append(c.other, bson.E{Key: "email", Value: taken}))
			u := person("bob", 1)
			u.Email = taken
			_, err := s.Upsert(t.Context(), u)
			wantHolder(t, err, "email", c.holder)
			_, err = s.UpsertBatch(t.Context(), []*clerksync.User{person("cid", 1), u})
			failed := &clerksync.BatchError{}
			if !errors.As(err, &failed) || len(failed.Errs) != 1 {
				t.Fatalf("UpsertBatch: %v", err)
			}
			wantHolder(t, failed.Errs[1], "email", c.holder)
			upsert(t, s, person("bob", 1), clerksync.Created)
			u.ClerkUpdatedAt = hour(2)
			_, err = s.Upsert(t.Context(), u)
			wantHolder(t, err, "email", c.holder)
			if n, err := s.coll.CountDocuments(t.Context(), bson.D{{Key: "email", Value: taken}}); n != 1 || err != nil {
				t.Errorf("%d records have the address, %v", n, err)
			}
		})
	}
}

// TestReleaseOfAGhost has records that the app made, whose users Clerk has deleted before any
// sync. Once clerksync has marked them deleted, they give up the address.
func TestReleaseOfAGhost(t *testing.T) {
	t.Parallel()
	s := newUniqueStore(t, "email")
	insert(t, s.coll, bson.D{{Key: "clerkId", Value: "user_ghost"}, {Key: "email", Value: "ada@example.com"}, {Key: "plan", Value: "pro"}})
	deactivate(t, s, "user_ghost", hour(1))
	upsert(t, s, ada(2), clerksync.Created)
	if f := s.fields(t, "user_ghost"); f["email"] != nil || f["plan"] != "pro" || f["deletedAt"] != hour(1) {
		t.Errorf("the ghost: %v", f)
	}
}

// TestConflictHolderOfOtherFields uses indexes on other fields, arrays among them. The index on
// an array refuses a record that shares one element.
func TestConflictHolderOfOtherFields(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		index, field string
		set          func(u *clerksync.User, first bool)
	}{
		"Phone": {"profile.phoneNumber", "profile.phoneNumber", func(u *clerksync.User, _ bool) { u.Profile.PhoneNumber = "+15550" }},
		"Extra": {"badge", "badge", func(u *clerksync.User, _ bool) { u.Extra["badge"] = int64(7) }},
		"Array": {"tags", "tags", func(u *clerksync.User, first bool) {
			u.Extra["tags"] = []any{"a", "b"}
			if !first {
				u.Extra["tags"] = []any{"c", "b"}
			}
		}},
		"Nested": {"address.code", "address", func(u *clerksync.User, first bool) {
			u.Extra["address"] = map[string]any{"code": "X1", "first": first}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newUniqueStore(t, c.index)
			ada, bob := ada(1), person("bob", 1)
			c.set(ada, true)
			c.set(bob, false)
			upsert(t, s, ada, clerksync.Created)
			_, err := s.Upsert(t.Context(), bob)
			if err == nil {
				t.Log("the server does not index the elements of an array")
				return
			}
			wantHolder(t, err, c.field, "user_ada")
			deactivate(t, s, "user_ada", hour(2))
			upsert(t, s, bob, clerksync.Created)
			f := s.fields(t, "user_ada")
			if f["name"] == nil || f["email"] == nil || f["plan"] == nil {
				t.Errorf("the deleted record lost more than it had to: %v", f)
			}
		})
	}
}

// TestConflictInAPartialIndex uses an index on the addresses of active users only. A suspended
// user and a deleted one are not in it, so they neither hold nor give up an address.
func TestConflictInAPartialIndex(t *testing.T) {
	t.Parallel()
	if !partialIndexes() {
		t.Log("the server has no partial indexes")
		return
	}
	coll := newCollection(t)
	createIndex(t, coll, ascending("email"), options.Index().SetUnique(true).
		SetPartialFilterExpression(bson.D{{Key: "isActive", Value: true}}))
	s := rawStore{open(t, coll, nil), coll}
	same := func(id string) *clerksync.User {
		u := person(id, 3)
		u.Email = "ada@example.com"
		return u
	}
	upsert(t, s, same("suspended"), clerksync.Created)
	if err := s.SetFields(t.Context(), "user_suspended", map[string]any{"isActive": false}); err != nil {
		t.Fatal(err)
	}
	upsert(t, s, same("gone"), clerksync.Created)
	deactivate(t, s, "user_gone", hour(4))
	upsert(t, s, same("active"), clerksync.Created)
	_, err := s.Upsert(t.Context(), same("late"))
	wantHolder(t, err, "email", "user_active")
	for _, id := range []string{"user_suspended", "user_gone"} {
		if got := s.fields(t, id)["email"]; got != "ada@example.com" {
			t.Errorf("%s: email %v", id, got)
		}
	}
}

// TestConflictInACollatedIndex plays MongoDB with a unique index that ignores case. The test
// servers do not have one.
func TestConflictInACollatedIndex(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		id      string
		deleted bool
		holder  string
	}{
		"Deleted":   {"user_gone", true, ""},
		"Live":      {"user_live", false, "user_live"},
		"SameIDBut": {"user_BOB", false, "user_BOB"}, // the lookup ignores case
	} {
		t.Run(name, func(t *testing.T) {
			base := newStore(t)
			holder := person("gone", 1)
			holder.ClerkID, holder.Email = c.id, "Ada@Example.COM"
			upsert(t, base, holder, clerksync.Created)
			if c.deleted {
				deactivate(t, base, c.id, hour(2))
			}
			coll, f := newFront(t, base.coll, replicaSet, nil)
			ci := &caseless{t: t, coll: base.coll}
			f.play(ci.play)
			s := open(t, coll, nil)
			u := person("bob", 3)
			u.Email = "ada@example.com"
			res, err := s.Upsert(t.Context(), u)
			if ci.lookups == 0 {
				t.Error("nobody looked for the holder as the index compares")
			}
			if c.holder != "" {
				wantHolder(t, err, "email", c.holder)
				return
			}
			if err != nil || res.Outcome != clerksync.Created {
				t.Errorf("Upsert: %v, %v", res.Outcome, err)
			}
			if f := base.fields(t, c.id); f["email"] != nil || f["name"] == nil {
				t.Errorf("the deleted record: %v", f)
			}
		})
	}
}

// caseless plays a unique index on email with a collation that ignores case.
type caseless struct {
	t       *testing.T
	coll    *mongo.Collection
	lookups int
}

var ignoringCase = bson.D{{Key: "locale", Value: "en"}, {Key: "strength", Value: 2}, {Key: "version", Value: "57.1"}}

func (c *caseless) play(_ string, cmd bson.Raw) reaction {
	cursor := func(batch any) reaction {
		return reaction{answer: bson.D{{Key: "ok", Value: 1.0}, {Key: "cursor", Value: bson.D{
			{Key: "id", Value: int64(0)}, {Key: "ns", Value: "app.users"}, {Key: "firstBatch", Value: batch},
		}}}}
	}
	switch commandName(cmd) {
	case "listIndexes":
		return cursor(bson.A{
			bson.D{{Key: "key", Value: ascending("clerkId")}, {Key: "name", Value: "clerkId_1"}, {Key: "unique", Value: true}},
			bson.D{
				{Key: "key", Value: ascending("email")}, {Key: "name", Value: "email_1"}, {Key: "unique", Value: true},
				{Key: "sparse", Value: true}, {Key: "collation", Value: ignoringCase},
			},
		})
	case "find":
		if strength, _ := cmd.Lookup("collation", "strength").AsInt64OK(); strength == 2 {
			c.lookups++
			return cursor(c.having(cmd.Lookup("filter", "email", "$eq").StringValue()))
		}
	case "update":
		email, isText := cmd.Lookup("updates", "0", "u", "$set", "email").StringValueOK()
		id, _ := cmd.Lookup("updates", "0", "q", "clerkId").StringValueOK()
		return c.write(id, email, isText)
	case "insert":
		email, isText := cmd.Lookup("documents", "0", "email").StringValueOK()
		id, _ := cmd.Lookup("documents", "0", "clerkId").StringValueOK()
		return c.write(id, email, isText)
	}
	return reaction{}
}

// write refuses an address that another record has, as MongoDB does.
func (c *caseless) write(id, email string, isText bool) reaction {
	isOther := func(raw bson.Raw) bool { return raw.Lookup("clerkId").StringValue() != id }
	if !isText || !slices.ContainsFunc(c.having(email), isOther) {
		return reaction{}
	}
	return reaction{answer: bson.D{{Key: "ok", Value: 1.0}, {Key: "n", Value: 0}, {Key: "writeErrors", Value: bson.A{bson.D{
		{Key: "index", Value: 0}, {Key: "code", Value: 11000}, {Key: "errmsg", Value: "E11000"},
		{Key: "keyPattern", Value: ascending("email")}, {Key: "collation", Value: ignoringCase},
	}}}}}
}

func (c *caseless) having(email string) (found []bson.Raw) {
	cursor, err := c.coll.Find(c.t.Context(), exists("email"))
	if err != nil {
		c.t.Error(err)
		return nil
	}
	var all []bson.Raw
	if err := cursor.All(c.t.Context(), &all); err != nil {
		c.t.Error(err)
	}
	for _, raw := range all {
		if text, _ := raw.Lookup("email").StringValueOK(); strings.EqualFold(text, email) {
			found = append(found, raw)
		}
	}
	return found
}

// TestReleaseInVain interrupts an Upsert that needs what deleted records hold, before each of
// its commands, so that it does not write its user after all. The deleted records keep what
// they had.
func TestReleaseInVain(t *testing.T) {
	t.Parallel()
	newer := func(t *testing.T, s rawStore) {
		u := change(person("bob", 9), func(u *clerksync.User) { u.Email = "new@example.com" })
		if _, err := s.Upsert(t.Context(), u); err != nil {
			t.Error(err)
		}
	}
	remove := func(t *testing.T, s rawStore) { deactivate(t, s.Store, "user_bob", hour(9)) }
	for name, c := range map[string]vainRelease{
		"StaleInsert":   {other: newer, want: clerksync.Stale},
		"StaleUpdate":   {before: true, other: newer, want: clerksync.Stale},
		"DeletedInsert": {other: remove, want: clerksync.Deactivated},
		"DeletedUpdate": {before: true, other: remove, want: clerksync.Deactivated},
	} {
		t.Run(name, func(t *testing.T) {
			n := 1
			for c.interrupt(t, n) {
				n++
			}
			if n < 6 {
				t.Errorf("only %d interruptions", n-1)
			}
		})
	}
}

type vainRelease struct {
	before bool // bob has a record
	other  func(t *testing.T, s rawStore)
	want   clerksync.Outcome
}

// interrupt runs other before the nth command of the call. It reports false if the call
// sends fewer.
func (c vainRelease) interrupt(t *testing.T, n int) bool {
	t.Helper()
	s := newUniqueStore(t, "email")
	upsert(t, s, ada(1), clerksync.Created)
	deactivate(t, s.Store, "user_ada", hour(2))
	if c.before {
		upsert(t, s, person("bob", 1), clerksync.Created)
	}
	before := s.fields(t, "user_ada")
	commands, armed := 0, false
	hooked := newHooked(t, s.coll, func(bson.Raw) {
		if !armed {
			return
		}
		if commands++; commands == n {
			c.other(t, s)
		}
	})
	calling := open(t, hooked, &mongostore.Options{BatchSize: batchSize, AllowUnique: []string{"email"}})
	armed = true
	u := change(person("bob", 3), func(u *clerksync.User) { u.Email = "ada@example.com" })
	res, err := calling.Upsert(t.Context(), u)
	armed = false
	switch res.Outcome {
	case clerksync.Created, clerksync.Updated: // the call had written its user before
	case c.want:
		wantSameTombstone(t, before, s.fields(t, "user_ada"))
	default:
		t.Errorf("before command %d: %v, %v, want %v", n, res.Outcome, err, c.want)
	}
	return commands >= n
}

func wantSameTombstone(t *testing.T, before, after map[string]any) {
	t.Helper()
	before["updatedAt"] = after["updatedAt"]
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("the deleted record changed:\n%s", d)
	}
}

// TestReleaseBeforeAConflict has two unique indexes. A deleted user holds the address, and
// keeps it, because a live one holds the badge.
func TestReleaseBeforeAConflict(t *testing.T) {
	t.Parallel()
	s := newUniqueStore(t, "email", "badge")
	withBadge := func(u *clerksync.User) { u.Extra["badge"] = "b" }
	upsert(t, s, ada(1), clerksync.Created)
	deactivate(t, s.Store, "user_ada", hour(2))
	upsert(t, s, change(person("live", 1), withBadge), clerksync.Created)
	before := s.fields(t, "user_ada")
	u := change(person("bob", 3), withBadge)
	u.Email = "ada@example.com"
	_, err := s.Upsert(t.Context(), u)
	wantHolder(t, err, "badge", "user_live")
	wantSameTombstone(t, before, s.fields(t, "user_ada"))
}

// moved is an app with unique indexes on addresses and numbers, and users who exchange them.
type moved struct {
	coll   *mongo.Collection
	store  rawStore
	clerk  *fakeclerk.Server
	syncer *clerksync.Syncer
	ids    []string
}

// newMoved makes n users, each with a record. The addresses are 0@example.com, 1@example.com …
func newMoved(t *testing.T, n int) *moved {
	t.Helper()
	m := &moved{coll: newCollection(t)}
	m.clerk, _, _ = newApp(t, m.coll, nil)
	unique := []string{"email", "profile.phoneNumber"}
	for _, field := range unique {
		createIndex(t, m.coll, ascending(field), options.Index().SetUnique(true).SetSparse(true).SetName(field))
	}
	// The embedded database does not list them as sparse.
	m.store = rawStore{open(t, m.coll, &mongostore.Options{BatchSize: batchSize, AllowUnique: unique}), m.coll}
	m.syncer = newSyncer(t, m.clerk, m.store, nil)
	for i := range n {
		m.join(t, i)
		m.visit(t, m.ids[i])
	}
	return m
}

func newSyncer(
	t *testing.T, server *fakeclerk.Server, store clerksync.Store, mapping func(*clerk.User, *clerksync.User) error,
) *clerksync.Syncer {
	t.Helper()
	s, err := clerksync.New(clerksync.Config{
		Store: store, SecretKey: server.SecretKey(), APIURL: server.APIURL(), Map: mapping,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func (m *moved) join(t *testing.T, i int) {
	t.Helper()
	m.ids = append(m.ids, m.clerk.CreateUser(fakeclerk.NewUser{
		FirstName: "Ada", Email: fmt.Sprintf("%d@example.com", i), Phone: fmt.Sprintf("+1555010%04d", i),
	}))
}

// give changes users in Clerk: user i gets the address and the number of user of[i].
func (m *moved) give(t *testing.T, of ...int) {
	t.Helper()
	for i, from := range of {
		m.update(t, m.ids[i], func(u *fakeclerk.UserObject) {
			u.EmailAddresses[0].EmailAddress = fmt.Sprintf("%d@example.com", from)
			u.PhoneNumbers[0].PhoneNumber = fmt.Sprintf("+1555010%04d", from)
		})
	}
}

func (m *moved) update(t *testing.T, id string, f func(*fakeclerk.UserObject)) {
	t.Helper()
	if err := m.clerk.UpdateUser(id, f); err != nil {
		t.Fatal(err)
	}
}

func (m *moved) visit(t *testing.T, id string) *clerksync.User {
	t.Helper()
	u, err := m.syncer.User(t.Context(), id)
	if err != nil {
		t.Fatalf("visit of %s: %v", id, err)
	}
	return u
}

func (m *moved) deliver(t *testing.T, id string) error {
	t.Helper()
	raw, _ := m.clerk.User(id)
	_, err := m.syncer.Apply(t.Context(), clerksync.Event{Type: "user.updated", Timestamp: time.Now(), Data: raw})
	return err
}

// wantOf checks that user i has the address and the number of user of[i], in Store and cache.
func (m *moved) wantOf(t *testing.T, of ...int) {
	t.Helper()
	for i, from := range of {
		u := m.visit(t, m.ids[i])
		got := [2]string{u.Email, u.Profile.PhoneNumber}
		want := [2]string{fmt.Sprintf("%d@example.com", from), fmt.Sprintf("+1555010%04d", from)}
		if got != want || !u.EmailVerified || !u.PhoneVerified {
			t.Errorf("user %d has %v, want %v: %+v", i, got, want, u)
		}
	}
}

// TestMovedValues lets users exchange addresses and numbers whose events are lost, under unique
// indexes of the database. One event, Sync, visit or Reconcile brings all of them in step.
func TestMovedValues(t *testing.T) {
	t.Parallel()
	for name, of := range map[string][]int{"exchanged": {1, 0}, "rotated": {1, 2, 0}} {
		for path, arrives := range map[string]func(*testing.T, *moved){
			"webhook": func(t *testing.T, m *moved) {
				if err := m.deliver(t, m.ids[0]); err != nil {
					t.Error(err)
				}
			},
			"Sync": func(t *testing.T, m *moved) {
				if _, err := m.syncer.Sync(t.Context(), m.ids[0]); err != nil {
					t.Error(err)
				}
			},
			"Reconcile": func(t *testing.T, m *moved) {
				if report, err := m.syncer.Reconcile(t.Context(), clerksync.ReconcileOptions{}); err != nil {
					t.Errorf("%+v, %v", report, err)
				}
			},
		} {
			t.Run(name+", "+path, func(t *testing.T) {
				t.Parallel()
				m := newMoved(t, len(of))
				m.give(t, of...)
				arrives(t, m)
				m.wantOf(t, of...)
			})
		}
	}
}

// TestValuesFreedByALostDeletion is about a new account with the address and the number of one that
// was deleted, while the event is lost.
func TestValuesFreedByALostDeletion(t *testing.T) {
	t.Parallel()
	m := newMoved(t, 2)
	if err := m.clerk.DeleteUser(m.ids[1]); err != nil {
		t.Fatal(err)
	}
	s := m.store
	before := s.fields(t, m.ids[1])
	m.join(t, 1)
	m.visit(t, m.ids[2])
	m.ids = []string{m.ids[0], m.ids[2], m.ids[1]}
	m.wantOf(t, 0, 1)
	after := s.fields(t, m.ids[2])
	delete(before, "email")
	delete(before["profile"].(map[string]any), "phoneNumber")
	before["emailVerified"], before["phoneVerified"], before["updatedAt"] = false, false, after["updatedAt"]
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("the deleted user's record lost more (- want, + got):\n%s", d)
	}
}

// TestBanInSpiteOfAConflict bans a user whose address another record has, in Clerk too.
func TestBanInSpiteOfAConflict(t *testing.T) {
	t.Parallel()
	m := newMoved(t, 2)
	late, _ := m.clerk.User(m.ids[0])
	m.give(t, 1, 1)
	if err := m.clerk.BanUser(m.ids[0]); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{"the event", "the same event", "a late event"} {
		if from == "a late event" {
			_, err := m.syncer.Apply(t.Context(), clerksync.Event{Type: "user.updated", Timestamp: time.Now(), Data: late})
			if err != nil {
				t.Error(err)
			}
		} else if err := m.deliver(t, m.ids[0]); err != nil {
			t.Error(err)
		}
		if _, err := m.syncer.User(t.Context(), m.ids[0]); !errors.Is(err, clerksync.ErrUserInactive) {
			t.Errorf("after %s a visit gets %v", from, err)
		}
	}
	m.ids = m.ids[1:]
	m.wantOf(t, 1) // the holder
}

// TestBanInSpiteOfMetadata has Map copy metadata that the user writes.
func TestBanInSpiteOfMetadata(t *testing.T) {
	t.Parallel()
	for name, metadata := range map[string]string{
		"dot": `{"a.b":1}`, "dollar": `{"$set":{"banned":false}}`, "empty": `{"":1}`, "ours": `{"banned":false,"deletedAt":null}`,
		"nested": `{"a":{"b.c":{"$d":1},"":2}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			coll := newCollection(t)
			server, _, _ := newApp(t, coll, nil)
			syncer := newSyncer(t, server, open(t, coll, nil), func(cu *clerk.User, u *clerksync.User) error {
				return json.Unmarshal(cu.UnsafeMetadata, &u.Extra)
			})
			id := server.CreateUser(fakeclerk.NewUser{FirstName: "Ada", UnsafeMetadata: map[string]any{"plan": "pro"}})
			if _, err := syncer.User(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			m := &moved{coll: coll, clerk: server, syncer: syncer}
			m.update(t, id, func(u *fakeclerk.UserObject) {
				u.UnsafeMetadata, u.FirstName, u.Banned = json.RawMessage(metadata), clerk.String("Augusta"), true
			})
			if err := m.deliver(t, id); err != nil {
				t.Error(err)
			}
			if _, err := syncer.User(t.Context(), id); !errors.Is(err, clerksync.ErrUserInactive) {
				t.Errorf("a visit gets %v", err)
			}
			stored, err := open(t, coll, nil).User(t.Context(), id)
			if err != nil || !stored.Banned || stored.Name != "Augusta" {
				t.Errorf("the record is %+v, %v", stored, err)
			}
		})
	}
}
