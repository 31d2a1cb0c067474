package mongostore_test

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// monitor checks the commands that the Store sends on any client of this process.
var monitor = newCommandMonitor()

// commandMonitor tells the Store's commands from the tests' own by the call stack: the
// driver calls a CommandMonitor on the goroutine of the call.
type commandMonitor struct {
	mu     sync.Mutex
	faults []string
	used   map[string]bool   // entries of the lists
	exempt map[string]bool   // of withoutClerkID
	paths  map[string]string // of clerkId, by the collections that have Fields
}

func newCommandMonitor() *commandMonitor {
	return &commandMonitor{used: make(map[string]bool), exempt: make(map[string]bool), paths: make(map[string]string)}
}

// expect sets the path of clerkId in a collection; empty for that name.
func (m *commandMonitor) expect(collection, path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.paths[collection] = path
}

// clerkIDPath returns the path of clerkId in the collection that a command is about.
func (m *commandMonitor) clerkIDPath(cmd bson.Raw) string {
	collection, _ := cmd.Index(0).Value().StringValueOK()
	m.mu.Lock()
	defer m.mu.Unlock()
	return cmp.Or(m.paths[collection], "clerkId")
}

// watch adds m to the monitor that o has.
func (m *commandMonitor) watch(o *options.ClientOptions) *options.ClientOptions {
	next := &event.CommandMonitor{}
	if o.Monitor != nil {
		next = o.Monitor
	}
	both := *next
	both.Started = func(ctx context.Context, e *event.CommandStartedEvent) {
		if functions := storeFunctions(); functions != nil {
			m.check(e.Command, functions)
		}
		if next.Started != nil {
			next.Started(ctx, e)
		}
	}
	return o.SetMonitor(&both)
}

// storeFunctions returns the Store's functions on the stack, the innermost first. It is nil
// if the command is a test's.
func storeFunctions() []string {
	var pcs [128]uintptr
	n := runtime.Callers(2, pcs[:])
	if known, ok := stacks.Load(pcs); ok {
		return known.([]string)
	}
	functions := storeFunctionsIn(pcs[:n])
	stacks.Store(pcs, functions)
	return functions
}

var stacks sync.Map // of the results of storeFunctionsIn: finding the names of a deep stack takes a while

func storeFunctionsIn(pcs []uintptr) (functions []string) {
	const module = "github.com/clerksync/clerksync-go/"
	frames := runtime.CallersFrames(pcs)
	for more := true; more; {
		var frame runtime.Frame
		frame, more = frames.Next()
		name, ours := strings.CutPrefix(frame.Function, module)
		file := filepath.Base(frame.File)
		switch {
		case !ours || strings.Contains(name, "commandMonitor).watch"):
		case strings.HasPrefix(name, "mongostore") && !strings.HasSuffix(file, "_test.go"):
			// A function that is inlined into a test has the test's name before its own.
			functions = append(functions, name)
		default:
			return functions
		}
	}
	return functions
}

