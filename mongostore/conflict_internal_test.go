package mongostore

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
)

// TestUniqueKey checks what another record must have to conflict with one that has an
// array, a number of the app's, and no tenant.
func TestUniqueKey(t *testing.T) {
	s := offline(t)
	up, err := s.newUpsert(&clerksync.User{
		ClerkID: "user_ada", Email: "ada@example.com", Extra: map[string]any{"plan": "free"},
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := bson.Marshal(bson.D{
		{Key: "email", Value: "old@example.com"}, {Key: "tags", Value: bson.A{"a", "b"}},
		{Key: "seat", Value: bson.D{{Key: "row", Value: int32(7)}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for fields, want := range map[string]string{
		"email":         `{"email": "ada@example.com"}`,
		"tags email":    `{"tags": {"$in": ["a","b"]},"email": "ada@example.com"}`,
		"tenant email":  `{"tenant": null,"email": "ada@example.com"}`,
		"seat.row plan": `{"seat.row": {"$numberInt":"7"},"plan": "free"}`,
		"email name":    `{"email": "ada@example.com","name": null}`,
		"name":          "", // Clerk has none
		"tenant tags":   "",
		"email clerkId": "",
		"email _id":     "",
	} {
		key := up.key(&record{raw: raw}, strings.Fields(fields))
		if key == nil {
			if want != "" {
				t.Errorf("%s: no key", fields)
			}
			continue
		}
		got, err := bson.MarshalExtJSON(key.filter, true, false)
		if err != nil {
			t.Fatal(err)
		}
		var gotRaw, wantRaw bson.Raw
		err = errors.Join(bson.UnmarshalExtJSON(got, true, &gotRaw), bson.UnmarshalExtJSON([]byte(want), true, &wantRaw))
		if err != nil {
			t.Fatalf("%s: %s, %v", fields, got, err)
		}
		if !bytes.Equal(gotRaw, wantRaw) {
			t.Errorf("%s: %s, want %s", fields, got, want)
		}
	}
}

func TestDuplicateKeys(t *testing.T) {
	pattern := bson.D{{Key: "tenant", Value: 1}, {Key: "email", Value: 1}}
	err := writeError(11000, bson.D{{Key: "keyPattern", Value: pattern}})
	if got := duplicateKeys(err); len(got) != 2 || got[0] != "tenant" || got[1] != "email" {
		t.Errorf("%q", got)
	}
	odd := writeError(11000, bson.D{{Key: "keyPattern", Value: 1}})
	for _, err := range []error{nil, errLostRace, writeError(11000, nil), odd} {
		if got := duplicateKeys(err); got != nil {
			t.Errorf("%q of %v", got, err)
		}
	}
}
