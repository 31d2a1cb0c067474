package clerksync_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	clerkhttp "github.com/clerk/clerk-sdk-go/v2/http"
	"github.com/clerk/clerk-sdk-go/v2/jwks"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// signIn is what the benchmarks of authentication share: a Clerk, and a user with a record, in real
// time.
type signIn struct {
	clerk       *fakeclerk.Server
	store       *memstore.Store
	client      *http.Client
	id          string
	sdk, sdkPEM http.Handler // with keys from the JWKS, and with the JSONWebKey option
}

func newSignIn(tb testing.TB) *signIn {
	tb.Helper()
	server, err := fakeclerk.Start(fakeclerk.Config{RateLimit: -1})
	if err != nil {
		tb.Fatal(err)
	}
	b := &signIn{clerk: server, store: memstore.New(), client: &http.Client{Transport: &http.Transport{}}}
	tb.Cleanup(func() {
		b.client.CloseIdleConnections()
		_ = server.Close()
	})
	b.id = server.CreateUser(fakeclerk.NewUser{Email: "ada@example.com", FirstName: "Ada"})
	url, key := server.APIURL(), server.SecretKey()
	keys := jwks.NewClient(&clerk.ClientConfig{BackendConfig: clerk.BackendConfig{
		URL: &url, Key: &key, HTTPClient: b.client,
	}})
	b.sdk = clerkhttp.RequireHeaderAuthorization(clerkhttp.JWKSClient(keys))(appHandler)
	b.sdkPEM = clerkhttp.RequireHeaderAuthorization(clerkhttp.JSONWebKey(server.JWTKey()))(appHandler)
	return b
}

// syncer returns a Syncer that has cached the keys and the record, but not the tokens.
func (b *signIn) syncer(tb testing.TB, changes ...func(*clerksync.Config)) *clerksync.Syncer {
	tb.Helper()
	cfg := clerksync.Config{
		Store: b.store, SecretKey: b.clerk.SecretKey(), APIURL: b.clerk.APIURL(), HTTPClient: b.client,
		CacheTTL: time.Hour, Logger: slog.New(slog.DiscardHandler),
	}
	for _, change := range changes {
		change(&cfg)
	}
	s, err := clerksync.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	visit(tb, s, b.id)
	if claims, code := verdict(s, b.request(b.token(tb, "sess_warm"))); claims == nil {
		tb.Fatal(code)
	}
	return s
}

