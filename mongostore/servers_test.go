package mongostore_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// isWrite reports whether a command writes records.
func isWrite(cmd bson.Raw) bool {
	name := commandName(cmd)
	return name == "insert" || name == "update" || name == "findAndModify"
}

// isNumbered reports whether a command has a transaction number: it is a retryable write.
func isNumbered(cmd bson.Raw) bool { return cmd.Lookup("txnNumber").Type != 0 }

func retryWrites(on bool) func(*options.ClientOptions) {
	return func(o *options.ClientOptions) { o.SetRetryWrites(on) }
}

// TestDeployments uses each kind of deployment.
func TestDeployments(t *testing.T) {
	t.Parallel()
	base := newStore(t)
	for name, tt := range map[string]struct {
		kind     deployment
		numbered bool // the driver sends retryable writes
	}{
		"standalone":  {standalone, false},
		"replica set": {replicaSet, true},
		"mongos":      {mongos, true},
		"MongoDB 4.4": {mongodb44, true},
	} {
		t.Run(name, func(t *testing.T) {
			coll, f := newFront(t, base.coll, tt.kind, nil)
			s := open(t, coll, nil)
			user := strings.ReplaceAll(name, " ", "_")
			upsert(t, s, person(user, 1), clerksync.Created)
			upsert(t, s, person(user, 1), clerksync.Unchanged)
			upsert(t, s, person(user, 2), clerksync.Updated)
			results, err := s.UpsertBatch(t.Context(), []*clerksync.User{person(user, 3), person(user+"_b", 1)})
			if err != nil || results[0].Outcome != clerksync.Updated || results[1].Outcome != clerksync.Created {
				t.Errorf("UpsertBatch: %v, %v", results, err)
			}
			deactivate(t, s, "user_"+user, hour(3))
			upsert(t, s, person(user, 4), clerksync.Deactivated)
			for _, cmd := range f.commands() {
				if name := commandName(cmd); name == "update" && isNumbered(cmd) != tt.numbered {
					t.Errorf("retryable: %t, want %t: %s", !tt.numbered, tt.numbered, cmd)
				}
			}
		})
	}
}

// openCase is a server that does not take everything, or not at once.
type openCase struct {
	script func(f *front, cmd bson.Raw) reaction
	// want is a part of Open's error; empty if Open succeeds.
	want string
	// wantOff is the same with retryWrites=false.
	wantOff string
	fresh   bool // the collection has no index yet
}

func openCases() map[string]openCase {
	to := func(which func(bson.Raw) bool, r reaction) func(*front, bson.Raw) reaction {
		return func(_ *front, cmd bson.Raw) reaction {
			if which(cmd) {
				return r
			}
			return reaction{}
		}
	}
	once := func(r reaction) func(*front, bson.Raw) reaction {
		return func(f *front, cmd bson.Raw) reaction {
			if isWrite(cmd) && len(f.seen) <= 3 { // of a ping and the writes
				return r
			}
			return reaction{}
		}
	}
	hinted := func(cmd bson.Raw) bool { return cmd.Lookup("updates", "0", "hint").Type != 0 }
	creates := func(cmd bson.Raw) bool { return commandName(cmd) == "createIndexes" }
	concern := func(code int) reaction {
		return reaction{add: bson.D{{Key: "writeConcernError", Value: bson.D{{Key: "code", Value: code}, {Key: "errmsg", Value: "x"}}}}}
	}
	byMongoDB := failed(20)
	byMongoDB.answer[2].Value = "Transaction numbers are only allowed on a replica set member or mongos" // the driver reads this
	const off = "retryWrites=false"
	return map[string]openCase{
		"retryable writes, Amazon DocumentDB": {to(isNumbered, failed(301)), off, "", false},
		"retryable writes, Azure Cosmos DB":   {to(isNumbered, failed(2)), off, "", false},
		"retryable writes, MongoDB":           {to(isNumbered, byMongoDB), off, "", false},
		"retryable writes, code 20":           {to(isNumbered, failed(20)), off, "", false},
		"retryable writes, code 9":            {to(isNumbered, failed(9)), off, "", false},
		"retryable writes, any code":          {to(isNumbered, failed(4711)), off, "", false},
		"retryable writes, of the statement":  {to(isNumbered, refused(2)), off, "", false},
		"every write, code 301":               {to(isWrite, failed(301)), off, off, false},
		"hints":                               {to(hinted, failed(9)), "", "", false},
		"hints and retryable writes": {func(_ *front, cmd bson.Raw) reaction {
			if hinted(cmd) {
				return failed(40415)
			}
			return to(isNumbered, failed(301))(nil, cmd)
		}, off, "", false},
		"unauthorized":                  {to(isWrite, failed(13)), "find, insert, update and listIndexes", "find, insert, update and listIndexes", false},
		"write concern never satisfied": {to(isWrite, concern(100)), "write concern", "write concern", false},
		"members that are down":         {to(isWrite, concern(64)), "", "", false},
		"index on a filled collection":  {to(creates, failed(67)), "empty collection", "empty collection", true},
		"throttled":                     {once(failed(16500)), "", "", false},
		"no primary for a moment":       {once(failed(10107, "RetryableWriteError")), "", "", false},
		"shutting down":                 {once(failed(91, "RetryableWriteError")), "", "", false},
	}
}

