package clerksync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/clerksync/clerksync-go/clerksync/internal/clerkapi"
)

// RequireRole lets only users through who have one of the roles. It stands behind
// [Syncer.RequireUser], [Syncer.WithUser] or [Syncer.Middleware], and reads the role of the
// user in the context, so middleware that changes it with [ContextWithUser] counts.
//
// Roles are compared exactly. The empty role is nobody's, so without roles nobody passes. If a
// request is refused, next is not called, and the client gets one of these answers:
//
//   - 401 unauthenticated: no user in the context, because nobody is signed in behind WithUser,
//     or RequireRole stands before the middleware.
//   - 403 role_required: the user has another role.
//   - 503 unavailable: the role is not known, because the user is Partial ([FailOpen]).
//
// The Syncer that let the request in answers, with its ErrorHandler, logs the refusal and
// observes it as an [OpRole]. Without one, as in a handler's test with [ContextWithUser],
// [WriteProblem] answers.
//
// A change of the role in the database counts after at most [Config].CacheTTL, or after
// [Syncer.Forget].
func RequireRole(roles ...Role) func(http.Handler) http.Handler {
	roles = slices.Clone(roles)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s, err := checkRole(r.Context(), roles)
			switch {
			case err == nil:
				next.ServeHTTP(w, r)
			case s != nil:
				s.answer(w, r, err)
			default:
				WriteProblem(w, r, err)
			}
		})
	}
}

// CheckRole is [RequireRole] without the handler, for routers that are not built on
// http.Handler. ctx is that of a request which [Syncer.Check] returned. The error is a
// [*Problem] with the status and the code of RequireRole's answer; the caller answers it, for
// example with [WriteProblem]. The refusal is observed and logged as by RequireRole.
func CheckRole(ctx context.Context, roles ...Role) error {
	_, err := checkRole(ctx, roles)
	return err
}

// checkRole also returns the Syncer that let the request in; nil for none.
func checkRole(ctx context.Context, roles []Role) (*Syncer, error) {
	s, _ := ctx.Value(syncerKey{}).(*Syncer)
	u, _ := ctx.Value(userKey{}).(*User)
	err := roleErr(u, roles)
	if err != nil && s != nil {
		s.roleRefused(ctx, u, roles, err)
	}
	return s, err
}

// roleErr returns why a user, nil for none, may not do what these roles may; nil if the user
// may.
func roleErr(u *User, roles []Role) error {
	switch {
	case u == nil:
		return unauthenticated(CodeUnauthenticated, errors.New(
			"no user in the context: RequireRole stands behind RequireUser, or nobody is signed in behind WithUser"))
	case u.Partial:
		return unavailable(errors.New("the user is Partial, so the role is not known"))
	case u.Role != "" && slices.Contains(roles, u.Role):
		return nil
	}
	return &Problem{Status: http.StatusForbidden, Code: CodeRoleRequired, Err: errors.New("the user does not have one of the roles")}
}

// roleRefused leaves the trace of a request that came to a visit and does not have the role.
func (s *Syncer) roleRefused(ctx context.Context, u *User, roles []Role, err error) {
	trace := refusal{Observation: Observation{Op: OpRole, Err: err}}
	got := ""
	if u != nil {
		got = clipped(string(u.Role))
		if clerkapi.ValidUserID(u.ClerkID) { // the app may have put another into the context
			trace.ClerkID = u.ClerkID
		}
	}
	want := "no role: RequireRole has none"
	if len(roles) > 0 {
		want = clipped(strings.Trim(fmt.Sprint(roles), "[]"))
	}
	trace.attrs = []slog.Attr{slog.String("got", got), slog.String("want", want)}
	s.refused(ctx, s.clock.Now(), trace)
}
