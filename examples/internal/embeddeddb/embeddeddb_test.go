package embeddeddb_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"
	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/examples/internal/embeddeddb"
)

// TestMain finds goroutines that Close leaves behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) *embeddeddb.Server {
	t.Helper()
	return startIn(t, t.TempDir())
}

func startIn(t *testing.T, dir string) *embeddeddb.Server {
	t.Helper()
	s, err := embeddeddb.Start(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// connect returns a collection on s, through a new client.
func connect(t *testing.T, s *embeddeddb.Server, opts ...*options.ClientOptions) *mongo.Collection {
	t.Helper()
	opts = append([]*options.ClientOptions{options.Client().ApplyURI(s.URI()).SetTimeout(5 * time.Minute)}, opts...)
	client, err := mongo.Connect(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// If the server is closed, Disconnect looks for another one until its context ends.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Second)
		defer cancel()
		if err := client.Disconnect(ctx); err != nil {
			t.Errorf("Disconnect: %v", err)
		}
	})
	return client.Database("test").Collection("c")
}

func insert(t *testing.T, c *mongo.Collection, docs ...any) {
	t.Helper()
	if _, err := c.InsertMany(t.Context(), docs); err != nil {
		t.Fatal(err)
	}
}

func createUnique(t *testing.T, c *mongo.Collection, field string) {
	t.Helper()
	unique := options.Index().SetUnique(true).SetSparse(true)
	index := mongo.IndexModel{Keys: bson.D{{Key: field, Value: 1}}, Options: unique}
	if _, err := c.Indexes().CreateOne(t.Context(), index); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, c *mongo.Collection, filter any) int64 {
	t.Helper()
	n, err := c.CountDocuments(t.Context(), filter)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// together runs f in n goroutines that start at the same time.
func together(n int, f func(g int)) {
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for g := range n {
		wg.Go(func() {
			<-begin
			f(g)
		})
	}
	close(begin)
	wg.Wait()
}

const goroutines = 64

type counter struct{ N, M int }

// increment lets all goroutines increment one document, and returns its final state and the errors.
func increment(t *testing.T, c *mongo.Collection, id, each int) (got counter, failures []error) {
	t.Helper()
	insert(t, c, bson.M{"_id": id, "n": 0, "m": 0})
	var mu sync.Mutex
	together(goroutines, func(g int) {
		for i := range each {
			update := bson.M{"$inc": bson.M{"n": 1}, "$max": bson.M{"m": g*each + i}}
			if _, err := c.UpdateOne(t.Context(), bson.M{"_id": id}, update); err != nil {
				mu.Lock()
				failures = append(failures, err)
				mu.Unlock()
			}
		}
	})
	if err := c.FindOne(t.Context(), bson.M{"_id": id}).Decode(&got); err != nil {
		t.Fatal(err)
	}
	return got, failures
}

func TestConcurrentIncrementsAreKept(t *testing.T) {
	t.Parallel()
	const each = 20
	got, failures := increment(t, connect(t, start(t)), 1, each)
	if want := (counter{goroutines * each, goroutines*each - 1}); got != want || failures != nil {
		t.Errorf("got %+v, want %+v; %v", got, want, failures)
	}
}

// Without the front, the engine loses increments. If this test fails, the engine has become atomic
// and the front may go.
func TestEngineAloneLosesIncrements(t *testing.T) {
	t.Parallel()
	const each, rounds = 20, 20 // the first round is enough, unless the goroutines happen to take turns
	s := start(t)
	c := connect(t, s, directly(s))
	for round := range rounds {
		got, failures := increment(t, c, round, each)
		acknowledged := goroutines*each - len(failures) // on a busy machine the engine refuses some
		if got.N < acknowledged {
			t.Logf("round %d: %d of %d increments kept", round, got.N, acknowledged)
			return
		}
	}
	t.Error("no increment was lost")
}

// directly connects to the engine, past the front.
func directly(s *embeddeddb.Server) *options.ClientOptions {
	return options.Client().SetDialer(dialer(func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.EngineSocket())
	}))
}

type dialer func(context.Context) (net.Conn, error)

func (d dialer) DialContext(ctx context.Context, _, _ string) (net.Conn, error) { return d(ctx) }

