package fakeclerk

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ControlHelp describes the control API of a [Server] for people. GET /__fake answers with it.
const ControlHelp = `The control API. Bodies are JSON. Fields are optional unless they are marked "required".

GET    /__fake                   this text
GET    /__fake/env               the environment for an app, as lines for a shell
GET    /__fake/jwt-key           the public key, for CLERK_JWT_KEY; each start makes another
POST   /__fake/users             a user signs up: {"first_name", "last_name", "email", "username",
                                 "phone", "external_id", "image_url", "email_unverified",
                                 "email_strategy", "public_metadata", "private_metadata",
                                 "unsafe_metadata", "id"}; an empty body makes somebody up
POST   /__fake/tokens            a session token: {"user_id": required, "seconds": how long it is
                                 valid (60; below 0: expired), "authorized_party", "pending",
                                 "claims"}
POST   /__fake/sessions          a user signs in, with a token of the session: as /__fake/tokens
POST   /__fake/outage            Clerk is down: {"status": 503, "hang": true for no answer,
                                 "delay_seconds": for slow answers, "seconds": until it ends}
DELETE /__fake/outage            Clerk is back
GET    /__fake/webhooks          the endpoints, and what became of each message
POST   /__fake/webhooks          adds an endpoint: {"url": required, "secret", "events"}
POST   /__fake/webhooks/next     the next messages are lost, doubled or late: {"messages": 1,
                                 "drop": true, "copies": 2, "delay_seconds": 5}; later messages
                                 overtake one that is late
POST   /__fake/webhooks/outage   no attempt reaches the app, as when it is down
DELETE /__fake/webhooks/outage   the app can be reached again
POST   /__fake/webhooks/hold     keeps all messages back
POST   /__fake/webhooks/release  delivers held messages: {"messages": ids in the order to deliver};
                                 without ids, it delivers all and ends the hold
POST   /__fake/webhooks/replay   delivers a message again: {"message": required, its id}

All else is Clerk's Backend API and needs the secret key: PATCH /v1/users/{id} renames a user,
POST /v1/users/{id}/ban bans one, DELETE /v1/users/{id} deletes one.
`

const controlPath = "/__fake"

// Limits of the control API.
const (
	maxControlBody = 1 << 20 // bytes
	maxPlanned     = 1000    // messages
	maxCopies      = 100
	maxSeconds     = 10 * 365 * 24 * 60 * 60
)

// control returns the control API. It needs no key, and Calls does not count its requests.
func (s *Server) control() http.Handler {
	help := reads(func() any { return plainText(ControlHelp) })
	mux := http.NewServeMux()
	for pattern, serve := range map[string]func(*http.Request) (any, error){
		"GET /__fake":                    help,
		"GET /__fake/{$}":                help,
		"GET /__fake/env":                reads(func() any { return plainText(s.exports()) }),
		"GET /__fake/jwt-key":            reads(func() any { return plainText(s.JWTKey()) }),
		"POST /__fake/users":             takes(s.signUp),
		"POST /__fake/tokens":            takes(s.issueToken),
		"POST /__fake/sessions":          takes(s.openSession),
		"POST /__fake/outage":            takes(s.beginOutage),
		"DELETE /__fake/outage":          takes(s.endOutage),
		"GET /__fake/webhooks":           reads(s.webhookList),
		"POST /__fake/webhooks":          takes(s.addWebhook),
		"POST /__fake/webhooks/next":     takes(s.planMessages),
		"POST /__fake/webhooks/outage":   takes(func(none) (any, error) { return s.setAppOutage(true), nil }),
		"DELETE /__fake/webhooks/outage": takes(func(none) (any, error) { return s.setAppOutage(false), nil }),
		"POST /__fake/webhooks/hold":     takes(s.holdMessages),
		"POST /__fake/webhooks/release":  takes(s.releaseMessages),
		"POST /__fake/webhooks/replay":   takes(s.replayMessage),
		"/__fake/":                       noControlRoute,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if !s.begin() {
				panic(http.ErrAbortHandler)
			}
			defer s.wg.Done()
			s.send(w, controlAnswer(r, serve), false)
		})
	}
	return mux
}

