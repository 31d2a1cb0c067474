package story

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
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
	users    *mongo.Collection   // read past clerksync, and past outages
	mongo    *gate               // the app's way to the database
	syncer   *clerksync.Syncer   // the app's
	appURL   string
	pageURL  string
	client   *http.Client
	page     *page
	mails    mailbox

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
	d.page = newPage(d)
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
	d.mongo, err = openGate(ctx, strings.Trim(strings.TrimPrefix(db.URI(), "mongodb://"), "/"))
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, d.mongo.close)
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
		MongoURI:      d.mongo.uri(),
		Database:      databaseName,
		Observe:       d.observe,
		OnCreate:      d.welcome,
	})
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, app.Close)
	d.syncer = app.Syncer
	d.runJobs(ctx)
	d.appEnded = d.serve(ctx, listener, d.countVisits(app.Handler))
	return d, d.servePage(ctx)
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

// runJobs does what an app with an OnCreate does: it retries what has failed, until close.
func (d *demo) runJobs(ctx context.Context) {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { _ = d.syncer.RunJobs(ctx) }) // nil when ctx ends
	d.closers = append(d.closers, func() error {
		stop()
		running.Wait()
		return nil
	})
}

// welcome stands in for a welcome mail.
func (d *demo) welcome(_ context.Context, u *clerksync.User, _ clerksync.Job) error {
	d.mails.note(u.ClerkID, func(w *welcome) { w.sent++ })
	if d.serving.Load() {
		d.page.say(toneGood, "Your app sends %s a welcome mail (Config.OnCreate).", u.Name)
	}
	return nil
}

// observe prints what clerksync does after the story, and tells the page.
func (d *demo) observe(_ context.Context, o clerksync.Observation) {
	if o.Op == clerksync.OpJob {
		d.mails.note(o.ClerkID, func(w *welcome) { w.noted = true })
	}
	if !d.serving.Load() {
		return
	}
	what := string(o.Op)
	switch o.Op {
	case clerksync.OpClerk: // part of another operation
		return
	case clerksync.OpWebhook:
		what = "webhook " + o.EventType
	}
	result := "answered from the " + string(o.Source)
	var problem *clerksync.Problem
	switch {
	case errors.As(o.Err, &problem):
		result = fmt.Sprint(problem.Status, " ", problem.Code)
	case o.Outcome != 0:
		result = "record " + o.Outcome.String()
	case o.Op == clerksync.OpJob:
		result = fmt.Sprint(o.Job.Kind, " ", o.Job.Outcome)
	case o.Source == "":
		result = "done"
	}
	d.out.printf("   %s  %s: %s", time.Now().Format(time.TimeOnly), what, result)
	d.page.observe(o)
}

// record reads a user's record past clerksync. It returns nil if there is none.
func (d *demo) record(ctx context.Context, clerkID string) (bson.Raw, error) {
	doc, err := d.users.FindOne(ctx, bson.D{{Key: "clerkId", Value: clerkID}}).Raw()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, nil
	}
	return doc, err
}

// get sends the app a request, with a session token unless that is empty.
func (d *demo) get(ctx context.Context, path, token string) (status int, body []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, d.appURL+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := d.client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// messages returns the webhooks about a user, oldest first.
func (d *demo) messages(clerkID string) []fakeclerk.Message {
	var of []fakeclerk.Message
	for _, m := range d.webhooks.Messages() {
		if contentOf(m).ID == clerkID {
			of = append(of, m)
		}
	}
	return of
}

// invite prints what to try.
func (d *demo) invite() {
	d.out.title("Try it yourself")
	d.out.printf(`   Open the page:  %[2]s

   Or call the app as a user. A session token is valid for a minute.
   curl -i %[1]s/api/me \
     -H "Authorization: Bearer $(curl -s %[2]s/token)"

   Clerk's Backend API, faked: %[3]s
   with the secret key %[4]s

   Below you see what clerksync does. Interrupt (Ctrl-C) to end.
`, d.appURL, d.pageURL, d.clerk.APIURL(), d.clerk.SecretKey())
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

// mailbox knows the welcome mails of each user, by Clerk id.
type mailbox struct {
	mu      sync.Mutex
	of      map[string]welcome
	changed chan struct{} // closed at the next change; nil if nobody waits
}

type welcome struct {
	sent  int
	noted bool // clerksync has noted in the record that it was sent
}

func (m *mailbox) note(clerkID string, change func(*welcome)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil {
		m.of = make(map[string]welcome)
	}
	w := m.of[clerkID]
	change(&w)
	m.of[clerkID] = w
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}

func (m *mailbox) sent(clerkID string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.of[clerkID].sent
}

// await waits until the user's record says that the mail was sent.
func (m *mailbox) await(ctx context.Context, clerkID string) error {
	for {
		m.mu.Lock()
		noted := m.of[clerkID].noted
		if m.changed == nil {
			m.changed = make(chan struct{})
		}
		changed := m.changed
		m.mu.Unlock()
		if noted {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// gate passes the app's connections on to the database, unless there is an outage.
type gate struct {
	listener net.Listener
	target   string // host and port
	passing  sync.WaitGroup

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]bool // both ends of what is passed on
}

func openGate(ctx context.Context, target string) (*gate, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &gate{listener: listener, target: target, conns: make(map[net.Conn]bool)}
	g.passing.Go(g.accept)
	return g, nil
}

// uri is the connection string for the app. A call during an outage fails after two seconds.
func (g *gate) uri() string {
	return "mongodb://" + g.listener.Addr().String() + "/?serverSelectionTimeoutMS=2000"
}

func (g *gate) accept() {
	for {
		conn, err := g.listener.Accept()
		if err != nil {
			return // closed
		}
		g.passing.Go(func() { g.pass(conn) })
	}
}

func (g *gate) pass(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := (&net.Dialer{}).Dial("tcp", g.target)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	if !g.enter(client, server) {
		return
	}
	defer g.leave(client, server)
	g.passing.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	_, _ = io.Copy(client, server)
}

// enter reports false during an outage.
func (g *gate) enter(conns ...net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.down {
		return false
	}
	for _, c := range conns {
		g.conns[c] = true
	}
	return true
}

func (g *gate) leave(conns ...net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range conns {
		delete(g.conns, c)
	}
}

// setDown begins an outage, which breaks all connections, or ends it.
func (g *gate) setDown(down bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down = down
	for c := range g.conns {
		if down {
			_ = c.Close()
		}
	}
}

func (g *gate) close() error {
	err := g.listener.Close()
	g.setDown(true)
	g.passing.Wait()
	return err
}
