package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

const ada = "user_ada"

// book is a ledger in which Ada has three revisions, the second banned, and process a and b.
type book struct {
	*ledger
	a, b  *process
	quiet bool
}

func newBook() *book {
	b := &book{a: &process{name: "a"}, b: &process{name: "b"}, quiet: true}
	b.ledger = newLedger(time.Minute, func(time.Time) bool { return b.quiet })
	b.signUp(ada)
	b.signedUp(ada)
	b.revise(ada, true)
	b.revise(ada, false)
	return b
}

func (b *book) webhook(eventType string, revision int, p *process, status int) error {
	lastName, _ := namesOf(ada, revision)
	body, err := json.Marshal(map[string]any{"type": eventType, "data": map[string]any{"id": ada, "last_name": lastName, "updated_at": 1000 + revision}})
	if err != nil {
		return err
	}
	return b.acknowledged(body, p, status, time.Now())
}

func page(revision int, id string) string {
	lastName, email := namesOf(ada, revision)
	return fmt.Sprintf(`{"_id":%q,"clerkId":%q,"email":%q,"isActive":true,"role":"STUDENT","profile":{"lastName":%q}}`, id, ada, email, lastName)
}

// see is a visit from beginning to end.
func (b *book) see(p *process, status int, body string) error {
	return b.answered(b.visit(ada, p), status, []byte(body), true)
}

func TestVisitsThatMustNotBe(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		do   func(*book) error
		says string // empty: it may be
	}{
		"the latest":             {func(b *book) error { return b.see(b.a, 200, page(3, "1")) }, ""},
		"an old one":             {func(b *book) error { return b.see(b.a, 200, page(1, "1")) }, ""},
		"one that never was":     {func(b *book) error { return b.see(b.a, 200, page(4, "1")) }, "revision 4 of 3"},
		"a banned one":           {func(b *book) error { return b.see(b.a, 200, page(2, "1")) }, "banned"},
		"a refusal, once banned": {func(b *book) error { return b.see(b.a, 403, `{"code":"user_inactive"}`) }, ""},
		"unknown, and there":     {func(b *book) error { return b.see(b.a, 403, `{"code":"user_unknown"}`) }, "who is there"},
		"401":                    {func(b *book) error { return b.see(b.a, 401, `{"code":"token_expired"}`) }, "answered 401"},
		"503":                    {func(b *book) error { return b.see(b.a, 503, `{"code":"unavailable"}`) }, ""},
		"no JSON":                {func(b *book) error { return b.see(b.a, 200, `<html>`) }, "no JSON"},
		"another's": {func(b *book) error {
			return b.see(b.a, 200, strings.ReplaceAll(page(3, "1"), `"clerkId":"user_ada"`, `"clerkId":"user_alan"`))
		}, "record of \"user_alan\""},
		"two revisions mixed": {func(b *book) error {
			return b.see(b.a, 200, strings.ReplaceAll(page(3, "1"), `"lastName":"r3"`, `"lastName":"r1"`))
		}, "no one revision"},
		"a record made anew":   {func(b *book) error { return errors.Join(b.see(b.a, 200, page(3, "1")), b.see(b.b, 200, page(3, "2"))) }, "made anew"},
		"back, in one process": {func(b *book) error { return errors.Join(b.see(b.a, 200, page(3, "1")), b.see(b.a, 200, page(1, "1"))) }, "before"},
		"back, in another":     {func(b *book) error { return errors.Join(b.see(b.a, 200, page(3, "1")), b.see(b.b, 200, page(1, "1"))) }, ""},
		"back behind a webhook": {func(b *book) error {
			return errors.Join(b.webhook("user.updated", 3, b.a, 204), b.see(b.a, 200, page(1, "1")))
		}, "before"},
		"back behind another's webhook": {func(b *book) error {
			return errors.Join(b.webhook("user.updated", 3, b.b, 204), b.see(b.a, 200, page(1, "1")))
		}, ""},
		"deleted, and it knew":           {func(b *book) error { return b.deleted(b.a, b.a, 0) }, "by a, which had acknowledged the deletion"},
		"deleted, and another knew":      {func(b *book) error { return b.deleted(b.a, b.b, 0) }, ""},
		"deleted long ago":               {func(b *book) error { return b.deleted(b.a, b.b, 2*time.Minute) }, "after the deletion"},
		"deleted long ago, in an outage": {func(b *book) error { b.quiet = false; return b.deleted(b.a, b.b, 2*time.Minute) }, ""},
		"a webhook refused":              {func(b *book) error { return b.webhook("user.updated", 3, b.a, 400) }, "answered 400"},
		"a webhook put off":              {func(b *book) error { return b.webhook("user.updated", 3, b.a, 503) }, ""},
		"an answer while one was renewed": {func(b *book) error {
			v := b.visit(ada, b.a)
			return errors.Join(b.webhook("user.updated", 3, b.a, 204), b.answered(v, 200, []byte(page(1, "1")), true))
		}, ""},
	} {
		err := tt.do(newBook())
		if tt.says == "" && err != nil || tt.says != "" && (!errors.As(err, new(*violation)) || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: got %v, want %q", name, err, tt.says)
		}
	}
}

