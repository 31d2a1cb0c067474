package fakeclerk_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/jwks"
	"github.com/clerk/clerk-sdk-go/v2/jwt"
	"github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
)

func TestSessionToken(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{InstanceID: testInstance})
	token := s.SessionToken("user_ada")

	claims, err := verify(t.Context(), s, clock, token)
	must(t, err)
	check(t, "sub", claims.Subject, "user_ada")
	check(t, "iss", claims.Issuer, s.Issuer())
	check(t, "iat", *claims.IssuedAt, epoch.Unix())
	check(t, "nbf", *claims.NotBefore, epoch.Unix()-10)
	check(t, "exp", *claims.Expiry, epoch.Unix()+60)
	if !regexp.MustCompile(`^https://[a-z0-9-]+\.clerk\.accounts\.dev$`).MatchString(s.Issuer()) {
		t.Errorf("issuer: got %q", s.Issuer())
	}

	header, all := decode(t, token)
	want := map[string]any{"alg": "RS256", "cat": "cl_B7d4PD111AAA", "kid": testInstance, "typ": "JWT"}
	if diff := cmp.Diff(want, header); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	check(t, "v", all["v"], any(2.0))
	check(t, "sts", all["sts"], any("active"))
	names := []string{"exp", "fva", "iat", "iss", "jti", "nbf", "sid", "sts", "sub", "v"}
	if diff := cmp.Diff(names, keys(all)); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}

	t.Run("without a network, by the PEM key", func(t *testing.T) {
		key, err := clerk.JSONWebKeyFromPEM(s.JWTKey())
		must(t, err)
		_, err = jwt.Verify(t.Context(), &jwt.VerifyParams{Token: token, JWK: key, Clock: clock})
		must(t, err)
	})
	t.Run("expires", func(t *testing.T) {
		clock.Advance(61 * time.Second)
		if _, err := verify(t.Context(), s, clock, token); err == nil {
			t.Error("the expired token was accepted")
		}
		_, err := verify(t.Context(), s, clock, s.SessionToken("user_ada"))
		must(t, err)
	})
}

