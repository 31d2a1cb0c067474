package mongostore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
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

// runLine runs a printed line of mongosh.
func runLine(ctx context.Context, db *mongo.Database, call mongostore.ShellCall) error {
	switch call.Method {
	case "createIndex":
		ix := append(bson.D{{Key: "key", Value: call.Args[0]}}, call.Args[1].(bson.D)...)
		return db.RunCommand(ctx, bson.D{{Key: "createIndexes", Value: call.Collection}, {Key: "indexes", Value: bson.A{ix}}}).Err()
	case "dropIndex":
		return db.RunCommand(ctx, bson.D{{Key: "dropIndexes", Value: call.Collection}, {Key: "index", Value: call.Args[0]}}).Err()
	case "updateMany":
		_, err := db.Collection(call.Collection).UpdateMany(ctx, call.Args[0], call.Args[1])
		return err
	}
	return fmt.Errorf("the method %s", call.Method)
}

// advised returns the lines of the error of Open.
func advised(t *testing.T, coll *mongo.Collection) []mongostore.ShellCall {
	t.Helper()
	_, err := mongostore.Open(t.Context(), coll, nil)
	if err == nil {
		t.Fatal("Open accepts it")
	}
	calls, parseErr := mongostore.ShellCalls(err.Error())
	if parseErr != nil {
		t.Fatal(parseErr)
	}
	return calls
}

// TestAdviceOnPlainUniqueIndexes follows the advice of Open. A server without partial indexes
// refuses the first line, and nothing is lost. One that allows one index on the same keys is
// played by running the lines that are for it.
func TestAdviceOnPlainUniqueIndexes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		keys bson.D
		name string
	}{
		"Mongoose":   {keys: ascending("email")},
		"Descending": {keys: bson.D{{Key: "email", Value: -1}}},
		"Compound":   {keys: bson.D{{Key: "name", Value: 1}, {Key: "email", Value: -1}}},
		"Nested":     {keys: ascending("profile.phoneNumber")},
		"OddName":    {keys: ascending("email"), name: `it's "the\index.1"`},
	} {
		t.Run(name, func(t *testing.T) {
			for _, oneOnAKey := range []bool{false, true} {
				coll := newCollection(t)
				o := options.Index().SetUnique(true)
				if c.name != "" {
					o.SetName(c.name)
				}
				if _, err := coll.Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: c.keys, Options: o}); err != nil {
					t.Logf("not on this server: %v", err)
					return
				}
				insert(t, coll, bson.D{{Key: "note", Value: "the one record that the index lets in"}})
				calls := advised(t, coll)
				before := indexSpecs(t, coll)
				if len(calls) != 7 {
					t.Fatalf("%d lines: %v", len(calls), calls)
				}
				steps, restore := calls[:2], mongostore.ShellCall{}
				if oneOnAKey {
					steps, restore = calls[2:4], calls[4]
				}
				followAdvice(t, coll, steps, restore)
				if !partialIndexes() {
					if d := cmp.Diff(before, indexSpecs(t, coll), cmp.Comparer(sameIndex)); d != "" {
						t.Errorf("the indexes changed:\n%s", d)
					}
					continue
				}
				wantOnePartial(t, coll, c.keys, calls[5:])
			}
		})
	}
}

// followAdvice runs the steps until one fails. It then runs restore, if it is not empty.
func followAdvice(t *testing.T, coll *mongo.Collection, steps []mongostore.ShellCall, restore mongostore.ShellCall) {
	t.Helper()
	for _, step := range steps {
		err := runLine(t.Context(), coll.Database(), step)
		if err == nil {
			continue
		}
		if partialIndexes() {
			t.Errorf("%v: %v", step, err)
		}
		if restore.Method != "" {
			if err := runLine(t.Context(), coll.Database(), restore); err != nil {
				t.Errorf("%v: %v", restore, err)
			}
		}
		return
	}
}

func sameIndex(a, b mongo.IndexSpecification) bool {
	yes := func(p *bool) bool { return p != nil && *p }
	return a.Name == b.Name && yes(a.Unique) == yes(b.Unique) && yes(a.Sparse) == yes(b.Sparse) &&
		cmp.Equal(a.KeysDocument, b.KeysDocument)
}

// wantOnePartial checks that Open accepts the collection, that records without a value are
// let in, that duplicates are not, and that the lines for Mongoose describe the indexes.
func wantOnePartial(t *testing.T, coll *mongo.Collection, keys bson.D, schema []mongostore.ShellCall) {
	t.Helper()
	s := open(t, coll, nil)
	for i := range 2 {
		upsert(t, s, &clerksync.User{ClerkID: fmt.Sprintf("user_%d", i), ClerkUpdatedAt: hour(1)}, clerksync.Created)
	}
	upsert(t, s, ada(1), clerksync.Created)
	again := ada(1)
	again.ClerkID, again.ClerkUpdatedAt = "user_other", hour(2)
	_, err := s.Upsert(t.Context(), again)
	if conflict := (*clerksync.ConflictError)(nil); !errors.As(err, &conflict) || conflict.Holder != "user_ada" {
		t.Errorf("another record with the same values: %v", err)
	}
	specs := indexSpecs(t, coll)
	if len(specs) != 3 { // and those on _id and clerkId
		t.Errorf("indexes: %v", specs)
	}
	for _, line := range schema {
		call := mongostore.ShellCall{Collection: coll.Name(), Method: "createIndex", Args: line.Args}
		if err := runLine(t.Context(), coll.Database(), call); err != nil {
			t.Errorf("the schema's index: %v", err)
		}
	}
	if again := indexSpecs(t, coll); len(again) != len(specs) {
		t.Errorf("Mongoose makes another index: %v", again)
	}
}

// TestAdviceOnNullClerkIDs follows the advice on an app's records whose clerkId is null or
// empty. It deletes none.
func TestAdviceOnNullClerkIDs(t *testing.T) {
	t.Parallel()
	for name, id := range map[string]any{"Null": nil, "Empty": ""} {
		t.Run(name, func(t *testing.T) {
			coll := newCollection(t)
			for range 3 {
				insert(t, coll, bson.D{{Key: "clerkId", Value: id}, {Key: "note", Value: "the app's"}})
			}
			insert(t, coll, bson.D{{Key: "note", Value: "without"}}, bson.D{{Key: "note", Value: "without"}})
			if _, err := mongostore.Open(t.Context(), coll, nil); err != nil {
				wantError(t, err, "clerkId cannot be made unique (server error", ": 3 records have ", "remove the field from them")
				wantNoDeletion(t, err)
				calls, err := mongostore.ShellCalls(err.Error())
				if err != nil || len(calls) != 1 {
					t.Fatalf("%v, %v", calls, err)
				}
				if err := runLine(t.Context(), coll.Database(), calls[0]); err != nil {
					t.Fatal(err)
				}
				open(t, coll, nil)
			} else {
				t.Log("a unique index of this server allows several nulls")
			}
			if n, err := coll.CountDocuments(t.Context(), exists("note")); err != nil || n != 5 {
				t.Errorf("%d records left, %v", n, err)
			}
		})
	}
}
