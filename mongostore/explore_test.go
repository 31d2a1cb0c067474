package mongostore_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

var explore = flag.String("explore", "some", "TestExplore: `some` scenarios, chosen at random; "+
	"many: more of them; one: all, with one preemption; two: single upserts against upserts, "+
	"deactivations and releases, with two preemptions")

// someScenarios and someReleases are how many scenarios TestExplore runs by default;
// manyScenarios is how many it runs besides all releases.
const (
	someScenarios = 10
	someReleases  = 3
	manyScenarios = 800
	someJobs      = 8
)

// choose returns n of all at random.
func choose(all []scenario, n int) []scenario {
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:n]
}

// TestExplore runs operation B in the middle of operation A: before each command of A, it
// runs B to its end, and A then goes on. With two preemptions, B stops before each of its
// commands until A has ended. The results and the records must equal those of a serial
// order: of A, then B, or of B, then A. The users of a batch may come in any order, with
// the other operation between them. If that is the app's, a batch of which a part fails may
// repeat the others: it then writes Clerk's fields again if the app changed them.
func TestExplore(t *testing.T) {
	t.Parallel()
	all := slices.Concat(scenarios(), releaseScenarios())
	two := false
	switch *explore {
	case "some":
		all = slices.Concat(choose(scenarios(), someScenarios), choose(releaseScenarios(), someReleases))
	case "many":
		all = slices.Concat(choose(scenarios(), manyScenarios), releaseScenarios())
	case "one":
	case "two":
		two = true
		all = slices.Concat(slices.DeleteFunc(scenarios(), other), slices.DeleteFunc(releaseScenarios(), scenario.hasBatch))
	default:
		t.Fatalf("-explore=%s: want some, many, one or two", *explore)
	}
	exploreAll(t, newExplorer(t, nil, nil), all, two)
}

// TestExploreJobs is TestExplore for the operations about jobs.
func TestExploreJobs(t *testing.T) {
	t.Parallel()
	all, two := jobScenarios(), *explore == "two"
	switch *explore {
	case "some":
		all = choose(all, someJobs)
	case "many":
		all = choose(all, manyScenarios)
	case "two":
		all = choose(slices.DeleteFunc(all, scenario.hasBatch), manyScenarios)
	}
	exploreAll(t, newExplorer(t, nil, nil), all, two)
}

// exploreAll reports all faults of the scenarios.
func exploreAll(t *testing.T, e *explorer, all []scenario, two bool) {
	t.Helper()
	for _, sc := range all {
		for _, fault := range e.faults(t, sc, two) {
			t.Errorf("%s(-explore=one or -explore=two runs all scenarios)", fault)
		}
	}
	t.Logf("%d scenarios, %d schedules", len(all), e.schedules)
	if e.schedules == 0 {
		t.Error("no operation was preempted")
	}
}

// TestExploreFindsFaults explores an operation that loses updates.
func TestExploreFindsFaults(t *testing.T) {
	t.Parallel()
	e := newExplorer(t, nil, nil)
	unguarded := operation{name: "upsert x v2, unguarded", run: func(ctx context.Context, s stores) results {
		coll := s.raw
		raw, err := coll.FindOne(ctx, bson.D{{Key: "clerkId", Value: "user_x"}}).Raw()
		if err != nil {
			return results{"x": err.Error()}
		}
		if !raw.Lookup("clerkUpdatedAt").Time().Before(hour(2)) {
			return results{"x": "stale"}
		}
		_, err = coll.UpdateOne(ctx, bson.D{{Key: "clerkId", Value: "user_x"}},
			bson.D{{Key: "$set", Value: bson.D{{Key: "clerkUpdatedAt", Value: hour(2)}, {Key: "name", Value: "two"}}}})
		return results{"x": fmt.Sprint("updated ", err)}
	}}
	sc := scenario{
		before: []operation{upsertOf(exploredUser{who: "x", version: 1, name: "one"})},
		a:      unguarded,
		b:      upsertOf(exploredUser{who: "x", version: 3, name: "three"}),
	}
	faults := e.faults(t, sc, false)
	if len(faults) != 1 || !strings.Contains(faults[0], "A update") {
		t.Errorf("found %q, want the lost update", faults)
	}
	// If the operation that loses updates is B, it takes a second preemption.
	sc.a = upsertOf(exploredUser{who: "x", version: 3, name: "three", extra: map[string]any{"plan": "a"}})
	sc.b = unguarded
	if faults := e.faults(t, sc, false); len(faults) != 0 {
		t.Errorf("one preemption found %q", faults)
	}
	if faults := e.faults(t, sc, true); len(faults) == 0 {
		t.Error("two preemptions did not find the lost update")
	}
}

