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

// book is a ledger in which Ada has three revisions, the second banned, and two processes, a and b.
type book struct {
	*ledger
	a, b *process
	calm bool
}

func newBook() *book {
	b := &book{a: &process{name: "a"}, b: &process{name: "b"}, calm: true}
	b.ledger = newLedger(time.Minute, func(time.Time) bool { return b.calm })
	b.signUp(ada)
	b.signedUp(ada)
	b.revise(ada, true)
	b.revise(ada, false)
	return b
}

// webhook records the answer to a webhook with this revision of Ada.
func (b *book) webhook(eventType string, revision int, p *process, status int) error {
	lastName, _ := namesOf(ada, revision)
	user := map[string]any{"id": ada, "last_name": lastName, "updated_at": 1000 + revision}
	body, err := json.Marshal(map[string]any{"type": eventType, "data": user})
	if err != nil {
		return err
	}
	return b.acknowledged(body, p, status, time.Now())
}

// page is the app's answer to a visit: this revision of Ada, in the record with this _id.
func page(revision int, recordID string) string {
	const format = `{"_id":%q,"clerkId":%q,"email":%q,"isActive":true,"role":"STUDENT","profile":{"lastName":%q}}`
	lastName, email := namesOf(ada, revision)
	return fmt.Sprintf(format, recordID, ada, email, lastName)
}

// visit records a visit from beginning to end.
func (b *book) visit(p *process, status int, body string) error {
	return b.answered(b.ledger.visit(ada, p), status, []byte(body), true)
}

// visitAfterDeletion deletes Ada, which process by acknowledged this long ago. Then p serves her.
func (b *book) visitAfterDeletion(p, by *process, ago time.Duration) error {
	b.leave(ada)
	err := b.webhook("user.deleted", 3, by, 204)
	b.users[ada].promise.deletedAt = time.Now().Add(-ago)
	return errors.Join(err, b.visit(p, 200, page(3, "1")))
}

