package clerksync

import (
	"cmp"
	"context"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
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
	// without azp is refused, unless AllowNoParty is set. New writes the origins as browsers
	// do, in lower case and without a default port or a final slash, and refuses what is no
	// origin. Wildcards are not supported. Defaults to any.
	AuthorizedParties []string

	// AllowNoParty accepts tokens without azp although AuthorizedParties is set: Clerk makes
	// them for native apps and for servers. It applies to bearer tokens only, never to
	// cookies. Defaults to false.
	AllowNoParty bool

	// JWTKey is the instance's public key in PEM, as the Dashboard shows it for
	// CLERK_JWT_KEY. With it no key is ever fetched, so after a rotation in Clerk the app
	// needs the new one. Defaults to fetching the keys with SecretKey.
	JWTKey string

	// Issuer is the issuer that tokens must have: the Frontend API URL. Set it if Clerk is
	// proxied. Tokens may have it as it is written here, or as Clerk writes it: scheme and
	// host in lower case, no default port, no final slash. White space around it is ignored.
	// Defaults to any issuer of Clerk's form, https://clerk.<domain> or
	// https://<name>.clerk.accounts.dev.
	Issuer string

	// Leeway is how far this server's clock may be off Clerk's. A token is accepted for so
	// long after its end, and a token lives for 60 seconds, so over 5 minutes is an error.
	// Negative means not at all. Defaults to 5 seconds.
	Leeway time.Duration

	// Cookie also accepts a session cookie from requests without a bearer token. Clerk calls the
	// cookie __session, or __session_<suffix> with a suffix for each instance. At most 8 are
	// tried, and the newest session counts. Cookie needs AuthorizedParties, because the cookie
	// may have been made for another origin of the same site. A browser also sends the cookie
	// with requests that other origins make. So a request that may change something, and a
	// WebSocket's, must come from the server's own origin or an authorized party
	// ([http.CrossOriginProtection]). Defaults to false.
	Cookie bool

	// PublishableKey is the instance's publishable key, "pk_live_…" or "pk_test_…", exactly
	// as the frontend has it (CLERK_PUBLISHABLE_KEY). It tells which suffix is the
	// instance's; cookies with other suffixes are then not looked at. White space around it
	// is ignored. A live key beside a test SecretKey, or the reverse, is an error. Defaults to
	// trying the cookies of every suffix.
	PublishableKey string

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

	crossOrigin  *http.CrossOriginProtection
	cookieSuffix string // of the instance's cookies; "" for any
}

const (
	defaultLeeway = 5 * time.Second
	maxLeeway     = 5 * time.Minute
)

// withDefaults returns a with its defaults filled in.
func (a AuthConfig) withDefaults() AuthConfig {
	a.AuthorizedParties = slices.Clone(a.AuthorizedParties) // read with each request
	for i, party := range a.AuthorizedParties {
		if origin, fault := normalOrigin(party); fault == "" {
			a.AuthorizedParties[i] = origin
		}
	}
	a.JWTKey = strings.TrimSpace(a.JWTKey)
	a.PublishableKey = strings.TrimSpace(a.PublishableKey)
	a.Issuer = strings.TrimSpace(a.Issuer)
	a.cookieSuffix = cookieSuffix(a.PublishableKey)
	switch {
	case a.Leeway == 0:
		a.Leeway = defaultLeeway
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
		if _, why := normalOrigin(party); why != "" {
			fault("Auth.AuthorizedParties[%d] is not an origin: %s", i, why)
		}
	}
	if a.Cookie && len(a.AuthorizedParties) == 0 {
		fault("Auth.Cookie needs Auth.AuthorizedParties: the cookie may have been made for another origin of the same site")
	}
	if a.Leeway > maxLeeway || a.Leeway > 0 && a.Leeway < time.Millisecond { // below, its unit was forgotten
		fault("Auth.Leeway must be from 1ms to %v; 0 means %v, and a negative one means none", maxLeeway, defaultLeeway)
	}
	if is := a.publishableKeyFault(); is != "" {
		fault("Auth.PublishableKey %s: take it from the Clerk Dashboard under API keys (CLERK_PUBLISHABLE_KEY)", is)
	}
	if a.JWTKey != "" && a.publicKey() == nil {
		is := cmp.Or(setting.PEM(a.JWTKey), fmt.Sprintf("is not an RSA public key in PEM of %d bits or more", clerkapi.MinKeyBits))
		fault("Auth.JWTKey %s: take it from the Clerk Dashboard under API keys (CLERK_JWT_KEY)", is)
	}
}