func TestOpenRefused(t *testing.T) {
	t.Parallel()
	base := newStore(t).coll
	for name, tt := range openCases() {
		for _, retry := range []bool{true, false} {
			t.Run(fmt.Sprint(name, " retryWrites=", retry), func(t *testing.T) {
				base, want := base, tt.wantOff
				if retry {
					want = tt.want
				}
				if tt.fresh {
					base = newCollection(t)
				}
				synctest.Test(t, func(t *testing.T) {
					coll, f := newFront(t, base, replicaSet, retryWrites(retry))
					f.play(func(_ string, cmd bson.Raw) reaction { return tt.script(f, cmd) })
					_, err := mongostore.Open(t.Context(), coll, nil)
					if want == "" {
						if err != nil {
							t.Errorf("error %v", err)
						}
						return
					}
					wantError(t, err, "mongostore: open: ", want)
					if errors.Is(err, clerksync.ErrRejected) || strings.Contains(err.Error(), "@") {
						t.Errorf("error %v", err)
					}
				})
			})
		}
	}
}

// TestOpenReadOnly has a database user who may only read. With ReadOnly the Store reads; without
// it, Open refuses. A user who may not create indexes is refused only if one is missing.
func TestOpenReadOnly(t *testing.T) {
	t.Parallel()
	opened := newStore(t)
	upsert(t, opened, ada(1), clerksync.Created)
	fresh := newCollection(t)
	insert(t, fresh, bson.D{{Key: "clerkId", Value: "user_ada"}})
	creates := func(cmd bson.Raw) bool { return commandName(cmd) == "createIndexes" }
	changes := func(cmd bson.Raw) bool { return isWrite(cmd) || creates(cmd) }
	changesOrLists := func(cmd bson.Raw) bool { return changes(cmd) || commandName(cmd) == "listIndexes" }
	lists := func(cmd bson.Raw) bool { return commandName(cmd) == "listIndexes" }
	const missing = "clerkId has no unique index that lookups use"
	for name, c := range map[string]struct {
		coll     *mongo.Collection
		refused  func(bson.Raw) bool
		readOnly bool
		want     string // part of Open's error; empty if Open succeeds
	}{
		"Reads":               {opened.coll, changes, true, ""},
		"ReadsUnlisted":       {opened.coll, changesOrLists, true, ""},
		"ReadsWithoutIndex":   {fresh, changes, true, missing},
		"MissingAndUnlisted":  {fresh, changesOrLists, true, ""},
		"Writes":              {opened.coll, changes, false, "find, insert, update and listIndexes"},
		"WritesUnlisted":      {opened.coll, lists, false, "privilege listIndexes"},
		"WritesWithIndex":     {opened.coll, creates, false, ""},
		"WritesWithoutIndex":  {fresh, creates, false, missing},
		"ReadsAsOneWhoWrites": {opened.coll, func(bson.Raw) bool { return false }, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			coll, f := newFront(t, c.coll, replicaSet, nil)
			f.play(func(_ string, cmd bson.Raw) reaction {
				if c.refused(cmd) {
					return failed(13)
				}
				return reaction{}
			})
			s, err := mongostore.Open(t.Context(), coll, &mongostore.Options{ReadOnly: c.readOnly})
			if c.want != "" {
				wantError(t, err, c.want)
			} else if err != nil {
				t.Fatal(err)
			} else if c.readOnly {
				wantReadOnly(t, s)
			}
			for _, cmd := range f.commands() {
				if c.readOnly && changes(cmd) {
					t.Errorf("with ReadOnly the Store sends %s", cmd)
				}
			}
		})
	}
}

