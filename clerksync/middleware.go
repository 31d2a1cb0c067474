package clerksync

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerksync/clerksync-go/clerksync/internal/sessiontoken"
)

// Middleware syncs the signed-in user and puts the record into the request's context, for
// [UserFromContext]. It stands behind any middleware that verifies the session and calls
// [clerk.ContextWithSessionClaims], such as the SDK's WithHeaderAuthorization.
//
// The record comes from this process's cache, else from the Store, else from Clerk, which
// creates it. A record last confirmed more than RefreshAfter ago is served at once and
// refreshed in the background.
//
// If a request is refused, next is not called, and the client gets an
// application/problem+json answer with one of these codes, or what ErrorHandler makes of
// it:
//
//   - 401 unauthenticated: no session claims.
//   - 403 user_inactive: deleted, suspended by the app, or banned in Clerk.
//   - 403 user_unknown: Clerk does not have the user, or the subject is not a user id.
//   - 409 conflict: one of the app's unique indexes keeps the record out.
//   - 422 rejected: the Store never takes such a record; see [ErrRejected].
//   - 503 unavailable: Clerk or the Store failed and nothing is known about the user; with
//     [FailOpen] the request passes instead.
//   - 503 mapping_failed: RoleOf or Map failed.
func (s *Syncer) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, ok := clerk.SessionClaimsFromContext(r.Context())
		if !ok || claims == nil {
			s.refuse(w, r, ErrUnauthenticated)
			return
		}
		var token sessiontoken.Version
		if c, ok := claims.Custom.(interface{ tokenVersion() sessiontoken.Version }); ok {
			token = c.tokenVersion()
		}
		u, err := s.visit(r.Context(), claims.Subject, token)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(ContextWithUser(r.Context(), u)))
	})
}

// refuse answers a request that does not get through.
func (s *Syncer) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	if p.Status >= 500 && !errors.Is(err, context.Canceled) { // a client that left is not a fault
		s.cfg.Logger.ErrorContext(r.Context(), "clerksync: a request was refused", "status", p.Status, "code", p.Code, "error", p.Err)
	}
	s.cfg.ErrorHandler(w, r, p)
}

type userKey struct{}

// UserFromContext returns the record that the middleware put into the request's context,
// and whether there is one. Other requests share the record: callers may not modify it,
// only a [User.Clone].
func UserFromContext(ctx context.Context) (*User, bool) {
	u, ok := ctx.Value(userKey{}).(*User)
	return u, ok && u != nil
}

// ContextWithUser returns a context that carries u for [UserFromContext], as the
// middleware makes it. Handler tests use it to sign a user in.
func ContextWithUser(ctx context.Context, u *User) context.Context {
	return context.WithValue(ctx, userKey{}, u)
}

// FreshnessClaims brings the claim "updated_at" through the SDK's own middleware to
// [Syncer.Middleware], which then knows from the token that a record is out of date. Pass
// it to the SDK's CustomClaimsConstructor, alone or embedded in the app's own claims type.
// [Syncer.RequireUser] does not need it.
//
// Set the claim in the Clerk Dashboard under Sessions, Customize session token:
//
//	{"updated_at": "{{user.updated_at}}"}
type FreshnessClaims struct {
	// UpdatedAt is Clerk's value: seconds or milliseconds since 1970, as a number or a
	// string. Anything else is ignored.
	UpdatedAt json.RawMessage `json:"updated_at,omitempty"`
}

func (c *FreshnessClaims) tokenVersion() sessiontoken.Version {
	if c == nil {
		return sessiontoken.Version{}
	}
	return sessiontoken.ParseVersion(c.UpdatedAt)
}
