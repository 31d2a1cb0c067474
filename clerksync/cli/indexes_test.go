package cli

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// mongostore.Open decides by the same rule whether it must make an index.
func TestOnClerkID(t *testing.T) {
	t.Parallel()
	const key, unique = `"key": {"clerkId": 1}`, `"key": {"clerkId": 1}, "unique": true`
	partial := func(filter string) string { return unique + `, "partialFilterExpression": ` + filter }
	for spec, want := range map[string]bool{
		unique: true,
		`"key": {"clerkId": {"$numberDouble": "-1"}}, "unique": true, "sparse": true`: true,
		key: false,
		`"key": {"clerkId": "hashed"}, "unique": true`:              false,
		`"key": {"clerkId": 1, "email": 1}, "unique": true`:         false,
		unique + `, "collation": {"locale": "en"}`:                  false,
		partial(`{"clerkId": {"$exists": true}}`):                   true,
		partial(`{"clerkId": {"$exists": false}}`):                  false,
		partial(`{"clerkId": {"$type": "string"}}`):                 false, // MongoDB does not use it for lookups
		partial(`{"clerkId": {"$type": 2}}`):                        false,
		unique + `, "hidden": true`:                                 false,
		unique + `, "hidden": false`:                                true,
		partial(`{"clerkId": {"$type": "int"}}`):                    false,
		partial(`{"clerkId": "user_1"}`):                            false,
		partial(`{"clerkId": {"$gt": "m"}}`):                        false,
		partial(`{"isActive": true}`):                               false,
		partial(`{"clerkId": {"$exists": true}, "isActive": true}`): false,
	} {
		if ix := parseIndex(t, "{"+spec+"}"); ix.onClerkID("clerkId") != want {
			t.Errorf("onClerkID() of {%s} is %t", spec, !want)
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
	golden(t, "indexes", "", o.String())

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
