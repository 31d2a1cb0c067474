package clerksync_test

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	clerkhttp "github.com/clerk/clerk-sdk-go/v2/http"
	"github.com/clerk/clerk-sdk-go/v2/jwt"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// TestSessionTokens sends every kind of token and header through the SDK's own middleware and
// through ours, with the claims in versions 1 and 2, and logs in which cases the two differ.
func TestSessionTokens(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{Email: "ada@example.com"})
	cases := authCases()
	t.Run("cases", func(t *testing.T) {
		for _, tt := range cases {
			for version := 1; version <= 2; version++ {
				t.Run(fmt.Sprintf("%s, v%d", tt.name, version), func(t *testing.T) {
					t.Parallel()
					tt.run(t, fx, id, version)
				})
			}
		}
	})

	var table strings.Builder
	tw := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprint(tw, "\nthe SDK accepts, clerksync refuses\tSDK\tclerksync\n")
	for _, tt := range cases {
		if tt.theirs == 200 && tt.code != "" {
			fmt.Fprintf(tw, "%s\t%d\t%d %s\n", tt.name, tt.theirs, tt.ours(), tt.code)
		}
	}
	fmt.Fprint(tw, "\nthe SDK refuses, clerksync accepts\tSDK\tclerksync\n")
	for _, tt := range cases {
		if tt.theirs != 200 && tt.code == "" {
			fmt.Fprintf(tw, "%s\t%d\t%d\n", tt.name, tt.theirs, tt.ours())
		}
	}
	tw.Flush()
	t.Log(table.String())
}

func (tt authCase) run(t *testing.T, fx *fixture, id string, version int) {
	tt.subject = cmp.Or(tt.subject, id)
	if tt.payload != "" {
		tt.auth.JWTKey = testSigner().pem
		tt.sdk = append(slices.Clone(tt.sdk), clerkhttp.JSONWebKey(testSigner().pem))
	}
	token := tt.token(t, fx, version)
	rec := httptest.NewRecorder()
	nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	fx.sdkRequire(nothing, tt.sdk...).ServeHTTP(rec, tt.request(t, token))
	if rec.Code != tt.theirs {
		t.Errorf("the SDK answers %d, want %d", rec.Code, tt.theirs)
	}
	s := fx.syncer(t, func(c *clerksync.Config) { c.Auth = tt.auth })
	got := tt.checkRequireUser(t, s, token, id)
	claims := tt.checkAuthenticate(t, s, fx, token)
	for _, c := range got {
		if c != claims {
			t.Error("a cached token was verified again")
		}
	}
}

// token makes the case's token.
func (tt *authCase) token(t *testing.T, fx *fixture, version int) string {
	t.Helper()
	var token string
	if tt.payload != "" {
		payload := strings.ReplaceAll(tt.payload, "ID", tt.subject)
		token = testSigner().sign(cmp.Or(tt.head, sessionHeader), payload)
	} else {
		opts := tt.opts
		opts.Version = version
		if tt.claims != nil {
			opts.Claims = tt.claims
		}
		token = fx.token(t, tt.subject, opts)
	}
	if tt.change != nil {
		token = tt.change(token)
	}
	return token
}

// request makes the case's request.
func (tt *authCase) request(t *testing.T, token string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	header := tt.header
	if header == nil {
		header = bearer
	}
	if values := header(token); values != nil {
		r.Header["Authorization"] = values
	}
	if tt.cookie != nil {
		r.Header.Set("Cookie", "__session="+tt.cookie(token))
	}
	return r
}

// checkRequireUser sends the request three times, so that the later ones are cached, and returns
// the claims that the handler got.
func (tt *authCase) checkRequireUser(
	t *testing.T, s *clerksync.Syncer, token, id string,
) (got []*clerk.SessionClaims) {
	t.Helper()
	const times = 3
	reached := &me{}
	h := s.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := clerk.SessionClaimsFromContext(r.Context())
		got = append(got, claims)
		reached.ServeHTTP(w, r)
	}))
	for range times {
		a := answerOf(h, tt.request(t, token))
		if tt.code != "" {
			checkProblem(t, a, tt.ours(), tt.code)
		} else if a.status != 200 || !strings.Contains(string(a.body), id) {
			t.Fatalf("answered %d: %s", a.status, a.body)
		}
		if strings.Contains(string(a.body), "ada@") != (tt.code == "") {
			t.Errorf("the body is %s", a.body)
		}
	}
	want := times
	if tt.code != "" {
		want = 0
	}
	if n := int(reached.served.Load()); n != want {
		t.Errorf("the handler ran %d times, want %d", n, want)
	}
	return got
}