// expect checks for a violation that contains text, or for none if text is empty.
func expect(t *testing.T, name string, err error, text string) {
	t.Helper()
	if text == "" {
		if err != nil {
			t.Errorf("%s: got %v, want none", name, err)
		}
		return
	}
	if !errors.As(err, new(*violation)) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: got %v, want a violation with %q", name, err, text)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		do        func(*book) error
		violation string
	}{
		{"the latest revision", func(b *book) error { return b.visit(b.a, 200, page(3, "1")) }, ""},
		{"an old revision", func(b *book) error { return b.visit(b.a, 200, page(1, "1")) }, ""},
		{"an unknown revision", func(b *book) error {
			return b.visit(b.a, 200, page(4, "1"))
		}, "violated: a visit of user_ada was served revision 4 of 3"},
		{"a banned revision", func(b *book) error { return b.visit(b.a, 200, page(2, "1")) }, "banned"},
		{"inactive, once banned", func(b *book) error { return b.visit(b.a, 403, `{"code":"user_inactive"}`) }, ""},
		{"unknown, but exists", func(b *book) error { return b.visit(b.a, 403, `{"code":"user_unknown"}`) }, "who exists"},
		{"401", func(b *book) error { return b.visit(b.a, 401, `{"code":"token_expired"}`) }, "answered 401"},
		{"503", func(b *book) error { return b.visit(b.a, 503, `{"code":"unavailable"}`) }, ""},
		{"not JSON", func(b *book) error { return b.visit(b.a, 200, `<html>`) }, "without JSON"},
		{"another user's record", func(b *book) error {
			return b.visit(b.a, 200, strings.ReplaceAll(page(3, "1"), `"clerkId":"user_ada"`, `"clerkId":"user_alan"`))
		}, `the record of "user_alan"`},
		{"two revisions mixed", func(b *book) error {
			return b.visit(b.a, 200, strings.ReplaceAll(page(3, "1"), `"lastName":"r3"`, `"lastName":"r1"`))
		}, "mixed record"},
		{"two records", func(b *book) error {
			return errors.Join(b.visit(b.a, 200, page(3, "1")), b.visit(b.b, 200, page(3, "2")))
		}, "lost: the record of user_ada had _id 1 but has 2"},
		{"an older revision, same process", func(b *book) error {
			return errors.Join(b.visit(b.a, 200, page(3, "1")), b.visit(b.a, 200, page(1, "1")))
		}, "lost: user_ada was served revision 1 by a"},
		{"an older revision, another process", func(b *book) error {
			return errors.Join(b.visit(b.a, 200, page(3, "1")), b.visit(b.b, 200, page(1, "1")))
		}, ""},
		{"an older revision after a webhook, same process", func(b *book) error {
			return errors.Join(b.webhook("user.updated", 3, b.a, 204), b.visit(b.a, 200, page(1, "1")))
		}, "lost: user_ada was served revision 1 by a"},
		{"an older revision after a webhook, another process", func(b *book) error {
			return errors.Join(b.webhook("user.updated", 3, b.b, 204), b.visit(b.a, 200, page(1, "1")))
		}, ""},
		{"an older revision, webhook during the visit", func(b *book) error {
			v := b.ledger.visit(ada, b.a)
			return errors.Join(b.webhook("user.updated", 3, b.a, 204), b.answered(v, 200, []byte(page(1, "1")), true))
		}, ""},
		{"deleted, same process", func(b *book) error {
			return b.visitAfterDeletion(b.a, b.a, 0)
		}, "lost: user_ada was served 200 by a, which had acknowledged the deletion"},
		{"deleted, another process", func(b *book) error { return b.visitAfterDeletion(b.a, b.b, 0) }, ""},
		{"deleted long ago, another process", func(b *book) error {
			return b.visitAfterDeletion(b.a, b.b, 2*time.Minute)
		}, "lost: user_ada was served 200 more than 1m0s after the deletion"},
		{"deleted long ago, another process, in an outage", func(b *book) error {
			b.calm = false
			return b.visitAfterDeletion(b.a, b.b, 2*time.Minute)
		}, ""},
		{"webhook 400", func(b *book) error { return b.webhook("user.updated", 3, b.a, 400) }, "answered 400"},
		{"webhook 503", func(b *book) error { return b.webhook("user.updated", 3, b.a, 503) }, ""},
	} {
		expect(t, tt.name, tt.do(newBook()), tt.violation)
	}
}

// good is Ada's record after revision 3 and the second edit were acknowledged.
func good() record {
	r := record{ID: bson.NewObjectID(), ClerkID: ada, IsActive: true, Role: roleOf(2), Edit: 2}
	r.setRevision(3)
	r.Profile.Nickname = nicknameOf(2)
	r.ClerkUpdatedAt = time.UnixMilli(1003)
	return r
}

func (r *record) setRevision(n int) { r.Profile.LastName, r.Email = namesOf(ada, n) }

func (r *record) deleted() { r.DeletedAt, r.IsActive = time.UnixMilli(2000), false }

