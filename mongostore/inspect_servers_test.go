package mongostore_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

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
