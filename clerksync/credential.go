package clerksync

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/clerksync/clerksync-go/clerksync/internal/sessiontoken"
)

// Which credential of a request is looked at.
//
// A bearer token in an Authorization header decides, whether it is accepted or not. Other
// schemes, such as the Basic auth in front of a staging site, are passed over. If there is no
// bearer token, each session cookie is tried: a host that serves two Clerk apps gets the
// cookies of both, and a browser may send one name several times.

const (
	sessionCookie = "__session"
	// maxSessionCookies bounds the cookies that are verified for one request.
	maxSessionCookies = 8
)

// session finds and verifies the request's token.
func (s *Syncer) session(r *http.Request) (session *sessiontoken.Session, fromCookie bool, err error) {
	token, ok := bearerToken(r.Header["Authorization"])
	switch {
	case !ok:
		return nil, false, unauthenticated(CodeTokenMalformed, errors.New("several bearer tokens that differ"))
	case token != "":
		session, err := s.tokens.Verify(r.Context(), token, sessiontoken.Header)
		return session, false, tokenProblem(err)
	case s.cfg.Auth.Cookie:
		session, err := s.cookieSession(r)
		return session, true, err
	}
	why := "no bearer token in the Authorization header"
	if len(sessionCookies(r, s.cfg.Auth.cookieSuffix)) > 0 {
		why += "; there is a session cookie, but Auth.Cookie is not set"
	}
	return nil, false, missingToken(r, why)
}

// checkScheme marks a request whose token is missing only because Bearer is not before it.
const checkScheme = "scheme"

// tokenShape matches what looks like a JWT: three parts, of which the first is a JSON object.
var tokenShape = regexp.MustCompile(`eyJ[\w-]*\.[\w-]+\.[\w-]+`)

// missingToken is the 401 for a request without a token. If its Authorization header has one
// in another form, the error says so, without showing it.
func missingToken(r *http.Request, why string) error {
	e := &sessiontoken.Error{Code: sessiontoken.Code(CodeTokenMissing), Why: why}
	if slices.ContainsFunc(r.Header["Authorization"], tokenShape.MatchString) {
		e.Check = checkScheme
		e.Why += `; there is something like a token, but not in the form "Bearer <token>"`
	}
	return tokenProblem(e)
}

// cookieSession verifies the session cookies and returns the newest session that is accepted;
// of equally new ones, that of the likelier cookie. Clerk's JavaScript SDKs prefer the
// suffixed cookie too, unless the other one is newer. If none is accepted, the error is that
// of the cookie that came nearest to it.
//
// Keys that are missing are fetched only if no cookie is accepted without them: another app's
// cookie must not make the visitor wait, nor refuse the request if Clerk is down.
func (s *Syncer) cookieSession(r *http.Request) (*sessiontoken.Session, error) {
	tokens := sessionCookies(r, s.cfg.Auth.cookieSuffix)
	newest, undecided, refusal := newestSession(r, tokens, s.tokens.VerifyNow)
	if newest == nil && len(undecided) > 0 {
		var after error
		newest, _, after = newestSession(r, undecided, s.tokens.Verify)
		refusal = nearer(refusal, after)
	}
	switch {
	case newest == nil && refusal == nil:
		return nil, missingToken(r, "neither a bearer token nor a session cookie")
	case newest == nil:
		return nil, tokenProblem(refusal)
	}
	if err := s.cfg.Auth.crossOrigin.Check(changing(r)); err != nil {
		err = fmt.Errorf("%w: %w", ErrUnauthenticated, err)
		return nil, &Problem{Status: http.StatusForbidden, Code: CodeCrossOrigin, Err: err}
	}
	return newest, nil
}

// newestSession returns the newest session that is accepted, the tokens that verify could not
// decide on, and the error of the refused token that came nearest to being accepted.
func newestSession(
	r *http.Request, tokens []string,
	verify func(context.Context, string, sessiontoken.Carrier) (*sessiontoken.Session, error),
) (newest *sessiontoken.Session, undecided []string, refusal error) {
	for _, token := range tokens {
		session, err := verify(r.Context(), token, sessiontoken.Cookie)
		switch {
		case errors.Is(err, sessiontoken.ErrKeysNeeded):
			undecided = append(undecided, token)
		case err != nil:
			refusal = nearer(refusal, err)
		case newest == nil || issuedAt(session) > issuedAt(newest):
			newest = session
		}
	}
	return newest, undecided, refusal
}

// changing is r for the check of its origin. The check lets a GET through, and that is how a
// WebSocket begins, through which another origin could then change something.
func changing(r *http.Request) *http.Request {
	if r.Header.Get("Upgrade") == "" {
		return r
	}
	post := *r
	post.Method = http.MethodPost
	return &post
}

