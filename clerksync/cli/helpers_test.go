package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
	"github.com/clerksync/clerksync-go/mongostore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(withGoldens{m}) }

// Secrets that no output may contain.
const (
	password  = "p4ssw0rd"
	secretKey = "sk_test_s3cr3tk3y"
	mongoURI  = "mongodb://app:" + password + "@localhost:27017/school"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fixture runs the program against a fake Clerk over HTTP, records in memory and a clock that
// stands still.
type fixture struct {
	clock *fakeclerk.Clock
	clerk *fakeclerk.Server
	db    *fakeDatabase
	vars  map[string]string
	built *debug.BuildInfo // nil: the build recorded nothing
	env   environment
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{clock: fakeclerk.NewClock(epoch), db: &fakeDatabase{records: memstore.New()}}
	var err error
	f.clerk, err = fakeclerk.Start(fakeclerk.Config{Clock: f.clock, SecretKey: secretKey, Seed: 1, RateLimit: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.clerk.Close() })
	f.db.records.Now = f.clock.Now
	f.vars = map[string]string{
		secretKeyVar: secretKey,
		apiURLVar:    f.clerk.APIURL(),
		mongoURIVar:  mongoURI,
	}
	f.env = environment{
		lookup:   func(name string) (string, bool) { return lookupIn(f.vars)(name) },
		now:      f.clock.Now,
		terminal: func(io.Writer) bool { return false },
		open: func(_ context.Context, s settings, o *mongostore.Options) (database, error) {
			f.db.settings, f.db.options, f.db.closed = s, *o, false
			return f.db, f.db.openErr
		},
		reconcile: (*clerksync.Syncer).Reconcile,
		buildInfo: func() (*debug.BuildInfo, bool) { return f.built, f.built != nil },
	}
	return f
}

// onReconcile replaces Reconcile.
func (f *fixture) onReconcile(do func(context.Context, clerksync.ReconcileOptions) (clerksync.Report, error)) {
	f.env.reconcile = func(
		_ *clerksync.Syncer, ctx context.Context, o clerksync.ReconcileOptions,
	) (clerksync.Report, error) {
		return do(ctx, o)
	}
}

// reports replaces Reconcile with one that returns report and err.
func (f *fixture) reports(report clerksync.Report, err error) {
	f.onReconcile(func(context.Context, clerksync.ReconcileOptions) (clerksync.Report, error) {
		return report, err
	})
}

// run runs the program. It checks that the output contains no secret and that the database was closed.
func (f *fixture) run(t *testing.T, args ...string) output {
	t.Helper()
	return f.runIn(t.Context(), t, args...)
}

func (f *fixture) runIn(ctx context.Context, t *testing.T, args ...string) output {
	t.Helper()
	var stdout, stderr bytes.Buffer
	o := output{code: run(ctx, f.env, args, &stdout, &stderr)}
	o.stdout, o.stderr = stdout.String(), stderr.String()
	o.lacks(t, password, secretKey)
	for line := range strings.Lines(o.stdout + o.stderr) {
		if strings.Count(line, "clerksync: ") > 1 || strings.Count(line, "mongostore: ") > 1 {
			t.Errorf("the line stutters: %s", line)
		}
	}
	if f.db.settings.mongoURI != "" && f.db.openErr == nil && !f.db.closed {
		t.Error("the database was not closed")
	}
	return o
}

type output struct {
	code           int
	stdout, stderr string
}

func (o output) String() string {
	return fmt.Sprintf("exit status %d\n-- stdout --\n%s-- stderr --\n%s", o.code, o.stdout, o.stderr)
}

// lacks checks that the parts are not in the output.
func (o output) lacks(t *testing.T, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(o.stdout+o.stderr, part) {
			t.Errorf("%q is in the output:\n%s", part, o)
		}
	}
}

// want checks the exit code, and that the parts are in the output.
func (o output) want(t *testing.T, code int, parts ...string) {
	t.Helper()
	if o.code != code {
		t.Errorf("exit code %d, want %d", o.code, code)
	}
	for _, part := range parts {
		if !strings.Contains(o.stdout+o.stderr, part) {
			t.Errorf("the output does not have %q", part)
		}
	}
	if t.Failed() {
		t.Log(o)
	}
}

// adoptingStore says the same of each user without a record.
type adoptingStore struct {
	*memstore.Store
	adoption clerksync.Adoption
}

func (s adoptingStore) Adoptions(_ context.Context, us []*clerksync.User) ([]clerksync.Adoption, error) {
	if len(us) != 1 || us[0].ExternalID != "a7" || !us[0].EmailProven {
		return nil, errors.New("the user is not as Clerk has it")
	}
	return []clerksync.Adoption{s.adoption}, nil
}

