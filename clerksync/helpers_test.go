package clerksync_test

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/clerk/clerk-sdk-go/v2"
	clerkhttp "github.com/clerk/clerk-sdk-go/v2/http"
	"github.com/clerk/clerk-sdk-go/v2/jwks"
	svix "github.com/svix/svix-webhooks/go"
	"go.uber.org/goleak"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// t0 is when the clock of every fixture begins.
var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// documentedUser is the user in the example of Clerk's webhook documentation.
const documentedUser = `{
	"birthday": "", "created_at": 1654012591514,
	"email_addresses": [{"email_address": "example@example.org", "id": "idn_29w83yL7CwVlJXylYLxcslromF1",
		"linked_to": [], "object": "email_address",
		"verification": {"status": "verified", "strategy": "ticket"}}],
	"external_accounts": [], "external_id": "567772", "first_name": "Example", "gender": "",
	"id": "user_29w83sxmDNGwOuEthce5gg56FcC", "image_url": "https://img.clerk.com/xxxxxx", "last_name": "Example",
	"last_sign_in_at": 1654012591514, "object": "user",
	"password_enabled": true, "phone_numbers": [], "primary_email_address_id": "idn_29w83yL7CwVlJXylYLxcslromF1",
	"primary_phone_number_id": null, "primary_web3_wallet_id": null, "private_metadata": {},
	"profile_image_url": "https://www.gravatar.com/avatar?d=mp", "public_metadata": {}, "two_factor_enabled": false,
	"unsafe_metadata": {}, "updated_at": 1654012591835, "username": null, "web3_wallets": []}`

// fixture is an app with a fake Clerk, a Store in memory and a fake clock.
type fixture struct {
	clock *fakeclerk.Clock
	clerk *fakeclerk.Server
	store *countingStore
	*clerksync.Syncer
	logs *logBuffer
	seen observations
}

// sharedInstance is the default Clerk instance of a fixture. The fixtures share its signing key,
// which takes long to make.
const sharedInstance = "ins_shared"

func newFixture(t testing.TB, change func(*clerksync.Config)) *fixture {
	t.Helper()
	return startFixture(t, fakeclerk.Config{RateLimit: -1}, change)
}

func startFixture(t testing.TB, instance fakeclerk.Config, change func(*clerksync.Config)) *fixture {
	t.Helper()
	fx := &fixture{clock: fakeclerk.NewClock(t0), logs: &logBuffer{}}
	instance.Clock = fx.clock
	instance.InstanceID = cmp.Or(instance.InstanceID, sharedInstance)
	var err error
	if fx.clerk, err = fakeclerk.Start(instance); err != nil {
		t.Fatal(err)
	}
	fx.store = &countingStore{faultyStore: faultyStore{Store: memstore.New()}}
	fx.store.Now = fx.clock.Now
	t.Cleanup(func() { _ = fx.clerk.Close() })
	fx.Syncer = fx.syncer(t, change)
	return fx
}

// syncer returns another Syncer on the same Store and Clerk, as another process would have.
func (fx *fixture) syncer(t testing.TB, change func(*clerksync.Config)) *clerksync.Syncer {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	cfg := clerksync.Config{
		Store: fx.store, SecretKey: fx.clerk.SecretKey(), APIURL: fx.clerk.APIURL(), HTTPClient: client,
		Now: fx.clock.Now, Logger: fx.logs.logger(), Observe: fx.seen.add,
	}
	clerksync.SetClock(&cfg, eagerClock{fx.clock})
	if change != nil {
		change(&cfg)
	}
	s, err := clerksync.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Close()
		client.CloseIdleConnections()
	})
	return s
}

