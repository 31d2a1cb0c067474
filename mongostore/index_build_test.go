package mongostore_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/mongostore"
)

// listing answers listIndexes with the index on _id and these.
func listing(indexes ...bson.D) reaction {
	batch := bson.A{bson.D{{Key: "v", Value: 2}, {Key: "key", Value: ascending("_id")}, {Key: "name", Value: "_id_"}}}
	for _, ix := range indexes {
		batch = append(batch, append(bson.D{{Key: "v", Value: 2}}, ix...))
	}
	return reaction{answer: bson.D{{Key: "ok", Value: 1.0}, {Key: "cursor", Value: bson.D{
		{Key: "id", Value: int64(0)}, {Key: "ns", Value: "app.users"}, {Key: "firstBatch", Value: batch},
	}}}}
}

// TestOpenDuringIndexBuild plays a server that lists a unique index on clerkId and is still
// building it. It answers the createIndexes of the same index when it is built, or with an
// error.
func TestOpenDuringIndexBuild(t *testing.T) {
	t.Parallel()
	unique := bson.D{{Key: "unique", Value: true}, {Key: "key", Value: ascending("clerkId")}, {Key: "name", Value: "theirs"}}
	building := map[string]bson.D{
		"Sparse":  append(unique[:3:3], bson.E{Key: "sparse", Value: true}),
		"Plain":   unique,
		"Partial": append(unique[:3:3], bson.E{Key: "partialFilterExpression", Value: exists("clerkId")}),
	}
	duplicate := failed(11000)
	for name, c := range map[string]struct {
		answer  reaction
		records []bson.D
		want    string // part of Open's error; empty if Open succeeds
	}{
		"Built":           {reaction{answer: bson.D{{Key: "ok", Value: 1.0}}}, nil, ""},
		"Duplicates":      {duplicate, []bson.D{{{Key: "clerkId", Value: "user_1"}}, {{Key: "clerkId", Value: "user_1"}}}, `2 records have "user_1"`},
		"GoneDuplicates":  {duplicate, nil, `the index "theirs" on clerkId is built: server error 11000`},
		"InProgress":      {failed(285), nil, "server error 285"},
		"Aborted":         {failed(276), nil, "server error 276"},
		"AnotherBuild":    {failed(12587), nil, "server error 12587"},
		"NoTime":          {failed(50), nil, "server error 50"},
		"Disconnected":    {lostAnswer, nil, "network error"},
		"MayNotCreate":    {failed(13), nil, ""},
		"MayNotOnAtlas":   {failed(8000), nil, ""},
		"OnlyWhenEmpty":   {failed(67), nil, ""},
		"StrictStableAPI": {failed(323), nil, ""},
		"NotSupported":    {failed(115), nil, ""},
		"OtherOptions":    {failed(85), nil, ""},
		"AnotherReason":   {failed(1), nil, ""},
	} {
		for kind, spec := range building {
			t.Run(fmt.Sprint(name, kind), func(t *testing.T) {
				t.Parallel()
				base := newCollection(t)
				insert(t, base, append(c.records, bson.D{{Key: "note", Value: "the app's"}})...)
				coll, f := newFront(t, base, replicaSet, nil)
				f.play(func(_ string, cmd bson.Raw) reaction {
					switch commandName(cmd) {
					case "listIndexes":
						return listing(spec)
					case "createIndexes":
						return c.answer
					}
					return reaction{}
				})
				_, err := mongostore.Open(t.Context(), coll, nil)
				want := c.want
				if name == "StrictStableAPI" && kind == "Sparse" { // MongoDB does not use it for this client
					want = "lookups do not use the unique index on clerkId (server error 323)"
				}
				if want != "" {
					wantError(t, err, want)
				} else if err != nil {
					t.Error(err)
				}
				wantSameIndex(t, f.commands(), spec)
			})
		}
	}
}

// wantSameIndex checks that one of the commands creates this index, with all its options.
func wantSameIndex(t *testing.T, commands []bson.Raw, spec bson.D) {
	t.Helper()
	sent := 0
	for _, cmd := range commands {
		if commandName(cmd) != "createIndexes" {
			continue
		}
		sent++
		want, err := bson.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(bson.Raw(want).String(), cmd.Lookup("indexes", "0").String()); d != "" {
			t.Errorf("Open asks for another index (-want +got):\n%s", d)
		}
	}
	if sent != 1 {
		t.Errorf("Open sent createIndexes %d times", sent)
	}
}

