package cli

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/mongostore"
)

// inspections are what mongostore may find.
var inspections = map[string]mongostore.Inspection{
	"ready": {
		Ready: true, Records: 2, Read: 2, Linked: 2, Writes: "accepted",
	},
	"empty": {Ready: true, Writes: "not checked"},
	"named": {
		Records: 3, Read: 3, Unlinked: 3, Unsynced: 3, Writes: "accepted",
		Adoption: &mongostore.AdoptionCounts{
			Users: 3, New: 3, ByExternalID: mongostore.AdoptionWay{Field: "_id", Has: 3}, ByEmail: mongostore.AdoptionWay{Field: "email"},
		},
		Findings: []mongostore.Finding{{Kind: "unlinked", Decision: true, Records: 3, Text: "no Clerk id"}},
	},
	"notes": {
		Ready: true, Records: 3, Read: 3, Unlinked: 3, Unsynced: 3, Writes: "accepted",
		Findings: []mongostore.Finding{{Kind: "unlinked", Records: 3, Text: "no Clerk id"}},
	},
	"sample": {
		Records: 5_000_000, Read: 1_000_000, Sample: true, Linked: 1, Unlinked: 999_999, Unsynced: 1_000_000, Writes: "refused",
		Adoption: &mongostore.AdoptionCounts{
			Users: 12, Linked: 1, New: 2, Either: 8,
			ByExternalID: mongostore.AdoptionWay{On: true, Field: "_id", Has: 9, Adopts: 6, Refuses: 1},
			ByEmail:      mongostore.AdoptionWay{Field: "email", Has: 10, Adopts: 3},
		},
		Findings: []mongostore.Finding{
			{Kind: "index", Decision: true, Text: `the unique index "a"`, Fix: "replace it:\n\tone line\n\tanother"},
			{
				Kind: "replaced", Decision: true, Field: "na\x1bme", Records: 20, IDs: []string{"1", "2", "3", "4", "5", "6"},
				Text: "the first sync replaces it", Fields: mongostore.Fields{"name": "clerkName", "email": "mail"},
			},
			{Kind: "reference", Field: "invitedBy", Records: 1, IDs: []string{"1"}, Text: "values that look like Clerk ids"},
		},
		Fields: mongostore.Fields{"name": "clerkName", "email": "mail"},
	},
}

func TestInspect(t *testing.T) {
	t.Parallel()
	for name, found := range inspections {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			delete(f.vars, secretKeyVar)
			f.db.found = found
			f.db.look = func(_ context.Context, look mongostore.InspectOptions) error {
				if look.Users != nil {
					t.Error("Clerk would be asked without a secret key")
				}
				look.Progress(1, 2)
				return nil
			}
			code := exitDiffer
			if found.Ready {
				code = exitDone
			}
			o := f.run(t, "inspect")
			o.want(t, code)
			golden(t, "inspect", "", o.String())
			if !f.db.settings.looksOnly {
				t.Error("a Store is opened")
			}
			j := f.run(t, "inspect", "-json")
			j.want(t, code)
			var got mongostore.Inspection
			if err := json.Unmarshal([]byte(j.stdout), &got); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(found, got); d != "" {
				t.Errorf("JSON (-want +got):\n%s", d)
			}
		})
	}
}

// With a secret key, the users are those that a reconcile would offer, as the app maps them. The app's
// APIURL wins over the variable.
func TestInspectUsers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.vars[apiURLVar] = "http://nowhere.invalid"
	for _, id := range []string{"user_a", "user_b", "user_c", "user_odd"} {
		f.clerk.CreateUser(fakeclerk.NewUser{ID: id, FirstName: "Ada"})
	}
	f.env.configure = func(c *clerksync.Config, _ *mongostore.Options) {
		c.APIURL = f.clerk.APIURL()
		c.Map = func(from *clerk.User, u *clerksync.User) error {
			if from.ID == "user_odd" {
				return errors.New("odd")
			}
			u.Extra = map[string]any{"plan": "free"}
			return nil
		}
	}
	var ids []string
	f.db.look = func(ctx context.Context, look mongostore.InspectOptions) error {
		return look.Users(ctx, func(_ context.Context, us []*clerksync.User) error {
			for _, u := range us {
				ids = append(ids, u.ClerkID)
				if u.Extra["plan"] != "free" {
					t.Errorf("%s is not mapped", u.ClerkID)
				}
			}
			return nil
		})
	}
	f.db.found = inspections["ready"]
	f.run(t, "inspect").want(t, exitDone, "and Clerk's users", "1 user was not counted")
	slices.Sort(ids)
	if d := cmp.Diff([]string{"user_a", "user_b", "user_c"}, ids); d != "" {
		t.Errorf("users (-want +got):\n%s", d)
	}
	if f.db.records.Len() != 0 {
		t.Error("the command wrote")
	}
}

