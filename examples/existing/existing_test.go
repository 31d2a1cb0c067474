package existing

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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

// app is an app with users, which opens its collection as one of the functions does.
type app struct {
	t     *testing.T
	clerk *fakeclerk.Server
	uri   string // of the database
	users *mongo.Collection
	open  func(context.Context, *mongo.Collection) (*mongostore.Store, error)
}

func newApp(t *testing.T, open func(context.Context, *mongo.Collection) (*mongostore.Store, error)) *app {
	t.Helper()
	db, err := embeddeddb.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	clerkServer, err := fakeclerk.Start(fakeclerk.Config{})
	if err != nil {
		t.Fatal(err)
	}
	client, err := mongo.Connect(options.Client().ApplyURI(db.URI()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(client.Disconnect(context.Background()), clerkServer.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return &app{t: t, clerk: clerkServer, uri: db.URI(), users: client.Database("app").Collection("users"), open: open}
}

// insert adds a record of the app's and returns its _id.
func (a *app) insert(record bson.D) any {
	a.t.Helper()
	res, err := a.users.InsertOne(a.t.Context(), record)
	if err != nil {
		a.t.Fatal(err)
	}
	return res.InsertedID
}

// link does what the guide says before the routes are wrapped, and returns the Syncer.
func (a *app) link() (*clerksync.Syncer, clerksync.Report) {
	a.t.Helper()
	store, err := a.open(a.t.Context(), a.users)
	if err != nil {
		a.t.Fatal(err)
	}
	syncer, err := clerksync.New(clerksync.Config{Store: store, SecretKey: a.clerk.SecretKey(), APIURL: a.clerk.APIURL()})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		if err := syncer.Close(); err != nil {
			a.t.Error(err)
		}
	})
	report, err := syncer.Reconcile(a.t.Context(), clerksync.ReconcileOptions{})
	if err != nil {
		a.t.Fatal(err)
	}
	return syncer, report
}

// record returns a record as it is stored.
func (a *app) record(id any) bson.Raw {
	a.t.Helper()
	raw, err := a.users.FindOne(a.t.Context(), bson.D{{Key: "_id", Value: id}}).Raw()
	if err != nil {
		a.t.Fatal(err)
	}
	return raw
}

// expect compares values of a record, which are strings, by their paths.
func (a *app) expect(id any, want map[string]string) {
	a.t.Helper()
	raw := a.record(id)
	for name, value := range want {
		if got, _ := raw.Lookup(strings.Split(name, ".")...).StringValueOK(); got != value {
			a.t.Errorf("%s = %q, want %q", name, got, value)
		}
	}
}

func (a *app) expectCount(want int64) {
	a.t.Helper()
	if n, err := a.users.CountDocuments(a.t.Context(), bson.D{}); err != nil || n != want {
		a.t.Errorf("%d records, %v, want %d", n, err, want)
	}
}

// visit requests a protected route.
func (a *app) visit(syncer *clerksync.Syncer, clerkID string, handler http.HandlerFunc) *httptest.ResponseRecorder {
	a.t.Helper()
	r := httptest.NewRequestWithContext(a.t.Context(), http.MethodGet, "/api/account", nil)
	r.Header.Set("Authorization", "Bearer "+a.clerk.SessionToken(clerkID))
	w := httptest.NewRecorder()
	syncer.RequireUser(handler).ServeHTTP(w, r)
	return w
}

func ok(http.ResponseWriter, *http.Request) {}

func TestEmails(t *testing.T) {
	t.Parallel()
	a := newApp(t, openEmails)
	ada := a.insert(bson.D{{Key: "email", Value: "ada@example.com"}, {Key: "emailVerified", Value: true}, {Key: "role", Value: "ADMIN"}, {Key: "plan", Value: "pro"}})
	bob := a.insert(bson.D{{Key: "email", Value: "bob@example.com"}, {Key: "emailVerified", Value: true}})
	clerkID := a.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: "ada@example.com"})
	syncer, report := a.link()
	if report.Adopted.Count != 1 || report.Created.Count != 0 {
		t.Errorf("adopted %d, created %d, want 1, 0", report.Adopted.Count, report.Created.Count)
	}
	a.expect(ada, map[string]string{
		"clerkId": clerkID, "role": "ADMIN", "plan": "pro", "profile.firstName": "Ada", "adoptedBy": clerksync.ByEmail,
	})

	stranger := a.clerk.CreateUser(fakeclerk.NewUser{Email: "bob@example.com", EmailUnverified: true})
	if w := a.visit(syncer, stranger, ok); w.Code != http.StatusConflict {
		t.Errorf("a stranger with an unproven copy of an address: %d, want 409", w.Code)
	}
	a.expect(bob, map[string]string{"clerkId": ""})
	a.expectCount(2)

	err := a.clerk.UpdateUser(stranger, func(u *fakeclerk.UserObject) { // who was bob
		u.EmailAddresses[0].Verification.Status, u.EmailAddresses[0].Verification.Strategy = "verified", "email_code"
	})
	syncer.Forget(stranger) // the refusal, as an event for the user does; otherwise it lasts ten seconds
	if w := a.visit(syncer, stranger, ok); err != nil || w.Code != http.StatusOK {
		t.Errorf("after the address is proven: %v, %d, want 200", err, w.Code)
	}
	a.expect(bob, map[string]string{"clerkId": stranger})
	a.expectCount(2)
}

