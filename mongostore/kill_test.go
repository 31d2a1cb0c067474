package mongostore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/mongostore"
)

// The population of TestReconcileKilled: drift leaves every fifth user without a record,
// and adds ghosts, records of users whom Clerk does not have.
const (
	killedUsers   = 30
	killedMissing = killedUsers / 5
	killedGhosts  = 3
)

// TestReconcileKilled repairs a drifted collection in processes that kill themselves at a
// random command. The next process resumes with the last token that the killed one
// printed, or begins anew. Each repair that ends must end like an undisturbed one.
func TestReconcileKilled(t *testing.T) {
	t.Parallel()
	clerk, err := fakeclerk.Start(fakeclerk.Config{RateLimit: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = clerk.Close() }()
	for i := range killedUsers {
		clerk.CreateUser(fakeclerk.NewUser{
			FirstName: fmt.Sprint("First", i), Email: fmt.Sprintf("u%d@example.com", i),
			CreatedAt: hour(0).Add(time.Duration(i) * time.Second),
		})
	}
	want, commands := undisturbed(t, clerk)

	coll := newCollection(t)
	drift(t, coll, clerk)
	killed, resumed, finished := 0, 0, 0
	for token := ""; killed < *kills || finished == 0; {
		killAt := 0 // never: this one may finish
		if killed < *kills {
			killAt = 1 + rand.N(commands)
		}
		if killed == 0 {
			killAt = commands / 2 // late enough for a token
		}
		if token != "" {
			resumed++
		}
		last, dead := reconcileInChild(t, coll, clerk, token, killAt)
		if dead {
			killed++
			token = last
			if killed%2 == 0 { // every other one begins anew
				token = ""
			}
			continue
		}
		finished++
		if diff := cmp.Diff(want, state(t, coll)); diff != "" {
			t.Fatalf("after %d kills and %d resumptions the end differs from an undisturbed run's (-want +got):\n%s",
				killed, resumed, diff)
		}
		token = ""
		drift(t, coll, clerk)
	}
	t.Logf("%d runs killed, %d resumed by token, %d repairs ended", killed, resumed, finished)
	if resumed == 0 {
		t.Error("no run was resumed by its token")
	}
}

// undisturbed repairs a drifted collection. It returns the records in the end, and how
// many commands the repair sent.
func undisturbed(t *testing.T, clerk *fakeclerk.Server) (records map[string]any, sentCommands int) {
	t.Helper()
	base := newCollection(t)
	drift(t, base, clerk)
	coll, sent := newMonitored(t, base)
	s := newReconciler(t, coll, clerk)
	sent.take()
	report, err := s.Reconcile(t.Context(), killedOptions("", nil))
	if err != nil || report.Deactivated.Count != killedGhosts || report.Created.Count != killedMissing {
		t.Fatalf("undisturbed: %+v, %v", report, err)
	}
	return state(t, base), len(sent.take())
}

// killedOptions make a run of many small steps.
func killedOptions(token string, progress func(clerksync.Progress)) clerksync.ReconcileOptions {
	return clerksync.ReconcileOptions{
		Resume: token, PageSize: 5, Writers: 2, RequestsPerSecond: 1e6, MaxDeactivations: 50, Progress: progress,
	}
}

// drift empties the collection, and fills it with what a backfill, a lost webhook and an
// app may leave.
func drift(t testing.TB, coll *mongo.Collection, clerk *fakeclerk.Server) {
	t.Helper()
	if _, err := coll.DeleteMany(t.Context(), bson.D{}); err != nil {
		t.Fatal(err)
	}
	var docs []any
	add := func(id string, more ...bson.E) {
		docs = append(docs, append(bson.D{
			{Key: "clerkId", Value: id}, {Key: "createdAt", Value: hour(-48)},
			{Key: "role", Value: "TEACHER"}, {Key: "grade", Value: "of " + id},
		}, more...))
	}
	for i, id := range clerk.UserIDs() {
		switch i % 5 {
		case 0: // missing
		case 1:
			add(id, bson.E{Key: "clerkUpdatedAt", Value: hour(-24)}, bson.E{Key: "name", Value: "Old"})
		case 2: // from before clerksync
			add(id, bson.E{Key: "email", Value: "old@example.com"}, bson.E{Key: "profile", Value: nil})
		case 3:
			add(id, bson.E{Key: "clerkUpdatedAt", Value: hour(-24)}, bson.E{Key: "isActive", Value: false})
		case 4:
			add(id, bson.E{Key: "deletedAt", Value: nil},
				bson.E{Key: "extraFields", Value: bson.A{"plan"}}, bson.E{Key: "plan", Value: "gold"})
		}
	}
	for i := range killedGhosts {
		add(fmt.Sprintf("user_ghost%d", i), bson.E{Key: "clerkUpdatedAt", Value: hour(-24)})
	}
	if _, err := coll.InsertMany(t.Context(), docs); err != nil {
		t.Fatal(err)
	}
}

// state returns all records by clerkId, without the fields that differ between any two runs.
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

// childVariable makes the test binary run a Reconcile that kills itself.
const childVariable = "CLERKSYNC_TEST_CHILD"

// reconcileInChild runs a Reconcile in a process that kills itself before the command with
// the number killAt, never if that is 0. It returns the last token that the process
// printed, and whether it was killed before the end.
func reconcileInChild(
	t testing.TB, coll *mongo.Collection, clerk *fakeclerk.Server, token string, killAt int,
) (last string, killed bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(),
		childVariable+"=reconcile", "MONGODB_URI="+uri,
		"TEST_DATABASE="+coll.Database().Name(), "TEST_COLLECTION="+coll.Name(),
		"CLERK_API_URL="+clerk.APIURL(), "CLERK_SECRET_KEY="+clerk.SecretKey(),
		"TEST_RESUME="+token, "TEST_KILL_AT="+strconv.Itoa(killAt))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if text := lines.Text(); text != "" {
			last = text
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

// runChild is the process that reconcileInChild starts.
func runChild() error {
	ctx := context.Background()
	killAt, err := strconv.ParseInt(os.Getenv("TEST_KILL_AT"), 10, 64)
	if err != nil {
		return err
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	var armed atomic.Bool
	var commands atomic.Int64
	client, err := mongo.Connect(options.Client().ApplyURI(os.Getenv("MONGODB_URI")).SetMonitor(&event.CommandMonitor{
		Started: func(context.Context, *event.CommandStartedEvent) {
			if armed.Load() && commands.Add(1) == killAt {
				_ = self.Kill()
				select {} // the command is not sent
			}
		},
	}))
	if err != nil {
		return err
	}
	coll := client.Database(os.Getenv("TEST_DATABASE")).Collection(os.Getenv("TEST_COLLECTION"))
	store, err := mongostore.Open(ctx, coll, &mongostore.Options{BatchSize: batchSize})
	if err != nil {
		return err
	}
	s, err := clerksync.New(clerksync.Config{
		Store: store, SecretKey: os.Getenv("CLERK_SECRET_KEY"), APIURL: os.Getenv("CLERK_API_URL"),
	})
	if err != nil {
		return err
	}
	armed.Store(true)
	_, err = s.Reconcile(ctx, killedOptions(os.Getenv("TEST_RESUME"), func(p clerksync.Progress) {
		fmt.Println(p.Report.Resume)
	}))
	return errors.Join(err, s.Close())
}
