package mongostore_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

var guesses = []int{mongostore.GuessWritable, mongostore.GuessNew, mongostore.GuessReadFirst}

// upsertBatch returns the results and the errors of the users that failed.
func upsertBatch(t testing.TB, s *mongostore.Store, us ...*clerksync.User) ([]clerksync.Result, map[int]error) {
	t.Helper()
	results, err := s.UpsertBatch(t.Context(), us)
	failed := &clerksync.BatchError{}
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return results, failed.Errs
}

// TestAdoptBatchRefusals offers ada in batches to Stores with records that must not be linked to
// her. Adoptions says the same before, without a write.
func TestAdoptBatchRefusals(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	monitored, sent := newMonitored(t, coll)
	s := openAdopting(t, monitored, adoptAny())
	s.coll = coll
	s.SetBackfillSize(1)
	n := 0
	for name, r := range adoptRefusals() {
		empty(t, s.coll)
		insert(t, s.coll, r.docs...)
		before := s.snapshot(t)
		sent.take()
		adoptions, err := s.Adoptions(t.Context(), []*clerksync.User{r.u, person("beside", 1)})
		if err != nil || len(adoptions) != 2 || adoptions[1] != (clerksync.Adoption{}) || adoptions[0].By != "" {
			t.Fatalf("%s: Adoptions: %+v, %v", name, adoptions, err)
		}
		r.check(t, name+", Adoptions", clerksync.Created, adoptions[0].Err)
		if got := sent.names(); len(got) > 2 || slices.ContainsFunc(got, func(name string) bool { return name != "find" }) {
			t.Errorf("%s: Adoptions sends %q", name, got)
		}
		checkBeside(t, s, name+", Adoptions", before, false)

		n++
		s.SetGuess(guesses[n%len(guesses)])
		results, errs := upsertBatch(t, s.Store, person("beside", 1), r.u)
		r.check(t, name+", batch", results[1].Outcome, errs[1])
		if results[0].Outcome != clerksync.Created || errs[0] != nil {
			t.Errorf("%s: the user beside ada: %v, %v", name, results[0].Outcome, errs[0])
		}
		if _, err := s.coll.DeleteOne(t.Context(), bson.D{{Key: "clerkId", Value: "user_beside"}}); err != nil {
			t.Fatal(err)
		}
		checkBeside(t, s, name+", batch", before, r.created)
	}
}

