package clerksync_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/clerksync/clerksync-go/clerksync/fakeclerk"
	"github.com/clerksync/clerksync-go/clerksync/internal/sessiontoken"
)

func TestKeysAreFetchedOnce(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() { fx.wantCode(t, fx.clerk.SessionToken("user_1"), "") })
	}
	all.Wait()
	fx.wantKeyFetches(t, 1)
}

// The lifetime of the keys counts from their fetch, however often they are used.
func TestKeysHaveAnAbsoluteLifetime(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	for range 12 {
		fx.wantCode(t, fx.clerk.SessionToken("user_1"), "")
		fx.clock.Advance(10 * time.Minute)
	}
	fx.wantKeyFetches(t, 2)
}

func TestRotatedKeys(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	old := fx.clerk.SessionToken("user_1")
	fx.wantCode(t, old, "")
	fx.clerk.RotateKey()
	fx.clock.Advance(10 * time.Second)
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "") // an unknown key id fetches
	fx.wantKeyFetches(t, 2)
	fx.wantCode(t, old, "")

	fx.clerk.RetireKeys()
	fx.clock.Advance(time.Hour)
	retired, err := fx.clerk.Token("user_1", fakeclerk.TokenOptions{KeyID: fx.clerk.InstanceID()})
	if err != nil {
		t.Fatal(err)
	}
	fx.wantCode(t, retired, "token_unknown_key")
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "")
}

// A retired key ends the cached tokens that it signed.
func TestRetiredKeyEndsItsTokens(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	long, err := fx.clerk.Token("user_1", fakeclerk.TokenOptions{ExpiresAt: t0.Add(24 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	fx.wantCode(t, long, "")
	fx.clerk.RotateKey()
	fx.clerk.RetireKeys()
	fx.wantCode(t, long, "")
	fx.clock.Advance(time.Hour)
	fx.wantCode(t, long, "token_unknown_key")
}

func TestUnknownKeysFetchOnceInAWhile(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	forged := func(kid string) string {
		token, err := fx.clerk.Token("user_1", fakeclerk.TokenOptions{KeyID: kid, WrongKey: true})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	fx.wantCode(t, forged("ins_a"), "token_unknown_key")
	fx.wantCode(t, forged("ins_b"), "token_unknown_key")
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "")
	fx.wantKeyFetches(t, 1)
	fx.clock.Advance(10 * time.Second)
	fx.wantCode(t, forged("ins_c"), "token_unknown_key")
	fx.wantCode(t, forged("ins_d"), "token_unknown_key")
	fx.wantKeyFetches(t, 2)
}

func TestOutageOfTheKeys(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	fx.clerk.SetFault(down)
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "unavailable")
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "unavailable")
	fx.wantKeyFetches(t, 1)
	fx.clerk.SetFault(nil)
	fx.clock.Advance(time.Second)
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "") // recovered within a second
	fx.wantKeyFetches(t, 2)

	fx.clerk.SetFault(down)
	fx.clock.Advance(100 * time.Hour)
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "") // with the cached keys
	stranger, err := fx.clerk.Token("user_1", fakeclerk.TokenOptions{KeyID: "ins_other"})
	if err != nil {
		t.Fatal(err)
	}
	fx.wantCode(t, stranger, "unavailable") // it may be a new key
}

// While Clerk is down, visits use the cached keys and do not wait.
func TestNobodyWaitsForKeysInAnOutage(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "")
	fx.clerk.SetFault(down)
	fx.clock.Advance(time.Hour)
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "")
	fx.clock.Advance(time.Second)
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return &fakeclerk.Fault{Hang: true} })
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "") // although this fetch hangs
	fx.clock.Advance(clerksync.CallTimeout)
}

// If the cached keys have expired but include the token's key, a visit waits a second for new keys,
// not as long as Clerk hangs.
func TestExpiredKeysWaitASecond(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "")
	fx.clock.Advance(time.Hour)
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		go fx.clock.Advance(sessiontoken.ExpiredKeysWait)
		return &fakeclerk.Fault{Hang: true}
	})
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "")
	fx.clock.Advance(clerksync.CallTimeout)
}

// RFC 7517 asks to ignore keys of unknown kinds.
func TestKeysOfUnknownKindsAreIgnored(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fx.clerk.APIURL()+"/jwks", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+fx.clerk.SecretKey())
	keys := string(send(t, r).body)
	mixed := strings.Replace(keys, `"keys":[`,
		`"keys":[null,7,{"kty":"AKP","kid":"pq","alg":"ML-DSA-44","pub":"AAAA"},`, 1)
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault { return &fakeclerk.Fault{Status: 200, Body: mixed} })
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "")
}

// A fetch that returns the same keys does not empty the token cache.
func TestSameKeysKeepVerifiedTokens(t *testing.T) {
	t.Parallel()
	verified := 0
	fx := newFixture(t, func(c *clerksync.Config) {
		c.Auth.CustomClaims = func(context.Context) any { verified++; return &struct{}{} }
	})
	token, err := fx.clerk.Token("user_1", fakeclerk.TokenOptions{ExpiresAt: t0.Add(24 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	fx.wantCode(t, token, "")
	fx.clock.Advance(10 * time.Second)
	junk, err := fx.clerk.Token("user_1", fakeclerk.TokenOptions{KeyID: "ins_junk"})
	if err != nil {
		t.Fatal(err)
	}
	fx.wantCode(t, junk, "token_unknown_key")
	fx.wantKeyFetches(t, 2)
	fx.wantCode(t, token, "")
	if verified != 1 {
		t.Errorf("verified %d times", verified)
	}
}

func TestUselessKeySets(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"empty":         `{"keys":[]}`,
		"null":          `null`,
		"null key":      `{"keys":[null]}`,
		"no key at all": `{}`,
		"not JSON":      `<html>`,
		"another kind": `{"keys":[{"kty":"EC","crv":"P-256","kid":"ins_1","alg":"ES256","use":"sig",
			"x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
				return &fakeclerk.Fault{Status: 200, Body: body}
			})
			fx.wantCode(t, fx.clerk.SessionToken("user_1"), "unavailable")
		})
	}
}
