package story

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/mongostore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newApp makes a minimal app.
func newApp(ctx context.Context, s Services) (*App, error) {
	client, err := mongo.Connect(options.Client().ApplyURI(s.MongoURI))
	if err != nil {
		return nil, err
	}
	store, err := mongostore.Open(ctx, client.Database(s.Database).Collection("users"), nil)
	if err != nil {
		return nil, errors.Join(err, disconnect(ctx, client))
	}
	config := clerksync.Config{Store: store, SecretKey: s.SecretKey, APIURL: s.APIURL, Observe: s.Observe, OnCreate: s.OnCreate}
	syncer, err := clerksync.New(config)
	if err != nil {
		return nil, errors.Join(err, disconnect(ctx, client))
	}
	webhooks, err := syncer.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{s.WebhookSecret}})
	if err != nil {
		return nil, errors.Join(err, syncer.Close(), disconnect(ctx, client))
	}
	mux := http.NewServeMux()
	mux.Handle("/api/webhooks/clerk", webhooks)
	mux.Handle("GET /api/me", syncer.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _ := clerksync.UserFromContext(r.Context())
		_ = json.NewEncoder(w).Encode(user)
	})))
	return &App{Handler: mux, Syncer: syncer, Close: func() error { return errors.Join(syncer.Close(), disconnect(ctx, client)) }}, nil
}

func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler}
	stopped := make(chan error, 1)
	defer context.AfterFunc(ctx, func() { stopped <- server.Shutdown(context.WithoutCancel(ctx)) })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

func demoOptions(t *testing.T) Options {
	return Options{Addr: "127.0.0.1:0", Data: t.TempDir(), Once: true, NewApp: newApp, Serve: serve}
}

// Two runs use the same folder, because a run must begin with an empty database.
func TestRun(t *testing.T) {
	t.Parallel()
	opts := demoOptions(t)
	for range 2 {
		var out bytes.Buffer
		if err := Run(t.Context(), &Printer{out: &out}, opts); err != nil {
			t.Fatalf("%v\n%s", err, &out)
		}
		told := out.String()
		if strings.Contains(told, "✗") || !strings.HasSuffix(told, "All checks passed.\n") {
			t.Errorf("a check failed, or the end is missing:\n%s", told)
		}
		for line := range strings.Lines(told) {
			if n := utf8.RuneCountInString(line); n > 81 { // with the line's end
				t.Errorf("%d columns: %s", n-1, line)
			}
		}
		for _, c := range chapters {
			if !strings.Contains(told, c.title) {
				t.Errorf("%q was not told", c.title)
			}
		}
	}
}

// Each chapter notices an app that does nothing.
func TestBrokenApp(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d, err := startDemo(t.Context(), &Printer{out: &out}, demoOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}()
	for i, c := range chapters {
		t.Run(c.title, func(t *testing.T) {
			d.webhooks.SetOutage(true)
			d.clerk.SetFault(nil)
			appURL := d.appURL
			if i == 2 || i == 3 { // these need no webhooks: nobody listens here
				d.appURL = "http://127.0.0.1:1"
			}
			defer func() { d.appURL = appURL }()
			if failed, err := d.tell(t.Context(), []chapter{c}); failed == 0 && err == nil {
				t.Errorf("it noticed nothing:\n%s", &out)
			}
		})
	}
}

func TestFailedCheck(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	opts := demoOptions(t)
	opts.chapters = []chapter{{"It fails", func(t *teller) error {
		t.equal("one", 1, 2)
		return nil
	}}}
	err := Run(t.Context(), &Printer{out: &out}, opts)
	if err == nil || !strings.Contains(out.String(), "✗ FAILED: one: 1, want 2") {
		t.Errorf("error %v, and told:\n%s", err, &out)
	}
}

// On a terminal, what has changed stands out.
func TestHighlight(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	opts := demoOptions(t)
	opts.chapters = []chapter{{"An update", update}}
	if err := Run(t.Context(), &Printer{out: &out, colour: true}, opts); err != nil {
		t.Fatal(err)
	}
	if want := "name: Grace Murray → \x1b[1;33mGrace Hopper\x1b[0m"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in:\n%s", want, &out)
	}
}

