package mongostore

import (
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
)

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