// newTestSyncer returns a Syncer on a Store in memory, at t0. Its timers are a fake clock's, so no
// timeout depends on the machine.
func newTestSyncer(t testing.TB, change func(*clerksync.Config)) *clerksync.Syncer {
	t.Helper()
	cfg := clerksync.Config{Store: memstore.New(), SecretKey: "sk_test_secret"}
	clerksync.SetClock(&cfg, eagerClock{fakeclerk.NewClock(t0)})
	if change != nil {
		change(&cfg)
	}
	if cfg.Now != nil {
		clerksync.SetClock(&cfg, nil) // a benchmark in real time
	}
	s, err := clerksync.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// eagerClock ends each Sleep at once, by moving the clock on. Timeouts fire when a Sleep or a test
// moves it far enough.
type eagerClock struct{ *fakeclerk.Clock }

func (c eagerClock) Sleep(ctx context.Context, d time.Duration) error {
	c.Advance(d)
	return context.Cause(ctx)
}

// observations collects what Observe gets.
type observations struct {
	mu  sync.Mutex
	all []clerksync.Observation
}

func (o *observations) add(_ context.Context, one clerksync.Observation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, one)
}

func (o *observations) last() clerksync.Observation {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all[len(o.all)-1]
}

// logBuffer collects the log at level Debug.
type logBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func (b *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

var errDown = errors.New("connection refused: mongodb://admin:hunter2@db.internal")

// faultyStore fails with err while it is set.
type faultyStore struct {
	*memstore.Store
	mu  sync.Mutex
	err error
}

func (s *faultyStore) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *faultyStore) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *faultyStore) User(ctx context.Context, id string) (*clerksync.User, error) {
	if err := s.failure(); err != nil {
		return nil, err
	}
	return s.Store.User(ctx, id)
}

func (s *faultyStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	if err := s.failure(); err != nil {
		return clerksync.Result{}, err
	}
	return s.Store.Upsert(ctx, u)
}

func (s *faultyStore) Deactivate(ctx context.Context, id string, at time.Time) (clerksync.Result, error) {
	if err := s.failure(); err != nil {
		return clerksync.Result{}, err
	}
	return s.Store.Deactivate(ctx, id, at)
}

func (s *faultyStore) DeactivateOwing(
	ctx context.Context, id, external string, at, due time.Time,
) (clerksync.Result, clerksync.Owing, error) {
	if err := s.failure(); err != nil {
		return clerksync.Result{}, 0, err
	}
	return s.Store.DeactivateOwing(ctx, id, external, at, due)
}

func (s *faultyStore) ChangeJob(ctx context.Context, c clerksync.JobChange) (bool, error) {
	if err := s.failure(); err != nil {
		return false, err
	}
	return s.Store.ChangeJob(ctx, c)
}

func (s *faultyStore) DueJobs(ctx context.Context, kind clerksync.JobKind, by time.Time, limit int) ([]clerksync.JobEntry, error) {
	if err := s.failure(); err != nil {
		return nil, err
	}
	return s.Store.DueJobs(ctx, kind, by, limit)
}

// countingStore counts the calls that visits make.
type countingStore struct {
	faultyStore
	users, upserts atomic.Int32
	before         func() // runs in User before the read
}

func (s *countingStore) User(ctx context.Context, id string) (*clerksync.User, error) {
	s.users.Add(1)
	if s.before != nil {
		s.before()
	}
	return s.faultyStore.User(ctx, id)
}

func (s *countingStore) Upsert(ctx context.Context, u *clerksync.User) (clerksync.Result, error) {
	s.upserts.Add(1)
	return s.faultyStore.Upsert(ctx, u)
}

// plainStore hides the optional methods of a Store.
type plainStore struct{ clerksync.Store }

// generatedUsers is a Store that has a record for every id, with fields of ordinary lengths.
type generatedUsers struct {
	clerksync.Store
	reads int
}

