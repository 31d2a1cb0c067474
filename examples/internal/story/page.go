package story

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

//go:embed page.html
var pageHTML string

const (
	pagePoll      = 200 * time.Millisecond // how often an open page looks for what has changed
	ordinaryDelay = 20 * time.Second       // how long the page's delay keeps a webhook back
	reconcileFor  = 10 * time.Second       // a reconcile in an outage would try for minutes
	maxLines      = 60                     // of what happened
)

// people sign up on the page, one after the other. A rename takes the next last name.
var people = []struct {
	first string
	last  []string
}{
	{"Mary", []string{"Fairfax", "Greig", "Somerville"}},
	{"Hedy", []string{"Kiesler", "Lamarr"}},
	{"Marie", []string{"Skłodowska", "Curie"}},
	{"Katherine", []string{"Coleman", "Goble", "Johnson"}},
	{"Joan", []string{"Clarke", "Murray"}},
}

// page is the demo's web page. It shows one user in Clerk, the webhooks about her on their way, and
// her record. Its buttons change the user and make things go wrong.
type page struct {
	*demo
	ended chan struct{} // closed by close, so that open pages do not delay the end

	// mu guards the fields below. The fake Clerk calls deliver, which takes mu, so no method of the
	// fake Clerk may be called under mu.
	mu        sync.Mutex
	user      string // the Clerk id of the user who is shown; empty before the first sign-up
	signedUp  int
	renamed   int
	next      treatment            // of the next webhook
	kept      map[string]*keptBack // by svix-id: webhooks that are kept back
	results   map[string][]string  // by svix-id: what clerksync did
	visited   bool                 // since the user last changed
	record    bson.Raw             // as last seen
	changed   map[string]string    // by row: see changedRows
	clerkDown bool
	mongoDown bool
	delay     time.Duration // of a delayed webhook; only tests change it
	outOfStep bool          // as told
	lines     []line        // newest first
	said      int           // lines so far
}

// treatment is what becomes of a webhook on its way.
type treatment string

const (
	ordinary treatment = ""
	dropped  treatment = "drop"
	doubled  treatment = "double"
	delayed  treatment = "delay"
	reorders treatment = "reorder" // delivered after the one that follows it
)

// keptBack is a webhook that the page delivers later.
type keptBack struct {
	how   treatment
	due   time.Time   // of a delayed one
	timer *time.Timer // of a delayed one
}

func newPage(d *demo) *page {
	return &page{
		demo: d, ended: make(chan struct{}), delay: ordinaryDelay,
		kept: make(map[string]*keptBack), results: make(map[string][]string),
	}
}

// servePage serves the page on a port of its own, which only this machine can reach.
func (d *demo) servePage(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	d.pageURL = "http://" + listener.Addr().String()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	d.serve(ctx, listener, d.page.handler("127.0.0.1:"+port, "localhost:"+port))
	d.closers = append(d.closers, d.page.close)
	return nil
}

func (p *page) close() error {
	close(p.ended)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.kept {
		if k.timer != nil {
			k.timer.Stop()
		}
	}
	return nil
}

// handler serves only requests to these hosts, so that no other site can reach the page through a
// name of its own (DNS rebinding). CrossOriginProtection refuses what other sites send: they cannot
// press a button.
func (p *page) handler(hosts ...string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", servePageHTML)
	mux.HandleFunc("GET /events", p.serveEvents)
	mux.HandleFunc("POST /do/{action}", p.serveAction)
	mux.HandleFunc("GET /token", func(w http.ResponseWriter, _ *http.Request) {
		id := p.shown()
		if ids := p.clerk.UserIDs(); id == "" && len(ids) > 0 {
			id = ids[0]
		}
		if id == "" {
			http.Error(w, errNobody.Error(), http.StatusConflict)
			return
		}
		_, _ = fmt.Fprintln(w, p.token(id))
	})
	protected := http.NewCrossOriginProtection().Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(hosts, r.Host) {
			http.Error(w, "this page is only for the machine that it runs on", http.StatusForbidden)
			return
		}
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		protected.ServeHTTP(w, r)
	})
}

func servePageHTML(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", contentPolicy)
	_, _ = w.Write([]byte(pageHTML))
}

