package mongostore_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/storetest"
	"github.com/clerksync/clerksync-go/mongostore"
)

var collections atomic.Int64

// newCollection returns an empty collection that only this test uses.
func newCollection(t testing.TB) *mongo.Collection {
	t.Helper()
	// The go command caches results by the variables that tests read. It does not see
	// those that were read before m.Run.
	_ = os.Getenv("MONGODB_URI")
	n := collections.Add(1)
	coll := databases[n%int64(len(databases))].Collection("users_" + strconv.FormatInt(n, 10))
	t.Cleanup(func() {
		if err := coll.Drop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return coll
}

// batchSize is the most that the embedded database takes.
const batchSize = 100

func open(t testing.TB, coll *mongo.Collection, opts *mongostore.Options) *mongostore.Store {
	t.Helper()
	if opts == nil {
		opts = &mongostore.Options{BatchSize: batchSize}
	}
	s, err := mongostore.Open(t.Context(), coll, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newStore returns a Store on an empty collection.
func newStore(t testing.TB) rawStore {
	t.Helper()
	coll := newCollection(t)
	return rawStore{open(t, coll, nil), coll}
}

// rawStore adds the app's access to the records to a Store.
type rawStore struct {
	*mongostore.Store
	coll *mongo.Collection
}

func (s rawStore) SetFields(ctx context.Context, clerkID string, fields map[string]any) error {
	return s.setFields(ctx, bson.D{{Key: "clerkId", Value: clerkID}}, fields)
}

func (s rawStore) setFields(ctx context.Context, filter bson.D, fields map[string]any) error {
	var set, unset bson.D
	for path, v := range fields {
		switch v.(type) {
		case nil:
			unset = append(unset, bson.E{Key: path, Value: ""})
		case storetest.Null:
			set = append(set, bson.E{Key: path, Value: nil})
		default:
			set = append(set, bson.E{Key: path, Value: v})
		}
	}
	update := bson.D{}
	if set != nil {
		update = append(update, bson.E{Key: "$set", Value: set})
	}
	if unset != nil {
		update = append(update, bson.E{Key: "$unset", Value: unset})
	}
	for {
		_, err := s.coll.UpdateOne(ctx, filter, update, options.UpdateOne().SetUpsert(true))
		if !isCode(err, 112) && !isCode(err, 16908292) { // a conflict with the Store's own writes
			return err
		}
	}
}

func (s rawStore) Fields(ctx context.Context, clerkID string) (map[string]any, error) {
	raw, err := s.coll.FindOne(ctx, bson.D{{Key: "clerkId", Value: clerkID}}).Raw()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, clerksync.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return plain(bson.RawValue{Type: bson.TypeEmbeddedDocument, Value: raw}).(map[string]any), nil
}

// fields returns the whole record, which must exist.
func (s rawStore) fields(t testing.TB, clerkID string) map[string]any {
	t.Helper()
	f, err := s.Fields(t.Context(), clerkID)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// plain returns a value of a document in Go's own types.
func plain(v bson.RawValue) any {
	switch v.Type {
	case bson.TypeEmbeddedDocument:
		m := make(map[string]any)
		elements, err := v.Document().Elements()
		if err != nil {
			panic(err)
		}
		for _, e := range elements {
			m[e.Key()] = plain(e.Value())
		}
		return m
	case bson.TypeArray:
		values, err := v.Array().Values()
		if err != nil {
			panic(err)
		}
		l := make([]any, len(values))
		for i := range values {
			l[i] = plain(values[i])
		}
		return l
	case bson.TypeNull:
		return nil
	case bson.TypeString:
		return v.StringValue()
	case bson.TypeBoolean:
		return v.Boolean()
	case bson.TypeInt32:
		return v.Int32()
	case bson.TypeInt64:
		return v.Int64()
	case bson.TypeDouble:
		return v.Double()
	case bson.TypeDateTime:
		return v.Time().UTC()
	case bson.TypeObjectID:
		return v.ObjectID().Hex()
	default:
		panic("a test wrote a " + v.Type.String())
	}
}

// insert writes a document as the app would.
func insert(t testing.TB, coll *mongo.Collection, docs ...bson.D) {
	t.Helper()
	if _, err := coll.InsertMany(t.Context(), docs); err != nil {
		t.Fatal(err)
	}
}

// empty removes all records. The embedded database reads each of them to find one.
func empty(t testing.TB, coll *mongo.Collection) {
	t.Helper()
	if _, err := coll.DeleteMany(t.Context(), bson.D{}); err != nil {
		t.Fatal(err)
	}
}

// commands records what one client sends.
type commands struct {
	mu   sync.Mutex
	sent []bson.Raw
}

// newMonitored returns coll on a new client whose commands are recorded.
func newMonitored(t testing.TB, coll *mongo.Collection) (*mongo.Collection, *commands) {
	t.Helper()
	c := &commands{}
	return newHooked(t, coll, func(cmd bson.Raw) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.sent = append(c.sent, cmd)
	}), c
}

// take returns the commands since the last call.
func (c *commands) take() []bson.Raw {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent := c.sent
	c.sent = nil
	return sent
}

// names returns the names of the commands since the last call.
func (c *commands) names() (names []string) {
	for _, cmd := range c.take() {
		names = append(names, commandName(cmd))
	}
	return names
}

// newHooked returns coll on a new client that calls hook before each command.
func newHooked(t testing.TB, coll *mongo.Collection, hook func(cmd bson.Raw)) *mongo.Collection {
	t.Helper()
	return newClient(t, func(o *options.ClientOptions) {
		o.SetMonitor(&event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
			hook(append(bson.Raw(nil), e.Command...))
		}})
	}).Database(coll.Database().Name()).Collection(coll.Name())
}

// commandName returns the name of a command, "find" for one.
func commandName(cmd bson.Raw) string { return cmd.Index(0).Key() }

func newClient(t testing.TB, set func(*options.ClientOptions)) *mongo.Client {
	t.Helper()
	o := options.Client().ApplyURI(uri)
	if set != nil {
		set(o)
	}
	c, err := mongo.Connect(monitor.watch(o))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Disconnect(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// createIndex makes one of the app's own indexes.
func createIndex(t testing.TB, coll *mongo.Collection, keys bson.D, o *options.IndexOptionsBuilder) {
	t.Helper()
	if _, err := coll.Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: keys, Options: o}); err != nil {
		t.Fatal(err)
	}
}

func ascending(fields ...string) (keys bson.D) {
	for _, f := range fields {
		keys = append(keys, bson.E{Key: f, Value: 1})
	}
	return keys
}

func indexSpecs(t testing.TB, coll *mongo.Collection) map[string]mongo.IndexSpecification {
	t.Helper()
	specs, err := coll.Indexes().ListSpecifications(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]mongo.IndexSpecification)
	for _, s := range specs {
		m[s.Name] = s
	}
	return m
}

// The embedded database does not have partial indexes, and does not list an index as
// sparse. These find out by trying.
var (
	partialIndexes = sync.OnceValue(func() bool {
		partial := options.Index().SetUnique(true).SetPartialFilterExpression(exists("email"))
		return tryIndex(partial).PartialFilterExpression != nil
	})
	listsSparse = sync.OnceValue(func() bool {
		sparse := tryIndex(options.Index().SetUnique(true).SetSparse(true)).Sparse
		return sparse != nil && *sparse
	})
)

type indexSpec struct {
	Name                    string
	Sparse                  *bool
	PartialFilterExpression bson.Raw `bson:"partialFilterExpression"`
}

func tryIndex(o *options.IndexOptionsBuilder) (spec indexSpec) {
	ctx := context.Background()
	coll := databases[0].Collection("try_" + bson.NewObjectID().Hex())
	name, err := coll.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: ascending("email"), Options: o})
	if err != nil {
		return spec
	}
	cursor, err := coll.Indexes().List(ctx)
	if err != nil {
		panic(err)
	}
	var specs []indexSpec
	if err := cursor.All(ctx, &specs); err != nil {
		panic(err)
	}
	return specs[slices.IndexFunc(specs, func(s indexSpec) bool { return s.Name == name })]
}