func (s *generatedUsers) User(_ context.Context, id string) (*clerksync.User, error) {
	s.reads++
	first, last := fmt.Sprintf("Firstname%d", s.reads), fmt.Sprintf("Lastname%d", s.reads)
	return &clerksync.User{
		ID: fmt.Sprintf("%024x", s.reads), ClerkID: id, Email: fmt.Sprintf("firstname.lastname.%d@mail.example.com",
			s.reads),
		Name: first + " " + last, Role: clerksync.RoleStudent, IsActive: true, EmailVerified: true,
		Profile: clerksync.Profile{
			FirstName: first, LastName: last, FullName: first + " " + last,
			PhoneNumber: fmt.Sprintf("+1555%07d", s.reads),
			ImageURL:    fmt.Sprintf("https://img.clerk.com/%s%d", strings.Repeat("x", 60), s.reads),
		},
		Location: &clerksync.Location{Country: "GB", City: "London", Timezone: "Europe/London"},
		Extra:    map[string]any{"plan": "pro"},
		SyncedAt: t0, ClerkUpdatedAt: t0, CreatedAt: t0, UpdatedAt: t0, LastSignInAt: t0, ClerkCreatedAt: t0,
	}, nil
}

func visit(t testing.TB, s *clerksync.Syncer, id string) *clerksync.User {
	t.Helper()
	u, err := s.User(t.Context(), id)
	if err != nil {
		t.Fatalf("visit of %s: %v", id, err)
	}
	return u
}

func visitFails(t testing.TB, s *clerksync.Syncer, id string, want error) {
	t.Helper()
	if u, err := s.User(t.Context(), id); !errors.Is(err, want) || u != nil {
		t.Fatalf("visit of %s: %+v, %v; want %v", id, u, err, want)
	}
}

// userCalls is the number of calls to Clerk for one user.
func (fx *fixture) userCalls() int { return fx.clerk.Calls("GET /v1/users/{id}") }

// calls describes how often the Store and Clerk were called.
func (fx *fixture) calls() string {
	return fmt.Sprintf("%d reads and %d writes of the Store, %d calls to Clerk, %d for a user",
		fx.store.users.Load(), fx.store.upserts.Load(), fx.clerk.Calls(""), fx.userCalls())
}

// wantOneOfEach checks that Clerk was asked for one user once, and the Store read and written once.
func (fx *fixture) wantOneOfEach(t *testing.T) {
	t.Helper()
	if fx.userCalls() != 1 || fx.store.users.Load() != 1 || fx.store.upserts.Load() != 1 {
		t.Errorf("%s; want one each", fx.calls())
	}
}

// waitForRefreshes waits for the refreshes that run in the background.
func (fx *fixture) waitForRefreshes() { clerksync.WaitBackground(fx.Syncer) }

// version is the user's updated_at in Clerk.
func (fx *fixture) version(t testing.TB, id string) time.Time {
	t.Helper()
	raw, _ := fx.clerk.User(id)
	var u clerk.User
	if err := json.Unmarshal(raw, &u); err != nil {
		t.Fatal(err)
	}
	return time.UnixMilli(u.UpdatedAt)
}

func (fx *fixture) rename(t testing.TB, id, name string) {
	t.Helper()
	if err := fx.clerk.UpdateUser(id, func(u *fakeclerk.UserObject) { u.FirstName = clerk.String(name) }); err != nil {
		t.Fatal(err)
	}
}