func TestTokenOptions(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{InstanceID: testInstance})
	org := &fakeclerk.Organization{
		ID: "org_1", Slug: "acme", Role: "org:admin",
		Permissions: []string{"org:posts:read", "org:posts:write", "org:users:write", "org:users:ban"},
	}
	for _, test := range []struct {
		name  string
		opts  fakeclerk.TokenOptions
		check func(t *testing.T, claims *clerk.SessionClaims, header, all map[string]any)
	}{
		{"authorized party, session, issuer", fakeclerk.TokenOptions{
			AuthorizedParty: "https://app.example", SessionID: "sess_1", Issuer: "https://clerk.example.com",
		}, func(t *testing.T, claims *clerk.SessionClaims, _, _ map[string]any) {
			check(t, "azp", claims.AuthorizedParty, "https://app.example")
			check(t, "sid", claims.SessionID, "sess_1")
			check(t, "iss", claims.Issuer, "https://clerk.example.com")
		}},
		{"times", fakeclerk.TokenOptions{
			IssuedAt: epoch.Add(-time.Hour), NotBefore: epoch.Add(-2 * time.Hour), ExpiresAt: epoch.Add(time.Hour),
		}, func(t *testing.T, claims *clerk.SessionClaims, _, _ map[string]any) {
			check(t, "iat", *claims.IssuedAt, epoch.Add(-time.Hour).Unix())
			check(t, "nbf", *claims.NotBefore, epoch.Add(-2*time.Hour).Unix())
			check(t, "exp", *claims.Expiry, epoch.Add(time.Hour).Unix())
		}},
		{"organization, version 2", fakeclerk.TokenOptions{
			Organization: org,
		}, func(t *testing.T, claims *clerk.SessionClaims, _, all map[string]any) {
			check(t, "version", claims.Version, 2)
			check(t, "org_id", claims.ActiveOrganizationID, "org_1")
			check(t, "org_slug", claims.ActiveOrganizationSlug, "acme")
			check(t, "org_role", claims.ActiveOrganizationRole, "org:admin")
			if diff := cmp.Diff(org.Permissions, claims.ActiveOrganizationPermissions); diff != "" {
				t.Errorf("permissions (-want +got):\n%s", diff)
			}
			want := map[string]any{"id": "org_1", "slg": "acme", "rol": "admin", "per": "read,write,ban", "fpm": "3,6"}
			if diff := cmp.Diff(want, all["o"]); diff != "" {
				t.Errorf("o (-want +got):\n%s", diff)
			}
			check(t, "fea", all["fea"], any("o:posts,o:users"))
		}},
		{"organization, version 1", fakeclerk.TokenOptions{
			Version: 1, Organization: org,
		}, func(t *testing.T, claims *clerk.SessionClaims, _, all map[string]any) {
			check(t, "version", claims.Version, 1)
			check(t, "org_id", claims.ActiveOrganizationID, "org_1")
			check(t, "org_role", claims.ActiveOrganizationRole, "org:admin")
			if diff := cmp.Diff(org.Permissions, claims.ActiveOrganizationPermissions); diff != "" {
				t.Errorf("permissions (-want +got):\n%s", diff)
			}
			for _, name := range []string{"v", "sts", "o", "fea"} {
				if _, ok := all[name]; ok {
					t.Errorf("the token has %s", name)
				}
			}
		}},
		{"pending", fakeclerk.TokenOptions{
			Pending: true,
		}, func(t *testing.T, _ *clerk.SessionClaims, _, all map[string]any) {
			check(t, "sts", all["sts"], any("pending"))
		}},
		{"impersonation", fakeclerk.TokenOptions{
			Actor: &fakeclerk.Actor{Subject: "user_support", SessionID: "sess_a"},
		}, func(t *testing.T, claims *clerk.SessionClaims, _, _ map[string]any) {
			check(t, "sub", claims.Subject, "user_ada")
			want := `{"iss":"https://dashboard.clerk.com","sid":"sess_a","sub":"user_support"}`
			check(t, "act", string(claims.Actor), want)
		}},
		{"claims and header", fakeclerk.TokenOptions{
			Claims: map[string]any{"updated_at": 5, "sid": nil, "exp": nil, "sub": "user_eve"},
			Header: map[string]any{"cat": nil, "x": "y"},
		}, func(t *testing.T, claims *clerk.SessionClaims, header, all map[string]any) {
			check(t, "updated_at", all["updated_at"], any(5.0))
			check(t, "sid", claims.SessionID, "")
			check(t, "exp", claims.Expiry == nil, true)
			check(t, "sub", claims.Subject, "user_eve")
			check(t, "cat", header["cat"], nil)
			check(t, "x", header["x"], any("y"))
		}},
		{"template", fakeclerk.TokenOptions{
			Class: fakeclerk.TemplateToken,
		}, func(t *testing.T, claims *clerk.SessionClaims, header, all map[string]any) {
			check(t, "cat", header["cat"], any("cl_B7d4PD222AAA"))
			check(t, "sub", claims.Subject, "user_ada")
			for _, name := range []string{"sid", "v", "sts", "fva"} {
				if _, ok := all[name]; ok {
					t.Errorf("the token has %s", name)
				}
			}
		}},
		{"OAuth", fakeclerk.TokenOptions{
			Class: fakeclerk.OAuthToken,
		}, func(t *testing.T, claims *clerk.SessionClaims, header, all map[string]any) {
			check(t, "typ", header["typ"], any("at+jwt"))
			check(t, "cat", header["cat"], nil)
			check(t, "sub", claims.Subject, "user_ada")
			check(t, "sid", all["sid"], nil)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			token, err := s.Token("user_ada", test.opts)
			must(t, err)
			claims, err := verify(t.Context(), s, clock, token) // the SDK accepts each of these tokens
			must(t, err)
			header, all := decode(t, token)
			test.check(t, claims, header, all)
		})
	}

	t.Run("M2M", func(t *testing.T) {
		t.Parallel()
		token, err := s.Token("", fakeclerk.TokenOptions{Class: fakeclerk.M2MToken})
		must(t, err)
		claims, err := verify(t.Context(), s, clock, token)
		must(t, err)
		header, _ := decode(t, token)
		check(t, "cat", header["cat"], any("cl_B7d4PD333AAA"))
		check(t, "sub", strings.HasPrefix(claims.Subject, "mch_"), true)
	})
	for class, prefix := range map[fakeclerk.TokenClass]string{
		fakeclerk.OpaqueM2MToken: "mt_", fakeclerk.OpaqueOAuthToken: "oat_", fakeclerk.APIKey: "ak_",
	} {
		t.Run("opaque "+prefix, func(t *testing.T) {
			t.Parallel()
			token, err := s.Token("user_ada", fakeclerk.TokenOptions{Class: class})
			must(t, err)
			check(t, "prefix", strings.HasPrefix(token, prefix), true)
			if _, err := verify(t.Context(), s, clock, token); err == nil {
				t.Error("the opaque token was accepted")
			}
		})
	}
}

