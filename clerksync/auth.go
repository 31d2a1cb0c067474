package clerksync

import (
	"cmp"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
	"github.com/clerksync/clerksync-go/clerksync/internal/sessiontoken"
	"github.com/clerksync/clerksync-go/clerksync/internal/setting"
)

// AuthConfig says which session tokens [Syncer.RequireUser], [Syncer.WithUser] and
// [Syncer.Authenticate] accept. The zero value accepts every session of the Clerk instance
// that SecretKey belongs to.
type AuthConfig struct {
	_ [0]func() // forbids unkeyed literals

	// AuthorizedParties are the origins whose sessions are accepted, such as
	// "https://app.example.com". The token's azp claim must equal one of them; a token
	// without azp is refused. Defaults to any.
	AuthorizedParties []string

	// JWTKey is the instance's public key in PEM, as the Dashboard shows it for
	// CLERK_JWT_KEY. With it no key is ever fetched, so after a rotation in Clerk the app
	// needs the new one. Defaults to fetching the keys with SecretKey.
	JWTKey string

	// Issuer is the exact issuer that tokens must have: the Frontend API URL. Set it if
	// Clerk is proxied. Defaults to any issuer of Clerk's form, https://clerk.<domain> or
	// https://<name>.clerk.accounts.dev.
	Issuer string

	// Leeway is how far this server's clock may be off Clerk's. Negative means not at
	// all. Defaults to 5 seconds.
	Leeway time.Duration

	// Cookie also accepts the token from the __session cookie if there is no
	// Authorization header. It needs AuthorizedParties, because the cookie may have been
	// made for another origin of the same site. A browser also sends the cookie with
	// requests that other origins make, so requests that may change something must come
	// from the server's own origin or an authorized party ([http.CrossOriginProtection]).
	// Defaults to false.
	Cookie bool

	// AllowPending accepts sessions with open tasks, such as choosing an organization.
	// Clerk's own SDKs count them as signed out. Defaults to false.
	AllowPending bool

	// FreshnessClaim is the custom claim that carries {{user.updated_at}}; see
	// [FreshnessClaims] for the setting in the Dashboard. With it, a visit whose token is
	// newer than the record re-reads the user before the handler runs. Defaults to
	// "updated_at".
	FreshnessClaim string

	// CustomClaims returns a pointer to decode the app's custom claims into; it becomes
	// [clerk.SessionClaims].Custom. All requests with one token share the result.
	// Defaults to none.
	CustomClaims func(context.Context) any

	// TokenCacheSize is how many verified tokens are remembered at most, by hash. 100,000
	// take under 100 MB. Negative means none. Defaults to 100,000.
	TokenCacheSize int

	crossOrigin *http.CrossOriginProtection
}

// withDefaults returns a with its defaults filled in.
func (a AuthConfig) withDefaults() AuthConfig {
	a.AuthorizedParties = slices.Clone(a.AuthorizedParties) // read with each request
	a.JWTKey = strings.TrimSpace(a.JWTKey)
	switch {
	case a.Leeway == 0:
		a.Leeway = 5 * time.Second
	case a.Leeway < 0:
		a.Leeway = 0
	}
	if a.FreshnessClaim == "" {
		a.FreshnessClaim = sessiontoken.DefaultVersionClaim
	}
	if a.TokenCacheSize == 0 {
		a.TokenCacheSize = 100_000
	}
	a.crossOrigin = http.NewCrossOriginProtection()
	for _, party := range a.AuthorizedParties {
		_ = a.crossOrigin.AddTrustedOrigin(party) // validate reports an error
	}
	return a
}

// validate calls fault for each fault.
func (a *AuthConfig) validate(fault func(format string, args ...any)) {
	for i, party := range a.AuthorizedParties {
		if http.NewCrossOriginProtection().AddTrustedOrigin(party) != nil || strings.Contains(party, "@") {
			fault("Auth.AuthorizedParties[%d] is not an origin: write it as https://app.example.com, without a path or a final slash", i)
		}
	}
	if a.Cookie && len(a.AuthorizedParties) == 0 {
		fault("Auth.Cookie needs Auth.AuthorizedParties: the cookie may have been made for another origin of the same site")
	}
	if a.JWTKey != "" && a.publicKey() == nil {
		is := cmp.Or(setting.PEM(a.JWTKey), fmt.Sprintf("is not an RSA public key in PEM of %d bits or more", clerkapi.MinKeyBits))
		fault("Auth.JWTKey %s: take it from the Clerk Dashboard under API keys (CLERK_JWT_KEY)", is)
	}
}

// publicKey is JWTKey decoded; nil if it is not a key that may be used.
func (a *AuthConfig) publicKey() *rsa.PublicKey {
	// In an environment variable, line breaks are often written as \n.
	jwk, err := clerk.JSONWebKeyFromPEM(strings.ReplaceAll(a.JWTKey, `\n`, "\n"))
	if err != nil {
		return nil
	}
	key, ok := jwk.Key.(*rsa.PublicKey)
	if !ok || key.N.BitLen() < clerkapi.MinKeyBits {
		return nil
	}
	return key
}