// checkAuthenticate checks the claims, or the error, that Authenticate returns, and returns the
// claims.
func (tt *authCase) checkAuthenticate(
	t *testing.T, s *clerksync.Syncer, fx *fixture, token string,
) *clerk.SessionClaims {
	t.Helper()
	claims, err := s.Authenticate(tt.request(t, token))
	if tt.ours() != 401 {
		if err != nil {
			t.Fatalf("Authenticate: %v", err)
		}
		checkSDKClaims(t, claims, token, fx, tt)
		return claims
	}
	var p *clerksync.Problem
	if claims != nil || !errors.As(err, &p) || p.Code != tt.code || !errors.Is(err, clerksync.ErrUnauthenticated) {
		t.Errorf("Authenticate: %+v, %v; want %s", claims, err, tt.code)
	}
	return claims
}

// checkSDKClaims checks that the claims are those of the SDK's own verification, unexported fields
// included.
func checkSDKClaims(t *testing.T, claims *clerk.SessionClaims, token string, fx *fixture, tt *authCase) {
	t.Helper()
	key := fx.clerk.JWTKey()
	if tt.payload != "" {
		key = testSigner().pem
	}
	jwk, err := clerk.JSONWebKeyFromPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	params := &jwt.VerifyParams{
		Token: token, JWK: jwk, Clock: fx.clock, Leeway: max(tt.auth.Leeway, 5*time.Second),
		CustomClaimsConstructor: tt.auth.CustomClaims,
	}
	if tt.cookie != nil && tt.header != nil {
		params.Token = tt.cookie(token)
	}
	if tt.auth.Issuer != "" {
		params.ProxyURL = &tt.auth.Issuer
	}
	want, err := jwt.Verify(t.Context(), params)
	if err != nil {
		t.Fatalf("the SDK's Verify: %v", err)
	}
	if !reflect.DeepEqual(claims, want) {
		t.Errorf("claims are\n%+v\nthe SDK's\n%+v", claims, want)
	}
}

// Auth.Issuer may be written in another way than in the tokens, as long as it is the same URL.
func TestFormsOfTheIssuer(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	for _, tt := range []struct {
		set, issuer string
		accepted    bool
	}{
		{proxyURL, proxyURL, true},
		{proxyURL + "/", proxyURL, true},
		{proxyURL + "//", proxyURL, true},
		{"\t" + proxyURL + "/\n", proxyURL, true},
		{proxyURL + "/", proxyURL + "/", true}, // if Clerk should have it
		{proxyURL, proxyURL + "/", false},
		{"HTTPS://App.Example.com/__clerk", "https://app.example.com/__clerk", true},
		{"https://app.example.com:443/__clerk", "https://app.example.com/__clerk", true},
		{"https://app.example.com:8443/__clerk/", "https://app.example.com:8443/__clerk", true},
		{"https://app.example.com:8443/__clerk", "https://app.example.com/__clerk", false},
		{"https://clerk.example.com/", "https://clerk.example.com", true},
		{"https://clerk.example.com/", "https://clerk.example.org", false},
		{"https://app.example.com/__Clerk", "https://app.example.com/__clerk", false},
		{"https://app.example.com", "https://app.example.com/__clerk", false},
		{"https://app.example.com", "", false},
	} {
		s := fx.syncer(t, func(c *clerksync.Config) { c.Auth.Issuer = tt.set })
		code := "token_wrong_issuer"
		if tt.accepted {
			code = ""
		}
		token := fx.token(t, "user_1", fakeclerk.TokenOptions{Claims: map[string]any{"iss": tt.issuer}})
		if got := authenticate(t, s, token); got != code {
			t.Errorf("Issuer %q, and a token of %q: %q, want %q", tt.set, tt.issuer, got, code)
		}
	}
}

