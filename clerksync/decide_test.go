package clerksync_test

import (
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clerksync/clerksync-go/clerksync"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	type user = clerksync.User
	// record has a version, a time of confirmation and a name, and changes to the rest.
	record := func(version, synced int, name string, changes ...func(*user)) *user {
		u := &user{
			ClerkID: "user_1", ClerkUpdatedAt: at(version), SyncedAt: at(synced), Name: name, Role: "A",
			Extra: map[string]any{"x": "1"},
		}
		for _, change := range changes {
			change(u)
		}
		return u
	}
	unversioned := func(u *user) { u.ClerkUpdatedAt = time.Time{} }
	unconfirmed := func(u *user) { u.SyncedAt = time.Time{} }
	deleted := func(u *user) { u.DeletedAt = at(0) }
	laterInTheMillisecond := func(u *user) { u.ClerkUpdatedAt = at(1).Add(999_999) }
	appRole := func(u *user) { u.Role = "B" }
	clerkRole := func(u *user) { u.Role, u.RoleFromClerk = "B", true }
	signedIn := func(u *user) { u.LastSignInAt = at(2) }
	extra := func(extra map[string]any) func(*user) { return func(u *user) { u.Extra = extra } }
	gained, renamed := extra(map[string]any{"x": "1", "y": "2"}), extra(map[string]any{"y": "1"})
	changed, lost := extra(map[string]any{"x": "2"}), extra(nil)
	omit := func(paths ...string) func(*user) { return func(u *user) { u.Omit = paths } }
	now := at(1000)
	one := record(1, 1, "a")
	for name, tt := range map[string]struct {
		stored, offered *user
		want            clerksync.Outcome
	}{
		"no record": {nil, one, clerksync.Created},
		"deleted, newer offered": {record(1, 1, "a", deleted), record(9, 9, "b"),
			clerksync.Deactivated},
		"newer":                    {one, record(2, 2, "a"), clerksync.Updated},
		"newer, confirmed earlier": {record(1, 9, "a"), record(2, 2, "b"), clerksync.Updated},
		"older":                    {record(2, 2, "a"), record(1, 9, "b"), clerksync.Stale},
		"no version stored":        {record(1, 1, "a", unversioned), one, clerksync.Updated},
		"no version offered":       {one, record(1, 1, "b", unversioned), clerksync.Stale},
		"no versions, same": {record(1, 1, "a", unversioned), record(1, 2, "a", unversioned),
			clerksync.Unchanged},
		"no versions, other": {record(1, 1, "a", unversioned), record(1, 2, "b", unversioned),
			clerksync.Updated},
		"equal, same":                            {one, record(1, 2, "a"), clerksync.Unchanged},
		"equal within a millisecond":             {one, record(1, 1, "a", laterInTheMillisecond), clerksync.Unchanged},
		"equal, other content":                   {one, record(1, 2, "b"), clerksync.Updated},
		"equal, other content, at the same time": {one, record(1, 1, "b"), clerksync.Updated},
		"equal, other content, earlier":          {record(1, 5, "a"), record(1, 2, "b"), clerksync.Unchanged},
		"equal, other content, at no known time": {record(1, 5, "a"), record(1, 5, "b", unconfirmed),
			clerksync.Updated},
		"equal, stored confirmed in the future": {record(1, 2000, "a"), record(1, 2, "b"), clerksync.Updated},
		"equal, the app's role":                 {one, record(1, 2, "a", appRole), clerksync.Unchanged},
		"equal, Clerk's role":                   {one, record(1, 2, "a", clerkRole), clerksync.Updated},
		"equal, extra gained":                   {one, record(1, 2, "a", gained), clerksync.Updated},
		"equal, extra renamed":                  {one, record(1, 2, "a", renamed), clerksync.Updated},
		"equal, extra changed":                  {one, record(1, 2, "a", changed), clerksync.Updated},
		"equal, extra lost":                     {one, record(1, 2, "a", lost), clerksync.Updated},
		"equal, later sign-in":                  {one, record(1, 2, "a", signedIn), clerksync.Unchanged},

		"omit, older":                    {record(2, 2, "a"), record(1, 9, "b", omit("email")), clerksync.Stale},
		"omit, equal, other content":     {one, record(1, 2, "b", omit("email")), clerksync.Updated},
		"omit, equal, earlier":           {record(1, 5, "a"), record(1, 2, "b", omit("email")), clerksync.Unchanged},
		"omit, equal, omitted content":   {one, record(1, 2, "b", omit("name")), clerksync.Unchanged},
		"omit, equal, Clerk's role":      {one, record(1, 2, "a", clerkRole, omit("role")), clerksync.Unchanged},
		"omit, equal, extra lost":        {one, record(1, 2, "a", lost, omit("x")), clerksync.Unchanged},
		"omit, equal, extra renamed":     {one, record(1, 2, "a", renamed, omit("x")), clerksync.Updated},
		"omit, equal, all of extra":      {one, record(1, 2, "a", renamed, omit("extraFields")), clerksync.Unchanged},
		"omit, equal, unknown name":      {one, record(1, 2, "b", omit("nam")), clerksync.Updated},
		"omit, 1 ms newer, same":         {one, record(2, 2, "a", omit("email")), clerksync.Unchanged},
		"omit, 1 ms newer, omitted only": {one, record(2, 2, "b", omit("name")), clerksync.Unchanged},
		"omit, 1 ms newer, other":        {one, record(2, 2, "b", omit("email")), clerksync.Updated},
		"omit, 1 ms newer, earlier":      {record(1, 9, "a"), record(2, 2, "b", omit("email")), clerksync.Unchanged},
		"omit, 1 ms newer, stored confirmed in the future": {record(1, 2000, "a"), record(2, 2, "b", omit("email")),
			clerksync.Updated},
		"omit, 2 ms newer, earlier":         {record(1, 9, "a"), record(3, 2, "b", omit("email")), clerksync.Updated},
		"omit nothing, 1 ms newer, earlier": {record(1, 9, "a"), record(2, 2, "b", omit()), clerksync.Updated},
		"omit, 2 ms newer, same":            {one, record(3, 3, "a", omit("email")), clerksync.Updated},
		"omit nothing, 1 ms newer, same":    {one, record(2, 2, "a", omit()), clerksync.Updated},
		"omit, no version stored": {record(1, 1, "a", unversioned), record(1, 2, "a", omit("email")),
			clerksync.Updated},
		"omit, no version offered": {one, record(1, 1, "a", unversioned, omit("email")), clerksync.Stale},
		"omit, deleted": {record(1, 1, "a", deleted), record(9, 9, "a", omit("email")),
			clerksync.Deactivated},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := clerksync.Decide(tt.stored, tt.offered, now); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// A difference in any Clerk-owned field makes Decide return Updated.
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
	if want := 13 + 1 + 2; n != want { // the fields, the role, and two in Extra
		t.Errorf("%d Clerk-owned fields, want %d", n, want)
	}
	for name, change := range map[string]func(*clerksync.User){
		"email": func(u *clerksync.User) { u.Email = "" }, "name": func(u *clerksync.User) { u.Name = "" },
		"firstName": func(u *clerksync.User) { u.Profile.FirstName = "" }, "lastName": func(u *clerksync.User) {
			u.Profile.LastName = ""
		},
		"fullName": func(u *clerksync.User) { u.Profile.FullName = "" }, "imageUrl": func(u *clerksync.User) {
			u.Profile.ImageURL = ""
		},
		"phoneNumber": func(u *clerksync.User) { u.Profile.PhoneNumber = "" }, "birthday": func(u *clerksync.User) {
			u.Profile.Birthday = ""
		},
		"gender": func(u *clerksync.User) { u.Profile.Gender = "" }, "emailVerified": func(u *clerksync.User) {
			u.EmailVerified = false
		},
		"phoneVerified": func(u *clerksync.User) { u.PhoneVerified = false }, "banned": func(u *clerksync.User) {
			u.Banned = false
		},
		"clerkCreatedAt": func(u *clerksync.User) { u.ClerkCreatedAt = time.Time{} },
	} {
		changed := u.Clone()
		change(changed)
		if got := clerksync.Decide(u, changed, t0); got != clerksync.Updated {
			t.Errorf("%s removed: %v, want updated", name, got)
		}
	}
}

// An omitted field is not yielded, whichever it is.
func TestClerkFieldsOmit(t *testing.T) {
	t.Parallel()
	all := maps.Collect(fullUser().ClerkFields())
	for path := range all {
		u := fullUser()
		u.Omit = []string{path}
		want := maps.Clone(all)
		delete(want, path)
		if diff := cmp.Diff(want, maps.Collect(u.ClerkFields())); diff != "" {
			t.Errorf("%s omitted (-want +got):\n%s", path, diff)
		}
	}
	u := fullUser()
	u.Omit = []string{"extraFields"}
	if got := maps.Collect(u.ClerkFields()); len(got) != len(all)-len(u.Extra) {
		t.Errorf("with extraFields omitted: %v", got)
	}
}
