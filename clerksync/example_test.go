package clerksync_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	clerkhttp "github.com/clerk/clerk-sdk-go/v2/http"
	"github.com/clerk/clerk-sdk-go/v2/jwks"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// A complete app: one Syncer, protected routes, and the webhook.
func Example() {
	syncer, err := clerksync.New(clerksync.Config{
		Store:     memstore.New(), // mongostore.Open(ctx, collection, nil) in an app
		SecretKey: os.Getenv("CLERK_SECRET_KEY"),
	})
	if err != nil {
		log.Print(err) // every fault at once
		return
	}
	defer syncer.Close()

	webhook, err := syncer.WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{os.Getenv("CLERK_WEBHOOK_SIGNING_SECRET")},
	})
	if err != nil {
		log.Print(err)
		return
	}

	protected := http.NewServeMux()
	protected.HandleFunc("GET /api/me", func(w http.ResponseWriter, r *http.Request) {
		user, _ := clerksync.UserFromContext(r.Context())
		_ = json.NewEncoder(w).Encode(user)
	})

	mux := http.NewServeMux()
	mux.Handle("/api/", syncer.RequireUser(protected))
	mux.Handle("/api/webhooks/clerk", webhook)
	mux.Handle("/api/webhooks/clerk/{$}", webhook)
	log.Print(http.ListenAndServe(":8080", mux))
}

// exampleClerk starts a Clerk to run the examples against.
func exampleClerk() (*fakeclerk.Server, clerksync.Config) {
	server, err := fakeclerk.Start(fakeclerk.Config{})
	if err != nil {
		log.Fatal(err)
	}
	return server, clerksync.Config{
		Store:      memstore.New(),
		SecretKey:  server.SecretKey(),
		APIURL:     server.APIURL(),
		HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	}
}

func ExampleNew_incorrect() {
	_, err := clerksync.New(clerksync.Config{SecretKey: "pk_test_Zm9v"})
	fmt.Println(err)
	// Output:
	// clerksync: Config.Store is missing: open one with mongostore.Open, or use memstore.New in tests
	// clerksync: Config.SecretKey is a publishable key (pk_…): the secret key begins with sk_
}

func ExampleSyncer_RequireUser() {
	server, cfg := exampleClerk()
	defer server.Close()
	cfg.Auth.AuthorizedParties = []string{"https://app.example.com"}
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()
	h := syncer.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _ := clerksync.UserFromContext(r.Context())
		claims, _ := clerk.SessionClaimsFromContext(r.Context())
		fmt.Fprintln(w, user.Name, claims.AuthorizedParty)
	}))

	id := server.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	for _, origin := range []string{"https://app.example.com", "https://evil.example"} {
		token, err := server.Token(id, fakeclerk.TokenOptions{AuthorizedParty: origin})
		if err != nil {
			log.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodGet, "/api/me", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Print(w.Code, " ", w.Body)
	}
	// Output:
	// 200 Ada https://app.example.com
	// 401 {"title":"Unauthorized","status":401,"code":"token_wrong_party","detail":"The session token was not made for an origin of this app."}
}

// A page for everyone that greets those who are signed in.
func ExampleSyncer_WithUser() {
	server, cfg := exampleClerk()
	defer server.Close()
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()
	h := syncer.WithUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, ok := clerksync.UserFromContext(r.Context()); ok {
			fmt.Fprintln(w, "hello,", user.Name)
			return
		}
		fmt.Fprintln(w, "hello, stranger")
	}))

	id := server.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	for _, authorization := range []string{"Bearer " + server.SessionToken(id), ""} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Print(w.Body)
	}
	// Output:
	// hello, Ada
	// hello, stranger
}

