package clerksync_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

// The publishable key of clerk.clerk.dev, and the cookie that belongs to it.
const (
	ownKey       = "pk_test_Y2xlcmsuY2xlcmsuZGV2JA"
	ownCookie    = "__session_QvfNY2dr"
	strangerName = "__session_1Z8AzTQD"
)

// twoApps is a host that serves two Clerk apps, of which this Syncer is one.
type twoApps struct {
	*fixture
	stranger *fixture
	id       string
}

func newTwoApps(t *testing.T, key string) *twoApps {
	t.Helper()
	a := &twoApps{
		fixture: newFixture(t, func(c *clerksync.Config) {
			c.Auth = clerksync.AuthConfig{Cookie: true, AuthorizedParties: []string{appOrigin}, PublishableKey: key}
		}),
		stranger: startFixture(t, fakeclerk.Config{RateLimit: -1, InstanceID: "ins_stranger"}, nil),
	}
	a.id = a.clerk.CreateUser(fakeclerk.NewUser{})
	return a
}

// mint makes this app's token, issued this many seconds after t0.
func (a *twoApps) mint(t *testing.T, seconds int, opts fakeclerk.TokenOptions) string {
	t.Helper()
	opts.AuthorizedParty, opts.IssuedAt = appOrigin, t0.Add(time.Duration(seconds)*time.Second)
	return a.token(t, a.id, opts)
}

// cookieTokens are the tokens that a request's cookies hold.
type cookieTokens struct{ older, newer, expired, pending, foreign, forged string }

func (a *twoApps) tokens(t *testing.T) cookieTokens {
	t.Helper()
	type opts = fakeclerk.TokenOptions
	return cookieTokens{
		older:   a.mint(t, -20, opts{SessionID: "sess_older"}),
		newer:   a.mint(t, -10, opts{SessionID: "sess_newer"}),
		expired: a.mint(t, -90, opts{}),
		pending: a.mint(t, 0, opts{Pending: true}),
		foreign: a.stranger.token(t, "user_stranger", opts{AuthorizedParty: appOrigin}),
		forged:  a.mint(t, 0, opts{WrongKey: true}),
	}
}

// cookies writes a Cookie header, with the token's name in the place of each value.
func (c cookieTokens) cookies(line string) string {
	return strings.NewReplacer("=OLDER", "="+c.older, "=NEWER", "="+c.newer, "=EXPIRED", "="+c.expired,
		"=PENDING", "="+c.pending, "=FOREIGN", "="+c.foreign, "=FORGED", "="+c.forged).Replace(line)
}

// Of all session cookies on a host, the app finds its own.
func TestWhichCookieCounts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		cookies string
		session string // that the handler gets; "" for none
		code    string // of RequireUser; "" if the request gets through
		strict  bool   // WithUser refuses too, with the same code
	}{
		{"OWN=OLDER", "sess_older", "", false},
		{"__session=OLDER", "sess_older", "", false},
		{"__session=FOREIGN; OWN=OLDER", "sess_older", "", false},
		{"OWN=OLDER; __session=FOREIGN", "sess_older", "", false},
		{"__session=FOREIGN; OTHER=FOREIGN; OWN=OLDER", "sess_older", "", false},
		{"__session=FOREIGN; __session=OLDER", "sess_older", "", false},
		{"__session=EXPIRED; __session=OLDER", "sess_older", "", false},
		{"__session=nonsense; OWN=OLDER", "sess_older", "", false},
		{"__session=null; OWN=undefined; __session=OLDER", "sess_older", "", false},
		{"__session=FORGED; OWN=OLDER", "sess_older", "", false},
		{"__session=OLDER; OWN=NEWER", "sess_newer", "", false},
		{"__session=NEWER; OWN=OLDER", "sess_newer", "", false}, // the JavaScript SDKs' rule
		{"__session=NEWER; OWN=EXPIRED", "sess_newer", "", false},
		{"__session=OLDER; __session=NEWER", "sess_newer", "", false},
		{"__session=PENDING; OWN=OLDER", "sess_older", "", false},
		{"__session=FOREIGN", "", "token_unknown_key", false},
		{"OWN=FOREIGN", "", "token_unknown_key", false},
		{"__session=FORGED", "", "token_bad_signature", false},
		{"__session=FOREIGN; OWN=EXPIRED", "", "token_expired", false},
		{"OWN=EXPIRED; __session=FOREIGN", "", "token_expired", false},
		{"__session=FOREIGN; __session=FORGED", "", "token_bad_signature", false},
		{"__session=PENDING; OWN=EXPIRED", "", "session_pending", false},
		{"__session=nonsense; OWN=FOREIGN", "", "token_unknown_key", false},
		{"__session=nonsense", "", "token_malformed", true},
		{"__session=null; OWN=", "", "token_missing", false},
		{"theme=dark", "", "token_missing", false},
	} {
		for _, key := range []string{ownKey, ""} {
			t.Run(fmt.Sprintf("%s, key %t", tt.cookies, key != ""), func(t *testing.T) {
				t.Parallel()
				a := newTwoApps(t, key)
				line := a.tokens(t).cookies(strings.NewReplacer("OWN", ownCookie, "OTHER", strangerName).Replace(tt.cookies))
				session, answered := a.ask(t, a.RequireUser, line)
				if answered.status != 200 {
					checkProblem(t, answered, 401, tt.code)
				}
				if session != tt.session || (answered.status == 200) != (tt.code == "") {
					t.Errorf("RequireUser: session %q, %d %s", session, answered.status, answered.body)
				}
				session, answered = a.ask(t, a.WithUser, line)
				if session != tt.session || (answered.status == 200) == tt.strict {
					t.Errorf("WithUser: session %q, %d %s", session, answered.status, answered.body)
				}
			})
		}
	}
}

