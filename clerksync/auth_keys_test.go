package clerksync_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v3"

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

// While Clerk hangs, a request does not wait for keys that could not be had a moment ago.
func TestHangingKeysAreNotWaitedForInARow(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*testing.T, *fixture) string{
		"no keys": func(_ *testing.T, fx *fixture) string { return fx.clerk.SessionToken("user_1") },
		"an unknown key": func(t *testing.T, fx *fixture) string {
			fx.wantCode(t, fx.clerk.SessionToken("user_1"), "")
			return fx.token(t, "user_1", fakeclerk.TokenOptions{KeyID: "ins_other"})
		},
		"a wrong signature": func(t *testing.T, fx *fixture) string {
			fx.wantCode(t, fx.clerk.SessionToken("user_1"), "")
			return fx.token(t, "user_1", fakeclerk.TokenOptions{WrongKey: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, nil)
			token := prepare(t, fx)
			fx.clock.Advance(10 * time.Second)
			fx.hang(clerksync.CallTimeout, sessiontoken.FetchPatience)
			ask := func() { fx.wantCode(t, token, "unavailable") }
			for i, want := range []time.Duration{clerksync.CallTimeout, 0, 0, 0} {
				if d := fx.waited(ask); d != want {
					t.Errorf("request %d waited %v, want %v", i, d, want)
				}
			}
			fx.clock.Advance(time.Second)
			for i, want := range []time.Duration{sessiontoken.FetchPatience, 0, 0, 0} {
				if d := fx.waited(ask); d != want {
					t.Errorf("request %d of the next fetch waited %v, want %v", i, d, want)
				}
			}
			fx.clock.Advance(clerksync.CallTimeout)
		})
	}
}

// If the cached keys have expired but include the token's key, a visit waits a second for new keys,
// not as long as Clerk hangs.
func TestExpiredKeysWaitASecond(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "")
	fx.clock.Advance(time.Hour)
	fx.clerk.SetFault(func(*http.Request) *fakeclerk.Fault {
		go fx.clock.Advance(sessiontoken.FetchPatience)
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

// replaceKey makes Clerk publish another key under the same id, as a rotation may: the id is the
// instance's. It returns the key's signer.
func replaceKey(t *testing.T, fx *fixture) *signer {
	t.Helper()
	key, err := json.Marshal(jose.JSONWebKey{
		Key: &testSigner().key.PublicKey, KeyID: fx.clerk.InstanceID(), Algorithm: "RS256", Use: "sig",
	})
	if err != nil {
		t.Fatal(err)
	}
	answerKeys(fx, fmt.Sprintf(`{"keys":[%s]}`, key))
	return testSigner()
}

// answerKeys has Clerk answer a fetch of the keys with this body.
func answerKeys(fx *fixture, body string) {
	fx.clerk.SetFault(func(r *http.Request) *fakeclerk.Fault {
		if strings.HasSuffix(r.URL.Path, "/jwks") {
			return &fakeclerk.Fault{Status: 200, Body: body}
		}
		return nil
	})
}

// signedNow is a session token of the fixture's instance, valid for an hour, that s signs.
func (s *signer) signedNow(fx *fixture) string {
	now := fx.clock.Now().Unix()
	header := fmt.Sprintf(`{"alg":"RS256","kid":%q,"typ":"JWT"}`, fx.clerk.InstanceID())
	return s.sign(header, fmt.Sprintf(`{"iss":%q,"sub":"user_1","sid":"sess_1","iat":%d,"exp":%d}`,
		fx.clerk.Issuer(), now, now+3600))
}

// A new key under the id of the old one is found by its first token, and ends the old key's tokens.
func TestNewKeyUnderTheOldID(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	old := fx.token(t, "user_1", fakeclerk.TokenOptions{ExpiresAt: t0.Add(time.Hour)})
	fx.wantCode(t, old, "")
	replaced := replaceKey(t, fx)
	fx.clock.Advance(10 * time.Second)
	fx.wantCode(t, old, "") // nobody has fetched yet
	fx.wantKeyFetches(t, 1)
	fx.wantCode(t, replaced.signedNow(fx), "")
	fx.wantKeyFetches(t, 2)
	fx.wantCode(t, old, "token_bad_signature")
	fx.wantCode(t, replaced.signedNow(fx), "")
	fx.wantKeyFetches(t, 2)
}

// Many requests with tokens of the new key make one fetch, and none is refused.
func TestNewKeyUnderTheOldIDInAStampede(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "")
	replaced := replaceKey(t, fx)
	fx.clock.Advance(10 * time.Second)
	token := replaced.signedNow(fx)
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() { fx.wantCode(t, token, "") })
	}
	all.Wait()
	fx.wantKeyFetches(t, 2)
}

