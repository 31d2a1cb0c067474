package mongostore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// race is what happens before a command of an Upsert that may adopt the record with the _id 1.
type race struct {
	before    string // the kind of the command, of which the first one counts, or the second write
	other     func(t *testing.T, s rawStore)
	byEmail   bool // else by external id
	noLegacy  bool
	unique    bool // there is a unique index on the address
	want      clerksync.Outcome
	wantError func(err error) bool // nil: none
	of        string               // whose record 1 is afterwards
}

func setOne(fields ...bson.E) func(*testing.T, rawStore) {
	return func(t *testing.T, s rawStore) {
		if _, err := s.coll.UpdateOne(t.Context(), bson.D{{Key: "_id", Value: 1}}, bson.D{{Key: "$set", Value: bson.D(fields)}}); err != nil {
			t.Error(err)
		}
	}
}

func adoptionRaces() map[string]race {
	const adoption, creation = "findAndModify", "second write"
	field := func(name string, value any) bson.E { return bson.E{Key: name, Value: value} }
	isUnlinked := func(err error) bool { return errors.Is(err, clerksync.ErrUnlinked) }
	isConflict := func(field, holder, typ string) func(error) bool {
		return func(err error) bool {
			var c *clerksync.ConflictError
			return errors.As(err, &c) && c.Field == field && c.Holder == holder && c.Type == typ
		}
	}
	offer := func(u *clerksync.User) func(*testing.T, rawStore) {
		return func(t *testing.T, s rawStore) {
			if _, err := s.Upsert(t.Context(), u); err != nil {
				t.Error(err)
			}
		}
	}
	bob := change(person("bob", 1), func(u *clerksync.User) { u.ExternalID = "a7" })
	insertOne := func(t *testing.T, s rawStore) { insert(t, s.coll, legacy(1, field("legacyId", "a7"))) }
	ofTheWebhook := func(t *testing.T, s rawStore) { // of a process that does not adopt
		upsert(t, open(t, s.coll, nil), change(ada(1), func(u *clerksync.User) { u.Email = "" }), clerksync.Created)
	}
	deleted := func(t *testing.T, s rawStore) { deactivate(t, s, "user_ada", hour(4)) }
	named := func(t *testing.T, s rawStore) {
		if _, err := s.DeactivateExternal(t.Context(), "user_ada", "a7", hour(4)); err != nil {
			t.Error(err)
		}
	}
	return map[string]race{
		// The app changes the record between the search and the adoption.
		"the address changes":         {before: adoption, other: setOne(field("email", "eve@example.com")), byEmail: true, want: clerksync.Created},
		"the address becomes a list":  {before: adoption, other: setOne(field("email", bson.A{"ada@example.com"})), byEmail: true, wantError: isConflict("email", "", "array")},
		"trust is withdrawn":          {before: adoption, other: setOne(field("emailVerified", false)), byEmail: true, wantError: isUnlinked},
		"it is linked to another":     {before: adoption, other: setOne(field("clerkId", "user_eve")), byEmail: true, want: clerksync.Created, of: "user_eve"},
		"it is linked, by id":         {before: adoption, other: setOne(field("clerkId", "user_eve")), wantError: isConflict("legacyId", "user_eve", ""), of: "user_eve"},
		"it is deleted":               {before: adoption, other: setOne(field("deletedAt", hour(0))), byEmail: true, want: clerksync.Created},
		"it is deleted, by id":        {before: adoption, other: setOne(field("deletedAt", hour(0))), wantError: isConflict("legacyId", "", "")},
		"it has another external id":  {before: adoption, other: setOne(field("legacyId", "a8")), wantError: isUnlinked},
		"a name gets another type":    {before: adoption, other: setOne(field("name", bson.D{})), wantError: isConflict("name", "", "object")},
		"a name of Extra gets a type": {before: adoption, other: setOne(field("plan", "gold")), wantError: isConflict("plan", "", "string")},
		"clerkId becomes a list":      {before: adoption, other: setOne(field("clerkId", bson.A{nil})), wantError: isConflict("clerkId", "", "array")},
		"its name changes":            {before: adoption, other: setOne(field("name", "of the app")), want: clerksync.Adopted, of: "user_ada"},
		"its role changes":            {before: adoption, other: setOne(field("role", "GUEST")), want: clerksync.Adopted, of: "user_ada"},
		"it is suspended":             {before: adoption, other: setOne(field("isActive", false)), want: clerksync.Adopted, of: "user_ada"},
		"it gains credits":            {before: adoption, other: setOne(field("credits", int32(8))), want: clerksync.Adopted, of: "user_ada"},
		"trust in it does not matter": {before: adoption, other: setOne(field("emailVerified", false)), want: clerksync.Adopted, of: "user_ada"},

		// Another user, or the same one elsewhere.
		"two users want it":        {before: adoption, other: offer(bob), wantError: isConflict("legacyId", "user_bob", ""), of: "user_bob"},
		"it is adopted elsewhere":  {before: adoption, other: offer(external("a7", 1)), want: clerksync.Unchanged, of: "user_ada"},
		"adopted with a newer one": {before: adoption, other: offer(external("a7", 2)), want: clerksync.Stale, of: "user_ada"},
		"a record is made":         {before: adoption, other: ofTheWebhook, want: clerksync.Updated},
		"the user is deleted":      {before: adoption, other: deleted, want: clerksync.Deactivated},
		"deleted, by external id":  {before: adoption, other: named, want: clerksync.Deactivated, of: "user_ada"},

		// Before the search, and between it and the creation.
		"it comes before the search":      {before: "find", noLegacy: true, other: insertOne, want: clerksync.Adopted, of: "user_ada"},
		"a record is made before that":    {before: "find", other: ofTheWebhook, want: clerksync.Updated},
		"deleted before the search":       {before: "find", other: deleted, want: clerksync.Deactivated},
		"a record is made, then ours":     {before: creation, noLegacy: true, other: ofTheWebhook, want: clerksync.Updated},
		"deleted before the creation":     {before: creation, noLegacy: true, other: deleted, want: clerksync.Deactivated},
		"it comes, and an index says so":  {before: creation, noLegacy: true, unique: true, other: insertOne, want: clerksync.Adopted, of: "user_ada"},
		"it comes, and is not to be ours": {before: creation, noLegacy: true, unique: true, other: func(t *testing.T, s rawStore) { insert(t, s.coll, legacy(1)) }, wantError: isUnlinked},
		// Nothing can know: see the comment on adoption.
		"it comes, and nothing says so": {before: creation, noLegacy: true, other: insertOne, want: clerksync.Created},
	}
}

