package mongostore

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

func TestJudge(t *testing.T) {
	raw := func(d bson.D) bson.Raw {
		if d == nil {
			return nil
		}
		b, err := bson.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	on := func(value any, fields ...string) bson.Raw {
		var d bson.D
		for _, f := range fields {
			d = append(d, bson.E{Key: f, Value: value})
		}
		return raw(d)
	}
	clerkID := func(condition any) bson.Raw { return raw(bson.D{{Key: "clerkId", Value: condition}}) }
	partial := func(filter bson.Raw) index {
		return index{keys: on(1, "clerkId"), unique: true, partial: filter}
	}
	condition := func(operator string, value any) index {
		return partial(clerkID(bson.D{{Key: operator, Value: value}}))
	}
	german := raw(bson.D{{Key: "locale", Value: "de"}})
	for name, c := range map[string]struct {
		index index
		keeps bool
		fault string // part of it; empty for none
	}{
		"Unique":            {index{keys: on(1, "clerkId"), unique: true}, true, ""},
		"Descending":        {index{keys: on(-1.0, "clerkId"), unique: true}, true, ""},
		"Sparse":            {index{keys: on(1, "clerkId"), unique: true, sparse: true}, true, ""},
		"NotUnique":         {index{keys: on(1, "clerkId")}, false, ""},
		"Hashed":            {index{keys: on("hashed", "clerkId"), unique: true}, false, ""},
		"Collation":         {index{keys: on(1, "clerkId"), unique: true, collation: german}, false, `.dropIndex("ix")`},
		"CollationNoUnique": {index{keys: on(1, "clerkId"), collation: german}, false, ""},
		"Compound":          {index{keys: on(1, "clerkId", "email"), unique: true}, false, ""},
		"PartialExists":     {condition("$exists", true), true, ""},
		"PartialExists1":    {condition("$exists", 1), true, ""},
		"PartialString":     {condition("$type", "string"), false, ""}, // unique, and not used for lookups
		"PartialType2":      {condition("$type", 2), false, ""},
		"Hidden":            {index{keys: on(1, "clerkId"), unique: true, others: raw(bson.D{{Key: "hidden", Value: true}})}, false, ""},
		"NotHidden":         {index{keys: on(1, "clerkId"), unique: true, others: raw(bson.D{{Key: "hidden", Value: false}})}, true, ""},
		"PartialExistsNot":  {condition("$exists", false), false, ""},
		"PartialNumber":     {condition("$type", "int"), false, ""},
		"PartialRange":      {condition("$gt", "m"), false, ""},
		"PartialBoth": {index{keys: on(1, "clerkId"), unique: true, partial: clerkID(bson.D{
			{Key: "$exists", Value: true}, {Key: "$gt", Value: "m"},
		})}, false, ""},
		"PartialValue": {index{keys: on(1, "clerkId"), unique: true, partial: clerkID("user_1")}, false, ""},
		"PartialOther": {index{keys: on(1, "clerkId"), unique: true, partial: raw(bson.D{
			{Key: "clerkId", Value: bson.D{{Key: "$exists", Value: true}}}, {Key: "isActive", Value: true},
		})}, false, ""},
		"PartialElsewhere": {partial(raw(bson.D{{Key: "isActive", Value: true}})), false, ""},

		"ID": {index{keys: on(1, "_id"), unique: true}, false, ""},
		"Email": {index{keys: on(1, "email"), unique: true}, false,
			`{name: "ix_partial", unique: true, partialFilterExpression: {"email": {$exists: true}}}`},
		"EmailText":   {index{keys: on("text", "email")}, false, ""},
		"UniqueText":  {index{keys: on("text", "_fts", "_ftsx"), unique: true}, false, ""}, // always sparse
		"UniquePlace": {index{keys: on("2dsphere", "place"), unique: true}, false, ""},
		"EmailSparse": {index{keys: on(1, "email"), unique: true, sparse: true}, false, ""},
		"EmailPartial": {index{keys: on(1, "email"), unique: true, partial: raw(bson.D{{Key: "email", Value: "x"}})},
			false, ""},
		"EmailCollation": {index{keys: on(1, "email"), unique: true, collation: german}, false,
			`partialFilterExpression: {"email": {$exists: true}}, collation: {"locale": "de"}}`},
		"Two": {index{keys: on(1, "tenant", "email"), unique: true}, false,
			`{"tenant": {$exists: true}, "email": {$exists: true}}`},
		"WithID":  {index{keys: on(1, "tenant", "_id"), unique: true}, false, "tenant, _id"},
		"WithUs":  {index{keys: on(1, "tenant", "clerkId"), unique: true}, false, ""},
		"Allowed": {index{name: "allowed", keys: on(1, "email"), unique: true}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := offline(t)
			if c.index.name == "" {
				c.index.name = "ix"
			}
			if got := c.index.keepsClerkID(); got != c.keeps {
				t.Errorf("keepsClerkID: %t, want %t", got, c.keeps)
			}
			faults := s.judge([]index{c.index}, []string{"allowed"})
			switch {
			case c.fault == "" && len(faults) > 0:
				t.Errorf("faults: %v", faults)
			case c.fault != "" && (len(faults) != 1 || !strings.Contains(faults[0].Error(), c.fault)):
				t.Errorf("faults: %v, want one with %s", faults, c.fault)
			}
		})
	}
}

