package fakeclerk_test

import (
	"strings"
	"testing"

	"github.com/clerk/clerk-sdk-go/v2/jwks"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/google/go-cmp/cmp"
)

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
	check(t, "kids while both are there", len(kids()), 2)
	for name, token := range map[string]string{"old": old, "new": s.SessionToken("user_ada")} {
		if _, err := verify(t.Context(), s, clock, token); err != nil {
			t.Errorf("%s token: %v", name, err)
		}
	}
	if s.JWTKey() == oldKey {
		t.Error("JWTKey did not change")
	}

	s.RetireKeys()
	check(t, "kids in the end", len(kids()), 1)
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