// operation is one call of a Store, or a batch.
type operation struct {
	name  string
	parts []operation // of a batch, the upserts of its users
	run   func(ctx context.Context, s stores) results
}

// results are what an operation returns, by user.
type results map[string]string

// stores are what an operation may use.
type stores struct {
	keeping, erasing *mongostore.Store
	raw              *mongo.Collection
}

// scenario is two operations on the records that others left.
type scenario struct {
	before []operation
	a, b   operation
}

func (sc scenario) String() string {
	names := []string{"nothing"}
	if sc.before != nil {
		names = nil
	}
	for _, op := range sc.before {
		names = append(names, op.name)
	}
	return fmt.Sprintf("Before: %s\nA: %s\nB: %s\n", strings.Join(names, "; "), sc.a.name, sc.b.name)
}

// hasBatch reports whether the scenario has a batch: with two preemptions it would take hours.
func (sc scenario) hasBatch() bool { return sc.a.parts != nil || sc.b.parts != nil }

// other reports whether the scenario is not one of an upsert against an upsert or a
// deactivation, on records that no Omit and no app has written.
func other(sc scenario) bool {
	isUpsert := func(op operation) bool { return strings.HasPrefix(op.name, "upsert ") }
	isDeletion := func(op operation) bool {
		return strings.HasPrefix(op.name, "deactivate ") || strings.HasPrefix(op.name, "erase ")
	}
	plain := func(op operation) bool {
		return (isUpsert(op) || isDeletion(op)) && !strings.Contains(op.name, " without ")
	}
	return !isUpsert(sc.a) && !isUpsert(sc.b) || !plain(sc.a) || !plain(sc.b) || slices.ContainsFunc(sc.before, func(op operation) bool {
		return !plain(op)
	})
}

// exploredUser is a user that a scenario offers. Its addresses have one letter.
type exploredUser struct {
	who             string
	version, synced int // hours; synced is the version if 0, and a version of 0 is none
	name, email     string
	extra           map[string]any
	banned          bool
	omit            []string
	due             int    // of the create job that its insert owes; none if 0
	external        string // Clerk's external id
	proven          bool   // the user controls the address
}

func (u exploredUser) user() *clerksync.User {
	c := &clerksync.User{
		ClerkID: "user_" + u.who, Name: u.name, Role: clerksync.RoleTeacher, Extra: u.extra,
		SyncedAt: hour(max(u.version, u.synced)), Banned: u.banned, Omit: u.omit,
		ExternalID: u.external, EmailProven: u.proven,
	}
	if u.version > 0 {
		c.ClerkUpdatedAt = hour(u.version)
	}
	if u.due > 0 {
		c.CreateDue = hour(u.due)
	}
	if u.email != "" {
		c.Email = u.email + "@example.com"
	}
	return c
}

func (u exploredUser) String() string {
	text := fmt.Sprintf("%s v%d %q", u.who, u.version, u.name)
	if u.synced != 0 {
		text += fmt.Sprintf(" synced %d", u.synced)
	}
	if u.email != "" {
		text += " mail " + u.email
	}
	if u.due != 0 {
		text += fmt.Sprint(" due ", u.due)
	}
	if u.extra != nil {
		text += fmt.Sprint(" ", u.extra)
	}
	if u.banned {
		text += " banned"
	}
	if u.external != "" {
		text += " external " + u.external
	}
	if u.proven {
		text += " proven"
	}
	if u.omit != nil {
		text += fmt.Sprint(" without ", u.omit)
	}
	return text
}

func outcomeText(o clerksync.Outcome, err error) string {
	conflict := (*clerksync.ConflictError)(nil)
	switch {
	case errors.Is(err, clerksync.ErrUnlinked):
		return "unlinked"
	case errors.As(err, &conflict):
		return "conflict on " + conflict.Field
	case err != nil:
		return "error: " + err.Error()
	}
	return o.String()
}

func upsertOf(u exploredUser) operation {
	return operation{name: "upsert " + u.String(), run: func(ctx context.Context, s stores) results {
		res, err := s.keeping.Upsert(ctx, u.user())
		return results{u.who: outcomeText(res.Outcome, err)}
	}}
}