// A real server parses the header lines.
func TestRequireUserThroughAServer(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	var handler me
	url := serve(t, fx.RequireUser(&handler))
	request := func(values ...string) answer {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header["Authorization"] = values
		return send(t, r)
	}
	token := fx.clerk.SessionToken(id)
	for _, form := range []string{"Bearer ", "bearer ", "BEARER  ", " bEaReR "} {
		for _, values := range [][]string{{form + token}, {form + token, "Bearer " + token}, {form + token + ", Bearer " + token}} {
			if a := request(values...); a.status != 200 || !strings.Contains(string(a.body), id) {
				t.Errorf("%q, %d lines: %d %s", form, len(values), a.status, a.body)
			}
		}
	}
	served := handler.served.Load()
	checkProblem(t, request(), 401, "token_missing")
	checkProblem(t, request("Bearer "+token, "Bearer "+fx.clerk.SessionToken("user_2")), 401, "token_malformed")
	checkProblem(t, request("Bearer "+token+" "+token), 401, "token_malformed")
	checkProblem(t, request("Bearer "+fx.clerk.SessionToken("mch_1")), 401, "token_wrong_class")
	if handler.served.Load() != served {
		t.Error("the handler ran")
	}
	if strings.Contains(fx.logs.String(), token) {
		t.Error("the log shows a token")
	}
}

func TestImpersonation(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{Email: "ada@example.com"})
	actor := fx.clerk.CreateUser(fakeclerk.NewUser{Email: "support@example.com"})
	token := fx.token(t, id, fakeclerk.TokenOptions{Actor: &fakeclerk.Actor{Subject: actor}})
	ran := false
	h := fx.RequireUser(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ran = true
		u, _ := clerksync.UserFromContext(r.Context())
		if u.ClerkID != id || u.Email != "ada@example.com" || !u.LastSignInAt.IsZero() {
			t.Errorf("record is %+v, want the impersonated user's", u)
		}
		claims, ok := clerk.SessionClaimsFromContext(r.Context())
		var act struct{ Sub string }
		if !ok || json.Unmarshal(claims.Actor, &act) != nil || act.Sub != actor {
			t.Errorf("the handler sees the actor %s", claims.Actor)
		}
	}))
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	h.ServeHTTP(httptest.NewRecorder(), r)
	if !ran {
		t.Fatal("the handler did not run")
	}
	if u, err := fx.store.Store.User(t.Context(), actor); !errors.Is(err, clerksync.ErrNotFound) {
		t.Errorf("the actor has the record %+v, %v", u, err)
	}
}