// wantReadOnly checks that the Store reads and refuses to write.
func wantReadOnly(t *testing.T, s *mongostore.Store) {
	t.Helper()
	if u, err := s.User(t.Context(), "user_ada"); err != nil || u.ClerkID != "user_ada" {
		t.Errorf("User: %v, %v", u, err)
	}
	for _, err := range s.Undeleted(t.Context()) {
		if err != nil {
			t.Error(err)
		}
	}
	_, errUpsert := s.Upsert(t.Context(), ada(2))
	_, errBatch := s.UpsertBatch(t.Context(), []*clerksync.User{ada(2)})
	_, errDelete := s.Deactivate(t.Context(), "user_ada", hour(1))
	_, errRestore := s.Restore(t.Context(), "user_ada", hour(1))
	for name, err := range map[string]error{"Upsert": errUpsert, "UpsertBatch": errBatch, "Deactivate": errDelete, "Restore": errRestore} {
		if err == nil || !strings.Contains(err.Error(), "ReadOnly") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// call is one call of the Store about users whose names begin with name.
type call struct {
	before func(t *testing.T, base rawStore, name string)
	run    func(ctx context.Context, s *mongostore.Store, name string) ([]clerksync.Result, error)
	want   []clerksync.Outcome // nil if any
	record map[string]int      // the versions afterwards, by what follows name; -1 for deleted, 0 for none
	// What the calls about jobs have besides.
	erases  bool                                               // the Store has EraseOnDelete
	mayFail bool                                               // also with retryable writes
	after   func(t *testing.T, base rawStore, what, id string) // checks the jobs; nil checks nothing
}

// nobody is the state before the call if there is no record.
func nobody(*testing.T, rawStore, string) {}

func callCases() map[string]call {
	one := func(res clerksync.Result, err error) ([]clerksync.Result, error) { return []clerksync.Result{res}, err }
	has := func(n int) func(*testing.T, rawStore, string) {
		return func(t *testing.T, base rawStore, name string) { upsert(t, base, person(name, n), clerksync.Created) }
	}
	put := func(n int) func(context.Context, *mongostore.Store, string) ([]clerksync.Result, error) {
		return func(ctx context.Context, s *mongostore.Store, name string) ([]clerksync.Result, error) {
			return one(s.Upsert(ctx, person(name, n)))
		}
	}
	drop := func(ctx context.Context, s *mongostore.Store, name string) ([]clerksync.Result, error) {
		return one(s.Deactivate(ctx, "user_"+name, hour(1)))
	}
	cases := map[string]call{
		"Upsert, new":         {before: nobody, run: put(1), want: []clerksync.Outcome{clerksync.Created}, record: map[string]int{"": 1}},
		"Upsert, newer":       {before: has(1), run: put(2), record: map[string]int{"": 2}},
		"Upsert, equal":       {before: has(1), run: put(1), want: []clerksync.Outcome{clerksync.Unchanged}, record: map[string]int{"": 1}},
		"Upsert, older":       {before: has(2), run: put(1), want: []clerksync.Outcome{clerksync.Stale}, record: map[string]int{"": 2}},
		"Deactivate":          {before: has(1), run: drop, want: []clerksync.Outcome{clerksync.Deactivated}, record: map[string]int{"": -1}},
		"Deactivate, unknown": {before: nobody, run: drop, want: []clerksync.Outcome{clerksync.Deactivated}, record: map[string]int{"": -1}},
		"User": {before: has(1), run: func(ctx context.Context, s *mongostore.Store, name string) ([]clerksync.Result, error) {
			_, err := s.User(ctx, "user_"+name)
			return nil, err
		}, record: map[string]int{"": 1}},
		"UpsertBatch": {
			before: func(t *testing.T, base rawStore, name string) { has(1)(t, base, name+"b"); has(2)(t, base, name+"c") },
			run: func(ctx context.Context, s *mongostore.Store, name string) ([]clerksync.Result, error) {
				return s.UpsertBatch(ctx, []*clerksync.User{person(name+"a", 1), person(name+"b", 2), person(name+"c", 1), person(name+"d", 1)})
			},
			record: map[string]int{"a": 1, "b": 2, "c": 2, "d": 1},
		},
	}
	maps.Copy(cases, jobCalls())
	return cases
}

// The states of the jobs in jobCalls.
var (
	jobOwed    = clerksync.JobState{Due: hour(2)}
	jobClaimed = clerksync.JobState{Due: hour(9), Attempt: 1, Token: "token"}
	jobEnded   = clerksync.JobState{Attempt: 1}
)

// ofDeletion is the state of a delete job.
func ofDeletion(j clerksync.JobState) clerksync.JobState {
	j.DeletedAt = hour(1)
	return j
}

// jobCalls are the calls about jobs. Each is idempotent, so a fault never owes a job twice, loses it,
// or lets two attempts believe that they claimed it.
func jobCalls() map[string]call {
	signUp := func(t *testing.T, base rawStore, name string) {
		u := person(name, 1)
		u.CreateDue = jobOwed.Due
		upsert(t, base, u, clerksync.Created)
	}
	leave := func(t *testing.T, base rawStore, name string) {
		signUp(t, base, name)
		if _, _, err := base.DeactivateOwing(t.Context(), "user_"+name, "", hour(1), jobOwed.Due); err != nil {
			t.Fatal(err)
		}
	}
	unowed := func(t *testing.T, base rawStore, name string) { upsert(t, base, person(name, 1), clerksync.Created) }
	deleting := func(want ...clerksync.Owing) func(context.Context, *mongostore.Store, string) ([]clerksync.Result, error) {
		return func(ctx context.Context, s *mongostore.Store, name string) ([]clerksync.Result, error) {
			_, owes, err := s.DeactivateOwing(ctx, "user_"+name, "", hour(1), jobOwed.Due)
			if err == nil && !slices.Contains(want, owes) {
				err = fmt.Errorf("%w: it owes %v, want %v", errWrongAnswer, owes, want)
			}
			return nil, err
		}
	}
	changing := func(kind clerksync.JobKind, from, to clerksync.JobState, want ...bool) func(context.Context, *mongostore.Store, string) ([]clerksync.Result, error) {
		return func(ctx context.Context, s *mongostore.Store, name string) ([]clerksync.Result, error) {
			c := clerksync.JobChange{ClerkID: "user_" + name, Kind: kind, From: from, To: to}
			if kind == clerksync.JobDelete {
				c.DeletedAt = hour(1)
			}
			changed, err := s.ChangeJob(ctx, c)
			if err == nil && !slices.Contains(want, changed) {
				err = fmt.Errorf("%w: changed %t", errWrongAnswer, changed)
			}
			return nil, err
		}
	}
	first := func(before func(*testing.T, rawStore, string), kind clerksync.JobKind, from, to clerksync.JobState) func(*testing.T, rawStore, string) {
		return func(t *testing.T, base rawStore, name string) {
			before(t, base, name)
			if _, err := changing(kind, from, to, true)(t.Context(), base.Store, name); err != nil {
				t.Fatal(err)
			}
		}
	}
	leaves := func(create, del clerksync.JobState, erased bool) func(*testing.T, rawStore, string, string) {
		return func(t *testing.T, base rawStore, what, id string) {
			u, err := base.User(t.Context(), id)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if u.Jobs.Of(clerksync.JobCreate) != create || u.Jobs.Of(clerksync.JobDelete) != del || (u.Email == "") != erased {
				t.Errorf("%s: the record of %q has the jobs %+v, want %+v and %+v, and to be erased: %t", what, u.Email, u.Jobs, create, del, erased)
			}
		}
	}
	one, gone := map[string]int{"": 1}, map[string]int{"": -1}
	none := clerksync.JobState{}
	create, del := clerksync.JobCreate, clerksync.JobDelete
	owed, claimed, ended := ofDeletion(jobOwed), ofDeletion(jobClaimed), ofDeletion(jobEnded)
	put := func(ctx context.Context, s *mongostore.Store, name string) ([]clerksync.Result, error) {
		u := person(name, 1)
		u.CreateDue = jobOwed.Due
		res, err := s.Upsert(ctx, u)
		return []clerksync.Result{res}, err
	}
	return map[string]call{
		"Upsert, owing":            {before: nobody, run: put, want: []clerksync.Outcome{clerksync.Created}, record: one, after: leaves(jobOwed, none, false)},
		"DeactivateOwing":          {before: unowed, run: deleting(clerksync.OwesJob), record: gone, after: leaves(none, owed, false)},
		"DeactivateOwing, both":    {before: signUp, run: deleting(clerksync.OwesJob), record: gone, after: leaves(jobOwed, owed, false)},
		"DeactivateOwing, erasing": {before: unowed, run: deleting(clerksync.OwesJob), record: gone, erases: true, after: leaves(none, owed, false)},
		"DeactivateOwing, unknown": {before: nobody, run: deleting(clerksync.OwesNone), record: gone, after: leaves(none, none, true)},
		"DeactivateOwing, no room": {
			before: func(t *testing.T, base rawStore, name string) {
				unowed(t, base, name)
				if err := base.SetFields(t.Context(), "user_"+name, map[string]any{"clerkJobs": "of the app"}); err != nil {
					t.Fatal(err)
				}
			},
			// If its answer is lost, a repetition does not find out why no job is owed.
			run: deleting(clerksync.OwesNoRoom, clerksync.OwesNone), record: gone, after: leaves(none, none, false),
		},
		"ChangeJob, claim":   {before: signUp, run: changing(create, jobOwed, jobClaimed, true), record: one, after: leaves(jobClaimed, none, false)},
		"ChangeJob, finish":  {before: first(signUp, create, jobOwed, jobClaimed), run: changing(create, jobClaimed, jobEnded, true), record: one, after: leaves(jobEnded, none, false)},
		"ChangeJob, refused": {before: signUp, run: changing(create, jobClaimed, jobEnded, false), record: one, after: leaves(jobOwed, none, false)},
		// A job that is gone does not tell who removed it.
		"ChangeJob, drop":           {before: signUp, run: changing(create, jobOwed, none, true, false), record: one, after: leaves(none, none, false)},
		"ChangeJob, claim deletion": {before: leave, run: changing(del, owed, claimed, true), record: gone, after: leaves(jobOwed, claimed, false)},
		"ChangeJob, finish and erase": {
			before: first(leave, del, owed, claimed), run: changing(del, claimed, ended, true), record: gone, erases: true, after: leaves(jobOwed, ended, true),
		},
		"DueJobs": {before: signUp, run: func(ctx context.Context, s *mongostore.Store, name string) ([]clerksync.Result, error) {
			due, err := s.DueJobs(ctx, create, jobOwed.Due, 2)
			if want := (clerksync.JobEntry{ClerkID: "user_" + name, Kind: create, State: jobOwed}); err == nil && (len(due) != 1 || due[0] != want) {
				err = fmt.Errorf("%w: due are %+v", errWrongAnswer, due)
			}
			return nil, err
		}, record: one, after: leaves(jobOwed, none, false)},
		"PrepareJobs": {
			before: func(t *testing.T, base rawStore, name string) {
				signUp(t, base, name)
				_ = base.coll.Indexes().DropOne(t.Context(), dueIndex) // there may be none
			},
			run: func(ctx context.Context, s *mongostore.Store, _ string) ([]clerksync.Result, error) {
				return nil, s.PrepareJobs(ctx, create)
			},
			record: one, mayFail: true,
			after: func(t *testing.T, base rawStore, what, _ string) {
				if _, has := indexSpecs(t, base.coll)[dueIndex]; !has {
					t.Errorf("%s: there is no index on due", what)
				}
			},
		},
		"Restore": {before: leave, run: func(ctx context.Context, s *mongostore.Store, name string) ([]clerksync.Result, error) {
			_, err := s.Restore(ctx, "user_"+name, hour(3)) // a repetition finds it restored
			return nil, err
		}, record: map[string]int{"": 0}, after: leaves(jobOwed, none, false)},
	}
}

const dueIndex = "clerkJobs.create.due_1"

// errWrongAnswer is the error of a call that succeeded and says what is not so.
var errWrongAnswer = errors.New("a wrong answer")

// check checks the records after the call. There is one of each user, and no other.
func (c call) check(t *testing.T, what string, base rawStore, name string) {
	t.Helper()
	var ids []string
	for suffix := range c.record {
		ids = append(ids, "user_"+name+suffix)
	}
	cursor, err := base.coll.Find(t.Context(), bson.D{{Key: "clerkId", Value: bson.D{{Key: "$in", Value: ids}}}})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := base.coll.CountDocuments(t.Context(), bson.D{}); err != nil || int(n) != len(ids) {
		t.Errorf("%s: %d records in all, %v", what, n, err)
	}
	var records []struct {
		ClerkID        string    `bson:"clerkId"`
		ClerkUpdatedAt time.Time `bson:"clerkUpdatedAt"`
		DeletedAt      time.Time `bson:"deletedAt"`
		IsActive       bool      `bson:"isActive"`
	}
	if err := cursor.All(t.Context(), &records); err != nil || len(records) != len(ids) {
		t.Errorf("%s: %d records of %v, %v", what, len(records), ids, err)
	}
	for _, r := range records {
		version := c.record[strings.TrimPrefix(r.ClerkID, "user_"+name)]
		if deleted := version < 0; deleted == r.DeletedAt.IsZero() || deleted == r.IsActive ||
			!deleted && !r.ClerkUpdatedAt.Equal(versionTime(version)) {
			t.Errorf("%s: %+v, want version %d", what, r, version)
		}
	}
}

// versionTime returns the clerkUpdatedAt of a version; zero for none.
func versionTime(version int) time.Time {
	if version == 0 {
		return time.Time{}
	}
	return hour(version)
}

// fault is what happens once, to the nth command of a call.
type fault struct {
	react func(f *front) reaction
	// errs says that a write may fail without retryable writes. Otherwise no call fails.
	errs bool
}

func faultCases() map[string]fault {
	always := func(r reaction) func(*front) reaction { return func(*front) reaction { return r } }
	moved := func(r reaction) func(*front) reaction {
		return func(f *front) reaction {
			f.elect()
			return r
		}
	}
	throttled := failed(16500)
	throttled.answer = append(throttled.answer, bson.E{Key: "RetryAfterMs", Value: 5})
	statement := 0
	half := reaction{refuse: func(bson.Raw) int {
		if statement++; statement%2 == 0 {
			return 10107
		}
		return 0
	}, add: bson.D{{Key: "errorLabels", Value: bson.A{"RetryableWriteError"}}}}
	return map[string]fault{
		"throttled":                         {always(throttled), false},
		"a write conflict":                  {always(failed(112)), false},
		"another primary":                   {moved(failed(10107, "RetryableWriteError")), false},
		"another primary, without a label":  {moved(failed(189)), false},
		"the primary shuts down":            {moved(failed(91, "RetryableWriteError")), false},
		"another primary, half of a batch":  {moved(half), false},
		"the request is lost":               {always(lostRequest), true},
		"the answer is lost":                {always(lostAnswer), true},
		"the primary dies before the write": {moved(lostRequest), true},
		"the primary dies after the write":  {moved(lostAnswer), true},
	}
}

// TestFaults lets each fault happen to each command of each call. The call succeeds, or
// doing it again does, and the records are right.
func TestFaults(t *testing.T) {
	t.Parallel()
	coll := newStore(t).coll
	names := 0
	for faultName, fault := range faultCases() {
		for _, retry := range retrying(faultName) {
			t.Run(fmt.Sprint(faultName, " retryWrites=", retry), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					// A client's goroutines must all be in the bubble.
					direct := newClient(t, nil).Database(coll.Database().Name()).Collection(coll.Name())
					base := rawStore{open(t, direct, nil), direct}
					faulty, f := newFront(t, coll, replicaSet, retryWrites(retry))
					stores := map[bool]*mongostore.Store{
						false: open(t, faulty, nil), true: open(t, faulty, &mongostore.Options{EraseOnDelete: true}),
					}
					for callName, call := range callCases() {
						if call.after != nil && !chosen(faultName+callName, 4) {
							continue
						}
						s := stores[call.erases]
						for nth := 1; ; nth++ {
							names++
							what := fmt.Sprintf("%s, command %d", callName, nth)
							if !call.meet(t, what, base, f, s, fault, nth, call.mayFail || fault.errs && !retry, fmt.Sprint("n", names)) {
								if nth == 1 {
									t.Errorf("%s: the fault did not happen", what)
								}
								break
							}
						}
					}
				})
			})
		}
	}
}