// check checks one command of the Store.
func (m *commandMonitor) check(cmd bson.Raw, functions []string) {
	c := &commandCheck{used: make(map[string]bool)}
	c.command(cmd)
	if exception := exceptionFor(functions); exception != "" {
		c.used[exception] = true
	} else {
		c.names(cmd, m.clerkIDPath(cmd))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.Copy(m.used, c.used)
	for _, fault := range c.faults {
		if fault = fmt.Sprintf("%s by %s", fault, functions[0]); !slices.Contains(m.faults, fault) {
			m.faults = append(m.faults, fault)
		}
	}
}

// exceptionFor returns the entry of withoutClerkID that covers these functions.
func exceptionFor(functions []string) string {
	for _, function := range functions {
		for exception := range withoutClerkID {
			if strings.Contains(function, exception) {
				return exception
			}
		}
	}
	return ""
}

// commandCheck compares one command with the lists.
type commandCheck struct {
	faults []string
	used   map[string]bool
}

func (c *commandCheck) fault(format string, args ...any) {
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

// command checks the options and operators of a command.
func (c *commandCheck) command(cmd bson.Raw) {
	name := commandName(cmd)
	list, ok := commandList[name]
	if !ok {
		c.fault("the command %s", name)
		return
	}
	for key, value := range fieldsOf(cmd) {
		if _, ok := anyCommand[key]; ok {
			continue
		}
		c.option(list, name, key)
		switch key {
		case "filter", "query":
			c.operators(value)
		case "update":
			if value.Type == bson.TypeEmbeddedDocument { // of findAndModify
				c.operators(value)
			}
		case "pipeline":
			c.operators(value)
		case "updates", "indexes":
			for _, element := range fieldsOf(value.Array()) {
				c.element(list, name, key, element.Document())
			}
		}
	}
}

// element checks an element of updates or indexes.
func (c *commandCheck) element(list map[string]support, name, array string, element bson.Raw) {
	for key, value := range fieldsOf(element) {
		c.option(list, name, array+"."+key)
		if key == "q" || key == "u" {
			c.operators(value)
		}
	}
}

func (c *commandCheck) option(list map[string]support, name, key string) {
	if _, ok := list[key]; !ok {
		c.fault("the option %s of %s", key, name)
	}
	c.used[name+" "+key] = true
}

// operators checks the operators in a value. A record's values have no field that begins
// with $.
func (c *commandCheck) operators(value bson.RawValue) {
	if value.Type != bson.TypeEmbeddedDocument && value.Type != bson.TypeArray {
		return
	}
	for key, value := range fieldsOf(value.Value) {
		if strings.HasPrefix(key, "$") {
			if _, ok := operatorList[key]; !ok {
				c.fault("the operator %s", key)
			}
			c.used[key] = true
		}
		c.operators(value)
	}
}

// names checks that each filter, or new document, names the Clerk ids that it is about.
func (c *commandCheck) names(cmd bson.Raw, path string) {
	filter := func(doc bson.Raw) {
		if !namesClerkID(doc, path) {
			c.fault("a filter of %s without an equality on %s", commandName(cmd), path)
		}
	}
	each := func(list, key string) {
		for _, element := range fieldsOf(cmd.Lookup(list).Array()) {
			doc := element.Document()
			if key != "" {
				doc = doc.Lookup(key).Document()
			}
			filter(doc)
		}
	}
	switch commandName(cmd) {
	case "find":
		filter(cmd.Lookup("filter").Document())
	case "findAndModify":
		filter(cmd.Lookup("query").Document())
	case "update":
		each("updates", "q")
	case "insert":
		each("documents", "")
	case "aggregate":
		c.fault("an aggregation reads the whole collection")
	}
}

// excludes reports whether a filter has a $nor about a path or one of its parents.
func excludes(filter bson.Raw, path string) bool {
	nor, _ := filter.Lookup("$nor").ArrayOK()
	for _, element := range fieldsOf(nor) {
		condition, _ := element.DocumentOK()
		for key := range fieldsOf(condition) {
			if key == path || strings.HasPrefix(path, key+".") {
				return true
			}
		}
	}
	return false
}

// namesClerkID reports whether filter has a Clerk id at the path, a list of them, the array that a
// record of the app's has in the place of one, or the _id of a record to adopt.
func namesClerkID(filter bson.Raw, path string) bool {
	id := filter.Lookup(path)
	if id.IsZero() { // a new document
		id = filter.Lookup(strings.Split(path, ".")...)
	}
	if id.Type == bson.TypeString || path == "_id" && id.Type == bson.TypeObjectID {
		return true
	}
	condition, _ := id.DocumentOK()
	parent, _, _ := strings.Cut(path, ".")
	if condition.Lookup("$eq").Type == bson.TypeArray || filter.Lookup(parent, "$eq").Type == bson.TypeArray {
		return true
	}
	none := condition.Lookup("$eq")
	empty, _ := none.StringValueOK()
	if !filter.Lookup("_id").IsZero() && (excludes(filter, path) || !none.IsZero() && empty == "") {
		return true
	}
	ids, ok := condition.Lookup("$in").ArrayOK()
	if !ok {
		return false
	}
	for _, id := range fieldsOf(bson.Raw(ids)) {
		if id.Type != bson.TypeString {
			return false
		}
	}
	return true
}

// fieldsOf yields the fields of a document or an array, which must be well-formed.
func fieldsOf[D ~[]byte](doc D) func(yield func(string, bson.RawValue) bool) {
	return func(yield func(string, bson.RawValue) bool) {
		elements, err := bson.Raw(doc).Elements()
		if err != nil {
			panic(err)
		}
		for _, e := range elements {
			if !yield(e.Key(), e.Value()) {
				return
			}
		}
	}
}

// report returns what is wrong with the Store's commands so far. After a full run it also
// returns the unused entries of the lists.
func (m *commandMonitor) report(full bool) (faults []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, fault := range m.faults {
		faults = append(faults, "commands_test.go does not allow "+fault)
	}
	if !full {
		return faults
	}
	for _, entry := range listed() {
		if !m.used[entry] {
			faults = append(faults, "commands_test.go has an entry that no test uses: "+entry)
		}
	}
	return faults
}

// listed returns the entries of the lists that each run uses, as commandMonitor.used names
// them.
func listed() (entries []string) {
	add := func(prefix string, list map[string]support) {
		for name, s := range list {
			if s.rare == "" {
				entries = append(entries, prefix+name)
			}
		}
	}
	for name, options := range commandList {
		add(name+" ", options)
	}
	add("", operatorList)
	return slices.Sorted(slices.Values(slices.AppendSeq(entries, maps.Keys(withoutClerkID))))
}

// isFullRun reports whether no flag leaves tests out.
func isFullRun() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return false
		}
	}
	return true
}