func noControlRoute(*http.Request) (any, error) { //nolint:unparam // it has the type of the routes
	return nil, controlError{http.StatusNotFound, "there is no such route: GET /__fake lists them"}
}

// none is the body of a route without fields.
type none struct{}

// plainText is an answer that is not JSON.
type plainText string

// controlError is an error of the control API.
type controlError struct {
	status int
	text   string
}

func (e controlError) Error() string { return e.text }

func unprocessable(format string, args ...any) error {
	return controlError{http.StatusUnprocessableEntity, fmt.Sprintf(format, args...)}
}

// controlAnswer makes the answer to a request of the control API. It refuses requests
// whose Origin is not on this machine.
func controlAnswer(r *http.Request, serve func(*http.Request) (any, error)) answer {
	var v any
	err := error(controlError{http.StatusForbidden, "the control API is not for pages of other sites"})
	if origin := r.Header.Get("Origin"); origin == "" || isLocal(origin) {
		v, err = serve(r)
	}
	var refused controlError
	switch {
	case errors.As(err, &refused):
		a := ok(map[string]string{"error": refused.text})
		a.status = refused.status
		return a
	case err != nil: // of the Server's methods
		a := ok(map[string]string{"error": strings.TrimPrefix(err.Error(), "fakeclerk: ")})
		a.status = http.StatusUnprocessableEntity
		return a
	}
	switch v := v.(type) {
	case plainText:
		return answer{http.StatusOK, http.Header{"Content-Type": {"text/plain; charset=utf-8"}}, []byte(v)}
	case json.RawMessage:
		return okJSON(v)
	}
	return ok(v)
}

// isLocal reports whether an origin is on this machine.
func isLocal(origin string) bool {
	u, err := url.Parse(origin)
	return err == nil && (u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback())
}

// reads serves a value without a look at the request.
func reads(value func() any) func(*http.Request) (any, error) {
	return func(*http.Request) (any, error) { return value(), nil }
}

// takes decodes the body of a request for serve. The body may be empty. Names that T does not have are
// errors, because an ignored one would look as if it had worked.
func takes[T any](serve func(T) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		body, err := io.ReadAll(io.LimitReader(r.Body, maxControlBody+1))
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if len(body) > maxControlBody {
			return nil, controlError{http.StatusRequestEntityTooLarge, "the body is larger than 1 MiB"}
		}
		var in T
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(&in); err != nil && !errors.Is(err, io.EOF) {
			return nil, controlError{http.StatusBadRequest, "the body is not what this route takes: " +
				strings.TrimPrefix(err.Error(), "json: ")}
		}
		if d.More() {
			return nil, controlError{http.StatusBadRequest, "the body is more than one JSON object"}
		}
		return serve(in)
	}
}

// seconds converts a number of seconds, which may be negative.
func seconds(name string, n float64) (time.Duration, error) {
	if math.Abs(n) > maxSeconds {
		return 0, unprocessable("%s is more than ten years", name)
	}
	return time.Duration(n * float64(time.Second)), nil
}

// positiveSeconds is seconds for a number that may not be negative.
func positiveSeconds(name string, n float64) (time.Duration, error) {
	if n < 0 {
		return 0, unprocessable("%s is negative", name)
	}
	return seconds(name, n)
}

// ControlURL returns the URL of the control API, which lets other programs do what a Server's methods
// do: see [ControlHelp].
func (s *Server) ControlURL() string { return s.url + controlPath }

// PublishableKey returns the instance's publishable key, pk_test_… or pk_live_…. It encodes the host of
// [Server.Issuer], as at Clerk.
func (s *Server) PublishableKey() string {
	prefix := "pk_test_"
	if strings.HasPrefix(s.secretKey, "sk_live_") {
		prefix = "pk_live_"
	}
	return prefix + base64.StdEncoding.EncodeToString([]byte(strings.TrimPrefix(s.issuer, "https://")+"$"))
}