// token returns a token with an organization and a custom claim, valid for an hour.
func (b *signIn) token(tb testing.TB, session string) string {
	tb.Helper()
	token, err := b.clerk.Token(b.id, fakeclerk.TokenOptions{
		SessionID: session, AuthorizedParty: appOrigin, ExpiresAt: time.Now().Add(time.Hour),
		Organization: &fakeclerk.Organization{ID: "org_2abcdefghijklmnopqrstuvwxyz", Slug: "acme", Role: "org:admin",
			Permissions: []string{"org:posts:read", "org:posts:write"}},
		Claims: map[string]any{"updated_at": time.Now().UnixMilli() - 1e6},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

func (b *signIn) request(token string) *http.Request { return bearing("Bearer " + token) }

// requests returns n requests, each with its own token.
func (b *signIn) requests(tb testing.TB, n int) []*http.Request {
	tb.Helper()
	rs := make([]*http.Request, n)
	for i := range rs {
		rs[i] = b.request(b.token(tb, fmt.Sprintf("sess_%027d", i)))
	}
	return rs
}

// pass sends the requests through h, which must let all of them through, and returns how long that
// took.
func pass(tb testing.TB, h http.Handler, rs ...*http.Request) time.Duration {
	start := time.Now()
	for _, r := range rs {
		h.ServeHTTP(noAnswer{tb}, r)
	}
	return time.Since(start)
}

// noAnswer is a ResponseWriter that must not be written to. appHandler does not write.
type noAnswer struct{ testing.TB }

func (noAnswer) Header() http.Header { return http.Header{} }

func (w noAnswer) WriteHeader(code int) { w.Fatalf("refused: %d", code) }

func (noAnswer) Write(p []byte) (n int, err error) { return len(p), nil }

func repeated(r *http.Request, n int) []*http.Request {
	rs := make([]*http.Request, n)
	for i := range rs {
		rs[i] = r
	}
	return rs
}

func allocations(tb testing.TB, h http.Handler, rs ...*http.Request) float64 {
	i := 0
	return testing.AllocsPerRun(len(rs)-1, func() { pass(tb, h, rs[i]); i++ })
}

// BenchmarkRequireUserCached times a cached token of a user whose record is cached, and the SDK's
// middleware alone, which syncs nothing, by turns. The SDK's is timed with keys from the JWKS and
// with the JSONWebKey option.
func BenchmarkRequireUserCached(b *testing.B) {
	env := newSignIn(b)
	h := env.syncer(b).RequireUser(appHandler)
	r := env.request(env.token(b, "sess_1"))
	few, many := repeated(r, 20), repeated(r, 2000)
	pass(b, h, r)
	pass(b, env.sdk, r)
	var ours, theirs, theirsPEM time.Duration
	turns := 0
	for b.Loop() {
		theirs += pass(b, env.sdk, few...)
		ours += pass(b, h, many...)
		theirsPEM += pass(b, env.sdkPEM, few...)
		turns++
	}
	perOurs := float64(ours.Nanoseconds()) / float64(turns*len(many))
	perSDK := float64(theirs.Nanoseconds()) / float64(turns*len(few))
	perPEM := float64(theirsPEM.Nanoseconds()) / float64(turns*len(few))
	b.ReportMetric(perSDK/perOurs, "x-sdk")
	b.ReportMetric(perPEM/perOurs, "x-sdk-pem")
	b.ReportMetric(perOurs, "ns/request")
	b.ReportMetric(perSDK, "ns/sdk")
	b.ReportMetric(perPEM, "ns/sdk-pem")
	b.ReportMetric(allocations(b, h, many...), "allocs/request")
	b.ReportMetric(allocations(b, env.sdk, many...), "allocs/sdk")
	b.ReportMetric(allocations(b, env.sdkPEM, many...), "allocs/sdk-pem")
	b.ReportMetric(0, "ns/op") // an op is 2040 requests
}

// BenchmarkRequireUserNewToken does the same with a new token each time. It also times the check of
// the signature alone, which is the least that a new token can cost.
func BenchmarkRequireUserNewToken(b *testing.B) {
	env := newSignIn(b)
	rs := env.requests(b, 1000)
	const turn = 50
	h := env.syncer(b).RequireUser(appHandler)
	pass(b, env.sdk, rs[0])
	bare := newSignatures(b, env.clerk.JWTKey(), rs)
	var ours, theirs, floor time.Duration
	n := 0
	for b.Loop() {
		at := n % len(rs)
		if at == 0 {
			h = env.syncer(b).RequireUser(appHandler) // which has not cached any of them
		}
		some := rs[at : at+turn]
		theirs += pass(b, env.sdk, some...)
		ours += pass(b, h, some...)
		floor += bare.verify(b, at, at+turn)
		n += turn
	}
	b.ReportMetric(float64(ours)/float64(floor), "x-rsa")
	b.ReportMetric(float64(theirs)/float64(ours), "x-sdk")
	b.ReportMetric(float64(ours.Nanoseconds())/float64(n), "ns/request")
	b.ReportMetric(float64(theirs.Nanoseconds())/float64(n), "ns/sdk")
	b.ReportMetric(float64(floor.Nanoseconds())/float64(n), "ns/rsa")
	b.ReportMetric(allocations(b, env.syncer(b).RequireUser(appHandler), rs...), "allocs/request")
	b.ReportMetric(allocations(b, env.sdk, rs...), "allocs/sdk")
	b.ReportMetric(0, "ns/op") // an op is 150 requests
}

// signatures are those of requests' tokens, decoded.
type signatures struct {
	key     *rsa.PublicKey
	digests [][sha256.Size]byte
	decoded [][]byte
}

func newSignatures(tb testing.TB, key string, rs []*http.Request) *signatures {
	tb.Helper()
	jwk, err := clerk.JSONWebKeyFromPEM(key)
	if err != nil {
		tb.Fatal(err)
	}
	s := &signatures{key: jwk.Key.(*rsa.PublicKey)}
	for _, r := range rs {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		dot := strings.LastIndexByte(token, '.')
		signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
		if err != nil {
			tb.Fatal(err)
		}
		s.digests = append(s.digests, sha256.Sum256([]byte(token[:dot])))
		s.decoded = append(s.decoded, signature)
	}
	return s
}

// verify returns how long it took to check the signatures of a range.
func (s *signatures) verify(tb testing.TB, from, to int) time.Duration {
	start := time.Now()
	for i := from; i < to; i++ {
		if err := rsa.VerifyPKCS1v15(s.key, crypto.SHA256, s.digests[i][:], s.decoded[i]); err != nil {
			tb.Fatal(err)
		}
	}
	return time.Since(start)
}

// The README promises these limits.
func TestRequireUserAllocations(t *testing.T) {
	env := newSignIn(t)
	rs := env.requests(t, 101)
	ours, theirs := allocations(t, env.syncer(t).RequireUser(appHandler), rs...), allocations(t, env.sdk, rs...)
	t.Logf("a new token: %v allocations, %v in the SDK's middleware", ours, theirs)
	if ours > theirs/2 || ours > 110 {
		t.Errorf("a new token costs %v allocations, more than 110, or than half of the %v in the SDK's middleware", ours, theirs)
	}
	h := env.syncer(t).RequireUser(appHandler)
	pass(t, h, rs[0])
	ours = allocations(t, h, repeated(rs[0], 101)...)
	t.Logf("a cached token: %v allocations", ours)
	if ours > 6 {
		t.Errorf("a cached token costs %v allocations, want at most 6", ours)
	}
}

// BenchmarkAuthServer calls a real server over 16 connections, with cached tokens. All times
// include the client's part.
func BenchmarkAuthServer(b *testing.B) {
	env := newSignIn(b)
	rs := env.requests(b, 16)
	answers := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	url, key := env.clerk.APIURL(), env.clerk.SecretKey()
	keys := jwks.NewClient(&clerk.ClientConfig{BackendConfig: clerk.BackendConfig{
		URL: &url, Key: &key, HTTPClient: env.client,
	}})
	sdk := dialAll(b, clerkhttp.RequireHeaderAuthorization(clerkhttp.JWKSClient(keys))(answers), rs)
	own := dialAll(b, env.syncer(b).RequireUser(answers), rs)
	floor := dialAll(b, answers, rs)
	const turn = 100
	var ours, theirs, bare time.Duration
	n := 0
	for b.Loop() {
		theirs += sdk.ask(b, turn)
		ours += own.ask(b, turn)
		bare += floor.ask(b, turn)
		n += turn * len(rs)
	}
	b.ReportMetric(float64(theirs)/float64(ours), "x-sdk")
	b.ReportMetric(float64(n)/ours.Seconds(), "requests/s")
	b.ReportMetric(float64(n)/theirs.Seconds(), "requests/s-sdk")
	b.ReportMetric(float64(n)/bare.Seconds(), "requests/s-no-auth")
	b.ReportMetric(0, "ns/op")
}

// connections are connections to one server, each with its request.
type connections []*connection

type connection struct {
	net.Conn
	request []byte
	answers *bufio.Reader
	answer  []byte // all have the same length
}

func dialAll(b *testing.B, h http.Handler, rs []*http.Request) connections {
	server := httptest.NewServer(h)
	b.Cleanup(server.Close)
	all := make(connections, len(rs))
	for i, r := range rs {
		conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		request := fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: app\r\nAuthorization: %s\r\n\r\n",
			r.Header.Get("Authorization"))
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		var head bytes.Buffer
		resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(conn, &head)), r)
		if err != nil || resp.StatusCode != 200 {
			b.Fatalf("%v, %v", resp, err)
		}
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "hello" {
			b.Fatalf("%q, %v", body, err)
		}
		all[i] = &connection{conn, request, bufio.NewReader(conn), make([]byte, head.Len())}
	}
	return all
}

