package storetest

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

// check is one run of a case. Each failure starts with the broken rule.
type check struct {
	t        testing.TB
	rule     string
	newStore func() clerksync.Store
}

func (c *check) errorf(format string, args ...any) {
	c.t.Helper()
	c.t.Errorf("rule broken: "+c.rule+"\n"+format, args...)
}

func (c *check) fatalf(format string, args ...any) {
	c.t.Helper()
	c.t.Fatalf("rule broken: "+c.rule+"\n"+format, args...)
}

// epoch is hour 0 of the tests' events. It is long past, so that no Store mistakes a version
// for one from the future.
var epoch = time.Date(2024, time.March, 1, 12, 0, 0, 0, time.UTC)

// hour returns the time of version n.
func hour(n int) time.Time { return epoch.Add(time.Duration(n) * time.Hour) }

// person returns a user at version n, with every field that Clerk owns. Its strings and
// numbers contain n, and SyncedAt and LastSignInAt grow with n. Every fifth version is banned.
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

// plainPerson returns a user at version n with few fields, for cases with many records: a Store that
// scans reads all fields of all records.
func plainPerson(id string, n int) *clerksync.User {
	return &clerksync.User{
		ClerkID: id, Name: "Ada " + strconv.Itoa(n), Role: clerksync.RoleTeacher,
		ClerkUpdatedAt: hour(n), SyncedAt: hour(n).Add(time.Second),
	}
}

// find returns the record, or nil if there is none. It checks what holds for every record.
func (c *check) find(s clerksync.Store, id string) *clerksync.User {
	c.t.Helper()
	u, err := s.User(c.t.Context(), id)
	if errors.Is(err, clerksync.ErrNotFound) {
		return nil
	}
	if err != nil {
		c.fatalf("User(%q): %v", id, err)
	}
	if u == nil {
		c.fatalf("User(%q) returns nil and no error", id)
		return nil
	}
	c.wellFormed("User", id, u)
	return u
}

// wellFormed checks what holds for every record that a method returns for an id.
func (c *check) wellFormed(method, id string, u *clerksync.User) {
	c.t.Helper()
	if u.ClerkID != id {
		c.errorf("%s of %q returns the record of %q", method, id, u.ClerkID)
	}
	if u.ID == "" {
		c.errorf("%s of %q: the record has no ID", method, id)
	}
	if u.RoleFromClerk || u.Partial || u.Omit != nil || u.ExternalID != "" || u.EmailProven {
		c.errorf("%s of %q: RoleFromClerk %t, Partial %t, Omit %v, ExternalID %q, EmailProven %t: want none of them in a record",
			method, id, u.RoleFromClerk, u.Partial, u.Omit, u.ExternalID, u.EmailProven)
	}
	if !u.CreateDue.IsZero() || u.Jobs != nil && *u.Jobs == (clerksync.Jobs{}) {
		c.errorf("%s of %q: CreateDue %v, Jobs %+v: want no CreateDue in a record, and no Jobs if there are none", method, id, u.CreateDue, u.Jobs)
	}
	for _, fault := range timeFaults(u) {
		c.errorf("%s of %q: %s", method, id, fault)
	}
}

// record is find for a record that must exist.
func (c *check) record(s clerksync.Store, id string) *clerksync.User {
	c.t.Helper()
	u := c.find(s, id)
	if u == nil {
		c.fatalf("there is no record of %q", id)
	}
	return u
}

// same fails if two records differ in any field.
func (c *check) same(what string, got, want *clerksync.User) {
	c.t.Helper()
	if d := diff(got, want); len(d) > 0 {
		c.errorf("%s:\n\t%s", what, strings.Join(d, "\n\t"))
	}
}

// offer upserts u and returns the record after it. It checks the outcome, the Result, and
// that the whole record is what the contract makes of it.
func (c *check) offer(s clerksync.Store, u *clerksync.User, want clerksync.Outcome) *clerksync.User {
	c.t.Helper()
	before := c.find(s, u.ClerkID)
	canonical, err := u.Canonical()
	if err != nil {
		c.t.Fatalf("storetest: the test's user is invalid: %v", err)
	}
	res, err := s.Upsert(c.t.Context(), u)
	if err != nil {
		c.fatalf("Upsert of %s: %v", describe(u), err)
	}
	after := c.record(s, u.ClerkID)
	if res.Outcome != want {
		c.errorf("Upsert of %s over %s: outcome %v, want %v", describe(u), describe(before), res.Outcome, want)
	}
	c.result(res, after)
	c.same("the record after an Upsert that must be "+want.String(), after, c.expected(before, after, canonical, want))
	return after
}