func exists(field string) bson.D {
	return bson.D{{Key: field, Value: bson.D{{Key: "$exists", Value: true}}}}
}

// wantError checks that err's text has all of these parts.
func wantError(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q:\n%v", part, err)
		}
	}
}

// newUniqueStore returns a Store whose app has a unique index on each of fields.
func newUniqueStore(t testing.TB, fields ...string) rawStore {
	t.Helper()
	coll := newCollection(t)
	opts := &mongostore.Options{BatchSize: batchSize}
	for _, f := range fields {
		createIndex(t, coll, ascending(f), options.Index().SetUnique(true).SetSparse(true).SetName(f))
		opts.AllowUnique = append(opts.AllowUnique, f) // the embedded database does not list it as sparse
	}
	return rawStore{open(t, coll, opts), coll}
}

// wantConflict checks a ConflictError, and that it does not show personal data.
func wantConflict(t testing.TB, err error, field string) {
	t.Helper()
	conflict := (*clerksync.ConflictError)(nil)
	if !errors.As(err, &conflict) || conflict.Field != field {
		t.Errorf("error %v, want a ConflictError about %q", err, field)
		return
	}
	for _, err := range []error{err, conflict.Err} {
		if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, "@") || strings.Contains(text, "+1555") {
			t.Errorf("the error gives personal data away: %s", text)
		}
	}
	if !mongo.IsDuplicateKeyError(conflict.Err) && !isCode(conflict.Err, 1) {
		t.Errorf("ConflictError.Err is %v, want the driver's error", conflict.Err)
	}
}