// A token that is not in the Authorization header. A browser cannot set headers for a
// WebSocket, but it can send a subprotocol: new WebSocket(url, ["bearer", token]). The
// server's answer names the subprotocol "bearer".
func ExampleSyncer_RequireUser_elsewhere() {
	server, cfg := exampleClerk()
	defer server.Close()
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()
	socket := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _ := clerksync.UserFromContext(r.Context())
		fmt.Fprintln(w, "hello,", user.Name)
	})

	fromSubprotocol := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if token, ok := strings.CutPrefix(r.Header.Get("Sec-WebSocket-Protocol"), "bearer, "); ok {
				r = r.Clone(r.Context())
				r.Header.Set("Authorization", "Bearer "+token)
			}
			next.ServeHTTP(w, r)
		})
	}
	h := fromSubprotocol(syncer.RequireUser(socket))

	id := server.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	r := httptest.NewRequest(http.MethodGet, "/socket", nil)
	r.Header.Set("Sec-WebSocket-Protocol", "bearer, "+server.SessionToken(id))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Print(w.Body)
	// Output: hello, Ada
}

// The check alone, for a server that is not built on http.Handler.
func ExampleSyncer_Authenticate() {
	server, cfg := exampleClerk()
	defer server.Close()
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()

	r := httptest.NewRequest(http.MethodGet, "/socket", nil)
	r.Header.Set("Authorization", "Bearer "+server.SessionToken("user_1"))
	claims, err := syncer.Authenticate(r)
	if err != nil {
		log.Fatal(err) // clerksync.WriteProblem(w, r, err) answers it
	}
	fmt.Println(claims.Subject)
	// Output: user_1
}

// On a router that is not built on http.Handler, such as gin, echo or fiber. The repository's
// examples folder has an app on each.
func ExampleSyncer_Check() {
	server, cfg := exampleClerk()
	defer server.Close()
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()
	id := server.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})

	r := httptest.NewRequest(http.MethodGet, "/api/me", nil)
	r.Header.Set("Authorization", "Bearer "+server.SessionToken(id))
	r, err = syncer.Check(r)
	if err != nil {
		log.Fatal(err) // clerksync.WriteProblem(w, r, err) answers it
	}
	user, _ := clerksync.UserFromContext(r.Context())
	err = clerksync.CheckRole(r.Context(), clerksync.RoleAdmin)
	fmt.Println(user.Name, err)
	// Output: Ada clerksync: 403 role_required: the user does not have one of the roles
}

func ExampleRequireRole() {
	server, cfg := exampleClerk()
	defer server.Close()
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()
	grades := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "the grades") })
	staff := clerksync.RequireRole(clerksync.RoleTeacher, clerksync.RoleAdmin)
	h := syncer.RequireUser(staff(grades))

	id := server.CreateUser(fakeclerk.NewUser{FirstName: "Ada"}) // a STUDENT, unless RoleOf says otherwise
	r := httptest.NewRequest(http.MethodGet, "/api/grades", nil)
	r.Header.Set("Authorization", "Bearer "+server.SessionToken(id))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Print(w.Code, " ", w.Body)
	// Output: 403 {"title":"Forbidden","status":403,"code":"role_required","detail":"This account does not have the role that is needed here."}
}

// Behind the SDK's own middleware, for an app that already uses it.
func ExampleSyncer_Middleware() {
	server, cfg := exampleClerk()
	defer server.Close()
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()
	next := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		user, _ := clerksync.UserFromContext(r.Context())
		fmt.Println(user.Name)
	})

	url, key := server.APIURL(), server.SecretKey()
	keys := jwks.NewClient(&clerk.ClientConfig{BackendConfig: clerk.BackendConfig{
		URL: &url, Key: &key, HTTPClient: cfg.HTTPClient,
	}})
	sessions := clerkhttp.WithHeaderAuthorization(
		clerkhttp.JWKSClient(keys),
		// Optional: lets the token show that the record is out of date.
		clerkhttp.CustomClaimsConstructor(func(context.Context) any { return &clerksync.FreshnessClaims{} }),
	)
	h := sessions(syncer.Middleware(next))

	r := httptest.NewRequest(http.MethodGet, "/api/me", nil)
	id := server.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	r.Header.Set("Authorization", "Bearer "+server.SessionToken(id))
	h.ServeHTTP(httptest.NewRecorder(), r)
	// Output: Ada
}

