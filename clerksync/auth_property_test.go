package clerksync_test

import (
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"pgregory.net/rapid"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// TestCachedAnswerIsTheAnswer checks that a cached token gets the answer that verifying it anew
// gives, whatever the tokens and the configuration are, as time passes and keys change.
func TestCachedAnswerIsTheAnswer(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	a := &tokenAnswers{fx: fx, client: client, refused: make(map[string]int)}
	rapid.Check(t, func(rt *rapid.T) {
		// Each check begins at a whole second, so that it does not depend on the one before.
		now := fx.clock.Now()
		fx.clock.Advance(now.Truncate(time.Second).Add(time.Second).Sub(now))
		auth := drawAuthConfig(rt, fx)
		a.cookie = auth.Cookie
		a.cached = a.open(rt, auth)
		defer a.cached.Close()
		auth.TokenCacheSize = -1
		a.uncached = a.open(rt, auth)
		defer a.uncached.Close()
		a.tokens, a.seen = nil, make(map[*clerk.SessionClaims]bool)
		a.mint(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"mint":            a.mint,
			"ask":             a.askAny,
			"ask again":       a.askTwice,
			"wait":            a.wait,
			"change the keys": a.changeKeys,
			"retire":          a.retire,
		})
	})
	t.Logf("%d accepted anew, %d from the cache, refused %v", a.accepted, a.remembered, a.refused)
	if a.accepted == 0 || a.remembered == 0 || len(a.refused) < 5 {
		t.Error("too few kinds of tokens to test the property")
	}
}

// tokenAnswers compares a Syncer that caches tokens with one that does not.
type tokenAnswers struct {
	fx               *fixture
	client           *http.Client
	cached, uncached *clerksync.Syncer
	cookie           bool // tokens are accepted from a cookie too
	tokens           []string
	seen             map[*clerk.SessionClaims]bool

	accepted, remembered int
	refused              map[string]int // by code
}

func drawAuthConfig(rt *rapid.T, fx *fixture) clerksync.AuthConfig {
	auth := clerksync.AuthConfig{
		Leeway:         rapid.SampledFrom([]time.Duration{0, -1, time.Second, time.Minute}).Draw(rt, "leeway"),
		AllowPending:   rapid.Bool().Draw(rt, "allow pending"),
		TokenCacheSize: rapid.SampledFrom([]int{0, 1, 2}).Draw(rt, "cache size"),
	}
	if rapid.Bool().Draw(rt, "parties") {
		auth.AuthorizedParties = []string{appOrigin}
		auth.AllowNoParty = rapid.Bool().Draw(rt, "allow no party")
		auth.Cookie = rapid.Bool().Draw(rt, "cookie")
	}
	switch rapid.IntRange(0, 9).Draw(rt, "config") {
	case 5:
		auth.JWTKey = fx.clerk.JWTKey()
	case 6:
		auth.Issuer = fx.clerk.Issuer()
	case 7:
		auth.Issuer = proxyURL
	case 8:
		auth.CustomClaims = newCustomClaims
	}
	return auth
}

func (a *tokenAnswers) open(rt *rapid.T, auth clerksync.AuthConfig) *clerksync.Syncer {
	cfg := clerksync.Config{
		Store: memstore.New(), SecretKey: a.fx.clerk.SecretKey(), APIURL: a.fx.clerk.APIURL(), HTTPClient: a.client,
		Auth: auth, Logger: slog.New(slog.DiscardHandler),
	}
	clerksync.SetClock(&cfg, eagerClock{a.fx.clock})
	s, err := clerksync.New(cfg)
	if err != nil {
		rt.Fatal(err)
	}
	return s
}

func (a *tokenAnswers) mint(rt *rapid.T) { a.tokens = append(a.tokens, drawToken(rt, a.fx)) }

func (a *tokenAnswers) askAny(rt *rapid.T) { a.ask(rt, rapid.SampledFrom(a.tokens).Draw(rt, "token")) }

// askTwice asks about the token that was minted last.
func (a *tokenAnswers) askTwice(rt *rapid.T) {
	a.ask(rt, a.tokens[len(a.tokens)-1])
	a.ask(rt, a.tokens[len(a.tokens)-1])
}