// retrying returns the values of retryWrites that a fault is tried with: both, or by default one of
// them, by the fault's name.
func retrying(fault string) []bool {
	if thorough() {
		return []bool{true, false}
	}
	return []bool{chosen(fault, 2)}
}

// chosen reports whether a combination is tried: all are, or by default one of n, by its name.
func chosen(combination string, n uint32) bool {
	return thorough() || crc32.ChecksumIEEE([]byte(combination))%n == 0
}

// meet makes the call, whose nth command meets the fault. It reports whether there was one.
func (c call) meet(t *testing.T, what string, base rawStore, f *front, s *mongostore.Store, fault fault, nth int, mayFail bool, name string) bool {
	t.Helper()
	c.before(t, base, name)
	met := false
	f.play(func(_ string, cmd bson.Raw) reaction {
		if met || len(f.seen) != nth {
			return reaction{}
		}
		met = true
		return fault.react(f)
	})
	results, err := c.run(t.Context(), s, name)
	f.play(nil)
	if err != nil {
		if !mayFail || errors.Is(err, clerksync.ErrRejected) || errors.Is(err, errWrongAnswer) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := c.run(t.Context(), s, name); err != nil {
			t.Errorf("%s, again: %v", what, err)
		}
	} else if c.want != nil && results[0].Outcome != c.want[0] {
		t.Errorf("%s: %v, want %v", what, results[0].Outcome, c.want[0])
	}
	c.check(t, what, base, name)
	if c.after != nil {
		c.after(t, base, what, "user_"+name)
	}
	empty(t, base.coll)
	return met
}

