package mongostore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// legacyID is the _id of the nth legacy user.
func legacyID(n int) bson.ObjectID {
	return bson.ObjectID{0: 0x65, 1: 0xf0, 10: byte(n >> 8), 11: byte(n)}
}

// legacyUsers are n records as an app with Mongoose may have them, with a few odd ones.
func legacyUsers(n int) []bson.D {
	signedUp := time.Date(2024, 3, 1, 12, 0, 0, 0, time.UTC)
	docs := make([]bson.D, n)
	for i := range docs {
		u := bson.D{
			{Key: "_id", Value: legacyID(i)},
			{Key: "email", Value: fmt.Sprintf("user%d@example.com", i)},
			{Key: "name", Value: fmt.Sprintf("User %d", i)},
			{Key: "first_name", Value: "User"},
			{Key: "last_name", Value: fmt.Sprint(i)},
			{Key: "email_verified", Value: i%10 != 9},
			{Key: "role", Value: "STUDENT"},
			{Key: "is_active", Value: i%100 != 99},
			{Key: "plan", Value: "pro"},
			{Key: "credits", Value: i},
			{Key: "created_at", Value: signedUp.Add(time.Duration(i) * time.Hour)},
			{Key: "updated_at", Value: signedUp.Add(time.Duration(i) * time.Hour)},
			{Key: "__v", Value: 0},
		}
		switch {
		case i%250 == 17: // imported, with the address as it was typed
			u[1].Value = fmt.Sprintf("User%d@Example.com", i)
		case i%500 == 18: // the one before, once more
			u[1].Value = fmt.Sprintf("user%d@example.com", i-1)
		case i%400 == 42:
			u = append(u, bson.E{Key: "profile", Value: "https://example.com/u"})
		}
		docs[i] = u
	}
	return docs
}

func legacyCollection(t testing.TB, n int) *mongo.Collection {
	t.Helper()
	coll := newCollection(t)
	for chunk := 0; chunk < n; chunk += batchSize {
		insert(t, coll, legacyUsers(n)[chunk:min(chunk+batchSize, n)]...)
	}
	createIndex(t, coll, ascending("email"), options.Index().SetUnique(true))
	return coll
}

// legacyInspection is the Inspection that the manual of the command line shows.
const legacyInspection = "../clerksync/cli/testdata/legacy.json"

var updateLegacy = flag.Bool("update-legacy", false, "rewrite "+legacyInspection)

func inspected(t testing.TB, coll *mongo.Collection, o *mongostore.Options, accept ...string) mongostore.Inspection {
	t.Helper()
	found, err := mongostore.Inspect(t.Context(), coll, o, mongostore.InspectOptions{Accept: accept})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestInspectLegacy(t *testing.T) {
	t.Parallel()
	coll := legacyCollection(t, 1000)
	found := inspected(t, coll, nil)
	text, err := json.MarshalIndent(found, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.ReplaceAll(append(text, '\n'), []byte(coll.Name()), []byte("users"))
	if *updateLegacy {
		if err := os.WriteFile(legacyInspection, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(legacyInspection)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(text)); d != "" {
		t.Errorf("%s is out of date; -update-legacy rewrites it (-file +now):\n%s", legacyInspection, d)
	}
	for _, secret := range []string{"@", "User 1", "example.com"} {
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("the Inspection has %q, a value of a record", secret)
		}
	}
}

// An app that adds the lines for Fields has no decision left about them, and Open takes them.
// What an app accepts needs no decision either.
func TestInspectProposes(t *testing.T) {
	t.Parallel()
	for name, fields := range map[string]func() mongostore.Fields{
		"no map":    func() mongostore.Fields { return mongostore.Fields{} },
		"SnakeCase": mongostore.SnakeCase,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			coll := newCollection(t)
			monitor.expect(coll.Name(), fields()["clerkId"])
			insert(t, coll, legacyUsers(100)...)
			o := &mongostore.Options{Fields: fields(), Adopt: &mongostore.Adopt{ByExternalID: "_id"}}
			found := inspected(t, coll, o)
			if found.Ready || len(found.Fields) == 0 {
				t.Fatalf("nothing is proposed: %+v", found)
			}
			if again := inspected(t, coll, o, "replaced", "type", "other_name"); !again.Ready {
				t.Errorf("after accepting: %+v", again.Findings)
			}
			maps.Copy(o.Fields, found.Fields)
			again := inspected(t, coll, o)
			if !again.Ready || len(again.Fields) > 0 {
				t.Errorf("after adding %v: %+v", found.Fields, again.Findings)
			}
			if _, err := mongostore.Open(t.Context(), coll, o); err != nil {
				t.Error(err)
			}
		})
	}
}

// The fix of a finding about an index, run line by line, makes the collection ready.
func TestInspectIndexFix(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	insert(t, coll, bson.D{{Key: "_id", Value: 1}, {Key: "clerkId", Value: "user_1"}, {Key: "email", Value: "a@x.example"}})
	createIndex(t, coll, ascending("clerkId"), options.Index().SetUnique(true))
	o := &mongostore.Options{Adopt: &mongostore.Adopt{ByEmail: true, Trusted: bson.D{}}}
	found := inspected(t, coll, o)
	if found.Ready || found.Findings[0].Kind != "index" {
		t.Fatalf("the dense index is not found: %+v", found.Findings)
	}
	if again := inspected(t, coll, o, "index", "clerkId"); again.Ready {
		t.Error("an index with which Open fails is accepted")
	}
	calls, err := mongostore.ShellCalls(found.Findings[0].Fix)
	if err != nil || len(calls) == 0 {
		t.Fatalf("lines %v, error %v", calls, err)
	}
	for _, call := range calls {
		if err := runLine(t.Context(), coll.Database(), call); err != nil {
			t.Logf("%s: %s", call.Method, mongostore.Describe(err))
		}
		if found = inspected(t, coll, o); found.Ready {
			break
		}
	}
	if !found.Ready {
		t.Errorf("the fix does not help: %+v", found.Findings)
	}
}