func isCode(err error, code int) bool {
	server := mongo.ServerError(nil)
	return errors.As(err, &server) && server.HasErrorCode(code)
}

// isRelease reports whether a command takes a value from deleted records.
func isRelease(cmd bson.Raw) bool {
	multi, _ := cmd.Lookup("updates", "0", "multi").BooleanOK()
	return multi
}

func hour(n int) time.Time {
	return time.Date(2024, time.March, 1, 12+n, 0, 0, 0, time.UTC)
}

// ada is a user at version n, with all that Clerk may know.
func ada(n int) *clerksync.User { return person("ada", n) }

func person(name string, n int) *clerksync.User {
	return &clerksync.User{
		ClerkID: "user_" + name,
		Email:   name + "@example.com",
		Name:    fmt.Sprintf("%s %d", name, n),
		Role:    clerksync.RoleTeacher,
		Profile: clerksync.Profile{
			FirstName: name, LastName: fmt.Sprint(n), FullName: fmt.Sprintf("%s %d", name, n),
			ImageURL: "https://img.example.com/" + name, PhoneNumber: "+1555" + name, Birthday: "1815-12-10", Gender: "female",
		},
		Location:       &clerksync.Location{Country: "GB", City: "London"},
		LastSignInAt:   hour(n),
		EmailVerified:  true,
		Extra:          map[string]any{"plan": fmt.Sprintf("plan %d", n), "seats": int64(n)},
		ClerkCreatedAt: hour(0),
		ClerkUpdatedAt: hour(n),
		SyncedAt:       hour(n),
	}
}

// upsert checks the outcome, and returns the record.
func upsert(t testing.TB, s clerksync.Store, u *clerksync.User, want clerksync.Outcome) *clerksync.User {
	t.Helper()
	res, err := s.Upsert(t.Context(), u)
	if err != nil || res.Outcome != want {
		t.Fatalf("Upsert: %v, %v, want %v", res.Outcome, err, want)
	}
	stored, err := s.User(t.Context(), u.ClerkID)
	if err != nil {
		t.Fatal(err)
	}
	if res.User != nil {
		if d := cmp.Diff(stored, res.User); d != "" {
			t.Errorf("Result.User is not the record (- stored, + result):\n%s", d)
		}
	}
	return stored
}

// twice is a Store whose writes the server gets twice. The Store sees only the answer to
// the second one, as if the first answer was lost and the driver sent the write again.
func twice(t *testing.T, fields mongostore.Fields) rawStore {
	t.Helper()
	base := newCollection(t)
	monitor.expect(base.Name(), fields["clerkId"])
	opts := &mongostore.Options{BatchSize: batchSize, Fields: fields}
	open(t, base, opts)
	return rawStore{open(t, twiceOn(t, base), opts), base}
}

// twiceOn returns base on a client whose writes the server gets twice.
func twiceOn(t *testing.T, base *mongo.Collection) *mongo.Collection {
	t.Helper()
	return newHooked(t, base, func(cmd bson.Raw) {
		switch commandName(cmd) {
		case "insert", "update", "findAndModify":
			var d bson.D
			if err := bson.Unmarshal(cmd, &d); err != nil {
				panic(err)
			}
			d = slices.DeleteFunc(d, func(e bson.E) bool {
				return slices.Contains([]string{"lsid", "txnNumber", "$db", "$clusterTime", "$readPreference"}, e.Key)
			})
			if err := base.Database().RunCommand(context.Background(), d).Err(); err != nil {
				t.Log(err)
			}
		}
	})
}

// interrupted is a Store that calls other just before its nth command of a kind. The test
// fails if it sends fewer.
func interrupted(t *testing.T, base rawStore, kind string, nth int64, other func()) *mongostore.Store {
	t.Helper()
	var seen atomic.Int64
	armed := false
	s := open(t, newHooked(t, base.coll, func(cmd bson.Raw) {
		if armed && commandKind(cmd) == kind && seen.Add(1) == nth {
			other()
		}
	}), nil)
	armed = true
	t.Cleanup(func() {
		if n := seen.Load(); n < nth {
			t.Errorf("the Store sent %d %ss, and is to be interrupted before number %d", n, kind, nth)
		}
	})
	return s
}

// commandKind is the command's name, "write" for an insert or an update.
func commandKind(cmd bson.Raw) string {
	switch name := commandName(cmd); name {
	case "insert", "update":
		return "write"
	default:
		return name
	}
}