// publishableKeyFault says what is wrong with PublishableKey; "" if nothing is. After its
// prefix, a publishable key holds the host of the instance's Frontend API and a dollar sign.
//
// https://github.com/clerk/javascript: packages/shared/src/keys.ts, parsePublishableKey
func (a *AuthConfig) publishableKeyFault() string {
	if a.PublishableKey == "" {
		return ""
	}
	if is := setting.PublishableKey(a.PublishableKey); is != "" {
		return is
	}
	parts := strings.Split(a.PublishableKey, "_") // pk, live or test, and the host
	if len(parts) != 3 || parts[1] != "live" && parts[1] != "test" {
		return "is not a publishable key: it begins with pk_live_ or pk_test_"
	}
	host, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(parts[2], "="))
	name, ended := strings.CutSuffix(string(host), "$")
	if err != nil || !ended || !strings.Contains(name, ".") || strings.Contains(name, "$") {
		return "is cut off or mistyped"
	}
	return ""
}

// issuerForms returns the forms in which tokens may write the issuer: as it is configured, and as
// Clerk writes a URL. It returns nil if issuer is empty.
func issuerForms(issuer string) []string {
	u, err := url.Parse(issuer)
	if issuer == "" || err != nil {
		return nil // validate reports an error
	}
	host := strings.ToLower(u.Host)
	u.Host = strings.TrimSuffix(host, ":"+defaultPorts[u.Scheme])
	u.Path = strings.TrimRight(u.Path, "/")
	return slices.Compact([]string{issuer, u.String()})
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
		AllowNoParty:      cfg.Auth.AllowNoParty,
		Issuers:           issuerForms(cfg.Auth.Issuer),
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
// The token is the Authorization header's bearer token or, with [AuthConfig].Cookie, a
// session cookie's. Other schemes, such as Basic, are passed over, and so is what a client
// sends in place of a missing token ("Bearer null"). Only session tokens that this Clerk
// instance signed are accepted, of versions 1 and 2. If the user is impersonated, the record
// is the user's, and the claims' Actor says who acts. Requests with one token share the
// claims: callers may not modify them.
//
// Besides the answers of [Syncer.Middleware] the client gets 401 with WWW-Authenticate
// (RFC 6750) and one of the codes token_missing, token_malformed, token_expired,
// token_not_yet_valid, token_wrong_class, token_wrong_party, token_wrong_issuer,
// token_bad_signature, token_unknown_key and session_pending; or 403 cross_origin if
// another origin's request carries the cookie. If the instance's keys cannot be fetched,
// the answer is 503, never 401. Each refusal is observed as an [OpVisit] and logged, at most
// ten of a kind at once, then one a minute.
func (s *Syncer) RequireUser(next http.Handler) http.Handler { return s.authenticated(next, false) }

// WithUser is [Syncer.RequireUser] for routes that serve signed-out visitors too: a
// request without a token or with a pending session goes through without a user. So does
// one whose cookie is expired, does not say for which origin it was made, or is another
// Clerk instance's (by its key, signature or issuer): a browser sends the cookies of all
// apps on a host. While Clerk does not answer, a cookie whose key this process does not know
// counts as another instance's, unless the process does not have any keys yet: that is 503.
// A request with any other wrong token is refused all the same.
func (s *Syncer) WithUser(next http.Handler) http.Handler { return s.authenticated(next, true) }

func (s *Syncer) authenticated(next http.Handler, optional bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in, err := s.check(r, optional)
		if err != nil {
			s.answer(w, r, err)
			return
		}
		next.ServeHTTP(w, in)
	})
}

// Check is [Syncer.RequireUser] without the handler, for routers that are not built on
// http.Handler, such as gin, echo and fiber. It returns a copy of r whose context has the
// record for [UserFromContext] and the claims for [clerk.SessionClaimsFromContext], and calls
// neither a handler nor ErrorHandler: the caller answers an error, for example with
// [WriteProblem]. It reads r's context, method, host and headers, so r needs neither a URL nor a
// body.
//
// The error is a [*Problem] with the status and the code of RequireUser's answer, and the
// request is nil then. The refusal is observed and logged as by RequireUser. If ErrorHandler is
// set, call the same function for the same answers.
//
// A framework that uses a request's memory again for the next client, as those on fasthttp do,
// must hand over a copy: the claims are remembered.
func (s *Syncer) Check(r *http.Request) (*http.Request, error) {
	in, err := s.check(r, false)
	if err != nil {
		p := *problemOf(err) // others who waited for the same lookup have the same error
		return nil, &p
	}
	return in, nil
}