func (a *tokenAnswers) ask(rt *rapid.T, token string) {
	r := bearing("Bearer " + token)
	if a.cookie && rapid.Bool().Draw(rt, "as a cookie") {
		r = bearing("")
		r.Header.Set("Cookie", "__session="+token)
	}
	gotClaims, got := verdict(a.cached, r)
	wantClaims, want := verdict(a.uncached, r)
	if got != want || !reflect.DeepEqual(gotClaims, wantClaims) {
		rt.Fatalf("%q with %+v from the cache, %q with %+v without", got, gotClaims, want, wantClaims)
	}
	switch {
	case got != "":
		a.refused[got]++
	case a.seen[gotClaims]:
		a.remembered++
	default:
		a.accepted++
		a.seen[gotClaims] = true
	}
}

func (a *tokenAnswers) wait(rt *rapid.T) {
	ms := rapid.SampledFrom([]int{
		0, 1, 1, 499, 1000, 1000, 5000, 5000, 10_000, 10_000, 30_000, 60_000, 3_600_000,
	}).Draw(rt, "ms")
	a.fx.clock.Advance(time.Duration(ms) * time.Millisecond)
}

func (a *tokenAnswers) changeKeys(rt *rapid.T) {
	if !seldom(rt, "change") { // making a key takes long
		return
	}
	a.fx.clerk.RotateKey()
	if rapid.Bool().Draw(rt, "retire the old") {
		a.fx.clerk.RetireKeys()
	}
	if rapid.Bool().Draw(rt, "and use the new") {
		a.fx.clock.Advance(10 * time.Second)
		a.ask(rt, a.fx.clerk.SessionToken("user_1"))
		a.askAny(rt)
	}
}

func (a *tokenAnswers) retire(rt *rapid.T) {
	if seldom(rt, "retire") {
		a.fx.clerk.RetireKeys()
	}
}

// seldom is true in one of eight draws.
func seldom(t *rapid.T, what string) bool { return rapid.IntRange(0, 7).Draw(t, what) == 7 }

// drawToken returns an ordinary token, perhaps of another time, or one with a fault.
func drawToken(t *rapid.T, fx *fixture) string {
	now := fx.clock.Now()
	seconds := func(what string, from, to int) time.Time {
		return now.Add(time.Duration(rapid.IntRange(from, to).Draw(t, what)) * time.Second)
	}
	updatedAt := []any{nil, now.Unix(), now.UnixMilli(), "soon"}
	opts := fakeclerk.TokenOptions{
		Version: rapid.IntRange(1, 2).Draw(t, "version"), AuthorizedParty: appOrigin,
		Claims: map[string]any{"updated_at": rapid.SampledFrom(updatedAt).Draw(t, "updated_at")},
	}
	if rapid.Bool().Draw(t, "organization") {
		opts.Organization = &fakeclerk.Organization{
			ID: "org_1", Slug: "acme", Role: "org:admin", Permissions: []string{"org:posts:read", "org:users:ban"},
		}
	}
	if rapid.Bool().Draw(t, "another exp") {
		opts.ExpiresAt = seconds("exp", -10, 20_000) // outlives the keys
	}
	subject := drawFault(t, &opts, seconds)
	token, err := fx.clerk.Token(subject, opts)
	if err != nil {
		t.Fatal(err)
	}
	return mutate(t, token)
}