func ExampleSyncer_User() {
	server, cfg := exampleClerk()
	defer server.Close()
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()
	id := server.CreateUser(fakeclerk.NewUser{FirstName: "Ada", LastName: "Lovelace"})

	// In a worker, the id comes with the job.
	user, err := syncer.User(context.Background(), id)
	switch {
	case errors.Is(err, clerksync.ErrUserInactive), errors.Is(err, clerksync.ErrUserUnknown):
		return // not for this user
	case err != nil:
		log.Fatal(err) // try again later
	}
	fmt.Println(user.Name, user.Role)
	// Output: Ada Lovelace STUDENT
}

func ExampleSyncer_Sync() {
	server, cfg := exampleClerk()
	defer server.Close()
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()
	ctx, id := context.Background(), server.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})

	for range 2 {
		res, err := syncer.Sync(ctx, id)
		fmt.Println(res.Outcome, err)
	}
	// Output:
	// created <nil>
	// unchanged <nil>
}

// After changing an app-owned field in the database, tell the cache.
func ExampleSyncer_Forget() {
	server, cfg := exampleClerk()
	defer server.Close()
	store := memstore.New()
	cfg.Store = store
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()
	ctx, id := context.Background(), server.CreateUser(fakeclerk.NewUser{})
	user, _ := syncer.User(ctx, id)
	fmt.Println(user.Role)

	// In an app: users.UpdateOne(ctx, bson.D{{"clerkId", id}}, bson.D{{"$set", bson.D{{"role", "ADMIN"}}}})
	_ = store.Edit(id, func(u *clerksync.User) { u.Role = clerksync.RoleAdmin })
	syncer.Forget(id)

	user, _ = syncer.User(ctx, id)
	fmt.Println(user.Role)
	// Output:
	// STUDENT
	// ADMIN
}