// batchOf begins as the Store does after another batch, which guess says.
func batchOf(guess int, us ...exploredUser) operation {
	var names []string
	var parts []operation
	for _, u := range us {
		names, parts = append(names, u.String()), append(parts, upsertOf(u))
	}
	run := func(ctx context.Context, s stores) results {
		offered := make([]*clerksync.User, len(us))
		for i, u := range us {
			offered[i] = u.user()
		}
		s.keeping.SetBackfillSize(1)
		s.keeping.SetGuess(guess)
		got, err := s.keeping.UpsertBatch(ctx, offered)
		failed := &clerksync.BatchError{}
		if err != nil && !errors.As(err, &failed) {
			return results{us[0].who: err.Error()}
		}
		r := make(results)
		for i, u := range us {
			r[u.who] = outcomeText(got[i].Outcome, failed.Errs[i])
		}
		return r
	}
	begins := map[int]string{
		mongostore.GuessWritable: "upserting", mongostore.GuessNew: "inserting", mongostore.GuessReadFirst: "reading",
	}
	name := fmt.Sprintf("batch, %s first, of %s", begins[guess], strings.Join(names, " and "))
	return operation{name: name, parts: parts, run: run}
}

func deactivateOf(who string) operation {
	return operation{name: "deactivate " + who, run: func(ctx context.Context, s stores) results {
		res, err := s.keeping.Deactivate(ctx, "user_"+who, hour(9))
		return results{who: outcomeText(res.Outcome, err)}
	}}
}

func eraseOf(who string) operation {
	return operation{name: "erase " + who, run: func(ctx context.Context, s stores) results {
		res, err := s.erasing.Deactivate(ctx, "user_"+who, hour(9))
		return results{who: outcomeText(res.Outcome, err)}
	}}
}

func restoreOf(who string) operation {
	return operation{name: "restore " + who, run: func(ctx context.Context, s stores) results {
		restored, err := s.keeping.Restore(ctx, "user_"+who, hour(20))
		return results{who: fmt.Sprint("restored ", restored, " ", err)}
	}}
}

// byTheApp writes fields of a record as the app does. The record may be new.
func byTheApp(who string, fields bson.D) operation {
	return operation{name: fmt.Sprint("the app sets ", fields, " of ", who), run: func(ctx context.Context, s stores) results {
		_, err := s.raw.UpdateOne(ctx, bson.D{{Key: "clerkId", Value: "user_" + who}},
			bson.D{{Key: "$set", Value: fields}}, options.UpdateOne().SetUpsert(true))
		if err != nil {
			return results{who: err.Error()}
		}
		return nil
	}}
}

// scenarios returns each pair of operations on each set of records.
func scenarios() (all []scenario) {
	v2 := upsertOf(exploredUser{who: "x", version: 2, name: "two", email: "m"})
	v3 := upsertOf(exploredUser{who: "x", version: 3, name: "three", email: "m"})
	tags := upsertOf(exploredUser{
		who: "x", version: 3, synced: 4, name: "three", email: "m", extra: map[string]any{"tags": []any{"a", "b"}},
	})
	rival := upsertOf(exploredUser{who: "y", version: 2, name: "why", email: "m"})
	operations := []operation{
		v2, v3, tags,
		upsertOf(exploredUser{who: "x", version: 3, synced: 5, name: "three later", email: "m"}),
		upsertOf(exploredUser{who: "x", version: 3, name: "three other"}), // at the same time
		upsertOf(exploredUser{who: "x", version: 4, name: "four"}),
		upsertOf(exploredUser{who: "x", version: 5, name: "five", email: "n"}),
		upsertOf(exploredUser{who: "x", version: 0, synced: 6, name: "none", email: "m"}),
		rival,
		upsertOf(exploredUser{who: "y", version: 3, name: "why three", email: "n"}),
		deactivateOf("x"), eraseOf("x"), deactivateOf("y"), restoreOf("x"),
	}
	for _, guess := range []int{mongostore.GuessWritable, mongostore.GuessNew, mongostore.GuessReadFirst} {
		operations = append(operations, batchOf(guess,
			exploredUser{who: "x", version: 3, name: "three", email: "m"},
			exploredUser{who: "y", version: 4, name: "why four", email: "n"},
		))
	}
	befores := [][]operation{
		nil, {v2}, {v3}, {tags}, {v2, deactivateOf("x")}, {rival}, {rival, deactivateOf("y")},
	}
	for _, before := range befores {
		for _, a := range operations {
			for _, b := range operations {
				all = append(all, scenario{before, a, b})
			}
		}
	}
	all = append(all, omitScenarios(befores, operations)...)
	return append(all, unconfirmedScenarios(operations)...)
}