func (fx *fixture) stored(t *testing.T, id string) *clerksync.User {
	t.Helper()
	u, err := fx.store.Store.User(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// newerRecord makes the record newer than the user in Clerk, as if Clerk's clock had gone back.
func newerRecord(fx *fixture, id string) {
	_ = fx.store.Edit(id, func(u *clerksync.User) {
		u.ClerkUpdatedAt, u.Name = u.ClerkUpdatedAt.Add(time.Hour), "Newer"
	})
}

// createRecord creates the record, as another process would.
func (fx *fixture) createRecord(t *testing.T, id string) {
	t.Helper()
	raw, _ := fx.clerk.User(id)
	u, err := clerksync.MapUser(fx.Syncer, raw, fx.clock.Now())
	if err == nil {
		_, err = fx.store.Store.Upsert(t.Context(), u)
	}
	if err != nil {
		t.Error(err)
	}
}

// takeEmail makes addresses unique, and gives Ada's to another record.
func (fx *fixture) takeEmail() {
	fx.store.UniqueEmail = true
	_, _ = fx.store.Upsert(context.Background(), &clerksync.User{ClerkID: "user_other", Email: "ada@example.com"})
}

// serve runs h on a real server.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// answer is what a client sees.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func send(t testing.TB, r *http.Request) answer {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, body}
}

// answerOf has h handle r, and returns what the client sees.
func answerOf(h http.Handler, r *http.Request) answer {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{w.Code, w.Result().Header, w.Body.Bytes()}
}

// checkProblem checks that the answer is the problem document for this status and code. A 204 must
// be empty.
func checkProblem(t testing.TB, a answer, status int, code string) {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	if status == http.StatusNoContent {
		if len(a.body) != 0 {
			t.Errorf("204 with a body: %s", a.body)
		}
		return
	}
	var p struct {
		Title, Code, Detail string
		Status              int
	}
	if err := json.Unmarshal(a.body, &p); err != nil || a.header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("not problem+json (%s): %s", a.header.Get("Content-Type"), a.body)
	}
	if p.Code != code || p.Status != status || p.Detail == "" || p.Title != http.StatusText(status) {
		t.Errorf("answer is %+v, want code %q", p, code)
	}
	var challenge string
	switch {
	case status != http.StatusUnauthorized:
	case code == "unauthenticated" || code == "token_missing": // RFC 6750, section 3.1: no error if no token was sent
		challenge = "Bearer"
	default:
		challenge = fmt.Sprintf(`Bearer error="invalid_token", error_description="%s"`, p.Detail)
	}
	if got := a.header.Get("WWW-Authenticate"); got != challenge {
		t.Errorf("WWW-Authenticate is %q on a %d %s, want %q", got, status, code, challenge)
	}
	if got := a.header.Get("Retry-After"); (got != "") != (status == http.StatusServiceUnavailable) {
		t.Errorf("Retry-After is %q on a %d", got, status)
	}
}

// checkText checks that each line of an error's text has the package's prefix once at most, and
// says nothing twice in a row.
func checkText(t testing.TB, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if strings.Count(line, "clerksync: ") > 1 || strings.Count(line, "mongostore: ") > 1 {
			t.Errorf("the text stutters: %s", line)
		}
		parts := strings.Split(line, ": ")
		for i := range parts[1:] {
			if parts[i] == parts[i+1] {
				t.Errorf("the text repeats %q: %s", parts[i], line)
			}
		}
	}
}

// checkFaults checks that err joins exactly these faults, in this order.
func checkFaults(t *testing.T, err error, want []string) {
	t.Helper()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("error is %v, want the faults %q joined", err, want)
	}
	got := joined.Unwrap()
	if len(got) != len(want) {
		t.Fatalf("%d faults, want %d:\n%v", len(got), len(want), err)
	}
	for i, fault := range got {
		checkText(t, fault.Error())
		if !strings.Contains(fault.Error(), want[i]) {
			t.Errorf("fault %d is %q, want it to say %q", i, fault, want[i])
		}
	}
}

// me answers with the record in the context, and counts its requests.
type me struct{ served atomic.Int32 }

func (h *me) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.served.Add(1)
	u, ok := clerksync.UserFromContext(r.Context())
	if !ok {
		http.Error(w, "no user in the context", http.StatusTeapot)
		return
	}
	_ = json.NewEncoder(w).Encode(u)
}

// roundTripper is a transport made of a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// endlessBody never ends. Each Read calls wait first, if it is set, and then returns one byte.
type endlessBody struct {
	read atomic.Int64
	wait func() error
}

func (b *endlessBody) Read(p []byte) (int, error) {
	if b.wait != nil {
		if err := b.wait(); err != nil {
			return 0, err
		}
		p = p[:1]
	}
	for i := range p {
		p[i] = ' '
	}
	b.read.Add(int64(len(p)))
	return len(p), nil
}

func (b *endlessBody) Close() error { return nil }

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

const (
	testSecret  = "whsec_dGVzdC1zZWNyZXQtdGVzdC1zZWNyZXQ="
	otherSecret = "whsec_b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldA=="
)

