package clerksync_test

import (
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	record := func(version, synced int, name string) *clerksync.User {
		return &clerksync.User{ClerkID: "user_1", ClerkUpdatedAt: at(version), SyncedAt: at(synced), Name: name, Role: "A", Extra: map[string]any{"x": "1"}}
	}
	with := func(u *clerksync.User, f func(*clerksync.User)) *clerksync.User { f(u); return u }
	unversioned := func(u *clerksync.User) { u.ClerkUpdatedAt = time.Time{} }
	now := at(1000)
	for name, tt := range map[string]struct {
		stored, u *clerksync.User
		want      clerksync.Outcome
	}{
		"no record":                             {nil, record(1, 1, "a"), clerksync.Created},
		"deleted, newer offered":                {with(record(1, 1, "a"), func(u *clerksync.User) { u.DeletedAt = at(0) }), record(9, 9, "b"), clerksync.Deactivated},
		"newer":                                 {record(1, 1, "a"), record(2, 2, "a"), clerksync.Updated},
		"newer, seen earlier":                   {record(1, 9, "a"), record(2, 2, "b"), clerksync.Updated},
		"older":                                 {record(2, 2, "a"), record(1, 9, "b"), clerksync.Stale},
		"none stored":                           {with(record(1, 1, "a"), unversioned), record(1, 1, "a"), clerksync.Updated},
		"none offered":                          {record(1, 1, "a"), with(record(1, 1, "b"), unversioned), clerksync.Stale},
		"none at all, same":                     {with(record(1, 1, "a"), unversioned), with(record(1, 2, "a"), unversioned), clerksync.Unchanged},
		"none at all, other":                    {with(record(1, 1, "a"), unversioned), with(record(1, 2, "b"), unversioned), clerksync.Updated},
		"equal, same":                           {record(1, 1, "a"), record(1, 2, "a"), clerksync.Unchanged},
		"equal within a millisecond":            {record(1, 1, "a"), with(record(1, 1, "a"), func(u *clerksync.User) { u.ClerkUpdatedAt = at(1).Add(999_999) }), clerksync.Unchanged},
		"equal, other content":                  {record(1, 1, "a"), record(1, 2, "b"), clerksync.Updated},
		"equal, other content, seen at once":    {record(1, 1, "a"), record(1, 1, "b"), clerksync.Updated},
		"equal, other content, seen earlier":    {record(1, 5, "a"), record(1, 2, "b"), clerksync.Unchanged},
		"equal, other content, seen who knows":  {record(1, 5, "a"), with(record(1, 5, "b"), func(u *clerksync.User) { u.SyncedAt = time.Time{} }), clerksync.Updated},
		"equal, other content, future evidence": {record(1, 2000, "a"), record(1, 2, "b"), clerksync.Updated},
		"equal, the app's role":                 {record(1, 1, "a"), with(record(1, 2, "a"), func(u *clerksync.User) { u.Role = "B" }), clerksync.Unchanged},
		"equal, Clerk's role":                   {record(1, 1, "a"), with(record(1, 2, "a"), func(u *clerksync.User) { u.Role, u.RoleFromClerk = "B", true }), clerksync.Updated},
		"equal, extra gained":                   {record(1, 1, "a"), with(record(1, 2, "a"), func(u *clerksync.User) { u.Extra = map[string]any{"x": "1", "y": "2"} }), clerksync.Updated},
		"equal, extra renamed":                  {record(1, 1, "a"), with(record(1, 2, "a"), func(u *clerksync.User) { u.Extra = map[string]any{"y": "1"} }), clerksync.Updated},
		"equal, extra changed":                  {record(1, 1, "a"), with(record(1, 2, "a"), func(u *clerksync.User) { u.Extra = map[string]any{"x": "2"} }), clerksync.Updated},
		"equal, extra lost":                     {record(1, 1, "a"), with(record(1, 2, "a"), func(u *clerksync.User) { u.Extra = nil }), clerksync.Updated},
		"equal, later sign-in":                  {record(1, 1, "a"), with(record(1, 2, "a"), func(u *clerksync.User) { u.LastSignInAt = at(2) }), clerksync.Unchanged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := clerksync.Decide(tt.stored, tt.u, now); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// Every field of the table of Clerk-owned fields decides, and is of the kind that
// Stores expect.
func TestClerkFieldsDecide(t *testing.T) {
	t.Parallel()
	u := fullUser()
	u.DeletedAt = time.Time{}
	n := 0
	for path, v := range u.ClerkFields() {
		n++
		if v == nil {
			t.Errorf("%s: absent in a full record", path)
		}
	}
	if want := 13 + 1 + 2; n != want { // the table, the role, the two in Extra
		t.Errorf("%d Clerk-owned fields, want %d", n, want)
	}
	for name, change := range map[string]func(*clerksync.User){
		"email": func(u *clerksync.User) { u.Email = "" }, "name": func(u *clerksync.User) { u.Name = "" },
		"firstName": func(u *clerksync.User) { u.Profile.FirstName = "" }, "lastName": func(u *clerksync.User) { u.Profile.LastName = "" },
		"fullName": func(u *clerksync.User) { u.Profile.FullName = "" }, "imageUrl": func(u *clerksync.User) { u.Profile.ImageURL = "" },
		"phoneNumber": func(u *clerksync.User) { u.Profile.PhoneNumber = "" }, "birthday": func(u *clerksync.User) { u.Profile.Birthday = "" },
		"gender": func(u *clerksync.User) { u.Profile.Gender = "" }, "emailVerified": func(u *clerksync.User) { u.EmailVerified = false },
		"phoneVerified": func(u *clerksync.User) { u.PhoneVerified = false }, "banned": func(u *clerksync.User) { u.Banned = false },
		"clerkCreatedAt": func(u *clerksync.User) { u.ClerkCreatedAt = time.Time{} },
	} {
		changed := u.Clone()
		change(changed)
		if got := clerksync.Decide(u, changed, t0); got != clerksync.Updated {
			t.Errorf("%s removed: %v, want updated", name, got)
		}
	}
}
