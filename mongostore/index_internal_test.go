package mongostore

import (
	"errors"
	"strings"
	"testing"

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