func newTokenVerifier(cfg *Config, api *clerkapi.Client, b *background) *sessiontoken.Verifier {
	detached := func(fetch func(context.Context) error) error { return b.run(context.Background(), fetch) }
	keys := sessiontoken.NewKeyring(api.SigningKeys, detached, cfg.clock)
	if cfg.Auth.JWTKey != "" {
		keys = sessiontoken.NewStaticKeyring(cfg.Auth.publicKey())
	}
	return sessiontoken.NewVerifier(sessiontoken.Config{
		AuthorizedParties: cfg.Auth.AuthorizedParties,
		Issuer:            cfg.Auth.Issuer,
		Leeway:            cfg.Auth.Leeway,
		AllowPending:      cfg.Auth.AllowPending,
		VersionClaim:      cfg.Auth.FreshnessClaim,
		CustomClaims:      cfg.Auth.CustomClaims,
		CacheSize:         cfg.Auth.TokenCacheSize,
		Keys:              keys,
		Clock:             cfg.clock,
	})
}

// RequireUser lets only signed-in users through. It verifies the request's session token,
// syncs the user as [Syncer.Middleware] does, and puts both into the context: the record
// for [UserFromContext], and the claims for [clerk.SessionClaimsFromContext], as the SDK's
// own middleware does.
//
// The token is the Authorization header's bearer token or, with [AuthConfig].Cookie, the
// __session cookie's. Only session tokens that this Clerk instance signed are accepted, of
// versions 1 and 2. If the user is impersonated, the record is the user's, and the claims'
// Actor says who acts. Requests with one token share the claims: callers may not modify
// them.
//
// Besides the answers of [Syncer.Middleware] the client gets 401 with WWW-Authenticate
// (RFC 6750) and one of the codes token_missing, token_malformed, token_expired,
// token_not_yet_valid, token_wrong_class, token_wrong_party, token_wrong_issuer,
// token_bad_signature, token_unknown_key and session_pending; or 403 cross_origin if
// another origin's request carries the cookie. If the instance's keys cannot be fetched,
// the answer is 503, never 401.
func (s *Syncer) RequireUser(next http.Handler) http.Handler { return s.authenticated(next, false) }

// WithUser is [Syncer.RequireUser] for routes that serve signed-out visitors too: a
// request without a token, with a pending session, or with an expired cookie goes through
// without a user. A request with a wrong token is refused all the same.
func (s *Syncer) WithUser(next http.Handler) http.Handler { return s.authenticated(next, true) }

func (s *Syncer) authenticated(next http.Handler, optional bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, start := r.Context(), s.clock.Now()
		session, fromCookie, err := s.session(r)
		if err != nil {
			if optional && signedOut(err, fromCookie) {
				next.ServeHTTP(w, r)
				return
			}
			s.refused(ctx, start, refusal{Observation: Observation{Op: OpVisit, Err: err}})
			s.answer(w, r, err)
			return
		}
		u, err := s.visit(ctx, session.Claims.Subject, newVisitToken(session.Claims, session.Version))
		if err != nil {
			s.answer(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(contextWithShared(clerk.ContextWithSessionClaims(ctx, session.Claims), u)))
	})
}

// signedOut reports whether a request was refused because nobody is signed in, rather than
// because something is wrong with its token.
func signedOut(err error, fromCookie bool) bool {
	var p *Problem
	if !errors.As(err, &p) {
		return false
	}
	return p.Code == codeTokenMissing || p.Code == codeSessionPending || fromCookie && p.Code == codeTokenExpired
}

// Authenticate verifies the request's session token, as [Syncer.RequireUser] does, and
// returns its claims. It writes nothing, and reads neither the record nor the user. The
// claims are shared: callers may not modify them.
//
// The error is a [*Problem]. It matches [ErrUnauthenticated] if the token is missing or
// refused, and [ErrUnavailable] if the instance's keys cannot be fetched.
func (s *Syncer) Authenticate(r *http.Request) (*clerk.SessionClaims, error) {
	session, _, err := s.session(r)
	if err != nil {
		return nil, err
	}
	return session.Claims, nil
}

// session finds and verifies the request's token.
func (s *Syncer) session(r *http.Request) (session *sessiontoken.Session, fromCookie bool, err error) {
	token, fromCookie, err := s.token(r)
	if err != nil {
		return nil, fromCookie, err
	}
	session, err = s.tokens.Verify(r.Context(), token)
	if err != nil {
		return nil, fromCookie, tokenProblem(err)
	}
	return session, fromCookie, nil
}

// token finds the request's token, and says whether it came in the cookie.
func (s *Syncer) token(r *http.Request) (token string, fromCookie bool, err error) {
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

// unauthenticated is the 401 for a missing or refused token.
func unauthenticated(code, why string) error {
	return &Problem{Status: http.StatusUnauthorized, Code: code, Err: fmt.Errorf("%w: %s", ErrUnauthenticated, why)}
}

// tokenProblem is the answer to an error of the token verifier.
func tokenProblem(err error) error {
	var refused *sessiontoken.Error
	switch {
	case errors.As(err, &refused):
		return unauthenticated(string(refused.Code), refused.Why)
	case errors.Is(err, sessiontoken.ErrCustomClaims):
		return &Problem{Status: http.StatusInternalServerError, Code: codeInternal, Err: err}
	}
	return unavailable(err) // the keys could not be fetched
}