// Other sites can neither press a button nor read the page, and nothing secret is in it.
func TestPageIsSafe(t *testing.T) {
	t.Parallel()
	d, err := startDemo(t.Context(), &Printer{out: new(bytes.Buffer)}, demoOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}()
	if host := strings.TrimPrefix(d.pageURL, "http://"); !strings.HasPrefix(host, "127.0.0.1:") {
		t.Errorf("the page listens on %s, want the loopback interface", host)
	}
	send := func(method, path string, header ...string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, d.pageURL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
			if header[i] == "Host" {
				r.Host = header[i+1]
			}
		}
		resp, err := d.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	localhost := "localhost" + strings.TrimPrefix(d.pageURL, "http://127.0.0.1")
	for _, tt := range []struct {
		name, method, path string
		header             []string
		want               int
	}{
		{"another site", "POST", "/do/signup", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"another site in an old browser", "POST", "/do/signup", []string{"Origin", "https://evil.example"}, 403},
		{"another port of this machine", "POST", "/do/signup", []string{"Origin", "http://127.0.0.1:1"}, 403},
		{"a sandboxed frame", "POST", "/do/signup", []string{"Origin", "null"}, 403},
		{"a name that another site points here", "POST", "/do/signup", []string{"Host", "evil.example"}, 403},
		{"the same, with the port", "GET", "/token", []string{"Host", "evil.example" + localhost[len("localhost"):]}, 403},
		{"the same, reading", "GET", "/events", []string{"Host", "evil.example"}, 403},
		{"a link", "GET", "/do/signup", nil, 405},
		{"an unknown button", "POST", "/do/nothing", nil, 404},
		{"nobody to rename", "POST", "/do/rename", nil, 409},
		{"nobody to visit", "POST", "/do/visit", nil, 409},
		{"an unknown webhook", "POST", "/do/send?id=msg_none", nil, 409},
		{"the page itself", "POST", "/do/drop", []string{"Origin", d.pageURL, "Sec-Fetch-Site", "same-origin"}, 204},
		{"by its other name", "POST", "/do/drop", []string{"Host", localhost, "Origin", "http://" + localhost}, 204},
	} {
		if status, body := send(tt.method, tt.path, tt.header...); status != tt.want {
			t.Errorf("%s: %d %s, want %d", tt.name, status, body, tt.want)
		}
	}
	_, body := send("GET", "/")
	for _, secret := range []string{d.clerk.SecretKey(), d.webhooks.Secret(), "://"} {
		if strings.Contains(body, secret) {
			t.Errorf("the page contains %q", secret)
		}
	}
	if strings.Count(body, "<script") != 1 || strings.Count(body, "<style") != 1 {
		t.Error("the policy allows one script and one style")
	}
	v, err := d.page.look(t.Context())
	if err != nil || v.Status != "nobody" {
		t.Errorf("%+v, %v: want that nobody has signed up", v, err)
	}
}

// The hint names the button that helps.
func TestHints(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1_700_000_000_000)
	user := clerkUser{ID: "user_1", First: "Ada", Last: "Byron", UpdatedAt: at.UnixMilli()}
	doc := func(fields ...bson.E) bson.Raw {
		raw, err := bson.Marshal(bson.D(fields))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	version := bson.E{Key: "clerkUpdatedAt", Value: at}
	inStep := doc(bson.E{Key: "name", Value: "Ada Byron"}, version)
	old := doc(bson.E{Key: "name", Value: "Ada Old"}, bson.E{Key: "clerkUpdatedAt", Value: at.Add(-time.Second)})
	tombstone := doc(version, bson.E{Key: "deletedAt", Value: at})
	message := func(state fakeclerk.MessageState) []fakeclerk.Message {
		return []fakeclerk.Message{{ID: "msg_1", Type: "user.updated", State: state}}
	}
	lost, arrived := message(fakeclerk.Dropped), message(fakeclerk.Delivered)
	failed := message(fakeclerk.Pending)
	failed[0].Attempts, failed[0].Next = []fakeclerk.Attempt{{Status: 503}}, at
	late := map[string]*keptBack{"msg_1": {how: delayed, due: at}}

	for name, tt := range map[string]struct {
		scene         scene
		status, press string
	}{
		"at first":                {scene{}, "nobody", "signup"},
		"signed up":               {scene{user: user, inClerk: true, record: inStep, messages: arrived}, "in", "drop"},
		"the next one is lost":    {scene{user: user, inClerk: true, record: inStep, next: dropped}, "in", "rename"},
		"on its way":              {scene{user: user, inClerk: true, messages: message(fakeclerk.Pending)}, "out", ""},
		"lost":                    {scene{user: user, inClerk: true, record: old, messages: lost}, "out", "visit"},
		"lost, without a record":  {scene{user: user, inClerk: true, messages: lost}, "out", "visit"},
		"late":                    {scene{user: user, inClerk: true, record: old, messages: lost, kept: late}, "out", "visit"},
		"failed":                  {scene{user: user, inClerk: true, record: old, messages: failed}, "out", "visit"},
		"a visit did not help":    {scene{user: user, inClerk: true, record: old, messages: lost, visited: true}, "out", "reconcile"},
		"Clerk is down":           {scene{user: user, inClerk: true, record: old, messages: lost, clerkDown: true}, "out", "visit"},
		"and a visit failed":      {scene{user: user, inClerk: true, record: old, clerkDown: true, visited: true}, "out", "clerk"},
		"MongoDB is down":         {scene{user: user, inClerk: true, record: old, messages: failed, mongoDown: true}, "out", "mongo"},
		"down, but in step":       {scene{user: user, inClerk: true, record: inStep, mongoDown: true}, "in", "rename"},
		"converged":               {scene{user: user, inClerk: true, record: inStep}, "in", ""},
		"deleted in Clerk alone":  {scene{record: inStep, messages: lost}, "out", "reconcile"},
		"deleted":                 {scene{record: tombstone, messages: arrived}, "in", "send"},
		"deleted, never a record": {scene{messages: lost}, "in", "send"},
	} {
		tt.scene.signedUp = name != "at first"
		v := tt.scene.view()
		if v.Status != tt.status || v.Press != tt.press || v.Hint == "" || v.Why == "" {
			t.Errorf("%s: %s, %q, press %q, want %s, press %q", name, v.Status, v.Hint, v.Press, tt.status, tt.press)
		}
	}
}