// TestAdoptRaces lets others act in the middle of an adoption.
func TestAdoptRaces(t *testing.T) {
	t.Parallel()
	for name, r := range adoptionRaces() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := openRacing(t, r, nil)
			if !r.noLegacy {
				insert(t, base.coll, legacy(1, bson.E{Key: "legacyId", Value: "a7"}))
			}
			var writes, met atomic.Int32
			armed := false
			s := openRacing(t, r, &base).with(t, r, func(cmd bson.Raw) {
				kind := commandKind(cmd)
				if armed && kind == "write" && writes.Add(1) == 2 {
					kind = "second write"
				}
				if armed && kind == r.before && met.Add(1) == 1 {
					r.other(t, base)
				}
			})
			armed = true
			u := external("a7", 1)
			if r.byEmail {
				u = proven(1)
			}
			res, err := s.Upsert(t.Context(), u)
			armed = false
			if met.Load() == 0 {
				t.Fatal("the command was not sent")
			}
			if r.wantError != nil && !r.wantError(err) || r.wantError == nil && err != nil || res.Outcome != r.want {
				t.Fatalf("%v, %v (%T), want %v", res.Outcome, err, err, r.want)
			}
			checkRace(t, base, r)
		})
	}
}

// openRacing returns a Store on a new collection, or on that of base.
func openRacing(t *testing.T, r race, base *rawStore) rawStore {
	t.Helper()
	if base != nil {
		return *base
	}
	coll := newCollection(t)
	if r.unique {
		createIndex(t, coll, ascending("email"), options.Index().SetUnique(true).SetSparse(true).SetName("email"))
	}
	return rawStore{open(t, coll, r.options()), coll}
}

func (r race) options() *mongostore.Options {
	return &mongostore.Options{BatchSize: batchSize, Adopt: adoptAny(), AllowUnique: []string{"email"}}
}

// with returns a Store whose commands are hooked.
func (s rawStore) with(t *testing.T, r race, hook func(bson.Raw)) *mongostore.Store {
	t.Helper()
	return open(t, newHooked(t, s.coll, hook), r.options())
}