func TestRecords(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		change    func(*record)                        // nil removes the record
		before    func(b *book, recordID string) error // nil does nothing
		violation string
	}{
		{"as acknowledged", func(*record) {}, nil, ""},
		{"no record", nil, nil, "lost: user_ada has no record"},
		{"an older revision", func(r *record) {
			r.setRevision(1)
		}, nil, "lost: the record of user_ada has revision 1, but 3"},
		{"an older version", func(r *record) {
			r.ClerkUpdatedAt = time.UnixMilli(1002)
		}, nil, "lost: the record of user_ada has version 1002, but 1003"},
		{"an unknown revision", func(r *record) {
			r.setRevision(9)
		}, nil, "violated: the record of user_ada has revision 9 of 3"},
		{"two revisions mixed", func(r *record) { r.Profile.LastName = "r2" }, nil, "mixes revisions"},
		{"an older edit", func(r *record) {
			r.Edit, r.Role, r.Profile.Nickname = 1, roleOf(1), nicknameOf(1)
		}, nil, "lost: the record of user_ada has edit 1, but 2"},
		{"role overwritten", func(r *record) { r.Role = "STUDENT" }, nil, "overwritten"},
		{"nickname removed", func(r *record) { r.Profile.Nickname = "" }, nil, "overwritten"},
		{"deleted, but not in Clerk", func(r *record) { r.deleted() }, nil, "not in Clerk"},
		{"inactive, but not deleted", func(r *record) { r.IsActive = false }, nil, "isActive false"},
		{"created anew", func(*record) {}, func(b *book, _ string) error {
			return b.visit(b.a, 200, page(3, "1"))
		}, "lost: the record of user_ada has _id"},
		{"older than served", func(r *record) { r.setRevision(1) }, func(b *book, recordID string) error {
			return b.visit(b.b, 200, page(3, recordID))
		}, "lost: the record of user_ada has revision 1, but 3"},
		{"no tombstone", func(*record) {}, func(b *book, _ string) error {
			b.leave(ada)
			return b.webhook("user.deleted", 0, b.a, 204)
		}, "lost: user_ada has no tombstone"},
		{"a tombstone", func(r *record) { r.deleted() }, func(b *book, _ string) error {
			b.leave(ada)
			return b.webhook("user.deleted", 0, b.a, 204)
		}, ""},
		{"an active tombstone", func(r *record) { r.DeletedAt = time.Now() }, func(b *book, _ string) error {
			b.leave(ada)
			return nil
		}, "isActive true"},
	} {
		b, r := newBook(), good()
		if err := errors.Join(b.webhook("user.updated", 3, b.a, 204), b.webhook("user.updated", 1, b.b, 204)); err != nil {
			t.Fatal(tt.name, err)
		}
		for range 2 {
			b.done(ada, b.begin(ada))
		}
		if tt.before != nil {
			if err := tt.before(b, r.ID.Hex()); err != nil {
				t.Fatal(tt.name, err)
			}
		}
		if tt.change == nil {
			expect(t, tt.name, b.promises()[ada].kept(ada, record{}, false), tt.violation)
			continue
		}
		tt.change(&r)
		err := b.states()[ada].allows(r)
		if err == nil {
			err = b.promises()[ada].kept(ada, r, true)
		}
		expect(t, tt.name, err, tt.violation)
	}
}

// The app may edit a tombstone. Clerk's fields in it must not change.
func TestTombstoneWrittenTo(t *testing.T) {
	t.Parallel()
	b, r := newBook(), good()
	r.deleted()
	edited := r
	edited.Edit, edited.Role = 3, roleOf(3)
	if err := errors.Join(b.bury(good()), b.bury(r), b.bury(edited)); err != nil {
		t.Error(err)
	}
	late := r
	late.setRevision(1)
	expect(t, "a late webhook", b.bury(late), "lost: the record of user_ada was written to after its deletion")
}

