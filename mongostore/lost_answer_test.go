package mongostore_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
)

// TestWritesMayComeTwice loses the answer to every write, so that the driver sends it again.
func TestWritesMayComeTwice(t *testing.T) {
	t.Parallel()
	s := twice(t)
	created := upsert(t, s, ada(1), clerksync.Created)
	if d := cmp.Diff(created.CreatedAt, created.UpdatedAt); d != "" {
		t.Error(d)
	}
	if got := upsert(t, s, ada(1), clerksync.Unchanged); !cmp.Equal(got, created) {
		t.Errorf("unchanged: %s", cmp.Diff(created, got))
	}
	res, err := s.Upsert(t.Context(), ada(2))
	if err != nil {
		t.Fatal(err)
	}
	wantUpdatedTwice(t, "newer", res.Outcome)
	if u, err := s.User(t.Context(), "user_ada"); err != nil || u.Name != "ada 2" || u.ID != created.ID {
		t.Errorf("record: %+v, %v", u, err)
	}
	upsert(t, s, change(person("nov", 1), func(u *clerksync.User) { u.ClerkUpdatedAt = time.Time{} }), clerksync.Created)

	us := []*clerksync.User{person("bob", 1), person("cid", 1), ada(3)}
	results, err := s.UpsertBatch(t.Context(), us)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if got := results[i].Outcome; got != clerksync.Created {
			t.Errorf("batch, number %d: %v, want created", i, got)
		}
	}
	wantUpdatedTwice(t, "batch, number 2", results[2].Outcome)
	for _, u := range us {
		upsert(t, s, u, clerksync.Unchanged)
	}

	deactivate(t, s.Store, "user_ada", hour(5))
	deactivate(t, s.Store, "user_none", hour(5))
	if n, err := s.coll.CountDocuments(t.Context(), bson.D{}); err != nil || n != 5 {
		t.Errorf("%d documents, %v", n, err)
	}
}

// wantUpdatedTwice checks the outcome of an update that was done twice. Only the server
// knows that the first one was an update.
func wantUpdatedTwice(t *testing.T, name string, got clerksync.Outcome) {
	t.Helper()
	if !slices.Contains([]clerksync.Outcome{clerksync.Updated, clerksync.Unchanged}, got) {
		t.Errorf("%s: %v, want updated or unchanged", name, got)
	}
}