// contentPolicy allows the page's own style and script, and requests to its own server. No site may
// frame it and have its buttons pressed unseen.
var contentPolicy = fmt.Sprintf("default-src 'none'; style-src %s; script-src %s; connect-src 'self'; "+
	"img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'", hashOf("style"), hashOf("script"))

// hashOf returns the hash of an element's text in the page, as a Content-Security-Policy has it.
func hashOf(element string) string {
	_, rest, _ := strings.Cut(pageHTML, "<"+element+">")
	text, _, _ := strings.Cut(rest, "</"+element+">")
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// serveEvents sends the whole view whenever it has changed.
func (p *page) serveEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	stream := http.NewResponseController(w)
	// The server's timeouts are for ordinary requests.
	_ = errors.Join(stream.SetReadDeadline(time.Time{}), stream.SetWriteDeadline(time.Time{}))
	poll := time.NewTicker(pagePoll)
	defer poll.Stop()
	for sent := ""; ; {
		v, err := p.look(r.Context())
		if err != nil {
			return // the browser connects again
		}
		text, err := json.Marshal(v)
		if err != nil {
			return
		}
		if string(text) != sent {
			sent = string(text)
			if _, err := fmt.Fprintf(w, "retry: 1000\ndata: %s\n\n", text); err != nil || stream.Flush() != nil {
				return
			}
		}
		select {
		case <-poll.C:
		case <-r.Context().Done():
			return
		case <-p.ended:
			return
		}
	}
}

var (
	errUnknownAction = errors.New("the page has no such button")
	errNobody        = errors.New("nobody has signed up yet, or the user is deleted")
)

// serveAction presses a button, and answers when that is done.
func (p *page) serveAction(w http.ResponseWriter, r *http.Request) {
	err := p.press(r.Context(), r.PathValue("action"), r.URL.Query().Get("id"))
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, errUnknownAction):
		http.Error(w, err.Error(), http.StatusNotFound)
	default:
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

// press does what a button says. messageID is for "send" alone.
func (p *page) press(ctx context.Context, action, messageID string) error {
	switch action {
	case "signup":
		p.signUp()
	case "rename":
		return p.rename()
	case "ban":
		return p.ban()
	case "delete":
		return p.delete()
	case "drop", "double", "delay", "reorder":
		p.treatNext(treatment(action))
	case "send":
		return p.send(messageID)
	case "clerk":
		p.cutOffClerk()
	case "mongo":
		p.cutOffMongo()
	case "visit":
		return p.visit(ctx)
	case "reconcile":
		p.reconcile(ctx)
	default:
		return errUnknownAction
	}
	return nil
}

func (p *page) signUp() {
	p.mu.Lock()
	who, round := people[p.signedUp%len(people)], p.signedUp/len(people)
	p.signedUp++
	p.mu.Unlock()
	address := strings.ToLower(who.first)
	if round > 0 {
		address += fmt.Sprint(round + 1)
	}
	p.say(toneDo, "%s signs up at Clerk.", who.first)
	id := p.clerk.CreateUser(fakeclerk.NewUser{
		FirstName: who.first, LastName: who.last[0], Email: address + "@example.com",
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.user, p.renamed, p.visited, p.outOfStep, p.record, p.changed = id, 0, false, false, nil, nil
}

func (p *page) rename() error {
	p.mu.Lock()
	p.renamed++
	names := people[(p.signedUp+len(people)-1)%len(people)].last
	name := names[p.renamed%len(names)]
	p.visited = false
	id := p.user
	p.mu.Unlock()
	u, err := p.current(id)
	if err != nil {
		return err
	}
	p.say(toneDo, "%s changes her last name to %s at Clerk.", u.First, name)
	return p.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.LastName = clerk.String(name) })
}

func (p *page) ban() error {
	id := p.shown()
	u, err := p.current(id)
	if err != nil {
		return err
	}
	p.userChanges()
	if u.Banned {
		p.say(toneDo, "The ban of %s is lifted at Clerk.", u.First)
		return p.clerk.UnbanUser(id)
	}
	p.say(toneDo, "%s is banned at Clerk.", u.First)
	return p.clerk.BanUser(id)
}

