package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/examples/internal/embeddeddb"
	"github.com/clerksync/clerksync-go/mongostore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mailService is a mail service that knows idempotency keys.
type mailService struct {
	mu     sync.Mutex
	status int             // what it answers; 0 means that it sends the mail
	sent   map[string]mail // by key
	calls  int
}

func (s *mailService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.status != 0 {
		w.WriteHeader(s.status)
		return
	}
	var m mail
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil || r.Header.Get("Authorization") != "Bearer key" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	key := r.Header.Get("Idempotency-Key")
	if _, known := s.sent[key]; !known {
		s.sent[key] = m
	}
}

func (s *mailService) answer(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

func (s *mailService) want(t *testing.T, calls int, to ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls != calls || len(s.sent) != len(to) {
		t.Errorf("%d calls, sent %v; want %d, and mails to %v", s.calls, s.sent, calls, to)
	}
	for _, id := range to {
		if s.sent[id+"/create"].To != id+"@example.com" {
			t.Errorf("no welcome for %s: %v", id, s.sent)
		}
	}
}

// fixture is the app on a fake Clerk, an embedded database and a clock that the test moves.
type fixture struct {
	app   *app
	clerk *fakeclerk.Server
	clock *fakeclerk.Clock
	mails *mailService
	users *mongo.Collection
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	db, err := embeddeddb.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	clock := fakeclerk.NewClock(time.Now())
	clerk, err := fakeclerk.Start(fakeclerk.Config{Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	client, err := mongo.Connect(options.Client().ApplyURI(db.URI()))
	if err != nil {
		t.Fatal(err)
	}
	mails := &mailService{sent: make(map[string]mail)}
	server := httptest.NewServer(mails)
	t.Cleanup(func() {
		server.Close()
		http.DefaultClient.CloseIdleConnections()
		if err := errors.Join(client.Disconnect(context.Background()), clerk.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	records := client.Database("app")
	return &fixture{
		app:   &app{mailer{server.URL, "key"}, records.Collection("workspaces"), records.Collection("documents")},
		clerk: clerk, clock: clock, mails: mails, users: records.Collection("users"),
	}
}

// process is a process of the app with some of the functions of once.go.
func (f *fixture) process(t *testing.T, with ...func(*clerksync.Config)) *clerksync.Syncer {
	t.Helper()
	store, err := mongostore.Open(t.Context(), f.users, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := clerksync.Config{Store: store, SecretKey: f.clerk.SecretKey(), APIURL: f.clerk.APIURL(), Now: f.clock.Now}
	for _, set := range with {
		set(&cfg)
	}
	syncer, err := clerksync.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syncer.Close() })
	return syncer
}

func (f *fixture) signUp(id string) {
	f.clerk.CreateUser(fakeclerk.NewUser{ID: id, FirstName: "Ada", Email: id + "@example.com"})
}

// visit requests the app's protected route.
func (f *fixture) visit(t *testing.T, syncer *clerksync.Syncer, id string) int {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/api/me", nil)
	r.Header.Set("Authorization", "Bearer "+f.clerk.SessionToken(id))
	w := httptest.NewRecorder()
	f.app.handler(syncer, http.NotFoundHandler()).ServeHTTP(w, r)
	return w.Code
}

// count counts what refers to the user.
func (f *fixture) count(t *testing.T, c *mongo.Collection, field string, id any) int64 {
	t.Helper()
	n, err := c.CountDocuments(t.Context(), bson.D{{Key: field, Value: id}})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (f *fixture) id(t *testing.T, syncer *clerksync.Syncer, clerkID string) bson.ObjectID {
	t.Helper()
	u, err := syncer.User(t.Context(), clerkID)
	if err != nil {
		t.Fatal(err)
	}
	id, err := mongostore.ObjectID(u)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// One welcome, however many visits, events and processes; a mail service that is down delays it,
// and one that refuses the mail ends it.
func TestWelcome(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.signUp("user_ada")
	first, second := f.process(t, f.app.withWelcome), f.process(t, f.app.withWelcome)
	var all sync.WaitGroup
	for i := range 10 {
		syncer := []*clerksync.Syncer{first, second}[i%2]
		all.Go(func() {
			if code := f.visit(t, syncer, "user_ada"); code != http.StatusOK {
				t.Errorf("a visit is answered %d", code)
			}
		})
	}
	all.Wait()
	_, _ = first.Close(), second.Close()
	f.mails.want(t, 1, "user_ada")

	f.signUp("user_grace")
	f.mails.answer(http.StatusServiceUnavailable)
	third := f.process(t, f.app.withWelcome)
	f.visit(t, third, "user_grace")
	_ = third.Close()
	f.mails.want(t, 2, "user_ada")

	f.mails.answer(0)
	f.clock.Advance(time.Minute)
	ctx, stop := context.WithCancel(t.Context())
	server := &http.Server{Addr: "127.0.0.1:0", ReadHeaderTimeout: time.Second}
	fourth := f.process(t, func(cfg *clerksync.Config) {
		cfg.OnCreate = func(ctx context.Context, u *clerksync.User, job clerksync.Job) error {
			defer stop() // the app is told to stop while it sends the mail
			return f.app.welcome(ctx, u, job)
		}
	})
	if err := serve(ctx, server, fourth); err != nil {
		t.Errorf("serve: %v", err)
	}
	f.mails.want(t, 3, "user_ada", "user_grace")

	f.signUp("user_refused")
	f.mails.answer(http.StatusUnprocessableEntity)
	fifth := f.process(t, f.app.withWelcome)
	f.visit(t, fifth, "user_refused")
	_ = fifth.Close()
	f.clock.Advance(24 * time.Hour)
	if n, err := f.process(t, f.app.withWelcome).DrainJobs(t.Context()); n != 0 || err != nil {
		t.Errorf("DrainJobs ran %d jobs, %v; the refused one is over", n, err)
	}
	f.mails.want(t, 4, "user_ada", "user_grace")
}

// The workspace is there when the first request is served. If it cannot be made, the answer is 503.
func TestWorkspace(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.signUp("user_ada")
	syncer := f.process(t, f.app.withWorkspace)
	if code := f.visit(t, syncer, "user_ada"); code != http.StatusOK {
		t.Errorf("the first visit is answered %d", code)
	}
	id := f.id(t, syncer, "user_ada")
	if n := f.count(t, f.app.workspaces, "_id", id); n != 1 {
		t.Errorf("%d workspaces after the first visit", n)
	}
	u := &clerksync.User{ID: id.Hex(), ClerkID: "user_ada"}
	if err := f.app.makeWorkspace(t.Context(), u, clerksync.Job{Attempt: 2}); err != nil {
		t.Errorf("a second attempt: %v", err)
	}
	if n := f.count(t, f.app.workspaces, "_id", id); n != 1 {
		t.Errorf("%d workspaces after a second attempt", n)
	}

	f.signUp("user_grace")
	broken := f.process(t, f.app.withWorkspace, func(cfg *clerksync.Config) {
		cfg.OnCreate = func(context.Context, *clerksync.User, clerksync.Job) error { return errors.New("no room") }
	})
	if code := f.visit(t, broken, "user_grace"); code != http.StatusServiceUnavailable {
		t.Errorf("without a workspace the visit is answered %d", code)
	}
}

// What refers to a deleted user is removed after the delay, and not if the deletion was taken back.
func TestCleanUp(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	syncer := f.process(t, f.app.withWorkspace, f.app.withCleanUp)
	ids := make(map[string]bson.ObjectID)
	for _, user := range []string{"user_ada", "user_grace"} {
		f.signUp(user)
		ids[user] = f.id(t, syncer, user)
		if _, err := f.app.documents.InsertOne(t.Context(), bson.D{{Key: "owner", Value: ids[user]}}); err != nil {
			t.Fatal(err)
		}
		deletion := clerksync.Event{
			Type: "user.deleted", Timestamp: f.clock.Now(), UserID: user, Data: []byte(`{"id": "` + user + `", "deleted": true}`),
		}
		if _, err := syncer.Apply(t.Context(), deletion); err != nil {
			t.Fatal(err)
		}
	}
	_ = syncer.Close() // the app is deployed anew
	syncer = f.process(t, f.app.withWorkspace, f.app.withCleanUp)
	if err := f.clerk.DeleteUser("user_ada"); err != nil { // Clerk still has user_grace
		t.Fatal(err)
	}
	f.clock.Advance(6 * 24 * time.Hour)
	report, err := syncer.Reconcile(t.Context(), clerksync.ReconcileOptions{Restore: true})
	if err != nil || report.Restored.Count != 1 || report.CleanedUp.Count != 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	for _, want := range []struct {
		after time.Duration
		ran   int
		ada   int64
	}{{0, 0, 1}, {2 * 24 * time.Hour, 1, 0}} {
		f.clock.Advance(want.after)
		if n, err := syncer.DrainJobs(t.Context()); n != want.ran || err != nil {
			t.Errorf("DrainJobs ran %d jobs, %v; want %d", n, err, want.ran)
		}
		for user, left := range map[string]int64{"user_ada": want.ada, "user_grace": 1} {
			documents := f.count(t, f.app.documents, "owner", ids[user])
			workspaces := f.count(t, f.app.workspaces, "_id", ids[user])
			if documents != left || workspaces != left {
				t.Errorf("%s has %d documents and %d workspaces, want %d", user, documents, workspaces, left)
			}
		}
	}
}
