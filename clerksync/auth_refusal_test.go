package clerksync_test

import (
	"cmp"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// refusedRequest is a request that comes to no visit, and what the log says of it.
type refusedRequest struct {
	opts    fakeclerk.TokenOptions
	request func(token string) *http.Request // defaults to a bearer token
	change  func(*clerksync.Config)
	code    string
	want    []string // texts of the log line
}

func refusedRequests() map[string]refusedRequest {
	type opts = fakeclerk.TokenOptions
	type claims = map[string]any
	noCredential := func(string) *http.Request { return httptest.NewRequest(http.MethodGet, "/", nil) }
	cookie := func(token string) *http.Request {
		r := noCredential("")
		r.AddCookie(&http.Cookie{Name: "__session", Value: token})
		return r
	}
	two := func(token string) *http.Request {
		r := bearing("Bearer " + token)
		r.Header.Add("Authorization", "Bearer hunter2")
		return r
	}
	header := func(form string) func(string) *http.Request {
		return func(token string) *http.Request { return bearing(strings.ReplaceAll(form, "TOKEN", token)) }
	}
	crossSite := func(token string) *http.Request {
		r := cookie(token)
		r.Method = http.MethodPost
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		return r
	}
	noCookies := func(c *clerksync.Config) { c.Auth.Cookie = false }
	return map[string]refusedRequest{
		"no token":  {request: noCredential, code: "token_missing", want: []string{"neither a bearer token nor a session cookie"}},
		"no header": {request: noCredential, change: noCookies, code: "token_missing", want: []string{"no bearer token"}},
		"cookie off": {request: cookie, change: noCookies, code: "token_missing",
			want: []string{"there is a session cookie, but Auth.Cookie is not set"}},
		"token without a scheme": {request: header("TOKEN"), code: "token_missing",
			want: []string{"check=scheme", "something like a token", `Bearer <token>`}},
		"token without a scheme, no cookies": {request: header("TOKEN"), change: noCookies, code: "token_missing",
			want: []string{"check=scheme", "something like a token"}},
		"token in quotes":           {request: header(`"Bearer TOKEN"`), code: "token_missing", want: []string{"check=scheme"}},
		"token after a colon":       {request: header("Bearer: TOKEN"), code: "token_missing", want: []string{"check=scheme"}},
		"token without a space":     {request: header("BearerTOKEN"), code: "token_missing", want: []string{"check=scheme"}},
		"token of another scheme":   {request: header("Token TOKEN"), code: "token_missing", want: []string{"check=scheme"}},
		"token as a parameter":      {request: header(`Token token="TOKEN"`), code: "token_missing", want: []string{"check=scheme"}},
		"token without a signature": {request: header("eyJhbGciOiJub25lIn0.hunter2."), code: "token_missing", want: []string{"error=", "neither"}},
		"two tokens":                {request: two, code: "token_malformed", want: []string{"several bearer tokens"}},
		"not a JWT":                 {request: func(string) *http.Request { return bearing("Bearer hunter2") }, code: "token_malformed", want: []string{"compact form"}},
		"expired": {opts: opts{IssuedAt: t0.Add(-2 * time.Minute)}, code: "token_expired",
			want: []string{"got=2026-03-01T11:59:00Z", "want=", "2026-03-01T12:00:00Z, give or take 5s"}},
		"not yet valid": {opts: opts{IssuedAt: t0.Add(time.Minute)}, code: "token_not_yet_valid",
			want: []string{"got=2026-03-01T12:00:50Z"}},
		"template token": {opts: opts{Class: fakeclerk.TemplateToken}, code: "token_wrong_class", want: []string{"JWT template"}},
		"unknown category": {opts: opts{Header: claims{"cat": "cl_N3wC4tegory"}}, code: "token_wrong_class",
			want: []string{"check=category", "got=cl_N3wC4tegory", "want=cl_B7d4PD111AAA"}},
		"unprintable category": {opts: opts{Header: claims{"cat": "cl_\n\x1b[31m\u202e"}}, code: "token_wrong_class",
			want: []string{"check=category", "got=cl_??[31m?"}},
		"huge category": {opts: opts{Header: claims{"cat": strings.Repeat("c", 8000)}}, code: "token_wrong_class",
			want: []string{"got=" + strings.Repeat("c", 200) + " "}},
		"category no text": {opts: opts{Header: claims{"cat": 7}}, code: "token_wrong_class", want: []string{`got="not a string"`}},
		"wrong party": {opts: opts{AuthorizedParty: otherOrigin}, code: "token_wrong_party",
			want: []string{"made for another origin", "want=" + appOrigin}},
		"no party": {opts: opts{Claims: claims{"azp": nil}}, code: "token_wrong_party",
			want: []string{"check=no_party", "does not say for which origin", "want=" + appOrigin}},
		"wrong issuer": {opts: opts{Issuer: "https://evil.com"}, code: "token_wrong_issuer",
			want: []string{"want=", "https://clerk.<domain> or https://<name>.clerk.accounts.dev"}},
		"wrong issuer, one is set": {change: func(c *clerksync.Config) { c.Auth.Issuer = proxyURL },
			code: "token_wrong_issuer", want: []string{"want=" + proxyURL}},
		"wrong key":   {opts: opts{WrongKey: true}, code: "token_bad_signature", want: []string{"wrong signature"}},
		"no alg":      {opts: opts{Algorithm: "none"}, code: "token_bad_signature", want: []string{"not signed with RS256"}},
		"unknown key": {opts: opts{KeyID: "ins_hunter2"}, code: "token_unknown_key", want: []string{"want=" + sharedInstance}},
		"pending":     {opts: opts{Pending: true}, code: "session_pending", want: []string{"open tasks"}},
		"cross-origin": {request: crossSite, code: "cross_origin",
			want: []string{"status=403", "cross-origin request", "own origin, or " + appOrigin}},
		"keys not to be had": {change: func(c *clerksync.Config) { c.SecretKey = "sk_test_wrong" },
			code: "unavailable", want: []string{"level=ERROR", "get keys"}},
		"useless custom claims": {change: func(c *clerksync.Config) { c.Auth.CustomClaims = func(context.Context) any { return nil } },
			code: "internal", want: []string{"level=ERROR", "CustomClaims"}},
	}
}

// Every refused request leaves an Observation and a line that says what was expected, without the
// token.
func TestRefusedRequestsAreTraced(t *testing.T) {
	t.Parallel()
	for name, tt := range refusedRequests() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.check(t, func(fx *fixture) http.Handler { return fx.RequireUser(&me{}) })
		})
	}
}