// TestAdoptBatch has users of all kinds in one batch, and counts its commands.
func TestAdoptBatch(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	monitored, sent := newMonitored(t, coll)
	s := openAdopting(t, monitored, adoptAny())
	s.coll = coll
	s.SetBackfillSize(1)
	named := func(who string, n int, id string) *clerksync.User {
		return change(person(who, n), func(u *clerksync.User) { u.ExternalID = id })
	}
	for _, guess := range guesses {
		empty(t, coll)
		insert(t, coll, legacy(1), legacy(2, bson.E{Key: "email"}, bson.E{Key: "legacyId", Value: int32(42)}),
			legacy(3, bson.E{Key: "email", Value: "eve@example.com"}, bson.E{Key: "emailVerified", Value: false}),
			legacy(4, bson.E{Key: "email", Value: "joe@example.com"}))
		upsert(t, s, person("old", 1), clerksync.Created)
		upsert(t, s, person("same", 1), clerksync.Created)
		eve := change(person("eve", 1), func(u *clerksync.User) { u.EmailProven = true })
		us := []*clerksync.User{
			proven(1), named("bob", 1, "42"), person("new", 1), person("old", 2), person("same", 1), eve, person("joe", 1), proven(2),
			change(person("joe", 1), func(u *clerksync.User) { u.EmailProven = true }),
		}
		s.SetGuess(guess)
		results, errs := upsertBatch(t, s.Store, us...)
		want := []clerksync.Outcome{
			clerksync.Adopted, clerksync.Adopted, clerksync.Created, clerksync.Updated, clerksync.Unchanged, 0, 0, clerksync.Updated, clerksync.Adopted,
		}
		for i := range us {
			if results[i].Outcome != want[i] || errors.Is(errs[i], clerksync.ErrUnlinked) != (want[i] == 0) {
				t.Errorf("guess %d: user %d: %v, %v, want %v", guess, i, results[i].Outcome, errs[i], want[i])
			}
		}
		for who, id := range map[string]string{"user_ada": "1", "user_bob": "2", "user_joe": "4"} {
			if got := fmt.Sprint(s.fields(t, who)["_id"]); got != id {
				t.Errorf("guess %d: %s adopted %s, want %s", guess, who, got, id)
			}
		}
		if got := len(s.snapshot(t)); got != 7 {
			t.Errorf("guess %d: %d records", guess, got)
		}
	}

	// The commands of a page: one search, and the writes.
	page := func(kind string, n int) (us []*clerksync.User) {
		for _, u := range crowd(n, kind, 1) {
			us = append(us, change(u, func(u *clerksync.User) { u.EmailProven = true }))
		}
		return us
	}
	for guess, first := range map[int][]string{
		mongostore.GuessWritable: {"update"}, mongostore.GuessNew: nil, mongostore.GuessReadFirst: nil,
	} {
		empty(t, coll)
		us := page("p", 20)
		for i := range us[:10] {
			insert(t, coll, legacy(i, bson.E{Key: "email", Value: us[i].Email}))
		}
		s.SetGuess(guess)
		sent.take()
		results, errs := upsertBatch(t, s.Store, us...)
		want := slices.Sorted(slices.Values(slices.Concat(first, []string{"find", "update", "insert"})))
		if got := slices.Sorted(slices.Values(sent.names())); !slices.Equal(got, want) {
			t.Errorf("guess %d: sends %q, want %q in some order", guess, got, want)
		}
		for i, r := range results {
			if want := map[bool]clerksync.Outcome{true: clerksync.Adopted, false: clerksync.Created}[i < 10]; r.Outcome != want {
				t.Errorf("guess %d: user %d: %v, %v, want %v", guess, i, r.Outcome, errs[i], want)
			}
		}
		// Known users take what they take without Adopt.
		for _, u := range us {
			u.ClerkUpdatedAt = hour(2)
		}
		s.SetGuess(mongostore.GuessWritable)
		sent.take()
		upsertBatch(t, s.Store, us...)
		if got := sent.names(); !slices.Equal(got, []string{"update"}) {
			t.Errorf("newer users: sends %q", got)
		}
	}
}

// wanting is a user with a proven address and an external id.
func wanting(who, email, id string) *clerksync.User {
	return change(person(who, 1), func(u *clerksync.User) { u.Email, u.EmailProven, u.ExternalID = email, true, id })
}

// TestAdoptBatchRivals has two users of one batch who want the same record.
func TestAdoptBatchRivals(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	s := openAdopting(t, coll, adoptAny())
	for _, guess := range guesses {
		empty(t, coll)
		insert(t, coll, legacy(1), legacy(2, bson.E{Key: "email"}, bson.E{Key: "legacyId", Value: "a7"}))
		s.SetGuess(guess)
		results, errs := upsertBatch(t, s.Store,
			wanting("x", "ada@example.com", ""), wanting("y", "ada@example.com", ""), wanting("v", "", "a7"), wanting("w", "", "a7"))
		outcomes := []clerksync.Outcome{results[0].Outcome, results[1].Outcome, results[2].Outcome, results[3].Outcome}
		if want := []clerksync.Outcome{clerksync.Adopted, clerksync.Created, clerksync.Adopted, 0}; !slices.Equal(outcomes, want) {
			t.Errorf("guess %d: %v, want %v", guess, outcomes, want)
		}
		var conflict *clerksync.ConflictError
		if !errors.As(errs[3], &conflict) || conflict.Holder != "user_v" || conflict.Field != "legacyId" || len(errs) != 1 {
			t.Errorf("guess %d: errors %v, want a conflict with user_v", guess, errs)
		}
	}
}

