package fakeclerk_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/jwks"
	"github.com/clerk/clerk-sdk-go/v2/jwt"
	"github.com/clerk/clerk-sdk-go/v2/user"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// epoch is when the tests' clocks start. It is a whole second because tokens hold whole seconds.
var epoch = time.Date(2026, time.June, 1, 12, 0, 0, 0, time.UTC)

// testInstance is the instance of the tests that do not care which one they use. They share its signing
// key, because a key takes about a tenth of a second to make.
const testInstance = "ins_test"

// start starts a server that the end of the test closes.
func start(t testing.TB, cfg fakeclerk.Config) *fakeclerk.Server {
	t.Helper()
	s, err := fakeclerk.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// startClocked is start for a server whose time is the returned clock.
func startClocked(t testing.TB, cfg fakeclerk.Config) (*fakeclerk.Server, *fakeclerk.Clock) {
	t.Helper()
	clock := fakeclerk.NewClock(epoch)
	cfg.Clock = clock
	return start(t, cfg), clock
}

func backend(s *fakeclerk.Server) clerk.BackendConfig {
	return clerk.BackendConfig{
		URL: clerk.String(s.APIURL()), Key: clerk.String(s.SecretKey()),
		HTTPClient: http.DefaultClient, // the SDK's own client gives up after 5 s
	}
}

func userClient(s *fakeclerk.Server) *user.Client {
	return user.NewClient(&clerk.ClientConfig{BackendConfig: backend(s)})
}

func jwksClient(s *fakeclerk.Server) *jwks.Client {
	return jwks.NewClient(&clerk.ClientConfig{BackendConfig: backend(s)})
}

// do sends a request with the right key to the Backend API and returns the response and its body.
// header holds names and values in turn.
func do(t testing.TB, s *fakeclerk.Server, method, path, body string, header ...string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.APIURL()+path, strings.NewReader(body))
	must(t, err)
	r.Header.Set("Authorization", "Bearer "+s.SecretKey())
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	must(t, err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	must(t, err)
	return res, answer
}

// get is do for GET requests.
func get(t testing.TB, s *fakeclerk.Server, pathAndQuery string, header ...string) (*http.Response, []byte) {
	t.Helper()
	return do(t, s, "GET", pathAndQuery, "", header...)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// check fails the test unless got equals want.
func check[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// apiError fails the test unless err is a complete Clerk error with the given status and code.
func apiError(t testing.TB, what string, err error, status int, code string) *clerk.APIErrorResponse {
	t.Helper()
	var e *clerk.APIErrorResponse
	if !errors.As(err, &e) {
		t.Fatalf("%s: got error %v, want an APIErrorResponse", what, err)
	}
	check(t, what+": status", e.HTTPStatusCode, status)
	check(t, what+": code", e.Errors[0].Code, code)
	first := e.Errors[0]
	if first.Message == "" || first.LongMessage == "" || e.TraceID == "" || e.TraceID != e.Response.TraceID {
		t.Errorf("%s: the error is incomplete: %v", what, e)
	}
	return e
}

func raw(s string) *json.RawMessage { return clerk.JSONRawMessage(json.RawMessage(s)) }

// object returns a user of the server, decoded.
func object(t testing.TB, s *fakeclerk.Server, id string) clerk.User {
	t.Helper()
	raw, ok := s.User(id)
	if !ok {
		t.Fatalf("user %s was not found", id)
	}
	var u clerk.User
	if err := json.Unmarshal(raw, &u); err != nil {
		t.Fatal(err)
	}
	return u
}

// createRichUser signs up a user whose object has something in most fields.
func createRichUser(t *testing.T, s *fakeclerk.Server) (id string) {
	t.Helper()
	id = s.CreateUser(fakeclerk.NewUser{
		FirstName: "Ada", LastName: "Lovelace", Username: "ada", ExternalID: "ext",
		Email: "ada@example.com", EmailUnverified: true, Phone: "+15550100", ImageURL: "https://img.example/ada",
		PublicMetadata:  map[string]any{"a": 1},
		PrivateMetadata: map[string]any{"b": 2},
		UnsafeMetadata:  map[string]any{"c": 3},
	})
	must(t, s.UpdateUser(id, func(u *fakeclerk.UserObject) {
		u.AddEmailAddress("second@example.com", true)
		u.EmailAddresses = append(u.EmailAddresses, &clerk.EmailAddress{EmailAddress: "bare@example.com"})
		u.Web3Wallets = []*clerk.Web3Wallet{{Web3Wallet: "0x1"}}
		u.ProfileImageURL = "https://img.example/ada"
		u.Deprovisioned = true
		u.Locale = clerk.String("en-GB")
	}))
	must(t, s.SignIn(id))
	return id
}

// listed is what the tests need of a listed user.
type listed struct {
	ID        string `json:"id"`
	CreatedAt int64  `json:"created_at"`
	Banned    bool   `json:"banned"`
}

func list(t testing.TB, s *fakeclerk.Server, query string) []listed {
	t.Helper()
	res, body := get(t, s, "/users?"+query)
	if res.StatusCode != 200 {
		t.Fatalf("%s: %d: %s", query, res.StatusCode, body)
	}
	var users []listed
	must(t, json.Unmarshal(body, &users))
	return users
}

func count(t testing.TB, s *fakeclerk.Server, query string) int {
	t.Helper()
	_, body := get(t, s, "/users/count?"+query)
	var c struct {
		TotalCount int `json:"total_count"`
	}
	must(t, json.Unmarshal(body, &c))
	return c.TotalCount
}

func ids(users []listed) []string {
	ids := make([]string, len(users))
	for i, u := range users {
		ids[i] = u.ID
	}
	return ids
}

// readPages lists all users in pages. next returns the parameter that asks for the page after the
// users read so far.
func readPages(
	t testing.TB, s *fakeclerk.Server, order string, limit int, next func(read []listed) string,
) (read []listed) {
	t.Helper()
	for {
		page := list(t, s, fmt.Sprintf("order_by=%s&limit=%d&%s", order, limit, next(read)))
		read = append(read, page...)
		if len(page) < limit {
			return read
		}
	}
}

func byOffset(read []listed) string { return fmt.Sprint("offset=", len(read)) }

func byKeyset(read []listed) string {
	if len(read) == 0 {
		return ""
	}
	return "starting_after=" + read[len(read)-1].ID
}

// fieldPaths returns the paths of all fields in a JSON document, without those inside metadata.
func fieldPaths(t testing.TB, document []byte) []string {
	var all []string
	var walk func(path string, v any)
	walk = func(path string, v any) {
		all = append(all, path)
		switch v := v.(type) {
		case map[string]any:
			for name, v := range v {
				if !strings.HasSuffix(path, "_metadata") {
					walk(path+"."+name, v)
				}
			}
		case []any:
			for _, v := range v {
				walk(path+"[]", v)
			}
		}
	}
	var v any
	must(t, json.Unmarshal(document, &v))
	walk("$", v)
	slices.Sort(all)
	return all
}

// verify makes the official SDK verify a token with the server's JWKS and a clock.
func verify(
	ctx context.Context, s *fakeclerk.Server, clock *fakeclerk.Clock, token string,
) (*clerk.SessionClaims, error) {
	return jwt.Verify(ctx, &jwt.VerifyParams{Token: token, JWKSClient: jwksClient(s), Clock: clock})
}

// decode returns the header and the claims of a JWT without verifying it.
func decode(t testing.TB, token string) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("not a JWT: %q", token)
	}
	for i, to := range []*map[string]any{&header, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		must(t, err)
		must(t, json.Unmarshal(b, to))
	}
	return header, claims
}

func keys(m map[string]any) []string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// delivered is a request that reached the app.
type delivered struct {
	id, eventType string
	header        http.Header
	body          []byte
}

// app is a webhook receiver that records requests and answers them as the test says.
type app struct {
	url string

	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request) // nil: 204
	got    []delivered                                  // oldest first
}