// TestOpenKeepsIndexes opens collections with an index of each kind that Open accepts. Open
// changes nothing, and the server takes its createIndexes for one of an index that exists.
func TestOpenKeepsIndexes(t *testing.T) {
	t.Parallel()
	kinds := map[string]*options.IndexOptionsBuilder{
		"Plain":  options.Index().SetUnique(true),
		"Sparse": options.Index().SetUnique(true).SetSparse(true).SetName("theirs"),
	}
	if partialIndexes() {
		kinds["Partial"] = options.Index().SetUnique(true).SetPartialFilterExpression(exists("clerkId"))
	}
	for name, o := range kinds {
		t.Run(name, func(t *testing.T) {
			base := newCollection(t)
			createIndex(t, base, ascending("clerkId"), o)
			before := indexSpecs(t, base)
			coll, sent := newMonitored(t, base)
			open(t, coll, nil)
			asked := 0
			for _, cmd := range sent.take() {
				if commandName(cmd) != "createIndexes" {
					continue
				}
				asked++
				again := bson.D{{Key: "createIndexes", Value: base.Name()}, {Key: "indexes", Value: cmd.Lookup("indexes")}}
				answer, err := base.Database().RunCommand(t.Context(), again).Raw()
				note, _ := answer.Lookup("note").StringValueOK()
				if err != nil || !strings.Contains(note, "already exist") {
					t.Errorf("the server says %q, %v", note, err)
				}
			}
			if d := cmp.Diff(before, indexSpecs(t, base)); d != "" || asked != 1 {
				t.Errorf("Open asks %d times; the indexes changed:\n%s", asked, d)
			}
		})
	}
}

// TestOpenMakesAUsableIndex opens collections whose unique index on clerkId MongoDB does not use
// for lookups. Open makes another one beside it; a server that allows one index on the same keys
// refuses that, and then Open says what to do.
func TestOpenMakesAUsableIndex(t *testing.T) {
	t.Parallel()
	theirs := bson.D{{Key: "key", Value: ascending("clerkId")}, {Key: "name", Value: "clerkId_1"}, {Key: "unique", Value: true}}
	ours := bson.D{
		{Key: "key", Value: ascending("clerkId")}, {Key: "name", Value: "clerksync_clerkId"},
		{Key: "sparse", Value: true}, {Key: "unique", Value: true},
	}
	for name, c := range map[string]struct {
		option bson.E
		advice string
	}{
		"Hidden": {bson.E{Key: "hidden", Value: true}, `.unhideIndex("clerkId_1")`},
		"Type": {bson.E{Key: "partialFilterExpression", Value: bson.D{{Key: "clerkId", Value: bson.D{{Key: "$type", Value: "string"}}}}},
			`.dropIndex("clerkId_1")`},
	} {
		for _, code := range []int{0, 85, 86} {
			t.Run(fmt.Sprint(name, code), func(t *testing.T) {
				t.Parallel()
				indexes := []bson.D{append(theirs[:3:3], c.option)}
				coll, f := newFront(t, newCollection(t), replicaSet, nil)
				f.play(func(_ string, cmd bson.Raw) reaction {
					switch commandName(cmd) {
					case "listIndexes":
						return listing(indexes...)
					case "createIndexes":
						if code != 0 {
							return failed(code)
						}
						indexes = append(indexes, ours)
						return reaction{answer: bson.D{{Key: "ok", Value: 1.0}}}
					}
					return reaction{}
				})
				_, err := mongostore.Open(t.Context(), coll, nil)
				if code != 0 {
					wantError(t, err, "the unique index on clerkId cannot be created (server error ", `the index "clerkId_1"`, c.advice)
				} else if err != nil {
					t.Error(err)
				}
				wantSameIndex(t, f.commands(), ours)
			})
		}
	}
}

// TestOpenBesideATypeFilter is TestOpenMakesAUsableIndex on the server itself.
func TestOpenBesideATypeFilter(t *testing.T) {
	t.Parallel()
	if !partialIndexes() {
		t.Log("the server has no partial indexes")
		return
	}
	coll := newCollection(t)
	ofType := bson.D{{Key: "clerkId", Value: bson.D{{Key: "$type", Value: "string"}}}}
	createIndex(t, coll, ascending("clerkId"), options.Index().SetUnique(true).SetName("typed").SetPartialFilterExpression(ofType))
	mayStandInTheWay(t, coll, "typed")
}