// TestJudgeDefaultCollation uses the lists that MongoDB gives for a collection with a default
// collation. The test servers do not have collations.
func TestJudgeDefaultCollation(t *testing.T) {
	raw := func(text string) (raw bson.Raw) {
		if err := bson.UnmarshalExtJSON([]byte(text), false, &raw); err != nil {
			t.Fatal(err)
		}
		return raw
	}
	german := raw(`{"locale": "de", "strength": 2}`)
	id := index{name: "_id_", keys: raw(`{"_id": 1}`), collation: german}
	clerkID := index{name: "clerkId_1", keys: raw(`{"clerkId": 1}`), unique: true, sparse: true, collation: german}
	for name, indexes := range map[string][]index{"New": {id}, "Opened": {id, clerkID}} {
		t.Run(name, func(t *testing.T) {
			faults := offline(t).judge(indexes, nil)
			if len(faults) != 1 {
				t.Fatalf("faults: %v, want one", faults)
			}
			text := faults[0].Error()
			if !strings.Contains(text, `the collection "users" has a default collation`) || strings.Contains(text, "dropIndex") {
				t.Error(text)
			}
		})
	}
	id.collation = nil
	faults := offline(t).judge([]index{id, clerkID}, nil)
	if len(faults) != 1 || !strings.Contains(faults[0].Error(), `dropIndex("clerkId_1")`) {
		t.Errorf("faults of the index's own collation: %v", faults)
	}
	// The simple collation does not count.
	id, plain := index{name: "_id_", keys: raw(`{"_id": 1}`), unique: true}, clerkID
	plain.collation = nil
	if faults := offline(t).judge([]index{id, plain}, nil); faults != nil {
		t.Errorf("faults: %v", faults)
	}
}

// TestExplainWithoutPermission calls explain itself: the test servers do not have access control.
func TestExplainWithoutPermission(t *testing.T) {
	s := offline(t)
	unauthorized := mongo.CommandError{Code: codeUnauthorized, Name: "Unauthorized", Message: "not authorized on app"}
	err := s.explain(t.Context(), unauthorized, nil)
	want := "mongostore: open: clerkId has no unique index that lookups use, and this user may not create one; have it created: " +
		`db.getCollection("users").createIndex({"clerkId": 1}, {name: "clerkId_1", unique: true, sparse: true}): server error 13, Unauthorized: ` + advices[13].text
	if err == nil || err.Error() != want {
		t.Errorf("error\n%v, want\n%v", err, want)
	}
	if cmd := (mongo.CommandError{}); !errors.As(err, &cmd) {
		t.Error("the driver's error is lost")
	}
}

