package clerksync

import "context"

type userKey struct{}

// userContext is context.WithValue for the one value, and smaller: each request makes
// one.
type userContext struct {
	context.Context
	user *User
}

func (c *userContext) Value(key any) any {
	if key == (userKey{}) {
		return c.user
	}
	return c.Context.Value(key)
}

// String says nothing of the user, as a context's own would not.
func (*userContext) String() string { return "clerksync.ContextWithUser" }

// UserFromContext returns the record that [Syncer.Middleware] put into the
// request's context, and whether there is one. The record is shared with other
// requests: callers may not modify it, only a [User.Clone].
func UserFromContext(ctx context.Context) (*User, bool) {
	u, ok := ctx.Value(userKey{}).(*User)
	return u, ok && u != nil
}

// ContextWithUser returns a context that carries u for [UserFromContext], as the
// middleware makes it. Handler tests use it to sign a user in.
func ContextWithUser(ctx context.Context, u *User) context.Context {
	return &userContext{ctx, u}
}
