package story

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/mongostore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newApp makes a minimal app.
func newApp(ctx context.Context, s Services, observe func(context.Context, clerksync.Observation)) (*App, error) {
	client, err := mongo.Connect(options.Client().ApplyURI(s.MongoURI))
	if err != nil {
		return nil, err
	}
	store, err := mongostore.Open(ctx, client.Database(s.Database).Collection("users"), nil)
	if err != nil {
		return nil, errors.Join(err, disconnect(ctx, client))
	}
	config := clerksync.Config{Store: store, SecretKey: s.SecretKey, APIURL: s.APIURL, Observe: observe}
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
