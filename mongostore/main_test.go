package mongostore_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/clerksync/storetest"
)

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
	// The embedded database handles one message to a database at a time. With two databases the
	// tests use two processors.
	databases [2]*mongo.Database // of this run alone
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
