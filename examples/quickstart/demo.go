package main

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

// demo is the app with a fake Clerk and an embedded database around it.
type demo struct {
	out      *printer
	clerk    *fakeclerk.Server
	webhooks *fakeclerk.Endpoint // what the Dashboard shows of the app's endpoint
	users    *mongo.Collection   // past clerksync, with the plain driver
	appURL   string
	devURL   string
	client   *http.Client

	serving atomic.Bool             // the story is over
	crowd   atomic.Pointer[barrier] // of the visits that the story wants at once
	app     *httpServer
	closers []func() error
}

type demoOptions struct {
	addr     string // of the app; empty: a free port
	data     string // the database's folder
	once     bool
	chapters []chapter
}

// runDemo tells the story and then, unless it is to be told once only, serves on
// until ctx is done.
func runDemo(ctx context.Context, out *printer, opts demoOptions) (err error) {
	out.printf("The demo: a fake Clerk, an embedded database, no settings. The app's own code is in app.go.")
	d, err := startDemo(ctx, out, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()

	failed, err := d.tell(ctx, opts.chapters)
	switch {
	case ctx.Err() != nil:
		out.printf("\nInterrupted.")
		if opts.once {
			return context.Cause(ctx) // it has not been told to its end
		}
		return nil
	case err != nil:
		return err
	case failed > 0:
		err = fmt.Errorf("%d of the story's statements did not hold", failed)
	default:
		out.printf("\n%s", out.paint(bold, "Every statement held."))
	}
	if opts.once {
		return err
	}
	d.invite()
	d.serving.Store(true)
	return errors.Join(err, d.app.wait(ctx))
}

func startDemo(ctx context.Context, out *printer, opts demoOptions) (_ *demo, err error) {
	d := &demo{out: out, client: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: crowdSize},
		Timeout:   20 * time.Second,
	}}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	d.closers = append(d.closers, func() error { d.client.CloseIdleConnections(); return nil })

	db, err := embeddeddb.Start(ctx, opts.data)
	if err != nil {
		return nil, fmt.Errorf("starting the embedded database in the folder %q (-data names another): %w", opts.data, err)
	}
	d.closers = append(d.closers, db.Close)
	if err := d.lookInto(ctx, db.URI()); err != nil {
		return nil, err
	}
	d.clerk, err = fakeclerk.Start(fakeclerk.Config{})
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, d.clerk.Close)

	addr := opts.addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, func() error { _ = listener.Close(); return nil }) // the server may have done so
	d.appURL = "http://" + listener.Addr().String()
	d.webhooks = d.clerk.AddEndpoint(d.appURL+"/api/webhooks/clerk", fakeclerk.EndpointOptions{})

	// From here on it goes as with the real ones.
	s := settings{
		secretKey:     d.clerk.SecretKey(),
		apiURL:        d.clerk.APIURL(),
		webhookSecret: d.webhooks.Secret(),
		mongoURI:      db.URI(),
		database:      defaultDatabase,
	}
	client, store, err := openStore(ctx, s)
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, func() error { return disconnect(ctx, client) })
	syncer, err := newSyncer(s, store, d.observe)
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, syncer.Close)
	handler, err := newHandler(s, syncer)
	if err != nil {
		return nil, err
	}
	d.app = serve(listener, d.countVisits(handler))
	d.closers = append(d.closers, func() error { return d.app.shutdown(ctx) })
	return d, d.serveDev(ctx)
}

// close ends everything, what was started last first.
func (d *demo) close() error {
	var errs []error
	for i := len(d.closers) - 1; i >= 0; i-- {
		errs = append(errs, d.closers[i]())
	}
	return errors.Join(errs...)
}

// lookInto opens the story's own way into the database, and removes what an
// earlier run left there: its users' Clerk is gone.
func (d *demo) lookInto(ctx context.Context, uri string) error {
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		return err
	}
	d.closers = append(d.closers, func() error { return disconnect(ctx, client) })
	database := client.Database(defaultDatabase)
	d.users = database.Collection("users")
	return database.Drop(ctx)
}

// observe tells what clerksync does, once the story is over.
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
	d.out.printf("%s  %s %s: %s (%v)", time.Now().Format(time.TimeOnly), what, o.ClerkID, result, o.Duration.Round(10*time.Microsecond))
}

// serveDev serves what only a demo may offer, on a listener of its own: session
// tokens for anybody, and a look into the database.
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
	dev := serve(listener, mux)
	d.closers = append(d.closers, func() error { return dev.shutdown(ctx) })
	return nil
}

// record reads a user's record past clerksync; nil where there is none.
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
	d.out.title("Now you: the app serves on %s", d.appURL)
	d.out.printf(`
   As a user of the app. A session token lives a minute; the demo hands out fresh ones.
     curl -i %[1]s/api/me
     curl -i -H "Authorization: Bearer $(curl -s %[2]s/demo/token/%[4]s)" %[1]s/api/me

   In Clerk, whose fake answers the Backend API; each change sends a webhook to the app.
     curl -X POST   %[3]s/users -H "Authorization: Bearer %[5]s" -H "Content-Type: application/json" -d '{"first_name":"Mary","email_address":["mary@example.com"]}'
     curl -X PATCH  %[3]s/users/%[4]s -H "Authorization: Bearer %[5]s" -H "Content-Type: application/json" -d '{"last_name":"Lovelace"}'
     curl -X POST   %[3]s/users/%[4]s/ban -H "Authorization: Bearer %[5]s"
     curl -X POST   %[3]s/users/%[4]s/unban -H "Authorization: Bearer %[5]s"
     curl -X DELETE %[3]s/users/%[4]s -H "Authorization: Bearer %[5]s"

   The record as the database holds it.
     curl %[2]s/demo/record/%[4]s

   What clerksync does appears below. Interrupt (Ctrl-C) to end.
`, d.appURL, d.devURL, d.clerk.APIURL(), user, d.clerk.SecretKey())
}

// barrier tells when a number of visits has arrived.
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

// countVisits lets the story know of the requests that have arrived at the app.
func (d *demo) countVisits(app http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b := d.crowd.Load(); b != nil && r.URL.Path == "/api/me" {
			b.arrive()
		}
		app.ServeHTTP(w, r)
	})
}