func TestWithUser(t *testing.T) {
	t.Parallel()
	type opts = fakeclerk.TokenOptions
	expired := t0.Add(-90 * time.Second)
	two := func(token string) []string { return []string{"Bearer " + token, "Bearer another"} }
	twice := func(token string) []string { return []string{"Bearer " + token, "Bearer " + token} }
	for name, tt := range map[string]struct {
		opts   opts
		change func(string) string
		header func(string) []string // defaults to none: the token is the cookie
		code   string                // "" if the request gets through
		user   bool
	}{
		"signed in":         {header: bearer, user: true},
		"signed in, cookie": {user: true},
		"no token":          {header: noHeader, change: becomes("")},
		"empty bearer":      {header: headerForm("Bearer "), change: becomes("")},
		"another scheme":    {header: headerForm("Basic dXNlcjpwYXNz"), change: becomes("")},
		"pending":           {header: bearer, opts: opts{Pending: true}},
		"pending cookie":    {opts: opts{Pending: true}},
		"expired cookie":    {opts: opts{IssuedAt: expired}},
		"expired":           {header: bearer, opts: opts{IssuedAt: expired}, code: "token_expired"},
		"malformed":         {header: bearer, change: becomes("nonsense"), code: "token_malformed"},
		"malformed cookie":  {change: becomes("nonsense"), code: "token_malformed"},
		"not yet valid":     {opts: opts{IssuedAt: t0.Add(time.Minute)}, code: "token_not_yet_valid"},
		"wrong class":       {opts: opts{Class: fakeclerk.TemplateToken}, code: "token_wrong_class"},
		"wrong party":       {opts: opts{AuthorizedParty: otherOrigin}, code: "token_wrong_party"},
		"two headers":       {header: two, code: "token_malformed"},
		"the same header":   {header: twice, user: true},
		// A browser also sends the cookies of other apps on the host.
		"cookie of another issuer": {opts: opts{Issuer: "https://evil.com"}},
		"cookie of another key":    {opts: opts{WrongKey: true}},
		"cookie of an unknown key": {opts: opts{KeyID: "ins_unknown"}},
		"cookie without azp":       {opts: opts{Claims: map[string]any{"azp": nil}}},
		"cookie, expired, pending, and of a wrong key": {
			opts: opts{IssuedAt: expired, Pending: true, WrongKey: true},
		},
		// A header was sent on purpose.
		"wrong issuer": {header: bearer, opts: opts{Issuer: "https://evil.com"}, code: "token_wrong_issuer"},
		"wrong key":    {header: bearer, opts: opts{WrongKey: true}, code: "token_bad_signature"},
		"unknown key":  {header: bearer, opts: opts{KeyID: "ins_unknown"}, code: "token_unknown_key"},
		"without azp": {
			header: bearer, opts: opts{Claims: map[string]any{"azp": nil}}, code: "token_wrong_party",
		},
		"null":           {header: headerForm("Bearer null"), change: becomes("")},
		"undefined":      {header: headerForm("bearer undefined"), change: becomes("")},
		"null cookie":    {change: becomes("null")},
		"template token": {header: bearer, opts: opts{Class: fakeclerk.TemplateToken}, code: "token_wrong_class"},
		"expired, pending, and of a wrong key": {
			header: bearer, opts: opts{IssuedAt: expired, Pending: true, WrongKey: true}, code: "token_bad_signature",
		},
		"expired, and of another origin": {
			opts: opts{IssuedAt: expired, AuthorizedParty: otherOrigin}, code: "token_wrong_party",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, func(c *clerksync.Config) {
				c.Auth = clerksync.AuthConfig{Cookie: true, AuthorizedParties: []string{appOrigin}}
			})
			id := fx.clerk.CreateUser(fakeclerk.NewUser{})
			if tt.opts.AuthorizedParty == "" {
				tt.opts.AuthorizedParty = appOrigin
			}
			token := fx.token(t, id, tt.opts)
			if tt.change != nil {
				token = tt.change(token)
			}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			if tt.header != nil {
				r.Header["Authorization"] = tt.header(token)
			} else {
				r.Header.Set("Cookie", "theme=dark; __session="+token+"; other=1")
			}
			ran := 0
			h := fx.WithUser(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				ran++
				u, ok := clerksync.UserFromContext(r.Context())
				claims, signedIn := clerk.SessionClaimsFromContext(r.Context())
				if ok != tt.user || signedIn != tt.user || tt.user && (u.ClerkID != id || claims.Subject != id) {
					t.Errorf("the handler got %+v and %+v", u, claims)
				}
			}))
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			if tt.code != "" {
				checkProblem(t, answer{rec.Code, rec.Header(), rec.Body.Bytes()}, 401, tt.code)
			}
			if (ran == 1) != (tt.code == "") {
				t.Errorf("the handler ran %d times", ran)
			}
			if !tt.user && (fx.store.users.Load() != 0 || fx.userCalls() != 0) {
				t.Errorf("%d reads of the Store, %d Clerk calls without a user", fx.store.users.Load(), fx.userCalls())
			}
		})
	}
}

// If CustomClaims returns nothing to decode into, that is the app's fault: the answer is 500.
func TestUselessCustomClaims(t *testing.T) {
	t.Parallel()
	for name, custom := range map[string]any{
		"nil": nil, "a nil pointer": (*customClaims)(nil), "no pointer": customClaims{},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, func(c *clerksync.Config) {
				c.Auth.CustomClaims = func(context.Context) any { return custom }
			})
			rec := httptest.NewRecorder()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			r.Header.Set("Authorization", "Bearer "+fx.clerk.SessionToken("user_1"))
			handler := &me{}
			fx.RequireUser(handler).ServeHTTP(rec, r)
			checkProblem(t, answer{rec.Code, rec.Header(), rec.Body.Bytes()}, 500, "internal")
			if handler.served.Load() != 0 || !strings.Contains(fx.logs.String(), "CustomClaims") {
				t.Errorf("the handler ran, or the log does not say why: %s", fx.logs)
			}
		})
	}
}

// In an outage, WithUser does not treat a visitor with a token as signed out.
func TestWithUserInAnOutage(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	fx.clerk.SetFault(down)
	next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") })
	for _, wrap := range []http.Handler{fx.WithUser(next), fx.RequireUser(next)} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+fx.clerk.SessionToken("user_1"))
		rec := httptest.NewRecorder()
		wrap.ServeHTTP(rec, r)
		checkProblem(t, answer{rec.Code, rec.Header(), rec.Body.Bytes()}, 503, "unavailable")
	}
}