// check returns the request that is let in: a copy with the user in its context or, if
// optional is set and nobody is signed in, without one. Its error may be shared.
func (s *Syncer) check(r *http.Request, optional bool) (*http.Request, error) {
	ctx, start := r.Context(), s.clock.Now()
	session, fromCookie, err := s.session(r)
	switch {
	case err == nil:
	case optional && signedOut(err, fromCookie):
		s.logSignedOut(ctx, err)
		return r.WithContext(contextWithSyncer(ctx, s)), nil
	default:
		s.sessionRefused(ctx, start, err)
		return nil, err
	}
	u, err := s.visit(ctx, session.Claims.Subject, newVisitToken(session.Claims, session.Version))
	if err != nil {
		return nil, err
	}
	return r.WithContext(contextOfVisit(clerk.ContextWithSessionClaims(ctx, session.Claims), s, u)), nil
}

// signedOut reports whether a request was refused because nobody is signed in here, rather
// than because something is wrong with its token. A browser sends the cookies of all apps on
// its host, so a cookie from another Clerk instance does not count. Neither does one that seems
// to be from another instance while Clerk cannot be asked.
func signedOut(err error, fromCookie bool) bool {
	if fromCookie && errors.Is(err, sessiontoken.ErrNotOurs) {
		return true
	}
	var p *Problem
	if !errors.As(err, &p) {
		return false
	}
	var refused *sessiontoken.Error
	switch p.Code {
	case CodeTokenMissing, CodeSessionPending:
		return true
	case CodeTokenExpired, CodeTokenUnknownKey, CodeTokenBadSignature, CodeTokenWrongIssuer:
		return fromCookie
	case CodeTokenWrongParty:
		return fromCookie && errors.As(err, &refused) && refused.Check == sessiontoken.NoParty
	}
	return false
}

// logSignedOut warns of a visitor who counts as signed out although the session may be alive.
// If everybody is signed out, this says why.
func (s *Syncer) logSignedOut(ctx context.Context, err error) {
	p, trace := problemOf(err), refusalOfToken(err)
	message := "clerksync: a session cookie counts as signed out"
	switch {
	case trace.check == checkScheme:
		message = "clerksync: a request counts as signed out"
	case slices.Contains([]string{CodeTokenMissing, CodeSessionPending, CodeTokenExpired}, p.Code):
		return
	}
	attrs := append([]slog.Attr{slog.String("code", p.Code)}, trace.attrs...)
	attrs = append(attrs, slog.Any("error", p.Err))
	s.logLimited(ctx, slog.LevelWarn, "ignored "+p.Code, message, attrs...)
}

// sessionRefused leaves the trace of a request that comes to no visit.
func (s *Syncer) sessionRefused(ctx context.Context, start time.Time, err error) {
	trace := refusalOfToken(err)
	if problemOf(err).Code == CodeCrossOrigin {
		want := "the server's own origin, or " + strings.Join(s.cfg.Auth.AuthorizedParties, " ")
		trace.attrs = []slog.Attr{slog.String("want", want)}
	}
	s.refused(ctx, start, trace)
}

// refusalOfToken is the trace of a token's refusal.
func refusalOfToken(err error) refusal {
	trace := refusal{Observation: Observation{Op: OpVisit, Err: err}}
	var refused *sessiontoken.Error
	if errors.As(err, &refused) {
		trace.check = refused.Check
		for _, a := range []slog.Attr{slog.String("got", refused.Got), slog.String("want", refused.Want)} {
			if a.Value.String() != "" {
				trace.attrs = append(trace.attrs, a)
			}
		}
	}
	return trace
}

// Authenticate verifies the request's session token, as [Syncer.RequireUser] does, and
// returns its claims. It writes nothing, and reads neither the record nor the user. The
// claims are shared: callers may not modify them.
//
// The error is a [*Problem]. It matches [ErrUnauthenticated] if the token is missing or
// refused, and [ErrUnavailable] if the instance's keys cannot be fetched. Each is observed and
// logged as by RequireUser; a success is not observed.
func (s *Syncer) Authenticate(r *http.Request) (*clerk.SessionClaims, error) {
	start := s.clock.Now()
	session, _, err := s.session(r)
	if err != nil {
		s.sessionRefused(r.Context(), start, err)
		return nil, err
	}
	return session.Claims, nil
}

// unauthenticated is the 401 for a missing or refused token.
func unauthenticated(code string, why error) error {
	return &Problem{Status: http.StatusUnauthorized, Code: code, Err: fmt.Errorf("%w: %w", ErrUnauthenticated, why)}
}

// tokenProblem is the answer to an error of the token verifier; nil if err is.
func tokenProblem(err error) error {
	var refused *sessiontoken.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return unauthenticated(string(refused.Code), refused)
	case errors.Is(err, sessiontoken.ErrCustomClaims):
		return &Problem{Status: http.StatusInternalServerError, Code: CodeInternal, Err: err}
	}
	return unavailable(err) // the keys could not be fetched
}