// drawFault draws the token's subject, and perhaps a fault. seconds draws a time.
func drawFault(t *rapid.T, opts *fakeclerk.TokenOptions, seconds func(what string, from, to int) time.Time) string {
	subject := rapid.SampledFrom([]string{"user_1", "user_2"}).Draw(t, "subject")
	switch rapid.IntRange(0, 25).Draw(t, "fault") {
	default: // none
	case 11:
		opts.Header = map[string]any{"cat": rapid.SampledFrom([]any{nil, "cl_I7d4PD111III", "cl_new", "", 1}).Draw(t, "cat")}
	case 12:
		opts.IssuedAt = seconds("iat", -70, 10)
	case 13:
		opts.NotBefore = seconds("nbf", -10, 40)
	case 14:
		opts.ExpiresAt = seconds("exp", -70, 0)
	case 15:
		subject = rapid.SampledFrom([]string{"", "mch_1", "user_", "user_../x"}).Draw(t, "another subject")
	case 16:
		opts.Class = rapid.SampledFrom([]fakeclerk.TokenClass{
			fakeclerk.TemplateToken, fakeclerk.M2MToken, fakeclerk.OAuthToken,
			fakeclerk.OpaqueM2MToken, fakeclerk.OpaqueOAuthToken, fakeclerk.APIKey,
		}).Draw(t, "class")
	case 17:
		opts.AuthorizedParty = rapid.SampledFrom([]string{"", otherOrigin}).Draw(t, "party")
	case 18:
		opts.Issuer = rapid.SampledFrom([]string{
			proxyURL, "https://clerk.example.com", "https://evil.com/.clerk.accounts",
		}).Draw(t, "issuer")
	case 19:
		opts.KeyID = rapid.SampledFrom([]string{"ins_a", "ins_b"}).Draw(t, "kid")
	case 20:
		opts.Algorithm = rapid.SampledFrom([]string{"none", "HS256"}).Draw(t, "alg")
	case 21:
		removed := []string{"exp", "sid", "sub", "nbf", "iat", "iss", "v", "sts"}
		opts.Claims[rapid.SampledFrom(removed).Draw(t, "removed")] = nil
	case 22:
		opts.Claims["plan"] = rapid.SampledFrom([]any{"pro", 5}).Draw(t, "plan")
	case 23:
		opts.WrongKey = true
	case 24:
		opts.Pending = true
	case 25:
		opts.AuthorizedParty = ""
	}
	return subject
}

// mutate changes a token in a place or two, now and then.
func mutate(t *rapid.T, token string) string {
	if !seldom(t, "mutated") {
		return token
	}
	at := rapid.IntRange(0, len(token)).Draw(t, "at")
	cut := rapid.IntRange(0, min(3, len(token)-at)).Draw(t, "cut")
	insert := rapid.StringOfN(rapid.RuneFrom([]rune("AQgw_-.=+/ {\"\x00é")), 0, 3, -1).Draw(t, "insert")
	mutated := token[:at] + insert + token[at+cut:]
	if parts := strings.Split(mutated, "."); len(parts) == 3 && parts[2] != "" && rapid.Bool().Draw(t, "spare bits") {
		mutated = parts[0] + "." + parts[1] + "." + spareBits(parts[2])
	}
	return mutated
}