// wantRejected checks that err is about the record, shows no personal data, and says why.
func wantRejected(t *testing.T, what string, err error, advice string) {
	t.Helper()
	if !errors.Is(err, clerksync.ErrRejected) || !strings.Contains(err.Error(), advice) || strings.Contains(err.Error(), "@") {
		t.Errorf("%s: %v, want a rejection that says %q", what, err, advice)
	}
}

// TestRejectedByTheServer has a server that never takes one user's new record: a validator
// requires a field that only the app writes, the record is too large, or an index cannot
// take it. The others are written, and so is what does not need a new record.
func TestRejectedByTheServer(t *testing.T) {
	t.Parallel()
	base := newStore(t)
	coll, f := newFront(t, base.coll, replicaSet, nil)
	s := open(t, coll, nil)
	for code, advice := range map[int]string{121: "validator", 10334: "16 MB", 17419: "16 MB", 16755: "geospatial", 17280: "index"} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			name := func(who string) string { return fmt.Sprint(who, code) }
			bad := "user_" + name("bad")
			f.play(func(_ string, cmd bson.Raw) reaction {
				return reaction{refuse: func(statement bson.Raw) int {
					inserted, _ := statement.Lookup("clerkId").StringValueOK()
					upserted, _ := statement.Lookup("q", "clerkId").StringValueOK()
					inserts, _ := statement.Lookup("upsert").BooleanOK()
					if inserted == bad || upserted == bad && inserts {
						return code
					}
					return 0
				}}
			})
			_, err := s.Upsert(t.Context(), person(name("bad"), 1))
			wantRejected(t, "Upsert", err, advice)
			_, err = s.Deactivate(t.Context(), bad, hour(1))
			wantRejected(t, "Deactivate", err, advice)
			for guess := range 3 { // however the batch begins
				s.SetGuess(guess)
				s.SetBackfillSize(1)
				batch := []*clerksync.User{person(name("a"), guess+1), person(name("bad"), 1), person(name("b"), guess+1)}
				_, err = s.UpsertBatch(t.Context(), batch)
				var partly *clerksync.BatchError
				if !errors.As(err, &partly) || len(partly.Errs) != 1 {
					t.Fatalf("UpsertBatch: %v, want one error", err)
				}
				wantRejected(t, "UpsertBatch", partly.Errs[1], advice)
				upsert(t, s, batch[0], clerksync.Unchanged)
				upsert(t, s, batch[2], clerksync.Unchanged)
			}
			if _, err := base.User(t.Context(), bad); !errors.Is(err, clerksync.ErrNotFound) {
				t.Errorf("something was written: %v", err)
			}

			// The app makes the record. From then on nothing needs to be inserted.
			upsert(t, base, person(name("bad"), 2), clerksync.Created)
			upsert(t, s, person(name("bad"), 2), clerksync.Unchanged)
			upsert(t, s, person(name("bad"), 1), clerksync.Stale)
			upsert(t, s, person(name("bad"), 3), clerksync.Updated)
			deactivate(t, s, bad, hour(4))
			deactivate(t, s, bad, hour(5))
			upsert(t, s, person(name("bad"), 6), clerksync.Deactivated)
		})
	}
}