// ask sends a request with these cookies. It returns the id of the session that the handler got.
func (a *twoApps) ask(t *testing.T, wrap func(http.Handler) http.Handler, cookies string) (string, answer) {
	t.Helper()
	session := ""
	h := wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if claims, ok := clerk.SessionClaimsFromContext(r.Context()); ok {
			session = claims.SessionID
		}
	}))
	r := bearing("Basic c3RhZ2luZzpwYXNz")
	r.Header.Set("Cookie", cookies)
	answered := answerOf(h, r)
	return session, answered
}

// Whichever cookie is used, another origin's request may not use it. A cookie that is not
// accepted does no harm, and does not keep a signed-out visitor out.
func TestAnyCookieOfAnotherOriginsRequest(t *testing.T) {
	t.Parallel()
	a := newTwoApps(t, ownKey)
	tokens := a.tokens(t)
	for cookies, want := range map[string]struct {
		required, optional int
		code               string
	}{
		ownCookie + "=OLDER":                         {403, 403, "cross_origin"},
		"__session=OLDER":                            {403, 403, "cross_origin"},
		"__session=FOREIGN; __session=OLDER":         {403, 403, "cross_origin"},
		"__session=FOREIGN; " + ownCookie + "=OLDER": {403, 403, "cross_origin"},
		"__session=FOREIGN":                          {401, 200, "token_unknown_key"},
		ownCookie + "=EXPIRED":                       {401, 200, "token_expired"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://api.example.com/", nil)
		r.Header.Set("Cookie", tokens.cookies(cookies))
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Origin", "https://evil.test")
		signedIn := false
		next := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, ok := clerksync.UserFromContext(r.Context())
			signedIn = signedIn || ok
		})
		checkProblem(t, answerOf(a.RequireUser(next), r), want.required, want.code)
		if got := answerOf(a.WithUser(next), r).status; got != want.optional || signedIn {
			t.Errorf("%s: WithUser answered %d, signed in %t; want %d", cookies, got, signedIn, want.optional)
		}
	}
}

// If a cookie cannot be checked because Clerk is down, the answer is 503. It may be valid, so the visitor
// is neither refused with a 401 nor treated as signed out.
func TestCookieInAnOutage(t *testing.T) {
	t.Parallel()
	a := newTwoApps(t, ownKey)
	tokens := a.tokens(t)
	if session, answered := a.ask(t, a.RequireUser, tokens.cookies("__session=NEWER")); session != "sess_newer" {
		t.Fatalf("before the outage: %d %s", answered.status, answered.body)
	}
	a.clerk.SetFault(down)
	a.clock.Advance(10 * time.Second)
	for _, wrap := range []func(http.Handler) http.Handler{a.RequireUser, a.WithUser} {
		_, answered := a.ask(t, wrap, tokens.cookies("__session=EXPIRED; "+ownCookie+"=FOREIGN"))
		checkProblem(t, answered, 503, "unavailable")
		if session, answered := a.ask(t, wrap, tokens.cookies("__session=FOREIGN; "+ownCookie+"=NEWER")); session != "sess_newer" {
			t.Errorf("a known key, and a cookie of another app: %d %s", answered.status, answered.body)
		}
	}
}