// TestCommandLists checks the lists themselves: what mongostore's documentation promises is
// MongoDB 4.4, and clients with the Stable API V1. For the rest, the list says what happens.
func TestCommandLists(t *testing.T) {
	t.Parallel()
	lists := maps.Clone(commandList)
	lists["any command"], lists["operators"] = anyCommand, operatorList
	for name, list := range lists {
		for entry, s := range list {
			if s.since == "" || s.since > "4.4" || s.v1 != (s.strict == "") {
				t.Errorf("%s, %s: %+v", name, entry, s)
			}
		}
	}
}

// TestMonitorFindsFaults checks commands that the Store must not send.
func TestMonitorFindsFaults(t *testing.T) {
	t.Parallel()
	filter := func(condition any) bson.D {
		return bson.D{{Key: "find", Value: "users"}, {Key: "filter", Value: bson.D{{Key: "clerkId", Value: condition}}}}
	}
	update := func(e ...bson.E) bson.D {
		statement := append(bson.D{{Key: "q", Value: bson.D{{Key: "clerkId", Value: "user_ada"}}}}, e...)
		return bson.D{{Key: "update", Value: "users"}, {Key: "updates", Value: bson.A{statement}}}
	}
	set := bson.E{Key: "u", Value: bson.D{{Key: "$set", Value: bson.D{{Key: "name", Value: "x"}}}}}
	for name, tt := range map[string]struct {
		cmd       bson.D
		functions []string
		want      string // empty: no fault
	}{
		"fine":             {filter("user_ada"), nil, ""},
		"several":          {filter(bson.D{{Key: "$in", Value: bson.A{"user_ada"}}}), nil, ""},
		"an update":        {update(set), nil, ""},
		"a command":        {bson.D{{Key: "bulkWrite", Value: 1}}, nil, "the command bulkWrite"},
		"an option":        {append(filter("user_ada"), bson.E{Key: "let", Value: bson.D{}}), nil, "the option let of find"},
		"a statement's":    {update(set, bson.E{Key: "collation", Value: bson.D{}}), nil, "the option updates.collation of update"},
		"an index":         {bson.D{{Key: "createIndexes", Value: "users"}, {Key: "indexes", Value: bson.A{bson.D{{Key: "hidden", Value: true}}}}}, nil, "the option indexes.hidden of createIndexes"},
		"an operator":      {filter(bson.D{{Key: "$in", Value: bson.A{"x"}}, {Key: "$regex", Value: "x"}}), nil, "the operator $regex"},
		"an update's":      {update(bson.E{Key: "u", Value: bson.D{{Key: "$rename", Value: bson.D{}}}}), nil, "the operator $rename"},
		"a pipeline":       {update(bson.E{Key: "u", Value: bson.A{bson.D{{Key: "$replaceWith", Value: "$$ROOT"}}}}), nil, "the operator $replaceWith"},
		"no equality":      {filter(bson.D{{Key: "$gt", Value: ""}}), nil, "a filter of find without an equality on clerkId"},
		"null":             {filter(nil), nil, "a filter of find without an equality on clerkId"},
		"a list with null": {filter(bson.D{{Key: "$in", Value: bson.A{"x", nil}}}), nil, "a filter of find without an equality on clerkId"},
		"one to adopt":     {oneToAdopt(nil), nil, ""},
		"of a user":        {oneToAdopt(bson.D{{Key: "$exists", Value: true}}), nil, "a filter of find without an equality on clerkId"},
		"no filter":        {bson.D{{Key: "insert", Value: "users"}, {Key: "documents", Value: bson.A{bson.D{}}}}, nil, "a filter of insert without an equality on clerkId"},
		"an exception":     {filter(bson.D{{Key: "$gt", Value: ""}}), []string{"(*Store).find", "(*Store).scan.func1"}, ""},
		"of another":       {filter(bson.D{{Key: "$gt", Value: ""}}), []string{"(*Store).find", "(*Store).Users"}, "a filter of find without an equality on clerkId"},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := bson.Marshal(tt.cmd)
			if err != nil {
				t.Fatal(err)
			}
			m := newCommandMonitor()
			m.check(raw, append(tt.functions, "(*Store).call"))
			got := strings.Join(m.report(false), "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// oneToAdopt finds a record by its _id and by what it has as its clerkId.
func oneToAdopt(clerkID any) bson.D {
	condition, isDocument := clerkID.(bson.D)
	if !isDocument {
		condition = bson.D{{Key: "$eq", Value: clerkID}}
	}
	return bson.D{{Key: "find", Value: "users"}, {Key: "filter", Value: bson.D{{Key: "_id", Value: 1}, {Key: "clerkId", Value: condition}}}}
}

// TestMonitorTellsWhoCalls checks that the tests' own commands do not count.
func TestMonitorTellsWhoCalls(t *testing.T) {
	t.Parallel()
	base := newStore(t)
	m := newCommandMonitor()
	coll := newClient(t, func(o *options.ClientOptions) { m.watch(o) }).Database(base.coll.Database().Name()).Collection(base.coll.Name())
	if _, err := coll.CountDocuments(t.Context(), bson.D{}); err != nil { // an aggregation
		t.Fatal(err)
	}
	if len(m.used) > 0 || len(m.report(false)) > 0 {
		t.Errorf("a test's command counts: %v, %v", m.used, m.faults)
	}
	s := open(t, coll, nil)
	for _, err := range s.Undeleted(t.Context()) {
		t.Error(err)
	}
	results, err := s.UpsertBatch(t.Context(), nil)
	if err != nil || len(results) != 0 {
		t.Error(results, err)
	}
	for _, want := range []string{"listIndexes cursor", "update updates.hint", "find filter", "(*Store).scan"} {
		if !m.used[want] {
			t.Errorf("the Store's %s does not count: %v", want, slices.Sorted(maps.Keys(m.used)))
		}
	}
	if faults := m.report(false); faults != nil {
		t.Error(faults)
	}
}