func TestEqual(t *testing.T) {
	t.Parallel()
	clerk := `{"first_name":"Ada","last_name":"r3","image_url":"i","banned":false,
		"created_at":1,"updated_at":1003,"last_sign_in_at":5,
		"email_addresses":[{"email_address":"e","verification":{"status":"verified"}}]}`
	same := func() record {
		r := record{
			Name: "Ada r3", Email: "e", EmailVerified: true,
			LastSignInAt: time.UnixMilli(5), ClerkCreatedAt: time.UnixMilli(1), ClerkUpdatedAt: time.UnixMilli(1003),
		}
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

// The proof notices jobs that were lost, done for nobody, or repeated without an excuse.
func TestJobs(t *testing.T) {
	t.Parallel()
	create, del := ada+"/create", fmt.Sprintf("%s/delete/2000", ada)
	at := func(seconds int) time.Time { return time.UnixMilli(5000).Add(time.Duration(seconds) * time.Second) }
	for _, tt := range []struct {
		name      string
		deleted   bool
		change    func(r *record) // nil changes nothing
		effects   map[string][]effect
		killed    int // when process 1 was killed, in seconds; 0 for never
		violation string
	}{
		{name: "done", effects: map[string][]effect{create: {{1, 1, at(1)}}}},
		{name: "lost", violation: "lost: OnCreate of user_ada had no effect"},
		{name: "both done", deleted: true, effects: map[string][]effect{create: {{1, 1, at(1)}}, del: {{1, 1, at(2)}}}},
		{name: "deleted before OnCreate ran", deleted: true, effects: map[string][]effect{del: {{1, 1, at(2)}}}},
		{name: "OnDelete lost", deleted: true, effects: map[string][]effect{create: {{1, 1, at(1)}}}, violation: "lost: OnDelete"},
		{
			name: "another deletion", deleted: true, violation: "lost: OnDelete",
			effects: map[string][]effect{ada + "/delete/1999": {{1, 1, at(1)}}},
		},
		{
			name: "nobody's", violation: "effects of 2 jobs",
			effects: map[string][]effect{create: {{1, 1, at(1)}}, "user_none/create": {{1, 1, at(1)}}},
		},
		{name: "no record", deleted: true, change: func(r *record) { r.Email = "" }},
		{
			name: "no record, but welcomed", deleted: true, change: func(r *record) { r.Email = "" }, violation: "never had a record",
			effects: map[string][]effect{create: {{1, 1, at(1)}}},
		},
		{
			name: "welcomed after the clean-up", deleted: true, violation: "after OnDelete",
			effects: map[string][]effect{create: {{1, 1, at(3)}}, del: {{1, 1, at(2)}}},
		},
		{name: "still due", change: func(r *record) { r.Jobs.Create.Due = at(1) }, violation: "still due"},
		{name: "failed", change: func(r *record) { r.Jobs.Create.FailedAt = at(1) }, violation: "has failed"},
		{name: "repeated after a kill", killed: 2, effects: map[string][]effect{create: {{1, 1, at(1)}, {2, 2, at(9)}}}},
		{
			name: "repeated long before the kill", killed: 60, violation: "had the time",
			effects: map[string][]effect{create: {{1, 1, at(1)}, {2, 2, at(9)}}},
		},
		{
			name: "repeated without a kill", violation: "had the time",
			effects: map[string][]effect{create: {{2, 1, at(1)}, {1, 2, at(9)}}},
		},
		{
			name: "one attempt twice", killed: 2, violation: "attempt 1 follows attempt 1",
			effects: map[string][]effect{create: {{1, 1, at(1)}, {2, 1, at(9)}}},
		},
	} {
		r := good()
		if tt.deleted {
			r.deleted()
		}
		if tt.change != nil {
			tt.change(&r)
		}
		j := newJobs(1)
		j.effects = tt.effects
		j.excused = func(start int64, since time.Time) bool {
			return start == 1 && tt.killed > 0 && excuses(nil, since, at(tt.killed))
		}
		expect(t, tt.name, j.check(map[string]record{ada: r}, map[string]state{ada: {deleted: tt.deleted}}), tt.violation)
	}
}

func TestExcuses(t *testing.T) {
	t.Parallel()
	second := func(n float64) time.Time { return time.UnixMilli(int64(1000 * n)) }
	outages := []outage{{second(10), second(14)}, {second(18), second(20)}}
	for _, tt := range []struct {
		since, killed float64
		want          bool
	}{
		{1, 5.9, true}, {1, 6.1, false}, {6, 18.5, true}, {6, 24.9, true}, {6, 25.1, false}, {15, 24.9, true}, {21, 25.9, true}, {21, 26.1, false},
	} {
		if got := excuses(outages, second(tt.since), second(tt.killed)); got != tt.want {
			t.Errorf("an effect at %v, a kill at %v: %t, want %t", tt.since, tt.killed, got, tt.want)
		}
	}
}