func TestFindOneAndUpdateReturnsEachStateOnce(t *testing.T) {
	t.Parallel()
	const each = 10
	c := connect(t, start(t))
	insert(t, c, bson.M{"_id": 1, "n": 0})
	var mu sync.Mutex
	seen := map[int]bool{}
	together(goroutines, func(int) {
		for range each {
			var before counter
			err := c.FindOneAndUpdate(t.Context(), bson.M{"_id": 1}, bson.M{"$inc": bson.M{"n": 1}}).Decode(&before)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			seen[before.N] = true
			mu.Unlock()
		}
	})
	if len(seen) != goroutines*each {
		t.Errorf("%d different documents returned, want %d", len(seen), goroutines*each)
	}
}

func TestCompareAndSetHasOneWinner(t *testing.T) {
	t.Parallel()
	c := connect(t, start(t))
	for round := range 10 {
		insert(t, c, bson.M{"_id": round, "owner": nil})
		var winners atomic.Int64
		together(goroutines, func(g int) {
			r, err := c.UpdateOne(t.Context(), bson.M{"_id": round, "owner": nil}, bson.M{"$set": bson.M{"owner": g}})
			if err != nil {
				t.Error(err)
				return
			}
			winners.Add(r.ModifiedCount)
		})
		if got := winners.Load(); got != 1 {
			t.Errorf("round %d: %d winners", round, got)
		}
	}
}

