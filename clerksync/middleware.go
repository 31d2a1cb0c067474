package clerksync

import (
	"context"
	"encoding/json"
	"fmt"
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
// refreshed in the background. One that Clerk has never confirmed, because the app made it,
// is read from Clerk first.
//
// If Clerk does not have the user, or the record cannot be created for a lasting reason, the
// user gets the same answer for ten seconds (a "user_unknown" with a token less than ten seconds
// old: for one second), and Clerk is not asked again before. An event for the user, a Reconcile
// or Forget ends that. After a 429 of Clerk's, visits and refreshes do not ask Clerk until its
// Retry-After has passed, at most a minute.
//
// If a request is refused, next is not called, and the client gets an
// application/problem+json answer with one of these codes, or what ErrorHandler makes of
// it:
//
//   - 401 unauthenticated: no session claims.
//   - 403 user_inactive: deleted, suspended by the app, or banned in Clerk.
//   - 403 user_unknown: Clerk does not have the user, or the subject is not a user id.
//   - 409 conflict: one of the app's unique indexes keeps the record out, or a record that the
//     app had before must not be linked; see [ErrUnlinked].
//   - 422 rejected: the Store never takes such a record; see [ErrRejected].
//   - 500 record_failed: the Store's Record option failed; see [RecordFromContext].
//   - 503 unavailable: Clerk or the Store failed and nothing is known about the user; with
//     [FailOpen] the request passes instead.
//   - 503 mapping_failed: RoleOf or Map failed.
//   - 503 job_pending: OnCreate has not succeeded for the user; only with [JobConfig].Await.
func (s *Syncer) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, ok := clerk.SessionClaimsFromContext(r.Context())
		if !ok || claims == nil {
			err := fmt.Errorf("%w: no session claims in the context: Middleware stands behind Clerk's own middleware, or use RequireUser",
				ErrUnauthenticated)
			s.refused(r.Context(), s.clock.Now(), refusal{Observation: Observation{Op: OpVisit, Err: err}, check: "claims"})
			s.answer(w, r, err)
			return
		}
		var version sessiontoken.Version
		if c, ok := claims.Custom.(interface{ tokenVersion() sessiontoken.Version }); ok {
			version = c.tokenVersion()
		}
		u, err := s.visit(r.Context(), claims.Subject, newVisitToken(claims, version))
		if err != nil {
			s.answer(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(contextOfVisit(r.Context(), s, u)))
	})
}

// answer answers a request or a delivery that was refused. Whoever refused it has left the
// trace: see refused. Others who waited for the same lookup have the same error, so the
// ErrorHandler gets a copy.
func (s *Syncer) answer(w http.ResponseWriter, r *http.Request, err error) {
	p := *problemOf(err)
	s.cfg.ErrorHandler(w, r, &p)
}

type userKey struct{}

// UserFromContext returns a copy of the record that the middleware put into the request's
// context, and whether there is one. Each call makes a new copy, which the caller may
// modify. The change is not seen by a later call, nor by another request: middleware that
// adds to the user passes it on with [ContextWithUser].
func UserFromContext(ctx context.Context) (*User, bool) {
	u, ok := ctx.Value(userKey{}).(*User)
	return handedOut(u), ok && u != nil
}

// ContextWithUser returns a context that carries a copy of u for [UserFromContext].
// Middleware uses it to pass on a user that it has changed, and handler tests to sign a
// user in.
//
// u's Record, a pointer to the app's own type, is for [RecordFromContext]. If it is nil, the
// Record that ctx has for the same ClerkID stays, so that middleware passes it on too.
func ContextWithUser(ctx context.Context, u *User) context.Context {
	c := u.Clone()
	if before, ok := ctx.Value(userKey{}).(*User); ok && before != nil && c != nil && c.Record == nil && before.ClerkID == c.ClerkID {
		c.Record = before.Record
	}
	return context.WithValue(ctx, userKey{}, c)
}

type syncerKey struct{}

// contextWithSyncer is the context of a request that s let in without a user, for RequireRole.
func contextWithSyncer(ctx context.Context, s *Syncer) context.Context {
	return context.WithValue(ctx, syncerKey{}, s)
}

// visitContext is the context of a request that a Syncer let in with a user. It holds both in
// one allocation.
type visitContext struct {
	context.Context
	syncer *Syncer
	user   *User
}

// contextOfVisit returns the context of a request that s let in. u may be the cached record,
// because UserFromContext never hands it out.
func contextOfVisit(ctx context.Context, s *Syncer, u *User) context.Context {
	return &visitContext{ctx, s, u}
}

func (c *visitContext) Value(key any) any {
	switch key.(type) {
	case userKey:
		return c.user
	case syncerKey:
		return c.syncer
	}
	return c.Context.Value(key)
}

// String is for the texts of contexts made of c. They must not show the user.
func (c *visitContext) String() string { return fmt.Sprint(c.Context, ".WithUser") }

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