// TestRefusedWithOmit has the server refuse writes with Omit to a record that exists: such a write
// often follows one that was refused already.
func TestRefusedWithOmit(t *testing.T) {
	t.Parallel()
	base := newStore(t)
	coll, f := newFront(t, base.coll, replicaSet, nil)
	s := open(t, coll, nil)
	for code, rejects := range map[int]bool{121: true, 17419: true, 2: false, 13: false, 28: false, 371: false} {
		for what, omit := range map[string][]string{"email": {"email", "emailVerified"}, "profile": {"profile.firstName"}} {
			u := change(person(fmt.Sprint(what, code), 2), func(u *clerksync.User) { u.Omit = omit })
			upsert(t, base, change(u.Clone(), func(u *clerksync.User) { u.Omit, u.ClerkUpdatedAt = nil, hour(1) }), clerksync.Created)
			f.play(func(_ string, cmd bson.Raw) reaction {
				return reaction{refuse: func(statement bson.Raw) int {
					if id, _ := statement.Lookup("q", "clerkId", "$eq").StringValueOK(); id == u.ClerkID {
						return code
					}
					if id, _ := statement.Lookup("q", "clerkId").StringValueOK(); id == u.ClerkID {
						return code
					}
					return 0
				}}
			})
			for how, do := range map[string]func() error{
				"Upsert": func() error { _, err := s.Upsert(t.Context(), u); return err },
				"UpsertBatch": func() error {
					_, err := s.UpsertBatch(t.Context(), []*clerksync.User{u})
					return err
				},
			} {
				if err := do(); err == nil || errors.Is(err, clerksync.ErrRejected) != rejects {
					t.Errorf("%s without %s, code %d: %v, want an error that matches ErrRejected: %t", how, what, code, err, rejects)
				}
			}
			f.play(nil)
			if got := upsert(t, s, u, clerksync.Updated); !got.ClerkUpdatedAt.Equal(hour(2).Add(-time.Millisecond)) {
				t.Errorf("without %s, after code %d: version %v", what, code, got.ClerkUpdatedAt)
			}
		}
	}
}