func ExampleSyncer_WebhookHandler() {
	server, cfg := exampleClerk()
	defer server.Close()
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()

	webhook, err := syncer.WebhookHandler(clerksync.WebhookConfig{
		Secrets: []string{"whsec_dGhlIHNpZ25pbmcgc2VjcmV0"}, // CLERK_WEBHOOK_SIGNING_SECRET
		OnEvent: func(_ context.Context, e clerksync.Event) error {
			// Runs after the record is written, and again if the event is delivered again. If
			// something must happen once, keep a mark of your own. Created is not a mark: a
			// first visit may create the record before the event.
			fmt.Println(e.Type, e.Result.Outcome)
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	app := httptest.NewServer(webhook)
	defer app.Close()

	server.AddEndpoint(app.URL, fakeclerk.EndpointOptions{Secret: "whsec_dGhlIHNpZ25pbmcgc2VjcmV0"})
	server.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	if err := server.Settle(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output: user.created created
}

// An app that queues webhooks verifies them at the edge and applies them later.
func ExampleNewVerifier() {
	verifier, err := clerksync.NewVerifier(clerksync.WebhookConfig{
		Secrets: []string{"whsec_dGhlIHNpZ25pbmcgc2VjcmV0"}, // CLERK_WEBHOOK_SIGNING_SECRET
	})
	if err != nil {
		log.Fatal(err)
	}
	queue := make(chan []byte, 1) // SQS, Kafka, …
	edge := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			http.Error(w, "unreadable", http.StatusBadRequest)
			return
		}
		event, err := verifier.Verify(r.Header, body)
		if err != nil {
			log.Print(err) // says which check failed
			clerksync.WriteProblem(w, r, err)
			return
		}
		message, _ := json.Marshal(event)
		queue <- message
		w.WriteHeader(http.StatusNoContent) // not before the queue has the event
	})

	server, cfg := exampleClerk()
	defer server.Close()
	app := httptest.NewServer(edge)
	defer app.Close()
	server.AddEndpoint(app.URL, fakeclerk.EndpointOptions{Secret: "whsec_dGhlIHNpZ25pbmcgc2VjcmV0"})
	server.CreateUser(fakeclerk.NewUser{FirstName: "Ada"})
	if err := server.Settle(context.Background()); err != nil {
		log.Fatal(err)
	}

	// The worker:
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()
	close(queue)
	for message := range queue {
		var event clerksync.Event
		if err := json.Unmarshal(message, &event); err != nil {
			log.Fatal(err)
		}
		res, err := syncer.Apply(context.Background(), event)
		fmt.Println(event.Type, res.Outcome, err) // after an error: back into the queue, unless it matches ErrInvalidEvent
	}
	// Output: user.created created <nil>
}

// Events may be applied in any order, and repeatedly.
func ExampleSyncer_Apply() {
	server, cfg := exampleClerk()
	defer server.Close()
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()
	newer := clerksync.Event{
		Type: "user.updated", Timestamp: time.Now(),
		Data: json.RawMessage(`{"id":"user_1","first_name":"Ada","updated_at":1700000002000}`),
	}
	older := clerksync.Event{
		Type: "user.created", Timestamp: time.Now(),
		Data: json.RawMessage(`{"id":"user_1","updated_at":1700000001000}`),
	}

	for _, e := range []clerksync.Event{newer, older, newer} {
		res, err := syncer.Apply(context.Background(), e)
		fmt.Println(res.Outcome, err)
	}
	// Output:
	// created <nil>
	// stale <nil>
	// unchanged <nil>
}

// More fields in the record, and roles from Clerk.
func ExampleConfig_customization() {
	server, cfg := exampleClerk()
	defer server.Close()
	type metadata struct {
		Plan string         `json:"plan"`
		Role clerksync.Role `json:"role"`
	}
	public := func(u *clerk.User) (m metadata) {
		_ = json.Unmarshal(u.PublicMetadata, &m)
		return m
	}
	cfg.DefaultRole = "MEMBER"
	cfg.RoleOf = func(u *clerk.User) clerksync.Role { return public(u).Role }
	cfg.Map = func(from *clerk.User, to *clerksync.User) error {
		to.Extra = map[string]any{"plan": public(from).Plan, "username": from.Username}
		return nil
	}
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()

	for _, m := range []map[string]any{{"plan": "pro"}, {"plan": "free", "role": "ADMIN"}} {
		user, err := syncer.User(context.Background(), server.CreateUser(fakeclerk.NewUser{PublicMetadata: m}))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(user.Role, user.Extra)
	}
	// Output:
	// MEMBER map[plan:pro]
	// ADMIN map[plan:free]
}

// The app's own answer for one case, and the standard answer for the others.
func ExampleWriteProblem() {
	server, cfg := exampleClerk()
	defer server.Close()
	cfg.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		if errors.Is(err, clerksync.ErrUserInactive) {
			http.Error(w, "Your account is closed. Write to help@example.com.", http.StatusForbidden)
			return
		}
		clerksync.WriteProblem(w, r, err)
	}
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()

	w := httptest.NewRecorder()
	syncer.Middleware(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/me", nil))
	fmt.Println(w.Code, w.Header().Get("Content-Type"))
	fmt.Print(w.Body)
	// Output:
	// 401 application/problem+json
	// {"title":"Unauthorized","status":401,"code":"unauthenticated","detail":"This resource needs a signed-in user."}
}

// A handler's unit test does not need Clerk or a Store.
func ExampleContextWithUser() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, ok := clerksync.UserFromContext(r.Context())
		if !ok || user.Role != clerksync.RoleTeacher {
			http.Error(w, "teachers only", http.StatusForbidden)
			return
		}
		fmt.Fprintln(w, "welcome")
	})

	r := httptest.NewRequest(http.MethodGet, "/api/grades", nil)
	ada := &clerksync.User{ClerkID: "user_1", Role: clerksync.RoleTeacher}
	r = r.WithContext(clerksync.ContextWithUser(r.Context(), ada))
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	fmt.Print(w.Code, " ", w.Body)
	// Output: 200 welcome
}

