package cli

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

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