// TestReplaceByPartial checks the lines for indexes of every kind as what they say, in the
// order in which they are to be run.
func TestReplaceByPartial(t *testing.T) {
	exists := bson.D{{Key: "$exists", Value: true}}
	caseless := bson.D{{Key: "locale", Value: "en"}, {Key: "strength", Value: int32(2)}, {Key: "backwards", Value: false}}
	for name, c := range map[string]struct {
		keys      bson.D
		named     string
		collation bson.D
		others    bson.D
	}{
		"Ascending":  {keys: bson.D{{Key: "email", Value: int32(1)}}, named: "email_1"},
		"Descending": {keys: bson.D{{Key: "email", Value: int32(-1)}}, named: "email_-1"},
		"Compound":   {keys: bson.D{{Key: "tenant", Value: int32(1)}, {Key: "email", Value: int32(-1)}}, named: "both"},
		"Nested":     {keys: bson.D{{Key: "profile.phoneNumber", Value: int32(1)}}, named: "profile.phoneNumber_1"},
		"Hashed":     {keys: bson.D{{Key: "email", Value: "hashed"}}, named: "email_hashed"}, // DocumentDB may have it
		"OddNames":   {keys: bson.D{{Key: `a "b" c`, Value: int32(1)}}, named: `it's "the\index.1"`},
		"Collation":  {keys: bson.D{{Key: "email", Value: int32(1)}}, named: "email_1", collation: caseless},
		"Others":     {keys: bson.D{{Key: "email", Value: int32(1)}}, named: "email_1", others: bson.D{{Key: "hidden", Value: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := offline(t)
			s.coll.raw = s.coll.Database().Collection(`the "users"`)
			old := index{name: c.named, keys: mustMarshal(t, c.keys), unique: true}
			options := bson.D{{Key: "name", Value: c.named}, {Key: "unique", Value: true}}
			filter := bson.D{}
			for _, e := range c.keys {
				filter = append(filter, bson.E{Key: e.Key, Value: exists})
			}
			partial := bson.D{
				{Key: "name", Value: c.named + "_partial"}, {Key: "unique", Value: true}, {Key: "partialFilterExpression", Value: filter},
			}
			if c.collation != nil { // the version is the server's, and createIndex may refuse it
				old.collation = mustMarshal(t, append(c.collation[:3:3], bson.E{Key: "version", Value: "57.1"}))
				options = append(options, bson.E{Key: "collation", Value: c.collation})
				partial = append(partial, bson.E{Key: "collation", Value: c.collation})
			}
			if c.others != nil {
				old.others = mustMarshal(t, c.others)
				options, partial = append(options, c.others...), append(partial, c.others...)
			}
			call := func(method string, args ...any) ShellCall { return ShellCall{`the "users"`, method, args} }
			want := []ShellCall{
				call("createIndex", c.keys, partial), call("dropIndex", c.named),
				call("dropIndex", c.named), call("createIndex", c.keys, partial), call("createIndex", c.keys, options),
				{"schema", "index", []any{c.keys, partial}}, clerkIDSchema("clerkId_1"),
			}
			faults := s.judge([]index{old}, nil)
			if len(faults) != 1 {
				t.Fatalf("faults: %v", faults)
			}
			checkCalls(t, faults[0], want)
			if text := faults[0].Error(); strings.Contains(text, "$number") || !strings.Contains(text, "code 85 or 86") {
				t.Error(text)
			}
			// On a line of its own, mongosh would drop the old index even if the new one failed.
			first, _, _ := strings.Cut(faults[0].Error(), "code 85")
			if !regexp.MustCompile(`createIndex\(.*\); db\..*dropIndex\(`).MatchString(first) || strings.Contains(first, "\tdb.") &&
				strings.Count(first, "\tdb.") != 1 {
				t.Errorf("creation and drop are not one line:\n%s", first)
			}
		})
	}
}

// clerkIDSchema is the line for the index that Open makes.
func clerkIDSchema(name string) ShellCall {
	options := bson.D{{Key: "name", Value: name}, {Key: "unique", Value: true}, {Key: "sparse", Value: true}}
	return ShellCall{"schema", "index", []any{bson.D{{Key: "clerkId", Value: int32(1)}}, options}}
}

func checkCalls(t *testing.T, fault error, want []ShellCall) {
	t.Helper()
	calls, err := ShellCalls(fault.Error())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, calls); d != "" {
		t.Errorf("%v\nsays (-want +got):\n%s", fault, d)
	}
}

// TestReplaceByPartialOnTheWay looks at collections in which half of the advice is followed,
// or the new name is taken.
func TestReplaceByPartialOnTheWay(t *testing.T) {
	s := offline(t)
	keys := mustMarshal(t, bson.D{{Key: "email", Value: 1}})
	old := index{name: "email_1", keys: keys, unique: true}
	partial := old.partialForm(nil)
	theirs := s.clerkIDIndex(nil)
	theirs.name = "theirs"
	faults := s.judge([]index{old, partial, theirs}, nil)
	if len(faults) != 1 {
		t.Fatalf("faults: %v", faults)
	}
	calls, err := ShellCalls(faults[0].Error())
	if err != nil || len(calls) != 3 || calls[0].Method != "dropIndex" || calls[1].Method != "index" {
		t.Errorf("%v, %v", faults[0], err)
	}
	if d := cmp.Diff(clerkIDSchema("theirs"), calls[2]); d != "" {
		t.Errorf("the schema's line for clerkId:\n%s", d)
	}

	taken := partial
	taken.keys = mustMarshal(t, bson.D{{Key: "phone", Value: 1}})
	if got := old.partialForm([]index{old, taken}).name; got != "email_1_partial_2" {
		t.Errorf("name %s", got)
	}
}