// The SDK's reverification, which reads the claims from the context, works behind RequireUser.
func TestReverificationBehindRequireUser(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	h := fx.RequireUser(clerkhttp.NeedsSessionReverification(clerk.SessionReverificationPolicy{
		Level: clerk.SessionReverificationLevelFirstFactor, AfterMinutes: 10,
	})(&me{}))
	for minutes, want := range map[int]int{0: 200, 10: 200, 11: 403} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		claims := map[string]any{"fva": []int{minutes, -1}}
		r.Header.Set("Authorization", "Bearer "+fx.token(t, id, fakeclerk.TokenOptions{Claims: claims}))
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != want {
			t.Errorf("%d minutes after the first factor: %d, want %d", minutes, rec.Code, want)
		}
	}
}

// With two instances in one process, the SDK's middleware of one accepts the other's tokens once the
// other has verified one, because all share the process's cache of keys. Ours never does.
func TestTokensOfAnotherInstance(t *testing.T) {
	t.Parallel()
	// New ids each time, because the SDK caches the keys of every instance id that it has seen.
	a := startFixture(t, fakeclerk.Config{RateLimit: -1, InstanceID: "ins_" + rand.Text()}, nil)
	b := startFixture(t, fakeclerk.Config{RateLimit: -1, InstanceID: "ins_" + rand.Text()}, nil)
	request := func(h func(http.Handler) http.Handler, token string) int {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		rec := httptest.NewRecorder()
		h(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(rec, r)
		return rec.Code
	}
	theirs := func(fx *fixture) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler { return fx.sdkRequire(next) }
	}
	// Both instances have the same user id and session.
	const id = "user_shared"
	tokenA := a.token(t, id, fakeclerk.TokenOptions{SessionID: "sess_1"})
	tokenB := b.token(t, id, fakeclerk.TokenOptions{SessionID: "sess_1"})
	check := func() {
		t.Helper()
		a.wantCode(t, tokenB, "token_unknown_key")
		b.wantCode(t, tokenA, "token_unknown_key")
		a.wantCode(t, a.token(t, id, fakeclerk.TokenOptions{KeyID: b.clerk.InstanceID()}), "token_unknown_key")
		b.wantCode(t, a.token(t, id, fakeclerk.TokenOptions{KeyID: b.clerk.InstanceID()}), "token_bad_signature")
	}
	check()
	for range 2 {
		a.wantCode(t, tokenA, "")
		b.wantCode(t, tokenB, "")
		check()
		a.clock.Advance(10 * time.Second)
		b.clock.Advance(10 * time.Second)
	}
	if got := request(theirs(a), tokenB); got != 401 {
		t.Errorf("the SDK answered %d before it saw the other instance", got)
	}
	request(theirs(b), tokenB)
	if got := request(theirs(a), tokenB); got != 200 {
		t.Errorf("the SDK answered %d to the other instance's token; it no longer shares the keys", got)
	}
	if got := request(a.RequireUser, tokenB); got != 401 {
		t.Errorf("RequireUser answered %d to the other instance's token", got)
	}
	// The same holds with JWTKey.
	static := a.syncer(t, func(c *clerksync.Config) { c.Auth.JWTKey = a.clerk.JWTKey() })
	if got := authenticate(t, static, tokenB); got != "token_bad_signature" {
		t.Errorf("with JWTKey: %q", got)
	}
	if got := authenticate(t, static, tokenA); got != "" {
		t.Errorf("its own token, with JWTKey: %q", got)
	}
}