// Authenticate leaves the same trace, for apps with middleware of their own.
func TestRefusalsOfAuthenticateAreTraced(t *testing.T) {
	t.Parallel()
	for name, tt := range refusedRequests() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.check(t, func(fx *fixture) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if _, err := fx.Authenticate(r); err != nil {
						clerksync.WriteProblem(w, r, err)
					}
				})
			})
		})
	}
}

// check sends the request to the handler that ask returns.
func (tt refusedRequest) check(t *testing.T, ask func(*fixture) http.Handler) {
	t.Helper()
	fx := newFixture(t, func(c *clerksync.Config) {
		c.Auth = clerksync.AuthConfig{Cookie: true, AuthorizedParties: []string{appOrigin}}
		if tt.change != nil {
			tt.change(c)
		}
	})
	if tt.opts.AuthorizedParty == "" {
		tt.opts.AuthorizedParty = appOrigin
	}
	token := fx.token(t, "user_1", tt.opts)
	r := bearing("Bearer " + token)
	if tt.request != nil {
		r = tt.request(token)
	}
	a := answerOf(ask(fx), r)
	checkProblem(t, a, a.status, tt.code)
	o := checkTrace(t, fx, clerksync.OpVisit, tt.code)
	if o.ClerkID != "" || o.Source != "" || o.Outcome != 0 || len(fx.seen.all) != 1 {
		t.Errorf("observed %+v", fx.seen.all)
	}
	log := fx.logs.String()
	for _, want := range append(tt.want, "a request was refused") {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q: %s", want, log)
		}
	}
	if a.status < 500 && !strings.Contains(log, "level=WARN") || strings.Count(log, "\n") != 1 {
		t.Errorf("log: %s", log)
	}
	for _, part := range append(strings.Split(token, "."), "hunter2", otherOrigin, "evil.com", "user_1") {
		if len(part) > 4 && strings.Contains(log, part) {
			t.Errorf("the log shows %q: %s", part, log)
		}
	}
}