// TestTooLarge has records that are over the server's limit or the driver's.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	small := replicaSet
	small.set = append(small.set, bson.E{Key: "maxMessageSizeBytes", Value: 100_000})
	base := newStore(t)
	coll, _ := newFront(t, base.coll, small, nil)
	s := open(t, coll, nil)
	large := person("large", 1)
	large.Extra = map[string]any{"text": strings.Repeat("x", 200_000)}
	_, err := s.Upsert(t.Context(), large)
	wantRejected(t, "Upsert", err, "16 MB")
	_, err = s.UpsertBatch(t.Context(), []*clerksync.User{ada(1), large, person("bob", 1)})
	var partly *clerksync.BatchError
	if !errors.As(err, &partly) || len(partly.Errs) != 1 {
		t.Fatalf("UpsertBatch: %v, want one error", err)
	}
	wantRejected(t, "UpsertBatch", partly.Errs[1], "16 MB")
	upsert(t, base, ada(1), clerksync.Unchanged)
	upsert(t, base, person("bob", 1), clerksync.Unchanged)

	// MongoDB answers 2 to an insert over its limit, and to much else.
	coll, f := newFront(t, base.coll, replicaSet, nil)
	s = open(t, coll, nil)
	f.play(func(_ string, cmd bson.Raw) reaction {
		if isWrite(cmd) {
			return refused(2)
		}
		return reaction{}
	})
	large.Extra["text"] = strings.Repeat("x", 16<<20)
	_, err = s.Upsert(t.Context(), large)
	wantRejected(t, "Upsert over 16 MB", err, "16 MB")
	if _, err := s.Upsert(t.Context(), person("small", 1)); err == nil || errors.Is(err, clerksync.ErrRejected) {
		t.Errorf("code 2 for a small record: %v, want an error that is not about the record", err)
	}
}

// TestUnconfirmed has members that do not confirm writes. The Store must not call them
// done; doing them again is safe.
func TestUnconfirmed(t *testing.T) {
	t.Parallel()
	base := newStore(t)
	coll, f := newFront(t, base.coll, replicaSet, nil)
	s := open(t, coll, nil)
	concern := bson.D{{Key: "writeConcernError", Value: bson.D{{Key: "code", Value: 64}, {Key: "errmsg", Value: "x"}}}}
	f.play(func(_ string, cmd bson.Raw) reaction {
		if isWrite(cmd) {
			return reaction{add: concern}
		}
		return reaction{}
	})
	for name, call := range map[string]func() error{
		"Upsert":     func() error { _, err := s.Upsert(t.Context(), ada(1)); return err },
		"Deactivate": func() error { _, err := s.Deactivate(t.Context(), "user_bob", hour(1)); return err },
	} {
		if err := call(); !isCode(err, 64) || errors.Is(err, clerksync.ErrRejected) {
			t.Errorf("%s: %v, want code 64", name, err)
		}
	}
	f.play(nil)
	upsert(t, s, ada(1), clerksync.Unchanged)
	deactivate(t, s, "user_bob", hour(2))
	if u, err := base.User(t.Context(), "user_bob"); err != nil || !u.DeletedAt.Equal(hour(1)) {
		t.Errorf("the deletion: %+v, %v", u, err)
	}
}