// kinds returns the kinds of the findings.
func kinds(found mongostore.Inspection) (kinds []string) {
	for _, f := range found.Findings {
		kinds = append(kinds, f.Kind)
	}
	return kinds
}

// TestInspectAsReader has a database user who may only read, and a collection without an index.
// Of the commands that Inspect sends only one would be a write, which matches nothing.
func TestInspectAsReader(t *testing.T) {
	t.Parallel()
	base := newCollection(t)
	insert(t, base, legacyUsers(5)...)
	unchanged := contents(t, base)
	lists := func(cmd bson.Raw) bool { return commandName(cmd) == "listIndexes" }
	changes := func(cmd bson.Raw) bool { return isWrite(cmd) || commandName(cmd) == "createIndexes" }
	for name, c := range map[string]struct {
		refused func(bson.Raw) bool
		writes  string
		kind    string // of a finding
		listed  bool
	}{
		"Reader":       {changes, "not checked", "unlinked", true},
		"MayNotList":   {func(cmd bson.Raw) bool { return changes(cmd) || lists(cmd) }, "not checked", "index", false},
		"Writer":       {func(bson.Raw) bool { return false }, "accepted", "unlinked", true},
		"NotRetryable": {isNumbered, "refused", "writes", true},
	} {
		t.Run(name, func(t *testing.T) {
			coll, f := newFront(t, base, replicaSet, nil)
			f.play(func(_ string, cmd bson.Raw) reaction {
				if !c.refused(cmd) {
					return reaction{}
				}
				if isNumbered(cmd) && c.writes == "refused" {
					return failed(301)
				}
				return failed(13)
			})
			adopt := &mongostore.Adopt{ByEmail: true, Trusted: bson.D{}}
			users := func(ctx context.Context, visit func(context.Context, []*clerksync.User) error) error {
				return visit(ctx, []*clerksync.User{ada(1)})
			}
			found, err := mongostore.Inspect(t.Context(), coll, &mongostore.Options{Adopt: adopt}, mongostore.InspectOptions{Users: users})
			if err != nil {
				t.Fatal(err)
			}
			if found.Writes != c.writes || found.Read != 5 || found.Adoption == nil || found.Adoption.New != 1 {
				t.Errorf("%+v", found)
			}
			if !slices.Contains(kinds(found), c.kind) {
				t.Errorf("findings %v, want %s", kinds(found), c.kind)
			}
			if c.writes == "refused" && (found.Ready || !strings.Contains(found.Findings[0].Text, "retryWrites=false")) {
				t.Errorf("%+v", found.Findings)
			}
			wantReads(t, f.commands())
		})
	}
	if d := cmp.Diff(unchanged, contents(t, base)); d != "" {
		t.Errorf("the collection changed (-before +after):\n%s", d)
	}
}

// wantReads checks that all commands but updates only read.
func wantReads(t *testing.T, commands []bson.Raw) {
	t.Helper()
	for _, cmd := range commands {
		if reads := []string{"find", "getMore", "killCursors", "count", "listIndexes", "update"}; !slices.Contains(reads, commandName(cmd)) {
			t.Errorf("Inspect sends %s", commandName(cmd))
		}
	}
}

// contents returns the documents of a collection and the names of its indexes.
func contents(t *testing.T, coll *mongo.Collection) (texts []string) {
	t.Helper()
	cursor, err := coll.Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	var documents []bson.Raw
	if err := cursor.All(t.Context(), &documents); err != nil {
		t.Fatal(err)
	}
	for _, raw := range documents {
		texts = append(texts, raw.String())
	}
	for name := range indexSpecs(t, coll) {
		texts = append(texts, name)
	}
	slices.Sort(texts)
	return texts
}

// TestInspectSample stops at its limits, and says so.
func TestInspectSample(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	insert(t, coll, legacyUsers(5)...)
	now := hour(0)
	slow := func() time.Time { now = now.Add(time.Hour); return now }
	for name, c := range map[string]struct {
		opts   *mongostore.Options
		limit  int
		read   int
		sample bool
	}{
		"All":     {nil, 0, 5, false},
		"Just":    {nil, 5, 5, false},
		"TooMany": {nil, 3, 3, true},
		"TooLong": {&mongostore.Options{Now: slow}, 0, 0, true},
		"One":     {nil, 1, 1, true},
	} {
		var progress []int
		found, err := mongostore.Inspect(t.Context(), coll, c.opts, mongostore.InspectOptions{
			Limit: c.limit, Progress: func(read, of int) { progress = append(progress, read, of) },
		})
		if err != nil {
			t.Fatal(err)
		}
		if found.Read != c.read || found.Sample != c.sample || found.Records != 5 || found.Unlinked != c.read {
			t.Errorf("%s: %+v", name, found)
		}
		if len(progress) < 2 || progress[len(progress)-2] != c.read {
			t.Errorf("%s: progress %v", name, progress)
		}
	}
	if _, err := mongostore.Inspect(t.Context(), coll, nil, mongostore.InspectOptions{Limit: -1}); err == nil {
		t.Error("a negative limit is accepted")
	}
	if _, err := mongostore.Inspect(t.Context(), nil, nil, mongostore.InspectOptions{}); err == nil {
		t.Error("no collection is accepted")
	}
}