// newApp returns a fake Clerk, a Syncer on it and coll, and the commands that the Syncer
// sends.
func newApp(t *testing.T, coll *mongo.Collection, opts *mongostore.Options) (*fakeclerk.Server, *clerksync.Syncer, *commands) {
	t.Helper()
	server, err := fakeclerk.Start(fakeclerk.Config{RateLimit: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	monitored, sent := newMonitored(t, coll)
	client := &http.Client{Transport: &http.Transport{}}
	syncer, err := clerksync.New(clerksync.Config{
		Store: open(t, monitored, opts), SecretKey: server.SecretKey(), APIURL: server.APIURL(), HTTPClient: client,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syncer.Close()
		client.CloseIdleConnections()
	})
	sent.take() // Open's
	return server, syncer, sent
}

func newReconciler(t testing.TB, coll *mongo.Collection, clerk *fakeclerk.Server) *clerksync.Syncer {
	t.Helper()
	s, err := clerksync.New(clerksync.Config{
		Store: open(t, coll, nil), SecretKey: clerk.SecretKey(), APIURL: clerk.APIURL(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// deactivate must succeed.
func deactivate(t testing.TB, s clerksync.Store, id string, at time.Time) {
	t.Helper()
	if res, err := s.Deactivate(t.Context(), id, at); err != nil || res.Outcome != clerksync.Deactivated {
		t.Fatalf("Deactivate of %s: %v, %v", id, res.Outcome, err)
	}
}

// The defaults are few, so that the tests are quick on the embedded database, which reads
// a whole collection to find one record. The flags raise them.
var (
	kills  = flag.Int("kills", 4, "kill `n` processes in TestReconcileKilled")
	rounds = flag.Int("rounds", 1, "repeat the tests of concurrent calls `n` times; above 1, others try all combinations too")
)

// TestMain sets these for all tests.
var (
	uri    string
	client *mongo.Client
	// The embedded database handles one message to a database at a time. With several databases the
	// tests use several processors.
	databases [4]*mongo.Database // of this run alone
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		if err := runChild(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	stop := func() error { return nil }
	if uri = os.Getenv("MONGODB_URI"); uri == "" {
		if uri, stop, err = startEmbedded(); err != nil {
			return 1, fmt.Errorf("cannot start the embedded database (set MONGODB_URI to test on your own server): %w", err)
		}
	}
	defer func() { err = errors.Join(err, stop()) }()
	flag.Parse()
	debug.SetGCPercent(400) // time matters more than memory
	// A test waits for the database most of the time.
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		if err := parallel.Value.Set(strconv.Itoa(4 * runtime.GOMAXPROCS(0))); err != nil {
			return 1, err
		}
	}
	opts := options.Client().ApplyURI(uri)
	if flag.Lookup("test.bench").Value.String() == "" { // a benchmark does not measure the monitor
		opts = monitor.watch(opts)
	}
	if client, err = mongo.Connect(opts); err != nil {
		return 1, err
	}
	for i := range databases {
		databases[i] = client.Database("clerksync_test_" + bson.NewObjectID().Hex())
	}
	code = m.Run()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, db := range databases {
		err = errors.Join(err, db.Drop(ctx))
	}
	if err = errors.Join(err, client.Disconnect(ctx)); err != nil {
		return 1, err
	}
	if code == 0 {
		err = goleak.Find()
	}
	for _, fault := range monitor.report(code == 0 && isFullRun()) {
		err = errors.Join(err, errors.New(fault))
	}
	return code, err
}

// startEmbedded runs the examples' embedded database. It is in another module, so it runs
// as a program, which ends when its standard input does.
func startEmbedded() (uri string, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "mongostore-test-")
	if err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	program := filepath.Join(dir, "serve")
	build := exec.Command("go", "build", "-tags", "ferretdb_no_postgresql", "-o", program, "./internal/embeddeddb/serve")
	build.Dir = filepath.Join("..", "examples")
	build.Env = append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("%v: %w\n%s", build, err, out)
	}
	serve := exec.Command(program)
	serve.Env = append(os.Environ(), "GOGC=800") // it allocates much and keeps little: a third less time
	serve.Stderr = os.Stderr
	stdin, err := serve.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	stdout, err := serve.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := serve.Start(); err != nil {
		return "", nil, err
	}
	stop = func() error { return errors.Join(stdin.Close(), serve.Wait(), os.RemoveAll(dir)) }
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it ended without printing a connection string")
		}
		return "", nil, errors.Join(err, stop())
	}
	return strings.TrimSpace(line), stop, nil
}

var _ storetest.RawStore = rawStore{}