func TestNewReportsAuthFaults(t *testing.T) {
	t.Parallel()
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private := string(pem.EncodeToMemory(&pem.Block{
		Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(testSigner().key),
	}))
	key := testSigner().pem
	parties := func(all ...string) clerksync.AuthConfig { return clerksync.AuthConfig{AuthorizedParties: all} }
	cookie := func(parties []string) clerksync.AuthConfig {
		return clerksync.AuthConfig{Cookie: true, AuthorizedParties: parties}
	}
	jwtKey := func(key string) clerksync.AuthConfig { return clerksync.AuthConfig{JWTKey: key} }
	badParty := []string{"Config.Auth.AuthorizedParties[0] is not an origin"}
	const needsParties = "Config.Auth.Cookie needs Auth.AuthorizedParties"
	for name, tt := range map[string]struct {
		auth clerksync.AuthConfig
		want []string
	}{
		"nothing set":         {clerksync.AuthConfig{}, nil},
		"cookie with parties": {cookie([]string{appOrigin}), nil},
		"origins of all sorts": {parties(
			"https://app.example.com", "http://localhost:3000", "https://[::1]:8443", "capacitor://localhost",
			"chrome-extension://abcdefghijklmnop",
		), nil},
		"cookie without parties":    {clerksync.AuthConfig{Cookie: true}, []string{needsParties}},
		"cookie with empty parties": {cookie([]string{}), []string{needsParties}},
		"several parties, one bad": {
			parties(appOrigin, appOrigin+"/login"), []string{"Config.Auth.AuthorizedParties[1] is not an origin"},
		},
		"party with a slash":         {parties(appOrigin + "/"), nil},
		"no party allowed":           {clerksync.AuthConfig{AllowNoParty: true}, nil},
		"party with a path":          {parties(appOrigin + "/login"), badParty},
		"party with a query":         {parties(appOrigin + "?a=1"), badParty},
		"party with a fragment":      {parties(appOrigin + "#a"), badParty},
		"party with a user":          {parties("https://me@app.example.com"), badParty},
		"party a host":               {parties("app.example.com"), badParty},
		"party empty":                {parties(""), badParty},
		"party any":                  {parties("*"), badParty},
		"party null":                 {parties("null"), badParty},
		"party with space around it": {parties(" " + appOrigin + "\n"), nil},
		"parties in one entry":       {parties(appOrigin + " " + otherOrigin), badParty},
		"key":                        {jwtKey(key), nil},
		"key, white space around it": {jwtKey("\n  " + key + "\t"), nil},
		"key on one line":            {jwtKey(strings.ReplaceAll(key, "\n", `\n`)), nil},
		"key with CRLF":              {jwtKey(strings.ReplaceAll(key, "\n", "\r\n")), nil},
		"key blank":                  {jwtKey(" \n"), nil},
		"key nonsense":               {jwtKey("nonsense"), []string{"Config.Auth.JWTKey is not an RSA public key"}},
		"key secret":                 {jwtKey("sk_test_secret"), []string{"JWTKey"}},
		"key private":                {jwtKey(private), []string{"JWTKey"}},
		"key cut off":                {jwtKey(key[:200]), []string{"JWTKey"}},
		"key damaged":                {jwtKey(strings.Replace(key, "MIIB", "AAAA", 1)), []string{"JWTKey"}},
		"key of a curve":             {jwtKey(publicPEM(&curve.PublicKey)), []string{"JWTKey"}},
		"key too small":              {jwtKey(publicPEM(&small.PublicKey)), []string{"2048 bits or more"}},
		"all at once": {
			clerksync.AuthConfig{Cookie: true, JWTKey: "nonsense"},
			[]string{"Auth.Cookie", "Auth.JWTKey"},
		},
		"all at once, with parties": {
			clerksync.AuthConfig{Cookie: true, JWTKey: "nonsense", AuthorizedParties: []string{"*", appOrigin, "x"}},
			[]string{"AuthorizedParties[0]", "AuthorizedParties[2]", "JWTKey"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := clerksync.Config{Store: &generatedUsers{}, SecretKey: "sk_test_secret", Auth: tt.auth}
			s, err := clerksync.New(cfg)
			if tt.want == nil {
				if err != nil {
					t.Fatalf("New: %v", err)
				}
				_ = s.Close()
				return
			}
			checkFaults(t, err, tt.want)
			if s != nil {
				t.Error("New returned a Syncer beside the error")
			}
			if k := tt.auth.JWTKey; len(k) > 3 && strings.Contains(err.Error(), k) {
				t.Errorf("the error shows the key: %v", err)
			}
		})
	}
	t.Run("beside others", func(t *testing.T) {
		t.Parallel()
		auth := clerksync.AuthConfig{Cookie: true, JWTKey: private}
		_, err := clerksync.New(clerksync.Config{CacheSize: -1, Auth: auth})
		checkFaults(t, err, []string{"Store", "SecretKey", "CacheSize", "Auth.Cookie", "Auth.JWTKey"})
		if strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("the error shows the key: %v", err)
		}
	})
}