// TestUnconfirmedBatch is TestUnconfirmed for UpsertBatch, however the batch begins. The error is
// only about the users whose records the batch wrote.
func TestUnconfirmedBatch(t *testing.T) {
	t.Parallel()
	const passes, stays = 11602, 64 // another primary, too few members
	for _, code := range []int{stays, passes} {
		for guess := range 3 {
			t.Run(fmt.Sprint(code, " guess ", guess), func(t *testing.T) {
				t.Parallel()
				base := newUniqueStore(t, "email")
				coll, f := newFront(t, base.coll, replicaSet, retryWrites(false))
				s := open(t, coll, &mongostore.Options{AllowUnique: []string{"email"}})
				s.SetGuess(guess)
				s.SetBackfillSize(1)
				for _, name := range []string{"newer", "equal", "seen", "older", "holder"} {
					upsert(t, base, person(name, 2), clerksync.Created)
				}
				times := 0
				f.play(func(_ string, cmd bson.Raw) reaction {
					if times++; !isWrite(cmd) || code == passes && times > 4 {
						return reaction{}
					}
					return reaction{add: bson.D{{Key: "writeConcernError", Value: bson.D{{Key: "code", Value: code}, {Key: "errmsg", Value: "x"}}}}}
				})
				us, written, rival := unconfirmedUsers()
				results, err := s.UpsertBatch(t.Context(), us)
				var partly *clerksync.BatchError
				if !errors.As(err, &partly) || partly.Errs[rival] == nil {
					t.Fatalf("UpsertBatch: %v", err)
				}
				if code == passes {
					written = nil
					wantConflict(t, partly.Errs[rival], "email")
				}
				for i, u := range us[:rival] {
					err := partly.Errs[i]
					if failed := slices.Contains(written, i); failed != isCode(err, stays) || failed != (results[i] == clerksync.Result{}) || failed == (err == nil) {
						t.Errorf("%s: %v, %v", u.ClerkID, results[i].Outcome, err)
					}
				}
				f.play(nil)
				results, err = s.UpsertBatch(t.Context(), us[:rival])
				if err != nil || results[3].Outcome != clerksync.Stale || results[0].Outcome != clerksync.Unchanged {
					t.Errorf("again: %v, %v", results, err)
				}
			})
		}
	}
}

// unconfirmedUsers returns users of every kind, the indexes of those whose records a batch
// writes, and that of the last one, whose address another user has.
func unconfirmedUsers() (us []*clerksync.User, written []int, rival int) {
	return []*clerksync.User{
		person("new", 1), person("newer", 3), person("equal", 2), person("older", 1),
		change(person("seen", 2), func(u *clerksync.User) { u.SyncedAt = hour(3) }),
		change(person("rival", 1), func(u *clerksync.User) { u.Email = "holder@example.com" }),
	}, []int{0, 1, 4}, 5
}

// TestReleaseRejected has a validator that requires an address, so that a deleted record
// cannot give up its own. That is a conflict: the new record has no fault.
func TestReleaseRejected(t *testing.T) {
	t.Parallel()
	base := newUniqueStore(t, "email")
	coll, f := newFront(t, base.coll, replicaSet, nil)
	s := open(t, coll, &mongostore.Options{AllowUnique: []string{"email"}})
	upsert(t, s, ada(1), clerksync.Created)
	deactivate(t, s, "user_ada", hour(2))
	f.play(func(_ string, cmd bson.Raw) reaction {
		if isRelease(cmd) {
			return refused(121)
		}
		return reaction{}
	})
	again := person("again", 3)
	again.Email = "ada@example.com"
	_, err := s.Upsert(t.Context(), again)
	wantConflict(t, err, "email")
	if errors.Is(err, clerksync.ErrRejected) {
		t.Errorf("error %v, want a conflict alone", err)
	}
}

// TestRefusedAfterOpen has a server that refuses all writes from some moment on, for a
// reason that is not the record's. Every call says so, and reads go on.
func TestRefusedAfterOpen(t *testing.T) {
	t.Parallel()
	base := newStore(t)
	coll, f := newFront(t, base.coll, replicaSet, nil)
	s := open(t, coll, nil)
	upsert(t, s, ada(1), clerksync.Created)
	for code, advice := range map[int]string{
		301: "retryWrites=false", 20: "retryWrites=false", 9: "retryWrites=false", 2: "retryWrites=false",
		13: "find, insert, update", 371: "blocks writes", 14031: "disk",
	} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			f.play(func(_ string, cmd bson.Raw) reaction {
				if isWrite(cmd) {
					return failed(code)
				}
				return reaction{}
			})
			us := []*clerksync.User{ada(2), person("bob", 1)}
			_, errBatch := s.UpsertBatch(t.Context(), us)
			var partly *clerksync.BatchError
			if !errors.As(errBatch, &partly) || len(partly.Errs) != len(us) {
				t.Fatalf("UpsertBatch: %v, want an error for each user", errBatch)
			}
			_, errUpsert := s.Upsert(t.Context(), us[0])
			_, errNew := s.Upsert(t.Context(), us[1])
			_, errDelete := s.Deactivate(t.Context(), "user_ada", hour(3))
			_, errRestore := s.Restore(t.Context(), "user_ada", hour(4))
			for call, err := range map[string]error{
				"UpsertBatch, newer": partly.Errs[0], "UpsertBatch, new": partly.Errs[1],
				"Upsert, newer": errUpsert, "Upsert, new": errNew, "Deactivate": errDelete, "Restore": errRestore,
			} {
				if !isCode(err, code) || errors.Is(err, clerksync.ErrRejected) || strings.Contains(fmt.Sprint(err), "@") ||
					!strings.Contains(fmt.Sprint(err), advice) {
					t.Errorf("%s: %v, want %q", call, err, advice)
				}
			}
			if u, err := s.User(t.Context(), "user_ada"); err != nil || !u.ClerkUpdatedAt.Equal(hour(1)) || !u.IsActive {
				t.Errorf("User: %+v, %v", u, err)
			}
		})
	}
	f.play(nil)
	upsert(t, s, ada(2), clerksync.Updated)
}
