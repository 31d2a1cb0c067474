package mongostore

import (
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
)

func TestEscapeName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"plain": "plain", "with space": "with space", "é😀": "é😀", "_id": "_id", "0": "0",
		"%": "%", "100%": "100%", "50% off": "50% off", "%%": "%%", "%2": "%2", "%2e": "%2e", "%41": "%41", "%2F": "%2F",
		"empty": "empty", "%Empty": "%Empty", "a%empty": "a%empty", "%empty ": "%empty ",
		"": "%empty", "%empty": "%25empty", "%25empty": "%2525empty",
		"$": "%24", "$set": "%24set", "a$b": "a%24b", "$$": "%24%24", ".": "%2E", "a.b.c": "a%2Eb%2Ec", "\x00": "%00",
		"%24": "%2524", "%2E": "%252E", "%00": "%2500", "%25": "%2525", "%2524": "%252524", "%%24": "%%2524",
		"%$": "%%24", "%2.": "%2%2E", "%.24": "%%2E24",
	} {
		got := escapeName(name)
		if got != want {
			t.Errorf("%q is stored as %q, want %q", name, got, want)
		}
		if back := unescapeName(got); back != name {
			t.Errorf("%q is stored as %q and read as %q", name, got, back)
		}
	}
}

// FuzzEscapeName checks that no two names are confused, and that ordinary ones stay.
func FuzzEscapeName(f *testing.F) {
	for _, name := range []string{"", "%empty", "%25empty", "a.b", "$x", "%24", "%%2", "%2%2E", "100%"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		stored := escapeName(name)
		if back := unescapeName(stored); back != name {
			t.Errorf("%q is stored as %q and read as %q", name, stored, back)
		}
		if stored == "" || strings.ContainsAny(stored, "$.\x00") {
			t.Errorf("%q is stored as %q", name, stored)
		}
		if name != "" && !strings.ContainsAny(name, "%$.\x00") && stored != name {
			t.Errorf("the ordinary name %q is stored as %q", name, stored)
		}
	})
}

// Every field that Clerk owns, and all bookkeeping, has the type that clerksync writes.
func TestFieldTypes(t *testing.T) {
	t.Parallel()
	up := &upsert{u: allFields(), time: epoch}
	seen := 0
	for _, e := range up.document() {
		check := func(path string, value any) {
			typ, _, err := bson.MarshalValue(value)
			if err != nil {
				t.Fatal(err)
			}
			if seen++; typeAt(path) != typ {
				t.Errorf("%s is written as %s, and expected as %s", path, typ, typeAt(path))
			}
		}
		switch e.Key {
		case "_id", "createdAt", "location":
		case "profile":
			for _, sub := range e.Value.(bson.D) {
				check("profile."+sub.Key, sub.Value)
			}
		default:
			if _, extra := up.u.Extra[e.Key]; !extra {
				check(e.Key, e.Value)
			}
		}
	}
	if typeAt("deletedAt") != bson.TypeDateTime || seen < 20 {
		t.Errorf("deletedAt is expected as %s; %d fields", typeAt("deletedAt"), seen)
	}
}

// allFields returns a user with a value in each field.
func allFields() *clerksync.User {
	return &clerksync.User{
		ClerkID: "user_1", Email: "x", Name: "x", Role: "X", RoleFromClerk: true,
		Profile: clerksync.Profile{
			FirstName: "x", LastName: "x", FullName: "x", ImageURL: "x", PhoneNumber: "x", Birthday: "x", Gender: "x",
		},
		Extra: map[string]any{"plan": "x"}, ClerkCreatedAt: epoch, ClerkUpdatedAt: epoch, SyncedAt: epoch, LastSignInAt: epoch,
	}
}

