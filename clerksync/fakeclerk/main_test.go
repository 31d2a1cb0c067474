package fakeclerk_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/jwks"
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
