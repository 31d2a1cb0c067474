package fakeclerk

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Server is a Clerk instance that listens on the loopback interface. Use [Start] to make one. Its
// methods are safe for concurrent use.
type Server struct {
	secretKey  string
	instanceID string
	issuer     string
	limit      int          // Backend API requests per rateWindow; negative: unlimited
	logger     *slog.Logger // may be nil

	time      timeSource
	isClocked bool // time is a Clock
	ids       *idSource

	url    string
	http   *http.Server
	client *http.Client  // delivers webhooks
	served chan struct{} // closed once http no longer serves

	ctx    context.Context // canceled by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // requests and webhook deliveries in progress

	mu        sync.Mutex
	closed    bool
	kids      []string // key ids in the JWKS; the last one signs
	users     userTable
	calls     map[string]int // by route
	limited   int            // answers with status 429
	window    window
	fault     func(*http.Request) *Fault
	endpoints []*Endpoint
	seq       uint64        // of deliveries
	changed   chan struct{} // closed and replaced when a delivery starts, ends or is scheduled

	// The control API sets these.
	outage outage
	plan   []Delivery // how the next messages are delivered, one each
}

// DefaultSecretKey is the secret key of a [Server] if Config.SecretKey is empty.
const DefaultSecretKey = "sk_test_fakeclerk"

// Clerk limits the Backend API to so many requests per instance in each window of 10 seconds:
// https://clerk.com/docs/guides/how-clerk-works/system-limits.
const (
	developmentRateLimit = 100
	productionRateLimit  = 1000
	rateWindow           = 10 * time.Second
)

// Config configures [Start]. The zero value is a development instance that runs in real time and has
// Clerk's own rate limit.
type Config struct {
	_ [0]func() // requires field names in literals

	// Addr is the address to listen on, a loopback address and a port: "127.0.0.1:4455". A fixed port
	// lets other programs be configured before the server starts. Start refuses other addresses, because
	// whoever reaches the server can sign in as anyone. Defaults to "127.0.0.1:0", which is a free port.
	Addr string

	// Logger gets a line for each request to the Backend API and each attempt to deliver a webhook, with
	// its status: no bodies or keys, and no queries of requests. Defaults to none.
	Logger *slog.Logger

	// Clock is the source of all the server's times: timestamps, tokens, the rate limit and webhook
	// deliveries. With a Clock, webhooks are delivered only inside Clock.Advance, [Server.Deliver] and
	// [Server.Settle]. Without one, background goroutines deliver them. Defaults to the real time.
	Clock *Clock

	// SecretKey is the key that the Backend API accepts. A key that starts with sk_live_ makes this a
	// production instance, which has a higher rate limit and an issuer of the form
	// https://clerk.<domain>. Defaults to [DefaultSecretKey].
	SecretKey string

	// InstanceID is the id of the Clerk instance. It is the instance_id of the webhooks and the kid of
	// the tokens. Servers in one process that have the same InstanceID share a signing key, as if one
	// were a restart of the other. Tests of the official SDK's middleware need this, because it caches
	// keys by kid for the whole process. Defaults to a fresh "ins_" id.
	InstanceID string

	// RateLimit is the number of Backend API requests allowed in 10 seconds. Further requests get a
	// 429. Requests for the JWKS are not limited, as at Clerk. A negative value removes the limit.
	// Defaults to Clerk's limits: 100, or 1000 with an sk_live_ key.
	RateLimit int

	// Seed makes ids and webhook secrets the same in every run. Signing keys always differ. Defaults to
	// 0, which makes ids and secrets unpredictable.
	Seed uint64

	// Population is the number of users that exist from the start, for load tests. The server generates
	// each one on request, and it takes no memory until it is changed or deleted. With a Seed, users are
	// the same in every run, except their times. They signed up one second apart, the last one a second
	// before the start, and no webhooks were sent for them. Their ids ascend in the same order: see
	// [Server.PopulationID].
	//
	// With a Population, GET /users and GET /users/count answer 422 to filters other than user_id
	// (without "-"), and GET /users to orders other than created_at. Defaults to 0, as does a negative
	// value.
	Population int
}