func TestExternalIDs(t *testing.T) {
	t.Parallel()
	a := newApp(t, openExternalIDs)
	id := a.insert(bson.D{{Key: "email", Value: "old@example.com"}, {Key: "plan", Value: "pro"}}).(bson.ObjectID)
	clerkID := a.clerk.CreateUser(fakeclerk.NewUser{Email: "new@example.com", ExternalID: id.Hex()})
	syncer, _ := a.link()
	a.expect(id, map[string]string{"clerkId": clerkID, "email": "new@example.com", "plan": "pro", "adoptedBy": clerksync.ByExternalID})
	a.expectCount(1)

	// Without ByEmail, a reconcile holds a user with the address of an unlinked record back. A visit does not.
	a.insert(bson.D{{Key: "email", Value: "bob@example.com"}})
	bob := a.clerk.CreateUser(fakeclerk.NewUser{Email: "bob@example.com"})
	report, err := syncer.Reconcile(t.Context(), clerksync.ReconcileOptions{})
	if !errors.Is(err, clerksync.ErrUnlinked) || report.Unlinked.Count != 1 {
		t.Errorf("%v, %d unlinked, want 1", err, report.Unlinked.Count)
	}
	a.expectCount(2)
	if w := a.visit(syncer, bob, ok); w.Code != http.StatusOK {
		t.Errorf("a visit: %d", w.Code)
	}
	a.expectCount(3)
}

func TestFieldNames(t *testing.T) {
	t.Parallel()
	a := newApp(t, openFieldNames)
	clerkID := a.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada", LastName: "Lovelace", ImageURL: "https://img.example.com/a"})
	id := a.insert(bson.D{{Key: "clerk_id", Value: clerkID}, {Key: "plan", Value: "pro"}, {Key: "credits", Value: 7}, {Key: "name", Value: "nick"}})
	syncer, _ := a.link()
	a.expect(id, map[string]string{
		"clerk_id": clerkID, "display_name": "Ada Lovelace", "avatar": "https://img.example.com/a", "name": "nick",
	})
	w := a.visit(syncer, clerkID, showAccount)
	want := `{"id":"` + id.(bson.ObjectID).Hex() + `","name":"Ada Lovelace","plan":"pro","credits":7}` + "\n"
	if w.Code != http.StatusOK || w.Body.String() != want {
		t.Errorf("the account: %d %s, want %s", w.Code, w.Body, want)
	}
	a.expectCount(1)
}

