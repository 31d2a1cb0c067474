package fakeclerk_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/organization"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// tell sends a request to the control API and decodes the answer, which is nil if it is not JSON.
func tell(t testing.TB, s *fakeclerk.Server, route, body string) (status int, answer map[string]any, text string) {
	t.Helper()
	method, path, _ := strings.Cut(route, " ")
	r, err := http.NewRequestWithContext(t.Context(), method, s.ControlURL()+path, strings.NewReader(body))
	must(t, err)
	res, err := http.DefaultClient.Do(r)
	must(t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	must(t, err)
	_ = json.Unmarshal(raw, &answer)
	return res.StatusCode, answer, string(raw)
}

// told is tell for a request that succeeds.
func told(t testing.TB, s *fakeclerk.Server, route, body string) map[string]any {
	t.Helper()
	status, answer, text := tell(t, s, route, body)
	if status != 200 {
		t.Fatalf("%s %s: %d: %s", route, body, status, text)
	}
	return answer
}

func TestAddr(t *testing.T) {
	t.Parallel()
	taken := start(t, fakeclerk.Config{})
	u, err := url.Parse(taken.APIURL())
	must(t, err)
	for _, test := range []struct{ addr, want string }{
		{u.Host, "is taken: stop the program that listens there"},
		{"0.0.0.0:0", "is not a loopback address"},
		{":0", "is not a loopback address"},
		{"[::]:0", "is not a loopback address"},
		{"192.0.2.1:0", "is not a loopback address"},
		{"example.com:80", "is not a loopback address"},
		{"127.0.0.1", "is not host:port"},
		{"4455", "is not host:port"},
		{"127.0.0.1:x", "cannot listen on Addr 127.0.0.1:x"},
		{"127.0.0.1:70000", "cannot listen on Addr 127.0.0.1:70000"},
	} {
		s, err := fakeclerk.Start(fakeclerk.Config{Addr: test.addr})
		if err == nil {
			s.Close()
			t.Errorf("%s is accepted", test.addr)
		} else if !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %q, want %q", test.addr, err, test.want)
		}
	}
	_, err = fakeclerk.Start(fakeclerk.Config{Addr: u.Host})
	check(t, "EADDRINUSE", errors.Is(err, syscall.EADDRINUSE), true)

	// A port is free again after Close.
	must(t, taken.Close())
	again := start(t, fakeclerk.Config{Addr: u.Host})
	check(t, "the address", again.APIURL(), taken.APIURL())
	start(t, fakeclerk.Config{Addr: "localhost:0"})
}

func TestOrganizationsAreOff(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{})
	client := organization.NewClient(&clerk.ClientConfig{BackendConfig: backend(s)})
	_, err := client.List(t.Context(), &organization.ListParams{})
	apiError(t, "the SDK", err, 403, "organization_not_enabled_in_instance")
	for path, want := range map[string]int{
		"/organizations": 403, "/organizations/org_1/memberships": 403, "/organization_memberships": 403,
		"/organization_roles/role_1": 403, "/users/user_1/organization_memberships": 403,
		"/users/user_1/organization_invitations": 403, "/organizationsx": 404, "/users/organization_memberships": 404,
	} {
		res, body := get(t, s, path)
		check(t, path, res.StatusCode, want)
		checkShape(t, "errors", body)
	}
	res, _ := get(t, s, "/organizations", "Authorization", "Bearer sk_test_wrong")
	check(t, "with a wrong key", res.StatusCode, 401)
}

func TestPublicJWKS(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{InstanceID: testInstance})
	res, err := http.Get(strings.TrimSuffix(s.APIURL(), "/v1") + "/.well-known/jwks.json")
	must(t, err)
	defer res.Body.Close()
	public, err := io.ReadAll(res.Body)
	must(t, err)
	_, private := get(t, s, "/jwks")
	check(t, "the keys", string(public), string(private))
}

