package mongostore_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/mongostore"
)

// legacyID is the _id of the nth legacy user.
func legacyID(n int) bson.ObjectID {
	return bson.ObjectID{0: 0x65, 1: 0xf0, 10: byte(n >> 8), 11: byte(n)}
}

// legacyUsers are n records as an app with Mongoose may have them, with a few odd ones.
func legacyUsers(n int) []bson.D {
	signedUp := time.Date(2024, 3, 1, 12, 0, 0, 0, time.UTC)
	docs := make([]bson.D, n)
	for i := range docs {
		u := bson.D{
			{Key: "_id", Value: legacyID(i)},
			{Key: "email", Value: fmt.Sprintf("user%d@example.com", i)},
			{Key: "name", Value: fmt.Sprintf("User %d", i)},
			{Key: "first_name", Value: "User"},
			{Key: "last_name", Value: fmt.Sprint(i)},
			{Key: "email_verified", Value: i%10 != 9},
			{Key: "role", Value: "STUDENT"},
			{Key: "is_active", Value: i%100 != 99},
			{Key: "plan", Value: "pro"},
			{Key: "credits", Value: i},
			{Key: "created_at", Value: signedUp.Add(time.Duration(i) * time.Hour)},
			{Key: "updated_at", Value: signedUp.Add(time.Duration(i) * time.Hour)},
			{Key: "__v", Value: 0},
		}
		switch {
		case i%250 == 17: // imported, with the address as it was typed
			u[1].Value = fmt.Sprintf("User%d@Example.com", i)
		case i%500 == 18: // the one before, once more
			u[1].Value = fmt.Sprintf("user%d@example.com", i-1)
		case i%400 == 42:
			u = append(u, bson.E{Key: "profile", Value: "https://example.com/u"})
		}
		docs[i] = u
	}
	return docs
}

func legacyCollection(t testing.TB, n int) *mongo.Collection {
	t.Helper()
	coll := newCollection(t)
	for chunk := 0; chunk < n; chunk += batchSize {
		insert(t, coll, legacyUsers(n)[chunk:min(chunk+batchSize, n)]...)
	}
	createIndex(t, coll, ascending("email"), options.Index().SetUnique(true))
	return coll
}

func TestInspectLegacy(t *testing.T) {
	t.Parallel()
	coll := legacyCollection(t, 1000)
	found, err := mongostore.Inspect(t.Context(), coll, nil, mongostore.InspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.MarshalIndent(found, "", "  ")
	t.Logf("%s", text)
}