// Environ returns variables that make an app use the server, in the form of [os.Environ]. Their names
// are those of Clerk's SDKs and guides. The webhook's secret is that of the first endpoint. CLERK_API_URL
// has no /v1, as Clerk's SDKs expect. CLERK_JWT_KEY is not among them, because each start makes a new
// key: see [Server.JWTKey].
func (s *Server) Environ() []string {
	vars := []string{
		"CLERK_SECRET_KEY=" + s.secretKey,
		"CLERK_PUBLISHABLE_KEY=" + s.PublishableKey(),
		"CLERK_API_URL=" + s.url,
		"CLERK_BACKEND_API_URL=" + s.url, // Clerk's command line
		"CLERK_JWKS_URL=" + s.url + "/.well-known/jwks.json",
	}
	if endpoints := s.endpointsNow(); len(endpoints) > 0 {
		secret := endpoints[0].Secret()
		vars = append(vars, "CLERK_WEBHOOK_SIGNING_SECRET="+secret, "CLERK_WEBHOOK_SECRET="+secret)
	}
	return vars
}

var shellSafe = regexp.MustCompile(`^[A-Za-z0-9_./:=+@%-]+$`)

// exports returns the environment as lines for a shell. A .env file may have them too.
func (s *Server) exports() string {
	var b strings.Builder
	for _, v := range s.Environ() {
		name, value, _ := strings.Cut(v, "=")
		if !shellSafe.MatchString(value) {
			value = "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
		}
		fmt.Fprintf(&b, "export %s=%s\n", name, value)
	}
	return b.String()
}

// SampleUser makes up a person with a name and an e-mail address. n counts from 0, and each n gives
// another address. SampleUser panics if n is negative.
func SampleUser(n int) NewUser {
	first, last := firstNames[n%len(firstNames)], lastNames[(n+n/len(firstNames))%len(lastNames)]
	number := ""
	if n >= len(firstNames)*len(lastNames) {
		number = fmt.Sprint(n)
	}
	return NewUser{
		FirstName: first.name, LastName: last.name,
		Email: first.mail + "." + last.mail + number + "@example.com",
	}
}

// signUpRequest is the body of POST /__fake/users.
type signUpRequest struct {
	ID              string         `json:"id"`
	FirstName       string         `json:"first_name"`
	LastName        string         `json:"last_name"`
	Username        string         `json:"username"`
	ExternalID      string         `json:"external_id"`
	Email           string         `json:"email"`
	EmailUnverified bool           `json:"email_unverified"`
	EmailStrategy   string         `json:"email_strategy"`
	Phone           string         `json:"phone"`
	ImageURL        string         `json:"image_url"`
	PublicMetadata  map[string]any `json:"public_metadata"`
	PrivateMetadata map[string]any `json:"private_metadata"`
	UnsafeMetadata  map[string]any `json:"unsafe_metadata"`
}

// controlUserID matches the ids that POST /__fake/users accepts.
var controlUserID = regexp.MustCompile(`^user_[A-Za-z0-9_-]{1,64}$`)