// signed returns a delivery of body with the id msg_1, signed at this time.
func signed(t testing.TB, url, secret string, at time.Time, body []byte) *http.Request {
	t.Helper()
	wh, err := svix.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := wh.Sign("msg_1", at, body)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	r.RequestURI = ""
	r.Header.Set("svix-id", "msg_1")
	r.Header.Set("svix-timestamp", strconv.FormatInt(at.Unix(), 10))
	r.Header.Set("svix-signature", signature)
	return r
}

// envelope is an event as Clerk sends it, at t0.
func envelope(typ, data string) []byte {
	return fmt.Appendf(nil, `{"object":"event","type":%q,"timestamp":%d,"instance_id":"ins_1","data":%s}`, typ,
		t0.UnixMilli(), data)
}

// userJSON is a minimal user of this version, which is also its first name.
func userJSON(id string, version time.Time) string {
	return fmt.Sprintf(`{"object":"user","id":%q,"first_name":"v%d","updated_at":%d}`, id, version.UnixMilli(),
		version.UnixMilli())
}

// standardHeaders renames Svix's headers to those of the Standard Webhooks specification.
func standardHeaders(r *http.Request) {
	for _, name := range []string{"id", "timestamp", "signature"} {
		r.Header.Set("webhook-"+name, r.Header.Get("svix-"+name))
		r.Header.Del("svix-" + name)
	}
}

const (
	appOrigin   = "https://app.example.com"
	otherOrigin = "https://evil.example.com"
	proxyURL    = "https://app.example.com/__clerk"
)

// signer signs tokens that Clerk would not.
type signer struct {
	key *rsa.PrivateKey
	pem string
}

// testSigner is the signer that JWTKey and the SDK's JSONWebKey name in tests.
var testSigner = sync.OnceValue(func() *signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return &signer{key, publicPEM(&key.PublicKey)}
})

func publicPEM(key any) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

const sessionHeader = `{"alg":"RS256","cat":"cl_B7d4PD111AAA","kid":"ins_1","typ":"JWT"}`

// sign makes a token of exactly this header and these claims.
func (s *signer) sign(header, claims string) string {
	input := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(claims))
	digest := sha256.Sum256([]byte(input))
	signature, err := rsa.SignPKCS1v15(nil, s.key, crypto.SHA256, digest[:])
	if err != nil {
		panic(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// claimsJSON is the JSON of a session that is valid at t0, with more members at its end.
func claimsJSON(subject, more string) string {
	return fmt.Sprintf(`{"iss":"https://clerk.example.com","sub":%q,"sid":"sess_1","iat":%d,"nbf":%d,"exp":%d%s}`,
		subject, t0.Unix(), t0.Unix()-10, t0.Unix()+60, more)
}

// customClaims are claims of an app's own.
type customClaims struct {
	Plan  string `json:"plan"`
	Seats int    `json:"seats"`
}

func newCustomClaims(context.Context) any { return &customClaims{} }

// spareBits sets the unused bits of a base64url text's last character, if it has any.
func spareBits(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	i := strings.IndexByte(alphabet, s[len(s)-1]) // -1 if the text is not base64url
	if i < 0 || len(s)%4 < 2 {
		return s
	}
	return s[:len(s)-1] + string(alphabet[i^1])
}

func (fx *fixture) token(t testing.TB, subject string, opts fakeclerk.TokenOptions) string {
	t.Helper()
	token, err := fx.clerk.Token(subject, opts)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func bearing(authorization string) *http.Request {
	r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil)
	r.Header["Authorization"] = []string{authorization}
	return r
}

// verdict returns the claims that Authenticate accepts, or else the Problem's code.
func verdict(s *clerksync.Syncer, r *http.Request) (*clerk.SessionClaims, string) {
	claims, err := s.Authenticate(r)
	if err == nil {
		return claims, ""
	}
	var p *clerksync.Problem
	if !errors.As(err, &p) || claims != nil {
		return claims, fmt.Sprintf("no Problem, or claims beside it: %v", err)
	}
	return nil, p.Code
}

// authenticate returns the code of the Problem that Authenticate returns for a token, or "" if it
// is accepted.
func authenticate(t testing.TB, s *clerksync.Syncer, token string) string {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	claims, err := s.Authenticate(r)
	if err == nil {
		if claims == nil {
			t.Fatal("neither claims nor an error")
		}
		return ""
	}
	var p *clerksync.Problem
	if claims != nil || !errors.As(err, &p) {
		t.Fatalf("got %+v, %v", claims, err)
	}
	if want := map[int]error{401: clerksync.ErrUnauthenticated,
		503: clerksync.ErrUnavailable}[p.Status]; !errors.Is(err, want) {
		t.Fatalf("%v does not match %v", err, want)
	}
	if strings.Contains(err.Error(), token) {
		t.Fatalf("the error shows the token: %v", err)
	}
	return p.Code
}

func (fx *fixture) wantCode(t testing.TB, token, want string) {
	t.Helper()
	if got := authenticate(t, fx.Syncer, token); got != want {
		t.Errorf("answered %q, want %q", got, want)
	}
}

// visitWith sends a request of the user's, whose token has this updated_at claim, through
// RequireUser. It returns the record that the handler got.
func (fx *fixture) visitWith(t testing.TB, s *clerksync.Syncer, id string, claim any) *clerksync.User {
	t.Helper()
	token, err := fx.clerk.Token(id, fakeclerk.TokenOptions{Claims: map[string]any{"updated_at": claim}})
	if err != nil {
		t.Fatal(err)
	}
	var got *clerksync.User
	h := s.RequireUser(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got, _ = clerksync.UserFromContext(r.Context())
	}))
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if got == nil {
		t.Fatalf("refused: %d %s", rec.Code, rec.Body)
	}
	return got
}

