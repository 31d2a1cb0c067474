package fakeclerk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Server is a Clerk instance that listens on the loopback interface. Use [Start] to make one. Its
// methods are safe for concurrent use.
type Server struct {
	secretKey  string
	instanceID string
	issuer     string
	limit      int // Backend API requests per rateWindow; negative: unlimited

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
}

// Start starts a Clerk instance on a free port of 127.0.0.1. The caller must close it. The only
// possible error is that the server cannot listen.
func Start(cfg Config) (*Server, error) {
	ids := newIDSource(cfg.Seed)
	cfg = cfg.withDefaults(ids)
	s := &Server{
		secretKey:  cfg.SecretKey,
		instanceID: cfg.InstanceID,
		issuer:     issuerOf(cfg.InstanceID, cfg.isProduction()),
		limit:      cfg.RateLimit,
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

	// net/http/httptest would register a flag in every program that imports this package.
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		s.cancel()
		return nil, fmt.Errorf("fakeclerk: %w", err)
	}
	s.url = "http://" + listener.Addr().String()
	s.http = &http.Server{Handler: s.handler(), ReadHeaderTimeout: time.Minute}
	go func() {
		defer close(s.served)
		_ = s.http.Serve(listener) // until Close
	}()
	return s, nil
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

// issuerOf derives a Frontend API URL from the instance id, so each instance has its own.
func issuerOf(instanceID string, production bool) string {
	sum := sha256.Sum256([]byte(instanceID))
	name := "fake-" + hex.EncodeToString(sum[:4])
	if production {
		return "https://clerk." + name + ".example"
	}
	return "https://" + name + ".clerk.accounts.dev"
}