// ask sends n requests over each connection and returns how long they took together.
func (c connections) ask(b *testing.B, n int) time.Duration {
	start := time.Now()
	var all sync.WaitGroup
	for _, conn := range c {
		all.Go(func() {
			for range n {
				if _, err := conn.Write(conn.request); err != nil {
					b.Error(err)
					return
				}
				if _, err := io.ReadFull(conn.answers, conn.answer); err != nil ||
					!bytes.HasPrefix(conn.answer, []byte("HTTP/1.1 200 ")) ||
					!bytes.HasSuffix(conn.answer, []byte("hello")) {
					b.Errorf("%s, %v", conn.answer, err)
					return
				}
			}
		})
	}
	all.Wait()
	return time.Since(start)
}

// BenchmarkCachedTokens looks up 1000 cached tokens from one, two and many goroutines, by turns.
func BenchmarkCachedTokens(b *testing.B) {
	env := newSignIn(b)
	s := env.syncer(b)
	rs := env.requests(b, 1000)
	look := func(r *http.Request) {
		if _, err := s.Authenticate(r); err != nil {
			b.Error(err)
		}
	}
	for _, r := range rs {
		look(r)
	}
	const turn = 64_000
	goroutines := []int{1, 2, 64}
	took := make([]time.Duration, len(goroutines))
	n := 0
	for b.Loop() {
		for i, g := range goroutines {
			start := time.Now()
			var all sync.WaitGroup
			for from := range g {
				all.Go(func() {
					for j := range turn / g {
						look(rs[(from*97+j)%len(rs)])
					}
				})
			}
			all.Wait()
			took[i] += time.Since(start)
		}
		n += turn
	}
	for i, g := range goroutines {
		b.ReportMetric(float64(took[i].Nanoseconds())/float64(n), fmt.Sprintf("ns/lookup-%d", g))
	}
	b.ReportMetric(float64(took[0])/float64(took[1]), "x-2-goroutines")
	b.ReportMetric(float64(took[0])/float64(took[2]), "x-64-goroutines")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkTokenCacheMemory reports what a full cache of 100,000 tokens takes, each with its own
// user and session. Signing them takes a minute.
func BenchmarkTokenCacheMemory(b *testing.B) {
	const tokens = 100_000
	for b.Loop() {
		env := newSignIn(b)
		s := env.syncer(b)
		before := heap()
		size := 0
		var all sync.WaitGroup
		var mu sync.Mutex
		for g := range runtime.GOMAXPROCS(0) {
			all.Go(func() {
				for i := g; i < tokens; i += runtime.GOMAXPROCS(0) {
					token, err := env.clerk.Token(fmt.Sprintf("user_%027d", i), fakeclerk.TokenOptions{
						SessionID: fmt.Sprintf("sess_%027d", i), AuthorizedParty: appOrigin,
						ExpiresAt: time.Now().Add(time.Hour),
						Organization: &fakeclerk.Organization{ID: fmt.Sprintf("org_%027d", i), Slug: "acme",
							Role: "org:admin", Permissions: []string{"org:posts:read", "org:posts:write"}},
						Claims: map[string]any{"updated_at": time.Now().UnixMilli()},
					})
					if err != nil {
						b.Error(err)
						return
					}
					if _, code := verdict(s, env.request(token)); code != "" {
						b.Error(code)
						return
					}
					mu.Lock()
					size += len(token)
					mu.Unlock()
				}
			})
		}
		all.Wait()
		b.ReportMetric(float64(heap()-before)/1e6, "MB/100k-tokens")
		b.ReportMetric(float64(size)/1e6, "MB/tokens-themselves")
		runtime.KeepAlive(s)
	}
}

// cachedVisit returns a request of a signed-in user whose record is cached, the middleware, and the
// floor: the cheapest middleware that passes a value to its handler.
func cachedVisit(tb testing.TB) (r *http.Request, middleware, floor http.Handler) {
	tb.Helper()
	store := memstore.New()
	now := time.Now()
	if _, err := store.Upsert(tb.Context(), &clerksync.User{ClerkID: "user_2abcdefghijklmnopqrstuvwxyz",
		ClerkUpdatedAt: now, SyncedAt: now}); err != nil {
		tb.Fatal(err)
	}
	s := newTestSyncer(tb, func(c *clerksync.Config) { c.Store, c.Now, c.CacheTTL = store, time.Now, time.Hour })
	u := visit(tb, s, "user_2abcdefghijklmnopqrstuvwxyz")

	type key struct{}
	floor = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		appHandler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, u)))
	})
	r = httptest.NewRequest(http.MethodGet, "/api/me", nil)
	claims := &clerk.SessionClaims{RegisteredClaims: clerk.RegisteredClaims{Subject: u.ClerkID}}
	return r.WithContext(clerk.ContextWithSessionClaims(r.Context(), claims)), s.Middleware(appHandler), floor
}