func startApp(t testing.TB) *app {
	t.Helper()
	a := &app{}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	a.url = server.URL + "/webhooks"
	return a
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	var event struct{ Type string }
	json.Unmarshal(body, &event)
	a.mu.Lock()
	a.got = append(a.got, delivered{r.Header.Get("Svix-Id"), event.Type, r.Header, body})
	answer := a.answer
	a.mu.Unlock()
	if answer == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	answer(w, r)
}

func (a *app) answerWith(f func(w http.ResponseWriter, r *http.Request)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = f
}

func (a *app) answerStatus(status int) {
	a.answerWith(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
}

func (a *app) requests() []delivered {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.got)
}

// letters returns the messages that arrived, in order, one letter each: a for the first message sent
// to the endpoint, b for the second and so on.
func (a *app) letters(e *fakeclerk.Endpoint) string {
	names := map[string]string{}
	for i, m := range e.Messages() {
		names[m.ID] = string(rune('a' + i))
	}
	s := ""
	for _, d := range a.requests() {
		s += names[d.id]
	}
	return s
}

// message returns the i-th message of an endpoint.
func message(t testing.TB, e *fakeclerk.Endpoint, i int) fakeclerk.Message {
	t.Helper()
	list := e.Messages()
	if i >= len(list) {
		t.Fatalf("message %d of %d", i, len(list))
	}
	return list[i]
}
