// Package sessiontoken turns a Clerk session token into its claims, or into an error with
// a code. It accepts session tokens and nothing else that Clerk signs with the same keys.
package sessiontoken

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	josejson "github.com/go-jose/go-jose/v3/json"
	"github.com/maypok86/otter/v2"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
	"github.com/clerksync/clerksync-go/clerksync/internal/clock"
)

// Config says which tokens a [Verifier] accepts.
type Config struct {
	AuthorizedParties []string                  // accepted values of azp; empty for any
	AllowNoParty      bool                      // accept header tokens without azp, whatever AuthorizedParties are
	Issuers           []string                  // accepted values of iss; empty for any of the form that Clerk's have
	Leeway            time.Duration             // how far the clocks may be apart
	AllowPending      bool                      // accept sessions with open tasks
	VersionClaim      string                    // the claim that holds the user's version
	CustomClaims      func(context.Context) any // a pointer to decode custom claims into; nil for none
	CacheSize         int                       // verified tokens remembered; negative for none
	Keys              *Keyring
	Clock             clock.Clock
}

// Verifier verifies session tokens. It is safe for concurrent use.
type Verifier struct {
	cfg   Config
	cache *otter.Cache[[sha256.Size]byte, *Session] // by the token's hash; nil: none
}

// Session is a verified session token. It is immutable and shared.
type Session struct {
	Claims  *clerk.SessionClaims
	Version Version

	pending bool   // the session has open tasks
	keys    uint64 // the generation of the keys that verified it
}

// Carrier is the part of a request that carried the token.
type Carrier int

// The carriers. A browser sends a cookie by itself, so more is asked of its token.
const (
	Header Carrier = iota
	Cookie
)

// NewVerifier returns a Verifier.
func NewVerifier(cfg Config) *Verifier {
	v := &Verifier{cfg: cfg}
	if cfg.CacheSize >= 0 {
		v.cache = otter.Must(&otter.Options[[sha256.Size]byte, *Session]{
			MaximumSize: cfg.CacheSize,
			Executor:    func(f func()) { f() }, // a goroutine for each write costs more than the write
		})
	}
	return v
}

// Verify verifies a token, or finds that it was verified before; the answer is the same.
// The error is an [*Error] if the token is refused, [ErrCustomClaims], or that of a failed
// fetch of the keys, which may match [ErrNotOurs].
func (v *Verifier) Verify(ctx context.Context, token string, from Carrier) (*Session, error) {
	return v.remembered(ctx, token, from, true)
}

// VerifyNow is [Verifier.Verify] with the keys at hand. If only a fetch could tell, the error
// is [ErrKeysNeeded]. Keys that are too old are fetched again all the same, and VerifyNow
// waits for them until [FetchPatience] at most.
func (v *Verifier) VerifyNow(ctx context.Context, token string, from Carrier) (*Session, error) {
	return v.remembered(ctx, token, from, false)
}

func (v *Verifier) remembered(ctx context.Context, token string, from Carrier, mayFetch bool) (*Session, error) {
	if v.cache == nil {
		return v.verify(ctx, token, from, mayFetch)
	}
	hash := sha256.Sum256([]byte(token))
	now := v.cfg.Clock.Now()
	if s, ok := v.cache.GetIfPresent(hash); ok {
		if set := v.cfg.Keys.usable(now); set != nil && s.keys == set.generation {
			if err := v.check(s, from, now); err == nil {
				return s, nil
			}
		}
		v.cache.Invalidate(hash)
	}
	s, err := v.verify(ctx, token, from, mayFetch)
	if err == nil {
		v.cache.Set(hash, s)
	}
	return s, err
}

// verify checks a token in full. The order of the checks decides the code: form and class,
// key and signature, class again by the category and the claims, issuer, party, state, time.
func (v *Verifier) verify(ctx context.Context, token string, from Carrier, mayFetch bool) (*Session, error) {
	t, err := parse(token)
	if err != nil {
		return nil, err
	}
	keys, err := v.verifySignature(ctx, t, mayFetch)
	if err != nil {
		return nil, err
	}
	if err := t.checkCategory(); err != nil {
		return nil, err
	}
	claims, more, err := v.decode(ctx, t.payload)
	if err != nil {
		return nil, err
	}
	if err := v.checkClaims(claims, more); err != nil {
		return nil, err
	}
	s := &Session{
		Claims: claims, Version: more.version(t.payload, v.cfg.VersionClaim),
		pending: more.Status == "pending", keys: keys.generation,
	}
	return s, v.check(s, from, v.cfg.Clock.Now())
}

// verifySignature returns the keys that verified the signature.
func (v *Verifier) verifySignature(ctx context.Context, t *parsedToken, mayFetch bool) (*keySet, error) {
	key, keys, err := v.cfg.Keys.key(ctx, t.keyID, mayFetch)
	if err != nil {
		return nil, err
	}
	if t.verify(key) == nil {
		return keys, nil
	}
	key, keys, err = v.cfg.Keys.renewed(ctx, t.keyID, key, mayFetch)
	if err != nil {
		return nil, err
	}
	if key == nil || t.verify(key) != nil {
		return nil, refuse(BadSignature, "wrong signature")
	}
	return keys, nil
}

// decode decodes the claims of a token whose signature is right.
func (v *Verifier) decode(ctx context.Context, payload []byte) (*clerk.SessionClaims, *moreClaims, error) {
	claims, more, err := decodeClaims(payload)
	if err == nil && v.cfg.CustomClaims != nil {
		claims.Custom = v.cfg.CustomClaims(ctx)
		if p := reflect.ValueOf(claims.Custom); p.Kind() != reflect.Pointer || p.IsNil() {
			return nil, nil, ErrCustomClaims
		}
		err = josejson.Unmarshal(payload, claims.Custom) // as the SDK does
	}
	if err != nil {
		return nil, nil, refuse(Malformed, "its claims are not of the documented types")
	}
	return claims, more, nil
}

