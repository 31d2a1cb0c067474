package clerksync_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/clerksync/clerksync-go/clerksync"
	"github.com/google/go-cmp/cmp"
)

func fullUser() *clerksync.User {
	return &clerksync.User{
		ID: "65f000000000000000000001", ClerkID: "user_1", Email: "ada@example.com", Name: "Ada Lovelace", Role: clerksync.RoleTeacher,
		Profile:  clerksync.Profile{FirstName: "Ada", LastName: "Lovelace", FullName: "Ada Lovelace", ImageURL: "https://img.example/1", PhoneNumber: "+15555550100", Birthday: "1815-12-10", Gender: "f"},
		Location: &clerksync.Location{Country: "GB", City: "London", State: "England", Timezone: "Europe/London"}, LastSignInAt: t0, CreatedAt: t0, UpdatedAt: t0,
		EmailVerified: true, PhoneVerified: true, IsActive: true, Banned: true,
		Extra:          map[string]any{"plan": "pro", "tags": []any{"a", map[string]any{"b": int64(1)}}},
		ClerkCreatedAt: t0, ClerkUpdatedAt: t0, SyncedAt: t0, DeletedAt: t0, RoleFromClerk: true, Partial: true,
	}
}

func TestUserJSON(t *testing.T) {
	t.Parallel()
	got, err := json.MarshalIndent(fullUser(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "_id": "65f000000000000000000001",
  "clerkId": "user_1",
  "email": "ada@example.com",
  "name": "Ada Lovelace",
  "role": "TEACHER",
  "profile": {
    "firstName": "Ada",
    "lastName": "Lovelace",
    "fullName": "Ada Lovelace",
    "imageUrl": "https://img.example/1",
    "phoneNumber": "+15555550100",
    "birthday": "1815-12-10",
    "gender": "f"
  },
  "location": {
    "country": "GB",
    "city": "London",
    "state": "England",
    "timezone": "Europe/London"
  },
  "lastSignInAt": "2026-03-01T12:00:00Z",
  "createdAt": "2026-03-01T12:00:00Z",
  "updatedAt": "2026-03-01T12:00:00Z",
  "emailVerified": true,
  "phoneVerified": true,
  "isActive": true,
  "banned": true,
  "extra": {
    "plan": "pro",
    "tags": [
      "a",
      {
        "b": 1
      }
    ]
  }
}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
	got, _ = json.Marshal(&clerksync.User{ClerkID: "user_1"})
	if want := `{"clerkId":"user_1","profile":{},"emailVerified":false,"phoneVerified":false,"isActive":false,"banned":false}`; string(got) != want {
		t.Errorf("JSON of an empty record is %s, want %s", got, want)
	}
}

func TestClone(t *testing.T) {
	t.Parallel()
	if (*clerksync.User)(nil).Clone() != nil {
		t.Error("the clone of nil is not nil")
	}
	u, c := fullUser(), fullUser().Clone()
	if diff := cmp.Diff(u, c); diff != "" {
		t.Fatalf("clone differs (-want +got):\n%s", diff)
	}
	c = u.Clone()
	c.Location.City = "Paris"
	c.Extra["plan"] = "free"
	c.Extra["tags"].([]any)[1].(map[string]any)["b"] = int64(2)
	if diff := cmp.Diff(fullUser(), u); diff != "" {
		t.Errorf("changing the clone changed the original (-want +got):\n%s", diff)
	}
}

func TestCanonicalExtra(t *testing.T) {
	t.Parallel()
	type plan string
	three := 3
	deep := any("bottom")
	for range 33 {
		deep = []any{deep}
	}
	later := time.Date(2026, 3, 1, 13, 0, 0, 1_999_999, time.FixedZone("CET", 3600))
	for name, tt := range map[string]struct {
		in, want any
		fault    string
	}{
		"string":          {in: "a", want: "a"},
		"named string":    {in: plan("pro"), want: "pro"},
		"invalid UTF-8":   {in: "a\xff", want: "a\uFFFD"},
		"bool":            {in: true, want: true},
		"int":             {in: 3, want: int64(3)},
		"uint8":           {in: uint8(3), want: int64(3)},
		"float32":         {in: float32(0.5), want: 0.5},
		"json integer":    {in: json.Number("9007199254740993"), want: int64(9007199254740993)},
		"json fraction":   {in: json.Number("0.5"), want: 0.5},
		"pointer":         {in: &three, want: int64(3)},
		"time":            {in: later, want: t0.Add(time.Millisecond)},
		"strings":         {in: []string{"a", "b"}, want: []any{"a", "b"}},
		"empty slice":     {in: []int{}, want: []any{}},
		"array":           {in: [2]bool{true, false}, want: []any{true, false}},
		"map":             {in: map[plan]int{"a": 1}, want: map[string]any{"a": int64(1)}},
		"nested nil":      {in: []any{nil}, want: []any{nil}},
		"raw JSON":        {in: map[string]any{"a": []any{1.5, nil, "x"}}, want: map[string]any{"a": []any{1.5, nil, "x"}}},
		"raw message":     {in: json.RawMessage(`{"a":[1,null]}`), want: map[string]any{"a": []any{1.0, nil}}},
		"raw null":        {in: json.RawMessage(`null`)},
		"no raw message":  {in: json.RawMessage(nil)},
		"not JSON":        {in: json.RawMessage(`{`), fault: "not JSON"},
		"bytes":           {in: []byte("a"), fault: "cannot be stored"},
		"nil":             {in: nil},
		"nil pointer":     {in: (*int)(nil)},
		"nil slice":       {in: []string(nil)},
		"nil map":         {in: map[string]int(nil)},
		"too large":       {in: uint64(math.MaxUint64), fault: "does not fit"},
		"not a number":    {in: math.NaN(), fault: "NaN"},
		"infinite":        {in: []any{math.Inf(1)}, fault: "+Inf"},
		"no json number":  {in: json.Number("x"), fault: "not a number"},
		"json NaN":        {in: json.Number("NaN"), fault: "NaN"},
		"a cycle":         {in: cycle(), fault: "nested over"},
		"struct":          {in: struct{ A int }{1}, fault: "cannot be stored"},
		"function":        {in: func() {}, fault: "cannot be stored"},
		"other keys":      {in: map[int]string{1: "a"}, fault: "cannot be stored"},
		"nested operator": {in: map[string]any{"$where": "1"}, fault: "not a field name"},
		"nested dot":      {in: []any{map[string]any{"a.b": 1}}, fault: "not a field name"},
		"too deep":        {in: deep, fault: "nested over"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, err := (&clerksync.User{ClerkID: "user_1", Extra: map[string]any{"x": tt.in}}).Canonical()
			if tt.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fault) || !strings.Contains(err.Error(), "Extra") {
					t.Errorf("error is %v, want it to say %q", err, tt.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, ok := u.Extra["x"]
			if diff := cmp.Diff(tt.want, got); diff != "" || ok != (tt.want != nil) {
				t.Errorf("value (-want +got):\n%s", diff)
			}
			again, err := u.Canonical()
			if err != nil || !cmp.Equal(u, again) {
				t.Errorf("the canonical form of the canonical form differs: %v", err)
			}
		})
	}
}

func cycle() any {
	var v any
	v = &v
	return v
}

func TestCanonicalText(t *testing.T) {
	t.Parallel()
	bad := "a\xff"
	u, err := (&clerksync.User{
		ClerkID: "user_1", Email: bad, Name: bad, Role: clerksync.Role(bad),
		Profile:  clerksync.Profile{FirstName: bad, LastName: bad, FullName: bad, ImageURL: bad, PhoneNumber: bad, Birthday: bad, Gender: bad},
		Location: &clerksync.Location{Country: bad, City: bad, State: bad, Timezone: bad},
	}).Canonical()
	if err != nil {
		t.Fatal(err)
	}
	if raw := fmt.Sprintf("%+v %+v", u, u.Location); strings.Contains(raw, "\xff") || strings.Count(raw, "a\uFFFD") != 14 {
		t.Errorf("not all text is UTF-8: %q", raw)
	}
	if u, err := (&clerksync.User{ClerkID: "user_1", Location: &clerksync.Location{}}).Canonical(); err != nil || u.Location != nil {
		t.Errorf("an empty location: %+v, %v", u, err)
	}
	for name, u := range map[string]*clerksync.User{"nil": nil, "no id": {}, "invalid id": {ClerkID: bad}, "invalid name": {ClerkID: "user_1", Extra: map[string]any{bad: 1}}} {
		if c, err := u.Canonical(); err == nil {
			t.Errorf("%s: got %+v", name, c)
		}
	}
}

func TestExtraNames(t *testing.T) {
	t.Parallel()
	bad := []string{"", "$set", "a$", "a.b", "a\x00", "_id", "__v", "extraFields"}
	raw, _ := json.Marshal(fullUser())
	var record map[string]any
	_ = json.Unmarshal(raw, &record)
	delete(record, "extra")
	for name := range record {
		bad = append(bad, name)
	}
	bad = append(bad, "clerkCreatedAt", "clerkUpdatedAt", "syncedAt", "deletedAt")
	for _, name := range bad {
		if _, err := (&clerksync.User{ClerkID: "user_1", Extra: map[string]any{name: 1}}).Canonical(); err == nil {
			t.Errorf("the name %q is accepted", name)
		} else if want := fmt.Sprintf("%q", name); !strings.Contains(err.Error(), want) {
			t.Errorf("the error %q does not name %s", err, want)
		}
	}
	for _, name := range []string{"plan", "Email", "a b", "é", "_x"} {
		if _, err := (&clerksync.User{ClerkID: "user_1", Extra: map[string]any{name: 1}}).Canonical(); err != nil {
			t.Errorf("the name %q is refused: %v", name, err)
		}
	}
	if _, err := (&clerksync.User{}).Canonical(); err == nil {
		t.Error("a User without a ClerkID is accepted")
	}
}

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
