package fakeclerk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Server is a Clerk instance that listens on the loopback interface. It is made by
// [Start], and its methods are safe for concurrent use.
type Server struct {
	secretKey  string
	instanceID string
	issuer     string
	limit      int

	time timeSource
	fake bool // time is a Clock
	ids  *idSource

	url    string
	http   *http.Server
	client *http.Client // delivers webhooks
	served chan struct{}

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // requests being answered, webhooks being delivered

	mu        sync.Mutex
	closed    bool
	kids      []string // key ids in the JWKS, the one that signs last
	users     userTable
	calls     map[string]int
	limited   int
	window    window
	fault     func(*http.Request) *Fault
	endpoints []*Endpoint
	seq       uint64        // of deliveries
	changed   chan struct{} // closed and replaced whenever a delivery moves
}

// Start starts a Clerk instance that listens on a free port of 127.0.0.1. The caller
// closes it. The only error is that of the listener.
func Start(cfg Config) (*Server, error) {
	s := &Server{
		secretKey:  cfg.SecretKey,
		instanceID: cfg.InstanceID,
		limit:      cfg.RateLimit,
		time:       realTime{},
		ids:        newIDSource(cfg.Seed),
		served:     make(chan struct{}),
		calls:      make(map[string]int),
		users:      newUserTable(),
		changed:    make(chan struct{}),
	}
	if cfg.Clock != nil {
		s.time, s.fake = cfg.Clock, true
	}
	if s.secretKey == "" {
		s.secretKey = DefaultSecretKey
	}
	if s.instanceID == "" {
		s.instanceID = s.ids.id("ins_")
	}
	production := strings.HasPrefix(s.secretKey, "sk_live_")
	if s.limit == 0 {
		s.limit = developmentRateLimit
		if production {
			s.limit = productionRateLimit
		}
	}
	s.users.population = newPopulation(cfg.Population, cfg.Seed, s.Now(), s.ids)
	s.issuer = issuerOf(s.instanceID, production)
	s.kids = []string{s.instanceID}
	s.ctx, s.cancel = context.WithCancel(context.Background())

	// Not net/http/httptest: it would register a flag in every program that imports
	// this package.
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		s.cancel()
		return nil, fmt.Errorf("fakeclerk: %w", err)
	}
	s.url = "http://" + listener.Addr().String()
	s.http = &http.Server{Handler: s.handler(), ReadHeaderTimeout: time.Minute}
	s.client = newDeliveryClient()
	go func() {
		defer close(s.served)
		_ = s.http.Serve(listener) // ends with Close
	}()
	return s, nil
}

// Close stops the server: it drops connections and the deliveries that are waiting,
// cancels what is in flight, and returns when no goroutine is left. A function of the
// test's that still runs, in a [Fault] for example, holds it up. Closing again does
// nothing. After Close users can still be read and changed, and nothing is delivered.
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

// begin counts the caller among what Close waits for; false after Close.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Add(1)
	return true
}

// APIURL returns the base URL of the Backend API, with /v1 and no final slash: what
// clerksync.Config.APIURL and clerk.BackendConfig.URL take.
func (s *Server) APIURL() string { return s.url + "/v1" }

// SecretKey returns the key that the Backend API accepts.
func (s *Server) SecretKey() string { return s.secretKey }

// InstanceID returns the id of the instance.
func (s *Server) InstanceID() string { return s.instanceID }

// Issuer returns the iss of the session tokens, which has the form of a Frontend API
// URL of Clerk's. Nothing answers there: the keys are at [Server.APIURL].
func (s *Server) Issuer() string { return s.issuer }

// Now returns the server's time: that of Config.Clock, or the real one.
func (s *Server) Now() time.Time { return s.time.Now() }

// issuerOf derives a Frontend API URL from the instance, so that two instances have two.
func issuerOf(instanceID string, production bool) string {
	sum := sha256.Sum256([]byte(instanceID))
	name := "fake-" + hex.EncodeToString(sum[:4])
	if production {
		return "https://clerk." + name + ".example"
	}
	return "https://" + name + ".clerk.accounts.dev"
}
