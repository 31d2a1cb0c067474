package mongostore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

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