// omitScenarios has users with Omit, before and beside each operation.
func omitScenarios(befores [][]operation, operations []operation) (all []scenario) {
	noMail := exploredUser{who: "x", version: 3, name: "three", email: "n", omit: []string{"email"}}
	ban := exploredUser{
		who: "x", version: 4, name: "not written", banned: true,
		omit: []string{"email", "name", "emailVerified", "phoneVerified", "clerkCreatedAt", "extraFields"},
	}
	extra := exploredUser{
		who: "x", version: 4, synced: 6, name: "four", email: "m", extra: map[string]any{"plan": "a"}, omit: []string{"tags"},
	}
	omitting := []operation{
		upsertOf(noMail), upsertOf(ban), upsertOf(extra),
		batchOf(mongostore.GuessWritable, ban, exploredUser{who: "y", version: 4, name: "why four", email: "n"}),
	}
	befores = append(slices.Clone(befores), []operation{upsertOf(exploredUser{who: "x", version: 2, name: "two"}), upsertOf(ban)})
	for _, before := range befores {
		for _, a := range omitting {
			for _, b := range operations {
				all = append(all, scenario{before, a, b}, scenario{before, b, a})
			}
			for _, b := range omitting {
				all = append(all, scenario{before, a, b})
			}
		}
	}
	last := befores[len(befores)-1]
	for _, a := range operations {
		for _, b := range operations {
			all = append(all, scenario{last, a, b})
		}
	}
	return all
}

// unconfirmedScenarios has records that the app made, and writes to them by the app.
func unconfirmedScenarios(operations []operation) (all []scenario) {
	free := byTheApp("x", bson.D{{Key: "name", Value: "of the app"}, {Key: "role", Value: "ADMIN"}})
	inTheWay := byTheApp("x", bson.D{{Key: "name", Value: bson.D{{Key: "first", Value: "of the app"}}}, {Key: "role", Value: "ADMIN"}})
	nulls := byTheApp("x", bson.D{{Key: "name", Value: nil}, {Key: "profile", Value: nil}, {Key: "deletedAt", Value: nil}})
	ofTheApp := []operation{
		byTheApp("x", bson.D{{Key: "name", Value: "another of the app"}}), byTheApp("x", bson.D{{Key: "tags", Value: "of the app"}}),
		byTheApp("x", bson.D{{Key: "email", Value: bson.A{"x"}}}),
		upsertOf(exploredUser{who: "x", version: 3, name: "three", email: "n", omit: []string{"email"}}),
	}
	for _, before := range [][]operation{{free}, {inTheWay}, {nulls}} {
		for _, a := range operations {
			for _, b := range slices.Concat(operations, ofTheApp) {
				all = append(all, scenario{before, a, b})
			}
		}
	}
	return all
}

// releaseScenarios returns pairs of operations that want what deleted records hold.
func releaseScenarios() (all []scenario) {
	badge := map[string]any{"badge": "b"}
	both := exploredUser{who: "z", version: 1, name: "gone", email: "m", extra: badge}
	mail := exploredUser{who: "z", version: 1, name: "gone", email: "m"}
	old := upsertOf(exploredUser{who: "x", version: 1, name: "one"})
	live := upsertOf(exploredUser{who: "y", version: 1, name: "why", extra: badge})
	x2 := exploredUser{who: "x", version: 2, name: "two", email: "m"}
	x3 := exploredUser{who: "x", version: 3, name: "three", email: "m", extra: badge}
	taking := []operation{
		upsertOf(x2), upsertOf(x3),
		upsertOf(exploredUser{who: "y", version: 2, name: "why two", email: "m", extra: badge}),
		batchOf(mongostore.GuessWritable, x3, exploredUser{who: "y", version: 3, name: "why three", email: "n"}),
	}
	others := []operation{
		upsertOf(exploredUser{who: "x", version: 4, name: "four", email: "n"}), deactivateOf("x"), restoreOf("z"),
	}
	for _, before := range [][]operation{
		{upsertOf(both), deactivateOf("z")},
		{upsertOf(both), deactivateOf("z"), old},
		{upsertOf(mail), deactivateOf("z"), live, old},
		{upsertOf(mail), deactivateOf("z"), live, deactivateOf("y")},
	} {
		for _, a := range taking {
			for _, b := range slices.Concat(taking, others) {
				all = append(all, scenario{before, a, b})
			}
		}
	}
	return all
}

