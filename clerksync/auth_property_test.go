package clerksync_test

import (
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"pgregory.net/rapid"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/memstore"
)

// A remembered token gets the answer that verifying it anew gives: whatever the
// tokens, the configuration, the time that passes and the keys that come and go.
func TestCachedAnswerIsTheAnswer(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	accepted, remembered, refused := 0, 0, make(map[string]int)
	rapid.Check(t, func(rt *rapid.T) {
		fx.clock.Advance(fx.clock.Now().Truncate(time.Second).Add(time.Second).Sub(fx.clock.Now())) // so that no check depends on the one before
		auth := clerksync.AuthConfig{
			Leeway:         rapid.SampledFrom([]time.Duration{0, -1, time.Second, time.Minute}).Draw(rt, "leeway"),
			AllowPending:   rapid.Bool().Draw(rt, "allow pending"),
			TokenCacheSize: rapid.SampledFrom([]int{0, 1, 2}).Draw(rt, "cache size"),
		}
		if rapid.Bool().Draw(rt, "parties") {
			auth.AuthorizedParties = []string{appOrigin}
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
		open := func(auth clerksync.AuthConfig) *clerksync.Syncer {
			cfg := clerksync.Config{Store: memstore.New(), SecretKey: fx.clerk.SecretKey(), APIURL: fx.clerk.APIURL(), HTTPClient: client, Auth: auth, Logger: slog.New(slog.DiscardHandler)}
			clerksync.SetClock(&cfg, eagerClock{fx.clock})
			s, err := clerksync.New(cfg)
			if err != nil {
				rt.Fatal(err)
			}
			return s
		}
		cached := open(auth)
		defer cached.Close()
		auth.TokenCacheSize = -1
		uncached := open(auth)
		defer uncached.Close()

		var tokens []string
		mint := func(rt *rapid.T) { tokens = append(tokens, drawToken(rt, fx)) }
		seen := make(map[*clerk.SessionClaims]bool)
		mint(rt)
		ask := func(rt *rapid.T, token string) {
			gotClaims, got := verdict(cached, bearing("Bearer "+token))
			wantClaims, want := verdict(uncached, bearing("Bearer "+token))
			if got != want || !reflect.DeepEqual(gotClaims, wantClaims) {
				rt.Fatalf("%q with %+v from the cache, %q with %+v without", got, gotClaims, want, wantClaims)
			}
			switch {
			case got != "":
				refused[got]++
			case seen[gotClaims]:
				remembered++
			default:
				accepted++
				seen[gotClaims] = true
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"mint": mint,
			"ask":  func(rt *rapid.T) { ask(rt, rapid.SampledFrom(tokens).Draw(rt, "token")) },
			"ask again": func(rt *rapid.T) { // what was minted last
				ask(rt, tokens[len(tokens)-1])
				ask(rt, tokens[len(tokens)-1])
			},
			"wait": func(rt *rapid.T) {
				fx.clock.Advance(time.Duration(rapid.SampledFrom([]int{0, 1, 1, 499, 1000, 1000, 5000, 5000, 10_000, 10_000, 30_000, 60_000, 3_600_000}).Draw(rt, "ms")) * time.Millisecond)
			},
			"change the keys": func(rt *rapid.T) {
				if !seldom(rt, "change") { // making a key takes long
					return
				}
				fx.clerk.RotateKey()
				if rapid.Bool().Draw(rt, "retire the old") {
					fx.clerk.RetireKeys()
				}
				if rapid.Bool().Draw(rt, "and use the new") {
					fx.clock.Advance(10 * time.Second)
					ask(rt, fx.clerk.SessionToken("user_1"))
					ask(rt, rapid.SampledFrom(tokens).Draw(rt, "token"))
				}
			},
			"retire": func(rt *rapid.T) {
				if seldom(rt, "retire") {
					fx.clerk.RetireKeys()
				}
			},
		})
	})
	t.Logf("%d accepted anew, %d from the cache, refused %v", accepted, remembered, refused)
	if accepted == 0 || remembered == 0 || len(refused) < 5 {
		t.Error("the property was not put to the test")
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
	opts := fakeclerk.TokenOptions{
		Version: rapid.IntRange(1, 2).Draw(t, "version"), AuthorizedParty: appOrigin,
		Claims: map[string]any{"updated_at": rapid.SampledFrom([]any{nil, now.Unix(), now.UnixMilli(), "soon"}).Draw(t, "updated_at")},
	}
	if rapid.Bool().Draw(t, "organization") {
		opts.Organization = &fakeclerk.Organization{ID: "org_1", Slug: "acme", Role: "org:admin", Permissions: []string{"org:posts:read", "org:users:ban"}}
	}
	if rapid.Bool().Draw(t, "another exp") {
		opts.ExpiresAt = seconds("exp", -10, 20_000) // outlives the keys
	}
	subject := rapid.SampledFrom([]string{"user_1", "user_2"}).Draw(t, "subject")
	switch rapid.IntRange(0, 24).Draw(t, "fault") {
	default: // none
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
			fakeclerk.TemplateToken, fakeclerk.M2MToken, fakeclerk.OAuthToken, fakeclerk.OpaqueM2MToken, fakeclerk.OpaqueOAuthToken, fakeclerk.APIKey,
		}).Draw(t, "class")
	case 17:
		opts.AuthorizedParty = rapid.SampledFrom([]string{"", otherOrigin}).Draw(t, "party")
	case 18:
		opts.Issuer = rapid.SampledFrom([]string{proxyURL, "https://clerk.example.com", "https://evil.com/.clerk.accounts"}).Draw(t, "issuer")
	case 19:
		opts.KeyID = rapid.SampledFrom([]string{"ins_a", "ins_b"}).Draw(t, "kid")
	case 20:
		opts.Algorithm = rapid.SampledFrom([]string{"none", "HS256"}).Draw(t, "alg")
	case 21:
		opts.Claims[rapid.SampledFrom([]string{"exp", "sid", "sub", "nbf", "iat", "iss", "v", "sts"}).Draw(t, "removed")] = nil
	case 22:
		opts.Claims["plan"] = rapid.SampledFrom([]any{"pro", 5}).Draw(t, "plan")
	case 23:
		opts.WrongKey = true
	case 24:
		opts.Pending = true
	}
	token, err := fx.clerk.Token(subject, opts)
	if err != nil {
		t.Fatal(err)
	}
	return mutate(t, token)
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

// FuzzAuthenticate cuts pieces out of tokens and puts others in. None of what comes
// out makes it panic, and what it accepts are the bytes that were signed: with the
// same claims, at most written with other spare bits in base64.
func FuzzAuthenticate(f *testing.F) {
	fx := newFixture(f, nil)
	id := fx.clerk.CreateUser(fakeclerk.NewUser{})
	org := &fakeclerk.Organization{ID: "org_1", Slug: "acme", Role: "org:admin", Permissions: []string{"org:posts:read"}}
	var tokens []string
	for _, opts := range []fakeclerk.TokenOptions{
		{}, {Version: 1}, {Organization: org}, {Version: 1, Organization: org}, {Actor: &fakeclerk.Actor{Subject: "user_actor"}},
		{Header: map[string]any{"cat": nil}}, {Claims: map[string]any{"plan": "pro"}}, // accepted; the others are not
		{Class: fakeclerk.TemplateToken}, {Class: fakeclerk.M2MToken}, {Class: fakeclerk.OAuthToken}, {Class: fakeclerk.OpaqueM2MToken},
		{Class: fakeclerk.OpaqueOAuthToken}, {Class: fakeclerk.APIKey}, {Pending: true}, {Algorithm: "none"}, {Algorithm: "HS256"},
		{WrongKey: true}, {KeyID: "ins_unknown"}, {IssuedAt: t0.Add(-time.Hour)}, {IssuedAt: t0.Add(time.Hour)}, {Issuer: "https://evil.com"},
		{Claims: map[string]any{"exp": nil}}, {Claims: map[string]any{"sid": nil}}, {Claims: map[string]any{"sub": nil}}, {Claims: map[string]any{"v": 3}},
	} {
		tokens = append(tokens, fx.token(f, id, opts))
	}
	const genuine = 7
	claims := make([]*clerk.SessionClaims, genuine)
	for i := range claims {
		var code string
		if claims[i], code = verdict(fx.Syncer, bearing("Bearer "+tokens[i])); code != "" {
			f.Fatalf("token %d: %s", i, code)
		}
	}
	uncached := fx.syncer(f, func(c *clerksync.Config) { c.Auth.TokenCacheSize = -1 })
	reached := false
	h := fx.RequireUser(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))

	for i, token := range tokens {
		f.Add("Bearer ", i, 0, 0, "")
		f.Add("bearer ", i, len(token)-1, 1, "A")                    // the signature's spare bits, perhaps
		f.Add("BEARER  ", i, strings.LastIndex(token, "."), 1, "..") // parts
	}
	for _, s := range []string{".", "..", "=", " ", "\t", "\u00a0", "{", "e30", "é", "\x00", "eyJhbGciOiJub25lIn0"} {
		f.Add("Bearer ", 0, 0, 0, s)
		f.Add("Bearer ", 0, 100, 0, s)
		f.Add("Bearer ", 0, 1<<20, 0, s)
		f.Add("Bearer ", 0, 0, 1<<20, s)
		f.Add(s, 0, 0, 0, "")
	}
	p := strings.Split(tokens[0], ".")
	for _, form := range []string{
		`{"protected":"` + p[0] + `","payload":"` + p[1] + `","signature":"` + p[2] + `","x":".."}`,
		`{"payload":"` + p[1] + `","signatures":[{"protected":"` + p[0] + `","signature":"` + p[2] + `","header":{"x":".."}}]}`,
		`{"payload":"` + p[1] + `","signatures":[],"x":".."}`,
		".." + p[2], p[0] + ".." + p[2], "eyJhbGciOiJSUzI1NiIsImI2NCI6ZmFsc2UsImNyaXQiOlsiYjY0Il19." + p[1] + "." + p[2],
	} {
		f.Add("Bearer ", 0, 0, 1<<20, form)
	}
	codes := map[string]bool{
		"token_missing": true, "token_malformed": true, "token_expired": true, "token_not_yet_valid": true, "token_wrong_class": true,
		"token_wrong_issuer": true, "token_bad_signature": true, "token_unknown_key": true, "session_pending": true,
	}
	f.Fuzz(func(t *testing.T, scheme string, which, at, cut int, insert string) {
		which = int(uint(which) % uint(len(tokens)))
		token := tokens[which]
		at = max(0, min(at, len(token)))
		cut = max(0, min(cut, len(token)-at))
		mutated := token[:at] + insert + token[at+cut:]
		r := bearing(scheme + mutated)
		got, code := verdict(fx.Syncer, r)
		for range 2 {
			if again, c := verdict(uncached, r); c != code || !reflect.DeepEqual(again, got) {
				t.Fatalf("%q with %+v, and uncached %q with %+v, on %q", code, got, c, again, scheme+mutated)
			}
			if again, c := verdict(fx.Syncer, r); c != code || !reflect.DeepEqual(again, got) {
				t.Fatalf("%q with %+v, and again %q with %+v, on %q", code, got, c, again, scheme+mutated)
			}
		}
		reached = false
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if reached != (code == "") || (rec.Code == 200) != (code == "") {
			t.Fatalf("%q, yet RequireUser answered %d on %q", code, rec.Code, scheme+mutated)
		}
		if code != "" {
			if !codes[code] {
				t.Fatalf("answered %q on %q", code, scheme+mutated)
			}
			return
		}
		if which >= genuine || !reflect.DeepEqual(got, claims[which]) {
			t.Fatalf("accepted %+v on %q", got, scheme+mutated)
		}
		_, sent, _ := strings.Cut(strings.TrimSpace(scheme+mutated), " ")
		if sent = strings.TrimSpace(sent); sent != token && !sameBytes(sent, token) {
			t.Fatalf("accepted %q, which is not what was signed", scheme+mutated)
		}
	})
}

// sameBytes reports whether two tokens are the same once their base64 is decoded.
func sameBytes(a, b string) bool {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	if len(as) != len(bs) {
		return false
	}
	for i := range as {
		x, errX := base64.RawURLEncoding.DecodeString(as[i])
		y, errY := base64.RawURLEncoding.DecodeString(bs[i])
		if errX != nil || errY != nil || string(x) != string(y) {
			return false
		}
	}
	return true
}