// BenchmarkCachedMiddleware times the middleware and its floor by turns, and reports the ratio.
func BenchmarkCachedMiddleware(b *testing.B) {
	r, middleware, floor := cachedVisit(b)
	const turn = 50_000 // long enough to include its own garbage collection
	var ours, theirs time.Duration
	n := 0
	for b.Loop() {
		start := time.Now()
		for range turn {
			floor.ServeHTTP(nil, r)
		}
		half := time.Now()
		for range turn {
			middleware.ServeHTTP(nil, r)
		}
		theirs += half.Sub(start)
		ours += time.Since(half)
		n += turn
	}
	b.ReportMetric(float64(ours)/float64(theirs), "x-floor")
	b.ReportMetric(float64(ours.Nanoseconds())/float64(n), "ns/visit")
	b.ReportMetric(float64(theirs.Nanoseconds())/float64(n), "ns/floor")
	b.ReportMetric(0, "ns/op") // an op is 100,000 requests
}

func BenchmarkCachedMiddlewareParallel(b *testing.B) {
	r, middleware, _ := cachedVisit(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			middleware.ServeHTTP(nil, r)
		}
	})
}

// A cached visit allocates nothing but the context and the request's copy.
func TestCachedVisitAllocations(t *testing.T) {
	r, middleware, floor := cachedVisit(t)
	ours := testing.AllocsPerRun(1000, func() { middleware.ServeHTTP(nil, r) })
	least := testing.AllocsPerRun(1000, func() { floor.ServeHTTP(nil, r) })
	if ours > least {
		t.Errorf("%v allocations, and the floor is %v", ours, least)
	}
}