// deleteOwing is a deletion that owes a job, by the Store that erases or by the other one.
func deleteOwing(who string, at int, erasing bool) operation {
	return operation{name: fmt.Sprintf("delete %s at %d, owing, erasing %t", who, at, erasing), run: func(ctx context.Context, s stores) results {
		res, owes, err := s.of(erasing).DeactivateOwing(ctx, "user_"+who, "", hour(at), hour(at+1))
		return results{who: fmt.Sprint(outcomeText(res.Outcome, err), " owes ", owes)}
	}}
}

func (s stores) of(erasing bool) *mongostore.Store {
	if erasing {
		return s.erasing
	}
	return s.keeping
}

// attemptOf is a part of an attempt at x's job, as the Syncer makes it: a read, and a change of what
// it decides on. A change that is refused has the same result as a decision against it.
func attemptOf(name string, kind clerksync.JobKind, erasing bool, decide func(u *clerksync.User, job clerksync.JobState) (to clerksync.JobState, ok bool)) operation {
	return operation{name: fmt.Sprintf("%s of the %s job of x, erasing %t", name, kind, erasing), run: func(ctx context.Context, s stores) results {
		store := s.of(erasing)
		u, err := store.User(ctx, "user_x")
		if errors.Is(err, clerksync.ErrNotFound) {
			return results{"x": "not done"}
		}
		if err != nil {
			return results{"x": err.Error()}
		}
		from := u.Jobs.Of(kind)
		to, ok := decide(u, from)
		if !ok {
			return results{"x": "not done"}
		}
		done, err := store.ChangeJob(ctx, clerksync.JobChange{ClerkID: u.ClerkID, Kind: kind, From: from, To: to, DeletedAt: u.DeletedAt})
		switch {
		case err != nil:
			return results{"x": err.Error()}
		case !done:
			return results{"x": "not done"}
		}
		return results{"x": "done"}
	}}
}

// claimOf claims a job that is waiting, until the end of a lease. The Store's clock is at hour 30.
func claimOf(kind clerksync.JobKind, token string, until int) operation {
	return attemptOf(fmt.Sprint("claim ", token, " until ", until), kind, false, func(u *clerksync.User, job clerksync.JobState) (clerksync.JobState, bool) {
		wanted := u.DeletedAt.IsZero() == (kind == clerksync.JobCreate)
		ok := wanted && !job.Due.IsZero() && job.Token == ""
		job.Attempt, job.Token, job.Due = job.Attempt+1, token, hour(until)
		return job, ok
	})
}

// endOf ends the attempt with this token.
func endOf(kind clerksync.JobKind, token string, erasing bool) operation {
	return attemptOf("end "+token, kind, erasing, func(_ *clerksync.User, job clerksync.JobState) (clerksync.JobState, bool) {
		return clerksync.JobState{Attempt: job.Attempt, DeletedAt: job.DeletedAt}, job.Token == token
	})
}

// dropOf removes a job that is waiting and no longer wanted.
func dropOf(kind clerksync.JobKind, erasing bool) operation {
	return attemptOf("drop", kind, erasing, func(u *clerksync.User, job clerksync.JobState) (clerksync.JobState, bool) {
		wanted := u.DeletedAt.IsZero() == (kind == clerksync.JobCreate)
		return clerksync.JobState{}, !wanted && !job.Due.IsZero() && job.Token == ""
	})
}