// TestAdoptBatchMany has a user whose address so many records have that one command does not
// return them all.
func TestAdoptBatchMany(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	s := openAdopting(t, coll, adoptAny())
	var many []bson.D
	for i := range 3*2 + 120 {
		many = append(many, legacy(fmt.Sprint("many", i), bson.E{Key: "email", Value: "many@example.com"}, bson.E{Key: "legacyId", Value: "many"}))
	}
	for docs := range slices.Chunk(many, 50) {
		insert(t, coll, docs...)
	}
	insert(t, coll, legacy("one"))
	before := s.snapshot(t)
	us := []*clerksync.User{wanting("many", "many@example.com", ""), proven(1), wanting("named", "", "many")}
	adoptions, err := s.Adoptions(t.Context(), us)
	if err != nil || !errors.Is(adoptions[0].Err, clerksync.ErrUnlinked) || adoptions[1].By != clerksync.ByEmail || adoptions[2].Err == nil {
		t.Errorf("Adoptions: %+v, %v", adoptions, err)
	}
	results, errs := upsertBatch(t, s.Store, us...)
	if !errors.Is(errs[0], clerksync.ErrUnlinked) || results[1].Outcome != clerksync.Adopted || errs[2] == nil || len(errs) != 2 {
		t.Errorf("%v, %v, want ada's record adopted", results, errs)
	}
	if after := s.snapshot(t); len(after) != len(before) {
		t.Errorf("%d records, before %d", len(after), len(before))
	}
}

// TestAdoptions checks what Adoptions says of users who would adopt, be created, or are known.
func TestAdoptions(t *testing.T) {
	t.Parallel()
	coll := newCollection(t)
	s := openAdopting(t, coll, adoptAny())
	insert(t, coll, legacy(1), legacy(2, bson.E{Key: "email"}, bson.E{Key: "legacyId", Value: "a7"}))
	upsert(t, s, person("known", 1), clerksync.Created)
	known := change(person("known", 2), func(u *clerksync.User) { u.ExternalID = "a7" })
	bad := change(person("bad", 1), func(u *clerksync.User) { u.Extra = map[string]any{"_id": 1} })
	omits := change(person("omits", 1), func(u *clerksync.User) { u.Omit = []string{"email"} })
	us := []*clerksync.User{known, proven(1), bad, external("a7", 1), person("new", 1), omits, known, {ClerkID: "user_bare"}}
	before := s.snapshot(t)
	for name, size := range map[string]int{"one page": batchSize, "pages": 2} {
		paged := open(t, coll, &mongostore.Options{BatchSize: size, Adopt: adoptAny()})
		got, err := paged.Adoptions(t.Context(), us)
		if err != nil || len(got) != len(us) {
			t.Fatalf("%s: %v, %v", name, got, err)
		}
		var by []string
		for i, a := range got {
			by = append(by, a.By)
			if wantErr := i == 2 || i == 5; wantErr != (a.Err != nil) {
				t.Errorf("%s: user %d: %v", name, i, a.Err)
			}
		}
		if want := []string{"", clerksync.ByEmail, "", clerksync.ByExternalID, "", "", "", ""}; !slices.Equal(by, want) {
			t.Errorf("%s: %q, want %q", name, by, want)
		}
		if !errors.Is(got[5].Err, clerksync.ErrNotFound) {
			t.Errorf("%s: with Omit: %v", name, got[5].Err)
		}
	}
	if !slices.Equal(before, s.snapshot(t)) {
		t.Error("Adoptions wrote")
	}
	reading := open(t, coll, &mongostore.Options{BatchSize: batchSize, Adopt: adoptAny(), ReadOnly: true})
	if got, err := reading.Adoptions(t.Context(), us); err != nil || got[1].By != clerksync.ByEmail {
		t.Errorf("with ReadOnly: %v, %v", got, err)
	}
	if _, err := reading.DeactivateExternal(t.Context(), "user_x", "a7", hour(1)); err == nil {
		t.Error("DeactivateExternal writes with ReadOnly")
	}
	plain, sent := newMonitored(t, coll)
	without := open(t, plain, nil)
	sent.take()
	if got, err := without.Adoptions(t.Context(), us); err != nil || len(got) != len(us) || got[1].By != "" || len(sent.take()) != 0 {
		t.Errorf("without Adopt: %v, %v", got, err)
	}
}
