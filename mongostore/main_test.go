package mongostore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/storetest"
	"github.com/clerksync/clerksync-go/mongostore"
)

// What TestMain sets up for all tests.
var (
	uri      string
	client   *mongo.Client
	database *mongo.Database // of this run alone
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
			return 1, fmt.Errorf("cannot start the embedded database (set MONGODB_URI to test on a server of your own): %w", err)
		}
	}
	defer func() { err = errors.Join(err, stop()) }()
	if client, err = mongo.Connect(options.Client().ApplyURI(uri)); err != nil {
		return 1, err
	}
	database = client.Database("clerksync_test_" + bson.NewObjectID().Hex())
	code = m.Run()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := errors.Join(database.Drop(ctx), client.Disconnect(ctx)); err != nil {
		return 1, err
	}
	if code == 0 {
		err = goleak.Find()
	}
	return code, err
}

// startEmbedded runs the examples' embedded database, which is in a module of its
// own, as a program that ends with its standard input.
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

var collections atomic.Int64

// newCollection is an empty collection of the test's own.
func newCollection(t testing.TB) *mongo.Collection {
	t.Helper()
	// The go command caches a result by the variables that were read; those
	// before m.Run it does not see.
	_ = os.Getenv("MONGODB_URI")
	coll := database.Collection("users_" + strconv.FormatInt(collections.Add(1), 10))
	t.Cleanup(func() {
		if err := coll.Drop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return coll
}

// batchSize is what the embedded server takes.
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

// newStore is a Store on an empty collection.
func newStore(t testing.TB) rawStore {
	t.Helper()
	coll := newCollection(t)
	return rawStore{open(t, coll, nil), coll}
}

// rawStore adds the app's own access to a Store.
type rawStore struct {
	*mongostore.Store
	coll *mongo.Collection
}

var _ storetest.RawStore = rawStore{}

func (s rawStore) SetFields(ctx context.Context, clerkID string, fields map[string]any) error {
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
		_, err := s.coll.UpdateOne(ctx, bson.D{{Key: "clerkId", Value: clerkID}}, update, options.UpdateOne().SetUpsert(true))
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

// plain is a value of a document in Go's own types.
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

// fields is the whole record, which must exist.
func (s rawStore) fields(t testing.TB, clerkID string) map[string]any {
	t.Helper()
	f, err := s.Fields(t.Context(), clerkID)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// insert writes a document as the app would.
func insert(t testing.TB, coll *mongo.Collection, docs ...bson.D) {
	t.Helper()
	for _, d := range docs {
		if _, err := coll.InsertOne(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
}

// commands records what a client of its own sends.
type commands struct {
	mu   sync.Mutex
	sent []bson.Raw
}

// newMonitored is coll through a client whose commands are recorded.
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

// newHooked is coll through a client that calls hook before it sends a command.
func newHooked(t testing.TB, coll *mongo.Collection, hook func(cmd bson.Raw)) *mongo.Collection {
	t.Helper()
	return newClient(t, func(o *options.ClientOptions) {
		o.SetMonitor(&event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
			hook(append(bson.Raw(nil), e.Command...))
		}})
	}).Database(coll.Database().Name()).Collection(coll.Name())
}

// commandName is what a command does.
func commandName(cmd bson.Raw) string { return cmd.Index(0).Key() }

func newClient(t testing.TB, set func(*options.ClientOptions)) *mongo.Client {
	t.Helper()
	o := options.Client().ApplyURI(uri)
	if set != nil {
		set(o)
	}
	c, err := mongo.Connect(o)
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

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) clerksync.Store { return newStore(t) })
}