// jobScenarios has every operation that owes, changes or takes back a job in the middle of every
// other, and of those that write the same record.
func jobScenarios() (all []scenario) {
	create, del := clerksync.JobCreate, clerksync.JobDelete
	x2 := exploredUser{who: "x", version: 2, name: "two", email: "m", due: 2}
	x3 := exploredUser{who: "x", version: 3, name: "three", email: "n", due: 3}
	y3 := exploredUser{who: "y", version: 3, name: "why", email: "m", due: 4}
	old := exploredUser{who: "x", version: 2, name: "two", email: "m"}
	operations := []operation{
		upsertOf(x2), upsertOf(x3), upsertOf(y3), upsertOf(old),
		batchOf(mongostore.GuessNew, x3, y3), batchOf(mongostore.GuessWritable, x3, y3),
		deactivateOf("x"), eraseOf("x"), deleteOwing("x", 9, false), deleteOwing("x", 10, true), restoreOf("x"),
		claimOf(create, "a", 40), claimOf(create, "b", 41), claimOf(del, "a", 40), claimOf(del, "b", 25),
		endOf(create, "a", false), endOf(del, "a", false), endOf(del, "a", true), dropOf(create, true), dropOf(del, true),
		byTheApp("x", bson.D{{Key: "clerkJobs", Value: "of the app"}}),
	}
	attempt := func(o operation) string {
		name, _, _ := strings.Cut(o.name, ", erasing")
		return name
	}
	owed, deleted := upsertOf(x2), deleteOwing("x", 8, false)
	for _, before := range [][]operation{
		nil, {upsertOf(old)}, {owed}, {owed, claimOf(create, "a", 40)}, {owed, deleted},
		{owed, claimOf(create, "a", 40), deleted}, {owed, deleted, claimOf(del, "a", 40)}, {owed, deleted, claimOf(del, "a", 25)},
		{upsertOf(old), deleted, claimOf(del, "a", 40), upsertOf(y3)},
		{upsertOf(old), byTheApp("x", bson.D{{Key: "clerkJobs", Value: bson.A{1}}})},
		{byTheApp("x", bson.D{{Key: "name", Value: "of the app"}, {Key: "clerkJobs", Value: nil}})},
	} {
		for _, a := range operations {
			for _, b := range operations {
				// An attempt is made and ended by one process, which erases or does not.
				if attempt(a) != attempt(b) || !strings.HasPrefix(a.name, "claim") && !strings.HasPrefix(a.name, "end") {
					all = append(all, scenario{before, a, b})
				}
			}
		}
	}
	return all
}

// explorer runs scenarios on one collection, which it empties before each run.
type explorer struct {
	base      rawStore
	direct    stores
	a, b      *actor
	trace     []string // commands in order
	schedules int
}

// actor runs one operation, and pauses before one of its commands. Of the two actors one
// runs at a time.
type actor struct {
	name     string
	stores   stores
	trace    *[]string
	armed    bool
	pauseAt  int // number of the command, 0 for none
	commands int // so far
	paused   chan struct{}
	resume   chan struct{}
	ended    chan results
	results  results
}

// turn is an operation, or a part of a batch, in a serial order. What one that is repeated
// returns is not reported.
type turn struct {
	actor    *actor
	name     string
	op       operation
	repeated bool
}

// newExplorer returns an explorer whose Stores have these Fields and this Adopt.
func newExplorer(t *testing.T, fields mongostore.Fields, adopt *mongostore.Adopt) *explorer {
	t.Helper()
	coll, opts := newCollection(t), mongostore.Options{BatchSize: batchSize, Fields: fields, Adopt: adopt}
	monitor.expect(coll.Name(), fields["clerkId"])
	for _, unique := range []string{"email", "badge"} {
		createIndex(t, coll, ascending(unique), options.Index().SetUnique(true).SetSparse(true).SetName(unique))
		opts.AllowUnique = append(opts.AllowUnique, unique) // the embedded database does not list it as sparse
	}
	// The Store tells its own writes from others' by the millisecond of the call.
	var calls atomic.Int64
	opts.Now = func() time.Time { return hour(30).Add(time.Duration(calls.Add(1)) * time.Millisecond) }
	direct := openStores(t, coll, opts)
	e := &explorer{base: rawStore{direct.keeping, coll}, direct: direct}
	newActor := func(name string) *actor {
		a := &actor{
			name: name, trace: &e.trace,
			paused: make(chan struct{}), resume: make(chan struct{}), ended: make(chan results),
		}
		a.stores = openStores(t, newHooked(t, coll, a.before), opts)
		a.armed = true
		return a
	}
	e.a, e.b = newActor("A"), newActor("B")
	return e
}

func openStores(t *testing.T, coll *mongo.Collection, opts mongostore.Options) stores {
	t.Helper()
	keeping := open(t, coll, &opts)
	opts.EraseOnDelete = true
	return stores{keeping: keeping, erasing: open(t, coll, &opts), raw: coll}
}