// issuedAt is a session's iat, 0 for none.
func issuedAt(session *sessiontoken.Session) int64 {
	if iat := session.Claims.IssuedAt; iat != nil {
		return *iat
	}
	return 0
}

// nearerLast are the codes of refused tokens. The farther back, the more of the token was in
// order.
var nearerLast = []sessiontoken.Code{
	sessiontoken.Malformed, sessiontoken.WrongClass, sessiontoken.UnknownKey, sessiontoken.BadSignature,
	sessiontoken.WrongIssuer, sessiontoken.WrongParty, sessiontoken.NotYetValid, sessiontoken.Expired, sessiontoken.Pending,
}

// nearer returns the error (nil: none) of the token that came nearer to being accepted; a if
// both came equally near. A token that could not be checked may be a good one, less likely if
// another instance seems to have signed it.
func nearer(a, b error) error {
	rank := func(err error) int {
		var refused *sessiontoken.Error
		switch {
		case err == nil:
			return -1
		case errors.As(err, &refused):
			return slices.Index(nearerLast, refused.Code)
		case errors.Is(err, sessiontoken.ErrNotOurs):
			return len(nearerLast)
		}
		return len(nearerLast) + 1
	}
	if rank(b) > rank(a) {
		return b
	}
	return a
}

// bearerToken returns the bearer token of a request's Authorization headers, "" for none.
// RFC 6750 allows one. A proxy may have repeated it, but if there are different ones,
// bearerToken returns false.
func bearerToken(lines []string) (token string, ok bool) {
	for _, line := range lines {
		for credentials := range splitCredentials(line) {
			scheme, rest, _ := strings.Cut(credentials, " ")
			rest = strings.TrimSpace(rest)
			if !strings.EqualFold(scheme, "Bearer") || isNothing(rest) {
				continue
			}
			if token != "" && token != rest {
				return "", false
			}
			token = rest
		}
	}
	return token, true
}

// splitCredentials yields the credentials of an Authorization header. There should be one,
// but a proxy may have joined several lines with commas (RFC 9110, section 5.3). A comma
// also separates the parameters of one scheme, so new credentials begin only after a comma
// that a scheme and a space follow.
func splitCredentials(line string) iter.Seq[string] {
	return func(yield func(string) bool) {
		begin, pending := 0, false // of the credentials, which may have commas in them
		at := 0
		for part := range strings.SplitSeq(line, ",") {
			trimmed := strings.TrimSpace(part)
			switch {
			case !pending:
				begin, pending = at, trimmed != ""
			case strings.Contains(trimmed, " "):
				if !yield(strings.TrimSpace(line[begin : at-1])) {
					return
				}
				begin = at
			}
			at += len(part) + 1
		}
		yield(strings.TrimSpace(line[begin:]))
	}
}

// isNothing reports whether a client sent no token, or what its language prints in the place
// of one: JavaScript, Dart and Kotlin null, JavaScript undefined, Swift nil, Python None.
func isNothing(token string) bool {
	return token == "" || slices.ContainsFunc([]string{"null", "undefined", "nil", "none"}, func(nothing string) bool {
		return strings.EqualFold(token, nothing)
	})
}

// sessionCookies returns the tokens of a request's session cookies, at most maxSessionCookies
// different ones, the likeliest first. With a suffix, these are its own cookie and the one
// without a suffix. Without one, any suffix may be the app's: the signature tells.
func sessionCookies(r *http.Request, suffix string) (tokens []string) {
	var own, plain, others []string
	for _, c := range r.Cookies() {
		switch name, found := strings.CutPrefix(c.Name, sessionCookie+"_"); {
		case isNothing(c.Value):
		case c.Name == sessionCookie:
			plain = append(plain, c.Value)
		case found && suffix != "" && name == suffix:
			own = append(own, c.Value)
		case found && suffix == "" && len(name) == cookieSuffixLen:
			others = append(others, c.Value)
		}
	}
	for _, token := range slices.Concat(own, plain, others) {
		if len(tokens) < maxSessionCookies && !slices.Contains(tokens, token) { // Clerk sets one token under both names
			tokens = append(tokens, token)
		}
	}
	return tokens
}

const cookieSuffixLen = 8

// cookieSuffix is what Clerk's frontend adds to the names of an instance's cookies.
//
// https://github.com/clerk/javascript: packages/shared/src/keys.ts, getCookieSuffix
func cookieSuffix(publishableKey string) string {
	if publishableKey == "" {
		return ""
	}
	hash := sha1.Sum([]byte(publishableKey))
	return base64.URLEncoding.EncodeToString(hash[:])[:cookieSuffixLen]
}
