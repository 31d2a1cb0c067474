package cli

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// What mongostore.Open takes for the index on clerkId, and would make another one beside.
func TestOnClerkID(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]bool{
		`{"key": {"clerkId": 1}, "unique": true}`:                                                                              true,
		`{"key": {"clerkId": {"$numberDouble": "-1"}}, "unique": true, "sparse": true}`:                                        true,
		`{"key": {"clerkId": 1}}`:                                                                                              false,
		`{"key": {"clerkId": "hashed"}, "unique": true}`:                                                                       false,
		`{"key": {"clerkId": 1, "email": 1}, "unique": true}`:                                                                  false,
		`{"key": {"clerkId": 1}, "unique": true, "collation": {"locale": "en"}}`:                                               false,
		`{"key": {"clerkId": 1}, "unique": true, "partialFilterExpression": {"clerkId": {"$exists": true}}}`:                   true,
		`{"key": {"clerkId": 1}, "unique": true, "partialFilterExpression": {"clerkId": {"$exists": false}}}`:                  false,
		`{"key": {"clerkId": 1}, "unique": true, "partialFilterExpression": {"clerkId": {"$type": "string"}}}`:                 true,
		`{"key": {"clerkId": 1}, "unique": true, "partialFilterExpression": {"clerkId": {"$type": 2}}}`:                        true,
		`{"key": {"clerkId": 1}, "unique": true, "partialFilterExpression": {"clerkId": {"$type": "int"}}}`:                    false,
		`{"key": {"clerkId": 1}, "unique": true, "partialFilterExpression": {"clerkId": "user_1"}}`:                            false,
		`{"key": {"clerkId": 1}, "unique": true, "partialFilterExpression": {"clerkId": {"$gt": "m"}}}`:                        false,
		`{"key": {"clerkId": 1}, "unique": true, "partialFilterExpression": {"isActive": true}}`:                               false,
		`{"key": {"clerkId": 1}, "unique": true, "partialFilterExpression": {"clerkId": {"$exists": true}, "isActive": true}}`: false,
	} {
		var raw bson.Raw
		if err := bson.UnmarshalExtJSON([]byte(line), false, &raw); err != nil {
			t.Fatal(err)
		}
		if ix := indexOf(raw); ix.onClerkID() != want {
			t.Errorf("%s: onClerkID is %t", line, !want)
		}
	}
}

func TestIndexes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	delete(f.vars, secretKeyVar)
	f.db.list = listedIndexes(t)
	o := f.run(t, "indexes")
	o.want(t, exitDone)
	golden(t, "indexes", o.String())

	var got []index
	if err := json.Unmarshal([]byte(f.run(t, "indexes", "-json").stdout), &got); err != nil {
		t.Fatal(err)
	}
	want := listedIndexes(t)
	want[2].Role, want[3].Role = relied, conflicts
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
}
