package clerksync_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/internal/sessiontoken"
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

// wantSession checks which session the handler gets, or with which code the request is refused.
func (a *twoApps) wantSession(t *testing.T, wrap func(http.Handler) http.Handler, cookies, want string) {
	t.Helper()
	session, answered := a.ask(t, wrap, cookies)
	got := session
	if answered.status != 200 {
		var p struct{ Code string }
		if err := json.Unmarshal(answered.body, &p); err != nil {
			t.Fatal(err)
		}
		got = p.Code
	}
	if got != want || (answered.status == 503) != (want == "unavailable") {
		t.Errorf("got %q with status %d, want %q", got, answered.status, want)
	}
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

// If a cookie cannot be checked because Clerk is down, it may be valid, so the answer is 503 and
// never 401. A page for signed-out visitors too takes a cookie of an unknown key for another app's.
func TestCookieInAnOutage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		cookies            string
		required, optional string // the session, or the code of the refusal; "" for none
	}{
		{"__session=EXPIRED; OWN=FOREIGN", "unavailable", ""},
		{"__session=FOREIGN", "unavailable", ""},
		{"__session=PENDING; OWN=FOREIGN", "unavailable", ""},
		{"__session=nonsense; OWN=FOREIGN", "unavailable", ""},
		{"__session=FORGED", "unavailable", "unavailable"}, // or signed with a new key under the old id
		{"__session=FORGED; OWN=FOREIGN", "unavailable", "unavailable"},
		{"__session=FOREIGN; OWN=FORGED", "unavailable", "unavailable"},
		{"__session=FOREIGN; OWN=NEWER", "sess_newer", "sess_newer"},
		{"__session=NEWER; OWN=FOREIGN", "sess_newer", "sess_newer"},
		{"__session=FORGED; OWN=FOREIGN; __session=OLDER", "sess_older", "sess_older"},
		{"__session=EXPIRED", "token_expired", ""},
	} {
		t.Run(tt.cookies, func(t *testing.T) {
			t.Parallel()
			a := newTwoApps(t, ownKey)
			tokens := a.tokens(t)
			line := tokens.cookies(strings.ReplaceAll(tt.cookies, "OWN", ownCookie))
			a.wantSession(t, a.RequireUser, tokens.cookies("__session=NEWER"), "sess_newer")
			a.clerk.SetFault(down)
			a.clock.Advance(10 * time.Second)
			a.wantSession(t, a.RequireUser, line, tt.required)
			a.wantSession(t, a.WithUser, line, tt.optional)
		})
	}
}

// A process that has no keys yet cannot tell whose a cookie is.
func TestCookieInAnOutageFromTheStart(t *testing.T) {
	t.Parallel()
	a := newTwoApps(t, ownKey)
	a.clerk.SetFault(down)
	for _, cookies := range []string{"__session=OLDER", "__session=FOREIGN", "__session=FOREIGN; __session=EXPIRED"} {
		for _, wrap := range []func(http.Handler) http.Handler{a.RequireUser, a.WithUser} {
			a.wantSession(t, wrap, a.tokens(t).cookies(cookies), "unavailable")
		}
	}
}

// A visitor who gave up waiting for the keys is not signed out.
func TestVisitorWhoLeavesAForeignCookie(t *testing.T) {
	t.Parallel()
	a := newTwoApps(t, ownKey)
	tokens := a.tokens(t)
	a.wantSession(t, a.RequireUser, tokens.cookies("__session=NEWER"), "sess_newer")
	a.clock.Advance(10 * time.Second)
	ctx, leave := context.WithCancel(t.Context())
	a.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { leave(); return &fakeclerk.Fault{Hang: true} })
	r := bearing("").WithContext(ctx)
	r.Header.Set("Cookie", tokens.cookies("__session=FOREIGN"))
	handler := &me{}
	checkProblem(t, answerOf(a.WithUser(handler), r), 503, "unavailable")
	if handler.served.Load() != 0 {
		t.Error("the handler ran")
	}
	a.clock.Advance(clerksync.CallTimeout)
}

// hang makes Clerk hang. With each call, the clock moves on by the next of these steps, after the
// last one by CallTimeout, which ends the call.
func (fx *fixture) hang(steps ...time.Duration) {
	var mu sync.Mutex
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		mu.Lock()
		defer mu.Unlock()
		step := clerksync.CallTimeout
		if len(steps) > 0 {
			step, steps = steps[0], steps[1:]
		}
		go fx.clock.Advance(step)
		return &fakeclerk.Fault{Hang: true}
	})
}