// fuzzSeeds are documents by what is odd about them.
var fuzzSeeds = map[string]bson.D{
	"empty": {},
	"extra fields of every type": {
		{Key: "_id", Value: bson.NewObjectID()}, {Key: "clerkId", Value: "user_1"},
		{Key: "extraFields", Value: bson.A{"a", "b", 1, "role"}},
		{Key: "a", Value: bson.D{{Key: "x", Value: bson.A{1, 2.5, "s", nil, bson.D{}, true, time.Unix(0, 0)}}}},
		{Key: "b", Value: int32(1)},
	},
	"fields of a wrong type": {
		{Key: "_id", Value: bson.Binary{Subtype: 4, Data: make([]byte, 16)}},
		{Key: "profile", Value: bson.A{"x"}}, {Key: "deletedAt", Value: "x"}, {Key: "isActive", Value: 0},
	},
	"a profile with binary data": {
		{Key: "profile", Value: bson.D{{Key: "_id", Value: bson.Binary{Subtype: 0x80, Data: []byte{0}}}}},
	},
	"text that is not UTF-8": {
		{Key: "clerkId", Value: "user_\xff"}, {Key: "extraFields", Value: bson.A{"\xff"}}, {Key: "\xff", Value: "\xff"},
	},
	"a name that occurs twice": {
		{Key: "clerkId", Value: "user_1"}, {Key: "clerkId", Value: 2},
		{Key: "deletedAt", Value: nil}, {Key: "deletedAt", Value: 1},
	},
}

// FuzzDecode checks that no document, whatever it holds, makes reading it fail.
func FuzzDecode(f *testing.F) {
	for name, d := range fuzzSeeds {
		raw, err := bson.Marshal(d)
		if err != nil {
			f.Fatalf("%s: %v", name, err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if bson.Raw(raw).Validate() != nil {
			return // not a document
		}
		for _, fields := range []*fieldMap{nil, mapped(t, SnakeCase()), mapped(t, Fields{"clerkId": "_id", "deletedAt": "profile.at"})} {
			checkReadable(t, &record{raw: raw, codec: fields})
		}
	})
}

func checkReadable(t *testing.T, r *record) {
	if c, err := r.user().Canonical(); err == nil && c.ClerkID != r.clerkID() {
		t.Errorf("clerkId %q is not kept", r.clerkID())
	}
	u := &clerksync.User{ClerkID: "user_1", ClerkUpdatedAt: time.Unix(1, 0).UTC()}
	_ = r.decide(u, time.Unix(2, 0))
	_ = r.lost(u)
	_ = r.checkWritable(u)
	_ = r.asRead(r.checkedPaths(allFields()))
	_ = erasure(r)
	_, _ = r.barrier("profile.firstName")
	_ = r.stamp()
}

func writeError(code int, raw bson.D) error {
	b, err := bson.Marshal(append(bson.D{}, raw...))
	if err != nil {
		panic(err)
	}
	return mongo.WriteException{WriteErrors: mongo.WriteErrors{{Code: code, Message: "of ada@example.com", Raw: b}}}
}

func newOffline() *Store { return &Store{deadlocked: make(chan struct{}, 1)} }

// offline is a Store that never reaches a server.
func offline(t *testing.T) *Store {
	t.Helper()
	o := options.Client().SetHosts([]string{"127.0.0.1:1"}).SetServerSelectionTimeout(time.Millisecond)
	client, err := mongo.Connect(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(t.Context()) })
	return &Store{coll: collection{raw: client.Database("app").Collection("users")}, now: time.Now, batchSize: 500}
}

func mapped(t *testing.T, fields Fields) *fieldMap {
	t.Helper()
	f, err := newFieldMap(fields)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// SetBackfillSize sets how many new users make a batch part of a backfill, so that tests
// need not write a hundred.
func (s *Store) SetBackfillSize(n int) { s.backfillSize = n }

// SetGuess makes the Store expect a batch like one after new or newer users, after a
// backfill, or after users that it had to read.
func (s *Store) SetGuess(g int) { s.next.Store(int32(g)) }

// The guesses for SetGuess.
const (
	GuessWritable  = int(guessWritable)
	GuessNew       = int(guessNew)
	GuessReadFirst = int(guessReadFirst)
)