// A failure of the database ends the run at once. Clerk is not asked again.
func TestInspectFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.clerk.CreateUser(fakeclerk.NewUser{ID: ada})
	failure := errors.New("mongostore: inspect: no")
	f.db.look = func(ctx context.Context, look mongostore.InspectOptions) error {
		err := look.Users(ctx, func(context.Context, []*clerksync.User) error { return failure })
		if !errors.Is(err, failure) {
			t.Errorf("Users returns %v", err)
		}
		return err
	}
	f.run(t, "inspect").want(t, exitFailed, failure.Error())

	f.db.look = func(ctx context.Context, look mongostore.InspectOptions) error {
		return look.Users(ctx, func(context.Context, []*clerksync.User) error { return nil })
	}
	f.env.reconcile = func(*clerksync.Syncer, context.Context, clerksync.ReconcileOptions) (clerksync.Report, error) {
		return clerksync.Report{Failed: clerksync.Tally{Count: 1}}, failure // after a user who cannot be mapped
	}
	f.run(t, "inspect").want(t, exitFailed, failure.Error(), "1 user was not counted")

	f.vars[secretKeyVar] = "pk_test_public"
	f.db.look = func(context.Context, mongostore.InspectOptions) error { t.Error("it looks"); return nil }
	f.run(t, "inspect").want(t, exitUsage, "is a publishable key")
}

// A program with a Map works on the collection that command clerksync refuses, and compares
// what the Map adds.
func TestOwnMap(t *testing.T) {
	t.Parallel()
	f := newAda(t)
	f.db.mappedID = ada
	f.run(t, "reconcile", quick).want(t, exitFailed, "cli.Main")
	f.env.program = "members"
	f.env.configure = func(c *clerksync.Config, _ *mongostore.Options) {
		c.Map = func(_ *clerk.User, u *clerksync.User) error {
			u.Extra = map[string]any{"plan": "free"}
			return nil
		}
		c.RoleOf = func(*clerk.User) clerksync.Role { return "MEMBER" }
		c.DefaultRole = "GUEST"
	}
	f.run(t, "drift", quick).want(t, exitDiffer, "plan", "role", "members reconcile")
	o := f.run(t, "user", ada)
	o.want(t, exitDiffer, "members reconcile")
	golden(t, "user", "before", o.String())
	f.run(t, "reconcile", quick, "-default-role", "OTHER").want(t, exitDone)
	if u := f.record(t, ada); u.Role != "MEMBER" || u.Extra["plan"] != "free" {
		t.Errorf("the record is %+v", u)
	}
	f.run(t, "user", ada).want(t, exitDone, "In step")
	f.run(t, "drift", quick).want(t, exitDone)
}

// The manual shows what the command says about a legacy collection. A test of mongostore makes
// testdata/legacy.json from such a collection.
func TestReadmeHasInspection(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/legacy.json")
	if err != nil {
		t.Fatal(err)
	}
	var found mongostore.Inspection
	if err := json.Unmarshal(data, &found); err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../cmd/clerksync/README.md")
	if err != nil {
		t.Fatal(err)
	}
	if text := inspectionText("app.users", &found, false); !strings.Contains(string(readme), "```\n"+text+"```\n") {
		t.Errorf("README.md does not show this:\n%s", text)
	}
}

// A program that has Fields is told what to add to them.
func TestProposalAddsToFields(t *testing.T) {
	t.Parallel()
	fields := mongostore.Fields{"name": "clerk_name", "email": "clerk_email"}
	f := newFixture(t)
	f.db.found = mongostore.Inspection{Fields: fields}
	delete(f.vars, secretKeyVar)
	f.env.configure = func(_ *clerksync.Config, o *mongostore.Options) { o.Fields = mongostore.SnakeCase() }
	o := f.run(t, "inspect")
	o.want(t, exitDiffer, "  o.Fields[\"email\"] = \"clerk_email\"\n  o.Fields[\"name\"] = \"clerk_name\"\n")
	o.lacks(t, "o.Fields = ")
}

func TestInspectAccept(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	delete(f.vars, secretKeyVar)
	f.db.found = inspections["ready"]
	f.db.look = func(_ context.Context, look mongostore.InspectOptions) error {
		if got := strings.Join(look.Accept, " "); got != "name replaced type" {
			t.Errorf("accepted: %s", got)
		}
		return nil
	}
	f.run(t, "inspect", "-accept", "name,replaced", "-accept", "type").want(t, exitDone)
}

// A decision about a field is accepted by the field's name: there may be others of its kind.
func TestAcceptance(t *testing.T) {
	t.Parallel()
	for want, f := range map[string]mongostore.Finding{
		"active": {Kind: "other_name", Field: "active"}, "other_name": {Kind: "other_name"}, "email": {Kind: "type", Field: "email"},
		"unlinked": {Kind: "unlinked"}, "": {Kind: "index"},
	} {
		if got := acceptance(&f); got != want {
			t.Errorf("%+v: %q, want %q", f, got, want)
		}
	}
}

// A field that the Store does not keep is not shown.
func TestCompareKeeps(t *testing.T) {
	t.Parallel()
	record := &clerksync.User{ClerkID: ada, ClerkUpdatedAt: epoch, IsActive: true}
	inClerk := &clerksync.User{ClerkID: ada, ClerkUpdatedAt: epoch, Name: "Ada", IsActive: true}
	command := func(name string, _ ...string) string { return name }
	for _, keepsName := range []bool{true, false} {
		c := compare(ada, record, inClerk, false, func(path string) bool { return path != "name" || keepsName })
		c.judge(record, inClerk, command)
		if c.InStep == keepsName {
			t.Errorf("kept %t: in step is %t (%s)", keepsName, c.InStep, c.Verdict)
		}
	}
}