// deleted has Ada deleted, to by's knowledge and ago, and then served by p.
func (b *book) deleted(p, by *process, ago time.Duration) error {
	b.leave(ada)
	err := b.webhook("user.deleted", 3, by, 204)
	b.users[ada].deletedAt = time.Now().Add(-ago)
	return errors.Join(err, b.see(p, 200, page(3, "1")))
}

// good is Ada's record as it has to be once revision 3 and the second edit were acknowledged.
func good() record {
	r := record{ID: bson.NewObjectID(), ClerkID: ada, IsActive: true, Role: roleOf(2), Edit: 2}
	r.Profile.LastName, r.Email = namesOf(ada, 3)
	r.Profile.Nickname = nicknameOf(2)
	r.ClerkUpdatedAt = time.UnixMilli(1003)
	return r
}

func TestRecordsThatMustNotBe(t *testing.T) {
	t.Parallel()
	type end struct {
		r     record
		found bool
	}
	for name, tt := range map[string]struct {
		do   func(*book, *end) error
		says string
	}{
		"as acknowledged":     {func(*book, *end) error { return nil }, ""},
		"lost":                {func(_ *book, e *end) error { e.found = false; e.r = record{}; return nil }, "no record"},
		"an older revision":   {func(_ *book, e *end) error { e.r.Profile.LastName, e.r.Email = namesOf(ada, 1); return nil }, "revision 1, and 3"},
		"an older version":    {func(_ *book, e *end) error { e.r.ClerkUpdatedAt = time.UnixMilli(1002); return nil }, "version 1002, and 1003"},
		"two revisions mixed": {func(_ *book, e *end) error { e.r.Profile.LastName = "r2"; return nil }, "torn"},
		"an edit lost": {func(_ *book, e *end) error {
			e.r.Edit, e.r.Role, e.r.Profile.Nickname = 1, roleOf(1), nicknameOf(1)
			return nil
		}, "edit 1, and 2"},
		"a role overwritten": {func(_ *book, e *end) error { e.r.Role = "STUDENT"; return nil }, "overwritten"},
		"a nickname removed": {func(_ *book, e *end) error { e.r.Profile.Nickname = ""; return nil }, "overwritten"},
		"deleted, and not":   {func(_ *book, e *end) error { e.r.DeletedAt, e.r.IsActive = time.Now(), false; return nil }, "not in Clerk"},
		"made anew":          {func(b *book, _ *end) error { return b.see(b.a, 200, page(3, "1")) }, "made anew"},
		"served and gone back": {func(b *book, e *end) error {
			e.r.Profile.LastName, e.r.Email = namesOf(ada, 1)
			return b.see(b.b, 200, page(3, e.r.ID.Hex()))
		}, "revision 1, and 3"},
		"no tombstone": {func(b *book, _ *end) error { b.leave(ada); return b.webhook("user.deleted", 0, b.a, 204) }, "no tombstone"},
		"a tombstone": {func(b *book, e *end) error {
			b.leave(ada)
			e.r.DeletedAt, e.r.IsActive = time.Now(), false
			return b.webhook("user.deleted", 0, b.a, 204)
		}, ""},
		"an active tombstone":     {func(b *book, e *end) error { b.leave(ada); e.r.DeletedAt = time.Now(); return nil }, "isActive true"},
		"inactive by itself":      {func(_ *book, e *end) error { e.r.IsActive = false; return nil }, "isActive false"},
		"a revision from nowhere": {func(_ *book, e *end) error { e.r.Profile.LastName, e.r.Email = namesOf(ada, 9); return nil }, "revision 9 of 3"},
	} {
		b, e := newBook(), &end{good(), true}
		err := errors.Join(b.webhook("user.updated", 3, b.a, 204), b.webhook("user.updated", 1, b.b, 204))
		for range 2 {
			b.done(ada, b.begin(ada))
		}
		if err = errors.Join(err, tt.do(b, e)); err != nil {
			t.Fatal(name, err)
		}
		if e.found {
			err = b.states()[ada].allows(e.r)
		}
		if err == nil {
			err = b.promises()[ada].kept(ada, e.r, e.found)
		}
		if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: got %v, want %q", name, err, tt.says)
		}
	}
}

