package storetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// check runs one case. Its failures begin with the rule that is broken.
type check struct {
	testing.TB
	rule     string
	newStore func() clerksync.Store
}

func (c *check) errorf(format string, args ...any) {
	c.Helper()
	c.Errorf("rule broken: "+c.rule+"\n"+format, args...)
}

func (c *check) fatalf(format string, args ...any) {
	c.Helper()
	c.Fatalf("rule broken: "+c.rule+"\n"+format, args...)
}

// epoch is the zero hour of the tests' events: long past, so that no Store takes
// any for one from the future.
var epoch = time.Date(2024, time.March, 1, 12, 0, 0, 0, time.UTC)

// hour is the time of version n.
func hour(n int) time.Time { return epoch.Add(time.Duration(n) * time.Hour) }

// person is a user at version n: every field that Clerk owns is set, the strings
// and numbers tell the version, and evidence and sign-ins grow with it.
func person(id string, n int) *clerksync.User {
	s := strconv.Itoa(n)
	return &clerksync.User{
		ClerkID: id,
		Email:   "v" + s + "." + id + "@example.com",
		Name:    "Ada " + s,
		Role:    clerksync.RoleTeacher,
		Profile: clerksync.Profile{
			FirstName: "First " + s, LastName: "Last " + s, FullName: "Full " + s,
			ImageURL: "https://img.example.com/" + s, PhoneNumber: "+1555" + s,
			Birthday: "1815-12-10 " + s, Gender: "female " + s,
		},
		Location:       &clerksync.Location{Country: "GB", City: "London", State: "England", Timezone: "Europe/London"},
		LastSignInAt:   hour(n).Add(-time.Minute),
		EmailVerified:  n%2 == 0,
		PhoneVerified:  n%3 == 0,
		Banned:         n%5 == 0,
		Extra:          map[string]any{"plan": "plan " + s, "seats": int64(n)},
		ClerkCreatedAt: hour(-24),
		ClerkUpdatedAt: hour(n),
		SyncedAt:       hour(n).Add(time.Second),
	}
}

// find returns the record, nil where there is none, having checked its form.
func (c *check) find(s clerksync.Store, id string) *clerksync.User {
	c.Helper()
	u, err := s.User(c.Context(), id)
	if errors.Is(err, clerksync.ErrNotFound) {
		return nil
	}
	if err != nil {
		c.fatalf("User(%q): %v", id, err)
	}
	if u == nil {
		c.fatalf("User(%q) returns neither a record nor an error", id)
		return nil
	}
	if u.ClerkID != id {
		c.errorf("User(%q) returns the record of %q", id, u.ClerkID)
	}
	if u.ID == "" {
		c.errorf("User(%q): the record has no ID", id)
	}
	if u.RoleFromClerk || u.Partial {
		c.errorf("User(%q): RoleFromClerk %t, Partial %t: they are part of an argument, never of a record", id, u.RoleFromClerk, u.Partial)
	}
	for _, fault := range timeFaults(u) {
		c.errorf("User(%q): %s", id, fault)
	}
	return u
}

// record is find where there must be one.
func (c *check) record(s clerksync.Store, id string) *clerksync.User {
	c.Helper()
	u := c.find(s, id)
	if u == nil {
		c.fatalf("there is no record of %q", id)
	}
	return u
}

// same compares whole records.
func (c *check) same(what string, got, want *clerksync.User) {
	c.Helper()
	if d := diff(got, want); len(d) > 0 {
		c.errorf("%s:\n\t%s", what, strings.Join(d, "\n\t"))
	}
}

// offer upserts u and compares the outcome with want, the whole record with what
// the contract makes of it, and the Result with the record, which it returns.
func (c *check) offer(s clerksync.Store, u *clerksync.User, want clerksync.Outcome) *clerksync.User {
	c.Helper()
	before := c.find(s, u.ClerkID)
	canonical, err := u.Canonical()
	if err != nil {
		c.Fatalf("storetest: a test's own user is not valid: %v", err)
	}
	res, err := s.Upsert(c.Context(), u)
	if err != nil {
		c.fatalf("Upsert of %s: %v", describe(u), err)
	}
	after := c.record(s, u.ClerkID)
	if res.Outcome != want {
		c.errorf("Upsert of %s over %s: outcome %v, want %v", describe(u), describe(before), res.Outcome, want)
	}
	c.result(res, after)
	c.same("the record after an Upsert that is to end "+want.String(), after, c.expected(before, after, canonical, want))
	return after
}

// delete deactivates a user, with the checks of offer.
func (c *check) delete(s clerksync.Store, id string, at time.Time) *clerksync.User {
	c.Helper()
	before := c.find(s, id)
	res, err := s.Deactivate(c.Context(), id, at)
	if err != nil {
		c.fatalf("Deactivate of %s: %v", describe(before), err)
	}
	after := c.record(s, id)
	if res.Outcome != clerksync.Deactivated {
		c.errorf("Deactivate of %s: outcome %v, want %v", describe(before), res.Outcome, clerksync.Deactivated)
	}
	c.result(res, after)
	want := before.Clone()
	switch {
	case before == nil:
		want = c.fresh(id, after)
	case before.DeletedAt.IsZero():
		c.moved(want, after)
	}
	if want.DeletedAt.IsZero() {
		want.IsActive, want.DeletedAt = false, at.UTC().Truncate(time.Millisecond)
		if at.IsZero() {
			want.DeletedAt = after.DeletedAt
		}
	}
	if after.DeletedAt.IsZero() {
		c.errorf("after Deactivate the record has no DeletedAt")
	}
	c.same("the record after Deactivate", after, want)
	return after
}