// TestCollatedClerkID checks that no advice leaves clerkId without a unique index.
func TestCollatedClerkID(t *testing.T) {
	s := offline(t)
	keys := bson.D{{Key: "clerkId", Value: int32(1)}}
	collated := index{name: "theirs", keys: mustMarshal(t, keys), unique: true, collation: mustMarshal(t, bson.D{{Key: "locale", Value: "en"}})}
	options := bson.D{{Key: "name", Value: "clerkId_1"}, {Key: "unique", Value: true}, {Key: "sparse", Value: true}}
	checkCalls(t, errors.Join(s.judge([]index{collated}, nil)...), []ShellCall{
		{"users", "createIndex", []any{keys, options}}, {"users", "dropIndex", []any{"theirs"}},
		clerkIDSchema("clerkId_1"),
	})
	faults := s.judge([]index{collated, s.clerkIDIndex(nil)}, nil)
	if len(faults) != 1 || !strings.HasSuffix(faults[0].Error(), `drop it: db.getCollection("users").dropIndex("theirs")`) {
		t.Errorf("%v", faults)
	}
}

// TestReplaceOnClerkID checks the advice on an index on clerkId that is not enough, on a server
// that allows one index on the same keys.
func TestReplaceOnClerkID(t *testing.T) {
	keys := bson.D{{Key: "clerkId", Value: int32(1)}}
	theirs := bson.D{{Key: "name", Value: "theirs"}}
	uniquely := bson.D{theirs[0], {Key: "unique", Value: true}}
	wanted := bson.D{theirs[0], uniquely[1], {Key: "sparse", Value: true}}
	ofType := bson.D{{Key: "clerkId", Value: bson.D{{Key: "$type", Value: "string"}}}}
	hidden := bson.D{{Key: "hidden", Value: true}}
	swap := func(old bson.D) []ShellCall {
		return []ShellCall{
			{"users", "dropIndex", []any{"theirs"}}, {"users", "createIndex", []any{keys, wanted}}, {"users", "createIndex", []any{keys, old}},
			clerkIDSchema("theirs"),
		}
	}
	for name, c := range map[string]struct {
		index index
		says  string
		want  []ShellCall
	}{
		"NotUnique": {index{}, "does not make every clerkId unique", swap(theirs)},
		"Type": {index{unique: true, partial: mustMarshal(t, ofType)}, "keeps MongoDB from using it",
			swap(append(uniquely[:2:2], bson.E{Key: "partialFilterExpression", Value: ofType}))},
		"Hidden": {index{unique: true, others: mustMarshal(t, hidden)}, "is hidden",
			[]ShellCall{{"users", "unhideIndex", []any{"theirs"}}}},
		"HiddenSparse": {index{unique: true, sparse: true, others: mustMarshal(t, hidden)}, "is hidden",
			[]ShellCall{{"users", "unhideIndex", []any{"theirs"}}}},
		"HiddenType": {index{unique: true, partial: mustMarshal(t, ofType), others: mustMarshal(t, hidden)}, "keeps MongoDB from using it",
			swap(append(uniquely[:2:2], bson.E{Key: "partialFilterExpression", Value: ofType}, hidden[0]))},
		"HiddenNotUnique": {index{others: mustMarshal(t, hidden)}, "does not make every clerkId unique",
			swap(append(theirs[:1:1], hidden[0]))},
	} {
		t.Run(name, func(t *testing.T) {
			c.index.name, c.index.keys = "theirs", mustMarshal(t, keys)
			text := offline(t).replaceOnClerkID(c.index)
			if !strings.Contains(text, c.says) {
				t.Errorf("%s\nwant %q", text, c.says)
			}
			checkCalls(t, errors.New(text), c.want)
		})
	}
}

// TestExplainStrictStableAPI has a client whose ServerAPI options are strict.
func TestExplainStrictStableAPI(t *testing.T) {
	s := offline(t)
	err := s.explain(t.Context(), mongo.CommandError{Code: codeStableAPI, Name: "APIStrictError"}, nil)
	keys := bson.D{{Key: "clerkId", Value: int32(1)}}
	partial := bson.D{
		{Key: "name", Value: "clerkId_1"}, {Key: "unique", Value: true},
		{Key: "partialFilterExpression", Value: bson.D{{Key: "clerkId", Value: bson.D{{Key: "$exists", Value: true}}}}},
	}
	checkCalls(t, err, []ShellCall{{"users", "createIndex", []any{keys, partial}}, {"schema", "index", []any{keys, partial}}})
	made := index{name: "clerkId_1", keys: mustMarshal(t, keys), unique: true, partial: mustMarshal(t, partial[2].Value)}
	if !made.keepsClerkID() {
		t.Error("Open does not accept the index that it advises")
	}
}