// With JWTKey no key is ever fetched.
func TestJWTKeyNeedsNoNetwork(t *testing.T) {
	t.Parallel()
	for name, form := range map[string]func(string) string{
		"as it is":              func(key string) string { return key },
		"line breaks as \\n":    func(key string) string { return strings.ReplaceAll(key, "\n", `\n`) },
		"line breaks as \\r\\n": func(key string) string { return strings.ReplaceAll(key, "\n", "\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			s := fx.syncer(t, func(c *clerksync.Config) { c.Auth.JWTKey = form(fx.clerk.JWTKey()) })
			want := func(token, code string) {
				t.Helper()
				if got := authenticate(t, s, token); got != code {
					t.Errorf("answered %q, want %q", got, code)
				}
			}
			for range 3 {
				token := fx.clerk.SessionToken("user_1")
				want(token, "")
				want(token, "")
				want(fx.token(t, "user_1", fakeclerk.TokenOptions{KeyID: "ins_2"}), "") // the key id is ignored
				want(fx.token(t, "user_1", fakeclerk.TokenOptions{WrongKey: true}), "token_bad_signature")
				forged := fakeclerk.TokenOptions{KeyID: "ins_2", WrongKey: true}
				want(fx.token(t, "user_1", forged), "token_bad_signature")
				fx.clock.Advance(2 * time.Hour)
				want(token, "token_expired")
			}
			fx.clerk.RotateKey()
			want(fx.clerk.SessionToken("user_1"), "token_bad_signature")
			fx.wantKeyFetches(t, 0)
		})
	}
}

// Authenticate reads neither the record nor the user, and writes nothing.
func TestAuthenticateTouchesNoRecord(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	fx.store.fail(errDown)
	claims := map[string]any{"updated_at": t0.Add(time.Hour).UnixMilli()}
	token := fx.token(t, id, fakeclerk.TokenOptions{Claims: claims})
	for _, token := range []string{token, token, fx.clerk.SessionToken("user_ghost"), fx.clerk.SessionToken(id)} {
		fx.wantCode(t, token, "")
	}
	if len(fx.seen.all) != 0 || fx.logs.String() != "" {
		t.Errorf("it was observed (%+v) or logged (%s)", fx.seen.all, fx.logs)
	}
	fx.wantCode(t, "nonsense", "token_malformed")
	fx.wantCode(t, fx.token(t, id, fakeclerk.TokenOptions{IssuedAt: t0.Add(-time.Hour)}), "token_expired")
	if fx.store.users.Load() != 0 || fx.store.upserts.Load() != 0 || fx.clerk.Calls("") != fx.clerk.Calls(jwksRoute) {
		t.Errorf("%s, want no call about a user", fx.calls())
	}
	checkTrace(t, fx, clerksync.OpVisit, "token_expired")
	if len(fx.seen.all) != 2 || strings.Count(fx.logs.String(), "\n") != 2 {
		t.Errorf("observed %+v, logged %s, want the two refusals", fx.seen.all, fx.logs)
	}
}

// A cached token ends at its exp and the leeway, by the injected clock.
func TestCachedTokenEnds(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	token := fx.clerk.SessionToken("user_1")
	for _, step := range []struct {
		wait time.Duration
		code string
	}{
		{0, ""}, {time.Minute, ""}, {5*time.Second - time.Millisecond, ""},
		{time.Millisecond, "token_expired"}, {time.Hour, "token_expired"},
	} {
		fx.clock.Advance(step.wait)
		fx.wantCode(t, token, step.code)
		fx.wantCode(t, token, step.code)
	}
}

// Many goroutines use the same tokens at once, and more tokens than the cache holds.
func TestTokensAtOnce(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) { c.Auth.TokenCacheSize = 3 })
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	tokens := make([]string, 10)
	for i := range tokens {
		tokens[i] = fx.token(t, id, fakeclerk.TokenOptions{SessionID: fmt.Sprintf("sess_%d", i)})
	}
	var wrong atomic.Int32
	h := fx.RequireUser(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		claims, _ := clerk.SessionClaimsFromContext(r.Context())
		if claims.SessionID != r.Header.Get("Want") {
			wrong.Add(1)
		}
	}))
	var all sync.WaitGroup
	for g := range 16 {
		all.Go(func() {
			for i := range 50 {
				n := (g + i) % len(tokens)
				r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil)
				r.Header.Set("Authorization", "Bearer "+tokens[n])
				r.Header.Set("Want", fmt.Sprintf("sess_%d", n))
				rec := httptest.NewRecorder()
				if h.ServeHTTP(rec, r); rec.Code != 200 {
					wrong.Add(1)
				}
			}
		})
	}
	all.Wait()
	if wrong.Load() != 0 {
		t.Errorf("%d requests got another's claims or none", wrong.Load())
	}
	fx.wantKeyFetches(t, 1)
}