func (s adoptingStore) DeactivateExternal(ctx context.Context, id, _ string, at time.Time) (clerksync.Result, error) {
	return s.Deactivate(ctx, id, at)
}

// fakeDatabase is a database in memory.
type fakeDatabase struct {
	records  *memstore.Store
	adoption *clerksync.Adoption // of each user without a record; nil if the Store adopts none
	settings settings            // what it was last opened with
	options  mongostore.Options  // likewise
	openErr  error
	mappedID string
	isEmpty  bool
	list     []index
	found    mongostore.Inspection
	look     func(context.Context, mongostore.InspectOptions) error // called by inspect; may be nil
	closed   bool
}

func (d *fakeDatabase) store() clerksync.Store {
	if d.adoption != nil {
		return adoptingStore{d.records, *d.adoption}
	}
	return d.records
}
func (d *fakeDatabase) empty(context.Context) (bool, error)      { return d.isEmpty, nil }
func (d *fakeDatabase) mapped(context.Context) (string, error)   { return d.mappedID, nil }
func (d *fakeDatabase) indexes(context.Context) ([]index, error) { return d.list, nil }
func (d *fakeDatabase) inspect(ctx context.Context, look mongostore.InspectOptions) (mongostore.Inspection, error) {
	if d.look != nil {
		if err := d.look(ctx, look); err != nil {
			return mongostore.Inspection{}, err
		}
	}
	return d.found, nil
}

func (d *fakeDatabase) close(context.Context) error { d.closed = true; return nil }

// complete is the report of a run that found no drift.
var complete = clerksync.Report{Complete: true, Seen: 2, Unchanged: 2, Duration: 1500 * time.Millisecond, ClerkCalls: 3}

// tally counts user_1 to user_n.
func tally(n int) clerksync.Tally {
	t := clerksync.Tally{Count: n}
	for i := range min(n, 100) {
		t.IDs = append(t.IDs, fmt.Sprintf("user_%d", i+1))
	}
	return t
}

// population is a fixture with n users in Clerk and in the collection. They signed up in the order
// of their ids.
func population(t *testing.T, n int) *fixture {
	t.Helper()
	f := newFixture(t)
	for i := range n {
		id := fmt.Sprintf("user_%03d", i)
		f.clerk.CreateUser(fakeclerk.NewUser{
			ID: id, FirstName: "Ada", Email: id + "@example.com", CreatedAt: f.clock.Now().Add(time.Duration(i) * time.Second),
		})
		f.clock.Advance(time.Second)
		f.sync(t, id)
	}
	f.clock.Advance(time.Hour)
	return f
}

// quick lifts the rate limit, whose timers run in real time although the test's clock stands still.
const quick = "-rate=1000000"

// trigger is a writer that calls fire if text is written.
type trigger struct {
	mu      sync.Mutex
	written strings.Builder
	text    string
	fire    func()
}

func (w *trigger) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written.Write(p)
	if strings.Contains(string(p), w.text) {
		w.fire()
	}
	return len(p), nil
}

func (w *trigger) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.written.String()
}

const ada = "user_ada"

// newAda is a fixture with the user ada in Clerk and in the collection.
func newAda(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	f.clerk.CreateUser(fakeclerk.NewUser{
		ID: ada, FirstName: "Ada", LastName: "Lovelace", Email: "ada@example.com", ImageURL: "https://img.example.com/ada",
		UnsafeMetadata: map[string]any{"birthday": "\x1b[31m1815-12-10"},
	})
	f.sync(t, ada)
	f.clock.Advance(time.Hour)
	return f
}

