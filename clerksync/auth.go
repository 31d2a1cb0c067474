package clerksync

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/maypok86/otter/v2"
)

// AuthConfig says which session tokens [Syncer.RequireUser], [Syncer.WithUser] and
// [Syncer.Authenticate] accept. The zero value accepts every session of the Clerk
// instance that SecretKey is of.
type AuthConfig struct {
	_ [0]func() // forbids unkeyed literals

	// AuthorizedParties are the origins whose sessions are accepted, such as
	// "https://app.example.com": the token's azp claim must be one of them, to
	// the letter; a token without azp is refused. Defaults to any.
	AuthorizedParties []string

	// JWTKey is the instance's public key in PEM, as the Dashboard shows it for
	// CLERK_JWT_KEY. With it no key is ever fetched, and after a rotation in
	// Clerk the app needs the new one. Defaults to fetching the keys with
	// SecretKey.
	JWTKey string

	// Issuer is the one that tokens must have, to the letter: the Frontend API
	// URL. Needed where Clerk is proxied. Defaults to any of Clerk's form,
	// https://clerk.<domain> or https://<name>.clerk.accounts.dev.
	Issuer string

	// Leeway is how far this server's clock may be off Clerk's. Negative means
	// not at all. Defaults to 5 seconds.
	Leeway time.Duration

	// Cookie also accepts the token from the __session cookie where there is no
	// Authorization header. It needs AuthorizedParties, for a cookie may have been
	// made for another origin of the same site. As a browser also sends the cookie
	// with requests that other origins make, those that may change something
	// must come from the server's own origin or an authorized party
	// ([http.CrossOriginProtection]). Defaults to false.
	Cookie bool

	// AllowPending accepts sessions whose user has tasks open, such as choosing
	// an organization, which count as signed out elsewhere. Defaults to false.
	AllowPending bool

	// FreshnessClaim is the custom claim that carries {{user.updated_at}}; see
	// [FreshnessClaims] for the setting in the Dashboard. With it, a visit whose
	// token is newer than the record re-reads the record before the handler
	// runs. Defaults to "updated_at".
	FreshnessClaim string

	// CustomClaims returns a pointer to decode the app's custom claims into; it
	// is then [clerk.SessionClaims].Custom. The result is shared by all requests with
	// one token. Defaults to none.
	CustomClaims func(context.Context) any

	// TokenCacheSize is how many verified tokens are remembered at most, by
	// hash; 100,000 take under 100 MB. Negative means none. Defaults to 100,000.
	TokenCacheSize int

	crossOrigin *http.CrossOriginProtection
}

// prepare fills in the defaults and reports the faults.
func (a *AuthConfig) prepare(fault func(format string, args ...any)) (key *rsa.PublicKey) {
	a.AuthorizedParties = slices.Clone(a.AuthorizedParties) // read with each request
	a.crossOrigin = http.NewCrossOriginProtection()
	for i, party := range a.AuthorizedParties {
		if a.crossOrigin.AddTrustedOrigin(party) != nil || strings.Contains(party, "@") {
			fault("Auth.AuthorizedParties[%d] is no origin: write it as https://app.example.com, without a path or a final slash", i)
		}
	}
	if a.Cookie && len(a.AuthorizedParties) == 0 {
		fault("Auth.Cookie needs Auth.AuthorizedParties: the cookie may have been made for another origin of the same site")
	}
	if a.JWTKey = strings.TrimSpace(a.JWTKey); a.JWTKey != "" {
		// One line in an environment variable often has its line breaks written out.
		jwk, err := clerk.JSONWebKeyFromPEM(strings.ReplaceAll(a.JWTKey, `\n`, "\n"))
		if err == nil {
			key, _ = jwk.Key.(*rsa.PublicKey)
		}
		if key == nil || key.N.BitLen() < minKeyBits {
			fault("Auth.JWTKey is no RSA public key in PEM of %d bits or more: take it from the Clerk Dashboard under API keys (CLERK_JWT_KEY)", minKeyBits)
		}
	}
	switch {
	case a.Leeway == 0:
		a.Leeway = 5 * time.Second
	case a.Leeway < 0:
		a.Leeway = 0
	}
	if a.FreshnessClaim == "" {
		a.FreshnessClaim = defaultFreshnessClaim
	}
	if a.TokenCacheSize == 0 {
		a.TokenCacheSize = 100_000
	}
	return key
}