func TestEnviron(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{SecretKey: "sk_live_it's", Seed: 1})
	vars := func() map[string]string {
		m := map[string]string{}
		for _, v := range s.Environ() {
			name, value, _ := strings.Cut(v, "=")
			m[name] = value
		}
		return m
	}
	if v := vars(); v["CLERK_WEBHOOK_SIGNING_SECRET"] != "" {
		t.Errorf("a secret without an endpoint: %v", v)
	}
	e := s.AddEndpoint("http://127.0.0.1:1/", fakeclerk.EndpointOptions{})
	v := vars()
	check(t, "secret key", v["CLERK_SECRET_KEY"], "sk_live_it's")
	check(t, "webhook secret", v["CLERK_WEBHOOK_SIGNING_SECRET"], e.Secret())
	check(t, "API", v["CLERK_API_URL"]+"/v1", s.APIURL())
	host, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(v["CLERK_PUBLISHABLE_KEY"], "pk_live_"))
	must(t, err)
	check(t, "host of the publishable key", "https://"+string(host), s.Issuer()+"$")

	_, _, text := tell(t, s, "GET /env", "")
	check(t, "lines", strings.Count(text, "\nexport "), len(v)-1)
	if !strings.Contains(text, `export CLERK_SECRET_KEY='sk_live_it'\''s'`+"\n") {
		t.Errorf("not quoted for a shell:\n%s", text)
	}
	_, _, pem := tell(t, s, "GET /jwt-key", "")
	check(t, "JWT key", pem, s.JWTKey())
}

func TestControlSignUp(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{InstanceID: testInstance})
	app := startApp(t)
	s.AddEndpoint(app.url, fakeclerk.EndpointOptions{})
	id := told(t, s, "POST /users", `{"first_name": "Zoë", "email": "zoe@example.com", "public_metadata": {"plan": "pro"}}`)["id"].(string)
	clock.Advance(0)
	check(t, "the event", app.requests()[0].eventType, "user.created")
	u := object(t, s, id)
	check(t, "first name", *u.FirstName, "Zoë")
	check(t, "the address is proven", u.EmailAddresses[0].Verification.Strategy, "email_code")
	check(t, "metadata", string(u.PublicMetadata), `{"plan":"pro"}`)

	// Without a body, people are made up until all addresses are new.
	seen := map[string]bool{}
	for i := range 300 {
		made := object(t, s, told(t, s, "POST /users", "")["id"].(string))
		address := made.EmailAddresses[0].EmailAddress
		if seen[address] || *made.FirstName == "" {
			t.Fatalf("user %d has the address %s", i, address)
		}
		seen[address] = true
	}
	check(t, "a user with an id", told(t, s, "POST /users", `{"id": "user_ada"}`)["id"], any("user_ada"))
}

func TestControlTokens(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{InstanceID: testInstance})
	id := s.CreateUser(fakeclerk.NewUser{})
	app := startApp(t)
	e := s.AddEndpoint(app.url, fakeclerk.EndpointOptions{})

	token := told(t, s, "POST /tokens", `{"user_id": "`+id+`"}`)
	claims, err := verify(t.Context(), s, clock, token["token"].(string))
	must(t, err)
	check(t, "subject", claims.Subject, id)
	check(t, "lifetime", *claims.Expiry-*claims.IssuedAt, 60)
	check(t, "expires_at", int64(token["expires_at"].(float64)), *claims.Expiry*1000)
	check(t, "a token is no sign-in", len(e.Messages()), 0)

	session := told(t, s, "POST /sessions",
		`{"user_id": "`+id+`", "seconds": 3600, "authorized_party": "https://app.example.com", "claims": {"plan": "pro"}}`)
	clock.Advance(0)
	var event struct {
		Data struct{ ID string }
	}
	must(t, json.Unmarshal(message(t, e, 0).Body, &event))
	_, c := decode(t, session["token"].(string))
	check(t, "event", message(t, e, 0).Type, "session.created")
	check(t, "the session's token", c["sid"], any(event.Data.ID))
	check(t, "azp", c["azp"], any("https://app.example.com"))
	check(t, "claim", c["plan"], any("pro"))
	check(t, "hour", c["exp"].(float64)-c["iat"].(float64), 3600)

	expired := told(t, s, "POST /tokens", `{"user_id": "`+id+`", "seconds": -60}`)["token"].(string)
	if _, err := verify(t.Context(), s, clock, expired); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an expired token: %v", err)
	}
}

func TestControlOutage(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{InstanceID: testInstance})
	status := func() int { res, _ := get(t, s, "/users"); return res.StatusCode }
	told(t, s, "POST /outage", "")
	check(t, "down", status(), 503)
	res, _ := get(t, s, "/jwks")
	check(t, "keys", res.StatusCode, 503)
	check(t, "the control API", told(t, s, "DELETE /outage", "")["outage"], any(false))
	check(t, "back", status(), 200)

	told(t, s, "POST /outage", `{"status": 429, "seconds": 2.5}`)
	res, body := get(t, s, "/users")
	check(t, "limited", res.StatusCode, 429)
	check(t, "Retry-After", res.Header.Get("Retry-After"), "3")
	checkShape(t, "errors", body)
	clock.Advance(2499 * time.Millisecond)
	check(t, "still", status(), 429)
	clock.Advance(time.Millisecond)
	check(t, "it ends", status(), 200)

	told(t, s, "POST /outage", `{"delay_seconds": 3}`)
	answered := make(chan int)
	go func() { answered <- status() }()
	for {
		clock.Advance(3 * time.Second) // possibly before the request has arrived
		select {
		case got := <-answered:
			check(t, "a slow answer", got, 200)
			return
		default:
			runtime.Gosched()
		}
	}
}