// sync writes a user's record, as a visit does.
func (f *fixture) sync(t *testing.T, id string) {
	t.Helper()
	s, err := clerksync.New(clerksync.Config{
		Store: f.db.records, SecretKey: secretKey, APIURL: f.clerk.APIURL(), Now: f.clock.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Sync(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// edit changes a user's record.
func (f *fixture) edit(t *testing.T, id string, change func(*clerksync.User)) {
	t.Helper()
	if err := f.db.records.Edit(id, change); err != nil {
		t.Fatal(err)
	}
}

// rename changes a user's first name in Clerk.
func (f *fixture) rename(t *testing.T, id, name string) {
	t.Helper()
	if err := f.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String(name) }); err != nil {
		t.Fatal(err)
	}
}

// deleteUser deletes a user in Clerk.
func (f *fixture) deleteUser(t *testing.T, id string) {
	t.Helper()
	if err := f.clerk.DeleteUser(id); err != nil {
		t.Fatal(err)
	}
}

// record returns a user's record.
func (f *fixture) record(t *testing.T, id string) *clerksync.User {
	t.Helper()
	u, err := f.db.records.User(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// deactivate marks ada's record deleted.
func (f *fixture) deactivate(t *testing.T) {
	t.Helper()
	if _, err := f.db.records.Deactivate(t.Context(), ada, f.clock.Now()); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// screen is a fake terminal. It keeps the text that a terminal would show.
type screen struct {
	mu    sync.Mutex
	lines []string // the last one is being written
}

func (s *screen) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lines == nil {
		s.lines = []string{""}
	}
	for rest := string(text); rest != ""; {
		if up, after, ok := strings.Cut(rest, "A\x1b[J"); ok && strings.HasPrefix(up, "\x1b[") {
			n := 0
			for _, c := range up[2:] {
				n = 10*n + int(c-'0')
			}
			s.lines = append(s.lines[:len(s.lines)-1-n], "")
			rest = after
			continue
		}
		i := strings.IndexAny(rest, "\n\x1b")
		switch {
		case i < 0:
			s.lines[len(s.lines)-1] += rest
			rest = ""
		case rest[i] == '\n':
			s.lines[len(s.lines)-1] += rest[:i]
			s.lines = append(s.lines, "")
			rest = rest[i+1:]
		case i == 0:
			s.lines[len(s.lines)-1] += "ESC"
			rest = rest[1:]
		default:
			s.lines[len(s.lines)-1] += rest[:i]
			rest = rest[i:]
		}
	}
	return len(text), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := make([]string, len(s.lines))
	for i, line := range s.lines {
		lines[i] = strings.TrimRight(line, " ")
	}
	return strings.Join(lines, "\n")
}

// listed are documents of listIndexes.
var listed = []string{
	`{"v": 2, "key": {"_id": 1}, "name": "_id_"}`,
	`{"v": 2, "key": {"clerkId": 1}, "name": "partly", "unique": true,
		"partialFilterExpression": {"clerkId": {"$exists": true}}}`,
	`{"v": 2, "key": {"clerkId": 1}, "name": "clerkId_1", "unique": true, "sparse": true}`,
	`{"v": 2, "key": {"email": 1}, "name": "email_1", "unique": 1,
		"partialFilterExpression": {"email": {"$exists": true}}, "collation": {"locale": "en"}}`,
	`{"v": 2, "key": {"school": 1, "createdAt": {"$numberDouble": "-1"}}, "name": "list", "sparse": true,
		"collation": {"locale": "simple"}}`,
	`{"v": 2, "key": {"_fts": "text", "_ftsx": 1}, "name": "search"}`,
}

func listedIndexes(t *testing.T) []index {
	t.Helper()
	indexes := make([]index, len(listed))
	for i, spec := range listed {
		indexes[i] = parseIndex(t, spec)
	}
	return indexes
}

func parseIndex(t *testing.T, spec string) index {
	t.Helper()
	var raw bson.Raw
	if err := bson.UnmarshalExtJSON([]byte(spec), false, &raw); err != nil {
		t.Fatal(err)
	}
	return indexOf(raw)
}

// lookupIn stands in for os.LookupEnv.
func lookupIn(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := vars[name]
		return value, ok
	}
}

var update = flag.Bool("update", false, "rewrite the golden files")

// goldens are the sections of the files testdata/*.golden. A section is a line "-- TestName/part --"
// and the text that this test expects. An empty line separates sections.
var goldens = goldenSections{want: make(map[section]string), got: make(map[section]string)}

type goldenSections struct {
	want map[section]string
	mu   sync.Mutex
	got  map[section]string // the texts that tests have compared so far
}

type section struct{ file, name string }

// heading begins a section. It includes the Test of the name, because the texts have lines such as
// "-- stdout --".
const heading = "-- Test"

// golden compares text with a section of testdata/FILE.golden. The section has the name of the
// test. If a test compares several texts, part tells them apart.
func golden(t *testing.T, file, part, text string) {
	t.Helper()
	s := section{file, strings.TrimSuffix(t.Name()+"/"+part, "/")}
	if strings.Contains("\n"+text, "\n"+heading) {
		t.Fatalf("a line of the text begins with %q, as a section does:\n%s", heading, text)
	}
	goldens.mu.Lock()
	goldens.got[s] = text
	goldens.mu.Unlock()
	if *update {
		return // withGoldens writes the files
	}
	want, ok := goldens.want[s]
	if !ok {
		t.Fatalf("testdata/%s.golden has no section %s; go test ./clerksync/cli -update adds it:\n%s", file, s.name, text)
	}
	if diff := cmp.Diff(want, text); diff != "" {
		t.Errorf("testdata/%s.golden, section %s (-golden +now):\n%s", file, s.name, diff)
	}
}

// withGoldens reads the golden files and runs the tests. If all tests ran and passed, it then fails
// for each section that no test used. With -update it writes the files instead.
type withGoldens struct{ tests *testing.M }

func (w withGoldens) Run() int {
	flag.Parse()
	err := goldens.read()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := w.tests.Run()
	allRan := code == 0
	for _, name := range []string{"run", "skip", "list", "fuzz"} {
		allRan = allRan && flag.Lookup("test."+name).Value.String() == ""
	}
	if *update {
		err = goldens.write(allRan)
	} else if allRan {
		err = goldens.used()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func (g *goldenSections) read() error {
	paths, err := filepath.Glob("testdata/*.golden")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := g.parse(strings.TrimSuffix(filepath.Base(path), ".golden"), string(text)); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return err
}

// parse adds the sections of a file to want.
func (g *goldenSections) parse(file, text string) error {
	parts := strings.Split("\n"+text, "\n"+heading)
	if parts[0] != "" || len(parts) == 1 {
		return fmt.Errorf("the file does not begin with %q", heading)
	}
	for _, part := range parts[1:] {
		name, text, _ := strings.Cut(part, " --\n")
		s := section{file, "Test" + name}
		if _, ok := g.want[s]; ok {
			return fmt.Errorf("section %s is there twice", s.name)
		}
		g.want[s] = text
	}
	return nil
}

// used returns an error for each section that no test has compared.
func (g *goldenSections) used() error {
	var err error
	for s := range g.want {
		if _, ok := g.got[s]; !ok {
			err = errors.Join(err, fmt.Errorf("testdata/%s.golden: no test uses section %s; "+
				"go test ./clerksync/cli -update removes it", s.file, s.name))
		}
	}
	return err
}

// format returns the files' texts with what the tests have compared. Unless all tests ran, it keeps
// the sections that no test has compared. The text of a file without sections is empty.
func (g *goldenSections) format(allRan bool) map[string]string {
	sections := maps.Clone(g.want)
	if allRan {
		clear(sections)
	}
	maps.Copy(sections, g.got)
	texts := make(map[string]string)
	for s := range g.want {
		texts[s.file] = ""
	}
	byName := func(a, b section) int { return strings.Compare(a.name, b.name) }
	for _, s := range slices.SortedFunc(maps.Keys(sections), byName) {
		if texts[s.file] != "" {
			texts[s.file] += "\n"
		}
		texts[s.file] += "-- " + s.name + " --\n" + sections[s]
	}
	return texts
}

func (g *goldenSections) write(allRan bool) error {
	var err error
	for file, text := range g.format(allRan) {
		path := filepath.Join("testdata", file+".golden")
		if text == "" {
			err = errors.Join(err, os.Remove(path))
		} else {
			err = errors.Join(err, os.WriteFile(path, []byte(text), 0o644))
		}
	}
	return err
}

func TestGoldenSections(t *testing.T) {
	t.Parallel()
	const a, b = "-- TestA --\n-- stdout --\n\n", "-- TestB/part --\nno newline at the end"
	g := goldenSections{want: make(map[section]string), got: make(map[section]string)}
	if err := g.parse("file", a+"\n"+b); err != nil {
		t.Fatal(err)
	}
	want := map[section]string{{"file", "TestA"}: "-- stdout --\n\n", {"file", "TestB/part"}: "no newline at the end"}
	if diff := cmp.Diff(want, g.want, cmp.AllowUnexported(section{})); diff != "" {
		t.Errorf("sections (-want +got):\n%s", diff)
	}
	g.got[section{"file", "TestA"}] = "-- stdout --\n\n"
	if err := g.used(); err == nil || !strings.Contains(err.Error(), "no test uses section TestB/part") {
		t.Errorf("used() = %v, want an error about TestB/part only", err)
	}
	if text := g.format(false)["file"]; text != a+"\n"+b {
		t.Errorf("after some tests the file is\n%s", text)
	}
	if text := g.format(true)["file"]; text != a {
		t.Errorf("after all tests the file is\n%s", text)
	}
	for _, text := range []string{"", "text\n" + a, a + "\n" + a} {
		if err := g.parse("wrong", text); err == nil {
			t.Errorf("parse accepts\n%s", text)
		}
		clear(g.want)
	}
}