// BenchmarkCacheMemory reports what a full cache of 100,000 users takes.
func BenchmarkCacheMemory(b *testing.B) {
	const users = 100_000
	for b.Loop() {
		store := &generatedUsers{}
		s := newTestSyncer(b, func(c *clerksync.Config) { c.Store = store })
		before := heap()
		for i := range users {
			visit(b, s, fmt.Sprintf("user_%027d", i))
		}
		b.ReportMetric(float64(heap()-before)/1e6, "MB/100k-users")
		if again := store.reads; again < users {
			b.Fatalf("%d reads", again)
		}
		runtime.KeepAlive(s)
	}
}

// BenchmarkCachedRecord times cached visits by turns, with a handler that takes its Record and
// with one that does nothing, and reports the ratio.
func BenchmarkCachedRecord(b *testing.B) {
	app := newRecording(b, func(c *clerksync.Config) { c.Now, c.CacheTTL = time.Now, time.Hour })
	visit(b, app.Syncer, app.ada)
	found := false
	taking := app.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, found = clerksync.RecordFromContext[member](r.Context())
	}))
	idle := app.Middleware(appHandler)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	claims := &clerk.SessionClaims{RegisteredClaims: clerk.RegisteredClaims{Subject: app.ada}}
	r = r.WithContext(clerk.ContextWithSessionClaims(r.Context(), claims))

	const turn = 50_000 // long enough to include its own garbage collection
	var with, without time.Duration
	n := 0
	for b.Loop() {
		start := time.Now()
		for range turn {
			idle.ServeHTTP(nil, r)
		}
		half := time.Now()
		for range turn {
			taking.ServeHTTP(nil, r)
		}
		without += half.Sub(start)
		with += time.Since(half)
		n += turn
	}
	if !found {
		b.Fatal("the handler got no Record")
	}
	b.ReportMetric(float64(with)/float64(without), "x-idle")
	b.ReportMetric(float64(with.Nanoseconds())/float64(n), "ns/visit")
	b.ReportMetric(float64(without.Nanoseconds())/float64(n), "ns/idle")
	b.ReportMetric(0, "ns/op") // an op is 100,000 requests
}

