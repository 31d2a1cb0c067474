package clerksync

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestOmitRefused(t *testing.T) {
	t.Parallel()
	all := allButBanned()
	slices.Sort(all)
	for name, tt := range map[string]struct {
		omit  []string
		field string
		want  []string // nil: nothing is left to write
	}{
		"e-mail":                     {nil, "email", []string{"email", "emailVerified"}},
		"e-mail verified":            {nil, "emailVerified", []string{"email", "emailVerified"}},
		"number":                     {nil, "profile.phoneNumber", []string{"phoneVerified", "profile.phoneNumber"}},
		"name":                       {nil, "name", []string{"name"}},
		"role":                       {nil, "role", []string{"role"}},
		"Extra":                      {nil, "plan", []string{"plan"}},
		"the next one":               {[]string{"name"}, "plan", []string{"name", "plan"}},
		"unknown":                    {nil, "", all},
		"the app's":                  {nil, "tenant", all},
		"the ban":                    {nil, "banned", all},
		"the same again":             {[]string{"email", "emailVerified"}, "email", all},
		"nothing but the ban":        {all, "banned", nil},
		"nothing but the ban, other": {all, "email", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := &User{ClerkID: "user_1", Email: "a@example.com", Role: "A", RoleFromClerk: true, Extra: map[string]any{"plan": "pro"}, Omit: tt.omit}
			before := slices.Clone(u.Omit)
			less := omitRefused(u, tt.field)
			var got []string
			if less != nil {
				got = slices.Sorted(slices.Values(less.Omit))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("omits %v, want %v", got, tt.want)
			}
			if !slices.Equal(u.Omit, before) {
				t.Errorf("the argument now omits %v", u.Omit)
			}
		})
	}
}

// Whatever fields are refused, in whatever order, it ends with the ban or with nothing.
func TestOmitRefusedEnds(t *testing.T) {
	t.Parallel()
	u := &User{ClerkID: "user_1"}
	for n := 0; u != nil; n++ {
		if n > maxRefusedFields+2 {
			t.Fatal("it does not end")
		}
		u = omitNext(u, &ConflictError{Field: clerkFields[n%len(clerkFields)].path}, n)
	}
}

func TestSameValue(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b any
		same bool
	}{
		{"a@example.com", "a@example.com", true}, {"a@example.com", "A@EXAMPLE.com", true}, {"a", "b", false},
		{nil, "a", false}, {"", nil, false}, {nil, nil, true}, {int64(1), int64(1), true}, {int64(1), "1", false},
		{[]any{"a"}, []any{"a"}, true}, {[]any{"a"}, []any{"b"}, false},
		{map[string]any{"a": 1}, map[string]any{"a": 1}, true},
	} {
		if sameValue(tt.a, tt.b) != tt.same || sameValue(tt.b, tt.a) != tt.same {
			t.Errorf("%v and %v", tt.a, tt.b)
		}
	}
}

// withoutField removes every field on which an app may have a unique index, and nothing else.
func TestWithoutField(t *testing.T) {
	t.Parallel()
	full := &User{
		ClerkID: "user_1", Email: "a", EmailVerified: true, PhoneVerified: true, Name: "b", Role: "c", RoleFromClerk: true,
		Profile: Profile{FirstName: "d", LastName: "e", FullName: "f", ImageURL: "g", PhoneNumber: "h", Birthday: "i", Gender: "j"},
		Extra:   map[string]any{"plan": "k", "seats": int64(1)},
	}
	fields := func(u *User) map[string]any {
		all := make(map[string]any)
		for path, value := range u.ClerkFields() {
			all[path] = value
		}
		return all
	}
	before := fields(full)
	for path, value := range before {
		less := withoutField(full, path)
		if _, isText := value.(string); !isText && path != "seats" {
			if less != nil {
				t.Errorf("%s is removed", path)
			}
			continue
		}
		if less == nil {
			t.Fatalf("%s is not removed", path)
		}
		after := fields(less)
		for other, was := range before {
			switch now := after[other]; {
			case other == path && now != nil:
				t.Errorf("%s stays", path)
			case other != path && now != was && (now != false || !slices.Contains(together(path), other)):
				t.Errorf("without %s, %s is %v", path, other, now)
			}
		}
	}
	if withoutField(full, "tenant") != nil {
		t.Error("a field of the app's is removed")
	}
	if fmt.Sprint(fields(full)) != fmt.Sprint(before) {
		t.Error("the argument is changed")
	}
}

func TestHandoverLog(t *testing.T) {
	t.Parallel()
	log, now := newHandoverLog(100), time.Unix(1e9, 0)
	type try struct {
		id, field string
		value     any
		after     time.Duration
		want      bool
	}
	for i, tt := range []try{
		{"user_1", "email", "a@example.com", 0, true},
		{"user_1", "email", "a@example.com", 0, false},
		{"user_2", "email", "a@example.com", 0, true},
		{"user_1", "email", "b@example.com", 0, true},
		{"user_1", "name", "a@example.com", 0, true},
		{"user_1", "email", "a@example.com", 59 * time.Second, false},
		{"user_1", "email", "a@example.com", 60 * time.Second, true},
		{"user_1", "email", "a@example.com", 90 * time.Second, false},
	} {
		if got := log.reserve(tt.id, tt.field, tt.value, now.Add(tt.after)); got != tt.want {
			t.Errorf("%d: %t", i, got)
		}
	}
	for key := range log.attempts.All() {
		if strings.Contains(fmt.Sprintf("%+v", key), "example") {
			t.Errorf("it keeps the address: %+v", key)
		}
	}
	for i := range 1000 {
		log.reserve(fmt.Sprint(i), "email", "a", now)
	}
	log.attempts.CleanUp()
	if n := log.attempts.EstimatedSize(); n > 100 {
		t.Errorf("it keeps %d", n)
	}
}

// A record that is written in part has the version that the Store leaves.
func TestKnownBan(t *testing.T) {
	t.Parallel()
	v := time.UnixMilli(1000).UTC()
	for name, tt := range map[string]struct {
		u    User
		want time.Time
	}{
		"whole":           {User{Banned: true, ClerkUpdatedAt: v}, v},
		"in part":         {User{Banned: true, ClerkUpdatedAt: v, Omit: []string{"email"}}, v.Add(-time.Millisecond)},
		"without version": {User{Banned: true, Omit: []string{"email"}}, time.Time{}},
	} {
		if got := knownBan(&tt.u); !got.ClerkUpdatedAt.Equal(tt.want) || !barred(got) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