// However many cookies a request has, a bounded number is verified.
func TestManySessionCookies(t *testing.T) {
	t.Parallel()
	verified := 0
	fx := newFixture(t, func(c *clerksync.Config) {
		c.Auth = clerksync.AuthConfig{Cookie: true, AuthorizedParties: []string{appOrigin}, TokenCacheSize: -1}
		c.Auth.CustomClaims = func(context.Context) any { verified++; return &struct{}{} }
	})
	var cookies []string
	for range 50 {
		cookies = append(cookies, "__session="+fx.token(t, "user_1", fakeclerk.TokenOptions{AuthorizedParty: otherOrigin}))
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Cookie", strings.Join(cookies, "; "))
	if _, code := verdict(fx.Syncer, r); code != "token_wrong_party" || verified != 8 {
		t.Errorf("%s, %d cookies verified", code, verified)
	}
}

// A session that a header token without azp has made known is still not the cookie's.
func TestCachedTokenWithoutParty(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *clerksync.Config) {
		c.Auth = clerksync.AuthConfig{Cookie: true, AuthorizedParties: []string{appOrigin}, AllowNoParty: true}
	})
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	token := fx.clerk.SessionToken(id)
	cookie := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	cookie.AddCookie(&http.Cookie{Name: "__session", Value: token})
	for range 3 {
		if a := answerOf(fx.RequireUser(&me{}), bearing("Bearer "+token)); a.status != 200 {
			t.Errorf("header: %d %s", a.status, a.body)
		}
		checkProblem(t, answerOf(fx.RequireUser(&me{}), cookie), 401, "token_wrong_party")
		if a := answerOf(fx.WithUser(&me{}), cookie); a.status != http.StatusTeapot { // no user in the context
			t.Errorf("cookie, WithUser: %d %s", a.status, a.body)
		}
	}
}

func TestNewChecksThePublishableKey(t *testing.T) {
	t.Parallel()
	const secret = "hunter2hunter2"
	for key, want := range map[string]string{
		"":                   "",
		ownKey:               "",
		"\t" + ownKey + "\n": "",
		"pk_live_ZmFrZS1jbGVyay10ZXN0LmNsZXJrLmFjY291bnRzLmRldiQ=": "",
		`"` + ownKey + `"`:                "quotation marks",
		"undefined":                       "missing value",
		"CLERK_PUBLISHABLE_KEY=" + ownKey: "name of a variable",
		"sk_test_" + secret:               "is a secret key",
		"whsec_" + secret:                 "signing secret",
		"pk_test_":                        "cut off",
		"pk_test_...":                     "placeholder",
		"pk_live_xxxxxxxxxx":              "placeholder",
		ownKey[:20]:                       "cut off or mistyped",
		ownKey + ownKey:                   "begins with pk_live_ or pk_test_",
		"pk_test_" + secret:               "cut off or mistyped",
		"pk_prod_Y2xlcmsuY2xlcmsuZGV2JA":  "begins with pk_live_ or pk_test_",
		"pk_test_JA":                      "cut off or mistyped", // $
		"pk_test_bG9jYWxob3N0JA":          "cut off or mistyped", // localhost$
		"pk_test_YS5iJGMuZCQ":             "cut off or mistyped", // a.b$c.d$
		"QvfNY2dr":                        "is not the publishable key",
	} {
		cfg := clerksync.Config{Store: &generatedUsers{}, SecretKey: "sk_test_secret"}
		cfg.Auth.PublishableKey = key
		s, err := clerksync.New(cfg)
		if want == "" {
			if err != nil {
				t.Errorf("%q: %v", key, err)
				continue
			}
			_ = s.Close()
			continue
		}
		if err == nil {
			t.Errorf("%q is accepted", key)
			continue
		}
		checkFaults(t, err, []string{"Config.Auth.PublishableKey "})
		if text := err.Error(); !strings.Contains(text, want) || strings.Contains(text, secret) {
			t.Errorf("%q: %v, want %q", key, err, want)
		}
	}
}