// deactivate deletes a user and returns the record, with the same checks as offer.
func (c *check) deactivate(s clerksync.Store, id string, at time.Time) *clerksync.User {
	c.t.Helper()
	before := c.find(s, id)
	res, err := s.Deactivate(c.t.Context(), id, at)
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
		want = c.newRecord(id, after)
	case before.DeletedAt.IsZero():
		c.allowUpdatedAt(want, after)
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

// result checks that a Result holds the stored record, if it holds one.
func (c *check) result(res clerksync.Result, stored *clerksync.User) {
	c.t.Helper()
	if res.User != nil {
		c.same("Result.User ("+res.Outcome.String()+") against the stored record", res.User, stored)
	}
}

// expected returns the record that an Upsert of u, in canonical form, must leave. The Store
// sets ID, CreatedAt and UpdatedAt: they are taken from after, once checked as far as possible.
func (c *check) expected(before, after, u *clerksync.User, outcome clerksync.Outcome) *clerksync.User {
	c.t.Helper()
	want := before.Clone()
	switch {
	case outcome == clerksync.Created:
		want = c.newRecord(u.ClerkID, after)
		want.Role, want.Location, want.IsActive = u.Role, u.Location, true
		if !u.CreateDue.IsZero() {
			want.Jobs = &clerksync.Jobs{Create: clerksync.JobState{Due: u.CreateDue}}
		}
		apply(want, u)
	case before == nil: // a wrong outcome, which offer has reported
		return after
	case outcome == clerksync.Updated:
		c.allowUpdatedAt(want, after)
		apply(want, u)
	case outcome == clerksync.Unchanged:
		confirm(want, u)
	}
	return want
}

// newRecord returns an expected new record, with only the fields that the Store sets.
func (c *check) newRecord(id string, after *clerksync.User) *clerksync.User {
	c.t.Helper()
	for name, t := range map[string]time.Time{"CreatedAt": after.CreatedAt, "UpdatedAt": after.UpdatedAt} {
		if off := time.Since(t); off.Abs() > time.Hour {
			c.errorf("%s of a new record is %v, want about the present", name, t)
		}
	}
	return &clerksync.User{ClerkID: id, ID: after.ID, CreatedAt: after.CreatedAt, UpdatedAt: after.UpdatedAt}
}

// allowUpdatedAt accepts a later UpdatedAt: it sets the expected one to the actual one.
func (c *check) allowUpdatedAt(want, after *clerksync.User) {
	c.t.Helper()
	if after.UpdatedAt.Before(want.UpdatedAt) {
		c.errorf("UpdatedAt went back from %v to %v", want.UpdatedAt, after.UpdatedAt)
	}
	want.UpdatedAt = after.UpdatedAt
}

// apply writes to r what an applied sync of u writes.
func apply(r, u *clerksync.User) {
	before := r.Clone()
	r.Email, r.Name, r.Profile = u.Email, u.Name, u.Profile
	r.EmailVerified, r.PhoneVerified, r.Banned = u.EmailVerified, u.PhoneVerified, u.Banned
	r.Extra, r.ClerkCreatedAt, r.ClerkUpdatedAt = u.Extra, u.ClerkCreatedAt, u.ClerkUpdatedAt
	if u.RoleFromClerk {
		r.Role = u.Role
	}
	if len(u.Omit) > 0 {
		keepOmitted(r, before, u)
	}
	confirm(r, u)
}

// keepOmitted takes what u omits from the record as it was before, and the version between
// that and u's.
func keepOmitted(r, before, u *clerksync.User) {
	kept, was := clerkText(r), clerkText(before)
	for _, path := range u.Omit {
		if kept[path] != nil {
			*kept[path] = *was[path]
		}
		switch path {
		case "role":
			r.Role = before.Role
		case "emailVerified":
			r.EmailVerified = before.EmailVerified
		case "phoneVerified":
			r.PhoneVerified = before.PhoneVerified
		case "banned":
			r.Banned = before.Banned
		case "clerkCreatedAt":
			r.ClerkCreatedAt = before.ClerkCreatedAt
		}
	}
	r.Extra = maps.Clone(u.Extra)
	for name, v := range before.Extra {
		if slices.Contains(u.Omit, name) || slices.Contains(u.Omit, "extraFields") {
			if r.Extra == nil {
				r.Extra = make(map[string]any)
			}
			r.Extra[name] = v
		}
	}
	r.ClerkUpdatedAt = before.ClerkUpdatedAt
	if v := u.ClerkUpdatedAt.Add(-time.Millisecond); v.After(r.ClerkUpdatedAt) && !u.ClerkUpdatedAt.IsZero() {
		r.ClerkUpdatedAt = v
	}
}

// clerkText returns the text fields that Clerk owns, by path.
func clerkText(u *clerksync.User) map[string]*string {
	return map[string]*string{
		"email": &u.Email, "name": &u.Name,
		"profile.firstName": &u.Profile.FirstName, "profile.lastName": &u.Profile.LastName,
		"profile.fullName": &u.Profile.FullName, "profile.imageUrl": &u.Profile.ImageURL,
		"profile.phoneNumber": &u.Profile.PhoneNumber,
		"profile.birthday":    &u.Profile.Birthday, "profile.gender": &u.Profile.Gender,
	}
}

// confirm moves SyncedAt and LastSignInAt forward: all that an Unchanged Upsert may write. With
// Omit, a record without a SyncedAt gets none.
func confirm(r, u *clerksync.User) {
	if len(u.Omit) > 0 && r.SyncedAt.IsZero() {
		u = u.Clone()
		u.SyncedAt = time.Time{}
	}
	if u.SyncedAt.After(r.SyncedAt) {
		r.SyncedAt = u.SyncedAt
	}
	if u.LastSignInAt.After(r.LastSignInAt) {
		r.LastSignInAt = u.LastSignInAt
	}
}

// rejected checks that there is an error, and that it contains no personal data of u: errors
// are logged.
func (c *check) rejected(what string, err error, u *clerksync.User) {
	c.t.Helper()
	if err == nil {
		c.errorf("%s: no error", what)
		return
	}
	for _, secret := range []string{u.Email, u.Name, u.Profile.PhoneNumber} {
		if secret != "" && strings.Contains(err.Error(), secret) {
			c.errorf("%s: the error's text contains personal data: %v", what, err)
		}
	}
}

// small returns a function that returns the Store for a case's next record: a new one for every six
// records, because a Store that scans all records gets slower with each one.
func (c *check) small() func() clerksync.Store {
	var s clerksync.Store
	n := 0
	return func() clerksync.Store {
		if n%6 == 0 {
			s = c.newStore()
		}
		n++
		return s
	}
}

// concurrently runs f(0) to f(n-1) on goroutines that start at the same time, and waits. f
// must not stop the test.
func (c *check) concurrently(n int, f func(i int)) {
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

// tick returns two milliseconds later, so that a time which the Store sets now differs from
// those it set before.
func tick() {
	for start := time.Now(); time.Since(start) < 2*time.Millisecond; {
		runtime.Gosched()
	}
}

// random returns a generator with a fixed seed, so that each run is the same.
func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

// cancelled returns a context that is done.
func cancelled(c *check) context.Context {
	ctx, cancel := context.WithCancel(c.t.Context())
	cancel()
	return ctx
}

// expired returns a context whose deadline has passed.
func expired(c *check) context.Context {
	ctx, cancel := context.WithDeadline(c.t.Context(), epoch)
	c.t.Cleanup(cancel)
	return ctx
}

// describe names a record in a failure message.
func describe(u *clerksync.User) string {
	switch {
	case u == nil:
		return "no record"
	case !u.DeletedAt.IsZero():
		return "a deleted record"
	case u.ClerkUpdatedAt.IsZero():
		return "a record without a version"
	default:
		return "version " + u.ClerkUpdatedAt.UTC().Format(time.RFC3339Nano)
	}
}