// checkRace checks that record 1 is whose it should be, that what the app wrote to it stays, and
// that each user has at most one record.
func checkRace(t *testing.T, s rawStore, r race) {
	t.Helper()
	one, err := s.coll.FindOne(t.Context(), bson.D{{Key: "_id", Value: 1}}).Raw()
	if errors.Is(err, mongo.ErrNoDocuments) && r.noLegacy && r.of == "" {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if id, _ := one.Lookup("clerkId").StringValueOK(); id != r.of {
		t.Errorf("record 1 is of %q, want %q", id, r.of)
	}
	if n, err := s.coll.CountDocuments(t.Context(), bson.D{{Key: "clerkId", Value: "user_ada"}}); err != nil || n > 1 {
		t.Errorf("%d records of ada, %v", n, err)
	}
	if credits := one.Lookup("credits").Int32(); credits != 7 && credits != 8 {
		t.Errorf("credits %d", credits)
	}
}

// TestAdoptRaceKeeps checks what the app wrote between the search and the adoption.
func TestAdoptRaceKeeps(t *testing.T) {
	t.Parallel()
	for name, fields := range map[string]bson.D{
		"role": {{Key: "role", Value: "GUEST"}}, "isActive": {{Key: "isActive", Value: false}}, "createdAt": {{Key: "createdAt", Value: hour(-7)}},
		"credits": {{Key: "credits", Value: int32(8)}}, "bio": {{Key: "profile", Value: bson.D{{Key: "bio", Value: "x"}}}},
	} {
		r := race{before: "findAndModify"}
		base := openRacing(t, r, nil)
		insert(t, base.coll, without(legacy(1, bson.E{Key: "legacyId", Value: "a7"}), "role"))
		armed := true
		s := base.with(t, r, func(cmd bson.Raw) {
			if armed && commandName(cmd) == r.before && !cmd.Lookup("query", "_id").IsZero() {
				armed = false
				setOne(fields...)(t, base)
			}
		})
		if res, err := s.Upsert(t.Context(), external("a7", 1)); err != nil || res.Outcome != clerksync.Adopted || armed {
			t.Errorf("%s: %v, %v", name, res.Outcome, err)
		}
		doc := base.rawDocument(t, "user_ada")
		for _, e := range fields {
			want, err := bson.Marshal(bson.D{e})
			if err != nil {
				t.Fatal(err)
			}
			got := doc.Lookup(e.Key)
			if bio := got; e.Key == "profile" {
				if text, _ := bio.Document().Lookup("bio").StringValueOK(); text != "x" {
					t.Errorf("%s: profile %s", name, got)
				}
			} else if !got.Equal(bson.Raw(want).Lookup(e.Key)) {
				t.Errorf("%s: %s", name, got)
			}
		}
	}
}

// TestAdoptRaceKeepsTheParent has the app write beside a nested Clerk id, between the search and the
// adoption: the document was absent, and the adoption must not replace it.
func TestAdoptRaceKeepsTheParent(t *testing.T) {
	t.Parallel()
	opts := &mongostore.Options{Adopt: adoptAny(), Fields: mongostore.Fields{"clerkId": "auth.id"}}
	base := newCollection(t)
	monitor.expect(base.Name(), "auth.id")
	insert(t, base, legacy(1, bson.E{Key: "legacyId", Value: "a7"}))
	armed := true
	s := open(t, newHooked(t, base, func(cmd bson.Raw) {
		if armed && commandName(cmd) == "findAndModify" {
			armed = false
			setOne(bson.E{Key: "auth.theme", Value: "dark"})(t, rawStore{coll: base})
		}
	}), opts)
	if res, err := s.Upsert(t.Context(), external("a7", 1)); err != nil || res.Outcome != clerksync.Adopted || armed {
		t.Errorf("%v, %v", res.Outcome, err)
	}
	var got struct{ Auth struct{ ID, Theme string } }
	if err := base.FindOne(t.Context(), bson.D{{Key: "_id", Value: 1}}).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Auth.ID != "user_ada" || got.Auth.Theme != "dark" {
		t.Errorf("auth is %+v", got.Auth)
	}
}

// TestAdoptConcurrently has many calls want one record: calls for one user, and for several.
func TestAdoptConcurrently(t *testing.T) {
	t.Parallel()
	for range count(1, 4**rounds) {
		for _, several := range []bool{false, true} {
			coll := newCollection(t)
			s := openAdopting(t, coll, adoptAny())
			insert(t, coll, legacy(1, bson.E{Key: "legacyId", Value: "a7"}))
			const calls = 12
			outcomes, errs := make([]clerksync.Outcome, calls), make([]error, calls)
			var all sync.WaitGroup
			for i := range calls {
				u := proven(1)
				if several {
					u = change(person(fmt.Sprint("n", i), 1), func(u *clerksync.User) { u.ExternalID = "a7" })
				}
				all.Go(func() {
					if i%2 == 0 {
						res, err := s.Upsert(t.Context(), u)
						outcomes[i], errs[i] = res.Outcome, err
						return
					}
					res, err := s.UpsertBatch(t.Context(), []*clerksync.User{u})
					outcomes[i], errs[i] = res[0].Outcome, err
				})
			}
			all.Wait()
			var adopted []int
			for i, o := range outcomes {
				var conflict *clerksync.ConflictError
				switch {
				case o == clerksync.Adopted && errs[i] == nil:
					adopted = append(adopted, i)
				case several && errors.As(errs[i], &conflict) && conflict.Holder != "":
				case !several && errs[i] == nil && slices.Contains([]clerksync.Outcome{clerksync.Unchanged, clerksync.Updated}, o):
				default:
					t.Errorf("several %t: call %d: %v, %v", several, i, o, errs[i])
				}
			}
			if docs := s.snapshot(t); len(adopted) != 1 || len(docs) != 1 {
				t.Errorf("several %t: %d calls adopted, %d records", several, len(adopted), len(docs))
			}
		}
	}
}

// TestAdoptWritesMayComeTwice loses the answer to every write, so that the driver sends it again:
// exactly one call reports Adopted.
func TestAdoptWritesMayComeTwice(t *testing.T) {
	t.Parallel()
	base := twice(t, nil)
	s := rawStore{open(t, twiceOn(t, base.coll), &mongostore.Options{BatchSize: batchSize, Adopt: adoptAny()}), base.coll}
	insert(t, s.coll, legacy(1), legacy(2, bson.E{Key: "email"}, bson.E{Key: "legacyId", Value: "a7"}))
	upsert(t, s, proven(1), clerksync.Adopted)
	upsert(t, s, proven(1), clerksync.Unchanged)
	bob := change(person("bob", 1), func(u *clerksync.User) { u.ExternalID = "a7" })
	results, errs := upsertBatch(t, s.Store, bob, person("new", 1))
	if results[0].Outcome != clerksync.Adopted || results[1].Outcome != clerksync.Created {
		t.Errorf("batch: %+v, %v", results, errs)
	}
	if n := len(s.snapshot(t)); n != 3 {
		t.Errorf("%d records", n)
	}
}

// adoptingCalls are calls for callCases that adopt. The records are seeded by name.
func adoptingCalls() map[string]call {
	seed := func(suffixes ...string) func(*testing.T, rawStore, string) {
		return func(t *testing.T, base rawStore, name string) {
			for _, suffix := range suffixes {
				insert(t, base.coll, legacy(name+suffix, bson.E{Key: "email", Value: name + suffix + "@example.com"}, bson.E{Key: "legacyId", Value: name + suffix}))
			}
		}
	}
	user := func(name string, n int) *clerksync.User {
		return change(person(name, n), func(u *clerksync.User) { u.ExternalID, u.EmailProven = name, true })
	}
	one := func(res clerksync.Result, err error) ([]clerksync.Result, error) { return []clerksync.Result{res}, err }
	return map[string]call{
		"Upsert, adopted": {before: seed(""), run: func(ctx context.Context, s *mongostore.Store, name string) ([]clerksync.Result, error) {
			return one(s.Upsert(ctx, user(name, 1)))
		}, want: []clerksync.Outcome{clerksync.Adopted}, record: map[string]int{"": 1}},
		"Upsert, by email": {before: seed(""), run: func(ctx context.Context, s *mongostore.Store, name string) ([]clerksync.Result, error) {
			return one(s.Upsert(ctx, change(user(name, 1), func(u *clerksync.User) { u.ExternalID = "" })))
		}, want: []clerksync.Outcome{clerksync.Adopted}, record: map[string]int{"": 1}},
		"Upsert, created": {before: seed(), run: func(ctx context.Context, s *mongostore.Store, name string) ([]clerksync.Result, error) {
			return one(s.Upsert(ctx, user(name, 1)))
		}, want: []clerksync.Outcome{clerksync.Created}, record: map[string]int{"": 1}},
		"UpsertBatch": {before: seed("a", "b"), run: func(ctx context.Context, s *mongostore.Store, name string) ([]clerksync.Result, error) {
			return s.UpsertBatch(ctx, []*clerksync.User{user(name+"a", 1), user(name+"b", 1), user(name+"c", 1), user(name+"a", 2)})
		}, record: map[string]int{"a": 2, "b": 1, "c": 1}},
		"DeactivateExternal": {before: seed(""), run: func(ctx context.Context, s *mongostore.Store, name string) ([]clerksync.Result, error) {
			return one(s.DeactivateExternal(ctx, "user_"+name, name, hour(1)))
		}, want: []clerksync.Outcome{clerksync.Deactivated}, record: map[string]int{"": -1}},
		"DeactivateOwing": {before: seed(""), run: func(ctx context.Context, s *mongostore.Store, name string) ([]clerksync.Result, error) {
			_, owes, err := s.DeactivateOwing(ctx, "user_"+name, name, hour(1), jobOwed.Due)
			if err == nil && owes != clerksync.OwesJob {
				err = fmt.Errorf("%w: it owes %v", errWrongAnswer, owes)
			}
			return nil, err
		}, record: map[string]int{"": -1}, after: func(t *testing.T, base rawStore, what, id string) {
			if u, err := base.User(t.Context(), id); err != nil || u.Jobs.Of(clerksync.JobDelete) != ofDeletion(jobOwed) {
				t.Errorf("%s: the record is %+v, %v", what, u, err)
			}
		}},
	}
}

// TestAdoptFaults lets each fault happen to each command of calls that adopt. Either the call
// succeeds, or doing it again does: nothing is left half done.
func TestAdoptFaults(t *testing.T) {
	t.Parallel()
	coll := openAdopting(t, newCollection(t), adoptAny()).coll
	names := 0
	for faultName, fault := range faultCases() {
		for _, retry := range retrying(faultName) {
			t.Run(fmt.Sprint(faultName, " retryWrites=", retry), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					direct := newClient(t, nil).Database(coll.Database().Name()).Collection(coll.Name())
					base := openAdopting(t, direct, adoptAny())
					faulty, f := newFront(t, coll, replicaSet, retryWrites(retry))
					s := open(t, faulty, &mongostore.Options{BatchSize: batchSize, Adopt: adoptAny()})
					for callName, call := range adoptingCalls() {
						for nth := 1; ; nth++ {
							names++
							what := fmt.Sprintf("%s, command %d", callName, nth)
							if !call.meet(t, what, base, f, s, fault, nth, fault.errs && !retry, fmt.Sprint("n", names)) {
								break
							}
						}
					}
				})
			})
		}
	}
}