// signUp signs a user up. By default the user has proven the e-mail address; POST /v1/users only marks it
// as verified by an administrator. As at Clerk, an identifier that another user has is refused.
func (s *Server) signUp(in signUpRequest) (any, error) {
	switch {
	case in.ID != "" && !controlUserID.MatchString(in.ID):
		return nil, unprocessable("id is not the id of a user, such as user_ada")
	case in.Email != "" && strings.Count(in.Email, "@") != 1:
		return nil, unprocessable("email is not an e-mail address")
	case in.Phone != "" && !strings.HasPrefix(in.Phone, "+"):
		return nil, unprocessable("phone does not begin with +, such as +15550100")
	}
	u := NewUser{
		ID: in.ID, FirstName: in.FirstName, LastName: in.LastName, Username: in.Username,
		ExternalID: in.ExternalID, Email: in.Email, EmailUnverified: in.EmailUnverified,
		EmailStrategy: in.EmailStrategy, Phone: in.Phone, ImageURL: in.ImageURL,
		PublicMetadata: in.PublicMetadata, PrivateMetadata: in.PrivateMetadata, UnsafeMetadata: in.UnsafeMetadata,
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if reflect.ValueOf(in).IsZero() {
		u = s.someoneNew()
	}
	o, err := u.object(s.Now(), s.ids)
	if err != nil {
		return nil, err
	}
	if s.users.used(o.ID) {
		return nil, controlError{http.StatusConflict, "the id " + o.ID + " has been used: Clerk never uses one again"}
	}
	if err := s.checkUnique(o, func(string) bool { return true }); err != nil {
		return nil, controlError{http.StatusConflict, err.Error()}
	}
	s.create(o)
	return o, nil
}

// someoneNew is a SampleUser whose e-mail address no user has. The caller holds s.mu.
func (s *Server) someoneNew() NewUser {
	for n := len(s.users.byID); ; n++ {
		u := SampleUser(n)
		o := u.Object(s.Now())
		if s.checkUnique(o, func(param string) bool { return param == "email_address" }) == nil {
			return u
		}
	}
}

// tokenRequest is the body of POST /__fake/tokens and POST /__fake/sessions.
type tokenRequest struct {
	UserID          string         `json:"user_id"`
	Seconds         *float64       `json:"seconds"`
	AuthorizedParty string         `json:"authorized_party"`
	Pending         bool           `json:"pending"`
	Claims          map[string]any `json:"claims"`
}

// issuedToken is the answer to both.
type issuedToken struct {
	UserID    string `json:"user_id"`
	SessionID string `json:"session_id"`
	Token     string `json:"token"`
	ExpiresAt int64  `json:"expires_at"` // in ms
}

func (s *Server) issueToken(in tokenRequest) (any, error) {
	if err := s.checkUser(in.UserID); err != nil {
		return nil, err
	}
	return s.token(in, s.ids.id("sess_"))
}

func (s *Server) openSession(in tokenRequest) (any, error) {
	if err := s.checkUser(in.UserID); err != nil {
		return nil, err
	}
	if _, err := s.token(in, ""); err != nil { // a wrong request signs nobody in
		return nil, err
	}
	session, err := s.signIn(in.UserID)
	if err != nil {
		return nil, err
	}
	return s.token(in, session)
}

// checkUser returns an error if the user does not exist. [Server.Token] makes tokens for unknown
// users too, but in a request an unknown id is most likely a mistake.
func (s *Server) checkUser(id string) error {
	if id == "" {
		return unprocessable("user_id is missing: GET /v1/users lists the users")
	}
	if _, found := s.User(id); !found {
		return controlError{http.StatusNotFound, "there is no user " + id + ": GET /v1/users lists the users"}
	}
	return nil
}

func (s *Server) token(in tokenRequest, session string) (any, error) {
	valid := 60.0
	if in.Seconds != nil {
		valid = *in.Seconds
	}
	lifetime, err := seconds("seconds", valid)
	if err != nil {
		return nil, err
	}
	now := s.Now()
	expires := now.Add(lifetime)
	issued := now
	if expires.Before(now) {
		issued = expires.Add(-time.Minute)
	}
	token, err := s.Token(in.UserID, TokenOptions{
		SessionID: session, AuthorizedParty: in.AuthorizedParty, Pending: in.Pending, Claims: in.Claims,
		IssuedAt: issued, ExpiresAt: expires,
	})
	return issuedToken{UserID: in.UserID, SessionID: session, Token: token, ExpiresAt: expires.Unix() * 1000}, err
}

// outage is the outage that the control API has begun. A nil fault means that there is none.
type outage struct {
	fault *Fault
	until time.Time // zero: until it is ended
}

// now returns the fault at a time, or nil.
func (o outage) now(at time.Time) *Fault {
	if !o.until.IsZero() && !at.Before(o.until) {
		return nil
	}
	return o.fault
}

// outageRequest is the body of POST /__fake/outage.
type outageRequest struct {
	Status       int     `json:"status"`
	Hang         bool    `json:"hang"`
	DelaySeconds float64 `json:"delay_seconds"`
	Seconds      float64 `json:"seconds"`
}

// beginOutage replaces the outage there may be. A fault that SetFault chooses wins over an outage.
func (s *Server) beginOutage(in outageRequest) (any, error) {
	if in.Status != 0 && (in.Status < 400 || in.Status > 599) {
		return nil, unprocessable("status is not one of an error, from 400 to 599")
	}
	if in.Status != 0 && in.Hang {
		return nil, unprocessable("status and hang exclude each other")
	}
	delay, err := positiveSeconds("delay_seconds", in.DelaySeconds)
	if err != nil {
		return nil, err
	}
	length, err := positiveSeconds("seconds", in.Seconds)
	if err != nil {
		return nil, err
	}
	if in.Status == 0 && !in.Hang && delay == 0 {
		in.Status = http.StatusServiceUnavailable
	}
	o := outage{fault: outageFault(in.Status, length)}
	o.fault.Hang, o.fault.Delay = in.Hang, delay
	answer := map[string]any{"outage": true}
	s.mu.Lock()
	defer s.mu.Unlock()
	if length > 0 {
		o.until = s.Now().Add(length)
		answer["until"] = o.until.UnixMilli()
	}
	s.outage = o
	return answer, nil
}

// outageFault answers with a status, or as Clerk if it is 0. With 429 it also says when to try again.
func outageFault(status int, length time.Duration) *Fault {
	if status == 0 {
		return &Fault{}
	}
	code := map[int]string{
		http.StatusUnauthorized:    "clerk_key_invalid",
		http.StatusNotFound:        "resource_not_found",
		http.StatusTooManyRequests: "too_many_requests",
	}[status]
	fault := ErrorFault(status, cmp.Or(code, "internal_clerk_error"))
	if status == http.StatusTooManyRequests {
		fault.Header.Set("Retry-After", fmt.Sprint(max(1, int(math.Ceil(length.Seconds())))))
	}
	return fault
}

func (s *Server) endOutage(none) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outage = outage{}
	return map[string]bool{"outage": false}, nil
}