const jwksRoute = "GET /v1/jwks"

var down = func(*http.Request) *fakeclerk.Fault { return &fakeclerk.Fault{Status: 404, Body: "<html>"} }

func (fx *fixture) wantKeyFetches(t testing.TB, want int) {
	t.Helper()
	if got := fx.clerk.Calls(jwksRoute); got != want {
		t.Errorf("%d fetches of the keys, want %d", got, want)
	}
}

// sdkAuth is the SDK's own middleware, with the fixture's Clerk and clock.
func (fx *fixture) sdkAuth(next http.Handler) http.Handler {
	url, key := fx.clerk.APIURL(), fx.clerk.SecretKey()
	keys := jwks.NewClient(&clerk.ClientConfig{BackendConfig: clerk.BackendConfig{
		URL: &url, Key: &key, HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	}})
	return clerkhttp.WithHeaderAuthorization(clerkhttp.JWKSClient(keys), clerkhttp.Clock(fx.clock))(next)
}

// sdkRequire is the SDK's own strict middleware, with the fixture's Clerk and clock.
func (fx *fixture) sdkRequire(next http.Handler, opts ...clerkhttp.AuthorizationOption) http.Handler {
	url, key := fx.clerk.APIURL(), fx.clerk.SecretKey()
	keys := jwks.NewClient(&clerk.ClientConfig{BackendConfig: clerk.BackendConfig{
		URL: &url, Key: &key, HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	}})
	bound := []clerkhttp.AuthorizationOption{clerkhttp.JWKSClient(keys), clerkhttp.Clock(fx.clock)}
	return clerkhttp.RequireHeaderAuthorization(append(bound, opts...)...)(next)
}