// WithUser refuses a wrong header with the same trace. A cookie that it takes for none is worth a
// warning, unless its session has ended: otherwise a wrong key would sign everybody out in silence.
func TestWithUserLeavesATrace(t *testing.T) {
	t.Parallel()
	type opts = fakeclerk.TokenOptions
	for name, tt := range map[string]struct {
		opts   opts
		cookie bool
		header string // in place of a bearer token
		code   string // in the log
	}{
		"a wrong header":       {opts: opts{AuthorizedParty: otherOrigin}, code: "token_wrong_party"},
		"no scheme":            {header: "TOKEN", code: "token_missing"},
		"another scheme":       {header: "Token TOKEN", code: "token_missing"},
		"no token":             {header: "Basic dXNlcjpwYXNz"},
		"another app's cookie": {opts: opts{KeyID: "ins_other"}, cookie: true, code: "token_unknown_key"},
		"a forged cookie":      {opts: opts{WrongKey: true}, cookie: true, code: "token_bad_signature"},
		"a cookie without azp": {opts: opts{Claims: map[string]any{"azp": nil}}, cookie: true, code: "token_wrong_party"},
		"an expired cookie":    {opts: opts{IssuedAt: t0.Add(-time.Hour)}, cookie: true},
		"a pending cookie":     {opts: opts{Pending: true}, cookie: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, func(c *clerksync.Config) {
				c.Auth = clerksync.AuthConfig{Cookie: true, AuthorizedParties: []string{appOrigin}}
			})
			if tt.opts.AuthorizedParty == "" {
				tt.opts.AuthorizedParty = appOrigin
			}
			token := fx.token(t, "user_1", tt.opts)
			r := bearing(strings.ReplaceAll(cmp.Or(tt.header, "Bearer TOKEN"), "TOKEN", token))
			if tt.cookie {
				r.Header.Del("Authorization")
				r.AddCookie(&http.Cookie{Name: "__session", Value: token})
			}
			for range 100 {
				answerOf(fx.WithUser(&me{}), r)
			}
			log := fx.logs.String()
			if tt.code == "" {
				if log != "" || len(fx.seen.all) != 0 {
					t.Errorf("a signed-out visitor left a trace: %s, %+v", log, fx.seen.all)
				}
				return
			}
			if n := strings.Count(log, " code="+tt.code+" "); n != 10 || strings.Count(log, "level=WARN") != 10 {
				t.Errorf("%d warnings of 100: %s", n, log)
			}
			signedOut := tt.cookie || tt.header != ""
			if signedOut != strings.Contains(log, "counts as signed out") || signedOut != (len(fx.seen.all) == 0) {
				t.Errorf("log %s, observed %+v", log, fx.seen.all)
			}
		})
	}
}

// Middleware without Clerk's own middleware before it says what is missing.
func TestMiddlewareWithoutClaimsIsTraced(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	checkProblem(t, answerOf(fx.Middleware(&me{}), bearing("Bearer "+fx.clerk.SessionToken("user_1"))), 401, "unauthenticated")
	checkTrace(t, fx, clerksync.OpVisit, "unauthenticated")
	if log := fx.logs.String(); !strings.Contains(log, "no session claims in the context") {
		t.Errorf("log: %s", log)
	}
}