// waited runs f and returns how far the clock moved on meanwhile.
func (fx *fixture) waited(f func()) time.Duration {
	start := fx.clock.Now()
	f()
	return fx.clock.Now().Sub(start)
}

// While Clerk hangs, another app's cookie keeps nobody waiting who has a good one.
func TestGoodCookieDoesNotWaitForAForeignOne(t *testing.T) {
	t.Parallel()
	for _, cookies := range []string{
		"__session=FOREIGN; OWN=NEWER", "OWN=NEWER; __session=FOREIGN", "OWN=FOREIGN; __session=NEWER; __session=FORGED",
	} {
		a := newTwoApps(t, ownKey)
		tokens := a.tokens(t)
		line := tokens.cookies(strings.ReplaceAll(cookies, "OWN", ownCookie))
		a.wantSession(t, a.RequireUser, tokens.cookies("__session=NEWER"), "sess_newer")
		a.clock.Advance(10 * time.Second)
		a.hang()
		for range 10 {
			for _, wrap := range []func(http.Handler) http.Handler{a.RequireUser, a.WithUser} {
				if d := a.waited(func() { a.wantSession(t, wrap, line, "sess_newer") }); d != 0 {
					t.Errorf("%s: waited %v", cookies, d)
				}
			}
		}
		a.wantKeyFetches(t, 1)
	}
}

// If Clerk hangs, the first requests with another app's cookie share one wait. Those that come after
// it do not wait for a fetch that has just failed, nor for long while another is tried.
func TestForeignCookiesShareOneWait(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		wrap func(*twoApps) func(http.Handler) http.Handler
		want string
	}{
		"RequireUser": {func(a *twoApps) func(http.Handler) http.Handler { return a.RequireUser }, "unavailable"},
		"WithUser":    {func(a *twoApps) func(http.Handler) http.Handler { return a.WithUser }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newTwoApps(t, ownKey)
			tokens := a.tokens(t)
			a.wantSession(t, a.RequireUser, tokens.cookies("__session=NEWER"), "sess_newer")
			a.clock.Advance(10 * time.Second)
			a.hang(clerksync.CallTimeout, sessiontoken.FetchPatience)
			ask := func() { a.wantSession(t, tt.wrap(a), tokens.cookies("__session=FOREIGN"), tt.want) }
			inARow := func() {
				for range 50 {
					ask()
				}
			}
			atOnce := func() {
				var all sync.WaitGroup
				for range 50 {
					all.Go(ask)
				}
				all.Wait()
			}
			for _, step := range []struct {
				what    string
				ask     func()
				waited  time.Duration
				fetches int
			}{
				{"the first at once", atOnce, clerksync.CallTimeout, 2},
				{"in a row, after the failure", inARow, 0, 2},
				{"at once, after the failure", atOnce, 0, 2},
				{"a second later", func() { a.clock.Advance(time.Second) }, time.Second, 2},
				{"at once, when the keys are tried again", atOnce, sessiontoken.FetchPatience, 3},
				{"in a row, while that hangs", inARow, 0, 3},
				{"at once, while that hangs", atOnce, 0, 3},
			} {
				if d := a.waited(step.ask); d != step.waited {
					t.Errorf("%s: waited %v, want %v", step.what, d, step.waited)
				}
				a.wantKeyFetches(t, step.fetches)
			}
			a.clock.Advance(clerksync.CallTimeout)
		})
	}
}

// A cookie that was taken for another app's, because the keys could not be fetched, counts as soon as
// they can be.
func TestOwnCookieOfANewKeyAfterAnOutage(t *testing.T) {
	t.Parallel()
	a := newTwoApps(t, ownKey)
	a.wantSession(t, a.WithUser, a.tokens(t).cookies("__session=OLDER"), "sess_older")
	a.clerk.RotateKey()
	line := a.tokens(t).cookies("__session=NEWER")
	a.clock.Advance(10 * time.Second)
	a.clerk.SetFault(down)
	a.wantSession(t, a.WithUser, line, "")
	a.wantSession(t, a.RequireUser, line, "unavailable")
	a.clerk.SetFault(nil)
	a.clock.Advance(time.Second)
	a.wantSession(t, a.WithUser, line, "sess_newer")
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
		if strings.HasPrefix(key, "pk_live_") {
			cfg.SecretKey = "sk_live_secret"
		}
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