// A tombstone is the app's to edit, and nobody else's.
func TestTombstoneWrittenTo(t *testing.T) {
	t.Parallel()
	b, r := newBook(), good()
	r.DeletedAt, r.IsActive = time.UnixMilli(2000), false
	edited := r
	edited.Edit, edited.Role = 3, roleOf(3)
	if err := errors.Join(b.bury(good()), b.bury(r), b.bury(edited)); err != nil {
		t.Error(err)
	}
	late := r
	late.Profile.LastName, late.Email = namesOf(ada, 1)
	if err := b.bury(late); err == nil || !strings.Contains(err.Error(), "after its deletion") {
		t.Errorf("got %v", err)
	}
}

// At the end a record equals Clerk's user in every field.
func TestEqual(t *testing.T) {
	t.Parallel()
	clerk := `{"first_name":"Ada","last_name":"r3","image_url":"i","banned":false,"created_at":1,"updated_at":1003,"last_sign_in_at":5,
		"email_addresses":[{"email_address":"e","verification":{"status":"verified"}}]}`
	same := func() record {
		r := record{Name: "Ada r3", Email: "e", EmailVerified: true, LastSignInAt: time.UnixMilli(5), ClerkCreatedAt: time.UnixMilli(1), ClerkUpdatedAt: time.UnixMilli(1003)}
		r.Profile.FirstName, r.Profile.LastName, r.Profile.FullName, r.Profile.ImageURL = "Ada", "r3", "Ada r3", "i"
		return r
	}
	if err := equal(ada, []byte(clerk), same()); err != nil {
		t.Error(err)
	}
	for field, change := range map[string]func(*record){
		"name":                func(r *record) { r.Name = "Ada" },
		"email":               func(r *record) { r.Email = "" },
		"emailVerified":       func(r *record) { r.EmailVerified = false },
		"phoneVerified":       func(r *record) { r.PhoneVerified = true },
		"banned":              func(r *record) { r.Banned = true },
		"lastSignInAt":        func(r *record) { r.LastSignInAt = time.UnixMilli(4) },
		"clerkCreatedAt":      func(r *record) { r.ClerkCreatedAt = time.Time{} },
		"clerkUpdatedAt":      func(r *record) { r.ClerkUpdatedAt = time.UnixMilli(1004) },
		"profile.firstName":   func(r *record) { r.Profile.FirstName = "" },
		"profile.lastName":    func(r *record) { r.Profile.LastName = "r2" },
		"profile.fullName":    func(r *record) { r.Profile.FullName = "r3" },
		"profile.imageUrl":    func(r *record) { r.Profile.ImageURL = "" },
		"profile.phoneNumber": func(r *record) { r.Profile.PhoneNumber = "+1" },
	} {
		r := same()
		change(&r)
		if err := equal(ada, []byte(clerk), r); err == nil || !strings.Contains(err.Error(), field+" of") {
			t.Errorf("%s: got %v", field, err)
		}
	}
}