func TestForgedTokens(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{InstanceID: testInstance})
	for name, opts := range map[string]fakeclerk.TokenOptions{
		"wrong key":     {WrongKey: true},
		"unknown kid":   {KeyID: "ins_other"},
		"no signature":  {Algorithm: "none"},
		"HS256":         {Algorithm: "HS256"},
		"foreign":       {Issuer: "https://evil.example"},
		"expired":       {IssuedAt: epoch.Add(-time.Hour)},
		"not yet valid": {NotBefore: epoch.Add(time.Minute)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			token, err := s.Token("user_ada", opts)
			must(t, err)
			if _, err := verify(t.Context(), s, clock, token); err == nil {
				t.Error("the SDK accepted it")
			}
		})
	}
	token, err := s.Token("user_ada", fakeclerk.TokenOptions{Algorithm: "none"})
	must(t, err)
	header, _ := decode(t, token)
	check(t, "alg", header["alg"], any("none"))
	check(t, "signature", strings.HasSuffix(token, "."), true)
}

func TestTokenErrors(t *testing.T) {
	t.Parallel()
	s := start(t, fakeclerk.Config{InstanceID: testInstance})
	for name, opts := range map[string]fakeclerk.TokenOptions{
		"class":     {Class: 99},
		"version":   {Version: 3},
		"algorithm": {Algorithm: "RS1024"},
		"claims":    {Claims: map[string]any{"f": func() {}}},
		"header":    {Header: map[string]any{"f": func() {}}},
	} {
		if token, err := s.Token("user_ada", opts); err == nil || token != "" {
			t.Errorf("%s: got token %q and error %v, want an error only", name, token, err)
		}
	}
}

func TestKeyRotation(t *testing.T) {
	t.Parallel()
	s, clock := startClocked(t, fakeclerk.Config{InstanceID: testInstance})
	kids := func() []string {
		set, err := jwksClient(s).Get(t.Context(), &jwks.GetParams{})
		must(t, err)
		var list []string
		for _, k := range set.Keys {
			check(t, "alg", k.Algorithm, "RS256")
			check(t, "use", k.Use, "sig")
			list = append(list, k.KeyID)
		}
		return list
	}
	if diff := cmp.Diff([]string{s.InstanceID()}, kids()); diff != "" {
		t.Errorf("kids (-want +got):\n%s", diff)
	}
	old, oldKey := s.SessionToken("user_ada"), s.JWTKey()

	s.RotateKey()
	check(t, "kids before RetireKeys", len(kids()), 2)
	for name, token := range map[string]string{"old": old, "new": s.SessionToken("user_ada")} {
		if _, err := verify(t.Context(), s, clock, token); err != nil {
			t.Errorf("%s token: %v", name, err)
		}
	}
	if s.JWTKey() == oldKey {
		t.Error("JWTKey did not change")
	}

	s.RetireKeys()
	check(t, "kids after RetireKeys", len(kids()), 1)
	if _, err := verify(t.Context(), s, clock, old); err == nil {
		t.Error("the old token still verifies")
	}
	_, err := verify(t.Context(), s, clock, s.SessionToken("user_ada"))
	must(t, err)
}

func TestInstances(t *testing.T) {
	t.Parallel()
	a, b := start(t, fakeclerk.Config{}), start(t, fakeclerk.Config{SecretKey: "sk_live_b"})
	if a.InstanceID() == b.InstanceID() || a.Issuer() == b.Issuer() || a.JWTKey() == b.JWTKey() {
		t.Error("two instances have the same id, issuer or key")
	}
	check(t, "issuer of a production instance", strings.HasPrefix(b.Issuer(), "https://clerk."), true)
	again := start(t, fakeclerk.Config{InstanceID: a.InstanceID()})
	check(t, "key of the same instance", again.JWTKey(), a.JWTKey())
}