// someAdoptions is how many scenarios TestExploreAdopt runs by default, manyAdoptions with
// -explore=many.
const (
	someAdoptions = 15
	manyAdoptions = 800
)

// TestExploreAdopt is TestExplore for Stores that adopt, on records that the app had before Clerk.
func TestExploreAdopt(t *testing.T) {
	t.Parallel()
	all := adoptScenarios()
	switch *explore {
	case "some":
		all = choose(all, someAdoptions)
	case "many":
		all = choose(all, manyAdoptions)
	}
	exploreAll(t, newExplorer(t, nil, adoptAny()), all, *explore == "two")
}

// TestExploreAdoptNested is TestExploreAdopt with the Clerk id in auth.id. An adoption then also makes
// the document auth, unless the app makes it in between.
func TestExploreAdoptNested(t *testing.T) {
	t.Parallel()
	all := slices.DeleteFunc(adoptScenarios(), func(sc scenario) bool { return sc.b.name != makeParent.name })
	if *explore == "some" {
		all = choose(all, someAdoptions/3)
	}
	exploreAll(t, newExplorer(t, mongostore.Fields{"clerkId": "auth.id"}, adoptAny()), all, *explore == "two")
}

// makeParent has the app make the document auth.
var makeParent = changeLegacy("l", bson.E{Key: "auth.theme", Value: "dark"})

// TestExploreAdoptFindsFaults explores an operation that links a record without a guard.
func TestExploreAdoptFindsFaults(t *testing.T) {
	t.Parallel()
	e := newExplorer(t, nil, adoptAny())
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
		changeLegacy("l", field("deletedAt", hour(0))), changeLegacy("l", field("tags", "of the app")), makeParent, legacyOf("late", mail("m")),
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
		for _, name := range []string{"_id", "clerkId", "email", "emailVerified", "legacyId", "role", "isActive", "name", "adoptedBy", "deletedAt", "auth"} {
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