// webhookStatus is an endpoint in the answer of GET /__fake/webhooks. Times are in ms.
type webhookStatus struct {
	URL      string          `json:"url"`
	Secret   string          `json:"secret"`
	Events   []string        `json:"events"` // empty: all
	Outage   bool            `json:"outage"`
	Holding  bool            `json:"holding"`
	Messages []messageStatus `json:"messages"`
}

type messageStatus struct {
	ID        string          `json:"id"`
	Type      string          `json:"type"`
	State     MessageState    `json:"state"`
	CreatedAt int64           `json:"created_at"`
	NextAt    int64           `json:"next_attempt_at,omitempty"`
	Attempts  []attemptStatus `json:"attempts"`
}

type attemptStatus struct {
	At     int64  `json:"at"`
	Status int    `json:"status,omitempty"`
	Error  string `json:"error,omitempty"`
}

func (s *Server) webhookList() any {
	list := []webhookStatus{}
	for _, e := range s.endpointsNow() {
		list = append(list, e.status())
	}
	return map[string]any{"endpoints": list}
}

func (e *Endpoint) status() webhookStatus {
	w := webhookStatus{URL: e.url, Secret: e.Secret(), Events: orEmpty(e.events), Messages: []messageStatus{}}
	e.s.mu.Lock()
	w.Outage, w.Holding = e.outage, e.holding
	e.s.mu.Unlock()
	for _, m := range e.Messages() {
		status := messageStatus{
			ID: m.ID, Type: m.Type, State: m.State, CreatedAt: m.CreatedAt.UnixMilli(), Attempts: []attemptStatus{},
		}
		if !m.Next.IsZero() {
			status.NextAt = m.Next.UnixMilli()
		}
		for _, a := range m.Attempts {
			attempt := attemptStatus{At: a.At.UnixMilli(), Status: a.Status}
			if a.Err != nil {
				attempt.Error = a.Err.Error()
			}
			status.Attempts = append(status.Attempts, attempt)
		}
		w.Messages = append(w.Messages, status)
	}
	return w
}

