package mongostore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

func TestErrorsGiveNothingAway(t *testing.T) {
	t.Parallel()
	s := newUniqueStore(t, "email")
	upsert(t, s, ada(1), clerksync.Created)
	u := person("bob", 1)
	u.Email = "ada@example.com"
	large := ada(2)
	large.Extra = map[string]any{"email2": strings.Repeat("secret@example.com ", 1<<20)}
	bad := ada(2)
	bad.Extra = map[string]any{"a.b": "secret@example.com"}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	gone := newClient(t, func(o *options.ClientOptions) {
		o.SetHosts([]string{"127.0.0.1:1"}).SetServerSelectionTimeout(1)
	}).Database("x").Collection("users")

	errs := make(map[string]error)
	_, errs["conflict"] = s.Upsert(t.Context(), u)
	_, errs["conflict in a batch"] = s.UpsertBatch(t.Context(), []*clerksync.User{u})
	_, errs["invalid"] = s.Upsert(t.Context(), bad)
	_, errs["cancelled"] = s.Upsert(cancelled, u)
	_, errs["unreachable"] = mongostore.Open(t.Context(), gone, nil)
	_, errs["not found"] = s.User(t.Context(), "user_nobody")
	if os.Getenv("MONGODB_URI") != "" { // the embedded database takes it, in ten seconds
		_, errs["too large"] = s.Upsert(t.Context(), large)
		if err := errs["too large"]; !errors.Is(err, clerksync.ErrRejected) {
			t.Errorf("a record of 19 MB: %v, want ErrRejected", err)
		}
	}
	for name, err := range errs {
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		t.Logf("%s: %v", name, err)
		if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, "@") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func TestErrorsOfContext(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	cause := errors.New("the app shuts down")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	calls := map[string]func() error{
		"User":        func() error { _, err := s.User(ctx, "user_ada"); return err },
		"Upsert":      func() error { _, err := s.Upsert(ctx, ada(1)); return err },
		"Deactivate":  func() error { _, err := s.Deactivate(ctx, "user_ada", hour(1)); return err },
		"Restore":     func() error { _, err := s.Restore(ctx, "user_ada", hour(1)); return err },
		"UpsertBatch": func() error { _, err := s.UpsertBatch(ctx, []*clerksync.User{ada(1)}); return err },
		"Users":       func() error { _, err := s.Users(ctx, []string{"user_ada"}); return err },
		"Stamps":      func() error { _, err := s.Stamps(ctx, nil); return err },
		"Undeleted": func() (err error) {
			for _, err = range s.Undeleted(ctx) {
			}
			return err
		},
		"UnlinkedEmails": func() (err error) {
			for _, err = range s.UnlinkedEmails(ctx) {
			}
			return err
		},
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, context.Canceled) || !errors.Is(err, cause) {
			t.Errorf("%s: %v, want both context.Canceled and its cause", name, err)
		}
	}
	if n, err := s.coll.CountDocuments(t.Context(), bson.D{}); err != nil || n != 0 {
		t.Errorf("%d documents, %v", n, err)
	}
}

// TestErrorsOfContextUnderWay ends the context just before a command is sent.
func TestErrorsOfContextUnderWay(t *testing.T) {
	t.Parallel()
	base := newCollection(t)
	open(t, base, nil)
	for name, call := range map[string]func(ctx context.Context, s *mongostore.Store) error{
		"User":   func(ctx context.Context, s *mongostore.Store) error { _, err := s.User(ctx, "user_ada"); return err },
		"Upsert": func(ctx context.Context, s *mongostore.Store) error { _, err := s.Upsert(ctx, ada(1)); return err },
		"Deactivate": func(ctx context.Context, s *mongostore.Store) error {
			_, err := s.Deactivate(ctx, "user_bob", hour(1))
			return err
		},
		"UpsertBatch": func(ctx context.Context, s *mongostore.Store) error {
			_, err := s.UpsertBatch(ctx, []*clerksync.User{person("cid", 1), person("dot", 1)})
			return err
		},
		"Restore": func(ctx context.Context, s *mongostore.Store) error {
			_, err := s.Restore(ctx, "user_bob", hour(1))
			return err
		},
		"Users": func(ctx context.Context, s *mongostore.Store) error {
			_, err := s.Users(ctx, []string{"user_ada"})
			return err
		},
		"Undeleted": func(ctx context.Context, s *mongostore.Store) (err error) {
			for _, err = range s.Undeleted(ctx) {
			}
			return err
		},
		"UnlinkedEmails": func(ctx context.Context, s *mongostore.Store) (err error) {
			for _, err = range s.UnlinkedEmails(ctx) {
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			armed := false
			s := open(t, newHooked(t, base, func(bson.Raw) {
				if armed {
					cancel()
				}
			}), nil)
			armed = true
			if err := call(ctx, s); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want context.Canceled", err)
			}
		})
	}
}
