package mongostore

import (
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

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