// webhookRequest is the body of POST /__fake/webhooks.
type webhookRequest struct {
	URL    string   `json:"url"`
	Secret string   `json:"secret"`
	Events []string `json:"events"`
}

func (s *Server) addWebhook(in webhookRequest) (any, error) {
	in.Secret = cmp.Or(in.Secret, newSecret(s.ids))
	if err := checkEndpoint(in.URL, in.Secret); err != nil {
		return nil, err
	}
	return s.AddEndpoint(in.URL, EndpointOptions{Secret: in.Secret, Events: in.Events}).status(), nil
}

// planRequest is the body of POST /__fake/webhooks/next.
type planRequest struct {
	Messages     *int    `json:"messages"`
	Drop         bool    `json:"drop"`
	Copies       int     `json:"copies"`
	DelaySeconds float64 `json:"delay_seconds"`
}

// planMessages decides how the next messages are delivered, after those that were planned before.
func (s *Server) planMessages(in planRequest) (any, error) {
	n := 1
	if in.Messages != nil {
		n = *in.Messages
	}
	delay, err := positiveSeconds("delay_seconds", in.DelaySeconds)
	switch {
	case err != nil:
		return nil, err
	case n < 1 || n > maxPlanned:
		return nil, unprocessable("messages is not from 1 to %d", maxPlanned)
	case in.Copies < 0 || in.Copies > maxCopies:
		return nil, unprocessable("copies is not from 1 to %d", maxCopies)
	case !in.Drop && in.Copies == 0 && delay == 0:
		return nil, unprocessable("nothing is to happen: set drop, copies or delay_seconds")
	case in.Drop && (in.Copies != 0 || delay != 0):
		return nil, unprocessable("drop excludes copies and delay_seconds")
	}
	how := Delivery{Drop: in.Drop, Copies: in.Copies, Delay: delay}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.plan)+n > maxPlanned {
		return nil, unprocessable("%d messages are planned already, and %d is the most", len(s.plan), maxPlanned)
	}
	s.plan = append(s.plan, slices.Repeat([]Delivery{how}, n)...)
	return map[string]int{"planned": len(s.plan)}, nil
}

func (s *Server) setAppOutage(outage bool) any {
	for _, e := range s.endpointsNow() {
		e.SetOutage(outage)
	}
	return map[string]bool{"outage": outage}
}

func (s *Server) holdMessages(none) (any, error) {
	for _, e := range s.endpointsNow() {
		e.Hold()
	}
	return map[string]bool{"holding": true}, nil
}

// releaseRequest is the body of POST /__fake/webhooks/release.
type releaseRequest struct {
	Messages []string `json:"messages"`
}

func (s *Server) releaseMessages(in releaseRequest) (any, error) {
	var refused error
	released := false
	for _, e := range s.endpointsNow() {
		if err := e.Release(in.Messages...); err != nil {
			refused = err
		} else {
			released = true
		}
	}
	if !released && len(in.Messages) > 0 {
		return nil, cmp.Or(refused, unprocessable("there is no endpoint"))
	}
	return map[string]bool{"holding": len(in.Messages) > 0}, nil
}

// replayRequest is the body of POST /__fake/webhooks/replay.
type replayRequest struct {
	Message string `json:"message"`
}

func (s *Server) replayMessage(in replayRequest) (any, error) {
	replayed := false
	for _, e := range s.endpointsNow() {
		replayed = e.Replay(in.Message) == nil || replayed
	}
	if !replayed {
		return nil, controlError{http.StatusNotFound, "there is no such message: GET /__fake/webhooks lists them"}
	}
	return map[string]string{"replayed": in.Message}, nil
}
