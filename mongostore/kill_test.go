package mongostore_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/mongostore"
)

// TestReconcileKilled kills runs that repair a drifted collection, real processes, at
// random points, and starts others that go on: with the last resume point that
// the killed one printed, or from the beginning. Each repair that gets through
// ends as an undisturbed one does.
func TestReconcileKilled(t *testing.T) {
	const kills = 50
	clerk, err := fakeclerk.Start(fakeclerk.Config{RateLimit: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = clerk.Close() }()
	for i := range 120 {
		clerk.CreateUser(fakeclerk.NewUser{
			FirstName: fmt.Sprint("First", i), Email: fmt.Sprintf("u%d@example.com", i), CreatedAt: hour(0).Add(time.Duration(i) * time.Second),
		})
	}

	undisturbed := newCollection(t)
	drift(t, undisturbed, clerk)
	if report, err := newReconciler(t, undisturbed, clerk).Reconcile(t.Context(), killedOptions("", nil)); err != nil || report.Deactivated.Count != 8 || report.Created.Count != 24 {
		t.Fatalf("undisturbed: %+v, %v", report, err)
	}
	want := state(t, undisturbed)

	coll := newCollection(t)
	killed, finished, resumed := 0, 0, 0
	for token, fresh := "", true; killed < kills || finished == 0; {
		if fresh {
			drift(t, coll, clerk)
			fresh = false
		}
		if rand.N(2) == 0 {
			token = ""
		}
		if token != "" {
			resumed++
		}
		after := rand.N(40)
		if killed >= kills {
			after = 1 << 30 // this one may finish
		}
		last, dead := reconcileAndKill(t, coll, clerk, token, after)
		if last != "" {
			token = last
		}
		if dead {
			killed++
			continue
		}
		finished++
		if diff := cmp.Diff(want, state(t, coll)); diff != "" {
			t.Fatalf("after %d kills and %d resumptions the end differs from an undisturbed run's (-want +got):\n%s", killed, resumed, diff)
		}
		token, fresh = "", true
	}
	t.Logf("%d runs killed, %d resumed by token, %d repairs ended", killed, resumed, finished)
	if resumed == 0 {
		t.Error("no run was resumed by its token")
	}
}

// killedOptions make a run of many small steps.
func killedOptions(token string, progress func(clerksync.Progress)) clerksync.ReconcileOptions {
	return clerksync.ReconcileOptions{Resume: token, PageSize: 5, Writers: 2, RequestsPerSecond: 1e6, MaxDeactivations: 50, Progress: progress}
}

// drift fills the collection with what a backfill, a lost webhook and an app have
// left there.
func drift(t testing.TB, coll *mongo.Collection, clerk *fakeclerk.Server) {
	t.Helper()
	if _, err := coll.DeleteMany(t.Context(), bson.D{}); err != nil {
		t.Fatal(err)
	}
	var docs []any
	add := func(id string, more ...bson.E) {
		docs = append(docs, append(bson.D{
			{Key: "clerkId", Value: id}, {Key: "createdAt", Value: hour(-48)}, {Key: "role", Value: "TEACHER"}, {Key: "grade", Value: "of " + id},
		}, more...))
	}
	for i, id := range clerk.UserIDs() {
		switch i % 5 {
		case 0: // missing
		case 1:
			add(id, bson.E{Key: "clerkUpdatedAt", Value: hour(-24)}, bson.E{Key: "name", Value: "Old"})
		case 2: // before clerksync
			add(id, bson.E{Key: "email", Value: "old@example.com"}, bson.E{Key: "profile", Value: nil})
		case 3:
			add(id, bson.E{Key: "clerkUpdatedAt", Value: hour(-24)}, bson.E{Key: "isActive", Value: false})
		case 4:
			add(id, bson.E{Key: "deletedAt", Value: nil}, bson.E{Key: "extraFields", Value: bson.A{"plan"}}, bson.E{Key: "plan", Value: "gold"})
		}
	}
	for i := range 8 {
		add(fmt.Sprintf("user_ghost%d", i), bson.E{Key: "clerkUpdatedAt", Value: hour(-24)})
	}
	if _, err := coll.InsertMany(t.Context(), docs); err != nil {
		t.Fatal(err)
	}
}

// state is all records by clerkId, without what no two runs have in common.
func state(t testing.TB, coll *mongo.Collection) map[string]any {
	t.Helper()
	cursor, err := coll.Find(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	var docs []bson.Raw
	if err := cursor.All(t.Context(), &docs); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]any)
	for _, raw := range docs {
		fields := plain(bson.RawValue{Type: bson.TypeEmbeddedDocument, Value: raw}).(map[string]any)
		id := fields["clerkId"].(string)
		if all[id] != nil {
			t.Fatalf("two records of %s", id)
		}
		for _, name := range []string{"_id", "createdAt", "updatedAt", "syncedAt"} {
			delete(fields, name)
		}
		if _, deleted := fields["deletedAt"]; deleted {
			fields["deletedAt"] = "set"
		}
		all[id] = fields
	}
	return all
}

// reconcileAndKill runs a Reconcile in a process of its own and kills that a moment
// after it has told its progress so many times. It returns the last resume point
// told, and whether the process was killed before it was through.
func reconcileAndKill(t testing.TB, coll *mongo.Collection, clerk *fakeclerk.Server, token string, after int) (last string, killed bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(),
		childVariable+"=reconcile", "MONGODB_URI="+uri, "TEST_DATABASE="+coll.Database().Name(), "TEST_COLLECTION="+coll.Name(),
		"CLERK_API_URL="+clerk.APIURL(), "CLERK_SECRET_KEY="+clerk.SecretKey(), "TEST_RESUME="+token)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		if text := lines.Text(); text != "" {
			last = text
		}
		if n == after {
			// Not at the line but behind it, where the next page is being written.
			time.AfterFunc(rand.N(15*time.Millisecond), func() { _ = cmd.Process.Kill() })
		}
	}
	err = cmd.Wait()
	if err == nil {
		return "", false
	}
	if cmd.ProcessState.Exited() {
		t.Fatalf("the run failed by itself: %v", err)
	}
	return last, true
}

// childVariable makes the test binary one of the processes that tests kill.
const childVariable = "CLERKSYNC_TEST_CHILD"

// runChild is such a process.
func runChild() error {
	ctx := context.Background()
	client, err := mongo.Connect(options.Client().ApplyURI(os.Getenv("MONGODB_URI")))
	if err != nil {
		return err
	}
	coll := client.Database(os.Getenv("TEST_DATABASE")).Collection(os.Getenv("TEST_COLLECTION"))
	store, err := mongostore.Open(ctx, coll, &mongostore.Options{BatchSize: batchSize})
	if err != nil {
		return err
	}
	s, err := clerksync.New(clerksync.Config{Store: store, SecretKey: os.Getenv("CLERK_SECRET_KEY"), APIURL: os.Getenv("CLERK_API_URL")})
	if err != nil {
		return err
	}
	_, err = s.Reconcile(ctx, killedOptions(os.Getenv("TEST_RESUME"), func(p clerksync.Progress) {
		fmt.Println(p.Report.Resume)
	}))
	return err
}