func (p *page) delete() error {
	id := p.shown()
	u, err := p.current(id)
	if err != nil {
		return err
	}
	p.userChanges()
	p.say(toneDo, "%s deletes her account at Clerk.", u.First)
	return p.clerk.DeleteUser(id)
}

// shown returns the id of the user who is shown, or "".
func (p *page) shown() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.user
}

func (p *page) userChanges() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.visited = false
}

// current returns the user as Clerk has her.
func (p *page) current(id string) (clerkUser, error) {
	object, ok := p.clerk.User(id)
	var u clerkUser
	if !ok {
		return u, errNobody
	}
	return u, json.Unmarshal(object, &u)
}

// treatNext says what becomes of the next webhook. The same once more takes it back.
func (p *page) treatNext(t treatment) {
	p.mu.Lock()
	if p.next == t {
		t = ordinary
	}
	p.next = t
	p.mu.Unlock()
	p.webhooks.SetPolicy(p.deliver)
}

// deliver decides what becomes of a new webhook. The fake Clerk calls it.
func (p *page) deliver(m fakeclerk.Message) fakeclerk.Delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, k := range p.kept {
		if k.how == reorders { // it follows this one
			k.timer = time.AfterFunc(0, func() { _ = p.release(id) })
		}
	}
	how := p.next
	p.next = ordinary
	switch how {
	case dropped:
		p.sayLocked(toneBad, "The webhook %s is lost on its way.", m.Type)
		return fakeclerk.Delivery{Drop: true}
	case doubled:
		p.sayLocked(toneBad, "The webhook %s arrives twice.", m.Type)
		return fakeclerk.Delivery{Copies: 2}
	case delayed:
		p.sayLocked(toneBad, "The webhook %s is late.", m.Type)
		p.kept[m.ID] = &keptBack{
			how: delayed, due: time.Now().Add(p.delay),
			timer: time.AfterFunc(p.delay, func() { _ = p.release(m.ID) }),
		}
		return fakeclerk.Delivery{Drop: true} // until it is released
	case reorders:
		p.sayLocked(toneBad, "The webhook %s waits, and will arrive after the next one.", m.Type)
		p.kept[m.ID] = &keptBack{how: reorders}
		return fakeclerk.Delivery{Drop: true} // until it is released
	}
	return fakeclerk.Delivery{}
}

// release delivers a webhook that was kept back, unless that has happened.
func (p *page) release(messageID string) error {
	p.mu.Lock()
	k := p.kept[messageID]
	delete(p.kept, messageID)
	if k != nil && k.timer != nil {
		k.timer.Stop()
	}
	p.mu.Unlock()
	if k == nil {
		return nil
	}
	return p.webhooks.Replay(messageID)
}

// send delivers a webhook now: one that was kept back, or any other once more, as "Resend" in the
// Clerk Dashboard does.
func (p *page) send(messageID string) error {
	p.mu.Lock()
	kept := p.kept[messageID] != nil
	p.mu.Unlock()
	if kept {
		return p.release(messageID)
	}
	for _, m := range p.webhooks.Messages() {
		if m.ID == messageID {
			p.say(toneDo, "The webhook %s is sent again.", m.Type)
		}
	}
	return p.webhooks.Replay(messageID)
}

func (p *page) cutOffClerk() {
	p.mu.Lock()
	down := !p.clerkDown
	p.clerkDown = down
	p.mu.Unlock()
	if !down {
		p.clerk.SetFault(nil)
		p.say(toneDo, "Clerk's API answers again.")
		return
	}
	p.say(toneBad, "Clerk's API is down: it answers your app 503.")
	p.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		return fakeclerk.ErrorFault(http.StatusServiceUnavailable, "service_unavailable")
	})
}

func (p *page) cutOffMongo() {
	p.mu.Lock()
	down := !p.mongoDown
	p.mongoDown = down
	p.mu.Unlock()
	p.mongo.setDown(down)
	if down {
		p.say(toneBad, "MongoDB is down: it refuses your app's connections.")
	} else {
		p.say(toneDo, "MongoDB answers again.")
	}
}