func fullUser() *clerksync.User {
	return &clerksync.User{
		ID: "65f000000000000000000001", ClerkID: "user_1", Email: "ada@example.com", Name: "Ada Lovelace",
		Role: clerksync.RoleTeacher,
		Profile: clerksync.Profile{
			FirstName: "Ada", LastName: "Lovelace", FullName: "Ada Lovelace", ImageURL: "https://img.example/1",
			PhoneNumber: "+15555550100", Birthday: "1815-12-10", Gender: "f",
		},
		Location:     &clerksync.Location{Country: "GB", City: "London", State: "England", Timezone: "Europe/London"},
		LastSignInAt: t0, CreatedAt: t0, UpdatedAt: t0,
		EmailVerified: true, PhoneVerified: true, IsActive: true, Banned: true,
		Extra:          map[string]any{"plan": "pro", "tags": []any{"a", map[string]any{"b": int64(1)}}},
		ClerkCreatedAt: t0, ClerkUpdatedAt: t0, SyncedAt: t0, DeletedAt: t0, RoleFromClerk: true, Partial: true,
	}
}

// checkRecord checks what is true of every record, whatever Clerk sent.
func checkRecord(t *testing.T, u *clerksync.User) {
	t.Helper()
	if !userIDForm(u.ClerkID) {
		t.Errorf("id %q", u.ClerkID)
	}
	if u.ClerkUpdatedAt.After(t0.Add(24*time.Hour)) || u.SyncedAt.After(t0) || u.DeletedAt.After(t0) ||
		u.ClerkCreatedAt.After(t0.Add(24*time.Hour)) || u.LastSignInAt.After(t0.Add(24*time.Hour)) {
		t.Errorf("a time of the future: %+v", u)
	}
	for _, text := range []string{u.Email, u.Name, string(u.Role), u.Profile.FirstName, u.Profile.LastName,
		u.Profile.FullName, u.Profile.ImageURL, u.Profile.PhoneNumber, u.Profile.Birthday, u.Profile.Gender} {
		if !utf8.ValidString(text) {
			t.Errorf("%q is not UTF-8", text)
		}
	}
}

// userIDForm reports whether id has the form of a Clerk user id, computed in another way than the
// library's.
func userIDForm(id string) bool {
	rest, ok := strings.CutPrefix(id, "user_")
	return ok && rest != "" && len(rest) <= 64 &&
		strings.Trim(rest, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}

// appHandler is the handler that benchmarks wrap. It is a variable, so that the compiler cannot
// inline it and keep the request's copy off the heap.
var appHandler http.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// cpuTime is the CPU time that this process has used.
func cpuTime(tb testing.TB) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// goroutines counts the goroutines. If there are more than limit, it collects the garbage and
// counts again, because the runtime counts dead ones until then.
func goroutines(limit int) (n int) {
	for range 3 {
		if n = runtime.NumGoroutine(); n <= limit {
			break
		}
		runtime.GC()
	}
	return n
}

// settled waits until at most n goroutines are left.
func settled(t *testing.T, n int) {
	t.Helper()
	waitUntil(t, fmt.Sprintf("at most %d goroutines are left", n), func() bool { return runtime.NumGoroutine() <= n })
}

// waitUntil waits until done, however slow the machine is. It gives up ten seconds before go test's
// timeout.
func waitUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline, limited := t.Deadline()
	for !done() {
		if limited && time.Until(deadline) < 10*time.Second {
			t.Fatalf("still waiting until %s, with %d goroutines", what, runtime.NumGoroutine())
		}
		runtime.Gosched()
	}
}

// The defaults are small, so that the tests are quick. The flags raise them: a value below the
// default counts as the default, and none skips a test. -rapid.checks, a flag of package rapid, may
// also be lowered.
const (
	fewestUsers    = 100_000
	fewestVisitors = 2000
	rapidChecks    = "30"
)

var (
	usersFlag    = flag.Int("users", fewestUsers, "reconcile `n` users in TestReconcileMemory")
	visitorsFlag = flag.Int("visitors", fewestVisitors, "let `n` visitors come at once in the tests of a stampede")
)

func manyUsers() int { return max(fewestUsers, *usersFlag) }

func manyVisitors() int { return max(fewestVisitors, *visitorsFlag) }

func TestMain(m *testing.M) {
	checks := flag.Lookup("rapid.checks") // by default 100
	if err := checks.Value.Set(rapidChecks); err != nil {
		panic(err)
	}
	checks.DefValue = rapidChecks
	goleak.VerifyTestMain(m) // reads the flags
}
