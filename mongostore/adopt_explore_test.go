package mongostore_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// someAdoptions is how many scenarios TestExploreAdopt runs by default.
const someAdoptions = 15

// TestExploreAdopt is TestExplore for Stores that adopt, on records that the app had before Clerk.
func TestExploreAdopt(t *testing.T) {
	t.Parallel()
	all := adoptScenarios()
	if *explore == "some" {
		all = choose(all, someAdoptions)
	}
	exploreAll(t, newExplorer(t, adoptAny()), all, *explore == "two")
}

// TestExploreAdoptFindsFaults explores an operation that links a record without a guard.
func TestExploreAdoptFindsFaults(t *testing.T) {
	t.Parallel()
	e := newExplorer(t, adoptAny())
	unguarded := operation{name: "x adopts, unguarded", run: func(ctx context.Context, s stores) results {
		filter := bson.D{{Key: "legacyId", Value: "a"}, {Key: "clerkId", Value: nil}}
		raw, err := s.raw.FindOne(ctx, filter).Raw()
		if err != nil {
			return results{"x": "conflict on legacyId"}
		}
		_, err = s.raw.UpdateOne(ctx, bson.D{{Key: "_id", Value: raw.Lookup("_id")}},
			bson.D{{Key: "$set", Value: bson.D{{Key: "clerkId", Value: "user_x"}}}})
		return results{"x": fmt.Sprint("adopted ", err)}
	}}
	sc := scenario{
		before: []operation{legacyOf("l", bson.E{Key: "legacyId", Value: "a"})},
		a:      unguarded, b: upsertOf(exploredUser{who: "y", version: 2, name: "why", external: "a"}),
	}
	if faults := e.faults(t, sc, false); len(faults) != 1 {
		t.Errorf("found %q, want the record that was taken from y", faults)
	}
}

// legacyOf makes a record that the app had before Clerk, which is trusted.
func legacyOf(id string, fields ...bson.E) operation {
	doc := append(bson.D{{Key: "_id", Value: id}, {Key: "emailVerified", Value: true}, {Key: "role", Value: "ADMIN"}}, fields...)
	return operation{name: fmt.Sprint("the app inserts ", doc), run: func(ctx context.Context, s stores) results {
		if _, err := s.raw.InsertOne(ctx, doc); mongo.IsDuplicateKeyError(err) {
			return results{"the app": "conflict"}
		} else if err != nil {
			return results{"the app": err.Error()}
		}
		return nil
	}}
}

// changeLegacy writes fields of such a record as the app does.
func changeLegacy(id string, fields ...bson.E) operation {
	return operation{name: fmt.Sprint("the app sets ", fields, " of ", id), run: func(ctx context.Context, s stores) results {
		_, err := s.raw.UpdateOne(ctx, bson.D{{Key: "_id", Value: id}}, bson.D{{Key: "$set", Value: bson.D(fields)}})
		if err != nil {
			return results{"the app": err.Error()}
		}
		return nil
	}}
}

func deactivateExternalOf(who, external string, erase bool) operation {
	return operation{name: fmt.Sprintf("deactivate %s, external %s, erase %t", who, external, erase), run: func(ctx context.Context, s stores) results {
		store := s.keeping
		if erase {
			store = s.erasing
		}
		res, err := store.DeactivateExternal(ctx, "user_"+who, external, hour(9))
		return results{who: outcomeText(res.Outcome, err)}
	}}
}

// adoptScenarios returns each pair of operations on each set of records.
func adoptScenarios() (all []scenario) {
	field := func(name string, value any) bson.E { return bson.E{Key: name, Value: value} }
	mail := func(letter string) bson.E { return field("email", letter+"@example.com") }
	x2 := exploredUser{who: "x", version: 2, name: "two", email: "m", external: "a"}
	y2 := exploredUser{who: "y", version: 2, name: "why", email: "m", proven: true}
	x3 := exploredUser{who: "x", version: 3, name: "three", email: "m", proven: true}
	y3 := exploredUser{who: "y", version: 3, name: "why three", email: "n", external: "a"}
	operations := []operation{
		upsertOf(x2), upsertOf(x3), upsertOf(y2), upsertOf(y3),
		upsertOf(exploredUser{who: "x", version: 4, name: "four", email: "m"}),
		upsertOf(exploredUser{who: "x", version: 0, synced: 6, name: "none", email: "n", external: "a"}),
		deactivateOf("x"), deactivateExternalOf("x", "a", false), deactivateExternalOf("y", "a", true),
	}
	for _, guess := range guesses {
		operations = append(operations, batchOf(guess, x3, y3), batchOf(guess, x2))
	}
	ofTheApp := []operation{
		changeLegacy("l", field("name", bson.D{})), changeLegacy("l", mail("o")), changeLegacy("l", field("emailVerified", false)),
		changeLegacy("l", field("legacyId", "b")), changeLegacy("l", field("role", "GUEST")), changeLegacy("l", field("isActive", false)),
		changeLegacy("l", field("deletedAt", hour(0))), changeLegacy("l", field("tags", "of the app")), legacyOf("late", mail("m")),
	}
	late := len(ofTheApp) - 1
	free := legacyOf("l", mail("m"), field("legacyId", "a"))
	for i, before := range [][]operation{
		{upsertOf(exploredUser{who: "z", version: 1, name: "gone", email: "m"}), deactivateOf("z"), legacyOf("l", field("legacyId", "a"))},
		{free},
		{legacyOf("l", field("clerkId", nil), field("legacyId", "a")), legacyOf("other", mail("m"))},
		{legacyOf("l", mail("m"), field("emailVerified", nil))},
		{free, upsertOf(x2)},
		{free, upsertOf(exploredUser{who: "x", version: 1, name: "one"})},
		{free, deactivateOf("x")},
		nil,
	} {
		app := ofTheApp
		if i == 0 { // between the release of an address and its writing, the app could insert it
			app = app[:late]
		}
		for _, a := range operations {
			for _, b := range slices.Concat(operations, app) {
				if a.parts != nil && (b.name == ofTheApp[0].name || b.name == ofTheApp[1].name) {
					continue // a batch of which a part fails may write Clerk's fields of a linked record again
				}
				all = append(all, scenario{before, a, b})
			}
		}
	}
	return all
}

// legacyText says what became of the records that the app had before Clerk.
func (e *explorer) legacyText(t *testing.T) (text string) {
	t.Helper()
	cursor, err := e.base.coll.Find(t.Context(), bson.D{{Key: "_id", Value: bson.D{{Key: "$type", Value: "string"}}}})
	if err != nil {
		t.Fatal(err)
	}
	var docs []bson.Raw
	if err := cursor.All(t.Context(), &docs); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, doc := range docs {
		line := "    "
		for _, name := range []string{"_id", "clerkId", "email", "emailVerified", "legacyId", "role", "isActive", "name", "adoptedBy", "deletedAt"} {
			line += fmt.Sprintf("%s %s ", name, doc.Lookup(name))
		}
		lines = append(lines, line+"\n")
	}
	slices.Sort(lines)
	for _, line := range lines {
		text += line
	}
	if both := e.a.results["the app"] + e.b.results["the app"]; both != "" {
		text += "    the app: " + both + "\n"
	}
	return text
}