// before is called before each command of the actor's client.
func (a *actor) before(cmd bson.Raw) {
	if !a.armed || commandName(cmd) == "endSessions" {
		return
	}
	if a.commands++; a.commands == a.pauseAt {
		a.paused <- struct{}{}
		<-a.resume
	}
	*a.trace = append(*a.trace, a.name+" "+commandName(cmd))
}

// begin runs op until it pauses or ends. It reports whether it pauses.
func (a *actor) begin(ctx context.Context, op operation, pauseAt int) bool {
	a.commands, a.pauseAt = 0, pauseAt
	go func() { a.ended <- op.run(ctx, a.stores) }()
	select {
	case <-a.paused:
		return true
	case a.results = <-a.ended:
		return false
	}
}

// end runs the operation from its pause to its end.
func (a *actor) end() {
	a.resume <- struct{}{}
	a.results = <-a.ended
}

// faults returns a description of each schedule whose end differs from both serial orders.
func (e *explorer) faults(t *testing.T, sc scenario, twoPreemptions bool) (faults []string) {
	t.Helper()
	want := e.serialOrders(sc)
	// A pauses before its command i, B before its command j, or never if j is 0. Before its
	// first command an operation has done nothing: i = 1 is B, then A, and j = 1 the reverse.
	for i := 2; ; i++ {
		last := 0
		if twoPreemptions {
			last = 100 // more commands than any B sends
		}
		for j := 0; j <= last; j++ {
			if j == 1 {
				continue
			}
			e.prepare(t, sc)
			if !e.a.begin(t.Context(), sc.a, i) {
				return faults
			}
			bPauses := e.b.begin(t.Context(), sc.b, j)
			e.a.end()
			if bPauses {
				e.b.end()
			}
			e.schedules++
			got, trace := e.outcome(t), e.trace
			if !want.has(t, got) {
				faults = append(faults, describeFault(sc, trace, got, want.outcomes))
			}
			if j > 1 && !bPauses {
				break // B sends fewer than j commands
			}
		}
	}
}

// prepare empties the collection and makes the records of the scenario.
func (e *explorer) prepare(t *testing.T, sc scenario) {
	t.Helper()
	empty(t, e.base.coll)
	for _, op := range sc.before {
		op.run(t.Context(), e.direct)
	}
	e.trace = nil
}

// readDeleted finds what batch A wrote and B then deleted. If a part of its command failed,
// A learns by reading what it wrote, and then reports that the user is deleted.
var readDeleted = regexp.MustCompile(`A (?:created|updated|adopted)(, B .* deleted)`)

// serialOrders are the serial orders of a scenario. They are run as far as they are needed.
type serialOrders struct {
	e        *explorer
	sc       scenario
	left     [][]turn
	outcomes map[string]string // of those that were run, each with one of its orders
}

func (e *explorer) serialOrders(sc scenario) *serialOrders {
	turnsOf := func(a *actor, op operation) (turns []turn) {
		for i, part := range op.parts {
			turns = append(turns, turn{actor: a, name: fmt.Sprint(a.name, i+1), op: part})
		}
		if turns == nil {
			turns = []turn{{actor: a, name: a.name, op: op}}
		}
		return turns
	}
	left := permutations(slices.Concat(turnsOf(e.a, sc.a), turnsOf(e.b, sc.b)))
	// A, then B, is the first and B, then A, the last: most schedules end as one of these.
	left[1], left[len(left)-1] = left[len(left)-1], left[1]
	if sc.a.parts != nil && strings.HasPrefix(sc.b.name, "the app ") {
		left = append(left, repeating(left, e.b)...)
	}
	return &serialOrders{e: e, sc: sc, left: left, outcomes: make(map[string]string)}
}

// has reports whether an order has this outcome.
func (o *serialOrders) has(t *testing.T, outcome string) bool {
	t.Helper()
	for o.outcomes[outcome] == "" && len(o.left) > 0 {
		o.run(t, o.left[0])
		o.left = o.left[1:]
	}
	return o.outcomes[outcome] != ""
}