// Made-up key ids cost neither calls to Clerk nor memory. Not parallel: the test counts goroutines
// and memory.
func TestForgedKeyIDsCostNothing(t *testing.T) {
	fx := newFixture(t, func(c *clerksync.Config) { c.Observe = nil }) // it would keep each refusal
	genuine := fx.token(t, "user_1", fakeclerk.TokenOptions{ExpiresAt: t0.Add(time.Hour)})
	fx.wantCode(t, genuine, "")
	parts := strings.Split(genuine, ".")
	forged := func(i int) string {
		header := fmt.Sprintf(`{"alg":"RS256","cat":"cl_B7d4PD111AAA","kid":"ins_forged%d","typ":"JWT"}`, i)
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + parts[1] + "." + parts[2]
	}
	forge := func(from, to int) {
		var all sync.WaitGroup
		for g := range 10 {
			all.Go(func() {
				for i := from + g; i < to; i += 10 {
					r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", nil)
					r.Header.Set("Authorization", "Bearer "+forged(i))
					var p *clerksync.Problem
					if _, err := fx.Authenticate(r); !errors.As(err, &p) || p.Code != "token_unknown_key" {
						t.Errorf("answered %v", err)
						return
					}
				}
			})
		}
		all.Wait()
	}
	forge(0, 1000)
	goroutines, memory := runtime.NumGoroutine(), heap()
	forge(1000, 10_000)
	clerksync.WaitBackground(fx.Syncer)
	if got := fx.clerk.Calls(jwksRoute); got > 2 {
		t.Errorf("%d fetches of the keys", got)
	}
	settled(t, goroutines+5)
	if got := heap(); got > memory+1<<20 {
		t.Errorf("%d bytes more on the heap", got-memory)
	}
	fx.wantCode(t, genuine, "")
}

func TestCookieOfAnotherOriginsRequest(t *testing.T) {
	t.Parallel()
	const app, api, evil = appOrigin, "https://api.example.com", "https://evil.test"
	fx := newFixture(t, func(c *clerksync.Config) { c.Auth.Cookie, c.Auth.AuthorizedParties = true, []string{app} })
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	token, err := fx.clerk.Token(id, fakeclerk.TokenOptions{AuthorizedParty: app})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		method, site, origin string
		bearer, upgrade      bool
		code                 string // "" for 200
	}{
		"a WebSocket of another origin":       {method: "GET", site: "same-site", origin: otherOrigin, upgrade: true, code: "cross_origin"},
		"a WebSocket of an authorized party":  {method: "GET", site: "same-site", origin: app, upgrade: true},
		"a WebSocket of another, with header": {method: "GET", site: "cross-site", origin: evil, upgrade: true, bearer: true},

		"own page":                   {method: "POST", site: "same-origin", origin: api},
		"own page, old browser":      {method: "POST", origin: api},
		"authorized party":           {method: "POST", site: "same-site", origin: app},
		"another origin of the site": {method: "POST", site: "same-site", origin: otherOrigin, code: "cross_origin"},
		"another site":               {method: "DELETE", site: "cross-site", origin: evil, code: "cross_origin"},
		"another site, old browser":  {method: "POST", origin: evil, code: "cross_origin"},
		"another site reads":         {method: "GET", site: "cross-site"},
		"no browser":                 {method: "POST"},
		"another site with a header": {method: "POST", site: "cross-site", origin: evil, bearer: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(tt.method, api+"/x", nil)
			if tt.upgrade {
				r.Header.Set("Upgrade", "websocket")
			}
			if tt.bearer {
				r.Header.Set("Authorization", "Bearer "+token)
			} else {
				r.AddCookie(&http.Cookie{Name: "__session", Value: token})
			}
			for name, value := range map[string]string{"Sec-Fetch-Site": tt.site, "Origin": tt.origin} {
				if value != "" {
					r.Header.Set(name, value)
				}
			}
			for _, wrap := range []func(http.Handler) http.Handler{fx.RequireUser, fx.WithUser} {
				a := answerOf(wrap(&me{}), r)
				if tt.code != "" {
					checkProblem(t, a, 403, tt.code)
				} else if a.status != 200 {
					t.Errorf("%d %s", a.status, a.body)
				}
			}
		})
	}
}