func TestControlWebhooks(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{})
	app := startApp(t)
	added := told(t, s, "POST /webhooks", `{"url": "`+app.url+`", "events": ["user.created"]}`)
	if !strings.HasPrefix(added["secret"].(string), "whsec_") {
		t.Errorf("the endpoint is %v", added)
	}
	messages := func() []any {
		return told(t, s, "GET /webhooks", "")["endpoints"].([]any)[0].(map[string]any)["messages"].([]any)
	}
	field := func(i int, name string) any { return messages()[i].(map[string]any)[name] }
	signUp := func() { told(t, s, "POST /users", ""); clock.Advance(0) }

	told(t, s, "POST /webhooks/next", `{"drop": true}`)
	told(t, s, "POST /webhooks/next", `{"copies": 2}`)
	check(t, "planned", told(t, s, "POST /webhooks/next", `{"delay_seconds": 60, "messages": 1}`)["planned"], any(3.0))
	signUp() // lost
	check(t, "lost", len(app.requests()), 0)
	check(t, "state", field(0, "state"), any("dropped"))
	signUp() // doubled
	check(t, "doubled", len(app.requests()), 2)
	signUp() // late
	signUp() // overtakes it
	check(t, "overtaken", len(app.requests()), 3)
	clock.Advance(time.Minute)
	check(t, "late", app.requests()[3].id, field(2, "id").(string))

	told(t, s, "POST /webhooks/outage", "")
	signUp()
	check(t, "no answer", field(4, "attempts").([]any)[0].(map[string]any)["error"], any("fakeclerk: the endpoint has an outage"))
	check(t, "the next attempt", field(4, "next_attempt_at"), any(float64(clock.Now().Add(5*time.Second).UnixMilli())))
	told(t, s, "DELETE /webhooks/outage", "")
	clock.Advance(5 * time.Second)
	check(t, "delivered", field(4, "state"), any("delivered"))

	told(t, s, "POST /webhooks/hold", "")
	signUp()
	signUp()
	first, second := field(5, "id").(string), field(6, "id").(string)
	told(t, s, "POST /webhooks/release", `{"messages": ["`+second+`", "`+first+`"]}`)
	clock.Advance(0)
	check(t, "reordered", app.requests()[5].id+app.requests()[6].id, second+first)
	told(t, s, "POST /webhooks/release", "")
	told(t, s, "POST /webhooks/replay", `{"message": "`+first+`"}`)
	clock.Advance(0)
	check(t, "replayed", app.requests()[7].id, first)
}