// checkClaims checks what is the same each time the token is used.
func (v *Verifier) checkClaims(c *clerk.SessionClaims, more *moreClaims) error {
	switch {
	case !clerkapi.ValidUserID(c.Subject):
		return refuse(WrongClass, "its subject is not a user, perhaps a machine")
	case c.SessionID == "":
		return refuse(WrongClass, "it has no session, like the token of a JWT template")
	case c.Expiry == nil:
		return refuse(Malformed, "it never expires")
	case more.FormatVersion != nil && *more.FormatVersion != 1 && *more.FormatVersion != 2:
		return refuse(Malformed, "its version is neither 1 nor 2")
	}
	want := v.cfg.Issuers
	if slices.Contains(want, c.Issuer) || len(want) == 0 && clerkIssuer(c.Issuer) {
		return nil
	}
	return &Error{
		Code: WrongIssuer, Why: "another issuer",
		Want: printable(cmp.Or(strings.Join(want, " "), "https://clerk.<domain> or https://<name>.clerk.accounts.dev")),
	}
}

// check checks what may differ each time the token is used.
func (v *Verifier) check(s *Session, from Carrier, now time.Time) error {
	if err := v.checkParty(s.Claims.AuthorizedParty, from); err != nil {
		return err
	}
	if s.pending && !v.cfg.AllowPending {
		return refuse(Pending, "the session has open tasks")
	}
	return s.validAt(now, v.cfg.Leeway)
}

// checkParty checks the origin that the token was made for.
func (v *Verifier) checkParty(azp string, from Carrier) error {
	parties := v.cfg.AuthorizedParties
	switch {
	case len(parties) == 0, slices.Contains(parties, azp), azp == "" && v.cfg.AllowNoParty && from == Header:
		return nil
	}
	e := &Error{Code: WrongParty, Why: "made for another origin", Want: printable(strings.Join(parties, " "))}
	if azp == "" {
		e.Check, e.Why = NoParty, "it does not say for which origin it was made"
	}
	return e
}

// clerkIssuer reports whether iss has the form of one of Clerk's Frontend API URLs:
// https://clerk.<domain> or https://<name>.clerk.accounts.dev.
func clerkIssuer(iss string) bool {
	u, err := url.Parse(iss)
	if err != nil || u.Scheme != "https" || u.User != nil || u.Port() != "" ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return false
	}
	host := u.Hostname()
	name, development := strings.CutSuffix(host, ".clerk.accounts.dev")
	domain, production := strings.CutPrefix(host, "clerk.")
	return development && name != "" || production && strings.Contains(domain, ".")
}

// validAt checks the times. A token ends at its exp, not after it.
func (s *Session) validAt(now time.Time, leeway time.Duration) error {
	late, early := now.Add(-leeway), now.Add(leeway)
	wrongTime := func(code Code, why string, claim int64) error {
		return &Error{Code: code, Why: why, Got: at(time.Unix(claim, 0)), Want: at(now) + ", give or take " + leeway.String()}
	}
	switch c := s.Claims; {
	case !late.Before(time.Unix(*c.Expiry, 0)):
		return wrongTime(Expired, "expired", *c.Expiry)
	case c.NotBefore != nil && early.Before(time.Unix(*c.NotBefore, 0)):
		return wrongTime(NotYetValid, "not valid yet", *c.NotBefore)
	case c.IssuedAt != nil && early.Before(time.Unix(*c.IssuedAt, 0)):
		return wrongTime(NotYetValid, "issued in the future", *c.IssuedAt)
	}
	return nil
}

// at writes a time for the log.
func at(t time.Time) string { return printable(t.UTC().Format(time.RFC3339)) }

// Error says why a token is refused. Its text quotes nothing of the token.
type Error struct {
	Code Code
	Why  string // one of a few constants

	Check string // tells apart what is wrong under one code; mostly ""
	// Got and Want are for the operator's log: what was found, and what was expected. Both
	// are short and printable. Got is only ever a time or a category, of a token whose
	// signature is right: its other claims may hold personal data.
	Got, Want string
}

func (e *Error) Error() string { return e.Why }

// The values of Error.Check.
const (
	NoParty         = "no_party" // the token does not say for whom it was made
	UnknownCategory = "category"
)

// Code says why a token was rejected.
type Code string

// The codes, as clients of clerksync see them.
const (
	Malformed    Code = "token_malformed"
	Expired      Code = "token_expired"
	NotYetValid  Code = "token_not_yet_valid"
	WrongClass   Code = "token_wrong_class"
	WrongParty   Code = "token_wrong_party"
	WrongIssuer  Code = "token_wrong_issuer"
	BadSignature Code = "token_bad_signature"
	UnknownKey   Code = "token_unknown_key"
	Pending      Code = "session_pending"
)

// ErrCustomClaims says that [Config].CustomClaims did not return a pointer to decode into.
var ErrCustomClaims = errors.New("clerksync: Config.Auth.CustomClaims must return a pointer to decode into")

func refuse(code Code, why string) error { return &Error{Code: code, Why: why} }

// maxPrintable bounds Got and Want.
const maxPrintable = 200

// printable returns the beginning of text, with a question mark for each byte that is not
// printable ASCII.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, text[:min(len(text), maxPrintable)])
}
