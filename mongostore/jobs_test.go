package mongostore_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/mongostore"
)

// owing is a user at version n whose first insert owes OnCreate.
func owing(name string, n int) *clerksync.User {
	return change(person(name, n), func(u *clerksync.User) { u.CreateDue = hour(n) })
}

// deactivateOwing must owe what is wanted.
func deactivateOwing(t testing.TB, s clerksync.JobStore, id, externalID string, n int, want clerksync.Owing) {
	t.Helper()
	res, owes, err := s.DeactivateOwing(t.Context(), id, externalID, hour(n), hour(n))
	if err != nil || res.Outcome != clerksync.Deactivated || owes != want {
		t.Fatalf("DeactivateOwing of %s: %v, owes %v, %v; want %v", id, res.Outcome, owes, err, want)
	}
}

// changeJob gives a job the state that next makes of it.
func changeJob(t testing.TB, s clerksync.JobStore, id string, kind clerksync.JobKind, next func(*clerksync.JobState)) bool {
	t.Helper()
	u, err := s.User(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	c := clerksync.JobChange{ClerkID: id, Kind: kind, From: u.Jobs.Of(kind), To: u.Jobs.Of(kind), DeletedAt: u.DeletedAt}
	next(&c.To)
	changed, err := s.ChangeJob(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func claimed(j *clerksync.JobState) { j.Attempt, j.Token, j.Due = j.Attempt+1, "token", hour(20) }

func ended(j *clerksync.JobState) {
	*j = clerksync.JobState{Attempt: j.Attempt, DeletedAt: j.DeletedAt}
}

// TestJobRoundTrips counts the commands. Rules: no further round trip before the creating write
// returns; claiming, finishing and looking for due jobs are one command each.
func TestJobRoundTrips(t *testing.T) {
	t.Parallel()
	coll, sent := newMonitored(t, newCollection(t))
	s := open(t, coll, nil)
	sent.take()
	must := func(changed bool) error {
		if !changed {
			return fmt.Errorf("the job is not changed")
		}
		return nil
	}
	step := func(name string, want []string, run func() error) {
		t.Helper()
		sent.take()
		if err := run(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := sent.names(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	upserted := func(u *clerksync.User) func() error {
		return func() error { _, err := s.Upsert(t.Context(), u); return err }
	}
	deleted := func(id string) func() error {
		return func() error { _, _, err := s.DeactivateOwing(t.Context(), id, "", hour(3), hour(3)); return err }
	}
	due := func() error { _, err := s.DueJobs(t.Context(), clerksync.JobCreate, hour(9), 10); return err }
	prepare := func() error { return s.PrepareJobs(t.Context(), clerksync.JobCreate) }
	step("create", []string{"update"}, upserted(owing("ada", 1)))
	step("update", []string{"update"}, upserted(owing("ada", 2)))
	step("due", []string{"find"}, due)
	step("claim", []string{"find", "update"}, func() error { return must(changeJob(t, s, "user_ada", clerksync.JobCreate, claimed)) })
	step("finish", []string{"find", "update"}, func() error { return must(changeJob(t, s, "user_ada", clerksync.JobCreate, ended)) })
	step("delete", []string{"update"}, deleted("user_ada"))
	step("delete again", []string{"update", "find"}, deleted("user_ada"))
	step("delete unknown", []string{"update", "find", "insert"}, deleted("user_none"))
	step("prepare", []string{"listIndexes", "createIndexes"}, prepare)
	step("prepare again", []string{"listIndexes"}, prepare)
}

// TestDueJobsUseTheSparseIndex: Amazon DocumentDB uses it only if the query has $exists.
func TestDueJobsUseTheSparseIndex(t *testing.T) {
	t.Parallel()
	coll, sent := newMonitored(t, newCollection(t))
	s := open(t, coll, nil)
	sent.take()
	for _, kind := range []clerksync.JobKind{clerksync.JobCreate, clerksync.JobDelete} {
		if _, err := s.DueJobs(t.Context(), kind, hour(1), 10); err != nil {
			t.Fatal(err)
		}
		path := "clerkJobs." + string(kind) + ".due"
		for _, cmd := range sent.take() {
			if exists, ok := cmd.Lookup("filter", path, "$exists").BooleanOK(); !ok || !exists {
				t.Errorf("the query is %v", cmd.Lookup("filter"))
			}
		}
	}
}

// TestJobsCostNothingWithout checks that an app without OnCreate and OnDelete sends no other
// command, makes no index and stores nothing more.
func TestJobsCostNothingWithout(t *testing.T) {
	t.Parallel()
	base := newCollection(t)
	clerk, s, sent := newApp(t, base, nil)
	id := clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	if _, err := s.User(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	event := clerksync.Event{Type: "user.deleted", Data: fmt.Appendf(nil, `{"id":%q}`, id)}
	if _, err := s.Apply(t.Context(), event); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := sent.names(), []string{"find", "update", "update"}; !slices.Equal(got, want) {
		t.Errorf("commands %q, want %q", got, want)
	}
	if _, has := (rawStore{coll: base}).fields(t, id)["clerkJobs"]; has {
		t.Error("the record has clerkJobs")
	}
	if specs := indexSpecs(t, base); len(specs) != 2 {
		t.Errorf("indexes %v", specs)
	}
}

// TestJobsOfAnApp runs both functions on a real Store, under each map. Rules: the index of a kind is
// made by the first owed write; an attempt is read, claim and finish.
func TestJobsOfAnApp(t *testing.T) {
	t.Parallel()
	maps := map[string]func() mongostore.Fields{"NoFields": func() mongostore.Fields { return nil }}
	for name, fields := range fieldMaps {
		maps[name] = fields
	}
	for name, fields := range maps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkJobsOfAnApp(t, fields())
		})
	}
}

func checkJobsOfAnApp(t *testing.T, fields mongostore.Fields) {
	clerk, err := fakeclerk.Start(fakeclerk.Config{RateLimit: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = clerk.Close() }()
	base := newCollection(t)
	monitor.expect(base.Name(), fields["clerkId"])
	coll, sent := newMonitored(t, base)
	store := open(t, coll, &mongostore.Options{BatchSize: batchSize, Fields: fields})
	sent.take()
	ran := make(chan string, 10)
	run := func(_ context.Context, u *clerksync.User, job clerksync.Job) error {
		ran <- fmt.Sprintf("%s #%d for %s", job.Key, job.Attempt, u.Name)
		return nil
	}
	s, err := clerksync.New(clerksync.Config{Store: store, SecretKey: clerk.SecretKey(), APIURL: clerk.APIURL(), OnCreate: run, OnDelete: run})
	if err != nil {
		t.Fatal(err)
	}
	id := clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	if _, err := s.Sync(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if got, want := <-ran, id+"/create #1 for Ada"; got != want {
		t.Errorf("OnCreate ran for %q, want %q", got, want)
	}
	at := time.Now().UTC().Truncate(time.Millisecond)
	event := clerksync.Event{Type: "user.deleted", Timestamp: at, Data: fmt.Appendf(nil, `{"id":%q}`, id)}
	if _, err := s.Apply(t.Context(), event); err != nil {
		t.Fatal(err)
	}
	for len(ran) == 0 { // OnDelete waits until the end of OnCreate is written
		if n, err := s.DrainJobs(t.Context()); err != nil || n > 1 {
			t.Fatalf("DrainJobs: %d, %v", n, err)
		}
	}
	if got, want := <-ran, fmt.Sprintf("%s/delete/%d #1 for Ada", id, at.UnixMilli()); got != want {
		t.Errorf("OnDelete ran for %q, want %q", got, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	u, err := store.User(t.Context(), id)
	if err != nil || u.Jobs.Of(clerksync.JobCreate).Attempt != 1 || u.Jobs.Of(clerksync.JobDelete).Attempt != 1 {
		t.Fatalf("%+v, %v", u, err)
	}
	if !u.Jobs.Create.Due.IsZero() || !u.Jobs.Delete.Due.IsZero() {
		t.Errorf("the jobs are %+v", *u.Jobs)
	}
	if first := sent.names()[0]; first != "update" {
		t.Errorf("the first command is %s, want the creating update", first)
	}
	wantJobIndexes(t, base, fields)
}

// wantJobIndexes checks that there is an index for each kind, and that it holds only owed jobs.
func wantJobIndexes(t *testing.T, coll *mongo.Collection, fields mongostore.Fields) {
	t.Helper()
	parent := "clerkJobs"
	if to := fields["clerkJobs"]; to != "" {
		parent = to
	}
	specs := indexSpecs(t, coll)
	for _, kind := range []string{"create", "delete"} {
		spec, has := specs[parent+"."+kind+".due_1"]
		if !has || listsSparse() && (spec.Sparse == nil || !*spec.Sparse) {
			t.Errorf("the index for %s: %+v, %t; want a sparse one", kind, spec, has)
		}
	}
}

// TestEraseOnDeleteWaitsForTheJob: the record keeps the person's data for OnDelete, and loses it in
// the write that finishes, fails or discards the job; at once if no job is owed.
func TestEraseOnDeleteWaitsForTheJob(t *testing.T) {
	t.Parallel()
	fail := func(j *clerksync.JobState) {
		*j = clerksync.JobState{Attempt: j.Attempt, FailedAt: hour(9), Code: "error", DeletedAt: j.DeletedAt}
	}
	retry := func(j *clerksync.JobState) {
		*j = clerksync.JobState{Attempt: j.Attempt, Due: hour(9), Code: "error", DeletedAt: j.DeletedAt}
	}
	for name, fields := range map[string]mongostore.Fields{"NoFields": nil, "Nested": nestedFields()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openMapped(t, &mongostore.Options{BatchSize: batchSize, EraseOnDelete: true, Fields: fields})
			erased := func(id string) bool {
				t.Helper()
				u, err := s.User(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				return u.Email == "" && u.Name == "" && u.Extra == nil
			}
			for name, end := range map[string]func(*clerksync.JobState){"finish": ended, "fail": fail} {
				id := "user_" + name
				upsert(t, s.Store, owing(name, 1), clerksync.Created)
				deactivateOwing(t, s, id, "", 3, clerksync.OwesJob)
				deactivateOwing(t, s, id, "", 4, clerksync.OwesNone)
				steps := []func(*clerksync.JobState){claimed, retry, claimed}
				for i, step := range steps {
					if !changeJob(t, s, id, clerksync.JobDelete, step) || erased(id) {
						t.Errorf("%s: step %d is not written, or erases: %t", name, i, erased(id))
					}
				}
				if changeJob(t, s, id, clerksync.JobCreate, ended); erased(id) {
					t.Errorf("%s: the end of the create job erases", name)
				}
				if !changeJob(t, s, id, clerksync.JobDelete, end) || !erased(id) {
					t.Errorf("%s: the end of the job is not written, or does not erase", name)
				}
			}
			checkErasedAtOnce(t, s, erased)
			upsert(t, s.Store, person("back", 1), clerksync.Created)
			deactivateOwing(t, s, "user_back", "", 3, clerksync.OwesJob)
			if ok, err := s.Restore(t.Context(), "user_back", hour(9)); err != nil || !ok || erased("user_back") {
				t.Errorf("Restore: %t, %v; erased: %t", ok, err, erased("user_back"))
			}
		})
	}
}

// checkErasedAtOnce deletes records that owe no job.
func checkErasedAtOnce(t *testing.T, s mappedStore, erased func(id string) bool) {
	t.Helper()
	upsert(t, s.Store, person("none", 1), clerksync.Created)
	if deactivate(t, s, "user_none", hour(3)); !erased("user_none") {
		t.Error("without a job the record is not erased at once")
	}
	upsert(t, s.Store, person("legacy", 1), clerksync.Created)
	if err := s.SetFields(t.Context(), "user_legacy", map[string]any{"clerkJobs": "none"}); err != nil {
		t.Fatal(err)
	}
	if deactivateOwing(t, s, "user_legacy", "", 3, clerksync.OwesNoRoom); !erased("user_legacy") {
		t.Error("without room for a job the record is not erased at once")
	}
}

// TestEraseIsGuarded changes the record between the read and the write that ends the job.
func TestEraseIsGuarded(t *testing.T) {
	t.Parallel()
	base := newStore(t)
	armed := false
	s := open(t, newHooked(t, base.coll, func(cmd bson.Raw) {
		if armed && commandKind(cmd) == "write" {
			armed = false
			update := bson.D{{Key: "$set", Value: bson.D{{Key: "late", Value: "x"}, {Key: "extraFields", Value: bson.A{"late"}}}}}
			if _, err := base.coll.UpdateOne(context.Background(), bson.D{}, update); err != nil {
				t.Error(err)
			}
		}
	}), &mongostore.Options{EraseOnDelete: true})
	upsert(t, s, owing("ada", 1), clerksync.Created)
	deactivateOwing(t, s, "user_ada", "", 3, clerksync.OwesJob)
	// An end without an attempt is for the deletion that it read, and not written for another one.
	drop := clerksync.JobChange{ClerkID: "user_ada", Kind: clerksync.JobDelete, From: clerksync.JobState{Due: hour(3), DeletedAt: hour(3)}}
	if changed, err := s.ChangeJob(t.Context(), drop); changed || err != nil {
		t.Errorf("a drop of a job whose record was not deleted when it was read: %t, %v", changed, err)
	}
	changeJob(t, s, "user_ada", clerksync.JobDelete, claimed)
	armed = true
	if !changeJob(t, s, "user_ada", clerksync.JobDelete, ended) {
		t.Error("the end of the job is not written")
	}
	if fields := base.fields(t, "user_ada"); fields["late"] != nil || fields["email"] != nil {
		t.Errorf("the record is not erased: %v", fields)
	}
}

// TestForeignJobs: what the app has in place of a job, and looks like one, counts as none. Nobody
// tries to claim it again and again.
func TestForeignJobs(t *testing.T) {
	t.Parallel()
	coll, sent := newMonitored(t, newCollection(t))
	s := rawStore{open(t, coll, nil), coll}
	syncer, err := clerksync.New(clerksync.Config{
		Store: s.Store, SecretKey: "sk_test_x",
		OnCreate: func(_ context.Context, u *clerksync.User, _ clerksync.Job) error {
			t.Errorf("OnCreate of %s", u.ClerkID)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syncer.Close() }()
	for name, job := range map[string]bson.D{
		"attempt":  {{Key: "due", Value: hour(1)}, {Key: "attempt", Value: "three"}},
		"negative": {{Key: "due", Value: hour(1)}, {Key: "attempt", Value: -1}},
		"half":     {{Key: "due", Value: hour(1)}, {Key: "attempt", Value: 1.5}},
		"code":     {{Key: "due", Value: hour(1)}, {Key: "code", Value: 7}},
		"token":    {{Key: "due", Value: hour(1)}, {Key: "token", Value: bson.D{{Key: "of", Value: "the app"}}}},
		"failed":   {{Key: "due", Value: hour(1)}, {Key: "failedAt", Value: true}},
		"deleted":  {{Key: "due", Value: hour(1)}, {Key: "deletedAt", Value: "no"}},
		"due":      {{Key: "due", Value: bson.A{hour(1)}}},
	} {
		upsert(t, s, person(name, 1), clerksync.Created)
		if err := s.SetFields(t.Context(), "user_"+name, map[string]any{"clerkJobs": bson.D{{Key: "create", Value: job}}}); err != nil {
			t.Fatal(err)
		}
		if u, err := s.User(t.Context(), "user_"+name); err != nil || u.Jobs != nil {
			t.Errorf("%s: the record has the jobs %+v, %v", name, u.Jobs, err)
		}
	}
	sent.take()
	if n, err := syncer.DrainJobs(t.Context()); n != 0 || err != nil {
		t.Errorf("DrainJobs: %d, %v", n, err)
	}
	if got := sent.names(); slices.Contains(got, "update") || len(got) > 4 {
		t.Errorf("DrainJobs sent %q", got)
	}
}

// TestJobWritesMayComeTwice loses the answer to every write, so that the driver sends it again.
func TestJobWritesMayComeTwice(t *testing.T) {
	t.Parallel()
	for name, fields := range map[string]mongostore.Fields{"NoFields": nil, "ID": {"clerkId": "_id"}, "NoUpdatedAt": {"updatedAt": ""}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := twice(t, fields)
			upsert(t, s, owing("ada", 1), clerksync.Created)
			if _, err := s.UpsertBatch(t.Context(), []*clerksync.User{owing("bob", 1), owing("ada", 2)}); err != nil {
				t.Fatal(err)
			}
			for _, id := range []string{"user_ada", "user_bob"} {
				for i, step := range []func(*clerksync.JobState){claimed, ended} {
					if !changeJob(t, s, id, clerksync.JobCreate, step) {
						t.Errorf("%s, step %d: not reported", id, i)
					}
				}
				deactivateOwing(t, s, id, "", 3, clerksync.OwesJob)
				u, err := s.User(t.Context(), id)
				want := clerksync.Jobs{Create: clerksync.JobState{Attempt: 1}, Delete: clerksync.JobState{Due: hour(3), DeletedAt: hour(3)}}
				if err != nil || u.Jobs == nil || *u.Jobs != want {
					t.Errorf("%s: jobs %+v, %v", id, u.Jobs, err)
				}
			}
		})
	}
}

// TestAdoptionOwesNoJob: an adopted user had a record before. Its deletion owes a job, and so does
// that of a record which is linked only by the deletion.
func TestAdoptionOwesNoJob(t *testing.T) {
	t.Parallel()
	for _, erase := range []bool{false, true} {
		s := openDeleting(t, newCollection(t), erase)
		named := func(id any, legacyID string) bson.D { return legacy(id, bson.E{Key: "legacyId", Value: legacyID}) }
		insert(t, s.coll, named(1, "a1"), named(2, "a2"))
		ada := change(owing("ada", 1), func(u *clerksync.User) { u.ExternalID = "a1" })
		if u := upsert(t, s, ada, clerksync.Adopted); u.Jobs != nil {
			t.Errorf("an adopted record has the jobs %+v", *u.Jobs)
		}
		bob := change(owing("bob", 1), func(u *clerksync.User) { u.ExternalID = "a3" })
		if u := upsert(t, s, bob, clerksync.Created); u.Jobs.Of(clerksync.JobCreate).Due.IsZero() {
			t.Error("a user who adopts nothing owes no job")
		}
		for id, externalID := range map[string]string{"user_ada": "a1", "user_bob": "a3", "user_linked": "a2"} {
			deactivateOwing(t, s, id, externalID, 3, clerksync.OwesJob)
			u, err := s.User(t.Context(), id)
			if err != nil || u.Jobs.Of(clerksync.JobDelete) != (clerksync.JobState{Due: hour(3), DeletedAt: hour(3)}) {
				t.Errorf("%s: %+v, %v", id, u, err)
			}
			if !changeJob(t, s, id, clerksync.JobDelete, claimed) || !changeJob(t, s, id, clerksync.JobDelete, ended) {
				t.Errorf("%s: the job cannot be done", id)
			}
		}
		deactivateOwing(t, s, "user_none", "a9", 3, clerksync.OwesNone)
	}
}

// TestPrepareJobsUsesTheAppsIndex makes no second index.
func TestPrepareJobsUsesTheAppsIndex(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	createIndex(t, s.coll, ascending("clerkJobs.create.due", "clerkId"), options.Index().SetName("own").SetSparse(true))
	if err := s.PrepareJobs(t.Context(), clerksync.JobCreate); err != nil {
		t.Fatal(err)
	}
	if specs := indexSpecs(t, s.coll); len(specs) != 3 {
		t.Errorf("indexes %v", specs)
	}
}

// TestJobsReadOnly refuses what writes.
func TestJobsReadOnly(t *testing.T) {
	t.Parallel()
	base := newStore(t)
	upsert(t, base, owing("ada", 1), clerksync.Created)
	s := open(t, base.coll, &mongostore.Options{ReadOnly: true})
	due, err := s.DueJobs(t.Context(), clerksync.JobCreate, hour(1), 10)
	if err != nil || len(due) != 1 {
		t.Errorf("DueJobs: %v, %v", due, err)
	}
	_, changeErr := s.ChangeJob(t.Context(), clerksync.JobChange{ClerkID: "user_ada", Kind: clerksync.JobCreate})
	_, _, deleteErr := s.DeactivateOwing(t.Context(), "user_ada", "", hour(1), hour(1))
	for name, err := range map[string]error{
		"ChangeJob": changeErr, "DeactivateOwing": deleteErr, "PrepareJobs": s.PrepareJobs(t.Context(), clerksync.JobCreate),
	} {
		t.Run(name, func(t *testing.T) { wantError(t, err, "ReadOnly") })
	}
}