func TestClerkIDs(t *testing.T) {
	t.Parallel()
	a := newApp(t, openClerkIDs)
	clerkID := a.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	newcomer := a.clerk.CreateUser(fakeclerk.NewUser{FirstName: "Bob"})
	a.insert(bson.D{{Key: "_id", Value: clerkID}, {Key: "plan", Value: "pro"}})
	a.link()
	a.expect(clerkID, map[string]string{"name": "Ada", "plan": "pro"})
	a.expect(newcomer, map[string]string{"name": "Bob"})
	a.expectCount(2)
}

// Mongoose's own behaviour with such records is not tested here: it needs Node.js.
func TestMongoose(t *testing.T) {
	t.Parallel()
	a := newApp(t, openMongoose)
	linked := a.insert(bson.D{{Key: "email", Value: "ada@example.com"}, {Key: "__v", Value: 0}}).(bson.ObjectID)
	proven := a.insert(bson.D{{Key: "email", Value: "bob@example.com"}, {Key: "emailVerified", Value: true}, {Key: "__v", Value: 0}})
	a.clerk.CreateUser(fakeclerk.NewUser{Email: "other@example.com", ExternalID: linked.Hex()})
	a.clerk.CreateUser(fakeclerk.NewUser{Email: "bob@example.com"})
	a.link()
	a.expect(linked, map[string]string{"email": "other@example.com", "adoptedBy": clerksync.ByExternalID})
	a.expect(proven, map[string]string{"adoptedBy": clerksync.ByEmail})
	for _, id := range []any{linked, proven} {
		if v, isInt := a.record(id).Lookup("__v").Int32OK(); v != 0 || !isInt {
			t.Errorf("__v = %v, want 0: it is Mongoose's", v)
		}
	}
	a.expectCount(2)
}

// TestCommand builds the app's own command and does with it what the guide says.
func TestCommand(t *testing.T) {
	t.Parallel()
	a := newApp(t, nil)
	command := filepath.Join(t.TempDir(), "clerksync")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", command, "./clerksync").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(wantStatus int, want string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), command, append(args, "-batch-size", "100")...)
		cmd.Dir = t.TempDir() // no .env of the developer's
		cmd.Env = append(os.Environ(), "CLERK_SECRET_KEY="+a.clerk.SecretKey(), "CLERK_API_URL="+a.clerk.APIURL(),
			"MONGODB_URI="+a.uri, "MONGODB_DATABASE=app", "MONGODB_COLLECTION=users")
		out, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if got := cmd.ProcessState.ExitCode(); got != wantStatus || !strings.Contains(string(out), want) {
			t.Errorf("%v: status %d, want %d, and %q in\n%s", args, got, wantStatus, want, out)
		}
	}
	ada := a.insert(bson.D{{Key: "email", Value: "ada@example.com"}, {Key: "email_verified", Value: true}, {Key: "plan", Value: "pro"}}).(bson.ObjectID)
	bob := a.insert(bson.D{{Key: "email", Value: "bob@example.com"}, {Key: "email_verified", Value: true}, {Key: "role", Value: "admin"}})
	adasID := a.clerk.CreateUser(fakeclerk.NewUser{Email: "new@example.com", ExternalID: ada.Hex()})
	bobsID := a.clerk.CreateUser(fakeclerk.NewUser{Email: "bob@example.com"})

	run(2, "-accept email_verified", "inspect")
	run(0, "either way               2   would adopt a record", "inspect", "-accept", "email_verified")
	run(1, "run `clerksync indexes` first", "reconcile", "-dry-run")
	run(0, "clerk_id_1", "indexes")
	run(0, "adopted             2   would be linked", "reconcile", "-dry-run")
	a.expect(bob, map[string]string{"clerk_id": ""})
	run(0, "adopted             2   were linked", "reconcile")
	run(0, "is in step with Clerk", "drift")
	a.expect(ada, map[string]string{"clerk_id": adasID, "email": "new@example.com", "role": "member", "plan": "pro", "adopted_by": clerksync.ByExternalID})
	a.expect(bob, map[string]string{"clerk_id": bobsID, "role": "admin", "adopted_by": clerksync.ByEmail})
	a.expectCount(2)
}
