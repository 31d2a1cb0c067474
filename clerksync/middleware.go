package clerksync

import (
	"context"
	"errors"
	"net/http"

	"github.com/clerk/clerk-sdk-go/v2"
)

// Middleware syncs the signed-in user and puts the record into the request's
// context, for [UserFromContext]. It stands behind any middleware that verifies
// the session and calls [clerk.ContextWithSessionClaims], such as the SDK's
// WithHeaderAuthorization.
//
// The record comes from this process's cache, else from the Store, else from
// Clerk, which creates it. One confirmed by Clerk longer than RefreshAfter ago is
// served, and re-read behind the request.
//
// Where the request does not get through, next is not called, and the client gets
// an application/problem+json answer with one of these codes, or what ErrorHandler
// makes of it:
//
//   - 401 unauthenticated: no session claims.
//   - 403 user_inactive: deleted, suspended by the app, or banned in Clerk.
//   - 403 user_unknown: Clerk has no such user, or the subject is no user id.
//   - 409 conflict: a unique index of the app's own keeps the record out.
//   - 503 unavailable: Clerk or the Store failed and nothing is known of the
//     user; with [FailOpen] the request passes instead.
//   - 503 mapping_failed: RoleOf or Map failed.
func (s *Syncer) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, ok := clerk.SessionClaimsFromContext(r.Context())
		if !ok || claims == nil {
			s.refuse(w, r, ErrUnauthenticated)
			return
		}
		var claim freshness
		if c, ok := claims.Custom.(interface{ freshness() freshness }); ok {
			claim = c.freshness()
		}
		u, err := s.visitor(r.Context(), claims.Subject, claim)
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
	if p.Status >= 500 && !errors.Is(err, context.Canceled) { // a client that left is no fault
		s.cfg.Logger.ErrorContext(r.Context(), "clerksync: a request was refused", "status", p.Status, "code", p.Code, "error", p.Err)
	}
	s.cfg.ErrorHandler(w, r, p)
}
