package story

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/examples/internal/embeddeddb"
)

// demo is the app with a fake Clerk and an embedded database.
type demo struct {
	opts     Options
	out      *Printer
	clerk    *fakeclerk.Server
	webhooks *fakeclerk.Endpoint // the app's endpoint, as in the Clerk Dashboard
	users    *mongo.Collection   // read past clerksync
	appURL   string
	devURL   string
	client   *http.Client

	serving  atomic.Bool             // the story is over
	crowd    atomic.Pointer[barrier] // of the visits that a chapter makes at once; nil if there is none
	appEnded <-chan error
	closers  []func() error
}

func startDemo(ctx context.Context, out *Printer, opts Options) (_ *demo, err error) {
	d := &demo{opts: opts, out: out, client: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: crowdSize},
		Timeout:   20 * time.Second,
	}}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	d.closers = append(d.closers, func() error { d.client.CloseIdleConnections(); return nil })

	db, err := embeddeddb.Start(ctx, opts.Data)
	if err != nil {
		return nil, fmt.Errorf("starting the embedded database in the folder %q (-data names another): %w", opts.Data, err)
	}
	d.closers = append(d.closers, db.Close)
	if err := d.openUsers(ctx, db.URI()); err != nil {
		return nil, err
	}
	d.clerk, err = fakeclerk.Start(fakeclerk.Config{})
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, d.clerk.Close)
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", opts.Addr)
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, func() error { _ = listener.Close(); return nil }) // Serve may have closed it
	d.appURL = "http://" + listener.Addr().String()
	d.webhooks = d.clerk.AddEndpoint(d.appURL+"/api/webhooks/clerk", fakeclerk.EndpointOptions{})

	app, err := opts.NewApp(ctx, Services{
		SecretKey:     d.clerk.SecretKey(),
		APIURL:        d.clerk.APIURL(),
		WebhookSecret: d.webhooks.Secret(),
		MongoURI:      db.URI(),
		Database:      databaseName,
	}, d.observe)
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, app.Close)
	d.appEnded = d.serve(ctx, listener, d.countVisits(app.Handler))
	return d, d.serveDev(ctx)
}

// serve serves until close. The channel receives the error of a server that ends before.
func (d *demo) serve(ctx context.Context, listener net.Listener, handler http.Handler) (ended <-chan error) {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx)) // the story may still need the app after an interrupt
	errs := make(chan error, 1)
	go func() {
		errs <- d.opts.Serve(ctx, listener, handler)
		close(errs)
	}()
	d.closers = append(d.closers, func() error {
		stop()
		return <-errs // nil if it was received before
	})
	return errs
}

// disconnect also works after ctx is done.
func disconnect(ctx context.Context, client *mongo.Client) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return client.Disconnect(ctx)
}

// close ends everything, in the reverse order of the start.
func (d *demo) close() error {
	var errs []error
	for i := len(d.closers) - 1; i >= 0; i-- {
		errs = append(errs, d.closers[i]())
	}
	return errors.Join(errs...)
}

// openUsers connects to the database past clerksync, and drops what an earlier run left there.
func (d *demo) openUsers(ctx context.Context, uri string) error {
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		return err
	}
	d.closers = append(d.closers, func() error { return disconnect(ctx, client) })
	database := client.Database(databaseName)
	d.users = database.Collection("users")
	return database.Drop(ctx)
}

// observe prints what clerksync does after the story.
func (d *demo) observe(_ context.Context, o clerksync.Observation) {
	if !d.serving.Load() {
		return
	}
	what := string(o.Op)
	if o.Op == clerksync.OpWebhook {
		what = "webhook " + o.EventType
	}
	result := "answered from the " + string(o.Source)
	switch {
	case o.Err != nil:
		result = o.Err.Error()
	case o.Outcome != 0:
		result = "record " + o.Outcome.String()
	case o.Source == "":
		result = "done"
	}
	now, took := time.Now().Format(time.TimeOnly), o.Duration.Round(10*time.Microsecond)
	d.out.printf("%s  %s %s: %s (%v)", now, what, o.ClerkID, result, took)
}

// serveDev serves, on another port, what only a demo may offer: session tokens for anybody, and the
// records in the database.
func (d *demo) serveDev(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	d.devURL = "http://" + listener.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /demo/token/{user}", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintln(w, d.clerk.SessionToken(r.PathValue("user")))
	})
	mux.HandleFunc("GET /demo/record/{user}", func(w http.ResponseWriter, r *http.Request) {
		doc, err := d.record(r.Context(), r.PathValue("user"))
		var text []byte
		if err == nil && doc != nil {
			text, err = bson.MarshalExtJSONIndent(doc, false, false, "", "  ")
		}
		switch {
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		case doc == nil:
			http.Error(w, "no record", http.StatusNotFound)
		default:
			w.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprintf(w, "%s\n", text)
		}
	})
	d.serve(ctx, listener, mux)
	return nil
}

// record reads a user's record past clerksync. It returns nil if there is none.
func (d *demo) record(ctx context.Context, clerkID string) (bson.Raw, error) {
	doc, err := d.users.FindOne(ctx, bson.D{{Key: "clerkId", Value: clerkID}}).Raw()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, nil
	}
	return doc, err
}

// invite prints what to try.
func (d *demo) invite() {
	user := d.clerk.UserIDs()[0]
	d.out.title("Try it yourself: the app serves on %s", d.appURL)
	d.out.printf(`
   As a user of the app. A session token is valid for a minute. The demo issues fresh ones.
     curl -i %[1]s/api/me
     curl -i -H "Authorization: Bearer $(curl -s %[2]s/demo/token/%[4]s)" %[1]s/api/me

   In the fake Clerk, which has Clerk's Backend API. Each change sends a webhook to the app.
     curl -X POST   %[3]s/users -H "Authorization: Bearer %[5]s" -H "Content-Type: application/json" -d '{"first_name":"Mary","email_address":["mary@example.com"]}'
     curl -X PATCH  %[3]s/users/%[4]s -H "Authorization: Bearer %[5]s" -H "Content-Type: application/json" -d '{"last_name":"Lovelace"}'
     curl -X POST   %[3]s/users/%[4]s/ban -H "Authorization: Bearer %[5]s"
     curl -X POST   %[3]s/users/%[4]s/unban -H "Authorization: Bearer %[5]s"
     curl -X DELETE %[3]s/users/%[4]s -H "Authorization: Bearer %[5]s"

   The record in the database.
     curl %[2]s/demo/record/%[4]s

   Below you see what clerksync does. Interrupt (Ctrl-C) to end.
`, d.appURL, d.devURL, d.clerk.APIURL(), user, d.clerk.SecretKey())
}

// barrier closes full when a number of visits has arrived.
type barrier struct {
	missing atomic.Int64
	full    chan struct{}
}

func newBarrier(n int) *barrier {
	b := &barrier{full: make(chan struct{})}
	b.missing.Store(int64(n))
	return b
}

func (b *barrier) arrive() {
	if b.missing.Add(-1) == 0 {
		close(b.full)
	}
}

// countVisits counts the visits that arrive while there is a crowd.
func (d *demo) countVisits(app http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b := d.crowd.Load(); b != nil && r.URL.Path == "/api/me" {
			b.arrive()
		}
		app.ServeHTTP(w, r)
	})
}
