package mongostore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/mongostore"
)

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