// An app's test has its own Clerk and Store.
func Example_testing() {
	server, err := fakeclerk.Start(fakeclerk.Config{})
	if err != nil {
		log.Fatal(err) // t.Fatal, in a test
	}
	defer server.Close()
	syncer, err := clerksync.New(clerksync.Config{
		Store:     memstore.New(),
		SecretKey: server.SecretKey(),
		APIURL:    server.APIURL(),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()
	webhook, err := syncer.WebhookHandler(clerksync.WebhookConfig{Secrets: []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}})
	if err != nil {
		log.Fatal(err)
	}
	app := httptest.NewServer(webhook)
	defer app.Close()

	ctx := context.Background()
	endpoint := server.AddEndpoint(app.URL, fakeclerk.EndpointOptions{Secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"})
	endpoint.SetOutage(true) // user.created meets an app that is down
	id := server.CreateUser(fakeclerk.NewUser{FirstName: "Ada", Email: "ada@example.com"})
	_ = server.Settle(ctx)

	user, err := syncer.User(ctx, id) // what RequireUser does for server.SessionToken(id)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(user.Email, "after", server.Calls("GET /v1/users/{id}"), "call of Clerk's API")
	// Output: ada@example.com after 1 call of Clerk's API
}

// Metrics without a dependency.
func ExampleObservation() {
	server, cfg := exampleClerk()
	defer server.Close()
	cfg.Observe = func(_ context.Context, o clerksync.Observation) {
		fmt.Println(o.Op, o.Source, o.Err)
	}
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()
	id := server.CreateUser(fakeclerk.NewUser{})
	for range 2 {
		_, _ = syncer.User(context.Background(), id)
	}
	// Output:
	// visit clerk <nil>
	// visit cache <nil>
}

// Spans without a dependency. For OpenTelemetry there is package otelsync.
func ExampleConfig_spans() {
	server, cfg := exampleClerk()
	defer server.Close()
	type key struct{}
	cfg.Start = func(ctx context.Context, op clerksync.Op, _ string) (context.Context, func(clerksync.Observation)) {
		path := string(op)
		if outer, ok := ctx.Value(key{}).(string); ok {
			path = outer + "/" + path
		}
		return context.WithValue(ctx, key{}, path), func(o clerksync.Observation) {
			fmt.Println(path, o.Call, o.Err)
		}
	}
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()
	id := server.CreateUser(fakeclerk.NewUser{})
	for range 2 { // the second visit is answered by the cache
		_, _ = syncer.User(context.Background(), id)
	}
	// Output:
	// visit/clerk get user <nil>
	// visit  <nil>
}

// The first backfill, if the app had users before it used clerksync.
func ExampleSyncer_Reconcile() {
	server, cfg := exampleClerk()
	defer server.Close()
	for i := range 3 {
		server.CreateUser(fakeclerk.NewUser{Email: fmt.Sprintf("user%d@example.com", i)})
	}
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()

	ctx := context.Background()
	report, err := syncer.Reconcile(ctx, clerksync.ReconcileOptions{})
	if err != nil {
		log.Fatal(err) // report.Resume continues the run
	}
	fmt.Println(report.Created.Count, "created, complete:", report.Complete)

	report, err = syncer.Reconcile(ctx, clerksync.ReconcileOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Unchanged, "unchanged, in step:", report.InStep())
	// Output:
	// 3 created, complete: true
	// 3 unchanged, in step: true
}

// A nightly check by the app, which has its own Map and RoleOf.
func ExampleSyncer_Reconcile_drift() {
	server, cfg := exampleClerk()
	defer server.Close()
	server.CreateUser(fakeclerk.NewUser{ID: "user_lost", Email: "ada@example.com"}) // the webhook was lost
	syncer, err := clerksync.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer syncer.Close()

	ctx := context.Background()
	report, err := syncer.Reconcile(ctx, clerksync.ReconcileOptions{DryRun: true, Force: true})
	switch {
	case errors.Is(err, clerksync.ErrTooManyGhosts):
		log.Fatal("look into this before anything is marked deleted: ", err)
	case err != nil:
		log.Fatal(err)
	case !report.InStep():
		fmt.Println("drift: missing", report.Created.IDs, "different", report.Fields, "gone", report.Ghosts.IDs)
	}
	// Output: drift: missing [user_lost] different map[] gone []
}