func (o *serialOrders) run(t *testing.T, order []turn) {
	t.Helper()
	e := o.e
	e.prepare(t, o.sc)
	both := map[*actor]results{e.a: {}, e.b: {}}
	var names []string
	for _, turn := range order {
		turn.actor.begin(t.Context(), turn.op, 0)
		if names = append(names, turn.name); !turn.repeated {
			maps.Copy(both[turn.actor], turn.actor.results)
		}
	}
	e.a.results, e.b.results = both[e.a], both[e.b]
	outcome, name := e.outcome(t), strings.Join(names, ", then ")
	o.outcomes[outcome] = name
	// Who wants both of another's values conflicts on the one that is looked at first.
	o.outcomes[strings.ReplaceAll(outcome, "conflict on email", "conflict on badge")] = name
	if strings.Contains(outcome, "mail m@example.com extra map[badge:b]") {
		o.outcomes[strings.ReplaceAll(outcome, "conflict on badge", "conflict on email")] = name
	}
	if o.sc.a.parts != nil {
		o.outcomes[readDeleted.ReplaceAllString(outcome, "A deactivated$1")] = name
	}
}

// repeating returns those orders with what comes before the turn of b once more at the end.
func repeating(orders [][]turn, b *actor) (longer [][]turn) {
	for _, order := range orders {
		at := slices.IndexFunc(order, func(t turn) bool { return t.actor == b })
		again := slices.Clone(order[:at])
		for i := range again {
			again[i].repeated = true
		}
		longer = append(longer, slices.Concat(order, again))
	}
	return longer
}

// permutations returns all orders of the turns.
func permutations(turns []turn) (orders [][]turn) {
	if len(turns) == 0 {
		return [][]turn{nil}
	}
	for i, first := range turns {
		rest := slices.Delete(slices.Clone(turns), i, i+1)
		for _, order := range permutations(rest) {
			orders = append(orders, append([]turn{first}, order...))
		}
	}
	return orders
}

func describeFault(sc scenario, trace []string, got string, want map[string]string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%vCommands: %s\n%s", sc, strings.Join(trace, ", "), got)
	for outcome, order := range want {
		fmt.Fprintf(&text, "%s:\n%s", order, outcome)
	}
	return text.String()
}

// outcome returns what became of each user: what A and B returned, and the record.
func (e *explorer) outcome(t *testing.T) string {
	t.Helper()
	users, err := e.base.Users(t.Context(), []string{"user_x", "user_y", "user_z"})
	if err != nil {
		t.Fatal(err)
	}
	docs := e.base.rawDocuments(t)
	var text strings.Builder
	for _, who := range []string{"x", "y", "z"} {
		record := "no record"
		if u := users["user_"+who]; u != nil {
			record = recordText(u)
		}
		fmt.Fprintf(&text, "    %s: A %s, B %s; %s%s\n",
			who, orNothing(e.a.results[who]), orNothing(e.b.results[who]), record, ofTheApp(docs["user_"+who]))
	}
	return text.String() + e.legacyText(t)
}

// ofTheApp returns the values in a record that only the app writes, as text; empty for none.
func ofTheApp(raw bson.Raw) (text string) {
	for _, field := range []string{"name", "email", "tags"} {
		_, isText := raw.Lookup(field).StringValueOK()
		if v := raw.Lookup(field); !v.IsZero() && v.Type != bson.TypeNull && isText == (field == "tags") {
			text += fmt.Sprintf(" %s %s", field, v)
		}
	}
	return text
}

func orNothing(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// recordText has no updatedAt, which a release and its end move.
func recordText(u *clerksync.User) string {
	hours := func(at time.Time) string {
		if at.IsZero() {
			return "none"
		}
		return fmt.Sprint(at.Sub(hour(0)).Hours())
	}
	text := fmt.Sprintf("v%s %q synced %s active %t banned %t role %s mail %s extra %v",
		hours(u.ClerkUpdatedAt), u.Name, hours(u.SyncedAt), u.IsActive, u.Banned, u.Role, u.Email, u.Extra)
	if !u.DeletedAt.IsZero() {
		text += " deleted " + hours(u.DeletedAt)
	}
	for _, kind := range []clerksync.JobKind{clerksync.JobCreate, clerksync.JobDelete} {
		if j := u.Jobs.Of(kind); j != (clerksync.JobState{}) {
			text += fmt.Sprintf(" %s job due %s attempt %d token %q failed %s for %s",
				kind, hours(j.Due), j.Attempt, j.Token, hours(j.FailedAt), hours(j.DeletedAt))
		}
	}
	return text
}