// FuzzAuthenticate cuts pieces out of tokens and inserts others. Nothing makes it panic, and only
// the signed text is accepted, always with the same claims.
func FuzzAuthenticate(f *testing.F) {
	fx := newFixture(f, func(c *clerksync.Config) { c.Observe = nil }) // it would keep each refusal
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	good := goodTokens(f, fx, id)
	tokens := slices.Concat(good, badTokens(f, fx, id))
	claims := make([]*clerk.SessionClaims, len(good))
	for i := range claims {
		var code string
		if claims[i], code = verdict(fx.Syncer, bearing("Bearer "+tokens[i])); code != "" {
			f.Fatalf("token %d: %s", i, code)
		}
	}
	uncached := fx.syncer(f, func(c *clerksync.Config) { c.Auth.TokenCacheSize = -1 })
	reached := false
	h := fx.RequireUser(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	seedAuthorization(f, tokens)
	f.Fuzz(func(t *testing.T, scheme string, which, at, cut int, insert string) {
		which = int(uint(which) % uint(len(tokens)))
		token := tokens[which]
		at = max(0, min(at, len(token)))
		cut = max(0, min(cut, len(token)-at))
		sent := scheme + token[:at] + insert + token[at+cut:]
		r := bearing(sent)
		got, code := verdict(fx.Syncer, r)
		for range 2 {
			for name, s := range map[string]*clerksync.Syncer{"uncached": uncached, "again": fx.Syncer} {
				if claims, c := verdict(s, r); c != code || !reflect.DeepEqual(claims, got) {
					t.Fatalf("%q with %+v, and %s %q with %+v, on %q", code, got, name, c, claims, sent)
				}
			}
		}
		reached = false
		if a := answerOf(h, r); reached != (code == "") || (a.status == 200) != (code == "") {
			t.Fatalf("%q, but RequireUser answered %d on %q", code, a.status, sent)
		}
		if code != "" {
			checkTokenCode(t, code, sent)
			return
		}
		if which >= len(good) || !reflect.DeepEqual(got, claims[which]) {
			t.Fatalf("accepted %+v on %q", got, sent)
		}
		_, sentToken, _ := strings.Cut(strings.TrimSpace(sent), " ")
		if sentToken = strings.TrimSpace(sentToken); sentToken != token {
			t.Fatalf("accepted %q, which is not what was signed", sent)
		}
	})
}

func goodTokens(f *testing.F, fx *fixture, id string) (tokens []string) {
	org := &fakeclerk.Organization{
		ID: "org_1", Slug: "acme", Role: "org:admin", Permissions: []string{"org:posts:read"},
	}
	for _, opts := range []fakeclerk.TokenOptions{
		{}, {Version: 1}, {Organization: org}, {Version: 1, Organization: org},
		{Actor: &fakeclerk.Actor{Subject: "user_actor"}}, {Header: map[string]any{"cat": nil}},
		{Claims: map[string]any{"plan": "pro"}}, {Header: map[string]any{"cat": "cl_I7d4PD111III"}},
	} {
		tokens = append(tokens, fx.token(f, id, opts))
	}
	return tokens
}

func badTokens(f *testing.F, fx *fixture, id string) (tokens []string) {
	for _, opts := range []fakeclerk.TokenOptions{
		{Class: fakeclerk.TemplateToken}, {Class: fakeclerk.M2MToken}, {Class: fakeclerk.OAuthToken},
		{Class: fakeclerk.OpaqueM2MToken}, {Class: fakeclerk.OpaqueOAuthToken}, {Class: fakeclerk.APIKey},
		{Pending: true}, {Algorithm: "none"}, {Algorithm: "HS256"}, {WrongKey: true}, {KeyID: "ins_unknown"},
		{IssuedAt: t0.Add(-time.Hour)}, {IssuedAt: t0.Add(time.Hour)}, {Issuer: "https://evil.com"},
		{Claims: map[string]any{"exp": nil}}, {Claims: map[string]any{"sid": nil}},
		{Claims: map[string]any{"sub": nil}}, {Claims: map[string]any{"v": 3}},
	} {
		tokens = append(tokens, fx.token(f, id, opts))
	}
	return tokens
}

func seedAuthorization(f *testing.F, tokens []string) {
	for i, token := range tokens {
		f.Add("Bearer ", i, 0, 0, "")
		f.Add("bearer ", i, len(token)-1, 1, "A")                    // perhaps the signature's spare bits
		f.Add("BEARER  ", i, strings.LastIndex(token, "."), 1, "..") // one more part
	}
	for _, s := range []string{
		".", "..", "=", " ", "\t", "\u00a0", "{", "e30", "é", "\x00", "eyJhbGciOiJub25lIn0",
	} {
		f.Add("Bearer ", 0, 0, 0, s)
		f.Add("Bearer ", 0, 100, 0, s)
		f.Add("Bearer ", 0, 1<<20, 0, s)
		f.Add("Bearer ", 0, 0, 1<<20, s)
		f.Add(s, 0, 0, 0, "")
	}
	p := strings.Split(tokens[0], ".")
	for _, form := range []string{
		`{"protected":"` + p[0] + `","payload":"` + p[1] + `","signature":"` + p[2] + `","x":".."}`,
		`{"payload":"` + p[1] + `","signatures":[{"protected":"` + p[0] + `","signature":"` + p[2] +
			`","header":{"x":".."}}]}`,
		`{"payload":"` + p[1] + `","signatures":[],"x":".."}`,
		".." + p[2], p[0] + ".." + p[2],
		"eyJhbGciOiJSUzI1NiIsImI2NCI6ZmFsc2UsImNyaXQiOlsiYjY0Il19." + p[1] + "." + p[2],
	} {
		f.Add("Bearer ", 0, 0, 1<<20, form)
	}
}

// checkTokenCode checks that the code is one that a token of the fuzz test may get.
func checkTokenCode(t *testing.T, code, sent string) {
	t.Helper()
	switch code {
	case "token_missing", "token_malformed", "token_expired", "token_not_yet_valid", "token_wrong_class",
		"token_wrong_issuer", "token_bad_signature", "token_unknown_key", "session_pending":
	default:
		t.Fatalf("answered %q on %q", code, sent)
	}
}
