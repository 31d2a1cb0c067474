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

// epoch is where the tests' clocks start: a whole second, for tokens count in those.
var epoch = time.Date(2026, time.June, 1, 12, 0, 0, 0, time.UTC)

// testInstance is the instance of the tests that do not mind which one they run on. They share its
// signing key, since a key takes about a tenth of a second to make.
const testInstance = "ins_test"

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

// startClocked starts a server that lives by the returned clock.
func startClocked(t testing.TB, cfg fakeclerk.Config) (*fakeclerk.Server, *fakeclerk.Clock) {
	t.Helper()
	clock := fakeclerk.NewClock(epoch)
	cfg.Clock = clock
	return start(t, cfg), clock
}

func backend(s *fakeclerk.Server) clerk.BackendConfig {
	return clerk.BackendConfig{
		URL: clerk.String(s.APIURL()), Key: clerk.String(s.SecretKey()),
		HTTPClient: http.DefaultClient, // the SDK's own one gives up after 5 s
	}
}

func userClient(s *fakeclerk.Server) *user.Client {
	return user.NewClient(&clerk.ClientConfig{BackendConfig: backend(s)})
}

func jwksClient(s *fakeclerk.Server) *jwks.Client {
	return jwks.NewClient(&clerk.ClientConfig{BackendConfig: backend(s)})
}

// do makes a request to the Backend API with the right key, and returns the response with its body.
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

// check fails the test unless got is want.
func check[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// apiError asserts that err is an error of Clerk's with the given status and code.
func apiError(t testing.TB, what string, err error, status int, code string) *clerk.APIErrorResponse {
	t.Helper()
	var e *clerk.APIErrorResponse
	if !errors.As(err, &e) {
		t.Fatalf("%s: got error %v, want an APIErrorResponse", what, err)
	}
	check(t, what+": status", e.HTTPStatusCode, status)
	check(t, what+": code", e.Errors[0].Code, code)
	if e.Errors[0].Message == "" || e.Errors[0].LongMessage == "" || e.TraceID == "" || e.TraceID != e.Response.TraceID {
		t.Errorf("%s: incomplete: %v", what, e)
	}
	return e
}

func raw(s string) *json.RawMessage { return clerk.JSONRawMessage(json.RawMessage(s)) }

// object returns the user as the server has it, decoded.
func object(t testing.TB, s *fakeclerk.Server, id string) clerk.User {
	t.Helper()
	raw, ok := s.User(id)
	if !ok {
		t.Fatalf("no user %s", id)
	}
	var u clerk.User
	if err := json.Unmarshal(raw, &u); err != nil {
		t.Fatal(err)
	}
	return u
}

// listed is what a test wants to know of a listed user.
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

// readByOffset and readByKeyset list all users in pages.
func readByOffset(t testing.TB, s *fakeclerk.Server, order string, limit int) []listed {
	var all []listed
	for {
		page := list(t, s, fmt.Sprintf("order_by=%s&limit=%d&offset=%d", order, limit, len(all)))
		all = append(all, page...)
		if len(page) < limit {
			return all
		}
	}
}

func readByKeyset(t testing.TB, s *fakeclerk.Server, order string, limit int) []listed {
	var all []listed
	for after := ""; ; after = all[len(all)-1].ID {
		page := list(t, s, fmt.Sprintf("order_by=%s&limit=%d&starting_after=%s", order, limit, after))
		all = append(all, page...)
		if len(page) < limit {
			return all
		}
	}
}

// fieldPaths returns the keys of a JSON object and of those within it, but for the
// contents of metadata.
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

// verify has the official SDK verify a token by the server's JWKS and clock.
func verify(ctx context.Context, s *fakeclerk.Server, clock *fakeclerk.Clock, token string) (*clerk.SessionClaims, error) {
	return jwt.Verify(ctx, &jwt.VerifyParams{Token: token, JWKSClient: jwksClient(s), Clock: clock})
}

// decode returns the header and the claims of a JWT, unverified.
func decode(t testing.TB, token string) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("no JWT: %q", token)
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

// delivered is one request that reached the app.
type delivered struct {
	id, eventType string
	header        http.Header
	body          []byte
}

// app is a webhook receiver that notes what it gets and answers as it is told.
type app struct {
	url string

	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request) // nil: 204
	got    []delivered
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

// letters returns the messages that arrived, in order, as letters by the order in which
// they were sent.
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
		t.Fatalf("%d messages", len(list))
	}
	return list[i]
}