// RequireUser lets only signed-in users through: it verifies the request's session
// token, syncs the user as [Syncer.Middleware] does, and puts both into the
// context, the record for [UserFromContext] and the claims for
// [clerk.SessionClaimsFromContext], as the SDK's own middleware puts them.
//
// The token is the Authorization header's bearer token or, with
// [AuthConfig].Cookie, the __session cookie's. Only session tokens are accepted, of
// versions 1 and 2, signed by this Clerk instance. Where the user is impersonated,
// the record is the user's and the claims' Actor tells who acts. The claims are
// shared by the requests with one token: callers may not modify them.
//
// Besides the answers of [Syncer.Middleware] the client gets 401 with
// WWW-Authenticate after RFC 6750 and one of the codes token_missing,
// token_malformed, token_expired, token_not_yet_valid, token_wrong_class,
// token_wrong_party, token_wrong_issuer, token_bad_signature, token_unknown_key and
// session_pending; or 403 cross_origin, where another origin's request has the
// cookie. Where the instance's keys cannot be had the answer is 503,
// never 401.
func (s *Syncer) RequireUser(next http.Handler) http.Handler { return s.authenticated(next, false) }

// WithUser is [Syncer.RequireUser] for routes that serve signed-out visitors too:
// a request without a token, with a pending session, or with an expired cookie
// goes through without a user. One with a token that is wrong is refused all the
// same.
func (s *Syncer) WithUser(next http.Handler) http.Handler { return s.authenticated(next, true) }

func (s *Syncer) authenticated(next http.Handler, optional bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		token, cookie, err := s.token(r)
		var sess *session
		if err == nil {
			sess, err = s.session(ctx, token)
		}
		if err != nil {
			if optional && signedOut(err, cookie) {
				next.ServeHTTP(w, r)
				return
			}
			s.refuse(w, r, err)
			return
		}
		u, err := s.visitor(ctx, sess.claims.Subject, sess.freshness)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(ContextWithUser(clerk.ContextWithSessionClaims(ctx, sess.claims), u)))
	})
}

// signedOut reports whether a token was refused because nobody is signed in, rather
// than because something is wrong with it.
func signedOut(err error, cookie bool) bool {
	var p *Problem
	if !errors.As(err, &p) {
		return false
	}
	return p.Code == codeTokenMissing || p.Code == codeSessionPending || cookie && p.Code == codeTokenExpired
}

// Authenticate verifies the request's session token, as [Syncer.RequireUser] does,
// and returns its claims. It writes nothing, and asks neither for the record nor
// for the user. The claims are shared: callers may not modify them.
//
// The error is a [*Problem]; it matches [ErrUnauthenticated] where the token is
// missing or refused, and [ErrUnavailable] where the instance's keys cannot be had.
func (s *Syncer) Authenticate(r *http.Request) (*clerk.SessionClaims, error) {
	token, _, err := s.token(r)
	if err != nil {
		return nil, err
	}
	sess, err := s.session(r.Context(), token)
	if err != nil {
		return nil, err
	}
	return sess.claims, nil
}

// token finds the request's token, and whether the cookie has it.
func (s *Syncer) token(r *http.Request) (token string, cookie bool, err error) {
	switch values := r.Header["Authorization"]; {
	case len(values) > 1:
		return "", false, unauthenticated(codeTokenMalformed, "several Authorization headers")
	case len(values) == 1:
		scheme, rest, _ := strings.Cut(strings.TrimSpace(values[0]), " ")
		if strings.EqualFold(scheme, "Bearer") {
			if token := strings.TrimSpace(rest); token != "" {
				return token, false, nil
			}
		}
	case s.cfg.Auth.Cookie:
		if c, err := r.Cookie("__session"); err == nil && c.Value != "" {
			if err := s.cfg.Auth.crossOrigin.Check(r); err != nil {
				return "", true, &Problem{Status: http.StatusForbidden, Code: codeCrossOrigin, Err: fmt.Errorf("%w: %w", ErrUnauthenticated, err)}
			}
			return c.Value, true, nil
		}
	}
	return "", false, unauthenticated(codeTokenMissing, "no token")
}

// session verifies a token, or finds it verified before. The answer is the same.
func (s *Syncer) session(ctx context.Context, token string) (*session, error) {
	if s.sessions == nil {
		return s.verifyToken(ctx, token)
	}
	hash := sha256.Sum256([]byte(token))
	now := s.clock.Now()
	if sess, ok := s.sessions.GetIfPresent(hash); ok {
		if set := s.keys.set(now); set != nil && sess.keys == set.generation {
			if err := sess.validAt(now, s.cfg.Auth.Leeway); err == nil {
				return sess, nil
			}
		}
		s.sessions.Invalidate(hash)
	}
	sess, err := s.verifyToken(ctx, token)
	if err == nil {
		s.sessions.Set(hash, sess)
	}
	return sess, err
}

// sessionCache holds verified tokens by their SHA-256.
type sessionCache = otter.Cache[[sha256.Size]byte, *session]

func newSessionCache(size int) *sessionCache {
	if size < 0 {
		return nil
	}
	return otter.Must(&otter.Options[[sha256.Size]byte, *session]{MaximumSize: size})
}
