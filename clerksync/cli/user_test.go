package cli

import (
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/mongostore"
)

func TestUser(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		arrange func(*testing.T, *fixture)
		code    int
		verdict string
	}{
		{"in-step", func(t *testing.T, f *fixture) {
			f.edit(t, ada, func(u *clerksync.User) {
				u.Role, u.IsActive, u.Location = clerksync.RoleTeacher, false, &clerksync.Location{City: "London"}
			})
		}, exitDone, inStep},
		{"older", func(t *testing.T, f *fixture) { f.rename(t, ada, "Augusta") }, exitDiffer, older},
		{"unversioned", func(t *testing.T, f *fixture) {
			f.edit(t, ada, func(u *clerksync.User) { u.ClerkUpdatedAt = time.Time{} })
		}, exitDiffer, older},
		{"differs", func(t *testing.T, f *fixture) {
			f.edit(t, ada, func(u *clerksync.User) { u.Name = "A. L." })
		}, exitDiffer, differs},
		{"mapped", func(t *testing.T, f *fixture) {
			f.edit(t, ada, func(u *clerksync.User) { u.Name, u.Extra = "A. L.", map[string]any{"plan": "free"} })
		}, exitDiffer, differs},
		{"mapped-in-step", func(t *testing.T, f *fixture) {
			f.edit(t, ada, func(u *clerksync.User) { u.Extra = map[string]any{"plan": "free"} })
		}, exitDone, inStep},
		{"newer", func(t *testing.T, f *fixture) {
			f.edit(t, ada, func(u *clerksync.User) { u.ClerkUpdatedAt = u.ClerkUpdatedAt.Add(time.Minute) })
		}, exitDiffer, newer},
		{"deleted", func(t *testing.T, f *fixture) {
			f.deactivate(t)
			f.deleteUser(t, ada)
		}, exitDone, deleted},
		{"deleted-here", func(t *testing.T, f *fixture) { f.deactivate(t) }, exitDiffer, deleted},
		{"ghost", func(t *testing.T, f *fixture) { f.deleteUser(t, ada) }, exitDiffer, ghost},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newAda(t)
			tt.arrange(t, f)
			record := f.record(t, ada)
			o := f.run(t, "user", ada, "-db", "other")
			o.want(t, tt.code)
			golden(t, "user", "", o.String())

			j := f.run(t, "user", "-json", ada)
			j.want(t, tt.code)
			var got comparison
			if err := json.Unmarshal([]byte(j.stdout), &got); err != nil {
				t.Fatal(err)
			}
			if got.Verdict != tt.verdict || got.InStep != (tt.code == exitDone) || got.ClerkID != ada {
				t.Errorf("JSON: %s", j.stdout)
			}
			if tt.name == "differs" {
				golden(t, "user", "json", j.String())
			}
			after := f.record(t, ada)
			if diff := cmp.Diff(record, after, cmpopts.IgnoreUnexported(clerksync.User{})); diff != "" {
				t.Errorf("the command wrote (-before +after):\n%s", diff)
			}
			if n := f.db.records.Len(); n != 1 {
				t.Errorf("%d records", n)
			}
		})
	}
}

func TestUserWithoutRecord(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.clerk.CreateUser(fakeclerk.NewUser{ID: ada, FirstName: "Ada"})
	o := f.run(t, "user", ada)
	o.want(t, exitDiffer)
	golden(t, "user", "no-record", o.String())
	if f.db.records.Len() != 0 {
		t.Error("the command wrote a record")
	}
	o = f.run(t, "user", "user_nobody")
	o.want(t, exitFailed)
	golden(t, "user", "unknown", o.String())
}

// A Store that adopts says what becomes of a user without a record.
func TestUserAdoption(t *testing.T) {
	t.Parallel()
	unlinked := &clerksync.ConflictError{Field: "email", Err: clerksync.ErrUnlinked}
	for name, tt := range map[string]struct {
		adoption clerksync.Adoption
		want     string
	}{
		"none":    {clerksync.Adoption{}, "the user's next visit creates the record"},
		"linked":  {clerksync.Adoption{By: clerksync.ByEmail}, "the user's next visit links a record of the app's (email), and so does clerksync reconcile"},
		"refused": {clerksync.Adoption{Err: unlinked}, "the user cannot get a record: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.clerk.CreateUser(fakeclerk.NewUser{ID: ada, Email: "ada@example.com", ExternalID: "a7"})
			f.db.adoption = &tt.adoption
			o := f.run(t, "user", ada)
			o.want(t, exitDiffer, "No record: ", tt.want)
			if tt.adoption != (clerksync.Adoption{}) {
				o.lacks(t, "creates the record")
			}
		})
	}
}

// The app's Record decodes documents for its handlers. One that does not decode fails no command.
func TestCommandsIgnoreRecord(t *testing.T) {
	t.Parallel()
	f := newAda(t)
	f.env.configure = func(_ *clerksync.Config, o *mongostore.Options) {
		o.Record = func(bson.Raw) (any, error) { return nil, errors.New("does not decode") }
	}
	f.run(t, "user", ada).want(t, exitDone)
	if f.db.options.Record != nil {
		t.Error("the Store decodes with the app's Record")
	}
}

func TestUserClerkFails(t *testing.T) {
	t.Parallel()
	f := newAda(t)
	f.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		return fakeclerk.ErrorFault(401, "clerk_key_invalid")
	})
	o := f.run(t, "user", ada)
	o.want(t, exitFailed,
		"clerksync: Clerk refuses CLERK_SECRET_KEY (401 clerk_key_invalid): check that it is this instance's\n")
	if o.stdout != "" {
		t.Error(o)
	}
}