func TestClockAdvance(t *testing.T) {
	t.Parallel()
	type fired struct {
		Name string
		At   time.Duration // since epoch
	}
	for _, test := range []struct {
		name string
		run  func(c *fakeclerk.Clock, note func(string) func())
		want []fired
		now  time.Duration
	}{
		{
			name: "in order of due time, each at its time",
			run: func(c *fakeclerk.Clock, note func(string) func()) {
				c.AfterFunc(3*time.Second, note("c"))
				c.AfterFunc(1*time.Second, note("a"))
				c.AfterFunc(2*time.Second, note("b"))
				c.AfterFunc(9*time.Second, note("never"))
				c.Advance(5 * time.Second)
			},
			want: []fired{{"a", time.Second}, {"b", 2 * time.Second}, {"c", 3 * time.Second}},
			now:  5 * time.Second,
		},
		{
			name: "ties in order of scheduling",
			run: func(c *fakeclerk.Clock, note func(string) func()) {
				for _, name := range []string{"a", "b", "c"} {
					c.AfterFunc(time.Second, note(name))
				}
				c.Advance(time.Second)
			},
			want: []fired{{"a", time.Second}, {"b", time.Second}, {"c", time.Second}},
			now:  time.Second,
		},
		{
			name: "zero fires what is due now",
			run: func(c *fakeclerk.Clock, note func(string) func()) {
				c.AfterFunc(0, note("now"))
				c.AfterFunc(-time.Hour, note("past"))
				c.AfterFunc(1, note("later"))
				c.Advance(0)
			},
			want: []fired{{"now", 0}, {"past", 0}},
		},
		{
			name: "what is scheduled on the way fires too",
			run: func(c *fakeclerk.Clock, note func(string) func()) {
				c.AfterFunc(time.Second, func() {
					note("a")()
					c.AfterFunc(time.Second, note("b"))
				})
				c.Advance(2 * time.Second)
			},
			want: []fired{{"a", time.Second}, {"b", 2 * time.Second}},
			now:  2 * time.Second,
		},
		{
			name: "advancing within a call takes time",
			run: func(c *fakeclerk.Clock, note func(string) func()) {
				c.AfterFunc(time.Second, func() { c.Advance(10 * time.Second); note("slow")() })
				c.AfterFunc(2*time.Second, note("inner"))
				c.AfterFunc(12*time.Second, note("outside"))
				c.Advance(3 * time.Second)
			},
			want: []fired{{"inner", 2 * time.Second}, {"slow", 11 * time.Second}},
			now:  11 * time.Second,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := fakeclerk.NewClock(epoch)
			var got []fired
			test.run(c, func(name string) func() {
				return func() { got = append(got, fired{name, c.Now().Sub(epoch)}) }
			})
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("fired (-want +got):\n%s", diff)
			}
			check(t, "Now", c.Now().Sub(epoch), test.now)
		})
	}
}

func TestClockStop(t *testing.T) {
	t.Parallel()
	c := fakeclerk.NewClock(epoch)
	n := 0
	stop := c.AfterFunc(time.Second, func() { n++ })
	check(t, "first stop", stop(), true)
	check(t, "second stop", stop(), false)
	stop = c.AfterFunc(time.Second, func() { n++ })
	c.Advance(time.Second)
	check(t, "stop after the call", stop(), false)
	check(t, "calls", n, 1)
}

func TestClockNext(t *testing.T) {
	t.Parallel()
	c := fakeclerk.NewClock(epoch)
	if _, ok := c.Next(); ok {
		t.Error("an idle clock has a next call")
	}
	c.AfterFunc(time.Minute, func() {})
	stop := c.AfterFunc(time.Second, func() {})
	next, ok := c.Next()
	check(t, "ok", ok, true)
	check(t, "next", next, epoch.Add(time.Second))
	stop()
	next, _ = c.Next()
	check(t, "next after stop", next, epoch.Add(time.Minute))
}

func TestClockRefusesToGoBack(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	fakeclerk.NewClock(epoch).Advance(-1)
}
