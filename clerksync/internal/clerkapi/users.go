package clerkapi

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"
	"time"
)

// Users reads those of a few users, at most [MaxUserIDs], that exist, in one call. asOf is
// when this was Clerk's latest state. The caller has checked the ids with [ValidUserID]. The
// error is an [*Error].
func (c *Client) Users(ctx context.Context, ids []string) (users []ListedUser, asOf time.Time, err error) {
	const op = "list users"
	release, err := c.acquireSlot(ctx, op)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer release()
	var call callInfo
	params := url.Values{"user_id": ids, "limit": {strconv.Itoa(MaxUserIDs)}} // without a limit Clerk answers ten
	err = c.get(ctx, c.backend, &call, op, "/users", params, func(answer json.RawMessage) (err error) {
		users, err = ParsePage(answer)
		return err
	})
	return users, call.sentAt, err
}

// acquireSlot waits until fewer than [MaxUserCalls] calls are under way. The caller releases
// the slot.
func (c *Client) acquireSlot(ctx context.Context, op string) (release func(), err error) {
	if ctx.Err() != nil {
		return nil, &Error{op: op, err: context.Cause(ctx)}
	}
	select {
	case c.userSlot <- struct{}{}:
		return func() { <-c.userSlot }, nil
	case <-ctx.Done():
		return nil, &Error{op: op, err: context.Cause(ctx)}
	}
}