func TestControlRefusals(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{InstanceID: testInstance})
	id := s.CreateUser(fakeclerk.NewUser{ID: "user_ada", Email: "ada@example.com"})
	e := s.AddEndpoint("http://127.0.0.1:1/", fakeclerk.EndpointOptions{})
	for _, test := range []struct {
		route, body string
		status      int
		want        string
	}{
		{"GET /nothing", "", 404, "GET /__fake lists them"},
		{"GET /users", "", 404, "GET /__fake lists them"},
		{"POST /users", "{", 400, "unexpected EOF"},
		{"POST /users", "[]", 400, "cannot unmarshal array"},
		{"POST /users", "{}{}", 400, "more than one JSON object"},
		{"POST /users", `{"firstName": "Ada"}`, 400, `unknown field \"firstName\"`},
		{"POST /users", `{"first_name": "` + strings.Repeat("a", 1<<20) + `"}`, 413, "larger than 1 MiB"},
		{"POST /users", `{"id": "ada"}`, 422, "id is not the id of a user"},
		{"POST /users", `{"id": "user_ada"}`, 409, "has been used"},
		{"POST /users", `{"email": "ada@example.com"}`, 409, "email address is taken"},
		{"POST /users", `{"email": "ada"}`, 422, "email is not an e-mail address"},
		{"POST /users", `{"phone": "555"}`, 422, "phone does not begin with +"},
		{"POST /tokens", "", 422, "user_id is missing"},
		{"POST /tokens", `{"user_id": "user_none"}`, 404, "there is no user user_none"},
		{"POST /tokens", `{"user_id": "` + id + `", "seconds": 1e300}`, 422, "seconds is more than ten years"},
		{"POST /sessions", `{"user_id": "` + id + `", "seconds": -1e300}`, 422, "seconds is more than ten years"},
		{"POST /outage", `{"status": 200}`, 422, "status is not one of an error"},
		{"POST /outage", `{"status": 503, "hang": true}`, 422, "exclude each other"},
		{"POST /outage", `{"seconds": -1}`, 422, "seconds is negative"},
		{"POST /outage", `{"delay_seconds": -1}`, 422, "delay_seconds is negative"},
		{"POST /webhooks", "", 422, "not an http or https URL"},
		{"POST /webhooks", `{"url": "http://127.0.0.1:1", "secret": "whsec_?"}`, 422, "webhook endpoint"},
		{"POST /webhooks/next", "", 422, "nothing is to happen"},
		{"POST /webhooks/next", `{"drop": true, "copies": 2}`, 422, "drop excludes"},
		{"POST /webhooks/next", `{"drop": true, "messages": 0}`, 422, "messages is not from 1"},
		{"POST /webhooks/next", `{"copies": 101}`, 422, "copies is not from 1"},
		{"POST /webhooks/next", `{"copies": 2, "messages": 1001}`, 422, "messages is not from 1"},
		{"POST /webhooks/release", `{"messages": ["msg_none"]}`, 422, "is not held"},
		{"POST /webhooks/replay", "", 404, "there is no such message"},
	} {
		status, answer, text := tell(t, s, test.route, test.body)
		if status != test.status || !strings.Contains(text, test.want) || answer["error"] == nil {
			t.Errorf("%s %.60s: got %d %s, want %d %q", test.route, test.body, status, text, test.status, test.want)
		}
	}
	check(t, "no event", len(e.Messages()), 0)
	check(t, "requests of the control API are not counted", s.Calls(""), 0)

	told(t, s, "POST /webhooks/next", `{"drop": true, "messages": 1000}`)
	status, _, _ := tell(t, s, "POST /webhooks/next", `{"drop": true}`)
	check(t, "too many planned", status, 422)

	for origin, want := range map[string]int{
		"http://localhost:3000": 200, "http://127.0.0.1": 200, "https://evil.example": 403, "null": 403, "http://localhost.evil.example": 403,
	} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", s.ControlURL()+"/users", nil)
		must(t, err)
		r.Header.Set("Origin", origin)
		res, err := http.DefaultClient.Do(r)
		must(t, err)
		res.Body.Close()
		check(t, origin, res.StatusCode, want)
	}
}

// The help has every route that the API has, and no other.
func TestControlHelp(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{InstanceID: testInstance})
	routes := regexp.MustCompile(`(?m)^([A-Z]+) +/__fake(\S*)`).FindAllStringSubmatch(fakeclerk.ControlHelp, -1)
	check(t, "routes", len(routes), 16)
	for _, m := range routes {
		if status, _, text := tell(t, s, m[1]+" "+m[2], `{"nonsense": 1}`); strings.Contains(text, "no such route") {
			t.Errorf("%s %s: %d: %s", m[1], m[2], status, text)
		}
	}
	for line := range strings.Lines(fakeclerk.ControlHelp) {
		if len(line) > 100 {
			t.Errorf("longer than a line: %s", line)
		}
	}
	_, _, text := tell(t, s, "GET ", "")
	check(t, "GET /__fake", text, fakeclerk.ControlHelp)
}

func TestLogger(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	clock := fakeclerk.NewClock(epoch)
	s := start(t, fakeclerk.Config{Clock: clock, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	e := s.AddEndpoint(startApp(t).url, fakeclerk.EndpointOptions{})
	id := s.CreateUser(fakeclerk.NewUser{Email: "ada@example.com"})
	clock.Advance(0)
	e.SetOutage(true)
	must(t, s.BanUser(id))
	clock.Advance(0)
	get(t, s, "/users?email_address=ada@example.com")
	s.SetFault(func(*http.Request) *fakeclerk.Fault { return &fakeclerk.Fault{Status: 502} })
	get(t, s, "/users/"+id)
	must(t, s.Close()) // the line of a request may follow its answer
	text := log.String()
	for _, want := range []string{
		"msg=webhook type=user.created message=msg_", " status=204\n",
		"type=user.updated", `status=0 error="fakeclerk: the endpoint has an outage"`,
		"msg=request method=GET path=/v1/users status=200\n",
		"path=/v1/users/" + id + " status=502\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the log does not have %q:\n%s", want, text)
		}
	}
	for _, secret := range []string{"ada@example.com", s.SecretKey(), e.Secret()} {
		if strings.Contains(text, secret) {
			t.Errorf("the log has %q:\n%s", secret, text)
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