// visit makes a request to the app as the user. observe reports the outcome.
func (p *page) visit(ctx context.Context) error {
	id := p.shown()
	if id == "" {
		return errNobody
	}
	_, _, err := p.get(ctx, "/api/me", p.token(id))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.visited = true
	return err
}

// token returns a session token that also says when the user last changed, by the custom claim
// {"updated_at": "{{user.updated_at}}"}. See clerksync's FreshnessClaims.
func (p *page) token(id string) string {
	var claims map[string]any
	if u, err := p.current(id); err == nil {
		claims = map[string]any{"updated_at": u.UpdatedAt}
	}
	token, err := p.clerk.Token(id, fakeclerk.TokenOptions{Claims: claims})
	if err != nil {
		return "" // not with these options
	}
	return token
}

// reconcile compares all of Clerk's users with all records. Without a Holdback it also believes
// what is younger than ten minutes: nobody would wait so long for a demo.
func (p *page) reconcile(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reconcileFor)
	defer cancel()
	p.say(toneDo, "A reconcile compares all users in Clerk with all records.")
	report, err := p.syncer.Reconcile(ctx, clerksync.ReconcileOptions{InstanceID: p.clerk.InstanceID(), Holdback: -1})
	if err != nil {
		p.say(toneBad, "Reconcile gave up: Clerk or MongoDB does not answer.")
		return
	}
	p.say(toneGood, "Reconcile: %s.", reportText(report))
}

// observe tells what clerksync did.
func (p *page) observe(o clerksync.Observation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch o.Op {
	case clerksync.OpWebhook:
		text := outcomeText(o)
		p.results[o.EventID] = append(p.results[o.EventID], text)
		p.sayLocked(toneOf(o), "Webhook %s: %s.", o.EventType, text)
	case clerksync.OpVisit:
		p.sayLocked(toneOf(o), "Visit: %s.", visitText(o))
	case clerksync.OpRefresh:
		p.sayLocked(toneOf(o), "Your app asked Clerk in the background: %s.", outcomeText(o))
	}
}

// say adds a line to what happened.
func (p *page) say(t tone, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sayLocked(t, format, args...)
}

func (p *page) sayLocked(t tone, format string, args ...any) {
	p.said++
	l := line{Number: p.said, At: time.Now().Format(time.TimeOnly), Tone: t, Text: fmt.Sprintf(format, args...)}
	p.lines = slices.Insert(p.lines, 0, l)
	p.lines = p.lines[:min(len(p.lines), maxLines)]
}

// look returns what the page shows now.
func (p *page) look(ctx context.Context) (view, error) {
	id := p.shown()
	s := scene{now: time.Now(), signedUp: id != ""}
	if id != "" {
		var err error
		s.user, err = p.current(id)
		s.inClerk = err == nil
		s.messages, s.mails = p.messages(id), p.mails.sent(id)
		if s.record, err = p.demo.record(ctx, id); err != nil {
			return view{}, err
		}
		if s.records, err = p.users.CountDocuments(ctx, bson.D{{Key: "clerkId", Value: id}}); err != nil {
			return view{}, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if id == p.user {
		if changed := changedRows(p.record, s.record); len(changed) > 0 {
			p.changed = changed
		}
		p.record = s.record
	}
	s.changed, s.kept, s.results, s.next = p.changed, p.kept, p.results, p.next
	s.visited, s.clerkDown, s.mongoDown = p.visited, p.clerkDown, p.mongoDown
	v := s.view()
	p.tellStepLocked(v)
	v.Lines = slices.Clone(p.lines)
	return v, nil
}

// tellStepLocked tells when the record falls out of step, unless a webhook is about to mend that, and
// when it is in step again.
func (p *page) tellStepLocked(v view) {
	onItsWay := slices.ContainsFunc(v.Deliveries, func(d delivery) bool { return d.State == "way" })
	switch {
	case v.Status == "out" && !p.outOfStep && !onItsWay:
		p.outOfStep = true
		p.sayLocked(toneBad, "The record is out of step.")
	case v.Status == "in" && p.outOfStep:
		p.outOfStep = false
		p.sayLocked(toneGood, "The record is in step again.")
	}
}