// result checks that a Result tells the truth.
func (c *check) result(res clerksync.Result, stored *clerksync.User) {
	c.Helper()
	if res.User != nil {
		c.same("Result.User ("+res.Outcome.String()+") against the stored record, which it must equal unless nil", res.User, stored)
	}
}

// expected is the record that an Upsert of u, in canonical form, with this
// outcome must leave. ID, CreatedAt and UpdatedAt are the Store's: they are
// checked here, as far as they can be, and taken from after.
func (c *check) expected(before, after, u *clerksync.User, outcome clerksync.Outcome) *clerksync.User {
	c.Helper()
	want := before.Clone()
	switch {
	case outcome == clerksync.Created:
		want = c.fresh(u.ClerkID, after)
		want.Role, want.Location, want.IsActive = u.Role, u.Location, true
		apply(want, u)
	case before == nil: // the outcome is wrong, which offer has said
		return after
	case outcome == clerksync.Updated:
		c.moved(want, after)
		apply(want, u)
	case outcome == clerksync.Unchanged:
		confirm(want, u)
	}
	return want
}

// fresh begins the expectation of a record that was not there before.
func (c *check) fresh(id string, after *clerksync.User) *clerksync.User {
	c.Helper()
	for name, t := range map[string]time.Time{"CreatedAt": after.CreatedAt, "UpdatedAt": after.UpdatedAt} {
		if off := time.Since(t); off.Abs() > time.Hour {
			c.errorf("%s of a new record is %v, want the Store's clock", name, t)
		}
	}
	return &clerksync.User{ClerkID: id, ID: after.ID, CreatedAt: after.CreatedAt, UpdatedAt: after.UpdatedAt}
}

// moved lets UpdatedAt of an expectation be what it is now, if that is forward.
func (c *check) moved(want, after *clerksync.User) {
	c.Helper()
	if after.UpdatedAt.Before(want.UpdatedAt) {
		c.errorf("UpdatedAt went back from %v to %v", want.UpdatedAt, after.UpdatedAt)
	}
	want.UpdatedAt = after.UpdatedAt
}

// apply writes u's Clerk-owned fields to r.
func apply(r, u *clerksync.User) {
	r.Email, r.Name, r.Profile = u.Email, u.Name, u.Profile
	r.EmailVerified, r.PhoneVerified, r.Banned = u.EmailVerified, u.PhoneVerified, u.Banned
	r.Extra, r.ClerkCreatedAt, r.ClerkUpdatedAt = u.Extra, u.ClerkCreatedAt, u.ClerkUpdatedAt
	if u.RoleFromClerk {
		r.Role = u.Role
	}
	confirm(r, u)
}

// confirm moves forward what may.
func confirm(r, u *clerksync.User) {
	if u.SyncedAt.After(r.SyncedAt) {
		r.SyncedAt = u.SyncedAt
	}
	if u.LastSignInAt.After(r.LastSignInAt) {
		r.LastSignInAt = u.LastSignInAt
	}
}

// refused checks an error that must match none of the contract's own ones and
// give no personal data away.
func (c *check) refused(what string, err error, u *clerksync.User) {
	c.Helper()
	if err == nil {
		c.errorf("%s: no error", what)
		return
	}
	for _, secret := range []string{u.Email, u.Name, u.Profile.PhoneNumber} {
		if secret != "" && strings.Contains(err.Error(), secret) {
			c.errorf("%s: the error's text holds personal data, and it is logged: %v", what, err)
		}
	}
}

// together runs f(0) to f(n-1) on goroutines that start at once, and waits. f may
// not stop the test.
func (c *check) together(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

// tick returns when the clock has moved on, so that the times which the Store
// sets from now on differ from those before.
func tick() {
	for start := time.Now(); time.Since(start) < 2*time.Millisecond; {
		runtime.Gosched()
	}
}

// random is seeded: a failure is the same at the next run.
func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

func cancelled(c *check) context.Context {
	ctx, cancel := context.WithCancel(c.Context())
	cancel()
	return ctx
}

func expired(c *check) context.Context {
	ctx, cancel := context.WithDeadline(c.Context(), epoch)
	c.Cleanup(cancel)
	return ctx
}

// describe names what matters of a record in a failure's message.
func describe(u *clerksync.User) string {
	switch {
	case u == nil:
		return "no record"
	case !u.DeletedAt.IsZero():
		return "a deleted record"
	case u.ClerkUpdatedAt.IsZero():
		return "one without a version"
	default:
		return "version " + u.ClerkUpdatedAt.UTC().Format(time.RFC3339Nano)
	}
}
