package mongostore_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
)

func TestWritesMayComeTwice(t *testing.T) {
	s := twice(t)
	created := upsert(t, s, ada(1), clerksync.Created)
	if d := cmp.Diff(created.CreatedAt, created.UpdatedAt); d != "" {
		t.Error(d)
	}
	if got := upsert(t, s, ada(1), clerksync.Unchanged); !cmp.Equal(got, created) {
		t.Errorf("unchanged: %s", cmp.Diff(created, got))
	}
	// Of an update done twice nobody but the server knows that it was one.
	res, err := s.Upsert(t.Context(), ada(2))
	if err != nil || res.Outcome != clerksync.Updated && res.Outcome != clerksync.Unchanged {
		t.Errorf("newer: %v, %v", res.Outcome, err)
	}
	if u, err := s.User(t.Context(), "user_ada"); err != nil || u.Name != "ada 2" || u.ID != created.ID {
		t.Errorf("record: %+v, %v", u, err)
	}
	u := person("nov", 1)
	u.ClerkUpdatedAt = time.Time{}
	upsert(t, s, u, clerksync.Created)
	us := []*clerksync.User{person("bob", 1), person("cid", 1), ada(3)}
	results, err := s.UpsertBatch(t.Context(), us)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []clerksync.Outcome{clerksync.Created, clerksync.Created, clerksync.Updated} {
		if got := results[i].Outcome; got != want && (want != clerksync.Updated || got != clerksync.Unchanged) {
			t.Errorf("batch, number %d: %v, want %v", i, got, want)
		}
		upsert(t, s, us[i], clerksync.Unchanged)
	}
	for _, id := range []string{"user_ada", "user_none"} {
		if res, err := s.Deactivate(t.Context(), id, hour(5)); err != nil || res.Outcome != clerksync.Deactivated {
			t.Errorf("Deactivate: %v, %v", res.Outcome, err)
		}
	}
	if n, err := s.coll.CountDocuments(t.Context(), bson.D{}); err != nil || n != 5 {
		t.Errorf("%d documents, %v", n, err)
	}
}