// Start starts a Clerk instance. The caller must close it. The only possible error is that the server
// cannot listen on Config.Addr: it is malformed, not a loopback address, or taken. If it is taken,
// errors.Is finds [syscall.EADDRINUSE], except on Windows.
func Start(cfg Config) (*Server, error) {
	// net/http/httptest would register a flag in every program that imports this package.
	listener, err := listen(cmp.Or(cfg.Addr, "127.0.0.1:0"))
	if err != nil {
		return nil, err
	}
	ids := newIDSource(cfg.Seed)
	cfg = cfg.withDefaults(ids)
	s := &Server{
		secretKey:  cfg.SecretKey,
		instanceID: cfg.InstanceID,
		issuer:     issuerOf(cfg.InstanceID, cfg.isProduction()),
		limit:      cfg.RateLimit,
		logger:     cfg.Logger,
		time:       realTime{},
		ids:        ids,
		client:     newDeliveryClient(),
		served:     make(chan struct{}),
		kids:       []string{cfg.InstanceID},
		users:      newUserTable(),
		calls:      make(map[string]int),
		changed:    make(chan struct{}),
	}
	if cfg.Clock != nil {
		s.time, s.isClocked = cfg.Clock, true
	}
	s.users.population = newPopulation(cfg.Population, cfg.Seed, s.Now(), ids)
	s.ctx, s.cancel = context.WithCancel(context.Background())

	s.url = "http://" + listener.Addr().String()
	s.http = &http.Server{Handler: s.handler(), ReadHeaderTimeout: time.Minute}
	go func() {
		defer close(s.served)
		_ = s.http.Serve(listener) // until Close
	}()
	return s, nil
}

// listen listens on a loopback address.
func listen(addr string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("fakeclerk: Addr %q is not host:port, such as 127.0.0.1:4455: %w", addr, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && !ip.IsLoopback() {
		return nil, fmt.Errorf("fakeclerk: Addr %q is not a loopback address: whoever reaches a fake Clerk can sign in as anyone; "+
			"use 127.0.0.1:%s, or a tunnel to it", addr, port)
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("fakeclerk: Addr %s is taken: stop the program that listens there, or choose another port; "+
			"0 is a free one: %w", addr, err)
	}
	if err != nil {
		return nil, fmt.Errorf("fakeclerk: cannot listen on Addr %s: %w", addr, err)
	}
	return listener, nil
}

// Close stops the server. It closes connections, cancels requests and deliveries in progress, drops
// pending deliveries, and returns when all goroutines have ended. It therefore waits for functions of
// the test that still run, such as a [Fault]'s BeforeSend. After Close, users can still be read and
// changed, but no webhooks are delivered. A second Close does nothing and returns nil.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.served
		s.wg.Wait()
		return nil
	}
	s.closed = true
	for _, e := range s.endpoints {
		e.arm()
	}
	s.notify()
	s.mu.Unlock()

	s.cancel()
	err := s.http.Close()
	<-s.served
	s.wg.Wait()
	s.client.CloseIdleConnections()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("fakeclerk: %w", err)
	}
	return nil
}

// begin makes Close wait until the caller calls s.wg.Done. It reports false after Close.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Add(1)
	return true
}

// APIURL returns the base URL of the Backend API, with /v1 and without a final slash, as
// clerksync.Config.APIURL and clerk.BackendConfig.URL expect it.
func (s *Server) APIURL() string { return s.url + "/v1" }

// SecretKey returns the key that the Backend API accepts.
func (s *Server) SecretKey() string { return s.secretKey }

// InstanceID returns the id of the instance.
func (s *Server) InstanceID() string { return s.instanceID }

// Issuer returns the iss claim of the session tokens. It has the form of one of Clerk's Frontend API
// URLs, but nothing listens there: the keys are at [Server.APIURL].
func (s *Server) Issuer() string { return s.issuer }

// Now returns the server's time: that of Config.Clock, or the real time.
func (s *Server) Now() time.Time { return s.time.Now() }

// isProduction reports whether the secret key makes this a production instance.
func (cfg Config) isProduction() bool { return strings.HasPrefix(cfg.SecretKey, "sk_live_") }

// withDefaults fills in the fields that have a default. ids makes the InstanceID.
func (cfg Config) withDefaults(ids *idSource) Config {
	if cfg.SecretKey == "" {
		cfg.SecretKey = DefaultSecretKey
	}
	if cfg.InstanceID == "" {
		cfg.InstanceID = ids.id("ins_")
	}
	if cfg.RateLimit == 0 {
		cfg.RateLimit = developmentRateLimit
		if cfg.isProduction() {
			cfg.RateLimit = productionRateLimit
		}
	}
	return cfg
}

// issuerOf derives a Frontend API URL from the instance id, so each instance has its own.
func issuerOf(instanceID string, production bool) string {
	sum := sha256.Sum256([]byte(instanceID))
	name := "fake-" + hex.EncodeToString(sum[:4])
	if production {
		return "https://clerk." + name + ".example"
	}
	return "https://" + name + ".clerk.accounts.dev"
}