// BenchmarkReconcileUnchanged runs over users who are all in step. Clerk's pages and the stamps are
// in memory already, so this is the CPU time of the comparison. small is fakeclerk's user, large
// one with every field that Clerk has.
func BenchmarkReconcileUnchanged(b *testing.B) {
	const users, pageSize = 50_000, 500
	for _, size := range []string{"small", "large"} {
		clerk := newPagesInMemory(b, users, pageSize, size == "large")
		b.Run(size, func(b *testing.B) {
			s := newTestSyncer(b, func(c *clerksync.Config) {
				c.Store, c.HTTPClient, c.Now = clerk, &http.Client{Transport: clerk}, time.Now
			})
			var cpu time.Duration
			for b.Loop() {
				before := cpuTime(b)
				report, err := s.Reconcile(b.Context(), clerksync.ReconcileOptions{RequestsPerSecond: 1e9})
				cpu += cpuTime(b) - before
				if err != nil || report.Unchanged != users {
					b.Fatalf("%+v, %v", report, err)
				}
			}
			total := float64(users) * float64(b.N)
			b.ReportMetric(total/cpu.Seconds(), "users/cpu-s")
			b.ReportMetric(float64(clerk.bytes)/users, "B/user")
		})
	}
}

// pagesInMemory is a Clerk without a network, and a Store in step with it.
type pagesInMemory struct {
	clerksync.Store
	pages  map[string][]byte // by starting_after
	stamps map[string]clerksync.Stamp
	ids    []string // ascending
	bytes  int
}

func newPagesInMemory(b *testing.B, users, pageSize int, large bool) *pagesInMemory {
	server, err := fakeclerk.Start(fakeclerk.Config{Clock: fakeclerk.NewClock(t0), Seed: 1, Population: users})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	p := &pagesInMemory{Store: memstore.New(), pages: make(map[string][]byte),
		stamps: make(map[string]clerksync.Stamp)}
	more := ""
	if large {
		more = `,"external_accounts":[` +
			strings.Repeat(`{"object":"external_account","id":"idn_1","provider":"oauth_google",`+
				`"email_address":"a@example.com","approved_scopes":"email profile",`+
				`"verification":{"status":"verified"},"public_metadata":{}},`, 5) +
			`{}],"private_metadata":{"notes":"` + strings.Repeat(`a \"b\" `, 100) + `"}}`
	}
	var page bytes.Buffer
	after := ""
	for i := range users {
		id := server.PopulationID(i)
		raw, _ := server.User(id)
		var u struct {
			Updated int64 `json:"updated_at"`
		}
		if err := json.Unmarshal(raw, &u); err != nil {
			b.Fatal(err)
		}
		p.ids = append(p.ids, id)
		p.stamps[id] = clerksync.Stamp{ClerkID: id, ClerkUpdatedAt: time.UnixMilli(u.Updated), IsActive: true}
		if page.Len() > 0 {
			page.WriteByte(',')
		}
		if large {
			raw = append(raw[:len(raw)-1], more...)
		}
		page.Write(raw)
		p.bytes += len(raw)
		if (i+1)%pageSize == 0 {
			p.pages[after] = []byte("[" + page.String() + "]")
			page.Reset()
			after = id
		}
	}
	p.pages[after] = []byte("[]")
	return p
}

func (p *pagesInMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	q := r.URL.Query()
	body := p.pages[q.Get("starting_after")]
	switch {
	case strings.HasSuffix(r.URL.Path, "/count"):
		body = []byte(`{"object":"total_count","total_count":` + strconv.Itoa(len(p.stamps)) + `}`)
	case q.Has("user_id"):
		body = []byte(`[{"id":"user_1"}]`)
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{}, ContentLength: int64(len(body)),
		Body: io.NopCloser(bytes.NewReader(body)), Request: r,
	}, nil
}

func (p *pagesInMemory) UpsertBatch(context.Context, []*clerksync.User) ([]clerksync.Result, error) {
	return nil, fmt.Errorf("nothing is to be written")
}

func (p *pagesInMemory) Users(context.Context, []string) (map[string]*clerksync.User, error) {
	return nil, fmt.Errorf("no record is to be read")
}

func (p *pagesInMemory) Stamps(_ context.Context, ids []string) (map[string]clerksync.Stamp, error) {
	found := make(map[string]clerksync.Stamp, len(ids))
	for _, id := range ids {
		found[id] = p.stamps[id]
	}
	return found, nil
}

func (p *pagesInMemory) Undeleted(context.Context) iter.Seq2[clerksync.Stamp, error] {
	return func(yield func(clerksync.Stamp, error) bool) {
		for _, id := range p.ids {
			if !yield(p.stamps[id], nil) {
				return
			}
		}
	}
}