// A request with the new key's token that comes while the limit forbids a fetch uses what another
// request has fetched.
func TestNewKeyUnderTheOldIDFetchedForAnUnknownID(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "")
	replaced := replaceKey(t, fx)
	fx.wantCode(t, replaced.signedNow(fx), "token_bad_signature") // fetched just now
	fx.clock.Advance(10 * time.Second)
	fx.wantCode(t, fx.token(t, "user_1", fakeclerk.TokenOptions{KeyID: "ins_unknown"}), "token_unknown_key")
	fx.wantKeyFetches(t, 2)
	fx.wantCode(t, replaced.signedNow(fx), "")
	fx.wantKeyFetches(t, 2)
}

// If a key is withdrawn while a token with its id is being checked, the token is still refused.
func TestWithdrawnKey(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "")
	forged := fx.token(t, "user_1", fakeclerk.TokenOptions{WrongKey: true, ExpiresAt: t0.Add(time.Hour)})
	fx.clerk.RotateKey()
	fx.clerk.RetireKeys()
	fx.clock.Advance(10 * time.Second)
	fx.wantCode(t, forged, "token_bad_signature")
	fx.wantKeyFetches(t, 2)
	fx.wantCode(t, forged, "token_unknown_key")
	fx.wantCode(t, forged, "token_unknown_key")
	fx.wantKeyFetches(t, 3) // one for each cause
}

// Forged signatures cause as few fetches as unknown key ids, and do not delay the fetch for a key id
// that has just been made.
func TestForgedSignaturesFetchOnceInAWhile(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	forge := func() {
		for range 100 {
			fx.wantCode(t, fx.token(t, "user_1", fakeclerk.TokenOptions{WrongKey: true}), "token_bad_signature")
		}
	}
	forge()
	fx.wantKeyFetches(t, 1)
	for fetches := 2; fetches < 5; fetches++ {
		fx.clock.Advance(10*time.Second - time.Millisecond)
		forge()
		fx.wantKeyFetches(t, fetches-1)
		fx.clock.Advance(time.Millisecond)
		forge()
		fx.wantKeyFetches(t, fetches)
	}
	fx.clerk.RotateKey()
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "") // although a forged token has just caused a fetch
	fx.wantKeyFetches(t, 5)
	fx.clock.Advance(5 * time.Second)
	forge()
	fx.wantKeyFetches(t, 5)
}

// If the keys cannot be fetched, the key may have been replaced, so the answer is 503 instead of 401.
// A token that a known key signed is still accepted.
func TestNewKeyUnderTheOldIDInAnOutage(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, nil)
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "")
	fx.clerk.SetFault(down)
	fx.clock.Advance(10 * time.Second)
	forged := fx.token(t, "user_1", fakeclerk.TokenOptions{WrongKey: true})
	for range 10 {
		fx.wantCode(t, forged, "unavailable")
	}
	fx.wantKeyFetches(t, 2)
	fx.wantCode(t, fx.clerk.SessionToken("user_1"), "")
	fx.clock.Advance(time.Second)
	replaced := replaceKey(t, fx)
	fx.wantCode(t, replaced.signedNow(fx), "") // recovered within a second
	fx.wantKeyFetches(t, 3)
}