func TestConcurrentUpsertsMakeOneDocument(t *testing.T) {
	t.Parallel()
	c := connect(t, start(t))
	createUnique(t, c, "key")
	for round := range 10 {
		var inserted, refused atomic.Int64
		together(goroutines, func(g int) {
			// The guard does not match once the document exists, so all but the first violate the
			// index.
			filter := bson.D{{Key: "key", Value: round}, {Key: "version", Value: bson.M{"$not": bson.M{"$gte": 1}}}}
			r, err := c.UpdateOne(t.Context(), filter, bson.M{"$set": bson.M{"version": 1, "by": g}},
				options.UpdateOne().SetUpsert(true))
			switch {
			case err == nil:
				inserted.Add(r.UpsertedCount)
			case mongo.IsDuplicateKeyError(err):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
		n, i, r := count(t, c, bson.M{"key": round}), inserted.Load(), refused.Load()
		if n != 1 || i != 1 || r != goroutines-1 {
			t.Errorf("round %d: %d documents, %d inserted, %d refused", round, n, i, r)
		}
	}
}

func TestUnacknowledgedWrites(t *testing.T) {
	t.Parallel()
	s := start(t)
	// With one connection, an unwanted reply would be read as the reply to the next message.
	acknowledged := connect(t, s, options.Client().SetMaxPoolSize(1))
	c := acknowledged.Database().Collection(acknowledged.Name(),
		options.Collection().SetWriteConcern(writeconcern.Unacknowledged()))

	const n = 50
	for i := range n {
		if r, err := c.InsertOne(t.Context(), bson.M{"_id": i}); err != nil || r.Acknowledged {
			t.Fatal(r, err)
		}
		r, err := c.UpdateOne(t.Context(), bson.M{"_id": i}, bson.M{"$set": bson.M{"x": 1}})
		if err != nil || r.Acknowledged {
			t.Fatal(r, err)
		}
	}
	if got := count(t, acknowledged, bson.M{"x": 1}); got != n {
		t.Errorf("%d documents, want %d", got, n)
	}
}

// A reader waits for documents. If it kept the engine to itself meanwhile, nobody could insert them.
func TestTailableCursorLetsOthersWork(t *testing.T) {
	t.Parallel()
	waits := make(chan struct{}, 100)
	c := connect(t, start(t), options.Client().SetMonitor(&event.CommandMonitor{
		Started: func(_ context.Context, e *event.CommandStartedEvent) {
			if e.CommandName == "getMore" {
				waits <- struct{}{}
			}
		},
	}))
	capped := options.CreateCollection().SetCapped(true).SetSizeInBytes(1 << 20)
	if err := c.Database().CreateCollection(t.Context(), c.Name(), capped); err != nil {
		t.Fatal(err)
	}
	insert(t, c, bson.M{"_id": 0})
	cursor, err := c.Find(t.Context(), bson.M{},
		options.Find().SetCursorType(options.TailableAwait).SetMaxAwaitTime(2*time.Minute).SetBatchSize(1))
	if err != nil {
		t.Fatal(err)
	}
	if !cursor.Next(t.Context()) {
		t.Fatal(cursor.Err())
	}
	waiting := make(chan bool, 1)
	go func() { waiting <- cursor.Next(t.Context()) }()
	<-waits

	begin := time.Now()
	for i := range 20 {
		insert(t, c, bson.M{"_id": i + 1})
	}
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("20 inserts took %v", took)
	}
	if !<-waiting {
		t.Error(cursor.Err())
	}
	if err := cursor.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestRestartKeepsData(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a new", "däta") // made by Start
	for run := range 3 {
		s := startIn(t, dir)
		c := connect(t, s)
		if run == 0 {
			createUnique(t, c, "key")
		}
		if got := count(t, c, bson.M{}); got != int64(run) {
			t.Errorf("run %d: %d documents", run, got)
		}
		insert(t, c, bson.M{"key": run})
		if _, err := c.InsertOne(t.Context(), bson.M{"key": run}); !mongo.IsDuplicateKeyError(err) {
			t.Errorf("run %d: second document with one key: %v", run, err)
		}
		if err := s.Close(); err != nil {
			t.Fatalf("run %d: Close: %v", run, err)
		}
	}
}

func TestDirectoryHasOneServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := startIn(t, dir)
	if s, err := embeddeddb.Start(t.Context(), dir); err == nil {
		t.Error("second server on one directory", s.Close())
	} else if !strings.Contains(err.Error(), "in use") {
		t.Errorf("error %q does not say that the directory is in use", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	startIn(t, dir)
}

func TestCloseEndsConnections(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := startIn(t, dir)
	c := connect(t, s, options.Client().SetRetryWrites(false))
	insert(t, c, bson.M{"_id": 1, "n": 0})
	address := strings.Trim(strings.TrimPrefix(s.URI(), "mongodb:"), "/")
	idle, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()

	// Updates are under way during Close. An update that begins after Close waits for a server. stop
	// ends it.
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var acknowledged, attempted atomic.Int64
	busy := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		together(8, func(int) {
			for {
				attempted.Add(1)
				if _, err := c.UpdateOne(ctx, bson.M{"_id": 1}, bson.M{"$inc": bson.M{"n": 1}}); err != nil {
					return
				}
				if acknowledged.Add(1) == 100 {
					close(busy)
				}
			}
		})
	}()
	select {
	case <-busy:
	case <-done:
		t.Fatal("the updates failed before Close")
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	stop()
	<-done
	if _, err := idle.Read(make([]byte, 1)); err == nil {
		t.Error("idle connection still open")
	}
	if conn, err := net.Dial("tcp", address); err == nil {
		t.Error("the server still accepts connections", conn.Close())
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}

	var kept counter
	if err := connect(t, startIn(t, dir)).FindOne(t.Context(), bson.M{"_id": 1}).Decode(&kept); err != nil {
		t.Fatal(err)
	}
	if n := int64(kept.N); n < acknowledged.Load() || n > attempted.Load() {
		t.Errorf("%d increments kept; %d acknowledged, %d attempted", n, acknowledged.Load(), attempted.Load())
	}
}

// The engine reads the schema on one connection to SQLite, which the cursor holds, and drops the index
// on another one.
func TestDroppedIndexIsCreatedAgain(t *testing.T) {
	t.Parallel()
	s := start(t)
	for name, c := range map[string]*mongo.Collection{"front": connect(t, s), "engine": connect(t, s, directly(s))} {
		insert(t, c, bson.M{"key": 1}, bson.M{"key": 2})
		createUnique(t, c, "key")
		cursor, err := c.Find(t.Context(), bson.M{}, options.Find().SetBatchSize(1))
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(c.Indexes().DropOne(t.Context(), "key_1"), cursor.Close(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: bson.D{{Key: "key", Value: 1}}})
		if (err != nil) != (name == "engine") {
			t.Errorf("through the %s: %v; the engine alone is to refuse it", name, err)
		}
		if err := c.Drop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A bulk of updates that bypasses the front hangs the engine. Close still ends it.
func TestCloseWithStuckEngine(t *testing.T) {
	t.Parallel()
	s := start(t)
	updates := matchingUpdates(t, connect(t, s), 100)
	direct := connect(t, s, directly(s))
	if err := direct.Database().Client().Ping(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // the ping has already connected
	defer cancel()
	if _, err := direct.BulkWrite(ctx, updates); !mongo.IsTimeout(err) {
		t.Errorf("the engine no longer hangs, so the front need not split updates: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// matchingUpdates inserts n documents, and returns as many updates of them.
func matchingUpdates(t *testing.T, c *mongo.Collection, n int) []mongo.WriteModel {
	t.Helper()
	var docs []any
	var models []mongo.WriteModel
	for i := range n {
		docs = append(docs, bson.M{"_id": i})
		models = append(models, mongo.NewUpdateOneModel().
			SetFilter(bson.M{"_id": i}).SetUpdate(bson.M{"$set": bson.M{"x": 1}}))
	}
	insert(t, c, docs...)
	return models
}

func TestLargeBulkOfMatchingUpdates(t *testing.T) {
	t.Parallel()
	const n = 150
	c := connect(t, start(t))
	r, err := c.BulkWrite(t.Context(), matchingUpdates(t, c, n))
	if err != nil {
		t.Fatal(err)
	}
	if r.MatchedCount != n || r.ModifiedCount != n {
		t.Errorf("matched %d, modified %d, want %d", r.MatchedCount, r.ModifiedCount, n)
	}
}

func TestBulkReportsTheRightStatements(t *testing.T) {
	t.Parallel()
	upsert := func(key string, set bson.M) mongo.WriteModel {
		return mongo.NewUpdateOneModel().SetFilter(bson.M{"key": key}).SetUpdate(bson.M{"$set": set}).SetUpsert(true)
	}
	models := []mongo.WriteModel{
		upsert("old", bson.M{"x": 1}),            // matches
		upsert("new1", bson.M{"x": 1}),           // inserts
		upsert("new2", bson.M{"email": "taken"}), // refused: an insert
		upsert("old", bson.M{"email": "taken"}),  // refused: an update
		upsert("old", bson.M{"name.first": "x"}), // refused: name is a string
		upsert("new3", bson.M{"x": 1}),           // inserts
	}
	for _, test := range []struct {
		ordered           bool
		matched, modified int64
		upserted          []int64
		failed            map[int]int // code by statement
	}{
		{ordered: true, matched: 1, modified: 1, upserted: []int64{1}, failed: map[int]int{2: 11000}},
		{ordered: false, matched: 1, modified: 1, upserted: []int64{1, 5}, failed: map[int]int{2: 11000, 3: 11000, 4: 28}},
	} {
		t.Run(fmt.Sprintf("ordered=%v", test.ordered), func(t *testing.T) {
			t.Parallel()
			c := connect(t, start(t))
			createUnique(t, c, "email")
			insert(t, c, bson.M{"key": "old", "name": "x"}, bson.M{"key": "other", "email": "taken"})
			r, err := c.BulkWrite(t.Context(), models, options.BulkWrite().SetOrdered(test.ordered))
			var bulk mongo.BulkWriteException
			if !errors.As(err, &bulk) {
				t.Fatalf("got %v", err)
			}
			failed := map[int]int{}
			for _, e := range bulk.WriteErrors {
				failed[e.Index] = e.Code
			}
			if !maps.Equal(failed, test.failed) {
				t.Errorf("failed statements and codes %v, want %v", failed, test.failed)
			}
			// The driver counts the upserted documents as matched when an ordered bulk fails.
			matched := r.MatchedCount
			if test.ordered {
				matched -= r.UpsertedCount
			}
			if matched != test.matched || r.ModifiedCount != test.modified {
				t.Errorf("matched %d, modified %d; want %d, %d", matched, r.ModifiedCount, test.matched, test.modified)
			}
			if got := slices.Sorted(maps.Keys(r.UpsertedIDs)); !slices.Equal(got, test.upserted) {
				t.Errorf("upserted by statements %v, want %v", got, test.upserted)
			}
			for i, id := range r.UpsertedIDs {
				if count(t, c, bson.M{"_id": id, "key": fmt.Sprintf("new%d", i/2+1)}) != 1 {
					t.Errorf("statement %d: the upserted id is not its document's", i)
				}
			}
		})
	}
}

func TestDuplicateKeyCode(t *testing.T) {
	t.Parallel()
	c := connect(t, start(t))
	createUnique(t, c, "email")
	insert(t, c,
		bson.M{"_id": 1, "email": "a", "twice": 1},
		bson.M{"_id": 2, "email": "b", "twice": 1, "note": "UNIQUE constraint failed"})
	taken := bson.M{"$set": bson.M{"email": "b"}}
	for name, do := range map[string]func(context.Context) error{
		"insert":     func(ctx context.Context) error { _, err := c.InsertOne(ctx, bson.M{"email": "b"}); return err },
		"update one": func(ctx context.Context) error { _, err := c.UpdateOne(ctx, bson.M{"_id": 1}, taken); return err },
		"update many": func(ctx context.Context) error {
			_, err := c.UpdateMany(ctx, bson.M{}, bson.M{"$set": bson.M{"email": "c"}})
			return err
		},
		"upsert": func(ctx context.Context) error {
			_, err := c.UpdateOne(ctx, bson.M{"_id": 3}, taken, options.UpdateOne().SetUpsert(true))
			return err
		},
		"findAndModify": func(ctx context.Context) error { return c.FindOneAndUpdate(ctx, bson.M{"_id": 1}, taken).Err() },
		"index over duplicates": func(ctx context.Context) error {
			_, err := c.Indexes().CreateOne(ctx, mongo.IndexModel{
				Keys: bson.D{{Key: "twice", Value: 1}}, Options: options.Index().SetUnique(true),
			})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := do(t.Context()); !mongo.IsDuplicateKeyError(err) {
				t.Errorf("got %v, want code 11000", err)
			}
		})
	}
	if got := count(t, c, bson.M{"note": "UNIQUE constraint failed"}); got != 1 {
		t.Errorf("a document with SQLite's message: found %d, want 1", got)
	}
}

// Errors that the front does not correct arrive as the engine sent them.
func TestErrorsOfOneUpdate(t *testing.T) {
	t.Parallel()
	c := connect(t, start(t))
	insert(t, c, bson.M{"_id": 1, "profile": nil})
	_, err := c.UpdateOne(t.Context(), bson.M{"_id": 1}, bson.M{"$set": bson.M{"profile.name": "x"}})
	var write mongo.WriteException
	if !errors.As(err, &write) || len(write.WriteErrors) != 1 || write.WriteErrors[0].Code != 28 {
		t.Errorf("path through null: got %v, want one write error with code 28", err)
	}
	_, err = c.UpdateOne(t.Context(), bson.M{"_id": 1}, bson.A{bson.M{"$set": bson.M{"x": 1}}})
	var command mongo.CommandError
	if !errors.As(err, &command) || command.Code != 14 {
		t.Errorf("pipeline update: got %v, want a command error with code 14", err)
	}
}

func TestStartErrors(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := t.TempDir()
	noDatabase := []byte(strings.Repeat("no database", 1000))
	if err := os.WriteFile(filepath.Join(damaged, "test.sqlite"), noDatabase, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ dir, addr, want string }{
		"damaged data":      {damaged, "127.0.0.1:0", "not a database"},
		"all interfaces":    {t.TempDir(), ":0", "loopback"},
		"no port":           {t.TempDir(), "127.0.0.1", "missing port"},
		"a file":            {file, "127.0.0.1:0", "not a directory"},
		"below a file":      {filepath.Join(file, "x"), "127.0.0.1:0", "not a directory"},
		"a name for a URI":  {filepath.Join(t.TempDir(), "a%20b"), "127.0.0.1:0", "name"},
		"a name for a glob": {filepath.Join(t.TempDir(), "a[b"), "127.0.0.1:0", "name"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := embeddeddb.StartAt(t.Context(), test.dir, test.addr)
			if err == nil {
				t.Fatal("started", s.Close())
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q, want %q in it", err, test.want)
			}
			runtime.GC() // the engine panics if it has not closed something that is collected
		})
	}
}

func TestStartWithCancelledContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := embeddeddb.Start(ctx, t.TempDir())
	if err == nil {
		t.Fatal("started", s.Close())
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestServerOutlivesStartContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := embeddeddb.StartAt(ctx, t.TempDir(), "localhost:0")
	cancel()
	if err != nil {
		t.Fatal(err)
	}
	insert(t, connect(t, s), bson.M{"_id": 1})
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	server, err := embeddeddb.Start(ctx, dir)
	if err != nil {
		panic(err)
	}
	defer server.Close()

	client, err := mongo.Connect(options.Client().ApplyURI(server.URI()))
	if err != nil {
		panic(err)
	}
	defer client.Disconnect(ctx)

	users := client.Database("app").Collection("users")
	if _, err := users.InsertOne(ctx, bson.M{"clerkId": "user_2abc"}); err != nil {
		panic(err)
	}
	fmt.Println(users.CountDocuments(ctx, bson.M{"clerkId": "user_2abc"}))
	// Output: 1 <nil>
}
