package mongostore_test

import (
	"context"
	"testing"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

// TestCallsJoinNoSession calls the Store with a session in the context, which has ended and
// belongs to another client. The Store must not use it.
func TestCallsJoinNoSession(t *testing.T) {
	t.Parallel()
	session, err := newClient(t, nil).StartSession()
	if err != nil {
		t.Fatal(err)
	}
	ctx := mongo.NewSessionContext(t.Context(), session)
	session.EndSession(ctx)

	coll := newCollection(t)
	if err := coll.FindOne(ctx, map[string]any{}).Err(); err == nil || err == mongo.ErrNoDocuments {
		t.Fatalf("the driver minds no such session: %v", err)
	}
	s, err := mongostore.Open(ctx, coll, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []struct {
		name string
		run  func(ctx context.Context) error
	}{
		{"Upsert", func(ctx context.Context) error { _, err := s.Upsert(ctx, ada(1)); return err }},
		{"Upsert again", func(ctx context.Context) error { _, err := s.Upsert(ctx, ada(1)); return err }},
		{"UpsertBatch", func(ctx context.Context) error {
			_, err := s.UpsertBatch(ctx, []*clerksync.User{ada(1), person("bob", 1)})
			return err
		}},
		{"User", func(ctx context.Context) error { _, err := s.User(ctx, "user_ada"); return err }},
		{"Users", func(ctx context.Context) error { _, err := s.Users(ctx, []string{"user_ada"}); return err }},
		{"Stamps", func(ctx context.Context) error { _, err := s.Stamps(ctx, []string{"user_ada"}); return err }},
		{"Undeleted", func(ctx context.Context) (err error) {
			for _, err = range s.Undeleted(ctx) {
			}
			return err
		}},
		{"Deactivate", func(ctx context.Context) error { _, err := s.Deactivate(ctx, "user_ada", hour(1)); return err }},
		{"Restore", func(ctx context.Context) error { _, err := s.Restore(ctx, "user_ada", hour(2)); return err }},
	} {
		if err := call.run(ctx); err != nil {
			t.Errorf("%s: %v", call.name, err)
		}
	}
	if u, err := s.User(t.Context(), "user_ada"); err != nil || !u.IsActive {
		t.Errorf("record: %+v, %v", u, err)
	}
}
